/* SPDX-License-Identifier: MIT */
/* pomelo_route_internal.h -- the arithmetic of choosing a server.
 *
 * Six ways to choose one of n servers, told apart by a name. They see a list
 * through three functions and know neither sessions nor connections. */
#ifndef PMI_ROUTE_INTERNAL_H
#define PMI_ROUTE_INTERNAL_H

#include "core/base.h"

/* Pomelo's CRC of a uid: CRC-32 over the low byte of each UTF-16 unit, read
 * as a signed number. Its absolute value may be 2^31: widen before abs. */
int32_t pmi_route_crc(const char *utf8);
/* The same for text that may hold U+0000. */
int32_t pmi_route_crc_text(pm_slice utf8);

typedef enum pmi_route_way {
    PMI_ROUTE_DEF = 0, /* Pomelo's CRC of the key */
    PMI_ROUTE_RR,      /* one after the other */
    PMI_ROUTE_WRR,     /* the same, by weight */
    PMI_ROUTE_LA,      /* fewest in flight */
    PMI_ROUTE_CH,      /* Pomelo's ring of hashes */
    PMI_ROUTE_RENDEZVOUS
} pmi_route_way;
/* False: no such name. */
bool pmi_route_way_of(const char *name, pmi_route_way *out);

/* The servers of one type, in table order. */
typedef struct pmi_route_list {
    const void *of; /* handed to the functions */
    size_t count;
    uint64_t version; /* another one when ids come or go; never 0 */
    const char *(*id)(const void *of, size_t index);
    uint32_t (*weight)(const void *of, size_t index);
    /* Calls without an answer; UINT32_MAX: down. Who is down is passed over by
     * the ways that have no key, unless all are. */
    uint32_t (*in_flight)(const void *of, size_t index);
} pmi_route_list;

/* What choosing for one type remembers. Start from pmi_route_init. */
typedef struct pmi_route {
    const pmi_env *env;       /* borrowed */
    uint64_t turn;            /* rr: choices so far */
    size_t wrr_at;            /* wrr: the next one to look at */
    uint32_t wrr_level;       /* wrr: who weighs that much is chosen */
    struct route_point *ring; /* owned; ch: sorted by hash */
    uint64_t ring_version;    /* of the list that it was made for */
    uint64_t *hashes;         /* owned; rendezvous: one a server */
    uint64_t hashes_version;
} pmi_route;

void pmi_route_init(pmi_route *route, const pmi_env *env);
void pmi_route_fini(pmi_route *route);
/* Chooses by `key`, the uid or whatever else servers are told apart by; rr, wrr
 * and la do not look at it. PM_ENOSERVER: the list is empty, or for wrr nobody
 * weighs more than 0. PM_ENOMEM */
pm_err pmi_route_pick(pmi_route *route, pmi_route_way way,
                      const pmi_route_list *list, pm_slice key, size_t *out);

#endif
