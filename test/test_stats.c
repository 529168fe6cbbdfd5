/* SPDX-License-Identifier: MIT */
/* test/test_stats.c -- histograms against exact numbers, the registry, the
 * exposition text to the byte. */
#include "test.h"

#include "core/stats.h"

/* ---- Histogram --------------------------------------------------------- */
static void test_empty(void **state)
{
    pmi_histogram *h = calloc(1, sizeof *h);
    (void)state;
    assert_non_null(h);
    assert_int_equal(pmi_histogram_percentile(h, 50), 0);
    assert_int_equal(pmi_histogram_percentile(h, 0), 0);
    assert_int_equal(pmi_histogram_percentile(h, 100), 0);
    assert_int_equal(pmi_histogram_at_most(h, 20), 0);
    free(h);
}

/* One value alone is told exactly, whatever its size. */
static void test_one_value(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        for (int off = -1; off <= 1; off++) {
            uint64_t us = (UINT64_C(1) << bit) + (uint64_t)off;
            pmi_histogram *h = calloc(1, sizeof *h);
            assert_non_null(h);
            pmi_histogram_add(h, us);
            assert_true(pmi_histogram_percentile(h, 50) == us);
            assert_true(h->min_us == us && h->max_us == us);
            for (unsigned le = 0; le < PMI_HISTOGRAM_BITS_MAX; le++)
                assert_int_equal(pmi_histogram_at_most(h, le), us <= UINT64_C(1)
                                                                         << le);
            assert_int_equal(pmi_histogram_at_most(h, 64), 1);
            free(h);
        }
    }
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Percentiles against the sorted values: never too low, at most 1/16 high. */
static void test_percentiles(void **state)
{
    enum { N = 10000 };
    static const struct {
        double percent;
        size_t rank; /* of N, from 1 */
    } want[] = {{0.01, 1},  {1, 100},     {50, 5000},    {90, 9000},
                {99, 9900}, {99.9, 9990}, {99.99, 9999}, {100, N}};
    test_world world = {.seed = 3};
    uint64_t *values = malloc(N * sizeof *values);
    pmi_histogram *h = calloc(1, sizeof *h);
    (void)state;
    assert_non_null(values);
    assert_non_null(h);
    for (size_t i = 0; i < N; i++) {
        values[i] =
            test_world_u64(&world) >> (30 + test_world_below(&world, 30));
        pmi_histogram_add(h, values[i]);
    }
    qsort(values, N, sizeof *values, by_size);
    for (size_t i = 0; i < PMI_COUNT(want); i++) {
        uint64_t exact = values[want[i].rank - 1];
        uint64_t told = pmi_histogram_percentile(h, want[i].percent);
        assert_true(told >= exact && told <= exact + exact / 16 + 1);
    }
    assert_true(pmi_histogram_percentile(h, -1) == values[0]);
    assert_true(pmi_histogram_percentile(h, 1000) == values[N - 1]);
    for (unsigned le = 0; le < PMI_HISTOGRAM_BITS_MAX; le++) {
        size_t n = 0;
        while (n < N && values[n] <= UINT64_C(1) << le)
            n++;
        assert_int_equal(pmi_histogram_at_most(h, le), n);
    }
    free(h);
    free(values);
}

static void test_merge(void **state)
{
    pmi_histogram *h = calloc(3, sizeof *h);
    (void)state;
    assert_non_null(h);
    for (uint64_t us = 1; us <= 100; us++)
        pmi_histogram_add(&h[us % 2], us);
    pmi_histogram_merge(&h[2], &h[0]);
    pmi_histogram_merge(&h[2], &h[1]);
    assert_int_equal(h[2].count, 100);
    assert_int_equal(h[2].sum_us, 5050);
    assert_int_equal(h[2].min_us, 1);
    assert_int_equal(h[2].max_us, 100);
    assert_int_equal(pmi_histogram_percentile(&h[2], 10), 10);
    memset(&h[0], 0, sizeof h[0]);
    pmi_histogram_merge(&h[2], &h[0]); /* an empty one has no minimum */
    assert_int_equal(h[2].min_us, 1);
    pmi_histogram_add(&h[2], UINT64_MAX); /* the sum stays at the top */
    assert_true(h[2].sum_us == UINT64_MAX);
    free(h);
}

