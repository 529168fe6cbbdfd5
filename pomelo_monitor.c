/* SPDX-License-Identifier: MIT */
/* pomelo_monitor.c -- a server's end of the link to its master.
 *
 *   AWAY --dial--> CONNECT --register, or reconnect--> UP --lost--> AWAY
 *
 * What the master tells is added to the table and removed from it; that the
 * master is away, or new and does not know everybody yet, removes nobody: who
 * is missing in its list is given time to come back, and is removed only when
 * our own link to it is down too. A removal names the incarnation that it
 * means; one of an earlier process is late and ignored. Whose id another
 * process has by now stops. Start at monitor_opened and monitor_watcher. */
#include "pomelo_monitor_internal.h"
#include "pomelo_count_internal.h"

#include "pomelo_connector_internal.h"
#include "pomelo_cron_internal.h"
#include "pomelo_master_internal.h"

#include <cjson/cJSON.h>

#define MONITOR_BACKOFF_MS 100
#define MONITOR_ANSWER_MS 5000
#define MONITOR_LEAVE_MS 500
#define MONITOR_PING_MS 5000
#define MONITOR_SILENT_MS 15000
#define MONITOR_DOUBT_MS 10000
#define MONITOR_DRAIN_MS 3000
#define MONITOR_BYTES (16 * 1024 * 1024)

/* What the master has told us of a server. */
typedef struct monitor_told {
    char incarnation[64];
    bool doubt; /* not in the master's last list */
} monitor_told;

struct pmi_monitor {
    pm_app *app;
    const pmi_env *env;
    const pm_master_opts *opts;
    pmi_facts facts;
    pmi_admin_link *link; /* NULL: between two tries */
    uint32_t order;       /* our place, as the master has told; 0: not yet */
    pmi_timer timer;      /* next try, answer, ping */
    pmi_timer doubt;
    pmi_task stop;
    pmi_map told; /* id -> monitor_told */
    uint64_t late_removals;
    char incarnation[17];
    uint32_t tries;
    pm_close_reason last_why; /* so that the log tells each reason once */
    bool up, registered_once, refused, replaced, stop_at_once;
    bool closed;
};

static void monitor_dial(pmi_monitor *monitor);

static pm_loop *monitor_loop(const pmi_monitor *monitor)
{
    return pm_app_loop(monitor->app);
}

bool pmi_monitor_is_up(const pmi_monitor *monitor)
{
    return monitor->up;
}

uint64_t pmi_monitor_late_removals(const pmi_monitor *monitor)
{
    return monitor->late_removals;
}

/* ---- Who we are -------------------------------------------------------- */

/* The entry's own text without its brackets, as a Node server hands on its
 * arguments; what we know better is said behind it, and the last one counts. */
static void monitor_put_info(const pmi_monitor *monitor, pmi_buf *out)
{
    const pm_server *self = pm_app_server(monitor->app);
    const char *raw = self->raw;
    size_t len = raw ? strlen(raw) : 0;
    pmi_buf text;
    pmi_buf_init(&text, monitor->env, SIZE_MAX);
    pmi_buf_add_byte(&text, '{');
    /* The host's own text may be anything; `{}` has no member to go on. */
    if (len > 2 && raw[0] == '{' && raw[len - 1] == '}' && strchr(raw, '"') &&
        pmi_json_check(pm_text(raw), PMI_JSON_DEPTH_MAX, NULL) == PM_OK) {
        pmi_buf_add(&text, raw + 1, len - 2);
        pmi_buf_add_byte(&text, ',');
    }
    pmi_buf_add_text(&text, "\"main\":\"pomelo\"");
    pmi_admin_put(&text, "env", pm_app_env(monitor->app));
    pmi_admin_put(&text, "id", self->id);
    pmi_admin_put(&text, "host", self->host);
    pmi_buf_add_format(&text, ",\"port\":%u", (unsigned)self->port);
    if (self->client_port)
        pmi_buf_add_format(&text, ",\"clientPort\":%u",
                           (unsigned)self->client_port);
    if (self->frontend)
        pmi_buf_add_text(&text, ",\"frontend\":\"true\"");
    if (self->max_connections)
        pmi_buf_add_format(&text, ",\"max-connections\":%u",
                           (unsigned)self->max_connections);
    if (self->weight)
        pmi_buf_add_format(&text, ",\"weight\":%u", (unsigned)self->weight);
    if (self->cpu)
        pmi_buf_add_format(&text, ",\"cpu\":%d", self->cpu - 1);
    pmi_admin_put(&text, "serverType", self->type);
    pmi_admin_put(&text, "incarnation", monitor->incarnation);
    if (monitor->order)
        pmi_buf_add_format(&text, ",\"order\":%u", (unsigned)monitor->order);
    pmi_buf_add_byte(&text, '}');
    if (text.failed || pmi_json_canonical(monitor->env, pmi_buf_slice(&text),
                                          PMI_JSON_DEPTH_MAX, out))
        out->failed = true;
    pmi_buf_fini(&text);
}

