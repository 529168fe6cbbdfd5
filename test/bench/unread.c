/* SPDX-License-Identifier: MIT */
/* test/bench/unread.c -- some of many clients never read.
 *
 * Twenty times a second a server tells some clients (all who never read among
 * them) a push of 2 KiB of their own, and every client something shared. Once
 * there are only clients who read, once there are also those who do not, with
 * small socket buffers on both sides, a third of them for each policy that
 * drops. What is asked: is each of them dropped from, by its policy, and nobody
 * closed? Does the server take no more memory than their limits? Do the others
 * notice? Ends with "N passed, N failed". Start reading at main. */
#include "trial.h"

#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/mman.h>

enum {
    UNREAD_LIMIT = 64 * 1024,
    UNREAD_BUFFER = 8 * 1024,
    UNREAD_OWN = 2048,
    UNREAD_HEAD = 4 + 3 + 16, /* package, flag, route, when it was sent */
    UNREAD_KEYS = 16,
    UNREAD_KINDS = 3
};

static const char *const unread_kinds[] = {"drop oldest", "drop new",
                                           "replace"};

/* What both processes see. */
typedef struct unread_board {
    volatile int pushing, ask; /* ask: 1 please, 2 answered */
    volatile uint64_t pushes, ticks, late;
    uint64_t sessions, closed;
    uint64_t count[UNREAD_KINDS], untouched[UNREAD_KINDS];
    uint64_t least[UNREAD_KINDS], most[UNREAD_KINDS], queued_most;
    pm_queue_counts counts;
} unread_board;

typedef struct unread_conn {
    int fd;
    uint8_t head[UNREAD_HEAD];
    uint32_t have, left; /* of the head; of the rest of the package */
} unread_conn;

typedef struct unread {
    size_t conns_count, unread_count, own_count, shared_bytes;
    uint32_t rate, every, secs;
    unread_board *board;
    trial_server server;
    unread_conn *conns; /* owned */
    int epoll;
    trial_times times;
    uint64_t heard, bytes;
} unread;

/* ---- The server ---------------------------------------------------------- */

typedef struct unread_server {
    unread *all;
    pm_app *app;
    uint8_t body[64 * 1024];
    uint32_t tick;
} unread_server;

static void unread_mark(pm_request *req, void *ctx)
{
    static const pm_push_policy policies[] = {
        PM_PUSH_DROP_OLDEST, PM_PUSH_DROP_NEW, PM_PUSH_REPLACE, PM_PUSH_KEEP};
    const char *kind = pm_request_body(req).data.data;
    (void)ctx;
    pm_session_set_data(pm_request_session(req),
                        (void *)(uintptr_t)&policies[(*kind - '0') & 3]);
    pm_request_drop(req);
}

static void unread_stamp(unread_server *self)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, trial_now_us());
    memcpy(self->body, text, 16);
}

static bool unread_push_own(pm_session *session, void *ctx)
{
    unread_server *self = ctx;
    const pm_push_policy *policy = pm_session_data(session);
    pm_push_opts push = pm_push_opts_default();
    char key[16];
    if (!policy)
        return true;
    unread_stamp(self);
    snprintf(key, sizeof key, "%u", (unsigned)(self->tick % UNREAD_KEYS));
    push.session = session;
    push.route = "o";
    push.body = pm_body_bytes(self->body, UNREAD_OWN);
    push.policy = *policy;
    push.key = key;
    pm_push(self->app, &push, NULL, NULL);
    self->all->board->pushes++;
    return true;
}

static bool unread_look(pm_session *session, void *ctx)
{
    unread_board *board = ctx;
    const pm_push_policy *policy = pm_session_data(session);
    uint64_t dropped = pm_session_dropped(session);
    int kind = policy && *policy == PM_PUSH_DROP_OLDEST ? 0
               : policy && *policy == PM_PUSH_DROP_NEW  ? 1
               : policy && *policy == PM_PUSH_REPLACE   ? 2
                                                        : -1;
    board->sessions++;
    if (kind < 0)
        return true;
    if (!board->count[kind]++ || dropped < board->least[kind])
        board->least[kind] = dropped;
    if (dropped > board->most[kind])
        board->most[kind] = dropped;
    board->untouched[kind] += dropped == 0;
    if (pm_session_queued(session) > board->queued_most)
        board->queued_most = pm_session_queued(session);
    return true;
}

