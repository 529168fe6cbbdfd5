/* SPDX-License-Identifier: MIT */
/* pomelo_handler_internal.h -- handler table, dictionary, dispatch, forwarding.
 */
#ifndef PMI_HANDLER_INTERNAL_H
#define PMI_HANDLER_INTERNAL_H

#include "pomelo_filter_internal.h"
#include "pomelo_proto_internal.h"

typedef struct pmi_handlers pmi_handlers;
/* PM_EJSON, PM_EDEPTH the protos; PM_ENOMEM */
pm_err pmi_handlers_new(pm_app *app, pmi_handlers **out);
/* Builds the dictionary and finds each route's schemas: before the ports open.
 * PM_ESIZE, PM_ENOMEM */
pm_err pmi_handlers_start(pmi_handlers *handlers);
void pmi_handlers_free(pmi_handlers *handlers);

/* What the handshake tells every client. Borrowed until the app is freed. */
const pmi_handshake_sys *pmi_handlers_sys(const pmi_handlers *handlers);

/* One message of a client, on its frontend. `msg` is borrowed. PM_OK, also when
 * it was dropped as Pomelo does; PM_ENOMEM. */
pm_err pmi_handler_message(pmi_handlers *handlers, pm_session *session,
                           const pmi_message *msg, pmi_rsa *key,
                           pmi_answer_cb answer);
/* Encodes a body for a client: by the server's schema of `route` where there is
 * one (JSON only), else as it is. Appends. A refused schema gives an empty
 * body. */
pm_err pmi_handler_encode(pmi_handlers *handlers, pm_slice route, pm_body body,
                          pmi_buf *out);

/* What clients (and frontends for them) asked for and was refused, counted. */
typedef enum pmi_refused {
    PMI_REFUSED_TYPE,   /* a message that is neither request, notify nor push */
    PMI_REFUSED_ROUTE,  /* no dot, or a number that nobody has: no answer */
    PMI_REFUSED_SHAPE,  /* not three parts: 500 */
    PMI_REFUSED_METHOD, /* no such handler: 500 */
    PMI_REFUSED_BODY,   /* its schema or signature does not fit: no answer */
    PMI_REFUSED_LAG,    /* the loop lags: 503 */
    PMI_REFUSED_RATE,   /* too many from one session: 503 */
    PMI_REFUSED_COUNT
} pmi_refused;
void pmi_handlers_refuse(pmi_handlers *handlers, pmi_refused why);
const uint64_t *pmi_handlers_refused(const pmi_handlers *handlers);

#endif
