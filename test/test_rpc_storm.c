/* SPDX-License-Identifier: MIT */
/* test/test_rpc_storm.c -- calls into a storm: this process asks four others
 * that are killed, stopped, left lying for a while and started again. Each call
 * is told once, none later than its deadline, 50 ms and what our own loop was
 * late; when the storm is over everybody is there again.
 *
 * 100,000 calls; fewer where the sanitizers look on, 1,000,000 with PM_PROOF=1.
 * The others are this program, too: --worker. Start reading at storm_tick(). */
#include "ports.h"
#include "core/conn_open.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STORM_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STORM_SANITIZED
#endif
#ifdef STORM_SANITIZED
enum { STORM_CALLS = 30000, STORM_PER_MS = 4 };
#else
enum { STORM_CALLS = 100000, STORM_PER_MS = 10 };
#endif

enum {
    STORM_PROOF_CALLS = 1000000,
    STORM_WORKERS = 4,
    STORM_WARM_CALLS = 3000,
    STORM_OPEN_MAX = 4000,
    STORM_DEADLINE_MS = 400, /* the longest */
    STORM_GRACE_US = 50000
};

/* ---- Workers ----------------------------------------------------------- */

static void storm_table(pm_server table[STORM_WORKERS + 1], uint16_t base)
{
    static const char *const ids[] = {"worker-1", "worker-2", "worker-3",
                                      "worker-4"};
    memset(table, 0, (STORM_WORKERS + 1) * sizeof *table);
    for (int i = 0; i < STORM_WORKERS; i++) {
        table[i].id = ids[i];
        table[i].type = "worker";
        table[i].port = (uint16_t)(base + i);
    }
    table[STORM_WORKERS].id = "driver-1"; /* asks, and is not asked */
    table[STORM_WORKERS].type = "driver";
}

static void worker_now(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_call_args(call));
}

static void worker_answer(pm_app *app, void *ctx)
{
    pm_call *call = ctx;
    (void)app;
    pm_call_reply(call, pm_call_args(call));
}

static void worker_in(pm_call *call, uint32_t ms)
{
    if (pm_call_keep(call) ||
        pm_app_timer(pm_call_app(call), ms, 0, worker_answer, call, NULL))
        pm_call_fail(call, 1, "no memory");
}

static void worker_soon(pm_call *call, void *ctx)
{
    (void)ctx;
    worker_in(call, 20);
}

static void worker_late(pm_call *call, void *ctx)
{
    (void)ctx;
    worker_in(call, STORM_DEADLINE_MS + 100);
}

static void worker_relayed(const pm_rpc_result *result, void *ctx)
{
    pm_call *call = ctx;
    if (result->err)
        pm_call_fail(call, result->err, result->detail);
    else
        pm_call_reply(call, result->body);
}

/* Asks a colleague, who may be dead. */
static void worker_relay(pm_call *call, void *ctx)
{
    (void)ctx;
    if (pm_rpc_invoke(pm_call_app(call), "worker.svc.now", pm_param_none(),
                      pm_call_args(call), worker_relayed, call))
        pm_call_fail(call, 1, "could not ask");
}

static pm_err worker_configure(pm_app *app, void *ctx)
{
    static const struct {
        const char *name;
        pm_remote_cb cb;
    } remotes[] = {{"worker.svc.now", worker_now},
                   {"worker.svc.soon", worker_soon},
                   {"worker.svc.late", worker_late},
                   {"worker.svc.relay", worker_relay}};
    pm_err err = pm_app_route_builtin(app, "worker", "rr");
    (void)ctx;
    for (size_t i = 0; i < 4 && err == PM_OK; i++)
        err = pm_app_remote(app, remotes[i].name, remotes[i].cb, NULL);
    return err;
}

static void worker_log(void *ctx, pm_log_level level, const char *module,
                       const char *line)
{
    (void)ctx;
    if (level == PM_LOG_ERROR)
        fprintf(stderr, "%s: %s\n", module, line);
}

