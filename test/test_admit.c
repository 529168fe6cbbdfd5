/* SPDX-License-Identifier: MIT */
/* test_admit.c -- who may come in: blocks of addresses, connections a second of
 * an address, and what is believed of a proxy. Sockets are real, time is not.
 * Who comes from 127.0.0.9 is a proxy. */
#include "flow.h"

#include "test_certs.h"

#include "core/cidrs.h"
#include "core/proxy.h"
#include "pomelo_admit_internal.h"
#include "pomelo_connector_internal.h"

#include <errno.h>
#include <netinet/tcp.h>

#define PROXY "127.0.0.9"

/* ---- Blocks ------------------------------------------------------------ */

static pmi_addr at(const char *host)
{
    pmi_addr addr;
    assert_true(pmi_addr_parse(&addr, host, 1));
    return addr;
}

static bool has(const pmi_cidrs *set, const char *host)
{
    pmi_addr addr = at(host);
    return pmi_cidrs_match(set, &addr);
}

static void test_cidrs(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_cidrs set;
    (void)state;
    pmi_cidrs_init(&set, &env, 1, 2);
    assert_false(has(&set, "192.0.2.1"));
    assert_ok(pmi_cidrs_add(&set, "192.0.2.0/24"));
    assert_ok(pmi_cidrs_add(&set, "192.0.2.77/24")); /* the same */
    assert_ok(pmi_cidrs_add(&set, "192.0.0.0/16"));
    assert_ok(pmi_cidrs_add(&set, "10.1.2.3"));
    assert_ok(pmi_cidrs_add(&set, "2001:db8::/32"));
    assert_ok(pmi_cidrs_add(&set, "::1"));
    assert_err(pmi_cidrs_add(&set, "192.0.2.0/33"), PM_EINVAL);
    assert_err(pmi_cidrs_add(&set, "here"), PM_EINVAL);
    assert_err(pmi_cidrs_add(&set, NULL), PM_EINVAL);
    assert_true(has(&set, "192.0.2.255"));
    assert_true(has(&set, "192.0.3.1"));
    assert_false(has(&set, "192.1.2.1"));
    assert_true(has(&set, "10.1.2.3"));
    assert_false(has(&set, "10.1.2.4"));
    assert_true(has(&set, "2001:db8:ffff::7"));
    assert_false(has(&set, "2001:db9::7"));
    assert_true(has(&set, "::ffff:10.1.2.3"));
    assert_ok(pmi_cidrs_remove(&set, "192.0.0.0/16"));
    assert_false(has(&set, "192.0.3.1"));
    assert_true(has(&set, "192.0.2.255"));
    assert_err(pmi_cidrs_remove(&set, "192.0.0.0/16"), PM_ENOTFOUND);
    assert_err(pmi_cidrs_remove(&set, "192.0.0.0/99"), PM_EINVAL);
    assert_ok(pmi_cidrs_add(&set, "0.0.0.0/0"));
    assert_true(has(&set, "8.8.8.8"));
    assert_false(has(&set, "2001:db9::7"));
    pmi_cidrs_fini(&set);
    assert_heap_empty(&heap);
}

static void test_cidrs_many(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_cidrs set;
    char text[32];
    (void)state;
    pmi_cidrs_init(&set, &env, 1, 2);
    for (int i = 0; i < PMI_CIDRS_MAX; i++) {
        snprintf(text, sizeof text, "10.%d.%d.0/24", i / 256, i % 256);
        assert_ok(pmi_cidrs_add(&set, text));
    }
    assert_err(pmi_cidrs_add(&set, "192.0.2.0/24"), PM_ELIMIT);
    assert_ok(pmi_cidrs_add(&set, "10.0.5.0/24"));
    assert_true(has(&set, "10.0.7.7"));
    assert_false(has(&set, "11.0.7.7"));
    pmi_cidrs_fini(&set);
    TEST_EACH_FAILURE(&heap)
    {
        pmi_cidrs_init(&set, &env, 1, 2);
        if (pmi_cidrs_add(&set, "192.0.2.0/24") == PM_OK)
            assert_true(has(&set, "192.0.2.1"));
        else
            assert_false(has(&set, "192.0.2.1"));
        pmi_cidrs_fini(&set);
    }
}

/* ---- The PROXY header -------------------------------------------------- */

/* Fed as a connection does it: never more than it wants. Returns what the last
 * call said; *used is how much it has read. */
