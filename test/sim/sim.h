/* SPDX-License-Identifier: MIT */
/* test/sim/sim.h -- the simulator: a whole cluster in one thread, on a virtual
 * clock, from a seed.
 *
 *     sim_town    servers: made, killed, restarted, added, removed; links that
 *                 are slow, cut, or lead nowhere for a while
 *     sim_ask     who asks: clients and callers, a random action a step
 *     sim_serve   who answers: handlers, remotes, routers, channels
 *     sim_ops     what is promised: every accepted operation completes once and
 *                 in time; the trace and its hash
 *     sim         one seed from its first step to its empty heap; options
 *
 * Everything that happens is a function of the seed: no address, no clock and
 * no order of evaluation may show in the trace. So the dice are never thrown
 * twice in one expression. */
#ifndef TEST_SIM_H
#define TEST_SIM_H

#include "test.h"

#include "pomelo_call_internal.h"
#include "pomelo_downlink_internal.h"

enum {
    SIM_SERVERS = 10,
    SIM_CLIENTS = 8,
    SIM_ROOMS = 3,
    SIM_OPS = 8192,
    SIM_HELD = 1024,
    SIM_PUSHES = 4096,
    SIM_LIVES = 512,
    SIM_RPC_MS = 2000,     /* deadline of calls that say nothing else */
    SIM_REQUEST_MS = 3000, /* of the servers' */
    SIM_CLIENT_MS = 8000,  /* of the clients' */
    SIM_SILENT_MS = 3000,
    SIM_LATE_US = 2000, /* a tick for rounding up, a tick of the wheel */
    SIM_PEER_QUEUE = 256 * 1024,
    SIM_CLIENT_QUEUE = 64 * 1024,
    SIM_IN_FLIGHT = 16,
    SIM_LIVE_BYTES_MAX = 128 * 1024 * 1024
};

typedef struct sim sim;
typedef struct sim_server sim_server;

/* ---- What was asked and must complete ----------------------------------- */
typedef enum sim_kind {
    SIM_RPC,
    SIM_ALL,
    SIM_REQUEST,
    SIM_DONE, /* bind, unbind, sync, kick */
    SIM_PUSH,
    SIM_STOP
} sim_kind;

typedef enum sim_state {
    SIM_STARTING, /* the call has not returned */
    SIM_OPEN,
    SIM_REFUSED,
    SIM_COMPLETED
} sim_state;

typedef struct sim_op {
    sim *all;
    uint32_t serial;
    sim_kind kind;
    sim_state state;
    uint64_t due_us; /* 0: whenever */
    uint64_t call_id;
    int owner;  /* server, or -1: a client's */
    int target; /* whom a call names; -1: anybody, or nobody we know */
    uint32_t owner_life;
    uint32_t at; /* its place in sim.open */
    int served;  /* how often a remote has seen it */
    bool cancelled, no_such_method;
    pm_request *then; /* is answered when it completes; may be NULL */
} sim_op;

/* ---- What is answered later --------------------------------------------- */
typedef struct sim_held {
    pm_request *req; /* one of the three */
    pm_call *call;
    pm_choice *choice;
    uint64_t due_us;
    uint32_t n;
    int server;
    bool cancelled;
} sim_held;

/* ---- Servers ------------------------------------------------------------ */
typedef struct sim_member {
    int client;
    int front;
} sim_member;

typedef struct sim_room { /* what a channel must hold, in order */
    sim_member members[SIM_CLIENTS * SIM_SERVERS];
    size_t count;
} sim_room;

struct sim_server {
    sim *all;
    int index;
    pm_server row;
    pm_app *app;   /* NULL: not running */
    uint32_t life; /* how often it has been started */
    bool exists;   /* in this seed's table */
    bool stopping;
    bool doomed; /* its next callback frees it */
    uint64_t back_us;
    sim_room rooms[SIM_ROOMS];
};

/* ---- Clients ------------------------------------------------------------ */
typedef struct sim_stream { /* what one server has said to one client */
    uint32_t life, k;
} sim_stream;

typedef struct sim_client {
    sim *all;
    int index;
    pm_client *client; /* NULL: away */
    uint32_t life;     /* number over all clients */
    int front;
    bool connected;
    uint32_t roll_calls; /* pushes of the last roll call */
    sim_stream streams[SIM_SERVERS][3];
} sim_client;

