/* SPDX-License-Identifier: MIT */
/* pomelo_count_internal.h -- what an app counts: one table, one line a number.
 *
 * To count something new, add a line to PMI_COUNTS (and to
 * PMI_COUNT_FAMILIES when it is of no family yet), and where it happens say
 *
 *     pmi_count(app, PMI_COUNT_REFUSED_ROUTE);
 *
 * That is all: Prometheus, the console and pm_stats_each tell it. A line has a
 * test that moves it: tools/moved.sh lists those that have none. What is
 * counted by close reason, and gauges, which are read off the modules when
 * somebody asks, stand in pomelo_stats.c. */
#ifndef PMI_COUNT_INTERNAL_H
#define PMI_COUNT_INTERNAL_H

#include "core/stats.h"
#include "pomelo_app_internal.h"

/* X(family, name, label or NULL, help) */
#define PMI_COUNT_FAMILIES(X)                                                  \
    X(HANDSHAKES, "pomelo_handshakes_total", "code",                           \
      "Handshakes of clients by the code of the answer.")                      \
    X(REQUESTS, "pomelo_requests_total", "result",                             \
      "Requests and notifies of clients by how they ended here.")              \
    X(REFUSED, "pomelo_messages_refused_total", "reason",                      \
      "Messages of clients that no handler has seen.")                         \
    X(PAUSES, "pomelo_reading_paused_total", "reason",                         \
      "How often a client was not read for a while.")                          \
    X(FILTERED, "pomelo_filter_total", "filter",                               \
      "Requests that a built-in filter refused (timeout: logged).")            \
    X(PUSHES, "pomelo_session_pushes_total", NULL,                             \
      "Messages pushed to one session of this frontend.")                      \
    X(RESUMES, "pomelo_resume_total", "event",                                 \
      "Sessions that lost their connection, found another one, or did not.")   \
    X(DROPPED, "pomelo_pushes_dropped_total", "why",                           \
      "Pushes to slow clients that were dropped by their policies.")           \
    X(DRAINED, "pomelo_sessions_drained_total", NULL,                          \
      "How often a slow client has taken all that waited for it.")             \
    X(LINKS_FULL, "pomelo_link_queue_full_total", "what",                      \
      "What found the queue of a link to another server full.")                \
    X(CALLS, "pomelo_rpc_calls_total", "result",                               \
      "Calls to other servers by how they completed.")                         \
    X(NOTIFIES, "pomelo_rpc_notifies_total", NULL,                             \
      "Calls to other servers that want no answer.")                           \
    X(SERVED, "pomelo_rpc_served_total", "operation",                          \
      "Calls of other servers by what they asked for.")                        \
    X(UNSERVED, "pomelo_rpc_refused_total", "reason",                          \
      "Calls of other servers that nothing here answers.")                     \
    X(REGISTERED, "pomelo_monitor_registered_total", NULL,                     \
      "How often this server has registered at its master.")                   \
    X(MASTER, "pomelo_master_total", "event",                                  \
      "What the master has done, and refused.")

