/* SPDX-License-Identifier: MIT */
/* test_proto.c -- packages, messages, Pomelo's CRC: golden vectors, edges,
 * hostile bytes. */
#include "vectors.h"

#include "pomelo_proto_internal.h"
#include "pomelo_route_internal.h"

#define ALL PMI_PACKAGE_BODY_MAX

/* ---- Packages ---------------------------------------------------------- */
static void test_package_encode(void **state)
{
    cJSON *file = vectors_load("package-frames.json");
    const cJSON *v;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "encode"))
    {
        size_t body_len, want_len;
        uint8_t head[PMI_PACKAGE_HEAD];
        uint8_t *body = vectors_bytes(v, "body", &body_len);
        uint8_t *want = vectors_bytes(v, "hex", &want_len);
        pmi_proto_package_head(
            head, (uint8_t)(unsigned)vectors_number(v, "type"), body_len);
        assert_int_equal(want_len, sizeof head + body_len);
        assert_memory_equal(want, head, sizeof head);
        free(body);
        free(want);
    }
    cJSON_Delete(file);
}

/* Feeds a reader as core/conn does and compares what comes out. */
static void check_stream(const cJSON *v)
{
    const cJSON *chunk, *wanted = pmi_json_get(v, "packages")->child;
    const cJSON *closed = pmi_json_get(v, "closedAfterChunk");
    pmi_env env = vectors_env();
    pmi_buf in;
    int number = 0;
    long used = 0;
    pmi_buf_init(&in, &env, SIZE_MAX);
    cJSON_ArrayForEach(chunk, vectors_list(v, "chunks"))
    {
        size_t len, body_len;
        uint8_t *bytes = test_unhex(chunk->valuestring, &len);
        pmi_package p;
        const cJSON *want = wanted ? wanted->child : NULL;
        pmi_buf_add(&in, bytes, len);
        free(bytes);
        while ((used = pmi_proto_package_decode(in.data, in.len, ALL, &p)) >
               0) {
            assert_non_null(want);
            uint8_t *body = vectors_bytes(want, "body", &body_len);
            assert_int_equal(p.type, vectors_number(want, "type"));
            assert_int_equal(p.body.len, body_len);
            assert_memory_equal(p.body.data, body, body_len);
            free(body);
            pmi_buf_consume(&in, (size_t)used);
            want = want->next;
        }
        assert_null(want);
        if (used < 0)
            break;
        wanted = wanted->next;
        number++;
    }
    if (used < 0) {
        assert_int_equal(used, PM_EPACKAGE);
        assert_int_equal(number, closed->valuedouble);
    } else {
        assert_true(cJSON_IsNull(closed));
    }
    pmi_buf_fini(&in);
}

static void test_package_stream(void **state)
{
    cJSON *file = vectors_load("package-frames.json");
    const cJSON *v;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "tcp")) check_stream(v);
    cJSON_Delete(file);
}

/* The vectors tell what Pomelo makes of a frame; ours closes on all that is
 * not one whole package of a known type. */
static void test_package_frame(void **state)
{
    cJSON *file = vectors_load("package-frames.json");
    const cJSON *v;
    size_t taken = 0;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "decode"))
    {
        size_t len, body_len;
        uint8_t *bytes = vectors_bytes(v, "hex", &len);
        const char *shape = vectors_text(v, "shape");
        const cJSON *list = pmi_json_get(v, "packages");
        const cJSON *want = list ? list->child : NULL;
        pmi_package p;
        pm_err err = pmi_proto_package_frame(bytes, len, ALL, &p);
        if (err == PM_OK) {
            uint8_t *body = vectors_bytes(want, "body", &body_len);
            assert_string_equal(shape, "single");
            assert_int_equal(p.type, vectors_number(want, "type"));
            assert_int_equal(p.body.len, body_len);
            assert_memory_equal(p.body.data, body, body_len);
            free(body);
            taken++;
        } else {
            assert_int_equal(err, PM_EPACKAGE);
            if (shape && !strcmp(shape, "single")) {
                double type = vectors_number(want, "type");
                size_t said = len < 4 ? 0
                                      : (size_t)bytes[1] << 16 |
                                            (size_t)bytes[2] << 8 | bytes[3];
                assert_true(type < 1 || type > 5 || said != len - 4);
            }
        }
        free(bytes);
    }
    assert_true(taken > 10);
    cJSON_Delete(file);
}

