/* SPDX-License-Identifier: MIT */
/* pomelo_push.c -- one message to many receivers, on its way.
 *
 *   job --+-- leg: this very frontend      encoded once, a chunk that all
 *         |                                sessions' queues refer to
 *         +-- leg: connector-2  --call-->  the same there, by push_serve
 *         +-- leg: connector-3  --call-->
 *
 * A leg is one frontend: one call, whatever the number of receivers. (A list
 * of uids above 1 MiB goes in several.) The job tells once all legs are
 * through: who was missed, and whether anybody was reached at all. It stands
 * above the connector in SRCS, since what it hands to sessions is the
 * connector's encoded chunk; only pomelo_channel.c is built on it. Start at
 * pmi_push_go and pmi_push_serve. */
#include "pomelo_push_internal.h"
#include "pomelo_connector_internal.h"
#include "pomelo_frame_internal.h"

#define PUSH_UIDS_MAX (1024u * 1024)
/* A broadcast's flags. */
enum { PUSH_BOUND_ONLY = 1, PUSH_FILTER_PARAM = 2 };
/* Jobs and legs kept for the next ones. */
#define PUSH_SPARE_MAX 64
/* Of a call's frame: what is neither body nor list. */
#define PUSH_FRAME_REST 2048u

typedef struct push_leg {
    pmi_push_job *job;
    pmi_link in_job;
    pmi_uids *uids;        /* a reference; NULL: a broadcast */
    const char *server_id; /* the list's; a broadcast's is borrowed until go */
    uint64_t call_id;
    pmi_buf missed; /* uids without a session there: length (1) and bytes */
    bool waits;     /* for its answer */
    bool reached;
} push_leg;

struct pmi_push_job {
    pmi_pushes *pushes;
    pmi_link in_all;
    pmi_link legs; /* in the order in which they were added */
    pmi_task task; /* tells on a later turn when no call does */
    pm_push_cb cb;
    void *ctx;
    const pmi_audience *audience; /* a broadcast's; borrowed until go */
    pmi_manner manner;            /* its key is borrowed until go */
    pm_slice manner_bytes;        /* the same as it travels; borrowed */
    pmi_buf extra;                /* the same as it travels */
    uint32_t waiting, reached;
    pm_err err; /* of the first leg that failed */
    bool short_of_memory;
};

/* A message, encoded when its first receiver is there. */
typedef struct push_message {
    pmi_pushes *pushes;
    pm_slice route;
    pm_body body;
    pmi_manner manner;
    pmi_push push;
    bool made;
} push_message;

/* ---- Lists of uids ----------------------------------------------------- */

pmi_uids *pmi_uids_new(const pmi_env *env, const char *frontend_id)
{
    size_t len = strlen(frontend_id) + 1;
    pmi_uids *uids = pmi_zalloc(env, sizeof *uids + len);
    if (!uids)
        return NULL;
    memcpy(uids->frontend_id, frontend_id, len);
    uids->refs = 1;
    uids->last = uids;
    pmi_buf_init(&uids->bytes, env, PUSH_UIDS_MAX);
    pmi_buf_add_byte(&uids->bytes, PMI_PUSH_BY_UIDS);
    if (uids->bytes.failed) {
        pmi_uids_unref(uids);
        return NULL;
    }
    return uids;
}

pm_err pmi_uids_add(pmi_uids *uids, const char *uid)
{
    size_t len = strlen(uid);
    pmi_uids *last = uids->last;
    PMI_ASSERT(uids->refs == 1 && len > 0 && len <= 255);
    if (last->bytes.len + 1 + len > PUSH_UIDS_MAX) {
        last->next = pmi_uids_new(uids->bytes.env, uids->frontend_id);
        if (!last->next)
            return PM_ENOMEM;
        uids->last = last = last->next;
    }
    pmi_buf_add_byte(&last->bytes, (uint8_t)len);
    pmi_buf_add(&last->bytes, uid, len);
    return last->bytes.failed ? PM_ENOMEM : PM_OK;
}

pmi_uids *pmi_uids_ref(pmi_uids *uids)
{
    uids->refs++;
    return uids;
}

