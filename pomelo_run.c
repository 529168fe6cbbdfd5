/* SPDX-License-Identifier: MIT */
/* pomelo_run.c -- a whole process from a servers table: the only place with
 * signals.
 *
 *   files, table -> apps, configured -> backends start, then frontends
 *   -> the loop runs -> a signal, or a console: apps drain -> end
 *
 * Makes a loop and an app for each id that this process plays, starts them
 * bottom last (backends before frontends, so that the first client finds
 * everything), and runs until it is told to stop. What a master adds is in
 * pomelo_run_master.c. Start at pm_run. */
#include "pomelo_cron_internal.h"
#include "pomelo_run_internal.h"

#include "core/json.h"
#include "pomelo_app_internal.h"
#include "pomelo_stats_internal.h"

#include <signal.h>

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
static pm_err run_check_ids(const pmi_run *self)
{
    const char *id = self->opts->ids;
    while (id && *id) {
        const char *end = strchr(id, ',');
        size_t len = end ? (size_t)(end - id) : strlen(id);
        if (!run_in_table(self->servers, self->servers_count, id, len)) {
            PMI_LOG(self->env, PM_LOG_ERROR, "run",
                    "ids: \"%.*s\" is not in the servers table", (int)len, id);
            return PM_ECONFIG;
        }
        id = end ? end + 1 : NULL;
    }
    return PM_OK;
}

/* What the files say where the application has said nothing. */
static void run_file_opts(pmi_run *self, const pm_server *server,
                          pm_app_opts *opts)
{
    pm_connector_opts *connector = &opts->connector;
    const pmi_run_files *files = &self->files;
    if (!connector->dictionary) {
        connector->dictionary = files->dictionary;
        connector->dictionary_count = files->dictionary_count;
    }
    if (self->config && !connector->server_protos)
        connector->server_protos =
            pm_config_file(self->config, "serverProtos.json");
    if (self->config && !connector->client_protos)
        connector->client_protos =
            pm_config_file(self->config, "clientProtos.json");
    if (self->config && !opts->crons)
        opts->crons = pm_config_file(self->config, "crons.json");
    if (!opts->log_level)
        opts->log_level = files->log.most;
    pmi_run_master_opts(self, server, opts);
}

static pm_err run_make_app(pmi_run *self, const pm_server *server,
                           pm_configure_cb configure, void *ctx)
{
    pm_app_opts opts =
        self->opts->app ? *self->opts->app : pm_app_opts_default();
    pm_app *app;
    pm_err err;
    opts.loop = self->loop;
    opts.servers = self->servers;
    opts.servers_count = self->servers_count;
    opts.server_id = server->id;
    opts.env = self->opts->env;
    run_file_opts(self, server, &opts);
    err = pm_app_new(&app, &opts);
    if (err)
        return err;
    self->apps[self->count++] = app;
    return configure(app, ctx);
}

static pm_err run_make_apps(pmi_run *self, pm_configure_cb configure, void *ctx)
{
    self->apps = pmi_resize_array(self->env, NULL, self->servers_count,
                                  sizeof(pm_app *));
    if (!self->apps)
        return PM_ENOMEM;
    for (size_t i = 0; i < self->servers_count; i++) {
        const pm_server *server = &self->servers[i];
        pm_err err;
        if (!run_plays(self->opts->ids, server->id))
            continue;
        err = run_make_app(self, server, configure, ctx);
        if (err) {
            PMI_LOG(self->env, PM_LOG_ERROR, "run", "%s: %s",
                    server->id ? server->id : "(no id)", pm_strerror(err));
            return err;
        }
    }
    return self->count ? PM_OK : PM_ECONFIG;
}

static pm_err run_start_apps(pmi_run *self, bool frontends)
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
        self->running++;
    }
    return PM_OK;
}

/* ---- Stop -------------------------------------------------------------- */

static void run_stopped(pm_app *app, pm_err err, void *ctx)
{
    pmi_run *self = ctx;
    (void)app;
    if (err != PM_ECLOSED && --self->running == 0)
        pm_loop_break(self->loop);
}

void pmi_run_stop_app(pmi_run *run, pm_app *app, bool at_once)
{
    uint32_t drain_ms = run->opts->drain_ms ? run->opts->drain_ms : 3000;
    /* Refused: it is on its way already. */
    pm_app_stop(app, at_once ? 1 : drain_ms, run_stopped, run);
}

void pmi_run_stop_apps(pmi_run *run)
{
    for (size_t i = 0; i < run->count; i++)
        pmi_run_stop_app(run, run->apps[i], false);
}

static void run_signal(void *ctx)
{
    pmi_run *self = ctx;
    if (self->told) {
        pmi_run_master_stop_now(self);
        pm_loop_break(self->loop);
        return;
    }
    self->told = true;
    pmi_run_master_stop(self);
}

static pm_err run_watch_signals(pmi_run *self)
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

