/* SPDX-License-Identifier: MIT */
/* fuzz_dialect.c -- protobuf from strangers, schemas from nobody knows whom.
 *
 * First byte even: the rest is a message of a fixed schema that has all there
 * is. Odd: the rest is a schema up to a line end, then a message of its first
 * route. With bit 1 the message is JSON, of any types, and is encoded first.
 * What decodes and encodes must then stay as it is for ever. */
#include "pomelo_dialect_internal.h"

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdlib.h>

#define DEPTH 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char fixed[] =
    "{\"message p\":{\"required sInt32 x\":1,\"optional p p\":2},"
    "\"r\":{\"required uInt32 a\":1,\"repeated p ps\":2,\"repeated float f\":3,"
    "\"optional double d\":4,\"repeated string s\":5,\"optional bool b\":6,"
    "\"message q\":{\"optional string t\":300,\"repeated bool n\":2},"
    "\"optional q q\":700,\"repeated int32 i\":7,\"repeated uInt64 l\":8,"
    "\"optional string v\":9,\"required float w\":9,\"optional float w\":10}}";

static void need(bool holds)
{
    if (!holds)
        abort();
}

/* Empty arrays are not written, and integers whose text gets an exponent (or
 * whose double gets one, in zig-zag) are written as its first digit. Both are
 * the reference's; texts without them must survive. */
static bool is_tame(const char *text)
{
    size_t digits = 0;
    if (strstr(text, "[]") || strstr(text, "e+"))
        return false;
    for (; *text; text++) {
        digits = *text >= '0' && *text <= '9' ? digits + 1 : 0;
        if (digits > 20)
            return false;
    }
    return true;
}

static void same_text(const pmi_env *env, const cJSON *a, const cJSON *b)
{
    pmi_buf x, y;
    pmi_buf_init(&x, env, SIZE_MAX);
    pmi_buf_init(&y, env, SIZE_MAX);
    need(pmi_json_print(a, DEPTH, &x) == PM_OK);
    need(pmi_json_print(b, DEPTH, &y) == PM_OK);
    pmi_buf_add_byte(&x, 0);
    pmi_buf_add_byte(&y, 0);
    if (is_tame((const char *)x.data))
        need(!strcmp((const char *)x.data, (const char *)y.data));
    pmi_buf_fini(&x);
    pmi_buf_fini(&y);
}

static void message(const pmi_env *env, const pmi_dialect *d,
                    const pmi_dialect_message *m, pm_slice in)
{
    cJSON *first = NULL, *second = NULL;
    pmi_buf a, b;
    pmi_buf_init(&a, env, SIZE_MAX);
    pmi_buf_init(&b, env, SIZE_MAX);
    if (pmi_dialect_decode(d, m, in, DEPTH, &first) == PM_OK &&
        pmi_dialect_encode(d, m, first, DEPTH, &a) == PM_OK) {
        need(pmi_dialect_decode(d, m, pmi_buf_slice(&a), DEPTH, &second) ==
             PM_OK);
        same_text(env, first, second);
        need(pmi_dialect_encode(d, m, second, DEPTH, &b) == PM_OK);
        need(pmi_slice_eq(pmi_buf_slice(&a), pmi_buf_slice(&b)));
    }
    cJSON_Delete(first);
    cJSON_Delete(second);
    pmi_buf_fini(&a);
    pmi_buf_fini(&b);
}

/* What an application might hand to the encoder. */
static void tree(const pmi_env *env, const pmi_dialect *d,
                 const pmi_dialect_message *m, pm_slice text)
{
    cJSON *value = NULL;
    pmi_buf out;
    pmi_buf_init(&out, env, SIZE_MAX);
    if (pmi_json_parse(env, text, DEPTH, &value, NULL) == PM_OK &&
        pmi_dialect_encode(d, m, value, DEPTH, &out) == PM_OK)
        message(env, d, m, pmi_buf_slice(&out));
    cJSON_Delete(value);
    pmi_buf_fini(&out);
}

/* The first route of a schema that is JSON. */
static const pmi_dialect_message *first_of(const pmi_env *env,
                                           const pmi_dialect *d, pm_slice text)
{
    cJSON *tree = NULL;
    const pmi_dialect_message *m = NULL;
    need(pmi_json_parse(env, text, DEPTH, &tree, NULL) == PM_OK);
    if (tree->child) {
        m = pmi_dialect_find(d, pm_text(tree->child->string));
        need(m != NULL);
    }
    cJSON_Delete(tree);
    return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_env env;
    pmi_dialect *d = NULL;
    const pmi_dialect_message *m;
    pmi_env_init(&env, NULL);
    if (size == 0)
        return 0;
    pm_slice rest = pm_bytes(data + 1, size - 1), text = pm_text(fixed);
    if (data[0] & 1) {
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t n = end ? (size_t)(end - (data + 1)) : rest.len;
        text = pm_bytes(data + 1, n);
        rest = end ? pm_bytes(end + 1, rest.len - n - 1) : pm_bytes(data, 0);
    }
    if (pmi_dialect_new(&env, 1, 2, text, &d) != PM_OK)
        return 0;
    need(pmi_json_check(pmi_dialect_text(d), 1000, NULL) == PM_OK);
    m = data[0] & 1 ? first_of(&env, d, text)
                    : pmi_dialect_find(d, pm_text("r"));
    if (m && data[0] & 2)
        tree(&env, d, m, rest);
    else if (m)
        message(&env, d, m, rest);
    pmi_dialect_free(d);
    return 0;
}
