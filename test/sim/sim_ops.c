/* SPDX-License-Identifier: MIT */
/* test/sim/sim_ops.c -- what is promised: the books of a run.
 *
 *     STARTING --PM_OK--> OPEN --callback--> COMPLETED
 *         \--error--> REFUSED
 *
 * Any other step is a broken promise. Start reading at sim_op_done(). */
#include "sim.h"

uint32_t sim_below(sim *s, uint32_t below)
{
    return (uint32_t)(test_mix(&s->dice) % below);
}

bool sim_chance(sim *s, uint32_t percent)
{
    return sim_below(s, 100) < percent;
}

/* ---- The trace ---------------------------------------------------------- */

void sim_note(sim *s, const char *fmt, ...)
{
    char line[256];
    va_list args;
    int n = snprintf(line, sizeof line, "%llu ",
                     (unsigned long long)s->world.now_us);
    va_start(args, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, args);
    va_end(args);
    for (const char *c = line; *c; c++) { /* FNV-1a */
        s->hash ^= (uint8_t)*c;
        s->hash *= UINT64_C(0x100000001b3);
    }
    s->events++;
    if (s->opts.verbose)
        puts(line);
}

void sim_fail(sim *s, const char *fmt, ...)
{
    va_list args;
    if (s->failed)
        return;
    s->failed = true;
    va_start(args, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, args);
    va_end(args);
    sim_note(s, "BROKEN: %s", s->why);
}

long sim_field(pm_body body, const char *name)
{
    char want[16];
    size_t len = (size_t)snprintf(want, sizeof want, "\"%s\":", name);
    const char *at = body.data.data;
    for (size_t i = 0; i + len < body.data.len; i++) {
        long value = 0;
        if (memcmp(at + i, want, len))
            continue;
        for (i += len; i < body.data.len && at[i] >= '0' && at[i] <= '9'; i++)
            value = value * 10 + (at[i] - '0');
        return value;
    }
    return -1;
}

/* ---- Operations --------------------------------------------------------- */

static const char *const op_names[] = {"rpc",  "all",  "request",
                                       "done", "push", "stop"};

sim_op *sim_op_new(sim *s, sim_kind kind, const sim_server *owner,
                   uint64_t due_us)
{
    sim_op *op;
    if (s->ops_count == SIM_OPS)
        return NULL;
    op = &s->ops[s->ops_count];
    op->all = s;
    op->serial = s->ops_count++;
    op->kind = kind;
    op->due_us = due_us;
    op->owner = owner ? owner->index : -1;
    op->owner_life = owner ? owner->life : 0;
    op->target = -1;
    op->at = s->open_count;
    s->open[s->open_count++] = op->serial;
    return op;
}

static void op_close(sim_op *op, sim_state state)
{
    sim *s = op->all;
    uint32_t last = s->open[--s->open_count];
    s->open[op->at] = last;
    s->ops[last].at = op->at;
    op->state = state;
}

static void op_answer_then(sim_op *op, pm_err err)
{
    pm_request *req = op->then;
    op->then = NULL;
    if (!req)
        return;
    if (err)
        pm_request_fail(req, err, NULL, NULL);
    else
        pm_reply_text(req, "{\"code\":200}");
}

void sim_op_started(sim_op *op, pm_err err)
{
    sim_note(op->all, "%s %u of %d: %s", op_names[op->kind], op->serial,
             op->owner, pm_err_name(err));
    if (op->state != SIM_STARTING) {
        sim_fail(op->all, "%s %u has completed before the call returned",
                 op_names[op->kind], op->serial);
        return;
    }
    if (err) {
        op_close(op, SIM_REFUSED);
        op_answer_then(op, err);
    } else {
        op->state = SIM_OPEN;
    }
}

static bool op_err_is_allowed(const sim_op *op, pm_err err)
{
    const sim *s = op->all;
    if (err == PM_ENOMEM)
        return s->hungry;
    if (err == PM_ECANCELED)
        return op->cancelled;
    switch (op->kind) {
    case SIM_RPC:
        if (op->no_such_method && err == PM_OK)
            return false;
        return err == PM_OK || err == PM_ENOSERVER || err == PM_EDOWN ||
               err == PM_ETIMEOUT || err == PM_ECLOSED || err == PM_EREMOTE ||
               err == PM_ENOMETHOD || err == PM_ELIMIT || err == PM_ESIZE;
    case SIM_REQUEST:
        return err == PM_OK || err == PM_ETIMEOUT || err == PM_ECLOSED;
    case SIM_STOP:
        return err == PM_OK || err == PM_ETIMEOUT || err == PM_ECLOSED;
    default:
        return err != PM_EINVAL && err != PM_ESTATE;
    }
}

