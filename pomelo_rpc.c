/* SPDX-License-Identifier: MIT */
/* pomelo_rpc.c -- calls between servers: asking.
 *
 * An rpc_call waits in a slot (its number is slot and generation, so that a
 * late answer finds nothing) and in the list of the link that it went out on.
 * It completes by the answer, the deadline, the link's loss, a cancellation or
 * the end of the app, whichever is first, and once. A call that fails before it
 * is sent completes on the next turn. Being asked is pomelo_call's. Start at
 * pmi_rpc_send and rpc_frame_answer. */
#include "pomelo_rpc_internal.h"
#include "pomelo_call_internal.h"

#define RPC_SPARE_MAX 2048
#define RPC_CHOICES_MAX 1                     /* most routers answer at once */
#define RPC_GENERATION_FIRST (UINT32_MAX - 3) /* it wraps early, or untried */
#define RPC_DETAIL_MAX 200
#define RPC_TRACE_SHIFT 29 /* five bytes on the wire */

typedef struct rpc_call {
    struct pmi_rpc *rpc;
    uint64_t id;        /* generation (32) | slot (32) */
    pmi_server *server; /* a reference; NULL: not chosen yet */
    pmi_peer *peer;     /* the link that it went out on */
    pmi_link in_peer;   /* its calls, or rpc.loose */
    union {
        pmi_timer deadline;
        pmi_task task; /* completes on a later turn */
    };
    pmi_rpc_answer_cb cb;
    void *ctx;
    pm_err err;            /* what the task tells */
    bool failing;          /* the task is under way */
    bool routing;          /* the router has it */
    bool starting;         /* pmi_rpc_send has not returned: not accepted yet */
    struct rpc_copy *copy; /* what the router must outlast */
} rpc_call;

/* The arguments of a call whose router answers later. */
typedef struct rpc_copy {
    pmi_rpc_send_opts opts;
    uint8_t bytes[];
} rpc_copy;

typedef struct rpc_slot {
    rpc_call *call;
    uint32_t generation;
    uint32_t next_free; /* slot + 1 */
} rpc_slot;

struct pmi_rpc {
    pm_app *app;
    const pmi_env *env;
    pmi_peers peers;
    pmi_asked asked;
    rpc_slot *slots;
    uint32_t slots_count, free_slot; /* first free + 1 */
    uint32_t busy;                   /* asked for and not completed */
    uint64_t push_keys[2];           /* of hashes: rpc_terms */
    uint64_t last_trace; /* starts anywhere: servers draw different ones */
    pmi_spares calls;
    pmi_spares choices;
    pmi_link loose; /* calls on no link: failing, routing, or to ourselves */
    bool closed;
};

static const pmi_peer_ops rpc_peer_ops;

/* ---- Slots ------------------------------------------------------------- */

static bool rpc_grow_slots(pmi_rpc *rpc)
{
    uint32_t count = rpc->slots_count ? 2 * rpc->slots_count : 64;
    rpc_slot *slots =
        pmi_resize_array(rpc->env, rpc->slots, count, sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = count; i-- > rpc->slots_count;) {
        slots[i].call = NULL;
        slots[i].generation = RPC_GENERATION_FIRST;
        slots[i].next_free = rpc->free_slot;
        rpc->free_slot = i + 1;
    }
    rpc->slots = slots;
    rpc->slots_count = count;
    return true;
}

static rpc_call *rpc_find(pmi_rpc *rpc, uint64_t id)
{
    uint32_t slot = (uint32_t)id;
    if (slot >= rpc->slots_count || !rpc->slots[slot].call ||
        rpc->slots[slot].call->id != id)
        return NULL;
    return rpc->slots[slot].call;
}

static rpc_call *rpc_call_new(pmi_rpc *rpc)
{
    rpc_call *call;
    uint32_t slot;
    if (!rpc->free_slot && !rpc_grow_slots(rpc))
        return NULL;
    call = pmi_spares_get(&rpc->calls);
    if (!call)
        return NULL;
    slot = rpc->free_slot - 1;
    rpc->free_slot = rpc->slots[slot].next_free;
    if (++rpc->slots[slot].generation == 0)
        rpc->slots[slot].generation = 1; /* no call has the number 0 */
    rpc->slots[slot].call = call;
    call->rpc = rpc;
    call->id = (uint64_t)rpc->slots[slot].generation << 32 | slot;
    pmi_list_add(&rpc->loose, &call->in_peer);
    rpc->busy++;
    return call;
}

