/* SPDX-License-Identifier: MIT */
/* test/test_sock.c -- addresses, CIDR blocks, sockets on loopback, waking. */
#include "test.h"

#include "core/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* ---- Helpers ----------------------------------------------------------- */
static void wait_for(int fd, short what)
{
    struct pollfd p = {.fd = fd, .events = what};
    assert_int_equal(poll(&p, 1, 10000), 1);
}

static int listen_on(const char *host, pmi_addr *addr)
{
    int fd = -1;
    assert_true(pmi_addr_parse(addr, host, 0));
    assert_ok(pmi_sock_listen(addr, 16, &fd));
    assert_true(fd >= 0);
    assert_true(pmi_addr_port(addr) != 0);
    return fd;
}

/* Both ends of a connection over loopback. */
typedef struct pair {
    int listener, client, server;
    pmi_addr addr, peer;
} pair;

static void pair_open(pair *p, const char *host)
{
    p->listener = listen_on(host, &p->addr);
    assert_ok(pmi_sock_connect(&p->addr, &p->client));
    wait_for(p->listener, POLLIN);
    assert_ok(pmi_sock_accept(p->listener, &p->server, &p->peer));
    wait_for(p->client, POLLOUT);
    assert_ok(pmi_sock_error(p->client));
}

static void pair_close(pair *p)
{
    pmi_sock_close(p->client);
    pmi_sock_close(p->server);
    pmi_sock_close(p->listener);
}

static void pair_say(int from, const char *text)
{
    char copy[64];
    pmi_iov iov = {copy, strlen(text)};
    memcpy(copy, text, iov.len);
    assert_int_equal(pmi_sock_write(from, &iov, 1), (long)iov.len);
}

/* ---- Addresses --------------------------------------------------------- */
static void test_addr_parse(void **state)
{
    static const struct {
        const char *host, *text; /* NULL: no number */
    } cases[] = {
        {"127.0.0.1", "127.0.0.1"},
        {"0.0.0.0", "0.0.0.0"},
        {"", "0.0.0.0"},
        {"*", "0.0.0.0"},
        {NULL, "0.0.0.0"},
        {"localhost", "127.0.0.1"},
        {"::1", "::1"},
        {"[::1]", "::1"},
        {"::", "::"},
        {"[2001:db8::5]", "2001:db8::5"},
        {"::ffff:10.1.2.3", "10.1.2.3"},
        {"255.255.255.255", "255.255.255.255"},
        {"256.0.0.1", NULL},
        {"1.2.3", NULL},
        {"1.2.3.4.5", NULL},
        {"[127.0.0.1]", NULL},
        {"[::1", NULL},
        {"[", NULL},
        {"[]", NULL},
        {"::1]", NULL},
        {"1::2::3", NULL},
        {"example.org", NULL},
        {" 127.0.0.1", NULL},
        {"0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0",
         NULL},
    };
    char text[PMI_ADDR_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pmi_addr addr;
        bool number = pmi_addr_parse(&addr, cases[i].host, 4711);
        assert_int_equal(number, cases[i].text != NULL);
        if (!number)
            continue;
        assert_string_equal(pmi_addr_text(&addr, text), cases[i].text);
        assert_int_equal(pmi_addr_port(&addr), 4711);
        pmi_addr_set_port(&addr, 65535);
        assert_int_equal(pmi_addr_port(&addr), 65535);
        assert_string_equal(pmi_addr_text(&addr, text), cases[i].text);
    }
}

static void test_addr_none(void **state)
{
    char text[PMI_ADDR_TEXT_MAX];
    pmi_addr addr = {0};
    pmi_cidr all;
    int fd = -1;
    (void)state;
    pmi_addr_set_port(&addr, 5);
    assert_int_equal(pmi_addr_port(&addr), 0);
    assert_string_equal(pmi_addr_text(&addr, text), "-");
    assert_false(pmi_addr_is_loopback(&addr));
    assert_true(pmi_cidr_parse(&all, "0.0.0.0/0"));
    assert_false(pmi_cidr_match(&all, &addr));
    assert_err(pmi_sock_listen(&addr, 1, &fd), PM_EADDR);
    assert_err(pmi_sock_connect(&addr, &fd), PM_EADDR);
    assert_int_equal(fd, -1);
}

static void test_addr_loopback(void **state)
{
    static const struct {
        const char *host;
        bool loopback;
    } cases[] = {
        {"127.0.0.1", true},
        {"127.255.0.9", true},
        {"localhost", true},
        {"::1", true},
        {"::ffff:127.0.0.1", true},
        {"126.0.0.1", false},
        {"128.0.0.1", false},
        {"0.0.0.0", false},
        {"::", false},
        {"::2", false},
        {"7f00::1", false},
        {"::ffff:10.0.0.1", false},
    };
    pmi_addr addr;
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        assert_true(pmi_addr_parse(&addr, cases[i].host, 1));
        assert_int_equal(pmi_addr_is_loopback(&addr), cases[i].loopback);
    }
}

