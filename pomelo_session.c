/* SPDX-License-Identifier: MIT */
/* pomelo_session.c -- a player's session, on its frontend or seen from a
 * backend.
 *
 * On a frontend a session is in two tables: by its id, and in the ring of the
 * sessions that its uid has bound. On a backend it is a view that came with a
 * request; what must happen at the client is then a call to the frontend
 * (session_ask, served by session_serve). Start reading at pmi_session_open and
 * pm_session_bind. */
#include "pomelo_session_internal.h"

#include <cjson/cJSON.h>

#define SESSION_UID_MAX 255
#define SESSION_SETTINGS_MAX (16 * 1024)

struct pmi_sessions {
    pm_app *app;
    const pmi_env *env;
    pmi_map by_id;  /* number -> pm_session */
    pmi_map by_uid; /* uid -> first session of the ring */
    uint64_t last_id;
    pmi_link all;   /* every object, also what the application keeps */
    pmi_link waits; /* session_done, still to be told */
};

/* A callback that is due on a later turn. */
typedef struct session_done {
    pmi_task task;
    pmi_link link;
    pmi_sessions *sessions;
    pm_done_cb cb;
    void *ctx;
    pm_err err;
} session_done;

/* What a view asks its frontend for: first byte of `extra`. */
enum {
    SESSION_BIND = 1,
    SESSION_UNBIND = 2,
    SESSION_SYNC = 3,
    SESSION_KICK = 4,
    SESSION_DISCONNECT = 5
};

pm_err pmi_sessions_new(pm_app *app, pmi_sessions **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_sessions *sessions = pmi_zalloc(env, sizeof *sessions);
    if (!sessions)
        return PM_ENOMEM;
    sessions->app = app;
    sessions->env = env;
    pmi_loop_map_init(pm_app_loop(app), &sessions->by_id);
    pmi_loop_map_init(pm_app_loop(app), &sessions->by_uid);
    pmi_list_init(&sessions->all);
    pmi_list_init(&sessions->waits);
    *out = sessions;
    return PM_OK;
}

/* ---- Callbacks on a later turn ----------------------------------------- */

static void session_done_run(pmi_task *task)
{
    session_done *done = PMI_OUTER(task, session_done, task);
    session_done told = *done;
    pmi_list_remove(&done->link);
    pmi_free(done->sessions->env, done);
    told.cb(told.err, pm_strerror(told.err), told.ctx);
}

/* Memory for the callback first, so that nothing is half done when there is
 * none. *out is NULL when there is no callback. */
static pm_err session_promise(pmi_sessions *sessions, pm_done_cb cb, void *ctx,
                              session_done **out)
{
    session_done *done = NULL;
    if (cb) {
        done = pmi_zalloc(sessions->env, sizeof *done);
        if (!done)
            return PM_ENOMEM;
        done->sessions = sessions;
        done->cb = cb;
        done->ctx = ctx;
    }
    *out = done;
    return PM_OK;
}

static void session_tell(session_done *done, pm_err err)
{
    if (!done)
        return;
    done->err = err;
    pmi_list_add(&done->sessions->waits, &done->link);
    pmi_loop_defer(pm_app_loop(done->sessions->app), &done->task,
                   session_done_run);
}

/* ---- Life -------------------------------------------------------------- */

static void session_release(pm_session *session)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    pm_loop *loop = session->loop;
    pmi_list_remove(&session->in_app);
    cJSON_Delete(session->settings);
    pmi_free(env, session->uid);
    if (!session->ops)
        pmi_free(env, session->frontend_id);
    pmi_free(env, session->address);
    pmi_free(env, session);
    pmi_loop_drop(loop);
}

void pm_session_ref(pm_session *session)
{
    session->refs++;
}

void pm_session_unref(pm_session *session)
{
    if (session && --session->refs == 0)
        session_release(session);
}

static pm_session *session_new(pmi_sessions *sessions)
{
    pm_session *session = pmi_zalloc(sessions->env, sizeof *session);
    if (!session)
        return NULL;
    session->app = sessions->app;
    session->loop = pm_app_loop(sessions->app);
    session->refs = 1;
    pmi_list_init(&session->requests);
    pmi_list_init(&session->same_uid);
    pmi_list_add(&sessions->all, &session->in_app);
    pmi_loop_hold(session->loop);
    return session;
}

