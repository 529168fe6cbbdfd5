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

/* Every route that was registered or declared, in that order. each returns
 * false to stop. */
void pmi_handlers_each(pmi_handlers *handlers,
                       bool (*each)(const pmi_route_entry *entry, void *ctx),
                       void *ctx);

#endif
