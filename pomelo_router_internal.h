/* SPDX-License-Identifier: MIT */
/* pomelo_router_internal.h -- which server of a type: the application's router,
 * or a built-in one (pomelo_route), per type and "default". */
#ifndef PMI_ROUTER_INTERNAL_H
#define PMI_ROUTER_INTERNAL_H

#include "pomelo_cluster_internal.h"

typedef struct pmi_router pmi_router;
pm_err pmi_router_new(pm_app *app, pmi_router **out);
/* What a router needs of sessions, which stand on a higher floor: handed in by
 * them, before the first choice. */
typedef struct pmi_router_sessions {
    const char *(*uid)(const pm_session *session);
    void (*ref)(pm_session *session);
    void (*unref)(pm_session *session); /* NULL is fine */
} pmi_router_sessions;
void pmi_router_set_sessions(pmi_router *router,
                             const pmi_router_sessions *sessions);
/* Choices that are still open complete with NULL, inside this call: for whoever
 * waits for them and ends. The router itself stays as it is. */
void pmi_router_close(pmi_router *router);
/* Closes it first. NULL is fine. A choice that the application still has to end
 * keeps its storage until then. */
void pmi_router_free(pmi_router *router);

/* Chooses a server of `type`; done runs exactly once, inside this call when the
 * router answers at once. NULL: none (type without servers, the router said so
 * or named a server that does not exist, or the app is freed). PM_ENOMEM: done
 * never runs. `type` and `param` are borrowed until this call returns: a choice
 * has its own copy of a string and its own reference to a session. */
typedef void (*pmi_router_cb)(pmi_server *server, void *ctx);
pm_err pmi_router_choose(pmi_router *router, pm_slice type, pm_param param,
                         pmi_router_cb done, void *ctx);

/* A choice that waits, told by what pmi_router_choose was given: done will not
 * run any more. */
void pmi_router_forget(pmi_router *router, pmi_router_cb done, void *ctx);

#endif
