/* SPDX-License-Identifier: MIT */
/* test/bench/trial.h -- what overload.c and slowloris.c share: a server in a
 * process of its own, plain sockets, times, and verdicts. Header only. */
#ifndef BENCH_TRIAL_H
#define BENCH_TRIAL_H

#include "pomelo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- Verdicts ------------------------------------------------------------ */
typedef struct trial_tally {
    int passed, failed;
} trial_tally;

__attribute__((format(printf, 3, 4))) static inline void
trial_check(trial_tally *tally, bool good, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(good ? "  ok    " : "  FAIL  ", stdout);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    if (good)
        tally->passed++;
    else
        tally->failed++;
}

static inline int trial_total(const trial_tally *tally)
{
    printf("%d passed, %d failed\n", tally->passed, tally->failed);
    return tally->failed ? 1 : 0;
}

static inline void trial_die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- Times --------------------------------------------------------------- */
static inline uint64_t trial_clock_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline uint64_t trial_now_us(void)
{
    return trial_clock_us(CLOCK_MONOTONIC);
}

/* Microseconds, kept one by one. Start from {0}. */
typedef struct trial_times {
    uint32_t *us; /* owned */
    size_t count, room;
} trial_times;

static inline void trial_times_add(trial_times *times, uint64_t us)
{
    if (times->count == times->room) {
        times->room = times->room ? times->room * 2 : 4096;
        times->us = realloc(times->us, times->room * sizeof *times->us);
        if (!times->us)
            trial_die("memory");
    }
    times->us[times->count++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static inline int trial_times_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Milliseconds; 1: the largest. Sorts. */
static inline double trial_times_ms(trial_times *times, double quantile)
{
    size_t at;
    if (!times->count)
        return 0;
    qsort(times->us, times->count, sizeof *times->us, trial_times_compare);
    at = (size_t)(quantile * (double)times->count);
    return times->us[at < times->count ? at : times->count - 1] / 1000.0;
}

/* ---- Processes ----------------------------------------------------------- */
/* From here on, and for processes that we start: in front of others on the
 * machine, where that is allowed; 2 goes in front of 1. */
static inline void trial_hurry(int level)
{
    struct sched_param param = {.sched_priority = level};
    sched_setscheduler(0, SCHED_RR, &param);
}

/* Where there are several cores: this one of those that the process had when
 * it first asked. (A child of one who is pinned inherits a single core.) */
static inline void trial_pin(int core)
{
    static cpu_set_t all;
    cpu_set_t one;
    int seen = 0;
    if (!CPU_COUNT(&all) && sched_getaffinity(0, sizeof all, &all))
        return;
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all) && seen++ == core)
            CPU_SET(i, &one);
    if (CPU_COUNT(&all) > 1 && CPU_COUNT(&one) &&
        sched_setaffinity(0, sizeof one, &one))
        trial_die("sched_setaffinity");
}

static inline void trial_descriptors(size_t need)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < need) {
        limit.rlim_cur = need < limit.rlim_max ? need : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < need)
        trial_die("open files");
}

typedef struct trial_server {
    pid_t pid;
    uint16_t port;
} trial_server;

/* One frontend, pinned to the second core, that ends with us. */
static inline trial_server trial_start(const pm_limits *limits,
                                       double heartbeat_s, const char *route,
                                       pm_handler_cb cb)
{
    trial_server self = {0, 0};
    pm_server table = {.id = "connector-1",
                       .type = "connector",
                       .host = "127.0.0.1",
                       .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    int ends[2];
    if (pipe(ends) || (self.pid = fork()) < 0)
        trial_die("a server");
    if (self.pid > 0) {
        close(ends[1]);
        if (read(ends[0], &self.port, sizeof self.port) != sizeof self.port)
            trial_die("the server");
        close(ends[0]);
        return self;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    trial_pin(1);
    opts.servers = &table;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    opts.limits = *limits;
    opts.connector.heartbeat_s = heartbeat_s;
    if (pm_loop_new(&opts.loop, NULL) || pm_app_new(&app, &opts) ||
        pm_app_handler(app, route, cb, NULL) || pm_app_start(app))
        _exit(1);
    self.port = pm_app_client_port(app);
    if (write(ends[1], &self.port, sizeof self.port) != sizeof self.port)
        _exit(1);
    pm_loop_run(opts.loop);
    _exit(0);
}

static inline void trial_stop(const trial_server *self)
{
    kill(self->pid, SIGKILL);
    waitpid(self->pid, NULL, 0);
}

static inline uint64_t trial_cpu_us(const trial_server *self)
{
    clockid_t clock;
    return clock_getcpuclockid(self->pid, &clock) ? 0 : trial_clock_us(clock);
}

/* ---- Sockets ------------------------------------------------------------- */
static inline int trial_connect(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        trial_die("connecting");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* A few bytes, which always fit. False: the connection has gone. */
static inline bool trial_send(int fd, const void *data, size_t len)
{
    return send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* Handshake, its answer, ACK, the first heartbeat. */
static inline void trial_shake(int fd)
{
    static const char hello[] = "\1\0\0\12{\"sys\":{}}", ack[] = "\2\0\0";
    char room[1024];
    struct timeval patience = {20, 0};
    fcntl(fd, F_SETFL, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!trial_send(fd, hello, sizeof hello - 1) ||
        recv(fd, room, sizeof room, 0) <= 4 ||
        !trial_send(fd, ack, sizeof ack) || recv(fd, room, 4, MSG_WAITALL) != 4)
        trial_die("the handshake");
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

#endif
