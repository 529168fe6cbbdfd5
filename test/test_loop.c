/* SPDX-License-Identifier: MIT */
/* test/test_loop.c -- the turn without sockets: timers against a sorted model,
 * tasks, flush, graves, posts, budget, on a virtual clock. */
#include "test.h"

#include "core/loop.h"

/* A loop in a world of its own, and a record of what ran. */
typedef struct stage {
    test_world world;
    test_heap heap;
    pm_loop *loop;
    char said[4096];
    size_t len;
} stage;

static void stage_open(stage *s)
{
    memset(s, 0, sizeof *s);
    s->world.now_us = 5000123;
    pm_loop_opts opts = test_world_opts(&s->world, &s->heap);
    assert_ok(pm_loop_new(&s->loop, &opts));
}

static void stage_close(stage *s)
{
    assert_ok(pm_loop_free(s->loop));
    assert_heap_empty(&s->heap);
}

static void stage_say(stage *s, const char *word)
{
    size_t len = strlen(word);
    if (s->len + len + 2 > sizeof s->said)
        return;
    if (s->len)
        s->said[s->len++] = ' ';
    memcpy(s->said + s->len, word, len + 1);
    s->len += len;
}

static void stage_heard(stage *s, const char *want)
{
    assert_string_equal(s->said, want);
    s->len = 0;
    s->said[0] = 0;
}

/* An actor has one of everything; `act`, when set, is what it does more. */
typedef struct actor {
    stage *at;
    const char *name;
    void (*act)(struct actor *self);
    struct actor *other;
    int times; /* it acts so often */
    pmi_task task, flush, grave;
    pmi_timer timer;
} actor;

static void actor_ran(actor *self)
{
    stage_say(self->at, self->name);
    if (self->act && self->times-- > 0)
        self->act(self);
}

static void on_task(pmi_task *task)
{
    actor_ran(PMI_OUTER(task, actor, task));
}

static void on_flush(pmi_task *task)
{
    stage_say(PMI_OUTER(task, actor, flush)->at, "flush");
    actor_ran(PMI_OUTER(task, actor, flush));
}

static void on_grave(pmi_task *task)
{
    stage_say(PMI_OUTER(task, actor, grave)->at, "grave");
    actor_ran(PMI_OUTER(task, actor, grave));
}

static void on_timer(pmi_timer *timer)
{
    actor_ran(PMI_OUTER(timer, actor, timer));
}

static void on_post(void *arg)
{
    actor_ran(arg);
}

static void defer(actor *a)
{
    pmi_loop_defer(a->at->loop, &a->task, on_task);
}

static void set(actor *a, uint64_t us)
{
    pmi_timer_set(a->at->loop, &a->timer, us, on_timer);
}

/* ---- Timers: 100,000 against a model ----------------------------------- */
enum { CROWD = 100000 };

typedef struct member {
    pmi_timer timer;
    struct crowd *of;
    uint64_t due_tick, order; /* what the model says */
    bool set;
} member;

typedef struct crowd {
    stage at;
    member all[CROWD];
    uint64_t orders;
    size_t fired, wrong, early, late;
    uint64_t last_tick, last_order;
} crowd;

static void member_fire(pmi_timer *timer)
{
    member *m = PMI_OUTER(timer, member, timer);
    crowd *c = m->of;
    uint64_t now = c->at.world.now_us;
    bool sorted = m->due_tick > c->last_tick ||
                  (m->due_tick == c->last_tick && m->order > c->last_order);
    c->wrong += !m->set || !sorted || pmi_timer_is_set(timer);
    c->early += now < m->due_tick * 1000;
    c->late += now >= (m->due_tick + 1) * 1000;
    c->last_tick = m->due_tick;
    c->last_order = m->order;
    m->set = false;
    c->fired++;
}

/* Short ones, long ones, very long ones, many of the same tick. */
static uint64_t member_delay(test_world *world)
{
    uint64_t r = test_world_u64(world);
    switch (test_world_below(world, 5)) {
    case 0:
        return r % 64000;
    case 1:
        return r % 5000000;
    case 2:
        return r % UINT64_C(600000000);
    case 3:
        return r % UINT64_C(400000000000);
    default:
        return r % 16 * 1000000;
    }
}

