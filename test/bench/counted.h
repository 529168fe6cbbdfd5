/* SPDX-License-Identifier: MIT */
/* test/bench/counted.h -- a small cluster in memory for those who count: a
 * connector and a chat server on a loop without sockets, a clock that stands
 * still, fixed random numbers, an allocator that counts, and players that are
 * bare connections with prepared bytes. Two runs of the same work execute the
 * same instructions. Used by counted.c and by test_nomalloc.c. */
#ifndef BENCH_COUNTED_H
#define BENCH_COUNTED_H

#include "core/conn.h"
#include "pomelo_proto_internal.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNTED_MEMBERS = 100, COUNTED_CALLS = 64, COUNTED_PORT = 3010 };

typedef struct counted counted;

typedef struct counted_player {
    counted *all;
    pmi_conn *conn;
    bool closed;
} counted_player;

struct counted {
    pm_loop *loop;
    pm_app *front, *back;
    counted_player players[COUNTED_MEMBERS];
    uint64_t random, now_us;
    uint64_t packages; /* that came to players */
    uint64_t results;  /* of calls */
    uint32_t id, entered;
    pm_err failed;
    uint64_t allocations; /* calls of the allocator */
};

static inline void counted_must(pm_err err, const char *what)
{
    if (err) {
        fprintf(stderr, "counted: %s: %s\n", what, pm_strerror(err));
        exit(1);
    }
}

/* ---- The servers ---------------------------------------------------------- */

static inline void counted_raw(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_bytes(req, pm_request_body(req).data);
}

static inline void counted_echo(pm_request *req, void *ctx)
{
    cJSON *body, *answer;
    (void)ctx;
    counted_must(pm_request_json(req, &body), "body");
    answer = cJSON_CreateObject();
    cJSON_AddItemToObject(answer, "p",
                          cJSON_DetachItemFromObjectCaseSensitive(body, "p"));
    pm_reply_json(req, answer);
    cJSON_Delete(answer);
}

static inline void counted_enter(pm_request *req, void *ctx)
{
    counted *all = ctx;
    char uid[32];
    pm_session *session = pm_request_session(req);
    snprintf(uid, sizeof uid, "user%u", all->entered++);
    counted_must(pm_session_bind(session, uid, NULL, NULL), "bind");
    counted_must(pm_channel_add(pm_channel_get(all->back, "room", true), uid,
                                "connector-1"),
                 "join");
    pm_reply_text(req, "{}");
}

static inline void counted_send(pm_request *req, void *ctx)
{
    pm_channel *room = pm_channel_get(pm_request_app(req), "room", false);
    (void)ctx;
    counted_must(
        pm_channel_push(room, "onChat", pm_request_body(req), NULL, NULL),
        "push");
    pm_request_drop(req);
}

static inline void counted_add(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_call_args(call));
}

static inline void counted_register(counted *all, pm_app *app)
{
    static const struct {
        const char *route;
        pm_handler_cb cb;
    } handlers[] = {{"connector.entryHandler.enter", counted_enter},
                    {"connector.entryHandler.echo", counted_echo},
                    {"connector.entryHandler.echoRaw", counted_raw},
                    {"chat.chatHandler.echo", counted_echo},
                    {"chat.chatHandler.echoRaw", counted_raw},
                    {"chat.chatHandler.send", counted_send}};
    for (size_t i = 0; i < PMI_COUNT(handlers); i++)
        counted_must(
            pm_app_handler(app, handlers[i].route, handlers[i].cb, all),
            "handler");
    counted_must(pm_app_remote(app, "chat.chatRemote.add", counted_add, all),
                 "remote");
}

static inline pm_app *counted_app(counted *all, const char *id)
{
    static const pm_server table[] = {
        {.id = "connector-1",
         .type = "connector",
         .port = 4050,
         .client_port = COUNTED_PORT,
         .frontend = true},
        {.id = "chat-1", .type = "chat", .port = 4060}};
    static const char *const user_routes[] = {"onChat"};
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    opts.loop = all->loop;
    opts.servers = table;
    opts.servers_count = PMI_COUNT(table);
    opts.server_id = id;
    opts.connector.use_dict = true;
    opts.connector.heartbeat_s = 10;
    opts.connector.dictionary = user_routes;
    opts.connector.dictionary_count = 1;
    counted_must(pm_app_new(&app, &opts), "app");
    counted_register(all, app);
    counted_must(pm_app_start(app), "start");
    return app;
}

/* ---- Players --------------------------------------------------------------- */

static inline size_t counted_data(pmi_conn *conn, uint8_t *data, size_t len,
                                  void *ctx)
{
    counted_player *player = ctx;
    size_t used = 0;
    (void)conn;
    while (len - used >= PMI_PACKAGE_HEAD) {
        const uint8_t *at = data + used;
        size_t body = (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
        if (len - used - PMI_PACKAGE_HEAD < body)
            break;
        if (at[0] != PMI_PACKAGE_HEARTBEAT)
            player->all->packages++;
        used += PMI_PACKAGE_HEAD + body;
    }
    return used;
}

static inline void counted_closed(pmi_conn *conn, pm_close_reason why,
                                  void *ctx)
{
    counted_player *player = ctx;
    (void)conn;
    (void)why;
    player->closed = true;
}

static const pmi_conn_events counted_events = {.data = counted_data,
                                               .closed = counted_closed};

/* Turns until so many packages have come in all. */
static inline void counted_wait(counted *all, uint64_t packages)
{
    for (int i = 0; all->packages < packages; i++) {
        pm_err err = pm_loop_poll(all->loop, 0);
        counted_must(err == PM_EAGAIN ? PM_OK : err, "poll");
        counted_must(i < 1000 ? PM_OK : PM_ETIMEOUT, "an answer");
    }
}

static inline void counted_package(counted_player *player, uint8_t type,
                                   const void *body, size_t len)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    pm_slice parts[2] = {{head, sizeof head}, {body, len}};
    pmi_proto_package_head(head, type, len);
    counted_must(pmi_conn_send(player->conn, parts, 2, 0), "send");
}