static long fed(const void *bytes, size_t len, pmi_proxy *out, size_t *used)
{
    uint8_t *copy = NULL;
    size_t wants = 0;
    long n;
    *used = 0;
    for (;;) {
        free(copy);
        copy = test_copy(bytes, *used);
        n = pmi_proxy_parse(copy, *used, out, &wants);
        if (n || *used + wants > len)
            break;
        assert_true(wants > 0);
        *used += wants;
    }
    free(copy);
    return n;
}

static void line_is(const char *line, bool good, const char *from)
{
    char text[PMI_ADDR_TEXT_MAX];
    size_t len = strlen(line), used;
    pmi_proxy told;
    long n = fed(line, len, &told, &used);
    if (!good) {
        assert_true(n < 0);
        return;
    }
    assert_int_equal(n, len);
    assert_int_equal(used, len);
    assert_int_equal(told.told, from != NULL);
    if (from)
        assert_string_equal(pmi_addr_text(&told.from, text), from);
}

static void test_proxy_line(void **state)
{
    (void)state;
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n", true,
            "192.0.2.7");
    line_is("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", true, "1.1.1.1");
    line_is("PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", true, "2001:db8::7");
    line_is("PROXY UNKNOWN\r\n", true, NULL);
    line_is("PROXY UNKNOWN ffff:f...f:ffff ffff 65535 65535\r\n", true, NULL);
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 51234 65536\r\n", false, NULL);
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 051 443\r\n", false, NULL);
    line_is("PROXY TCP4 192.0.2.7  198.51.100.1 51 443\r\n", false, NULL);
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 51 443 \r\n", false, NULL);
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 51 443 9\r\n", false, NULL);
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 51\r\n", false, NULL);
    line_is("PROXY TCP4 192.0.2.7 198.51.100.1 51 443\n\r\n\r\n", false, NULL);
    line_is("PROXY TCP4 2001:db8::7 ::1 51 443\r\n", false, NULL);
    line_is("PROXY TCP6 192.0.2.7 198.51.100.1 51 443\r\n", false, NULL);
    line_is("PROXY TCP4 localhost 198.51.100.1 51 443\r\n", false, NULL);
    line_is("PROXY TCP5 192.0.2.7 198.51.100.1 51 443\r\n", false, NULL);
    line_is("PROXY\r\n12345678", false, NULL);
    line_is("GET / HTTP/1.1\r\n", false, NULL);
    /* A line without an end. */
    line_is("PROXY UNKNOWN aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            false, NULL);
}

#define MAGIC "0d0a0d0a000d0a515549540a"

static void binary_is(const char *hex, bool good, const char *from)
{
    char text[PMI_ADDR_TEXT_MAX];
    size_t len, used;
    uint8_t *bytes = test_unhex(hex, &len);
    pmi_proxy told;
    long n = fed(bytes, len, &told, &used);
    if (good) {
        assert_int_equal(n, len);
        assert_int_equal(used, len);
        assert_int_equal(told.told, from != NULL);
        if (from)
            assert_string_equal(pmi_addr_text(&told.from, text), from);
    } else {
        assert_true(n < 0);
    }
    free(bytes);
}

static void test_proxy_binary(void **state)
{
    pmi_proxy told;
    size_t used, len;
    uint8_t *bytes;
    (void)state;
    binary_is(MAGIC "2111000c c0000207 c6336401 c822 01bb", true, "192.0.2.7");
    /* With something behind the addresses. */
    binary_is(MAGIC "21110013 c0000207 c6336401 c822 01bb 030004deadbeef", true,
              "192.0.2.7");
    binary_is(MAGIC "21210024 20010db8000000000000000000000007"
                    "00000000000000000000000000000001 c822 01bb",
              true, "2001:db8::7");
    binary_is(MAGIC "20000000", true, NULL); /* LOCAL */
    binary_is(MAGIC "2011000c c0000207 c6336401 c822 01bb", true, NULL);
    binary_is(MAGIC "20440000", true, NULL);
    binary_is(MAGIC "21440000", false, NULL);
    binary_is(MAGIC "21000003 010203", true, NULL); /* UNSPEC */
    binary_is(MAGIC "2112000c c0000207 c6336401 c822 01bb", true,
              NULL); /* UDP */
    binary_is(MAGIC "2111000b c0000207 c6336401 c822 01", false, NULL);
    binary_is(MAGIC "2121000c c0000207 c6336401 c822 01bb", false, NULL);
    binary_is(MAGIC "2211000c c0000207 c6336401 c822 01bb", false, NULL);
    binary_is(MAGIC "1111000c c0000207 c6336401 c822 01bb", false, NULL);
    binary_is(MAGIC "2141000c c0000207 c6336401 c822 01bb", false, NULL);
    binary_is(MAGIC "2111ffff", false, NULL); /* 64 KiB */
    binary_is(MAGIC "21110401", false, NULL); /* one more than we take */
    binary_is("0d0a0d0a000d0a515549540b 2111000c", false, NULL);
    /* Cut anywhere: more is wanted, never too much. */
    bytes = test_unhex(MAGIC "2111000c c0000207 c6336401 c822 01bb", &len);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(fed(bytes, n, &told, &used), 0);
    free(bytes);
}

