/* SPDX-License-Identifier: MIT */
/* pomelo_call.c -- being asked: pm_call from its frame to its answer.
 *
 * The arguments are the frame's bytes and last as long as the serving function
 * runs; whoever answers later keeps a copy (pm_call_keep). A call that this
 * server makes to itself is the same struct without a link. Start at
 * pmi_asked_frame and pmi_call_answer. */
#include "pomelo_call_internal.h"
#include "core/json.h"

#include <cjson/cJSON.h>

#define CALL_SPARE_MAX 1024
#define CALL_DETAIL_MAX 200

struct pm_call {
    pm_app *app; /* NULL: the app has gone */
    pm_loop *loop;
    pmi_peer *peer;   /* NULL: the link has gone, or the caller is ourselves */
    uint64_t id;      /* the caller's number */
    uint64_t self_id; /* of our own asking call; 0: it came by a link */
    pmi_link in_peer; /* pmi_peer.served, pmi_asked.own or .lost */
    pmi_task task;    /* serves our own call on a later turn */
    uint64_t began_us, deadline_us, trace_id;
    pmi_histogram **times; /* of what it asks for; NULL: nobody's */
    pm_body body;
    pm_slice extra, manner;
    uint8_t *owned; /* body, extra and manner, when kept */
    struct cJSON *tree;
    void (*gone)(pm_call *call, void *ctx);
    void *gone_ctx;
    uint32_t op;
    bool notify, valid; /* valid: body may still be read */
    char caller[256], method[256];
};

void pmi_asked_init(pmi_asked *asked, pm_app *app)
{
    asked->app = app;
    asked->env = pmi_app_env(app);
    /* The names are written in any case. */
    pmi_spares_init(&asked->spares, asked->env, sizeof(pm_call),
                    offsetof(pm_call, caller), CALL_SPARE_MAX);
    pmi_list_init(&asked->own);
    pmi_list_init(&asked->lost);
}

void pmi_asked_fini(pmi_asked *asked)
{
    pmi_spares_fini(&asked->spares);
}

/* ---- Life -------------------------------------------------------------- */

static pm_call *call_new(pmi_asked *asked)
{
    pm_call *call = pmi_spares_get(&asked->spares);
    if (!call)
        return NULL;
    call->app = asked->app;
    call->loop = pm_app_loop(asked->app);
    call->valid = true;
    call->began_us = pmi_loop_now_us(call->loop);
    asked->serving++;
    return call;
}

static pmi_asked *call_asked(const pm_call *call)
{
    return pmi_rpc_asked(pmi_app_rpc(call->app));
}

static void call_end(pm_call *call)
{
    const pmi_env *env = pmi_loop_env(call->loop);
    pm_loop *loop = call->loop;
    pmi_asked *asked;
    pmi_list_remove(&call->in_peer);
    pmi_task_cancel(&call->task);
    pmi_free(env, call->owned);
    cJSON_Delete(call->tree);
    if (!call->app) {
        pmi_free(env, call);
        pmi_loop_drop(loop); /* it alone held the loop */
        return;
    }
    if (call->times)
        pmi_count_time(pmi_app_counts(call->app), call->times, call->began_us);
    asked = call_asked(call);
    asked->serving--;
    if (asked->now == call)
        asked->now = NULL;
    pmi_spares_put(&asked->spares, call);
    if (!asked->serving)
        pmi_app_check_drained(asked->app);
}

static void call_put_name(char out[256], pm_slice name)
{
    size_t len = pmi_min(name.len, 255);
    if (len)
        memcpy(out, name.data, len);
    out[len] = 0;
}

static void call_serve(pmi_asked *asked, pm_call *call)
{
    if (call->op < PMI_OP_COUNT && asked->serve[call->op]) {
        pmi_count(asked->app,
                  (pmi_count_what)(PMI_COUNT_SERVED_CALL + call->op));
        asked->serve[call->op](asked->app, call);
        return;
    }
    pmi_count(asked->app, PMI_COUNT_UNSERVED_OPERATION);
    pmi_call_answer(call, PM_ENOMETHOD, 0, "no such operation", pm_body_none(),
                    pm_bytes(NULL, 0));
}