pm_err pmi_session_open(pmi_sessions *sessions, const pmi_session_ops *ops,
                        void *conn, pm_session **out)
{
    pm_session *session = session_new(sessions);
    if (!session)
        return PM_ENOMEM;
    session->ops = ops;
    session->conn = conn;
    session->id = ++sessions->last_id;
    /* Borrowed from the table, which may go before a session that the
     * application keeps: pmi_session_close takes it away. */
    session->frontend_id = (char *)(uintptr_t)pm_app_server(sessions->app)->id;
    if (pmi_map_put_num(&sessions->by_id, session->id, session, NULL)) {
        session_release(session);
        return PM_ENOMEM;
    }
    *out = session;
    return PM_OK;
}

static void session_leave_uid(pmi_sessions *sessions, pm_session *session)
{
    pm_slice uid = pm_text(session->uid);
    pm_session *next = NULL;
    if (!session->uid)
        return;
    if (pmi_link_in(&session->same_uid))
        next = PMI_OUTER(session->same_uid.next, pm_session, same_uid);
    pmi_list_remove(&session->same_uid);
    if (pmi_map_get(&sessions->by_uid, uid) != session)
        return;
    if (next)
        pmi_map_put(&sessions->by_uid, uid, next,
                    NULL); /* exists: no memory needed */
    else
        pmi_map_remove(&sessions->by_uid, uid);
}

void pmi_session_close(pm_session *session, pm_close_reason reason)
{
    pmi_sessions *sessions = pmi_app_sessions(session->app);
    if (session->closed)
        return;
    pm_session_address(session); /* what is known now stays readable */
    session->closed = true;
    session->conn = NULL;
    pmi_map_remove_num(&sessions->by_id, session->id);
    session_leave_uid(sessions, session);
    pmi_app_session_closed(session->app, session, reason);
}

void pmi_sessions_close(pmi_sessions *sessions)
{
    pmi_link *node;
    while ((node = pmi_list_take(&sessions->waits))) {
        session_done *done = PMI_OUTER(node, session_done, link);
        session_done told = *done;
        pmi_task_cancel(&done->task);
        pmi_free(sessions->env, done);
        told.cb(PM_ECLOSED, pm_strerror(PM_ECLOSED), told.ctx);
    }
    while ((node = pmi_list_take(&sessions->all)))
        PMI_OUTER(node, pm_session, in_app)->app = NULL;
}

void pmi_sessions_free(pmi_sessions *sessions)
{
    if (!sessions)
        return;
    pmi_sessions_close(sessions);
    pmi_map_fini(&sessions->by_id);
    pmi_map_fini(&sessions->by_uid);
    pmi_free(sessions->env, sessions);
}

size_t pmi_sessions_count(const pmi_sessions *sessions)
{
    return pmi_map_count(&sessions->by_id);
}

size_t pmi_sessions_bound(const pmi_sessions *sessions)
{
    return pmi_map_count(&sessions->by_uid);
}

/* ---- Getters ----------------------------------------------------------- */

uint64_t pm_session_id(const pm_session *session)
{
    return session->id;
}

const char *pm_session_frontend_id(const pm_session *session)
{
    if (session->ops && !session->app)
        return "";
    return session->frontend_id;
}

const char *pm_session_uid(const pm_session *session)
{
    return session->uid;
}

const char *pm_session_address(const pm_session *session)
{
    char text[PMI_ADDR_TEXT_MAX];
    pm_session *self = (pm_session *)(uintptr_t)session; /* a cache */
    if (session->address)
        return session->address;
    if (!session->ops || !session->conn)
        return "";
    self->address = pmi_strdup(pmi_loop_env(session->loop),
                               session->ops->address(session, text));
    return session->address ? session->address : "";
}

bool pm_session_is_closed(const pm_session *session)
{
    return session->closed || !session->app;
}

void pm_session_set_data(pm_session *session, void *data)
{
    session->data = data;
}

