/* SPDX-License-Identifier: MIT */
/* pomelo_remote.c -- the application's own calls between servers.
 *
 * A thin layer on pomelo_rpc: names of remotes, the caller's filters, a call to
 * every server of a type. Start at pm_rpc_call. */
#include "pomelo_remote_internal.h"

#define REMOTE_ARGS_MAX (16u * 1024 * 1024)

/* Calls kept for the next ones. */
#define REMOTE_SPARE_MAX 2048

/* What a program calls it names by texts that stay where they are: a few of
 * them are known by their address. */
#define REMOTE_SEEN 16

typedef struct remote_entry {
    pm_remote_cb cb;
    void *ctx;
    pmi_remote_times times; /* owned */
    bool ours;              /* of this server's type */
    uint8_t type_len, len;
    char method[];
} remote_entry;

typedef struct remote_filter {
    pm_rpc_filter filter;
    void *ctx;
} remote_filter;

struct pmi_remotes {
    pm_app *app;
    const pmi_env *env;
    pmi_map by_method;
    struct remote_seen {
        const char *text; /* a caller's; never looked into without `method` */
        remote_entry *entry;
    } seen[REMOTE_SEEN];
    pmi_remote_times stray; /* of methods that nobody has registered */
    remote_filter *filters;
    size_t filters_count;
    pmi_link telling; /* remote_call whose result is with the filters */
    pm_rpc_error_cb error;
    void *error_ctx;
    pmi_spares calls;
};

/* A call of the application: who hears its result. */
typedef struct remote_call {
    pm_app *app;
    pm_rpc_cb cb;
    void *ctx;
    pmi_link telling;
    const pm_rpc_result *result; /* borrowed while it is told */
    uint64_t began_us;
    pmi_histogram **times;
    char method[256];
} remote_call;

static void remote_serve(pm_app *app, pm_call *call);

pm_err pmi_remotes_new(pm_app *app, pmi_remotes **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_remotes *remotes = pmi_zalloc(env, sizeof *remotes);
    if (!remotes)
        return PM_ENOMEM;
    remotes->app = app;
    remotes->env = env;
    pmi_loop_map_init(pm_app_loop(app), &remotes->by_method);
    pmi_list_init(&remotes->telling);
    /* The method is written in any case. */
    pmi_spares_init(&remotes->calls, env, sizeof(remote_call),
                    offsetof(remote_call, method), REMOTE_SPARE_MAX);
    pmi_rpc_serve(pmi_app_rpc(app), PMI_OP_CALL, remote_serve);
    *out = remotes;
    return PM_OK;
}

static void remote_times_fini(pmi_remotes *remotes, pmi_remote_times *times)
{
    pmi_free(remotes->env, times->asked);
    pmi_free(remotes->env, times->served);
}

void pmi_remotes_free(pmi_remotes *remotes)
{
    pmi_map_walk walk;
    if (!remotes)
        return;
    walk = pmi_map_begin(&remotes->by_method);
    while (pmi_map_next(&walk)) {
        remote_entry *entry = walk.value;
        remote_times_fini(remotes, &entry->times);
        pmi_free(remotes->env, entry);
    }
    pmi_map_fini(&remotes->by_method);
    remote_times_fini(remotes, &remotes->stray);
    pmi_spares_fini(&remotes->calls);
    pmi_free(remotes->env, remotes->filters);
    pmi_free(remotes->env, remotes);
}

/* ---- Remotes ----------------------------------------------------------- */

size_t pmi_remotes_type_len(const char *method)
{
    const char *first = method ? strchr(method, '.') : NULL;
    const char *second = first ? strchr(first + 1, '.') : NULL;
    if (!second || first == method || second == first + 1 || !second[1] ||
        strchr(second + 1, '.') || strlen(method) > 255)
        return 0;
    return (size_t)(first - method);
}

pm_err pm_app_remote(pm_app *app, const char *method, pm_remote_cb cb,
                     void *ctx)
{
    pmi_remotes *remotes = pmi_app_remotes(app);
    pm_slice type = pm_bytes(method, pmi_remotes_type_len(method));
    remote_entry *entry;
    if (!cb || !type.len)
        return PM_EINVAL;
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        return PM_ESTATE;
    if (pmi_map_get(&remotes->by_method, pm_text(method)))
        return PM_EEXIST;
    entry = pmi_zalloc(remotes->env, sizeof *entry + strlen(method) + 1);
    if (!entry)
        return PM_ENOMEM;
    entry->type_len = (uint8_t)type.len;
    entry->len = (uint8_t)strlen(method);
    memcpy(entry->method, method, entry->len + 1u);
    entry->cb = cb;
    entry->ctx = ctx;
    entry->ours = pmi_slice_eq(type, pm_text(pm_app_server(app)->type));
    if (pmi_map_put(&remotes->by_method, pm_text(method), entry, NULL)) {
        pmi_free(remotes->env, entry);
        return PM_ENOMEM;
    }
    return PM_OK;
}

