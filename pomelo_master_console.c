/* SPDX-License-Identifier: MIT */
/* pomelo_master_console.c -- what consoles ask of the master: __console__,
 * watchServer, nodeInfo, systemInfo.
 *
 * Three ways to an answer:
 *   at once    the master knows, or only passes a word on
 *   a round    every server is asked (pomelo_master_round.c)
 *   a job      something was set going; the answer comes when it is done, or
 *              when its time is over
 *
 * The user's level comes from the connection (pm_admin_call.level), never from
 * the message. Start at console_signals. */
#include "pomelo_master_internal.h"

#include <cjson/cJSON.h>

#define CONSOLE_LOOK_MS 50   /* between two looks at a job */
#define CONSOLE_JOB_MS 15000 /* its time */
#define CONSOLE_KILL_MS 5000
#define CONSOLE_IDS_MAX 4096
#define CONSOLE_DRAIN_MS 3000

static const pm_slice console_nothing = {NULL, 0};

static bool console_may_change(pm_admin_call *call, pmi_master *master)
{
    if (call->level <= 1)
        return true;
    pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_LEVEL);
    pmi_admin_answer_word(call, "Command permission denied");
    return false;
}

static void console_list(pmi_master *master, pm_admin_call *call)
{
    pmi_master_gather(master, call, "__console__", "list",
                      pm_text("{\"signal\":\"list\"}"));
}

/* ---- Jobs -------------------------------------------------------------- */

typedef struct console_job console_job;
/* Is it so now? late: the last look. */
typedef bool console_look(console_job *job, bool late);

/* A server that a job waits for. */
typedef struct console_target {
    char *id;              /* owned */
    uint64_t registration; /* the one that is to end */
    bool unknown;          /* there is no such server: nothing to wait for */
} console_target;

struct console_job {
    pmi_link in_jobs;
    pmi_master *master;
    pm_admin_call *call; /* NULL: it has its answer */
    pmi_timer timer;
    uint64_t until_us;
    console_look *look;
    console_target *targets; /* owned */
    size_t count;
};

static void console_job_free(console_job *job)
{
    const pmi_env *env = job->master->env;
    pmi_list_remove(&job->in_jobs);
    pmi_timer_clear(&job->timer);
    for (size_t i = 0; i < job->count; i++)
        pmi_free(env, job->targets[i].id);
    pmi_free(env, job->targets);
    pmi_free(env, job);
}

static void console_job_look(pmi_timer *timer)
{
    console_job *job = PMI_OUTER(timer, console_job, timer);
    pm_loop *loop = pmi_master_loop(job->master);
    bool late = pmi_loop_now_us(loop) >= job->until_us;
    if (job->look(job, late) || late) {
        console_job_free(job);
        return;
    }
    pmi_timer_set(loop, timer, CONSOLE_LOOK_MS * 1000, console_job_look);
}

static console_job *console_job_new(pmi_master *master, pm_admin_call *call,
                                    console_look *look, uint32_t ms)
{
    console_job *job = pmi_zalloc(master->env, sizeof *job);
    if (!job) {
        if (call)
            pm_admin_fail(call, pm_strerror(PM_ENOMEM));
        return NULL;
    }
    job->master = master;
    job->call = call;
    job->look = look;
    pmi_list_add(&master->jobs, &job->in_jobs);
    job->until_us =
        pmi_loop_now_us(pmi_master_loop(master)) + UINT64_C(1000) * ms;
    return job;
}

/* NULL: too many, or no memory. */
static console_target *console_job_put(console_job *job, const char *id)
{
    console_target *at;
    if (job->count >= CONSOLE_IDS_MAX)
        return NULL;
    at = pmi_resize_array(job->master->env, job->targets, job->count + 1,
                          sizeof *at);
    if (!at)
        return NULL;
    job->targets = at;
    at += job->count;
    memset(at, 0, sizeof *at);
    at->id = pmi_strdup(job->master->env, id);
    if (!at->id)
        return NULL;
    job->count++;
    return at;
}

static bool console_job_add(console_job *job, const pmi_master_server *server)
{
    console_target *at = console_job_put(job, server->id);
    if (at)
        at->registration = server->registration;
    return at != NULL;
}

