/* SPDX-License-Identifier: MIT */
/* pomelo_config_run.c -- what a process reads beside the table: where the
 * master is and who may talk to it, the dictionary, the log, what to start.
 *
 * pomelo_config.c has seen to it that each file is JSON and has cut it to the
 * environment; here it becomes structs, and what does not fit is told with file
 * and key. Start at pmi_run_files_read. */
#include "pomelo_config_run_internal.h"

#include "core/json.h"
#include "pomelo_config_internal.h"
#include "pomelo_dialect_internal.h"
#include "pomelo_proto_internal.h"

#include <cjson/cJSON.h>

typedef struct files_reader {
    pmi_run_files *files;
    const pm_config *config;
    const char *file; /* which one is being read */
    size_t entry;     /* of a list, from 1; 0: of none */
    const char *in;   /* the member that is being read; NULL: the whole file */
    char *why;
    size_t why_size;
} files_reader;

static pm_err files_wrong(files_reader *r, const char *key,
                          const char *expected)
{
    char where[80] = "";
    if (r->entry)
        pmi_format(where, sizeof where, "[%zu]", r->entry - 1);
    else if (r->in)
        pmi_format(where, sizeof where, "%.*s", pmi_config_cut(r->in, 64),
                   r->in);
    key = key ? key : "";
    pmi_format(r->why, r->why_size, "%s: %s%s%.*s%sexpected %s", r->file, where,
               *where && *key ? "." : "", pmi_config_cut(key, 64), key,
               *where || *key ? ": " : "", expected);
    pmi_config_one_line(r->why, r->why_size);
    return PM_ECONFIG;
}

/* *out NULL: there is no such file. */
static pm_err files_parse(files_reader *r, const pmi_env *env, const char *name,
                          cJSON **out)
{
    const char *text = pm_config_file(r->config, name);
    pm_err err;
    r->file = name;
    r->entry = 0;
    r->in = NULL;
    *out = NULL;
    if (!text)
        return PM_OK;
    err = pmi_json_parse(env, pm_text(text), PMI_JSON_DEPTH_MAX, out, NULL);
    return err && err != PM_ENOMEM ? files_wrong(r, NULL, "JSON") : err;
}

/* The same; the tree lives as long as the files. */
static pm_err files_open(files_reader *r, const char *name, const cJSON **out)
{
    pmi_run_files *files = r->files;
    cJSON *tree;
    pm_err err = files_parse(r, files->env, name, &tree);
    *out = tree;
    if (err || !tree)
        return err;
    PMI_ASSERT(files->trees_count < PMI_COUNT(files->trees));
    files->trees[files->trees_count++] = tree;
    return PM_OK;
}

/* NULL, which is not there, is fine. */
static pm_err files_object(files_reader *r, const cJSON *node, const char *key)
{
    return !node || cJSON_IsObject(node) ? PM_OK
                                         : files_wrong(r, key, "an object");
}

static pm_err files_open_object(files_reader *r, const char *name,
                                const cJSON **out)
{
    pm_err err = files_open(r, name, out);
    return err ? err : files_object(r, *out, NULL);
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
                           unsigned min, uint64_t max, uint64_t *out)
{
    const cJSON *node = pmi_json_get(tree, key);
    char expected[64];
    uint64_t number = 0;
    if (!node)
        return PM_OK;
    if (pmi_config_whole(node, &number) && number >= min && number <= max) {
        *out = number;
        return PM_OK;
    }
    pmi_format(expected, sizeof expected, "a number from %u to %llu", min,
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
    pm_err err = files_open_object(r, "master.json", &tree);
    if (err || !tree)
        return err;
    err = files_text(r, tree, "id", true, &master->id);
    if (err == PM_OK)
        err = files_text(r, tree, "host", false, &master->host);
    if (err == PM_OK)
        err = files_number(r, tree, "port", 1, UINT16_MAX, &port);
    if (err == PM_OK && port == 0) /* there is none */
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
            err = files_number(r, entry, "level", 0, 1000, &level);
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
        if (!cJSON_IsString(entry) ||
            strlen(entry->valuestring) > PMI_ROUTE_MAX)
            return files_wrong(r, NULL, "a route of at most 255 bytes");
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
    if (err == PM_OK)
        err = files_object(r, log->levels, "levels");
    r->in = "levels";
    cJSON_ArrayForEach(node, log->levels)
    {
        if (err == PM_OK)
            err = files_level(r, node, node->string, &one);
        if (one > log->most)
            log->most = one;
    }
    r->in = NULL;
    return err;
}

static pm_err files_read_log(files_reader *r)
{
    pmi_log_rules *log = &r->files->log;
    const char *format = "text";
    const cJSON *tree;
    pm_err err = files_open_object(r, "log.json", &tree);
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
        err = files_number(r, tree, "max_bytes", 0, UINT64_C(1) << 40,
                           &log->max_bytes);
    if (err == PM_OK)
        err = files_number(r, tree, "keep", 0, 100, &log->keep);
    log->stderr_given = pmi_json_get(tree, "stderr") != NULL;
    return err ? err : files_flag(r, tree, "stderr", &log->to_stderr);
}

/* ---- pomelo.json ------------------------------------------------------- */

/* Who tells something at a port: `web` and `stats`. *node NULL: nobody. */
static pm_err files_read_place(files_reader *r, const cJSON *tree,
                               const char *key, const cJSON **node,
                               const char **host, uint16_t *port)
{
    uint64_t number = 0;
    pm_err err;
    *node = pmi_json_get(tree, key);
    err = files_object(r, *node, key);
    r->in = key;
    if (err == PM_OK)
        err = files_text(r, *node, "host", false, host);
    if (err == PM_OK)
        err = files_number(r, *node, "port", 0, UINT16_MAX, &number);
    *port = (uint16_t)number;
    return err;
}

static pm_err files_read_start(files_reader *r)
{
    pmi_start_rules *start = &r->files->start;
    const cJSON *tree, *node;
    pm_err err = files_open_object(r, "pomelo.json", &tree);
    if (err || !tree)
        return err;
    err = files_text(r, tree, "binary", false, &start->binary);
    if (err == PM_OK)
        err = files_read_place(r, tree, "stats", &node, &start->stats_host,
                               &start->stats_port);
    r->in = NULL;
    if (err == PM_OK)
        err = files_read_place(r, tree, "web", &node, &start->web_host,
                               &start->web_port);
    if (err || !node)
        return err;
    return files_text(r, node, "root", true, &start->web_root);
}

/* ---- serverProtos.json, clientProtos.json ------------------------------- */

pm_err pmi_run_protos_look_at(const pmi_env *env, const pm_config *config,
                              const char *name, char *why, size_t why_size)
{
    files_reader r = {NULL, config, name, 0, NULL, why, why_size};
    pmi_dialect_flaw flaw;
    cJSON *tree;
    pm_err err = files_parse(&r, env, name, &tree);
    if (err == PM_OK)
        err = files_object(&r, tree, NULL);
    if (err == PM_OK && pmi_dialect_find_flaw(tree, &flaw)) {
        r.in = flaw.message;
        err = files_wrong(&r, flaw.member, flaw.expected);
    }
    cJSON_Delete(tree);
    return err;
}

/* ---- All of them ------------------------------------------------------- */

pm_err pmi_run_files_read(pmi_run_files *files, const pmi_env *env,
                          const pm_config *config, char *why, size_t why_size)
{
    static pm_err (*const parts[])(files_reader *) = {
        files_read_master,     files_read_tokens, files_read_users,
        files_read_dictionary, files_read_log,    files_read_start};
    files_reader r = {files, config, "", 0, NULL, why, why_size};
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
