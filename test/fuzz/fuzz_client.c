/* SPDX-License-Identifier: MIT */
/* fuzz_client.c -- a server that has gone bad, seen by pm_client.
 *
 * The input plays the server: through memory, or by a WebSocket over loopback
 * whose frames are the input's too.
 *
 *     | options | fail | piece ... |
 *     piece:  | form (2 bits), number (6) | length | bytes |
 *
 *   options  see FUZZ_*
 *   fail     not 0: the so manieth allocation from then on is refused
 *   form     0 bytes as they are, 1 one package of type `number`, 2 a message
 *            with `number` as its head, 3 the client does something, or time
 *            passes
 *
 * Beside memory errors it looks for: a callback that comes twice or never, or
 * in the wrong state, a client that sends what is no package, a heap that is
 * not empty when all is gone. */
#include "fuzz.h"

#include "pomelo_proto_internal.h"

#include <stdio.h>

enum {
    FUZZ_GREETED = 1,   /* handshakes are answered as Pomelo does */
    FUZZ_KNOWING = 2,   /* and with a dictionary and schemas */
    FUZZ_RECONNECT = 4, /* the client comes back by itself */
    FUZZ_WS = 8,
    FUZZ_REFUSING = 16, /* an answer that is no welcome */
    FUZZ_RESUMING = 32  /* sessions outlive their connections */
};
enum { FORM_RAW, FORM_PACKAGE, FORM_MESSAGE, FORM_ACTION };
enum { PIECES_MAX = 64, WS_TURNS = 4, HEAD_MAX = 4096 };

typedef struct fuzz {
    fuzz_world world;
    unsigned options;
    pm_client *client;
    pmi_listener *door;
    pmi_conn *conn; /* the server's end; NULL: closed */
    bool upgraded, greeted;
    size_t asked, told;
    bool connected, suspended;
    unsigned heard; /* DATA packages, to resume by */
} fuzz;

static const char plain[] = "{\"code\":200,\"sys\":{\"heartbeat\":3}}";
static const char refusing[] = "{\"code\":501,\"sys\":{},\"user\":{\"a\":1}}";
static const char knowing[] =
    "{\"code\":200,\"sys\":{\"heartbeat\":1,\"useDict\":true,"
    "\"dictVersion\":\"d1\",\"dict\":{\"a.b.c\":1,\"onChat\":2,\"onMove\":3},"
    "\"useProto\":true,\"protos\":{\"version\":\"p1\",\"server\":{"
    "\"onChat\":{\"msg\":{\"option\":\"required\",\"type\":\"string\","
    "\"tag\":1},\"who\":{\"option\":\"repeated\",\"type\":\"Who\",\"tag\":2},"
    "\"__messages\":{\"Who\":{\"id\":{\"option\":\"optional\","
    "\"type\":\"int32\",\"tag\":1},\"__messages\":{},\"__tags\":{\"1\":\"id\"}"
    "}},\"__tags\":{\"1\":\"msg\",\"2\":\"who\"}},"
    "\"a.b.c\":{\"code\":{\"option\":\"optional\",\"type\":\"uInt32\","
    "\"tag\":1},\"f\":{\"option\":\"repeated\",\"type\":\"double\",\"tag\":2},"
    "\"__messages\":{},\"__tags\":{\"1\":\"code\",\"2\":\"f\"}}},"
    "\"client\":{\"a.b.c\":{\"text\":{\"option\":\"required\","
    "\"type\":\"string\",\"tag\":1},\"__messages\":{},"
    "\"__tags\":{\"1\":\"text\"}}}}},\"user\":{\"name\":\"n\"}}";

static const char resuming[] =
    "{\"code\":200,\"sys\":{\"heartbeat\":3},\"user\":{\"" PMI_RESUME_NAME
    "\":{\"token\":\"t\",\"resumed\":%s,\"received\":%u,\"ms\":3000}}}";

/* ---- The client's owner ---------------------------------------------------- */

static void on_connected(pm_client *client, const struct cJSON *user, void *ctx)
{
    fuzz *f = ctx;
    (void)client;
    (void)user;
    FUZZ_CHECK(!f->connected);
    f->connected = true;
}

static void on_pushed(pm_client *client, const char *route, pm_body body,
                      void *ctx)
{
    (void)client;
    (void)body;
    FUZZ_CHECK(((fuzz *)ctx)->connected);
    FUZZ_CHECK(strlen(route) <= PMI_ROUTE_MAX);
}

static void on_kicked(pm_client *client, const char *reason, void *ctx)
{
    (void)client;
    (void)ctx;
    FUZZ_CHECK(reason != NULL);
}

