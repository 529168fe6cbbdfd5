/* SPDX-License-Identifier: MIT */
/* codec_schema.c -- the protobuf dialect and the route dictionary. */
#include "codec.h"

#include <stdlib.h>

pm_err codec_dialect(const codec_call *call, const cJSON *protos,
                     pmi_dialect **out)
{
    pmi_buf text;
    pmi_buf_init(&text, call->env, SIZE_MAX);
    pm_err err = protos ? pmi_json_print(protos, CODEC_DEPTH, &text) : PM_EJSON;
    if (err == PM_OK)
        err = pmi_dialect_new(call->env, 1, 2, pmi_buf_slice(&text), out);
    pmi_buf_fini(&text);
    return err;
}

/* ---- Decoding, with U+0000 --------------------------------------------- */
static pm_err codec_decode_print(const pmi_dialect *dialect,
                                 const pmi_dialect_message *message,
                                 pm_slice bytes, pmi_buf *out)
{
    cJSON *tree = NULL;
    pm_err err =
        pmi_dialect_decode(dialect, message, bytes, CODEC_DEPTH, &tree);
    if (err == PM_OK)
        err = pmi_json_print(tree, CODEC_DEPTH, out);
    cJSON_Delete(tree);
    return err;
}

/* Which zero bytes lie in strings? Strings that are cut at the end of the
 * input are legal and read in order: a zero is in one when the input that
 * ends behind it is refused for it. Puts `stand_in` there. */
static void codec_replace_nul(const pmi_dialect *dialect,
                              const pmi_dialect_message *message,
                              uint8_t *bytes, size_t len, uint8_t stand_in)
{
    for (size_t k = 0; k < len; k++) {
        cJSON *tree = NULL;
        if (bytes[k])
            continue;
        if (pmi_dialect_decode(dialect, message, pm_bytes(bytes, k + 1),
                               CODEC_DEPTH, &tree) == PM_ENUL)
            bytes[k] = stand_in;
        cJSON_Delete(tree);
    }
}

pm_err codec_decode_text(const codec_call *call, const pmi_dialect *dialect,
                         const pmi_dialect_message *message, pm_slice bytes,
                         pmi_buf *out)
{
    pm_err err = codec_decode_print(dialect, message, bytes, out);
    if (err != PM_ENUL)
        return err;
    pmi_buf copy, other;
    size_t start = out->len;
    pmi_buf_init(&copy, call->env, SIZE_MAX);
    pmi_buf_init(&other, call->env, SIZE_MAX);
    pmi_buf_add(&copy, bytes.data, bytes.len);
    codec_replace_nul(dialect, message, copy.data, copy.len, 1);
    err = codec_decode_print(dialect, message, pmi_buf_slice(&copy), out);
    copy.len = 0;
    pmi_buf_add(&copy, bytes.data, bytes.len);
    codec_replace_nul(dialect, message, copy.data, copy.len, 2);
    if (err == PM_OK)
        err =
            codec_decode_print(dialect, message, pmi_buf_slice(&copy), &other);
    if (err == PM_OK &&
        (out->len - start != other.len ||
         !codec_join((char *)out->data + start, (const char *)other.data,
                     other.len, '1', '2')))
        err = PM_ENUL;
    pmi_buf_fini(&copy);
    pmi_buf_fini(&other);
    return err;
}

/* ---- Operations -------------------------------------------------------- */
const char *codec_protobuf_parse(codec_call *call)
{
    pmi_dialect *dialect = NULL;
    pm_err err = codec_dialect(call, codec_get(call, "protos"), &dialect);
    if (err == PM_OK)
        codec_add_string(call, "text", pmi_dialect_text(dialect));
    pmi_dialect_free(dialect);
    return codec_word(err);
}

