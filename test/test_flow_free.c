/* SPDX-License-Identifier: MIT */
/* test_flow_free.c -- something is freed inside every kind of callback that
 * there is.
 *
 * One story comes by every callback of the library: a cluster of two and a
 * client start, talk, change their table, part. It is told once for each
 * callback and each victim, and there the victim is freed: the app itself, the
 * other app, the client, or all three. Whatever is left of the story then goes
 * on. Each time the same must hold: no callback of a freed app runs any more,
 * what was asked for was told once, what is held can still be ended, and
 * nothing is left. LIFETIMES.md names these tests. Start at story_tell. */
#include "story.h"

/* Of a push, and the queues that it nearly fills. */
enum { FREE_LARGE = 420 * 1024, FREE_QUEUE = 512 * 1024 };

/* ---- Callbacks of an app ----------------------------------------------- */

static void on_bind_done(pm_err err, const char *detail, void *ctx)
{
    side *here = ctx;
    (void)err;
    (void)detail;
    here->s->told++;
    story_at(here, AT_BIND_DONE);
}

static void on_sync_done(pm_err err, const char *detail, void *ctx)
{
    side *here = ctx;
    (void)err;
    (void)detail;
    here->s->told++;
    story_at(here, AT_SYNC_DONE);
}

static void on_kick_done(pm_err err, const char *detail, void *ctx)
{
    side *here = ctx;
    (void)err;
    (void)detail;
    here->s->told++;
    story_at(here, AT_KICK_DONE);
}

static void on_rpc(const pm_rpc_result *result, void *ctx)
{
    side *here = ctx;
    assert_non_null(result->detail);
    here->s->told++;
    story_at(here, AT_RPC);
}

static void on_rpc_all(const pm_rpc_result *results, size_t count, void *ctx)
{
    side *here = ctx;
    (void)results;
    (void)count;
    here->s->told++;
    story_at(here, AT_RPC_ALL);
}

static void on_push(pm_err err, const pm_receiver *missed, size_t count,
                    void *ctx)
{
    side *here = ctx;
    (void)err;
    (void)missed;
    (void)count;
    here->s->told++;
    story_at(here, AT_PUSH);
}

static void on_found(pm_err err, pm_session *const *sessions, size_t count,
                     void *ctx)
{
    side *here = ctx;
    (void)err;
    (void)sessions;
    (void)count;
    here->s->told++;
    story_at(here, AT_FOUND);
}

static bool on_each_session(pm_session *session, void *ctx)
{
    story_at(ctx, AT_EACH_SESSION);
    assert_true(pm_session_id(session) > 0); /* ours until we return */
    return true;
}

static bool on_each_of_uid(pm_session *session, void *ctx)
{
    story_at(ctx, AT_EACH_OF_UID);
    assert_true(pm_session_id(session) > 0);
    return true;
}

static bool on_member(const pm_receiver *member, void *ctx)
{
    (void)member;
    story_at(ctx, AT_EACH_MEMBER);
    return true;
}

static bool on_stat(const pm_stat *stat, void *ctx)
{
    story_at(ctx, AT_EACH_STAT);
    assert_non_null(stat->labels); /* ours until we return */
    return true;
}

static void on_timer(pm_app *app, void *ctx)
{
    (void)app;
    story_at(ctx, AT_TIMER);
}

static void on_cron(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    story_at(ctx, AT_CRON);
    assert_string_equal(cron->action, "job.run");
}

static void on_cron_added(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    (void)cron;
    story_at(ctx, AT_CRON_ADDED);
}

static void on_cron_removed(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    (void)cron;
    story_at(ctx, AT_CRON_REMOVED);
}

static void on_stopped(pm_app *app, pm_err err, void *ctx)
{
    side *here = ctx;
    (void)app;
    (void)err;
    here->s->told++;
    story_at(here, AT_STOPPED);
}

static void on_posted(void *arg)
{
    side *here = arg;
    if (story_is_alive(here))
        story_at(here, AT_POSTED);
}

