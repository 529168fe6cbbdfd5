/* SPDX-License-Identifier: MIT */
/* test_flow_limits.c -- bad clients, on the bare wire: each is closed for the
 * right reason and within its limit, the reason is counted, and another
 * client's echo goes on all the while. The table of reasons stands in the
 * output. Start at limit_cases. */
#include "flow.h"

#include "core/conn.h"
#include "pomelo_connector_internal.h"

#define BARE_HEARD_MAX (64 * 1024)

/* A client that knows nothing but bytes. */
typedef struct bare {
    pmi_conn *conn;
    uint8_t heard[BARE_HEARD_MAX];
    size_t len;
    bool open, closed;
} bare;

typedef struct guard {
    flow f; /* first: a story is a flow */
    bare b;
    int echoes, echoed;
    pm_request *held[64];
    size_t held_count;
    int cancelled;
    pm_close_reason told; /* to session_closed */
    int told_count;
    pm_handshake_cb handshake;
    pm_handshake *shaking;
    bool shake_later, use_crypto;
} guard;

/* ---- The bare client --------------------------------------------------- */

static size_t bare_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    bare *b = ctx;
    (void)conn;
    if (b->len + len <= BARE_HEARD_MAX) {
        memcpy(b->heard + b->len, data, len);
        b->len += len;
    }
    return len;
}

static void bare_open(pmi_conn *conn, void *ctx)
{
    (void)conn;
    ((bare *)ctx)->open = true;
}

static void bare_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    (void)conn;
    (void)reason;
    ((bare *)ctx)->closed = true;
}

static const pmi_conn_events bare_events = {
    .data = bare_data, .open = bare_open, .closed = bare_closed};

static void bare_connect(guard *g)
{
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = 3050,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    memset(&g->b, 0, sizeof g->b);
    assert_ok(
        pmi_conn_connect(g->f.loop, &opts, &bare_events, &g->b, &g->b.conn));
    flow_run(&g->f, 5);
}

static void bare_send(guard *g, const void *data, size_t len)
{
    pm_slice part = {data, len};
    pmi_conn_send(g->b.conn, &part, 1, 0);
    flow_run(&g->f, 5);
}

static void bare_hex(guard *g, const char *hex)
{
    size_t len;
    uint8_t *data = test_unhex(hex, &len);
    bare_send(g, data, len);
    free(data);
}

/* {} as a handshake's sys, then the acknowledgement. */
static const char handshake_hex[] = "0100000a 7b22737973223a7b7d7d";

static void bare_work(guard *g)
{
    bare_hex(g, handshake_hex);
    bare_hex(g, "02000000");
    assert_false(g->b.closed);
    g->b.len = 0;
}

/* A request for connector.h.NAME with this id (below 128). */
static void bare_ask(guard *g, uint8_t id, const char *name)
{
    uint8_t package[64] = {PMI_PACKAGE_DATA};
    char route[48];
    int len = snprintf(route, sizeof route, "connector.h.%s", name);
    package[3] = (uint8_t)(3 + len);
    package[5] = id;
    package[6] = (uint8_t)len;
    memcpy(package + 7, route, (size_t)len);
    bare_send(g, package, 7 + (size_t)len);
}

/* ---- The server -------------------------------------------------------- */

static void on_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static void on_cancel(pm_request *req, pm_err why, void *ctx)
{
    (void)req;
    assert_err(why, PM_ECLOSED);
    ((guard *)ctx)->cancelled++;
}

static void on_hold(pm_request *req, void *ctx)
{
    guard *g = ctx;
    assert_ok(pm_request_on_cancel(req, on_cancel, g));
    g->held[g->held_count++] = req;
}

/* More than a client that does not read will take. */
static void on_flood(pm_request *req, void *ctx)
{
    static uint8_t block[32 * 1024];
    (void)ctx;
    for (int i = 0; i < 64; i++)
        pm_session_push(pm_request_session(req), "onFlood",
                        pm_body_bytes(block, sizeof block));
    pm_reply_text(req, "{}");
}

