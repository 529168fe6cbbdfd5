/* SPDX-License-Identifier: MIT */
/* pomelo_connector_internal.h -- the frontend: connections, handshake,
 * heartbeat, data, kick, limits.
 *
 *   INITED --handshake--> (callback) --answer--> WAIT_ACK --ack--> WORKING
 *      any state --malformed, limit, kick, peer gone--> CLOSED */
#ifndef PMI_CONNECTOR_INTERNAL_H
#define PMI_CONNECTOR_INTERNAL_H

#include "core/conn.h"
#include "core/tls.h"
#include "pomelo_handler_internal.h"

typedef struct pmi_connector pmi_connector;
pm_err pmi_connector_new(pm_app *app, pmi_connector **out);
/* Opens the client port. */
pm_err pmi_connector_start(pmi_connector *connector);
uint16_t pmi_connector_port(const pmi_connector *connector);
/* No new connections. */
void pmi_connector_drain(pmi_connector *connector);
/* Kicks everybody ("server stop") and closes. */
void pmi_connector_kick_all(pmi_connector *connector, const char *reason);
/* Another certificate for handshakes that begin from now on. PM_ECONFIG,
 * PM_ENOMEM */
pm_err pmi_connector_renew(pmi_connector *connector, const pm_tls_opts *tls);
/* Of the client port; NULL: it is plain. */
const pmi_tls_counts *pmi_connector_tls(const pmi_connector *connector);
/* Ends all connections at once. */
void pmi_connector_close(pmi_connector *connector);
void pmi_connector_free(pmi_connector *connector);
uint32_t pmi_connector_count(const pmi_connector *connector);
/* Gathers for the buffer scheduler. */
struct pmi_gatherer *pmi_connector_gatherer(pm_app *app);
/* Connections closed so far, by reason. */
const uint64_t *pmi_connector_closed(const pmi_connector *connector);

/* One push, encoded once per framing and shared by reference. */
typedef struct pmi_push {
    pmi_chunk *chunk;  /* [room for a WebSocket head][package] */
    size_t package_at; /* stream connections send from here */
    size_t frame_at;   /* WebSocket connections from here */
    pmi_chunk *lean;   /* the same without spare room, for slow clients; NULL:
                          none needed it yet */
    pmi_terms terms;
    bool apart; /* it is not simply queued: a policy, the scheduler */
} pmi_push;
/* How a push waits in a client's queue. */
pmi_terms pmi_connector_terms(pm_app *app, pm_slice route,
                              const pmi_manner *manner);
/* PM_EINVAL, PM_ESIZE, PM_EPROTOBUF, PM_ENOMEM */
pm_err pmi_connector_encode_push(pm_app *app, pm_slice route, pm_body body,
                                 const pmi_manner *manner, pmi_push *out);
/* The same bytes to one more session of this frontend. PM_EDROPPED: its queue
 * is full. */
pm_err pmi_connector_send_push(pm_session *session, pmi_push *push);
void pmi_push_fini(pmi_push *push);

#endif
