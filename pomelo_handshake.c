/* SPDX-License-Identifier: MIT */
/* pomelo_handshake.c -- handshake bodies and signatures, server side.
 *
 * The answer tells a client what it needs to talk to us: the heartbeat, the
 * dictionary and the protobuf schemas, the latter two only when the version
 * that it says it has is not ours. Clients are touchy: libpomelo2 aborts
 * unless the dictionary's members come all together, libpomelo takes the mere
 * presence of `useProto` for true. So what is off is left out, and the order
 * is Pomelo's.
 *
 * Signatures prove that who sends a request is who shook hands. They are over
 * the text that JavaScript would print, which is why core/json prints so.
 *
 * Floor 1: bytes and trees only. Start reading at pmi_handshake_answer(). */
#include "pomelo_proto_internal.h"

#include <cjson/cJSON.h>

#define HANDSHAKE_CRYPTO "__crypto__"

/* ---- Handshake --------------------------------------------------------- */
pm_err pmi_handshake_parse(const pmi_env *env, pm_slice body,
                           uint32_t depth_max, cJSON **msg)
{
    cJSON *tree = NULL;
    pm_err err = pmi_json_parse(env, body, depth_max, &tree, NULL);
    if (err == PM_ENOMEM)
        return err;
    if (err != PM_OK)
        return PM_EHANDSHAKE;
    if (!pmi_json_truthy(pmi_json_get(tree, "sys"))) {
        cJSON_Delete(tree);
        return PM_EHANDSHAKE;
    }
    *msg = tree;
    return PM_OK;
}

/* JavaScript's ===, of a member that may be anything and our own text. */
static bool handshake_is(const cJSON *value, const char *text)
{
    return cJSON_IsString(value) && value->valuestring &&
           !strcmp(value->valuestring, text);
}

static void handshake_comma(pmi_buf *out, size_t start)
{
    if (out->len > start)
        pmi_buf_add_byte(out, ',');
}

static void handshake_add_dict(const pmi_dict *dict, const cJSON *theirs,
                               size_t start, pmi_buf *out)
{
    if (!handshake_is(theirs, pmi_dict_version(dict))) {
        pm_slice cached = pmi_dict_handshake(dict);
        handshake_comma(out, start);
        pmi_buf_add(out, cached.data, cached.len);
    }
    handshake_comma(out, start);
    pmi_buf_add_text(out, "\"useDict\":true");
}

static void handshake_add_schemas(const pmi_dialect *dialect, pmi_buf *out)
{
    pm_slice text = pm_text("{}");
    if (dialect)
        text = pmi_dialect_text(dialect);
    pmi_buf_add(out, text.data, text.len);
}

/* A version of "" (there are no files) never counts as known. */
static void handshake_add_protos(const pmi_handshake_sys *sys,
                                 const cJSON *theirs, size_t start,
                                 pmi_buf *out)
{
    const char *version = sys->proto_version ? sys->proto_version : "";
    if (!*version || !handshake_is(theirs, version)) {
        handshake_comma(out, start);
        pmi_buf_add_text(out, "\"protos\":{\"server\":");
        handshake_add_schemas(sys->server, out);
        pmi_buf_add_text(out, ",\"client\":");
        handshake_add_schemas(sys->client, out);
        pmi_buf_add_text(out, ",\"version\":");
        pmi_json_add_string(out, pm_text(version));
        pmi_buf_add_byte(out, '}');
    }
    handshake_comma(out, start);
    pmi_buf_add_text(out, "\"useProto\":true");
}

pm_err pmi_handshake_answer(const pmi_handshake_sys *sys, const cJSON *msg,
                            const cJSON *user, uint32_t depth_max, pmi_buf *out)
{
    size_t old = out->len;
    pm_err err = PM_OK;
    const cJSON *theirs = pmi_json_get(msg, "sys");
    pmi_buf_add_text(out, "{\"code\":200,\"sys\":{");
    size_t start = out->len;
    if (sys->heartbeat_s != 0) {
        char number[32];
        size_t n = pmi_json_number(sys->heartbeat_s, number);
        pmi_buf_add_text(out, "\"heartbeat\":");
        pmi_buf_add(out, number, n);
    }
    if (sys->dict)
        handshake_add_dict(sys->dict, pmi_json_get(theirs, "dictVersion"),
                           start, out);
    if (sys->use_protobuf)
        handshake_add_protos(sys, pmi_json_get(theirs, "protoVersion"), start,
                             out);
    pmi_buf_add_byte(out, '}');
    if (pmi_json_truthy(user)) {
        pmi_buf_add_text(out, ",\"user\":");
        err = out->failed ? PM_ENOMEM : pmi_json_print(user, depth_max, out);
    }
    pmi_buf_add_byte(out, '}');
    if (err == PM_OK && out->failed)
        err = PM_ENOMEM;
    if (err != PM_OK)
        out->len = old;
    return err;
}

