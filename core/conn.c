/* SPDX-License-Identifier: MIT */
/* core/conn.c -- a connection: its transport, its queue, its end.
 *
 * Writing: what is sent waits in a queue and leaves in one write at the end of
 * the turn. When a thousand connections become ready in one turn, all but the
 * first of them write as soon as their owner has answered: a thousand chunks
 * would be in use otherwise, and stay. Ending: the transport is given up at
 * once, `closed` comes on a later turn, the storage goes when no callback
 * stands on it any more.
 *
 * Two transports, a descriptor and a pipe, differ in four small functions
 * (pmi_conn_receive, conn_write_once, pmi_conn_want, conn_detach); TLS stands
 * between a descriptor and all the rest in the first two of them. How bytes
 * come in is in conn_read.c, how connections are made in conn_open.c.
 * Start reading at pmi_conn_send(). */
#include "conn_internal.h"

enum {
    CONN_INLINE_FLUSH = 256 * 1024,
    CONN_WAITING_MAX = 2,       /* connections that hold a chunk for a turn */
    CONN_LOW_WATER = 16 * 1024, /* over it, `drained` tells when all has left */
    CONN_COPY_MAX = 256,  /* smaller shared chunks are copied where cheap */
    CONN_PACK_MAX = 1024, /* and these for a slow peer, as they will lie long */
    CONN_LINGER_MS = 30000
};

_Static_assert(PM_CLOSE_COUNT <= 64, "pmi_conn.reason has six bits");

/* ---- What a loop's connections share ----------------------------------- */
static void conn_shared_free(pm_loop *loop, void *data)
{
    pmi_conn_shared *shared = data;
    pmi_task_cancel(&shared->flush);
    pmi_segment_pool_fini(&shared->segments);
    pmi_free(pmi_loop_env(loop), shared);
}

pmi_conn_shared *pmi_conn_shared_of(pm_loop *loop)
{
    pmi_conn_shared *shared = pmi_loop_slot(loop);
    if (shared)
        return shared;
    shared = pmi_zalloc(pmi_loop_env(loop), sizeof *shared);
    if (!shared)
        return NULL;
    shared->segments.loop = loop;
    pmi_list_init(&shared->dirty);
    pmi_list_init(&shared->behind);
    pmi_loop_set_slot(loop, shared, conn_shared_free);
    return shared;
}

const pmi_conn_totals *pmi_conn_totals_of(pm_loop *loop)
{
    static const pmi_conn_totals none = {0};
    const pmi_conn_shared *shared = pmi_loop_slot(loop);
    return shared ? &shared->totals : &none;
}

static uint64_t conn_waiting_in(const pmi_link *list, uint8_t tally)
{
    uint64_t bytes = 0;
    for (const pmi_link *at = list->next; at != list; at = at->next) {
        const pmi_conn *c = PMI_OUTER(at, pmi_conn, dirty);
        if (c->tally == tally)
            bytes += c->out.bytes;
    }
    return bytes;
}

uint64_t pmi_conn_waiting(pm_loop *loop, uint8_t tally)
{
    const pmi_conn_shared *shared = pmi_loop_slot(loop);
    return shared ? conn_waiting_in(&shared->dirty, tally) +
                        conn_waiting_in(&shared->behind, tally)
                  : 0;
}

static void conn_count_in(pmi_conn *c, uint64_t n)
{
    c->shared->totals.bytes_in += n;
    c->shared->totals.by[c->tally].in += n;
}

static void conn_count_out(pmi_conn *c, uint64_t n)
{
    c->shared->totals.bytes_out += n;
    c->shared->totals.by[c->tally].out += n;
}

/* ---- The two transports ------------------------------------------------ */
void pmi_conn_want(pmi_conn *c, int want)
{
    if (!c->attached || c->want == (uint32_t)want)
        return;
    c->want = (uint32_t)want & 3;
    if (c->memory)
        pmi_pipe_want(c->via.pipe, want);
    else if (pmi_watch_set(&c->via.watch, want) != PM_OK)
        pmi_conn_end(c, PM_CLOSE_MEMORY);
}

