/* SPDX-License-Identifier: MIT */
/* test/test_chat_processes.c -- the program of examples/chat as one process, as
 * two and as seven: its clients hear the same, byte for byte, and each process
 * ends well when it is told to. */
#define TEST_PUBLIC
#include "chat_talk.h"
#include "ports.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define PLAY_PROCESSES_MAX 7

/* What the ports of the table are moved from 3000 by: gate, connectors, their
 * and the chat servers' rpc ports. */
static const int play_offsets[] = {14,   50,   51,   52,   1050,
                                   1051, 1052, 3050, 3051, 3052};

typedef struct play {
    talk talk;
    const char *ids[PLAY_PROCESSES_MAX]; /* NULL: every server */
    pid_t pids[PLAY_PROCESSES_MAX];
    int said[PLAY_PROCESSES_MAX]; /* their stdout */
    int count;
} play;

/* ---- Processes --------------------------------------------------------- */

static void play_exec(const char *name, char **argv)
{
    const char *build = getenv("PM_BUILD");
    char program[512];
    snprintf(program, sizeof program, "%s/examples/%s/%s",
             build ? build : "build", name, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever becomes of the test */
    argv[0] = program;
    execv(program, argv);
    fprintf(stderr, "%s can not be run\n", program);
    _exit(127);
}

static void play_exec_chat(const play *p, const char *ids)
{
    char base[16], chosen[256];
    char *argv[] = {NULL, "--port-base", base,   "--web-port",
                    "0",  "--id",        chosen, NULL};
    snprintf(base, sizeof base, "%u", (unsigned)p->talk.base);
    snprintf(chosen, sizeof chosen, "%s", ids ? ids : "");
    if (!ids)
        argv[5] = NULL;
    play_exec("chat", argv);
}

static void play_spawn(play *p, const char *ids)
{
    int ends[2];
    pid_t pid;
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        for (int i = 0; i < p->count; i++)
            close(p->said[i]);
        play_exec_chat(p, ids);
    }
    close(ends[1]);
    p->ids[p->count] = ids;
    p->pids[p->count] = pid;
    p->said[p->count++] = ends[0];
}

static size_t play_times(const char *text, const char *word)
{
    size_t n = 0;
    while ((text = strstr(text, word))) {
        text += strlen(word);
        n++;
    }
    return n;
}

/* Reads what a process says until all its servers serve: one that was chosen
 * by its id says when it sees the others. */
static void play_until_ready(const play *p, int i)
{
    const char *word = p->ids[i] ? ": all servers are up\n" : "open http://";
    size_t wanted = p->ids[i] ? 1 + play_times(p->ids[i], ",") : 1;
    char text[4096] = "";
    size_t len = 0;
    while (play_times(text, word) < wanted) {
        ssize_t n = read(p->said[i], text + len, sizeof text - 1 - len);
        if (n <= 0)
            fail_msg("a process ended at once, saying \"%s\"", text);
        len += (size_t)n;
        text[len] = 0;
    }
}

static void play_end(play *p)
{
    int status[PLAY_PROCESSES_MAX];
    for (int i = 0; i < p->count; i++)
        kill(p->pids[i], SIGTERM);
    for (int i = 0; i < p->count; i++) {
        assert_int_equal(waitpid(p->pids[i], &status[i], 0), p->pids[i]);
        close(p->said[i]);
    }
    for (int i = 0; i < p->count; i++)
        assert_int_equal(status[i], 0);
}

/* Fifty users by three connectors on three chat servers: each hears all, once.
 * The program counts, and tells by its status. */
static void play_bots(const play *p)
{
    char gate[16];
    char *argv[] = {NULL,     "--users", "50",          "--seconds", "1",
                    "--rate", "20",      "--gate-port", gate,        NULL};
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    snprintf(gate, sizeof gate, "%d", p->talk.base + TALK_GATE);
    if (pid == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        play_exec("bots", argv);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- Played ------------------------------------------------------------ */

static void play_wait(talk *t)
{
    assert_ok(pm_loop_run(t->loop));
}

/* `ids` end with NULL; none at all: one process for every server. */
static void play_run(play *p, uint16_t base, const char *const *ids, bool bots)
{
    memset(p, 0, sizeof *p);
    p->talk.base = base;
    p->talk.wait = play_wait;
    assert_ok(pm_loop_new(&p->talk.loop, NULL));
    if (!*ids)
        play_spawn(p, NULL);
    for (; *ids; ids++)
        play_spawn(p, *ids);
    for (int i = 0; i < p->count; i++)
        play_until_ready(p, i);
    talk_play(&p->talk);
    if (bots)
        play_bots(p);
    assert_ok(pm_loop_free(p->talk.loop));
    play_end(p);
}

static void play_compare(const play *a, const play *b)
{
    for (int i = 0; i < TALKERS; i++) {
        assert_true(a->talk.talkers[i].len > 100);
        assert_string_equal(a->talk.talkers[i].heard, b->talk.talkers[i].heard);
    }
}

static void test_processes_sound_alike(void **state)
{
    static const char *const one[] = {NULL};
    static const char *const two[] = {
        "connector-server-1,chat-server-2,gate-server-1,chat-server-3",
        "chat-server-1,connector-server-2,connector-server-3", NULL};
    static const char *const seven[] = {
        "gate-server-1",      "connector-server-1",
        "connector-server-2", "connector-server-3",
        "chat-server-1",      "chat-server-2",
        "chat-server-3",      NULL};
    static play a, b;
    uint16_t base = test_free_base(play_offsets,
                                   sizeof play_offsets / sizeof *play_offsets);
    (void)state;
    play_run(&a, base, one, false);
    play_run(&b, base, two, false);
    play_compare(&a, &b);
    play_run(&b, base, seven, true);
    play_compare(&a, &b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_processes_sound_alike),
};

TEST_MAIN(tests)
