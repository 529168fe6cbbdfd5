/* SPDX-License-Identifier: MIT */
/* test/test_http.c -- the small GET responder against a bare client. */
#include "test.h"

#include "core/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

enum { BIG = 5 * 1024 * 1024 + 3 };

typedef struct site {
    test_heap heap;
    test_world world; /* its clock, when `virtual` */
    pm_loop *loop;
    pmi_http *http;
    int fd;
    char dir[64];
    char *in;
    size_t len, cap;
    bool eof;
    bool stop_in_page;
    int pages;
    char last_path[64];
} site;

static uint64_t real_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* The system's clock, and what a test adds to it. */
static uint64_t site_clock(void *ctx)
{
    return real_us() + ((site *)ctx)->world.now_us;
}

static void site_random(void *out, size_t len, void *ctx)
{
    test_world_random(out, len, &((site *)ctx)->world);
}

static void put_file(const site *s, const char *name, const void *data,
                     size_t len)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static int page(pm_slice path, pmi_buf *out, const char **type, void *ctx)
{
    site *s = ctx;
    s->pages++;
    snprintf(s->last_path, sizeof s->last_path, "%.*s", (int)path.len,
             (const char *)path.data);
    if (!strcmp(s->last_path, "/counters")) {
        *type = "application/json";
        pmi_buf_add_text(out, "{\"n\":1}");
        if (s->stop_in_page) {
            pmi_http_stop(s->http);
            s->http = NULL;
        }
        return 200;
    }
    if (!strcmp(s->last_path, "/gone")) {
        pmi_buf_add_text(out, "gone");
        return 403;
    }
    return 0;
}

static void site_files(site *s)
{
    char path[128];
    strcpy(s->dir, "/tmp/pm_http_XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(path, sizeof path, "%s/www", s->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/www/sub", s->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    put_file(s, "secret.txt", "secret", 6);
    put_file(s, "www/index.html", "<h1>top</h1>", 12);
    put_file(s, "www/sub/index.html", "<h1>sub</h1>", 12);
    put_file(s, "www/a b.css", "css", 3);
    static const char *const kinds[] = {"x.js",  "x.css",    "x.svg",
                                        "x.png", "x.json",   "x.ico",
                                        "x.bin", "empty.txt"};
    for (size_t i = 0; i < PMI_COUNT(kinds); i++) {
        snprintf(path, sizeof path, "www/%s", kinds[i]);
        put_file(s, path, "data", strcmp(kinds[i], "empty.txt") ? 4 : 0);
    }
    char *big = malloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 7 + i / 1000);
    put_file(s, "www/big.bin", big, BIG);
    free(big);
}

static pm_err site_serve(site *s)
{
    char root[96];
    pm_loop_opts opts = pm_loop_opts_default();
    opts.alloc = test_alloc(&s->heap);
    opts.clock_us = site_clock;
    opts.random = site_random;
    opts.seam_ctx = s;
    pm_err err = pm_loop_new(&s->loop, &opts);
    if (err != PM_OK)
        return err;
    snprintf(root, sizeof root, "%s/www", s->dir);
    pmi_http_opts http = {.root = root, .page = page, .ctx = s};
    return pmi_http_start(s->loop, &http, &s->http);
}

static int site_connect(const site *s)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons(pmi_http_port(s->http)),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static void site_start(site *s)
{
    memset(s, 0, sizeof *s);
    site_files(s);
    assert_ok(site_serve(s));
    s->fd = site_connect(s);
}

static void site_remove_files(const site *s)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", s->dir);
    assert_int_equal(system(command), 0);
}

static void site_end(site *s)
{
    close(s->fd);
    pmi_http_stop(s->http);
    assert_ok(pm_loop_free(s->loop));
    assert_heap_empty(&s->heap);
    free(s->in);
    site_remove_files(s);
}

static void site_poll(site *s)
{
    pm_loop_poll(s->loop, 0);
    for (;;) {
        if (s->len + 70000 > s->cap) {
            s->cap = 2 * s->cap + 140000;
            s->in = realloc(s->in, s->cap);
        }
        ssize_t n = recv(s->fd, s->in + s->len, 65536, MSG_DONTWAIT);
        if (n <= 0) {
            s->eof = n == 0 || (errno != EAGAIN && errno != EINTR);
            break;
        }
        s->len += (size_t)n;
    }
    s->in[s->len] = 0;
}

