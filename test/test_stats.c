/* SPDX-License-Identifier: MIT */
/* test/test_stats.c -- histograms against exact numbers, the exposition text
 * to the byte. */
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
            pmi_histogram_add(h, us, 1);
            assert_true(pmi_histogram_percentile(h, 50) == us);
            assert_true(h->max_us == us);
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
        pmi_histogram_add(h, values[i], 1);
    }
    qsort(values, N, sizeof *values, by_size);
    for (size_t i = 0; i < PMI_COUNT(want); i++) {
        uint64_t exact = values[want[i].rank - 1];
        uint64_t told = pmi_histogram_percentile(h, want[i].percent);
        assert_true(told >= exact && told <= exact + exact / 16 + 1);
    }
    assert_true(pmi_histogram_percentile(h, -1) ==
                pmi_histogram_percentile(h, 0.01));
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

static void test_many_at_once(void **state)
{
    pmi_histogram *h = calloc(1, sizeof *h);
    (void)state;
    assert_non_null(h);
    pmi_histogram_add(h, 10, 3);
    pmi_histogram_add(h, 100, 0);
    pmi_histogram_add(h, 20, 1);
    assert_int_equal(h->count, 4);
    assert_int_equal(h->sum_us, 50);
    assert_int_equal(pmi_histogram_percentile(h, 75), 10);
    assert_int_equal(pmi_histogram_percentile(h, 76), 20);
    pmi_histogram_add(h, UINT64_MAX, 2); /* the sum stays at the top */
    assert_true(h->sum_us == UINT64_MAX);
    pmi_histogram_add(h, 1, 1);
    assert_true(h->sum_us == UINT64_MAX);
    free(h);
}

/* ---- Names ------------------------------------------------------------- */
static void test_names(void **state)
{
    static const char *const bad[] = {"", "1a", "a-b", "a b", "a{", "\xc3\xa4"};
    char name[PMI_STAT_NAME_MAX + 2];
    (void)state;
    assert_false(pmi_stat_name_ok(NULL));
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        assert_false(pmi_stat_name_ok(bad[i]));
    memset(name, 'a', sizeof name);
    name[PMI_STAT_NAME_MAX] = 0;
    assert_true(pmi_stat_name_ok(name));
    name[PMI_STAT_NAME_MAX] = '9';
    name[PMI_STAT_NAME_MAX + 1] = 0;
    assert_false(pmi_stat_name_ok(name));
}

/* ---- Text -------------------------------------------------------------- */
static void tell(pmi_buf *out, pmi_stat stat, bool first)
{
    pmi_stat_prometheus(out, &stat, first);
}

static void assert_text(pmi_buf *out, const char *want)
{
    pmi_buf_add_byte(out, 0);
    assert_false(out->failed);
    assert_string_equal((char *)out->data, want);
    pmi_buf_reset(out);
}

static void test_prometheus(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_stat closed = {
        "closed_total", "Why \\ \"they\"\nleft.", PM_STAT_COUNTER, "", 7, NULL};
    pmi_stat open = {"open", NULL, PM_STAT_GAUGE, "", UINT64_MAX, NULL};
    pmi_buf out, labels;
    (void)state;
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_buf_init(&labels, &env, SIZE_MAX);
    pmi_stat_add_label(&labels, "server", "odd \"\\\n");
    pmi_stat_add_label(&labels, "reason", "kicked");
    pmi_buf_add_byte(&labels, 0);
    tell(&out, closed, true);
    closed.labels = (char *)labels.data;
    closed.value = 0;
    tell(&out, closed, false);
    tell(&out, open, true);
    assert_text(&out, "# HELP closed_total Why \\\\ \"they\"\\nleft.\n"
                      "# TYPE closed_total counter\n"
                      "closed_total 7\n"
                      "closed_total{server=\"odd \\\"\\\\\\n\","
                      "reason=\"kicked\"} 0\n"
                      "# TYPE open gauge\n"
                      "open 18446744073709551615\n");
    pmi_stat_text(&out, &closed); /* 0: left out */
    pmi_stat_text(&out, &open);
    assert_text(&out, "open 18446744073709551615\n");
    pmi_buf_fini(&labels);
    pmi_buf_fini(&out);
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
    pmi_histogram *h = calloc(1, sizeof *h);
    pmi_stat stat = {"request_seconds", "Time.", PM_STAT_TIME,
                     "route=\"a.b.c\"", 0,       h};
    pmi_buf out;
    (void)state;
    assert_non_null(h);
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_stat_text(&out, &stat);
    assert_int_equal(out.len, 0);
    pmi_histogram_add(h, 16, 1);
    pmi_histogram_add(h, 17, 1);
    pmi_histogram_add(h, 1048576, 1);
    pmi_histogram_add(h, 100000000, 1);
    pmi_stat_text(&out, &stat);
    assert_text(&out, "request_seconds{route=\"a.b.c\"} count=4 ms: "
                      "mean=25262.152 p50=0.017 p90=100000.000 "
                      "p99=100000.000 p99.9=100000.000 max=100000.000\n");
    tell(&out, stat, true);
    stat.labels = "";
    stat.times = NULL;
    pmi_stat_text(&out, &stat);
    tell(&out, stat, false);
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
    assert_heap_empty(&heap);
    free(h);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_empty),
    cmocka_unit_test(test_one_value),
    cmocka_unit_test(test_percentiles),
    cmocka_unit_test(test_many_at_once),
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_prometheus),
    cmocka_unit_test(test_prometheus_times),
};
TEST_MAIN(tests)