static void member_set(member *m)
{
    crowd *c = m->of;
    uint64_t delay = member_delay(&c->at.world);
    uint64_t due = c->at.world.now_us + delay;
    m->due_tick = (due + 999) / 1000;
    /* Now is not later: nobody fires in a tick that is being given out. */
    if (m->due_tick <= c->at.world.now_us / 1000)
        m->due_tick = c->at.world.now_us / 1000 + 1;
    m->order = ++c->orders;
    m->set = true;
    pmi_timer_set(c->at.loop, &m->timer, delay, member_fire);
}

static void member_clear(member *m)
{
    m->set = false;
    pmi_timer_clear(&m->timer);
}

static crowd *crowd_new(uint64_t seed)
{
    crowd *c = calloc(1, sizeof *c);
    assert_non_null(c);
    stage_open(&c->at);
    c->at.world.seed = seed;
    for (size_t i = 0; i < CROWD; i++)
        c->all[i].of = c;
    return c;
}

static size_t crowd_overdue(const crowd *c)
{
    size_t n = 0;
    for (size_t i = 0; i < CROWD; i++)
        n += c->all[i].set && c->all[i].due_tick * 1000 <= c->at.world.now_us;
    return n;
}

/* By leaps as large as pm_loop_next_us allows: each fires in its own tick. */
static void test_timers_exact(void **state)
{
    crowd *c = crowd_new(1);
    (void)state;
    for (size_t i = 0; i < CROWD; i++)
        member_set(&c->all[i]);
    for (size_t i = 0; i < CROWD; i += 7)
        member_clear(&c->all[i]);
    for (size_t i = 0; i < CROWD; i += 5)
        member_set(&c->all[i]); /* set again: a new place in the order */
    size_t want = 0;
    for (size_t i = 0; i < CROWD; i++)
        want += c->all[i].set;
    assert_true(
        test_world_run(&c->at.world, c->at.loop, UINT64_C(500000000000)));
    assert_int_equal(c->fired, want);
    assert_int_equal(c->wrong, 0);
    assert_int_equal(c->early, 0);
    assert_int_equal(c->late, 0);
    assert_true(pm_loop_next_us(c->at.loop) == UINT64_MAX);
    stage_close(&c->at);
    free(c);
}

/* By leaps that nobody asked for, with timers coming and going meanwhile. */
static void test_timers_leaps(void **state)
{
    crowd *c = crowd_new(2);
    test_world *world = &c->at.world;
    (void)state;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 1000; i++) {
            member *m = &c->all[test_world_below(world, CROWD)];
            if (test_world_below(world, 3))
                member_set(m);
            else
                member_clear(m);
        }
        world->now_us += member_delay(world) / 50;
        c->last_tick = 0;
        assert_ok(pm_loop_poll(c->at.loop, 0));
        assert_int_equal(crowd_overdue(c), 0);
    }
    assert_int_equal(c->wrong, 0);
    assert_int_equal(c->early, 0);
    assert_true(c->fired > 1000);
    stage_close(&c->at); /* with thousands still set: all are unlinked */
    for (size_t i = 0; i < CROWD; i++)
        assert_false(pmi_timer_is_set(&c->all[i].timer));
    free(c);
}

/* ---- Timers: single cases ---------------------------------------------- */
static void test_timer_same_tick(void **state)
{
    /* Set at different distances, so that a wheel that sorts by distance
     * holds them in different lists. */
    static const uint64_t before[] = {400000, 100000, 63000, 5000, 1000};
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    actor actors[5] = {0};
    stage s;
    (void)state;
    stage_open(&s);
    s.world.now_us = 6000000;
    uint64_t due = 6400000;
    for (size_t i = 0; i < 5; i++) {
        actors[i].at = &s;
        actors[i].name = names[i];
        assert_true(
            test_world_run(&s.world, s.loop, due - before[i] - s.world.now_us));
        set(&actors[i], before[i]);
    }
    s.world.now_us = due - 1;
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "");
    s.world.now_us = due;
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "a b c d e");
    stage_close(&s);
}

