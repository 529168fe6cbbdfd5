/* SPDX-License-Identifier: MIT */
/* chat_app.c -- the chat that everyone knows from Pomelo's tutorial, in C.
 *
 *   client --1--> gate        gate.gateHandler.queryEntry: which connector?
 *     |   --2--> connector    connector.entryHandler.enter: bind, join the room
 *     |              | rpc    chat.chatRemote.add, .kick
 *     |              v
 *     |   --3--> chat         chat.chatHandler.send, forwarded by the
 * connector;
 *     '<-------- chat         onChat, onAdd, onLeave, pushed through it
 *
 * A user is `username*rid`. A room is a channel on one chat server, chosen by
 * its rid: so that server alone decides whether a name in the room is taken,
 * whichever connectors its users came by.
 *
 * Servers may come and go. What a connector knows (its sessions) and what a
 * chat server knows (its members) then grow together again by three rules:
 *   - a connector that finds a chat server again adds its users to their rooms
 *     once more; adding a member who is there already changes nothing;
 *   - who speaks is in the room;
 *   - a push tells who was missed, and these have left.
 *
 * Start reading at chat_configure(), at the end. */
#include "chat_app.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#define CHAT_EVERYONE "*"
#define CHAT_UID_SIZE 256 /* with the 0 */
#define CHAT_TAKEN 1      /* chatRemote.add: the name is taken in this room */

/* ---- Small helpers ------------------------------------------------------ */

/* A text of the request's body; NULL when it is not there, no text, or empty.
 */
static const char *chat_text(pm_request *req, const char *name)
{
    cJSON *body;
    const char *text;
    if (pm_request_json(req, &body))
        return NULL;
    text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, name));
    return text && *text ? text : NULL;
}

/* The uid of a name in a room. False when it is too long. */
static bool chat_uid(char out[CHAT_UID_SIZE], const char *name, const char *rid)
{
    int len = snprintf(out, CHAT_UID_SIZE, "%s*%s", name, rid);
    return len > 0 && len < CHAT_UID_SIZE;
}

/* A uid is cut at its first star: names have none, rooms may. */
static const char *chat_rid_of(const char *uid)
{
    const char *star = strchr(uid, '*');
    return star ? star + 1 : "";
}

static cJSON *chat_name_of(const char *uid)
{
    char name[CHAT_UID_SIZE];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(uid, "*"), uid);
    return cJSON_CreateString(name);
}

/* {"name": value}. The value is taken in any case; NULL: no memory. */
static cJSON *chat_object(const char *name, cJSON *value)
{
    cJSON *tree = cJSON_CreateObject();
    if (value && tree && cJSON_AddItemToObject(tree, name, value))
        return tree;
    cJSON_Delete(value);
    cJSON_Delete(tree);
    return NULL;
}

static void chat_reply(pm_request *req, cJSON *tree)
{
    if (tree)
        pm_reply_json(req, tree);
    else
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
    cJSON_Delete(tree);
}

/* ---- gate --------------------------------------------------------------- */

/* {uid} -> {"code":200,"host","port"}: a user always gets the same connector,
 * as long as the same ones are there. */
static void gate_query_entry(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    size_t count = pm_server_count(app, "connector");
    const char *uid = chat_text(req, "uid");
    const pm_server *server;
    cJSON *answer;
    (void)ctx;
    if (!uid || !count) {
        pm_reply_text(req, "{\"code\":500}");
        return;
    }
    server = pm_server_at(app, "connector", pm_dispatch(uid, count));
    answer = chat_object("code", cJSON_CreateNumber(200));
    cJSON_AddStringToObject(answer, "host",
                            server->host ? server->host : "127.0.0.1");
    cJSON_AddNumberToObject(answer, "port", server->client_port);
    chat_reply(req, answer);
}

/* ---- connector ---------------------------------------------------------- */

/* Calls a method of the chat server that has the session's room, with the
 * arguments of Pomelo's tutorial: uid, frontend, room. */
static pm_err entry_call(pm_session *session, pm_app *app, const char *method,
                         pm_rpc_cb cb, void *ctx)
{
    const char *of[] = {pm_session_uid(session), pm_app_server(app)->id,
                        pm_session_get_text(session, "rid")};
    cJSON *args = cJSON_CreateStringArray(of, 3);
    char *text = NULL;
    pm_err err = args ? pm_json_text(args, &text) : PM_ENOMEM;
    if (err == PM_OK)
        err = pm_rpc_invoke(app, method, pm_param_session(session),
                            pm_body_text(text), cb, ctx);
    pm_text_free(text);
    cJSON_Delete(args);
    return err;
}

/* Nobody waits for the answer of a kick: who is not told now is missed by the
 * room's next push. */
