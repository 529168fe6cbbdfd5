/* SPDX-License-Identifier: MIT */
/* test/test_json.c -- text, trees, numbers and UTF-8 against JavaScript.
 *
 * json_cases.json says what Node makes of some thousand texts (see
 * make_json_cases.js beside it); cJSON's own parser reads that file, so that
 * ours is not its own judge. What JavaScript has no word for (positions of
 * errors, depth, cJSON's links, memory that runs out) is written out here. */
#include "test.h"

#include "core/json.h"

#include <limits.h>
#include <locale.h>
#include <math.h>

#define DEPTH 64

/* ---- Helpers ---------------------------------------------------------------- */
static pm_slice buf_slice(const pmi_buf *buf)
{
    return pmi_buf_slice(buf);
}

static void show(const char *what, pm_slice s)
{
    print_error("%s: %.*s\n", what, (int)pmi_min(s.len, 400),
                s.len ? (const char *)s.data : "");
}

static void check_same(pm_slice got, pm_slice want, pm_slice in)
{
    if (pmi_slice_eq(got, want))
        return;
    show("in  ", in);
    show("got ", got);
    show("want", want);
    fail();
}

/* cJSON relies on these links. */
static void check_links(const cJSON *node)
{
    const cJSON *child = node->child, *last = NULL;
    for (; child; last = child, child = child->next) {
        if (last)
            assert_ptr_equal(child->prev, last);
        assert_true((node->type & cJSON_Array) || child->string);
        check_links(child);
    }
    if (node->child) {
        assert_ptr_equal(node->child->prev, last);
        assert_true(node->type == cJSON_Array || node->type == cJSON_Object);
    }
}

static void check_tree(const pmi_env *env, pm_slice in, pm_slice want)
{
    cJSON *tree = NULL;
    pmi_buf out;
    assert_ok(pmi_json_parse(env, in, DEPTH, &tree, NULL));
    check_links(tree);
    pmi_buf_init(&out, env, SIZE_MAX);
    assert_ok(pmi_json_print(tree, DEPTH, &out));
    check_same(buf_slice(&out), want, in);
    pmi_buf_fini(&out);
    cJSON_Delete(tree);
}

static void check_good(const pmi_env *env, pm_slice in, pm_slice want)
{
    cJSON *tree = NULL;
    pmi_json_error why;
    pmi_buf out;
    pmi_buf_init(&out, env, SIZE_MAX);
    pmi_buf_add_text(&out, "=");
    if (pmi_json_check(in, DEPTH, &why)) {
        show("in", in);
        fail_msg("at %zu expected %s", why.at, why.what);
    }
    assert_ok(pmi_json_canonical(env, in, DEPTH, &out));
    check_same(pm_bytes(out.data + 1, out.len - 1), want, in);
    pmi_buf_fini(&out);
    if (pmi_json_parse(env, in, DEPTH, &tree, NULL) == PM_ENUL)
        return; /* only a tree can not hold it */
    cJSON_Delete(tree);
    check_tree(env, in, want);
}

/* A text that is refused is refused at the first byte that can not be: what
 * lies before it can be the start of a text. */
static void check_bad(const pmi_env *env, pm_slice in)
{
    pmi_json_error why = {0}, again = {0};
    cJSON *tree = (cJSON *)&why;
    pmi_buf out;
    pm_err err = pmi_json_check(in, DEPTH, &why);
    if (err != PM_EJSON)
        show("in", in);
    assert_err(err, PM_EJSON);
    assert_non_null(why.what);
    assert_true(why.at <= in.len);
    err = pmi_json_check(pm_bytes(in.data, why.at), DEPTH, &again);
    if (err)
        assert_int_equal(again.at, why.at);
    err = pmi_json_parse(env, in, DEPTH, &tree, &again);
    assert_true(err == PM_EJSON || err == PM_ENUL);
    assert_ptr_equal(tree, &why);
    if (err == PM_EJSON)
        assert_int_equal(again.at, why.at);
    pmi_buf_init(&out, env, SIZE_MAX);
    assert_err(pmi_json_canonical(env, in, DEPTH, &out), PM_EJSON);
    assert_int_equal(out.len, 0);
    pmi_buf_fini(&out);
}

