/* SPDX-License-Identifier: MIT */
/* pomelo_stats.c -- every number of an app, told: to Prometheus, to the
 * console, to the application.
 *
 * Two tables say what there is: PMI_COUNTS (pomelo_count_internal.h) what is
 * counted where it happens, stats_families, here, what is read off the modules
 * now. Prometheus wants all numbers of a name together, so a walk goes name by
 * name and in it from app to app. Names that the application has chosen come
 * last. Start at stats_tell. */
#include "pomelo_stats_internal.h"

#include "core/host.h"
#include "pomelo_call_internal.h"
#include "pomelo_channel_internal.h"
#include "pomelo_connector_internal.h"
#include "pomelo_count_internal.h"
#include "pomelo_push_internal.h"
#include "pomelo_remote_internal.h"

typedef struct stats_walk {
    pm_app *const *apps;
    size_t apps_count;
    pm_app *app; /* the one that tells just now; NULL: the loop does */
    pm_loop *loop;
    pmi_stat stat; /* name, help and kind of the family */
    pmi_buf labels;
    bool first; /* nothing of this name was told yet */
    bool stop;
    size_t told;
    size_t said; /* of these, in the JSON */
    void (*put)(struct stats_walk *walk);
    union {
        pmi_buf *out;
        struct {
            pm_stat_cb each;
            void *ctx;
        };
    };
} stats_walk;

/* ---- One number -------------------------------------------------------- */

/* label NULL: it has none but the server's. */
static void stats_put(stats_walk *walk, const char *label, const char *value)
{
    if (walk->stop)
        return;
    pmi_buf_reset(&walk->labels);
    if (walk->app)
        pmi_stat_add_label(&walk->labels, "server",
                           pm_app_server(walk->app)->id);
    if (label)
        pmi_stat_add_label(&walk->labels, label, value);
    pmi_buf_add_byte(&walk->labels, 0);
    walk->stat.labels =
        walk->labels.failed ? "" : (const char *)walk->labels.data;
    walk->told++;
    walk->put(walk);
    walk->first = false;
}

static void stats_value(stats_walk *walk, const char *label, const char *text,
                        uint64_t value)
{
    walk->stat.value = value;
    stats_put(walk, label, text);
}

static void stats_one(stats_walk *walk, uint64_t value)
{
    stats_value(walk, NULL, NULL, value);
}

static void stats_time(stats_walk *walk, const char *label, const char *text,
                       const pmi_histogram *times)
{
    walk->stat.times = times;
    stats_put(walk, label, text);
    walk->stat.times = NULL;
}

/* ---- Clients ----------------------------------------------------------- */

static void stats_connections(stats_walk *walk)
{
    stats_one(walk, pmi_connector_count(pmi_app_connector(walk->app)));
}

static void stats_sessions(stats_walk *walk)
{
    stats_one(walk, pmi_sessions_count(pmi_app_sessions(walk->app)));
}

static void stats_bound(stats_walk *walk)
{
    stats_one(walk, pmi_sessions_bound(pmi_app_sessions(walk->app)));
}

/* By reason: of those that can be, the others only when they have been. */
static void stats_reasons(stats_walk *walk, const uint64_t *counted,
                          const pm_close_reason *usual, size_t usual_count)
{
    for (int i = 0; i < PM_CLOSE_COUNT; i++) {
        bool tell = counted[i] > 0;
        for (size_t k = 0; k < usual_count && !tell; k++)
            tell = (int)usual[k] == i;
        if (tell)
            stats_value(walk, "reason", pm_close_text((pm_close_reason)i),
                        counted[i]);
    }
}

static void stats_closed(stats_walk *walk)
{
    static const pm_close_reason usual[] = {
        PM_CLOSE_CLIENT,       PM_CLOSE_RESET,
        PM_CLOSE_KICK,         PM_CLOSE_STOP,
        PM_CLOSE_HEARTBEAT,    PM_CLOSE_HANDSHAKE_TIMEOUT,
        PM_CLOSE_PACKAGE,      PM_CLOSE_PACKAGE_SIZE,
        PM_CLOSE_MESSAGE,      PM_CLOSE_HANDSHAKE,
        PM_CLOSE_CHECK_CLIENT, PM_CLOSE_HTTP,
        PM_CLOSE_WS,           PM_CLOSE_CONNECTIONS_MAX,
        PM_CLOSE_BLACKLIST,    PM_CLOSE_QUEUE,
        PM_CLOSE_RATE,         PM_CLOSE_MEMORY,
        PM_CLOSE_ATTACK,       PM_CLOSE_CRYPTO};
    stats_reasons(walk, pmi_connector_closed(pmi_app_connector(walk->app)),
                  usual, PMI_COUNT(usual));
}

