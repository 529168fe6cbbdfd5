/* SPDX-License-Identifier: MIT */
/* core/loop_run.c -- a loop's life: made, run or polled, woken, freed.
 *
 * pm_loop_run and pm_loop_poll dispatch the event base for the host; a host
 * that owns the base may just as well dispatch it itself and never call either.
 * Only pm_loop_post and pm_loop_break come from other threads: they touch what
 * pm_loop's mutex and atomics guard, and the wake-up descriptor.
 * Start reading at pm_loop_new(). */
#include "loop_internal.h"

#include <sched.h>

enum { LOOP_CHUNKS_KEPT = 1024, LOOP_SPIN_MAX_US = 1000000 };

/* ---- Making ------------------------------------------------------------ */
/* A host that was built against an older header knows fewer options. */
static pm_err loop_opts_read(pm_loop_opts *out, const pm_loop_opts *opts)
{
    pm_loop_opts o = pm_loop_opts_default();
    int given;
    if (opts && (!opts->size || opts->size > sizeof o))
        return PM_EINVAL;
    if (opts)
        memcpy(&o, opts, opts->size);
    given = !!o.alloc.alloc + !!o.alloc.resize + !!o.alloc.release;
    if ((given != 0 && given != 3) || o.priority < -1 ||
        (o.memory_only && o.base) || o.spin_us > LOOP_SPIN_MAX_US)
        return PM_EINVAL;
    if (o.priority >= 0 &&
        (!o.base || o.priority >= event_base_get_npriorities(o.base)))
        return PM_EINVAL;
    *out = o;
    return PM_OK;
}

static void loop_on_wake(evutil_socket_t fd, short what, void *arg)
{
    pm_loop *loop = arg;
    (void)fd;
    (void)what;
    /* First cleared, then looked: what is posted in between wakes again. */
    pmi_wake_clear(&loop->wake);
    pmi_loop_want_turn(loop);
}

/* Our own base is used by one thread only, so that it needs no locks, whatever
 * the host has told libevent for its own ones. */
static struct event_base *loop_base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base;
    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static pm_err loop_open(pm_loop *loop)
{
    pm_err err;
    if (!loop->base) {
        loop->base = loop_base_new();
        loop->owns_base = true;
    }
    if (!loop->base || event_get_struct_event_size() > PMI_EVENT_BYTES)
        return PM_ENET;
    err = pmi_wake_open(&loop->wake);
    if (err)
        return PM_ENET;
    loop->turn_event = pmi_loop_event_new(loop, -1, 0, pmi_loop_on_turn, loop);
    loop->time_event = pmi_loop_event_new(loop, -1, 0, pmi_loop_on_time, loop);
    loop->wake_event = pmi_loop_event_new(
        loop, loop->wake.read_fd, EV_READ | EV_PERSIST, loop_on_wake, loop);
    if (!loop->turn_event || !loop->time_event || !loop->wake_event ||
        event_add(loop->wake_event, NULL))
        return PM_ENOMEM;
    return PM_OK;
}

static void loop_init(pm_loop *loop, const pmi_env *env,
                      const pm_loop_opts *opts)
{
    *loop = (pm_loop){.env = *env};
    loop->clock_us = opts->clock_us;
    loop->wall_us = opts->wall_us;
    loop->utc_offset_s = opts->utc_offset_s;
    loop->random = opts->random;
    loop->seam_ctx = opts->seam_ctx;
    loop->base = opts->base;
    loop->memory_only = opts->memory_only;
    loop->priority = opts->priority;
    loop->spin_us = opts->spin_us;
    loop->armed_us = loop->budget_us = UINT64_MAX;
    loop->wake.read_fd = loop->wake.write_fd = -1;
    pmi_list_init(&loop->due);
    pmi_list_init(&loop->tasks);
    pmi_list_init(&loop->flushes);
    pmi_list_init(&loop->ends);
    pmi_list_init(&loop->graves);
    pmi_list_init(&loop->posts);
    atomic_init(&loop->posted, false);
    atomic_init(&loop->broken, false);
    pmi_chunk_pool_init(&loop->chunks, &loop->env, PMI_CHUNK_SMALL,
                        LOOP_CHUNKS_KEPT);
    pmi_loop_refresh(loop);
    pmi_wheel_init(&loop->wheel, loop->now_us / 1000);
}

