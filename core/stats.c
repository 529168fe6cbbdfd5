/* SPDX-License-Identifier: MIT */
/* core/stats.c -- counters, gauges, histograms of time, and their text.
 *
 *     families   name -> family --- row --- row        (order of registration)
 *                                    |       |
 *                               stat stat   stat ...   (one array a row)
 *                                 ^    ^     ^
 *     by_key     name{labels} ----+----+-----+
 *
 * Prometheus wants all numbers of a name together, whoever registered them
 * and when: so a name is a family, and an add gives it one row. Rows do not
 * move; the pointer that an add gives is good until the row is removed.
 *
 * Bucket bounds are inclusive at the top, (15, 16], so that "at most 2^n
 * microseconds", which is what the exposition format counts, is exact.
 * Start reading at pmi_stats_add_row(), for histograms at stats_bucket_of(). */
#include "stats.h"

#include <inttypes.h>

/* A power of two is cut into 2^4 buckets. */
#define STATS_CUT_BITS 4
#define STATS_CUTS (1u << STATS_CUT_BITS)
/* Bounds of the exposed histograms: 2^4 us (16 us) to 2^26 us (67 s). */
#define STATS_LE_FIRST 4
#define STATS_LE_LAST 26

typedef struct stats_family {
    pmi_link rows;
    pmi_stat_kind kind;
    char *name, *help; /* owned; help may be NULL */
} stats_family;

typedef struct stats_row {
    pmi_link link;
    stats_family *family;
    size_t count;
    pmi_stat stats[];
} stats_row;

/* ---- Histogram --------------------------------------------------------- */
static unsigned stats_log2(uint64_t x) /* x > 0 */
{
    unsigned n = 0;
    for (unsigned half = 32; half; half /= 2)
        if (x >> half) {
            x >>= half;
            n += half;
        }
    return n;
}

/* Values below 16 have a bucket each (0 shares that of 1); above, the highest
 * bit chooses the row of 16 and the four bits behind it the bucket. */
