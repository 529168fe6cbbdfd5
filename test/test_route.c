/* SPDX-License-Identifier: MIT */
/* test_route.c -- choosing a server: Pomelo's own answers, what a change of
 * the table moves, who is down, failing allocations. */
#include "vectors.h"

#include "core/crypto.h"
#include "pomelo_route_internal.h"

#define SERVERS_MAX 64

typedef struct table {
    char id[SERVERS_MAX][32];
    uint32_t weight[SERVERS_MAX];
    uint32_t in_flight[SERVERS_MAX];
    pmi_route_list list;
} table;

static const char *table_id(const void *of, size_t index)
{
    return ((const table *)of)->id[index];
}

static uint32_t table_weight(const void *of, size_t index)
{
    return ((const table *)of)->weight[index];
}

static uint32_t table_in_flight(const void *of, size_t index)
{
    return ((const table *)of)->in_flight[index];
}

/* area-1 .. area-n, all up, all of weight 1. */
static void table_init(table *t, size_t n)
{
    memset(t, 0, sizeof *t);
    assert_true(n <= SERVERS_MAX);
    for (size_t i = 0; i < n; i++) {
        snprintf(t->id[i], sizeof t->id[i], "area-%zu", i + 1);
        t->weight[i] = 1;
    }
    t->list =
        (pmi_route_list){t, n, 1, table_id, table_weight, table_in_flight};
}

static void table_remove(table *t, size_t index)
{
    for (size_t i = index; i + 1 < t->list.count; i++) {
        memcpy(t->id[i], t->id[i + 1], sizeof t->id[i]);
        t->weight[i] = t->weight[i + 1];
        t->in_flight[i] = t->in_flight[i + 1];
    }
    t->list.count--;
    t->list.version++;
}

static const char *pick(pmi_route *route, pmi_route_way way, const table *t,
                        const char *key)
{
    size_t index = SIZE_MAX;
    assert_ok(pmi_route_pick(route, way, &t->list, pm_text(key), &index));
    assert_true(index < t->list.count);
    return t->id[index];
}

/* ---- Pomelo's answers -------------------------------------------------- */
/* A uid as String(uid) gives it. */
static void uid_text(const cJSON *uid, char *out, size_t size)
{
    if (cJSON_IsString(uid))
        snprintf(out, size, "%s", uid->valuestring);
    else
        snprintf(out, size, "%g", uid->valuedouble);
}

static void play_def(const cJSON *vector)
{
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    char uid[64];
    table_init(&t, (size_t)vectors_number(vector, "servers"));
    pmi_route_init(&route, &env);
    uid_text(pmi_json_get(vector, "uid"), uid, sizeof uid);
    assert_string_equal(pick(&route, PMI_ROUTE_DEF, &t, uid),
                        vectors_text(vector, "result"));
    pmi_route_fini(&route);
}

static void play_row(const cJSON *vector, pmi_route_way way)
{
    const cJSON *weights = pmi_json_get(vector, "weights"), *want, *item;
    pmi_env env = vectors_env();
    pmi_route route;
    size_t n = 0, index;
    table t;
    table_init(&t, way == PMI_ROUTE_RR
                       ? (size_t)vectors_number(vector, "servers")
                       : 3);
    pmi_route_init(&route, &env);
    if (cJSON_IsString(weights)) { /* none has a weight */
        memset(t.weight, 0, sizeof t.weight);
        assert_err(pmi_route_pick(&route, way, &t.list, pm_text(""), &index),
                   PM_ENOSERVER);
        return;
    }
    cJSON_ArrayForEach(item, weights)
    {
        t.weight[n++] = (uint32_t)item->valuedouble;
    }
    t.list.count = n ? n : t.list.count;
    cJSON_ArrayForEach(want, vectors_list(vector, "result"))
    {
        assert_string_equal(pick(&route, way, &t, ""), want->valuestring);
    }
    pmi_route_fini(&route);
}

static void play_keys(pmi_route *route, const table *t, const cJSON *result)
{
    const cJSON *want;
    assert_true(cJSON_GetArraySize(result) > 0);
    cJSON_ArrayForEach(want, result)
    {
        assert_string_equal(pick(route, PMI_ROUTE_CH, t, want->string),
                            want->valuestring);
    }
}

