/* SPDX-License-Identifier: MIT */
/* pomelo_resume.c -- sessions that outlive their connection: tokens, what was
 * sent, and when it is over.
 *
 * A token is an id, by which it is found, and a secret, which is compared in
 * constant time. Two secrets are good at a time: the one in use and the one
 * that was offered last; whichever the client shows next stays. Tokens are
 * never logged. What has to do with connections is in pomelo_resume_conn.c.
 * Start reading at pmi_resume_keep(). */
#include "pomelo_resume_internal.h"
#include "pomelo_request_internal.h"

pm_err pmi_resumes_new(pm_app *app, pmi_resumes **out)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(app);
    const pmi_env *env = pmi_app_env(app);
    pmi_resumes *resumes;
    if (opts->resume_ms &&
        opts->resume_bytes > pmi_app_limits(app)->client_queue_bytes / 2) {
        PMI_LOG(env, PM_LOG_ERROR, "resume",
                "connector.resume_bytes: %u is over half of "
                "limits.client_queue_bytes, %u: it could not be sent again",
                opts->resume_bytes, pmi_app_limits(app)->client_queue_bytes);
        return PM_ECONFIG;
    }
    resumes = pmi_zalloc(env, sizeof *resumes);
    if (!resumes)
        return PM_ENOMEM;
    resumes->app = app;
    pmi_loop_map_init(pm_app_loop(app), &resumes->by_id);
    pmi_list_init(&resumes->waiting);
    pmi_list_init(&resumes->ending);
    *out = resumes;
    return PM_OK;
}

void pmi_resumes_free(pmi_resumes *resumes)
{
    if (!resumes)
        return;
    pmi_resumes_close(resumes);
    pmi_map_fini(&resumes->by_id);
    pmi_free(pmi_app_env(resumes->app), resumes);
}

/* ---- Life -------------------------------------------------------------- */

pmi_resume *pmi_resume_new(pmi_resumes *resumes)
{
    const pmi_env *env = pmi_app_env(resumes->app);
    pm_loop *loop = pm_app_loop(resumes->app);
    pmi_resume *resume = pmi_zalloc(env, sizeof *resume);
    if (!resume)
        return NULL;
    resume->resumes = resumes;
    pmi_window_init(&resume->window, loop,
                    pmi_app_connector_opts(resumes->app)->resume_bytes);
    do
        resume->id = pmi_loop_random_u64(loop);
    while (pmi_map_get_num(&resumes->by_id, resume->id));
    if (pmi_map_put_num(&resumes->by_id, resume->id, resume, NULL)) {
        pmi_free(env, resume);
        return NULL;
    }
    pmi_resume_draw(resume);
    memcpy(resume->secret, resume->offered, sizeof resume->secret);
    return resume;
}

void pmi_resume_wake(pmi_resume *resume)
{
    pmi_timer_clear(&resume->timer);
    resume->resumes->count -= resume->waits;
    resume->waits = false;
    pmi_list_remove(&resume->link);
}

static void resume_forget(pmi_resume *resume)
{
    pmi_resumes *resumes = resume->resumes;
    pmi_resume_wake(resume);
    if (pmi_map_get_num(&resumes->by_id, resume->id) == resume)
        pmi_map_remove_num(&resumes->by_id, resume->id);
}

void pmi_resume_free(pmi_resume *resume)
{
    const pmi_env *env = pmi_app_env(resume->resumes->app);
    resume_forget(resume);
    if (resume->session)
        resume->session->resumes = false;
    pmi_rsa_free(resume->key);
    pmi_window_fini(&resume->window);
    memset(resume->secret, 0, sizeof resume->secret);
    memset(resume->offered, 0, sizeof resume->offered);
    pmi_free(env, resume);
}

/* ---- Tokens ------------------------------------------------------------ */

void pmi_resume_draw(pmi_resume *resume)
{
    pmi_loop_random(resume->window.loop, resume->offered,
                    sizeof resume->offered);
}

void pmi_resume_token(const uint8_t secret[PMI_RESUME_SECRET], uint64_t id,
                      char out[PMI_RESUME_TOKEN + 1])
{
    uint8_t bytes[8 + PMI_RESUME_SECRET];
    pmi_put_be32(bytes, (uint32_t)(id >> 32));
    pmi_put_be32(bytes + 4, (uint32_t)id);
    memcpy(bytes + 8, secret, PMI_RESUME_SECRET);
    pmi_hex(bytes, sizeof bytes, out);
}

pmi_resume *pmi_resume_find(pmi_resumes *resumes, const char *token)
{
    uint8_t bytes[8 + PMI_RESUME_SECRET];
    pmi_resume *resume;
    bool used, offered;
    if (strlen(token) != PMI_RESUME_TOKEN || !pmi_unhex(pm_text(token), bytes))
        return NULL;
    resume =
        pmi_map_get_num(&resumes->by_id, (uint64_t)pmi_get_be32(bytes) << 32 |
                                             pmi_get_be32(bytes + 4));
    if (!resume)
        return NULL;
    used = pmi_same_secret(bytes + 8, resume->secret, PMI_RESUME_SECRET);
    offered = pmi_same_secret(bytes + 8, resume->offered, PMI_RESUME_SECRET);
    if (offered) /* the client has shown that it has it */
        memcpy(resume->secret, resume->offered, PMI_RESUME_SECRET);
    return used || offered ? resume : NULL;
}

/* ---- When it is over --------------------------------------------------- */

