/* SPDX-License-Identifier: MIT */
/* test/test_flow_stats.c -- a cluster works, and its numbers say so: through
 * pm_stats_each and as Prometheus's text. */
#include "flow.h"

/* ---- The cluster ------------------------------------------------------- */

static void on_enter(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_session_bind(pm_request_session(req), "alice", NULL, NULL);
    pm_reply_text(req, "{\"at\":\"front\"}");
}

static void on_talk(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    pm_channel *room = pm_channel_get(app, "room", true);
    (void)ctx;
    assert_ok(pm_channel_add(room, "alice", "connector-1"));
    assert_ok(pm_channel_push(room, "onTalk", pm_body_text("{}"), NULL, NULL));
    pm_reply_text(req, "{}");
}

/* Answered when the test says so. */
static pm_request *waiting;
static void on_wait(pm_request *req, void *ctx)
{
    (void)ctx;
    waiting = req;
}

static void on_fail(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_request_fail(req, PM_EBUSY, "no", NULL);
}

static void on_drop(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_request_drop(req);
}

static void on_add(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_body_text("3"));
}

static pm_err configure(flow *f, pm_app *app)
{
    static const struct {
        const char *route;
        pm_handler_cb cb;
    } handlers[] = {{"connector.entryHandler.enter", on_enter},
                    {"connector.entryHandler.fail", on_fail},
                    {"connector.entryHandler.drop", on_drop},
                    {"connector.entryHandler.idle", on_drop},
                    {"chat.chatHandler.talk", on_talk},
                    {"chat.chatHandler.wait", on_wait}};
    pm_err err = PM_OK;
    (void)f;
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers && !err; i++)
        err = pm_app_handler(app, handlers[i].route, handlers[i].cb, NULL);
    return err ? err : pm_app_remote(app, "chat.sumRemote.add", on_add, NULL);
}

static void flow_ask(flow *f, const char *route)
{
    assert_ok(pm_client_request(f->client, route, pm_body_text("{}"),
                                flow_answered, f));
    flow_run(f, 50);
}

/* ---- Reading ----------------------------------------------------------- */

typedef struct reading {
    const char *name, *label; /* label NULL: the first of that name */
    bool found;
    pm_stat stat; /* its texts have gone */
} reading;

static bool read_one(const pm_stat *stat, void *ctx)
{
    reading *r = ctx;
    if (strcmp(stat->name, r->name) != 0 ||
        (r->label && !strstr(stat->labels, r->label)))
        return true;
    r->found = true;
    r->stat = *stat;
    return false;
}

static pm_stat read_stat(pm_app *app, const char *name, const char *label)
{
    reading r = {name, label, false, {0}};
    pm_stats_each(app, read_one, &r);
    if (!r.found)
        fail_msg("nothing tells %s %s", name, label ? label : "");
    return r.stat;
}

#define assert_number(app, name, label, want)                                  \
    assert_int_equal(read_stat(app, name, label).value, want)

/* ---- Stories ----------------------------------------------------------- */

static void test_numbers(void **state)
{
    flow f = {0};
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    flow_ask(&f, "connector.entryHandler.enter");
    flow_ask(&f, "connector.entryHandler.fail");
    assert_ok(pm_client_notify(f.client, "connector.entryHandler.drop",
                               pm_body_text("{}")));
    flow_ask(&f, "chat.chatHandler.talk");
    flow_ask(&f, "chat.chatHandler.none");
    assert_int_equal(f.pushes, 1);
    assert_number(f.front, "pomelo_connections", NULL, 1);
    assert_number(f.front, "pomelo_sessions", "server=\"connector-1\"", 1);
    assert_number(f.front, "pomelo_sessions_bound", NULL, 1);
    assert_number(f.front, "pomelo_handshakes_total", "code=\"200\"", 1);
    assert_number(f.front, "pomelo_requests_total", "\"answered\"", 2);
    assert_number(f.front, "pomelo_requests_total", "\"failed\"", 2);
    assert_number(f.front, "pomelo_requests_total", "\"dropped\"", 1);
    assert_number(f.back, "pomelo_requests_total", "\"answered\"", 1);
    assert_number(f.back, "pomelo_messages_refused_total", "\"method\"", 1);
    assert_number(f.front, "pomelo_requests_in_flight", NULL, 0);
    assert_number(f.front, "pomelo_rpc_calls_total", "\"PM_OK\"", 1);
    assert_number(f.back, "pomelo_rpc_served_total", "\"forward\"", 2);
    assert_number(f.back, "pomelo_channels", NULL, 1);
    assert_number(f.back, "pomelo_pushes_total", "\"called\"", 1);
    assert_number(f.front, "pomelo_pushes_total", "\"encoded\"", 1);
    assert_number(f.front, "pomelo_pushes_total", "\"delivered\"", 1);
    assert_number(f.front, "pomelo_links", "\"dialled\"", 1);
    assert_number(f.front, "pomelo_links", "\"accepted\"", 1);
    assert_number(f.front, "pomelo_servers", "\"up\"", 2);
    assert_true(read_stat(f.front, "pomelo_loop_turn_seconds", "").value > 10);
    assert_true(read_stat(f.front, "pomelo_loop_lag_seconds", "").value > 0);
    assert_true(read_stat(f.front, "pomelo_loop_io_total", "read").value > 0);
    assert_true(read_stat(f.front, "pomelo_memory_bytes", NULL).value > 0);
    flow_end(&f);
}

