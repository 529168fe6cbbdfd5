/* SPDX-License-Identifier: MIT */
/* pomelo_downlink.c -- what goes down to a client: answers, pushes,
 * heartbeats, kicks.
 *
 *     | type | length (3) | flag | id? | route? | body ... |
 *     \__ package head __/ \__ message head __/
 *
 * Head and body are handed to the connection apart: nothing is put together
 * here that the connection would copy again. A push to many is put together
 * once, in a chunk that every queue refers to (pmi_connector_encode_push).
 * Start at pmi_downlink_message. */
#include "pomelo_connector_internal.h"
#include "pomelo_downlink_internal.h"

#define DOWNLINK_FRAME_ROOM 14 /* the longest WebSocket head */

/* What it is told from now on does not leave by it. True: its session goes on
 * without it. */
static bool downlink_parts(pmi_downlink *down, pm_close_reason why)
{
    pmi_resume *resume = down->resumes ? down->resume : NULL;
    if (!resume || resume->down != down)
        return false;
    if (!pmi_resume_survives(why))
        pmi_resume_revoke(resume, why);
    pmi_resume_leaves(resume);
    return !resume->why;
}

void pmi_downlink_close(pmi_downlink *down, pm_close_reason why)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    bool goes_on;
    if (down->state == PMI_DOWNLINK_CLOSED)
        return;
    pmi_downlink_flush(down);
    goes_on = downlink_parts(down, why);
    down->state = PMI_DOWNLINK_CLOSED;
    pmi_timer_clear(&down->timer);
    /* What it has not had it gets when it is back: nothing lingers for it. */
    pmi_conn_close(down->conn, why, opts->close_by_fin && !goes_on, 1000);
}

pm_err pmi_downlink_package(pmi_downlink *down, uint8_t type,
                            const pm_slice *parts, size_t count, unsigned flags)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    pm_slice all[4];
    size_t len = 0;
    pm_err err;
    PMI_ASSERT(count < PMI_COUNT(all));
    for (size_t i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        len += parts[i].len;
    }
    if (len > pmi_app_limits(down->app)->package_out_bytes)
        return PM_ESIZE;
    if (down->state == PMI_DOWNLINK_CLOSED)
        return PM_ECLOSED;
    pmi_proto_package_head(head, type, len);
    all[0] = pm_bytes(head, sizeof head);
    err = pmi_conn_send(down->conn, all, count + 1, flags);
    if (err == PM_ELIMIT)
        pmi_downlink_close(down, PM_CLOSE_QUEUE);
    return err;
}

/* ---- The buffer scheduler ---------------------------------------------- */

static void gatherer_flush(pmi_timer *timer)
{
    pmi_gatherer *gatherer = PMI_OUTER(timer, pmi_gatherer, timer);
    pmi_link *node;
    while ((node = pmi_list_take(&gatherer->waiting)))
        pmi_downlink_flush(PMI_OUTER(node, pmi_gather, link)->down);
}

void pmi_gatherer_init(pmi_gatherer *gatherer, pm_app *app)
{
    gatherer->app = app;
    pmi_list_init(&gatherer->waiting);
}

void pmi_gatherer_fini(pmi_gatherer *gatherer)
{
    pmi_timer_clear(&gatherer->timer);
}

void pmi_downlink_flush(pmi_downlink *down)
{
    pm_close_reason why;
    pm_slice all;
    pm_err err;
    if (!down->gather)
        return;
    pmi_list_remove(&down->gather->link);
    if (!down->gather->bytes.len)
        return;
    all = pmi_buf_slice(&down->gather->bytes);
    /* What can not be queued closes the client: an answer that is lost without
     * a sign would be worse. */
    err = pmi_conn_send(down->conn, &all, 1, 0);
    if (err) {
        why = err == PM_ELIMIT ? PM_CLOSE_QUEUE : PM_CLOSE_MEMORY;
        downlink_parts(down, why);
        pmi_conn_close(down->conn, why, false, 1000);
    }
    pmi_buf_fini(&down->gather->bytes);
    pmi_buf_init(&down->gather->bytes, pmi_app_env(down->app),
                 down->gather->bytes.max);
}