static void remote_serve(pm_app *app, pm_call *call)
{
    pmi_remotes *remotes = pmi_app_remotes(app);
    remote_entry *entry =
        pmi_map_get(&remotes->by_method, pm_text(pm_call_method(call)));
    if (entry && entry->ours) {
        pmi_call_measure(call, &entry->times.served);
        entry->cb(call, entry->ctx);
        return;
    }
    pmi_count(app, PMI_COUNT_UNSERVED_METHOD);
    pmi_call_answer(call, PM_ENOMETHOD, 0, NULL, pm_body_none(),
                    pm_bytes(NULL, 0));
}

/* The entry of a method that the application calls; NULL: nobody's. */
static remote_entry *remote_find(pmi_remotes *remotes, const char *method)
{
    struct remote_seen *seen =
        &remotes->seen[((uintptr_t)method >> 3) % REMOTE_SEEN];
    if (seen->text == method && !strcmp(seen->entry->method, method))
        return seen->entry;
    seen->entry = pmi_map_get(&remotes->by_method, pm_text(method));
    seen->text = seen->entry ? method : NULL;
    return seen->entry;
}

void pmi_remotes_each(pmi_remotes *remotes,
                      bool (*each)(const char *method,
                                   const pmi_remote_times *times, void *ctx),
                      void *ctx)
{
    pmi_map_walk walk = pmi_map_begin(&remotes->by_method);
    bool more = true;
    while (more && pmi_map_next(&walk)) {
        const remote_entry *entry = walk.value;
        more = each(entry->method, &entry->times, ctx);
    }
    if (!more)
        pmi_map_end(&walk);
    else
        each(NULL, &remotes->stray, ctx);
}

/* ---- Filters ----------------------------------------------------------- */

pm_err pm_app_rpc_filter(pm_app *app, const pm_rpc_filter *filter, void *ctx)
{
    pmi_remotes *remotes = pmi_app_remotes(app);
    remote_filter *all;
    if (!filter)
        return PM_EINVAL;
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        return PM_ESTATE;
    all = pmi_resize_array(remotes->env, remotes->filters,
                           remotes->filters_count + 1, sizeof *all);
    if (!all)
        return PM_ENOMEM;
    remotes->filters = all;
    all[remotes->filters_count].filter = *filter;
    all[remotes->filters_count].ctx = ctx;
    remotes->filters_count++;
    return PM_OK;
}

void pm_app_rpc_error_handler(pm_app *app, pm_rpc_error_cb cb, void *ctx)
{
    pmi_remotes *remotes = pmi_app_remotes(app);
    remotes->error = cb;
    remotes->error_ctx = ctx;
}

static pm_err remote_before(pmi_remotes *remotes, const pm_rpc_opts *opts)
{
    for (size_t i = 0; i < remotes->filters_count; i++) {
        const remote_filter *one = &remotes->filters[i];
        pm_err err = one->filter.before
                         ? one->filter.before(remotes->app, opts, one->ctx)
                         : PM_OK;
        if (err)
            return err;
    }
    return PM_OK;
}

/* A filter may free the app (whose storage outlives the stack): then the others
 * are not told any more. */
static void remote_after(const remote_call *call, const pm_rpc_result *result)
{
    pmi_remotes *remotes = pmi_app_remotes(call->app);
    bool freed = pmi_app_state_of(call->app) == PMI_APP_FREED;
    if (result->err && remotes->error)
        remotes->error(call->app, call->method, result, remotes->error_ctx);
    for (size_t i = 0; i < remotes->filters_count; i++) {
        const remote_filter *one = &remotes->filters[i];
        if (freed != (pmi_app_state_of(call->app) == PMI_APP_FREED))
            return;
        if (one->filter.after)
            one->filter.after(call->app, call->method, result, one->ctx);
    }
}

/* ---- Calls ------------------------------------------------------------- */

static void remote_call_free(remote_call *call)
{
    pmi_spares_put(&pmi_app_remotes(call->app)->calls, call);
}

static void remote_answer(const pmi_rpc_answer *answer, void *ctx)
{
    remote_call *call = ctx;
    pm_rpc_cb cb;
    void *cb_ctx;
    pmi_count_time(pmi_app_counts(call->app), call->times, call->began_us);
    call->result = &answer->result;
    pmi_list_add(&pmi_app_remotes(call->app)->telling, &call->telling);
    remote_after(call, &answer->result);
    pmi_list_remove(&call->telling);
    cb = call->cb;
    cb_ctx = call->ctx;
    remote_call_free(call);
    if (cb)
        cb(&answer->result, cb_ctx);
}

