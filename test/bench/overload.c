/* SPDX-License-Identifier: MIT */
/* test/bench/overload.c -- three times as much as there is time for.
 *
 * The server's one handler burns 200 microseconds of its core. First a closed
 * loop tells what the server can do at most; then requests leave at three times
 * that rate, at moments that were fixed before (an open loop: who is slow is
 * not spared), over many connections, each of which also sends heartbeats.
 * Every answer's time counts from the moment at which its request was to be
 * sent. The two take turns, so that others on the machine disturb both. Ends
 * with "N passed, N failed". Start reading at main. */
#include "trial.h"

#include <getopt.h>
#include <sys/epoll.h>

enum {
    OVER_CONNS = 100,
    OVER_ROOM = 1 << 16,
    OVER_CLOSED = 16, /* of the closed loop: one request on each */
    OVER_BURN_US = 200,
    OVER_LAG_MS = 50,
    OVER_BEAT_US = 1000000,
    OVER_RING = 1 << 20 /* requests under way */
};

#define OVER_ROUTE "connector.h.burn"

typedef struct over_conn {
    int fd;
    uint64_t beat_due_us, beat_sent_us; /* sent 0: answered */
    size_t out_len, in_len;
    uint8_t out[OVER_ROOM], in[OVER_ROOM];
} over_conn;

typedef struct over_row {
    const char *name;
    double secs;
    uint64_t asked, good, refused, bad, cpu_us;
    uint64_t beats, beats_lost;
    trial_times good_us, refused_us, beats_us, late_us;
} over_row;

typedef struct over {
    trial_server server;
    int epoll;
    over_conn *conns; /* owned */
    uint64_t *due_us; /* owned: by id, when it was to be sent; 0: answered */
    uint32_t next_id, waiting;
    over_row *row;
    bool closed_loop, draining; /* no heartbeat leaves, or none would end it */
} over;

/* ---- The server ---------------------------------------------------------- */

static void over_burn(pm_request *req, void *ctx)
{
    uint64_t end = trial_clock_us(CLOCK_THREAD_CPUTIME_ID) + OVER_BURN_US;
    (void)ctx;
    while (trial_clock_us(CLOCK_THREAD_CPUTIME_ID) < end)
        continue;
    pm_reply_text(req, "{\"code\":200}");
}

/* ---- Sending ------------------------------------------------------------- */

static void over_flush(over_conn *conn)
{
    ssize_t n = send(conn->fd, conn->out, conn->out_len, MSG_NOSIGNAL);
    if (n > 0) {
        conn->out_len -= (size_t)n;
        memmove(conn->out, conn->out + n, conn->out_len);
    }
}

/* A full socket is the server's fault: the request is late, not dropped. */
static void over_put(over_conn *conn, const void *data, size_t len)
{
    if (conn->out_len + len > OVER_ROOM)
        trial_die("the server does not read");
    memcpy(conn->out + conn->out_len, data, len);
    conn->out_len += len;
}

static void over_ask(over *self, over_conn *conn, uint64_t due_us)
{
    static const char route[] = OVER_ROUTE;
    uint8_t package[64] = {4};
    uint32_t id = self->next_id++ & (OVER_RING - 1);
    size_t len = 4;
    package[len++] = 0;
    /* Three bytes of a varint, whatever the number is. */
    package[len++] = (uint8_t)(0x80 | (id & 0x7f));
    package[len++] = (uint8_t)(0x80 | (id >> 7 & 0x7f));
    package[len++] = (uint8_t)(1 | (id >> 14 << 1));
    package[len++] = sizeof route - 1;
    memcpy(package + len, route, sizeof route - 1);
    len += sizeof route - 1;
    package[3] = (uint8_t)(len - 4);
    if (self->due_us[id])
        trial_die("too many under way");
    self->due_us[id] = due_us;
    self->waiting++;
    self->row->asked++;
    over_put(conn, package, len);
}

static void over_beat(over *self, over_conn *conn, uint64_t now)
{
    static const uint8_t beat[4] = {3};
    if (self->draining || now < conn->beat_due_us || conn->beat_sent_us)
        return;
    conn->beat_due_us = now + OVER_BEAT_US;
    conn->beat_sent_us = now;
    self->row->beats++;
    over_put(conn, beat, sizeof beat);
}

/* ---- Hearing ------------------------------------------------------------- */

static void over_answer(over *self, over_conn *conn, const uint8_t *body,
                        size_t len, uint64_t now)
{
    static const char good[] = "{\"code\":200}", busy[] = "{\"code\":503}";
    uint32_t id;
    uint64_t took;
    if (len != 4 + sizeof good - 1 || body[0] != 2 << 1) {
        self->row->bad++;
        return;
    }
    id = (body[1] & 0x7fu) | (body[2] & 0x7fu) << 7 |
         (uint32_t)(body[3] >> 1) << 14;
    took = now - self->due_us[id];
    self->waiting--;
    self->row->bad += !self->due_us[id];
    self->due_us[id] = 0;
    if (!memcmp(body + 4, good, sizeof good - 1)) {
        self->row->good++;
        trial_times_add(&self->row->good_us, took);
    } else if (!memcmp(body + 4, busy, sizeof busy - 1)) {
        self->row->refused++;
        trial_times_add(&self->row->refused_us, took);
    } else {
        self->row->bad++;
    }
    if (self->closed_loop)
        over_ask(self, conn, now);
}

