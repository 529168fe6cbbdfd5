/* SPDX-License-Identifier: MIT */
/* test/test_rpc_proof.c -- who may call whom: links that prove themselves, and
 * what strangers get who speak to the port of an RPC server: nothing, and they
 * are counted. */
#include "calls.h"

/* ---- A stranger, who writes what he likes ------------------------------ */

typedef struct stranger {
    pmi_conn *conn;
    bool closed;
    pm_close_reason why;
    uint8_t heard[4096];
    size_t heard_len;
} stranger;

static size_t stranger_data(pmi_conn *conn, uint8_t *data, size_t len,
                            void *ctx)
{
    stranger *s = ctx;
    size_t room = sizeof s->heard - s->heard_len;
    (void)conn;
    memcpy(s->heard + s->heard_len, data, len < room ? len : room);
    s->heard_len += len < room ? len : room;
    return len;
}

static void stranger_message(pmi_conn *conn, uint8_t *data, size_t len,
                             bool text, void *ctx)
{
    (void)text;
    stranger_data(conn, data, len, ctx);
}

static void stranger_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    stranger *s = ctx;
    s->closed = true;
    s->why = why;
    pmi_conn_free(conn);
    s->conn = NULL;
}

static const pmi_conn_events stranger_events = {.data = stranger_data,
                                                .message = stranger_message,
                                                .closed = stranger_closed};

static void stranger_comes(calls *c, stranger *s, uint16_t port)
{
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = port,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true,
                             .from = "stranger"};
    memset(s, 0, sizeof *s);
    assert_ok(pmi_conn_connect(c->loop, &opts, &stranger_events, s, &s->conn));
}

static void stranger_says(stranger *s, const void *data, size_t len)
{
    pm_slice part = {data, len};
    assert_ok(pmi_conn_send(s->conn, &part, 1, 0));
}

static void stranger_frame(stranger *s, const pmi_frame *frame)
{
    pmi_frame_out out;
    assert_ok(pmi_frame_encode(frame, &out));
    assert_ok(pmi_conn_send(s->conn, out.parts, out.count, 0));
}

static uint64_t refused_by(const pm_app *app, pm_close_reason why)
{
    return pmi_rpc_peers(pmi_app_rpc(app))->refused[why];
}

static uint64_t refused_in_all(const pm_app *app)
{
    uint64_t sum = 0;
    for (int i = 0; i < PM_CLOSE_COUNT; i++)
        sum += refused_by(app, (pm_close_reason)i);
    return sum;
}

/* A first word as a-1 would say it. */
static pmi_frame hello_of(const char *from, const char *to,
                          const uint8_t nonce[PMI_NONCE_BYTES])
{
    pmi_frame frame = {.kind = PMI_FRAME_HELLO,
                       .version = PMI_FRAME_VERSION,
                       .incarnation = 7};
    frame.from = pm_text(from);
    frame.to = pm_text(to);
    frame.nonce = pm_bytes(nonce, PMI_NONCE_BYTES);
    return frame;
}

static const uint8_t some_nonce[PMI_NONCE_BYTES] = "0123456789abcde";

/* What the other side has answered to a HELLO. */
static pmi_frame stranger_heard(stranger *s)
{
    pmi_frame frame = {0};
    assert_true(pmi_frame_decode(s->heard, s->heard_len, PMI_FRAME_HELLO_MAX,
                                 &frame) == (long)s->heard_len);
    assert_int_equal(frame.kind, PMI_FRAME_HELLO);
    assert_int_equal(frame.mac.len, PMI_MAC_BYTES);
    return frame;
}

