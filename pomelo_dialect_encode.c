/* SPDX-License-Identifier: MIT */
/* pomelo_dialect_encode.c -- a cJSON tree to Pomelo's protobuf dialect.
 *
 * Fields are written in the order of the message's members; members that the
 * schema does not know are skipped. A number that is not what the schema
 * says is converted as JavaScript would: `"12abc"` is 12, 3.99 is 3, and
 * 1e21, whose text starts with a 1, is 1. Where that would need a guess, the
 * message is refused.
 *
 * Nothing is allocated but the output. Start reading at pmi_dialect_encode(),
 * then encode_members(). */
#include "pomelo_dialect_internal.h"

#include <cjson/cJSON.h>
#include <math.h>

#define ENCODE_EXACT 9007199254740992.0 /* 2^53 */
#define ENCODE_DIGITS_MAX 400
#define ENCODE_SEEN_MAX 64

typedef struct encode_state {
    pmi_buf *out;
    uint32_t depth; /* levels that are left */
} encode_state;

static pm_err encode_members(encode_state *s,
                             const pmi_dialect_message *message,
                             const cJSON *tree);

/* ---- Varints ----------------------------------------------------------- */
/* Of a whole number that is not negative. From 2^63 on, all that a double can
 * hold ends with zero bits. */
static void encode_varint(pmi_buf *out, double value)
{
    for (; value >= 9223372036854775808.0; value /= 128)
        pmi_buf_add_byte(out, 0x80);
    uint8_t bytes[10];
    size_t n = 0;
    uint64_t rest = (uint64_t)value;
    for (; rest > 0x7f; rest >>= 7)
        bytes[n++] = (uint8_t)(rest | 0x80);
    bytes[n++] = (uint8_t)rest;
    pmi_buf_add(out, bytes, n);
}

/* ---- Conversions ------------------------------------------------------- */
static inline bool encode_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool encode_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static const char *encode_skip_space(const char *p)
{
    while (encode_is_space(*p))
        p++;
    return p;
}

/* A string's text; NULL for everything else. */
static const char *encode_text(const cJSON *value)
{
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

/* The digits of a hexadecimal number; false when none, or too many to be
 * exact. */
static bool encode_parse_hex(const char *p, double *out)
{
    uint64_t value = 0;
    size_t n = 0;
    for (; n < 13; n++) {
        char c = p[n];
        unsigned digit = encode_is_digit(c)       ? (unsigned)(c - '0')
                         : (c >= 'a' && c <= 'f') ? (unsigned)(c - 'a') + 10
                         : (c >= 'A' && c <= 'F') ? (unsigned)(c - 'A') + 10
                                                  : 16;
        if (digit == 16)
            break;
        value = value << 4 | digit;
    }
    *out = (double)value;
    return n > 0 && n < 13;
}

/* JavaScript's parseInt of a string; false for NaN. */
static bool encode_parse_int(const char *text, double *out)
{
    const char *p = encode_skip_space(text);
    bool negative = *p == '-';
    if (*p == '-' || *p == '+')
        p++;
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        if (!encode_parse_hex(p + 2, out))
            return false;
    } else {
        while (p[0] == '0' && encode_is_digit(p[1]))
            p++;
        size_t n = 0;
        while (n < ENCODE_DIGITS_MAX && encode_is_digit(p[n]))
            n++;
        if (n == 0 || n == ENCODE_DIGITS_MAX)
            return false;
        *out = pmi_json_to_double(pm_bytes(p, n));
    }
    if (negative)
        *out = -*out;
    return !isinf(*out);
}

/* parseInt of a number, which is of its text: past 1e21 and under 1e-6 that
 * has an exponent, and parseInt ends at the first digit. */
static bool encode_number_to_int(double value, double *out)
{
    double size = fabs(value);
    if (PMI_LIKELY(size < 1e21 && (size >= 1e-6 || size == 0))) {
        *out = size < ENCODE_EXACT ? (double)(int64_t)value : value;
        return true;
    }
    char text[32];
    if (isnan(value) || isinf(value))
        return false;
    pmi_json_number(value, text);
    *out = text[0] == '-' ? -(text[1] - '0') : text[0] - '0';
    return true;
}

/* parseInt of anything; false for NaN. An array's text starts with that of
 * its first element. */
static bool encode_to_int(const cJSON *value, double *out)
{
    while (cJSON_IsArray(value))
        value = value->child;
    if (cJSON_IsNumber(value))
        return encode_number_to_int(value->valuedouble, out);
    const char *text = encode_text(value);
    return text && encode_parse_int(text, out);
}

/* A string that is a number to JavaScript. Its forms beyond JSON's (".5",
 * "0x10", "Infinity") are refused, not guessed at. */
