/* SPDX-License-Identifier: MIT */
/* core/queue.c -- what waits to be sent on one connection.
 *
 * Knows chunks and segments, neither sockets nor frames. An empty queue owns
 * nothing, so ten thousand idle connections cost no buffer; segments come
 * from a list of free ones, so a busy connection does not allocate. What a
 * slow reader costs (books, packing) begins when its connection says so.
 * Start reading at pmi_queue_room(), then at pmi_queue_open_books(). */
#include "queue.h"

enum {
    QUEUE_SEGMENTS_KEPT = 4096,
    QUEUE_SEGMENTS_AHEAD = 16,
    QUEUE_PACK_MAX = PMI_CHUNK_SMALL / 4 /* larger ones have their own chunk */
};

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
    seg->prev = queue->last;
    if (queue->last)
        queue->last->next = seg;
    else
        queue->first = seg;
    queue->last = seg;
}

static void queue_unlink(pmi_queue *queue, pmi_segment *seg)
{
    if (seg->prev)
        seg->prev->next = seg->next;
    else
        queue->first = seg->next;
    if (seg->next)
        seg->next->prev = seg->prev;
    else
        queue->last = seg->prev;
}

/* ---- The books --------------------------------------------------------- */
static void queue_look_for_oldest(pmi_books *books, pmi_segment *from)
{
    while (from && !(from->booked && from->rank == PMI_RANK_LOOSE))
        from = from->next;
    books->oldest = from;
}

/* It leaves, or is taken out. */
static void queue_unbook(pmi_queue *queue, pmi_segment *seg)
{
    pmi_books *books = queue->books;
    seg->booked = false;
    books->ranked -= seg->len;
    books->ranked_count--;
    if (seg->rank != PMI_RANK_LOOSE)
        return;
    books->loose -= seg->len;
    books->loose_count--;
    if (seg->key && pmi_map_get_num(&books->by_key, seg->key) == seg)
        pmi_map_remove_num(&books->by_key, seg->key);
    if (books->oldest == seg)
        queue_look_for_oldest(books, books->loose_count ? seg->next : NULL);
}

static void queue_take_out(pmi_queue *queue, pmi_segment_pool *pool,
                           pmi_segment *seg)
{
    if (seg->serial)
        queue->books->taken(queue->books->taken_ctx, seg->serial);
    queue_unbook(queue, seg);
    queue->bytes -= seg->len;
    queue_unlink(queue, seg);
    queue_segment_free(pool, seg);
}

/* True: an earlier one of its key was taken out. */
static bool queue_book(pmi_queue *queue, pmi_segment_pool *pool,
                       pmi_segment *seg)
{
    pmi_books *books = queue->books;
    void *earlier = NULL;
    seg->booked = true;
    books->ranked += seg->len;
    books->ranked_count++;
    if (seg->rank != PMI_RANK_LOOSE)
        return false;
    books->loose += seg->len;
    books->loose_count++;
    if (!books->oldest)
        books->oldest = seg;
    /* Without memory for the key it waits as one without. */
    if (seg->key && pmi_map_put_num(&books->by_key, seg->key, seg, &earlier))
        seg->key = 0;
    if (earlier)
        queue_take_out(queue, pool, earlier);
    return earlier != NULL;
}

/* The first one leaves. */
static pmi_segment *queue_shift(pmi_queue *queue)
{
    pmi_segment *seg = queue->first;
    if (seg->booked)
        queue_unbook(queue, seg);
    queue->first = seg->next;
    if (seg->next)
        seg->next->prev = NULL;
    else
        queue->last = NULL;
    return seg;
}

static void queue_pop(pmi_queue *queue, pmi_segment_pool *pool)
{
    queue_segment_free(pool, queue_shift(queue));
}

/* ---- Writing into it --------------------------------------------------- */
static bool queue_chunk_has(const pmi_chunk *chunk, size_t n)
{
    return chunk->cap - chunk->len >= n;
}

/* The chunk in which n more bytes of a slow reader's kept messages go; a
 * reference. */
static pmi_chunk *queue_pack(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_books *books = queue->books;
    pmi_chunk *chunk;
    if (n > QUEUE_PACK_MAX)
        return pmi_chunk_new(pmi_loop_env(pool->loop), n);
    if (books->pack && queue_chunk_has(books->pack, n))
        return pmi_chunk_ref(books->pack);
    chunk = pmi_loop_chunk(pool->loop, PMI_CHUNK_SMALL);
    if (!chunk)
        return NULL;
    pmi_chunk_unref(books->pack);
    books->pack = pmi_chunk_ref(chunk);
    return chunk;
}

