/* SPDX-License-Identifier: MIT */
/* core/rate.h -- token buckets: so many a second, so many at once.
 *
 * A bucket is one number: the moment at which it will be full again. Nobody
 * fills it, no timer runs for it; all zero is a full one. Time comes from the
 * caller, in microseconds, and never runs back. */
#ifndef PMI_RATE_H
#define PMI_RATE_H

#include "base.h"

typedef struct pmi_rate {
    uint64_t full_ns;
} pmi_rate;

/* What is allowed; the same for many buckets. */
typedef struct pmi_rate_limit {
    uint32_t per_s; /* 0: no limit */
    uint32_t burst; /* at least 1: the bucket's size */
} pmi_rate_limit;

/* Microseconds until `cost` tokens are there; 0: they are. More than the bucket
 * holds counts as all that it holds. */
uint64_t pmi_rate_wait_us(const pmi_rate *rate, const pmi_rate_limit *limit,
                          uint64_t now_us, uint32_t cost);
/* Takes them whether they are there or not. The bucket then owes, at most what
 * was taken last: who goes on all the same does not pay for years. */
void pmi_rate_spend(pmi_rate *rate, const pmi_rate_limit *limit,
                    uint64_t now_us, uint32_t cost);
/* Takes them if they are there. */
bool pmi_rate_take(pmi_rate *rate, const pmi_rate_limit *limit, uint64_t now_us,
                   uint32_t cost);
/* Full again: it may as well be forgotten. */
static inline bool pmi_rate_is_full(const pmi_rate *rate, uint64_t now_us)
{
    return rate->full_ns <= now_us * 1000;
}

#endif
