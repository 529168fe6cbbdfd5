/* SPDX-License-Identifier: MIT */
/* pomelo_peer.c -- links between servers.
 *
 *     dialler                                    acceptor
 *       | HELLO from, to, incarnation, nonce        |
 *       |------------------------------------------>|
 *       |    HELLO from, to, incarnation, nonce, mac|
 *       |<------------------------------------------|
 *       | PROOF mac                                 |
 *       |------------------------------------------>|
 *
 * Both macs cover both sides' values and the side that speaks (pmi_proof_make),
 * so that nothing heard can be said back. The first byte of a link tells our
 * wire (00, the high byte of a length) from everything else, which is closed
 * and counted. Start at peer_data and peer_lost. */
#include "pomelo_peer_internal.h"
#include "pomelo_count_internal.h"

#define PEER_PROOF_MS 5000
#define PEER_UNPROVEN_MAX 64
#define PEER_PARTS 4 /* of what was read at once */
#define PEER_PART_MIN 1024
#define PEER_BACKOFF_MS 50
#define PEER_UNKNOWN_MS 1000

static void peer_dial_now(pmi_peer *peer);
static void peer_listen(pmi_peer *accepted);

/* ---- Certificates ------------------------------------------------------ */

static pm_err peers_complete(const pmi_peers *peers, const pm_tls_opts *tls)
{
    if (tls->cert && tls->key && tls->ca)
        return PM_OK;
    PMI_LOG(peers->env, PM_LOG_ERROR, "rpc",
            "rpc.tls: expected all of cert, key and ca");
    return PM_ECONFIG;
}

static pmi_tls_setup peers_setup(const pm_tls_opts *tls, bool client)
{
    pmi_tls_setup setup = {.cert = tls->cert,
                           .key = tls->key,
                           .ca = tls->ca,
                           .client = client,
                           .request_cert = !client};
    return setup;
}

static pm_err peers_secure(pmi_peers *peers)
{
    const pm_tls_opts *tls = &pmi_app_rpc_opts(peers->app)->tls;
    pm_loop *loop = pm_app_loop(peers->app);
    pmi_tls_setup server = peers_setup(tls, false);
    pmi_tls_setup client = peers_setup(tls, true);
    if (!tls->cert && !tls->key && !tls->ca)
        return PM_OK;
    pm_err err = peers_complete(peers, tls);
    if (err == PM_OK)
        err = pmi_tls_realm_new(loop, peers->env, &server, PEER_UNPROVEN_MAX,
                                &peers->server_tls);
    if (err == PM_OK)
        err = pmi_tls_realm_new(loop, peers->env, &client, UINT32_MAX,
                                &peers->client_tls);
    return err;
}

pm_err pmi_peers_renew(pmi_peers *peers, const pm_tls_opts *tls)
{
    pmi_tls_setup server = peers_setup(tls, false);
    pmi_tls_setup client = peers_setup(tls, true);
    pm_err err = peers_complete(peers, tls);
    if (err == PM_OK)
        err = pmi_tls_realm_renew(peers->server_tls, &server);
    return err ? err : pmi_tls_realm_renew(peers->client_tls, &client);
}

pm_err pmi_peers_init(pmi_peers *peers, pm_app *app, const pmi_peer_ops *ops)
{
    peers->app = app;
    peers->env = pmi_app_env(app);
    peers->ops = ops;
    pmi_list_init(&peers->dialled);
    pmi_list_init(&peers->accepted);
    return peers_secure(peers);
}

void pmi_peers_fini(pmi_peers *peers)
{
    pmi_tls_realm_unref(peers->server_tls);
    pmi_tls_realm_unref(peers->client_tls);
}

/* Is it made out to this server? What comes through memory needs no proof. */
static bool peer_certified(const pmi_peer *peer, const char *id)
{
    if (!pmi_conn_is_tls(peer->conn) || pmi_conn_peer_is(peer->conn, id))
        return true;
    PMI_LOG(peer->owner->env, PM_LOG_WARN, "rpc",
            "%s: its certificate does not name it", id);
    return false;
}

static bool peer_is_dialled(const pmi_peer *peer)
{
    return peer->server != NULL;
}

const char *pmi_peer_id(const pmi_peer *peer)
{
    return peer->server ? peer->server->pub.id : peer->id;
}

/* ---- Links that others have dialled ------------------------------------ */

/* Whom our table knows can be asked by its own link. */
static void peer_is_known(pmi_peer *accepted, pmi_server *server)
{
    server->back = accepted;
    peer_listen(accepted);
}

