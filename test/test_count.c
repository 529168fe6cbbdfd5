/* SPDX-License-Identifier: MIT */
/* test_count.c -- what is refused on the wire is counted where it is refused:
 * by a peer, by a client of ours, and by strangers over a socket. */
#include "flow.h"
#include "core/conn.h"
#include "pomelo_connector_internal.h"
#include "pomelo_count_internal.h"
#include "pomelo_rpc_internal.h"

static uint64_t counted(const pm_app *app, pmi_count_what what)
{
    return pmi_app_counts(app)->n[what];
}

static void on_any(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{}");
}

static pm_err configure(flow *f, pm_app *app)
{
    (void)f;
    return pm_app_handler(app, "chat.chatHandler.talk", on_any, NULL);
}

/* ---- A peer ------------------------------------------------------------ */

static void on_answer(const pmi_rpc_answer *answer, void *ctx)
{
    *(pm_err *)ctx = answer->result.err;
}

static void test_unknown_operation(void **state)
{
    pmi_rpc_send_opts send = {.op = (pmi_op)77, .server_id = "chat-1"};
    pm_err err = PM_OK;
    flow f = {0};
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    assert_ok(pmi_rpc_send(pmi_app_rpc(f.front), &send, on_answer, &err, NULL));
    flow_run(&f, 10);
    assert_err(err, PM_ENOMETHOD);
    assert_int_equal(counted(f.back, PMI_COUNT_UNSERVED_OPERATION), 1);
    flow_end(&f);
}

/* The frontend has another schema for the route than the backend. */
static pm_err start_with_protos(flow *f, const char *id, const char *protos,
                                pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = f->loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.connector.use_protobuf = true;
    opts.connector.client_protos = protos;
    err = pm_app_new(out, &opts);
    if (err == PM_OK)
        err = configure(f, *out);
    return err ? err : pm_app_start(*out);
}

static void test_other_protos(void **state)
{
    static const char a[] =
        "{\"chat.chatHandler.talk\":{\"required string text\":1}}";
    static const char b[] =
        "{\"chat.chatHandler.talk\":{\"required string text\":2}}";
    flow f = {0};
    (void)state;
    assert_ok(flow_loop(&f, 1));
    assert_ok(start_with_protos(&f, "chat-1", a, &f.back));
    assert_ok(start_with_protos(&f, "connector-1", b, &f.front));
    assert_ok(flow_client(&f));
    flow_run(&f, 50);
    assert_ok(pm_client_request(f.client, "chat.chatHandler.talk",
                                pm_body_text("{\"text\":\"x\"}"), flow_answered,
                                &f));
    flow_run(&f, 50);
    assert_string_equal(f.answer, "{\"code\":500}");
    assert_int_equal(counted(f.back, PMI_COUNT_REFUSED_PROTOS), 1);
    flow_end(&f);
}

/* ---- Clients on a socket ----------------------------------------------- */

typedef struct wire {
    pm_loop *loop;
    pm_app *app;
    int fd;
} wire;