static void stats_tls(stats_walk *walk)
{
    const pmi_tls_counts *counts =
        pmi_connector_tls(pmi_app_connector(walk->app));
    if (!counts)
        return;
    stats_value(walk, "result", "done", counts->done);
    stats_value(walk, "result", "resumed", counts->resumed);
    stats_value(walk, "result", "failed", counts->failed);
    stats_value(walk, "result", "refused", counts->refused);
}

static void stats_requests_busy(stats_walk *walk)
{
    stats_one(walk, pmi_requests_busy(pmi_app_requests(walk->app)));
}

static bool stats_route(const pmi_route_entry *entry, void *ctx)
{
    stats_walk *walk = ctx;
    if (entry->times)
        stats_time(walk, "route", entry->route, entry->times);
    return !walk->stop;
}

/* What clients invent is one row: they must not make us tell their names. */
static void stats_routes(stats_walk *walk)
{
    pmi_handlers_each(pmi_app_handlers(walk->app), stats_route, walk);
    stats_time(walk, "route", "(other)",
               pmi_requests_stray_times(pmi_app_requests(walk->app)));
}

/* ---- Between servers --------------------------------------------------- */

static void stats_calls_busy(stats_walk *walk)
{
    pmi_rpc *rpc = pmi_app_rpc(walk->app);
    uint32_t serving = pmi_rpc_asked(rpc)->serving;
    stats_value(walk, "side", "asked", pmi_rpc_busy(rpc) - serving);
    stats_value(walk, "side", "serving", serving);
}

static bool stats_asked(const char *method, const pmi_remote_times *times,
                        void *ctx)
{
    stats_walk *walk = ctx;
    if (times->asked || !method)
        stats_time(walk, "method", method ? method : "(other)", times->asked);
    return !walk->stop;
}

static void stats_methods_asked(stats_walk *walk)
{
    pmi_remotes_each(pmi_app_remotes(walk->app), stats_asked, walk);
}

static bool stats_served(const char *method, const pmi_remote_times *times,
                         void *ctx)
{
    stats_walk *walk = ctx;
    if (times->served && method)
        stats_time(walk, "method", method, times->served);
    return !walk->stop;
}

static void stats_methods_served(stats_walk *walk)
{
    pmi_remotes_each(pmi_app_remotes(walk->app), stats_served, walk);
}

static uint64_t stats_links_up(const pmi_link *links)
{
    uint64_t n = 0;
    for (const pmi_link *at = links->next; at != links; at = at->next)
        n += PMI_OUTER(at, pmi_peer, in_all)->state == PMI_PEER_UP;
    return n;
}

static void stats_links(stats_walk *walk)
{
    const pmi_peers *peers = pmi_rpc_peers(pmi_app_rpc(walk->app));
    stats_value(walk, "side", "dialled", stats_links_up(&peers->dialled));
    stats_value(walk, "side", "accepted", stats_links_up(&peers->accepted));
}

static void stats_links_lost(stats_walk *walk)
{
    static const pm_close_reason usual[] = {PM_CLOSE_CLIENT, PM_CLOSE_PACKAGE,
                                            PM_CLOSE_CUT, PM_CLOSE_PEER_SILENT,
                                            PM_CLOSE_DUPLICATE};
    stats_reasons(walk, pmi_rpc_peers(pmi_app_rpc(walk->app))->lost, usual,
                  PMI_COUNT(usual));
}

static void stats_links_refused(stats_walk *walk)
{
    static const pm_close_reason usual[] = {
        PM_CLOSE_CLIENT,  PM_CLOSE_HANDSHAKE_TIMEOUT,
        PM_CLOSE_PACKAGE, PM_CLOSE_PACKAGE_SIZE,
        PM_CLOSE_CONNECT, PM_CLOSE_CONNECTIONS_MAX,
        PM_CLOSE_AUTH,    PM_CLOSE_TLS_ON_PLAIN,
        PM_CLOSE_MEMORY};
    stats_reasons(walk, pmi_rpc_peers(pmi_app_rpc(walk->app))->refused, usual,
                  PMI_COUNT(usual));
}

