/* SPDX-License-Identifier: MIT */
/* demo.h -- one server and one client of it on one loop, through memory: the
 * stage of the examples that show something else. Start reading at demo_run. */
#ifndef EXAMPLES_DEMO_H
#define EXAMPLES_DEMO_H

#include "pomelo.h"

#include <stdio.h>

/* First member of an example's own struct, which is the ctx everywhere. */
typedef struct demo {
    pm_loop *loop;
    int right; /* answers that were as they should be */
} demo;

static inline void demo_lost(pm_client *client, pm_close_reason reason,
                             int code, void *ctx)
{
    demo *self = ctx;
    (void)client;
    printf("lost: %s (%d)\n", pm_close_text(reason), code);
    pm_loop_break(self->loop);
}

/* Starts a server of `type` after configure(app, self) has registered what it
 * has, connects a client, which calls connected, and runs until somebody calls
 * pm_loop_break(self->loop). */
static inline pm_err demo_run(
    demo *self, const char *type, pm_configure_cb configure,
    void (*connected)(pm_client *client, const struct cJSON *user, void *ctx))
{
    pm_server server = {.id = "demo-1", .type = type, .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_client_opts client_opts = pm_client_opts_default();
    pm_app *app = NULL;
    pm_client *client = NULL;
    pm_err err = pm_loop_new(&self->loop, NULL);
    if (err)
        return err;
    opts.loop = client_opts.loop = self->loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = client_opts.host = "127.0.0.1";
    err = pm_app_new(&app, &opts);
    if (err == PM_OK)
        err = configure(app, self);
    if (err == PM_OK)
        err = pm_app_start(app);
    if (err == PM_OK) {
        client_opts.port = pm_app_client_port(app);
        client_opts.transport = PM_TRANSPORT_MEMORY;
        client_opts.events.connected = connected;
        client_opts.events.disconnected = demo_lost;
        client_opts.ctx = self;
        err = pm_client_new(&client, &client_opts);
    }
    if (err == PM_OK)
        err = pm_loop_run(self->loop);
    pm_client_free(client);
    pm_app_free(app);
    pm_loop_free(self->loop);
    return err;
}

#endif