/* ---- Registry ---------------------------------------------------------- */
static pmi_stat_spec spec_of(pmi_stat_kind kind, const char *name)
{
    pmi_stat_spec spec = {kind, name, NULL, NULL, 0};
    return spec;
}

static void test_names(void **state)
{
    static const char *const bad[] = {"", "1a", "a-b", "a b", "a{", "\xc3\xa4"};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stats stats;
    pmi_stat *stat = NULL;
    (void)state;
    pmi_stats_init(&stats, &env, 1, 2, 10);
    for (size_t i = 0; i < PMI_COUNT(bad); i++) {
        pmi_stat_label label = {bad[i], "v"};
        pmi_stat_spec spec = spec_of(PMI_STAT_COUNTER, bad[i]);
        assert_err(pmi_stats_add(&stats, &spec, &stat), PM_EINVAL);
        spec.name = "good";
        assert_err(pmi_stats_add_row(&stats, &spec, bad[i], bad, 1, &stat),
                   PM_EINVAL);
        spec.labels = &label;
        spec.labels_count = 1;
        assert_err(pmi_stats_add(&stats, &spec, &stat), PM_EINVAL);
    }
    assert_null(stat);
    assert_heap_empty(&heap);
    pmi_stats_fini(&stats);
}

static void test_twice(void **state)
{
    static const char *const values[] = {"x", "y", "x"};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stat_spec spec = spec_of(PMI_STAT_COUNTER, "a_total");
    pmi_stats stats;
    pmi_stat *a, *row, *none = NULL;
    (void)state;
    pmi_stats_init(&stats, &env, 1, 2, 10);
    assert_ok(pmi_stats_add(&stats, &spec, &a));
    assert_err(pmi_stats_add(&stats, &spec, &none), PM_EEXIST);
    assert_err(pmi_stats_add_row(&stats, &spec, "k", values, 3, &none),
               PM_EEXIST);
    spec.kind = PMI_STAT_GAUGE;
    assert_err(pmi_stats_add_row(&stats, &spec, "k", values, 2, &none),
               PM_EEXIST);
    assert_null(none);
    assert_ptr_equal(pmi_stats_find(&stats, "a_total"), a);
    /* The failed row of three has left nothing that would be in the way. */
    spec.kind = PMI_STAT_COUNTER;
    assert_ok(pmi_stats_add_row(&stats, &spec, "k", values, 2, &row));
    assert_ptr_equal(pmi_stats_find(&stats, "a_total{k=\"y\"}"), &row[1]);
    assert_null(pmi_stats_find(&stats, "a_total{k=\"z\"}"));
    /* When its last number has gone, the name may be of another kind. */
    pmi_stats_remove(&stats, row);
    pmi_stats_remove(&stats, a);
    pmi_stats_remove(&stats, NULL);
    assert_null(pmi_stats_find(&stats, "a_total"));
    spec.kind = PMI_STAT_TIME;
    assert_ok(pmi_stats_add(&stats, &spec, &a));
    assert_non_null(a->times);
    pmi_stats_fini(&stats);
    assert_heap_empty(&heap);
}

static void test_limit(void **state)
{
    static const char *const values[] = {"1", "2", "3"};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stat_spec spec = spec_of(PMI_STAT_COUNTER, "a_total");
    pmi_stats stats;
    pmi_stat *row;
    (void)state;
    pmi_stats_init(&stats, &env, 1, 2, 4);
    assert_ok(pmi_stats_add(&stats, &spec, &row));
    assert_ok(pmi_stats_add_row(&stats, &spec, "k", values, 3, &row));
    spec.name = "b_total";
    assert_err(pmi_stats_add_row(&stats, &spec, "k", values, 1, &row),
               PM_ELIMIT);
    pmi_stats_remove(&stats, row);
    assert_ok(pmi_stats_add_row(&stats, &spec, "k", values, 3, &row));
    pmi_stats_fini(&stats);
    assert_heap_empty(&heap);
}

