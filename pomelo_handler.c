/* SPDX-License-Identifier: MIT */
/* pomelo_handler.c -- handler table, dictionary, dispatch, forwarding.
 *
 * A client's message finds its entry by dictionary code (an array) or by name
 * (a map), becomes a request, and is taken through its stages by handler_run:
 * the one loop that a walk through the library should read. A request of
 * another type is forwarded: its bytes go to a backend untouched, the answer's
 * come back. */
#include "pomelo_handler_internal.h"

#include <cjson/cJSON.h>

#define HANDLER_TYPE_MAX 255

struct pmi_handlers {
    pm_app *app;
    const pmi_env *env;
    pmi_map by_route;          /* route -> pmi_route_entry */
    pmi_route_entry **by_code; /* owned array; NULL where no handler */
    uint32_t codes;
    pmi_dict *dict;
    pmi_dialect *client, *server;
    char proto_version[25];
    pmi_handshake_sys sys;
    pmi_buf session; /* scratch: an exported session */
};

static void handler_run(pm_request *req);
static void handler_serve_forward(pm_app *app, pm_call *call);
static pm_err handler_make_dialects(pmi_handlers *handlers);

pm_err pmi_handlers_new(pm_app *app, pmi_handlers **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_handlers *handlers = pmi_zalloc(env, sizeof *handlers);
    if (!handlers)
        return PM_ENOMEM;
    handlers->app = app;
    handlers->env = env;
    pmi_loop_map_init(pm_app_loop(app), &handlers->by_route);
    pmi_buf_init(&handlers->session, env, 1024 + PMI_SETTINGS_TEXT_MAX);
    pmi_requests_set_run(pmi_app_requests(app), handler_run);
    pmi_rpc_serve(pmi_app_rpc(app), PMI_OP_FORWARD, handler_serve_forward);
    *out = handlers;
    return handler_make_dialects(handlers);
}

/* What pmi_handlers_start has made: it may be made again. */
static void handler_unmake(pmi_handlers *handlers)
{
    pmi_dict_free(handlers->dict);
    pmi_free(handlers->env, handlers->by_code);
    handlers->dict = NULL;
    handlers->by_code = NULL;
    handlers->codes = 0;
}

void pmi_handlers_free(pmi_handlers *handlers)
{
    pmi_map_walk walk;
    if (!handlers)
        return;
    handler_unmake(handlers);
    pmi_dialect_free(handlers->client);
    pmi_dialect_free(handlers->server);
    walk = pmi_map_begin(&handlers->by_route);
    while (pmi_map_next(&walk)) {
        pmi_route_entry *entry = walk.value;
        pmi_free(handlers->env, entry->times);
        pmi_free(handlers->env, entry->route);
        pmi_free(handlers->env, entry);
    }
    pmi_map_fini(&handlers->by_route);
    pmi_buf_fini(&handlers->session);
    pmi_free(handlers->env, handlers);
}

/* ---- Registering ------------------------------------------------------- */

/* Three non-empty parts. Returns the length of the first, 0 when it is not so.
 */
static size_t handler_type_len(pm_slice route)
{
    const char *text = route.data;
    size_t part = 0, parts = 1, type_len = 0;
    for (size_t i = 0; i < route.len; i++, part++) {
        if (text[i] != '.')
            continue;
        if (part == 0)
            return 0;
        if (parts++ == 1)
            type_len = i;
        part = (size_t)-1;
    }
    return parts == 3 && part > 0 ? type_len : 0;
}

