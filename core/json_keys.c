/* SPDX-License-Identifier: MIT */
/* core/json_keys.c -- duplicate keys and JavaScript's order, never quadratic.
 *
 * Nearly every object is small, has no twins and no key like an index: a look
 * at all pairs shows that there is nothing to do. The others are sorted: by a
 * hash of the name (equal names become neighbours; equal hashes of different
 * names cost a comparison, so that a stranger who finds such names gains
 * nothing), then back by place. The sort is a merge sort: n log n always.
 * Start reading at pmi_json_keys_settle(). */
#include "json_keys.h"

#include "map.h"

#include <cjson/cJSON.h>

/* Up to so many members no memory is asked for. */
#define JSON_KEYS_FEW 16

bool pmi_json_keys_index(const char *name, uint32_t *index)
{
    uint64_t value = 0;
    size_t i;
    for (i = 0; name[i] >= '0' && name[i] <= '9'; i++) {
        if (i == 10)
            return false;
        value = value * 10 + (uint64_t)(name[i] - '0');
    }
    if (i == 0 || name[i] || (name[0] == '0' && i > 1) || value >= UINT32_MAX)
        return false;
    *index = (uint32_t)value;
    return true;
}

/* Trees that a host has made may have members without a name. */
static const char *json_keys_name(const cJSON *node)
{
    return node->string ? node->string : "";
}

/* ---- Sort -------------------------------------------------------------- */
static bool json_keys_before(const pmi_json_key *a, const pmi_json_key *b)
{
    int order;
    if (a->rank != b->rank)
        return a->rank < b->rank;
    order = strcmp(json_keys_name(a->node), json_keys_name(b->node));
    return order ? order < 0 : a->at < b->at;
}

/* Merges [from, middle) and [middle, end) of `keys` into `out`. Halves that
 * stand in order already are only copied. */
static void json_keys_merge(const pmi_json_key *keys, size_t from,
                            size_t middle, size_t end, pmi_json_key *out)
{
    size_t a = from, b = middle, to = from;
    bool sorted = b == end || !json_keys_before(&keys[b], &keys[b - 1]);
    while (!sorted && a < middle && b < end) {
        if (json_keys_before(&keys[b], &keys[a]))
            out[to++] = keys[b++];
        else
            out[to++] = keys[a++];
    }
    memcpy(out + to, keys + a, (middle - a) * sizeof *keys);
    to += middle - a;
    memcpy(out + to, keys + b, (end - b) * sizeof *keys);
}

/* Bottom up between the two arrays; the result ends in `keys`. */
static void json_keys_sort(pmi_json_key *keys, pmi_json_key *spare,
                           size_t count)
{
    pmi_json_key *from = keys, *to = spare, *other;
    size_t width, at, middle, end;
    for (width = 1; width < count; width *= 2) {
        for (at = 0; at < count; at = end) {
            middle = pmi_min(at + width, count);
            end = pmi_min(middle + width, count);
            json_keys_merge(from, at, middle, end, to);
        }
        other = from;
        from = to;
        to = other;
    }
    if (from != keys)
        memcpy(keys, from, count * sizeof *keys);
}

/* ---- After reading ----------------------------------------------------- */
/* For few members: is there a twin, or a key like an index? */
static bool json_keys_plain(const cJSON *object)
{
    const cJSON *node, *other;
    uint32_t index;
    for (node = object->child; node; node = node->next) {
        if (pmi_json_keys_index(node->string, &index))
            return false;
        for (other = object->child; other != node; other = other->next)
            if (other->string[0] == node->string[0] &&
                !strcmp(other->string, node->string))
                return false;
    }
    return true;
}

static bool json_keys_twins(const pmi_json_key *a, const pmi_json_key *b)
{
    return a->rank == b->rank && !strcmp(a->node->string, b->node->string);
}

static void json_keys_drop(cJSON *node, bool owned)
{
    if (!owned)
        return;
    node->next = node->prev = NULL;
    cJSON_Delete(node);
}

/* Puts the last of each name at the place of its first: `keys`, sorted by
 * name, to `places`, where twins leave holes. */
