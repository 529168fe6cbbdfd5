/* SPDX-License-Identifier: MIT */
/* test_flow_life.c -- an app's life: components and their order, starts that
 * fail and are tried again, timers, values, events, and the ways in which a
 * stop ends. Each story keeps a trace of what ran, compared as a whole. */
#include "flow.h"

typedef struct life {
    flow f; /* first: a story is a flow */
    char said[512];
    const char *failing; /* this callback of a component fails */
    pm_request *held[4];
    size_t held_count;
    int stopped, cancelled, ticks;
    pm_err stop_err, start_inside;
    uint64_t timer;
} life;

static void life_say(life *l, const char *word)
{
    size_t len = strlen(l->said);
    snprintf(l->said + len, sizeof l->said - len, "%s%s", len ? " " : "", word);
}

static void life_forget(life *l)
{
    l->said[0] = 0;
}

/* ---- Components -------------------------------------------------------- */

typedef struct part {
    life *l;
    const char *name;
} part;

static pm_err part_says(part *p, const char *what)
{
    char word[64];
    snprintf(word, sizeof word, "%s.%s", p->name, what);
    life_say(p->l, word);
    return p->l->failing && !strcmp(word, p->l->failing) ? PM_ENOTSUP : PM_OK;
}

static pm_err part_start(pm_app *app, void *ctx)
{
    part *p = ctx;
    /* The ports are closed yet, and there is one start at a time. */
    assert_int_equal(pm_app_client_port(app), 0);
    p->l->start_inside = pm_app_start(app);
    return part_says(p, "start");
}

static pm_err part_after_start(pm_app *app, void *ctx)
{
    assert_int_equal(pm_app_client_port(app), 3050);
    return part_says(ctx, "after");
}

static void part_stop(pm_app *app, void *ctx)
{
    (void)app;
    part_says(ctx, "stop");
}

/* Everything still works, and there is one stop at a time. */
static void part_before_stop(pm_app *app, void *ctx)
{
    assert_int_equal(pm_app_client_port(app), 3050);
    assert_err(pm_app_stop(app, 1, NULL, NULL), PM_ESTATE);
    part_says(ctx, "before_stop");
}

static void life_parts(life *l, part parts[3])
{
    static const char *const names[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        pm_component component = {.name = names[i],
                                  .start = part_start,
                                  .after_start = part_after_start,
                                  .stop = part_stop,
                                  .before_stop = part_before_stop};
        parts[i].l = l;
        parts[i].name = names[i];
        assert_ok(pm_app_component(l->f.front, &component, &parts[i]));
        assert_err(pm_app_component(l->f.front, &component, &parts[i]),
                   PM_EEXIST);
    }
}

static void test_components_in_order(void **state)
{
    life l = {0};
    part parts[3];
    pm_component late = {.name = "late"};
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_ok(flow_app(&l.f, "connector-1", &l.f.front));
    life_parts(&l, parts);
    assert_ok(pm_app_start(l.f.front));
    assert_err(l.start_inside, PM_ESTATE);
    assert_string_equal(l.said,
                        "a.start b.start c.start a.after b.after c.after");
    assert_err(pm_app_component(l.f.front, &late, NULL), PM_ESTATE);
    assert_err(pm_app_start(l.f.front), PM_ESTATE);
    life_forget(&l);
    assert_ok(pm_app_stop(l.f.front, 1000, NULL, NULL));
    assert_string_equal(l.said, "c.before_stop b.before_stop a.before_stop");
    life_forget(&l);
    flow_run(&l.f, 10);
    assert_string_equal(l.said, "c.stop b.stop a.stop");
    pm_app_free(l.f.front);
    l.f.front = NULL;
    assert_string_equal(l.said, "c.stop b.stop a.stop");
    flow_end(&l.f);
}