static void on_leave(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_session_kick(pm_request_session(req), NULL, NULL, NULL);
    pm_request_drop(req);
}

static void on_closed(pm_app *app, pm_session *session, pm_close_reason reason,
                      void *ctx)
{
    guard *g = ctx;
    (void)app;
    (void)session;
    g->told = reason;
    g->told_count++;
}

static bool on_check(const char *type, const char *version, bool *failed,
                     void *ctx)
{
    (void)version;
    (void)ctx;
    *failed = type && !strcmp(type, "\"broken\"");
    return !type || strcmp(type, "\"old\"");
}

/* Without the other client. */
static void guard_start_quiet(guard *g, const pm_limits *limits)
{
    static const struct {
        const char *route;
        pm_handler_cb cb;
    } handlers[] = {{"connector.h.echo", on_echo},
                    {"connector.h.hold", on_hold},
                    {"connector.h.flood", on_flood},
                    {"connector.h.leave", on_leave}};
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    assert_ok(flow_loop(&g->f, 1));
    opts.loop = g->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 1;
    opts.connector.heartbeat_s = 3;
    opts.connector.check_client = on_check;
    opts.connector.handshake = g->handshake;
    opts.connector.use_crypto = g->use_crypto;
    opts.connector.ctx = g;
    opts.limits = *limits;
    assert_ok(pm_app_new(&g->f.front, &opts));
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        assert_ok(
            pm_app_handler(g->f.front, handlers[i].route, handlers[i].cb, g));
    events.session_closed = on_closed;
    assert_ok(pm_app_listen(g->f.front, &events, g));
    assert_ok(pm_app_start(g->f.front));
}

static void guard_start(guard *g, const pm_limits *limits)
{
    guard_start_quiet(g, limits);
    assert_ok(flow_client(&g->f));
    flow_run(&g->f, 50);
    assert_int_equal(g->f.connected, 1);
}

static void on_echoed(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    guard *g = ctx;
    (void)client;
    if (err == PM_OK && body.data.len == 9 &&
        !memcmp(body.data.data, "{\"me\":42}", 9))
        g->echoed++;
}

static void guard_echo(guard *g)
{
    assert_ok(pm_client_request(g->f.client, "connector.h.echo",
                                pm_body_text("{\"me\":42}"), on_echoed, g));
    g->echoes++;
}

/* Time goes by, in which the other one is served. */
static void guard_wait(guard *g, uint32_t ms)
{
    uint32_t step = ms < 100 ? ms : 100;
    for (uint32_t t = 0; t < ms; t += step) {
        guard_echo(g);
        flow_run(&g->f, step);
    }
    assert_int_equal(g->echoed, g->echoes);
}

static uint64_t guard_count(guard *g, pm_close_reason reason)
{
    return pmi_connector_closed(pmi_app_connector(g->f.front))[reason];
}

static void guard_end(guard *g)
{
    pmi_conn_free(g->b.conn);
    flow_end(&g->f);
}

/* ---- Each bad client --------------------------------------------------- */

static void do_large(guard *g)
{
    bare_hex(g, "01010001"); /* 64 KiB + 1 */
}

static void do_huge(guard *g)
{
    bare_work(g);
    bare_hex(g, "04ffffff 00");
}

static void do_half(guard *g)
{
    bare_hex(g, "0100000a 7b22");
}

static void do_half_working(guard *g)
{
    bare_work(g);
    bare_hex(g, "04000010 0001");
}

static void do_garbage(guard *g)
{
    bare_hex(g, "fe00ff01 93048512");
}

static void do_garbage_working(guard *g)
{
    bare_work(g);
    bare_hex(g, "00000000");
}

static void do_kick(guard *g)
{
    bare_work(g);
    bare_hex(g, "05000000");
}

static void do_nothing(guard *g)
{
    (void)g;
}

