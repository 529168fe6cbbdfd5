/* SPDX-License-Identifier: MIT */
/* core/buf.h -- growing bytes, shared chunks, bounded cursors. */
#ifndef PMI_BUF_H
#define PMI_BUF_H

#include "base.h"

/* ---- A growing byte buffer --------------------------------------------- */
/* Caller's storage. A failed append sets `failed` and appends nothing;
 * further appends do nothing, so that a writer checks once at the end. */
typedef struct pmi_buf {
    const pmi_env *env; /* borrowed */
    uint8_t *data;      /* owned */
    size_t len, cap;
    size_t max; /* an append past it fails; SIZE_MAX = no limit */
    bool failed;
} pmi_buf;

void pmi_buf_init(pmi_buf *buf, const pmi_env *env, size_t max);
void pmi_buf_fini(pmi_buf *buf);
/* Empty again, storage kept, `failed` cleared. */
void pmi_buf_reset(pmi_buf *buf);
/* Room for n more bytes at data + len; NULL on failure. Does not advance. */
uint8_t *pmi_buf_reserve(pmi_buf *buf, size_t n);
void pmi_buf_add(pmi_buf *buf, const void *data, size_t n);
void pmi_buf_add_byte(pmi_buf *buf, uint8_t byte);
void pmi_buf_add_text(pmi_buf *buf, const char *text);
void pmi_buf_add_format(pmi_buf *buf, const char *fmt, ...) PMI_PRINTF(2, 3);
/* Drop n bytes at the front (n <= len). */
void pmi_buf_consume(pmi_buf *buf, size_t n);
static inline pm_slice pmi_buf_slice(const pmi_buf *buf)
{
    pm_slice s = {buf->data, buf->len};
    return s;
}

/* ---- Shared chunks ----------------------------------------------------- */
/* Immutable once it is shared (refs > 1): a broadcast's bytes lie in one
 * chunk, every queue holds a reference. Not for several threads. */
typedef struct pmi_chunk {
    const pmi_env *env; /* borrowed */
    uint32_t refs;
    uint32_t len, cap;           /* bytes used, bytes there */
    struct pmi_chunk_pool *pool; /* where it returns to; NULL: the heap */
    struct pmi_chunk *next_free;
    uint8_t data[];
} pmi_chunk;

/* One reference, len 0. NULL when out of memory. */
pmi_chunk *pmi_chunk_new(const pmi_env *env, size_t cap);
static inline pmi_chunk *pmi_chunk_ref(pmi_chunk *chunk)
{
    chunk->refs++;
    return chunk;
}
void pmi_chunk_unref(pmi_chunk *chunk); /* NULL is fine */

/* Free chunks of one size, kept for the next one; `keep` at most. */
typedef struct pmi_chunk_pool {
    const pmi_env *env;
    size_t chunk_cap;
    uint32_t keep, kept;
    uint32_t out; /* chunks now in use */
    pmi_chunk *free;
} pmi_chunk_pool;

void pmi_chunk_pool_init(pmi_chunk_pool *pool, const pmi_env *env,
                         size_t chunk_cap, uint32_t keep);
/* All chunks must be back. */
void pmi_chunk_pool_fini(pmi_chunk_pool *pool);
pmi_chunk *pmi_chunk_pool_get(pmi_chunk_pool *pool); /* NULL: no memory */

/* ---- A bounded reader -------------------------------------------------- */
/* Reads past the end set `bad` and give zero; check once at the end. */
typedef struct pmi_cursor {
    const uint8_t *at, *end;
    bool bad;
} pmi_cursor;

static inline pmi_cursor pmi_cursor_of(const void *data, size_t len)
{
    pmi_cursor c = {(const uint8_t *)data, (const uint8_t *)data, false};
    if (len)
        c.end += len;
    return c;
}
static inline size_t pmi_cursor_left(const pmi_cursor *c)
{
    return (size_t)(c->end - c->at);
}
static inline uint8_t pmi_cursor_byte(pmi_cursor *c)
{
    if (c->at == c->end) {
        c->bad = true;
        return 0;
    }
    return *c->at++;
}
/* n bytes, borrowed from the input; empty slice and `bad` when cut. */
static inline pm_slice pmi_cursor_bytes(pmi_cursor *c, size_t n)
{
    pm_slice s = {c->at, n};
    if (n > pmi_cursor_left(c)) {
        c->bad = true;
        s.len = 0;
        return s;
    }
    if (n) /* an empty cursor may stand on NULL */
        c->at += n;
    return s;
}

#endif
