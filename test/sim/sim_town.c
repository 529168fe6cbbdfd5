/* SPDX-License-Identifier: MIT */
/* test/sim/sim_town.c -- the servers of a run, and what befalls them: killed and
 * started again with a new incarnation, added to and taken from the table,
 * stopped in good order, cut off for a while.
 * Start reading at sim_town_plan() and sim_town_act(). */
#include "sim.h"

static const struct town_row {
    const char *id, *type;
    uint16_t port, client_port;
} town_rows[SIM_SERVERS] = {{"gate-1", "gate", 4014, 3014},
                            {"connector-1", "connector", 4051, 3051},
                            {"connector-2", "connector", 4052, 3052},
                            {"connector-3", "connector", 4053, 3053},
                            {"chat-1", "chat", 4061, 0},
                            {"chat-2", "chat", 4062, 0},
                            {"chat-3", "chat", 4063, 0},
                            {"area-1", "area", 4071, 0},
                            {"area-2", "area", 4072, 0},
                            {"chat-9", "chat", 4069, 0}};
enum { TOWN_SPARE = 9 }; /* chat-9 comes and goes at run time */

/* ---- The seed's weather ------------------------------------------------- */

void sim_town_plan(sim *s)
{
    static const uint32_t delays[] = {0, 0, 500, 5000, 50000, 200000};
    static const uint32_t cuts[] = {0, 0, 20, 200, 1000};
    uint32_t fronts = 1 + sim_below(s, 3);
    uint32_t chats = 1 + sim_below(s, 3);
    uint32_t areas = sim_below(s, 3);
    bool gate = sim_chance(s, 50);
    for (int i = 0; i < SIM_SERVERS; i++) {
        const struct town_row *from = &town_rows[i];
        sim_server *server = &s->servers[i];
        server->all = s;
        server->index = i;
        server->row.id = from->id;
        server->row.type = from->type;
        server->row.host = "127.0.0.1";
        server->row.port = from->port;
        server->row.client_port = from->client_port;
        server->row.frontend = from->client_port != 0;
        server->exists = i == 0   ? gate
                         : i <= 3 ? (uint32_t)i <= fronts
                         : i <= 6 ? (uint32_t)i - 3 <= chats
                         : i <= 8 ? (uint32_t)i - 6 <= areas
                                  : false;
    }
    s->calm = sim_chance(s, 20);
    s->hungry = !s->calm && sim_chance(s, 15);
    s->delay_us = delays[sim_below(s, 6)];
    s->cut_per_100000 = s->calm ? 0 : cuts[sim_below(s, 5)];
}

/* ---- Links -------------------------------------------------------------- */

/* A link's end is named by an id, by the door's "host:port", or "client". */
static int town_who(const char *name)
{
    const char *colon = strrchr(name, ':');
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
    for (int i = 0; i < SIM_SERVERS; i++)
        if (port ? port == town_rows[i].port : !strcmp(name, town_rows[i].id))
            return i;
    return -1;
}

/* As TCP has it: what is sent into a partition arrives when it is over, if the
 * link is not given up before. */
uint64_t sim_link_fault(void *ctx, const char *from, const char *to,
                        size_t bytes)
{
    sim *s = ctx;
    int a = town_who(from), b = town_who(to);
    uint64_t delay = s->delay_us ? sim_below(s, s->delay_us) : 0;
    if (s->quiet)
        return delay;
    if (s->cut_per_100000 && sim_below(s, 100000) < s->cut_per_100000) {
        sim_note(s, "cut %s %s %zu", from, to, bytes);
        return UINT64_MAX;
    }
    if (a >= 0 && b >= 0 && s->blocked_until_us[a][b] > s->world.now_us)
        delay += s->blocked_until_us[a][b] - s->world.now_us;
    return delay;
}

static void town_partition(sim *s)
{
    uint32_t side = sim_below(s, 1u << SIM_SERVERS);
    uint64_t until = s->world.now_us + 1000 * (uint64_t)sim_below(s, 8000);
    bool one_way = sim_chance(s, 30);
    sim_note(s, "partition %x until %llu%s", side, (unsigned long long)until,
             one_way ? " one way" : "");
    for (int a = 0; a < SIM_SERVERS; a++)
        for (int b = 0; b < SIM_SERVERS; b++) {
            bool from = side >> a & 1, to = side >> b & 1;
            if (one_way ? from && !to : from != to)
                s->blocked_until_us[a][b] = until;
        }
}

