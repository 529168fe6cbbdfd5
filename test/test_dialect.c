/* SPDX-License-Identifier: MIT */
/* test_dialect.c -- Pomelo's protobuf dialect: golden vectors, limits,
 * hostile bytes, failing allocations. */
#include "vectors.h"

#include "pomelo_dialect_internal.h"

/* Trees that JavaScript takes and we refuse rather than guess: strings and
 * objects with a length where an array is declared. */
static const char *const refused[] = {"rep-odd-string-string",
                                      "nested-arraylike"};

static bool is_refused(const char *name)
{
    for (size_t i = 0; i < PMI_COUNT(refused); i++)
        if (!strcmp(refused[i], name))
            return true;
    return false;
}

static pmi_dialect *dialect_of(const pmi_env *env, const char *source)
{
    pmi_dialect *dialect = NULL;
    assert_ok(pmi_dialect_new(env, 1, 2, pm_text(source), &dialect));
    return dialect;
}

static cJSON *tree_of(const char *text)
{
    pmi_env env = vectors_env();
    cJSON *tree = NULL;
    assert_ok(pmi_json_parse(&env, pm_text(text), 64, &tree, NULL));
    return tree;
}

/* ---- Golden vectors ---------------------------------------------------- */
/* value: what decoding gives, tagged; NULL: it throws. */
static void check_decode(const pmi_dialect *dialect, const char *route,
                         const char *hex, const cJSON *value)
{
    size_t len;
    uint8_t *bytes = test_unhex(hex, &len);
    cJSON *tree = NULL, *want = NULL;
    const pmi_dialect_message *m = pmi_dialect_find(dialect, pm_text(route));
    if (!m) {
        assert_true(cJSON_IsNull(value));
        free(bytes);
        return;
    }
    pm_err err =
        pmi_dialect_decode(dialect, m, pm_bytes(bytes, len), 32, &tree);
    if (!value) {
        assert_err(err, PM_EPROTOBUF);
    } else if (!vectors_plain(value, true, &want)) {
        assert_err(err, PM_ENUL);
    } else {
        assert_ok(err);
        char *a = vectors_print(tree), *b = vectors_print(want);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
    cJSON_Delete(want);
    cJSON_Delete(tree);
    free(bytes);
}

/* `of` holds `value` or `throws`. */
static void check_decoded(const pmi_dialect *dialect, const cJSON *v,
                          const char *hex_name, const char *of_name)
{
    const char *hex = vectors_text(v, hex_name);
    const cJSON *of = of_name ? pmi_json_get(v, of_name) : v;
    if (hex && of)
        check_decode(dialect, vectors_text(v, "route"), hex,
                     pmi_json_get(of, "throws") ? NULL
                                                : pmi_json_get(of, "value"));
}

static void check_encode(const pmi_dialect *dialect, const cJSON *v)
{
    const char *hex = vectors_text(v, "naturalHex");
    pmi_env env = vectors_env();
    cJSON *msg;
    pmi_buf out;
    const pmi_dialect_message *m =
        pmi_dialect_find(dialect, pm_text(vectors_text(v, "route")));
    if (!hex)
        hex = vectors_text(v, "hex");
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_buf_add_text(&out, "kept");
    if (vectors_plain(pmi_json_get(v, "msg"), false, &msg) && m) {
        pm_err err = pmi_dialect_encode(dialect, m, msg, 32, &out);
        if (!hex || is_refused(vectors_text(v, "name"))) {
            assert_err(err, PM_EPROTOBUF);
            assert_int_equal(out.len, 4);
            assert_false(out.failed);
        } else {
            assert_ok(err);
            char *got = test_hex(out.data + 4, out.len - 4);
            assert_string_equal(got, hex);
            free(got);
        }
        assert_memory_equal(out.data, "kept", 4);
    }
    cJSON_Delete(msg);
    pmi_buf_fini(&out);
}

static void test_vectors(void **state)
{
    cJSON *file = vectors_load("protobuf.json");
    pmi_env env = vectors_env();
    const cJSON *s, *v;
    (void)state;
    cJSON_ArrayForEach(s, vectors_list(file, "schemas"))
    {
        char *source = vectors_print(pmi_json_get(s, "protos"));
        char *parsed = vectors_print(pmi_json_get(s, "parsed"));
        pmi_dialect *d = dialect_of(&env, source);
        assert_true(pmi_slice_eq(pmi_dialect_text(d), pm_text(parsed)));
        cJSON_ArrayForEach(v, vectors_list(s, "encode"))
        {
            check_encode(d, v);
            check_decoded(d, v, "hex", "decoded");
            check_decoded(d, v, "naturalHex", "naturalDecoded");
            check_decoded(d, v, "browserHex",
                          pmi_json_get(v, "browserHexDecoded")
                              ? "browserHexDecoded"
                              : "decoded");
        }
        cJSON_ArrayForEach(v, pmi_json_get(s, "decode"))
            check_decoded(d, v, "hex", NULL);
        pmi_dialect_free(d);
        free(source);
        free(parsed);
    }
    cJSON_Delete(file);
}

static void test_version(void **state)
{
    cJSON *file = vectors_load("handshake.json");
    pmi_env env = vectors_env();
    char version[25], other[25];
    char *c = vectors_print(pmi_json_get(file, "clientProtos"));
    char *s = vectors_print(pmi_json_get(file, "serverProtos"));
    pmi_dialect *client = dialect_of(&env, c), *server = dialect_of(&env, s);
    pmi_dialect *empty = dialect_of(&env, "{}");
    (void)state;
    assert_ok(pmi_dialect_version(client, server, version));
    assert_string_equal(version,
                        vectors_text(pmi_json_get(file, "versions"), "proto"));
    assert_ok(pmi_dialect_version(NULL, NULL, version));
    assert_string_equal(version, "");
    assert_ok(pmi_dialect_version(NULL, server, version));
    assert_ok(pmi_dialect_version(empty, server, other));
    assert_string_equal(version, other);
    assert_true(pmi_slice_eq(pmi_dialect_text(empty), pm_text("{}")));
    pmi_dialect_free(client);
    pmi_dialect_free(server);
    pmi_dialect_free(empty);
    pmi_dialect_free(NULL);
    free(c);
    free(s);
    cJSON_Delete(file);
}

/* ---- Schemas ----------------------------------------------------------- */
static void test_bad_schemas(void **state)
{
    static const struct {
        const char *source;
        pm_err err;
    } cases[] = {
        {"", PM_EJSON},
        {"[]", PM_EJSON},
        {"5", PM_EJSON},
        {"null", PM_EJSON},
        {"{\"a\":}", PM_EJSON},
        {"{\"a\":{\"x\":\"\\u0000\"}}", PM_EJSON},
        {"{\"a\":5}", PM_OK},
        {"{\"a\":[1],\"b\":\"s\",\"c\":null}", PM_OK},
        {"{\"\":{}}", PM_OK},
        {"{\"a\":{\"\":1,\" \":2}}", PM_OK},
        {"{\"a\":{\"optional uInt32 v\":null}}", PM_OK},
        {"{\"a\":{\"optional uInt32 v\":-1}}", PM_OK},
        {"{\"a\":{\"optional uInt32 v\":1.5}}", PM_OK},
        {"{\"a\":{\"optional uInt32 v\":{\"x\":[]}}}", PM_OK},
    };
    pmi_env env = vectors_env();
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pmi_dialect *d = NULL;
        assert_err(pmi_dialect_new(&env, 1, 2, pm_text(cases[i].source), &d),
                   cases[i].err);
        pmi_dialect_free(d);
    }
}

