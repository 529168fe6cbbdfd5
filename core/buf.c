/* SPDX-License-Identifier: MIT */
/* core/buf.c -- growing bytes and shared chunks.
 *
 * A pmi_buf is for bytes that are being made: text, a package, a table. A
 * pmi_chunk is for bytes that are finished and lie in several queues at once;
 * chunks of the usual size come from a pool and go back to it, so that a
 * server in its steady state does not allocate to send.
 * Start reading at pmi_buf_reserve(). */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>

#define BUF_CAP_MIN 64
/* Formatted text up to here needs no second pass. */
#define BUF_FORMAT_STACK 256

/* ---- A growing byte buffer --------------------------------------------- */
void pmi_buf_init(pmi_buf *buf, const pmi_env *env, size_t max)
{
    memset(buf, 0, sizeof *buf);
    buf->env = env;
    buf->max = max;
}

void pmi_buf_fini(pmi_buf *buf)
{
    if (buf->data)
        pmi_free(buf->env, buf->data);
    buf->data = NULL;
    buf->len = buf->cap = 0;
    buf->failed = false;
}

void pmi_buf_reset(pmi_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

/* At least `need` bytes, doubling so that appends cost O(1) each, and never
 * more than max. need <= max. */
static bool buf_grow(pmi_buf *buf, size_t need)
{
    size_t cap = buf->cap > SIZE_MAX / 2 ? SIZE_MAX : buf->cap * 2;
    uint8_t *data;
    cap = pmi_min(pmi_max(pmi_max(cap, BUF_CAP_MIN), need), buf->max);
    data = pmi_resize(buf->env, buf->data, cap);
    if (!data)
        return false;
    buf->data = data;
    buf->cap = cap;
    return true;
}

uint8_t *pmi_buf_reserve(pmi_buf *buf, size_t n)
{
    size_t need;
    if (buf->failed)
        return NULL;
    if (!pmi_add_size(buf->len, n, &need) || need > buf->max ||
        ((need > buf->cap || !buf->data) && !buf_grow(buf, need))) {
        buf->failed = true;
        return NULL;
    }
    return buf->data + buf->len;
}

void pmi_buf_add(pmi_buf *buf, const void *data, size_t n)
{
    uint8_t *to;
    if (!n)
        return;
    to = pmi_buf_reserve(buf, n);
    if (!to)
        return;
    memcpy(to, data, n);
    buf->len += n;
}

void pmi_buf_add_byte(pmi_buf *buf, uint8_t byte)
{
    uint8_t *to = pmi_buf_reserve(buf, 1);
    if (!to)
        return;
    *to = byte;
    buf->len++;
}

void pmi_buf_add_text(pmi_buf *buf, const char *text)
{
    pmi_buf_add(buf, text, strlen(text));
}

/* The text goes through storage of its own, because the 0 that vsnprintf
 * writes behind it must not count against max. */
static void buf_add_long_format(pmi_buf *buf, size_t len, const char *fmt,
                                va_list args)
{
    char *text;
    if (buf->failed)
        return;
    text = len > buf->max - buf->len ? NULL : pmi_alloc(buf->env, len + 1);
    if (!text || vsnprintf(text, len + 1, fmt, args) < 0)
        buf->failed = true;
    else
        pmi_buf_add(buf, text, len);
    pmi_free(buf->env, text);
}

void pmi_buf_add_format(pmi_buf *buf, const char *fmt, ...)
{
    char text[BUF_FORMAT_STACK];
    va_list args, again;
    int len;
    va_start(args, fmt);
    va_copy(again, args);
    len = vsnprintf(text, sizeof text, fmt, args);
    if (len < 0)
        buf->failed = true;
    else if ((size_t)len < sizeof text)
        pmi_buf_add(buf, text, (size_t)len);
    else
        buf_add_long_format(buf, (size_t)len, fmt, again);
    va_end(again);
    va_end(args);
}

void pmi_buf_consume(pmi_buf *buf, size_t n)
{
    PMI_ASSERT(n <= buf->len);
    if (!n)
        return;
    buf->len -= n;
    if (buf->len)
        memmove(buf->data, buf->data + n, buf->len);
}

/* ---- Shared chunks ----------------------------------------------------- */
pmi_chunk *pmi_chunk_new(const pmi_env *env, size_t cap)
{
    pmi_chunk *chunk;
    if (cap > UINT32_MAX - sizeof *chunk)
        return NULL;
    chunk = pmi_alloc(env, sizeof *chunk + cap);
    if (!chunk)
        return NULL;
    memset(chunk, 0, sizeof *chunk);
    chunk->env = env;
    chunk->refs = 1;
    chunk->cap = (uint32_t)cap;
    return chunk;
}

static void buf_pool_put(pmi_chunk_pool *pool, pmi_chunk *chunk)
{
    PMI_ASSERT(pool->out > 0);
    pool->out--;
    if (pool->kept >= pool->keep) {
        pmi_free(chunk->env, chunk);
        return;
    }
    chunk->next_free = pool->free;
    pool->free = chunk;
    pool->kept++;
}

void pmi_chunk_unref(pmi_chunk *chunk)
{
    if (!chunk)
        return;
    PMI_ASSERT(chunk->refs > 0);
    if (--chunk->refs)
        return;
    if (chunk->pool)
        buf_pool_put(chunk->pool, chunk);
    else
        pmi_free(chunk->env, chunk);
}

void pmi_chunk_pool_init(pmi_chunk_pool *pool, const pmi_env *env,
                         size_t chunk_cap, uint32_t keep)
{
    memset(pool, 0, sizeof *pool);
    pool->env = env;
    pool->chunk_cap = chunk_cap;
    pool->keep = keep;
}

void pmi_chunk_pool_fini(pmi_chunk_pool *pool)
{
    PMI_ASSERT(pool->out == 0);
    while (pool->free) {
        pmi_chunk *chunk = pool->free;
        pool->free = chunk->next_free;
        pmi_free(chunk->env, chunk);
    }
    pool->kept = 0;
}

/* More are in use than ever before: an eighth more is kept ready, so that the
 * next records, ever smaller ones, find a chunk there. No memory: none is. */
static void chunk_pool_ahead(pmi_chunk_pool *pool)
{
    for (uint32_t i = pool->out / 8; i && pool->kept < pool->keep; i--) {
        pmi_chunk *chunk = pmi_chunk_new(pool->env, pool->chunk_cap);
        if (!chunk)
            return;
        chunk->pool = pool;
        chunk->refs = 0;
        chunk->next_free = pool->free;
        pool->free = chunk;
        pool->kept++;
    }
}

pmi_chunk *pmi_chunk_pool_get(pmi_chunk_pool *pool)
{
    pmi_chunk *chunk = pool->free;
    if (chunk) {
        pool->free = chunk->next_free;
        pool->kept--;
        chunk->next_free = NULL;
        chunk->refs = 1;
        chunk->len = 0;
    } else {
        chunk = pmi_chunk_new(pool->env, pool->chunk_cap);
        if (!chunk)
            return NULL;
        chunk->pool = pool;
        chunk_pool_ahead(pool);
    }
    pool->out++;
    return chunk;
}