/* Knows the secret and says so, as `from`. */
static void stranger_proves(calls *c, stranger *s, const char *from,
                            const char *secret)
{
    pmi_frame hello = hello_of(from, "b-1", some_nonce), heard;
    pmi_frame proof_frame = {.kind = PMI_FRAME_PROOF};
    pmi_proof proof;
    uint8_t mac[PMI_MAC_BYTES];
    stranger_comes(c, s, 5011);
    stranger_frame(s, &hello);
    calls_run(c, 10);
    heard = stranger_heard(s);
    proof.secret = pm_text(secret);
    proof.dialler_id = pm_text(from);
    proof.acceptor_id = pm_text("b-1");
    proof.dialler_incarnation = 7;
    proof.acceptor_incarnation = heard.incarnation;
    proof.dialler_nonce = some_nonce;
    proof.acceptor_nonce = heard.nonce.data;
    pmi_proof_make(&proof, true, mac);
    proof_frame.mac = pm_bytes(mac, sizeof mac);
    stranger_frame(s, &proof_frame);
    calls_run(c, 10);
    s->heard_len = 0;
}

static void ask_as_stranger(stranger *s)
{
    pmi_frame call = {.kind = PMI_FRAME_CALL, .id = 1, .deadline_ms = 1000};
    call.method = pm_text("b.svc.now");
    call.body = pm_body_text("[1]");
    stranger_frame(s, &call);
}

/* ---- Secrets ----------------------------------------------------------- */

static void secrets_open(calls *c, const char *of_b, const char *of_a)
{
    assert_ok(calls_loop(c));
    c->secret = of_b;
    assert_ok(calls_start(c, "b-1", &c->b1));
    c->secret = of_a;
    assert_ok(calls_start(c, "a-1", &c->a));
}

static void test_same_secret(void **state)
{
    calls c = {0};
    (void)state;
    secrets_open(&c, "s3cret", "s3cret");
    calls_run(&c, 300);
    assert_true(pm_server_is_up(c.a, "b-1"));
    assert_true(pm_server_is_up(c.b1, "a-1"));
    assert_int_equal(refused_by(c.a, PM_CLOSE_AUTH), 0);
    assert_int_equal(refused_by(c.b1, PM_CLOSE_AUTH), 0);
    calls_close(&c);
}

static void test_other_secrets(void **state)
{
    static const char *const pairs[][2] = {
        {"s3cret", "s3cre"}, {"s3cret", NULL}, {NULL, "s3cret"}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(pairs); i++) {
        calls c = {0};
        secrets_open(&c, pairs[i][0], pairs[i][1]);
        assert_ok(calls_ask(&c, "b-1", "b.svc.now", "[]", NULL));
        calls_run(&c, 1000);
        assert_got(&c, PM_EDOWN, ""); /* it has never left */
        assert_int_equal(c.served, 0);
        assert_false(pm_server_is_up(c.a, "b-1"));
        assert_false(pm_server_is_up(c.b1, "a-1"));
        assert_true(refused_by(c.a, PM_CLOSE_AUTH) > 0);
        assert_true(refused_by(c.b1, PM_CLOSE_AUTH) > 0);
        /* The side that was dialled sees its link closed. */
        assert_true(refused_in_all(c.b1) > refused_by(c.b1, PM_CLOSE_AUTH));
        calls_close(&c);
    }
}

/* ---- Bytes of others --------------------------------------------------- */