static void unread_tick(pm_app *app, void *ctx)
{
    unread_server *self = ctx;
    unread_board *board = self->all->board;
    pm_broadcast_opts shared = pm_broadcast_opts_default();
    if (board->ask == 1) {
        pm_session_each(app, NULL, unread_look, board);
        board->counts.size = sizeof board->counts;
        pm_queue_counts_get(app, &board->counts);
        board->ask = 2;
    }
    if (!board->pushing)
        return;
    self->tick++;
    board->ticks++;
    pm_session_each(app, NULL, unread_push_own, self);
    if (self->tick % self->all->every)
        return;
    unread_stamp(self);
    shared.frontend_type = "connector";
    shared.route = "s";
    shared.body = pm_body_bytes(self->body, self->all->shared_bytes);
    shared.policy = PM_PUSH_DROP_OLDEST;
    pm_broadcast(app, &shared, NULL, NULL);
}

static void unread_closed(pm_app *app, pm_session *session,
                          pm_close_reason reason, void *ctx)
{
    (void)app;
    (void)session;
    (void)reason;
    ((unread_server *)ctx)->all->board->closed++;
}

static void unread_serve(unread *all, int out)
{
    static unread_server self;
    pm_server table = {.id = "connector-1",
                       .type = "connector",
                       .host = "127.0.0.1",
                       .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    uint16_t port;
    self.all = all;
    memset(self.body, 'x', sizeof self.body);
    opts.servers = &table;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    opts.limits.client_queue_bytes = UNREAD_LIMIT;
    opts.connector.send_buffer_bytes = UNREAD_BUFFER;
    events.session_closed = unread_closed;
    if (pm_loop_new(&opts.loop, NULL) || pm_app_new(&self.app, &opts) ||
        pm_app_listen(self.app, &events, &self) ||
        pm_app_handler(self.app, "connector.h.mark", unread_mark, NULL) ||
        pm_app_start(self.app) ||
        pm_app_timer(self.app, 1000 / all->rate, 1000 / all->rate, unread_tick,
                     &self, NULL))
        _exit(1);
    port = pm_app_client_port(self.app);
    if (write(out, &port, sizeof port) != sizeof port)
        _exit(1);
    pm_loop_run(opts.loop);
    _exit(0);
}

static void unread_start(unread *self)
{
    int ends[2];
    memset(self->board, 0, sizeof *self->board);
    if (pipe(ends) || (self->server.pid = fork()) < 0)
        trial_die("a server");
    if (!self->server.pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        trial_pin(1);
        free(self->times.us); /* not the server's memory */
        malloc_trim(0);
        unread_serve(self, ends[1]);
    }
    close(ends[1]);
    if (read(ends[0], &self->server.port, 2) != 2)
        trial_die("the server");
    close(ends[0]);
}

static size_t unread_rss(const unread *self)
{
    char path[64];
    unsigned long pages = 0;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)self->server.pid);
    file = fopen(path, "r");
    if (!file || fscanf(file, "%*u %lu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- The clients --------------------------------------------------------- */

static int unread_connect(uint16_t port, bool reads)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
        room = UNREAD_BUFFER;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && !reads)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        trial_die("connecting");
    return fd;
}

/* kind: a digit; 0: it gets nothing of its own. */
static void unread_enter(int fd, char kind)
{
    static const char hello[] = "\1\0\0\12{\"sys\":{}}", ack[] = "\2\0\0";
    char mark[] = "\4\0\0\23\2\20connector.h.mark?", room[1024];
    mark[sizeof mark - 2] = kind;
    if (!trial_send(fd, hello, sizeof hello - 1) ||
        recv(fd, room, sizeof room, 0) <= 4 ||
        !trial_send(fd, ack, sizeof ack) ||
        (kind && !trial_send(fd, mark, sizeof mark - 1)))
        trial_die("the handshake");
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void unread_add(unread *self, size_t at, bool reads, char kind)
{
    unread_conn *conn = &self->conns[at];
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = conn}};
    memset(conn, 0, sizeof *conn);
    conn->fd = unread_connect(self->server.port, reads);
    unread_enter(conn->fd, kind);
    if (reads)
        epoll_ctl(self->epoll, EPOLL_CTL_ADD, conn->fd, &event);
}

static void unread_package(unread *self, const unread_conn *conn, uint64_t now)
{
    char text[17] = "";
    uint64_t sent;
    if (conn->head[6] != 's' || conn->have < UNREAD_HEAD)
        return;
    memcpy(text, conn->head + 7, 16);
    sent = strtoull(text, NULL, 16);
    trial_times_add(&self->times, now > sent ? now - sent : 0);
    self->heard++;
}

