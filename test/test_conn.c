/* SPDX-License-Identifier: MIT */
/* test/test_conn.c -- one suite for five transports: TCP, WebSocket, memory,
 * and the first two through TLS.
 * What is particular to one of them is in test_conn_wire.c. */
#include "test.h"

#include "conn_bench.h"

#define EACH_VIA(via)                                                          \
    for (bench_via via = VIA_TCP; via <= VIA_WSS; via = (bench_via)(via + 1))

static void say(bench_end *end, const char *text)
{
    assert_ok(bench_send(end->conn, text, strlen(text), 0));
}

static bool got_is(const bench_end *end, const char *text)
{
    return end->got_len == strlen(text) &&
           !memcmp(end->got, text, end->got_len);
}

static void test_echo(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        b.server.echo = true;
        assert_int_equal(b.client.opens, 0); /* not from inside */
        say(&b.client, "before open ");
        BENCH_UNTIL(&b, b.client.opens);
        say(&b.client, "one ");
        say(&b.client, "");
        say(&b.client, "two");
        BENCH_UNTIL(&b, b.client.messages == 4);
        assert_true(got_is(&b.client, "before open one two"));
        assert_int_equal(b.client.opens, 1);
        assert_int_equal(b.server.opens, 1);
        assert_int_equal(pmi_conn_is_memory(b.client.conn), via == VIA_MEMORY);
        assert_int_equal(pmi_conn_peer(b.server.conn)->len > 0,
                         via != VIA_MEMORY);
        pmi_conn_close(b.client.conn, PM_CLOSE_SERVER, false, 0);
        pmi_conn_close(b.client.conn, PM_CLOSE_KICK, false, 0);
        assert_true(pmi_conn_is_closing(b.client.conn));
        assert_err(pmi_conn_send(b.client.conn, NULL, 0, 0), PM_ECLOSED);
        assert_int_equal(b.client.closes, 0); /* on a later turn */
        BENCH_UNTIL(&b, b.client.closes && b.server.closes);
        bench_turns(&b, 5);
        assert_int_equal(b.client.closes, 1);
        assert_int_equal(b.client.reason, PM_CLOSE_SERVER);
        assert_int_equal(b.server.closes, 1);
        assert_int_equal(b.server.reason, PM_CLOSE_CLIENT);
        assert_int_equal(b.client.after_close + b.server.after_close, 0);
        bench_end_all(&b);
    }
}

static uint8_t *pattern(size_t len, uint32_t seed)
{
    uint8_t *p = malloc(len);
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (uint8_t)(seed >> 24);
    }
    return p;
}

/* Larger than buffers, windows and the read buffer; with a tiny send buffer
 * the system takes it in many small bites. */
static void test_big(void **state)
{
    enum { BIG = 700 * 1024 + 17 };
    uint8_t *p = pattern(BIG, 7);
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        limits.send_buffer = 4096;
        bench_start(&b, via, &limits, &limits);
        b.server.echo = true;
        BENCH_UNTIL(&b, b.client.opens);
        assert_ok(bench_send(b.client.conn, p, BIG, 0));
        assert_ok(bench_send(b.client.conn, "x", 1, 0));
        BENCH_UNTIL(&b, b.client.messages == 2);
        assert_int_equal(b.client.got_len, BIG + 1);
        assert_memory_equal(b.client.got, p, BIG);
        assert_int_equal(b.client.got[BIG], 'x');
        BENCH_UNTIL(&b, b.client.drains == 1 && b.server.drains == 1);
        assert_int_equal(pmi_conn_queued(b.client.conn), 0);
        bench_end_all(&b);
    }
    free(p);
}