/* Tags, in the table and past it, and more fields than there are slots and
 * bits for the required. */
static void test_many_fields(void **state)
{
    pmi_env env = vectors_env();
    pmi_buf source, msg, out;
    (void)state;
    pmi_buf_init(&source, &env, SIZE_MAX);
    pmi_buf_init(&msg, &env, SIZE_MAX);
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_buf_add_text(&source, "{\"r\":{");
    for (int i = 0; i < 300; i++) {
        pmi_buf_add_format(&source, "%s\"required uInt32 f%d\":%d",
                           i ? "," : "", i, 3 * i + 1);
        pmi_buf_add_format(&msg, "%s\"f%d\":%d", i ? "," : "{", i, i);
    }
    pmi_buf_add_text(&source, "}}");
    pmi_buf_add_text(&msg, "}");
    pmi_buf_add_byte(&source, 0);
    pmi_buf_add_byte(&msg, 0);
    pmi_dialect *d = dialect_of(&env, (const char *)source.data);
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("r"));
    cJSON *tree = tree_of((const char *)msg.data), *back = NULL;
    assert_ok(pmi_dialect_encode(d, m, tree, 1, &out));
    /* The same twice: the last values win, in the same places. */
    size_t len = out.len;
    pmi_buf_add(&out, out.data, len / 2);
    out.len = len;
    assert_ok(pmi_dialect_decode(d, m, pmi_buf_slice(&out), 1, &back));
    char *text = vectors_print(back);
    assert_string_equal(text, (const char *)msg.data);
    cJSON_DeleteItemFromObject(tree, "f299");
    assert_err(pmi_dialect_encode(d, m, tree, 1, &out), PM_EPROTOBUF);
    free(text);
    cJSON_Delete(tree);
    cJSON_Delete(back);
    pmi_dialect_free(d);
    pmi_buf_fini(&source);
    pmi_buf_fini(&msg);
    pmi_buf_fini(&out);
}

