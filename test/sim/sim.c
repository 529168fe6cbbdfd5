/* SPDX-License-Identifier: MIT */
/* test/sim/sim.c -- the program: plays seeds and tells which one breaks a
 * promise.
 *
 *     sim --seed 7 --verbose      one, with its trace
 *     sim --seeds 1-1000          many; the last line has one hash over all
 *
 * Start reading at sim_play() and at test/sim/sim.h. */
#include "sim.h"

#include <getopt.h>
#include <signal.h>

enum { SIM_STEPS = 800, SIM_SEED_SECONDS = 60 };

/* For the signal handler, which has no other way to know. */
static volatile sig_atomic_t sim_seed_now;

static void sim_died(int number)
{
    char line[160];
    int n = snprintf(line, sizeof line,
                     "seed %d: signal %d\nreplay: sim --seed %d --verbose\n",
                     (int)sim_seed_now, number, (int)sim_seed_now);
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        _exit(2);
    signal(number, SIG_DFL);
    raise(number);
}

/* Lets so much virtual time pass; every turn is checked. */
static void sim_pass(sim *s, uint64_t us)
{
    uint64_t end = s->world.now_us + us;
    for (uint32_t turns = 0; !s->failed; turns++) {
        uint64_t next;
        pm_loop_poll(s->loop, 0);
        sim_check_turn(s);
        next = pm_loop_next_us(s->loop);
        if (turns > 1000000)
            sim_fail(s, "the loop does not come to rest");
        if (next == 0)
            continue;
        if (s->world.now_us >= end)
            return;
        s->world.now_us =
            next < end - s->world.now_us ? s->world.now_us + next : end;
    }
}

static uint64_t sim_pause_us(sim *s)
{
    static const uint32_t pauses[] = {1, 2000, 2000, 20000, 60000};
    uint32_t what = sim_below(s, 60);
    if (what == 0)
        return 500 * 1000 + 1000 * (uint64_t)sim_below(s, 3000);
    return sim_below(s, pauses[what % 5]);
}

static void sim_storm(sim *s)
{
    for (int i = 0; i < SIM_STEPS && !s->failed; i++) {
        if (s->hungry && sim_chance(s, 50))
            s->heap.fail_at = s->heap.calls + 1 + sim_below(s, 100);
        if (sim_below(s, 1000) < 25)
            sim_town_act(s);
        else
            sim_ask_act(s);
        sim_pass(s, sim_pause_us(s));
        sim_held_tick(s, false);
        sim_town_tick(s);
    }
}

static bool sim_serves(const sim *s)
{
    return s->servers[1].exists && s->servers[4].exists;
}

/* After the last fault everything must be whole again, and work. */
static void sim_calm_down(sim *s)
{
    sim_town_heal(s);
    sim_pass(s, 12 * 1000 * 1000);
    sim_held_tick(s, true);
    sim_pass(s, 1000 * 1000);
    if (!s->failed)
        sim_town_check_whole(s);
    for (int stage = 0; stage < 3 && !s->failed && sim_serves(s); stage++) {
        s->rolling = stage > 0;
        sim_roll_call(s, stage);
        sim_pass(s, 2 * 1000 * 1000);
    }
    s->rolling = false;
    if (!s->failed)
        sim_check_all_done(s);
}

static void sim_end(sim *s)
{
    for (int i = 0; i < SIM_CLIENTS; i++)
        sim_client_end(&s->clients[i]);
    sim_pass(s, 100 * 1000);
    sim_town_end(s);
    sim_held_tick(s, true);
    if (s->failed)
        return;
    if (pm_loop_free(s->loop))
        sim_fail(s, "something still holds the loop");
    else if (s->heap.live_bytes || s->heap.live_blocks)
        sim_fail(s, "%zu bytes in %zu blocks are left",
                 (size_t)s->heap.live_bytes, (size_t)s->heap.live_blocks);
}

