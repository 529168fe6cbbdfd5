/* SPDX-License-Identifier: MIT */
/* test/test_rpc.c -- calls between servers: who is asked, what comes back, and
 * that each thing that goes wrong has an error of its own, soon. Ends (servers,
 * links, memory that go) are in test_rpc_ends.c, strangers in test_rpc_proof.c.
 */
#include "calls.h"
#include "core/conn.h"

/* ---- Answers ----------------------------------------------------------- */

static void test_answer_now(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[1,\"x\"]", NULL));
    assert_int_equal(c.got.times, 0);
    calls_run(&c, 1);
    assert_got(&c, PM_OK, "[1,\"x\"]");
    assert_int_equal(c.got.kind, PM_BODY_JSON);
    assert_string_equal(c.caller, "a-1");
    assert_ok(c.replied);
    assert_ok(calls_ask(&c, "b-2", "b.svc.now", "[2]", NULL));
    calls_run(&c, 1);
    assert_got(&c, PM_OK, "[2]");
    assert_string_equal(c.got.server, "b-2");
    calls_close(&c);
}

/* A call's number is never 0, which says that there is none, and never that of
 * a call just before. */
static void test_numbers(void **state)
{
    calls c = {0};
    uint64_t last = 0, id = 0;
    (void)state;
    calls_open(&c);
    for (int i = 0; i < 100; i++) {
        const char *server = i % 2 ? "a-1" : "b-1";
        const char *method = i % 2 ? "a.svc.now" : "b.svc.now";
        assert_ok(calls_ask(&c, server, method, "[1]", &id));
        calls_run(&c, 1);
        assert_got(&c, PM_OK, "[1]");
        assert_true(id != 0 && id != last);
        last = id;
    }
    calls_close(&c);
}

/* The first answers to many calls leave while the others are worked off. */
static void test_many_at_once(void **state)
{
    calls c = {0};
    const pmi_conn_totals *totals;
    uint64_t writes;
    (void)state;
    calls_open(&c);
    totals = pmi_conn_totals_of(c.loop);
    writes = totals->writes;
    for (int i = 0; i < 600; i++)
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[1]", NULL));
    calls_run(&c, 1);
    assert_int_equal(c.got.times, 600);
    /* The calls at once, their answers in four parts. */
    assert_int_equal(totals->writes - writes, 5);
    calls_close(&c);
}

static void test_answer_later(void **state)
{
    calls c = {0};
    struct cJSON *tree = NULL;
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[7]", NULL));
    calls_run(&c, 1000);
    assert_int_equal(c.got.times, 0);
    assert_non_null(c.held);
    assert_true(pm_call_left_us(c.held) <= 4000 * 1000);
    assert_true(pm_call_left_us(c.held) > 3900 * 1000);
    /* Its arguments were borrowed for the time of the remote. */
    assert_int_equal(pm_call_args(c.held).kind, PM_BODY_NONE);
    assert_err(pm_call_json(c.held, &tree), PM_ECLOSED);
    assert_err(pm_call_keep(c.held), PM_ECLOSED);
    assert_ok(pm_call_reply(c.held, pm_body_text("\"done\"")));
    assert_int_equal(c.got.times, 0);
    calls_run(&c, 1);
    assert_got(&c, PM_OK, "\"done\"");
    calls_close(&c);
}

static void keep(pm_call *call, void *ctx)
{
    struct cJSON *tree = NULL;
    assert_ok(pm_call_keep(call));
    assert_ok(pm_call_keep(call));
    assert_ok(pm_call_json(call, &tree));
    assert_int_equal(cJSON_GetArraySize(tree), 2);
    ((calls *)ctx)->held = call;
}

