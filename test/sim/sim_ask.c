/* SPDX-License-Identifier: MIT */
/* test/sim/sim_ask.c -- who asks: clients that come, ask, and vanish; servers
 * that call each other; one random action a step.
 * Start reading at sim_ask_act(). */
#include "sim.h"

/* ---- Clients ------------------------------------------------------------ */

/* What one server says to one client in one way keeps its order; from an
 * earlier life of the server it may come late. */
static void client_check_order(sim_client *client, pm_body body)
{
    long server = sim_field(body, "s"), way = sim_field(body, "w");
    long life = sim_field(body, "l"), k = sim_field(body, "k");
    sim_stream *stream;
    if (server < 0 || server >= SIM_SERVERS || way < 0 || way > 2)
        return;
    stream = &client->streams[server][way];
    if ((uint32_t)life < stream->life)
        return;
    if ((uint32_t)life == stream->life && (uint32_t)k <= stream->k)
        sim_fail(client->all, "client %d hears %ld of server %ld after %u",
                 client->index, k, server, stream->k);
    stream->life = (uint32_t)life;
    stream->k = (uint32_t)k;
}

static void client_connected(pm_client *pm, const struct cJSON *user, void *ctx)
{
    sim_client *client = ctx;
    (void)user;
    client->connected = true;
    sim_note(client->all, "client %d connected", client->index);
    if (pm != client->client)
        sim_fail(client->all, "a client that was freed is connected");
}

static void client_pushed(pm_client *pm, const char *route, pm_body body,
                          void *ctx)
{
    sim_client *client = ctx;
    sim *s = client->all;
    long q = sim_field(body, "q");
    sim_note(s, "client %d hears %s %ld k %ld", client->index, route, q,
             sim_field(body, "k"));
    if (pm != client->client)
        sim_fail(s, "a client that was freed hears a push");
    client_check_order(client, body);
    if (q >= 0 && !(s->push_masks[q % SIM_PUSHES] >> client->index & 1))
        sim_fail(s, "client %d hears push %ld, which is not for it",
                 client->index, q);
    if (!strcmp(route, "onRoll"))
        client->roll_calls++;
}

static void client_kicked(pm_client *pm, const char *reason, void *ctx)
{
    sim_client *client = ctx;
    (void)pm;
    sim_note(client->all, "client %d kicked: %s", client->index, reason);
}

static void client_disconnected(pm_client *pm, pm_close_reason reason, int code,
                                void *ctx)
{
    sim_client *client = ctx;
    (void)pm;
    client->connected = false;
    sim_note(client->all, "client %d disconnected: %s, %d", client->index,
             pm_close_text(reason), code);
}

void sim_client_start(sim_client *client)
{
    sim *s = client->all;
    pm_client_opts opts = pm_client_opts_default();
    int front = 0, at = (int)sim_below(s, 4);
    pm_err err;
    for (int i = 0; i < 4; i++)
        if (s->servers[(at + i) % 4].exists)
            front = (at + i) % 4;
    client->front = front;
    client->life = s->lives++ % SIM_LIVES;
    client->connected = false;
    memset(client->streams, 0, sizeof client->streams);
    memset(s->last_n[client->life], 0, sizeof s->last_n[client->life]);
    opts.loop = s->loop;
    opts.port = s->servers[front].row.client_port;
    opts.request_ms = SIM_CLIENT_MS;
    opts.reconnect = sim_chance(s, 30) && !s->quiet;
    opts.events.connected = client_connected;
    opts.events.pushed = client_pushed;
    opts.events.kicked = client_kicked;
    opts.events.disconnected = client_disconnected;
    opts.ctx = client;
    err = pm_client_new(&client->client, &opts);
    sim_note(s, "client %d comes to %s, life %u: %s", client->index,
             s->servers[front].row.id, client->life, pm_err_name(err));
    if (err)
        client->client = NULL;
    if (err && !s->hungry)
        sim_fail(s, "pm_client_new: %s", pm_err_name(err));
}