static int worker_main(const char *id, const char *base)
{
    pm_server table[STORM_WORKERS + 1];
    pm_app_opts app = pm_app_opts_default();
    pm_run_opts opts = pm_run_opts_default();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    storm_table(table, (uint16_t)strtoul(base, NULL, 10));
    app.rpc.secret = "storm";
    app.rpc.reconnect_ms_max = 100;
    opts.servers = table;
    opts.servers_count = STORM_WORKERS + 1;
    opts.ids = id;
    opts.app = &app;
    opts.log = worker_log;
    return pm_run(&opts, worker_configure, NULL) == PM_OK ? 0 : 1;
}

/* ---- The storm --------------------------------------------------------- */

typedef struct storm storm;

typedef struct storm_call {
    storm *all;
    uint64_t due_us;
    uint32_t number;
    uint32_t told;
} storm_call;

typedef struct storm_worker {
    pid_t pid;          /* 0: none */
    uint64_t back_us;   /* started again then */
    uint64_t resume_us; /* 0: it runs */
} storm_worker;

struct storm {
    test_heap heap;
    test_world dice;
    pm_loop *loop;
    pm_app *app;
    uint16_t base;
    pm_server table[STORM_WORKERS + 1];
    storm_worker workers[STORM_WORKERS];
    storm_call *calls;
    uint32_t first, want; /* numbers of this round's calls */
    uint32_t made, open, told, refused, wrong, twice;
    uint32_t good, timed_out, closed, down, remote, other;
    uint64_t beats[2]; /* when the last two ticks were */
    uint64_t late_max_us, lag_max_us, excess_max_us;
    uint64_t next_blow_us, began_us;
    uint32_t kills, stops, starts;
    bool calm;
};

static void storm_spawn(storm *s, int i)
{
    char base[16];
    pid_t pid;
    snprintf(base, sizeof base, "%u", s->base);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "rpc_storm", "--worker", s->table[i].id, base,
              (char *)NULL);
        _exit(127);
    }
    s->workers[i].pid = pid;
    s->workers[i].resume_us = 0;
    s->starts++;
}

static void storm_kill(storm *s, int i, uint64_t now)
{
    storm_worker *w = &s->workers[i];
    kill(w->pid, SIGKILL);
    waitpid(w->pid, NULL, 0);
    w->pid = 0;
    w->back_us = now + 1000 * test_world_below(&s->dice, 800);
    s->kills++;
}

static void storm_blow(storm *s, uint64_t now)
{
    int i = (int)test_world_below(&s->dice, STORM_WORKERS);
    storm_worker *w = &s->workers[i];
    s->next_blow_us = now + 1000 * (20 + test_world_below(&s->dice, 150));
    if (!w->pid)
        return;
    if (test_world_below(&s->dice, 2)) {
        storm_kill(s, i, now);
    } else if (!w->resume_us) {
        kill(w->pid, SIGSTOP);
        w->resume_us = now + 1000 * (1 + test_world_below(&s->dice, 600));
        s->stops++;
    }
}

static void storm_restore(storm *s, uint64_t now)
{
    for (int i = 0; i < STORM_WORKERS; i++) {
        storm_worker *w = &s->workers[i];
        if (!w->pid && now >= w->back_us)
            storm_spawn(s, i);
        if (w->pid && w->resume_us && (now >= w->resume_us || s->calm)) {
            kill(w->pid, SIGCONT);
            w->resume_us = 0;
        }
    }
}

/* ---- Calls ------------------------------------------------------------- */

/* How late this loop is itself: the tick before the last one was two ticks ago,
 * if nothing held us up. */
static uint64_t storm_lag_us(const storm *s, uint64_t now)
{
    uint64_t since = now - s->beats[1], seen = pmi_loop_lag_us(s->loop);
    uint64_t own = since > 2000 ? since - 2000 : 0;
    return own > seen ? own : seen;
}

static void storm_count(storm *s, pm_err err)
{
    uint32_t *count = err == PM_OK         ? &s->good
                      : err == PM_ETIMEOUT ? &s->timed_out
                      : err == PM_ECLOSED  ? &s->closed
                      : err == PM_EDOWN    ? &s->down
                      : err == PM_EREMOTE  ? &s->remote
                                           : &s->other;
    (*count)++;
}