/* Out of everything; the storage goes back. */
static void rpc_call_end(rpc_call *call)
{
    pmi_rpc *rpc = call->rpc;
    uint32_t slot = (uint32_t)call->id;
    rpc->slots[slot].call = NULL;
    rpc->slots[slot].next_free = rpc->free_slot;
    rpc->free_slot = slot + 1;
    rpc->busy--;
    if (call->failing)
        pmi_task_cancel(&call->task);
    else
        pmi_timer_clear(&call->deadline);
    pmi_list_remove(&call->in_peer);
    pmi_free(rpc->env, call->copy);
    if (call->server) {
        call->server->in_flight--;
        pmi_server_unref(pmi_app_cluster(rpc->app), call->server);
    }
    pmi_spares_put(&rpc->calls, call);
}

/* The one place where a call completes. */
static void rpc_complete(rpc_call *call, const pmi_rpc_answer *answer)
{
    pmi_rpc *rpc = call->rpc;
    pm_app *app = rpc->app;
    pmi_rpc_answer_cb cb = call->cb;
    void *ctx = call->ctx;
    pmi_rpc_answer told = *answer;
    char id[256]; /* the server may go inside the callback */
    if (call->server) {
        size_t len = strlen(call->server->pub.id);
        memcpy(id, call->server->pub.id, pmi_min(len, sizeof id - 1));
        id[pmi_min(len, sizeof id - 1)] = 0;
        told.result.server_id = id;
    }
    rpc_call_end(call);
    pmi_count_call(app, told.result.err);
    if (cb)
        cb(&told, ctx);
    if (!rpc->busy)
        pmi_app_check_drained(app);
}

static void rpc_complete_with(rpc_call *call, pm_err err)
{
    pmi_rpc_answer answer = {{err, 0, pm_strerror(err), {0}, NULL}, {0}};
    rpc_complete(call, &answer);
}

static void rpc_fail_now(pmi_task *task)
{
    rpc_call *call = PMI_OUTER(task, rpc_call, task);
    rpc_complete_with(call, call->err);
}

/* Completes on a later turn. It leaves its link, whose loss must not tell it
 * something else meanwhile. */
static void rpc_fail_later(rpc_call *call, pm_err err)
{
    if (call->failing)
        return;
    pmi_list_remove(&call->in_peer);
    pmi_list_add(&call->rpc->loose, &call->in_peer);
    pmi_timer_clear(&call->deadline);
    call->failing = true;
    call->err = err;
    memset(&call->task, 0, sizeof call->task);
    pmi_loop_defer(pm_app_loop(call->rpc->app), &call->task, rpc_fail_now);
}

static void rpc_late(pmi_timer *timer)
{
    rpc_complete_with(PMI_OUTER(timer, rpc_call, deadline), PM_ETIMEOUT);
}

/* ---- Asking ------------------------------------------------------------ */

static bool rpc_is_self(const pmi_rpc *rpc, const pmi_server *server)
{
    return &server->pub == pm_app_server(rpc->app);
}

/* The frontend's own link, where its requests come from and are answered, also
 * takes what is done to its sessions: so the order of all that is kept. */
static pmi_peer *rpc_link_for(const pmi_server *server, pmi_op op)
{
    bool to_sessions =
        op == PMI_OP_SESSION || op == PMI_OP_PUSH || op == PMI_OP_BROADCAST;
    return to_sessions && server->back ? server->back : server->peer;
}

/* How a notify waits for a peer that is slow. What replaces something replaces
 * what went to the same receivers by the same route. */
static const pmi_terms *
rpc_terms(const pmi_rpc *rpc, const pmi_rpc_send_opts *opts, pmi_terms *terms)
{
    const pm_slice parts[] = {opts->manner, opts->method, opts->extra};
    uint64_t key = (uint64_t)opts->op + 1;
    if (!opts->manner.len)
        return NULL;
    terms->policy = (pm_push_policy) * (const uint8_t *)opts->manner.data;
    /* A link is not closed for a push. */
    if (terms->policy == PM_PUSH_DEFAULT || terms->policy == PM_PUSH_CLOSE)
        terms->policy = PM_PUSH_KEEP;
    for (size_t i = 0; i < PMI_COUNT(parts); i++)
        if (terms->policy == PM_PUSH_REPLACE)
            key = pmi_map_hash(rpc->push_keys[0] ^ key, rpc->push_keys[1],
                               parts[i].data, parts[i].len) |
                  1;
    terms->key = key;
    return terms;
}