/* What TLS has to say leaves as far as it goes. False: the other side is gone.
 */
static bool conn_write_wire(pmi_conn *c, bool *all)
{
    pmi_queue *wire = pmi_tls_wire(pmi_conn_tls(c));
    pmi_iov iov[PMI_IOV_MAX];
    while (wire->bytes) {
        int count = pmi_queue_gather(wire, iov, PMI_IOV_MAX);
        size_t offered = 0;
        for (int i = 0; i < count; i++)
            offered += iov[i].len;
        long n = pmi_sock_write(c->via.watch.fd, iov, count);
        if (n < 0)
            return false;
        c->shared->totals.writes++;
        conn_count_out(c, (uint64_t)n);
        pmi_queue_sent(wire, &c->shared->segments, (size_t)n);
        if ((size_t)n < offered)
            break;
    }
    *all = wire->bytes == 0;
    return true;
}

/* Our goodbye, when all before it has left. Nobody waits for the answer. */
static void conn_bid_tls(pmi_conn *c)
{
    bool all;
    if (c->out.bytes || c->blocked)
        return;
    pmi_tls_bid(pmi_conn_tls(c));
    conn_write_wire(c, &all);
}

static void conn_detach(pmi_conn *c)
{
    if (!c->attached)
        return;
    if (PMI_UNLIKELY(c->tls))
        conn_bid_tls(c);
    c->attached = false;
    if (c->memory) {
        pmi_pipe_close(c->via.pipe);
        return;
    }
    int fd = c->via.watch.fd;
    pmi_watch_fini(&c->via.watch);
    pmi_sock_close(fd);
}

/* Cipher text is read into the end of the room and opened into its front, which
 * never catches up: no second buffer. The last words of a session that has come
 * to its end behind other bytes are told by the next call; the descriptor is
 * made readable for it. */
static long conn_receive_tls(pmi_conn *c, uint8_t *data, size_t len,
                             pm_close_reason *reason)
{
    size_t room = len - PMI_TLS_RECORD_MAX;
    uint8_t *in = data + PMI_TLS_RECORD_MAX;
    bool reset = false, all;
    long n, got;
    PMI_ASSERT(len > PMI_TLS_RECORD_MAX);
    if (!pmi_tls_may_work(pmi_conn_tls(c)))
        return 0;
    n = pmi_sock_read(c->via.watch.fd, in, room, &reset);
    c->shared->totals.reads++;
    if (n < 0 && !pmi_tls_is_over(pmi_conn_tls(c))) {
        *reason = reset ? PM_CLOSE_RESET : PM_CLOSE_CLIENT;
        if (c->state == PMI_CONN_SECURING)
            *reason = PM_CLOSE_TLS;
        return -1;
    }
    if (n > 0)
        conn_count_in(c, (uint64_t)n);
    got =
        pmi_tls_open(pmi_conn_tls(c), in, n > 0 ? (size_t)n : 0, data, reason);
    if (got < 0)
        conn_write_wire(c, &all); /* the alert that tells why */
    else if (pmi_conn_pending(c) && !c->blocked)
        pmi_conn_mark_dirty(c); /* also what has waited for the handshake */
    if (got > 0 && pmi_tls_is_over(pmi_conn_tls(c)))
        pmi_sock_shutdown_read(c->via.watch.fd);
    return got;
}

/* > 0 bytes, 0 nothing there, -1 the end, with its reason. */
long pmi_conn_receive(pmi_conn *c, uint8_t *data, size_t len,
                      pm_close_reason *reason)
{
    bool reset = false;
    if (PMI_UNLIKELY(c->tls))
        return conn_receive_tls(c, data, len, reason);
    long n = c->memory ? pmi_pipe_read(c->via.pipe, data, len)
                       : pmi_sock_read(c->via.watch.fd, data, len, &reset);
    c->shared->totals.reads++;
    if (n > 0)
        conn_count_in(c, (uint64_t)n);
    *reason = reset ? PM_CLOSE_RESET : PM_CLOSE_CLIENT;
    return n;
}

