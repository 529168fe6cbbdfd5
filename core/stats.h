/* SPDX-License-Identifier: MIT */
/* core/stats.h -- counters, gauges, histograms of time, and their text.
 *
 * One pmi_stats per loop holds the numbers of all that lives there; what tells
 * two servers' numbers apart are labels. A number is registered once, by name
 * and labels, and is from then on a pointer: counting is one addition, no
 * lookup. Rows of numbers that differ in one label (a counter for each close
 * reason) are registered at once and counted by index:
 *
 *     pmi_stat *closed;
 *     pmi_stat_spec spec = {PMI_STAT_COUNTER, "pomelo_closed_total",
 *                           "Connections by the reason of their end.",
 *                           &server_label, 1};
 *     err = pmi_stats_add_row(stats, &spec, "reason", texts, n, &closed);
 *     pmi_stat_count(&closed[reason], 1);
 *
 * Names and labels are chosen by this side, never by strangers: `max` bounds
 * their number, but each one stays for as long as its owner. Knows no clock:
 * whoever measures brings the microseconds. */
#ifndef PMI_STATS_H
#define PMI_STATS_H

#include "base.h"
#include "buf.h"
#include "map.h"

/* ---- Histogram of microseconds ----------------------------------------- */
/* Log-linear: each power of two is cut into 16, so that a percentile is at
 * most 1/16 too high, whatever its size. 2^36 us (19 hours) and more fall in
 * the last bucket. Caller's storage, all zero is empty; adding never fails. */
#define PMI_HISTOGRAM_BITS_MAX 36
#define PMI_HISTOGRAM_BUCKETS ((PMI_HISTOGRAM_BITS_MAX - 3) * 16)
typedef struct pmi_histogram {
    uint64_t count, sum_us, min_us, max_us;
    uint64_t buckets[PMI_HISTOGRAM_BUCKETS];
} pmi_histogram;

void pmi_histogram_add(pmi_histogram *h, uint64_t us);
void pmi_histogram_merge(pmi_histogram *to, const pmi_histogram *from);
/* So many percent of the values (50, 99.9) are at most this. 0 when empty. */
uint64_t pmi_histogram_percentile(const pmi_histogram *h, double percent);
/* How many values are at most 2^bits microseconds; exact below
 * PMI_HISTOGRAM_BITS_MAX, all of them from there on. */
uint64_t pmi_histogram_at_most(const pmi_histogram *h, unsigned bits);

/* ---- Numbers ----------------------------------------------------------- */
typedef enum pmi_stat_kind {
    PMI_STAT_COUNTER = 0, /* only ever grows */
    PMI_STAT_GAUGE = 1,   /* goes up and down; never below 0 */
    PMI_STAT_TIME = 2     /* a histogram; its name ends with _seconds */
} pmi_stat_kind;

typedef struct pmi_stat_label {
    const char *name, *value;
} pmi_stat_label;

/* What to register. All is copied. */
typedef struct pmi_stat_spec {
    pmi_stat_kind kind;
    const char *name;             /* [a-zA-Z_][a-zA-Z0-9_]* */
    const char *help;             /* a sentence; may be NULL */
    const pmi_stat_label *labels; /* names as above, values UTF-8 */
    size_t labels_count;
} pmi_stat_spec;

typedef struct pmi_stat {
    uint64_t value;       /* counter, gauge */
    pmi_histogram *times; /* owned; NULL but for PMI_STAT_TIME */
    char *key;            /* owned: name{labels}, or the name alone */
} pmi_stat;

/* NULL is fine: then nobody counts. */
static inline void pmi_stat_count(pmi_stat *stat, uint64_t n)
{
    if (stat)
        stat->value += n;
}
static inline void pmi_stat_set(pmi_stat *stat, uint64_t value)
{
    if (stat)
        stat->value = value;
}
static inline void pmi_stat_drop(pmi_stat *stat, uint64_t n) /* gauges */
{
    if (stat)
        stat->value -= n <= stat->value ? n : stat->value;
}
static inline void pmi_stat_time(pmi_stat *stat, uint64_t us)
{
    if (stat && stat->times)
        pmi_histogram_add(stat->times, us);
}

/* ---- The registry ------------------------------------------------------ */
typedef struct pmi_stats {
    const pmi_env *env; /* borrowed */
    pmi_map by_key;     /* name{labels} -> pmi_stat */
    pmi_map families;   /* name -> all numbers of that name, stats.c's */
    uint32_t max;       /* numbers that may be registered */
} pmi_stats;

/* k0, k1: key of the maps. */
void pmi_stats_init(pmi_stats *stats, const pmi_env *env, uint64_t k0,
                    uint64_t k1, uint32_t max);
void pmi_stats_fini(pmi_stats *stats); /* all numbers are gone */

/* *out is borrowed until it is removed. PM_EINVAL: a name; PM_EEXIST: these
 * name and labels are taken, or the name by another kind; PM_ELIMIT: max;
 * PM_ENOMEM. On failure nothing is registered. */
pm_err pmi_stats_add(pmi_stats *stats, const pmi_stat_spec *spec,
                     pmi_stat **out);
/* `count` numbers in one array that differ in one more label: number i has
 * the value values[i]. *out is borrowed until it is removed. */
pm_err pmi_stats_add_row(pmi_stats *stats, const pmi_stat_spec *spec,
                         const char *label, const char *const *values,
                         size_t count, pmi_stat **out);
/* What an add gave in *out, with its whole row. NULL is fine. */
void pmi_stats_remove(pmi_stats *stats, pmi_stat *row);
/* By its key as it stands in the text: name{a="b",c="d"}; or NULL. */
pmi_stat *pmi_stats_find(const pmi_stats *stats, const char *key);

/* ---- Text -------------------------------------------------------------- */
/* Prometheus's exposition format 0.0.4: names in the order in which they were
 * first registered; times as histograms in seconds, by powers of two. What
 * fails shows in out->failed. */
void pmi_stats_prometheus(pmi_stats *stats, pmi_buf *out);
/* For people: a line each, times as count, mean and percentiles in ms.
 * Numbers that are 0 are left out. */
void pmi_stats_text(pmi_stats *stats, pmi_buf *out);

#endif
