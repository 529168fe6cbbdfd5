/* SPDX-License-Identifier: MIT */
/* pomelo_push_internal.h -- one message to many receivers: lists of uids as
 * they travel, and pushes on their way. What pomelo_channel builds on. */
#ifndef PMI_PUSH_INTERNAL_H
#define PMI_PUSH_INTERNAL_H

#include "pomelo_session_internal.h"

/* ---- Receivers --------------------------------------------------------- */
/* Uids of one frontend, exactly as a PMI_OP_PUSH carries them: whoever pushes
 * again to the same ones refers to the same bytes. Nothing is added once it is
 * shared. */
typedef struct pmi_uids {
    struct pmi_uids *next; /* a reference: what does not fit one frame */
    struct pmi_uids *last; /* of the row that begins here */
    pmi_buf bytes;         /* PMI_PUSH_BY_UIDS, then length (1) and uid, each */
    uint32_t refs;
    char frontend_id[]; /* with a 0 */
} pmi_uids;

/* Empty, one reference. NULL: no memory. */
pmi_uids *pmi_uids_new(const pmi_env *env, const char *frontend_id);
/* uid: 1..255 bytes. PM_ENOMEM: the list must not be used any more. */
pm_err pmi_uids_add(pmi_uids *uids, const char *uid);
pmi_uids *pmi_uids_ref(pmi_uids *uids);
void pmi_uids_unref(pmi_uids *uids); /* NULL is fine */

/* ---- Pushes ------------------------------------------------------------ */
/* To which sessions of a server a broadcast goes. */
typedef struct pmi_audience {
    bool bound_only;
    const char *filter_param; /* may be NULL */
} pmi_audience;
#define PMI_FILTER_PARAM_MAX (64u * 1024)

/* One an app; caller's storage. The numbers only grow. */
typedef struct pmi_pushes {
    pm_app *app;
    const pmi_env *env;            /* the loop's */
    pm_broadcast_filter_cb filter; /* NULL: everybody */
    void *filter_ctx;
    pmi_link jobs; /* that still have to tell */
    pmi_spares spare_jobs, spare_legs;
    uint64_t calls_sent; /* to other frontends */
    uint64_t encoded;    /* messages made for clients of this frontend */
    uint64_t delivered;  /* ... and put into a session's queue */
    uint64_t missed;     /* uids of a list without a session here */
} pmi_pushes;

void pmi_pushes_init(pmi_pushes *pushes, pm_app *app);
/* What waits is told PM_ECLOSED. */
void pmi_pushes_close(pmi_pushes *pushes);
void pmi_pushes_fini(pmi_pushes *pushes);

/* One push or broadcast that is being put together: open, to whom, go. */
typedef struct pmi_push_job pmi_push_job;
/* cb may be NULL. PM_ENOMEM */
pm_err pmi_push_open(pmi_pushes *pushes, pm_push_cb cb, void *ctx,
                     pmi_push_job **out);
/* Its key is borrowed until the job goes. */
void pmi_push_in_manner(pmi_push_job *job, const pmi_manner *manner);
/* Refers to the list. PM_ENOMEM */
pm_err pmi_push_to_uids(pmi_push_job *job, pmi_uids *uids);
/* A broadcast: to these sessions, once, then to which servers. All is borrowed
 * until the job goes. PM_ENOMEM */
pm_err pmi_push_to_all(pmi_push_job *job, const pmi_audience *audience);
pm_err pmi_push_to_server(pmi_push_job *job, const char *server_id);
/* Takes the job in any case. When it fails nothing was sent, and cb never
 * runs: PM_EINVAL, PM_ESIZE, PM_EPROTOBUF, PM_ENOMEM, PM_ECLOSED. Without cb
 * also what kept the message from every frontend: PM_ELIMIT. */
pm_err pmi_push_go(pmi_push_job *job, const char *route, pm_body body);
/* Instead of going. */
void pmi_push_drop(pmi_push_job *job);

/* What a frontend serves: PMI_OP_PUSH and PMI_OP_BROADCAST. */
void pmi_push_serve(pmi_pushes *pushes, pm_call *call);
void pmi_push_serve_broadcast(pmi_pushes *pushes, pm_call *call);

#endif