static void stats_servers(stats_walk *walk)
{
    pmi_cluster *cluster = pmi_app_cluster(walk->app);
    pmi_server *server = pmi_cluster_next(cluster, NULL);
    uint64_t up = 0, down = 0;
    for (; server; server = pmi_cluster_next(cluster, server))
        *(server->up ? &up : &down) += 1;
    stats_value(walk, "state", "up", up);
    stats_value(walk, "state", "down", down);
}

/* ---- Channels and pushes ----------------------------------------------- */

static void stats_channels(stats_walk *walk)
{
    stats_one(walk, pmi_channels_count(pmi_app_channels(walk->app)));
}

static void stats_store(stats_walk *walk)
{
    stats_one(walk, pmi_channels_store_failures(pmi_app_channels(walk->app)));
}

static void stats_pushes(stats_walk *walk)
{
    const pmi_pushes *pushes = pmi_channels_pushes(pmi_app_channels(walk->app));
    stats_value(walk, "step", "called", pushes->calls_sent);
    stats_value(walk, "step", "encoded", pushes->encoded);
    stats_value(walk, "step", "delivered", pushes->delivered);
    stats_value(walk, "step", "missed", pushes->missed);
}

/* ---- The loop and the process ------------------------------------------ */

static void stats_turns(stats_walk *walk)
{
    pmi_histogram turns;
    pmi_loop_turns(walk->loop, &turns);
    stats_time(walk, NULL, NULL, &turns);
}

static void stats_lags(stats_walk *walk)
{
    pmi_histogram lags;
    pmi_loop_lags(walk->loop, &lags);
    stats_time(walk, NULL, NULL, &lags);
}

static const char *const stats_traffic[PMI_TRAFFIC_COUNT] = {
    "other", "clients", "peers", "admin", "http"};

/* The pages of a process are told when there have been any. */
static void stats_bytes_in(stats_walk *walk)
{
    const pmi_conn_totals *totals = pmi_conn_totals_of(walk->loop);
    for (int i = 0; i < PMI_TRAFFIC_COUNT; i++)
        if (i != PMI_TRAFFIC_HTTP || totals->by[i].in)
            stats_value(walk, "subsystem", stats_traffic[i], totals->by[i].in);
}

static void stats_bytes_out(stats_walk *walk)
{
    const pmi_conn_totals *totals = pmi_conn_totals_of(walk->loop);
    for (int i = 0; i < PMI_TRAFFIC_COUNT; i++)
        if (i != PMI_TRAFFIC_HTTP || totals->by[i].out)
            stats_value(walk, "subsystem", stats_traffic[i], totals->by[i].out);
}

static void stats_queues(stats_walk *walk)
{
    for (uint8_t i = PMI_TRAFFIC_CLIENTS; i <= PMI_TRAFFIC_PEERS; i++)
        stats_value(walk, "subsystem", stats_traffic[i],
                    pmi_conn_waiting(walk->loop, i));
}

static void stats_io(stats_walk *walk)
{
    const pmi_conn_totals *totals = pmi_conn_totals_of(walk->loop);
    stats_value(walk, "call", "read", totals->reads);
    stats_value(walk, "call", "write", totals->writes);
}

static void stats_memory(stats_walk *walk)
{
    stats_value(walk, "of", "chunks", pmi_loop_chunk_bytes(walk->loop));
}

static void stats_process(stats_walk *walk)
{
    pmi_host_process process;
    if (pmi_loop_memory_only(walk->loop))
        return;
    pmi_host_process_read(&process);
    stats_one(walk, process.rss_bytes);
}

/* ---- The table --------------------------------------------------------- */

typedef struct stats_family {
    pm_stat_kind kind;
    bool of_app; /* else of the loop */
    const char *name, *help;
    void (*tell)(stats_walk *walk);
} stats_family;