void pmi_remotes_close(pmi_remotes *remotes)
{
    pmi_link *node;
    while ((node = pmi_list_take(&remotes->telling))) {
        remote_call *call = PMI_OUTER(node, remote_call, telling);
        pm_rpc_cb cb = call->cb;
        call->cb = NULL;
        cb(call->result, call->ctx);
    }
}

static remote_call *remote_call_new(pm_app *app, const pm_rpc_opts *opts,
                                    remote_entry *entry, pm_rpc_cb cb,
                                    void *ctx)
{
    size_t len = entry ? entry->len : strlen(opts->method);
    pmi_remotes *remotes = pmi_app_remotes(app);
    remote_call *call = pmi_spares_get(&remotes->calls);
    if (!call)
        return NULL;
    call->app = app;
    call->cb = cb;
    call->ctx = ctx;
    call->times = entry ? &entry->times.asked : &remotes->stray.asked;
    call->began_us = pmi_loop_now_us(pm_app_loop(app));
    memcpy(call->method, opts->method, len + 1);
    return call;
}

/* *type: the first part of the method; *entry: NULL when nobody knows it. */
static pm_err remote_check(pm_app *app, const pm_rpc_opts *opts, pm_slice *type,
                           remote_entry **entry)
{
    if (!opts || opts->size != sizeof *opts || !opts->method)
        return PM_EINVAL;
    *entry = remote_find(pmi_app_remotes(app), opts->method);
    *type = pm_bytes(opts->method, *entry ? (*entry)->type_len
                                          : pmi_remotes_type_len(opts->method));
    if (!type->len)
        return PM_EINVAL;
    if (pmi_app_state_of(app) == PMI_APP_NEW)
        return PM_ESTATE;
    if (pmi_app_state_of(app) == PMI_APP_FREED)
        return PM_ECLOSED;
    return opts->args.data.len > REMOTE_ARGS_MAX ? PM_ESIZE : PM_OK;
}

static pm_err remote_send(pm_app *app, const pm_rpc_opts *opts, pm_rpc_cb cb,
                          void *ctx, uint64_t *call_id)
{
    pmi_rpc *rpc = pmi_app_rpc(app);
    pmi_rpc_send_opts send = {.op = PMI_OP_CALL};
    remote_call *call = NULL;
    remote_entry *entry;
    pm_err err = remote_check(app, opts, &send.type, &entry), refused;
    if (err)
        return err;
    if (cb && !(call = remote_call_new(app, opts, entry, cb, ctx)))
        return PM_ENOMEM;
    send.method =
        entry ? pm_bytes(opts->method, entry->len) : pm_text(opts->method);
    send.server_id = opts->server_id;
    send.param = opts->route;
    send.body = opts->args;
    send.deadline_ms = opts->deadline_ms;
    send.trace_id = opts->trace_id;
    refused = remote_before(pmi_app_remotes(app), opts);
    if (!refused)
        err = pmi_rpc_send(rpc, &send, call ? remote_answer : NULL, call,
                           call_id);
    else if (call)
        err = pmi_rpc_refuse(rpc, refused, remote_answer, call, call_id);
    if (err && call)
        remote_call_free(call);
    return err;
}

pm_err pm_rpc_call(pm_app *app, const pm_rpc_opts *opts, pm_rpc_cb cb,
                   void *ctx, uint64_t *call_id)
{
    pm_loop *loop = pm_app_loop(app);
    pm_err err;
    pmi_loop_enter(loop); /* a filter or a router may free the app */
    err = remote_send(app, opts, cb, ctx, call_id);
    pmi_loop_leave(loop);
    return err;
}

pm_err pm_rpc_invoke(pm_app *app, const char *method, pm_param route,
                     pm_body args, pm_rpc_cb cb, void *ctx)
{
    pm_rpc_opts opts = pm_rpc_opts_default();
    opts.method = method;
    opts.route = route;
    opts.args = args;
    return pm_rpc_call(app, &opts, cb, ctx, NULL);
}

/* ---- Every server of a type -------------------------------------------- */

typedef struct remote_all {
    const pmi_env *env;
    pm_rpc_all_cb cb;
    void *ctx;
    size_t count, open;
    bool starting; /* pm_rpc_all has not returned */
    struct remote_one {
        struct remote_all *all;
        pmi_server *server; /* a reference, until it has been called */
        uint8_t *bytes;     /* owned: body, detail, server id */
    } * ones;
    pm_rpc_result results[];
} remote_all;

static void remote_all_free(remote_all *all)
{
    for (size_t i = 0; i < all->count; i++)
        pmi_free(all->env, all->ones[i].bytes);
    pmi_free(all->env, all->ones);
    pmi_free(all->env, all);
}

