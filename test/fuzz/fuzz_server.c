/* SPDX-License-Identifier: MIT */
/* fuzz_server.c -- a stranger's whole conversation with a frontend.
 *
 * Each input makes a loop and a server of its own and connects to it: through
 * memory, or by a WebSocket (memory has no frames, so that one goes over
 * loopback). Time is ours: it passes only between two pieces.
 *
 *     | options | piece | wait | fail | more | bytes of the client ...
 *
 *   options  what the server is configured with, see FUZZ_*
 *   piece    the bytes go in pieces (frames) of so many; 0: one package each
 *   wait     milliseconds between two pieces, divided by 8
 *   fail     not 0: the so manieth allocation from then on is refused
 *   more     likewise FUZZ_*; what happens over a rate is `piece` modulo 3; a
 *            client that resumes cuts its connection at a piece that begins
 *            with ff, and comes back with its token
 *
 * Beside memory errors it looks for: a server that sends what is no package,
 * a heap that is not empty when loop and server are gone. */
#include "fuzz.h"

#include "pomelo_proto_internal.h"

#include <cjson/cJSON.h>
#include <stdio.h>

enum {
    FUZZ_DICT = 1,
    FUZZ_PROTOBUF = 2,
    FUZZ_CRYPTO = 4,
    FUZZ_BUFFER = 8,
    FUZZ_SERIAL = 16, /* and a handshake callback that answers later */
    FUZZ_WS = 32,
    FUZZ_GREETED = 64, /* handshake and acknowledgement go before the bytes */
    FUZZ_HEARTBEAT = 128
};
enum { /* of `more` */
       FUZZ_RATES = 1,
       FUZZ_RESUME = 2, /* the session outlives its connection */
       FUZZ_SLOW = 4    /* the client reads after every sixteenth piece alone */
};
enum {
    FUZZ_CUT = 0xff,
    FUZZ_LIVES = 4,
    FUZZ_TOKEN = 48,
    FUZZ_BIG = 9000,
    FUZZ_QUEUE = 65536
};
enum { FUZZ_HEAD = 5, FUZZ_TURNS = 4, FUZZ_PIECES_MAX = 256 };

typedef struct fuzz {
    fuzz_world world;
    unsigned options, more;
    pm_app *app;
    pmi_conn *conn; /* NULL: closed */
    int lives;      /* connections so far */
    char token[FUZZ_TOKEN + 1];
    uint32_t heard; /* DATA packages, of all connections */
    pm_handshake *greeting;
} fuzz;

/* ---- The application ------------------------------------------------------ */

static void fuzz_echo(pm_request *req, void *ctx)
{
    cJSON *body;
    pm_err err = pm_request_json(req, &body);
    (void)ctx;
    if (err)
        pm_request_fail(req, err, NULL, NULL);
    else
        pm_reply_json(req, body);
}

