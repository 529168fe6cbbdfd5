/* SPDX-License-Identifier: MIT */
/* core/queue.c -- what waits to be sent on one connection.
 *
 * Knows chunks and segments, neither sockets nor frames. An empty queue owns
 * nothing, so ten thousand idle connections cost no buffer; segments come
 * from a list of free ones, so a busy connection does not allocate.
 * Start reading at pmi_queue_room(). */
#include "queue.h"

enum { QUEUE_SEGMENTS_KEPT = 4096, QUEUE_SEGMENTS_AHEAD = 16 };

/* ---- Segments ---------------------------------------------------------- */
/* Several at a time: a new record of how many are in use is not the last. */
static void queue_segments_ahead(pmi_segment_pool *pool)
{
    for (int i = 0; i < QUEUE_SEGMENTS_AHEAD; i++) {
        pmi_segment *seg = pmi_alloc(pmi_loop_env(pool->loop), sizeof *seg);
        if (!seg)
            return;
        seg->next = pool->free;
        pool->free = seg;
        pool->kept++;
    }
}

static pmi_segment *queue_segment_new(pmi_segment_pool *pool)
{
    pmi_segment *seg;
    if (!pool->free)
        queue_segments_ahead(pool);
    seg = pool->free;
    if (!seg)
        return NULL;
    pool->free = seg->next;
    pool->kept--;
    *seg = (pmi_segment){0};
    return seg;
}

static void queue_segment_free(pmi_segment_pool *pool, pmi_segment *seg)
{
    pmi_chunk_unref(seg->chunk);
    if (pool->kept >= QUEUE_SEGMENTS_KEPT) {
        pmi_free(pmi_loop_env(pool->loop), seg);
        return;
    }
    seg->chunk = NULL;
    seg->next = pool->free;
    pool->free = seg;
    pool->kept++;
}

void pmi_segment_pool_fini(pmi_segment_pool *pool)
{
    while (pool->free) {
        pmi_segment *seg = pool->free;
        pool->free = seg->next;
        pmi_free(pmi_loop_env(pool->loop), seg);
    }
    pool->kept = 0;
}

static void queue_append(pmi_queue *queue, pmi_segment *seg)
{
    seg->next = NULL;
    if (queue->last)
        queue->last->next = seg;
    else
        queue->first = seg;
    queue->last = seg;
}

static void queue_pop(pmi_queue *queue, pmi_segment_pool *pool)
{
    pmi_segment *seg = queue->first;
    queue->first = seg->next;
    if (!queue->first)
        queue->last = NULL;
    queue_segment_free(pool, seg);
}

/* ---- Writing into it --------------------------------------------------- */
uint8_t *pmi_queue_room(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_segment *seg = queue->last;
    if (seg && seg->open && seg->chunk->cap - seg->chunk->len >= n)
        return seg->chunk->data + seg->chunk->len;
    seg = queue_segment_new(pool);
    if (!seg)
        return NULL;
    seg->chunk = pmi_loop_chunk(pool->loop, pmi_max(n, PMI_CHUNK_SMALL));
    if (!seg->chunk) {
        queue_segment_free(pool, seg);
        return NULL;
    }
    seg->open = true;
    queue_append(queue, seg);
    return seg->chunk->data;
}

/* Takes the last segment out again: nothing came for it. */
static void queue_drop_last(pmi_queue *queue, pmi_segment_pool *pool)
{
    pmi_segment **at = &queue->first, *before = NULL;
    while (*at != queue->last) {
        before = *at;
        at = &(*at)->next;
    }
    queue_segment_free(pool, *at);
    *at = NULL;
    queue->last = before;
}

void pmi_queue_written(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_segment *seg = queue->last;
    PMI_ASSERT(seg && seg->open && seg->chunk->cap - seg->chunk->len >= n);
    seg->chunk->len += (uint32_t)n;
    seg->len += (uint32_t)n;
    queue->bytes += n;
    if (seg->len == 0)
        queue_drop_last(queue, pool);
}

