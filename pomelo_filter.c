/* SPDX-License-Identifier: MIT */
/* pomelo_filter.c -- before and after chains, error handlers, built-in filters.
 *
 * A chain is an array; a request remembers where it is (req->at) and is held
 * by one filter at a time until pm_filter_next. The built-in filters are
 * ordinary ones: nothing in the chains knows them. */
#include "pomelo_filter_internal.h"

typedef struct filter_entry {
    pm_filter filter;
    void *ctx;
    void (*release)(void *ctx); /* of one of ours */
} filter_entry;

typedef struct filter_chain {
    filter_entry *at;
    uint32_t count;
} filter_chain;

typedef struct filter_error {
    pm_error_cb cb;
    void *ctx;
} filter_error;

struct pmi_filters {
    pm_app *app;
    const pmi_env *env;
    filter_chain local, global;
    filter_error error, global_error;
};

pm_err pmi_filters_new(pm_app *app, pmi_filters **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_filters *filters = pmi_zalloc(env, sizeof *filters);
    if (!filters)
        return PM_ENOMEM;
    filters->app = app;
    filters->env = env;
    *out = filters;
    return PM_OK;
}

static void filter_chain_close(filter_chain *chain)
{
    for (uint32_t i = 0; i < chain->count; i++) {
        pm_filter filter = chain->at[i].filter;
        memset(&chain->at[i].filter, 0, sizeof filter);
        if (filter.free)
            filter.free(chain->at[i].ctx);
    }
}

void pmi_filters_close(pmi_filters *filters)
{
    filter_chain_close(&filters->local);
    filter_chain_close(&filters->global);
}

static void filter_chain_fini(pmi_filters *filters, filter_chain *chain)
{
    filter_chain_close(chain);
    for (uint32_t i = 0; i < chain->count; i++)
        if (chain->at[i].release)
            chain->at[i].release(chain->at[i].ctx);
    pmi_free(filters->env, chain->at);
}

void pmi_filters_free(pmi_filters *filters)
{
    if (!filters)
        return;
    filter_chain_fini(filters, &filters->local);
    filter_chain_fini(filters, &filters->global);
    pmi_free(filters->env, filters);
}

static pm_err filter_add(pm_app *app, bool global, const pm_filter *filter,
                         void *ctx, void (*release)(void *ctx))
{
    pmi_filters *filters = pmi_app_filters(app);
    filter_chain *chain = global ? &filters->global : &filters->local;
    filter_entry *at;
    if (!filter)
        return PM_EINVAL;
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        return PM_ESTATE;
    at =
        pmi_resize_array(filters->env, chain->at, chain->count + 1, sizeof *at);
    if (!at)
        return PM_ENOMEM;
    chain->at = at;
    at[chain->count].filter = *filter;
    at[chain->count].ctx = ctx;
    at[chain->count].release = release;
    chain->count++;
    pmi_requests_watch(pmi_app_requests(app));
    return PM_OK;
}

pm_err pm_app_filter(pm_app *app, const pm_filter *filter, void *ctx)
{
    return filter_add(app, false, filter, ctx, NULL);
}

pm_err pm_app_global_filter(pm_app *app, const pm_filter *filter, void *ctx)
{
    return filter_add(app, true, filter, ctx, NULL);
}

pm_err pmi_filter_add(pm_app *app, const pm_filter *filter, void *ctx,
                      void (*release)(void *ctx))
{
    pm_err err = filter_add(app, false, filter, ctx, release);
    if (err)
        release(ctx);
    return err;
}

void pm_app_error_handler(pm_app *app, pm_error_cb cb, void *ctx)
{
    pmi_filters *filters = pmi_app_filters(app);
    filters->error.cb = cb;
    filters->error.ctx = ctx;
    pmi_requests_watch(pmi_app_requests(app));
}

void pm_app_global_error_handler(pm_app *app, pm_error_cb cb, void *ctx)
{
    pmi_filters *filters = pmi_app_filters(app);
    filters->global_error.cb = cb;
    filters->global_error.ctx = ctx;
    pmi_requests_watch(pmi_app_requests(app));
}

/* ---- Chains ------------------------------------------------------------ */

bool pmi_filter_before(pm_request *req, bool global)
{
    pmi_filters *filters = pmi_app_filters(req->app);
    const filter_chain *chain = global ? &filters->global : &filters->local;
    while (req->at < chain->count) {
        const filter_entry *entry = &chain->at[req->at++];
        if (!entry->filter.before)
            continue;
        req->held = true;
        entry->filter.before(req, entry->ctx);
        return true;
    }
    return false;
}

bool pmi_filter_after(pm_request *req, bool global)
{
    pmi_filters *filters = pmi_app_filters(req->app);
    const filter_chain *chain = global ? &filters->global : &filters->local;
    while (req->at < chain->count) {
        const filter_entry *entry = &chain->at[chain->count - ++req->at];
        if (!entry->filter.after)
            continue;
        req->held = true;
        entry->filter.after(req, &req->response, entry->ctx);
        return true;
    }
    return false;
}

bool pmi_filter_error(pm_request *req, bool global)
{
    pmi_filters *filters = pmi_app_filters(req->app);
    const filter_error *error =
        global ? &filters->global_error : &filters->error;
    if (req->at++ > 0 || !error->cb)
        return false;
    req->held = true;
    error->cb(req, &req->response, error->ctx);
    return true;
}

void pm_filter_next(pm_request *req)
{
    pmi_request_go_on(req);
}

