/* SPDX-License-Identifier: MIT */
/* pomelo_dialect_decode.c -- Pomelo's protobuf dialect to a cJSON tree.
 *
 * The schema alone tells how a value is read: browsers send wire type 2 for
 * every integer. The reference reads with one position for all levels, and
 * so do we: a nested message's length only ends its loop, fields may run
 * past it, and a string that runs past the end is cut in silence. Numbers
 * that run past the end, and tags that the schema does not know, are errors.
 *
 * What is built is bounded by the input: each node has cost a byte at least.
 * Start reading at pmi_dialect_decode(), then decode_members(). */
#include "pomelo_dialect_internal.h"

#include <cjson/cJSON.h>
#include <math.h>

#define DECODE_SLOTS 32
#define DECODE_FAR ((uint64_t)1 << 62)

typedef struct decode_state {
    const pmi_env *env;
    const uint8_t *data;
    uint64_t len;
    uint64_t at;    /* may lie past len, behind a string that was cut */
    uint32_t depth; /* levels that are left */
} decode_state;

static pm_err decode_members(decode_state *s,
                             const pmi_dialect_message *message, uint64_t end,
                             cJSON *object);

/* ---- Numbers ----------------------------------------------------------- */
/* Varints are doubles in JavaScript: of any length, exact below 2^53, rounded
 * at each step above. */
static bool decode_varint(decode_state *s, double *out)
{
    uint64_t low = 0;
    double value, scale = 562949953421312.0; /* 2^49 */
    for (unsigned shift = 0; shift < 49; shift += 7) {
        if (s->at >= s->len)
            return false;
        uint64_t byte = s->data[s->at++];
        low |= (byte & 0x7f) << shift;
        if (PMI_LIKELY(byte < 0x80)) {
            *out = (double)low;
            return true;
        }
    }
    for (value = (double)low; s->at < s->len; scale *= 128) {
        uint8_t byte = s->data[s->at++];
        value += (byte & 0x7f) * scale;
        if (byte < 0x80) {
            *out = value;
            return isfinite(value);
        }
    }
    return false;
}

static double decode_zigzag(double n)
{
    bool odd = n < 9007199254740992.0 && ((uint64_t)n & 1);
    return odd ? -(n + 1) / 2 : n / 2;
}

static bool decode_little_endian(decode_state *s, size_t n, uint64_t *out)
{
    uint64_t bits = 0;
    if (s->at > s->len || s->len - s->at < n)
        return false;
    for (size_t i = 0; i < n; i++)
        bits |= (uint64_t)s->data[s->at + i] << 8 * i;
    s->at += n;
    *out = bits;
    return true;
}

static bool decode_number(decode_state *s, pmi_dialect_type type, double *out)
{
    uint64_t bits;
    float narrow;
    if (type == PMI_DIALECT_FLOAT) {
        if (!decode_little_endian(s, 4, &bits))
            return false;
        uint32_t half = (uint32_t)bits;
        memcpy(&narrow, &half, sizeof narrow);
        *out = (double)narrow;
        return true;
    }
    if (type == PMI_DIALECT_DOUBLE) {
        if (!decode_little_endian(s, 8, &bits))
            return false;
        memcpy(out, &bits, sizeof bits);
        return true;
    }
    if (!decode_varint(s, out))
        return false;
    if (type == PMI_DIALECT_SINT)
        *out = decode_zigzag(*out);
    return true;
}

/* A length, and where it would end; past all bounds is far enough. */
static bool decode_end(decode_state *s, uint64_t *end)
{
    double n;
    if (!decode_varint(s, &n))
        return false;
    *end = n < (double)DECODE_FAR ? s->at + (uint64_t)n : DECODE_FAR;
    return true;
}

/* ---- Values ------------------------------------------------------------ */
static pm_err decode_scalar(decode_state *s, pmi_dialect_type type, cJSON **out)
{
    double n;
    if (!decode_number(s, type, &n))
        return PM_EPROTOBUF;
    *out = cJSON_CreateNumber(n);
    return *out ? PM_OK : PM_ENOMEM;
}