static void test_many(void **state)
{
    enum { MANY = 10000 };
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        b.server.echo = true;
        BENCH_UNTIL(&b, b.client.opens);
        for (uint32_t i = 0; i < MANY; i++)
            assert_ok(bench_send(b.client.conn, &i, sizeof i, 0));
        BENCH_UNTIL(&b, b.client.messages == MANY);
        for (uint32_t i = 0; i < MANY; i++)
            assert_memory_equal(b.client.got + i * sizeof i, &i, sizeof i);
        /* Far fewer system calls than messages. */
        assert_in_range(pmi_conn_totals_of(b.loop)->writes, 1, 200);
        bench_end_all(&b);
    }
}

/* The client does not read; what is urgent goes ahead of what waits. */
static void test_urgent(void **state)
{
    enum { LARGE = 50 * 1024 };
    uint8_t *p = pattern(LARGE, 1);
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        limits.send_buffer = 4096;
        bench_start(&b, via, NULL, &limits);
        say(&b.client, "hello");
        BENCH_UNTIL(&b, b.server.messages == 1);
        assert_ok(bench_send(b.server.conn, "1", 1, 0));
        assert_ok(bench_send(b.server.conn, "2", 1, PMI_SEND_URGENT));
        BENCH_UNTIL(&b, b.client.messages == 2);
        pmi_conn_pause(b.client.conn);
        for (int i = 0; i < 20; i++) {
            p[0] = (uint8_t)('a' + i);
            assert_ok(bench_send(b.server.conn, p, LARGE, 0));
        }
        bench_turns(&b, 50);
        assert_true(pmi_conn_queued(b.server.conn) > LARGE);
        assert_ok(bench_send(b.server.conn, "N", 1, 0));
        assert_ok(bench_send(b.server.conn, "U", 1, PMI_SEND_URGENT));
        assert_ok(bench_send(b.server.conn, "V", 1, PMI_SEND_URGENT));
        pmi_conn_resume(b.client.conn);
        BENCH_UNTIL(&b, b.client.messages == 25);
        const char *u = strchr(b.client.log, 'U');
        assert_non_null(u);
        assert_int_equal(u[1], 'V');
        assert_true(u < strchr(b.client.log, 't'));
        assert_int_equal(b.client.log[24], 'N');
        assert_int_equal(strncmp(b.client.log, "12", 2), 0);
        bench_end_all(&b);
    }
    free(p);
}

static void test_out_limit(void **state)
{
    enum { PART = 10000 };
    uint8_t *p = pattern(PART, 3);
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        size_t sent = 0;
        limits.out_max = 100 * 1000;
        limits.send_buffer = 4096;
        bench_start(&b, via, NULL, &limits);
        say(&b.client, "hello");
        BENCH_UNTIL(&b, b.server.messages == 1);
        pmi_conn_pause(b.client.conn);
        for (;;) {
            pm_err err = bench_send(b.server.conn, p, PART, 0);
            if (err != PM_OK) {
                assert_err(err, PM_ELIMIT);
                /* The system's buffers may have room yet. */
                size_t before = pmi_conn_queued(b.server.conn);
                bench_turns(&b, 20);
                if (pmi_conn_queued(b.server.conn) == before)
                    break;
                continue;
            }
            sent++;
            assert_in_range(pmi_conn_queued(b.server.conn), 0, 100 * 1000);
        }
        assert_null(pmi_conn_reserve(b.server.conn, PART));
        pmi_conn_resume(b.client.conn);
        BENCH_UNTIL(&b, b.client.messages == (int)sent);
        bench_turns(&b, 20);
        assert_int_equal(b.client.got_len, sent * PART);
        assert_memory_equal(b.client.got + (sent - 1) * PART, p, PART);
        assert_int_equal(b.server.closes, 0);
        bench_end_all(&b);
    }
    free(p);
}

static void test_in_limit(void **state)
{
    uint8_t *p = pattern(200000, 3);
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        limits.in_max = 1000;
        bench_start(&b, via, NULL, &limits);
        BENCH_UNTIL(&b, b.client.opens);
        assert_ok(bench_send(b.client.conn, p, 900, 0));
        assert_ok(bench_send(b.client.conn, p, 200000, 0));
        BENCH_UNTIL(&b, b.server.closes && b.client.closes);
        assert_int_equal(b.server.messages, 1);
        assert_int_equal(b.server.reason, PM_CLOSE_PACKAGE_SIZE);
        bench_end_all(&b);
    }
    free(p);
}