static void do_no_ack(guard *g)
{
    bare_hex(g, handshake_hex);
}

static void do_no_json(guard *g)
{
    bare_hex(g, "01000003 7b7d7d");
}

static void do_old(guard *g) /* {"sys":{"type":"old"}} */
{
    bare_hex(g, "01000016 7b22737973223a7b2274797065223a226f6c64227d7d");
}

static void do_broken(guard *g) /* {"sys":{"type":"broken"}} */
{
    bare_hex(g, "01000019 7b22737973223a7b2274797065223a2262726f6b656e227d7d");
}

static void do_empty_data(guard *g)
{
    bare_work(g);
    bare_hex(g, "04000000");
}

static void do_endless_id(guard *g)
{
    bare_work(g);
    bare_hex(g, "04000009 00 ffffffffff01 01 61");
}

static void do_constructor(guard *g)
{
    bare_work(g);
    bare_ask(g, 1, "constructor");
}

static void do_rate(guard *g)
{
    bare_work(g);
    for (uint8_t i = 1; i <= 80; i++)
        bare_ask(g, i, "echo");
}

static void do_silence(guard *g)
{
    bare_work(g);
}

static void do_leave(guard *g)
{
    bare_work(g);
    pmi_conn_close(g->b.conn, PM_CLOSE_CLIENT, false, 0);
}

static void do_told_to_leave(guard *g)
{
    bare_work(g);
    bare_ask(g, 1, "leave");
}

static void do_not_reading(guard *g)
{
    bare_work(g);
    pmi_conn_pause(g->b.conn);
    bare_ask(g, 1, "flood");
}

typedef struct limit_case {
    const char *name;
    void (*act)(guard *g);
    pm_close_reason reason;
    uint32_t within_ms;
    bool session; /* there was one, which is told */
} limit_case;

static const limit_case limit_cases[] = {
    {"a package over 64 KiB", do_large, PM_CLOSE_PACKAGE_SIZE, 10, false},
    {"a package of 16 MiB", do_huge, PM_CLOSE_PACKAGE_SIZE, 10, true},
    {"half a handshake", do_half, PM_CLOSE_HANDSHAKE_TIMEOUT, 10010, false},
    {"half a message", do_half_working, PM_CLOSE_HEARTBEAT, 6010, true},
    {"garbage", do_garbage, PM_CLOSE_PACKAGE, 10, false},
    {"garbage later", do_garbage_working, PM_CLOSE_PACKAGE, 10, true},
    {"a KICK", do_kick, PM_CLOSE_PACKAGE, 10, true},
    {"nothing at all", do_nothing, PM_CLOSE_HANDSHAKE_TIMEOUT, 10010, false},
    {"no ACK", do_no_ack, PM_CLOSE_HANDSHAKE_TIMEOUT, 10010, false},
    {"a handshake that is no JSON", do_no_json, PM_CLOSE_HANDSHAKE, 10, false},
    {"an old version", do_old, PM_CLOSE_CHECK_CLIENT, 10, false},
    {"a failing check", do_broken, PM_CLOSE_HANDSHAKE, 10, false},
    {"an empty DATA", do_empty_data, PM_CLOSE_MESSAGE, 10, true},
    {"an endless id", do_endless_id, PM_CLOSE_MESSAGE, 10, true},
    {"a constructor", do_constructor, PM_CLOSE_ATTACK, 10, true},
    {"80 messages at once", do_rate, PM_CLOSE_RATE, 10, true},
    {"no heartbeat", do_silence, PM_CLOSE_HEARTBEAT, 6010, true},
    {"good bye", do_leave, PM_CLOSE_CLIENT, 10, true},
    {"told to leave", do_told_to_leave, PM_CLOSE_SERVER, 10, true},
    {"does not read", do_not_reading, PM_CLOSE_QUEUE, 10, true},
};

