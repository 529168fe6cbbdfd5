/* SPDX-License-Identifier: MIT */
/* test/test_ws.c -- core/ws: heads, the upgrade, frames.
 *
 * The upgrades are those that were recorded with the real connector, to the
 * byte; only permessage-deflate, which it accepted, is declined here. All
 * input lies in blocks of its exact size, so that AddressSanitizer sees a read
 * too far. */
#include "test.h"

#include "core/ws.h"

#define REQUEST                                                                \
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"                      \
    "Connection: Upgrade\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define V13 "Sec-WebSocket-Version: 13\r\n"
#define ANSWER_101                                                             \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"               \
    "Connection: Upgrade\r\n"                                                  \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
#define ANSWER_400 "HTTP/1.1 400 Bad Request\r\nContent-type: text/html\r\n\r\n"

/* ---- Helpers ------------------------------------------------------------ */
static void assert_slice(pm_slice got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    if (got.len)
        assert_memory_equal(got.data, want, got.len);
}

static pm_slice text(const char *s)
{
    pm_slice out = {s, strlen(s)};
    return out;
}

/* What a head parses to; the slices in it are dead afterwards. */
static long parse_bytes(const char *data, size_t len, bool response)
{
    pmi_http_head head;
    uint8_t *copy = test_copy(data, len);
    long used = response ? pmi_http_response_parse(copy, len, &head)
                         : pmi_http_request_parse(copy, len, &head);
    free(copy);
    return used;
}

static long parse(const char *request)
{
    return parse_bytes(request, strlen(request), false);
}

/* The head of a request which must be whole and good; `request` outlives it. */
static pmi_http_head head_of(const char *request)
{
    pmi_http_head head;
    size_t len = strlen(request);
    assert_int_equal(
        pmi_http_request_parse((const uint8_t *)request, len, &head), len);
    return head;
}

static void assert_answer(const char *request, pm_err err, const char *want)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_http_head head = head_of(request);
    pmi_buf out;
    pmi_buf_init(&out, &env, SIZE_MAX);
    assert_err(pmi_ws_answer_upgrade(&head, &out), err);
    assert_false(out.failed);
    assert_slice(pmi_buf_slice(&out), want);
    pmi_buf_fini(&out);
    assert_heap_empty(&heap);
}

/* ---- The port switch ---------------------------------------------------- */
static void sniffing_needs_four_bytes_at_most(void **state)
{
    const struct {
        const char *bytes;
        int answer;
    } cases[] = {
        {"", 0},      {"G", 0},     {"GE", 0},    {"GET", 1},   {"GET ", 1},
        {"GETX", 1},  {"P", 0},     {"PO", 0},    {"POS", 0},   {"POST", 1},
        {"PU", 0},    {"PUT", 1},   {"PAT", -1},  {"HEA", 0},   {"HEAD", 1},
        {"HEAT", -1}, {"DELE", -1}, {"OPTI", -1}, {"get ", -1}, {"\x01", -1},
        {"GX", -1},   {" GET", -1}, {"POSX", -1},
    };
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        size_t len = strlen(cases[i].bytes);
        uint8_t *copy = test_copy(cases[i].bytes, len);
        assert_int_equal(pmi_http_sniff(copy, len), cases[i].answer);
        free(copy);
    }
    assert_int_equal(pmi_http_sniff(NULL, 0), 0);
}

/* ---- Heads -------------------------------------------------------------- */
static void a_request_is_taken_apart(void **state)
{
    pmi_http_head head =
        head_of("GET /chat?a=1 HTTP/1.1\r\nhOST: \t example:80 \r\n"
                "ORIGIN:http://o\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n"
                "upgrade: WebSocket\r\nconnection: keep-alive, UpGrade\r\n"
                "sec-websocket-KEY: k\r\nsec-websocket-version: 13\r\n"
                "sec-websocket-protocol: one, two\r\nX-Empty:\r\n\r\n");
    (void)state;
    assert_slice(head.method, "GET");
    assert_slice(head.target, "/chat?a=1");
    assert_int_equal(head.minor, 1);
    assert_slice(head.host, "example:80");
    assert_slice(head.origin, "http://o");
    assert_int_equal(head.forwarded_count, 1);
    assert_slice(head.forwarded_for[0], "1.2.3.4, 5.6.7.8");
    assert_slice(head.ws_key, "k");
    assert_slice(head.ws_version, "13");
    assert_slice(head.ws_protocol, "one, two");
    assert_slice(head.ws_accept, "");
    assert_true(head.upgrade_websocket);
    assert_true(head.keep_alive);
    assert_false(head.has_body);
}