void pmi_peer_find_back(pmi_peers *peers, pmi_server *server)
{
    for (pmi_link *n = peers->accepted.next; n != &peers->accepted;
         n = n->next) {
        pmi_peer *peer = PMI_OUTER(n, pmi_peer, in_all);
        if (peer->state == PMI_PEER_UP && !strcmp(peer->id, server->pub.id))
            peer_is_known(peer, server);
    }
}

static void peer_forget_back(const pmi_peer *accepted)
{
    pmi_cluster *cluster = pmi_app_cluster(accepted->owner->app);
    pmi_server *server =
        accepted->id ? pmi_cluster_find(cluster, accepted->id) : NULL;
    if (server && server->back == accepted)
        server->back = NULL;
}

/* ---- Proof ------------------------------------------------------------- */

static pmi_proof peer_proof(const pmi_peer *peer, pm_slice other)
{
    pmi_peers *peers = peer->owner;
    pm_slice self = pm_text(pm_app_server(peers->app)->id);
    bool dialler = peer_is_dialled(peer);
    pmi_proof proof;
    proof.secret = pm_text(pmi_app_rpc_opts(peers->app)->secret);
    proof.dialler_id = dialler ? self : other;
    proof.acceptor_id = dialler ? other : self;
    proof.dialler_incarnation =
        dialler ? peers->incarnation : peer->incarnation;
    proof.acceptor_incarnation =
        dialler ? peer->incarnation : peers->incarnation;
    proof.dialler_nonce = dialler ? peer->nonce : peer->theirs;
    proof.acceptor_nonce = dialler ? peer->theirs : peer->nonce;
    return proof;
}

static pm_err peer_offer(pmi_peer *peer, const pmi_frame *frame,
                         const pmi_terms *terms)
{
    pmi_frame_out out;
    pm_err err = pmi_frame_encode(frame, &out);
    if (err)
        return err;
    err = pmi_conn_offer(peer->conn, out.parts, out.count, terms);
    if (err == PM_ELIMIT)
        pmi_count(peer->owner->app, PMI_COUNT_LINK_REFUSED);
    return err;
}

static pm_err peer_write(pmi_peer *peer, const pmi_frame *frame)
{
    return peer_offer(peer, frame, NULL);
}

static pm_err peer_say(pmi_peer *peer, pmi_frame_kind kind)
{
    pmi_frame frame = {.kind = kind};
    return peer_write(peer, &frame);
}

/* mac NULL: the dialler's first word. */
static pm_err peer_hello(pmi_peer *peer, const char *to, const uint8_t *mac)
{
    pmi_peers *peers = peer->owner;
    pmi_frame frame = {.kind = PMI_FRAME_HELLO,
                       .version = PMI_FRAME_VERSION,
                       .incarnation = peers->incarnation};
    frame.from = pm_text(pm_app_server(peers->app)->id);
    frame.to = pm_text(to);
    frame.nonce = pm_bytes(peer->nonce, PMI_NONCE_BYTES);
    frame.mac = pm_bytes(mac, mac ? PMI_MAC_BYTES : 0);
    return peer_write(peer, &frame);
}

/* ---- Ends -------------------------------------------------------------- */

static void peer_bury(pmi_task *grave)
{
    pmi_peer *peer = PMI_OUTER(grave, pmi_peer, grave);
    pm_app *app = peer->owner->app;
    const pmi_env *env = pmi_loop_env(pm_app_loop(app));
    if (peer->server)
        pmi_server_unref(pmi_app_cluster(app), peer->server);
    pmi_buf_fini(&peer->waiting);
    pmi_free(env, peer->id);
    pmi_free(env, peer);
}

/* The storage goes when nobody stands on it any more. */
static void peer_free(pmi_peer *peer)
{
    pm_loop *loop = pm_app_loop(peer->owner->app);
    pmi_loop_enter(loop);
    pmi_timer_clear(&peer->timer);
    pmi_list_remove(&peer->in_all);
    if (peer->server) {
        peer->server->peer = NULL; /* it may be dialled anew at once */
        peer->server->up = false;
    } else {
        peer_forget_back(peer);
    }
    pmi_conn_free(peer->conn);
    peer->conn = NULL;
    peer->state = PMI_PEER_CLOSED;
    memset(&peer->grave, 0, sizeof peer->grave);
    pmi_loop_bury(loop, &peer->grave, peer_bury);
    pmi_loop_leave(loop);
}

static void peer_retry(pmi_timer *timer)
{
    peer_dial_now(PMI_OUTER(timer, pmi_peer, timer));
}

