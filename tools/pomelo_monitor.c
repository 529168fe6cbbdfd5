/* SPDX-License-Identifier: MIT */
/* pomelo_monitor.c -- the table of `list`, again and again: on a terminal in
 * its place, else one below the other. A master that goes away is waited for.
 */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <time.h>

static cJSON *list_body(void)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "signal", "list");
    return body;
}

static int show(const cli *self, const cJSON *servers)
{
    time_t now = time(NULL);
    struct tm local;
    char when[32] = "";
    if (self->json)
        return cli_table_json(servers);
    if (localtime_r(&now, &local))
        strftime(when, sizeof when, "%H:%M:%S", &local);
    if (cli_colour(stdout))
        fputs("\033[H\033[2J", stdout);
    printf("%s:%u  %s  %d servers\n\n", cli_host(self), cli_port(self), when,
           cJSON_GetArraySize(servers));
    cli_table(servers, stdout);
    if (!cli_colour(stdout))
        puts("");
    return CLI_OK;
}

/* One look over a link that stays open; a lost one is made anew. */
static int look(cli *self, cli_link **link)
{
    cJSON *answer = NULL;
    int status = *link ? CLI_OK : cli_open(self, link);
    if (status == CLI_OK)
        status = cli_ask(*link, "__console__", list_body(), &answer);
    if (status == CLI_OK) {
        status = show(self, cJSON_GetObjectItemCaseSensitive(answer, "msg"));
    } else {
        cli_close(*link);
        *link = NULL;
    }
    fflush(stdout);
    cJSON_Delete(answer);
    return status;
}

int cli_monitor(cli *self)
{
    unsigned seconds = self->interval_s ? self->interval_s : 2;
    cli_link *link = NULL;
    bool seen = false;
    int status;
    if (!cli_project(self))
        return CLI_FAILED;
    for (unsigned i = 1;; i++) {
        status = look(self, &link);
        seen |= status == CLI_OK;
        /* One who was never there is a mistake, not an outage. */
        if (!seen || status == CLI_AUTH || i == self->count)
            break;
        cli_sleep_ms(seconds * 1000);
    }
    cli_close(link);
    return status;
}