static void heads_come_in_pieces(void **state)
{
    static const char request[] = REQUEST KEY V13 "\r\n"
                                                  "left over";
    size_t whole = strlen(REQUEST KEY V13 "\r\n");
    (void)state;
    for (size_t len = 0; len < whole; len++)
        assert_int_equal(parse_bytes(request, len, false), PMI_WS_MORE);
    for (size_t len = whole; len < sizeof request; len++)
        assert_int_equal(parse_bytes(request, len, false), whole);
    assert_int_equal(pmi_http_request_parse(NULL, 0, NULL), PMI_WS_MORE);
}

static void what_node_lets_pass_passes(void **state)
{
    pmi_http_head head;
    (void)state;
    head = head_of("\r\n\n\r\nGET  /  HTTP/1.0\nhost:x\nHost: y\n\r\n");
    assert_slice(head.method, "GET");
    assert_slice(head.target, "/");
    assert_slice(head.host, "x"); /* the first counts */
    assert_int_equal(head.minor, 0);
    head = head_of("POST /\xc3\xa9 HTTP/1.1\r\nX: \xff\x80\r\n\n");
    assert_slice(head.target, "/\xc3\xa9");
    head = head_of("GET / HTTP/1.1\n\n");
    assert_slice(head.host, "");
}

static void lines_of_a_list_are_kept(void **state)
{
    static const char line[] = "X-Forwarded-For: 192.0.2.1\r\n";
    char request[512] = "GET / HTTP/1.1\r\n";
    pmi_http_head head;
    (void)state;
    for (size_t n = 0; n < PMI_HTTP_FORWARDED_MAX; n++) {
        size_t at = strlen(request);
        strcat(request, line);
        request[at + strlen(line) - 3] = (char)('0' + n);
    }
    strcat(request, "\r\n");
    head = head_of(request);
    assert_int_equal(head.forwarded_count, PMI_HTTP_FORWARDED_MAX);
    assert_slice(head.forwarded_for[0], "192.0.2.0");
    assert_slice(head.forwarded_for[PMI_HTTP_FORWARDED_MAX - 1], "192.0.2.7");
    request[strlen(request) - 2] = 0;
    strcat(request, line);
    strcat(request, "\r\n");
    assert_int_equal(parse_bytes(request, strlen(request), false), PM_EHTTP);
}