static bool trusts(const pmi_addr *addr, void *ctx)
{
    char text[PMI_ADDR_TEXT_MAX];
    (void)ctx;
    return !strncmp(pmi_addr_text(addr, text), "10.", 3);
}

static void forwarded_is(const char *list, const char *from)
{
    char text[PMI_ADDR_TEXT_MAX];
    size_t len = strlen(list);
    uint8_t *copy = test_copy(list, len);
    pmi_addr addr;
    pm_slice line = {copy, len};
    bool found = pmi_proxy_forwarded(&line, 1, trusts, NULL, &addr);
    assert_int_equal(found, from != NULL);
    if (from)
        assert_string_equal(pmi_addr_text(&addr, text), from);
    free(copy);
}

static void test_forwarded(void **state)
{
    (void)state;
    forwarded_is("192.0.2.7", "192.0.2.7");
    forwarded_is(" 192.0.2.7 ", "192.0.2.7");
    forwarded_is("192.0.2.7, 10.0.0.1", "192.0.2.7");
    forwarded_is("192.0.2.7,10.0.0.1,10.0.0.2", "192.0.2.7");
    /* What a client has made up stands further left. */
    forwarded_is("8.8.8.8, 192.0.2.7, 10.0.0.1", "192.0.2.7");
    forwarded_is("10.0.0.9, 192.0.2.7, 10.0.0.1", "192.0.2.7");
    forwarded_is("10.0.0.2, 10.0.0.1", "10.0.0.2");
    forwarded_is("192.0.2.7:51234, 10.0.0.1", "192.0.2.7");
    forwarded_is("[2001:db8::7]:51234", "2001:db8::7");
    forwarded_is("2001:db8::7", "2001:db8::7");
    /* No address: what stands right of it is all that we know. */
    forwarded_is("unknown", NULL);
    forwarded_is("", NULL);
    forwarded_is(",", NULL);
    forwarded_is("_hidden, 10.0.0.1", "10.0.0.1");
    forwarded_is("192.0.2.7, evil.example", NULL);
    forwarded_is("192.0.2.7, [2001:db8::7", NULL);
    forwarded_is("192.0.2.7, localhost", NULL);
}

/* ---- A frontend on real sockets ---------------------------------------- */

typedef struct door {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pm_app *app;
    pm_app_opts opts;
    pm_server server;
    int opened, closed, asked;
    pm_close_reason why;
    char address[64], blamed[64];
    bool free_inside;
} door;

static void on_door_opened(pm_app *app, pm_session *session, void *ctx)
{
    door *d = ctx;
    (void)app;
    d->opened++;
    snprintf(d->address, sizeof d->address, "%s", pm_session_address(session));
}

static void on_door_closed(pm_app *app, pm_session *session,
                           pm_close_reason reason, void *ctx)
{
    door *d = ctx;
    (void)app;
    (void)session;
    d->closed++;
    d->why = reason;
}

static bool on_door_asked(const char *address, void *ctx)
{
    door *d = ctx;
    d->asked++;
    snprintf(d->blamed, sizeof d->blamed, "%s", address);
    if (d->free_inside) {
        pm_app *app = d->app;
        d->app = NULL;
        pm_app_free(app);
    }
    return false;
}

static const char *const door_proxies[] = {PROXY, "127.0.9.0/24"};

static void door_init(door *d)
{
    memset(d, 0, sizeof *d);
    d->world.now_us = 5000000;
    d->world.seed = 1;
    d->server = (pm_server){.id = "connector-1",
                            .type = "connector",
                            .host = "127.0.0.1",
                            .frontend = true};
    d->opts = pm_app_opts_default();
    d->opts.servers = &d->server;
    d->opts.servers_count = 1;
    d->opts.client_bind = "127.0.0.1";
    d->opts.connector.proxies = door_proxies;
    d->opts.connector.proxies_count = 2;
    d->opts.connector.blacklist = on_door_asked;
    d->opts.connector.ctx = d;
}

