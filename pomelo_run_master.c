/* SPDX-License-Identifier: MIT */
/* pomelo_run_master.c -- a process with a master in it: the callbacks by which
 * the library, which never starts processes, has them started.
 *
 * Stopping by a signal goes from the outside in: frontends first, so that they
 * can still ask their backends for what is in flight, then the backends, last
 * of all the master. Who does not follow within the drain time and PATIENCE_MS
 * is ended. A master that dies leaves its processes alone: traffic goes on, and
 * the next one finds them by their registering. */
#include "pomelo_run_internal.h"

#include "core/buf.h"
#include "core/json.h"

#define PATIENCE_MS 3000 /* beyond the drain time */

static uint32_t master_drain_ms(const pmi_run *run)
{
    return run->opts->drain_ms ? run->opts->drain_ms : 3000;
}

/* ---- What the library asks for ----------------------------------------- */

/* {"TYPE":[ENTRY]}: a servers.json for one who is in no file. */
static pm_err master_entry(const pmi_run *run, const pm_server *server,
                           pmi_buf *out)
{
    pmi_buf_init(out, run->env, SIZE_MAX);
    if (!server->raw)
        return PM_OK;
    for (size_t i = 0; i < run->files_servers; i++)
        if (!strcmp(run->servers[i].id, server->id))
            return PM_OK;
    pmi_buf_add_text(out, "{");
    pmi_json_add_string(out, pm_text(server->type));
    pmi_buf_add_format(out, ":[%s]}", server->raw);
    pmi_buf_add_byte(out, 0);
    return out->failed ? PM_ENOMEM : PM_OK;
}

static pm_err master_spawn(pm_app *app, const pm_server *server, void *ctx)
{
    pmi_run *run = ctx;
    pmi_buf entry;
    pm_err err;
    (void)app;
    if (run->told)
        return PM_ESTATE;
    err = master_entry(run, server, &entry);
    if (err == PM_OK)
        err = pmi_spawn_start(run->spawn, server,
                              entry.len ? (const char *)entry.data : NULL);
    pmi_buf_fini(&entry);
    if (err == PM_EADDR)
        PMI_LOG(run->env, PM_LOG_WARN, "run",
                "%s is not started: its ports are in use, so it may run "
                "already",
                server->id);
    else if (err)
        PMI_LOG(run->env, PM_LOG_ERROR, "run", "%s is not started: %s",
                server->id, pm_strerror(err));
    return err;
}

static pm_err master_terminate(pm_app *app, const pm_server *server,
                               int64_t pid, void *ctx)
{
    pmi_run *run = ctx;
    (void)app;
    return pmi_spawn_kill(run->spawn, server, pid);
}

static void master_stop_app(pm_app *app, bool at_once, void *ctx)
{
    pmi_run_stop_app(ctx, app, at_once);
}

/* ---- Options ----------------------------------------------------------- */

static const char *master_token(const pmi_run_files *files, const char *type)
{
    for (size_t i = 0; i < files->tokens_count; i++)
        if (!strcmp(files->tokens[i].type, type))
            return files->tokens[i].token;
    return NULL;
}

void pmi_run_master_opts(pmi_run *run, const pm_server *server,
                         pm_app_opts *opts)
{
    pm_master_opts *master = &opts->master;
    const pmi_run_files *files = &run->files;
    /* Who plays the whole table has nobody to be told of. */
    if (files->master.id && run->opts->ids && !master->port) {
        master->host = files->master.host;
        master->port = files->master.port;
        master->token = master_token(files, server->type);
    }
    if (!master->stop && !master->spawn && !master->terminate) {
        master->stop = master_stop_app;
        master->ctx = run;
    }
    if (master->ctx != run || strcmp(server->type, "master") != 0)
        return;
    master->tokens = files->tokens;
    master->tokens_count = files->tokens_count;
    master->users = files->users;
    master->users_count = files->users_count;
    master->start = run->opts->start ? run->opts->start : "all";
    if (!strcmp(master->start, "none"))
        master->start = NULL;
    master->spawn = master_spawn;
    master->terminate = master_terminate;
}

/* ---- Life -------------------------------------------------------------- */

/* By hand: the library is told, and starts it again if its entry says so. */
static void master_ended(const char *id, bool frontend, void *ctx)
{
    pmi_run *run = ctx;
    (void)frontend;
    if (run->told) {
        pmi_run_master_stop(run);
        return;
    }
    for (size_t i = 0; i < run->count; i++)
        if (!strcmp(pm_app_server(run->apps[i])->type, "master"))
            pm_master_exited(run->apps[i], id);
}

pm_err pmi_run_master_begin(pmi_run *run)
{
    const char *env = run->opts->env ? run->opts->env : "development";
    const char *binary = run->opts->binary;
    bool played = false;
    for (size_t i = 0; i < run->count; i++)
        played |= !strcmp(pm_app_server(run->apps[i])->type, "master");
    if (!played)
        return PM_OK;
    if (!binary)
        binary = run->files.start.binary;
    if (!binary)
        binary = run->opts->program;
    if (!binary) {
        PMI_LOG(run->env, PM_LOG_ERROR, "run",
                "the master knows no binary: pomelo.json says none");
        return PM_ECONFIG;
    }
    return pmi_spawn_new(&run->spawn, run->loop, binary, env, master_ended,
                         run);
}

static void master_patience(pmi_timer *timer)
{
    pmi_run *run = PMI_OUTER(timer, pmi_run, patience);
    PMI_LOG(run->env, PM_LOG_WARN, "run",
            "%zu processes have not stopped in time and are ended",
            pmi_spawn_count(run->spawn));
    pmi_spawn_kill_all(run->spawn);
}

/* Called again when a process has ended. */
void pmi_run_master_stop(pmi_run *run)
{
    size_t left = run->spawn ? pmi_spawn_left(run->spawn, true) : 0;
    if (left > 0) {
        pmi_spawn_stop(run->spawn, true);
    } else if (run->spawn && (left = pmi_spawn_left(run->spawn, false)) > 0) {
        pmi_spawn_stop(run->spawn, false);
    } else {
        pmi_timer_clear(&run->patience);
        pmi_run_stop_apps(run);
        return;
    }
    if (!pmi_timer_is_set(&run->patience))
        pmi_timer_set(run->loop, &run->patience,
                      (master_drain_ms(run) * 2 + PATIENCE_MS) * UINT64_C(1000),
                      master_patience);
}

void pmi_run_master_stop_now(pmi_run *run)
{
    if (run->spawn)
        pmi_spawn_kill_all(run->spawn);
}

void pmi_run_master_end(pmi_run *run)
{
    pmi_timer_clear(&run->patience);
    pmi_spawn_free(run->spawn);
    run->spawn = NULL;
}
