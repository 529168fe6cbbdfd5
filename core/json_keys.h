/* SPDX-License-Identifier: MIT */
/* core/json_keys.h -- the order of an object's members in JavaScript.
 *
 * Keys that look like an index of an array ("0" to "4294967294", as JavaScript
 * would write the number) come first, by value; then all others in the order
 * of insertion. A key that comes again keeps its place and changes its
 * value. Internal to core/json. */
#ifndef PMI_JSON_KEYS_H
#define PMI_JSON_KEYS_H

#include "base.h"

/* Sorted by rank, then by name, then by place. */
typedef struct pmi_json_key {
    uint64_t rank;
    size_t at; /* place among the members */
    struct cJSON *node;
} pmi_json_key;

/* Is it like an index? */
bool pmi_json_keys_index(const char *name, uint32_t *index);

/* Members as they were read to members as JavaScript has them. `owned`: nodes
 * that are replaced are freed with cJSON_Delete, else just let go.
 * PM_ENOMEM: nothing changed. */
pm_err pmi_json_keys_settle(const pmi_env *env, struct cJSON *object,
                            size_t count, bool owned);

/* Are the keys like an index in front and ascending? Then the members can be
 * printed as they stand. */
bool pmi_json_keys_in_order(const struct cJSON *object);
/* All members in JavaScript's order, twins kept. *out is owned by the caller,
 * free with pmi_free. PM_ENOMEM */
pm_err pmi_json_keys_sorted(const pmi_env *env, const struct cJSON *object,
                            pmi_json_key **out, size_t *count);

#endif