static pmi_env loop_env_of(const pm_loop_opts *opts)
{
    pmi_env env;
    pmi_env_init(&env, &opts->alloc);
    env.log = opts->log;
    env.log_ctx = opts->log_ctx;
    env.log_level = opts->log_level ? opts->log_level : PM_LOG_INFO;
    return env;
}

static void loop_fini(pm_loop *loop);

pm_err pm_loop_new(pm_loop **out, const pm_loop_opts *opts)
{
    pm_loop_opts o;
    pmi_env env;
    pm_loop *loop;
    pm_err err;
    if (!out)
        return PM_EINVAL;
    err = loop_opts_read(&o, opts);
    if (err)
        return err;
    env = loop_env_of(&o);
    loop = pmi_alloc(&env, sizeof *loop);
    if (!loop)
        return PM_ENOMEM;
    loop_init(loop, &env, &o);
    if (pthread_mutex_init(&loop->mutex, NULL)) {
        pmi_free(&env, loop);
        return PM_ENOMEM;
    }
    err = pmi_loop_random_init(loop);
    loop->read_buffer = pmi_alloc(&loop->env, PMI_READ_BUFFER_BYTES);
    if (!err && !loop->read_buffer)
        err = PM_ENOMEM;
    if (!err && !loop->memory_only)
        err = loop_open(loop);
    if (err) {
        loop_fini(loop);
        return err;
    }
    *out = loop;
    return PM_OK;
}

/* ---- Freeing ----------------------------------------------------------- */
static void loop_drop_posts(pm_loop *loop, pmi_link *list)
{
    pmi_link *link;
    while ((link = pmi_list_take(list)) != NULL)
        pmi_free(&loop->env, PMI_OUTER(link, pmi_loop_post, link));
}

/* Tasks and timers lie in others' storage: none may point here afterwards. */
static void loop_unlink_all(pm_loop *loop)
{
    pmi_link *lists[] = {&loop->due, &loop->tasks, &loop->flushes, &loop->ends};
    if (loop->stage == PMI_STAGE_POSTS)
        loop_drop_posts(loop, &loop->due);
    loop_drop_posts(loop, &loop->posts);
    for (size_t i = 0; i < PMI_COUNT(lists); i++)
        while (pmi_list_take(lists[i]))
            continue;
    pmi_wheel_clear(&loop->wheel);
}

static void loop_close(pm_loop *loop, bool drain)
{
    pmi_loop_event_free(loop, loop->wake_event);
    pmi_loop_event_free(loop, loop->time_event);
    pmi_loop_event_free(loop, loop->turn_event);
    if (loop->owns_base && loop->base) {
        /* The resolver's last words are queued on the base; on a borrowed one
         * the host's dispatch hears them. */
        if (drain)
            event_base_loop(loop->base, EVLOOP_NONBLOCK);
        event_base_free(loop->base);
    }
    pmi_wake_close(&loop->wake);
}

static void loop_fini(pm_loop *loop)
{
    const pmi_env env = loop->env;
    bool named = loop->names != NULL;
    if (loop->names_fini)
        loop->names_fini(loop, loop->names);
    if (loop->slot_fini)
        loop->slot_fini(loop, loop->slot);
    loop_unlink_all(loop);
    loop_close(loop, named);
    pmi_map_fini(&loop->doors);
    pmi_chunk_pool_fini(&loop->chunks);
    pthread_mutex_destroy(&loop->mutex);
    pmi_free(&env, loop->read_buffer);
    memset(loop->random_bytes, 0, sizeof loop->random_bytes);
    pmi_free(&env, loop);
}

pm_err pm_loop_free(pm_loop *loop)
{
    if (!loop)
        return PM_OK;
    if (loop->holds || loop->depth || loop->dispatching)
        return PM_ESTATE;
    loop_fini(loop);
    return PM_OK;
}

/* ---- Running ----------------------------------------------------------- */
/* -1 from libevent: somebody dispatches this base already (a callback of the
 * host's, or of another loop on it), or the system's call has failed. */
static pm_err loop_dispatch(pm_loop *loop, int flags)
{
    int result;
    loop->dispatching = true;
    result = event_base_loop(loop->base, flags);
    loop->dispatching = false;
    if (result >= 0)
        return PM_OK;
    return loop->owns_base ? PM_ENET : PM_EINVAL;
}

