/* SPDX-License-Identifier: MIT */
/* test/conn_bench.h -- two ends of a connection on one loop, for the tests of
 * core/conn. Include after test.h.
 *
 * A message is sent as it is on WebSocket and behind four bytes of length on a
 * stream, so that the same test can be played on every transport. Callbacks
 * only record; tests look afterwards. */
#ifndef TEST_CONN_BENCH_H
#define TEST_CONN_BENCH_H

#include "core/conn.h"
#include "core/tls.h"

#include "test_certs.h"

#include <time.h>

typedef enum bench_via {
    VIA_TCP,
    VIA_WS,
    VIA_MEMORY,
    VIA_TLS,
    VIA_WSS
} bench_via;

static inline bool bench_is_ws(bench_via via)
{
    return via == VIA_WS || via == VIA_WSS;
}

/* Where an end frees its connection. */
typedef enum bench_free {
    FREE_CLOSED,
    FREE_OPEN,
    FREE_MESSAGE,
    FREE_DRAINED
} bench_free;

typedef struct bench_end {
    struct bench *bench;
    pmi_conn *conn;
    int opens, closes, drains, messages, texts;
    int after_close; /* events that came when none should */
    pm_close_reason reason;
    uint8_t *got; /* payloads, one behind the other */
    size_t got_len, got_cap;
    size_t last_len;
    char log[256]; /* first byte of each short message */
    bool echo;
    int pause_at; /* pause after so many messages */
    bool resumes; /* ... and resume at once */
    int close_at; /* close (KICK) after so many */
    bool close_linger;
    bench_free free_in;
    size_t take; /* on a stream: at most so many messages a call; 0: all */
} bench_end;

typedef struct bench {
    test_heap heap;
    pm_loop *loop;
    pmi_listener *listener;
    bench_via via;
    pmi_tls_realm *server_tls, *client_tls; /* NULL: plain */
    bench_end client, server;
    int accepted;
    uint64_t skew_us; /* the loop's clock is ahead of the system's */
    bool refuse;      /* accepted connections are freed at once */
} bench;

static inline void bench_free_now(bench_end *end, bench_free when)
{
    if (end->free_in == when && end->conn) {
        pmi_conn_free(end->conn);
        end->conn = NULL;
    }
}

static inline pm_err bench_send(pmi_conn *conn, const void *data, size_t len,
                                unsigned flags)
{
    uint8_t head[4];
    pm_slice parts[2] = {{head, 4}, {data, len}};
    pmi_put_be32(head, (uint32_t)len);
    if (pmi_conn_framing(conn) == PMI_FRAMING_WS)
        return pmi_conn_send(conn, parts + 1, 1, flags);
    return pmi_conn_send(conn, parts, 2, flags);
}

static inline void bench_got(bench_end *end, const uint8_t *data, size_t len)
{
    if (end->got_len + len > end->got_cap) {
        end->got_cap = 2 * (end->got_len + len);
        end->got = realloc(end->got, end->got_cap);
    }
    if (len)
        memcpy(end->got + end->got_len, data, len);
    end->got_len += len;
    end->last_len = len;
    if (len && strlen(end->log) + 1 < sizeof end->log)
        end->log[strlen(end->log)] = (char)data[0];
    end->messages++;
    end->after_close += end->closes;
    if (end->echo)
        bench_send(end->conn, data, len, 0);
    if (end->pause_at == end->messages)
        pmi_conn_pause(end->conn);
    if (end->pause_at == end->messages && end->resumes)
        pmi_conn_resume(end->conn);
    if (end->close_at == end->messages)
        pmi_conn_close(end->conn, PM_CLOSE_KICK, end->close_linger, 0);
    bench_free_now(end, FREE_MESSAGE);
}

static inline size_t bench_data(pmi_conn *conn, uint8_t *data, size_t len,
                                void *ctx)
{
    bench_end *end = ctx;
    size_t used = 0, taken = 0;
    (void)conn;
    while (len - used >= 4 && (!end->take || taken++ < end->take)) {
        size_t n = pmi_get_be32(data + used);
        if (len - used - 4 < n)
            break;
        bench_got(end, data + used + 4, n);
        memset(data + used, 0xee, n + 4); /* they are ours */
        used += 4 + n;
        if (!end->conn || pmi_conn_is_closing(end->conn) ||
            end->pause_at == end->messages)
            break;
    }
    return used;
}

static inline void bench_message(pmi_conn *conn, uint8_t *data, size_t len,
                                 bool text, void *ctx)
{
    bench_end *end = ctx;
    (void)conn;
    end->texts += text;
    bench_got(end, data, len);
}

static inline void bench_open(pmi_conn *conn, void *ctx)
{
    bench_end *end = ctx;
    (void)conn;
    end->opens++;
    end->after_close += end->closes;
    bench_free_now(end, FREE_OPEN);
}

static inline void bench_drained(pmi_conn *conn, void *ctx)
{
    bench_end *end = ctx;
    (void)conn;
    end->drains++;
    end->after_close += end->closes;
    bench_free_now(end, FREE_DRAINED);
}

static inline void bench_closed(pmi_conn *conn, pm_close_reason reason,
                                void *ctx)
{
    bench_end *end = ctx;
    end->closes++;
    end->reason = reason;
    end->conn = NULL;
    pmi_conn_free(conn);
}