/* Behind what has begun to leave and behind earlier urgent ones. */
static void queue_insert_urgent(pmi_queue *queue, pmi_segment *seg)
{
    pmi_segment *before = NULL, *at = queue->first;
    while (at && (at->begun || at->urgent)) {
        before = at;
        at = at->next;
    }
    seg->urgent = true;
    seg->next = at;
    if (before)
        before->next = seg;
    else
        queue->first = seg;
    if (!at)
        queue->last = seg;
}

pm_err pmi_queue_add(pmi_queue *queue, pmi_segment_pool *pool, pmi_chunk *chunk,
                     size_t offset, bool urgent)
{
    PMI_ASSERT(offset <= chunk->len);
    if (offset == chunk->len)
        return PM_OK;
    pmi_segment *seg = queue_segment_new(pool);
    if (!seg)
        return PM_ENOMEM;
    seg->chunk = pmi_chunk_ref(chunk);
    seg->offset = (uint32_t)offset;
    seg->len = chunk->len - (uint32_t)offset;
    queue->bytes += seg->len;
    if (urgent)
        queue_insert_urgent(queue, seg);
    else
        queue_append(queue, seg);
    return PM_OK;
}

/* ---- Taking out of it -------------------------------------------------- */
int pmi_queue_gather(const pmi_queue *queue, pmi_iov *iov, int max)
{
    int count = 0;
    for (const pmi_segment *s = queue->first; s && count < max; s = s->next) {
        iov[count].data = s->chunk->data + s->offset;
        iov[count++].len = s->len;
    }
    return count;
}

/* The first n bytes of the first segment are gone. */
static void queue_shorten(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_segment *seg = queue->first;
    queue->bytes -= n;
    if (n == seg->len) {
        queue_pop(queue, pool);
        return;
    }
    seg->offset += (uint32_t)n;
    seg->len -= (uint32_t)n;
    seg->begun = true;
}

void pmi_queue_sent(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    PMI_ASSERT(n <= queue->bytes);
    while (n > 0) {
        size_t part = pmi_min(n, queue->first->len);
        queue_shorten(queue, pool, part);
        n -= part;
    }
}

size_t pmi_queue_take(pmi_queue *queue, pmi_segment_pool *pool, void *out,
                      size_t max, uint64_t now_us)
{
    uint8_t *at = out;
    size_t done = 0;
    while (done < max && queue->first && queue->first->due_us <= now_us) {
        pmi_segment *seg = queue->first;
        size_t part = pmi_min(max - done, seg->len);
        memcpy(at + done, seg->chunk->data + seg->offset, part);
        done += part;
        queue_shorten(queue, pool, part);
    }
    return done;
}

size_t pmi_queue_move(pmi_queue *to, pmi_queue *from, pmi_segment_pool *pool,
                      size_t max, uint64_t due_us)
{
    size_t done = 0;
    while (from->first && done < max) {
        pmi_segment *seg = from->first;
        size_t part = pmi_min(max - done, seg->len);
        if (part < seg->len) {
            pmi_segment *copy = queue_segment_new(pool);
            if (!copy)
                break;
            copy->chunk = pmi_chunk_ref(seg->chunk);
            copy->offset = seg->offset;
            copy->len = (uint32_t)part;
            copy->due_us = due_us;
            queue_append(to, copy);
            queue_shorten(from, pool, part);
        } else {
            from->first = seg->next;
            if (!from->first)
                from->last = NULL;
            from->bytes -= part;
            seg->open = false;
            seg->due_us = due_us;
            queue_append(to, seg);
        }
        to->bytes += part;
        done += part;
    }
    return done;
}

void pmi_queue_clear(pmi_queue *queue, pmi_segment_pool *pool)
{
    while (queue->first)
        queue_pop(queue, pool);
    queue->bytes = 0;
}
