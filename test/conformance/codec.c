/* SPDX-License-Identifier: MIT */
/* codec.c -- the library's pure functions as a program: one JSON request a
 * line in, one JSON answer a line out, so that recordings of other
 * implementations can be replayed. Ends at the end of its input.
 *
 *   codec_wire.c     packages, messages and what makes them up
 *   codec_schema.c   protobuf dialect and route dictionary
 *   codec_text.c     JSON, UTF-8, dispatch, signatures
 *
 * A cJSON tree can not hold U+0000, requests do. Such a request is run twice
 * with two other characters in its place; where the two answers differ, U+0000
 * belongs. */
#include "codec.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Members ----------------------------------------------------------- */
bool codec_text(const codec_call *call, const cJSON *value, pmi_buf *out)
{
    pmi_buf_init(out, call->env, SIZE_MAX);
    if (!cJSON_IsString(value))
        return false;
    pmi_utf8_well_formed(pm_text(value->valuestring), out);
    return !out->failed;
}

bool codec_bytes(const codec_call *call, const cJSON *value, pmi_buf *out)
{
    pmi_buf_init(out, call->env, SIZE_MAX);
    pm_slice hex = pm_text(cJSON_IsString(value) ? value->valuestring : "");
    uint8_t *to = pmi_buf_reserve(out, hex.len / 2 + 1);
    if ((value && !cJSON_IsString(value)) || !to || !pmi_unhex(hex, to))
        return false;
    out->len = hex.len / 2;
    return true;
}

bool codec_integer(const cJSON *value, double min, double max, uint32_t *out)
{
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= min) ||
        !(value->valuedouble <= max))
        return false;
    *out = (uint32_t)value->valuedouble;
    return true;
}

void codec_name(codec_call *call, const char *name)
{
    pmi_buf_add_format(call->answer, ",\"%s\":", name);
}

void codec_add_hex(codec_call *call, const char *name, pm_slice bytes)
{
    codec_name(call, name);
    pmi_buf_add_byte(call->answer, '"');
    uint8_t *to = pmi_buf_reserve(call->answer, 2 * bytes.len + 1);
    if (to) {
        pmi_hex(bytes.data, bytes.len, (char *)to);
        call->answer->len += 2 * bytes.len;
    }
    pmi_buf_add_byte(call->answer, '"');
}

void codec_add_integer(codec_call *call, const char *name, long long value)
{
    codec_name(call, name);
    pmi_buf_add_format(call->answer, "%lld", value);
}

void codec_add_string(codec_call *call, const char *name, pm_slice text)
{
    codec_name(call, name);
    pmi_json_add_string(call->answer, text);
}

void codec_add_word(codec_call *call, const char *name, const char *json)
{
    codec_name(call, name);
    pmi_buf_add_text(call->answer, json);
}

const char *codec_word(pm_err err)
{
    return err == PM_OK ? NULL : pm_err_name(err);
}

/* ---- One request ------------------------------------------------------- */
static const struct {
    const char *name;
    codec_op op;
} codec_ops[] = {
    {"package.encode", codec_package_encode},
    {"package.fill", codec_package_fill},
    {"package.frame", codec_package_frame},
    {"package.stream", codec_package_stream},
    {"message.encode", codec_message_encode},
    {"message.decode", codec_message_decode},
    {"coder.encode", codec_coder_encode},
    {"coder.decode", codec_coder_decode},
    {"json.canonical", codec_json_canonical},
    {"utf8.clean", codec_utf8_clean},
    {"protobuf.parse", codec_protobuf_parse},
    {"protobuf.version", codec_protobuf_version},
    {"protobuf.encode", codec_protobuf_encode},
    {"protobuf.decode", codec_protobuf_decode},
    {"dictionary", codec_dictionary},
    {"dispatch", codec_dispatch},
    {"rsa.verify", codec_rsa_verify},
};

static const char *codec_run(codec_call *call)
{
    const cJSON *op = codec_get(call, "op");
    for (size_t k = 0; cJSON_IsString(op) && k < PMI_COUNT(codec_ops); k++)
        if (!strcmp(op->valuestring, codec_ops[k].name))
            return codec_ops[k].op(call);
    return "unsupported";
}

/* One line in, one line out (without its end). */
static void codec_answer(const pmi_env *env, pm_slice line, char nul,
                         pmi_buf *out)
{
    cJSON *request = NULL;
    pm_err err = pmi_json_parse(env, line, CODEC_DEPTH, &request, NULL);
    codec_call call = {env, request, out, nul};
    const cJSON *i = codec_get(&call, "i");
    double number = cJSON_IsNumber(i) ? i->valuedouble : -1;
    pmi_buf_add_format(out, "{\"i\":%.0f", number);
    size_t start = out->len;
    const char *word = err == PM_OK ? codec_run(&call) : codec_word(err);
    if (!word && out->failed)
        word = "memory";
    if (word) {
        out->len = start;
        out->failed = false;
        codec_add_string(&call, "error", pm_text(word));
    }
    pmi_buf_add_byte(out, '}');
    cJSON_Delete(request);
}

/* ---- U+0000 ------------------------------------------------------------ */
bool codec_join(char *first, const char *second, size_t len, char a, char b)
{
    for (size_t k = 0; k < len; k++) {
        if (first[k] == second[k])
            continue;
        if (first[k] != a || second[k] != b)
            return false;
        first[k] = '0';
    }
    return true;
}

/* Looks for \u000D with this digit, the backslash not being escaped itself.
 * Puts another digit there when that is not 0. */
static size_t codec_escapes(char *line, char digit, char put)
{
    size_t found = 0;
    for (char *p = line; *p; p++) {
        if (*p != '\\')
            continue;
        p++;
        if (!strncmp(p, "u000", 4) && p[4] == digit) {
            found++;
            if (put)
                p[4] = put;
        }
        if (!*p)
            break;
    }
    return found;
}

/* Two digits from 1 to 7 that no escape of the line uses; 0 when all are
 * taken. */
static char codec_spare(char *line, char from)
{
    for (char digit = from; digit <= '7'; digit++)
        if (!codec_escapes(line, digit, 0))
            return digit;
    return 0;
}

static void codec_line(const pmi_env *env, char *line, pmi_buf *out)
{
    if (!codec_escapes(line, '0', 0)) {
        codec_answer(env, pm_text(line), 0, out);
        return;
    }
    char a = codec_spare(line, '1'),
         b = a ? codec_spare(line, (char)(a + 1)) : '0';
    pmi_buf other;
    pmi_buf_init(&other, env, SIZE_MAX);
    codec_escapes(line, '0', a);
    codec_answer(env, pm_text(line), (char)(a - '0'), out);
    codec_escapes(line, a, b);
    codec_answer(env, pm_text(line), (char)(b - '0'), &other);
    if (!a || !b || out->len != other.len ||
        !codec_join((char *)out->data, (const char *)other.data, out->len, a,
                    b)) {
        pmi_buf_reset(out);
        codec_answer(env, pm_text("?"), 0, out);
    }
    pmi_buf_fini(&other);
}

int main(void)
{
    pmi_env env;
    pmi_buf out;
    char *line = NULL;
    size_t cap = 0;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&out, &env, SIZE_MAX);
    while (getline(&line, &cap, stdin) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        codec_line(&env, line, &out);
        pmi_buf_add_byte(&out, '\n');
        fwrite(out.data, 1, out.len, stdout);
        fflush(stdout);
        pmi_buf_reset(&out);
    }
    pmi_buf_fini(&out);
    free(line);
    return 0;
}
