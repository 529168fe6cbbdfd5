/* SPDX-License-Identifier: MIT */
/* pomelo_session_far.c -- sessions between servers: how one travels with a
 * request, what a view asks its frontend for, look-ups and kicks from anywhere.
 *
 * Everything is one operation (PMI_OP_SESSION) whose `extra` says what is
 * wanted:
 *
 *     what (1) | sid (8) | text
 *
 * Start at pmi_session_export, session_ask and session_serve. */
#include "pomelo_session_internal.h"

#include <cjson/cJSON.h>

/* What a frontend is asked for. */
enum {
    SESSION_BIND = 1,
    SESSION_UNBIND = 2,
    SESSION_SYNC = 3,
    SESSION_KICK = 4,
    SESSION_DISCONNECT = 5,
    SESSION_GET = 6,      /* by sid */
    SESSION_GET_UID = 7,  /* text: the uid */
    SESSION_KICK_UID = 8, /* text: length of the uid (1) | uid | reason */
    SESSION_DISCONNECT_UID = 9
};

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
/* sid (8) | frontend id (1 + n) | uid (1 + n, n = 0: unbound) | settings (JSON,
 * rest) */

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

/* Text from another server as a C string; false when it can not be one. */
static bool session_take_name(pm_slice text, char out[PMI_UID_MAX + 1])
{
    if (text.len > PMI_UID_MAX || (text.len && memchr(text.data, 0, text.len)))
        return false;
    if (text.len)
        memcpy(out, text.data, text.len);
    out[text.len] = 0;
    return true;
}

static pm_slice session_take_text(pmi_cursor *in)
{
    pm_slice text = pmi_cursor_bytes(in, pmi_cursor_byte(in));
    if (text.len && memchr(text.data, 0, text.len))
        in->bad = true;
    return text;
}

static pm_err session_take_settings(pm_session *session, pmi_cursor *in)
{
    pm_slice text = pmi_cursor_bytes(in, pmi_cursor_left(in));
    pm_err err;
    if (!text.len)
        return PM_OK;
    if (text.len > PMI_SETTINGS_TEXT_MAX)
        return PM_EFRAME;
    err = pmi_json_parse(pmi_loop_env(session->loop), text, PMI_JSON_DEPTH_MAX,
                         &session->settings, NULL);
    if (err)
        return err == PM_ENOMEM ? err : PM_EFRAME;
    session->measured = false;
    return cJSON_IsObject(session->settings) ? PM_OK : PM_EFRAME;
}

