/* SPDX-License-Identifier: MIT */
/* test_flow_rates.c -- a session that sends more than it may, by each policy;
 * and one that sends nothing. Heartbeats live through all of it. */
#include "flow.h"

typedef struct fast {
    flow f; /* first: a story is a flow */
    pm_rate_policy policy;
    pm_limits limits;
    bool hook, let_in, other_answer;
    int served, refused, notes; /* by handler, by hook, notifies served */
    int good, bad;              /* answers */
    int last, disorder;         /* order of arrival */
    pm_close_reason told;
    int told_count;
    pm_err why;
    char route[64];
    pm_request *held;
} fast;

static void on_fast(pm_request *req, void *ctx)
{
    fast *t = ctx;
    char text[8];
    int n;
    flow_copy(text, sizeof text, pm_request_body(req).data);
    n = atoi(text);
    if (n && n < t->last)
        t->disorder++;
    t->last = n;
    t->served++;
    t->notes += pm_request_is_notify(req);
    if (pm_request_is_notify(req))
        pm_request_drop(req);
    else
        pm_reply_text(req, "{\"code\":200}");
}

static void on_fast_hold(pm_request *req, void *ctx)
{
    ((fast *)ctx)->held = req;
}

static void on_fast_closed(pm_app *app, pm_session *session,
                           pm_close_reason reason, void *ctx)
{
    fast *t = ctx;
    (void)app;
    (void)session;
    t->told = reason;
    t->told_count++;
}

static bool on_refuse(pm_session *session, pm_slice route, pm_err why,
                      pm_body *answer, void *ctx)
{
    fast *t = ctx;
    assert_true(pm_session_id(session) > 0);
    assert_int_equal(answer->data.len, 12);
    flow_copy(t->route, sizeof t->route, route);
    t->why = why;
    t->refused++;
    if (t->other_answer)
        *answer = pm_body_text("{\"code\":503,\"wait\":1}");
    return !t->let_in;
}

static pm_err fast_start(fast *t)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    pm_err err = flow_loop(&t->f, 1);
    if (err)
        return err;
    opts.loop = t->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 1;
    opts.connector.heartbeat_s = 3;
    opts.connector.use_dict = true;
    opts.connector.refuse = t->hook ? on_refuse : NULL;
    opts.connector.ctx = t;
    opts.limits = t->limits;
    opts.limits.over_rate = t->policy;
    events.session_closed = on_fast_closed;
    err = pm_app_new(&t->f.front, &opts);
    if (err == PM_OK)
        err = pm_app_handler(t->f.front, "connector.h.fast", on_fast, t);
    if (err == PM_OK)
        err = pm_app_handler(t->f.front, "connector.h.hold", on_fast_hold, t);
    if (err == PM_OK)
        err = pm_app_listen(t->f.front, &events, t);
    if (err == PM_OK)
        err = pm_app_start(t->f.front);
    if (err == PM_OK)
        err = flow_client(&t->f);
    if (err == PM_OK)
        flow_run(&t->f, 50);
    return err;
}

static void on_fast_answer(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    fast *t = ctx;
    (void)client;
    flow_copy(t->f.answer, sizeof t->f.answer, body.data);
    if (err == PM_OK && !strcmp(t->f.answer, "{\"code\":200}"))
        t->good++;
    else
        t->bad++;
}

/* So many at once, numbered. */
static void fast_ask(fast *t, int count)
{
    char text[16];
    for (int i = 1; i <= count; i++) {
        snprintf(text, sizeof text, "%d", i);
        assert_ok(pm_client_request(t->f.client, "connector.h.fast",
                                    pm_body_text(text), on_fast_answer, t));
    }
}

static fast *fast_new(pm_rate_policy policy, uint32_t messages, uint32_t bytes)
{
    fast *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->policy = policy;
    t->limits.messages_per_s = messages;
    t->limits.bytes_per_s = bytes;
    return t;
}

static void fast_end(fast *t)
{
    flow_end(&t->f);
    free(t);
}

/* ---- The three policies ------------------------------------------------ */