static void test_kept_arguments_stay(void **state)
{
    calls c = {0};
    pm_body args;
    (void)state;
    assert_ok(calls_loop(&c));
    assert_ok(calls_app(&c, "b-1", &c.b1));
    assert_ok(pm_app_remote(c.b1, "b.svc.keep", keep, &c));
    assert_ok(pm_app_start(c.b1));
    assert_ok(calls_start(&c, "a-1", &c.a));
    assert_ok(calls_ask(&c, "b-1", "b.svc.keep", "[1,2]", NULL));
    calls_run(&c, 300);
    assert_non_null(c.held);
    args = pm_call_args(c.held);
    assert_int_equal(args.kind, PM_BODY_JSON);
    assert_memory_equal(args.data.data, "[1,2]", 5);
    assert_ok(pm_call_reply(c.held, args));
    calls_run(&c, 1);
    assert_got(&c, PM_OK, "[1,2]");
    calls_close(&c);
}

static void test_kinds_and_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 300000, 16u * 1024 * 1024};
    calls c = {0};
    char *bytes = calloc(1, 16u * 1024 * 1024 + 1);
    pm_rpc_opts opts = pm_rpc_opts_default();
    (void)state;
    assert_non_null(bytes);
    calls_open(&c);
    for (size_t i = 0; i < PMI_COUNT(sizes); i++) {
        opts.server_id = i % 2 ? "b-1" : "b-2";
        opts.method = "b.svc.now";
        opts.args = pm_body_bytes(bytes, sizes[i]);
        assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
        calls_run(&c, 10);
        assert_got(&c, PM_OK, "");
        assert_int_equal(c.got.kind, PM_BODY_BYTES);
        assert_int_equal(c.kind_seen, PM_BODY_BYTES);
        assert_int_equal(c.got.body_len, sizes[i]);
    }
    opts.args = pm_body_bytes(bytes, 16u * 1024 * 1024 + 1);
    assert_err(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL), PM_ESIZE);
    opts.args = pm_body_none();
    assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "");
    assert_int_equal(c.kind_seen, PM_BODY_NONE);
    free(bytes);
    calls_close(&c);
}

static void test_answer_too_large(void **state)
{
    calls c = {0};
    static const char *const targets[] = {"b-1", "a-1"};
    (void)state;
    calls_open(&c);
    for (size_t i = 0; i < 2; i++) {
        c.reply_bytes = 17u * 1024 * 1024;
        assert_ok(calls_ask(&c, targets[i], i ? "a.svc.big" : "b.svc.big", "[]",
                            NULL));
        calls_run(&c, 10);
        assert_err(c.replied, PM_ESIZE);
        assert_got(&c, PM_ESIZE, "");
    }
    calls_close(&c);
}

static void tell_trace(pm_call *call, void *ctx)
{
    *(uint64_t *)ctx = pm_call_trace_id(call);
    assert_ok(pm_call_reply(call, pm_body_none()));
}

static void test_trace(void **state)
{
    static const char *const targets[] = {"b-1", "a-1"};
    calls c = {0};
    pm_rpc_opts opts = pm_rpc_opts_default();
    uint64_t seen = 0, first;
    (void)state;
    assert_ok(calls_loop(&c));
    assert_ok(calls_app(&c, "b-1", &c.b1));
    assert_ok(pm_app_remote(c.b1, "b.svc.trace", tell_trace, &seen));
    assert_ok(pm_app_start(c.b1));
    assert_ok(calls_app(&c, "a-1", &c.a));
    assert_ok(pm_app_remote(c.a, "a.svc.trace", tell_trace, &seen));
    assert_ok(pm_app_start(c.a));
    for (size_t i = 0; i < PMI_COUNT(targets); i++) {
        opts.server_id = targets[i];
        opts.method = i ? "a.svc.trace" : "b.svc.trace";
        opts.trace_id = UINT64_MAX;
        assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
        calls_run(&c, 300);
        assert_true(seen == UINT64_MAX);
        /* One that is drawn: never 0, never the same. */
        opts.trace_id = 0;
        assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
        calls_run(&c, 10);
        first = seen;
        assert_true(first != 0 && first != UINT64_MAX);
        assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
        calls_run(&c, 10);
        assert_true(seen != 0 && seen != first);
    }
    calls_close(&c);
}