static void test_pause(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        BENCH_UNTIL(&b, b.client.opens);
        b.server.pause_at = 1;
        say(&b.client, "a");
        say(&b.client, "b");
        say(&b.client, "c");
        BENCH_UNTIL(&b, b.server.messages == 1);
        say(&b.client, "d");
        bench_turns(&b, 20);
        assert_int_equal(b.server.messages, 1);
        pmi_conn_resume(b.server.conn);
        assert_int_equal(b.server.messages, 1); /* not from inside */
        BENCH_UNTIL(&b, b.server.messages == 4);
        assert_string_equal(b.server.log, "abcd");
        bench_end_all(&b);
    }
}

/* Paused and resumed from inside: the rest comes without new bytes. */
static void test_pause_inside(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        BENCH_UNTIL(&b, b.client.opens);
        b.server.pause_at = 1;
        b.server.resumes = true;
        say(&b.client, "a");
        say(&b.client, "b");
        BENCH_UNTIL(&b, b.server.messages == 2);
        bench_end_all(&b);
    }
}

/* An owner that takes one message a call gets the others without new bytes
 * only by asking for it: pause and resume. */
static void test_take_some(void **state)
{
    (void)state;
    bench b = {0};
    bench_start(&b, VIA_TCP, NULL, NULL);
    BENCH_UNTIL(&b, b.client.opens);
    b.server.take = 1;
    say(&b.client, "a");
    say(&b.client, "b");
    BENCH_UNTIL(&b, b.server.messages == 1);
    bench_turns(&b, 5);
    assert_int_equal(b.server.messages, 1);
    pmi_conn_pause(b.server.conn);
    pmi_conn_resume(b.server.conn);
    BENCH_UNTIL(&b, b.server.messages == 2);
    bench_end_all(&b);
}

/* What was sent before a close arrives before it. */
static void test_close_after_send(void **state)
{
    uint8_t *p = pattern(100000, 5);
    (void)state;
    EACH_VIA(via)
    {
        for (int linger = 0; linger < 2; linger++) {
            bench b = {0};
            bench_start(&b, via, NULL, NULL);
            BENCH_UNTIL(&b, b.client.opens);
            b.server.echo = true;
            b.server.close_at = 2;
            b.server.close_linger = linger;
            assert_ok(bench_send(b.client.conn, p, 100000, 0));
            say(&b.client, "bye");
            BENCH_UNTIL(&b, b.client.closes && b.server.closes);
            assert_int_equal(b.client.messages, 2);
            assert_memory_equal(b.client.got, p, 100000);
            assert_int_equal(b.client.reason, PM_CLOSE_CLIENT);
            assert_int_equal(b.server.reason, PM_CLOSE_KICK);
            assert_int_equal(b.server.messages, 2);
            assert_int_equal(b.client.after_close + b.server.after_close, 0);
            bench_end_all(&b);
        }
    }
    free(p);
}

static void test_linger_writes_all(void **state)
{
    enum { BIG = 900 * 1024 };
    uint8_t *p = pattern(BIG, 6);
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        limits.send_buffer = 4096;
        bench_start(&b, via, NULL, &limits);
        say(&b.client, "hello");
        BENCH_UNTIL(&b, b.server.messages == 1);
        assert_ok(bench_send(b.server.conn, p, BIG, 0));
        pmi_conn_close(b.server.conn, PM_CLOSE_STOP, true, 1001);
        assert_err(bench_send(b.server.conn, p, 1, 0), PM_ECLOSED);
        BENCH_UNTIL(&b, b.client.closes && b.server.closes);
        assert_int_equal(b.client.got_len, BIG);
        assert_memory_equal(b.client.got, p, BIG);
        assert_int_equal(b.server.reason, PM_CLOSE_STOP);
        assert_int_equal(b.server.closes, 1);
        bench_end_all(&b);
    }
    free(p);
}