static void on_disconnected(pm_client *client, pm_close_reason why, int code,
                            void *ctx)
{
    fuzz *f = ctx;
    (void)code;
    FUZZ_CHECK(why != PM_CLOSE_NONE && !pm_client_is_connected(client));
    f->connected = f->suspended = false;
    f->heard = 0;
}

static void on_suspended(pm_client *client, pm_close_reason why, void *ctx)
{
    fuzz *f = ctx;
    FUZZ_CHECK(why != PM_CLOSE_NONE && !pm_client_is_connected(client));
    FUZZ_CHECK(f->options & FUZZ_RESUMING && f->connected && !f->suspended);
    f->suspended = true;
}

static void on_resumed(pm_client *client, void *ctx)
{
    fuzz *f = ctx;
    FUZZ_CHECK(pm_client_is_connected(client) && f->suspended);
    f->suspended = false;
}

static void on_response(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    (void)client;
    FUZZ_CHECK(err == PM_OK || body.kind == PM_BODY_NONE);
    ((fuzz *)ctx)->told++;
}

/* ---- The server ------------------------------------------------------------ */

static void fuzz_package(fuzz *f, uint8_t type, pm_slice a, pm_slice b)
{
    uint8_t frame[14], head[PMI_PACKAGE_HEAD];
    size_t len = PMI_PACKAGE_HEAD + a.len + b.len;
    size_t n = f->options & FUZZ_WS
                   ? pmi_ws_head_write(frame, PMI_WS_BINARY, len, NULL)
                   : 0;
    pm_slice parts[4] = {{frame, n}, {head, sizeof head}, a, b};
    pmi_proto_package_head(head, type, a.len + b.len);
    if (f->conn)
        pmi_conn_send(f->conn, parts, 4, 0);
}

static void fuzz_heard(fuzz *f, const pmi_package *package)
{
    const char *answer = f->options & FUZZ_KNOWING ? knowing : plain;
    char text[256];
    if (f->options & FUZZ_REFUSING)
        answer = refusing;
    else if (f->options & FUZZ_RESUMING) {
        snprintf(text, sizeof text, resuming, f->connected ? "true" : "false",
                 f->heard);
        answer = text;
    }
    f->heard += package->type == PMI_PACKAGE_DATA;
    if (package->type == PMI_PACKAGE_HANDSHAKE && f->options & FUZZ_GREETED)
        fuzz_package(f, PMI_PACKAGE_HANDSHAKE, pm_text(answer),
                     pm_bytes(NULL, 0));
}

/* The client's upgrade, then frames. What it says in them is masked; the
 * handshake comes first and is all that is looked for. */
static size_t fuzz_ws(fuzz *f, const uint8_t *data, size_t len)
{
    pmi_package hello = {.type = PMI_PACKAGE_HANDSHAKE};
    pmi_http_head head;
    pmi_env env;
    pmi_buf out;
    long used;
    if (f->upgraded) {
        if (!f->greeted)
            fuzz_heard(f, &hello);
        f->greeted = true;
        return len;
    }
    used = pmi_http_request_parse(data, len, &head);
    FUZZ_CHECK(used >= 0);
    if (used == 0)
        return 0;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&out, &env, SIZE_MAX);
    FUZZ_CHECK(pmi_ws_answer_upgrade(&head, &out) == PM_OK);
    f->upgraded = true;
    if (f->options & FUZZ_GREETED)
        fuzz_send(f->conn, pmi_buf_slice(&out));
    pmi_buf_fini(&out);
    return (size_t)used;
}

static size_t fuzz_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    fuzz *f = ctx;
    size_t used = 0;
    (void)conn;
    if (f->options & FUZZ_WS)
        return fuzz_ws(f, data, len);
    while (used < len) {
        pmi_package package;
        long n = pmi_proto_package_decode(data + used, len - used,
                                          PMI_PACKAGE_BODY_MAX, &package);
        FUZZ_CHECK(n >= 0);
        if (n == 0)
            break;
        fuzz_heard(f, &package);
        used += (size_t)n;
    }
    return used;
}

static void fuzz_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    fuzz *f = ctx;
    (void)why;
    pmi_conn_free(conn);
    if (f->conn == conn)
        f->conn = NULL;
}

static const pmi_conn_events fuzz_events = {.data = fuzz_data,
                                            .closed = fuzz_closed};

static void fuzz_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    fuzz *f = ctx;
    (void)listener;
    pmi_conn_free(f->conn);
    f->conn = conn;
    f->upgraded = f->greeted = false;
    pmi_conn_start(conn, &fuzz_events, f);
}