/* ---- One server --------------------------------------------------------- */

static void town_session_closed(pm_app *app, pm_session *session,
                                pm_close_reason reason, void *ctx)
{
    sim_server *server = ctx;
    sim *s = server->all;
    const char *uid = pm_session_uid(session);
    char args[64];
    sim_note(s, "%s: session %llu closed: %s", server->row.id,
             (unsigned long long)pm_session_id(session), pm_close_text(reason));
    if (!uid || !server->app)
        return;
    snprintf(args, sizeof args, "{\"u\":%d,\"f\":%d}", atoi(uid + 1),
             server->index);
    for (size_t i = 0; i < pm_server_count(app, "chat"); i++) {
        pm_rpc_opts opts = pm_rpc_opts_default();
        opts.method = "chat.remote.quit";
        opts.server_id = pm_server_at(app, "chat", i)->id;
        opts.args = pm_body_text(args);
        pm_rpc_call(app, &opts, NULL, NULL, NULL);
    }
}

static void town_up(pm_app *app, const pm_server *other, void *ctx)
{
    sim_server *server = ctx;
    (void)app;
    sim_note(server->all, "%s: %s is up", server->row.id, other->id);
    sim_server_inside(server);
}

static void town_down(pm_app *app, const pm_server *other, void *ctx)
{
    sim_server *server = ctx;
    (void)app;
    sim_note(server->all, "%s: %s is down", server->row.id, other->id);
    sim_server_inside(server);
}

static pm_err town_new(sim_server *server)
{
    sim *s = server->all;
    pm_app_opts opts = pm_app_opts_default();
    pm_server table[SIM_SERVERS];
    for (int i = 0; i < SIM_SERVERS; i++)
        if (s->servers[i].exists)
            table[opts.servers_count++] = s->servers[i].row;
    opts.loop = s->loop;
    opts.servers = table;
    opts.server_id = server->row.id;
    opts.connector.heartbeat_s = 3;
    opts.connector.use_dict = s->seed % 2 != 0;
    opts.connector.scheduler =
        s->seed % 3 ? PM_SCHEDULER_DIRECT : PM_SCHEDULER_BUFFER;
    opts.rpc.secret = "sim";
    opts.rpc.deadline_ms = SIM_RPC_MS;
    opts.rpc.silent_ms = SIM_SILENT_MS;
    opts.rpc.reconnect_ms_max = 500;
    opts.limits.peer_queue_bytes = SIM_PEER_QUEUE;
    opts.limits.client_queue_bytes = SIM_CLIENT_QUEUE;
    opts.limits.requests_in_flight = SIM_IN_FLIGHT;
    opts.limits.request_ms = SIM_REQUEST_MS;
    return pm_app_new(&server->app, &opts);
}

void sim_server_start(sim_server *server)
{
    sim *s = server->all;
    pm_app_events events = pm_app_events_default();
    pm_err err = town_new(server);
    server->life++;
    server->stopping = server->doomed = false;
    events.session_closed = town_session_closed;
    events.server_up = town_up;
    events.server_down = town_down;
    if (err == PM_OK)
        err = pm_app_listen(server->app, &events, server);
    if (err == PM_OK)
        err = sim_configure(server);
    if (err == PM_OK)
        err = pm_app_start(server->app);
    sim_note(s, "%s starts, life %u: %s", server->row.id, server->life,
             pm_err_name(err));
    if (err == PM_OK)
        return;
    if (!s->hungry)
        sim_fail(s, "%s does not start: %s", server->row.id, pm_err_name(err));
    pm_app_free(server->app);
    server->app = NULL;
    server->back_us = s->world.now_us + 100000;
}

void sim_server_kill(sim_server *server)
{
    sim *s = server->all;
    pm_app *app = server->app;
    if (!app)
        return;
    server->app = NULL;
    sim_note(s, "%s is freed", server->row.id);
    pm_app_free(app);
    sim_check_freed(s, server);
    memset(server->rooms, 0, sizeof server->rooms);
    server->doomed = server->stopping = false;
    server->back_us = s->world.now_us + 1000 * (uint64_t)sim_below(s, 3000);
}

void sim_server_inside(sim_server *server)
{
    if (server->doomed)
        sim_server_kill(server);
}

static void town_stopped(pm_app *app, pm_err err, void *ctx)
{
    (void)app;
    sim_op_done(ctx, err);
}

