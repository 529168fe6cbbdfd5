/* SPDX-License-Identifier: MIT */
/* fuzz_json.c -- any bytes through the reader and the printer.
 *
 * What is read and printed must read again and print the same; the two ways
 * to the text (with a cJSON tree and without) must agree, and so must all
 * three readers about what JSON is. A refusal is at a byte before which
 * nothing was wrong. */
#include "core/json.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

#define DEPTH 20

static void must(bool true_always)
{
    if (!true_always)
        abort();
}

static void check_refusal(pm_slice in, const pmi_json_error *why)
{
    pmi_json_error again = {0};
    must(why->at <= in.len && why->what && why->line && why->column);
    in.len = why->at;
    if (pmi_json_check(in, DEPTH, &again))
        must(again.at == why->at);
}

static void check_text(const pmi_env *env, pm_slice in, const pmi_buf *text)
{
    pmi_buf out;
    pmi_buf_init(&out, env, SIZE_MAX);
    must(pmi_utf8_valid(pmi_buf_slice(text)));
    must(!pmi_json_canonical(env, pmi_buf_slice(text), DEPTH, &out));
    must(pmi_slice_eq(pmi_buf_slice(&out), pmi_buf_slice(text)));
    /* Cleaning first changes nothing. */
    pmi_buf_reset(&out);
    pmi_utf8_clean(in, &out);
    must(!pmi_json_check(pmi_buf_slice(&out), DEPTH, NULL));
    pmi_buf_fini(&out);
}

static void check_string(const pmi_env *env, pm_slice in)
{
    pmi_buf out;
    pmi_buf_init(&out, env, SIZE_MAX);
    pmi_json_add_string(&out, in);
    must(!pmi_json_check(pmi_buf_slice(&out), 0, NULL));
    must(pmi_utf8_valid(pmi_buf_slice(&out)));
    pmi_buf_reset(&out);
    pmi_utf8_well_formed(in, &out);
    must(pmi_utf8_valid(pmi_buf_slice(&out)));
    pmi_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_slice in = pm_bytes(data, size);
    pmi_json_error why = {0};
    pmi_env env;
    pmi_buf text, printed;
    struct cJSON *tree = NULL;
    pm_err checked, read;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&text, &env, SIZE_MAX);
    pmi_buf_init(&printed, &env, SIZE_MAX);
    checked = pmi_json_check(in, DEPTH, &why);
    must(pmi_json_canonical(&env, in, DEPTH, &text) == checked);
    read = pmi_json_parse(&env, in, DEPTH, &tree, NULL);
    must(read == checked || read == PM_ENUL);
    if (checked)
        check_refusal(in, &why);
    else
        check_text(&env, in, &text);
    if (!read) {
        must(!pmi_json_print(tree, DEPTH, &printed));
        must(pmi_slice_eq(pmi_buf_slice(&printed), pmi_buf_slice(&text)));
        cJSON_Delete(tree);
    }
    check_string(&env, in);
    pmi_buf_fini(&text);
    pmi_buf_fini(&printed);
    return 0;
}
