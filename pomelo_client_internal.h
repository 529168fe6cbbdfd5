/* SPDX-License-Identifier: MIT */
/* pomelo_client_internal.h -- what a client has learnt from its server: numbers
 * of routes and schemas of bodies; and what it keeps for the time when its
 * connection is lost. Bytes and trees only: no clock.
 *
 * The lore outlives the connections of one client: at the next handshake the
 * versions are told, and a server that has the same ones sends neither again.
 */
#ifndef PMI_CLIENT_INTERNAL_H
#define PMI_CLIENT_INTERNAL_H

#include "core/conn.h"
#include "core/map.h"
#include "core/window.h"
#include "pomelo_dialect_internal.h"
#include "pomelo_proto_internal.h"

typedef struct pmi_client_lore {
    const pmi_env *env;  /* borrowed */
    uint64_t k0, k1;     /* keys of the maps */
    pmi_map codes;       /* route -> code */
    pmi_map routes;      /* code -> route, owned */
    char *dict_version;  /* owned; NULL: not to be asked for again */
    pmi_dialect *client; /* of what we send; NULL: none */
    pmi_dialect *server; /* of what the server sends; NULL: none */
    char *proto_version; /* owned; NULL likewise */
} pmi_client_lore;

void pmi_client_lore_init(pmi_client_lore *lore, const pmi_env *env,
                          uint64_t k0, uint64_t k1);
void pmi_client_lore_fini(pmi_client_lore *lore);

/* Members for a handshake's sys: ,"dictVersion":..,"protoVersion":.. or less.
 */
void pmi_client_lore_tell(const pmi_client_lore *lore, pmi_buf *out);
/* `sys` of the server's answer: what it sends replaces what was known; what it
 * has in use but does not send is known already; the rest is forgotten.
 * PM_ENOMEM; PM_EHANDSHAKE: schemas that can not be. Nothing has changed then.
 */
pm_err pmi_client_lore_learn(pmi_client_lore *lore, const struct cJSON *sys);

uint16_t pmi_client_lore_code(const pmi_client_lore *lore,
                              pm_slice route); /* 0: none */
/* NULL: none. Borrowed until the next learning. At most PMI_ROUTE_MAX bytes. */
const char *pmi_client_lore_route(const pmi_client_lore *lore, uint16_t code);

/* Bytes of a body as they travel: *out lies in `body` or in `store`. PM_EJSON,
 * PM_EDEPTH, PM_ENUL, PM_EPROTOBUF, PM_ENOMEM */
pm_err pmi_client_lore_encode(const pmi_client_lore *lore, pm_slice route,
                              pm_body body, pmi_buf *store, pm_slice *out);
/* The way back: *out lies in `bytes` or in `store`. PM_EPROTOBUF, PM_EDEPTH,
 * PM_ENUL, PM_ENOMEM */
pm_err pmi_client_lore_decode(const pmi_client_lore *lore, pm_slice route,
                              pm_slice bytes, pmi_buf *store, pm_body *out);

/* ---- Resume: pomelo_client_resume.c ------------------------------------ */
#define PMI_CLIENT_TOKEN_MAX 128

typedef struct pmi_client_resume {
    pmi_window window; /* DATA packages that we have sent */
    uint64_t received; /* DATA packages that came */
    uint64_t due_us;   /* suspended: when we give up */
    uint32_t ms;       /* how long the server waits */
    bool suspended;    /* the session has no connection, and that was told */
    char token[PMI_CLIENT_TOKEN_MAX + 1]; /* "": there is nothing to resume */
} pmi_client_resume;

void pmi_client_resume_init(pmi_client_resume *resume, pm_loop *loop);
/* May the session go on when its connection has ended like this? */
bool pmi_client_resume_survives(pm_close_reason why);
/* As new; nothing is held any more. */
void pmi_client_resume_forget(pmi_client_resume *resume);
/* `{..}`, or nothing, becomes the end of an object that has a member. */
void pmi_client_resume_join(pmi_buf *user);
/* The member for the handshake's user part. */
void pmi_client_resume_tell(const pmi_client_resume *resume, pmi_buf *out);
/* Does the answer mean the end of the session that there is? */
bool pmi_client_resume_over(const pmi_client_resume *resume,
                            const struct cJSON *answer);
/* An answer that does not, or after forgetting: what is left in the window is
 * to be sent (again). Takes the member out of the tree. PM_EHANDSHAKE: it makes
 * no sense. */
pm_err pmi_client_resume_learn(pmi_client_resume *resume, struct cJSON *answer,
                               bool *resumed);
/* Sends again what is in the window. The connection's own failures. */
pm_err pmi_client_resume_replay(const pmi_client_resume *resume,
                                pmi_conn *conn);

#endif