/* ---- Cases from Node ----------------------------------------------------------- */
static cJSON *load_cases(const char *file)
{
    char *text = test_load(file, NULL);
    cJSON *cases = cJSON_Parse(text);
    free(text);
    assert_non_null(cases);
    return cases;
}

static const char *item_text(const cJSON *array, int index)
{
    const cJSON *item = cJSON_GetArrayItem(array, index);
    return item ? item->valuestring : NULL;
}

static void test_texts(void **state)
{
    cJSON *cases = load_cases("json_cases.json"), *one;
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    size_t good = 0, bad = 0;
    (void)state;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(cases, "texts"))
    {
        pm_slice in = pm_text(item_text(one, 0));
        uint8_t *copy = test_copy(in.data, in.len);
        in.data = copy;
        if (item_text(one, 1)) {
            check_good(&env, in, pm_text(item_text(one, 1)));
            good++;
        } else {
            check_bad(&env, in);
            bad++;
        }
        free(copy);
    }
    assert_true(good > 1500 && bad > 300);
    cJSON_Delete(cases);
    assert_heap_empty(&heap);
}

static void test_bytes(void **state)
{
    cJSON *cases = load_cases("json_cases.json"), *one;
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    size_t count = 0;
    (void)state;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(cases, "bytes"))
    {
        size_t in_len, want_len;
        uint8_t *in = test_unhex(item_text(one, 0), &in_len), *want;
        if (item_text(one, 1)) {
            want = test_unhex(item_text(one, 1), &want_len);
            check_good(&env, pm_bytes(in, in_len), pm_bytes(want, want_len));
            free(want);
        } else {
            check_bad(&env, pm_bytes(in, in_len));
        }
        free(in);
        count++;
    }
    assert_true(count > 400);
    cJSON_Delete(cases);
    assert_heap_empty(&heap);
}

static void test_doubles(void **state)
{
    cJSON *cases = load_cases("json_cases.json"), *one;
    size_t count = 0;
    (void)state;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(cases, "doubles"))
    {
        uint64_t bits = strtoull(item_text(one, 0), NULL, 16);
        double value, back;
        char text[32];
        size_t len;
        memcpy(&value, &bits, sizeof value);
        memset(text, 'x', sizeof text);
        len = pmi_json_number(value, text);
        assert_int_equal(strlen(text), len);
        assert_string_equal(text, item_text(one, 1));
        count++;
        if (!isfinite(value))
            continue;
        back = pmi_json_to_double(pm_text(text));
        assert_true(back == value);
    }
    assert_true(count >= 1000);
    cJSON_Delete(cases);
}

/* Bytes as the reference's server reads them. */
static void test_strencode(void **state)
{
    cJSON *cases = load_cases("strencode.json"), *one;
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    size_t count = 0;
    (void)state;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(cases, "decode"))
    {
        const cJSON *unit;
        size_t len;
        uint8_t *in;
        pmi_buf wide, want, got;
        in = test_unhex(cJSON_GetObjectItem(one, "hex")->valuestring, &len);
        pmi_buf_init(&wide, &env, SIZE_MAX);
        pmi_buf_init(&want, &env, SIZE_MAX);
        pmi_buf_init(&got, &env, SIZE_MAX);
        /* UTF-16 units in their generalised form; mending joins the pairs. */
        cJSON_ArrayForEach(unit, cJSON_GetObjectItem(one, "server"))
        {
            uint8_t bytes[4];
            pmi_buf_add(&wide, bytes,
                        pmi_utf8_put((uint32_t)unit->valueint, bytes));
        }
        pmi_utf8_well_formed(buf_slice(&wide), &want);
        pmi_utf8_clean(pm_bytes(in, len), &got);
        check_same(buf_slice(&got), buf_slice(&want), pm_bytes(in, len));
        assert_true(pmi_utf8_valid(buf_slice(&got)));
        assert_int_equal(pmi_utf8_valid(pm_bytes(in, len)),
                         pmi_slice_eq(buf_slice(&got), pm_bytes(in, len)));
        pmi_buf_fini(&wide);
        pmi_buf_fini(&want);
        pmi_buf_fini(&got);
        free(in);
        count++;
    }
    assert_int_equal(count, 110);
    cJSON_Delete(cases);
    assert_heap_empty(&heap);
}