static void on_cancel(pm_request *req, pm_err why, void *ctx)
{
    side *here = ctx;
    (void)req;
    (void)why;
    here->s->told++;
    story_at(here, AT_CANCEL);
}

/* ---- Handlers ---------------------------------------------------------- */

static void story_count(side *here, pm_err err)
{
    if (err == PM_OK)
        here->s->asked++;
}

static void on_now(pm_request *req, void *ctx)
{
    story_at(ctx, AT_HANDLER);
    assert_non_null(pm_request_route(req));
    pm_reply_text(req, "{\"code\":200}");
    story_by(ctx, AT_HANDLER_AFTER_REPLY);
}

static void on_fail(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_request_fail(req, PM_EREMOTE, "no", NULL);
}

/* Asks for everything that a session can be asked for. */
static void on_work(pm_request *req, void *ctx)
{
    static const char large[FREE_LARGE];
    side *here = ctx;
    pm_session *session = pm_request_session(req);
    pm_session_ref(session);
    story_count(here, pm_session_bind(session, "u", on_bind_done, here));
    pm_session_set_text(session, "name", "value");
    story_count(here, pm_session_sync(session, NULL, on_sync_done, here));
    /* More than a link takes at once: it will be drained. */
    pm_session_push(session, "onWork", pm_body_bytes(large, sizeof large));
    pm_reply_text(req, "{}");
    pm_session_unref(session);
}

static void on_unbind(pm_request *req, void *ctx)
{
    side *here = ctx;
    pm_session *session = pm_request_session(req);
    story_count(here, pm_session_unbind(session, "u", on_bind_done, here));
    pm_reply_text(req, "{}");
}

static void on_kick(pm_request *req, void *ctx)
{
    side *here = ctx;
    pm_session *session = pm_request_session(req);
    story_count(here, pm_session_kick(session, "out", on_kick_done, here));
    pm_request_drop(req);
}

/* Never ends by itself: the story does it. */
static void on_never(pm_request *req, void *ctx)
{
    side *here = ctx;
    story *s = here->s;
    assert_true(s->held_count < STORY_HELD_MAX);
    s->held[s->held_count++] = req;
    if (pm_request_on_cancel(req, on_cancel, here) == PM_OK)
        s->asked++; /* taken back when it is answered in time: never here */
}

static void on_remote(pm_call *call, void *ctx)
{
    story_at(ctx, AT_REMOTE);
    pm_call_reply(call, pm_body_text("{\"ok\":true}"));
}

static void on_remote_never(pm_call *call, void *ctx)
{
    side *here = ctx;
    story *s = here->s;
    assert_true(s->calls_count < STORY_HELD_MAX);
    s->calls[s->calls_count++] = call;
}

static void on_route(pm_app *app, pm_choice *choice, void *ctx)
{
    (void)app;
    story_at(ctx, AT_ROUTER);
    pm_route_to(choice, "chat-1");
    story_by(ctx, AT_ROUTER_CHOSEN);
}

static void on_route_never(pm_app *app, pm_choice *choice, void *ctx)
{
    side *here = ctx;
    story *s = here->s;
    (void)app;
    assert_true(s->choices_count < STORY_HELD_MAX);
    s->choices[s->choices_count++] = choice;
}

/* ---- Filters ----------------------------------------------------------- */

static void on_before(pm_request *req, void *ctx)
{
    side *here = ctx;
    story *s = here->s;
    story_at(here, AT_BEFORE);
    if (!strstr(pm_request_route(req), ".parked")) {
        pm_filter_next(req);
        return;
    }
    assert_true(s->parked_count < STORY_HELD_MAX);
    s->parked[s->parked_count++] = req;
}

static void on_after(pm_request *req, const pm_response *response, void *ctx)
{
    (void)response;
    story_at(ctx, AT_AFTER);
    pm_filter_next(req);
}

static void on_global_before(pm_request *req, void *ctx)
{
    story_at(ctx, AT_GLOBAL_BEFORE);
    if (strstr(pm_request_route(req), ".refused"))
        pm_request_fail(req, PM_EBUSY, "refused", NULL);
    else
        pm_filter_next(req);
}

