/* SPDX-License-Identifier: MIT */
/* pomelo_run_internal.h -- a process, as the files of pm_run see it. */
#ifndef PMI_RUN_INTERNAL_H
#define PMI_RUN_INTERNAL_H

#include "pomelo_app_internal.h"
#include "pomelo_config_run_internal.h"
#include "pomelo_run_log_internal.h"
#include "pomelo_spawn_internal.h"

#include "core/http.h"

typedef struct pmi_run {
    const pm_run_opts *opts;
    pm_loop *loop;
    const pmi_env *env;
    pmi_run_log log;
    pm_config *config, *added; /* owned; NULL: none */
    pmi_run_files files;
    pm_server *servers; /* owned: the table, the master at its end */
    size_t servers_count;
    size_t files_servers; /* the first of them stand in the file */
    pm_app **apps;        /* owned */
    size_t count;
    size_t running; /* apps that have not told yet that they have stopped */
    bool told;      /* a first signal has come */
    void *signals[2];
    pmi_http *page, *stats; /* NULL: none */
    pmi_spawn *spawn;       /* the master's; NULL: this is none */
    pmi_timer patience;     /* for processes that do not stop */
    pmi_timer look;         /* for those that are not our children */
    bool impatient;         /* whoever is left then can not be ended by us */
} pmi_run;

/* Sets what belongs to the master in one app's options. */
void pmi_run_master_opts(pmi_run *run, const pm_server *server,
                         pm_app_opts *opts);
/* Before the apps start. PM_OK also when no master is played. */
pm_err pmi_run_master_begin(pmi_run *run);
/* A signal has come: the master's servers stop, frontends first; then
 * pmi_run_stop_apps. */
void pmi_run_master_stop(pmi_run *run);
/* A second one. */
void pmi_run_master_stop_now(pmi_run *run);
void pmi_run_master_end(pmi_run *run);

void pmi_run_stop_apps(pmi_run *run);
/* One of them, for a console. */
void pmi_run_stop_app(pmi_run *run, pm_app *app, bool at_once);

#endif
