/* SPDX-License-Identifier: MIT */
/* test/calls.h -- what the tests of calls between servers share: servers of two
 * types that call each other in one thread, on memory and a virtual clock, and
 * what the callback of a call was told. */
#ifndef TEST_CALLS_H
#define TEST_CALLS_H

#include "test.h"

#include "pomelo_call_internal.h"
#include "pomelo_session_internal.h"

typedef struct calls calls;

/* What a call was told. */
typedef struct got {
    calls *all;
    int times;
    pm_err err;
    int code;
    char detail[128], body[256], server[32];
    size_t body_len;
    pm_body_kind kind;
    uint64_t at_us;
    void (*then)(calls *c); /* from inside the callback; may be NULL */
} got;

struct calls {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pm_app *a, *b1, *b2; /* a-1 asks, b-1 and b-2 are asked */
    const char *secret;
    uint32_t peer_queue_bytes;
    int served, notified;
    pm_call *held; /* by the remote "later" */
    pm_err replied;
    size_t reply_bytes; /* of the remote "big" */
    char caller[32], order[512];
    pm_body_kind kind_seen;
    bool cut;          /* every transfer cuts its link */
    uint64_t delay_us; /* of every transfer */
    got got;
};

static const pm_server calls_servers[] = {
    {.id = "a-1", .type = "a", .port = 5001},
    {.id = "b-1", .type = "b", .port = 5011},
    {.id = "b-2", .type = "b", .port = 5012},
    {.id = "ghost-1", .type = "ghost", .port = 5021}};

/* ---- Being told -------------------------------------------------------- */

static inline void got_copy(char *out, size_t size, pm_slice text)
{
    size_t len = text.len < size - 1 ? text.len : size - 1;
    if (len)
        memcpy(out, text.data, len);
    out[len] = 0;
}

static inline void got_cb(const pm_rpc_result *result, void *ctx)
{
    got *g = ctx;
    g->times++;
    g->err = result->err;
    g->code = result->code;
    g->kind = result->body.kind;
    g->body_len = result->body.data.len;
    got_copy(g->detail, sizeof g->detail, pm_text(result->detail));
    got_copy(g->body, sizeof g->body, result->body.data);
    got_copy(g->server, sizeof g->server,
             pm_text(result->server_id ? result->server_id : "-"));
    if (!g->all)
        return;
    g->at_us = g->all->world.now_us;
    if (g->then)
        g->then(g->all);
}

/* ---- Remotes ----------------------------------------------------------- */

static inline void calls_seen(calls *c, pm_call *call)
{
    size_t at = strlen(c->order);
    pm_body args = pm_call_args(call);
    c->served++;
    c->notified += pm_call_is_notify(call);
    c->kind_seen = args.kind;
    got_copy(c->caller, sizeof c->caller, pm_text(pm_call_caller(call)));
    if (at + args.data.len + 2 < sizeof c->order) {
        got_copy(c->order + at, sizeof c->order - at, args.data);
        memcpy(c->order + at + args.data.len, ";", 2);
    }
}

static inline void calls_now(pm_call *call, void *ctx)
{
    calls *c = ctx;
    calls_seen(c, call);
    c->replied = pm_call_reply(call, pm_call_args(call));
}

static inline void calls_later(pm_call *call, void *ctx)
{
    calls *c = ctx;
    calls_seen(c, call);
    c->held = call;
}

static inline void calls_fail(pm_call *call, void *ctx)
{
    calls *c = ctx;
    calls_seen(c, call);
    c->replied = pm_call_fail(call, 42, "no such sword");
}

static inline void calls_big(pm_call *call, void *ctx)
{
    calls *c = ctx;
    char *body = calloc(1, c->reply_bytes);
    calls_seen(c, call);
    c->replied = pm_call_reply(call, pm_body_bytes(body, c->reply_bytes));
    free(body);
}

