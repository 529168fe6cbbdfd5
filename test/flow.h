/* SPDX-License-Identifier: MIT */
/* test/flow.h -- what the stories share: a small cluster in one thread, on a loop
 * without sockets, with a virtual clock; and a trace of what happened in which
 * order. Only the public API is used here, so that the stories also run on the
 * amalgamated library. */
#ifndef TEST_FLOW_H
#define TEST_FLOW_H

#include "test.h"

#define FLOW_TRACE_MAX 8192

typedef struct flow {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pm_app *front, *back;
    pm_client *client;
    char trace[FLOW_TRACE_MAX]; /* one word an event, with its time */
    size_t trace_len;
    int connected, disconnected, answers, pushes, kicks;
    pm_err answer_err;
    char answer[256], push[256], kick[64];
    pm_close_reason closed_why;
} flow;

static inline void flow_note(flow *f, const char *word)
{
    int n = snprintf(f->trace + f->trace_len, FLOW_TRACE_MAX - f->trace_len,
                     "%llu %s\n", (unsigned long long)f->world.now_us, word);
    if (n > 0 && (size_t)n < FLOW_TRACE_MAX - f->trace_len)
        f->trace_len += (size_t)n;
}

/* One frontend and one backend; the ports are names of doors in memory here. */
static const pm_server flow_servers[] = {
    {.id = "connector-1",
     .type = "connector",
     .host = "127.0.0.1",
     .port = 4050,
     .client_port = 3050,
     .frontend = true},
    {.id = "chat-1", .type = "chat", .host = "127.0.0.1", .port = 4060}};

static inline pm_err flow_app(flow *f, const char *id, pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = f->loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.connector.heartbeat_s = 3;
    opts.connector.use_dict = true;
    return pm_app_new(out, &opts);
}

static inline void flow_copy(char *out, size_t size, pm_slice text)
{
    size_t len = text.len < size - 1 ? text.len : size - 1;
    if (len)
        memcpy(out, text.data, len);
    out[len] = 0;
}

static inline void flow_connected(pm_client *client, const struct cJSON *user,
                                  void *ctx)
{
    flow *f = ctx;
    (void)client;
    (void)user;
    f->connected++;
    flow_note(f, "connected");
}

static inline void flow_pushed(pm_client *client, const char *route,
                               pm_body body, void *ctx)
{
    flow *f = ctx;
    (void)client;
    f->pushes++;
    flow_copy(f->push, sizeof f->push, body.data);
    flow_note(f, route);
}

static inline void flow_kicked(pm_client *client, const char *reason, void *ctx)
{
    flow *f = ctx;
    (void)client;
    f->kicks++;
    snprintf(f->kick, sizeof f->kick, "%s", reason ? reason : "");
    flow_note(f, "kicked");
}

static inline void flow_disconnected(pm_client *client, pm_close_reason reason,
                                     int code, void *ctx)
{
    flow *f = ctx;
    (void)client;
    (void)code;
    f->disconnected++;
    f->closed_why = reason;
    flow_note(f, "disconnected");
}

static inline void flow_answered(pm_client *client, pm_err err, pm_body body,
                                 void *ctx)
{
    flow *f = ctx;
    (void)client;
    f->answers++;
    f->answer_err = err;
    flow_copy(f->answer, sizeof f->answer, body.data);
    flow_note(f, err == PM_OK ? f->answer : pm_err_name(err));
}

static inline pm_err flow_client(flow *f)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = f->loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    opts.host = "127.0.0.1";
    opts.port = 3050;
    opts.request_ms = 60000; /* longer than the servers' own deadlines */
    opts.events.connected = flow_connected;
    opts.events.pushed = flow_pushed;
    opts.events.kicked = flow_kicked;
    opts.events.disconnected = flow_disconnected;
    opts.ctx = f;
    return pm_client_new(&f->client, &opts);
}

static inline pm_err flow_loop(flow *f, uint64_t seed)
{
    pm_loop_opts opts;
    f->world.seed = seed;
    opts = test_world_opts(&f->world, &f->heap);
    opts.memory_only = true;
    return pm_loop_new(&f->loop, &opts);
}

/* Lets this much virtual time pass. */
static inline void flow_run(flow *f, uint64_t ms)
{
    assert_true(test_world_run(&f->world, f->loop, ms * 1000));
}

typedef pm_err (*flow_configure)(flow *f, pm_app *app);

/* Loop, backend, frontend, client: up and connected. PM_ENOMEM when an
 * allocation was refused; flow_end is called all the same. */
static inline pm_err flow_start(flow *f, uint64_t seed,
                                flow_configure configure)
{
    pm_err err = flow_loop(f, seed);
    if (err == PM_OK)
        err = flow_app(f, "chat-1", &f->back);
    if (err == PM_OK)
        err = configure(f, f->back);
    if (err == PM_OK)
        err = pm_app_start(f->back);
    if (err == PM_OK)
        err = flow_app(f, "connector-1", &f->front);
    if (err == PM_OK)
        err = configure(f, f->front);
    if (err == PM_OK)
        err = pm_app_start(f->front);
    if (err == PM_OK)
        err = flow_client(f);
    if (err == PM_OK)
        flow_run(f, 50);
    return err;
}

/* Whatever exists is freed; nothing may be left. */
static inline void flow_end(flow *f)
{
    pm_client_free(f->client);
    pm_app_free(f->front);
    pm_app_free(f->back);
    if (f->loop)
        assert_ok(pm_loop_free(f->loop));
    assert_heap_empty(&f->heap);
}

#endif