/* ---- Values ------------------------------------------------------------ */
static void test_conversions(void **state)
{
    static const struct {
        const char *msg, *hex; /* NULL: refused */
    } cases[] = {
        {"{\"u\":1e21}", "0801"},
        {"{\"u\":1e300}", "0801"},
        {"{\"u\":9.9e-7}", "0809"},
        {"{\"s\":-2.5e-9}", "1003"},
        {"{\"s\":6e20}", "1001"}, /* 1.2e21 once more through parseInt */
        {"{\"u\":999999999999999900000}", "088080f8f4ddb8ebe4b56c"},
        {"{\"u\":\"  +7x\"}", "0807"},
        {"{\"u\":\"0007\"}", "0807"},
        {"{\"u\":\"0xFf\"}", "08ff01"},
        {"{\"u\":\"0x\"}", NULL},
        {"{\"u\":\"-\"}", NULL},
        {"{\"u\":\"-0\"}", "0800"},
        {"{\"u\":[[\"5\"]]}", "0805"},
        {"{\"u\":[]}", NULL},
        {"{\"f\":\" 1.5 \"}", "1d0000c03f"},
        {"{\"f\":\"\"}", "1d00000000"},
        {"{\"f\":\"0x10\"}", NULL},
        {"{\"f\":\"Infinity\"}", NULL},
        {"{\"f\":\".5\"}", NULL},
        {"{\"f\":\"\\u00a05\"}", NULL},
        {"{\"f\":[1]}", NULL},
        {"{\"f\":1e-50}", "1d00000000"},
        {"{\"m\":{}}", "2200"},
        {"{\"m\":[]}", "2200"},
        {"{\"m\":true}", "2200"},
        {"{\"m\":\"\"}", NULL},
        {"{\"m\":0}", NULL},
        {"[]", NULL},
        {"5", NULL},
        {"{\"r\":\"\"}", NULL},
        {"{\"r\":\"1\",\"u\":1}", NULL},
        {"{\"r\":{\"length\":0},\"u\":1}", "0801"},
        {"{\"r\":{\"length\":1},\"u\":1}", NULL},
        {"{\"b\":1.5}", NULL}, /* its tag is 2^28 */
        {"{\"neg\":1}", NULL}, /* its tag is -1 */
        {"{\"s3\":\"\\ud800\"}", "3203efbfbd"},
    };
    pmi_env env = vectors_env();
    pmi_dialect *d = dialect_of(
        &env, "{\"a\":{\"optional uInt32 u\":1,\"optional sInt32 s\":2,"
              "\"optional float f\":3,\"optional a m\":4,\"message a\":{},"
              "\"repeated uInt32 r\":5,\"optional string s3\":6,"
              "\"optional uInt32 b\":268435456,\"optional uInt32 neg\":-1}}");
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("a"));
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        cJSON *tree = tree_of(cases[i].msg);
        pmi_buf out;
        pmi_buf_init(&out, &env, SIZE_MAX);
        pm_err err = pmi_dialect_encode(d, m, tree, 32, &out);
        assert_err(err, cases[i].hex ? PM_OK : PM_EPROTOBUF);
        if (cases[i].hex) {
            char *hex = test_hex(out.data, out.len);
            assert_string_equal(hex, cases[i].hex);
            free(hex);
        }
        pmi_buf_fini(&out);
        cJSON_Delete(tree);
    }
    pmi_dialect_free(d);
}