void pmi_asked_frame(pmi_asked *asked, pmi_peer *peer, const pmi_frame *frame)
{
    pm_call *call = call_new(asked);
    pmi_frame refusal = {.kind = PMI_FRAME_ANSWER, .err = PM_ENOMEM};
    if (!call) {
        pmi_count(asked->app, PMI_COUNT_UNSERVED_MEMORY);
        refusal.id = frame->id;
        if (!frame->notify)
            pmi_peer_send(peer, &refusal, NULL);
        return;
    }
    call->peer = peer;
    call->id = frame->id;
    call->op = frame->op;
    call->trace_id = frame->trace_id;
    call->notify = frame->notify;
    call->body = frame->body;
    call->extra = frame->extra;
    call->manner = frame->manner;
    call->deadline_us = call->began_us + (uint64_t)frame->deadline_ms * 1000;
    call_put_name(call->method, frame->method);
    call_put_name(call->caller, pm_text(pmi_peer_id(peer)));
    pmi_list_add(&peer->served, &call->in_peer);
    asked->now = call;
    call_serve(asked, call);
    /* The bytes go with this frame: whoever still has the call has kept them.
     */
    if (asked->now == call && !call->owned)
        call->valid = false;
    asked->now = NULL;
}

/* ---- Calling ourselves ------------------------------------------------- */

static void call_self_run(pmi_task *task)
{
    pm_call *call = PMI_OUTER(task, pm_call, task);
    call_serve(call_asked(call), call);
}

pm_err pmi_asked_self(pmi_asked *asked, const pmi_rpc_send_opts *opts,
                      uint64_t self_id)
{
    pm_call *call = call_new(asked);
    if (!call)
        return PM_ENOMEM;
    call->op = (uint32_t)opts->op;
    call->trace_id = opts->trace_id;
    call->notify = self_id == UINT64_MAX;
    call->self_id = self_id;
    call->body = opts->body;
    call->extra = opts->extra;
    call->manner = opts->manner;
    call->deadline_us = call->began_us + (uint64_t)opts->deadline_ms * 1000;
    call_put_name(call->method, opts->method);
    call_put_name(call->caller, pm_text(pm_app_server(asked->app)->id));
    if (pm_call_keep(call)) {
        call_end(call);
        return PM_ENOMEM;
    }
    pmi_list_add(&asked->own, &call->in_peer);
    pmi_loop_defer(call->loop, &call->task, call_self_run);
    return PM_OK;
}

/* ---- The caller is gone ------------------------------------------------ */

static void call_gone(pm_call *call)
{
    void (*gone)(pm_call *, void *) = call->gone;
    call->peer = NULL;
    call->gone = NULL;
    if (gone)
        gone(call, call->gone_ctx);
}

void pmi_asked_lost(pmi_asked *asked, pmi_link *calls)
{
    pmi_link *node;
    while ((node = pmi_list_take(calls))) {
        pm_call *call = PMI_OUTER(node, pm_call, in_peer);
        pmi_list_add(&asked->lost, &call->in_peer);
        call_gone(call);
    }
}

void pmi_asked_cut(pmi_asked *asked, pmi_link *calls)
{
    pmi_link held, *node;
    pmi_list_init(&held);
    asked->now = NULL;
    while ((node = pmi_list_take(calls))) {
        pm_call *call = PMI_OUTER(node, pm_call, in_peer);
        if (pmi_task_waits(&call->task)) {
            call_end(call); /* nobody has seen it yet */
            continue;
        }
        pmi_list_add(&held, &call->in_peer);
        call_gone(call); /* may end it: then it leaves `held` */
    }
    while ((node = pmi_list_take(&held))) {
        pm_call *call = PMI_OUTER(node, pm_call, in_peer);
        call->valid = call->owned != NULL;
        asked->serving--;
        call->app = NULL;
        pmi_loop_hold(call->loop);
    }
}

/* ---- Answers ----------------------------------------------------------- */

/* To ourselves no more than to others: one process or many, all is the same. */
static pm_err call_answer_self(pm_call *call, const pmi_frame *frame)
{
    pmi_frame_out out;
    pm_err err = pmi_frame_encode(frame, &out);
    return err ? err
               : call_asked(call)->answer_self(call->app, call->self_id, frame);
}

