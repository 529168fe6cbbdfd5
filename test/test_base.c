/* SPDX-License-Identifier: MIT */
/* test/test_base.c -- allocator, log, lists, tables; and test.h itself. */
#include "test.h"

/* ---- Tables ------------------------------------------------------------ */
static void test_tables(void **state)
{
    (void)state;
    assert_string_equal(pm_version(), PM_VERSION);
    assert_string_equal(pm_strerror(PM_OK), "success");
    assert_string_equal(pm_strerror(PM_EDROPPED), "dropped by policy");
    assert_string_equal(pm_err_name(PM_ENOMEM), "PM_ENOMEM");
    assert_string_equal(pm_close_text(PM_CLOSE_NONE), "none");
    assert_string_equal(pm_close_text(PM_CLOSE_KICK), "kicked");
}

static void test_tables_unknown(void **state)
{
    (void)state;
    for (int i = -200; i < 200; i++) {
        assert_non_null(pm_strerror((pm_err)i));
        assert_non_null(pm_err_name((pm_err)i));
        assert_non_null(pm_close_text((pm_close_reason)i));
    }
    assert_string_equal(pm_strerror((pm_err)-199), "unknown error");
    assert_string_equal(pm_err_name((pm_err)7), "unknown");
    assert_string_equal(pm_close_text(PM_CLOSE_COUNT), "unknown reason");
    /* The count goes with the table. */
    for (int i = 0; i < PM_CLOSE_COUNT; i++)
        assert_string_not_equal(pm_close_text((pm_close_reason)i),
                                "unknown reason");
}

/* ---- Allocator --------------------------------------------------------- */
static void test_default_allocator(void **state)
{
    pmi_env env;
    char *text;
    (void)state;
    pmi_env_init(&env, NULL);
    assert_null(env.log);
    text = pmi_strdup(&env, "abc");
    assert_string_equal(text, "abc");
    text = pmi_resize(&env, text, 100);
    assert_string_equal(text, "abc");
    pmi_free(&env, text);
    pmi_free(&env, NULL);
}

static void test_incomplete_allocator(void **state)
{
    test_heap heap = {0};
    pm_alloc alloc = test_alloc(&heap);
    pmi_env env;
    (void)state;
    alloc.release = NULL;
    pmi_env_init(&env, &alloc);
    pmi_free(&env, pmi_alloc(&env, 1));
    assert_int_equal(heap.calls, 0);
}

static void test_own_allocator(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    uint8_t *zeros;
    char *text;
    (void)state;
    zeros = pmi_zalloc(&env, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zeros[i], 0);
    assert_int_equal(heap.live_bytes, 100);
    pmi_free(&env, zeros);
    text = pmi_strndup(&env, "abcdef", 3);
    assert_string_equal(text, "abc");
    pmi_free(&env, text);
    text = pmi_strndup(&env, NULL, 0);
    assert_string_equal(text, "");
    pmi_free(&env, text);
    /* A size of 0 is taken as 1. */
    text = pmi_alloc(&env, 0);
    assert_non_null(text);
    assert_int_equal(heap.live_bytes, 1);
    text = pmi_resize(&env, text, 0);
    assert_int_equal(heap.live_bytes, 1);
    pmi_free(&env, text);
    assert_heap_empty(&heap);
}

/* The last one back is the first one out; its head is cleared. */
static void test_spares(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_spares spares;
    uint8_t *a, *b, *c;
    (void)state;
    pmi_spares_init(&spares, &env, 32, 24, 2);
    a = pmi_spares_get(&spares);
    b = pmi_spares_get(&spares);
    c = pmi_spares_get(&spares);
    assert_int_equal(heap.live_blocks, 3);
    memset(a, 7, 32);
    memset(b, 7, 32);
    pmi_spares_put(&spares, a);
    pmi_spares_put(&spares, b);
    pmi_spares_put(&spares, c); /* one too many */
    pmi_spares_put(&spares, NULL);
    assert_int_equal(heap.live_blocks, 2);
    assert_ptr_equal(pmi_spares_get(&spares), b);
    for (int i = 0; i < 32; i++)
        assert_int_equal(b[i], i < 24 ? 0 : 7);
    assert_ptr_equal(pmi_spares_get(&spares), a);
    heap.fail_at = heap.calls + 1;
    assert_null(pmi_spares_get(&spares));
    pmi_spares_put(&spares, a);
    pmi_spares_put(&spares, b);
    pmi_spares_fini(&spares);
    assert_heap_empty(&heap);
}