static inline void counted_open(counted *all, counted_player *player)
{
    static const char hello[] =
        "{\"sys\":{\"type\":\"bench\",\"version\":\"1\"},\"user\":{}}";
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = COUNTED_PORT,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    *player = (counted_player){.all = all};
    counted_must(pmi_conn_connect(all->loop, &opts, &counted_events, player,
                                  &player->conn),
                 "connect");
    counted_package(player, PMI_PACKAGE_HANDSHAKE, hello, sizeof hello - 1);
    counted_wait(all, all->packages + 1);
    counted_package(player, PMI_PACKAGE_ACK, NULL, 0);
}

/* A request of the first player; code of a route: its place in the sorted
 * list that Pomelo numbers from 1. */
enum {
    COUNTED_CHAT_ECHO = 1,
    COUNTED_CHAT_RAW = 2,
    COUNTED_SEND = 3,
    COUNTED_ECHO = 4,
    COUNTED_RAW = 5,
    COUNTED_ENTER = 6
};

static inline void counted_request(counted_player *player, uint8_t type,
                                   uint16_t code)
{
    static const char body[] =
        "{\"p\":\"abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstu\"}";
    uint8_t text[PMI_MESSAGE_HEAD_MAX + sizeof body];
    uint32_t id = type == PMI_MESSAGE_REQUEST ? ++player->all->id : 0;
    size_t len =
        pmi_proto_message_head(text, type, id, pm_bytes(NULL, 0), code);
    memcpy(text + len, body, sizeof body - 1);
    counted_package(player, PMI_PACKAGE_DATA, text, len + sizeof body - 1);
}

static inline void counted_ask(counted *all, uint16_t code, unsigned times)
{
    uint64_t until = all->packages + times;
    for (unsigned i = 0; i < times; i++)
        counted_request(&all->players[0], PMI_MESSAGE_REQUEST, code);
    counted_wait(all, until);
}

/* ---- Calls between the servers ------------------------------------------- */

static inline void counted_result(const pm_rpc_result *result, void *ctx)
{
    counted *all = ctx;
    if (result->err)
        all->failed = result->err;
    all->results++;
}

static inline void counted_calls(counted *all, pm_body args)
{
    uint64_t until = all->results + COUNTED_CALLS;
    for (int i = 0; i < COUNTED_CALLS; i++)
        counted_must(pm_rpc_invoke(all->front, "chat.chatRemote.add",
                                   pm_param_integer(i), args, counted_result,
                                   all),
                     "call");
    for (int i = 0; i < 1000 && all->results < until; i++)
        pm_loop_poll(all->loop, 0);
    counted_must(all->results == until ? all->failed : PM_ETIMEOUT, "calls");
}

/* ---- The world ------------------------------------------------------------- */

static inline uint64_t counted_clock(void *ctx)
{
    return ((counted *)ctx)->now_us;
}

static inline void counted_random(void *out, size_t len, void *ctx)
{
    counted *all = ctx;
    uint8_t *p = out;
    while (len--) {
        all->random =
            all->random * UINT64_C(6364136223846793005) + UINT64_C(1442695);
        *p++ = (uint8_t)(all->random >> 56);
    }
}

static inline void *counted_alloc(size_t bytes, void *ctx)
{
    ((counted *)ctx)->allocations++;
    return malloc(bytes);
}

static inline void *counted_resize(void *ptr, size_t bytes, void *ctx)
{
    ((counted *)ctx)->allocations++;
    return realloc(ptr, bytes);
}

static inline void counted_release(void *ptr, void *ctx)
{
    (void)ctx;
    free(ptr);
}

static inline void counted_start(counted *all)
{
    pm_loop_opts opts = pm_loop_opts_default();
    opts.memory_only = true;
    opts.alloc.alloc = counted_alloc;
    opts.alloc.resize = counted_resize;
    opts.alloc.release = counted_release;
    opts.alloc.ctx = all;
    opts.clock_us = counted_clock;
    opts.random = counted_random;
    opts.seam_ctx = all;
    counted_must(pm_loop_new(&all->loop, &opts), "loop");
    all->back = counted_app(all, "chat-1");
    all->front = counted_app(all, "connector-1");
    /* Time passes here only: the first to start finds the other later. */
    for (int i = 0; i < 1000 && !(pm_server_is_up(all->front, "chat-1") &&
                                  pm_server_is_up(all->back, "connector-1"));
         i++) {
        all->now_us += 1000;
        pm_loop_poll(all->loop, 0);
    }
    for (int i = 0; i < COUNTED_MEMBERS; i++) {
        counted_open(all, &all->players[i]);
        counted_request(&all->players[i], PMI_MESSAGE_REQUEST, COUNTED_ENTER);
        counted_wait(all, all->packages + 1);
    }
}

static inline void counted_end(counted *all)
{
    for (int i = 0; i < COUNTED_MEMBERS; i++)
        pmi_conn_free(all->players[i].conn);
    pm_app_free(all->front);
    pm_app_free(all->back);
    counted_must(pm_loop_free(all->loop), "end");
}

#endif