void sim_client_end(sim_client *client)
{
    sim *s = client->all;
    pm_client *pm = client->client;
    uint32_t life = client->life; /* its callbacks may start the next one */
    if (!pm)
        return;
    sim_note(s, "client %d vanishes", client->index);
    client->client = NULL;
    client->connected = false;
    pm_client_free(pm);
    for (uint32_t i = 0; i < s->open_count; i++) {
        const sim_op *op = &s->ops[s->open[i]];
        if (op->kind == SIM_REQUEST && op->owner_life == life)
            sim_fail(s, "request %u is open though its client was freed",
                     op->serial);
    }
}

static void client_answered(pm_client *pm, pm_err err, pm_body body, void *ctx)
{
    sim_op *op = ctx;
    sim *s = op->all;
    long n = sim_field(body, "n");
    if (err == PM_OK && n >= 0) {
        for (int i = 0; i < SIM_CLIENTS; i++)
            if (s->clients[i].client == pm)
                client_check_order(&s->clients[i], body);
        if ((uint32_t)n != op->serial)
            sim_fail(s, "request %u got the answer of %ld", op->serial, n);
    }
    if (s->rolling && (err || sim_field(body, "code") != 200))
        sim_fail(s, "request %u of the roll call got %s, %ld", op->serial,
                 pm_err_name(err), sim_field(body, "code"));
    sim_op_done(op, err);
    sim_mischief(s);
}

static size_t ask_body(sim *s, char *out, size_t size, uint32_t serial,
                       const sim_client *client)
{
    uint32_t pad = sim_chance(s, 5) ? sim_below(s, 20000) : sim_below(s, 40);
    size_t len = (size_t)snprintf(out, size, "{\"n\":%u", serial);
    if (client)
        len += (size_t)snprintf(out + len, size - len, ",\"c\":%u,\"u\":%d",
                                client->life, client->index);
    len += (size_t)snprintf(out + len, size - len, ",\"p\":\"");
    memset(out + len, 'x', pad);
    memcpy(out + len + pad, "\"}", 3);
    return len + pad + 2;
}

bool sim_client_ask(sim_client *client, const char *route)
{
    sim *s = client->all;
    char body[20 * 1024 + 128];
    size_t len;
    sim_op *op;
    if (!client->client)
        return false;
    op = sim_op_new(s, SIM_REQUEST, NULL,
                    s->world.now_us + 1000 * SIM_CLIENT_MS);
    if (!op)
        return false;
    op->owner_life = client->life;
    len = ask_body(s, body, sizeof body, op->serial, client);
    sim_note(s, "client %d asks %s", client->index, route);
    sim_op_started(
        op, pm_client_request(client->client, route,
                              (pm_body){PM_BODY_JSON, pm_bytes(body, len)},
                              client_answered, op));
    return op->state == SIM_OPEN;
}

static const char *ask_type(sim *s)
{
    static const char *const types[] = {"connector", "connector", "chat",
                                        "chat",      "chat",      "area",
                                        "gate",      "ghost"};
    return types[sim_below(s, 8)];
}

static void ask_route(sim *s, char *route, size_t size)
{
    static const char *const names[] = {
        "now",  "now",  "now",    "later", "later", "never", "fail", "drop",
        "push", "push", "bind",   "bind",  "sync",  "call",  "call", "join",
        "join", "say",  "unbind", "leave", "kick",  "no"};
    const char *type = ask_type(s);
    const char *name = names[sim_below(s, sizeof names / sizeof *names)];
    if (!strcmp(name, "kick") && sim_chance(s, 70))
        name = "now";
    if (!strcmp(name, "join") || !strcmp(name, "say") || !strcmp(name, "leave"))
        type = "chat";
    snprintf(route, size, "%s.handler.%s", type, name);
}

static void ask_client(sim *s)
{
    sim_client *client = &s->clients[sim_below(s, SIM_CLIENTS)];
    char route[64], body[128];
    if (!client->client || (!client->connected && sim_chance(s, 5))) {
        sim_client_end(client);
        sim_client_start(client);
        return;
    }
    ask_route(s, route, sizeof route);
    if (sim_chance(s, 85)) {
        sim_client_ask(client, route);
        return;
    }
    if (s->ops_count < SIM_OPS) { /* a notify: numbered, nobody waits */
        sim_op *op = sim_op_new(s, SIM_REQUEST, NULL, 0);
        snprintf(body, sizeof body, "{\"n\":%u,\"c\":%u,\"u\":%d}", op->serial,
                 client->life, client->index);
        sim_note(s, "client %d tells %s", client->index, route);
        pm_client_notify(client->client, route, pm_body_text(body));
        sim_op_started(op, PM_ENOTIFY);
    }
}