static void unread_hear(unread *self, unread_conn *conn, const uint8_t *data,
                        size_t len, uint64_t now)
{
    while (len) {
        size_t part = conn->left < len ? conn->left : len;
        if (!part) {
            size_t want = conn->have < 4 ? 4 : UNREAD_HEAD, body;
            part = want - conn->have < len ? want - conn->have : len;
            memcpy(conn->head + conn->have, data, part);
            conn->have += (uint32_t)part;
            body = (size_t)conn->head[1] << 16 | (size_t)conn->head[2] << 8 |
                   conn->head[3];
            if (conn->have == 4 && body < UNREAD_HEAD - 4) {
                conn->left = (uint32_t)body; /* a handshake is read already */
                conn->have = 0;
            } else if (conn->have == UNREAD_HEAD) {
                unread_package(self, conn, now);
                conn->left = (uint32_t)(4 + body - UNREAD_HEAD);
                conn->have = 0;
            }
        } else {
            conn->left -= (uint32_t)part;
        }
        data += part;
        len -= part;
    }
}

static void unread_turn(unread *self)
{
    static uint8_t room[64 * 1024];
    struct epoll_event events[512];
    int n = epoll_wait(self->epoll, events, 512, 10);
    uint64_t now = trial_now_us();
    for (int i = 0; i < n; i++) {
        unread_conn *conn = events[i].data.ptr;
        ssize_t got = recv(conn->fd, room, sizeof room, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            trial_die("a client who reads is closed");
        if (got > 0) {
            self->bytes += (uint64_t)got;
            unread_hear(self, conn, room, (size_t)got, now);
        }
    }
}

/* ---- A run --------------------------------------------------------------- */

typedef struct unread_run {
    double p50, p99, last;
    size_t idle, peak;
    uint64_t heard, bytes, ticks, cpu_us;
    unread_board board;
} unread_run;

static void unread_settle(unread *self, uint32_t ms)
{
    uint64_t end = trial_now_us() + ms * 1000u;
    while (trial_now_us() < end)
        unread_turn(self);
}

static void unread_ask(unread *self)
{
    self->board->ask = 1;
    while (self->board->ask != 2)
        unread_turn(self);
}

static unread_run unread_go(unread *self, size_t stalled)
{
    unread_run run = {0};
    size_t reading = self->conns_count - self->unread_count;
    uint64_t end;
    unread_start(self);
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->times.count = 0;
    self->heard = self->bytes = 0;
    for (size_t i = 0; i < reading + stalled; i++)
        unread_add(self, i, i < reading,
                   i >= reading          ? (char)('0' + i % UNREAD_KINDS)
                   : i < self->own_count ? '3'
                                         : 0);
    unread_settle(self, 500);
    run.idle = unread_rss(self);
    run.cpu_us = trial_cpu_us(&self->server);
    self->board->pushing = 1;
    end = trial_now_us() + (uint64_t)self->secs * 1000000;
    while (trial_now_us() < end) {
        size_t rss;
        unread_settle(self, 100);
        rss = unread_rss(self);
        run.peak = rss > run.peak ? rss : run.peak;
    }
    self->board->pushing = 0;
    run.cpu_us = trial_cpu_us(&self->server) - run.cpu_us;
    unread_ask(self);
    run.board = *self->board;
    run.p50 = trial_times_ms(&self->times, .5);
    run.p99 = trial_times_ms(&self->times, .99);
    run.last = trial_times_ms(&self->times, 1);
    run.heard = self->heard;
    run.bytes = self->bytes;
    run.ticks = self->board->ticks;
    trial_stop(&self->server);
    for (size_t i = 0; i < reading + stalled; i++)
        close(self->conns[i].fd);
    close(self->epoll);
    return run;
}

static void unread_print(const unread *self, const char *name,
                         const unread_run *run)
{
    double secs = self->secs;
    printf("%-9s %8" PRIu64
           " %8.1f %9.1f %5.0f %6.1f %8.2f %8.2f %8.2f %8.1f %8.1f\n",
           name, run->board.sessions, (double)run->ticks / secs,
           (double)run->heard / secs / 1000, (double)run->cpu_us / secs / 1e4,
           (double)run->bytes / secs / 1e6, run->p50, run->p99, run->last,
           (double)run->idle / 1048576, (double)run->peak / 1048576);
}

static void unread_check_drops(trial_tally *tally, const unread_board *board)
{
    for (int k = 0; k < UNREAD_KINDS; k++)
        trial_check(tally, board->count[k] && !board->untouched[k],
                    "%s: %" PRIu64 " who do not read, %" PRIu64 " to %" PRIu64
                    " dropped from each",
                    unread_kinds[k], board->count[k], board->least[k],
                    board->most[k]);
    trial_check(tally,
                board->counts.dropped_oldest && board->counts.dropped_new &&
                    board->counts.replaced,
                "of the app: %" PRIu64 " oldest, %" PRIu64 " new, %" PRIu64
                " replaced",
                board->counts.dropped_oldest, board->counts.dropped_new,
                board->counts.replaced);
}

static int unread_verdicts(const unread *self, const unread_run *quiet,
                           const unread_run *busy, double slack)
{
    trial_tally tally = {0, 0};
    size_t room = self->unread_count * (size_t)UNREAD_LIMIT / 10 * 11;
    unread_check_drops(&tally, &busy->board);
    trial_check(&tally, !busy->board.closed && !quiet->board.closed,
                "%" PRIu64 " sessions were closed", busy->board.closed);
    trial_check(&tally, busy->board.queued_most <= UNREAD_LIMIT,
                "at most %" PRIu64 " bytes waited for one (%d)",
                busy->board.queued_most, UNREAD_LIMIT);
    trial_check(&tally, busy->peak <= busy->idle + room,
                "%.1f MiB at most, idle %.1f MiB and 1.1 times the limits "
                "%.1f MiB",
                (double)busy->peak / 1048576, (double)busy->idle / 1048576,
                (double)room / 1048576);
    trial_check(&tally,
                busy->p99 <= 1.2 * quiet->p99 ||
                    busy->p99 <= quiet->p99 + slack,
                "p99 of the others %.2f ms, without them %.2f ms (20 %% more, "
                "or %.1f ms)",
                busy->p99, quiet->p99, slack);
    return trial_total(&tally);
}

static const struct option unread_options[] = {
    {"count", required_argument, NULL, 'c'},
    {"unread", required_argument, NULL, 'u'},
    {"own", required_argument, NULL, 'o'},
    {"shared", required_argument, NULL, 'b'},
    {"rate", required_argument, NULL, 'r'},
    {"every", required_argument, NULL, 'e'},
    {"secs", required_argument, NULL, 's'},
    {"slack", required_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

static int unread_help(int status)
{
    puts("usage: unread [options]\n"
         "  --count N    clients (5000)\n"
         "  --unread N   of these never read (500)\n"
         "  --own N      of those who read get pushes of their own too (100)\n"
         "  --shared N   bytes of what is shared by all (200)\n"
         "  --rate N     rounds a second, with what is their own (20)\n"
         "  --every N    of so many one with what is shared (1)\n"
         "  --secs N     for each of the two runs (120)\n"
         "  --slack MS   more that a p99 may be (0.5)");
    return status;
}

int main(int argc, char **argv)
{
    unread self = {.conns_count = 5000,
                   .unread_count = 500,
                   .own_count = 100,
                   .shared_bytes = 200,
                   .rate = 20,
                   .every = 1,
                   .secs = 120};
    unread_run quiet, busy;
    double slack = .5;
    int option;
    while ((option = getopt_long(argc, argv, "", unread_options, NULL)) != -1) {
        size_t number = optarg ? (size_t)strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'c':
            self.conns_count = number;
            break;
        case 'u':
            self.unread_count = number;
            break;
        case 'o':
            self.own_count = number;
            break;
        case 'b':
            self.shared_bytes = number;
            break;
        case 'e':
            self.every = (uint32_t)number;
            break;
        case 'r':
            self.rate = (uint32_t)number;
            break;
        case 's':
            self.secs = (uint32_t)number;
            break;
        case 'l':
            slack = strtod(optarg, NULL);
            break;
        default:
            return unread_help(option == 'h' ? 0 : 2);
        }
    }
    if (self.unread_count >= self.conns_count || self.shared_bytes < 16 ||
        self.shared_bytes > 32 * 1024 || !self.rate || !self.every ||
        self.rate > 1000)
        return unread_help(2);
    trial_descriptors(self.conns_count + 100);
    self.conns = calloc(self.conns_count, sizeof *self.conns);
    self.board = mmap(NULL, sizeof *self.board, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!self.conns || self.board == MAP_FAILED)
        trial_die("memory");
    trial_pin(0);
    printf(
        "%zu clients, %zu of them never read; %u times a second %d bytes for "
        "each of these\nand for %zu others, each %u. time %zu bytes for all; "
        "%u s "
        "each\n%-9s %8s %8s %9s %5s %6s %8s %8s %8s %8s %8s\n",
        self.conns_count, self.unread_count, self.rate, UNREAD_OWN,
        self.own_count, self.every, self.shared_bytes, self.secs, "",
        "sessions", "rounds/s", "1000 of/s", "CPU %", "MB/s", "p50 ms",
        "p99 ms", "last ms", "idle MiB", "peak MiB");
    quiet = unread_go(&self, 0);
    unread_print(&self, "without", &quiet);
    busy = unread_go(&self, self.unread_count);
    unread_print(&self, "with", &busy);
    return unread_verdicts(&self, &quiet, &busy, slack);
}
