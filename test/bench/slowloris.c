/* SPDX-License-Identifier: MIT */
/* test/bench/slowloris.c -- many who take their time, and one who does not.
 *
 * Three kinds of clients open thousands of connections and send a byte a
 * second: of a handshake, of a package after a good handshake, of a WebSocket
 * upgrade. Another one asks for echoes at moments that were fixed before, and
 * its times count from those. With and without the slow ones in turn, in one
 * run: its p99 must be the same, and each slow one must be closed when its time
 * is over, neither earlier nor later.
 * Ends with "N passed, N failed". Start reading at main. */
#include "trial.h"

#include <getopt.h>
#include <sys/epoll.h>

enum {
    SLOW_HANDSHAKE_MS = 2000,
    SLOW_BEAT_MS = 1000, /* closed after two of them */
    SLOW_LATE_MS = 1000, /* a machine has others to serve */
    SLOW_OPEN_MS = 1000, /* in which all are opened */
    SLOW_TICK_MS = 1,
    SLOW_TICKS = 1000 / SLOW_TICK_MS,
    SLOW_ECHOES = 8,     /* connections of the good one */
    SLOW_ECHO_US = 2000, /* one request each, in turn */
    SLOW_ROUNDS_MAX = 50
};

#define SLOW_ROUTE "connector.h.echo"

typedef enum slow_form {
    SLOW_HANDSHAKE,
    SLOW_PACKAGE,
    SLOW_UPGRADE,
    SLOW_FORMS
} slow_form;

static const char *const slow_names[] = {"half a handshake", "half a package",
                                         "half a WebSocket upgrade"};

typedef struct slow_result {
    uint32_t opened, closed, early, late;
    uint64_t first_us, last_us; /* until it was closed */
} slow_result;

typedef struct slow_conn {
    int fd; /* -1: not open */
    slow_form form;
    uint32_t at; /* of its bytes */
    uint64_t since_us;
} slow_conn;

typedef struct slow {
    trial_server server;
    slow_conn *conns; /* owned */
    size_t count, opened, closed;
    int epoll;
    slow_result results[SLOW_FORMS];
} slow;

/* ---- The slow ones, in a process of their own ---------------------------- */

static void slow_gone(slow *self, slow_conn *conn)
{
    static const uint64_t limits_us[] = {SLOW_HANDSHAKE_MS * 1000,
                                         SLOW_BEAT_MS * 2000,
                                         SLOW_HANDSHAKE_MS * 1000};
    slow_result *result = &self->results[conn->form];
    uint64_t took = trial_now_us() - conn->since_us;
    uint64_t limit = limits_us[conn->form];
    close(conn->fd);
    conn->fd = -1;
    self->closed++;
    result->closed++;
    result->early += took + 50000 < limit;
    result->late += took > limit + SLOW_LATE_MS * 1000;
    if (!result->first_us || took < result->first_us)
        result->first_us = took;
    if (took > result->last_us)
        result->last_us = took;
}

static void slow_drip(slow *self, slow_conn *conn)
{
    static const char handshake[] =
        "\1\0\0\377{\"sys\":{},\"user\":{\"name\":\"";
    static const char package[] = "\4\0\0\377\0\1\20" SLOW_ROUTE "{\"name\":\"";
    static const char upgrade[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-";
    static const char *const texts[] = {handshake, package, upgrade};
    static const size_t sizes[] = {sizeof handshake - 1, sizeof package - 1,
                                   sizeof upgrade - 1};
    /* Before its ACK the second kind is a good client. */
    if (conn->form == SLOW_PACKAGE && !conn->at)
        return;
    if (!trial_send(conn->fd, texts[conn->form] + conn->at % sizes[conn->form],
                    1))
        slow_gone(self, conn);
    else
        conn->at++;
}

static void slow_open(slow *self)
{
    static const char hello[] = "\1\0\0\12{\"sys\":{}}";
    slow_conn *conn = &self->conns[self->opened];
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = conn}};
    conn->form = (slow_form)(self->opened++ % SLOW_FORMS);
    conn->since_us = trial_now_us();
    conn->fd = trial_connect(self->server.port);
    self->results[conn->form].opened++;
    epoll_ctl(self->epoll, EPOLL_CTL_ADD, conn->fd, &event);
    if (conn->form == SLOW_PACKAGE)
        trial_send(conn->fd, hello, sizeof hello - 1);
    else
        slow_drip(self, conn);
}