static pm_err handler_add(pm_app *app, const char *route, pmi_route_entry **out)
{
    pmi_handlers *handlers = pmi_app_handlers(app);
    pm_slice name = pm_text(route);
    size_t type_len = handler_type_len(name);
    const char *own = pm_app_server(app)->type;
    pmi_route_entry *entry;
    if (!route || name.len > PMI_ROUTE_MAX || !type_len)
        return PM_EINVAL;
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        return PM_ESTATE;
    entry = pmi_map_get(&handlers->by_route, name);
    if (entry) {
        *out = entry;
        return PM_OK;
    }
    entry = pmi_zalloc(handlers->env, sizeof *entry);
    if (!entry)
        return PM_ENOMEM;
    entry->route = pmi_strdup(handlers->env, route);
    entry->type_len = (uint8_t)type_len;
    entry->route_len = (uint8_t)name.len;
    entry->local = strlen(own) == type_len && !memcmp(own, route, type_len);
    if (!entry->route || pmi_map_put(&handlers->by_route, name, entry, NULL)) {
        pmi_free(handlers->env, entry->route);
        pmi_free(handlers->env, entry);
        return PM_ENOMEM;
    }
    *out = entry;
    return PM_OK;
}

pm_err pm_app_handler(pm_app *app, const char *route, pm_handler_cb cb,
                      void *ctx)
{
    pmi_route_entry *entry;
    pm_err err = cb ? handler_add(app, route, &entry) : PM_EINVAL;
    if (err)
        return err;
    if (entry->cb)
        return PM_EEXIST;
    entry->cb = cb;
    entry->ctx = ctx;
    return PM_OK;
}

pm_err pm_app_declare(pm_app *app, const char *route)
{
    pmi_route_entry *entry;
    return handler_add(app, route, &entry);
}

void pmi_handlers_each(pmi_handlers *handlers,
                       bool (*each)(const pmi_route_entry *entry, void *ctx),
                       void *ctx)
{
    pmi_map_walk walk = pmi_map_begin(&handlers->by_route);
    bool more = true;
    while (more && pmi_map_next(&walk))
        more = each(walk.value, ctx);
    if (!more)
        pmi_map_end(&walk);
}

/* ---- Dictionary and schemas -------------------------------------------- */

static pm_err handler_make_dict(pmi_handlers *handlers,
                                const pm_connector_opts *opts)
{
    uint32_t count = pmi_map_count(&handlers->by_route), i = 0;
    pm_loop *loop = pm_app_loop(handlers->app);
    const char **routes =
        pmi_resize_array(handlers->env, NULL, count, sizeof *routes);
    pmi_map_walk walk = pmi_map_begin(&handlers->by_route);
    pm_err err;
    if (!routes) {
        pmi_map_end(&walk);
        return PM_ENOMEM;
    }
    while (pmi_map_next(&walk))
        routes[i++] = ((pmi_route_entry *)walk.value)->route;
    err =
        pmi_dict_new(handlers->env, pmi_loop_random_u64(loop),
                     pmi_loop_random_u64(loop), routes, count, opts->dictionary,
                     opts->dictionary_count, &handlers->dict);
    pmi_free(handlers->env, routes);
    if (err)
        return err;
    handlers->codes = count + (uint32_t)opts->dictionary_count + 1;
    handlers->by_code = pmi_resize_array(handlers->env, NULL, handlers->codes,
                                         sizeof *handlers->by_code);
    if (!handlers->by_code)
        return PM_ENOMEM;
    for (i = 0; i < handlers->codes; i++)
        handlers->by_code[i] = pmi_map_get(
            &handlers->by_route, pmi_dict_route(handlers->dict, (uint16_t)i));
    return PM_OK;
}

static pm_err handler_make_dialects(pmi_handlers *handlers)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(handlers->app);
    pm_loop *loop = pm_app_loop(handlers->app);
    pm_err err = PM_OK;
    if (!opts->use_protobuf)
        return PM_OK;
    if (opts->client_protos)
        err = pmi_dialect_new(handlers->env, pmi_loop_random_u64(loop),
                              pmi_loop_random_u64(loop),
                              pm_text(opts->client_protos), &handlers->client);
    if (err == PM_OK && opts->server_protos)
        err = pmi_dialect_new(handlers->env, pmi_loop_random_u64(loop),
                              pmi_loop_random_u64(loop),
                              pm_text(opts->server_protos), &handlers->server);
    if (err)
        return err;
    return pmi_dialect_version(handlers->client, handlers->server,
                               handlers->proto_version);
}