static void act_clear_other(actor *self)
{
    pmi_timer_clear(&self->other->timer);
}

static void act_set_self(actor *self)
{
    set(self, 0);
}

static void test_timer_from_inside(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a", .act = act_clear_other, .times = 1};
    actor b = {.at = &s, .name = "b"};
    actor c = {.at = &s, .name = "c", .act = act_set_self, .times = 3};
    (void)state;
    stage_open(&s);
    a.other = &b;
    set(&a, 10000);
    set(&b, 10000); /* due in the same turn, but cleared by then */
    set(&c, 10000);
    assert_true(test_world_run(&s.world, s.loop, 11000));
    stage_heard(&s, "a c");
    /* A delay of nothing is the next tick, not the same turn for ever. */
    assert_true(test_world_run(&s.world, s.loop, 1000));
    stage_heard(&s, "c");
    assert_true(test_world_run(&s.world, s.loop, 10000));
    stage_heard(&s, "c c");
    stage_close(&s);
}

static void test_timer_far(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a"}, b = {.at = &s, .name = "b"};
    (void)state;
    stage_open(&s);
    set(&a, UINT64_MAX);
    assert_true(pmi_timer_is_set(&a.timer));
    set(&b, UINT64_C(100) * 365 * 86400 * 1000000);
    s.world.now_us += UINT64_C(100) * 365 * 86400 * 1000000 - 1;
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "");
    s.world.now_us += 1001;
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "b");
    pmi_timer_clear(&a.timer);
    pmi_timer_clear(&a.timer);
    assert_true(pm_loop_next_us(s.loop) == UINT64_MAX);
    stage_close(&s);
}

/* Time that is set by the host may be wrong; ours never goes back. */
static void test_clock_back(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a"};
    uint64_t before;
    (void)state;
    stage_open(&s);
    before = pmi_loop_now_us(s.loop);
    s.world.now_us -= 3000000;
    set(&a, 2000);
    assert_ok(pm_loop_poll(s.loop, 0));
    assert_true(pmi_loop_now_us(s.loop) == before);
    assert_true(pmi_loop_clock_us(s.loop) == before);
    stage_heard(&s, "");
    s.world.now_us += 3003000;
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "a");
    stage_close(&s);
}

static void test_lag(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a"};
    (void)state;
    stage_open(&s);
    s.world.now_us = 6000000;
    set(&a, 1000);
    s.world.now_us += 1000;
    assert_ok(pm_loop_poll(s.loop, 0));
    assert_int_equal(pmi_loop_lag_us(s.loop), 0);
    set(&a, 1000);
    s.world.now_us += 8000;
    assert_ok(pm_loop_poll(s.loop, 0));
    assert_int_equal(pmi_loop_lag_us(s.loop), 7000);
    stage_close(&s);
}

/* ---- The turn ---------------------------------------------------------- */
static void act_everything(actor *self)
{
    pm_loop *loop = self->at->loop;
    stage_say(self->at, "{");
    pmi_loop_bury(loop, &self->grave, on_grave);
    pmi_loop_flush_later(loop, &self->flush, on_flush);
    pmi_loop_flush_later(loop, &self->flush, on_flush);
    defer(self);
    defer(self);
    pm_loop_post(loop, on_post, self);
    stage_say(self->at, "}");
}

