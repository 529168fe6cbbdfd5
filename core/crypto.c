/* SPDX-License-Identifier: MIT */
/* core/crypto.c -- hashes, HMAC, base64, RSA check, random bytes.
 *
 * Thin on purpose: mbedtls does the hashing and the big numbers, this file
 * says what Pomelo wants of them. Two things are written out here:
 *
 *   HMAC           over mbedtls' plain SHA-256, because mbedtls' own HMAC
 *                  allocates and so could fail; ours can not.
 *   the RSA check  by the rules of the JavaScript library on the other side,
 *                  which compares hex text, nibble by nibble:
 *
 *                  1 f f ... f 0 0 | DigestInfo | digest |
 *                  \_ 1 or more f /                      nothing after it
 *
 * A key and a signature are a stranger's. What is too large, or would make the
 * arithmetic slow or undefined, is refused before any arithmetic. All numbers
 * are public, so only pmi_same_secret() cares about time.
 * Start reading at pmi_rsa_verify(). */
#include "crypto.h"

#include <errno.h>
#include <sys/random.h>

#include <mbedtls/bignum.h>
#include <mbedtls/md5.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/sha1.h>
#include <mbedtls/sha256.h>
#include <mbedtls/sha512.h>
#include <mbedtls/version.h>

/* mbedtls 2 says mbedtls_sha1_ret where mbedtls 3 says mbedtls_sha1. */
#if MBEDTLS_VERSION_NUMBER < 0x03000000
#define CRYPTO_MBEDTLS(name) mbedtls_##name##_ret
#else
#define CRYPTO_MBEDTLS(name) mbedtls_##name
#endif

#define CRYPTO_RSA_BITS_MIN 512
#define CRYPTO_RSA_BITS_MAX 4096
#define CRYPTO_RSA_BYTES_MAX (CRYPTO_RSA_BITS_MAX / 8)
#define CRYPTO_DIGEST_MAX 64

/* ---- Hashes ------------------------------------------------------------- */
/* mbedtls' own code can not fail, a hardware replacement can. A digest that
 * was not made must fit nothing: a fixed value would be a key for everybody. */
static void crypto_settle(int rc, uint8_t *out, size_t len)
{
    PMI_ASSERT(rc == 0);
    if (PMI_UNLIKELY(rc != 0))
        (void)pmi_random_system(out, len);
}

void pmi_sha1(const void *data, size_t len, uint8_t out[20])
{
    crypto_settle(CRYPTO_MBEDTLS(sha1)(data, len, out), out, 20);
}

void pmi_sha256(const void *data, size_t len, uint8_t out[32])
{
    crypto_settle(CRYPTO_MBEDTLS(sha256)(data, len, out, 0), out, 32);
}

void pmi_md5(const void *data, size_t len, uint8_t out[16])
{
    crypto_settle(CRYPTO_MBEDTLS(md5)(data, len, out), out, 16);
}

static void crypto_sha512(const void *data, size_t len, uint8_t out[64])
{
    crypto_settle(CRYPTO_MBEDTLS(sha512)(data, len, out, 0), out, 64);
}

/* SHA-256 of a 64-byte block, its bytes changed by `pad`, and what follows. */
static void crypto_hmac_pass(const uint8_t block[64], uint8_t pad,
                             const pm_slice *parts, size_t count,
                             uint8_t out[32])
{
    mbedtls_sha256_context ctx;
    uint8_t padded[64];
    int rc;
    size_t i;
    for (i = 0; i < sizeof padded; i++)
        padded[i] = block[i] ^ pad;
    mbedtls_sha256_init(&ctx);
    rc = CRYPTO_MBEDTLS(sha256_starts)(&ctx, 0);
    if (rc == 0)
        rc = CRYPTO_MBEDTLS(sha256_update)(&ctx, padded, sizeof padded);
    for (i = 0; rc == 0 && i < count; i++)
        rc = CRYPTO_MBEDTLS(sha256_update)(&ctx, parts[i].data, parts[i].len);
    if (rc == 0)
        rc = CRYPTO_MBEDTLS(sha256_finish)(&ctx, out);
    mbedtls_sha256_free(&ctx);
    mbedtls_platform_zeroize(padded, sizeof padded);
    crypto_settle(rc, out, 32);
}

void pmi_hmac_sha256(pm_slice key, const pm_slice *parts, size_t count,
                     uint8_t out[32])
{
    uint8_t block[64] = {0}, inner[32];
    pm_slice inner_part = {inner, sizeof inner};
    if (key.len > sizeof block)
        pmi_sha256(key.data, key.len, block);
    else if (key.len)
        memcpy(block, key.data, key.len);
    crypto_hmac_pass(block, 0x36, parts, count, inner);
    crypto_hmac_pass(block, 0x5c, &inner_part, 1, out);
    mbedtls_platform_zeroize(block, sizeof block);
}

