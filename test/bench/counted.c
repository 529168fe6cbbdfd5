/* SPDX-License-Identifier: MIT */
/* test/bench/counted.c -- whole requests without a socket: what the library
 * itself does for one, from the client's bytes to the bytes of the answer.
 *
 * A connector and a chat server on a loop in memory, with a clock that stands
 * still and fixed random numbers: the same instructions in every run, so that
 * a change of a few percent shows where noise of a machine would hide it
 * (check.sh). The players are bare connections that send prepared bytes.
 * Start reading at counted_rows. */
#include "counted.h"
#include "measure.h"

/* ---- Rows ------------------------------------------------------------------ */

static void counted_echo_raw_1(void *ctx)
{
    counted_ask(ctx, COUNTED_RAW, 1);
}

static void counted_echo_raw_16(void *ctx)
{
    counted_ask(ctx, COUNTED_RAW, 16);
}

static void counted_echo_16(void *ctx)
{
    counted_ask(ctx, COUNTED_ECHO, 16);
}

static void counted_forward_raw_1(void *ctx)
{
    counted_ask(ctx, COUNTED_CHAT_RAW, 1);
}

static void counted_forward_raw_16(void *ctx)
{
    counted_ask(ctx, COUNTED_CHAT_RAW, 16);
}

static void counted_forward_16(void *ctx)
{
    counted_ask(ctx, COUNTED_CHAT_ECHO, 16);
}

static void counted_push(void *ctx)
{
    counted *all = ctx;
    counted_request(&all->players[0], PMI_MESSAGE_NOTIFY, COUNTED_SEND);
    counted_wait(all, all->packages + COUNTED_MEMBERS);
}

static void counted_calls_raw(void *ctx)
{
    counted_calls(ctx, pm_body_bytes("0123456789abcdef", 16));
}

static void counted_connect(void *ctx)
{
    counted *all = ctx;
    counted_player player;
    counted_open(all, &player);
    pm_loop_poll(all->loop, 0);
    pmi_conn_close(player.conn, PM_CLOSE_CLIENT, false, 0);
    while (!player.closed)
        pm_loop_poll(all->loop, 0);
    pmi_conn_free(player.conn);
    pm_loop_poll(all->loop, 0);
}

static const measure_row counted_rows[] = {
    {"echo: bytes, 1 outstanding", counted_echo_raw_1, 1, 200},
    {"echo: bytes, 16 outstanding", counted_echo_raw_16, 16, 50},
    {"echo: JSON, 16 outstanding", counted_echo_16, 16, 50},
    {"forwarded: bytes, 1 outstanding", counted_forward_raw_1, 1, 200},
    {"forwarded: bytes, 16 outstanding", counted_forward_raw_16, 16, 50},
    {"forwarded: JSON, 16 outstanding", counted_forward_16, 16, 50},
    {"push: to 100 members, a delivery", counted_push, COUNTED_MEMBERS, 50},
    {"rpc: bytes, 64 outstanding", counted_calls_raw, COUNTED_CALLS, 50},
    {"connect: handshake with dictionary", counted_connect, 1, 200},
};

int main(int argc, char **argv)
{
    counted all = {.random = 1, .now_us = 1000000};
    int status;
    counted_start(&all);
    status =
        measure_main(counted_rows, PMI_COUNT(counted_rows), &all, argc, argv);
    counted_end(&all);
    return status;
}
