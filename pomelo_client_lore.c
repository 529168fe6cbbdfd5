/* SPDX-License-Identifier: MIT */
/* pomelo_client_lore.c -- the route dictionary and the schemas, as a client
 * learns them from the server's handshake answer.
 *
 * The dictionary comes as {"route": code}. Unlike the server's own (which
 * counts from 1 without holes) it may be anything: two maps hold it.
 *
 * Schemas come in their parsed form; pomelo_dialect compiles the form that is
 * written by hand. So they are written back first:
 *
 *     {"a":{"option":"required","type":"uInt32","tag":1},
 *      "__messages":{"M":{..}},"__tags":{..}}
 *  -> {"required uInt32 a":1,"message M":{..}}
 *
 * Everything here was sent by a stranger. Start at pmi_client_lore_learn(). */
#include "pomelo_client_internal.h"

#include <cjson/cJSON.h>

/* ---- Life -------------------------------------------------------------- */
void pmi_client_lore_init(pmi_client_lore *lore, const pmi_env *env,
                          uint64_t k0, uint64_t k1)
{
    *lore = (pmi_client_lore){.env = env, .k0 = k0, .k1 = k1};
    pmi_map_init(&lore->codes, env, k0, k1);
    pmi_map_init(&lore->routes, env, k0, k1);
}

static void lore_drop_dict(pmi_client_lore *lore)
{
    for (pmi_map_walk w = pmi_map_begin(&lore->routes); pmi_map_next(&w);)
        pmi_free(lore->env, w.value);
    pmi_map_fini(&lore->routes);
    pmi_map_fini(&lore->codes);
    pmi_map_init(&lore->codes, lore->env, lore->k0, lore->k1);
    pmi_map_init(&lore->routes, lore->env, lore->k0, lore->k1);
    pmi_free(lore->env, lore->dict_version);
    lore->dict_version = NULL;
}

static void lore_drop_protos(pmi_client_lore *lore)
{
    pmi_dialect_free(lore->client);
    pmi_dialect_free(lore->server);
    pmi_free(lore->env, lore->proto_version);
    lore->client = lore->server = NULL;
    lore->proto_version = NULL;
}

void pmi_client_lore_fini(pmi_client_lore *lore)
{
    lore_drop_dict(lore);
    lore_drop_protos(lore);
}

/* ---- Versions ---------------------------------------------------------- */
void pmi_client_lore_tell(const pmi_client_lore *lore, pmi_buf *out)
{
    if (lore->dict_version) {
        pmi_buf_add_text(out, ",\"dictVersion\":");
        pmi_json_add_string(out, pm_text(lore->dict_version));
    }
    if (lore->proto_version) {
        pmi_buf_add_text(out, ",\"protoVersion\":");
        pmi_json_add_string(out, pm_text(lore->proto_version));
    }
}

/* *out is NULL when there is no version, or the empty one, which servers
 * without schema files tell and never take for known. */
static pm_err lore_version(const pmi_env *env, const cJSON *version, char **out)
{
    *out = NULL;
    if (!cJSON_IsString(version) || !*version->valuestring)
        return PM_OK;
    *out = pmi_strdup(env, version->valuestring);
    return *out ? PM_OK : PM_ENOMEM;
}

/* ---- The dictionary ---------------------------------------------------- */
/* An entry that no message could use is passed over. Of two routes with one
 * code the later one is meant by it, as in Pomelo's own clients. */
static pm_err lore_add_route(pmi_client_lore *lore, const cJSON *entry)
{
    pm_slice route = pm_text(entry->string);
    double code = cJSON_IsNumber(entry) ? entry->valuedouble : 0;
    void *old = NULL;
    if (!route.len || route.len > PMI_ROUTE_MAX || !(code >= 1) ||
        code > UINT16_MAX)
        return PM_OK;
    uint16_t number = (uint16_t)code;
    char *copy = pmi_strdup(lore->env, entry->string);
    if (!copy)
        return PM_ENOMEM;
    pm_err err = pmi_map_put_num(&lore->routes, number, copy, &old);
    if (err != PM_OK) {
        pmi_free(lore->env, copy);
        return err;
    }
    pmi_free(lore->env, old);
    return pmi_map_put(&lore->codes, route, (void *)(uintptr_t)number, NULL);
}

static pm_err lore_read_dict(pmi_client_lore *fresh, const cJSON *sys,
                             const cJSON *dict)
{
    const cJSON *entry;
    pm_err err = lore_version(fresh->env, pmi_json_get(sys, "dictVersion"),
                              &fresh->dict_version);
    if (err != PM_OK)
        return err;
    cJSON_ArrayForEach(entry, dict)
    {
        err = lore_add_route(fresh, entry);
        if (err != PM_OK)
            return err;
    }
    return PM_OK;
}

