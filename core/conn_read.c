/* SPDX-License-Identifier: MIT */
/* core/conn_read.c -- how bytes come in: sniffing, upgrade, stream, frames.
 *
 * One read a readiness into the loop's buffer, behind what was left over;
 * parsed there; the rest goes into a chunk of this connection (`tail`). A tail
 * that has grown large is read into directly, so that a large message is not
 * copied again and again. Work stops after a whole unit when the turn's budget
 * is spent, and goes on in the next turn by a task.
 * Start reading at pmi_conn_ready(). */
#include "conn_read.h"

enum {
    CONN_TAIL_DIRECT = 32 * 1024, /* a tail from here on is read into */
    CONN_CONTROL_MAX = 125,       /* payload of a ping, pong or close */
    CONN_TLS_HELLO = 0x16
};

/* ---- Behind a proxy ---------------------------------------------------- */
/* False: it is not to be read on. */
static bool conn_welcome(pmi_conn *c, pm_close_reason refused)
{
    if (refused)
        pmi_conn_end(c, refused);
    return pmi_conn_alive(c);
}

static bool conn_proxy_done(pmi_conn *c, const pmi_proxy *told)
{
    const pmi_conn_front *front = c->extra->front;
    pmi_free(pmi_conn_env(c), c->extra->proxy);
    c->extra->proxy = NULL;
    if (told->told)
        c->peer = told->from;
    c->state =
        c->framing == PMI_FRAMING_STREAM ? PMI_CONN_STREAM : PMI_CONN_SNIFFING;
    return conn_welcome(c, front->proxied(c, c->extra->front_ctx));
}

/* Reads the header to its end and not further: what follows may be TLS. True:
 * it is through. */
static bool conn_read_proxy(pmi_conn *c)
{
    pmi_conn_proxy *proxy = c->extra->proxy;
    pmi_proxy told;
    bool reset = false;
    for (;;) {
        size_t wants;
        long n = pmi_proxy_parse(proxy->data, proxy->len, &told, &wants);
        if (n > 0)
            return conn_proxy_done(c, &told);
        if (n < 0) {
            pmi_conn_end(c, PM_CLOSE_PROXY);
            return false;
        }
        n = pmi_sock_read(c->via.watch.fd, proxy->data + proxy->len, wants,
                          &reset);
        if (n < 0)
            pmi_conn_end(c, reset ? PM_CLOSE_RESET : PM_CLOSE_CLIENT);
        if (n <= 0)
            return false;
        proxy->len += (size_t)n;
    }
}

/* ---- Settling the framing ---------------------------------------------- */
static void conn_tell_open(pmi_conn *c)
{
    if (c->opened)
        return;
    c->opened = true;
    if (c->events->open)
        c->events->open(c, c->ctx);
}

void pmi_conn_settle(pmi_conn *c, pmi_framing framing)
{
    c->framing = (uint32_t)framing & 3;
    c->state = framing == PMI_FRAMING_WS ? PMI_CONN_FRAMES : PMI_CONN_STREAM;
    pmi_conn_extra_free(c);
    if (c->out.bytes)
        pmi_conn_mark_dirty(c);
    conn_tell_open(c);
}

void pmi_conn_reached(pmi_conn *c)
{
    if (pmi_conn_is_ws(c)) {
        c->state = PMI_CONN_UPGRADING;
        pmi_conn_write_out(c);
    } else {
        pmi_conn_settle(c, PMI_FRAMING_STREAM);
    }
}

static const char conn_refusal[] = "HTTP/1.1 400 Bad Request\r\n"
                                   "Connection: close\r\n"
                                   "Content-Length: 0\r\n\r\n";