static void test_order_is_kept(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    for (int i = 0; i < 9; i++) {
        char args[8];
        snprintf(args, sizeof args, "%d", i);
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", args, NULL));
    }
    calls_run(&c, 10);
    assert_int_equal(c.got.times, 9);
    assert_string_equal(c.order, "0;1;2;3;4;5;6;7;8;");
    assert_string_equal(c.got.body, "8");
    calls_close(&c);
}

static void test_remote_fails(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.fail", "[]", NULL));
    calls_run(&c, 1);
    assert_got(&c, PM_EREMOTE, "");
    assert_int_equal(c.got.code, 42);
    assert_string_equal(c.got.detail, "no such sword");
    calls_close(&c);
}

static void test_notify(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_none(),
                            pm_body_text("[1]"), NULL, NULL));
    calls_run(&c, 1);
    assert_int_equal(c.served, 1);
    assert_int_equal(c.notified, 1);
    assert_err(c.replied, PM_ENOTIFY);
    assert_ok(pm_rpc_invoke(c.a, "ghost.svc.now", pm_param_none(),
                            pm_body_text("[1]"), NULL, NULL));
    assert_ok(pm_rpc_invoke(c.a, "nobody.svc.now", pm_param_none(),
                            pm_body_text("[1]"), NULL, NULL));
    calls_run(&c, 10);
    assert_int_equal(c.served, 1);
    calls_close(&c);
}

static void test_calling_oneself(void **state)
{
    calls c = {0};
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "a-1", "a.svc.now", "[1]", NULL));
    assert_int_equal(c.served + c.got.times, 0);
    calls_run(&c, 0);
    assert_got(&c, PM_OK, "[1]");
    assert_string_equal(c.caller, "a-1");
    assert_string_equal(c.got.server, "a-1");
    assert_ok(calls_ask(&c, NULL, "a.svc.later", "[2]", NULL));
    calls_run(&c, 6000);
    assert_got(&c, PM_ETIMEOUT, "");
    assert_err(pm_call_reply(c.held, pm_body_none()), PM_ECLOSED);
    assert_ok(calls_ask(&c, "a-1", "a.svc.none", "[2]", NULL));
    calls_run(&c, 0);
    assert_got(&c, PM_ENOMETHOD, "");
    assert_ok(pm_rpc_invoke(c.a, "a.svc.now", pm_param_none(),
                            pm_body_text("[3]"), NULL, NULL));
    calls_run(&c, 0);
    assert_int_equal(c.notified, 1);
    calls_close(&c);
}

/* ---- Each error its own, in under 10 ms -------------------------------- */

static void test_errors(void **state)
{
    static const struct {
        const char *server, *method;
        pm_err err;
    } cases[] = {{"nobody-1", "b.svc.now", PM_ENOSERVER},
                 {NULL, "nobody.svc.now", PM_ENOSERVER},
                 {"ghost-1", "ghost.svc.now", PM_EDOWN},
                 {NULL, "ghost.svc.now", PM_EDOWN},
                 {"b-1", "b.svc.none", PM_ENOMETHOD},
                 {"b-1", "a.svc.now", PM_ENOMETHOD}};
    calls c = {0};
    (void)state;
    calls_open(&c);
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        uint64_t then = c.world.now_us;
        assert_ok(calls_ask(&c, cases[i].server, cases[i].method, "[]", NULL));
        assert_int_equal(c.got.times, 0);
        calls_run(&c, 10);
        assert_got(&c, cases[i].err, "");
        assert_true(c.got.at_us - then < 10000);
    }
    assert_int_equal(c.served, 0);
    calls_close(&c);
}

