/* SPDX-License-Identifier: MIT */
/* test/master_town.h -- a master and three servers in one thread, each knowing
 * nobody but itself: who else there is they learn from the master. */
#ifndef TEST_MASTER_TOWN_H
#define TEST_MASTER_TOWN_H

#include "admin_stub.h"

enum { TOWN_MASTER, TOWN_GATE, TOWN_CONNECTOR, TOWN_CHAT, TOWN_APPS };

typedef struct town town;
typedef struct town_app {
    town *of;
    pm_app *app;
    int added, removed, up, down, all_started, crons_added, crons_removed,
        crons_run;
    char last_removed[64];
} town_app;

typedef struct town_opts {
    bool no_tokens, auto_restart;
    const char *start;
    bool callbacks; /* spawn, terminate, pin */
    const pm_admin_module *module;
    pm_log_cb log; /* gets module_ctx */
} town_opts;

struct town {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    town_app at[TOWN_APPS];
    town_opts opts;
    int stops[TOWN_APPS], at_once[TOWN_APPS];
    /* What the master has asked its host for. */
    int spawns, terminates, pins, pin_core;
    char spawned[512];
    pm_err spawn_answer, terminate_answer;
    void *module_ctx;
};

static const pm_server town_servers[TOWN_APPS] = {
    {.id = "master-server-1", .type = "master", .port = 3005},
    {.id = "gate-1",
     .type = "gate",
     .port = 4050,
     .client_port = 3014,
     .frontend = true},
    {.id = "connector-1",
     .type = "connector",
     .port = 4060,
     .client_port = 3050,
     .frontend = true,
     .raw = "{\"id\":\"connector-1\",\"port\":4060,\"clientPort\":3050,"
            "\"frontend\":true,\"zone\":7}"},
    {.id = "chat-1",
     .type = "chat",
     .port = 4070,
     .cpu = 2,
     .raw = "{\"id\":\"chat-1\",\"port\":4070,\"auto-restart\":\"true\"}"},
};

static const pm_admin_token town_tokens[] = {
    {"gate", "tok-gate"}, {"connector", "tok-connector"}, {"chat", "tok-chat"}};
static const pm_admin_user town_users[] = {{"admin", "admin", 1},
                                           {"guest", "guest", 2}};

static inline void town_added(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    ((town_app *)ctx)->added++;
}

static inline void town_removed(pm_app *app, const char *id, void *ctx)
{
    town_app *self = ctx;
    (void)app;
    self->removed++;
    snprintf(self->last_removed, sizeof self->last_removed, "%s", id);
}

static inline void town_up(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    ((town_app *)ctx)->up++;
}

static inline void town_down(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)server;
    ((town_app *)ctx)->down++;
}

static inline void town_all_started(pm_app *app, void *ctx)
{
    (void)app;
    ((town_app *)ctx)->all_started++;
}

static inline void town_cron_added(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    (void)cron;
    ((town_app *)ctx)->crons_added++;
}

static inline void town_cron_removed(pm_app *app, const pm_cron *cron,
                                     void *ctx)
{
    (void)app;
    (void)cron;
    ((town_app *)ctx)->crons_removed++;
}

static inline void town_cron(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    (void)cron;
    ((town_app *)ctx)->crons_run++;
}

static inline int town_index(town *t, const pm_app *app)
{
    for (int i = 0; i < TOWN_APPS; i++)
        if (t->at[i].app == app)
            return i;
    fail_msg("an app that is not of this town");
    return 0;
}

/* As a process would: it is gone a turn later. */
static inline void town_stop(pm_app *app, bool at_once, void *ctx)
{
    town *t = ctx;
    int i = town_index(t, app);
    t->stops[i]++;
    t->at_once[i] += at_once;
    pm_app_free(app);
    t->at[i].app = NULL;
}

static inline pm_err town_spawn(pm_app *app, const pm_server *server, void *ctx)
{
    town *t = ctx;
    size_t len = strlen(t->spawned);
    (void)app;
    t->spawns++;
    snprintf(t->spawned + len, sizeof t->spawned - len, "%s ", server->id);
    return t->spawn_answer;
}

static inline pm_err town_terminate(pm_app *app, const pm_server *server,
                                    int64_t pid, void *ctx)
{
    town *t = ctx;
    (void)app;
    (void)server;
    (void)pid;
    t->terminates++;
    return t->terminate_answer;
}

