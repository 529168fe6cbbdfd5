/* SPDX-License-Identifier: MIT */
/* test/test_rpc_ends.c -- calls between servers and what ends under them:
 * links, servers, apps, the table, memory. Whatever goes, each call that was
 * accepted is told once. */
#include "calls.h"

/* ---- Links ------------------------------------------------------------- */

static void test_link_is_cut(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
    calls_run(&c, 10);
    assert_int_equal(c.served, 1);
    c.cut = true; /* the next byte that goes anywhere cuts its link */
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_run(&c, 10);
    assert_int_equal(c.got.times, 2);
    assert_err(c.got.err, PM_ECLOSED);
    assert_false(pm_server_is_up(c.a, "b-1"));
    assert_err(pm_call_reply(c.held, pm_body_none()), PM_ECLOSED);
    c.got.times = 0;
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_run(&c, 1);
    assert_got(&c, PM_EDOWN, "");
    c.cut = false;
    calls_run(&c, 3000); /* tried again, at most 2 s later */
    assert_true(pm_server_is_up(c.a, "b-1"));
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[]");
    calls_close(&c);
}

/* A network that swallows everything: found out by silence. */
static void test_silence(void **state)
{
    calls c = {0};
    pm_rpc_opts opts = pm_rpc_opts_default();
    (void)state;
    calls_open(&c);
    c.delay_us = 600 * 1000 * 1000u;
    opts.server_id = "b-1";
    opts.method = "b.svc.now";
    opts.deadline_ms = 60000;
    assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
    calls_run(&c, 9000);
    assert_int_equal(c.got.times, 0);
    calls_run(&c, 6000); /* 10 s, looked at every third of them */
    assert_got(&c, PM_ECLOSED, "");
    assert_false(pm_server_is_up(c.a, "b-1"));
    c.delay_us = 0;
    calls_run(&c, 10000); /* a try that hangs is given up after 5 s */
    assert_true(pm_server_is_up(c.a, "b-1"));
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[]");
    assert_int_equal(c.served, 1);
    calls_close(&c);
}

/* What is asked while the first try is under way waits for it. */
static void test_first_try(void **state)
{
    (void)state;
    for (int there = 0; there < 2; there++) {
        calls c = {0};
        assert_ok(calls_loop(&c));
        if (there)
            assert_ok(calls_start(&c, "b-1", &c.b1));
        assert_ok(calls_start(&c, "a-1", &c.a));
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[1]", NULL));
        assert_int_equal(c.got.times, 0);
        calls_run(&c, 10);
        assert_got(&c, there ? PM_OK : PM_EDOWN, there ? "[1]" : "");
        calls_close(&c);
    }
}

static void test_queue_is_bounded(void **state)
{
    enum { BODY = 20000 };
    calls c = {.peer_queue_bytes = 65536};
    char *body = calloc(1, BODY);
    pm_rpc_opts opts = pm_rpc_opts_default();
    pm_err err = PM_OK;
    int accepted = 0;
    (void)state;
    calls_open(&c);
    opts.server_id = "b-1";
    opts.method = "b.svc.now";
    opts.args = pm_body_bytes(body, BODY);
    while (err == PM_OK && accepted < 100) {
        err = pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL);
        accepted += err == PM_OK;
    }
    assert_err(err, PM_ELIMIT);
    assert_true(accepted >= 3 && accepted <= 60);
    calls_run(&c, 6000);
    assert_int_equal(c.got.times, accepted);
    c.got.times = 0;
    assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "");
    /* Likewise for what waits until the first try has ended. */
    calls_free(&c, c.a);
    c.delay_us = 1000000;
    assert_ok(calls_start(&c, "a-1", &c.a));
    for (err = PM_OK, accepted = 0; err == PM_OK && accepted < 100;) {
        err = pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL);
        accepted += err == PM_OK;
    }
    assert_err(err, PM_ELIMIT);
    assert_int_equal(accepted, 3);
    c.delay_us = 0;
    calls_run(&c, 6000);
    assert_int_equal(c.got.times, 3);
    free(body);
    calls_close(&c);
}

/* ---- Servers ----------------------------------------------------------- */