static size_t stats_bucket_of(uint64_t us)
{
    uint64_t x = us ? us - 1 : 0;
    unsigned top;
    if (x < STATS_CUTS)
        return (size_t)x;
    top = stats_log2(x);
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

static uint64_t stats_sum(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void pmi_histogram_add(pmi_histogram *h, uint64_t us)
{
    if (!h->count || us < h->min_us)
        h->min_us = us;
    if (us > h->max_us)
        h->max_us = us;
    h->count++;
    h->sum_us = stats_sum(h->sum_us, us);
    h->buckets[stats_bucket_of(us)]++;
}

void pmi_histogram_merge(pmi_histogram *to, const pmi_histogram *from)
{
    if (!from->count)
        return;
    if (!to->count || from->min_us < to->min_us)
        to->min_us = from->min_us;
    if (from->max_us > to->max_us)
        to->max_us = from->max_us;
    to->count += from->count;
    to->sum_us = stats_sum(to->sum_us, from->sum_us);
    for (size_t i = 0; i < PMI_HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

uint64_t pmi_histogram_percentile(const pmi_histogram *h, double percent)
{
    double exact = percent / 100.0 * (double)h->count;
    uint64_t rank, seen = 0, bound;
    size_t i = 0;
    if (!(percent > 0.0))
        return h->min_us;
    if (percent >= 100.0)
        return h->max_us;
    rank = (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    for (; i < PMI_HISTOGRAM_BUCKETS - 1; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            break;
    }
    bound = stats_bucket_bound(i);
    if (i == PMI_HISTOGRAM_BUCKETS - 1 || bound > h->max_us)
        return h->max_us;
    return bound < h->min_us ? h->min_us : bound;
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

/* ---- Keys -------------------------------------------------------------- */
static pm_slice stats_slice(const char *text)
{
    pm_slice s = {text, strlen(text)};
    return s;
}

static bool stats_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool stats_name_ok(const char *name)
{
    if (!name || !stats_letter(*name))
        return false;
    for (name++; *name; name++)
        if (!stats_letter(*name) && (*name < '0' || *name > '9'))
            return false;
    return true;
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

static void stats_add_label(pmi_buf *out, bool first, const char *name,
                            const char *value)
{
    pmi_buf_add_text(out, first ? "{" : ",");
    pmi_buf_add_text(out, name);
    pmi_buf_add_text(out, "=\"");
    stats_add_escaped(out, value, true);
    pmi_buf_add_byte(out, '"');
}

/* name{a="b",label="value"}, owned by the caller; label may be NULL. */
static char *stats_key(const pmi_env *env, const pmi_stat_spec *spec,
                       const char *label, const char *value)
{
    pmi_buf text;
    char *key = NULL;
    pmi_buf_init(&text, env, SIZE_MAX);
    pmi_buf_add_text(&text, spec->name);
    for (size_t i = 0; i < spec->labels_count; i++)
        stats_add_label(&text, i == 0, spec->labels[i].name,
                        spec->labels[i].value);
    if (label)
        stats_add_label(&text, spec->labels_count == 0, label, value);
    if (label || spec->labels_count)
        pmi_buf_add_byte(&text, '}');
    if (!text.failed)
        key = pmi_strndup(env, text.data, text.len);
    pmi_buf_fini(&text);
    return key;
}

/* ---- Families and rows ------------------------------------------------- */
static void stats_family_free(const pmi_env *env, stats_family *family)
{
    pmi_free(env, family->name);
    pmi_free(env, family->help);
    pmi_free(env, family);
}

static pm_err stats_family_new(pmi_stats *stats, const pmi_stat_spec *spec,
                               stats_family **out)
{
    const pmi_env *env = stats->env;
    stats_family *family = pmi_zalloc(env, sizeof *family);
    pm_err err;
    if (!family)
        return PM_ENOMEM;
    pmi_list_init(&family->rows);
    family->kind = spec->kind;
    family->name = pmi_strdup(env, spec->name);
    family->help = spec->help ? pmi_strdup(env, spec->help) : NULL;
    err = PM_ENOMEM;
    if (family->name && (family->help || !spec->help))
        err = pmi_map_put(&stats->families, stats_slice(family->name), family,
                          NULL);
    if (err) {
        stats_family_free(env, family);
        return err;
    }
    *out = family;
    return PM_OK;
}

static pm_err stats_family_get(pmi_stats *stats, const pmi_stat_spec *spec,
                               stats_family **out)
{
    stats_family *family =
        pmi_map_get(&stats->families, stats_slice(spec->name));
    if (!family)
        return stats_family_new(stats, spec, out);
    if (family->kind != spec->kind)
        return PM_EEXIST;
    *out = family;
    return PM_OK;
}

/* A family without numbers would hold its name's kind for nobody. */
static void stats_family_drop(pmi_stats *stats, stats_family *family)
{
    if (!pmi_list_empty(&family->rows))
        return;
    pmi_map_remove(&stats->families, stats_slice(family->name));
    stats_family_free(stats->env, family);
}

/* Also of a row that was only made in part. */
static void stats_row_free(pmi_stats *stats, stats_row *row)
{
    pmi_list_remove(&row->link);
    for (size_t i = 0; i < row->count; i++) {
        pmi_stat *stat = &row->stats[i];
        if (stat->key) {
            pm_slice key = stats_slice(stat->key);
            if (pmi_map_get(&stats->by_key, key) == stat)
                pmi_map_remove(&stats->by_key, key);
        }
        pmi_free(stats->env, stat->key);
        pmi_free(stats->env, stat->times);
    }
    pmi_free(stats->env, row);
}

/* One number under its key. On failure the row's end cleans up. */
static pm_err stats_fill(pmi_stats *stats, const pmi_stat_spec *spec,
                         const char *label, const char *value, pmi_stat *stat)
{
    stat->key = stats_key(stats->env, spec, label, value);
    if (!stat->key)
        return PM_ENOMEM;
    if (pmi_map_get(&stats->by_key, stats_slice(stat->key)))
        return PM_EEXIST;
    if (spec->kind == PMI_STAT_TIME) {
        stat->times = pmi_zalloc(stats->env, sizeof *stat->times);
        if (!stat->times)
            return PM_ENOMEM;
    }
    return pmi_map_put(&stats->by_key, stats_slice(stat->key), stat, NULL);
}

static pm_err stats_row_new(pmi_stats *stats, const pmi_stat_spec *spec,
                            const char *label, const char *const *values,
                            size_t count, stats_row **out)
{
    stats_row *row;
    if (count > (SIZE_MAX - sizeof *row) / sizeof row->stats[0])
        return PM_ENOMEM;
    row = pmi_zalloc(stats->env, sizeof *row + count * sizeof row->stats[0]);
    if (!row)
        return PM_ENOMEM;
    row->count = count;
    for (size_t i = 0; i < count; i++) {
        pm_err err = stats_fill(stats, spec, label, label ? values[i] : NULL,
                                &row->stats[i]);
        if (err) {
            stats_row_free(stats, row);
            return err;
        }
    }
    *out = row;
    return PM_OK;
}

/* ---- The registry ------------------------------------------------------ */
void pmi_stats_init(pmi_stats *stats, const pmi_env *env, uint64_t k0,
                    uint64_t k1, uint32_t max)
{
    memset(stats, 0, sizeof *stats);
    stats->env = env;
    stats->max = max;
    pmi_map_init(&stats->by_key, env, k0, k1);
    pmi_map_init(&stats->families, env, k0, k1);
}

void pmi_stats_fini(pmi_stats *stats)
{
    pmi_map_walk w = pmi_map_begin(&stats->families);
    while (pmi_map_next(&w)) {
        stats_family *family = w.value;
        pmi_link *link;
        while ((link = pmi_list_take(&family->rows)) != NULL)
            stats_row_free(stats, PMI_OUTER(link, stats_row, link));
        stats_family_drop(stats, family);
    }
    pmi_map_fini(&stats->by_key);
    pmi_map_fini(&stats->families);
}

static bool stats_spec_ok(const pmi_stat_spec *spec, const char *label)
{
    if (!stats_name_ok(spec->name) || (label && !stats_name_ok(label)))
        return false;
    for (size_t i = 0; i < spec->labels_count; i++)
        if (!stats_name_ok(spec->labels[i].name))
            return false;
    return true;
}

static pm_err stats_add(pmi_stats *stats, const pmi_stat_spec *spec,
                        const char *label, const char *const *values,
                        size_t count, pmi_stat **out)
{
    stats_family *family;
    stats_row *row;
    pm_err err;
    if (!stats_spec_ok(spec, label) || !count)
        return PM_EINVAL;
    if (count > stats->max - pmi_map_count(&stats->by_key))
        return PM_ELIMIT;
    err = stats_family_get(stats, spec, &family);
    if (err)
        return err;
    err = stats_row_new(stats, spec, label, values, count, &row);
    if (err) {
        stats_family_drop(stats, family);
        return err;
    }
    row->family = family;
    pmi_list_add(&family->rows, &row->link);
    *out = row->stats;
    return PM_OK;
}

pm_err pmi_stats_add(pmi_stats *stats, const pmi_stat_spec *spec,
                     pmi_stat **out)
{
    return stats_add(stats, spec, NULL, NULL, 1, out);
}

pm_err pmi_stats_add_row(pmi_stats *stats, const pmi_stat_spec *spec,
                         const char *label, const char *const *values,
                         size_t count, pmi_stat **out)
{
    return label ? stats_add(stats, spec, label, values, count, out)
                 : PM_EINVAL;
}

void pmi_stats_remove(pmi_stats *stats, pmi_stat *stat)
{
    stats_row *row;
    stats_family *family;
    if (!stat)
        return;
    row = PMI_OUTER(stat, stats_row, stats);
    family = row->family;
    stats_row_free(stats, row);
    stats_family_drop(stats, family);
}

pmi_stat *pmi_stats_find(const pmi_stats *stats, const char *key)
{
    return pmi_map_get(&stats->by_key, stats_slice(key));
}

/* ---- Prometheus -------------------------------------------------------- */
static void stats_add_seconds(pmi_buf *out, uint64_t us)
{
    pmi_buf_add_format(out, "%" PRIu64 ".%06" PRIu64, us / 1000000,
                       us % 1000000);
}

/* name_suffix{labels, le} and a space; le may be NULL. */
static void stats_add_series(pmi_buf *out, const stats_family *family,
                             const pmi_stat *stat, const char *suffix,
                             const char *le)
{
    const char *labels = stat->key + strlen(family->name);
    size_t len = strlen(labels);
    pmi_buf_add_text(out, family->name);
    pmi_buf_add_text(out, suffix);
    if (!le) {
        pmi_buf_add(out, labels, len);
    } else {
        if (len)
            pmi_buf_add(out, labels, len - 1);
        pmi_buf_add_format(out, "%sle=\"%s\"}", len ? "," : "{", le);
    }
    pmi_buf_add_byte(out, ' ');
}

static void stats_add_times(pmi_buf *out, const stats_family *family,
                            const pmi_stat *stat)
{
    const pmi_histogram *h = stat->times;
    char le[32];
    for (unsigned bits = STATS_LE_FIRST; bits <= STATS_LE_LAST; bits++) {
        uint64_t us = (uint64_t)1 << bits;
        pmi_format(le, sizeof le, "%" PRIu64 ".%06" PRIu64, us / 1000000,
                   us % 1000000);
        stats_add_series(out, family, stat, "_bucket", le);
        pmi_buf_add_format(out, "%" PRIu64 "\n",
                           pmi_histogram_at_most(h, bits));
    }
    stats_add_series(out, family, stat, "_bucket", "+Inf");
    pmi_buf_add_format(out, "%" PRIu64 "\n", h->count);
    stats_add_series(out, family, stat, "_sum", NULL);
    stats_add_seconds(out, h->sum_us);
    pmi_buf_add_byte(out, '\n');
    stats_add_series(out, family, stat, "_count", NULL);
    pmi_buf_add_format(out, "%" PRIu64 "\n", h->count);
}

static void stats_add_head(pmi_buf *out, const stats_family *family)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    if (family->help) {
        pmi_buf_add_format(out, "# HELP %s ", family->name);
        stats_add_escaped(out, family->help, false);
        pmi_buf_add_byte(out, '\n');
    }
    pmi_buf_add_format(out, "# TYPE %s %s\n", family->name,
                       types[family->kind]);
}

static void stats_prometheus_stat(pmi_buf *out, const stats_family *family,
                                  const pmi_stat *stat)
{
    if (family->kind == PMI_STAT_TIME)
        stats_add_times(out, family, stat);
    else
        pmi_buf_add_format(out, "%s %" PRIu64 "\n", stat->key, stat->value);
}

/* ---- For people -------------------------------------------------------- */
static void stats_add_ms(pmi_buf *out, const char *name, uint64_t us)
{
    pmi_buf_add_format(out, " %s=%" PRIu64 ".%03" PRIu64, name, us / 1000,
                       us % 1000);
}

static void stats_text_stat(pmi_buf *out, const stats_family *family,
                            const pmi_stat *stat)
{
    const pmi_histogram *h = stat->times;
    if (family->kind != PMI_STAT_TIME) {
        if (stat->value)
            pmi_buf_add_format(out, "%s %" PRIu64 "\n", stat->key, stat->value);
        return;
    }
    if (!h->count)
        return;
    pmi_buf_add_format(out, "%s count=%" PRIu64 " ms:", stat->key, h->count);
    stats_add_ms(out, "mean", h->sum_us / h->count);
    stats_add_ms(out, "p50", pmi_histogram_percentile(h, 50));
    stats_add_ms(out, "p90", pmi_histogram_percentile(h, 90));
    stats_add_ms(out, "p99", pmi_histogram_percentile(h, 99));
    stats_add_ms(out, "p99.9", pmi_histogram_percentile(h, 99.9));
    stats_add_ms(out, "max", h->max_us);
    pmi_buf_add_byte(out, '\n');
}

/* ---- All of it --------------------------------------------------------- */
typedef void (*stats_print)(pmi_buf *out, const stats_family *family,
                            const pmi_stat *stat);

static void stats_print_family(pmi_buf *out, const stats_family *family,
                               stats_print print)
{
    const pmi_link *link = family->rows.next;
    for (; link != &family->rows; link = link->next) {
        const stats_row *row = PMI_OUTER(link, stats_row, link);
        for (size_t i = 0; i < row->count; i++)
            print(out, family, &row->stats[i]);
    }
}

void pmi_stats_prometheus(pmi_stats *stats, pmi_buf *out)
{
    pmi_map_walk w = pmi_map_begin(&stats->families);
    while (pmi_map_next(&w)) {
        stats_add_head(out, w.value);
        stats_print_family(out, w.value, stats_prometheus_stat);
    }
}

void pmi_stats_text(pmi_stats *stats, pmi_buf *out)
{
    pmi_map_walk w = pmi_map_begin(&stats->families);
    while (pmi_map_next(&w))
        stats_print_family(out, w.value, stats_text_stat);
}