/* Puts the frame on its way. What is refused here is the caller's own business
 * (memory, size, the queue's limit); PM_EDOWN is the target's. call NULL: a
 * notify. */
static pm_err rpc_transmit(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                           pmi_server *server, rpc_call *call)
{
    pmi_peer *peer = rpc_link_for(server, opts->op);
    pmi_frame frame = {.kind = PMI_FRAME_CALL};
    pmi_terms terms = {0};
    pm_err err;
    if (rpc_is_self(rpc, server))
        return pmi_asked_self(&rpc->asked, opts, call ? call->id : UINT64_MAX);
    if (!peer)
        return PM_EDOWN;
    err = pmi_peer_ready(peer);
    if (err)
        return err;
    frame.id = call ? call->id : 0;
    frame.op = (uint32_t)opts->op;
    frame.notify = !call;
    frame.deadline_ms = opts->deadline_ms;
    frame.trace_id = opts->trace_id;
    frame.method = opts->method;
    frame.extra = opts->extra;
    frame.manner = opts->manner;
    frame.body = opts->body;
    err =
        pmi_peer_send(peer, &frame, call ? NULL : rpc_terms(rpc, opts, &terms));
    if (err == PM_OK && call) {
        call->peer = peer;
        pmi_list_remove(&call->in_peer);
        pmi_list_add(&peer->calls, &call->in_peer);
    }
    return err == PM_ECLOSED ? PM_EDOWN : err;
}

/* The server is known. PM_OK: sent, or failing on a later turn. */
static pm_err rpc_send_to(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                          pmi_server *server, rpc_call *call)
{
    pm_err err;
    if (call) {
        call->server = server;
        pmi_server_ref(server);
        server->in_flight++;
    }
    err = rpc_transmit(rpc, opts, server, call);
    if (err != PM_EDOWN)
        return err;
    if (call)
        rpc_fail_later(call, PM_EDOWN);
    return PM_OK;
}

static pm_err rpc_not_found(rpc_call *call)
{
    if (call)
        rpc_fail_later(call, PM_ENOSERVER);
    return PM_OK;
}

/* The router has answered, inside pmi_rpc_send or later. */
typedef struct rpc_choice {
    pmi_rpc *rpc;
    const pmi_rpc_send_opts *opts; /* NULL: pmi_rpc_send has returned */
    rpc_call *call;                /* NULL: a notify */
    uint64_t call_id;
    rpc_copy *copy; /* of a notify that waits */
    bool answered;
    pm_err err;
} rpc_choice;

static rpc_choice *rpc_choice_new(pmi_rpc *rpc)
{
    rpc_choice *choice = pmi_spares_get(&rpc->choices);
    if (choice)
        choice->rpc = rpc;
    return choice;
}

static void rpc_choice_free(rpc_choice *choice)
{
    pmi_spares_put(&choice->rpc->choices, choice);
}

static void rpc_chosen_late(rpc_choice *choice, pmi_server *server)
{
    pmi_rpc *rpc = choice->rpc;
    rpc_call *call = choice->call_id ? rpc_find(rpc, choice->call_id) : NULL;
    rpc_copy *copy = call ? call->copy : choice->copy;
    pm_err err = PM_OK;
    if (choice->call_id && (!call || call->failing)) {
        /* Completed meanwhile: nothing is sent. */
    } else if (rpc->closed) {
        err = PM_ECLOSED;
    } else if (!server) {
        err = PM_ENOSERVER;
    } else {
        err = rpc_send_to(rpc, &copy->opts, server, call);
    }
    if (call && err)
        rpc_fail_later(call, err);
    if (call)
        call->routing = false;
    pmi_free(rpc->env, choice->copy);
    rpc_choice_free(choice);
}

static void rpc_chosen(pmi_server *server, void *ctx)
{
    rpc_choice *choice = ctx;
    if (!choice->opts) {
        rpc_chosen_late(choice, server);
        return;
    }
    choice->answered = true;
    if (server)
        choice->err =
            rpc_send_to(choice->rpc, choice->opts, server, choice->call);
    else
        choice->err = rpc_not_found(choice->call);
}

static void rpc_copy_slice(uint8_t **at, pm_slice *slice)
{
    if (slice->len)
        memcpy(*at, slice->data, slice->len);
    slice->data = *at;
    *at += slice->len;
}