static void test_other_protocols(void **state)
{
    static const struct {
        const char *hex;
        pm_close_reason why;
    } cases[] = {
        {"01 000027 7b22737973223a7b2274797065223a226a73222c2276657273696f6e22"
         "3a22312e31227d7d",
         PM_CLOSE_AUTH},                            /* a client's handshake */
        {"16 0301 0200 01", PM_CLOSE_TLS_ON_PLAIN}, /* ClientHello */
        {"474554202f20485454502f312e310d0a0d0a", PM_CLOSE_AUTH}, /* GET */
        {"10 0c 0004 4d515454 04 02 003c 0000", PM_CLOSE_AUTH},  /* MQTT */
        {"ff", PM_CLOSE_AUTH},
        {"00 000000", PM_CLOSE_PACKAGE},      /* a frame of nothing */
        {"00 ffffff", PM_CLOSE_PACKAGE_SIZE}, /* 16 MiB before a hello */
        {"00 000801 08", PM_CLOSE_PACKAGE_SIZE},
        {"00 000004 ffffffff", PM_CLOSE_PACKAGE},
        {"00 000002 08 05", PM_CLOSE_AUTH}, /* PING is no hello */
        {"00 000002 08 63", PM_CLOSE_AUTH}};
    calls c = {.secret = "s3cret"};
    (void)state;
    calls_open(&c);
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        uint64_t before = refused_by(c.b1, cases[i].why);
        stranger s;
        size_t len;
        uint8_t *bytes = test_unhex(cases[i].hex, &len);
        stranger_comes(&c, &s, 5011);
        stranger_says(&s, bytes, len);
        free(bytes);
        calls_run(&c, 100);
        assert_true(s.closed);
        assert_int_equal(s.heard_len, 0);
        if (refused_by(c.b1, cases[i].why) != before + 1)
            fail_msg("case %zu is not counted as: %s", i,
                     pm_close_text(cases[i].why));
    }
    assert_true(pm_server_is_up(c.a, "b-1")); /* nobody else noticed */
    calls_close(&c);
}

static void test_garbage(void **state)
{
    calls c = {.secret = "s3cret", .world = {.seed = 5}};
    (void)state;
    calls_open(&c);
    for (int i = 0; i < 300; i++) {
        stranger s;
        uint8_t bytes[600];
        size_t len = 1 + test_world_below(&c.world, sizeof bytes - 5);
        test_world_random(bytes, sizeof bytes, &c.world);
        pmi_put_be32(bytes, (uint32_t)len);
        stranger_comes(&c, &s, 5011);
        stranger_says(&s, bytes, len + 4);
        calls_run(&c, 10);
        assert_true(s.closed);
    }
    assert_true(refused_in_all(c.b1) >= 300);
    assert_int_equal(c.served, 0);
    calls_close(&c);
}

static void test_bad_hellos(void **state)
{
    calls c = {.secret = "s3cret"};
    (void)state;
    calls_open(&c);
    for (int i = 0; i < 7; i++) {
        uint64_t before = refused_by(c.b1, PM_CLOSE_AUTH);
        pmi_frame hello = hello_of("a-1", "b-1", some_nonce);
        stranger s;
        if (i == 0)
            hello.version++;
        if (i == 1)
            hello.to = pm_text("b-2");
        if (i == 2)
            hello.from = pm_text("b-1"); /* its own name */
        if (i == 3)
            hello.from = pm_text("");
        if (i == 4)
            hello.nonce.len--;
        if (i == 5)
            hello.from = pm_bytes("a\0-1", 4);
        if (i == 6)
            hello.kind = PMI_FRAME_PROOF;
        stranger_comes(&c, &s, 5011);
        stranger_frame(&s, &hello);
        calls_run(&c, 10);
        assert_true(s.closed);
        assert_int_equal(s.heard_len, 0);
        assert_int_equal(refused_by(c.b1, PM_CLOSE_AUTH), before + 1);
    }
    calls_close(&c);
}

/* ---- Proofs ------------------------------------------------------------ */

/* What b-1 says to prove itself does not prove who says it back. */
static void test_reflection(void **state)
{
    calls c = {.secret = "s3cret"};
    stranger s;
    pmi_frame hello = hello_of("a-1", "b-1", some_nonce), heard;
    pmi_frame proof = {.kind = PMI_FRAME_PROOF};
    (void)state;
    calls_open(&c);
    stranger_comes(&c, &s, 5011);
    stranger_frame(&s, &hello);
    calls_run(&c, 10);
    heard = stranger_heard(&s);
    proof.mac = heard.mac;
    stranger_frame(&s, &proof);
    ask_as_stranger(&s);
    calls_run(&c, 10);
    assert_true(s.closed);
    assert_int_equal(refused_by(c.b1, PM_CLOSE_AUTH), 1);
    assert_int_equal(c.served, 0);
    calls_close(&c);
}