static pm_err encode_string_to_number(const char *text, double *out)
{
    const char *p = encode_skip_space(text);
    size_t n = strlen(p);
    while (n > 0 && encode_is_space(p[n - 1]))
        n--;
    if (n == 0) {
        *out = 0;
        return PM_OK;
    }
    if (!encode_is_digit(*p) && !strchr("+-.I", *p)) {
        *out = (unsigned char)*p < 0x80 ? (double)NAN : 0;
        return (unsigned char)*p < 0x80 ? PM_OK : PM_EPROTOBUF;
    }
    if (pmi_json_check(pm_bytes(p, n), 1, NULL) != PM_OK)
        return PM_EPROTOBUF;
    *out = pmi_json_to_double(pm_bytes(p, n));
    return PM_OK;
}

/* JavaScript's Number(). */
static pm_err encode_to_number(const cJSON *value, double *out)
{
    const char *text = encode_text(value);
    if (PMI_LIKELY(cJSON_IsNumber(value)))
        *out = value->valuedouble;
    else if (text)
        return encode_string_to_number(text, out);
    else if (cJSON_IsNull(value) || cJSON_IsFalse(value))
        *out = 0;
    else if (cJSON_IsTrue(value))
        *out = 1;
    else if (cJSON_IsObject(value))
        *out = (double)NAN;
    else
        return PM_EPROTOBUF;
    return PM_OK;
}

/* ---- Values ------------------------------------------------------------ */
static pm_err encode_uint(pmi_buf *out, const cJSON *value)
{
    double n;
    if (!encode_to_int(value, &n) || n < 0)
        return PM_EPROTOBUF;
    encode_varint(out, n);
    return PM_OK;
}

/* Zig-zag, then once more through parseInt: the reference does it so. */
static pm_err encode_sint(pmi_buf *out, const cJSON *value)
{
    double n;
    if (!encode_to_int(value, &n))
        return PM_EPROTOBUF;
    n = n < 0 ? -n * 2 - 1 : n * 2;
    if (!encode_number_to_int(n, &n))
        return PM_EPROTOBUF;
    encode_varint(out, n);
    return PM_OK;
}

static void encode_little_endian(pmi_buf *out, uint64_t bits, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(bits >> 8 * i);
    pmi_buf_add(out, bytes, n);
}

/* NaN has many patterns; JavaScript's is the quiet one without a sign. */
static pm_err encode_float(pmi_buf *out, const cJSON *value)
{
    double number;
    uint32_t bits = 0x7fc00000;
    pm_err err = encode_to_number(value, &number);
    if (err != PM_OK)
        return err;
    if (!isnan(number)) {
        float narrow = (float)number;
        memcpy(&bits, &narrow, sizeof bits);
    }
    encode_little_endian(out, bits, 4);
    return PM_OK;
}

static pm_err encode_double(pmi_buf *out, const cJSON *value)
{
    double number;
    uint64_t bits = 0x7ff8000000000000;
    pm_err err = encode_to_number(value, &number);
    if (err != PM_OK)
        return err;
    if (!isnan(number))
        memcpy(&bits, &number, sizeof bits);
    encode_little_endian(out, bits, 8);
    return PM_OK;
}

/* Puts the length before what lies behind `start`; one byte has been left
 * free for it, which nearly always does. */
static void encode_close(pmi_buf *out, size_t start)
{
    if (out->failed)
        return;
    size_t len = out->len - start - 1, more = 0;
    for (size_t rest = len; rest > 0x7f; rest >>= 7)
        more++;
    if (more) {
        if (!pmi_buf_reserve(out, more))
            return;
        memmove(out->data + start + 1 + more, out->data + start + 1, len);
        out->len += more;
    }
    uint8_t *p = out->data + start;
    for (; len > 0x7f; len >>= 7)
        *p++ = (uint8_t)(len | 0x80);
    *p = (uint8_t)len;
}

/* Lone surrogates leave as U+FFFD, as from JavaScript. */
static pm_err encode_string(pmi_buf *out, const cJSON *value)
{
    if (!encode_text(value))
        return PM_EPROTOBUF;
    pm_slice text = pm_text(encode_text(value));
    size_t start = out->len;
    pmi_buf_add_byte(out, 0);
    if (PMI_LIKELY(pmi_utf8_valid(text)))
        pmi_buf_add(out, text.data, text.len);
    else
        pmi_utf8_well_formed(text, out);
    encode_close(out, start);
    return PM_OK;
}

static pm_err encode_message(encode_state *s,
                             const pmi_dialect_message *message,
                             const cJSON *value)
{
    size_t start = s->out->len;
    if (!pmi_json_truthy(value) || cJSON_IsRaw(value))
        return PM_EPROTOBUF;
    if (s->depth == 0)
        return PM_EDEPTH;
    s->depth--;
    pmi_buf_add_byte(s->out, 0);
    pm_err err = encode_members(s, message, value);
    s->depth++;
    encode_close(s->out, start);
    return err;
}

