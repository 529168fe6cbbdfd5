/* SPDX-License-Identifier: MIT */
/* core/queue.h -- what waits to be sent on one connection: a row of references
 * to chunks.
 *
 *     first -> [ chunk, offset, length ] -> [ ... ] -> last
 *
 * Every message lies whole within one segment, so the joints between segments
 * are places where an urgent message may go. Small messages are copied one
 * behind the other into the chunk of the last segment while it is ours alone
 * and has room; shared and large ones are segments of their own, and so are
 * those with a rank, which may be taken out again before they have begun to
 * leave.
 *
 * A queue whose reader is slow has books: which messages have a rank, where
 * the oldest of them is, the latest of each key. From then on what waits takes
 * no more memory than it counts: kept messages are packed, each with a rank
 * has a chunk of its own size. A queue that is keeping up has none and pays
 * nothing. */
#ifndef PMI_QUEUE_H
#define PMI_QUEUE_H

#include "loop.h"

typedef enum pmi_rank {
    PMI_RANK_KEPT = 0,  /* leaves, whatever comes */
    PMI_RANK_STAYS = 1, /* had to find room; now it stays */
    PMI_RANK_LOOSE = 2  /* may be taken out until it begins to leave */
} pmi_rank;

typedef struct pmi_segment {
    struct pmi_segment *next, *prev;
    pmi_chunk *chunk; /* one reference, owned */
    union {
        uint64_t due_us; /* on a pipe: when it arrives */
        uint64_t key;    /* with a rank: 0, or a later one of this key takes
                            its place */
    };
    uint32_t offset, len;
    uint32_t serial; /* with a rank: its owner's name for it, or 0 */
    bool open;       /* the chunk is ours: more may be written behind */
    bool begun;      /* part of it has left: nothing may go in front */
    bool urgent;     /* was put in front of others */
    bool lent;       /* the chunk came with the message: others may have it
                        too */
    bool booked;     /* the books know it */
    uint8_t rank;    /* pmi_rank, of the one message in it */
} pmi_segment;

/* Of a queue with a slow reader. */
typedef struct pmi_books {
    size_t ranked, loose; /* bytes of messages with a rank */
    uint32_t ranked_count, loose_count;
    pmi_segment *oldest; /* no loose one lies in front of it; may be NULL */
    pmi_map by_key;      /* key -> segment */
    pmi_chunk *pack;     /* where kept ones are packed; a reference, or NULL */
    /* One with a serial is being taken out. */
    void (*taken)(void *ctx, uint32_t serial);
    void *taken_ctx;
} pmi_books;

/* What a message with a rank counts beside its bytes, towards a limit: its
 * segment, and the head of its chunk. */
#define PMI_QUEUE_RANKED_COST 128

/* Segments that are free, of one loop. */
typedef struct pmi_segment_pool {
    pm_loop *loop;
    pmi_segment *free;
    uint32_t kept;
} pmi_segment_pool;

void pmi_segment_pool_fini(pmi_segment_pool *pool);

/* Caller's storage, all zero is empty. */
typedef struct pmi_queue {
    pmi_segment *first, *last;
    size_t bytes;
    pmi_books *books; /* owned; NULL: the reader keeps up */
} pmi_queue;

/* Room for n bytes behind all that is queued; then pmi_queue_written says how
 * many came (0: as if nothing had been asked). NULL: no memory. */
uint8_t *pmi_queue_room(pmi_queue *queue, pmi_segment_pool *pool, size_t n);
void pmi_queue_written(pmi_queue *queue, pmi_segment_pool *pool, size_t n);

/* The same for a message with a rank; pmi_queue_rank follows. */
uint8_t *pmi_queue_room_apart(pmi_queue *queue, pmi_segment_pool *pool,
                              size_t n);

/* By reference (takes one of its own): bytes offset..offset+len of the chunk,
 * at the end, or ahead of what has not begun to leave (and behind earlier
 * urgent ones). PM_ENOMEM: nothing changed. */
pm_err pmi_queue_add(pmi_queue *queue, pmi_segment_pool *pool, pmi_chunk *chunk,
                     size_t offset, bool urgent);

/* Gives the last message, which is a segment of its own, a rank. With books an
 * unsent one of the same key (0: none) is taken out: true. */
bool pmi_queue_rank(pmi_queue *queue, pmi_segment_pool *pool, pmi_rank rank,
                    uint64_t key, uint32_t serial);

/* ---- A slow reader ----------------------------------------------------- */
/* Opens the books: what waits is put so that it takes no more memory than it
 * counts, and of each key only the latest stays. *replaced: how many were
 * taken out. `taken` is told from now on. PM_ENOMEM: all is as it was. */
pm_err pmi_queue_open_books(pmi_queue *queue, pmi_segment_pool *pool,
                            void (*taken)(void *ctx, uint32_t serial),
                            void *ctx, uint32_t *replaced);
/* The reader has caught up. Without books nothing. */
void pmi_queue_close_books(pmi_queue *queue, pmi_segment_pool *pool);
/* What it counts towards a limit, and how much of that could be taken out. */
size_t pmi_queue_weight(const pmi_queue *queue);
size_t pmi_queue_loose(const pmi_queue *queue);
/* Bytes of messages without a rank. */
size_t pmi_queue_kept(const pmi_queue *queue);
/* Takes out the oldest loose messages until the weight is at most `weight`, or
 * until there is none. Returns how many. */
uint32_t pmi_queue_trim(pmi_queue *queue, pmi_segment_pool *pool,
                        size_t weight);

/* ---- Taking out -------------------------------------------------------- */
/* The first bytes as vectors; returns how many vectors. */
int pmi_queue_gather(const pmi_queue *queue, pmi_iov *iov, int max);
/* The first n bytes have left. */
void pmi_queue_sent(pmi_queue *queue, pmi_segment_pool *pool, size_t n);
/* Copies up to max bytes whose time has come to `out` and drops them. */
size_t pmi_queue_take(pmi_queue *queue, pmi_segment_pool *pool, void *out,
                      size_t max, uint64_t now_us);
/* References to up to max bytes go over to the end of another queue. A memory
 * failure moves less. Returns the bytes. */
size_t pmi_queue_move(pmi_queue *to, pmi_queue *from, pmi_segment_pool *pool,
                      size_t max, uint64_t due_us);
void pmi_queue_clear(pmi_queue *queue, pmi_segment_pool *pool);

#endif