static void test_server_ends(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
    calls_run(&c, 10);
    calls_free(&c, c.b1);
    calls_run(&c, 1);
    assert_got(&c, PM_ECLOSED, "");
    assert_string_equal(c.got.server, "b-1");
    /* The held call outlives its app, and holds the loop. */
    assert_null(pm_call_app(c.held));
    assert_string_equal(pm_call_method(c.held), "b.svc.later");
    pm_app_free(c.a);
    pm_app_free(c.b2);
    c.a = c.b2 = NULL;
    calls_run(&c, 10);
    assert_err(pm_loop_free(c.loop), PM_ESTATE);
    assert_err(pm_call_fail(c.held, 1, "late"), PM_ECLOSED);
    calls_close(&c);
}

static void test_server_ends_in_its_remote(void **state)
{
    static const char *const targets[] = {"b-1", "a-1"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        calls c = {0};
        calls_open(&c);
        assert_ok(calls_ask(&c, targets[i], i ? "a.svc.free" : "b.svc.free",
                            "[]", NULL));
        calls_run(&c, 10);
        assert_int_equal(c.served, 1);
        assert_err(c.replied, PM_ECLOSED);
        assert_got(&c, PM_ECLOSED, "");
        assert_null(i ? c.a : c.b1);
        calls_close(&c);
    }
}

static void ends_a(calls *c)
{
    calls_free(c, c->a);
}

static void test_caller_ends_in_its_callback(void **state)
{
    static const char *const methods[] = {"b.svc.now", "b.svc.none"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        calls c = {.got = {.then = ends_a}};
        calls_open(&c);
        assert_ok(
            calls_ask(&c, i < 2 ? "b-1" : "a-1", methods[i % 2], "[]", NULL));
        assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
        calls_run(&c, 10);
        assert_int_equal(c.got.times, 2);
        assert_null(c.a);
        if (c.held)
            assert_err(pm_call_reply(c.held, pm_body_none()), PM_ECLOSED);
        calls_close(&c);
    }
}

static void asks_again(calls *c)
{
    if (c->a && c->got.times == 1)
        c->replied = calls_ask(c, "b-2", "b.svc.now", "[]", NULL);
}

/* pm_app_free tells every call before it returns; nothing starts any more. */
static void test_caller_ends(void **state)
{
    calls c = {.got = {.then = asks_again}};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
    assert_ok(calls_ask(&c, "a-1", "a.svc.later", "[]", NULL));
    assert_ok(calls_ask(&c, "nobody-1", "b.svc.now", "[]", NULL));
    pm_app_free(c.a); /* c.a stays, so that the callback tries */
    c.a = NULL;
    assert_int_equal(c.got.times, 3);
    assert_err(c.got.err, PM_ECLOSED);
    assert_err(c.replied, PM_ECLOSED);
    calls_run(&c, 100);
    assert_int_equal(c.got.times, 3);
    assert_int_equal(c.served, 1); /* it had been sent */
    assert_err(pm_call_reply(c.held, pm_body_none()), PM_ECLOSED);
    calls_close(&c);
}

static void test_server_restarts(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    for (int i = 0; i < 3; i++) {
        calls_free(&c, c.b1);
        calls_run(&c, 700);
        assert_false(pm_server_is_up(c.a, "b-1"));
        assert_ok(calls_start(&c, "b-1", &c.b1));
        calls_run(&c, 3000);
        assert_true(pm_server_is_up(c.a, "b-1"));
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[3]", NULL));
        calls_run(&c, 10);
        assert_got(&c, PM_OK, "[3]");
    }
    calls_close(&c);
}

static void stopped_cb(pm_app *app, pm_err err, void *ctx)
{
    (void)app;
    *(pm_err *)ctx = err;
}

/* A server that stops finishes what it has, and takes nothing new. */
static void test_server_drains(void **state)
{
    calls c = {0};
    pm_err stopped = PM_EAGAIN;
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[1]", NULL));
    calls_run(&c, 10);
    assert_ok(pm_app_stop(c.b1, 4000, stopped_cb, &stopped));
    calls_run(&c, 10);
    assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_none(),
                            pm_body_text("[]"), NULL, NULL));
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_run(&c, 1);
    assert_got(&c, PM_EDOWN, "");
    assert_err(stopped, PM_EAGAIN);
    assert_ok(pm_call_reply(c.held, pm_body_text("[2]")));
    calls_run(&c, 100);
    assert_got(&c, PM_OK, "[2]");
    assert_ok(stopped);
    calls_close(&c);
}