static const stats_family stats_families[] = {
    {PM_STAT_GAUGE, true, "pomelo_connections", "Open connections of clients.",
     stats_connections},
    {PM_STAT_GAUGE, true, "pomelo_sessions",
     "Sessions: connections that are through their handshake.", stats_sessions},
    {PM_STAT_GAUGE, true, "pomelo_sessions_bound", "Sessions with a uid.",
     stats_bound},
    {PM_STAT_COUNTER, true, "pomelo_connections_closed_total",
     "Connections of clients by the reason of their end.", stats_closed},
    {PM_STAT_COUNTER, true, "pomelo_tls_handshakes_total",
     "On a client port of TLS: done, of these resumed by a ticket, failed, "
     "refused because too many were under way.",
     stats_tls},
    {PM_STAT_GAUGE, true, "pomelo_requests_in_flight",
     "Requests that are not answered yet.", stats_requests_busy},
    {PM_STAT_TIME, true, "pomelo_request_seconds",
     "From the arrival of a request or notify to its end, by route.",
     stats_routes},
    {PM_STAT_GAUGE, true, "pomelo_rpc_in_flight",
     "Calls between servers that have not completed.", stats_calls_busy},
    {PM_STAT_TIME, true, "pomelo_rpc_call_seconds",
     "From asking another server to its answer, by method.",
     stats_methods_asked},
    {PM_STAT_TIME, true, "pomelo_rpc_serve_seconds",
     "From the arrival of a call to its answer, by method.",
     stats_methods_served},
    {PM_STAT_GAUGE, true, "pomelo_links",
     "Proven links to and from other servers.", stats_links},
    {PM_STAT_COUNTER, true, "pomelo_links_lost_total",
     "Proven links by the reason of their end.", stats_links_lost},
    {PM_STAT_COUNTER, true, "pomelo_links_refused_total",
     "Links that were never proven, by the reason of their end.",
     stats_links_refused},
    {PM_STAT_GAUGE, true, "pomelo_servers",
     "Servers of the table by whether there is a link.", stats_servers},
    {PM_STAT_GAUGE, true, "pomelo_channels", "Channels.", stats_channels},
    {PM_STAT_COUNTER, true, "pomelo_channel_store_failures_total",
     "Changes of channels that their store has refused.", stats_store},
    {PM_STAT_COUNTER, true, "pomelo_pushes_total",
     "Of channels and broadcasts: calls to other frontends, messages encoded "
     "here, put into queues of sessions here, receivers missed.",
     stats_pushes},
    {PM_STAT_TIME, false, "pomelo_loop_turn_seconds",
     "How long one turn of the loop keeps all others waiting.", stats_turns},
    {PM_STAT_TIME, false, "pomelo_loop_lag_seconds",
     "How late a turn's first timer is.", stats_lags},
    {PM_STAT_COUNTER, false, "pomelo_bytes_in_total",
     "Bytes that have come in, by whose they are.", stats_bytes_in},
    {PM_STAT_COUNTER, false, "pomelo_bytes_out_total",
     "Bytes that have left, by whose they are.", stats_bytes_out},
    {PM_STAT_GAUGE, false, "pomelo_queue_bytes",
     "Bytes that could not be written yet, by who is to have them.",
     stats_queues},
    {PM_STAT_COUNTER, false, "pomelo_loop_io_total",
     "Reads and writes of connections.", stats_io},
    {PM_STAT_GAUGE, false, "pomelo_memory_bytes",
     "Memory that the loop's pools hold.", stats_memory},
    {PM_STAT_GAUGE, false, "process_resident_memory_bytes",
     "Memory of the process.", stats_process},
};

static const struct {
    const char *name, *label, *help;
} stats_count_families[] = {
#define STATS_FAMILY(family, name, label, help) {name, label, help},
    PMI_COUNT_FAMILIES(STATS_FAMILY)
#undef STATS_FAMILY
};

static const struct {
    pmi_count_family family;
    const char *value;
} stats_counts[] = {
#define STATS_COUNT(number, family, value) {PMI_FAMILY_##family, value},
    PMI_COUNTS(STATS_COUNT)
#undef STATS_COUNT
};

/* ---- The walk ---------------------------------------------------------- */

static void stats_begin(stats_walk *walk, pm_stat_kind kind, const char *name,
                        const char *help)
{
    memset(&walk->stat, 0, sizeof walk->stat);
    walk->stat.kind = kind;
    walk->stat.name = name;
    walk->stat.help = help;
    walk->first = true;
}

static void stats_tell_modules(stats_walk *walk)
{
    for (size_t i = 0; i < PMI_COUNT(stats_families); i++) {
        const stats_family *family = &stats_families[i];
        stats_begin(walk, family->kind, family->name, family->help);
        walk->app = NULL;
        if (!family->of_app) {
            family->tell(walk);
            continue;
        }
        for (size_t k = 0; k < walk->apps_count && !walk->stop; k++) {
            walk->app = walk->apps[k];
            family->tell(walk);
        }
    }
}