static void town_stop(sim *s, sim_server *server)
{
    uint32_t drain = sim_below(s, 1000);
    sim_op *op;
    if (server->stopping)
        return;
    op = sim_op_new(s, SIM_STOP, server,
                    s->world.now_us + 1000 * (uint64_t)drain);
    if (!op)
        return;
    server->stopping = true;
    sim_op_started(op, pm_app_stop(server->app, drain, town_stopped, op));
    server->back_us = s->world.now_us + 1500 * 1000;
}

sim_server *sim_any_server(sim *s)
{
    int at = (int)sim_below(s, SIM_SERVERS);
    for (int i = 0; i < SIM_SERVERS; i++) {
        sim_server *server = &s->servers[(at + i) % SIM_SERVERS];
        if (server->app)
            return server;
    }
    return NULL;
}

/* ---- The table ---------------------------------------------------------- */

static void town_tell(sim *s, const sim_server *spare)
{
    for (int i = 0; i < TOWN_SPARE; i++) {
        pm_app *app = s->servers[i].app;
        pm_err err = app ? pm_server_add(app, &spare->row) : PM_OK;
        if (err && err != PM_EEXIST && !(err == PM_ENOMEM && s->hungry))
            sim_fail(s, "pm_server_add: %s", pm_err_name(err));
    }
}

static void town_add(sim *s)
{
    sim_server *spare = &s->servers[TOWN_SPARE];
    spare->exists = true;
    sim_note(s, "%s joins the table", spare->row.id);
    town_tell(s, spare);
    sim_server_start(spare);
}

static void town_remove(sim *s)
{
    sim_server *spare = &s->servers[TOWN_SPARE];
    bool before = sim_chance(s, 50);
    spare->exists = false;
    sim_note(s, "%s leaves the table", spare->row.id);
    if (before)
        sim_server_kill(spare);
    for (int i = 0; i < TOWN_SPARE; i++) {
        pm_app *app = s->servers[i].app;
        pm_err err = app ? pm_server_remove(app, spare->row.id) : PM_OK;
        if (err && err != PM_ENOTFOUND)
            sim_fail(s, "pm_server_remove: %s", pm_err_name(err));
    }
    sim_server_kill(spare);
}

/* ---- What befalls them -------------------------------------------------- */

void sim_town_act(sim *s)
{
    sim_server *server = sim_any_server(s);
    uint32_t what = sim_below(s, 100);
    if (s->calm || !server)
        return;
    if (what < 20)
        sim_server_kill(server);
    else if (what < 40)
        server->doomed = true;
    else if (what < 55)
        town_stop(s, server);
    else if (what < 80)
        town_partition(s);
    else if (s->servers[TOWN_SPARE].exists)
        town_remove(s);
    else
        town_add(s);
}

void sim_town_tick(sim *s)
{
    for (int i = 0; i < SIM_SERVERS; i++) {
        sim_server *server = &s->servers[i];
        if (s->world.now_us < server->back_us)
            continue;
        if (server->stopping)
            sim_server_kill(server);
        else if (server->exists && !server->app)
            sim_server_start(server);
    }
}

/* No fault any more: whoever is away comes back. */
void sim_town_heal(sim *s)
{
    s->quiet = true;
    s->heap.fail_at = 0;
    s->delay_us = s->delay_us < 5000 ? s->delay_us : 5000;
    memset(s->blocked_until_us, 0, sizeof s->blocked_until_us);
    for (int i = 0; i < SIM_SERVERS; i++) {
        sim_server *server = &s->servers[i];
        server->doomed = false;
        if (server->app && server->stopping)
            sim_server_kill(server);
        server->back_us = 0;
        if (server->exists && !server->app)
            sim_server_start(server);
    }
    /* Who had no memory for the new one, and who was made before it came. */
    if (s->servers[TOWN_SPARE].exists)
        town_tell(s, &s->servers[TOWN_SPARE]);
    sim_note(s, "quiet");
}

void sim_town_check_whole(sim *s)
{
    for (int i = 0; i < SIM_SERVERS; i++)
        for (int j = 0; j < SIM_SERVERS; j++) {
            pm_app *app = s->servers[i].app;
            const pm_server *other = &s->servers[j].row;
            if (app && s->servers[j].app && !pm_server_is_up(app, other->id))
                sim_fail(s, "%s has no link to %s", s->servers[i].row.id,
                         other->id);
        }
}

void sim_town_end(sim *s)
{
    for (int i = 0; i < SIM_SERVERS; i++)
        sim_server_kill(&s->servers[i]);
}