static rpc_copy *rpc_copy_opts(pmi_rpc *rpc, const pmi_rpc_send_opts *opts)
{
    size_t len = opts->method.len + opts->type.len + opts->extra.len +
                 opts->body.data.len;
    rpc_copy *copy = pmi_alloc(rpc->env, sizeof *copy + len);
    uint8_t *at;
    if (!copy)
        return NULL;
    copy->opts = *opts;
    at = copy->bytes;
    rpc_copy_slice(&at, &copy->opts.method);
    rpc_copy_slice(&at, &copy->opts.type);
    rpc_copy_slice(&at, &copy->opts.extra);
    rpc_copy_slice(&at, &copy->opts.body.data);
    return copy;
}

/* The router wants time: what the call needs is copied, and `choice` waits. */
static pm_err rpc_choice_waits(rpc_choice *choice, rpc_copy *copy)
{
    choice->opts = NULL;
    if (choice->call) {
        choice->call->copy = copy;
        choice->call->routing = true;
        choice->call_id = choice->call->id;
    } else {
        choice->copy = copy;
    }
    choice->call = NULL;
    return PM_OK;
}

static pm_err rpc_send_routed(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                              rpc_call *call)
{
    rpc_choice *choice = rpc_choice_new(rpc);
    rpc_copy *copy;
    pm_err err;
    if (!choice)
        return PM_ENOMEM;
    choice->opts = opts;
    choice->call = call;
    err = pmi_router_choose(pmi_app_router(rpc->app), opts->type, opts->param,
                            rpc_chosen, choice);
    if (err == PM_OK && !choice->answered) {
        copy = rpc_copy_opts(rpc, opts);
        if (copy)
            return rpc_choice_waits(choice, copy);
        pmi_router_forget(pmi_app_router(rpc->app), rpc_chosen, choice);
        err = PM_ENOMEM;
    }
    if (err == PM_OK)
        err = choice->err;
    rpc_choice_free(choice);
    return err;
}

static pm_err rpc_send_any(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                           rpc_call *call)
{
    pmi_server *server;
    if (!opts->server_id)
        return rpc_send_routed(rpc, opts, call);
    server = pmi_cluster_find(pmi_app_cluster(rpc->app), opts->server_id);
    return server ? rpc_send_to(rpc, opts, server, call) : rpc_not_found(call);
}

static pm_err rpc_send(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                       pmi_rpc_answer_cb cb, void *ctx, uint64_t *call_id)
{
    pmi_rpc_send_opts send = *opts;
    rpc_call *call = NULL;
    uint64_t id;
    pm_err err;
    if (rpc->closed)
        return PM_ECLOSED;
    if (send.method.len > 255)
        return PM_EINVAL;
    if (!send.deadline_ms)
        send.deadline_ms = pmi_app_rpc_opts(rpc->app)->deadline_ms;
    if (!send.trace_id)
        send.trace_id = ++rpc->last_trace;
    if (!cb) {
        pmi_count(rpc->app, PMI_COUNT_NOTIFY);
        return rpc_send_any(rpc, &send, NULL);
    }
    call = rpc_call_new(rpc);
    if (!call)
        return PM_ENOMEM;
    call->cb = cb;
    call->ctx = ctx;
    id = call->id;
    pmi_timer_set(pm_app_loop(rpc->app), &call->deadline,
                  (uint64_t)send.deadline_ms * 1000, rpc_late);
    call->starting = true;
    err = rpc_send_any(rpc, &send, call);
    call->starting = false;
    if (err == PM_OK && rpc->closed)
        err = PM_ECLOSED; /* the router has freed the app */
    if (err)
        rpc_call_end(call);
    else if (call_id)
        *call_id = id;
    return err;
}

pm_err pmi_rpc_send(pmi_rpc *rpc, const pmi_rpc_send_opts *opts,
                    pmi_rpc_answer_cb cb, void *ctx, uint64_t *call_id)
{
    pm_loop *loop = pm_app_loop(rpc->app);
    pm_err err;
    pmi_loop_enter(loop); /* a router may free the app */
    err = rpc_send(rpc, opts, cb, ctx, call_id);
    pmi_loop_leave(loop);
    return err;
}

bool pmi_rpc_forget(pmi_rpc *rpc, uint64_t call_id)
{
    rpc_call *call = rpc_find(rpc, call_id);
    if (!call)
        return false;
    rpc_call_end(call);
    return true;
}

/* ---- Answers that come back -------------------------------------------- */

