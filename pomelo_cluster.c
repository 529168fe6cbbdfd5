/* SPDX-License-Identifier: MIT */
/* pomelo_cluster.c -- who exists and who is up: the servers table.
 *
 * Records stand in table order, and per type in a list of the same order, since
 * Pomelo's `def` router counts on it. A record outlives its removal as long as
 * somebody refers to it. Start at pm_server_add. */
#include "pomelo_cluster_internal.h"

typedef struct cluster_type {
    pmi_server_list list;
    size_t cap;
} cluster_type;

struct pmi_cluster {
    pm_app *app;
    const pmi_env *env;
    pmi_link table; /* pmi_server, in table order */
    pmi_link gone;  /* removed, still referred to */
    pmi_map by_id;
    pmi_map by_type; /* type -> cluster_type */
    size_t count;
    pm_err (*added)(pm_app *app, pmi_server *server);
    void (*removed)(pm_app *app, pmi_server *server);
};

/* ---- Records ----------------------------------------------------------- */

static void cluster_free_record(const pmi_env *env, pmi_server *server)
{
    const pm_server *pub = &server->pub;
    const char *texts[] = {pub->id, pub->type, pub->host, pub->args, pub->raw};
    for (size_t i = 0; i < PMI_COUNT(texts); i++)
        pmi_free(env, (void *)(uintptr_t)texts[i]);
    pmi_list_remove(&server->in_table);
    pmi_task_cancel(&server->grave);
    pmi_free(env, server);
}

static bool cluster_copy(const pmi_env *env, const char *from, const char **to)
{
    *to = from ? pmi_strdup(env, from) : NULL;
    return !from || *to;
}

static pmi_server *cluster_new_record(const pmi_env *env, const pm_server *from)
{
    pmi_server *server = pmi_zalloc(env, sizeof *server);
    pm_server *pub;
    bool all;
    if (!server)
        return NULL;
    pub = &server->pub;
    *pub = *from;
    pub->id = pub->type = pub->host = pub->args = pub->raw = NULL;
    all =
        cluster_copy(env, from->id, &pub->id) &&
        cluster_copy(env, from->type, &pub->type) &&
        cluster_copy(env, from->host ? from->host : "127.0.0.1", &pub->host) &&
        cluster_copy(env, from->args, &pub->args) &&
        cluster_copy(env, from->raw, &pub->raw);
    if (!all) {
        cluster_free_record(env, server);
        return NULL;
    }
    server->refs = 1;
    server->rank = UINT32_MAX;
    return server;
}

void pmi_server_ref(pmi_server *server)
{
    server->refs++;
}

void pmi_server_unref(pmi_cluster *cluster, pmi_server *server)
{
    if (--server->refs == 0)
        cluster_free_record(cluster->env, server);
}

/* ---- Lists by type ----------------------------------------------------- */

static cluster_type *cluster_type_of(pmi_cluster *cluster, pm_slice type)
{
    cluster_type *of = pmi_map_get(&cluster->by_type, type);
    if (of)
        return of;
    of = pmi_zalloc(cluster->env, sizeof *of);
    if (of && pmi_map_put(&cluster->by_type, type, of, NULL)) {
        pmi_free(cluster->env, of);
        return NULL;
    }
    return of;
}

static pm_err cluster_list_add(pmi_cluster *cluster, pmi_server *server)
{
    cluster_type *of = cluster_type_of(cluster, pm_text(server->pub.type));
    if (!of)
        return PM_ENOMEM;
    if (of->list.count == of->cap) {
        size_t cap = of->cap ? 2 * of->cap : 8;
        pmi_server **at = pmi_resize_array(cluster->env, of->list.at, cap,
                                           sizeof(pmi_server *));
        if (!at)
            return PM_ENOMEM;
        of->list.at = at;
        of->cap = cap;
    }
    of->list.at[of->list.count++] = server;
    of->list.version++;
    return PM_OK;
}

static void cluster_list_remove(pmi_cluster *cluster, pmi_server *server)
{
    cluster_type *of =
        pmi_map_get(&cluster->by_type, pm_text(server->pub.type));
    size_t i = 0;
    while (i < of->list.count && of->list.at[i] != server)
        i++;
    if (i == of->list.count)
        return;
    memmove(of->list.at + i, of->list.at + i + 1,
            (of->list.count - i - 1) * sizeof *of->list.at);
    of->list.count--;
    of->list.version++;
}

