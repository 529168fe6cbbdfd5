/* SPDX-License-Identifier: MIT */
/* test/test_buf.c -- growing bytes, shared chunks, bounded cursors. */
#include "test.h"

#include "core/buf.h"

/* ---- Growing bytes ----------------------------------------------------- */
static void test_add(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf buf;
    (void)state;
    pmi_buf_init(&buf, &env, SIZE_MAX);
    assert_int_equal(heap.calls, 0);
    assert_int_equal(pmi_buf_slice(&buf).len, 0);
    pmi_buf_add(&buf, NULL, 0);
    pmi_buf_add_text(&buf, "");
    pmi_buf_consume(&buf, 0);
    assert_int_equal(heap.calls, 0);
    pmi_buf_add_text(&buf, "one ");
    pmi_buf_add(&buf, "two three", 4);
    pmi_buf_add_format(&buf, "%d%c", 3, '!');
    pmi_buf_add_byte(&buf, 0);
    assert_false(buf.failed);
    assert_string_equal((char *)buf.data, "one two 3!");
    assert_int_equal(buf.len, 11);
    pmi_buf_consume(&buf, 4);
    assert_string_equal((char *)buf.data, "two 3!");
    pmi_buf_consume(&buf, buf.len);
    assert_int_equal(buf.len, 0);
    pmi_buf_fini(&buf);
    assert_heap_empty(&heap);
    pmi_buf_fini(&buf);
}

static void test_growth(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf buf;
    size_t calls;
    (void)state;
    pmi_buf_init(&buf, &env, SIZE_MAX);
    for (size_t i = 0; i < 100000; i++)
        pmi_buf_add_byte(&buf, (uint8_t)(i * 7));
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(buf.data[i], (uint8_t)(i * 7));
    /* Doubling: not a call an append. */
    assert_true(heap.calls < 20);
    calls = heap.calls;
    pmi_buf_reset(&buf);
    for (size_t i = 0; i < 100000; i++)
        pmi_buf_add_byte(&buf, 1);
    assert_int_equal(heap.calls, calls);
    pmi_buf_fini(&buf);
    assert_heap_empty(&heap);
}

static void test_max(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf buf;
    (void)state;
    pmi_buf_init(&buf, &env, 10);
    pmi_buf_add(&buf, "12345678", 8);
    assert_int_equal(heap.live_bytes, 10);
    /* Too much: nothing of it, and nothing after it. */
    pmi_buf_add(&buf, "abc", 3);
    assert_true(buf.failed);
    pmi_buf_add(&buf, "x", 1);
    assert_null(pmi_buf_reserve(&buf, 0));
    assert_int_equal(buf.len, 8);
    pmi_buf_reset(&buf);
    assert_false(buf.failed);
    pmi_buf_add_text(&buf, "0123456789");
    assert_false(buf.failed);
    assert_null(pmi_buf_reserve(&buf, SIZE_MAX));
    assert_true(buf.failed);
    pmi_buf_fini(&buf);
    pmi_buf_init(&buf, &env, 0);
    assert_non_null(pmi_buf_reserve(&buf, 0));
    pmi_buf_add_byte(&buf, 1);
    assert_true(buf.failed);
    pmi_buf_fini(&buf);
    assert_heap_empty(&heap);
}

static void test_reserve(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf buf;
    uint8_t *to;
    (void)state;
    pmi_buf_init(&buf, &env, SIZE_MAX);
    to = pmi_buf_reserve(&buf, 1000);
    assert_non_null(to);
    assert_int_equal(buf.len, 0);
    memset(to, 'x', 1000);
    buf.len += 1000;
    assert_ptr_equal(pmi_buf_reserve(&buf, 0), buf.data + 1000);
    pmi_buf_fini(&buf);
}

/* A text around the size of the first pass's storage, and one that just
 * fits into max: the 0 behind it does not count. */
static void test_format(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    for (int len = 250; len < 262; len++) {
        pmi_buf buf;
        pmi_buf_init(&buf, &env, (size_t)len);
        pmi_buf_add_format(&buf, "%0*d", len, 7);
        assert_false(buf.failed);
        assert_int_equal(buf.len, len);
        assert_int_equal(buf.data[len - 2], '0');
        assert_int_equal(buf.data[len - 1], '7');
        pmi_buf_add_format(&buf, "%d", 1);
        assert_true(buf.failed);
        pmi_buf_reset(&buf);
        pmi_buf_add_format(&buf, "%0*d", len + 1, 7);
        assert_true(buf.failed);
        assert_int_equal(buf.len, 0);
        pmi_buf_add_format(&buf, "%0*d", len, 7);
        assert_int_equal(buf.len, 0);
        pmi_buf_fini(&buf);
    }
    assert_heap_empty(&heap);
}

