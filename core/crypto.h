/* SPDX-License-Identifier: MIT */
/* core/crypto.h -- hashes, HMAC, base64, RSA check, random bytes.
 *
 * The only file that knows mbedtls' hashes and big numbers. Written for the
 * interfaces of mbedtls 2.28 and 3.x; no process-wide switch is touched. */
#ifndef PMI_CRYPTO_H
#define PMI_CRYPTO_H

#include "base.h"

void pmi_sha1(const void *data, size_t len, uint8_t out[20]);
void pmi_sha256(const void *data, size_t len, uint8_t out[32]);
void pmi_md5(const void *data, size_t len, uint8_t out[16]);
/* HMAC-SHA-256 over the concatenation of parts. */
void pmi_hmac_sha256(pm_slice key, const pm_slice *parts, size_t count,
                     uint8_t out[32]);
/* Equal, in constant time. */
bool pmi_same_secret(const void *a, const void *b, size_t len);

/* out holds 4 * ((len + 2) / 3) + 1 bytes, 0 at its end. Returns the length. */
size_t pmi_base64(const void *data, size_t len, char *out);
/* Lower-case hex with 0 at the end; out holds 2 * len + 1. */
void pmi_hex(const void *data, size_t len, char *out);
/* Hex of any case to bytes; false unless all are digits and even. */
bool pmi_unhex(pm_slice hex, uint8_t *out);

/* Bytes from the system (getrandom); false when there are none. */
bool pmi_random_system(void *out, size_t len);

/* A client's public key (protocol-client.md 7). */
typedef struct pmi_rsa pmi_rsa;
/* modulus: lower- or upper-case hex digits, leading zeros fine.
 * Refused before any arithmetic (PM_EKEY): not hex, fewer than 512 or more
 * than 4096 bits, even, exponent 0, even or 1 or >= 2^32. PM_ENOMEM. */
pm_err pmi_rsa_new(const pmi_env *env, pm_slice modulus_hex, double exponent,
                   pmi_rsa **out);
void pmi_rsa_free(pmi_rsa *key);
/* PKCS#1 v1.5 signature check of `text`; `signature` is text of which non-hex
 * characters are ignored; the count of digits must be ceil(bits / 4). The
 * digest may be SHA-256, SHA-1, SHA-512 or MD5, told by its DigestInfo.
 * True when it fits. Constant memory. */
bool pmi_rsa_verify(pmi_rsa *key, pm_slice text, pm_slice signature);

#endif
