/* SPDX-License-Identifier: MIT */
/* pomelo_opts_internal.h -- options that hold texts of their own: copied, and
 * given back. */
#ifndef PMI_OPTS_INTERNAL_H
#define PMI_OPTS_INTERNAL_H

#include "pomelo_app_internal.h"

/* Makes the three texts ours; to be freed in any case. *err becomes PM_ENOMEM
 * when there is no memory, and is left alone otherwise. */
void pmi_certs_copy(const pmi_env *env, pm_tls_opts *tls, pm_err *err);
void pmi_certs_free(const pmi_env *env, const pm_tls_opts *tls);
/* With every default filled in; to be freed in any case. PM_EINVAL an entry
 * without a name or a secret; PM_ENOMEM */
pm_err pmi_master_opts_copy(const pmi_env *env, pm_master_opts *to,
                            const pm_master_opts *from);
void pmi_master_opts_free(const pmi_env *env, const pm_master_opts *opts);

#endif