static void test_package_limits(void **state)
{
    uint8_t at[12] = {4, 0, 0, 8};
    pmi_package p;
    (void)state;
    assert_int_equal(pmi_proto_package_decode(at, 12, 8, &p), 12);
    assert_int_equal(pmi_proto_package_decode(at, 11, 8, &p), 0);
    assert_int_equal(pmi_proto_package_decode(at, 4, 8, &p), 0);
    assert_int_equal(pmi_proto_package_decode(at, 3, 8, &p), 0);
    assert_int_equal(pmi_proto_package_decode(at, 0, 8, &p), 0);
    assert_int_equal(pmi_proto_package_decode(at, 4, 7, &p), PM_ESIZE);
    assert_err(pmi_proto_package_frame(at, 12, 7, &p), PM_ESIZE);
    assert_ok(pmi_proto_package_frame(at, 12, 8, &p));
    assert_err(pmi_proto_package_frame(at, 11, 8, &p), PM_EPACKAGE);
    assert_err(pmi_proto_package_frame(at, 0, 8, &p), PM_EPACKAGE);
    for (unsigned type = 0; type < 256; type++) {
        uint8_t head[4] = {(uint8_t)type, 0, 0, 0};
        bool known = type >= 1 && type <= 5;
        assert_int_equal(pmi_proto_package_decode(head, 4, 0, &p),
                         known ? 4 : PM_EPACKAGE);
        assert_int_equal(pmi_proto_package_frame(head, 4, 0, &p),
                         known ? PM_OK : PM_EPACKAGE);
    }
    uint8_t cut[3] = {3, 0, 1};
    assert_ok(pmi_proto_package_frame(cut, 2, 8, &p));
    assert_int_equal(p.body.len, 0);
    assert_err(pmi_proto_package_frame(cut, 3, ALL, &p), PM_EPACKAGE);
}

/* ---- Messages ---------------------------------------------------------- */
static void check_message_encode(const cJSON *v)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    size_t body_len, want_len;
    const cJSON *route = pmi_json_get(v, "route");
    double type = vectors_number(v, "type"), id = vectors_number(v, "id");
    bool coded = cJSON_IsNumber(route);
    if (coded && (route->valuedouble < 1 || route->valuedouble > UINT16_MAX))
        return;
    if (type < 0 || id > UINT32_MAX || vectors_number(v, "gzip") != 0 ||
        (!coded && vectors_number(v, "compressRoute") != 0))
        return;
    size_t n = pmi_proto_message_head(head, (uint8_t)type, (uint32_t)id,
                                      coded ? pm_bytes(NULL, 0)
                                            : pm_text(vectors_text(v, "route")),
                                      coded ? (uint16_t)route->valuedouble : 0);
    if (pmi_json_get(v, "throws") ||
        (id > INT32_MAX && (type == 0 || type == 2))) {
        assert_int_equal(n, 0);
        return;
    }
    uint8_t *body = vectors_bytes(v, "body", &body_len);
    uint8_t *want = vectors_bytes(v, "hex", &want_len);
    assert_int_equal(n + body_len, want_len);
    assert_memory_equal(head, want, n);
    free(body);
    free(want);
}

static void test_message_encode(void **state)
{
    cJSON *file = vectors_load("messages.json");
    const cJSON *v;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "encode")) check_message_encode(v);
    cJSON_Delete(file);
}

