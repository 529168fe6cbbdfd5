/* SPDX-License-Identifier: MIT */
/* test_handshake.c -- dictionary, handshake bodies, signatures: golden
 * vectors, failing allocations. */
#include "vectors.h"

#include <strings.h>

#include "pomelo_proto_internal.h"

/* ---- Dictionary -------------------------------------------------------- */
/* Routes of a server type's handler files, as Pomelo's loader names them. */
static size_t collect_files(const cJSON *files, char **out)
{
    size_t count = 0;
    const cJSON *file, *method;
    cJSON_ArrayForEach(file, files)
    {
        const char *style = vectors_text(file, "style");
        const char *own = vectors_text(file, "name");
        size_t len = strlen(file->string);
        if (strcasecmp(file->string + len - 3, ".js") ||
            !strcmp(style, "class"))
            continue;
        cJSON_ArrayForEach(method, pmi_json_get(file, "methods"))
        {
            out[count] = malloc(256);
            assert_non_null(out[count]);
            snprintf(out[count++], 256, "%s.%.*s.%s", files->string,
                     own ? (int)strlen(own) : (int)len - 3,
                     own ? own : file->string, method->valuestring);
        }
    }
    return count;
}

static void check_dict(const cJSON *v)
{
    char *routes[2000];
    const char *user[64];
    size_t count = 0, user_count = 0;
    const cJSON *item;
    pmi_env env = vectors_env();
    pmi_dict *dict = NULL;
    cJSON_ArrayForEach(item, pmi_json_get(v, "handlers")) count +=
        collect_files(item, routes + count);
    cJSON_ArrayForEach(item, pmi_json_get(v, "dictionaryJson"))
        user[user_count++] = item->valuestring;
    assert_ok(pmi_dict_new(&env, 1, 2, (const char *const *)routes, count, user,
                           user_count, &dict));
    char *text = vectors_print(pmi_json_get(v, "dict"));
    char *abbrs = vectors_print(pmi_json_get(v, "abbrs"));
    assert_true(pmi_slice_eq(pmi_dict_text(dict), pm_text(text)));
    assert_true(pmi_slice_eq(pmi_dict_abbrs(dict), pm_text(abbrs)));
    assert_string_equal(pmi_dict_version(dict), vectors_text(v, "version"));
    cJSON_ArrayForEach(item, pmi_json_get(v, "dict")) assert_int_equal(
        pmi_dict_code(dict, pm_text(item->string)), item->valuedouble);
    cJSON_ArrayForEach(item, pmi_json_get(v, "abbrs"))
    {
        uint16_t code = (uint16_t)strtoul(item->string, NULL, 10);
        assert_true(pmi_slice_eq(pmi_dict_route(dict, code),
                                 pm_text(item->valuestring)));
    }
    assert_int_equal(pmi_dict_code(dict, pm_text("no.such.route")), 0);
    assert_int_equal(pmi_dict_route(dict, 0).len, 0);
    assert_int_equal(pmi_dict_route(dict, UINT16_MAX).len, 0);
    pmi_dict_free(dict);
    for (size_t i = 0; i < count; i++)
        free(routes[i]);
    free(text);
    free(abbrs);
}

static void test_dict_vectors(void **state)
{
    cJSON *file = vectors_load("dictionary.json");
    const cJSON *v;
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "vectors")) check_dict(v);
    cJSON_Delete(file);
}

/* JavaScript sorts by UTF-16 unit: U+1F600 before U+E000 before U+FFFD. */
static void test_dict_order(void **state)
{
    static const char *const routes[] = {"a.\xef\xbf\xbd",
                                         "a.\xf0\x9f\x98\x80",
                                         "a.\xee\x80\x80",
                                         "a.z",
                                         "a.z",
                                         "a.\xc3\xa9",
                                         "a",
                                         "a.b"};
    static const char *const want[] = {"a",
                                       "a.b",
                                       "a.z",
                                       "a.\xc3\xa9",
                                       "a.\xf0\x9f\x98\x80",
                                       "a.\xee\x80\x80",
                                       "a.\xef\xbf\xbd"};
    pmi_env env = vectors_env();
    pmi_dict *dict = NULL;
    (void)state;
    assert_ok(
        pmi_dict_new(&env, 1, 2, routes, PMI_COUNT(routes), NULL, 0, &dict));
    for (size_t i = 0; i < PMI_COUNT(want); i++)
        assert_int_equal(pmi_dict_code(dict, pm_text(want[i])), i + 1);
    assert_int_equal(pmi_dict_route(dict, PMI_COUNT(want) + 1).len, 0);
    pmi_dict_free(dict);
}