static pm_err monitor_register(pmi_monitor *monitor)
{
    const pm_server *self = pm_app_server(monitor->app);
    bool again = monitor->registered_once;
    pmi_buf text;
    pm_err err;
    pmi_buf_init(&text, monitor->env, SIZE_MAX);
    pmi_buf_add_byte(&text, '{');
    pmi_admin_put(&text, "id", self->id);
    pmi_admin_put(&text, "type", "monitor");
    pmi_admin_put(&text, "serverType", self->type);
    pmi_buf_add_format(&text, ",\"pid\":%lld",
                       (long long)pmi_facts_pid(&monitor->facts));
    pmi_buf_add_text(&text, ",\"info\":");
    monitor_put_info(monitor, &text);
    if (monitor->opts->token)
        pmi_admin_put(&text, "token", monitor->opts->token);
    else
        pmi_buf_add_text(&text, ",\"token\":null");
    pmi_buf_add_byte(&text, '}');
    err = text.failed ? PM_ENOMEM
                      : pmi_admin_publish(monitor->link,
                                          again ? "reconnect" : "register",
                                          pmi_buf_slice(&text), false);
    pmi_buf_fini(&text);
    return err;
}

/* ---- The table --------------------------------------------------------- */

static bool monitor_same(const pm_server *known, const pm_server *told)
{
    return !strcmp(known->type, told->type) &&
           !strcmp(known->host, told->host ? told->host : "127.0.0.1") &&
           known->port == told->port &&
           known->client_port == told->client_port &&
           known->frontend == told->frontend;
}

/* Puts it into the table unless it stands there just so: a link that works is
 * not given up because its server has been told of once more. */
static pm_err monitor_table(pmi_monitor *monitor, const pm_server *told,
                            const cJSON *info)
{
    const pm_server *known = pm_server_find(monitor->app, told->id);
    pm_server entry = *told;
    pmi_buf raw;
    pm_err err = PM_OK;
    if (known && monitor_same(known, told))
        return PM_OK;
    if (known)
        pm_server_remove(monitor->app, told->id);
    if (monitor->closed)
        return PM_ECLOSED;
    pmi_buf_init(&raw, monitor->env, SIZE_MAX);
    err = pmi_json_print(info, PMI_JSON_DEPTH_MAX, &raw);
    pmi_buf_add_byte(&raw, 0);
    if (err == PM_OK && raw.failed)
        err = PM_ENOMEM;
    entry.raw = (const char *)raw.data;
    if (err == PM_OK)
        err = pm_server_add(monitor->app, &entry);
    pmi_buf_fini(&raw);
    return err;
}

/* Where the master has it: routers that count on the order then choose alike
 * in every process. */
static void monitor_place(pmi_monitor *monitor, const char *id,
                          const cJSON *info)
{
    pmi_cluster *cluster = pmi_app_cluster(monitor->app);
    pmi_server *server = pmi_cluster_find(cluster, id);
    uint32_t order = (uint32_t)pmi_admin_number(info, "order", UINT32_MAX);
    if (server && order)
        pmi_cluster_place(cluster, server, order - 1);
}