static void test_what_is_refused(void **state)
{
    static const char *const methods[] = {
        NULL, "", "b", "b.svc", "b.svc.", ".svc.now", "b..now", "b.svc.now.x"};
    calls c = {0};
    pm_app *unborn = NULL;
    pm_rpc_opts opts = pm_rpc_opts_default();
    char longer[300];
    (void)state;
    calls_open(&c);
    for (size_t i = 0; i < PMI_COUNT(methods); i++)
        assert_err(calls_ask(&c, NULL, methods[i], "[]", NULL), PM_EINVAL);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    memcpy(longer, "b.svc.", 6);
    assert_err(calls_ask(&c, NULL, longer, "[]", NULL), PM_EINVAL);
    longer[255] = 0;
    assert_ok(calls_ask(&c, NULL, longer, "[]", NULL));
    calls_run(&c, 1);
    assert_got(&c, PM_ENOMETHOD, "");
    opts.size = 0;
    opts.method = "b.svc.now";
    assert_err(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL), PM_EINVAL);
    assert_err(pm_rpc_call(c.a, NULL, got_cb, &c.got, NULL), PM_EINVAL);
    calls_free(&c, c.b2);
    assert_ok(calls_app(&c, "b-2", &unborn));
    assert_err(pm_rpc_invoke(unborn, "b.svc.now", pm_param_none(),
                             pm_body_none(), got_cb, &c.got),
               PM_ESTATE);
    assert_err(pm_app_remote(unborn, "b.svc.now", calls_now, &c), PM_EEXIST);
    assert_err(pm_app_remote(unborn, "b.svc", calls_now, &c), PM_EINVAL);
    assert_err(pm_app_remote(unborn, "b.svc.x", NULL, &c), PM_EINVAL);
    assert_err(pm_app_remote(c.b1, "b.svc.x", calls_now, &c), PM_ESTATE);
    pm_app_free(unborn);
    assert_int_equal(c.got.times, 0);
    calls_close(&c);
}

static void test_deadline_passes(void **state)
{
    static const uint32_t deadlines[] = {1, 20, 700, 0 /* 5,000 */};
    calls c = {0};
    (void)state;
    calls_open(&c);
    for (size_t i = 0; i < PMI_COUNT(deadlines); i++) {
        pm_rpc_opts opts = pm_rpc_opts_default();
        uint64_t due = c.world.now_us +
                       1000 * (deadlines[i] ? deadlines[i] : (uint64_t)5000);
        opts.method = "b.svc.later";
        opts.server_id = "b-1";
        opts.deadline_ms = deadlines[i];
        c.held = NULL;
        assert_ok(pm_rpc_call(c.a, &opts, got_cb, &c.got, NULL));
        calls_run(&c, 6000);
        assert_got(&c, PM_ETIMEOUT, "");
        assert_true(c.got.at_us >= due && c.got.at_us <= due + 2000);
        assert_non_null(c.held);
        assert_int_equal(pm_call_left_us(c.held), 0);
        pm_call_reply(c.held, pm_body_none()); /* too late: nobody waits */
        calls_run(&c, 10);
        assert_int_equal(c.got.times, 0);
    }
    calls_close(&c);
}

/* ---- Cancelling -------------------------------------------------------- */

static void test_cancel(void **state)
{
    calls c = {0};
    uint64_t id = 0, other = 0;
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", &id));
    calls_run(&c, 10);
    assert_ok(pm_rpc_cancel(c.a, id));
    assert_int_equal(c.got.times, 0);
    assert_err(pm_rpc_cancel(c.a, id), PM_ENOTFOUND);
    calls_run(&c, 0);
    assert_got(&c, PM_ECANCELED, "");
    assert_err(pm_rpc_cancel(c.a, id), PM_ENOTFOUND);
    pm_call_reply(c.held, pm_body_text("[]"));
    calls_run(&c, 10);
    assert_int_equal(c.got.times, 0);
    /* The slot is used again, its old number is not. */
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[1]", &other));
    assert_true(other != id);
    assert_err(pm_rpc_cancel(c.a, id), PM_ENOTFOUND);
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[1]");
    assert_err(pm_rpc_cancel(c.a, other), PM_ENOTFOUND);
    assert_err(pm_rpc_cancel(c.a, UINT64_MAX), PM_ENOTFOUND);
    calls_close(&c);
}

