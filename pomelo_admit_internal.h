/* SPDX-License-Identifier: MIT */
/* pomelo_admit_internal.h -- who may come in: blocks of addresses that are
 * refused, connections a second of an address, overload; and which proxies are
 * believed when they say whom they speak for. */
#ifndef PMI_ADMIT_INTERNAL_H
#define PMI_ADMIT_INTERNAL_H

#include "core/conn.h"
#include "pomelo_app_internal.h"

typedef struct pmi_admit pmi_admit;
/* PM_ECONFIG a text of the options is no block; PM_ENOMEM */
pm_err pmi_admit_new(pm_app *app, pmi_admit **out);
void pmi_admit_free(pmi_admit *admit);

/* A connection has come, from a player or from a proxy. PM_CLOSE_NONE: it may
 * stay. The application is asked last, and may end us. */
pm_close_reason pmi_admit_ask(pmi_admit *admit, const pmi_addr *peer);
/* Does this peer tell whom it speaks for? What it then says is set as the
 * connection's peer and asked for as above. PM_ENOMEM */
pm_err pmi_admit_front(pmi_admit *admit, pmi_conn *conn);

/* Refuses this block from now on, or no longer: pmi_cidrs_add and _remove. */
pm_err pmi_admit_block(pmi_admit *admit, const char *block);
pm_err pmi_admit_unblock(pmi_admit *admit, const char *block);
/* Addresses that are remembered now. */
uint32_t pmi_admit_addresses(const pmi_admit *admit);

#endif