void pmi_uids_unref(pmi_uids *uids)
{
    while (uids && --uids->refs == 0) {
        pmi_uids *next = uids->next;
        const pmi_env *env = uids->bytes.env;
        pmi_buf_fini(&uids->bytes);
        pmi_free(env, uids);
        uids = next;
    }
}

/* The next uid of a list; false at its end. What is cut, empty or holds a 0
 * byte makes the list bad and ends it. */
static bool push_next_uid(pmi_cursor *in, pm_slice *uid)
{
    if (in->bad || !pmi_cursor_left(in))
        return false;
    *uid = pmi_cursor_bytes(in, pmi_cursor_byte(in));
    if (!uid->len || memchr(uid->data, 0, uid->len))
        in->bad = true;
    return !in->bad;
}

/* How many uids; *bad when it is no list. */
static size_t push_count_uids(pm_slice list, bool *bad)
{
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    pm_slice uid;
    size_t count = 0;
    while (push_next_uid(&in, &uid))
        count++;
    *bad = in.bad;
    return count;
}

/* Without the first byte, which says what it is. */
static pm_slice push_list_of(pm_slice extra)
{
    return pm_bytes((const uint8_t *)extra.data + 1, extra.len - 1);
}

/* ---- To sessions of this frontend -------------------------------------- */

static push_message push_message_of(pmi_pushes *pushes, pm_slice route,
                                    pm_body body)
{
    push_message message = {.pushes = pushes, .route = route, .body = body};
    return message;
}

static void push_message_fini(push_message *message)
{
    if (message->made)
        pmi_push_fini(&message->push);
}

/* The encoding is the only thing that can fail, and is made before the first
 * session gets anything. */
static pm_err push_make(push_message *message)
{
    pm_err err;
    if (message->made)
        return PM_OK;
    err = pmi_connector_encode_push(message->pushes->app, message->route,
                                    message->body, &message->manner,
                                    &message->push);
    if (err)
        return err;
    message->made = true;
    message->pushes->encoded++;
    return PM_OK;
}

/* False: the session can not take it, since it is being closed. One that drops
 * it is there, and not missed. */
static bool push_hand(push_message *message, pm_session *session)
{
    pm_err err = pmi_connector_send_push(session, &message->push);
    if (err == PM_OK)
        message->pushes->delivered++;
    return err == PM_OK || err == PM_EDROPPED;
}

/* Ends of connections come on later turns: the ring stays as it is meanwhile.
 */
static pm_err push_hand_uid(push_message *message, pm_slice uid, bool *taken)
{
    pmi_sessions *sessions = pmi_app_sessions(message->pushes->app);
    pm_session *first = pmi_session_first_of(sessions, uid);
    *taken = false;
    for (pm_session *s = first; s; s = pmi_session_next_of(s, first)) {
        pm_err err = push_make(message);
        if (err)
            return err;
        if (push_hand(message, s))
            *taken = true;
    }
    return PM_OK;
}

/* To every session of every uid of a list that is known to be one. `missed`
 * (NULL: nobody asks) gets the uids that no session took it for. */
static pm_err push_hand_list(push_message *message, pm_slice list,
                             pmi_buf *missed)
{
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    pm_slice uid;
    /* Room for all beforehand, so that nothing is half done. */
    if (missed && !pmi_buf_reserve(missed, list.len))
        return PM_ENOMEM;
    while (push_next_uid(&in, &uid)) {
        bool taken;
        pm_err err = push_hand_uid(message, uid, &taken);
        if (err)
            return err;
        message->pushes->missed += !taken;
        if (!taken && missed) {
            pmi_buf_add_byte(missed, (uint8_t)uid.len);
            pmi_buf_add(missed, uid.data, uid.len);
        }
    }
    return PM_OK;
}

typedef struct push_round {
    push_message *message;
    const pmi_audience *audience;
    pm_err err;
} push_round;

static bool push_is_meant(const push_round *round, pm_session *session)
{
    const pmi_pushes *pushes = round->message->pushes;
    const push_message *message = round->message;
    const pmi_audience *audience = round->audience;
    if (audience->bound_only && !pm_session_uid(session))
        return false;
    return !pushes->filter ||
           pushes->filter(session, message->route.data, message->body,
                          audience->filter_param, pushes->filter_ctx);
}