static void rpc_take_answer(rpc_call *call, const pmi_frame *frame)
{
    char detail[RPC_DETAIL_MAX];
    size_t len = pmi_min(frame->detail.len, sizeof detail - 1);
    pmi_rpc_answer answer = {0};
    answer.result.err = (pm_err)frame->err;
    answer.result.code = frame->code;
    answer.result.body = frame->body;
    answer.extra = frame->extra;
    answer.result.detail = pm_strerror(answer.result.err);
    if (len) {
        memcpy(detail, frame->detail.data, len);
        detail[len] = 0;
        answer.result.detail = detail;
    }
    rpc_complete(call, &answer);
}

static void rpc_frame_answer(pmi_peer *peer, const pmi_frame *frame)
{
    rpc_call *call = rpc_find(pmi_app_rpc(peer->owner->app), frame->id);
    if (!call || call->failing || call->peer != peer)
        return; /* completed before: late, or not ours */
    rpc_take_answer(call, frame);
}

static pm_err rpc_answer_self(pm_app *app, uint64_t id, const pmi_frame *frame)
{
    rpc_call *call = rpc_find(pmi_app_rpc(app), id);
    if (!call || call->failing)
        return PM_ECLOSED;
    rpc_take_answer(call, frame);
    return PM_OK;
}

/* ---- Links ------------------------------------------------------------- */

static void rpc_peer_frame(pmi_peer *peer, const pmi_frame *frame)
{
    if (frame->kind == PMI_FRAME_ANSWER)
        rpc_frame_answer(peer, frame);
    else
        pmi_asked_frame(&pmi_app_rpc(peer->owner->app)->asked, peer, frame);
}

static void rpc_peer_up(pmi_peer *peer)
{
    (void)peer;
}

/* What never left is down; what was under way may have been done over there. */
static pm_err rpc_lost_err(const pmi_peer *peer, pm_close_reason why)
{
    if (peer->state == PMI_PEER_CLOSED)
        return PM_ENOSERVER;
    return why == PM_CLOSE_CONNECT ? PM_EDOWN : PM_ECLOSED;
}

static void rpc_complete_all(pmi_link *calls, pm_err err)
{
    pmi_link all, *node;
    pmi_list_init(&all);
    pmi_list_move(&all, calls);
    while ((node = pmi_list_take(&all)))
        rpc_complete_with(PMI_OUTER(node, rpc_call, in_peer), err);
}

static void rpc_peer_down(pmi_peer *peer, pm_close_reason why)
{
    pmi_asked_lost(&pmi_app_rpc(peer->owner->app)->asked, &peer->served);
    rpc_complete_all(&peer->calls, rpc_lost_err(peer, why));
}

static const pmi_peer_ops rpc_peer_ops = {rpc_peer_frame, rpc_peer_up,
                                          rpc_peer_down};

static pm_err rpc_server_added(pm_app *app, pmi_server *server)
{
    pmi_rpc *rpc = pmi_app_rpc(app);
    if (pmi_app_state_of(app) != PMI_APP_RUNNING || rpc_is_self(rpc, server))
        return PM_OK;
    pmi_peer_find_back(&rpc->peers, server);
    return pmi_peer_dial(&rpc->peers, server);
}

static void rpc_server_removed(pm_app *app, pmi_server *server)
{
    pmi_peer *back = server->back;
    (void)app;
    server->back = NULL;
    if (back && !server->gently)
        rpc_complete_all(&back->calls, PM_ENOSERVER);
    if (server->peer && server->gently)
        pmi_peer_part(server->peer);
    else if (server->peer)
        pmi_peer_hang_up(server->peer);
}

pm_err pmi_rpc_refuse(pmi_rpc *rpc, pm_err err, pmi_rpc_answer_cb cb, void *ctx,
                      uint64_t *call_id)
{
    rpc_call *call;
    if (rpc->closed)
        return PM_ECLOSED;
    call = rpc_call_new(rpc);
    if (!call)
        return PM_ENOMEM;
    call->cb = cb;
    call->ctx = ctx;
    rpc_fail_later(call, err);
    if (call_id)
        *call_id = call->id;
    return PM_OK;
}

pm_err pm_rpc_cancel(pm_app *app, uint64_t call_id)
{
    rpc_call *call = rpc_find(pmi_app_rpc(app), call_id);
    if (!call || call->failing)
        return PM_ENOTFOUND;
    rpc_fail_later(call, PM_ECANCELED);
    return PM_OK;
}

/* ---- Life -------------------------------------------------------------- */

