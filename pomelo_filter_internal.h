/* SPDX-License-Identifier: MIT */
/* pomelo_filter_internal.h -- before and after chains, error handlers. */
#ifndef PMI_FILTER_INTERNAL_H
#define PMI_FILTER_INTERNAL_H

#include "pomelo_request_internal.h"

typedef struct pmi_filters pmi_filters;
pm_err pmi_filters_new(pm_app *app, pmi_filters **out);
/* The app is freed: the application's own filters are told, and are not called
 * any more. */
void pmi_filters_close(pmi_filters *filters);
void pmi_filters_free(pmi_filters *filters);
/* One of ours: what `ctx` is goes when nobody can stand on it any more. On
 * failure it is released at once. */
pm_err pmi_filter_add(pm_app *app, const pm_filter *filter, void *ctx,
                      void (*release)(void *ctx));

/* Each calls at most one function of the application and returns true when it
 * did (the request is then held until pm_filter_next); false: the stage is
 * through. req->at counts. */
bool pmi_filter_before(pm_request *req, bool global);
bool pmi_filter_after(pm_request *req, bool global);
bool pmi_filter_error(pm_request *req, bool global);

#endif
