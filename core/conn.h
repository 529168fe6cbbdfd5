/* SPDX-License-Identifier: MIT */
/* core/conn.h -- a connection and a listener: TCP, WebSocket, memory behind one
 * face, the first two also through TLS. Knows bytes and messages, never what
 * they mean.
 *
 *   TCP      |  stream framing: bytes come, bytes go
 *   WebSocket|  message framing: whole messages come; each send is one frame
 *   memory   |  stream framing between two ends on one loop, no system call
 *
 * Reading: the loop's read buffer is filled and handed on; what the owner does
 * not consume is kept here and comes again in front of the next bytes. An idle
 * connection owns no buffer.
 * Writing: sends are queued, copied when small, by reference when shared, and
 * leave in one sendmsg at the end of the turn, inline at 256 KiB.
 *
 * Life: the owner gets exactly one `closed`, on a later turn than the call that
 * closed it and with nothing after it; then it calls pmi_conn_free. */
#ifndef PMI_CONN_H
#define PMI_CONN_H

#include "loop.h"
#include "ws.h"

typedef struct pmi_conn pmi_conn;
typedef struct pmi_listener pmi_listener;

typedef enum pmi_framing {
    PMI_FRAMING_SNIFF, /* incoming: stream or WebSocket, told by first bytes */
    PMI_FRAMING_STREAM,
    PMI_FRAMING_WS
} pmi_framing;

/* How a message waits when the peer does not take it. */
typedef struct pmi_terms {
    pm_push_policy policy; /* none of PM_PUSH_DEFAULT */
    uint64_t key;          /* of PM_PUSH_REPLACE; 0: replaces nothing */
    uint32_t serial;       /* by which `taken` calls it; 0: it does not */
} pmi_terms;

typedef enum pmi_drop {
    PMI_DROP_OLDEST,   /* had waited, and made room */
    PMI_DROP_NEW,      /* found no room */
    PMI_DROP_REPLACED, /* a later one of its key has come */
    PMI_DROP_COUNT
} pmi_drop;

/* All functions set, except where NULL is allowed. `ctx` as in pmi_conn_start.
 */
typedef struct pmi_conn_events {
    /* Stream framing. Returns how many bytes are used up; the rest comes again
     * with more behind it. Bytes may be changed in place. After pause or close
     * from inside, what is returned still counts. Long work stops at a whole
     * unit, not before the first, when pmi_loop_over_budget: the rest then
     * comes in the next turn by itself. */
    size_t (*data)(pmi_conn *conn, uint8_t *data, size_t len, void *ctx);
    /* WebSocket framing: one whole message, unmasked, borrowed. */
    void (*message)(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                    void *ctx);
    /* Framing is settled (incoming: first bytes seen; outgoing: connected, and
     * upgraded), always before the first data or message. May be NULL. */
    void (*open)(pmi_conn *conn, void *ctx);
    /* The queue, which was over the low-water mark (16 KiB), has left. May be
     * NULL. */
    void (*drained)(pmi_conn *conn, void *ctx);
    /* Once. */
    void (*closed)(pmi_conn *conn, pm_close_reason reason, void *ctx);
    /* n messages were dropped by their terms, from inside the call that
     * brought another one: nothing may be done to the connection in there. May
     * be NULL. */
    void (*dropped)(pmi_conn *conn, pmi_drop why, uint32_t n, void *ctx);
    /* Likewise, of each one that had waited and had a serial: it will not be
     * sent. */
    void (*taken)(pmi_conn *conn, uint32_t serial, void *ctx);
    /* The peer was slow (a quarter of out_max has waited, or something was
     * dropped); now all has left. May be NULL. */
    void (*caught_up)(pmi_conn *conn, void *ctx);
    /* Once after pmi_conn_want_ease: of kept messages only a quarter of
     * out_max waits any more. May be NULL. */
    void (*eased)(pmi_conn *conn, void *ctx);
} pmi_conn_events;

enum { PMI_CONN_TALLIES = 8 }; /* three bits of a connection */

/* A size of 0 is no limit. */
typedef struct pmi_conn_limits {
    size_t in_max;    /* largest message (WebSocket), or bytes kept unconsumed
                         (stream); over it: closed, PM_CLOSE_PACKAGE_SIZE */
    size_t out_max;   /* queued bytes; over it pmi_conn_send gives PM_ELIMIT */
    uint32_t open_ms; /* connect and upgrade, or sniff and upgrade: total time;
                         over it: closed, PM_CLOSE_HANDSHAKE_TIMEOUT. 0: none */
    bool sniff_http_only_get; /* unused bytes of other HTTP methods count as
                                 stream */
    int send_buffer;          /* SO_SNDBUF, 0 = the system's */
    uint8_t tally; /* below PMI_CONN_TALLIES: which of pmi_conn_totals's sums */
} pmi_conn_limits;