/* Each route's schemas. */
static void handler_find_schemas(pmi_handlers *handlers)
{
    pmi_map_walk walk = pmi_map_begin(&handlers->by_route);
    while (pmi_map_next(&walk)) {
        pmi_route_entry *entry = walk.value;
        pm_slice route = pm_bytes(entry->route, entry->route_len);
        entry->client = handlers->client;
        entry->server = handlers->server;
        entry->client_message =
            handlers->client ? pmi_dialect_find(handlers->client, route) : NULL;
        entry->server_message =
            handlers->server ? pmi_dialect_find(handlers->server, route) : NULL;
    }
}

pm_err pmi_handlers_start(pmi_handlers *handlers)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(handlers->app);
    pmi_handshake_sys *sys = &handlers->sys;
    pm_err err = PM_OK;
    handler_unmake(handlers);
    memset(sys, 0, sizeof *sys);
    if (opts->use_dict)
        err = handler_make_dict(handlers, opts);
    if (err) {
        handler_unmake(handlers);
        return err;
    }
    handler_find_schemas(handlers);
    sys->heartbeat_s = opts->heartbeat_s;
    sys->dict = handlers->dict;
    sys->use_protobuf = opts->use_protobuf;
    sys->client = handlers->client;
    sys->server = handlers->server;
    sys->proto_version = handlers->proto_version;
    return PM_OK;
}

const pmi_handshake_sys *pmi_handlers_sys(const pmi_handlers *handlers)
{
    return &handlers->sys;
}

static pm_err handler_encode_proto(pmi_handlers *handlers,
                                   const pmi_dialect_message *message,
                                   pm_body body, pmi_buf *out)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(handlers->app);
    uint32_t depth = pmi_app_limits(handlers->app)->depth;
    cJSON *tree = NULL;
    pm_err err = pmi_json_parse(handlers->env, body.data, depth, &tree, NULL);
    if (err)
        return err;
    err = pmi_dialect_encode(handlers->server, message, tree, depth, out);
    cJSON_Delete(tree);
    if (err == PM_EPROTOBUF) {
        PMI_LOG(handlers->env, PM_LOG_ERROR, "handler",
                "a body does not fit its schema in serverProtos");
        if (opts->proto_refused_as_json)
            pmi_buf_add(out, body.data.data, body.data.len);
        err = out->failed ? PM_ENOMEM : PM_OK; /* Pomelo: an empty body */
    }
    return err;
}

pm_err pmi_handler_encode(pmi_handlers *handlers, pm_slice route, pm_body body,
                          pmi_buf *out)
{
    const pmi_dialect_message *message = NULL;
    if (handlers->server && body.kind == PM_BODY_JSON)
        message = pmi_dialect_find(handlers->server, route);
    if (message)
        return handler_encode_proto(handlers, message, body, out);
    pmi_buf_add(out, body.data.data, body.data.len);
    return out->failed ? PM_ENOMEM : PM_OK;
}

/* ---- A client's message ------------------------------------------------ */

/* Pomelo's rule: no dot, or a leading one, is dropped without an answer; other
 * than three parts is answered with 500. */
typedef enum handler_shape {
    HANDLER_DROP,
    HANDLER_BAD,
    HANDLER_THREE,
    HANDLER_ATTACK
} handler_shape;

static handler_shape handler_shape_of(pm_slice route)
{
    static const char constructor[] = "constructor";
    const char *text = route.data;
    size_t dots = 0, last = 0;
    for (size_t i = 0; i < route.len; i++) {
        if (text[i] != '.')
            continue;
        if (i == 0)
            return HANDLER_DROP;
        dots++;
        last = i;
    }
    if (dots == 0)
        return HANDLER_DROP;
    if (dots != 2)
        return HANDLER_BAD;
    if (route.len - last - 1 == sizeof constructor - 1 &&
        !memcmp(text + last + 1, constructor, sizeof constructor - 1))
        return HANDLER_ATTACK;
    return HANDLER_THREE;
}

/* The body's kind, and what only a parsed body can tell: does it fit its
 * schema, and is its signature right? False: the message is dropped. */
