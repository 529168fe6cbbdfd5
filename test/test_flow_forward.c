/* SPDX-License-Identifier: MIT */
/* test_flow_forward.c -- a request goes from a client through a frontend to a backend and back, in one
 * thread, without a socket, on a virtual clock; then everything that can happen
 * on the way does happen. LIFETIMES.md names these tests. */
#include "flow.h"

typedef struct story {
    flow f; /* first: a story is a flow */
    pm_request *held;
    int handled, cancelled, remotes, calls_done;
    pm_err cancel_why, late_reply, rpc_err;
    uint64_t session_id;
    bool free_in_handler, free_in_cancel;
} story;

static void story_now(pm_request *req, void *ctx)
{
    story *s = ctx;
    s->handled++;
    flow_note(&s->f, "handler");
    pm_reply_text(req, "{\"code\":200,\"from\":\"now\"}");
}

static void story_timer(pm_app *app, void *ctx)
{
    story *s = ctx;
    pm_request *req = s->held;
    (void)app;
    s->held = NULL;
    s->late_reply = pm_reply_text(req, "{\"code\":200,\"from\":\"later\"}");
}

static void story_cancel(pm_request *req, pm_err why, void *ctx)
{
    story *s = ctx;
    (void)req;
    s->cancelled++;
    s->cancel_why = why;
    flow_note(&s->f, "cancelled");
}

static void story_later(pm_request *req, void *ctx)
{
    story *s = ctx;
    s->handled++;
    s->held = req;
    assert_ok(pm_request_on_cancel(req, story_cancel, s));
    if (pm_app_timer(pm_request_app(req), 100, 0, story_timer, s, NULL)) {
        s->held = NULL;
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
    }
}

static void story_never(pm_request *req, void *ctx)
{
    story *s = ctx;
    s->handled++;
    s->held = req;
    assert_ok(pm_request_on_cancel(req, story_cancel, s));
}

static void story_echo(pm_request *req, void *ctx)
{
    struct cJSON *body;
    (void)ctx;
    if (pm_request_json(req, &body))
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
    else
        pm_reply_json(req, body);
}

static void story_push(pm_request *req, void *ctx)
{
    story *s = ctx;
    pm_session *session = pm_request_session(req);
    s->session_id = pm_session_id(session);
    pm_session_push(session, "onChat", pm_body_text("{\"i\":1}"));
    pm_reply_text(req, "{\"code\":200}");
}

static void story_kick(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_session_kick(pm_request_session(req), "out", NULL, NULL);
    pm_request_drop(req);
}

static void story_free(pm_request *req, void *ctx)
{
    story *s = ctx;
    pm_app *app = pm_request_app(req);
    s->handled++;
    if (app == s->f.front)
        s->f.front = NULL;
    else
        s->f.back = NULL;
    pm_app_free(app);
    s->late_reply = pm_reply_text(req, "{}");
}

static pm_err story_configure(flow *f, pm_app *app)
{
    static const struct {
        const char *name;
        pm_handler_cb cb;
    } handlers[] = {{"now", story_now},     {"later", story_later},
                    {"never", story_never}, {"echo", story_echo},
                    {"push", story_push},   {"kick", story_kick},
                    {"free", story_free}};
    static const char *const types[] = {"connector.entryHandler",
                                        "chat.chatHandler"};
    char route[64];
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
            pm_err err;
            snprintf(route, sizeof route, "%s.%s", types[t], handlers[i].name);
            err = pm_app_handler(app, route, handlers[i].cb, f);
            if (err)
                return err;
        }
    return PM_OK;
}

static void story_start(story *s)
{
    assert_ok(flow_start(&s->f, 1, story_configure));
    assert_int_equal(s->f.connected, 1);
}

static void story_ask(story *s, const char *route, const char *body)
{
    assert_ok(pm_client_request(s->f.client, route, pm_body_text(body),
                                flow_answered, s));
}

/* ---- Answers ----------------------------------------------------------- */

static void test_answers_at_once(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    story_ask(&s, "connector.entryHandler.now", "{}");
    flow_run(&s.f, 10);
    assert_int_equal(s.f.answers, 1);
    assert_string_equal(s.f.answer, "{\"code\":200,\"from\":\"now\"}");
    story_ask(&s, "chat.chatHandler.now", "{}");
    flow_run(&s.f, 10);
    assert_int_equal(s.f.answers, 2);
    assert_int_equal(s.handled, 2);
    flow_end(&s.f);
}

static void test_answers_later(void **state)
{
    static const char *const routes[] = {"connector.entryHandler.later",
                                         "chat.chatHandler.later"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        story s = {0};
        story_start(&s);
        story_ask(&s, routes[i], "{}");
        flow_run(&s.f, 50);
        assert_int_equal(s.f.answers, 0);
        flow_run(&s.f, 100);
        assert_int_equal(s.f.answers, 1);
        assert_ok(s.late_reply);
        assert_string_equal(s.f.answer, "{\"code\":200,\"from\":\"later\"}");
        assert_int_equal(s.cancelled, 0);
        flow_end(&s.f);
    }
}

