/* SPDX-License-Identifier: MIT */
/* test/test_tls.c -- the TLS filter without a socket: two sessions, and bytes
 * that are carried from one to the other in pieces of any size, cut short,
 * changed. What concerns connections is in test_tls_conn.c. */
#include "test.h"

#include "core/tls.h"

#include "test_certs.h"

#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

/* mbedtls has no hook of its own in Debian, but its calloc can be ours: this
 * program is a host. The sanitizers have theirs. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CALLOC_FAILS 0
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||           \
    !defined(__GLIBC__)
#define CALLOC_FAILS 0
#endif
#ifndef CALLOC_FAILS
#define CALLOC_FAILS 1
#endif

static bool calloc_failed;
#if CALLOC_FAILS
static size_t calloc_calls, calloc_fail_at;
extern void *__libc_calloc(size_t count, size_t size);
PM_API void *calloc(size_t count, size_t size);
void *calloc(size_t count, size_t size)
{
    if (calloc_fail_at && ++calloc_calls == calloc_fail_at) {
        calloc_failed = true;
        return NULL;
    }
    return __libc_calloc(count, size);
}
#endif

/* ---- Two ends ----------------------------------------------------------- */
enum { DUO_ROOM = 256 * 1024 };

typedef struct duo_end {
    pmi_tls *tls;
    pmi_queue plain; /* to be sealed */
    uint8_t *got;
    size_t got_len, taken; /* plain bytes; bytes of the wire */
    long answer;           /* of the last pmi_tls_open */
    pm_close_reason reason;
} duo_end;

typedef struct duo {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pmi_segment_pool pool;
    pmi_tls_realm *realms[2]; /* client, server */
    duo_end client, server;
    char log[512];
    uint8_t *room;
} duo;

static certs_one authority, other_authority, leaf, stranger, old_leaf;

static void duo_log(void *ctx, pm_log_level level, const char *module,
                    const char *line)
{
    duo *d = ctx;
    (void)level;
    assert_string_equal(module, "tls");
    snprintf(d->log, sizeof d->log, "%s", line);
}

static pmi_tls_setup server_setup(void)
{
    pmi_tls_setup setup = {.cert = leaf.cert, .key = leaf.key};
    return setup;
}

static pmi_tls_setup client_setup(void)
{
    pmi_tls_setup setup = {.ca = authority.cert, .client = true};
    return setup;
}

static pm_err duo_open(duo *d)
{
    pm_loop_opts opts = test_world_opts(&d->world, &d->heap);
    opts.log = duo_log;
    opts.log_ctx = d;
    opts.log_level = PM_LOG_DEBUG;
    d->room = malloc(DUO_ROOM);
    pm_err err = pm_loop_new(&d->loop, &opts);
    d->pool.loop = d->loop;
    return err;
}

static pm_err duo_realm(duo *d, int which, const pmi_tls_setup *setup)
{
    pmi_tls_realm_unref(d->realms[which]);
    d->realms[which] = NULL;
    return pmi_tls_realm_new(d->loop, pmi_loop_env(d->loop), setup, 4,
                             &d->realms[which]);
}

static void duo_end_close(duo *d, duo_end *end)
{
    pmi_tls_free(end->tls);
    pmi_queue_clear(&end->plain, &d->pool);
    free(end->got);
    *end = (duo_end){0};
}

/* Sessions of these realms; the client has begun. */
static bool duo_meet(duo *d, const char *name)
{
    duo_end_close(d, &d->client);
    duo_end_close(d, &d->server);
    d->client.tls = pmi_tls_new(d->realms[0], &d->pool, name);
    d->server.tls = pmi_tls_new(d->realms[1], &d->pool, NULL);
    if (!d->client.tls || !d->server.tls)
        return false;
    d->client.reason = pmi_tls_begin(d->client.tls);
    return true;
}