/* Lengths of nested messages around 127 and 16383, where they grow. */
static void test_nested_lengths(void **state)
{
    static const size_t sizes[] = {0, 1, 120, 125, 126, 127, 128, 16378, 16390};
    pmi_env env = vectors_env();
    pmi_dialect *d = dialect_of(&env, "{\"message m\":{\"optional m m\":1,"
                                      "\"optional string s\":2}}");
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("message m"));
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(sizes); i++) {
        pmi_buf text, out;
        cJSON *back = NULL;
        pmi_buf_init(&text, &env, SIZE_MAX);
        pmi_buf_init(&out, &env, SIZE_MAX);
        pmi_buf_add_text(&text, "{\"m\":{\"m\":{\"s\":\"");
        for (size_t k = 0; k < sizes[i]; k++)
            pmi_buf_add_byte(&text, 'x');
        pmi_buf_add_text(&text, "\"},\"s\":\"behind\"},\"s\":\"last\"}");
        pmi_buf_add_byte(&text, 0);
        cJSON *tree = tree_of((const char *)text.data);
        assert_ok(pmi_dialect_encode(d, m, tree, 3, &out));
        assert_ok(pmi_dialect_decode(d, m, pmi_buf_slice(&out), 3, &back));
        char *again = vectors_print(back);
        assert_string_equal(again, (const char *)text.data);
        free(again);
        cJSON_Delete(back);
        back = NULL;
        assert_err(pmi_dialect_encode(d, m, tree, 2, &out), PM_EDEPTH);
        assert_err(pmi_dialect_decode(d, m, pmi_buf_slice(&out), 2, &back),
                   PM_EDEPTH);
        assert_null(back);
        cJSON_Delete(tree);
        pmi_buf_fini(&text);
        pmi_buf_fini(&out);
    }
    pmi_dialect_free(d);
}