static void entry_leave_room(pm_session *session, pm_app *app)
{
    entry_call(session, app, "chat.chatRemote.kick", NULL, NULL);
}

/* The user is not in, and may try again. */
static void entry_refuse(pm_request *req, bool taken)
{
    pm_session *session = pm_request_session(req);
    char uid[CHAT_UID_SIZE];
    if (pm_session_uid(session)) {
        snprintf(uid, sizeof uid, "%s", pm_session_uid(session));
        entry_leave_room(session, pm_request_app(req));
        pm_session_unbind(session, uid, NULL, NULL);
    }
    pm_reply_text(req,
                  taken ? "{\"code\":500,\"error\":true}" : "{\"code\":500}");
}

/* The room has answered with its users' names. */
static void entry_joined(const pm_rpc_result *result, void *ctx)
{
    pm_request *req = ctx;
    cJSON *users;
    if (result->err) {
        entry_refuse(req,
                     result->err == PM_EREMOTE && result->code == CHAT_TAKEN);
        return;
    }
    if (pm_json_tree(result->body.data, &users))
        entry_refuse(req, false);
    else
        chat_reply(req, chat_object("users", users));
}

static void entry_bound(pm_err err, const char *detail, void *ctx)
{
    pm_request *req = ctx;
    pm_session *session = pm_request_session(req);
    (void)detail;
    /* Who has gone meanwhile must not be added behind its own kick. */
    if (err == PM_OK && pm_session_is_closed(session))
        err = PM_ECLOSED;
    if (err == PM_OK)
        err = entry_call(session, pm_request_app(req), "chat.chatRemote.add",
                         entry_joined, req);
    if (err)
        entry_refuse(req, false);
}

static bool entry_found(pm_session *session, void *ctx)
{
    (void)session;
    (void)ctx;
    return false;
}

/* {username, rid} -> {"users":[names, the new one included]}. */
static void entry_enter(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    const char *name = chat_text(req, "username"), *rid = chat_text(req, "rid");
    char uid[CHAT_UID_SIZE];
    (void)ctx;
    if (!name || !rid || strchr(name, '*') || !chat_uid(uid, name, rid)) {
        pm_reply_text(req, "{\"code\":500}");
        return;
    }
    /* Who is in already, here or on another connection, stays. */
    if (pm_session_uid(session) ||
        pm_session_each(pm_request_app(req), uid, entry_found, NULL)) {
        pm_reply_text(req, "{\"code\":500,\"error\":true}");
        return;
    }
    if (pm_session_set_text(session, "rid", rid) ||
        pm_session_bind(session, uid, entry_bound, req))
        entry_refuse(req, false);
}

static void entry_closed(pm_app *app, pm_session *session,
                         pm_close_reason reason, void *ctx)
{
    (void)reason;
    (void)ctx;
    if (pm_session_uid(session))
        entry_leave_room(session, app);
}

/* ---- connector: chat servers come and go --------------------------------- */

static bool entry_add_again(pm_session *session, void *ctx)
{
    if (pm_session_uid(session))
        entry_call(session, ctx, "chat.chatRemote.add", NULL, NULL);
    return true;
}

static void entry_restore(pm_app *app)
{
    if (pm_app_server(app)->frontend)
        pm_session_each(app, NULL, entry_add_again, app);
}

static void entry_server_up(pm_app *app, const pm_server *server, void *ctx)
{
    (void)ctx;
    if (!strcmp(server->type, "chat"))
        entry_restore(app);
}

/* Its rooms are others' now. */
static void entry_server_removed(pm_app *app, const char *id, void *ctx)
{
    (void)id;
    (void)ctx;
    entry_restore(app);
}

/* ---- chat: rooms --------------------------------------------------------- */

static void room_pushed(pm_err err, const pm_receiver *missed, size_t count,
                        void *ctx);

/* Tells all members {"user": name of uid}. */
static void room_tell(pm_app *app, pm_channel *room, const char *route,
                      const char *uid)
{
    cJSON *tree = chat_object("user", chat_name_of(uid));
    char *text;
    if (tree && pm_json_text(tree, &text) == PM_OK) {
        pm_channel_push(room, route, pm_body_text(text), room_pushed, app);
        pm_text_free(text);
    }
    cJSON_Delete(tree);
}

static void room_leave(pm_app *app, const char *uid, const char *frontend_id)
{
    pm_channel *room = pm_channel_get(app, chat_rid_of(uid), false);
    if (!room || pm_channel_leave(room, uid, frontend_id))
        return;
    if (pm_channel_count(room) == 0)
        pm_channel_destroy(room);
    else
        room_tell(app, room, "onLeave", uid);
}

/* Members that no frontend knows any more have left. A frontend that can not
 * be asked may come back, and its users with it: they stay. */