static void duo_start(duo *d, const pmi_tls_setup *client,
                      const pmi_tls_setup *server)
{
    pmi_tls_setup usual[2] = {client_setup(), server_setup()};
    assert_ok(duo_open(d));
    assert_ok(duo_realm(d, 0, client ? client : &usual[0]));
    assert_ok(duo_realm(d, 1, server ? server : &usual[1]));
    assert_true(duo_meet(d, "localhost"));
}

static void duo_close(duo *d)
{
    duo_end_close(d, &d->client);
    duo_end_close(d, &d->server);
    pmi_tls_realm_unref(d->realms[0]);
    pmi_tls_realm_unref(d->realms[1]);
    d->realms[0] = d->realms[1] = NULL;
    pmi_segment_pool_fini(&d->pool);
    if (d->loop)
        assert_ok(pm_loop_free(d->loop));
    d->loop = NULL;
    free(d->room);
    d->room = NULL;
}

static void duo_put(duo *d, duo_end *end, const void *data, size_t len)
{
    uint8_t *p = pmi_queue_room(&end->plain, &d->pool, len);
    if (!p)
        return;
    memcpy(p, data, len);
    pmi_queue_written(&end->plain, &d->pool, len);
}

static void duo_hand(duo *d, duo_end *to, const uint8_t *bytes, size_t len)
{
    uint8_t *in = d->room + PMI_TLS_RECORD_MAX;
    if (len)
        memcpy(in, bytes, len);
    to->answer = pmi_tls_open(to->tls, in, len, d->room, &to->reason);
    to->taken += len;
    if (to->answer <= 0)
        return;
    to->got = realloc(to->got, to->got_len + (size_t)to->answer);
    memcpy(to->got + to->got_len, d->room, (size_t)to->answer);
    to->got_len += (size_t)to->answer;
}

/* At most `step` bytes go over. False: there was nothing. */
static bool duo_carry(duo *d, duo_end *from, duo_end *to, size_t step)
{
    static uint8_t bytes[100 * 1024];
    pm_close_reason reason = PM_CLOSE_NONE;
    if (pmi_tls_seal(from->tls, &from->plain, SIZE_MAX, &reason) < 0)
        from->reason = reason;
    size_t n = pmi_queue_take(pmi_tls_wire(from->tls), &d->pool, bytes,
                              pmi_min(step, sizeof bytes), 0);
    if (n == 0 || to->answer < 0)
        return false;
    duo_hand(d, to, bytes, n);
    return true;
}

static void duo_pump(duo *d, size_t step)
{
    for (;;) {
        bool there = duo_carry(d, &d->client, &d->server, step);
        bool back = duo_carry(d, &d->server, &d->client, step);
        if (!there && !back)
            return;
    }
}

static bool duo_is_up(const duo *d)
{
    return pmi_tls_is_up(d->client.tls) && pmi_tls_is_up(d->server.tls);
}

/* ---- Bytes -------------------------------------------------------------- */
static void test_pieces(void **state)
{
    static const size_t steps[] = {1, 2, 5, 100, 1400, 100000};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(steps); i++) {
        duo d = {0};
        duo_start(&d, NULL, NULL);
        duo_put(&d, &d.client, "before", 6); /* waits for the handshake */
        duo_pump(&d, steps[i]);
        assert_true(duo_is_up(&d));
        duo_put(&d, &d.server, "to you", 6);
        duo_pump(&d, steps[i]);
        assert_int_equal(d.server.got_len, 6);
        assert_memory_equal(d.server.got, "before", 6);
        assert_memory_equal(d.client.got, "to you", 6);
        const pmi_tls_counts *counts = pmi_tls_realm_counts(d.realms[1]);
        assert_int_equal(counts->handshakes, 1);
        assert_int_equal(counts->done, 1);
        assert_int_equal(counts->failed, 0);
        assert_int_equal(pmi_tls_realm_busy(d.realms[1]), 0);
        duo_close(&d);
        assert_heap_empty(&d.heap);
    }
}

