/* SPDX-License-Identifier: MIT */
/* core/rate.c -- token buckets.
 *
 * `full_ns` is when the bucket will be full. A token that is taken puts that
 * moment off by 1/per_s; the bucket is empty when it lies a whole bucket's
 * worth ahead:
 *
 *     now                    full_ns            now + burst / per_s
 *      |--------- taken ---------|------- left -------|
 *
 * Nanoseconds, so that a rate of many megabytes a second is still exact. Prices
 * are rounded down, so that a burst is never one short; that makes a rate of
 * 100,000 a second too high by one in 100,000 at most. */
#include "rate.h"

#define RATE_NS UINT64_C(1000000000)

static uint64_t rate_price_ns(const pmi_rate_limit *limit, uint32_t tokens)
{
    return tokens * RATE_NS / limit->per_s;
}

uint64_t pmi_rate_wait_us(const pmi_rate *rate, const pmi_rate_limit *limit,
                          uint64_t now_us, uint32_t cost)
{
    uint64_t now = now_us * 1000, empty, then;
    if (!limit->per_s)
        return 0;
    cost = cost < limit->burst ? cost : limit->burst;
    empty = now + rate_price_ns(limit, limit->burst);
    then = (rate->full_ns > now ? rate->full_ns : now) +
           rate_price_ns(limit, cost);
    return then > empty ? (then - empty + 999) / 1000 : 0;
}

void pmi_rate_spend(pmi_rate *rate, const pmi_rate_limit *limit,
                    uint64_t now_us, uint32_t cost)
{
    uint64_t now = now_us * 1000, empty;
    if (!limit->per_s)
        return;
    empty = now + rate_price_ns(limit, limit->burst);
    if (rate->full_ns < now)
        rate->full_ns = now;
    if (rate->full_ns > empty)
        rate->full_ns = empty;
    rate->full_ns += rate_price_ns(limit, cost);
}

bool pmi_rate_take(pmi_rate *rate, const pmi_rate_limit *limit, uint64_t now_us,
                   uint32_t cost)
{
    if (pmi_rate_wait_us(rate, limit, now_us, cost))
        return false;
    pmi_rate_spend(rate, limit, now_us, cost);
    return true;
}
