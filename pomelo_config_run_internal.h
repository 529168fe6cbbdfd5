/* SPDX-License-Identifier: MIT */
/* pomelo_config_run_internal.h -- what a process reads beside the table. */
#ifndef PMI_CONFIG_RUN_INTERNAL_H
#define PMI_CONFIG_RUN_INTERNAL_H

#include "core/base.h"

/* config/log.json. */
typedef struct pmi_log_rules {
    pm_log_level most;  /* the loudest of level and levels; 0: not told */
    pm_log_level level; /* 0: not told */
    const struct cJSON *levels;   /* by module; NULL: none */
    const char *file;             /* NULL: stderr alone */
    uint64_t max_bytes, keep;     /* of one file; how many old ones */
    bool json;                    /* one object a line */
    bool to_stderr, stderr_given; /* beside the file */
} pmi_log_rules;

/* The loudest that a module may be. */
pm_log_level pmi_log_rules_level(const pmi_log_rules *rules,
                                 const char *module);

/* config/pomelo.json: what `pomelo start` runs, the page, and where the numbers
 * are told. */
typedef struct pmi_start_rules {
    const char *binary;              /* NULL: not told */
    const char *web_root, *web_host; /* root NULL: no page */
    uint16_t web_port;
    const char *stats_host; /* NULL: not told */
    uint16_t stats_port;    /* 0: not told */
} pmi_start_rules;

typedef struct pmi_run_files {
    const pmi_env *env;     /* borrowed */
    struct cJSON *trees[6]; /* owned; all texts below lie in them */
    size_t trees_count;
    pm_server master;       /* id NULL: there is no master.json */
    pm_admin_token *tokens; /* owned, like the two below */
    size_t tokens_count;
    pm_admin_user *users;
    size_t users_count;
    const char **dictionary;
    size_t dictionary_count;
    pmi_log_rules log;
    pmi_start_rules start;
} pmi_run_files;

/* Reads config's siblings, which stay borrowed. PM_ECONFIG with one sentence in
 * `why`, PM_ENOMEM; pmi_run_files_free is due in any case. */
pm_err pmi_run_files_read(pmi_run_files *files, const pmi_env *env,
                          const pm_config *config, char *why, size_t why_size);
void pmi_run_files_free(pmi_run_files *files);

/* Is there something in serverProtos.json or clientProtos.json that encoding
 * would pass over? PM_ECONFIG, PM_ENOMEM as above. A file that is not there is
 * fine. */
pm_err pmi_run_protos_look_at(const pmi_env *env, const pm_config *config,
                              const char *name, char *why, size_t why_size);

/* The `args` of a server: *out has a NULL at its end and lies, with its texts,
 * in one block that is the caller's to pmi_free. PM_ECONFIG, PM_ENOMEM */
pm_err pmi_run_server_args(const pmi_env *env, const pm_server *server,
                           char ***out, size_t *count);

#endif
