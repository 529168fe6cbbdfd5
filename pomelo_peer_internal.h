/* SPDX-License-Identifier: MIT */
/* pomelo_peer_internal.h -- links between servers: dialled and accepted,
 * proven before anything else is heard, reopened with back-off.
 *
 *   dialled:  DOWN --timer--> DIALLING --hello, proof--> UP --lost--> DOWN
 *   accepted: WAIT_HELLO --> WAIT_PROOF --> UP --lost--> gone
 *
 * A call is answered on the link that it came on. Most calls go out on the
 * dialled link of a pair; what a backend does to a frontend's sessions goes on
 * the frontend's own link, where its requests come from: so pushes and answers
 * arrive in the order in which they were made. */
#ifndef PMI_PEER_INTERNAL_H
#define PMI_PEER_INTERNAL_H

#include "core/conn.h"
#include "core/tls.h"
#include "pomelo_cluster_internal.h"
#include "pomelo_frame_internal.h"

typedef enum pmi_peer_state {
    PMI_PEER_DOWN,       /* dialled: between two tries */
    PMI_PEER_FIRST_DIAL, /* the first try: frames wait for it */
    PMI_PEER_DIALLING,   /* a later try: calls fail at once meanwhile */
    PMI_PEER_WAIT_HELLO, /* accepted */
    PMI_PEER_WAIT_PROOF,
    PMI_PEER_UP,
    PMI_PEER_CLOSED
} pmi_peer_state;

typedef struct pmi_peer {
    struct pmi_peers *owner;
    pmi_server *server; /* dialled: a reference. Accepted: NULL */
    pmi_conn *conn;
    pmi_link in_all;
    union {
        pmi_timer timer; /* next try, proof's end, silence */
        pmi_task grave;
    };
    pmi_buf waiting; /* frames until the first try has ended */
    pmi_link calls;  /* pomelo_rpc's: what waits for its answer */
    pmi_link served; /* pomelo_call's: what it has asked of us */
    char *id;        /* accepted: who it has proved to be; owned */
    uint64_t incarnation;
    uint64_t heard_us; /* when the last frame came */
    uint32_t tries;
    uint8_t nonce[PMI_NONCE_BYTES], theirs[PMI_NONCE_BYTES];
    uint8_t state;
    bool draining; /* it wants no new calls */
    bool asked;    /* it has not heard yet that we want none */
    bool parting;  /* dialled: its server has left the table, calls go on */
    bool waits;    /* accepted: not read, our table does not know it yet */
} pmi_peer;

/* What the module above hears. */
typedef struct pmi_peer_ops {
    void (*frame)(pmi_peer *peer, const pmi_frame *frame);
    /* A dialled link is proven. */
    void (*up)(pmi_peer *peer);
    /* The link is gone: nothing on it will be answered. PM_CLOSE_CONNECT: it
     * was never proven, nothing has left. Not called for accepted links that
     * never proved themselves. */
    void (*down)(pmi_peer *peer, pm_close_reason why);
} pmi_peer_ops;

typedef struct pmi_peers {
    pm_app *app;
    const pmi_env *env;
    const pmi_peer_ops *ops;
    pmi_listener *listener;
    pmi_tls_realm *server_tls, *client_tls; /* references; NULL: plain */
    pmi_link dialled, accepted;
    uint32_t unproven; /* accepted ones */
    uint64_t incarnation;
    uint64_t refused[PM_CLOSE_COUNT]; /* links that ended unproven, by reason */
    uint64_t lost[PM_CLOSE_COUNT];    /* proven ones */
    bool closed;
} pmi_peers;

/* PM_ECONFIG a certificate is wrong; PM_ENOMEM. To be ended by pmi_peers_fini
 * in any case. */
pm_err pmi_peers_init(pmi_peers *peers, pm_app *app, const pmi_peer_ops *ops);
void pmi_peers_fini(pmi_peers *peers);
/* Other certificates for links that begin from now on. */
pm_err pmi_peers_renew(pmi_peers *peers, const pm_tls_opts *tls);
/* Listens when the server has a port. */
pm_err pmi_peers_start(pmi_peers *peers);
/* Accepts no more links, and tells the others to make no new calls. What they
 * have sent before they heard it has come when pmi_peers_heard is true. */
void pmi_peers_drain(pmi_peers *peers);
bool pmi_peers_heard(const pmi_peers *peers);
/* Ends every link without a word to `ops`. */
void pmi_peers_close(pmi_peers *peers);

/* Opens a link to a server of the table. PM_ENOMEM */
pm_err pmi_peer_dial(pmi_peers *peers, pmi_server *server);
/* Ends a dialled link for good (its server was removed); `down` is told. */
void pmi_peer_hang_up(pmi_peer *peer);
/* The same, but calls that are under way go on until the other side ends the
 * link. */
void pmi_peer_part(pmi_peer *peer);
/* Its end of the link: the id that it has proved. */
const char *pmi_peer_id(const pmi_peer *peer);
/* The proven link that this server has dialled to us becomes server->back. */
void pmi_peer_find_back(pmi_peers *peers, pmi_server *server);
/* May a call be sent? PM_OK (also while the first try is under way), PM_EDOWN.
 */
pm_err pmi_peer_ready(const pmi_peer *peer);
/* PM_ELIMIT: its queue is full. PM_EDROPPED: likewise, and it was dropped by
 * its terms (NULL: it is kept). PM_EDOWN, PM_ESIZE, PM_ENOMEM */
pm_err pmi_peer_send(pmi_peer *peer, const pmi_frame *frame,
                     const pmi_terms *terms);
/* Bytes that wait for it. */
size_t pmi_peer_queued(const pmi_peer *peer);

#endif
