/* SPDX-License-Identifier: MIT */
/* game.c -- the handlers of @NAME@: a chat with rooms.
 *
 *   gate        gate.gateHandler.queryEntry   which connector is mine?
 *   connector   connector.entryHandler.entry  are you there?
 *               connector.entryHandler.enter  I am NAME, let me into ROOM
 *   chat        chat.chatHandler.send         say it to the room
 *
 * A user is "name*room". A room is a channel on one chat server, chosen by the
 * room's name. Start reading at game_configure(), at the end; to add a handler
 * of your own, write one like gate_query_entry and register it there. */
#include "game.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#define UID_SIZE 256 /* with the 0 */

/* ---- Small helpers ----------------------------------------------------- */

/* A text of the request's body; NULL when it is not there or empty. */
static const char *text_of(pm_request *req, const char *name)
{
    cJSON *body;
    const char *text;
    if (pm_request_json(req, &body))
        return NULL;
    text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, name));
    return text && *text ? text : NULL;
}

static const char *room_of(const char *uid)
{
    const char *star = strchr(uid, '*');
    return star ? star + 1 : "";
}

static cJSON *name_of(const char *uid)
{
    char name[UID_SIZE];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(uid, "*"), uid);
    return cJSON_CreateString(name);
}

/* Pushes a tree to everybody in the room, and frees the tree. */
static void push_to_room(pm_channel *room, const char *route, cJSON *tree)
{
    char *text = NULL;
    if (tree && pm_json_text(tree, &text) == PM_OK)
        pm_channel_push(room, route, pm_body_text(text), NULL, NULL);
    pm_text_free(text);
    cJSON_Delete(tree);
}

static void tell_room(pm_channel *room, const char *route, const char *uid)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddItemToObject(tree, "user", name_of(uid));
    push_to_room(room, route, tree);
}

/* ---- gate -------------------------------------------------------------- */

/* {uid} -> {"code":200,"host","port"}: a user always gets the same connector.
 */
static void gate_query_entry(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    size_t count = pm_server_count(app, "connector");
    const char *uid = text_of(req, "uid");
    const pm_server *server;
    cJSON *answer;
    (void)ctx;
    if (!uid || !count) {
        pm_reply_text(req, "{\"code\":500}");
        return;
    }
    server = pm_server_at(app, "connector", pm_dispatch(uid, count));
    answer = cJSON_CreateObject();
    cJSON_AddNumberToObject(answer, "code", 200);
    cJSON_AddStringToObject(answer, "host",
                            server->host ? server->host : "127.0.0.1");
    cJSON_AddNumberToObject(answer, "port", server->client_port);
    pm_reply_json(req, answer);
    cJSON_Delete(answer);
}

/* ---- connector --------------------------------------------------------- */

static void connector_entry(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{\"code\":200,\"msg\":\"game server is ok.\"}");
}

/* Calls chat.chatRemote.add or .leave with [uid, frontend] on the chat server
 * that has the session's room. */
static pm_err call_chat(pm_app *app, pm_session *session, const char *method,
                        pm_rpc_cb cb, void *ctx)
{
    const char *of[] = {pm_session_uid(session), pm_app_server(app)->id};
    cJSON *args = cJSON_CreateStringArray(of, 2);
    char *text = NULL;
    pm_err err = args ? pm_json_text(args, &text) : PM_ENOMEM;
    if (err == PM_OK)
        err = pm_rpc_invoke(app, method, pm_param_session(session),
                            pm_body_text(text), cb, ctx);
    pm_text_free(text);
    cJSON_Delete(args);
    return err;
}

/* The room has answered with the names of those who are in it. */
static void connector_added(const pm_rpc_result *result, void *ctx)
{
    pm_request *req = ctx;
    if (result->err)
        pm_request_fail(req, result->err, result->detail, NULL);
    else
        pm_reply_body(req, result->body);
}

static void connector_bound(pm_err err, const char *detail, void *ctx)
{
    pm_request *req = ctx;
    if (err == PM_OK)
        err = call_chat(pm_request_app(req), pm_request_session(req),
                        "chat.chatRemote.add", connector_added, req);
    if (err)
        pm_request_fail(req, err, detail, NULL);
}

/* {username, rid} -> {"users":[names, mine included]}. */
static void connector_enter(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    const char *name = text_of(req, "username"), *room = text_of(req, "rid");
    char uid[UID_SIZE];
    int len = -1;
    (void)ctx;
    if (name && room && !strchr(name, '*'))
        len = snprintf(uid, sizeof uid, "%s*%s", name, room);
    if (len < 0 || len >= UID_SIZE) {
        pm_reply_text(req, "{\"code\":500}");
        return;
    }
    if (pm_session_uid(session) || pm_session_set_text(session, "rid", room) ||
        pm_session_bind(session, uid, connector_bound, req))
        pm_reply_text(req, "{\"code\":500,\"error\":true}");
}

static void connector_closed(pm_app *app, pm_session *session,
                             pm_close_reason reason, void *ctx)
{
    (void)reason;
    (void)ctx;
    if (pm_session_uid(session))
        call_chat(app, session, "chat.chatRemote.leave", NULL, NULL);
}

/* Rooms move when chat servers come and go, and one that comes back has empty
 * ones: our users enter again, before anything else is sent there. */
static bool connector_add_again(pm_session *session, void *ctx)
{
    if (pm_session_uid(session))
        call_chat(ctx, session, "chat.chatRemote.add", NULL, NULL);
    return true;
}

static void connector_server_up(pm_app *app, const pm_server *server, void *ctx)
{
    (void)ctx;
    if (pm_app_server(app)->frontend && !strcmp(server->type, "chat"))
        pm_session_each(app, NULL, connector_add_again, app);
}

