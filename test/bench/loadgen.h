/* SPDX-License-Identifier: MIT */
/* test/bench/loadgen.h -- what the files of the load generator share.
 *
 *     loadgen.c         options, the four kinds of work, the line of results
 *     loadgen_play.c    what one connection says and expects
 *     loadgen_wire.c    sockets, packages, WebSocket frames
 *     loadgen_stat.c    times, and what /proc tells of the servers */
#ifndef BENCH_LOADGEN_H
#define BENCH_LOADGEN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOAD_PIDS_MAX = 8,
    LOAD_PORTS_A_SOURCE = 5000, /* connections that leave from one address */
    LOAD_TOKEN = 20, /* hex digits that make a body different from others */
    LOAD_READ_ROOM = 1 << 18,
    LOAD_FLIGHT = 1 << 12, /* pushes under way */
    LOAD_STEPS = 32,       /* steps of the histogram in each power of two */
    LOAD_SLOTS = LOAD_STEPS * 40
};

typedef enum load_mode {
    LOAD_ECHO,
    LOAD_FANOUT,
    LOAD_CONNECT,
    LOAD_CALL
} load_mode;

typedef enum load_state {
    LOAD_UPGRADING, /* WebSocket */
    LOAD_SHAKING,
    LOAD_ENTERING, /* joins its channel */
    LOAD_READY,
    LOAD_DEAD
} load_state;

typedef struct load_bytes {
    uint8_t *data; /* owned */
    size_t len, room;
} load_bytes;

typedef struct load_times {
    uint64_t count, slots[LOAD_SLOTS];
} load_times;

typedef struct load_conn {
    int fd;
    uint32_t index, next_id, waiting;
    load_state state;
    bool dirty, wants_write;
    uint64_t opened_ns, pushes;
    load_bytes in, out; /* an unfinished package; what waits to be sent */
    uint64_t *sent_ns;  /* owned; by id & load.ring_mask; 0: not waiting */
} load_conn;

typedef struct load_flight {
    uint32_t seq, left;
    uint64_t sent_ns;
} load_flight;

typedef struct load {
    /* options */
    load_mode mode;
    const char *route, *text;
    uint16_t port;
    bool ws, raw, no_dict;
    uint32_t conns_count, window, body_len, sources, opening_max;
    uint32_t first; /* number of the first connection, for its address */
    double secs, warmup;
    int pids[LOAD_PIDS_MAX];
    size_t pids_count;
    /* connections */
    load_conn *conns; /* owned */
    load_conn **dirty;
    size_t dirty_count;
    int epoll;
    uint32_t opened, ready, ring_mask;
    uint8_t *room; /* LOAD_READ_ROOM and a little: everybody reads into it */
    uint32_t random;
    /* what the server said */
    bool shaken;
    uint32_t heartbeat_ms;
    uint16_t route_code, enter_code, push_code;
    /* heartbeats that are to be sent; all wait equally long: a queue */
    struct load_beat {
        load_conn *conn;
        uint64_t due_ns;
    } * beats;
    size_t beats_head, beats_count;
    /* work */
    uint8_t *body; /* template, owned */
    size_t token_at;
    load_flight flight[LOAD_FLIGHT];
    uint32_t flight_seq, flight_open;
    bool measuring, draining;
    uint64_t done; /* answers or deliveries while measuring */
    uint64_t bad;  /* whatever is not as it should be */
    char why[160]; /* the first of these */
    char *reply;   /* LOAD_CALL's answer, owned */
    load_times times;
} load;

/* loadgen_stat.c */
uint64_t load_now_ns(void);
void load_times_add(load_times *times, uint64_t ns);
double load_times_us(const load_times *times, double quantile);
double load_pids_cpu_us(const load *self);
long load_pids_rss_kb(const load *self);

/* loadgen_wire.c */
void load_die(const char *format, ...) __attribute__((noreturn));
void load_bad(load *self, const char *format, ...);
void load_open(load *self, load_conn *conn);
void load_drop(load *self, load_conn *conn, const char *why);
/* Queues one package; flushed at the end of the turn. */
void load_package(load *self, load_conn *conn, int type, const void *head,
                  size_t head_len, const void *body, size_t body_len);
/* One turn: reads what is there, plays, writes. */
void load_turn(load *self, int timeout_ms);

/* loadgen_play.c */
void load_make_body(load *self);
void load_connected(load *self, load_conn *conn);
void load_play(load *self, load_conn *conn, int type, const uint8_t *body,
               size_t len, uint64_t now_ns);
void load_send_echo(load *self, load_conn *conn, uint64_t now_ns);
void load_send_fanout(load *self, load_conn *conn, uint64_t now_ns);
void load_send_text(load *self, load_conn *conn, const char *route,
                    uint16_t code, const char *text);
void load_beat(load *self, uint64_t now_ns);

#endif