bool pmi_resume_survives(pm_close_reason why)
{
    switch (why) {
    case PM_CLOSE_CLIENT:
    case PM_CLOSE_RESET:
    case PM_CLOSE_CUT:
    case PM_CLOSE_HEARTBEAT:
    case PM_CLOSE_QUEUE:
    case PM_CLOSE_MEMORY:
    case PM_CLOSE_TLS:
        return true;
    default:
        return false;
    }
}

/* Of a session without a connection. The app may be freed by what is told. */
static void resume_end(pmi_resume *resume)
{
    pm_session *session = resume->session;
    pm_app *app = resume->resumes->app;
    resume_forget(resume);
    pmi_request_cancel_session(session, PM_ECLOSED);
    pmi_session_close(session, resume->why);
    pmi_resume_free(resume);
    pm_session_unref(session);
    pmi_app_check_drained(app);
}

static void resume_over(pmi_timer *timer)
{
    pmi_resume *resume = PMI_OUTER(timer, pmi_resume, timer);
    if (!resume->why)
        resume->why = PM_CLOSE_RESUME;
    resume_end(resume);
}

void pmi_resume_revoke(pmi_resume *resume, pm_close_reason why)
{
    if (resume->why)
        return;
    resume->why = why;
    pmi_map_remove_num(&resume->resumes->by_id, resume->id);
    if (!resume->session || resume->down)
        return;
    if (resume->next) /* its ACK may be read before the session ends */
        resume->resumes->hang_up(resume->next, why);
    pmi_resume_wake(resume);
    pmi_list_add(&resume->resumes->ending, &resume->link);
    pmi_timer_set(resume->window.loop, &resume->timer, 0, resume_over);
}

void pmi_resume_leaves(pmi_resume *resume)
{
    if (!resume->away)
        resume->had = resume->window.last;
    resume->away = true;
}

void pmi_resume_wait(pmi_resume *resume)
{
    pmi_resumes *resumes = resume->resumes;
    const pm_connector_opts *opts = pmi_app_connector_opts(resumes->app);
    uint64_t now = pmi_loop_now_us(resume->window.loop);
    if (resumes->count >= opts->resume_sessions)
        pmi_resume_revoke(PMI_OUTER(resumes->waiting.next, pmi_resume, link),
                          PM_CLOSE_RESUME);
    pmi_list_add(&resumes->waiting, &resume->link);
    resumes->count++;
    resume->waits = true;
    pmi_timer_set(resume->window.loop, &resume->timer,
                  resume->due_us > now ? resume->due_us - now : 0, resume_over);
}

static void resume_end_all(pmi_link *list)
{
    while (!pmi_list_empty(list)) {
        pmi_resume *resume = PMI_OUTER(list->next, pmi_resume, link);
        if (!resume->why)
            resume->why = PM_CLOSE_STOP;
        resume_end(resume);
    }
}

void pmi_resumes_close(pmi_resumes *resumes)
{
    resume_end_all(&resumes->ending);
    resume_end_all(&resumes->waiting);
}

/* ---- What is sent ------------------------------------------------------ */

static pmi_window_terms resume_terms(const pmi_terms *terms)
{
    pmi_window_terms own = {false, 0};
    if (!terms)
        return own;
    own.loose = terms->policy == PM_PUSH_DROP_OLDEST ||
                terms->policy == PM_PUSH_REPLACE;
    own.key = terms->policy == PM_PUSH_REPLACE ? terms->key : 0;
    return own;
}

/* While the client is away: will it get this one and all that it has not had?
 */
static pm_err resume_room(pmi_resume *resume, size_t len,
                          const pmi_terms *terms)
{
    pmi_window_terms own = resume_terms(terms);
    bool ranked = own.loose || (terms && terms->policy == PM_PUSH_DROP_NEW);
    bool all = !terms || terms->policy == PM_PUSH_KEEP;
    uint32_t dropped = 0;
    bool fits;
    if (resume->why)
        return PM_ECLOSED;
    if (!resume->away)
        return PM_OK;
    fits = pmi_window_make_room(&resume->window, resume->had, len,
                                all ? NULL : &own, &dropped);
    resume->dropped += dropped + (!fits && ranked);
    if (fits)
        return PM_OK;
    if (ranked)
        return PM_EDROPPED;
    pmi_resume_revoke(resume, PM_CLOSE_RESUME_WINDOW);
    return PM_ELIMIT;
}

pm_err pmi_resume_keep(pmi_resume *resume, const pm_slice *parts, size_t count,
                       const pmi_terms *terms)
{
    pmi_window_terms own = resume_terms(terms);
    size_t len = 0;
    pm_err err;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    err = resume_room(resume, len, terms);
    return err ? err : pmi_window_add(&resume->window, parts, count, &own);
}

pm_err pmi_resume_keep_chunk(pmi_resume *resume, pmi_chunk *chunk,
                             size_t offset, const pmi_terms *terms)
{
    pmi_window_terms own = resume_terms(terms);
    pm_err err = resume_room(resume, chunk->len - offset, terms);
    return err ? err
               : pmi_window_add_chunk(&resume->window, chunk, offset, &own);
}

void pmi_resume_unkeep(pmi_resume *resume, uint32_t serial)
{
    pmi_window_take_out(&resume->window, serial);
}

size_t pmi_resume_waiting(const pmi_resume *resume)
{
    return pmi_window_behind(&resume->window, resume->had);
}