/* X(number, family, value of the label); a family's lines stand together. */
#define PMI_COUNTS(X)                                                          \
    X(HANDSHAKE_200, HANDSHAKES, "200")                                        \
    X(HANDSHAKE_500, HANDSHAKES, "500")                                        \
    X(HANDSHAKE_501, HANDSHAKES, "501")                                        \
    X(REQUEST_ANSWERED, REQUESTS, "answered")                                  \
    X(REQUEST_FAILED, REQUESTS, "failed")                                      \
    X(REQUEST_DROPPED, REQUESTS, "dropped")                                    \
    X(REQUEST_TIMEOUT, REQUESTS, "timeout")                                    \
    X(REQUEST_CLOSED, REQUESTS, "closed")                                      \
    /* neither request, notify nor push */                                     \
    X(REFUSED_TYPE, REFUSED, "type")                                           \
    /* no dot, or a number that nobody has: no answer */                       \
    X(REFUSED_ROUTE, REFUSED, "route")                                         \
    /* not three parts: 500 */                                                 \
    X(REFUSED_SHAPE, REFUSED, "shape")                                         \
    /* no such handler: 500 */                                                 \
    X(REFUSED_METHOD, REFUSED, "method")                                       \
    /* its schema or signature does not fit: no answer */                      \
    X(REFUSED_BODY, REFUSED, "body")                                           \
    /* the server drains: 500 */                                               \
    X(REFUSED_STOPPING, REFUSED, "stopping")                                   \
    /* the loop lags: 503 */                                                   \
    X(REFUSED_LAG, REFUSED, "lag")                                             \
    /* too many from one session: 503 */                                       \
    X(REFUSED_RATE, REFUSED, "rate")                                           \
    /* the frontend has other schemas than we: 500 */                          \
    X(REFUSED_PROTOS, REFUSED, "protos")                                       \
    /* too many requests of it */                                              \
    X(PAUSED_IN_FLIGHT, PAUSES, "in flight")                                   \
    /* over its rate */                                                        \
    X(PAUSED_RATE, PAUSES, "rate")                                             \
    /* it does not read its answers */                                         \
    X(PAUSED_QUEUE, PAUSES, "queue")                                           \
    X(FILTER_TOOBUSY, FILTERED, "toobusy")                                     \
    X(FILTER_SERIAL, FILTERED, "serial")                                       \
    X(FILTER_TIMEOUT, FILTERED, "timeout")                                     \
    X(PUSH_SESSION, PUSHES, NULL)                                              \
    X(RESUME_SUSPENDED, RESUMES, "suspended")                                  \
    X(RESUME_RESUMED, RESUMES, "resumed")                                      \
    X(RESUME_REFUSED, RESUMES, "refused")                                      \
    /* in the order of pmi_drop */                                             \
    X(DROPPED_OLDEST, DROPPED, "oldest")                                       \
    X(DROPPED_NEW, DROPPED, "new")                                             \
    X(DROPPED_REPLACED, DROPPED, "replaced")                                   \
    X(DRAINED_SESSION, DRAINED, NULL)                                          \
    /* a call, an answer, a push that is kept: PM_ELIMIT */                    \
    X(LINK_REFUSED, LINKS_FULL, "refused")                                     \
    X(LINK_DROPPED, LINKS_FULL, "dropped push")                                \
    X(CALL_OK, CALLS, "PM_OK")                                                 \
    X(CALL_ENOSERVER, CALLS, "PM_ENOSERVER")                                   \
    X(CALL_EDOWN, CALLS, "PM_EDOWN")                                           \
    X(CALL_ETIMEOUT, CALLS, "PM_ETIMEOUT")                                     \
    X(CALL_ECLOSED, CALLS, "PM_ECLOSED")                                       \
    X(CALL_ENOMETHOD, CALLS, "PM_ENOMETHOD")                                   \
    X(CALL_EREMOTE, CALLS, "PM_EREMOTE")                                       \
    X(CALL_ECANCELED, CALLS, "PM_ECANCELED")                                   \
    X(CALL_OTHER, CALLS, "other")                                              \
    X(NOTIFY, NOTIFIES, NULL)                                                  \
    /* in the order of pmi_op */                                               \
    X(SERVED_CALL, SERVED, "call")                                             \
    X(SERVED_FORWARD, SERVED, "forward")                                       \
    X(SERVED_SESSION, SERVED, "session")                                       \
    X(SERVED_PUSH, SERVED, "push")                                             \
    X(SERVED_BROADCAST, SERVED, "broadcast")                                   \
    X(SERVED_PRESENCE, SERVED, "presence")                                     \
    X(UNSERVED_OPERATION, UNSERVED, "operation")                               \
    X(UNSERVED_METHOD, UNSERVED, "method")                                     \
    X(UNSERVED_MEMORY, UNSERVED, "memory")                                     \
    X(MONITOR_REGISTERED, REGISTERED, NULL)                                    \
    X(MASTER_REGISTERED, MASTER, "registered")                                 \
    X(MASTER_CONSOLE, MASTER, "console")                                       \
    X(MASTER_REFUSED_AUTH, MASTER, "refused auth")                             \
    X(MASTER_REFUSED_JSON, MASTER, "refused json")                             \
    X(MASTER_REFUSED_FRAME, MASTER, "refused frame")                           \
    X(MASTER_REFUSED_LEVEL, MASTER, "refused level")                           \
    X(MASTER_REFUSED_LINK, MASTER, "refused link")                             \
    X(MASTER_LATE_REMOVAL, MASTER, "late removal")                             \
    X(MASTER_SPAWNED, MASTER, "spawned")                                       \
    X(MASTER_RESPAWNED, MASTER, "respawned")

typedef enum pmi_count_family {
#define PMI_COUNT_FAMILY_ENUM(family, name, label, help) PMI_FAMILY_##family,
    PMI_COUNT_FAMILIES(PMI_COUNT_FAMILY_ENUM)
#undef PMI_COUNT_FAMILY_ENUM
        PMI_FAMILY_COUNT
} pmi_count_family;

typedef enum pmi_count_what {
#define PMI_COUNT_ENUM(number, family, value) PMI_COUNT_##number,
    PMI_COUNTS(PMI_COUNT_ENUM)
#undef PMI_COUNT_ENUM
        PMI_COUNT_END
} pmi_count_what;

/* A number of the application's own. */
typedef struct pmi_own_stat {
    pmi_link link;
    pm_stat_kind kind;
    uint64_t value;
    const char *help; /* behind the name; NULL: none */
    char name[];
} pmi_own_stat;

/* What ended in this turn and began at the same time. */
typedef struct pmi_count_run {
    pmi_histogram *times;
    uint64_t since_us;
    uint32_t count;
} pmi_count_run;
enum { PMI_COUNT_RUNS = 16, PMI_OWN_STATS_MAX = 256 };

/* One an app, in its storage. */
typedef struct pmi_counts {
    pm_loop *loop;      /* borrowed */
    const pmi_env *env; /* borrowed: the app's */
    uint64_t n[PMI_COUNT_END];
    pmi_link own; /* pmi_own_stat, in the order of pm_app_stat */
    uint32_t own_count;
    uint32_t runs_count;
    pmi_count_run runs[PMI_COUNT_RUNS];
    pmi_task settle;
} pmi_counts;

void pmi_counts_init(pmi_counts *counts, pm_loop *loop, const pmi_env *env);
void pmi_counts_fini(pmi_counts *counts);

static inline void pmi_count(pm_app *app, pmi_count_what what)
{
    pmi_app_counts(app)->n[what]++;
}
/* How a call has completed. */
void pmi_count_failed(pm_app *app, pm_err err);
static inline void pmi_count_call(pm_app *app, pm_err err)
{
    if (err)
        pmi_count_failed(app, err);
    else
        pmi_count(app, PMI_COUNT_CALL_OK);
}
/* What began at since_us has ended. It is measured at the end of this turn,
 * when its answer leaves, and the clock is read once for all of them. *times is
 * made when it is NULL (without memory nothing is measured) and is the
 * caller's to pmi_free, after pmi_counts_fini. */
void pmi_count_time(pmi_counts *counts, pmi_histogram **times,
                    uint64_t since_us);

#endif
