/* SPDX-License-Identifier: MIT */
/* pomelo_run_master.c -- a process with a master in it: the callbacks by which
 * the library, which never starts processes, has them started.
 *
 * Stopping by a signal goes from the outside in: frontends first, so that they
 * can still ask their backends for what is in flight, then the backends, last
 * of all the master. Who does not follow within the drain time and PATIENCE_MS
 * is ended. A master that dies leaves its processes alone: traffic goes on, and
 * the next one finds them by their registering. Those are not its children, but
 * they are its servers: it asks them over their links to stop, and sees by the
 * links that they have. */
#include "pomelo_run_internal.h"

#include "core/buf.h"
#include "core/json.h"
#include "pomelo_master_internal.h"

#define PATIENCE_MS 3000 /* beyond the drain time */
#define LOOK_US 50000    /* between two looks at links */

/* Frontends drain, then backends. */
static uint32_t master_patience_ms(const pmi_run *run)
{
    uint32_t drain_ms = run->opts->drain_ms ? run->opts->drain_ms : 3000;
    return drain_ms * 2 + PATIENCE_MS;
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
    if (!master->stop_ms)
        master->stop_ms = master_patience_ms(run);
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

/* ---- The end ----------------------------------------------------------- */

typedef struct master_search {
    pmi_run *run;
    bool frontends;
    size_t found;
} master_search;

static void master_each_own(pmi_run *run, pmi_master_own_cb each, void *ctx)
{
    for (size_t i = 0; i < run->count; i++) {
        pmi_master *master = pmi_app_master(run->apps[i]);
        if (master && master->opts->spawn == master_spawn)
            pmi_master_each_own(master, each, ctx);
    }
}

static void master_stop_adopted(pmi_master_server *server,
                                const pm_server *entry, void *ctx)
{
    master_search *search = ctx;
    if (entry->frontend != search->frontends ||
        pmi_spawn_has(search->run->spawn, entry->id))
        return;
    search->found++;
    if (!server->stopped) /* each is asked once */
        pmi_master_stop_server(server, true);
}

static void master_kill_own(pmi_master_server *server, const pm_server *entry,
                            void *ctx)
{
    pmi_run *run = ctx;
    pmi_spawn_kill(run->spawn, entry, server->pid);
}

/* How many of one kind have not gone yet; they have all been told. */
static size_t master_stop_kind(pmi_run *run, bool frontends)
{
    master_search search = {run, frontends, 0};
    if (!run->spawn)
        return 0;
    pmi_spawn_stop(run->spawn, frontends);
    if (!run->impatient)
        master_each_own(run, master_stop_adopted, &search);
    return pmi_spawn_left(run->spawn, frontends) + search.found;
}

void pmi_run_master_stop_now(pmi_run *run)
{
    run->impatient = true;
    if (!run->spawn)
        return;
    master_each_own(run, master_kill_own, run);
    pmi_spawn_kill_all(run->spawn);
}

static void master_patience(pmi_timer *timer)
{
    pmi_run *run = PMI_OUTER(timer, pmi_run, patience);
    PMI_LOG(run->env, PM_LOG_WARN, "run",
            "processes that have not stopped in time are ended");
    pmi_run_master_stop_now(run);
}

static void master_look(pmi_timer *timer)
{
    pmi_run_master_stop(PMI_OUTER(timer, pmi_run, look));
}

/* Called again when a process has ended, and from time to time. */
void pmi_run_master_stop(pmi_run *run)
{
    if (!master_stop_kind(run, true) && !master_stop_kind(run, false)) {
        pmi_timer_clear(&run->look);
        pmi_timer_clear(&run->patience);
        pmi_run_stop_apps(run);
        return;
    }
    pmi_timer_set(run->loop, &run->look, LOOK_US, master_look);
    if (!run->impatient && !pmi_timer_is_set(&run->patience))
        pmi_timer_set(run->loop, &run->patience,
                      master_patience_ms(run) * UINT64_C(1000),
                      master_patience);
}

void pmi_run_master_end(pmi_run *run)
{
    pmi_timer_clear(&run->look);
    pmi_timer_clear(&run->patience);
    pmi_spawn_free(run->spawn);
    run->spawn = NULL;
}
