/* SPDX-License-Identifier: MIT */
/* test/bench/server_entry.c -- the gate's and the connector's handlers.
 *
 * Start reading at server_add_entry. What lives longer than a callback
 * (entering, a run of calls) is a small struct that its last callback frees. */
#include "server.h"

#include <time.h>

enum { ENTRY_REPLY_ROOM = 160, ENTRY_NAME_MAX = 128 };

static uint64_t entry_now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double entry_number(const cJSON *body, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(body, name);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static const char *entry_text(const cJSON *body, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, name));
}

static void entry_reply_code(pm_request *req, bool good)
{
    pm_reply_text(req, good ? "{\"code\":200}" : "{\"code\":500}");
}

/* ---- Gate ---------------------------------------------------------------- */

/* Which connector a player shall use. */
static void entry_query(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    cJSON *body = server_body(req);
    const char *uid = body ? entry_text(body, "uid") : NULL;
    size_t count = pm_server_count(app, "connector");
    char text[ENTRY_REPLY_ROOM];
    (void)ctx;
    if (!body)
        return;
    if (!uid || !*uid || !count) {
        entry_reply_code(req, false);
        return;
    }
    const pm_server *pick =
        pm_server_at(app, "connector", pm_dispatch(uid, count));
    snprintf(text, sizeof text, "{\"code\":200,\"host\":\"%s\",\"port\":%u}",
             pick->host ? pick->host : "127.0.0.1",
             (unsigned)pick->client_port);
    pm_reply_text(req, text);
}

/* ---- Entering: bind, keep the channel's name, join on the chat server ---- */

typedef struct entering {
    pm_request *req;
    pm_session *session; /* a reference of ours */
    char channel[ENTRY_NAME_MAX];
} entering;

static void entry_entered(entering *self, bool good)
{
    entry_reply_code(self->req, good);
    pm_session_unref(self->session);
    free(self);
}

static void entry_joined(const pm_rpc_result *result, void *ctx)
{
    entry_entered(ctx, result->err == PM_OK);
}

/* Calls chat.chatRemote.METHOD(uid, frontend, channel) for this session. */
static pm_err entry_call(pm_app *app, pm_session *session, const char *method,
                         const char *channel, pm_rpc_cb cb, void *ctx)
{
    cJSON *args = cJSON_CreateArray();
    char *text = NULL;
    pm_err err;
    cJSON_AddItemToArray(args, cJSON_CreateString(pm_session_uid(session)));
    cJSON_AddItemToArray(args,
                         cJSON_CreateString(pm_session_frontend_id(session)));
    cJSON_AddItemToArray(args, cJSON_CreateString(channel));
    err = pm_json_text(args, &text);
    if (err == PM_OK)
        err = pm_rpc_invoke(app, method, pm_param_session(session),
                            pm_body_text(text), cb, ctx);
    pm_text_free(text);
    cJSON_Delete(args);
    return err;
}

static void entry_bound(pm_err err, const char *detail, void *ctx)
{
    entering *self = ctx;
    (void)detail;
    if (err == PM_OK)
        err = pm_session_set_text(self->session, "ch", self->channel);
    if (err == PM_OK)
        err = entry_call(pm_request_app(self->req), self->session,
                         "chat.chatRemote.join", self->channel, entry_joined,
                         self);
    if (err)
        entry_entered(self, false);
}

static void entry_enter(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    const char *uid = body ? entry_text(body, "uid") : NULL;
    const char *channel = body ? entry_text(body, "ch") : NULL;
    entering *self;
    (void)ctx;
    if (!body)
        return;
    self = uid && channel ? malloc(sizeof *self) : NULL;
    if (!self) {
        entry_reply_code(req, false);
        return;
    }
    self->req = req;
    self->session = pm_request_session(req);
    snprintf(self->channel, sizeof self->channel, "%s", channel);
    pm_session_ref(self->session);
    if (pm_session_bind(self->session, uid, entry_bound, self))
        entry_entered(self, false);
}

static void entry_closed(pm_app *app, pm_session *session,
                         pm_close_reason reason, void *ctx)
{
    server *self = ctx;
    const char *channel = pm_session_get_text(session, "ch");
    self->closed[reason]++;
    if (channel && pm_session_uid(session))
        entry_call(app, session, "chat.chatRemote.leave", channel, NULL, NULL);
}

static void entry_opened(pm_app *app, pm_session *session, void *ctx)
{
    server *self = ctx;
    (void)app;
    (void)session;
    self->opened++;
}

static void entry_session_bound(pm_app *app, pm_session *session, void *ctx)
{
    server *self = ctx;
    (void)app;
    (void)session;
    self->bound++;
}

/* ---- A run of calls: n in all, conc of them outstanding ------------------ */

typedef struct calls {
    pm_request *req;
    pm_app *app;
    uint64_t n, sent, done, bad, started_ns;
    bool json; /* arguments and sums as JSON text instead of bytes */
    struct calls_one {
        struct calls *run;
        uint64_t a; /* b is a + 7 */
    } one[];
} calls;

