/* SPDX-License-Identifier: MIT */
/* test_window.c -- messages that are kept to be sent again: numbers, the limit,
 * what is taken out; against a plain list; with allocation k failing. */
#include "test.h"
#include "core/loop_internal.h"
#include "core/window.h"

enum { MAX = 4096, ROUNDS = 20000, TEXT_MAX = 3000 };

typedef struct shop {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pmi_window window;
} shop;

static void shop_open(shop *s, size_t bytes_max)
{
    pm_loop_opts opts;
    memset(s, 0, sizeof *s);
    s->world.seed = 1;
    opts = test_world_opts(&s->world, &s->heap);
    assert_ok(pm_loop_new(&s->loop, &opts));
    pmi_window_init(&s->window, s->loop, bytes_max);
}

static void shop_close(shop *s)
{
    pmi_window_fini(&s->window);
    assert_ok(pm_loop_free(s->loop));
    assert_heap_empty(&s->heap);
}

static pm_err shop_add(shop *s, const char *text, const pmi_window_terms *terms)
{
    pm_slice parts[2] = {{text, 1}, {text + 1, strlen(text) - 1}};
    return pmi_window_add(&s->window, parts, 2, terms);
}

static void assert_kept(const shop *s, uint64_t number, const char *text)
{
    pm_slice kept = pmi_window_get(&s->window, number);
    assert_int_equal(kept.len, strlen(text));
    assert_memory_equal(kept.data, text, kept.len);
}

static void test_numbers(void **state)
{
    shop s;
    (void)state;
    shop_open(&s, MAX);
    assert_int_equal(pmi_window_oldest(&s.window), 1);
    assert_ok(shop_add(&s, "one", NULL));
    assert_ok(shop_add(&s, "two", NULL));
    assert_ok(shop_add(&s, "three", NULL));
    assert_int_equal(s.window.last, 3);
    assert_kept(&s, 1, "one");
    pmi_window_trim(&s.window, 2);
    assert_int_equal(pmi_window_oldest(&s.window), 3);
    assert_kept(&s, 3, "three");
    pmi_window_trim(&s.window, 9);
    assert_int_equal(pmi_window_oldest(&s.window), 4);
    assert_int_equal(s.window.bytes, 0);
    shop_close(&s);
}

/* A message as large as the window has a number and is not kept. */
static void test_the_limit(void **state)
{
    char large[201];
    shop s;
    (void)state;
    memset(large, 'x', 200);
    large[200] = 0;
    shop_open(&s, 200);
    assert_ok(shop_add(&s, "one", NULL));
    assert_ok(shop_add(&s, large, NULL));
    assert_int_equal(s.window.last, 2);
    assert_int_equal(pmi_window_oldest(&s.window), 3);
    large[200 - PMI_WINDOW_HEAD] = 0;
    assert_ok(shop_add(&s, large, NULL));
    assert_kept(&s, 3, large);
    assert_false(pmi_window_fits(&s.window, 1));
    assert_ok(shop_add(&s, "four", NULL));
    assert_int_equal(pmi_window_oldest(&s.window), 4);
    pmi_window_skip(&s.window);
    assert_int_equal(pmi_window_oldest(&s.window), 6);
    shop_close(&s);
}

/* What was not sent is taken out, and the others move up. */
static void test_taken_out(void **state)
{
    uint32_t serials[3];
    shop s;
    (void)state;
    shop_open(&s, MAX);
    s.window.serial = UINT32_MAX - 2; /* they go round, and are never 0 */
    for (int i = 0; i < 3; i++) {
        assert_ok(shop_add(&s,
                           i == 0   ? "one"
                           : i == 1 ? "two"
                                    : "three",
                           NULL));
        serials[i] = s.window.serial;
        assert_true(serials[i] != 0);
    }
    assert_int_equal(pmi_window_behind(&s.window, 1),
                     strlen("twothree") + 2 * PMI_WINDOW_HEAD);
    pmi_window_take_out(&s.window, serials[1]);
    assert_int_equal(s.window.last, 2);
    assert_kept(&s, 1, "one");
    assert_kept(&s, 2, "three");
    /* One that is not kept any more: the numbers of the others move up. */
    pmi_window_trim(&s.window, 1);
    pmi_window_take_out(&s.window, serials[0]);
    assert_int_equal(s.window.last, 1);
    assert_kept(&s, 1, "three");
    pmi_window_take_out(&s.window, serials[2]);
    assert_int_equal(s.window.last, 0);
    assert_int_equal(s.window.count, 0);
    shop_close(&s);
}

