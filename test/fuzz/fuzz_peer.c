/* SPDX-License-Identifier: MIT */
/* fuzz_peer.c -- a server of the cluster that has gone bad, or one who only
 * says that he is one.
 *
 * The app under test is a frontend with a client of its own. The input plays
 * the other server of its table, on both links of the pair: IN is dialled by
 * the input, OUT by the app. Both carry calls and answers, both ways.
 *
 *     | options | fail | piece ... |
 *     piece:  | form (2 bits), OUT (1), number (5) | length | bytes |
 *
 *   options  see FUZZ_*: which links are proven before the input speaks
 *   fail     not 0: the so manieth allocation from then on is refused
 *   form     0 bytes as they are, 1 one envelope, 2 a call (IN) or an answer
 *            (OUT; with an odd number the other way round) built from `bytes`,
 *            3 the app does something, or time passes
 *
 * Beside memory errors it looks for: an app that sends what is no frame, a
 * proof that is none, a callback that comes twice or never, a heap that is not
 * empty when all is gone. */
#include "fuzz.h"

#include "pomelo_frame_internal.h"
#include "pomelo_proto_internal.h"
#include "pomelo_rpc_internal.h"

#include <cjson/cJSON.h>

enum { FUZZ_PROVE_IN = 1, FUZZ_PROVE_OUT = 2, FUZZ_SECRET = 4, FUZZ_DICT = 8 };
enum { FORM_RAW, FORM_ENVELOPE, FORM_BUILT, FORM_ACTION };
enum { LINK_IN, LINK_OUT, LINK_COUNT };
enum { PIECES_MAX = 64, KEPT_MAX = 8, FRAME_ROOM = 600 };

typedef struct fuzz fuzz;
typedef struct fuzz_link {
    fuzz *of;
    pmi_conn *conn; /* NULL: closed */
    uint64_t theirs;
    uint64_t last_id; /* of the app's call that is answered next */
    uint8_t nonce[PMI_NONCE_BYTES], mac[PMI_MAC_BYTES];
    bool out, greeted, proven;
} fuzz_link;

struct fuzz {
    fuzz_world world;
    unsigned options;
    pm_app *app;
    pmi_listener *door;
    fuzz_link links[LINK_COUNT];
    uint64_t our_id;
    pmi_conn *client;
    pm_call *kept[KEPT_MAX];
    size_t kept_count;
    size_t asked, told; /* callbacks that are due, that have come */
};

static const pm_server fuzz_servers[] = {{.id = "connector-1",
                                          .type = "connector",
                                          .port = 4050,
                                          .client_port = 3050,
                                          .frontend = true},
                                         {.id = "area-1",
                                          .type = "area",
                                          .port = 4060,
                                          .client_port = 3060,
                                          .frontend = true}};

/* ---- The application ------------------------------------------------------ */

static void fuzz_done(pm_err err, const char *detail, void *ctx)
{
    (void)err;
    (void)detail;
    ((fuzz *)ctx)->told++;
}

static void fuzz_answered(const pm_rpc_result *result, void *ctx)
{
    FUZZ_CHECK(result->detail != NULL);
    ((fuzz *)ctx)->told++;
}

static void fuzz_pushed(pm_err err, const pm_receiver *missed, size_t count,
                        void *ctx)
{
    (void)err;
    for (size_t i = 0; i < count; i++)
        FUZZ_CHECK(missed[i].uid && missed[i].frontend_id);
    ((fuzz *)ctx)->told++;
}

static void fuzz_found(pm_err err, pm_session *const *sessions, size_t count,
                       void *ctx)
{
    FUZZ_CHECK(err == PM_OK || !count);
    for (size_t i = 0; i < count; i++)
        FUZZ_CHECK(pm_session_frontend_id(sessions[i]) != NULL);
    ((fuzz *)ctx)->told++;
}

static void fuzz_left(pm_channel *channel, const pm_receiver *member, void *ctx)
{
    (void)ctx;
    FUZZ_CHECK(!pm_channel_has(channel, member->uid));
}

/* Counts a callback that is now due. */
static void fuzz_due(fuzz *f, pm_err err)
{
    f->asked += err == PM_OK;
}

/* Nothing is said to, or heard from, one who has not shown what he knows. */
static bool fuzz_trusts(const fuzz *f, unsigned proven)
{
    return f->options & proven || !(f->options & FUZZ_SECRET);
}

