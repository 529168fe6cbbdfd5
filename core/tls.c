/* SPDX-License-Identifier: MIT */
/* core/tls.c -- one TLS session: bytes in, bytes out, nothing in between but
 * memory.
 *
 *     NEW --first byte, or begin--> SHAKING --done--> UP --goodbye--> OVER
 *               any --alert, bad record, limit--> OVER
 *
 * mbedtls asks for bytes by two functions. tls_pull gives it what pmi_tls_open
 * was handed, and "later" when that is used up; tls_push puts what it says into
 * the wire, a bounded queue. So it never waits, and a flight of a handshake
 * leaves in one write. Start reading at pmi_tls_open(). */
#include "tls_internal.h"

#include "sock.h"

enum {
    TLS_WIRE_HIGH = 32 * 1024, /* no more is sealed while so much waits */
    TLS_WIRE_MAX = 128 * 1024, /* alerts and answers to what nobody reads */
    TLS_TURN_US = 3000,        /* handshakes' time in one turn */
    TLS_RECORD = 0x16,         /* first byte of a handshake's first record */
    TLS_ALERT = 0x15,          /* what a server may answer instead */
    TLS_SAN_DNS = 0x82,        /* context-specific tags of alternative names */
    TLS_SAN_IP = 0x87
};

typedef enum tls_state { TLS_NEW, TLS_SHAKING, TLS_UP, TLS_OVER } tls_state;

struct pmi_tls {
    pmi_tls_realm *realm;       /* a reference */
    pmi_tls_identity *identity; /* a reference, from its beginning on */
    pmi_segment_pool *pool;     /* borrowed: the loop's connections' */
    char *name;                 /* owned; may be NULL */
    pmi_addr address;           /* of a name that is one; len 0: it is not */
    pmi_queue wire;
    const uint8_t *in; /* what mbedtls may take now */
    size_t in_len;
    tls_state state;
    pm_close_reason reason; /* when it is over */
    bool slot;              /* holds one of the realm's */
    bool met;               /* the first byte has been looked at */
    bool bidden;            /* goodbye has been said */
    mbedtls_ssl_context ssl;
};

