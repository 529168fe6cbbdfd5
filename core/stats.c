/* SPDX-License-Identifier: MIT */
/* core/stats.c -- histograms of time, and how numbers are written down.
 *
 * Bucket bounds are inclusive at the top, (15, 16], so that "at most 2^n
 * microseconds", which is what the exposition format counts, is exact.
 * Start reading at stats_bucket_of() and pmi_stat_prometheus(). */
#include "stats.h"

#include <inttypes.h>

/* A power of two is cut into 2^4 buckets. */
#define STATS_CUT_BITS 4
#define STATS_CUTS (1u << STATS_CUT_BITS)
/* Bounds of the exposed histograms: 2^4 us (16 us) to 2^26 us (67 s). */
#define STATS_LE_FIRST 4
#define STATS_LE_LAST 26

/* ---- Histogram --------------------------------------------------------- */
/* Values below 16 have a bucket each (0 shares that of 1); above, the highest
 * bit chooses the row of 16 and the four bits behind it the bucket. */
static size_t stats_bucket_of(uint64_t us)
{
    uint64_t x = us ? us - 1 : 0;
    unsigned top;
    if (x < STATS_CUTS)
        return (size_t)x;
    top = pmi_log2(x);
    if (top >= PMI_HISTOGRAM_BITS_MAX)
        return PMI_HISTOGRAM_BUCKETS - 1;
    return (size_t)(top - STATS_CUT_BITS + 1) * STATS_CUTS +
           ((x >> (top - STATS_CUT_BITS)) & (STATS_CUTS - 1));
}

/* The highest value that falls in a bucket. */
static uint64_t stats_bucket_bound(size_t bucket)
{
    size_t row = bucket / STATS_CUTS, cut = bucket % STATS_CUTS;
    if (!row)
        return cut + 1;
    return (uint64_t)(STATS_CUTS + cut + 1) << (row - 1);
}

void pmi_histogram_add(pmi_histogram *h, uint64_t us, uint32_t times)
{
    uint64_t all = us <= UINT32_MAX ? us * times : times ? UINT64_MAX : 0;
    if (us > h->max_us)
        h->max_us = us;
    h->count += times;
    h->sum_us = h->sum_us > UINT64_MAX - all ? UINT64_MAX : h->sum_us + all;
    h->buckets[stats_bucket_of(us)] += times;
}

uint64_t pmi_histogram_percentile(const pmi_histogram *h, double percent)
{
    double exact = percent / 100.0 * (double)h->count;
    uint64_t rank, seen = 0, bound;
    size_t i = 0;
    if (percent >= 100.0)
        return h->max_us;
    rank = exact > 0.0 ? (uint64_t)exact : 0;
    if (rank == 0 || (double)rank < exact)
        rank++;
    for (; i < PMI_HISTOGRAM_BUCKETS - 1; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            break;
    }
    bound = stats_bucket_bound(i);
    return i == PMI_HISTOGRAM_BUCKETS - 1 || bound > h->max_us ? h->max_us
                                                               : bound;
}

uint64_t pmi_histogram_at_most(const pmi_histogram *h, unsigned bits)
{
    size_t end = stats_bucket_of((uint64_t)1 << (bits & 63)) + 1;
    uint64_t n = 0;
    if (bits >= PMI_HISTOGRAM_BITS_MAX)
        return h->count;
    for (size_t i = 0; i < end; i++)
        n += h->buckets[i];
    return n;
}

/* ---- Names and labels -------------------------------------------------- */
static bool stats_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool pmi_stat_name_ok(const char *name)
{
    size_t len = 1;
    if (!name || !stats_letter(*name))
        return false;
    for (name++; *name; name++, len++)
        if (!stats_letter(*name) && (*name < '0' || *name > '9'))
            return false;
    return len <= PMI_STAT_NAME_MAX;
}

/* Text in which no line end, and between quotes no quote, is left. */
static void stats_add_escaped(pmi_buf *out, const char *text, bool quoted)
{
    for (; *text; text++) {
        if (*text == '\n')
            pmi_buf_add_text(out, "\\n");
        else if (*text == '\\' || (quoted && *text == '"'))
            pmi_buf_add(out, *text == '"' ? "\\\"" : "\\\\", 2);
        else
            pmi_buf_add_byte(out, (uint8_t)*text);
    }
}