static void slow_hear(slow *self, slow_conn *conn)
{
    static const char ack[] = "\2\0\0";
    char room[4096];
    ssize_t n = recv(conn->fd, room, sizeof room, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        slow_gone(self, conn);
    } else if (n > 0 && conn->form == SLOW_PACKAGE && !conn->at) {
        conn->since_us = trial_now_us();
        trial_send(conn->fd, ack, sizeof ack);
        trial_send(conn->fd, "\4", 1);
        conn->at = 1;
    }
}

/* A thousandth of them drips in each tick: each one once a second. */
static void slow_tick(slow *self, uint64_t tick)
{
    uint64_t due = (tick + 1) * self->count * SLOW_TICK_MS / SLOW_OPEN_MS;
    struct epoll_event events[256];
    int n;
    while (self->opened < self->count && self->opened < due)
        slow_open(self);
    for (size_t i = tick % SLOW_TICKS; i < self->opened; i += SLOW_TICKS)
        if (self->conns[i].fd >= 0)
            slow_drip(self, &self->conns[i]);
    do {
        n = epoll_wait(self->epoll, events, 256, 0);
        for (int i = 0; i < n; i++)
            if (((slow_conn *)events[i].data.ptr)->fd >= 0)
                slow_hear(self, events[i].data.ptr);
    } while (n == 256);
}

static void slow_attack(slow *self, int out)
{
    uint64_t began = trial_now_us(), give_up = began + 20 * 1000000;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->conns = calloc(self->count, sizeof *self->conns);
    if (self->epoll < 0 || !self->conns)
        trial_die("memory");
    for (uint64_t tick = 0;
         self->closed < self->count && trial_now_us() < give_up; tick++) {
        uint64_t next = began + (tick + 1) * SLOW_TICK_MS * 1000, now;
        slow_tick(self, tick);
        now = trial_now_us();
        if (now < next)
            usleep((useconds_t)(next - now));
    }
    if (write(out, self->results, sizeof self->results) != sizeof self->results)
        _exit(1);
    _exit(0);
}

/* Returns the end that tells the results when all are closed. */
static int slow_begin(slow *self, pid_t *pid)
{
    int ends[2];
    if (pipe(ends) || (*pid = fork()) < 0)
        trial_die("a process");
    if (!*pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        trial_hurry(1);
        slow_attack(self, ends[1]);
    }
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return ends[0];
}

/* ---- The good one -------------------------------------------------------- */

typedef struct slow_echo {
    int fd;
    uint64_t due_us; /* 0: answered */
    uint64_t beat_us;
} slow_echo;

