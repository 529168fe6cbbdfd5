/* SPDX-License-Identifier: MIT */
/* test/fuzz/fuzz.h -- the world of a target that runs whole objects: a loop
 * whose heap is counted and can be made to fail, whose time passes when it is
 * told to, and whose chance comes from the input. */
#ifndef FUZZ_H
#define FUZZ_H

#include "core/conn.h"

#include <stdlib.h>

#define FUZZ_CHECK(x) ((x) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct fuzz_world {
    size_t live, calls, fail_at; /* blocks; fail_at 0: none fails */
    uint64_t now_us, chance;
    pm_loop *loop;
} fuzz_world;

/* ---- What the loop stands on --------------------------------------------- */

static inline bool fuzz_refuses(fuzz_world *w)
{
    return ++w->calls == w->fail_at;
}

static inline void *fuzz_alloc(size_t bytes, void *ctx)
{
    fuzz_world *w = ctx;
    void *ptr = fuzz_refuses(w) ? NULL : malloc(bytes);
    w->live += ptr != NULL;
    return ptr;
}

static inline void *fuzz_resize(void *ptr, size_t bytes, void *ctx)
{
    fuzz_world *w = ctx;
    void *other = fuzz_refuses(w) ? NULL : realloc(ptr, bytes);
    w->live += other && !ptr;
    return other;
}

static inline void fuzz_release(void *ptr, void *ctx)
{
    fuzz_world *w = ctx;
    w->live -= ptr != NULL;
    free(ptr);
}

static inline uint64_t fuzz_clock(void *ctx)
{
    return ((fuzz_world *)ctx)->now_us;
}

static inline void fuzz_random(void *out, size_t len, void *ctx)
{
    fuzz_world *w = ctx;
    uint8_t *bytes = out;
    while (len--) {
        w->chance = w->chance * 6364136223846793005u + 1442695040888963407u;
        *bytes++ = (uint8_t)(w->chance >> 56);
    }
}

/* Nothing fails yet: a target that could not even begin would look fine. */
static inline void fuzz_world_open(fuzz_world *w, bool memory_only,
                                   uint64_t chance)
{
    pm_loop_opts opts = pm_loop_opts_default();
    w->now_us = 1000000;
    w->chance = chance;
    opts.memory_only = memory_only;
    opts.alloc = (pm_alloc){fuzz_alloc, fuzz_resize, fuzz_release, w};
    opts.clock_us = fuzz_clock;
    opts.random = fuzz_random;
    opts.seam_ctx = w;
    FUZZ_CHECK(pm_loop_new(&w->loop, &opts) == PM_OK);
}

/* Everything on the loop is gone: nothing may be left of it. */
static inline void fuzz_world_close(fuzz_world *w)
{
    w->fail_at = 0;
    FUZZ_CHECK(pm_loop_free(w->loop) == PM_OK);
    FUZZ_CHECK(w->live == 0);
}

/* The so manieth allocation from now on is refused; 0: none. */
static inline void fuzz_world_fail(fuzz_world *w, size_t k)
{
    w->fail_at = k ? w->calls + k : 0;
}

static inline void fuzz_world_pass(fuzz_world *w, uint64_t ms, int turns)
{
    w->now_us += ms * 1000 + 1;
    while (turns--)
        pm_loop_poll(w->loop, 0);
}

/* ---- The input ------------------------------------------------------------ */

/* Up to `max` bytes of what is left; pmi_cursor_bytes takes all or nothing. */
static inline pm_slice fuzz_take(pmi_cursor *in, size_t max)
{
    return pmi_cursor_bytes(in, pmi_min(max, pmi_cursor_left(in)));
}

static inline void fuzz_send(pmi_conn *conn, pm_slice bytes)
{
    if (conn)
        pmi_conn_send(conn, &bytes, 1, 0);
}

#endif
