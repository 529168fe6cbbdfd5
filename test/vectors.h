/* SPDX-License-Identifier: MIT */
/* test/vectors.h -- golden vectors: what Pomelo's own code answered.
 *
 * The files of test/data are JSON with tags for what JSON can not hold:
 * {"$num":"NaN"}, {"$utf16":[..]}, {"$undef":true}. U+0000, which a cJSON tree
 * can not hold either, is read as U+E000; who meets one of these in a place
 * where it matters skips the vector (vectors_plain says so). */
#ifndef TEST_VECTORS_H
#define TEST_VECTORS_H

#include "core/json.h"
#include "test.h"

#include <math.h>

static inline pmi_env vectors_env(void)
{
    pmi_env env;
    pmi_env_init(&env, NULL);
    return env;
}

/* Free with cJSON_Delete. */
static inline cJSON *vectors_load(const char *name)
{
    size_t len;
    char *text = test_load(name, &len), *at = text;
    pmi_env env = vectors_env();
    cJSON *tree = NULL;
    while ((at = strstr(at, "\\u0000")))
        memcpy(at, "\\ue000", 6);
    assert_ok(pmi_json_parse(&env, pm_bytes(text, len), 64, &tree, NULL));
    free(text);
    return tree;
}

static inline const cJSON *vectors_list(const cJSON *of, const char *name)
{
    const cJSON *list = pmi_json_get(of, name);
    assert_true(cJSON_IsArray(list));
    assert_true(cJSON_GetArraySize(list) > 0);
    return list;
}

/* A member as text, or NULL when it is null or not there. */
static inline const char *vectors_text(const cJSON *of, const char *name)
{
    const cJSON *value = pmi_json_get(of, name);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

static inline double vectors_number(const cJSON *of, const char *name)
{
    const cJSON *value = pmi_json_get(of, name);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

/* A member in hex as bytes; null is empty. Free with free(). */
static inline uint8_t *vectors_bytes(const cJSON *of, const char *name,
                                     size_t *len)
{
    const char *hex = vectors_text(of, name);
    return test_unhex(hex ? hex : "", len);
}

/* UTF-16 units as our text: pairs joined, lone ones in three bytes. */
static inline cJSON *vectors_utf16(const cJSON *units)
{
    uint8_t text[1024];
    size_t n = 0;
    const cJSON *unit;
    cJSON_ArrayForEach(unit, units)
    {
        uint32_t code = (uint32_t)unit->valuedouble;
        assert_true(n + 5 < sizeof text && code != 0);
        if (code >> 10 == 0x36 && unit->next &&
            (uint32_t)unit->next->valuedouble >> 10 == 0x37) {
            unit = unit->next;
            code = 0x10000 + ((code & 0x3ff) << 10) +
                   ((uint32_t)unit->valuedouble & 0x3ff);
        }
        n += pmi_utf8_put(code, text + n);
    }
    text[n] = 0;
    return cJSON_CreateString((const char *)text);
}

static inline double vectors_tag_number(const char *text)
{
    if (!strcmp(text, "-0"))
        return -0.0;
    if (!strcmp(text, "NaN"))
        return (double)NAN;
    return text[0] == '-' ? -(double)INFINITY : (double)INFINITY;
}

/* A copy with the tags resolved; false when it can not be said in a tree.
 * With `undefined_ok`, undefined members are left out, as JSON.stringify
 * does. The copy is the caller's in any case. */
static inline bool vectors_plain(const cJSON *in, bool undefined_ok,
                                 cJSON **out)
{
    const char *number = vectors_text(in, "$num");
    const cJSON *item, *units = pmi_json_get(in, "$utf16");
    bool whole = true;
    *out = number  ? cJSON_CreateNumber(vectors_tag_number(number))
           : units ? vectors_utf16(units)
                   : NULL;
    if (*out)
        return true;
    if (!cJSON_IsObject(in) && !cJSON_IsArray(in)) {
        *out = cJSON_Duplicate(in, 1);
        return !cJSON_IsString(in) || !strstr(in->valuestring, "\xee\x80\x80");
    }
    *out = cJSON_IsArray(in) ? cJSON_CreateArray() : cJSON_CreateObject();
    cJSON_ArrayForEach(item, in)
    {
        cJSON *copy = NULL;
        if (pmi_json_get(item, "$undef")) {
            whole = whole && undefined_ok;
            if (cJSON_IsObject(in))
                continue;
            copy = cJSON_CreateNull();
        } else {
            whole = vectors_plain(item, undefined_ok, &copy) && whole;
        }
        assert_ok(pmi_json_add(*out, item->string, copy));
    }
    return whole;
}

/* A tree as JSON text, which is free()d. */
static inline char *vectors_print(const cJSON *tree)
{
    pmi_env env = vectors_env();
    pmi_buf out;
    pmi_buf_init(&out, &env, SIZE_MAX);
    assert_ok(pmi_json_print(tree, 64, &out));
    pmi_buf_add_byte(&out, 0);
    assert_false(out.failed);
    return (char *)out.data;
}

#endif
