/* SPDX-License-Identifier: MIT */
/* fuzz_config.c -- any bytes as a servers.json.
 *
 * A table that is taken is whole: ids, types and entries that are JSON. One
 * that is refused is refused with one line that names the file. */
#include "core/json.h"
#include "pomelo_config_internal.h"

#include <stdlib.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_env env;
    pmi_env_init(&env, NULL);
    check(&env, pm_bytes(data, size), NULL);
    check(&env, pm_bytes(data, size), "production");
    return 0;
}
