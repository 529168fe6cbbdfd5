/* SPDX-License-Identifier: MIT */
/* pomelo_master_spawn.c -- the master has servers started, and started again.
 *
 * The library starts no process: the host's callbacks do. What is here is when:
 * at the beginning, when a server with auto-restart is gone, when a console
 * says so. A server that does not come up is tried again with longer and longer
 * pauses. And how one is stopped, also when it can not be told. Start at
 * pmi_master_lost. */
#include "pomelo_master_internal.h"

#include <cjson/cJSON.h>

#define SPAWN_PAUSE_MS 250
#define SPAWN_PAUSE_DOUBLINGS 7 /* 32 s */
#define SPAWN_GOOD_MS 60000     /* it ran so long: begin with a short pause */
#define SPAWN_TRIES_GENTLE 5    /* 8 s for an old process to end by itself */
#define SPAWN_COMING_MS 500     /* to register, beyond the pause of its tries */

static const pm_server *spawn_entry(const pmi_master_server *server)
{
    return pm_server_find(server->master->app, server->id);
}

/* "auto-restart": "true" and the like, in the entry's own text. */
static bool spawn_flag(const pmi_master_server *server, const char *name)
{
    const pm_server *entry = spawn_entry(server);
    cJSON *tree = NULL;
    bool set;
    if (!entry || !entry->raw ||
        pmi_json_parse(server->master->env, pm_text(entry->raw),
                       PMI_JSON_DEPTH_MAX, &tree, NULL))
        return false;
    set = pmi_admin_flag(tree, name);
    cJSON_Delete(tree);
    return set;
}

static uint64_t spawn_now(const pmi_master_server *server)
{
    return pmi_loop_now_us(pmi_master_loop(server->master));
}

pm_err pmi_master_spawn(pmi_master_server *server)
{
    pmi_master *master = server->master;
    const pm_server *entry = spawn_entry(server);
    pm_err err;
    if (!master->opts->spawn)
        return PM_ENOTSUP;
    if (!entry)
        return PM_ENOTFOUND;
    server->stopped = false;
    server->spawned_us = spawn_now(server);
    err = master->opts->spawn(master->app, entry, master->opts->ctx);
    server->starting |= err == PM_OK;
    if (err == PM_OK)
        pmi_count(master->app, PMI_COUNT_MASTER_SPAWNED);
    else
        PMI_LOG(master->env, PM_LOG_WARN, "master",
                "%s could not be started: %s", server->id, pm_strerror(err));
    return err;
}

bool pmi_master_terminate(pmi_master_server *server)
{
    pmi_master *master = server->master;
    const pm_server *entry = spawn_entry(server);
    return master->opts->terminate && entry &&
           master->opts->terminate(master->app, entry, server->pid,
                                   master->opts->ctx) == PM_OK;
}

static void spawn_stop_unlinked(pmi_master_server *server, bool last)
{
    pmi_master_terminate(server);
    if (!last && !server->starting)
        pmi_master_gone(server); /* no process is left whose end would tell */
}

void pmi_master_stop_server(pmi_master_server *server, bool last)
{
    server->stopped = true;
    server->restarting = false;
    pmi_timer_clear(&server->respawn);
    if (server->link)
        pmi_master_ask(server, "__console__", pm_text("{\"signal\":\"stop\"}"),
                       NULL, NULL);
    else if (last || !pmi_timer_is_set(&server->grace))
        spawn_stop_unlinked(server, last);
}

void pmi_master_pin(pmi_master_server *server)
{
    pmi_master *master = server->master;
    const pm_server *entry = spawn_entry(server);
    if (entry && entry->cpu && master->opts->pin)
        master->opts->pin(master->app, entry, server->pid, entry->cpu - 1,
                          master->opts->ctx);
}

/* ---- Again ------------------------------------------------------------- */

static void spawn_again_later(pmi_master_server *server);

/* A process of its own that has not ended yet may be about to. */
static bool spawn_in_the_way(const pmi_master_server *server, pm_err err)
{
    return err == PM_EADDR ||
           (err == PM_EEXIST && server->tries >= SPAWN_TRIES_GENTLE);
}