/* ---- Hostile bytes ----------------------------------------------------- */
static void test_bombs(void **state)
{
    static const struct {
        const char *hex;
        pm_err err;
    } cases[] = {
        {"0affffffffffffff7f", PM_EPROTOBUF},   /* 2^56 numbers */
        {"0affffffffffffff7f01", PM_EPROTOBUF}, /* one of them is there */
        {"12ffffffffffffff7f", PM_EPROTOBUF},   /* 64 bit: cost nothing */
        {"1200", PM_OK},
        {"1affffffffffffff7f", PM_EPROTOBUF}, /* a message without an end */
        {"22ffffffffffffff7f", PM_OK},        /* a string: cut */
        {"22ffffffffffffff7f41", PM_OK},
        {"1a0422ffffff7f", PM_OK}, /* cut inside ends the outer one too */
        {"220100", PM_ENUL},
        {"0a", PM_EPROTOBUF},
        {"ffffffffffffffffffffffffffffffff", PM_EPROTOBUF},
        {"ffffffff7f", PM_EPROTOBUF},
        {"2a2a2a2a", PM_OK}, /* bool: keys alone */
    };
    pmi_env env = vectors_env();
    pmi_dialect *d = dialect_of(
        &env, "{\"a\":{\"repeated uInt32 n\":1,\"repeated uInt64 l\":2,"
              "\"optional in m\":3,\"message in\":{\"optional string s\":4},"
              "\"optional string s\":4,\"repeated bool b\":5}}");
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("a"));
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        size_t len;
        uint8_t *bytes = test_unhex(cases[i].hex, &len);
        cJSON *tree = NULL;
        assert_err(pmi_dialect_decode(d, m, pm_bytes(bytes, len), 32, &tree),
                   cases[i].err);
        cJSON_Delete(tree);
        free(bytes);
    }
    /* A varint so long that doubles overflow. */
    uint8_t longest[400];
    cJSON *tree = NULL;
    memset(longest, 0xff, sizeof longest);
    longest[0] = 0x0a;
    longest[sizeof longest - 1] = 1;
    assert_err(
        pmi_dialect_decode(d, m, pm_bytes(longest, sizeof longest), 32, &tree),
        PM_EPROTOBUF);
    pmi_dialect_free(d);
}

/* What is allocated stays within a small multiple of the input. */
static void test_memory_is_bounded(void **state)
{
    test_heap heap = {0};
    pmi_env env = vectors_env();
    pmi_dialect *d =
        dialect_of(&env, "{\"message m\":{\"repeated m m\":1,"
                         "\"repeated uInt32 n\":2,\"repeated bool b\":3}}");
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("message m"));
    static uint8_t bytes[60000];
    static const uint8_t fills[][2] = {
        {0x0a, 0x00}, {0x10, 0x00}, {0x1a, 0x1a}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(fills); i++) {
        cJSON *tree = NULL;
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = fills[i][k & 1];
        test_cjson_use(&heap);
        assert_ok(
            pmi_dialect_decode(d, m, pm_bytes(bytes, sizeof bytes), 32, &tree));
        cJSON_Delete(tree);
        test_cjson_use(NULL);
        assert_true(heap.peak_bytes < 100 * sizeof bytes);
        assert_heap_empty(&heap);
    }
    pmi_dialect_free(d);
}

#define MIXED                                                                  \
    "{\"message p\":{\"required sInt32 x\":1,\"optional p p\":2},"             \
    "\"r\":{\"required uInt32 a\":1,\"repeated p ps\":2,\"repeated float f\":" \
    "3,\"optional double d\":4,\"repeated string s\":5,\"message q\":{"        \
    "\"optional string t\":300},\"optional q q\":700,\"optional bool b\":6}}"
#define MIXED_MSG                                                              \
    "{\"a\":300,\"ps\":[{\"x\":-1,\"p\":{\"x\":5}},{\"x\":2}],"                \
    "\"f\":[1.5,2.5],\"d\":0.1,\"s\":[\"a\",\"\xc3\xa9\"],"                    \
    "\"q\":{\"t\":\"deep\"}}"

/* Bent copies of a good message: whatever still decodes must encode, and then
 * decode to the same. */
static void check_bent(const pmi_dialect *d, const pmi_dialect_message *m,
                       const uint8_t *bytes, size_t len)
{
    pmi_env env = vectors_env();
    uint8_t *exact = test_copy(bytes, len);
    cJSON *tree = NULL, *again = NULL;
    pmi_buf out;
    pmi_buf_init(&out, &env, SIZE_MAX);
    if (pmi_dialect_decode(d, m, pm_bytes(exact, len), 32, &tree) == PM_OK &&
        pmi_dialect_encode(d, m, tree, 32, &out) == PM_OK) {
        assert_ok(pmi_dialect_decode(d, m, pmi_buf_slice(&out), 32, &again));
        char *a = vectors_print(tree), *b = vectors_print(again);
        if (!strstr(a, "[]"))
            assert_string_equal(a, b);
        free(a);
        free(b);
    }
    cJSON_Delete(tree);
    cJSON_Delete(again);
    pmi_buf_fini(&out);
    free(exact);
}

