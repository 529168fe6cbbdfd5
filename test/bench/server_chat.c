/* SPDX-License-Identifier: MIT */
/* test/bench/server_chat.c -- the chat server's handlers and remotes.
 *
 * A channel lives on the chat server; its members are players of the
 * connector. Start reading at server_add_chat. */
#include "server.h"

/* {p}: pushes onChat {p} to every member of the caller's channel. */
static void chat_send(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    const char *name = pm_session_get_text(session, "ch");
    pm_channel *channel =
        name ? pm_channel_get(pm_request_app(req), name, false) : NULL;
    cJSON *body = server_body(req), *push = cJSON_CreateObject();
    char *text = NULL;
    pm_err err = PM_ENOMEM;
    (void)ctx;
    if (body && push) {
        cJSON_AddItemToObject(
            push, "p", cJSON_DetachItemFromObjectCaseSensitive(body, "p"));
        err = channel ? pm_json_text(push, &text) : PM_ENOTFOUND;
    }
    if (err == PM_OK)
        err =
            pm_channel_push(channel, "onChat", pm_body_text(text), NULL, NULL);
    pm_text_free(text);
    cJSON_Delete(push);
    if (body)
        pm_reply_text(req, err ? "{\"code\":500}" : "{\"code\":200}");
}

static void chat_note(pm_request *req, void *ctx)
{
    server *self = ctx;
    self->notes++;
    pm_request_drop(req);
}

static void chat_note_count(pm_request *req, void *ctx)
{
    server *self = ctx;
    char text[48];
    snprintf(text, sizeof text, "{\"n\":%llu}",
             (unsigned long long)self->notes);
    pm_reply_text(req, text);
}

/* ---- Remotes ------------------------------------------------------------- */

/* Bytes: two numbers of 64 bits; JSON: [a, b]. The sum comes as it was asked.
 */
static void chat_add(pm_call *call, void *ctx)
{
    pm_body args = pm_call_args(call);
    uint64_t number[2];
    cJSON *tree;
    char text[40];
    (void)ctx;
    if (args.kind == PM_BODY_BYTES && args.data.len == sizeof number) {
        memcpy(number, args.data.data, sizeof number);
        number[0] += number[1];
        pm_call_reply(call, pm_body_bytes(number, sizeof number[0]));
        return;
    }
    if (pm_call_json(call, &tree) || cJSON_GetArraySize(tree) != 2) {
        pm_call_fail(call, 1, "two numbers, please");
        return;
    }
    snprintf(text, sizeof text, "%.17g",
             tree->child->valuedouble + tree->child->next->valuedouble);
    pm_call_reply(call, pm_body_text(text));
}

/* The three texts of join and leave; false: the call has been ended. */
static bool chat_member(pm_call *call, const char *out[3])
{
    cJSON *tree = NULL;
    bool good = pm_call_json(call, &tree) == PM_OK;
    for (int i = 0; good && i < 3; i++) {
        out[i] = cJSON_GetStringValue(cJSON_GetArrayItem(tree, i));
        good = out[i] != NULL;
    }
    if (!good)
        pm_call_fail(call, 1, "uid, server id and name, please");
    return good;
}

static void chat_join(pm_call *call, void *ctx)
{
    const char *arg[3];
    pm_channel *channel;
    (void)ctx;
    if (!chat_member(call, arg))
        return;
    channel = pm_channel_get(pm_call_app(call), arg[2], true);
    if (channel && pm_channel_add(channel, arg[0], arg[1]) == PM_OK)
        pm_call_reply(call, pm_body_text("true"));
    else
        pm_call_fail(call, 2, "not joined");
}

static void chat_leave(pm_call *call, void *ctx)
{
    const char *arg[3];
    pm_channel *channel;
    (void)ctx;
    if (!chat_member(call, arg))
        return;
    channel = pm_channel_get(pm_call_app(call), arg[2], false);
    if (channel) {
        pm_channel_leave(channel, arg[0], arg[1]);
        if (!pm_channel_count(channel))
            pm_channel_destroy(channel);
    }
    pm_call_reply(call, pm_body_text("true"));
}

pm_err server_add_chat(pm_app *app, server *self)
{
    static const struct {
        const char *route;
        pm_handler_cb cb;
    } handlers[] = {
        {"chat.chatHandler.echo", server_echo},
        {"chat.chatHandler.echoRaw", server_echo_raw},
        {"chat.chatHandler.send", chat_send},
        {"chat.chatHandler.note", chat_note},
        {"chat.chatHandler.noteCount", chat_note_count},
    };
    static const struct {
        const char *method;
        pm_remote_cb cb;
    } remotes[] = {
        {"chat.chatRemote.add", chat_add},
        {"chat.chatRemote.join", chat_join},
        {"chat.chatRemote.leave", chat_leave},
    };
    pm_err err = PM_OK;
    for (size_t i = 0; !err && i < sizeof handlers / sizeof handlers[0]; i++)
        err = pm_app_handler(app, handlers[i].route, handlers[i].cb, self);
    for (size_t i = 0; !err && i < sizeof remotes / sizeof remotes[0]; i++)
        err = pm_app_remote(app, remotes[i].method, remotes[i].cb, self);
    return err;
}
