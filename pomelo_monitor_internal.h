/* SPDX-License-Identifier: MIT */
/* pomelo_monitor_internal.h -- a server's end of the link to its master. */
#ifndef PMI_MONITOR_INTERNAL_H
#define PMI_MONITOR_INTERNAL_H

#include "pomelo_cluster_internal.h"
#include "pomelo_facts_internal.h"
#include "pomelo_module_internal.h"

typedef struct pmi_monitor pmi_monitor;
/* Makes nothing without a master's port, or when this app is the master. */
pm_err pmi_monitor_new(pm_app *app, pmi_monitor **out);
/* Dials, and goes on doing so until it is closed. The master need not be there.
 */
void pmi_monitor_start(pmi_monitor *monitor);
/* Asks the master to tell all others that we leave, while we still serve;
 * pmi_app_left follows when they have been told, or it takes too long. False:
 * there is no master to ask. */
bool pmi_monitor_leave(pmi_monitor *monitor);
/* Ends the link. */
void pmi_monitor_close(pmi_monitor *monitor);
void pmi_monitor_free(pmi_monitor *monitor);
bool pmi_monitor_is_up(const pmi_monitor *monitor);
/* Removals of servers that had come back meanwhile; for tests. */
uint64_t pmi_monitor_late_removals(const pmi_monitor *monitor);

#endif
