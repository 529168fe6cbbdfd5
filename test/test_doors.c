/* SPDX-License-Identifier: MIT */
/* test_doors.c -- who may reach what: a client no remote, a peer no handler, a
 * client no RPC port, a peer without the secret nothing; off loopback no start
 * without a secret; and what can not be called says so, at once. */
#include "flow.h"
#include "pomelo_call_internal.h"
#include "pomelo_handler_internal.h"
#include "pomelo_remote_internal.h"

#include <time.h>

typedef struct doors {
    flow f; /* first: it is the ctx of the flow's callbacks */
    int served, results;
    pm_err err;
    uint64_t began_us, took_us;
    char said[256];
} doors;

static uint64_t doors_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void doors_remote(pm_call *call, void *ctx)
{
    ((doors *)ctx)->served++;
    pm_call_reply(call, pm_body_text("1"));
}

static void doors_handler(pm_request *req, void *ctx)
{
    ((doors *)ctx)->served++;
    pm_reply_text(req, "{}");
}

static void doors_result(const pm_rpc_result *result, void *ctx)
{
    doors *d = ctx;
    d->results++;
    d->err = result->err;
    d->took_us = doors_now_us() - d->began_us;
}

static pm_err doors_configure(flow *f, pm_app *app)
{
    pm_err err = pm_app_remote(app, "chat.chatRemote.secret", doors_remote, f);
    if (err == PM_OK)
        err = pm_app_handler(app, "chat.chatHandler.open", doors_handler, f);
    return err;
}

static void doors_ask(doors *d, const char *route, const char *answer)
{
    d->f.answer[0] = 0;
    assert_ok(pm_client_request(d->f.client, route, pm_body_text("{}"),
                                flow_answered, d));
    flow_run(&d->f, 50);
    assert_string_equal(d->f.answer, answer);
}

static pm_err doors_call(doors *d, pm_app *app, const char *method,
                         const char *server_id)
{
    pm_rpc_opts opts = pm_rpc_opts_default();
    opts.method = method;
    opts.server_id = server_id;
    d->began_us = doors_now_us();
    return pm_rpc_call(app, &opts, doors_result, d, NULL);
}

/* Links to an app that ended unproven, by reason. */
static uint64_t doors_refused(pm_app *app, pm_close_reason why)
{
    return pmi_rpc_peers(pmi_app_rpc(app))->refused[why];
}

static uint64_t doors_counted(pm_app *app, pmi_count_what what)
{
    return pmi_app_counts(app)->n[what];
}

static void test_client_reaches_no_remote(void **state)
{
    doors d = {0};
    (void)state;
    assert_ok(flow_start(&d.f, 1, doors_configure));
    doors_ask(&d, "chat.chatRemote.secret", "{\"code\":500}");
    doors_ask(&d, "sys.msgRemote.forwardMessage", "{\"code\":500}");
    doors_ask(&d, "sys.sessionRemote.kickBySid", "{\"code\":500}");
    assert_int_equal(d.served, 0);
    /* The backend has no such handler; nobody is of type sys. */
    assert_int_equal(doors_counted(d.f.back, PMI_COUNT_REFUSED_METHOD), 1);
    doors_ask(&d, "connector.entryHandler.none", "{\"code\":500}");
    assert_int_equal(doors_counted(d.f.front, PMI_COUNT_REFUSED_METHOD), 1);
    doors_ask(&d, "a.b", "{\"code\":500}");
    assert_int_equal(doors_counted(d.f.front, PMI_COUNT_REFUSED_SHAPE), 1);
    assert_ok(pm_client_notify(d.f.client, "nodot", pm_body_text("{}")));
    flow_run(&d.f, 50);
    assert_int_equal(doors_counted(d.f.front, PMI_COUNT_REFUSED_ROUTE), 1);
    doors_ask(&d, "chat.chatHandler.open", "{}");
    assert_int_equal(d.served, 1);
    flow_end(&d.f);
}

static void test_peer_reaches_no_handler(void **state)
{
    doors d = {0};
    (void)state;
    assert_ok(flow_start(&d.f, 1, doors_configure));
    assert_ok(doors_call(&d, d.f.front, "chat.chatHandler.open", NULL));
    flow_run(&d.f, 50);
    assert_int_equal(d.results, 1);
    assert_err(d.err, PM_ENOMETHOD);
    assert_int_equal(d.served, 0);
    assert_int_equal(doors_counted(d.f.back, PMI_COUNT_UNSERVED_METHOD), 1);
    assert_ok(doors_call(&d, d.f.front, "chat.chatRemote.secret", NULL));
    flow_run(&d.f, 50);
    assert_ok(d.err);
    assert_int_equal(d.served, 1);
    flow_end(&d.f);
}

/* A client that knocks at the RPC port is closed, and counted. */
static void test_client_on_an_rpc_port(void **state)
{
    pm_client_opts opts = pm_client_opts_default();
    pm_client *client;
    doors d = {0};
    (void)state;
    assert_ok(flow_start(&d.f, 1, doors_configure));
    opts.loop = d.f.loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    opts.host = "127.0.0.1";
    opts.port = 4060;
    opts.events.disconnected = flow_disconnected;
    opts.ctx = &d.f;
    assert_ok(pm_client_new(&client, &opts));
    flow_run(&d.f, 50);
    assert_int_equal(d.f.disconnected, 1);
    assert_false(pm_client_is_connected(client));
    assert_int_equal(doors_refused(d.f.back, PM_CLOSE_AUTH), 1);
    pm_client_free(client);
    doors_ask(&d, "chat.chatHandler.open", "{}");
    flow_end(&d.f);
}