/* ---- Signatures -------------------------------------------------------- */
pm_err pmi_proto_rsa_key(const pmi_env *env, const cJSON *msg, pmi_rsa **out)
{
    const cJSON *rsa = pmi_json_get(pmi_json_get(msg, "sys"), "rsa");
    if (!rsa || cJSON_IsNull(rsa))
        return PM_EHANDSHAKE;
    const cJSON *n = pmi_json_get(rsa, "rsa_n");
    const cJSON *e = pmi_json_get(rsa, "rsa_e");
    pmi_rsa *key = NULL;
    if (cJSON_IsString(n) && n->valuestring && cJSON_IsNumber(e)) {
        pm_err err =
            pmi_rsa_new(env, pm_text(n->valuestring), e->valuedouble, &key);
        if (err == PM_ENOMEM)
            return err;
        if (err != PM_OK)
            key = NULL;
    }
    *out = key;
    return PM_OK;
}

/* Is there one of U+4E00 to U+9FA5? Pomelo treats such texts differently. */
static bool handshake_is_chinese(pm_slice text)
{
    const uint8_t *p = text.data;
    for (size_t i = 0; i + 2 < text.len; i++) {
        if (p[i] < 0xe4 || p[i] > 0xe9)
            continue;
        uint32_t code = (uint32_t)(p[i] & 15) << 12 |
                        (uint32_t)(p[i + 1] & 63) << 6 | (p[i + 2] & 63);
        if (code >= 0x4e00 && code <= 0x9fa5)
            return true;
    }
    return false;
}

/* One byte, taken for a character and encoded once more. */
static void handshake_add_twice(pmi_buf *out, uint32_t byte)
{
    if (byte >= 0x80)
        pmi_buf_add_byte(out, (uint8_t)(0xc0 | byte >> 6));
    pmi_buf_add_byte(out, (uint8_t)(byte < 0x80 ? byte : 0x80 | (byte & 63)));
}

/* What Pomelo hashes of Chinese text on Node 6 and later: the text as CESU-8
 * (surrogates in three bytes each), that as UTF-8 again. */
static void handshake_twice(pm_slice text, pmi_buf *out)
{
    const uint8_t *p = text.data;
    for (size_t i = 0; i < text.len; i++) {
        if (p[i] < 0xf0 || i + 3 >= text.len) {
            handshake_add_twice(out, p[i]);
            continue;
        }
        uint32_t code = (uint32_t)(p[i] & 7) << 18 |
                        (uint32_t)(p[i + 1] & 63) << 12 |
                        (uint32_t)(p[i + 2] & 63) << 6 | (p[i + 3] & 63);
        uint32_t units[2] = {0xd800 + ((code - 0x10000) >> 10),
                             0xdc00 + (code & 0x3ff)};
        for (size_t k = 0; k < 2; k++) {
            handshake_add_twice(out, 0xe0 | units[k] >> 12);
            handshake_add_twice(out, 0x80 | (units[k] >> 6 & 63));
            handshake_add_twice(out, 0x80 | (units[k] & 63));
        }
        i += 3;
    }
}

static pm_err handshake_verify_text(const pmi_env *env, pmi_rsa *key,
                                    pm_slice text, pm_slice signature,
                                    bool *verified)
{
    bool fits = pmi_rsa_verify(key, text, signature);
    if (!fits && handshake_is_chinese(text)) {
        pmi_buf twice;
        pmi_buf_init(&twice, env, SIZE_MAX);
        handshake_twice(text, &twice);
        if (twice.failed) {
            pmi_buf_fini(&twice);
            return PM_ENOMEM;
        }
        fits = pmi_rsa_verify(key, pmi_buf_slice(&twice), signature);
        pmi_buf_fini(&twice);
    }
    *verified = fits;
    return PM_OK;
}

pm_err pmi_proto_verify(const pmi_env *env, pmi_rsa *key, cJSON *body,
                        uint32_t depth_max, bool *verified)
{
    cJSON *sig = (cJSON *)pmi_json_get(body, HANDSHAKE_CRYPTO);
    *verified = false;
    if (!sig)
        return PM_OK;
    cJSON_DetachItemViaPointer(body, sig);
    pm_err err = PM_OK;
    if (key && cJSON_IsString(sig) && sig->valuestring && *sig->valuestring) {
        pmi_buf text;
        pmi_buf_init(&text, env, SIZE_MAX);
        err = pmi_json_print(body, depth_max, &text);
        if (err == PM_OK)
            err = handshake_verify_text(env, key, pmi_buf_slice(&text),
                                        pm_text(sig->valuestring), verified);
        pmi_buf_fini(&text);
    }
    cJSON_Delete(sig);
    return err;
}