static pm_err door_open(door *d)
{
    pm_loop_opts opts = test_world_opts(&d->world, &d->heap);
    pm_app_events events = pm_app_events_default();
    pm_err err;
    opts.memory_only = false;
    err = pm_loop_new(&d->loop, &opts);
    d->opts.loop = d->loop;
    d->opts.client_bind = NULL; /* 127.0.0.9 comes in too */
    if (err == PM_OK)
        err = pm_app_new(&d->app, &d->opts);
    events.session_opened = on_door_opened;
    events.session_closed = on_door_closed;
    if (err == PM_OK)
        err = pm_app_listen(d->app, &events, d);
    if (err == PM_OK)
        err = pm_app_start(d->app);
    return err;
}

static void door_close(door *d)
{
    pm_app_free(d->app);
    d->app = NULL;
    if (d->loop)
        assert_ok(pm_loop_free(d->loop));
    d->loop = NULL;
    assert_heap_empty(&d->heap);
}

static void door_turn(door *d)
{
    for (int i = 0; i < 20; i++)
        pm_loop_poll(d->loop, 0);
}

static void door_wait(door *d, uint32_t ms)
{
    door_turn(d);
    d->world.now_us += (uint64_t)ms * 1000;
    door_turn(d);
}

static uint64_t door_count(const door *d, pm_close_reason reason)
{
    return pmi_connector_closed(pmi_app_connector(d->app))[reason];
}

static int knock(door *d, const char *from)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct timeval patience = {5, 0};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, from, &sin.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    inet_pton(AF_INET, "127.0.0.1", &sin.sin_addr);
    sin.sin_port = htons(pm_app_client_port(d->app));
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    door_turn(d);
    return fd;
}

static void say(door *d, int fd, const void *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
    if (d->app)
        door_turn(d);
}

static void say_hex(door *d, int fd, const char *hex)
{
    size_t len;
    uint8_t *data = test_unhex(hex, &len);
    say(d, fd, data, len);
    free(data);
}

static void say_text(door *d, int fd, const char *text)
{
    say(d, fd, text, strlen(text));
}

/* Everything that the other side has sent; -1 when it is gone. */
static long heard(int fd, uint8_t *room, size_t size)
{
    ssize_t n = recv(fd, room, size, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET) ? -1 : n < 0 ? 0 : n;
}

static bool is_gone(int fd)
{
    uint8_t room[4096];
    long n;
    do
        n = heard(fd, room, sizeof room);
    while (n > 0);
    return n < 0;
}

/* Handshake and ACK, in pieces of two segments. */
static void shake(door *d, int fd)
{
    say_hex(d, fd, "0100000a 7b22737973223a7b7d7d");
    say_hex(d, fd, "02000000");
}

static const char v2_header[] = MAGIC "2111000c c0000207 c6336401 c822 01bb";
static const char v1_header[] =
    "PROXY TCP4 192.0.2.8 198.51.100.1 51234 443\r\n";

/* One byte a segment, all in one segment, both versions; what comes behind it
 * belongs to the client. */
static void test_header(void **state)
{
    static const char handshake[] = "0100000a 7b22737973223a7b7d7d";
    door d;
    uint8_t all[256];
    size_t len, more;
    uint8_t *header = test_unhex(v2_header, &len);
    uint8_t *hello = test_unhex(handshake, &more);
    int fd;
    (void)state;
    door_init(&d);
    d.opts.connector.proxy_header = true;
    assert_ok(door_open(&d));
    for (int version = 1; version <= 2; version++) {
        const void *text = version == 1 ? (const void *)v1_header : header;
        size_t size = version == 1 ? sizeof v1_header - 1 : len;
        const char *from = version == 1 ? "192.0.2.8" : "192.0.2.7";
        fd = knock(&d, PROXY);
        for (size_t i = 0; i < size; i++)
            say(&d, fd, (const uint8_t *)text + i, 1);
        shake(&d, fd);
        assert_string_equal(d.address, from);
        assert_string_equal(d.blamed, from);
        close(fd);
        door_turn(&d);
        d.address[0] = 0;
        fd = knock(&d, PROXY);
        memcpy(all, text, size);
        memcpy(all + size, hello, more);
        say(&d, fd, all, size + more);
        say_hex(&d, fd, "02000000");
        assert_string_equal(d.address, from);
        close(fd);
        door_turn(&d);
    }
    assert_int_equal(d.opened, 4);
    assert_int_equal(d.asked, 4);
    /* A connection of its own (a health check) is the proxy's. */
    fd = knock(&d, PROXY);
    say_hex(&d, fd, MAGIC "20000000");
    shake(&d, fd);
    assert_string_equal(d.address, PROXY);
    assert_int_equal(d.asked, 4);
    close(fd);
    free(header);
    free(hello);
    door_close(&d);
}