static pm_err encode_value(encode_state *s, const pmi_dialect_field *field,
                           const cJSON *value)
{
    switch (field->type) {
    case PMI_DIALECT_UINT:
        return encode_uint(s->out, value);
    case PMI_DIALECT_SINT:
        return encode_sint(s->out, value);
    case PMI_DIALECT_FLOAT:
        return encode_float(s->out, value);
    case PMI_DIALECT_DOUBLE:
        return encode_double(s->out, value);
    case PMI_DIALECT_STRING:
        return encode_string(s->out, value);
    case PMI_DIALECT_MESSAGE:
        return encode_message(s, field->message, value);
    case PMI_DIALECT_INT64:
    case PMI_DIALECT_NOTHING:
        break;
    }
    return PM_OK;
}

/* ---- Fields ------------------------------------------------------------ */
static pm_err encode_key(pmi_buf *out, const pmi_dialect_field *field)
{
    if (field->key_len == 0)
        return PM_EPROTOBUF;
    pmi_buf_add(out, field->key, field->key_len);
    return PM_OK;
}

/* Numbers: one key, their count, then all; the rest: a key for each. What is
 * no array is nothing, unless JavaScript would find a length in it. */
static pm_err encode_repeated(encode_state *s, const pmi_dialect_field *field,
                              const cJSON *array)
{
    bool packed = field->type <= PMI_DIALECT_INT64;
    const cJSON *item;
    if (!cJSON_IsArray(array)) {
        const char *text = encode_text(array);
        return (text && *text) || pmi_json_truthy(pmi_json_get(array, "length"))
                   ? PM_EPROTOBUF
                   : PM_OK;
    }
    if (!array->child)
        return PM_OK;
    pm_err err = packed ? encode_key(s->out, field) : PM_OK;
    if (field->type == PMI_DIALECT_INT64)
        err = PM_EPROTOBUF;
    if (packed)
        encode_varint(s->out, (double)cJSON_GetArraySize(array));
    cJSON_ArrayForEach(item, array)
    {
        if (err == PM_OK && !packed)
            err = encode_key(s->out, field);
        if (err == PM_OK)
            err = encode_value(s, field, item);
        if (err != PM_OK)
            break;
    }
    return err;
}

/* Members mostly come in the schema's order: look at the expected one first.
 * `hint` moves behind what was found. */
static const pmi_dialect_field *encode_find(const pmi_dialect_message *message,
                                            const char *name, uint32_t *hint)
{
    const pmi_dialect_field *field;
    if (!name || message->count == 0)
        return NULL;
    field = &message->fields[*hint];
    if (PMI_UNLIKELY(strcmp(field->name, name) != 0)) {
        field = pmi_map_get(&message->by_name, pm_text(name));
        if (!field)
            return NULL;
    }
    *hint = (uint32_t)(field - message->fields) + 1;
    if (*hint == message->count)
        *hint = 0;
    return field;
}

/* Bits tell the required fields that were met; those past the bits, of which
 * no sane schema has any, are looked for by name. */
static bool encode_complete(const pmi_dialect_message *message,
                            const cJSON *tree, uint64_t seen)
{
    uint32_t count = message->required_count;
    if (PMI_LIKELY(count < ENCODE_SEEN_MAX))
        return seen == ((uint64_t)1 << count) - 1;
    for (uint32_t i = 0; i < message->count; i++)
        if (message->fields[i].option == PMI_DIALECT_REQUIRED &&
            !pmi_json_get(tree, message->fields[i].name))
            return false;
    return true;
}

static pm_err encode_members(encode_state *s,
                             const pmi_dialect_message *message,
                             const cJSON *tree)
{
    uint64_t seen = 0;
    uint32_t hint = 0;
    pm_err err = PM_OK;
    const cJSON *item = cJSON_IsObject(tree) ? tree->child : NULL;
    for (; item && err == PM_OK; item = item->next) {
        const pmi_dialect_field *field =
            encode_find(message, item->string, &hint);
        if (!field)
            continue;
        if (field->option == PMI_DIALECT_REPEATED) {
            err = encode_repeated(s, field, item);
            continue;
        }
        if (field->option == PMI_DIALECT_REQUIRED &&
            field->required < ENCODE_SEEN_MAX)
            seen |= (uint64_t)1 << field->required;
        err = encode_key(s->out, field);
        if (err == PM_OK)
            err = encode_value(s, field, item);
    }
    if (err == PM_OK && !encode_complete(message, tree, seen))
        err = PM_EPROTOBUF;
    return err;
}

pm_err pmi_dialect_encode(const pmi_dialect *dialect,
                          const pmi_dialect_message *message, const cJSON *tree,
                          uint32_t depth_max, pmi_buf *out)
{
    encode_state s = {out, depth_max};
    size_t old = out->len;
    (void)dialect;
    if (out->failed)
        return PM_ENOMEM;
    if (depth_max == 0)
        return PM_EDEPTH;
    s.depth--;
    pm_err err = encode_members(&s, message, tree);
    if (err == PM_OK && out->failed)
        err = PM_ENOMEM;
    if (err == PM_OK && out->len == old)
        err = PM_EPROTOBUF;
    if (err != PM_OK) {
        out->len = old;
        out->failed = false;
    }
    return err;
}
