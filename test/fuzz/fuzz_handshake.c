/* SPDX-License-Identifier: MIT */
/* fuzz_handshake.c -- a client's handshake body, and a signed request.
 *
 * The input is read as both. An answer must be JSON whatever the client says;
 * nothing is verified that nobody signed. */
#include "pomelo_proto_internal.h"

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdlib.h>

#define DEPTH 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds)
{
    if (!holds)
        abort();
}

static void answer(const pmi_env *env, const cJSON *msg)
{
    static const char *const routes[] = {"b.h.m", "a.h.m"};
    pmi_dict *dict = NULL;
    pmi_dialect *server = NULL;
    pmi_buf out;
    char version[25];
    pmi_buf_init(&out, env, SIZE_MAX);
    need(pmi_dict_new(env, 1, 2, routes, 2, NULL, 0, &dict) == PM_OK);
    need(pmi_dialect_new(env, 1, 2, pm_text("{\"b.h.m\":{}}"), &server) ==
         PM_OK);
    need(pmi_dialect_version(NULL, server, version) == PM_OK);
    pmi_handshake_sys sys = {3, dict, true, NULL, server, version};
    need(pmi_handshake_answer(&sys, msg, pmi_json_get(msg, "user"), DEPTH,
                              &out) == PM_OK);
    need(pmi_json_check(pmi_buf_slice(&out), DEPTH + 8, NULL) == PM_OK);
    pmi_buf_fini(&out);
    pmi_dialect_free(server);
    pmi_dict_free(dict);
}

static void handshake(const pmi_env *env, pm_slice in)
{
    cJSON *msg = NULL;
    pmi_rsa *key = NULL;
    if (pmi_handshake_parse(env, in, DEPTH, &msg) != PM_OK)
        return;
    answer(env, msg);
    (void)pmi_proto_rsa_key(env, msg, &key);
    pmi_rsa_free(key);
    cJSON_Delete(msg);
}

/* Under a key whose other half nobody knows. */
static void request(const pmi_env *env, pm_slice in)
{
    static const char modulus[] =
        "827db0e8528594b0141d9746ac1e691d1f9fd451da8276227b651458447530e9"
        "494590436d8bd5feed8e56f47a2af5e58db1da1bf18634498f23358cf84c48b1";
    cJSON *body = NULL;
    pmi_rsa *key = NULL;
    bool verified = true;
    if (pmi_json_parse(env, in, DEPTH, &body, NULL) != PM_OK)
        return;
    need(pmi_rsa_new(env, pm_text(modulus), 65537, &key) == PM_OK);
    need(pmi_proto_verify(env, key, body, DEPTH, &verified) == PM_OK);
    need(!verified && !pmi_json_get(body, "__crypto__"));
    pmi_rsa_free(key);
    cJSON_Delete(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_env env;
    pmi_env_init(&env, NULL);
    handshake(&env, pm_bytes(data, size));
    request(&env, pm_bytes(data, size));
    return 0;
}