const char *codec_protobuf_version(codec_call *call)
{
    const cJSON *client = codec_get(call, "client");
    const cJSON *server = codec_get(call, "server");
    pmi_dialect *c = NULL, *s = NULL;
    char version[25];
    pm_err err = PM_OK;
    if (client && !cJSON_IsNull(client))
        err = codec_dialect(call, client, &c);
    if (err == PM_OK && server && !cJSON_IsNull(server))
        err = codec_dialect(call, server, &s);
    if (err == PM_OK)
        err = pmi_dialect_version(c, s, version);
    if (err == PM_OK)
        codec_add_string(call, "version", pm_text(version));
    pmi_dialect_free(c);
    pmi_dialect_free(s);
    return codec_word(err);
}

const char *codec_protobuf_encode(codec_call *call)
{
    pmi_dialect *dialect = NULL;
    pmi_buf route, bytes;
    pmi_buf_init(&bytes, call->env, SIZE_MAX);
    pm_err err = codec_dialect(call, codec_get(call, "protos"), &dialect);
    if (!codec_text(call, codec_get(call, "route"), &route) && err == PM_OK)
        err = PM_EROUTE;
    if (err == PM_OK) {
        const pmi_dialect_message *message =
            pmi_dialect_find(dialect, pmi_buf_slice(&route));
        err = message
                  ? pmi_dialect_encode(dialect, message, codec_get(call, "msg"),
                                       CODEC_DEPTH, &bytes)
                  : PM_EPROTOBUF;
        if (err == PM_EPROTOBUF)
            codec_add_word(call, "refused", "true");
        else if (err == PM_OK)
            codec_add_hex(call, "hex", pmi_buf_slice(&bytes));
    }
    pmi_buf_fini(&route);
    pmi_buf_fini(&bytes);
    pmi_dialect_free(dialect);
    return err == PM_EPROTOBUF ? NULL : codec_word(err);
}

const char *codec_protobuf_decode(codec_call *call)
{
    pmi_dialect *dialect = NULL;
    pmi_buf route, bytes;
    pm_err err = codec_dialect(call, codec_get(call, "protos"), &dialect);
    if (!codec_text(call, codec_get(call, "route"), &route) && err == PM_OK)
        err = PM_EROUTE;
    if (!codec_bytes(call, codec_get(call, "hex"), &bytes) && err == PM_OK)
        err = PM_EINVAL;
    if (err == PM_OK) {
        const pmi_dialect_message *message =
            pmi_dialect_find(dialect, pmi_buf_slice(&route));
        codec_name(call, "value");
        if (message)
            err = codec_decode_text(call, dialect, message,
                                    pmi_buf_slice(&bytes), call->answer);
        else
            pmi_buf_add_text(call->answer, "null");
    }
    pmi_buf_fini(&route);
    pmi_buf_fini(&bytes);
    pmi_dialect_free(dialect);
    return codec_word(err);
}

/* The strings of a list; NULL when there is no memory or something else in
 * it. */
static const char **codec_list(const cJSON *list, size_t *count)
{
    const char **out;
    const cJSON *item;
    *count = (size_t)cJSON_GetArraySize(list);
    out = calloc(*count + 1, sizeof *out);
    size_t n = 0;
    cJSON_ArrayForEach(item, list)
    {
        if (!out || !cJSON_IsString(item)) {
            free(out);
            return NULL;
        }
        out[n++] = item->valuestring;
    }
    return out;
}

const char *codec_dictionary(codec_call *call)
{
    size_t count, user_count;
    const char **routes = codec_list(codec_get(call, "routes"), &count);
    const char **user = codec_list(codec_get(call, "user"), &user_count);
    pmi_dict *dict = NULL;
    pm_err err = routes && user ? pmi_dict_new(call->env, 1, 2, routes, count,
                                               user, user_count, &dict)
                                : PM_EINVAL;
    if (err == PM_OK) {
        codec_add_string(call, "dict", pmi_dict_text(dict));
        codec_add_string(call, "abbrs", pmi_dict_abbrs(dict));
        codec_add_string(call, "version", pm_text(pmi_dict_version(dict)));
    }
    pmi_dict_free(dict);
    free(routes);
    free(user);
    return codec_word(err);
}