/* ---- What mbedtls calls ------------------------------------------------- */
static int tls_pull(void *ctx, unsigned char *out, size_t len)
{
    pmi_tls *tls = ctx;
    size_t n = pmi_min(len, tls->in_len);
    if (n == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(out, tls->in, n);
    tls->in += n;
    tls->in_len -= n;
    return (int)n;
}

static int tls_push(void *ctx, const unsigned char *data, size_t len)
{
    pmi_tls *tls = ctx;
    if (tls->wire.bytes + len > TLS_WIRE_MAX)
        return MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL;
    uint8_t *room = pmi_queue_room(&tls->wire, tls->pool, len);
    if (!room)
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    memcpy(room, data, len);
    pmi_queue_written(&tls->wire, tls->pool, len);
    return (int)len;
}

/* ---- Life --------------------------------------------------------------- */
pmi_tls *pmi_tls_new(pmi_tls_realm *realm, pmi_segment_pool *pool,
                     const char *name)
{
    pmi_tls *tls = pmi_zalloc(realm->env, sizeof *tls);
    if (!tls)
        return NULL;
    tls->realm = pmi_tls_realm_ref(realm);
    tls->pool = pool;
    mbedtls_ssl_init(&tls->ssl);
    if (name) {
        tls->name = pmi_strdup(realm->env, name);
        if (!tls->name) {
            pmi_tls_free(tls);
            return NULL;
        }
        if (!strcmp(name, "localhost") ||
            !pmi_addr_parse(&tls->address, name, 0))
            tls->address.len = 0;
    }
    return tls;
}

static void tls_give_slot(pmi_tls *tls)
{
    if (tls->slot)
        tls->realm->busy--;
    tls->slot = false;
}

void pmi_tls_free(pmi_tls *tls)
{
    pmi_tls_realm *realm;
    if (!tls)
        return;
    realm = tls->realm;
    if (tls->state == TLS_SHAKING)
        realm->counts.failed++; /* the connection has gone */
    tls_give_slot(tls);
    pmi_queue_clear(&tls->wire, tls->pool);
    mbedtls_ssl_free(&tls->ssl);
    pmi_tls_identity_unref(tls->identity);
    pmi_free(realm->env, tls->name);
    pmi_free(realm->env, tls);
    pmi_tls_realm_unref(realm);
}

/* ---- The end ------------------------------------------------------------ */
static void tls_end(pmi_tls *tls, pm_close_reason reason)
{
    if (tls->state == TLS_SHAKING)
        tls->realm->counts.failed++;
    tls_give_slot(tls);
    tls->state = TLS_OVER;
    tls->reason = reason;
    tls->in_len = 0;
}

/* Those who dial are ours, and told; strangers would fill the log. */
static void tls_tell(const pmi_tls *tls, const char *why)
{
    bool client = tls->identity->client;
    PMI_LOG(tls->realm->env, client ? PM_LOG_WARN : PM_LOG_DEBUG, "tls",
            "%s%s%s", client && tls->name ? tls->name : "",
            client && tls->name ? ": " : "", why);
}

static void tls_fail(pmi_tls *tls, int error)
{
    char why[512], *end = why;
    uint32_t flags = mbedtls_ssl_get_verify_result(&tls->ssl);
    pmi_tls_why(error, why, sizeof why);
    if (error == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED && flags != 0xffffffff &&
        mbedtls_x509_crt_verify_info(why, sizeof why, "", flags) > 0)
        for (end = why; (end = strchr(end, '\n')) != NULL;)
            *end = ' ';
    tls_tell(tls, why);
    tls_end(tls, pmi_tls_is_memory(error) ? PM_CLOSE_MEMORY : PM_CLOSE_TLS);
}

/* ---- Whose certificate is it? ------------------------------------------- */
/* Is there an alternative name of this kind and of exactly these bytes? */
static bool tls_has_san(const mbedtls_x509_crt *cert, int tag, const void *data,
                        size_t len)
{
    const mbedtls_x509_sequence *san = &cert->subject_alt_names;
    for (; san; san = san->next)
        if (san->buf.tag == tag && san->buf.len == len && len &&
            !memcmp(san->buf.p, data, len))
            return true;
    return false;
}

static bool tls_has_common_name(const mbedtls_x509_crt *cert, const char *name)
{
    static const char oid[] = "\x55\x04\x03"; /* 2.5.4.3 */
    pm_slice want = {name, strlen(name)};
    for (const mbedtls_x509_name *n = &cert->subject; n; n = n->next) {
        pm_slice value = {n->val.p, n->val.len};
        if (n->oid.len == 3 && !memcmp(n->oid.p, oid, 3) &&
            pmi_slice_eq(value, want))
            return true;
    }
    return false;
}

bool pmi_tls_peer_is(const pmi_tls *tls, const char *name)
{
    const mbedtls_x509_crt *cert = mbedtls_ssl_get_peer_cert(&tls->ssl);
    if (!cert || !*name || tls->identity->insecure)
        return false;
    if (cert->subject_alt_names.buf.p)
        return tls_has_san(cert, TLS_SAN_DNS, name, strlen(name));
    return tls_has_common_name(cert, name);
}

/* mbedtls 2 knows names of hosts alone. A session that goes on by a ticket may
 * be without a certificate: it was looked at when the ticket was given. */
static bool tls_address_fits(const pmi_tls *tls)
{
    const mbedtls_x509_crt *cert = mbedtls_ssl_get_peer_cert(&tls->ssl);
    bool four = tls->address.len == 16;
    if (!tls->address.len || tls->identity->insecure || !cert)
        return true;
    return tls_has_san(cert, TLS_SAN_IP, tls->address.raw + (four ? 4 : 8),
                       four ? 4 : 16);
}

/* ---- The handshake ------------------------------------------------------ */
static int tls_prepare(pmi_tls *tls)
{
    pmi_tls_identity *identity = tls->identity;
    bool host = tls->name && !tls->address.len;
    int rc = mbedtls_ssl_setup(&tls->ssl, &identity->config);
    if (rc == 0 && identity->client)
        rc = mbedtls_ssl_set_hostname(&tls->ssl, host ? tls->name : NULL);
    if (rc == 0 && identity->client && identity->has_session)
        rc = mbedtls_ssl_set_session(&tls->ssl, &identity->session);
    mbedtls_ssl_set_bio(&tls->ssl, tls, tls_push, tls_pull, NULL);
    return rc;
}

static bool tls_start(pmi_tls *tls)
{
    pmi_tls_realm *realm = tls->realm;
    if (realm->busy >= realm->busy_max) {
        realm->counts.refused++;
        tls_end(tls, PM_CLOSE_TLS_BUSY);
        return false;
    }
    realm->busy++;
    realm->counts.handshakes++;
    tls->slot = true;
    tls->state = TLS_SHAKING;
    tls->identity = pmi_tls_identity_ref(realm->now);
    int rc = tls_prepare(tls);
    if (rc != 0)
        tls_fail(tls, rc);
    return rc == 0;
}

/* Clients: what makes the next handshake short. */
static void tls_keep_session(pmi_tls *tls)
{
    pmi_tls_identity *identity = tls->identity;
    if (!identity->keeps_tickets)
        return;
    mbedtls_ssl_session_free(&identity->session);
    mbedtls_ssl_session_init(&identity->session);
    identity->has_session =
        mbedtls_ssl_get_session(&tls->ssl, &identity->session) == 0;
}

static void tls_shaken(pmi_tls *tls)
{
    if (!tls_address_fits(tls)) {
        tls_tell(tls, "the certificate is made out to another address");
        mbedtls_ssl_send_alert_message(&tls->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                       MBEDTLS_SSL_ALERT_MSG_BAD_CERT);
        tls_end(tls, PM_CLOSE_TLS);
        return;
    }
    tls->realm->counts.done++;
    tls_give_slot(tls);
    tls->state = TLS_UP;
    tls_keep_session(tls);
}

static void tls_turn_over(pmi_task *task)
{
    PMI_OUTER(task, pmi_tls_realm, turn)->spent_us = 0;
}

/* As far as the bytes go. */
static void tls_shake(pmi_tls *tls)
{
    pmi_tls_realm *realm = tls->realm;
    uint64_t before = pmi_loop_clock_us(realm->loop);
    int rc = mbedtls_ssl_handshake(&tls->ssl);
    realm->spent_us += pmi_loop_clock_us(realm->loop) - before;
    if (!pmi_task_waits(&realm->turn))
        pmi_loop_flush_later(realm->loop, &realm->turn, tls_turn_over);
    if (rc == 0)
        tls_shaken(tls);
    else if (rc != MBEDTLS_ERR_SSL_WANT_READ)
        tls_fail(tls, rc);
}

bool pmi_tls_may_work(const pmi_tls *tls)
{
    return tls->state >= TLS_UP || tls->realm->spent_us < TLS_TURN_US;
}

pm_close_reason pmi_tls_begin(pmi_tls *tls)
{
    if (tls_start(tls))
        tls_shake(tls);
    return tls->state == TLS_OVER ? tls->reason : PM_CLOSE_NONE;
}

bool pmi_tls_is_up(const pmi_tls *tls)
{
    return tls->state == TLS_UP;
}

bool pmi_tls_is_over(const pmi_tls *tls)
{
    return tls->state == TLS_OVER;
}

const char *pmi_tls_version(const pmi_tls *tls)
{
    return mbedtls_ssl_get_version(&tls->ssl);
}

/* ---- Bytes in ----------------------------------------------------------- */
/* The first byte that has come. */
static void tls_meet(pmi_tls *tls)
{
    uint8_t first = *tls->in;
    bool client = tls->identity != NULL; /* it has begun already */
    if (first != TLS_RECORD && !(client && first == TLS_ALERT))
        tls_end(tls, PM_CLOSE_PLAIN_ON_TLS);
    else if (!client)
        tls_start(tls);
}

/* Plain bytes into out; returns how many. */
static size_t tls_read(pmi_tls *tls, uint8_t *out)
{
    size_t got = 0, left;
    while (tls->state == TLS_UP) {
        left = tls->in_len;
        int rc = mbedtls_ssl_read(&tls->ssl, out + got, PMI_TLS_RECORD_MAX);
        if (rc > 0)
            got += (size_t)rc;
        else if (rc == MBEDTLS_ERR_SSL_WANT_READ && tls->in_len == 0)
            break;
        else if (rc == MBEDTLS_ERR_SSL_WANT_READ && tls->in_len < left)
            continue; /* it has taken something that is not for us */
        else if (rc == 0 || rc == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
            tls_end(tls, PM_CLOSE_CLIENT);
#if MBEDTLS_VERSION_MAJOR >= 3
        else if (rc == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
            tls_keep_session(tls);
#endif
        else
            tls_fail(tls, rc);
    }
    return got;
}

long pmi_tls_open(pmi_tls *tls, const uint8_t *in, size_t len, uint8_t *out,
                  pm_close_reason *reason)
{
    size_t got = 0;
    tls->in = in;
    tls->in_len = len;
    if (len && tls->state != TLS_OVER && !tls->met) {
        tls->met = true;
        tls_meet(tls);
    }
    if (tls->state == TLS_SHAKING)
        tls_shake(tls);
    if (tls->state == TLS_UP)
        got = tls_read(tls, out);
    tls->in = NULL;
    tls->in_len = 0;
    if (got > 0 || tls->state != TLS_OVER)
        return (long)got;
    *reason = tls->reason;
    return -1;
}

/* ---- Bytes out ---------------------------------------------------------- */
pmi_queue *pmi_tls_wire(pmi_tls *tls)
{
    return &tls->wire;
}

/* The first n bytes in one piece, taken out. NULL: no memory. */
static const uint8_t *tls_gather(pmi_tls *tls, pmi_queue *plain, size_t n)
{
    pmi_tls_realm *realm = tls->realm;
    if (!realm->plain)
        realm->plain = pmi_chunk_new(realm->env, PMI_TLS_RECORD_MAX);
    if (!realm->plain)
        return NULL;
    pmi_queue_take(plain, tls->pool, realm->plain->data, n, UINT64_MAX);
    return realm->plain->data;
}

/* One record of what lies in front; small segments share it. */
static int tls_seal_one(pmi_tls *tls, pmi_queue *plain, size_t max)
{
    const pmi_segment *first = plain->first;
    size_t n = pmi_min(pmi_min(max, plain->bytes), PMI_TLS_RECORD_MAX);
    bool whole = first->len >= n;
    const uint8_t *from =
        whole ? first->chunk->data + first->offset : tls_gather(tls, plain, n);
    if (!from)
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    for (size_t done = 0; done < n;) {
        int rc = mbedtls_ssl_write(&tls->ssl, from + done, n - done);
        if (rc <= 0)
            return rc < 0 ? rc : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
        done += (size_t)rc;
    }
    if (whole)
        pmi_queue_sent(plain, tls->pool, n);
    return (int)n;
}

long pmi_tls_seal(pmi_tls *tls, pmi_queue *plain, size_t max,
                  pm_close_reason *reason)
{
    size_t sealed = 0;
    while (tls->state == TLS_UP && plain->bytes && sealed < max &&
           tls->wire.bytes < TLS_WIRE_HIGH) {
        int rc = tls_seal_one(tls, plain, max - sealed);
        if (rc < 0) {
            tls_fail(tls, rc);
            *reason = tls->reason;
            return -1;
        }
        sealed += (size_t)rc;
    }
    return (long)sealed;
}

void pmi_tls_bid(pmi_tls *tls)
{
    if (tls->state == TLS_UP && !tls->bidden)
        mbedtls_ssl_close_notify(&tls->ssl);
    tls->bidden = true;
}