void *pm_session_data(const pm_session *session)
{
    return session->data;
}

pm_session *pm_session_find(pm_app *app, uint64_t id)
{
    return pmi_map_get_num(&pmi_app_sessions(app)->by_id, id);
}

pm_session *pmi_session_first_of(pmi_sessions *sessions, pm_slice uid)
{
    return pmi_map_get(&sessions->by_uid, uid);
}

pm_session *pmi_session_next_of(pm_session *session, pm_session *first)
{
    pm_session *next;
    if (!pmi_link_in(&session->same_uid))
        return NULL;
    next = PMI_OUTER(session->same_uid.next, pm_session, same_uid);
    return next == first ? NULL : next;
}

/* Sessions of a uid may end while the caller looks at them: they are collected
 * first, with a reference each. */
static size_t session_each_of(pmi_sessions *sessions, const char *uid,
                              pm_session_cb each, void *ctx)
{
    pm_session *first = pmi_session_first_of(sessions, pm_text(uid));
    pm_session **all;
    size_t count = 0, visited = 0, i;
    bool go_on = true;
    for (pm_session *s = first; s; s = pmi_session_next_of(s, first))
        count++;
    if (!count)
        return 0;
    all = pmi_resize_array(sessions->env, NULL, count, sizeof(void *));
    if (!all)
        return 0;
    i = 0;
    for (pm_session *s = first; s; s = pmi_session_next_of(s, first)) {
        pm_session_ref(s);
        all[i++] = s;
    }
    const pmi_env *env = pmi_loop_env(first->loop);
    for (i = 0; i < count; i++) {
        if (go_on && !pm_session_is_closed(all[i])) {
            visited++;
            go_on = each(all[i], ctx);
        }
        pm_session_unref(all[i]);
    }
    pmi_free(env, all);
    return visited;
}

size_t pm_session_each(pm_app *app, const char *uid, pm_session_cb each,
                       void *ctx)
{
    pmi_sessions *sessions = pmi_app_sessions(app);
    size_t visited = 0;
    if (uid)
        return session_each_of(sessions, uid, each, ctx);
    pmi_map_walk walk = pmi_map_begin(&sessions->by_id);
    while (pmi_map_next(&walk)) {
        visited++;
        if (!each(walk.value, ctx)) {
            pmi_map_end(&walk);
            break;
        }
    }
    return visited;
}

/* ---- Bind -------------------------------------------------------------- */

static pm_err session_bind_here(pm_session *session, const char *uid)
{
    pmi_sessions *sessions = pmi_app_sessions(session->app);
    pm_session *first;
    char *copy;
    if (session->closed)
        return PM_ECLOSED;
    if (session->uid)
        return strcmp(session->uid, uid) ? PM_EBOUND : PM_OK;
    first = pmi_session_first_of(sessions, pm_text(uid));
    if (first && pmi_app_connector_opts(session->app)->single_session)
        return PM_EEXIST;
    copy = pmi_strdup(sessions->env, uid);
    if (!copy)
        return PM_ENOMEM;
    if (first) {
        pmi_list_add(&first->same_uid, &session->same_uid);
    } else if (pmi_map_put(&sessions->by_uid, pm_text(uid), session, NULL)) {
        pmi_free(sessions->env, copy);
        return PM_ENOMEM;
    }
    session->uid = copy;
    pmi_app_session_bound(session->app, session);
    return PM_OK;
}

static pm_err session_unbind_here(pm_session *session, const char *uid)
{
    pmi_sessions *sessions = pmi_app_sessions(session->app);
    char *was = session->uid;
    if (session->closed)
        return PM_ECLOSED;
    if (!was || strcmp(was, uid))
        return PM_EUNBOUND;
    session_leave_uid(sessions, session);
    session->uid = NULL;
    pmi_app_session_unbound(session->app, session, was);
    pmi_free(pmi_loop_env(session->loop), was);
    return PM_OK;
}

/* ---- Settings ---------------------------------------------------------- */