/* Of a request that waits 250 ms the frontend and the backend tell it; what
 * nobody has registered is one row. */
static void test_times(void **state)
{
    static const char wait[] = "chat.chatHandler.wait";
    flow f = {0};
    pm_stat stat;
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    assert_ok(pm_client_request(f.client, wait, pm_body_text("{}"),
                                flow_answered, &f));
    flow_run(&f, 250);
    assert_number(f.front, "pomelo_requests_in_flight", NULL, 1);
    assert_number(f.back, "pomelo_rpc_in_flight", "\"serving\"", 1);
    assert_number(f.front, "pomelo_rpc_in_flight", "\"asked\"", 1);
    pm_reply_text(waiting, "{}");
    flow_run(&f, 50);
    assert_int_equal(f.answers, 1);
    for (int i = 0; i < 2; i++) {
        stat = read_stat(i ? f.back : f.front, "pomelo_request_seconds", wait);
        assert_int_equal(stat.kind, PM_STAT_TIME);
        assert_int_equal(stat.value, 1);
        assert_in_range(stat.sum_us, 250000, 251000);
        assert_true(stat.max_us == stat.sum_us && stat.p50_us == stat.sum_us &&
                    stat.p99_us == stat.sum_us);
    }
    assert_number(f.front, "pomelo_request_seconds", "(other)", 0);
    flow_ask(&f, "connector.strange.one");
    flow_ask(&f, "connector.strange.two");
    assert_number(f.front, "pomelo_request_seconds", "(other)", 2);
    flow_end(&f);
}

static void on_sum(const pm_rpc_result *result, void *ctx)
{
    pm_err *err = ctx;
    *err = result->err;
}

static void call(flow *f, const char *method, pm_err want)
{
    pm_err err = PM_EINVAL;
    assert_ok(pm_rpc_invoke(f->front, method, pm_param_none(),
                            pm_body_text("[1,2]"), on_sum, &err));
    flow_run(f, 10);
    assert_err(err, want);
}

static void test_calls(void **state)
{
    static const char add[] = "chat.sumRemote.add";
    flow f = {0};
    char copy[64];
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    call(&f, add, PM_OK);
    snprintf(copy, sizeof copy, "%s", add);
    call(&f, copy, PM_OK); /* the same name at another place */
    snprintf(copy, sizeof copy, "chat.sumRemote.sub");
    call(&f, copy, PM_ENOMETHOD); /* another name there */
    call(&f, "nobody.sumRemote.add", PM_ENOSERVER);
    assert_number(f.front, "pomelo_rpc_call_seconds", add, 2);
    assert_number(f.front, "pomelo_rpc_call_seconds", "(other)", 2);
    assert_number(f.back, "pomelo_rpc_serve_seconds", add, 2);
    assert_number(f.back, "pomelo_rpc_served_total", "\"call\"", 3);
    assert_number(f.back, "pomelo_rpc_refused_total", "\"method\"", 1);
    assert_number(f.front, "pomelo_rpc_calls_total", "PM_ENOSERVER", 1);
    assert_number(f.front, "pomelo_rpc_calls_total", "PM_ENOMETHOD", 1);
    flow_end(&f);
}

/* ---- Numbers of the application's own ---------------------------------- */

static void test_own_numbers(void **state)
{
    flow f = {0};
    uint64_t *logins = NULL, *gold = NULL, *again = NULL;
    char name[32];
    pm_err err;
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    assert_ok(pm_app_stat(f.front, PM_STAT_COUNTER, "logins_total", "Logins.",
                          &logins));
    assert_ok(pm_app_stat(f.front, PM_STAT_GAUGE, "gold", NULL, &gold));
    assert_ok(pm_app_stat(f.back, PM_STAT_GAUGE, "gold", NULL, &again));
    *logins += 2;
    *gold = 7;
    *again = 8;
    assert_number(f.front, "logins_total", "server=\"connector-1\"", 2);
    assert_number(f.front, "gold", NULL, 7);
    assert_number(f.back, "gold", "server=\"chat-1\"", 8);
    again = NULL;
    assert_err(pm_app_stat(f.front, PM_STAT_GAUGE, "gold", NULL, &again),
               PM_EEXIST);
    assert_err(pm_app_stat(f.front, PM_STAT_GAUGE, "g d", NULL, &again),
               PM_EINVAL);
    assert_err(pm_app_stat(f.front, PM_STAT_GAUGE, "x_total", NULL, &again),
               PM_EINVAL);
    assert_err(pm_app_stat(f.front, PM_STAT_COUNTER, "x", NULL, &again),
               PM_EINVAL);
    assert_err(
        pm_app_stat(f.front, PM_STAT_COUNTER, "pomelo_x_total", NULL, &again),
        PM_EINVAL);
    assert_err(pm_app_stat(f.front, PM_STAT_GAUGE,
                           "process_resident_memory_bytes", NULL, &again),
               PM_EINVAL);
    assert_err(pm_app_stat(f.front, PM_STAT_TIME, "x_seconds", NULL, &again),
               PM_EINVAL);
    assert_err(pm_app_stat(f.front, PM_STAT_GAUGE, NULL, NULL, &again),
               PM_EINVAL);
    assert_null(again);
    for (int i = 2; i < 256; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_ok(pm_app_stat(f.front, PM_STAT_GAUGE, name, NULL, &gold));
    }
    err = pm_app_stat(f.front, PM_STAT_GAUGE, "n256", NULL, &again);
    assert_err(err, PM_ELIMIT);
    flow_end(&f);
}

