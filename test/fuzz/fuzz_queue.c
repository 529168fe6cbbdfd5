/* SPDX-License-Identifier: MIT */
/* fuzz_queue.c -- what waits for a slow reader, in any order of events.
 *
 *     | fail | op, argument ... |
 *
 * Each message says its number and its length, so that what leaves the queue
 * tells what has become of it. It looks for: bytes that are no message, a
 * message twice, a kept one that is missing, one that overtakes where it must
 * not, one that is taken out and not told or told and not taken out, counts
 * that are not true, a heap that is not empty. */
#include "fuzz.h"

#include "core/queue.h"

enum { MESSAGES_MAX = 400, HEAD = 4, GATHER = 8, KEYS = 4 };
enum {
    OP_KEPT,
    OP_CHUNK,
    OP_URGENT,
    OP_RANKED,
    OP_RANKED_CHUNK,
    OP_SENT,
    OP_TRIM,
    OP_BOOKS
};

typedef struct message {
    uint8_t rank, key;
    bool urgent, there, seen, taken;
} message;

typedef struct fuzz {
    fuzz_world world;
    pmi_segment_pool pool;
    pmi_queue queue;
    message sent[MESSAGES_MAX];
    size_t count;
    size_t added, left; /* bytes that went in, that came out or were dropped */
    uint32_t dropped;   /* as the queue has told */
    uint8_t open[HEAD + 1024]; /* of the message that is leaving */
    size_t open_len;
    size_t last, last_urgent; /* numbers + 1 of the last ones that left */
} fuzz;

/* ---- Messages --------------------------------------------------------------
 */

static size_t message_write(uint8_t *p, size_t number, size_t len)
{
    p[0] = (uint8_t)(len >> 8);
    p[1] = (uint8_t)len;
    p[2] = (uint8_t)(number >> 8);
    p[3] = (uint8_t)number;
    for (size_t i = HEAD; i < len; i++)
        p[i] = (uint8_t)(number + i);
    return len;
}

static message *message_new(fuzz *f, unsigned rank, unsigned key, bool urgent)
{
    message *m = &f->sent[f->count];
    *m = (message){(uint8_t)rank, (uint8_t)key, urgent, true, false, false};
    return m;
}

/* It is in the queue. */
static void message_in(fuzz *f, size_t len)
{
    f->added += len;
    f->count++;
}

/* A whole one has left. */
static void message_left(fuzz *f)
{
    size_t number = (size_t)f->open[2] << 8 | f->open[3];
    message *m = &f->sent[number];
    size_t *last = number < f->count && m->urgent ? &f->last_urgent : &f->last;
    FUZZ_CHECK(number < f->count && m->there && !m->seen);
    for (size_t i = HEAD; i < f->open_len; i++)
        FUZZ_CHECK(f->open[i] == (uint8_t)(number + i));
    FUZZ_CHECK(number >= *last);
    *last = number + 1;
    m->seen = true;
    f->open_len = 0;
}

static void bytes_left(fuzz *f, const uint8_t *data, size_t len)
{
    f->left += len;
    while (len--) {
        f->open[f->open_len++] = *data++;
        if (f->open_len >= HEAD &&
            f->open_len == ((size_t)f->open[0] << 8 | f->open[1]))
            message_left(f);
        FUZZ_CHECK(f->open_len < sizeof f->open);
    }
}

/* It will not leave: its serial is its number + 1. */
static void message_taken(void *ctx, uint32_t serial)
{
    fuzz *f = ctx;
    message *m = &f->sent[serial - 1];
    FUZZ_CHECK(serial > 0 && serial <= f->count && m->there && !m->seen);
    FUZZ_CHECK(m->rank == PMI_RANK_LOOSE && !m->taken);
    m->taken = true;
}

/* ---- Operations ------------------------------------------------------------
 */

static void op_kept(fuzz *f, size_t len)
{
    uint8_t *p = pmi_queue_room(&f->queue, &f->pool, len);
    if (!p)
        return;
    message_new(f, PMI_RANK_KEPT, 0, false);
    message_write(p, f->count, len);
    pmi_queue_written(&f->queue, &f->pool, len);
    message_in(f, len);
}

static void op_ranked(fuzz *f, size_t len, unsigned rank, unsigned key)
{
    uint8_t *p = pmi_queue_room_apart(&f->queue, &f->pool, len);
    if (!p)
        return;
    message_new(f, rank, key, false);
    message_write(p, f->count, len);
    pmi_queue_written(&f->queue, &f->pool, len);
    message_in(f, len);
    f->dropped += pmi_queue_rank(&f->queue, &f->pool, (pmi_rank)rank, key,
                                 (uint32_t)f->count)
                      ? 1
                      : 0;
}

/* The message lies behind something else in a chunk that others share. */
static void op_chunk(fuzz *f, size_t len, unsigned rank, unsigned key,
                     bool urgent)
{
    pmi_chunk *chunk = pmi_chunk_new(pmi_loop_env(f->world.loop), len + 3);
    pm_err err;
    if (!chunk)
        return;
    message_new(f, rank, key, urgent);
    message_write(chunk->data + 3, f->count, len);
    chunk->len = (uint32_t)len + 3;
    err = pmi_queue_add(&f->queue, &f->pool, chunk, 3, urgent);
    pmi_chunk_unref(chunk);
    if (err)
        return;
    message_in(f, len);
    if (rank)
        f->dropped += pmi_queue_rank(&f->queue, &f->pool, (pmi_rank)rank, key,
                                     (uint32_t)f->count)
                          ? 1
                          : 0;
}