/* From a proxy it must come, from others it must not. */
static void test_header_missing(void **state)
{
    static const char *const bad[] = {
        "0100000a 7b22737973223a7b7d7d", "474554202f20485454502f312e310d0a",
        MAGIC "2111ffff", "16030100", MAGIC "3111000c"};
    door d;
    int fd;
    (void)state;
    door_init(&d);
    d.opts.connector.proxy_header = true;
    assert_ok(door_open(&d));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fd = knock(&d, PROXY);
        say_hex(&d, fd, bad[i]);
        assert_true(is_gone(fd));
        assert_int_equal(door_count(&d, PM_CLOSE_PROXY), i + 1);
        close(fd);
    }
    /* Half of it, for ever. */
    fd = knock(&d, PROXY);
    say_hex(&d, fd, "0d0a0d0a00");
    door_wait(&d, 9900);
    assert_false(is_gone(fd));
    door_wait(&d, 200);
    assert_true(is_gone(fd));
    assert_int_equal(door_count(&d, PM_CLOSE_HANDSHAKE_TIMEOUT), 1);
    close(fd);
    /* Half of it, and away. */
    fd = knock(&d, PROXY);
    say_hex(&d, fd, "0d0a0d0a00");
    close(fd);
    door_turn(&d);
    assert_int_equal(door_count(&d, PM_CLOSE_CLIENT), 1);
    /* A player who sends one is no proxy. */
    fd = knock(&d, "127.0.0.1");
    say_hex(&d, fd, v2_header);
    assert_true(is_gone(fd));
    assert_int_equal(door_count(&d, PM_CLOSE_PACKAGE), 1);
    close(fd);
    /* And one who does not is welcome. */
    fd = knock(&d, "127.0.0.1");
    shake(&d, fd);
    assert_string_equal(d.address, "127.0.0.1");
    close(fd);
    door_close(&d);
}

static void say_upgrade(door *d, int fd, const char *headers)
{
    char text[1024];
    snprintf(text, sizeof text,
             "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n",
             headers);
    say_text(d, fd, text);
}

/* A frame of a client with the mask 0. */
static void say_frame(door *d, int fd, const char *hex)
{
    uint8_t frame[128] = {0x82, 0x80};
    size_t len;
    uint8_t *data = test_unhex(hex, &len);
    frame[1] = (uint8_t)(0x80 | len);
    memcpy(frame + 6, data, len);
    say(d, fd, frame, 6 + len);
    free(data);
}

static void forwarded_to(door *d, const char *from, const char *headers,
                         const char *address)
{
    int fd = knock(d, from);
    d->address[0] = 0;
    say_upgrade(d, fd, headers);
    say_frame(d, fd, "0100000a7b22737973223a7b7d7d");
    say_frame(d, fd, "02000000");
    assert_string_equal(d->address, address);
    close(fd);
    door_turn(d);
}

static void test_forwarded_for(void **state)
{
    door d;
    (void)state;
    door_init(&d);
    d.opts.connector.forwarded_for = true;
    assert_ok(door_open(&d));
    forwarded_to(&d, PROXY, "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7");
    /* Who is not trusted may say what he likes. */
    forwarded_to(&d, "127.0.0.1", "X-Forwarded-For: 192.0.2.7\r\n",
                 "127.0.0.1");
    assert_string_equal(d.blamed, "127.0.0.1");
    /* What the client has sent through the proxy stands in front. */
    forwarded_to(&d, PROXY, "X-Forwarded-For: 8.8.8.8, 192.0.2.7\r\n",
                 "192.0.2.7");
    forwarded_to(&d, PROXY,
                 "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: 192.0.2.7\r\n",
                 "192.0.2.7");
    forwarded_to(&d, PROXY, "X-Forwarded-For: 192.0.2.7, 127.0.9.4\r\n",
                 "192.0.2.7");
    /* A second proxy writes a line of its own. */
    forwarded_to(&d, PROXY,
                 "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: 192.0.2.7\r\n"
                 "X-Forwarded-For: 127.0.9.5, 127.0.9.4\r\n",
                 "192.0.2.7");
    forwarded_to(&d, PROXY,
                 "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: ?\r\n"
                 "X-Forwarded-For: 127.0.9.5\r\n",
                 "127.0.9.5");
    forwarded_to(&d, PROXY, "X-Forwarded-For: who knows\r\n", PROXY);
    forwarded_to(&d, PROXY, "", PROXY);
    door_close(&d);
    /* Off: nobody is asked what it says. */
    door_init(&d);
    assert_ok(door_open(&d));
    forwarded_to(&d, PROXY, "X-Forwarded-For: 192.0.2.7\r\n", PROXY);
    door_close(&d);
}