/* What has started is stopped; nothing is open; then it starts after all. */
static void test_failing_components(void **state)
{
    static const struct {
        const char *failing, *said;
    } cases[] = {
        {"a.start", "a.start"},
        {"b.start", "a.start b.start a.stop"},
        {"b.after",
         "a.start b.start c.start a.after b.after c.stop b.stop a.stop"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        life l = {0};
        part parts[3];
        assert_ok(flow_loop(&l.f, 1));
        assert_ok(flow_app(&l.f, "connector-1", &l.f.front));
        life_parts(&l, parts);
        l.failing = cases[i].failing;
        assert_err(pm_app_start(l.f.front), PM_ENOTSUP);
        assert_string_equal(l.said, cases[i].said);
        assert_int_equal(pm_app_client_port(l.f.front), 0);
        l.failing = NULL;
        life_forget(&l);
        assert_ok(pm_app_start(l.f.front));
        assert_ok(flow_client(&l.f));
        flow_run(&l.f, 50);
        assert_int_equal(l.f.connected, 1);
        flow_end(&l.f);
    }
}

static void on_stopped(pm_app *app, pm_err err, void *ctx)
{
    life *l = ctx;
    (void)app;
    l->stopped++;
    l->stop_err = err;
    life_say(l, "stopped");
}

static pm_err stop_and_fail(pm_app *app, void *ctx)
{
    assert_ok(pm_app_stop(app, 100, on_stopped, ctx));
    return PM_ENOTSUP;
}

/* Whoever waits for the stop of a start that then fails is told once. */
static void test_stop_in_a_failing_start(void **state)
{
    life l = {0};
    pm_component component = {.name = "p", .after_start = stop_and_fail};
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_ok(flow_app(&l.f, "connector-1", &l.f.front));
    assert_ok(pm_app_component(l.f.front, &component, &l));
    assert_err(pm_app_start(l.f.front), PM_ENOTSUP);
    assert_int_equal(l.stopped, 0);
    flow_run(&l.f, 200);
    assert_int_equal(l.stopped, 1);
    flow_end(&l.f);
    assert_int_equal(l.stopped, 1);
}

/* ---- Ports ------------------------------------------------------------- */

static const pm_server life_twins[] = {
    {.id = "connector-1",
     .type = "connector",
     .port = 4050,
     .client_port = 3050,
     .frontend = true},
    {.id = "connector-2",
     .type = "connector",
     .port = 4051,
     .client_port = 3050,
     .frontend = true},
    {.id = "chat-1", .type = "chat", .port = 4060}};

static void life_twin(life *l, const char *id, pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = l->f.loop;
    opts.servers = life_twins;
    opts.servers_count = 3;
    opts.server_id = id;
    assert_ok(pm_app_new(out, &opts));
}

static void on_rpc(const pm_rpc_result *result, void *ctx)
{
    life *l = ctx;
    life_say(l, pm_err_name(result->err));
}

static void remote_now(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_body_text("1"));
}

/* The port is taken; as soon as it is free the very same app starts, also from
 * inside one callback, and its links are there. */
static void life_retry(pm_app *app, void *ctx)
{
    life *l = ctx;
    assert_err(pm_app_start(app), PM_EADDR);
    pm_app_free(l->f.back);
    l->f.back = NULL;
    assert_ok(pm_app_start(app));
}

static void test_port_taken(void **state)
{
    (void)state;
    for (int inside = 0; inside < 2; inside++) {
        life l = {0};
        pm_app *chat;
        assert_ok(flow_loop(&l.f, 1));
        life_twin(&l, "chat-1", &chat);
        assert_ok(pm_app_remote(chat, "chat.chatRemote.now", remote_now, NULL));
        assert_ok(pm_app_start(chat));
        life_twin(&l, "connector-2", &l.f.back);
        assert_ok(pm_app_start(l.f.back));
        life_twin(&l, "connector-1", &l.f.front);
        if (inside) {
            assert_ok(pm_app_timer(l.f.front, 0, 0, life_retry, &l, NULL));
        } else {
            assert_err(pm_app_start(l.f.front), PM_EADDR);
            assert_err(pm_app_start(l.f.front), PM_EADDR);
            pm_app_free(l.f.back);
            l.f.back = NULL;
            assert_ok(pm_app_start(l.f.front));
        }
        flow_run(&l.f, 50);
        assert_true(pm_server_is_up(l.f.front, "chat-1"));
        assert_ok(pm_rpc_invoke(l.f.front, "chat.chatRemote.now",
                                pm_param_none(), pm_body_none(), on_rpc, &l));
        flow_run(&l.f, 50);
        assert_string_equal(l.said, "PM_OK");
        pm_app_free(chat);
        flow_end(&l.f);
    }
}