static void room_pushed(pm_err err, const pm_receiver *missed, size_t count,
                        void *ctx)
{
    pm_app *app = ctx;
    if (err == PM_ECLOSED)
        return;
    for (size_t i = 0; i < count; i++)
        if (!pm_server_find(app, missed[i].frontend_id) ||
            pm_server_is_up(app, missed[i].frontend_id))
            room_leave(app, missed[i].uid, missed[i].frontend_id);
}

typedef struct room_search {
    const char *uid;
    const char *frontend_id; /* found: borrowed from the member */
} room_search;

static bool room_look(const pm_receiver *member, void *ctx)
{
    room_search *search = ctx;
    if (!strcmp(member->uid, search->uid))
        search->frontend_id = member->frontend_id;
    return !search->frontend_id;
}

/* The frontend of a member; NULL when there is none of that uid. */
static const char *room_find(pm_channel *room, const char *uid)
{
    room_search search = {.uid = uid};
    if (pm_channel_has(room, uid))
        pm_channel_each(room, room_look, &search);
    return search.frontend_id;
}

/* Makes uid a member, and tells those who were there. PM_EEXIST: the name is
 * taken by a user of another frontend, unless that is down. */
static pm_err room_join(pm_app *app, pm_channel *room, const char *uid,
                        const char *frontend_id)
{
    const char *other = room_find(room, uid);
    pm_err err;
    if (other && !strcmp(other, frontend_id))
        return PM_OK;
    if (other && pm_server_is_up(app, other))
        return PM_EEXIST;
    if (other)
        pm_channel_leave(room, uid, other);
    else if (pm_channel_count(room) > 0)
        room_tell(app, room, "onAdd", uid);
    err = pm_channel_add(room, uid, frontend_id);
    if (err && pm_channel_count(room) == 0)
        pm_channel_destroy(room);
    return err;
}

/* ---- chat: remotes ------------------------------------------------------- */

static bool room_list(const pm_receiver *member, void *ctx)
{
    cJSON *name = chat_name_of(member->uid);
    return name && cJSON_AddItemToArray(ctx, name);
}

static void remote_reply_users(pm_call *call, const char *rid)
{
    pm_channel *room = pm_channel_get(pm_call_app(call), rid, false);
    cJSON *users = cJSON_CreateArray();
    char *text = NULL;
    if (room && users)
        pm_channel_each(room, room_list, users);
    if (users && pm_json_text(users, &text) == PM_OK)
        pm_call_reply(call, pm_body_text(text));
    else
        pm_call_fail(call, 0, pm_strerror(PM_ENOMEM));
    pm_text_free(text);
    cJSON_Delete(users);
}

/* The arguments of both remotes: [uid, frontend, rid]. */
static bool remote_args(pm_call *call, const char *out[3])
{
    cJSON *args;
    if (pm_call_json(call, &args))
        return false;
    for (int i = 0; i < 3; i++)
        if (!(out[i] = cJSON_GetStringValue(cJSON_GetArrayItem(args, i))))
            return false;
    return true;
}

static void remote_add(pm_call *call, void *ctx)
{
    pm_app *app = pm_call_app(call);
    const char *args[3];
    pm_channel *room = NULL;
    pm_err err = PM_EINVAL;
    (void)ctx;
    if (remote_args(call, args))
        room = pm_channel_get(app, args[2], true);
    if (room)
        err = room_join(app, room, args[0], args[1]);
    if (err)
        pm_call_fail(call, err == PM_EEXIST ? CHAT_TAKEN : 0, pm_strerror(err));
    else
        remote_reply_users(call, args[2]);
}

static void remote_kick(pm_call *call, void *ctx)
{
    const char *args[3];
    (void)ctx;
    if (remote_args(call, args))
        room_leave(pm_call_app(call), args[0], args[1]);
    pm_call_reply(call, pm_body_none());
}

/* ---- chat: handler ------------------------------------------------------- */

/* {"msg","from","target"} as text: free it with pm_text_free. NULL: the request
 * is no message. */
static char *send_message(pm_request *req, const char *uid)
{
    const char *target = chat_text(req, "target");
    cJSON *body, *message;
    char *text = NULL;
    if (!target || pm_request_json(req, &body))
        return NULL;
    message = chat_object(
        "msg", cJSON_DetachItemFromObjectCaseSensitive(body, "content"));
    if (message && cJSON_AddItemToObject(message, "from", chat_name_of(uid)) &&
        cJSON_AddStringToObject(message, "target", target) &&
        pm_json_text(message, &text))
        text = NULL;
    cJSON_Delete(message);
    return text;
}