static pm_err monitor_add(pmi_monitor *monitor, const cJSON *info)
{
    const char *incarnation = pmi_admin_text(info, "incarnation");
    pm_server server;
    monitor_told *told;
    pm_err err;
    if (!pmi_admin_server(info, &server))
        return PM_EINVAL;
    if (!strcmp(server.id, pm_app_server(monitor->app)->id)) {
        monitor->order = (uint32_t)pmi_admin_number(info, "order", UINT32_MAX);
        monitor_place(monitor, server.id, info);
        return PM_OK;
    }
    told = pmi_map_get(&monitor->told, pm_text(server.id));
    if (!told) {
        told = pmi_zalloc(monitor->env, sizeof *told);
        if (!told)
            return PM_ENOMEM;
        if (pmi_map_put(&monitor->told, pm_text(server.id), told, NULL)) {
            pmi_free(monitor->env, told);
            return PM_ENOMEM;
        }
    }
    told->doubt = false;
    pmi_format(told->incarnation, sizeof told->incarnation, "%s",
               incarnation ? incarnation : "");
    err = monitor_table(monitor, &server, info);
    if (err == PM_OK && !monitor->closed)
        monitor_place(monitor, server.id, info);
    return err;
}

static void monitor_drop(pmi_monitor *monitor, const char *id)
{
    monitor_told *told = pmi_map_remove(&monitor->told, pm_text(id));
    pmi_server *server = pmi_cluster_find(pmi_app_cluster(monitor->app), id);
    pmi_free(monitor->env, told);
    if (server) /* it may be stopping, or out of the master's sight alone */
        server->gently = true;
    pm_server_remove(monitor->app, id);
}

static pm_err monitor_remove(pmi_monitor *monitor, const cJSON *body)
{
    const char *id = pmi_admin_text(body, "id");
    const char *incarnation = pmi_admin_text(body, "incarnation");
    monitor_told *told = id ? pmi_map_get(&monitor->told, pm_text(id)) : NULL;
    if (!id)
        return PM_EINVAL;
    if (!told)
        return PM_OK; /* the table's own, or gone already */
    if (incarnation && strcmp(incarnation, told->incarnation) != 0) {
        monitor->late_removals++; /* its successor is there */
        return PM_OK;
    }
    monitor_drop(monitor, id);
    return PM_OK;
}

/* Who has been missing for so long, and can not be reached either, is gone. */
static void monitor_decide(pmi_timer *timer)
{
    pmi_monitor *monitor = PMI_OUTER(timer, pmi_monitor, doubt);
    pmi_map_walk walk;
    bool again = false;
    if (!monitor->up)
        return; /* the next list begins anew */
    walk = pmi_map_begin(&monitor->told);
    while (!monitor->closed && pmi_map_next(&walk)) {
        const monitor_told *told = walk.value;
        char id[256];
        pmi_format(id, sizeof id, "%.*s", (int)walk.key.len,
                   (const char *)walk.key.data);
        if (!told->doubt)
            continue;
        if (pm_server_is_up(monitor->app, id))
            again = true;
        else
            monitor_drop(monitor, id);
    }
    pmi_map_end(&walk);
    if (again && !monitor->closed)
        pmi_timer_set(monitor_loop(monitor), timer, MONITOR_DOUBT_MS * 1000,
                      monitor_decide);
}

/* The master's whole view: {"id": info, ..}. */
static pm_err monitor_list(pmi_monitor *monitor, const cJSON *list)
{
    const cJSON *info = cJSON_IsObject(list) ? list->child : NULL;
    pmi_map_walk walk = pmi_map_begin(&monitor->told);
    while (pmi_map_next(&walk))
        ((monitor_told *)walk.value)->doubt = true;
    for (; info; info = info->next) {
        pm_err err = monitor_add(monitor, info);
        if (monitor->closed)
            return PM_ECLOSED;
        if (err == PM_ENOMEM)
            return err;
    }
    pmi_timer_set(monitor_loop(monitor), &monitor->doubt,
                  MONITOR_DOUBT_MS * 1000, monitor_decide);
    return PM_OK;
}

/* ---- __monitorwatcher__ ------------------------------------------------ */

static void monitor_watcher(pm_admin_call *call, void *ctx)
{
    pmi_monitor *monitor = ctx;
    const char *action = pmi_admin_text(call->body, "action");
    pm_err err = PM_EINVAL;
    if (!action)
        action = "";
    if (!strcmp(action, "addServer"))
        err = monitor_add(monitor, pmi_json_get(call->body, "server"));
    else if (!strcmp(action, "removeServer"))
        err = monitor_remove(monitor, call->body);
    else if (!strcmp(action, "replaceServer"))
        err = monitor_list(monitor, pmi_json_get(call->body, "servers"));
    else if (!strcmp(action, "startOver"))
        err = PM_OK;
    /* What is missing here must be told anew. */
    if (err == PM_ENOMEM && !monitor->closed && monitor->link)
        pmi_conn_close(monitor->link->conn, PM_CLOSE_MEMORY, false, 0);
    if (err == PM_OK && !strcmp(action, "startOver"))
        pmi_app_all_started(monitor->app);
    pmi_admin_answer(call, pm_text(err == PM_OK ? "1" : "0"),
                     pm_bytes(NULL, 0));
}

