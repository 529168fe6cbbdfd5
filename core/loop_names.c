/* SPDX-License-Identifier: MIT */
/* core/loop_names.c -- names to addresses, without blocking the loop.
 *
 *     numeric, or in /etc/hosts -------------------------> answer
 *     else: ask DNS for an IPv4 address, then for an IPv6 -> answer
 *
 * An answer is always a task: the callback runs on a later turn, also for what
 * is known at once. DNS is libevent's evdns, made when the first name needs it.
 *
 * A question to evdns can not be taken back for certain: its answer may be
 * queued on the event base already, and on a borrowed base it is delivered even
 * after our loop is gone. So evdns is never handed a lookup, only a token: an
 * event of libevent's that is never added and whose argument is the lookup.
 * Whoever loses interest sets the argument to NULL; the answer, which comes
 * exactly once, frees the token. Start reading at pmi_loop_resolve(). */
#include "loop.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/event.h>

enum { NAMES_HOST_MAX = 253 };
#define NAMES_DEADLINE_US UINT64_C(20000000)
#define NAMES_HOSTS "/etc/hosts"

/* What the lookups of a loop share. */
typedef struct names_table {
    pm_loop *loop;
    struct evdns_base *dns; /* owned; NULL until a name needs it */
    pmi_link lookups;
    bool closing;
} names_table;

typedef struct names_lookup {
    pmi_link link; /* in names_table.lookups */
    names_table *owner;
    pmi_task answer;
    pmi_timer deadline;
    struct event *token; /* while evdns is asked; freed by its answer */
    pmi_resolve_cb cb;
    void *ctx;
    pm_err err;
    pmi_addr addr;
    uint16_t port;
    char host[NAMES_HOST_MAX + 1];
} names_lookup;

