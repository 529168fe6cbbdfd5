/* SPDX-License-Identifier: MIT */
/* pomelo_session.c -- a player's session: life, uid, settings.
 *
 * On a frontend a session is in two tables: by its id, and in the ring of the
 * sessions that its uid has bound. On a backend it is a view that came with a
 * request; how it travels, and what the view asks its frontend for, is in
 * pomelo_session_far.c. Start reading at pmi_session_open. */
#include "pomelo_session_internal.h"

#include <cjson/cJSON.h>

/* Room of a usual view with its texts, and how many are kept for the next
 * forwarded requests. */
enum { SESSION_VIEW_BYTES = 256, SESSION_SPARES_MAX = 64 };

/* A uid that a frontend's session has bound: one of a ring. */
typedef struct session_bound {
    pmi_link same_uid;
    pm_session *session;
    char uid[];
} session_bound;

struct pmi_sessions {
    pm_app *app;
    const pmi_env *env;
    pmi_map by_id;  /* number -> pm_session */
    pmi_map by_uid; /* uid -> first session of the ring */
    uint64_t last_id;
    void (*gone)(void *ctx, pm_slice uid); /* may be NULL */
    void *gone_ctx;
    pmi_link all;    /* every object, also what the application keeps */
    pmi_link waits;  /* pmi_session_done, still to be told */
    pmi_link spares; /* views, by in_app */
    uint32_t spares_count;
};

static const pmi_router_sessions session_for_routers = {
    pm_session_uid, pm_session_ref, pm_session_unref};

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
    pmi_list_init(&sessions->spares);
    /* Others may still know sessions of this server's life before: a number
     * must not mean somebody else now. It stays below 2^53, for JSON. */
    sessions->last_id = (pmi_loop_random_u64(pm_app_loop(app)) >> 32) << 20;
    pmi_router_set_sessions(pmi_app_router(app), &session_for_routers);
    *out = sessions;
    return PM_OK;
}

/* ---- Callbacks on a later turn ----------------------------------------- */

static void session_done_run(pmi_task *task)
{
    pmi_session_done *done = PMI_OUTER(task, pmi_session_done, task);
    pmi_session_done told = *done;
    pmi_list_remove(&done->link);
    pmi_free(done->sessions->env, done);
    told.cb(told.err, pm_strerror(told.err), told.ctx);
}

/* Memory for the callback first, so that nothing is half done when there is
 * none. *out is NULL when there is no callback. */
pm_err pmi_session_promise(pmi_sessions *sessions, pm_done_cb cb, void *ctx,
                           pmi_session_done **out)
{
    pmi_session_done *done = NULL;
    if (pmi_app_state_of(sessions->app) == PMI_APP_FREED)
        return PM_ECLOSED;
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

void pmi_session_tell(pmi_session_done *done, pm_err err)
{
    if (!done)
        return;
    done->err = err;
    pmi_list_add(&done->sessions->waits, &done->link);
    pmi_loop_defer(pm_app_loop(done->sessions->app), &done->task,
                   session_done_run);
}

/* ---- Life -------------------------------------------------------------- */

static session_bound *session_bound_of(const pm_session *session)
{
    return PMI_OUTER(session->uid, session_bound, uid);
}

/* The uid that a view came with lies behind its frontend's id. */
static char *session_first_uid(const pm_session *view)
{
    char *texts = (char *)(uintptr_t)view->frontend_id;
    return texts + strlen(texts) + 1;
}

static void session_free_uid(pm_session *session)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    if (session->ops && session->uid)
        pmi_free(env, session_bound_of(session));
    else if (!session->ops && session->uid != session_first_uid(session))
        pmi_free(env, session->uid);
    session->uid = NULL;
}

void pmi_session_view_uid(pm_session *view, char *uid)
{
    session_free_uid(view);
    view->uid = uid;
}

static bool session_keep(pm_session *view)
{
    pmi_sessions *sessions = view->app ? pmi_app_sessions(view->app) : NULL;
    if (!view->spare || !sessions ||
        sessions->spares_count >= SESSION_SPARES_MAX)
        return false;
    pmi_list_add_front(&sessions->spares, &view->in_app);
    sessions->spares_count++;
    return true;
}

void pmi_session_release(pm_session *session)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    pm_loop *loop = session->loop;
    pmi_list_remove(&session->in_app);
    cJSON_Delete(session->settings);
    session_free_uid(session);
    if (session->ops)
        pmi_free(env, session->address);
    if (!session_keep(session))
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
        pmi_session_release(session);
}