void pmi_cluster_place(pmi_cluster *cluster, pmi_server *server, uint32_t rank)
{
    cluster_type *of;
    size_t i = 0;
    if (server->rank == rank)
        return;
    server->rank = rank;
    cluster_list_remove(cluster, server);
    of = cluster_type_of(cluster, pm_text(server->pub.type));
    while (i < of->list.count && of->list.at[i]->rank <= rank)
        i++;
    memmove(of->list.at + i + 1, of->list.at + i,
            (of->list.count - i) * sizeof *of->list.at);
    of->list.at[i] = server;
    of->list.count++;
}

/* ---- The table --------------------------------------------------------- */

static pm_err cluster_add(pmi_cluster *cluster, const pm_server *server,
                          pmi_server **out)
{
    pmi_server *record;
    if (!server->id || !*server->id || !server->type || !*server->type) {
        PMI_LOG(cluster->env, PM_LOG_ERROR, "cluster",
                "a server needs an id and a type");
        return PM_EINVAL;
    }
    if (strlen(server->id) > 255 || strlen(server->type) > 255)
        return PM_EINVAL;
    if (pmi_map_get(&cluster->by_id, pm_text(server->id))) {
        PMI_LOG(cluster->env, PM_LOG_ERROR, "cluster",
                "two servers have the id \"%s\"", server->id);
        return PM_EEXIST;
    }
    record = cluster_new_record(cluster->env, server);
    if (!record)
        return PM_ENOMEM;
    if (pmi_map_put(&cluster->by_id, pm_text(record->pub.id), record, NULL)) {
        cluster_free_record(cluster->env, record);
        return PM_ENOMEM;
    }
    if (cluster_list_add(cluster, record)) {
        pmi_map_remove(&cluster->by_id, pm_text(record->pub.id));
        cluster_free_record(cluster->env, record);
        return PM_ENOMEM;
    }
    pmi_list_add(&cluster->table, &record->in_table);
    cluster->count++;
    *out = record;
    return PM_OK;
}

pm_err pmi_cluster_new(pm_app *app, const pm_server *servers, size_t count,
                       pmi_cluster **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_cluster *cluster = pmi_zalloc(env, sizeof *cluster);
    pmi_server *record;
    if (!cluster)
        return PM_ENOMEM;
    cluster->app = app;
    cluster->env = env;
    pmi_list_init(&cluster->table);
    pmi_list_init(&cluster->gone);
    pmi_loop_map_init(pm_app_loop(app), &cluster->by_id);
    pmi_loop_map_init(pm_app_loop(app), &cluster->by_type);
    *out = cluster;
    for (size_t i = 0; i < count; i++) {
        pm_err err = cluster_add(cluster, &servers[i], &record);
        if (err)
            return err == PM_ENOMEM ? err : PM_ECONFIG;
        record->rank = (uint32_t)i;
    }
    return PM_OK;
}

void pmi_cluster_free(pmi_cluster *cluster)
{
    pmi_map_walk walk;
    if (!cluster)
        return;
    while (!pmi_list_empty(&cluster->table))
        cluster_free_record(
            cluster->env, PMI_OUTER(cluster->table.next, pmi_server, in_table));
    while (!pmi_list_empty(&cluster->gone))
        cluster_free_record(
            cluster->env, PMI_OUTER(cluster->gone.next, pmi_server, in_table));
    walk = pmi_map_begin(&cluster->by_type);
    while (pmi_map_next(&walk)) {
        cluster_type *of = walk.value;
        pmi_free(cluster->env, of->list.at);
        pmi_free(cluster->env, of);
    }
    pmi_map_fini(&cluster->by_type);
    pmi_map_fini(&cluster->by_id);
    pmi_free(cluster->env, cluster);
}

pmi_server *pmi_cluster_find(pmi_cluster *cluster, const char *id)
{
    return pmi_map_get(&cluster->by_id, pm_text(id));
}

const pmi_server_list *pmi_cluster_type(pmi_cluster *cluster, pm_slice type)
{
    cluster_type *of = pmi_map_get(&cluster->by_type, type);
    return of ? &of->list : NULL;
}

