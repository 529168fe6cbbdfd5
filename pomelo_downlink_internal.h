/* SPDX-License-Identifier: MIT */
/* pomelo_downlink_internal.h -- one client's connection as the frontend sees
 * it, and what goes down to it: answers, pushes, heartbeats, kicks. What comes
 * up from it is pomelo_connector's. */
#ifndef PMI_DOWNLINK_INTERNAL_H
#define PMI_DOWNLINK_INTERNAL_H

#include "core/conn.h"
#include "pomelo_handler_internal.h"
#include "pomelo_resume_internal.h"

typedef enum pmi_downlink_state {
    PMI_DOWNLINK_INITED,
    PMI_DOWNLINK_WAIT_ACK,
    PMI_DOWNLINK_WORKING,
    PMI_DOWNLINK_CLOSED
} pmi_downlink_state;

/* Packages until the next flush; made when the first one is gathered. */
typedef struct pmi_gather {
    pmi_link link; /* pmi_gatherer.waiting */
    struct pmi_downlink *down;
    pmi_buf bytes;
} pmi_gather;

/* One a connection; idle ones are many: keep it small. */
typedef struct pmi_downlink {
    pm_app *app;
    pmi_conn *conn;
    pm_session *session; /* a reference; NULL before WORKING */
    pmi_link in_all;
    union {
        pmi_timer timer; /* handshake's end, then heartbeat's, or delay's */
        pmi_task grave;  /* after both */
    };
    union {
        pm_handshake *handshake; /* the application's callback has it */
        pmi_resume *resume;      /* when it resumes */
    };
    struct pmi_meter *meter; /* owned; NULL: nothing of it is on */
    pmi_gather *gather;      /* NULL: none yet */
    uint32_t state : 4;
    bool greeted : 1; /* answer is on its way: ACKs count from the next chunk */
    bool paused : 1;  /* too many requests in flight */
    bool full : 1;    /* too many answers wait for it: not read */
    bool reading : 1; /* a chunk of it is being looked at */
    bool metered : 1; /* packages pass pmi_meter_package */
    bool delayed : 1; /* over its rate: not read before the timer says so */
    bool resumes : 1; /* its client has asked to */
} pmi_downlink;

/* Gathers for the buffer scheduler; one a frontend. */
typedef struct pmi_gatherer {
    pm_app *app;
    pmi_link waiting; /* pmi_gather */
    pmi_timer timer;
} pmi_gatherer;
void pmi_gatherer_init(pmi_gatherer *gatherer, pm_app *app);
void pmi_gatherer_fini(pmi_gatherer *gatherer);

/* Sends one package of parts. PM_ECLOSED, PM_ENOMEM, PM_ESIZE; PM_ELIMIT: the
 * queue is full, and the connection is being closed for it. */
pm_err pmi_downlink_package(pmi_downlink *down, uint8_t type,
                            const pm_slice *parts, size_t count,
                            unsigned flags);
/* Where the session is connected; NULL: nowhere now. */
static inline pmi_downlink *pmi_downlink_of(const pm_session *session)
{
    pmi_resume *resume = session->conn;
    return session->resumes && resume ? resume->down : session->conn;
}
/* A message: encoded by its route's schema, its route numbered, sent by the
 * scheduler and on these terms (NULL: kept). The errors of a package; PM_EINVAL
 * (no such message); PM_EDROPPED: by its terms. */
pm_err pmi_downlink_message(pm_session *session, uint8_t type, uint32_t id,
                            pm_slice route, pm_body body,
                            const pmi_terms *terms);
/* What pmi_handler_message wants. */
pm_err pmi_downlink_answer(pm_request *req, const pm_response *response);
/* Sends the reason (NULL: no KICK package) and closes. */
void pmi_downlink_kick(pmi_downlink *down, const char *reason,
                       pm_close_reason why);
/* No word, just the end. */
void pmi_downlink_close(pmi_downlink *down, pm_close_reason why);
/* Bytes that have not left, gathered ones among them. */
size_t pmi_downlink_queued(const pmi_downlink *down);
/* What is gathered leaves now. */
void pmi_downlink_flush(pmi_downlink *down);

#endif