static void free_case(bench_via via, bool server, bench_free where)
{
    static const uint8_t large[100000];
    bench b = {0};
    bench_end *one = server ? &b.server : &b.client;
    bench_end *other = server ? &b.client : &b.server;
    bench_start(&b, via, NULL, NULL);
    one->free_in = where;
    b.server.echo = where == FREE_MESSAGE && !server;
    say(&b.client, "a");
    say(&b.client, "b");
    if (where == FREE_DRAINED) {
        BENCH_UNTIL(&b, b.server.messages == 2);
        assert_ok(bench_send(one->conn, large, sizeof large, 0));
    }
    BENCH_UNTIL(&b, one->conn == NULL && b.accepted &&
                        (other->closes || !other->conn));
    bench_turns(&b, 10);
    assert_int_equal(one->closes, 0);
    assert_int_equal(one->opens, 1);
    assert_int_equal(one->messages, where == FREE_MESSAGE               ? 1
                                    : (server && where == FREE_DRAINED) ? 2
                                                                        : 0);
    bench_end_all(&b);
}

static void test_free_inside(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        for (int server = 0; server < 2; server++) {
            free_case(via, server, FREE_OPEN);
            free_case(via, server, FREE_MESSAGE);
            free_case(via, server, FREE_DRAINED);
        }
    }
}

/* Freed at every other moment. */
static void test_free_outside(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        for (int turns = 0; turns < 6; turns++) {
            bench b = {0};
            bench_start(&b, via, NULL, NULL);
            say(&b.client, "a");
            bench_turns(&b, turns);
            pmi_conn_free(b.client.conn);
            b.client.conn = NULL;
            bench_turns(&b, turns);
            bench_end_all(&b);
        }
    }
}

static void test_refused(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        assert_ok(bench_loop(&b, via));
        assert_ok(bench_listen(&b, &limits));
        b.refuse = true; /* accepted, and freed at once */
        assert_ok(bench_connect(&b, &limits));
        BENCH_UNTIL(&b, b.client.closes);
        assert_int_equal(b.accepted, 1);
        uint16_t port = pmi_listener_port(b.listener);
        pmi_listener_close(b.listener);
        b.listener = NULL;
        pmi_connect_opts opts = {.host = "127.0.0.1",
                                 .port = port,
                                 .framing = PMI_FRAMING_STREAM,
                                 .memory = via == VIA_MEMORY,
                                 .limits = limits};
        b.client.closes = 0;
        assert_ok(pmi_conn_connect(b.loop, &opts, &bench_events, &b.client,
                                   &b.client.conn));
        assert_int_equal(b.client.closes, 0);
        BENCH_UNTIL(&b, b.client.closes);
        assert_int_equal(b.client.reason, PM_CLOSE_CONNECT);
        bench_end_all(&b);
    }
}

/* The listener goes while someone stands at the door. */
static void test_listener_closes(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        pmi_listener_close(b.listener);
        b.listener = NULL;
        BENCH_UNTIL(&b, b.client.closes);
        assert_int_equal(b.accepted, 0);
        bench_end_all(&b);
    }
}

static void test_listener_pause(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        pmi_conn_limits limits = bench_limits();
        assert_ok(bench_loop(&b, via));
        assert_ok(bench_listen(&b, &limits));
        pmi_listener_pause(b.listener, true);
        assert_ok(bench_connect(&b, &limits));
        bench_turns(&b, 20);
        assert_int_equal(b.accepted, 0);
        pmi_listener_pause(b.listener, false);
        BENCH_UNTIL(&b, b.client.opens);
        BENCH_UNTIL(&b, b.accepted);
        bench_end_all(&b);
    }
}

