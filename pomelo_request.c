/* SPDX-License-Identifier: MIT */
/* pomelo_request.c -- one client message: body, answer, cancellation.
 *
 * A request has two ends. The wire side (the client, or the frontend that
 * forwarded it) ends exactly once: by an answer, by the deadline, by the
 * session's close or the app's end (request_wire_end). The holder's side
 * (handler, filter) ends when the holder ends it; only then is the storage
 * given back. Start at pmi_request_respond. */
#include "pomelo_request_internal.h"

#include <cjson/cJSON.h>

#define REQUEST_SPARE_MAX 2048
#define REQUEST_SCRATCH_KEEP (64 * 1024)

struct pmi_requests {
    pm_app *app;
    const pmi_env *env;
    pmi_counts *counts; /* borrowed: the app's */
    void (*run)(pm_request *req);
    pmi_spares spares;
    bool watched;
    size_t busy;   /* wire side open */
    pmi_link all;  /* every request the app knows, by in_app */
    pmi_map by_id; /* those whose number somebody knows */
    uint64_t last_id;
    pmi_buf scratch;            /* a printed answer */
    pmi_histogram *stray_times; /* owned; NULL: none yet */
};

static const char request_500[] = "{\"code\":500}";

static pm_body request_body_500(void)
{
    return pm_body_text(request_500);
}

pm_err pmi_requests_new(pm_app *app, pmi_requests **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_requests *requests = pmi_zalloc(env, sizeof *requests);
    if (!requests)
        return PM_ENOMEM;
    requests->app = app;
    requests->env = env;
    requests->counts = pmi_app_counts(app);
    pmi_spares_init(&requests->spares, env, sizeof(pm_request),
                    offsetof(pm_request, detail), REQUEST_SPARE_MAX);
    pmi_list_init(&requests->all);
    pmi_loop_map_init(pm_app_loop(app), &requests->by_id);
    pmi_buf_init(&requests->scratch, env, SIZE_MAX);
    *out = requests;
    return PM_OK;
}

void pmi_requests_set_run(pmi_requests *requests, void (*run)(pm_request *req))
{
    requests->run = run;
}

void pmi_requests_watch(pmi_requests *requests)
{
    requests->watched = true;
}

size_t pmi_requests_busy(const pmi_requests *requests)
{
    return requests->busy;
}

const pmi_histogram *pmi_requests_stray_times(const pmi_requests *requests)
{
    return requests->stray_times;
}

/* ---- Life -------------------------------------------------------------- */

pm_request *pmi_request_new(pmi_requests *requests, pm_session *session)
{
    pm_request *req = pmi_spares_get(&requests->spares);
    if (!req)
        return NULL;
    req->app = requests->app;
    req->loop = pm_app_loop(requests->app);
    req->session = session;
    req->body_valid = true;
    req->started_us = pmi_loop_now_us(req->loop);
    pm_session_ref(session);
    session->in_flight++;
    pmi_list_add(&session->requests, &req->in_session);
    pmi_list_add(&requests->all, &req->in_app);
    requests->busy++;
    return req;
}

pm_err pmi_request_set_route(pm_request *req, pmi_route_entry *entry,
                             pm_slice route)
{
    const char *dot;
    req->entry = entry;
    if (entry) {
        req->route = entry->route;
        req->route_len = entry->route_len;
        req->type_len = entry->type_len;
        return PM_OK;
    }
    req->owned_route =
        pmi_strndup(pmi_loop_env(req->loop), route.data, route.len);
    if (!req->owned_route)
        return PM_ENOMEM;
    req->route = req->owned_route;
    req->route_len = (uint8_t)route.len;
    dot = strchr(req->route, '.');
    req->type_len = dot ? (uint8_t)(dot - req->route) : 0;
    return PM_OK;
}

/* What hangs on a request. The storage itself is for whoever calls. */
static void request_strip(pm_request *req)
{
    const pmi_env *env = pmi_loop_env(req->loop);
    pmi_timer_clear(&req->deadline);
    pmi_list_remove(&req->in_app);
    pmi_list_remove(&req->in_session);
    cJSON_Delete(req->tree);
    pmi_free(env, req->owned_body);
    pmi_free(env, req->owned_route);
    if (req->response_store.env)
        pmi_buf_fini(&req->response_store);
    pm_session_unref(req->session);
}

