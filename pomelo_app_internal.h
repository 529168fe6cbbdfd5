/* SPDX-License-Identifier: MIT */
/* pomelo_app_internal.h -- what a module may know of the app it lives in: a few
 * getters, implemented in pomelo.c. Modules reach each other through them and
 * never through pomelo.c's struct. */
#ifndef PMI_APP_INTERNAL_H
#define PMI_APP_INTERNAL_H

#include "core/loop.h"

typedef enum pmi_app_state {
    PMI_APP_NEW, /* registering */
    PMI_APP_RUNNING,
    PMI_APP_STOPPING, /* draining */
    PMI_APP_STOPPED,
    PMI_APP_FREED /* being torn down: nothing may start any more */
} pmi_app_state;

/* The app's own log on the loop's allocator. Borrowed until the app is freed.
 */
const pmi_env *pmi_app_env(const pm_app *app);
pmi_app_state pmi_app_state_of(const pm_app *app);
/* Options with every default filled in. */
const pm_limits *pmi_app_limits(const pm_app *app);
const pm_connector_opts *pmi_app_connector_opts(const pm_app *app);
const pm_rpc_opts_app *pmi_app_rpc_opts(const pm_app *app);
const pm_master_opts *pmi_app_master_opts(const pm_app *app);
/* The certificates that the app was given last: pomelo_opts changes them. */
void pmi_app_certs(pm_app *app, pm_tls_opts **clients, pm_tls_opts **servers);
const char *pmi_app_client_bind(const pm_app *app); /* may be NULL */
const char *pmi_app_rpc_bind(const pm_app *app);

/* Whose bytes a connection's are: pmi_conn_limits.tally. */
enum {
    PMI_TRAFFIC_OTHER, /* pm_client's and consoles' */
    PMI_TRAFFIC_CLIENTS,
    PMI_TRAFFIC_PEERS,
    PMI_TRAFFIC_ADMIN,
    PMI_TRAFFIC_HTTP,
    PMI_TRAFFIC_COUNT
};

/* Its numbers: pomelo_count_internal.h. */
struct pmi_counts *pmi_app_counts(const pm_app *app);

/* The modules. Each is made in pm_app_new in the order of SRCS and freed in
 * reverse. */
struct pmi_cluster *pmi_app_cluster(const pm_app *app);
struct pmi_rpc *pmi_app_rpc(const pm_app *app);
struct pmi_router *pmi_app_router(const pm_app *app);
struct pmi_remotes *pmi_app_remotes(const pm_app *app);
struct pmi_sessions *pmi_app_sessions(const pm_app *app);
struct pmi_channels *pmi_app_channels(const pm_app *app);
struct pmi_requests *pmi_app_requests(const pm_app *app);
struct pmi_filters *pmi_app_filters(const pm_app *app);
struct pmi_handlers *pmi_app_handlers(const pm_app *app);
struct pmi_resumes *pmi_app_resumes(const pm_app *app);
struct pmi_connector *pmi_app_connector(const pm_app *app);
struct pmi_crons *pmi_app_crons(const pm_app *app);
struct pmi_modules *pmi_app_modules(const pm_app *app);
struct pmi_master *pmi_app_master(const pm_app *app);   /* or NULL */
struct pmi_monitor *pmi_app_monitor(const pm_app *app); /* or NULL */

/* Listeners of pm_app_events. */
void pmi_app_session_opened(pm_app *app, pm_session *session);
void pmi_app_session_bound(pm_app *app, pm_session *session);
void pmi_app_session_unbound(pm_app *app, pm_session *session, const char *uid);
void pmi_app_session_closed(pm_app *app, pm_session *session,
                            pm_close_reason reason);
void pmi_app_session_suspended(pm_app *app, pm_session *session,
                               pm_close_reason reason);
void pmi_app_session_resumed(pm_app *app, pm_session *session);
void pmi_app_session_drained(pm_app *app, pm_session *session);
void pmi_app_server_drained(pm_app *app, const pm_server *server);
void pmi_app_server_added(pm_app *app, const pm_server *server);
void pmi_app_server_removed(pm_app *app, const char *id);
void pmi_app_server_up(pm_app *app, const pm_server *server);
void pmi_app_server_down(pm_app *app, const pm_server *server);
void pmi_app_all_started(pm_app *app);
void pmi_app_cron_added(pm_app *app, const pm_cron *cron);
void pmi_app_cron_removed(pm_app *app, const pm_cron *cron);
/* The others have been told that this app leaves (pmi_monitor_leave). */
void pmi_app_left(pm_app *app);
/* A draining app asks its modules whether they are idle; a module that has just
 * become idle says so. */
void pmi_app_check_drained(pm_app *app);

#endif