static void console_job_go(console_job *job)
{
    pmi_timer_set(pmi_master_loop(job->master), &job->timer, 0,
                  console_job_look);
}

void pmi_master_console_close(pmi_master *master)
{
    pmi_task_cancel(&master->stop);
    while (!pmi_list_empty(&master->jobs)) {
        console_job *job = PMI_OUTER(master->jobs.next, console_job, in_jobs);
        if (job->call)
            pm_admin_fail(job->call, pm_strerror(PM_ECLOSED));
        console_job_free(job);
    }
}

static void console_stop_now(pmi_task *task)
{
    pmi_master *master = PMI_OUTER(task, pmi_master, stop);
    const pm_master_opts *opts = master->opts;
    if (opts->stop)
        opts->stop(master->app, master->stop_at_once, opts->ctx);
    else
        pm_app_stop(master->app, master->stop_at_once ? 0 : CONSOLE_DRAIN_MS,
                    NULL, NULL);
}

/* The master's own end, on a later turn: the answer leaves first. */
static void console_stop_self(pmi_master *master, bool at_once)
{
    master->stop_at_once = at_once;
    pmi_loop_defer(pmi_master_loop(master), &master->stop, console_stop_now);
}

/* ---- stop, kill -------------------------------------------------------- */

/* The server, as long as the link that is to end stands. */
static pmi_master_server *console_left(const console_job *job, size_t i)
{
    const console_target *target = &job->targets[i];
    pmi_master_server *server = pmi_master_find(job->master, target->id);
    if (server && server->link && server->registration == target->registration)
        return server;
    return NULL;
}

static bool console_all_gone(const console_job *job)
{
    for (size_t i = 0; i < job->count; i++)
        if (console_left(job, i))
            return false;
    return true;
}

/* Who is still linked when time is over is terminated by the host. Answers with
 * `done`, or with `remained` and the ids of those that it can not end. */
static void console_end_left(console_job *job, const char *done,
                             const char *remained)
{
    size_t left = 0;
    pmi_buf body;
    pmi_buf_init(&body, job->master->env, SIZE_MAX);
    pmi_buf_add_format(&body, "{%s,\"serverIds\":[", remained);
    for (size_t i = 0; i < job->count; i++) {
        pmi_master_server *server = console_left(job, i);
        if (!server || pmi_master_terminate(server))
            continue;
        if (left++)
            pmi_buf_add_byte(&body, ',');
        pmi_json_add_string(&body, pm_text(server->id));
    }
    pmi_buf_add_text(&body, "]}");
    if (job->call && left)
        pmi_admin_answer_buf(job->call, &body);
    else if (job->call)
        pmi_admin_answer(job->call, console_nothing, pm_text(done));
    pmi_buf_fini(&body);
}

/* All servers have gone: now the master. */
static bool console_stopped(console_job *job, bool late)
{
    if (!late && !console_all_gone(job))
        return false;
    console_end_left(job, "{\"status\":\"all\"}", "\"status\":\"all\"");
    console_stop_self(job->master, false);
    return true;
}

static bool console_part_stopped(console_job *job, bool late)
{
    if (!late && !console_all_gone(job))
        return false;
    console_end_left(job, "", "");
    return true;
}

static bool console_killed(console_job *job, bool late)
{
    if (!late && !console_all_gone(job))
        return false;
    console_end_left(job, "{\"code\":\"ok\"}", "\"code\":\"remained\"");
    console_stop_self(job->master, true);
    return true;
}

static void console_stop_all(pmi_master *master, pm_admin_call *call)
{
    console_job *job =
        console_job_new(master, call, console_stopped, master->opts->stop_ms);
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        if (job && server->link)
            console_job_add(job, server);
        pmi_master_stop_server(server, true);
    }
    if (job)
        console_job_go(job);
}

