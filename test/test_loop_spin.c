/* SPDX-License-Identifier: MIT */
/* test/test_loop_spin.c -- pm_loop_opts.spin_us: the loop looks again for a
 * while, and then it sleeps. */
#include "test.h"

#include <pthread.h>
#include <sched.h>

enum { SPIN_US = 1000 };

/* Time passes only when somebody asks for it. */
static uint64_t spin_clock(void *ctx)
{
    return atomic_fetch_add((atomic_ullong *)ctx, 1);
}

typedef struct spin {
    pm_loop *loop;
    atomic_ullong now_us;
} spin;

/* Nothing wakes the loop before it has looked for as long as it should and its
 * clock stands still: it sleeps. */
static void *spin_main(void *arg)
{
    spin *s = arg;
    unsigned long long seen = 0;
    while (atomic_load(&s->now_us) < SPIN_US || seen != s->now_us) {
        seen = s->now_us;
        for (int i = 0; i < 1000; i++)
            sched_yield();
    }
    pm_loop_break(s->loop);
    return NULL;
}

static void spin_break(void *arg)
{
    pm_loop_break(arg);
}

static void test_spin(void **state)
{
    pm_loop_opts opts = pm_loop_opts_default();
    pthread_t thread;
    spin s = {.now_us = 1};
    (void)state;
    opts.clock_us = spin_clock;
    opts.seam_ctx = &s.now_us;
    opts.spin_us = 1000001;
    assert_err(pm_loop_new(&s.loop, &opts), PM_EINVAL);
    opts.spin_us = SPIN_US;
    assert_ok(pm_loop_new(&s.loop, &opts));
    pthread_create(&thread, NULL, spin_main, &s);
    assert_ok(pm_loop_run(s.loop));
    pthread_join(thread, NULL);
    assert_in_range(s.now_us, SPIN_US, 2 * SPIN_US);
    assert_ok(pm_loop_post(s.loop, spin_break, s.loop));
    assert_ok(pm_loop_run(s.loop));
    assert_ok(pm_loop_free(s.loop));
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_spin)};
TEST_MAIN(tests)
