/* SPDX-License-Identifier: MIT */
/* pomelo_config.c -- Pomelo's files: servers.json and what lies beside it.
 *
 * A file is DIR/NAME, or DIR/ENV/NAME when that is missing; when its top object
 * has a key that is called like the environment, that part is the file. The
 * table is {"type": [{"id": .., "host": .., "port": ..}, ..]}; an entry with
 * clusterCount stands for so many servers.
 *
 * People write these files by hand, so a mistake is told with the place:
 *
 *     config/servers.json:14: chat[1].port: expected a number from 1 to 65535
 *     or "N++", found "abc"
 *
 * Trees have no line numbers. When something is wrong the text is walked once
 * more, down the path to the value in question (config_find): what is right
 * pays nothing for it.
 *
 * Floor 1, with files: bytes and structs only. Start at config_read_table(). */
#include "pomelo_config_internal.h"

#include "core/json.h"
#include "core/map.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>

#define CONFIG_FILE_MAX ((size_t)4 * 1024 * 1024)
/* clusterCount makes much out of little: what it all may come to. */
#define CONFIG_SERVERS_MAX 10000
#define CONFIG_TEXTS_MAX ((size_t)64 * 1024 * 1024)
#define CONFIG_NAME_MAX 255 /* of an id and of a type */

static const char *const config_siblings[] = {
    "master.json",       "adminServer.json",  "adminUser.json",
    "crons.json",        "masterha.json",     "dictionary.json",
    "serverProtos.json", "clientProtos.json", "log.json",
    "pomelo.json",       "log4js.json"};

/* Texts of a config live and die together. */
typedef struct config_text {
    struct config_text *next;
    char text[];
} config_text;

struct pm_config {
    pmi_env env;
    pm_server *servers;
    size_t count, cap;
    config_text *texts;
    size_t texts_bytes;
    const char *files[PMI_COUNT(config_siblings)];
};

typedef struct config_reader {
    pm_config *config;
    const pmi_env *env;
    const char *dir, *env_name;
    char *why;
    size_t why_size;
    const char *file; /* as it is shown */
    pm_slice text;    /* of the file that is being read */
    const char *part; /* the key of the environment; NULL: the whole file */
    const char *type; /* where we are: type[index] */
    size_t index;
    bool spoken;    /* one entry of a command line: its key is place enough */
    uint32_t first; /* of each type's ids that clusterCount makes */
    pmi_map ids;
    pmi_buf scratch;
} config_reader;

/* ---- Where is it? ------------------------------------------------------ */
/* Only for text that has been read: it is JSON. Still, each step is bounded. */

static const uint8_t *config_skip_space(const uint8_t *at, const uint8_t *end)
{
    while (at < end && memchr(" \t\r\n", *at, 4))
        at++;
    return at;
}

static const uint8_t *config_skip_string(const uint8_t *at, const uint8_t *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at < end ? at + 1 : end;
}

static const uint8_t *config_skip_value(const uint8_t *at, const uint8_t *end)
{
    size_t depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = config_skip_string(at, end);
        } else {
            depth += *at == '{' || *at == '[';
            depth -= depth > 0 && (*at == '}' || *at == ']');
            at++;
        }
        if (depth == 0 && at < end && memchr(",]} \t\r\n", *at, 7))
            break;
    }
    return at;
}

/* The key as the tree has it, escapes and all. */
static bool config_key_is(const pmi_env *env, pm_slice token, const char *name)
{
    struct cJSON *key = NULL;
    bool same;
    if (pmi_json_parse(env, token, 1, &key, NULL))
        return false;
    same = cJSON_IsString(key) && !strcmp(key->valuestring, name);
    cJSON_Delete(key);
    return same;
}

/* The value of a member of the object at `at`: of twins the last one, as in the
 * tree. NULL: none. */
