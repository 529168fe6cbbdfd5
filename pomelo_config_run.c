/* SPDX-License-Identifier: MIT */
/* pomelo_config_run.c -- what a process reads beside the table: where the
 * master is and who may talk to it, the dictionary, the log, what to start.
 *
 * pomelo_config.c has seen to it that each file is JSON and has cut it to the
 * environment; here it becomes structs, and what does not fit is told with file
 * and key. Start at pmi_run_files_read. */
#include "pomelo_config_run_internal.h"

#include "core/buf.h"
#include "core/json.h"

#include <cjson/cJSON.h>

typedef struct files_reader {
    pmi_run_files *files;
    const pm_config *config;
    const char *file; /* which one is being read */
    size_t entry;     /* of a list, from 1; 0: of none */
    char *why;
    size_t why_size;
} files_reader;

static pm_err files_wrong(files_reader *r, const char *key,
                          const char *expected)
{
    char entry[32] = "";
    if (r->entry)
        pmi_format(entry, sizeof entry, "[%zu]%s", r->entry - 1,
                   key ? "." : "");
    pmi_format(r->why, r->why_size, "%s: %s%s%sexpected %s", r->file, entry,
               key ? key : "", key || r->entry ? ": " : "", expected);
    return PM_ECONFIG;
}

/* *out NULL: there is no such file. It lives as long as the files. */
static pm_err files_open(files_reader *r, const char *name, const cJSON **out)
{
    const char *text = pm_config_file(r->config, name);
    cJSON *tree = NULL;
    pm_err err;
    r->file = name;
    r->entry = 0;
    *out = NULL;
    if (!text)
        return PM_OK;
    err = pmi_json_parse(r->files->env, pm_text(text), PMI_JSON_DEPTH_MAX,
                         &tree, NULL);
    if (err == PM_ENOMEM)
        return err;
    if (err)
        return files_wrong(r, NULL, "JSON");
    PMI_ASSERT(r->files->trees_count < PMI_COUNT(r->files->trees));
    r->files->trees[r->files->trees_count++] = tree;
    *out = tree;
    return PM_OK;
}

static pm_err files_text(files_reader *r, const cJSON *tree, const char *key,
                         bool needed, const char **out)
{
    const cJSON *node = pmi_json_get(tree, key);
    if (!node && !needed)
        return PM_OK;
    if (!cJSON_IsString(node) || !*node->valuestring)
        return files_wrong(r, key, "a text");
    *out = node->valuestring;
    return PM_OK;
}

static pm_err files_number(files_reader *r, const cJSON *tree, const char *key,
                           uint64_t max, uint64_t *out)
{
    const cJSON *node = pmi_json_get(tree, key);
    double number = cJSON_IsNumber(node) ? node->valuedouble : -1;
    char expected[64];
    if (!node)
        return PM_OK;
    if (number >= 0 && number <= (double)max) {
        *out = (uint64_t)number;
        if ((double)*out == number)
            return PM_OK;
    }
    pmi_format(expected, sizeof expected, "a number from 0 to %llu",
               (unsigned long long)max);
    return files_wrong(r, key, expected);
}

static pm_err files_flag(files_reader *r, const cJSON *tree, const char *key,
                         bool *out)
{
    const cJSON *node = pmi_json_get(tree, key);
    if (node && !cJSON_IsBool(node))
        return files_wrong(r, key, "true or false");
    if (node)
        *out = cJSON_IsTrue(node);
    return PM_OK;
}

/* ---- master.json ------------------------------------------------------- */

static pm_err files_read_master(files_reader *r)
{
    pm_server *master = &r->files->master;
    const cJSON *tree;
    uint64_t port = 0;
    pm_err err = files_open(r, "master.json", &tree);
    if (err || !tree)
        return err;
    err = files_text(r, tree, "id", true, &master->id);
    if (err == PM_OK)
        err = files_text(r, tree, "host", false, &master->host);
    if (err == PM_OK)
        err = files_number(r, tree, "port", UINT16_MAX, &port);
    if (err == PM_OK && port == 0)
        err = files_wrong(r, "port", "a number from 1 to 65535");
    master->type = "master";
    master->port = (uint16_t)port;
    return err;
}

/* ---- Who may talk to the master ---------------------------------------- */

/* A list of objects; *count entries of `size` bytes are made. */
static pm_err files_list(files_reader *r, const cJSON *tree, size_t size,
                         void **out, size_t *count)
{
    size_t n = tree ? (size_t)cJSON_GetArraySize(tree) : 0;
    if (tree && !cJSON_IsArray(tree))
        return files_wrong(r, NULL, "an array");
    if (n == 0)
        return PM_OK;
    *out = pmi_resize_array(r->files->env, NULL, n, size);
    if (!*out)
        return PM_ENOMEM;
    memset(*out, 0, n * size);
    *count = n;
    return PM_OK;
}

