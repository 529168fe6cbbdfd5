/* SPDX-License-Identifier: MIT */
/* test/client_bench.h -- a small server that says what a test wants, and the
 * diary of a pm_client that talks to it. Include after test.h.
 *
 * In memory on virtual time, unless a test makes another loop. Everything that
 * happens is written down, in order, and looked at afterwards. */
#ifndef TEST_CLIENT_BENCH_H
#define TEST_CLIENT_BENCH_H

#include "core/conn.h"
#include "pomelo_proto_internal.h"

/* ---- The server and the client's diary --------------------------------- */
typedef enum where {
    NOWHERE,
    IN_CONNECTED,
    IN_PUSHED,
    IN_KICKED,
    IN_DISCONNECTED,
    IN_RESPONSE
} where;

typedef struct fake {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pmi_listener *listener;
    pmi_conn *conn; /* the server's end; NULL: none */
    int accepted;
    bool refuse;  /* connections are closed at once */
    bool answers; /* responses echo the request's body */
    bool beats;   /* on ACK and on each beat */
    bool deaf;    /* handshakes are not answered */
    pmi_handshake_sys sys;
    const char *answer; /* a fixed one instead of one made of `sys` */
    cJSON *user;        /* of the answer */
    char hello[4096];   /* the last handshake that came */
    char heard[4096];   /* what came after it */
    pm_client *client;
    char diary[8192];     /* what the client was told */
    where end_in;         /* where the client is freed ... */
    bool only_disconnect; /* ... or just disconnected */
    size_t last_len;      /* of the last answer or push */
    int ends;             /* `disconnected` */
    pm_close_reason reason;
    bool again; /* a response asks for more */
} fake;

#define NOTE(buffer, ...) note((buffer), sizeof(buffer), __VA_ARGS__)
static inline void note(char *buffer, size_t size, const char *fmt, ...)
{
    size_t used = strlen(buffer);
    va_list args;
    va_start(args, fmt);
    vsnprintf(buffer + used, size - used, fmt, args);
    va_end(args);
}

static inline void fake_send(fake *f, uint8_t type, const void *body,
                             size_t len)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    pm_slice parts[2] = {{head, sizeof head}, {body, len}};
    pmi_proto_package_head(head, type, len);
    if (f->conn)
        pmi_conn_send(f->conn, parts, 2, 0);
}

static inline void fake_raw(fake *f, const void *bytes, size_t len)
{
    pm_slice part = {bytes, len};
    if (f->conn)
        pmi_conn_send(f->conn, &part, 1, 0);
}

static inline void fake_message(fake *f, uint8_t type, uint32_t id,
                                const char *route, uint16_t code, pm_slice body)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX], package[PMI_PACKAGE_HEAD];
    size_t n = pmi_proto_message_head(head, type, id, pm_text(route), code);
    pm_slice parts[3] = {{package, sizeof package}, {head, n}, body};
    pmi_proto_package_head(package, PMI_PACKAGE_DATA, n + body.len);
    if (f->conn)
        pmi_conn_send(f->conn, parts, 3, 0);
}

static inline void fake_push(fake *f, const char *route, const char *body)
{
    fake_message(f, PMI_MESSAGE_PUSH, 0, route, 0, pm_text(body));
}

static inline void fake_respond(fake *f, uint32_t id, const char *body)
{
    fake_message(f, PMI_MESSAGE_RESPONSE, id, "", 0, pm_text(body));
}

static inline void fake_greet(fake *f, pm_slice body)
{
    pmi_env env;
    cJSON *msg = NULL;
    pmi_buf out;
    pmi_env_init(&env, NULL);
    snprintf(f->hello, sizeof f->hello, "%.*s", (int)body.len,
             (const char *)body.data);
    if (f->deaf)
        return;
    if (f->answer) {
        fake_send(f, PMI_PACKAGE_HANDSHAKE, f->answer, strlen(f->answer));
        return;
    }
    pmi_buf_init(&out, &env, SIZE_MAX);
    if (pmi_handshake_parse(&env, body, 32, &msg) == PM_OK &&
        pmi_handshake_answer(&f->sys, msg, f->user, 80, &out) == PM_OK)
        fake_send(f, PMI_PACKAGE_HANDSHAKE, out.data, out.len);
    cJSON_Delete(msg);
    pmi_buf_fini(&out);
}

static inline void fake_hear(fake *f, pm_slice in)
{
    pmi_message m;
    if (pmi_proto_message_decode(in, &m) != PM_OK) {
        NOTE(f->heard, "broken ");
        return;
    }
    char *hex = test_hex(m.body.data, pmi_min(m.body.len, 200));
    NOTE(f->heard, "%s", m.type == PMI_MESSAGE_REQUEST ? "req" : "notify");
    if (m.id)
        NOTE(f->heard, " %u", (unsigned)m.id);
    if (m.compressed)
        NOTE(f->heard, " #%u", (unsigned)m.code);
    else
        NOTE(f->heard, " %.*s", (int)m.route.len, (const char *)m.route.data);
    if (m.body.len && *(const char *)m.body.data == '{')
        NOTE(f->heard, " %.*s;", (int)pmi_min(m.body.len, 200),
             (const char *)m.body.data);
    else
        NOTE(f->heard, " %s;", hex);
    free(hex);
    if (f->answers && m.id)
        fake_message(f, PMI_MESSAGE_RESPONSE, m.id, "", 0, m.body);
}

