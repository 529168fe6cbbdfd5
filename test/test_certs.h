/* SPDX-License-Identifier: MIT */
/* test/test_certs.h -- certificates made at run time, for the tests of TLS: an
 * authority, and leaves with names of their own. Include after test.h.
 *
 *     certs_authority(&ca, "our authority");
 *     certs_leaf(&leaf, &ca, "localhost", "dns:localhost ip4:127.0.0.1");
 *
 * P-256, so that each takes a millisecond. */
#ifndef TEST_CERTS_H
#define TEST_CERTS_H

#include <arpa/inet.h>
#include <mbedtls/asn1write.h>
#include <mbedtls/ecp.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <sys/random.h>

typedef struct certs_one {
    char key[512], cert[2048]; /* PEM */
    char subject[128];
    mbedtls_pk_context pk;
} certs_one;

static inline int certs_random(void *ctx, unsigned char *out, size_t len)
{
    (void)ctx;
    return getrandom(out, len, 0) == (ssize_t)len ? 0 : -1;
}

static inline void certs_make_key(certs_one *one)
{
    mbedtls_pk_init(&one->pk);
    assert_int_equal(
        mbedtls_pk_setup(&one->pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)),
        0);
    assert_int_equal(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1,
                                         mbedtls_pk_ec(one->pk), certs_random,
                                         NULL),
                     0);
    assert_int_equal(mbedtls_pk_write_key_pem(
                         &one->pk, (unsigned char *)one->key, sizeof one->key),
                     0);
}

/* "dns:a ip4:127.0.0.1" as the value of the extension. Returns its length. */
static inline size_t certs_names(const char *names, uint8_t out[256])
{
    char text[256], *save = NULL;
    size_t len = 2;
    snprintf(text, sizeof text, "%s", names);
    for (char *n = strtok_r(text, " ", &save); n;
         n = strtok_r(NULL, " ", &save)) {
        uint8_t value[128];
        size_t bytes = strlen(n + 4);
        if (!strncmp(n, "ip4:", 4)) {
            bytes = 4;
            assert_int_equal(inet_pton(AF_INET, n + 4, value), 1);
        } else if (!strncmp(n, "ip6:", 4)) {
            bytes = 16;
            assert_int_equal(inet_pton(AF_INET6, n + 4, value), 1);
        } else {
            memcpy(value, n + 4, bytes);
        }
        assert_true(len + 2 + bytes < 130);
        out[len++] = n[0] == 'i' ? 0x87 : 0x82;
        out[len++] = (uint8_t)bytes;
        memcpy(out + len, value, bytes);
        len += bytes;
    }
    out[0] = 0x30;
    out[1] = (uint8_t)(len - 2);
    return len;
}

static inline void certs_sign(certs_one *one, const certs_one *issuer,
                              const char *names, const char *until)
{
    mbedtls_x509write_cert crt;
    uint8_t ext[256], serial[8] = {1};
    certs_one *by = (certs_one *)(uintptr_t)(issuer ? issuer : one);
    mbedtls_x509write_crt_init(&crt);
    mbedtls_x509write_crt_set_version(&crt, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&crt, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&crt, &one->pk);
    mbedtls_x509write_crt_set_issuer_key(&crt, &by->pk);
    certs_random(NULL, serial + 1, sizeof serial - 1);
#if MBEDTLS_VERSION_MAJOR >= 3
    assert_int_equal(
        mbedtls_x509write_crt_set_serial_raw(&crt, serial, sizeof serial), 0);
#else
    mbedtls_mpi number;
    mbedtls_mpi_init(&number);
    assert_int_equal(mbedtls_mpi_read_binary(&number, serial, sizeof serial),
                     0);
    assert_int_equal(mbedtls_x509write_crt_set_serial(&crt, &number), 0);
    mbedtls_mpi_free(&number);
#endif
    assert_int_equal(mbedtls_x509write_crt_set_subject_name(&crt, one->subject),
                     0);
    assert_int_equal(mbedtls_x509write_crt_set_issuer_name(&crt, by->subject),
                     0);
    assert_int_equal(
        mbedtls_x509write_crt_set_validity(&crt, "20200101000000", until), 0);
    assert_int_equal(
        mbedtls_x509write_crt_set_basic_constraints(&crt, !issuer, -1), 0);
    if (names) {
        size_t len = certs_names(names, ext);
        assert_int_equal(mbedtls_x509write_crt_set_extension(
                             &crt, MBEDTLS_OID_SUBJECT_ALT_NAME,
                             MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0,
                             ext, len),
                         0);
    }
    assert_int_equal(mbedtls_x509write_crt_pem(&crt, (unsigned char *)one->cert,
                                               sizeof one->cert, certs_random,
                                               NULL),
                     0);
    mbedtls_x509write_crt_free(&crt);
}

static inline void certs_authority(certs_one *ca, const char *name)
{
    certs_make_key(ca);
    snprintf(ca->subject, sizeof ca->subject, "CN=%s", name);
    certs_sign(ca, NULL, NULL, "20991231235959");
}

/* names: of the certificate; NULL: none but the common name. until NULL: long.
 */
static inline void certs_leaf_until(certs_one *leaf, const certs_one *ca,
                                    const char *common, const char *names,
                                    const char *until)
{
    certs_make_key(leaf);
    snprintf(leaf->subject, sizeof leaf->subject, "CN=%s", common);
    certs_sign(leaf, ca, names, until);
}

static inline void certs_leaf(certs_one *leaf, const certs_one *ca,
                              const char *common, const char *names)
{
    certs_leaf_until(leaf, ca, common, names, "20991231235959");
}

static inline void certs_free(certs_one *one)
{
    mbedtls_pk_free(&one->pk);
}

#endif
