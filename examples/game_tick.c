/* SPDX-License-Identifier: MIT */
/* game_tick.c -- a game of 60 ticks a second that gives the network one
 * millisecond of each.
 *
 * What it shows: pm_loop_poll with a budget; clients on another thread's loop.
 * How to run:    build/examples/game_tick; it ends by itself. With --bench the
 *                clients send 20,000 messages a second for five seconds, and it
 *                fails when one of them waits longer than three ticks.
 * What you see:  how many were answered, and the longest wait. (A tick costs
 * two system calls a session; what is too much comes first in the next one.) */
#include "pomelo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TICK_US = 1000000 / 60, TICK_BUDGET_US = 1000, TICK_CLIENTS = 10 };

typedef struct bots {
    uint16_t port;
    unsigned per_ms, ms_left; /* of sending */
    unsigned sent, answered;
    uint64_t longest_us;
    atomic_bool done;
} bots;

static uint64_t tick_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void tick_sleep_until(uint64_t us)
{
    struct timespec at = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* ---- The clients: a thread with a loop of its own ----------------------- */

/* `body` is the time at which it was asked: the handler sends it back. */
static void bots_heard(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    bots *self = ctx;
    uint64_t us;
    (void)client;
    if (err || body.data.len != sizeof us)
        return;
    memcpy(&us, body.data.data, sizeof us);
    us = tick_now_us() - us;
    self->answered++;
    self->longest_us = us > self->longest_us ? us : self->longest_us;
}

/* A millisecond's worth. A client that is not connected yet sends nothing. */
static void bots_send(bots *self, pm_client **clients)
{
    for (unsigned i = 0; i < self->per_ms; i++) {
        uint64_t now_us = tick_now_us();
        if (pm_client_request(clients[self->sent % TICK_CLIENTS],
                              "game.entry.echo",
                              pm_body_bytes(&now_us, sizeof now_us), bots_heard,
                              self) == PM_OK)
            self->sent++;
    }
}

static void *bots_run(void *ctx)
{
    bots *self = ctx;
    pm_client *clients[TICK_CLIENTS] = {NULL};
    pm_client_opts opts = pm_client_opts_default();
    uint64_t now_us = tick_now_us(), give_up_us = now_us + 30000000;
    pm_err err = pm_loop_new(&opts.loop, NULL);
    opts.host = "127.0.0.1";
    opts.port = self->port;
    for (int i = 0; i < TICK_CLIENTS && err == PM_OK; i++)
        err = pm_client_new(&clients[i], &opts);
    while (err == PM_OK && now_us < give_up_us &&
           (self->ms_left || self->answered < self->sent)) {
        if (self->ms_left && self->ms_left--)
            bots_send(self, clients);
        pm_loop_poll(opts.loop, 0);
        tick_sleep_until(now_us += 1000);
    }
    for (int i = 0; i < TICK_CLIENTS; i++)
        pm_client_free(clients[i]);
    pm_loop_free(opts.loop);
    atomic_store(&self->done, true);
    return NULL;
}

/* ---- The game ----------------------------------------------------------- */

static void tick_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static pm_err tick_start(pm_loop *loop, pm_app **app)
{
    pm_server server = {.id = "game-1", .type = "game", .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    err = pm_app_new(app, &opts);
    if (err == PM_OK)
        err = pm_app_handler(*app, "game.entry.echo", tick_echo, NULL);
    return err ? err : pm_app_start(*app);
}

int main(int argc, char **argv)
{
    bool bench = argc == 2 && !strcmp(argv[1], "--bench");
    bots all = {.per_ms = bench ? 20 : 1, .ms_left = bench ? 5000 : 500};
    uint64_t now_us = tick_now_us();
    pm_loop *loop = NULL;
    pm_app *app = NULL;
    pthread_t thread;
    if (pm_loop_new(&loop, NULL) == PM_OK && tick_start(loop, &app) == PM_OK) {
        all.port = pm_app_client_port(app);
        if (pthread_create(&thread, NULL, bots_run, &all) == 0) {
            while (!atomic_load(&all.done)) {
                pm_loop_poll(loop, TICK_BUDGET_US);
                /* Here a game would move its world. */
                tick_sleep_until(now_us += TICK_US);
            }
            pthread_join(thread, NULL);
        }
    }
    pm_app_free(app);
    pm_loop_free(loop);
    printf("%u of %u messages answered, the longest wait was %.1f ticks\n",
           all.answered, all.sent, (double)all.longest_us / TICK_US);
    return !all.sent || all.answered < all.sent ||
           (bench && all.longest_us > 3 * TICK_US);
}