/* The head of a request: answers with 101, or with 400 and the end. */
static size_t conn_upgrade(pmi_conn *c, const uint8_t *data, size_t len)
{
    pmi_http_head head = {0};
    pmi_buf answer;
    pm_err err = PM_EHTTP;
    long used = pmi_http_request_parse(data, len, &head);
    if (used == PMI_WS_MORE)
        return 0;
    if (used > 0 && head.forwarded_count && c->extra->front &&
        !conn_welcome(c, c->extra->front->forwarded(c, head.forwarded_for,
                                                    head.forwarded_count,
                                                    c->extra->front_ctx)))
        return 0;
    pmi_buf_init(&answer, pmi_conn_env(c), 2 * PMI_HTTP_HEAD_MAX);
    if (used > 0)
        err = pmi_ws_answer_upgrade(&head, &answer);
    else
        pmi_buf_add_text(&answer, conn_refusal);
    if (answer.failed || !pmi_conn_put(c, pmi_buf_slice(&answer))) {
        pmi_buf_fini(&answer);
        pmi_conn_end(c, PM_CLOSE_MEMORY);
        return 0;
    }
    pmi_buf_fini(&answer);
    if (err != PM_OK) {
        if (head.upgrade_websocket || !c->extra->pieces)
            pmi_conn_write_out(c);
        pmi_conn_end(c, PM_CLOSE_HTTP);
        return 0;
    }
    pmi_conn_settle(c, PMI_FRAMING_WS);
    return (size_t)used;
}

/* First bytes of an incoming connection. */
static size_t conn_sniff(pmi_conn *c, const uint8_t *data, size_t len)
{
    if (data[0] == CONN_TLS_HELLO) {
        pmi_conn_end(c, PM_CLOSE_TLS_ON_PLAIN);
        return 0;
    }
    if (c->framing == PMI_FRAMING_SNIFF) {
        int http = pmi_http_sniff(data, len);
        if (http > 0 && c->only_get && data[0] != 'G')
            http = -1;
        if (http == 0)
            c->extra->pieces = true;
        if (http < 0)
            pmi_conn_settle(c, PMI_FRAMING_STREAM);
        if (http <= 0)
            return 0;
    }
    return conn_upgrade(c, data, len);
}

/* The server's answer to our upgrade request. */
static size_t conn_upgraded(pmi_conn *c, const uint8_t *data, size_t len)
{
    pmi_http_head head = {0};
    long used = pmi_http_response_parse(data, len, &head);
    if (used == PMI_WS_MORE)
        return 0;
    pm_slice want = {c->extra->accept_key, strlen(c->extra->accept_key)};
    if (used < 0 || head.status != 101 || !head.upgrade_websocket ||
        !pmi_slice_eq(head.ws_accept, want) || c->extra->request_left) {
        pmi_conn_end(c, PM_CLOSE_HTTP);
        return 0;
    }
    pmi_conn_settle(c, PMI_FRAMING_WS);
    return (size_t)used;
}

/* ---- Reading ----------------------------------------------------------- */
/* True while bytes may be handed to the owner. */
static bool conn_hears(const pmi_conn *c)
{
    return !c->paused &&
           (c->state == PMI_CONN_STREAM || c->state == PMI_CONN_FRAMES);
}

static size_t conn_stream(pmi_conn *c, uint8_t *data, size_t len)
{
    size_t used = 0, step;
    const pmi_conn_events *events;
    conn_tell_open(c);
    while (used < len && conn_hears(c)) {
        events = c->events;
        step = events->data(c, data + used, len - used, c->ctx);
        PMI_ASSERT(step <= len - used);
        used += pmi_min(step, len - used);
        /* New callbacks see at once what the old ones have left. */
        if (events == c->events)
            break;
    }
    return used;
}

/* A malformed frame, or one that is too large. */
static void conn_bad_frame(pmi_conn *c, uint16_t code)
{
    pmi_conn_close(c, code == 1009 ? PM_CLOSE_PACKAGE_SIZE : PM_CLOSE_WS, false,
                   code);
    pmi_conn_end(c, PM_CLOSE_WS);
}

static void conn_peer_closes(pmi_conn *c, uint16_t code)
{
    if (c->state == PMI_CONN_FRAMES)
        pmi_conn_close(c, PM_CLOSE_CLIENT, false, code == 1005 ? 1000 : code);
    pmi_conn_end(c, PM_CLOSE_CLIENT);
}

static void conn_frame(pmi_conn *c, pmi_frames_event *event)
{
    bool open = c->state == PMI_CONN_FRAMES;
    switch (event->kind) {
    case PMI_FRAMES_MESSAGE:
        if (open)
            c->events->message(c, event->data, event->len, event->text, c->ctx);
        break;
    case PMI_FRAMES_PING:
        if (!open || c->out.bytes + CONN_CONTROL_MAX > c->out_max)
            break;
        pmi_conn_control(c, PMI_WS_PONG, event->data, event->len);
        pmi_conn_grown(c);
        break;
    case PMI_FRAMES_CLOSE:
        conn_peer_closes(c, event->code);
        break;
    case PMI_FRAMES_BAD:
        conn_bad_frame(c, event->code);
        break;
    case PMI_FRAMES_NOMEM:
        pmi_conn_end(c, PM_CLOSE_MEMORY);
        break;
    default:
        break;
    }
    pmi_fragments_free(event->joined);
}

