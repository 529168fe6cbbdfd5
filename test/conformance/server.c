/* SPDX-License-Identifier: MIT */
/* server.c -- one frontend server as a configuration file describes it, so that
 * recordings of the real Pomelo can be replayed against this library.
 *
 *     server CONFIG.json
 *
 * Listens, prints "ready PORT", serves until SIGTERM. A configuration that asks
 * for something we do not have prints "unsupported WORD" and exits 3. There is
 * no protocol here, only what an application would register: the handlers of
 * the recorded application stand in server_methods, its callbacks in
 * server_checks and server_greetings. Start reading at main(). */
#include "pomelo.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVER_UNSUPPORTED = 3, SERVER_DRAIN_MS = 500 };

typedef struct server_config {
    cJSON *tree; /* owned */
    const char *type, *handler;
    char *server_protos, *client_protos; /* owned */
    const char **dictionary;             /* owned; its texts are the tree's */
    pm_server self;
    pm_app_opts app;
    pm_run_opts run;
} server_config;

/* ---- Handlers ---------------------------------------------------------- */

static const cJSON *server_member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* The body as a tree; NULL: the request has been ended. */
static cJSON *server_body(pm_request *req)
{
    cJSON *body = NULL;
    pm_err err = pm_request_json(req, &body);
    if (err) {
        pm_request_fail(req, err, pm_strerror(err), NULL);
        return NULL;
    }
    return body;
}

/* Answers {"code":200, NAME: value}. `value` is taken; NULL leaves it out. */
static void server_reply_ok(pm_request *req, const char *name, cJSON *value)
{
    cJSON *answer = cJSON_CreateObject();
    cJSON_AddNumberToObject(answer, "code", 200);
    if (value)
        cJSON_AddItemToObject(answer, name, value);
    pm_reply_json(req, answer);
    cJSON_Delete(answer);
}

static void server_fail(pm_request *req, const char *json)
{
    cJSON *body = NULL;
    if (json)
        pm_json_tree(pm_text(json), &body);
    pm_request_fail(req, PM_EREMOTE, "the handler says no", body);
    cJSON_Delete(body);
}

static void server_echo(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    (void)ctx;
    if (body)
        pm_reply_json(req, body);
}

static void server_ok(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    const cJSON *value = server_member(body, "v");
    (void)ctx;
    if (body)
        server_reply_ok(req, "v", value ? cJSON_Duplicate(value, true) : NULL);
}

static void server_nothing(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_json(req, NULL);
}

static void server_falsy(pm_request *req, void *ctx)
{
    cJSON *zero = cJSON_CreateNumber(0);
    (void)ctx;
    pm_reply_json(req, zero);
    cJSON_Delete(zero);
}

static void server_str(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "\"plain\"");
}

static void server_arr(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "[1,2]");
}

static void server_err(pm_request *req, void *ctx)
{
    (void)ctx;
    server_fail(req, NULL);
}

static void server_err_code(pm_request *req, void *ctx)
{
    (void)ctx;
    server_fail(req, "{\"code\":1001,\"msg\":\"no\"}");
}

static void server_err_no_code(pm_request *req, void *ctx)
{
    (void)ctx;
    server_fail(req, "{\"msg\":\"no\"}");
}

static void server_err_zero(pm_request *req, void *ctx)
{
    (void)ctx;
    server_fail(req, "{\"code\":0}");
}

/* A request that was answered is gone: whoever kept its number finds nothing
 * that could be answered again. */
static void server_twice(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    uint64_t id = pm_request_id(req);
    (void)ctx;
    pm_reply_text(req, "{\"n\":1}");
    req = pm_request_find(app, id);
    if (req)
        pm_reply_text(req, "{\"n\":2}");
}

static void server_cancelled(pm_request *req, pm_err why, void *ctx)
{
    (void)why;
    (void)ctx;
    pm_request_drop(req);
}

static void server_never(pm_request *req, void *ctx)
{
    pm_request_on_cancel(req, server_cancelled, ctx);
}

static void server_push(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    const cJSON *route = server_member(body, "route");
    const cJSON *message = server_member(body, "body");
    char *text = NULL;
    (void)ctx;
    if (!body)
        return;
    if (message && !cJSON_IsNull(message))
        pm_json_text(message, &text);
    pm_session_push(pm_request_session(req), cJSON_GetStringValue(route),
                    pm_body_text(text));
    pm_text_free(text);
    server_reply_ok(req, NULL, NULL);
}

