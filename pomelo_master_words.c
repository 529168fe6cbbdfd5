/* SPDX-License-Identifier: MIT */
/* pomelo_master_words.c -- what consoles say in words, KEY=VALUE: add, addCron,
 * removeCron; and blacklist.
 *
 * A word that makes no sense is told to who has said it, with the key and what
 * was expected. Start at pmi_master_add and pmi_master_cron. */
#include "pomelo_master_internal.h"

#include "pomelo_calendar_internal.h"
#include "pomelo_config_internal.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

static const pm_slice words_nothing = {NULL, 0};

static void words_ok(pm_admin_call *call)
{
    pmi_admin_answer(call, words_nothing, pm_text("{\"status\":\"ok\"}"));
}

/* ---- add --------------------------------------------------------------- */

static bool words_digits(const char *text)
{
    size_t n = 0;
    while (text[n] >= '0' && text[n] <= '9')
        n++;
    return n > 0 && n < 10 && !text[n];
}

/* ["k=v", ..] to `"k":"v",..`; numbers as numbers. False: not of that form. */
static bool words_pairs(const cJSON *args, bool numbers, pmi_buf *out)
{
    const cJSON *arg = cJSON_IsArray(args) ? args->child : NULL;
    size_t count = 0;
    for (; arg; arg = arg->next) {
        const char *text = cJSON_IsString(arg) ? arg->valuestring : "";
        const char *equal = strchr(text, '=');
        if (!equal || equal == text || ++count > 100)
            return false;
        if (count > 1)
            pmi_buf_add_byte(out, ',');
        pmi_json_add_string(out, pm_bytes(text, (size_t)(equal - text)));
        pmi_buf_add_byte(out, ':');
        if (numbers && words_digits(equal + 1))
            pmi_buf_add_format(out, "%lu", strtoul(equal + 1, NULL, 10));
        else
            pmi_json_add_string(out, pm_text(equal + 1));
    }
    return count > 0 && !out->failed;
}

/* The value of one "k=v"; NULL when it is not there. */
static const char *words_value(const cJSON *args, const char *name)
{
    const cJSON *arg = cJSON_IsArray(args) ? args->child : NULL;
    size_t len = strlen(name);
    for (; arg; arg = arg->next)
        if (cJSON_IsString(arg) && !strncmp(arg->valuestring, name, len) &&
            arg->valuestring[len] == '=')
            return arg->valuestring + len + 1;
    return NULL;
}

/* clusterCount's ids go on counting behind those that are there. */
static uint32_t words_first(pmi_master *master, const char *type)
{
    uint32_t first = 0;
    char prefix[300];
    size_t len = pmi_format(prefix, sizeof prefix, "cluster-server-%s-", type);
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        const char *id = ((const pmi_master_server *)walk.value)->id;
        uint32_t number;
        if (strncmp(id, prefix, len) != 0 || !words_digits(id + len))
            continue;
        number = (uint32_t)strtoul(id + len, NULL, 10);
        if (number >= first)
            first = number + 1;
    }
    return first;
}

/* The words of `args` as a servers.json with one entry; `why` gets a sentence.
 */
static pm_err words_add_parse(pmi_master *master, const cJSON *args, char *why,
                              size_t why_size, pm_config **out)
{
    const char *type = words_value(args, "serverType");
    pmi_buf text;
    pm_err err = PM_ECONFIG;
    pmi_buf_init(&text, master->env, SIZE_MAX);
    pmi_buf_add_byte(&text, '{');
    pmi_json_add_string(&text, pm_text(type ? type : ""));
    pmi_buf_add_text(&text, ":[{");
    if (!words_pairs(args, true, &text)) {
        pmi_format(why, why_size, "Error server parameters format.");
    } else if (!type || !*type) {
        pmi_format(why, why_size, "serverType: expected a text, found none");
    } else {
        pmi_buf_add_text(&text, "}]}");
        err = pmi_config_parse_spoken(
            master->env, pmi_buf_slice(&text), pm_app_env(master->app),
            words_first(master, type), why, why_size, out);
    }
    pmi_buf_fini(&text);
    return err;
}