static pmi_chunk *queue_chunk_for(pmi_queue *queue, pmi_segment_pool *pool,
                                  size_t n, bool apart)
{
    pmi_segment *last = queue->last;
    if (queue->books)
        return apart ? pmi_chunk_new(pmi_loop_env(pool->loop), n)
                     : queue_pack(queue, pool, n);
    if (last && last->open && queue_chunk_has(last->chunk, n)) {
        last->open = false; /* the next one writes there now */
        return pmi_chunk_ref(last->chunk);
    }
    return pmi_loop_chunk(pool->loop, pmi_max(n, PMI_CHUNK_SMALL));
}

static uint8_t *queue_room_new(pmi_queue *queue, pmi_segment_pool *pool,
                               size_t n, bool apart)
{
    pmi_segment *seg = queue_segment_new(pool);
    if (!seg)
        return NULL;
    seg->chunk = queue_chunk_for(queue, pool, n, apart);
    if (!seg->chunk) {
        queue_segment_free(pool, seg);
        return NULL;
    }
    seg->offset = seg->chunk->len;
    seg->open = true;
    queue_append(queue, seg);
    return seg->chunk->data + seg->chunk->len;
}

uint8_t *pmi_queue_room(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_segment *seg = queue->last;
    if (seg && seg->open && !seg->rank && queue_chunk_has(seg->chunk, n))
        return seg->chunk->data + seg->chunk->len;
    return queue_room_new(queue, pool, n, false);
}

uint8_t *pmi_queue_room_apart(pmi_queue *queue, pmi_segment_pool *pool,
                              size_t n)
{
    return queue_room_new(queue, pool, n, true);
}

void pmi_queue_written(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_segment *seg = queue->last;
    PMI_ASSERT(seg && seg->open && seg->chunk->cap - seg->chunk->len >= n);
    seg->chunk->len += (uint32_t)n;
    seg->len += (uint32_t)n;
    queue->bytes += n;
    if (seg->len == 0) { /* nothing came for it */
        queue_unlink(queue, seg);
        queue_segment_free(pool, seg);
    }
}

bool pmi_queue_rank(pmi_queue *queue, pmi_segment_pool *pool, pmi_rank rank,
                    uint64_t key, uint32_t serial)
{
    pmi_segment *seg = queue->last;
    PMI_ASSERT(seg && !seg->rank && !seg->begun);
    seg->rank = (uint8_t)rank;
    seg->key = key;
    seg->serial = serial;
    return queue->books && queue_book(queue, pool, seg);
}

/* Behind what has begun to leave and behind earlier urgent ones. */
static void queue_insert_urgent(pmi_queue *queue, pmi_segment *seg)
{
    pmi_segment *at = queue->first;
    while (at && (at->begun || at->urgent))
        at = at->next;
    seg->urgent = true;
    if (!at) {
        queue_append(queue, seg);
        return;
    }
    seg->next = at;
    seg->prev = at->prev;
    if (at->prev)
        at->prev->next = seg;
    else
        queue->first = seg;
    at->prev = seg;
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
    seg->lent = true;
    seg->offset = (uint32_t)offset;
    seg->len = chunk->len - (uint32_t)offset;
    queue->bytes += seg->len;
    if (urgent)
        queue_insert_urgent(queue, seg);
    else
        queue_append(queue, seg);
    return PM_OK;
}

/* ---- A slow reader ----------------------------------------------------- */
/* The same bytes in another chunk, which is taken. */
static void queue_move_bytes(pmi_segment *seg, pmi_chunk *to)
{
    memcpy(to->data + to->len, seg->chunk->data + seg->offset, seg->len);
    pmi_chunk_unref(seg->chunk);
    seg->chunk = to;
    seg->offset = to->len;
    to->len += seg->len;
    seg->open = false;
}

/* A message that waits long holds no more than it needs, or what others hold
 * too. Without memory for a better place it stays where it is. */