static bool handler_check_body(pmi_handlers *handlers, pm_request *req,
                               pmi_rsa *key)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(handlers->app);
    bool verified = false;
    cJSON *tree;
    if (req->body.kind == PM_BODY_PROTO && pm_request_json(req, &tree))
        return false;
    if (!opts->use_crypto)
        return true;
    if (!key || pm_request_json(req, &tree))
        return false;
    /* The signature covers what the client wrote: without our __route__. */
    cJSON_DeleteItemFromObjectCaseSensitive(tree, "__route__");
    if (pmi_proto_verify(handlers->env, key, tree,
                         pmi_app_limits(handlers->app)->depth, &verified))
        return false;
    return verified;
}

/* A checked tree gets its __route__ back. A signed body that travels on travels
 * without its signature: as the text of its tree. */
static pm_err handler_settle_body(pm_request *req, bool crypto)
{
    pmi_buf text;
    pm_err err;
    cJSON *tree = req->tree;
    if (!crypto || !tree)
        return PM_OK;
    pmi_buf_init(&text, pmi_loop_env(req->loop), SIZE_MAX);
    err = pmi_json_print(tree, PMI_JSON_DEPTH_MAX, &text);
    if (err) {
        pmi_buf_fini(&text);
        return err;
    }
    cJSON_Delete(tree);
    req->tree = NULL;
    req->owned_body = text.data; /* taken */
    req->body.kind = PM_BODY_JSON;
    req->body.data = pmi_buf_slice(&text);
    return PM_OK;
}

static pm_body handler_body_of(const pmi_handlers *handlers,
                               const pmi_route_entry *entry, pm_slice route,
                               pm_slice data)
{
    pm_body body = {PM_BODY_JSON, data};
    if (entry ? entry->client_message != NULL
              : handlers->client && pmi_dialect_find(handlers->client, route))
        body.kind = PM_BODY_PROTO;
    return body;
}

static void handler_discard(pm_request *req)
{
    req->dropped = true;
    req->stage = PMI_STAGE_END;
    pmi_request_send(req);
    pmi_request_release(req);
}

/* Answered before any filter has seen it, as in Pomelo: none sees it at all. */
static void handler_refuse(pm_request *req, pm_err err)
{
    req->global = false;
    req->stage = PMI_STAGE_FORWARD;
    pmi_request_respond(req, err, NULL, pm_body_text("{\"code\":500}"));
}

static pm_err handler_new_request(pmi_handlers *handlers, pm_session *session,
                                  const pmi_message *msg, pmi_rsa *key,
                                  pmi_answer_cb answer, pmi_route_entry *entry,
                                  pm_slice route, handler_shape shape)
{
    bool crypto = pmi_app_connector_opts(handlers->app)->use_crypto;
    pm_request *req = pmi_request_new(pmi_app_requests(handlers->app), session);
    pm_err err;
    if (!req)
        return PM_ENOMEM;
    req->answer = answer;
    req->global = true;
    req->wire_id = msg->type == PMI_MESSAGE_REQUEST ? msg->id : 0;
    req->body = handler_body_of(handlers, entry, route, msg->body);
    err = pmi_request_set_route(req, entry, route);
    if (err || !handler_check_body(handlers, req, key)) {
        if (!err)
            pmi_count(handlers->app, PMI_COUNT_REFUSED_BODY);
        handler_discard(req);
        return err;
    }
    err = handler_settle_body(req, crypto);
    if (err == PM_OK && shape == HANDLER_BAD) {
        pmi_count(handlers->app, PMI_COUNT_REFUSED_SHAPE);
        err = PM_EROUTE;
    }
    if (err == PM_OK && pmi_app_state_of(handlers->app) != PMI_APP_RUNNING) {
        pmi_count(handlers->app, PMI_COUNT_REFUSED_STOPPING);
        err = PM_EBUSY; /* draining: what is in flight ends, nothing begins */
    }
    if (err)
        handler_refuse(req, err);
    else
        handler_run(req);
    return PM_OK;
}