static void test_hosts(void **state)
{
    static const char file_text[] =
        "# 10.0.0.9 commented\n"
        "127.0.0.1\tlocalhost\n"
        "\n"
        "  10.0.0.1  db db.internal # 10.0.0.2 late\n"
        "fd00::7 six\r\n"
        "not-an-address broken\n"
        "* star\n"
        "10.0.0.3\n"
        "10.0.0.4 last";
    static const struct {
        const char *name, *text;
    } cases[] = {
        {"db", "10.0.0.1"},     {"DB.Internal", "10.0.0.1"},
        {"six", "fd00::7"},     {"last", "10.0.0.4"},
        {"commented", NULL},    {"late", NULL},
        {"broken", NULL},       {"star", NULL},
        {"10.0.0.1", NULL},     {"d", NULL},
        {"db.internal.", NULL},
    };
    char path[] = "/tmp/test_sock_XXXXXX", text[PMI_ADDR_TEXT_MAX];
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file_text, sizeof file_text - 1),
                     (long)sizeof file_text - 1);
    close(fd);
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pmi_addr addr;
        bool found = pmi_addr_from_hosts(&addr, path, cases[i].name, 80);
        assert_int_equal(found, cases[i].text != NULL);
        if (found) {
            assert_string_equal(pmi_addr_text(&addr, text), cases[i].text);
            assert_int_equal(pmi_addr_port(&addr), 80);
        }
    }
    unlink(path);
    pmi_addr addr;
    assert_false(pmi_addr_from_hosts(&addr, path, "db", 80));
}

/* ---- CIDR -------------------------------------------------------------- */
static void test_cidr_match(void **state)
{
    static const struct {
        const char *block, *host;
        bool in;
    } cases[] = {
        {"10.0.0.0/8", "10.255.3.4", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.9.9.9/8", "10.1.1.1", true}, /* the host part does not matter */
        {"192.168.1.128/25", "192.168.1.128", true},
        {"192.168.1.128/25", "192.168.1.127", false},
        {"192.168.1.7", "192.168.1.7", true},
        {"192.168.1.7", "192.168.1.6", false},
        {"192.168.1.7/31", "192.168.1.6", true},
        {"0.0.0.0/0", "8.8.8.8", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "8.8.8.8", false},
        {"::/0", "2001:db8::1", true},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"fd00::/8", "fdff::1", true},
        {"fd00::/8", "fc00::1", false},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"[fd00::]/8", "fd12::1", true},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true},
        {"::ffff:10.0.0.0/104", "10.200.0.1", true},
        {"::ffff:10.0.0.0/104", "11.0.0.1", false},
        {"::ffff:10.0.0.1", "10.0.0.1", true},
        {"localhost", "127.0.0.1", true},
    };
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pmi_cidr cidr;
        pmi_addr addr;
        assert_true(pmi_cidr_parse(&cidr, cases[i].block));
        assert_true(pmi_addr_parse(&addr, cases[i].host, 99));
        if (pmi_cidr_match(&cidr, &addr) != cases[i].in)
            fail_msg("%s in %s", cases[i].host, cases[i].block);
    }
}

static void test_cidr_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "*",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/-1",
        "10.0.0.0/8x",
        "10.0.0/8",
        "host/8",
        "10.0.0.0/08000",
        "10.0.0.0//8",
        "::ffff:10.0.0.0/95",
        "10.0.0.0/ 8",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd/1"};
    pmi_cidr cidr = {.bits = 77};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(texts); i++)
        if (pmi_cidr_parse(&cidr, texts[i]))
            fail_msg("%s was taken", texts[i]);
    assert_false(pmi_cidr_parse(&cidr, NULL));
    assert_int_equal(cidr.bits, 77);
}

/* ---- Sockets ----------------------------------------------------------- */
static void talk(const char *host)
{
    pair p;
    char data[64];
    bool reset = true;
    pair_open(&p, host);
    assert_true(pmi_addr_is_loopback(&p.peer));
    assert_int_equal(pmi_sock_read(p.server, data, sizeof data, &reset), 0);
    assert_false(reset);
    pair_say(p.client, "hello");
    wait_for(p.server, POLLIN);
    assert_int_equal(pmi_sock_read(p.server, data, sizeof data, &reset), 5);
    assert_memory_equal(data, "hello", 5);
    pmi_sock_shutdown(p.client);
    wait_for(p.server, POLLIN);
    assert_int_equal(pmi_sock_read(p.server, data, sizeof data, &reset), -1);
    assert_false(reset);
    pair_say(p.server, "still"); /* the other direction is open */
    wait_for(p.client, POLLIN);
    assert_int_equal(pmi_sock_read(p.client, data, sizeof data, &reset), 5);
    pair_close(&p);
}