static size_t conn_frames(pmi_conn *c, uint8_t *data, size_t len)
{
    pmi_fragments **parts =
        PMI_UNLIKELY(c->tls) ? &c->secure->parts : &c->parts;
    size_t used = 0;
    pmi_frames_event event;
    while (used < len && !c->paused && c->state < PMI_CONN_ENDED) {
        used += pmi_frames_next(parts, pmi_conn_env(c), !c->client, c->in_max,
                                data + used, len - used, &event);
        if (event.kind == PMI_FRAMES_MORE)
            break;
        conn_frame(c, &event);
        if (used < len && pmi_loop_over_budget(pmi_conn_home(c)))
            break;
    }
    return used;
}

/* Hands bytes to whom they concern now. Returns how many are used up. */
static size_t conn_dispatch(pmi_conn *c, uint8_t *data, size_t len)
{
    size_t used = 0;
    if (c->state == PMI_CONN_SNIFFING)
        used = conn_sniff(c, data, len);
    else if (c->state == PMI_CONN_UPGRADING)
        used = conn_upgraded(c, data, len);
    if (c->state == PMI_CONN_LINGERING && c->framing == PMI_FRAMING_STREAM)
        return len;
    if (used == len || c->paused)
        return used;
    if (c->state == PMI_CONN_STREAM)
        used += conn_stream(c, data + used, len - used);
    else if (c->framing == PMI_FRAMING_WS &&
             (c->state == PMI_CONN_FRAMES || c->state == PMI_CONN_LINGERING))
        used += conn_frames(c, data + used, len - used);
    return used;
}

static void conn_redeliver(pmi_task *task);

/* Keeps what was not used up. `held` is the old tail, ours to keep or give
 * back; the bytes may lie in it. */
static void conn_keep(pmi_conn *c, pmi_chunk *held, const uint8_t *rest,
                      size_t len)
{
    bool inside = held && rest >= held->data && rest <= held->data + held->cap;
    bool wasteful = held && held->cap > CONN_TAIL_DIRECT && len < held->cap / 4;
    if (inside && !wasteful) {
        c->tail = held;
        c->tail_at = (uint32_t)(rest - held->data);
        held->len = c->tail_at + (uint32_t)len;
        return;
    }
    c->tail_at = 0;
    c->tail = held;
    if (!held || wasteful || held->cap < len)
        c->tail = pmi_loop_chunk(pmi_conn_home(c), len);
    if (c->tail) {
        memcpy(c->tail->data, rest, len);
        c->tail->len = (uint32_t)len;
        c->shared->totals.body_copies++;
    }
    if (c->tail != held)
        pmi_chunk_unref(held);
    if (!c->tail)
        pmi_conn_end(c, PM_CLOSE_MEMORY);
}

/* Bytes have come, or come again. While callbacks run the tail is out of the
 * connection, so that freeing it there does not pull the bytes away. */
static void conn_deliver(pmi_conn *c, uint8_t *data, size_t len)
{
    pmi_chunk *held = c->tail;
    c->tail = NULL;
    c->again = false;
    size_t used = conn_dispatch(c, data, len);
    if (c->state >= PMI_CONN_ENDED || used == len) {
        pmi_chunk_unref(held);
        return;
    }
    conn_keep(c, held, data + used, len - used);
    if (c->state >= PMI_CONN_ENDED || c->paused)
        return;
    bool large = c->state == PMI_CONN_STREAM && len - used > c->in_max;
    if (c->again ||
        ((used > 0 || large) && pmi_loop_over_budget(pmi_conn_home(c))))
        pmi_loop_defer(pmi_conn_home(c), &c->later, conn_redeliver);
    else if (large)
        pmi_conn_end(c, PM_CLOSE_PACKAGE_SIZE);
}

