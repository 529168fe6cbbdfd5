/* SPDX-License-Identifier: MIT */
/* pomelo_presence_internal.h -- is a uid still there? A server that holds uids
 * of other servers' frontends asks those to tell it when the last session of
 * one ends.
 *
 *     who asks                                   the frontend
 *       | WATCH number, uids          (a call)     |
 *       |----------------------------------------->|
 *       |                  uids without a session  |
 *       |<-----------------------------------------|
 *       | UNWATCH uids                (a notify)   |
 *       |----------------------------------------->|
 *       |         (a call)  GONE number, uid, ...  |
 *       |<-----------------------------------------|
 *       |         (a call)  AGAIN                  |
 *       |<-----------------------------------------|
 *
 * All of a turn goes in one call to each server. A number belongs to one WATCH:
 * a GONE with an older one is about a question that has been asked anew since,
 * and is passed over. Whatever goes wrong, the whole list is asked anew: by who
 * asks after a failed call and after each new link (the first WATCH then says
 * that all older ones are void), and by the frontend with AGAIN when it could
 * not tell somebody. So nobody has to remember what was lost. */
#ifndef PMI_PRESENCE_INTERNAL_H
#define PMI_PRESENCE_INTERNAL_H

#include "pomelo_session_internal.h"

/* ---- Who wants to know ------------------------------------------------- */
/* One interest in one uid on one frontend; caller's storage, all zero. */
typedef struct pmi_stake {
    pmi_link in_watched;
    struct pmi_watched *watched; /* NULL: no interest (any more) */
    /* The uid has no session there. The stake is free again. Anything may be
     * done in here. */
    void (*gone)(struct pmi_stake *stake);
} pmi_stake;

typedef struct pmi_presence {
    pm_app *app;
    const pmi_env *env; /* the loop's */
    pmi_task task;      /* asks and tells what has come together in a turn */
    pmi_timer retry;
    bool closed;
    /* Asking: pomelo_presence_far.c */
    pmi_map fars; /* frontend id -> presence_far */
    uint64_t last_number;
    uint64_t asked; /* WATCH calls */
    /* Telling: pomelo_presence.c */
    pmi_map rows;     /* uid -> presence_row */
    pmi_map watchers; /* server id -> presence_watcher */
    uint64_t told;    /* GONE calls */
} pmi_presence;

/* Caller's storage; serves PMI_OP_PRESENCE. PM_ENOMEM */
pm_err pmi_presence_init(pmi_presence *presence, pm_app *app);
/* Nothing more is asked or told. */
void pmi_presence_close(pmi_presence *presence);
/* Every stake has been dropped before. */
void pmi_presence_fini(pmi_presence *presence);
/* What it serves. */
void pmi_presence_serve(pmi_presence *presence, pm_call *call);

/* Calls stake->gone once when the uid has no session on that frontend, on a
 * later turn. Both texts: 1..255 bytes. PM_ENOMEM */
pm_err pmi_presence_stake(pmi_presence *presence, pmi_stake *stake,
                          const char *frontend_id, const char *uid);
/* Somebody says that it is there now: asks anew. */
void pmi_presence_ask_anew(pmi_presence *presence, pmi_stake *stake);
/* Harmless when there is no interest. */
void pmi_presence_drop(pmi_presence *presence, pmi_stake *stake);

/* ---- Between the two files --------------------------------------------- */
/* `extra` begins with one of these. */
enum {
    PMI_PRESENCE_WATCH = 1,   /* void all before (1) | number (8) | uids */
    PMI_PRESENCE_UNWATCH = 2, /* uids */
    PMI_PRESENCE_GONE = 3,    /* number (8) | uid, each */
    PMI_PRESENCE_AGAIN = 4    /* nothing */
};
/* Uids travel behind their length (1). One call carries so many bytes. */
#define PMI_PRESENCE_LIST_MAX (64u * 1024)

/* Both halves' work is done on the next turn. */
void pmi_presence_schedule(pmi_presence *presence);
/* ... or after a second, when something has failed. */
void pmi_presence_retry(pmi_presence *presence);
/* A call with these bytes behind the first one. cb NULL: a notify. */
pm_err pmi_presence_send(pmi_presence *presence, const char *server_id,
                         const pmi_buf *extra, pmi_rpc_answer_cb cb, void *ctx);
/* What the other side said, whichever way it came. */
pm_err pmi_presence_answer_err(const pmi_rpc_answer *answer);
/* The next uid as text; false at the end, and for what is none (then the
 * cursor is bad). */
bool pmi_presence_next(pmi_cursor *in, char uid[PMI_UID_MAX + 1]);
void pmi_presence_put(pmi_buf *out, const char *uid);
void pmi_presence_put_number(pmi_buf *out, uint64_t number);
uint64_t pmi_presence_take_number(pmi_cursor *in);

/* pomelo_presence_far.c */
void pmi_presence_ask_all(pmi_presence *presence);
pm_err pmi_presence_serve_gone(pmi_presence *presence, const char *frontend_id,
                               pm_slice list);
/* All of that frontend is asked anew: a new link, or it says AGAIN. */
void pmi_presence_restart(pmi_presence *presence, const char *frontend_id);
/* It has left the table: whoever it had is gone. */
void pmi_presence_removed(pmi_presence *presence, const char *frontend_id);
/* What waited for the retry is tried now. */
void pmi_presence_resume(pmi_presence *presence);
void pmi_presence_free_fars(pmi_presence *presence);

#endif