/* Room for n more gathered bytes; NULL: none to be had. */
static pmi_buf *downlink_gather(pmi_downlink *down)
{
    pmi_gatherer *gatherer = pmi_connector_gatherer(down->app);
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    const pmi_env *env = pmi_app_env(down->app);
    if (!down->gather) {
        down->gather = pmi_zalloc(env, sizeof *down->gather);
        if (!down->gather)
            return NULL;
        down->gather->down = down;
        pmi_buf_init(&down->gather->bytes, env,
                     pmi_app_limits(down->app)->client_queue_bytes);
    }
    if (!pmi_link_in(&down->gather->link))
        pmi_list_add(&gatherer->waiting, &down->gather->link);
    if (!pmi_timer_is_set(&gatherer->timer))
        pmi_timer_set(pm_app_loop(down->app), &gatherer->timer,
                      (uint64_t)opts->flush_ms * 1000, gatherer_flush);
    return &down->gather->bytes;
}

/* What is refused for want of room ends the connection. */
static pm_err downlink_refused(pmi_downlink *down, pm_err err)
{
    if (err == PM_ELIMIT)
        pmi_downlink_close(down, PM_CLOSE_QUEUE);
    return err;
}

size_t pmi_downlink_queued(const pmi_downlink *down)
{
    return pmi_conn_queued(down->conn) +
           (down->gather ? down->gather->bytes.len : 0);
}

/* May so many more bytes be gathered? What is gathered and what waits behind
 * it share one limit, and the frame of all of it needs room, too. */
static bool downlink_has_room(const pmi_downlink *down, size_t len)
{
    size_t max = down->gather->bytes.max;
    size_t used = pmi_downlink_queued(down) + DOWNLINK_FRAME_ROOM;
    return used <= max && len <= max - used;
}

/* Packages are gathered for a client who keeps up. For one who does not, or
 * who has no room, each waits on its own terms. */
static pm_err downlink_gather_bytes(pmi_downlink *down, const pm_slice *parts,
                                    size_t count, const pmi_terms *terms)
{
    pmi_buf *gather = downlink_gather(down);
    size_t was, len = 0;
    if (!gather)
        return PM_ENOMEM;
    was = gather->len;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    if (pmi_conn_is(down->conn) & PMI_CONN_IS_SLOW ||
        !downlink_has_room(down, len)) {
        pmi_downlink_flush(down);
        return downlink_refused(
            down, pmi_conn_offer(down->conn, parts, count, terms));
    }
    for (size_t i = 0; i < count; i++)
        pmi_buf_add(gather, parts[i].data, parts[i].len);
    if (!gather->failed)
        return PM_OK;
    gather->len = was;
    gather->failed = false;
    return PM_ENOMEM;
}

/* A data package in two parts. */
static pm_err downlink_data(pmi_downlink *down, const pm_slice package[2],
                            const pmi_terms *terms)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    if (down->state == PMI_DOWNLINK_CLOSED)
        return PM_ECLOSED;
    if (opts->scheduler == PM_SCHEDULER_BUFFER)
        return downlink_gather_bytes(down, package, 2, terms);
    return downlink_refused(down,
                            pmi_conn_offer(down->conn, package, 2, terms));
}

/* ---- Sessions that can be resumed --------------------------------------- */
/* What they are sent is kept first. When it then can not leave, it will by
 * another connection: the caller need not know. */

/* It was kept, and this became of it. Only what its terms drop is not to be
 * sent at all. */
static pm_err downlink_sent(pmi_resume *resume, pm_err err)
{
    if (err == PM_EDROPPED) {
        pmi_resume_unkeep(resume, resume->window.serial);
        return err;
    }
    if (err && resume->down)
        pmi_downlink_close(resume->down,
                           err == PM_ELIMIT ? PM_CLOSE_QUEUE : PM_CLOSE_MEMORY);
    return PM_OK;
}

/* The same terms for the one that was kept last. */
static pmi_terms downlink_terms(const pmi_resume *resume,
                                const pmi_terms *terms)
{
    pmi_terms mine = *terms;
    mine.serial = resume->window.serial;
    return mine;
}

static bool downlink_works(const pmi_downlink *down)
{
    return down && down->state == PMI_DOWNLINK_WORKING;
}

static pm_err downlink_keep(pmi_resume *resume, const pm_slice package[2],
                            const pmi_terms *terms)
{
    pmi_terms mine;
    pm_err err;
    if (!resume)
        return PM_ECLOSED;
    err = pmi_resume_keep(resume, package, 2, terms);
    if (err || !downlink_works(resume->down))
        return err;
    if (terms)
        mine = downlink_terms(resume, terms);
    return downlink_sent(
        resume, downlink_data(resume->down, package, terms ? &mine : NULL));
}

/* ---- Messages ---------------------------------------------------------- */

/* Bytes of a body as they travel: borrowed from `body` where no schema wants
 * otherwise. `store` is initialised here and finished by the caller. */