/* A message has one byte for a route's length. */
static void test_dict_long_route(void **state)
{
    char route[PMI_ROUTE_MAX + 2];
    const char *const list[] = {route};
    pmi_env env = vectors_env();
    pmi_dict *dict = NULL;
    (void)state;
    memset(route, 'r', sizeof route);
    route[PMI_ROUTE_MAX + 1] = 0;
    assert_err(pmi_dict_new(&env, 1, 2, NULL, 0, list, 1, &dict), PM_ECONFIG);
    assert_null(dict);
    route[PMI_ROUTE_MAX] = 0;
    assert_ok(pmi_dict_new(&env, 1, 2, NULL, 0, list, 1, &dict));
    assert_int_equal(pmi_dict_code(dict, pm_text(route)), 1);
    pmi_dict_free(dict);
}

static void test_dict_size(void **state)
{
    enum { MAX = 65536 };
    static char names[MAX][8];
    static const char *list[MAX];
    pmi_env env = vectors_env();
    pmi_dict *dict = NULL;
    (void)state;
    for (int i = 0; i < MAX; i++) {
        snprintf(names[i], sizeof names[i], "r%d", i);
        list[i] = names[i];
    }
    assert_err(pmi_dict_new(&env, 1, 2, list, MAX, NULL, 0, &dict), PM_ESIZE);
    assert_null(dict);
    assert_ok(pmi_dict_new(&env, 1, 2, NULL, 0, list, MAX - 1, &dict));
    assert_int_equal(pmi_dict_code(dict, pm_text("r65534")), 65535);
    assert_true(pmi_slice_eq(pmi_dict_route(dict, 65535), pm_text("r65534")));
    pmi_dict_free(dict);
    pmi_dict_free(NULL);
}

/* ---- Handshake --------------------------------------------------------- */
typedef struct frontend {
    pmi_env env;
    pmi_dict *dict;
    pmi_dialect *client, *server;
    char version[25];
} frontend;

static pmi_dialect *dialect_of(const pmi_env *env, const cJSON *protos)
{
    pmi_dialect *dialect = NULL;
    char *text = vectors_print(protos);
    assert_ok(pmi_dialect_new(env, 1, 2, pm_text(text), &dialect));
    free(text);
    return dialect;
}

static void frontend_init(frontend *f, const cJSON *file)
{
    char routes[64][64];
    const char *list[64], *user[8];
    size_t count = 0, user_count = 0;
    const cJSON *item;
    f->env = vectors_env();
    cJSON_ArrayForEach(item, pmi_json_get(file, "handlerMethods")) snprintf(
        routes[count++], 64, "connector.entryHandler.%s", item->valuestring);
    snprintf(routes[count++], 64, "area.playerHandler.move");
    for (size_t i = 0; i < count; i++)
        list[i] = routes[i];
    cJSON_ArrayForEach(item, pmi_json_get(file, "dictionaryJson"))
        user[user_count++] = item->valuestring;
    assert_ok(
        pmi_dict_new(&f->env, 1, 2, list, count, user, user_count, &f->dict));
    f->client = dialect_of(&f->env, pmi_json_get(file, "clientProtos"));
    f->server = dialect_of(&f->env, pmi_json_get(file, "serverProtos"));
    assert_ok(pmi_dialect_version(f->client, f->server, f->version));
    assert_string_equal(pmi_dict_version(f->dict),
                        vectors_text(pmi_json_get(file, "versions"), "dict"));
}

static void frontend_fini(frontend *f)
{
    pmi_dict_free(f->dict);
    pmi_dialect_free(f->client);
    pmi_dialect_free(f->server);
}