/* ---- Files ------------------------------------------------------------- */

/* Those that the connectors will use. */
static pm_err run_look_at_protos(const pmi_run *self, char *why, size_t size)
{
    const pm_connector_opts *opts =
        self->opts->app ? &self->opts->app->connector : NULL;
    pm_err err = PM_OK;
    if (!self->config || !opts || !opts->use_protobuf)
        return PM_OK;
    if (!opts->server_protos)
        err = pmi_run_protos_look_at(self->env, self->config,
                                     "serverProtos.json", why, size);
    if (err == PM_OK && !opts->client_protos)
        err = pmi_run_protos_look_at(self->env, self->config,
                                     "clientProtos.json", why, size);
    return err;
}

static pm_err run_load(pmi_run *self)
{
    const pm_run_opts *opts = self->opts;
    const char *crons = NULL;
    char why[512] = "";
    pm_err err = PM_OK;
    if (!opts->servers)
        err = pm_config_load(&self->config, opts->config_dir, opts->env, why,
                             sizeof why);
    if (err == PM_OK && self->config)
        err = pmi_run_files_read(&self->files, self->env, self->config, why,
                                 sizeof why);
    if (err == PM_OK && self->config)
        crons = pm_config_file(self->config, "crons.json");
    if (err == PM_OK && crons) /* before the log goes to a file */
        err = pmi_crons_look_at(self->env, crons, why, sizeof why);
    if (err == PM_OK)
        err = run_look_at_protos(self, why, sizeof why);
    if (err == PM_OK && opts->servers_json)
        err = pm_config_parse(&self->added, opts->servers_json, opts->env, why,
                              sizeof why);
    if (err)
        PMI_LOG(self->env, PM_LOG_ERROR, "run", "%s",
                *why ? why : pm_strerror(err));
    return err;
}

static void run_open_log(pmi_run *self)
{
    pm_err err;
    if (self->opts->log || !self->config ||
        !pm_config_file(self->config, "log.json"))
        return;
    err = pmi_run_log_open(&self->log, &self->files.log,
                           self->opts->ids ? self->opts->ids : "all");
    if (err)
        PMI_LOG(self->env, PM_LOG_ERROR, "run", "log file %s: %s",
                self->files.log.file, pm_strerror(err));
}

/* The file's servers, those who are in none, and at the end the master if it
 * is played here. */
static pm_err run_make_table(pmi_run *self)
{
    const pm_server *servers = self->opts->servers, *added = NULL;
    const pm_server *master = &self->files.master;
    size_t count = self->opts->servers_count, added_count = 0;
    if (self->config)
        servers = pm_config_servers(self->config, &count);
    if (self->added)
        added = pm_config_servers(self->added, &added_count);
    self->servers = pmi_resize_array(self->env, NULL, count + added_count + 1,
                                     sizeof *servers);
    if (!self->servers)
        return PM_ENOMEM;
    memcpy(self->servers, servers, count * sizeof *servers);
    self->servers_count = self->files_servers = count;
    for (size_t i = 0; i < added_count; i++)
        if (!run_in_table(servers, count, added[i].id, strlen(added[i].id)))
            self->servers[self->servers_count++] = added[i];
    if (master->id && self->opts->ids && run_plays(self->opts->ids, master->id))
        self->servers[self->servers_count++] = *master;
    return PM_OK;
}

/* ---- The process ------------------------------------------------------- */

/* Frontends and backends of one process share its core. */
static void run_pin(const pmi_run *self)
{
    const pm_server *server = pm_app_server(self->apps[0]);
    pm_err err;
    if (self->count != 1 || server->cpu == 0)
        return;
    err = pmi_sock_pin_cpu(server->cpu - 1);
    if (err)
        PMI_LOG(self->env, PM_LOG_WARN, "run", "cpu %d: %s", server->cpu - 1,
                pm_strerror(err));
}

/* A page that is not there is a pity; the game goes on. */
static void run_open_page(pmi_run *self)
{
    const pmi_start_rules *rules = &self->files.start;
    pmi_http_opts opts = {.host = rules->web_host,
                          .port = rules->web_port,
                          .root = rules->web_root,
                          .tally = PMI_TRAFFIC_HTTP};
    pm_err err;
    if (!rules->web_root || (self->opts->ids && !self->spawn))
        return;
    err = pmi_http_start(self->loop, &opts, &self->page);
    if (err)
        PMI_LOG(self->env, PM_LOG_ERROR, "run", "the page, port %u: %s",
                rules->web_port, pm_strerror(err));
    else
        PMI_LOG(self->env, PM_LOG_INFO, "run", "open http://%s:%u",
                rules->web_host ? rules->web_host : "127.0.0.1",
                pmi_http_port(self->page));
}

/* ---- Numbers ----------------------------------------------------------- */