static void test_counting(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stat_spec spec = spec_of(PMI_STAT_GAUGE, "g");
    pmi_stats stats;
    pmi_stat *g;
    (void)state;
    pmi_stat_count(NULL, 1);
    pmi_stat_set(NULL, 1);
    pmi_stat_drop(NULL, 1);
    pmi_stat_time(NULL, 1);
    pmi_stats_init(&stats, &env, 1, 2, 4);
    assert_ok(pmi_stats_add(&stats, &spec, &g));
    pmi_stat_count(g, 5);
    pmi_stat_drop(g, 2);
    assert_int_equal(g->value, 3);
    pmi_stat_drop(g, 4);
    assert_int_equal(g->value, 0);
    pmi_stat_set(g, 9);
    assert_int_equal(g->value, 9);
    pmi_stat_time(g, 1); /* no histogram: nothing */
    pmi_stats_fini(&stats);
    assert_heap_empty(&heap);
}

/* ---- Text -------------------------------------------------------------- */
/* Two servers' numbers: registered turn by turn, in the text together. */
static pm_err fill(pmi_stats *stats)
{
    static const char *const reasons[] = {"none", "kicked"};
    static const char *const servers[] = {"c-1", "odd \"\\\n"};
    for (size_t i = 0; i < 2; i++) {
        pmi_stat_label label = {"server", servers[i]};
        pmi_stat_spec closed = {PMI_STAT_COUNTER, "closed_total",
                                "Why \\ \"they\"\nleft.", &label, 1};
        pmi_stat_spec open = {PMI_STAT_GAUGE, "open", NULL, &label, 1};
        pmi_stat *stat;
        pm_err err =
            pmi_stats_add_row(stats, &closed, "reason", reasons, 2, &stat);
        if (err)
            return err;
        pmi_stat_count(&stat[1], 7 + i);
        err = pmi_stats_add(stats, &open, &stat);
        if (err)
            return err;
        pmi_stat_set(stat, UINT64_MAX);
    }
    return PM_OK;
}

static void test_prometheus(void **state)
{
    static const char want[] =
        "# HELP closed_total Why \\\\ \"they\"\\nleft.\n"
        "# TYPE closed_total counter\n"
        "closed_total{server=\"c-1\",reason=\"none\"} 0\n"
        "closed_total{server=\"c-1\",reason=\"kicked\"} 7\n"
        "closed_total{server=\"odd \\\"\\\\\\n\",reason=\"none\"} 0\n"
        "closed_total{server=\"odd \\\"\\\\\\n\",reason=\"kicked\"} 8\n"
        "# TYPE open gauge\n"
        "open{server=\"c-1\"} 18446744073709551615\n"
        "open{server=\"odd \\\"\\\\\\n\"} 18446744073709551615\n";
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stats stats;
    pmi_buf out;
    (void)state;
    pmi_stats_init(&stats, &env, 1, 2, 100);
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_stats_prometheus(&stats, &out);
    assert_int_equal(out.len, 0);
    assert_ok(fill(&stats));
    pmi_stats_prometheus(&stats, &out);
    pmi_buf_add_byte(&out, 0);
    assert_string_equal((char *)out.data, want);
    pmi_buf_reset(&out);
    pmi_stats_text(&stats, &out);
    pmi_buf_add_byte(&out, 0);
    assert_string_equal((char *)out.data,
                        "closed_total{server=\"c-1\",reason=\"kicked\"} 7\n"
                        "closed_total{server=\"odd \\\"\\\\\\n\","
                        "reason=\"kicked\"} 8\n"
                        "open{server=\"c-1\"} 18446744073709551615\n"
                        "open{server=\"odd \\\"\\\\\\n\"} "
                        "18446744073709551615\n");
    pmi_buf_fini(&out);
    pmi_stats_fini(&stats);
    assert_heap_empty(&heap);
}

static void expect_line(const pmi_buf *out, const char *line)
{
    if (!strstr((const char *)out->data, line))
        fail_msg("'%s' is not in:\n%s", line, (const char *)out->data);
}

