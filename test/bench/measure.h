/* SPDX-License-Identifier: MIT */
/* test/bench/measure.h -- one row of a bench: a piece of work, again and again.
 *
 * Two ways to look at it. By the clock: as often as fits into a moment, the
 * best of some rounds, nanoseconds. By --count: a fixed number of times after
 * a warm-up, so that callgrind, which collects inside measure_collected alone
 * and writes a part after each, gives the instructions of every row
 * (check.sh). */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MEASURE_WARM = 20, MEASURE_ROUNDS = 7 };

typedef struct measure_row {
    const char *name;
    void (*run)(void *ctx); /* one piece of work */
    unsigned units;         /* messages in it */
    unsigned count;         /* how often it is counted */
} measure_row;

static inline uint64_t measure_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((noinline)) static void
measure_collected(void (*run)(void *ctx), void *ctx, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        run(ctx);
}

static inline uint64_t measure_round(const measure_row *row, void *ctx,
                                     unsigned count)
{
    uint64_t from = measure_now_ns();
    for (unsigned i = 0; i < count; i++)
        row->run(ctx);
    return measure_now_ns() - from;
}

static inline double measure_ns(const measure_row *row, void *ctx)
{
    unsigned count = 16;
    uint64_t best = UINT64_MAX;
    while (measure_round(row, ctx, count) < 10000000)
        count *= 2;
    for (int i = 0; i < MEASURE_ROUNDS; i++) {
        uint64_t ns = measure_round(row, ctx, count);
        best = ns < best ? ns : best;
    }
    return (double)best / count / row->units;
}

/* --count prints "NAME UNITS" a row, in the order of callgrind's parts. */
static inline int measure_main(const measure_row *rows, size_t rows_count,
                               void *ctx, int argc, char **argv)
{
    bool counts = argc == 2 && !strcmp(argv[1], "--count");
    if (argc > 1 && !counts) {
        fprintf(stderr,
                "usage: %s [--count]\n"
                "  --count   a fixed number of times, for callgrind\n",
                argv[0]);
        return strcmp(argv[1], "--help") ? 2 : 0;
    }
    for (size_t i = 0; i < rows_count; i++) {
        const measure_row *row = &rows[i];
        if (!counts) {
            printf("%-44s %9.1f ns\n", row->name, measure_ns(row, ctx));
            fflush(stdout);
            continue;
        }
        for (int k = 0; k < MEASURE_WARM; k++)
            row->run(ctx);
        measure_collected(row->run, ctx, row->count);
        printf("%s\t%u\n", row->name, row->count * row->units);
    }
    return 0;
}

#endif
