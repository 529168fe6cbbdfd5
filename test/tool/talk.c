/* SPDX-License-Identifier: MIT */
/* talk.c -- a user of the project that `pomelo init` makes: asks the gate,
 * enters a room, says a word and waits until it hears it.
 *
 *   talk GATE_PORT NAME [SECONDS]     0: heard; keeps trying for SECONDS */
#include <pomelo.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct talk {
    pm_loop *loop;
    pm_client *client;
    const char *name;
    unsigned port; /* of the connector */
    bool heard, over;
} talk;

static void talk_lost(pm_client *client, pm_close_reason reason, int code,
                      void *ctx)
{
    talk *self = ctx;
    (void)client;
    (void)reason;
    (void)code;
    self->over = true;
}

static void talk_pushed(pm_client *client, const char *route, pm_body body,
                        void *ctx)
{
    talk *self = ctx;
    (void)client;
    (void)body;
    if (!strcmp(route, "onChat"))
        self->heard = true;
}

static void talk_said(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    talk *self = ctx;
    (void)client;
    (void)body;
    self->over |= err != PM_OK;
}

static void talk_entered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    talk *self = ctx;
    if (err || body.data.len < 8 || memcmp(body.data.data, "{\"users\"", 8) ||
        pm_client_request(
            client, "chat.chatHandler.send",
            pm_body_text("{\"content\":\"hello\",\"target\":\"*\"}"), talk_said,
            self))
        self->over = true;
}

static void talk_enter(pm_client *client, const struct cJSON *user, void *ctx)
{
    talk *self = ctx;
    char body[128];
    (void)user;
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"rid\":\"talk\"}",
             self->name);
    if (pm_client_request(client, "connector.entryHandler.enter",
                          pm_body_text(body), talk_entered, self))
        self->over = true;
}

static void talk_told(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    talk *self = ctx;
    cJSON *tree = NULL;
    const cJSON *port;
    (void)client;
    if (err == PM_OK && pm_json_tree(body.data, &tree) == PM_OK) {
        port = cJSON_GetObjectItem(tree, "port");
        self->port = cJSON_IsNumber(port) ? (unsigned)port->valuedouble : 0;
    }
    cJSON_Delete(tree);
    self->over = true;
}

static void talk_ask(pm_client *client, const struct cJSON *user, void *ctx)
{
    talk *self = ctx;
    char body[128];
    (void)user;
    snprintf(body, sizeof body, "{\"uid\":\"%s\"}", self->name);
    if (pm_client_request(client, "gate.gateHandler.queryEntry",
                          pm_body_text(body), talk_told, self))
        self->over = true;
}

static bool talk_connect(talk *self, unsigned port,
                         void (*connected)(pm_client *client,
                                           const struct cJSON *user, void *ctx))
{
    pm_client_opts opts = pm_client_opts_default();
    time_t end = time(NULL) + 5;
    struct timespec pause = {.tv_nsec = 1000000};
    opts.loop = self->loop;
    opts.port = (uint16_t)port;
    opts.events.connected = connected;
    opts.events.pushed = talk_pushed;
    opts.events.disconnected = talk_lost;
    opts.ctx = self;
    self->over = self->heard = false;
    if (pm_client_new(&self->client, &opts))
        return false;
    while (!self->over && !self->heard && time(NULL) < end) {
        pm_loop_poll(self->loop, 0);
        nanosleep(&pause, NULL);
    }
    pm_client_free(self->client);
    return true;
}

int main(int argc, char **argv)
{
    talk self = {0};
    time_t end;
    struct timespec pause = {.tv_nsec = 50000000};
    if (argc < 3 || pm_loop_new(&self.loop, NULL))
        return 2;
    self.name = argv[2];
    end = time(NULL) + (argc > 3 ? atoi(argv[3]) : 0);
    do {
        self.port = 0;
        talk_connect(&self, (unsigned)atoi(argv[1]), talk_ask);
        if (self.port)
            talk_connect(&self, self.port, talk_enter);
        if (!self.heard)
            nanosleep(&pause, NULL);
    } while (!self.heard && time(NULL) < end);
    pm_loop_free(self.loop);
    if (!self.heard)
        fprintf(stderr, "talk: %s was not heard (connector port %u)\n",
                self.name, self.port);
    return self.heard ? 0 : 1;
}
