/* SPDX-License-Identifier: MIT */
/* pomelo_call_internal.h -- being asked: the calls that this server has to
 * answer.
 *
 * A pm_call belongs to the accepted link that it came on (or to this server
 * itself) until its holder ends it; when the link goes first, what is answered
 * goes nowhere. */
#ifndef PMI_CALL_INTERNAL_H
#define PMI_CALL_INTERNAL_H

#include "pomelo_peer_internal.h"
#include "pomelo_rpc_internal.h"

typedef struct pmi_asked {
    pm_app *app;
    const pmi_env *env;
    uint32_t serving; /* asked and not ended */
    pmi_spares spares;
    pmi_link own;  /* calls that this server makes to itself */
    pmi_link lost; /* calls whose link has gone, not ended yet */
    pm_call *now;  /* the one whose frame is being served just now */
    void (*serve[PMI_OP_COUNT])(pm_app *app, pm_call *call);
    /* An answer to a call of our own. PM_ECLOSED: nobody waits for it. */
    pm_err (*answer_self)(pm_app *app, uint64_t id, const pmi_frame *frame);
} pmi_asked;

void pmi_asked_init(pmi_asked *asked, pm_app *app);
/* A CALL frame on an accepted link: serves it. */
void pmi_asked_frame(pmi_asked *asked, pmi_peer *peer, const pmi_frame *frame);
/* A call to ourselves: served on a later turn. self_id: the asking call's
 * number; UINT64_MAX for a notify. Everything is copied. PM_ENOMEM */
pm_err pmi_asked_self(pmi_asked *asked, const pmi_rpc_send_opts *opts,
                      uint64_t self_id);
/* The link is gone: nobody will hear its calls' answers. They are ours until
 * they are ended. */
void pmi_asked_lost(pmi_asked *asked, pmi_link *calls);
/* Likewise, and the app goes too: what is still held afterwards is cut off. */
void pmi_asked_cut(pmi_asked *asked, pmi_link *calls);
void pmi_asked_fini(pmi_asked *asked);
/* Where the holder of the app finds it. */
pmi_asked *pmi_rpc_asked(pmi_rpc *rpc);
/* The links and what was refused on them, to look at. */
const pmi_peers *pmi_rpc_peers(const pmi_rpc *rpc);

#endif