static pm_err decode_clean(decode_state *s, pm_slice raw, cJSON **out)
{
    pmi_buf clean;
    pmi_buf_init(&clean, s->env, SIZE_MAX);
    pmi_utf8_clean(raw, &clean);
    pmi_buf_add_byte(&clean, 0);
    if (!clean.failed)
        *out = cJSON_CreateString((const char *)clean.data);
    pmi_buf_fini(&clean);
    return *out ? PM_OK : PM_ENOMEM;
}

static pm_err decode_string(decode_state *s, cJSON **out)
{
    uint64_t end;
    if (!decode_end(s, &end))
        return PM_EPROTOBUF;
    size_t n = (size_t)((end < s->len ? end : s->len) - s->at);
    pm_slice raw = pm_bytes(s->data + s->at, n);
    s->at = end;
    if (n && memchr(raw.data, 0, n))
        return PM_ENUL;
    if (PMI_UNLIKELY(!pmi_utf8_valid(raw)))
        return decode_clean(s, raw, out);
    char *text = cJSON_malloc(n + 1);
    cJSON *item = text ? cJSON_CreateNull() : NULL;
    if (!item) {
        cJSON_free(text);
        return PM_ENOMEM;
    }
    if (n)
        memcpy(text, raw.data, n);
    text[n] = 0;
    item->type = cJSON_String;
    item->valuestring = text;
    *out = item;
    return PM_OK;
}

static pm_err decode_message(decode_state *s,
                             const pmi_dialect_message *message, cJSON **out)
{
    uint64_t end;
    if (s->depth == 0)
        return PM_EDEPTH;
    if (!decode_end(s, &end))
        return PM_EPROTOBUF;
    cJSON *object = cJSON_CreateObject();
    if (!object)
        return PM_ENOMEM;
    s->depth--;
    pm_err err = decode_members(s, message, end, object);
    s->depth++;
    if (err == PM_OK)
        *out = object;
    else
        cJSON_Delete(object);
    return err;
}

/* *out stays NULL for a type that has no value: undefined in JavaScript. */
static pm_err decode_value(decode_state *s, const pmi_dialect_field *field,
                           cJSON **out)
{
    *out = NULL;
    switch (field->type) {
    case PMI_DIALECT_STRING:
        return decode_string(s, out);
    case PMI_DIALECT_MESSAGE:
        return decode_message(s, field->message, out);
    case PMI_DIALECT_INT64:
    case PMI_DIALECT_NOTHING:
        return PM_OK;
    case PMI_DIALECT_UINT:
    case PMI_DIALECT_SINT:
    case PMI_DIALECT_FLOAT:
    case PMI_DIALECT_DOUBLE:
        break;
    }
    return decode_scalar(s, field->type, out);
}

/* ---- Members ----------------------------------------------------------- */
/* Takes `item` on success and on failure. */
static pm_err decode_add(const pmi_dialect_field *field, cJSON *object,
                         cJSON *item)
{
    pm_err err = item ? pmi_json_add(object, field->name, item) : PM_ENOMEM;
    if (err != PM_OK)
        cJSON_Delete(item);
    return err;
}

/* A field that comes twice: the last value, at the place of the first. */
static void decode_replace(cJSON *object, cJSON *old, cJSON *item)
{
    item->string = old->string;
    old->string = NULL;
    cJSON_ReplaceItemViaPointer(object, old, item);
}

static pm_err decode_single(decode_state *s, const pmi_dialect_field *field,
                            cJSON *object, cJSON **slot)
{
    cJSON *item;
    pm_err err = decode_value(s, field, &item);
    if (err != PM_OK || !item)
        return err;
    if (PMI_UNLIKELY(*slot != NULL))
        decode_replace(object, *slot, item);
    else
        err = decode_add(field, object, item);
    if (err == PM_OK)
        *slot = item;
    return err;
}

