/* SPDX-License-Identifier: MIT */
/* pomelo_admit.c -- who may come in.
 *
 * Asked when a connection is accepted, before anything is allocated for it; and
 * once more for the real address when a trusted proxy has told it: a proxy's
 * own address is neither blocked nor counted.
 *
 *     accept -> (PROXY header -> ask) -> (X-Forwarded-For -> ask) -> handshake
 *
 * Addresses are remembered in a table that is bounded: an IPv6 address counts
 * by its /64, which is what one customer has. Who comes first to be forgotten
 * is the one that came longest ago. Start at pmi_admit_ask. */
#include "pomelo_admit_internal.h"

#include "core/cidrs.h"
#include "core/proxy.h"
#include "core/rate.h"

enum { ADMIT_SWEEP = 2 }; /* forgotten for each that comes */

/* An address, and how often it has come. */
typedef struct admit_entry {
    pmi_link link; /* pmi_admit.seen, the oldest first */
    pmi_cidr of;
    pmi_rate rate;
} admit_entry;

struct pmi_admit {
    pm_app *app;
    const pmi_env *env;
    pmi_cidrs blocked, proxies;
    pmi_rate_limit limit;
    pmi_map addresses; /* pmi_cidr -> admit_entry, owned */
    pmi_link seen;
    uint64_t lag_us; /* 0: off */
};

/* ---- Making ------------------------------------------------------------ */

static void admit_cidrs_init(pmi_admit *admit, pmi_cidrs *set)
{
    pm_loop *loop = pm_app_loop(admit->app);
    uint64_t k0 = pmi_loop_random_u64(loop), k1 = pmi_loop_random_u64(loop);
    pmi_cidrs_init(set, admit->env, k0, k1);
}

static pm_err admit_read(pmi_admit *admit, pmi_cidrs *set, const char *name,
                         const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pm_err err = pmi_cidrs_add(set, list[i]);
        if (err == PM_EINVAL) {
            PMI_LOG(admit->env, PM_LOG_ERROR, "connector",
                    "%s: \"%s\" is no CIDR block like 192.0.2.0/24", name,
                    list[i] ? list[i] : "");
            return PM_ECONFIG;
        }
        if (err)
            return err;
    }
    return PM_OK;
}

pm_err pmi_admit_new(pm_app *app, pmi_admit **out)
{
    const pmi_env *env = pmi_app_env(app);
    const pm_connector_opts *opts = pmi_app_connector_opts(app);
    const pm_limits *limits = pmi_app_limits(app);
    pmi_admit *admit = pmi_zalloc(env, sizeof *admit);
    pm_err err;
    if (!admit)
        return PM_ENOMEM;
    *out = admit;
    admit->app = app;
    admit->env = env;
    admit->limit.per_s = admit->limit.burst = limits->connects_per_s;
    admit->lag_us = (uint64_t)limits->lag_ms * 1000;
    pmi_list_init(&admit->seen);
    pmi_loop_map_init(pm_app_loop(app), &admit->addresses);
    admit_cidrs_init(admit, &admit->blocked);
    admit_cidrs_init(admit, &admit->proxies);
    err = admit_read(admit, &admit->blocked, "blocked", opts->blocked,
                     opts->blocked_count);
    if (err == PM_OK)
        err = admit_read(admit, &admit->proxies, "proxies", opts->proxies,
                         opts->proxies_count);
    return err;
}

static void admit_forget(pmi_admit *admit, admit_entry *entry)
{
    pmi_list_remove(&entry->link);
    pmi_map_remove(&admit->addresses, pm_bytes(&entry->of, sizeof entry->of));
    pmi_free(admit->env, entry);
}

void pmi_admit_free(pmi_admit *admit)
{
    if (!admit)
        return;
    while (!pmi_list_empty(&admit->seen))
        admit_forget(admit, PMI_OUTER(admit->seen.next, admit_entry, link));
    pmi_map_fini(&admit->addresses);
    pmi_cidrs_fini(&admit->blocked);
    pmi_cidrs_fini(&admit->proxies);
    pmi_free(admit->env, admit);
}

/* ---- Blocks ------------------------------------------------------------ */

pm_err pmi_admit_block(pmi_admit *admit, const char *block)
{
    return pmi_cidrs_add(&admit->blocked, block);
}

pm_err pmi_admit_unblock(pmi_admit *admit, const char *block)
{
    return pmi_cidrs_remove(&admit->blocked, block);
}

/* ---- Connections a second ---------------------------------------------- */

uint32_t pmi_admit_addresses(const pmi_admit *admit)
{
    return pmi_map_count(&admit->addresses);
}

