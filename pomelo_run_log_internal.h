/* SPDX-License-Identifier: MIT */
/* pomelo_run_log_internal.h -- where the lines of a process go. */
#ifndef PMI_RUN_LOG_INTERNAL_H
#define PMI_RUN_LOG_INTERNAL_H

#include "core/base.h"
#include "pomelo_config_run_internal.h"

#include <stdio.h>

/* All zero: short lines to stderr. */
typedef struct pmi_run_log {
    pmi_log_rules rules; /* levels borrowed until pmi_run_log_close */
    const char *id;      /* of every line; NULL: the short form */
    FILE *file;          /* owned; NULL: none, or not to be opened now */
    char *path;          /* owned */
    pmi_env heap;
    uint64_t bytes;  /* in the file */
    int64_t tried_s; /* when it was last opened again */
} pmi_run_log;

/* A pm_log_cb; ctx is a pmi_run_log. */
void pmi_run_log_line(void *ctx, pm_log_level level, const char *module,
                      const char *line);
/* From now on by these rules; `id` is the server's, or what the process is
 * called. Borrowed until closed. PM_ENET: the file can not be opened, lines go
 * to stderr, and to the file once it can. PM_ENOMEM */
pm_err pmi_run_log_open(pmi_run_log *log, const pmi_log_rules *rules,
                        const char *id);
void pmi_run_log_close(pmi_run_log *log);

#endif