static void test_reasons(void **state)
{
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {.messages_per_s = 50};
    (void)state;
    assert_non_null(g);
    guard_start(g, &limits);
    for (size_t i = 0; i < sizeof limit_cases / sizeof *limit_cases; i++) {
        const limit_case *c = &limit_cases[i];
        uint64_t was = guard_count(g, c->reason);
        g->told_count = 0;
        bare_connect(g);
        c->act(g);
        if (c->within_ms > 100) {
            /* Not before its time. */
            guard_wait(g, c->within_ms - 300);
            assert_int_equal(guard_count(g, c->reason), was);
            guard_wait(g, 400);
        } else {
            guard_wait(g, c->within_ms);
        }
        print_message("%-28s %-26s %u ms\n", c->name, pm_close_text(c->reason),
                      c->within_ms);
        assert_int_equal(guard_count(g, c->reason), was + 1);
        assert_int_equal(g->told_count, c->session ? 1 : 0);
        if (c->session)
            assert_int_equal(g->told, c->reason);
        pmi_conn_resume(g->b.conn);
        flow_run(&g->f, 10);
        assert_true(g->b.closed);
        pmi_conn_free(g->b.conn);
        g->b.conn = NULL;
    }
    assert_int_equal(pmi_connector_count(pmi_app_connector(g->f.front)), 1);
    assert_int_equal(g->f.disconnected, 0);
    guard_end(g);
    free(g);
}

/* ---- The state machine ------------------------------------------------- */

static void test_states(void **state)
{
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {0};
    (void)state;
    assert_non_null(g);
    guard_start(g, &limits);
    bare_connect(g);
    /* Ignored: ACK, HEARTBEAT, DATA before the handshake. */
    bare_hex(g, "02000000 03000000 04000000");
    assert_int_equal(g->b.len, 0);
    /* The ACK in the chunk of the handshake comes too early, as in Pomelo. */
    bare_hex(g, "0100000a 7b22737973223a7b7d7d 02000000 03000000");
    assert_true(g->b.len > 4);
    assert_int_equal(g->b.heard[0], PMI_PACKAGE_HANDSHAKE);
    assert_int_equal(g->b.len, (size_t)g->b.heard[3] + 4);
    g->b.len = 0;
    /* Ignored: a second handshake, a heartbeat before the ACK. */
    bare_hex(g, "0100000a 7b22737973223a7b7d7d 03000000");
    assert_int_equal(g->b.len, 0);
    /* The ACK counts as a heartbeat, each heartbeat is answered, a second ACK
     * is nothing. */
    bare_hex(g, "02000000");
    assert_int_equal(g->b.len, 4);
    assert_memory_equal(g->b.heard, "\3\0\0\0", 4);
    bare_hex(g, "02000000 0100000a 7b22737973223a7b7d7d");
    assert_int_equal(g->b.len, 4);
    bare_hex(g, "03000002 abcd");
    assert_int_equal(g->b.len, 8);
    /* One byte a segment is fine too. */
    for (int i = 0; i < 3; i++) {
        bare_hex(g, "03");
        bare_hex(g, "00");
        bare_hex(g, "00");
        bare_hex(g, "00");
    }
    assert_int_equal(g->b.len, 20);
    assert_false(g->b.closed);
    guard_end(g);
    free(g);
}

/* ---- Requests in flight ------------------------------------------------ */

