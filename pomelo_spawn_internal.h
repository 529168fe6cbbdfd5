/* SPDX-License-Identifier: MIT */
/* pomelo_spawn_internal.h -- the processes that a master has started. */
#ifndef PMI_SPAWN_INTERNAL_H
#define PMI_SPAWN_INTERNAL_H

#include "core/loop.h"

typedef struct pmi_spawn pmi_spawn;

/* A process of ours has ended. Borrowed until the callback returns. */
typedef void (*pmi_spawn_ended_cb)(const char *server_id, bool frontend,
                                   void *ctx);

/* `binary` and `env_name` are borrowed until it is freed. PM_ENOMEM */
pm_err pmi_spawn_new(pmi_spawn **out, pm_loop *loop, const char *binary,
                     const char *env_name, pmi_spawn_ended_cb ended, void *ctx);
/* Forgets the processes; they live on. NULL is fine. */
void pmi_spawn_free(pmi_spawn *spawn);

/* Starts `BINARY [args] --env E --id I`, with `--servers TEXT` behind it when
 * `entry` is not NULL: the server is in no file. PM_EEXIST it runs already;
 * PM_EADDR something listens on one of its ports; PM_ENOTFOUND there is no such
 * program; PM_ECONFIG its args; PM_ELIMIT, PM_ENOMEM */
pm_err pmi_spawn_start(pmi_spawn *spawn, const pm_server *server,
                       const char *entry);
/* Ends a server's process at once: ours, or the one with this pid when its
 * command line says that it is this server. PM_ENOTFOUND, PM_ENOTSUP where
 * there is no pidfd. */
pm_err pmi_spawn_kill(pmi_spawn *spawn, const pm_server *server, int64_t pid);
/* Does a process of ours live that is this server? */
bool pmi_spawn_has(const pmi_spawn *spawn, const char *server_id);
/* How many of our processes live, frontends or the others. */
size_t pmi_spawn_left(const pmi_spawn *spawn, bool frontends);
/* Asks them to stop; each is asked once (a second signal would end it). */
void pmi_spawn_stop(pmi_spawn *spawn, bool frontends);
/* Ends all that are left. */
void pmi_spawn_kill_all(pmi_spawn *spawn);
size_t pmi_spawn_count(const pmi_spawn *spawn);

#endif