static void test_close(void **state)
{
    fast *t = fast_new(PM_RATE_CLOSE, 50, 0);
    (void)state;
    assert_ok(fast_start(t));
    /* What is allowed, for a long time, and a whole second's worth at once. */
    for (int i = 0; i < 100; i++) {
        fast_ask(t, 4);
        flow_run(&t->f, 100);
    }
    fast_ask(t, 20);
    flow_run(&t->f, 10);
    assert_int_equal(t->good, 420);
    assert_int_equal(t->told_count, 0);
    fast_ask(t, 60);
    flow_run(&t->f, 10);
    assert_int_equal(t->told_count, 1);
    assert_int_equal(t->told, PM_CLOSE_RATE);
    assert_int_equal(t->f.disconnected, 1);
    fast_end(t);
}

static void test_refuse(void **state)
{
    fast *t = fast_new(PM_RATE_REFUSE, 50, 0);
    (void)state;
    t->hook = true;
    assert_ok(fast_start(t));
    fast_ask(t, 80);
    flow_run(&t->f, 5);
    assert_int_equal(t->good, 50);
    assert_int_equal(t->bad, 30);
    assert_string_equal(t->f.answer, "{\"code\":503}");
    assert_int_equal(t->refused, 30);
    assert_err(t->why, PM_ELIMIT);
    assert_string_equal(t->route, "connector.h.fast");
    /* A notify is refused without a word. */
    assert_ok(
        pm_client_notify(t->f.client, "connector.h.fast", pm_body_text("{}")));
    flow_run(&t->f, 5);
    assert_int_equal(t->refused, 31);
    assert_int_equal(t->notes, 0);
    /* Time heals: and who only waits is not closed for lack of heartbeats. */
    for (int i = 0; i < 20; i++) {
        fast_ask(t, 100);
        flow_run(&t->f, 1000);
    }
    assert_in_range(t->served, 19 * 50, 21 * 50);
    assert_int_equal(t->f.disconnected, 0);
    /* The hook's own word, and its mercy. */
    flow_run(&t->f, 1000);
    t->other_answer = true;
    fast_ask(t, 51);
    flow_run(&t->f, 5);
    assert_string_equal(t->f.answer, "{\"code\":503,\"wait\":1}");
    t->let_in = true;
    t->served = 0;
    fast_ask(t, 10);
    flow_run(&t->f, 5);
    assert_int_equal(t->served, 10);
    fast_end(t);
}

static void test_delay(void **state)
{
    fast *t = fast_new(PM_RATE_DELAY, 50, 0);
    (void)state;
    assert_ok(fast_start(t));
    fast_ask(t, 150);
    flow_run(&t->f, 5);
    /* The one that is too much is served, and what follows waits. */
    assert_int_equal(t->good, 51);
    flow_run(&t->f, 995);
    assert_in_range(t->good, 100, 101);
    flow_run(&t->f, 1010);
    assert_int_equal(t->good, 150);
    assert_int_equal(t->bad, 0);
    assert_int_equal(t->disorder, 0);
    flow_run(&t->f, 20000);
    assert_int_equal(t->f.disconnected, 0);
    fast_end(t);
}

/* While it is not read it may also wait for its answers; both end. */
static void test_delay_and_in_flight(void **state)
{
    fast *t = fast_new(PM_RATE_DELAY, 2, 0);
    (void)state;
    t->limits.requests_in_flight = 1;
    assert_ok(fast_start(t));
    assert_ok(pm_client_request(t->f.client, "connector.h.hold",
                                pm_body_text("{}"), on_fast_answer, t));
    flow_run(&t->f, 5);
    assert_non_null(t->held);
    fast_ask(t, 6);
    flow_run(&t->f, 5000);
    assert_int_equal(t->served, 0);
    assert_ok(pm_reply_text(t->held, "{}"));
    flow_run(&t->f, 5);
    assert_int_equal(t->served, 3);
    flow_run(&t->f, 3000);
    assert_int_equal(t->served, 6);
    flow_run(&t->f, 10000);
    assert_int_equal(t->f.disconnected, 0);
    fast_end(t);
}