/* Calls come by either link. */
static void fuzz_check_caller(const fuzz *f)
{
    FUZZ_CHECK(fuzz_trusts(f, FUZZ_PROVE_IN | FUZZ_PROVE_OUT));
}

static void fuzz_echo(pm_call *call, void *ctx)
{
    fuzz_check_caller(ctx);
    pm_call_reply(call, pm_call_args(call));
}

static void fuzz_read(pm_call *call, void *ctx)
{
    struct cJSON *tree;
    (void)ctx;
    if (pm_call_json(call, &tree))
        pm_call_fail(call, 500, pm_call_method(call));
    else
        pm_call_reply(call, pm_call_args(call));
}

static void fuzz_later(pm_call *call, void *ctx)
{
    fuzz *f = ctx;
    if (f->kept_count == KEPT_MAX || pm_call_keep(call))
        pm_call_fail(call, 1, "full");
    else
        f->kept[f->kept_count++] = call;
}

static void fuzz_body(pm_request *req, void *ctx)
{
    fuzz_check_caller(ctx);
    pm_reply_body(req, pm_request_body(req));
}

/* All that a view can be asked for goes back to its frontend. */
static void fuzz_view(pm_request *req, void *ctx)
{
    fuzz *f = ctx;
    pm_session *session = pm_request_session(req);
    struct cJSON *body;
    if (pm_request_json(req, &body) == PM_OK)
        pm_session_set(session, "body", body);
    fuzz_due(f, pm_session_bind(session, "v", fuzz_done, f));
    fuzz_due(f, pm_session_sync(session, NULL, fuzz_done, f));
    pm_session_push(session, "onChat", pm_request_body(req));
    fuzz_due(f, pm_session_unbind(session, "v", fuzz_done, f));
    fuzz_due(f, pm_session_kick(session, "kick", fuzz_done, f));
    pm_reply_text(req, "{\"code\":200}");
}

static pm_err fuzz_register(fuzz *f)
{
    pm_err err = pm_app_declare(f->app, "area.playerHandler.move");
    if (err == PM_OK)
        err =
            pm_app_handler(f->app, "connector.entryHandler.body", fuzz_body, f);
    if (err == PM_OK)
        err =
            pm_app_handler(f->app, "connector.entryHandler.view", fuzz_view, f);
    if (err == PM_OK)
        err = pm_app_remote(f->app, "connector.fuzz.echo", fuzz_echo, f);
    if (err == PM_OK)
        err = pm_app_remote(f->app, "connector.fuzz.read", fuzz_read, f);
    if (err == PM_OK)
        err = pm_app_remote(f->app, "connector.fuzz.later", fuzz_later, f);
    return err;
}

static void fuzz_opened(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    fuzz_due(ctx, pm_session_bind(session, "u", fuzz_done, ctx));
}

static pm_err fuzz_start(fuzz *f)
{
    pm_app_events events = pm_app_events_default();
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = f->world.loop;
    opts.servers = fuzz_servers;
    opts.servers_count = PMI_COUNT(fuzz_servers);
    opts.server_id = "connector-1";
    opts.rpc.secret = f->options & FUZZ_SECRET ? "secret" : NULL;
    opts.connector.use_dict = f->options & FUZZ_DICT;
    err = pm_app_new(&f->app, &opts);
    if (err)
        return err;
    events.session_opened = fuzz_opened;
    err = pm_app_listen(f->app, &events, f);
    if (err == PM_OK)
        err = fuzz_register(f);
    return err ? err : pm_app_start(f->app);
}

/* ---- The other server ------------------------------------------------------ */

static void fuzz_say(fuzz_link *link, const pmi_frame *frame)
{
    pmi_frame_out out;
    if (link->conn && pmi_frame_encode(frame, &out) == PM_OK)
        pmi_conn_send(link->conn, out.parts, out.count, 0);
}

static void fuzz_hello(fuzz_link *link, bool with_mac)
{
    pmi_frame frame = {.kind = PMI_FRAME_HELLO,
                       .version = PMI_FRAME_VERSION,
                       .incarnation = 7};
    frame.from = pm_text("area-1");
    frame.to = pm_text("connector-1");
    frame.nonce = pm_text("sixteen bytes...");
    if (with_mac)
        frame.mac = pm_bytes(link->mac, sizeof link->mac);
    fuzz_say(link, &frame);
}