void pmi_request_release(pm_request *req)
{
    pmi_requests *requests = req->app ? pmi_app_requests(req->app) : NULL;
    pm_loop *loop = req->loop;
    if (requests && req->id)
        pmi_map_remove_num(&requests->by_id, req->id);
    request_strip(req);
    if (!requests) {
        /* The app has gone; this request alone held the loop. */
        pmi_free(pmi_loop_env(loop), req);
        pmi_loop_drop(loop);
    } else {
        pmi_spares_put(&requests->spares, req);
    }
}

static pmi_count_what request_result(const pm_request *req,
                                     const pm_response *response)
{
    if (req->cancelled)
        return req->cancelled == PM_ETIMEOUT ? PMI_COUNT_REQUEST_TIMEOUT
                                             : PMI_COUNT_REQUEST_CLOSED;
    if (!response)
        return PMI_COUNT_REQUEST_DROPPED;
    return response->err ? PMI_COUNT_REQUEST_FAILED
                         : PMI_COUNT_REQUEST_ANSWERED;
}

/* The wire side ends, once: it hears `response` (NULL: nothing), and nobody
 * waits any more. The answer comes first: a draining app closes its connections
 * when the last request has ended. */
static pm_err request_wire_end(pm_request *req, const pm_response *response)
{
    pm_session *session = req->session;
    pmi_requests *requests = pmi_app_requests(req->app);
    pm_err err;
    req->answered = true;
    requests->counts->n[request_result(req, response)]++;
    pmi_count_time(requests->counts,
                   req->entry ? &req->entry->times : &requests->stray_times,
                   req->started_us);
    pmi_timer_clear(&req->deadline);
    pmi_list_remove(&req->in_session);
    err = req->answer(req, response);
    requests->busy--;
    session->in_flight--;
    if (session->ops && session->conn)
        session->ops->relaxed(session);
    pmi_app_check_drained(req->app);
    return err;
}

void pmi_request_cancel(pm_request *req, pm_err why)
{
    pm_response response = {why, pm_strerror(why), request_body_500()};
    pm_cancel_cb cb = req->on_cancel;
    if (req->answered)
        return;
    req->cancelled = why;
    req->on_cancel = NULL;
    request_wire_end(req, why == PM_ETIMEOUT ? &response : NULL);
    if (cb)
        cb(req, why, req->cancel_ctx);
}

void pmi_request_cancel_session(pm_session *session, pm_err why)
{
    pmi_link *node;
    /* Each is taken out of the list by its cancellation. */
    while (!pmi_list_empty(&session->requests)) {
        node = session->requests.next;
        pmi_request_cancel(PMI_OUTER(node, pm_request, in_session), why);
    }
}

/* It may outlive the app: nothing of the app's is referred to any more. */
static void request_cut(pm_request *req)
{
    if (!req->owned_route)
        req->owned_route = pmi_strdup(pmi_loop_env(req->loop), req->route);
    req->route = req->owned_route ? req->owned_route : "";
    req->route_len = req->owned_route ? req->route_len : 0;
    req->entry = NULL;
    req->app = NULL;
    pmi_loop_hold(req->loop);
}

void pmi_requests_close(pmi_requests *requests)
{
    pmi_link *node;
    while ((node = pmi_list_take(&requests->all))) {
        pm_request *req = PMI_OUTER(node, pm_request, in_app);
        bool on_stack = req->running;
        req->running = true; /* what its callbacks end is released below */
        pmi_request_cancel(req, PM_ECLOSED);
        if (req->id)
            pmi_map_remove_num(&requests->by_id, req->id);
        request_cut(req);
        req->running = on_stack;
        if (!req->held && !on_stack)
            pmi_request_release(req);
    }
}

void pmi_requests_free(pmi_requests *requests)
{
    if (!requests)
        return;
    pmi_spares_fini(&requests->spares);
    pmi_map_fini(&requests->by_id);
    pmi_buf_fini(&requests->scratch);
    pmi_free(requests->env, requests->stray_times);
    pmi_free(requests->env, requests);
}