static void wire_start(wire *w)
{
    pm_server server = {.id = "connector-1",
                        .type = "connector",
                        .client_port = 0,
                        .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    assert_ok(pm_loop_new(&w->loop, NULL));
    opts.loop = w->loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    assert_ok(pm_app_new(&w->app, &opts));
    assert_ok(pm_app_start(w->app));
    w->fd = -1;
}

static void wire_end(wire *w)
{
    pm_app_free(w->app);
    assert_ok(pm_loop_free(w->loop));
}

static void wire_say(wire *w, const void *data, size_t len)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    if (w->fd < 0) {
        to.sin_port = htons(pm_app_client_port(w->app));
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        w->fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_true(w->fd >= 0);
        assert_int_equal(connect(w->fd, (struct sockaddr *)&to, sizeof to), 0);
    }
    assert_int_equal(send(w->fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void wire_until_closed(wire *w, pm_close_reason reason)
{
    const uint64_t *closed = pmi_connector_closed(pmi_app_connector(w->app));
    while (!closed[reason]) /* the program has a deadline */
        pm_loop_poll(w->loop, 0);
    assert_int_equal(closed[reason], 1);
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

static void wire_until_connected(wire *w)
{
    while (!pmi_connector_count(pmi_app_connector(w->app)))
        pm_loop_poll(w->loop, 0);
}

static void test_ends_on_a_socket(void **state)
{
    static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char upgrade[] =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    static const uint8_t frame[] = {0xff, 0x80, 1, 2, 3, 4};
    struct linger at_once = {1, 0};
    wire w;
    (void)state;
    wire_start(&w);
    wire_say(&w, get, sizeof get - 1);
    wire_until_closed(&w, PM_CLOSE_HTTP);
    wire_say(&w, upgrade, sizeof upgrade - 1);
    wire_say(&w, frame, sizeof frame);
    wire_until_closed(&w, PM_CLOSE_WS);
    wire_say(&w, "\1", 1);
    wire_until_connected(&w);
    assert_int_equal(
        setsockopt(w.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    close(w.fd);
    w.fd = -1;
    wire_until_closed(&w, PM_CLOSE_RESET);
    wire_end(&w);
}

/* ---- Queues ------------------------------------------------------------ */

static bool on_queue(const pm_stat *stat, void *ctx)
{
    uint64_t *bytes = ctx;
    if (strcmp(stat->name, "pomelo_queue_bytes") != 0)
        return true;
    bytes[!strstr(stat->labels, "clients")] = stat->value;
    return true;
}

static bool on_push_much(pm_session *session, void *ctx)
{
    assert_ok(
        pm_session_push(session, "onMuch", pm_body_bytes(ctx, 800 * 1024)));
    return true;
}

/* More than a link takes at once waits, and is told by who is to have it. */
static void test_queues(void **state)
{
    char *much = calloc(1, 800 * 1024);
    uint64_t bytes[2] = {0, 0}; /* clients, peers */
    pm_rpc_opts call = pm_rpc_opts_default();
    flow f = {0};
    (void)state;
    assert_non_null(much);
    assert_ok(flow_start(&f, 1, configure));
    pm_stats_each(f.front, on_queue, bytes);
    assert_true(bytes[0] == 0 && bytes[1] == 0);
    call.method = "chat.chatRemote.none";
    call.args = pm_body_bytes(much, 800 * 1024);
    assert_ok(pm_rpc_call(f.front, &call, NULL, NULL, NULL));
    assert_int_equal(pm_session_each(f.front, NULL, on_push_much, much), 1);
    pm_stats_each(f.front, on_queue, bytes);
    assert_true(bytes[0] > 100 * 1024 && bytes[1] > 100 * 1024);
    pm_app_free(f.front);
    f.front = NULL;
    flow_end(&f);
    free(much);
}

/* ---- A client that speaks by hand -------------------------------------- */

static size_t by_hand_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    static const uint8_t words[] = {2, 0, 0, 0,             /* ack */
                                    4, 0, 0, 2, 2 << 1, 1,  /* a response */
                                    4, 0, 0, 2, 2 << 1, 2}; /* another */
    pm_slice all = {words, sizeof words};
    int *heard = ctx;
    (void)data;
    if (++*heard == 1)
        assert_ok(pmi_conn_send(conn, &all, 1, 0));
    return len;
}

static void by_hand_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    (void)conn;
    (void)why;
    (void)ctx;
}

static void test_a_client_that_answers(void **state)
{
    static const pmi_conn_events events = {.data = by_hand_data,
                                           .closed = by_hand_closed};
    static const char hello[] = "\1\0\0\12{\"sys\":{}}";
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = 3050,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    pm_slice word = {hello, sizeof hello - 1};
    pmi_conn *conn;
    int heard = 0;
    flow f = {0};
    (void)state;
    assert_ok(flow_start(&f, 1, configure));
    assert_ok(pmi_conn_connect(f.loop, &opts, &events, &heard, &conn));
    assert_ok(pmi_conn_send(conn, &word, 1, 0));
    flow_run(&f, 50);
    assert_int_equal(counted(f.front, PMI_COUNT_REFUSED_TYPE), 2);
    pmi_conn_free(conn);
    flow_end(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_unknown_operation),
    cmocka_unit_test(test_other_protos),
    cmocka_unit_test(test_ends_on_a_socket),
    cmocka_unit_test(test_queues),
    cmocka_unit_test(test_a_client_that_answers),
};
TEST_MAIN(tests)