/* The proof of either side of a link. */
static void fuzz_proof(fuzz_link *link, bool by_dialler)
{
    pm_slice app = pm_text("connector-1"), we = pm_text("area-1");
    const uint8_t *nonce = (const uint8_t *)"sixteen bytes...";
    pmi_proof proof;
    proof.secret = pm_text(link->of->options & FUZZ_SECRET ? "secret" : "");
    proof.dialler_id = link->out ? app : we;
    proof.acceptor_id = link->out ? we : app;
    proof.dialler_incarnation = link->out ? link->theirs : 7;
    proof.acceptor_incarnation = link->out ? 7 : link->theirs;
    proof.dialler_nonce = link->out ? link->nonce : nonce;
    proof.acceptor_nonce = link->out ? nonce : link->nonce;
    pmi_proof_make(&proof, by_dialler, link->mac);
}

static void fuzz_greeted(fuzz_link *link, const pmi_frame *frame)
{
    pmi_frame answer = {.kind = PMI_FRAME_PROOF};
    FUZZ_CHECK(frame->nonce.len == PMI_NONCE_BYTES);
    FUZZ_CHECK(pmi_slice_eq(frame->from, pm_text("connector-1")));
    memcpy(link->nonce, frame->nonce.data, PMI_NONCE_BYTES);
    link->theirs = frame->incarnation;
    if (link->out) {
        fuzz_proof(link, false);
        fuzz_hello(link, true);
        return;
    }
    fuzz_proof(link, false);
    FUZZ_CHECK(pmi_slice_eq(frame->mac, pm_bytes(link->mac, PMI_MAC_BYTES)));
    fuzz_proof(link, true);
    answer.mac = pm_bytes(link->mac, sizeof link->mac);
    fuzz_say(link, &answer);
    link->proven = true;
}

static void fuzz_heard(fuzz_link *link, const pmi_frame *frame)
{
    fuzz *f = link->of;
    bool prove = f->options & (link->out ? FUZZ_PROVE_OUT : FUZZ_PROVE_IN);
    if (frame->kind == PMI_FRAME_HELLO && prove && !link->greeted) {
        link->greeted = true;
        fuzz_greeted(link, frame);
    } else if (frame->kind == PMI_FRAME_PROOF && prove && !link->proven) {
        fuzz_proof(link, true);
        FUZZ_CHECK(
            pmi_slice_eq(frame->mac, pm_bytes(link->mac, PMI_MAC_BYTES)));
        link->proven = true;
    } else if (frame->kind == PMI_FRAME_CALL) {
        FUZZ_CHECK(fuzz_trusts(f, link->out ? FUZZ_PROVE_OUT : FUZZ_PROVE_IN));
        link->last_id = frame->id;
    }
}

static size_t fuzz_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    size_t used = 0;
    (void)conn;
    while (used < len) {
        pmi_frame frame;
        long n =
            pmi_frame_decode(data + used, len - used, PMI_FRAME_MAX, &frame);
        FUZZ_CHECK(n >= 0);
        if (n == 0)
            break;
        fuzz_heard(ctx, &frame);
        used += (size_t)n;
    }
    return used;
}

static void fuzz_open(pmi_conn *conn, void *ctx)
{
    fuzz_link *link = ctx;
    (void)conn;
    if (!link->out && link->of->options & FUZZ_PROVE_IN)
        fuzz_hello(link, false);
}

static void fuzz_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    fuzz_link *link = ctx;
    (void)why;
    pmi_conn_free(conn);
    if (link->conn == conn)
        link->conn = NULL;
}

static const pmi_conn_events fuzz_events = {
    .data = fuzz_data, .open = fuzz_open, .closed = fuzz_closed};

static void fuzz_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    fuzz_link *link = &((fuzz *)ctx)->links[LINK_OUT];
    (void)listener;
    pmi_conn_free(link->conn);
    link->conn = conn;
    link->greeted = link->proven = false;
    pmi_conn_start(conn, &fuzz_events, link);
}

static void fuzz_dial(fuzz *f)
{
    fuzz_link *link = &f->links[LINK_IN];
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = 4050,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true,
                             .from = "area-1"};
    link->greeted = link->proven = false;
    if (pmi_conn_connect(f->world.loop, &opts, &fuzz_events, link,
                         &link->conn) != PM_OK)
        link->conn = NULL;
}

/* ---- The app's client ------------------------------------------------------ */

static size_t client_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    (void)conn;
    (void)data;
    (void)ctx;
    return len;
}

static void client_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    (void)why;
    pmi_conn_free(conn);
    ((fuzz *)ctx)->client = NULL;
}

