/* SPDX-License-Identifier: MIT */
/* test/test.h -- what the cmocka programs share. Header only.
 *
 * Include it first: it brings cmocka with all that cmocka wants before it,
 * pomelo.h and core/base.h. A program looks like this:
 *
 *     #include "test.h"
 *     #include "core/map.h"
 *
 *     static void test_put(void **state)
 *     {
 *         test_heap heap = {0};
 *         pmi_env env = test_env(&heap);
 *         (void)state;
 *         TEST_EACH_FAILURE(&heap) {
 *             ... build with env, use, free; each call may fail ...
 *         }
 *     }
 *
 *     static const struct CMUnitTest tests[] = {cmocka_unit_test(test_put)};
 *     TEST_MAIN(tests)
 *
 * In here: assert_ok and assert_err · TEST_MAIN, the deadline · test_heap, the
 * counting and failing allocator · TEST_EACH_FAILURE · cJSON on a test_heap ·
 * test_world, virtual time and seeded chance · files and hex.
 *
 * Tests are hosts, so this file may have what the library may not: a global
 * (cJSON's hooks have no ctx), abort, alarm. */
#ifndef TEST_TEST_H
#define TEST_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pomelo.h"
#ifndef TEST_PUBLIC /* set where only the amalgamation is in reach */
#include "core/base.h"
#endif