/* As conn_write_once: a lot of plain bytes becomes records, and they leave. */
static bool conn_write_tls(pmi_conn *c)
{
    bool upgrading = c->state == PMI_CONN_UPGRADING, all = false;
    pm_close_reason reason = PM_CLOSE_RESET;
    size_t max = upgrading ? c->extra->request_left : SIZE_MAX;
    long sealed = 0;
    if (c->state != PMI_CONN_SECURING)
        sealed = pmi_tls_seal(pmi_conn_tls(c), &c->out, max, &reason);
    if (upgrading && sealed > 0)
        c->extra->request_left -= (size_t)sealed;
    if (sealed < 0 || !conn_write_wire(c, &all)) {
        pmi_conn_end(c, reason);
        return true;
    }
    return all;
}

/* One write. False: nothing more can be written now; what is left over
 * waits. */
static bool conn_write_once(pmi_conn *c)
{
    pmi_iov iov[PMI_IOV_MAX];
    size_t offered = 0;
    long n;
    if (PMI_UNLIKELY(c->tls))
        return conn_write_tls(c);
    c->shared->totals.writes++;
    if (c->memory) {
        size_t moved = pmi_pipe_write(c->via.pipe, &c->out, false);
        conn_count_out(c, moved);
        return c->out.bytes == 0;
    }
    /* Before the 101 only the request, the first segment, may leave. */
    int max = c->state == PMI_CONN_UPGRADING ? 1 : PMI_IOV_MAX;
    int count = pmi_queue_gather(&c->out, iov, max);
    for (int i = 0; i < count; i++)
        offered += iov[i].len;
    n = pmi_sock_write(c->via.watch.fd, iov, count);
    if (n < 0) {
        pmi_conn_end(c, PM_CLOSE_RESET);
        return true;
    }
    conn_count_out(c, (uint64_t)n);
    pmi_queue_sent(&c->out, &c->shared->segments, (size_t)n);
    if (c->state == PMI_CONN_UPGRADING)
        c->extra->request_left -= (size_t)n;
    return (size_t)n == offered;
}

/* ---- Writing out ------------------------------------------------------- */
/* May what is queued leave? */
static bool conn_may_write(const pmi_conn *c)
{
    if (!c->attached || c->blocked)
        return false;
    if (PMI_UNLIKELY(c->tls)) {
        if (pmi_tls_wire(pmi_conn_tls(c))->bytes)
            return true;
        if (!pmi_tls_is_up(pmi_conn_tls(c)) || c->state == PMI_CONN_SECURING)
            return false;
    }
    if (c->out.bytes == 0)
        return false;
    return c->state == PMI_CONN_UPGRADING ? c->extra->request_left > 0
                                          : c->state > PMI_CONN_UPGRADING;
}

void pmi_conn_write_out(pmi_conn *c)
{
    pmi_list_remove(&c->dirty);
    while (conn_may_write(c)) {
        if (conn_write_once(c))
            continue;
        c->blocked = true;
        if (c->out.bytes > c->out_max / 4)
            c->pressed = true;
        pmi_conn_want(c, (int)c->want | PMI_WRITABLE);
    }
    if (c->out.books && c->out.bytes == 0)
        pmi_queue_close_books(&c->out, &c->shared->segments);
    if (c->blocked && c->attached)
        pmi_list_add(&c->shared->behind, &c->dirty);
}

void pmi_conn_tell_drained_now(pmi_conn *c)
{
    if (c->pressed || c->eager)
        pmi_conn_tell_relief(c);
    if (!c->high || pmi_conn_pending(c) || !pmi_conn_alive(c))
        return;
    c->high = false;
    if (c->events->drained)
        c->events->drained(c, c->ctx);
}

static void conn_flush_dirty(pmi_task *task)
{
    pmi_conn_shared *shared = PMI_OUTER(task, pmi_conn_shared, flush);
    pmi_link now, *node;
    pmi_list_init(&now);
    pmi_list_move(&now, &shared->dirty);
    while ((node = pmi_list_take(&now)) != NULL) {
        pmi_conn *c = PMI_OUTER(node, pmi_conn, dirty);
        pmi_conn_write_out(c);
        pmi_conn_tell_drained(c);
    }
}

