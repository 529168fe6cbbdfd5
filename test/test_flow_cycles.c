/* SPDX-License-Identifier: MIT */
/* test_flow_cycles.c -- 10,000 times: an app is made and started, one client comes over TCP or
 * WebSocket and asks, the app stops and is freed. Live bytes and open
 * descriptors are the same before and after. */
#include "test.h"

#include <dirent.h>

#define CYCLES 10000

typedef struct cycle {
    pm_loop *loop;
    pm_app *app;
    pm_client *client;
    int answers, stopped;
    pm_err stop_err;
} cycle;

static size_t cycle_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void cycle_entry(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{\"code\":200}");
}

static void cycle_answered(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    (void)client;
    (void)body;
    if (err == PM_OK)
        ((cycle *)ctx)->answers++;
    pm_loop_break(((cycle *)ctx)->loop);
}

static void cycle_connected(pm_client *client, const struct cJSON *user,
                            void *ctx)
{
    (void)user;
    assert_ok(pm_client_request(client, "connector.entryHandler.entry",
                                pm_body_text("{}"), cycle_answered, ctx));
}

static void cycle_stopped(pm_app *app, pm_err err, void *ctx)
{
    cycle *c = ctx;
    (void)app;
    c->stopped++;
    c->stop_err = err;
    pm_loop_break(c->loop);
}

static void cycle_once(cycle *c, pm_transport transport)
{
    pm_server server = {.id = "connector-1",
                        .type = "connector",
                        .host = "127.0.0.1",
                        .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_client_opts client = pm_client_opts_default();
    int answers = c->answers, stopped = c->stopped;
    opts.loop = c->loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    assert_ok(pm_app_new(&c->app, &opts));
    assert_ok(pm_app_handler(c->app, "connector.entryHandler.entry",
                             cycle_entry, NULL));
    assert_ok(pm_app_start(c->app));
    client.loop = c->loop;
    client.transport = transport;
    client.host = "127.0.0.1";
    client.port = pm_app_client_port(c->app);
    client.events.connected = cycle_connected;
    client.ctx = c;
    assert_ok(pm_client_new(&c->client, &client));
    while (c->answers == answers)
        assert_ok(pm_loop_run(c->loop));
    assert_ok(pm_app_stop(c->app, 1000, cycle_stopped, c));
    while (c->stopped == stopped)
        assert_ok(pm_loop_run(c->loop));
    assert_ok(c->stop_err);
    pm_client_free(c->client);
    pm_app_free(c->app);
}

static void test_cycles(void **state)
{
    test_heap heap = {0};
    pm_loop_opts opts = pm_loop_opts_default();
    size_t live, descriptors, before = cycle_descriptors();
    cycle c = {0};
    (void)state;
    opts.alloc = test_alloc(&heap);
    assert_ok(pm_loop_new(&c.loop, &opts));
    for (int i = 0; i < 100; i++) /* what is kept for reuse is kept by now */
        cycle_once(&c, i % 2 ? PM_TRANSPORT_TCP : PM_TRANSPORT_WS);
    live = heap.live_bytes;
    descriptors = cycle_descriptors();
    for (int i = 0; i < CYCLES; i++)
        cycle_once(&c, i % 2 ? PM_TRANSPORT_TCP : PM_TRANSPORT_WS);
    assert_int_equal(heap.live_bytes, live);
    assert_int_equal(cycle_descriptors(), descriptors);
    assert_int_equal(c.answers, CYCLES + 100);
    assert_ok(pm_loop_free(c.loop));
    assert_heap_empty(&heap);
    assert_int_equal(cycle_descriptors(), before);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_cycles),
};

TEST_MAIN(tests)
