/* SPDX-License-Identifier: MIT */
/* core/conn_internal.h -- the inside of a connection, for the files that make
 * it up: conn.c (queue, end), conn_slow.c (a queue that does not drain),
 * conn_read.c (bytes in), conn_open.c (making).
 *
 * The states; every one may also end by an error, and each way ends in
 * `closed`, exactly once, on a later turn:
 *
 *     new -> (proxied) -> sniffing ---------> stream | frames -> (lingering) ->
 *     dialling -> (securing) -> (upgrading) --^                 ended -> free
 *
 * TLS is no state of an accepted connection: bytes come out of it only when its
 * handshake is done, so all that is above sees plain bytes, a little later.
 *
 * What is needed only before the framing is settled, or while lingering, lies
 * in pmi_conn_extra and is given back: there may be very many connections, and
 * most of them are idle. */
#ifndef PMI_CONN_INTERNAL_H
#define PMI_CONN_INTERNAL_H

#include "conn.h"
#include "dial.h"
#include "frames.h"
#include "pipe.h"
#include "proxy.h"
#include "tls.h"

/* In order: what is before PMI_CONN_LINGERING is alive. */
typedef enum pmi_conn_state {
    PMI_CONN_NEW,       /* accepted, not started */
    PMI_CONN_DIALLING,  /* outgoing, not connected yet */
    PMI_CONN_SECURING,  /* outgoing TLS: the handshake */
    PMI_CONN_UPGRADING, /* outgoing WebSocket: waiting for the 101 */
    PMI_CONN_PROXIED,   /* incoming: the PROXY header */
    PMI_CONN_SNIFFING,  /* incoming: first bytes, or the head of an upgrade */
    PMI_CONN_STREAM,
    PMI_CONN_FRAMES,
    PMI_CONN_LINGERING, /* closing: writing the rest, reading and dropping */
    PMI_CONN_ENDED,     /* `closed` is on its way or has been told */
    PMI_CONN_FREED
} pmi_conn_state;

/* What the connections of a loop share. */
typedef struct pmi_conn_shared {
    pmi_segment_pool segments;
    pmi_link dirty;  /* connections with something to write this turn */
    pmi_link behind; /* those whose transport takes no more now */
    pmi_task flush;
    pmi_conn_totals totals;
} pmi_conn_shared;

/* A PROXY header on its way in; nothing behind it has been read. */
typedef struct pmi_conn_proxy {
    size_t len;
    uint8_t data[PMI_PROXY_MAX];
} pmi_conn_proxy;

typedef struct pmi_conn_extra {
    pmi_conn *conn;
    pmi_timer timer;
    pmi_dial dial;
    char accept_key[29];         /* what the server must answer */
    size_t request_left;         /* bytes of the upgrade request still queued */
    const pmi_conn_front *front; /* borrowed; NULL: the peer is who it is */
    void *front_ctx;
    pmi_conn_proxy *proxy; /* owned; NULL: none is waited for */
    bool pieces; /* its first word came in pieces: Pomelo takes it for a broken
                    stream, so a plain request gets no answer */
} pmi_conn_extra;

/* TLS has memory enough of its own: a plain connection pays nothing for it. */
typedef struct pmi_conn_secure {
    pmi_tls *tls;         /* owned */
    pmi_fragments *parts; /* owned, or NULL */
} pmi_conn_secure;

/* One a client; idle ones are many: its fields fill each other's gaps. */
struct pmi_conn {
    pmi_conn_shared *shared; /* borrowed: the loop's */
    union {
        pmi_watch watch;
        pmi_pipe *pipe; /* owned */
    } via;
    const pmi_conn_events *events; /* borrowed: the owner's */
    void *ctx;
    pmi_queue out;
    pmi_chunk *tail; /* owned: read, not used up yet; or NULL */
    union {
        pmi_fragments *parts;    /* owned: of a message not complete; or NULL */
        pmi_conn_secure *secure; /* with TLS: owned, holds them too */
    };
    pmi_conn_extra *extra; /* owned, or NULL */
    pmi_link dirty;        /* in shared: dirty or behind */
    pmi_task later;        /* tells open or closed, delivers the tail, frees */
    uint32_t in_max, out_max;
    uint32_t tail_at; /* where in the tail the bytes start */
    union {
        uint32_t reserved; /* + 1, between reserve and commit */
        uint32_t open_ms;  /* before the start */
    };
    pmi_addr peer;
    uint32_t dropped; /* messages, by their terms */
    uint32_t state : 4, framing : 2, reason : 6, want : 2;
    uint32_t tally : 3;
    uint32_t memory : 1;
    uint32_t client : 1;
    uint32_t attached : 1; /* `via` is there */
    uint32_t paused : 1;
    uint32_t blocked : 1; /* the transport takes no more now */
    uint32_t opened : 1;  /* `open` was told */
    uint32_t high : 1;    /* was over the low-water mark */
    uint32_t again : 1;   /* deliver the tail without waiting for more */
    uint32_t only_get : 1;
    uint32_t moved : 1;   /* something has left since somebody looked */
    uint32_t pressed : 1; /* its catching up will be news */
    uint32_t eager : 1;   /* somebody waits until it is eased */
    uint32_t tls : 1;     /* which of the union is there */
};