static void over_hear(over *self, over_conn *conn)
{
    ssize_t n = recv(conn->fd, conn->in + conn->in_len,
                     OVER_ROOM - conn->in_len, MSG_DONTWAIT);
    uint64_t now = trial_now_us();
    size_t at = 0;
    if (n == 0 || (n < 0 && errno != EAGAIN))
        trial_die("a connection has gone");
    if (n <= 0)
        return;
    conn->in_len += (size_t)n;
    while (conn->in_len - at >= 4) {
        const uint8_t *p = conn->in + at;
        size_t len = (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (conn->in_len - at < 4 + len)
            break;
        if (p[0] == 4) {
            over_answer(self, conn, p + 4, len, now);
        } else if (p[0] == 3 && conn->beat_sent_us) {
            trial_times_add(&self->row->beats_us, now - conn->beat_sent_us);
            conn->beat_sent_us = 0;
        }
        at += 4 + len;
    }
    conn->in_len -= at;
    memmove(conn->in, conn->in + at, conn->in_len);
}

static void over_turn(over *self, uint64_t until_us)
{
    struct epoll_event events[OVER_CONNS];
    uint64_t now = trial_now_us();
    /* It sleeps a little, or it would be taken for one who never does. */
    int n, wait = until_us > now ? (int)((until_us - now) / 1000) + 1 : 1;
    for (int i = 0; i < OVER_CONNS; i++) {
        over_beat(self, &self->conns[i], now);
        if (self->conns[i].out_len)
            over_flush(&self->conns[i]);
    }
    n = epoll_wait(self->epoll, events, OVER_CONNS, wait < 10 ? wait : 10);
    for (int i = 0; i < n; i++)
        over_hear(self, events[i].data.ptr);
}

/* ---- The two kinds of load ----------------------------------------------- */

static void over_begin(over *self, over_row *row)
{
    self->row = row;
    self->draining = false;
    row->cpu_us -= trial_cpu_us(&self->server);
}

/* What is under way comes back; what does not is lost. */
static void over_end(over *self, uint64_t began_us)
{
    uint64_t end = trial_now_us(), patience = end + 3000000;
    over_row *row = self->row;
    row->secs += (double)(end - began_us) / 1e6;
    row->cpu_us += trial_cpu_us(&self->server);
    self->closed_loop = false;
    self->draining = true;
    while (trial_now_us() < patience) {
        bool beats = false;
        for (int i = 0; i < OVER_CONNS; i++)
            beats |= self->conns[i].beat_sent_us != 0;
        if (!self->waiting && !beats)
            return;
        over_turn(self, trial_now_us() + 1000);
    }
    for (int i = 0; i < OVER_CONNS; i++)
        row->beats_lost += self->conns[i].beat_sent_us != 0;
    row->bad += self->waiting;
}

static void over_closed(over *self, over_row *row, double secs)
{
    uint64_t now = trial_now_us(), end = now + (uint64_t)(secs * 1e6);
    over_begin(self, row);
    self->closed_loop = true;
    for (int i = 0; i < OVER_CLOSED; i++)
        over_ask(self, &self->conns[i * OVER_CONNS / OVER_CLOSED], now);
    while (trial_now_us() < end)
        over_turn(self, end);
    over_end(self, now);
}

static void over_open(over *self, over_row *row, double secs, double per_s)
{
    uint64_t began = trial_now_us(), end = began + (uint64_t)(secs * 1e6);
    uint64_t due = began, sent = 0, now;
    over_begin(self, row);
    while ((now = trial_now_us()) < end) {
        for (; due <= now;
             due = began + (uint64_t)((double)++sent * 1e6 / per_s)) {
            /* A walk over the connections that jumps about. */
            over_ask(self, &self->conns[sent * 37 % OVER_CONNS], due);
            trial_times_add(&row->late_us, now - due);
        }
        over_turn(self, due);
    }
    over_end(self, began);
}

/* ---- All ----------------------------------------------------------------- */

static over over_connect(uint32_t lag_ms)
{
    pm_limits limits = {.lag_ms = lag_ms, .requests_in_flight = 1000};
    over self = {0};
    self.server =
        trial_start(&limits, OVER_BEAT_US / 1e6, OVER_ROUTE, over_burn);
    self.epoll = epoll_create1(EPOLL_CLOEXEC);
    self.conns = calloc(OVER_CONNS, sizeof *self.conns);
    self.due_us = calloc(OVER_RING, sizeof *self.due_us);
    if (self.epoll < 0 || !self.conns || !self.due_us)
        trial_die("memory");
    for (int i = 0; i < OVER_CONNS; i++) {
        struct epoll_event event = {.events = EPOLLIN,
                                    .data = {.ptr = &self.conns[i]}};
        self.conns[i].fd = trial_connect(self.server.port);
        trial_shake(self.conns[i].fd);
        self.conns[i].beat_due_us = /* spread over the second */
            trial_now_us() + (uint64_t)i * OVER_BEAT_US / OVER_CONNS;
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.conns[i].fd, &event);
    }
    return self;
}