static void test_reserve(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        static const size_t sizes[] = {0, 1, 125, 126, 4000, 65535, 65536};
        bench b = {0};
        size_t head = bench_is_ws(via) ? 0 : 4, all = 0;
        int messages = 0;
        bench_start(&b, via, NULL, NULL);
        say(&b.client, "hello");
        BENCH_UNTIL(&b, b.server.messages == 1);
        bench_end *ends[2] = {&b.server, &b.client};
        for (size_t e = 0; e < 2; e++) {
            for (size_t i = 0; i < PMI_COUNT(sizes); i++) {
                size_t len = sizes[i];
                uint8_t *p = pmi_conn_reserve(ends[e]->conn, len + head);
                assert_non_null(p);
                if (head)
                    pmi_put_be32(p, (uint32_t)len);
                memset(p + head, 'x', len);
                pmi_conn_commit(ends[e]->conn, len ? len + head : 0);
                p = pmi_conn_reserve(ends[e]->conn, 70000);
                if (head)
                    pmi_put_be32(p, 3);
                memcpy(p + head, "abc", 3);
                pmi_conn_commit(ends[e]->conn, 3 + head);
            }
        }
        for (size_t i = 0; i < PMI_COUNT(sizes); i++) {
            all += sizes[i] + 3;
            messages += sizes[i] ? 2 : 1;
        }
        BENCH_UNTIL(&b, b.client.messages == messages &&
                            b.server.messages == messages + 1);
        assert_int_equal(b.client.got_len, all);
        assert_int_equal(b.server.got_len, all + 5);
        assert_memory_equal(b.client.got, "abcxabcx", 8);
        assert_memory_equal(b.server.got + 5, "abcxabcx", 8);
        bench_end_all(&b);
    }
}

/* One chunk, many queues. */
static void test_shared_chunk(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        for (uint32_t len = 5; len < 20000; len += 19000) {
            bench b = {0};
            uint8_t head[14];
            bench_start(&b, via, NULL, NULL);
            say(&b.client, "hello");
            BENCH_UNTIL(&b, b.server.messages == 1);
            size_t n = 4;
            if (bench_is_ws(via))
                n = pmi_ws_head_write(head, PMI_WS_BINARY, len, NULL);
            else
                pmi_put_be32(head, len);
            pmi_chunk *chunk = pmi_loop_chunk(b.loop, 100 + n + len);
            memset(chunk->data, 'z', 100 + n + len);
            memcpy(chunk->data + 100, head, n);
            chunk->len = (uint32_t)(100 + n) + len;
            for (int i = 0; i < 3; i++)
                assert_ok(pmi_conn_send_chunk(b.server.conn, chunk, 100, 0));
            say(&b.server, "end");
            assert_ok(pmi_conn_send_chunk(b.server.conn, chunk, 100, 0));
            pmi_chunk_unref(chunk);
            BENCH_UNTIL(&b, b.client.messages == 5);
            assert_string_equal(b.client.log, "zzzez");
            assert_int_equal(b.client.got_len, 4 * len + 3);
            bench_end_all(&b);
        }
    }
}

/* New callbacks see what the old ones have left. */
static size_t first_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    (void)data, (void)len;
    pmi_conn_set_events(conn, &bench_events, ctx);
    return len < 4 ? 0 : 4;
}

static const pmi_conn_events first_events = {.data = first_data,
                                             .message = bench_message,
                                             .open = bench_open,
                                             .drained = bench_drained,
                                             .closed = bench_closed};

static void test_set_events(void **state)
{
    bench b = {0};
    (void)state;
    bench_start(&b, VIA_MEMORY, NULL, NULL);
    pm_slice parts = {"HELO\0\0\0\1x", 9};
    BENCH_UNTIL(&b, b.accepted && b.client.opens);
    pmi_conn_set_events(b.server.conn, &first_events, &b.server);
    assert_ok(pmi_conn_send(b.client.conn, &parts, 1, 0));
    BENCH_UNTIL(&b, b.server.messages == 1);
    assert_true(got_is(&b.server, "x"));
    bench_end_all(&b);
}

