/* SPDX-License-Identifier: MIT */
/* core/loop.c -- the turn: posted calls, timers, tasks, flush, graves.
 *
 * With sockets, libevent calls us for each ready descriptor, and then once for
 * all the rest: `turn_event` is made active by the first thing that wants a
 * turn, and libevent runs it behind the callbacks that are queued already at
 * our priority. So what a hundred readable connections have written leaves
 * together. What is asked for within the turn itself (a task that defers
 * itself, a flush that wakes the other end of a link in memory) must wait for
 * a look at the descriptors: it comes by `time_event` with a timeout of zero,
 * which libevent honours after polling. No loop of tasks can starve them.
 *
 *     poll | callback callback callback turn | poll | callback turn | poll ...
 *            each one: enter .. leave (graves)
 *
 * In memory only, pm_loop_poll calls the same turn, and there is nothing else.
 * All callbacks of one look at the descriptors and the turn behind them are a
 * round; pmi_loop_gauge measures them, and wants a turn for each.
 * Start reading at pmi_loop_turn(). */
#include "loop_internal.h"

enum { LOOP_LOOK_US = 250 }; /* a look at the descriptors takes less */

/* ---- Time -------------------------------------------------------------- */
static uint64_t loop_clock(const pm_loop *loop)
{
    uint64_t now =
        loop->clock_us ? loop->clock_us(loop->seam_ctx) : pmi_sock_clock_us();
    /* The host's clock may step back; ours does not. */
    return now > loop->now_us ? now : loop->now_us;
}

void pmi_loop_refresh(pm_loop *loop)
{
    loop->now_us = loop_clock(loop);
}

uint64_t pmi_loop_now_us(const pm_loop *loop)
{
    return loop->depth ? loop->now_us : loop_clock(loop);
}

uint64_t pmi_loop_clock_us(pm_loop *loop)
{
    return loop_clock(loop);
}

uint64_t pmi_loop_lag_us(pm_loop *loop)
{
    uint64_t waited;
    if (!loop->gauged)
        return loop->lag_us;
    waited = loop->round_us ? loop_clock(loop) - loop->since_us : 0;
    return waited > loop->late_us ? waited : loop->late_us;
}

void pmi_loop_gauge(pm_loop *loop)
{
    loop->gauged = true;
}

bool pmi_loop_is_overloaded(pm_loop *loop, uint64_t max_us)
{
    uint64_t now = loop_clock(loop);
    return loop->round_us &&
           (now - loop->round_us > max_us / 2 || now - loop->since_us > max_us);
}

uint64_t pmi_loop_round_us(const pm_loop *loop)
{
    return loop->round_us ? loop->round_us : loop_clock(loop);
}

void pmi_loop_round_begin(pm_loop *loop)
{
    bool slept = loop->now_us - loop->last_end_us > LOOP_LOOK_US;
    loop->round_us = loop->now_us;
    loop->since_us = slept ? loop->now_us : loop->last_round_us;
    pmi_loop_want_turn(loop);
}

static void loop_round_end(pm_loop *loop)
{
    if (!loop->round_us)
        return;
    loop->last_round_us = loop->round_us;
    loop->last_end_us = loop_clock(loop);
    loop->round_us = 0;
}

static void loop_times_add(pmi_loop_times *times, uint64_t us)
{
    times->counts[pmi_log2(us | 1)]++;
    times->sum_us += us;
    if (us > times->max_us)
        times->max_us = us;
}

static void loop_times_tell(const pmi_loop_times *times, pmi_histogram *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned bits = 0; bits < 64; bits++)
        for (uint64_t n = times->counts[bits]; n; n -= pmi_min(n, UINT32_MAX))
            pmi_histogram_add(out, UINT64_C(2) << bits,
                              (uint32_t)pmi_min(n, UINT32_MAX));
    out->sum_us = times->sum_us;
    out->max_us = times->max_us;
}

void pmi_loop_turns(const pm_loop *loop, pmi_histogram *out)
{
    loop_times_tell(&loop->turns, out);
}

void pmi_loop_lags(const pm_loop *loop, pmi_histogram *out)
{
    loop_times_tell(&loop->lags, out);
}

bool pmi_loop_over_budget(pm_loop *loop)
{
    return loop->budget_us != UINT64_MAX && loop_clock(loop) >= loop->budget_us;
}

/* ---- Asking libevent for a turn ---------------------------------------- */
bool pmi_loop_event_init(pm_loop *loop, struct event *event, int fd, short what,
                         event_callback_fn cb, void *arg)
{
    return !event_assign(event, loop->base, fd, what, cb, arg) &&
           (loop->priority < 0 || !event_priority_set(event, loop->priority));
}

void pmi_loop_event_fini(struct event *event)
{
    event_del(event);
    event_debug_unassign(event); /* a host may have libevent's debug mode on */
}

struct event *pmi_loop_event_new(pm_loop *loop, int fd, short what,
                                 event_callback_fn cb, void *arg)
{
    struct event *event = pmi_alloc(&loop->env, event_get_struct_event_size());
    if (!event)
        return NULL;
    if (!pmi_loop_event_init(loop, event, fd, what, cb, arg)) {
        pmi_free(&loop->env, event);
        return NULL;
    }
    return event;
}