static bool room(shop *s, uint64_t sent, size_t len,
                 const pmi_window_terms *terms)
{
    uint64_t last = s->window.last;
    uint32_t dropped;
    bool fits = pmi_window_make_room(&s->window, sent, len, terms, &dropped);
    assert_int_equal(dropped, last - s->window.last);
    return fits;
}

static void test_loose_ones_make_room(void **state)
{
    pmi_window_terms loose = {true, 0}, of_key = {true, 7}, stays = {false, 0};
    char text[101];
    shop s;
    (void)state;
    memset(text, 'x', 100);
    text[100] = 0;
    shop_open(&s, 4 * (100 + PMI_WINDOW_HEAD));
    text[0] = 'a';
    assert_ok(shop_add(&s, text, &loose));
    text[0] = 'b';
    assert_ok(shop_add(&s, text, NULL));
    text[0] = 'c';
    assert_ok(shop_add(&s, text, &of_key));
    text[0] = 'd';
    assert_ok(shop_add(&s, text, &loose));
    /* The first has been sent: it is no room, but may go. */
    assert_true(room(&s, 1, 100, &stays));
    assert_int_equal(s.window.last, 4);
    assert_false(room(&s, 0, 100, &stays));
    assert_true(room(&s, 0, 100, &of_key));
    assert_int_equal(s.window.last, 3); /* c */
    text[0] = 'd';
    assert_kept(&s, 3, text);
    text[0] = 'e';
    assert_ok(shop_add(&s, text, NULL));
    assert_true(room(&s, 0, 100, NULL));
    assert_int_equal(s.window.last, 3); /* a */
    text[0] = 'b';
    assert_kept(&s, 1, text);
    assert_true(room(&s, 0, 232, NULL));
    assert_int_equal(s.window.last, 2); /* d */
    assert_false(room(&s, 0, 233, NULL));
    assert_false(room(&s, 0, MAX, NULL));
    shop_close(&s);
}

/* ---- The memory behind it ------------------------------------------------ */

enum { STORE = 64 * 1024 };

/* Bytes that the window holds of the heap, and of the loop's chunks. */
static size_t shop_holds(const shop *s)
{
    return atomic_load(&s->heap.live_bytes) -
           s->loop->chunks.kept * PMI_CHUNK_SMALL;
}

/* Messages stay; between two of them come some that do not. */
static void many_taken_out(bool by_key)
{
    pmi_window_terms of_key = {true, 7};
    static char text[2001];
    size_t before, kept = 0;
    shop s;
    memset(text, 'x', 2000);
    shop_open(&s, STORE);
    before = shop_holds(&s);
    while (pmi_window_fits(&s.window, 2000)) {
        text[20] = 0;
        assert_ok(shop_add(&s, text, NULL));
        text[20] = 'x';
        kept++;
        for (int i = 0; i < 4; i++) {
            if (by_key)
                room(&s, 0, 1000, &of_key);
            text[1000] = 0;
            assert_ok(shop_add(&s, text, by_key ? &of_key : NULL));
            text[1000] = 'x';
            if (!by_key) /* it was refused */
                pmi_window_take_out(&s.window, s.window.serial);
        }
        assert_true(shop_holds(&s) - before <= 4 * STORE);
    }
    text[20] = 0;
    assert_int_equal(s.window.count, kept + by_key);
    assert_kept(&s, 1, text);
    assert_kept(&s, kept - 1, text);
    shop_close(&s);
}

