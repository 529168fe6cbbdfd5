/* SPDX-License-Identifier: MIT */
/* test_nomalloc.c -- the steady state allocates nothing: 10,000 requests with
 * numbered routes and bodies of bytes, answered here and on a backend, pushes
 * to a channel, calls between servers, and not one call of the allocator. */
#include "bench/counted.h"
#include "test.h"

enum { NOMALLOC_REQUESTS = 10000 };

static counted world_new(void)
{
    return (counted){.random = 1, .now_us = 1000000};
}

/* What is kept for the next ones must be there: some of each come first. */
static void warm(counted *all)
{
    for (int i = 0; i < 8; i++) {
        counted_ask(all, COUNTED_RAW, 64);
        counted_ask(all, COUNTED_CHAT_RAW, 64);
        counted_request(&all->players[0], PMI_MESSAGE_NOTIFY, COUNTED_SEND);
        counted_wait(all, all->packages + COUNTED_MEMBERS);
        counted_calls(all, pm_body_bytes("0123456789abcdef", 16));
    }
}

static void test_answered_here(void **state)
{
    counted all = world_new();
    (void)state;
    counted_start(&all);
    warm(&all);
    uint64_t before = all.allocations;
    for (int i = 0; i < NOMALLOC_REQUESTS; i += 16)
        counted_ask(&all, COUNTED_RAW, 16);
    assert_int_equal(all.allocations - before, 0);
    counted_end(&all);
}

static void test_forwarded(void **state)
{
    counted all = world_new();
    (void)state;
    counted_start(&all);
    warm(&all);
    uint64_t before = all.allocations;
    for (int i = 0; i < NOMALLOC_REQUESTS; i += 16)
        counted_ask(&all, COUNTED_CHAT_RAW, 16);
    assert_int_equal(all.allocations - before, 0);
    counted_end(&all);
}

static void test_pushed(void **state)
{
    counted all = world_new();
    (void)state;
    counted_start(&all);
    warm(&all);
    uint64_t before = all.allocations;
    for (int i = 0; i < NOMALLOC_REQUESTS / COUNTED_MEMBERS; i++) {
        counted_request(&all.players[0], PMI_MESSAGE_NOTIFY, COUNTED_SEND);
        counted_wait(&all, all.packages + COUNTED_MEMBERS);
    }
    assert_int_equal(all.allocations - before, 0);
    counted_end(&all);
}

static void test_called(void **state)
{
    counted all = world_new();
    (void)state;
    counted_start(&all);
    warm(&all);
    uint64_t before = all.allocations;
    for (int i = 0; i < NOMALLOC_REQUESTS; i += COUNTED_CALLS)
        counted_calls(&all, pm_body_bytes("0123456789abcdef", 16));
    assert_int_equal(all.allocations - before, 0);
    counted_end(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answered_here),
        cmocka_unit_test(test_forwarded),
        cmocka_unit_test(test_pushed),
        cmocka_unit_test(test_called),
    };
    test_deadline(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