/* ---- The schemas ------------------------------------------------------- */
static void lore_comma(pmi_buf *out, size_t start)
{
    if (out->len > start)
        pmi_buf_add_byte(out, ',');
}

/* "OPTION TYPE FIELD":tag. What lacks one of them is no field. */
static pm_err lore_write_field(const pmi_env *env, const cJSON *field,
                               size_t start, pmi_buf *out)
{
    const cJSON *option = pmi_json_get(field, "option");
    const cJSON *type = pmi_json_get(field, "type");
    const cJSON *tag = pmi_json_get(field, "tag");
    pmi_buf name;
    if (!cJSON_IsString(option) || !cJSON_IsString(type) ||
        !cJSON_IsNumber(tag))
        return PM_OK;
    pmi_buf_init(&name, env, SIZE_MAX);
    pmi_buf_add_text(&name, option->valuestring);
    pmi_buf_add_byte(&name, ' ');
    pmi_buf_add_text(&name, type->valuestring);
    pmi_buf_add_byte(&name, ' ');
    pmi_buf_add_text(&name, field->string);
    lore_comma(out, start);
    pmi_json_add_string(out, pmi_buf_slice(&name));
    pmi_buf_add_byte(out, ':');
    pm_err err =
        name.failed || out->failed ? PM_ENOMEM : pmi_json_print(tag, 1, out);
    pmi_buf_fini(&name);
    return err;
}

static pm_err lore_write_message(const pmi_env *env, const cJSON *message,
                                 uint32_t depth, pmi_buf *out);

static pm_err lore_write_nested(const pmi_env *env, const cJSON *messages,
                                uint32_t depth, size_t start, pmi_buf *out)
{
    const cJSON *item;
    pm_err err = PM_OK;
    cJSON_ArrayForEach(item, messages)
    {
        pmi_buf name;
        if (!item->string || !cJSON_IsObject(item))
            continue;
        pmi_buf_init(&name, env, SIZE_MAX);
        pmi_buf_add_text(&name, "message ");
        pmi_buf_add_text(&name, item->string);
        lore_comma(out, start);
        pmi_json_add_string(out, pmi_buf_slice(&name));
        pmi_buf_add_byte(out, ':');
        err = name.failed ? PM_ENOMEM
                          : lore_write_message(env, item, depth - 1, out);
        pmi_buf_fini(&name);
        if (err != PM_OK)
            return err;
    }
    return PM_OK;
}

static pm_err lore_write_message(const pmi_env *env, const cJSON *message,
                                 uint32_t depth, pmi_buf *out)
{
    const cJSON *item;
    size_t start;
    pm_err err = PM_OK;
    if (depth == 0)
        return PM_EDEPTH;
    pmi_buf_add_byte(out, '{');
    start = out->len;
    cJSON_ArrayForEach(item, message)
    {
        if (!strcmp(item->string, "__tags"))
            continue;
        if (!strcmp(item->string, "__messages"))
            err = lore_write_nested(env, item, depth, start, out);
        else
            err = lore_write_field(env, item, start, out);
        if (err != PM_OK)
            return err;
    }
    pmi_buf_add_byte(out, '}');
    return out->failed ? PM_ENOMEM : PM_OK;
}

static pm_err lore_write_source(const pmi_env *env, const cJSON *parsed,
                                pmi_buf *out)
{
    const cJSON *item;
    size_t start;
    pmi_buf_add_byte(out, '{');
    start = out->len;
    cJSON_ArrayForEach(item, parsed)
    {
        if (!cJSON_IsObject(item))
            continue;
        lore_comma(out, start);
        pmi_json_add_string(out, pm_text(item->string));
        pmi_buf_add_byte(out, ':');
        pm_err err = lore_write_message(env, item, PMI_JSON_DEPTH_MAX, out);
        if (err != PM_OK)
            return err;
    }
    pmi_buf_add_byte(out, '}');
    return out->failed ? PM_ENOMEM : PM_OK;
}

/* No schemas at all are none: *out is NULL. */
static pm_err lore_read_dialect(const pmi_client_lore *fresh,
                                const cJSON *parsed, pmi_dialect **out)
{
    pmi_buf source;
    if (!cJSON_IsObject(parsed) || !parsed->child)
        return PM_OK;
    pmi_buf_init(&source, fresh->env, SIZE_MAX);
    pm_err err = lore_write_source(fresh->env, parsed, &source);
    if (err == PM_OK)
        err = pmi_dialect_new(fresh->env, fresh->k0, fresh->k1,
                              pmi_buf_slice(&source), out);
    pmi_buf_fini(&source);
    if (err != PM_OK && err != PM_ENOMEM)
        err = PM_EHANDSHAKE;
    return err;
}

