/* SPDX-License-Identifier: MIT */
/* test/fuzz/fuzz_tls.c -- bytes of strangers at the TLS filter, either side.
 *
 * The first byte tells which story the others are for:
 *   0  a stranger's bytes for a server, in pieces
 *   1  a stranger's bytes for a client who has spoken first
 *   2  two of us; the input says in which pieces the bytes go over, and which
 *      of them are changed
 *   3  two of us who have shaken hands; the input comes from nowhere
 * Beside memory errors it looks for a session that begins without the keys, an
 * end that is not final, a wire without a bound, and slots that are lost. */
#include "core/tls.h"

#include <stdlib.h>

#define FUZZ_CHECK(x) ((x) ? (void)0 : __builtin_trap())
#define assert_true(x) FUZZ_CHECK(x)
#define assert_int_equal(a, b) FUZZ_CHECK((a) == (b))

#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include "test_certs.h"

enum { WIRE_MAX = 160 * 1024, PIECE_MAX = 2048 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same bytes in each run, so that an input means the same again. */
static uint64_t chance;
ssize_t getrandom(void *out, size_t len, unsigned flags)
{
    uint8_t *p = out;
    (void)flags;
    for (size_t i = 0; i < len; i++) {
        chance = chance * UINT64_C(6364136223846793005) + 1442695040888963407;
        p[i] = (uint8_t)(chance >> 56);
    }
    return (ssize_t)len;
}

typedef struct side {
    pmi_tls *tls;
    pmi_queue plain;
    long answer;
} side;

typedef struct story {
    pm_loop *loop;
    pmi_segment_pool pool;
    pmi_tls_realm *server_realm, *client_realm;
    side server, client;
} story;

static certs_one authority, leaf;

static uint64_t no_time(void *ctx)
{
    (void)ctx;
    return 0;
}

static pm_loop *make_loop(void)
{
    pm_loop_opts opts = pm_loop_opts_default();
    pm_loop *loop = NULL;
    opts.memory_only = true;
    opts.clock_us = no_time;
    FUZZ_CHECK(pm_loop_new(&loop, &opts) == PM_OK);
    return loop;
}

/* Loop and realms are made once: keys and certificates take their time. */
static void prepare(story *s)
{
    pmi_tls_setup server, client;
    chance = 1;
    certs_authority(&authority, "authority");
    certs_leaf(&leaf, &authority, "leaf", "dns:localhost");
    server = (pmi_tls_setup){.cert = leaf.cert,
                             .key = leaf.key,
                             .ca = authority.cert,
                             .request_cert = true,
                             .tickets = true};
    client = server;
    client.client = true;
    client.request_cert = false;
    s->loop = make_loop();
    s->pool.loop = s->loop;
    FUZZ_CHECK(pmi_tls_realm_new(s->loop, pmi_loop_env(s->loop), &server, 1,
                                 &s->server_realm) == PM_OK);
    FUZZ_CHECK(pmi_tls_realm_new(s->loop, pmi_loop_env(s->loop), &client, 1,
                                 &s->client_realm) == PM_OK);
}

static void begin_server(story *s)
{
    s->server.tls = pmi_tls_new(s->server_realm, &s->pool, NULL);
}

static void begin_client(story *s)
{
    s->client.tls = pmi_tls_new(s->client_realm, &s->pool, "localhost");
    FUZZ_CHECK(pmi_tls_begin(s->client.tls) == PM_CLOSE_NONE);
}

static void begin(story *s)
{
    begin_server(s);
    begin_client(s);
}

static void end(story *s)
{
    side *sides[2] = {&s->server, &s->client};
    for (int i = 0; i < 2; i++) {
        pmi_tls_free(sides[i]->tls);
        pmi_queue_clear(&sides[i]->plain, &s->pool);
        *sides[i] = (side){0};
    }
    FUZZ_CHECK(pmi_tls_realm_busy(s->server_realm) == 0);
    FUZZ_CHECK(pmi_tls_realm_busy(s->client_realm) == 0);
}

/* Exactly as much room as the contract asks for. */
static void hand(side *to, const uint8_t *data, size_t len)
{
    pm_close_reason reason = PM_CLOSE_COUNT;
    uint8_t *in = malloc(len ? len : 1);
    uint8_t *out = malloc(len + PMI_TLS_RECORD_MAX);
    bool over = pmi_tls_is_over(to->tls);
    if (len)
        memcpy(in, data, len);
    long n = pmi_tls_open(to->tls, in, len, out, &reason);
    FUZZ_CHECK(n >= -1 && n <= (long)(len + PMI_TLS_RECORD_MAX));
    FUZZ_CHECK((n == -1) == (reason != PM_CLOSE_COUNT));
    FUZZ_CHECK(n != -1 || pmi_tls_is_over(to->tls));
    FUZZ_CHECK(!over || n == -1);
    FUZZ_CHECK(pmi_tls_wire(to->tls)->bytes <= WIRE_MAX);
    to->answer = n;
    free(in);
    free(out);
}

/* Pieces of the input: their lengths are in the input too. */
static void stranger(side *to, const uint8_t *data, size_t size)
{
    while (size) {
        size_t n = pmi_min(size, data[0] & 1 ? size : (size_t)data[0] + 1);
        hand(to, data, n);
        FUZZ_CHECK(!pmi_tls_is_up(to->tls));
        data += n;
        size -= n;
    }
}

static bool carry(story *s, side *from, side *to, size_t most, uint8_t change)
{
    uint8_t bytes[PIECE_MAX];
    pm_close_reason reason;
    pmi_tls_seal(from->tls, &from->plain, SIZE_MAX, &reason);
    size_t n = pmi_queue_take(pmi_tls_wire(from->tls), &s->pool, bytes,
                              pmi_min(most, sizeof bytes), 0);
    if (n == 0)
        return false;
    bytes[n / 2] ^= change;
    hand(to, bytes, n);
    return true;
}

static void say(story *s, side *who, size_t len)
{
    uint8_t *room = pmi_queue_room(&who->plain, &s->pool, len);
    memset(room, 'x', len);
    pmi_queue_written(&who->plain, &s->pool, len);
}

static void settle(story *s)
{
    while (carry(s, &s->client, &s->server, PIECE_MAX, 0) ||
           carry(s, &s->server, &s->client, PIECE_MAX, 0))
        continue;
}

/* Two bytes a step: who, how much, and what is changed. */
static void two_of_us(story *s, const uint8_t *data, size_t size)
{
    bool changed = false;
    for (size_t i = 0; i + 1 < size; i += 2) {
        bool client = data[i] & 1;
        side *from = client ? &s->client : &s->server;
        side *to = client ? &s->server : &s->client;
        uint8_t change = data[i] & 2 ? data[i + 1] : 0;
        if ((data[i] & 0xf0) == 0x40)
            say(s, from, (size_t)data[i + 1] * 70 + 1);
        else if ((data[i] & 0xf0) == 0x50)
            pmi_tls_bid(from->tls);
        else
            changed |=
                carry(s, from, to, 1 + (data[i] >> 2) * 40u, change) && change;
    }
    settle(s);
    if (!changed)
        FUZZ_CHECK(pmi_tls_is_up(s->client.tls) ||
                   pmi_tls_is_over(s->client.tls));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static story s;
    if (size == 0)
        return 0;
    if (!s.loop)
        prepare(&s);
    chance = size;
    switch (data[0] & 3) {
    case 0:
        begin_server(&s);
        stranger(&s.server, data + 1, size - 1);
        break;
    case 1:
        begin_client(&s);
        stranger(&s.client, data + 1, size - 1);
        break;
    case 2:
        begin(&s);
        two_of_us(&s, data + 1, size - 1);
        break;
    default:
        begin(&s);
        settle(&s);
        FUZZ_CHECK(pmi_tls_is_up(s.client.tls) && pmi_tls_is_up(s.server.tls));
        hand(data[0] & 4 ? &s.client : &s.server, data + 1, size - 1);
        break;
    }
    end(&s);
    return 0;
}