/* 50 ms, 100 ms, ... up to the limit, of which a random half is left out. */
static uint64_t peer_backoff_us(pmi_peer *peer)
{
    uint64_t max =
        (uint64_t)pmi_app_rpc_opts(peer->owner->app)->reconnect_ms_max;
    uint64_t ms = (uint64_t)PEER_BACKOFF_MS << pmi_min(peer->tries, 10);
    if (ms > max)
        ms = max;
    return ms * 500 +
           pmi_loop_random_u64(pm_app_loop(peer->owner->app)) % (ms * 500 + 1);
}

/* A dialled link is lost: everybody who waits on it is told, and it is tried
 * again. From one that was never proven nothing has left. */
static void peer_lost(pmi_peer *peer, pm_close_reason why)
{
    pmi_peers *peers = peer->owner;
    if (peer->state == PMI_PEER_UP) {
        peers->lost[why]++;
    } else {
        peers->refused[why]++;
        why = PM_CLOSE_CONNECT;
    }
    if (peer->parting) {
        peers->ops->down(peer, why);
        if (!peers->closed)
            peer_free(peer);
        return;
    }
    pmi_conn_free(peer->conn);
    peer->conn = NULL;
    peer->state = PMI_PEER_DOWN;
    peer->draining = false;
    pmi_buf_fini(&peer->waiting);
    pmi_buf_init(&peer->waiting, peers->env, peer->waiting.max);
    pmi_timer_set(pm_app_loop(peers->app), &peer->timer, peer_backoff_us(peer),
                  peer_retry);
    peer->tries++;
    pmi_cluster_set_up(pmi_app_cluster(peers->app), peer->server, false);
    if (!peers->closed)
        peers->ops->down(peer, why);
}

static void peer_gone(pmi_peer *peer, pm_close_reason why)
{
    pmi_peers *peers = peer->owner;
    pm_app *app = peers->app;
    if (peer->state == PMI_PEER_UP) {
        peers->lost[why]++;
        peer_forget_back(peer);
        peers->ops->down(peer, why);
    } else {
        peers->unproven--;
        peers->refused[why]++;
        if (why != PM_CLOSE_CONNECTIONS_MAX) /* a crowd would fill the log */
            PMI_LOG(peers->env, PM_LOG_WARN, "rpc", "a link was refused: %s",
                    pm_close_text(why));
    }
    if (peers->closed)
        return;
    peer_free(peer);
    pmi_app_check_drained(app);
}

static void peer_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    pmi_peer *peer = ctx;
    (void)conn;
    if (peer_is_dialled(peer))
        peer_lost(peer, why);
    else
        peer_gone(peer, why);
}

static void peer_close(pmi_peer *peer, pm_close_reason why)
{
    if (peer->conn)
        pmi_conn_close(peer->conn, why, false, 0);
}

/* ---- Silence ----------------------------------------------------------- */

/* A third of the allowed silence goes by without a word: ask. */
static void peer_watch(pmi_timer *timer)
{
    pmi_peer *peer = PMI_OUTER(timer, pmi_peer, timer);
    pm_loop *loop = pm_app_loop(peer->owner->app);
    uint64_t allowed =
        (uint64_t)pmi_app_rpc_opts(peer->owner->app)->silent_ms * 1000;
    uint64_t silent = pmi_loop_now_us(loop) - peer->heard_us;
    if (silent >= allowed) {
        peer_close(peer, PM_CLOSE_PEER_SILENT);
        return;
    }
    if (peer_is_dialled(peer) && silent >= allowed / 3)
        peer_say(peer, PMI_FRAME_PING);
    pmi_timer_set(loop, timer, allowed / 3, peer_watch);
}

/* The master tells newcomers of each other, and one may be quicker: who is not
 * in our table yet is heard when it is, or after this time all the same. */
static void peer_listen_now(pmi_timer *timer)
{
    peer_listen(PMI_OUTER(timer, pmi_peer, timer));
}

static void peer_wait(pmi_peer *accepted)
{
    pm_app *app = accepted->owner->app;
    if (!pmi_app_master_opts(app)->port)
        return;
    accepted->waits = true;
    pmi_conn_pause(accepted->conn);
    pmi_timer_set(pm_app_loop(app), &accepted->timer,
                  (uint64_t)PEER_UNKNOWN_MS * 1000, peer_listen_now);
}

static void peer_listen(pmi_peer *accepted)
{
    pm_loop *loop = pm_app_loop(accepted->owner->app);
    if (!accepted->waits)
        return;
    accepted->waits = false;
    accepted->heard_us = pmi_loop_now_us(loop);
    pmi_timer_set(loop, &accepted->timer, 0, peer_watch);
    pmi_conn_resume(accepted->conn);
}

