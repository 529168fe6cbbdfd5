/* SPDX-License-Identifier: MIT */
/* core/tls_realm.c -- what TLS sessions share: certificates, keys, who is
 * believed, keys of tickets, limits.
 *
 * Everything from one setup is an identity, counted by the sessions that began
 * with it. Another certificate is another identity: it becomes the current one
 * when all of it has been read and fits together, and the old one goes with its
 * last session. Tickets belong to an identity too: those of an old certificate
 * end in a full handshake. Start reading at tls_identity_fill(). */
#include "tls_internal.h"

#include <stdio.h>

#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

enum {
    TLS_FILE_MAX = 1024 * 1024,
    TLS_CHAIN_MAX = 12 * 1024, /* it must fit into one handshake message */
    TLS_TICKET_SECONDS = 86400
};

/* ---- Errors ------------------------------------------------------------- */
bool pmi_tls_is_memory(int error)
{
    if (error >= 0)
        return false;
    int high = -error & 0x7f80, low = -error & 0x7f;
    switch (high) {
    case -MBEDTLS_ERR_SSL_ALLOC_FAILED:
    case -MBEDTLS_ERR_X509_ALLOC_FAILED:
    case -MBEDTLS_ERR_PK_ALLOC_FAILED:
    case 0x1180: /* PEM */
    case 0x4d80: /* ECP */
    case 0x5180: /* MD */
    case 0x6180: /* CIPHER */
        return true;
    default: /* big numbers, ASN.1 */
        return low == 0x10 || low == 0x6a;
    }
}

typedef struct tls_sentence {
    int error;
    const char *text;
} tls_sentence;

static const tls_sentence tls_sentences[] = {
    {MBEDTLS_ERR_X509_CERT_VERIFY_FAILED, "the certificate is not believed"},
    {MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE, "the other side refuses it"},
    {MBEDTLS_ERR_SSL_CONN_EOF, "the other side has gone"},
    {MBEDTLS_ERR_SSL_INVALID_RECORD, "not a TLS record"},
    {MBEDTLS_ERR_SSL_INVALID_MAC, "a record has been changed on its way"},
#if MBEDTLS_VERSION_MAJOR >= 3
    {MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION, "no TLS version in common"},
    {MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE, "nothing in common"},
    {MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE, "no certificate was shown"},
#else
    {MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION, "no TLS version in common"},
    {MBEDTLS_ERR_SSL_NO_CIPHER_CHOSEN, "no cipher in common"},
    {MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE, "no certificate was shown"},
#endif
};

const char *pmi_tls_why(int error, char *out, size_t size)
{
    const char *text = "TLS failure";
    if (pmi_tls_is_memory(error))
        text = "out of memory";
    for (size_t i = 0; i < PMI_COUNT(tls_sentences); i++)
        if (tls_sentences[i].error == error)
            text = tls_sentences[i].text;
    pmi_format(out, size, "%s (mbedtls -0x%04x)", text, (unsigned)-error);
    return out;
}

/* ---- PEM, from text or from a file -------------------------------------- */
typedef struct tls_reader {
    const pmi_env *env;
    pmi_buf text; /* with a 0 at its end, as mbedtls wants it */
} tls_reader;

static pm_err tls_complain(const tls_reader *r, const char *what,
                           const char *from, const char *why)
{
    bool text = strstr(from, "-----BEGIN") != NULL;
    PMI_LOG(r->env, PM_LOG_ERROR, "tls", "%s: %s: %s", what,
            text ? "PEM text" : from, why);
    return PM_ECONFIG;
}

static pm_err tls_unreadable(const tls_reader *r, const char *what,
                             const char *from, const char *expected, int error)
{
    char why[160];
    if (pmi_tls_is_memory(error))
        return PM_ENOMEM;
    pmi_format(why, sizeof why, "expected %s (mbedtls -0x%04x)", expected,
               error < 0 ? (unsigned)-error : 0);
    return tls_complain(r, what, from, why);
}

/* The text was perhaps a key. */
static void tls_forget(tls_reader *r)
{
    if (r->text.data)
        mbedtls_platform_zeroize(r->text.data, r->text.cap);
    pmi_buf_fini(&r->text);
}