/* ---- __console__ ------------------------------------------------------- */

static void monitor_stop_now(pmi_task *task)
{
    pmi_monitor *monitor = PMI_OUTER(task, pmi_monitor, stop);
    const pm_master_opts *opts = monitor->opts;
    if (opts->stop)
        opts->stop(monitor->app, monitor->stop_at_once, opts->ctx);
    else
        pm_app_stop(monitor->app, monitor->stop_at_once ? 0 : MONITOR_DRAIN_MS,
                    NULL, NULL);
}

/* On a later turn: the answer leaves first. */
static void monitor_stop(pmi_monitor *monitor, bool at_once)
{
    monitor->stop_at_once = at_once;
    pmi_loop_defer(monitor_loop(monitor), &monitor->stop, monitor_stop_now);
}

/* {"serverId":..,"body":..} in the place of the error. */
static void monitor_answer_fact(pmi_monitor *monitor, pm_admin_call *call,
                                const char *question, const char *param)
{
    pmi_buf error;
    bool known;
    pmi_buf_init(&error, pmi_loop_env(call->loop), SIZE_MAX);
    pmi_buf_add_byte(&error, '{');
    pmi_admin_put(&error, "serverId", pm_app_server(monitor->app)->id);
    pmi_buf_add_text(&error, ",\"body\":");
    known = pmi_facts_tell(&monitor->facts, question, param, &error);
    pmi_buf_add_byte(&error, '}');
    if (!known || error.failed)
        pm_admin_fail(call, "no answer");
    else
        pmi_admin_answer(call, pmi_buf_slice(&error), pm_bytes(NULL, 0));
    pmi_buf_fini(&error);
}

static void monitor_answer_self(pmi_monitor *monitor, pm_admin_call *call,
                                bool whole)
{
    pmi_buf error;
    pmi_buf_init(&error, pmi_loop_env(call->loop), SIZE_MAX);
    if (whole)
        monitor_put_info(monitor, &error);
    else
        pmi_json_add_string(&error, pm_text(pm_app_server(monitor->app)->id));
    pmi_admin_answer(call, error.failed ? pm_text("0") : pmi_buf_slice(&error),
                     pm_bytes(NULL, 0));
    pmi_buf_fini(&error);
}

static void monitor_blacklist(pmi_monitor *monitor, const cJSON *list)
{
    const cJSON *at = cJSON_IsArray(list) ? list->child : NULL;
    for (; at; at = at->next)
        if (!cJSON_IsString(at) ||
            pm_app_block(monitor->app, at->valuestring, false))
            PMI_LOG(monitor->env, PM_LOG_WARN, "monitor",
                    "blacklist: not a CIDR block: %s",
                    cJSON_IsString(at) ? at->valuestring : "(no text)");
}

/* Our master asks, and hears what is wrong; a Node master only says it. */
static void monitor_cron(pmi_monitor *monitor, pm_admin_call *call, bool add)
{
    char why[256] = "";
    if (pmi_crons_told(pmi_app_crons(monitor->app),
                       pmi_json_get(call->body, "cron"), add, why, sizeof why))
        pmi_admin_answer_word(call, "%s: %s", pm_app_server(monitor->app)->id,
                              why);
    else /* the app may be gone */
        pmi_admin_answer(call, pm_bytes(NULL, 0), pm_bytes(NULL, 0));
}