#define SITE_UNTIL(s, condition)                                               \
    do {                                                                       \
        uint64_t end_ = real_us() + 10 * 1000 * 1000;                          \
        do {                                                                   \
            site_poll(s);                                                      \
            if (real_us() > end_)                                              \
                fail_msg("in vain: %s", #condition);                           \
        } while (!(condition));                                                \
    } while (0)

static void ask(site *s, const char *text)
{
    assert_int_equal(send(s->fd, text, strlen(text), MSG_NOSIGNAL),
                     (ssize_t)strlen(text));
}

/* Where the first answer's body starts, once the whole answer is there. */
static char *whole(site *s, bool head_only)
{
    char *blank = s->in ? strstr(s->in, "\r\n\r\n") : NULL;
    char *length = s->in ? strstr(s->in, "Content-Length: ") : NULL;
    if (!blank || !length)
        return NULL;
    size_t want = head_only ? 0 : strtoul(length + 16, NULL, 10);
    return s->len >= (size_t)(blank + 4 - s->in) + want ? blank + 4 : NULL;
}

/* One GET on the open connection; the answer is in s->in. */
static char *get(site *s, const char *path)
{
    char text[512];
    s->len = 0;
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    ask(s, text);
    SITE_UNTIL(s, whole(s, false) != NULL);
    return whole(s, false);
}

static bool answers(const site *s, int status)
{
    char start[32];
    snprintf(start, sizeof start, "HTTP/1.1 %d ", status);
    return !strncmp(s->in, start, strlen(start));
}

static void test_files(void **state)
{
    static const char *const types[][2] = {
        {"/x.js", "Content-Type: text/javascript"},
        {"/x.css", "Content-Type: text/css"},
        {"/x.svg", "Content-Type: image/svg+xml"},
        {"/x.png", "Content-Type: image/png"},
        {"/x.json", "Content-Type: application/json"},
        {"/x.ico", "Content-Type: image/x-icon"},
        {"/x.bin", "Content-Type: application/octet-stream"},
        {"/index.html", "Content-Type: text/html; charset=utf-8"},
    };
    site s;
    (void)state;
    site_start(&s);
    assert_string_equal(get(&s, "/"), "<h1>top</h1>");
    assert_true(answers(&s, 200));
    assert_non_null(strstr(s.in, "Connection: keep-alive"));
    for (size_t i = 0; i < PMI_COUNT(types); i++) {
        get(&s, types[i][0]);
        assert_true(answers(&s, 200));
        assert_non_null(strstr(s.in, types[i][1]));
    }
    assert_string_equal(get(&s, "/sub/"), "<h1>sub</h1>");
    assert_string_equal(get(&s, "/sub"), "<h1>sub</h1>");
    assert_string_equal(get(&s, "/a%20b.css?v=3"), "css");
    assert_string_equal(get(&s, "/empty.txt"), "");
    assert_true(answers(&s, 200));
    assert_false(s.eof); /* all on one connection */
    site_end(&s);
}

static void test_not_found(void **state)
{
    static const char *const paths[] = {"/../secret.txt",
                                        "/sub/../../secret.txt",
                                        "/%2e%2e/secret.txt",
                                        "/..%2fsecret.txt",
                                        "/sub/%2e%2e/x.js",
                                        "//etc/passwd",
                                        "/%2fetc/passwd",
                                        "/etc/passwd",
                                        "/x.js%00.html",
                                        "/x.js%",
                                        "/x.js%4",
                                        "/x.js%zz",
                                        "/..\\secret.txt",
                                        "/%5c..%5csecret.txt",
                                        "/nothing",
                                        "/x.js/",
                                        "/.",
                                        "/./x.js",
                                        "secret.txt",
                                        "http://host/x.js",
                                        "/sub//index.html"};
    site s;
    (void)state;
    site_start(&s);
    for (size_t i = 0; i < PMI_COUNT(paths); i++) {
        get(&s, paths[i]);
        if (!answers(&s, 404))
            fail_msg("%s: %.60s", paths[i], s.in);
        assert_null(strstr(s.in, "secret"));
        assert_null(strstr(s.in, "root:"));
    }
    site_end(&s);
}

static void test_page(void **state)
{
    site s;
    (void)state;
    site_start(&s);
    assert_string_equal(get(&s, "/counters?all=1"), "{\"n\":1}");
    assert_non_null(strstr(s.in, "Content-Type: application/json\r\n"));
    assert_string_equal(s.last_path, "/counters");
    assert_string_equal(get(&s, "/gone"), "gone");
    assert_true(answers(&s, 403));
    assert_string_equal(get(&s, "/x.js"), "data"); /* not the page's */
    s.stop_in_page = true;
    s.len = 0;
    ask(&s, "GET /counters HTTP/1.1\r\n\r\n");
    SITE_UNTIL(&s, s.eof);
    assert_int_equal(s.len, 0);
    assert_null(s.http);
    site_end(&s);
}

static void test_head(void **state)
{
    site s;
    (void)state;
    site_start(&s);
    ask(&s, "HEAD /big.bin HTTP/1.1\r\n\r\nHEAD /counters HTTP/1.1\r\n\r\n"
            "GET /x.js HTTP/1.1\r\nConnection: close\r\n\r\n");
    SITE_UNTIL(&s, s.eof);
    char length[64];
    snprintf(length, sizeof length, "Content-Length: %d\r\n", BIG);
    assert_non_null(strstr(s.in, length));
    assert_non_null(strstr(s.in, "Content-Length: 7\r\n"));
    assert_null(strstr(s.in, "{\"n\":1}"));
    assert_string_equal(s.in + s.len - 8, "\r\n\r\ndata");
    site_end(&s);
}

static void refused(const char *text, int status)
{
    site s;
    site_start(&s);
    ask(&s, text);
    SITE_UNTIL(&s, s.eof);
    assert_true(answers(&s, status));
    assert_non_null(strstr(s.in, "Connection: close"));
    site_end(&s);
}

static void test_refused(void **state)
{
    char *large = malloc(9000);
    (void)state;
    refused("POST /x.js HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405);
    refused("DELETE / HTTP/1.1\r\n\r\n", 405);
    refused("GET /x.js HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 413);
    refused("nonsense\r\n\r\n", 400);
    memset(large, 'a', 8999);
    large[8999] = 0;
    memcpy(large, "GET / HTTP/1.1\r\nX: ", 19);
    refused(large, 400);
    free(large);
    refused("GET /counters HTTP/1.0\r\n\r\n", 200); /* no keep-alive */
}

/* Larger than all buffers, followed by a pipelined request. */
static void test_big(void **state)
{
    site s;
    (void)state;
    for (int last = 0; last < 2; last++) {
        site_start(&s);
        ask(&s, last ? "GET /big.bin HTTP/1.1\r\nConnection: close\r\n\r\n"
                     : "GET /big.bin HTTP/1.1\r\n\r\n"
                       "GET /x.js HTTP/1.1\r\n\r\n");
        for (int i = 0; i < 20; i++)
            pm_loop_poll(s.loop, 0); /* the client does not read yet */
        if (last)
            SITE_UNTIL(&s, s.eof);
        else
            SITE_UNTIL(&s, s.len > 4 && !strcmp(s.in + s.len - 4, "data"));
        char *body = strstr(s.in, "\r\n\r\n") + 4;
        assert_true(s.len - (size_t)(body - s.in) >= BIG);
        for (size_t i = 0; i < BIG; i += 997)
            assert_int_equal(body[i], (char)(i * 7 + i / 1000));
        site_end(&s);
    }
}

/* One byte a segment; and a head that never ends. */
static void test_slow(void **state)
{
    static const char text[] = "GET /x.js HTTP/1.1\r\n\r\n";
    site s;
    (void)state;
    site_start(&s);
    for (size_t i = 0; text[i]; i++) {
        char one[2] = {text[i], 0};
        ask(&s, one);
        site_poll(&s);
    }
    SITE_UNTIL(&s, whole(&s, false) != NULL);
    ask(&s, "GET /");
    site_poll(&s);
    s.world.now_us += 9 * 1000 * 1000;
    for (int i = 0; i < 5; i++)
        site_poll(&s);
    assert_false(s.eof);
    s.world.now_us += 2 * 1000 * 1000;
    SITE_UNTIL(&s, s.eof);
    site_end(&s);
}

/* A large answer that nobody takes. */
static void test_not_taken(void **state)
{
    site s;
    (void)state;
    site_start(&s);
    ask(&s, "GET /big.bin HTTP/1.1\r\n\r\n");
    size_t before = s.heap.live_bytes, most = before;
    for (int i = 0; i < 50; i++) {
        pm_loop_poll(s.loop, 0);
        most = pmi_max(most, s.heap.live_bytes);
    }
    assert_true(most > before + BIG);
    for (int i = 0; i < 10; i++) {
        s.world.now_us += 11 * 1000 * 1000;
        pm_loop_poll(s.loop, 0);
        pm_loop_poll(s.loop, 0);
    }
    assert_true(s.heap.live_bytes < before + BIG / 2);
    site_end(&s);
}

static void test_many(void **state)
{
    int fds[80];
    size_t served = 0;
    site s;
    (void)state;
    site_start(&s);
    SITE_UNTIL(&s, true);
    for (size_t i = 0; i < PMI_COUNT(fds); i++) {
        fds[i] = site_connect(&s);
        site_poll(&s);
    }
    for (size_t i = 0; i < PMI_COUNT(fds); i++) {
        static const char text[] = "GET /x.js HTTP/1.1\r\n\r\n";
        char in[1000];
        ssize_t n = -1;
        send(fds[i], text, strlen(text), MSG_NOSIGNAL);
        for (int turn = 0; turn < 1000 && n < 0; turn++) {
            site_poll(&s);
            n = recv(fds[i], in, sizeof in, MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN)
                break;
        }
        served += n > 0;
    }
    assert_in_range(served, 60, 64);
    for (size_t i = 0; i < PMI_COUNT(fds); i++)
        close(fds[i]);
    site_end(&s);
}

static void test_no_memory(void **state)
{
    site s = {0};
    (void)state;
    site_files(&s);
    TEST_EACH_FAILURE(&s.heap)
    {
        s.loop = NULL;
        s.http = NULL;
        s.len = 0;
        s.eof = false;
        if (site_serve(&s) == PM_OK) {
            s.fd = site_connect(&s);
            ask(&s, "GET /x.js HTTP/1.1\r\n\r\nGET /counters HTTP/1.1\r\n"
                    "Connection: close\r\n\r\n");
            for (int i = 0; i < 200 && !s.eof; i++)
                site_poll(&s);
            close(s.fd);
        }
        if (!s.heap.failed)
            assert_non_null(strstr(s.in, "{\"n\":1}"));
        pmi_http_stop(s.http);
        pm_loop_free(s.loop);
    }
    free(s.in);
    site_remove_files(&s);
}

static void test_start_errors(void **state)
{
    site s;
    (void)state;
    site_start(&s);
    pmi_http *second = NULL;
    pmi_http_opts opts = {.port = pmi_http_port(s.http)};
    assert_err(pmi_http_start(s.loop, &opts, &second), PM_EADDR);
    assert_null(second);
    assert_err(pm_loop_free(s.loop), PM_ESTATE);
    opts.port = 0; /* neither files nor pages: all is 404 */
    assert_ok(pmi_http_start(s.loop, &opts, &second));
    pmi_http_stop(second);
    pmi_http_stop(NULL);
    site_end(&s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_files),        cmocka_unit_test(test_not_found),
    cmocka_unit_test(test_page),         cmocka_unit_test(test_head),
    cmocka_unit_test(test_refused),      cmocka_unit_test(test_big),
    cmocka_unit_test(test_slow),         cmocka_unit_test(test_not_taken),
    cmocka_unit_test(test_many),         cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_start_errors),
};
TEST_MAIN(tests)
