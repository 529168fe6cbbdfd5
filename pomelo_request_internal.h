/* SPDX-License-Identifier: MIT */
/* pomelo_request_internal.h -- one client message on its way.
 *
 *   START -> global befores -> local: befores -> handler -> error handler
 *              |                              -> afters (reverse) -+
 *              |            or forward: router -> rpc -------------+-> answer
 *              +- error -> global error handler -------------------+-> global
 * afters
 *
 * Whoever holds the request (a filter, the handler, the forwarding) ends his
 * turn by one call, at once or later; pmi_handler_run then takes it on. The
 * wire side (client, deadline) may end earlier: then it is cancelled, goes its
 * way to the end, and nobody hears the answer. */
#ifndef PMI_REQUEST_INTERNAL_H
#define PMI_REQUEST_INTERNAL_H

#include "pomelo_count_internal.h"
#include "pomelo_dialect_internal.h"
#include "pomelo_session_internal.h"

typedef struct pmi_requests pmi_requests;

typedef enum pmi_stage {
    PMI_STAGE_GLOBAL_BEFORE,
    PMI_STAGE_DISPATCH, /* here, or to another server */
    PMI_STAGE_BEFORE,
    PMI_STAGE_HANDLER,
    PMI_STAGE_FORWARD, /* with another server */
    PMI_STAGE_ERROR,
    PMI_STAGE_AFTER,
    PMI_STAGE_GLOBAL_ERROR,
    PMI_STAGE_ANSWER,
    PMI_STAGE_GLOBAL_AFTER,
    PMI_STAGE_END
} pmi_stage;

/* The wire side's end of a request: called exactly once. `response` is
 * borrowed; NULL: nobody is to hear anything (dropped, or the client is gone).
 * What it returns is what pm_reply_* tells the handler. */
typedef pm_err (*pmi_answer_cb)(pm_request *req, const pm_response *response);

/* One registered route. */
typedef struct pmi_route_entry {
    pm_handler_cb cb; /* NULL: only declared */
    void *ctx;
    bool local;       /* of this app's own type */
    uint8_t type_len; /* of the first part */
    uint8_t route_len;
    char *route;                        /* owned */
    const pmi_dialect *client, *server; /* schemas in use; NULL: none */
    const pmi_dialect_message *client_message, *server_message; /* or NULL */
    pmi_histogram *times; /* owned; NULL: never asked for yet */
} pmi_route_entry;

struct pm_request {
    pm_app *app; /* NULL once the app is freed */
    pm_loop *loop;
    pm_session *session;    /* a reference */
    pmi_route_entry *entry; /* NULL: no such route here */
    pmi_link in_session, in_app;
    pmi_timer deadline;
    pmi_answer_cb answer;
    void *origin;      /* for answer: pm_call on a backend */
    const char *route; /* entry's, or owned_route */
    char *owned_route;
    uint8_t route_len, type_len;
    uint32_t wire_id; /* the client's; 0: a notify */
    uint64_t id;      /* 0 until somebody asks */
    pm_body body;
    uint8_t *owned_body; /* kept */
    struct cJSON *tree;  /* parsed */
    pm_cancel_cb on_cancel;
    void *cancel_ctx;
    uint64_t started_us;
    uint64_t call_id; /* forwarding: the call under way */
    pmi_stage stage;
    uint32_t at;      /* filter of this stage */
    bool held;        /* somebody outside owns the next step */
    bool running;     /* handler_run is on the stack for it */
    bool body_valid;  /* body may still be read */
    bool global;      /* global filters take part (frontends) */
    bool answered;    /* the wire side has ended: answered or cancelled */
    bool dropped;     /* pm_request_drop */
    pm_err cancelled; /* PM_OK, or why */
    pm_response response;
    pmi_buf response_store;        /* owns response.body when it must last */
    struct pmi_serial_wait *waits; /* in the lanes of serial filters */
    char detail[96];               /* owns response.detail likewise */
};

pm_err pmi_requests_new(pm_app *app, pmi_requests **out);
/* Cancels all that live with PM_ECLOSED. */
void pmi_requests_close(pmi_requests *requests);
void pmi_requests_free(pmi_requests *requests);
size_t pmi_requests_busy(const pmi_requests *requests);

/* A request that holds a reference on the session. NULL: no memory. */
pm_request *pmi_request_new(pmi_requests *requests, pm_session *session);
/* Sets route: entry's text, or a copy. PM_ENOMEM */
pm_err pmi_request_set_route(pm_request *req, pmi_route_entry *entry,
                             pm_slice route);
/* The wire side ends: on_cancel runs, the deadline is cleared, the session
 * forgets it. With PM_ETIMEOUT the client still gets {"code":500}. */
void pmi_request_cancel(pm_request *req, pm_err why);
void pmi_request_cancel_session(pm_session *session, pm_err why);
/* Storage back. Called at PMI_STAGE_END. */
void pmi_request_release(pm_request *req);
/* The holder's turn ends with this answer. Whoever looks at answers before they
 * are sent (filters) sees a copy; else it is sent from the borrowed bytes at
 * once. `req` is gone afterwards. */
pm_err pmi_request_respond(pm_request *req, pm_err err, const char *detail,
                           pm_body body);
/* Sends what is in req->response, unless the wire side has ended already. */
pm_err pmi_request_send(pm_request *req);
/* Replaces req->response by a copy. PM_ENOMEM */
pm_err pmi_request_set_response(pm_request *req, pm_err err, const char *detail,
                                pm_body body);
/* Pomelo's body of a failed request: {"code":500} rules. Appends JSON. */
pm_err pmi_request_fail_text(const struct cJSON *body, uint32_t depth,
                             pmi_buf *out);

/* Set by pomelo_handler (up by pointer): takes a request on. */
void pmi_requests_set_run(pmi_requests *requests, void (*run)(pm_request *req));
void pmi_request_go_on(pm_request *req);
/* A filter or an error handler looks at answers: from now on they are copied.
 */
void pmi_requests_watch(pmi_requests *requests);
/* Those whose route nobody has registered. NULL: none yet. Borrowed. */
const pmi_histogram *pmi_requests_stray_times(const pmi_requests *requests);

#endif