static void ask_vanish(sim *s)
{
    sim_client *client = &s->clients[sim_below(s, SIM_CLIENTS)];
    if (!client->client)
        sim_client_start(client);
    else if (sim_chance(s, 50))
        sim_client_end(client);
    else
        pm_client_disconnect(client->client);
}

/* ---- Calls between servers ---------------------------------------------- */

static void ask_rpc_done(const pm_rpc_result *result, void *ctx)
{
    sim_op *op = ctx;
    sim *s = op->all;
    sim_server *owner = &s->servers[op->owner];
    long n = sim_field(result->body, "n");
    if (!result->detail)
        sim_fail(s, "rpc %u has no detail", op->serial);
    if (result->err == PM_OK && n != (long)op->serial)
        sim_fail(s, "rpc %u got the answer of %ld", op->serial, n);
    if (result->err == PM_OK && !op->served)
        sim_fail(s, "rpc %u was answered by nobody", op->serial);
    if (result->err == PM_EREMOTE && result->code != 7)
        sim_fail(s, "rpc %u got code %d", op->serial, result->code);
    sim_op_done(op, result->err);
    sim_mischief(s);
    if (owner->life == op->owner_life)
        sim_server_inside(owner);
}

/* A method of a type that the chosen server may or may not be of. */
static const char *ask_target(sim *s, sim_op *op, char *method, size_t size)
{
    static const char *const names[] = {"now",  "now",   "now",  "later",
                                        "late", "never", "fail", "big"};
    const char *type = ask_type(s), *id = NULL;
    const char *name = names[sim_below(s, 8)];
    if (sim_chance(s, 45)) {
        const pm_server *row;
        op->target = (int)sim_below(s, SIM_SERVERS);
        row = &s->servers[op->target].row;
        id = row->id;
        if (sim_chance(s, 95))
            type = row->type;
    } else if (sim_chance(s, 5)) {
        id = "nobody-1";
    }
    op->no_such_method = !strcmp(name, "late");
    snprintf(method, size, "%s.remote.%s", type, name);
    return id;
}

static pm_param ask_param(sim *s, pm_request *then)
{
    uint32_t kind = sim_below(s, 4);
    if (kind == 0 && then)
        return pm_param_session(pm_request_session(then));
    if (kind == 1)
        return pm_param_integer(sim_below(s, 1000));
    return kind == 2 ? pm_param_string("some room") : pm_param_none();
}

void sim_ask_rpc(sim_server *server, pm_request *then)
{
    sim *s = server->all;
    pm_rpc_opts opts = pm_rpc_opts_default();
    char method[64], args[20 * 1024 + 128];
    uint32_t ms = sim_chance(s, 50) ? 0 : 1 + sim_below(s, 3000);
    sim_op *op =
        sim_op_new(s, SIM_RPC, server,
                   s->world.now_us + 1000 * (uint64_t)(ms ? ms : SIM_RPC_MS));
    if (!op) {
        if (then)
            pm_request_drop(then);
        return;
    }
    op->then = then;
    opts.server_id = ask_target(s, op, method, sizeof method);
    opts.method = method;
    opts.deadline_ms = ms;
    opts.route = ask_param(s, then);
    opts.args.kind = sim_chance(s, 50) ? PM_BODY_JSON : PM_BODY_BYTES;
    opts.args.data =
        pm_bytes(args, ask_body(s, args, sizeof args, op->serial, NULL));
    sim_note(s, "%s calls %s of %s", server->row.id, method,
             opts.server_id ? opts.server_id : "any");
    sim_op_started(
        op, pm_rpc_call(server->app, &opts, ask_rpc_done, op, &op->call_id));
}

static void ask_all_done(const pm_rpc_result *results, size_t count, void *ctx)
{
    sim_op *op = ctx;
    for (size_t i = 0; i < count; i++)
        sim_note(op->all, "all %u: %s %s", op->serial,
                 results[i].server_id ? results[i].server_id : "nobody",
                 pm_err_name(results[i].err));
    if (count != (size_t)op->served)
        sim_fail(op->all, "all %u has %zu results, not %d", op->serial, count,
                 op->served);
    sim_op_done(op, PM_OK);
}