static void queue_settle(pmi_queue *queue, pmi_segment_pool *pool,
                         pmi_segment *seg)
{
    pmi_chunk *to = NULL;
    if (seg->chunk->cap < 2 * (size_t)seg->len || seg->begun ||
        (seg->lent && seg->chunk->refs > 1))
        return;
    if (seg->rank)
        to = pmi_chunk_new(pmi_loop_env(pool->loop), seg->len);
    else if (!seg->open)
        to = queue_pack(queue, pool, seg->len);
    if (to)
        queue_move_bytes(seg, to);
}

pm_err pmi_queue_open_books(pmi_queue *queue, pmi_segment_pool *pool,
                            void (*taken)(void *ctx, uint32_t serial),
                            void *ctx, uint32_t *replaced)
{
    pmi_books *books = pmi_zalloc(pmi_loop_env(pool->loop), sizeof *books);
    pmi_segment *next;
    *replaced = 0;
    if (!books)
        return PM_ENOMEM;
    pmi_loop_map_init(pool->loop, &books->by_key);
    books->taken = taken;
    books->taken_ctx = ctx;
    queue->books = books;
    for (pmi_segment *seg = queue->first; seg; seg = next) {
        next = seg->next;
        queue_settle(queue, pool, seg);
        if (seg->rank && queue_book(queue, pool, seg))
            (*replaced)++;
    }
    return PM_OK;
}

void pmi_queue_close_books(pmi_queue *queue, pmi_segment_pool *pool)
{
    pmi_books *books = queue->books;
    if (!books)
        return;
    PMI_ASSERT(!queue->first);
    queue->books = NULL;
    pmi_chunk_unref(books->pack);
    pmi_map_fini(&books->by_key);
    pmi_free(pmi_loop_env(pool->loop), books);
}

size_t pmi_queue_weight(const pmi_queue *queue)
{
    const pmi_books *books = queue->books;
    size_t ranked = books ? books->ranked_count : 0;
    return queue->bytes + ranked * PMI_QUEUE_RANKED_COST;
}

size_t pmi_queue_loose(const pmi_queue *queue)
{
    const pmi_books *books = queue->books;
    if (!books)
        return 0;
    return books->loose + (size_t)books->loose_count * PMI_QUEUE_RANKED_COST;
}

size_t pmi_queue_kept(const pmi_queue *queue)
{
    return queue->books ? queue->bytes - queue->books->ranked : queue->bytes;
}

uint32_t pmi_queue_trim(pmi_queue *queue, pmi_segment_pool *pool, size_t weight)
{
    uint32_t count = 0;
    for (; queue->books && queue->books->oldest; count++) {
        if (pmi_queue_weight(queue) <= weight)
            break;
        queue_take_out(queue, pool, queue->books->oldest);
    }
    return count;
}

/* ---- Taking out of it -------------------------------------------------- */
int pmi_queue_gather(const pmi_queue *queue, pmi_iov *iov, int max)
{
    int count = 0;
    for (const pmi_segment *s = queue->first; s; s = s->next) {
        uint8_t *data = s->chunk->data + s->offset;
        /* One behind the other in one chunk they are one piece. */
        if (s->rank && count &&
            (uint8_t *)iov[count - 1].data + iov[count - 1].len == data) {
            iov[count - 1].len += s->len;
            continue;
        }
        if (count == max)
            break;
        iov[count].data = data;
        iov[count++].len = s->len;
    }
    return count;
}

/* The first n bytes of the first segment are gone. */
static void queue_shorten(pmi_queue *queue, pmi_segment_pool *pool, size_t n)
{
    pmi_segment *seg = queue->first;
    queue->bytes -= n;
    if (PMI_LIKELY(n == seg->len)) {
        queue_pop(queue, pool);
        return;
    }
    if (seg->booked)
        queue_unbook(queue, seg);
    if (seg->rank) {
        seg->rank = PMI_RANK_KEPT;
        seg->key = 0;
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

/* With a rank it has a key where a time would be, and is on no pipe. */
static bool queue_is_due(const pmi_segment *seg, uint64_t now_us)
{
    return seg->rank || seg->due_us <= now_us;
}

size_t pmi_queue_take(pmi_queue *queue, pmi_segment_pool *pool, void *out,
                      size_t max, uint64_t now_us)
{
    uint8_t *at = out;
    size_t done = 0;
    while (done < max && queue->first && queue_is_due(queue->first, now_us)) {
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
            queue_shift(from);
            from->bytes -= part;
            seg->open = false;
            seg->rank = PMI_RANK_KEPT;
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
    pmi_queue_close_books(queue, pool);
}