/* ---- Listening --------------------------------------------------------- */
typedef struct pmi_listen_opts {
    const char *host;    /* NULL or "": all addresses */
    uint16_t port;       /* 0: any free one */
    pmi_framing framing; /* of what is accepted */
    pmi_conn_limits limits;
    bool memory_only; /* no socket: only the door in memory */
    /* A new connection, not started yet: start it (pmi_conn_start) or close it
     * and free it at once, from inside this call. */
    struct pmi_tls_realm *tls; /* NULL: plain. A reference is taken. Who comes
                                  by the door in memory needs none */
    void (*accepted)(pmi_listener *listener, pmi_conn *conn, void *ctx);
    void *ctx;
} pmi_listen_opts;

/* Opens the socket (not on a memory-only loop) and the door in memory named
 * "host:port" (127.0.0.1 for all addresses). With port 0 on a memory-only loop
 * a free number is taken from 40000 upwards.
 * PM_EADDR in use or not ours; PM_ENET; PM_ERESOLVE host is not numeric and not
 * localhost; PM_ENOMEM. */
pm_err pmi_listen(pm_loop *loop, const pmi_listen_opts *opts,
                  pmi_listener **out);
uint16_t pmi_listener_port(const pmi_listener *listener);
/* Accepting stops at EMFILE by itself and goes on 100 ms later. */
void pmi_listener_pause(pmi_listener *listener, bool paused);
void pmi_listener_close(pmi_listener *listener); /* frees it; NULL is fine */

/* ---- Connecting -------------------------------------------------------- */
typedef struct pmi_connect_opts {
    const char *host;
    uint16_t port;
    pmi_framing framing;   /* STREAM or WS; in memory it is STREAM always */
    const char *ws_target; /* NULL: "/" */
    bool memory;           /* by the door on this loop if there is one, else by
                              socket; on a memory-only loop always the door */
    const char *from; /* a name for the simulator's link fault; may be NULL */
    struct pmi_tls_realm *tls; /* NULL: plain. A reference is taken. Not used by
                                  the door in memory */
    const char *tls_name; /* what the certificate must name; NULL: anything */
    pmi_conn_limits limits;
} pmi_connect_opts;

/* Returns at once; then `open` or `closed` (PM_CLOSE_CONNECT, ..) comes. Sends
 * before open are queued. PM_ENOMEM, PM_ELIMIT (descriptors), PM_EINVAL. */
pm_err pmi_conn_connect(pm_loop *loop, const pmi_connect_opts *opts,
                        const pmi_conn_events *events, void *ctx,
                        pmi_conn **out);

/* ---- A connection ------------------------------------------------------ */
/* Takes over an accepted connection: events flow from now on. `events` is
 * borrowed until closed. */
void pmi_conn_start(pmi_conn *conn, const pmi_conn_events *events, void *ctx);
/* Other callbacks for the same connection (a peer that has proved itself). */
void pmi_conn_set_events(pmi_conn *conn, const pmi_conn_events *events,
                         void *ctx);
/* Who an accepted connection speaks for, when its peer is a proxy that is
 * believed. Both are told what has come and say whether the connection may stay
 * (PM_CLOSE_NONE), also by freeing it; neither may be NULL. */
typedef struct pmi_conn_front {
    /* The PROXY header has come, and the peer is now whom it names (or still
     * the proxy, of a connection of its own). */
    pm_close_reason (*proxied)(pmi_conn *conn, void *ctx);
    /* A WebSocket upgrade has X-Forwarded-For; its lines are borrowed. */
    pm_close_reason (*forwarded)(pmi_conn *conn, const pm_slice *lines,
                                 size_t count, void *ctx);
} pmi_conn_front;
/* Before pmi_conn_start. header: the PROXY header comes first, in front of TLS
 * and everything else; without it PM_CLOSE_PROXY. `front` is borrowed until the
 * framing is settled. PM_ENOMEM */
pm_err pmi_conn_set_front(pmi_conn *conn, const pmi_conn_front *front,
                          void *ctx, bool header);
void pmi_conn_set_peer(pmi_conn *conn, const pmi_addr *peer);
void *pmi_conn_ctx(const pmi_conn *conn);
pm_loop *pmi_conn_loop(const pmi_conn *conn);
pmi_framing pmi_conn_framing(const pmi_conn *conn);
bool pmi_conn_is_memory(const pmi_conn *conn);
const pmi_addr *pmi_conn_peer(const pmi_conn *conn); /* len 0 for memory */
bool pmi_conn_is_tls(const pmi_conn *conn);
/* Has the other side shown a certificate that names exactly this? As
 * pmi_tls_peer_is; false without TLS. */
bool pmi_conn_peer_is(const pmi_conn *conn, const char *name);