/* Pomelo answers at once; that they go is seen to all the same. */
static void console_stop_part(pmi_master *master, pm_admin_call *call,
                              const cJSON *ids)
{
    const char *self = pm_app_server(master->app)->id;
    console_job *job = console_job_new(master, NULL, console_part_stopped,
                                       master->opts->stop_ms);
    bool unknown = false, own = false;
    for (const cJSON *id = ids->child; id; id = id->next) {
        const char *text = cJSON_IsString(id) ? id->valuestring : "";
        pmi_master_server *server = pmi_master_find(master, text);
        if (!server) {
            own |= !strcmp(text, self);
            unknown |= strcmp(text, self) != 0;
            continue;
        }
        if (job && server->link)
            console_job_add(job, server);
        pmi_master_stop_server(server, false);
    }
    if (job)
        console_job_go(job);
    pmi_admin_answer(call,
                     unknown ? pm_text("\"Cannot find the server to stop.\"")
                             : console_nothing,
                     pm_text("{\"status\":\"part\"}"));
    if (own)
        console_stop_self(master, false);
}

static void console_stop(pmi_master *master, pm_admin_call *call)
{
    const cJSON *ids = pmi_json_get(call->body, "ids");
    if (cJSON_IsArray(ids) && ids->child)
        console_stop_part(master, call, ids);
    else
        console_stop_all(master, call);
}

static void console_ignore(const pm_admin_result *result, void *ctx)
{
    (void)result;
    (void)ctx;
}

static void console_kill(pmi_master *master, pm_admin_call *call)
{
    console_job *job =
        console_job_new(master, call, console_killed, CONSOLE_KILL_MS);
    pmi_map_walk walk;
    if (!job)
        return;
    walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        server->stopped = true;
        server->restarting = false;
        pmi_timer_clear(&server->respawn);
        if (!server->link) {
            pmi_master_terminate(server);
            continue;
        }
        console_job_add(job, server);
        pmi_master_ask(server, "__console__", pm_text("{\"signal\":\"kill\"}"),
                       console_ignore, NULL);
    }
    console_job_go(job);
}

/* ---- restart ----------------------------------------------------------- */

static bool console_target_back(console_job *job, console_target *target)
{
    const pmi_master_server *server = pmi_master_find(job->master, target->id);
    return server && server->link &&
           server->registration != target->registration;
}

/* The list of those that have not come back, or are unknown. */
static bool console_restarted(console_job *job, bool late)
{
    pmi_buf failed;
    size_t count = 0;
    for (size_t i = 0; i < job->count && !late; i++)
        if (!job->targets[i].unknown &&
            !console_target_back(job, &job->targets[i]))
            return false;
    pmi_buf_init(&failed, job->master->env, SIZE_MAX);
    pmi_buf_add_byte(&failed, '[');
    for (size_t i = 0; i < job->count; i++) {
        if (console_target_back(job, &job->targets[i]))
            continue;
        if (count++)
            pmi_buf_add_byte(&failed, ',');
        pmi_json_add_string(&failed, pm_text(job->targets[i].id));
    }
    pmi_buf_add_byte(&failed, ']');
    if (count == job->count)
        pmi_admin_answer(job->call, pm_text("\"all servers start failed.\""),
                         failed.failed ? console_nothing
                                       : pmi_buf_slice(&failed));
    else
        pmi_admin_answer_buf(job->call, &failed);
    pmi_buf_fini(&failed);
    return true;
}

static bool console_chosen(const pmi_master_server *server, const cJSON *ids,
                           const char *type)
{
    const cJSON *id = cJSON_IsArray(ids) ? ids->child : NULL;
    if (!id)
        return !type || !*type || !strcmp(server->type, type);
    for (; id; id = id->next)
        if (cJSON_IsString(id) && !strcmp(id->valuestring, server->id))
            return true;
    return false;
}

static void console_restart_one(console_job *job, pmi_master_server *server)
{
    if (!console_job_add(job, server))
        return;
    server->restarting = true;
    server->stopped = false;
    server->tries = 0;
    if (!server->link)
        pmi_master_lost(server); /* it is not there: just start it */
    else
        pmi_master_ask(server, "__console__",
                       pm_text("{\"signal\":\"restart\"}"), console_ignore,
                       NULL);
}