static void server_push3(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    (void)ctx;
    pm_session_push(session, "onChat", pm_body_text("{\"i\":1}"));
    pm_session_push(session, "onChat", pm_body_text("{\"i\":2}"));
    pm_session_push(session, "onChat", pm_body_text("{\"i\":3}"));
    server_reply_ok(req, NULL, NULL);
}

static void server_kick(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    const cJSON *reason = server_member(body, "reason");
    (void)ctx;
    if (!body)
        return;
    pm_session_kick(pm_request_session(req), cJSON_GetStringValue(reason), NULL,
                    NULL);
    pm_request_drop(req);
}

static void server_kick_default(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_session_kick(pm_request_session(req), "kick", NULL, NULL);
    pm_request_drop(req);
}

static void server_proto(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    const char *name = cJSON_GetStringValue(server_member(body, "name"));
    (void)ctx;
    if (body)
        server_reply_ok(req, "name",
                        cJSON_CreateString(name && *name ? name : "none"));
}

static void server_proto_bad(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{\"wrong\":1}");
}

static void server_spread(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req);
    cJSON *answer;
    (void)ctx;
    if (!body)
        return;
    answer = cJSON_CreateObject();
    if (cJSON_GetArraySize(body) > 0)
        cJSON_AddItemToObject(
            answer, "a", cJSON_Duplicate(cJSON_GetArrayItem(body, 0), true));
    if (cJSON_GetArraySize(body) > 1)
        cJSON_AddItemToObject(
            answer, "b", cJSON_Duplicate(cJSON_GetArrayItem(body, 1), true));
    pm_reply_json(req, answer);
    cJSON_Delete(answer);
}

static const struct {
    const char *name;
    pm_handler_cb cb;
} server_methods[] = {
    {"echo", server_echo},
    {"ok", server_ok},
    {"nothing", server_nothing},
    {"falsy", server_falsy},
    {"str", server_str},
    {"arr", server_arr},
    {"err", server_err},
    {"errCode", server_err_code},
    {"errNoCode", server_err_no_code},
    {"errZero", server_err_zero},
    {"twice", server_twice},
    {"never", server_never},
    {"push", server_push},
    {"push3", server_push3},
    {"kick", server_kick},
    {"kickDefault", server_kick_default},
    {"proto", server_proto},
    {"protoBad", server_proto_bad},
    {"spread", server_spread},
};

/* A name that nobody knows answers {}, as `nothing` does. */
static pm_handler_cb server_method(const char *name)
{
    for (size_t i = 0; i < sizeof server_methods / sizeof *server_methods; i++)
        if (!strcmp(server_methods[i].name, name))
            return server_methods[i].cb;
    return server_nothing;
}

/* ---- checkClient ------------------------------------------------------- */

static bool server_check_ok(const char *type, const char *version, bool *failed,
                            void *ctx)
{
    (void)failed;
    (void)ctx;
    return type && version && !strcmp(type, "\"js-websocket\"") &&
           !strcmp(version, "\"0.0.1\"");
}

static bool server_check_fail(const char *type, const char *version,
                              bool *failed, void *ctx)
{
    (void)type;
    (void)version;
    (void)failed;
    (void)ctx;
    return false;
}

static bool server_check_throws(const char *type, const char *version,
                                bool *failed, void *ctx)
{
    (void)type;
    (void)version;
    (void)ctx;
    *failed = true;
    return false;
}

static bool server_check_absent(const char *type, const char *version,
                                bool *failed, void *ctx)
{
    (void)failed;
    (void)ctx;
    return !type && !version;
}

static const struct {
    const char *name;
    pm_check_client_cb cb;
} server_checks[] = {
    {"check-ok", server_check_ok},
    {"check-fail", server_check_fail},
    {"check-throws", server_check_throws},
    {"check-undefined-args", server_check_absent},
};

/* ---- Handshake callback ------------------------------------------------ */

static bool server_truthy(const cJSON *value)
{
    if (cJSON_IsNumber(value))
        return value->valuedouble != 0;
    if (cJSON_IsString(value))
        return *value->valuestring != 0;
    return value && !cJSON_IsNull(value) && !cJSON_IsFalse(value);
}