static void stats_tell_family(stats_walk *walk, pmi_count_family family)
{
    const char *label = stats_count_families[family].label;
    const uint64_t *n = pmi_app_counts(walk->app)->n;
    for (size_t i = 0; i < PMI_COUNT(stats_counts); i++)
        if (stats_counts[i].family == family)
            stats_value(walk, label, stats_counts[i].value, n[i]);
}

static void stats_tell_counts(stats_walk *walk)
{
    for (size_t i = 0; i < PMI_COUNT(stats_count_families); i++) {
        stats_begin(walk, PM_STAT_COUNTER, stats_count_families[i].name,
                    stats_count_families[i].help);
        for (size_t k = 0; k < walk->apps_count && !walk->stop; k++) {
            walk->app = walk->apps[k];
            stats_tell_family(walk, (pmi_count_family)i);
        }
    }
}

/* The application's number of that name; NULL: this app has none. */
static pmi_own_stat *stats_own_find(const pm_app *app, const char *name)
{
    const pmi_counts *counts = pmi_app_counts(app);
    const pmi_link *at = counts->own.next;
    for (; at != &counts->own; at = at->next) {
        pmi_own_stat *own = PMI_OUTER(at, pmi_own_stat, link);
        if (!strcmp(own->name, name))
            return own;
    }
    return NULL;
}

/* The first app that has this name tells it for all that follow. */
static void stats_tell_own(stats_walk *walk, size_t k, const pmi_own_stat *own)
{
    for (size_t i = 0; i < k; i++)
        if (stats_own_find(walk->apps[i], own->name))
            return;
    stats_begin(walk, own->kind, own->name, own->help);
    for (size_t i = k; i < walk->apps_count; i++) {
        const pmi_own_stat *one = stats_own_find(walk->apps[i], own->name);
        walk->app = walk->apps[i];
        if (one)
            stats_one(walk, one->value);
    }
}

static void stats_tell(stats_walk *walk)
{
    pmi_env env;
    walk->loop = pm_app_loop(walk->apps[0]);
    pmi_env_init(&env, NULL); /* the reader's memory, not the loop's */
    pmi_buf_init(&walk->labels, &env, SIZE_MAX);
    stats_tell_modules(walk);
    stats_tell_counts(walk);
    for (size_t k = 0; k < walk->apps_count && !walk->stop; k++) {
        const pmi_counts *counts = pmi_app_counts(walk->apps[k]);
        const pmi_link *at = counts->own.next;
        for (; at != &counts->own && !walk->stop; at = at->next)
            stats_tell_own(walk, k, PMI_OUTER(at, pmi_own_stat, link));
    }
    pmi_buf_fini(&walk->labels);
}

/* ---- Prometheus -------------------------------------------------------- */

static void stats_put_prometheus(stats_walk *walk)
{
    if (walk->labels.failed) {
        walk->out->failed = true;
        walk->stop = true;
        return;
    }
    pmi_stat_prometheus(walk->out, &walk->stat, walk->first);
}

void pmi_stats_prometheus(pm_app *const *apps, size_t count, pmi_buf *out)
{
    stats_walk walk = {.apps = apps, .apps_count = count};
    walk.put = stats_put_prometheus;
    walk.out = out;
    stats_tell(&walk);
}

pm_err pm_stats_text(pm_app *const *apps, size_t count, char **out)
{
    pmi_env env;
    pmi_buf text;
    for (size_t i = 0; i < count; i++)
        if (pm_app_loop(apps[i]) != pm_app_loop(apps[0]))
            return PM_EINVAL;
    if (!count || !out)
        return PM_EINVAL;
    pmi_env_init(&env, NULL); /* pm_text_free knows no loop */
    pmi_buf_init(&text, &env, SIZE_MAX);
    pmi_stats_prometheus(apps, count, &text);
    pmi_buf_add_byte(&text, 0);
    if (text.failed) {
        pmi_buf_fini(&text);
        return PM_ENOMEM;
    }
    *out = (char *)text.data;
    return PM_OK;
}

/* ---- The console ------------------------------------------------------- */