/* ---- Timers, values ---------------------------------------------------- */

static void on_tick(pm_app *app, void *ctx)
{
    life *l = ctx;
    l->ticks++;
    if (l->ticks == 3)
        pm_app_timer_cancel(app, l->timer);
}

static void test_timers(void **state)
{
    life l = {0};
    uint64_t once;
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_ok(flow_app(&l.f, "chat-1", &l.f.back));
    assert_ok(pm_app_timer(l.f.back, 10, 20, on_tick, &l, &l.timer));
    flow_run(&l.f, 9);
    assert_int_equal(l.ticks, 0);
    flow_run(&l.f, 2);
    assert_int_equal(l.ticks, 1);
    flow_run(&l.f, 1000); /* 31, 51: cancels itself */
    assert_int_equal(l.ticks, 3);
    pm_app_timer_cancel(l.f.back, l.timer); /* harmless */
    assert_ok(pm_app_timer(l.f.back, 10, 0, on_tick, &l, &once));
    flow_run(&l.f, 100);
    assert_int_equal(l.ticks, 4);
    assert_ok(pm_app_timer(l.f.back, 10, 0, on_tick, &l, &once));
    pm_app_timer_cancel(l.f.back, once);
    assert_ok(pm_app_timer(l.f.back, 10, 1, on_tick, &l, NULL));
    assert_err(pm_app_timer(l.f.back, 10, 1, NULL, &l, NULL), PM_EINVAL);
    pm_app_free(l.f.back);
    l.f.back = NULL;
    flow_run(&l.f, 100);
    assert_int_equal(l.ticks, 4);
    flow_end(&l.f);
}

/* The second tick takes so long that two others have passed when it is done. */
static void on_slow_tick(pm_app *app, void *ctx)
{
    life *l = ctx;
    char text[24];
    (void)app;
    snprintf(text, sizeof text, "%u", (unsigned)(l->f.world.now_us / 1000));
    life_say(l, text);
    if (++l->ticks == 2)
        l->f.world.now_us += 47000;
}

static void test_timer_does_not_drift(void **state)
{
    life l = {0};
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_ok(flow_app(&l.f, "chat-1", &l.f.back));
    assert_ok(pm_app_timer(l.f.back, 10, 20, on_slow_tick, &l, NULL));
    flow_run(&l.f, 120);
    assert_string_equal(l.said, "10 30 77 90 110");
    flow_end(&l.f);
}

static void test_values(void **state)
{
    life l = {0};
    int a = 1, b = 2;
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_ok(flow_app(&l.f, "chat-1", &l.f.back));
    assert_null(pm_app_get(l.f.back, "x"));
    assert_ok(pm_app_set(l.f.back, "x", &a));
    assert_ok(pm_app_set(l.f.back, "y", &b));
    assert_ptr_equal(pm_app_get(l.f.back, "x"), &a);
    assert_ok(pm_app_set(l.f.back, "x", &b));
    assert_ptr_equal(pm_app_get(l.f.back, "x"), &b);
    assert_ok(pm_app_set(l.f.back, "x", NULL));
    assert_ok(pm_app_set(l.f.back, "x", NULL));
    assert_null(pm_app_get(l.f.back, "x"));
    assert_err(pm_app_set(l.f.back, NULL, &a), PM_EINVAL);
    flow_end(&l.f);
}

/* ---- Events ------------------------------------------------------------ */