static void peer_unproven(pmi_timer *timer)
{
    peer_close(PMI_OUTER(timer, pmi_peer, timer), PM_CLOSE_HANDSHAKE_TIMEOUT);
}

/* ---- Frames ------------------------------------------------------------ */

/* Who has just come to us can be reached again: by this link, and our own to
 * it does not wait for its next try. */
static void peer_dial_back(pmi_peer *accepted)
{
    pm_app *app = accepted->owner->app;
    pmi_server *server = pmi_cluster_find(pmi_app_cluster(app), accepted->id);
    pmi_peer *dialled = server ? server->peer : NULL;
    if (server)
        peer_is_known(accepted, server);
    else
        peer_wait(accepted);
    if (dialled && dialled->state == PMI_PEER_DOWN)
        pmi_timer_set(pm_app_loop(app), &dialled->timer, 0, peer_retry);
}

static void peer_is_up(pmi_peer *peer)
{
    pmi_peers *peers = peer->owner;
    pm_loop *loop = pm_app_loop(peers->app);
    peer->state = PMI_PEER_UP;
    peer->tries = 0;
    pmi_timer_set(loop, &peer->timer,
                  (uint64_t)pmi_app_rpc_opts(peers->app)->silent_ms * 1000 / 3,
                  peer_watch);
    if (!peer_is_dialled(peer)) {
        peers->unproven--;
        peer_dial_back(peer);
        return;
    }
    if (peer->waiting.len) {
        pm_slice all = pmi_buf_slice(&peer->waiting);
        pm_err err = pmi_conn_send(peer->conn, &all, 1, 0);
        pmi_buf_fini(&peer->waiting);
        pmi_buf_init(&peer->waiting, peers->env, peer->waiting.max);
        if (err) {
            peer_close(peer, PM_CLOSE_MEMORY);
            return;
        }
    }
    pmi_cluster_set_up(pmi_app_cluster(peers->app), peer->server, true);
    if (peer->state == PMI_PEER_UP)
        peers->ops->up(peer);
}

/* Values of a HELLO that both sides check. */
static bool peer_hello_fits(pmi_peer *peer, const pmi_frame *frame)
{
    pm_slice self = pm_text(pm_app_server(peer->owner->app)->id);
    if (frame->kind != PMI_FRAME_HELLO || frame->version != PMI_FRAME_VERSION ||
        frame->nonce.len != PMI_NONCE_BYTES || !frame->from.len ||
        frame->from.len > 255 || !pmi_slice_eq(frame->to, self) ||
        pmi_slice_eq(frame->from, self))
        return false;
    memcpy(peer->theirs, frame->nonce.data, PMI_NONCE_BYTES);
    peer->incarnation = frame->incarnation;
    return true;
}

static bool peer_mac_fits(const pmi_peer *peer, pm_slice other, bool by_dialler,
                          pm_slice mac)
{
    pmi_proof proof = peer_proof(peer, other);
    uint8_t want[PMI_MAC_BYTES];
    pmi_proof_make(&proof, by_dialler, want);
    return mac.len == PMI_MAC_BYTES &&
           pmi_same_secret(want, mac.data, PMI_MAC_BYTES);
}

static pm_close_reason peer_heard_hello(pmi_peer *peer, const pmi_frame *frame)
{
    pm_slice id = pm_text(peer->server->pub.id);
    uint8_t mac[PMI_MAC_BYTES];
    pmi_frame proof_frame = {.kind = PMI_FRAME_PROOF};
    pmi_proof proof;
    if (!peer_hello_fits(peer, frame) || !pmi_slice_eq(frame->from, id) ||
        !peer_mac_fits(peer, id, false, frame->mac))
        return PM_CLOSE_AUTH;
    proof = peer_proof(peer, id);
    pmi_proof_make(&proof, true, mac);
    proof_frame.mac = pm_bytes(mac, sizeof mac);
    if (peer_write(peer, &proof_frame))
        return PM_CLOSE_MEMORY;
    peer_is_up(peer);
    return PM_CLOSE_NONE;
}

static pm_close_reason peer_asked_hello(pmi_peer *peer, const pmi_frame *frame)
{
    uint8_t mac[PMI_MAC_BYTES];
    pmi_proof proof;
    if (!peer_hello_fits(peer, frame) ||
        memchr(frame->from.data, 0, frame->from.len))
        return PM_CLOSE_AUTH;
    peer->id = pmi_strndup(peer->owner->env, frame->from.data, frame->from.len);
    if (!peer->id)
        return PM_CLOSE_MEMORY;
    if (!peer_certified(peer, peer->id))
        return PM_CLOSE_AUTH;
    proof = peer_proof(peer, pm_text(peer->id));
    pmi_proof_make(&proof, false, mac);
    if (peer_hello(peer, peer->id, mac))
        return PM_CLOSE_MEMORY;
    peer->state = PMI_PEER_WAIT_PROOF;
    return PM_CLOSE_NONE;
}