static const pmi_conn_events client_events = {.data = client_data,
                                              .closed = client_closed};

static void fuzz_enter(fuzz *f)
{
    static const char hello[] =
        "\1\0\0\x23{\"sys\":{\"type\":\"c\",\"version\":\"1\"}}\2\0\0\0";
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = 3050,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    if (f->client || pmi_conn_connect(f->world.loop, &opts, &client_events, f,
                                      &f->client) != PM_OK)
        return;
    fuzz_send(f->client, pm_bytes(hello, sizeof hello - 1));
    fuzz_world_pass(&f->world, 0, 2);
}

static void fuzz_client_says(fuzz *f, pm_slice body)
{
    static const char route[] = "area.playerHandler.move";
    uint8_t head[PMI_PACKAGE_HEAD], message[PMI_MESSAGE_HEAD_MAX];
    size_t n = pmi_proto_message_head(message, PMI_MESSAGE_REQUEST, 1,
                                      pm_text(route), 0);
    pm_slice parts[3] = {{head, sizeof head}, {message, n}, body};
    pmi_proto_package_head(head, PMI_PACKAGE_DATA, n + body.len);
    if (f->client)
        pmi_conn_send(f->client, parts, 3, 0);
}

/* ---- One piece ------------------------------------------------------------- */

static pm_body fuzz_bytes(pm_slice bytes)
{
    return pm_body_bytes(bytes.data, bytes.len);
}

static void fuzz_call_area(fuzz *f, pm_slice bytes)
{
    pm_rpc_opts opts = pm_rpc_opts_default();
    opts.method = "area.fuzz.echo";
    opts.args = fuzz_bytes(bytes);
    fuzz_due(f, pm_rpc_call(f->app, &opts, fuzz_answered, f, NULL));
}

static void fuzz_channel(fuzz *f, pm_slice bytes)
{
    pm_channel *channel = pm_channel_get(f->app, "room", true);
    if (!channel)
        return;
    pm_channel_add(channel, "u", "connector-1");
    pm_channel_add(channel, "v", "area-1");
    pm_channel_add(channel, "w", "area-1");
    pm_channel_leave_on_close(channel, true, fuzz_left, f);
    fuzz_due(f, pm_channel_push(channel, "onChat", fuzz_bytes(bytes),
                                fuzz_pushed, f));
}

static void fuzz_broadcast(fuzz *f, pm_slice bytes)
{
    pm_broadcast_opts opts = pm_broadcast_opts_default();
    opts.frontend_type = "area";
    opts.route = "onAll";
    opts.body = fuzz_bytes(bytes);
    fuzz_due(f, pm_broadcast(f->app, &opts, fuzz_pushed, f));
}

static void fuzz_answer_kept(fuzz *f, pm_slice bytes)
{
    while (f->kept_count)
        pm_call_reply(f->kept[--f->kept_count], fuzz_bytes(bytes));
}

static void fuzz_hang_up(fuzz_link *link)
{
    pmi_conn_free(link->conn);
    link->conn = NULL;
}

static void fuzz_act(fuzz *f, unsigned number, bool out, pm_slice bytes)
{
    pm_receiver both[] = {{"u", "connector-1"}, {"v", "area-1"}};
    switch (number) {
    case 0:
        fuzz_call_area(f, bytes);
        break;
    case 1:
        fuzz_channel(f, bytes);
        break;
    case 2:
        fuzz_broadcast(f, bytes);
        break;
    case 3:
        fuzz_due(f, pm_push_uids(f->app, "onChat", fuzz_bytes(bytes), both, 2,
                                 fuzz_pushed, f));
        break;
    case 4:
        fuzz_due(f, pm_session_fetch(f->app, "area-1", 1, fuzz_found, f));
        break;
    case 5:
        fuzz_due(f, pm_session_fetch_uid(f->app, NULL, "u", fuzz_found, f));
        break;
    case 6:
        fuzz_due(f,
                 pm_session_kick_uid(f->app, NULL, "u", "why", fuzz_done, f));
        break;
    case 7:
        fuzz_enter(f);
        break;
    case 8:
        fuzz_client_says(f, bytes);
        break;
    case 9:
        fuzz_answer_kept(f, bytes);
        break;
    case 10:
        fuzz_hang_up(&f->links[out]);
        break;
    case 11:
        pm_channel_destroy(pm_channel_get(f->app, "room", false));
        break;
    default: /* 12 to 31: 1 ms to 9 minutes */
        fuzz_world_pass(&f->world, UINT64_C(1) << (number - 12), 2);
    }
}