/* A proxy behind a proxy: the header names the second one, which is trusted,
 * and that one's X-Forwarded-For counts. */
static void test_two_proxies(void **state)
{
    door d;
    int fd;
    (void)state;
    door_init(&d);
    d.opts.connector.proxy_header = d.opts.connector.forwarded_for = true;
    assert_ok(door_open(&d));
    for (int trusted = 0; trusted < 2; trusted++) {
        fd = knock(&d, PROXY);
        say_text(&d, fd,
                 trusted ? "PROXY TCP4 127.0.9.5 127.0.0.1 1 2\r\n"
                         : "PROXY TCP4 192.0.2.8 127.0.0.1 1 2\r\n");
        say_upgrade(&d, fd, "X-Forwarded-For: 192.0.2.7\r\n");
        say_frame(&d, fd, "0100000a7b22737973223a7b7d7d");
        say_frame(&d, fd, "02000000");
        assert_string_equal(d.address, trusted ? "192.0.2.7" : "192.0.2.8");
        close(fd);
        door_turn(&d);
    }
    door_close(&d);
}

/* ---- The header in front of TLS ---------------------------------------- */

static void pass_on(int from, int to)
{
    uint8_t room[4096];
    ssize_t n = recv(from, room, sizeof room, MSG_DONTWAIT);
    if (n > 0)
        assert_int_equal(send(to, room, (size_t)n, MSG_NOSIGNAL), n);
}

/* A proxy that knows nothing of TLS: a header of its own, one byte a segment,
 * then what the client says. */
static void test_header_before_tls(void **state)
{
    certs_one authority, host;
    struct sockaddr_in here = {.sin_family = AF_INET};
    socklen_t len = sizeof here;
    pm_client_opts opts = pm_client_opts_default();
    pm_client *client = NULL;
    int listener, near, far;
    door d;
    (void)state;
    certs_authority(&authority, "authority");
    certs_leaf(&host, &authority, "host", "dns:localhost ip4:127.0.0.1");
    door_init(&d);
    d.opts.connector.proxy_header = true;
    d.opts.connector.tls.cert = host.cert;
    d.opts.connector.tls.key = host.key;
    assert_ok(door_open(&d));
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(listen(listener, 1), 0);
    getsockname(listener, (struct sockaddr *)&here, &len);
    opts.loop = d.loop;
    opts.port = ntohs(here.sin_port);
    opts.tls.on = true;
    opts.tls.ca = authority.cert;
    assert_ok(pm_client_new(&client, &opts));
    door_turn(&d);
    near = accept(listener, NULL, NULL);
    assert_true(near >= 0);
    far = knock(&d, PROXY);
    for (size_t i = 0; i < sizeof v1_header - 1; i++)
        say(&d, far, v1_header + i, 1);
    for (int i = 0; i < 1000 && !d.opened; i++) {
        door_turn(&d);
        pass_on(near, far);
        pass_on(far, near);
    }
    assert_int_equal(d.opened, 1);
    assert_string_equal(d.address, "192.0.2.8");
    pm_client_free(client);
    close(listener);
    close(near);
    close(far);
    door_close(&d);
    certs_free(&host);
    certs_free(&authority);
}

/* ---- Blocks that change ------------------------------------------------ */