/* Counted; the connection goes on. */
static pm_err handler_ignore(pmi_handlers *handlers, pmi_count_what why)
{
    pmi_count(handlers->app, why);
    return PM_OK;
}

pm_err pmi_handler_message(pmi_handlers *handlers, pm_session *session,
                           const pmi_message *msg, pmi_rsa *key,
                           pmi_answer_cb answer)
{
    pmi_route_entry *entry = NULL;
    handler_shape shape = HANDLER_THREE;
    pm_slice route = msg->route;
    if (!msg->has_route || msg->type == PMI_MESSAGE_RESPONSE)
        return handler_ignore(handlers, PMI_COUNT_REFUSED_TYPE);
    if (msg->compressed) {
        if (!handlers->dict || msg->code == 0 || msg->code >= handlers->codes)
            return handler_ignore(handlers, PMI_COUNT_REFUSED_ROUTE);
        entry = handlers->by_code[msg->code];
        route = pmi_dict_route(handlers->dict, msg->code);
    } else {
        entry = pmi_map_get(&handlers->by_route, route);
    }
    if (!entry)
        shape = handler_shape_of(route);
    if (shape == HANDLER_DROP)
        return handler_ignore(handlers, PMI_COUNT_REFUSED_ROUTE);
    if (shape == HANDLER_ATTACK) {
        session->ops->kick(session, "attack", PM_CLOSE_ATTACK);
        return PM_OK;
    }
    return handler_new_request(handlers, session, msg, key, answer, entry,
                               route, shape);
}

/* ---- Forwarding -------------------------------------------------------- */
/* extra of a forwarded request: flags (1: notify) | proto version (24 or 0
 * bytes after its length) | session. Of the answer: flags (1: nothing is to be
 * sent). */

enum { HANDLER_NOTIFY = 1, HANDLER_SILENT = 1 };

static void handler_forwarded(const pmi_rpc_answer *answer, void *ctx)
{
    pm_request *req = ctx;
    const pm_rpc_result *result = &answer->result;
    const uint8_t *flags = answer->extra.data;
    pm_body body = result->body;
    req->call_id = 0;
    if (answer->extra.len && flags[0] & HANDLER_SILENT)
        req->dropped = true;
    if (body.kind == PM_BODY_NONE)
        body = pm_body_text("{\"code\":500}");
    pmi_request_respond(req, result->err, result->err ? result->detail : NULL,
                        body);
}

static void handler_forward(pmi_handlers *handlers, pm_request *req)
{
    pmi_buf lent = handlers->session, *extra = &lent;
    pmi_rpc_send_opts send = {.op = PMI_OP_FORWARD};
    size_t version_len =
        req->body.kind == PM_BODY_PROTO ? strlen(handlers->proto_version) : 0;
    pm_err err;
    /* Taken meanwhile: a router may let another request go on. */
    pmi_buf_init(&handlers->session, lent.env, lent.max);
    pmi_buf_reset(extra);
    pmi_buf_add_byte(extra, req->wire_id ? 0 : HANDLER_NOTIFY);
    pmi_buf_add_byte(extra, (uint8_t)version_len);
    pmi_buf_add(extra, handlers->proto_version, version_len);
    pmi_session_export(req->session, extra);
    send.method = pm_bytes(req->route, req->route_len);
    send.type = pm_bytes(req->route, req->type_len);
    send.param = pm_param_session(req->session);
    send.extra = pmi_buf_slice(extra);
    send.body = req->body;
    send.deadline_ms = pmi_app_limits(handlers->app)->request_ms;
    err = extra->failed || !req->body_valid
              ? PM_ENOMEM /* a filter held it, and its bytes were not kept */
              : pmi_rpc_send(pmi_app_rpc(handlers->app), &send,
                             handler_forwarded, req, &req->call_id);
    pmi_buf_fini(&handlers->session);
    handlers->session = lent;
    if (err)
        pmi_request_respond(req, err, NULL, pm_body_text("{\"code\":500}"));
}