static bool push_hand_each(pm_session *session, void *ctx)
{
    push_round *round = ctx;
    const pm_app *app = round->message->pushes->app;
    bool meant = push_is_meant(round, session);
    if (pmi_app_state_of(app) == PMI_APP_FREED) { /* by the filter */
        round->err = PM_ECLOSED;
        return false;
    }
    if (!meant || pm_session_is_closed(session))
        return true;
    round->err = push_make(round->message);
    if (round->err)
        return false;
    push_hand(round->message, session);
    return true;
}

/* The app may be freed in here. */
static pm_err push_hand_all(push_message *message, const pmi_audience *audience)
{
    push_round round = {message, audience, PM_OK};
    pm_session_each(message->pushes->app, NULL, push_hand_each, &round);
    return round.err;
}

/* ---- Serving ----------------------------------------------------------- */

static pm_err push_hand_sid(push_message *message, pm_slice bytes)
{
    const uint8_t *at = bytes.data;
    pm_session *session;
    pm_err err;
    if (bytes.len != 8)
        return PM_EFRAME;
    session =
        pm_session_find(message->pushes->app, (uint64_t)pmi_get_be32(at) << 32 |
                                                  pmi_get_be32(at + 4));
    if (!session)
        return PM_ENOTFOUND;
    err = push_make(message);
    if (err == PM_OK && !push_hand(message, session))
        err = PM_ECLOSED;
    return err;
}

static pm_err push_serve_extra(push_message *message, pm_slice extra,
                               pmi_buf *missed)
{
    pm_slice list;
    bool bad;
    if (!extra.len)
        return PM_EFRAME;
    list = push_list_of(extra);
    if (*(const uint8_t *)extra.data == PMI_PUSH_BY_SID)
        return push_hand_sid(message, list);
    if (*(const uint8_t *)extra.data != PMI_PUSH_BY_UIDS)
        return PM_EFRAME;
    push_count_uids(list, &bad);
    return bad ? PM_EFRAME : push_hand_list(message, list, missed);
}

/* The call itself has worked: what became of the push is a code of its own. */
static void push_answer(pm_call *call, pm_err err, pm_slice missed)
{
    pmi_call_answer(call, err ? PM_EREMOTE : PM_OK, err,
                    err ? pm_strerror(err) : NULL, pm_body_none(), missed);
}

void pmi_push_serve(pmi_pushes *pushes, pm_call *call)
{
    push_message message = push_message_of(
        pushes, pm_text(pm_call_method(call)), pm_call_args(call));
    pmi_buf missed;
    pm_err err;
    pmi_buf_init(&missed, pushes->env, PMI_FRAME_MAX);
    err = pmi_manner_read(pmi_call_manner(call), &message.manner);
    if (err == PM_OK)
        err = push_serve_extra(&message, pmi_call_extra(call),
                               pm_call_is_notify(call) ? NULL : &missed);
    push_message_fini(&message);
    push_answer(call, err, pmi_buf_slice(&missed));
    pmi_buf_fini(&missed);
}

/* flags (1) | text for the filter, when there is one. *param is a copy. */
static pm_err push_take_audience(const pmi_env *env, pm_slice extra,
                                 pmi_audience *audience, char **param)
{
    pmi_cursor in = pmi_cursor_of(extra.data, extra.len);
    uint8_t flags = pmi_cursor_byte(&in);
    pm_slice text = pmi_cursor_bytes(&in, pmi_cursor_left(&in));
    bool has_param = flags & PUSH_FILTER_PARAM;
    if (in.bad || flags > (PUSH_BOUND_ONLY | PUSH_FILTER_PARAM) ||
        text.len > PMI_FILTER_PARAM_MAX || (!has_param && text.len) ||
        (text.len && memchr(text.data, 0, text.len)))
        return PM_EFRAME;
    audience->bound_only = flags & PUSH_BOUND_ONLY;
    *param = has_param ? pmi_strndup(env, text.data, text.len) : NULL;
    audience->filter_param = *param;
    return has_param && !*param ? PM_ENOMEM : PM_OK;
}

