/* SPDX-License-Identifier: MIT */
/* pomelo_remote_internal.h -- the application's own calls between servers:
 * remotes, pm_rpc_*, their filters. */
#ifndef PMI_REMOTE_INTERNAL_H
#define PMI_REMOTE_INTERNAL_H

#include "pomelo_rpc_internal.h"

typedef struct pmi_remotes pmi_remotes;
/* Registers what it serves (PMI_OP_CALL). */
pm_err pmi_remotes_new(pm_app *app, pmi_remotes **out);
/* The app is freed, perhaps by a filter of a call that is being told: its
 * caller hears it now. */
void pmi_remotes_close(pmi_remotes *remotes);
void pmi_remotes_free(pmi_remotes *remotes);
/* Of "type.service.method", three non-empty parts and 255 bytes at most, the
 * length of the first; else 0. NULL is fine. */
size_t pmi_remotes_type_len(const char *method);

/* How long calls take: on the caller's side until they have completed, where
 * they are served until they are answered. NULL: none has. */
typedef struct pmi_remote_times {
    pmi_histogram *asked, *served;
} pmi_remote_times;
/* Every method that was registered, in that order; at the end, with method
 * NULL, all others together. each returns false to stop. */
void pmi_remotes_each(pmi_remotes *remotes,
                      bool (*each)(const char *method,
                                   const pmi_remote_times *times, void *ctx),
                      void *ctx);

#endif