static void test_echo_adds_the_route(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    story_ask(&s, "chat.chatHandler.echo", "{\"a\":[1,2]}");
    flow_run(&s.f, 10);
    assert_string_equal(
        s.f.answer, "{\"a\":[1,2],\"__route__\":\"chat.chatHandler.echo\"}");
    flow_end(&s.f);
}

static void test_unknown_routes_get_500(void **state)
{
    static const char *const routes[] = {"connector.entryHandler.nobody",
                                         "chat.chatHandler.nobody",
                                         "ghost.some.thing", "a.b"};
    story s = {0};
    (void)state;
    story_start(&s);
    for (int i = 0; i < 4; i++) {
        story_ask(&s, routes[i], "{}");
        flow_run(&s.f, 20);
        assert_int_equal(s.f.answers, i + 1);
        assert_string_equal(s.f.answer, "{\"code\":500}");
    }
    flow_end(&s.f);
}

static void test_notify_has_no_answer(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    assert_ok(pm_client_notify(s.f.client, "chat.chatHandler.now",
                               pm_body_text("{}")));
    assert_ok(pm_client_notify(s.f.client, "connector.entryHandler.now",
                               pm_body_text("{}")));
    flow_run(&s.f, 20);
    assert_int_equal(s.handled, 2);
    assert_int_equal(s.f.answers + s.f.pushes, 0);
    flow_end(&s.f);
}

static void test_push_from_both(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    story_ask(&s, "connector.entryHandler.push", "{}");
    flow_run(&s.f, 20);
    assert_int_equal(s.f.pushes, 1);
    story_ask(&s, "chat.chatHandler.push", "{}");
    flow_run(&s.f, 20);
    assert_int_equal(s.f.pushes, 2);
    assert_int_equal(s.f.answers, 2);
    assert_string_equal(s.f.push, "{\"i\":1}");
    flow_end(&s.f);
}

static void test_kick_from_both(void **state)
{
    static const char *const routes[] = {"connector.entryHandler.kick",
                                         "chat.chatHandler.kick"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        story s = {0};
        story_start(&s);
        story_ask(&s, routes[i], "{}");
        flow_run(&s.f, 50);
        assert_int_equal(s.f.kicks, 1);
        assert_string_equal(s.f.kick, "out");
        assert_int_equal(s.f.disconnected, 1);
        assert_int_equal(s.f.answers, 1); /* completed by the disconnect */
        assert_err(s.f.answer_err, PM_ECLOSED);
        flow_end(&s.f);
    }
}

static void test_heartbeats_keep_it_alive(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    flow_run(&s.f, 60000);
    assert_int_equal(s.f.disconnected, 0);
    flow_end(&s.f);
}

/* ---- Ends -------------------------------------------------------------- */

static void test_deadline_ends_the_wire_side(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    story_ask(&s, "connector.entryHandler.never", "{}");
    flow_run(&s.f, 29000);
    assert_int_equal(s.f.answers, 0);
    flow_run(&s.f, 2000);
    assert_int_equal(s.f.answers, 1);
    assert_string_equal(s.f.answer, "{\"code\":500}");
    assert_int_equal(s.cancelled, 1);
    assert_err(s.cancel_why, PM_ETIMEOUT);
    assert_err(pm_reply_text(s.held, "{}"), PM_ECLOSED);
    flow_run(&s.f, 10);
    assert_int_equal(s.f.answers, 1);
    flow_end(&s.f);
}

static void test_session_close_cancels(void **state)
{
    static const char *const routes[] = {"connector.entryHandler.never",
                                         "chat.chatHandler.never"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        story s = {0};
        story_start(&s);
        story_ask(&s, routes[i], "{}");
        flow_run(&s.f, 20);
        assert_int_equal(s.handled, 1);
        pm_client_disconnect(s.f.client);
        flow_run(&s.f, 20);
        if (i == 0) { /* a backend is not told: its answer goes nowhere */
            assert_int_equal(s.cancelled, 1);
            assert_err(s.cancel_why, PM_ECLOSED);
            assert_err(pm_reply_text(s.held, "{}"), PM_ECLOSED);
        } else {
            assert_ok(pm_reply_text(s.held, "{}"));
        }
        flow_run(&s.f, 20);
        assert_int_equal(s.f.answers, 1);
        flow_end(&s.f);
    }
}

static void test_backend_freed_in_the_middle(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    story_ask(&s, "chat.chatHandler.never", "{}");
    flow_run(&s.f, 20);
    assert_non_null(s.held);
    pm_app_free(s.f.back);
    s.f.back = NULL;
    assert_int_equal(s.cancelled, 1);
    flow_run(&s.f, 20);
    assert_int_equal(s.f.answers, 1);
    assert_string_equal(s.f.answer, "{\"code\":500}");
    assert_err(pm_reply_text(s.held, "{}"), PM_ECLOSED);
    story_ask(&s, "chat.chatHandler.now", "{}");
    flow_run(&s.f, 20);
    assert_int_equal(s.f.answers, 2);
    assert_string_equal(s.f.answer, "{\"code\":500}");
    flow_end(&s.f);
}

