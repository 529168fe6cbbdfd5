/* SPDX-License-Identifier: MIT */
/* test/test_tls_conn.c -- TLS under a listener: those who come slowly, come in
 * crowds, stop halfway, are reset, say goodbye and stay. That all else works as
 * without TLS is in test_conn.c. */
#include "test.h"

#include "conn_bench.h"

#include <errno.h>
#include <fcntl.h>

enum { PUPPETS = 24 };

/* A client by hand: a socket, and a filter that we turn ourselves. */
typedef struct puppet {
    int fd;
    pmi_tls *tls;
    pmi_queue plain;
    size_t got;
    long answer;
    bool ended; /* the other side has closed */
} puppet;

typedef struct stage {
    bench b;
    pmi_segment_pool pool;
    puppet puppets[PUPPETS];
    struct {
        pmi_conn *conn;
        int closes;
        size_t got;
        pm_close_reason reason;
    } guests[PUPPETS + 8];
    int accepted;
    int receive_buffer; /* of puppets; 0: the system's */
    uint64_t begun;     /* handshakes, when bytes came last */
    uint8_t room[128 * 1024];
} stage;

static size_t guest_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    stage *s = ctx;
    pm_slice all = {data, len};
    s->begun = pmi_tls_realm_counts(s->b.server_tls)->handshakes;
    for (int i = 0; i < s->accepted; i++)
        if (s->guests[i].conn == conn)
            s->guests[i].got += len;
    pmi_conn_send(conn, &all, 1, 0);
    return len;
}

static void guest_message(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                          void *ctx)
{
    (void)text;
    guest_data(conn, data, len, ctx);
}

static void guest_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    stage *s = ctx;
    for (int i = 0; i < s->accepted; i++) {
        if (s->guests[i].conn != conn)
            continue;
        s->guests[i].conn = NULL;
        s->guests[i].closes++;
        s->guests[i].reason = reason;
    }
    pmi_conn_free(conn);
}

static const pmi_conn_events guest_events = {
    .data = guest_data, .message = guest_message, .closed = guest_closed};

static void guest_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    stage *s = ctx;
    (void)listener;
    s->guests[s->accepted++].conn = conn;
    pmi_conn_start(conn, &guest_events, s);
}

static stage *stage_with(pmi_conn_limits limits)
{
    stage *s = calloc(1, sizeof *s);
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .framing = PMI_FRAMING_SNIFF,
                            .limits = limits,
                            .accepted = guest_accepted,
                            .ctx = s};
    for (int i = 0; i < PUPPETS; i++)
        s->puppets[i].fd = -1;
    assert_ok(bench_loop(&s->b, VIA_TLS));
    s->pool.loop = s->b.loop;
    opts.tls = s->b.server_tls;
    assert_ok(pmi_listen(s->b.loop, &opts, &s->b.listener));
    return s;
}

static stage *stage_new(void)
{
    return stage_with(bench_limits());
}

static void puppet_leave(stage *s, puppet *p)
{
    if (p->fd >= 0)
        close(p->fd);
    pmi_tls_free(p->tls);
    pmi_queue_clear(&p->plain, &s->pool);
    *p = (puppet){.fd = -1};
}

static void stage_free(stage *s)
{
    for (int i = 0; i < PUPPETS; i++)
        puppet_leave(s, &s->puppets[i]);
    for (int i = 0; i < s->accepted; i++)
        pmi_conn_free(s->guests[i].conn);
    pmi_segment_pool_fini(&s->pool);
    bench_end_all(&s->b);
    free(s);
}

static puppet *puppet_comes(stage *s, int i)
{
    puppet *p = &s->puppets[i];
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    addr.sin_port = htons(pmi_listener_port(s->b.listener));
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->receive_buffer)
        setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &s->receive_buffer,
                   sizeof s->receive_buffer);
    assert_int_equal(connect(p->fd, (struct sockaddr *)&addr, sizeof addr), 0);
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    p->tls = pmi_tls_new(s->b.client_tls, &s->pool, "127.0.0.1");
    assert_int_equal(pmi_tls_begin(p->tls), PM_CLOSE_NONE);
    return p;
}