static void test_talk(void **state)
{
    (void)state;
    talk("127.0.0.1");
}

static bool has_v6(void)
{
    pmi_addr addr;
    int fd;
    assert_true(pmi_addr_parse(&addr, "::1", 0));
    if (pmi_sock_listen(&addr, 1, &fd))
        return false;
    pmi_sock_close(fd);
    return true;
}

static void test_talk_v6(void **state)
{
    pmi_addr four, six;
    int first, second;
    (void)state;
    if (!has_v6())
        skip();
    talk("::1");
    /* Both any-addresses stand beside each other on one port. */
    first = listen_on("0.0.0.0", &four);
    assert_true(pmi_addr_parse(&six, "::", pmi_addr_port(&four)));
    assert_ok(pmi_sock_listen(&six, 1, &second));
    pmi_sock_close(first);
    pmi_sock_close(second);
}

/* Every way to a descriptor: not blocking, not for children, no delay. */
static void check_flags(int fd, bool delay_off)
{
    int value = 0;
    socklen_t len = sizeof value;
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    if (!delay_off)
        return;
    assert_int_equal(getsockopt(fd, 6, 1, &value, &len), 0); /* TCP_NODELAY */
    assert_true(value);
}

static void test_flags(void **state)
{
    pmi_wake wake;
    pair p;
    (void)state;
    pair_open(&p, "127.0.0.1");
    check_flags(p.listener, false);
    check_flags(p.client, true);
    check_flags(p.server, true);
    pmi_sock_set_buffers(p.client, 20000, 0);
    int value = 0;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(p.client, SOL_SOCKET, SO_SNDBUF, &value, &len),
                     0);
    assert_true(value >= 20000 && value <= 40000);
    pair_close(&p);
    assert_ok(pmi_wake_open(&wake));
    check_flags(wake.read_fd, false);
    check_flags(wake.write_fd, false);
    pmi_wake_close(&wake);
}

static void test_gather(void **state)
{
    enum { PARTS = PMI_IOV_MAX + 36 };
    char bytes[PARTS], got[PARTS];
    pmi_iov iov[PARTS];
    bool reset;
    pair p;
    (void)state;
    pair_open(&p, "127.0.0.1");
    for (size_t i = 0; i < PARTS; i++) {
        bytes[i] = (char)i;
        iov[i] = (pmi_iov){&bytes[i], 1};
    }
    assert_int_equal(pmi_sock_write(p.client, iov, PARTS), PMI_IOV_MAX);
    wait_for(p.server, POLLIN);
    assert_int_equal(pmi_sock_read(p.server, got, sizeof got, &reset),
                     PMI_IOV_MAX);
    assert_memory_equal(got, bytes, PMI_IOV_MAX);
    pair_close(&p);
}

static void test_full_buffer(void **state)
{
    static char bytes[1 << 16];
    size_t sent = 0;
    long n;
    pair p;
    (void)state;
    pair_open(&p, "127.0.0.1");
    pmi_sock_set_buffers(p.client, 4096, 0);
    do {
        pmi_iov iov = {bytes, sizeof bytes};
        n = pmi_sock_write(p.client, &iov, 1);
        assert_true(n >= 0);
        sent += (size_t)n;
        assert_true(sent < 1u << 30);
    } while (n > 0);
    pair_close(&p);
}

/* A connection whose other end closed with unread bytes is reset; writing to
 * it raises SIGPIPE unless somebody asks for silence. It must be us: the
 * host's disposition is the default here. */
static void test_reset(void **state)
{
    struct sigaction def = {.sa_handler = SIG_DFL}, old;
    char data[8];
    bool reset = false;
    long n;
    pair p;
    (void)state;
    assert_int_equal(sigaction(SIGPIPE, &def, &old), 0);
    pair_open(&p, "127.0.0.1");
    pair_say(p.client, "unread");
    wait_for(p.server, POLLIN);
    pmi_sock_close(p.server);
    p.server = -1;
    wait_for(p.client, POLLHUP);
    n = pmi_sock_read(p.client, data, sizeof data, &reset);
    assert_int_equal(n, -1);
    assert_true(reset);
    for (int i = 0; i < 3; i++) {
        pmi_iov iov = {data, sizeof data};
        assert_int_equal(pmi_sock_write(p.client, &iov, 1), -1);
    }
    pair_close(&p);
    sigaction(SIGPIPE, &old, NULL);
}