static const uint8_t *config_find_member(const pmi_env *env, const uint8_t *at,
                                         const uint8_t *end, const char *name)
{
    const uint8_t *found = NULL, *key;
    if (at == end || *at != '{')
        return NULL;
    at = config_skip_space(at + 1, end);
    while (at < end && *at == '"') {
        bool same;
        key = at;
        at = config_skip_string(at, end);
        same = config_key_is(env, pm_bytes(key, (size_t)(at - key)), name);
        at = config_skip_space(at, end);
        at = config_skip_space(at < end ? at + 1 : end, end); /* the colon */
        found = same ? at : found;
        at = config_skip_space(config_skip_value(at, end), end);
        at = config_skip_space(at < end ? at + 1 : end, end); /* the comma */
    }
    return found;
}

static const uint8_t *config_find_element(const uint8_t *at, const uint8_t *end,
                                          size_t index)
{
    if (at == end || *at != '[')
        return NULL;
    at = config_skip_space(at + 1, end);
    while (index-- > 0 && at < end) {
        at = config_skip_space(config_skip_value(at, end), end);
        at = config_skip_space(at < end ? at + 1 : end, end);
    }
    return at < end ? at : NULL;
}

/* The value at part -> type -> [index] -> key, each of which may be missing:
 * then what it would have been in. */
static const uint8_t *config_find(const config_reader *r, bool entry,
                                  const char *key)
{
    const uint8_t *begin = r->text.data, *end = begin + r->text.len;
    const uint8_t *at = config_skip_space(begin, end), *next = at;
    if (r->part)
        next = config_find_member(r->env, at, end, r->part);
    if (next && r->type)
        next = config_find_member(r->env, at = next, end, r->type);
    if (next && r->type && entry)
        next = config_find_element(at = next, end, r->index);
    if (next && key)
        next = config_find_member(r->env, at = next, end, key);
    return next ? next : at;
}

static unsigned config_line(const config_reader *r, const uint8_t *at)
{
    unsigned line = 1;
    for (const uint8_t *p = r->text.data; p < at; p++)
        line += *p == '\n';
    return line;
}

/* ---- What is wrong? ---------------------------------------------------- */

int pmi_config_cut(const char *text, size_t max)
{
    size_t len = strlen(text);
    if (len > max)
        for (len = max; len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80;)
            len--;
    return (int)len;
}