static void test_strencode_back(void **state)
{
    cJSON *cases = load_cases("strencode.json"), *one;
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(cases, "encode"))
    {
        const cJSON *unit;
        size_t len;
        uint8_t *want;
        pmi_buf wide, got;
        want =
            test_unhex(cJSON_GetObjectItem(one, "server")->valuestring, &len);
        pmi_buf_init(&wide, &env, SIZE_MAX);
        pmi_buf_init(&got, &env, SIZE_MAX);
        cJSON_ArrayForEach(unit, cJSON_GetObjectItem(one, "utf16"))
        {
            uint8_t bytes[4];
            pmi_buf_add(&wide, bytes,
                        pmi_utf8_put((uint32_t)unit->valueint, bytes));
        }
        pmi_utf8_well_formed(buf_slice(&wide), &got);
        check_same(buf_slice(&got), pm_bytes(want, len), buf_slice(&wide));
        pmi_buf_fini(&wide);
        pmi_buf_fini(&got);
        free(want);
    }
    cJSON_Delete(cases);
    assert_heap_empty(&heap);
}

/* ---- Positions and limits ---------------------------------------------------------- */
typedef struct fault {
    const char *text;
    pm_err err;
    size_t at;
    uint32_t line, column;
    const char *what;
} fault;

static void test_positions(void **state)
{
    static const fault faults[] = {
        {"", PM_EJSON, 0, 1, 1, "a value"},
        {"  \n ", PM_EJSON, 4, 2, 2, "a value"},
        {"{\"a\":1,\n\"b\" 2}", PM_EJSON, 12, 2, 5, "a colon"},
        {"{\"a\":1,\r\n  }", PM_EJSON, 11, 2, 3, "a key in double quotes"},
        {"[1,]", PM_EJSON, 3, 1, 4, "a value"},
        {"[1 2]", PM_EJSON, 3, 1, 4, "a comma or ]"},
        {"{\"a\":1", PM_EJSON, 6, 1, 7, "a comma or }"},
        {"01", PM_EJSON, 1, 1, 2, "the end of the text"},
        {"1 x", PM_EJSON, 2, 1, 3, "the end of the text"},
        {"-x", PM_EJSON, 1, 1, 2, "a digit"},
        {"1.e5", PM_EJSON, 2, 1, 3, "a digit"},
        {"1e+", PM_EJSON, 3, 1, 4, "a digit"},
        {"nul", PM_EJSON, 3, 1, 4, "true, false or null"},
        {"trye", PM_EJSON, 2, 1, 3, "true, false or null"},
        {"\"ab", PM_EJSON, 3, 1, 4, "the string's closing quote"},
        {"\"a\tb\"", PM_EJSON, 2, 1, 3, "no bare control character"},
        {"\"\\q\"", PM_EJSON, 2, 1, 3, "a valid escape"},
        {"\"\\u12x4\"", PM_EJSON, 5, 1, 6, "a valid escape"},
        {"\"\\", PM_EJSON, 2, 1, 3, "a valid escape"},
        /* Columns count characters, offsets count bytes. */
        {"[\"\xe7\x8e\xa9\xe5\xae\xb6\",x]", PM_EJSON, 10, 1, 7, "a value"},
        {"\xef\xbb\xbf{}", PM_EJSON, 0, 1, 1, "a value"},
        {"[1,\n\"a\\u0000\"]", PM_ENUL, 6, 2, 3, "no U+0000 in a string"},
        {"{\"\\u0000\":1}", PM_ENUL, 2, 1, 3, "no U+0000 in a string"},
        {"[[[[1]]]]", PM_EDEPTH, 3, 1, 4, "fewer levels"},
        {"{\"a\":{\"b\":{\"c\":[]}}}", PM_EDEPTH, 15, 1, 16, "fewer levels"},
    };
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(faults); i++) {
        const fault *f = &faults[i];
        cJSON *tree = NULL;
        pmi_json_error why = {0};
        assert_err(pmi_json_parse(&env, pm_text(f->text), 3, &tree, &why),
                   f->err);
        assert_string_equal(why.what, f->what);
        assert_int_equal(why.at, f->at);
        assert_int_equal(why.line, f->line);
        assert_int_equal(why.column, f->column);
        assert_null(tree);
    }
    assert_heap_empty(&heap);
}