/* Does somebody that we know listen there already? */
static bool words_port_taken(const pmi_master *master, const pm_server *entry)
{
    const char *host = entry->host ? entry->host : "127.0.0.1";
    size_t count = pm_server_count(master->app, NULL);
    for (size_t i = 0; i < count; i++) {
        const pm_server *other = pm_server_at(master->app, NULL, i);
        if (strcmp(other->host, host) != 0)
            continue;
        if ((entry->port && (entry->port == other->port ||
                             entry->port == other->client_port)) ||
            (entry->client_port && (entry->client_port == other->port ||
                                    entry->client_port == other->client_port)))
            return true;
    }
    return false;
}

static pm_err words_add_one(pmi_master *master, const pm_server *entry)
{
    pmi_master_server *server;
    pm_err err = pm_server_add(master->app, entry);
    if (err)
        return err;
    server = pmi_master_know(master, entry);
    if (!server) {
        pm_server_remove(master->app, entry->id);
        return PM_ENOMEM;
    }
    server->added = true;
    err = pmi_master_spawn(server);
    if (err)
        pmi_master_forget(server); /* its id and ports are free */
    return err;
}

static void words_add_all(pmi_master *master, pm_admin_call *call,
                          const pm_server *entries, size_t count)
{
    pmi_buf failed, word;
    pm_err why = PM_OK; /* of the last one */
    size_t bad = 0;
    pmi_buf_init(&failed, master->env, SIZE_MAX);
    pmi_buf_add_byte(&failed, '[');
    for (size_t i = 0; i < count; i++) {
        pm_err err = words_add_one(master, &entries[i]);
        if (!err)
            continue;
        why = err;
        if (bad++)
            pmi_buf_add_byte(&failed, ',');
        pmi_json_add_string(&failed, pm_text(entries[i].id));
    }
    pmi_buf_add_byte(&failed, ']');
    pmi_buf_init(&word, master->env, SIZE_MAX);
    pmi_buf_add_format(&word, "\"servers could not be started: %s\"",
                       pm_strerror(why));
    if (!bad)
        words_ok(call);
    else if (failed.failed || word.failed)
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
    else
        pmi_admin_answer(call, pmi_buf_slice(&word), pmi_buf_slice(&failed));
    pmi_buf_fini(&word);
    pmi_buf_fini(&failed);
}

void pmi_master_add(pmi_master *master, pm_admin_call *call)
{
    const cJSON *args = pmi_json_get(call->body, "args");
    const pm_server *entries;
    pm_config *config = NULL;
    size_t count = 0;
    bool taken = false;
    char why[256] = "";
    if (!master->opts->spawn) {
        pmi_admin_answer_word(call, "this master can not start servers");
        return;
    }
    if (words_add_parse(master, args, why, sizeof why, &config)) {
        pmi_admin_answer_word(call, "%s", why);
        return;
    }
    entries = pm_config_servers(config, &count);
    for (size_t i = 0; i < count; i++)
        taken |= words_port_taken(master, &entries[i]) ||
                 pm_server_find(master->app, entries[i].id);
    if (taken || !count)
        pmi_admin_answer_word(
            call, "Port occupied already, check your server to add.");
    else
        words_add_all(master, call, entries, count);
    pm_config_free(config);
}

/* ---- Words that are passed on ------------------------------------------ */

/* What a server would only log is told to who asks. */
static bool words_cron_fits(pm_admin_call *call, const cJSON *args, bool add)
{
    const char *time = words_value(args, "time");
    pmi_calendar calendar;
    char why[256] = "";
    if ((words_value(args, "serverId") || words_value(args, "serverType")) &&
        words_value(args, "id") &&
        (!add || (time && words_value(args, "action") &&
                  !pmi_calendar_parse(&calendar, time, why, sizeof why))))
        return true;
    pmi_admin_answer_word(call, "%s",
                          *why ? why : "Error cron parameters format.");
    return false;
}

/* One word to several servers. */
typedef struct words_round {
    pm_admin_call *call;
    pmi_buf refused; /* what they object to, one after the other */
    size_t asked, waits, silent;
    bool whole; /* all have been told */
} words_round;

