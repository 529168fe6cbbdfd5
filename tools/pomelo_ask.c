/* SPDX-License-Identifier: MIT */
/* pomelo_ask.c -- one question after the other to a master, each with its
 * answer before the next: the library's console made simple for a command. */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

struct cli_link {
    const cli *of;
    pm_loop *loop;
    pm_console *console;
    int status; /* of the last question */
    cJSON *answer;
};

int cli_open(cli *self, cli_link **out)
{
    pm_console_opts opts = pm_console_opts_default();
    cli_link *link = calloc(1, sizeof *link);
    pm_err err = link ? PM_OK : PM_ENOMEM;
    *out = link;
    if (link) {
        link->of = self;
        err = pm_loop_new(&link->loop, NULL);
    }
    if (err == PM_OK) {
        opts.loop = link->loop;
        opts.host = cli_host(self);
        opts.port = cli_port(self);
        opts.username = cli_username(self);
        opts.password = cli_password(self);
        err = pm_console_new(&link->console, &opts);
    }
    return err ? cli_fail(CLI_FAILED, "%s", pm_strerror(err)) : CLI_OK;
}

void cli_close(cli_link *link)
{
    if (!link)
        return;
    pm_console_free(link->console);
    pm_loop_free(link->loop);
    cJSON_Delete(link->answer);
    free(link);
}

static int failed(const cli_link *link, const pm_admin_result *result)
{
    const cli *self = link->of;
    const char *host = cli_host(self);
    unsigned port = cli_port(self);
    switch (result->err) {
    case PM_EDOWN:
    case PM_EREFUSED:
        return cli_fail(CLI_DOWN,
                        "no master at %s:%u: is the cluster started "
                        "(`pomelo start`)?",
                        host, port);
    case PM_EAUTH:
        return cli_fail(CLI_AUTH, "%s:%u does not let \"%s\" in: %s", host,
                        port, cli_username(self), result->detail);
    default:
        return cli_fail(CLI_FAILED, "%s", result->detail);
    }
}

static void answered(const pm_admin_result *result, void *ctx)
{
    cli_link *link = ctx;
    /* We are being closed. */
    if (link->status != -1)
        return;
    link->status = result->err ? failed(link, result) : CLI_OK;
    if (result->body)
        link->answer = cJSON_Duplicate(result->body, 1);
    pm_loop_break(link->loop);
}

int cli_ask(cli_link *link, const char *module, cJSON *body, cJSON **answer)
{
    char *text = NULL;
    pm_err err = body ? pm_json_text(body, &text) : PM_ENOMEM;
    cJSON_Delete(body);
    cJSON_Delete(link->answer);
    link->answer = NULL;
    link->status = -1;
    if (err == PM_OK)
        err = pm_console_request(link->console, module, text, answered, link);
    pm_text_free(text);
    if (err == PM_OK)
        err = pm_loop_run(link->loop);
    if (err)
        link->status = cli_fail(CLI_FAILED, "%s", pm_strerror(err));
    *answer = link->answer;
    link->answer = NULL;
    return link->status;
}