pm_err pmi_session_import(pm_app *app, pm_slice in, pm_session **out)
{
    pmi_cursor at = pmi_cursor_of(in.data, in.len);
    uint64_t id = session_take_number(&at);
    pm_slice frontend_id = session_take_text(&at), uid = session_take_text(&at);
    pm_session *session;
    pm_err err;
    if (at.bad)
        return PM_EFRAME;
    session = pmi_session_view(pmi_app_sessions(app), frontend_id, uid);
    if (!session)
        return PM_ENOMEM;
    session->id = id;
    err = session_take_settings(session, &at);
    if (err) {
        pmi_session_release(session);
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
    char *uid; /* owned: the view's from now on, when it is bound */
} session_asked;

/* The frontend has done it: the view follows. */
static void session_follow(pm_session *session, session_asked *asked)
{
    if (asked->what != SESSION_BIND && asked->what != SESSION_UNBIND)
        return;
    pmi_session_view_uid(session, asked->uid);
    asked->uid = NULL;
}

static void session_asked_free(session_asked *asked)
{
    const pmi_env *env = pmi_loop_env(asked->session->loop);
    pmi_free(env, asked->uid);
    pmi_free(env, asked);
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
        session_follow(asked->session, asked);
    session_asked_free(asked);
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
    if (what == SESSION_BIND &&
        !(asked->uid = pmi_strndup(env, text.data, text.len))) {
        pmi_free(env, asked);
        return PM_ENOMEM;
    }
    pmi_buf_init(&extra, env, 64 + PMI_SETTINGS_TEXT_MAX);
    pmi_buf_add_byte(&extra, what);
    session_put_number(&extra, session->id);
    pmi_buf_add(&extra, text.data, text.len);
    send.extra = pmi_buf_slice(&extra);
    err = extra.failed ? PM_ENOMEM
                       : pmi_rpc_send(pmi_app_rpc(session->app), &send,
                                      session_answered, asked, NULL);
    pmi_buf_fini(&extra);
    if (err)
        session_asked_free(asked);
    else
        pm_session_ref(session);
    return err;
}

static pm_err session_serve_sync(pm_session *session, pm_slice text)
{
    cJSON *settings = NULL;
    pm_err err;
    if (text.len > PMI_SETTINGS_TEXT_MAX)
        return PM_ELIMIT;
    err = pmi_json_parse(pmi_loop_env(session->loop), text, PMI_JSON_DEPTH_MAX,
                         &settings, NULL);
    if (err == PM_OK)
        err = pmi_session_merge(session, settings);
    cJSON_Delete(settings);
    return err;
}

/* A session of this frontend, behind its length. */
static void session_put_export(pmi_buf *out, const pm_session *session)
{
    size_t at = out->len;
    pmi_buf_add(out, "\0\0\0\0", 4);
    pmi_session_export(session, out);
    if (!out->failed)
        pmi_put_be32(out->data + at, (uint32_t)(out->len - at - 4));
}

static pm_err session_serve_sid(pm_app *app, uint8_t what, uint64_t sid,
                                pm_slice text, pmi_buf *out)
{
    pm_session *session = pm_session_find(app, sid);
    char name[PMI_UID_MAX + 1];
    if (!session)
        return PM_ENOTFOUND;
    if (what == SESSION_SYNC)
        return session_serve_sync(session, text);
    if (what == SESSION_DISCONNECT)
        return session_kick_here(session, NULL);
    if (what == SESSION_GET) {
        session_put_export(out, session);
        return PM_OK;
    }
    if (!session_take_name(text, name))
        return PM_EINVAL;
    if (what == SESSION_KICK)
        return session_kick_here(session, name);
    if (!*name)
        return PM_EINVAL;
    return what == SESSION_BIND ? pmi_session_bind_here(session, name)
                                : pmi_session_unbind_here(session, name);
}

/* Ends of connections come on later turns: the ring stays as it is. */
static pm_err session_serve_all(pm_app *app, const char *uid,
                                const char *reason, pmi_buf *out)
{
    pm_session *first =
        pmi_session_first_of(pmi_app_sessions(app), pm_text(uid));
    if (!first)
        return PM_ENOTFOUND;
    for (pm_session *s = first; s; s = pmi_session_next_of(s, first)) {
        if (out)
            session_put_export(out, s);
        else
            session_kick_here(s, reason);
    }
    return PM_OK;
}

static pm_err session_serve_uid(pm_app *app, uint8_t what, pm_slice text,
                                pmi_buf *out)
{
    char uid[PMI_UID_MAX + 1], reason[PMI_UID_MAX + 1];
    pmi_cursor in = pmi_cursor_of(text.data, text.len);
    pm_slice name = text, rest = {NULL, 0};
    if (what != SESSION_GET_UID) {
        name = pmi_cursor_bytes(&in, pmi_cursor_byte(&in));
        rest = pmi_cursor_bytes(&in, pmi_cursor_left(&in));
    }
    if (in.bad || !session_take_name(name, uid) ||
        !session_take_name(rest, reason))
        return PM_EINVAL;
    if (what == SESSION_GET_UID)
        return session_serve_all(app, uid, NULL, out);
    return session_serve_all(app, uid, what == SESSION_KICK_UID ? reason : NULL,
                             NULL);
}

static pm_err session_serve_one(pm_app *app, pm_slice extra, pmi_buf *out)
{
    pmi_cursor in = pmi_cursor_of(extra.data, extra.len);
    uint8_t what = pmi_cursor_byte(&in);
    uint64_t sid = session_take_number(&in);
    pm_slice text = pmi_cursor_bytes(&in, pmi_cursor_left(&in));
    pm_err err;
    if (in.bad || what < SESSION_BIND || what > SESSION_DISCONNECT_UID)
        return PM_EFRAME;
    err = what >= SESSION_GET_UID
              ? session_serve_uid(app, what, text, out)
              : session_serve_sid(app, what, sid, text, out);
    return err == PM_OK && out->failed ? PM_ENOMEM : err;
}

static void session_serve(pm_app *app, pm_call *call)
{
    const pmi_env *env = pmi_loop_env(pm_app_loop(app));
    pmi_buf out;
    pm_err err;
    pmi_buf_init(&out, env, 1024 * 1024);
    err = session_serve_one(app, pmi_call_extra(call), &out);
    /* The call itself has worked: what the session says is its own code. */
    pmi_call_answer(call, err ? PM_EREMOTE : PM_OK, err,
                    err ? pm_strerror(err) : NULL, pm_body_none(),
                    err ? pm_bytes(NULL, 0) : pmi_buf_slice(&out));
    pmi_buf_fini(&out);
}

void pmi_sessions_serve(pm_app *app)
{
    pmi_rpc_serve(pmi_app_rpc(app), PMI_OP_SESSION, session_serve);
}

/* ---- The public verbs: here, or by a call ------------------------------ */

static bool session_uid_fits(const char *uid)
{
    size_t len = uid ? strlen(uid) : 0;
    return len > 0 && len <= PMI_UID_MAX;
}

/* Binds or unbinds here. A listener may free the app meanwhile: then the call
 * was refused (PM_ECLOSED) and its callback never runs. */
static pm_err session_change(pm_session *session, const char *uid,
                             pm_err (*change)(pm_session *, const char *),
                             pm_done_cb cb, void *ctx)
{
    pm_loop *loop = session->loop;
    pmi_session_done *done;
    pm_err err;
    if (!session->app)
        return PM_ECLOSED;
    err = pmi_session_promise(pmi_app_sessions(session->app), cb, ctx, &done);
    if (err)
        return err;
    pmi_loop_enter(loop);
    pm_session_ref(session);
    err = change(session, uid);
    if (session->app)
        pmi_session_tell(done, err);
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
    return session_change(session, uid, pmi_session_bind_here, cb, ctx);
}

pm_err pm_session_unbind(pm_session *session, const char *uid, pm_done_cb cb,
                         void *ctx)
{
    if (!session_uid_fits(uid))
        return PM_EINVAL;
    if (!session->ops)
        return session_ask(session, SESSION_UNBIND, pm_text(uid), cb, ctx);
    return session_change(session, uid, pmi_session_unbind_here, cb, ctx);
}

/* One setting, or all of them, as a JSON object. */
static pm_err session_settings_text(const pm_session *session, const char *name,
                                    pmi_buf *out)
{
    const cJSON *value;
    pm_err err;
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
    err = pmi_json_print(value, PMI_SETTINGS_DEPTH_MAX, out);
    if (err)
        return err;
    pmi_buf_add_byte(out, '}');
    return out->failed ? PM_ENOMEM : PM_OK;
}

pm_err pm_session_sync(pm_session *session, const char *name, pm_done_cb cb,
                       void *ctx)
{
    pmi_session_done *done;
    pmi_buf text;
    pm_err err;
    if (!session->app)
        return PM_ECLOSED;
    if (session->ops) {
        err =
            pmi_session_promise(pmi_app_sessions(session->app), cb, ctx, &done);
        if (err == PM_OK)
            pmi_session_tell(done, session->closed ? PM_ECLOSED : PM_OK);
        return err;
    }
    pmi_buf_init(&text, pmi_loop_env(session->loop), PMI_SETTINGS_TEXT_MAX);
    err = session_settings_text(session, name, &text);
    if (err == PM_OK)
        err = session_ask(session, SESSION_SYNC, pmi_buf_slice(&text), cb, ctx);
    pmi_buf_fini(&text);
    return err;
}

pm_err pm_session_kick(pm_session *session, const char *reason, pm_done_cb cb,
                       void *ctx)
{
    pmi_session_done *done;
    pm_err err;
    if (reason && strlen(reason) > PMI_UID_MAX)
        return PM_EINVAL;
    if (!session->app)
        return PM_ECLOSED;
    if (!session->ops)
        return session_ask(session, reason ? SESSION_KICK : SESSION_DISCONNECT,
                           pm_text(reason), cb, ctx);
    err = pmi_session_promise(pmi_app_sessions(session->app), cb, ctx, &done);
    if (err == PM_OK)
        pmi_session_tell(done, session_kick_here(session, reason));
    return err;
}

/* ---- Pushes ------------------------------------------------------------ */

pm_err pmi_manner_make(pm_push_policy policy, const char *key, pmi_manner *out)
{
    out->policy = policy;
    out->key = pm_text(key);
    return (unsigned)policy > PM_PUSH_CLOSE || out->key.len > PMI_MANNER_KEY_MAX
               ? PM_EINVAL
               : PM_OK;
}

pm_slice pmi_manner_write(const pmi_manner *manner,
                          uint8_t room[PMI_MANNER_BYTES])
{
    if (manner->policy == PM_PUSH_DEFAULT && !manner->key.len)
        return pm_bytes(NULL, 0);
    room[0] = (uint8_t)manner->policy;
    if (manner->key.len)
        memcpy(room + 1, manner->key.data, manner->key.len);
    return pm_bytes(room, 1 + manner->key.len);
}

pm_err pmi_manner_read(pm_slice bytes, pmi_manner *out)
{
    pmi_cursor in = pmi_cursor_of(bytes.data, bytes.len);
    memset(out, 0, sizeof *out);
    if (!bytes.len)
        return PM_OK;
    out->policy = (pm_push_policy)pmi_cursor_byte(&in);
    out->key = pmi_cursor_bytes(&in, pmi_cursor_left(&in));
    return (unsigned)out->policy > PM_PUSH_CLOSE ||
                   out->key.len > PMI_MANNER_KEY_MAX
               ? PM_EFRAME
               : PM_OK;
}

/* One receiver of a push, as pomelo_push serves it: by session id. */
static pm_err session_push_far(pm_session *session, const char *route,
                               pm_body body, const pmi_manner *manner)
{
    uint8_t sid[1 + 8] = {PMI_PUSH_BY_SID}, words[PMI_MANNER_BYTES];
    pmi_rpc_send_opts send = {.op = PMI_OP_PUSH,
                              .method = pm_text(route),
                              .server_id = session->frontend_id,
                              .extra = {sid, sizeof sid},
                              .body = body};
    pmi_put_be32(sid + 1, (uint32_t)(session->id >> 32));
    pmi_put_be32(sid + 5, (uint32_t)session->id);
    send.manner = pmi_manner_write(manner, words);
    return pmi_rpc_send(pmi_app_rpc(session->app), &send, NULL, NULL, NULL);
}

pm_err pmi_session_push(pm_session *session, const char *route, pm_body body,
                        const pmi_manner *manner)
{
    size_t len = route ? strlen(route) : 0;
    if (len == 0 || len > 255 || body.kind == PM_BODY_NONE)
        return PM_EINVAL;
    if (pm_session_is_closed(session))
        return PM_ECLOSED;
    if (session->ops)
        return session->ops->push(session, pm_text(route), body, manner);
    return session_push_far(session, route, body, manner);
}

pm_err pm_session_push(pm_session *session, const char *route, pm_body body)
{
    static const pmi_manner manner = {PM_PUSH_DEFAULT, {NULL, 0}};
    return pmi_session_push(session, route, body, &manner);
}

/* ---- Look-ups and kicks from anywhere ---------------------------------- */
/* One frontend or all of them are asked; the callback runs when all have said
 * something. */

typedef struct session_survey {
    pm_app *app;
    const pmi_env *env;
    pm_session_found_cb found; /* or: */
    pm_done_cb done;
    void *ctx;
    pm_session **views; /* owned, a reference each */
    size_t count, open;
    size_t hits; /* frontends that had what was asked for */
    pm_err err;  /* the first failure that is not "not here" */
} session_survey;

static void survey_free(session_survey *survey)
{
    for (size_t i = 0; i < survey->count; i++)
        pm_session_unref(survey->views[i]);
    pmi_free(survey->env, survey->views);
    pmi_free(survey->env, survey);
}

static void survey_end(session_survey *survey)
{
    pm_err err = survey->hits  ? PM_OK
                 : survey->err ? survey->err
                               : PM_ENOTFOUND;
    if (survey->found)
        survey->found(err, survey->views, err ? 0 : survey->count, survey->ctx);
    else if (survey->done)
        survey->done(err, pm_strerror(err), survey->ctx);
    survey_free(survey);
}

static pm_err survey_take(session_survey *survey, pm_slice one)
{
    pm_session **views = pmi_resize_array(
        survey->env, survey->views, survey->count + 1, sizeof(pm_session *));
    pm_err err;
    if (!views)
        return PM_ENOMEM;
    survey->views = views;
    err = pmi_session_import(survey->app, one, &views[survey->count]);
    if (err == PM_OK)
        survey->count++;
    return err;
}

static pm_err survey_take_all(session_survey *survey, pm_slice extra)
{
    pmi_cursor in = pmi_cursor_of(extra.data, extra.len);
    while (pmi_cursor_left(&in)) {
        pm_slice len = pmi_cursor_bytes(&in, 4);
        pm_slice one =
            pmi_cursor_bytes(&in, in.bad ? 0 : pmi_get_be32(len.data));
        pm_err err = in.bad ? PM_EFRAME : survey_take(survey, one);
        if (err)
            return err;
    }
    return PM_OK;
}

static void survey_answered(const pmi_rpc_answer *answer, void *ctx)
{
    session_survey *survey = ctx;
    pm_err err = answer->result.err;
    if (err == PM_EREMOTE && answer->result.code < 0)
        err = (pm_err)answer->result.code;
    if (err == PM_OK && pmi_app_state_of(survey->app) == PMI_APP_FREED)
        err = PM_ECLOSED;
    if (err == PM_OK && survey->found)
        err = survey_take_all(survey, answer->extra);
    if (err == PM_OK)
        survey->hits++;
    else if (err != PM_ENOTFOUND && !survey->err)
        survey->err = err;
    if (--survey->open == 0)
        survey_end(survey);
}

/* A frontend that can not even be asked is one that failed. */
static void survey_ask(session_survey *survey, const char *server_id,
                       pm_slice extra)
{
    pmi_rpc_send_opts send = {.op = PMI_OP_SESSION, .server_id = server_id};
    pm_err err;
    send.extra = extra;
    survey->open++;
    err = pmi_rpc_send(pmi_app_rpc(survey->app), &send, survey_answered, survey,
                       NULL);
    if (err == PM_OK)
        return;
    survey->open--;
    if (!survey->err)
        survey->err = err;
}

static void survey_ask_all(session_survey *survey, pm_slice extra)
{
    pmi_cluster *cluster = pmi_app_cluster(survey->app);
    pmi_server *server = pmi_cluster_next(cluster, NULL);
    for (; server; server = pmi_cluster_next(cluster, server))
        if (server->pub.frontend)
            survey_ask(survey, server->pub.id, extra);
}

/* `like` holds who is to be told. */
static pm_err survey_start(pm_app *app, const char *frontend_id,
                           const session_survey *like, pm_slice extra)
{
    const pmi_env *env = pmi_loop_env(pm_app_loop(app));
    session_survey *survey;
    pm_err err;
    if (pmi_app_state_of(app) == PMI_APP_FREED)
        return PM_ECLOSED;
    survey = pmi_alloc(env, sizeof *survey);
    if (!survey)
        return PM_ENOMEM;
    *survey = *like;
    survey->app = app;
    survey->env = env;
    if (frontend_id)
        survey_ask(survey, frontend_id, extra);
    else
        survey_ask_all(survey, extra);
    if (survey->open)
        return PM_OK;
    err = survey->err ? survey->err : PM_ENOSERVER;
    survey_free(survey);
    return err;
}

/* what | sid | text. */
static pm_err survey_run(pm_app *app, const char *frontend_id, uint8_t what,
                         uint64_t sid, const pm_slice *text, size_t parts,
                         const session_survey *like)
{
    pmi_buf extra;
    pm_err err;
    pmi_buf_init(&extra, pmi_loop_env(pm_app_loop(app)), 1024);
    pmi_buf_add_byte(&extra, what);
    session_put_number(&extra, sid);
    for (size_t i = 0; i < parts; i++)
        pmi_buf_add(&extra, text[i].data, text[i].len);
    err = extra.failed
              ? PM_ENOMEM
              : survey_start(app, frontend_id, like, pmi_buf_slice(&extra));
    pmi_buf_fini(&extra);
    return err;
}

pm_err pm_session_fetch(pm_app *app, const char *frontend_id, uint64_t sid,
                        pm_session_found_cb cb, void *ctx)
{
    session_survey like = {.found = cb, .ctx = ctx};
    if (!frontend_id || !cb)
        return PM_EINVAL;
    return survey_run(app, frontend_id, SESSION_GET, sid, NULL, 0, &like);
}

pm_err pm_session_fetch_uid(pm_app *app, const char *frontend_id,
                            const char *uid, pm_session_found_cb cb, void *ctx)
{
    session_survey like = {.found = cb, .ctx = ctx};
    pm_slice text = pm_text(uid);
    if (!session_uid_fits(uid) || !cb)
        return PM_EINVAL;
    return survey_run(app, frontend_id, SESSION_GET_UID, 0, &text, 1, &like);
}

static bool session_reason_fits(const char *reason)
{
    return !reason || strlen(reason) <= PMI_UID_MAX;
}

pm_err pm_session_kick_sid(pm_app *app, const char *frontend_id, uint64_t sid,
                           const char *reason, pm_done_cb cb, void *ctx)
{
    session_survey like = {.done = cb, .ctx = ctx};
    pm_slice text = pm_text(reason);
    if (!frontend_id || !session_reason_fits(reason))
        return PM_EINVAL;
    return survey_run(app, frontend_id,
                      reason ? SESSION_KICK : SESSION_DISCONNECT, sid, &text, 1,
                      &like);
}

pm_err pm_session_kick_uid(pm_app *app, const char *frontend_id,
                           const char *uid, const char *reason, pm_done_cb cb,
                           void *ctx)
{
    session_survey like = {.done = cb, .ctx = ctx};
    pm_slice text[3];
    uint8_t len;
    if (!session_uid_fits(uid) || !session_reason_fits(reason))
        return PM_EINVAL;
    len = (uint8_t)strlen(uid);
    text[0] = pm_bytes(&len, 1);
    text[1] = pm_text(uid);
    text[2] = pm_text(reason);
    return survey_run(app, frontend_id,
                      reason ? SESSION_KICK_UID : SESSION_DISCONNECT_UID, 0,
                      text, 3, &like);
}
