/* SPDX-License-Identifier: MIT */
/* pomelo_run.c -- a whole process from a servers table: the only place with
 * signals.
 *
 * Makes a loop and an app for each id that this process plays, starts them
 * bottom last (backends before frontends, so that the first client finds
 * everything), and runs until it is told to stop. Start at pm_run. */
#include "pomelo_connector_internal.h"

#include <signal.h>
#include <stdio.h>

typedef struct run {
    const pm_run_opts *opts;
    pm_loop *loop;
    const pmi_env *env;
    pm_app **apps;
    size_t count;
    size_t stopping; /* apps that have not told yet that they stopped */
    bool told;       /* a first signal has come */
    void *signals[2];
} run;

static void run_log(void *ctx, pm_log_level level, const char *module,
                    const char *line)
{
    static const char *const names[] = {"", "error", "warn", "info", "debug"};
    (void)ctx;
    fprintf(stderr, "%-5s %s: %s\n", names[level], module, line);
}

/* Is `id` in the comma list? NULL lists everybody. */
static bool run_plays(const char *ids, const char *id)
{
    size_t len = id ? strlen(id) : 0;
    while (ids) {
        const char *end = strchr(ids, ',');
        size_t part = end ? (size_t)(end - ids) : strlen(ids);
        if (part == len && !memcmp(ids, id, len))
            return true;
        if (!end)
            return false;
        ids = end + 1;
    }
    return true;
}

static bool run_in_table(const pm_server *servers, size_t count, const char *id,
                         size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (servers[i].id && strlen(servers[i].id) == len &&
            !memcmp(servers[i].id, id, len))
            return true;
    return false;
}

/* A name that the table does not know is a mistake worth a sentence. */
static pm_err run_check_ids(run *self, const pm_server *servers, size_t count)
{
    const char *id = self->opts->ids;
    while (id && *id) {
        const char *end = strchr(id, ',');
        size_t len = end ? (size_t)(end - id) : strlen(id);
        if (!run_in_table(servers, count, id, len)) {
            PMI_LOG(self->env, PM_LOG_ERROR, "run",
                    "ids: \"%.*s\" is not in the servers table", (int)len, id);
            return PM_ECONFIG;
        }
        id = end ? end + 1 : NULL;
    }
    return PM_OK;
}

static pm_err run_make_app(run *self, const pm_server *servers, size_t count,
                           const char *id, pm_configure_cb configure, void *ctx)
{
    pm_app_opts opts =
        self->opts->app ? *self->opts->app : pm_app_opts_default();
    pm_app *app;
    pm_err err;
    opts.loop = self->loop;
    opts.servers = servers;
    opts.servers_count = count;
    opts.server_id = id;
    opts.env = self->opts->env;
    err = pm_app_new(&app, &opts);
    if (err)
        return err;
    self->apps[self->count++] = app;
    return configure(app, ctx);
}

static pm_err run_make_apps(run *self, const pm_server *servers, size_t count,
                            pm_configure_cb configure, void *ctx)
{
    self->apps = pmi_resize_array(self->env, NULL, count, sizeof(pm_app *));
    if (!self->apps)
        return PM_ENOMEM;
    for (size_t i = 0; i < count; i++) {
        pm_err err;
        if (!run_plays(self->opts->ids, servers[i].id))
            continue;
        err = run_make_app(self, servers, count, servers[i].id, configure, ctx);
        if (err) {
            PMI_LOG(self->env, PM_LOG_ERROR, "run", "%s: %s",
                    servers[i].id ? servers[i].id : "(no id)",
                    pm_strerror(err));
            return err;
        }
    }
    return self->count ? PM_OK : PM_ECONFIG;
}

