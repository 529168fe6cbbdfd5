/* SPDX-License-Identifier: MIT */
/* test_rate.c -- token buckets: how many pass in how long, and what is owed. */
#include "test.h"

#include "core/rate.h"

#define SECOND UINT64_C(1000000)

/* The whole burst at once, then not one before its time. */
static void test_burst(void **state)
{
    pmi_rate_limit limit = {10, 10};
    pmi_rate rate = {0};
    uint64_t now = 1234567;
    (void)state;
    for (int i = 0; i < 10; i++)
        assert_true(pmi_rate_take(&rate, &limit, now, 1));
    assert_false(pmi_rate_take(&rate, &limit, now, 1));
    assert_int_equal(pmi_rate_wait_us(&rate, &limit, now, 1), 100000);
    assert_false(pmi_rate_take(&rate, &limit, now + 99999, 1));
    assert_true(pmi_rate_take(&rate, &limit, now + 100000, 1));
    assert_false(pmi_rate_take(&rate, &limit, now + 100000, 1));
    /* A third is no whole number of nanoseconds. */
    limit = (pmi_rate_limit){3, 3};
    rate = (pmi_rate){0};
    for (int i = 0; i < 3; i++)
        assert_true(pmi_rate_take(&rate, &limit, now, 1));
    assert_false(pmi_rate_take(&rate, &limit, now, 1));
    limit = (pmi_rate_limit){10, 10};
    /* After a second and more it is full, and no fuller than full. */
    now += 100 * SECOND;
    assert_true(pmi_rate_is_full(&rate, now));
    for (int i = 0; i < 10; i++)
        assert_true(pmi_rate_take(&rate, &limit, now, 1));
    assert_false(pmi_rate_take(&rate, &limit, now, 1));
    assert_false(pmi_rate_is_full(&rate, now + SECOND - 1));
    assert_true(pmi_rate_is_full(&rate, now + SECOND));
}

/* Who asks all the time gets burst + rate x time, whatever the two are; the
 * fixed second of a counter would give twice the burst at its edges. */
static void test_never_more(void **state)
{
    static const pmi_rate_limit limits[] = {
        {1, 1},   {3, 1},      {7, 20},   {1000, 50}, {999, 1},
        {50, 50}, {33333, 10}, {1, 1000}, {20000, 99}};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const pmi_rate_limit *l = &limits[i];
        pmi_rate rate = {0};
        uint64_t passed = 0;
        for (uint64_t now = SECOND; now < 11 * SECOND; now += 23)
            passed += pmi_rate_take(&rate, l, now, 1);
        assert_in_range(passed, l->burst + 10 * (uint64_t)l->per_s * 97 / 100,
                        l->burst + 10 * (uint64_t)l->per_s + l->per_s / 5000);
    }
}

static void test_off(void **state)
{
    pmi_rate_limit limit = {0, 0};
    pmi_rate rate = {0};
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(pmi_rate_take(&rate, &limit, 5, UINT32_MAX));
    assert_int_equal(rate.full_ns, 0);
}

/* What is taken without being there is owed, and waited for. */
static void test_debt(void **state)
{
    pmi_rate_limit limit = {1000, 1000};
    pmi_rate rate = {0};
    (void)state;
    pmi_rate_spend(&rate, &limit, SECOND, 3000);
    /* One token is there when 2,000 that are owed and itself have come. */
    assert_int_equal(pmi_rate_wait_us(&rate, &limit, SECOND, 1), 2001000);
    assert_int_equal(pmi_rate_wait_us(&rate, &limit, SECOND, 0), 2000000);
    assert_int_equal(pmi_rate_wait_us(&rate, &limit, 3 * SECOND, 0), 0);
    /* What is spent again and again is owed once. */
    for (int i = 0; i < 1000; i++)
        pmi_rate_spend(&rate, &limit, 9 * SECOND, 3000);
    assert_int_equal(pmi_rate_wait_us(&rate, &limit, 9 * SECOND, 0),
                     3 * SECOND);
}

/* More than the bucket holds passes when it is full: nothing waits for ever. */
static void test_larger_than_the_bucket(void **state)
{
    pmi_rate_limit limit = {1000, 100};
    pmi_rate rate = {0};
    (void)state;
    assert_true(pmi_rate_take(&rate, &limit, SECOND, 5000));
    assert_false(pmi_rate_take(&rate, &limit, SECOND, 5000));
    assert_int_equal(pmi_rate_wait_us(&rate, &limit, SECOND, 5000), 5 * SECOND);
    assert_true(pmi_rate_take(&rate, &limit, 6 * SECOND, 5000));
}

/* The largest numbers there are do not run over. */
static void test_extremes(void **state)
{
    pmi_rate_limit fast = {UINT32_MAX, UINT32_MAX}, slow = {1, UINT32_MAX};
    pmi_rate rate = {0};
    uint64_t year = UINT64_C(366) * 86400 * SECOND;
    (void)state;
    assert_true(pmi_rate_take(&rate, &fast, year, UINT32_MAX));
    assert_false(pmi_rate_take(&rate, &fast, year, 8));
    assert_true(pmi_rate_take(&rate, &fast, year + SECOND, UINT32_MAX));
    rate = (pmi_rate){0};
    assert_true(pmi_rate_take(&rate, &slow, year, UINT32_MAX));
    assert_int_equal(pmi_rate_wait_us(&rate, &slow, year, 1), SECOND);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_burst),
    cmocka_unit_test(test_never_more),
    cmocka_unit_test(test_off),
    cmocka_unit_test(test_debt),
    cmocka_unit_test(test_larger_than_the_bucket),
    cmocka_unit_test(test_extremes),
};

TEST_MAIN(tests)