static pm_err downlink_encode(pm_app *app, pm_slice route, pm_body body,
                              pmi_buf *store, pm_slice *out)
{
    pmi_handlers *handlers = pmi_app_handlers(app);
    pm_err err;
    pmi_buf_init(store, pmi_app_env(app), SIZE_MAX);
    *out = body.data;
    if (body.kind != PM_BODY_JSON || !pmi_handlers_sys(handlers)->server)
        return PM_OK;
    err = pmi_handler_encode(handlers, route, body, store);
    *out = pmi_buf_slice(store);
    return err;
}

/* The route's number, when it has one and the client knows numbers. */
static uint16_t downlink_code(pm_app *app, uint8_t type, pm_slice route)
{
    const pmi_dict *dict = pmi_handlers_sys(pmi_app_handlers(app))->dict;
    return dict && type == PMI_MESSAGE_PUSH ? pmi_dict_code(dict, route) : 0;
}

pm_err pmi_downlink_message(pm_session *session, uint8_t type, uint32_t id,
                            pm_slice route, pm_body body,
                            const pmi_terms *terms)
{
    uint8_t head[PMI_PACKAGE_HEAD + PMI_MESSAGE_HEAD_MAX];
    size_t len =
        pmi_proto_message_head(head + PMI_PACKAGE_HEAD, type, id, route,
                               downlink_code(session->app, type, route));
    pm_slice package[2] = {{head, PMI_PACKAGE_HEAD + len}};
    pmi_buf store;
    pm_err err;
    if (!len)
        return PM_EINVAL;
    err = downlink_encode(session->app, route, body, &store, &package[1]);
    len += package[1].len;
    pmi_proto_package_head(head, PMI_PACKAGE_DATA, len);
    if (err == PM_OK && len > pmi_app_limits(session->app)->package_out_bytes)
        err = PM_ESIZE;
    if (err == PM_OK)
        err = session->resumes ? downlink_keep(session->conn, package, terms)
                               : downlink_data(session->conn, package, terms);
    pmi_buf_fini(&store);
    return err;
}

pm_err pmi_downlink_answer(pm_request *req, const pm_response *response)
{
    pm_session *session = req->session;
    pm_err err;
    if (!response || !req->wire_id)
        return PM_OK;
    if (!session->conn)
        return PM_ECLOSED;
    err = pmi_downlink_message(session, PMI_MESSAGE_RESPONSE, req->wire_id,
                               pm_bytes(req->route, req->route_len),
                               response->body, NULL);
    if (err == PM_OK || err == PM_ECLOSED || err == PM_ELIMIT)
        return err;
    pmi_downlink_message(session, PMI_MESSAGE_RESPONSE, req->wire_id,
                         pm_bytes(NULL, 0), pm_body_text("{\"code\":500}"),
                         NULL);
    return err;
}

void pmi_downlink_kick(pmi_downlink *down, const char *reason,
                       pm_close_reason why)
{
    pmi_buf text;
    pm_slice body;
    if (reason && down->state == PMI_DOWNLINK_WORKING) {
        pmi_downlink_flush(down);
        pmi_buf_init(&text, pmi_app_env(down->app), SIZE_MAX);
        pmi_buf_add_text(&text, "{\"reason\":");
        pmi_json_add_string(&text, pm_text(reason));
        pmi_buf_add_byte(&text, '}');
        body = pmi_buf_slice(&text);
        /* Without memory for the word the end comes without it. */
        if (!text.failed)
            pmi_downlink_package(down, PMI_PACKAGE_KICK, &body, 1,
                                 PMI_SEND_URGENT);
        pmi_buf_fini(&text);
    }
    pmi_downlink_close(down, why);
}

/* ---- One push for many ------------------------------------------------- */

