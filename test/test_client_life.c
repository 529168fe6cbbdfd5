/* SPDX-License-Identifier: MIT */
/* test/test_client_life.c -- pm_client's life: coming back, being freed in every
 * place, failing allocations, and the usual story on sockets. */
#include "test.h"

#include "client_bench.h"

#include <time.h>

/* ---- Reconnecting ------------------------------------------------------ */
static uint64_t next_try_ms(fake *f, int accepted)
{
    uint64_t from = f->world.now_us;
    while (f->accepted == accepted)
        run_ms(f, 1);
    return (f->world.now_us - from) / 1000;
}

static void test_reconnect(void **state)
{
    static const uint64_t most[] = {200,  400,   800,   1600,  3200,
                                    6400, 10000, 10000, 10000, 10000};
    fake f = {.sys = {0}};
    uint64_t all[PMI_COUNT(most)] = {0};
    bool differs = false;
    (void)state;
    fake_start(&f, true);
    for (int seed = 0; seed < 3; seed++) {
        f.refuse = true;
        fake_cut(&f);
        run_ms(&f, 1);
        assert_false(pm_client_is_connected(f.client));
        for (size_t i = 0; i < PMI_COUNT(most); i++) {
            uint64_t ms = next_try_ms(&f, f.accepted);
            assert_in_range(ms, most[i] / 2 - 2, most[i] + 2);
            differs = differs || (seed && all[i] != ms);
            all[i] = ms;
            run_ms(&f, 1); /* let the refusal arrive */
        }
        f.refuse = false;
        f.diary[0] = 0;
        run_ms(&f, 10100);
        assert_diary(&f, "connected -;"); /* and the pauses start anew */
    }
    assert_true(differs);
    fake_end(&f);
}

/* Nobody listens: each try fails and is told. */
static void test_no_door(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_start(&f, true);
    pmi_listener_close(f.listener);
    f.listener = NULL;
    fake_cut(&f);
    run_ms(&f, 60000);
    assert_in_range(f.ends, 10, 20);
    assert_int_equal(f.reason, PM_CLOSE_CONNECT);
    pm_client_disconnect(f.client);
    f.diary[0] = 0;
    run_ms(&f, 60000);
    assert_diary(&f, "");
    fake_end(&f);
}

static void test_disconnect_stops(void **state)
{
    (void)state;
    for (where here = IN_CONNECTED; here <= IN_RESPONSE; here++) {
        fake f = {.end_in = here, .only_disconnect = true, .answers = true};
        fake_open(&f);
        pm_client_opts opts = fake_opts(&f);
        opts.reconnect = true;
        assert_ok(pm_client_new(&f.client, &opts));
        run_ms(&f, 1);
        if (pm_client_is_connected(f.client)) {
            ask(&f, "a.b.c", "{}");
            run_ms(&f, 1);
            fake_push(&f, "p", "{}");
            run_ms(&f, 1);
            fake_send(&f, PMI_PACKAGE_KICK, "", 0);
        }
        run_ms(&f, 60000);
        assert_int_equal(f.ends, 1);
        assert_int_equal(f.accepted, 1);
        fake_end(&f);
    }
}

/* ---- Freeing ----------------------------------------------------------- */
static void test_free_everywhere(void **state)
{
    (void)state;
    for (where here = IN_CONNECTED; here <= IN_RESPONSE; here++) {
        for (int how = 0; how < 2; how++) { /* a response, or its failure */
            fake f = {.end_in = here, .answers = how == 0, .again = how == 1};
            fake_open(&f);
            pm_client_opts opts = fake_opts(&f);
            opts.reconnect = true;
            assert_ok(pm_client_new(&f.client, &opts));
            run_ms(&f, 1);
            for (int i = 0; i < 3 && f.client; i++)
                ask(&f, "a.b.c", "{}");
            run_ms(&f, 1);
            fake_push(&f, "p", "{}");
            fake_push(&f, "p", "{}");
            fake_send(&f, PMI_PACKAGE_KICK, "", 0);
            run_ms(&f, 60000);
            assert_null(f.client);
            const char *end = strstr(f.diary, "free(");
            assert_non_null(end);
            end = strchr(end, ')');
            assert_string_equal(end, ")"); /* nothing behind it */
            fake_end(&f);
        }
    }
}

/* Requests that are there when it is freed, from outside and from within. */
static void test_free_completes(void **state)
{
    fake f = {.again = true};
    (void)state;
    fake_start(&f, true);
    ask(&f, "a.b.c", "{}");
    ask(&f, "a.b.c", "{}");
    pm_client_free(f.client);
    assert_diary(&f,
                 "PM_ECLOSED ;again PM_ESTATE;PM_ECLOSED ;again PM_ESTATE;");
    f.client = NULL;
    run_ms(&f, 60000);
    assert_diary(&f, "");
    assert_heard(&f, "req 1 a.b.c {};req 2 a.b.c {};closed;");
    fake_end(&f);

    fake g = {.end_in = IN_RESPONSE};
    fake_start(&g, true);
    for (int i = 0; i < 3; i++)
        ask(&g, "a.b.c", "{}");
    run_ms(&g, 30000);
    assert_diary(&g, "PM_ETIMEOUT ;free(PM_ECLOSED ;PM_ECLOSED ;)");
    fake_end(&g);
}