static void ask_all(sim *s, sim_server *server)
{
    const char *type = ask_type(s);
    char method[64], args[64];
    sim_op *op =
        sim_op_new(s, SIM_ALL, server, s->world.now_us + 1000 * SIM_RPC_MS);
    if (!op)
        return;
    op->served = (int)pm_server_count(server->app, type);
    snprintf(method, sizeof method, "%s.remote.now", type);
    snprintf(args, sizeof args, "{\"n\":%u}", op->serial);
    sim_op_started(op, pm_rpc_all(server->app, method, pm_body_text(args),
                                  ask_all_done, op));
}

static void ask_cancel(sim *s)
{
    sim_op *op;
    sim_server *owner;
    pm_err err;
    if (!s->open_count)
        return;
    op = &s->ops[s->open[sim_below(s, s->open_count)]];
    if (op->kind != SIM_RPC || op->state != SIM_OPEN)
        return;
    owner = &s->servers[op->owner];
    if (!owner->app || owner->life != op->owner_life)
        return;
    err = pm_rpc_cancel(owner->app, op->call_id);
    sim_note(s, "cancel rpc %u: %s", op->serial, pm_err_name(err));
    op->cancelled = op->cancelled || err == PM_OK;
}

static void ask_notify(sim *s, sim_server *server)
{
    char args[64];
    pm_err err;
    sim_op *op = sim_op_new(s, SIM_DONE, server, 0);
    if (!op)
        return;
    snprintf(args, sizeof args, "{\"n\":%u}", op->serial);
    err = pm_rpc_invoke(server->app, "chat.remote.now", pm_param_integer(3),
                        pm_body_text(args), NULL, NULL);
    sim_note(s, "%s notifies: %s", server->row.id, pm_err_name(err));
    sim_op_started(op, PM_ENOTIFY);
}

static void ask_broadcast(sim *s, sim_server *server)
{
    pm_broadcast_opts opts = pm_broadcast_opts_default();
    sim_op *op =
        sim_op_new(s, SIM_PUSH, server, s->world.now_us + 1000 * SIM_RPC_MS);
    if (!op)
        return;
    opts.frontend_type = "connector";
    opts.route = "onAll";
    opts.body = pm_body_text("{\"all\":1}");
    opts.bound_only = sim_chance(s, 50);
    sim_op_started(op, pm_broadcast(server->app, &opts, sim_push_cb, op));
}

void sim_mischief(sim *s)
{
    uint32_t what = sim_below(s, 40);
    sim_server *server;
    if (s->quiet || s->mischief || what > 4)
        return;
    s->mischief = true; /* what it does may call back: not deeper */
    server = sim_any_server(s);
    if (what == 0)
        ask_vanish(s);
    else if (what == 1 && server)
        sim_ask_rpc(server, NULL);
    else if (what == 2)
        ask_client(s);
    else
        ask_cancel(s);
    s->mischief = false;
}

/* ---- A step ------------------------------------------------------------- */

void sim_ask_act(sim *s)
{
    uint32_t what = sim_below(s, 100);
    sim_server *server = sim_any_server(s);
    if (what < 50)
        ask_client(s);
    else if (what < 54)
        ask_vanish(s);
    else if (!server)
        return;
    else if (what < 80)
        sim_ask_rpc(server, NULL);
    else if (what < 84)
        ask_all(s, server);
    else if (what < 90)
        ask_cancel(s);
    else if (what < 93)
        ask_notify(s, server);
    else if (what < 96)
        ask_broadcast(s, server);
    else if (!strcmp(server->row.type, "chat"))
        sim_room_push(server, (int)sim_below(s, SIM_ROOMS));
}

/* stage 0: everybody comes anew; 1: binds; 2: joins (with a push each). Then
 * who joined as the i-th has heard all pushes of the room after that. */
void sim_roll_call(sim *s, int stage)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        sim_client *client = &s->clients[i];
        if (stage == 0) {
            sim_client_end(client);
            sim_client_start(client);
            continue;
        }
        if (!client->connected)
            sim_fail(s, "client %d does not come in after the storm", i);
        else if (!sim_client_ask(client, stage == 1 ? "connector.handler.bind"
                                                    : "chat.handler.join"))
            sim_fail(s, "client %d can not ask after the storm", i);
    }
}