/* ---- What a handler reads ---------------------------------------------- */

pm_app *pm_request_app(const pm_request *req)
{
    return req->app;
}

pm_session *pm_request_session(const pm_request *req)
{
    return req->session;
}

const char *pm_request_route(const pm_request *req)
{
    return req->route;
}

bool pm_request_is_notify(const pm_request *req)
{
    return req->wire_id == 0;
}

pm_body pm_request_body(const pm_request *req)
{
    return req->body_valid ? req->body : pm_body_none();
}

pm_err pm_request_keep(pm_request *req)
{
    if (!req->body_valid)
        return PM_ECLOSED;
    if (req->owned_body)
        return PM_OK;
    req->owned_body = pmi_alloc(pmi_loop_env(req->loop), req->body.data.len);
    if (!req->owned_body)
        return PM_ENOMEM;
    if (req->body.data.len)
        memcpy(req->owned_body, req->body.data.data, req->body.data.len);
    req->body.data.data = req->owned_body;
    return PM_OK;
}

static uint32_t request_depth(const pm_request *req)
{
    return req->app ? pmi_app_limits(req->app)->depth : PMI_JSON_DEPTH_MAX;
}

static pm_err request_parse(pm_request *req, cJSON **out)
{
    const pmi_env *env = pmi_loop_env(req->loop);
    pm_err err;
    if (req->body.kind == PM_BODY_PROTO) {
        if (!req->app)
            return PM_ECLOSED; /* the schema has gone with it */
        if (!req->entry || !req->entry->client_message)
            return PM_EPROTOBUF;
        return pmi_dialect_decode(req->entry->client,
                                  req->entry->client_message, req->body.data,
                                  request_depth(req), out);
    }
    err = pmi_json_parse(env, req->body.data, request_depth(req), out, NULL);
    if (err == PM_EJSON)
        *out = NULL; /* as in Pomelo: {} */
    return err == PM_EJSON ? PM_OK : err;
}

/* A member of that name is replaced where it stands; else it comes last. `item`
 * is taken on success. (cJSON's own replacement says nothing when it has no
 * memory for the name: here the old name is handed on.) */
static pm_err request_put(cJSON *object, const char *name, cJSON *item)
{
    cJSON *old = (cJSON *)(uintptr_t)pmi_json_get(object, name);
    if (!old)
        return pmi_json_add(object, name, item);
    item->string = old->string;
    item->type |= old->type & cJSON_StringIsConst;
    old->string = NULL;
    cJSON_ReplaceItemViaPointer(object, old, item);
    return PM_OK;
}

static pm_err request_add_route(const pm_request *req, cJSON *tree)
{
    cJSON *route = cJSON_CreateString(req->route);
    pm_err err = route ? request_put(tree, "__route__", route) : PM_ENOMEM;
    if (err)
        cJSON_Delete(route);
    return err;
}

pm_err pm_request_json(pm_request *req, struct cJSON **out)
{
    cJSON *tree = NULL;
    pm_err err;
    if (req->tree) {
        *out = req->tree;
        return PM_OK;
    }
    if (!req->body_valid)
        return PM_ECLOSED;
    err = request_parse(req, &tree);
    if (err)
        return err;
    if (!pmi_json_truthy(tree)) {
        cJSON_Delete(tree);
        tree = cJSON_CreateObject();
    }
    if (cJSON_IsObject(tree)) {
        err = request_add_route(req, tree);
    }
    if (!tree || err) {
        cJSON_Delete(tree);
        return PM_ENOMEM;
    }
    req->tree = tree;
    *out = tree;
    return PM_OK;
}

uint64_t pm_request_id(const pm_request *req)
{
    pm_request *self = (pm_request *)(uintptr_t)req; /* registers itself */
    pmi_requests *requests;
    if (req->id || !req->app)
        return req->id;
    requests = pmi_app_requests(req->app);
    if (pmi_map_put_num(&requests->by_id, requests->last_id + 1, self, NULL))
        return 0;
    self->id = ++requests->last_id;
    return self->id;
}