/* Ids past 2^31 - 1 or of more than five bytes are malformed to us. */
static bool id_is_ours(const uint8_t *bytes, size_t len, const cJSON *msg)
{
    unsigned type = len ? bytes[0] >> 1 & 7 : 0;
    size_t n = 1;
    double id = vectors_number(msg, "id");
    if (type != 0 && type != 2)
        return true;
    while (n < len && bytes[n] & 128)
        n++;
    return n <= 5 && id >= 0 && id <= INT32_MAX;
}

static void check_message(const pmi_message *m, const cJSON *want)
{
    const cJSON *route = pmi_json_get(want, "route");
    size_t body_len;
    uint8_t *body = vectors_bytes(want, "body", &body_len);
    assert_int_equal(m->type, vectors_number(want, "type"));
    assert_int_equal(m->id, vectors_number(want, "id"));
    if (cJSON_IsNumber(route)) {
        assert_true(m->has_route && m->compressed);
        assert_int_equal(m->code, route->valuedouble);
    } else if (cJSON_IsString(route)) {
        assert_true(m->has_route && !m->compressed);
        if (!strstr(route->valuestring, "\xef\xbf\xbd"))
            assert_true(pmi_slice_eq(m->route, pm_text(route->valuestring)));
    } else if (m->type < 4) {
        assert_false(m->has_route);
    }
    if (m->type < 4) {
        assert_int_equal(m->body.len, body_len);
        assert_memory_equal(m->body.data, body, body_len);
    }
    free(body);
}

static void test_message_decode(void **state)
{
    cJSON *file = vectors_load("messages.json");
    const cJSON *v;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "decode"))
    {
        size_t len;
        uint8_t *bytes = vectors_bytes(v, "hex", &len);
        const cJSON *msg = pmi_json_get(v, "msg");
        pmi_message m;
        pm_err err = pmi_proto_message_decode(pm_bytes(bytes, len), &m);
        if (pmi_json_get(v, "throws") || !id_is_ours(bytes, len, msg)) {
            assert_err(err, PM_EMESSAGE);
        } else {
            assert_ok(err);
            check_message(&m, msg);
        }
        free(bytes);
    }
    cJSON_Delete(file);
}

static void test_message_ids(void **state)
{
    static const struct {
        const char *hex;
        pm_err err;
        uint32_t id;
    } cases[] = {
        {"0400", PM_OK, 0},
        {"047f", PM_OK, 127},
        {"048001", PM_OK, 128},
        {"04ffffffff07", PM_OK, INT32_MAX},
        {"04ffffffff08", PM_EMESSAGE, 0},
        {"04ffffffff0f", PM_EMESSAGE, 0},
        {"04ffffffff87", PM_EMESSAGE, 0},
        {"048080808000", PM_OK, 0},
        {"04808080808000", PM_EMESSAGE, 0},
        {"0480", PM_EMESSAGE, 0},
        {"04ffffffff", PM_EMESSAGE, 0},
        {"04", PM_EMESSAGE, 0},
        {"", PM_EMESSAGE, 0},
        {"0001", PM_EMESSAGE, 0},
        {"000101", PM_EMESSAGE, 0},
        {"000100", PM_OK, 1},
        {"0300", PM_EMESSAGE, 0},
    };
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        size_t len;
        uint8_t *bytes = test_unhex(cases[i].hex, &len);
        pmi_message m;
        assert_err(pmi_proto_message_decode(pm_bytes(bytes, len), &m),
                   cases[i].err);
        if (cases[i].err == PM_OK)
            assert_int_equal(m.id, cases[i].id);
        free(bytes);
    }
}

/* All bytes of a route length are lengths: none is a sign. */
static void test_message_route_lengths(void **state)
{
    uint8_t in[2 + 255];
    (void)state;
    memset(in, 'r', sizeof in);
    in[0] = PMI_MESSAGE_PUSH << 1;
    for (size_t n = 0; n < 256; n++) {
        pmi_message m;
        in[1] = (uint8_t)n;
        uint8_t *exact = test_copy(in, 2 + n);
        assert_ok(pmi_proto_message_decode(pm_bytes(exact, 2 + n), &m));
        assert_int_equal(m.route.len, n);
        if (n)
            assert_err(pmi_proto_message_decode(pm_bytes(exact, 1 + n), &m),
                       PM_EMESSAGE);
        free(exact);
    }
}