/* The backend's end: the answer goes back on the call. */
static pm_err handler_answer_call(pm_request *req, const pm_response *response)
{
    pm_call *call = req->origin;
    uint8_t silent = HANDLER_SILENT;
    pm_err err;
    if (!response)
        return pmi_call_answer(call, PM_OK, 0, NULL, pm_body_none(),
                               pm_bytes(&silent, 1));
    err =
        pmi_call_answer(call, response->err ? PM_EREMOTE : PM_OK, response->err,
                        response->err ? response->detail : NULL, response->body,
                        pm_bytes(NULL, 0));
    return err == PM_ENOTIFY ? PM_OK : err;
}

static void handler_caller_gone(pm_call *call, void *ctx)
{
    (void)call;
    pmi_request_cancel(ctx, PM_ECLOSED);
}

static pm_err handler_serve_one(pm_app *app, pm_call *call)
{
    pmi_handlers *handlers = pmi_app_handlers(app);
    pm_slice extra = pmi_call_extra(call), version, route;
    pmi_cursor in = pmi_cursor_of(extra.data, extra.len);
    uint8_t flags = pmi_cursor_byte(&in);
    pm_session *session;
    pm_request *req;
    pm_err err;
    version = pmi_cursor_bytes(&in, pmi_cursor_byte(&in));
    if (in.bad)
        return PM_EFRAME;
    if (version.len &&
        !pmi_slice_eq(version, pm_text(handlers->proto_version))) {
        pmi_count(app, PMI_COUNT_REFUSED_PROTOS);
        return PM_EPROTOBUF;
    }
    err = pmi_session_import(app, pmi_cursor_bytes(&in, pmi_cursor_left(&in)),
                             &session);
    if (err)
        return err;
    req = pmi_request_new(pmi_app_requests(app), session);
    pm_session_unref(session); /* the request has its own reference */
    if (!req)
        return PM_ENOMEM;
    req->answer = handler_answer_call;
    req->origin = call;
    req->stage = PMI_STAGE_BEFORE;
    req->wire_id = flags & HANDLER_NOTIFY ? 0 : 1;
    req->body = pm_call_args(call);
    route = pm_text(pm_call_method(call));
    err = pmi_request_set_route(req, pmi_map_get(&handlers->by_route, route),
                                route);
    pmi_call_on_gone(call, handler_caller_gone, req);
    /* The frontend has checked schema and signature. */
    if (err)
        handler_discard(req);
    else
        handler_run(req);
    return PM_OK;
}

/* Before anything is looked at: refusing must cost next to nothing. */
static bool handler_refuse_forward(pm_app *app, pm_call *call)
{
    uint64_t lag_us = (uint64_t)pmi_app_limits(app)->lag_ms * 1000;
    if (!lag_us || !pmi_loop_is_overloaded(pm_app_loop(app), lag_us))
        return false;
    pmi_count(app, PMI_COUNT_REFUSED_LAG);
    pmi_call_answer(call, PM_EREMOTE, PM_EBUSY, pm_strerror(PM_EBUSY),
                    pm_body_text("{\"code\":503}"), pm_bytes(NULL, 0));
    return true;
}

static void handler_serve_forward(pm_app *app, pm_call *call)
{
    pm_err err;
    if (handler_refuse_forward(app, call))
        return;
    err = handler_serve_one(app, call);
    if (err)
        pmi_call_answer(call, PM_EREMOTE, err, pm_strerror(err), pm_body_none(),
                        pm_bytes(NULL, 0));
}

/* ---- The stages -------------------------------------------------------- */

static void handler_call(pm_request *req)
{
    const pmi_route_entry *entry = req->entry;
    if (!entry || !entry->local || !entry->cb) {
        pmi_count(req->app, PMI_COUNT_REFUSED_METHOD);
        pmi_request_respond(req, PM_ENOMETHOD, NULL,
                            pm_body_text("{\"code\":500}"));
        return;
    }
    entry->cb(req, entry->ctx);
}

static void handler_next(pm_request *req, pmi_stage stage)
{
    req->stage = stage;
    req->at = 0;
}

