/* SPDX-License-Identifier: MIT */
/* load.c -- users of the project that `pomelo init` makes, who say something
 * without a pause, each in a room of their own.
 *
 *   load GATE_PORT USERS SECONDS
 *
 * Writes "ready" when all are in their rooms, and at the end one line:
 * "asked N, answered N, failed N, unanswered N, longest N ms". Failed is what
 * was answered with an error; unanswered, what a connection's end has left.
 * 0: nothing failed. */
#include <pomelo.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { USERS_MAX = 64 };

typedef struct load load;

typedef struct user {
    load *of;
    pm_client *client;
    char name[16];
    unsigned port; /* of the connector; 0: the gate has not answered */
    bool ready, lost;
    long long asked_ms;
} user;

struct load {
    pm_loop *loop;
    user users[USERS_MAX];
    int count;
    bool asking;
    unsigned asked, answered, failed, unanswered;
    long long longest_ms;
};

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void load_turn(load *self)
{
    struct timespec pause = {.tv_nsec = 500000};
    pm_loop_poll(self->loop, 0);
    nanosleep(&pause, NULL);
}

static void user_say(user *u);

static void user_said(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    static const char good[] = "{\"code\":200}";
    user *u = ctx;
    long long took = now_ms() - u->asked_ms;
    (void)client;
    if (err) {
        u->of->unanswered++;
        return;
    }
    u->of->answered++;
    if (body.data.len != sizeof good - 1 ||
        memcmp(body.data.data, good, sizeof good - 1) != 0)
        u->of->failed++;
    if (took > u->of->longest_ms)
        u->of->longest_ms = took;
    user_say(u);
}

static void user_say(user *u)
{
    if (!u->of->asking || u->lost)
        return;
    u->asked_ms = now_ms();
    u->of->asked++;
    if (pm_client_request(u->client, "chat.chatHandler.send",
                          pm_body_text("{\"content\":\"x\",\"target\":\"*\"}"),
                          user_said, u))
        u->of->asked--;
}

static void user_entered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    user *u = ctx;
    (void)client;
    u->ready = err == PM_OK && body.data.len > 8 &&
               memcmp(body.data.data, "{\"users\"", 8) == 0;
}

static void user_told(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    user *u = ctx;
    cJSON *tree = NULL;
    const cJSON *port;
    (void)client;
    if (err == PM_OK && pm_json_tree(body.data, &tree) == PM_OK) {
        port = cJSON_GetObjectItem(tree, "port");
        u->port = cJSON_IsNumber(port) ? (unsigned)port->valuedouble : 0;
    }
    cJSON_Delete(tree);
}

static void user_connected(pm_client *client, const struct cJSON *data,
                           void *ctx)
{
    user *u = ctx;
    char body[64];
    (void)data;
    if (u->port)
        snprintf(body, sizeof body, "{\"username\":\"%s\",\"rid\":\"r-%s\"}",
                 u->name, u->name);
    else
        snprintf(body, sizeof body, "{\"uid\":\"%s\"}", u->name);
    pm_client_request(client,
                      u->port ? "connector.entryHandler.enter"
                              : "gate.gateHandler.queryEntry",
                      pm_body_text(body), u->port ? user_entered : user_told,
                      u);
}

static void user_lost(pm_client *client, pm_close_reason reason, int code,
                      void *ctx)
{
    (void)client;
    (void)reason;
    (void)code;
    ((user *)ctx)->lost = true;
}

static bool user_connect(user *u, unsigned port)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = u->of->loop;
    opts.port = (uint16_t)port;
    opts.events.connected = user_connected;
    opts.events.disconnected = user_lost;
    opts.ctx = u;
    pm_client_free(u->client);
    u->client = NULL;
    u->lost = false;
    return pm_client_new(&u->client, &opts) == PM_OK;
}

/* Gate, connector, room. */
static bool user_come(user *u, unsigned gate)
{
    long long end = now_ms() + 5000;
    if (!user_connect(u, gate))
        return false;
    while (!u->port && !u->lost && now_ms() < end)
        load_turn(u->of);
    if (!u->port || !user_connect(u, u->port))
        return false;
    while (!u->ready && !u->lost && now_ms() < end)
        load_turn(u->of);
    return u->ready;
}

static void load_run(load *self, long long ms)
{
    long long end = now_ms() + ms;
    self->asking = true;
    for (int i = 0; i < self->count; i++)
        user_say(&self->users[i]);
    while (now_ms() < end)
        load_turn(self);
    self->asking = false;
    for (end += 6000;
         self->answered + self->unanswered < self->asked && now_ms() < end;)
        load_turn(self);
}

int main(int argc, char **argv)
{
    load self = {0};
    unsigned left;
    if (argc != 4 || pm_loop_new(&self.loop, NULL))
        return 2;
    self.count = atoi(argv[2]);
    if (self.count < 1 || self.count > USERS_MAX)
        return 2;
    for (int i = 0; i < self.count; i++) {
        user *u = &self.users[i];
        u->of = &self;
        snprintf(u->name, sizeof u->name, "load%d", i);
        if (!user_come(u, (unsigned)atoi(argv[1]))) {
            fprintf(stderr, "load: %s can not enter\n", u->name);
            return 2;
        }
    }
    puts("ready");
    fflush(stdout);
    load_run(&self, atoll(argv[3]) * 1000);
    left = self.asked - self.answered;
    for (int i = 0; i < self.count; i++)
        pm_client_free(self.users[i].client);
    pm_loop_free(self.loop);
    printf("asked %u, answered %u, failed %u, unanswered %u, longest %lld ms\n",
           self.asked, self.answered, self.failed, left, self.longest_ms);
    return self.failed ? 1 : 0;
}
