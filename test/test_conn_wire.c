/* SPDX-License-Identifier: MIT */
/* test/test_conn_wire.c -- a connection against a bare socket: sniffing, the
 * WebSocket's rules, resets, descriptors running out; and the memory link's
 * faults, in virtual time. */
#include "test.h"

#include "conn_bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* ---- A bare client ----------------------------------------------------- */
typedef struct wire {
    bench b;
    int fd;
    uint8_t in[65536];
    size_t len;
    bool eof, reset;
} wire;

static int wire_connect(uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons(port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void wire_start(wire *w, const pmi_conn_limits *limits)
{
    pmi_conn_limits usual = bench_limits();
    memset(w, 0, sizeof *w);
    assert_ok(bench_loop(&w->b, VIA_TCP));
    assert_ok(bench_listen(&w->b, limits ? limits : &usual));
    w->fd = wire_connect(pmi_listener_port(w->b.listener));
    BENCH_UNTIL(&w->b, w->b.accepted);
}

static void wire_end(wire *w)
{
    if (w->fd >= 0)
        close(w->fd);
    bench_end_all(&w->b);
}

static void wire_poll(wire *w)
{
    pm_loop_poll(w->b.loop, 0);
    while (!w->eof) {
        ssize_t n = recv(w->fd, w->in + w->len, sizeof w->in - w->len - 1,
                         MSG_DONTWAIT);
        if (n > 0) {
            w->len += (size_t)n;
            w->in[w->len] = 0;
            continue;
        }
        w->eof = n == 0 || (errno != EAGAIN && errno != EINTR);
        w->reset = n < 0 && errno == ECONNRESET;
        break;
    }
}

#define WIRE_UNTIL(w, condition)                                               \
    do {                                                                       \
        uint64_t end_ = bench_clock_us() + 10 * 1000 * 1000;                   \
        while (!(condition)) {                                                 \
            wire_poll(w);                                                      \
            if (bench_clock_us() > end_)                                       \
                fail_msg("in vain: %s", #condition);                           \
        }                                                                      \
    } while (0)

static void wire_send(wire *w, const void *data, size_t len)
{
    assert_int_equal(send(w->fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void wire_turns(wire *w, int count)
{
    for (int i = 0; i < count; i++)
        wire_poll(w);
}

static const char upgrade[] = "GET / HTTP/1.1\r\n"
                              "Host: localhost\r\n"
                              "Upgrade: websocket\r\n"
                              "Connection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                              "Sec-WebSocket-Version: 13\r\n\r\n";

static size_t wire_frame(uint8_t *out, uint8_t first, const void *data,
                         size_t len)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    uint8_t head[14];
    size_t n = pmi_ws_head_write(head, PMI_WS_BINARY, len, mask);
    head[0] = first; /* with the FIN bit or without */
    memcpy(out, head, n);
    if (len)
        memcpy(out + n, data, len);
    pmi_ws_unmask(out + n, len, mask, 0);
    return n + len;
}

static void wire_send_frame(wire *w, uint8_t first, const void *data,
                            size_t len)
{
    uint8_t out[8192];
    wire_send(w, out, wire_frame(out, first, data, len));
}

/* A wire that is a WebSocket now. */
static void wire_start_ws(wire *w, const pmi_conn_limits *limits)
{
    wire_start(w, limits);
    wire_send(w, upgrade, strlen(upgrade));
    WIRE_UNTIL(w, w->b.server.opens && w->len);
    assert_non_null(strstr((char *)w->in, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_non_null(strstr((char *)w->in, "HTTP/1.1 101 "));
    w->len = 0;
}

/* ---- First bytes ------------------------------------------------------- */
static void test_sniff_stream(void **state)
{
    static const uint8_t bytes[] = {0, 0, 0, 2, 'h', 'i'};
    wire w;
    (void)state;
    wire_start(&w, NULL);
    wire_turns(&w, 5);
    assert_int_equal(w.b.server.opens, 0);
    assert_err(pmi_conn_send(w.b.server.conn, NULL, 0, 0), PM_ESTATE);
    for (size_t i = 0; i < sizeof bytes; i++) {
        wire_send(&w, bytes + i, 1);
        WIRE_UNTIL(&w, pmi_conn_totals_of(w.b.loop)->bytes_in == i + 1);
    }
    WIRE_UNTIL(&w, w.b.server.messages == 1);
    assert_int_equal(w.b.server.opens, 1);
    assert_int_equal(pmi_conn_framing(w.b.server.conn), PMI_FRAMING_STREAM);
    assert_string_equal(w.b.server.log, "h");
    wire_end(&w);
}

/* 'G', 'E', 'T' apart become a WebSocket; frames one byte at a time. */
static void test_sniff_ws(void **state)
{
    wire w;
    uint8_t frame[64];
    size_t n = wire_frame(frame, 0x81, "text", 4), sent = 0;
    (void)state;
    wire_start(&w, NULL);
    for (size_t i = 0; i < strlen(upgrade); i++) {
        wire_send(&w, upgrade + i, 1);
        sent++;
        WIRE_UNTIL(&w, pmi_conn_totals_of(w.b.loop)->bytes_in == sent);
    }
    WIRE_UNTIL(&w, w.b.server.opens);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(w.b.server.messages, 0);
        wire_send(&w, frame + i, 1);
        sent++;
        WIRE_UNTIL(&w, pmi_conn_totals_of(w.b.loop)->bytes_in == sent);
    }
    WIRE_UNTIL(&w, w.b.server.messages == 1);
    assert_int_equal(w.b.server.texts, 1);
    assert_int_equal(pmi_conn_framing(w.b.server.conn), PMI_FRAMING_WS);
    wire_end(&w);
}

/* Upgrade and first frames in one segment. */
static void test_upgrade_pipelined(void **state)
{
    uint8_t all[1024];
    size_t n = strlen(upgrade);
    wire w;
    (void)state;
    memcpy(all, upgrade, n);
    n += wire_frame(all + n, 0x82, "a", 1);
    n += wire_frame(all + n, 0x82, "b", 1);
    wire_start(&w, NULL);
    wire_send(&w, all, n);
    WIRE_UNTIL(&w, w.b.server.messages == 2);
    assert_string_equal(w.b.server.log, "ab");
    wire_end(&w);
}

static void refused(const void *bytes, size_t len, pm_close_reason reason,
                    const char *answer)
{
    wire w;
    wire_start(&w, NULL);
    wire_send(&w, bytes, len);
    WIRE_UNTIL(&w, w.b.server.closes && w.eof);
    assert_int_equal(w.b.server.reason, reason);
    assert_int_equal(w.b.server.opens, 0);
    if (answer)
        assert_int_equal(strncmp((char *)w.in, answer, strlen(answer)), 0);
    else
        assert_int_equal(w.len, 0);
    wire_end(&w);
}

static void test_refused_first_bytes(void **state)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        "GET nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        refused(bad[i], strlen(bad[i]), PM_CLOSE_HTTP, "HTTP/1.1 400 ");
    refused("\x16\x03\x01\x02", 4, PM_CLOSE_TLS_ON_PLAIN, NULL);
    char *long_head = malloc(10000);
    memset(long_head, 'a', 10000);
    memcpy(long_head, "GET / HTTP/1.1\r\nX: ", 19);
    refused(long_head, 10000, PM_CLOSE_HTTP, "");
    free(long_head);
}

static void test_only_get(void **state)
{
    pmi_conn_limits limits = bench_limits();
    wire w;
    (void)state;
    limits.sniff_http_only_get = true;
    wire_start(&w, &limits);
    wire_send(&w, "POST", 4);
    WIRE_UNTIL(&w, w.b.server.opens);
    assert_int_equal(pmi_conn_framing(w.b.server.conn), PMI_FRAMING_STREAM);
    wire_end(&w);
}

static void test_open_timeout(void **state)
{
    pmi_conn_limits limits = bench_limits();
    (void)state;
    limits.open_ms = 30;
    static const char *const starts[] = {"", "GE", "GET / HTTP/1.1\r\n"};
    for (size_t i = 0; i < PMI_COUNT(starts); i++) {
        wire w;
        wire_start(&w, &limits);
        if (*starts[i])
            wire_send(&w, starts[i], strlen(starts[i]));
        WIRE_UNTIL(&w, w.b.server.closes);
        assert_int_equal(w.b.server.reason, PM_CLOSE_HANDSHAKE_TIMEOUT);
        wire_end(&w);
    }
}

/* ---- The WebSocket's rules --------------------------------------------- */
static void test_ws_control(void **state)
{
    wire w;
    (void)state;
    wire_start_ws(&w, NULL);
    wire_send_frame(&w, 0x89, "ping!", 5);
    WIRE_UNTIL(&w, w.len >= 7);
    assert_memory_equal(w.in, "\x8a\x05ping!", 7);
    w.len = 0;
    wire_send_frame(&w, 0x8a, "pong", 4); /* nobody asked: ignored */
    wire_send_frame(&w, 0x01, "frag", 4);
    wire_send_frame(&w, 0x89, "", 0); /* between the fragments */
    wire_send_frame(&w, 0x00, "men", 3);
    wire_send_frame(&w, 0x80, "ts", 2);
    WIRE_UNTIL(&w, w.b.server.messages == 1);
    assert_int_equal(w.b.server.texts, 1);
    assert_int_equal(w.b.server.got_len, 9);
    assert_memory_equal(w.b.server.got, "fragments", 9);
    wire_send_frame(&w, 0x82, "", 0);
    WIRE_UNTIL(&w, w.b.server.messages == 2);
    assert_int_equal(w.b.server.texts, 1);
    wire_send_frame(&w, 0x88, "\x0f\xa0", 2); /* 4000 */
    WIRE_UNTIL(&w, w.eof && w.b.server.closes);
    assert_int_equal(w.len, 6);
    assert_memory_equal(w.in, "\x8a\x00\x88\x02\x0f\xa0", 6);
    assert_int_equal(w.b.server.reason, PM_CLOSE_CLIENT);
    wire_end(&w);
}

/* Frees the connection while a joined message is looked at. */
static void test_ws_free_in_joined(void **state)
{
    wire w;
    (void)state;
    wire_start_ws(&w, NULL);
    w.b.server.free_in = FREE_MESSAGE;
    wire_send_frame(&w, 0x02, "a", 1);
    wire_send_frame(&w, 0x80, "b", 1);
    WIRE_UNTIL(&w, w.b.server.messages == 1 && w.eof);
    assert_int_equal(w.b.server.closes, 0);
    wire_end(&w);
}

static void ws_bad(const uint8_t *bytes, size_t len, size_t in_max, int code,
                   pm_close_reason reason)
{
    pmi_conn_limits limits = bench_limits();
    wire w;
    limits.in_max = in_max;
    wire_start_ws(&w, &limits);
    wire_send(&w, bytes, len);
    WIRE_UNTIL(&w, w.eof && w.b.server.closes);
    assert_int_equal(w.b.server.reason, reason);
    assert_int_equal(w.len, 4);
    assert_int_equal(w.in[0], 0x88);
    assert_int_equal(w.in[2] << 8 | w.in[3], code);
    assert_int_equal(w.b.server.messages, 0);
    wire_end(&w);
}

static void test_ws_bad(void **state)
{
    uint8_t f[4096];
    size_t n;
    (void)state;
    ws_bad((const uint8_t *)"\x82\x01x", 3, 100, 1002, PM_CLOSE_WS);
    ws_bad(f, wire_frame(f, 0xc2, "x", 1), 100, 1002, PM_CLOSE_WS);
    ws_bad(f, wire_frame(f, 0x83, "x", 1), 100, 1002, PM_CLOSE_WS);
    ws_bad(f, wire_frame(f, 0x80, "x", 1), 100, 1002, PM_CLOSE_WS);
    ws_bad(f, wire_frame(f, 0x88, "x", 1), 100, 1002, PM_CLOSE_WS);
    ws_bad(f, wire_frame(f, 0x88, "\0\1", 2), 100, 1002, PM_CLOSE_WS);
    n = wire_frame(f, 0x02, "a", 1);
    n += wire_frame(f + n, 0x82, "a", 1);
    ws_bad(f, n, 100, 1002, PM_CLOSE_WS);
    uint8_t large[101] = {0};
    ws_bad(f, wire_frame(f, 0x82, large, 101), 100, 1009,
           PM_CLOSE_PACKAGE_SIZE);
    n = wire_frame(f, 0x02, large, 60);
    n += wire_frame(f + n, 0x80, large, 60);
    ws_bad(f, n, 100, 1009, PM_CLOSE_PACKAGE_SIZE);
    /* Only the head of something enormous. */
    ws_bad((const uint8_t *)"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\1\2\3\4",
           14, 100, 1009, PM_CLOSE_PACKAGE_SIZE);
}

/* The server closes: it waits for the client's close frame, not for 30 s. */
static void test_ws_close_handshake(void **state)
{
    wire w;
    (void)state;
    wire_start_ws(&w, NULL);
    pmi_conn_pause(w.b.server.conn);
    wire_send_frame(&w, 0x82, "unheard", 7);
    wire_turns(&w, 5);
    pmi_conn_close(w.b.server.conn, PM_CLOSE_STOP, true, 0);
    WIRE_UNTIL(&w, w.len == 4);
    assert_memory_equal(w.in, "\x88\x02\x03\xe8", 4);
    wire_turns(&w, 5);
    assert_int_equal(w.b.server.closes, 0);
    wire_send_frame(&w, 0x88, "\x03\xe8", 2);
    WIRE_UNTIL(&w, w.b.server.closes && w.eof);
    assert_int_equal(w.b.server.messages, 0);
    assert_int_equal(w.b.server.reason, PM_CLOSE_STOP);
    wire_end(&w);
}

/* Not a WebSocket server: our client says so. */
/* The last one has no accept key. */
static void test_ws_client_refused(void **state)
{
    static const char *const answers[] = {
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "nonsense\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(answers); i++) {
        struct sockaddr_in addr = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof addr;
        bench b = {0};
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), fd = -1;
        assert_ok(bench_loop(&b, VIA_WS));
        assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);
        assert_int_equal(listen(listener, 1), 0);
        getsockname(listener, (struct sockaddr *)&addr, &len);
        pmi_connect_opts opts = {.host = "localhost",
                                 .port = ntohs(addr.sin_port),
                                 .framing = PMI_FRAMING_WS,
                                 .limits = bench_limits()};
        assert_ok(pmi_conn_connect(b.loop, &opts, &bench_events, &b.client,
                                   &b.client.conn));
        BENCH_UNTIL(&b, (fd = accept(listener, NULL, NULL)) >= 0);
        send(fd, answers[i], strlen(answers[i]), MSG_NOSIGNAL);
        BENCH_UNTIL(&b, b.client.closes);
        assert_int_equal(b.client.opens, 0);
        assert_int_equal(b.client.reason, PM_CLOSE_HTTP);
        close(fd);
        close(listener);
        bench_end_all(&b);
    }
}

static void test_connect_arguments(void **state)
{
    bench b = {0};
    (void)state;
    assert_ok(bench_loop(&b, VIA_WS));
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = 1,
                             .framing = PMI_FRAMING_WS,
                             .ws_target = "/a b\r\nX: y",
                             .limits = bench_limits()};
    assert_err(pmi_conn_connect(b.loop, &opts, &bench_events, &b.client,
                                &b.client.conn),
               PM_EINVAL);
    opts.framing = PMI_FRAMING_SNIFF;
    assert_err(pmi_conn_connect(b.loop, &opts, &bench_events, &b.client,
                                &b.client.conn),
               PM_EINVAL);
    opts.framing = PMI_FRAMING_STREAM;
    opts.host = "";
    assert_err(pmi_conn_connect(b.loop, &opts, &bench_events, &b.client,
                                &b.client.conn),
               PM_EINVAL);
    bench_end_all(&b);
}

/* ---- Ends -------------------------------------------------------------- */
/* The peer resets while we write: an event, never a signal. */
static void test_reset_while_writing(void **state)
{
    struct linger hard = {1, 0};
    pmi_conn_limits limits = bench_limits();
    static uint8_t large[1000000];
    wire w;
    (void)state;
    limits.send_buffer = 4096;
    wire_start(&w, &limits);
    wire_send(&w, "\0\0\0\1x", 5);
    while (!w.b.server.messages)
        pm_loop_poll(w.b.loop, 0);
    assert_ok(bench_send(w.b.server.conn, large, sizeof large, 0));
    bench_turns(&w.b, 5);
    assert_true(pmi_conn_queued(w.b.server.conn) > 0);
    setsockopt(w.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(w.fd);
    w.fd = -1;
    assert_ok(bench_send(w.b.server.conn, large, sizeof large, 0));
    pmi_conn_flush(w.b.server.conn);
    BENCH_UNTIL(&w.b, w.b.server.closes);
    assert_int_equal(w.b.server.reason, PM_CLOSE_RESET);
    wire_end(&w);
}

static void test_half_close(void **state)
{
    wire w;
    (void)state;
    wire_start(&w, NULL);
    w.b.server.echo = true;
    wire_send(&w, "\0\0\0\1x", 5);
    shutdown(w.fd, SHUT_WR);
    WIRE_UNTIL(&w, w.eof && w.b.server.closes);
    assert_int_equal(w.len, 5); /* the answer came before the end */
    assert_int_equal(w.b.server.reason, PM_CLOSE_CLIENT);
    wire_end(&w);
}

/* FIN, then what the peer still says is read and dropped until it ends. */
static void test_linger(void **state)
{
    wire w;
    (void)state;
    wire_start(&w, NULL);
    wire_send(&w, "\0\0\0\1x", 5);
    WIRE_UNTIL(&w, w.b.server.messages == 1);
    pmi_conn_close(w.b.server.conn, PM_CLOSE_SERVER, true, 0);
    WIRE_UNTIL(&w, w.eof);
    wire_send(&w, "\0\0\0\1y", 5);
    wire_turns(&w, 20);
    assert_int_equal(w.b.server.messages, 1);
    assert_int_equal(w.b.server.closes, 0);
    shutdown(w.fd, SHUT_WR);
    WIRE_UNTIL(&w, w.b.server.closes);
    assert_int_equal(w.b.server.reason, PM_CLOSE_SERVER);
    wire_end(&w);
}

/* The peer does not end: we do, after 30 s. */
static void test_linger_ends(void **state)
{
    (void)state;
    for (int ws = 0; ws < 2; ws++) {
        wire w;
        if (ws) {
            wire_start_ws(&w, NULL);
        } else {
            wire_start(&w, NULL);
            wire_send(&w, "\0\0\0\1x", 5);
            WIRE_UNTIL(&w, w.b.server.messages == 1);
        }
        pmi_conn_close(w.b.server.conn, PM_CLOSE_SERVER, true, 0);
        wire_turns(&w, 5);
        w.b.skew_us += 29 * 1000 * 1000;
        wire_turns(&w, 5);
        assert_int_equal(w.b.server.closes, 0);
        w.b.skew_us += 2 * 1000 * 1000;
        WIRE_UNTIL(&w, w.b.server.closes);
        assert_int_equal(w.b.server.reason, PM_CLOSE_SERVER);
        wire_end(&w);
    }
}

/* Out of descriptors: accepting rests, and goes on by itself. */
static void test_descriptors(void **state)
{
    struct rlimit old, low;
    pmi_conn_limits limits = bench_limits();
    bench b = {0};
    (void)state;
    assert_ok(bench_loop(&b, VIA_TCP));
    assert_ok(bench_listen(&b, &limits));
    int fd = wire_connect(pmi_listener_port(b.listener));
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)fd + 1;
    setrlimit(RLIMIT_NOFILE, &low);
    bench_turns(&b, 20);
    int accepted = b.accepted;
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(accepted, 0);
    uint64_t start = bench_clock_us();
    BENCH_UNTIL(&b, b.accepted == 1);
    assert_true(bench_clock_us() - start > 50 * 1000);
    close(fd);
    bench_end_all(&b);
}

static void test_listen_errors(void **state)
{
    bench b = {0};
    pmi_conn_limits limits = bench_limits();
    pmi_listener *second = NULL;
    (void)state;
    assert_ok(bench_loop(&b, VIA_TCP));
    assert_ok(bench_listen(&b, &limits));
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .port = pmi_listener_port(b.listener),
                            .accepted = bench_accepted};
    assert_err(pmi_listen(b.loop, &opts, &second), PM_EADDR);
    opts.memory_only = true; /* the door is taken too */
    assert_err(pmi_listen(b.loop, &opts, &second), PM_EADDR);
    opts.memory_only = false;
    opts.host = "no.such.name";
    opts.port = 0;
    assert_err(pmi_listen(b.loop, &opts, &second), PM_ERESOLVE);
    opts.host = "192.0.2.1"; /* not ours */
    assert_err(pmi_listen(b.loop, &opts, &second), PM_EADDR);
    assert_null(second);
    bench_end_all(&b);
}

/* ---- The memory link's faults, in virtual time ------------------------- */
typedef struct fault_plan {
    uint64_t delays[8];
    size_t asked;
    char names[64];
} fault_plan;

static uint64_t fault(void *ctx, const char *from, const char *to, size_t bytes)
{
    fault_plan *plan = ctx;
    (void)bytes;
    snprintf(plan->names, sizeof plan->names, "%s>%s", from, to);
    return plan->asked < 8 ? plan->delays[plan->asked++] : 0;
}

static void virtual_start(bench *b, test_world *world)
{
    pmi_conn_limits limits = bench_limits();
    pm_loop_opts opts = test_world_opts(world, &b->heap);
    b->via = VIA_MEMORY;
    b->client.bench = b->server.bench = b;
    assert_ok(pm_loop_new(&b->loop, &opts));
    assert_ok(bench_listen(b, &limits));
    assert_int_equal(pmi_listener_port(b->listener), 40000);
    assert_ok(bench_connect(b, &limits));
    assert_true(test_world_run(world, b->loop, 1000));
    assert_int_equal(b->client.opens, 1);
    assert_int_equal(b->accepted, 1);
}

static void test_link_delay(void **state)
{
    test_world world = {.seed = 1};
    fault_plan plan = {.delays = {50000, 1000, 0}};
    bench b = {0};
    (void)state;
    virtual_start(&b, &world);
    pmi_loop_set_link_fault(b.loop, fault, &plan);
    assert_ok(bench_send(b.client.conn, "a", 1, 0));
    assert_true(test_world_run(&world, b.loop, 10000));
    assert_string_equal(plan.names, "client>127.0.0.1:40000");
    assert_ok(bench_send(b.client.conn, "b", 1, 0)); /* faster: no matter */
    assert_true(test_world_run(&world, b.loop, 30000));
    assert_int_equal(b.server.messages, 0);
    pmi_conn_close(b.client.conn, PM_CLOSE_SERVER, false, 0);
    assert_true(test_world_run(&world, b.loop, 5000));
    assert_int_equal(b.client.closes, 1);
    assert_int_equal(b.server.closes, 0);
    assert_true(test_world_run(&world, b.loop, 10000));
    assert_string_equal(b.server.log, "ab");
    assert_int_equal(b.server.closes, 1);
    assert_int_equal(b.server.reason, PM_CLOSE_CLIENT);
    bench_end_all(&b);
}

static void test_link_cut(void **state)
{
    (void)state;
    for (int paused = 0; paused < 2; paused++) {
        test_world world = {.seed = 1};
        fault_plan plan = {.delays = {0, UINT64_MAX}};
        bench b = {0};
        virtual_start(&b, &world);
        if (paused)
            pmi_conn_pause(b.server.conn);
        pmi_loop_set_link_fault(b.loop, fault, &plan);
        assert_ok(bench_send(b.client.conn, "a", 1, 0));
        assert_true(test_world_run(&world, b.loop, 1000));
        assert_ok(bench_send(b.client.conn, "b", 1, 0));
        assert_true(test_world_run(&world, b.loop, 1000));
        assert_string_equal(b.server.log, paused ? "" : "a");
        assert_int_equal(b.client.closes, 1);
        assert_int_equal(b.server.closes, 1);
        assert_int_equal(b.client.reason, PM_CLOSE_CUT);
        assert_int_equal(b.server.reason, PM_CLOSE_CUT);
        bench_end_all(&b);
    }
}

/* A reader that pauses makes the writer's queue grow, past the window. */
static void test_link_window(void **state)
{
    enum { LARGE = 1000 * 1000 };
    static uint8_t large[LARGE];
    test_world world = {.seed = 1};
    bench b = {0};
    (void)state;
    virtual_start(&b, &world);
    pmi_conn_pause(b.server.conn);
    assert_ok(bench_send(b.client.conn, large, LARGE, 0));
    assert_true(test_world_run(&world, b.loop, 1000));
    assert_in_range(pmi_conn_queued(b.client.conn), LARGE - 300 * 1024,
                    LARGE - 200 * 1024);
    pmi_conn_resume(b.server.conn);
    assert_true(test_world_run(&world, b.loop, 1000));
    assert_int_equal(b.server.messages, 1);
    assert_int_equal(pmi_conn_queued(b.client.conn), 0);
    assert_int_equal(b.client.drains, 1);
    /* At rest nothing wakes. */
    assert_true(pm_loop_next_us(b.loop) == UINT64_MAX);
    bench_end_all(&b);
}

static void test_memory_only_refused(void **state)
{
    test_world world = {.seed = 1};
    bench b = {0};
    pm_loop_opts opts = test_world_opts(&world, &b.heap);
    (void)state;
    assert_ok(pm_loop_new(&b.loop, &opts));
    pmi_connect_opts to = {.host = "127.0.0.1",
                           .port = 9,
                           .framing = PMI_FRAMING_STREAM,
                           .limits = bench_limits()};
    assert_ok(pmi_conn_connect(b.loop, &to, &bench_events, &b.client,
                               &b.client.conn));
    assert_int_equal(b.client.closes, 0);
    assert_true(test_world_run(&world, b.loop, 1000));
    assert_int_equal(b.client.reason, PM_CLOSE_CONNECT);
    bench_end_all(&b);
}

/* ---- Many at once ------------------------------------------------------ */
enum { CROWD = 32 };

typedef struct crowd {
    bench b;
    pmi_conn *conns[CROWD];
    int fds[CROWD], count;
} crowd;

/* A "?" is answered. */
static size_t crowd_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    pm_slice bytes = {data, len};
    (void)ctx;
    if (data[len - 1] == '?')
        assert_ok(pmi_conn_send(conn, &bytes, 1, 0));
    return len;
}

