/* SPDX-License-Identifier: MIT */
/* test/fuzz/fuzz_rsa.c -- a stranger's key and signature.
 *
 *   8 bytes: the exponent, a double | modulus | LF | signature | LF | text
 *
 * The corpus holds recorded keys and signatures, so that mutations begin close
 * to what is accepted. What was accepted must be a signature of this text and
 * of no other. */
#include "core/crypto.h"

#include <stdlib.h>

#define FUZZ_CHECK(x) ((x) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next line, taken off `rest`. */
static pm_slice line_next(pm_slice *rest)
{
    const uint8_t *from = rest->data;
    const uint8_t *lf = rest->len ? memchr(from, '\n', rest->len) : NULL;
    pm_slice line = {from, lf ? (size_t)(lf - from) : rest->len};
    rest->data = lf ? lf + 1 : NULL;
    rest->len = lf ? rest->len - line.len - 1 : 0;
    return line;
}

/* An accepted signature of `text` is none of a text with one bit changed. */
static void check_accepted(pmi_rsa *key, pm_slice text, pm_slice signature)
{
    uint8_t *other = malloc(text.len + 1);
    pm_slice changed = {other, text.len + 1};
    if (!other)
        return;
    if (text.len)
        memcpy(other, text.data, text.len);
    other[text.len] = 0;
    FUZZ_CHECK(!pmi_rsa_verify(key, changed, signature));
    changed.len = text.len;
    if (text.len) {
        other[text.len / 2] ^= 1;
        FUZZ_CHECK(!pmi_rsa_verify(key, changed, signature));
    }
    FUZZ_CHECK(pmi_rsa_verify(key, text, signature));
    free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double exponent;
    pm_slice rest = {NULL, 0}, modulus, signature;
    pmi_env env;
    pmi_rsa *key = NULL;
    pm_err err;
    if (size < 8)
        return 0;
    memcpy(&exponent, data, 8);
    rest.data = data + 8;
    rest.len = size - 8;
    modulus = line_next(&rest);
    signature = line_next(&rest);
    pmi_env_init(&env, NULL);
    err = pmi_rsa_new(&env, modulus, exponent, &key);
    FUZZ_CHECK(err == PM_OK || err == PM_EKEY);
    FUZZ_CHECK((err == PM_OK) == (key != NULL));
    if (!key)
        return 0;
    FUZZ_CHECK(modulus.len >= 128 && exponent >= 3 && exponent < 4294967296.0);
    if (pmi_rsa_verify(key, rest, signature))
        check_accepted(key, rest, signature);
    pmi_rsa_free(key);
    return 0;
}