static void conn_redeliver(pmi_task *task)
{
    pmi_conn *c = PMI_OUTER(task, pmi_conn, later);
    if (c->tail && !c->paused)
        conn_deliver(c, c->tail->data + c->tail_at, c->tail->len - c->tail_at);
}

/* Room behind a large tail. */
static bool conn_tail_grow(pmi_conn *c, size_t have)
{
    pmi_chunk *tail = c->tail, *more;
    if (tail->cap - tail->len >= CONN_TAIL_DIRECT)
        return true;
    more = pmi_loop_chunk(pmi_conn_home(c), have * 2);
    if (!more)
        return false;
    memcpy(more->data, tail->data + c->tail_at, have);
    more->len = (uint32_t)have;
    c->tail = more;
    c->tail_at = 0;
    c->shared->totals.body_copies++;
    pmi_chunk_unref(tail);
    return true;
}

/* Some of the handshake has come. */
static void conn_secured(pmi_conn *c)
{
    if (pmi_tls_is_up(pmi_conn_tls(c)))
        pmi_conn_reached(c);
}

static void conn_readable(pmi_conn *c)
{
    size_t have = c->tail ? c->tail->len - c->tail_at : 0;
    size_t cap = PMI_READ_BUFFER_BYTES;
    uint8_t *data = pmi_loop_read_buffer(pmi_conn_home(c));
    pm_close_reason reason;
    if (pmi_task_waits(&c->later))
        return; /* what is here comes first */
    if (PMI_UNLIKELY(c->state == PMI_CONN_PROXIED) && !conn_read_proxy(c))
        return;
    if (c->paused) {
        pmi_conn_want(c, (int)c->want & ~PMI_READABLE);
        return;
    }
    if (have >= CONN_TAIL_DIRECT) {
        if (!conn_tail_grow(c, have)) {
            pmi_conn_end(c, PM_CLOSE_MEMORY);
            return;
        }
        data = c->tail->data + c->tail_at;
        cap = c->tail->cap - c->tail_at;
    } else if (have) {
        memcpy(data, c->tail->data + c->tail_at, have);
    }
    long n = pmi_conn_receive(c, data + have, cap - have, &reason);
    if (n < 0)
        pmi_conn_end(c, reason);
    else if (PMI_UNLIKELY(c->state == PMI_CONN_SECURING))
        conn_secured(c);
    if (n <= 0 || c->state >= PMI_CONN_ENDED)
        return;
    conn_deliver(c, data, have + (size_t)n);
    pmi_conn_relieve(c);
}

static void conn_writable(pmi_conn *c)
{
    const uint64_t *left = &c->shared->totals.bytes_out;
    uint64_t had = *left;
    c->blocked = false;
    pmi_conn_write_out(c);
    c->moved |= *left > had; /* also a part of a long TLS record */
    if (c->state >= PMI_CONN_ENDED)
        return;
    if (!c->blocked)
        pmi_conn_want(c, (int)c->want & ~PMI_WRITABLE);
    pmi_conn_linger_on(c);
    pmi_conn_tell_drained(c);
}

void pmi_conn_ready(void *ctx, int what)
{
    pmi_conn *c = ctx;
    if (what & PMI_PIPE_CUT)
        pmi_conn_end(c, PM_CLOSE_CUT);
    if ((what & PMI_WRITABLE) && c->blocked && c->state < PMI_CONN_ENDED)
        conn_writable(c);
    if ((what & PMI_READABLE) && c->state < PMI_CONN_ENDED)
        conn_readable(c);
}

void pmi_conn_watch_ready(pmi_watch *watch, int what)
{
    pmi_conn_ready(PMI_OUTER(watch, pmi_conn, via.watch), what);
}

void pmi_conn_pause(pmi_conn *c)
{
    /* The watch goes when something comes: most pauses are short. */
    if (pmi_conn_alive(c))
        c->paused = true;
}

void pmi_conn_resume(pmi_conn *c)
{
    if (!c->paused || !pmi_conn_alive(c))
        return;
    c->paused = false;
    c->again = true;
    if (c->state == PMI_CONN_NEW || c->state == PMI_CONN_DIALLING)
        return;
    pmi_conn_want(c, (int)c->want | PMI_READABLE);
    if (c->tail && pmi_conn_alive(c))
        pmi_loop_defer(pmi_conn_home(c), &c->later, conn_redeliver);
}
