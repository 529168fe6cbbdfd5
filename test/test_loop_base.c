/* SPDX-License-Identifier: MIT */
/* test/test_loop_base.c -- the loop on libevent: descriptors, borrowed bases,
 * priorities, other threads, names from a DNS server of our own. */
#include "test.h"

#include "core/loop.h"

#include <event2/event.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

/* What ran, in order. */
typedef struct record {
    pm_loop *loop;
    char said[2048];
    size_t len;
    int count;
} record;

static void say(record *r, const char *word)
{
    size_t len = strlen(word);
    if (r->len + len + 2 > sizeof r->said)
        return;
    if (r->len)
        r->said[r->len++] = ' ';
    memcpy(r->said + r->len, word, len + 1);
    r->len += len;
}

static void heard(record *r, const char *want)
{
    assert_string_equal(r->said, want);
    r->len = 0;
    r->said[0] = 0;
}

static void say_post(void *arg)
{
    say(arg, "post");
}

static void break_post(void *arg)
{
    pm_loop_break(arg);
}

/* A watched end of a socket pair, with whatever a callback wants to do. */
typedef struct door {
    record *r;
    const char *name;
    int fd, far;
    pmi_watch watch;
    pmi_task task, flush, grave;
    pmi_timer timer;
    struct door *other;
    void (*act)(struct door *self, int what);
    int times;
} door;

static void door_ready(pmi_watch *watch, int what)
{
    door *d = PMI_OUTER(watch, door, watch);
    say(d->r, d->name);
    if (d->act)
        d->act(d, what);
}

static void door_open(door *d, record *r, const char *name,
                      void (*act)(door *self, int what))
{
    int fds[2];
    memset(d, 0, sizeof *d);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds),
                     0);
    d->r = r;
    d->name = name;
    d->act = act;
    d->fd = fds[0];
    d->far = fds[1];
    pmi_watch_init(r->loop, &d->watch, d->fd, door_ready);
}

static void door_close(door *d)
{
    pmi_watch_fini(&d->watch);
    pmi_sock_close(d->fd);
    pmi_sock_close(d->far);
}

static void door_knock(door *d)
{
    assert_int_equal(send(d->far, "x", 1, MSG_NOSIGNAL), 1);
}

static void door_read(door *d, int what)
{
    char bytes[16];
    (void)what;
    while (recv(d->fd, bytes, sizeof bytes, 0) > 0)
        continue;
}

static void say_task(pmi_task *task)
{
    say(PMI_OUTER(task, door, task)->r, "task");
}

static void say_flush(pmi_task *task)
{
    say(PMI_OUTER(task, door, flush)->r, "flush");
}

static void say_grave(pmi_task *task)
{
    say(PMI_OUTER(task, door, grave)->r, "grave");
}

static void break_timer(pmi_timer *timer)
{
    pm_loop_break(PMI_OUTER(timer, door, timer)->r->loop);
}

/* ---- Descriptors ------------------------------------------------------- */
static void test_watch(void **state)
{
    record r = {0};
    door d;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    door_open(&d, &r, "d", door_read);
    door_knock(&d);
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, ""); /* watches nothing yet */
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE));
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE));
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "d");
    door_knock(&d);
    assert_ok(pmi_watch_set(&d.watch, 0));
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "");
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE));
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "d");
    door_close(&d);
    assert_ok(pm_loop_free(r.loop));
}

static void act_stop_writing(door *d, int what)
{
    char text[2] = {(char)('0' + what), 0};
    say(d->r, text);
    if (what == PMI_READABLE)
        door_read(d, what);
    else
        assert_ok(pmi_watch_set(&d->watch, PMI_READABLE));
}

static void test_watch_write(void **state)
{
    record r = {0};
    door d;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    door_open(&d, &r, "d", act_stop_writing);
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE | PMI_WRITABLE));
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "d 2");
    assert_int_equal(d.watch.what, PMI_READABLE);
    door_knock(&d);
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "d 1");
    assert_ok(pmi_watch_set(&d.watch, PMI_WRITABLE)); /* and not readable */
    door_knock(&d);
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "d 2 d 1"); /* the act asked for readable again */
    door_close(&d);
    assert_ok(pm_loop_free(r.loop));
}

static void act_close_both(door *d, int what)
{
    (void)what;
    pmi_watch_fini(&d->watch);
    pmi_watch_fini(&d->other->watch);
}

