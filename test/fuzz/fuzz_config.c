/* SPDX-License-Identifier: MIT */
/* fuzz_config.c -- any bytes as a servers.json, as a cron's time, or as a whole
 * folder.
 *
 * A table that is taken is whole: ids, types and entries that are JSON. One
 * that is refused is refused with one line that names the file. An input whose
 * first byte is below 9 is a folder: texts between bytes 1e, in the order of
 * `names`. */
#include "core/json.h"
#include "pomelo_calendar_internal.h"
#include "pomelo_config_internal.h"
#include "pomelo_config_run_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void must(bool true_always)
{
    if (!true_always)
        abort();
}

static void check_server(const pm_server *server)
{
    must(server->id && *server->id && strlen(server->id) <= 255);
    must(server->type && *server->type && strlen(server->type) <= 255);
    must(server->raw && pmi_json_check(pm_text(server->raw), PMI_JSON_DEPTH_MAX,
                                       NULL) == PM_OK);
    must(!server->host || *server->host);
    must(server->cpu >= 0);
}

static void check(const pmi_env *env, pm_slice text, const char *env_name)
{
    pm_config *config = NULL;
    char why[256] = "";
    pm_err err =
        pmi_config_parse(env, text, env_name, why, sizeof why, &config);
    size_t count = 0;
    const pm_server *servers;
    if (err) {
        must(err == PM_ECONFIG && !config);
        must(strncmp(why, "servers.json:", 13) == 0);
        must(!strchr(why, '\n'));
        return;
    }
    must(!why[0]);
    servers = pm_config_servers(config, &count);
    must(count > 0 && count <= 10000);
    for (size_t i = 0; i < count; i++)
        check_server(&servers[i]);
    pm_config_free(config);
}

/* ---- A cron's time ------------------------------------------------------ */
static int32_t an_hour_ahead(void *ctx, int64_t utc_s)
{
    (void)ctx;
    (void)utc_s;
    return 3600;
}

/* What is taken comes, and comes again, always later. */
static void check_time(const uint8_t *data, size_t size)
{
    static const pmi_calendar_zone zone = {an_hour_ahead, NULL};
    char text[200] = "", why[256] = "";
    pmi_calendar calendar;
    int64_t at = 1800000000;
    if (size >= sizeof text)
        return;
    memcpy(text, data, size);
    if (pmi_calendar_parse(&calendar, text, why, sizeof why) != PM_OK) {
        must(why[0] && !strchr(why, '\n'));
        return;
    }
    for (int i = 0; i < 4 && at != PMI_CALENDAR_NEVER; i++) {
        int64_t next = pmi_calendar_next(&calendar, at, &zone);
        must(next > at);
        at = next;
    }
}

/* ---- A folder ---------------------------------------------------------- */
static const char *const names[] = {
    "servers.json",   "master.json",       "adminServer.json",
    "adminUser.json", "dictionary.json",   "log.json",
    "pomelo.json",    "serverProtos.json", "clientProtos.json"};
static char folder[64]; /* made once, emptied after each input */

static void path_of(size_t i, char out[128])
{
    snprintf(out, 128, "%s/%s", folder, names[i]);
}

static void remove_folder(void)
{
    rmdir(folder);
}

/* Returns how many files there are. */
static size_t write_files(const uint8_t *data, size_t size)
{
    size_t i = 0;
    for (const uint8_t *end = data + size; i < PMI_COUNT(names); i++) {
        const uint8_t *stop = memchr(data, 0x1e, (size_t)(end - data));
        size_t len = (size_t)((stop ? stop : end) - data);
        char path[128];
        FILE *file;
        path_of(i, path);
        file = fopen(path, "wb");
        must(file && fwrite(data, 1, len, file) == len && !fclose(file));
        if (!stop)
            return i + 1;
        data = stop + 1;
    }
    return i;
}

static void check_run_files(const pmi_env *env, const pm_config *config)
{
    pmi_run_files files;
    char why[256] = "";
    size_t count = 0;
    const pm_server *servers = pm_config_servers(config, &count);
    if (pmi_run_files_read(&files, env, config, why, sizeof why) == PM_OK) {
        must(!files.master.id || files.master.port);
        for (size_t i = 0; i < files.tokens_count; i++)
            must(*files.tokens[i].type && *files.tokens[i].token);
        for (size_t i = 0; i < files.users_count; i++)
            must(*files.users[i].username && files.users[i].level >= 0);
        must(pmi_log_rules_level(&files.log, "rpc") <= PM_LOG_DEBUG);
    } else {
        must(strstr(why, ".json: ") && !strchr(why, '\n'));
    }
    pmi_run_files_free(&files);
    for (size_t i = PMI_COUNT(names) - 2; i < PMI_COUNT(names); i++) {
        why[0] = 0;
        if (pmi_run_protos_look_at(env, config, names[i], why, sizeof why))
            must(!strncmp(why, names[i], strlen(names[i])) &&
                 !strchr(why, '\n'));
    }
    for (size_t i = 0; i < count; i++) {
        char **args;
        size_t n = 0;
        if (pmi_run_server_args(env, &servers[i], &args, &n) != PM_OK)
            continue;
        must(!args[n]);
        pmi_free(env, args);
    }
}

static void check_folder(const pmi_env *env, const uint8_t *data, size_t size)
{
    pm_config *config = NULL;
    char why[256] = "";
    size_t files;
    if (!*folder) {
        memcpy(folder, "/tmp/fuzz-config-XXXXXX", 24);
        must(mkdtemp(folder) != NULL);
        atexit(remove_folder);
    }
    files = write_files(data, size);
    if (pmi_config_load(env, folder, NULL, why, sizeof why, &config) == PM_OK)
        check_run_files(env, config);
    else
        must(why[0] && !strchr(why, '\n'));
    pm_config_free(config);
    while (files) {
        char path[128];
        path_of(--files, path);
        remove(path);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_env env;
    pmi_env_init(&env, NULL);
    if (size && data[0] < PMI_COUNT(names)) {
        check_folder(&env, data + 1, size - 1);
        return 0;
    }
    check_time(data, size);
    check(&env, pm_bytes(data, size), NULL);
    check(&env, pm_bytes(data, size), "production");
    return 0;
}