static void connector_server_removed(pm_app *app, const char *id, void *ctx)
{
    (void)id;
    (void)ctx;
    if (pm_app_server(app)->frontend && pm_server_count(app, "chat"))
        pm_session_each(app, NULL, connector_add_again, app);
}

/* ---- chat -------------------------------------------------------------- */

/* The arguments of both remotes: [uid, frontend]. */
static bool chat_args(pm_call *call, const char *out[2])
{
    cJSON *args;
    if (pm_call_json(call, &args))
        return false;
    for (int i = 0; i < 2; i++)
        out[i] = cJSON_GetStringValue(cJSON_GetArrayItem(args, i));
    return out[0] && out[1];
}

static bool chat_list(const pm_receiver *member, void *ctx)
{
    return cJSON_AddItemToArray(ctx, name_of(member->uid));
}

static void chat_remote_add(pm_call *call, void *ctx)
{
    const char *args[2];
    pm_channel *room = NULL;
    cJSON *answer = cJSON_CreateObject(), *users;
    char *text = NULL;
    (void)ctx;
    if (chat_args(call, args))
        room = pm_channel_get(pm_call_app(call), room_of(args[0]), true);
    if (room && !pm_channel_has(room, args[0]))
        tell_room(room, "onAdd", args[0]);
    users = cJSON_AddArrayToObject(answer, "users");
    if (room && users && pm_channel_add(room, args[0], args[1]) == PM_OK)
        pm_channel_each(room, chat_list, users);
    if (room && pm_json_text(answer, &text) == PM_OK)
        pm_call_reply(call, pm_body_text(text));
    else
        pm_call_fail(call, 500, "no room");
    pm_text_free(text);
    cJSON_Delete(answer);
}

static void chat_remote_leave(pm_call *call, void *ctx)
{
    const char *args[2];
    pm_channel *room = NULL;
    (void)ctx;
    if (chat_args(call, args))
        room = pm_channel_get(pm_call_app(call), room_of(args[0]), false);
    if (room && pm_channel_leave(room, args[0], args[1]) == PM_OK) {
        if (pm_channel_count(room) == 0)
            pm_channel_destroy(room);
        else
            tell_room(room, "onLeave", args[0]);
    }
    pm_call_reply(call, pm_body_none());
}

/* {content, target} -> pushes onChat {"msg","from","target"}. */
static void chat_send(pm_request *req, void *ctx)
{
    const char *uid = pm_session_uid(pm_request_session(req));
    const char *content = text_of(req, "content");
    const char *target = text_of(req, "target");
    pm_channel *room = NULL;
    cJSON *message;
    (void)ctx;
    if (uid && content)
        room = pm_channel_get(pm_request_app(req), room_of(uid), false);
    if (!room) {
        pm_reply_text(req, "{\"code\":500}");
        return;
    }
    message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "msg", content);
    cJSON_AddItemToObject(message, "from", name_of(uid));
    cJSON_AddStringToObject(message, "target", target ? target : "*");
    push_to_room(room, "onChat", message);
    pm_reply_text(req, "{\"code\":200}");
}

/* All who are in one room meet on one chat server. */
static void route_chat(pm_app *app, pm_choice *choice, void *ctx)
{
    pm_param param = pm_choice_param(choice);
    const char *room = NULL;
    size_t count = pm_choice_count(choice);
    (void)app;
    (void)ctx;
    if (param.kind == PM_PARAM_SESSION && param.as.session)
        room = pm_session_get_text(param.as.session, "rid");
    if (count > 0) {
        size_t index = pm_dispatch(room ? room : "", count);
        pm_route_to(choice, pm_choice_server(choice, index)->id);
    } else {
        pm_route_to(choice, NULL);
    }
}

/* ---- By the clock ------------------------------------------------------ */

/* config/crons.json says when; `pomelo crons` shows it. */
static void room_report(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)ctx;
    fprintf(stderr, "%s: cron %s\n", pm_app_server(app)->id, cron->id);
}

/* ---- Everything on every server ---------------------------------------- */

pm_app_opts game_app_opts(void)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.connector.heartbeat_s = 3;
    opts.connector.use_dict = true;
    opts.connector.use_protobuf = true;
    opts.client_bind = "127.0.0.1"; /* take it away to let the world in */
    return opts;
}

pm_err game_configure(pm_app *app, void *ctx)
{
    static const struct {
        const char *route;
        pm_handler_cb handler;
    } handlers[] = {
        {"gate.gateHandler.queryEntry", gate_query_entry},
        {"connector.entryHandler.entry", connector_entry},
        {"connector.entryHandler.enter", connector_enter},
        {"chat.chatHandler.send", chat_send},
    };
    pm_app_events events = pm_app_events_default();
    pm_err err = PM_OK;
    (void)ctx;
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers && !err; i++)
        err = pm_app_handler(app, handlers[i].route, handlers[i].handler, NULL);
    if (err == PM_OK)
        err = pm_app_remote(app, "chat.chatRemote.add", chat_remote_add, NULL);
    if (err == PM_OK)
        err = pm_app_remote(app, "chat.chatRemote.leave", chat_remote_leave,
                            NULL);
    if (err == PM_OK)
        err = pm_app_route(app, "chat", route_chat, NULL);
    if (err == PM_OK)
        err = pm_app_cron(app, "chat.roomCron.report", room_report, NULL);
    events.session_closed = connector_closed;
    events.server_added = events.server_up = connector_server_up;
    events.server_removed = connector_server_removed;
    return err ? err : pm_app_listen(app, &events, NULL);
}