/* At most so many bytes leave. Returns how many. */
static size_t puppet_send(stage *s, puppet *p, size_t most)
{
    pm_close_reason reason;
    pmi_tls_seal(p->tls, &p->plain, SIZE_MAX, &reason);
    size_t n = pmi_queue_take(pmi_tls_wire(p->tls), &s->pool, s->room,
                              pmi_min(most, sizeof s->room), 0);
    if (n)
        assert_true(send(p->fd, s->room, n, MSG_NOSIGNAL) == (ssize_t)n);
    return n;
}

static void puppet_hear(stage *s, puppet *p)
{
    uint8_t *in = s->room + PMI_TLS_RECORD_MAX;
    pm_close_reason reason;
    ssize_t n = recv(p->fd, in, sizeof s->room - PMI_TLS_RECORD_MAX, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        p->ended = true;
    if (n <= 0)
        return;
    p->answer = pmi_tls_open(p->tls, in, (size_t)n, s->room, &reason);
    if (p->answer > 0)
        p->got += (size_t)p->answer;
}

static void puppet_say(stage *s, puppet *p, const char *text)
{
    size_t len = strlen(text);
    memcpy(pmi_queue_room(&p->plain, &s->pool, len), text, len);
    pmi_queue_written(&p->plain, &s->pool, len);
}

static void puppet_turn(stage *s, puppet *p)
{
    puppet_send(s, p, SIZE_MAX);
    pm_loop_poll(s->b.loop, 0);
    puppet_hear(s, p);
}

#define STAGE_UNTIL(s, p, condition)                                           \
    do {                                                                       \
        uint64_t end_ = bench_clock_us() + 10 * 1000 * 1000;                   \
        while (!(condition)) {                                                 \
            puppet_turn(s, p);                                                 \
            if (bench_clock_us() > end_)                                       \
                fail_msg("in vain: %s", #condition);                           \
        }                                                                      \
    } while (0)

static uint32_t busy(const stage *s)
{
    return pmi_tls_realm_busy(s->b.server_tls);
}

/* ---- Tests -------------------------------------------------------------- */
/* Every byte is a segment of its own. */
static void test_byte_by_byte(void **state)
{
    stage *s = stage_new();
    puppet *p = puppet_comes(s, 0);
    (void)state;
    puppet_say(s, p, "hello, this is a stream");
    for (int i = 0; i < 20000 && !p->got; i++) {
        puppet_send(s, p, 1);
        pm_loop_poll(s->b.loop, 0);
        puppet_hear(s, p);
    }
    STAGE_UNTIL(s, p, p->got == 23);
    assert_int_equal(s->guests[0].got, 23);
    stage_free(s);
}

/* A byte a second: the time is for all of it, not for each. */
static void test_slowly(void **state)
{
    stage *s = stage_new();
    puppet *p = puppet_comes(s, 0);
    int seconds = 0;
    (void)state;
    while (!s->guests[0].closes && seconds < 60) {
        puppet_send(s, p, 1);
        s->b.skew_us += 1000 * 1000;
        seconds++;
        bench_turns(&s->b, 5);
    }
    assert_int_equal(s->guests[0].reason, PM_CLOSE_HANDSHAKE_TIMEOUT);
    assert_in_range(seconds, 5, 8);
    assert_int_equal(busy(s), 0);
    stage_free(s);
}

/* Who says nothing takes no slot, and no memory of mbedtls. */
static void test_silent(void **state)
{
    stage *s = stage_new();
    (void)state;
    for (int i = 0; i < PUPPETS; i++)
        puppet_comes(s, i);
    while (s->accepted < PUPPETS)
        bench_turns(&s->b, 1);
    bench_turns(&s->b, 5);
    assert_int_equal(busy(s), 0);
    assert_int_equal(pmi_tls_realm_counts(s->b.server_tls)->handshakes, 0);
    stage_free(s);
}

/* A crowd that speaks at once and then says no more: it is worked off a little
 * a turn, and whoever plays already is served in between. */
static void test_crowd(void **state)
{
    stage *s = stage_new();
    puppet *player = puppet_comes(s, 0);
    const pmi_tls_counts *counts = pmi_tls_realm_counts(s->b.server_tls);
    (void)state;
    puppet_say(s, player, "first");
    STAGE_UNTIL(s, player, player->got == 5);
    for (int i = 1; i < PUPPETS; i++)
        puppet_comes(s, i);
    while (s->accepted < PUPPETS)
        bench_turns(&s->b, 1);
    for (int i = 1; i < PUPPETS; i++)
        puppet_send(s, &s->puppets[i], SIZE_MAX);
    puppet_say(s, player, "again");
    STAGE_UNTIL(s, player, player->got == 10);
    assert_in_range(s->begun, 1, PUPPETS / 2);
    for (int i = 0; counts->handshakes < PUPPETS && i < 1000; i++)
        bench_turns(&s->b, 1);
    assert_int_equal(counts->handshakes, PUPPETS);
    assert_int_equal(busy(s), PUPPETS - 1);
    for (int i = 1; i < PUPPETS; i += 2) /* every second one is reset */
        puppet_leave(s, &s->puppets[i]);
    for (int i = 0; busy(s) >= PUPPETS / 2 && i < 1000; i++)
        bench_turns(&s->b, 1);
    assert_int_equal(busy(s), PUPPETS / 2 - 1);
    s->b.skew_us += 10 * 1000 * 1000; /* and the others' time is over */
    bench_turns(&s->b, 5);
    assert_int_equal(busy(s), 0);
    assert_int_equal(counts->failed, PUPPETS - 1);
    puppet_say(s, player, "still");
    STAGE_UNTIL(s, player, player->got == 15);
    stage_free(s);
}

/* More than the realm's slots. */
static void test_too_many(void **state)
{
    stage *s = stage_new();
    const certs_one *certs = bench_certs();
    pmi_tls_setup setup = {.cert = certs[1].cert, .key = certs[1].key};
    int refused = 0;
    (void)state;
    pmi_listener_close(s->b.listener);
    pmi_tls_realm_unref(s->b.server_tls);
    assert_ok(pmi_tls_realm_new(s->b.loop, pmi_loop_env(s->b.loop), &setup, 8,
                                &s->b.server_tls));
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .framing = PMI_FRAMING_SNIFF,
                            .limits = bench_limits(),
                            .tls = s->b.server_tls,
                            .accepted = guest_accepted,
                            .ctx = s};
    assert_ok(pmi_listen(s->b.loop, &opts, &s->b.listener));
    for (int i = 0; i < PUPPETS; i++)
        puppet_send(s, puppet_comes(s, i), SIZE_MAX);
    const pmi_tls_counts *counts = pmi_tls_realm_counts(s->b.server_tls);
    for (int i = 0; counts->refused < PUPPETS - 8 && i < 1000; i++)
        bench_turns(&s->b, 1);
    bench_turns(&s->b, 5);
    for (int i = 0; i < s->accepted; i++)
        if (s->guests[i].closes) {
            assert_int_equal(s->guests[i].reason, PM_CLOSE_TLS_BUSY);
            refused++;
        }
    assert_int_equal(refused, PUPPETS - 8);
    assert_int_equal(counts->refused, PUPPETS - 8);
    assert_int_equal(busy(s), 8);
    stage_free(s);
}

/* "That was all", behind other bytes, and the socket stays open. */
static void test_goodbye(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        stage *s = stage_new();
        puppet *p = puppet_comes(s, 0);
        pm_close_reason reason;
        puppet_say(s, p, "hello");
        STAGE_UNTIL(s, p, p->got == 5);
        if (with)
            puppet_say(s, p, "last words");
        pmi_tls_seal(p->tls, &p->plain, SIZE_MAX, &reason);
        pmi_tls_bid(p->tls);
        puppet_send(s, p, SIZE_MAX);
        for (int i = 0; !s->guests[0].closes && i < 1000; i++)
            bench_turns(&s->b, 1);
        assert_int_equal(s->guests[0].closes, 1);
        assert_int_equal(s->guests[0].reason, PM_CLOSE_CLIENT);
        assert_int_equal(s->guests[0].got, with ? 15 : 5);
        stage_free(s);
    }
}

