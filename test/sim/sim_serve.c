/* SPDX-License-Identifier: MIT */
/* test/sim/sim_serve.c -- who answers: handlers and remotes that answer at once,
 * later or never; routers that take their time; channels, with a second book of
 * who must be in them.
 *
 * What is answered later is held in sim.held and ended by the run itself, on
 * no callback's stack and perhaps long after its app was freed.
 * Start reading at sim_configure(). */
#include "sim.h"

static const char *const serve_types[] = {"gate", "connector", "chat", "area"};
static const char *const serve_rooms[SIM_ROOMS] = {"hall", "yard", "attic"};

static int serve_index(sim *s, const char *id)
{
    for (int i = 0; i < SIM_SERVERS; i++)
        if (!strcmp(s->servers[i].row.id, id))
            return i;
    return 0;
}

/* ---- What is held ------------------------------------------------------- */

static sim_held *serve_hold(sim *s, sim_server *server, uint64_t us)
{
    sim_held *held;
    if (s->held_count == SIM_HELD)
        return NULL;
    held = &s->held[s->held_count++];
    memset(held, 0, sizeof *held);
    held->server = server->index;
    held->due_us = s->world.now_us + us;
    return held;
}

/* Takes it out of the book before it is ended: ending may call back. */
static sim_held serve_take(sim *s, size_t at)
{
    sim_held held = s->held[at];
    s->held[at] = s->held[--s->held_count];
    return held;
}

static int serve_way(const sim_server *server, pm_request *req)
{
    pm_session *session = pm_request_session(req);
    return strcmp(pm_session_frontend_id(session), server->row.id)
               ? SIM_WAY_ANSWER
               : SIM_WAY_FRONT;
}

/* cancelled: the wire side has ended, so the answer must go nowhere. */
static void serve_reply(sim_server *server, pm_request *req, uint32_t n,
                        bool cancelled)
{
    sim *s = server->all;
    char body[160];
    bool notify = pm_request_is_notify(req);
    pm_err err;
    snprintf(body, sizeof body,
             "{\"code\":200,\"n\":%u,\"s\":%d,\"l\":%u,\"w\":%d,\"k\":%u}", n,
             server->index, server->life, serve_way(server, req), ++s->made);
    err = pm_reply_text(req, body);
    sim_note(s, "%s answers %u: %s", server->row.id, n, pm_err_name(err));
    if (cancelled && !notify && err != PM_ECLOSED)
        sim_fail(s, "a cancelled request could be answered: %s",
                 pm_err_name(err));
    if (err && err != PM_ECLOSED && err != PM_ENOTIFY && err != PM_ELIMIT &&
        !(err == PM_ENOMEM && s->hungry))
        sim_fail(s, "an answer gave %s", pm_err_name(err));
}

static void serve_answer_call(sim *s, pm_call *call, uint32_t n)
{
    char body[64];
    pm_err err;
    snprintf(body, sizeof body, "{\"n\":%u}", n);
    err = pm_call_reply(call, pm_body_text(body));
    sim_note(s, "call %u answered: %s", n, pm_err_name(err));
}

static void serve_choose(sim *s, pm_choice *choice)
{
    uint32_t what = sim_below(s, 10);
    size_t count = pm_choice_count(choice);
    const pm_server *server =
        count ? pm_choice_server(choice, sim_below(s, (uint32_t)count)) : NULL;
    if (what == 0)
        pm_route_to(choice, NULL);
    else if (what == 1)
        pm_route_to(choice, "nobody-1");
    else
        pm_route_to(choice, server ? server->id : NULL);
}

void sim_held_tick(sim *s, bool all)
{
    for (size_t i = 0; i < s->held_count;) {
        sim_held held;
        if (!all && s->held[i].due_us > s->world.now_us) {
            i++;
            continue;
        }
        held = serve_take(s, i);
        if (held.req)
            serve_reply(&s->servers[held.server], held.req, held.n,
                        held.cancelled);
        else if (held.call)
            serve_answer_call(s, held.call, held.n);
        else
            serve_choose(s, held.choice);
    }
}

