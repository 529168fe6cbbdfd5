/* SPDX-License-Identifier: MIT */
/* pomelo_facts.c -- what a server says of itself when the console asks.
 *
 * One table of questions; each appends a JSON value. Names and units are
 * Pomelo's where Pomelo has them: sizes in MiB and times in minutes, as texts
 * with two decimals. On a loop without sockets, where a run must be the same
 * each time, the process says nothing of itself. Start at pmi_facts_tell. */
#include "pomelo_facts_internal.h"

#include "core/host.h"
#include "pomelo_call_internal.h"
#include "pomelo_channel_internal.h"
#include "pomelo_connector_internal.h"
#include "pomelo_cron_internal.h"
#include "pomelo_module_internal.h"
#include "pomelo_stats_internal.h"

#define FACTS_LIST_MAX 1000 /* users and channels by name */

void pmi_facts_init(pmi_facts *facts, pm_app *app)
{
    facts->app = app;
    facts->since_us = pmi_loop_now_us(pm_app_loop(app));
}

static void facts_process(const pmi_facts *facts, pmi_host_process *out)
{
    if (pmi_loop_memory_only(pm_app_loop(facts->app)))
        memset(out, 0, sizeof *out);
    else
        pmi_host_process_read(out);
}

int64_t pmi_facts_pid(const pmi_facts *facts)
{
    pmi_host_process process;
    facts_process(facts, &process);
    return process.pid;
}

/* ---- Pieces ------------------------------------------------------------ */

static void facts_mib(pmi_buf *out, const char *name, uint64_t bytes)
{
    uint64_t cents = (bytes * 100 + 524288) / 1048576;
    pmi_buf_add_format(out, ",\"%s\":\"%llu.%02llu\"", name,
                       (unsigned long long)(cents / 100),
                       (unsigned long long)(cents % 100));
}

static void facts_uptime(const pmi_facts *facts, pmi_buf *out)
{
    uint64_t us = pmi_loop_now_us(pm_app_loop(facts->app)) - facts->since_us;
    uint64_t cents = us / 600000;
    pmi_buf_add_format(out, ",\"uptime\":\"%llu.%02llu\"",
                       (unsigned long long)(cents / 100),
                       (unsigned long long)(cents % 100));
}

static void facts_who(const pmi_facts *facts, pmi_buf *out)
{
    const pm_server *self = pm_app_server(facts->app);
    pmi_buf_add_byte(out, '{');
    pmi_admin_put(out, "serverId", self->id);
    pmi_admin_put(out, "serverType", self->type);
}