static void sim_begin(sim *s)
{
    pm_loop_opts opts;
    s->world.seed = s->seed;
    s->dice = ~s->seed;
    s->hash = UINT64_C(0xcbf29ce484222325);
    opts = test_world_opts(&s->world, &s->heap);
    if (pm_loop_new(&s->loop, &opts)) {
        sim_fail(s, "pm_loop_new");
        return;
    }
    pmi_loop_set_link_fault(s->loop, sim_link_fault, s);
    sim_town_plan(s);
    for (int i = SIM_SERVERS; i-- > 0;)
        if (s->servers[i].exists)
            sim_server_start(&s->servers[i]);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        s->clients[i].all = s;
        s->clients[i].index = i;
        if (i % 2 == 0)
            sim_client_start(&s->clients[i]);
    }
    sim_pass(s, 100 * 1000);
}

/* True: every promise was kept. What is left of a broken run is not freed. */
static bool sim_play(uint64_t seed, const sim_opts *opts, uint64_t *hash)
{
    sim *s = calloc(1, sizeof *s);
    bool good;
    if (!s)
        return false;
    s->opts = *opts;
    s->seed = seed;
    sim_seed_now = (int)seed;
    alarm(SIM_SEED_SECONDS);
    sim_begin(s);
    if (!s->failed)
        sim_storm(s);
    if (!s->failed)
        sim_calm_down(s);
    if (!s->failed)
        sim_end(s);
    good = !s->failed;
    *hash = s->hash;
    if (!good || opts->verbose)
        printf("seed %llu: %s after %u turns, %llu us: %u operations, %u "
               "completed, %u events, hash %016llx\n",
               (unsigned long long)seed, good ? "good" : s->why, s->steps,
               (unsigned long long)s->world.now_us, s->ops_count, s->completed,
               s->events, (unsigned long long)s->hash);
    if (!good)
        printf("replay: sim --seed %llu --verbose%s\n",
               (unsigned long long)seed,
               opts->drop_completion ? " --bug drop-completion" : "");
    fflush(stdout);
    if (good)
        free(s);
    return good;
}

static int sim_usage(FILE *to)
{
    fputs("sim -- plays a cluster from a seed, and checks what it promises\n"
          "  --seed N                 one seed\n"
          "  --seeds A-B              many; stops at the first that fails\n"
          "  --verbose                the trace\n"
          "  --bug drop-completion    lose one completion, which must show\n",
          to);
    return to == stdout ? 0 : 2;
}

static bool sim_read_options(int argc, char **argv, sim_opts *opts,
                             uint64_t range[2], int *status)
{
    static const struct option known[] = {
        {"seed", 1, NULL, 's'},    {"seeds", 1, NULL, 'm'},
        {"verbose", 0, NULL, 'v'}, {"bug", 1, NULL, 'b'},
        {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0}};
    char *end;
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 's' || c == 'm') {
            range[0] = range[1] = strtoull(optarg, &end, 10);
            if (c == 'm' && *end == '-')
                range[1] = strtoull(end + 1, NULL, 10);
        } else if (c == 'v') {
            opts->verbose = true;
        } else if (c == 'b' && !strcmp(optarg, "drop-completion")) {
            opts->drop_completion = true;
        } else {
            *status = sim_usage(c == 'h' ? stdout : stderr);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    sim_opts opts = {0};
    uint64_t range[2] = {1, 100}, all = 0, hash = 0;
    int status = 0;
    if (!sim_read_options(argc, argv, &opts, range, &status))
        return status;
#if !defined(__SANITIZE_ADDRESS__)
    signal(SIGSEGV, sim_died);
#endif
    signal(SIGILL, sim_died);
    signal(SIGTRAP, sim_died);
    signal(SIGABRT, sim_died);
    signal(SIGALRM, sim_died);
    for (uint64_t seed = range[0]; seed <= range[1]; seed++) {
        if (!sim_play(seed, &opts, &hash)) {
            fflush(stdout);
            _exit(1); /* what the broken run holds is not a leak */
        }
        all = all * 31 + hash;
    }
    printf("%llu seeds are good, hash %016llx\n",
           (unsigned long long)(range[1] - range[0] + 1),
           (unsigned long long)all);
    return 0;
}
