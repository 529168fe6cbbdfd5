/* SPDX-License-Identifier: MIT */
/* core/cidrs.h -- a set of address blocks that changes while it is asked.
 *
 * Asking costs one look into a map for each length of prefix that is in use,
 * however many blocks there are. */
#ifndef PMI_CIDRS_H
#define PMI_CIDRS_H

#include "map.h"
#include "sock.h"

enum { PMI_CIDRS_MAX = 10000 };

typedef struct pmi_cidrs {
    pmi_map blocks;           /* a pmi_cidr's bytes -> this set */
    uint16_t v4[33], v6[129]; /* how many there are of each length */
} pmi_cidrs;

void pmi_cidrs_init(pmi_cidrs *set, const pmi_env *env, uint64_t k0,
                    uint64_t k1);
void pmi_cidrs_fini(pmi_cidrs *set);
/* One that is there already is fine. PM_EINVAL no block, PM_ELIMIT, PM_ENOMEM
 */
pm_err pmi_cidrs_add(pmi_cidrs *set, const char *text);
/* PM_EINVAL no block, PM_ENOTFOUND */
pm_err pmi_cidrs_remove(pmi_cidrs *set, const char *text);
bool pmi_cidrs_match(const pmi_cidrs *set, const pmi_addr *addr);

#endif