static void words_round_end(words_round *round)
{
    if (round->silent)
        pmi_buf_add_format(
            &round->refused, "%s%zu of %zu servers did not answer",
            round->refused.len ? "; " : "", round->silent, round->asked);
    if (round->refused.failed)
        pm_admin_fail(round->call, pm_strerror(PM_ENOMEM));
    else if (round->refused.len)
        pmi_admin_answer_word(round->call, "%.*s", (int)round->refused.len,
                              (const char *)round->refused.data);
    else
        words_ok(round->call);
    pmi_buf_fini(&round->refused);
    pmi_free(round->refused.env, round);
}

static void words_heard(const pm_admin_result *result, void *ctx)
{
    words_round *round = ctx;
    if (result->err == PM_EREMOTE)
        pmi_buf_add_format(&round->refused, "%s%.300s",
                           round->refused.len ? "; " : "", result->detail);
    else if (result->err)
        round->silent++;
    if (--round->waits == 0 && round->whole)
        words_round_end(round);
}

/* A Node server takes such a word and never answers. */
static void words_tell(words_round *round, pmi_master_server *server,
                       pm_slice body)
{
    bool answers = server->incarnation[0];
    pm_err err = pmi_master_ask(server, "__console__", body,
                                answers ? words_heard : NULL, round);
    if (err == PM_EDOWN)
        return; /* it is not there */
    round->asked++;
    round->waits += answers && err == PM_OK;
    round->silent += err != PM_OK;
}

/* The word as servers get it. False: it makes no sense, or no memory. */
static bool words_cron_body(const char *signal, const cJSON *args, pmi_buf *out)
{
    pmi_buf_add_byte(out, '{');
    pmi_admin_put(out, "signal", signal);
    pmi_buf_add_text(out, ",\"cron\":{");
    if (!words_pairs(args, false, out))
        return false;
    pmi_buf_add_text(out, "}}");
    return !out->failed;
}

static void words_cron_tell(pmi_master *master, words_round *round,
                            const cJSON *args, pm_slice body)
{
    const char *id = words_value(args, "serverId");
    const char *type = words_value(args, "serverType");
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        if (id ? !strcmp(server->id, id) : !strcmp(server->type, type))
            words_tell(round, server, body);
    }
    if (!round->asked)
        pmi_buf_add_text(&round->refused, "no such server is there");
    round->whole = true;
    if (!round->waits)
        words_round_end(round);
}

void pmi_master_cron(pmi_master *master, pm_admin_call *call)
{
    const cJSON *args = pmi_json_get(call->body, "args");
    const char *signal = pmi_admin_text(call->body, "signal");
    const pmi_env *env = pmi_loop_env(call->loop); /* it may outlive the app */
    words_round *round;
    pmi_buf body;
    if (!words_cron_fits(call, args, !strcmp(signal, "addCron")))
        return;
    round = pmi_zalloc(env, sizeof *round);
    pmi_buf_init(&body, env, SIZE_MAX);
    if (!words_cron_body(signal, args, &body)) {
        pmi_admin_answer_word(call, "Error cron parameters format.");
        pmi_free(env, round);
    } else if (!round) {
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
    } else {
        round->call = call;
        pmi_buf_init(&round->refused, env, SIZE_MAX);
        words_cron_tell(master, round, args, pmi_buf_slice(&body));
    }
    pmi_buf_fini(&body);
}

void pmi_master_blacklist(pmi_master *master, pm_admin_call *call)
{
    const cJSON *args = pmi_json_get(call->body, "args");
    pmi_buf body;
    pmi_buf_init(&body, master->env, SIZE_MAX);
    pmi_buf_add_text(&body, "{\"signal\":\"blacklist\",\"blacklist\":");
    if (!cJSON_IsArray(args) ||
        pmi_json_print(args, PMI_JSON_DEPTH_MAX, &body)) {
        pmi_buf_fini(&body);
        pmi_admin_answer_word(call, "Error blacklist parameters format.");
        return;
    }
    pmi_buf_add_byte(&body, '}');
    if (!body.failed)
        pmi_master_notify_all(master, "__console__", pmi_buf_slice(&body));
    pmi_buf_fini(&body);
    words_ok(call);
}
