/* SPDX-License-Identifier: MIT */
/* test_flow_storm.c -- 100,000 calls (a million with PM_PROOF=1) to three servers
 * in processes of their own, which are killed, stopped and started again all
 * the while: every call completes exactly once and not later than its deadline,
 * and nothing is left. */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum {
    STORM_CALLS = 100000,
    STORM_PROOF_CALLS = 1000000,
    STORM_SERVERS = 3,
    STORM_OPEN = 256, /* calls under way */
    STORM_DEADLINE_MS = 400,
    STORM_GRACE_US = 50000,
    STORM_FAULT_MS = 40,
    STORM_CALLS_A_MS = 15 /* or all is over before much has happened */
};

typedef struct storm {
    test_heap heap;
    test_world chance;
    pm_server servers[STORM_SERVERS + 1];
    pid_t pids[STORM_SERVERS]; /* 0: not running */
    bool stopped[STORM_SERVERS];
    pm_loop *loop;
    pm_app *app;
    long calls, refused, done, wanted;
    long by_err[100];
    long faults, late;
    uint64_t worst_us; /* behind the deadline, lag taken off */
    uint64_t lag_us, turn_us;
} storm;

typedef struct storm_call {
    storm *s;
    uint64_t began_us;
    int completed;
} storm_call;

static uint64_t storm_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- The servers ------------------------------------------------------- */

static void storm_echo(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_call_args(call));
}

static pm_app *storm_app(storm *s, int server)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    opts.loop = s->loop;
    opts.servers = s->servers;
    opts.servers_count = STORM_SERVERS + 1;
    opts.server_id = s->servers[server].id;
    opts.rpc.reconnect_ms_max = 100;
    assert_ok(pm_app_new(&app, &opts));
    assert_ok(pm_app_remote(app, "chat.chatRemote.echo", storm_echo, NULL));
    assert_ok(pm_app_route_builtin(app, "chat", "rr"));
    assert_ok(pm_app_start(app));
    return app;
}

static void storm_serve(storm *s, int server)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(120);
    assert_ok(pm_loop_new(&s->loop, NULL));
    storm_app(s, server + 1);
    pm_loop_run(s->loop);
    _exit(0);
}

static void storm_spawn(storm *s, int server)
{
    fflush(NULL); /* or the child says it again */
    s->pids[server] = fork();
    assert_true(s->pids[server] >= 0);
    if (s->pids[server] == 0)
        storm_serve(s, server);
    s->stopped[server] = false;
}

static void storm_kill(storm *s, int server)
{
    int status;
    if (!s->pids[server])
        return;
    kill(s->pids[server], SIGKILL);
    waitpid(s->pids[server], &status, 0);
    s->pids[server] = 0;
}

/* One server dies, is stopped, goes on, or comes back. */
static void storm_fault(storm *s)
{
    int server = (int)test_world_below(&s->chance, STORM_SERVERS);
    s->faults++;
    if (!s->pids[server]) {
        storm_spawn(s, server);
    } else if (s->stopped[server]) {
        kill(s->pids[server], SIGCONT);
        s->stopped[server] = false;
    } else if (test_world_below(&s->chance, 2)) {
        storm_kill(s, server);
    } else {
        kill(s->pids[server], SIGSTOP);
        s->stopped[server] = true;
    }
}

/* ---- The caller -------------------------------------------------------- */

static void storm_done(const pm_rpc_result *result, void *ctx)
{
    storm_call *call = ctx;
    storm *s = call->s;
    uint64_t took = storm_now_us() - call->began_us;
    uint64_t allowed = (uint64_t)STORM_DEADLINE_MS * 1000 + s->lag_us;
    if (call->completed++)
        abort();
    s->done++;
    s->by_err[-result->err]++;
    if (result->err == PM_OK && (result->body.data.len != 7 ||
                                 memcmp(result->body.data.data, "[1,2,3]", 7)))
        abort();
    if (took > allowed && took - allowed > s->worst_us)
        s->worst_us = took - allowed;
    if (took > allowed + STORM_GRACE_US)
        s->late++;
    free(call);
}