static void on_global_after(pm_request *req, const pm_response *response,
                            void *ctx)
{
    (void)response;
    story_at(ctx, AT_GLOBAL_AFTER);
    pm_filter_next(req);
}

static void on_error(pm_request *req, const pm_response *response, void *ctx)
{
    assert_true(response->err != PM_OK);
    story_at(ctx, AT_ERROR_HANDLER);
    pm_filter_next(req);
}

static void on_global_error(pm_request *req, const pm_response *response,
                            void *ctx)
{
    assert_true(response->err != PM_OK);
    story_at(ctx, AT_GLOBAL_ERROR_HANDLER);
    pm_filter_next(req);
}

static void on_filter_free(void *ctx)
{
    story_at(ctx, AT_FILTER_FREE);
}

static pm_err on_rpc_before(pm_app *app, const pm_rpc_opts *call, void *ctx)
{
    (void)app;
    (void)call;
    story_at(ctx, AT_RPC_BEFORE);
    return PM_OK;
}

static void on_rpc_after(pm_app *app, const char *method,
                         const pm_rpc_result *result, void *ctx)
{
    (void)app;
    (void)method;
    (void)result;
    story_at(ctx, AT_RPC_AFTER);
}

static void on_rpc_error(pm_app *app, const char *method,
                         const pm_rpc_result *result, void *ctx)
{
    (void)app;
    (void)method;
    (void)result;
    story_at(ctx, AT_RPC_ERROR);
}

/* ---- Life, events, handshake ------------------------------------------- */

static pm_err on_start(pm_app *app, void *ctx)
{
    (void)app;
    story_at(ctx, AT_START);
    return PM_OK;
}

static pm_err on_after_start(pm_app *app, void *ctx)
{
    (void)app;
    story_at(ctx, AT_AFTER_START);
    return PM_OK;
}

static void on_after_start_all(pm_app *app, void *ctx)
{
    (void)app;
    story_at(ctx, AT_AFTER_START_ALL);
}

static void on_before_stop(pm_app *app, void *ctx)
{
    (void)app;
    story_at(ctx, AT_BEFORE_STOP);
}

static void on_stop(pm_app *app, void *ctx)
{
    (void)app;
    story_at(ctx, AT_STOP);
}

static void on_opened(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    story_at(ctx, AT_OPENED);
    assert_true(pm_session_id(session) > 0);
}

static void on_bound(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    story_at(ctx, AT_BOUND);
    assert_true(pm_session_id(session) > 0);
}

static void on_unbound(pm_app *app, pm_session *session, const char *uid,
                       void *ctx)
{
    (void)app;
    (void)session;
    story_at(ctx, AT_UNBOUND);
    assert_string_equal(uid, "u");
}

static void on_drained(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    (void)session;
    story_at(ctx, AT_DRAINED);
}

static void on_server_drained(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    story_at(ctx, AT_SERVER_DRAINED);
}

static void on_closed(pm_app *app, pm_session *session, pm_close_reason reason,
                      void *ctx)
{
    (void)app;
    (void)reason;
    story_at(ctx, AT_CLOSED);
    assert_true(pm_session_is_closed(session));
}

static void on_suspended(pm_app *app, pm_session *session,
                         pm_close_reason reason, void *ctx)
{
    (void)app;
    (void)reason;
    story_at(ctx, AT_SUSPENDED);
    assert_true(pm_session_id(session) > 0);
}

static void on_resumed(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    story_at(ctx, AT_RESUMED);
    assert_true(pm_session_id(session) > 0);
}

static void on_added(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    story_at(ctx, AT_ADDED);
}

static void on_removed(pm_app *app, const char *id, void *ctx)
{
    (void)app;
    (void)id;
    story_at(ctx, AT_REMOVED);
}

static void on_up(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    story_at(ctx, AT_UP);
}

static void on_down(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    story_at(ctx, AT_DOWN);
}