/* With a budget of a microsecond all is done all the same. */
static void test_budget(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        b.server.echo = true;
        BENCH_UNTIL(&b, b.client.opens);
        for (uint32_t i = 0; i < 300; i++)
            assert_ok(bench_send(b.client.conn, &i, sizeof i, 0));
        uint64_t end = bench_clock_us() + 10 * 1000 * 1000;
        while (b.client.messages < 300 && bench_clock_us() < end)
            pm_loop_poll(b.loop, 1);
        assert_int_equal(b.client.messages, 300);
        bench_end_all(&b);
    }
}

/* Refused allocations: all works, or ends in an orderly way. */
static void oom_round(bench *b, bench_via via)
{
    pmi_conn_limits limits = bench_limits();
    static const uint8_t large[10000];
    b->loop = NULL;
    if (bench_loop(b, via) != PM_OK) {
        bench_realms_end(b);
        if (b->loop)
            assert_ok(pm_loop_free(b->loop));
        return;
    }
    if (bench_listen(b, &limits) == PM_OK &&
        bench_connect(b, &limits) == PM_OK) {
        b->server.echo = true;
        bench_send(b->client.conn, "a", 1, 0);
        bench_send(b->client.conn, large, sizeof large, 0);
        for (int i = 0; i < 3000 && !b->client.closes; i++) {
            pm_loop_poll(b->loop, 0);
            if (b->client.messages == 2)
                break;
            if (b->heap.failed && i > 300)
                break;
        }
    }
    if (!b->heap.failed)
        assert_int_equal(b->client.messages, 2);
    pmi_conn_free(b->client.conn);
    pmi_conn_free(b->server.conn);
    pmi_listener_close(b->listener);
    bench_realms_end(b);
    assert_ok(pm_loop_free(b->loop));
}

static void test_no_memory(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        TEST_EACH_FAILURE(&b.heap)
        {
            b.listener = NULL;
            b.client = (bench_end){.got = b.client.got};
            b.server = (bench_end){.got = b.server.got};
            oom_round(&b, via);
            free(b.client.got);
            free(b.server.got);
            b.client.got = b.server.got = NULL;
        }
    }
}

/* An idle connection owns no buffer, a busy one does not allocate. */
static void test_idle_is_small(void **state)
{
    (void)state;
    EACH_VIA(via)
    {
        bench b = {0};
        bench_start(&b, via, NULL, NULL);
        b.server.echo = true;
        say(&b.client, "hello");
        BENCH_UNTIL(&b, b.client.messages == 1);
        bench_turns(&b, 3);
        size_t blocks = b.heap.live_blocks;
        say(&b.client, "hello");
        BENCH_UNTIL(&b, b.client.messages == 2);
        bench_turns(&b, 3);
        assert_int_equal(b.heap.live_blocks, blocks);
        size_t calls = b.heap.calls;
        for (int i = 3; i < 100; i++) {
            say(&b.client, "hello");
            BENCH_UNTIL(&b, b.client.messages == i);
        }
        assert_int_equal(b.heap.calls, calls); /* nothing is allocated */
        bench_end_all(&b);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_echo),
    cmocka_unit_test(test_big),
    cmocka_unit_test(test_many),
    cmocka_unit_test(test_urgent),
    cmocka_unit_test(test_out_limit),
    cmocka_unit_test(test_in_limit),
    cmocka_unit_test(test_pause),
    cmocka_unit_test(test_pause_inside),
    cmocka_unit_test(test_take_some),
    cmocka_unit_test(test_close_after_send),
    cmocka_unit_test(test_linger_writes_all),
    cmocka_unit_test(test_free_inside),
    cmocka_unit_test(test_free_outside),
    cmocka_unit_test(test_refused),
    cmocka_unit_test(test_listener_closes),
    cmocka_unit_test(test_listener_pause),
    cmocka_unit_test(test_reserve),
    cmocka_unit_test(test_shared_chunk),
    cmocka_unit_test(test_set_events),
    cmocka_unit_test(test_budget),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_idle_is_small),
};
TEST_MAIN(tests)