static void storm_call_one(storm *s)
{
    pm_rpc_opts opts = pm_rpc_opts_default();
    storm_call *call = calloc(1, sizeof *call);
    size_t to = test_world_below(&s->chance, 2 * STORM_SERVERS);
    assert_non_null(call);
    call->s = s;
    call->began_us = storm_now_us();
    opts.method = "chat.chatRemote.echo";
    if (to < STORM_SERVERS)
        opts.server_id = s->servers[to + 1].id;
    opts.args = pm_body_text("[1,2,3]");
    opts.deadline_ms = STORM_DEADLINE_MS;
    s->calls++;
    if (pm_rpc_call(s->app, &opts, storm_done, call, NULL)) {
        s->refused++;
        s->calls--;
        free(call);
    }
}

/* A turn; how long it and the pause before took is the lag that a deadline may
 * be late by. */
static void storm_turn(storm *s)
{
    uint64_t now = storm_now_us();
    s->lag_us = now - s->turn_us;
    s->turn_us = now;
    pm_loop_poll(s->loop, 0);
}

/* How many calls may have been made by now. */
static long storm_allowance(uint64_t began_us)
{
    return (long)((storm_now_us() - began_us) * STORM_CALLS_A_MS / 1000) + 1;
}

static void storm_run(storm *s)
{
    uint64_t began = storm_now_us(), next = began;
    s->turn_us = began;
    while (s->calls < s->wanted) {
        long allowed = storm_allowance(began);
        while (s->calls < allowed && s->calls - s->done < STORM_OPEN &&
               s->calls < s->wanted)
            storm_call_one(s);
        storm_turn(s);
        if (storm_now_us() >= next) {
            storm_fault(s);
            next = storm_now_us() + STORM_FAULT_MS * 1000;
        }
    }
    while (s->done < s->calls)
        storm_turn(s);
}

static void storm_table(const storm *s)
{
    printf("calls %ld, completed %ld, faults %ld, latest %.1f ms behind its "
           "deadline:",
           s->calls, s->done, s->faults, (double)s->worst_us / 1000);
    for (int i = 0; i < 100; i++)
        if (s->by_err[i])
            printf(" %s %ld", pm_err_name((pm_err)-i), s->by_err[i]);
    printf("\n");
}

static void test_storm(void **state)
{
    static storm s;
    pm_loop_opts opts = pm_loop_opts_default();
    static char ids[STORM_SERVERS][16];
    (void)state;
    s.wanted = getenv("PM_PROOF") ? STORM_PROOF_CALLS : STORM_CALLS;
    s.chance.seed = 20261124;
    s.servers[0] = (pm_server){.id = "caller-1", .type = "caller"};
    for (int i = 0; i < STORM_SERVERS; i++) {
        snprintf(ids[i], sizeof ids[i], "chat-%d", i + 1);
        s.servers[i + 1] =
            (pm_server){.id = ids[i], .type = "chat", .port = test_free_port()};
    }
    for (int i = 0; i < STORM_SERVERS; i++)
        storm_spawn(&s, i);
    opts.alloc = test_alloc(&s.heap);
    assert_ok(pm_loop_new(&s.loop, &opts));
    s.app = storm_app(&s, 0);
    storm_run(&s);
    storm_table(&s);
    assert_int_equal(s.done, s.calls);
    assert_int_equal(s.refused, 0);
    assert_int_equal(s.late, 0);
    assert_true(s.by_err[0] > s.calls / 10);
    assert_true(s.faults > 3);
    pm_app_free(s.app);
    assert_ok(pm_loop_free(s.loop));
    assert_heap_empty(&s.heap);
    for (int i = 0; i < STORM_SERVERS; i++)
        storm_kill(&s, i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_storm),
};

TEST_MAIN(tests)