static void session_init(pmi_sessions *sessions, pm_session *session)
{
    memset(session, 0, sizeof *session);
    session->app = sessions->app;
    session->loop = pm_app_loop(sessions->app);
    session->refs = 1;
    session->measured = true;
    pmi_list_init(&session->requests);
    pmi_list_add(&sessions->all, &session->in_app);
    pmi_loop_hold(session->loop);
}

static pm_session *session_view_storage(pmi_sessions *sessions, size_t bytes)
{
    pmi_link *spare = NULL;
    if (bytes <= SESSION_VIEW_BYTES)
        spare = pmi_list_take(&sessions->spares);
    if (!spare)
        return pmi_alloc(sessions->env, pmi_max(bytes, SESSION_VIEW_BYTES));
    sessions->spares_count--;
    return PMI_OUTER(spare, pm_session, in_app);
}

pm_session *pmi_session_view(pmi_sessions *sessions, pm_slice frontend_id,
                             pm_slice uid)
{
    size_t bytes = sizeof(pm_session) + frontend_id.len + 1 + uid.len + 1;
    pm_session *view = session_view_storage(sessions, bytes);
    char *texts;
    if (!view)
        return NULL;
    session_init(sessions, view);
    view->spare = bytes <= SESSION_VIEW_BYTES;
    texts = (char *)(view + 1);
    if (frontend_id.len)
        memcpy(texts, frontend_id.data, frontend_id.len);
    texts[frontend_id.len] = 0;
    view->frontend_id = texts;
    if (uid.len) {
        view->uid = texts + frontend_id.len + 1;
        memcpy(view->uid, uid.data, uid.len);
        view->uid[uid.len] = 0;
    }
    return view;
}

pm_err pmi_session_open(pmi_sessions *sessions, const pmi_session_ops *ops,
                        void *conn, pm_session **out)
{
    pm_session *session = pmi_alloc(sessions->env, sizeof *session);
    if (!session)
        return PM_ENOMEM;
    session_init(sessions, session);
    session->ops = ops;
    session->conn = conn;
    session->id = ++sessions->last_id;
    if (pmi_map_put_num(&sessions->by_id, session->id, session, NULL)) {
        pmi_session_release(session);
        return PM_ENOMEM;
    }
    *out = session;
    return PM_OK;
}

static void session_leave_uid(pmi_sessions *sessions, pm_session *session)
{
    pm_slice uid = pm_text(session->uid);
    pm_session *next = pmi_session_next_of(session, session);
    if (!session->uid)
        return;
    pmi_list_remove(&session_bound_of(session)->same_uid);
    if (pmi_map_get(&sessions->by_uid, uid) != session)
        return;
    if (next) {
        pmi_map_put(&sessions->by_uid, uid, next,
                    NULL); /* exists: no memory needed */
        return;
    }
    pmi_map_remove(&sessions->by_uid, uid);
    if (sessions->gone)
        sessions->gone(sessions->gone_ctx, uid);
}

void pmi_sessions_on_gone(pmi_sessions *sessions,
                          void (*gone)(void *ctx, pm_slice uid), void *ctx)
{
    sessions->gone = gone;
    sessions->gone_ctx = ctx;
}

void pmi_session_close(pm_session *session, pm_close_reason reason)
{
    pmi_sessions *sessions;
    if (session->closed)
        return; /* by the end of the app, from inside a request's cancellation
                 */
    pm_session_address(session); /* what is known now stays readable */
    sessions = pmi_app_sessions(session->app);
    session->closed = true;
    session->conn = NULL;
    pmi_map_remove_num(&sessions->by_id, session->id);
    session_leave_uid(sessions, session);
    pmi_app_session_closed(session->app, session, reason);
}

void pmi_session_moved(pm_session *session)
{
    pmi_free(pmi_loop_env(session->loop), session->address);
    session->address = NULL;
}

/* A session whose end is under way on the stack is told of now. */
static void session_close_all(pmi_sessions *sessions)
{
    pmi_map_walk walk = pmi_map_begin(&sessions->by_id);
    while (pmi_map_next(&walk))
        pmi_session_close(walk.value, PM_CLOSE_STOP);
}

