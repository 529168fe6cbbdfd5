/* SPDX-License-Identifier: MIT */
/* core/stats.h -- histograms of time, and how numbers are written down.
 *
 * A number lives where it is counted, as an integer of that module's struct;
 * nobody registers anything, and counting can not fail. What makes it a
 * number with a name is whoever tells it: he hands one pmi_stat after the
 * other to a sink, all of one name together. Labels are chosen by this side,
 * never by strangers. Knows no clock: whoever measures brings the
 * microseconds. */
#ifndef PMI_STATS_H
#define PMI_STATS_H

#include "base.h"
#include "buf.h"

/* ---- Histogram of microseconds ----------------------------------------- */
/* Log-linear: each power of two is cut into 16, so that a percentile is at
 * most 1/16 too high, whatever its size. 2^36 us (19 hours) and more fall in
 * the last bucket. Caller's storage, all zero is empty; adding never fails. */
#define PMI_HISTOGRAM_BITS_MAX 36
#define PMI_HISTOGRAM_BUCKETS ((PMI_HISTOGRAM_BITS_MAX - 3) * 16)
typedef struct pmi_histogram {
    uint64_t count, sum_us, max_us;
    uint64_t buckets[PMI_HISTOGRAM_BUCKETS];
} pmi_histogram;

/* The highest bit of x > 0. */
static inline unsigned pmi_log2(uint64_t x)
{
#if defined(__GNUC__)
    return 63u - (unsigned)__builtin_clzll(x);
#else
    unsigned n = 0;
    while (x >>= 1)
        n++;
    return n;
#endif
}

/* `times` values of `us` each. */
void pmi_histogram_add(pmi_histogram *h, uint64_t us, uint32_t times);
/* So many percent of the values (50, 99.9) are at most this. 0 when empty. */
uint64_t pmi_histogram_percentile(const pmi_histogram *h, double percent);
/* How many values are at most 2^bits microseconds; exact below
 * PMI_HISTOGRAM_BITS_MAX, all of them from there on. */
uint64_t pmi_histogram_at_most(const pmi_histogram *h, unsigned bits);

/* ---- A number that is told --------------------------------------------- */
typedef struct pmi_stat {
    const char *name, *help; /* of all its kin; a time's ends with _seconds */
    pm_stat_kind kind;
    const char *labels;         /* a="b",c="d", escaped; "" */
    uint64_t value;             /* counter, gauge */
    const pmi_histogram *times; /* a time's; NULL: nothing yet */
} pmi_stat;

/* [a-zA-Z_][a-zA-Z0-9_]*, at most PMI_STAT_NAME_MAX bytes. */
#define PMI_STAT_NAME_MAX 100
bool pmi_stat_name_ok(const char *name);
/* Appends one label, and a comma when there is one already. */
void pmi_stat_add_label(pmi_buf *labels, const char *name, const char *value);

/* ---- Text -------------------------------------------------------------- */
/* Prometheus's exposition format 0.0.4: times as histograms in seconds, by
 * powers of two. `first`: of its name. What fails shows in out->failed. */
void pmi_stat_prometheus(pmi_buf *out, const pmi_stat *stat, bool first);
/* For people: a line, times as count, mean and percentiles in ms. A number
 * that is 0 is left out. */
void pmi_stat_text(pmi_buf *out, const pmi_stat *stat);

#endif