/* A callback may end watches that libevent has found ready as well. */
static void test_watch_fini_inside(void **state)
{
    record r = {0};
    door a, b;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    door_open(&a, &r, "x", act_close_both);
    door_open(&b, &r, "x", act_close_both);
    a.other = &b;
    b.other = &a;
    door_knock(&a);
    door_knock(&b);
    assert_ok(pmi_watch_set(&a.watch, PMI_READABLE | PMI_WRITABLE));
    assert_ok(pmi_watch_set(&b.watch, PMI_READABLE | PMI_WRITABLE));
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "x");
    door_close(&a);
    door_close(&b);
    assert_ok(pm_loop_free(r.loop));
}

static void test_watch_memory(void **state)
{
    pm_loop_opts opts = pm_loop_opts_default();
    record r = {0};
    pmi_watch watch;
    (void)state;
    opts.memory_only = true;
    assert_ok(pm_loop_new(&r.loop, &opts));
    pmi_watch_init(r.loop, &watch, 0, door_ready);
    assert_err(pmi_watch_set(&watch, PMI_READABLE), PM_ENOTSUP);
    pmi_watch_fini(&watch);
    assert_ok(pm_loop_free(r.loop));
}

/* ---- The turn ---------------------------------------------------------- */
static void act_ask_all(door *d, int what)
{
    door_read(d, what);
    pmi_loop_bury(d->r->loop, &d->grave, say_grave);
    pmi_loop_flush_later(d->r->loop, &d->flush, say_flush);
    pmi_loop_defer(d->r->loop, &d->task, say_task);
    say(d->r, ".");
}

/* Both descriptors first, then one turn for what both have asked for. */
static void test_turn_order(void **state)
{
    record r = {0};
    door a, b;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    door_open(&a, &r, "x", act_ask_all);
    door_open(&b, &r, "x", act_ask_all);
    assert_ok(pmi_watch_set(&a.watch, PMI_READABLE));
    assert_ok(pmi_watch_set(&b.watch, PMI_READABLE));
    door_knock(&a);
    door_knock(&b);
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "x . grave x . grave task task flush flush");
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "");
    door_close(&a);
    door_close(&b);
    assert_ok(pm_loop_free(r.loop));
}

static void task_again(pmi_task *task)
{
    door *d = PMI_OUTER(task, door, task);
    if (d->times-- > 0)
        pmi_loop_flush_later(d->r->loop, &d->flush, say_flush);
    if (d->times > 0)
        pmi_loop_defer(d->r->loop, task, task_again);
    if (d->times == 90)
        door_knock(d);
    say(d->r, "t");
}

static void act_note(door *d, int what)
{
    door_read(d, what);
    d->r->count = d->times;
}

/* A task that always comes again: descriptors are looked at in between. */
static void test_no_starving(void **state)
{
    record r = {0};
    door d;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    door_open(&d, &r, "d", act_note);
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE));
    d.times = 100;
    pmi_loop_defer(r.loop, &d.task, task_again);
    assert_ok(pm_loop_poll(r.loop, 0));
    assert_int_equal(d.times, 0);
    assert_in_range(r.count, 88, 90);
    door_close(&d);
    assert_ok(pm_loop_free(r.loop));
}

/* ---- Timers on the real clock ------------------------------------------ */
typedef struct bells {
    pm_loop *loop;
    size_t fired, early;
    uint64_t worst;
} bells;

typedef struct bell {
    pmi_timer timer;
    bells *of;
    uint64_t due;
} bell;

static void bell_ring(pmi_timer *timer)
{
    bell *b = PMI_OUTER(timer, bell, timer);
    uint64_t now = pmi_sock_clock_us();
    b->of->early += now < b->due;
    if (now >= b->due && now - b->due > b->of->worst)
        b->of->worst = now - b->due;
    if (++b->of->fired == 20)
        pm_loop_break(b->of->loop);
}

