/* SPDX-License-Identifier: MIT */
/* pomelo.c -- pm_app: options, life cycle, wiring.
 *
 * An app is its modules, made bottom-up and freed top-down. Life:
 *
 *   NEW --start--> RUNNING --stop--> STOPPING --drained or late--> STOPPED
 *    any --free--> FREED: everything completes, then the storage is buried
 *
 * Start at pm_app_new, app_open and app_close. */
#include "pomelo_opts_internal.h"
#include "pomelo_channel_internal.h"
#include "pomelo_connector_internal.h"
#include "pomelo_count_internal.h"
#include "pomelo_cron_internal.h"
#include "pomelo_master_internal.h"
#include "pomelo_monitor_internal.h"
#include "pomelo_remote_internal.h"
#include "pomelo_resume_internal.h"

typedef struct app_listener {
    pm_app_events events;
    void *ctx;
} app_listener;

typedef struct app_component {
    pm_component part;
    char *name;
    void *ctx;
    bool started;
} app_component;

typedef struct app_timer {
    pmi_timer timer;
    pm_app *app;
    uint64_t id, due_us, repeat_us;
    pm_timer_cb cb;
    void *ctx;
} app_timer;

struct pm_app {
    pm_loop *loop;
    pmi_env env;
    pmi_app_state state;
    char *env_name, *client_bind, *rpc_bind, *secret;
    pm_connector_opts connector_opts; /* texts owned */
    pm_rpc_opts_app rpc_opts;
    pm_limits limits;
    pm_master_opts master_opts; /* texts owned */
    pmi_server *self;
    pmi_cluster *cluster;
    pmi_router *router;
    pmi_rpc *rpc;
    pmi_remotes *remotes;
    pmi_sessions *sessions;
    pmi_channels *channels;
    pmi_requests *requests;
    pmi_filters *filters;
    pmi_handlers *handlers;
    pmi_resumes *resumes;
    pmi_connector *connector;
    pmi_crons *crons;
    pmi_modules *modules;
    pmi_master *master;   /* NULL: this app is none */
    pmi_monitor *monitor; /* NULL: there is no master */
    app_listener *listeners;
    size_t listeners_count;
    app_component *components;
    size_t components_count;
    pmi_map timers; /* id -> app_timer */
    uint64_t last_timer;
    pmi_map values; /* pm_app_set */
    pmi_counts counts;
    pm_app_stopped_cb stopped;
    void *stopped_ctx;
    pm_err stop_result;
    bool starting, stop_begun, finishing;
    bool leaving; /* stopping: the master tells the others */
    size_t holds; /* of the application, that a stop waits for */
    pmi_timer drain;
    pmi_task stop_task, grave;
};

/* ---- Getters ----------------------------------------------------------- */

pm_loop *pm_app_loop(const pm_app *app)
{
    return app->loop;
}

const pm_server *pm_app_server(const pm_app *app)
{
    return &app->self->pub;
}

const char *pm_app_env(const pm_app *app)
{
    return app->env_name;
}

uint16_t pm_app_client_port(const pm_app *app)
{
    return pmi_connector_port(app->connector);
}

const pmi_env *pmi_app_env(const pm_app *app)
{
    return &app->env;
}

pmi_app_state pmi_app_state_of(const pm_app *app)
{
    return app->state;
}

const pm_limits *pmi_app_limits(const pm_app *app)
{
    return &app->limits;
}

const pm_connector_opts *pmi_app_connector_opts(const pm_app *app)
{
    return &app->connector_opts;
}

const pm_rpc_opts_app *pmi_app_rpc_opts(const pm_app *app)
{
    return &app->rpc_opts;
}

void pmi_app_certs(pm_app *app, pm_tls_opts **clients, pm_tls_opts **servers)
{
    *clients = &app->connector_opts.tls;
    *servers = &app->rpc_opts.tls;
}

const pm_master_opts *pmi_app_master_opts(const pm_app *app)
{
    return &app->master_opts;
}

pmi_counts *pmi_app_counts(const pm_app *app)
{
    return (pmi_counts *)(uintptr_t)&app->counts;
}

const char *pmi_app_client_bind(const pm_app *app)
{
    return app->client_bind;
}