/* What was cancelled says so, also when its answer or the loss of its link
 * comes first. */
static void test_cancel_wins(void **state)
{
    calls c = {0};
    uint64_t id = 0;
    (void)state;
    calls_open(&c);
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", &id));
    assert_ok(pm_rpc_cancel(c.a, id));
    calls_run(&c, 10);
    assert_got(&c, PM_ECANCELED, "");
    assert_ok(calls_ask(&c, "b-1", "b.svc.later", "[]", &id));
    calls_run(&c, 1);
    assert_ok(pm_rpc_cancel(c.a, id));
    assert_ok(pm_server_remove(c.a, "b-1"));
    calls_run(&c, 1);
    assert_got(&c, PM_ECANCELED, "");
    pm_call_reply(c.held, pm_body_none());
    calls_close(&c);
}

/* ---- Every server of a type -------------------------------------------- */

typedef struct all {
    int times;
    size_t count;
    pm_err err[4];
    char text[256];
} all;

static void all_cb(const pm_rpc_result *results, size_t count, void *ctx)
{
    all *a = ctx;
    a->times++;
    a->count = count;
    for (size_t i = 0; i < count && i < 4; i++) {
        size_t at = strlen(a->text);
        a->err[i] = results[i].err;
        snprintf(a->text + at, sizeof a->text - at, "%s %s %.*s;",
                 results[i].server_id ? results[i].server_id : "-",
                 results[i].detail ? pm_err_name(results[i].err) : "?",
                 (int)results[i].body.data.len,
                 (const char *)results[i].body.data.data);
    }
}

static void test_all(void **state)
{
    calls c = {0};
    all a = {0};
    (void)state;
    calls_open(&c);
    assert_ok(pm_rpc_all(c.a, "b.svc.now", pm_body_text("[1]"), all_cb, &a));
    assert_int_equal(a.times, 0);
    calls_run(&c, 10);
    assert_int_equal(a.times, 1);
    assert_string_equal(a.text, "b-1 PM_OK [1];b-2 PM_OK [1];");
    memset(&a, 0, sizeof a);
    calls_free(&c, c.b1);
    calls_run(&c, 10);
    assert_ok(pm_rpc_all(c.a, "b.svc.now", pm_body_text("[2]"), all_cb, &a));
    calls_run(&c, 10);
    assert_string_equal(a.text, "b-1 PM_EDOWN ;b-2 PM_OK [2];");
    memset(&a, 0, sizeof a);
    assert_ok(pm_rpc_all(c.a, "nobody.svc.x", pm_body_none(), all_cb, &a));
    assert_int_equal(a.times, 0);
    calls_run(&c, 10);
    assert_int_equal(a.times, 1);
    assert_int_equal(a.count, 0);
    assert_err(pm_rpc_all(c.a, "b.svc.now", pm_body_none(), NULL, NULL),
               PM_EINVAL);
    assert_err(pm_rpc_all(c.a, "b.svc", pm_body_none(), all_cb, &a), PM_EINVAL);
    calls_close(&c);
}

/* Also the caller itself is of the type; the app ends before all is told. */
static void test_all_and_the_end(void **state)
{
    calls c = {0};
    all a = {0}, b = {0};
    (void)state;
    calls_open(&c);
    assert_ok(pm_rpc_all(c.b1, "b.svc.now", pm_body_text("[1]"), all_cb, &a));
    calls_run(&c, 10);
    assert_string_equal(a.text, "b-1 PM_OK [1];b-2 PM_OK [1];");
    assert_ok(pm_rpc_all(c.a, "b.svc.now", pm_body_text("[1]"), all_cb, &b));
    calls_free(&c, c.a);
    assert_int_equal(b.times, 1);
    assert_string_equal(b.text, "b-1 PM_ECLOSED ;b-2 PM_ECLOSED ;");
    calls_close(&c);
}

/* ---- Filters ----------------------------------------------------------- */

typedef struct watch {
    calls *all;
    char seen[256];
    pm_err refuse;
    bool free_before, free_after, free_on_error;
    const char *remove;
} watch;