static pm_err run_start_apps(run *self, bool frontends)
{
    for (size_t i = 0; i < self->count; i++) {
        const pm_server *server = pm_app_server(self->apps[i]);
        pm_err err;
        if (server->frontend != frontends)
            continue;
        err = pm_app_start(self->apps[i]);
        if (err) {
            PMI_LOG(self->env, PM_LOG_ERROR, "run",
                    "%s does not start (port %u, client port %u): %s",
                    server->id, server->port, server->client_port,
                    pm_strerror(err));
            return err;
        }
    }
    return PM_OK;
}

static void run_stopped(pm_app *app, pm_err err, void *ctx)
{
    run *self = ctx;
    (void)app;
    (void)err;
    if (--self->stopping == 0)
        pm_loop_break(self->loop);
}

static void run_signal(void *ctx)
{
    run *self = ctx;
    uint32_t drain_ms = self->opts->drain_ms ? self->opts->drain_ms : 3000;
    if (self->told) {
        pm_loop_break(self->loop);
        return;
    }
    self->told = true;
    for (size_t i = 0; i < self->count; i++)
        if (pm_app_stop(self->apps[i], drain_ms, run_stopped, self) == PM_OK)
            self->stopping++;
    if (!self->stopping)
        pm_loop_break(self->loop);
}

static pm_err run_watch_signals(run *self)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < PMI_COUNT(numbers); i++) {
        pm_err err = pmi_loop_signal(self->loop, numbers[i], run_signal, self,
                                     &self->signals[i]);
        if (err)
            return err;
    }
    return PM_OK;
}

static pm_err run_go(run *self, const pm_server *servers, size_t count,
                     pm_configure_cb configure, void *ctx)
{
    pm_err err = run_check_ids(self, servers, count);
    if (err == PM_OK)
        err = run_make_apps(self, servers, count, configure, ctx);
    if (err == PM_OK)
        err = run_watch_signals(self);
    if (err == PM_OK)
        err = run_start_apps(self, false);
    if (err == PM_OK)
        err = run_start_apps(self, true);
    if (err == PM_OK && self->opts->started)
        self->opts->started(self->loop, self->apps, self->count, ctx);
    if (err == PM_OK)
        err = pm_loop_run(self->loop);
    return err;
}

static void run_end(run *self)
{
    for (size_t i = 0; i < PMI_COUNT(self->signals); i++)
        pmi_loop_signal_end(self->signals[i]);
    for (size_t i = 0; i < self->count; i++)
        pm_app_free(self->apps[i]);
    pmi_free(self->env, self->apps);
}

static pm_err run_table(run *self, pm_configure_cb configure, void *ctx)
{
    const pm_server *servers = self->opts->servers;
    size_t count = self->opts->servers_count;
    pm_config *config = NULL;
    char why[256];
    pm_err err = PM_OK;
    if (!servers && self->opts->config_dir) {
        err = pm_config_load(&config, self->opts->config_dir, self->opts->env,
                             why, sizeof why);
        if (err)
            PMI_LOG(self->env, PM_LOG_ERROR, "run", "%s", why);
        else
            servers = pm_config_servers(config, &count);
    }
    if (err == PM_OK)
        err = run_go(self, servers, count, configure, ctx);
    run_end(self);
    pm_config_free(config);
    return err;
}

pm_err pm_run(const pm_run_opts *opts, pm_configure_cb configure, void *ctx)
{
    pm_loop_opts loop_opts = pm_loop_opts_default();
    run self = {0};
    pm_err err;
    if (!opts || opts->size != sizeof *opts || !configure ||
        !(opts->servers ? opts->servers_count > 0 : opts->config_dir != NULL))
        return PM_EINVAL;
    loop_opts.log = opts->log ? opts->log : run_log;
    loop_opts.log_ctx = opts->log_ctx;
    err = pm_loop_new(&self.loop, &loop_opts);
    if (err)
        return err;
    self.opts = opts;
    self.env = pmi_loop_env(self.loop);
    err = run_table(&self, configure, ctx);
    pm_loop_free(self.loop);
    return err;
}
