/* SPDX-License-Identifier: MIT */
/* soak_server.c -- one server of the soak's table.
 *
 * A connector lets people in (bind, settings, a call that adds them to their
 * room) and asks a chat server for them; a chat server has rooms whose members
 * leave with their sessions. A room lives on the server that its name says,
 * dead or not: what goes to a dead one fails, which is what a soak is for. */
#include "soak.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { STAT_MS = 500, LATE_MS = 50 };

typedef struct server {
    pm_loop *loop;
    pm_app *app;
    soak_heap heap;
    uint64_t asked, told; /* calls to other servers */
} server;

/* ---- What both ends need ------------------------------------------------ */

typedef union soak_block {
    size_t bytes;
    max_align_t align;
} soak_block;

static void soak_release(void *ptr, void *ctx)
{
    soak_heap *heap = ctx;
    soak_block *block = (soak_block *)ptr - 1;
    if (!ptr)
        return;
    heap->live -= block->bytes;
    heap->blocks--;
    free(block);
}

static void *soak_resize(void *ptr, size_t bytes, void *ctx)
{
    soak_heap *heap = ctx;
    soak_block *block = ptr ? (soak_block *)ptr - 1 : NULL;
    size_t was = block ? block->bytes : 0;
    block = realloc(block, sizeof *block + bytes);
    if (!block)
        return NULL;
    heap->live += bytes - was;
    heap->blocks += !ptr;
    block->bytes = bytes;
    return block + 1;
}

static void *soak_get(size_t bytes, void *ctx)
{
    return soak_resize(NULL, bytes, ctx);
}

pm_alloc soak_alloc(soak_heap *heap)
{
    pm_alloc alloc = {soak_get, soak_resize, soak_release, heap};
    return alloc;
}

int soak_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = -3; /* ".", "..", and the folder itself */
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

uint64_t soak_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void soak_table(pm_server table[SOAK_SERVERS], uint16_t base)
{
    static const char *const ids[] = {"connector-1", "connector-2", "chat-1",
                                      "chat-2"};
    memset(table, 0, SOAK_SERVERS * sizeof *table);
    for (int i = 0; i < SOAK_SERVERS; i++) {
        table[i].id = ids[i];
        table[i].type = i < 2 ? "connector" : "chat";
        table[i].host = "127.0.0.1";
        table[i].port = (uint16_t)(base + i);
        table[i].frontend = i < 2;
        table[i].client_port = (uint16_t)(i < 2 ? base + SOAK_SERVERS + i : 0);
    }
}

/* ---- Rooms ---------------------------------------------------------------- */

static void room_left(pm_channel *room, const pm_receiver *member, void *ctx)
{
    (void)member;
    (void)ctx;
    if (pm_channel_count(room) == 0)
        pm_channel_destroy(room);
}

static pm_channel *room_with(pm_app *app, const char *rid, const char *uid,
                             const char *frontend_id)
{
    pm_channel *room = pm_channel_get(app, rid, true);
    if (!room || pm_channel_leave_on_close(room, true, room_left, NULL) ||
        pm_channel_add(room, uid, frontend_id))
        return NULL;
    return room;
}

/* args: [uid, frontend, rid] */
static void remote_add(pm_call *call, void *ctx)
{
    const char *arg[3] = {NULL, NULL, NULL};
    cJSON *args;
    (void)ctx;
    for (int i = 0; i < 3 && pm_call_json(call, &args) == PM_OK; i++)
        arg[i] = cJSON_GetStringValue(cJSON_GetArrayItem(args, i));
    if (arg[0] && arg[1] && arg[2] &&
        room_with(pm_call_app(call), arg[2], arg[0], arg[1]))
        pm_call_reply(call, pm_body_none());
    else
        pm_call_fail(call, 1, "no room");
}

static void remote_echo(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_call_args(call));
}

/* Who speaks is in the room; everybody there hears it. */
static void chat_send(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    const char *uid = pm_session_uid(session);
    const char *rid = pm_session_get_text(session, "rid");
    server *s = ctx;
    pm_channel *room = NULL;
    if (uid && rid)
        room = room_with(s->app, rid, uid, pm_session_frontend_id(session));
    if (room)
        pm_channel_push(room, "onChat", pm_request_body(req), NULL, NULL);
    pm_reply_body(req, pm_request_body(req));
}

static void chat_answer(pm_app *app, void *ctx)
{
    pm_request *req = ctx;
    (void)app;
    pm_reply_body(req, pm_request_body(req));
}

static void chat_late(pm_request *req, void *ctx)
{
    (void)ctx;
    if (pm_request_keep(req) ||
        pm_app_timer(pm_request_app(req), LATE_MS, 0, chat_answer, req, NULL))
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
}

/* ---- Letting in ------------------------------------------------------------ */

typedef struct errand {
    server *of;
    pm_request *req;
    char rid[16];
} errand;

/* The request has the call's answer, whatever it is. */
static void errand_done(const pm_rpc_result *result, void *ctx)
{
    errand *e = ctx;
    e->of->told++;
    if (result->err)
        pm_request_fail(e->req, result->err, result->detail, NULL);
    else if (result->body.data.len)
        pm_reply_body(e->req, result->body);
    else
        pm_reply_text(e->req, "{\"code\":200}");
    free(e);
}

static void errand_call(errand *e, const char *method, pm_body args)
{
    pm_err err = pm_rpc_invoke(e->of->app, method, pm_param_string(e->rid),
                               args, errand_done, e);
    e->of->asked += err == PM_OK;
    if (err == PM_OK)
        return;
    pm_request_fail(e->req, err, NULL, NULL);
    free(e);
}