static pm_err files_read_tokens(files_reader *r)
{
    pmi_run_files *files = r->files;
    const cJSON *tree, *entry;
    void *list = NULL;
    size_t i = 0;
    pm_err err = files_open(r, "adminServer.json", &tree);
    if (err == PM_OK)
        err = files_list(r, tree, sizeof *files->tokens, &list,
                         &files->tokens_count);
    files->tokens = list;
    for (entry = list ? tree->child : NULL; entry; entry = entry->next) {
        pm_admin_token *token = &files->tokens[i++];
        if (err == PM_OK)
            r->entry = i;
        if (err == PM_OK)
            err = files_text(r, entry, "type", true, &token->type);
        if (err == PM_OK)
            err = files_text(r, entry, "token", true, &token->token);
    }
    return err;
}

static pm_err files_read_users(files_reader *r)
{
    pmi_run_files *files = r->files;
    const cJSON *tree, *entry;
    void *list = NULL;
    size_t i = 0;
    pm_err err = files_open(r, "adminUser.json", &tree);
    if (err == PM_OK)
        err = files_list(r, tree, sizeof *files->users, &list,
                         &files->users_count);
    files->users = list;
    for (entry = list ? tree->child : NULL; entry; entry = entry->next) {
        pm_admin_user *user = &files->users[i++];
        uint64_t level = 2; /* who has none may look */
        if (err == PM_OK)
            r->entry = i;
        if (err == PM_OK)
            err = files_text(r, entry, "username", true, &user->username);
        if (err == PM_OK)
            err = files_text(r, entry, "password", true, &user->password);
        if (err == PM_OK)
            err = files_number(r, entry, "level", 1000, &level);
        user->level = (int)level;
    }
    return err;
}

/* ---- dictionary.json --------------------------------------------------- */

static pm_err files_read_dictionary(files_reader *r)
{
    pmi_run_files *files = r->files;
    const cJSON *tree, *entry;
    void *list = NULL;
    size_t i = 0;
    pm_err err = files_open(r, "dictionary.json", &tree);
    if (err == PM_OK)
        err = files_list(r, tree, sizeof *files->dictionary, &list,
                         &files->dictionary_count);
    files->dictionary = list;
    for (entry = list ? tree->child : NULL; entry; entry = entry->next) {
        r->entry = i + 1;
        if (!cJSON_IsString(entry))
            return files_wrong(r, NULL, "a route");
        files->dictionary[i++] = entry->valuestring;
    }
    return err;
}

/* ---- log.json ---------------------------------------------------------- */

/* False: there is no such level, *out is untouched. */
static bool files_is_level(const cJSON *node, pm_log_level *out)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    for (size_t i = 0; cJSON_IsString(node) && i < PMI_COUNT(names); i++)
        if (!strcmp(node->valuestring, names[i])) {
            *out = (pm_log_level)(i + 1);
            return true;
        }
    return false;
}

pm_log_level pmi_log_rules_level(const pmi_log_rules *rules, const char *module)
{
    pm_log_level level = rules->level ? rules->level : PM_LOG_INFO;
    files_is_level(pmi_json_get(rules->levels, module), &level);
    return level;
}

static pm_err files_level(files_reader *r, const cJSON *node, const char *key,
                          pm_log_level *out)
{
    return files_is_level(node, out)
               ? PM_OK
               : files_wrong(r, key, "error, warn, info or debug");
}

static pm_err files_read_levels(files_reader *r, const cJSON *tree)
{
    pmi_log_rules *log = &r->files->log;
    const cJSON *level = pmi_json_get(tree, "level"), *node;
    pm_log_level one;
    pm_err err = level ? files_level(r, level, "level", &log->level) : PM_OK;
    one = log->most = log->level ? log->level : PM_LOG_INFO;
    log->levels = pmi_json_get(tree, "levels");
    cJSON_ArrayForEach(node, log->levels)
    {
        if (err == PM_OK)
            err = files_level(r, node, "levels", &one);
        if (one > log->most)
            log->most = one;
    }
    return err;
}

static pm_err files_read_log(files_reader *r)
{
    pmi_log_rules *log = &r->files->log;
    const char *format = "text";
    const cJSON *tree;
    pm_err err = files_open(r, "log.json", &tree);
    log->max_bytes = 10 << 20;
    log->keep = 5;
    if (err || !tree)
        return err;
    err = files_read_levels(r, tree);
    if (err == PM_OK)
        err = files_text(r, tree, "format", false, &format);
    if (err == PM_OK && strcmp(format, "text") && strcmp(format, "json"))
        err = files_wrong(r, "format", "text or json");
    log->json = !strcmp(format, "json");
    if (err == PM_OK)
        err = files_text(r, tree, "file", false, &log->file);
    if (err == PM_OK)
        err = files_number(r, tree, "max_bytes", UINT64_C(1) << 40,
                           &log->max_bytes);
    if (err == PM_OK)
        err = files_number(r, tree, "keep", 100, &log->keep);
    log->stderr_given = pmi_json_get(tree, "stderr") != NULL;
    return err ? err : files_flag(r, tree, "stderr", &log->to_stderr);
}