static void on_opened(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    assert_string_equal(pm_session_frontend_id(session), "connector-1");
    life_say(ctx, "opened");
}

static void on_closed(pm_app *app, pm_session *session, pm_close_reason reason,
                      void *ctx)
{
    char word[64];
    (void)app;
    (void)session;
    snprintf(word, sizeof word, "closed:%d", (int)reason);
    life_say(ctx, word);
}

static void on_server(life *l, const char *what, const char *id)
{
    char word[64];
    snprintf(word, sizeof word, "%s:%s", what, id);
    life_say(l, word);
}

static void on_added(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    on_server(ctx, "added", server->id);
}

static void on_removed(pm_app *app, const char *id, void *ctx)
{
    (void)app;
    on_server(ctx, "removed", id);
}

static void on_up(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    on_server(ctx, "up", server->id);
}

static void on_down(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    on_server(ctx, "down", server->id);
}

static pm_err life_listen(flow *f, pm_app *app)
{
    pm_app_events events = pm_app_events_default();
    if (strcmp(pm_app_server(app)->type, "connector"))
        return PM_OK;
    events.session_opened = on_opened;
    events.session_closed = on_closed;
    events.server_added = on_added;
    events.server_removed = on_removed;
    events.server_up = on_up;
    events.server_down = on_down;
    return pm_app_listen(app, &events, f);
}

static void test_events(void **state)
{
    life l = {0};
    pm_server more = {.id = "chat-2", .type = "chat"};
    (void)state;
    assert_ok(flow_start(&l.f, 1, life_listen));
    assert_string_equal(l.said, "up:chat-1 opened");
    life_forget(&l);
    assert_ok(pm_server_add(l.f.front, &more));
    assert_err(pm_server_add(l.f.front, &more), PM_EEXIST);
    assert_ok(pm_server_remove(l.f.front, "chat-2"));
    assert_err(pm_server_remove(l.f.front, "chat-2"), PM_ENOTFOUND);
    assert_string_equal(l.said, "added:chat-2 removed:chat-2");
    life_forget(&l);
    pm_client_disconnect(l.f.client);
    flow_run(&l.f, 20);
    pm_app_free(l.f.back);
    l.f.back = NULL;
    flow_run(&l.f, 20);
    assert_string_equal(l.said, "closed:1 down:chat-1");
    flow_end(&l.f);
}

/* ---- Stop -------------------------------------------------------------- */

static void life_cancel(pm_request *req, pm_err why, void *ctx)
{
    life *l = ctx;
    (void)req;
    (void)why;
    l->cancelled++;
}

static void life_hold(pm_request *req, void *ctx)
{
    life *l = ctx;
    pm_request_on_cancel(req, life_cancel, l);
    l->held[l->held_count++] = req;
}

static void life_now(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{\"now\":1}");
}

static pm_err life_handlers(flow *f, pm_app *app)
{
    pm_err err = pm_app_handler(app, "connector.h.hold", life_hold, f);
    if (err == PM_OK)
        err = pm_app_handler(app, "chat.h.hold", life_hold, f);
    if (err == PM_OK)
        err = pm_app_handler(app, "connector.h.now", life_now, f);
    return err;
}

static void life_start(life *l)
{
    assert_ok(flow_start(&l->f, 1, life_handlers));
    assert_int_equal(l->f.connected, 1);
}

static void life_ask(life *l, const char *route)
{
    assert_ok(pm_client_request(l->f.client, route, pm_body_text("{}"),
                                flow_answered, l));
}

static void test_stop_idle(void **state)
{
    life l = {0};
    (void)state;
    life_start(&l);
    assert_ok(pm_app_stop(l.f.front, 1000, on_stopped, &l));
    assert_err(pm_app_stop(l.f.front, 1000, on_stopped, &l), PM_ESTATE);
    assert_int_equal(l.stopped, 0); /* never before the call has returned */
    assert_int_equal(pm_app_client_port(l.f.front), 0);
    flow_run(&l.f, 50);
    assert_int_equal(l.stopped, 1);
    assert_ok(l.stop_err);
    assert_false(pm_server_is_up(l.f.front, "chat-1"));
    assert_int_equal(l.f.kicks, 1);
    assert_string_equal(l.f.kick, "server stop");
    assert_int_equal(l.f.disconnected, 1);
    assert_err(pm_app_start(l.f.front), PM_ESTATE);
    flow_end(&l.f);
    assert_int_equal(l.stopped, 1);
}

