/* SPDX-License-Identifier: MIT */
/* soak.c -- a cluster of four processes under churn and faults, for as long as
 * is asked for. connector-2 and chat-2 are killed (-9) in turn and come back,
 * or lie still for a moment; connector-1 and chat-1 live through it all, and so
 * does this process with its clients: what they hold is looked at. Pools keep
 * what was once needed at a time; so that this is known from the beginning, it
 * begins with a crush: nobody pauses, and all three lie still again and again
 * until everything has piled up.
 *
 *   soak [--seconds N] [--kill-ms N] [--seed N] [--port-base N]
 *
 * Every five seconds one line; at the end the verdict:
 *   - the live bytes of those who live through it, in the first third of the
 *     time and in the last one (judged from 300 s on: within 2 %);
 *   - their descriptors at rest, before and after;
 *   - each call has had one answer, a right one, in time;
 *   - nobody has ended but whom we killed, and at the end each heap is empty.
 * Start reading at main(). */
#include "soak.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    CRUSH_S = 20, /* but a quarter of the time at most */
    TELL_S = 5,
    BACK_MS = 700,
    STILL_MS = 400,
    CRUSH_STILL_MS = 600,
    CRUSH_EACH_MS = 1500,
    REST_S = 20,    /* the longest until all is at rest */
    JUDGED_S = 300, /* from here on memory is judged */
    THIRDS = 3
};
enum { CONNECTOR_1, CONNECTOR_2, CHAT_1, CHAT_2, HERE, WATCHED };

typedef struct soak_process {
    pid_t pid; /* 0: none */
    int in, out;
    char line[SOAK_LINE];
    size_t line_len;
    uint64_t back_us, goes_on_us; /* 0: nothing is due */
    unsigned long stats;          /* lines that came */
    /* The last one. */
    size_t blocks, live, sessions;
    int fds;
    unsigned long long asked, told;
} soak_process;

typedef struct soak {
    int seconds, kill_ms, crush_s;
    uint16_t base;
    uint64_t seed;
    const char *program;
    soak_heap heap;
    pm_loop *loop;
    soak_people *people;
    soak_process of[SOAK_SERVERS];
    uint64_t began_us, next_fault_us, next_tell_us, next_sample_us,
        next_crush_us;
    unsigned long kills, stills, faults, crushes;
    int fds_before[WATCHED];
    double sum[THIRDS][WATCHED]; /* of live bytes */
    unsigned long samples[THIRDS];
    int passed, failed;
} soak;

static const char *const soak_names[WATCHED] = {
    "connector-1", "connector-2", "chat-1", "chat-2", "the clients"};
static const int soak_lives[] = {CONNECTOR_1, CHAT_1, HERE};
enum { LIVES = 3 };

/* ---- Processes -------------------------------------------------------------- */

static void soak_die(const char *what)
{
    fprintf(stderr, "soak: %s\n", what);
    exit(1);
}

