/* SPDX-License-Identifier: MIT */
/* test/bench/loadgen.c -- a load generator for Pomelo's client protocol.
 *
 * One thread on plain epoll, with nothing of the library it measures. Four
 * kinds of work: echo (a closed loop), fanout (one sends, all members get it),
 * connect (open, hold, read the memory), call (one request). Prints one line
 * of JSON; exits 1 when anything was not as it should be. Start at main. */
#include "loadgen.h"

#include <errno.h>
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { LOAD_PATIENCE_S = 20 };

static int load_help(int status)
{
    fputs(
        "usage: loadgen echo|fanout|connect|call --port N [options]\n"
        "  --conns N     connections, members (64)\n"
        "  --window N    requests outstanding on each; fanout: messages under "
        "way (1)\n"
        "  --route R     what is asked\n"
        "  --body N      bytes of a body (64)\n"
        "  --raw         plain bytes instead of {\"p\":\"...\"}\n"
        "  --ws          by WebSocket\n"
        "  --no-dict     routes as text\n"
        "  --secs S      measured (2); connect: held\n"
        "  --warmup S    in front of it (0.5)\n"
        "  --pid P[,P]   the servers' processes: CPU and memory\n"
        "  --first N     connect: others have opened N before (0)\n"
        "  --text JSON   body of a call\n",
        status ? stderr : stdout);
    return status;
}

/* ---- Work ---------------------------------------------------------------- */

static void load_run_for(load *self, double secs)
{
    uint64_t end = load_now_ns() + (uint64_t)(secs * 1e9), now;
    while ((now = load_now_ns()) < end) {
        uint64_t left_ms = (end - now) / 1000000;
        load_turn(self, left_ms > 100 ? 100 : (int)left_ms);
    }
}

/* Opens all, a limited number of them at a time. Returns the seconds. */
static double load_open_all(load *self)
{
    uint64_t from = load_now_ns();
    while (self->ready < self->conns_count && !self->bad) {
        while (self->opened < self->conns_count &&
               self->opened - self->ready < self->opening_max) {
            load_open(self, &self->conns[self->opened]);
            self->opened++;
        }
        load_turn(self, 100);
        if (load_now_ns() - from > (uint64_t)LOAD_PATIENCE_S * 1000000000 &&
            self->mode != LOAD_CONNECT)
            load_die("only %u connections are ready", self->ready);
    }
    return (double)(load_now_ns() - from) / 1e9;
}

/* What was sent and not answered; waited for. */
static uint64_t load_drain(load *self)
{
    uint64_t from = load_now_ns(), lost;
    self->draining = true;
    do {
        lost = self->flight_open;
        for (uint32_t i = 0; i < self->conns_count; i++)
            lost += self->conns[i].waiting;
        if (lost)
            load_turn(self, 20);
    } while (lost &&
             load_now_ns() - from < (uint64_t)LOAD_PATIENCE_S * 1000000000);
    return lost;
}

static void load_connect(load *self)
{
    long rss_kb = load_pids_rss_kb(self);
    double cpu_us = load_pids_cpu_us(self);
    double secs = load_open_all(self);
    load_run_for(self, 0.05); /* the last ACKs arrive */
    cpu_us = load_pids_cpu_us(self) - cpu_us;
    load_run_for(self, self->secs);
    printf("{\"rate\":%.0f,\"cpu_us\":%.3f,\"p50_us\":%.0f,\"p99_us\":%.0f,"
           "\"rss_kb\":%ld,\"bytes\":%.0f",
           self->ready / secs, cpu_us / self->conns_count,
           load_times_us(&self->times, .5), load_times_us(&self->times, .99),
           load_pids_rss_kb(self),
           (double)(load_pids_rss_kb(self) - rss_kb) * 1024 /
               self->conns_count);
}

static void load_call(load *self)
{
    double cpu_us;
    load_open_all(self);
    cpu_us = load_pids_cpu_us(self);
    if (self->ready)
        load_send_text(self, &self->conns[0], self->route, self->route_code,
                       self->text);
    while (self->ready && !self->reply)
        load_turn(self, 100);
    printf("{\"cpu_us\":%.0f,\"rss_kb\":%ld,\"reply\":%s",
           load_pids_cpu_us(self) - cpu_us, load_pids_rss_kb(self),
           self->reply ? self->reply : "null");
}

static void load_loop(load *self)
{
    uint64_t lost, from, now;
    double cpu_us, secs;
    load_open_all(self);
    now = load_now_ns();
    for (uint32_t w = 0; w < self->window; w++)
        if (self->mode == LOAD_FANOUT)
            load_send_fanout(self, &self->conns[0], now);
        else
            for (uint32_t i = 0; i < self->conns_count; i++)
                load_send_echo(self, &self->conns[i], now);
    load_run_for(self, self->warmup);
    from = load_now_ns();
    cpu_us = load_pids_cpu_us(self);
    self->measuring = true;
    load_run_for(self, self->secs);
    self->measuring = false;
    cpu_us = load_pids_cpu_us(self) - cpu_us;
    secs = (double)(load_now_ns() - from) / 1e9;
    lost = load_drain(self);
    for (uint32_t i = 0; self->mode == LOAD_FANOUT && i < self->conns_count;
         i++)
        if (self->conns[i].pushes != self->flight_seq)
            load_bad(self, "member %u got %llu of %u pushes", i,
                     (unsigned long long)self->conns[i].pushes,
                     self->flight_seq);
    if (lost)
        load_bad(self, "%llu answers are lost", (unsigned long long)lost);
    printf("{\"rate\":%.0f,\"cpu_us\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"rss_kb\":%ld",
           (double)self->done / secs,
           self->done ? cpu_us / (double)self->done : 0,
           load_times_us(&self->times, .5), load_times_us(&self->times, .99),
           load_pids_rss_kb(self));
}

