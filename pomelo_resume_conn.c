/* SPDX-License-Identifier: MIT */
/* pomelo_resume_conn.c -- sessions that leave their connection and find
 * another one.
 *
 * A handshake with a good token takes the session over at once: its answer
 * says how many packages have come, so that none may come by the old way any
 * more. With the ACK the new connection is the session's, and what the client
 * lacks goes first. Start reading at pmi_resume_greet(). */
#include "pomelo_meter_internal.h"

#include <cjson/cJSON.h>

#define RESUME_COUNT_MAX 9007199254740992.0 /* 2^53 */

/* ---- Leaving a connection ---------------------------------------------- */

/* Takes the session away from its connection, which is closing or will. */
static void resume_detach(pmi_resume *resume)
{
    const pm_connector_opts *opts =
        pmi_app_connector_opts(resume->resumes->app);
    pmi_downlink *down = resume->down;
    pm_session_address(resume->session); /* what is known now stays readable */
    if (down->meter) {
        pmi_timer_clear(&down->meter->idle);
        resume->key = down->meter->key;
        down->meter->key = NULL;
    }
    down->session = NULL;
    down->resume = NULL;
    down->resumes = false;
    resume->down = NULL;
    pmi_resume_leaves(resume);
    resume->due_us =
        pmi_loop_now_us(resume->window.loop) + (uint64_t)opts->resume_ms * 1000;
}

/* Nobody is there. */
static void resume_suspend(pmi_resume *resume, pm_close_reason reason)
{
    pmi_resumes *resumes = resume->resumes;
    pmi_resume_wait(resume);
    if (resume->told)
        return;
    resume->told = true;
    pmi_count(resumes->app, PMI_COUNT_RESUME_SUSPENDED);
    pmi_app_session_suspended(resumes->app, resume->session, reason);
}

/* An app that drains lets nobody in again: nothing waits there. */
static bool resume_may_wait(const pmi_resume *resume, pm_close_reason reason)
{
    return !resume->why && pmi_resume_survives(reason) &&
           pmi_app_state_of(resume->resumes->app) == PMI_APP_RUNNING;
}

/* The connection that should have become the session's. */
static void resume_lost_next(pmi_downlink *down, pm_close_reason reason)
{
    pmi_resume *resume = down->resume;
    down->resume = NULL;
    down->resumes = false;
    resume->next = NULL;
    if (!resume->session)
        pmi_resume_free(resume);
    else if (resume_may_wait(resume, PM_CLOSE_CLIENT))
        resume_suspend(resume, reason);
    else
        pmi_resume_revoke(resume, PM_CLOSE_STOP);
}

bool pmi_resume_lost(pmi_downlink *down, pm_close_reason *reason)
{
    pmi_resume *resume = down->resume;
    if (resume->down != down) {
        resume_lost_next(down, *reason);
        return true;
    }
    if (resume_may_wait(resume, *reason)) {
        resume_detach(resume);
        resume_suspend(resume, *reason);
        return true;
    }
    if (resume->why)
        *reason = resume->why;
    resume->why = *reason;
    return false;
}

void pmi_resume_leave(pmi_downlink *down)
{
    pmi_resume_revoke(down->resume, PM_CLOSE_CLIENT);
    pmi_downlink_close(down, PM_CLOSE_CLIENT);
}

static void resume_hang_up(pmi_downlink *down, pm_close_reason why)
{
    down->resume->next = NULL;
    down->resume = NULL;
    down->resumes = false;
    pmi_downlink_close(down, why);
}

void pmi_resume_serve(pmi_resumes *resumes)
{
    resumes->hang_up = resume_hang_up;
}

/* ---- Handshake --------------------------------------------------------- */

/* A count in the client's words; `otherwise` when there is none, UINT64_MAX
 * when it makes no sense. */
static uint64_t resume_count(const cJSON *ask, const char *name,
                             uint64_t otherwise)
{
    const cJSON *value = pmi_json_get(ask, name);
    double number = cJSON_IsNumber(value) ? value->valuedouble : -1;
    if (!value)
        return otherwise;
    if (!(number >= 0 && number <= RESUME_COUNT_MAX))
        return UINT64_MAX;
    return (uint64_t)number;
}

/* Has each side what the other one lacks? */
static bool resume_fits(const pmi_resume *resume, uint64_t received,
                        uint64_t from)
{
    return received <= resume->window.last &&
           received + 1 >= pmi_window_oldest(&resume->window) &&
           from <= resume->received + 1;
}

/* From now on only what this connection brings counts. */
static void resume_claim(pmi_resume *resume, pmi_downlink *down,
                         uint64_t received)
{
    pmi_downlink *before = resume->down;
    if (before) {
        resume_detach(resume);
        pmi_downlink_close(before, PM_CLOSE_TAKEOVER);
    } else if (resume->next) {
        resume_hang_up(resume->next, PM_CLOSE_TAKEOVER);
    }
    pmi_resume_wake(resume);
    resume->next = down;
    resume->had = received;
    pmi_window_trim(&resume->window, received);
    pmi_resume_draw(resume);
}

/* NULL: a new session. *why says why it is none of old, when one was asked
 * for. */