static void monitor_console(pm_admin_call *call, void *ctx)
{
    pmi_monitor *monitor = ctx;
    const char *signal = pmi_admin_text(call->body, "signal");
    if (!signal)
        signal = "";
    if (!strcmp(signal, "list")) {
        monitor_answer_fact(monitor, call, "list", "");
    } else if (!strcmp(signal, "kill")) {
        monitor_answer_self(monitor, call, false);
        monitor_stop(monitor, true);
    } else if (!strcmp(signal, "restart")) {
        monitor_answer_self(monitor, call, true);
        monitor_stop(monitor, false);
    } else if (!strcmp(signal, "addCron")) {
        monitor_cron(monitor, call, true);
    } else if (!strcmp(signal, "removeCron")) {
        monitor_cron(monitor, call, false);
    } else {
        if (!strcmp(signal, "stop"))
            monitor_stop(monitor, false);
        else if (!strcmp(signal, "blacklist"))
            monitor_blacklist(monitor, pmi_json_get(call->body, "blacklist"));
        pmi_admin_answer(call, pm_bytes(NULL, 0), pm_bytes(NULL, 0));
    }
}

/* ---- watchServer, nodeInfo, systemInfo --------------------------------- */

static void monitor_watch(pm_admin_call *call, void *ctx)
{
    pmi_monitor *monitor = ctx;
    const char *comd = pmi_admin_text(call->body, "comd");
    const char *param = pmi_admin_text(call->body, "param");
    pmi_buf body;
    comd = comd ? comd : "";
    param = param ? param : "";
    if (pmi_facts_is_gathered(comd)) {
        monitor_answer_fact(monitor, call, comd, param);
        return;
    }
    pmi_buf_init(&body, pmi_loop_env(call->loop), SIZE_MAX);
    if (!pmi_facts_tell(&monitor->facts, comd, param, &body))
        pmi_admin_answer_word(call, "%s is not supported", comd);
    else if (body.failed)
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
    else
        pmi_admin_answer(call, pm_bytes(NULL, 0), pmi_buf_slice(&body));
    pmi_buf_fini(&body);
}

/* A Node master says a word and hears one back. */
static void monitor_info(pmi_monitor *monitor, pm_admin_call *call,
                         const char *question)
{
    pmi_buf body;
    if (!call->notify) {
        monitor_answer_fact(monitor, call, question, "");
        return;
    }
    pmi_buf_init(&body, monitor->env, SIZE_MAX);
    pmi_buf_add_byte(&body, '{');
    pmi_admin_put(&body, "serverId", pm_app_server(monitor->app)->id);
    pmi_buf_add_text(&body, ",\"body\":");
    pmi_facts_tell(&monitor->facts, question, "", &body);
    pmi_buf_add_byte(&body, '}');
    if (!body.failed && monitor->link)
        pmi_admin_ask(monitor->link, NULL, question, pmi_buf_slice(&body), 0,
                      NULL, NULL);
    pmi_buf_fini(&body);
    pmi_admin_answer(call, pm_bytes(NULL, 0), pm_bytes(NULL, 0));
}

static void monitor_node(pm_admin_call *call, void *ctx)
{
    monitor_info(ctx, call, "nodeInfo");
}

static void monitor_system(pm_admin_call *call, void *ctx)
{
    monitor_info(ctx, call, "systemInfo");
}

/* ---- The link ---------------------------------------------------------- */

static void monitor_retry(pmi_timer *timer)
{
    monitor_dial(PMI_OUTER(timer, pmi_monitor, timer));
}

/* 100 ms, 200 ms, ... up to the limit, of which a random half is left out; who
 * was refused does not hurry. */
static void monitor_later(pmi_monitor *monitor)
{
    pm_loop *loop = monitor_loop(monitor);
    uint64_t max = monitor->opts->reconnect_ms_max;
    uint64_t ms = (uint64_t)MONITOR_BACKOFF_MS << pmi_min(monitor->tries, 16);
    if (ms > max || monitor->refused)
        ms = max;
    monitor->tries++;
    monitor->refused = false;
    pmi_timer_set(loop, &monitor->timer,
                  ms * 500 + pmi_loop_random_u64(loop) % (ms * 500 + 1),
                  monitor_retry);
}

static void monitor_closed(pmi_admin_link *link, pm_close_reason why)
{
    pmi_monitor *monitor = link->owner;
    if (monitor->up || why != monitor->last_why)
        PMI_LOG(monitor->env, PM_LOG_WARN, "monitor",
                "no link to the master: %s", pm_close_text(why));
    monitor->last_why = why;
    monitor->up = false;
    monitor->link = NULL;
    pmi_timer_clear(&monitor->doubt);
    pmi_admin_link_free(link);
    if (pmi_app_state_of(monitor->app) == PMI_APP_RUNNING)
        monitor_later(monitor); /* who stops does not come back */
}

