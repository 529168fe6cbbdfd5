/* SPDX-License-Identifier: MIT */
/* pomelo_cron_internal.h -- what an app does by the clock on the wall. */
#ifndef PMI_CRON_INTERNAL_H
#define PMI_CRON_INTERNAL_H

#include "pomelo_app_internal.h"

typedef struct pmi_crons pmi_crons;

/* `text` is a crons.json, or NULL. What is wrong in it is logged: PM_ECONFIG;
 * PM_ENOMEM. */
pm_err pmi_crons_new(pm_app *app, const char *text, pmi_crons **out);
void pmi_crons_free(pmi_crons *crons);
/* What is wrong in the text of a crons.json goes to `why`: PM_ECONFIG;
 * PM_ENOMEM. */
pm_err pmi_crons_look_at(const pmi_env *env, const char *text, char *why,
                         size_t why_size);
/* Before the ports open: has each cron its job? PM_ECONFIG */
pm_err pmi_crons_check(pmi_crons *crons);
/* The app runs: they begin. No timer while there is none. */
void pmi_crons_start(pmi_crons *crons);
/* None runs any more; pmi_crons_start may follow. */
void pmi_crons_close(pmi_crons *crons);
/* A console's {"id","time","action"}. As pm_cron_add and pm_cron_remove; an
 * error is logged, and told in `why`. */
pm_err pmi_crons_told(pmi_crons *crons, const struct cJSON *cron, bool add,
                      char *why, size_t why_size);
/* Appends [{"id","time","action","next"}, ...]; next is in milliseconds since
 * 1970, null when it never comes again. */
void pmi_crons_print(pmi_crons *crons, pmi_buf *out);

#endif