static void test_order(void **state)
{
    stage s;
    actor post = {.at = &s, .name = "post"},
          timer = {.at = &s, .name = "timer"};
    actor task = {.at = &s, .name = "task"}, flush = {.at = &s, .name = "f"};
    (void)state;
    stage_open(&s);
    pmi_loop_flush_later(s.loop, &flush.flush, on_flush);
    defer(&task);
    set(&timer, 1000);
    assert_ok(pm_loop_post(s.loop, on_post, &post));
    assert_true(pm_loop_next_us(s.loop) == 0);
    s.world.now_us += 2000;
    stage_heard(&s, "");
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "post timer task flush f");
    /* From inside a timer: the task and the flush are of this turn, the grave
     * waits for the end of the turn, the post for the next. */
    timer.act = act_everything;
    timer.times = 1;
    set(&timer, 1000);
    s.world.now_us += 2000;
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "timer { } timer flush timer grave timer timer");
    stage_close(&s);
}

static void act_defer_self(actor *self)
{
    defer(self);
}

/* What tasks defer is for the turn after: timers and flush have their go. */
static void test_task_in_task(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a", .act = act_defer_self, .times = 2};
    actor b = {.at = &s, .name = "b"};
    actor f = {.at = &s, .name = "f"};
    (void)state;
    stage_open(&s);
    defer(&a);
    defer(&b);
    pmi_loop_flush_later(s.loop, &f.flush, on_flush);
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "a b flush f a a");
    assert_false(pmi_task_waits(&a.task));
    stage_close(&s);
}

static void act_flush_self(actor *self)
{
    pmi_loop_flush_later(self->at->loop, &self->flush, on_flush);
}

static void test_flush_in_flush(void **state)
{
    stage s;
    actor f = {.at = &s, .name = "f", .act = act_flush_self, .times = 1};
    actor t = {.at = &s, .name = "t", .act = act_defer_self, .times = 1};
    (void)state;
    stage_open(&s);
    pmi_loop_flush_later(s.loop, &f.flush, on_flush);
    defer(&t);
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "t flush f t flush f");
    stage_close(&s);
}

static void act_cancel_other(actor *self)
{
    pmi_task_cancel(&self->other->task);
    pmi_task_cancel(&self->task);
}

static void test_task_cancel(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a", .act = act_cancel_other, .times = 1};
    actor b = {.at = &s, .name = "b"}, c = {.at = &s, .name = "c"};
    (void)state;
    stage_open(&s);
    a.other = &b;
    defer(&a);
    defer(&b);
    defer(&c);
    pmi_task_cancel(&c.task);
    pmi_task_cancel(&c.task);
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "a");
    assert_true(pm_loop_next_us(s.loop) == UINT64_MAX);
    defer(&b);
    stage_close(&s); /* a task that waits is unlinked, not run */
    stage_heard(&s, "");
    assert_false(pmi_task_waits(&b.task));
    pmi_task_cancel(&b.task);
}

static void act_bury_other(actor *self)
{
    pmi_loop_bury(self->at->loop, &self->other->grave, on_grave);
    stage_say(self->at, ".");
}

static void test_graves(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a", .act = act_bury_other, .times = 1};
    actor b = {.at = &s, .name = "b", .act = act_bury_other, .times = 1};
    actor c = {.at = &s, .name = "c"};
    (void)state;
    stage_open(&s);
    a.other = &b;
    b.other = &c;
    /* Nobody is on the stack: now, and what graves bury as well. */
    pmi_loop_bury(s.loop, &a.grave, on_grave);
    stage_heard(&s, "grave a . grave b . grave c");
    assert_false(pmi_loop_inside(s.loop));
    pmi_loop_enter(s.loop);
    pmi_loop_enter(s.loop);
    pmi_loop_bury(s.loop, &c.grave, on_grave);
    pmi_loop_leave(s.loop);
    assert_true(pmi_loop_inside(s.loop));
    stage_heard(&s, "");
    pmi_loop_leave(s.loop);
    stage_heard(&s, "grave c");
    stage_close(&s);
}

/* The time of a turn stands still, the clock does not. */
static void test_now(void **state)
{
    stage s;
    (void)state;
    stage_open(&s);
    pmi_loop_enter(s.loop);
    uint64_t now = pmi_loop_now_us(s.loop);
    s.world.now_us += 500;
    assert_true(pmi_loop_now_us(s.loop) == now);
    assert_true(pmi_loop_clock_us(s.loop) == now + 500);
    pmi_loop_leave(s.loop);
    assert_true(pmi_loop_now_us(s.loop) == now + 500);
    stage_close(&s);
}