static void remote_all_done(remote_all *all)
{
    all->cb(all->results, all->count, all->ctx);
    remote_all_free(all);
}

/* A result must last until all are there. Without memory for it, it is
 * PM_ENOMEM. */
static void remote_keep(struct remote_one *one, pm_rpc_result *to,
                        const pm_rpc_result *from)
{
    size_t body = from->body.data.len, detail = strlen(from->detail) + 1;
    size_t id = from->server_id ? strlen(from->server_id) + 1 : 0;
    *to = *from;
    one->bytes = pmi_alloc(one->all->env, body + detail + id);
    if (!one->bytes) {
        to->err = PM_ENOMEM;
        to->detail = pm_strerror(PM_ENOMEM);
        to->body = pm_body_none();
        to->server_id = NULL;
        return;
    }
    if (body)
        memcpy(one->bytes, from->body.data.data, body);
    memcpy(one->bytes + body, from->detail, detail);
    if (id)
        memcpy(one->bytes + body + detail, from->server_id, id);
    to->body.data.data = one->bytes;
    to->detail = (const char *)one->bytes + body;
    to->server_id = id ? (const char *)one->bytes + body + detail : NULL;
}

static void remote_all_one(const pm_rpc_result *result, void *ctx)
{
    struct remote_one *one = ctx;
    remote_all *all = one->all;
    remote_keep(one, &all->results[one - all->ones], result);
    if (--all->open == 0 && !all->starting)
        remote_all_done(all);
}

/* The servers as they are now: a filter may change the table meanwhile. */
static remote_all *remote_all_new(pm_app *app, const pmi_server_list *list,
                                  pm_rpc_all_cb cb, void *ctx)
{
    const pmi_env *env = pmi_loop_env(pm_app_loop(app));
    size_t count = list ? list->count : 0;
    remote_all *all =
        pmi_zalloc(env, sizeof *all + count * sizeof(pm_rpc_result));
    if (!all)
        return NULL;
    all->env = env;
    all->cb = cb;
    all->ctx = ctx;
    all->count = count;
    all->ones = pmi_zalloc(env, (count + 1) * sizeof *all->ones);
    if (!all->ones) {
        pmi_free(env, all);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        all->ones[i].all = all;
        all->ones[i].server = list->at[i];
        pmi_server_ref(list->at[i]);
    }
    return all;
}

/* A call that could not be made is a result like the others. */
static void remote_all_failed(remote_all *all, size_t i, pm_err err)
{
    all->results[i].err = err;
    all->results[i].detail = pm_strerror(err);
    all->open--;
}

static void remote_all_nobody(const pmi_rpc_answer *answer, void *ctx)
{
    (void)answer;
    remote_all_done(ctx);
}

static void remote_all_call(pm_app *app, remote_all *all, pm_rpc_opts *opts)
{
    all->starting = true;
    all->open = all->count;
    for (size_t i = 0; i < all->count; i++) {
        struct remote_one *one = &all->ones[i];
        pm_err err;
        opts->server_id = one->server->pub.id;
        err = remote_send(app, opts, remote_all_one, one, NULL);
        if (err)
            remote_all_failed(all, i, err);
        pmi_server_unref(pmi_app_cluster(app), one->server);
    }
    all->starting = false;
}

static pm_err remote_all_start(pm_app *app, pm_rpc_opts *opts, pm_slice type,
                               pm_rpc_all_cb cb, void *ctx)
{
    const pmi_server_list *list = pmi_cluster_type(pmi_app_cluster(app), type);
    remote_all *all = remote_all_new(app, list, cb, ctx);
    pm_err err;
    if (!all)
        return PM_ENOMEM;
    remote_all_call(app, all, opts);
    if (all->open)
        return PM_OK;
    /* Nobody to wait for: told on a later turn, like everything. */
    err = pmi_rpc_refuse(pmi_app_rpc(app), PM_OK, remote_all_nobody, all, NULL);
    if (err)
        remote_all_free(all);
    return err;
}

pm_err pm_rpc_all(pm_app *app, const char *method, pm_body args,
                  pm_rpc_all_cb cb, void *ctx)
{
    pm_loop *loop = pm_app_loop(app);
    pm_rpc_opts opts = pm_rpc_opts_default();
    remote_entry *entry;
    pm_slice type;
    pm_err err;
    opts.method = method;
    opts.args = args;
    err = cb ? remote_check(app, &opts, &type, &entry) : PM_EINVAL;
    if (err)
        return err;
    pmi_loop_enter(loop); /* a filter may free the app */
    err = remote_all_start(app, &opts, type, cb, ctx);
    pmi_loop_leave(loop);
    return err;
}