/* Both ways to be busy: with a handler here, and with one over there. What is
 * in flight is answered, what comes meanwhile is refused, and the last answer
 * leaves before the kick. */
static void test_stop_busy(void **state)
{
    static const char *const routes[] = {"connector.h.hold", "chat.h.hold"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        life l = {0};
        life_start(&l);
        life_ask(&l, routes[i]);
        flow_run(&l.f, 10);
        assert_int_equal(l.held_count, 1);
        assert_ok(pm_app_stop(l.f.front, 1000, on_stopped, &l));
        flow_run(&l.f, 100);
        assert_int_equal(l.stopped, 0);
        assert_int_equal(l.f.kicks, 0);
        life_ask(&l, "connector.h.now");
        flow_run(&l.f, 10);
        assert_int_equal(l.f.answers, 1);
        assert_string_equal(l.f.answer, "{\"code\":500}");
        assert_ok(pm_reply_text(l.held[0], "{\"last\":1}"));
        flow_run(&l.f, 50);
        assert_int_equal(l.f.answers, 2);
        assert_ok(l.f.answer_err);
        assert_string_equal(l.f.answer, "{\"last\":1}");
        assert_int_equal(l.f.kicks, 1);
        assert_int_equal(l.stopped, 1);
        assert_ok(l.stop_err);
        assert_int_equal(l.cancelled, 0);
        flow_end(&l.f);
    }
}

static void test_stop_late(void **state)
{
    life l = {0};
    (void)state;
    life_start(&l);
    life_ask(&l, "connector.h.hold");
    life_ask(&l, "connector.h.hold");
    flow_run(&l.f, 10);
    assert_ok(pm_app_stop(l.f.front, 100, on_stopped, &l));
    flow_run(&l.f, 90);
    assert_int_equal(l.stopped, 0);
    flow_run(&l.f, 30);
    assert_int_equal(l.stopped, 1);
    assert_err(l.stop_err, PM_ETIMEOUT);
    assert_int_equal(l.cancelled, 2);
    assert_int_equal(l.f.kicks, 1);
    assert_int_equal(l.f.disconnected, 1);
    assert_err(l.f.answer_err, PM_ECLOSED);
    assert_err(pm_reply_text(l.held[0], "{}"), PM_ECLOSED);
    assert_err(pm_reply_text(l.held[1], "{}"), PM_ECLOSED);
    flow_end(&l.f);
}

/* What is cut off in the end does not make it a clean end. */
static void test_backend_stops_late(void **state)
{
    life l = {0};
    (void)state;
    life_start(&l);
    life_ask(&l, "chat.h.hold");
    flow_run(&l.f, 10);
    assert_ok(pm_app_stop(l.f.back, 100, on_stopped, &l));
    flow_run(&l.f, 200);
    assert_int_equal(l.stopped, 1);
    assert_err(l.stop_err, PM_ETIMEOUT);
    assert_int_equal(l.cancelled, 1);
    assert_string_equal(l.f.answer, "{\"code\":500}");
    assert_err(pm_reply_text(l.held[0], "{}"), PM_ECLOSED);
    flow_end(&l.f);
}

static void cancel_and_free(pm_request *req, pm_err why, void *ctx)
{
    life *l = ctx;
    pm_app *app = l->f.front;
    (void)req;
    assert_err(why, PM_ECLOSED);
    l->cancelled++;
    l->f.front = NULL;
    pm_app_free(app);
}

/* The client goes, its request's cancellation frees the app, whose session was
 * about to be closed: it is, once. */