void pmi_conn_mark_dirty(pmi_conn *c)
{
    pmi_conn_shared *shared = c->shared;
    if (pmi_link_in(&c->dirty))
        return;
    pmi_list_add(&shared->dirty, &c->dirty);
    if (!pmi_task_waits(&shared->flush))
        pmi_loop_flush_later(shared->segments.loop, &shared->flush,
                             conn_flush_dirty);
}

/* Do more than a few wait for the end of the turn? */
static bool conn_crowd_waits(const pmi_conn_shared *shared)
{
    const pmi_link *at = shared->dirty.next;
    int count = 0;
    for (; at != &shared->dirty && count <= CONN_WAITING_MAX; at = at->next)
        count++;
    return count > CONN_WAITING_MAX;
}

void pmi_conn_relieve(pmi_conn *c)
{
    if (pmi_link_in(&c->dirty) && conn_crowd_waits(c->shared) &&
        pmi_conn_alive(c) && c->out.last && c->out.last->open)
        pmi_conn_flush(c);
}

/* Something was added to the queue. */
void pmi_conn_grown(pmi_conn *c)
{
    if (c->blocked && (c->out.books || c->out.bytes > c->out_max / 4))
        pmi_conn_swollen(c);
    if (c->out.bytes > CONN_LOW_WATER)
        c->high = true;
    if (c->out.bytes >= CONN_INLINE_FLUSH)
        pmi_conn_write_out(c);
    /* Also when all has left: `drained` is told by the flush. */
    if (!c->blocked && c->state < PMI_CONN_LINGERING && c->attached)
        pmi_conn_mark_dirty(c);
}

bool pmi_conn_put(pmi_conn *c, pm_slice bytes)
{
    uint8_t *p = pmi_queue_room(&c->out, &c->shared->segments, bytes.len);
    if (!p)
        return false;
    memcpy(p, bytes.data, bytes.len);
    pmi_queue_written(&c->out, &c->shared->segments, bytes.len);
    return true;
}

/* ---- The end ----------------------------------------------------------- */
void pmi_conn_extra_free(pmi_conn *c)
{
    pmi_conn_extra *extra = c->extra;
    if (!extra)
        return;
    c->extra = NULL;
    pmi_timer_clear(&extra->timer);
    pmi_dial_cancel(&extra->dial);
    pmi_free(pmi_conn_env(c), extra->proxy);
    pmi_free(pmi_conn_env(c), extra);
}

pm_err pmi_conn_extra_new(pmi_conn *c)
{
    if (c->extra)
        return PM_OK;
    c->extra = pmi_zalloc(pmi_conn_env(c), sizeof *c->extra);
    if (!c->extra)
        return PM_ENOMEM;
    c->extra->conn = c;
    return PM_OK;
}

pm_err pmi_conn_secure_new(pmi_conn *c, pmi_tls_realm *realm, const char *name)
{
    pmi_conn_secure *secure = pmi_zalloc(pmi_conn_env(c), sizeof *secure);
    if (!secure)
        return PM_ENOMEM;
    c->secure = secure;
    c->tls = true;
    secure->tls = pmi_tls_new(realm, &c->shared->segments, name);
    return secure->tls ? PM_OK : PM_ENOMEM;
}

static void conn_secure_free(pmi_conn *c)
{
    pmi_conn_secure *secure = c->secure;
    pmi_tls_free(secure->tls);
    c->tls = false;
    c->parts = secure->parts;
    pmi_free(pmi_conn_env(c), secure);
}

/* Gives back all but the storage itself. */
static void conn_release(pmi_conn *c)
{
    pmi_task_cancel(&c->later);
    pmi_list_remove(&c->dirty);
    pmi_conn_extra_free(c);
    conn_detach(c);
    pmi_queue_clear(&c->out, &c->shared->segments);
    pmi_chunk_unref(c->tail);
    c->tail = NULL;
    if (PMI_UNLIKELY(c->tls))
        conn_secure_free(c);
    pmi_fragments_free(c->parts);
    c->parts = NULL;
    c->reserved = 0;
}