static void test_timers_real(void **state)
{
    bells all = {0};
    bell each[20] = {0};
    (void)state;
    assert_ok(pm_loop_new(&all.loop, NULL));
    for (size_t i = 0; i < 20; i++) {
        uint64_t delay = 500 + (i * 7 % 20) * 3000;
        each[i].of = &all;
        each[i].due = pmi_sock_clock_us() + delay;
        pmi_timer_set(all.loop, &each[i].timer, delay, bell_ring);
    }
    assert_in_range(pm_loop_next_us(all.loop), 0, 2000);
    assert_ok(pm_loop_run(all.loop));
    assert_int_equal(all.fired, 20);
    assert_int_equal(all.early, 0);
    assert_true(all.worst < 1000000); /* a busy machine; a quiet one: 5 ms */
    assert_true(pm_loop_next_us(all.loop) == UINT64_MAX);
    assert_ok(pm_loop_free(all.loop));
}

/* ---- Other threads ----------------------------------------------------- */
enum { POSTERS = 4, POSTS = 2000 };

typedef struct poster {
    pthread_t thread;
    struct posters *of;
    int sent, ran; /* ran: on the loop's thread, in order */
    bool disordered;
} poster;

typedef struct posters {
    pm_loop *loop;
    poster each[POSTERS];
    pthread_t home;
    bool elsewhere;
    int left;
} posters;

typedef struct letter {
    poster *from;
    int number;
} letter;

static void letter_read(void *arg)
{
    letter *l = arg;
    poster *p = l->from;
    p->disordered |= l->number != p->ran++;
    p->of->elsewhere |= !pthread_equal(pthread_self(), p->of->home);
    if (--p->of->left == 0)
        pm_loop_break(p->of->loop);
    free(l);
}

static void *poster_main(void *arg)
{
    poster *p = arg;
    for (int i = 0; i < POSTS; i++) {
        letter *l = malloc(sizeof *l);
        *l = (letter){p, i};
        p->sent += pm_loop_post(p->of->loop, letter_read, l) == PM_OK;
    }
    return NULL;
}

static void test_post(void **state)
{
    posters all = {.left = POSTERS * POSTS, .home = pthread_self()};
    pm_loop_opts opts = pm_loop_opts_default();
    test_heap heap = {0};
    (void)state;
    opts.alloc = test_alloc(&heap);
    assert_ok(pm_loop_new(&all.loop, &opts));
    for (size_t i = 0; i < POSTERS; i++) {
        all.each[i].of = &all;
        pthread_create(&all.each[i].thread, NULL, poster_main, &all.each[i]);
    }
    assert_ok(pm_loop_run(all.loop));
    for (size_t i = 0; i < POSTERS; i++) {
        pthread_join(all.each[i].thread, NULL);
        assert_int_equal(all.each[i].sent, POSTS);
        assert_int_equal(all.each[i].ran, POSTS);
        assert_false(all.each[i].disordered);
    }
    assert_false(all.elsewhere);
    assert_ok(pm_loop_free(all.loop));
    assert_heap_empty(&heap);
}

/* Posts of a callback of the loop itself, and those that never run. */
static void post_again(void *arg)
{
    record *r = arg;
    say(r, "again");
    if (++r->count < 3)
        assert_ok(pm_loop_post(r->loop, post_again, r));
}

static void test_post_inside(void **state)
{
    record r = {0};
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    assert_ok(pm_loop_post(r.loop, post_again, &r));
    assert_true(pm_loop_next_us(r.loop) == 0);
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "again again again");
    assert_ok(pm_loop_post(r.loop, say_post, &r));
    assert_ok(pm_loop_free(r.loop));
    heard(&r, "");
}

static void *break_main(void *arg)
{
    struct timespec moment = {0, 5000000}; /* so that the loop sleeps by then */
    nanosleep(&moment, NULL);
    pm_loop_break(arg);
    return NULL;
}

static void test_break(void **state)
{
    pthread_t thread;
    record r = {0};
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    pthread_create(&thread, NULL, break_main, r.loop);
    assert_ok(pm_loop_run(r.loop));
    pthread_join(thread, NULL);
    /* One that comes before the run is not lost, not even when a poll has
     * eaten its wake-up. */
    pm_loop_break(r.loop);
    assert_ok(pm_loop_poll(r.loop, 0));
    assert_ok(pm_loop_run(r.loop));
    /* ... and serves once. */
    assert_ok(pm_loop_post(r.loop, break_post, r.loop));
    assert_ok(pm_loop_run(r.loop));
    assert_ok(pm_loop_free(r.loop));
}