/* What the recorded server was set up with; false for those whose callbacks
 * refuse, which are core to the connector and not to the text. */
static bool frontend_sys(const frontend *f, const char *config,
                         pmi_handshake_sys *sys)
{
    static const char *const plain[] = {
        "plain",      "heartbeat3",  "dict",
        "proto",      "dictproto",   "user-undefined",
        "user-false", "user-string", "user-empty-object"};
    bool known = false;
    for (size_t i = 0; i < PMI_COUNT(plain); i++)
        known = known || !strcmp(config, plain[i]);
    memset(sys, 0, sizeof *sys);
    if (!strcmp(config, "heartbeat3") || !strcmp(config, "dictproto"))
        sys->heartbeat_s = 3;
    if (!strncmp(config, "dict", 4))
        sys->dict = f->dict;
    if (strstr(config, "proto")) {
        sys->use_protobuf = true;
        sys->client = f->client;
        sys->server = f->server;
        sys->proto_version = f->version;
    }
    return known;
}

static cJSON *frontend_user(const char *config)
{
    if (!strcmp(config, "user-string"))
        return cJSON_CreateString("hi");
    if (!strcmp(config, "user-empty-object"))
        return cJSON_CreateObject();
    return strcmp(config, "user-false") ? NULL : cJSON_CreateFalse();
}

static void check_handshake(const frontend *f, const cJSON *v)
{
    const char *config = vectors_text(v, "config");
    const cJSON *texts = vectors_list(v, "recvText");
    pmi_handshake_sys sys;
    cJSON *msg = NULL, *user;
    pmi_buf out;
    if (!frontend_sys(f, config, &sys))
        return;
    user = frontend_user(config);
    pmi_buf_init(&out, &f->env, SIZE_MAX);
    pm_err err = pmi_handshake_parse(
        &f->env, pm_text(vectors_text(v, "sendText")), 32, &msg);
    if (!strcmp(texts->child->valuestring, "{\"code\":500}")) {
        assert_err(err, PM_EHANDSHAKE);
        assert_null(msg);
    } else {
        assert_ok(err);
        assert_ok(pmi_handshake_answer(&sys, msg, user, 32, &out));
        pmi_buf_add_byte(&out, 0);
        assert_string_equal(out.data, texts->child->valuestring);
    }
    pmi_buf_fini(&out);
    cJSON_Delete(msg);
    cJSON_Delete(user);
}

static void test_handshake_vectors(void **state)
{
    cJSON *file = vectors_load("handshake.json");
    frontend f;
    const cJSON *v;
    (void)state;
    frontend_init(&f, file);
    cJSON_ArrayForEach(v, vectors_list(file, "vectors")) check_handshake(&f, v);
    frontend_fini(&f);
    cJSON_Delete(file);
}

static void test_handshake_parse(void **state)
{
    static const struct {
        const char *text;
        pm_err err;
    } cases[] = {
        {"{\"sys\":{}}", PM_OK},
        {"{\"sys\":{},\"user\":\"\\u0000\"}", PM_EHANDSHAKE},
        {"{\"sys\":\"\"}", PM_EHANDSHAKE},
        {"{\"sys\":false}", PM_EHANDSHAKE},
        {"{\"sys\":{}} x", PM_EHANDSHAKE},
        {"\xef\xbb\xbf{\"sys\":{}}", PM_EHANDSHAKE},
        {"{\"sys\":[[[[[[]]]]]]}", PM_EHANDSHAKE}, /* deeper than 4 */
    };
    pmi_env env = vectors_env();
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        cJSON *msg = NULL;
        assert_err(pmi_handshake_parse(&env, pm_text(cases[i].text), 4, &msg),
                   cases[i].err);
        cJSON_Delete(msg);
    }
}