static void fuzz_bytes(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static void fuzz_cancelled(pm_request *req, pm_err why, void *ctx)
{
    (void)why;
    (void)ctx;
    pm_request_drop(req);
}

static void fuzz_never(pm_request *req, void *ctx)
{
    pm_request_keep(req);
    pm_request_on_cancel(req, fuzz_cancelled, ctx);
}

/* Large ones, of every policy in turn. */
static void fuzz_push_slowly(fuzz *f, pm_session *session, pm_body body)
{
    static const char big[FUZZ_BIG];
    pm_push_opts opts = pm_push_opts_default();
    opts.session = session;
    opts.route = "onChat";
    opts.key = body.data.len % 2 ? "odd" : NULL;
    opts.body = pm_body_bytes(big, sizeof big);
    for (int i = PM_PUSH_DROP_OLDEST; i < PM_PUSH_CLOSE; i++) {
        opts.policy = (pm_push_policy)i;
        pm_push(f->app, &opts, NULL, NULL);
    }
    FUZZ_CHECK(pm_session_queued(session) <= FUZZ_QUEUE);
    if (body.data.len <= 20)
        return;
    opts.policy = body.data.len > 40 ? PM_PUSH_CLOSE : PM_PUSH_KEEP;
    pm_push(f->app, &opts, NULL, NULL);
}

static void fuzz_push(pm_request *req, void *ctx)
{
    fuzz *f = ctx;
    pm_session *session = pm_request_session(req);
    if (f->more & FUZZ_SLOW)
        fuzz_push_slowly(f, session, pm_request_body(req));
    pm_session_push(session, "onChat", pm_request_body(req));
    pm_session_push(session, "onMove", pm_request_body(req));
    pm_reply_text(req, "{\"code\":200}");
}

static void fuzz_kick(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_session_kick(pm_request_session(req), "kick", NULL, NULL);
    pm_request_fail(req, PM_EREMOTE, "kicked", NULL);
}

static void fuzz_bind(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    cJSON *body;
    (void)ctx;
    if (pm_request_json(req, &body) == PM_OK)
        pm_session_set(session, "body", body);
    pm_session_bind(session, "somebody", NULL, NULL);
    pm_session_push(session, "onMove", pm_body_text("{\"id\":1}"));
    pm_request_drop(req);
}

static void fuzz_greet(pm_handshake *hs, const cJSON *msg, void *ctx)
{
    fuzz *f = ctx;
    (void)msg;
    if (f->greeting)
        pm_handshake_done(f->greeting, PM_OK, NULL);
    f->greeting = hs;
}

static pm_err fuzz_register(fuzz *f)
{
    static const struct {
        const char *route;
        pm_handler_cb cb;
    } handlers[] = {{"connector.entryHandler.echo", fuzz_echo},
                    {"connector.entryHandler.ok", fuzz_bytes},
                    {"connector.entryHandler.never", fuzz_never},
                    {"connector.entryHandler.push", fuzz_push},
                    {"connector.entryHandler.kick", fuzz_kick},
                    {"connector.entryHandler.proto", fuzz_bind}};
    pm_err err = pm_app_declare(f->app, "area.playerHandler.move");
    for (size_t i = 0; i < PMI_COUNT(handlers) && err == PM_OK; i++)
        err = pm_app_handler(f->app, handlers[i].route, handlers[i].cb, f);
    if (err == PM_OK && f->options & FUZZ_SERIAL)
        err = pm_filter_serial(f->app, 0);
    return err;
}

/* Everybody may talk who has an even session number. */
static bool fuzz_refuse(pm_session *session, pm_slice route, pm_err why,
                        pm_body *answer, void *ctx)
{
    (void)ctx;
    FUZZ_CHECK(why == PM_ELIMIT || why == PM_EBUSY);
    if (route.len == 0)
        *answer = pm_body_text("{\"code\":503,\"msg\":\"slow down\"}");
    return pm_session_id(session) % 2;
}

static void fuzz_limits(pm_app_opts *opts, uint8_t policy)
{
    opts->limits.messages_per_s = 5;
    opts->limits.bytes_per_s = 100;
    opts->limits.package_in_bytes = 300;
    opts->limits.idle_ms = 2000;
    opts->limits.lag_ms = 50;
    opts->limits.over_rate = (pm_rate_policy)(policy % 3);
    opts->connector.refuse = fuzz_refuse;
}

static pm_err fuzz_start(fuzz *f, const uint8_t head[FUZZ_HEAD])
{
    static const char *const dictionary[] = {"onChat", "onMove"};
    pm_server server = {
        .id = "connector-1", .type = "connector", .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    fuzz_world_open(&f->world, !(f->options & FUZZ_WS), head[1]);
    opts.loop = f->world.loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    opts.connector.heartbeat_s = f->options & FUZZ_HEARTBEAT ? 1 : 0;
    opts.connector.use_dict = f->options & FUZZ_DICT;
    opts.connector.dictionary = dictionary;
    opts.connector.dictionary_count = PMI_COUNT(dictionary);
    opts.connector.use_protobuf = f->options & FUZZ_PROTOBUF;
    opts.connector.client_protos = "{\"connector.entryHandler.proto\":"
                                   "{\"required string name\":1}}";
    opts.connector.server_protos =
        "{\"onMove\":{\"required uInt32 id\":1,\"repeated sInt32 path\":2}}";
    opts.connector.use_crypto = f->options & FUZZ_CRYPTO;
    opts.connector.resume_ms = 5000; /* for those who ask for it */
    opts.connector.resume_bytes = FUZZ_QUEUE / 4;
    opts.connector.resume_sessions = 1;
    if (f->options & FUZZ_BUFFER)
        opts.connector.scheduler = PM_SCHEDULER_BUFFER;
    if (f->options & FUZZ_SERIAL)
        opts.connector.handshake = fuzz_greet;
    opts.connector.ctx = f;
    opts.limits.client_queue_bytes = FUZZ_QUEUE;
    if (f->more & FUZZ_RATES)
        fuzz_limits(&opts, head[1]);
    err = pm_app_new(&f->app, &opts);
    if (err == PM_OK)
        err = fuzz_register(f);
    return err ? err : pm_app_start(f->app);
}

/* ---- The client ----------------------------------------------------------- */

static void fuzz_heard(fuzz *f, const pmi_package *package)
{
    static const char word[] = "\"token\":\"";
    const char *at;
    f->heard += package->type == PMI_PACKAGE_DATA;
    if (package->type != PMI_PACKAGE_HANDSHAKE)
        return;
    at = memmem(package->body.data, package->body.len, word, sizeof word - 1);
    if (at)
        memcpy(f->token, at + sizeof word - 1, FUZZ_TOKEN);
}

static size_t fuzz_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    pmi_package package;
    size_t used = 0;
    (void)conn;
    while (used < len) {
        long n = pmi_proto_package_decode(data + used, len - used,
                                          PMI_PACKAGE_BODY_MAX, &package);
        FUZZ_CHECK(n >= 0);
        if (n == 0)
            break;
        fuzz_heard(ctx, &package);
        used += (size_t)n;
    }
    return used;
}

/* The server's frames may hold several packages, all of them whole. */
static void fuzz_message(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                         void *ctx)
{
    FUZZ_CHECK(!text && fuzz_data(conn, data, len, ctx) == len);
}

static void fuzz_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    fuzz *f = ctx;
    (void)reason;
    pmi_conn_free(conn);
    f->conn = NULL;
}