static void test_blocks(void **state)
{
    door d;
    int fd, stays, told;
    (void)state;
    door_init(&d);
    d.opts.connector.proxy_header = true;
    assert_ok(door_open(&d));
    stays = knock(&d, "127.0.0.2");
    shake(&d, stays);
    told = knock(&d, PROXY);
    say_hex(&d, told, v2_header);
    shake(&d, told);
    assert_int_equal(d.opened, 2);
    assert_err(pm_app_block(d.app, "nowhere", false), PM_EINVAL);
    /* New ones only. */
    assert_ok(pm_app_block(d.app, "127.0.0.2/31", false));
    door_turn(&d);
    assert_false(is_gone(stays));
    fd = knock(&d, "127.0.0.3");
    assert_true(is_gone(fd));
    close(fd);
    assert_int_equal(door_count(&d, PM_CLOSE_BLACKLIST), 1);
    /* By whom the proxy speaks for, and not by the proxy. */
    assert_ok(pm_app_block(d.app, "192.0.2.0/24", true));
    assert_ok(pm_app_block(d.app, PROXY, true));
    door_turn(&d);
    assert_true(is_gone(told));
    assert_int_equal(d.why, PM_CLOSE_BLACKLIST);
    assert_int_equal(d.closed, 1);
    fd = knock(&d, PROXY);
    assert_false(is_gone(fd));
    say_hex(&d, fd, v2_header);
    assert_true(is_gone(fd));
    close(fd);
    /* Who was there is closed too when that is wanted. */
    assert_ok(pm_app_block(d.app, "127.0.0.2/31", true));
    door_turn(&d);
    assert_true(is_gone(stays));
    assert_int_equal(d.closed, 2);
    /* And back. */
    assert_err(pm_app_unblock(d.app, "127.0.0.2"), PM_ENOTFOUND);
    assert_ok(pm_app_unblock(d.app, "127.0.0.2/31"));
    fd = knock(&d, "127.0.0.3");
    shake(&d, fd);
    assert_int_equal(d.opened, 3);
    close(fd);
    close(stays);
    close(told);
    door_close(&d);
}

static void test_bad_options(void **state)
{
    static const char *const bad[] = {"10.0.0.0/8", "10.0.0.0/"};
    door d;
    (void)state;
    door_init(&d);
    d.opts.connector.proxies = bad;
    assert_err(door_open(&d), PM_ECONFIG);
    door_close(&d);
    door_init(&d);
    d.opts.connector.blocked = bad;
    d.opts.connector.blocked_count = 2;
    assert_err(door_open(&d), PM_ECONFIG);
    door_close(&d);
}

/* ---- Connections a second ---------------------------------------------- */

static void test_connects(void **state)
{
    door d;
    int fds[8];
    (void)state;
    door_init(&d);
    d.opts.limits.connects_per_s = 3;
    assert_ok(door_open(&d));
    for (int i = 0; i < 8; i++)
        fds[i] = knock(&d, "127.0.0.2");
    for (int i = 0; i < 8; i++)
        assert_int_equal(is_gone(fds[i]), i >= 3);
    assert_int_equal(door_count(&d, PM_CLOSE_ADDRESS_RATE), 5);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    /* Another one is another one, and a proxy is not counted. */
    fds[0] = knock(&d, "127.0.0.3");
    assert_false(is_gone(fds[0]));
    close(fds[0]);
    for (int i = 0; i < 8; i++) {
        fds[i] = knock(&d, PROXY);
        assert_false(is_gone(fds[i]));
        close(fds[i]);
    }
    /* Time heals. */
    door_wait(&d, 350);
    fds[0] = knock(&d, "127.0.0.2");
    fds[1] = knock(&d, "127.0.0.2");
    assert_false(is_gone(fds[0]));
    assert_true(is_gone(fds[1]));
    close(fds[0]);
    close(fds[1]);
    door_close(&d);
}

/* The table is bounded, forgets what is long ago, and counts an IPv6 address by
 * its /64. */
static void test_table(void **state)
{
    door d;
    pmi_admit *admit = NULL;
    char text[64];
    pmi_addr addr;
    (void)state;
    door_init(&d);
    d.opts.limits.connects_per_s = 2;
    d.opts.limits.addresses = 100;
    d.opts.connector.blacklist = NULL;
    assert_ok(door_open(&d));
    assert_ok(pmi_admit_new(d.app, &admit));
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "192.0.%d.%d", i / 250, i % 250);
        addr = at(text);
        assert_int_equal(pmi_admit_ask(admit, &addr), PM_CLOSE_NONE);
    }
    assert_int_equal(pmi_admit_addresses(admit), 100);
    d.world.now_us += 2000000;
    for (int i = 0; i < 60; i++) {
        snprintf(text, sizeof text, "2001:db8:1:2:%x::1", i);
        addr = at(text);
        assert_int_equal(pmi_admit_ask(admit, &addr),
                         i < 2 ? PM_CLOSE_NONE : PM_CLOSE_ADDRESS_RATE);
    }
    assert_int_equal(pmi_admit_addresses(admit), 1);
    addr = at("2001:db8:1:3::1");
    assert_int_equal(pmi_admit_ask(admit, &addr), PM_CLOSE_NONE);
    assert_int_equal(pmi_admit_addresses(admit), 2);
    pmi_admit_free(admit);
    door_close(&d);
}