/* Of the ids those that are nobody's: they fail. */
static void console_restart_unknown(console_job *job, const cJSON *ids)
{
    const cJSON *id = cJSON_IsArray(ids) ? ids->child : NULL;
    for (; id; id = id->next) {
        const char *text = cJSON_IsString(id) ? id->valuestring : "";
        console_target *at = NULL;
        if (!pmi_master_find(job->master, text))
            at = console_job_put(job, text);
        if (at)
            at->unknown = true;
    }
}

static void console_restart(pmi_master *master, pm_admin_call *call)
{
    const cJSON *ids = pmi_json_get(call->body, "ids");
    const char *type = pmi_admin_text(call->body, "type");
    console_job *job;
    pmi_map_walk walk;
    if (!master->opts->spawn) {
        pmi_admin_answer_word(call, "this master can not start servers");
        return;
    }
    job = console_job_new(master, call, console_restarted, CONSOLE_JOB_MS);
    if (!job)
        return;
    walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk))
        if (console_chosen(walk.value, ids, type))
            console_restart_one(job, walk.value);
    if (job->count) {
        console_restart_unknown(job, ids);
        console_job_go(job);
        return;
    }
    if (type)
        pmi_admin_answer_word(
            call, "restart servers with unknown server type: %s", type);
    else
        pmi_admin_answer_word(call, "Cannot find the server to restart.");
    console_job_free(job);
}

/* ---- __console__ ------------------------------------------------------- */

static const struct console_signal {
    const char *name;
    void (*serve)(pmi_master *master, pm_admin_call *call);
    bool changes; /* for users of level 1 */
} console_signals[] = {
    {"list", console_list, false},
    {"stop", console_stop, true},
    {"kill", console_kill, true},
    {"add", pmi_master_add, true},
    {"restart", console_restart, true},
    {"addCron", pmi_master_cron, true},
    {"removeCron", pmi_master_cron, true},
    {"blacklist", pmi_master_blacklist, true},
};

static void console_client(pm_admin_call *call, void *ctx)
{
    pmi_master *master = ctx;
    const char *signal = pmi_admin_text(call->body, "signal");
    for (size_t i = 0; signal && i < PMI_COUNT(console_signals); i++) {
        if (strcmp(console_signals[i].name, signal) != 0)
            continue;
        if (!console_signals[i].changes || console_may_change(call, master))
            console_signals[i].serve(master, call);
        return;
    }
    pm_admin_fail(call, "The command cannot be recognized, please check.");
}

/* ---- watchServer ------------------------------------------------------- */

/* A server's answer, handed on to the console. */
static void console_passed(const pm_admin_result *result, void *ctx)
{
    pm_admin_call *call = ctx;
    const cJSON *gathered = pmi_json_get(result->error, "body");
    pmi_buf error, body;
    pm_err err = PM_OK;
    if (result->err && result->err != PM_EREMOTE) {
        pm_admin_fail(call, result->detail);
        return;
    }
    pmi_buf_init(&error, pmi_loop_env(call->loop), SIZE_MAX);
    pmi_buf_init(&body, pmi_loop_env(call->loop), SIZE_MAX);
    if (gathered) /* the place of the error holds an answer */
        err = pmi_json_print(gathered, PMI_JSON_DEPTH_MAX, &body);
    else if (result->error)
        err = pmi_json_print(result->error, PMI_JSON_DEPTH_MAX, &error);
    if (err == PM_OK && !gathered && result->body)
        err = pmi_json_print(result->body, PMI_JSON_DEPTH_MAX, &body);
    if (err)
        pm_admin_fail(call, pm_strerror(err));
    else
        pmi_admin_answer(call, pmi_buf_slice(&error), pmi_buf_slice(&body));
    pmi_buf_fini(&error);
    pmi_buf_fini(&body);
}

/* The question as servers get it: without what was the console's. */
static void console_question(const cJSON *asked, pmi_buf *out)
{
    static const char *const names[] = {"comd", "param", "context"};
    size_t count = 0;
    pmi_buf_add_byte(out, '{');
    for (size_t i = 0; i < PMI_COUNT(names); i++) {
        const cJSON *member = pmi_json_get(asked, names[i]);
        if (!member)
            continue;
        if (count++)
            pmi_buf_add_byte(out, ',');
        pmi_json_add_string(out, pm_text(names[i]));
        pmi_buf_add_byte(out, ':');
        if (pmi_json_print(member, PMI_JSON_DEPTH_MAX, out))
            out->failed = true;
    }
    pmi_buf_add_byte(out, '}');
}