void pmi_loop_event_free(pm_loop *loop, struct event *event)
{
    if (!event)
        return;
    pmi_loop_event_fini(event);
    pmi_free(&loop->env, event);
}

void pmi_loop_want_turn(pm_loop *loop)
{
    if (!loop->base || loop->in_turn || loop->turn_active)
        return;
    loop->turn_active = true;
    event_active(loop->turn_event, EV_TIMEOUT, 0);
}

bool pmi_loop_has_work(const pm_loop *loop)
{
    return loop->cut || !pmi_list_empty(&loop->tasks) ||
           !pmi_list_empty(&loop->flushes) || atomic_load(&loop->posted);
}

uint64_t pmi_loop_due_us(pm_loop *loop)
{
    uint64_t tick;
    if (pmi_loop_has_work(loop))
        return 0;
    tick = pmi_wheel_next(&loop->wheel);
    return tick < UINT64_MAX / 1000 ? tick * 1000 : UINT64_MAX;
}

/* The timeout for the next turn. One that is too early is left alone: it costs
 * an empty turn, and timers that are forever put off (heartbeats) would cost
 * a call of libevent each time. */
static void loop_arm(pm_loop *loop)
{
    uint64_t due = pmi_loop_due_us(loop), wait;
    struct timeval timeout;
    if (!loop->base || loop->turn_active || due >= loop->armed_us)
        return;
    wait = due > loop->now_us ? due - loop->now_us : 0;
    /* libevent counts in time_t; a day is far enough to look again. */
    wait = wait < UINT64_C(86400000000) ? wait : UINT64_C(86400000000);
    timeout.tv_sec = (time_t)(wait / 1000000);
    timeout.tv_usec = (suseconds_t)(wait % 1000000);
    if (event_add(loop->time_event, &timeout)) {
        pmi_loop_want_turn(loop); /* no memory: look again at once */
        return;
    }
    loop->armed_us = due;
}

void pmi_loop_on_turn(evutil_socket_t fd, short what, void *arg)
{
    pm_loop *loop = arg;
    (void)fd;
    (void)what;
    loop->turn_active = false;
    pmi_loop_turn(loop);
}

void pmi_loop_on_time(evutil_socket_t fd, short what, void *arg)
{
    pm_loop *loop = arg;
    (void)fd;
    (void)what;
    loop->armed_us = UINT64_MAX;
    pmi_loop_turn(loop);
}

/* ---- Being inside ------------------------------------------------------ */
void pmi_loop_enter(pm_loop *loop)
{
    if (loop->depth++ != 0)
        return;
    pmi_loop_refresh(loop);
    if (!loop->woken_us)
        loop->woken_us = loop->now_us;
}

void pmi_loop_leave(pm_loop *loop)
{
    pmi_link *link;
    PMI_ASSERT(loop->depth > 0);
    if (loop->depth > 1) {
        loop->depth--;
        return;
    }
    while ((link = pmi_list_take(&loop->graves)) != NULL) {
        pmi_task *task = PMI_OUTER(link, pmi_task, link);
        task->run(task);
    }
    loop->depth = 0;
    loop->in_turn = false;
    if (!loop->turn_active) /* no turn follows this callback */
        loop->woken_us = 0;
    /* pm_loop_poll's time is over: what libevent still has active comes first
     * next time. On a borrowed base this ends the dispatch that pm_loop_poll
     * itself has begun, never one of the host's. */
    if (loop->base && pmi_loop_over_budget(loop))
        event_base_loopbreak(loop->base);
}

bool pmi_loop_inside(const pm_loop *loop)
{
    return loop->depth > 0;
}

/* ---- Tasks ------------------------------------------------------------- */
static void loop_add_task(pmi_link *list, pmi_task *task,
                          void (*run)(pmi_task *task))
{
    task->run = run;
    if (!pmi_task_waits(task))
        pmi_list_add(list, &task->link);
}

void pmi_loop_defer(pm_loop *loop, pmi_task *task, void (*run)(pmi_task *task))
{
    loop_add_task(&loop->tasks, task, run);
    pmi_loop_want_turn(loop);
}

void pmi_loop_flush_later(pm_loop *loop, pmi_task *task,
                          void (*run)(pmi_task *task))
{
    loop_add_task(&loop->flushes, task, run);
    pmi_loop_want_turn(loop);
}

void pmi_loop_at_end(pm_loop *loop, pmi_task *task, void (*run)(pmi_task *task))
{
    loop_add_task(&loop->ends, task, run);
    pmi_loop_want_turn(loop);
}

void pmi_loop_bury(pm_loop *loop, pmi_task *task, void (*run)(pmi_task *task))
{
    pmi_loop_enter(loop);
    loop_add_task(&loop->graves, task, run);
    pmi_loop_leave(loop);
}

void pmi_task_cancel(pmi_task *task)
{
    pmi_list_remove(&task->link);
}