static void test_in_flight(void **state)
{
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {.requests_in_flight = 4};
    uint8_t all[16 * 64];
    size_t len = 0;
    (void)state;
    assert_non_null(g);
    guard_start(g, &limits);
    bare_connect(g);
    bare_work(g);
    for (uint8_t i = 1; i <= 12; i++) {
        static const char route[] = "connector.h.hold";
        uint8_t head[7] = {PMI_PACKAGE_DATA, 0, 0, 3 + 16, 0, i, 16};
        memcpy(all + len, head, 7);
        memcpy(all + len + 7, route, 16);
        len += 23;
    }
    bare_send(g, all, len);
    guard_wait(g, 100);
    assert_int_equal(g->held_count, 4);
    /* Each that ends lets one more in. */
    for (size_t i = 0; i < 8; i++) {
        assert_ok(pm_reply_text(g->held[i], "{}"));
        guard_wait(g, 10);
        assert_int_equal(g->held_count, i + 5 < 12 ? i + 5 : 12);
    }
    /* To one that we do not listen to, silence is no reproach. */
    bare_send(g, all, 23 * 6);
    bare_hex(g, "03000000");
    guard_wait(g, 7000);
    assert_int_equal(g->held_count, 12);
    assert_int_equal(g->told_count, 0);
    for (size_t i = 8; i < 12; i++)
        assert_ok(pm_reply_text(g->held[i], "{}"));
    guard_wait(g, 5900);
    assert_int_equal(g->held_count, 16);
    for (size_t i = 12; i < 15; i++)
        assert_ok(pm_reply_text(g->held[i], "{}"));
    guard_wait(g, 5900);
    assert_int_equal(g->held_count, 18); /* and the heartbeat was heard */
    assert_int_equal(g->told_count, 0);
    guard_wait(g, 200);
    assert_int_equal(g->told, PM_CLOSE_HEARTBEAT);
    assert_int_equal(g->cancelled, 3);
    for (size_t i = 15; i < 18; i++)
        assert_err(pm_reply_text(g->held[i], "{}"), PM_ECLOSED);
    guard_end(g);
    free(g);
}

/* ---- The time for a handshake ------------------------------------------ */

static void on_shake(pm_handshake *hs, const struct cJSON *msg, void *ctx)
{
    guard *g = ctx;
    (void)msg;
    if (g->shake_later)
        g->shaking = hs;
    else
        pm_handshake_done(hs, PM_OK, NULL);
}

/* What the client takes counts in one: before its handshake and after our
 * answer. The application's own time counts apart. */
static void test_handshake_total(void **state)
{
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {0};
    (void)state;
    assert_non_null(g);
    g->handshake = on_shake;
    guard_start(g, &limits);
    g->shake_later = true;
    bare_connect(g);
    guard_wait(g, 8000);
    bare_hex(g, handshake_hex);
    assert_non_null(g->shaking);
    guard_wait(g, 20000);
    assert_false(g->b.closed);
    pm_handshake_done(g->shaking, PM_OK, NULL);
    guard_wait(g, 1900);
    assert_false(g->b.closed);
    guard_wait(g, 200);
    assert_true(g->b.closed);
    assert_int_equal(guard_count(g, PM_CLOSE_HANDSHAKE_TIMEOUT), 1);
    guard_end(g);
    free(g);
}

/* ---- Signatures -------------------------------------------------------- */

/* Keys that are none: the client is let in, as in Pomelo, and none of its
 * messages is believed, or checked. */
static void test_bad_keys(void **state)
{
    static const size_t digits[] = {16, 25000, 256, 256};
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {0};
    char *shake = malloc(26000);
    (void)state;
    assert_non_null(g);
    assert_non_null(shake);
    g->use_crypto = true;
    guard_start_quiet(g, &limits);
    for (size_t i = 0; i < 4; i++) {
        uint8_t head[4] = {PMI_PACKAGE_HANDSHAKE};
        size_t len = (size_t)sprintf(shake, "{\"sys\":{\"rsa\":{\"rsa_n\":\"");
        memset(shake + len, 'f', digits[i]);
        len += digits[i];
        if (i == 2)
            shake[len - 1] = 'e'; /* even */
        len += (size_t)sprintf(shake + len, "\",\"rsa_e\":%d}}}",
                               i == 3 ? 0 : 65537);
        head[2] = (uint8_t)(len >> 8);
        head[3] = (uint8_t)len;
        bare_connect(g);
        bare_send(g, head, 4);
        bare_send(g, shake, len);
        bare_hex(g, "02000000");
        g->b.len = 0;
        for (uint8_t n = 1; n <= 100; n++)
            bare_ask(g, n, "echo");
        assert_int_equal(g->b.len, 0);
        assert_false(g->b.closed);
        assert_int_equal(pmi_app_counts(g->f.front)->n[PMI_COUNT_REFUSED_BODY],
                         100 * (i + 1));
        pmi_conn_free(g->b.conn);
        g->b.conn = NULL;
        flow_run(&g->f, 10);
    }
    free(shake);
    guard_end(g);
    free(g);
}