/* | what (op, or error) | flags | length of extra | extra | body | */
static void fuzz_built(fuzz *f, fuzz_link *link, bool answer, pm_slice bytes)
{
    static const char *const names[] = {"connector.fuzz.echo",
                                        "connector.fuzz.read",
                                        "connector.fuzz.later",
                                        "connector.entryHandler.view",
                                        "connector.entryHandler.body",
                                        "onChat",
                                        "a",
                                        ""};
    pmi_cursor in = pmi_cursor_of(bytes.data, bytes.len);
    uint8_t what = pmi_cursor_byte(&in), flags = pmi_cursor_byte(&in);
    pmi_frame frame = {0};
    frame.extra = fuzz_take(&in, pmi_cursor_byte(&in));
    frame.body.data = fuzz_take(&in, SIZE_MAX);
    frame.body.kind = (pm_body_kind)(flags & 3);
    if (answer) {
        frame.kind = PMI_FRAME_ANSWER;
        frame.id = link->last_id;
        frame.err = -(int32_t)what;
        frame.code = (int8_t)(flags & 0xfc);
    } else {
        frame.kind = PMI_FRAME_CALL;
        frame.id = ++f->our_id;
        frame.op = what;
        frame.method = pm_text(names[flags >> 5]);
        frame.notify = flags & 4;
        frame.deadline_ms = flags & 8 ? 0 : 5000;
    }
    fuzz_say(link, &frame);
}

static void fuzz_envelope(fuzz_link *link, pm_slice bytes)
{
    uint8_t head[PMI_FRAME_HEAD];
    pm_slice parts[2] = {{head, sizeof head}, bytes};
    pmi_put_be32(head, (uint32_t)bytes.len);
    if (link->conn)
        pmi_conn_send(link->conn, parts, 2, 0);
}

static void fuzz_piece(fuzz *f, pmi_cursor *in)
{
    uint8_t what = pmi_cursor_byte(in), len = pmi_cursor_byte(in);
    fuzz_link *link = &f->links[what >> 2 & 1];
    pm_slice bytes = fuzz_take(in, len);
    if (!link->out && !link->conn && (what & 3) != FORM_ACTION) {
        fuzz_dial(f);
        fuzz_world_pass(&f->world, 0, 3);
    }
    if ((what & 3) == FORM_RAW)
        fuzz_send(link->conn, bytes);
    else if ((what & 3) == FORM_ENVELOPE)
        fuzz_envelope(link, bytes);
    else if ((what & 3) == FORM_BUILT)
        fuzz_built(f, link, link->out != (what >> 3 & 1), bytes);
    else
        fuzz_act(f, what >> 3, link->out, bytes);
    fuzz_world_pass(&f->world, 0, 2);
}

static pm_err fuzz_listen(fuzz *f)
{
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .port = 4060,
                            .framing = PMI_FRAMING_STREAM,
                            .accepted = fuzz_accepted,
                            .ctx = f};
    return pmi_listen(f->world.loop, &opts, &f->door);
}

static void fuzz_play(fuzz *f, pmi_cursor *in)
{
    fuzz_enter(f);
    fuzz_world_pass(&f->world, 1, 3);
    for (int i = 0; i < PIECES_MAX && pmi_cursor_left(in); i++)
        fuzz_piece(f, in);
    fuzz_world_pass(&f->world, 60000, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_cursor in = pmi_cursor_of(data, size);
    fuzz f = {.options = pmi_cursor_byte(&in)};
    uint8_t fail = pmi_cursor_byte(&in);
    for (int i = 0; i < LINK_COUNT; i++) {
        f.links[i].of = &f;
        f.links[i].out = i == LINK_OUT;
    }
    if (in.bad)
        return 0;
    fuzz_world_open(&f.world, true, f.options);
    FUZZ_CHECK(fuzz_listen(&f) == PM_OK && fuzz_start(&f) == PM_OK);
    fuzz_world_fail(&f.world, fail);
    fuzz_play(&f, &in);
    f.world.fail_at = 0;
    pm_app_free(f.app);
    FUZZ_CHECK(f.asked == f.told);
    fuzz_answer_kept(&f, pm_bytes(NULL, 0));
    for (int i = 0; i < LINK_COUNT; i++)
        fuzz_hang_up(&f.links[i]);
    pmi_conn_free(f.client);
    pmi_listener_close(f.door);
    fuzz_world_close(&f.world);
    return 0;
}