static bool on_check_client(const char *type, const char *version, bool *failed,
                            void *ctx)
{
    (void)type;
    (void)version;
    (void)failed;
    story_at(ctx, AT_CHECK_CLIENT);
    return true;
}

static void on_handshake_timer(pm_app *app, void *ctx)
{
    side *here = ctx;
    pm_handshake *hs = here->s->handshake;
    (void)app;
    here->s->handshake = NULL;
    if (hs)
        pm_handshake_done(hs, PM_OK, NULL);
}

static void on_handshake(pm_handshake *hs, const struct cJSON *msg, void *ctx)
{
    side *here = ctx;
    (void)msg;
    if (here->s->handshake) { /* not the first one */
        pm_handshake_done(hs, PM_OK, NULL);
        return;
    }
    here->s->handshake = hs;
    story_at(here, AT_HANDSHAKE);
    if (story_is_alive(here))
        pm_app_timer(*here->app, 5, 0, on_handshake_timer, here, NULL);
}

/* Everything is a little too much, and let in all the same. */
static bool on_refuse(pm_session *session, pm_slice route, pm_err why,
                      pm_body *answer, void *ctx)
{
    (void)session;
    (void)route;
    (void)why;
    (void)answer;
    story_at(ctx, AT_REFUSE);
    return false;
}

/* ---- Callbacks of the client ------------------------------------------- */

static void on_connected(pm_client *client, const struct cJSON *user, void *ctx)
{
    story *s = ctx;
    (void)client;
    (void)user;
    s->f.connected++;
    story_at(&s->none, AT_CONNECTED);
}

static void on_pushed(pm_client *client, const char *route, pm_body body,
                      void *ctx)
{
    (void)client;
    (void)route;
    (void)body;
    story_at(&((story *)ctx)->none, AT_PUSHED);
}

static void on_kicked(pm_client *client, const char *reason, void *ctx)
{
    (void)client;
    (void)reason;
    story_at(&((story *)ctx)->none, AT_KICKED);
}

static void on_disconnected(pm_client *client, pm_close_reason reason, int code,
                            void *ctx)
{
    (void)client;
    (void)reason;
    (void)code;
    story_at(&((story *)ctx)->none, AT_DISCONNECTED);
}

static void on_client_suspended(pm_client *client, pm_close_reason reason,
                                void *ctx)
{
    (void)client;
    (void)reason;
    story_at(&((story *)ctx)->none, AT_CLIENT_SUSPENDED);
}

static void on_client_resumed(pm_client *client, void *ctx)
{
    (void)client;
    story_at(&((story *)ctx)->none, AT_CLIENT_RESUMED);
}

static void on_answered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    story *s = ctx;
    (void)client;
    (void)err;
    (void)body;
    s->told++;
    story_at(&s->none, AT_ANSWERED);
}

/* ---- Setting the stage ------------------------------------------------- */

static pm_err story_register(side *here, pm_app *app)
{
    static const struct {
        const char *name;
        pm_handler_cb cb;
    } handlers[] = {{"now", on_now},    {"fail", on_fail},
                    {"work", on_work},  {"unbind", on_unbind},
                    {"kick", on_kick},  {"never", on_never},
                    {"parked", on_now}, {"refused", on_now}};
    static const char *const types[] = {"connector.entryHandler",
                                        "chat.chatHandler"};
    char route[64];
    for (size_t i = 0; i < 2 * sizeof handlers / sizeof *handlers; i++) {
        snprintf(route, sizeof route, "%s.%s", types[i % 2],
                 handlers[i / 2].name);
        assert_ok(pm_app_handler(app, route, handlers[i / 2].cb, here));
    }
    assert_ok(pm_app_remote(app, "chat.chatRemote.now", on_remote, here));
    assert_ok(
        pm_app_remote(app, "chat.chatRemote.never", on_remote_never, here));
    assert_ok(pm_app_remote(app, "connector.entryRemote.now", on_remote, here));
    assert_ok(pm_app_cron(app, "chat.job.run", on_cron, here));
    assert_ok(pm_app_cron(app, "connector.job.run", on_cron, here));
    assert_ok(pm_app_route(app, "chat", on_route, here));
    return PM_OK;
}