static size_t session_size_of(const pmi_env *env, const cJSON *value)
{
    pmi_buf text;
    size_t size = SIZE_MAX;
    pmi_buf_init(&text, env, SESSION_SETTINGS_MAX);
    if (pmi_json_print(value, PMI_JSON_DEPTH_MAX, &text) == PM_OK)
        size = text.len;
    pmi_buf_fini(&text);
    return size;
}

static void session_unset(pm_session *session, const char *name)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    cJSON *old = (cJSON *)(uintptr_t)pmi_json_get(session->settings, name);
    if (!old)
        return;
    session->settings_bytes -= session_size_of(env, old) + strlen(name);
    cJSON_Delete(cJSON_DetachItemViaPointer(session->settings, old));
}

pm_err pm_session_set(pm_session *session, const char *name,
                      const struct cJSON *value)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    cJSON *copy;
    size_t size;
    pm_err err;
    if (!name)
        return PM_EINVAL;
    if (!value) {
        session_unset(session, name);
        return PM_OK;
    }
    size = session_size_of(env, value);
    if (size > SESSION_SETTINGS_MAX ||
        session->settings_bytes + size + strlen(name) > SESSION_SETTINGS_MAX)
        return PM_ELIMIT;
    if (!session->settings && !(session->settings = cJSON_CreateObject()))
        return PM_ENOMEM;
    copy = cJSON_Duplicate(value, true);
    if (!copy)
        return PM_ENOMEM;
    session_unset(session, name);
    err = pmi_json_add(session->settings, name, copy);
    if (err) {
        cJSON_Delete(copy);
        return err;
    }
    session->settings_bytes += size + strlen(name);
    return PM_OK;
}

pm_err pm_session_set_text(pm_session *session, const char *name,
                           const char *text)
{
    cJSON *value = text ? cJSON_CreateString(text) : NULL;
    pm_err err;
    if (text && !value)
        return PM_ENOMEM;
    err = pm_session_set(session, name, value);
    cJSON_Delete(value);
    return err;
}

const struct cJSON *pm_session_get(const pm_session *session, const char *name)
{
    return pmi_json_get(session->settings, name);
}

const char *pm_session_get_text(const pm_session *session, const char *name)
{
    const cJSON *value = pmi_json_get(session->settings, name);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

/* All members of `settings` (pushAll merges name by name, never deletes). */
static pm_err session_merge(pm_session *session, const cJSON *settings)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, settings)
    {
        pm_err err = item->string ? pm_session_set(session, item->string, item)
                                  : PM_EINVAL;
        if (err)
            return err;
    }
    return PM_OK;
}

/* ---- To the client ----------------------------------------------------- */

static pm_err session_kick_here(pm_session *session, const char *reason)
{
    if (session->closed || !session->conn)
        return PM_ECLOSED;
    session->ops->kick(session, reason,
                       reason ? PM_CLOSE_KICK : PM_CLOSE_SERVER);
    return PM_OK;
}

/* ---- Travelling with a request ----------------------------------------- */
/* sid (8) | frontend
 * id (1 + n) | uid (1 + n, n = 0: unbound) | settings (JSON, rest) */

static void session_put_text(pmi_buf *out, const char *text)
{
    size_t len = text ? strlen(text) : 0;
    pmi_buf_add_byte(out, (uint8_t)pmi_min(len, 255));
    pmi_buf_add(out, text ? text : "", pmi_min(len, 255));
}

static void session_put_number(pmi_buf *out, uint64_t number)
{
    uint8_t bytes[8];
    pmi_put_be32(bytes, (uint32_t)(number >> 32));
    pmi_put_be32(bytes + 4, (uint32_t)number);
    pmi_buf_add(out, bytes, sizeof bytes);
}

static uint64_t session_take_number(pmi_cursor *in)
{
    pm_slice bytes = pmi_cursor_bytes(in, 8);
    if (in->bad)
        return 0;
    return (uint64_t)pmi_get_be32(bytes.data) << 32 |
           pmi_get_be32((const uint8_t *)bytes.data + 4);
}

void pmi_session_export(const pm_session *session, pmi_buf *out)
{
    session_put_number(out, session->id);
    session_put_text(out, pm_session_frontend_id(session));
    session_put_text(out, session->uid);
    if (session->settings &&
        pmi_json_print(session->settings, PMI_JSON_DEPTH_MAX, out))
        out->failed = true;
}