/* We say it as well. */
static void test_our_goodbye(void **state)
{
    (void)state;
    for (int linger = 0; linger < 2; linger++) {
        stage *s = stage_new();
        puppet *p = puppet_comes(s, 0);
        puppet_say(s, p, "hello");
        STAGE_UNTIL(s, p, p->got == 5);
        pmi_conn_close(s->guests[0].conn, PM_CLOSE_KICK, linger, 0);
        STAGE_UNTIL(s, p, p->ended);
        assert_true(pmi_tls_is_over(p->tls));
        puppet_leave(s, p);
        for (int i = 0; !s->guests[0].closes && i < 1000; i++)
            bench_turns(&s->b, 1);
        assert_int_equal(s->guests[0].reason, PM_CLOSE_KICK);
        stage_free(s);
    }
}

static void test_garbage_later(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        stage *s = stage_new();
        puppet *p = puppet_comes(s, 0);
        puppet_say(s, p, "hello");
        STAGE_UNTIL(s, p, p->got == 5);
        if (with) {
            puppet_say(s, p, "good");
            puppet_send(s, p, SIZE_MAX);
        }
        assert_true(send(p->fd, "garbage, not a record", 21, 0) == 21);
        STAGE_UNTIL(s, p, s->guests[0].closes && p->ended);
        assert_int_equal(s->guests[0].reason, PM_CLOSE_TLS);
        assert_int_equal(s->guests[0].got, with ? 9 : 5);
        stage_free(s);
    }
}

