/* SPDX-License-Identifier: MIT */
/* core/cidrs.c -- a set of address blocks.
 *
 * A block is its own key: family, length, and the bits in front. An address is
 * cut to each length of which there are blocks, and looked for. */
#include "cidrs.h"

void pmi_cidrs_init(pmi_cidrs *set, const pmi_env *env, uint64_t k0,
                    uint64_t k1)
{
    memset(set, 0, sizeof *set);
    pmi_map_init(&set->blocks, env, k0, k1);
}

void pmi_cidrs_fini(pmi_cidrs *set)
{
    pmi_map_fini(&set->blocks);
}

static uint16_t *cidrs_count(pmi_cidrs *set, const pmi_cidr *block)
{
    return block->family == 4 ? &set->v4[block->bits] : &set->v6[block->bits];
}

static pm_slice cidrs_key(const pmi_cidr *block)
{
    return pm_bytes(block, sizeof *block);
}

pm_err pmi_cidrs_add(pmi_cidrs *set, const char *text)
{
    pmi_cidr block;
    pm_err err;
    if (!pmi_cidr_parse(&block, text))
        return PM_EINVAL;
    if (pmi_map_get(&set->blocks, cidrs_key(&block)))
        return PM_OK;
    if (pmi_map_count(&set->blocks) >= PMI_CIDRS_MAX)
        return PM_ELIMIT;
    err = pmi_map_put(&set->blocks, cidrs_key(&block), set, NULL);
    if (err == PM_OK)
        ++*cidrs_count(set, &block);
    return err;
}

pm_err pmi_cidrs_remove(pmi_cidrs *set, const char *text)
{
    pmi_cidr block;
    if (!pmi_cidr_parse(&block, text))
        return PM_EINVAL;
    if (!pmi_map_remove(&set->blocks, cidrs_key(&block)))
        return PM_ENOTFOUND;
    --*cidrs_count(set, &block);
    return PM_OK;
}

bool pmi_cidrs_match(const pmi_cidrs *set, const pmi_addr *addr)
{
    pmi_cidr block;
    const uint16_t *counts;
    if (!pmi_map_count(&set->blocks) || !pmi_cidr_of(&block, addr, 128))
        return false;
    counts = block.family == 4 ? set->v4 : set->v6;
    for (unsigned bits = block.bits + 1u; bits-- > 0;) {
        if (!counts[bits])
            continue;
        pmi_cidr_of(&block, addr, (uint8_t)bits);
        if (pmi_map_get(&set->blocks, cidrs_key(&block)))
            return true;
    }
    return false;
}