/* What was asked for before the end of the turn is done before run returns. */
static void break_and_flush(pmi_timer *timer)
{
    door *d = PMI_OUTER(timer, door, timer);
    pm_loop_break(d->r->loop);
    pmi_loop_defer(d->r->loop, &d->task, say_task);
    pmi_loop_flush_later(d->r->loop, &d->flush, say_flush);
}

static void test_break_flushes(void **state)
{
    record r = {0};
    door d = {.r = &r};
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    pmi_timer_set(r.loop, &d.timer, 0, break_and_flush);
    assert_ok(pm_loop_run(r.loop));
    heard(&r, "task flush");
    assert_ok(pm_loop_free(r.loop));
}

/* ---- Borrowed bases ---------------------------------------------------- */
static pm_loop *loop_on(struct event_base *base, int priority, test_heap *heap)
{
    pm_loop_opts opts = pm_loop_opts_default();
    pm_loop *loop;
    opts.base = base;
    opts.priority = priority;
    if (heap)
        opts.alloc = test_alloc(heap);
    assert_ok(pm_loop_new(&loop, &opts));
    return loop;
}

/* The host's own event. */
static void say_host(evutil_socket_t fd, short what, void *arg)
{
    char byte;
    (void)what;
    assert_int_equal(recv(fd, &byte, 1, 0), 1);
    say(arg, "host");
}

static void priorities(int ours, int hosts, const char *want)
{
    struct event_base *base = event_base_new();
    record r = {0};
    struct event *event;
    door a, b;
    assert_int_equal(event_base_priority_init(base, 3), 0);
    r.loop = loop_on(base, ours, NULL);
    door_open(&a, &r, "x", act_ask_all);
    door_open(&b, &r, "y", door_read);
    event = event_new(base, b.fd, EV_READ, say_host, &r);
    event_priority_set(event, hosts);
    event_add(event, NULL);
    assert_ok(pmi_watch_set(&a.watch, PMI_READABLE));
    door_knock(&a);
    door_knock(&b);
    event_base_loop(base, EVLOOP_NONBLOCK); /* the host runs it */
    heard(&r, want);
    event_free(event);
    door_close(&a);
    door_close(&b);
    assert_ok(pm_loop_free(r.loop));
    event_base_free(base);
}

static void test_priorities(void **state)
{
    (void)state;
    priorities(0, 2, "x . grave task flush host");
    priorities(2, 0, "host x . grave task flush");
    priorities(-1, 0, "host x . grave task flush"); /* the default: middle */
    priorities(-1, 2, "x . grave task flush host");
}

static void test_priority_refused(void **state)
{
    struct event_base *base = event_base_new();
    pm_loop_opts opts = pm_loop_opts_default();
    pm_loop *loop = NULL;
    (void)state;
    opts.base = base;
    opts.priority = 1; /* it has 0 only */
    assert_err(pm_loop_new(&loop, &opts), PM_EINVAL);
    assert_null(loop);
    event_base_free(base);
}

/* pm_loop_run and pm_loop_break serve a borrowed base too; a break does not
 * end a dispatch of the host's. */
static void test_borrowed_run(void **state)
{
    struct event_base *base = event_base_new();
    struct timeval soon = {0, 20000};
    record r = {0};
    door d = {.r = &r};
    (void)state;
    r.loop = loop_on(base, -1, NULL);
    pmi_timer_set(r.loop, &d.timer, 1000, break_timer);
    assert_ok(pm_loop_run(r.loop));
    pmi_timer_set(r.loop, &d.timer, 1000, break_timer);
    event_base_loopexit(base, &soon);
    assert_int_equal(event_base_dispatch(base), 0);
    assert_true(event_base_got_exit(base));
    assert_false(event_base_got_break(base));
    assert_ok(pm_loop_free(r.loop));
    assert_int_equal(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED),
                     0);
    event_base_free(base);
}

/* ---- Nesting ----------------------------------------------------------- */
static void act_nest(door *d, int what)
{
    door_read(d, what);
    say(d->r, pm_err_name(pm_loop_poll(d->r->loop, 0)));
    say(d->r, pm_err_name(pm_loop_run(d->r->loop)));
    say(d->r, pm_err_name(pm_loop_free(d->r->loop)));
}

