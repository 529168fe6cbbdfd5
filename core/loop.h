/* SPDX-License-Identifier: MIT */
/* core/loop.h -- turns, timer wheel, clock, random, post, flush.
 *
 * The inside of pm_loop (pomelo.h). The only file that knows libevent: it asks
 * it for readiness of descriptors and for one timeout. Everything else is ours.
 *
 * A turn:   events of descriptors | posted calls | due timers | tasks
 *           -> flush (what was written this turn leaves now)
 *           -> graves (what was freed this turn is given back)
 *
 * A loop without sockets (pm_loop_opts.memory_only) has no event_base at all;
 * its turns are made by pm_loop_poll alone and its time is opts.clock: with a
 * virtual clock the same calls give the same run, bit for bit. */
#ifndef PMI_LOOP_H
#define PMI_LOOP_H

#include "buf.h"
#include "map.h"
#include "sock.h"
#include "stats.h"
#include "wheel.h"

const pmi_env *pmi_loop_env(const pm_loop *loop);
/* Time at the start of this turn, and time now. Microseconds, monotonic. */
uint64_t pmi_loop_now_us(const pm_loop *loop);
uint64_t pmi_loop_clock_us(pm_loop *loop);
/* The clock on the wall: microseconds since 1970, UTC; it can be set. And by
 * how many seconds local time is ahead of UTC at that moment. */
int64_t pmi_loop_wall_us(const pm_loop *loop);
int32_t pmi_loop_utc_offset_s(const pm_loop *loop, int64_t utc_s);
void pmi_loop_random(pm_loop *loop, void *out, size_t len);
uint64_t pmi_loop_random_u64(pm_loop *loop);
/* A map with a random key of this loop. */
void pmi_loop_map_init(pm_loop *loop, pmi_map *map);
bool pmi_loop_memory_only(const pm_loop *loop);
/* True when pm_loop_poll's budget is spent: long work stops at the next whole
 * unit and goes on in the next turn. */
bool pmi_loop_over_budget(pm_loop *loop);

/* How far behind the loop is, microseconds: by how much the last turn's first
 * timer was late, or how long that turn took; the larger one. Of a gauged loop:
 * how long what is being looked at may have waited already. */
uint64_t pmi_loop_lag_us(pm_loop *loop);
/* From now on rounds are measured: from the first descriptor that is looked at,
 * or the turn when there is none, to the end of the turn. What waits in a
 * socket waits at most for the round in which it came and for its place in the
 * next one; when the loop has slept in between only for the latter. */
void pmi_loop_gauge(pm_loop *loop);
/* A gauged loop has no time for what can be refused: it may have waited for
 * longer than max_us. */
bool pmi_loop_is_overloaded(pm_loop *loop, uint64_t max_us);
/* The round's beginning; the time now outside of one. */
uint64_t pmi_loop_round_us(const pm_loop *loop);

/* How long turns take (with the callbacks that they follow), and how late their
 * first timer is, where there is one. Powers of two: each value counts as the
 * next one above it, but the sum is exact. */
void pmi_loop_turns(const pm_loop *loop, pmi_histogram *out);
void pmi_loop_lags(const pm_loop *loop, pmi_histogram *out);
/* Of the pool of chunks, in use and kept. */
size_t pmi_loop_chunk_bytes(const pm_loop *loop);

/* Shared storage. The read buffer is for one callback's time. */
#define PMI_READ_BUFFER_BYTES (128 * 1024)
uint8_t *pmi_loop_read_buffer(pm_loop *loop);
#define PMI_CHUNK_SMALL 4096
pmi_chunk *pmi_loop_chunk(pm_loop *loop,
                          size_t bytes); /* pooled when <= PMI_CHUNK_SMALL */

/* ---- Being inside ------------------------------------------------------ */
/* Every way from outside into our callbacks goes through enter and leave. At
 * the outermost leave the graves are emptied. */
void pmi_loop_enter(pm_loop *loop);
void pmi_loop_leave(pm_loop *loop);
bool pmi_loop_inside(const pm_loop *loop);

/* ---- Tasks ------------------------------------------------------------- */
/* Caller's storage, all zero before the first use. A task is in one list at a
 * time; adding it again while it waits does nothing. Cancel is always legal. */
typedef struct pmi_task {
    pmi_link link;
    void (*run)(struct pmi_task *task);
} pmi_task;

/* Runs once, on a later turn, in the order of the calls. What is deferred
 * while tasks run is for the turn after. */
void pmi_loop_defer(pm_loop *loop, pmi_task *task, void (*run)(pmi_task *task));
/* Runs once at the end of this turn (after the events that are already due).
 * Outside of a turn: in the next. */
void pmi_loop_flush_later(pm_loop *loop, pmi_task *task,
                          void (*run)(pmi_task *task));
/* Runs once when this turn is through: all has left, pmi_loop_now_us is the
 * time of its end. For measuring: nothing may be sent or deferred in there, and
 * a loop without sockets makes no turn for its sake. Outside of a turn: in the
 * next. */
void pmi_loop_at_end(pm_loop *loop, pmi_task *task,
                     void (*run)(pmi_task *task));
/* Runs as soon as none of our callbacks is on the stack: now when none is, else
 * at the outermost leave. For freeing what a callback may still stand on. */
void pmi_loop_bury(pm_loop *loop, pmi_task *task, void (*run)(pmi_task *task));
void pmi_task_cancel(pmi_task *task);
static inline bool pmi_task_waits(const pmi_task *task)
{
    return pmi_link_in(&task->link);
}