/* The same through a second link: b-1 is dialled in its own name and a-1's, and
 * each is given the other's nonce. */
static void test_reflection_by_two_links(void **state)
{
    calls c = {.secret = "s3cret"};
    stranger first, second;
    pmi_frame hello = hello_of("a-1", "b-1", some_nonce), heard;
    pmi_frame proof = {.kind = PMI_FRAME_PROOF};
    uint8_t nonce[PMI_NONCE_BYTES];
    (void)state;
    calls_open(&c);
    stranger_comes(&c, &first, 5011);
    stranger_frame(&first, &hello);
    calls_run(&c, 10);
    heard = stranger_heard(&first);
    memcpy(nonce, heard.nonce.data, sizeof nonce);
    stranger_comes(&c, &second, 5011);
    hello = hello_of("a-1", "b-1", nonce);
    stranger_frame(&second, &hello);
    calls_run(&c, 10);
    heard = stranger_heard(&second);
    proof.mac = heard.mac;
    stranger_frame(&first, &proof);
    ask_as_stranger(&first);
    calls_run(&c, 10);
    assert_true(first.closed);
    assert_int_equal(c.served, 0);
    pmi_conn_free(second.conn);
    calls_close(&c);
}

static void test_calls_before_the_proof(void **state)
{
    calls c = {.secret = "s3cret"};
    pmi_frame hello = hello_of("a-1", "b-1", some_nonce);
    (void)state;
    calls_open(&c);
    for (int after_hello = 0; after_hello < 2; after_hello++) {
        stranger s;
        stranger_comes(&c, &s, 5011);
        if (after_hello)
            stranger_frame(&s, &hello);
        ask_as_stranger(&s);
        calls_run(&c, 10);
        assert_true(s.closed);
        assert_int_equal(refused_by(c.b1, PM_CLOSE_AUTH), 1 + after_hello);
    }
    assert_int_equal(c.served, 0);
    calls_close(&c);
}

/* With the secret, and a byte at a time, everything works; then the name of
 * somebody who is there already, whose link is the older one now. */
static void test_a_true_proof(void **state)
{
    calls c = {.secret = "s3cret"};
    stranger s, wrong;
    pmi_frame heard;
    (void)state;
    calls_open(&c);
    stranger_proves(&c, &wrong, "z-9", "s3cre");
    assert_true(wrong.closed);
    stranger_proves(&c, &s, "z-9", "s3cret");
    assert_false(s.closed);
    ask_as_stranger(&s);
    calls_run(&c, 10);
    assert_int_equal(c.served, 1);
    assert_string_equal(c.caller, "z-9");
    assert_true(pmi_frame_decode(s.heard, s.heard_len, PMI_FRAME_MAX, &heard) >
                0);
    assert_int_equal(heard.kind, PMI_FRAME_ANSWER);
    assert_ok(heard.err);
    pmi_conn_free(s.conn);
    stranger_proves(&c, &s, "a-1", "s3cret");
    assert_false(s.closed);
    assert_false(pm_server_is_up(c.a, "b-1"));
    calls_run(&c, 3000); /* the true one dials anew, and is the newer one */
    assert_true(pm_server_is_up(c.a, "b-1"));
    assert_true(s.closed);
    calls_close(&c);
}

/* What a proven dialler may not say. An answer to a question that was never
 * put to it is nothing. */