static pm_err lore_read_protos(pmi_client_lore *fresh, const cJSON *protos)
{
    pm_err err = lore_version(fresh->env, pmi_json_get(protos, "version"),
                              &fresh->proto_version);
    if (err == PM_OK)
        err = lore_read_dialect(fresh, pmi_json_get(protos, "client"),
                                &fresh->client);
    if (err == PM_OK)
        err = lore_read_dialect(fresh, pmi_json_get(protos, "server"),
                                &fresh->server);
    return err;
}

/* ---- Learning ---------------------------------------------------------- */
static void lore_take_dict(pmi_client_lore *lore, pmi_client_lore *fresh)
{
    lore_drop_dict(lore);
    lore->codes = fresh->codes;
    lore->routes = fresh->routes;
    lore->dict_version = fresh->dict_version;
    pmi_map_init(&fresh->codes, fresh->env, fresh->k0, fresh->k1);
    pmi_map_init(&fresh->routes, fresh->env, fresh->k0, fresh->k1);
    fresh->dict_version = NULL;
}

static void lore_take_protos(pmi_client_lore *lore, pmi_client_lore *fresh)
{
    lore_drop_protos(lore);
    lore->client = fresh->client;
    lore->server = fresh->server;
    lore->proto_version = fresh->proto_version;
    fresh->client = fresh->server = NULL;
    fresh->proto_version = NULL;
}

pm_err pmi_client_lore_learn(pmi_client_lore *lore, const cJSON *sys)
{
    const cJSON *dict = pmi_json_get(sys, "dict");
    const cJSON *protos = pmi_json_get(sys, "protos");
    bool has_dict = cJSON_IsObject(dict), has_protos = cJSON_IsObject(protos);
    pmi_client_lore fresh;
    pm_err err = PM_OK;
    pmi_client_lore_init(&fresh, lore->env, lore->k0, lore->k1);
    if (has_dict)
        err = lore_read_dict(&fresh, sys, dict);
    if (err == PM_OK && has_protos)
        err = lore_read_protos(&fresh, protos);
    if (err == PM_OK) {
        if (has_dict || !pmi_json_truthy(pmi_json_get(sys, "useDict")))
            lore_take_dict(lore, &fresh);
        if (has_protos || !pmi_json_truthy(pmi_json_get(sys, "useProto")))
            lore_take_protos(lore, &fresh);
    }
    pmi_client_lore_fini(&fresh);
    return err;
}

/* ---- Using it ---------------------------------------------------------- */
uint16_t pmi_client_lore_code(const pmi_client_lore *lore, pm_slice route)
{
    return (uint16_t)(uintptr_t)pmi_map_get(&lore->codes, route);
}

const char *pmi_client_lore_route(const pmi_client_lore *lore, uint16_t code)
{
    return pmi_map_get_num(&lore->routes, code);
}

static const pmi_dialect_message *lore_schema(const pmi_dialect *dialect,
                                              pm_slice route)
{
    return dialect ? pmi_dialect_find(dialect, route) : NULL;
}

pm_err pmi_client_lore_encode(const pmi_client_lore *lore, pm_slice route,
                              pm_body body, pmi_buf *store, pm_slice *out)
{
    const pmi_dialect_message *schema = lore_schema(lore->client, route);
    cJSON *tree = NULL;
    if (body.kind != PM_BODY_JSON || !schema) {
        *out = body.kind == PM_BODY_NONE ? pm_bytes(NULL, 0) : body.data;
        return PM_OK;
    }
    pm_err err =
        pmi_json_parse(lore->env, body.data, PMI_JSON_DEPTH_MAX, &tree, NULL);
    if (err != PM_OK)
        return err;
    err = pmi_dialect_encode(lore->client, schema, tree, PMI_JSON_DEPTH_MAX,
                             store);
    cJSON_Delete(tree);
    *out = pmi_buf_slice(store);
    return err;
}

pm_err pmi_client_lore_decode(const pmi_client_lore *lore, pm_slice route,
                              pm_slice bytes, pmi_buf *store, pm_body *out)
{
    const pmi_dialect_message *schema = lore_schema(lore->server, route);
    cJSON *tree = NULL;
    out->kind = PM_BODY_JSON;
    out->data = bytes;
    if (!schema)
        return PM_OK;
    pm_err err = pmi_dialect_decode(lore->server, schema, bytes,
                                    PMI_JSON_DEPTH_MAX, &tree);
    if (err != PM_OK)
        return err;
    /* Each level of messages may stand in an array. */
    err = pmi_json_print(tree, 2 * PMI_JSON_DEPTH_MAX, store);
    cJSON_Delete(tree);
    out->data = pmi_buf_slice(store);
    return err;
}