static void soak_spawn(soak *s, int i)
{
    soak_process *p = &s->of[i];
    int in[2], out[2];
    char base[16];
    snprintf(base, sizeof base, "%u", s->base);
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        soak_die("no pipe");
    fflush(NULL);
    p->pid = fork();
    if (p->pid < 0)
        soak_die("no process");
    if (p->pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        execl("/proc/self/exe", s->program, "--server", soak_names[i], base,
              (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    p->in = in[1];
    p->out = out[0];
    p->line_len = 0;
    p->stats = 0;
    p->back_us = p->goes_on_us = 0;
}

static void soak_close(soak_process *p)
{
    close(p->in);
    close(p->out);
    p->in = p->out = -1;
    p->pid = 0;
}

static void soak_kill(soak *s, int i, uint64_t now)
{
    soak_process *p = &s->of[i];
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    soak_close(p);
    p->back_us = now + 1000 * BACK_MS;
    s->kills++;
}

/* One line of a server. */
static void soak_read_line(soak_process *p)
{
    soak_process is = *p;
    if (sscanf(p->line, "live %zu %zu fds %d asked %llu told %llu sessions %zu",
               &is.blocks, &is.live, &is.fds, &is.asked, &is.told,
               &is.sessions) != 6)
        return;
    *p = is;
    p->stats++;
}

static void soak_listen(soak_process *p)
{
    char c;
    while (p->pid && read(p->out, &c, 1) == 1) {
        if (c != '\n') {
            if (p->line_len + 1 < sizeof p->line)
                p->line[p->line_len++] = c;
            continue;
        }
        p->line[p->line_len] = 0;
        p->line_len = 0;
        soak_read_line(p);
    }
}

/* ---- Faults ------------------------------------------------------------------ */

static void soak_still(soak *s, int i, uint64_t now, int ms)
{
    kill(s->of[i].pid, SIGSTOP);
    s->of[i].goes_on_us = now + 1000 * (uint64_t)ms;
    s->stills++;
}

/* connector-2 and chat-2 in turn; every third time one only lies still. */
static void soak_fault(soak *s, uint64_t now)
{
    int i = s->faults % 2 ? CHAT_2 : CONNECTOR_2;
    soak_process *p = &s->of[i];
    s->next_fault_us = now + (uint64_t)s->kill_ms * 1000;
    if (!p->pid || p->goes_on_us)
        return;
    if (++s->faults % 3) {
        soak_kill(s, i, now);
        return;
    }
    soak_still(s, i, now, STILL_MS);
}

/* Those who live through it lie still in turn, this process too. */
static void soak_crush(soak *s, uint64_t now)
{
    enum { HERE_TOO = 2 };
    struct timespec still = {0, CRUSH_STILL_MS * 1000000};
    bool over = now >= s->began_us + (uint64_t)s->crush_s * 1000000;
    soak_people_hurry(s->people, !over);
    s->next_crush_us = over ? UINT64_MAX : now + 1000 * CRUSH_EACH_MS;
    if (over)
        return;
    if (s->crushes % 3 == HERE_TOO)
        nanosleep(&still, NULL);
    else
        soak_still(s, s->crushes % 3 ? CHAT_1 : CONNECTOR_1, now,
                   CRUSH_STILL_MS);
    s->crushes++;
}

static void soak_mend(soak *s, uint64_t now)
{
    for (int i = 0; i < SOAK_SERVERS; i++) {
        soak_process *p = &s->of[i];
        if (!p->pid && now >= p->back_us)
            soak_spawn(s, i);
        if (p->goes_on_us && now >= p->goes_on_us) {
            kill(p->pid, SIGCONT);
            p->goes_on_us = 0;
        }
    }
}

/* ---- Looking ----------------------------------------------------------------- */

static size_t soak_live(const soak *s, int i)
{
    return i == HERE ? s->heap.live : s->of[i].live;
}

static int soak_fds(const soak *s, int i)
{
    return i == HERE ? soak_descriptors() : s->of[i].fds;
}

static void soak_sample(soak *s, uint64_t now)
{
    double part = (double)(now - s->began_us) / 1e6 - s->crush_s;
    int third = (int)(part * THIRDS / (s->seconds - s->crush_s));
    s->next_sample_us = now + 500000;
    if (part < 0 || third < 0 || third >= THIRDS)
        return;
    for (int i = 0; i < WATCHED; i++)
        s->sum[third][i] += (double)soak_live(s, i);
    s->samples[third]++;
}

static void soak_tell(soak *s, uint64_t now)
{
    const soak_tally *t = soak_people_tally(s->people);
    s->next_tell_us = now + TELL_S * UINT64_C(1000000);
    printf("%5llu s  live KiB: connector-1 %zu, chat-1 %zu, clients %zu"
           "  fds: %d, %d, %d  calls %llu = answers %llu + %llu open"
           " (good %llu, refused %llu, lost %llu)  rpc %llu = %llu + %llu"
           "  pushes %llu  people %llu  strangers %llu  kills %lu\n",
           (unsigned long long)((now - s->began_us) / 1000000),
           soak_live(s, CONNECTOR_1) / 1024, soak_live(s, CHAT_1) / 1024,
           soak_live(s, HERE) / 1024, soak_fds(s, CONNECTOR_1),
           soak_fds(s, CHAT_1), soak_fds(s, HERE), (unsigned long long)t->asked,
           (unsigned long long)t->told,
           (unsigned long long)(t->asked - t->told),
           (unsigned long long)t->good, (unsigned long long)t->refused,
           (unsigned long long)t->lost, s->of[CONNECTOR_1].asked,
           s->of[CONNECTOR_1].told,
           s->of[CONNECTOR_1].asked - s->of[CONNECTOR_1].told,
           (unsigned long long)t->pushes, (unsigned long long)t->came,
           (unsigned long long)t->strangers, s->kills);
    fflush(stdout);
}

static void soak_turn(soak *s)
{
    struct timespec pause = {0, 1000000};
    pm_loop_poll(s->loop, 0);
    soak_people_turn(s->people);
    for (int i = 0; i < SOAK_SERVERS; i++)
        soak_listen(&s->of[i]);
    nanosleep(&pause, NULL);
}

/* All servers are there, nobody is with them, nothing is open; each has told of
 * it twice. False: not within the time. */
static bool soak_rests(soak *s)
{
    uint64_t ends = soak_now_us() + REST_S * UINT64_C(1000000);
    unsigned long from[SOAK_SERVERS];
    bool calm = false;
    memset(from, 0, sizeof from);
    while (soak_now_us() < ends) {
        bool rests = true;
        soak_turn(s);
        soak_mend(s, soak_now_us());
        for (int i = 0; i < SOAK_SERVERS; i++) {
            const soak_process *p = &s->of[i];
            rests = rests && p->pid && !p->sessions && p->asked == p->told &&
                    p->stats >= from[i] + 2;
        }
        if (rests && calm)
            return true;
        if (!rests)
            continue;
        /* Once more, a second later: links come back by themselves. */
        for (int i = 0; i < SOAK_SERVERS; i++)
            from[i] = s->of[i].stats;
        calm = true;
    }
    return false;
}

/* ---- The verdict ------------------------------------------------------------- */

static void soak_verdict(soak *s, bool holds, const char *name,
                         const char *detail)
{
    if (holds)
        s->passed++;
    else
        s->failed++;
    printf("  %s  %s: %s\n", holds ? "ok  " : "FAIL", name, detail);
}

static void soak_judge_memory(soak *s, int i)
{
    char detail[160];
    double first = s->samples[0] ? s->sum[0][i] / (double)s->samples[0] : 0;
    double last = s->samples[2] ? s->sum[2][i] / (double)s->samples[2] : 0;
    double percent = first > 0 ? 100 * (last - first) / first : 0;
    bool judged = s->seconds >= JUDGED_S;
    snprintf(detail, sizeof detail,
             "live bytes %.0f in the first third, %.0f in the last: %+.2f %%%s",
             first, last, percent, judged ? "" : " (too short to judge)");
    soak_verdict(s, first > 0 && (!judged || (percent < 2 && percent > -2)),
                 soak_names[i], detail);
}

static void soak_judge_descriptors(soak *s, int i)
{
    char detail[100];
    int after = soak_fds(s, i);
    snprintf(detail, sizeof detail, "descriptors %d before, %d after",
             s->fds_before[i], after);
    soak_verdict(s, after == s->fds_before[i], soak_names[i], detail);
}

static void soak_judge_calls(soak *s)
{
    const soak_tally *t = soak_people_tally(s->people);
    char detail[160];
    snprintf(detail, sizeof detail,
             "%llu calls, %llu answers, %llu late, %llu wrong",
             (unsigned long long)t->asked, (unsigned long long)t->told,
             (unsigned long long)t->late, (unsigned long long)t->wrong);
    soak_verdict(s,
                 t->asked && t->asked == t->told && !t->late && !t->wrong &&
                     t->good > t->asked / 3,
                 "calls of the clients", detail);
    for (int i = 0; i < LIVES - 1; i++) {
        const soak_process *p = &s->of[soak_lives[i]];
        snprintf(detail, sizeof detail, "%llu calls, %llu answers", p->asked,
                 p->told);
        soak_verdict(s, p->asked == p->told, soak_names[soak_lives[i]], detail);
    }
}

/* Their stdin ends: they free all they have, and say by their status whether
 * anything was left. */
static void soak_end(soak *s)
{
    for (int i = 0; i < SOAK_SERVERS; i++) {
        char detail[64];
        int status = -1;
        soak_process *p = &s->of[i];
        close(p->in);
        p->in = -1;
        waitpid(p->pid, &status, 0);
        snprintf(detail, sizeof detail, "ended with status %d", status);
        soak_verdict(s, status == 0, soak_names[i], detail);
        soak_close(p);
    }
}

static void soak_judge_ends(soak *s)
{
    char detail[100];
    for (int i = 0; i < SOAK_SERVERS; i++)
        soak_verdict(s, waitpid(s->of[i].pid, NULL, WNOHANG) == 0,
                     soak_names[i], "lives at the end");
    soak_end(s);
    soak_people_free(s->people);
    if (pm_loop_free(s->loop) != PM_OK)
        soak_verdict(s, false, "the clients", "something lives on their loop");
    snprintf(detail, sizeof detail, "%zu bytes left", s->heap.live);
    soak_verdict(s, s->heap.live == 0, "the clients", detail);
}

/* ---- The run ----------------------------------------------------------------- */

static void soak_start(soak *s)
{
    pm_loop_opts opts = pm_loop_opts_default();
    opts.alloc = soak_alloc(&s->heap);
    if (pm_loop_new(&s->loop, &opts) != PM_OK ||
        !(s->people = soak_people_new(s->loop, s->base, s->seed)))
        soak_die("no memory");
    for (int i = 0; i < SOAK_SERVERS; i++)
        soak_spawn(s, i);
}

static void soak_run(soak *s)
{
    uint64_t ends, now;
    now = s->began_us = soak_now_us();
    ends = now + (uint64_t)s->seconds * 1000000;
    s->next_fault_us = now + (uint64_t)s->kill_ms * 1000;
    s->next_tell_us = now + TELL_S * UINT64_C(1000000);
    while (now < ends) {
        soak_turn(s);
        now = soak_now_us();
        if (now >= s->next_crush_us)
            soak_crush(s, now);
        if (now >= s->next_fault_us)
            soak_fault(s, now);
        soak_mend(s, now);
        if (now >= s->next_sample_us)
            soak_sample(s, now);
        if (now >= s->next_tell_us)
            soak_tell(s, now);
    }
}

/* The one place where people are let in late: the rest before they come. */
static bool soak_rest_before(soak *s)
{
    soak_people *people = s->people;
    soak_people *nobody = soak_people_new(s->loop, s->base, 0);
    bool rests;
    if (!nobody)
        soak_die("no memory");
    soak_people_leave(nobody);
    s->people = nobody;
    rests = soak_rests(s);
    s->people = people;
    soak_people_free(nobody);
    for (int i = 0; i < WATCHED; i++)
        s->fds_before[i] = soak_fds(s, i);
    return rests;
}

static long soak_option(int argc, char **argv, const char *name, long other)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return strtol(argv[i + 1], NULL, 10);
    return other;
}

int main(int argc, char **argv)
{
    static soak s;
    bool rested;
    if (argc == 4 && !strcmp(argv[1], "--server"))
        return soak_server(argv[2], (uint16_t)strtol(argv[3], NULL, 10));
    if (argc % 2 == 0) {
        fprintf(stderr,
                "usage: %s [--seconds N] [--kill-ms N] [--seed N]"
                " [--port-base N]\n",
                argv[0]);
        return strcmp(argv[1], "--help") ? 2 : 0;
    }
    s.program = argv[0];
    s.seconds = (int)soak_option(argc, argv, "--seconds", 60);
    s.crush_s = s.seconds / 4 < CRUSH_S ? s.seconds / 4 : CRUSH_S;
    s.kill_ms = (int)soak_option(argc, argv, "--kill-ms", 3000);
    s.seed = (uint64_t)soak_option(argc, argv, "--seed", 1);
    s.base = (uint16_t)soak_option(argc, argv, "--port-base",
                                   15000 + getpid() % 12000);
    soak_start(&s);
    if (!soak_rest_before(&s))
        soak_die("the cluster does not start");
    soak_run(&s);
    soak_people_leave(s.people);
    rested = soak_rests(&s);
    soak_tell(&s, soak_now_us());
    soak_verdict(&s, rested, "rest", "everybody has gone, nothing is open");
    for (int i = 0; i < LIVES; i++)
        soak_judge_memory(&s, soak_lives[i]);
    for (int i = 0; i < LIVES; i++)
        soak_judge_descriptors(&s, soak_lives[i]);
    soak_judge_calls(&s);
    soak_judge_ends(&s);
    printf("%d passed, %d failed\n", s.passed, s.failed);
    return s.failed ? 1 : 0;
}