pm_request *pm_request_find(pm_app *app, uint64_t id)
{
    return pmi_map_get_num(&pmi_app_requests(app)->by_id, id);
}

pm_err pm_request_on_cancel(pm_request *req, pm_cancel_cb cb, void *ctx)
{
    if (req->answered)
        return PM_ECLOSED;
    req->on_cancel = cb;
    req->cancel_ctx = ctx;
    return PM_OK;
}

/* ---- Answers ----------------------------------------------------------- */

pm_err pmi_request_set_response(pm_request *req, pm_err err, const char *detail,
                                pm_body body)
{
    pmi_buf *store = &req->response_store;
    const pmi_env *env = pmi_loop_env(req->loop);
    if (!store->env)
        pmi_buf_init(store, env, SIZE_MAX);
    pmi_buf_reset(store);
    pmi_buf_add(store, body.data.data, body.data.len);
    if (store->failed)
        return PM_ENOMEM;
    req->detail[0] = 0;
    if (detail)
        pmi_format(req->detail, sizeof req->detail, "%s", detail);
    req->response.err = err;
    req->response.detail = req->detail;
    req->response.body.kind = body.kind;
    req->response.body.data = pmi_buf_slice(store);
    return PM_OK;
}

pm_err pmi_request_send(pm_request *req)
{
    pm_err err;
    if (req->answered || !req->app)
        return PM_ECLOSED;
    req->on_cancel = NULL;
    err = request_wire_end(req, req->dropped ? NULL : &req->response);
    if (err == PM_OK && !req->wire_id && !req->dropped)
        return PM_ENOTIFY;
    return err;
}

void pmi_request_go_on(pm_request *req)
{
    req->held = false;
    if (req->app)
        pmi_app_requests(req->app)->run(req);
    else if (!req->running)
        pmi_request_release(req);
}

/* Filters look at it first: a copy waits until they are through. */
static pm_err request_respond_watched(pm_request *req, pm_err err,
                                      const char *detail, pm_body body)
{
    pm_err stored = pmi_request_set_response(req, err, detail, body);
    pm_err result = req->answered ? PM_ECLOSED : PM_OK;
    if (stored) {
        req->response.err = PM_ENOMEM;
        req->response.detail = pm_strerror(PM_ENOMEM);
        req->response.body = request_body_500();
        result = stored;
    } else if (result == PM_OK && !req->wire_id && !req->dropped) {
        result = PM_ENOTIFY;
    }
    if (req->stage == PMI_STAGE_GLOBAL_BEFORE)
        req->stage = err ? PMI_STAGE_GLOBAL_ERROR : PMI_STAGE_ANSWER;
    else if (req->stage == PMI_STAGE_FORWARD)
        req->stage = PMI_STAGE_ANSWER; /* its filters ran over there */
    else
        req->stage = err ? PMI_STAGE_ERROR : PMI_STAGE_AFTER;
    req->at = 0;
    pmi_request_go_on(req);
    return result;
}

static pm_err request_respond(pm_request *req, pm_err err, const char *detail,
                              pm_body body)
{
    pm_err result;
    if (!req->app) {
        pmi_request_go_on(req);
        return PM_ECLOSED;
    }
    if (req->stage > PMI_STAGE_FORWARD) {
        /* An after filter has nothing to answer any more: it goes on. */
        pmi_request_go_on(req);
        return PM_ESTATE;
    }
    if (pmi_app_requests(req->app)->watched)
        return request_respond_watched(req, err, detail, body);
    req->response.err = err;
    req->response.detail = detail ? detail : pm_strerror(err);
    req->response.body = body;
    result = pmi_request_send(req);
    req->stage = PMI_STAGE_GLOBAL_AFTER;
    pmi_request_go_on(req);
    return result;
}

pm_err pmi_request_respond(pm_request *req, pm_err err, const char *detail,
                           pm_body body)
{
    pm_loop *loop = req->loop;
    pm_err result;
    pmi_loop_enter(loop); /* a filter may free the app */
    result = request_respond(req, err, detail, body);
    pmi_loop_leave(loop);
    return result;
}