static void storm_told(const pm_rpc_result *result, void *ctx)
{
    storm_call *call = ctx;
    storm *s = call->all;
    uint64_t now = pmi_loop_clock_us(s->loop);
    uint64_t late = now > call->due_us ? now - call->due_us : 0;
    uint64_t lag = storm_lag_us(s, now);
    s->twice += call->told++ > 0;
    s->told++;
    s->open--;
    storm_count(s, result->err);
    if (result->err == PM_OK &&
        (result->body.data.len < sizeof call->number ||
         memcmp(result->body.data.data, &call->number, sizeof call->number)))
        s->wrong++;
    if (late > s->late_max_us)
        s->late_max_us = late;
    if (lag > s->lag_max_us)
        s->lag_max_us = lag;
    if (late > lag && late - lag > s->excess_max_us)
        s->excess_max_us = late - lag;
}

static void storm_ask(storm *s)
{
    static const char *const methods[] = {
        "worker.svc.now",   "worker.svc.now",   "worker.svc.now",
        "worker.svc.now",   "worker.svc.now",   "worker.svc.soon",
        "worker.svc.relay", "worker.svc.relay", "worker.svc.late"};
    uint8_t body[4096] = {0};
    storm_call *call = &s->calls[s->made];
    pm_rpc_opts opts = pm_rpc_opts_default();
    size_t size = test_world_below(&s->dice, 20) ? 64 : sizeof body;
    call->all = s;
    call->number = s->made++;
    memcpy(body, &call->number, sizeof call->number);
    opts.method = methods[test_world_below(&s->dice, 9)];
    opts.deadline_ms =
        30 + (uint32_t)test_world_below(&s->dice, STORM_DEADLINE_MS - 30);
    opts.args = pm_body_bytes(body, size);
    if (test_world_below(&s->dice, 2))
        opts.server_id = s->table[test_world_below(&s->dice, STORM_WORKERS)].id;
    call->due_us = pmi_loop_clock_us(s->loop) + 1000 * opts.deadline_ms;
    if (pm_rpc_call(s->app, &opts, storm_told, call, NULL) == PM_OK)
        s->open++;
    else
        s->refused++;
}

static bool storm_all_up(const storm *s)
{
    for (int i = 0; i < STORM_WORKERS; i++)
        if (!pm_server_is_up(s->app, s->table[i].id))
            return false;
    return true;
}

static void storm_tick(pm_app *app, void *ctx)
{
    storm *s = ctx;
    uint64_t now = pmi_loop_clock_us(s->loop);
    uint32_t due;
    (void)app;
    s->beats[1] = s->beats[0];
    s->beats[0] = now;
    if (!s->calm && now >= s->next_blow_us)
        storm_blow(s, now);
    storm_restore(s, now);
    due = s->first + (uint32_t)((now - s->began_us) / 1000) * STORM_PER_MS;
    while (s->made < s->want && s->made < due && s->open < STORM_OPEN_MAX)
        storm_ask(s);
    if (s->made == s->want)
        s->calm = true;
    if (s->calm && !s->open && storm_all_up(s))
        pm_loop_break(s->loop);
}

/* ---- The whole --------------------------------------------------------- */

static void storm_open(storm *s, uint32_t want)
{
    static const int offsets[STORM_WORKERS] = {0, 1, 2, 3};
    pm_loop_opts opts = pm_loop_opts_default();
    s->dice.seed = (uint64_t)getpid();
    s->base = test_free_base(offsets, STORM_WORKERS);
    storm_table(s->table, s->base);
    s->calls = calloc(want, sizeof *s->calls);
    assert_non_null(s->calls);
    opts.alloc = test_alloc(&s->heap);
    assert_ok(pm_loop_new(&s->loop, &opts));
}

static void storm_app(storm *s)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = s->loop;
    opts.servers = s->table;
    opts.servers_count = STORM_WORKERS + 1;
    opts.server_id = "driver-1";
    opts.rpc.secret = "storm";
    opts.rpc.reconnect_ms_max = 100;
    assert_ok(pm_app_new(&s->app, &opts));
    assert_ok(pm_app_route_builtin(s->app, "worker", "rr"));
    assert_ok(pm_app_start(s->app));
}

/* An app comes, asks until `want` calls have been made in all, sees everybody
 * up again, and goes. */