static void check_answer(const pmi_handshake_sys *sys, const char *sent,
                         const char *want)
{
    pmi_env env = vectors_env();
    cJSON *msg = NULL;
    pmi_buf out;
    pmi_buf_init(&out, &env, SIZE_MAX);
    assert_ok(pmi_handshake_parse(&env, pm_text(sent), 32, &msg));
    assert_ok(pmi_handshake_answer(sys, msg, NULL, 32, &out));
    pmi_buf_add_byte(&out, 0);
    assert_string_equal(out.data, want);
    pmi_buf_fini(&out);
    cJSON_Delete(msg);
}

/* Protobuf on without a single file: the version is empty, never known. */
static void test_handshake_without_files(void **state)
{
    pmi_handshake_sys sys = {.use_protobuf = true, .proto_version = ""};
    const char *want = "{\"code\":200,\"sys\":{\"heartbeat\":0.5,\"protos\":{"
                       "\"server\":{},\"client\":{},\"version\":\"\"},"
                       "\"useProto\":true}}";
    (void)state;
    sys.heartbeat_s = 0.5;
    check_answer(&sys, "{\"sys\":{\"protoVersion\":\"\"}}", want);
    check_answer(&sys, "{\"sys\":{\"protoVersion\":0}}", want);
    check_answer(&sys, "{\"sys\":true}", want);
}

/* ---- Signatures -------------------------------------------------------- */
static pmi_rsa *key_of(const pmi_env *env, const cJSON *source)
{
    pmi_rsa *key = NULL;
    cJSON *msg = cJSON_CreateObject();
    cJSON *rsa =
        cJSON_AddObjectToObject(cJSON_AddObjectToObject(msg, "sys"), "rsa");
    cJSON_AddStringToObject(rsa, "rsa_n", vectors_text(source, "rsa_n"));
    cJSON_AddNumberToObject(rsa, "rsa_e", vectors_number(source, "rsa_e"));
    assert_ok(pmi_proto_rsa_key(env, msg, &key));
    assert_non_null(key);
    cJSON_Delete(msg);
    return key;
}

static void check_signature(pmi_rsa *key, const char *text, bool want)
{
    pmi_env env = vectors_env();
    cJSON *body = NULL;
    bool verified = !want;
    assert_ok(pmi_json_parse(&env, pm_text(text), 32, &body, NULL));
    assert_ok(pmi_proto_verify(&env, key, body, 32, &verified));
    assert_int_equal(verified, want);
    assert_null(pmi_json_get(body, "__crypto__"));
    cJSON_Delete(body);
}

/* A text with a signature put in as its last member. */
static void check_joined(pmi_rsa *key, const cJSON *v, const char *name)
{
    const cJSON *sig = pmi_json_get(v, name);
    const char *text = vectors_text(v, "clientText");
    const char *end = strrchr(text, '}');
    size_t cap = strlen(text) + strlen(vectors_text(sig, "sig")) + 64;
    char *joined = malloc(cap);
    assert_non_null(joined);
    snprintf(joined, cap, "%.*s,\"__crypto__\":\"%s\"}", (int)(end - text),
             text, vectors_text(sig, "sig"));
    check_signature(key, joined, cJSON_IsTrue(pmi_json_get(sig, "verified")));
    free(joined);
}

static void test_signature_vectors(void **state)
{
    cJSON *file = vectors_load("rsa.json");
    pmi_env env = vectors_env();
    const cJSON *v, *keys = vectors_list(file, "keys");
    (void)state;
    cJSON_ArrayForEach(v, vectors_list(file, "vectors"))
    {
        int number = (int)vectors_number(v, "key");
        pmi_rsa *key = key_of(&env, cJSON_GetArrayItem(keys, number));
        const char *body = vectors_text(v, "bodyJson");
        if (body) {
            const cJSON *result = pmi_json_get(v, "result");
            bool ours = !strncmp(vectors_text(v, "name"), "utf8-hash-", 10);
            check_signature(key, body,
                            ours ||
                                cJSON_IsTrue(pmi_json_get(result, "verified")));
        } else {
            check_joined(key, v, "signedClientText");
            check_joined(key, v, "signedCanonical");
        }
        pmi_rsa_free(key);
    }
    cJSON_Delete(file);
}