/* Small messages share a record; large ones are cut; order stays. */
static void test_gather(void **state)
{
    enum { BIG = 300 * 1024 };
    duo d = {0};
    uint8_t *p = malloc(BIG);
    size_t records = 0;
    (void)state;
    for (size_t i = 0; i < BIG; i++)
        p[i] = (uint8_t)(i * 7 + i / 251);
    duo_start(&d, NULL, NULL);
    duo_pump(&d, 100000);
    for (int i = 0; i < 100; i++) { /* segments of their own */
        pmi_chunk *chunk = pmi_loop_chunk(d.loop, 100);
        memcpy(chunk->data, p + 100 * i, 100);
        chunk->len = 100;
        assert_ok(pmi_queue_add(&d.client.plain, &d.pool, chunk, 0, false));
        pmi_chunk_unref(chunk);
    }
    assert_int_equal(
        pmi_tls_seal(d.client.tls, &d.client.plain, SIZE_MAX, &d.client.reason),
        10000);
    assert_in_range(pmi_tls_wire(d.client.tls)->bytes, 10000, 10100);
    duo_put(&d, &d.client, p + 10000, BIG - 10000);
    while (d.client.plain.bytes || pmi_tls_wire(d.client.tls)->bytes) {
        assert_in_range(pmi_tls_wire(d.client.tls)->bytes, 0, 48 * 1024);
        duo_carry(&d, &d.client, &d.server, 100000);
        records++;
    }
    assert_int_equal(d.server.got_len, BIG);
    assert_memory_equal(d.server.got, p, BIG);
    assert_in_range(records, 5, 20);
    free(p);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

/* A bounded part, so that only the request leaves before its answer. */
static void test_seal_max(void **state)
{
    duo d = {0};
    (void)state;
    duo_start(&d, NULL, NULL);
    duo_pump(&d, 100000);
    duo_put(&d, &d.client, "0123456789", 10);
    assert_int_equal(
        pmi_tls_seal(d.client.tls, &d.client.plain, 4, &d.client.reason), 4);
    assert_int_equal(d.client.plain.bytes, 6);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

static void test_goodbye(void **state)
{
    duo d = {0};
    (void)state;
    duo_start(&d, NULL, NULL);
    duo_pump(&d, 100000);
    duo_put(&d, &d.client, "last", 4);
    assert_int_equal(
        pmi_tls_seal(d.client.tls, &d.client.plain, SIZE_MAX, &d.client.reason),
        4);
    pmi_tls_bid(d.client.tls);
    pmi_tls_bid(d.client.tls);
    duo_pump(&d, 100000);
    assert_int_equal(d.server.answer, 4); /* in front of the end */
    assert_true(pmi_tls_is_over(d.server.tls));
    duo_hand(&d, &d.server, NULL, 0);
    assert_int_equal(d.server.answer, -1);
    assert_int_equal(d.server.reason, PM_CLOSE_CLIENT);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

/* The stream ends after k bytes: all is given back. */
static void test_cut(void **state)
{
    duo d = {0};
    (void)state;
    duo_start(&d, NULL, NULL);
    for (size_t k = 0;; k += 23) {
        assert_true(duo_meet(&d, "localhost"));
        while (d.server.taken + d.client.taken < k &&
               (duo_carry(&d, &d.client, &d.server, 23) ||
                duo_carry(&d, &d.server, &d.client, 23)))
            continue;
        if (d.server.taken + d.client.taken < k)
            break;
    }
    assert_true(duo_is_up(&d));
    assert_int_equal(pmi_tls_realm_busy(d.realms[0]), 0);
    assert_int_equal(pmi_tls_realm_busy(d.realms[1]), 0);
    const pmi_tls_counts *counts = pmi_tls_realm_counts(d.realms[1]);
    assert_int_equal(counts->handshakes, counts->done + counts->failed);
    assert_true(counts->failed > 10);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

/* One byte is changed on its way: nobody takes it for a good session. */
static void test_changed(void **state)
{
    duo d = {.world.seed = 7};
    int changed = 0, failed = 0, up = 0;
    (void)state;
    duo_start(&d, NULL, NULL);
    for (int round = 0; round < 100; round++) {
        bool by_client = round & 1;
        int was = changed;
        size_t at = test_world_below(&d.world, 600);
        assert_true(duo_meet(&d, "localhost"));
        duo_end *from = by_client ? &d.client : &d.server;
        duo_end *to = by_client ? &d.server : &d.client;
        for (size_t sent = 0;;) {
            uint8_t byte;
            bool more = duo_carry(&d, to, from, 100000);
            if (pmi_queue_take(pmi_tls_wire(from->tls), &d.pool, &byte, 1, 0) ==
                0) {
                if (!more)
                    break;
                continue;
            }
            if (sent++ == at) {
                byte ^= (uint8_t)(1 + test_world_below(&d.world, 255));
                changed++;
            }
            if (to->answer >= 0)
                duo_hand(&d, to, &byte, 1);
        }
        if (changed == was)
            continue; /* so many were not sent */
        up += duo_is_up(&d);
        failed += d.client.answer < 0 || d.server.answer < 0;
    }
    /* What is changed in the clear is found by the check at the end; a length
     * that has grown waits for ever, which is the connection's timer to end. */
    assert_true(changed > 30);
    assert_true(failed > changed / 2);
    assert_true(up <= changed / 10);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

static void test_garbage(void **state)
{
    static const uint8_t noise[64] = {23, 3, 3, 0, 40, 1, 2, 3};
    duo d = {0};
    (void)state;
    duo_start(&d, NULL, NULL);
    duo_pump(&d, 100000);
    duo_put(&d, &d.client, "good", 4);
    duo_carry(&d, &d.client, &d.server, 100000);
    duo_hand(&d, &d.server, noise, sizeof noise);
    assert_int_equal(d.server.answer, -1);
    assert_int_equal(d.server.reason, PM_CLOSE_TLS);
    assert_non_null(strstr(d.log, "changed"));
    duo_carry(&d, &d.server, &d.client, 1000); /* an alert tells it */
    assert_int_equal(d.client.answer, -1);
    assert_int_equal(d.client.reason, PM_CLOSE_TLS);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

static void test_plain(void **state)
{
    duo d = {0};
    (void)state;
    duo_start(&d, NULL, NULL);
    duo_hand(&d, &d.server, (const uint8_t *)"GET / HTTP/1.1\r\n", 16);
    assert_int_equal(d.server.answer, -1);
    assert_int_equal(d.server.reason, PM_CLOSE_PLAIN_ON_TLS);
    assert_int_equal(pmi_tls_realm_counts(d.realms[1])->handshakes, 0);
    duo_hand(&d, &d.client, (const uint8_t *)"HTTP/1.1 400\r\n", 14);
    assert_int_equal(d.client.answer, -1);
    assert_int_equal(d.client.reason, PM_CLOSE_PLAIN_ON_TLS);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

/* ---- Whom to believe ---------------------------------------------------- */
typedef struct trust_case {
    const char *name;
    const certs_one *cert, *ca;
    bool insecure, good;
    const char *why;
} trust_case;

static void test_trust(void **state)
{
    const trust_case cases[] = {
        {"localhost", &leaf, &authority, false, true, NULL},
        {"127.0.0.1", &leaf, &authority, false, true, NULL},
        {"::1", &leaf, &authority, false, true, NULL},
        {NULL, &leaf, &authority, false, true, NULL},
        {"a.wild.test", &leaf, &authority, false, true, NULL},
        {"example.com", &leaf, &authority, false, false, "CN"},
        {"127.0.0.2", &leaf, &authority, false, false, "another address"},
        {"::2", &leaf, &authority, false, false, "another address"},
        {"localhost", &leaf, &other_authority, false, false, "trusted"},
        {"localhost", &old_leaf, &authority, false, false, "expired"},
        {"example.com", &old_leaf, &other_authority, true, true, NULL},
    };
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        duo d = {0};
        pmi_tls_setup server = {.cert = cases[i].cert->cert,
                                .key = cases[i].cert->key};
        pmi_tls_setup client = {.ca = cases[i].ca->cert,
                                .insecure = cases[i].insecure,
                                .client = true};
        duo_start(&d, &client, &server);
        assert_true(duo_meet(&d, cases[i].name));
        duo_pump(&d, 100000);
        assert_int_equal(duo_is_up(&d), cases[i].good);
        if (!cases[i].good) {
            assert_int_equal(d.client.reason, PM_CLOSE_TLS);
            /* This one, and the one that duo_start began. */
            assert_int_equal(pmi_tls_realm_counts(d.realms[0])->failed, 2);
        }
        duo_close(&d);
        if (cases[i].why && !strstr(d.log, "refuses"))
            assert_non_null(strstr(d.log, cases[i].why));
        assert_heap_empty(&d.heap);
    }
}

/* Both sides show one. */
static void test_mutual(void **state)
{
    const certs_one *shown[] = {NULL, &stranger, &old_leaf, &leaf};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(shown); i++) {
        duo d = {0};
        pmi_tls_setup server = server_setup(), client = client_setup();
        server.ca = authority.cert;
        server.request_cert = true;
        client.cert = shown[i] ? shown[i]->cert : NULL;
        client.key = shown[i] ? shown[i]->key : NULL;
        duo_start(&d, &client, &server);
        duo_pump(&d, 100000);
        assert_int_equal(duo_is_up(&d), shown[i] == &leaf);
        if (shown[i] == &leaf) {
            assert_true(pmi_tls_peer_is(d.server.tls, "localhost"));
            assert_true(pmi_tls_peer_is(d.client.tls, "localhost"));
            assert_false(pmi_tls_peer_is(d.server.tls, "LOCALHOST"));
            assert_false(pmi_tls_peer_is(d.server.tls, "a.wild.test"));
            assert_false(pmi_tls_peer_is(d.server.tls, "leaf"));
            assert_false(pmi_tls_peer_is(d.server.tls, ""));
        } else {
            assert_int_equal(d.server.reason, PM_CLOSE_TLS);
        }
        duo_close(&d);
        assert_heap_empty(&d.heap);
    }
}

/* Without alternative names the common name counts. */
static void test_common_name(void **state)
{
    duo d = {0};
    certs_one named = {0};
    (void)state;
    certs_leaf(&named, &authority, "chat-server-1", NULL);
    pmi_tls_setup server = {.cert = named.cert, .key = named.key};
    duo_start(&d, NULL, &server);
    assert_true(duo_meet(&d, NULL));
    duo_pump(&d, 100000);
    assert_true(pmi_tls_peer_is(d.client.tls, "chat-server-1"));
    assert_false(pmi_tls_peer_is(d.client.tls, "chat-server-"));
    assert_false(pmi_tls_peer_is(d.client.tls, "chat-server-11"));
    assert_false(pmi_tls_peer_is(d.server.tls, "chat-server-1"));
    duo_close(&d);
    certs_free(&named);
    assert_heap_empty(&d.heap);
}

/* ---- Setups ------------------------------------------------------------- */
static void test_setups(void **state)
{
    static const char text[] = "-----BEGIN CERTIFICATE-----\nnonsense\n"
                               "-----END CERTIFICATE-----\n";
    const struct {
        pmi_tls_setup setup;
        const char *why;
    } cases[] = {
        {{.cert = leaf.cert}, "both `cert` and `key`"},
        {{.key = leaf.key}, "both `cert` and `key`"},
        {{0}, "both `cert` and `key`"},
        {{.cert = leaf.cert, .key = leaf.key, .request_cert = true},
         "`ca` beside"},
        {{.cert = leaf.cert, .key = stranger.key}, "not that of `cert`"},
        {{.cert = text, .key = leaf.key}, "cert: PEM text: expected PEM"},
        {{.cert = leaf.cert, .key = text}, "key: PEM text: expected a PEM key"},
        {{.cert = "/nowhere/x.pem", .key = leaf.key},
         "cert: /nowhere/x.pem: the file can not be read"},
        {{.cert = "Makefile", .key = leaf.key}, "cert: Makefile: expected PEM"},
        {{.cert = "/dev/null", .key = leaf.key}, "expected a PEM file"},
        {{.ca = "/nowhere", .client = true}, "ca: /nowhere: the file"},
    };
    duo d = {0};
    (void)state;
    duo_start(&d, NULL, NULL);
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pmi_tls_realm *realm = NULL;
        d.log[0] = 0;
        assert_err(pmi_tls_realm_new(d.loop, pmi_loop_env(d.loop),
                                     &cases[i].setup, 4, &realm),
                   PM_ECONFIG);
        assert_null(realm);
        if (!strstr(d.log, cases[i].why))
            fail_msg("%s, expected %s", d.log, cases[i].why);
        assert_err(pmi_tls_realm_renew(d.realms[1], &cases[i].setup),
                   PM_ECONFIG);
    }
    duo_pump(&d, 100000); /* with the one it had */
    assert_true(duo_is_up(&d));
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

static void test_files(void **state)
{
    char names[2][64];
    const char *texts[2] = {leaf.cert, leaf.key};
    duo d = {0};
    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(names[i], sizeof names[i], "/tmp/test_tls_%d_%d.pem",
                 (int)getpid(), i);
        FILE *file = fopen(names[i], "w");
        assert_non_null(file);
        fputs(texts[i], file);
        fclose(file);
    }
    pmi_tls_setup server = {.cert = names[0], .key = names[1]};
    duo_start(&d, NULL, &server);
    duo_pump(&d, 100000);
    assert_true(duo_is_up(&d));
    duo_close(&d);
    unlink(names[0]);
    unlink(names[1]);
    assert_heap_empty(&d.heap);
}

/* ---- Tickets, other certificates, limits -------------------------------- */
static void test_tickets(void **state)
{
    duo d = {0};
    pmi_tls_setup server = server_setup(), client = client_setup();
    (void)state;
    server.tickets = client.tickets = true;
    duo_start(&d, &client, &server);
    const pmi_tls_counts *counts = pmi_tls_realm_counts(d.realms[1]);
    for (int i = 0; i < 3; i++) {
        const char *name = "127.0.0.1";
        assert_true(duo_meet(&d, name));
        duo_put(&d, &d.client, "x", 1);
        duo_pump(&d, 100000);
        assert_true(duo_is_up(&d));
        assert_int_equal(d.server.got_len, 1);
        assert_int_equal(counts->resumed, i);
    }
    /* Tickets of another certificate are worth nothing: a full handshake. */
    assert_ok(pmi_tls_realm_renew(d.realms[1], &server));
    assert_true(duo_meet(&d, "127.0.0.1"));
    duo_pump(&d, 100000);
    assert_true(duo_is_up(&d));
    assert_int_equal(counts->resumed, 2);
    /* A client that keeps none. */
    client.tickets = false;
    assert_ok(duo_realm(&d, 0, &client));
    for (int i = 0; i < 2; i++) {
        assert_true(duo_meet(&d, "127.0.0.1"));
        duo_pump(&d, 100000);
        assert_true(duo_is_up(&d));
    }
    assert_int_equal(counts->resumed, 2);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

static void test_renew(void **state)
{
    duo d = {0};
    certs_one next = {0};
    (void)state;
    certs_leaf(&next, &authority, "next", "dns:next.test");
    pmi_tls_setup server = {.cert = next.cert, .key = next.key};
    duo_start(&d, NULL, NULL);
    assert_true(duo_meet(&d, NULL));
    duo_pump(&d, 100000);
    duo_end old[2] = {d.client, d.server};
    d.client = d.server = (duo_end){0};
    assert_true(pmi_tls_peer_is(old[0].tls, "localhost"));
    assert_true(duo_meet(&d, NULL)); /* begins with the old one */
    duo_carry(&d, &d.client, &d.server, 100);
    assert_ok(pmi_tls_realm_renew(d.realms[1], &server));
    duo_pump(&d, 100000);
    assert_true(duo_is_up(&d));
    assert_true(pmi_tls_peer_is(d.client.tls, "localhost"));
    assert_true(duo_meet(&d, NULL));
    duo_pump(&d, 100000);
    assert_true(pmi_tls_peer_is(d.client.tls, "next.test"));
    /* The old session goes on. */
    duo_end_close(&d, &d.client);
    duo_end_close(&d, &d.server);
    d.client = old[0];
    d.server = old[1];
    duo_put(&d, &d.client, "still here", 10);
    duo_pump(&d, 100000);
    assert_int_equal(d.server.got_len, 10);
    duo_close(&d);
    certs_free(&next);
    assert_heap_empty(&d.heap);
}

static void test_busy(void **state)
{
    enum { MAX = 4 };
    duo d = {0};
    pmi_tls *begun[MAX];
    uint8_t hello[2000], room[40000];
    pm_close_reason reason;
    (void)state;
    duo_start(&d, NULL, NULL);
    size_t len = pmi_queue_take(pmi_tls_wire(d.client.tls), &d.pool, hello,
                                sizeof hello, 0);
    for (int i = 0; i < MAX; i++) {
        begun[i] = pmi_tls_new(d.realms[1], &d.pool, NULL);
        assert_int_equal(pmi_tls_realm_busy(d.realms[1]), i);
        assert_int_equal(pmi_tls_open(begun[i], hello, len, room, &reason), 0);
    }
    assert_int_equal(pmi_tls_realm_busy(d.realms[1]), MAX);
    assert_int_equal(pmi_tls_open(d.server.tls, hello, len, room, &reason), -1);
    assert_int_equal(reason, PM_CLOSE_TLS_BUSY);
    assert_int_equal(pmi_tls_realm_counts(d.realms[1])->refused, 1);
    pmi_tls_free(begun[0]);
    assert_int_equal(pmi_tls_realm_busy(d.realms[1]), MAX - 1);
    assert_true(duo_meet(&d, "localhost"));
    duo_pump(&d, 100000);
    assert_true(duo_is_up(&d));
    for (int i = 1; i < MAX; i++)
        pmi_tls_free(begun[i]);
    assert_int_equal(pmi_tls_realm_busy(d.realms[1]), 0);
    duo_close(&d);
    assert_heap_empty(&d.heap);
}

/* ---- Memory ------------------------------------------------------------- */
/* A whole story: realms, handshake, bytes. Ends early when memory does. */
static bool memory_story(duo *d)
{
    pmi_tls_setup server = server_setup(), client = client_setup();
    server.tickets = client.tickets = true;
    server.request_cert = true;
    server.ca = authority.cert;
    client.cert = leaf.cert;
    client.key = leaf.key;
    pm_err err = d->loop ? PM_OK : duo_open(d);
    if (err == PM_OK)
        err = duo_realm(d, 0, &client);
    if (err == PM_OK)
        err = duo_realm(d, 1, &server);
    if (err) {
        /* mbedtls tries a key in several forms and keeps the last error. */
        if (!calloc_failed || err != PM_ECONFIG)
            assert_err(err, PM_ENOMEM);
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (!duo_meet(d, "localhost"))
            return false;
        duo_put(d, &d->client, "hello", 5);
        duo_pump(d, 100000);
        if (!duo_is_up(d))
            return false;
    }
    return d->server.got_len == 5;
}

static void test_no_memory(void **state)
{
    duo d = {0};
    (void)state;
    TEST_EACH_FAILURE(&d.heap)
    {
        bool good = memory_story(&d);
        if (!d.heap.failed)
            assert_true(good);
        duo_close(&d);
    }
}

/* The same for what mbedtls takes from the process. */
static void test_no_memory_of_mbedtls(void **state)
{
    (void)state;
#if CALLOC_FAILS
    size_t hits = 0, survived = 0;
    for (size_t k = 1;; k += 1 + k / 60) {
        duo d = {0};
        assert_ok(duo_open(&d));
        calloc_calls = 0;
        calloc_failed = false;
        calloc_fail_at = k;
        bool good = memory_story(&d);
        calloc_fail_at = 0;
        survived += good && calloc_failed;
        if (!good && d.server.tls && d.client.tls)
            assert_true(calloc_failed);
        duo_close(&d);
        assert_heap_empty(&d.heap);
        if (!calloc_failed)
            break;
        hits++;
    }
    assert_true(hits > 100);
    assert_true(survived < hits / 4);
#else
    skip();
#endif
}

/* ---- Versions ----------------------------------------------------------- */
static void test_version(void **state)
{
    (void)state;
#if MBEDTLS_VERSION_MAJOR >= 3
    /* 1.2 until the host starts PSA, then 1.3. */
    for (int psa = 0; psa < 2; psa++) {
        duo d = {0};
        if (psa)
            assert_int_equal(psa_crypto_init(), PSA_SUCCESS);
        duo_start(&d, NULL, NULL);
        duo_put(&d, &d.client, "x", 1);
        duo_pump(&d, 1);
        assert_true(duo_is_up(&d));
        assert_string_equal(pmi_tls_version(d.server.tls),
                            psa ? "TLSv1.3" : "TLSv1.2");
        duo_close(&d);
        assert_heap_empty(&d.heap);
    }
    mbedtls_psa_crypto_free();
#else
    duo d = {0};
    duo_start(&d, NULL, NULL);
    duo_pump(&d, 100000);
    assert_string_equal(pmi_tls_version(d.server.tls), "TLSv1.2");
    duo_close(&d);
    assert_heap_empty(&d.heap);
#endif
}

static int make_certs(void **state)
{
    (void)state;
    certs_authority(&authority, "authority");
    certs_authority(&other_authority, "other authority");
    certs_leaf(&leaf, &authority, "leaf",
               "dns:localhost dns:*.wild.test ip4:127.0.0.1 ip6:::1");
    certs_leaf(&stranger, &other_authority, "stranger", "dns:localhost");
    certs_leaf_until(&old_leaf, &authority, "old", "dns:localhost",
                     "20210101000000");
    return 0;
}

static int free_certs(void **state)
{
    (void)state;
    certs_free(&authority);
    certs_free(&other_authority);
    certs_free(&leaf);
    certs_free(&stranger);
    certs_free(&old_leaf);
    return 0;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_version),
    cmocka_unit_test(test_pieces),
    cmocka_unit_test(test_gather),
    cmocka_unit_test(test_seal_max),
    cmocka_unit_test(test_goodbye),
    cmocka_unit_test(test_cut),
    cmocka_unit_test(test_changed),
    cmocka_unit_test(test_garbage),
    cmocka_unit_test(test_plain),
    cmocka_unit_test(test_trust),
    cmocka_unit_test(test_mutual),
    cmocka_unit_test(test_common_name),
    cmocka_unit_test(test_setups),
    cmocka_unit_test(test_files),
    cmocka_unit_test(test_tickets),
    cmocka_unit_test(test_renew),
    cmocka_unit_test(test_busy),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_no_memory_of_mbedtls),
};

int main(void)
{
    test_deadline(3 * TEST_DEADLINE_S);
    return cmocka_run_group_tests(tests, make_certs, free_certs);
}
