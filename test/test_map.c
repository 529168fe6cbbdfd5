/* SPDX-License-Identifier: MIT */
/* test/test_map.c -- the keyed hash map against a plain model of it. */
#include "test.h"

#include "core/map.h"

static pm_slice text(const char *s)
{
    pm_slice slice = {s, strlen(s)};
    return slice;
}

/* A value for a number, never NULL. */
static void *val(uint64_t n)
{
    return (void *)(uintptr_t)(n * 2 + 1);
}

/* Every entry is found by its key, and the walk has as many. */
static void check_map(pmi_map *map)
{
    uint32_t n = 0;
    for (pmi_map_walk w = pmi_map_begin(map); pmi_map_next(&w); n++) {
        void *found =
            w.key.data ? pmi_map_get(map, w.key) : pmi_map_get_num(map, w.num);
        assert_ptr_equal(found, w.value);
    }
    assert_int_equal(n, pmi_map_count(map));
    assert_int_equal(map->walkers, 0);
}

/* ---- Hash -------------------------------------------------------------- */
/* From two other implementations: the first value is that of the reference
 * vectors' key 00..0f, the others are CPython's hash() of bytes under
 * PYTHONHASHSEED=0 (key zero), for lengths on both sides of each border. */
static void test_hash(void **state)
{
    static const struct {
        size_t len;
        uint64_t hash;
    } want[] = {
        {1, UINT64_C(0x44bc103b1f8540ed)},
        {7, UINT64_C(0xb41012aeee05c7d4)},
        {8, UINT64_C(0xd22d9341176d0728)},
        {9, UINT64_C(0x4ec42971d570753b)},
        {16, UINT64_C(0x7e6bfb8bf1d36ac4)},
        {63, UINT64_C(0x5c34c6b66e3070ff)},
        {64, UINT64_C(0x814eabd66a4299eb)},
        {255, UINT64_C(0xb2f32f6aad260bc4)},
        {1000, UINT64_C(0x3af4e6ac741e5c4d)},
    };
    (void)state;
    assert_true(pmi_map_hash(UINT64_C(0x0706050403020100),
                             UINT64_C(0x0f0e0d0c0b0a0908), NULL,
                             0) == UINT64_C(0xabac0158050fc4dc));
    for (size_t i = 0; i < PMI_COUNT(want); i++) {
        uint8_t *bytes = malloc(want[i].len);
        assert_non_null(bytes);
        for (size_t k = 0; k < want[i].len; k++)
            bytes[k] = (uint8_t)(k * 7 + 1);
        assert_true(pmi_map_hash(0, 0, bytes, want[i].len) == want[i].hash);
        free(bytes);
    }
}

