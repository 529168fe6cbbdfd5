/* SPDX-License-Identifier: MIT */
/* core/loop_kit.c -- what lies on a loop for all who live there: random bytes,
 * storage, doors in memory, slots. Small things without much of a story.
 * Start reading at pmi_loop_random(). */
#include "host.h"
#include "loop_internal.h"

#include <sys/random.h>
#include <unistd.h>

const pmi_env *pmi_loop_env(const pm_loop *loop)
{
    return &loop->env;
}

bool pmi_loop_memory_only(const pm_loop *loop)
{
    return loop->memory_only;
}

struct event_base *pmi_loop_base(const pm_loop *loop)
{
    return loop->base;
}

/* ---- The wall ---------------------------------------------------------- */
/* Under a virtual clock nothing may come from the system: a run must be the
 * same each time. */

int64_t pmi_loop_wall_us(const pm_loop *loop)
{
    if (loop->wall_us)
        return loop->wall_us(loop->seam_ctx);
    if (loop->clock_us)
        return (int64_t)loop->clock_us(loop->seam_ctx);
    return pmi_host_wall_us();
}

int32_t pmi_loop_utc_offset_s(const pm_loop *loop, int64_t utc_s)
{
    if (loop->utc_offset_s)
        return loop->utc_offset_s(utc_s, loop->seam_ctx);
    return loop->clock_us ? 0 : pmi_host_utc_offset_s(utc_s);
}

/* ---- Random ------------------------------------------------------------ */
/* The system has given bytes before, but now (a host's sandbox, perhaps) it
 * does not: secret bytes must not become known ones, so a keyed hash of a
 * counter takes over. */
static void kit_random_stretch(pm_loop *loop)
{
    for (size_t i = 0; i < sizeof loop->random_bytes; i += sizeof(uint64_t)) {
        uint64_t n = loop->random_key[2]++, word;
        word = pmi_map_hash(loop->random_key[0], loop->random_key[1], &n,
                            sizeof n);
        memcpy(loop->random_bytes + i, &word, sizeof word);
    }
}

static void kit_random_fill(pm_loop *loop)
{
    if (getentropy(loop->random_bytes, sizeof loop->random_bytes))
        kit_random_stretch(loop);
    loop->random_left = sizeof loop->random_bytes;
}

pm_err pmi_loop_random_init(pm_loop *loop)
{
    uint64_t key[2];
    if (!loop->random && getentropy(loop->random_key, sizeof loop->random_key))
        return PM_ENET;
    pmi_loop_random(loop, key, sizeof key);
    pmi_map_init(&loop->doors, &loop->env, key[0], key[1]);
    return PM_OK;
}

/* Bytes that have been given out are wiped here: a later leak of memory does
 * not tell them. */
void pmi_loop_random(pm_loop *loop, void *out, size_t len)
{
    uint8_t *to = out;
    if (loop->random) {
        loop->random(out, len, loop->seam_ctx);
        return;
    }
    while (len > 0) {
        uint8_t *from;
        size_t part;
        if (!loop->random_left)
            kit_random_fill(loop);
        part = pmi_min(len, loop->random_left);
        from =
            loop->random_bytes + sizeof loop->random_bytes - loop->random_left;
        memcpy(to, from, part);
        memset(from, 0, part);
        loop->random_left -= part;
        to += part;
        len -= part;
    }
}

/* The same number on machines of either byte order, for seeds that replay. */
uint64_t pmi_loop_random_u64(pm_loop *loop)
{
    uint8_t bytes[8];
    pmi_loop_random(loop, bytes, sizeof bytes);
    return (uint64_t)pmi_get_be32(bytes) << 32 | pmi_get_be32(bytes + 4);
}

void pmi_loop_map_init(pm_loop *loop, pmi_map *map)
{
    uint64_t k0 = pmi_loop_random_u64(loop), k1 = pmi_loop_random_u64(loop);
    pmi_map_init(map, &loop->env, k0, k1);
}

/* ---- Storage ----------------------------------------------------------- */
uint8_t *pmi_loop_read_buffer(pm_loop *loop)
{
    return loop->read_buffer;
}

size_t pmi_loop_chunk_bytes(const pm_loop *loop)
{
    const pmi_chunk_pool *pool = &loop->chunks;
    return ((size_t)pool->kept + pool->out) *
           (sizeof(pmi_chunk) + pool->chunk_cap);
}

pmi_chunk *pmi_loop_chunk(pm_loop *loop, size_t bytes)
{
    if (bytes <= PMI_CHUNK_SMALL)
        return pmi_chunk_pool_get(&loop->chunks);
    return pmi_chunk_new(&loop->env, bytes);
}

/* ---- Doors in memory --------------------------------------------------- */
pm_err pmi_loop_door_add(pm_loop *loop, const char *name, void *listener)
{
    if (pmi_loop_door_find(loop, name))
        return PM_EEXIST;
    return pmi_map_put(&loop->doors, pm_text(name), listener, NULL);
}

void *pmi_loop_door_find(pm_loop *loop, const char *name)
{
    return pmi_map_get(&loop->doors, pm_text(name));
}

void pmi_loop_door_remove(pm_loop *loop, const char *name)
{
    pmi_map_remove(&loop->doors, pm_text(name));
}

/* ---- Slots, holds, the simulator --------------------------------------- */
void *pmi_loop_slot(const pm_loop *loop)
{
    return loop->slot;
}

void pmi_loop_set_slot(pm_loop *loop, void *data,
                       void (*fini)(pm_loop *loop, void *data))
{
    loop->slot = data;
    loop->slot_fini = fini;
}

void *pmi_loop_names(const pm_loop *loop)
{
    return loop->names;
}

void pmi_loop_set_names(pm_loop *loop, void *data,
                        void (*fini)(pm_loop *loop, void *data))
{
    loop->names = data;
    loop->names_fini = fini;
}

void pmi_loop_hold(pm_loop *loop)
{
    loop->holds++;
}

void pmi_loop_drop(pm_loop *loop)
{
    PMI_ASSERT(loop->holds > 0);
    loop->holds--;
}

void pmi_loop_set_link_fault(pm_loop *loop, pmi_link_fault fault, void *ctx)
{
    loop->fault = fault;
    loop->fault_ctx = ctx;
}

pmi_link_fault pmi_loop_link_fault(pm_loop *loop, void **ctx)
{
    *ctx = loop->fault_ctx;
    return loop->fault;
}
