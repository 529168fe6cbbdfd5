/* SPDX-License-Identifier: MIT */
/* pomelo_master_round.c -- one question to every server, and one answer made of
 * theirs: {"msg":{"id":..,"id":..}}.
 *
 * A server that hangs must not hang who asks: each answer has its time. In a
 * list it stands all the same, with what the master knows of it. Start at
 * pmi_master_gather. */
#include "pomelo_master_internal.h"

#include <cjson/cJSON.h>

#define ROUND_LIST_MS 2000

typedef struct master_round {
    pmi_master *master;
    pm_admin_call *call;
    pmi_buf out;
    size_t waits, found;
    uint32_t ms; /* for each answer */
    bool list;   /* who does not answer is named too */
    bool whole;  /* every server has been asked */
} master_round;

/* One of those that were asked. */
typedef struct round_asked {
    master_round *round;
    char id[]; /* the server's */
} round_asked;

static void round_end(master_round *round)
{
    pmi_master *master = round->master;
    pmi_buf_add_text(&round->out, "}}");
    pmi_admin_answer_buf(round->call, &round->out);
    pmi_buf_fini(&round->out);
    pmi_free(pmi_loop_env(pmi_master_loop(master)), round);
}

static master_round *round_new(pmi_master *master, pm_admin_call *call,
                               bool list)
{
    const pmi_env *env = pmi_loop_env(pmi_master_loop(master));
    master_round *round = pmi_zalloc(env, sizeof *round);
    if (!round) {
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
        return NULL;
    }
    round->master = master;
    round->call = call;
    round->list = list;
    round->ms = master->opts->request_ms;
    if (list && round->ms > ROUND_LIST_MS)
        round->ms = ROUND_LIST_MS;
    pmi_buf_init(&round->out, env, SIZE_MAX);
    pmi_buf_add_text(&round->out, "{\"msg\":{");
    return round;
}

static void round_put(master_round *round, const char *id, pm_slice body)
{
    if (round->found++)
        pmi_buf_add_byte(&round->out, ',');
    pmi_json_add_string(&round->out, pm_text(id));
    pmi_buf_add_byte(&round->out, ':');
    pmi_buf_add(&round->out, body.data, body.len);
}

/* Its process can be found by this. Texts where Node's console expects some. */
static void round_put_silent(master_round *round, const char *id)
{
    const pmi_master_server *server = pmi_master_find(round->master, id);
    pmi_buf text;
    if (!round->list || !server || !server->link)
        return;
    pmi_buf_init(&text, round->out.env, SIZE_MAX);
    pmi_buf_add_byte(&text, '{');
    pmi_admin_put(&text, "serverId", id);
    pmi_admin_put(&text, "serverType", server->type);
    pmi_buf_add_format(&text, ",\"pid\":%lld", (long long)server->pid);
    pmi_buf_add_text(&text, ",\"rss\":\"-\",\"heapTotal\":\"-\",\"heapUsed\":"
                            "\"-\",\"uptime\":\"-\",\"silent\":true}");
    if (!text.failed)
        round_put(round, id, pmi_buf_slice(&text));
    pmi_buf_fini(&text);
}

/* {"serverId":..,"body":{..}} in the place of the error: so Pomelo's servers
 * answer. */
static void round_heard(const pm_admin_result *result, void *ctx)
{
    round_asked *asked = ctx;
    master_round *round = asked->round;
    const char *id = pmi_admin_text(result->error, "serverId");
    const cJSON *body = pmi_json_get(result->error, "body");
    pmi_buf text;
    if (id && body) {
        pmi_buf_init(&text, round->out.env, SIZE_MAX);
        if (pmi_json_print(body, PMI_JSON_DEPTH_MAX, &text) == PM_OK)
            round_put(round, id, pmi_buf_slice(&text));
        pmi_buf_fini(&text);
    } else if (result->err == PM_ETIMEOUT) {
        round_put_silent(round, asked->id);
    }
    pmi_free(round->out.env, asked);
    if (--round->waits == 0 && round->whole)
        round_end(round);
}

static void round_ask(master_round *round, const pmi_master_server *server,
                      const char *module, pm_slice body)
{
    size_t size = strlen(server->id) + 1;
    round_asked *asked;
    if (!server->link)
        return;
    asked = pmi_zalloc(round->out.env, sizeof *asked + size);
    if (!asked)
        return;
    asked->round = round;
    memcpy(asked->id, server->id, size);
    if (pmi_admin_ask(server->link, NULL, module, body, round->ms, round_heard,
                      asked) == PM_OK) {
        round->waits++;
        return;
    }
    pmi_free(round->out.env, asked);
    round_put_silent(round, server->id);
}

static bool round_is_frontend(const pmi_master_server *server)
{
    const pm_server *entry = pm_server_find(server->master->app, server->id);
    return entry && entry->frontend;
}

void pmi_master_gather(pmi_master *master, pm_admin_call *call,
                       const char *module, const char *question, pm_slice body)
{
    master_round *round = round_new(master, call, !strcmp(question, "list"));
    bool clients =
        !strcmp(question, "connections") || !strcmp(question, "logins");
    pmi_map_walk walk;
    pmi_buf own;
    if (!round)
        return;
    pmi_buf_init(&own, round->out.env, SIZE_MAX);
    if (!clients && strcmp(question, "channels") != 0 &&
        pmi_facts_tell(&master->facts, question, "", &own) && !own.failed)
        round_put(round, pm_app_server(master->app)->id, pmi_buf_slice(&own));
    pmi_buf_fini(&own);
    walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk))
        if (!clients || round_is_frontend(walk.value))
            round_ask(round, walk.value, module, body);
    round->whole = true;
    if (!round->waits)
        round_end(round);
}