static inline void town_pin(pm_app *app, const pm_server *server, int64_t pid,
                            int core, void *ctx)
{
    town *t = ctx;
    (void)app;
    (void)server;
    (void)pid;
    t->pins++;
    t->pin_core = core;
}

static inline void town_begin(town *t, uint64_t seed)
{
    pm_loop_opts opts;
    memset(t, 0, sizeof *t);
    t->world.seed = seed;
    opts = test_world_opts(&t->world, &t->heap);
    assert_ok(pm_loop_new(&t->loop, &opts));
}

static inline void town_run(town *t, uint64_t ms)
{
    assert_true(test_world_run(&t->world, t->loop, ms * 1000));
}

static inline void town_master_opts(town *t, int i, pm_master_opts *opts)
{
    opts->port = 3005;
    opts->stop = town_stop;
    opts->ctx = t;
    if (i != TOWN_MASTER) {
        opts->token = town_tokens[i - 1].token;
        return;
    }
    if (!t->opts.no_tokens) {
        opts->tokens = town_tokens;
        opts->tokens_count = 3;
    }
    opts->users = town_users;
    opts->users_count = 2;
    opts->start = t->opts.start;
    if (t->opts.callbacks) {
        opts->spawn = town_spawn;
        opts->terminate = town_terminate;
        opts->pin = town_pin;
    }
}

/* The master knows the table, the others know themselves. */
static inline pm_err town_start(town *t, int i)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    town_app *self = &t->at[i];
    pm_err err;
    opts.loop = t->loop;
    opts.servers = i == TOWN_MASTER ? town_servers : &town_servers[i];
    opts.servers_count = i == TOWN_MASTER ? TOWN_APPS : 1;
    opts.server_id = town_servers[i].id;
    opts.log = t->opts.log;
    opts.log_ctx = t->module_ctx;
    town_master_opts(t, i, &opts.master);
    err = pm_app_new(&self->app, &opts);
    if (err)
        return err;
    self->of = t;
    events.server_added = town_added;
    events.server_removed = town_removed;
    events.server_up = town_up;
    events.server_down = town_down;
    events.all_started = town_all_started;
    events.cron_added = town_cron_added;
    events.cron_removed = town_cron_removed;
    err = pm_app_listen(self->app, &events, self);
    if (err == PM_OK)
        err = pm_app_cron(self->app, "chat.a.b", town_cron, self);
    if (err == PM_OK && t->opts.module)
        err = pm_app_admin_module(self->app, t->opts.module, t->module_ctx);
    return err ? err : pm_app_start(self->app);
}

static inline void town_start_all(town *t)
{
    for (int i = 0; i < TOWN_APPS; i++)
        assert_ok(town_start(t, i));
    town_run(t, 500);
}

static inline void town_kill(town *t, int i)
{
    pm_app_free(t->at[i].app);
    t->at[i].app = NULL;
}

static inline void town_end(town *t)
{
    for (int i = 0; i < TOWN_APPS; i++)
        town_kill(t, i);
    assert_ok(pm_loop_free(t->loop));
    assert_heap_empty(&t->heap);
}

static inline bool town_knows(const town *t, int who, const char *id)
{
    return pm_server_find(t->at[who].app, id) != NULL;
}

/* Everybody knows and reaches everybody. */
static inline bool town_converged(const town *t)
{
    for (int i = TOWN_GATE; i < TOWN_APPS; i++)
        for (int k = TOWN_GATE; k < TOWN_APPS; k++)
            if (!pm_server_is_up(t->at[i].app, town_servers[k].id))
                return false;
    return true;
}

static inline pm_master_counts town_counts(const town *t)
{
    pm_master_counts counts = {.size = sizeof counts};
    assert_ok(pm_master_counts_get(t->at[TOWN_MASTER].app, &counts));
    return counts;
}

/* A stub that says it is chat-1 and means it. */
#define TOWN_CHAT_SAYS(n)                                                      \
    "{\"id\":\"chat-1\",\"type\":\"monitor\",\"serverType\":\"chat\","         \
    "\"pid\":" n                                                               \
    ",\"info\":{\"id\":\"chat-1\",\"serverType\":\"chat\",\"host\":"           \
    "\"127.0.0.1\",\"port\":4070,\"incarnation\":\"i" n                        \
    "\"},\"token\":\"tok-chat\"}"

#endif