static void watch_note(watch *w, const char *what, const char *more)
{
    size_t at = strlen(w->seen);
    snprintf(w->seen + at, sizeof w->seen - at, "%s %s;", what, more);
}

static pm_err watch_before(pm_app *app, const pm_rpc_opts *call, void *ctx)
{
    watch *w = ctx;
    watch_note(w, "before", call->method);
    if (w->remove)
        pm_server_remove(app, w->remove);
    if (w->free_before)
        calls_free(w->all, app);
    return w->refuse;
}

static pm_err watch_second(pm_app *app, const pm_rpc_opts *call, void *ctx)
{
    (void)app;
    watch_note(ctx, "second", call->method);
    return PM_OK;
}

static void watch_after(pm_app *app, const char *method,
                        const pm_rpc_result *result, void *ctx)
{
    watch *w = ctx;
    (void)method;
    watch_note(w, "after", pm_err_name(result->err));
    if (w->free_after)
        calls_free(w->all, app);
}

static void watch_last(pm_app *app, const char *method,
                       const pm_rpc_result *result, void *ctx)
{
    (void)app;
    (void)result;
    watch_note(ctx, "last", method);
}

static void watch_error(pm_app *app, const char *method,
                        const pm_rpc_result *result, void *ctx)
{
    watch *w = ctx;
    (void)result;
    watch_note(w, "error", method);
    if (w->free_on_error)
        calls_free(w->all, app);
}

static void watch_open(calls *c, watch *w)
{
    static const pm_rpc_filter first = {watch_before, watch_after};
    static const pm_rpc_filter second = {watch_second, watch_last};
    static const pm_rpc_filter none = {NULL, NULL};
    w->all = c;
    assert_ok(calls_loop(c));
    assert_ok(calls_start(c, "b-1", &c->b1));
    assert_ok(calls_start(c, "b-2", &c->b2));
    assert_ok(calls_app(c, "a-1", &c->a));
    assert_err(pm_app_rpc_filter(c->a, NULL, w), PM_EINVAL);
    assert_ok(pm_app_rpc_filter(c->a, &first, w));
    assert_ok(pm_app_rpc_filter(c->a, &none, NULL));
    assert_ok(pm_app_rpc_filter(c->a, &second, w));
    pm_app_rpc_error_handler(c->a, watch_error, w);
    assert_ok(pm_app_start(c->a));
    assert_err(pm_app_rpc_filter(c->a, &first, w), PM_ESTATE);
    calls_run(c, 500);
}

static void test_filters(void **state)
{
    calls c = {0};
    watch w = {0};
    (void)state;
    watch_open(&c, &w);
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[]");
    assert_string_equal(w.seen, "before b.svc.now;second b.svc.now;"
                                "after PM_OK;last b.svc.now;");
    w.seen[0] = 0;
    assert_ok(calls_ask(&c, "b-1", "b.svc.fail", "[]", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_EREMOTE, "");
    assert_string_equal(w.seen,
                        "before b.svc.fail;second b.svc.fail;error b.svc.fail;"
                        "after PM_EREMOTE;last b.svc.fail;");
    w.seen[0] = 0;
    w.refuse = PM_EBUSY;
    assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
    assert_int_equal(c.got.times, 0);
    calls_run(&c, 10);
    assert_got(&c, PM_EBUSY, "");
    assert_int_equal(c.served, 2);
    assert_string_equal(w.seen, "before b.svc.now;error b.svc.now;"
                                "after PM_EBUSY;last b.svc.now;");
    assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_none(), pm_body_none(),
                            NULL, NULL));
    calls_run(&c, 10);
    assert_int_equal(c.served, 2);
    pm_app_rpc_error_handler(c.a, NULL, NULL);
    calls_close(&c);
}