static void test_overflow(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    size_t sum = 7;
    uint32_t *array;
    (void)state;
    assert_null(pmi_resize_array(&env, NULL, SIZE_MAX / 4 + 1, 4));
    assert_null(pmi_resize_array(&env, NULL, SIZE_MAX, SIZE_MAX));
    assert_null(pmi_strndup(&env, "x", SIZE_MAX));
    assert_int_equal(heap.calls, 0);
    array = pmi_resize_array(&env, NULL, 3, sizeof *array);
    assert_int_equal(heap.live_bytes, 12);
    array[2] = 5;
    array = pmi_resize_array(&env, array, 30, sizeof *array);
    assert_int_equal(array[2], 5);
    pmi_free(&env, array);
    assert_false(pmi_add_size(SIZE_MAX, 1, &sum));
    assert_int_equal(sum, 7);
    assert_true(pmi_add_size(SIZE_MAX, 0, &sum));
    assert_true(sum == SIZE_MAX);
    assert_heap_empty(&heap);
}

/* ---- Log --------------------------------------------------------------- */
typedef struct lines {
    int count;
    pm_log_level level;
    char module[16];
    char last[2000];
} lines;

static void on_line(void *ctx, pm_log_level level, const char *module,
                    const char *line)
{
    lines *l = ctx;
    l->count++;
    l->level = level;
    pmi_format(l->module, sizeof l->module, "%s", module);
    pmi_format(l->last, sizeof l->last, "%s", line);
}

static int evaluated(int *times)
{
    return ++*times;
}

static void test_log(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    lines l = {0};
    int times = 0;
    char big[3000];
    (void)state;
    PMI_LOG(&env, PM_LOG_ERROR, "base", "nobody hears %d", evaluated(&times));
    env.log = on_line;
    env.log_ctx = &l;
    env.log_level = PM_LOG_WARN;
    PMI_LOG(&env, PM_LOG_INFO, "base", "too fine %d", evaluated(&times));
    pmi_log_line(&env, PM_LOG_DEBUG, "base", "too fine");
    assert_int_equal(times, 0);
    assert_int_equal(l.count, 0);
    PMI_LOG(&env, PM_LOG_WARN, "base", "%s %d", "heard", evaluated(&times));
    assert_int_equal(times, 1);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.level, PM_LOG_WARN);
    assert_string_equal(l.module, "base");
    assert_string_equal(l.last, "heard 1");
    PMI_LOG(&env, PM_LOG_WARN, "base", "a\nb\x1b[2Jc%s", "\r\x7f.");
    assert_string_equal(l.last, "a b [2Jc  .");
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    PMI_LOG(&env, PM_LOG_WARN, "base", "%s", big);
    assert_int_equal(strlen(l.last), 1000);
}

static void test_format(void **state)
{
    char out[4] = "zzz";
    (void)state;
    assert_int_equal(pmi_format(out, sizeof out, "%d", 12), 2);
    assert_string_equal(out, "12");
    assert_int_equal(pmi_format(out, sizeof out, "%d", 12345), 3);
    assert_string_equal(out, "123");
    assert_int_equal(pmi_format(out, 0, "%d", 9), 0);
    assert_string_equal(out, "123");
}

/* ---- Lists ------------------------------------------------------------- */
typedef struct item {
    int n;
    pmi_link link;
} item;

static int first_of(pmi_link *list)
{
    pmi_link *node = pmi_list_take(list);
    return node ? PMI_OUTER(node, item, link)->n : -1;
}

static void test_lists(void **state)
{
    pmi_link list, other;
    item items[5];
    (void)state;
    memset(items, 0, sizeof items);
    for (int i = 0; i < 5; i++)
        items[i].n = i;
    pmi_list_init(&list);
    pmi_list_init(&other);
    assert_true(pmi_list_empty(&list));
    assert_false(pmi_link_in(&items[0].link));
    pmi_list_remove(&items[0].link);
    pmi_list_add(&list, &items[1].link);
    pmi_list_add(&list, &items[2].link);
    pmi_list_add_front(&list, &items[0].link);
    assert_true(pmi_link_in(&items[0].link));
    pmi_list_remove(&items[1].link);
    pmi_list_remove(&items[1].link);
    assert_false(pmi_link_in(&items[1].link));
    pmi_list_add(&other, &items[3].link);
    pmi_list_add(&other, &items[4].link);
    pmi_list_move(&list, &other);
    assert_true(pmi_list_empty(&other));
    pmi_list_move(&list, &other);
    assert_int_equal(first_of(&list), 0);
    assert_int_equal(first_of(&list), 2);
    assert_int_equal(first_of(&list), 3);
    assert_int_equal(first_of(&list), 4);
    assert_int_equal(first_of(&list), -1);
    assert_true(pmi_list_empty(&list));
}