static void test_depth(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf out;
    cJSON *tree = NULL;
    pm_slice scalar = pm_text("1"), two = pm_text("[{}]");
    (void)state;
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_buf_add_text(&out, "kept");
    assert_ok(pmi_json_check(scalar, 0, NULL));
    assert_err(pmi_json_check(two, 1, NULL), PM_EDEPTH);
    assert_err(pmi_json_canonical(&env, two, 1, &out), PM_EDEPTH);
    assert_ok(pmi_json_check(two, 2, NULL));
    assert_ok(pmi_json_parse(&env, two, 2, &tree, NULL));
    assert_err(pmi_json_print(tree, 1, &out), PM_EDEPTH);
    assert_true(pmi_slice_eq(buf_slice(&out), pm_text("kept")));
    assert_ok(pmi_json_print(tree, 2, &out));
    assert_true(pmi_slice_eq(buf_slice(&out), pm_text("kept[{}]")));
    /* Levels that were closed do not count. */
    assert_ok(pmi_json_check(pm_text("[[],[],{\"a\":[]}]"), 3, NULL));
    cJSON_Delete(tree);
    pmi_buf_fini(&out);
    assert_heap_empty(&heap);
}

/* A million brackets must not reach the stack. */
static void test_depth_hostile(void **state)
{
    size_t n = 1000 * 1000;
    char *text = malloc(n);
    cJSON *tree = NULL;
    (void)state;
    assert_non_null(text);
    memset(text, '[', n);
    assert_err(pm_json_tree(pm_bytes(text, n), &tree), PM_EDEPTH);
    assert_err(pmi_json_check(pm_bytes(text, n), 32, NULL), PM_EDEPTH);
    free(text);
}

static void test_buf_max(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf out;
    cJSON *tree = NULL;
    pm_slice text = pm_text("{\"a\":[1,2,3],\"b\":\"0123456789\"}");
    (void)state;
    assert_ok(pmi_json_parse(&env, text, 8, &tree, NULL));
    for (size_t max = 0; max <= text.len; max++) {
        pm_err want = max < text.len ? PM_ENOMEM : PM_OK;
        pmi_buf_init(&out, &env, max);
        assert_err(pmi_json_print(tree, 8, &out), want);
        assert_int_equal(out.len, want ? 0 : text.len);
        pmi_buf_fini(&out);
    }
    cJSON_Delete(tree);
    assert_heap_empty(&heap);
}

/* ---- Trees --------------------------------------------------------------------------- */
static void test_tree_is_cjson(void **state)
{
    pm_slice text = pm_text("{\"n\":3000000000,\"m\":-3000000000,\"i\":-7.9,"
                            "\"t\":true,\"a\":[1,[],\"x\"],\"z\":null}");
    cJSON *tree = NULL, *a;
    char *out = NULL;
    (void)state;
    assert_ok(pm_json_tree(text, &tree));
    assert_int_equal(cJSON_GetObjectItem(tree, "n")->valueint, INT_MAX);
    assert_int_equal(cJSON_GetObjectItem(tree, "m")->valueint, INT_MIN);
    assert_int_equal(cJSON_GetObjectItem(tree, "i")->valueint, -7);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "t")));
    a = cJSON_GetObjectItem(tree, "a");
    assert_int_equal(cJSON_GetArraySize(a), 3);
    /* cJSON changes what we have built. */
    assert_true(cJSON_AddItemToArray(a, cJSON_CreateNumber(0.1 + 0.2)));
    cJSON_DeleteItemFromArray(a, 0);
    cJSON_DeleteItemFromObject(tree, "z");
    assert_non_null(cJSON_AddStringToObject(tree, "s", "\xe4\xb8\xad/\x7f"));
    assert_non_null(cJSON_AddNumberToObject(tree, "5", -0.0));
    assert_ok(pm_json_text(tree, &out));
    assert_string_equal(out,
                        "{\"5\":0,\"n\":3000000000,\"m\":-3000000000,"
                        "\"i\":-7.9,\"t\":true,\"a\":[[],\"x\","
                        "0.30000000000000004],\"s\":\"\xe4\xb8\xad/\x7f\"}");
    pm_text_free(out);
    pm_text_free(NULL);
    cJSON_Delete(tree);
}