void pmi_push_serve_broadcast(pmi_pushes *pushes, pm_call *call)
{
    push_message message = push_message_of(
        pushes, pm_text(pm_call_method(call)), pm_call_args(call));
    pm_slice extra = pmi_call_extra(call);
    pmi_audience audience;
    char *param = NULL;
    pm_err err = push_take_audience(pushes->env, extra, &audience, &param);
    if (err == PM_OK)
        err = pmi_manner_read(pmi_call_manner(call), &message.manner);
    if (err == PM_OK)
        err = push_hand_all(&message, &audience);
    pmi_free(pushes->env, param);
    push_message_fini(&message);
    push_answer(call, err, pm_bytes(NULL, 0));
}

/* ---- Jobs: put together ------------------------------------------------ */

void pmi_pushes_init(pmi_pushes *pushes, pm_app *app)
{
    memset(pushes, 0, sizeof *pushes);
    pushes->app = app;
    pushes->env = pmi_loop_env(pm_app_loop(app));
    pmi_spares_init(&pushes->spare_jobs, pushes->env, sizeof(pmi_push_job),
                    sizeof(pmi_push_job), PUSH_SPARE_MAX);
    pmi_spares_init(&pushes->spare_legs, pushes->env, sizeof(push_leg),
                    sizeof(push_leg), PUSH_SPARE_MAX);
    pmi_list_init(&pushes->jobs);
}

pm_err pmi_push_open(pmi_pushes *pushes, pm_push_cb cb, void *ctx,
                     pmi_push_job **out)
{
    pmi_push_job *job = pmi_spares_get(&pushes->spare_jobs);
    if (!job)
        return PM_ENOMEM;
    job->pushes = pushes;
    job->cb = cb;
    job->ctx = ctx;
    pmi_list_init(&job->legs);
    pmi_buf_init(&job->extra, pushes->env, 1 + PMI_FILTER_PARAM_MAX);
    *out = job;
    return PM_OK;
}

static push_leg *push_leg_new(pmi_push_job *job)
{
    pmi_pushes *pushes = job->pushes;
    push_leg *leg = pmi_spares_get(&pushes->spare_legs);
    if (!leg)
        return NULL;
    leg->job = job;
    pmi_buf_init(&leg->missed, pushes->env, PMI_FRAME_MAX);
    pmi_list_add(&job->legs, &leg->in_job);
    return leg;
}

void pmi_push_in_manner(pmi_push_job *job, const pmi_manner *manner)
{
    job->manner = *manner;
}

pm_err pmi_push_to_uids(pmi_push_job *job, pmi_uids *uids)
{
    for (; uids; uids = uids->next) {
        push_leg *leg = push_leg_new(job);
        if (!leg)
            return PM_ENOMEM;
        leg->uids = pmi_uids_ref(uids);
        leg->server_id = uids->frontend_id;
    }
    return PM_OK;
}

pm_err pmi_push_to_all(pmi_push_job *job, const pmi_audience *audience)
{
    const char *param = audience->filter_param;
    uint8_t flags = audience->bound_only ? PUSH_BOUND_ONLY : 0;
    job->audience = audience;
    if (param)
        flags |= PUSH_FILTER_PARAM;
    pmi_buf_add_byte(&job->extra, flags);
    pmi_buf_add_text(&job->extra, param ? param : "");
    return job->extra.failed ? PM_ENOMEM : PM_OK;
}

pm_err pmi_push_to_server(pmi_push_job *job, const char *server_id)
{
    push_leg *leg = push_leg_new(job);
    if (!leg)
        return PM_ENOMEM;
    leg->server_id = server_id;
    return PM_OK;
}

void pmi_push_drop(pmi_push_job *job)
{
    pmi_pushes *pushes = job->pushes;
    pmi_link *node;
    pmi_task_cancel(&job->task);
    pmi_list_remove(&job->in_all);
    while ((node = pmi_list_take(&job->legs))) {
        push_leg *leg = PMI_OUTER(node, push_leg, in_job);
        pmi_uids_unref(leg->uids);
        pmi_buf_fini(&leg->missed);
        pmi_spares_put(&pushes->spare_legs, leg);
    }
    pmi_buf_fini(&job->extra);
    pmi_spares_put(&pushes->spare_jobs, job);
}

static push_leg *push_leg_after(pmi_push_job *job, push_leg *leg)
{
    pmi_link *next = leg ? leg->in_job.next : job->legs.next;
    return next == &job->legs ? NULL : PMI_OUTER(next, push_leg, in_job);
}