static pm_err tls_read_file(tls_reader *r, const char *what, const char *path)
{
    FILE *file = fopen(path, "rbe");
    size_t got = 0;
    uint8_t *to = NULL;
    if (!file)
        return tls_complain(r, what, path, "the file can not be read");
    /* At once, so that no copy of a key stays behind where it grew. */
    if (fseek(file, 0, SEEK_END) == 0 && ftell(file) < TLS_FILE_MAX) {
        long size = ftell(file);
        rewind(file);
        to = pmi_buf_reserve(&r->text, size > 0 ? (size_t)size : 1);
        got = to ? fread(to, 1, size > 0 ? (size_t)size : 0, file) : 0;
    }
    fclose(file);
    if (r->text.failed)
        return PM_ENOMEM;
    r->text.len = got;
    pmi_buf_add_byte(&r->text, 0);
    if (got == 0)
        return tls_complain(r, what, path,
                            "expected a PEM file of at most 1 MiB");
    return r->text.failed ? PM_ENOMEM : PM_OK;
}

static pm_err tls_read_pem(tls_reader *r, const char *what, const char *from)
{
    pmi_buf_init(&r->text, r->env, TLS_FILE_MAX + 1);
    if (!strstr(from, "-----BEGIN"))
        return tls_read_file(r, what, from);
    pmi_buf_add(&r->text, from, strlen(from) + 1);
    return r->text.failed ? PM_ENOMEM : PM_OK;
}

/* Lists of whom to believe hold some that mbedtls can not read: they are left
 * out. */
static pm_err tls_read_chain(tls_reader *r, const char *what, const char *from,
                             bool lenient, mbedtls_x509_crt *out)
{
    pm_err err = tls_read_pem(r, what, from);
    if (err == PM_OK) {
        int rc = mbedtls_x509_crt_parse(out, r->text.data, r->text.len);
        if (rc < 0 || (rc > 0 && !lenient) || out->raw.p == NULL)
            err = tls_unreadable(r, what, from, "PEM certificates", rc);
    }
    tls_forget(r);
    return err;
}

static pm_err tls_read_key(tls_reader *r, const char *from,
                           mbedtls_pk_context *out)
{
    pm_err err = tls_read_pem(r, "key", from);
    if (err == PM_OK) {
#if MBEDTLS_VERSION_MAJOR >= 3
        int rc = mbedtls_pk_parse_key(out, r->text.data, r->text.len, NULL, 0,
                                      pmi_tls_random, NULL);
#else
        int rc = mbedtls_pk_parse_key(out, r->text.data, r->text.len, NULL, 0);
#endif
        if (rc != 0)
            err = tls_unreadable(r, "key", from,
                                 "a PEM key without a pass phrase", rc);
    }
    tls_forget(r);
    return err;
}

/* ---- An identity -------------------------------------------------------- */
int pmi_tls_random(void *ctx, unsigned char *out, size_t len)
{
    (void)ctx;
    return pmi_random_system(out, len) ? 0 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

/* What we speak, the quickest in mbedtls first; 1.3's own are known to mbedtls
 * 3 alone. */
static const int tls_ciphers[] = {
#if MBEDTLS_VERSION_MAJOR >= 3
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
    MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    0};

/* The quick ones first: left alone, mbedtls 2 takes the longest. */
static void tls_set_curves(mbedtls_ssl_config *config)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    static const uint16_t groups[] = {
        MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
        MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1,
        MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1, MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
    mbedtls_ssl_conf_groups(config, groups);
#else
    static const mbedtls_ecp_group_id curves[] = {
        MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1,
        MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_SECP521R1,
        MBEDTLS_ECP_DP_NONE};
    mbedtls_ssl_conf_curves(config, curves);
#endif
}

static void tls_set_versions(mbedtls_ssl_config *config)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    uint8_t probe;
    mbedtls_ssl_conf_min_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
    /* 1.3 needs PSA, and PSA is one for the whole process: the host's. */
    if (psa_generate_random(&probe, 1) != PSA_SUCCESS)
        mbedtls_ssl_conf_max_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_platform_zeroize(&probe, 1);
#else
    mbedtls_ssl_conf_min_version(config, MBEDTLS_SSL_MAJOR_VERSION_3,
                                 MBEDTLS_SSL_MINOR_VERSION_3);
#endif
}