pm_err pmi_rpc_new(pm_app *app, pmi_rpc **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_rpc *rpc = pmi_zalloc(env, sizeof *rpc);
    if (!rpc)
        return PM_ENOMEM;
    rpc->app = app;
    rpc->env = env;
    pmi_spares_init(&rpc->calls, env, sizeof(rpc_call), sizeof(rpc_call),
                    RPC_SPARE_MAX);
    pmi_spares_init(&rpc->choices, env, sizeof(rpc_choice), sizeof(rpc_choice),
                    RPC_CHOICES_MAX);
    rpc->last_trace = pmi_loop_random_u64(pm_app_loop(app)) >> RPC_TRACE_SHIFT;
    rpc->push_keys[0] = pmi_loop_random_u64(pm_app_loop(app));
    rpc->push_keys[1] = pmi_loop_random_u64(pm_app_loop(app));
    pmi_list_init(&rpc->loose);
    pmi_asked_init(&rpc->asked, app);
    rpc->asked.answer_self = rpc_answer_self;
    pmi_cluster_watch(pmi_app_cluster(app), rpc_server_added,
                      rpc_server_removed);
    *out = rpc;
    return pmi_peers_init(&rpc->peers, app, &rpc_peer_ops);
}

void pmi_rpc_serve(pmi_rpc *rpc, pmi_op op,
                   void (*serve)(pm_app *app, pm_call *call))
{
    rpc->asked.serve[op] = serve;
}

pmi_asked *pmi_rpc_asked(pmi_rpc *rpc)
{
    return &rpc->asked;
}

const pmi_peers *pmi_rpc_peers(const pmi_rpc *rpc)
{
    return &rpc->peers;
}

pm_err pmi_rpc_renew(pmi_rpc *rpc, const pm_tls_opts *tls)
{
    return pmi_peers_renew(&rpc->peers, tls);
}

pm_err pmi_rpc_start(pmi_rpc *rpc)
{
    pmi_cluster *cluster = pmi_app_cluster(rpc->app);
    pm_err err = pmi_peers_start(&rpc->peers);
    pmi_server *server = pmi_cluster_next(cluster, NULL);
    rpc->closed = false;
    for (; server && err == PM_OK; server = pmi_cluster_next(cluster, server))
        if (!rpc_is_self(rpc, server))
            err = pmi_peer_dial(&rpc->peers, server);
    return err;
}

void pmi_rpc_drain(pmi_rpc *rpc)
{
    pmi_peers_drain(&rpc->peers);
}

bool pmi_rpc_heard(const pmi_rpc *rpc)
{
    return pmi_peers_heard(&rpc->peers);
}

size_t pmi_rpc_busy(const pmi_rpc *rpc)
{
    return rpc->busy + rpc->asked.serving;
}

/* What a link has asked of us, of one that has asked anything; looked up anew
 * each time, since whoever is told may free the app. */
static pmi_link *rpc_served_on(const pmi_link *links)
{
    for (pmi_link *n = links->next; n != links; n = n->next) {
        pmi_peer *peer = PMI_OUTER(n, pmi_peer, in_all);
        if (!pmi_list_empty(&peer->served))
            return &peer->served;
    }
    return NULL;
}

static pmi_link *rpc_served(const pmi_peers *peers)
{
    pmi_link *served = rpc_served_on(&peers->accepted);
    return served ? served : rpc_served_on(&peers->dialled);
}

void pmi_rpc_close(pmi_rpc *rpc)
{
    pmi_link *calls;
    rpc->closed = true;
    for (uint32_t i = 0; i < rpc->slots_count; i++)
        if (rpc->slots[i].call && !rpc->slots[i].call->starting)
            rpc_complete_with(rpc->slots[i].call, PM_ECLOSED);
    while ((calls = rpc_served(&rpc->peers)))
        pmi_asked_cut(&rpc->asked, calls);
    pmi_asked_cut(&rpc->asked, &rpc->asked.own);
    pmi_asked_cut(&rpc->asked, &rpc->asked.lost);
    pmi_peers_close(&rpc->peers);
}

void pmi_rpc_free(pmi_rpc *rpc)
{
    if (!rpc)
        return;
    pmi_spares_fini(&rpc->calls);
    pmi_asked_fini(&rpc->asked);
    pmi_peers_fini(&rpc->peers);
    pmi_spares_fini(&rpc->choices);
    pmi_free(rpc->env, rpc->slots);
    pmi_free(rpc->env, rpc);
}