static char *session_take_text(pmi_cursor *in, const pmi_env *env, pm_err *err)
{
    pm_slice text = pmi_cursor_bytes(in, pmi_cursor_byte(in));
    char *copy;
    if (in->bad || (text.len && memchr(text.data, 0, text.len))) {
        *err = PM_EFRAME;
        return NULL;
    }
    copy = pmi_strndup(env, text.data, text.len);
    if (!copy)
        *err = PM_ENOMEM;
    return copy;
}

static pm_err session_take_settings(pm_session *session, pmi_cursor *in)
{
    pm_slice text = pmi_cursor_bytes(in, pmi_cursor_left(in));
    pm_err err;
    if (!text.len)
        return PM_OK;
    err = pmi_json_parse(pmi_loop_env(session->loop), text, PMI_JSON_DEPTH_MAX,
                         &session->settings, NULL);
    if (err)
        return err == PM_ENOMEM ? err : PM_EFRAME;
    session->settings_bytes = text.len;
    return cJSON_IsObject(session->settings) ? PM_OK : PM_EFRAME;
}

pm_err pmi_session_import(pmi_sessions *sessions, pm_slice in, pm_session **out)
{
    pmi_cursor at = pmi_cursor_of(in.data, in.len);
    pm_session *session = session_new(sessions);
    pm_err err = PM_OK;
    if (!session)
        return PM_ENOMEM;
    session->id = session_take_number(&at);
    session->frontend_id = session_take_text(&at, sessions->env, &err);
    if (!err)
        session->uid = session_take_text(&at, sessions->env, &err);
    if (!err)
        err = session_take_settings(session, &at);
    if (session->uid && !*session->uid) {
        pmi_free(sessions->env, session->uid);
        session->uid = NULL;
    }
    if (err) {
        session_release(session);
        return err;
    }
    *out = session;
    return PM_OK;
}

/* ---- A view asks its frontend ------------------------------------------ */

typedef struct session_asked {
    pm_session *session; /* a reference */
    pm_done_cb cb;
    void *ctx;
    uint8_t what;
    char uid[SESSION_UID_MAX + 1];
} session_asked;

/* The frontend has done it: the view follows. */
static void session_follow(pm_session *session, const session_asked *asked)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    char *copy = NULL;
    if (asked->what == SESSION_BIND)
        copy = pmi_strdup(env, asked->uid);
    if (asked->what == SESSION_BIND || asked->what == SESSION_UNBIND) {
        pmi_free(env, session->uid);
        session->uid = copy;
    }
}

static void session_answered(const pmi_rpc_answer *answer, void *ctx)
{
    session_asked *asked = ctx;
    session_asked told = *asked;
    pm_err err = answer->result.err;
    /* The frontend's own refusals travel as codes of the remote side. */
    if (err == PM_EREMOTE && answer->result.code < 0)
        err = (pm_err)answer->result.code;
    if (err == PM_OK)
        session_follow(told.session, &told);
    pmi_free(pmi_loop_env(told.session->loop), asked);
    if (told.cb)
        told.cb(err, answer->result.detail, told.ctx);
    pm_session_unref(told.session);
}

/* extra: what (1) | sid (8) | text. */
static pm_err session_ask(pm_session *session, uint8_t what, pm_slice text,
                          pm_done_cb cb, void *ctx)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    pmi_rpc_send_opts send = {.op = PMI_OP_SESSION,
                              .server_id = session->frontend_id};
    session_asked *asked;
    pmi_buf extra;
    pm_err err;
    if (!session->app)
        return PM_ECLOSED;
    asked = pmi_zalloc(env, sizeof *asked);
    if (!asked)
        return PM_ENOMEM;
    asked->session = session;
    asked->cb = cb;
    asked->ctx = ctx;
    asked->what = what;
    if (what == SESSION_BIND || what == SESSION_UNBIND)
        memcpy(asked->uid, text.data, text.len);
    pmi_buf_init(&extra, env, 2 * SESSION_SETTINGS_MAX);
    pmi_buf_add_byte(&extra, what);
    session_put_number(&extra, session->id);
    pmi_buf_add(&extra, text.data, text.len);
    send.extra = pmi_buf_slice(&extra);
    err = extra.failed ? PM_ENOMEM
                       : pmi_rpc_send(pmi_app_rpc(session->app), &send,
                                      session_answered, asked, NULL);
    pmi_buf_fini(&extra);
    if (err)
        pmi_free(env, asked);
    else
        pm_session_ref(session);
    return err;
}

