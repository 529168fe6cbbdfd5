/* SPDX-License-Identifier: MIT */
/* pomelo_resume_internal.h -- a session that outlives its connection.
 *
 *   OFFERED --ack--> CONNECTED --connection lost--> SUSPENDED --time's up--+
 *      |                 |  ^                           |                  |
 *      |                 |  +--ack-- CLAIMED <--token---+                  v
 *      +--closed         +--kick, broken rule, stop ----------------->  ended
 *
 * The side object of a session whose client has asked for it; others have none.
 * It knows what was sent (pmi_window), how many DATA packages came, and the
 * token. While it exists the session's `conn` is this, not the downlink. */
#ifndef PMI_RESUME_INTERNAL_H
#define PMI_RESUME_INTERNAL_H

#include "core/conn.h"
#include "core/crypto.h"
#include "core/window.h"
#include "pomelo_session_internal.h"

struct pmi_downlink;

/* A token: which one (8 bytes), and the proof; in hex. */
#define PMI_RESUME_SECRET 16
#define PMI_RESUME_TOKEN (2 * (8 + PMI_RESUME_SECRET))

typedef struct pmi_resume {
    struct pmi_resumes *resumes;
    pm_session *session;       /* NULL: OFFERED. A reference without `down` */
    struct pmi_downlink *down; /* the session's connection, also when it is
                                  being closed; NULL otherwise */
    struct pmi_downlink *next; /* OFFERED or CLAIMED: whose ACK is awaited */
    pmi_link link;             /* pmi_resumes: waiting, ending */
    pmi_timer timer;           /* its end */
    pmi_window window;         /* DATA packages to the client */
    uint64_t received;         /* DATA packages from it */
    uint64_t had;              /* the client may have had them up to this one */
    uint64_t due_us;           /* when its time is up */
    uint64_t id;
    uint8_t secret[PMI_RESUME_SECRET];
    uint8_t offered[PMI_RESUME_SECRET]; /* good as well, until one is used */
    pmi_rsa *key;        /* the client's, while there is no `down` */
    pm_close_reason why; /* NONE: it may go on */
    uint32_t dropped;    /* pushes, by their terms, while the client was away */
    bool away;           /* there is no `down`, or nothing leaves by it */
    bool told;           /* session_suspended was */
    bool waits;          /* is in pmi_resumes.waiting */
} pmi_resume;

/* One a frontend. */
typedef struct pmi_resumes {
    pm_app *app;
    pmi_map by_id;    /* all that can be resumed, also OFFERED ones */
    pmi_link waiting; /* SUSPENDED, the longest first */
    pmi_link ending;  /* without a connection, end on a later turn */
    uint32_t count;   /* of those who wait */
    /* Closes a downlink whose session has ended; set by pmi_resume_serve. */
    void (*hang_up)(struct pmi_downlink *down, pm_close_reason why);
} pmi_resumes;

pm_err pmi_resumes_new(pm_app *app, pmi_resumes **out);
/* Ends all that wait. */
void pmi_resumes_close(pmi_resumes *resumes);
void pmi_resumes_free(pmi_resumes *resumes);

/* A new one, with a token, OFFERED. NULL: no memory. */
pmi_resume *pmi_resume_new(pmi_resumes *resumes);
void pmi_resume_free(pmi_resume *resume);
/* Who has this token; NULL: nobody. */
pmi_resume *pmi_resume_find(pmi_resumes *resumes, const char *token);
/* A new secret, offered beside the old one; the whole token's text. */
void pmi_resume_draw(pmi_resume *resume);
void pmi_resume_token(const uint8_t secret[PMI_RESUME_SECRET], uint64_t id,
                      char out[PMI_RESUME_TOKEN + 1]);

/* Can a session go on when its connection has ended like this? */
bool pmi_resume_survives(pm_close_reason why);
/* It can not be resumed from now on: the first reason stays. One without a
 * connection ends on a later turn; who has claimed it is closed now. */
void pmi_resume_revoke(pmi_resume *resume, pm_close_reason why);
/* SUSPENDED: its time runs. When there are too many the oldest one ends. */
void pmi_resume_wait(pmi_resume *resume);
/* No longer so. */
void pmi_resume_wake(pmi_resume *resume);
/* Keeps a DATA package, before it is sent. While the client is away its terms
 * (NULL: kept) count here. PM_ECLOSED; PM_ENOMEM; PM_EDROPPED; PM_ELIMIT: the
 * client is away and it is too much, the session ends. */
pm_err pmi_resume_keep(pmi_resume *resume, const pm_slice *parts, size_t count,
                       const pmi_terms *terms);
pm_err pmi_resume_keep_chunk(pmi_resume *resume, pmi_chunk *chunk,
                             size_t offset, const pmi_terms *terms);
/* It has been dropped, and is not sent: the client will not count it. */
void pmi_resume_unkeep(pmi_resume *resume, uint32_t serial);
/* Nothing that it is sent leaves any more: its connection closes. */
void pmi_resume_leaves(pmi_resume *resume);
/* Bytes that wait for a client who is away. */
size_t pmi_resume_waiting(const pmi_resume *resume);

/* ---- Together with connections: pomelo_resume_conn.c ------------------- */
void pmi_resume_serve(pmi_resumes *resumes);
/* The client's handshake has been let in. Sees whether it asks to resume: then
 * down->resumes, and *answer is the answer's user part (else NULL: `user` as it
 * is), the caller's to delete. PM_ENOMEM */
pm_err pmi_resume_greet(struct pmi_downlink *down, const struct cJSON *msg,
                        const struct cJSON *user, struct cJSON **answer);
/* Its ACK: the downlink gets its session. *resumed: it is an old one. `ops`
 * are for a new one.
 * PM_ENOMEM */
pm_err pmi_resume_ack(struct pmi_downlink *down, const pmi_session_ops *ops,
                      bool *resumed);
/* It works: what the client lacks is sent again, the event emitted. */
void pmi_resume_replay(struct pmi_downlink *down);
/* The client says that it will not come back. */
void pmi_resume_leave(struct pmi_downlink *down);
/* The connection of such a downlink has ended. True: all is done, the session
 * (if any) lives on without it. False: the session ends now, by the caller, for
 * this reason; pmi_resume_free is due behind it. */
bool pmi_resume_lost(struct pmi_downlink *down, pm_close_reason *reason);

#endif