static void test_prometheus_times(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stat_label label = {"route", "a.b.c"};
    pmi_stat_spec spec = {PMI_STAT_TIME, "request_seconds", "Time.", &label, 1};
    pmi_stats stats;
    pmi_stat *with, *without;
    pmi_buf out;
    (void)state;
    pmi_stats_init(&stats, &env, 1, 2, 100);
    pmi_buf_init(&out, &env, SIZE_MAX);
    assert_ok(pmi_stats_add(&stats, &spec, &with));
    spec.labels_count = 0;
    assert_ok(pmi_stats_add(&stats, &spec, &without));
    pmi_stat_time(with, 16);
    pmi_stat_time(with, 17);
    pmi_stat_time(with, 1048576);
    pmi_stat_time(with, 100000000);
    pmi_stats_text(&stats, &out);
    pmi_buf_add_byte(&out, 0);
    assert_string_equal((char *)out.data,
                        "request_seconds{route=\"a.b.c\"} count=4 ms: "
                        "mean=25262.152 p50=0.017 p90=100000.000 "
                        "p99=100000.000 p99.9=100000.000 max=100000.000\n");
    pmi_buf_reset(&out);
    pmi_stats_prometheus(&stats, &out);
    pmi_buf_add_byte(&out, 0);
    expect_line(&out, "# TYPE request_seconds histogram\n");
    expect_line(&out,
                "\nrequest_seconds_bucket{route=\"a.b.c\",le=\"0.000016\"} 1\n"
                "request_seconds_bucket{route=\"a.b.c\",le=\"0.000032\"} 2\n");
    expect_line(&out,
                "\nrequest_seconds_bucket{route=\"a.b.c\",le=\"0.524288\"} 2\n"
                "request_seconds_bucket{route=\"a.b.c\",le=\"1.048576\"} 3\n");
    expect_line(&out,
                "\nrequest_seconds_bucket{route=\"a.b.c\",le=\"67.108864\"} 3\n"
                "request_seconds_bucket{route=\"a.b.c\",le=\"+Inf\"} 4\n"
                "request_seconds_sum{route=\"a.b.c\"} 101.048609\n"
                "request_seconds_count{route=\"a.b.c\"} 4\n"
                "request_seconds_bucket{le=\"0.000016\"} 0\n");
    expect_line(&out, "\nrequest_seconds_bucket{le=\"+Inf\"} 0\n"
                      "request_seconds_sum 0.000000\n"
                      "request_seconds_count 0\n");
    pmi_buf_fini(&out);
    pmi_stats_fini(&stats);
    assert_heap_empty(&heap);
}

static void test_stats_failures(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_stat_spec spec = spec_of(PMI_STAT_TIME, "t_seconds");
        pmi_stats stats;
        pmi_stat *stat = NULL;
        pmi_buf out;
        pm_err err;
        uint32_t before;
        spec.help = "Time.";
        pmi_stats_init(&stats, &env, 1, 2, 100);
        pmi_buf_init(&out, &env, SIZE_MAX);
        err = fill(&stats);
        assert_true(err == PM_OK || err == PM_ENOMEM);
        before = pmi_map_count(&stats.families);
        err = pmi_stats_add(&stats, &spec, &stat);
        assert_true(err == PM_OK || err == PM_ENOMEM);
        assert_int_equal(pmi_stats_find(&stats, "t_seconds") != NULL, !err);
        assert_int_equal(pmi_map_count(&stats.families), before + !err);
        pmi_stat_time(stat, 1);
        pmi_stats_prometheus(&stats, &out);
        pmi_stats_text(&stats, &out);
        if (!heap.failed)
            assert_false(out.failed);
        pmi_buf_fini(&out);
        pmi_stats_fini(&stats);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_empty),
    cmocka_unit_test(test_one_value),
    cmocka_unit_test(test_percentiles),
    cmocka_unit_test(test_merge),
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_twice),
    cmocka_unit_test(test_limit),
    cmocka_unit_test(test_counting),
    cmocka_unit_test(test_prometheus),
    cmocka_unit_test(test_prometheus_times),
    cmocka_unit_test(test_stats_failures),
};
TEST_MAIN(tests)
