/* SPDX-License-Identifier: MIT */
/* pomelo_dict.c -- the route dictionary: numbers for routes, and back.
 *
 * Every process of a cluster must give the same numbers, so they follow from
 * the names alone: all handlers' routes in JavaScript's order of strings, then
 * the user's own list. A name that stands in both keeps its place in the text
 * and takes the later number, while the earlier number still means it.
 *
 * The texts that every handshake carries are made once, here.
 * Floor 1: memory only. Start reading at pmi_dict_new(). */
#include "pomelo_proto_internal.h"

#include <stdlib.h>

struct pmi_dict {
    const pmi_env *env; /* borrowed */
    pmi_map codes;      /* route -> code */
    char **routes;      /* owned, each owned: code - 1 -> route */
    pm_slice *slices;   /* owned: the same with their lengths */
    size_t count, cap;
    pmi_buf text, abbrs;
    pmi_buf handshake; /* the four members of sys that depend on it */
    char version[25];
};

/* ---- JavaScript's order of strings ------------------------------------- */
/* UTF-8 sorts by code point, JavaScript by UTF-16 unit: what needs surrogates
 * (lead bytes F0 to F4) stands before U+E000 to U+FFFF (EE, EF). */
static unsigned dict_rank(unsigned char byte)
{
    if (byte >= 0xf0)
        return byte - 2u;
    return byte >= 0xee ? byte + 0x10u : byte;
}

static int dict_compare(const void *left, const void *right)
{
    const char *const *pa = left, *const *pb = right;
    const unsigned char *a = (const unsigned char *)*pa;
    const unsigned char *b = (const unsigned char *)*pb;
    while (*a && *a == *b) {
        a++;
        b++;
    }
    unsigned ra = dict_rank(*a), rb = dict_rank(*b);
    return ra < rb ? -1 : ra > rb;
}

/* ---- Filling ----------------------------------------------------------- */
static pm_err dict_add(pmi_dict *dict, const char *route)
{
    size_t len = strlen(route);
    if (len > PMI_ROUTE_MAX) {
        PMI_LOG(dict->env, PM_LOG_ERROR, "dict",
                "dictionary: a route has %u bytes, expected at most %d",
                (unsigned)len, PMI_ROUTE_MAX);
        return PM_ECONFIG;
    }
    char *copy = pmi_strndup(dict->env, route, len);
    if (!copy)
        return PM_ENOMEM;
    pm_slice key = pm_bytes(copy, len);
    void *code = (void *)(uintptr_t)(dict->count + 1);
    pm_err err = pmi_map_put(&dict->codes, key, code, NULL);
    if (err != PM_OK) {
        pmi_free(dict->env, copy);
        return err;
    }
    dict->routes[dict->count] = copy;
    dict->slices[dict->count++] = key;
    return PM_OK;
}

static pm_err dict_add_sorted(pmi_dict *dict, const char *const *routes,
                              size_t count)
{
    pm_err err = PM_OK;
    const char **sorted =
        pmi_resize_array(dict->env, NULL, count, sizeof *sorted);
    if (!sorted)
        return PM_ENOMEM;
    if (count)
        memcpy(sorted, routes, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, dict_compare);
    for (size_t i = 0; i < count && err == PM_OK; i++)
        if (i == 0 || strcmp(sorted[i - 1], sorted[i]))
            err = dict_add(dict, sorted[i]);
    pmi_free(dict->env, sorted);
    return err;
}

/* ---- Texts ------------------------------------------------------------- */
/* In order of insertion; making it canonical moves names like "7" to the
 * front, where JavaScript has them. */
static pm_err dict_make_text(pmi_dict *dict)
{
    pmi_buf raw;
    pmi_buf_init(&raw, dict->env, SIZE_MAX);
    pmi_buf_add_byte(&raw, '{');
    for (pmi_map_walk w = pmi_map_begin(&dict->codes); pmi_map_next(&w);) {
        if (raw.len > 1)
            pmi_buf_add_byte(&raw, ',');
        pmi_json_add_string(&raw, w.key);
        pmi_buf_add_format(&raw, ":%u", (unsigned)(uintptr_t)w.value);
    }
    pmi_buf_add_byte(&raw, '}');
    pm_err err = raw.failed ? PM_ENOMEM
                            : pmi_json_canonical(dict->env, pmi_buf_slice(&raw),
                                                 2, &dict->text);
    pmi_buf_fini(&raw);
    return err;
}