static void monitor_unanswered(pmi_timer *timer)
{
    pmi_monitor *monitor = PMI_OUTER(timer, pmi_monitor, timer);
    pmi_conn_close(monitor->link->conn, PM_CLOSE_HANDSHAKE_TIMEOUT, false, 0);
}

static void monitor_opened(pmi_admin_link *link)
{
    pmi_monitor *monitor = link->owner;
    if (monitor_register(monitor))
        pmi_conn_close(link->conn, PM_CLOSE_MEMORY, false, 0);
}

static void monitor_watch_link(pmi_timer *timer)
{
    pmi_monitor *monitor = PMI_OUTER(timer, pmi_monitor, timer);
    pm_loop *loop = monitor_loop(monitor);
    uint64_t silent = pmi_loop_now_us(loop) - monitor->link->heard_us;
    if (silent >= MONITOR_SILENT_MS * UINT64_C(1000)) {
        pmi_conn_close(monitor->link->conn, PM_CLOSE_PEER_SILENT, false, 0);
        return;
    }
    if (silent >= MONITOR_PING_MS * UINT64_C(1000))
        pmi_admin_ping(monitor->link);
    pmi_timer_set(loop, timer, MONITOR_PING_MS * UINT64_C(1000),
                  monitor_watch_link);
}

static void monitor_record(pmi_monitor *monitor)
{
    pmi_buf body;
    pmi_buf_init(&body, monitor->env, SIZE_MAX);
    pmi_buf_add_text(&body, "{\"action\":\"record\"");
    pmi_admin_put(&body, "id", pm_app_server(monitor->app)->id);
    pmi_buf_add_byte(&body, '}');
    if (body.failed || pmi_admin_ask(monitor->link, NULL, "__masterwatcher__",
                                     pmi_buf_slice(&body), 0, NULL, NULL))
        pmi_conn_close(monitor->link->conn, PM_CLOSE_MEMORY, false, 0);
    pmi_buf_fini(&body);
}

static void monitor_subscribed(const pm_admin_result *result, void *ctx)
{
    pmi_monitor *monitor = ctx;
    if (monitor->closed || !monitor->link || !monitor->link->conn)
        return; /* the link has ended: all begins anew */
    if (result->err || monitor_list(monitor, result->body)) {
        if (!monitor->closed)
            pmi_conn_close(monitor->link->conn, PM_CLOSE_MEMORY, false, 0);
        return;
    }
    monitor_record(monitor);
}

static pm_err monitor_subscribe(pmi_monitor *monitor)
{
    pmi_buf body;
    pm_err err = PM_ENOMEM;
    pmi_buf_init(&body, monitor->env, SIZE_MAX);
    pmi_buf_add_text(&body, "{\"action\":\"subscribe\"");
    pmi_admin_put(&body, "id", pm_app_server(monitor->app)->id);
    pmi_buf_add_byte(&body, '}');
    if (!body.failed)
        err = pmi_admin_ask(monitor->link, NULL, "__masterwatcher__",
                            pmi_buf_slice(&body), MONITOR_ANSWER_MS,
                            monitor_subscribed, monitor);
    pmi_buf_fini(&body);
    return err;
}

/* The master's word to our name. */
static pm_close_reason monitor_welcome(pmi_monitor *monitor,
                                       const pmi_admin_msg *msg)
{
    bool again = msg->kind == PMI_ADMIN_RECONNECT_OK;
    const char *word = pmi_admin_text(msg->tree, "msg");
    if (monitor->up || again != monitor->registered_once)
        return PM_CLOSE_MESSAGE;
    if (pmi_admin_number(msg->tree, "code", 1000) != 1) {
        if (monitor->last_why != PM_CLOSE_AUTH)
            PMI_LOG(monitor->env, PM_LOG_ERROR, "monitor",
                    "the master refuses us: %s", word ? word : "");
        monitor->refused = true;
        if (pmi_admin_flag(msg->tree, "replaced") && !monitor->replaced) {
            monitor->replaced = true;
            monitor_stop(monitor, false);
        }
        return PM_CLOSE_AUTH;
    }
    PMI_LOG(monitor->env, PM_LOG_INFO, "monitor", "registered%s",
            again ? " again" : "");
    monitor->up = monitor->registered_once = true;
    pmi_count(monitor->app, PMI_COUNT_MONITOR_REGISTERED);
    monitor->tries = 0;
    monitor->last_why = PM_CLOSE_NONE;
    monitor->link->topic = "monitor";
    pmi_timer_set(monitor_loop(monitor), &monitor->timer,
                  MONITOR_PING_MS * UINT64_C(1000), monitor_watch_link);
    if (!again && monitor_subscribe(monitor))
        return PM_CLOSE_MEMORY;
    return PM_CLOSE_NONE;
}