pm_err pmi_connector_encode_push(pm_app *app, pm_slice route, pm_body body,
                                 const pmi_manner *manner, pmi_push *out)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX], *p;
    size_t head_len, len, frame;
    pmi_buf store;
    pm_slice bytes;
    pm_err err;
    if (!route.len || body.kind == PM_BODY_NONE)
        return PM_EINVAL;
    head_len =
        pmi_proto_message_head(head, PMI_MESSAGE_PUSH, 0, route,
                               downlink_code(app, PMI_MESSAGE_PUSH, route));
    if (!head_len)
        return PM_EINVAL;
    err = downlink_encode(app, route, body, &store, &bytes);
    len = head_len + bytes.len;
    if (err == PM_OK && len > pmi_app_limits(app)->package_out_bytes)
        err = PM_ESIZE;
    if (err == PM_OK) {
        out->chunk = pmi_loop_chunk(
            pm_app_loop(app), DOWNLINK_FRAME_ROOM + PMI_PACKAGE_HEAD + len);
        err = out->chunk ? PM_OK : PM_ENOMEM;
    }
    if (err == PM_OK) {
        frame = pmi_ws_head_size(PMI_PACKAGE_HEAD + len, false);
        out->package_at = DOWNLINK_FRAME_ROOM;
        out->frame_at = DOWNLINK_FRAME_ROOM - frame;
        p = out->chunk->data + DOWNLINK_FRAME_ROOM;
        pmi_proto_package_head(p, PMI_PACKAGE_DATA, len);
        memcpy(p + PMI_PACKAGE_HEAD, head, head_len);
        if (bytes.len)
            memcpy(p + PMI_PACKAGE_HEAD + head_len, bytes.data, bytes.len);
        pmi_ws_head_write(out->chunk->data + out->frame_at, PMI_WS_BINARY,
                          PMI_PACKAGE_HEAD + len, NULL);
        out->chunk->len =
            (uint32_t)(DOWNLINK_FRAME_ROOM + PMI_PACKAGE_HEAD + len);
    }
    pmi_buf_fini(&store);
    out->lean = NULL;
    out->terms = pmi_connector_terms(app, route, manner);
    out->apart = out->terms.policy != PM_PUSH_KEEP ||
                 pmi_app_connector_opts(app)->scheduler == PM_SCHEDULER_BUFFER;
    return err;
}

/* The same bytes in a chunk of their size, once for all who are slow: there it
 * will lie for long. Without memory for that the first one has to do. */
static pmi_chunk *downlink_lean(pm_app *app, pmi_push *push)
{
    pmi_chunk *chunk = push->chunk;
    if (push->lean || chunk->cap < 2 * chunk->len)
        return push->lean ? push->lean : chunk;
    push->lean = pmi_chunk_new(pmi_app_env(app), chunk->len);
    if (!push->lean)
        return chunk;
    memcpy(push->lean->data, chunk->data, chunk->len);
    push->lean->len = chunk->len;
    return push->lean;
}

/* A policy, the scheduler, or a client who is slow. */
static pm_err downlink_push_apart(pmi_downlink *down, pmi_push *push,
                                  const pmi_terms *terms, unsigned is)
{
    size_t at = is & PMI_CONN_IS_WS ? push->frame_at : push->package_at;
    pmi_chunk *chunk = push->chunk;
    pm_slice package;
    if (pmi_app_connector_opts(down->app)->scheduler == PM_SCHEDULER_BUFFER) {
        package = pm_bytes(chunk->data + push->package_at,
                           chunk->len - push->package_at);
        return downlink_gather_bytes(down, &package, 1, terms);
    }
    if (is & PMI_CONN_IS_SLOW)
        chunk = downlink_lean(down->app, push);
    return downlink_refused(down,
                            pmi_conn_offer_chunk(down->conn, chunk, at, terms));
}

static pm_err downlink_push(pmi_downlink *down, pmi_push *push,
                            const pmi_terms *terms)
{
    unsigned is = pmi_conn_is(down->conn);
    pm_err err;
    if (is & PMI_CONN_IS_SLOW || push->apart)
        return downlink_push_apart(down, push, terms, is);
    err = pmi_conn_send_chunk(
        down->conn, push->chunk,
        is & PMI_CONN_IS_WS ? push->frame_at : push->package_at, 0);
    return PMI_LIKELY(err == PM_OK) ? err : downlink_refused(down, err);
}

static pm_err downlink_keep_push(pmi_resume *resume, const pmi_push *push,
                                 pmi_terms *mine)
{
    pm_err err;
    if (!resume)
        return PM_ECLOSED;
    err = pmi_resume_keep_chunk(resume, push->chunk, push->package_at,
                                &push->terms);
    *mine = downlink_terms(resume, &push->terms);
    return err;
}

pm_err pmi_connector_send_push(pm_session *session, pmi_push *push)
{
    pmi_downlink *down = session->conn;
    const pmi_terms *terms = &push->terms;
    pmi_resume *resume = NULL;
    pmi_terms mine;
    pm_err err = PM_ECLOSED;
    if (PMI_UNLIKELY(session->resumes)) {
        resume = session->conn;
        err = downlink_keep_push(resume, push, &mine);
        if (err)
            return err;
        down = resume->down;
        terms = &mine;
    }
    if (!downlink_works(down))
        return err;
    err = downlink_push(down, push, terms);
    return PMI_LIKELY(!resume) ? err : downlink_sent(resume, err);
}

void pmi_push_fini(pmi_push *push)
{
    pmi_chunk_unref(push->chunk);
    pmi_chunk_unref(push->lean);
    push->chunk = push->lean = NULL;
}
