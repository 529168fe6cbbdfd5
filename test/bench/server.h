/* SPDX-License-Identifier: MIT */
/* test/bench/server.h -- what the files of the measured program share. */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "pomelo.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct server {
    pm_app_opts app;
    const char *ids; /* NULL: every server in this process */
    uint16_t port_base;
    uint32_t extra_handlers, extra_channels, spin_us;
    bool counters;
    uint64_t notes; /* chat.chatHandler.note */
    uint64_t opened, bound, requests;
    uint64_t closed[PM_CLOSE_COUNT];
} server;

/* The body as a tree; NULL: the request has been ended. */
cJSON *server_body(pm_request *req);
/* The echo of both servers: {p} -> {p}, parsed and printed. */
void server_echo(pm_request *req, void *ctx);
/* The body's bytes, untouched. */
void server_echo_raw(pm_request *req, void *ctx);

pm_err server_add_entry(pm_app *app, server *self); /* gate, connector */
pm_err server_add_chat(pm_app *app, server *self);

#endif
