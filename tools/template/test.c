/* SPDX-License-Identifier: MIT */
/* test.c -- `make test`: every server of the table on one loop, through
 * memory, without a port; two users enter a room, and one hears the other. */
#include "game.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define APPS_MAX 64
#define SECONDS_MAX 10

typedef struct test {
    pm_loop *loop;
    pm_app *apps[APPS_MAX];
    size_t count;
    int steps; /* what has happened as it should */
    bool over;
} test;

typedef struct user {
    test *all;
    const char *enter; /* the body of its request */
    pm_client *client;
    bool talks;
} user;

static void said(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    user *self = ctx;
    (void)client;
    (void)body;
    if (err)
        self->all->over = true;
}

static void say(user *self)
{
    if (pm_client_request(
            self->client, "chat.chatHandler.send",
            pm_body_text("{\"content\":\"hello\",\"target\":\"*\"}"), said,
            self))
        self->all->over = true;
}

static void entered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    user *self = ctx;
    (void)client;
    if (err || body.data.len < 9 ||
        memcmp(body.data.data, "{\"users\"", 8) != 0)
        self->all->over = true;
    else
        self->all->steps++;
    if (self->talks)
        say(self);
}

static void connected(pm_client *client, const struct cJSON *from, void *ctx)
{
    user *self = ctx;
    (void)from;
    pm_client_request(client, "connector.entryHandler.enter",
                      pm_body_text(self->enter), entered, self);
}

static void pushed(pm_client *client, const char *route, pm_body body,
                   void *ctx)
{
    static const char want[] =
        "{\"msg\":\"hello\",\"from\":\"bob\",\"target\":\"*\"}";
    user *self = ctx;
    (void)client;
    if (!strcmp(route, "onChat") && body.data.len == sizeof want - 1 &&
        !memcmp(body.data.data, want, body.data.len))
        self->all->steps++;
}

static bool join(user *self)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = self->all->loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    for (size_t i = 0; i < self->all->count; i++)
        if (!strcmp(pm_app_server(self->all->apps[i])->type, "connector"))
            opts.port = pm_app_client_port(self->all->apps[i]);
    opts.events.connected = connected;
    opts.events.pushed = pushed;
    opts.ctx = self;
    return pm_client_new(&self->client, &opts) == PM_OK;
}

static bool turn_until(test *self, int steps)
{
    time_t end = time(NULL) + SECONDS_MAX;
    while (!self->over && self->steps < steps && time(NULL) < end)
        pm_loop_poll(self->loop, 0);
    return self->steps >= steps;
}

/* Does the connector that our users come to see the chat server? */
static bool linked(test *self)
{
    time_t end = time(NULL) + SECONDS_MAX;
    for (size_t i = 0; i < self->count; i++) {
        const pm_server *chat = pm_server_at(self->apps[i], "chat", 0);
        while (chat && !pm_server_is_up(self->apps[i], chat->id) &&
               pm_app_server(self->apps[i])->port && time(NULL) < end)
            pm_loop_poll(self->loop, 0);
    }
    return time(NULL) < end;
}

static bool start(test *self, const pm_config *config)
{
    size_t count;
    const pm_server *servers = pm_config_servers(config, &count);
    pm_app_opts opts = game_app_opts();
    opts.loop = self->loop;
    opts.servers = servers;
    opts.servers_count = count;
    opts.connector.server_protos = pm_config_file(config, "serverProtos.json");
    opts.connector.client_protos = pm_config_file(config, "clientProtos.json");
    for (size_t i = 0; i < count && i < APPS_MAX; i++) {
        opts.server_id = servers[i].id;
        if (pm_app_new(&self->apps[i], &opts))
            return false;
        self->count++;
        if (game_configure(self->apps[i], NULL) || pm_app_start(self->apps[i]))
            return false;
    }
    return true;
}

int main(void)
{
    test self = {0};
    user alice = {&self, "{\"username\":\"alice\",\"rid\":\"lobby\"}", NULL,
                  false};
    user bob = {&self, "{\"username\":\"bob\",\"rid\":\"lobby\"}", NULL, true};
    pm_loop_opts opts = pm_loop_opts_default();
    pm_config *config = NULL;
    char why[256] = "";
    bool good;
    opts.memory_only = true;
    if (pm_config_load(&config, "config", NULL, why, sizeof why) ||
        pm_loop_new(&self.loop, &opts)) {
        fprintf(stderr, "test: %s\n", why);
        return 1;
    }
    /* Both have entered, and both have heard bob. */
    good = start(&self, config) && linked(&self) && join(&alice) &&
           turn_until(&self, 1) && join(&bob) && turn_until(&self, 4);
    printf("test: %s\n", good ? "passed" : "failed");
    pm_client_free(alice.client);
    pm_client_free(bob.client);
    for (size_t i = 0; i < self.count; i++)
        pm_app_free(self.apps[i]);
    pm_loop_free(self.loop);
    pm_config_free(config);
    return good ? 0 : 1;
}