static void test_rsa_key(void **state)
{
    static const struct {
        const char *text;
        pm_err err;
    } cases[] = {
        {"{\"sys\":{}}", PM_EHANDSHAKE},
        {"{\"sys\":true}", PM_EHANDSHAKE},
        {"{\"sys\":{\"rsa\":null}}", PM_EHANDSHAKE},
        {"{\"sys\":{\"rsa\":{}}}", PM_OK},
        {"{\"sys\":{\"rsa\":5}}", PM_OK},
        {"{\"sys\":{\"rsa\":{\"rsa_n\":5,\"rsa_e\":3}}}", PM_OK},
        {"{\"sys\":{\"rsa\":{\"rsa_n\":\"ff\",\"rsa_e\":3}}}", PM_OK},
        {"{\"sys\":{\"rsa\":{\"rsa_n\":\"xyz\",\"rsa_e\":\"3\"}}}", PM_OK},
    };
    pmi_env env = vectors_env();
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        cJSON *msg = NULL;
        pmi_rsa *key = NULL;
        assert_ok(pmi_handshake_parse(&env, pm_text(cases[i].text), 32, &msg));
        assert_err(pmi_proto_rsa_key(&env, msg, &key), cases[i].err);
        assert_null(key);
        cJSON_Delete(msg);
    }
    check_signature(NULL, "{\"a\":1,\"__crypto__\":\"ab\"}", false);
    check_signature(NULL, "[1]", false);
    check_signature(NULL, "null", false);
}

/* ---- Failing allocations ----------------------------------------------- */
static pm_err scenario(const pmi_env *env, cJSON **msg, pmi_dict **dict,
                       pmi_buf *out)
{
    static const char *const routes[] = {"b.h.m", "a.h.m", "a.h.n"};
    static const char *const user[] = {"onChat", "7", "a.h.m"};
    pmi_handshake_sys sys = {.heartbeat_s = 3};
    pm_err err = pmi_dict_new(env, 1, 2, routes, 3, user, 3, dict);
    if (err == PM_OK)
        err = pmi_handshake_parse(
            env, pm_text("{\"sys\":{\"dictVersion\":\"x\"},\"user\":[1,{}]}"),
            32, msg);
    sys.dict = *dict;
    if (err == PM_OK)
        err = pmi_handshake_answer(&sys, *msg, pmi_json_get(*msg, "user"), 32,
                                   out);
    return err;
}

static void test_no_memory(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        cJSON *msg = NULL;
        pmi_dict *dict = NULL;
        pmi_buf out;
        pmi_buf_init(&out, &env, SIZE_MAX);
        pm_err err = scenario(&env, &msg, &dict, &out);
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        if (err != PM_OK)
            assert_int_equal(out.len, 0);
        pmi_buf_fini(&out);
        pmi_dict_free(dict);
        cJSON_Delete(msg);
    }
    test_cjson_use(NULL);
}

/* A Chinese body needs the second text too. mbedtls allocates from the C
 * library, so only ours fails. */
static void test_verify_no_memory(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap), plain = vectors_env();
    cJSON *file = vectors_load("rsa.json");
    pmi_rsa *key = key_of(&plain, vectors_list(file, "keys")->child);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        cJSON *body = NULL;
        bool verified = true;
        const char *text = "{\"s\":\"\xe4\xbd\xa0\xf0\x9f\x98\x80\","
                           "\"__crypto__\":\"ab\"}";
        assert_ok(pmi_json_parse(&plain, pm_text(text), 32, &body, NULL));
        pm_err err = pmi_proto_verify(&env, key, body, 32, &verified);
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        assert_false(verified);
        cJSON_Delete(body);
    }
    pmi_rsa_free(key);
    cJSON_Delete(file);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_dict_vectors),
    cmocka_unit_test(test_dict_order),
    cmocka_unit_test(test_dict_long_route),
    cmocka_unit_test(test_dict_size),
    cmocka_unit_test(test_handshake_vectors),
    cmocka_unit_test(test_handshake_parse),
    cmocka_unit_test(test_handshake_without_files),
    cmocka_unit_test(test_signature_vectors),
    cmocka_unit_test(test_rsa_key),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_verify_no_memory),
};
TEST_MAIN(tests)