static const pmi_conn_events bench_events = {
    .data = bench_data,
    .message = bench_message,
    .open = bench_open,
    .drained = bench_drained,
    .closed = bench_closed,
};

static inline void bench_accepted(pmi_listener *listener, pmi_conn *conn,
                                  void *ctx)
{
    bench *b = ctx;
    (void)listener;
    b->accepted++;
    if (b->refuse || b->server.conn) {
        pmi_conn_free(conn);
        return;
    }
    b->server.conn = conn;
    pmi_conn_start(conn, &bench_events, &b->server);
}

static inline pmi_conn_limits bench_limits(void)
{
    pmi_conn_limits limits = {0};
    limits.in_max = 8 * 1024 * 1024;
    limits.out_max = 16 * 1024 * 1024;
    limits.open_ms = 5000;
    return limits;
}

static inline pm_err bench_listen(bench *b, const pmi_conn_limits *limits)
{
    pmi_listen_opts opts = {0};
    opts.host = "127.0.0.1";
    opts.framing = PMI_FRAMING_SNIFF;
    opts.limits = *limits;
    opts.memory_only = b->via == VIA_MEMORY;
    opts.tls = b->server_tls;
    opts.accepted = bench_accepted;
    opts.ctx = b;
    return pmi_listen(b->loop, &opts, &b->listener);
}

static inline pm_err bench_connect(bench *b, const pmi_conn_limits *limits)
{
    pmi_connect_opts opts = {0};
    opts.host = "127.0.0.1";
    opts.port = pmi_listener_port(b->listener);
    opts.framing = bench_is_ws(b->via) ? PMI_FRAMING_WS : PMI_FRAMING_STREAM;
    opts.memory = b->via == VIA_MEMORY;
    opts.tls = b->client_tls;
    opts.tls_name = b->client_tls ? "127.0.0.1" : NULL;
    opts.from = "client";
    opts.limits = *limits;
    return pmi_conn_connect(b->loop, &opts, &bench_events, &b->client,
                            &b->client.conn);
}

static inline uint64_t bench_clock_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static inline uint64_t bench_skewed_us(void *ctx)
{
    return bench_clock_us() + ((bench *)ctx)->skew_us;
}

/* Of this program: made once. */
static inline const certs_one *bench_certs(void)
{
    static certs_one certs[2]; /* authority, leaf */
    if (!certs[0].cert[0]) {
        certs_authority(&certs[0], "bench authority");
        certs_leaf(&certs[1], &certs[0], "bench",
                   "dns:localhost ip4:127.0.0.1");
        certs_free(&certs[0]);
        certs_free(&certs[1]);
    }
    return certs;
}

static inline pm_err bench_realms(bench *b)
{
    const certs_one *certs = bench_certs();
    pmi_tls_setup server = {.cert = certs[1].cert, .key = certs[1].key};
    pmi_tls_setup client = {.ca = certs[0].cert, .client = true};
    const pmi_env *env = pmi_loop_env(b->loop);
    pm_err err = pmi_tls_realm_new(b->loop, env, &server, 64, &b->server_tls);
    return err ? err
               : pmi_tls_realm_new(b->loop, env, &client, 64, &b->client_tls);
}

static inline void bench_realms_end(bench *b)
{
    pmi_tls_realm_unref(b->server_tls);
    pmi_tls_realm_unref(b->client_tls);
    b->server_tls = b->client_tls = NULL;
}

static inline pm_err bench_loop(bench *b, bench_via via)
{
    pm_loop_opts opts = pm_loop_opts_default();
    b->via = via;
    b->client.bench = b->server.bench = b;
    opts.alloc = test_alloc(&b->heap);
    opts.clock_us = bench_skewed_us;
    opts.seam_ctx = b;
    pm_err err = pm_loop_new(&b->loop, &opts);
    if (err == PM_OK && b->via >= VIA_TLS)
        err = bench_realms(b);
    return err;
}

/* Loop, listener and a client on its way. */
static inline void bench_start(bench *b, bench_via via,
                               const pmi_conn_limits *client,
                               const pmi_conn_limits *server)
{
    pmi_conn_limits usual = bench_limits();
    assert_ok(bench_loop(b, via));
    assert_ok(bench_listen(b, server ? server : &usual));
    assert_ok(bench_connect(b, client ? client : &usual));
}

/* Frees all; nothing may be left. */
static inline void bench_end_all(bench *b)
{
    pmi_conn_free(b->client.conn);
    pmi_conn_free(b->server.conn);
    pmi_listener_close(b->listener);
    bench_realms_end(b);
    assert_ok(pm_loop_free(b->loop));
    free(b->client.got);
    free(b->server.got);
    assert_heap_empty(&b->heap);
}

/* Turns the loop until the condition holds; the test fails after 10 s. */
#define BENCH_UNTIL(b, condition)                                              \
    do {                                                                       \
        uint64_t end_ = bench_clock_us() + 10 * 1000 * 1000;                   \
        while (!(condition)) {                                                 \
            pm_loop_poll((b)->loop, 0);                                        \
            if (bench_clock_us() > end_)                                       \
                fail_msg("in vain: %s", #condition);                           \
        }                                                                      \
    } while (0)

/* Some turns, for what must not happen. */
static inline void bench_turns(bench *b, int count)
{
    for (int i = 0; i < count; i++)
        pm_loop_poll(b->loop, 0);
}

#endif