static pm_err send_to(pm_app *app, pm_channel *room, const char *target,
                      const char *message)
{
    pm_body body = pm_body_text(message);
    char uid[CHAT_UID_SIZE];
    pm_receiver to = {.uid = uid};
    if (!strcmp(target, CHAT_EVERYONE))
        return pm_channel_push(room, "onChat", body, room_pushed, app);
    if (chat_uid(uid, target, pm_channel_name(room)))
        to.frontend_id = room_find(room, uid);
    if (!to.frontend_id)
        return PM_ENOTFOUND;
    return pm_push_uids(app, "onChat", body, &to, 1, room_pushed, app);
}

/* The room of a session that has entered one. Who speaks is in it. */
static pm_channel *send_room(pm_app *app, pm_session *session)
{
    const char *uid = pm_session_uid(session);
    const char *rid = pm_session_get_text(session, "rid");
    pm_channel *room = uid && rid ? pm_channel_get(app, rid, true) : NULL;
    if (room && !pm_channel_has(room, uid) &&
        room_join(app, room, uid, pm_session_frontend_id(session)))
        return NULL;
    return room;
}

/* {content, target} -> {"route"}; target is a name in the room, or "*". */
static void chat_send(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    pm_session *session = pm_request_session(req);
    pm_channel *room = send_room(app, session);
    char *message = room ? send_message(req, pm_session_uid(session)) : NULL;
    pm_err err = PM_EINVAL;
    (void)ctx;
    if (message)
        err = send_to(app, room, chat_text(req, "target"), message);
    pm_text_free(message);
    if (err)
        pm_request_fail(req, err, pm_strerror(err), NULL);
    else
        pm_reply_text(req, "{\"route\":\"chat.chatHandler.send\"}");
}

/* ---- Which chat server has a room? --------------------------------------- */

static const char *route_rid(const pm_choice *choice)
{
    pm_param param = pm_choice_param(choice);
    const char *rid = NULL;
    if (param.kind == PM_PARAM_SESSION && param.as.session)
        rid = pm_session_get_text(param.as.session, "rid");
    return rid ? rid : "";
}

/* Pomelo's way: a CRC, modulo. Most rooms move when a server comes or goes. */
static void route_by_crc(pm_app *app, pm_choice *choice, void *ctx)
{
    size_t index = pm_dispatch(route_rid(choice), pm_choice_count(choice));
    (void)app;
    (void)ctx;
    pm_route_to(choice, pm_choice_server(choice, index)->id);
}

static uint64_t route_mix(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return (hash ^ (hash >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
}

/* Rendezvous: each server draws a number for the room, the highest has it. So a
 * server that goes takes nobody's rooms along but its own. */
static void route_by_rendezvous(pm_app *app, pm_choice *choice, void *ctx)
{
    uint64_t room = route_mix(UINT64_C(0xcbf29ce484222325), route_rid(choice));
    uint64_t highest = 0;
    const char *id = NULL;
    (void)app;
    (void)ctx;
    for (size_t i = 0; i < pm_choice_count(choice); i++) {
        const pm_server *server = pm_choice_server(choice, i);
        uint64_t hash = route_mix(room, server->id);
        hash ^= hash >> 32;
        if (!id || hash > highest) {
            highest = hash;
            id = server->id;
        }
    }
    pm_route_to(choice, id);
}

/* ---- Everything on every app --------------------------------------------- */

pm_app_opts chat_app_opts(void)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.connector.heartbeat_s = 3;
    opts.connector.use_dict = true;
    opts.limits.handshake_ms = 5000;
    opts.limits.messages_per_s = 500;
    return opts;
}

/* Handlers of other types are registered too: so all servers number the routes
 * alike, and a connector knows what it may forward. */
static pm_err chat_register(pm_app *app)
{
    pm_err err = pm_app_handler(app, "gate.gateHandler.queryEntry",
                                gate_query_entry, NULL);
    if (err == PM_OK)
        err = pm_app_handler(app, "connector.entryHandler.enter", entry_enter,
                             NULL);
    if (err == PM_OK)
        err = pm_app_handler(app, "chat.chatHandler.send", chat_send, NULL);
    if (err == PM_OK)
        err = pm_app_remote(app, "chat.chatRemote.add", remote_add, NULL);
    if (err == PM_OK)
        err = pm_app_remote(app, "chat.chatRemote.kick", remote_kick, NULL);
    return err;
}

pm_err chat_configure(pm_app *app, void *ctx)
{
    const chat_rules *rules = ctx;
    pm_app_events events = pm_app_events_default();
    pm_err err = chat_register(app);
    events.session_closed = entry_closed;
    events.server_up = entry_server_up;
    events.server_removed = entry_server_removed;
    if (err == PM_OK)
        err = pm_app_route(
            app, "chat",
            rules && rules->stable ? route_by_rendezvous : route_by_crc, NULL);
    return err ? err : pm_app_listen(app, &events, NULL);
}