static pm_err dict_make_abbrs(pmi_dict *dict)
{
    pmi_buf *out = &dict->abbrs;
    pmi_buf_add_byte(out, '{');
    for (size_t i = 0; i < dict->count; i++) {
        pmi_buf_add_format(out, i ? ",\"%zu\":" : "\"%zu\":", i + 1);
        pmi_json_add_string(out, dict->slices[i]);
    }
    pmi_buf_add_byte(out, '}');
    return out->failed ? PM_ENOMEM : PM_OK;
}

static pm_err dict_make_handshake(pmi_dict *dict)
{
    uint8_t digest[16];
    pmi_buf *out = &dict->handshake;
    pmi_md5(dict->text.data, dict->text.len, digest);
    pmi_base64(digest, sizeof digest, dict->version);
    pmi_buf_add_text(out, "\"dict\":");
    pmi_buf_add(out, dict->text.data, dict->text.len);
    pmi_buf_add_text(out, ",\"routeToCode\":");
    pmi_buf_add(out, dict->text.data, dict->text.len);
    pmi_buf_add_text(out, ",\"codeToRoute\":");
    pmi_buf_add(out, dict->abbrs.data, dict->abbrs.len);
    pmi_buf_add_text(out, ",\"dictVersion\":");
    pmi_json_add_string(out, pm_text(dict->version));
    return out->failed ? PM_ENOMEM : PM_OK;
}

/* ---- Life -------------------------------------------------------------- */
static pm_err dict_fill(pmi_dict *dict, const char *const *routes, size_t count,
                        const char *const *user, size_t user_count)
{
    const pmi_env *env = dict->env;
    dict->routes = pmi_resize_array(env, NULL, dict->cap, sizeof *dict->routes);
    dict->slices = pmi_resize_array(env, NULL, dict->cap, sizeof *dict->slices);
    if (!dict->routes || !dict->slices)
        return PM_ENOMEM;
    pm_err err = dict_add_sorted(dict, routes, count);
    for (size_t i = 0; i < user_count && err == PM_OK; i++)
        err = dict_add(dict, user[i]);
    if (err == PM_OK)
        err = dict->count > UINT16_MAX ? PM_ESIZE : dict_make_text(dict);
    if (err == PM_OK)
        err = dict_make_abbrs(dict);
    return err == PM_OK ? dict_make_handshake(dict) : err;
}

pm_err pmi_dict_new(const pmi_env *env, uint64_t k0, uint64_t k1,
                    const char *const *routes, size_t count,
                    const char *const *user, size_t user_count, pmi_dict **out)
{
    size_t cap;
    if (!pmi_add_size(count, user_count, &cap))
        return PM_ESIZE;
    pmi_dict *dict = pmi_zalloc(env, sizeof *dict);
    if (!dict)
        return PM_ENOMEM;
    dict->env = env;
    dict->cap = cap;
    pmi_map_init(&dict->codes, env, k0, k1);
    pmi_buf_init(&dict->text, env, SIZE_MAX);
    pmi_buf_init(&dict->abbrs, env, SIZE_MAX);
    pmi_buf_init(&dict->handshake, env, SIZE_MAX);
    pm_err err = dict_fill(dict, routes, count, user, user_count);
    if (err != PM_OK) {
        pmi_dict_free(dict);
        return err;
    }
    *out = dict;
    return PM_OK;
}

void pmi_dict_free(pmi_dict *dict)
{
    if (!dict)
        return;
    for (size_t i = 0; i < dict->count; i++)
        pmi_free(dict->env, dict->routes[i]);
    pmi_free(dict->env, dict->routes);
    pmi_free(dict->env, dict->slices);
    pmi_map_fini(&dict->codes);
    pmi_buf_fini(&dict->text);
    pmi_buf_fini(&dict->abbrs);
    pmi_buf_fini(&dict->handshake);
    pmi_free(dict->env, dict);
}

/* ---- Asking ------------------------------------------------------------ */
uint16_t pmi_dict_code(const pmi_dict *dict, pm_slice route)
{
    return (uint16_t)(uintptr_t)pmi_map_get(&dict->codes, route);
}

pm_slice pmi_dict_route(const pmi_dict *dict, uint16_t code)
{
    if (code == 0 || code > dict->count)
        return pm_bytes(NULL, 0);
    return dict->slices[code - 1];
}

pm_slice pmi_dict_text(const pmi_dict *dict)
{
    return pmi_buf_slice(&dict->text);
}

pm_slice pmi_dict_abbrs(const pmi_dict *dict)
{
    return pmi_buf_slice(&dict->abbrs);
}

pm_slice pmi_dict_handshake(const pmi_dict *dict)
{
    return pmi_buf_slice(&dict->handshake);
}

const char *pmi_dict_version(const pmi_dict *dict)
{
    return dict->version;
}