/* True when the vector is one that we play: some record Pomelo's faults. */
static bool play_ch(const cJSON *vector)
{
    const cJSON *result = pmi_json_get(vector, "result");
    const cJSON *before = pmi_json_get(result, "before");
    double servers = vectors_number(vector, "servers");
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    if (!before && servers == 0)
        return false;
    table_init(&t, before ? 3 : (size_t)servers);
    pmi_route_init(&route, &env);
    play_keys(&route, &t, before ? before : result);
    if (before) {
        table_remove(&t, 1);
        play_keys(&route, &t, pmi_json_get(result, "after"));
    }
    pmi_route_fini(&route);
    return true;
}

static void test_pomelo(void **state)
{
    cJSON *file = vectors_load("rpc-route.json");
    const cJSON *vector;
    size_t played = 0;
    (void)state;
    cJSON_ArrayForEach(vector, vectors_list(file, "vectors"))
    {
        const char *algo = vectors_text(vector, "algo");
        if (!strcmp(algo, "la") || (!strcmp(algo, "ch") && !play_ch(vector)))
            continue; /* ours departs: see the tests below */
        if (!strcmp(algo, "def"))
            play_def(vector);
        else if (!strcmp(algo, "rr"))
            play_row(vector, PMI_ROUTE_RR);
        else if (!strcmp(algo, "wrr"))
            play_row(vector, PMI_ROUTE_WRR);
        else
            assert_string_equal(algo, "ch");
        played++;
    }
    assert_true(played >= 36);
    cJSON_Delete(file);
}

static void test_dispatch(void **state)
{
    cJSON *file = vectors_load("dispatch.json");
    const cJSON *vector, *index;
    size_t played = 0;
    (void)state;
    cJSON_ArrayForEach(vector, vectors_list(file, "vectors"))
    {
        cJSON *uid;
        if (!vectors_plain(pmi_json_get(vector, "uid"), false, &uid) ||
            !cJSON_IsString(uid)) {
            cJSON_Delete(uid);
            continue;
        }
        played++;
        assert_int_equal(pmi_route_crc(uid->valuestring),
                         (int32_t)vectors_number(vector, "crc32"));
        cJSON_ArrayForEach(index, pmi_json_get(vector, "index"))
        {
            size_t n = (size_t)strtoul(index->string, NULL, 10);
            assert_int_equal(pm_dispatch(uid->valuestring, n),
                             (size_t)index->valuedouble);
        }
        cJSON_Delete(uid);
    }
    assert_true(played > 50);
    assert_int_equal(pm_dispatch("a", 0), 0);
    cJSON_Delete(file);
}

/* ---- Tables that change ------------------------------------------------ */
/* A server goes: `ch` and `rendezvous` move its keys and no others, and those
 * go to everybody who is left; it comes again: all are back. */
static void check_moves(pmi_route_way way)
{
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    char key[24];
    size_t before[3000], moved[10] = {0}, index = 0;
    table_init(&t, 10);
    pmi_route_init(&route, &env);
    for (size_t i = 0; i < PMI_COUNT(before); i++) {
        snprintf(key, sizeof key, "k%zu", i);
        assert_ok(
            pmi_route_pick(&route, way, &t.list, pm_text(key), &before[i]));
        moved[before[i]]++;
    }
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(moved[i], 150, 600);
        moved[i] = 0;
    }
    table_remove(&t, 4);
    for (size_t i = 0; i < PMI_COUNT(before); i++) {
        snprintf(key, sizeof key, "k%zu", i);
        assert_ok(pmi_route_pick(&route, way, &t.list, pm_text(key), &index));
        index += index >= 4; /* its place before */
        if (before[i] == 4)
            moved[index]++;
        else
            assert_int_equal(index, before[i]);
    }
    for (size_t i = 0; i < 10; i++)
        assert_true(i == 4 ? moved[i] == 0 : moved[i] > 0);
    pmi_route_fini(&route);
}

static void test_moves(void **state)
{
    (void)state;
    check_moves(PMI_ROUTE_CH);
    check_moves(PMI_ROUTE_RENDEZVOUS);
}