static void crowd_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    (void)conn;
    (void)reason;
    (void)ctx;
}

static const pmi_conn_events crowd_events = {.data = crowd_data,
                                             .closed = crowd_closed};

static void crowd_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    crowd *all = ctx;
    (void)listener;
    assert_true(all->count < CROWD);
    all->conns[all->count++] = conn;
    pmi_conn_start(conn, &crowd_events, all);
}

static void crowd_say(const crowd *all, const char *word)
{
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(send(all->fds[i], word, 1, MSG_NOSIGNAL), 1);
}

/* All are ready in one turn: only a few hold a chunk until its end. */
static void test_crowd(void **state)
{
    crowd all = {0};
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .framing = PMI_FRAMING_STREAM,
                            .limits = bench_limits(),
                            .accepted = crowd_accepted,
                            .ctx = &all};
    size_t before;
    char got;
    (void)state;
    assert_ok(bench_loop(&all.b, VIA_TCP));
    assert_ok(pmi_listen(all.b.loop, &opts, &all.b.listener));
    for (int i = 0; i < CROWD; i++)
        all.fds[i] = wire_connect(pmi_listener_port(all.b.listener));
    BENCH_UNTIL(&all.b, all.count == CROWD);
    crowd_say(&all, ".");
    bench_turns(&all.b, 10);
    before = all.b.heap.live_bytes;
    all.b.heap.peak_bytes = before;
    crowd_say(&all, "?");
    for (int i = 0; i < CROWD; i++)
        BENCH_UNTIL(&all.b, recv(all.fds[i], &got, 1, MSG_DONTWAIT) == 1);
    assert_true(all.b.heap.peak_bytes - before >= PMI_CHUNK_SMALL);
    assert_true(all.b.heap.peak_bytes - before < 5 * PMI_CHUNK_SMALL);
    for (int i = 0; i < CROWD; i++) {
        pmi_conn_free(all.conns[i]);
        close(all.fds[i]);
    }
    bench_end_all(&all.b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_crowd),
    cmocka_unit_test(test_sniff_stream),
    cmocka_unit_test(test_sniff_ws),
    cmocka_unit_test(test_upgrade_pipelined),
    cmocka_unit_test(test_refused_first_bytes),
    cmocka_unit_test(test_only_get),
    cmocka_unit_test(test_open_timeout),
    cmocka_unit_test(test_ws_control),
    cmocka_unit_test(test_ws_free_in_joined),
    cmocka_unit_test(test_ws_bad),
    cmocka_unit_test(test_ws_close_handshake),
    cmocka_unit_test(test_ws_client_refused),
    cmocka_unit_test(test_connect_arguments),
    cmocka_unit_test(test_reset_while_writing),
    cmocka_unit_test(test_half_close),
    cmocka_unit_test(test_linger),
    cmocka_unit_test(test_linger_ends),
    cmocka_unit_test(test_descriptors),
    cmocka_unit_test(test_listen_errors),
    cmocka_unit_test(test_link_delay),
    cmocka_unit_test(test_link_cut),
    cmocka_unit_test(test_link_window),
    cmocka_unit_test(test_memory_only_refused),
};
TEST_MAIN(tests)