/* One link a pair: who dials anew has given the old link up. What the network
 * still brings on that must not be served behind what comes on the new one.
 * False: this one is the old one. */
static bool peer_replace(pmi_peer *peer)
{
    pmi_link *end = &peer->owner->accepted;
    bool newest = true;
    for (pmi_link *n = peer->in_all.next; n != end; n = n->next) {
        const pmi_peer *later = PMI_OUTER(n, pmi_peer, in_all);
        if (later->state == PMI_PEER_UP && !strcmp(later->id, peer->id))
            newest = false;
    }
    for (pmi_link *n = end->next; newest && n != &peer->in_all; n = n->next) {
        pmi_peer *old = PMI_OUTER(n, pmi_peer, in_all);
        if (old->state == PMI_PEER_UP && !strcmp(old->id, peer->id))
            peer_close(old, PM_CLOSE_DUPLICATE);
    }
    return newest;
}

static pm_close_reason peer_heard_proof(pmi_peer *peer, const pmi_frame *frame)
{
    if (frame->kind != PMI_FRAME_PROOF ||
        !peer_mac_fits(peer, pm_text(peer->id), true, frame->mac))
        return PM_CLOSE_AUTH;
    if (!peer_replace(peer))
        return PM_CLOSE_DUPLICATE;
    peer_is_up(peer);
    return PM_CLOSE_NONE;
}

/* It serves what it has, and is passed over. */
static void peer_heard_drain(pmi_peer *peer)
{
    peer->draining = true;
    if (peer_is_dialled(peer) && !peer->parting)
        pmi_cluster_set_up(pmi_app_cluster(peer->owner->app), peer->server,
                           false);
}

/* Of an accepted link: all that was sent before our DRAIN was heard is here. */
static void peer_heard_pong(pmi_peer *peer)
{
    if (!peer->asked)
        return;
    peer->asked = false;
    pmi_app_check_drained(peer->owner->app);
}

static pm_close_reason peer_heard(pmi_peer *peer, const pmi_frame *frame)
{
    switch (frame->kind) {
    case PMI_FRAME_PING:
        peer_say(peer, PMI_FRAME_PONG);
        return PM_CLOSE_NONE;
    case PMI_FRAME_PONG:
        peer_heard_pong(peer);
        return PM_CLOSE_NONE;
    case PMI_FRAME_DRAIN:
        peer_heard_drain(peer);
        return PM_CLOSE_NONE;
    case PMI_FRAME_CALL:
    case PMI_FRAME_ANSWER:
        peer->owner->ops->frame(peer, frame);
        return PM_CLOSE_NONE;
    default:
        return PM_CLOSE_PACKAGE;
    }
}

static pm_close_reason peer_frame(pmi_peer *peer, const pmi_frame *frame)
{
    switch (peer->state) {
    case PMI_PEER_FIRST_DIAL:
    case PMI_PEER_DIALLING:
        return peer_heard_hello(peer, frame);
    case PMI_PEER_WAIT_HELLO:
        return peer_asked_hello(peer, frame);
    case PMI_PEER_WAIT_PROOF:
        return peer_heard_proof(peer, frame);
    case PMI_PEER_UP:
        return peer_heard(peer, frame);
    default:
        return PM_CLOSE_NONE;
    }
}

/* What speaks, told by its first byte. */
static pm_close_reason peer_stranger(uint8_t first)
{
    if (first == 0x16)
        return PM_CLOSE_TLS_ON_PLAIN;
    return first == 0 ? PM_CLOSE_NONE : PM_CLOSE_AUTH;
}