static void spawn_again(pmi_timer *timer)
{
    pmi_master_server *server = PMI_OUTER(timer, pmi_master_server, respawn);
    pm_err err;
    if (server->link)
        return; /* it has come by itself */
    err = pmi_master_spawn(server);
    if (err == PM_OK) {
        pmi_count(server->master->app, PMI_COUNT_MASTER_RESPAWNED);
        return; /* whether it comes is told by its registering or its end */
    }
    if (spawn_in_the_way(server, err) && spawn_flag(server, "restart-force"))
        pmi_master_terminate(server);
    spawn_again_later(server);
}

static void spawn_again_later(pmi_master_server *server)
{
    uint64_t lived = spawn_now(server) - server->spawned_us;
    uint64_t ms;
    if (lived > SPAWN_GOOD_MS * UINT64_C(1000))
        server->tries = 0;
    ms = (uint64_t)SPAWN_PAUSE_MS
         << pmi_min(server->tries, SPAWN_PAUSE_DOUBLINGS);
    server->tries++;
    pmi_timer_set(pmi_master_loop(server->master), &server->respawn, ms * 1000,
                  spawn_again);
}

void pmi_master_lost(pmi_master_server *server)
{
    if (server->link || server->master->closed ||
        !server->master->opts->spawn || pmi_timer_is_set(&server->respawn))
        return;
    if (!server->restarting &&
        (server->stopped || !(spawn_flag(server, "auto-restart") ||
                              spawn_flag(server, "restart-force"))))
        return;
    spawn_again_later(server);
}

pm_err pm_master_exited(pm_app *app, const char *server_id)
{
    pmi_master *master = pmi_app_master(app);
    pmi_master_server *server;
    if (!master)
        return PM_ESTATE;
    server = pmi_master_find(master, server_id);
    if (!server)
        return PM_ENOTFOUND;
    server->starting = false;
    /* With a link it is not this process that has ended, or its link's end is
     * about to be seen: then that decides. The same while its grace runs. */
    if (!server->link && !pmi_timer_is_set(&server->grace) && !master->closed)
        pmi_master_gone(server);
    return PM_OK;
}

/* ---- At the beginning -------------------------------------------------- */

static bool spawn_wanted(const pmi_master *master, const pm_server *server)
{
    const char *start = master->opts->start;
    return start && (!strcmp(start, "all") || !strcmp(start, server->type) ||
                     !strcmp(start, server->id));
}

static void spawn_first(pmi_master_server *server)
{
    pm_err err = pmi_master_spawn(server);
    /* Something listens there: it may be this server, which will come. */
    if (err && err != PM_EADDR && err != PM_EEXIST)
        pmi_master_lost(server);
}

static void spawn_unseen(pmi_timer *timer)
{
    pmi_master_server *server = PMI_OUTER(timer, pmi_master_server, respawn);
    if (!server->link && !pmi_timer_is_set(&server->grace))
        spawn_first(server);
}

void pmi_master_start_table(pmi_master *master)
{
    uint64_t coming_ms = master->opts->reconnect_ms_max + SPAWN_COMING_MS;
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        const pm_server *entry = spawn_entry(server);
        if (!entry || server->link || !spawn_wanted(master, entry))
            continue;
        /* Without a port nothing shows whether a master before us has started
         * it: if so it comes in this time. */
        if (master->opts->spawn && !entry->port && !entry->client_port)
            pmi_timer_set(pmi_master_loop(master), &server->respawn,
                          coming_ms * 1000, spawn_unseen);
        else
            spawn_first(server);
        if (master->closed)
            break;
    }
    pmi_map_end(&walk);
}

/* ---- At the end -------------------------------------------------------- */

void pmi_master_each_own(pmi_master *master, pmi_master_own_cb each, void *ctx)
{
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        const pm_server *entry = spawn_entry(server);
        if (entry && server->link && spawn_wanted(master, entry))
            each(server, entry, ctx);
    }
    pmi_map_end(&walk);
}