static void op_sent(fuzz *f, size_t max)
{
    pmi_iov iov[GATHER];
    int n = pmi_queue_gather(&f->queue, iov, GATHER);
    size_t all = 0;
    for (int i = 0; i < n && all < max; i++) {
        size_t part = pmi_min(iov[i].len, max - all);
        bytes_left(f, iov[i].data, part);
        all += part;
    }
    pmi_queue_sent(&f->queue, &f->pool, all);
}

/* The same by copying, as TLS does: whatever waits has come. */
static void op_taken(fuzz *f, size_t max)
{
    uint8_t bytes[2048];
    size_t n = pmi_min(max, f->queue.bytes);
    FUZZ_CHECK(pmi_queue_take(&f->queue, &f->pool, bytes, n, 0) == n);
    bytes_left(f, bytes, n);
}

static void op_books(fuzz *f)
{
    uint32_t replaced = 0;
    if (!f->queue.books) {
        if (pmi_queue_open_books(&f->queue, &f->pool, message_taken, f,
                                 &replaced) == PM_OK)
            f->dropped += replaced;
    } else if (!f->queue.bytes) {
        pmi_queue_close_books(&f->queue, &f->pool);
    }
}

static void op_trim(fuzz *f, size_t weight)
{
    f->dropped += pmi_queue_trim(&f->queue, &f->pool, weight);
    if (f->queue.books)
        FUZZ_CHECK(pmi_queue_weight(&f->queue) <= weight ||
                   pmi_queue_loose(&f->queue) == 0);
}

static void fuzz_op(fuzz *f, uint8_t op, uint8_t argument)
{
    size_t len = HEAD + (op & 8 ? argument * 4u : argument % 60);
    unsigned rank = 1 + (op >> 4 & 1), key = op >> 5 & (KEYS - 1);
    switch (op & 7) {
    case OP_KEPT:
        op_kept(f, len);
        break;
    case OP_CHUNK:
    case OP_URGENT:
        op_chunk(f, len, PMI_RANK_KEPT, 0, (op & 7) == OP_URGENT);
        break;
    case OP_RANKED:
        op_ranked(f, len, rank, key);
        break;
    case OP_RANKED_CHUNK:
        op_chunk(f, len, rank, key, false);
        break;
    case OP_SENT:
        if (op & 16)
            op_taken(f, len);
        else
            op_sent(f, len);
        break;
    case OP_TRIM:
        op_trim(f, argument * 16u);
        break;
    default:
        op_books(f);
    }
}

/* ---- The verdict -----------------------------------------------------------
 */

static size_t fuzz_waiting(const pmi_queue *queue)
{
    size_t bytes = 0;
    const pmi_segment *before = NULL;
    for (const pmi_segment *s = queue->first; s; s = s->next) {
        FUZZ_CHECK(s->prev == before && s->len > 0);
        bytes += s->len;
        before = s;
    }
    FUZZ_CHECK(before == queue->last);
    return bytes;
}

static void fuzz_check(const fuzz *f)
{
    const pmi_queue *queue = &f->queue;
    FUZZ_CHECK(fuzz_waiting(queue) == queue->bytes);
    FUZZ_CHECK(pmi_queue_kept(queue) <= queue->bytes);
    FUZZ_CHECK(pmi_queue_weight(queue) >= queue->bytes);
    FUZZ_CHECK(pmi_queue_loose(queue) <= pmi_queue_weight(queue));
}

/* Everything leaves: what was to stay has come, of each key only the latest. */
static void fuzz_drain(fuzz *f, bool booked)
{
    uint32_t missing = 0;
    while (f->queue.bytes)
        op_sent(f, 300);
    FUZZ_CHECK(f->open_len == 0);
    for (size_t i = 0; i < f->count; i++) {
        FUZZ_CHECK(f->sent[i].seen != f->sent[i].taken);
        missing += !f->sent[i].seen;
    }
    FUZZ_CHECK(missing == f->dropped);
    FUZZ_CHECK(booked || !missing);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_cursor in = pmi_cursor_of(data, size);
    static fuzz f;
    uint8_t fail = pmi_cursor_byte(&in);
    bool booked = false;
    memset(&f, 0, sizeof f);
    if (in.bad)
        return 0;
    fuzz_world_open(&f.world, true, 1);
    f.pool.loop = f.world.loop;
    fuzz_world_fail(&f.world, fail);
    while (pmi_cursor_left(&in) > 1 && f.count < MESSAGES_MAX) {
        uint8_t op = pmi_cursor_byte(&in);
        fuzz_op(&f, op, pmi_cursor_byte(&in));
        booked |= f.queue.books != NULL;
        fuzz_check(&f);
    }
    f.world.fail_at = 0;
    fuzz_drain(&f, booked);
    pmi_queue_clear(&f.queue, &f.pool);
    pmi_segment_pool_fini(&f.pool);
    fuzz_world_close(&f.world);
    return 0;
}