static int run_metrics(pm_slice path, pmi_buf *out, const char **type,
                       void *ctx)
{
    const pmi_run *self = ctx;
    if (!pmi_slice_eq(path, pm_text("/metrics")))
        return 0;
    *type = "text/plain; version=0.0.4; charset=utf-8";
    pmi_stats_prometheus(self->apps, self->count, out);
    return 200;
}

static uint16_t run_stats_port(const pmi_run *self)
{
    if (self->opts->stats_port)
        return self->opts->stats_port;
    for (size_t i = 0; i < self->count; i++)
        if (pm_app_server(self->apps[i])->stats_port)
            return pm_app_server(self->apps[i])->stats_port;
    return self->opts->ids && !self->spawn ? 0 : self->files.start.stats_port;
}

/* Like the page: who can not tell his numbers serves his players all the same.
 */
static void run_open_stats(pmi_run *self)
{
    pmi_http_opts opts = {.host = self->opts->stats_host,
                          .port = run_stats_port(self),
                          .page = run_metrics,
                          .ctx = self,
                          .tally = PMI_TRAFFIC_HTTP};
    pm_err err;
    if (!opts.port)
        return;
    if (!opts.host)
        opts.host = self->files.start.stats_host;
    err = pmi_http_start(self->loop, &opts, &self->stats);
    if (err)
        PMI_LOG(self->env, PM_LOG_ERROR, "run", "the numbers, port %u: %s",
                opts.port, pm_strerror(err));
    else
        PMI_LOG(self->env, PM_LOG_INFO, "run",
                "numbers at http://%s:%u/metrics",
                opts.host ? opts.host : "127.0.0.1", opts.port);
}

static pm_err run_go(pmi_run *self, pm_configure_cb configure, void *ctx)
{
    pm_err err = run_check_ids(self);
    if (err == PM_OK)
        err = run_make_apps(self, configure, ctx);
    if (err == PM_OK)
        err = run_watch_signals(self);
    if (err == PM_OK)
        err = pmi_run_master_begin(self);
    if (err)
        return err;
    run_pin(self);
    err = run_start_apps(self, false);
    if (err == PM_OK)
        err = run_start_apps(self, true);
    if (err)
        return err;
    run_open_page(self);
    run_open_stats(self);
    if (!self->opts->ids) /* otherwise a master knows */
        for (size_t i = 0; i < self->count; i++)
            pmi_app_all_started(self->apps[i]);
    if (self->opts->started)
        self->opts->started(self->loop, self->apps, self->count, ctx);
    return pm_loop_run(self->loop);
}

static void run_end(pmi_run *self)
{
    for (size_t i = 0; i < PMI_COUNT(self->signals); i++)
        pmi_loop_signal_end(self->signals[i]);
    pmi_http_stop(self->page);
    pmi_http_stop(self->stats);
    for (size_t i = 0; i < self->count; i++)
        pm_app_free(self->apps[i]);
    pmi_run_master_end(self);
    pmi_free(self->env, self->apps);
    pmi_free(self->env, self->servers);
    pmi_run_log_close(&self->log);
    pmi_run_files_free(&self->files);
    pm_config_free(self->added);
    pm_config_free(self->config);
}

/* ---- Public ------------------------------------------------------------ */

pm_err pm_run_args(pm_run_opts *opts, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **to;
    } known[] = {{"--id", &opts->ids},
                 {"--env", &opts->env},
                 {"--start", &opts->start},
                 {"--servers", &opts->servers_json}};
    if (argc > 0)
        opts->program = argv[0];
    /* A value may look like an option (args are handed on verbatim), so each
     * word is looked at; who starts us speaks last. */
    for (int i = 1; i < argc; i++)
        for (size_t k = 0; k < PMI_COUNT(known); k++) {
            if (strcmp(argv[i], known[k].name) != 0)
                continue;
            if (i + 1 == argc)
                return PM_EINVAL;
            *known[k].to = argv[i + 1];
        }
    return PM_OK;
}

pm_err pm_run(const pm_run_opts *opts, pm_configure_cb configure, void *ctx)
{
    pm_loop_opts loop_opts = pm_loop_opts_default();
    pmi_run self = {0};
    pm_err err;
    if (!opts || opts->size != sizeof *opts || !configure ||
        !(opts->servers ? opts->servers_count > 0 : opts->config_dir != NULL))
        return PM_EINVAL;
    loop_opts.log = opts->log ? opts->log : pmi_run_log_line;
    loop_opts.log_ctx = opts->log ? opts->log_ctx : &self.log;
    loop_opts.spin_us = opts->spin_us;
    err = pm_loop_new(&self.loop, &loop_opts);
    if (err)
        return err;
    self.opts = opts;
    self.env = pmi_loop_env(self.loop);
    err = run_load(&self);
    if (err == PM_OK) {
        run_open_log(&self);
        err = run_make_table(&self);
    }
    if (err == PM_OK)
        err = run_go(&self, configure, ctx);
    run_end(&self);
    pm_loop_free(self.loop);
    return err;
}
