/* SPDX-License-Identifier: MIT */
/* core/map.h -- keyed hash map: bytes or numbers to a pointer.
 *
 * SipHash-1-3 under a key that the owner draws at random, so that strangers can
 * not aim at one bucket. Iterates in order of insertion; adding and removing
 * while walking is safe (what is removed is not visited any more, what is
 * added is visited). The same operations give the same walk on every machine,
 * whatever the key. A number key and a bytes key never meet in one map. */
#ifndef PMI_MAP_H
#define PMI_MAP_H

#include "base.h"

typedef struct pmi_map_slot pmi_map_slot; /* in map.c */

typedef struct pmi_map {
    const pmi_env *env;  /* borrowed */
    uint64_t k0, k1;     /* hash key */
    pmi_map_slot *slots; /* owned: entries in order of insertion */
    uint32_t *index;     /* owned: hash -> slot + 1, open addressing */
    uint32_t count;      /* live entries */
    uint32_t used, cap;  /* slots used (live + removed), slots there */
    uint32_t index_mask;
    uint32_t walkers; /* while > 0 no slot moves down */
} pmi_map;

/* No allocation before the first put. */
void pmi_map_init(pmi_map *map, const pmi_env *env, uint64_t k0, uint64_t k1);
void pmi_map_fini(pmi_map *map); /* keys freed, values the caller's */

/* Keys are copied. A put on an existing key replaces the value (place in the
 * order kept) and gives the old one in *old when old is not NULL (else NULL
 * goes there). PM_ENOMEM: nothing changed; PM_ESIZE: a key of 4 GiB. Values
 * must not be NULL. */
pm_err pmi_map_put(pmi_map *map, pm_slice key, void *value, void **old);
void *pmi_map_get(const pmi_map *map, pm_slice key); /* or NULL */
void *pmi_map_remove(pmi_map *map, pm_slice key);    /* the value, or NULL */
pm_err pmi_map_put_num(pmi_map *map, uint64_t key, void *value, void **old);
void *pmi_map_get_num(const pmi_map *map, uint64_t key);
void *pmi_map_remove_num(pmi_map *map, uint64_t key);
static inline uint32_t pmi_map_count(const pmi_map *map)
{
    return map->count;
}

/* for (pmi_map_walk w = pmi_map_begin(m); pmi_map_next(&w);) { w.value ... }
 * A walk that is left early must be ended by pmi_map_end(&w). */
typedef struct pmi_map_walk {
    pmi_map *map;
    uint32_t at;
    pm_slice key; /* borrowed until the entry is removed; empty for numbers */
    uint64_t num;
    void *value;
} pmi_map_walk;
pmi_map_walk pmi_map_begin(pmi_map *map);
bool pmi_map_next(pmi_map_walk *walk);
void pmi_map_end(pmi_map_walk *walk);

/* SipHash-1-3 of bytes, for tests and other tables. */
uint64_t pmi_map_hash(uint64_t k0, uint64_t k1, const void *data, size_t len);

#endif