static void test_tree_made_by_host(void **state)
{
    cJSON *tree = cJSON_CreateArray(), *object = cJSON_CreateObject();
    cJSON nameless = {0};
    char *out = NULL;
    (void)state;
    cJSON_AddItemToArray(tree, cJSON_CreateNumber((double)NAN));
    cJSON_AddItemToArray(tree, cJSON_CreateNumber((double)-INFINITY));
    cJSON_AddItemToArray(tree, cJSON_CreateRaw("{ \"raw\" : 01 }"));
    /* A lone surrogate, a pair in six bytes, a byte that is no UTF-8. */
    cJSON_AddItemToArray(tree, cJSON_CreateString("\xed\xa0\x80"));
    cJSON_AddItemToArray(tree, cJSON_CreateString("\xed\xa0\xbd\xed\xb8\x80"));
    cJSON_AddItemToArray(tree, cJSON_CreateString("a\xff\x01\xc0\x80"));
    cJSON_AddItemToArray(tree, object);
    cJSON_AddNumberToObject(object, "b", 1);
    cJSON_AddNumberToObject(object, "10", 2);
    cJSON_AddNumberToObject(object, "9", 3);
    cJSON_AddNumberToObject(object, "b", 4);
    nameless.type = cJSON_String;
    cJSON_AddItemReferenceToArray(object, &nameless);
    assert_ok(pm_json_text(tree, &out));
    assert_string_equal(
        out, "[null,null,{ \"raw\" : 01 },\"\\ud800\",\"\xf0\x9f\x98\x80\","
             "\"a\xef\xbf\xbd\\u0001\xef\xbf\xbd\xef\xbf\xbd\","
             "{\"9\":3,\"10\":2,\"b\":1,\"b\":4,\"\":\"\"}]");
    pm_text_free(out);
    cJSON_Delete(tree);
}

static void test_get_truthy_add(void **state)
{
    static const bool truth[] = {false, true,  false, false, true,  true,
                                 true,  false, true,  true,  false, false};
    pm_slice text = pm_text("{\"A\":1,\"a\":[false,true,null,0,-1,1e-300,"
                            "1e400,\"\",\"0\",[],-0,1e-400]}");
    cJSON *tree = NULL, *item = cJSON_CreateNull(), nan = {0};
    const cJSON *list, *node;
    size_t i = 0;
    (void)state;
    assert_ok(pm_json_tree(text, &tree));
    list = pmi_json_get(tree, "a");
    assert_true(cJSON_IsArray(list));
    assert_null(pmi_json_get(tree, "b"));
    assert_null(pmi_json_get(list, "a"));
    assert_null(pmi_json_get(NULL, "a"));
    cJSON_ArrayForEach(node, list)
        assert_int_equal(pmi_json_truthy(node), truth[i++]);
    assert_int_equal(i, PMI_COUNT(truth));
    nan.type = cJSON_Number;
    nan.valuedouble = (double)NAN;
    assert_false(pmi_json_truthy(&nan));
    assert_false(pmi_json_truthy(NULL));
    assert_true(pmi_json_truthy(tree));
    assert_err(pmi_json_add((cJSON *)list->child, "x", item), PM_EINVAL);
    assert_err(pmi_json_add(NULL, "x", item), PM_EINVAL);
    assert_err(pmi_json_add(tree, NULL, item), PM_EINVAL);
    assert_err(pmi_json_add(tree, "x", tree), PM_EINVAL);
    assert_err(pmi_json_add(tree, "x", NULL), PM_EINVAL);
    assert_ok(pmi_json_add(tree, "x", item));
    assert_ptr_equal(tree->child->prev, item);
    assert_ptr_equal(pmi_json_get(tree, "x"), item);
    assert_ok(pmi_json_add((cJSON *)list, NULL, cJSON_CreateTrue()));
    cJSON_Delete(tree);
}