const char *pmi_app_rpc_bind(const pm_app *app)
{
    return app->rpc_bind;
}

#define APP_MODULE(type)                                                       \
    struct pmi_##type *pmi_app_##type(const pm_app *app)                       \
    {                                                                          \
        return app->type;                                                      \
    }
APP_MODULE(cluster)
APP_MODULE(router)
APP_MODULE(rpc)
APP_MODULE(remotes)
APP_MODULE(sessions)
APP_MODULE(channels)
APP_MODULE(requests)
APP_MODULE(filters)
APP_MODULE(handlers)
APP_MODULE(resumes)
APP_MODULE(connector)
APP_MODULE(crons)
APP_MODULE(modules)
APP_MODULE(master)
APP_MODULE(monitor)
#undef APP_MODULE

/* ---- Options ----------------------------------------------------------- */

static uint32_t app_or(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static void app_default_limits(pm_limits *l)
{
    size_t descriptors = pmi_sock_descriptors_max();
    uint32_t room = descriptors > 128 ? (uint32_t)descriptors - 64 : 64;
    l->package_in_bytes = app_or(l->package_in_bytes, 64 * 1024);
    l->package_out_bytes = app_or(l->package_out_bytes, PMI_PACKAGE_BODY_MAX);
    l->client_queue_bytes = app_or(l->client_queue_bytes, 1024 * 1024);
    l->peer_queue_bytes = app_or(l->peer_queue_bytes, 64 * 1024 * 1024);
    l->handshake_ms = app_or(l->handshake_ms, 10000);
    l->handshake_cb_ms = app_or(l->handshake_cb_ms, 30000);
    l->requests_in_flight = app_or(l->requests_in_flight, 128);
    l->request_ms = app_or(l->request_ms, 30000);
    l->depth = app_or(l->depth, PMI_JSON_DEPTH_MAX);
    l->connections = app_or(l->connections, room);
    l->signatures_per_s = app_or(l->signatures_per_s, 50);
    l->addresses = app_or(l->addresses, 4096);
    l->tls_handshakes = app_or(l->tls_handshakes, 512);
}

static char *app_copy(pm_app *app, const char *text, pm_err *err)
{
    char *copy = text ? pmi_strdup(&app->env, text) : NULL;
    if (text && !copy)
        *err = PM_ENOMEM;
    return copy;
}

static const char *const *app_copy_list(pm_app *app, const char *const *list,
                                        size_t count, pm_err *err)
{
    char **copy = pmi_resize_array(&app->env, NULL, count, sizeof *copy);
    if (!copy) {
        *err = PM_ENOMEM;
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        copy[i] = app_copy(app, list[i], err);
    return (const char *const *)copy;
}

static void app_free_list(pm_app *app, const char *const *list, size_t count)
{
    for (size_t i = 0; list && i < count; i++)
        pmi_free(&app->env, (void *)(uintptr_t)list[i]);
    pmi_free(&app->env, (void *)(uintptr_t)list);
}

static pm_err app_copy_opts(pm_app *app, const pm_app_opts *opts)
{
    pm_connector_opts *c = &app->connector_opts;
    pm_err err = PM_OK;
    *c = opts->connector;
    app->rpc_opts = opts->rpc;
    app->limits = opts->limits;
    app_default_limits(&app->limits);
    if (app->limits.lag_ms)
        pmi_loop_gauge(app->loop);
    c->flush_ms = app_or(c->flush_ms, 20);
    c->resume_bytes = app_or(c->resume_bytes, 64 * 1024);
    c->resume_sessions = app_or(c->resume_sessions, 1000);
    c->push_policy = c->push_policy ? c->push_policy : PM_PUSH_KEEP;
    app->rpc_opts.deadline_ms = app_or(app->rpc_opts.deadline_ms, 5000);
    app->rpc_opts.reconnect_ms_max =
        app_or(app->rpc_opts.reconnect_ms_max, 2000);
    app->rpc_opts.silent_ms = app_or(app->rpc_opts.silent_ms, 10000);
    pmi_certs_copy(&app->env, &c->tls, &err);
    pmi_certs_copy(&app->env, &app->rpc_opts.tls, &err);
    c->server_protos = app_copy(app, c->server_protos, &err);
    c->client_protos = app_copy(app, c->client_protos, &err);
    c->dictionary =
        app_copy_list(app, c->dictionary, c->dictionary_count, &err);
    c->blocked = app_copy_list(app, c->blocked, c->blocked_count, &err);
    c->proxies = app_copy_list(app, c->proxies, c->proxies_count, &err);
    app->rpc_opts.secret = app->secret = app_copy(app, opts->rpc.secret, &err);
    app->env_name = app_copy(app, opts->env ? opts->env : "development", &err);
    app->client_bind = app_copy(app, opts->client_bind, &err);
    app->rpc_bind = app_copy(app, opts->rpc_bind, &err);
    return err ? err
               : pmi_master_opts_copy(&app->env, &app->master_opts,
                                      &opts->master);
}

static void app_free_opts(pm_app *app)
{
    pm_connector_opts *c = &app->connector_opts;
    pmi_free(&app->env, (void *)(uintptr_t)c->server_protos);
    pmi_free(&app->env, (void *)(uintptr_t)c->client_protos);
    app_free_list(app, c->dictionary, c->dictionary_count);
    app_free_list(app, c->blocked, c->blocked_count);
    app_free_list(app, c->proxies, c->proxies_count);
    pmi_certs_free(&app->env, &c->tls);
    pmi_certs_free(&app->env, &app->rpc_opts.tls);
    pmi_free(&app->env, app->secret);
    pmi_free(&app->env, app->env_name);
    pmi_free(&app->env, app->client_bind);
    pmi_free(&app->env, app->rpc_bind);
    pmi_master_opts_free(&app->env, &app->master_opts);
}

/* ---- New and free ------------------------------------------------------ */

static pm_err app_check_limits(const pm_app *app)
{
    if (app->limits.package_out_bytes <= PMI_PACKAGE_BODY_MAX)
        return PM_OK;
    PMI_LOG(&app->env, PM_LOG_ERROR, "app",
            "limits.package_out_bytes: %u is over %u: a package's length has "
            "three bytes",
            app->limits.package_out_bytes, PMI_PACKAGE_BODY_MAX);
    return PM_ECONFIG;
}

static pm_err app_find_self(pm_app *app, const pm_app_opts *opts)
{
    const char *id = opts->server_id;
    if (!id && opts->servers_count == 1)
        id = opts->servers[0].id;
    app->self = id ? pmi_cluster_find(app->cluster, id) : NULL;
    if (!app->self) {
        PMI_LOG(&app->env, PM_LOG_ERROR, "app",
                "server_id: \"%s\" is not in the servers table",
                id ? id : "(none given)");
        return PM_ECONFIG;
    }
    pmi_server_ref(app->self);
    app->self->up = true;
    return PM_OK;
}

static pm_err app_make_modules(pm_app *app, const pm_app_opts *opts)
{
    pm_err err =
        pmi_cluster_new(app, opts->servers, opts->servers_count, &app->cluster);
    if (err == PM_OK)
        err = app_find_self(app, opts);
    if (err == PM_OK)
        err = pmi_router_new(app, &app->router);
    if (err == PM_OK)
        err = pmi_rpc_new(app, &app->rpc);
    if (err == PM_OK)
        err = pmi_remotes_new(app, &app->remotes);
    if (err == PM_OK)
        err = pmi_sessions_new(app, &app->sessions);
    if (err == PM_OK)
        err = pmi_channels_new(app, &app->channels);
    if (err == PM_OK)
        err = pmi_requests_new(app, &app->requests);
    if (err == PM_OK)
        err = pmi_filters_new(app, &app->filters);
    if (err == PM_OK)
        err = pmi_handlers_new(app, &app->handlers);
    if (err == PM_OK)
        err = pmi_resumes_new(app, &app->resumes);
    if (err == PM_OK)
        err = pmi_connector_new(app, &app->connector);
    if (err == PM_OK)
        err = pmi_crons_new(app, opts->crons, &app->crons);
    if (err == PM_OK)
        err = pmi_modules_new(app, &app->modules);
    if (err == PM_OK)
        err = pmi_master_new(app, &app->master);
    if (err == PM_OK)
        err = pmi_monitor_new(app, &app->monitor);
    if (err == PM_OK)
        pmi_sessions_serve(app);
    return err;
}

static void app_clear_timers(pm_app *app)
{
    pmi_map_walk walk = pmi_map_begin(&app->timers);
    while (pmi_map_next(&walk)) {
        app_timer *timer = walk.value;
        pmi_map_remove_num(&app->timers, timer->id);
        pmi_timer_clear(&timer->timer);
        pmi_free(&app->env, timer);
    }
}

static void app_free_registered(pm_app *app)
{
    app_clear_timers(app);
    pmi_map_fini(&app->timers);
    pmi_map_fini(&app->values);
    for (size_t i = 0; i < app->components_count; i++)
        pmi_free(&app->env, app->components[i].name);
    pmi_free(&app->env, app->components);
    pmi_free(&app->env, app->listeners);
}

static void app_release(pmi_task *grave)
{
    pm_app *app = PMI_OUTER(grave, pm_app, grave);
    pm_loop *loop = app->loop;
    pmi_env env = app->env;
    pmi_monitor_free(app->monitor);
    pmi_master_free(app->master);
    pmi_modules_free(app->modules);
    pmi_crons_free(app->crons);
    pmi_connector_free(app->connector);
    pmi_resumes_free(app->resumes);
    pmi_handlers_free(app->handlers);
    pmi_filters_free(app->filters);
    pmi_requests_free(app->requests);
    pmi_channels_free(app->channels);
    pmi_sessions_free(app->sessions);
    pmi_remotes_free(app->remotes);
    pmi_rpc_free(app->rpc);
    pmi_router_free(app->router);
    if (app->self)
        pmi_server_unref(app->cluster, app->self);
    pmi_cluster_free(app->cluster);
    app_free_registered(app);
    app_free_opts(app);
    pmi_counts_fini(&app->counts);
    pmi_free(&env, app);
    pmi_loop_drop(loop);
}

static bool app_opts_valid(const pm_app_opts *opts)
{
    return opts && opts->size == sizeof *opts && opts->loop && opts->servers &&
           opts->servers_count &&
           (unsigned)opts->connector.push_policy <= PM_PUSH_CLOSE;
}

pm_err pm_app_new(pm_app **out, const pm_app_opts *opts)
{
    const pmi_env *loop_env;
    pm_app *app;
    pm_err err;
    if (!app_opts_valid(opts))
        return PM_EINVAL;
    loop_env = pmi_loop_env(opts->loop);
    app = pmi_zalloc(loop_env, sizeof *app);
    if (!app)
        return PM_ENOMEM;
    app->loop = opts->loop;
    app->env = *loop_env;
    if (opts->log) {
        app->env.log = opts->log;
        app->env.log_ctx = opts->log_ctx;
        app->env.log_level = PM_LOG_INFO;
    }
    if (opts->log_level)
        app->env.log_level = opts->log_level;
    pmi_loop_hold(app->loop);
    pmi_counts_init(&app->counts, app->loop, &app->env);
    pmi_loop_map_init(app->loop, &app->timers);
    pmi_loop_map_init(app->loop, &app->values);
    err = app_copy_opts(app, opts);
    if (err == PM_OK)
        err = app_check_limits(app);
    if (err == PM_OK)
        err = app_make_modules(app, opts);
    if (err) {
        app->state = PMI_APP_FREED;
        app_release(&app->grave);
        return err;
    }
    *out = app;
    return PM_OK;
}

pm_err pm_queue_counts_get(const pm_app *app, pm_queue_counts *counts)
{
    const uint64_t *n = pmi_app_counts(app)->n;
    if (!counts || counts->size != sizeof *counts)
        return PM_EINVAL;
    counts->dropped_oldest = n[PMI_COUNT_DROPPED_OLDEST];
    counts->dropped_new = n[PMI_COUNT_DROPPED_NEW];
    counts->replaced = n[PMI_COUNT_DROPPED_REPLACED];
    counts->closed = pmi_connector_closed(app->connector)[PM_CLOSE_QUEUE];
    counts->drained = n[PMI_COUNT_DRAINED_SESSION];
    counts->peer_dropped = n[PMI_COUNT_LINK_DROPPED];
    counts->peer_refused = n[PMI_COUNT_LINK_REFUSED];
    return PM_OK;
}

/* ---- Components -------------------------------------------------------- */

pm_err pm_app_component(pm_app *app, const pm_component *component, void *ctx)
{
    app_component *all, *one;
    if (!component || !component->name)
        return PM_EINVAL;
    if (app->state != PMI_APP_NEW)
        return PM_ESTATE;
    for (size_t i = 0; i < app->components_count; i++)
        if (!strcmp(app->components[i].name, component->name))
            return PM_EEXIST;
    all = pmi_resize_array(&app->env, app->components,
                           app->components_count + 1, sizeof *all);
    if (!all)
        return PM_ENOMEM;
    app->components = all;
    one = &all[app->components_count];
    memset(one, 0, sizeof *one);
    one->part = *component;
    one->ctx = ctx;
    one->name = pmi_strdup(&app->env, component->name);
    if (!one->name)
        return PM_ENOMEM;
    app->components_count++;
    return PM_OK;
}

static pm_err app_start_components(pm_app *app)
{
    for (size_t i = 0; i < app->components_count; i++) {
        app_component *one = &app->components[i];
        pm_err err = one->part.start ? one->part.start(app, one->ctx) : PM_OK;
        if (app->state == PMI_APP_FREED)
            return PM_ECLOSED; /* by that very component */
        if (err) {
            PMI_LOG(&app->env, PM_LOG_ERROR, "app",
                    "component %s does not start: %s", one->name,
                    pm_strerror(err));
            return err;
        }
        one->started = true;
    }
    return PM_OK;
}

static pm_err app_after_start(pm_app *app)
{
    for (size_t i = 0; i < app->components_count; i++) {
        app_component *one = &app->components[i];
        pm_err err = one->part.after_start
                         ? one->part.after_start(app, one->ctx)
                         : PM_OK;
        if (err || app->state != PMI_APP_RUNNING)
            return err; /* freed or stopped: the others do not begin */
    }
    return PM_OK;
}

static void app_stop_components(pm_app *app)
{
    for (size_t i = app->components_count; i-- > 0;) {
        app_component *one = &app->components[i];
        if (!one->started)
            continue;
        one->started = false;
        if (one->part.stop)
            one->part.stop(app, one->ctx);
    }
}

/* ---- Start and end ----------------------------------------------------- */

/* Everything that is open closes, everything that waits completes. */
static void app_close(pm_app *app)
{
    pmi_timer_clear(&app->drain);
    pmi_crons_close(app->crons);
    if (app->monitor)
        pmi_monitor_close(app->monitor);
    if (app->master)
        pmi_master_close(app->master);
    pmi_modules_close(app->modules);
    pmi_router_close(app->router);
    pmi_rpc_close(app->rpc);
    pmi_requests_close(app->requests);
    pmi_connector_close(app->connector);
    app_stop_components(app);
}

static void app_stopped(pmi_task *task);

/* Nothing stays open. A component may have begun to stop the app meanwhile:
 * whoever waits for that is told on a later turn. */
static void app_fail_start(pm_app *app)
{
    app->finishing = true;
    app_close(app);
    if (app->state == PMI_APP_FREED)
        return;
    if (app->state == PMI_APP_STOPPING) {
        app->stop_result = PM_ECLOSED;
        pmi_loop_defer(app->loop, &app->stop_task, app_stopped);
    }
    app->state = PMI_APP_NEW;
}

static pm_err app_start(pm_app *app)
{
    /* Components first: they may register handlers. */
    pm_err err = app_start_components(app);
    if (err == PM_OK)
        err = pmi_crons_check(app->crons);
    if (err == PM_OK)
        err = pmi_handlers_start(app->handlers);
    if (err == PM_OK)
        err = pmi_rpc_start(app->rpc);
    if (err == PM_OK)
        err = pmi_connector_start(app->connector);
    if (err == PM_OK && app->master)
        err = pmi_master_start(app->master);
    if (err == PM_OK) {
        app->state = PMI_APP_RUNNING;
        err = app_after_start(app);
    }
    /* Announced only when it can serve. */
    if (err == PM_OK && app->state == PMI_APP_RUNNING) {
        if (app->monitor)
            pmi_monitor_start(app->monitor);
        pmi_crons_start(app->crons);
    }
    if (app->state == PMI_APP_FREED)
        return PM_ECLOSED;
    if (err) {
        app_fail_start(app);
        return app->state == PMI_APP_FREED ? PM_ECLOSED : err;
    }
    PMI_LOG(&app->env, PM_LOG_INFO, "app", "%s runs", app->self->pub.id);
    return PM_OK;
}

pm_err pm_app_start(pm_app *app)
{
    pm_loop *loop = app->loop;
    pm_err err;
    if (app->state != PMI_APP_NEW || app->starting)
        return PM_ESTATE;
    pmi_loop_enter(loop); /* a component may free the app */
    app->starting = true;
    err = app_start(app);
    app->starting = false;
    pmi_loop_leave(loop);
    return err;
}

static void app_tell_stopped(pm_app *app, pm_err err)
{
    pm_app_stopped_cb cb = app->stopped;
    app->stopped = NULL;
    if (cb)
        cb(app, err, app->stopped_ctx);
}

static void app_stopped(pmi_task *task)
{
    pm_app *app = PMI_OUTER(task, pm_app, stop_task);
    if (app->state == PMI_APP_STOPPING)
        app_close(app);
    if (app->state == PMI_APP_STOPPING) { /* not freed by what it closed */
        app->state = PMI_APP_STOPPED;
        PMI_LOG(&app->env, PM_LOG_INFO, "app", "%s has stopped: %s",
                app->self->pub.id, pm_strerror(app->stop_result));
    }
    app_tell_stopped(app, app->stop_result);
}

static bool app_is_idle(const pm_app *app)
{
    return pmi_requests_busy(app->requests) == 0 &&
           pmi_rpc_busy(app->rpc) == 0 && app->holds == 0;
}

/* Nobody is left that waits: everybody is told, and the end is on a later turn,
 * so that the words leave first. */
static void app_finish_stop(pm_app *app, pm_err result)
{
    if (app->finishing)
        return;
    app->finishing = true;
    app->stop_result = result;
    pmi_timer_clear(&app->drain);
    pmi_connector_kick_all(app->connector, "server stop");
    pmi_loop_defer(app->loop, &app->stop_task, app_stopped);
}

void pmi_app_check_drained(pm_app *app)
{
    if (app->state == PMI_APP_STOPPING && !app->leaving &&
        pmi_rpc_heard(app->rpc) && app_is_idle(app))
        app_finish_stop(app, PM_OK);
}

/* What comes now from the others is what they had sent before they heard it. */
void pmi_app_left(pm_app *app)
{
    if (!app->leaving)
        return;
    app->leaving = false;
    pmi_rpc_drain(app->rpc);
    pmi_app_check_drained(app);
}

static void app_drain_late(pmi_timer *timer)
{
    pm_app *app = PMI_OUTER(timer, pm_app, drain);
    app_finish_stop(app, app_is_idle(app) ? PM_OK : PM_ETIMEOUT);
}

static void app_before_stop(pm_app *app)
{
    for (size_t i = app->components_count; i-- > 0;) {
        app_component *one = &app->components[i];
        if (app->state != PMI_APP_FREED && one->started &&
            one->part.before_stop)
            one->part.before_stop(app, one->ctx);
    }
}

static void app_stop(pm_app *app, uint32_t drain_ms)
{
    app->state = PMI_APP_STOPPING;
    app->finishing = false;
    pmi_crons_close(app->crons);
    pmi_connector_drain(app->connector);
    pmi_timer_set(app->loop, &app->drain, (uint64_t)drain_ms * 1000,
                  app_drain_late);
    app->leaving = true;
    /* A frontend stays in the tables until its end: what is in flight may have
     * to do with its sessions. */
    if (app->self->pub.frontend || !app->monitor ||
        !pmi_monitor_leave(app->monitor))
        pmi_app_left(app);
}

pm_err pm_app_stop(pm_app *app, uint32_t drain_ms, pm_app_stopped_cb cb,
                   void *ctx)
{
    pm_loop *loop = app->loop;
    pm_err err = PM_ECLOSED;
    if (app->state != PMI_APP_RUNNING || app->stop_begun)
        return PM_ESTATE;
    pmi_loop_enter(loop); /* a component may free the app */
    app->stop_begun = true;
    app_before_stop(app);
    app->stop_begun = false;
    if (app->state != PMI_APP_FREED) {
        app->stopped = cb;
        app->stopped_ctx = ctx;
        app_stop(app, drain_ms);
        err = PM_OK;
    }
    pmi_loop_leave(loop);
    return err;
}

pm_err pm_app_stop_hold(pm_app *app)
{
    bool open = app->state == PMI_APP_RUNNING ||
                (app->state == PMI_APP_STOPPING && !app->finishing);
    if (!open)
        return PM_ESTATE;
    app->holds++;
    return PM_OK;
}

void pm_app_stop_release(pm_app *app)
{
    if (app->holds == 0)
        return;
    app->holds--;
    pmi_app_check_drained(app);
}

void pm_app_free(pm_app *app)
{
    pm_loop *loop;
    if (!app || app->state == PMI_APP_FREED)
        return;
    loop = app->loop;
    pmi_loop_enter(loop);
    app->state = PMI_APP_FREED;
    pmi_task_cancel(&app->stop_task);
    app_clear_timers(app);
    app_close(app);
    pmi_remotes_close(app->remotes);
    pmi_channels_close(app->channels);
    pmi_sessions_close(app->sessions);
    app_tell_stopped(app, PM_ECLOSED);
    pmi_filters_close(app->filters);
    pmi_loop_bury(loop, &app->grave, app_release);
    pmi_loop_leave(loop);
}

/* ---- Values and timers ------------------------------------------------- */

pm_err pm_app_set(pm_app *app, const char *name, void *value)
{
    if (!name)
        return PM_EINVAL;
    if (value)
        return pmi_map_put(&app->values, pm_text(name), value, NULL);
    pmi_map_remove(&app->values, pm_text(name));
    return PM_OK;
}

void *pm_app_get(const pm_app *app, const char *name)
{
    return pmi_map_get(&app->values, pm_text(name));
}

static void app_timer_fire(pmi_timer *base);

static void app_timer_set(app_timer *timer, uint64_t now_us)
{
    pmi_timer_set(timer->app->loop, &timer->timer, timer->due_us - now_us,
                  app_timer_fire);
}

/* At the next of its times that is still to come: it may be late itself. */
static void app_timer_again(app_timer *timer)
{
    uint64_t now = pmi_loop_now_us(timer->app->loop);
    uint64_t late = now - timer->due_us;
    timer->due_us = now + timer->repeat_us - late % timer->repeat_us;
    app_timer_set(timer, now);
}

static void app_timer_fire(pmi_timer *base)
{
    app_timer *timer = PMI_OUTER(base, app_timer, timer);
    app_timer now = *timer;
    if (timer->repeat_us) {
        app_timer_again(timer);
    } else {
        pmi_map_remove_num(&timer->app->timers, timer->id);
        pmi_free(&timer->app->env, timer);
    }
    now.cb(now.app, now.ctx);
}

pm_err pm_app_timer(pm_app *app, uint32_t delay_ms, uint32_t repeat_ms,
                    pm_timer_cb cb, void *ctx, uint64_t *id)
{
    app_timer *timer;
    uint64_t now;
    if (!cb)
        return PM_EINVAL;
    if (app->state == PMI_APP_FREED)
        return PM_ECLOSED;
    timer = pmi_zalloc(&app->env, sizeof *timer);
    if (!timer)
        return PM_ENOMEM;
    timer->app = app;
    timer->id = app->last_timer + 1;
    timer->repeat_us = (uint64_t)repeat_ms * 1000;
    timer->cb = cb;
    timer->ctx = ctx;
    if (pmi_map_put_num(&app->timers, timer->id, timer, NULL)) {
        pmi_free(&app->env, timer);
        return PM_ENOMEM;
    }
    app->last_timer++;
    now = pmi_loop_now_us(app->loop);
    timer->due_us = now + (uint64_t)delay_ms * 1000;
    app_timer_set(timer, now);
    if (id)
        *id = timer->id;
    return PM_OK;
}

void pm_app_timer_cancel(pm_app *app, uint64_t id)
{
    app_timer *timer = pmi_map_remove_num(&app->timers, id);
    if (!timer)
        return;
    pmi_timer_clear(&timer->timer);
    pmi_free(&app->env, timer);
}

/* ---- Events ------------------------------------------------------------ */

pm_err pm_app_listen(pm_app *app, const pm_app_events *events, void *ctx)
{
    app_listener *all;
    if (!events || events->size != sizeof *events)
        return PM_EINVAL;
    all = pmi_resize_array(&app->env, app->listeners, app->listeners_count + 1,
                           sizeof *all);
    if (!all)
        return PM_ENOMEM;
    app->listeners = all;
    all[app->listeners_count].events = *events;
    all[app->listeners_count].ctx = ctx;
    app->listeners_count++;
    return PM_OK;
}

/* A listener may add listeners (the array is read anew each time) and free the
 * app (whose storage outlives the stack): then nobody else is told. */
#define APP_EMIT(app, event, ...)                                              \
    do {                                                                       \
        bool freed = (app)->state == PMI_APP_FREED;                            \
        for (size_t i = 0; i < (app)->listeners_count &&                       \
                           freed == ((app)->state == PMI_APP_FREED);           \
             i++)                                                              \
            if ((app)->listeners[i].events.event)                              \
                (app)->listeners[i].events.event((app), __VA_ARGS__,           \
                                                 (app)->listeners[i].ctx);     \
    } while (0)

#define APP_SESSION_EVENT(event)                                               \
    void pmi_app_##event(pm_app *app, pm_session *session)                     \
    {                                                                          \
        pm_session_ref(session);                                               \
        APP_EMIT(app, event, session);                                         \
        pm_session_unref(session);                                             \
    }
APP_SESSION_EVENT(session_opened)
APP_SESSION_EVENT(session_bound)
APP_SESSION_EVENT(session_drained)
APP_SESSION_EVENT(session_resumed)
#undef APP_SESSION_EVENT

#define APP_SESSION_END(event)                                                 \
    void pmi_app_##event(pm_app *app, pm_session *session,                     \
                         pm_close_reason reason)                               \
    {                                                                          \
        pm_session_ref(session);                                               \
        APP_EMIT(app, event, session, reason);                                 \
        pm_session_unref(session);                                             \
    }
APP_SESSION_END(session_closed)
APP_SESSION_END(session_suspended)
#undef APP_SESSION_END

void pmi_app_server_drained(pm_app *app, const pm_server *server)
{
    APP_EMIT(app, server_drained, server);
}

void pmi_app_session_unbound(pm_app *app, pm_session *session, const char *uid)
{
    pm_session_ref(session);
    APP_EMIT(app, session_unbound, session, uid);
    pm_session_unref(session);
}

void pmi_app_server_added(pm_app *app, const pm_server *server)
{
    APP_EMIT(app, server_added, server);
}

void pmi_app_server_removed(pm_app *app, const char *id)
{
    APP_EMIT(app, server_removed, id);
}

void pmi_app_server_up(pm_app *app, const pm_server *server)
{
    APP_EMIT(app, server_up, server);
}

void pmi_app_server_down(pm_app *app, const pm_server *server)
{
    APP_EMIT(app, server_down, server);
}

static void app_after_start_all(pm_app *app)
{
    for (size_t i = 0; i < app->components_count; i++) {
        app_component *one = &app->components[i];
        if (app->state != PMI_APP_FREED && one->part.after_start_all)
            one->part.after_start_all(app, one->ctx);
    }
}

void pmi_app_all_started(pm_app *app)
{
    pm_loop *loop = app->loop;
    pmi_loop_enter(loop); /* who is told may free the app */
    app_after_start_all(app);
    for (size_t i = 0; i < app->listeners_count && app->state != PMI_APP_FREED;
         i++)
        if (app->listeners[i].events.all_started)
            app->listeners[i].events.all_started(app, app->listeners[i].ctx);
    pmi_loop_leave(loop);
}

void pmi_app_cron_added(pm_app *app, const pm_cron *cron)
{
    APP_EMIT(app, cron_added, cron);
}

void pmi_app_cron_removed(pm_app *app, const pm_cron *cron)
{
    APP_EMIT(app, cron_removed, cron);
}