static inline pm_loop *pmi_conn_home(const pmi_conn *c)
{
    return c->shared->segments.loop;
}

static inline const pmi_env *pmi_conn_env(const pmi_conn *c)
{
    return pmi_loop_env(c->shared->segments.loop);
}

static inline bool pmi_conn_alive(const pmi_conn *c)
{
    return c->state < PMI_CONN_LINGERING;
}

static inline bool pmi_conn_is_ws(const pmi_conn *c)
{
    return c->framing == PMI_FRAMING_WS;
}

/* May anything be sent? PM_ECLOSED, PM_ESTATE */
static inline pm_err pmi_conn_can_send(const pmi_conn *c)
{
    PMI_ASSERT(!c->reserved);
    if (!pmi_conn_alive(c))
        return PM_ECLOSED;
    if (c->state == PMI_CONN_NEW || c->state == PMI_CONN_PROXIED ||
        c->state == PMI_CONN_SNIFFING)
        return PM_ESTATE;
    return PM_OK;
}

static inline size_t pmi_conn_head_size(const pmi_conn *c, size_t len)
{
    return pmi_conn_is_ws(c) ? pmi_ws_head_size(len, c->client) : 0;
}

/* Bytes of all parts, and with the head in front. False: too many. */
static inline bool pmi_conn_measure(const pmi_conn *c, const pm_slice *parts,
                                    size_t count, size_t *len, size_t *all)
{
    *len = 0;
    for (size_t i = 0; i < count; i++)
        if (!pmi_add_size(*len, parts[i].len, len))
            return false;
    return pmi_add_size(*len, pmi_conn_head_size(c, *len), all);
}

static inline pmi_tls *pmi_conn_tls(const pmi_conn *c)
{
    return c->secure->tls;
}

/* Bytes that have not left. */
static inline size_t pmi_conn_pending(const pmi_conn *c)
{
    return c->out.bytes +
           (PMI_UNLIKELY(c->tls) ? pmi_tls_wire(pmi_conn_tls(c))->bytes : 0);
}

/* Puts TLS between transport and all the rest. name: as pmi_tls_new. PM_ENOMEM
 */
pm_err pmi_conn_secure_new(pmi_conn *c, pmi_tls_realm *realm, const char *name);
/* NULL: no memory. */
pmi_conn_shared *pmi_conn_shared_of(pm_loop *loop);
/* Readiness to wait for; a failure ends the connection. */
void pmi_conn_want(pmi_conn *c, int want);
/* > 0 bytes, 0 nothing there, -1 the end, with its reason. */
long pmi_conn_receive(pmi_conn *c, uint8_t *data, size_t len,
                      pm_close_reason *reason);
/* Writes what is queued until the transport takes no more. */
void pmi_conn_write_out(pmi_conn *c);
void pmi_conn_mark_dirty(pmi_conn *c);
/* The owner has seen what came: where many wait for the end of the turn, what
 * it answered leaves now, so that its chunk serves the next connection. */
void pmi_conn_relieve(pmi_conn *c);
/* Something was added to the queue. */
void pmi_conn_grown(pmi_conn *c);
/* Tells the owner that all has left, when that is news. */
void pmi_conn_tell_drained_now(pmi_conn *c);
static inline void pmi_conn_tell_drained(pmi_conn *c)
{
    if (c->high || c->pressed || c->eager)
        pmi_conn_tell_drained_now(c);
}
/* Head and parts, `len` bytes of them, to p. Returns all bytes. */
size_t pmi_conn_message_write(pmi_conn *c, uint8_t *p, const pm_slice *parts,
                              size_t count, size_t len);
/* ---- A slow peer: conn_slow.c ------------------------------------------ */
/* The queue is full, or nothing leaves now. PM_OK: there is room, or will be
 * when what must make room has gone (pmi_conn_swollen sees to it). PM_EDROPPED,
 * PM_ELIMIT, PM_ECLOSED. terms NULL: kept. */
pm_err pmi_conn_room(pmi_conn *c, size_t len, const pmi_terms *terms);
/* Something was added, and the peer is slow. */
void pmi_conn_swollen(pmi_conn *c);
/* `eased` and `caught_up`, when they are news. */
void pmi_conn_tell_relief(pmi_conn *c);

/* Bytes that are not the owner's: heads of HTTP. False: no memory. */
bool pmi_conn_put(pmi_conn *c, pm_slice bytes);
/* A control frame behind all that is queued; it may pass the limit, for it is
 * small. Nothing is sent when there is no memory for it. */
void pmi_conn_control(pmi_conn *c, uint8_t opcode, const void *data,
                      size_t len);
/* When all has left a lingering stream tells the peer so. */
void pmi_conn_linger_on(pmi_conn *c);
pm_err pmi_conn_extra_new(pmi_conn *c);
void pmi_conn_extra_free(pmi_conn *c);
/* The timer of pmi_conn_extra. */
void pmi_conn_expired(pmi_timer *timer);
/* The transport is given up now; the owner hears of it on a later turn. */
void pmi_conn_end(pmi_conn *c, pm_close_reason reason);

#endif