static size_t peer_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    pmi_peer *peer = ctx;
    pm_loop *loop = pmi_conn_loop(conn);
    size_t part = pmi_max(len / PEER_PARTS, PEER_PART_MIN);
    size_t used = 0, next = part;
    peer->heard_us = pmi_loop_now_us(loop);
    while (used < len) {
        pmi_frame frame;
        /* A proven peer's frame of 16 MiB does not begin with 00. */
        bool up = peer->state == PMI_PEER_UP;
        size_t max = up ? PMI_FRAME_MAX : PMI_FRAME_HELLO_MAX;
        pm_close_reason why = up ? PM_CLOSE_NONE : peer_stranger(data[used]);
        long n = why ? PM_EFRAME
                     : pmi_frame_decode(data + used, len - used, max, &frame);
        if (n == 0)
            break;
        if (n > 0)
            why = peer_frame(peer, &frame);
        else if (!why)
            why = n == PM_ESIZE ? PM_CLOSE_PACKAGE_SIZE : PM_CLOSE_PACKAGE;
        if (pmi_conn_is_closing(conn))
            return len;
        if (why) {
            peer_close(peer, why);
            return len;
        }
        used += (size_t)n;
        /* So that the other end works while the rest is worked off here. */
        if (used >= next && used < len) {
            pmi_conn_flush(conn);
            next = used + part;
            if (pmi_conn_is_closing(conn))
                return len;
        }
        if (peer->waits)
            break;
        if (used < len && pmi_loop_over_budget(loop)) {
            pmi_conn_pause(conn); /* the rest comes in the next turn */
            pmi_conn_resume(conn);
            break;
        }
    }
    return used;
}

static void peer_message(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                         void *ctx)
{
    (void)conn;
    (void)data;
    (void)len;
    (void)text;
    peer_close(ctx, PM_CLOSE_PACKAGE); /* stream links carry no such thing */
}

static void peer_open(pmi_conn *conn, void *ctx)
{
    pmi_peer *peer = ctx;
    (void)conn;
    if (!peer_is_dialled(peer))
        return;
    if (!peer_certified(peer, peer->server->pub.id))
        peer_close(peer, PM_CLOSE_AUTH);
    else if (peer_hello(peer, peer->server->pub.id, NULL))
        peer_close(peer, PM_CLOSE_MEMORY);
}

static void peer_dropped(pmi_conn *conn, pmi_drop why, uint32_t n, void *ctx)
{
    pmi_peer *peer = ctx;
    (void)conn;
    (void)why;
    pmi_app_counts(peer->owner->app)->n[PMI_COUNT_LINK_DROPPED] += n;
}

static void peer_caught_up(pmi_conn *conn, void *ctx)
{
    pmi_peer *peer = ctx;
    pm_app *app = peer->owner->app;
    pmi_server *server = NULL;
    (void)conn;
    if (peer->state == PMI_PEER_UP)
        server = pmi_cluster_find(pmi_app_cluster(app), pmi_peer_id(peer));
    if (server)
        pmi_app_server_drained(app, &server->pub);
}

static const pmi_conn_events peer_events = {.dropped = peer_dropped,
                                            .caught_up = peer_caught_up,
                                            .data = peer_data,
                                            .message = peer_message,
                                            .open = peer_open,
                                            .closed = peer_closed};

/* ---- Dialling ---------------------------------------------------------- */

static pmi_conn_limits peer_limits(const pmi_peers *peers)
{
    pmi_conn_limits limits = {0};
    limits.in_max = PMI_FRAME_MAX + PMI_FRAME_HEAD;
    limits.out_max = pmi_app_limits(peers->app)->peer_queue_bytes;
    limits.open_ms = PEER_PROOF_MS;
    limits.tally = PMI_TRAFFIC_PEERS;
    return limits;
}

static void peer_dial_now(pmi_peer *peer)
{
    pmi_peers *peers = peer->owner;
    pm_loop *loop = pm_app_loop(peers->app);
    pmi_connect_opts opts = {.host = peer->server->pub.host,
                             .port = peer->server->pub.port,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true,
                             .from = pm_app_server(peers->app)->id,
                             .tls = peers->client_tls,
                             .limits = peer_limits(peers)};
    pmi_loop_random(loop, peer->nonce, sizeof peer->nonce);
    if (peer->state == PMI_PEER_DOWN && peer->tries)
        peer->state = PMI_PEER_DIALLING;
    else
        peer->state = PMI_PEER_FIRST_DIAL;
    if (pmi_conn_connect(loop, &opts, &peer_events, peer, &peer->conn)) {
        peer->conn = NULL;
        peer_lost(peer, PM_CLOSE_CONNECT);
        return;
    }
    peer->heard_us = pmi_loop_now_us(loop);
    pmi_timer_set(loop, &peer->timer, (uint64_t)PEER_PROOF_MS * 1000,
                  peer_unproven);
}

static pmi_peer *peer_new(pmi_peers *peers)
{
    pmi_peer *peer = pmi_zalloc(peers->env, sizeof *peer);
    if (!peer)
        return NULL;
    peer->owner = peers;
    pmi_list_init(&peer->calls);
    pmi_list_init(&peer->served);
    pmi_buf_init(&peer->waiting, peers->env,
                 pmi_app_limits(peers->app)->peer_queue_bytes);
    return peer;
}