/* ---- pomelo.json ------------------------------------------------------- */

static pm_err files_read_stats(files_reader *r, const cJSON *stats)
{
    pmi_start_rules *start = &r->files->start;
    uint64_t port = 0;
    pm_err err = PM_OK;
    if (stats && !cJSON_IsObject(stats))
        return files_wrong(r, "stats", "an object");
    err = files_text(r, stats, "host", false, &start->stats_host);
    if (err == PM_OK)
        err = files_number(r, stats, "port", UINT16_MAX, &port);
    start->stats_port = (uint16_t)port;
    return err;
}

static pm_err files_read_start(files_reader *r)
{
    pmi_start_rules *start = &r->files->start;
    const cJSON *tree, *web;
    uint64_t port = 0;
    pm_err err = files_open(r, "pomelo.json", &tree);
    if (err || !tree)
        return err;
    err = files_text(r, tree, "binary", false, &start->binary);
    if (err == PM_OK)
        err = files_read_stats(r, pmi_json_get(tree, "stats"));
    web = pmi_json_get(tree, "web");
    if (err || !web)
        return err;
    err = files_text(r, web, "root", true, &start->web_root);
    if (err == PM_OK)
        err = files_text(r, web, "host", false, &start->web_host);
    if (err == PM_OK)
        err = files_number(r, web, "port", UINT16_MAX, &port);
    start->web_port = (uint16_t)port;
    return err;
}

/* ---- All of them ------------------------------------------------------- */

pm_err pmi_run_files_read(pmi_run_files *files, const pmi_env *env,
                          const pm_config *config, char *why, size_t why_size)
{
    static pm_err (*const parts[])(files_reader *) = {
        files_read_master,     files_read_tokens, files_read_users,
        files_read_dictionary, files_read_log,    files_read_start};
    files_reader r = {files, config, "", 0, why, why_size};
    pm_err err = PM_OK;
    memset(files, 0, sizeof *files);
    files->env = env;
    for (size_t i = 0; i < PMI_COUNT(parts) && err == PM_OK; i++)
        err = parts[i](&r);
    if (err == PM_ENOMEM)
        pmi_format(why, why_size, "%s: %s", r.file, pm_strerror(err));
    return err;
}

void pmi_run_files_free(pmi_run_files *files)
{
    if (!files->env)
        return;
    for (size_t i = 0; i < files->trees_count; i++)
        cJSON_Delete(files->trees[i]);
    pmi_free(files->env, files->tokens);
    pmi_free(files->env, files->users);
    pmi_free(files->env, files->dictionary);
    memset(files, 0, sizeof *files);
}

/* ---- args -------------------------------------------------------------- */

/* A block: the pointers, a NULL, and behind them the texts. */
static pm_err files_args_block(const pmi_env *env, const cJSON *node,
                               size_t count, size_t bytes, char ***out)
{
    char **list = pmi_alloc(env, (count + 1) * sizeof *list + bytes), *text,
         **at = list;
    const cJSON *item = cJSON_IsArray(node) ? node->child : node;
    if (!list)
        return PM_ENOMEM;
    text = (char *)(list + count + 1);
    for (size_t i = 0; i < count; i++, item = item->next) {
        size_t size = strlen(item->valuestring) + 1;
        memcpy(text, item->valuestring, size);
        *at++ = text;
        text += size;
    }
    *at = NULL;
    *out = list;
    return PM_OK;
}

pm_err pmi_run_server_args(const pmi_env *env, const pm_server *server,
                           char ***out, size_t *count)
{
    cJSON *tree = NULL;
    const cJSON *node, *item;
    size_t n = 0, bytes = 0;
    pm_err err = PM_OK;
    if (server->raw)
        err = pmi_json_parse(env, pm_text(server->raw), PMI_JSON_DEPTH_MAX,
                             &tree, NULL);
    if (err)
        return err == PM_ENOMEM ? err : PM_ECONFIG;
    node = pmi_json_get(tree, "args");
    for (item = cJSON_IsArray(node) ? node->child : node; item && err == PM_OK;
         item = cJSON_IsArray(node) ? item->next : NULL) {
        if (!cJSON_IsString(item))
            err = PM_ECONFIG;
        else
            bytes += strlen(item->valuestring) + 1;
        n++;
    }
    if (err == PM_OK)
        err = files_args_block(env, node, n, bytes, out);
    if (err == PM_OK)
        *count = n;
    cJSON_Delete(tree);
    return err;
}