static void conn_tell_closed(pmi_task *task)
{
    pmi_conn *c = PMI_OUTER(task, pmi_conn, later);
    c->events->closed(c, (pm_close_reason)c->reason, c->ctx);
}

/* The transport is given up now; the owner hears of it on a later turn. */
void pmi_conn_end(pmi_conn *c, pm_close_reason reason)
{
    if (c->state >= PMI_CONN_ENDED)
        return;
    if (c->state != PMI_CONN_LINGERING)
        c->reason = (uint32_t)reason & 63;
    c->state = PMI_CONN_ENDED;
    conn_release(c);
    if (c->events)
        pmi_loop_defer(pmi_conn_home(c), &c->later, conn_tell_closed);
}

static void conn_bury(pmi_task *task)
{
    pmi_conn *c = PMI_OUTER(task, pmi_conn, later);
    pm_loop *loop = pmi_conn_home(c);
    pmi_free(pmi_conn_env(c), c);
    pmi_loop_drop(loop);
}

void pmi_conn_free(pmi_conn *c)
{
    if (!c || c->state == PMI_CONN_FREED)
        return;
    c->state = PMI_CONN_FREED;
    conn_release(c);
    pmi_loop_bury(pmi_conn_home(c), &c->later, conn_bury);
}

void pmi_conn_expired(pmi_timer *timer)
{
    pmi_conn_extra *extra = PMI_OUTER(timer, pmi_conn_extra, timer);
    pmi_conn_end(extra->conn, PM_CLOSE_HANDSHAKE_TIMEOUT);
}

/* ---- Closing ----------------------------------------------------------- */
/* A control frame behind all that is queued; it may pass the limit, for it is
 * small. Nothing is sent when there is no memory for it. */
void pmi_conn_control(pmi_conn *c, uint8_t opcode, const void *data, size_t len)
{
    uint8_t mask[4], *p;
    size_t head = pmi_ws_head_size(len, c->client);
    p = pmi_queue_room(&c->out, &c->shared->segments, head + len);
    if (!p)
        return;
    if (c->client)
        pmi_loop_random(pmi_conn_home(c), mask, sizeof mask);
    pmi_ws_head_write(p, opcode, len, c->client ? mask : NULL);
    if (len)
        memcpy(p + head, data, len);
    if (c->client)
        pmi_ws_unmask(p + head, len, mask, 0);
    pmi_queue_written(&c->out, &c->shared->segments, head + len);
}

static void conn_close_frame(pmi_conn *c, uint16_t code)
{
    uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    pmi_conn_control(c, PMI_WS_CLOSE, payload, sizeof payload);
}

/* When all has left a lingering stream says so. */
void pmi_conn_linger_on(pmi_conn *c)
{
    if (c->state != PMI_CONN_LINGERING || pmi_conn_pending(c) ||
        c->framing != PMI_FRAMING_STREAM)
        return;
    if (PMI_UNLIKELY(c->tls)) {
        conn_bid_tls(c);
        if (pmi_tls_wire(pmi_conn_tls(c))->bytes)
            return;
    }
    pmi_sock_shutdown(c->via.watch.fd);
}

/* False: it could not be arranged. */
static bool conn_linger(pmi_conn *c, pm_close_reason reason)
{
    if (c->memory || pmi_conn_extra_new(c) != PM_OK)
        return false;
    c->reason = (uint32_t)reason & 63;
    c->state = PMI_CONN_LINGERING;
    c->paused = false;
    pmi_timer_set(pmi_conn_home(c), &c->extra->timer,
                  (uint64_t)CONN_LINGER_MS * 1000, pmi_conn_expired);
    pmi_chunk_unref(c->framing == PMI_FRAMING_STREAM ? c->tail : NULL);
    if (c->framing == PMI_FRAMING_STREAM)
        c->tail = NULL;
    pmi_conn_want(c, (int)c->want | PMI_READABLE);
    pmi_conn_linger_on(c);
    return true;
}