pmi_server *pmi_cluster_next(pmi_cluster *cluster, pmi_server *after)
{
    pmi_link *next = after ? after->in_table.next : cluster->table.next;
    return next == &cluster->table ? NULL
                                   : PMI_OUTER(next, pmi_server, in_table);
}

void pmi_cluster_watch(pmi_cluster *cluster,
                       pm_err (*added)(pm_app *app, pmi_server *server),
                       void (*removed)(pm_app *app, pmi_server *server))
{
    cluster->added = added;
    cluster->removed = removed;
}

void pmi_cluster_set_up(pmi_cluster *cluster, pmi_server *server, bool up)
{
    if (server->up == up)
        return;
    server->up = up;
    PMI_LOG(cluster->env, PM_LOG_INFO, "cluster", "%s is %s", server->pub.id,
            up ? "up" : "down");
    if (up)
        pmi_app_server_up(cluster->app, &server->pub);
    else
        pmi_app_server_down(cluster->app, &server->pub);
}

/* ---- Public ------------------------------------------------------------ */

size_t pm_server_count(const pm_app *app, const char *type)
{
    pmi_cluster *cluster = pmi_app_cluster(app);
    const pmi_server_list *list;
    if (!type)
        return cluster->count;
    list = pmi_cluster_type(cluster, pm_text(type));
    return list ? list->count : 0;
}

const pm_server *pm_server_at(const pm_app *app, const char *type, size_t index)
{
    pmi_cluster *cluster = pmi_app_cluster(app);
    const pmi_server_list *list;
    pmi_server *server;
    if (type) {
        list = pmi_cluster_type(cluster, pm_text(type));
        return list && index < list->count ? &list->at[index]->pub : NULL;
    }
    server = pmi_cluster_next(cluster, NULL);
    while (server && index-- > 0)
        server = pmi_cluster_next(cluster, server);
    return server ? &server->pub : NULL;
}

const pm_server *pm_server_find(const pm_app *app, const char *id)
{
    pmi_server *server = id ? pmi_cluster_find(pmi_app_cluster(app), id) : NULL;
    return server ? &server->pub : NULL;
}

bool pm_server_is_up(const pm_app *app, const char *id)
{
    pmi_server *server = id ? pmi_cluster_find(pmi_app_cluster(app), id) : NULL;
    return server && server->up;
}

static void cluster_bury(pmi_task *grave)
{
    pmi_server *record = PMI_OUTER(grave, pmi_server, grave);
    pmi_server_unref(record->cluster, record);
}

/* Out of the lists; who refers to it keeps it. */
static void cluster_take_out(pmi_cluster *cluster, pmi_server *record)
{
    pmi_map_remove(&cluster->by_id, pm_text(record->pub.id));
    cluster_list_remove(cluster, record);
    pmi_list_remove(&record->in_table);
    pmi_list_add(&cluster->gone, &record->in_table);
    cluster->count--;
    record->removed = true;
    record->up = false;
}

pm_err pm_server_add(pm_app *app, const pm_server *server)
{
    pmi_cluster *cluster = pmi_app_cluster(app);
    pm_loop *loop = pm_app_loop(app);
    pmi_server *record;
    pm_err err;
    if (!server)
        return PM_EINVAL;
    err = cluster_add(cluster, server, &record);
    if (err)
        return err;
    pmi_loop_enter(loop); /* a listener may free the app */
    if (cluster->added)
        err = cluster->added(app, record);
    if (err == PM_OK) {
        pmi_app_server_added(app, &record->pub);
    } else {
        cluster_take_out(cluster, record);
        pmi_server_unref(cluster, record);
    }
    pmi_loop_leave(loop);
    return err;
}

pm_err pm_server_remove(pm_app *app, const char *id)
{
    pmi_cluster *cluster = pmi_app_cluster(app);
    pmi_server *record = id ? pmi_cluster_find(cluster, id) : NULL;
    pm_loop *loop = pm_app_loop(app);
    if (!record)
        return PM_ENOTFOUND;
    if (&record->pub == pm_app_server(app))
        return PM_EINVAL;
    pmi_loop_enter(loop);
    cluster_take_out(cluster, record);
    if (cluster->removed)
        cluster->removed(app, record);
    pmi_app_server_removed(app, record->pub.id);
    record->cluster = cluster;
    pmi_loop_bury(loop, &record->grave, cluster_bury);
    pmi_loop_leave(loop);
    return PM_OK;
}