/* Whatever is read can be written, and reads the same again. */
static void check_round(const uint8_t *bytes, size_t len)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    pmi_message a, b;
    if (pmi_proto_message_decode(pm_bytes(bytes, len), &a) != PM_OK)
        return;
    assert_true(a.body.len <= len);
    if (a.type > PMI_MESSAGE_PUSH || (a.compressed && a.code == 0))
        return;
    size_t n = pmi_proto_message_head(head, a.type, a.id, a.route, a.code);
    assert_true(n > 0 && n <= len);
    assert_ok(pmi_proto_message_decode(pm_bytes(head, n), &b));
    assert_int_equal(a.type, b.type);
    assert_int_equal(a.id, b.id);
    assert_int_equal(a.code, b.code);
    assert_true(pmi_slice_eq(a.route, b.route));
}

static void test_hostile(void **state)
{
    test_world world = {.seed = 7};
    (void)state;
    for (int round = 0; round < 200 * 1000; round++) {
        uint8_t bytes[40] = {0};
        pmi_package p;
        size_t len = test_world_below(&world, sizeof bytes);
        test_world_random(bytes, len, &world);
        bytes[0] &= (uint8_t)(round & 1 ? 0x07 : 0xff);
        uint8_t *exact = test_copy(bytes, len);
        long used = pmi_proto_package_decode(exact, len, 1000, &p);
        assert_true(used <= (long)len);
        (void)pmi_proto_package_frame(exact, len, 1000, &p);
        check_round(exact, len);
        free(exact);
    }
}

/* ---- Dispatch ---------------------------------------------------------- */
static void test_dispatch(void **state)
{
    cJSON *file = vectors_load("dispatch.json");
    const cJSON *v, *index;
    size_t played = 0;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "vectors"))
    {
        cJSON *uid;
        bool plain = vectors_plain(pmi_json_get(v, "uid"), false, &uid);
        if (plain && cJSON_IsString(uid)) {
            const char *text = uid->valuestring;
            assert_int_equal(pmi_route_crc(text),
                             (int32_t)vectors_number(v, "crc32"));
            cJSON_ArrayForEach(index, pmi_json_get(v, "index"))
            {
                size_t n = strtoul(index->string, NULL, 10);
                assert_int_equal(pm_dispatch(text, n), index->valuedouble);
            }
            played++;
        }
        cJSON_Delete(uid);
    }
    assert_true(played > 50);
    cJSON_Delete(file);
    assert_int_equal(pmi_route_crc_text(pm_bytes("\0", 1)), -771559539);
    assert_int_equal(pmi_route_crc(NULL), 0);
    assert_int_equal(pm_dispatch("a", 0), 0);
}

/* Bytes that are no UTF-8 must not be read past. */
static void test_dispatch_hostile(void **state)
{
    test_world world = {.seed = 3};
    (void)state;
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[8];
        size_t len = test_world_below(&world, sizeof bytes);
        test_world_random(bytes, len, &world);
        uint8_t *exact = test_copy(bytes, len);
        (void)pmi_route_crc_text(pm_bytes(exact, len));
        free(exact);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_package_encode),
    cmocka_unit_test(test_package_stream),
    cmocka_unit_test(test_package_frame),
    cmocka_unit_test(test_package_limits),
    cmocka_unit_test(test_message_encode),
    cmocka_unit_test(test_message_decode),
    cmocka_unit_test(test_message_ids),
    cmocka_unit_test(test_message_route_lengths),
    cmocka_unit_test(test_hostile),
    cmocka_unit_test(test_dispatch),
    cmocka_unit_test(test_dispatch_hostile),
};
TEST_MAIN(tests)