static pm_err fuzz_start(fuzz *f)
{
    pmi_listen_opts listen = {.host = "127.0.0.1",
                              .framing = PMI_FRAMING_STREAM,
                              .accepted = fuzz_accepted,
                              .ctx = f};
    pm_client_opts opts = pm_client_opts_default();
    pm_err err = pmi_listen(f->world.loop, &listen, &f->door);
    if (err)
        return err;
    opts.loop = f->world.loop;
    opts.port = pmi_listener_port(f->door);
    opts.transport = f->options & FUZZ_WS ? PM_TRANSPORT_WS : PM_TRANSPORT_TCP;
    opts.resume = f->options & FUZZ_RESUMING;
    opts.reconnect = opts.resume || f->options & FUZZ_RECONNECT;
    opts.events.connected = on_connected;
    opts.events.pushed = on_pushed;
    opts.events.kicked = on_kicked;
    opts.events.disconnected = on_disconnected;
    opts.events.suspended = on_suspended;
    opts.events.resumed = on_resumed;
    opts.ctx = f;
    return pm_client_new(&f->client, &opts);
}

/* ---- One piece ------------------------------------------------------------- */

static void fuzz_turns(fuzz *f, uint64_t ms)
{
    fuzz_world_pass(&f->world, ms, f->options & FUZZ_WS ? WS_TURNS : 2);
}

/* | response, push, or what there is not | with a number, a route, a code | */
static void fuzz_message(fuzz *f, unsigned number, pm_slice body)
{
    static const char *const routes[] = {"onChat", "onMove", "a.b.c", ""};
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    uint8_t type = (uint8_t)(number & 3);
    uint16_t code = (uint16_t)(number >> 4 & 3);
    size_t n = pmi_proto_message_head(head, type, (uint32_t)(number >> 2 & 3),
                                      pm_text(routes[number >> 2 & 3]), code);
    fuzz_package(f, PMI_PACKAGE_DATA, pm_bytes(head, n), body);
}

static void fuzz_act(fuzz *f, unsigned number, pm_slice bytes)
{
    pm_body body = pm_body_bytes(bytes.data, bytes.len);
    body.kind = number & 4 ? PM_BODY_BYTES : PM_BODY_JSON;
    if (number < 8) {
        const char *route = number & 1 ? "a.b.c" : "d.e.f";
        pm_err err;
        if (number & 2) {
            pm_client_notify(f->client, route, body);
            return;
        }
        err = pm_client_request(f->client, route, body, on_response, f);
        f->asked += err == PM_OK;
    } else if (number == 8) {
        pmi_conn_free(f->conn);
        f->conn = NULL;
    } else if (number == 9) {
        pm_client_disconnect(f->client);
    } else if (number >= 16) {
        fuzz_turns(f, UINT64_C(1) << (number / 3));
    }
}

static void fuzz_piece(fuzz *f, pmi_cursor *in)
{
    uint8_t what = pmi_cursor_byte(in), len = pmi_cursor_byte(in);
    pm_slice bytes = fuzz_take(in, len);
    if ((what & 3) == FORM_RAW)
        fuzz_send(f->conn, bytes);
    else if ((what & 3) == FORM_PACKAGE)
        fuzz_package(f, what >> 2, bytes, pm_bytes(NULL, 0));
    else if ((what & 3) == FORM_MESSAGE)
        fuzz_message(f, what >> 2, bytes);
    else
        fuzz_act(f, what >> 2, bytes);
    fuzz_turns(f, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_cursor in = pmi_cursor_of(data, size);
    fuzz f = {.options = pmi_cursor_byte(&in)};
    uint8_t fail = pmi_cursor_byte(&in);
    pm_err err;
    if (in.bad)
        return 0;
    fuzz_world_open(&f.world, !(f.options & FUZZ_WS), f.options);
    fuzz_world_fail(&f.world, fail);
    err = fuzz_start(&f);
    FUZZ_CHECK(err == PM_OK || fail);
    if (err == PM_OK) {
        for (int i = 0; i < 4; i++)
            fuzz_turns(&f, 0);
        for (int i = 0; i < PIECES_MAX && pmi_cursor_left(&in); i++)
            fuzz_piece(&f, &in);
        fuzz_turns(&f, 60000);
    }
    f.world.fail_at = 0;
    pm_client_free(f.client);
    FUZZ_CHECK(f.asked == f.told);
    pmi_conn_free(f.conn);
    pmi_listener_close(f.door);
    fuzz_world_close(&f.world);
    return 0;
}