static void over_print(over_row *row)
{
    printf("%-22s %8.0f %8.0f %8.0f %5.0f%%  %7.1f %7.1f %7.1f  %7.1f %7.1f "
           "%7.1f  %5llu %5.1f\n",
           row->name, (double)row->asked / row->secs,
           (double)row->good / row->secs, (double)row->refused / row->secs,
           (double)row->cpu_us / row->secs / 1e4,
           trial_times_ms(&row->good_us, .5),
           trial_times_ms(&row->good_us, .99), trial_times_ms(&row->good_us, 1),
           trial_times_ms(&row->refused_us, .5),
           trial_times_ms(&row->refused_us, .99),
           trial_times_ms(&row->refused_us, 1), (unsigned long long)row->beats,
           trial_times_ms(&row->beats_us, 1));
}

static int over_verdicts(over_row *peak, over_row *high, double times)
{
    trial_tally tally = {0, 0};
    double best = (double)peak->good / peak->secs;
    double share = (double)high->good / high->secs / best * 100;
    printf("generator: requests left %.1f ms late at most (p99 %.1f ms)\n",
           trial_times_ms(&high->late_us, 1),
           trial_times_ms(&high->late_us, .99));
    trial_check(&tally, peak->refused * 100 <= peak->good && !peak->bad,
                "at its peak, %.0f/s, hardly any are refused: %llu of %llu "
                "(under 1 %%)",
                best, (unsigned long long)peak->refused,
                (unsigned long long)peak->asked);
    trial_check(&tally, (double)high->asked / high->secs > best * times * .95,
                "the load is %.1f times the peak",
                (double)high->asked / high->secs / best);
    trial_check(&tally, share > 80,
                "goodput is %.1f %% of the peak (more than 80 %%)", share);
    trial_check(&tally, !high->bad && high->asked == high->good + high->refused,
                "every request has one answer: %llu good, %llu refused",
                (unsigned long long)high->good,
                (unsigned long long)high->refused);
    trial_check(&tally, !high->beats_lost && high->beats,
                "no heartbeat of %llu is lost, %.1f ms at most",
                (unsigned long long)high->beats,
                trial_times_ms(&high->beats_us, 1));
    trial_check(&tally, trial_times_ms(&high->refused_us, 1) < 100,
                "refusals come in %.1f ms at most (p50 %.1f, p99.9 %.1f; under "
                "100)",
                trial_times_ms(&high->refused_us, 1),
                trial_times_ms(&high->refused_us, .5),
                trial_times_ms(&high->refused_us, .999));
    return trial_total(&tally);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"secs", required_argument, NULL, 's'},
        {"rounds", required_argument, NULL, 'r'},
        {"times", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    over_row peak = {.name = "peak, closed loop"};
    over_row high = {.name = "open loop"};
    double secs = 5, times = 3;
    int rounds = 4, option;
    over self;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            secs = strtod(optarg, NULL);
        else if (option == 'r')
            rounds = atoi(optarg);
        else if (option == 't')
            times = strtod(optarg, NULL);
        else {
            puts("usage: overload [--secs S (5)] [--rounds N (4)] [--times X "
                 "(3)]\n"
                 "  S seconds of the peak and S of X times as much, N times in "
                 "turn");
            return option == 'h' ? 0 : 2;
        }
    }
    trial_pin(0);
    self = over_connect(OVER_LAG_MS);
    trial_hurry(1); /* the generator mostly waits */
    printf("a handler of %d us, lag_ms %d, %d connections\n", OVER_BURN_US,
           OVER_LAG_MS, OVER_CONNS);
    printf(
        "%-22s %8s %8s %8s %6s  %23s  %23s  %11s\n%-22s %8s %8s %8s %6s  %7s "
        "%7s %7s  %7s %7s %7s  %5s %5s\n",
        "", "asked", "good", "refused", "CPU", "good, ms", "refused, ms",
        "heartbeats", "", "/s", "/s", "/s", "", "p50", "p99", "max", "p50",
        "p99", "max", "", "max");
    for (int i = 0; i < rounds; i++) {
        over_row one = {.name = "  this round"};
        over_closed(&self, &one, secs);
        over_open(&self, &high, secs, times * (double)one.good / one.secs);
        peak.secs += one.secs;
        peak.asked += one.asked;
        peak.good += one.good;
        peak.refused += one.refused;
        peak.bad += one.bad;
        peak.beats += one.beats;
        peak.cpu_us += one.cpu_us;
        for (size_t n = 0; n < one.good_us.count; n++)
            trial_times_add(&peak.good_us, one.good_us.us[n]);
    }
    over_print(&peak);
    over_print(&high);
    trial_stop(&self.server);
    return over_verdicts(&peak, &high, times);
}