bool pmi_same_secret(const void *a, const void *b, size_t len)
{
    /* volatile: the compiler may not leave the loop at the first difference. */
    const volatile uint8_t *x = a, *y = b;
    uint8_t difference = 0;
    for (size_t i = 0; i < len; i++)
        difference = (uint8_t)(difference | (x[i] ^ y[i]));
    return difference == 0;
}

/* ---- Text forms --------------------------------------------------------- */
size_t pmi_base64(const void *data, size_t len, char *out)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    char *at = out;
    for (; len >= 3; len -= 3, p += 3) {
        *at++ = digits[p[0] >> 2];
        *at++ = digits[(p[0] & 3) << 4 | p[1] >> 4];
        *at++ = digits[(p[1] & 15) << 2 | p[2] >> 6];
        *at++ = digits[p[2] & 63];
    }
    if (len) {
        uint8_t second = len == 2 ? p[1] : 0;
        *at++ = digits[p[0] >> 2];
        *at++ = digits[(p[0] & 3) << 4 | second >> 4];
        *at++ = len == 2 ? digits[(second & 15) << 2] : '=';
        *at++ = '=';
    }
    *at = 0;
    return (size_t)(at - out);
}

void pmi_hex(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = 0;
}

/* Value of a hex digit, -1 for any other character. */
static int crypto_nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool pmi_unhex(pm_slice hex, uint8_t *out)
{
    const char *p = hex.data;
    if (hex.len % 2)
        return false;
    for (size_t i = 0; i < hex.len; i += 2) {
        int high = crypto_nibble(p[i]), low = crypto_nibble(p[i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i / 2] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* ---- Random bytes ------------------------------------------------------- */
bool pmi_random_system(void *out, size_t len)
{
    uint8_t *at = out;
    while (len) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        len -= (size_t)got;
    }
    return true;
}

/* ---- RSA: the key ------------------------------------------------------- */
struct pmi_rsa {
    const pmi_env *env; /* borrowed: the loop's */
    size_t digits;      /* of the modulus, and so of each signature */
    mbedtls_mpi modulus, exponent;
    mbedtls_mpi helper; /* mbedtls' notes on the modulus, made at first use */
};

static pm_slice crypto_skip_zeros(pm_slice hex)
{
    const char *p = hex.data;
    while (hex.len && *p == '0') {
        p++;
        hex.len--;
    }
    hex.data = p;
    return hex;
}

/* `hex` has no leading zeros. */
static bool crypto_modulus_fits(pm_slice hex)
{
    const char *p = hex.data;
    size_t bits;
    if (hex.len == 0 || hex.len > CRYPTO_RSA_BITS_MAX / 4)
        return false;
    for (size_t i = 0; i < hex.len; i++)
        if (crypto_nibble(p[i]) < 0)
            return false;
    bits = hex.len * 4;
    for (int top = crypto_nibble(p[0]); top < 8; top <<= 1)
        bits--;
    return bits >= CRYPTO_RSA_BITS_MIN && (crypto_nibble(p[hex.len - 1]) & 1);
}

static bool crypto_exponent_fits(double exponent, uint32_t *out)
{
    /* In this order NaN fails too, and the cast is always defined. */
    if (!(exponent >= 3.0 && exponent < 4294967296.0))
        return false;
    *out = (uint32_t)exponent;
    return (double)*out == exponent && (*out & 1);
}

/* A number of at most CRYPTO_RSA_BITS_MAX / 4 digits, all of them hex. */
static bool crypto_read_number(mbedtls_mpi *out, pm_slice hex)
{
    char even[CRYPTO_RSA_BITS_MAX / 4 + 1];
    uint8_t bytes[CRYPTO_RSA_BYTES_MAX];
    size_t odd = hex.len % 2;
    pm_slice all = {even, hex.len + odd};
    even[0] = '0';
    memcpy(even + odd, hex.data, hex.len);
    return pmi_unhex(all, bytes) &&
           mbedtls_mpi_read_binary(out, bytes, all.len / 2) == 0;
}

pm_err pmi_rsa_new(const pmi_env *env, pm_slice modulus_hex, double exponent,
                   pmi_rsa **out)
{
    pm_slice hex = crypto_skip_zeros(modulus_hex);
    uint8_t exponent_bytes[4];
    uint32_t e;
    pmi_rsa *key;
    if (!crypto_modulus_fits(hex) || !crypto_exponent_fits(exponent, &e))
        return PM_EKEY;
    key = pmi_zalloc(env, sizeof *key);
    if (!key)
        return PM_ENOMEM;
    key->env = env;
    key->digits = hex.len;
    mbedtls_mpi_init(&key->modulus);
    mbedtls_mpi_init(&key->exponent);
    mbedtls_mpi_init(&key->helper);
    pmi_put_be32(exponent_bytes, e);
    if (!crypto_read_number(&key->modulus, hex) ||
        mbedtls_mpi_read_binary(&key->exponent, exponent_bytes, 4) != 0) {
        pmi_rsa_free(key);
        return PM_ENOMEM;
    }
    *out = key;
    return PM_OK;
}

void pmi_rsa_free(pmi_rsa *key)
{
    if (!key)
        return;
    mbedtls_mpi_free(&key->modulus);
    mbedtls_mpi_free(&key->exponent);
    mbedtls_mpi_free(&key->helper);
    pmi_free(key->env, key);
}

/* ---- RSA: the check ----------------------------------------------------- */
typedef struct crypto_digest {
    const char *info; /* hex of the DigestInfo before the digest */
    size_t len;
    void (*hash)(const void *data, size_t len, uint8_t *out);
} crypto_digest;

static const crypto_digest crypto_digests[] = {
    {"3031300d060960864801650304020105000420", 32, pmi_sha256},
    {"3021300906052b0e03021a05000414", 20, pmi_sha1},
    {"3051300d060960864801650304020305000440", 64, crypto_sha512},
    {"3020300c06082a864886f70d020505000410", 16, pmi_md5},
};

/* Collects the hex digits of a signature; false unless there are exactly
 * `count` of them. Anything between them is skipped, as the reference does. */
static bool crypto_gather(pm_slice signature, char *out, size_t count)
{
    const char *p = signature.data;
    size_t n = 0;
    for (size_t i = 0; i < signature.len; i++) {
        if (crypto_nibble(p[i]) < 0)
            continue;
        if (n == count)
            return false;
        out[n++] = p[i];
    }
    return n == count;
}

/* signature^e mod n, as lower-case hex without leading zeros in `out`, which
 * holds 2 * CRYPTO_RSA_BYTES_MAX + 1. False when memory is out. */
static bool crypto_open(pmi_rsa *key, pm_slice digits, char *out)
{
    uint8_t bytes[CRYPTO_RSA_BYTES_MAX];
    size_t len = (key->digits + 1) / 2;
    mbedtls_mpi number;
    pm_slice hex;
    bool good;
    mbedtls_mpi_init(&number);
    good = crypto_read_number(&number, digits) &&
           mbedtls_mpi_exp_mod(&number, &number, &key->exponent, &key->modulus,
                               &key->helper) == 0 &&
           mbedtls_mpi_write_binary(&number, bytes, len) == 0;
    mbedtls_mpi_free(&number);
    if (!good)
        return false;
    pmi_hex(bytes, len, out);
    hex.data = out;
    hex.len = 2 * len;
    hex = crypto_skip_zeros(hex);
    memmove(out, hex.data, hex.len + 1);
    return true;
}

/* What stands behind 1ff..f00, or NULL when that is not how it begins. */
static const char *crypto_unpad(const char *hex)
{
    if (hex[0] != '1' || hex[1] != 'f')
        return NULL;
    hex++;
    while (*hex == 'f')
        hex++;
    return hex[0] == '0' && hex[1] == '0' ? hex + 2 : NULL;
}

bool pmi_rsa_verify(pmi_rsa *key, pm_slice text, pm_slice signature)
{
    char hex[2 * CRYPTO_RSA_BYTES_MAX + 1];
    char want[2 * CRYPTO_DIGEST_MAX + 1];
    uint8_t hash[CRYPTO_DIGEST_MAX];
    pm_slice digits = {hex, key->digits};
    const char *info;
    if (!crypto_gather(signature, hex, key->digits) ||
        !crypto_open(key, digits, hex) || !(info = crypto_unpad(hex)))
        return false;
    for (size_t i = 0; i < PMI_COUNT(crypto_digests); i++) {
        const crypto_digest *digest = &crypto_digests[i];
        size_t head = strlen(digest->info);
        if (strncmp(info, digest->info, head) != 0)
            continue;
        digest->hash(text.data, text.len, hash);
        pmi_hex(hash, digest->len, want);
        return strcmp(info + head, want) == 0;
    }
    return false;
}