static void test_wrong_frames_of_a_peer(void **state)
{
    calls c = {.secret = "s3cret"};
    (void)state;
    calls_open(&c);
    for (uint32_t kind = 0; kind < 10; kind++) {
        bool fine = kind == PMI_FRAME_CALL || kind == PMI_FRAME_ANSWER ||
                    kind == PMI_FRAME_PING || kind == PMI_FRAME_PONG ||
                    kind == PMI_FRAME_DRAIN;
        pmi_frame frame = {.kind = kind, .notify = true};
        stranger s;
        stranger_proves(&c, &s, "z-9", "s3cret");
        frame.method = pm_text("b.svc.none");
        stranger_frame(&s, &frame);
        calls_run(&c, 10);
        assert_int_equal(s.closed, !fine);
        pmi_conn_free(s.conn);
        calls_run(&c, 10);
    }
    calls_close(&c);
}

static void test_a_byte_at_a_time(void **state)
{
    calls c = {.secret = "s3cret"};
    pmi_frame hello = hello_of("z-9", "b-1", some_nonce);
    pmi_frame_out out;
    uint8_t bytes[512];
    size_t len = 0;
    stranger s;
    (void)state;
    calls_open(&c);
    assert_ok(pmi_frame_encode(&hello, &out));
    for (size_t i = 0; i < out.count; i++) {
        memcpy(bytes + len, out.parts[i].data, out.parts[i].len);
        len += out.parts[i].len;
    }
    stranger_comes(&c, &s, 5011);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(s.heard_len, 0);
        stranger_says(&s, bytes + i, 1);
        calls_run(&c, 1);
    }
    stranger_heard(&s);
    assert_false(s.closed);
    calls_run(&c, 6000); /* says no more: 5 s are enough for a proof */
    assert_true(s.closed);
    assert_int_equal(refused_by(c.b1, PM_CLOSE_HANDSHAKE_TIMEOUT), 1);
    calls_close(&c);
}

/* 64 may stand at the door. For the next one the first of them goes: whoever
 * fills the door and says nothing does not keep the true ones out. */
static void test_flood(void **state)
{
    calls c = {.secret = "s3cret"};
    stranger all[70];
    (void)state;
    calls_open(&c);
    calls_free(&c, c.a);
    for (size_t i = 0; i < PMI_COUNT(all); i++)
        stranger_comes(&c, &all[i], 5011);
    calls_run(&c, 10);
    for (size_t i = 0; i < PMI_COUNT(all); i++)
        assert_int_equal(all[i].closed, i < PMI_COUNT(all) - 64);
    assert_int_equal(refused_by(c.b1, PM_CLOSE_CONNECTIONS_MAX), 6);
    assert_int_equal(pmi_rpc_peers(pmi_app_rpc(c.b1))->unproven, 64);
    assert_ok(calls_start(&c, "a-1", &c.a));
    calls_run(&c, 500);
    assert_true(pm_server_is_up(c.a, "b-1"));
    assert_true(refused_by(c.b1, PM_CLOSE_CONNECTIONS_MAX) > 6);
    calls_run(&c, 6000);
    assert_int_equal(pmi_rpc_peers(pmi_app_rpc(c.b1))->unproven, 0);
    for (size_t i = 0; i < PMI_COUNT(all); i++)
        assert_true(all[i].closed);
    assert_true(pm_server_is_up(c.a, "b-1"));
    calls_close(&c);
}

/* ---- Neither side of the door ------------------------------------------ */

static void door_handler(pm_request *req, void *ctx)
{
    (*(int *)ctx)++;
    pm_reply_text(req, "{\"code\":200}");
}

typedef struct asked {
    int answers;
    char body[64];
} asked;

static void door_answered(pm_client *client, pm_err err, pm_body body,
                          void *ctx)
{
    asked *a = ctx;
    (void)client;
    a->answers += err == PM_OK;
    got_copy(a->body, sizeof a->body, body.data);
}

/* A client does not get through to remotes, nor a peer's call to handlers:
 * they have the same names here, in two name spaces. */