static pm_close_reason monitor_heard(pmi_admin_link *link, pmi_admin_msg *msg)
{
    pmi_monitor *monitor = link->owner;
    switch (msg->kind) {
    case PMI_ADMIN_REGISTER:
    case PMI_ADMIN_RECONNECT_OK:
        return monitor_welcome(monitor, msg);
    case PMI_ADMIN_REQUEST:
    case PMI_ADMIN_NOTIFY:
        if (!monitor->up)
            return PM_CLOSE_MESSAGE;
        pmi_module_ask(monitor->app, link, "", 0, PMI_ROLE_MONITOR, msg);
        return PM_CLOSE_NONE;
    case PMI_ADMIN_COMMAND: /* Pomelo's enable and disable: the master's own */
        return PM_CLOSE_NONE;
    default:
        return PM_CLOSE_MESSAGE;
    }
}

static const pmi_admin_ops monitor_ops = {monitor_opened, monitor_heard,
                                          monitor_closed};

static void monitor_dial(pmi_monitor *monitor)
{
    const char *host = monitor->opts->host;
    pmi_connect_opts opts = {.host = host ? host : "127.0.0.1",
                             .port = monitor->opts->port,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true,
                             .from = pm_app_server(monitor->app)->id};
    opts.limits.in_max = MONITOR_BYTES + PMI_MQTT_HEAD_MAX;
    opts.limits.out_max = MONITOR_BYTES;
    opts.limits.tally = PMI_TRAFFIC_ADMIN;
    opts.limits.open_ms = MONITOR_ANSWER_MS;
    if (pmi_admin_dial(monitor_loop(monitor), monitor->env, &opts, &monitor_ops,
                       monitor, &monitor->link)) {
        monitor->link = NULL;
        monitor_later(monitor);
        return;
    }
    pmi_timer_set(monitor_loop(monitor), &monitor->timer,
                  MONITOR_ANSWER_MS * UINT64_C(1000), monitor_unanswered);
}

/* ---- Leaving ----------------------------------------------------------- */

/* A Node master does not know the word: then nobody has been told. */
static void monitor_left(const pm_admin_result *result, void *ctx)
{
    pmi_monitor *monitor = ctx;
    (void)result;
    if (!monitor->closed)
        pmi_app_left(monitor->app);
}

bool pmi_monitor_leave(pmi_monitor *monitor)
{
    pm_err err = PM_ENOMEM;
    pmi_buf body;
    if (!monitor->up || !monitor->link)
        return false;
    pmi_buf_init(&body, monitor->env, SIZE_MAX);
    pmi_buf_add_text(&body, "{\"action\":\"leave\"");
    pmi_admin_put(&body, "id", pm_app_server(monitor->app)->id);
    pmi_buf_add_byte(&body, '}');
    if (!body.failed)
        err = pmi_admin_ask(monitor->link, NULL, "__masterwatcher__",
                            pmi_buf_slice(&body), MONITOR_LEAVE_MS,
                            monitor_left, monitor);
    pmi_buf_fini(&body);
    return err == PM_OK;
}

/* ---- Life -------------------------------------------------------------- */

static pm_err monitor_add_modules(pmi_monitor *monitor)
{
    const struct {
        const char *id;
        void (*monitor)(pm_admin_call *call, void *ctx);
    } own[] = {{"__monitorwatcher__", monitor_watcher},
               {"watchServer", monitor_watch},
               {"__console__", monitor_console},
               {"nodeInfo", monitor_node},
               {"systemInfo", monitor_system}};
    for (size_t i = 0; i < PMI_COUNT(own); i++) {
        pm_admin_module module = pm_admin_module_default();
        pm_err err;
        module.id = own[i].id;
        module.monitor = own[i].monitor;
        err = pmi_module_add(monitor->app, &module, monitor);
        if (err)
            return err;
    }
    return PM_OK;
}