/* ---- Asserts ----------------------------------------------------------- */
static inline void test_check_err(pm_err got, pm_err want, const char *text,
                                  const char *file, int line)
{
    if (got == want)
        return;
    print_error("%s: %s, expected %s\n", text, pm_err_name(got),
                pm_err_name(want));
    _fail(file, line);
}
/* Like assert_int_equal, but tells the names. */
#define assert_err(expr, want)                                                 \
    test_check_err((expr), (want), #expr, __FILE__, __LINE__)
#define assert_ok(expr) assert_err(expr, PM_OK)

/* ---- Deadline and main ------------------------------------------------- */
#define TEST_DEADLINE_S 60

/* The whole program is killed by SIGALRM after so many seconds; the variable
 * PM_TEST_DEADLINE_S wins (0: none, for debuggers). */
static inline void test_deadline(unsigned seconds)
{
    const char *text = getenv("PM_TEST_DEADLINE_S");
    if (text)
        seconds = (unsigned)strtoul(text, NULL, 10);
    alarm(seconds);
}

/* The main function of a program with the default deadline. `tests` is an
 * array of struct CMUnitTest. */
#define TEST_MAIN(tests)                                                       \
    int main(void)                                                             \
    {                                                                          \
        test_deadline(TEST_DEADLINE_S);                                        \
        return cmocka_run_group_tests(tests, NULL, NULL);                      \
    }

/* ---- An allocator that counts and fails -------------------------------- */
/* Start from {0}. The counters may be read at any time; they are atomic since
 * pm_loop_post allocates on its caller's thread. */
typedef struct test_heap {
    atomic_size_t live_bytes, live_blocks, peak_bytes;
    atomic_size_t calls;  /* alloc and resize, refused ones included */
    atomic_size_t failed; /* of these, refused */
    size_t fail_at;       /* refuse the call with this number; 0: none */
    bool fail_after;      /* ... and all that come after it */
} test_heap;

/* Stands in front of each block. `owner` shows blocks that were given to the
 * wrong allocator, or twice. */
typedef union test_block {
    struct {
        size_t bytes;
        test_heap *owner;
    } of;
    max_align_t align;
} test_block;

static inline bool test_heap_refuses(test_heap *heap)
{
    size_t call = atomic_fetch_add(&heap->calls, 1) + 1;
    if (!heap->fail_at || call < heap->fail_at ||
        (call > heap->fail_at && !heap->fail_after))
        return false;
    atomic_fetch_add(&heap->failed, 1);
    return true;
}

static inline void test_heap_count(test_heap *heap, size_t more, size_t less)
{
    size_t live = atomic_fetch_add(&heap->live_bytes, more - less);
    live += more - less;
    if (live > heap->peak_bytes)
        heap->peak_bytes = live;
}

static inline test_block *test_heap_block(void *ptr, const test_heap *heap)
{
    test_block *block = (test_block *)ptr - 1;
    if (block->of.owner != heap) {
        fputs("test_heap: a block that is not of this heap\n", stderr);
        abort();
    }
    return block;
}

static inline void test_heap_release(void *ptr, void *ctx)
{
    test_heap *heap = ctx;
    test_block *block;
    if (!ptr)
        return;
    block = test_heap_block(ptr, heap);
    test_heap_count(heap, 0, block->of.bytes);
    atomic_fetch_sub(&heap->live_blocks, 1);
    block->of.owner = NULL;
    free(block);
}

/* New blocks are filled, so that nobody relies on zeros. */
static inline void *test_heap_alloc(size_t bytes, void *ctx)
{
    test_heap *heap = ctx;
    test_block *block;
    if (test_heap_refuses(heap) || bytes > SIZE_MAX - sizeof *block)
        return NULL;
    block = malloc(sizeof *block + bytes);
    if (!block)
        return NULL;
    block->of.bytes = bytes;
    block->of.owner = heap;
    memset(block + 1, 0xa5, bytes);
    test_heap_count(heap, bytes, 0);
    atomic_fetch_add(&heap->live_blocks, 1);
    return block + 1;
}

/* Always moves, so that nobody keeps a pointer into the old block. */
static inline void *test_heap_resize(void *ptr, size_t bytes, void *ctx)
{
    void *moved = test_heap_alloc(bytes, ctx);
    if (moved && ptr) {
        test_block *block = test_heap_block(ptr, ctx);
        memcpy(moved, ptr, block->of.bytes < bytes ? block->of.bytes : bytes);
        test_heap_release(ptr, ctx);
    }
    return moved;
}

static inline pm_alloc test_alloc(test_heap *heap)
{
    pm_alloc alloc = {test_heap_alloc, test_heap_resize, test_heap_release,
                      heap};
    return alloc;
}

#ifndef TEST_PUBLIC
static inline pmi_env test_env(test_heap *heap)
{
    pm_alloc alloc = test_alloc(heap);
    pmi_env env;
    pmi_env_init(&env, &alloc);
    return env;
}
#endif

static inline void test_heap_check_empty(const test_heap *heap,
                                         const char *file, int line)
{
    if (heap->live_blocks == 0 && heap->live_bytes == 0)
        return;
    print_error("%zu bytes in %zu blocks are left (allocation %zu failed%s)\n",
                (size_t)heap->live_bytes, (size_t)heap->live_blocks,
                heap->fail_at, heap->fail_after ? " and all after it" : "");
    _fail(file, line);
}
#define assert_heap_empty(heap)                                                \
    test_heap_check_empty((heap), __FILE__, __LINE__)

/* ---- Every allocation fails once --------------------------------------- */
typedef struct test_fail_rounds {
    test_heap *heap;
    size_t rounds;
    uint64_t seed;
    const char *file;
    int line;
} test_fail_rounds;

/* Each k up to here, then a sample; all of them with PM_TEST_EVERY_K=1. */
#define TEST_FAILURES_EACH 200

static inline uint64_t test_mix(uint64_t *state) /* SplitMix64 */
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline void test_fail_rounds_arm(test_fail_rounds *f, size_t k,
                                        bool after)
{
    f->heap->fail_at = k;
    f->heap->fail_after = after;
    f->heap->calls = 0;
    f->heap->failed = 0;
    f->rounds++;
}

/* Ends the round before and arms the next one; false after the last one. */
static inline bool test_fail_rounds_next(test_fail_rounds *f)
{
    test_heap *heap = f->heap;
    size_t k = heap->fail_at;
    bool after = heap->fail_after;
    test_heap_check_empty(heap, f->file, f->line);
    if (!f->rounds) {
        test_fail_rounds_arm(f, 1, false);
        return true;
    }
    if (heap->failed) {
        size_t step = 1;
        if (k >= TEST_FAILURES_EACH && !getenv("PM_TEST_EVERY_K"))
            step += (size_t)(test_mix(&f->seed) % (k / 8));
        test_fail_rounds_arm(f, k + step, after);
        return true;
    }
    if (f->rounds == 1) {
        print_error("the scenario does not allocate from this heap\n");
        _fail(f->file, f->line);
    }
    if (!after)
        test_fail_rounds_arm(f, 1, true);
    else
        test_fail_rounds_arm(f, 0, false);
    return heap->fail_at != 0;
}

static inline test_fail_rounds test_fail_rounds_of(test_heap *heap,
                                                   const char *file, int line)
{
    test_fail_rounds f = {heap, 0, 1, file, line};
    return f;
}

/* TEST_EACH_FAILURE(&heap) { scenario } runs the scenario with its allocation
 * 1, 2, 3, ... refused, until it runs through with none refused; then once
 * more so, with all later ones refused too. After each round nothing may be
 * left on the heap. heap->failed tells a scenario whether it was hit; in the
 * last round of each kind it was not, and everything must have worked. */
#define TEST_EACH_FAILURE(heap)                                                \
    for (test_fail_rounds test_rounds_ =                                       \
             test_fail_rounds_of((heap), __FILE__, __LINE__);                  \
         test_fail_rounds_next(&test_rounds_);)

/* ---- cJSON on a test_heap ---------------------------------------------- */
static test_heap *test_cjson_heap;

static inline void *test_cjson_alloc(size_t bytes)
{
    return test_heap_alloc(bytes, test_cjson_heap);
}

static inline void test_cjson_release(void *ptr)
{
    test_heap_release(ptr, test_cjson_heap);
}

/* From now on cJSON allocates here too; NULL: from malloc again. Trees must
 * not live across the change. */
static inline void test_cjson_use(test_heap *heap)
{
    cJSON_Hooks hooks = {test_cjson_alloc, test_cjson_release};
    test_cjson_heap = heap;
    cJSON_InitHooks(heap ? &hooks : NULL);
}

/* ---- Virtual time, seeded chance --------------------------------------- */
/* Start from {.seed = n}; what happens is a function of n. */
typedef struct test_world {
    uint64_t now_us;
    uint64_t seed;
} test_world;

static inline uint64_t test_world_clock_us(void *ctx)
{
    test_world *world = ctx;
    return world->now_us;
}

static inline uint64_t test_world_u64(test_world *world)
{
    return test_mix(&world->seed);
}

/* 0 .. below - 1. */
static inline size_t test_world_below(test_world *world, size_t below)
{
    return (size_t)(test_mix(&world->seed) % below);
}

static inline void test_world_random(void *out, size_t len, void *ctx)
{
    uint8_t *to = out;
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(test_mix(&((test_world *)ctx)->seed) >> 56);
}

/* Options of a loop in this world: memory only, with this heap unless NULL. */
static inline pm_loop_opts test_world_opts(test_world *world, test_heap *heap)
{
    pm_loop_opts opts = pm_loop_opts_default();
    opts.memory_only = true;
    opts.clock_us = test_world_clock_us;
    opts.random = test_world_random;
    opts.seam_ctx = world;
    if (heap)
        opts.alloc = test_alloc(heap);
    return opts;
}

/* Lets so much virtual time pass on a loop and does all that falls due in it,
 * each at its time. False when the loop never comes to rest. */
static inline bool test_world_run(test_world *world, pm_loop *loop, uint64_t us)
{
    uint64_t end = world->now_us + us;
    for (size_t turns = 0; turns < 10 * 1000 * 1000; turns++) {
        uint64_t next;
        pm_loop_poll(loop, 0);
        next = pm_loop_next_us(loop);
        if (next == 0)
            continue;
        if (world->now_us >= end)
            return true;
        world->now_us = next < end - world->now_us ? world->now_us + next : end;
    }
    return false;
}

/* ---- What was counted -------------------------------------------------- */
/* With PM_STATS_DIR set, each program leaves a file there with every number of
 * the library that any of its apps could tell, "1" in front when it was not 0
 * at the end of one of them: tools/moved.sh finds those that no test moves. */
typedef struct test_number {
    char key[160];
    bool moved;
} test_number;
static test_number test_numbers_told[512];
static size_t test_numbers_count;

static inline void test_numbers_write(void)
{
    char path[256];
    FILE *to;
    snprintf(path, sizeof path, "%s/%ld", getenv("PM_STATS_DIR"),
             (long)getpid());
    to = fopen(path, "a");
    for (size_t i = 0; to && i < test_numbers_count; i++)
        fprintf(to, "%d %s\n", test_numbers_told[i].moved,
                test_numbers_told[i].key);
    if (to)
        fclose(to);
}

/* Servers, routes and methods are the tests' own. */
static inline bool test_number_told(const pm_stat *stat, void *ctx)
{
    static size_t at;
    char key[sizeof test_numbers_told[0].key];
    const char *label = strstr(stat->labels, "\",");
    (void)ctx;
    if (strncmp(stat->name, "pomelo_", 7) != 0)
        return true;
    label = label ? label + 2 : "";
    if (!strncmp(label, "route=", 6) || !strncmp(label, "method=", 7))
        label = "";
    if (strncmp(stat->labels, "server=", 7) != 0)
        label = stat->labels;
    snprintf(key, sizeof key, "%s %s", stat->name, label);
    for (size_t n = 0; n < test_numbers_count; n++, at++) {
        test_number *one = &test_numbers_told[at % test_numbers_count];
        if (strcmp(one->key, key) != 0)
            continue;
        one->moved |= stat->value > 0;
        at++;
        return true;
    }
    if (test_numbers_count < 512) {
        test_number *one = &test_numbers_told[test_numbers_count++];
        strcpy(one->key, key);
        one->moved = stat->value > 0;
    }
    return true;
}

static inline void test_app_free(pm_app *app)
{
    if (app && getenv("PM_STATS_DIR")) {
        if (!test_numbers_count)
            atexit(test_numbers_write);
        pm_stats_each(app, test_number_told, NULL);
    }
    pm_app_free(app);
}
#define pm_app_free(app) test_app_free(app)

/* ---- Bytes ------------------------------------------------------------- */
/* An exact copy on the C library's heap, so that AddressSanitizer sees a read
 * one byte too far. Free it with free(). */
static inline uint8_t *test_copy(const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, data, len);
    return copy;
}

