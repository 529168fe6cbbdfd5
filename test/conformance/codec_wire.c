/* SPDX-License-Identifier: MIT */
/* codec_wire.c -- packages, messages, and what goes into a DATA package. */
#include "codec.h"

#include <stdlib.h>

/* ---- Packages ---------------------------------------------------------- */
const char *codec_package_encode(codec_call *call)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    uint32_t type;
    pmi_buf body, out;
    const char *word = NULL;
    pmi_buf_init(&out, call->env, SIZE_MAX);
    if (!codec_bytes(call, codec_get(call, "body"), &body)) {
        word = "body";
    } else if (!codec_integer(codec_get(call, "type"), PMI_PACKAGE_HANDSHAKE,
                              PMI_PACKAGE_KICK, &type)) {
        word = "type";
    } else {
        pmi_proto_package_head(head, (uint8_t)type, body.len);
        pmi_buf_add(&out, head, sizeof head);
        pmi_buf_add(&out, body.data, body.len);
        codec_add_hex(call, "hex", pmi_buf_slice(&out));
    }
    pmi_buf_fini(&body);
    pmi_buf_fini(&out);
    return word;
}

const char *codec_package_fill(codec_call *call)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    uint32_t type, len;
    if (!codec_integer(codec_get(call, "type"), PMI_PACKAGE_HANDSHAKE,
                       PMI_PACKAGE_KICK, &type))
        return "type";
    if (!codec_integer(codec_get(call, "len"), 0, PMI_PACKAGE_BODY_MAX, &len))
        return "len";
    pmi_proto_package_head(head, (uint8_t)type, len);
    codec_add_hex(call, "head", pm_bytes(head, sizeof head));
    codec_add_integer(call, "total", PMI_PACKAGE_HEAD + (long long)len);
    return NULL;
}

const char *codec_package_frame(codec_call *call)
{
    pmi_package package;
    pmi_buf frame;
    const char *word = "hex";
    if (codec_bytes(call, codec_get(call, "hex"), &frame)) {
        word = NULL;
        if (pmi_proto_package_frame(frame.data, frame.len, PMI_PACKAGE_BODY_MAX,
                                    &package) == PM_OK) {
            codec_add_integer(call, "type", package.type);
            codec_add_hex(call, "body", package.body);
        } else {
            codec_add_word(call, "close", "true");
        }
    }
    pmi_buf_fini(&frame);
    return word;
}

/* Adds the packages that are whole; false when the reader would close. */
static bool codec_stream_take(codec_call *call, pmi_buf *in)
{
    pmi_package package;
    long used;
    bool first = true;
    while ((used = pmi_proto_package_decode(
                in->data, in->len, PMI_PACKAGE_BODY_MAX, &package)) > 0) {
        pmi_buf_add_format(call->answer, "%s{\"type\":%u", first ? "" : ",",
                           (unsigned)package.type);
        codec_add_hex(call, "body", package.body);
        pmi_buf_add_byte(call->answer, '}');
        pmi_buf_consume(in, (size_t)used);
        first = false;
    }
    return used == 0;
}

const char *codec_package_stream(codec_call *call)
{
    const cJSON *chunk;
    pmi_buf in, bytes;
    long long number = 0;
    bool open = true;
    const char *word = NULL;
    pmi_buf_init(&in, call->env, SIZE_MAX);
    codec_name(call, "packages");
    pmi_buf_add_byte(call->answer, '[');
    cJSON_ArrayForEach(chunk, codec_get(call, "chunks"))
    {
        pmi_buf_add_text(call->answer, number ? ",[" : "[");
        if (!codec_bytes(call, chunk, &bytes))
            word = "chunk";
        pmi_buf_add(&in, bytes.data, bytes.len);
        pmi_buf_fini(&bytes);
        open = codec_stream_take(call, &in);
        pmi_buf_add_byte(call->answer, ']');
        if (!open)
            break;
        number++;
    }
    pmi_buf_add_byte(call->answer, ']');
    if (open)
        codec_add_word(call, "closed", "null");
    else
        codec_add_integer(call, "closed", number);
    pmi_buf_fini(&in);
    return word;
}