/* Sending. One call is one message: one frame on WebSocket; on every framing
 * urgent messages go between whole messages, behind what has begun to leave
 * (at most 4 KiB of small messages, or one large one). */
enum {
    PMI_SEND_URGENT = 1 /* ahead of what waited before this turn */
};
/* Copies. PM_ELIMIT queue full, PM_ECLOSED, PM_ENOMEM, PM_ESTATE (incoming and
 * the framing is not known yet): nothing was queued. */
pm_err pmi_conn_send(pmi_conn *conn, const pm_slice *parts, size_t count,
                     unsigned flags);
/* In place: room for a message of at most `max` bytes, written before anything
 * else is sent; then commit its real length (0: none). Stream and WebSocket;
 * NULL: what pmi_conn_send of the same size would have answered. */
uint8_t *pmi_conn_reserve(pmi_conn *conn, size_t max);
void pmi_conn_commit(pmi_conn *conn, size_t len);
/* By reference: the chunk's bytes from `offset` on, already framed for this
 * connection's framing (a WebSocket head in front where needed). */
pm_err pmi_conn_send_chunk(pmi_conn *conn, pmi_chunk *chunk, size_t offset,
                           unsigned flags);
/* The same two on terms, which say what becomes of it, and of others, when the
 * queue is full. A message that may be dropped fills seven eighths of out_max
 * at most, and counts PMI_QUEUE_RANKED_COST more while the peer is slow.
 * PM_EDROPPED: this one was dropped. terms NULL: PM_PUSH_KEEP. */
pm_err pmi_conn_offer_ranked(pmi_conn *conn, const pm_slice *parts,
                             size_t count, const pmi_terms *terms);
pm_err pmi_conn_offer_chunk_ranked(pmi_conn *conn, pmi_chunk *chunk,
                                   size_t offset, const pmi_terms *terms);
static inline pm_err pmi_conn_offer(pmi_conn *conn, const pm_slice *parts,
                                    size_t count, const pmi_terms *terms)
{
    if (!terms || terms->policy == PM_PUSH_KEEP)
        return pmi_conn_send(conn, parts, count, 0);
    return pmi_conn_offer_ranked(conn, parts, count, terms);
}
static inline pm_err pmi_conn_offer_chunk(pmi_conn *conn, pmi_chunk *chunk,
                                          size_t offset, const pmi_terms *terms)
{
    if (!terms || terms->policy == PM_PUSH_KEEP)
        return pmi_conn_send_chunk(conn, chunk, offset, 0);
    return pmi_conn_offer_chunk_ranked(conn, chunk, offset, terms);
}
/* Both at once, for who sends to many. Slow: the system takes no more of it
 * now. */
enum { PMI_CONN_IS_WS = 1, PMI_CONN_IS_SLOW = 2 };
unsigned pmi_conn_is(const pmi_conn *conn);
/* Messages dropped so far. */
uint32_t pmi_conn_dropped(const pmi_conn *conn);
/* More than half of out_max waits in kept messages: `eased` will be told. */
bool pmi_conn_want_ease(pmi_conn *conn);
/* Has anything left since the last call? */
bool pmi_conn_moved(pmi_conn *conn);
/* Bytes not yet handed to the system. With TLS at most 48 KiB of them, already
 * in records, stand beside out_max. */
size_t pmi_conn_queued(const pmi_conn *conn);
void pmi_conn_flush(pmi_conn *conn);

/* No more data or message events until resumed; what is unconsumed is kept. */
void pmi_conn_pause(pmi_conn *conn);
void pmi_conn_resume(pmi_conn *conn);

/* What is queued is still offered to the system once (WebSocket: a close frame
 * with `code` behind it, 1000 for 0), then the connection ends; `closed` comes
 * on a later turn with `reason`. Further calls are ignored; the first reason
 * stays. linger: TCP ends by FIN and reads on (dropping) for at most 30 s;
 * otherwise it is closed outright. */
void pmi_conn_close(pmi_conn *conn, pm_close_reason reason, bool linger,
                    uint16_t ws_code);
bool pmi_conn_is_closing(const pmi_conn *conn);
/* Drops everything at once; no `closed` comes any more. At any time, also from
 * its own callbacks. NULL is fine. */
void pmi_conn_free(pmi_conn *conn);

/* Bytes of traffic on all connections of a loop, for counters. */
typedef struct pmi_conn_totals {
    uint64_t bytes_in, bytes_out, reads, writes, body_copies;
    struct {
        uint64_t in, out;
    } by[PMI_CONN_TALLIES];
} pmi_conn_totals;
const pmi_conn_totals *pmi_conn_totals_of(pm_loop *loop);
/* Bytes that connections of this tally have queued and could not write yet.
 * Looks at those that are behind alone. */
uint64_t pmi_conn_waiting(pm_loop *loop, uint8_t tally);

#endif