/* ---- Bytes ------------------------------------------------------------- */

static void fast_ask_long(fast *t, int count, size_t len)
{
    char *text = calloc(1, len + 1);
    assert_non_null(text);
    memset(text, '1', len);
    for (int i = 0; i < count; i++)
        assert_ok(pm_client_notify(t->f.client, "connector.h.fast",
                                   pm_body_bytes(text, len)));
    free(text);
}

static void test_bytes(void **state)
{
    static const pm_rate_policy policies[] = {PM_RATE_CLOSE, PM_RATE_REFUSE,
                                              PM_RATE_DELAY};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fast *t = fast_new(policies[i], 0, 10000);
        t->limits.package_in_bytes = 10000;
        assert_ok(fast_start(t));
        fast_ask_long(t, 20, 980); /* 984 and more each */
        flow_run(&t->f, 20);
        if (policies[i] == PM_RATE_CLOSE) {
            assert_int_equal(t->told, PM_CLOSE_RATE);
        } else if (policies[i] == PM_RATE_REFUSE) {
            assert_int_equal(t->served, 10);
            flow_run(&t->f, 5000);
            assert_int_equal(t->served, 10);
        } else {
            assert_int_equal(t->served, 11);
            flow_run(&t->f, 2000);
            assert_int_equal(t->served, 20);
        }
        assert_int_equal(t->f.disconnected, policies[i] == PM_RATE_CLOSE);
        fast_end(t);
    }
}

/* ---- Idle -------------------------------------------------------------- */

static void test_idle(void **state)
{
    fast *t = fast_new(PM_RATE_CLOSE, 0, 0);
    (void)state;
    t->limits.idle_ms = 20000;
    assert_ok(fast_start(t));
    flow_run(&t->f, 15000);
    fast_ask(t, 1);
    flow_run(&t->f, 19900);
    assert_int_equal(t->f.disconnected, 0);
    /* Who waits for an answer is not idle. */
    assert_ok(pm_client_request(t->f.client, "connector.h.hold",
                                pm_body_text("{}"), on_fast_answer, t));
    flow_run(&t->f, 25000);
    assert_int_equal(t->f.disconnected, 0);
    assert_ok(pm_reply_text(t->held, "{}"));
    flow_run(&t->f, 14000);
    assert_int_equal(t->f.disconnected, 0);
    flow_run(&t->f, 26000);
    assert_int_equal(t->f.disconnected, 1);
    assert_string_equal(t->f.kick, "idle");
    assert_int_equal(t->told, PM_CLOSE_IDLE);
    fast_end(t);
}

/* ---- Without memory ---------------------------------------------------- */

static void test_memory(void **state)
{
    static const pm_rate_policy policies[] = {PM_RATE_CLOSE, PM_RATE_REFUSE,
                                              PM_RATE_DELAY};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fast *t = fast_new(policies[i], 5, 0);
        t->limits.idle_ms = 60000;
        test_cjson_use(&t->f.heap);
        TEST_EACH_FAILURE(&t->f.heap)
        {
            t->good = t->bad = t->served = t->told_count = 0;
            if (fast_start(t) == PM_OK && t->f.connected) {
                for (int n = 0; n < 8; n++)
                    pm_client_request(t->f.client, "connector.h.fast",
                                      pm_body_text("1"), on_fast_answer, t);
                flow_run(&t->f, 2000);
                if (!t->f.heap.failed && policies[i] != PM_RATE_CLOSE)
                    assert_int_equal(t->good + t->bad, 8);
            }
            flow_end(&t->f);
            t->f.client = NULL;
            t->f.front = NULL;
            t->f.loop = NULL;
            t->f.connected = 0;
        }
        test_cjson_use(NULL);
        free(t);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_close),  cmocka_unit_test(test_refuse),
    cmocka_unit_test(test_delay),  cmocka_unit_test(test_delay_and_in_flight),
    cmocka_unit_test(test_bytes),  cmocka_unit_test(test_idle),
    cmocka_unit_test(test_memory),
};

TEST_MAIN(tests)