/* Processes may know the table in another order, and must still agree. */
static void test_order(void **state)
{
    const pmi_route_way ways[] = {PMI_ROUTE_CH, PMI_ROUTE_RENDEZVOUS};
    pmi_env env = vectors_env();
    table t, other;
    char key[24];
    (void)state;
    table_init(&t, 7);
    table_init(&other, 7);
    for (size_t i = 0; i < 7; i++)
        memcpy(other.id[i], t.id[6 - i], sizeof t.id[i]);
    for (size_t w = 0; w < PMI_COUNT(ways); w++) {
        pmi_route a, b;
        pmi_route_init(&a, &env);
        pmi_route_init(&b, &env);
        for (int i = 0; i < 500; i++) {
            snprintf(key, sizeof key, "user-%d", i);
            assert_string_equal(pick(&a, ways[w], &t, key),
                                pick(&b, ways[w], &other, key));
        }
        pmi_route_fini(&a);
        pmi_route_fini(&b);
    }
}

/* A key below the first point of the ring belongs to the last one. */
static void test_ring_is_closed(void **state)
{
    uint8_t first[16], last[16] = {0}, hash[16];
    const char *owner = "";
    pmi_env env = vectors_env();
    pmi_route route;
    char text[48];
    int wrapped = 0;
    table t;
    (void)state;
    memset(first, 0xff, sizeof first);
    table_init(&t, 3);
    for (size_t i = 0; i < 300; i++) {
        int len = snprintf(text, sizeof text, "%s:%zu", t.id[i % 3], i / 3);
        pmi_md5(text, (size_t)len, hash);
        if (memcmp(hash, first, 16) < 0)
            memcpy(first, hash, 16);
        if (memcmp(hash, last, 16) > 0) {
            memcpy(last, hash, 16);
            owner = t.id[i % 3];
        }
    }
    pmi_route_init(&route, &env);
    for (int i = 0; i < 5000; i++) {
        int len = snprintf(text, sizeof text, "user-%d", i);
        pmi_md5(text, (size_t)len, hash);
        if (memcmp(hash, first, 16) >= 0 && memcmp(hash, last, 16) < 0)
            continue;
        wrapped += memcmp(hash, first, 16) < 0;
        assert_string_equal(pick(&route, PMI_ROUTE_CH, &t, text), owner);
    }
    assert_true(wrapped > 0);
    pmi_route_fini(&route);
}

/* These are a contract between versions: two that differ would not find each
 * other's players. */
static void test_rendezvous_is_fixed(void **state)
{
    static const char *const want[][2] = {{"", "area-3"},
                                          {"a", "area-1"},
                                          {"10001", "area-5"},
                                          {"user-1", "area-1"},
                                          {"\xe4\xb8\xad", "area-1"}};
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    (void)state;
    table_init(&t, 5);
    pmi_route_init(&route, &env);
    for (size_t i = 0; i < PMI_COUNT(want); i++)
        assert_string_equal(pick(&route, PMI_ROUTE_RENDEZVOUS, &t, want[i][0]),
                            want[i][1]);
    pmi_route_fini(&route);
}

/* What they remember of a longer table, or of heavier weights, must not lead
 * astray. */
static void test_shrinking(void **state)
{
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    size_t seen[3] = {0}, index;
    (void)state;
    table_init(&t, 5);
    t.weight[4] = UINT32_MAX;
    pmi_route_init(&route, &env);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(pick(&route, PMI_ROUTE_WRR, &t, ""), "area-5");
        pick(&route, PMI_ROUTE_RR, &t, "");
    }
    table_remove(&t, 4);
    table_remove(&t, 3);
    assert_string_equal(pick(&route, PMI_ROUTE_RR, &t, ""), "area-2");
    for (int i = 0; i < 6; i++) {
        assert_ok(pmi_route_pick(&route, PMI_ROUTE_WRR, &t.list, pm_text(""),
                                 &index));
        seen[index]++;
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(seen[i], 2);
    t.list.count = 0;
    for (int way = PMI_ROUTE_DEF; way <= PMI_ROUTE_RENDEZVOUS; way++)
        assert_err(pmi_route_pick(&route, (pmi_route_way)way, &t.list,
                                  pm_text(""), &index),
                   PM_ENOSERVER);
    pmi_route_fini(&route);
}