/* ---- The table --------------------------------------------------------- */

static void test_server_is_removed(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
    calls_run(&c, 10);
    assert_ok(pm_server_remove(c.a, "b-1"));
    calls_run(&c, 1);
    assert_got(&c, PM_ENOSERVER, "");
    assert_string_equal(c.got.server, "b-1");
    pm_call_reply(c.held, pm_body_none());
    assert_int_equal(pm_server_count(c.a, "b"), 1);
    assert_null(pm_server_find(c.a, "b-1"));
    assert_false(pm_server_is_up(c.a, "b-1"));
    assert_err(pm_server_remove(c.a, "b-1"), PM_ENOTFOUND);
    assert_err(pm_server_remove(c.a, "a-1"), PM_EINVAL); /* itself */
    for (int i = 0; i < 10; i++) { /* never chosen any more */
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_string(key),
                                pm_body_text("[]"), got_cb, &c.got));
        calls_run(&c, 1);
        assert_got(&c, PM_OK, "[]");
        assert_string_equal(c.got.server, "b-2");
    }
    assert_ok(pm_server_remove(c.a, "b-2"));
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[]", NULL));
    calls_run(&c, 1);
    assert_got(&c, PM_ENOSERVER, "");
    calls_close(&c);
}

static void test_server_is_added(void **state)
{
    static const pm_server late = {.id = "b-1", .type = "b", .port = 5011};
    static const pm_server twice = {.id = "b-2", .type = "b", .port = 5012};
    static const pm_server empty = {.id = "", .type = "b"};
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_err(pm_server_add(c.a, &twice), PM_EEXIST);
    assert_err(pm_server_add(c.a, &empty), PM_EINVAL);
    assert_err(pm_server_add(c.a, NULL), PM_EINVAL);
    for (int i = 0; i < 3; i++) { /* gone and back in one turn */
        assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
        calls_run(&c, 10);
        assert_ok(pm_server_remove(c.a, "b-1"));
        assert_ok(pm_server_add(c.a, &late));
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[5]", NULL));
        calls_run(&c, 10);
        assert_int_equal(c.got.times, 2);
        assert_ok(c.got.err); /* asked on the new link's first try */
        assert_true(pm_server_is_up(c.a, "b-1"));
        assert_err(pm_call_reply(c.held, pm_body_none()), PM_ECLOSED);
        c.got.times = 0;
    }
    calls_close(&c);
}

static void removes_b1(calls *c)
{
    if (c->got.times == 1)
        c->replied = pm_server_remove(c->a, "b-1");
}

/* The callback that is told of a lost link takes the server away. */
static void test_removed_inside_its_loss(void **state)
{
    calls c = {.got = {.then = removes_b1}};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
    calls_run(&c, 10);
    for (int i = 0; i < 2; i++) /* these never get there */
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_free(&c, c.b1);
    calls_run(&c, 10);
    assert_int_equal(c.got.times, 3);
    assert_ok(c.replied);
    pm_call_reply(c.held, pm_body_none());
    calls_run(&c, 5000);
    assert_int_equal(c.served, 1);
    calls_close(&c);
}

static void server_down(pm_app *app, const pm_server *server, void *ctx)
{
    calls *c = ctx;
    (void)server;
    if (app == c->a)
        calls_free(c, app);
}

static void test_caller_ends_when_a_server_goes_down(void **state)
{
    calls c = {0};
    pm_app_events events = pm_app_events_default();
    (void)state;
    calls_open(&c);
    events.server_down = server_down;
    assert_ok(pm_app_listen(c.a, &events, &c));
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", NULL));
    calls_run(&c, 10);
    calls_free(&c, c.b1);
    calls_run(&c, 10);
    assert_null(c.a);
    assert_got(&c, PM_ECLOSED, "");
    pm_call_reply(c.held, pm_body_none());
    calls_close(&c);
}

/* ---- No memory --------------------------------------------------------- */

typedef struct oom {
    int accepted, told;
    pm_call *held[8];
    int count;
} oom;