/* ---- Keys and values --------------------------------------------------- */
static void test_bytes_keys(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    void *old = &map;
    char key[] = "key";
    pm_slice nul = {"a\0b", 3}, none = {NULL, 0}, huge = {"", SIZE_MAX};
    (void)state;
    pmi_map_init(&map, &env, 1, 2);
    assert_null(pmi_map_get(&map, text("key")));
    assert_null(pmi_map_remove(&map, text("key")));
    assert_int_equal(heap.calls, 0);
    assert_ok(pmi_map_put(&map, text(key), val(1), &old));
    assert_null(old);
    key[0] = 'K'; /* the map has its own copy */
    assert_null(pmi_map_get(&map, text("Key")));
    assert_ptr_equal(pmi_map_get(&map, text("key")), val(1));
    assert_ok(pmi_map_put(&map, text("key"), val(2), &old));
    assert_ptr_equal(old, val(1));
    assert_int_equal(pmi_map_count(&map), 1);
    assert_ok(pmi_map_put(&map, nul, val(3), NULL));
    assert_ok(pmi_map_put(&map, text("a"), val(4), NULL));
    assert_ok(pmi_map_put(&map, none, val(5), NULL));
    assert_ptr_equal(pmi_map_get(&map, nul), val(3));
    assert_ptr_equal(pmi_map_get(&map, text("a")), val(4));
    assert_ptr_equal(pmi_map_get(&map, text("")), val(5));
    assert_err(pmi_map_put(&map, huge, val(6), NULL), PM_ESIZE);
    assert_null(pmi_map_get(&map, huge));
    assert_null(pmi_map_remove(&map, huge));
    assert_ptr_equal(pmi_map_remove(&map, text("key")), val(2));
    assert_null(pmi_map_remove(&map, text("key")));
    assert_null(pmi_map_get(&map, text("key")));
    assert_int_equal(pmi_map_count(&map), 3);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

static void test_number_keys(void **state)
{
    static const uint64_t keys[] = {0, 1, UINT32_MAX, UINT64_MAX,
                                    UINT64_C(1) << 32};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    uint8_t bytes[8] = {1};
    pm_slice one = {bytes, 8};
    void *old;
    (void)state;
    pmi_map_init(&map, &env, 1, 2);
    for (size_t i = 0; i < PMI_COUNT(keys); i++)
        assert_ok(pmi_map_put_num(&map, keys[i], val(i), NULL));
    for (size_t i = 0; i < PMI_COUNT(keys); i++)
        assert_ptr_equal(pmi_map_get_num(&map, keys[i]), val(i));
    /* The number 1 is not the eight bytes that have its hash. */
    assert_null(pmi_map_get(&map, one));
    assert_ok(pmi_map_put(&map, one, val(99), NULL));
    assert_ptr_equal(pmi_map_get_num(&map, 1), val(1));
    assert_ok(pmi_map_put_num(&map, 1, val(7), &old));
    assert_ptr_equal(old, val(1));
    assert_ptr_equal(pmi_map_remove_num(&map, 1), val(7));
    assert_null(pmi_map_remove_num(&map, 1));
    assert_ptr_equal(pmi_map_get(&map, one), val(99));
    check_map(&map);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* ---- Order and walks --------------------------------------------------- */
/* The keys of the walk as text: "b a d ". */
static void walk_text(pmi_map *map, char *out, size_t size)
{
    size_t len = 0;
    out[0] = 0;
    for (pmi_map_walk w = pmi_map_begin(map); pmi_map_next(&w);)
        len += pmi_format(out + len, size - len, "%.*s ", (int)w.key.len,
                          (const char *)w.key.data);
}

static void test_order(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    char seen[100];
    (void)state;
    for (uint64_t key = 0; key < 50; key++) { /* whatever the hash key */
        pmi_map map;
        pmi_map_init(&map, &env, key, key * 3);
        walk_text(&map, seen, sizeof seen);
        assert_string_equal(seen, "");
        assert_ok(pmi_map_put(&map, text("b"), val(1), NULL));
        assert_ok(pmi_map_put(&map, text("a"), val(2), NULL));
        assert_ok(pmi_map_put(&map, text("c"), val(3), NULL));
        assert_ok(pmi_map_put(&map, text("d"), val(4), NULL));
        assert_ok(pmi_map_put(&map, text("a"), val(5), NULL)); /* stays */
        pmi_map_remove(&map, text("b"));
        pmi_map_remove(&map, text("c"));
        assert_ok(pmi_map_put(&map, text("b"), val(6), NULL)); /* at the end */
        walk_text(&map, seen, sizeof seen);
        assert_string_equal(seen, "a d b ");
        pmi_map_fini(&map);
    }
    assert_heap_empty(&heap);
}

static void test_walk_remove(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    uint64_t next = 0;
    (void)state;
    pmi_map_init(&map, &env, 3, 4);
    for (uint64_t i = 0; i < 1000; i++)
        assert_ok(pmi_map_put_num(&map, i, val(i), NULL));
    /* Each step removes itself and the one after it: every other is seen. */
    for (pmi_map_walk w = pmi_map_begin(&map); pmi_map_next(&w);) {
        assert_true(w.num == next);
        assert_ptr_equal(pmi_map_remove_num(&map, next), val(next));
        assert_ptr_equal(pmi_map_remove_num(&map, next + 1), val(next + 1));
        next += 2;
    }
    assert_int_equal(next, 1000);
    assert_int_equal(pmi_map_count(&map), 0);
    assert_int_equal(map.used, 0);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* What is added while walking is seen, through several growths of the arrays;
 * what was removed and added again is seen at its new place. */
static void test_walk_add(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    uint64_t next = 0;
    (void)state;
    pmi_map_init(&map, &env, 3, 4);
    assert_ok(pmi_map_put_num(&map, 0, val(0), NULL));
    for (pmi_map_walk w = pmi_map_begin(&map); pmi_map_next(&w);) {
        assert_true(w.num == next);
        next++;
        if (next < 5000) {
            assert_ok(pmi_map_put_num(&map, next, val(next), NULL));
            if (next % 3 == 0)
                pmi_map_remove_num(&map, next - 1);
        }
    }
    assert_int_equal(next, 5000);
    check_map(&map);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* Two walks, one inside the other; the inner is left early, the outer removes
 * all: nothing moves under either, and the end cleans up. */
static void test_walk_nested(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    uint64_t outer = 0;
    (void)state;
    pmi_map_init(&map, &env, 3, 4);
    for (uint64_t i = 0; i < 100; i++)
        assert_ok(pmi_map_put_num(&map, i, val(i), NULL));
    for (pmi_map_walk w = pmi_map_begin(&map); pmi_map_next(&w);) {
        pmi_map_walk inner = pmi_map_begin(&map);
        assert_true(w.num == outer++);
        assert_true(pmi_map_next(&inner));
        assert_true(inner.num == w.num);
        pmi_map_remove_num(&map, w.num);
        pmi_map_end(&inner);
        pmi_map_end(&inner);
        assert_false(pmi_map_next(&inner));
        assert_int_equal(map.walkers, 1);
    }
    assert_int_equal(outer, 100);
    assert_int_equal(map.walkers, 0);
    assert_int_equal(map.used, 0);
    pmi_map_fini(&map);
}

static void test_walk_fini(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    pmi_map_walk w;
    (void)state;
    pmi_map_init(&map, &env, 3, 4);
    assert_ok(pmi_map_put(&map, text("a"), val(1), NULL));
    assert_ok(pmi_map_put(&map, text("b"), val(2), NULL));
    w = pmi_map_begin(&map);
    assert_true(pmi_map_next(&w));
    pmi_map_fini(&map);
    assert_false(pmi_map_next(&w));
    assert_heap_empty(&heap);
    assert_ok(pmi_map_put(&map, text("c"), val(3), NULL));
    check_map(&map);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* ---- Room -------------------------------------------------------------- */
static void test_many(void **state)
{
    enum { N = 100000 };
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    char key[32];
    (void)state;
    pmi_map_init(&map, &env, 5, 6);
    for (uint64_t i = 0; i < N; i++) {
        pm_slice k = {key, pmi_format(key, sizeof key, "user-%d", (int)i)};
        assert_ok(pmi_map_put(&map, k, val(i), NULL));
    }
    for (uint64_t i = 0; i < N; i++) {
        pm_slice k = {key, pmi_format(key, sizeof key, "user-%d", (int)i)};
        if (pmi_map_get(&map, k) != val(i))
            fail_msg("%s is lost", key);
    }
    check_map(&map);
    for (uint64_t i = 0; i < N; i += i % 7 ? 1 : 2) {
        pm_slice k = {key, pmi_format(key, sizeof key, "user-%d", (int)i)};
        if (pmi_map_remove(&map, k) != val(i))
            fail_msg("%s is lost", key);
    }
    check_map(&map);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* Strangers who do not know the key can not do this; whoever does gets a slow
 * map, but still a right one: all keys begin at one place of the index. */
static void test_collisions(void **state)
{
    enum { N = 300, MASK = 1023 };
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    uint64_t keys[N], candidate = 0;
    (void)state;
    pmi_map_init(&map, &env, 7, 8);
    for (size_t i = 0; i < N; candidate++) {
        uint8_t le[8];
        for (int k = 0; k < 8; k++)
            le[k] = (uint8_t)(candidate >> (8 * k));
        /* The last place: rows go around the end. */
        if ((pmi_map_hash(7, 8, le, 8) & MASK) == MASK)
            keys[i++] = candidate;
    }
    for (size_t i = 0; i < N; i++)
        assert_ok(pmi_map_put_num(&map, keys[i], val(i), NULL));
    assert_int_equal(map.index_mask, MASK);
    check_map(&map);
    for (size_t i = 0; i < N; i += 2) {
        assert_ptr_equal(pmi_map_remove_num(&map, keys[i]), val(i));
        assert_null(pmi_map_get_num(&map, keys[i]));
        if (i % 50 == 0)
            check_map(&map);
    }
    for (size_t i = 1; i < N; i += 2)
        assert_ptr_equal(pmi_map_get_num(&map, keys[i]), val(i));
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* Pending calls: numbers come and go, as many as before. */
static void test_steady(void **state)
{
    static const uint64_t windows[] = {1, 2, 15, 16, 100, 1000, 5000};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(windows); i++) {
        uint64_t n = windows[i], next = 0;
        size_t calls;
        pmi_map map;
        pmi_map_init(&map, &env, 9, 10);
        for (; next < n * 4; next++) { /* warm */
            assert_ok(pmi_map_put_num(&map, next, val(next), NULL));
            if (next >= n)
                assert_non_null(pmi_map_remove_num(&map, next - n));
        }
        calls = heap.calls;
        for (; next < n * 4 + 100000; next++) {
            if (pmi_map_put_num(&map, next, val(next), NULL) ||
                pmi_map_remove_num(&map, next - n) != val(next - n))
                fail_msg("lost in a window of %d", (int)n);
        }
        assert_int_equal(heap.calls, calls);
        assert_int_equal(pmi_map_count(&map), n);
        assert_true(map.cap <= 16 + 4 * n);
        check_map(&map);
        pmi_map_fini(&map);
    }
    assert_heap_empty(&heap);
}

/* A peak leaves neither memory nor long walks behind. */
static void test_after_peak(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    size_t peak;
    (void)state;
    pmi_map_init(&map, &env, 9, 10);
    for (uint64_t i = 0; i < 100000; i++)
        assert_ok(pmi_map_put_num(&map, i, val(i), NULL));
    peak = heap.live_bytes;
    for (uint64_t i = 0; i < 100000; i++)
        if (i % 10000)
            assert_non_null(pmi_map_remove_num(&map, i));
    assert_int_equal(pmi_map_count(&map), 10);
    assert_true(map.used <= 20);
    assert_true(heap.live_bytes < peak / 50);
    check_map(&map);
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* Holes that a long walk has left are squeezed out when it ends, and a put
 * into a full array with holes squeezes instead of growing. */
static void test_squeeze(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_map map;
    pmi_map_walk w;
    uint32_t cap;
    (void)state;
    pmi_map_init(&map, &env, 9, 10);
    for (uint64_t i = 0; i < 64; i++)
        assert_ok(pmi_map_put_num(&map, i, val(i), NULL));
    cap = map.cap;
    assert_int_equal(cap, 64);
    for (uint64_t i = 0; i < 16; i++)
        pmi_map_remove_num(&map, i * 4);
    assert_int_equal(map.used, 64);
    assert_ok(pmi_map_put_num(&map, 100, val(100), NULL));
    assert_int_equal(map.cap, cap);
    assert_int_equal(map.used, 49);
    check_map(&map);
    w = pmi_map_begin(&map);
    for (uint64_t i = 0; i < 64; i++)
        pmi_map_remove_num(&map, i);
    assert_int_equal(map.used, 49);
    assert_true(pmi_map_next(&w));
    assert_true(w.num == 100);
    pmi_map_end(&w);
    assert_int_equal(map.used, 1);
    assert_ptr_equal(pmi_map_get_num(&map, 100), val(100));
    pmi_map_fini(&map);
    assert_heap_empty(&heap);
}

/* ---- Against a model --------------------------------------------------- */
enum { MODEL_KEYS = 2000 };

/* What the map must hold: order[] is when a key was inserted, 0: not in. */
typedef struct model {
    uint64_t order[MODEL_KEYS], now;
    uint32_t count;
} model;

static void model_step(model *m, pmi_map *map, uint64_t key, bool put)
{
    void *old = NULL;
    bool was_in = m->order[key] != 0;
    if (put) {
        assert_ok(pmi_map_put_num(map, key, val(key), &old));
        m->count += !was_in;
        if (!was_in)
            m->order[key] = ++m->now;
    } else {
        old = pmi_map_remove_num(map, key);
        m->count -= was_in;
        m->order[key] = 0;
    }
    if (old != (was_in ? val(key) : NULL) || map->count != m->count)
        fail_msg("key %d after %d inserts", (int)key, (int)m->now);
}

static void model_check(const model *m, pmi_map *map)
{
    uint64_t last = 0;
    for (pmi_map_walk w = pmi_map_begin(map); pmi_map_next(&w);) {
        assert_true(m->order[w.num] > last);
        last = m->order[w.num];
    }
    check_map(map);
}

/* Changes in the middle of a walk: no key is seen twice unless it was put in
 * again, and all that stay are seen. */
static void model_walk(model *m, pmi_map *map, test_world *world)
{
    uint64_t last = 0, seen = 0, stay = 0, start = m->now;
    size_t keep = test_world_below(world, MODEL_KEYS), steps = 0;
    bool keep_in = m->order[keep] != 0;
    for (pmi_map_walk w = pmi_map_begin(map); pmi_map_next(&w); seen++) {
        assert_true(m->order[w.num] > last);
        last = m->order[w.num];
        stay += w.num == keep;
        if (steps++ < 3000) {
            uint64_t key = test_world_below(world, MODEL_KEYS);
            if (key != keep)
                model_step(m, map, key, test_world_below(world, 2));
        }
    }
    assert_int_equal(stay, keep_in);
    assert_true(seen > 0 || m->now == start);
}

static void test_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        test_world world = {.seed = seed};
        test_heap heap = {0};
        pmi_env env = test_env(&heap);
        model m;
        pmi_map map;
        memset(&m, 0, sizeof m);
        pmi_map_init(&map, &env, test_world_u64(&world), seed);
        for (int round = 0; round < 20; round++) {
            /* Tides: mostly puts, then mostly removals, of few or many. */
            size_t keys = round % 3 ? MODEL_KEYS : 40;
            size_t tide = 1 + test_world_below(&world, 9);
            for (int i = 0; i < 2000; i++)
                model_step(&m, &map, test_world_below(&world, keys),
                           test_world_below(&world, 10) < tide);
            model_check(&m, &map);
            model_walk(&m, &map, &world);
            model_check(&m, &map);
        }
        pmi_map_fini(&map);
        assert_heap_empty(&heap);
    }
}

/* ---- Failing allocations ----------------------------------------------- */
/* A put that fails changes nothing; all else goes on working. */
static void test_failures(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_map map;
        char key[16], in[80] = {0};
        uint32_t count = 0;
        pmi_map_init(&map, &env, 11, 12);
        for (int i = 0; i < 80; i++) {
            void *old = &map;
            pm_slice k = {key, pmi_format(key, sizeof key, "k%d", i)};
            pm_err err = pmi_map_put(&map, k, val((uint64_t)i), &old);
            assert_true(err == PM_OK || err == PM_ENOMEM);
            assert_ptr_equal(old, err ? (void *)&map : NULL);
            in[i] = !err;
            count += !err;
            if (i % 5 == 0 && in[i / 2]) {
                k.len = pmi_format(key, sizeof key, "k%d", i / 2);
                assert_ptr_equal(pmi_map_remove(&map, k), val((uint64_t)i / 2));
                in[i / 2] = 0;
                count--;
            }
            assert_int_equal(pmi_map_count(&map), count);
        }
        if (!heap.failed)
            assert_int_equal(count, 64);
        for (int i = 0; i < 80; i++) {
            pm_slice k = {key, pmi_format(key, sizeof key, "k%d", i)};
            assert_int_equal(pmi_map_get(&map, k) != NULL, in[i]);
        }
        check_map(&map);
        pmi_map_fini(&map);
    }
}

/* Also when the arrays that could become smaller can not. */
static void test_shrink_failures(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_map map;
        uint64_t got = 0;
        pmi_map_init(&map, &env, 11, 12);
        for (uint64_t i = 0; i < 5000; i++)
            got += pmi_map_put_num(&map, i, val(i), NULL) == PM_OK;
        for (uint64_t i = 0; i < 5000; i++)
            if (i != 4321)
                got -= pmi_map_remove_num(&map, i) != NULL;
        assert_int_equal(pmi_map_count(&map), got);
        check_map(&map);
        pmi_map_fini(&map);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_hash),        cmocka_unit_test(test_bytes_keys),
    cmocka_unit_test(test_number_keys), cmocka_unit_test(test_order),
    cmocka_unit_test(test_walk_remove), cmocka_unit_test(test_walk_add),
    cmocka_unit_test(test_walk_nested), cmocka_unit_test(test_walk_fini),
    cmocka_unit_test(test_many),        cmocka_unit_test(test_collisions),
    cmocka_unit_test(test_steady),      cmocka_unit_test(test_after_peak),
    cmocka_unit_test(test_squeeze),     cmocka_unit_test(test_model),
    cmocka_unit_test(test_failures),    cmocka_unit_test(test_shrink_failures),
};
TEST_MAIN(tests)
