/* SPDX-License-Identifier: MIT */
/* pomelo_client_internal.h -- what a client has learnt from its server: numbers
 * of routes and schemas of bodies. Bytes and trees only: no clock, no socket.
 *
 * It outlives the connections of one client: at the next handshake the versions
 * are told, and a server that has the same ones sends neither again. */
#ifndef PMI_CLIENT_INTERNAL_H
#define PMI_CLIENT_INTERNAL_H

#include "core/map.h"
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

#endif