static pm_app *doors_app(doors *d, const char *id, const char *secret)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    opts.loop = d->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.rpc.secret = secret;
    assert_ok(pm_app_new(&app, &opts));
    assert_ok(doors_configure(&d->f, app));
    assert_ok(pm_app_start(app));
    return app;
}

static void test_peer_without_the_secret(void **state)
{
    static const char *const wrong[] = {NULL, "", "a guess", "the secret "};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        doors d = {0};
        assert_ok(flow_loop(&d.f, 1));
        d.f.back = doors_app(&d, "chat-1", "the secret");
        d.f.front = doors_app(&d, "connector-1", wrong[i]);
        flow_run(&d.f, 1000);
        assert_false(pm_server_is_up(d.f.front, "chat-1"));
        assert_false(pm_server_is_up(d.f.back, "connector-1"));
        assert_ok(doors_call(&d, d.f.front, "chat.chatRemote.secret", NULL));
        flow_run(&d.f, 50);
        assert_err(d.err, PM_EDOWN);
        assert_int_equal(d.served, 0);
        /* The acceptor proves itself first, and the dialler sees that it can
         * not: it notes why, and hangs up. So on both links. */
        assert_true(doors_refused(d.f.front, PM_CLOSE_AUTH) > 0);
        assert_true(doors_refused(d.f.back, PM_CLOSE_AUTH) > 0);
        flow_end(&d.f);
    }
}

/* ---- Starting off loopback --------------------------------------------- */

static void doors_log(void *ctx, pm_log_level level, const char *module,
                      const char *line)
{
    doors *d = ctx;
    (void)module;
    if (level == PM_LOG_ERROR)
        snprintf(d->said, sizeof d->said, "%s", line);
}

static void test_off_loopback(void **state)
{
    pm_server server = {
        .id = "chat-1", .type = "chat", .host = "0.0.0.0", .port = 4060};
    static const struct {
        const char *secret, *part;
    } cases[] = {{NULL, "it needs rpc.tls or rpc.secret"},
                 {"s", "needs rpc.insecure_plain"}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        pm_app_opts opts = pm_app_opts_default();
        doors d = {0};
        pm_err err;
        assert_ok(pm_loop_new(&d.f.loop, NULL));
        opts.loop = d.f.loop;
        opts.servers = &server;
        opts.servers_count = 1;
        opts.log = doors_log;
        opts.log_ctx = &d;
        opts.rpc.secret = cases[i].secret;
        err = pm_app_new(&d.f.back, &opts);
        if (err == PM_OK)
            err = pm_app_start(d.f.back);
        assert_err(err, PM_ECONFIG);
        assert_non_null(strstr(d.said, "reachable from other machines"));
        assert_non_null(strstr(d.said, cases[i].part));
        pm_app_free(d.f.back);
        assert_ok(pm_loop_free(d.f.loop));
    }
}

/* ---- Each its own error, at once, on real time and sockets ------------- */

static void doors_expect(doors *d, const char *method, const char *server_id,
                         pm_err want)
{
    int results = d->results;
    assert_ok(doors_call(d, d->f.front, method, server_id));
    while (d->results == results)
        pm_loop_poll(d->f.loop, 0);
    assert_err(d->err, want);
    assert_true(d->took_us < 10000);
    printf("%-12s in %llu us: %s %s\n", pm_err_name(want),
           (unsigned long long)d->took_us, method,
           server_id ? server_id : "(by type)");
}

static void test_each_its_own_error(void **state)
{
    /* chat-2 is in the table, and nobody listens there (port 1). */
    static const pm_server servers[] = {
        {.id = "connector-1", .type = "connector"},
        {.id = "chat-1", .type = "chat", .port = 4061},
        {.id = "chat-2", .type = "chat", .port = 1}};
    pm_app_opts opts = pm_app_opts_default();
    doors d = {0};
    uint64_t until;
    (void)state;
    assert_ok(pm_loop_new(&d.f.loop, NULL));
    opts.loop = d.f.loop;
    opts.servers = servers;
    opts.servers_count = 3;
    opts.server_id = "connector-1";
    assert_ok(pm_app_new(&d.f.front, &opts));
    assert_ok(pm_app_start(d.f.front));
    for (until = doors_now_us() + 100000; doors_now_us() < until;)
        pm_loop_poll(d.f.loop, 0);
    doors_expect(&d, "chat.chatRemote.secret", "nobody-1", PM_ENOSERVER);
    doors_expect(&d, "ghost.ghostRemote.call", NULL, PM_ENOSERVER);
    doors_expect(&d, "chat.chatRemote.secret", "chat-2", PM_EDOWN);
    doors_expect(&d, "connector.entryRemote.none", "connector-1", PM_ENOMETHOD);
    pm_app_free(d.f.front);
    assert_ok(pm_loop_free(d.f.loop));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_client_reaches_no_remote),
    cmocka_unit_test(test_peer_reaches_no_handler),
    cmocka_unit_test(test_client_on_an_rpc_port),
    cmocka_unit_test(test_peer_without_the_secret),
    cmocka_unit_test(test_off_loopback),
    cmocka_unit_test(test_each_its_own_error),
};

TEST_MAIN(tests)