static pm_err decode_append(decode_state *s, const pmi_dialect_field *field,
                            cJSON *array)
{
    cJSON *item;
    pm_err err = decode_value(s, field, &item);
    if (err != PM_OK)
        return err;
    if (!item)
        item = cJSON_CreateNull();
    if (!item)
        return PM_ENOMEM;
    cJSON_AddItemToArray(array, item);
    return PM_OK;
}

/* A count is only believed as far as there are bytes: each number costs one.
 * 64 bit integers, which would cost none, are refused. */
static pm_err decode_packed(decode_state *s, const pmi_dialect_field *field,
                            cJSON *array)
{
    double count;
    if (!decode_varint(s, &count))
        return PM_EPROTOBUF;
    if (count > 0 && field->type == PMI_DIALECT_INT64)
        return PM_EPROTOBUF;
    for (double i = 0; i < count; i++) {
        pm_err err = decode_append(s, field, array);
        if (err != PM_OK)
            return err;
    }
    return PM_OK;
}

static pm_err decode_repeated(decode_state *s, const pmi_dialect_field *field,
                              cJSON *object, cJSON **slot)
{
    if (!*slot) {
        cJSON *array = cJSON_CreateArray();
        pm_err err = decode_add(field, object, array);
        if (err != PM_OK)
            return err;
        *slot = array;
    }
    if (field->type <= PMI_DIALECT_INT64)
        return decode_packed(s, field, *slot);
    return decode_append(s, field, *slot);
}

/* The field of the next key; the wire type is not looked at. Keys are 32 bit
 * signed numbers in JavaScript. */
static const pmi_dialect_field *decode_key(decode_state *s,
                                           const pmi_dialect_message *message)
{
    double key;
    if (!decode_varint(s, &key))
        return NULL;
    uint32_t bits = key < (double)DECODE_FAR
                        ? (uint32_t)(uint64_t)key
                        : (uint32_t)fmod(key, 4294967296.0);
    if (bits > INT32_MAX)
        return NULL;
    uint32_t tag = bits >> 3;
    if (PMI_LIKELY(tag < message->dense_count)) {
        uint16_t number = message->dense[tag];
        return number ? &message->fields[number - 1] : NULL;
    }
    return pmi_map_get_num(&message->by_tag, tag);
}

/* Slots remember where each field's value went. Schemas with more fields
 * look for the rest by name. */
static pm_err decode_members(decode_state *s,
                             const pmi_dialect_message *message, uint64_t end,
                             cJSON *object)
{
    cJSON *slots[DECODE_SLOTS] = {0};
    while (s->at < end) {
        const pmi_dialect_field *field = decode_key(s, message);
        if (!field)
            return PM_EPROTOBUF;
        size_t number = (size_t)(field - message->fields);
        cJSON *found = NULL, **slot = &found;
        if (PMI_LIKELY(number < DECODE_SLOTS))
            slot = &slots[number];
        else
            found = (cJSON *)pmi_json_get(object, field->name);
        pm_err err = field->option == PMI_DIALECT_REPEATED
                         ? decode_repeated(s, field, object, slot)
                         : decode_single(s, field, object, slot);
        if (err != PM_OK)
            return err;
    }
    return PM_OK;
}

pm_err pmi_dialect_decode(const pmi_dialect *dialect,
                          const pmi_dialect_message *message, pm_slice in,
                          uint32_t depth_max, cJSON **out)
{
    decode_state s = {dialect->env, in.data, in.len, 0, depth_max};
    if (depth_max == 0)
        return PM_EDEPTH;
    cJSON *object = cJSON_CreateObject();
    if (!object)
        return PM_ENOMEM;
    s.depth--;
    pm_err err = decode_members(&s, message, in.len, object);
    if (err == PM_OK)
        *out = object;
    else
        cJSON_Delete(object);
    return err;
}
