/* SPDX-License-Identifier: MIT */
/* codec.h -- what the files of the codec program share.
 *
 * An operation reads members of the request and appends members to the
 * answer, each as ,"name":value. It returns NULL, or a word that says why it
 * failed; what it has appended is then thrown away. */
#ifndef TEST_CODEC_H
#define TEST_CODEC_H

#include "pomelo_proto_internal.h"

#include <cjson/cJSON.h>

/* All limits at their greatest. */
#define CODEC_DEPTH 1000

typedef struct codec_call {
    const pmi_env *env;
    const cJSON *request;
    pmi_buf *answer;
    char nul; /* stands for U+0000 in the request's strings; 0: there is none */
} codec_call;

typedef const char *(*codec_op)(codec_call *call);

/* ---- Members of a request (codec.c) ---- */
static inline const cJSON *codec_get(const codec_call *call, const char *name)
{
    return pmi_json_get(call->request, name);
}
/* A string as bytes of UTF-8, surrogates replaced; false when it is none. The
 * buffer is the caller's to end in any case. */
bool codec_text(const codec_call *call, const cJSON *value, pmi_buf *out);
/* Hex to bytes, likewise. A missing member counts as "". */
bool codec_bytes(const codec_call *call, const cJSON *value, pmi_buf *out);
/* A whole number within bounds. */
bool codec_integer(const cJSON *value, double min, double max, uint32_t *out);

/* ---- Members of an answer ---- */
void codec_name(codec_call *call, const char *name);
void codec_add_hex(codec_call *call, const char *name, pm_slice bytes);
void codec_add_integer(codec_call *call, const char *name, long long value);
void codec_add_string(codec_call *call, const char *name, pm_slice text);
void codec_add_word(codec_call *call, const char *name, const char *json);

/* A word for each error. */
const char *codec_word(pm_err err);

/* ---- Shared steps ---- */
/* Schemas from a tree in source form. */
pm_err codec_dialect(const codec_call *call, const cJSON *protos,
                     pmi_dialect **out);
/* Decodes and prints, with U+0000 in strings. */
pm_err codec_decode_text(const codec_call *call, const pmi_dialect *dialect,
                         const pmi_dialect_message *message, pm_slice bytes,
                         pmi_buf *out);
/* Joins the answers of two runs in which U+0000 was 1 and 2: where they
 * differ stands a 0. False when they differ otherwise. */
bool codec_join(char *first, const char *second, size_t len, char a, char b);

/* ---- Operations ---- */
const char *codec_package_encode(codec_call *call);
const char *codec_package_fill(codec_call *call);
const char *codec_package_frame(codec_call *call);
const char *codec_package_stream(codec_call *call);
const char *codec_message_encode(codec_call *call);
const char *codec_message_decode(codec_call *call);
const char *codec_coder_encode(codec_call *call);
const char *codec_coder_decode(codec_call *call);
const char *codec_json_canonical(codec_call *call);
const char *codec_utf8_clean(codec_call *call);
const char *codec_protobuf_parse(codec_call *call);
const char *codec_protobuf_version(codec_call *call);
const char *codec_protobuf_encode(codec_call *call);
const char *codec_protobuf_decode(codec_call *call);
const char *codec_dictionary(codec_call *call);
const char *codec_dispatch(codec_call *call);
const char *codec_rsa_verify(codec_call *call);

#endif