/* The ways of what a server says to a client: order is kept within each. */
enum { SIM_WAY_FRONT = 0, SIM_WAY_ANSWER = 1, SIM_WAY_PUSH = 2 };

typedef struct sim_opts {
    bool verbose;
    bool drop_completion; /* the bug that must be found */
} sim_opts;

struct sim {
    sim_opts opts;
    uint64_t seed, dice, hash;
    test_heap heap;
    test_world world;
    pm_loop *loop;
    sim_server servers[SIM_SERVERS];
    sim_client clients[SIM_CLIENTS];
    sim_op ops[SIM_OPS];
    uint32_t ops_count;
    uint32_t open[SIM_OPS], open_count;
    sim_held held[SIM_HELD];
    size_t held_count;
    uint32_t push_masks[SIM_PUSHES]; /* clients that a push may reach */
    uint32_t pushes;
    uint32_t lives;
    uint32_t last_n[SIM_LIVES][SIM_SERVERS]; /* last request seen, per client */
    uint32_t made;                           /* answers and pushes, numbered */
    uint64_t blocked_until_us[SIM_SERVERS][SIM_SERVERS];
    /* The weather of this seed. */
    uint32_t delay_us, cut_per_100000;
    bool calm, quiet, hungry;
    uint32_t events, completed, steps;
    bool dropped, failed, rolling, mischief;
    char why[512];
};

/* ---- sim_ops ------------------------------------------------------------ */
/* 0 .. below - 1; below > 0. */
uint32_t sim_below(sim *s, uint32_t below);
bool sim_chance(sim *s, uint32_t percent);
/* One event: into the hash, and shown when asked for. */
void sim_note(sim *s, const char *fmt, ...) PMI_PRINTF(2, 3);
/* A promise is broken. The first one is told. */
void sim_fail(sim *s, const char *fmt, ...) PMI_PRINTF(2, 3);
/* NULL: no room for more. */
sim_op *sim_op_new(sim *s, sim_kind kind, const sim_server *owner,
                   uint64_t due_us);
/* What the call has returned. */
void sim_op_started(sim_op *op, pm_err err);
void sim_op_done(sim_op *op, pm_err err);
void sim_done_cb(pm_err err, const char *detail, void *ctx); /* SIM_DONE */
void sim_push_cb(pm_err err, const pm_receiver *missed, size_t count,
                 void *ctx);
/* After each turn, and when a server has been freed. */
void sim_check_turn(sim *s);
void sim_check_freed(sim *s, const sim_server *server);
void sim_check_all_done(sim *s);
/* The number behind "name": in a body; -1: none. */
long sim_field(pm_body body, const char *name);

/* ---- sim_town ----------------------------------------------------------- */
void sim_town_plan(sim *s);
void sim_server_start(sim_server *server);
void sim_server_kill(sim_server *server);
/* A callback of this server runs: it may have been told to die in it. */
void sim_server_inside(sim_server *server);
void sim_town_act(sim *s);
void sim_town_tick(sim *s); /* servers whose time has come are restarted */
void sim_town_heal(sim *s);
void sim_town_check_whole(sim *s);
void sim_town_end(sim *s);
sim_server *sim_any_server(sim *s); /* a running one, or NULL */
uint64_t sim_link_fault(void *ctx, const char *from, const char *to,
                        size_t bytes);

/* ---- sim_serve ---------------------------------------------------------- */
pm_err sim_configure(sim_server *server);
void sim_held_tick(sim *s, bool all);
void sim_check_rooms(sim *s, sim_server *server);
/* Says something to the members of a room. */
void sim_room_push(sim_server *server, int room);

/* ---- sim_ask ------------------------------------------------------------ */
void sim_client_start(sim_client *client);
void sim_client_end(sim_client *client);
void sim_ask_act(sim *s);
void sim_ask_rpc(sim_server *server, pm_request *then);
/* From inside a callback, now and then: something that it may well do. */
void sim_mischief(sim *s);
/* Everybody logs in, joins and hears one push. */
void sim_roll_call(sim *s, int stage);
bool sim_client_ask(sim_client *client, const char *route);

#endif