pm_err pmi_monitor_new(pm_app *app, pmi_monitor **out)
{
    const pm_master_opts *opts = pmi_app_master_opts(app);
    pmi_monitor *monitor;
    if (!opts->port || !strcmp(pm_app_server(app)->type, "master"))
        return PM_OK;
    monitor = pmi_zalloc(pmi_app_env(app), sizeof *monitor);
    if (!monitor)
        return PM_ENOMEM;
    *out = monitor;
    monitor->app = app;
    monitor->env = pmi_app_env(app);
    monitor->opts = opts;
    pmi_facts_init(&monitor->facts, app);
    pmi_loop_map_init(pm_app_loop(app), &monitor->told);
    return monitor_add_modules(monitor);
}

void pmi_monitor_start(pmi_monitor *monitor)
{
    pmi_format(monitor->incarnation, sizeof monitor->incarnation, "%016llx",
               (unsigned long long)pmi_loop_random_u64(monitor_loop(monitor)));
    monitor->closed = false;
    monitor->registered_once = monitor->replaced = false;
    monitor->tries = 0;
    pmi_modules_start(pmi_app_modules(monitor->app), false);
    monitor_dial(monitor);
}

void pmi_monitor_close(pmi_monitor *monitor)
{
    pmi_admin_link *link = monitor->link;
    if (monitor->closed)
        return;
    monitor->closed = true;
    monitor->up = false;
    pmi_timer_clear(&monitor->timer);
    pmi_timer_clear(&monitor->doubt);
    pmi_task_cancel(&monitor->stop);
    monitor->link = NULL;
    if (link)
        pmi_admin_leave(link, PM_CLOSE_STOP);
    pmi_admin_link_free(link);
}

void pmi_monitor_free(pmi_monitor *monitor)
{
    pmi_map_walk walk;
    if (!monitor)
        return;
    walk = pmi_map_begin(&monitor->told);
    while (pmi_map_next(&walk))
        pmi_free(monitor->env, walk.value);
    pmi_map_fini(&monitor->told);
    pmi_free(monitor->env, monitor);
}

/* ---- Public ------------------------------------------------------------ */

bool pm_master_is_up(const pm_app *app)
{
    const pmi_monitor *monitor = pmi_app_monitor(app);
    return monitor ? monitor->up
                   : pmi_app_master(app) &&
                         pmi_app_state_of(app) == PMI_APP_RUNNING;
}

/* From the master; from a server when it has none. */
static pm_err monitor_send(pm_app *app, const char *server_id,
                           const char *module, pm_slice body, pm_admin_cb cb,
                           void *ctx)
{
    pmi_master *master = pmi_app_master(app);
    const pmi_monitor *monitor = pmi_app_monitor(app);
    uint32_t timeout_ms = pmi_app_master_opts(app)->request_ms;
    if (master) {
        pmi_master_server *server = pmi_master_find(master, server_id);
        if (server)
            return pmi_master_ask(server, module, body, cb, ctx);
        if (server_id || cb)
            return server_id ? PM_ENOSERVER : PM_EINVAL;
        pmi_master_notify_all(master, module, body);
        return PM_OK;
    }
    if (server_id)
        return PM_EINVAL;
    if (!monitor || !monitor->up || !monitor->link)
        return PM_EDOWN;
    return pmi_admin_ask(monitor->link, NULL, module, body, timeout_ms, cb,
                         ctx);
}

pm_err pm_admin_request(pm_app *app, const char *server_id, const char *module,
                        const struct cJSON *body, pm_admin_cb cb, void *ctx)
{
    pmi_buf text;
    pm_err err = PM_OK;
    if (!module || !*module)
        return PM_EINVAL;
    if (pmi_app_state_of(app) == PMI_APP_FREED)
        return PM_ECLOSED;
    pmi_buf_init(&text, pmi_app_env(app), MONITOR_BYTES);
    if (body)
        err = pmi_json_print(body, PMI_JSON_DEPTH_MAX, &text);
    if (err == PM_OK)
        err =
            monitor_send(app, server_id, module, pmi_buf_slice(&text), cb, ctx);
    pmi_buf_fini(&text);
    return err;
}
