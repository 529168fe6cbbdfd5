/* SPDX-License-Identifier: MIT */
/* core/map.c -- keyed hash map that remembers the order of insertion.
 *
 * Entries lie in one array in the order in which they came; beside it an
 * index of twice its size tells where a hash is (slot + 1; 0: nothing):
 *
 *     index   | 0 | 3 | 0 | 1 | 0 | 0 | 4 | 0 |     linear probing
 *                   |       |           |
 *     slots   | a | (removed) | b | c |    |    |
 *               0       1       2   3   used    cap
 *
 * Removing clears the slot's value and closes the gap in the index at once,
 * so the index never holds garbage and lookups never slow down. Removed slots
 * are squeezed out where they lie, without an allocation, when the array is
 * full or mostly holes: each squeeze is paid for by as many removals before
 * it, so all operations are O(1) amortised and walks are O(entries). A map
 * whose number of entries stays about the same never allocates (numbers) or
 * allocates its keys only (bytes).
 *
 * While somebody walks, slots keep their places: nothing is squeezed, and a
 * full array grows with its holes. The end of the last walk cleans up.
 * Start reading at map_find() and map_put(). */
#include "map.h"

#define MAP_CAP_MIN 8
/* Capacities are powers of two; the index has twice as many places. */
#define MAP_CAP_MAX (UINT32_C(1) << 30)
/* Smaller arrays are never given back. */
#define MAP_SHRINK_MIN 1024
/* In place of a length: the key is a number. */
#define MAP_NUM UINT32_MAX

struct pmi_map_slot {
    union {
        uint8_t *bytes; /* owned */
        uint64_t num;
    } key;
    uint32_t len;  /* of bytes, or MAP_NUM */
    uint32_t hash; /* kept: moving entries never reads their keys */
    void *value;   /* NULL: removed */
};

/* What is looked for: a key of either kind with its hash. */
typedef struct map_key {
    const void *bytes;
    uint64_t num;
    uint32_t len;
    uint32_t hash;
} map_key;

/* ---- SipHash-1-3 ------------------------------------------------------- */
typedef struct map_sip {
    uint64_t v0, v1, v2, v3;
} map_sip;

static inline uint64_t map_rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline void map_sip_round(map_sip *s)
{
    s->v0 += s->v1;
    s->v1 = map_rotl(s->v1, 13) ^ s->v0;
    s->v0 = map_rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = map_rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = map_rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = map_rotl(s->v1, 17) ^ s->v2;
    s->v2 = map_rotl(s->v2, 32);
}