/* ---- Budget ------------------------------------------------------------ */
static void act_work(actor *self)
{
    self->at->world.now_us += 100;
    if (pmi_loop_over_budget(self->at->loop))
        stage_say(self->at, "!");
}

/* Six units of 100 us in three stages, 250 us a poll: at the third unit the
 * time is over, and the next poll goes on at the fourth. */
static void test_budget(void **state)
{
    static const char *const names[] = {"1", "2", "3", "4", "5", "6"};
    actor all[6] = {0};
    stage s;
    (void)state;
    stage_open(&s);
    for (size_t i = 0; i < 6; i++)
        all[i] =
            (actor){.at = &s, .name = names[i], .act = act_work, .times = 9};
    assert_ok(pm_loop_post(s.loop, on_post, &all[0]));
    assert_ok(pm_loop_post(s.loop, on_post, &all[1]));
    for (size_t i = 2; i < 5; i++)
        defer(&all[i]);
    pmi_loop_flush_later(s.loop, &all[5].flush, on_flush);
    assert_err(pm_loop_poll(s.loop, 250), PM_EAGAIN);
    stage_heard(&s, "1 2 3 !");
    assert_false(pmi_loop_over_budget(s.loop));
    /* What comes meanwhile does not overtake what is left. */
    assert_ok(pm_loop_post(s.loop, on_post, &all[0]));
    defer(&all[2]);
    assert_true(pm_loop_next_us(s.loop) == 0);
    assert_err(pm_loop_poll(s.loop, 1), PM_EAGAIN);
    stage_heard(&s, "4 !");
    assert_err(pm_loop_poll(s.loop, 1), PM_EAGAIN);
    stage_heard(&s, "5 !");
    assert_err(pm_loop_poll(s.loop, 1), PM_EAGAIN);
    stage_heard(&s, "flush 6 !");
    assert_ok(pm_loop_poll(s.loop, 1000));
    stage_heard(&s, "1 3");
    /* Freed with half a stage left: nothing leaks. */
    assert_ok(pm_loop_post(s.loop, on_post, &all[0]));
    assert_ok(pm_loop_post(s.loop, on_post, &all[1]));
    assert_err(pm_loop_poll(s.loop, 1), PM_EAGAIN);
    stage_close(&s);
}

/* ---- Nesting ----------------------------------------------------------- */
static void act_nest(actor *self)
{
    pm_loop *loop = self->at->loop;
    stage_say(self->at, pm_err_name(pm_loop_poll(loop, 0)));
    stage_say(self->at, pm_err_name(pm_loop_run(loop)));
    stage_say(self->at, pm_err_name(pm_loop_free(loop)));
}

static void test_nesting(void **state)
{
    stage s;
    actor a = {.at = &s, .name = "a", .act = act_nest, .times = 2};
    (void)state;
    stage_open(&s);
    defer(&a);
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "a PM_EINVAL PM_EINVAL PM_ESTATE");
    pmi_loop_bury(s.loop, &a.grave, on_grave);
    stage_heard(&s, "grave a PM_EINVAL PM_EINVAL PM_ESTATE");
    assert_err(pm_loop_run(s.loop), PM_EINVAL); /* memory only */
    pm_loop_break(s.loop);
    pmi_loop_hold(s.loop);
    assert_err(pm_loop_free(s.loop), PM_ESTATE);
    pmi_loop_drop(s.loop);
    stage_close(&s);
}