static void test_remotes_and_handlers_are_apart(void **state)
{
    static const pm_server both[] = {{.id = "c-1",
                                      .type = "c",
                                      .port = 5031,
                                      .client_port = 3031,
                                      .frontend = true},
                                     {.id = "a-1", .type = "a", .port = 5001}};
    calls c = {0};
    asked answer = {0};
    pm_app_opts opts = pm_app_opts_default();
    pm_client_opts client = pm_client_opts_default();
    pm_client *who = NULL;
    int handled = 0;
    (void)state;
    assert_ok(calls_loop(&c));
    opts.loop = client.loop = c.loop;
    opts.servers = both;
    opts.servers_count = 2;
    opts.server_id = "c-1";
    assert_ok(pm_app_new(&c.b1, &opts));
    assert_ok(pm_app_remote(c.b1, "c.svc.now", calls_now, &c));
    assert_ok(pm_app_handler(c.b1, "c.svc.enter", door_handler, &handled));
    assert_ok(pm_app_start(c.b1));
    opts.server_id = "a-1";
    assert_ok(pm_app_new(&c.a, &opts));
    assert_ok(pm_app_start(c.a));
    client.port = 3031;
    assert_ok(pm_client_new(&who, &client));
    calls_run(&c, 300);
    assert_ok(pm_client_request(who, "c.svc.now", pm_body_text("{}"),
                                door_answered, &answer));
    calls_run(&c, 10);
    assert_int_equal(answer.answers, 1);
    assert_string_equal(answer.body, "{\"code\":500}");
    assert_int_equal(c.served, 0);
    assert_ok(calls_ask(&c, "c-1", "c.svc.enter", "{}", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_ENOMETHOD, "");
    assert_int_equal(handled, 0);
    assert_ok(calls_ask(&c, "c-1", "c.svc.now", "[1]", NULL));
    calls_run(&c, 10);
    assert_got(&c, PM_OK, "[1]");
    pm_client_free(who);
    calls_close(&c);
}

/* Off loopback a start without a secret fails, and says why. */
typedef struct lines {
    char text[1024];
} lines;

static void keep_line(void *ctx, pm_log_level level, const char *module,
                      const char *line)
{
    lines *l = ctx;
    size_t at = strlen(l->text);
    (void)level;
    (void)module;
    snprintf(l->text + at, sizeof l->text - at, "%s\n", line);
}

static void test_open_to_other_machines(void **state)
{
    static const pm_server alone = {
        .id = "a-1", .type = "a", .host = "0.0.0.0", .port = 1};
    static const char *const sentences[] = {"it needs rpc.tls or rpc.secret",
                                            "needs rpc.insecure_plain"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        pm_app_opts opts = pm_app_opts_default();
        pm_loop_opts loop_opts = pm_loop_opts_default();
        pm_loop *loop;
        pm_app *app;
        lines l = {{0}};
        assert_ok(pm_loop_new(&loop, &loop_opts));
        opts.loop = loop;
        opts.servers = &alone;
        opts.servers_count = 1;
        opts.log = keep_line;
        opts.log_ctx = &l;
        opts.rpc.secret = i ? "s3cret" : NULL;
        assert_ok(pm_app_new(&app, &opts));
        assert_err(pm_app_start(app), PM_ECONFIG);
        assert_non_null(strstr(l.text, sentences[i]));
        pm_app_free(app);
        assert_ok(pm_loop_free(loop));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_secret),
    cmocka_unit_test(test_other_secrets),
    cmocka_unit_test(test_other_protocols),
    cmocka_unit_test(test_garbage),
    cmocka_unit_test(test_bad_hellos),
    cmocka_unit_test(test_reflection),
    cmocka_unit_test(test_reflection_by_two_links),
    cmocka_unit_test(test_calls_before_the_proof),
    cmocka_unit_test(test_a_true_proof),
    cmocka_unit_test(test_wrong_frames_of_a_peer),
    cmocka_unit_test(test_a_byte_at_a_time),
    cmocka_unit_test(test_flood),
    cmocka_unit_test(test_remotes_and_handlers_are_apart),
    cmocka_unit_test(test_open_to_other_machines),
};

TEST_MAIN(tests)