/* A key that is good, and messages whose signatures are not: each would be a
 * check, and the 51st of a second is the last. */
static void test_signature_flood(void **state)
{
    static const char shake[] =
        "{\"sys\":{\"rsa\":{\"rsa_n\":\""
        "c39b3f6dd2b0a9d2ab1f5f2c94fe7d1d9e0e5f1c6a3b2d4e8f90717263748596"
        "c39b3f6dd2b0a9d2ab1f5f2c94fe7d1d9e0e5f1c6a3b2d4e8f90717263748597"
        "\",\"rsa_e\":65537}}}";
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {0};
    uint8_t all[128 * 64];
    size_t len = 0;
    (void)state;
    assert_non_null(g);
    g->use_crypto = true;
    guard_start_quiet(g, &limits);
    for (int burst = 0; burst < 2; burst++) {
        uint8_t head[4] = {PMI_PACKAGE_HANDSHAKE, 0, 0,
                           (uint8_t)(sizeof shake - 1)};
        bare_connect(g);
        bare_send(g, head, 4);
        bare_send(g, shake, sizeof shake - 1);
        bare_hex(g, "02000000");
        assert_false(g->b.closed);
        len = 0;
        for (int i = 0; i < 50 + burst; i++) {
            static const char text[] = "{\"__crypto__\":\"0123456789abcdef\"}";
            static const char route[] = "connector.h.echo";
            uint8_t message[8] = {
                PMI_PACKAGE_DATA, 0, 0, 3 + 16 + 33, 0, 1, 16};
            memcpy(all + len, message, 7);
            memcpy(all + len + 7, route, 16);
            memcpy(all + len + 23, text, 33);
            len += 56;
        }
        bare_send(g, all, len);
        assert_int_equal(g->b.closed, burst);
        assert_int_equal(guard_count(g, PM_CLOSE_CRYPTO), burst);
        pmi_conn_free(g->b.conn);
        g->b.conn = NULL;
        flow_run(&g->f, 10);
    }
    assert_int_equal(pmi_app_counts(g->f.front)->n[PMI_COUNT_REFUSED_BODY],
                     100);
    guard_end(g);
    free(g);
}

/* ---- Who may come in --------------------------------------------------- */

static void test_connections_max(void **state)
{
    guard *g = calloc(1, sizeof *g);
    pm_limits limits = {.connections = 2};
    bare second;
    (void)state;
    assert_non_null(g);
    guard_start(g, &limits);
    for (int round = 0; round < 3; round++) {
        bare_connect(g);
        bare_work(g);
        second = g->b;
        bare_connect(g);
        assert_true(g->b.closed);
        assert_int_equal(guard_count(g, PM_CLOSE_CONNECTIONS_MAX), round + 1);
        pmi_conn_free(g->b.conn);
        g->b = second;
        pmi_conn_set_events(second.conn, &bare_events, &g->b);
        guard_wait(g, 10);
        pmi_conn_free(second.conn);
        g->b.conn = NULL;
        flow_run(&g->f, 10);
    }
    guard_end(g);
    free(g);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_reasons),
    cmocka_unit_test(test_states),
    cmocka_unit_test(test_in_flight),
    cmocka_unit_test(test_handshake_total),
    cmocka_unit_test(test_bad_keys),
    cmocka_unit_test(test_signature_flood),
    cmocka_unit_test(test_connections_max),
};

TEST_MAIN(tests)