/* Sleeps only when the last event is spin_us ago. Meanwhile who else wants this
 * core has it: it may be the one whose answer is waited for. */
static pm_err loop_spin(pm_loop *loop)
{
    pm_err err;
    do {
        bool quiet;
        sched_yield();
        quiet = pmi_loop_clock_us(loop) - loop->now_us >= loop->spin_us;
        err = loop_dispatch(loop, EVLOOP_NO_EXIT_ON_EMPTY |
                                      (quiet ? EVLOOP_ONCE : EVLOOP_NONBLOCK));
    } while (!err && !event_base_got_break(loop->base) &&
             !event_base_got_exit(loop->base));
    return err;
}

pm_err pm_loop_run(pm_loop *loop)
{
    pm_err err;
    if (!loop || !loop->base || loop->depth || loop->dispatching)
        return PM_EINVAL;
    /* Its wake-up may have been heard by an earlier poll. */
    if (atomic_load(&loop->broken))
        pmi_loop_want_turn(loop);
    loop->running = true;
    err = loop->spin_us ? loop_spin(loop)
                        : loop_dispatch(loop, EVLOOP_NO_EXIT_ON_EMPTY);
    loop->running = false;
    atomic_store(&loop->broken, false);
    return err;
}

static bool loop_is_due(pm_loop *loop)
{
    return pmi_loop_due_us(loop) <= loop->now_us;
}

static pm_err loop_poll_memory(pm_loop *loop)
{
    loop->dispatching = true;
    do
        pmi_loop_turn(loop);
    while (loop_is_due(loop) && !pmi_loop_over_budget(loop));
    loop->dispatching = false;
    return loop_is_due(loop) ? PM_EAGAIN : PM_OK;
}

/* When the budget is over, pmi_loop_leave breaks this dispatch; the events that
 * were active stay so and come first when the base is dispatched again, by us
 * or (a borrowed one) by the host. */
static pm_err loop_poll_base(pm_loop *loop)
{
    pm_err err;
    /* libevent's coarse clock may lag behind ours by some milliseconds. */
    if (loop_is_due(loop))
        pmi_loop_want_turn(loop);
    err = loop_dispatch(loop, EVLOOP_NONBLOCK);
    if (err)
        return err;
    if (event_base_get_num_events(loop->base, EVENT_BASE_COUNT_ACTIVE) > 0)
        return PM_EAGAIN;
    return loop_is_due(loop) ? PM_EAGAIN : PM_OK;
}

pm_err pm_loop_poll(pm_loop *loop, uint64_t budget_us)
{
    pm_err err;
    if (!loop || loop->depth || loop->dispatching)
        return PM_EINVAL;
    pmi_loop_refresh(loop);
    loop->woken_us = 0; /* the host's own time is not ours */
    if (budget_us && budget_us < UINT64_MAX - loop->now_us)
        loop->budget_us = loop->now_us + budget_us;
    err = loop->base ? loop_poll_base(loop) : loop_poll_memory(loop);
    loop->budget_us = UINT64_MAX;
    return err;
}

uint64_t pm_loop_next_us(pm_loop *loop)
{
    uint64_t due = pmi_loop_due_us(loop);
    uint64_t now = pmi_loop_now_us(loop);
    if (due == UINT64_MAX)
        return UINT64_MAX;
    return due > now ? due - now : 0;
}

/* ---- From other threads ------------------------------------------------ */
void pm_loop_break(pm_loop *loop)
{
    atomic_store(&loop->broken, true);
    if (loop->base)
        pmi_wake_raise(&loop->wake);
}

pm_err pm_loop_post(pm_loop *loop, void (*fn)(void *arg), void *arg)
{
    pmi_loop_post *post;
    bool first;
    if (!loop || !fn)
        return PM_EINVAL;
    post = pmi_zalloc(&loop->env, sizeof *post);
    if (!post)
        return PM_ENOMEM;
    post->fn = fn;
    post->arg = arg;
    pthread_mutex_lock(&loop->mutex);
    first = pmi_list_empty(&loop->posts);
    pmi_list_add(&loop->posts, &post->link);
    atomic_store(&loop->posted, true);
    pthread_mutex_unlock(&loop->mutex);
    if (first && loop->base)
        pmi_wake_raise(&loop->wake);
    return PM_OK;
}
