/* SPDX-License-Identifier: MIT */
/* pomelo_project.c -- where the master is and who we are: what the command line
 * says, else what config/ of the project says, else Pomelo's defaults. */
#include "pomelo_cli.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static cJSON *file(const cli *self, const char *name)
{
    const char *text = pm_config_file(self->config, name);
    cJSON *tree = NULL;
    if (text && pm_json_tree(pm_text(text), &tree))
        return NULL;
    return tree;
}

/* From 1, as a server takes it: it may stand in quotes. 0: it is none. */
static uint16_t port_of(const cJSON *node)
{
    const char *text = cJSON_GetStringValue(node);
    double number = cJSON_IsNumber(node) ? node->valuedouble : 0;
    if (text && *text && text[strspn(text, "0123456789")] == 0)
        number = strtod(text, NULL);
    return number >= 1 && number <= 65535 ? (uint16_t)number : 0;
}

bool cli_project(cli *self)
{
    char dir[CLI_PATH], why[512] = "";
    const cJSON *port;
    pm_err err;
    snprintf(dir, sizeof dir, "%s/config",
             self->directory ? self->directory : ".");
    err = pm_config_load(&self->config, dir, self->env, why, sizeof why);
    if (err == PM_ENOTFOUND)
        return true;
    if (err) {
        cli_fail(0, "%s", *why ? why : pm_strerror(err));
        return false;
    }
    self->master = file(self, "master.json");
    self->users = file(self, "adminUser.json");
    port = cJSON_GetObjectItemCaseSensitive(self->master, "port");
    if (!port || port_of(port))
        return true;
    cli_fail(0, "master.json: port: expected a number from 1 to 65535");
    return false;
}

void cli_project_close(cli *self)
{
    cJSON_Delete(self->master);
    cJSON_Delete(self->users);
    pm_config_free(self->config);
}

const char *cli_host(const cli *self)
{
    const char *host = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(self->master, "host"));
    return self->host ? self->host : host ? host : "127.0.0.1";
}

uint16_t cli_port(const cli *self)
{
    const cJSON *port = cJSON_GetObjectItemCaseSensitive(self->master, "port");
    if (self->port)
        return self->port;
    return port ? port_of(port) : 3005;
}

/* The user who was named, else the first one who may do everything. */
static const cJSON *user(const cli *self)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, self->users)
    {
        const char *name = cJSON_GetStringValue(
            cJSON_GetObjectItemCaseSensitive(one, "username"));
        const cJSON *level = cJSON_GetObjectItemCaseSensitive(one, "level");
        if (name && self->username
                ? !strcmp(name, self->username)
                : name && cJSON_IsNumber(level) && level->valuedouble <= 1)
            return one;
    }
    return NULL;
}

static const char *of_user(const cli *self, const char *key)
{
    const char *text =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(user(self), key));
    return text ? text : "admin";
}

const char *cli_username(const cli *self)
{
    return self->username ? self->username : of_user(self, "username");
}

const char *cli_password(const cli *self)
{
    return self->password ? self->password : of_user(self, "password");
}

bool cli_is_local(const cli *self)
{
    const char *host = cli_host(self);
    return !strncmp(host, "127.", 4) || !strcmp(host, "localhost") ||
           !strcmp(host, "::1");
}

bool cli_port_answers(const char *host, uint16_t port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char text[8];
    bool answers = false;
    snprintf(text, sizeof text, "%u", (unsigned)port);
    if (getaddrinfo(host, text, &hints, &list))
        return false;
    for (struct addrinfo *at = list; at && !answers; at = at->ai_next) {
        int fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (fd < 0)
            continue;
        answers = connect(fd, at->ai_addr, at->ai_addrlen) == 0;
        close(fd);
    }
    freeaddrinfo(list);
    return answers;
}

void cli_sleep_ms(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000,
                            .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}