static void test_nesting(void **state)
{
    record r = {0};
    door d;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    door_open(&d, &r, "d", act_nest);
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE));
    door_knock(&d);
    assert_ok(pm_loop_poll(r.loop, 0));
    heard(&r, "d PM_EINVAL PM_EINVAL PM_ESTATE");
    door_close(&d);
    assert_ok(pm_loop_free(r.loop));
}

static void quiet(int severity, const char *text)
{
    (void)severity;
    (void)text;
}

static void act_poll_other(door *d, int what)
{
    pm_loop *other = d->other->r->loop;
    door_read(d, what);
    say(d->r, pm_err_name(pm_loop_poll(other, 0)));
    say(d->r, pm_err_name(pm_loop_run(other)));
}

/* Two loops on one base: dispatch does not nest either. */
static void test_nesting_shared(void **state)
{
    struct event_base *base = event_base_new();
    record r = {0}, second = {0};
    door d, other = {.r = &second};
    (void)state;
    r.loop = loop_on(base, -1, NULL);
    second.loop = loop_on(base, -1, NULL);
    door_open(&d, &r, "d", act_poll_other);
    d.other = &other;
    assert_ok(pmi_watch_set(&d.watch, PMI_READABLE));
    door_knock(&d);
    event_set_log_callback(quiet); /* libevent tells stderr */
    assert_ok(pm_loop_poll(r.loop, 0));
    event_set_log_callback(NULL);
    heard(&r, "d PM_EINVAL PM_EINVAL");
    door_close(&d);
    assert_ok(pm_loop_free(second.loop));
    assert_ok(pm_loop_free(r.loop));
    event_base_free(base);
}

/* ---- Budget ------------------------------------------------------------ */
static uint64_t fake_clock(void *ctx)
{
    return *(uint64_t *)ctx;
}

static void act_work(door *d, int what)
{
    door_read(d, what);
    *(uint64_t *)(void *)d->other += 100;
    pmi_loop_flush_later(d->r->loop, &d->flush, say_flush);
}

/* Four callbacks of 100 us, 150 us a poll: two in each, the rest stays active
 * and comes first; the flush comes behind all. */
static void budget_on(struct event_base *base)
{
    uint64_t clock = 1000000;
    pm_loop_opts opts = pm_loop_opts_default();
    record r = {0};
    door doors[4];
    pm_err errs[3];
    opts.base = base;
    opts.clock_us = fake_clock;
    opts.seam_ctx = &clock;
    assert_ok(pm_loop_new(&r.loop, &opts));
    for (size_t i = 0; i < 4; i++) {
        door_open(&doors[i], &r, "x", act_work);
        doors[i].other = (door *)(void *)&clock;
        assert_ok(pmi_watch_set(&doors[i].watch, PMI_READABLE));
        door_knock(&doors[i]);
    }
    errs[0] = pm_loop_poll(r.loop, 150);
    heard(&r, "x x");
    errs[1] = pm_loop_poll(r.loop, 150);
    heard(&r, "x x");
    errs[2] = pm_loop_poll(r.loop, 150);
    heard(&r, "flush flush flush flush");
    assert_err(errs[0], PM_EAGAIN);
    assert_err(errs[1], PM_EAGAIN);
    assert_err(errs[2], PM_OK);
    for (size_t i = 0; i < 4; i++)
        door_close(&doors[i]);
    assert_ok(pm_loop_free(r.loop));
}

static void test_budget(void **state)
{
    struct event_base *base = event_base_new();
    (void)state;
    budget_on(NULL);
    budget_on(base);
    event_base_free(base);
}

/* ---- Memory ------------------------------------------------------------ */
static void test_no_memory(void **state)
{
    test_heap heap = {0};
    record r = {0};
    door d;
    (void)state;
    TEST_EACH_FAILURE(&heap)
    {
        pm_loop_opts opts = pm_loop_opts_default();
        pm_err err;
        opts.alloc = test_alloc(&heap);
        err = pm_loop_new(&r.loop, &opts);
        if (err) {
            assert_err(err, PM_ENOMEM);
            continue;
        }
        door_open(&d, &r, "d", door_read);
        err = pmi_watch_set(&d.watch, PMI_READABLE | PMI_WRITABLE);
        assert_true(err == PM_OK || err == PM_ENOMEM);
        if (err) { /* nothing half done */
            door_knock(&d);
            assert_ok(pm_loop_poll(r.loop, 0));
            heard(&r, "");
        }
        door_close(&d);
        assert_ok(pm_loop_free(r.loop));
    }
}