void sim_op_done(sim_op *op, pm_err err)
{
    sim *s = op->all;
    if (s->opts.drop_completion && !s->dropped && op->kind == SIM_RPC &&
        err == PM_ECLOSED) {
        s->dropped = true;
        return;
    }
    sim_note(s, "%s %u done: %s", op_names[op->kind], op->serial,
             pm_err_name(err));
    if (op->state != SIM_OPEN) {
        sim_fail(s, "%s %u completes %s", op_names[op->kind], op->serial,
                 op->state == SIM_COMPLETED ? "twice"
                 : op->state == SIM_REFUSED ? "though it was refused"
                                            : "inside its own call");
        return;
    }
    op_close(op, SIM_COMPLETED);
    s->completed++;
    if (op->cancelled && err != PM_ECANCELED && err != PM_ECLOSED)
        sim_fail(s, "%s %u was cancelled and got %s", op_names[op->kind],
                 op->serial, pm_err_name(err));
    if (!op_err_is_allowed(op, err))
        sim_fail(s, "%s %u got %s", op_names[op->kind], op->serial,
                 pm_err_name(err));
    op_answer_then(op, err);
}

void sim_done_cb(pm_err err, const char *detail, void *ctx)
{
    sim_op *op = ctx;
    if (!detail)
        sim_fail(op->all, "no detail");
    sim_op_done(op, err);
}

void sim_push_cb(pm_err err, const pm_receiver *missed, size_t count, void *ctx)
{
    sim_op *op = ctx;
    for (size_t i = 0; i < count; i++)
        sim_note(op->all, "missed %s on %s", missed[i].uid,
                 missed[i].frontend_id);
    sim_op_done(op, err);
}

/* ---- Checks ------------------------------------------------------------- */

/* Who is down is not waited for: only a link that is up, or tried for the first
 * time, may keep a call. */
static void check_target(sim *s, const sim_op *op)
{
    pm_app *app = s->servers[op->owner].app;
    const pmi_server *target;
    const pmi_peer *peer;
    if (!app || op->owner == op->target ||
        s->servers[op->owner].life != op->owner_life)
        return;
    target =
        pmi_cluster_find(pmi_app_cluster(app), s->servers[op->target].row.id);
    peer = target ? target->peer : NULL;
    if (!peer ||
        (peer->state != PMI_PEER_UP && peer->state != PMI_PEER_FIRST_DIAL))
        sim_fail(s, "rpc %u of %d waits for %s, which is down", op->serial,
                 op->owner, s->servers[op->target].row.id);
}

static void check_waiting(sim *s)
{
    for (uint32_t i = 0; i < s->open_count; i++) {
        const sim_op *op = &s->ops[s->open[i]];
        if (op->kind == SIM_RPC && op->target >= 0)
            check_target(s, op);
        if (op->due_us && s->world.now_us > op->due_us + SIM_LATE_US)
            sim_fail(s, "%s %u of %d is late: due at %llu", op_names[op->kind],
                     op->serial, op->owner, (unsigned long long)op->due_us);
    }
}

static void check_links(sim *s, const sim_server *server, const pmi_link *list)
{
    for (const pmi_link *n = list->next; n != list; n = n->next) {
        const pmi_peer *peer = PMI_OUTER(n, pmi_peer, in_all);
        size_t queued = peer->conn ? pmi_conn_queued(peer->conn) : 0;
        if (queued > SIM_PEER_QUEUE || peer->waiting.len > SIM_PEER_QUEUE)
            sim_fail(s, "%s has %zu + %zu bytes for a peer", server->row.id,
                     queued, peer->waiting.len);
    }
}

static bool check_session(pm_session *session, void *ctx)
{
    sim *s = ctx;
    const pmi_downlink *down = session->conn;
    if (session->in_flight > SIM_IN_FLIGHT)
        sim_fail(s, "%u requests in flight of one session", session->in_flight);
    if (down && down->conn && pmi_conn_queued(down->conn) > SIM_CLIENT_QUEUE)
        sim_fail(s, "%zu bytes wait for one client",
                 pmi_conn_queued(down->conn));
    return true;
}

void sim_check_turn(sim *s)
{
    check_waiting(s);
    s->steps++;
    if (s->heap.live_bytes > SIM_LIVE_BYTES_MAX)
        sim_fail(s, "%zu bytes are in use", (size_t)s->heap.live_bytes);
    for (int i = 0; i < SIM_SERVERS && s->steps % 8 == 0; i++) {
        sim_server *server = &s->servers[i];
        const pmi_peers *peers;
        if (!server->app)
            continue;
        peers = pmi_rpc_peers(pmi_app_rpc(server->app));
        check_links(s, server, &peers->dialled);
        check_links(s, server, &peers->accepted);
        if (server->row.frontend)
            pm_session_each(server->app, NULL, check_session, s);
        sim_check_rooms(s, server);
    }
}

void sim_check_freed(sim *s, const sim_server *server)
{
    for (uint32_t i = 0; i < s->open_count; i++) {
        const sim_op *op = &s->ops[s->open[i]];
        if (op->owner == server->index && op->owner_life == server->life &&
            op->state == SIM_OPEN)
            sim_fail(s, "%s %u is open though %s was freed", op_names[op->kind],
                     op->serial, server->row.id);
    }
}

void sim_check_all_done(sim *s)
{
    if (s->open_count)
        sim_fail(s, "%u operations never complete, the first is %s %u",
                 s->open_count, op_names[s->ops[s->open[0]].kind], s->open[0]);
}