/* Reset at every stage of the handshake. */
static void test_reset(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 500; bytes += 60) {
        stage *s = stage_new();
        puppet *p = puppet_comes(s, 0);
        struct linger hard = {1, 0};
        size_t sent = 0;
        for (int i = 0; sent < bytes && i < 1000; i++) {
            sent += puppet_send(s, p, pmi_min(60, bytes - sent));
            pm_loop_poll(s->b.loop, 0);
            puppet_hear(s, p);
        }
        setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        puppet_leave(s, p);
        for (int i = 0; !s->guests[0].closes && i < 1000; i++)
            bench_turns(&s->b, 1);
        assert_int_equal(s->guests[0].closes, 1);
        assert_int_equal(busy(s), 0);
        stage_free(s);
    }
}

/* Its traffic is in its subsystem's sum, and in no other one. */
static void test_counted(void **state)
{
    pmi_conn_limits limits = bench_limits();
    limits.tally = 3;
    stage *s = stage_with(limits);
    puppet *p = puppet_comes(s, 0);
    const pmi_conn_totals *totals;
    (void)state;
    puppet_say(s, p, "hello");
    STAGE_UNTIL(s, p, p->got == 5);
    totals = pmi_conn_totals_of(s->b.loop);
    assert_true(totals->bytes_in > 5 && totals->bytes_out > 5);
    assert_int_equal(totals->by[3].in, totals->bytes_in);
    assert_int_equal(totals->by[3].out, totals->bytes_out);
    stage_free(s);
}

/* Who reads less at a time than a record has does read: whenever something has
 * left the connection says so. */
static void test_slow_reader(void **state)
{
    enum { LARGE = 512 * 1024, BITES = 200 };
    static uint8_t large[LARGE], bite[1024];
    pmi_conn_limits limits = bench_limits();
    pm_slice all = {large, LARGE};
    const pmi_conn_totals *totals;
    int moves = 0;
    limits.send_buffer = 4096;
    stage *s = stage_with(limits);
    s->receive_buffer = 4096;
    puppet *p = puppet_comes(s, 0);
    (void)state;
    puppet_say(s, p, "hello");
    STAGE_UNTIL(s, p, p->got == 5);
    assert_ok(pmi_conn_send(s->guests[0].conn, &all, 1, 0));
    bench_turns(&s->b, 20);
    totals = pmi_conn_totals_of(s->b.loop);
    pmi_conn_moved(s->guests[0].conn);
    for (int i = 0; i < BITES; i++) {
        uint64_t before = totals->bytes_out;
        assert_true(recv(p->fd, bite, sizeof bite, 0) > 0 || errno == EAGAIN);
        bench_turns(&s->b, 5);
        assert_int_equal(pmi_conn_moved(s->guests[0].conn),
                         totals->bytes_out > before);
        moves += totals->bytes_out > before;
    }
    assert_in_range(moves, 10, BITES);
    stage_free(s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_byte_by_byte), cmocka_unit_test(test_slowly),
    cmocka_unit_test(test_silent),       cmocka_unit_test(test_crowd),
    cmocka_unit_test(test_too_many),     cmocka_unit_test(test_goodbye),
    cmocka_unit_test(test_our_goodbye),  cmocka_unit_test(test_garbage_later),
    cmocka_unit_test(test_reset),        cmocka_unit_test(test_counted),
    cmocka_unit_test(test_slow_reader),
};
TEST_MAIN(tests)