static inline void calls_free(calls *c, pm_app *app)
{
    c->a = app == c->a ? NULL : c->a;
    c->b1 = app == c->b1 ? NULL : c->b1;
    c->b2 = app == c->b2 ? NULL : c->b2;
    pm_app_free(app);
}

static inline void calls_free_self(pm_call *call, void *ctx)
{
    calls *c = ctx;
    calls_seen(c, call);
    calls_free(c, pm_call_app(call));
    c->replied = pm_call_reply(call, pm_body_none());
}

/* ---- The cluster ------------------------------------------------------- */

static inline uint64_t calls_fault(void *ctx, const char *from, const char *to,
                                   size_t bytes)
{
    calls *c = ctx;
    (void)from;
    (void)to;
    (void)bytes;
    return c->cut ? UINT64_MAX : c->delay_us;
}

static inline void calls_run(calls *c, uint64_t ms)
{
    assert_true(test_world_run(&c->world, c->loop, ms * 1000));
}

static inline pm_err calls_loop(calls *c)
{
    pm_loop_opts opts = test_world_opts(&c->world, &c->heap);
    pm_err err = pm_loop_new(&c->loop, &opts);
    if (err == PM_OK)
        pmi_loop_set_link_fault(c->loop, calls_fault, c);
    c->got.all = c;
    return err;
}

/* Not started yet. */
static inline pm_err calls_app(calls *c, const char *id, pm_app **out)
{
    static const struct {
        const char *name;
        pm_remote_cb cb;
    } remotes[] = {
        {"a.svc.now", calls_now},       {"a.svc.later", calls_later},
        {"b.svc.now", calls_now},       {"b.svc.later", calls_later},
        {"b.svc.fail", calls_fail},     {"b.svc.big", calls_big},
        {"a.svc.big", calls_big},       {"b.svc.free", calls_free_self},
        {"a.svc.free", calls_free_self}};
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = c->loop;
    opts.servers = calls_servers;
    opts.servers_count = PMI_COUNT(calls_servers);
    opts.server_id = id;
    opts.rpc.secret = c->secret;
    opts.limits.peer_queue_bytes = c->peer_queue_bytes;
    err = pm_app_new(out, &opts);
    for (size_t i = 0; i < PMI_COUNT(remotes) && err == PM_OK; i++)
        err = pm_app_remote(*out, remotes[i].name, remotes[i].cb, c);
    return err;
}

static inline pm_err calls_start(calls *c, const char *id, pm_app **out)
{
    pm_err err = calls_app(c, id, out);
    return err ? err : pm_app_start(*out);
}

/* All three, with all links up. */
static inline void calls_open(calls *c)
{
    assert_ok(calls_loop(c));
    assert_ok(calls_start(c, "b-1", &c->b1));
    assert_ok(calls_start(c, "b-2", &c->b2));
    assert_ok(calls_start(c, "a-1", &c->a));
    calls_run(c, 500);
    assert_true(pm_server_is_up(c->a, "b-1") && pm_server_is_up(c->a, "b-2"));
}

static inline void calls_close(calls *c)
{
    pm_app_free(c->a);
    pm_app_free(c->b1);
    pm_app_free(c->b2);
    assert_ok(pm_loop_free(c->loop));
    assert_heap_empty(&c->heap);
}

/* ---- Asking ------------------------------------------------------------ */

/* server NULL: whoever the router says. */
static inline pm_err calls_ask(calls *c, const char *server, const char *method,
                               const char *args, uint64_t *id)
{
    pm_rpc_opts opts = pm_rpc_opts_default();
    opts.server_id = server;
    opts.method = method;
    opts.args = pm_body_text(args);
    return pm_rpc_call(c->a, &opts, got_cb, &c->got, id);
}

static inline void assert_got(calls *c, pm_err err, const char *body)
{
    assert_int_equal(c->got.times, 1);
    assert_err(c->got.err, err);
    assert_string_equal(c->got.body, body);
    assert_true(err == PM_OK || c->got.detail[0] != 0);
    c->got.times = 0;
}

#endif