static inline void fake_package(fake *f, const pmi_package *p)
{
    bool beat = p->type == PMI_PACKAGE_HEARTBEAT;
    if (p->type == PMI_PACKAGE_HANDSHAKE)
        fake_greet(f, p->body);
    if (p->type == PMI_PACKAGE_ACK)
        NOTE(f->heard, "ack;");
    if (beat)
        NOTE(f->heard, "beat;");
    if (f->beats && (beat || p->type == PMI_PACKAGE_ACK))
        fake_send(f, PMI_PACKAGE_HEARTBEAT, NULL, 0);
    if (p->type == PMI_PACKAGE_DATA)
        fake_hear(f, p->body);
}

static inline size_t fake_data(pmi_conn *conn, uint8_t *data, size_t len,
                               void *ctx)
{
    size_t used = 0;
    pmi_package package;
    (void)conn;
    while (used < len) {
        long n = pmi_proto_package_decode(data + used, len - used,
                                          PMI_PACKAGE_BODY_MAX, &package);
        if (n <= 0)
            break;
        fake_package(ctx, &package);
        used += (size_t)n;
    }
    return used;
}

/* One package a frame, as Pomelo demands it of clients. */
static inline void fake_frame(pmi_conn *conn, uint8_t *data, size_t len,
                              bool text, void *ctx)
{
    fake *f = ctx;
    pmi_package package;
    (void)conn;
    if (text || pmi_proto_package_frame(data, len, PMI_PACKAGE_BODY_MAX,
                                        &package) != PM_OK)
        NOTE(f->heard, "broken ");
    else
        fake_package(f, &package);
}

static inline void fake_closed(pmi_conn *conn, pm_close_reason reason,
                               void *ctx)
{
    fake *f = ctx;
    (void)reason;
    NOTE(f->heard, "closed;");
    if (f->conn == conn)
        f->conn = NULL;
    pmi_conn_free(conn);
}

static const pmi_conn_events fake_events = {
    .data = fake_data, .message = fake_frame, .closed = fake_closed};

static inline void fake_accepted(pmi_listener *listener, pmi_conn *conn,
                                 void *ctx)
{
    fake *f = ctx;
    (void)listener;
    f->accepted++;
    if (f->refuse) {
        pmi_conn_free(conn);
        return;
    }
    f->conn = conn;
    pmi_conn_start(conn, &fake_events, f);
}

static inline void fake_cut(fake *f)
{
    pmi_conn_free(f->conn);
    f->conn = NULL;
}

/* ---- The client's callbacks -------------------------------------------- */
static inline void maybe_end(fake *f, where here)
{
    if (f->end_in != here)
        return;
    if (f->only_disconnect) {
        pm_client_disconnect(f->client);
        return;
    }
    pm_client *client = f->client;
    f->client = NULL;
    f->end_in = NOWHERE;
    NOTE(f->diary, "free(");
    pm_client_free(client);
    NOTE(f->diary, ")");
}

static inline void on_connected(pm_client *client, const cJSON *user, void *ctx)
{
    fake *f = ctx;
    const cJSON *name = pmi_json_get(user, "name");
    assert_true(pm_client_is_connected(client));
    NOTE(f->diary, "connected %s;",
         cJSON_IsString(name) ? name->valuestring : "-");
    maybe_end(f, IN_CONNECTED);
}

static inline void on_pushed(pm_client *client, const char *route, pm_body body,
                             void *ctx)
{
    fake *f = ctx;
    (void)client;
    assert_int_equal(body.kind, PM_BODY_JSON);
    f->last_len = body.data.len;
    NOTE(f->diary, "push %s %.*s;", route, (int)pmi_min(body.data.len, 100),
         (const char *)body.data.data);
    maybe_end(f, IN_PUSHED);
}

static inline void on_kicked(pm_client *client, const char *reason, void *ctx)
{
    fake *f = ctx;
    assert_false(pm_client_is_connected(client));
    NOTE(f->diary, "kicked %s;", reason);
    maybe_end(f, IN_KICKED);
}

static inline void on_disconnected(pm_client *client, pm_close_reason reason,
                                   int code, void *ctx)
{
    fake *f = ctx;
    assert_false(pm_client_is_connected(client));
    assert_err(pm_client_notify(client, "a.b.c", pm_body_none()), PM_ESTATE);
    f->ends++;
    f->reason = reason;
    NOTE(f->diary, "disconnected %d %d;", (int)reason, code);
    maybe_end(f, IN_DISCONNECTED);
}