/* Bytes of a hex text; white space between bytes is skipped. Free it with
 * free(). A text that is not hex fails the test. */
static inline uint8_t *test_unhex(const char *hex, size_t *len)
{
    uint8_t *out = malloc(strlen(hex) / 2 + 1), *copy;
    size_t n = 0;
    assert_non_null(out);
    while (*hex) {
        unsigned byte;
        if (strchr(" \t\r\n", *hex)) {
            hex++;
            continue;
        }
        assert_true(hex[1] && strchr("0123456789abcdefABCDEF", hex[0]) &&
                    strchr("0123456789abcdefABCDEF", hex[1]));
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        out[n++] = (uint8_t)byte;
        hex += 2;
    }
    copy = test_copy(out, n);
    free(out);
    *len = n;
    return copy;
}

/* Lower case, with a 0 behind it. Free it with free(). */
static inline char *test_hex(const void *data, size_t len)
{
    const uint8_t *p = data;
    char *out = malloc(2 * len + 1);
    assert_non_null(out);
    out[0] = 0;
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", p[i]);
    return out;
}

/* A file of test/data with a 0 behind it; tests run from the top of the tree,
 * or with PM_TEST_DATA naming the folder. Free it with free(). A file that is
 * not there fails the test. len may be NULL. */
static inline char *test_load(const char *name, size_t *len)
{
    const char *folder = getenv("PM_TEST_DATA");
    char path[1024], *data;
    FILE *file;
    long size;
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "test/data", name);
    file = fopen(path, "rb");
    if (!file)
        fail_msg("%s is not there", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    assert_true(size >= 0);
    rewind(file);
    data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, file), (size_t)size);
    fclose(file);
    data[size] = 0;
    if (len)
        *len = (size_t)size;
    return data;
}

#endif