void pmi_sessions_close(pmi_sessions *sessions)
{
    pmi_link *node;
    session_close_all(sessions);
    while ((node = pmi_list_take(&sessions->waits))) {
        pmi_session_done *done = PMI_OUTER(node, pmi_session_done, link);
        pmi_session_done told = *done;
        pmi_task_cancel(&done->task);
        pmi_free(sessions->env, done);
        told.cb(PM_ECLOSED, pm_strerror(PM_ECLOSED), told.ctx);
    }
    while ((node = pmi_list_take(&sessions->all)))
        PMI_OUTER(node, pm_session, in_app)->app = NULL;
}

void pmi_sessions_free(pmi_sessions *sessions)
{
    pmi_link *spare;
    if (!sessions)
        return;
    pmi_sessions_close(sessions);
    pmi_map_fini(&sessions->by_id);
    pmi_map_fini(&sessions->by_uid);
    while ((spare = pmi_list_take(&sessions->spares)))
        pmi_free(sessions->env, PMI_OUTER(spare, pm_session, in_app));
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
    /* The table may go before a session that the application keeps. */
    if (session->ops)
        return session->app ? pm_app_server(session->app)->id : "";
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
    if (!session->ops || (!session->address && !session->conn))
        return "";
    if (session->address)
        return session->address;
    self->address = pmi_strdup(pmi_loop_env(session->loop),
                               session->ops->address(session, text));
    return session->address ? session->address : "";
}

bool pm_session_is_closed(const pm_session *session)
{
    return session->closed || !session->app;
}

size_t pm_session_queued(const pm_session *session)
{
    return session->conn ? session->ops->queued(session) : 0;
}

uint64_t pm_session_dropped(const pm_session *session)
{
    return session->conn ? session->ops->dropped(session) : 0;
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
    pmi_link *link = session->uid ? &session_bound_of(session)->same_uid : NULL;
    pm_session *next;
    if (!link || !pmi_link_in(link))
        return NULL;
    next = PMI_OUTER(link->next, session_bound, same_uid)->session;
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
    for (i = 0; i < count; i++) {
        if (go_on && !pm_session_is_closed(all[i])) {
            visited++;
            go_on = each(all[i], ctx);
        }
        pm_session_unref(all[i]);
    }
    pmi_free(sessions->env, all);
    return visited;
}

static size_t session_each_any(pmi_sessions *sessions, pm_session_cb each,
                               void *ctx)
{
    size_t visited = 0;
    bool go_on = true;
    pmi_map_walk walk = pmi_map_begin(&sessions->by_id);
    while (go_on && pmi_map_next(&walk)) {
        pm_session *session = walk.value;
        visited++;
        pm_session_ref(session);
        go_on = each(session, ctx);
        pm_session_unref(session);
    }
    if (!go_on)
        pmi_map_end(&walk);
    return visited;
}

size_t pm_session_each(pm_app *app, const char *uid, pm_session_cb each,
                       void *ctx)
{
    pmi_sessions *sessions = pmi_app_sessions(app);
    pm_loop *loop = pm_app_loop(app);
    size_t visited;
    pmi_loop_enter(loop); /* the app may be freed in here */
    if (uid)
        visited = session_each_of(sessions, uid, each, ctx);
    else
        visited = session_each_any(sessions, each, ctx);
    pmi_loop_leave(loop);
    return visited;
}

/* ---- Bind -------------------------------------------------------------- */

pm_err pmi_session_bind_here(pm_session *session, const char *uid)
{
    pmi_sessions *sessions = pmi_app_sessions(session->app);
    pm_session *first;
    session_bound *bound;
    if (session->closed)
        return PM_ECLOSED;
    if (session->uid)
        return strcmp(session->uid, uid) ? PM_EBOUND : PM_OK;
    first = pmi_session_first_of(sessions, pm_text(uid));
    if (first && pmi_app_connector_opts(session->app)->single_session)
        return PM_EEXIST;
    bound = pmi_alloc(sessions->env, sizeof *bound + strlen(uid) + 1);
    if (!bound)
        return PM_ENOMEM;
    bound->session = session;
    memcpy(bound->uid, uid, strlen(uid) + 1);
    pmi_list_init(&bound->same_uid);
    if (first) {
        pmi_list_add(&session_bound_of(first)->same_uid, &bound->same_uid);
    } else if (pmi_map_put(&sessions->by_uid, pm_text(uid), session, NULL)) {
        pmi_free(sessions->env, bound);
        return PM_ENOMEM;
    }
    session->uid = bound->uid;
    pmi_app_session_bound(session->app, session);
    return PM_OK;
}