static inline map_sip map_sip_start(uint64_t k0, uint64_t k1)
{
    map_sip s = {
        k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
        k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    return s;
}

static inline void map_sip_word(map_sip *s, uint64_t word)
{
    s->v3 ^= word;
    map_sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t map_sip_end(map_sip *s)
{
    s->v2 ^= 0xff;
    map_sip_round(s);
    map_sip_round(s);
    map_sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Eight bytes, the first one lowest: compilers make one load of it. */
static inline uint64_t map_sip_load(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 |
           (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 |
           (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

uint64_t pmi_map_hash(uint64_t k0, uint64_t k1, const void *data, size_t len)
{
    map_sip s = map_sip_start(k0, k1);
    const uint8_t *p = data;
    uint64_t last = (uint64_t)len << 56;
    size_t left = len;
    for (; left >= 8; left -= 8, p += 8)
        map_sip_word(&s, map_sip_load(p));
    if (left && len >= 8) /* the last eight bytes, without those seen */
        last |= map_sip_load(p + left - 8) >> (64 - 8 * left);
    else
        for (size_t i = 0; i < left; i++)
            last |= (uint64_t)p[i] << (8 * i);
    map_sip_word(&s, last);
    return map_sip_end(&s);
}

static map_key map_key_of_bytes(const pmi_map *map, pm_slice bytes)
{
    map_key key = {bytes.data, 0, (uint32_t)bytes.len, 0};
    key.hash = (uint32_t)pmi_map_hash(map->k0, map->k1, bytes.data, bytes.len);
    return key;
}

/* The hash of the number's eight bytes, without a loop. */
static map_key map_key_of_num(const pmi_map *map, uint64_t num)
{
    map_key key = {NULL, num, MAP_NUM, 0};
    map_sip s = map_sip_start(map->k0, map->k1);
    map_sip_word(&s, num);
    map_sip_word(&s, UINT64_C(8) << 56);
    key.hash = (uint32_t)map_sip_end(&s);
    return key;
}

/* ---- Index ------------------------------------------------------------- */
static bool map_slot_is(const pmi_map_slot *slot, const map_key *key)
{
    if (slot->hash != key->hash || slot->len != key->len)
        return false;
    if (key->len == MAP_NUM)
        return slot->key.num == key->num;
    return !key->len || !memcmp(slot->key.bytes, key->bytes, key->len);
}

/* The slot of a key, and where the index holds it; NULL when it is not there.
 * The index is at most half full, so there is always an end to the row. */
static pmi_map_slot *map_find(const pmi_map *map, const map_key *key,
                              uint32_t *place)
{
    uint32_t at = key->hash & map->index_mask;
    if (!map->count)
        return NULL;
    for (; map->index[at]; at = (at + 1) & map->index_mask) {
        pmi_map_slot *slot = &map->slots[map->index[at] - 1];
        if (map_slot_is(slot, key)) {
            *place = at;
            return slot;
        }
    }
    return NULL;
}

static void map_index_add(uint32_t *index, uint32_t mask, uint32_t hash,
                          uint32_t slot)
{
    uint32_t at = hash & mask;
    while (index[at])
        at = (at + 1) & mask;
    index[at] = slot + 1;
}

/* Takes one place out and pulls back those behind it that had been pushed
 * over it, so that no row has a hole. */
static void map_index_remove(pmi_map *map, uint32_t hole)
{
    uint32_t mask = map->index_mask, at = hole;
    for (;;) {
        uint32_t home;
        at = (at + 1) & mask;
        if (!map->index[at])
            break;
        home = map->slots[map->index[at] - 1].hash & mask;
        if (((at - home) & mask) < ((at - hole) & mask))
            continue;
        map->index[hole] = map->index[at];
        hole = at;
    }
    map->index[hole] = 0;
}

static void map_index_fill(pmi_map *map)
{
    for (uint32_t i = 0; i < map->used; i++)
        if (map->slots[i].value)
            map_index_add(map->index, map->index_mask, map->slots[i].hash, i);
}

/* ---- Room -------------------------------------------------------------- */
/* The index says `to` where it said `from`: a place depends on the hash only,
 * so entries that move down keep theirs. */
static void map_index_renumber(pmi_map *map, uint32_t from, uint32_t to)
{
    uint32_t at = map->slots[from].hash & map->index_mask;
    while (map->index[at] != from + 1)
        at = (at + 1) & map->index_mask;
    map->index[at] = to + 1;
}

/* Moves the entries together: O(used), whatever the capacity. Nobody walks. */
static void map_squeeze(pmi_map *map)
{
    uint32_t to = 0;
    PMI_ASSERT(!map->walkers);
    for (uint32_t i = 0; i < map->used; i++) {
        if (!map->slots[i].value)
            continue;
        if (i != to) {
            map_index_renumber(map, i, to);
            map->slots[to] = map->slots[i];
        }
        to++;
    }
    map->used = to;
}

/* Other arrays, slots at their places. used <= cap. Nothing changes when
 * memory is short. */
static pm_err map_set_cap(pmi_map *map, uint32_t cap)
{
    size_t places = (size_t)cap * 2;
    pmi_map_slot *slots;
    uint32_t *index = pmi_resize_array(map->env, NULL, places, sizeof *index);
    PMI_ASSERT(map->used <= cap);
    if (!index)
        return PM_ENOMEM;
    slots = pmi_resize_array(map->env, map->slots, cap, sizeof *slots);
    if (!slots) {
        pmi_free(map->env, index);
        return PM_ENOMEM;
    }
    memset(index, 0, places * sizeof *index);
    pmi_free(map->env, map->index);
    map->index = index;
    map->index_mask = (uint32_t)(places - 1);
    map->slots = slots;
    map->cap = cap;
    map_index_fill(map);
    return PM_OK;
}

/* Room for one more slot. A full array is squeezed when a quarter of it or
 * more is holes, so that as many puts pass before the next squeeze. */
static pm_err map_make_room(pmi_map *map)
{
    if (map->used < map->cap)
        return PM_OK;
    if (!map->walkers && map->cap && map->count <= map->cap - map->cap / 4) {
        map_squeeze(map);
        return PM_OK;
    }
    if (map->cap >= MAP_CAP_MAX)
        return PM_ENOMEM;
    return map_set_cap(map, map->cap ? map->cap * 2 : MAP_CAP_MIN);
}

/* After a removal or a walk: keeps walks short (at most half of the slots are
 * holes), and gives back what a peak has left. That there is no memory for the
 * smaller arrays does no harm. */
static void map_tidy(pmi_map *map)
{
    if (map->walkers)
        return;
    if (!map->count)
        map->used = 0;
    else if (map->used >= 2 * MAP_CAP_MIN && map->count < map->used / 2)
        map_squeeze(map);
    if (map->cap > MAP_SHRINK_MIN && map->count < map->cap / 8)
        (void)map_set_cap(map, map->cap / 4);
}

/* ---- Entries ----------------------------------------------------------- */
static pm_err map_append(pmi_map *map, const map_key *key, void *value)
{
    pmi_map_slot slot = {{NULL}, key->len, key->hash, value};
    pm_err err;
    if (key->len == MAP_NUM) {
        slot.key.num = key->num;
    } else {
        slot.key.bytes = pmi_alloc(map->env, key->len);
        if (!slot.key.bytes)
            return PM_ENOMEM;
        if (key->len)
            memcpy(slot.key.bytes, key->bytes, key->len);
    }
    err = map_make_room(map);
    if (err) {
        if (key->len != MAP_NUM)
            pmi_free(map->env, slot.key.bytes);
        return err;
    }
    map_index_add(map->index, map->index_mask, key->hash, map->used);
    map->slots[map->used++] = slot;
    map->count++;
    return PM_OK;
}

static pm_err map_put(pmi_map *map, const map_key *key, void *value, void **old)
{
    uint32_t place;
    pmi_map_slot *slot;
    void *before = NULL;
    PMI_ASSERT(value);
    slot = map_find(map, key, &place);
    if (slot) {
        before = slot->value;
        slot->value = value;
    } else {
        pm_err err = map_append(map, key, value);
        if (err)
            return err;
    }
    if (old)
        *old = before;
    return PM_OK;
}

static void *map_remove(pmi_map *map, const map_key *key)
{
    uint32_t place;
    pmi_map_slot *slot = map_find(map, key, &place);
    void *value;
    if (!slot)
        return NULL;
    value = slot->value;
    map_index_remove(map, place);
    if (slot->len != MAP_NUM)
        pmi_free(map->env, slot->key.bytes);
    memset(slot, 0, sizeof *slot);
    map->count--;
    map_tidy(map);
    return value;
}

/* ---- The map ----------------------------------------------------------- */
void pmi_map_init(pmi_map *map, const pmi_env *env, uint64_t k0, uint64_t k1)
{
    memset(map, 0, sizeof *map);
    map->env = env;
    map->k0 = k0;
    map->k1 = k1;
}

/* The map is empty afterwards, and good for another use. A walk that is under
 * way (its owner gives up the map from inside) finds nothing more. */
void pmi_map_fini(pmi_map *map)
{
    for (uint32_t i = 0; i < map->used; i++)
        if (map->slots[i].value && map->slots[i].len != MAP_NUM)
            pmi_free(map->env, map->slots[i].key.bytes);
    if (map->cap) {
        pmi_free(map->env, map->slots);
        pmi_free(map->env, map->index);
    }
    map->slots = NULL;
    map->index = NULL;
    map->count = map->used = map->cap = map->index_mask = 0;
}

pm_err pmi_map_put(pmi_map *map, pm_slice key, void *value, void **old)
{
    map_key k;
    if (key.len >= MAP_NUM)
        return PM_ESIZE;
    k = map_key_of_bytes(map, key);
    return map_put(map, &k, value, old);
}

void *pmi_map_get(const pmi_map *map, pm_slice key)
{
    uint32_t place;
    map_key k;
    pmi_map_slot *slot;
    if (!map->count || key.len >= MAP_NUM)
        return NULL;
    k = map_key_of_bytes(map, key);
    slot = map_find(map, &k, &place);
    return slot ? slot->value : NULL;
}

void *pmi_map_remove(pmi_map *map, pm_slice key)
{
    map_key k;
    if (!map->count || key.len >= MAP_NUM)
        return NULL;
    k = map_key_of_bytes(map, key);
    return map_remove(map, &k);
}

pm_err pmi_map_put_num(pmi_map *map, uint64_t key, void *value, void **old)
{
    map_key k = map_key_of_num(map, key);
    return map_put(map, &k, value, old);
}

void *pmi_map_get_num(const pmi_map *map, uint64_t key)
{
    map_key k = map_key_of_num(map, key);
    uint32_t place;
    pmi_map_slot *slot = map_find(map, &k, &place);
    return slot ? slot->value : NULL;
}

void *pmi_map_remove_num(pmi_map *map, uint64_t key)
{
    map_key k = map_key_of_num(map, key);
    return map_remove(map, &k);
}

/* ---- Walks ------------------------------------------------------------- */
pmi_map_walk pmi_map_begin(pmi_map *map)
{
    pmi_map_walk walk;
    memset(&walk, 0, sizeof walk);
    walk.map = map;
    map->walkers++;
    return walk;
}

bool pmi_map_next(pmi_map_walk *walk)
{
    pmi_map *map = walk->map;
    if (!map)
        return false;
    while (walk->at < map->used) {
        const pmi_map_slot *slot = &map->slots[walk->at++];
        bool is_num = slot->len == MAP_NUM;
        if (!slot->value)
            continue;
        walk->key.data = is_num ? NULL : slot->key.bytes;
        walk->key.len = is_num ? 0 : slot->len;
        walk->num = is_num ? slot->key.num : 0;
        walk->value = slot->value;
        return true;
    }
    pmi_map_end(walk);
    return false;
}

void pmi_map_end(pmi_map_walk *walk)
{
    pmi_map *map = walk->map;
    if (!map)
        return;
    walk->map = NULL;
    PMI_ASSERT(map->walkers > 0);
    map->walkers--;
    map_tidy(map);
}