/* ---- Making ------------------------------------------------------------ */
static void test_opts(void **state)
{
    pm_loop_opts opts = pm_loop_opts_default();
    pm_loop *loop = (pm_loop *)&opts;
    test_heap heap = {0};
    (void)state;
    opts.size = 0;
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    opts.size = sizeof opts + 1;
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    opts = pm_loop_opts_default();
    opts.priority = -2;
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    opts.priority = 0; /* of whose base? */
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    opts = pm_loop_opts_default();
    opts.alloc = test_alloc(&heap);
    opts.alloc.resize = NULL;
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    opts = pm_loop_opts_default();
    opts.memory_only = true;
    opts.base = (struct event_base *)(void *)&heap;
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    assert_err(pm_loop_new(NULL, NULL), PM_EINVAL);
    assert_ptr_equal(loop, &opts);
    assert_ok(pm_loop_free(NULL));
    assert_err(pm_loop_run(NULL), PM_EINVAL);
    assert_err(pm_loop_poll(NULL, 0), PM_EINVAL);
    assert_err(pm_loop_post(NULL, on_post, NULL), PM_EINVAL);
}

/* A host of an older header: what it does not know has its default. */
static void test_opts_old(void **state)
{
    pm_loop_opts opts = pm_loop_opts_default();
    test_world world = {.now_us = 77};
    pm_loop *loop;
    (void)state;
    opts.memory_only = true;
    opts.clock_us = test_world_clock_us;
    opts.seam_ctx = &world;
    opts.size = offsetof(pm_loop_opts, clock_us);
    assert_ok(pm_loop_new(&loop, &opts));
    assert_true(pmi_loop_now_us(loop) != 77);
    assert_true(pmi_loop_memory_only(loop));
    assert_ok(pm_loop_free(loop));
}

static void scenario(pm_loop *loop, actor *a)
{
    pmi_chunk *small, *large;
    a->at->loop = loop;
    set(a, 0);
    pm_loop_post(loop, on_post, a);
    small = pmi_loop_chunk(loop, 1);
    large = pmi_loop_chunk(loop, PMI_CHUNK_SMALL + 1);
    if (small)
        assert_true(small->cap >= PMI_CHUNK_SMALL);
    if (large)
        assert_true(large->cap > PMI_CHUNK_SMALL);
    pmi_chunk_unref(small);
    pmi_chunk_unref(large);
    if (!pmi_loop_door_add(loop, "a:1", a))
        assert_err(pmi_loop_door_add(loop, "a:1", a), PM_EEXIST);
    pm_loop_poll(loop, 0);
    pm_loop_post(loop, on_post, a);
}

static void test_no_memory(void **state)
{
    stage s = {.world = {.now_us = 1}};
    actor a = {.at = &s, .name = "a"};
    (void)state;
    TEST_EACH_FAILURE(&s.heap)
    {
        pm_loop_opts opts = test_world_opts(&s.world, &s.heap);
        pm_loop *loop = NULL;
        pm_err err = pm_loop_new(&loop, &opts);
        if (err) {
            assert_err(err, PM_ENOMEM);
            assert_null(loop);
            continue;
        }
        scenario(loop, &a);
        assert_ok(pm_loop_free(loop));
    }
}

/* ---- What lies on a loop ----------------------------------------------- */
static void slot_fini(pm_loop *loop, void *data)
{
    assert_ptr_equal(pmi_loop_slot(loop), data);
    stage_say(data, "slot");
}

static uint64_t no_fault(void *ctx, const char *from, const char *to, size_t n)
{
    (void)ctx;
    (void)from;
    (void)to;
    return n;
}

static void test_kit(void **state)
{
    void *ctx = &ctx;
    stage s;
    int door;
    (void)state;
    stage_open(&s);
    assert_null(pmi_loop_slot(s.loop));
    pmi_loop_set_slot(s.loop, &s, slot_fini);
    assert_null(pmi_loop_door_find(s.loop, "x:1"));
    assert_ok(pmi_loop_door_add(s.loop, "x:1", &door));
    assert_ptr_equal(pmi_loop_door_find(s.loop, "x:1"), &door);
    pmi_loop_door_remove(s.loop, "x:1");
    pmi_loop_door_remove(s.loop, "x:1");
    assert_null(pmi_loop_door_find(s.loop, "x:1"));
    assert_null(pmi_loop_link_fault(s.loop, &ctx));
    assert_null(ctx);
    pmi_loop_set_link_fault(s.loop, no_fault, &s);
    assert_true(pmi_loop_link_fault(s.loop, &ctx) == no_fault);
    assert_ptr_equal(ctx, &s);
    memset(pmi_loop_read_buffer(s.loop), 1, PMI_READ_BUFFER_BYTES);
    stage_close(&s);
    stage_heard(&s, "slot");
}