pm_err pmi_session_unbind_here(pm_session *session, const char *uid)
{
    pmi_sessions *sessions = pmi_app_sessions(session->app);
    char *was = session->uid;
    if (session->closed)
        return PM_ECLOSED;
    if (!was || strcmp(was, uid))
        return PM_EUNBOUND;
    session_leave_uid(sessions, session);
    session->uid = NULL;
    /* A listener may free the app, and the session with it. */
    pmi_app_session_unbound(session->app, session, was);
    pmi_free(sessions->env, PMI_OUTER(was, session_bound, uid));
    return PM_OK;
}

/* ---- Settings ---------------------------------------------------------- */

static pm_err session_size_of(const pmi_env *env, const char *name,
                              const cJSON *value, size_t *size)
{
    pmi_buf text;
    pm_err err;
    *size = 0;
    if (!value)
        return PM_OK;
    pmi_buf_init(&text, env, SIZE_MAX);
    err = pmi_json_print(value, PMI_SETTINGS_DEPTH_MAX, &text);
    *size = text.len + strlen(name);
    pmi_buf_fini(&text);
    return err;
}

/* What cannot be measured for want of memory is measured anew next time. */
static void session_unset(pm_session *session, const char *name)
{
    cJSON *old = (cJSON *)(uintptr_t)pmi_json_get(session->settings, name);
    size_t size;
    if (!old)
        return;
    if (session_size_of(pmi_loop_env(session->loop), name, old, &size))
        session->measured = false;
    else
        session->settings_bytes -= (uint32_t)size;
    cJSON_Delete(cJSON_DetachItemViaPointer(session->settings, old));
}

/* A copy of the value that carries its name: to add it needs no memory. */
static cJSON *session_named_copy(const char *name, const cJSON *value)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *copy = cJSON_Duplicate(value, true);
    if (!object || !copy || pmi_json_add(object, name, copy)) {
        cJSON_Delete(copy);
        copy = NULL;
    } else {
        cJSON_DetachItemViaPointer(object, copy);
    }
    cJSON_Delete(object);
    return copy;
}

/* Settings that came as text are measured when somebody changes them. */
static pm_err session_measure(pm_session *session)
{
    const pmi_env *env = pmi_loop_env(session->loop);
    const cJSON *item;
    size_t sum = 0, size;
    if (session->measured)
        return PM_OK;
    cJSON_ArrayForEach(item, session->settings)
    {
        pm_err err = session_size_of(env, item->string, item, &size);
        if (err)
            return err;
        sum += size;
    }
    session->settings_bytes = (uint32_t)sum;
    session->measured = true;
    return PM_OK;
}

/* Is there room for a value of this size in the place of what is there? */
static pm_err session_check_room(pm_session *session, const char *name,
                                 size_t size)
{
    size_t old;
    pm_err err = session_measure(session);
    if (err == PM_OK)
        err = session_size_of(pmi_loop_env(session->loop), name,
                              pmi_json_get(session->settings, name), &old);
    if (err)
        return err;
    if (size > PMI_SETTINGS_MAX ||
        session->settings_bytes - old + size > PMI_SETTINGS_MAX)
        return PM_ELIMIT;
    return PM_OK;
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
    err = session_size_of(env, name, value, &size);
    if (err == PM_OK)
        err = session_check_room(session, name, size);
    if (err)
        return err;
    if (!session->settings && !(session->settings = cJSON_CreateObject()))
        return PM_ENOMEM;
    copy = session_named_copy(name, value);
    if (!copy)
        return PM_ENOMEM;
    session_unset(session, name);
    cJSON_AddItemToArray(session->settings, copy);
    session->settings_bytes += (uint32_t)size;
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

/* Into a copy, which takes the place of the old ones when all went well. */
pm_err pmi_session_merge(pm_session *session, const cJSON *settings)
{
    cJSON *old = session->settings;
    uint32_t old_bytes = session->settings_bytes;
    bool measured = session->measured;
    pm_err err;
    if (!cJSON_IsObject(settings))
        return PM_EINVAL;
    session->settings = old ? cJSON_Duplicate(old, true) : NULL;
    err = old && !session->settings ? PM_ENOMEM
                                    : session_merge(session, settings);
    if (err) {
        cJSON_Delete(session->settings);
        session->settings = old;
        session->settings_bytes = old_bytes;
        session->measured = measured;
        return err;
    }
    cJSON_Delete(old);
    return PM_OK;
}