static pmi_buf *request_scratch(pm_request *req)
{
    pmi_buf *scratch = &pmi_app_requests(req->app)->scratch;
    pmi_buf_reset(scratch);
    if (scratch->cap > REQUEST_SCRATCH_KEEP) {
        pmi_buf_fini(scratch);
        pmi_buf_init(scratch, pmi_app_requests(req->app)->env, SIZE_MAX);
    }
    return scratch;
}

static pm_body request_json_body(pm_slice text)
{
    pm_body body = {PM_BODY_JSON, text};
    return body;
}

/* What could not be printed or encoded: the client hears 500, the handler why.
 */
static pm_err request_respond_500(pm_request *req, pm_err err)
{
    pmi_request_respond(req, err, NULL, request_body_500());
    return err;
}

pm_err pm_reply_json(pm_request *req, const struct cJSON *body)
{
    pmi_buf *scratch;
    pm_err err;
    if (!req->app || !pmi_json_truthy(body))
        return pmi_request_respond(req, PM_OK, NULL, pm_body_text("{}"));
    scratch = request_scratch(req);
    err = pmi_json_print(body, request_depth(req), scratch);
    if (err)
        return request_respond_500(req, err);
    return pmi_request_respond(req, PM_OK, NULL,
                               request_json_body(pmi_buf_slice(scratch)));
}

/* JavaScript's falsy values as JSON text. */
static bool request_text_is_falsy(pm_slice text)
{
    static const char *const falsy[] = {"null", "false", "0", "\"\"", ""};
    for (size_t i = 0; i < PMI_COUNT(falsy); i++)
        if (pmi_slice_eq(text, pm_text(falsy[i])))
            return true;
    return false;
}

pm_err pm_reply_body(pm_request *req, pm_body body)
{
    if (body.kind == PM_BODY_NONE ||
        (body.kind == PM_BODY_JSON && request_text_is_falsy(body.data)))
        body = pm_body_text("{}");
    return pmi_request_respond(req, PM_OK, NULL, body);
}

pm_err pm_reply_text(pm_request *req, const char *json)
{
    return pm_reply_body(req, pm_body_text(json));
}

pm_err pm_reply_bytes(pm_request *req, pm_slice bytes)
{
    return pmi_request_respond(req, PM_OK, NULL,
                               pm_body_bytes(bytes.data, bytes.len));
}

/* An object without a true `code` gets 500: in place when it has one, else
 * last. */
static pm_err request_print_coded(const cJSON *body, uint32_t depth,
                                  pmi_buf *out)
{
    cJSON *copy = cJSON_Duplicate(body, true);
    cJSON *code = cJSON_CreateNumber(500);
    pm_err err = PM_ENOMEM;
    if (copy && code)
        err = request_put(copy, "code", code);
    if (err == PM_OK)
        code = NULL;
    if (err == PM_OK)
        err = pmi_json_print(copy, depth, out);
    cJSON_Delete(code);
    cJSON_Delete(copy);
    return err;
}

pm_err pmi_request_fail_text(const struct cJSON *body, uint32_t depth,
                             pmi_buf *out)
{
    if (!body || !pmi_json_truthy(body)) {
        pmi_buf_add_text(out, request_500);
        return out->failed ? PM_ENOMEM : PM_OK;
    }
    if (cJSON_IsObject(body) && !pmi_json_truthy(pmi_json_get(body, "code")))
        return request_print_coded(body, depth, out);
    return pmi_json_print(body, depth, out);
}

pm_err pm_request_fail(pm_request *req, pm_err err, const char *detail,
                       const struct cJSON *body)
{
    pmi_buf *scratch;
    pm_err printed;
    if (err == PM_OK)
        err = PM_EREMOTE;
    if (!req->app || !body)
        return pmi_request_respond(req, err, detail, request_body_500());
    scratch = request_scratch(req);
    printed = pmi_request_fail_text(body, request_depth(req), scratch);
    if (printed)
        return request_respond_500(req, printed);
    return pmi_request_respond(req, err, detail,
                               request_json_body(pmi_buf_slice(scratch)));
}

void pm_request_drop(pm_request *req)
{
    req->dropped = true;
    pmi_request_respond(req, PM_OK, NULL, pm_body_none());
}