void pmi_stat_add_label(pmi_buf *labels, const char *name, const char *value)
{
    if (labels->len)
        pmi_buf_add_byte(labels, ',');
    pmi_buf_add_text(labels, name);
    pmi_buf_add_text(labels, "=\"");
    stats_add_escaped(labels, value, true);
    pmi_buf_add_byte(labels, '"');
}

/* ---- Prometheus -------------------------------------------------------- */
static void stats_add_seconds(pmi_buf *out, uint64_t us)
{
    pmi_buf_add_format(out, "%" PRIu64 ".%06" PRIu64, us / 1000000,
                       us % 1000000);
}

/* name_suffix{labels,le="..."} and a space; le may be NULL. */
static void stats_add_series(pmi_buf *out, const pmi_stat *stat,
                             const char *suffix, const char *le)
{
    bool labels = *stat->labels != 0;
    pmi_buf_add_text(out, stat->name);
    pmi_buf_add_text(out, suffix);
    if (labels || le) {
        pmi_buf_add_byte(out, '{');
        pmi_buf_add_text(out, stat->labels);
        if (le)
            pmi_buf_add_format(out, "%sle=\"%s\"", labels ? "," : "", le);
        pmi_buf_add_byte(out, '}');
    }
    pmi_buf_add_byte(out, ' ');
}

static void stats_add_value(pmi_buf *out, const pmi_stat *stat,
                            const char *suffix, const char *le, uint64_t value)
{
    stats_add_series(out, stat, suffix, le);
    pmi_buf_add_format(out, "%" PRIu64 "\n", value);
}

static void stats_add_times(pmi_buf *out, const pmi_stat *stat)
{
    static const pmi_histogram nothing = {0};
    const pmi_histogram *h = stat->times ? stat->times : &nothing;
    char le[32];
    for (unsigned bits = STATS_LE_FIRST; bits <= STATS_LE_LAST; bits++) {
        uint64_t us = (uint64_t)1 << bits;
        pmi_format(le, sizeof le, "%" PRIu64 ".%06" PRIu64, us / 1000000,
                   us % 1000000);
        stats_add_value(out, stat, "_bucket", le,
                        pmi_histogram_at_most(h, bits));
    }
    stats_add_value(out, stat, "_bucket", "+Inf", h->count);
    stats_add_series(out, stat, "_sum", NULL);
    stats_add_seconds(out, h->sum_us);
    pmi_buf_add_byte(out, '\n');
    stats_add_value(out, stat, "_count", NULL, h->count);
}

static void stats_add_head(pmi_buf *out, const pmi_stat *stat)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    if (stat->help) {
        pmi_buf_add_format(out, "# HELP %s ", stat->name);
        stats_add_escaped(out, stat->help, false);
        pmi_buf_add_byte(out, '\n');
    }
    pmi_buf_add_format(out, "# TYPE %s %s\n", stat->name, types[stat->kind]);
}

void pmi_stat_prometheus(pmi_buf *out, const pmi_stat *stat, bool first)
{
    if (first)
        stats_add_head(out, stat);
    if (stat->kind == PM_STAT_TIME)
        stats_add_times(out, stat);
    else
        stats_add_value(out, stat, "", NULL, stat->value);
}

/* ---- For people -------------------------------------------------------- */
static void stats_add_ms(pmi_buf *out, const char *name, uint64_t us)
{
    pmi_buf_add_format(out, " %s=%" PRIu64 ".%03" PRIu64, name, us / 1000,
                       us % 1000);
}

void pmi_stat_text(pmi_buf *out, const pmi_stat *stat)
{
    const pmi_histogram *h = stat->times;
    if (stat->kind != PM_STAT_TIME) {
        if (stat->value)
            stats_add_value(out, stat, "", NULL, stat->value);
        return;
    }
    if (!h || !h->count)
        return;
    stats_add_series(out, stat, "", NULL);
    pmi_buf_add_format(out, "count=%" PRIu64 " ms:", h->count);
    stats_add_ms(out, "mean", h->sum_us / h->count);
    stats_add_ms(out, "p50", pmi_histogram_percentile(h, 50));
    stats_add_ms(out, "p90", pmi_histogram_percentile(h, 90));
    stats_add_ms(out, "p99", pmi_histogram_percentile(h, 99));
    stats_add_ms(out, "p99.9", pmi_histogram_percentile(h, 99.9));
    stats_add_ms(out, "max", h->max_us);
    pmi_buf_add_byte(out, '\n');
}