static void serve_cancelled(pm_request *req, pm_err why, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    for (size_t i = 0; i < s->held_count; i++) {
        if (s->held[i].req != req)
            continue;
        sim_note(s, "request %u cancelled: %s", s->held[i].n, pm_err_name(why));
        s->held[i].cancelled = true;
        if (why != PM_ECLOSED && why != PM_ETIMEOUT)
            sim_fail(s, "cancelled by %s", pm_err_name(why));
        if (sim_chance(s, 50)) {
            sim_held held = serve_take(s, i);
            serve_reply(server, req, held.n, true);
        }
        return;
    }
    sim_fail(s, "a request is cancelled that nobody holds");
}

static void serve_hold_request(sim_server *server, pm_request *req, uint32_t n,
                               uint64_t us)
{
    sim_held *held = serve_hold(server->all, server, us);
    if (!held) {
        pm_request_drop(req);
        return;
    }
    held->req = req;
    held->n = n;
    if (pm_request_on_cancel(req, serve_cancelled, server))
        held->cancelled = true; /* it was over before the handler came to it */
}

/* ---- Handlers ----------------------------------------------------------- */

/* False: the server has died at the handler's door; the request still has to be
 * ended. */
static bool serve_begin(sim_server *server, pm_request *req, uint32_t *n)
{
    sim *s = server->all;
    pm_body body = pm_request_body(req);
    long life = sim_field(body, "c"), serial = sim_field(body, "n");
    uint32_t *last = &s->last_n[life < 0 ? 0 : life % SIM_LIVES][server->index];
    if (!server->app || pm_request_app(req) != server->app)
        sim_fail(s, "a handler of %s runs after its end", server->row.id);
    if (life < 0 || serial < 0)
        sim_fail(s, "a body of %zu bytes has lost its numbers", body.data.len);
    *n = (uint32_t)serial;
    sim_note(s, "%s: %s %u of life %ld", server->row.id, pm_request_route(req),
             *n, life);
    /* The router of areas takes its time, so that they may overtake. */
    if (*last >= *n + 1 && strcmp(server->row.type, "area"))
        sim_fail(s, "%s: request %u of life %ld comes after %u", server->row.id,
                 *n, life, *last - 1);
    *last = *n + 1;
    if (server->doomed && sim_chance(s, 50)) {
        sim_server_kill(server);
        return false;
    }
    return true;
}

static void serve_now(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    uint32_t n;
    bool alive = serve_begin(server, req, &n);
    serve_reply(server, req, n, !alive);
    sim_mischief(server->all);
    sim_server_inside(server);
}

static void serve_later(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    uint32_t n;
    if (!serve_begin(server, req, &n)) {
        pm_request_drop(req);
        return;
    }
    serve_hold_request(server, req, n,
                       1000 * (uint64_t)sim_below(server->all, 4000));
    sim_server_inside(server);
}

static void serve_never(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    uint32_t n;
    if (!serve_begin(server, req, &n))
        pm_request_drop(req);
    else
        serve_hold_request(server, req, n, 60 * 1000 * 1000);
}

static void serve_fail(pm_request *req, void *ctx)
{
    uint32_t n;
    serve_begin(ctx, req, &n);
    pm_request_fail(req, PM_EBUSY, "on purpose", NULL);
    sim_server_inside(ctx);
}

static void serve_drop(pm_request *req, void *ctx)
{
    uint32_t n;
    serve_begin(ctx, req, &n);
    pm_request_drop(req);
}

static void serve_push(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    char body[160];
    uint32_t n;
    bool alive = serve_begin(server, req, &n);
    int way =
        serve_way(server, req) == SIM_WAY_FRONT ? SIM_WAY_FRONT : SIM_WAY_PUSH;
    pm_err err;
    snprintf(body, sizeof body, "{\"s\":%d,\"l\":%u,\"w\":%d,\"k\":%u}",
             server->index, server->life, way, ++s->made);
    err =
        pm_session_push(pm_request_session(req), "onPush", pm_body_text(body));
    sim_note(s, "push to the session: %s", pm_err_name(err));
    if (err && err != PM_ECLOSED && err != PM_ELIMIT &&
        !(err == PM_ENOMEM && s->hungry))
        sim_fail(s, "a push gave %s", pm_err_name(err));
    serve_reply(server, req, n, !alive);
    sim_mischief(server->all);
    sim_server_inside(server);
}