/* A socket that is closed while bytes wait unread is reset, and what we wrote
 * last may be lost with it: they are taken out first, a bounded lot. */
static void conn_discard(pmi_conn *c)
{
    uint8_t waste[4096];
    bool reset = false;
    if (c->memory || !c->attached)
        return;
    for (int i = 0; i < 32; i++)
        if (pmi_sock_read(c->via.watch.fd, waste, sizeof waste, &reset) <= 0)
            break;
}

void pmi_conn_close(pmi_conn *c, pm_close_reason reason, bool linger,
                    uint16_t ws_code)
{
    if (!pmi_conn_alive(c))
        return;
    bool open = c->state == PMI_CONN_STREAM || c->state == PMI_CONN_FRAMES;
    if (c->state == PMI_CONN_FRAMES)
        conn_close_frame(c, ws_code ? ws_code : 1000);
    if (open && c->memory)
        pmi_pipe_write(c->via.pipe, &c->out, true);
    else if (open)
        pmi_conn_write_out(c);
    if (!pmi_conn_alive(c)) /* the write has found it dead */
        return;
    if (linger && open && conn_linger(c, reason))
        return;
    conn_discard(c);
    pmi_conn_end(c, reason);
}

bool pmi_conn_is_closing(const pmi_conn *c)
{
    return !pmi_conn_alive(c);
}

/* ---- Sending ----------------------------------------------------------- */
/* Is there room for `len` more bytes, head included? */
static inline pm_err conn_may_send(pmi_conn *c, size_t len)
{
    pm_err err = pmi_conn_can_send(c);
    if (PMI_LIKELY(!err && len <= c->out_max &&
                   c->out.bytes <= c->out_max - len && !c->out.books))
        return PM_OK;
    return err ? err : pmi_conn_room(c, len, NULL);
}

/* The head in front of `len` bytes of payload that lie at p + head size;
 * masks them when we are the client. Returns all bytes. */
static size_t conn_frame_write(pmi_conn *c, uint8_t *p, size_t len)
{
    uint8_t mask[4];
    if (!pmi_conn_is_ws(c))
        return len;
    if (c->client)
        pmi_loop_random(pmi_conn_home(c), mask, sizeof mask);
    size_t head =
        pmi_ws_head_write(p, PMI_WS_BINARY, len, c->client ? mask : NULL);
    if (c->client)
        pmi_ws_unmask(p + head, len, mask, 0);
    return head + len;
}

size_t pmi_conn_message_write(pmi_conn *c, uint8_t *p, const pm_slice *parts,
                              size_t count, size_t len)
{
    uint8_t *at = p + pmi_conn_head_size(c, len);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    c->shared->totals.body_copies++;
    return conn_frame_write(c, p, len);
}

/* In a chunk of its own, ahead of what waits. */
static pm_err conn_send_ahead(pmi_conn *c, const pm_slice *parts, size_t count,
                              size_t len)
{
    size_t all = pmi_conn_head_size(c, len) + len;
    pmi_chunk *chunk = pmi_chunk_new(pmi_conn_env(c), all);
    if (!chunk)
        return PM_ENOMEM;
    chunk->len =
        (uint32_t)pmi_conn_message_write(c, chunk->data, parts, count, len);
    pm_err err = pmi_queue_add(&c->out, &c->shared->segments, chunk, 0, true);
    pmi_chunk_unref(chunk);
    if (err == PM_OK && c->out.books)
        pmi_conn_swollen(c);
    return err;
}

pm_err pmi_conn_send(pmi_conn *c, const pm_slice *parts, size_t count,
                     unsigned flags)
{
    size_t len, all;
    if (!pmi_conn_measure(c, parts, count, &len, &all))
        return PM_ELIMIT;
    pm_err err = conn_may_send(c, all);
    if (err != PM_OK || all == 0)
        return err;
    if ((flags & PMI_SEND_URGENT) && c->blocked)
        return conn_send_ahead(c, parts, count, len);
    uint8_t *p = pmi_queue_room(&c->out, &c->shared->segments, all);
    if (!p)
        return PM_ENOMEM;
    pmi_conn_message_write(c, p, parts, count, len);
    pmi_queue_written(&c->out, &c->shared->segments, all);
    pmi_conn_grown(c);
    return PM_OK;
}