static void test_free_while_a_session_closes(void **state)
{
    life l = {0};
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_ok(flow_app(&l.f, "connector-1", &l.f.front));
    assert_ok(life_listen(&l.f, l.f.front));
    assert_ok(life_handlers(&l.f, l.f.front));
    assert_ok(pm_app_start(l.f.front));
    assert_ok(flow_client(&l.f));
    flow_run(&l.f, 50);
    life_ask(&l, "connector.h.hold");
    life_ask(&l, "connector.h.hold");
    flow_run(&l.f, 10);
    assert_ok(pm_request_on_cancel(l.held[0], cancel_and_free, &l));
    pm_client_disconnect(l.f.client);
    flow_run(&l.f, 10);
    assert_int_equal(l.cancelled, 2);
    assert_string_equal(l.said, "opened closed:5");
    assert_err(pm_reply_text(l.held[0], "{}"), PM_ECLOSED);
    assert_err(pm_reply_text(l.held[1], "{}"), PM_ECLOSED);
    flow_end(&l.f);
}

/* A request that outlives its app keeps the loop. */
static void test_request_outlives_app(void **state)
{
    life l = {0};
    (void)state;
    life_start(&l);
    life_ask(&l, "connector.h.hold");
    flow_run(&l.f, 10);
    pm_client_free(l.f.client);
    pm_app_free(l.f.front);
    pm_app_free(l.f.back);
    l.f.client = NULL;
    l.f.front = l.f.back = NULL;
    assert_int_equal(l.cancelled, 1);
    assert_err(pm_loop_free(l.f.loop), PM_ESTATE);
    assert_string_equal(pm_request_route(l.held[0]), "connector.h.hold");
    assert_err(pm_reply_text(l.held[0], "{}"), PM_ECLOSED);
    flow_end(&l.f);
}

static void test_free_while_stopping(void **state)
{
    life l = {0};
    (void)state;
    life_start(&l);
    life_ask(&l, "connector.h.hold");
    flow_run(&l.f, 10);
    assert_ok(pm_app_stop(l.f.front, 1000, on_stopped, &l));
    pm_app_free(l.f.front);
    l.f.front = NULL;
    assert_int_equal(l.stopped, 1);
    assert_err(l.stop_err, PM_ECLOSED);
    assert_err(pm_reply_text(l.held[0], "{}"), PM_ECLOSED);
    flow_end(&l.f);
    assert_int_equal(l.stopped, 1);
}

/* A backend that stops says so: the frontend's new requests fail at once, the
 * one under way is answered. */
static void test_backend_drains(void **state)
{
    life l = {0};
    (void)state;
    life_start(&l);
    life_ask(&l, "chat.h.hold");
    flow_run(&l.f, 10);
    assert_ok(pm_app_stop(l.f.back, 1000, on_stopped, &l));
    flow_run(&l.f, 20);
    life_ask(&l, "chat.h.hold");
    flow_run(&l.f, 20);
    assert_int_equal(l.f.answers, 1);
    assert_string_equal(l.f.answer, "{\"code\":500}");
    assert_int_equal(l.held_count, 1);
    assert_ok(pm_reply_text(l.held[0], "{\"last\":1}"));
    flow_run(&l.f, 50);
    assert_string_equal(l.f.answer, "{\"last\":1}");
    assert_int_equal(l.stopped, 1);
    assert_ok(l.stop_err);
    flow_end(&l.f);
}

/* ---- Requests that wait ------------------------------------------------ */

typedef struct waiting {
    life l;
    pm_request *req[2];
    uint64_t id[2];
    size_t count;
    bool keep;
} waiting;

static void wait_hold(pm_request *req, void *ctx)
{
    waiting *w = ctx;
    if (w->keep)
        assert_ok(pm_request_keep(req));
    w->id[w->count] = pm_request_id(req);
    w->req[w->count++] = req;
}

/* A number finds its request as long as it lives, and nobody else afterwards.
 * The body lasts when it is kept, an empty one too. */