static void story_listen(side *here, pm_app *app)
{
    pm_app_events events = pm_app_events_default();
    pm_filter filter = {on_before, on_after, on_filter_free};
    pm_filter global = {on_global_before, on_global_after, NULL};
    pm_rpc_filter rpc = {on_rpc_before, on_rpc_after};
    pm_component part = {"part",  on_start,       on_after_start,
                         on_stop, on_before_stop, on_after_start_all};
    pm_component last = part;
    last.name = "last";
    events.session_opened = on_opened;
    events.session_bound = on_bound;
    events.session_unbound = on_unbound;
    events.session_closed = on_closed;
    events.session_drained = on_drained;
    events.server_drained = on_server_drained;
    events.session_suspended = on_suspended;
    events.session_resumed = on_resumed;
    events.server_added = on_added;
    events.server_removed = on_removed;
    events.server_up = on_up;
    events.server_down = on_down;
    events.cron_added = on_cron_added;
    events.cron_removed = on_cron_removed;
    assert_ok(pm_app_listen(app, &events, here));
    assert_ok(pm_app_listen(app, &events, here)); /* one more to be left out */
    assert_ok(pm_filter_serial(app, 50));
    assert_ok(pm_filter_timeout(app, 20));
    assert_ok(pm_filter_time(app));
    assert_ok(pm_filter_toobusy(app, 0));
    assert_ok(pm_app_filter(app, &filter, here));
    assert_ok(pm_app_global_filter(app, &global, here));
    assert_ok(pm_app_rpc_filter(app, &rpc, here));
    pm_app_error_handler(app, on_error, here);
    pm_app_global_error_handler(app, on_global_error, here);
    pm_app_rpc_error_handler(app, on_rpc_error, here);
    assert_ok(pm_app_component(app, &part, here));
    assert_ok(pm_app_component(app, &last, here));
}

static void story_app(story *s, const char *id, side *here)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    opts.loop = s->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.connector.heartbeat_s = 30;
    opts.connector.timeout_s = 10; /* before our client says anything */
    opts.connector.resume_ms = 1000;
    opts.connector.check_client = on_check_client;
    opts.connector.handshake = on_handshake;
    opts.connector.refuse = on_refuse;
    opts.connector.ctx = here;
    opts.limits.messages_per_s = 1;
    opts.limits.over_rate = PM_RATE_REFUSE;
    opts.limits.client_queue_bytes = FREE_QUEUE;
    opts.limits.peer_queue_bytes = FREE_QUEUE;
    assert_ok(pm_app_new(here->app, &opts));
    app = *here->app;
    story_register(here, app);
    story_listen(here, app);
    if (pm_app_start(app) == PM_OK) /* not where it is freed meanwhile */
        pmi_app_all_started(app);
}

static void story_drop_client(story *s)
{
    pm_client *client = s->f.client;
    s->f.client = NULL;
    pm_client_free(client);
}

static void story_client(story *s, bool resume)
{
    pm_client_opts opts = pm_client_opts_default();
    story_drop_client(s);
    opts.loop = s->f.loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    opts.port = 3050;
    opts.events.connected = on_connected;
    opts.events.pushed = on_pushed;
    opts.events.kicked = on_kicked;
    opts.events.disconnected = on_disconnected;
    opts.events.suspended = on_client_suspended;
    opts.events.resumed = on_client_resumed;
    opts.reconnect = opts.resume = resume;
    opts.ctx = s;
    assert_ok(pm_client_new(&s->f.client, &opts));
    flow_run(&s->f, 50);
}