/* ---- Signals ----------------------------------------------------------- */
static void on_signal(void *ctx)
{
    say(ctx, "signal");
    pm_loop_break(((record *)ctx)->loop);
}

static void test_signal(void **state)
{
    record r = {0};
    void *handle = NULL;
    struct sigaction before, after;
    (void)state;
    sigaction(SIGUSR1, NULL, &before);
    assert_ok(pm_loop_new(&r.loop, NULL));
    assert_ok(pmi_loop_signal(r.loop, SIGUSR1, on_signal, &r, &handle));
    raise(SIGUSR1);
    heard(&r, "");
    assert_ok(pm_loop_run(r.loop));
    heard(&r, "signal");
    pmi_loop_signal_end(handle);
    pmi_loop_signal_end(NULL);
    sigaction(SIGUSR1, NULL, &after);
    assert_true(before.sa_handler == after.sa_handler);
    assert_ok(pm_loop_free(r.loop));
}

/* ---- Names ------------------------------------------------------------- */
/* A DNS server on the same loop. The first letter of a name says how it
 * answers: 4 or 6: that kind of address only; b: both; n: no such name;
 * m: not at all. */
typedef struct dns {
    record *r;
    pmi_watch watch;
    int fd;
    int asked, left;
    char where[32];
} dns;

/* 12 bytes of head, labels, type, class: where the question ends. */
static size_t dns_question_end(const uint8_t *q, size_t len)
{
    size_t at = 12;
    while (at < len && q[at])
        at += 1u + q[at];
    return at + 5;
}

static size_t dns_answer(uint8_t *q, size_t len)
{
    static const uint8_t four[4] = {10, 1, 2, 3};
    static const uint8_t six[16] = {0xfd, [15] = 5};
    size_t end = dns_question_end(q, len);
    uint8_t type = q[end - 3];
    char kind = (char)q[13];
    bool a = type == 1 && (kind == '4' || kind == 'b' || kind == 'B');
    bool aaaa = type == 28 && (kind == '6' || kind == 'b' || kind == 'B');
    assert_true(end <= len);
    q[2] = 0x84;
    q[3] = kind == 'n' || kind == 'N' ? 3 : 0;
    memset(q + 6, 0, 6);
    if (!a && !aaaa)
        return end;
    const uint8_t head[12] = {0xc0, 12, 0, type, 0, 1,
                              0,    0,  0, 60,   0, a ? 4 : 16};
    q[7] = 1;
    memcpy(q + end, head, sizeof head);
    memcpy(q + end + sizeof head, a ? four : six, head[11]);
    return end + sizeof head + head[11];
}

static void dns_ready(pmi_watch *watch, int what)
{
    dns *d = PMI_OUTER(watch, dns, watch);
    uint8_t q[1024];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    (void)what;
    ssize_t n = recvfrom(d->fd, q, sizeof q - 64, MSG_DONTWAIT,
                         (struct sockaddr *)(void *)&from, &from_len);
    if (n < 17)
        return;
    d->asked++;
    if (q[13] == 'm' || q[13] == 'M') {
        if (d->left == 1) /* only the mute one is left */
            pm_loop_break(d->r->loop);
        return;
    }
    sendto(d->fd, q, dns_answer(q, (size_t)n), 0,
           (struct sockaddr *)(void *)&from, from_len);
}

static void dns_open(dns *d, record *r)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    socklen_t len = sizeof sin;
    memset(d, 0, sizeof *d);
    d->r = r;
    d->fd = socket(AF_INET, SOCK_DGRAM, 0);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(d->fd, (struct sockaddr *)(void *)&sin, sizeof sin),
                     0);
    getsockname(d->fd, (struct sockaddr *)(void *)&sin, &len);
    snprintf(d->where, sizeof d->where, "127.0.0.1:%u", ntohs(sin.sin_port));
    pmi_watch_init(r->loop, &d->watch, d->fd, dns_ready);
    assert_ok(pmi_watch_set(&d->watch, PMI_READABLE));
    assert_ok(pmi_loop_set_nameserver(r->loop, d->where));
}

static void dns_close(dns *d)
{
    pmi_watch_fini(&d->watch);
    pmi_sock_close(d->fd);
}

