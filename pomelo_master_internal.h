/* SPDX-License-Identifier: MIT */
/* pomelo_master_internal.h -- the master: who is there, who is told of it,
 * who is started, what consoles ask.
 *
 *   link:    accepted --register--> server or client --gone--> closed
 *   server:  known --spawn--> known --register--> there --link lost--> grace
 *              ^                                    ^                   |  |
 *              |                                    +---reconnect-------+  |
 *              +------------------ announced as gone <---------------------+
 *
 * Each registration has a number of its own: what an old link does late finds
 * another number and changes nothing. */
#ifndef PMI_MASTER_INTERNAL_H
#define PMI_MASTER_INTERNAL_H

#include "pomelo_count_internal.h"
#include "pomelo_cluster_internal.h"
#include "pomelo_facts_internal.h"
#include "pomelo_module_internal.h"

typedef struct pmi_master pmi_master;

typedef struct pmi_master_server {
    pmi_master *master;
    char *id, *type;      /* owned */
    char *info;           /* owned: what is announced; NULL: never registered */
    char incarnation[64]; /* of its process, as it says; "" */
    int64_t pid;
    uint32_t order;        /* its place, from 1: the table's, then who came */
    uint64_t registration; /* number of the last one */
    pmi_admin_link *link;  /* NULL: not connected */
    pmi_timer grace, respawn;
    uint64_t spawned_us;
    uint32_t tries;
    bool there;      /* announced as being there */
    bool subscribed; /* wants to be told */
    bool recorded;   /* has started */
    bool configured; /* of the table: stays known */
    bool added;      /* by a console: stays known until it is stopped */
    bool stopped;    /* by a console: not to be started again by itself */
    bool starting;   /* spawned; neither here nor at its end yet */
    bool restarting; /* by a console: to be started when it is gone */
} pmi_master_server;

/* One link's, in link->ctx. */
typedef struct pmi_master_peer {
    pmi_master_server *server; /* NULL: a console, or nobody yet */
    bool console;
    int level;
    char name[256]; /* the console's user */
    char id[256];   /* the console's own */
} pmi_master_peer;

struct pmi_master {
    pm_app *app;
    const pmi_env *env;
    const pm_master_opts *opts; /* borrowed: the app's, defaults filled in */
    pmi_facts facts;
    pmi_listener *listener;
    pmi_link links;
    uint32_t links_count, strangers;
    pmi_map servers; /* id -> pmi_master_server */
    pmi_link jobs;   /* of consoles, waiting for something to be so */
    pmi_task begin, stop;
    uint64_t registrations;
    uint32_t last_order;
    bool started_over, stop_at_once, closed;
};

/* Makes nothing unless the app's type is "master". */
pm_err pmi_master_new(pm_app *app, pmi_master **out);
void pmi_master_free(pmi_master *master);
pm_err pmi_master_start(pmi_master *master);
void pmi_master_close(pmi_master *master);
bool pmi_master_is(const pm_server *server);

/* ---- Between the files of this module ---------------------------------- */
static inline pm_loop *pmi_master_loop(const pmi_master *master)
{
    return pm_app_loop(master->app);
}
pmi_master_server *pmi_master_find(pmi_master *master, const char *id);
/* Finds or makes; NULL: no memory. */
pmi_master_server *pmi_master_know(pmi_master *master, const pm_server *server);
/* {"id": info, ..} of all that are there. */
void pmi_master_list(pmi_master *master, pmi_buf *out);
/* A request to every subscriber, or a notify to every server. */
void pmi_master_announce(pmi_master *master, pm_slice body);
void pmi_master_notify_all(pmi_master *master, const char *module,
                           pm_slice body);
/* Ask one server; PM_EDOWN without a link. */
pm_err pmi_master_ask(pmi_master_server *server, const char *module,
                      pm_slice body, pm_admin_cb cb, void *ctx);
/* It is gone, or its process is: it comes back, stays known, or is forgotten.
 */
void pmi_master_gone(pmi_master_server *server);
/* Late links of it do not find it. */
void pmi_master_forget(pmi_master_server *server);
/* `__masterwatcher__`: a server has said that it has started. */
void pmi_master_recorded(pmi_master *master, pmi_master_server *server);

/* pomelo_master_spawn.c: processes. */
void pmi_master_start_table(pmi_master *master);
pm_err pmi_master_spawn(pmi_master_server *server);
/* It is gone: shall it come back? */
void pmi_master_lost(pmi_master_server *server);
void pmi_master_pin(pmi_master_server *server);
bool pmi_master_terminate(pmi_master_server *server);
/* It is told to stop, and is not started again by itself. One that is not here
 * to be told is terminated; unless its link has just broken: then it is told
 * when it is back. last: the master will not be there then. Without `last` it
 * may be forgotten before this returns. */
void pmi_master_stop_server(pmi_master_server *server, bool last);
/* Those linked servers that this master starts (opts->start), whoever has
 * started them. */
typedef void (*pmi_master_own_cb)(pmi_master_server *server,
                                  const pm_server *entry, void *ctx);
void pmi_master_each_own(pmi_master *master, pmi_master_own_cb each, void *ctx);

/* pomelo_master_round.c: asks every server that it concerns, and answers for
 * the master itself. */
void pmi_master_gather(pmi_master *master, pm_admin_call *call,
                       const char *module, const char *question, pm_slice body);

/* pomelo_master_words.c: what a console says in words. Each ends the call, now
 * or later. */
void pmi_master_add(pmi_master *master, pm_admin_call *call);
void pmi_master_cron(pmi_master *master, pm_admin_call *call);
void pmi_master_blacklist(pmi_master *master, pm_admin_call *call);

/* pomelo_master_console.c: __console__, watchServer and their kin. */
pm_err pmi_master_console_new(pmi_master *master);
void pmi_master_console_close(pmi_master *master);

#endif