static void console_watch_one(pmi_master *master, pm_admin_call *call,
                              const char *id, pm_slice question)
{
    pmi_master_server *server = pmi_master_find(master, id);
    pm_err err;
    if (!server) {
        pmi_admin_answer_word(call, "no such server: %s", id);
        return;
    }
    err = pmi_master_ask(server, "watchServer", question, console_passed, call);
    if (err)
        pm_admin_fail(call, pm_strerror(err));
}

static void console_own(pmi_master *master, pm_admin_call *call,
                        const char *comd, bool wrapped)
{
    pmi_buf body;
    pmi_buf_init(&body, master->env, SIZE_MAX);
    if (wrapped)
        pmi_buf_add_text(&body, "{\"msg\":");
    if (!pmi_facts_tell(&master->facts, comd, "", &body)) {
        pmi_buf_fini(&body);
        pmi_admin_answer_word(call, "unknown comd: %s", comd);
        return;
    }
    if (wrapped)
        pmi_buf_add_byte(&body, '}');
    pmi_admin_answer_buf(call, &body);
    pmi_buf_fini(&body);
}

static void console_watch(pm_admin_call *call, void *ctx)
{
    static const char *const changes[] = {"set", "enable", "disable", "run"};
    pmi_master *master = ctx;
    const char *comd = pmi_admin_text(call->body, "comd");
    const char *context = pmi_admin_text(call->body, "context");
    pmi_buf question;
    comd = comd ? comd : "";
    context = context ? context : "all";
    for (size_t i = 0; i < PMI_COUNT(changes); i++)
        if (!strcmp(comd, changes[i]) && !console_may_change(call, master))
            return;
    if (!strcmp(comd, "run")) {
        pmi_admin_answer_word(call, "run is not supported");
        return;
    }
    pmi_buf_init(&question, master->env, SIZE_MAX);
    console_question(call->body, &question);
    if (question.failed)
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
    else if (!strcmp(context, pm_app_server(master->app)->id))
        console_own(master, call, comd, false);
    else if (strcmp(context, "all") != 0)
        console_watch_one(master, call, context, pmi_buf_slice(&question));
    else if (pmi_facts_is_gathered(comd))
        pmi_master_gather(master, call, "watchServer", comd,
                          pmi_buf_slice(&question));
    else
        console_own(master, call, comd, true);
    pmi_buf_fini(&question);
}

/* ---- nodeInfo, systemInfo ---------------------------------------------- */

static void console_info(pmi_master *master, pm_admin_call *call,
                         const char *comd)
{
    char question[64];
    pmi_format(question, sizeof question,
               "{\"comd\":\"%s\",\"context\":\"all\"}", comd);
    pmi_master_gather(master, call, "watchServer", comd, pm_text(question));
}

static void console_node(pm_admin_call *call, void *ctx)
{
    console_info(ctx, call, "nodeInfo");
}

static void console_system(pm_admin_call *call, void *ctx)
{
    console_info(ctx, call, "systemInfo");
}

/* What a Node server sends of itself is not kept: who wants it, asks. */
static void console_told(pm_admin_call *call, void *ctx)
{
    (void)ctx;
    pmi_admin_answer(call, console_nothing, console_nothing);
}

pm_err pmi_master_console_new(pmi_master *master)
{
    const struct {
        const char *id;
        void (*client)(pm_admin_call *call, void *ctx);
    } own[] = {{"watchServer", console_watch},
               {"__console__", console_client},
               {"nodeInfo", console_node},
               {"systemInfo", console_system}};
    for (size_t i = 0; i < PMI_COUNT(own); i++) {
        pm_admin_module module = pm_admin_module_default();
        pm_err err;
        module.id = own[i].id;
        module.client = own[i].client;
        module.master = console_told;
        module.level = PMI_LEVEL_ANY;
        err = pmi_module_add(master->app, &module, master);
        if (err)
            return err;
    }
    return PM_OK;
}