static void server_greet_echo(pm_handshake *hs, const cJSON *msg, void *ctx)
{
    const cJSON *user = server_member(msg, "user");
    cJSON *answer = cJSON_CreateObject();
    (void)ctx;
    cJSON_AddItemToObject(answer, "got",
                          server_truthy(user) ? cJSON_Duplicate(user, true)
                                              : cJSON_CreateNull());
    cJSON_AddStringToObject(answer, "t", "\xe6\xac\xa2\xe8\xbf\x8e");
    pm_handshake_done(hs, PM_OK, answer);
    cJSON_Delete(answer);
}

/* The rest answers the same to everybody: an error, and this JSON text. */
typedef struct server_greeting {
    const char *name;
    pm_handshake_cb cb; /* NULL: what follows */
    pm_err err;
    const char *user;
} server_greeting;

static const server_greeting server_greetings[] = {
    {"user-echo", server_greet_echo, PM_OK, NULL},
    {"user-empty-object", NULL, PM_OK, "{}"},
    {"user-undefined", NULL, PM_OK, NULL},
    {"user-false", NULL, PM_OK, "false"},
    {"user-string", NULL, PM_OK, "\"hi\""},
    {"user-error", NULL, PM_EREMOTE, NULL},
    {"user-throws", NULL, PM_EREMOTE, NULL},
    {"user-error-string", NULL, PM_EREMOTE, "\"hi\""},
};

static void server_greet(pm_handshake *hs, const cJSON *msg, void *ctx)
{
    const server_greeting *greeting = ctx;
    cJSON *user = NULL;
    (void)msg;
    if (greeting->user)
        pm_json_tree(pm_text(greeting->user), &user);
    pm_handshake_done(hs, greeting->err, user);
    cJSON_Delete(user);
}

/* ---- The configuration ------------------------------------------------- */

static int server_unsupported(const char *word)
{
    printf("unsupported %s\n", word);
    return SERVER_UNSUPPORTED;
}

static cJSON *server_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t len = 0, got = 0;
    char *text = NULL;
    cJSON *tree = NULL;
    do {
        char *more = realloc(text, len + 65536);
        if (!more || !file)
            break;
        text = more;
        got = fread(text + len, 1, 65536, file);
        len += got;
    } while (got);
    if (!file || pm_json_tree(pm_bytes(text, len), &tree))
        fprintf(stderr, "%s: not to be read, or not JSON\n", path);
    if (file)
        fclose(file);
    free(text);
    return tree;
}

static const char *server_text(const cJSON *object, const char *name,
                               const char *otherwise)
{
    const char *text = cJSON_GetStringValue(server_member(object, name));
    return text ? text : otherwise;
}