static void story_begin(story *s, free_point point, unsigned kill)
{
    memset(s, 0, sizeof *s);
    s->point = point;
    s->kill = kill;
    s->front.s = s->back.s = s->none.s = s;
    s->front.app = &s->f.front;
    s->back.app = &s->f.back;
    s->none.app = &s->f.front;
    assert_ok(flow_loop(&s->f, 1));
    story_app(s, "chat-1", &s->back);
    story_app(s, "connector-1", &s->front);
    story_client(s, false);
}

/* ---- The story --------------------------------------------------------- */

static void story_ask(story *s, const char *method)
{
    static const char *const types[] = {"connector.entryHandler",
                                        "chat.chatHandler"};
    char route[64];
    for (size_t i = 0; i < 2; i++) {
        snprintf(route, sizeof route, "%s.%s", types[i], method);
        if (!s->f.client || !pm_client_is_connected(s->f.client))
            return;
        if (pm_client_request(s->f.client, route, pm_body_text("{\"a\":1}"),
                              on_answered, s) == PM_OK)
            s->asked++;
        flow_run(&s->f, 10);
    }
}

static void story_cron(story *s, side *here)
{
    static const pm_cron cron = {"c", "* * * * * *", "job.run"};
    if (story_is_alive(here))
        pm_cron_add(*here->app, &cron);
    flow_run(&s->f, 1000);
    if (story_is_alive(here))
        pm_cron_remove(*here->app, "c");
}

/* All that an app does by itself. */
static void story_act(story *s, side *here)
{
    pm_server more = {.id = "chat-2", .type = "chat", .host = "127.0.0.1"};
    pm_receiver to[2] = {{"u", "connector-1"}, {"ghost", "connector-1"}};
    pm_channel *channel;
    pm_param none = pm_param_none();
    pm_body body = pm_body_text("{}");
#define STORY_STEP(call)                                                       \
    do {                                                                       \
        if (story_is_alive(here))                                              \
            story_count(here, (call));                                         \
        flow_run(&s->f, 10);                                                   \
    } while (0)
    STORY_STEP(pm_rpc_invoke(*here->app, "chat.chatRemote.now", none, body,
                             on_rpc, here));
    STORY_STEP(pm_rpc_invoke(*here->app, "connector.entryRemote.now", none,
                             body, on_rpc, here));
    STORY_STEP(pm_rpc_invoke(*here->app, "chat.chatRemote.nobody", none, body,
                             on_rpc, here));
    STORY_STEP(
        pm_rpc_all(*here->app, "chat.chatRemote.now", body, on_rpc_all, here));
    STORY_STEP(pm_push_uids(*here->app, "onPush", body, to, 2, on_push, here));
    STORY_STEP(pm_session_fetch_uid(*here->app, NULL, "u", on_found, here));
    if (story_is_alive(here))
        pm_app_timer(*here->app, 1, 1, on_timer, here, NULL);
    flow_run(&s->f, 10);
    if (story_is_alive(here) &&
        (channel = pm_channel_get(*here->app, "room", true))) {
        assert_ok(pm_channel_add(channel, "u", "connector-1"));
        pm_channel_each(channel, on_member, here);
    }
    if (story_is_alive(here))
        pm_session_each(*here->app, NULL, on_each_session, here);
    if (story_is_alive(here))
        pm_session_each(*here->app, "u", on_each_of_uid, here);
    if (story_is_alive(here))
        pm_stats_each(*here->app, on_stat, here);
    if (story_is_alive(here))
        pm_server_add(*here->app, &more);
    if (story_is_alive(here))
        pm_server_remove(*here->app, "chat-2");
    story_cron(s, here);
    pm_loop_post(s->f.loop, on_posted, here);
    flow_run(&s->f, 10);
}

/* Things that nobody ends before the story does. */
static void story_hold(story *s)
{
    pm_param none = pm_param_none();
    story_ask(s, "parked");
    story_ask(s, "never"); /* waits behind the parked ones, then is late */
    for (int i = 0; i < 2; i++) {
        side *here = i ? &s->back : &s->front;
        STORY_STEP(pm_rpc_invoke(*here->app, "chat.chatRemote.never", none,
                                 pm_body_none(), on_rpc, here));
        if (story_is_alive(here))
            assert_ok(pm_app_route(*here->app, "chat", on_route_never, here));
        STORY_STEP(pm_rpc_invoke(*here->app, "chat.chatRemote.now", none,
                                 pm_body_none(), on_rpc, here));
    }
    flow_run(&s->f, 200);
#undef STORY_STEP
}

