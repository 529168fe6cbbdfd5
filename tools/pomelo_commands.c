/* SPDX-License-Identifier: MIT */
/* pomelo_commands.c -- list, stop, kill, add, restart, crons: one question to
 * the master each, and what its answer means. */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GONE_STEPS 300 /* of GONE_MS: how long stop waits for processes */
#define GONE_MS 50

/* {"signal":NAME}. NULL: no memory. */
static cJSON *signal_body(const char *name)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "signal", name);
    return body;
}

static void add_words(cJSON *body, const char *key, char *const *words,
                      int count)
{
    cJSON *list = cJSON_AddArrayToObject(body, key);
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(words[i]));
}

/* One question, with all that belongs to it. */
static int ask_once(cli *self, const char *module, cJSON *body, cJSON **answer)
{
    cli_link *link = NULL;
    int status = CLI_FAILED;
    *answer = NULL;
    if (cli_project(self))
        status = cli_open(self, &link);
    if (status == CLI_OK)
        status = cli_ask(link, module, body, answer);
    else
        cJSON_Delete(body);
    cli_close(link);
    return status;
}

/* ---- list -------------------------------------------------------------- */

static const cJSON *servers_of(const cJSON *answer)
{
    return cJSON_GetObjectItemCaseSensitive(answer, "msg");
}

int cli_list(cli *self)
{
    cJSON *answer;
    int status = ask_once(self, "__console__", signal_body("list"), &answer);
    if (status == CLI_OK && self->json)
        status = cli_table_json(servers_of(answer));
    else if (status == CLI_OK)
        cli_table(servers_of(answer), stdout);
    cJSON_Delete(answer);
    return status;
}

/* ---- stop, kill -------------------------------------------------------- */

static bool is_named(const cli *self, const char *id)
{
    for (int i = 0; i < self->args_count; i++)
        if (!strcmp(self->args[i], id))
            return true;
    return self->args_count == 0;
}

/* How many of the servers' processes live yet; they are of this machine, and
 * ours or another user's. */
static int alive(const cli *self, const cJSON *servers, cJSON *left)
{
    const cJSON *one;
    int count = 0;
    cJSON_ArrayForEach(one, servers)
    {
        const cJSON *pid = cJSON_GetObjectItemCaseSensitive(one, "pid");
        const char *id = cJSON_GetStringValue(
            cJSON_GetObjectItemCaseSensitive(one, "serverId"));
        if (!id || !cJSON_IsNumber(pid) || pid->valuedouble <= 1 ||
            pid->valuedouble > INT32_MAX || !is_named(self, id))
            continue;
        if (kill((pid_t)pid->valuedouble, 0) && errno == ESRCH)
            continue;
        count++;
        if (left)
            cJSON_AddItemToArray(left, cJSON_CreateString(id));
    }
    return count;
}

/* Processes of this machine are waited for; others are the master's word, as
 * are those that it could not end. */
static void wait_gone(const cli *self, const cJSON *servers,
                      const cJSON *remained, cJSON *left)
{
    const cJSON *id;
    if (cli_is_local(self)) {
        for (int i = 0; i < GONE_STEPS && alive(self, servers, NULL) > 0; i++)
            cli_sleep_ms(GONE_MS);
        alive(self, servers, left);
        return;
    }
    cJSON_ArrayForEach(id, remained) if (cJSON_IsString(id))
        cJSON_AddItemToArray(left, cJSON_CreateString(id->valuestring));
}

static int tell_stopped(const cli *self, const cJSON *servers, cJSON *left)
{
    int remain = cJSON_GetArraySize(left);
    cJSON *tree;
    if (self->json) {
        tree = cJSON_CreateObject();
        cJSON_AddBoolToObject(tree, "ok", remain == 0);
        cJSON_AddItemToObject(tree, "remained", left);
        cli_print_json(tree);
        return remain ? CLI_FAILED : CLI_OK;
    }
    if (remain)
        cli_fail(CLI_FAILED, "%d servers may still run:", remain);
    else if (self->args_count)
        printf("%d servers have stopped.\n", self->args_count);
    else
        printf("All %d servers have stopped.\n", cJSON_GetArraySize(servers));
    for (int i = 0; i < remain; i++)
        fprintf(stderr, "  %s\n",
                cJSON_GetStringValue(cJSON_GetArrayItem(left, i)));
    cJSON_Delete(left);
    return remain ? CLI_FAILED : CLI_OK;
}

/* Who runs is asked first: so it can be seen when they are gone. */
static int end_servers(cli *self, cJSON *body)
{
    cli_link *link = NULL;
    cJSON *list = NULL, *answer = NULL, *left = cJSON_CreateArray();
    int status = CLI_FAILED;
    if (cli_project(self))
        status = cli_open(self, &link);
    if (status == CLI_OK)
        status = cli_ask(link, "__console__", signal_body("list"), &list);
    if (status == CLI_OK)
        status = cli_ask(link, "__console__", body, &answer);
    else
        cJSON_Delete(body);
    cli_close(link);
    if (status == CLI_OK) {
        wait_gone(self, servers_of(list),
                  cJSON_GetObjectItemCaseSensitive(answer, "serverIds"), left);
        status = tell_stopped(self, servers_of(list), left);
    } else {
        cJSON_Delete(left);
    }
    cJSON_Delete(answer);
    cJSON_Delete(list);
    return status;
}

int cli_stop(cli *self)
{
    cJSON *body = signal_body("stop");
    add_words(body, "ids", self->args, self->args_count);
    if (!self->json)
        fputs("Stopping, please wait ...\n", stderr);
    return end_servers(self, body);
}