static void test_refused(void **state)
{
    pmi_addr addr;
    int fd = -1, listener = listen_on("127.0.0.1", &addr);
    pm_err err;
    (void)state;
    pmi_sock_close(listener);
    err = pmi_sock_connect(&addr, &fd);
    if (!err) {
        wait_for(fd, POLLOUT);
        err = pmi_sock_error(fd);
        pmi_sock_close(fd);
    }
    assert_err(err, PM_EREFUSED);
}

static void test_address_taken(void **state)
{
    pmi_addr addr, again;
    int fd = -1, listener = listen_on("127.0.0.1", &addr);
    (void)state;
    again = addr;
    assert_err(pmi_sock_listen(&again, 1, &fd), PM_EADDR);
    /* 192.0.2.0/24 is for documentation: nobody has it. */
    assert_true(pmi_addr_parse(&again, "192.0.2.1", 0));
    assert_err(pmi_sock_listen(&again, 1, &fd), PM_EADDR);
    assert_int_equal(fd, -1);
    pmi_sock_close(listener);
}

/* With no descriptor to spare accept says PM_ELIMIT, and the connection waits
 * for better times. */
static void test_accept_limit(void **state)
{
    struct rlimit old, none;
    pmi_addr addr, peer;
    int client, server = -1, fd = -1, listener = listen_on("127.0.0.1", &addr);
    int lowest = dup(listener);
    pm_err accepted, connected, woken;
    pmi_wake wake;
    (void)state;
    assert_err(pmi_sock_accept(listener, &server, &peer), PM_EAGAIN);
    assert_ok(pmi_sock_connect(&addr, &client));
    wait_for(listener, POLLIN);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(pmi_sock_descriptors_max() <= old.rlim_cur, 1);
    none = old;
    none.rlim_cur = (rlim_t)(lowest > client ? lowest : client) + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(pmi_sock_descriptors_max(), none.rlim_cur);
    accepted = pmi_sock_accept(listener, &server, &peer);
    connected = pmi_sock_connect(&addr, &fd);
    woken = pmi_wake_open(&wake);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_err(accepted, PM_ELIMIT);
    assert_err(connected, PM_ELIMIT);
    assert_err(woken, PM_ELIMIT);
    assert_ok(pmi_sock_accept(listener, &server, &peer));
    close(lowest);
    pmi_sock_close(client);
    pmi_sock_close(server);
    pmi_sock_close(listener);
}

/* ---- Waking, clock, processor ------------------------------------------ */
static bool is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void *raise_much(void *arg)
{
    for (int i = 0; i < 1000; i++)
        pmi_wake_raise(arg);
    return NULL;
}

static void test_wake(void **state)
{
    pthread_t threads[2];
    pmi_wake wake;
    (void)state;
    assert_ok(pmi_wake_open(&wake));
    assert_false(is_readable(wake.read_fd));
    pmi_wake_clear(&wake); /* does not block */
    for (size_t i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, raise_much, &wake);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_true(is_readable(wake.read_fd));
    pmi_wake_clear(&wake);
    assert_false(is_readable(wake.read_fd));
    errno = 7;
    pmi_wake_raise(&wake);
    assert_int_equal(errno, 7);
    assert_true(is_readable(wake.read_fd));
    pmi_wake_close(&wake);
    assert_int_equal(wake.read_fd, -1);
}

static void test_clock(void **state)
{
    uint64_t before = pmi_sock_clock_us(), after;
    struct timespec t;
    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &t);
    after = pmi_sock_clock_us();
    uint64_t between =
        (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
    assert_true(before <= between && between <= after);
}

static void test_pin(void **state)
{
    cpu_set_t old, now;
    int cpu = 0;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    while (!CPU_ISSET((size_t)cpu, &old))
        cpu++;
    assert_ok(pmi_sock_pin_cpu(cpu));
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    sched_setaffinity(0, sizeof old, &old);
    assert_int_equal(CPU_COUNT(&now), 1);
    assert_true(CPU_ISSET((size_t)cpu, &now));
    assert_err(pmi_sock_pin_cpu(-1), PM_EINVAL);
    assert_err(pmi_sock_pin_cpu(1 << 20), PM_EINVAL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_addr_parse),    cmocka_unit_test(test_addr_none),
    cmocka_unit_test(test_addr_loopback), cmocka_unit_test(test_hosts),
    cmocka_unit_test(test_cidr_match),    cmocka_unit_test(test_cidr_refused),
    cmocka_unit_test(test_talk),          cmocka_unit_test(test_talk_v6),
    cmocka_unit_test(test_flags),         cmocka_unit_test(test_gather),
    cmocka_unit_test(test_full_buffer),   cmocka_unit_test(test_reset),
    cmocka_unit_test(test_refused),       cmocka_unit_test(test_address_taken),
    cmocka_unit_test(test_accept_limit),  cmocka_unit_test(test_wake),
    cmocka_unit_test(test_clock),         cmocka_unit_test(test_pin),
};

TEST_MAIN(tests)