/* ---- Jobs: told -------------------------------------------------------- */

/* Whom a leg did not reach. */
static pm_slice push_leg_missed(const push_leg *leg)
{
    if (!leg->uids)
        return pm_bytes(NULL, 0);
    return leg->reached ? pmi_buf_slice(&leg->missed)
                        : push_list_of(pmi_buf_slice(&leg->uids->bytes));
}

/* The receivers that were missed, and behind them the texts that they point
 * to. *count 0: nobody. PM_ENOMEM */
static pm_err push_list_missed(pmi_push_job *job, pm_receiver **out,
                               size_t *count)
{
    size_t texts = 0, n = 0, at = 0;
    bool bad;
    char *text;
    *out = NULL;
    *count = 0;
    for (push_leg *l = NULL; (l = push_leg_after(job, l));) {
        pm_slice list = push_leg_missed(l);
        texts += list.len;
        n += push_count_uids(list, &bad);
    }
    if (!n)
        return PM_OK;
    *out = pmi_alloc(job->pushes->env, n * sizeof **out + texts);
    if (!*out)
        return PM_ENOMEM;
    text = (char *)(*out + n);
    for (push_leg *l = NULL; (l = push_leg_after(job, l));) {
        pm_slice list = push_leg_missed(l), uid;
        pmi_cursor in = pmi_cursor_of(list.data, list.len);
        /* A 0 instead of the length: as many bytes. */
        while (push_next_uid(&in, &uid)) {
            memcpy(text, uid.data, uid.len);
            text[uid.len] = 0;
            (*out)[at].uid = text;
            (*out)[at++].frontend_id = l->server_id;
            text += uid.len + 1;
        }
    }
    *count = n;
    return PM_OK;
}

/* The one place where a job tells. */
static void push_tell(pmi_push_job *job)
{
    const pmi_env *env = job->pushes->env;
    pm_err err = job->reached ? PM_OK : job->err;
    pm_receiver *missed = NULL;
    size_t count = 0;
    pmi_list_remove(&job->in_all);
    pmi_task_cancel(&job->task);
    if (push_list_missed(job, &missed, &count) || job->short_of_memory) {
        err = PM_ENOMEM;
        count = 0;
    }
    job->cb(err, missed, count, job->ctx);
    pmi_free(env, missed);
    pmi_push_drop(job);
}

static void push_tell_later(pmi_task *task)
{
    push_tell(PMI_OUTER(task, pmi_push_job, task));
}

static void push_leg_failed(push_leg *leg, pm_err err)
{
    if (!leg->job->err)
        leg->job->err = err;
}

static void push_leg_reached(push_leg *leg)
{
    leg->reached = true;
    leg->job->reached++;
}

/* A frontend's refusal travels as a code of the remote side. */
static void push_answered(const pmi_rpc_answer *answer, void *ctx)
{
    push_leg *leg = ctx;
    pmi_push_job *job = leg->job;
    pm_err err = answer->result.err;
    bool bad;
    if (err == PM_EREMOTE && answer->result.code < 0)
        err = (pm_err)answer->result.code;
    push_count_uids(answer->extra, &bad);
    if (err == PM_OK && bad)
        err = PM_EFRAME;
    leg->waits = false;
    if (err) {
        push_leg_failed(leg, err);
    } else {
        push_leg_reached(leg);
        pmi_buf_add(&leg->missed, answer->extra.data, answer->extra.len);
        job->short_of_memory |= leg->missed.failed;
    }
    if (--job->waiting == 0)
        push_tell(job);
}

void pmi_pushes_fini(pmi_pushes *pushes)
{
    pmi_spares_fini(&pushes->spare_legs);
    pmi_spares_fini(&pushes->spare_jobs);
}

void pmi_pushes_close(pmi_pushes *pushes)
{
    pmi_rpc *rpc = pmi_app_rpc(pushes->app);
    pmi_link *node;
    while ((node = pmi_list_take(&pushes->jobs))) {
        pmi_push_job *job = PMI_OUTER(node, pmi_push_job, in_all);
        for (push_leg *l = NULL; (l = push_leg_after(job, l));)
            if (l->waits)
                pmi_rpc_forget(rpc, l->call_id);
        job->reached = 0;
        job->err = PM_ECLOSED;
        push_tell(job);
    }
}