/* True: it stays here. */
static bool handler_dispatch(pm_request *req)
{
    const char *own = pm_app_server(req->app)->type;
    bool local = req->entry ? req->entry->local
                            : strlen(own) == req->type_len &&
                                  !memcmp(own, req->route, req->type_len);
    if (local) {
        handler_next(req, PMI_STAGE_BEFORE);
        return true;
    }
    req->held = true;
    req->stage = PMI_STAGE_FORWARD;
    handler_forward(pmi_app_handlers(req->app), req);
    return false;
}

/* One step. Each stage either holds the request (somebody of the application
 * has it now) or moves it on; without filters one step leads to the handler. */
static void handler_step(pm_request *req)
{
    switch (req->stage) {
    case PMI_STAGE_GLOBAL_BEFORE:
        if (req->global && pmi_filter_before(req, true))
            break;
        handler_next(req, PMI_STAGE_DISPATCH);
        /* fall through */
    case PMI_STAGE_DISPATCH:
        if (!handler_dispatch(req))
            break;
        /* fall through */
    case PMI_STAGE_BEFORE:
        if (pmi_filter_before(req, false))
            break;
        handler_next(req, PMI_STAGE_HANDLER);
        /* fall through */
    case PMI_STAGE_HANDLER:
        req->held = true;
        handler_call(req);
        break;
    case PMI_STAGE_ERROR:
        if (!pmi_filter_error(req, false))
            handler_next(req, PMI_STAGE_AFTER);
        break;
    case PMI_STAGE_AFTER:
        if (!pmi_filter_after(req, false))
            handler_next(req, PMI_STAGE_ANSWER);
        break;
    case PMI_STAGE_GLOBAL_ERROR:
        if (!pmi_filter_error(req, true))
            handler_next(req, PMI_STAGE_ANSWER);
        break;
    case PMI_STAGE_FORWARD:
    case PMI_STAGE_ANSWER:
        pmi_request_send(req);
        handler_next(req, PMI_STAGE_GLOBAL_AFTER);
        break;
    case PMI_STAGE_GLOBAL_AFTER:
        if (!req->global || !pmi_filter_after(req, true))
            req->stage = PMI_STAGE_END;
        break;
    case PMI_STAGE_END:
        break;
    }
}

/* The wire side has ended while a filter had it: the handler is skipped, the
 * after filters see how it ended. */
static void handler_skip(pm_request *req)
{
    if (req->answered && req->stage <= PMI_STAGE_HANDLER) {
        req->response.err = req->cancelled;
        req->response.detail = pm_strerror(req->cancelled);
        req->response.body = pm_body_none();
        handler_next(req, req->stage <= PMI_STAGE_DISPATCH
                              ? PMI_STAGE_GLOBAL_AFTER
                              : PMI_STAGE_AFTER);
    }
}

static void handler_deadline(pmi_timer *timer)
{
    pmi_request_cancel(PMI_OUTER(timer, pm_request, deadline), PM_ETIMEOUT);
}

/* Somebody keeps it: what it needs must outlast the caller's bytes. */
static void handler_wait(pm_request *req)
{
    bool filter = req->stage < PMI_STAGE_HANDLER;
    if (filter && pm_request_keep(req))
        req->body_valid = false;
    if (!req->owned_body)
        req->body_valid = false;
    if (!req->answered && !pmi_timer_is_set(&req->deadline) &&
        req->stage != PMI_STAGE_FORWARD)
        pmi_timer_set(req->loop, &req->deadline,
                      (uint64_t)pmi_app_limits(req->app)->request_ms * 1000,
                      handler_deadline);
}

static void handler_run(pm_request *req)
{
    pm_loop *loop = req->loop;
    if (req->running)
        return;           /* the loop that called out goes on when it is back */
    pmi_loop_enter(loop); /* a callback may free the app */
    req->running = true;
    while (!req->held && req->app && req->stage != PMI_STAGE_END) {
        handler_skip(req);
        handler_step(req);
    }
    req->running = false;
    if (!req->held)
        pmi_request_release(req);
    else if (req->app)
        handler_wait(req);
    pmi_loop_leave(loop);
}
