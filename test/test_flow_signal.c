/* SPDX-License-Identifier: MIT */
/* test/test_flow_signal.c -- what signals do to pm_run: the first one lets what
 * is under way end, the second one does not. And what pm_run hands on. */
#include "test.h"

#include <signal.h>

typedef struct night {
    bool twice; /* a second signal comes while the first one's stop waits */
    int stopping, released, stopped;
} night;

static void on_second(pm_app *app, void *ctx)
{
    night *n = ctx;
    if (n->twice) {
        assert_int_equal(raise(SIGTERM), 0);
        return;
    }
    n->released++;
    pm_app_stop_release(app);
}

/* Something is under way, and takes its time. */
static void on_before_stop(pm_app *app, void *ctx)
{
    night *n = ctx;
    n->stopping++;
    assert_ok(pm_app_stop_hold(app));
    assert_ok(pm_app_timer(app, 1, 0, on_second, n, NULL));
}

static void on_stop(pm_app *app, void *ctx)
{
    (void)app;
    ((night *)ctx)->stopped++;
}

static pm_err night_configure(pm_app *app, void *ctx)
{
    static const pm_component part = {
        .name = "night", .before_stop = on_before_stop, .stop = on_stop};
    return pm_app_component(app, &part, ctx);
}

static void night_started(pm_loop *loop, pm_app *const *apps, size_t count,
                          void *ctx)
{
    (void)loop;
    (void)apps;
    (void)count;
    (void)ctx;
    assert_int_equal(raise(SIGTERM), 0);
}

static void night_log(void *ctx, pm_log_level level, const char *module,
                      const char *line)
{
    (void)ctx;
    (void)level;
    (void)module;
    (void)line;
}

static void night_run(night *n)
{
    static const pm_server table[] = {{.id = "chat-1", .type = "chat"}};
    pm_run_opts opts = pm_run_opts_default();
    opts.servers = table;
    opts.servers_count = 1;
    opts.drain_ms = 3600000;
    opts.log = night_log;
    opts.started = night_started;
    assert_ok(pm_run(&opts, night_configure, n));
    assert_int_equal(n->stopping, 1);
}

static void test_one_signal(void **state)
{
    night n = {0};
    (void)state;
    night_run(&n);
    assert_int_equal(n.released, 1);
    assert_int_equal(n.stopped, 1);
}

/* It does not wait for the hour that the stop may take. */
static void test_two_signals(void **state)
{
    night n = {.twice = true};
    struct sigaction now;
    (void)state;
    night_run(&n);
    assert_int_equal(n.released, 0);
    /* Its handlers are gone with it. */
    assert_int_equal(sigaction(SIGTERM, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL);
}

/* Its loop is told, and refuses what it can not do. */
static void test_spin_is_handed_on(void **state)
{
    static const pm_server table[] = {{.id = "chat-1", .type = "chat"}};
    pm_run_opts opts = pm_run_opts_default();
    night n = {0};
    (void)state;
    opts.servers = table;
    opts.servers_count = 1;
    opts.log = night_log;
    opts.spin_us = 1000001;
    assert_err(pm_run(&opts, night_configure, &n), PM_EINVAL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_one_signal), cmocka_unit_test(test_two_signals),
    cmocka_unit_test(test_spin_is_handed_on)};
TEST_MAIN(tests)