static void test_buf_failures(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_buf buf;
        pmi_buf_init(&buf, &env, SIZE_MAX);
        for (int i = 0; i < 50; i++) {
            pmi_buf_add_text(&buf, "twenty bytes of text");
            pmi_buf_add_format(&buf, "%0300d", i);
        }
        assert_int_equal(buf.failed, heap.failed != 0);
        if (!buf.failed)
            assert_int_equal(buf.len, 50 * 320);
        else
            assert_true(buf.len % 320 == 0 || buf.len % 320 == 20);
        pmi_buf_fini(&buf);
    }
}

/* ---- Chunks ------------------------------------------------------------ */
static void test_chunk(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_chunk *chunk = pmi_chunk_new(&env, 10);
    (void)state;
    assert_int_equal(chunk->cap, 10);
    assert_int_equal(chunk->len, 0);
    memset(chunk->data, 1, 10);
    assert_ptr_equal(pmi_chunk_ref(chunk), chunk);
    pmi_chunk_unref(chunk);
    assert_int_equal(heap.live_blocks, 1);
    pmi_chunk_unref(chunk);
    assert_heap_empty(&heap);
    pmi_chunk_unref(NULL);
    chunk = pmi_chunk_new(&env, 0);
    assert_non_null(chunk);
    pmi_chunk_unref(chunk);
    assert_null(pmi_chunk_new(&env, SIZE_MAX));
    assert_null(pmi_chunk_new(&env, UINT32_MAX));
    assert_heap_empty(&heap);
}

static void test_pool(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_chunk_pool pool;
    pmi_chunk *c[4];
    size_t calls;
    (void)state;
    pmi_chunk_pool_init(&pool, &env, 64, 2);
    for (int i = 0; i < 4; i++) {
        c[i] = pmi_chunk_pool_get(&pool);
        c[i]->len = 64;
    }
    assert_int_equal(pool.out, 4);
    assert_int_equal(heap.live_blocks, 4);
    for (int i = 0; i < 4; i++)
        pmi_chunk_unref(c[i]);
    assert_int_equal(pool.out, 0);
    assert_int_equal(pool.kept, 2);
    assert_int_equal(heap.live_blocks, 2);
    calls = heap.calls;
    for (int i = 0; i < 100; i++) {
        pmi_chunk *a = pmi_chunk_pool_get(&pool);
        pmi_chunk *b = pmi_chunk_pool_get(&pool);
        assert_ptr_not_equal(a, b);
        assert_int_equal(a->len, 0);
        assert_int_equal(a->refs, 1);
        pmi_chunk_unref(pmi_chunk_ref(a));
        assert_int_equal(pool.out, 2);
        pmi_chunk_unref(a);
        pmi_chunk_unref(b);
    }
    assert_int_equal(heap.calls, calls);
    pmi_chunk_pool_fini(&pool);
    assert_heap_empty(&heap);
}

static void test_pool_failures(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_chunk_pool pool;
        pmi_chunk *a, *b;
        pmi_chunk_pool_init(&pool, &env, 64, 2);
        a = pmi_chunk_pool_get(&pool);
        b = pmi_chunk_pool_get(&pool);
        assert_int_equal(pool.out, (a != NULL) + (b != NULL));
        pmi_chunk_unref(a);
        pmi_chunk_unref(b);
        pmi_chunk_pool_fini(&pool);
    }
}

/* ---- Cursors ----------------------------------------------------------- */
static void test_cursor(void **state)
{
    uint8_t *bytes = test_copy("abcde", 5);
    pmi_cursor c = pmi_cursor_of(bytes, 5);
    pm_slice s;
    (void)state;
    assert_int_equal(pmi_cursor_left(&c), 5);
    assert_int_equal(pmi_cursor_byte(&c), 'a');
    s = pmi_cursor_bytes(&c, 3);
    assert_memory_equal(s.data, "bcd", 3);
    s = pmi_cursor_bytes(&c, 0);
    assert_false(c.bad);
    s = pmi_cursor_bytes(&c, SIZE_MAX);
    assert_true(c.bad);
    assert_int_equal(s.len, 0);
    assert_int_equal(pmi_cursor_left(&c), 1);
    assert_int_equal(pmi_cursor_byte(&c), 'e');
    assert_int_equal(pmi_cursor_byte(&c), 0);
    assert_true(c.bad);
    c = pmi_cursor_of(NULL, 0);
    assert_int_equal(pmi_cursor_left(&c), 0);
    assert_int_equal(pmi_cursor_byte(&c), 0);
    assert_true(c.bad);
    free(bytes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_add),           cmocka_unit_test(test_growth),
    cmocka_unit_test(test_max),           cmocka_unit_test(test_reserve),
    cmocka_unit_test(test_format),        cmocka_unit_test(test_buf_failures),
    cmocka_unit_test(test_chunk),         cmocka_unit_test(test_pool),
    cmocka_unit_test(test_pool_failures), cmocka_unit_test(test_cursor),
};
TEST_MAIN(tests)
