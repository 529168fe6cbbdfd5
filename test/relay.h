/* SPDX-License-Identifier: MIT */
/* test/relay.h -- a line between a client and a server that is cut at a given
 * byte: on both sides, or only towards the client, so that the server goes on
 * talking to somebody who does not listen any more. In memory or over sockets;
 * it knows bytes only, so WebSocket goes through it as well. */
#ifndef TEST_RELAY_H
#define TEST_RELAY_H

#include "test.h"
#include "core/conn.h"

enum { RELAY_PAIRS = 64 };

struct relay;

typedef struct relay_pair {
    struct relay *relay;
    pmi_conn *client, *server; /* NULL: gone */
    size_t left[2];            /* bytes until the cut: up, down */
    bool half;                 /* the server does not notice the cut */
    bool cut;
} relay_pair;

typedef struct relay {
    pm_loop *loop;
    pmi_listener *listener;
    uint16_t port, target;
    /* Of the next connection, then SIZE_MAX again. */
    size_t left[2];
    bool half;
    size_t pairs_count; /* connections so far */
    size_t cuts;
    relay_pair pairs[RELAY_PAIRS];
} relay;

static inline void relay_drop(pmi_conn **conn)
{
    pmi_conn *gone = *conn;
    *conn = NULL;
    if (!gone)
        return;
    pmi_conn_close(gone, PM_CLOSE_CUT, false, 0); /* what it has still leaves */
    pmi_conn_free(gone);
}

static inline void relay_cut(relay_pair *pair)
{
    if (pair->cut)
        return;
    pair->cut = true;
    pair->relay->cuts++;
    if (pair->half && pair->server)
        pmi_conn_pause(pair->server);
    else
        relay_drop(&pair->server);
    relay_drop(&pair->client);
}

/* All that were half cut are noticed now. */
static inline void relay_bury(relay *r)
{
    for (size_t i = 0; i < r->pairs_count; i++)
        if (r->pairs[i].cut)
            relay_drop(&r->pairs[i].server);
}

static inline size_t relay_data(pmi_conn *conn, uint8_t *data, size_t len,
                                void *ctx)
{
    relay_pair *pair = ctx;
    bool down = conn == pair->server;
    pmi_conn *to = down ? pair->client : pair->server;
    size_t *left = &pair->left[down];
    pm_slice bytes = {data, len < *left ? len : *left};
    if (!to)
        return len;
    if (bytes.len)
        pmi_conn_send(to, &bytes, 1, 0);
    if (*left != SIZE_MAX)
        *left -= bytes.len;
    if (*left == 0)
        relay_cut(pair);
    return len;
}

static inline void relay_closed(pmi_conn *conn, pm_close_reason reason,
                                void *ctx)
{
    relay_pair *pair = ctx;
    (void)reason;
    if (conn == pair->client)
        pair->client = NULL;
    else
        pair->server = NULL;
    pmi_conn_free(conn);
    if (pair->half && pair->cut)
        return;
    relay_drop(&pair->client);
    relay_drop(&pair->server);
}

static const pmi_conn_events relay_events = {.data = relay_data,
                                             .closed = relay_closed};

static inline void relay_accepted(pmi_listener *listener, pmi_conn *conn,
                                  void *ctx)
{
    relay *r = ctx;
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = r->target,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = pmi_conn_is_memory(conn),
                             .from = "relay"};
    relay_pair *pair = &r->pairs[r->pairs_count];
    (void)listener;
    assert_true(r->pairs_count < RELAY_PAIRS);
    *pair =
        (relay_pair){r, conn, NULL, {r->left[0], r->left[1]}, r->half, false};
    if (pmi_conn_connect(r->loop, &opts, &relay_events, pair, &pair->server)) {
        pmi_conn_free(conn);
        return;
    }
    r->pairs_count++;
    r->left[0] = r->left[1] = SIZE_MAX;
    r->half = false;
    pmi_conn_start(conn, &relay_events, pair);
    if (!pair->left[0])
        relay_cut(pair);
}

static inline pm_err relay_open(relay *r, pm_loop *loop, uint16_t port,
                                uint16_t target)
{
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .port = port,
                            .framing = PMI_FRAMING_STREAM,
                            .accepted = relay_accepted,
                            .ctx = r};
    r->loop = loop;
    r->target = target;
    r->left[0] = r->left[1] = SIZE_MAX;
    pm_err err = pmi_listen(loop, &opts, &r->listener);
    if (err == PM_OK)
        r->port = pmi_listener_port(r->listener);
    return err;
}

static inline void relay_close(relay *r)
{
    pmi_listener_close(r->listener);
    r->listener = NULL;
    for (size_t i = 0; i < r->pairs_count; i++) {
        pmi_conn_free(r->pairs[i].client);
        pmi_conn_free(r->pairs[i].server);
        r->pairs[i].client = r->pairs[i].server = NULL;
    }
}

#endif