static inline void on_response(pm_client *client, pm_err err, pm_body body,
                               void *ctx)
{
    fake *f = ctx;
    assert_int_equal(body.kind, err == PM_OK ? PM_BODY_JSON : PM_BODY_NONE);
    f->last_len = body.data.len;
    NOTE(f->diary, "%s %.*s;", pm_err_name(err),
         (int)pmi_min(body.data.len, 100), (const char *)body.data.data);
    if (f->again)
        NOTE(f->diary, "again %s;",
             pm_err_name(pm_client_request(client, "x.y.z", pm_body_none(),
                                           on_response, f)));
    maybe_end(f, IN_RESPONSE);
}

/* ---- Setting up -------------------------------------------------------- */
static inline pm_err fake_listen(fake *f)
{
    pmi_listen_opts opts = {0};
    opts.host = "127.0.0.1";
    opts.framing = PMI_FRAMING_SNIFF;
    opts.limits.in_max = 20 * 1024 * 1024;
    opts.limits.out_max = 40 * 1024 * 1024;
    opts.accepted = fake_accepted;
    opts.ctx = f;
    return pmi_listen(f->loop, &opts, &f->listener);
}

static inline pm_client_opts fake_opts(fake *f)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = f->loop;
    opts.port = pmi_listener_port(f->listener);
    opts.events.connected = on_connected;
    opts.events.pushed = on_pushed;
    opts.events.kicked = on_kicked;
    opts.events.disconnected = on_disconnected;
    opts.ctx = f;
    return opts;
}

static inline void fake_open(fake *f)
{
    pm_loop_opts opts = test_world_opts(&f->world, &f->heap);
    f->world.now_us = 1000000;
    f->world.seed++;
    assert_ok(pm_loop_new(&f->loop, &opts));
    assert_ok(fake_listen(f));
}

static inline void run_ms(fake *f, uint64_t ms)
{
    assert_true(test_world_run(&f->world, f->loop, ms * 1000));
}

/* A loop in memory with a server and a client that is through. */
static inline void fake_start(fake *f, bool reconnect)
{
    fake_open(f);
    pm_client_opts opts = fake_opts(f);
    opts.reconnect = reconnect;
    assert_ok(pm_client_new(&f->client, &opts));
    assert_string_equal(f->diary, "");
    run_ms(f, 1);
    assert_string_equal(f->diary, "connected -;");
    assert_string_equal(f->heard, "ack;");
    f->diary[0] = f->heard[0] = 0;
}

static inline void fake_end(fake *f)
{
    pm_client_free(f->client);
    pmi_conn_free(f->conn);
    pmi_listener_close(f->listener);
    assert_ok(pm_loop_free(f->loop));
    assert_heap_empty(&f->heap);
}

static inline void assert_diary(fake *f, const char *want)
{
    assert_string_equal(f->diary, want);
    f->diary[0] = 0;
}

static inline void assert_heard(fake *f, const char *want)
{
    assert_string_equal(f->heard, want);
    f->heard[0] = 0;
}

static inline void ask(fake *f, const char *route, const char *body)
{
    assert_ok(pm_client_request(f->client, route, pm_body_text(body),
                                on_response, f));
}

/* ---- Something to know ------------------------------------------------ */
static const char *const dict_routes[] = {"chat.chatHandler.send", "onChat"};
static const char server_protos[] =
    "{\"onChat\":{\"required string msg\":1,\"repeated Who who\":2,"
    "\"message Who\":{\"optional int32 id\":1}},"
    "\"chat.chatHandler.send\":{\"optional uInt32 code\":1},"
    "\"message Unused\":{\"optional double d\":1}}";
static const char client_protos[] =
    "{\"chat.chatHandler.send\":{\"required string text\":1,"
    "\"repeated sInt32 to\":2}}";

typedef struct knowledge {
    pmi_env env;
    pmi_dict *dict;
    pmi_dialect *server, *client;
    char version[25];
} knowledge;

static inline void know(knowledge *k, fake *f)
{
    pmi_env_init(&k->env, NULL);
    assert_ok(pmi_dict_new(&k->env, 1, 2, dict_routes, 2, NULL, 0, &k->dict));
    assert_ok(
        pmi_dialect_new(&k->env, 1, 2, pm_text(server_protos), &k->server));
    assert_ok(
        pmi_dialect_new(&k->env, 1, 2, pm_text(client_protos), &k->client));
    assert_ok(pmi_dialect_version(k->client, k->server, k->version));
    f->sys.dict = k->dict;
    f->sys.use_protobuf = true;
    f->sys.server = k->server;
    f->sys.client = k->client;
    f->sys.proto_version = k->version;
}

static inline void forget(knowledge *k)
{
    pmi_dict_free(k->dict);
    pmi_dialect_free(k->server);
    pmi_dialect_free(k->client);
}

#endif