static errand *errand_new(server *s, pm_request *req, const char *rid)
{
    errand *e = calloc(1, sizeof *e);
    if (!e || pm_request_keep(req)) {
        free(e);
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
        return NULL;
    }
    e->of = s;
    e->req = req;
    snprintf(e->rid, sizeof e->rid, "%s", rid ? rid : "r0");
    return e;
}

static void entry_bound(pm_err err, const char *detail, void *ctx)
{
    errand *e = ctx;
    pm_session *session = pm_request_session(e->req);
    char args[96];
    if (err || !pm_session_uid(session)) {
        pm_request_fail(e->req, err ? err : PM_ECLOSED, detail, NULL);
        free(e);
        return;
    }
    snprintf(args, sizeof args, "[\"%s\",\"%s\",\"%s\"]",
             pm_session_uid(session), pm_session_frontend_id(session), e->rid);
    errand_call(e, "chat.room.add", pm_body_text(args));
}

/* {"uid":"b1","rid":"r1"} */
static void entry_enter(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    const char *uid = NULL, *rid = NULL;
    cJSON *body;
    errand *e;
    if (pm_request_json(req, &body) == PM_OK) {
        uid = cJSON_GetStringValue(cJSON_GetObjectItem(body, "uid"));
        rid = cJSON_GetStringValue(cJSON_GetObjectItem(body, "rid"));
    }
    if (!uid || !rid || pm_session_set_text(session, "rid", rid)) {
        pm_request_fail(req, PM_EINVAL, NULL, NULL);
        return;
    }
    e = errand_new(ctx, req, rid);
    if (!e || pm_session_bind(session, uid, entry_bound, e) == PM_OK)
        return;
    pm_request_fail(req, PM_ECLOSED, NULL, NULL);
    free(e);
}

static void entry_ask(pm_request *req, void *ctx)
{
    const char *rid = pm_session_get_text(pm_request_session(req), "rid");
    errand *e = errand_new(ctx, req, rid);
    if (e)
        errand_call(e, "chat.room.echo", pm_request_body(req));
}

/* ---- The process ------------------------------------------------------------
 */

/* "r7" is on chat-2, whoever asks. */
static void route_room(pm_app *app, pm_choice *choice, void *ctx)
{
    pm_param param = pm_choice_param(choice);
    const char *rid = NULL;
    (void)app;
    (void)ctx;
    if (param.kind == PM_PARAM_STRING)
        rid = param.as.string;
    else if (param.kind == PM_PARAM_SESSION)
        rid = pm_session_get_text(param.as.session, "rid");
    pm_route_to(choice, rid && atoi(rid + 1) % 2 ? "chat-2" : "chat-1");
}

static bool server_count(pm_session *session, void *ctx)
{
    (void)session;
    (void)ctx;
    return true;
}

static void server_tell(pm_app *app, void *ctx)
{
    server *s = ctx;
    char byte;
    printf("live %zu %zu fds %d asked %llu told %llu sessions %zu\n",
           s->heap.blocks, s->heap.live, soak_descriptors(),
           (unsigned long long)s->asked, (unsigned long long)s->told,
           pm_session_each(app, NULL, server_count, NULL));
    fflush(stdout);
    if (read(STDIN_FILENO, &byte, 1) == 0)
        pm_loop_break(s->loop);
}

static pm_err server_register(server *s)
{
    pm_err err =
        pm_app_handler(s->app, "connector.entryHandler.enter", entry_enter, s);
    if (err == PM_OK)
        err =
            pm_app_handler(s->app, "connector.entryHandler.ask", entry_ask, s);
    if (err == PM_OK)
        err = pm_app_handler(s->app, "chat.chatHandler.send", chat_send, s);
    if (err == PM_OK)
        err = pm_app_handler(s->app, "chat.chatHandler.late", chat_late, s);
    if (err == PM_OK)
        err = pm_app_remote(s->app, "chat.room.add", remote_add, s);
    if (err == PM_OK)
        err = pm_app_remote(s->app, "chat.room.echo", remote_echo, s);
    if (err == PM_OK)
        err = pm_app_route(s->app, "chat", route_room, s);
    return err;
}

static pm_err server_start(server *s, const char *id, uint16_t base)
{
    pm_server table[SOAK_SERVERS];
    pm_loop_opts loop = pm_loop_opts_default();
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    soak_table(table, base);
    loop.alloc = soak_alloc(&s->heap);
    err = pm_loop_new(&s->loop, &loop);
    if (err)
        return err;
    opts.loop = s->loop;
    opts.servers = table;
    opts.servers_count = SOAK_SERVERS;
    opts.server_id = id;
    opts.client_bind = "127.0.0.1";
    opts.rpc.secret = "soak";
    opts.rpc.deadline_ms = 2000;
    opts.rpc.reconnect_ms_max = 200;
    opts.connector.heartbeat_s = 2;
    opts.connector.use_dict = true;
    err = pm_app_new(&s->app, &opts);
    if (err == PM_OK)
        err = server_register(s);
    if (err == PM_OK)
        err = pm_app_start(s->app);
    if (err == PM_OK)
        err = pm_app_timer(s->app, STAT_MS, STAT_MS, server_tell, s, NULL);
    return err;
}

int soak_server(const char *id, uint16_t base)
{
    server s = {0};
    pm_err err;
    prctl(PR_SET_PDEATHSIG, 9);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    err = server_start(&s, id, base);
    if (err == PM_OK)
        err = pm_loop_run(s.loop);
    else
        fprintf(stderr, "soak: %s: %s\n", id, pm_strerror(err));
    pm_app_free(s.app);
    if (s.loop && pm_loop_free(s.loop) != PM_OK)
        err = PM_ESTATE;
    if (s.heap.live)
        fprintf(stderr, "soak: %s leaves %zu bytes\n", id, s.heap.live);
    return err || s.heap.live ? 1 : 0;
}
