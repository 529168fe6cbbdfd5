/* SPDX-License-Identifier: MIT */
/* pomelo_stats_internal.h -- every number of an app, told. */
#ifndef PMI_STATS_INTERNAL_H
#define PMI_STATS_INTERNAL_H

#include "core/stats.h"

/* Appends Prometheus's text of apps of one loop. What fails shows in
 * out->failed. */
void pmi_stats_prometheus(pm_app *const *apps, size_t count, pmi_buf *out);
/* Appends the members of a JSON object: what is not 0, by name and labels;
 * times as objects, in microseconds. */
void pmi_stats_json(pm_app *app, pmi_buf *out);

#endif