/* Something of a session's that is done by a call, and answered then. */
static void serve_done(pm_request *req, sim_server *server, int what)
{
    sim *s = server->all;
    pm_session *session = pm_request_session(req);
    char uid[16];
    uint32_t n;
    sim_op *op;
    pm_err err;
    if (!serve_begin(server, req, &n) ||
        !(op = sim_op_new(s, SIM_DONE, server,
                          s->world.now_us + 1000 * SIM_RPC_MS))) {
        pm_request_drop(req);
        return;
    }
    op->then = req;
    snprintf(uid, sizeof uid, "u%ld", sim_field(pm_request_body(req), "u"));
    if (what == 0)
        err = pm_session_bind(session, uid, sim_done_cb, op);
    else if (what == 1)
        err = pm_session_unbind(session, uid, sim_done_cb, op);
    else if (what == 2)
        err = pm_session_kick(session, "out", sim_done_cb, op);
    else
        err = pm_session_set_text(session, "hat", "red");
    if (err == PM_OK && what == 3)
        err = pm_session_sync(session, n % 2 ? "hat" : NULL, sim_done_cb, op);
    sim_op_started(op, err);
    sim_server_inside(server);
}

static void serve_bind(pm_request *req, void *ctx)
{
    serve_done(req, ctx, 0);
}

static void serve_unbind(pm_request *req, void *ctx)
{
    serve_done(req, ctx, 1);
}

static void serve_kick(pm_request *req, void *ctx)
{
    serve_done(req, ctx, 2);
}

static void serve_sync(pm_request *req, void *ctx)
{
    serve_done(req, ctx, 3);
}

static void serve_call(pm_request *req, void *ctx)
{
    uint32_t n;
    if (serve_begin(ctx, req, &n))
        sim_ask_rpc(ctx, req);
    else
        pm_request_drop(req);
}

/* ---- Channels ----------------------------------------------------------- */

static size_t room_find(const sim_room *room, int client, int front)
{
    size_t i = 0;
    while (i < room->count && (room->members[i].client != client ||
                               room->members[i].front != front))
        i++;
    return i;
}

static void room_add(sim_room *room, int client, int front)
{
    size_t at = room_find(room, client, front);
    if (at < room->count)
        return;
    room->members[at].client = client;
    room->members[at].front = front;
    room->count++;
}

static bool room_remove(sim_room *room, int client, int front)
{
    size_t at = room_find(room, client, front);
    if (at == room->count)
        return false;
    room->count--;
    memmove(room->members + at, room->members + at + 1,
            (room->count - at) * sizeof *room->members);
    return true;
}

typedef struct room_look {
    sim *all;
    const sim_room *room;
    size_t at;
    bool differs;
} room_look;

static bool room_member(const pm_receiver *member, void *ctx)
{
    room_look *look = ctx;
    const sim_member *want = &look->room->members[look->at];
    if (look->at++ >= look->room->count ||
        atoi(member->uid + 1) != want->client ||
        serve_index(look->all, member->frontend_id) != want->front)
        look->differs = true;
    return !look->differs;
}

void sim_check_rooms(sim *s, sim_server *server)
{
    for (int i = 0; i < SIM_ROOMS; i++) {
        pm_channel *channel =
            pm_channel_get(server->app, serve_rooms[i], false);
        const sim_room *room = &server->rooms[i];
        room_look look = {s, room, 0, false};
        size_t count = channel ? pm_channel_count(channel) : 0;
        if (channel)
            pm_channel_each(channel, room_member, &look);
        if (count != room->count || look.at != room->count || look.differs)
            sim_fail(s, "channel %s of %s: %zu members, must be %zu",
                     serve_rooms[i], server->row.id, count, room->count);
    }
}

static void serve_join(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    pm_session *session = pm_request_session(req);
    const char *uid = pm_session_uid(session);
    uint32_t n, room;
    bool alive = serve_begin(server, req, &n);
    if (alive && uid) {
        const char *front = pm_session_frontend_id(session);
        pm_channel *channel;
        room = n % SIM_ROOMS;
        channel = pm_channel_get(server->app, serve_rooms[room], true);
        if (channel && pm_channel_add(channel, uid, front) == PM_OK)
            room_add(&server->rooms[room], atoi(uid + 1),
                     serve_index(s, front));
        else if (!s->hungry)
            sim_fail(s, "%s could not join", uid);
        sim_check_rooms(s, server);
        sim_room_push(server, (int)room);
    }
    serve_reply(server, req, n, !alive);
}