uint8_t *pmi_conn_reserve(pmi_conn *c, size_t max)
{
    size_t head = pmi_conn_head_size(c, max), all;
    if (!pmi_add_size(max, head, &all) || conn_may_send(c, all) != PM_OK)
        return NULL;
    uint8_t *p = pmi_queue_room(&c->out, &c->shared->segments, all);
    if (!p)
        return NULL;
    c->reserved = (uint32_t)max + 1;
    return p + head;
}

void pmi_conn_commit(pmi_conn *c, size_t len)
{
    if (!c->reserved)
        return; /* closed meanwhile */
    size_t max = c->reserved - 1;
    pmi_chunk *chunk = c->out.last->chunk;
    uint8_t *p = chunk->data + chunk->len;
    size_t had = pmi_conn_head_size(c, max), head = pmi_conn_head_size(c, len),
           all = 0;
    PMI_ASSERT(len <= max);
    c->reserved = 0;
    if (len) {
        if (head < had)
            memmove(p + head, p + had, len);
        all = conn_frame_write(c, p, len);
    }
    pmi_queue_written(&c->out, &c->shared->segments, all);
    if (all)
        pmi_conn_grown(c);
}

pm_err pmi_conn_send_chunk(pmi_conn *c, pmi_chunk *chunk, size_t offset,
                           unsigned flags)
{
    PMI_ASSERT(offset <= chunk->len);
    size_t len = chunk->len - offset;
    pmi_segment *last = c->out.last;
    bool ahead = (flags & PMI_SEND_URGENT) && c->blocked;
    pm_err err = conn_may_send(c, len);
    if (err != PM_OK)
        return err;
    if (!ahead &&
        (c->blocked ? len <= CONN_PACK_MAX
                    : len <= CONN_COPY_MAX && last && last->open &&
                          last->chunk->cap - last->chunk->len >= len)) {
        pm_slice bytes = {chunk->data + offset, len};
        err = pmi_conn_put(c, bytes) ? PM_OK : PM_ENOMEM;
    } else {
        err =
            pmi_queue_add(&c->out, &c->shared->segments, chunk, offset, ahead);
    }
    if (err == PM_OK)
        pmi_conn_grown(c);
    return err;
}

size_t pmi_conn_queued(const pmi_conn *c)
{
    return pmi_conn_pending(c);
}

void pmi_conn_flush(pmi_conn *c)
{
    pmi_conn_write_out(c);
    if (c->high && pmi_conn_pending(c) == 0 && pmi_conn_alive(c))
        pmi_conn_mark_dirty(c); /* so that `drained` is told */
}

/* ---- Small questions --------------------------------------------------- */
void pmi_conn_set_events(pmi_conn *c, const pmi_conn_events *events, void *ctx)
{
    c->events = events;
    c->ctx = ctx;
}

void *pmi_conn_ctx(const pmi_conn *c)
{
    return c->ctx;
}

pm_loop *pmi_conn_loop(const pmi_conn *c)
{
    return pmi_conn_home(c);
}

pmi_framing pmi_conn_framing(const pmi_conn *c)
{
    return (pmi_framing)c->framing;
}

bool pmi_conn_is_memory(const pmi_conn *c)
{
    return c->memory;
}

bool pmi_conn_is_tls(const pmi_conn *c)
{
    return c->tls;
}

bool pmi_conn_peer_is(const pmi_conn *c, const char *name)
{
    return c->tls && pmi_tls_peer_is(pmi_conn_tls(c), name);
}

const pmi_addr *pmi_conn_peer(const pmi_conn *c)
{
    return &c->peer;
}

void pmi_conn_set_peer(pmi_conn *c, const pmi_addr *peer)
{
    c->peer = *peer;
}