static pm_err session_serve_sync(pm_session *session, pm_slice text)
{
    cJSON *settings = NULL;
    pm_err err = pmi_json_parse(pmi_loop_env(session->loop), text,
                                PMI_JSON_DEPTH_MAX, &settings, NULL);
    if (err == PM_OK)
        err = session_merge(session, settings);
    cJSON_Delete(settings);
    return err;
}

static pm_err session_serve_one(pm_app *app, pm_slice extra)
{
    pmi_cursor in = pmi_cursor_of(extra.data, extra.len);
    uint8_t what = pmi_cursor_byte(&in);
    uint64_t sid = session_take_number(&in);
    pm_slice text = pmi_cursor_bytes(&in, pmi_cursor_left(&in));
    pm_session *session = pm_session_find(app, sid);
    char name[SESSION_UID_MAX + 1];
    if (in.bad)
        return PM_EFRAME;
    if (!session)
        return PM_ENOTFOUND;
    if (what == SESSION_SYNC)
        return session_serve_sync(session, text);
    if (what == SESSION_DISCONNECT)
        return session_kick_here(session, NULL);
    if (text.len > SESSION_UID_MAX ||
        (text.len && memchr(text.data, 0, text.len)))
        return PM_EINVAL;
    memcpy(name, text.data, text.len);
    name[text.len] = 0;
    if (what == SESSION_KICK)
        return session_kick_here(session, name);
    if (what == SESSION_BIND)
        return *name ? session_bind_here(session, name) : PM_EINVAL;
    return what == SESSION_UNBIND ? session_unbind_here(session, name)
                                  : PM_EFRAME;
}

static void session_serve(pm_app *app, pm_call *call)
{
    pm_slice none = {NULL, 0};
    pm_err err = session_serve_one(app, pmi_call_extra(call));
    /* The call itself has worked: what the session says is its own code. */
    pmi_call_answer(call, err ? PM_EREMOTE : PM_OK, err,
                    err ? pm_strerror(err) : NULL, pm_body_none(), none);
}

void pmi_sessions_serve(pmi_sessions *sessions)
{
    pmi_rpc_serve(pmi_app_rpc(sessions->app), PMI_OP_SESSION, session_serve);
}

/* ---- The public verbs: here, or by a call ------------------------------ */

static bool session_uid_fits(const char *uid)
{
    size_t len = uid ? strlen(uid) : 0;
    return len > 0 && len <= SESSION_UID_MAX;
}

/* Binds or unbinds here. A listener may free the app meanwhile: then the call
 * was refused (PM_ECLOSED) and its callback never runs. */
static pm_err session_change(pm_session *session, const char *uid,
                             pm_err (*change)(pm_session *, const char *),
                             pm_done_cb cb, void *ctx)
{
    pm_loop *loop = session->loop;
    session_done *done;
    pm_err err;
    if (!session->app)
        return PM_ECLOSED;
    err = session_promise(pmi_app_sessions(session->app), cb, ctx, &done);
    if (err)
        return err;
    pmi_loop_enter(loop);
    pm_session_ref(session);
    err = change(session, uid);
    if (session->app)
        session_tell(done, err);
    else
        pmi_free(pmi_loop_env(loop), done);
    err = session->app ? PM_OK : PM_ECLOSED;
    pm_session_unref(session);
    pmi_loop_leave(loop);
    return err;
}

pm_err pm_session_bind(pm_session *session, const char *uid, pm_done_cb cb,
                       void *ctx)
{
    if (!session_uid_fits(uid))
        return PM_EINVAL;
    if (!session->ops)
        return session_ask(session, SESSION_BIND, pm_text(uid), cb, ctx);
    return session_change(session, uid, session_bind_here, cb, ctx);
}