static void storm_round(storm *s, uint32_t want)
{
    uint64_t now = pmi_loop_clock_us(s->loop);
    s->began_us = s->beats[0] = s->beats[1] = now;
    s->next_blow_us = now + 100 * 1000;
    s->first = s->made;
    s->want = want;
    s->calm = false;
    storm_app(s);
    assert_ok(pm_app_timer(s->app, 1, 1, storm_tick, s, NULL));
    assert_ok(pm_loop_run(s->loop));
    pm_app_free(s->app);
    assert_true(pm_loop_poll(s->loop, 0) == PM_OK);
}

/* What a loop keeps for reuse is bounded. Filled to the brim it is the same
 * before and after, whatever the peak was. */
static void storm_fill_pools(pm_loop *loop)
{
    enum { CHUNKS = 1100, SEGMENTS = 4200 };
    pmi_segment_pool *pool = pmi_conn_segments(loop);
    pmi_chunk *chunks[CHUNKS];
    pmi_queue queue = {0};
    for (int i = 0; i < CHUNKS; i++)
        assert_non_null(chunks[i] = pmi_loop_chunk(loop, PMI_CHUNK_SMALL));
    chunks[0]->len = 1;
    for (int i = 0; i < SEGMENTS; i++)
        assert_ok(pmi_queue_add(&queue, pool, chunks[0], 0, false));
    pmi_queue_clear(&queue, pool);
    for (int i = 0; i < CHUNKS; i++)
        pmi_chunk_unref(chunks[i]);
}

/* Each one ends well when it is told to, and has leaked nothing. */
static int storm_end_workers(storm *s)
{
    int bad = 0;
    for (int i = 0; i < STORM_WORKERS; i++)
        kill(s->workers[i].pid, SIGTERM);
    for (int i = 0; i < STORM_WORKERS; i++) {
        int status = 0;
        waitpid(s->workers[i].pid, &status, 0);
        bad += !WIFEXITED(status) || WEXITSTATUS(status);
    }
    return bad;
}

static void storm_print(const storm *s, uint64_t took_us)
{
    printf("%u calls in %.1f s: %u answered, %u timed out, %u closed, %u down, "
           "%u failed over there, %u other, %u refused; %u kills, %u stops, "
           "%u starts; at most %.1f ms late, %.1f ms more than our loop "
           "(which was %.1f ms late)\n",
           s->made, (double)took_us / 1e6, s->good, s->timed_out, s->closed,
           s->down, s->remote, s->other, s->refused, s->kills, s->stops,
           s->starts, (double)s->late_max_us / 1e3,
           (double)s->excess_max_us / 1e3, (double)s->lag_max_us / 1e3);
    fflush(stdout);
}

static void storm_check(const storm *s)
{
    assert_int_equal(s->made, s->want);
    assert_int_equal(s->told + s->refused, s->made);
    assert_int_equal(s->twice, 0);
    assert_int_equal(s->wrong, 0);
    assert_int_equal(s->other, 0);
    assert_true(s->good > s->made / 10);
    assert_true(s->kills > 3 && s->stops > 3);
    assert_true(s->excess_max_us <= STORM_GRACE_US);
}

static void test_storm(void **state)
{
    static storm s;
    uint32_t want = getenv("PM_PROOF") ? STORM_PROOF_CALLS : STORM_CALLS;
    uint64_t began;
    size_t live;
    int bad;
    (void)state;
    storm_open(&s, STORM_WARM_CALLS + want);
    began = pmi_loop_clock_us(s.loop);
    storm_round(&s, STORM_WARM_CALLS);
    storm_fill_pools(s.loop);
    live = s.heap.live_bytes;
    storm_round(&s, STORM_WARM_CALLS + want);
    storm_print(&s, pmi_loop_clock_us(s.loop) - began);
    storm_fill_pools(s.loop);
    assert_int_equal(s.heap.live_bytes, live);
    assert_ok(pm_loop_free(s.loop));
    assert_heap_empty(&s.heap);
    bad = storm_end_workers(&s);
    storm_check(&s);
    assert_int_equal(bad, 0);
    free(s.calls);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_storm),
};

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "--worker"))
        return worker_main(argv[2], argv[3]);
    test_deadline(getenv("PM_PROOF") ? 1200 : TEST_DEADLINE_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