static void test_filters_that_end_the_app(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        calls c = {0};
        watch w = {0};
        all a = {0};
        watch_open(&c, &w);
        w.free_before = which == 0 || which == 3;
        w.free_after = which == 1;
        w.free_on_error = which == 2;
        if (which == 0)
            assert_err(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL),
                       PM_ECLOSED);
        else if (which == 3)
            assert_err(pm_rpc_all(c.a, "b.svc.now", pm_body_none(), all_cb, &a),
                       PM_ECLOSED);
        else
            assert_ok(calls_ask(
                &c, "b-1", which == 1 ? "b.svc.now" : "b.svc.no", "[]", NULL));
        calls_run(&c, 10);
        assert_null(c.a);
        assert_int_equal(c.got.times, which == 1 || which == 2);
        assert_int_equal(a.times, 0);
        calls_close(&c);
    }
}

/* A filter takes servers away while all of a type are being called. */
static void test_filter_changes_the_table(void **state)
{
    calls c = {0};
    watch w = {0};
    all a = {0};
    (void)state;
    watch_open(&c, &w);
    w.remove = "b-2";
    assert_ok(pm_rpc_all(c.a, "b.svc.now", pm_body_text("1"), all_cb, &a));
    calls_run(&c, 10);
    assert_int_equal(a.times, 1);
    assert_int_equal(a.count, 2);
    assert_ok(a.err[0]);
    assert_err(a.err[1], PM_ENOSERVER);
    calls_close(&c);
}

/* ---- Routers ----------------------------------------------------------- */

typedef struct way {
    calls *all;
    pm_choice *held;
    const char *to;
    bool later, frees;
    size_t count;
    pm_param_kind kind;
} way;

static void way_cb(pm_app *app, pm_choice *choice, void *ctx)
{
    way *w = ctx;
    w->count = pm_choice_count(choice);
    w->kind = pm_choice_param(choice).kind;
    w->held = choice;
    if (w->frees)
        calls_free(w->all, app);
    if (!w->later)
        pm_route_to(choice, w->to);
}

static void way_open(calls *c, way *w)
{
    calls_open(c);
    w->all = c;
    assert_ok(pm_app_route(c->a, "b", way_cb, w));
}

static void test_router_now(void **state)
{
    calls c = {0};
    way w = {0};
    (void)state;
    way_open(&c, &w);
    w.to = "b-2";
    assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_integer(5),
                            pm_body_text("[]"), got_cb, &c.got));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[]");
    assert_string_equal(c.got.server, "b-2");
    assert_int_equal(w.count, 2);
    assert_int_equal(w.kind, PM_PARAM_INTEGER);
    for (int i = 0; i < 2; i++) {
        w.to = i ? NULL : "nobody-1";
        assert_ok(calls_ask(&c, NULL, "b.svc.now", "[]", NULL));
        calls_run(&c, 10);
        assert_got(&c, PM_ENOSERVER, "");
        assert_string_equal(c.got.server, "-");
    }
    w.to = "ghost-1"; /* known, but not running */
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[]", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_EDOWN, "");
    calls_close(&c);
}

static void test_router_later(void **state)
{
    calls c = {0};
    way w = {.later = true};
    uint64_t id = 0;
    (void)state;
    way_open(&c, &w);
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[1]", NULL));
    calls_run(&c, 1000);
    assert_int_equal(c.got.times, 0);
    pm_route_to(w.held, "b-1");
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[1]");
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[1]", NULL));
    pm_route_to(w.held, NULL);
    calls_run(&c, 10);
    assert_got(&c, PM_ENOSERVER, "");
    /* A notify waits too; the second is for nobody. */
    for (int i = 0; i < 2; i++) {
        assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_string("room"),
                                pm_body_text("[2]"), NULL, NULL));
        calls_run(&c, 10);
        pm_route_to(w.held, i ? NULL : "b-2");
        calls_run(&c, 10);
        assert_int_equal(c.notified, 1);
    }
    /* Over before it is decided: by the deadline, and by the caller. */
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[3]", NULL));
    calls_run(&c, 6000);
    assert_got(&c, PM_ETIMEOUT, "");
    pm_route_to(w.held, "b-1");
    assert_ok(calls_ask(&c, NULL, "b.svc.now", "[4]", &id));
    assert_ok(pm_rpc_cancel(c.a, id));
    calls_run(&c, 10);
    assert_got(&c, PM_ECANCELED, "");
    pm_route_to(w.held, "b-1");
    calls_run(&c, 10);
    assert_int_equal(c.got.times, 0);
    assert_int_equal(c.served, 2);
    calls_close(&c);
}

