/* SPDX-License-Identifier: MIT */
/* core/queue.h -- what waits to be sent on one connection: a row of references
 * to chunks.
 *
 *     first -> [ chunk, offset, length ] -> [ ... ] -> last
 *
 * Every message lies whole within one segment, so the joints between segments
 * are places where an urgent message may go. Small messages are copied one
 * behind the other into the chunk of the last segment while it is ours alone
 * and has room; shared and large ones are segments of their own. */
#ifndef PMI_QUEUE_H
#define PMI_QUEUE_H

#include "loop.h"

typedef struct pmi_segment {
    struct pmi_segment *next;
    pmi_chunk *chunk; /* one reference, owned */
    uint64_t due_us;  /* on a pipe: when it arrives */
    uint32_t offset, len;
    bool open;   /* the chunk is ours: more may be written behind */
    bool begun;  /* part of it has left: nothing may go in front */
    bool urgent; /* was put in front of others */
} pmi_segment;

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
} pmi_queue;

/* Room for n bytes behind all that is queued; then pmi_queue_written says how
 * many came (0: as if nothing had been asked). NULL: no memory. */
uint8_t *pmi_queue_room(pmi_queue *queue, pmi_segment_pool *pool, size_t n);
void pmi_queue_written(pmi_queue *queue, pmi_segment_pool *pool, size_t n);

/* By reference (takes one of its own): bytes offset..offset+len of the chunk,
 * at the end, or ahead of what has not begun to leave (and behind earlier
 * urgent ones). PM_ENOMEM: nothing changed. */
pm_err pmi_queue_add(pmi_queue *queue, pmi_segment_pool *pool, pmi_chunk *chunk,
                     size_t offset, bool urgent);

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