static void room_leave_all(sim_server *server, int client, int front)
{
    char uid[16];
    snprintf(uid, sizeof uid, "u%d", client);
    for (int i = 0; i < SIM_ROOMS; i++) {
        pm_channel *channel =
            pm_channel_get(server->app, serve_rooms[i], false);
        bool was = room_remove(&server->rooms[i], client, front);
        pm_err err = channel
                         ? pm_channel_leave(channel, uid,
                                            server->all->servers[front].row.id)
                         : PM_ENOTFOUND;
        if ((err == PM_OK) != was)
            sim_fail(server->all, "leaving %s: %s", serve_rooms[i],
                     pm_err_name(err));
    }
}

static void serve_leave(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    pm_session *session = pm_request_session(req);
    const char *uid = pm_session_uid(session);
    uint32_t n;
    bool alive = serve_begin(server, req, &n);
    if (alive && sim_chance(s, 10)) {
        uint32_t room = sim_below(s, SIM_ROOMS);
        pm_channel_destroy(
            pm_channel_get(server->app, serve_rooms[room], false));
        memset(&server->rooms[room], 0, sizeof server->rooms[room]);
    } else if (alive && uid) {
        room_leave_all(server, atoi(uid + 1),
                       serve_index(s, pm_session_frontend_id(session)));
    }
    serve_reply(server, req, n, !alive);
}

void sim_room_push(sim_server *server, int room)
{
    sim *s = server->all;
    pm_channel *channel = pm_channel_get(server->app, serve_rooms[room], false);
    char body[160];
    sim_op *op =
        sim_op_new(s, SIM_PUSH, server, s->world.now_us + 1000 * SIM_RPC_MS);
    if (!op)
        return;
    if (!channel || s->pushes == SIM_PUSHES) {
        sim_op_started(op, PM_ENOTFOUND);
        return;
    }
    s->push_masks[s->pushes] = 0;
    for (size_t i = 0; i < server->rooms[room].count; i++)
        s->push_masks[s->pushes] |= 1u << server->rooms[room].members[i].client;
    snprintf(body, sizeof body,
             "{\"q\":%u,\"s\":%d,\"l\":%u,\"w\":%d,\"k\":%u,\"p\":\"%.*s\"}",
             s->pushes++, server->index, server->life, SIM_WAY_PUSH, ++s->made,
             (int)sim_below(s, 8), "xxxxxxxx");
    sim_op_started(op,
                   pm_channel_push(channel, s->rolling ? "onRoll" : "onChat",
                                   pm_body_text(body), sim_push_cb, op));
}

static void serve_say(pm_request *req, void *ctx)
{
    sim_server *server = ctx;
    uint32_t n;
    bool alive = serve_begin(server, req, &n);
    if (alive)
        sim_room_push(server, (int)(n % SIM_ROOMS));
    serve_reply(server, req, n, !alive);
    sim_mischief(server->all);
    sim_server_inside(server);
}

/* ---- Remotes ------------------------------------------------------------ */

/* False: died at the door. */
static bool remote_begin(sim_server *server, pm_call *call, uint32_t *n)
{
    sim *s = server->all;
    long serial = sim_field(pm_call_args(call), "n");
    if (!server->app || pm_call_app(call) != server->app)
        sim_fail(s, "a remote of %s runs after its end", server->row.id);
    if (serial < 0 || serial >= (long)s->ops_count) {
        sim_fail(s, "arguments have lost their number");
        serial = 0;
    }
    *n = (uint32_t)serial;
    sim_note(s, "%s: %s %u from %s", server->row.id, pm_call_method(call), *n,
             pm_call_caller(call));
    if (s->ops[serial].kind == SIM_RPC && ++s->ops[serial].served > 1)
        sim_fail(s, "rpc %ld is served twice", serial);
    if (server->doomed && sim_chance(s, 50)) {
        sim_server_kill(server);
        return false;
    }
    return true;
}

static void remote_now(pm_call *call, void *ctx)
{
    sim_server *server = ctx;
    uint32_t n;
    remote_begin(server, call, &n);
    serve_answer_call(server->all, call, n);
    sim_mischief(server->all);
    sim_server_inside(server);
}

static void remote_later(pm_call *call, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    sim_held *held = NULL;
    uint32_t n;
    bool keep, alive = remote_begin(server, call, &n);
    keep = alive && sim_chance(s, 50);
    if (alive && (!keep || pm_call_keep(call) == PM_OK))
        held = serve_hold(s, server, 1000 * (uint64_t)sim_below(s, 3000));
    if (held) {
        held->call = call;
        held->n = n;
    } else {
        serve_answer_call(s, call, n);
    }
    sim_server_inside(server);
}