/* ---- Overload, memory, the end ----------------------------------------- */

static void on_late(void *ctx)
{
    ((door *)ctx)->world.now_us += 30000;
}

/* New ones are refused at half of what the others are allowed. */
static void test_overload(void **state)
{
    door d;
    pm_server table = {.id = "connector-1",
                       .type = "connector",
                       .host = "127.0.0.1",
                       .client_port = 3050,
                       .frontend = true};
    pm_loop_opts loop;
    pm_client_opts client = pm_client_opts_default();
    pm_client *one = NULL;
    (void)state;
    door_init(&d);
    loop = test_world_opts(&d.world, &d.heap);
    assert_ok(pm_loop_new(&d.loop, &loop));
    d.opts.loop = d.loop;
    d.opts.servers = &table;
    d.opts.limits.lag_ms = 50;
    assert_ok(pm_app_new(&d.app, &d.opts));
    assert_ok(pm_app_start(d.app));
    client.loop = d.loop;
    client.port = 3050;
    for (int busy = 0; busy < 2; busy++) {
        assert_ok(pm_client_new(&one, &client));
        if (busy) /* in the turn in which it comes */
            assert_ok(pm_loop_post(d.loop, on_late, &d));
        assert_true(test_world_run(&d.world, d.loop, 100000));
        assert_int_equal(pm_client_is_connected(one), !busy);
        assert_int_equal(door_count(&d, PM_CLOSE_OVERLOAD), busy);
        pm_client_free(one);
    }
    door_close(&d);
}

static void test_memory(void **state)
{
    door d;
    (void)state;
    door_init(&d);
    d.opts.connector.proxy_header = d.opts.connector.forwarded_for = true;
    d.opts.limits.connects_per_s = 5;
    test_cjson_use(&d.heap);
    TEST_EACH_FAILURE(&d.heap)
    {
        d.opened = 0;
        if (door_open(&d) == PM_OK) {
            static const char *const from[] = {PROXY, "127.0.0.2"};
            for (int i = 0; i < 2; i++) {
                int fd = knock(&d, from[i]);
                if (i == 0)
                    say_text(&d, fd, v1_header);
                if (!is_gone(fd))
                    say_upgrade(&d, fd, "X-Forwarded-For: 192.0.2.7\r\n");
                if (!is_gone(fd))
                    say_frame(&d, fd, "0100000a7b22737973223a7b7d7d");
                if (!is_gone(fd))
                    say_frame(&d, fd, "02000000");
                close(fd);
                pm_app_block(d.app, "198.51.100.0/24", true);
            }
            door_turn(&d);
            if (!d.heap.failed)
                assert_int_equal(d.opened, 2);
        }
        door_close(&d);
    }
    test_cjson_use(NULL);
}

/* The application ends its app when it is asked about an address: on accept, by
 * the PROXY header, by X-Forwarded-For. */
static void test_free_inside(void **state)
{
    (void)state;
    for (int where = 0; where < 3; where++) {
        door d;
        int fd;
        door_init(&d);
        d.free_inside = true;
        d.opts.connector.proxy_header = where == 1;
        d.opts.connector.forwarded_for = where == 2;
        assert_ok(door_open(&d));
        fd = knock(&d, where == 0 ? "127.0.0.1" : PROXY);
        if (where == 1)
            say_hex(&d, fd, v2_header);
        else if (where == 2)
            say_upgrade(&d, fd, "X-Forwarded-For: 192.0.2.7\r\n");
        door_turn(&d);
        assert_null(d.app);
        assert_int_equal(d.asked, 1);
        assert_true(is_gone(fd));
        close(fd);
        door_close(&d);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_cidrs),
    cmocka_unit_test(test_cidrs_many),
    cmocka_unit_test(test_proxy_line),
    cmocka_unit_test(test_proxy_binary),
    cmocka_unit_test(test_forwarded),
    cmocka_unit_test(test_header),
    cmocka_unit_test(test_header_missing),
    cmocka_unit_test(test_forwarded_for),
    cmocka_unit_test(test_two_proxies),
    cmocka_unit_test(test_header_before_tls),
    cmocka_unit_test(test_blocks),
    cmocka_unit_test(test_bad_options),
    cmocka_unit_test(test_connects),
    cmocka_unit_test(test_table),
    cmocka_unit_test(test_overload),
    cmocka_unit_test(test_memory),
    cmocka_unit_test(test_free_inside),
};

TEST_MAIN(tests)