/* Many members: the sorted way, with twins that own trees of their own. */
static void test_large_object(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_buf in, want;
    (void)state;
    pmi_buf_init(&in, &env, SIZE_MAX);
    pmi_buf_init(&want, &env, SIZE_MAX);
    pmi_buf_add_text(&in, "{\"first\":0");
    for (int i = 0; i < 8000; i++)
        pmi_buf_add_format(&in, ",\"player%d\":{\"at\":[%d]}", i % 4000, i);
    for (int i = 2000; i > 0; i--)
        pmi_buf_add_format(&in, ",\"%d\":%d", i, i);
    pmi_buf_add_text(&in, ",\"first\":\"last\"}");
    pmi_buf_add_text(&want, "{");
    for (int i = 1; i <= 2000; i++)
        pmi_buf_add_format(&want, "\"%d\":%d,", i, i);
    pmi_buf_add_text(&want, "\"first\":\"last\"");
    for (int i = 0; i < 4000; i++)
        pmi_buf_add_format(&want, ",\"player%d\":{\"at\":[%d]}", i, i + 4000);
    pmi_buf_add_text(&want, "}");
    assert_false(in.failed || want.failed);
    check_good(&env, buf_slice(&in), buf_slice(&want));
    pmi_buf_fini(&in);
    pmi_buf_fini(&want);
    assert_heap_empty(&heap);
}

/* A U+0000 passes where no char * is in between. */
static void test_nul(void **state)
{
    static const char in[] = "{\"a\\u0000\":\"\\u0000b\",\"a\":1,"
                             "\"a\\u0000\":\"\\u0000\\u0000\"}";
    static const char want[] = "{\"a\\u0000\":\"\\u0000\\u0000\",\"a\":1}";
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    cJSON *tree = NULL;
    pmi_buf out;
    (void)state;
    pmi_buf_init(&out, &env, SIZE_MAX);
    assert_ok(pmi_json_canonical(&env, pm_text(in), 4, &out));
    check_same(buf_slice(&out), pm_text(want), pm_text(in));
    assert_err(pm_json_tree(pm_text(in), &tree), PM_ENUL);
    assert_ok(pmi_json_check(pm_text(in), 4, NULL));
    pmi_buf_reset(&out);
    pmi_json_add_string(&out, pm_bytes("\"a\0\n\xed\xb0\x80\xe4", 8));
    assert_true(pmi_slice_eq(
        buf_slice(&out), pm_text("\"\\\"a\\u0000\\n\\udc00\xef\xbf\xbd\"")));
    pmi_buf_reset(&out);
    pmi_json_add_string(&out, pm_bytes(NULL, 0));
    assert_true(pmi_slice_eq(buf_slice(&out), pm_text("\"\"")));
    pmi_buf_fini(&out);
    assert_heap_empty(&heap);
}

/* Numbers do not look at the locale; skipped where no other is installed. */
static void test_locale(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8",
                                        "fr_FR.UTF-8", "de_DE"};
    char text[32];
    size_t i;
    (void)state;
    for (i = 0; i < PMI_COUNT(names); i++)
        if (setlocale(LC_NUMERIC, names[i]))
            break;
    pmi_json_number(0.1 + 0.2, text);
    assert_true(pmi_json_to_double(pm_text("1234.5678901234567890123")) ==
                1234.5678901234567890123);
    setlocale(LC_NUMERIC, "C");
    assert_string_equal(text, "0.30000000000000004");
    if (i == PMI_COUNT(names))
        skip();
}

/* ---- Memory runs out --------------------------------------------------------------------- */
static const char oom_text[] =
    "{\"b\":[1,{\"x\":\"\\u4e2d\"},\"long enough to matter\"],\"1\":{},"
    "\"b\":{\"again\":[[],[]]},\"c\":1,\"d\":2,\"e\":3,\"f\":4,\"g\":5,"
    "\"h\":6,\"i\":7,\"j\":8,\"k\":9,\"l\":10,\"m\":11,\"n\":12,\"o\":13,"
    "\"p\":14,\"q\":15,\"0\":\"seventeen and more\"}";
static const char oom_want[] =
    "{\"0\":\"seventeen and more\",\"1\":{},\"b\":{\"again\":[[],[]]},"
    "\"c\":1,\"d\":2,\"e\":3,\"f\":4,\"g\":5,\"h\":6,\"i\":7,\"j\":8,\"k\":9,"
    "\"l\":10,\"m\":11,\"n\":12,\"o\":13,\"p\":14,\"q\":15}";