/* Those whose bucket is full are as good as unknown. */
static void admit_sweep(pmi_admit *admit, uint64_t now_us)
{
    for (int i = 0; i < ADMIT_SWEEP && !pmi_list_empty(&admit->seen); i++) {
        admit_entry *oldest = PMI_OUTER(admit->seen.next, admit_entry, link);
        if (!pmi_rate_is_full(&oldest->rate, now_us))
            break;
        admit_forget(admit, oldest);
    }
}

/* The entry of this address, made if need be. NULL: no memory. */
static admit_entry *admit_find(pmi_admit *admit, const pmi_cidr *of)
{
    pm_slice key = pm_bytes(of, sizeof *of);
    admit_entry *entry = pmi_map_get(&admit->addresses, key);
    if (entry)
        return entry;
    if (pmi_map_count(&admit->addresses) >=
        pmi_app_limits(admit->app)->addresses)
        admit_forget(admit, PMI_OUTER(admit->seen.next, admit_entry, link));
    entry = pmi_zalloc(admit->env, sizeof *entry);
    if (!entry)
        return NULL;
    entry->of = *of;
    if (pmi_map_put(&admit->addresses, key, entry, NULL)) {
        pmi_free(admit->env, entry);
        return NULL;
    }
    return entry;
}

static pm_close_reason admit_rate(pmi_admit *admit, const pmi_addr *peer)
{
    uint64_t now = pmi_loop_now_us(pm_app_loop(admit->app));
    admit_entry *entry;
    pmi_cidr of;
    if (!admit->limit.per_s)
        return PM_CLOSE_NONE;
    pmi_cidr_of(&of, peer, 64);
    admit_sweep(admit, now);
    entry = admit_find(admit, &of);
    if (!entry)
        return PM_CLOSE_MEMORY;
    pmi_list_remove(&entry->link);
    pmi_list_add(&admit->seen, &entry->link);
    return pmi_rate_take(&entry->rate, &admit->limit, now, 1)
               ? PM_CLOSE_NONE
               : PM_CLOSE_ADDRESS_RATE;
}

/* ---- Asking ------------------------------------------------------------ */

static bool admit_trusts(const pmi_addr *addr, void *ctx)
{
    return pmi_cidrs_match(&((pmi_admit *)ctx)->proxies, addr);
}

/* An address that is a player's, as far as we know. */
static pm_close_reason admit_address(pmi_admit *admit, const pmi_addr *peer)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(admit->app);
    char text[PMI_ADDR_TEXT_MAX];
    pm_close_reason refused;
    if (!peer || !peer->len || admit_trusts(peer, admit))
        return PM_CLOSE_NONE;
    if (pmi_cidrs_match(&admit->blocked, peer))
        return PM_CLOSE_BLACKLIST;
    refused = admit_rate(admit, peer);
    if (refused || !opts->blacklist)
        return refused;
    return opts->blacklist(pmi_addr_text(peer, text), opts->ctx)
               ? PM_CLOSE_BLACKLIST
               : PM_CLOSE_NONE;
}

pm_close_reason pmi_admit_ask(pmi_admit *admit, const pmi_addr *peer)
{
    pm_loop *loop = pm_app_loop(admit->app);
    if (admit->lag_us && pmi_loop_is_overloaded(loop, admit->lag_us / 2))
        return PM_CLOSE_OVERLOAD;
    return admit_address(admit, peer);
}

/* ---- Behind a proxy ---------------------------------------------------- */

static pm_close_reason admit_proxied(pmi_conn *conn, void *ctx)
{
    return admit_address(ctx, pmi_conn_peer(conn));
}

/* Only what a trusted peer writes is read. */
static pm_close_reason admit_forwarded(pmi_conn *conn, const pm_slice *lines,
                                       size_t count, void *ctx)
{
    pmi_admit *admit = ctx;
    pmi_addr from;
    if (!pmi_app_connector_opts(admit->app)->forwarded_for ||
        !admit_trusts(pmi_conn_peer(conn), admit) ||
        !pmi_proxy_forwarded(lines, count, admit_trusts, admit, &from))
        return PM_CLOSE_NONE;
    pmi_conn_set_peer(conn, &from);
    return admit_address(admit, &from);
}

static const pmi_conn_front admit_front = {admit_proxied, admit_forwarded};

pm_err pmi_admit_front(pmi_admit *admit, pmi_conn *conn)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(admit->app);
    const pmi_addr *peer = pmi_conn_peer(conn);
    if (!opts->proxies_count || !peer->len || !admit_trusts(peer, admit))
        return PM_OK;
    return pmi_conn_set_front(conn, &admit_front, admit, opts->proxy_header);
}
