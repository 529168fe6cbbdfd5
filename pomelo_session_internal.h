/* SPDX-License-Identifier: MIT */
/* pomelo_session_internal.h -- sessions: the thing itself on a frontend, a view
 * on a backend. Knows no connection: what must reach the client goes through a
 * small table of functions that the connector hands in. */
#ifndef PMI_SESSION_INTERNAL_H
#define PMI_SESSION_INTERNAL_H

#include "core/json.h"
#include "pomelo_rpc_internal.h"

typedef struct pmi_sessions pmi_sessions;

#define PMI_UID_MAX 255
#define PMI_SETTINGS_MAX (16 * 1024)
/* As JSON text they are longer: a byte of a name may print as six, and each
 * member has quotes and a colon. */
#define PMI_SETTINGS_TEXT_MAX (8 * PMI_SETTINGS_MAX)
/* They travel as the members of an object: one level is its own. */
#define PMI_SETTINGS_DEPTH_MAX (PMI_JSON_DEPTH_MAX - 1)

/* The first byte of a PMI_OP_PUSH's `extra` says how receivers are named. */
enum {
    PMI_PUSH_BY_SID = 1, /* one session id, 8 bytes */
    PMI_PUSH_BY_UIDS = 2 /* uids, each length (1) and bytes */
};

/* How a push waits for a client who is slow, as whoever pushes says it. It
 * travels beside the receivers: policy (1), key; all default: nothing. */
typedef struct pmi_manner {
    pm_push_policy policy;
    pm_slice key; /* at most PMI_MANNER_KEY_MAX bytes */
} pmi_manner;
enum { PMI_MANNER_KEY_MAX = 255, PMI_MANNER_BYTES = 1 + PMI_MANNER_KEY_MAX };
/* PM_EINVAL: no such policy, a key that is too long. */
pm_err pmi_manner_make(pm_push_policy policy, const char *key, pmi_manner *out);
pm_slice pmi_manner_write(const pmi_manner *manner,
                          uint8_t room[PMI_MANNER_BYTES]);
/* Refers to the bytes. PM_EFRAME */
pm_err pmi_manner_read(pm_slice bytes, pmi_manner *out);

/* The way down to the client (a frontend's session only). */
typedef struct pmi_session_ops {
    pm_err (*push)(pm_session *session, pm_slice route, pm_body body,
                   const pmi_manner *manner);
    /* reason NULL: without a KICK package. */
    void (*kick)(pm_session *session, const char *reason, pm_close_reason why);
    /* A request has ended: there is room for another. */
    void (*relaxed)(pm_session *session);
    const char *(*address)(const pm_session *session,
                           char out[PMI_ADDR_TEXT_MAX]);
    size_t (*queued)(const pm_session *session);
    uint32_t (*dropped)(const pm_session *session);
} pmi_session_ops;

/* One a player; idle ones are many: keep it small. */
struct pm_session {
    pm_app *app; /* NULL after the app was freed */
    pm_loop *loop;
    const pmi_session_ops *ops; /* NULL: a backend's view */
    void *conn; /* a pmi_downlink, or a pmi_resume; NULL when closed */
    uint64_t id;
    char *uid; /* NULL: unbound; pomelo_session.c knows where it lies */
    union {
        const char *frontend_id; /* of a view: behind it, in its storage */
        char *address;           /* on the frontend: owned; when asked for */
    };
    struct cJSON *settings; /* owned; NULL: none yet */
    void *data;
    pmi_link in_app;   /* every session object of the app */
    pmi_link requests; /* pm_request.in_session */
    uint32_t refs;
    uint32_t in_flight;
    uint32_t settings_bytes; /* names and printed values, for the limit */
    bool measured;           /* settings_bytes is known */
    bool closed;
    bool spare;   /* a view whose storage serves the next one */
    bool resumes; /* it may live without a connection: `conn` is a pmi_resume */
};

pm_err pmi_sessions_new(pm_app *app, pmi_sessions **out);
/* Callbacks that wait are told PM_ECLOSED; what the application still holds is
 * cut off from the app. */
void pmi_sessions_close(pmi_sessions *sessions);
void pmi_sessions_free(pmi_sessions *sessions);
/* Registers what it serves (PMI_OP_SESSION). */
void pmi_sessions_serve(pm_app *app);

/* A frontend's session with one reference, in the table. PM_ENOMEM */
pm_err pmi_session_open(pmi_sessions *sessions, const pmi_session_ops *ops,
                        void *conn, pm_session **out);
/* The connection has gone: out of the tables, requests cancelled by the caller
 * before, the event emitted. The reference of open stays the caller's to unref.
 */
void pmi_session_close(pm_session *session, pm_close_reason reason);
/* Its client is now somewhere else: the address is to be asked for anew. */
void pmi_session_moved(pm_session *session);
/* pm_session_push, in this manner. */
pm_err pmi_session_push(pm_session *session, const char *route, pm_body body,
                        const pmi_manner *manner);
/* Who is told when the last session of a uid has gone or is unbound, in the
 * middle of it: nothing may be done to sessions in there. One listener. */
void pmi_sessions_on_gone(pmi_sessions *sessions,
                          void (*gone)(void *ctx, pm_slice uid), void *ctx);
size_t pmi_sessions_count(const pmi_sessions *sessions);
size_t pmi_sessions_bound(const pmi_sessions *sessions);

/* The session as it travels with a forwarded request, appended: sid, frontend
 * id, uid, settings. And back: a view with one reference. PM_EFRAME, PM_ENOMEM
 */
void pmi_session_export(const pm_session *session, pmi_buf *out);
pm_err pmi_session_import(pm_app *app, pm_slice in, pm_session **out);
/* Sessions of a uid on this frontend; walk with pmi_session_next_same_uid until
 * NULL. */
pm_session *pmi_session_first_of(pmi_sessions *sessions, pm_slice uid);
pm_session *pmi_session_next_of(pm_session *session, pm_session *first);

/* ---- Between pomelo_session.c and pomelo_session_far.c ----------------- */
/* A callback that is due on a later turn. */
typedef struct pmi_session_done {
    pmi_task task;
    pmi_link link;
    pmi_sessions *sessions;
    pm_done_cb cb;
    void *ctx;
    pm_err err;
} pmi_session_done;
pm_err pmi_session_promise(pmi_sessions *sessions, pm_done_cb cb, void *ctx,
                           pmi_session_done **out);
void pmi_session_tell(pmi_session_done *done, pm_err err);
/* A view; the texts are copied. NULL: no memory. */
pm_session *pmi_session_view(pmi_sessions *sessions, pm_slice frontend_id,
                             pm_slice uid);
/* The view's new uid; taken. NULL: unbound. */
void pmi_session_view_uid(pm_session *view, char *uid);
void pmi_session_release(pm_session *session);
pm_err pmi_session_bind_here(pm_session *session, const char *uid);
pm_err pmi_session_unbind_here(pm_session *session, const char *uid);
/* All members of `settings`, an object: merges name by name, never deletes.
 * When it fails nothing has changed. */
pm_err pmi_session_merge(pm_session *session, const struct cJSON *settings);

#endif