static void oom_cb(const pm_rpc_result *result, void *ctx)
{
    (void)result;
    ((oom *)ctx)->told++;
}

static void oom_all_cb(const pm_rpc_result *results, size_t count, void *ctx)
{
    (void)results;
    (void)count;
    ((oom *)ctx)->told++;
}

static void oom_held(pm_call *call, void *ctx)
{
    oom *o = ctx;
    if (pm_call_keep(call) || o->count == 8)
        pm_call_fail(call, 1, NULL);
    else
        o->held[o->count++] = call;
}

static pm_err oom_start(calls *c, oom *o)
{
    static const pm_server late = {.id = "b-3", .type = "b", .port = 5013};
    pm_err err = calls_loop(c);
    if (err == PM_OK)
        err = calls_app(c, "b-1", &c->b1);
    if (err == PM_OK)
        err = pm_app_remote(c->b1, "b.svc.held", oom_held, o);
    if (err == PM_OK)
        err = pm_app_start(c->b1);
    if (err == PM_OK)
        err = calls_start(c, "a-1", &c->a);
    if (err == PM_OK) {
        calls_run(c, 300);
        err = pm_server_add(c->a, &late);
        assert_true((err == PM_OK) == (pm_server_find(c->a, "b-3") != NULL));
    }
    return err;
}

static void oom_ask(calls *c, oom *o)
{
    static const struct {
        const char *server, *method;
    } asked[] = {{"b-1", "b.svc.now"},
                 {"b-1", "b.svc.held"},
                 {"a-1", "a.svc.now"},
                 {NULL, "b.svc.fail"},
                 {"nobody-1", "b.svc.now"}};
    for (size_t i = 0; i < PMI_COUNT(asked); i++) {
        pm_rpc_opts opts = pm_rpc_opts_default();
        opts.server_id = asked[i].server;
        opts.method = asked[i].method;
        opts.args = pm_body_text("[1,2,3]");
        o->accepted += pm_rpc_call(c->a, &opts, oom_cb, o, NULL) == PM_OK;
    }
    o->accepted += pm_rpc_all(c->a, "b.svc.now", pm_body_text("[1]"),
                              oom_all_cb, o) == PM_OK;
    pm_rpc_invoke(c->a, "b.svc.now", pm_param_string("x"), pm_body_text("[1]"),
                  NULL, NULL);
}

static void test_every_allocation_fails_once(void **state)
{
    static calls c;
    (void)state;
    memset(&c, 0, sizeof c);
    TEST_EACH_FAILURE(&c.heap)
    {
        oom o = {0};
        c.loop = NULL;
        c.a = c.b1 = NULL;
        c.world.now_us = 0;
        if (oom_start(&c, &o) == PM_OK) {
            oom_ask(&c, &o);
            calls_run(&c, 50);
            for (int i = 0; i < o.count; i++)
                pm_call_reply(o.held[i], pm_call_args(o.held[i]));
            o.count = 0;
            calls_run(&c, 6000);
            assert_int_equal(o.told, o.accepted);
        }
        if (!c.heap.failed)
            assert_int_equal(o.told, 6);
        pm_app_free(c.a);
        pm_app_free(c.b1);
        for (int i = 0; i < o.count; i++)
            pm_call_reply(o.held[i], pm_body_none());
        if (c.loop)
            assert_ok(pm_loop_free(c.loop));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_link_is_cut),
    cmocka_unit_test(test_silence),
    cmocka_unit_test(test_first_try),
    cmocka_unit_test(test_queue_is_bounded),
    cmocka_unit_test(test_server_ends),
    cmocka_unit_test(test_server_ends_in_its_remote),
    cmocka_unit_test(test_caller_ends_in_its_callback),
    cmocka_unit_test(test_caller_ends),
    cmocka_unit_test(test_server_restarts),
    cmocka_unit_test(test_server_drains),
    cmocka_unit_test(test_server_is_removed),
    cmocka_unit_test(test_server_is_added),
    cmocka_unit_test(test_removed_inside_its_loss),
    cmocka_unit_test(test_caller_ends_when_a_server_goes_down),
    cmocka_unit_test(test_every_allocation_fails_once),
};

TEST_MAIN(tests)