/* ---- Messages ---------------------------------------------------------- */
static const char *codec_message_head(codec_call *call, uint32_t type,
                                      pm_slice route, uint32_t code, bool coded,
                                      pmi_buf *out)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    uint32_t id = 0;
    bool has_id = type == PMI_MESSAGE_REQUEST || type == PMI_MESSAGE_RESPONSE;
    if (has_id && !codec_integer(codec_get(call, "id"), 0, INT32_MAX, &id))
        return "id";
    /* The library never sends the code 0, which means no route: write 1. */
    size_t n = pmi_proto_message_head(head, (uint8_t)type, id, route,
                                      (uint16_t)(coded && !code ? 1 : code));
    if (n == 0)
        return "route";
    if (coded && !code && type != PMI_MESSAGE_RESPONSE)
        head[n - 1] = 0;
    pmi_buf_add(out, head, n);
    return NULL;
}

const char *codec_message_encode(codec_call *call)
{
    const cJSON *route = codec_get(call, "route");
    uint32_t type, code = 0;
    pmi_buf text, body, out;
    const char *word = NULL;
    if (!codec_integer(codec_get(call, "type"), PMI_MESSAGE_REQUEST,
                       PMI_MESSAGE_PUSH, &type))
        return "type";
    if (cJSON_IsTrue(codec_get(call, "gzip")))
        return "gzip";
    bool coded = cJSON_IsNumber(route);
    pmi_buf_init(&out, call->env, SIZE_MAX);
    if (!codec_text(call, route, &text) && cJSON_IsNumber(route) &&
        !codec_integer(route, 0, UINT16_MAX, &code))
        word = "code";
    if (!codec_bytes(call, codec_get(call, "body"), &body))
        word = "body";
    if (!word)
        word = codec_message_head(call, type, pmi_buf_slice(&text), code, coded,
                                  &out);
    pmi_buf_add(&out, body.data, body.len);
    if (!word)
        codec_add_hex(call, "hex", pmi_buf_slice(&out));
    pmi_buf_fini(&text);
    pmi_buf_fini(&body);
    pmi_buf_fini(&out);
    return word;
}

/* Bytes from the wire as a string: U+FFFD for what is not UTF-8. */
static void codec_add_clean(codec_call *call, const char *name, pm_slice text)
{
    pmi_buf clean;
    pmi_buf_init(&clean, call->env, SIZE_MAX);
    pmi_utf8_clean(text, &clean);
    codec_add_string(call, name, pmi_buf_slice(&clean));
    pmi_buf_fini(&clean);
}

const char *codec_message_decode(codec_call *call)
{
    pmi_message m;
    pmi_buf in;
    pm_err err = PM_EMESSAGE;
    if (codec_bytes(call, codec_get(call, "hex"), &in))
        err = pmi_proto_message_decode(pmi_buf_slice(&in), &m);
    if (err == PM_OK) {
        codec_add_integer(call, "type", m.type);
        codec_add_integer(call, "id", m.id);
        if (!m.has_route)
            codec_add_word(call, "route", "null");
        else if (m.compressed)
            codec_add_integer(call, "route", m.code);
        else
            codec_add_clean(call, "route", m.route);
        codec_add_hex(call, "body", m.body);
    }
    pmi_buf_fini(&in);
    return codec_word(err);
}

/* ---- Coder: dictionary, schemas and message together ------------------- */
typedef struct codec_coder {
    pmi_dict *dict;
    pmi_dialect *server, *client;
} codec_coder;

/* A dictionary with these numbers. Numbers that no route has get names that
 * no route has. */
static pm_err codec_make_dict(const codec_call *call, const cJSON *source,
                              pmi_dict **out)
{
    uint32_t code, max = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, source)
    {
        if (!codec_integer(item, 1, UINT16_MAX, &code))
            return PM_EINVAL;
        max = code > max ? code : max;
    }
    const char **names = calloc(max + 1, sizeof *names);
    char(*spare)[8] = calloc(max + 1, sizeof *spare);
    pm_err err = PM_ENOMEM;
    if (names && spare) {
        for (uint32_t k = 0; k < max; k++) {
            pmi_format(spare[k], sizeof spare[k], "\177%u", (unsigned)k);
            names[k] = spare[k];
        }
        cJSON_ArrayForEach(item, source)
            names[(uint32_t)item->valuedouble - 1] = item->string;
        err = pmi_dict_new(call->env, 1, 2, NULL, 0, names, max, out);
    }
    free(names);
    free(spare);
    return err;
}