/* Before anything has happened at all. */
static void test_free_early(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_open(&f);
    pm_client_opts opts = fake_opts(&f);
    assert_ok(pm_client_new(&f.client, &opts));
    pm_client_free(f.client);
    assert_ok(pm_client_new(&f.client, &opts));
    pm_client_disconnect(f.client);
    pm_client_disconnect(f.client);
    run_ms(&f, 1000);
    assert_diary(&f, "disconnected 1 0;");
    pm_client_disconnect(f.client);
    run_ms(&f, 1000);
    assert_diary(&f, "");
    fake_end(&f);
}

/* ---- Out of memory ----------------------------------------------------- */
/* Requests that are accepted complete once, whatever fails. */
typedef struct tally {
    int asked, done;
} tally;

static void on_tally(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    (void)client;
    (void)err;
    (void)body;
    ((tally *)ctx)->done++;
}

static void oom_story(fake *f, tally *t)
{
    uint8_t answer[] = {0x08, 0xc8, 0x01};
    uint8_t push[] = {0x0a, 2, 'h', 'i', 0x12, 2, 0x08, 0x03};
    pm_client_opts opts = fake_opts(f);
    opts.reconnect = true;
    opts.connect_ms = 2000;
    if (pm_client_new(&f->client, &opts) != PM_OK) {
        assert_null(f->client);
        return;
    }
    for (int round = 0; round < 2; round++) {
        run_ms(f, 3000);
        for (uint32_t i = 1; i <= 3; i++)
            t->asked += pm_client_request(
                            f->client, "chat.chatHandler.send",
                            pm_body_text("{\"text\":\"ab\",\"to\":[1,-1]}"),
                            on_tally, t) == PM_OK;
        run_ms(f, 1);
        fake_message(f, PMI_MESSAGE_RESPONSE, 1, "", 0,
                     pm_bytes(answer, sizeof answer));
        fake_message(f, PMI_MESSAGE_PUSH, 0, "", 2,
                     pm_bytes(push, sizeof push));
        run_ms(f, 1);
        fake_send(f, PMI_PACKAGE_KICK, "{\"reason\":\"r\"}", 14);
    }
    run_ms(f, 1);
    pm_client_free(f->client);
    assert_int_equal(t->asked, t->done);
}

static void test_no_memory(void **state)
{
    test_heap heap = {0};
    (void)state;
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        fake f = {.beats = true};
        tally t = {0};
        knowledge k;
        pm_loop_opts opts = test_world_opts(&f.world, &heap);
        size_t at = heap.fail_at;
        bool after = heap.fail_after;
        heap.fail_at = 0; /* the scene is set without failures */
        know(&k, &f);
        f.sys.heartbeat_s = 1;
        f.world.now_us = 1000000;
        assert_ok(pm_loop_new(&f.loop, &opts));
        assert_ok(fake_listen(&f));
        heap.calls = 0;
        heap.fail_at = at;
        heap.fail_after = after;
        oom_story(&f, &t);
        if (!heap.failed) {
            assert_int_equal(t.done, 6);
            assert_int_equal(f.ends, 2);
            assert_non_null(strstr(f.diary, "kicked r;"));
            assert_non_null(strstr(f.diary, "push onChat"));
        }
        heap.fail_at = 0;
        pmi_conn_free(f.conn);
        pmi_listener_close(f.listener);
        assert_ok(pm_loop_free(f.loop));
        forget(&k);
        heap.fail_at = at;
    }
    test_cjson_use(NULL);
}

/* ---- On sockets -------------------------------------------------------- */
static uint64_t wall_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