/* ---- Timers ------------------------------------------------------------ */
void pmi_timer_set(pm_loop *loop, pmi_timer *timer, uint64_t delay_us,
                   void (*fire)(pmi_timer *timer))
{
    uint64_t due;
    if (!loop->depth)
        pmi_loop_refresh(loop);
    due = delay_us < UINT64_MAX - loop->now_us ? loop->now_us + delay_us
                                               : UINT64_MAX;
    pmi_list_remove(&timer->node.link);
    timer->node.due_tick = due / 1000 + (due % 1000 != 0); /* never early */
    timer->fire = fire;
    pmi_wheel_add(&loop->wheel, &timer->node);
    /* A turn arms at its end, once for all. */
    if (!loop->in_turn && timer->node.due_tick < loop->armed_us / 1000)
        loop_arm(loop);
}

void pmi_timer_clear(pmi_timer *timer)
{
    pmi_list_remove(&timer->node.link);
}

uint64_t pmi_timer_left_us(const pm_loop *loop, const pmi_timer *timer)
{
    uint64_t now = pmi_loop_now_us(loop), due = timer->node.due_tick * 1000;
    return pmi_timer_is_set(timer) && due > now ? due - now : 0;
}

/* ---- The turn ---------------------------------------------------------- */
static void loop_collect_posts(pm_loop *loop)
{
    if (!atomic_load(&loop->posted))
        return;
    pthread_mutex_lock(&loop->mutex);
    pmi_list_move(&loop->due, &loop->posts);
    atomic_store(&loop->posted, false);
    pthread_mutex_unlock(&loop->mutex);
}

static void loop_collect_timers(pm_loop *loop)
{
    pmi_wheel_advance(&loop->wheel, loop->now_us / 1000, &loop->due);
    if (!pmi_list_empty(&loop->due)) {
        const pmi_timer *first =
            PMI_OUTER(loop->due.next, pmi_timer, node.link);
        loop->late_us = loop->now_us - first->node.due_tick * 1000;
        loop_times_add(&loop->lags, loop->late_us);
    }
}

static void loop_collect(pm_loop *loop)
{
    switch (loop->stage) {
    case PMI_STAGE_POSTS:
        loop_collect_posts(loop);
        break;
    case PMI_STAGE_TIMERS:
        loop_collect_timers(loop);
        break;
    case PMI_STAGE_TASKS:
        pmi_list_move(&loop->due, &loop->tasks);
        break;
    case PMI_STAGE_FLUSH:
        pmi_list_move(&loop->due, &loop->flushes);
        break;
    case PMI_STAGE_COUNT:
        break;
    }
}

static void loop_run_post(pm_loop *loop, pmi_link *link)
{
    pmi_loop_post post = *PMI_OUTER(link, pmi_loop_post, link);
    pmi_free(&loop->env, PMI_OUTER(link, pmi_loop_post, link));
    post.fn(post.arg);
}

static void loop_run_one(pm_loop *loop, pmi_link *link)
{
    if (loop->stage == PMI_STAGE_POSTS) {
        loop_run_post(loop, link);
    } else if (loop->stage == PMI_STAGE_TIMERS) {
        pmi_timer *timer = PMI_OUTER(link, pmi_timer, node.link);
        timer->fire(timer);
    } else {
        pmi_task *task = PMI_OUTER(link, pmi_task, link);
        task->run(task);
    }
}

/* False when the budget ended before the stage did. Each call does at least
 * one thing, however small the budget is. */
static bool loop_run_stage(pm_loop *loop)
{
    pmi_link *link;
    if (!loop->cut)
        loop_collect(loop);
    loop->cut = false;
    while ((link = pmi_list_take(&loop->due)) != NULL) {
        loop_run_one(loop, link);
        if (pmi_loop_over_budget(loop) && !pmi_list_empty(&loop->due)) {
            loop->cut = true;
            return false;
        }
    }
    return true;
}

/* What the turn was like. */
static void loop_measure(pm_loop *loop, uint64_t begun)
{
    uint64_t took;
    pmi_loop_refresh(loop);
    took = loop->now_us - begun;
    loop->lag_us = took > loop->late_us ? took : loop->late_us;
    loop_times_add(&loop->turns, loop->now_us - loop->woken_us);
    if (loop->stage == PMI_STAGE_POSTS && !loop->cut) { /* it is through */
        pmi_link *link;
        while ((link = pmi_list_take(&loop->ends)) != NULL) {
            pmi_task *task = PMI_OUTER(link, pmi_task, link);
            task->run(task);
        }
    }
}

void pmi_loop_turn(pm_loop *loop)
{
    uint64_t begun;
    pmi_loop_enter(loop);
    begun = loop->now_us;
    loop->in_turn = true;
    pmi_loop_round(loop);
    loop->late_us = 0;
    while (loop_run_stage(loop)) {
        loop->stage = (loop->stage + 1) % PMI_STAGE_COUNT;
        if (loop->stage == PMI_STAGE_POSTS || pmi_loop_over_budget(loop))
            break;
    }
    loop_measure(loop, begun);
    loop_round_end(loop);
    if (loop->running && atomic_load(&loop->broken))
        event_base_loopbreak(loop->base);
    pmi_loop_leave(loop);
    loop_arm(loop);
}