static void story_part(story *s)
{
    if (story_is_alive(&s->front))
        story_count(&s->front,
                    pm_app_stop(*s->front.app, 50, on_stopped, &s->front));
    flow_run(&s->f, 100);
    story_client(s, false);
    flow_run(&s->f, 100);
    if (story_is_alive(&s->back))
        story_count(&s->back,
                    pm_app_stop(*s->back.app, 50, on_stopped, &s->back));
    flow_run(&s->f, 100);
}

/* After everything has been freed, what is held is still to be ended. */
static void story_end_held(story *s)
{
    for (size_t i = 0; i < s->held_count; i++) {
        assert_non_null(strstr(pm_request_route(s->held[i]), ".never"));
        assert_true(pm_session_id(pm_request_session(s->held[i])) > 0);
        assert_err(pm_request_on_cancel(s->held[i], on_cancel, &s->front),
                   PM_ECLOSED);
        assert_err(pm_reply_text(s->held[i], "{}"), PM_ECLOSED);
    }
    for (size_t i = 0; i < s->parked_count; i++)
        pm_filter_next(s->parked[i]);
    for (size_t i = 0; i < s->calls_count; i++)
        assert_err(pm_call_reply(s->calls[i], pm_body_text("1")), PM_ECLOSED);
    for (size_t i = 0; i < s->choices_count; i++)
        pm_route_to(s->choices[i], "chat-1");
    if (s->handshake)
        pm_handshake_done(s->handshake, PM_OK, NULL);
}

static void story_free_all(story *s)
{
    story_drop_client(s);
    story_kill(&s->front);
    story_kill(&s->back);
}

static void story_tell(free_point point, unsigned kill)
{
    story *s = malloc(sizeof *s);
    assert_non_null(s);
    story_begin(s, point, kill);
    story_ask(s, "now");
    story_ask(s, "fail");
    story_ask(s, "refused");
    story_ask(s, "work");
    story_act(s, &s->front);
    story_act(s, &s->back);
    story_ask(s, "unbind");
    story_ask(s, "kick");
    flow_run(&s->f, 50);
    story_client(s, true);
    flow_run(&s->f, 11000);
    story_client(s, false);
    story_hold(s);
    story_part(s);
    story_free_all(s);
    story_end_held(s);
    if (s->passed == 0 || s->late || s->asked != s->told)
        print_error("%s, %u: passed %d, late %d, asked %d, told %d\n",
                    free_names[point], kill, s->passed, s->late, s->asked,
                    s->told);
    assert_true(s->passed > 0);
    assert_int_equal(s->late, 0);
    assert_int_equal(s->asked, s->told);
    flow_end(&s->f);
    free(s);
}

static void story_tell_all(unsigned kill)
{
    for (int point = 0; point < AT_COUNT; point++)
        story_tell((free_point)point, kill);
}

static void test_nobody_dies(void **state)
{
    (void)state;
    story_tell_all(0);
}

static void test_the_app_itself(void **state)
{
    (void)state;
    story_tell_all(KILL_OWN);
}

static void test_the_other_app(void **state)
{
    (void)state;
    story_tell_all(KILL_OTHER);
}

static void test_the_client(void **state)
{
    (void)state;
    story_tell_all(KILL_CLIENT);
}

static void test_everybody(void **state)
{
    (void)state;
    story_tell_all(KILL_OWN | KILL_OTHER | KILL_CLIENT);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_nobody_dies),   cmocka_unit_test(test_the_app_itself),
    cmocka_unit_test(test_the_other_app), cmocka_unit_test(test_the_client),
    cmocka_unit_test(test_everybody),
};

TEST_MAIN(tests)