static void test_app_freed_in_its_handler(void **state)
{
    static const char *const routes[] = {"connector.entryHandler.free",
                                         "chat.chatHandler.free"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        story s = {0};
        story_start(&s);
        story_ask(&s, routes[i], "{}");
        flow_run(&s.f, 50);
        assert_int_equal(s.handled, 1);
        assert_err(s.late_reply, PM_ECLOSED);
        assert_int_equal(s.f.answers, 1);
        flow_end(&s.f);
    }
}

/* The backend comes back: the link is dialled again and calls work. */
static void test_backend_restarts(void **state)
{
    story s = {0};
    (void)state;
    story_start(&s);
    pm_app_free(s.f.back);
    s.f.back = NULL;
    flow_run(&s.f, 500);
    assert_false(pm_server_is_up(s.f.front, "chat-1"));
    assert_ok(flow_app(&s.f, "chat-1", &s.f.back));
    assert_ok(story_configure(&s.f, s.f.back));
    assert_ok(pm_app_start(s.f.back));
    flow_run(&s.f, 5000);
    assert_true(pm_server_is_up(s.f.front, "chat-1"));
    story_ask(&s, "chat.chatHandler.now", "{}");
    flow_run(&s.f, 20);
    assert_string_equal(s.f.answer, "{\"code\":200,\"from\":\"now\"}");
    flow_end(&s.f);
}

/* ---- The same seed gives the same run ---------------------------------- */

static void story_play(story *s, uint64_t seed)
{
    assert_ok(flow_start(&s->f, seed, story_configure));
    for (int i = 0; i < 20; i++) {
        story_ask(
            s, i % 2 ? "chat.chatHandler.echo" : "connector.entryHandler.now",
            "{\"n\":1}");
        flow_run(&s->f, 1 + test_world_below(&s->f.world, 30));
    }
    story_ask(s, "chat.chatHandler.free", "{}");
    flow_run(&s->f, 3000);
    flow_end(&s->f);
}

static void test_same_seed_same_trace(void **state)
{
    story a = {0}, b = {0}, c = {0};
    (void)state;
    story_play(&a, 7);
    story_play(&b, 7);
    story_play(&c, 8);
    assert_true(a.f.trace_len > 200);
    assert_string_equal(a.f.trace, b.f.trace);
    assert_string_not_equal(a.f.trace, c.f.trace);
}

/* ---- No memory --------------------------------------------------------- */

static void test_every_allocation_fails_once(void **state)
{
    static story s;
    (void)state;
    memset(&s, 0, sizeof s);
    TEST_EACH_FAILURE(&s.f.heap)
    {
        test_heap heap = s.f.heap;
        pm_err err;
        (void)heap;
        s.f.loop = NULL;
        s.f.front = s.f.back = NULL;
        s.f.client = NULL;
        s.f.connected = s.f.answers = 0;
        s.f.trace_len = 0;
        s.held = NULL;
        s.f.world.now_us = 0;
        err = flow_start(&s.f, 3, story_configure);
        if (err == PM_OK && s.f.connected &&
            pm_client_request(s.f.client, "chat.chatHandler.later",
                              pm_body_text("{}"), flow_answered, &s) == PM_OK) {
            flow_run(&s.f, 40000);
            assert_int_equal(s.f.answers, 1);
        }
        if (!s.f.heap.failed)
            assert_string_equal(s.f.answer,
                                "{\"code\":200,\"from\":\"later\"}");
        pm_client_free(s.f.client);
        pm_app_free(s.f.front);
        pm_app_free(s.f.back);
        if (s.held)
            pm_request_drop(s.held);
        if (s.f.loop)
            assert_ok(pm_loop_free(s.f.loop));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_answers_at_once),
    cmocka_unit_test(test_answers_later),
    cmocka_unit_test(test_echo_adds_the_route),
    cmocka_unit_test(test_unknown_routes_get_500),
    cmocka_unit_test(test_notify_has_no_answer),
    cmocka_unit_test(test_push_from_both),
    cmocka_unit_test(test_kick_from_both),
    cmocka_unit_test(test_heartbeats_keep_it_alive),
    cmocka_unit_test(test_deadline_ends_the_wire_side),
    cmocka_unit_test(test_session_close_cancels),
    cmocka_unit_test(test_backend_freed_in_the_middle),
    cmocka_unit_test(test_app_freed_in_its_handler),
    cmocka_unit_test(test_backend_restarts),
    cmocka_unit_test(test_same_seed_same_trace),
    cmocka_unit_test(test_every_allocation_fails_once),
};

TEST_MAIN(tests)