static void test_bytes(void **state)
{
    uint8_t b[4];
    pm_slice none = {NULL, 0}, abc = {"abc", 3}, abd = {"abd", 3};
    (void)state;
    pmi_put_be32(b, 0xfe010203);
    assert_int_equal(b[0], 0xfe);
    assert_int_equal(b[3], 3);
    assert_int_equal(pmi_get_be32(b), 0xfe010203);
    assert_true(pmi_slice_eq(none, none));
    assert_true(pmi_slice_eq(abc, abc));
    assert_false(pmi_slice_eq(abc, abd));
    assert_false(pmi_slice_eq(abc, none));
}

/* ---- test.h ------------------------------------------------------------ */
static void test_each_failure(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    int hits[2][4] = {{0}}, through = 0;
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        void *a = pmi_alloc(&env, 1), *b = pmi_alloc(&env, 2);
        void *c = pmi_alloc(&env, 3);
        hits[heap.fail_after][1] += !a;
        hits[heap.fail_after][2] += !b;
        hits[heap.fail_after][3] += !c;
        through += a && b && c;
        pmi_free(&env, a);
        pmi_free(&env, b);
        pmi_free(&env, c);
    }
    for (int k = 1; k <= 3; k++) {
        assert_int_equal(hits[false][k], 1);
        assert_int_equal(hits[true][k], k);
    }
    assert_int_equal(through, 2);
    assert_int_equal(heap.fail_at, 0);
}

static void test_cjson_hooks(void **state)
{
    test_heap heap = {0};
    (void)state;
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        cJSON *tree = cJSON_CreateObject();
        cJSON *one = tree ? cJSON_AddNumberToObject(tree, "n", 1) : NULL;
        assert_true(heap.failed ? !one : one && heap.live_blocks > 2);
        cJSON_Delete(tree);
    }
    test_cjson_use(NULL);
    cJSON_Delete(cJSON_CreateObject());
    assert_heap_empty(&heap);
}

static void test_worlds(void **state)
{
    test_world a = {.seed = 5}, b = {.seed = 5}, c = {.seed = 6};
    pm_loop_opts opts = test_world_opts(&a, NULL);
    uint8_t x[16], y[16], z[16];
    (void)state;
    opts.random(x, sizeof x, opts.seam_ctx);
    test_world_random(y, sizeof y, &b);
    test_world_random(z, sizeof z, &c);
    assert_memory_equal(x, y, sizeof x);
    assert_memory_not_equal(x, z, sizeof x);
    a.now_us = 17;
    assert_int_equal(opts.clock_us(opts.seam_ctx), 17);
    assert_true(opts.memory_only);
}

static void test_hex_texts(void **state)
{
    size_t len;
    uint8_t *bytes = test_unhex("00 ff\n7A", &len);
    char *text = test_hex(bytes, len);
    (void)state;
    assert_int_equal(len, 3);
    assert_int_equal(bytes[1], 0xff);
    assert_string_equal(text, "00ff7a");
    free(text);
    free(bytes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_tables),
    cmocka_unit_test(test_tables_unknown),
    cmocka_unit_test(test_default_allocator),
    cmocka_unit_test(test_incomplete_allocator),
    cmocka_unit_test(test_own_allocator),
    cmocka_unit_test(test_spares),
    cmocka_unit_test(test_overflow),
    cmocka_unit_test(test_log),
    cmocka_unit_test(test_format),
    cmocka_unit_test(test_lists),
    cmocka_unit_test(test_bytes),
    cmocka_unit_test(test_each_failure),
    cmocka_unit_test(test_cjson_hooks),
    cmocka_unit_test(test_worlds),
    cmocka_unit_test(test_hex_texts),
};
TEST_MAIN(tests)