static void test_random(void **state)
{
    uint8_t bytes[1000] = {0}, zero[100] = {0};
    pm_loop_opts opts = pm_loop_opts_default();
    pm_loop *loop;
    size_t counts[256] = {0};
    stage s, again;
    (void)state;
    /* A seed gives the same run. */
    stage_open(&s);
    stage_open(&again);
    assert_true(pmi_loop_random_u64(s.loop) == pmi_loop_random_u64(again.loop));
    assert_true(pmi_loop_random_u64(s.loop) != pmi_loop_random_u64(s.loop));
    stage_close(&s);
    stage_close(&again);
    /* The system's: no stretch of zeros, no byte far too often. */
    opts.memory_only = true;
    assert_ok(pm_loop_new(&loop, &opts));
    pmi_loop_random(loop, bytes, sizeof bytes);
    for (size_t i = 0; i + sizeof zero <= sizeof bytes; i += sizeof zero)
        assert_memory_not_equal(bytes + i, zero, sizeof zero);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_true(++counts[bytes[i]] < 40);
    assert_true(pmi_loop_random_u64(loop) != pmi_loop_random_u64(loop));
    assert_ok(pm_loop_free(loop));
}

/* ---- Names without sockets --------------------------------------------- */
static void on_name(pm_err err, const pmi_addr *addr, void *ctx)
{
    char text[PMI_ADDR_TEXT_MAX];
    stage_say(ctx, err ? pm_err_name(err) : pmi_addr_text(addr, text));
}

static void test_names(void **state)
{
    char name[300];
    stage s;
    void *handle;
    (void)state;
    stage_open(&s);
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = 0;
    assert_ok(pmi_loop_resolve(s.loop, "[::1]", 9, on_name, &s, &handle));
    assert_ok(pmi_loop_resolve(s.loop, "localhost", 9, on_name, &s, NULL));
    assert_ok(pmi_loop_resolve(s.loop, "example.org", 9, on_name, &s, NULL));
    assert_ok(pmi_loop_resolve(s.loop, name, 9, on_name, &s, NULL));
    assert_ok(pmi_loop_resolve(s.loop, "10.0.0.1", 9, on_name, &s, &handle));
    pmi_loop_resolve_cancel(s.loop, handle);
    stage_heard(&s, "");
    assert_ok(pm_loop_poll(s.loop, 0));
    stage_heard(&s, "::1 127.0.0.1 PM_ERESOLVE PM_ERESOLVE");
    assert_err(pmi_loop_set_nameserver(s.loop, "127.0.0.1"), PM_ENOTSUP);
    assert_ok(pmi_loop_resolve(s.loop, "10.0.0.2", 9, on_name, &s, NULL));
    stage_close(&s);
    stage_heard(&s, "PM_ECLOSED");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_timers_exact),
    cmocka_unit_test(test_timers_leaps),
    cmocka_unit_test(test_timer_same_tick),
    cmocka_unit_test(test_timer_from_inside),
    cmocka_unit_test(test_timer_far),
    cmocka_unit_test(test_clock_back),
    cmocka_unit_test(test_lag),
    cmocka_unit_test(test_order),
    cmocka_unit_test(test_task_in_task),
    cmocka_unit_test(test_flush_in_flush),
    cmocka_unit_test(test_task_cancel),
    cmocka_unit_test(test_graves),
    cmocka_unit_test(test_now),
    cmocka_unit_test(test_budget),
    cmocka_unit_test(test_nesting),
    cmocka_unit_test(test_opts),
    cmocka_unit_test(test_opts_old),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_kit),
    cmocka_unit_test(test_random),
    cmocka_unit_test(test_names),
};

TEST_MAIN(tests)