static void slow_echo_hear(slow_echo *echo, trial_times *times)
{
    uint8_t room[4096];
    ssize_t n = recv(echo->fd, room, sizeof room, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        trial_die("the good client is closed");
    /* Answers are small and come whole; heartbeats are four bytes. */
    for (ssize_t at = 0; n - at >= 4; at += 4 + room[at + 3])
        if (room[at] == 4 && echo->due_us) {
            trial_times_add(times, trial_now_us() - echo->due_us);
            echo->due_us = 0;
        }
}

static void slow_echo_ask(slow_echo *echo, uint64_t due)
{
    static const char package[] = "\4\0\0\33\0\1\20" SLOW_ROUTE "{\"n\":12}";
    static const char beat[] = "\3\0\0";
    if (echo->beat_us <= due) {
        trial_send(echo->fd, beat, sizeof beat);
        echo->beat_us = due + SLOW_BEAT_MS * 500;
    }
    if (echo->due_us)
        return; /* its time runs on */
    echo->due_us = due;
    trial_send(echo->fd, package, sizeof package - 1);
}

/* Until `done` says something, or for so many seconds. Returns the p99 in
 * milliseconds. */
static double slow_echoes(slow_echo *echoes, double secs, int done,
                          slow_result *results)
{
    uint64_t began = trial_now_us(), due = began, sent = 0;
    uint64_t end = began + (uint64_t)(secs * 1e6);
    struct epoll_event event = {.events = EPOLLIN}, ready[SLOW_ECHOES];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    trial_times times = {0};
    double p99;
    for (int i = 0; i < SLOW_ECHOES; i++) {
        event.data.ptr = &echoes[i];
        epoll_ctl(epoll, EPOLL_CTL_ADD, echoes[i].fd, &event);
    }
    for (;;) {
        uint64_t now = trial_now_us();
        int n;
        for (; due <= now; due += SLOW_ECHO_US)
            slow_echo_ask(&echoes[sent++ % SLOW_ECHOES], due);
        n = epoll_wait(epoll, ready, SLOW_ECHOES, 1);
        for (int i = 0; i < n; i++)
            slow_echo_hear(ready[i].data.ptr, &times);
        if (done < 0 ? now >= end
                     : read(done, results, SLOW_FORMS * sizeof *results) > 0)
            break;
    }
    close(epoll);
    p99 = trial_times_ms(&times, .99);
    free(times.us);
    return p99;
}

static void slow_on_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

/* ---- All ----------------------------------------------------------------- */

static int slow_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double slow_median(double *list, int count)
{
    qsort(list, (size_t)count, sizeof *list, slow_compare);
    return (list[(count - 1) / 2] + list[count / 2]) / 2;
}

static void slow_add(slow_result *sum, const slow_result *one)
{
    sum->opened += one->opened;
    sum->closed += one->closed;
    sum->early += one->early;
    sum->late += one->late;
    if (!sum->first_us || (one->first_us && one->first_us < sum->first_us))
        sum->first_us = one->first_us;
    if (one->last_us > sum->last_us)
        sum->last_us = one->last_us;
}

static int slow_verdicts(const slow_result *sums, double quiet, double busy,
                         double slack)
{
    trial_tally tally = {0, 0};
    for (int i = 0; i < SLOW_FORMS; i++) {
        const slow_result *sum = &sums[i];
        trial_check(
            &tally,
            sum->opened && sum->closed == sum->opened && !sum->early &&
                !sum->late,
            "%s: %u of %u closed, after %.2f to %.2f s (%.1f s, at most "
            "%.1f s late)",
            slow_names[i], sum->closed, sum->opened,
            (double)sum->first_us / 1e6, (double)sum->last_us / 1e6,
            i == SLOW_PACKAGE ? SLOW_BEAT_MS / 500.0
                              : SLOW_HANDSHAKE_MS / 1000.0,
            SLOW_LATE_MS / 1000.0);
    }
    trial_check(&tally, busy <= quiet * 1.2 || busy <= quiet + slack,
                "an echo's p99 is %.2f ms without them, %.2f ms with them (20 "
                "%% more, or %.1f ms)",
                quiet, busy, slack);
    return trial_total(&tally);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"count", required_argument, NULL, 'c'},
        {"rounds", required_argument, NULL, 'r'},
        {"slack", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    pm_limits limits = {.handshake_ms = SLOW_HANDSHAKE_MS};
    slow_result sums[SLOW_FORMS] = {{0}}, one[SLOW_FORMS];
    double quiet[SLOW_ROUNDS_MAX], busy[SLOW_ROUNDS_MAX], slack = .3;
    slow_echo echoes[SLOW_ECHOES] = {{0}};
    int rounds = 5, option;
    slow self = {.count = 1000};
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            self.count = (size_t)atoi(optarg);
        else if (option == 'r')
            rounds = atoi(optarg);
        else if (option == 's')
            slack = strtod(optarg, NULL);
        else {
            puts("usage: slowloris [--count N (1000)] [--rounds N (5)] "
                 "[--slack MS (0.3)]\n  N connections of each of three kinds, "
                 "again and again");
            return option == 'h' ? 0 : 2;
        }
    }
    rounds = rounds < 1 || rounds > SLOW_ROUNDS_MAX ? 1 : rounds;
    self.count *= SLOW_FORMS;
    trial_descriptors(self.count + 100);
    trial_hurry(2);
    self.server =
        trial_start(&limits, SLOW_BEAT_MS / 1e3, SLOW_ROUTE, slow_on_echo);
    trial_pin(0);
    for (int i = 0; i < SLOW_ECHOES; i++) {
        echoes[i].fd = trial_connect(self.server.port);
        trial_shake(echoes[i].fd);
    }
    printf(
        "%zu slow connections of each kind, a byte a second\n%8s %16s %16s\n",
        self.count / SLOW_FORMS, "round", "p99 without, ms", "p99 with, ms");
    for (int i = 0; i < rounds; i++) {
        pid_t pid;
        int done;
        quiet[i] = slow_echoes(echoes, (SLOW_OPEN_MS + SLOW_HANDSHAKE_MS) / 1e3,
                               -1, NULL);
        done = slow_begin(&self, &pid);
        busy[i] = slow_echoes(echoes, 0, done, one);
        waitpid(pid, NULL, 0);
        close(done);
        printf("%8d %16.2f %16.2f\n", i + 1, quiet[i], busy[i]);
        fflush(stdout);
        for (int form = 0; form < SLOW_FORMS; form++)
            slow_add(&sums[form], &one[form]);
    }
    trial_stop(&self.server);
    return slow_verdicts(sums, slow_median(quiet, rounds),
                         slow_median(busy, rounds), slack);
}