/* ---- Text -------------------------------------------------------------- */

static size_t occurrences(const char *text, const char *part)
{
    size_t n = 0;
    for (text = strstr(text, part); text; text = strstr(text + 1, part))
        n++;
    return n;
}

/* Two servers of a loop: each name once, with both servers' numbers. */
static void test_text(void **state)
{
    flow f = {0};
    pm_app *apps[2];
    uint64_t *gold;
    char *text = NULL;
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    flow_ask(&f, "chat.chatHandler.talk");
    assert_ok(pm_app_stat(f.back, PM_STAT_GAUGE, "gold", "Ours.", &gold));
    assert_ok(pm_app_stat(f.front, PM_STAT_GAUGE, "gold", "Ours.", &gold));
    apps[0] = f.front;
    apps[1] = f.back;
    assert_ok(pm_stats_text(apps, 2, &text));
    assert_int_equal(occurrences(text, "# TYPE pomelo_sessions gauge\n"), 1);
    assert_non_null(strstr(text, "\npomelo_sessions{server=\"connector-1\"} 1\n"
                                 "pomelo_sessions{server=\"chat-1\"} 0\n"));
    assert_non_null(strstr(text, "# HELP gold Ours.\n# TYPE gold gauge\n"
                                 "gold{server=\"connector-1\"} 0\n"
                                 "gold{server=\"chat-1\"} 0\n"));
    assert_int_equal(occurrences(text, "# TYPE pomelo_request_seconds "), 1);
    assert_non_null(
        strstr(text, "pomelo_request_seconds_count{server=\"connector-1\","
                     "route=\"chat.chatHandler.talk\"} 1\n"));
    assert_int_equal(occurrences(text, "\npomelo_loop_turn_seconds_sum "), 1);
    /* Routes that were never asked for are not told. */
    assert_null(strstr(text, "connector.entryHandler.idle"));
    pm_text_free(text);
    text = NULL;
    assert_err(pm_stats_text(apps, 0, &text), PM_EINVAL);
    assert_null(text);
    flow_end(&f);
}

/* ---- The reader -------------------------------------------------------- */

static bool stop_at_three(const pm_stat *stat, void *ctx)
{
    int *n = ctx;
    (void)stat;
    return ++*n < 3;
}

static bool free_it(const pm_stat *stat, void *ctx)
{
    flow *f = ctx;
    assert_non_null(stat->labels);
    assert_int_equal(++f->answers, 1); /* nothing comes after */
    pm_app_free(f->front);
    f->front = NULL;
    return true;
}

static void test_reader(void **state)
{
    flow f = {0};
    int n = 0;
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    assert_int_equal(pm_stats_each(f.front, stop_at_three, &n), 3);
    assert_int_equal(n, 3);
    f.answers = 0;
    assert_int_equal(pm_stats_each(f.front, free_it, &f), 1);
    flow_run(&f, 50);
    flow_end(&f);
}

/* Without memory less is measured, and nothing breaks. */
static void test_without_memory(void **state)
{
    flow f = {0};
    (void)state;
    TEST_EACH_FAILURE(&f.heap)
    {
        test_heap heap = f.heap;
        uint64_t *own;
        int n = -1000000;
        pm_err err;
        memset(&f, 0, sizeof f);
        f.heap = heap;
        err = flow_start(&f, 1, configure);
        if (err == PM_OK && f.connected) {
            pm_client_request(f.client, "connector.entryHandler.enter",
                              pm_body_text("{}"), flow_answered, &f);
            flow_run(&f, 10);
            err = pm_app_stat(f.front, PM_STAT_GAUGE, "gold", "Ours.", &own);
            assert_true(err == PM_OK || err == PM_ENOMEM);
            assert_true(pm_stats_each(f.front, stop_at_three, &n) > 50);
        }
        flow_end(&f);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_numbers),        cmocka_unit_test(test_times),
    cmocka_unit_test(test_calls),          cmocka_unit_test(test_own_numbers),
    cmocka_unit_test(test_text),           cmocka_unit_test(test_reader),
    cmocka_unit_test(test_without_memory),
};
TEST_MAIN(tests)