static void test_router_and_the_end(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        calls c = {0};
        way w = {.later = i > 0, .frees = i < 2, .to = "b-1"};
        way_open(&c, &w);
        if (i < 2) {
            assert_err(calls_ask(&c, NULL, "b.svc.now", "[1]", NULL),
                       PM_ECLOSED);
        } else {
            assert_ok(calls_ask(&c, NULL, "b.svc.now", "[1]", NULL));
            calls_free(&c, c.a);
        }
        calls_run(&c, 10);
        assert_int_equal(c.got.times, i == 2);
        assert_true(i != 2 || c.got.err == PM_ECLOSED);
        if (w.later)
            pm_route_to(w.held, "b-1"); /* long after its app */
        calls_run(&c, 10);
        assert_int_equal(c.served, 0);
        calls_close(&c);
    }
}

static void no_kick(pm_session *session, const char *reason,
                    pm_close_reason why)
{
    (void)session;
    (void)reason;
    (void)why;
}

static void no_relaxed(pm_session *session)
{
    (void)session;
}

/* A session as the route parameter: its uid decides, as in Pomelo. */
static void test_session_as_parameter(void **state)
{
    static const pmi_session_ops ops = {.kick = no_kick, .relaxed = no_relaxed};
    static const char *const uids[] = {"alice", "bob", "carol", "dave"};
    calls c = {0};
    (void)state;
    calls_open(&c);
    for (size_t i = 0; i < PMI_COUNT(uids); i++) {
        pm_session *session = NULL;
        char want[16];
        assert_ok(
            pmi_session_open(pmi_app_sessions(c.a), &ops, NULL, &session));
        assert_ok(pm_session_bind(session, uids[i], NULL, NULL));
        assert_ok(pm_rpc_invoke(c.a, "b.svc.now", pm_param_session(session),
                                pm_body_text("[]"), got_cb, &c.got));
        calls_run(&c, 10);
        assert_got(&c, PM_OK, "[]");
        snprintf(want, sizeof want, "b-%d", (int)pm_dispatch(uids[i], 2) + 1);
        assert_string_equal(c.got.server, want);
        pmi_session_close(session, PM_CLOSE_CLIENT);
        pm_session_unref(session);
    }
    calls_close(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_answer_now),
    cmocka_unit_test(test_numbers),
    cmocka_unit_test(test_many_at_once),
    cmocka_unit_test(test_answer_later),
    cmocka_unit_test(test_kept_arguments_stay),
    cmocka_unit_test(test_kinds_and_sizes),
    cmocka_unit_test(test_answer_too_large),
    cmocka_unit_test(test_trace),
    cmocka_unit_test(test_order_is_kept),
    cmocka_unit_test(test_remote_fails),
    cmocka_unit_test(test_notify),
    cmocka_unit_test(test_calling_oneself),
    cmocka_unit_test(test_errors),
    cmocka_unit_test(test_what_is_refused),
    cmocka_unit_test(test_deadline_passes),
    cmocka_unit_test(test_cancel),
    cmocka_unit_test(test_cancel_wins),
    cmocka_unit_test(test_all),
    cmocka_unit_test(test_all_and_the_end),
    cmocka_unit_test(test_filters),
    cmocka_unit_test(test_filters_that_end_the_app),
    cmocka_unit_test(test_filter_changes_the_table),
    cmocka_unit_test(test_router_now),
    cmocka_unit_test(test_router_later),
    cmocka_unit_test(test_router_and_the_end),
    cmocka_unit_test(test_session_as_parameter),
};

TEST_MAIN(tests)