static const pmi_conn_events fuzz_events = {
    .data = fuzz_data, .message = fuzz_message, .closed = fuzz_closed};

/* On loopback it takes several turns until what was sent has come. */
static void fuzz_turns(fuzz *f, unsigned wait_ms)
{
    fuzz_world_pass(&f->world, wait_ms, f->options & FUZZ_WS ? FUZZ_TURNS : 1);
}

static void fuzz_hello(fuzz *f)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    char ask[128] = "", text[256];
    pm_slice parts[2] = {{head, sizeof head}, {text, 0}};
    if (f->token[0])
        snprintf(ask, sizeof ask, "\"token\":\"%s\",\"received\":%u", f->token,
                 f->heard);
    snprintf(text, sizeof text,
             "{\"sys\":{\"type\":\"c\",\"version\":\"1\",\"rsa\":{}}"
             "%s%s%s}",
             f->more & FUZZ_RESUME ? ",\"user\":{\"__resume__\":{" : "", ask,
             f->more & FUZZ_RESUME ? "}}" : "");
    parts[1].len = strlen(text);
    pmi_proto_package_head(head, PMI_PACKAGE_HANDSHAKE, parts[1].len);
    if (f->conn)
        pmi_conn_send(f->conn, parts, 2, 0);
}

static void fuzz_connect(fuzz *f)
{
    pmi_connect_opts opts = {0};
    bool ws = f->options & FUZZ_WS;
    opts.host = "127.0.0.1";
    opts.port = pm_app_client_port(f->app);
    opts.memory = !ws;
    opts.framing = ws ? PMI_FRAMING_WS : PMI_FRAMING_STREAM;
    f->lives++;
    if (pmi_conn_connect(f->world.loop, &opts, &fuzz_events, f, &f->conn)) {
        f->conn = NULL;
        return;
    }
    for (int i = 0; i < FUZZ_TURNS; i++)
        fuzz_turns(f, 0);
    if (!(f->options & FUZZ_GREETED))
        return;
    fuzz_hello(f);
    fuzz_turns(f, 0);
    if (f->greeting)
        pm_handshake_done(f->greeting, PM_OK, NULL);
    f->greeting = NULL;
    fuzz_turns(f, 0);
    fuzz_send(f->conn, pm_bytes("\2\0\0\0", 4));
    fuzz_turns(f, 0);
}

static void fuzz_read_now(fuzz *f, bool now)
{
    if (!f->conn || !(f->more & FUZZ_SLOW))
        return;
    if (now)
        pmi_conn_resume(f->conn);
    else
        pmi_conn_pause(f->conn);
}

/* What a client that resumes does between two pieces: goes, comes back. */
static bool fuzz_goes_on(fuzz *f, bool cut)
{
    if (!(f->more & FUZZ_RESUME))
        return f->conn != NULL;
    if (cut) {
        pmi_conn_free(f->conn);
        f->conn = NULL;
        fuzz_turns(f, 0);
    }
    if (!f->conn && f->lives < FUZZ_LIVES)
        fuzz_connect(f);
    return f->conn != NULL;
}

static size_t fuzz_piece(size_t piece, const uint8_t *data, size_t size)
{
    if (!piece && size > PMI_PACKAGE_HEAD)
        piece = PMI_PACKAGE_HEAD + ((size_t)data[1] << 16 |
                                    (size_t)data[2] << 8 | (size_t)data[3]);
    return pmi_min(piece ? piece : size, size);
}

static void fuzz_play(fuzz *f, const uint8_t *data, size_t size)
{
    size_t at = FUZZ_HEAD;
    fuzz_world_fail(&f->world, data[3]);
    fuzz_connect(f);
    for (int i = 0; at < size && i < FUZZ_PIECES_MAX; i++) {
        if (!fuzz_goes_on(f, data[at] == FUZZ_CUT))
            break;
        fuzz_read_now(f, i % 16 == 15);
        size_t len = fuzz_piece(data[1], data + at, size - at);
        fuzz_send(f->conn, pm_bytes(data + at, len));
        fuzz_turns(f, 8u * data[2]);
        at += len;
    }
    fuzz_read_now(f, true);
    fuzz_turns(f, 3000);
    if (f->greeting)
        pm_handshake_done(f->greeting, PM_EREMOTE, NULL);
    fuzz_turns(f, 60000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {.options = size ? data[0] : 0};
    if (size < FUZZ_HEAD)
        return 0;
    f.more = data[4];
    FUZZ_CHECK(fuzz_start(&f, data) == PM_OK);
    fuzz_play(&f, data, size);
    f.world.fail_at = 0;
    if (f.conn)
        pmi_conn_free(f.conn);
    pm_app_free(f.app);
    fuzz_world_close(&f.world);
    return 0;
}