/* The port of a master is for its own protocol. */
static bool peers_has_port(const pm_server *server)
{
    return server->port && strcmp(server->type, "master") != 0;
}

pm_err pmi_peer_dial(pmi_peers *peers, pmi_server *server)
{
    pmi_peer *peer;
    if (!peers_has_port(&server->pub) || server->peer ||
        !strcmp(pm_app_server(peers->app)->type, "master"))
        return PM_OK; /* it opens no RPC port: it can not be called */
    peer = peer_new(peers);
    if (!peer)
        return PM_ENOMEM;
    peer->server = server;
    pmi_server_ref(server);
    server->peer = peer;
    pmi_list_add(&peers->dialled, &peer->in_all);
    peer_dial_now(peer);
    return PM_OK;
}

void pmi_peer_hang_up(pmi_peer *peer)
{
    pmi_peers *peers = peer->owner;
    peer->state = PMI_PEER_CLOSED;
    peers->ops->down(peer, PM_CLOSE_STOP);
    if (!peers->closed) /* by whoever was told: then it is freed already */
        peer_free(peer);
}

void pmi_peer_part(pmi_peer *peer)
{
    if (peer->state == PMI_PEER_UP &&
        !(pmi_list_empty(&peer->calls) && pmi_list_empty(&peer->served)))
        peer->parting = true;
    else
        pmi_peer_hang_up(peer);
}

pm_err pmi_peer_ready(const pmi_peer *peer)
{
    bool ready =
        peer->state == PMI_PEER_UP || peer->state == PMI_PEER_FIRST_DIAL;
    return ready && !peer->draining ? PM_OK : PM_EDOWN;
}

/* Before the link is there nothing is put on a scale: what there is no room
 * for is refused, or dropped when its terms allow it. */
static pm_err peer_no_room(const pmi_peers *peers, const pmi_terms *terms)
{
    if (terms && terms->policy != PM_PUSH_KEEP &&
        terms->policy != PM_PUSH_CLOSE) {
        pmi_count(peers->app, PMI_COUNT_LINK_DROPPED);
        return PM_EDROPPED;
    }
    pmi_count(peers->app, PMI_COUNT_LINK_REFUSED);
    return PM_ELIMIT;
}

pm_err pmi_peer_send(pmi_peer *peer, const pmi_frame *frame,
                     const pmi_terms *terms)
{
    pmi_frame_out out;
    size_t was = peer->waiting.len;
    pm_err err;
    if (peer->state == PMI_PEER_UP)
        return peer_offer(peer, frame, terms);
    if (peer->state != PMI_PEER_FIRST_DIAL)
        return PM_EDOWN;
    err = pmi_frame_encode(frame, &out);
    if (err)
        return err;
    if (out.total > peer->waiting.max - was)
        return peer_no_room(peer->owner, terms);
    for (size_t i = 0; i < out.count; i++)
        pmi_buf_add(&peer->waiting, out.parts[i].data, out.parts[i].len);
    if (!peer->waiting.failed)
        return PM_OK;
    peer->waiting.len = was;
    peer->waiting.failed = false;
    return PM_ENOMEM;
}

size_t pmi_peer_queued(const pmi_peer *peer)
{
    return peer->waiting.len + (peer->conn ? pmi_conn_queued(peer->conn) : 0);
}

size_t pm_server_queued(const pm_app *app, const char *id)
{
    const pmi_server *server = pmi_cluster_find(pmi_app_cluster(app), id);
    if (!server)
        return 0;
    return (server->peer ? pmi_peer_queued(server->peer) : 0) +
           (server->back ? pmi_peer_queued(server->back) : 0);
}

/* ---- Accepting --------------------------------------------------------- */

/* The door is full: who has stood there longest without a proof goes. A true
 * peer proves itself in a moment; strangers who say nothing do not keep it
 * out. */
static void peers_make_room(pmi_peers *peers)
{
    pmi_link *end = &peers->accepted;
    for (pmi_link *n = end->next; n != end; n = n->next) {
        pmi_peer *peer = PMI_OUTER(n, pmi_peer, in_all);
        if (peer->state == PMI_PEER_UP)
            continue;
        peer_gone(peer, PM_CLOSE_CONNECTIONS_MAX);
        return;
    }
}