/* ---- Options and storage ------------------------------------------------- */

static void load_pids(load *self, const char *text)
{
    char *end;
    for (; *text && self->pids_count < LOAD_PIDS_MAX; text = end) {
        self->pids[self->pids_count++] = (int)strtol(text, &end, 10);
        if (*end == ',')
            end++;
        else if (*end || end == text)
            load_die("--pid: numbers and commas, please");
    }
}

static bool load_option(load *self, int option, const char *text)
{
    unsigned long number = text ? strtoul(text, NULL, 10) : 0;
    switch (option) {
    case 'p':
        self->port = (uint16_t)number;
        break;
    case 'c':
        self->conns_count = (uint32_t)number;
        break;
    case 'w':
        self->window = (uint32_t)number;
        break;
    case 'r':
        self->route = text;
        break;
    case 'b':
        self->body_len = (uint32_t)number;
        break;
    case 'R':
        self->raw = true;
        break;
    case 'W':
        self->ws = true;
        break;
    case 'D':
        self->no_dict = true;
        break;
    case 's':
        self->secs = strtod(text, NULL);
        break;
    case 'u':
        self->warmup = strtod(text, NULL);
        break;
    case 'P':
        load_pids(self, text);
        break;
    case 'f':
        self->first = (uint32_t)number;
        break;
    case 't':
        self->text = text;
        break;
    default:
        return false;
    }
    return true;
}

static const struct option load_options[] = {
    {"port", required_argument, NULL, 'p'},
    {"conns", required_argument, NULL, 'c'},
    {"window", required_argument, NULL, 'w'},
    {"route", required_argument, NULL, 'r'},
    {"body", required_argument, NULL, 'b'},
    {"raw", no_argument, NULL, 'R'},
    {"ws", no_argument, NULL, 'W'},
    {"no-dict", no_argument, NULL, 'D'},
    {"secs", required_argument, NULL, 's'},
    {"warmup", required_argument, NULL, 'u'},
    {"pid", required_argument, NULL, 'P'},
    {"first", required_argument, NULL, 'f'},
    {"text", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

/* -1: go on; else the status to exit with. */
static int load_args(load *self, int argc, char **argv)
{
    static const char *const modes[] = {"echo", "fanout", "connect", "call"};
    static const char *const routes[] = {
        "connector.entryHandler.echo", "chat.chatHandler.send",
        "connector.entryHandler.echo", "connector.entryHandler.echo"};
    int option, mode = -1;
    while ((option = getopt_long(argc, argv, "", load_options, NULL)) != -1)
        if (option == 'h')
            return load_help(0);
        else if (!load_option(self, option, optarg))
            return load_help(2);
    for (int i = 0; optind == argc - 1 && i < 4; i++)
        if (!strcmp(argv[optind], modes[i]))
            mode = i;
    if (mode < 0 || !self->port || !self->conns_count || !self->window ||
        self->window > LOAD_FLIGHT / 2)
        return load_help(2);
    self->mode = (load_mode)mode;
    if (!self->route)
        self->route = self->raw && mode == LOAD_ECHO
                          ? "connector.entryHandler.echoRaw"
                          : routes[mode];
    if (self->mode == LOAD_CALL)
        self->conns_count = 1;
    return -1;
}

static void load_raise_descriptors(const load *self)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)self->conns_count + 64;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < need) {
        limit.rlim_cur = need;
        limit.rlim_max = limit.rlim_max < need ? need : limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit))
            load_die("%lu open files, please: %s", (unsigned long)need,
                     strerror(errno));
    }
}

static void load_make(load *self)
{
    uint32_t ring = 4;
    while (ring < self->window * (self->mode == LOAD_FANOUT ? 16 : 2))
        ring *= 2;
    self->ring_mask = ring - 1;
    self->random = 2463534242u;
    self->sources =
        (self->conns_count + LOAD_PORTS_A_SOURCE - 1) / LOAD_PORTS_A_SOURCE;
    self->opening_max = 256;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->conns = calloc(self->conns_count, sizeof *self->conns);
    self->dirty = calloc(self->conns_count, sizeof *self->dirty);
    self->beats = calloc(self->conns_count, sizeof *self->beats);
    self->room = malloc(LOAD_READ_ROOM);
    if (self->epoll < 0 || !self->conns || !self->dirty || !self->beats ||
        !self->room)
        load_die("no memory");
    for (uint32_t i = 0; i < self->conns_count; i++) {
        self->conns[i].index = i;
        self->conns[i].sent_ns = calloc(ring, sizeof(uint64_t));
        if (!self->conns[i].sent_ns)
            load_die("no memory");
    }
    load_make_body(self);
}

int main(int argc, char **argv)
{
    static load self = {.conns_count = 64,
                        .window = 1,
                        .body_len = 64,
                        .secs = 2,
                        .warmup = 0.5,
                        .text = "{}"};
    int status = load_args(&self, argc, argv);
    if (status >= 0)
        return status;
    load_raise_descriptors(&self);
    load_make(&self);
    if (self.mode == LOAD_CONNECT)
        load_connect(&self);
    else if (self.mode == LOAD_CALL)
        load_call(&self);
    else
        load_loop(&self);
    printf(",\"bad\":%llu", (unsigned long long)self.bad);
    if (self.bad)
        printf(",\"why\":\"%s\"", self.why);
    puts("}");
    return self.bad ? 1 : 0;
}