static void entry_calls_end(calls *run)
{
    uint64_t ns = entry_now_ns(CLOCK_MONOTONIC) - run->started_ns;
    double ms = (double)ns / 1e6;
    char text[ENTRY_REPLY_ROOM];
    snprintf(text, sizeof text,
             "{\"calls\":%llu,\"bad\":%llu,\"ms\":%.3f,\"cps\":%.0f}",
             (unsigned long long)run->n, (unsigned long long)run->bad, ms,
             (double)run->n / ms * 1000);
    pm_reply_text(run->req, text);
    free(run);
}

static bool entry_sum_is_right(const calls *run, pm_body body, uint64_t want)
{
    char text[24];
    uint64_t sum;
    int len;
    if (!run->json) {
        if (body.kind != PM_BODY_BYTES || body.data.len != sizeof sum)
            return false;
        memcpy(&sum, body.data.data, sizeof sum);
        return sum == want;
    }
    len = snprintf(text, sizeof text, "%llu", (unsigned long long)want);
    return body.data.len == (size_t)len &&
           !memcmp(body.data.data, text, body.data.len);
}

static void entry_called(const pm_rpc_result *result, void *ctx);

static void entry_calls_next(struct calls_one *one)
{
    calls *run = one->run;
    uint64_t args[2] = {run->sent, run->sent + 7};
    pm_body body = pm_body_bytes(args, sizeof args);
    char text[64];
    one->a = run->sent++;
    if (run->json) {
        snprintf(text, sizeof text, "[%llu,%llu]", (unsigned long long)args[0],
                 (unsigned long long)args[1]);
        body = pm_body_text(text);
    }
    if (pm_rpc_invoke(run->app, "chat.chatRemote.add",
                      pm_param_integer((int64_t)one->a), body, entry_called,
                      one)) {
        run->bad++;
        run->done++;
    }
}

static void entry_called(const pm_rpc_result *result, void *ctx)
{
    struct calls_one *one = ctx;
    calls *run = one->run;
    if (result->err ||
        !entry_sum_is_right(run, result->body, one->a + one->a + 7))
        run->bad++;
    run->done++;
    if (run->sent < run->n)
        entry_calls_next(one);
    if (run->done == run->n)
        entry_calls_end(run);
}

/* {n, conc, json}: `json` true sends the arguments as JSON text. */
static void entry_rpc_bench(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    double n = entry_number(body, "n"), conc = entry_number(body, "conc");
    size_t outstanding = conc < 1 ? 1 : conc > 65536 ? 65536 : (size_t)conc;
    calls *run;
    (void)ctx;
    if (!body)
        return;
    if (n < 1 || n > 1e12 ||
        !(run = calloc(1, sizeof *run + outstanding * sizeof run->one[0]))) {
        entry_reply_code(req, false);
        return;
    }
    run->req = req;
    run->app = pm_request_app(req);
    run->n = (uint64_t)n;
    run->json = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "json"));
    run->started_ns = entry_now_ns(CLOCK_MONOTONIC);
    /* The answers come on a later turn: nothing ends inside this loop. */
    for (size_t i = 0; i < outstanding && run->sent < run->n; i++) {
        run->one[i].run = run;
        entry_calls_next(&run->one[i]);
    }
    if (run->done == run->n)
        entry_calls_end(run);
}

/* ---- The rest ------------------------------------------------------------ */

static void entry_kick_me(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    pm_session *session = pm_request_session(req);
    char reason[ENTRY_NAME_MAX];
    const char *text = body ? entry_text(body, "reason") : NULL;
    (void)ctx;
    if (!body)
        return;
    snprintf(reason, sizeof reason, "%s", text ? text : "kick");
    pm_session_ref(session);
    entry_reply_code(req, true);
    pm_session_kick(session, reason, NULL, NULL);
    pm_session_unref(session);
}

/* A handler that is busy for so many microseconds of CPU. */
static void entry_burn(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    double us = entry_number(body, "us");
    uint64_t end = entry_now_ns(CLOCK_THREAD_CPUTIME_ID);
    (void)ctx;
    if (!body)
        return;
    end += us > 0 && us < 1e9 ? (uint64_t)(us * 1000) : 0;
    while (entry_now_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        ;
    entry_reply_code(req, true);
}

pm_err server_add_entry(pm_app *app, server *self)
{
    static const struct {
        const char *route;
        pm_handler_cb cb;
    } handlers[] = {
        {"gate.gateHandler.queryEntry", entry_query},
        {"connector.entryHandler.echo", server_echo},
        {"connector.entryHandler.echoRaw", server_echo_raw},
        {"connector.entryHandler.enter", entry_enter},
        {"connector.entryHandler.rpcBench", entry_rpc_bench},
        {"connector.entryHandler.kickMe", entry_kick_me},
        {"connector.entryHandler.burn", entry_burn},
    };
    pm_app_events events = pm_app_events_default();
    pm_err err = PM_OK;
    for (size_t i = 0; !err && i < sizeof handlers / sizeof handlers[0]; i++)
        err = pm_app_handler(app, handlers[i].route, handlers[i].cb, self);
    for (uint32_t i = 0; !err && i < self->extra_handlers; i++) {
        char route[64];
        snprintf(route, sizeof route, "connector.extra%uHandler.echo",
                 (unsigned)i);
        err = pm_app_handler(app, route, server_echo, self);
    }
    events.session_opened = entry_opened;
    events.session_bound = entry_session_bound;
    events.session_closed = entry_closed;
    return err ? err : pm_app_listen(app, &events, self);
}
