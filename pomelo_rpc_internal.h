/* SPDX-License-Identifier: MIT */
/* pomelo_rpc_internal.h -- calls between servers: what the modules above use.
 *
 * One native link a pair of servers and direction that is needed; frames of
 * `u32 length | envelope` (docs/PROTOCOL.md). User remotes and the framework's
 * own operations are different name spaces: an operation is a number. Every
 * call that is accepted completes exactly once, by its deadline, on a later
 * turn. */
#ifndef PMI_RPC_INTERNAL_H
#define PMI_RPC_INTERNAL_H

#include "pomelo_count_internal.h"
#include "pomelo_router_internal.h"

typedef struct pmi_rpc pmi_rpc;

typedef enum pmi_op {
    PMI_OP_CALL = 0, /* a user remote: method */
    PMI_OP_FORWARD =
        1, /* a client's request: method = route, extra = session */
    PMI_OP_SESSION = 2,   /* bind, unbind, sync, kick, find: extra says which */
    PMI_OP_PUSH = 3,      /* method = route, extra = receivers */
    PMI_OP_BROADCAST = 4, /* method = route, extra = which sessions */
    PMI_OP_PRESENCE = 5,  /* is a uid still there? extra says what */
    PMI_OP_COUNT = 6
} pmi_op; /* PMI_COUNT_SERVED_* stand in this order */

typedef struct pmi_rpc_send_opts {
    pmi_op op;
    pm_slice method;       /* "type.service.method", or a route; <= 255 bytes */
    const char *server_id; /* NULL: a server of `type`, chosen by `param` */
    pm_slice type;
    pm_param param;
    pm_slice extra;  /* the operation's own bytes */
    pm_slice manner; /* of a push: pmi_frame.manner. A notify waits for a peer
                        that is slow in this manner too, others are kept */
    pm_body body;
    uint32_t deadline_ms; /* 0: the app's default */
    uint64_t trace_id;    /* 0: drawn */
} pmi_rpc_send_opts;

typedef struct pmi_rpc_answer {
    pm_rpc_result result; /* body borrowed until the callback returns */
    pm_slice extra;       /* likewise */
} pmi_rpc_answer;
typedef void (*pmi_rpc_answer_cb)(const pmi_rpc_answer *answer, void *ctx);

/* All of `opts` is borrowed until this call returns (copied when the router
 * answers later). cb NULL: a notify. Errors as pm_rpc_invoke. */
pm_err pmi_rpc_send(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                    pmi_rpc_answer_cb cb, void *ctx, uint64_t *call_id);
/* A call that completes with `err` on a later turn, without being sent. */
pm_err pmi_rpc_refuse(pmi_rpc *rpc, pm_err err, pmi_rpc_answer_cb cb, void *ctx,
                      uint64_t *call_id);
/* No callback any more, at once (the caller completes its side itself). False:
 * it had completed. */
bool pmi_rpc_forget(pmi_rpc *rpc, uint64_t call_id);

/* Serving. The function must end `call` by pm_call_reply, pm_call_fail or
 * pmi_call_answer. */
void pmi_rpc_serve(pmi_rpc *rpc, pmi_op op,
                   void (*serve)(pm_app *app, pm_call *call));
pm_slice pmi_call_extra(const pm_call *call);  /* borrowed until serve returns,
                                                  or kept by pm_call_keep */
pm_slice pmi_call_manner(const pm_call *call); /* likewise */
/* Ends the call with a result of any kind. detail may be NULL. */
pm_err pmi_call_answer(pm_call *call, pm_err err, int code, const char *detail,
                       pm_body body, pm_slice extra);
/* How long it takes until its end goes in there; it lasts as long as the app.
 */
void pmi_call_measure(pm_call *call, pmi_histogram **times);
/* A pointer of the server side's on the call, and word that the caller will not
 * hear the answer any more (link down, caller's deadline). At most once; the
 * call must still be ended. */
void pmi_call_on_gone(pm_call *call, void (*gone)(pm_call *call, void *ctx),
                      void *ctx);

/* ---- Life -------------------------------------------------------------- */
pm_err pmi_rpc_new(pm_app *app, pmi_rpc **out);
/* Listens on the server's port (when it has one) and links to all the others.
 * PM_ECONFIG a host off loopback without secret and TLS; PM_EADDR; ... */
pm_err pmi_rpc_start(pmi_rpc *rpc);
/* Other certificates for links that begin from now on. PM_ECONFIG, PM_ENOMEM */
pm_err pmi_rpc_renew(pmi_rpc *rpc, const pm_tls_opts *tls);
/* Draining: tells the peers that no new call should be sent here. */
void pmi_rpc_drain(pmi_rpc *rpc);
/* They have heard it, and what they had sent before is here. */
bool pmi_rpc_heard(const pmi_rpc *rpc);
/* Calls in flight, both ways; 0 = idle. */
size_t pmi_rpc_busy(const pmi_rpc *rpc);
/* Completes every call with PM_ECLOSED (callbacks run inside), closes links.
 * The struct stays until pmi_rpc_free. */
void pmi_rpc_close(pmi_rpc *rpc);
void pmi_rpc_free(pmi_rpc *rpc);

#endif