#define UNTIL(f, condition)                                                    \
    do {                                                                       \
        uint64_t end_ = wall_us() + 20 * 1000 * 1000;                          \
        while (!(condition)) {                                                 \
            pm_loop_poll((f)->loop, 0);                                        \
            if (wall_us() > end_)                                              \
                fail_msg("in vain: %s", #condition);                           \
        }                                                                      \
    } while (0)

/* Two pushes and a half in one write: as one WebSocket message it ends there.
 */
static void send_together(fake *f)
{
    static const char bytes[] = "\4\0\0\6\6\1a{1}"
                                "\4\0\0\6\6\1b{2}"
                                "\4\0\0\6\6\1";
    fake_raw(f, bytes, sizeof bytes - 1);
}

static void test_transports(void **state)
{
    enum { LARGE = PMI_PACKAGE_BODY_MAX - 2 };
    char *large = calloc(1, LARGE);
    (void)state;
    memset(large, '1', LARGE);
    for (pm_transport via = PM_TRANSPORT_TCP; via <= PM_TRANSPORT_MEMORY;
         via = (pm_transport)(via + 1)) {
        fake f = {.answers = true, .sys = {.heartbeat_s = 0.02}, .beats = true};
        pm_loop_opts loop_opts = pm_loop_opts_default();
        loop_opts.alloc = test_alloc(&f.heap);
        assert_ok(pm_loop_new(&f.loop, &loop_opts));
        assert_ok(fake_listen(&f));
        pm_client_opts opts = fake_opts(&f);
        opts.transport = via;
        opts.reconnect = true;
        assert_ok(pm_client_new(&f.client, &opts));
        UNTIL(&f, pm_client_is_connected(f.client));
        assert_int_equal(pmi_conn_is_memory(f.conn),
                         via == PM_TRANSPORT_MEMORY);
        assert_int_equal(pmi_conn_framing(f.conn) == PMI_FRAMING_WS,
                         via == PM_TRANSPORT_WS);
        UNTIL(&f, strstr(f.heard, "beat;beat;"));
        f.sys.heartbeat_s = 0; /* what follows is slow with sanitizers */
        fake_cut(&f);
        UNTIL(&f, f.ends == 1 && pm_client_is_connected(f.client));
        f.diary[0] = 0;
        ask(&f, "a.b.c", "{\"n\":1}");
        UNTIL(&f, f.diary[0]);
        assert_diary(&f, "PM_OK {\"n\":1};");
        fake_message(&f, PMI_MESSAGE_RESPONSE, 99, "", 0,
                     pm_bytes(large, LARGE)); /* the largest there is */
        fake_message(&f, PMI_MESSAGE_PUSH, 0, "", 0,
                     pm_bytes(large, 1000 * 1000));
        fake_message(&f, PMI_MESSAGE_PUSH, 0, "big", 0,
                     pm_bytes(large, 1000 * 1000));
        UNTIL(&f, f.diary[0]);
        assert_int_equal(f.last_len, 1000 * 1000);
        f.diary[0] = 0;
        send_together(&f);
        if (via == PM_TRANSPORT_WS) {
            UNTIL(&f, f.ends == 2);
            assert_non_null(strstr(f.diary, "push b {2};disconnected 9 0;"));
        } else {
            UNTIL(&f, strstr(f.diary, "push b {2};"));
            fake_raw(&f, "c{3}", 4);
            UNTIL(&f, strstr(f.diary, "push c {3};"));
            fake_cut(&f);
            UNTIL(&f, f.ends == 2);
        }
        UNTIL(&f, pm_client_is_connected(f.client)); /* again */
        f.diary[0] = 0;
        pm_client_disconnect(f.client);
        UNTIL(&f, f.ends == 3 && !f.conn);
        assert_diary(&f, "disconnected 1 0;");
        fake_end(&f);
    }
    free(large);
}

/* Whoever looks at this clock sees a microsecond go by. */
static uint64_t impatient_clock_us(void *ctx)
{
    return ++((test_world *)ctx)->now_us;
}

/* More than fits into a turn's time: whole packages first, all in order, and
 * each turn does something. */
static void test_budget(void **state)
{
    enum { MANY = 500 };
    fake f = {.sys = {0}};
    char want[MANY * 12] = "", body[12];
    int turns = 0;
    (void)state;
    pm_loop_opts loop_opts = test_world_opts(&f.world, &f.heap);
    loop_opts.clock_us = impatient_clock_us;
    assert_ok(pm_loop_new(&f.loop, &loop_opts));
    assert_ok(fake_listen(&f));
    pm_client_opts opts = fake_opts(&f);
    assert_ok(pm_client_new(&f.client, &opts));
    UNTIL(&f, pm_client_is_connected(f.client));
    f.diary[0] = 0;
    for (int i = 0; i < MANY; i++) {
        snprintf(body, sizeof body, "%d", i);
        NOTE(want, "push p %s;", body);
        fake_push(&f, "p", body);
    }
    for (; strlen(f.diary) < strlen(want) && turns < 20 * MANY; turns++)
        pm_loop_poll(f.loop, 1);
    assert_string_equal(f.diary, want);
    assert_in_range(turns, MANY, 10 * MANY);
    fake_end(&f);
}

/* The port is shut. */
static void test_unreachable(void **state)
{
    (void)state;
    for (pm_transport via = PM_TRANSPORT_TCP; via <= PM_TRANSPORT_MEMORY;
         via = (pm_transport)(via + 1)) {
        fake f = {.sys = {0}};
        assert_ok(pm_loop_new(&f.loop, NULL));
        assert_ok(fake_listen(&f));
        pm_client_opts opts = fake_opts(&f);
        pmi_listener_close(f.listener);
        f.listener = NULL;
        opts.transport = via;
        assert_ok(pm_client_new(&f.client, &opts));
        UNTIL(&f, f.ends);
        assert_int_equal(f.reason, PM_CLOSE_CONNECT);
        fake_end(&f);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_reconnect),
    cmocka_unit_test(test_no_door),
    cmocka_unit_test(test_disconnect_stops),
    cmocka_unit_test(test_free_everywhere),
    cmocka_unit_test(test_free_completes),
    cmocka_unit_test(test_free_early),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_transports),
    cmocka_unit_test(test_budget),
    cmocka_unit_test(test_unreachable),
};

TEST_MAIN(tests)