/* A ticket that is good makes a handshake short: counted. */
static int tls_ticket_parse(void *ctx, mbedtls_ssl_session *session,
                            unsigned char *buf, size_t len)
{
    pmi_tls_identity *identity = ctx;
    int rc = mbedtls_ssl_ticket_parse(&identity->tickets, session, buf, len);
    if (rc == 0)
        identity->counts->resumed++;
    return rc;
}

static int tls_ticket_write(void *ctx, const mbedtls_ssl_session *session,
                            unsigned char *start, const unsigned char *end,
                            size_t *len, uint32_t *lifetime)
{
    pmi_tls_identity *identity = ctx;
    return mbedtls_ssl_ticket_write(&identity->tickets, session, start, end,
                                    len, lifetime);
}

static pm_err tls_set_tickets(pmi_tls_identity *identity, bool on)
{
    mbedtls_ssl_config *config = &identity->config;
    if (identity->client || !on) {
        identity->keeps_tickets = identity->client && on;
        mbedtls_ssl_conf_session_tickets(
            config, on ? MBEDTLS_SSL_SESSION_TICKETS_ENABLED
                       : MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
        return PM_OK;
    }
    if (mbedtls_ssl_ticket_setup(&identity->tickets, pmi_tls_random, NULL,
                                 MBEDTLS_CIPHER_AES_256_GCM,
                                 TLS_TICKET_SECONDS) != 0)
        return PM_ENOMEM;
    mbedtls_ssl_conf_session_tickets_cb(config, tls_ticket_write,
                                        tls_ticket_parse, identity);
    return PM_OK;
}

static int tls_key_fits(pmi_tls_identity *identity)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pk_check_pair(&identity->cert.pk, &identity->key,
                                 pmi_tls_random, NULL);
#else
    return mbedtls_pk_check_pair(&identity->cert.pk, &identity->key);
#endif
}

static pm_err tls_fill_own(pmi_tls_identity *identity, tls_reader *r,
                           const pmi_tls_setup *setup)
{
    size_t bytes = 0;
    pm_err err = tls_read_chain(r, "cert", setup->cert, false, &identity->cert);
    if (err == PM_OK)
        err = tls_read_key(r, setup->key, &identity->key);
    if (err)
        return err;
    for (const mbedtls_x509_crt *c = &identity->cert; c; c = c->next)
        bytes += c->raw.len;
    if (bytes > TLS_CHAIN_MAX)
        return tls_complain(r, "cert", setup->cert,
                            "expected a chain of at most 12 KiB");
    int rc = tls_key_fits(identity);
    if (pmi_tls_is_memory(rc))
        return PM_ENOMEM;
    if (rc != 0)
        return tls_complain(r, "key", setup->key, "it is not that of `cert`");
    rc = mbedtls_ssl_conf_own_cert(&identity->config, &identity->cert,
                                   &identity->key);
    return rc == 0 ? PM_OK : PM_ENOMEM;
}

/* Where systems keep the list of whom everybody believes. */
static const char *tls_system_list(void)
{
    static const char *const paths[] = {"/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/pki/tls/certs/ca-bundle.crt",
                                        "/etc/ssl/cert.pem",
                                        "/etc/ssl/ca-bundle.pem"};
    for (size_t i = 0; i < PMI_COUNT(paths); i++) {
        FILE *file = fopen(paths[i], "rbe");
        if (!file)
            continue;
        fclose(file);
        return paths[i];
    }
    return paths[0];
}

static pm_err tls_fill_trust(pmi_tls_identity *identity, tls_reader *r,
                             const pmi_tls_setup *setup)
{
    bool verify = setup->client ? !setup->insecure : setup->request_cert;
    const char *ca = setup->ca;
    mbedtls_ssl_conf_authmode(&identity->config,
                              verify ? MBEDTLS_SSL_VERIFY_REQUIRED
                                     : MBEDTLS_SSL_VERIFY_NONE);
    if (!verify)
        return PM_OK;
    if (!ca)
        ca = tls_system_list();
    pm_err err = tls_read_chain(r, "ca", ca, true, &identity->ca);
    if (err == PM_OK)
        mbedtls_ssl_conf_ca_chain(&identity->config, &identity->ca, NULL);
    return err;
}