pm_err pm_session_unbind(pm_session *session, const char *uid, pm_done_cb cb,
                         void *ctx)
{
    if (!session_uid_fits(uid))
        return PM_EINVAL;
    if (!session->ops)
        return session_ask(session, SESSION_UNBIND, pm_text(uid), cb, ctx);
    return session_change(session, uid, session_unbind_here, cb, ctx);
}

/* One setting, or all of them, as a JSON object. */
static pm_err session_settings_text(const pm_session *session, const char *name,
                                    pmi_buf *out)
{
    const cJSON *value;
    if (!name) {
        if (session->settings)
            return pmi_json_print(session->settings, PMI_JSON_DEPTH_MAX, out);
        pmi_buf_add_text(out, "{}");
        return out->failed ? PM_ENOMEM : PM_OK;
    }
    value = pmi_json_get(session->settings, name);
    if (!value)
        return PM_ENOTFOUND;
    pmi_buf_add_byte(out, '{');
    pmi_json_add_string(out, pm_text(name));
    pmi_buf_add_byte(out, ':');
    if (pmi_json_print(value, PMI_JSON_DEPTH_MAX, out))
        return PM_ENOMEM;
    pmi_buf_add_byte(out, '}');
    return out->failed ? PM_ENOMEM : PM_OK;
}

pm_err pm_session_sync(pm_session *session, const char *name, pm_done_cb cb,
                       void *ctx)
{
    session_done *done;
    pmi_buf text;
    pm_err err;
    if (!session->app)
        return PM_ECLOSED;
    if (session->ops) {
        err = session_promise(pmi_app_sessions(session->app), cb, ctx, &done);
        if (err == PM_OK)
            session_tell(done, session->closed ? PM_ECLOSED : PM_OK);
        return err;
    }
    pmi_buf_init(&text, pmi_loop_env(session->loop), 2 * SESSION_SETTINGS_MAX);
    err = session_settings_text(session, name, &text);
    if (err == PM_OK)
        err = session_ask(session, SESSION_SYNC, pmi_buf_slice(&text), cb, ctx);
    pmi_buf_fini(&text);
    return err;
}

pm_err pm_session_kick(pm_session *session, const char *reason, pm_done_cb cb,
                       void *ctx)
{
    session_done *done;
    pm_err err;
    if (reason && strlen(reason) > SESSION_UID_MAX)
        return PM_EINVAL;
    if (!session->app)
        return PM_ECLOSED;
    if (!session->ops)
        return session_ask(session, reason ? SESSION_KICK : SESSION_DISCONNECT,
                           pm_text(reason), cb, ctx);
    err = session_promise(pmi_app_sessions(session->app), cb, ctx, &done);
    if (err == PM_OK)
        session_tell(done, session_kick_here(session, reason));
    return err;
}

/* One receiver of a push, as pomelo_channel serves it: by session id. */
static pm_err session_push_far(pm_session *session, const char *route,
                               pm_body body)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    pmi_rpc_send_opts send = {.op = PMI_OP_PUSH,
                              .method = pm_text(route),
                              .server_id = session->frontend_id,
                              .body = body};
    pmi_buf extra;
    pm_err err;
    pmi_buf_init(&extra, env, 16);
    pmi_buf_add_byte(&extra, PMI_PUSH_BY_SID);
    session_put_number(&extra, session->id);
    send.extra = pmi_buf_slice(&extra);
    err = extra.failed ? PM_ENOMEM
                       : pmi_rpc_send(pmi_app_rpc(session->app), &send, NULL,
                                      NULL, NULL);
    pmi_buf_fini(&extra);
    return err;
}

pm_err pm_session_push(pm_session *session, const char *route, pm_body body)
{
    size_t len = route ? strlen(route) : 0;
    if (len == 0 || len > 255 || body.kind == PM_BODY_NONE)
        return PM_EINVAL;
    if (pm_session_is_closed(session))
        return PM_ECLOSED;
    if (session->ops)
        return session->ops->push(session, pm_text(route), body);
    return session_push_far(session, route, body);
}