static void facts_count(pmi_buf *out, const char *name, uint64_t value)
{
    pmi_buf_add_format(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

/* ---- Questions --------------------------------------------------------- */

static void facts_list(const pmi_facts *facts, const char *param, pmi_buf *out)
{
    pmi_host_process process;
    (void)param;
    facts_process(facts, &process);
    facts_who(facts, out);
    facts_count(out, "pid", (uint64_t)process.pid);
    facts_mib(out, "rss", process.rss_bytes);
    facts_mib(out, "heapTotal", process.heap_bytes);
    facts_mib(out, "heapUsed", process.heap_used_bytes);
    facts_uptime(facts, out);
    facts_count(out, "connections",
                pmi_connector_count(pmi_app_connector(facts->app)));
    pmi_buf_add_byte(out, '}');
}

static void facts_servers(const pmi_facts *facts, const char *param,
                          pmi_buf *out)
{
    const pm_server *self = pm_app_server(facts->app);
    pmi_host_process process;
    (void)param;
    facts_process(facts, &process);
    facts_who(facts, out);
    pmi_admin_put(out, "host", self->host);
    facts_count(out, "port", self->port);
    facts_count(out, "pid", (uint64_t)process.pid);
    facts_mib(out, "heapUsed", process.heap_used_bytes);
    facts_uptime(facts, out);
    pmi_buf_add_byte(out, '}');
}

typedef struct facts_walk {
    pmi_buf *out;
    size_t count;
} facts_walk;

static bool facts_login(pm_session *session, void *ctx)
{
    facts_walk *walk = ctx;
    const char *uid = pm_session_uid(session);
    if (!uid)
        return true;
    pmi_buf_add_text(walk->out, walk->count++ ? ",{" : "{");
    pmi_admin_put(walk->out, "uid", uid);
    pmi_admin_put(walk->out, "address", pm_session_address(session));
    facts_count(walk->out, "sid", pm_session_id(session));
    pmi_buf_add_byte(walk->out, '}');
    return walk->count < FACTS_LIST_MAX;
}

static void facts_connections(const pmi_facts *facts, const char *param,
                              pmi_buf *out)
{
    pm_app *app = facts->app;
    facts_walk walk = {out, 0};
    (void)param;
    facts_who(facts, out);
    facts_count(out, "totalConnCount",
                pmi_connector_count(pmi_app_connector(app)));
    facts_count(out, "loginedCount", pmi_sessions_bound(pmi_app_sessions(app)));
    pmi_buf_add_text(out, ",\"loginedList\":[");
    if (pm_app_server(app)->frontend)
        pm_session_each(app, NULL, facts_login, &walk);
    pmi_buf_add_text(out, "]}");
}

static bool facts_channel(const pm_channel *channel, void *ctx)
{
    facts_walk *walk = ctx;
    pmi_buf_add_text(walk->out, walk->count++ ? ",{" : "{");
    pmi_admin_put(walk->out, "name", pm_channel_name(channel));
    facts_count(walk->out, "members", pm_channel_count(channel));
    pmi_buf_add_byte(walk->out, '}');
    return walk->count < FACTS_LIST_MAX;
}

static void facts_channels(const pmi_facts *facts, const char *param,
                           pmi_buf *out)
{
    pmi_channels *channels = pmi_app_channels(facts->app);
    facts_walk walk = {out, 0};
    (void)param;
    facts_who(facts, out);
    facts_count(out, "count", pmi_channels_count(channels));
    pmi_buf_add_text(out, ",\"channels\":[");
    pmi_channels_each(channels, facts_channel, &walk);
    pmi_buf_add_text(out, "]}");
}

static void facts_crons(const pmi_facts *facts, const char *param, pmi_buf *out)
{
    (void)param;
    facts_who(facts, out);
    pmi_buf_add_text(out, ",\"crons\":");
    pmi_crons_print(pmi_app_crons(facts->app), out);
    pmi_buf_add_byte(out, '}');
}

/* Sessions by why they ended; those that never happened are left out. */
static void facts_closed(const pm_app *app, pmi_buf *out)
{
    const uint64_t *closed = pmi_connector_closed(pmi_app_connector(app));
    size_t count = 0;
    pmi_buf_add_text(out, ",\"closed\":{");
    for (int i = 0; i < PM_CLOSE_COUNT; i++) {
        if (!closed[i])
            continue;
        if (count++)
            pmi_buf_add_byte(out, ',');
        pmi_json_add_string(out, pm_text(pm_close_text((pm_close_reason)i)));
        pmi_buf_add_format(out, ":%llu", (unsigned long long)closed[i]);
    }
    pmi_buf_add_byte(out, '}');
}

static void facts_counters(const pmi_facts *facts, const char *param,
                           pmi_buf *out)
{
    pm_app *app = facts->app;
    pm_loop *loop = pm_app_loop(app);
    const pmi_conn_totals *totals = pmi_conn_totals_of(loop);
    (void)param;
    facts_who(facts, out);
    facts_count(out, "sessions", pmi_sessions_count(pmi_app_sessions(app)));
    facts_count(out, "requestsInFlight",
                pmi_requests_busy(pmi_app_requests(app)));
    facts_count(out, "callsInFlight", pmi_rpc_busy(pmi_app_rpc(app)));
    facts_count(out, "channels", pmi_channels_count(pmi_app_channels(app)));
    facts_count(out, "loopLagUs", pmi_loop_lag_us(loop));
    facts_count(out, "loopBytesIn", totals->bytes_in);
    facts_count(out, "loopBytesOut", totals->bytes_out);
    facts_closed(app, out);
    pmi_buf_add_text(out, ",\"numbers\":{");
    pmi_stats_json(app, out);
    pmi_buf_add_text(out, "}}");
}

static void facts_node(const pmi_facts *facts, const char *param, pmi_buf *out)
{
    pmi_host_process process;
    (void)param;
    facts_process(facts, &process);
    facts_who(facts, out);
    facts_count(out, "pid", (uint64_t)process.pid);
    facts_mib(out, "rss", process.rss_bytes);
    facts_uptime(facts, out);
    facts_count(out, "userMs", (uint64_t)(process.user_s * 1000));
    facts_count(out, "systemMs", (uint64_t)(process.system_s * 1000));
    facts_count(out, "loopLagUs", pmi_loop_lag_us(pm_app_loop(facts->app)));
    pmi_buf_add_byte(out, '}');
}

static void facts_system(const pmi_facts *facts, const char *param,
                         pmi_buf *out)
{
    pmi_host_machine machine;
    (void)param;
    memset(&machine, 0, sizeof machine);
    if (!pmi_loop_memory_only(pm_app_loop(facts->app)))
        pmi_host_machine_read(&machine);
    facts_who(facts, out);
    pmi_admin_put(out, "hostname", machine.name);
    facts_count(out, "processors", machine.processors);
    facts_mib(out, "memory", machine.memory_bytes);
    facts_mib(out, "free", machine.free_bytes);
    pmi_buf_add_format(out, ",\"load\":[%.2f,%.2f,%.2f]}", machine.load[0],
                       machine.load[1], machine.load[2]);
}

static void facts_modules(const pmi_facts *facts, const char *param,
                          pmi_buf *out)
{
    (void)param;
    pmi_modules_names(pmi_app_modules(facts->app), false, out);
}

static void facts_status(const pmi_facts *facts, const char *param,
                         pmi_buf *out)
{
    pmi_app_state state = pmi_app_state_of(facts->app);
    (void)param;
    facts_who(facts, out);
    pmi_admin_put(out, "state",
                  state == PMI_APP_RUNNING    ? "running"
                  : state == PMI_APP_STOPPING ? "stopping"
                                              : "stopped");
    pmi_buf_add_byte(out, '}');
}

static void facts_memory(const pmi_facts *facts, const char *param,
                         pmi_buf *out)
{
    pmi_host_process process;
    (void)param;
    facts_process(facts, &process);
    pmi_buf_add_format(out,
                       "{\"rss\":%llu,\"heapTotal\":%llu,\"heapUsed\":%llu}",
                       (unsigned long long)process.rss_bytes,
                       (unsigned long long)process.heap_bytes,
                       (unsigned long long)process.heap_used_bytes);
}

/* Of the components Pomelo names, those that have settings worth showing. */
static void facts_config(const pmi_facts *facts, const char *param,
                         pmi_buf *out)
{
    const pm_connector_opts *connector = pmi_app_connector_opts(facts->app);
    const pm_rpc_opts_app *rpc = pmi_app_rpc_opts(facts->app);
    if (!strcmp(param, "connector"))
        pmi_buf_add_format(
            out,
            "{\"heartbeat\":%g,\"useDict\":%s,\"useProtobuf\":%s,"
            "\"useCrypto\":%s}",
            connector->heartbeat_s, connector->use_dict ? "true" : "false",
            connector->use_protobuf ? "true" : "false",
            connector->use_crypto ? "true" : "false");
    else if (!strcmp(param, "proxy"))
        pmi_buf_add_format(out, "{\"timeout\":%u,\"keepalive\":%u}",
                           (unsigned)rpc->deadline_ms,
                           (unsigned)rpc->silent_ms);
    else
        pmi_buf_add_text(out, "null");
}

static void facts_components(const pmi_facts *facts, const char *param,
                             pmi_buf *out)
{
    bool frontend = pm_app_server(facts->app)->frontend;
    (void)param;
    pmi_buf_add_text(out, "{\"proxy\":{},\"remote\":{},\"backendSession\":{},"
                          "\"channel\":{},\"server\":{},\"monitor\":{}");
    if (frontend)
        pmi_buf_add_text(out, ",\"connection\":{},\"connector\":{},"
                              "\"session\":{},\"pushScheduler\":{}");
    pmi_buf_add_byte(out, '}');
}

static void facts_settings(const pmi_facts *facts, const char *param,
                           pmi_buf *out)
{
    const pm_server *self = pm_app_server(facts->app);
    (void)param;
    pmi_buf_add_byte(out, '{');
    pmi_admin_put(out, "env", pm_app_env(facts->app));
    pmi_admin_put(out, "serverType", self->type);
    pmi_admin_put(out, "serverId", self->id);
    pmi_admin_put(out, "version", pm_version());
    if (self->raw) {
        pmi_buf_add_text(out, ",\"curServer\":");
        pmi_buf_add_text(out, self->raw);
    }
    pmi_buf_add_byte(out, '}');
}

static void facts_get(const pmi_facts *facts, const char *param, pmi_buf *out)
{
    const pm_server *self = pm_app_server(facts->app);
    const char *value = NULL;
    if (!strcmp(param, "serverId"))
        value = self->id;
    else if (!strcmp(param, "serverType"))
        value = self->type;
    else if (!strcmp(param, "env"))
        value = pm_app_env(facts->app);
    if (value)
        pmi_json_add_string(out, pm_text(value));
    else
        pmi_buf_add_text(out, "null");
}

/* ---- The table --------------------------------------------------------- */

static const struct facts_question {
    const char *name;
    void (*tell)(const pmi_facts *facts, const char *param, pmi_buf *out);
    bool gathered;
} facts_questions[] = {
    {"list", facts_list, true},
    {"servers", facts_servers, true},
    {"connections", facts_connections, true},
    {"logins", facts_connections, true},
    {"channels", facts_channels, true},
    {"crons", facts_crons, true},
    {"counters", facts_counters, true},
    {"nodeInfo", facts_node, true},
    {"systemInfo", facts_system, true},
    {"modules", facts_modules, false},
    {"status", facts_status, false},
    {"memory", facts_memory, false},
    {"config", facts_config, false},
    {"components", facts_components, false},
    {"settings", facts_settings, false},
    {"get", facts_get, false},
};

static const struct facts_question *facts_find(const char *question)
{
    for (size_t i = 0; i < PMI_COUNT(facts_questions); i++)
        if (!strcmp(facts_questions[i].name, question))
            return &facts_questions[i];
    return NULL;
}

bool pmi_facts_tell(const pmi_facts *facts, const char *question,
                    const char *param, pmi_buf *out)
{
    const struct facts_question *known = facts_find(question);
    if (known)
        known->tell(facts, param, out);
    return known != NULL;
}

bool pmi_facts_is_gathered(const char *question)
{
    const struct facts_question *known = facts_find(question);
    return known && known->gathered;
}