/* ---- Tokens ------------------------------------------------------------ */
static void names_token_nothing(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

static void names_token_forget(names_lookup *lookup)
{
    if (lookup->token)
        event_assign(lookup->token, pmi_loop_base(lookup->owner->loop), -1, 0,
                     names_token_nothing, NULL);
    lookup->token = NULL;
}

/* ---- Answering --------------------------------------------------------- */
/* Takes the lookup out of everything. */
static void names_unlink(names_lookup *lookup)
{
    names_token_forget(lookup);
    pmi_task_cancel(&lookup->answer);
    pmi_timer_clear(&lookup->deadline);
    pmi_list_remove(&lookup->link);
}

static void names_tell(names_lookup *lookup)
{
    names_lookup told = *lookup;
    names_unlink(lookup);
    pmi_free(pmi_loop_env(told.owner->loop), lookup);
    told.cb(told.err, told.err ? NULL : &told.addr, told.ctx);
}

static void names_answer_task(pmi_task *task)
{
    names_tell(PMI_OUTER(task, names_lookup, answer));
}

static void names_answer(names_lookup *lookup, pm_err err)
{
    names_token_forget(lookup);
    pmi_timer_clear(&lookup->deadline);
    lookup->err = err;
    pmi_loop_defer(lookup->owner->loop, &lookup->answer, names_answer_task);
}

static void names_too_late(pmi_timer *timer)
{
    names_answer(PMI_OUTER(timer, names_lookup, deadline), PM_ERESOLVE);
}

/* ---- DNS --------------------------------------------------------------- */
static void names_ask(names_lookup *lookup, int family);

/* By way of text, so that only core/sock knows what an address looks like. */
static bool names_read(names_lookup *lookup, int family, const void *bytes)
{
    char text[PMI_ADDR_TEXT_MAX];
    return inet_ntop(family, bytes, text, sizeof text) &&
           pmi_addr_parse(&lookup->addr, text, lookup->port);
}

static void names_told(names_lookup *lookup, int result, char type, int count,
                       const void *addresses)
{
    int family = type == DNS_IPv6_AAAA ? AF_INET6 : AF_INET;
    bool answered = result == DNS_ERR_NONE && count > 0;
    if (answered && names_read(lookup, family, addresses))
        names_answer(lookup, PM_OK);
    else
        names_answer(lookup, PM_ERESOLVE);
}

static names_lookup *names_of_token(struct event *token)
{
    names_lookup *lookup = event_get_callback_arg(token);
    event_free(token);
    if (lookup)
        lookup->token = NULL;
    return lookup;
}

static void names_on_v6(int result, char type, int count, int ttl,
                        void *addresses, void *arg)
{
    names_lookup *lookup = names_of_token(arg);
    (void)ttl;
    if (!lookup)
        return;
    pm_loop *loop = lookup->owner->loop;
    pmi_loop_enter(loop);
    names_told(lookup, result, type, count, addresses);
    pmi_loop_leave(loop);
}

static void names_on_v4(int result, char type, int count, int ttl,
                        void *addresses, void *arg)
{
    names_lookup *lookup = names_of_token(arg);
    (void)ttl;
    if (!lookup)
        return;
    pm_loop *loop = lookup->owner->loop;
    pmi_loop_enter(loop);
    if (result == DNS_ERR_NONE && count > 0)
        names_told(lookup, result, type, count, addresses);
    else
        names_ask(lookup, AF_INET6);
    pmi_loop_leave(loop);
}

/* A question that evdns refuses at once leaves nothing behind. */
static void names_ask(names_lookup *lookup, int family)
{
    struct evdns_base *dns = lookup->owner->dns;
    struct event_base *base = pmi_loop_base(lookup->owner->loop);
    struct event *token = event_new(base, -1, 0, names_token_nothing, lookup);
    struct evdns_request *request = NULL;
    lookup->token = token;
    if (token && family == AF_INET6)
        request =
            evdns_base_resolve_ipv6(dns, lookup->host, 0, names_on_v6, token);
    else if (token)
        request =
            evdns_base_resolve_ipv4(dns, lookup->host, 0, names_on_v4, token);
    if (request)
        return;
    if (token)
        event_free(token);
    lookup->token = NULL;
    names_answer(lookup, PM_ERESOLVE);
}

/* Without questions under way evdns does not keep a host's base running. */
static struct evdns_base *names_dns(names_table *all)
{
    if (!all->dns)
        all->dns = evdns_base_new(pmi_loop_base(all->loop),
                                  EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                      EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    return all->dns;
}

/* ---- The names of a loop ----------------------------------------------- */
/* Each question that is under way is answered "shut down" to its token. */
static void names_fini(pm_loop *loop, void *data)
{
    names_table *all = data;
    all->closing = true;
    pmi_loop_enter(loop);
    while (!pmi_list_empty(&all->lookups)) {
        names_lookup *lookup = PMI_OUTER(all->lookups.next, names_lookup, link);
        lookup->err = PM_ECLOSED;
        names_tell(lookup);
    }
    pmi_loop_leave(loop);
    if (all->dns)
        evdns_base_free(all->dns, 1);
    pmi_free(pmi_loop_env(loop), all);
}

static names_table *names_get(pm_loop *loop)
{
    names_table *all = pmi_loop_names(loop);
    if (all)
        return all;
    all = pmi_zalloc(pmi_loop_env(loop), sizeof *all);
    if (!all)
        return NULL;
    all->loop = loop;
    pmi_list_init(&all->lookups);
    pmi_loop_set_names(loop, all, names_fini);
    return all;
}

static void names_start(names_lookup *lookup)
{
    names_table *all = lookup->owner;
    if (pmi_addr_parse(&lookup->addr, lookup->host, lookup->port))
        names_answer(lookup, PM_OK);
    else if (!pmi_loop_base(all->loop))
        names_answer(lookup, PM_ERESOLVE);
    else if (pmi_addr_from_hosts(&lookup->addr, NAMES_HOSTS, lookup->host,
                                 lookup->port))
        names_answer(lookup, PM_OK);
    else if (!names_dns(all))
        names_answer(lookup, PM_ERESOLVE);
    else {
        pmi_timer_set(all->loop, &lookup->deadline, NAMES_DEADLINE_US,
                      names_too_late);
        names_ask(lookup, AF_INET);
    }
}

pm_err pmi_loop_resolve(pm_loop *loop, const char *host, uint16_t port,
                        pmi_resolve_cb cb, void *ctx, void **handle)
{
    names_table *all = names_get(loop);
    names_lookup *lookup;
    size_t len = host ? strlen(host) : 0;
    if (!all)
        return PM_ENOMEM;
    if (all->closing)
        return PM_ECLOSED;
    lookup = pmi_zalloc(pmi_loop_env(loop), sizeof *lookup);
    if (!lookup)
        return PM_ENOMEM;
    lookup->owner = all;
    lookup->cb = cb;
    lookup->ctx = ctx;
    lookup->port = port;
    pmi_list_add(&all->lookups, &lookup->link);
    if (len > NAMES_HOST_MAX) {
        names_answer(lookup, PM_ERESOLVE);
    } else {
        if (len)
            memcpy(lookup->host, host, len);
        names_start(lookup);
    }
    if (handle)
        *handle = lookup;
    return PM_OK;
}

void pmi_loop_resolve_cancel(pm_loop *loop, void *handle)
{
    names_unlink(handle);
    pmi_free(pmi_loop_env(loop), handle);
}

pm_err pmi_loop_set_nameserver(pm_loop *loop, const char *address)
{
    names_table *all;
    if (!pmi_loop_base(loop))
        return PM_ENOTSUP;
    all = names_get(loop);
    if (!all || !names_dns(all))
        return PM_ENOMEM;
    evdns_base_clear_nameservers_and_suspend(all->dns);
    if (evdns_base_nameserver_ip_add(all->dns, address))
        return PM_EINVAL;
    return evdns_base_resume(all->dns) ? PM_ENOMEM : PM_OK;
}