typedef struct question {
    record *r;
    dns *at;
    pm_err err;
    char text[PMI_ADDR_TEXT_MAX];
    uint16_t port;
    int answers;
    bool inside;
} question;

static void on_name(pm_err err, const pmi_addr *addr, void *ctx)
{
    question *q = ctx;
    q->err = err;
    q->answers++;
    q->inside = pmi_loop_inside(q->r->loop);
    if (addr) {
        pmi_addr_text(addr, q->text);
        q->port = pmi_addr_port(addr);
    }
    if (q->at && --q->at->left == 0)
        pm_loop_break(q->r->loop);
}

static void test_names(void **state)
{
    static const struct {
        const char *name, *text;
    } cases[] = {{"4.test", "10.1.2.3"},
                 {"6.test", "fd00::5"},
                 {"b.test", "10.1.2.3"},
                 {"n.test", ""},
                 {"127.0.0.9", "127.0.0.9"}};
    question q[PMI_COUNT(cases)] = {0}, cancelled = {0};
    record r = {0};
    void *handle;
    dns server;
    (void)state;
    assert_ok(pm_loop_new(&r.loop, NULL));
    dns_open(&server, &r);
    cancelled.r = &r;
    assert_ok(
        pmi_loop_resolve(r.loop, "4.other", 1, on_name, &cancelled, &handle));
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        q[i] = (question){.r = &r, .at = &server};
        assert_ok(pmi_loop_resolve(r.loop, cases[i].name, (uint16_t)(80 + i),
                                   on_name, &q[i], NULL));
        server.left++;
    }
    pmi_loop_resolve_cancel(r.loop, handle);
    assert_ok(pm_loop_run(r.loop));
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        assert_int_equal(q[i].answers, 1);
        assert_true(q[i].inside);
        assert_err(q[i].err, *cases[i].text ? PM_OK : PM_ERESOLVE);
        assert_string_equal(q[i].text, cases[i].text);
        assert_int_equal(q[i].port, *cases[i].text ? 80 + i : 0);
    }
    assert_int_equal(cancelled.answers, 0);
    assert_true(server.asked >= 6);
    dns_close(&server);
    assert_ok(pm_loop_free(r.loop));
}

/* Freed with questions under way: told so, and evdns' last words reach nobody.
 */
static void free_under_way(struct event_base *base)
{
    test_heap heap = {0};
    record r = {0};
    question q, lost;
    void *handle;
    dns server;
    r.loop = loop_on(base, -1, &heap);
    dns_open(&server, &r);
    server.left = 1;
    q = lost = (question){.r = &r};
    assert_ok(pmi_loop_resolve(r.loop, "m.test", 1, on_name, &q, &handle));
    assert_ok(pmi_loop_resolve(r.loop, "m.lost", 1, on_name, &lost, &handle));
    assert_ok(pm_loop_run(r.loop));
    pmi_loop_resolve_cancel(r.loop, handle);
    assert_int_equal(q.answers, 0);
    dns_close(&server);
    assert_ok(pm_loop_free(r.loop));
    assert_heap_empty(&heap);
    assert_int_equal(q.answers, 1);
    assert_int_equal(lost.answers, 0);
    assert_err(q.err, PM_ECLOSED);
    if (base)
        event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(q.answers, 1);
}

static void test_names_free(void **state)
{
    struct event_base *base = event_base_new();
    (void)state;
    free_under_way(NULL);
    free_under_way(base);
    event_base_free(base);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_watch),
    cmocka_unit_test(test_watch_write),
    cmocka_unit_test(test_watch_fini_inside),
    cmocka_unit_test(test_watch_memory),
    cmocka_unit_test(test_turn_order),
    cmocka_unit_test(test_no_starving),
    cmocka_unit_test(test_timers_real),
    cmocka_unit_test(test_post),
    cmocka_unit_test(test_post_inside),
    cmocka_unit_test(test_break),
    cmocka_unit_test(test_break_flushes),
    cmocka_unit_test(test_priorities),
    cmocka_unit_test(test_priority_refused),
    cmocka_unit_test(test_borrowed_run),
    cmocka_unit_test(test_nesting),
    cmocka_unit_test(test_nesting_shared),
    cmocka_unit_test(test_budget),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_signal),
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_names_free),
};

TEST_MAIN(tests)