/* ---- Timers ------------------------------------------------------------ */
/* A wheel of 1 ms ticks: set, reset and clear in O(1). Never early; late by
 * a tick and the loop's lag. Caller's storage, all zero before first use.
 * Timers of the same tick fire in the order in which they were set. */
typedef struct pmi_timer {
    pmi_wheel_node node;
    void (*fire)(struct pmi_timer *timer);
} pmi_timer;
/* (Re)arm: fires once, delay_us from now (this turn's time). */
void pmi_timer_set(pm_loop *loop, pmi_timer *timer, uint64_t delay_us,
                   void (*fire)(pmi_timer *timer));
void pmi_timer_clear(pmi_timer *timer);
/* Until it is due; 0: it is, or it is not set. */
uint64_t pmi_timer_left_us(const pm_loop *loop, const pmi_timer *timer);
static inline bool pmi_timer_is_set(const pmi_timer *timer)
{
    return pmi_link_in(&timer->node.link);
}

/* ---- Descriptors ------------------------------------------------------- */
enum { PMI_READABLE = 1, PMI_WRITABLE = 2 };
/* libevent's event lies within: an idle connection is one piece of memory less,
 * and watching needs none. Its size is checked against the library's. */
enum { PMI_EVENT_BYTES = 128 };
typedef struct pmi_watch {
    pm_loop *loop;
    void (*ready)(struct pmi_watch *watch, int what);
    int fd;
    uint8_t what; /* is waited for */
    _Alignas(8) uint8_t event[PMI_EVENT_BYTES];
} pmi_watch;
/* Watches nothing yet. */
void pmi_watch_init(pm_loop *loop, pmi_watch *watch, int fd,
                    void (*ready)(pmi_watch *watch, int what));
/* What to wait for (0, PMI_READABLE, PMI_WRITABLE, both). PM_ENOMEM,
 * PM_ENOTSUP on a loop without sockets. */
pm_err pmi_watch_set(pmi_watch *watch, int what);
void pmi_watch_fini(pmi_watch *watch); /* the descriptor stays the caller's */

/* ---- Signals ----------------------------------------------------------- */
/* For pm_run alone: a library leaves its host's signals alone. cb runs as a
 * callback of the loop, each time; libevent keeps the process's handler and
 * puts the old one back at the end. PM_ENOMEM, PM_ENOTSUP without sockets. */
pm_err pmi_loop_signal(pm_loop *loop, int number, void (*cb)(void *ctx),
                       void *ctx, void **signal);
void pmi_loop_signal_end(void *signal); /* NULL is fine */

/* ---- Names ------------------------------------------------------------- */
/* Resolves without blocking. cb runs once on a later turn, also for errors
 * (PM_ERESOLVE) and, with PM_ECLOSED, when the loop is freed. Numeric hosts are
 * answered too. */
typedef void (*pmi_resolve_cb)(pm_err err, const pmi_addr *addr, void *ctx);
pm_err pmi_loop_resolve(pm_loop *loop, const char *host, uint16_t port,
                        pmi_resolve_cb cb, void *ctx, void **handle);
/* cb will not run. */
void pmi_loop_resolve_cancel(pm_loop *loop, void *handle);
/* From now on this server ("127.0.0.1:5353") is asked instead of the system's.
 * For tests. PM_ENOTSUP without sockets, PM_EINVAL, PM_ENOMEM. */
pm_err pmi_loop_set_nameserver(pm_loop *loop, const char *address);

/* ---- Doors in memory --------------------------------------------------- */
/* What listens on this loop without a socket, by name ("host:port"); core/conn
 * stores its listeners here. PM_EEXIST, PM_ENOMEM. */
pm_err pmi_loop_door_add(pm_loop *loop, const char *name, void *listener);
void *pmi_loop_door_find(pm_loop *loop, const char *name);
void pmi_loop_door_remove(pm_loop *loop, const char *name);

/* ---- A place for core/conn --------------------------------------------- */
/* One pointer that the module above hangs on the loop: what its connections
 * share. NULL until set. pm_loop_free calls `fini` (before the chunk pools
 * go), when nothing is held any more. */
void *pmi_loop_slot(const pm_loop *loop);
void pmi_loop_set_slot(pm_loop *loop, void *data,
                       void (*fini)(pm_loop *loop, void *data));

/* ---- What core/loop_names needs ---------------------------------------- */
struct event_base *pmi_loop_base(const pm_loop *loop); /* NULL: memory only */
/* A second slot. Its `fini` comes before the other's. */
void *pmi_loop_names(const pm_loop *loop);
void pmi_loop_set_names(pm_loop *loop, void *data,
                        void (*fini)(pm_loop *loop, void *data));

/* ---- What tests and the simulator see ---------------------------------- */
/* Number of objects that still live on the loop (conns, listeners, apps); a
 * loop is freed only at 0. */
void pmi_loop_hold(pm_loop *loop);
void pmi_loop_drop(pm_loop *loop);
/* Every transfer of a memory connection asks it: delay in microseconds, or
 * UINT64_MAX = cut the link. NULL: at once. For the simulator. */
typedef uint64_t (*pmi_link_fault)(void *ctx, const char *from, const char *to,
                                   size_t bytes);
void pmi_loop_set_link_fault(pm_loop *loop, pmi_link_fault fault, void *ctx);
pmi_link_fault pmi_loop_link_fault(pm_loop *loop, void **ctx);

#endif