static void test_memory_of_those_taken_out(void **state)
{
    (void)state;
    many_taken_out(true);
    many_taken_out(false);
}

/* A chunk that is shared for a moment may be much larger than its bytes. */
static void test_memory_of_shared_ones(void **state)
{
    size_t before;
    shop s;
    (void)state;
    shop_open(&s, STORE);
    before = shop_holds(&s);
    for (int i = 0; i < 300; i++) {
        pmi_chunk *chunk = pmi_loop_chunk(s.loop, 600);
        assert_non_null(chunk);
        memset(chunk->data, 'a' + i % 26, 600);
        chunk->len = 600;
        assert_ok(pmi_window_add_chunk(&s.window, chunk, 0, NULL));
        pmi_chunk_unref(chunk);
        assert_true(shop_holds(&s) - before <= 2 * STORE);
    }
    assert_int_equal(s.window.count, STORE / (600 + PMI_WINDOW_HEAD));
    shop_close(&s);
}

/* Random work, compared with a list of texts. */
static void test_against_a_list(void **state)
{
    static char texts[64][TEXT_MAX + 1];
    size_t at = 0, count = 0;
    uint64_t last = 0;
    shop s;
    (void)state;
    shop_open(&s, MAX);
    for (int round = 0; round < ROUNDS; round++) {
        size_t len = 1 + test_world_below(&s.world, 900);
        char *text = texts[(at + count) % 64];
        memset(text, 'a' + round % 26, len);
        text[len] = 0;
        if (round % 3) {
            assert_ok(shop_add(&s, text, NULL));
        } else {
            pmi_chunk *chunk = pmi_chunk_new(pmi_loop_env(s.loop), len + 5);
            assert_non_null(chunk);
            memcpy(chunk->data + 5, text, len);
            chunk->len = (uint32_t)len + 5;
            assert_ok(pmi_window_add_chunk(&s.window, chunk, 5, NULL));
            pmi_chunk_unref(chunk);
        }
        count++;
        last++;
        if (test_world_below(&s.world, 5) == 0)
            pmi_window_trim(&s.window,
                            last - test_world_below(&s.world, 9) % (last + 1));
        at += count - s.window.count;
        count = s.window.count;
        assert_int_equal(s.window.last, last);
        assert_true(s.window.bytes <= MAX);
        for (size_t i = 0; i < count; i++)
            assert_kept(&s, pmi_window_oldest(&s.window) + i,
                        texts[(at + i) % 64]);
    }
    shop_close(&s);
}

static void test_memory(void **state)
{
    test_heap heap = {0};
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        test_world world = {0};
        pm_loop_opts opts = test_world_opts(&world, &heap);
        pm_loop *loop;
        pmi_window window;
        if (pm_loop_new(&loop, &opts))
            continue;
        pmi_window_init(&window, loop, MAX);
        for (int i = 0; i < 40; i++) {
            uint64_t last = window.last;
            pm_slice text = pm_text("some text that is kept");
            pm_err err = pmi_window_add(&window, &text, 1, NULL);
            assert_true(err == PM_OK || err == PM_ENOMEM);
            assert_int_equal(window.last, last + (err == PM_OK));
        }
        pmi_window_fini(&window);
        assert_ok(pm_loop_free(loop));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_numbers),
    cmocka_unit_test(test_the_limit),
    cmocka_unit_test(test_taken_out),
    cmocka_unit_test(test_loose_ones_make_room),
    cmocka_unit_test(test_memory_of_those_taken_out),
    cmocka_unit_test(test_memory_of_shared_ones),
    cmocka_unit_test(test_against_a_list),
    cmocka_unit_test(test_memory),
};

TEST_MAIN(tests)