static void json_keys_unite(const pmi_json_key *keys, size_t count,
                            pmi_json_key *places, bool owned)
{
    size_t from, to;
    for (from = 0; from < count; from = to) {
        for (to = from + 1; to < count; to++) {
            if (!json_keys_twins(&keys[from], &keys[to]))
                break;
            places[keys[to].at].node = NULL;
        }
        places[keys[from].at].node = keys[to - 1].node;
        /* Names are compared above, so no node may go before the group ends. */
        for (size_t i = from; i + 1 < to; i++)
            json_keys_drop(keys[i].node, owned);
    }
}

/* Rank that gives JavaScript's order. */
static uint64_t json_keys_rank(const cJSON *node, size_t at)
{
    uint32_t index;
    if (pmi_json_keys_index(json_keys_name(node), &index))
        return index;
    return UINT32_MAX + (uint64_t)at;
}

static void json_keys_link(cJSON *object, const pmi_json_key *keys,
                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        keys[i].node->next = i + 1 < count ? keys[i + 1].node : NULL;
        keys[i].node->prev = keys[i ? i - 1 : count - 1].node;
    }
    object->child = keys[0].node;
}

/* `keys` and `spare` have room for all members. */
static void json_keys_rebuild(cJSON *object, size_t count, pmi_json_key *keys,
                              pmi_json_key *spare, bool owned)
{
    cJSON *node = object->child;
    size_t kept = 0, i;
    for (i = 0; i < count; i++, node = node->next) {
        keys[i].rank = pmi_map_hash(0, 0, node->string, strlen(node->string));
        keys[i].at = i;
        keys[i].node = node;
    }
    json_keys_sort(keys, spare, count);
    json_keys_unite(keys, count, spare, owned);
    for (i = 0; i < count; i++) {
        if (!spare[i].node)
            continue;
        keys[kept].node = spare[i].node;
        keys[kept].rank = json_keys_rank(spare[i].node, i);
        keys[kept++].at = i;
    }
    json_keys_sort(keys, spare, kept);
    json_keys_link(object, keys, kept);
}

pm_err pmi_json_keys_settle(const pmi_env *env, cJSON *object, size_t count,
                            bool owned)
{
    pmi_json_key few[2 * JSON_KEYS_FEW], *keys;
    if (count < 2)
        return PM_OK;
    if (count <= JSON_KEYS_FEW) {
        if (!json_keys_plain(object))
            json_keys_rebuild(object, count, few, few + JSON_KEYS_FEW, owned);
        return PM_OK;
    }
    if (count > SIZE_MAX / 2)
        return PM_ENOMEM;
    keys = pmi_resize_array(env, NULL, 2 * count, sizeof *keys);
    if (!keys)
        return PM_ENOMEM;
    json_keys_rebuild(object, count, keys, keys + count, owned);
    pmi_free(env, keys);
    return PM_OK;
}

/* ---- Before printing --------------------------------------------------- */
bool pmi_json_keys_in_order(const cJSON *object)
{
    const cJSON *node = object->child;
    uint32_t index, last = 0;
    for (; node; node = node->next) {
        if (!pmi_json_keys_index(json_keys_name(node), &index))
            break;
        if (node != object->child && index < last)
            return false;
        last = index;
    }
    for (; node; node = node->next)
        if (pmi_json_keys_index(json_keys_name(node), &index))
            return false;
    return true;
}

pm_err pmi_json_keys_sorted(const pmi_env *env, const cJSON *object,
                            pmi_json_key **out, size_t *count)
{
    pmi_json_key *keys;
    cJSON *node;
    size_t n = 0;
    for (node = object->child; node; node = node->next)
        n++;
    keys = pmi_resize_array(env, NULL, 2 * n, sizeof *keys);
    if (!keys)
        return PM_ENOMEM;
    n = 0;
    for (node = object->child; node; node = node->next, n++) {
        keys[n].rank = json_keys_rank(node, n);
        keys[n].at = n;
        keys[n].node = node;
    }
    json_keys_sort(keys, keys + n, n);
    *out = keys;
    *count = n;
    return PM_OK;
}