static pm_err codec_coder_open(const codec_call *call, codec_coder *coder)
{
    const cJSON *dict = codec_get(call, "dict");
    const cJSON *server = codec_get(call, "serverProtos");
    const cJSON *client = codec_get(call, "clientProtos");
    pm_err err = PM_OK;
    memset(coder, 0, sizeof *coder);
    if (cJSON_IsObject(dict))
        err = codec_make_dict(call, dict, &coder->dict);
    if (err == PM_OK && cJSON_IsObject(server))
        err = codec_dialect(call, server, &coder->server);
    if (err == PM_OK && cJSON_IsObject(client))
        err = codec_dialect(call, client, &coder->client);
    return err;
}

static void codec_coder_close(codec_coder *coder)
{
    pmi_dict_free(coder->dict);
    pmi_dialect_free(coder->server);
    pmi_dialect_free(coder->client);
}

/* The body that the server's schema, or JSON, makes. */
static pm_err codec_coder_body(const codec_coder *coder, pm_slice route,
                               const cJSON *msg, pmi_buf *out)
{
    const pmi_dialect_message *message = NULL;
    if (coder->server)
        message = pmi_dialect_find(coder->server, route);
    if (!message)
        return pmi_json_print(msg, CODEC_DEPTH, out);
    pm_err err =
        pmi_dialect_encode(coder->server, message, msg, CODEC_DEPTH, out);
    return err == PM_EPROTOBUF ? PM_OK : err;
}

static pm_err codec_coder_write(codec_call *call, const codec_coder *coder,
                                uint32_t id, pm_slice route)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    const cJSON *msg = codec_get(call, "msg");
    pmi_buf out;
    if (route.len == 0 || !pmi_json_truthy(msg)) {
        codec_add_word(call, "none", "true");
        return PM_OK;
    }
    uint16_t code = !id && coder->dict ? pmi_dict_code(coder->dict, route) : 0;
    size_t n = pmi_proto_message_head(
        head, id ? PMI_MESSAGE_RESPONSE : PMI_MESSAGE_PUSH, id, route, code);
    if (n == 0)
        return PM_EROUTE;
    pmi_buf_init(&out, call->env, SIZE_MAX);
    pmi_buf_add(&out, head, n);
    pm_err err = codec_coder_body(coder, route, msg, &out);
    if (err == PM_OK)
        codec_add_hex(call, "hex", pmi_buf_slice(&out));
    pmi_buf_fini(&out);
    return err;
}

const char *codec_coder_encode(codec_call *call)
{
    codec_coder coder;
    pmi_buf route;
    uint32_t id;
    pm_err err = codec_coder_open(call, &coder);
    if (!codec_text(call, codec_get(call, "route"), &route) && err == PM_OK)
        err = PM_EROUTE;
    if (!codec_integer(codec_get(call, "id"), 0, INT32_MAX, &id))
        err = PM_EINVAL;
    if (err == PM_OK)
        err = codec_coder_write(call, &coder, id, pmi_buf_slice(&route));
    pmi_buf_fini(&route);
    codec_coder_close(&coder);
    return codec_word(err);
}

static pm_err codec_coder_read(codec_call *call, const codec_coder *coder,
                               const pmi_message *m)
{
    const pmi_dialect_message *message = NULL;
    pm_slice route = m->route;
    pm_err err = PM_OK;
    if (m->compressed) {
        if (coder->dict)
            route = pmi_dict_route(coder->dict, m->code);
        if (route.len == 0) {
            codec_add_word(call, "dropped", "true");
            return PM_OK;
        }
    }
    codec_add_integer(call, "id", m->id);
    codec_add_integer(call, "type", m->type);
    if (m->has_route)
        codec_add_clean(call, "route", route);
    else
        codec_add_word(call, "route", "null");
    if (coder->client && m->has_route)
        message = pmi_dialect_find(coder->client, route);
    codec_name(call, "body");
    if (message)
        err = codec_decode_text(call, coder->client, message, m->body,
                                call->answer);
    else if (pmi_json_canonical(call->env, m->body, CODEC_DEPTH,
                                call->answer) != PM_OK)
        pmi_buf_add_text(call->answer, "{}");
    return err;
}

const char *codec_coder_decode(codec_call *call)
{
    codec_coder coder;
    pmi_message m;
    pmi_buf in;
    pm_err err = codec_coder_open(call, &coder);
    if (!codec_bytes(call, codec_get(call, "hex"), &in))
        err = PM_EINVAL;
    if (err == PM_OK)
        err = pmi_proto_message_decode(pmi_buf_slice(&in), &m);
    if (err == PM_OK)
        err = codec_coder_read(call, &coder, &m);
    pmi_buf_fini(&in);
    codec_coder_close(&coder);
    return codec_word(err);
}
