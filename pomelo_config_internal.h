/* SPDX-License-Identifier: MIT */
/* pomelo_config_internal.h -- Pomelo's files, on an allocator of one's choice.
 */
#ifndef PMI_CONFIG_INTERNAL_H
#define PMI_CONFIG_INTERNAL_H

#include "core/base.h"

/* As pm_config_load and pm_config_parse. `env` is copied. A text need not end
 * with 0. */
pm_err pmi_config_load(const pmi_env *env, const char *dir,
                       const char *env_name, char *why, size_t why_size,
                       pm_config **out);
pm_err pmi_config_parse(const pmi_env *env, pm_slice servers_json,
                        const char *env_name, char *why, size_t why_size,
                        pm_config **out);
/* One entry that somebody says, and no file: `why` names the key alone, and the
 * servers of its clusterCount are numbered from `first`. */
pm_err pmi_config_parse_spoken(const pmi_env *env, pm_slice servers_json,
                               const char *env_name, uint32_t first, char *why,
                               size_t why_size, pm_config **out);

/* ---- For who reads the files beside the table -------------------------- */

struct cJSON;
/* A whole number from 0. It may stand in quotes: Pomelo hands them on as
 * arguments of a command, where nobody sees the difference. */
bool pmi_config_whole(const struct cJSON *node, uint64_t *out);
/* The length of text when it is cut at `max` bytes, between characters. */
int pmi_config_cut(const char *text, size_t max);
/* Makes one line of it, whatever it quotes. */
void pmi_config_one_line(char *why, size_t why_size);

#endif