static void keep_alive_and_bodies(void **state)
{
    (void)state;
    assert_true(head_of("GET / HTTP/1.1\r\n\r\n").keep_alive);
    assert_false(head_of("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert_true(
        head_of("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    assert_false(
        head_of("GET / HTTP/1.1\r\nConnection: x, close\r\n\r\n").keep_alive);
    assert_false(
        head_of("GET / HTTP/1.1\r\nContent-Length: 00\r\n\r\n").has_body);
    assert_true(
        head_of("GET / HTTP/1.1\r\nContent-Length: 10\r\n\r\n").has_body);
    assert_true(head_of("GET / HTTP/1.1\r\nContent-Length: "
                        "99999999999999999999999999\r\n\r\n")
                    .has_body);
    assert_true(head_of("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
                    .has_body);
}

static void an_upgrade_has_two_halves(void **state)
{
    (void)state;
    assert_true(head_of(REQUEST "\r\n").upgrade_websocket);
    assert_true(head_of("GET / HTTP/1.1\r\nConnection: a\r\n"
                        "Upgrade: h2c, websocket\r\nConnection:,upgrade,\r\n"
                        "\r\n")
                    .upgrade_websocket);
    assert_false(head_of("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
                     .upgrade_websocket);
    assert_false(head_of("GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n")
                     .upgrade_websocket);
    assert_false(head_of("GET / HTTP/1.1\r\nUpgrade: websockets\r\n"
                         "Connection: upgrade\r\n\r\n")
                     .upgrade_websocket);
    assert_false(head_of("GET / HTTP/1.1\r\nUpgrade: websocket\r\n"
                         "Connection: upgraded, upgrad\r\n\r\n")
                     .upgrade_websocket);
}

static void malformed_requests_are_refused(void **state)
{
    static const char *const bad[] = {
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.\r\n\r\n",
        "GET / HTTP/1.10\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET / HTTP/1.1 x\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "G@T / HTTP/1.1\r\n\r\n",
        "G\xc3T / HTTP/1.1\r\n\r\n",
        "GET /a\tb HTTP/1.1\r\n\r\n",
        "GET\t/ HTTP/1.1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nH\xc3: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\x1b[0m\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    };
    static const char nul[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        if (parse(bad[i]) != PM_EHTTP)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(parse_bytes(nul, sizeof nul - 1, false), PM_EHTTP);
}

static void heads_without_end_are_refused(void **state)
{
    static const char start[] = "GET / HTTP/1.1\r\nX: ";
    char all[PMI_HTTP_HEAD_MAX + 8];
    (void)state;
    memset(all, 'x', sizeof all);
    memcpy(all, start, sizeof start - 1);
    memcpy(all + PMI_HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(parse_bytes(all, sizeof all, false), PMI_HTTP_HEAD_MAX);
    assert_int_equal(parse_bytes(all, PMI_HTTP_HEAD_MAX - 1, false),
                     PMI_WS_MORE);
    memcpy(all + PMI_HTTP_HEAD_MAX - 4, "x\r\n\r\n", 5); /* one too long */
    assert_int_equal(parse_bytes(all, PMI_HTTP_HEAD_MAX - 1, false),
                     PMI_WS_MORE);
    assert_int_equal(parse_bytes(all, PMI_HTTP_HEAD_MAX, false), PM_EHTTP);
    assert_int_equal(parse_bytes(all, sizeof all, false), PM_EHTTP);
    memset(all, '\n', sizeof all);
    assert_int_equal(parse_bytes(all, sizeof all, false), PM_EHTTP);
}

static void a_response_is_taken_apart(void **state)
{
    static const char *const bad[] = {
        "HTTP/1.1 99 x\r\n\r\n",  "HTTP/1.1 1000 x\r\n\r\n",
        "HTTP/1.1 020 x\r\n\r\n", "HTTP/1.1 2x0 x\r\n\r\n",
        "HTTP/1.1\r\n\r\n",       "HTTP/3 200 OK\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 \x01\r\n\r\n",
    };
    static const char good[] = ANSWER_101 "\r\n";
    pmi_http_head head;
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        assert_int_equal(parse_bytes(bad[i], strlen(bad[i]), true), PM_EHTTP);
    for (size_t len = 0; len < sizeof good - 1; len++)
        assert_int_equal(parse_bytes(good, len, true), PMI_WS_MORE);
    assert_int_equal(
        pmi_http_response_parse((const uint8_t *)good, sizeof good - 1, &head),
        sizeof good - 1);
    assert_int_equal(head.status, 101);
    assert_true(head.upgrade_websocket);
    assert_slice(head.ws_accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_int_equal(parse_bytes("HTTP/1.0 404\r\n\r\n", 16, true), 16);
}

/* ---- Upgrade ------------------------------------------------------------ */
static void recorded_upgrades_are_answered_alike(void **state)
{
    (void)state;
    assert_answer(REQUEST KEY V13 "\r\n", PM_OK, ANSWER_101 "\r\n");
    assert_answer(REQUEST KEY V13 "Sec-WebSocket-Protocol: one, two\r\n\r\n",
                  PM_OK, ANSWER_101 "Sec-WebSocket-Protocol: one\r\n\r\n");
    assert_answer(REQUEST KEY "Sec-WebSocket-Version: 99\r\n\r\n", PM_EHTTP,
                  ANSWER_400);
    assert_answer(REQUEST KEY V13
                  "Sec-WebSocket-Extensions: permessage-deflate; "
                  "client_max_window_bits\r\n\r\n",
                  PM_OK, ANSWER_101 "\r\n");
}

static void versions_8_and_13_only(void **state)
{
    static const struct {
        const char *version;
        pm_err err;
    } cases[] = {
        {"8", PM_OK},
        {"13", PM_OK},
        {"13, 8", PM_OK},
        {"013", PM_OK},
        {"7", PM_EHTTP},
        {"14", PM_EHTTP},
        {"130", PM_EHTTP},
        {"1", PM_EHTTP},
        {"", PM_EHTTP},
        {"x13", PM_EHTTP},
        {"-8", PM_EHTTP},
        {"0", PM_EHTTP},
        {"4294967304", PM_EHTTP},
    };
    char request[512];
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        (void)pmi_format(request, sizeof request,
                         REQUEST KEY "Sec-WebSocket-Version: %s\r\n\r\n",
                         cases[i].version);
        assert_answer(request, cases[i].err,
                      cases[i].err ? ANSWER_400 : ANSWER_101 "\r\n");
    }
    assert_answer(REQUEST KEY "\r\n", PM_EHTTP, ANSWER_400);
}

static void upgrades_that_are_none(void **state)
{
    char request[512];
    (void)state;
    assert_answer(REQUEST V13 "\r\n", PM_EHTTP, ANSWER_400);
    assert_answer(REQUEST V13 "Sec-WebSocket-Key:  \r\n\r\n", PM_EHTTP,
                  ANSWER_400);
    (void)pmi_format(request, sizeof request,
                     REQUEST V13 "Sec-WebSocket-Key: %065d\r\n\r\n", 0);
    assert_answer(request, PM_EHTTP, ANSWER_400);
    assert_answer("GET / HTTP/1.1\r\n" KEY V13 "\r\n", PM_EHTTP, ANSWER_400);
    assert_answer("POST / HTTP/1.1\r\nUpgrade: websocket\r\n"
                  "Connection: upgrade\r\n" KEY V13 "\r\n",
                  PM_EHTTP, ANSWER_400);
    assert_answer(REQUEST KEY V13 "Content-Length: 4\r\n\r\n", PM_EHTTP,
                  ANSWER_400);
}

static void sub_protocols_are_echoed(void **state)
{
    (void)state;
    assert_answer(REQUEST KEY V13 "Sec-WebSocket-Protocol: a\r\n\r\n", PM_OK,
                  ANSWER_101 "Sec-WebSocket-Protocol: a\r\n\r\n");
    assert_answer(REQUEST KEY V13 "Sec-WebSocket-Protocol: b ,a\r\n\r\n", PM_OK,
                  ANSWER_101 "Sec-WebSocket-Protocol: b\r\n\r\n");
    assert_answer(REQUEST KEY V13 "Sec-WebSocket-Protocol: b\r\n"
                                  "Sec-WebSocket-Protocol: c\r\n\r\n",
                  PM_OK, ANSWER_101 "Sec-WebSocket-Protocol: b\r\n\r\n");
    assert_answer(REQUEST KEY V13 "Sec-WebSocket-Protocol: ,a\r\n\r\n", PM_OK,
                  ANSWER_101 "\r\n");
    assert_answer(REQUEST KEY V13 "Sec-WebSocket-Protocol:\r\n\r\n", PM_OK,
                  ANSWER_101 "\r\n");
}

static void both_ends_agree(void **state)
{
    uint8_t key[16];
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf request, answer;
    pmi_http_head head;
    char accept[29];
    (void)state;
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(i * 17);
    pmi_buf_init(&request, &env, SIZE_MAX);
    pmi_buf_init(&answer, &env, SIZE_MAX);
    pmi_ws_request_upgrade(text("h:1"), text("/p?q"), key, &request);
    assert_false(request.failed);
    assert_int_equal(pmi_http_request_parse(request.data, request.len, &head),
                     request.len);
    assert_slice(head.host, "h:1");
    assert_slice(head.target, "/p?q");
    assert_slice(head.ws_key, "ABEiM0RVZneImaq7zN3u/w==");
    pmi_ws_accept_key(head.ws_key, accept);
    assert_ok(pmi_ws_answer_upgrade(&head, &answer));
    assert_int_equal(pmi_http_response_parse(answer.data, answer.len, &head),
                     answer.len);
    assert_int_equal(head.status, 101);
    assert_slice(head.ws_accept, accept);
    pmi_buf_fini(&request);
    pmi_buf_fini(&answer);
    assert_heap_empty(&heap);
}

static void requests_can_not_be_broken_out_of(void **state)
{
    static const char *const bad[] = {"", "a b", "a\r\nX: y", "a\x7f", "\t"};
    const uint8_t key[16] = {0};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++) {
        pmi_buf out;
        pmi_buf_init(&out, &env, SIZE_MAX);
        pmi_ws_request_upgrade(text(bad[i]), text("/"), key, &out);
        assert_true(out.failed && out.len == 0);
        pmi_buf_reset(&out);
        pmi_ws_request_upgrade(text("h"), text(bad[i]), key, &out);
        assert_true(out.failed && out.len == 0);
        pmi_buf_fini(&out);
    }
}

static void no_memory_for_an_answer(void **state)
{
    pmi_http_head head =
        head_of(REQUEST KEY V13 "Sec-WebSocket-Protocol: one, two\r\n\r\n");
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_buf out;
        pmi_buf_init(&out, &env, SIZE_MAX);
        assert_ok(pmi_ws_answer_upgrade(&head, &out));
        assert_int_equal(out.failed, heap.failed > 0);
        pmi_buf_fini(&out);
    }
}

/* ---- Frames ------------------------------------------------------------- */
static long frame(const char *hex, pmi_ws_frame *out)
{
    size_t len;
    uint8_t *bytes = test_unhex(hex, &len);
    long used = pmi_ws_head_parse(bytes, len, out);
    free(bytes);
    return used;
}

static void frame_heads_are_read(void **state)
{
    const uint8_t mask[4] = {1, 2, 3, 4};
    pmi_ws_frame f;
    (void)state;
    assert_int_equal(frame("8200", &f), 2);
    assert_true(f.fin && !f.masked && f.opcode == PMI_WS_BINARY && f.len == 0);
    assert_int_equal(frame("017d", &f), 2);
    assert_true(!f.fin && f.opcode == PMI_WS_TEXT && f.len == 125);
    assert_int_equal(frame("80fd01020304ff", &f), 6);
    assert_true(f.fin && f.masked && f.opcode == PMI_WS_CONT && f.len == 125);
    assert_memory_equal(f.mask, mask, 4);
    assert_int_equal(frame("827e007e", &f), 4);
    assert_int_equal(f.len, 126);
    assert_int_equal(frame("82feffff01020304", &f), 8);
    assert_int_equal(f.len, 65535);
    assert_memory_equal(f.mask, mask, 4);
    assert_int_equal(frame("82ff000000000001000001020304", &f), 14);
    assert_int_equal(f.len, 65536);
    assert_memory_equal(f.mask, mask, 4);
    assert_int_equal(frame("827f7fffffffffffffff", &f), 10);
    assert_true(f.len == UINT64_MAX >> 1);
    for (int control = 8; control <= 10; control++) {
        const uint8_t bytes[2] = {(uint8_t)(0x80 | control), 125};
        assert_int_equal(pmi_ws_head_parse(bytes, 2, &f), 2);
        assert_int_equal(f.opcode, control);
    }
}

static void bad_frame_heads_are_refused(void **state)
{
    static const char *const bad[] = {
        "c200",
        "a200",
        "9200",
        "f200", /* reserved bits */
        "8300",
        "8700",
        "8b00",
        "8f00", /* opcodes */
        "0800",
        "0900",
        "0a00", /* control frames in pieces */
        "887e",
        "897f",
        "88fe",
        "8afe", /* ... and too long */
        "827e0000",
        "827e007d", /* lengths in too many bytes */
        "827f0000000000000000",
        "827f000000000000ffff",
        "827f8000000000000000",
        "82ffffffffffffffffff01020304",
    };
    pmi_ws_frame f;
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        if (frame(bad[i], &f) != PM_EWS)
            fail_msg("taken: %s", bad[i]);
}

static void frame_heads_are_written_as_read(void **state)
{
    static const uint64_t lens[] = {
        0, 1, 124, 125, 126, 127, 255, 65535, 65536, 16777219, UINT64_MAX >> 1};
    const uint8_t mask[4] = {0xde, 0xad, 0xbe, 0xef};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(lens) * 2; i++) {
        bool masked = i % 2;
        uint8_t head[14], *copy;
        pmi_ws_frame f;
        size_t size = pmi_ws_head_write(head, PMI_WS_BINARY, lens[i / 2],
                                        masked ? mask : NULL);
        assert_int_equal(size, pmi_ws_head_size(lens[i / 2], masked));
        for (size_t cut = 0; cut < size; cut++) {
            copy = test_copy(head, cut);
            assert_int_equal(pmi_ws_head_parse(copy, cut, &f), PMI_WS_MORE);
            free(copy);
        }
        assert_int_equal(pmi_ws_head_parse(head, size, &f), size);
        assert_true(f.fin && f.opcode == PMI_WS_BINARY && f.masked == masked);
        assert_true(f.len == lens[i / 2]);
        if (masked)
            assert_memory_equal(f.mask, mask, 4);
    }
}

/* Every length, alignment and offset against the plain definition. */
static void unmasking_is_xor_wherever_it_starts(void **state)
{
    const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
    uint8_t data[160], want[160];
    (void)state;
    for (size_t len = 0; len <= 100; len++)
        for (size_t align = 0; align < 16; align++)
            for (size_t offset = 0; offset < 5; offset++) {
                for (size_t i = 0; i < sizeof data; i++)
                    data[i] = want[i] = (uint8_t)(i * 37 + len);
                for (size_t i = 0; i < len; i++)
                    want[align + i] ^= mask[(offset + i) % 4];
                pmi_ws_unmask(data + align, len, mask, offset);
                assert_memory_equal(data, want, sizeof data);
            }
    memset(want, 9, sizeof want);
    memcpy(data, want, sizeof data);
    pmi_ws_unmask(data, 80, mask, SIZE_MAX - 2); /* the offset may wrap */
    pmi_ws_unmask(data, 3, mask, 1);
    pmi_ws_unmask(data + 3, 77, mask, 4);
    assert_memory_equal(data, want, sizeof data);
    pmi_ws_unmask(NULL, 0, mask, 3);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(sniffing_needs_four_bytes_at_most),
    cmocka_unit_test(a_request_is_taken_apart),
    cmocka_unit_test(heads_come_in_pieces),
    cmocka_unit_test(what_node_lets_pass_passes),
    cmocka_unit_test(lines_of_a_list_are_kept),
    cmocka_unit_test(keep_alive_and_bodies),
    cmocka_unit_test(an_upgrade_has_two_halves),
    cmocka_unit_test(malformed_requests_are_refused),
    cmocka_unit_test(heads_without_end_are_refused),
    cmocka_unit_test(a_response_is_taken_apart),
    cmocka_unit_test(recorded_upgrades_are_answered_alike),
    cmocka_unit_test(versions_8_and_13_only),
    cmocka_unit_test(upgrades_that_are_none),
    cmocka_unit_test(sub_protocols_are_echoed),
    cmocka_unit_test(both_ends_agree),
    cmocka_unit_test(requests_can_not_be_broken_out_of),
    cmocka_unit_test(no_memory_for_an_answer),
    cmocka_unit_test(frame_heads_are_read),
    cmocka_unit_test(bad_frame_heads_are_refused),
    cmocka_unit_test(frame_heads_are_written_as_read),
    cmocka_unit_test(unmasking_is_xor_wherever_it_starts),
};

TEST_MAIN(tests)