/* ---- Jobs: on their way ------------------------------------------------ */

static pm_slice push_leg_extra(const push_leg *leg)
{
    return pmi_buf_slice(leg->uids ? &leg->uids->bytes : &leg->job->extra);
}

static bool push_is_here(const push_leg *leg)
{
    const pm_server *self = pm_app_server(leg->job->pushes->app);
    return !strcmp(leg->server_id, self->id);
}

/* What can be refused is refused before anybody gets anything. */
static pm_err push_check(pmi_push_job *job, pm_slice route, pm_body body)
{
    if (!route.len || route.len > 255 || body.kind == PM_BODY_NONE)
        return PM_EINVAL;
    if (pmi_app_state_of(job->pushes->app) == PMI_APP_FREED)
        return PM_ECLOSED;
    for (push_leg *l = NULL; (l = push_leg_after(job, l));) {
        size_t rest = PUSH_FRAME_REST + push_leg_extra(l).len;
        if (!push_is_here(l) && body.data.len > PMI_FRAME_MAX - rest)
            return PM_ESIZE;
    }
    return PM_OK;
}

static pm_err push_leg_here(push_leg *leg, push_message *message)
{
    pmi_buf *missed = leg->job->cb ? &leg->missed : NULL;
    pm_err err;
    if (leg->uids)
        err =
            push_hand_list(message, push_list_of(push_leg_extra(leg)), missed);
    else
        err = push_hand_all(message, leg->job->audience);
    if (err == PM_OK)
        push_leg_reached(leg);
    return err;
}

/* This server's own sessions get it at once. */
static pm_err push_send_here(pmi_push_job *job, pm_slice route, pm_body body)
{
    push_message message = push_message_of(job->pushes, route, body);
    pm_err err = PM_OK;
    message.manner = job->manner;
    for (push_leg *l = NULL; !err && (l = push_leg_after(job, l));)
        if (push_is_here(l))
            err = push_leg_here(l, &message);
    push_message_fini(&message);
    return err;
}

static void push_leg_send(push_leg *leg, pm_slice route, pm_body body)
{
    pmi_push_job *job = leg->job;
    pmi_rpc_send_opts send = {.op = leg->uids ? PMI_OP_PUSH : PMI_OP_BROADCAST,
                              .method = route,
                              .server_id = leg->server_id,
                              .extra = push_leg_extra(leg),
                              .manner = job->manner_bytes,
                              .body = body};
    pm_err err =
        pmi_rpc_send(pmi_app_rpc(job->pushes->app), &send,
                     job->cb ? push_answered : NULL, leg, &leg->call_id);
    if (err) {
        push_leg_failed(leg, err);
        return;
    }
    job->pushes->calls_sent++;
    if (job->cb) {
        leg->waits = true;
        job->waiting++;
    } else {
        push_leg_reached(leg);
    }
}

/* Nothing has left, and for want of what the caller could have had. */
static bool push_is_refused(const pmi_push_job *job)
{
    if (!job->err || job->waiting || job->reached)
        return false;
    return !job->cb || job->err == PM_ENOMEM || job->err == PM_ESIZE;
}

pm_err pmi_push_go(pmi_push_job *job, const char *route, pm_body body)
{
    uint8_t manner[PMI_MANNER_BYTES];
    pm_slice name = pm_text(route);
    pm_err err = push_check(job, name, body);
    job->manner_bytes = pmi_manner_write(&job->manner, manner);
    if (err == PM_OK)
        err = push_send_here(job, name, body);
    for (push_leg *l = NULL; !err && (l = push_leg_after(job, l));)
        if (!push_is_here(l))
            push_leg_send(l, name, body);
    if (err == PM_OK && push_is_refused(job))
        err = job->err;
    if (err || !job->cb) {
        pmi_push_drop(job);
        return err;
    }
    pmi_list_add(&job->pushes->jobs, &job->in_all);
    if (!job->waiting)
        pmi_loop_defer(pm_app_loop(job->pushes->app), &job->task,
                       push_tell_later);
    return PM_OK;
}