/* ---- Load and who is down ---------------------------------------------- */
static void test_la(void **state)
{
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    (void)state;
    table_init(&t, 3);
    pmi_route_init(&route, &env);
    assert_string_equal(pick(&route, PMI_ROUTE_LA, &t, ""), "area-1");
    t.in_flight[0] = 2;
    t.in_flight[1] = 1;
    t.in_flight[2] = 1;
    assert_string_equal(pick(&route, PMI_ROUTE_LA, &t, ""), "area-2");
    t.in_flight[0] = 0; /* unlike Pomelo's, it comes down again */
    assert_string_equal(pick(&route, PMI_ROUTE_LA, &t, ""), "area-1");
    t.in_flight[0] = UINT32_MAX; /* down: nothing in flight, yet not chosen */
    assert_string_equal(pick(&route, PMI_ROUTE_LA, &t, ""), "area-2");
    pmi_route_fini(&route);
}

static void test_down(void **state)
{
    pmi_env env = vectors_env();
    pmi_route route;
    table t;
    const char *stays;
    (void)state;
    table_init(&t, 3);
    t.weight[1] = 9;
    t.in_flight[1] = UINT32_MAX;
    pmi_route_init(&route, &env);
    for (int i = 0; i < 6; i++) {
        const char *turn = i % 2 ? "area-3" : "area-1";
        assert_string_equal(pick(&route, PMI_ROUTE_RR, &t, ""), turn);
        assert_string_equal(pick(&route, PMI_ROUTE_WRR, &t, ""), turn);
    }
    /* A key stays where its state is. */
    for (int way = PMI_ROUTE_DEF; way <= PMI_ROUTE_RENDEZVOUS; way++) {
        if (way > PMI_ROUTE_DEF && way < PMI_ROUTE_CH)
            continue;
        stays = pick(&route, (pmi_route_way)way, &t, "somebody");
        memset(t.in_flight, 0, sizeof t.in_flight);
        assert_string_equal(pick(&route, (pmi_route_way)way, &t, "somebody"),
                            stays);
    }
    /* All down: as if all were up; the caller hears of it. */
    for (int i = 0; i < 3; i++)
        t.in_flight[i] = UINT32_MAX;
    assert_string_equal(pick(&route, PMI_ROUTE_LA, &t, ""), "area-1");
    assert_string_equal(pick(&route, PMI_ROUTE_WRR, &t, ""), "area-2");
    stays = pick(&route, PMI_ROUTE_RR, &t, "");
    assert_string_not_equal(pick(&route, PMI_ROUTE_RR, &t, ""), stays);
    pmi_route_fini(&route);
}

/* ---- Names, memory ----------------------------------------------------- */
static void test_names(void **state)
{
    pmi_route_way way = PMI_ROUTE_DEF;
    (void)state;
    assert_true(pmi_route_way_of("rendezvous", &way));
    assert_int_equal(way, PMI_ROUTE_RENDEZVOUS);
    assert_true(pmi_route_way_of("ch", &way));
    assert_int_equal(way, PMI_ROUTE_CH);
    assert_true(pmi_route_way_of("wrr", &way));
    assert_int_equal(way, PMI_ROUTE_WRR);
    assert_false(pmi_route_way_of("random", &way));
    assert_false(pmi_route_way_of("", &way));
    assert_int_equal(way, PMI_ROUTE_WRR);
}

static void test_memory(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_route route;
        size_t index;
        table t;
        table_init(&t, 5);
        pmi_route_init(&route, &env);
        for (int round = 0; round < 3; round++) {
            pm_err ch = pmi_route_pick(&route, PMI_ROUTE_CH, &t.list,
                                       pm_text("user-2"), &index);
            if (ch == PM_OK && t.list.count > 2)
                assert_string_equal(t.id[index], "area-2");
            assert_true(ch == PM_OK || (ch == PM_ENOMEM && heap.failed));
            ch = pmi_route_pick(&route, PMI_ROUTE_RENDEZVOUS, &t.list,
                                pm_text("user-2"), &index);
            assert_true(ch == PM_OK || (ch == PM_ENOMEM && heap.failed));
            table_remove(&t, t.list.count - 1);
        }
        pmi_route_fini(&route);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_pomelo),
    cmocka_unit_test(test_dispatch),
    cmocka_unit_test(test_moves),
    cmocka_unit_test(test_order),
    cmocka_unit_test(test_ring_is_closed),
    cmocka_unit_test(test_rendezvous_is_fixed),
    cmocka_unit_test(test_shrinking),
    cmocka_unit_test(test_la),
    cmocka_unit_test(test_down),
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_memory),
};

TEST_MAIN(tests)