static void test_oom_tree(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        cJSON *tree = NULL, *item;
        pmi_json_error why = {0};
        pm_err err = pmi_json_parse(&env, pm_text(oom_text), 8, &tree, &why);
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        if (err) {
            assert_null(tree);
            assert_string_equal(why.what, "memory");
            continue;
        }
        item = cJSON_CreateNull();
        if (item && pmi_json_add(tree, "added", item)) {
            assert_int_equal(cJSON_GetArraySize(tree), 18);
            cJSON_Delete(item);
        }
        cJSON_Delete(tree);
    }
    test_cjson_use(NULL);
}

static void test_oom_print(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    cJSON *tree = NULL;
    (void)state;
    assert_ok(pm_json_tree(pm_text(oom_text), &tree));
    assert_non_null(cJSON_AddNumberToObject(tree, "2", 2));
    TEST_EACH_FAILURE(&heap)
    {
        pmi_buf out;
        pm_err err;
        pmi_buf_init(&out, &env, SIZE_MAX);
        err = pmi_json_print(tree, 8, &out);
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        if (err)
            assert_int_equal(out.len, 0);
        pmi_buf_fini(&out);
    }
    cJSON_Delete(tree);
}

static void test_oom_canonical(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pmi_buf out;
        pm_err err;
        pmi_buf_init(&out, &env, SIZE_MAX);
        err = pmi_json_canonical(&env, pm_text(oom_text), 8, &out);
        assert_err(err, heap.failed ? PM_ENOMEM : PM_OK);
        check_same(buf_slice(&out), pm_text(err ? "" : oom_want),
                   pm_text(oom_text));
        pmi_buf_fini(&out);
    }
}

/* ---- UTF-8 --------------------------------------------------------------------------------- */
static void test_utf8(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    uint8_t bytes[4];
    uint32_t code, back;
    pmi_buf out;
    (void)state;
    for (code = 0; code < PMI_UTF8_BAD; code++) {
        size_t n = pmi_utf8_put(code, bytes);
        bool lone = code >= 0xD800 && code <= 0xDFFF;
        assert_int_equal(n, pmi_utf8_size(code));
        assert_int_equal(pmi_utf8_next_wide(bytes, bytes + n, &back), n);
        assert_int_equal(back, code);
        assert_int_equal(pmi_utf8_valid(pm_bytes(bytes, n)), !lone);
    }
    assert_int_equal(pmi_utf8_put(PMI_UTF8_BAD, bytes), 3);
    assert_int_equal(pmi_utf8_size(PMI_UTF8_BAD), 3);
    assert_true(pmi_utf8_valid(pm_bytes(NULL, 0)));
    pmi_buf_init(&out, &env, SIZE_MAX);
    pmi_utf8_clean(pm_bytes(NULL, 0), &out);
    assert_int_equal(out.len, 0);
    pmi_utf8_well_formed(
        pm_text("plain text\xed\xa0\xbd\xed\xb8\x80\xed\xb8\x80\xff."), &out);
    assert_true(pmi_slice_eq(
        buf_slice(&out),
        pm_text("plain text\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd.")));
    pmi_buf_fini(&out);
    assert_heap_empty(&heap);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_texts),
    cmocka_unit_test(test_bytes),
    cmocka_unit_test(test_doubles),
    cmocka_unit_test(test_strencode),
    cmocka_unit_test(test_strencode_back),
    cmocka_unit_test(test_positions),
    cmocka_unit_test(test_depth),
    cmocka_unit_test(test_depth_hostile),
    cmocka_unit_test(test_buf_max),
    cmocka_unit_test(test_tree_is_cjson),
    cmocka_unit_test(test_tree_made_by_host),
    cmocka_unit_test(test_get_truthy_add),
    cmocka_unit_test(test_large_object),
    cmocka_unit_test(test_nul),
    cmocka_unit_test(test_locale),
    cmocka_unit_test(test_oom_tree),
    cmocka_unit_test(test_oom_print),
    cmocka_unit_test(test_oom_canonical),
    cmocka_unit_test(test_utf8),
};
TEST_MAIN(tests)