static void test_hostile(void **state)
{
    pmi_env env = vectors_env();
    test_world world = {.seed = 11};
    pmi_dialect *d = dialect_of(&env, MIXED);
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("r"));
    cJSON *tree = tree_of(MIXED_MSG);
    pmi_buf good;
    (void)state;
    pmi_buf_init(&good, &env, SIZE_MAX);
    assert_ok(pmi_dialect_encode(d, m, tree, 32, &good));
    for (size_t n = 0; n <= good.len; n++)
        check_bent(d, m, good.data, n);
    for (int round = 0; round < 30000; round++) {
        uint8_t bent[256];
        memcpy(bent, good.data, good.len);
        for (size_t k = test_world_below(&world, 4) + 1; k > 0; k--)
            bent[test_world_below(&world, good.len)] =
                (uint8_t)test_world_u64(&world);
        check_bent(d, m, bent, good.len);
    }
    cJSON_Delete(tree);
    pmi_buf_fini(&good);
    pmi_dialect_free(d);
}

/* ---- Failing allocations ----------------------------------------------- */
static void test_no_memory(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        pmi_dialect *d = NULL;
        cJSON *tree = NULL, *back = NULL;
        pmi_buf out;
        char version[25];
        pmi_buf_init(&out, &env, SIZE_MAX);
        pm_err err = pmi_dialect_new(&env, 1, 2, pm_text(MIXED), &d);
        if (err == PM_OK)
            err = pmi_dialect_version(d, d, version);
        if (err == PM_OK)
            err = pmi_json_parse(&env, pm_text(MIXED_MSG), 32, &tree, NULL);
        const pmi_dialect_message *m =
            err == PM_OK ? pmi_dialect_find(d, pm_text("r")) : NULL;
        if (err == PM_OK)
            err = pmi_dialect_encode(d, m, tree, 32, &out);
        if (err == PM_OK) {
            pmi_buf_add(&out, "\x2a\x02\xff\xff", 4); /* to be cleaned */
            err = out.failed ? PM_ENOMEM
                             : pmi_dialect_decode(d, m, pmi_buf_slice(&out), 32,
                                                  &back);
        }
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        cJSON_Delete(tree);
        cJSON_Delete(back);
        pmi_buf_fini(&out);
        pmi_dialect_free(d);
    }
    test_cjson_use(NULL);
}

/* A buffer that is full is an error like others, and stays as it was. */
static void test_full_buffer(void **state)
{
    pmi_env env = vectors_env();
    pmi_dialect *d = dialect_of(&env, MIXED);
    const pmi_dialect_message *m = pmi_dialect_find(d, pm_text("r"));
    cJSON *tree = tree_of(MIXED_MSG);
    pmi_buf out;
    (void)state;
    pmi_buf_init(&out, &env, SIZE_MAX);
    assert_ok(pmi_dialect_encode(d, m, tree, 32, &out));
    size_t whole = out.len;
    pmi_buf_fini(&out);
    for (size_t max = 0; max <= whole; max++) {
        pmi_buf_init(&out, &env, max);
        assert_err(pmi_dialect_encode(d, m, tree, 32, &out),
                   max < whole ? PM_ENOMEM : PM_OK);
        assert_int_equal(out.len, max < whole ? 0 : whole);
        pmi_buf_fini(&out);
    }
    cJSON_Delete(tree);
    pmi_dialect_free(d);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_vectors),
    cmocka_unit_test(test_version),
    cmocka_unit_test(test_bad_schemas),
    cmocka_unit_test(test_many_fields),
    cmocka_unit_test(test_conversions),
    cmocka_unit_test(test_nested_lengths),
    cmocka_unit_test(test_bombs),
    cmocka_unit_test(test_memory_is_bounded),
    cmocka_unit_test(test_hostile),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_full_buffer),
};
TEST_MAIN(tests)