static void peer_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    pmi_peers *peers = ctx;
    pm_loop *loop = pm_app_loop(peers->app);
    pmi_peer *peer;
    (void)listener;
    if (peers->unproven >= PEER_UNPROVEN_MAX)
        peers_make_room(peers);
    peer = peer_new(peers);
    if (!peer) {
        peers->refused[PM_CLOSE_MEMORY]++;
        pmi_conn_free(conn);
        return;
    }
    peers->unproven++;
    peer->conn = conn;
    peer->state = PMI_PEER_WAIT_HELLO;
    pmi_loop_random(loop, peer->nonce, sizeof peer->nonce);
    pmi_list_add(&peers->accepted, &peer->in_all);
    pmi_timer_set(loop, &peer->timer, (uint64_t)PEER_PROOF_MS * 1000,
                  peer_unproven);
    pmi_conn_start(conn, &peer_events, peer);
}

static const char *peers_bind(const pmi_peers *peers)
{
    const char *bind = pmi_app_rpc_bind(peers->app);
    return bind ? bind : pm_app_server(peers->app)->host;
}

/* Off loopback a link must be proven, by certificates or by a secret, and the
 * bytes protected or the lack of it agreed to. */
static pm_err peers_check_open(const pmi_peers *peers)
{
    const pm_rpc_opts_app *opts = pmi_app_rpc_opts(peers->app);
    const char *host = peers_bind(peers);
    pmi_addr addr;
    if (pmi_loop_memory_only(pm_app_loop(peers->app)) ||
        (pmi_addr_parse(&addr, host, 0) && pmi_addr_is_loopback(&addr)))
        return PM_OK;
    if (peers->server_tls || (opts->secret && opts->insecure_plain))
        return PM_OK;
    PMI_LOG(peers->env, PM_LOG_ERROR, "rpc",
            "the RPC port on %s is reachable from other machines: %s", host,
            opts->secret ? "a secret without TLS needs rpc.insecure_plain"
                         : "it needs rpc.tls or rpc.secret");
    return PM_ECONFIG;
}

pm_err pmi_peers_start(pmi_peers *peers)
{
    const pm_server *self = pm_app_server(peers->app);
    pmi_listen_opts opts = {0};
    pm_err err;
    peers->closed = false;
    peers->incarnation = pmi_loop_random_u64(pm_app_loop(peers->app)) | 1;
    if (!peers_has_port(self))
        return PM_OK;
    err = peers_check_open(peers);
    if (err)
        return err;
    opts.host = peers_bind(peers);
    opts.port = self->port;
    opts.framing = PMI_FRAMING_STREAM;
    opts.limits = peer_limits(peers);
    opts.tls = peers->server_tls;
    opts.accepted = peer_accepted;
    opts.ctx = peers;
    return pmi_listen(pm_app_loop(peers->app), &opts, &peers->listener);
}

static void peers_shut(pmi_peers *peers)
{
    pmi_listener_close(peers->listener);
    peers->listener = NULL;
}

/* Frames are heard in order, so the answer to a PING behind a DRAIN comes
 * behind the last call. Only who dials asks by PING otherwise. */
void pmi_peers_drain(pmi_peers *peers)
{
    static const pmi_frame drain = {.kind = PMI_FRAME_DRAIN};
    static const pmi_frame ping = {.kind = PMI_FRAME_PING};
    peers_shut(peers);
    for (pmi_link *n = peers->accepted.next; n != &peers->accepted;
         n = n->next) {
        pmi_peer *peer = PMI_OUTER(n, pmi_peer, in_all);
        if (peer->state != PMI_PEER_UP)
            peer_close(peer, PM_CLOSE_STOP);
        else
            peer->asked = pmi_peer_send(peer, &drain, NULL) == PM_OK &&
                          pmi_peer_send(peer, &ping, NULL) == PM_OK;
    }
}

bool pmi_peers_heard(const pmi_peers *peers)
{
    for (const pmi_link *n = peers->accepted.next; n != &peers->accepted;
         n = n->next)
        if (PMI_OUTER(n, pmi_peer, in_all)->asked)
            return false;
    return true;
}

void pmi_peers_close(pmi_peers *peers)
{
    peers->closed = true;
    peers_shut(peers);
    while (!pmi_list_empty(&peers->dialled)) {
        pmi_peer *peer = PMI_OUTER(peers->dialled.next, pmi_peer, in_all);
        if (peer->conn)
            pmi_conn_flush(peer->conn); /* notifies of this turn */
        peer_free(peer);
    }
    while (!pmi_list_empty(&peers->accepted)) {
        pmi_peer *peer = PMI_OUTER(peers->accepted.next, pmi_peer, in_all);
        pmi_conn_flush(peer->conn);
        peer_free(peer);
    }
    peers->unproven = 0;
}