static void remote_never(pm_call *call, void *ctx)
{
    sim_server *server = ctx;
    uint32_t n;
    bool alive = remote_begin(server, call, &n);
    sim_held *held =
        alive ? serve_hold(server->all, server, 60 * 1000 * 1000) : NULL;
    if (!held) {
        serve_answer_call(server->all, call, n);
        return;
    }
    held->call = call;
    held->n = n;
}

static void remote_fail(pm_call *call, void *ctx)
{
    uint32_t n;
    remote_begin(ctx, call, &n);
    pm_call_fail(call, 7, "on purpose");
}

static void remote_big(pm_call *call, void *ctx)
{
    enum { BIG = 60 * 1000 };
    sim_server *server = ctx;
    char *body = malloc(BIG);
    uint32_t n;
    pm_err err;
    remote_begin(server, call, &n);
    memset(body, ' ', BIG);
    body[snprintf(body, BIG, "{\"n\":%u}", n)] = ' ';
    err = pm_call_reply(call, pm_body_bytes(body, BIG));
    sim_note(server->all, "big answer %u: %s", n, pm_err_name(err));
    free(body);
}

/* A session has ended somewhere: its player leaves every room. */
static void remote_quit(pm_call *call, void *ctx)
{
    sim_server *server = ctx;
    long client = sim_field(pm_call_args(call), "u");
    long front = sim_field(pm_call_args(call), "f");
    sim_note(server->all, "%s: u%ld of %ld quits", server->row.id, client,
             front);
    if (server->app && client >= 0 && front >= 0)
        room_leave_all(server, (int)client, (int)front);
    pm_call_reply(call, pm_body_none());
}

/* ---- Routers ------------------------------------------------------------ */

static void serve_route(pm_app *app, pm_choice *choice, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    sim_held *held = NULL;
    (void)app;
    if (sim_chance(s, 40))
        held = serve_hold(s, server, 1000 * (uint64_t)sim_below(s, 2500));
    if (held)
        held->choice = choice;
    else
        serve_choose(s, choice);
    sim_server_inside(server);
}

/* ---- All of it on one app ----------------------------------------------- */

static pm_err serve_handlers(sim_server *server, const char *type)
{
    static const struct {
        const char *name;
        pm_handler_cb cb;
    } all[] = {{"now", serve_now},     {"later", serve_later},
               {"never", serve_never}, {"fail", serve_fail},
               {"drop", serve_drop},   {"push", serve_push},
               {"bind", serve_bind},   {"unbind", serve_unbind},
               {"kick", serve_kick},   {"sync", serve_sync},
               {"call", serve_call},   {"join", serve_join},
               {"leave", serve_leave}, {"say", serve_say}};
    char route[64];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        pm_err err;
        snprintf(route, sizeof route, "%s.handler.%s", type, all[i].name);
        err = pm_app_handler(server->app, route, all[i].cb, server);
        if (err)
            return err;
    }
    return PM_OK;
}

static pm_err serve_remotes(sim_server *server, const char *type)
{
    static const struct {
        const char *name;
        pm_remote_cb cb;
    } all[] = {{"now", remote_now},     {"later", remote_later},
               {"never", remote_never}, {"fail", remote_fail},
               {"big", remote_big},     {"quit", remote_quit}};
    char method[64];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        pm_err err;
        snprintf(method, sizeof method, "%s.remote.%s", type, all[i].name);
        err = pm_app_remote(server->app, method, all[i].cb, server);
        if (err)
            return err;
    }
    return PM_OK;
}

pm_err sim_configure(sim_server *server)
{
    static const char *const ways[] = {"def", "rr", "wrr",
                                       "la",  "ch", "rendezvous"};
    pm_err err = PM_OK;
    for (size_t i = 0; i < 4 && err == PM_OK; i++) {
        err = serve_handlers(server, serve_types[i]);
        if (err == PM_OK)
            err = serve_remotes(server, serve_types[i]);
    }
    if (err == PM_OK)
        err = pm_app_route(server->app, "area", serve_route, server);
    if (err == PM_OK)
        err = pm_app_route_builtin(server->app, "chat",
                                   ways[server->all->seed % 6]);
    return err;
}