int cli_kill(cli *self)
{
    if (self->args_count)
        return cli_fail(CLI_USAGE, "kill ends all servers: it takes no id");
    return end_servers(self, signal_body("kill"));
}

/* ---- add, restart ------------------------------------------------------ */

/* The words of the command line, each KEY=VALUE. False, with a message: one is
 * not, or there is none. */
static bool add_pairs(const cli *self, cJSON *body)
{
    for (int i = 0; i < self->args_count; i++)
        if (!strchr(self->args[i], '=') || *self->args[i] == '=') {
            cli_fail(0, "\"%s\" is not KEY=VALUE", self->args[i]);
            return false;
        }
    if (self->args_count == 0)
        cli_fail(0, "%s what? See `pomelo %s --help`", self->command,
                 self->command);
    add_words(body, "args", self->args, self->args_count);
    return self->args_count > 0;
}

int cli_add(cli *self)
{
    cJSON *body = signal_body("add"), *answer;
    int status;
    if (!add_pairs(self, body)) {
        cJSON_Delete(body);
        return CLI_USAGE;
    }
    status = ask_once(self, "__console__", body, &answer);
    /* With clusterCount the answer lists those that could not be started. */
    if (status == CLI_OK && cJSON_IsArray(answer) &&
        cJSON_GetArraySize(answer) > 0)
        status = CLI_FAILED;
    if (status == CLI_OK && !self->json)
        puts("Added.");
    else if (self->json && answer)
        cli_print_json(cJSON_Duplicate(answer, 1));
    else if (status == CLI_FAILED && answer)
        cli_fail(status, "some of them have not been added");
    cJSON_Delete(answer);
    return status;
}

int cli_restart(cli *self)
{
    cJSON *body = signal_body("restart"), *answer;
    char *one[] = {(char *)(uintptr_t)self->id};
    int status, failed;
    if (self->id)
        add_words(body, "ids", one, 1);
    else
        add_words(body, "ids", self->args, self->args_count);
    if (self->type)
        cJSON_AddStringToObject(body, "type", self->type);
    status = ask_once(self, "__console__", body, &answer);
    failed = cJSON_IsArray(answer) ? cJSON_GetArraySize(answer) : 0;
    if (self->json && answer) {
        cli_print_json(cJSON_Duplicate(answer, 1));
    } else if (status == CLI_OK && failed == 0) {
        puts("Restarted.");
    }
    for (int i = 0; i < failed && !self->json; i++) {
        const char *id = cJSON_GetStringValue(cJSON_GetArrayItem(answer, i));
        cli_fail(0, "%s has not been restarted", id ? id : "?");
    }
    cJSON_Delete(answer);
    return status == CLI_OK && failed ? CLI_FAILED : status;
}

/* ---- crons ------------------------------------------------------------- */

static int tell_cron(cli *self, const char *done)
{
    cJSON *body = signal_body(self->command), *answer = NULL;
    int status = CLI_USAGE;
    if (add_pairs(self, body))
        status = ask_once(self, "__console__", body, &answer);
    else
        cJSON_Delete(body);
    if (status == CLI_OK && self->json)
        cli_print_json(cJSON_Duplicate(answer, 1));
    else if (status == CLI_OK)
        puts(done);
    else if (status == CLI_FAILED)
        fprintf(stderr, "see `pomelo %s --help`\n", self->command);
    cJSON_Delete(answer);
    return status;
}

int cli_add_cron(cli *self)
{
    return tell_cron(self, "Added.");
}

int cli_remove_cron(cli *self)
{
    return tell_cron(self, "Removed.");
}

/* A cron as a row of the table. Its time is in the zone of who looks, which is
 * most often the servers'. */
static cJSON *cron_row(const char *server, const cJSON *cron)
{
    static const char *const keys[] = {"id", "action", "time"};
    const cJSON *next = cJSON_GetObjectItemCaseSensitive(cron, "next");
    cJSON *row = cJSON_CreateObject();
    char when[32] = "never";
    time_t at = cJSON_IsNumber(next) ? (time_t)(next->valuedouble / 1000) : 0;
    struct tm local;
    if (at && localtime_r(&at, &local))
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
    cJSON_AddStringToObject(row, "serverId", server);
    cJSON_AddStringToObject(row, "next", when);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cJSON_AddItemToObject(
            row, keys[i],
            cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(cron, keys[i]),
                            1));
    return row;
}

static void print_crons(const cJSON *servers)
{
    static const cli_column columns[] = {
        {"serverId", "serverId", "31", false},
        {"id", "id", "34", false},
        {"next", "next", "32", false},
        {"action", "action", "36", false},
        {"time", "time", "35", false},
    };
    cJSON *rows = cJSON_CreateArray();
    const cJSON *server, *cron;
    cJSON_ArrayForEach(server, servers) cJSON_ArrayForEach(
        cron, cJSON_GetObjectItemCaseSensitive(server, "crons"))
        cJSON_AddItemToArray(rows, cron_row(server->string, cron));
    cli_rows(columns, sizeof columns / sizeof *columns, rows, NULL, stdout);
    cJSON_Delete(rows);
}

int cli_crons(cli *self)
{
    cJSON *body = cJSON_CreateObject(), *answer;
    int status;
    cJSON_AddStringToObject(body, "comd", "crons");
    cJSON_AddStringToObject(body, "context", "all");
    status = ask_once(self, "watchServer", body, &answer);
    if (status == CLI_OK && self->json)
        cli_print_json(cJSON_Duplicate(answer, 1));
    else if (status == CLI_OK)
        print_crons(servers_of(answer));
    cJSON_Delete(answer);
    return status;
}