pm_err pm_filter_set(pm_request *req, pm_err err, const struct cJSON *body)
{
    uint32_t depth;
    pmi_buf text;
    pm_err printed;
    if (!req->app || req->stage <= PMI_STAGE_FORWARD)
        return PM_ESTATE;
    depth = pmi_app_limits(req->app)->depth;
    pmi_buf_init(&text, pmi_loop_env(req->loop), SIZE_MAX);
    if (err)
        printed = pmi_request_fail_text(body, depth, &text);
    else if (pmi_json_truthy(body))
        printed = pmi_json_print(body, depth, &text);
    else {
        pmi_buf_add_text(&text, "{}");
        printed = text.failed ? PM_ENOMEM : PM_OK;
    }
    if (printed == PM_OK) {
        pm_body json = {PM_BODY_JSON, pmi_buf_slice(&text)};
        printed = pmi_request_set_response(req, err,
                                           err ? pm_strerror(err) : NULL, json);
    }
    pmi_buf_fini(&text);
    return printed;
}

/* ---- time: how long each request took ---------------------------------- */

static void filter_time_after(pm_request *req, const pm_response *response,
                              void *ctx)
{
    uint64_t us = pmi_loop_clock_us(req->loop) - req->started_us;
    (void)ctx;
    PMI_LOG(pmi_app_env(req->app), PM_LOG_INFO, "time", "%s %llu us %s",
            req->route, (unsigned long long)us, pm_err_name(response->err));
    pm_filter_next(req);
}

pm_err pm_filter_time(pm_app *app)
{
    pm_filter filter = {NULL, filter_time_after, NULL};
    return pm_app_filter(app, &filter, NULL);
}

/* ---- timeout: says which request is slow ------------------------------- */

typedef struct filter_slow {
    pm_app *app;
    pmi_map running; /* request number -> slow_one */
    uint32_t ms;
} filter_slow;

typedef struct slow_one {
    pmi_timer timer;
    filter_slow *owner;
    uint64_t id;
} slow_one;

static void filter_slow_fire(pmi_timer *timer)
{
    slow_one *one = PMI_OUTER(timer, slow_one, timer);
    filter_slow *slow = one->owner;
    pm_request *req = NULL;
    if (pmi_app_state_of(slow->app) != PMI_APP_FREED)
        req = pm_request_find(slow->app, one->id);
    if (!req)
        return;
    pmi_count(slow->app, PMI_COUNT_FILTER_TIMEOUT);
    PMI_LOG(pmi_app_env(slow->app), PM_LOG_WARN, "timeout",
            "%s is not answered after %u ms", req->route, (unsigned)slow->ms);
}

static void filter_slow_before(pm_request *req, void *ctx)
{
    filter_slow *slow = ctx;
    const pmi_env *env = pmi_app_env(slow->app);
    uint64_t id = pm_request_id(req);
    slow_one *one = id ? pmi_zalloc(env, sizeof *one) : NULL;
    /* A watcher without memory watches less; the request goes on. */
    if (one && pmi_map_put_num(&slow->running, id, one, NULL) == PM_OK) {
        one->owner = slow;
        one->id = id;
        pmi_timer_set(req->loop, &one->timer, (uint64_t)slow->ms * 1000,
                      filter_slow_fire);
    } else {
        pmi_free(env, one);
    }
    pm_filter_next(req);
}

static void filter_slow_after(pm_request *req, const pm_response *response,
                              void *ctx)
{
    filter_slow *slow = ctx;
    slow_one *one = pmi_map_remove_num(&slow->running, req->id);
    (void)response;
    if (one) {
        pmi_timer_clear(&one->timer);
        pmi_free(pmi_app_env(slow->app), one);
    }
    pm_filter_next(req);
}

static void filter_slow_release(void *ctx)
{
    filter_slow *slow = ctx;
    const pmi_env *env = pmi_app_env(slow->app);
    pmi_map_walk walk = pmi_map_begin(&slow->running);
    while (pmi_map_next(&walk)) {
        slow_one *one = walk.value;
        pmi_timer_clear(&one->timer);
        pmi_free(env, one);
    }
    pmi_map_fini(&slow->running);
    pmi_free(env, slow);
}

pm_err pm_filter_timeout(pm_app *app, uint32_t ms)
{
    pm_filter filter = {filter_slow_before, filter_slow_after, NULL};
    filter_slow *slow = pmi_zalloc(pmi_app_env(app), sizeof *slow);
    if (!slow)
        return PM_ENOMEM;
    slow->app = app;
    slow->ms = ms ? ms : 3000;
    pmi_loop_map_init(pm_app_loop(app), &slow->running);
    return pmi_filter_add(app, &filter, slow, filter_slow_release);
}

/* ---- toobusy: refuses while the loop lags ------------------------------ */

static void filter_busy_before(pm_request *req, void *ctx)
{
    uint64_t lag_ms_max = (uintptr_t)ctx;
    if (pmi_loop_lag_us(req->loop) <= lag_ms_max * 1000) {
        pm_filter_next(req);
        return;
    }
    pmi_count(req->app, PMI_COUNT_FILTER_TOOBUSY);
    pm_request_fail(req, PM_EBUSY, "Server toobusy!", NULL);
}

pm_err pm_filter_toobusy(pm_app *app, uint32_t lag_ms)
{
    pm_filter filter = {filter_busy_before, NULL, NULL};
    pmi_loop_gauge(pm_app_loop(app));
    return pm_app_filter(app, &filter,
                         (void *)(uintptr_t)(lag_ms ? lag_ms : 70));
}