static pm_err call_send_answer(pm_call *call, const pmi_frame *frame)
{
    if (call->notify)
        return PM_ENOTIFY;
    if (!call->app)
        return PM_ECLOSED;
    if (call->self_id)
        return call_answer_self(call, frame);
    return call->peer ? pmi_peer_send(call->peer, frame, NULL) : PM_ECLOSED;
}

pm_err pmi_call_answer(pm_call *call, pm_err err, int code, const char *detail,
                       pm_body body, pm_slice extra)
{
    pmi_frame frame = {.kind = PMI_FRAME_ANSWER, .id = call->id, .err = err};
    pm_loop *loop = call->loop;
    pm_err sent;
    frame.code = code;
    frame.detail = pm_text(detail);
    frame.detail.len = pmi_min(frame.detail.len, CALL_DETAIL_MAX);
    frame.body = body;
    frame.extra = extra;
    pmi_loop_enter(loop); /* an answer to ourselves runs a callback */
    sent = call_send_answer(call, &frame);
    if (sent == PM_ESIZE || sent == PM_ENOMEM) {
        frame.err = sent;
        frame.body = pm_body_none();
        frame.extra = pm_bytes(NULL, 0);
        call_send_answer(call, &frame);
    }
    call_end(call);
    pmi_loop_leave(loop);
    return sent == PM_EDOWN ? PM_ECLOSED : sent;
}

void pmi_call_measure(pm_call *call, pmi_histogram **times)
{
    call->times = times;
}

pm_err pm_call_reply(pm_call *call, pm_body body)
{
    return pmi_call_answer(call, PM_OK, 0, NULL, body, pm_bytes(NULL, 0));
}

pm_err pm_call_fail(pm_call *call, int code, const char *detail)
{
    return pmi_call_answer(call, PM_EREMOTE, code, detail, pm_body_none(),
                           pm_bytes(NULL, 0));
}

pm_app *pm_call_app(const pm_call *call)
{
    return call->app;
}

const char *pm_call_method(const pm_call *call)
{
    return call->method;
}

const char *pm_call_caller(const pm_call *call)
{
    return call->caller;
}

uint64_t pm_call_trace_id(const pm_call *call)
{
    return call->trace_id;
}

bool pm_call_is_notify(const pm_call *call)
{
    return call->notify;
}

pm_body pm_call_args(const pm_call *call)
{
    return call->valid ? call->body : pm_body_none();
}

pm_slice pmi_call_extra(const pm_call *call)
{
    return call->valid ? call->extra : pm_bytes(NULL, 0);
}

pm_slice pmi_call_manner(const pm_call *call)
{
    return call->valid ? call->manner : pm_bytes(NULL, 0);
}

pm_err pm_call_keep(pm_call *call)
{
    size_t body = call->body.data.len, extra = call->extra.len;
    size_t manner = call->manner.len;
    if (!call->valid)
        return PM_ECLOSED;
    if (call->owned)
        return PM_OK;
    call->owned = pmi_alloc(pmi_loop_env(call->loop), body + extra + manner);
    if (!call->owned)
        return PM_ENOMEM;
    if (body)
        memcpy(call->owned, call->body.data.data, body);
    if (extra)
        memcpy(call->owned + body, call->extra.data, extra);
    if (manner)
        memcpy(call->owned + body + extra, call->manner.data, manner);
    call->body.data.data = call->owned;
    call->extra.data = call->owned + body;
    call->manner.data = call->owned + body + extra;
    return PM_OK;
}

pm_err pm_call_json(pm_call *call, struct cJSON **out)
{
    pm_err err;
    if (!call->tree) {
        if (!call->valid)
            return PM_ECLOSED;
        err = pmi_json_parse(pmi_loop_env(call->loop), call->body.data,
                             PMI_JSON_DEPTH_MAX, &call->tree, NULL);
        if (err)
            return err;
    }
    *out = call->tree;
    return PM_OK;
}

uint64_t pm_call_left_us(const pm_call *call)
{
    uint64_t now = pmi_loop_clock_us(call->loop);
    return call->deadline_us > now ? call->deadline_us - now : 0;
}

void pmi_call_on_gone(pm_call *call, void (*gone)(pm_call *call, void *ctx),
                      void *ctx)
{
    call->gone = gone;
    call->gone_ctx = ctx;
}
