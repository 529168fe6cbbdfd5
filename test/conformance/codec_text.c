/* SPDX-License-Identifier: MIT */
/* codec_text.c -- JSON, UTF-8, the dispatcher's CRC, signatures. */
#include "codec.h"
#include "pomelo_route_internal.h"

const char *codec_json_canonical(codec_call *call)
{
    pmi_buf in, text;
    const char *word = "hex";
    pmi_buf_init(&text, call->env, SIZE_MAX);
    if (codec_bytes(call, codec_get(call, "hex"), &in)) {
        word = NULL;
        if (pmi_json_canonical(call->env, pmi_buf_slice(&in), CODEC_DEPTH,
                               &text) != PM_OK)
            pmi_buf_add_text(&text, "{}");
        codec_add_hex(call, "hex", pmi_buf_slice(&text));
    }
    pmi_buf_fini(&in);
    pmi_buf_fini(&text);
    return word;
}

const char *codec_utf8_clean(codec_call *call)
{
    pmi_buf in, text;
    const char *word = "hex";
    pmi_buf_init(&text, call->env, SIZE_MAX);
    if (codec_bytes(call, codec_get(call, "hex"), &in)) {
        word = NULL;
        pmi_utf8_clean(pmi_buf_slice(&in), &text);
        codec_add_hex(call, "hex", pmi_buf_slice(&text));
    }
    pmi_buf_fini(&in);
    pmi_buf_fini(&text);
    return word;
}

/* Text with U+0000 has no char * for pm_dispatch: its index follows from the
 * CRC. Lone surrogates count by their own low byte, so nothing is cleaned. */
const char *codec_dispatch(codec_call *call)
{
    const cJSON *uid = codec_get(call, "uid"), *item;
    bool whole = true;
    if (!cJSON_IsString(uid))
        return "uid";
    char *text = uid->valuestring;
    size_t len = strlen(text);
    for (size_t k = 0; call->nul && k < len; k++)
        if (text[k] == call->nul) {
            text[k] = 0;
            whole = false;
        }
    long long crc = pmi_route_crc_text(pm_bytes(text, len));
    codec_add_integer(call, "crc", crc);
    codec_name(call, "index");
    pmi_buf_add_byte(call->answer, '[');
    cJSON_ArrayForEach(item, codec_get(call, "n"))
    {
        uint32_t n;
        if (!codec_integer(item, 1, UINT32_MAX, &n))
            return "n";
        if (item->prev->next)
            pmi_buf_add_byte(call->answer, ',');
        pmi_buf_add_format(call->answer, "%zu",
                           whole ? pm_dispatch(text, n)
                                 : (size_t)(crc < 0 ? -crc : crc) % n);
    }
    pmi_buf_add_byte(call->answer, ']');
    return NULL;
}

const char *codec_rsa_verify(codec_call *call)
{
    const cJSON *n = codec_get(call, "rsa_n"), *e = codec_get(call, "rsa_e");
    pmi_rsa *key = NULL;
    cJSON *body = NULL;
    pmi_buf text;
    bool verified = false;
    pm_err err = PM_EKEY;
    if (cJSON_IsString(n) && cJSON_IsNumber(e))
        err = pmi_rsa_new(call->env, pm_text(n->valuestring), e->valuedouble,
                          &key);
    if (!codec_text(call, codec_get(call, "body"), &text) && err == PM_OK)
        err = PM_EJSON;
    if (err == PM_OK)
        err = pmi_json_parse(call->env, pmi_buf_slice(&text), CODEC_DEPTH,
                             &body, NULL);
    if (err == PM_OK)
        err = pmi_proto_verify(call->env, key, body, CODEC_DEPTH, &verified);
    codec_add_word(call, "verified", verified ? "true" : "false");
    pmi_buf_fini(&text);
    cJSON_Delete(body);
    pmi_rsa_free(key);
    return codec_word(err);
}