static void stats_put_json(stats_walk *walk)
{
    const pmi_stat *stat = &walk->stat;
    const pmi_histogram *h = stat->times;
    pmi_buf key;
    if (stat->kind == PM_STAT_TIME ? !h || !h->count : !stat->value)
        return;
    pmi_buf_init(&key, walk->labels.env, SIZE_MAX);
    pmi_buf_add_text(&key, stat->name);
    if (*stat->labels)
        pmi_buf_add_format(&key, "{%s}", stat->labels);
    if (walk->said++)
        pmi_buf_add_byte(walk->out, ',');
    pmi_json_add_string(walk->out, pmi_buf_slice(&key));
    walk->out->failed |= key.failed;
    pmi_buf_fini(&key);
    if (stat->kind != PM_STAT_TIME) {
        pmi_buf_add_format(walk->out, ":%llu", (unsigned long long)stat->value);
        return;
    }
    pmi_buf_add_format(
        walk->out,
        ":{\"count\":%llu,\"meanUs\":%llu,\"p50Us\":%llu,\"p99Us\":%llu,"
        "\"maxUs\":%llu}",
        (unsigned long long)h->count,
        (unsigned long long)(h->sum_us / h->count),
        (unsigned long long)pmi_histogram_percentile(h, 50),
        (unsigned long long)pmi_histogram_percentile(h, 99),
        (unsigned long long)h->max_us);
}

void pmi_stats_json(pm_app *app, pmi_buf *out)
{
    stats_walk walk = {.apps = &app, .apps_count = 1};
    walk.put = stats_put_json;
    walk.out = out;
    stats_tell(&walk);
}

/* ---- The application --------------------------------------------------- */

static void stats_put_each(stats_walk *walk)
{
    const pmi_histogram *h = walk->stat.times;
    pm_stat stat = {.name = walk->stat.name,
                    .help = walk->stat.help,
                    .kind = walk->stat.kind,
                    .labels = walk->stat.labels,
                    .value = walk->stat.value};
    if (stat.kind == PM_STAT_TIME)
        stat.value = h ? h->count : 0;
    if (h) {
        stat.sum_us = h->sum_us;
        stat.max_us = h->max_us;
        stat.p50_us = pmi_histogram_percentile(h, 50);
        stat.p90_us = pmi_histogram_percentile(h, 90);
        stat.p99_us = pmi_histogram_percentile(h, 99);
    }
    /* It may free the app: then nobody is told any more. */
    walk->stop = !walk->each(&stat, walk->ctx) ||
                 pmi_app_state_of(walk->apps[0]) == PMI_APP_FREED;
}

size_t pm_stats_each(pm_app *app, pm_stat_cb each, void *ctx)
{
    stats_walk walk = {.apps = &app, .apps_count = 1};
    pm_loop *loop = pm_app_loop(app);
    walk.put = stats_put_each;
    walk.each = each;
    walk.ctx = ctx;
    pmi_loop_enter(loop);
    stats_tell(&walk);
    pmi_loop_leave(loop);
    return walk.told;
}

static bool stats_own_name_ok(pm_stat_kind kind, const char *name)
{
    static const char total[] = "_total", ours[] = "pomelo_",
                      all[] = "process_"; /* of every program, by custom */
    size_t len = name ? strlen(name) : 0, end = sizeof total - 1;
    bool counts = len > end && !strcmp(name + len - end, total);
    return pmi_stat_name_ok(name) && strncmp(name, ours, sizeof ours - 1) &&
           strncmp(name, all, sizeof all - 1) &&
           counts == (kind == PM_STAT_COUNTER);
}

pm_err pm_app_stat(pm_app *app, pm_stat_kind kind, const char *name,
                   const char *help, uint64_t **out)
{
    pmi_counts *counts = pmi_app_counts(app);
    pmi_own_stat *own;
    size_t len, help_size = help ? strlen(help) + 1 : 0;
    if ((kind != PM_STAT_COUNTER && kind != PM_STAT_GAUGE) || !out ||
        !stats_own_name_ok(kind, name))
        return PM_EINVAL;
    if (stats_own_find(app, name))
        return PM_EEXIST;
    if (counts->own_count >= PMI_OWN_STATS_MAX)
        return PM_ELIMIT;
    len = strlen(name) + 1;
    own = pmi_zalloc(counts->env, sizeof *own + len + help_size);
    if (!own)
        return PM_ENOMEM;
    own->kind = kind;
    memcpy(own->name, name, len);
    if (help)
        own->help = memcpy(own->name + len, help, help_size);
    pmi_list_add(&counts->own, &own->link);
    counts->own_count++;
    *out = &own->value;
    return PM_OK;
}