static pmi_resume *resume_asked(pmi_downlink *down, const cJSON *ask,
                                const char **why)
{
    pmi_resumes *resumes = pmi_app_resumes(down->app);
    const cJSON *token = pmi_json_get(ask, "token");
    uint64_t received = resume_count(ask, "received", UINT64_MAX);
    uint64_t from = resume_count(ask, "from", 1);
    pmi_resume *resume = NULL;
    *why = NULL;
    if (!token)
        return NULL;
    if (cJSON_IsString(token))
        resume = pmi_resume_find(resumes, token->valuestring);
    if (resume && resume->session && resume_fits(resume, received, from)) {
        resume_claim(resume, down, received);
        return resume;
    }
    *why = resume && resume->session ? "lost" : "unknown";
    pmi_count(down->app, PMI_COUNT_RESUME_REFUSED);
    if (resume && resume->session) {
        pmi_resume_revoke(resume, PM_CLOSE_RESUME);
        if (resume->down)
            pmi_downlink_close(resume->down, PM_CLOSE_TAKEOVER);
    }
    return NULL;
}

static pm_err resume_add(cJSON *object, const char *name, cJSON *item)
{
    pm_err err = item ? pmi_json_add(object, name, item) : PM_ENOMEM;
    if (err)
        cJSON_Delete(item);
    return err;
}

/* The member of the answer. NULL: no memory. */
static cJSON *resume_say(const pmi_resume *resume, const char *why)
{
    const pm_connector_opts *opts =
        pmi_app_connector_opts(resume->resumes->app);
    char token[PMI_RESUME_TOKEN + 1];
    cJSON *say = cJSON_CreateObject();
    pm_err err = say ? PM_OK : PM_ENOMEM;
    pmi_resume_token(resume->offered, resume->id, token);
    if (err == PM_OK && (why || resume->session))
        err = resume_add(say, "resumed", cJSON_CreateBool(!why));
    if (err == PM_OK && why)
        err = resume_add(say, "why", cJSON_CreateString(why));
    if (err == PM_OK && resume->session)
        err = resume_add(say, "received",
                         cJSON_CreateNumber((double)resume->received));
    if (err == PM_OK)
        err = resume_add(say, "token", cJSON_CreateString(token));
    if (err == PM_OK)
        err = resume_add(say, "bytes", cJSON_CreateNumber(opts->resume_bytes));
    if (err == PM_OK)
        err = resume_add(say, "ms", cJSON_CreateNumber(opts->resume_ms));
    if (err == PM_OK)
        return say;
    cJSON_Delete(say);
    return NULL;
}

pm_err pmi_resume_greet(pmi_downlink *down, const cJSON *msg, const cJSON *user,
                        cJSON **answer)
{
    pmi_resumes *resumes = pmi_app_resumes(down->app);
    const cJSON *ask = pmi_json_get(pmi_json_get(msg, "user"), PMI_RESUME_NAME);
    const char *why;
    pmi_resume *resume;
    *answer = NULL;
    if (!pmi_app_connector_opts(down->app)->resume_ms || !cJSON_IsObject(ask) ||
        (user && !cJSON_IsObject(user)) ||
        pmi_app_state_of(down->app) != PMI_APP_RUNNING)
        return PM_OK;
    resume = resume_asked(down, ask, &why);
    if (!resume)
        resume = pmi_resume_new(resumes);
    if (!resume)
        return PM_ENOMEM;
    resume->next = down;
    down->resume = resume;
    down->resumes = true;
    *answer = user ? cJSON_Duplicate(user, true) : cJSON_CreateObject();
    if (*answer &&
        !resume_add(*answer, PMI_RESUME_NAME, resume_say(resume, why)))
        return PM_OK;
    cJSON_Delete(*answer);
    *answer = NULL;
    return PM_ENOMEM;
}

/* ---- Coming to a connection -------------------------------------------- */

static pm_err resume_open(pmi_resume *resume, pmi_downlink *down,
                          const pmi_session_ops *ops)
{
    pm_err err = pmi_session_open(pmi_app_sessions(down->app), ops, resume,
                                  &down->session);
    if (err)
        return err;
    resume->session = down->session;
    resume->session->resumes = true;
    return PM_OK;
}

static void resume_return(pmi_resume *resume, pmi_downlink *down)
{
    down->session = resume->session;
    if (down->meter) {
        pmi_rsa_free(down->meter->key);
        down->meter->key = resume->key;
        resume->key = NULL;
    }
    pmi_session_moved(resume->session);
    memcpy(resume->secret, resume->offered, sizeof resume->secret);
}

pm_err pmi_resume_ack(pmi_downlink *down, const pmi_session_ops *ops,
                      bool *resumed)
{
    pmi_resume *resume = down->resume;
    pm_err err = PM_OK;
    *resumed = resume->session != NULL;
    if (*resumed)
        resume_return(resume, down);
    else
        err = resume_open(resume, down, ops);
    if (err)
        return err;
    resume->down = down;
    resume->next = NULL;
    resume->away = false;
    return PM_OK;
}

void pmi_resume_replay(pmi_downlink *down)
{
    pmi_resume *resume = down->resume;
    pmi_resumes *resumes = resume->resumes;
    pmi_window *window = &resume->window;
    pm_err err = PM_OK;
    for (uint64_t n = pmi_window_oldest(window); n <= window->last && !err;
         n++) {
        pm_slice package = pmi_window_get(window, n);
        err = pmi_conn_send(down->conn, &package, 1, 0);
    }
    if (err)
        pmi_downlink_close(down, PM_CLOSE_MEMORY);
    resume->told = false;
    pmi_count(down->app, PMI_COUNT_RESUME_RESUMED);
    pmi_app_session_resumed(resumes->app, resume->session);
}
