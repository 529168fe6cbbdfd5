/* SPDX-License-Identifier: MIT */
/* embed_loop.c -- a game server inside a program that has its own libevent
 * loop, as an existing game would have.
 *
 * What it shows: pm_loop_opts.base and .priority. The host makes the
 *                event_base, dispatches it and frees it; its own timer goes
 *                before all that we do, and answers what has been asked.
 * How to run:    build/examples/embed_loop; it ends by itself.
 * What you see:  questions by TCP and answers, between ticks of the host; then
 *                the game server is gone and the host's loop lives on. */
#include "pomelo.h"

#include <event2/event.h>
#include <stdio.h>

enum { HOST_FIRST, HOST_SECOND, HOST_PRIORITIES };
enum { HOST_TICK_US = 10000, HOST_TICKS_MAX = 1000, HOST_ANSWERS = 5 };

typedef struct host {
    struct event_base *base;
    struct event *timer;
    pm_request *asked; /* waits for the next tick */
    unsigned ticks, answers;
} host;

static void host_tick(evutil_socket_t fd, short what, void *ctx)
{
    host *self = ctx;
    char text[64];
    (void)fd;
    (void)what;
    snprintf(text, sizeof text, "{\"code\":200,\"tick\":%u}", ++self->ticks);
    if (self->asked)
        pm_reply_text(self->asked, text);
    self->asked = NULL;
}

/* ---- The game server ---------------------------------------------------- */

/* The client has gone, or the app ends: nobody waits for the tick. */
static void host_cancelled(pm_request *req, pm_err why, void *ctx)
{
    host *self = ctx;
    (void)why;
    self->asked = NULL;
    pm_request_drop(req);
}

static void host_entry(pm_request *req, void *ctx)
{
    host *self = ctx;
    self->asked = req;
    pm_request_on_cancel(req, host_cancelled, self);
}

static pm_err host_start(host *self, pm_loop *loop, pm_app **app)
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
        err = pm_app_handler(*app, "game.entry.ask", host_entry, self);
    return err ? err : pm_app_start(*app);
}

/* ---- A client of it ----------------------------------------------------- */

static void host_ask(pm_client *client, host *self);

static void host_answered(pm_client *client, pm_err err, pm_body body,
                          void *ctx)
{
    host *self = ctx;
    printf("%s %.*s\n", pm_err_name(err), (int)body.data.len,
           (const char *)body.data.data);
    self->answers += err == PM_OK;
    if (err == PM_OK && self->answers < HOST_ANSWERS)
        host_ask(client, self);
    else
        event_base_loopbreak(self->base);
}

static void host_ask(pm_client *client, host *self)
{
    if (pm_client_request(client, "game.entry.ask", pm_body_text("{}"),
                          host_answered, self))
        event_base_loopbreak(self->base);
}

static void host_connected(pm_client *client, const struct cJSON *user,
                           void *ctx)
{
    (void)user;
    host_ask(client, ctx);
}

/* One life of a game server on the host's loop: true when it leaves nothing. */
static bool host_play(host *self)
{
    pm_loop_opts opts = pm_loop_opts_default();
    pm_client_opts client_opts = pm_client_opts_default();
    pm_loop *loop = NULL;
    pm_client *client = NULL;
    pm_app *app = NULL;
    opts.base = self->base;
    opts.priority = HOST_SECOND;
    if (pm_loop_new(&loop, &opts))
        return false;
    if (host_start(self, loop, &app) == PM_OK) {
        client_opts.loop = loop;
        client_opts.host = "127.0.0.1";
        client_opts.port = pm_app_client_port(app);
        client_opts.events.connected = host_connected;
        client_opts.ctx = self;
        if (pm_client_new(&client, &client_opts) == PM_OK)
            event_base_dispatch(self->base);
    }
    pm_client_free(client);
    pm_app_free(app);
    return pm_loop_free(loop) == PM_OK;
}

int main(void)
{
    host self = {.base = event_base_new()};
    struct timeval every = {0, HOST_TICK_US};
    bool good = false;
    if (!self.base)
        return 1;
    if (event_base_priority_init(self.base, HOST_PRIORITIES) == 0)
        self.timer = event_new(self.base, -1, EV_PERSIST, host_tick, &self);
    if (self.timer && event_priority_set(self.timer, HOST_FIRST) == 0 &&
        event_add(self.timer, &every) == 0)
        good = host_play(&self) && self.answers == HOST_ANSWERS;
    /* What is left on the loop is the host's timer alone, and it works. */
    unsigned before = self.ticks;
    while (good && self.ticks == before)
        good = event_base_loop(self.base, EVLOOP_ONCE) == 0;
    printf("the host's loop lives on: tick %u\n", self.ticks);
    if (self.timer)
        event_free(self.timer);
    event_base_free(self.base);
    return good ? 0 : 1;
}