static void test_request_by_number(void **state)
{
    (void)state;
    for (int keep = 0; keep < 2; keep++) {
        waiting w = {.keep = keep == 1};
        struct cJSON *tree;
        pm_app *app;
        assert_ok(flow_loop(&w.l.f, 1));
        assert_ok(flow_app(&w.l.f, "connector-1", &w.l.f.front));
        app = w.l.f.front;
        assert_ok(pm_app_handler(app, "connector.h.wait", wait_hold, &w));
        assert_ok(pm_app_start(app));
        assert_ok(flow_client(&w.l.f));
        flow_run(&w.l.f, 50);
        life_ask(&w.l, "connector.h.wait");
        assert_ok(pm_client_request(w.l.f.client, "connector.h.wait",
                                    pm_body_bytes("", 0), flow_answered, &w));
        flow_run(&w.l.f, 10);
        assert_int_equal(w.count, 2);
        assert_true(w.id[0] && w.id[1] && w.id[0] != w.id[1]);
        assert_null(pm_request_find(app, 0));
        for (size_t i = 0; i < 2; i++) {
            assert_ptr_equal(pm_request_find(app, w.id[i]), w.req[i]);
            assert_int_equal(pm_request_id(w.req[i]), w.id[i]);
            assert_err(pm_request_json(w.req[i], &tree),
                       keep ? PM_OK : PM_ECLOSED);
            if (keep)
                assert_int_equal(cJSON_GetArraySize(tree), 1); /* __route__ */
            assert_ok(pm_reply_text(w.req[i], "{}"));
            assert_null(pm_request_find(app, w.id[i]));
        }
        flow_end(&w.l.f);
    }
}

/* ---- Options that are wrong -------------------------------------------- */

static void test_options_are_checked(void **state)
{
    life l = {0};
    pm_app_opts opts = pm_app_opts_default();
    pm_server twice[2] = {{.id = "a", .type = "t"}, {.id = "a", .type = "t"}};
    pm_app *app = NULL;
    (void)state;
    assert_ok(flow_loop(&l.f, 1));
    assert_err(pm_app_new(&app, NULL), PM_EINVAL);
    assert_err(pm_app_new(&app, &opts), PM_EINVAL);
    opts.loop = l.f.loop;
    opts.servers = twice;
    opts.servers_count = 2;
    opts.server_id = "a";
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    opts.servers_count = 1;
    opts.server_id = "b";
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    opts.server_id = NULL;
    opts.limits.package_out_bytes = 16 * 1024 * 1024; /* one too many */
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    opts.limits.package_out_bytes--;
    opts.connector.use_protobuf = true;
    opts.connector.server_protos = "{";
    assert_err(pm_app_new(&app, &opts), PM_EJSON);
    opts.connector.server_protos = NULL;
    opts.connector.client_protos = "[1";
    assert_err(pm_app_new(&app, &opts), PM_EJSON);
    opts.size = 0;
    assert_err(pm_app_new(&app, &opts), PM_EINVAL);
    assert_null(app);
    flow_end(&l.f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_components_in_order),
    cmocka_unit_test(test_failing_components),
    cmocka_unit_test(test_stop_in_a_failing_start),
    cmocka_unit_test(test_port_taken),
    cmocka_unit_test(test_timers),
    cmocka_unit_test(test_timer_does_not_drift),
    cmocka_unit_test(test_values),
    cmocka_unit_test(test_events),
    cmocka_unit_test(test_stop_idle),
    cmocka_unit_test(test_stop_busy),
    cmocka_unit_test(test_stop_late),
    cmocka_unit_test(test_backend_stops_late),
    cmocka_unit_test(test_free_while_a_session_closes),
    cmocka_unit_test(test_request_outlives_app),
    cmocka_unit_test(test_free_while_stopping),
    cmocka_unit_test(test_backend_drains),
    cmocka_unit_test(test_request_by_number),
    cmocka_unit_test(test_options_are_checked),
};

TEST_MAIN(tests)