void pmi_config_one_line(char *why, size_t why_size)
{
    if (!why_size)
        return;
    for (char *p = why; *p; p++)
        if ((uint8_t)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

static pm_err config_fail(config_reader *r, bool entry, const char *key,
                          const char *expected, const char *found)
{
    char place[160] = "", index[32] = "";
    if (r->type && entry)
        pmi_format(index, sizeof index, "[%zu]", r->index);
    if (r->type)
        pmi_format(place, sizeof place,
                   "%.*s%s%s%s: ", pmi_config_cut(r->type, 64), r->type, index,
                   key ? "." : "", key ? key : "");
    if (r->spoken)
        pmi_format(r->why, r->why_size, "%s%sexpected %s, found %s",
                   key ? key : "", key ? ": " : "", expected, found);
    else
        pmi_format(r->why, r->why_size, "%s:%u: %sexpected %s, found %s",
                   r->file, config_line(r, config_find(r, entry, key)), place,
                   expected, found);
    pmi_config_one_line(r->why, r->why_size);
    return PM_ECONFIG;
}

static void config_describe(const pmi_env *env, const cJSON *node, char *out,
                            size_t size)
{
    const char *kind = !node                  ? "nothing"
                       : cJSON_IsObject(node) ? "an object"
                       : cJSON_IsArray(node)  ? "an array"
                                              : NULL;
    pmi_buf text;
    if (kind) {
        pmi_format(out, size, "%s", kind);
        return;
    }
    pmi_buf_init(&text, env, SIZE_MAX);
    if (pmi_json_print(node, 1, &text) == PM_OK)
        pmi_buf_add_byte(&text, 0);
    if (text.len == 0 || text.failed) {
        pmi_format(out, size, "something else");
    } else {
        const char *shown = (const char *)text.data;
        int len = pmi_config_cut(shown, 48);
        pmi_format(out, size, "%.*s%s", len, shown, shown[len] ? "..." : "");
    }
    pmi_buf_fini(&text);
}

/* A member of the entry that is not as it should be. */
static pm_err config_wrong(config_reader *r, const char *key,
                           const char *expected, const cJSON *found)
{
    char text[64];
    config_describe(r->env, found, text, sizeof text);
    return config_fail(r, true, key, expected, text);
}

/* ---- Texts ------------------------------------------------------------- */

static pm_err config_keep(config_reader *r, pm_slice text, const char **out)
{
    pm_config *config = r->config;
    config_text *kept;
    if (text.len >= CONFIG_TEXTS_MAX - config->texts_bytes)
        return config_fail(r, r->type != NULL, NULL,
                           "64 MiB of texts in all at most", "more");
    kept = pmi_alloc(r->env, sizeof *kept + text.len + 1);
    if (!kept)
        return PM_ENOMEM;
    if (text.len)
        memcpy(kept->text, text.data, text.len);
    kept->text[text.len] = 0;
    kept->next = config->texts;
    config->texts = kept;
    config->texts_bytes += text.len + 1;
    *out = kept->text;
    return PM_OK;
}

static pm_err config_keep_json(config_reader *r, const cJSON *node,
                               const char **out)
{
    pm_err err;
    pmi_buf_reset(&r->scratch);
    err = pmi_json_print(node, PMI_JSON_DEPTH_MAX, &r->scratch);
    if (err)
        return PM_ENOMEM;
    return config_keep(r, pmi_buf_slice(&r->scratch), out);
}

/* ---- Members of an entry ----------------------------------------------- */

/* What one entry says. */
typedef struct config_entry {
    const cJSON *tree;
    pm_server server;
    uint32_t count; /* clusterCount; 0: not there, this is one server */
    bool port_counts, client_port_counts, stats_port_counts;
} config_entry;

/* "3000" and, with `plus`, "3000++". */
static bool config_digits(const char *text, bool plus, uint64_t *out)
{
    size_t n = 0;
    uint64_t number = 0;
    for (; text[n] >= '0' && text[n] <= '9' && n < 15; n++)
        number = 10 * number + (uint64_t)(text[n] - '0');
    if (n == 0 || strcmp(text + n, plus ? "++" : "") != 0)
        return false;
    *out = number;
    return true;
}

bool pmi_config_whole(const cJSON *node, uint64_t *out)
{
    if (cJSON_IsString(node))
        return config_digits(node->valuestring, false, out);
    if (!cJSON_IsNumber(node) || !(node->valuedouble >= 0) ||
        node->valuedouble > 1e15)
        return false;
    *out = (uint64_t)node->valuedouble;
    return (double)*out == node->valuedouble;
}

static pm_err config_number(config_reader *r, const cJSON *tree,
                            const char *key, uint32_t min, uint32_t max,
                            uint32_t *out)
{
    const cJSON *node = pmi_json_get(tree, key);
    char expected[64];
    uint64_t number = 0;
    if (!node)
        return PM_OK;
    if (pmi_config_whole(node, &number) && number >= min && number <= max) {
        *out = (uint32_t)number;
        return PM_OK;
    }
    pmi_format(expected, sizeof expected, "a number from %u to %u",
               (unsigned)min, (unsigned)max);
    return config_wrong(r, key, expected, node);
}

static pm_err config_port(config_reader *r, const config_entry *entry,
                          const char *key, uint16_t *out, bool *counts)
{
    const cJSON *node = pmi_json_get(entry->tree, key);
    const char *expected = "a number from 1 to 65535 or \"N++\"";
    uint64_t number = 0;
    if (!node)
        return PM_OK;
    *counts =
        cJSON_IsString(node) && config_digits(node->valuestring, true, &number);
    if (*counts && !entry->count)
        expected = "a number from 1 to 65535 (\"N++\" counts only beside "
                   "clusterCount)";
    else if (*counts && number + entry->count > 65536)
        expected = "\"N++\" with N + clusterCount - 1 up to 65535";
    else if ((*counts || pmi_config_whole(node, &number)) && number >= 1 &&
             number <= 65535) {
        *out = (uint16_t)number;
        return PM_OK;
    }
    return config_wrong(r, key, expected, node);
}

static pm_err config_string(config_reader *r, const cJSON *tree,
                            const char *key, const char **out)
{
    const cJSON *node = pmi_json_get(tree, key);
    if (!node)
        return PM_OK;
    if (!cJSON_IsString(node) || !*node->valuestring)
        return config_wrong(r, key, "a text", node);
    return config_keep(r, pm_text(node->valuestring), out);
}

static pm_err config_flag(config_reader *r, const cJSON *tree, const char *key,
                          bool *out)
{
    const cJSON *node = pmi_json_get(tree, key);
    const char *text = cJSON_IsString(node) ? node->valuestring : "";
    *out = cJSON_IsTrue(node) || !strcmp(text, "true");
    if (!node || cJSON_IsBool(node) || *out || !strcmp(text, "false"))
        return PM_OK;
    return config_wrong(r, key, "true or false", node);
}

/* The master looks for these two in the entry's text. */
static pm_err config_restarts(config_reader *r, const cJSON *tree)
{
    bool set;
    pm_err err = config_flag(r, tree, "auto-restart", &set);
    return err ? err : config_flag(r, tree, "restart-force", &set);
}

/* A text is one argument, an array several: it is kept as JSON text. */
static pm_err config_args(config_reader *r, config_entry *entry)
{
    static const char expected[] = "a text or an array of texts";
    const cJSON *node = pmi_json_get(entry->tree, "args"), *item;
    if (!node)
        return PM_OK;
    if (cJSON_IsString(node))
        return config_keep(r, pm_text(node->valuestring), &entry->server.args);
    if (!cJSON_IsArray(node))
        return config_wrong(r, "args", expected, node);
    cJSON_ArrayForEach(item, node)
    {
        if (!cJSON_IsString(item))
            return config_wrong(r, "args", expected, item);
    }
    return config_keep_json(r, node, &entry->server.args);
}

static pm_err config_id(config_reader *r, config_entry *entry)
{
    const cJSON *node = pmi_json_get(entry->tree, "id");
    bool good = cJSON_IsString(node) && *node->valuestring &&
                strlen(node->valuestring) <= CONFIG_NAME_MAX;
    if (!node && entry->count)
        return PM_OK;
    if (!good)
        return config_wrong(r, "id", "a text of 1 to 255 bytes", node);
    return entry->count
               ? PM_OK
               : config_keep(r, pm_text(node->valuestring), &entry->server.id);
}

static pm_err config_read_entry(config_reader *r, const cJSON *tree,
                                config_entry *entry)
{
    pm_server *server = &entry->server;
    const char *client_host;
    uint32_t core = UINT32_MAX;
    pm_err err;
    memset(entry, 0, sizeof *entry);
    entry->tree = tree;
    err = config_number(r, tree, "clusterCount", 1, CONFIG_SERVERS_MAX,
                        &entry->count);
    if (err == PM_OK)
        err = config_id(r, entry);
    if (err == PM_OK)
        err = config_string(r, tree, "host", &server->host);
    if (err == PM_OK)
        err = config_port(r, entry, "port", &server->port, &entry->port_counts);
    if (err == PM_OK)
        err = config_string(r, tree, "clientHost", &client_host);
    if (err == PM_OK)
        err = config_port(r, entry, "clientPort", &server->client_port,
                          &entry->client_port_counts);
    if (err == PM_OK)
        err = config_port(r, entry, "statsPort", &server->stats_port,
                          &entry->stats_port_counts);
    if (err == PM_OK)
        err = config_flag(r, tree, "frontend", &server->frontend);
    if (err == PM_OK)
        err = config_restarts(r, tree);
    if (err == PM_OK)
        err = config_number(r, tree, "cpu", 0, 4095, &core);
    if (err == PM_OK)
        err = config_number(r, tree, "max-connections", 0, UINT32_MAX,
                            &server->max_connections);
    if (err == PM_OK)
        err = config_number(r, tree, "weight", 1, UINT32_MAX, &server->weight);
    if (err == PM_OK)
        err = config_args(r, entry);
    server->cpu = core == UINT32_MAX ? 0 : (int)core + 1;
    return err;
}

/* ---- Entries to servers ------------------------------------------------ */

static pm_err config_add(config_reader *r, const pm_server *server)
{
    pm_config *config = r->config;
    pm_err err;
    if (pmi_map_get(&r->ids, pm_text(server->id))) {
        char found[64];
        int len = pmi_config_cut(server->id, 48);
        pmi_format(found, sizeof found, "\"%.*s\"%s", len, server->id,
                   server->id[len] ? "..." : "");
        return config_fail(r, true, "id", "an id that no server before it has",
                           found);
    }
    if (config->count == CONFIG_SERVERS_MAX)
        return config_fail(r, true, NULL, "10000 servers in all at most",
                           "more");
    if (config->count == config->cap) {
        size_t cap = config->cap ? 2 * config->cap : 16;
        pm_server *servers =
            pmi_resize_array(r->env, config->servers, cap, sizeof *servers);
        if (!servers)
            return PM_ENOMEM;
        config->servers = servers;
        config->cap = cap;
    }
    err = pmi_map_put(&r->ids, pm_text(server->id), config, NULL);
    if (err)
        return err;
    config->servers[config->count++] = *server;
    return PM_OK;
}

/* Every "N++" of a copied entry becomes N + i, known to us or not. */
static void config_count_up(cJSON *tree, uint32_t i)
{
    cJSON *node;
    uint64_t number;
    cJSON_ArrayForEach(node, tree)
    {
        if (!cJSON_IsString(node) ||
            !config_digits(node->valuestring, true, &number))
            continue;
        cJSON_free(node->valuestring);
        node->valuestring = NULL;
        node->type = (node->type & cJSON_StringIsConst) | cJSON_Number;
        cJSON_SetNumberHelper(node, (double)(number + i));
    }
}

static pm_err config_set_id(cJSON *tree, const char *id)
{
    cJSON *node = (cJSON *)(uintptr_t)pmi_json_get(tree, "id");
    pm_err err;
    if (node)
        return cJSON_SetValuestring(node, id) ? PM_OK : PM_ENOMEM;
    node = cJSON_CreateString(id);
    err = node ? pmi_json_add(tree, "id", node) : PM_ENOMEM;
    if (err)
        cJSON_Delete(node);
    return err;
}

/* Server i of an entry with clusterCount, the nth of its type that has one. */
static pm_err config_add_counted(config_reader *r, const config_entry *entry,
                                 uint32_t i, uint32_t nth)
{
    char id[CONFIG_NAME_MAX + 32];
    pm_server server = entry->server;
    cJSON *tree = cJSON_Duplicate(entry->tree, 1);
    pm_err err = tree ? PM_OK : PM_ENOMEM;
    size_t len = pmi_format(id, sizeof id, "cluster-server-%s-%u", r->type,
                            (unsigned)nth);
    if (err == PM_OK && len > CONFIG_NAME_MAX)
        err = config_fail(r, true, NULL,
                          "a type that leaves room for ids of 255 bytes",
                          "a longer one");
    if (err == PM_OK) {
        err = config_set_id(tree, id); /* first: it may be an "N++" itself */
        config_count_up(tree, i);
        /* It is one server now: read again, as a process that is started does,
         * it stays this one. */
        cJSON_DeleteItemFromObjectCaseSensitive(tree, "clusterCount");
    }
    if (entry->port_counts)
        server.port = (uint16_t)(server.port + i);
    if (entry->client_port_counts)
        server.client_port = (uint16_t)(server.client_port + i);
    if (entry->stats_port_counts)
        server.stats_port = (uint16_t)(server.stats_port + i);
    if (err == PM_OK)
        err = config_keep(r, pm_text(id), &server.id);
    if (err == PM_OK)
        err = config_keep_json(r, tree, &server.raw);
    if (err == PM_OK)
        err = config_add(r, &server);
    cJSON_Delete(tree);
    return err;
}

/* *counted: the number of the next server of this type that clusterCount makes.
 */
static pm_err config_add_entry(config_reader *r, const cJSON *tree,
                               const char *type, uint32_t *counted)
{
    config_entry entry;
    pm_err err = PM_OK;
    if (!cJSON_IsObject(tree))
        return config_wrong(r, NULL, "an object", tree);
    err = config_read_entry(r, tree, &entry);
    entry.server.type = type;
    if (err == PM_OK && entry.count == 0) {
        err = config_keep_json(r, tree, &entry.server.raw);
        return err ? err : config_add(r, &entry.server);
    }
    for (uint32_t i = 0; i < entry.count && err == PM_OK; i++)
        err = config_add_counted(r, &entry, i, (*counted)++);
    return err;
}

/* ---- The table --------------------------------------------------------- */

static pm_err config_read_type(config_reader *r, const cJSON *list)
{
    const char *expected = "an array of servers", *type;
    const cJSON *entry;
    uint32_t counted = r->first;
    char text[64], hint[160];
    pm_err err;
    r->type = list->string;
    r->index = 0;
    if (cJSON_IsArray(list) && *r->type && strlen(r->type) <= CONFIG_NAME_MAX) {
        err = config_keep(r, pm_text(r->type), &type);
        cJSON_ArrayForEach(entry, list)
        {
            if (err)
                break;
            err = config_add_entry(r, entry, type, &counted);
            r->index++;
        }
        return err;
    }
    if (cJSON_IsArray(list))
        return config_fail(r, false, NULL, "a type of 1 to 255 bytes",
                           *r->type ? "a longer one" : "an empty one");
    if (cJSON_IsObject(list) && !r->part) {
        pmi_format(hint, sizeof hint,
                   "%s, or a part for the environment \"%.*s\"", expected,
                   pmi_config_cut(r->env_name, 64), r->env_name);
        expected = hint;
    }
    config_describe(r->env, list, text, sizeof text);
    return config_fail(r, false, NULL, expected, text);
}

static pm_err config_read_table(config_reader *r, const cJSON *table)
{
    const cJSON *list;
    char text[64];
    pm_err err = PM_OK;
    r->type = NULL;
    if (!cJSON_IsObject(table)) {
        config_describe(r->env, table, text, sizeof text);
        return config_fail(r, false, NULL, "an object of server types", text);
    }
    cJSON_ArrayForEach(list, table)
    {
        err = config_read_type(r, list);
        if (err)
            return err;
    }
    r->type = NULL;
    if (r->config->count == 0)
        return config_fail(r, false, NULL, "at least one server", "none");
    return PM_OK;
}

/* ---- Files ------------------------------------------------------------- */

/* Text to tree; *part is the environment's, or all of it. */
static pm_err config_parse(config_reader *r, pm_slice text, cJSON **tree,
                           const cJSON **part)
{
    pmi_json_error error = {0};
    const cJSON *of_env;
    pm_err err;
    if (text.len >= 3 && !memcmp(text.data, "\xef\xbb\xbf", 3))
        text = pm_bytes((const uint8_t *)text.data + 3, text.len - 3);
    r->text = text;
    r->type = r->part = NULL;
    err = pmi_json_parse(r->env, text, PMI_JSON_DEPTH_MAX, tree, &error);
    if (err == PM_ENOMEM)
        return err;
    if (err) {
        pmi_format(r->why, r->why_size, "%s:%u: expected %s at column %u",
                   r->file, (unsigned)error.line, error.what,
                   (unsigned)error.column);
        return PM_ECONFIG;
    }
    of_env = pmi_json_get(*tree, r->env_name);
    *part = pmi_json_truthy(of_env) ? of_env : *tree;
    r->part = *part == of_env ? r->env_name : NULL;
    return PM_OK;
}

static pm_err config_read_servers(config_reader *r, pm_slice text)
{
    cJSON *tree = NULL;
    const cJSON *table;
    pm_err err = config_parse(r, text, &tree, &table);
    if (err == PM_OK)
        err = config_read_table(r, table);
    cJSON_Delete(tree);
    return err;
}

/* PM_ENOTFOUND: there is no such file. */
static pm_err config_read_file(config_reader *r, const char *path, pmi_buf *out)
{
    FILE *file = fopen(path, "rb");
    size_t got = 1;
    bool bad;
    if (!file && (errno == ENOENT || errno == ENOTDIR))
        return PM_ENOTFOUND;
    while (file && got > 0 && out->len <= CONFIG_FILE_MAX) {
        uint8_t *to = pmi_buf_reserve(out, 16384);
        if (!to) {
            fclose(file);
            return PM_ENOMEM;
        }
        got = fread(to, 1, 16384, file);
        out->len += got;
    }
    bad = !file || ferror(file);
    if (file)
        fclose(file);
    if (!bad && out->len <= CONFIG_FILE_MAX)
        return PM_OK;
    pmi_format(r->why, r->why_size, "%s: %s", path,
               bad ? "the file can not be read"
                   : "expected a file of 4 MiB at most, found a larger one");
    pmi_config_one_line(r->why, r->why_size);
    return PM_ECONFIG;
}

/* DIR/NAME, else DIR/ENV/NAME. *path is the caller's to free in any case. */
static pm_err config_open(config_reader *r, const char *name, pmi_buf *out,
                          char **path)
{
    size_t size = strlen(r->dir) + strlen(r->env_name) + strlen(name) + 3;
    pm_err err;
    *path = pmi_alloc(r->env, size);
    if (!*path)
        return PM_ENOMEM;
    pmi_format(*path, size, "%s/%s", r->dir, name);
    err = config_read_file(r, *path, out);
    if (err == PM_ENOTFOUND) {
        pmi_format(*path, size, "%s/%s/%s", r->dir, r->env_name, name);
        err = config_read_file(r, *path, out);
    }
    r->file = *path;
    return err;
}

static pm_err config_load_servers(config_reader *r)
{
    pmi_buf text;
    char *path;
    pm_err err;
    pmi_buf_init(&text, r->env, SIZE_MAX);
    err = config_open(r, "servers.json", &text, &path);
    if (err == PM_OK)
        err = config_read_servers(r, pmi_buf_slice(&text));
    if (err == PM_ENOTFOUND) {
        pmi_format(r->why, r->why_size,
                   "%s/servers.json: expected a file there or in %s/%s, found "
                   "none",
                   r->dir, r->dir, r->env_name);
        pmi_config_one_line(r->why, r->why_size);
    }
    pmi_free(r->env, path);
    pmi_buf_fini(&text);
    return err;
}

/* One that is not there is fine; one that is no JSON is not. */
static pm_err config_load_sibling(config_reader *r, const char *name,
                                  const char **out)
{
    cJSON *tree = NULL;
    const cJSON *part;
    pmi_buf text;
    char *path;
    pm_err err;
    pmi_buf_init(&text, r->env, SIZE_MAX);
    err = config_open(r, name, &text, &path);
    if (err == PM_OK)
        err = config_parse(r, pmi_buf_slice(&text), &tree, &part);
    if (err == PM_OK)
        err = r->part ? config_keep_json(r, part, out)
                      : config_keep(r, r->text, out);
    cJSON_Delete(tree);
    pmi_free(r->env, path);
    pmi_buf_fini(&text);
    return err == PM_ENOTFOUND ? PM_OK : err;
}

/* ---- Life -------------------------------------------------------------- */

static pm_err config_begin(config_reader *r, const pmi_env *env,
                           const char *env_name, char *why, size_t why_size)
{
    memset(r, 0, sizeof *r);
    r->env_name = env_name && *env_name ? env_name : "development";
    r->why = why;
    r->why_size = why ? why_size : 0;
    r->env = env;
    r->config = pmi_zalloc(env, sizeof *r->config);
    if (r->config)
        r->config->env = *env;
    pmi_map_init(&r->ids, env, 0, 0);
    pmi_buf_init(&r->scratch, env, SIZE_MAX);
    if (r->why_size)
        r->why[0] = 0;
    return r->config ? PM_OK : PM_ENOMEM;
}

static pm_err config_end(config_reader *r, pm_err err, pm_config **out)
{
    pmi_map_fini(&r->ids);
    pmi_buf_fini(&r->scratch);
    if (err == PM_OK) {
        *out = r->config;
        return PM_OK;
    }
    pm_config_free(r->config);
    if (err == PM_ENOMEM)
        pmi_format(r->why, r->why_size, "%s", pm_strerror(err));
    return err;
}

pm_err pmi_config_load(const pmi_env *env, const char *dir,
                       const char *env_name, char *why, size_t why_size,
                       pm_config **out)
{
    config_reader r;
    pm_err err = config_begin(&r, env, env_name, why, why_size);
    r.dir = dir;
    if (err == PM_OK)
        err = config_load_servers(&r);
    for (size_t i = 0; i < PMI_COUNT(config_siblings) && err == PM_OK; i++)
        err = config_load_sibling(&r, config_siblings[i], &r.config->files[i]);
    return config_end(&r, err, out);
}

static pm_err config_parse_servers(config_reader *r, pm_slice text)
{
    r->file = "servers.json";
    if (text.len <= CONFIG_FILE_MAX)
        return config_read_servers(r, text);
    pmi_format(r->why, r->why_size, "%s: expected 4 MiB at most, found more",
               r->file);
    return PM_ECONFIG;
}

pm_err pmi_config_parse(const pmi_env *env, pm_slice servers_json,
                        const char *env_name, char *why, size_t why_size,
                        pm_config **out)
{
    config_reader r;
    pm_err err = config_begin(&r, env, env_name, why, why_size);
    if (err == PM_OK)
        err = config_parse_servers(&r, servers_json);
    return config_end(&r, err, out);
}

pm_err pmi_config_parse_spoken(const pmi_env *env, pm_slice servers_json,
                               const char *env_name, uint32_t first, char *why,
                               size_t why_size, pm_config **out)
{
    config_reader r;
    pm_err err = config_begin(&r, env, env_name, why, why_size);
    r.spoken = true;
    r.first = first;
    if (err == PM_OK)
        err = config_parse_servers(&r, servers_json);
    return config_end(&r, err, out);
}

/* ---- Public ------------------------------------------------------------ */

pm_err pm_config_load(pm_config **out, const char *dir, const char *env,
                      char *why, size_t why_size)
{
    pmi_env heap;
    if (!out || !dir)
        return PM_EINVAL;
    pmi_env_init(&heap, NULL);
    return pmi_config_load(&heap, dir, env, why, why_size, out);
}

pm_err pm_config_parse(pm_config **out, const char *servers_json,
                       const char *env, char *why, size_t why_size)
{
    pmi_env heap;
    if (!out || !servers_json)
        return PM_EINVAL;
    pmi_env_init(&heap, NULL);
    return pmi_config_parse(&heap, pm_text(servers_json), env, why, why_size,
                            out);
}

const pm_server *pm_config_servers(const pm_config *config, size_t *count)
{
    if (count)
        *count = config->count;
    return config->servers;
}

const char *pm_config_file(const pm_config *config, const char *name)
{
    for (size_t i = 0; name && i < PMI_COUNT(config_siblings); i++)
        if (!strcmp(config_siblings[i], name))
            return config->files[i];
    return NULL;
}

void pm_config_free(pm_config *config)
{
    pmi_env env;
    if (!config)
        return;
    env = config->env;
    while (config->texts) {
        config_text *text = config->texts;
        config->texts = text->next;
        pmi_free(&env, text);
    }
    pmi_free(&env, config->servers);
    pmi_free(&env, config);
}