static double server_number(const cJSON *object, const char *name)
{
    const cJSON *value = server_member(object, name);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static bool server_true(const cJSON *object, const char *name)
{
    return server_truthy(server_member(object, name));
}

static int server_callbacks(const cJSON *from, pm_connector_opts *to)
{
    const char *check = server_text(from, "checkClient", NULL);
    const char *greeting = server_text(from, "handshake", NULL);
    size_t i;
    for (i = 0; check && i < sizeof server_checks / sizeof *server_checks; i++)
        if (!strcmp(server_checks[i].name, check))
            to->check_client = server_checks[i].cb;
    if (check && !to->check_client)
        return server_unsupported("checkClient");
    for (i = 0;
         greeting && i < sizeof server_greetings / sizeof *server_greetings;
         i++) {
        const server_greeting *one = &server_greetings[i];
        if (strcmp(one->name, greeting))
            continue;
        to->handshake = one->cb ? one->cb : server_greet;
        to->ctx = (void *)(uintptr_t)one;
    }
    if (greeting && !to->handshake)
        return server_unsupported("handshake");
    return 0;
}

static int server_connector(server_config *config, const cJSON *from)
{
    pm_connector_opts *to = &config->app.connector;
    const char *close = server_text(from, "closeMethod", "");
    const char *scheduler = server_text(config->tree, "scheduler", "direct");
    to->heartbeat_s = server_number(from, "heartbeat");
    to->timeout_s = server_number(from, "timeout");
    to->use_dict = server_true(from, "useDict");
    to->use_protobuf = server_true(from, "useProtobuf");
    to->use_crypto = server_true(from, "useCrypto");
    to->close_by_fin = !strcmp(close, "end");
    if (*close && !to->close_by_fin)
        return server_unsupported("closeMethod");
    if (!strcmp(scheduler, "buffer"))
        to->scheduler = PM_SCHEDULER_BUFFER;
    else if (strcmp(scheduler, "direct"))
        return server_unsupported("scheduler");
    to->server_protos = config->server_protos;
    to->client_protos = config->client_protos;
    return server_callbacks(from, to);
}

/* What config/dictionary.json holds. */
static bool server_dictionary(server_config *config)
{
    const cJSON *list = server_member(config->tree, "dictionary"), *one;
    size_t count = (size_t)cJSON_GetArraySize(list), used = 0;
    config->dictionary = calloc(count + 1, sizeof *config->dictionary);
    if (!config->dictionary)
        return false;
    for (one = list ? list->child : NULL; one; one = one->next)
        if (cJSON_IsString(one))
            config->dictionary[used++] = one->valuestring;
    config->app.connector.dictionary = config->dictionary;
    config->app.connector.dictionary_count = used;
    return true;
}

static bool server_protos(const cJSON *tree, const char *name, char **out)
{
    const cJSON *protos = server_member(tree, name);
    return !protos || pm_json_text(protos, out) == PM_OK;
}

static void server_started(pm_loop *loop, pm_app *const *apps, size_t count,
                           void *ctx)
{
    (void)loop;
    (void)count;
    (void)ctx;
    printf("ready %u\n", (unsigned)pm_app_client_port(apps[0]));
    fflush(stdout);
}

/* 0, or the status to exit with. */
static int server_configure_run(server_config *config)
{
    const cJSON *tree = config->tree;
    const char *host = server_text(tree, "host", "127.0.0.1");
    config->app = pm_app_opts_default();
    config->run = pm_run_opts_default();
    config->type = server_text(tree, "serverType", "connector");
    config->handler = server_text(tree, "handler", "entryHandler");
    if (!server_protos(tree, "serverProtos", &config->server_protos) ||
        !server_protos(tree, "clientProtos", &config->client_protos) ||
        !server_dictionary(config))
        return 1;
    config->self.id = "conformance-1";
    config->self.type = config->type;
    config->self.host = host;
    config->self.client_port = (uint16_t)server_number(tree, "port");
    config->self.frontend = true;
    config->app.client_bind = host;
    config->run.servers = &config->self;
    config->run.servers_count = 1;
    config->run.app = &config->app;
    config->run.drain_ms = SERVER_DRAIN_MS;
    config->run.started = server_started;
    return server_connector(config, server_member(tree, "connector"));
}

/* ---- Registering ------------------------------------------------------- */

/* Registers TYPE.HANDLER.METHOD for each text of `methods`: with its function,
 * or for the dictionary alone. */
static pm_err server_register(pm_app *app, const char *type,
                              const char *handler, const cJSON *methods,
                              bool own)
{
    for (const cJSON *one = methods ? methods->child : NULL; one;
         one = one->next) {
        char route[512];
        pm_err err;
        if (!cJSON_IsString(one))
            continue;
        snprintf(route, sizeof route, "%s.%s.%s", type, handler,
                 one->valuestring);
        err = own ? pm_app_handler(app, route, server_method(one->valuestring),
                                   NULL)
                  : pm_app_declare(app, route);
        if (err) {
            fprintf(stderr, "%s: %s\n", route, pm_strerror(err));
            return err;
        }
    }
    return PM_OK;
}

static pm_err server_configure(pm_app *app, void *ctx)
{
    const server_config *config = ctx;
    const cJSON *types = server_member(config->tree, "otherHandlers");
    pm_err err = server_register(app, config->type, config->handler,
                                 server_member(config->tree, "methods"), true);
    for (const cJSON *type = types ? types->child : NULL; type;
         type = type->next)
        for (const cJSON *handler = type->child; handler && err == PM_OK;
             handler = handler->next)
            err = server_register(app, type->string, handler->string, handler,
                                  false);
    return err;
}

int main(int argc, char **argv)
{
    server_config config = {0};
    int status = 1;
    pm_err err;
    if (argc != 2 || !strcmp(argv[1], "--help")) {
        fputs("usage: server CONFIG.json\n", stderr);
        return 2;
    }
    config.tree = server_read(argv[1]);
    if (config.tree)
        status = server_configure_run(&config);
    if (status == 0) {
        err = pm_run(&config.run, server_configure, &config);
        if (err)
            fprintf(stderr, "server: %s\n", pm_strerror(err));
        status = err ? 1 : 0;
    }
    pm_text_free(config.server_protos);
    pm_text_free(config.client_protos);
    free(config.dictionary);
    cJSON_Delete(config.tree);
    return status;
}