static pm_err tls_identity_fill(pmi_tls_identity *identity, tls_reader *r,
                                const pmi_tls_setup *setup)
{
    mbedtls_ssl_config *config = &identity->config;
    pm_err err;
    if (mbedtls_ssl_config_defaults(
            config,
            setup->client ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER,
            MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0)
        return PM_ENOMEM;
    tls_set_versions(config);
    tls_set_curves(config);
    mbedtls_ssl_conf_ciphersuites(config, tls_ciphers);
    mbedtls_ssl_conf_rng(config, pmi_tls_random, NULL);
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
    if (!setup->cert != !setup->key || (!setup->cert && !setup->client) ||
        (setup->request_cert && !setup->ca)) {
        PMI_LOG(r->env, PM_LOG_ERROR, "tls", "expected %s",
                setup->request_cert && !setup->ca ? "`ca` beside `request_cert`"
                                                  : "both `cert` and `key`");
        return PM_ECONFIG;
    }
    err = tls_fill_trust(identity, r, setup);
    if (err == PM_OK && setup->cert)
        err = tls_fill_own(identity, r, setup);
    return err ? err : tls_set_tickets(identity, setup->tickets);
}

pmi_tls_identity *pmi_tls_identity_ref(pmi_tls_identity *identity)
{
    identity->refs++;
    return identity;
}

void pmi_tls_identity_unref(pmi_tls_identity *identity)
{
    if (!identity || --identity->refs)
        return;
    mbedtls_ssl_config_free(&identity->config);
    mbedtls_x509_crt_free(&identity->cert);
    mbedtls_x509_crt_free(&identity->ca);
    mbedtls_pk_free(&identity->key);
    mbedtls_ssl_ticket_free(&identity->tickets);
    mbedtls_ssl_session_free(&identity->session);
    pmi_free(identity->env, identity);
}

static pm_err tls_identity_new(pmi_tls_realm *realm, const pmi_tls_setup *setup,
                               pmi_tls_identity **out)
{
    tls_reader reader = {.env = realm->env};
    pmi_tls_identity *identity = pmi_zalloc(realm->env, sizeof *identity);
    if (!identity)
        return PM_ENOMEM;
    identity->env = realm->env;
    identity->refs = 1;
    identity->client = setup->client;
    identity->insecure = setup->insecure;
    identity->counts = &realm->counts;
    mbedtls_ssl_config_init(&identity->config);
    mbedtls_x509_crt_init(&identity->cert);
    mbedtls_x509_crt_init(&identity->ca);
    mbedtls_pk_init(&identity->key);
    mbedtls_ssl_ticket_init(&identity->tickets);
    mbedtls_ssl_session_init(&identity->session);
    pm_err err = tls_identity_fill(identity, &reader, setup);
    if (err)
        pmi_tls_identity_unref(identity);
    else
        *out = identity;
    return err;
}

/* ---- A realm ------------------------------------------------------------ */
pm_err pmi_tls_realm_new(pm_loop *loop, const pmi_env *env,
                         const pmi_tls_setup *setup, uint32_t handshakes_max,
                         pmi_tls_realm **out)
{
    pmi_tls_realm *realm = pmi_zalloc(env, sizeof *realm);
    if (!realm)
        return PM_ENOMEM;
    realm->loop = loop;
    realm->env = env;
    realm->refs = 1;
    realm->busy_max = handshakes_max;
    pm_err err = tls_identity_new(realm, setup, &realm->now);
    if (err)
        pmi_tls_realm_unref(realm);
    else
        *out = realm;
    return err;
}

pm_err pmi_tls_realm_renew(pmi_tls_realm *realm, const pmi_tls_setup *setup)
{
    pmi_tls_identity *next = NULL;
    pm_err err = tls_identity_new(realm, setup, &next);
    if (err)
        return err;
    pmi_tls_identity_unref(realm->now);
    realm->now = next;
    return PM_OK;
}

pmi_tls_realm *pmi_tls_realm_ref(pmi_tls_realm *realm)
{
    realm->refs++;
    return realm;
}

void pmi_tls_realm_unref(pmi_tls_realm *realm)
{
    if (!realm || --realm->refs)
        return;
    pmi_task_cancel(&realm->turn);
    pmi_tls_identity_unref(realm->now);
    pmi_chunk_unref(realm->plain);
    pmi_free(realm->env, realm);
}

const pmi_tls_counts *pmi_tls_realm_counts(const pmi_tls_realm *realm)
{
    return &realm->counts;
}

uint32_t pmi_tls_realm_busy(const pmi_tls_realm *realm)
{
    return realm->busy;
}
