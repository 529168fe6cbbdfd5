/* SPDX-License-Identifier: MIT */
/* core/loop_internal.h -- the inside of pm_loop, for the files that make it up:
 * loop.c (the turn), loop_run.c (life, running, other threads), loop_watch.c
 * (descriptors), loop_kit.c (random, chunks, doors). loop_names.c stands on
 * loop.h alone. */
#ifndef PMI_LOOP_INTERNAL_H
#define PMI_LOOP_INTERNAL_H

#include "loop.h"

#include <event2/event.h>
#include <event2/util.h>
#include <pthread.h>
#include <stdatomic.h>

/* The parts of a turn, in this order (core/loop.h). */
typedef enum pmi_loop_stage {
    PMI_STAGE_POSTS,
    PMI_STAGE_TIMERS,
    PMI_STAGE_TASKS,
    PMI_STAGE_FLUSH,
    PMI_STAGE_COUNT
} pmi_loop_stage;

typedef struct pmi_loop_post {
    pmi_link link;
    void (*fn)(void *arg);
    void *arg;
} pmi_loop_post;

enum { PMI_LOOP_RANDOM_BYTES = 256 }; /* what getentropy gives at once */

/* There is a value each turn, so that adding one must cost next to nothing. */
typedef struct pmi_loop_times {
    uint64_t counts[64]; /* by bits of the microseconds */
    uint64_t sum_us, max_us;
} pmi_loop_times;

struct pm_loop {
    pmi_env env;
    uint64_t (*clock_us)(void *ctx);                   /* NULL: the system's */
    int64_t (*wall_us)(void *ctx);                     /* likewise */
    int32_t (*utc_offset_s)(int64_t utc_s, void *ctx); /* likewise */
    void (*random)(void *out, size_t len, void *ctx);  /* NULL: the system's */
    void *seam_ctx;

    /* libevent's side; all NULL on a loop in memory only. */
    struct event_base *base; /* borrowed unless owns_base */
    bool owns_base, memory_only;
    int priority;             /* of our events; -1: the base's default */
    struct event *turn_event; /* made active: a turn is wanted */
    struct event *time_event; /* its timeout: a turn is wanted later */
    struct event *wake_event; /* another thread wants a turn */
    uint64_t armed_us;        /* when time_event comes; UINT64_MAX: never */
    bool turn_active;         /* turn_event is on its way */

    /* Where we are. */
    uint64_t now_us, lag_us;
    unsigned depth;     /* of our callbacks on the stack */
    bool in_turn;       /* in our own part, behind the descriptors */
    bool dispatching;   /* in pm_loop_run or pm_loop_poll */
    bool running;       /* in pm_loop_run */
    uint32_t spin_us;   /* so long it looks again before it sleeps */
    uint64_t budget_us; /* when pm_loop_poll's time is over; UINT64_MAX: never
                         */

    /* The turn. A stage takes what waits for it into `due` and runs that; when
     * the budget ends meanwhile, the next turn goes on at that very place. */
    pmi_loop_stage stage;
    bool cut; /* `due` is what is left of the stage */
    pmi_link due, tasks, flushes, ends, graves;
    pmi_wheel wheel;
    uint64_t late_us;  /* of this turn's first timer */
    uint64_t woken_us; /* when the callbacks began that the next turn follows;
                          0: none has */
    pmi_loop_times turns, lags;

    /* Of a gauged loop: this round's beginning (0: none), since when what it
     * finds may have waited; the last round's beginning and end. */
    bool gauged;
    uint64_t round_us, since_us, last_round_us, last_end_us;

    /* What other threads touch. */
    pthread_mutex_t mutex;
    pmi_link posts;     /* under the mutex */
    atomic_bool posted; /* `posts` is not empty */
    atomic_bool broken; /* pm_loop_break was called */
    pmi_wake wake;

    /* The rest (loop_kit.c). */
    uint8_t *read_buffer; /* owned */
    pmi_chunk_pool chunks;
    pmi_map doors;
    uint8_t random_bytes[PMI_LOOP_RANDOM_BYTES];
    size_t random_left;     /* unused ones, at the end */
    uint64_t random_key[3]; /* for when the system fails: key, key, counter */
    size_t holds;
    void *slot, *names;
    void (*slot_fini)(pm_loop *loop, void *data);
    void (*names_fini)(pm_loop *loop, void *data);
    pmi_link_fault fault;
    void *fault_ctx;
};

/* An event in storage of the loop's allocator, with its priority. NULL: out of
 * memory. */
struct event *pmi_loop_event_new(pm_loop *loop, int fd, short what,
                                 event_callback_fn cb, void *arg);
void pmi_loop_event_free(pm_loop *loop, struct event *event);
/* The same in the caller's storage. False: libevent refuses. */
bool pmi_loop_event_init(pm_loop *loop, struct event *event, int fd, short what,
                         event_callback_fn cb, void *arg);
void pmi_loop_event_fini(struct event *event);

void pmi_loop_refresh(pm_loop *loop); /* now_us */
/* A round begins, unless one is under way. Called with what libevent or
 * pm_loop_poll have found, never for calls of the application. */
void pmi_loop_round_begin(pm_loop *loop);
static inline void pmi_loop_round(pm_loop *loop)
{
    if (PMI_UNLIKELY(loop->gauged && !loop->round_us))
        pmi_loop_round_begin(loop);
}
/* Sees to it that there will be a turn, behind the events that libevent has
 * queued. Within a turn it is seen to at its end. */
void pmi_loop_want_turn(pm_loop *loop);
void pmi_loop_turn(pm_loop *loop);
/* Something waits for a turn that is not a matter of time. */
bool pmi_loop_has_work(const pm_loop *loop);
/* When the next turn is due; 0: now; UINT64_MAX: never. */
uint64_t pmi_loop_due_us(pm_loop *loop);

/* turn_event, time_event. */
void pmi_loop_on_turn(evutil_socket_t fd, short what, void *arg);
void pmi_loop_on_time(evutil_socket_t fd, short what, void *arg);

/* The first random bytes, the key. PM_ENET when the system has none. */
pm_err pmi_loop_random_init(pm_loop *loop);

#endif
