/* SPDX-License-Identifier: MIT */
/* pomelo_filter_internal.h -- before and after chains, error handlers. */
#ifndef PMI_FILTER_INTERNAL_H
#define PMI_FILTER_INTERNAL_H

#include "pomelo_request_internal.h"

typedef struct pmi_filters pmi_filters;
pm_err pmi_filters_new(pm_app *app, pmi_filters **out);
void pmi_filters_free(pmi_filters *filters);

/* Each calls at most one function of the application and returns true when it
 * did (the request is then held until pm_filter_next); false: the stage is
 * through. req->at counts. */
bool pmi_filter_before(pm_request *req, bool global);
bool pmi_filter_after(pm_request *req, bool global);
bool pmi_filter_error(pm_request *req, bool global);
/* Does anybody look at answers before they are sent? */
bool pmi_filter_watches(const pmi_filters *filters);

#endif
