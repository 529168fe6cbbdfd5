/* SPDX-License-Identifier: MIT */
/* pomelo_cluster_internal.h -- who exists and who is up: the servers table.
 *
 * A record lives as long as somebody refers to it: a removed server's record is
 * out of the lists, `removed` is set, and its calls fail with PM_ENOSERVER.
 * Links (pomelo_rpc) tell up and down. */
#ifndef PMI_CLUSTER_INTERNAL_H
#define PMI_CLUSTER_INTERNAL_H

#include "pomelo_app_internal.h"

typedef struct pmi_server {
    pm_server pub;     /* strings owned by the record */
    pmi_link in_table; /* table order */
    uint32_t refs;
    uint32_t rank;      /* its place among those of its type */
    uint32_t in_flight; /* calls without an answer, for the `la` router */
    bool up;            /* a proven link, or this app itself */
    bool removed;
    bool gently;    /* when it is removed, calls under way may go on */
    void *peer;     /* pomelo_rpc's link; NULL: none yet */
    void *back;     /* the proven link that it has dialled to us; or NULL */
    pmi_task grave; /* waits for those who were told of it, when removed */
    struct pmi_cluster *cluster; /* borrowed, for the grave */
} pmi_server;

/* The servers of one type in table order. */
typedef struct pmi_server_list {
    pmi_server **at;
    size_t count;
    uint64_t version; /* changes with every add and remove of this type */
} pmi_server_list;

typedef struct pmi_cluster pmi_cluster;
/* Copies the table. PM_ECONFIG (two equal ids, an empty id or type), PM_ENOMEM
 */
pm_err pmi_cluster_new(pm_app *app, const pm_server *servers, size_t count,
                       pmi_cluster **out);
void pmi_cluster_free(pmi_cluster *cluster);
/* Puts it behind those of its type with a smaller rank: so every process has
 * the same order, whoever has come back when. At first the rank is the place in
 * the table that the app was made with; who is added later comes last. */
void pmi_cluster_place(pmi_cluster *cluster, pmi_server *server, uint32_t rank);
pmi_server *pmi_cluster_find(pmi_cluster *cluster, const char *id);
/* NULL when the type has never had a server. Borrowed until the table changes.
 */
const pmi_server_list *pmi_cluster_type(pmi_cluster *cluster, pm_slice type);
void pmi_server_ref(pmi_server *server);
void pmi_server_unref(pmi_cluster *cluster, pmi_server *server);
/* Told by the link; emits server_up / server_down when it changes. */
void pmi_cluster_set_up(pmi_cluster *cluster, pmi_server *server, bool up);
/* Who wants to know of added and removed records (pomelo_rpc: open, close
 * links). When `added` fails the record was never there. */
void pmi_cluster_watch(pmi_cluster *cluster,
                       pm_err (*added)(pm_app *app, pmi_server *server),
                       void (*removed)(pm_app *app, pmi_server *server));
/* Walks all records in table order. */
pmi_server *pmi_cluster_next(pmi_cluster *cluster, pmi_server *after);

#endif
