/* SPDX-License-Identifier: MIT */
/* test_flow_slow.c -- clients who do not read: what waits for them, what is
 * dropped by which policy, and what they get when they read again, to the byte.
 * Start at test_drop_oldest. */
#include "slow.h"
#include "pomelo_count_internal.h"

/* ---- Each policy ------------------------------------------------------- */

/* 200 pushes of one policy to Alice, who does not read; then she does. */
static void tell(slow *s, model *m, pm_push_policy policy, bool shared)
{
    m->s = s;
    slow_open(s);
    slow_enter(s);
    slow_stall(s);
    for (uint32_t i = 0; i < 200; i++) {
        slow_push push = {policy, NULL, i, 1000};
        pm_err want = model_say(m, &push, slow_wire(s, push.len));
        assert_err(shared ? slow_say_shared(s, &push) : slow_say(s, &push),
                   shared ? PM_OK : want);
        if (i % 7 == 0)
            town_run(&s->t, 1);
        if (m->closed)
            break;
        assert_true(pm_session_queued(s->session) <= SLOW_LIMIT);
    }
    assert_counts(s, m);
    assert_int_equal(s->drained, 0);
    if (!m->closed)
        assert_int_equal(pm_session_dropped(s->session),
                         m->oldest + m->fresh + m->replaced);
    slow_read_on(s);
}

static void test_drop_oldest(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        slow s = {0};
        model m = {0};
        tell(&s, &m, PM_PUSH_DROP_OLDEST, shared);
        assert_model(&s, &m);
        /* The last ones, as many as fit beside what was there before. */
        assert_int_equal(m.count, (SLOW_SHARE - SLOW_BLOCK) /
                                      (slow_wire(&s, 1000) + 128));
        assert_int_equal(s.got[0], 200 - m.count);
        assert_int_equal(m.oldest, 200 - m.count);
        assert_int_equal(s.drained, 1);
        assert_ptr_equal(s.drained_session, s.session);
        assert_int_equal(slow_counts(s.t.c1).drained, 1);
        slow_end(&s);
    }
}

static void test_drop_new(void **state)
{
    slow s = {0};
    model m = {0};
    (void)state;
    tell(&s, &m, PM_PUSH_DROP_NEW, false);
    assert_model(&s, &m);
    assert_int_equal(s.got[0], 0);
    assert_int_equal(m.fresh, 200 - m.count);
    assert_int_equal(s.drained, 1);
    /* There is room again. */
    assert_ok(slow_say(&s, &(slow_push){PM_PUSH_DROP_NEW, NULL, 7, 10}));
    town_run(&s.t, 1);
    assert_int_equal(s.got[s.got_count - 1], 7);
    assert_int_equal(s.drained, 1);
    slow_end(&s);
}

static void test_keep(void **state)
{
    slow s = {0};
    model m = {0};
    (void)state;
    tell(&s, &m, PM_PUSH_KEEP, false);
    assert_true(m.closed);
    assert_true(s.closed);
    assert_int_equal(s.closed_why, PM_CLOSE_QUEUE);
    assert_int_equal(slow_counts(s.t.c1).closed, 1);
    assert_model(&s, &m); /* what had been taken is offered all the same */
    slow_end(&s);
}

/* Of each key the latest, at the place of its making. */
static void test_replace(void **state)
{
    static const char *const keys[] = {"a", "b", NULL, "c"};
    slow s = {0};
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    slow_stall(&s);
    for (uint32_t i = 0; i < 4000; i++) {
        slow_push push = {PM_PUSH_REPLACE, keys[i == 3999 ? 3 : i % 3], i, 500};
        assert_ok(slow_say(&s, &push));
    }
    assert_int_equal(slow_counts(s.t.c1).replaced, 4000 - 4);
    assert_int_equal(pm_session_queued(s.session),
                     SLOW_BLOCK + 4 * slow_wire(&s, 500));
    slow_read_on(&s);
    assert_int_equal(s.got_count, 4);
    assert_int_equal(s.got[0], 3996);
    assert_int_equal(s.got[1], 3997);
    assert_int_equal(s.got[2], 3998);
    assert_int_equal(s.got[3], 3999);
    slow_end(&s);
}

/* The same key of another route is another key. */
static void test_keys_of_routes(void **state)
{
    slow s = {0};
    pm_push_opts opts = pm_push_opts_default();
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    slow_stall(&s);
    opts.session = s.session;
    opts.policy = PM_PUSH_REPLACE;
    for (uint32_t i = 0; i < 4; i++) {
        char body[5];
        snprintf(body, sizeof body, "%04u", i);
        opts.route = i % 2 ? "one" : "two";
        opts.key = i < 2 ? "k" : NULL;
        opts.body = pm_body_bytes(body, 4);
        assert_ok(pm_push(s.t.c1, &opts, NULL, NULL));
    }
    assert_int_equal(slow_counts(s.t.c1).replaced, 0);
    slow_read_on(&s);
    assert_int_equal(s.got_count, 4);
    slow_end(&s);
}

/* The strict one is closed, though enough could be dropped. */
static void test_close(void **state)
{
    slow s = {0};
    uint32_t i;
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    slow_stall(&s);
    for (i = 0; i < 100; i++)
        assert_ok(
            slow_say(&s, &(slow_push){PM_PUSH_DROP_OLDEST, NULL, i, 1000}));
    assert_ok(slow_say(&s, &(slow_push){PM_PUSH_CLOSE, NULL, 1, 5000}));
    assert_err(slow_say(&s, &(slow_push){PM_PUSH_CLOSE, NULL, 2, 5000}),
               PM_ELIMIT);
    assert_err(slow_say(&s, &(slow_push){PM_PUSH_KEEP, NULL, 3, 10}),
               PM_ECLOSED);
    town_run(&s.t, 1);
    assert_int_equal(s.closed_why, PM_CLOSE_QUEUE);
    assert_int_equal(slow_counts(s.t.c1).closed, 1);
    assert_int_equal(pm_session_queued(s.session), 0);
    slow_end(&s);
}

/* What is gathered and what waits behind it have one limit, in the turn of a
 * client who reads, too. Nobody is closed for what may be dropped. */
static void test_gathered(void **state)
{
    (void)state;
    for (int ws = 0; ws < 2; ws++) {
        slow s = {.ws = ws, .t = {.scheduler = PM_SCHEDULER_BUFFER}};
        uint32_t sent = 200;
        slow_open(&s);
        slow_enter(&s);
        for (uint32_t i = 0; i < sent; i++) {
            slow_say(&s, &(slow_push){PM_PUSH_DROP_OLDEST, NULL, i, 1000});
            assert_true(pm_session_queued(s.session) <= SLOW_LIMIT);
        }
        town_run(&s.t, 100);
        assert_false(s.closed);
        assert_true(s.got_count > 0);
        assert_int_equal(s.got_count, sent - pm_session_dropped(s.session));
        slow_end(&s);
    }
}

/* ---- All at once, against the model ------------------------------------ */

static void ask_first(slow *s, uint32_t count)
{
    for (uint32_t id = 1; id <= count; id++) {
        static const char route[] = "connector.h.hold";
        uint8_t package[32] = {PMI_PACKAGE_DATA};
        package[3] = (uint8_t)(3 + sizeof route - 1);
        package[5] = (uint8_t)id;
        package[6] = sizeof route - 1;
        memcpy(package + 7, route, sizeof route - 1);
        slow_send(s, package, 7 + sizeof route - 1);
    }
    town_run(&s->t, 5);
    assert_int_equal(s->held_count, count);
}

static void model_answer(slow *s, model *m)
{
    uint8_t body[600] = {0};
    pm_slice bytes = {body, 1 + test_world_below(&s->t.world, sizeof body)};
    uint32_t id = (uint32_t)s->held_count--;
    size_t package = PMI_PACKAGE_HEAD + 2 + bytes.len;
    slow_push push = {PM_PUSH_KEEP, NULL, SLOW_ANSWER + id, 0};
    if (s->ws)
        package += pmi_ws_head_size(package, false);
    model_say(m, &push, package);
    assert_err(pm_reply_bytes(s->held[id - 1], bytes),
               m->closed ? PM_ELIMIT : PM_OK);
}

static void one_of_many(uint64_t seed, bool ws, pm_scheduler scheduler)
{
    static const char *const keys[] = {"a", "b", "c", NULL};
    slow s = {.ws = ws, .t = {.scheduler = scheduler}};
    static model m;
    test_world *w = &s.t.world;
    memset(&m, 0, sizeof m);
    w->seed = seed;
    slow_open(&s);
    slow_enter(&s);
    ask_first(&s, 40);
    slow_stall(&s);
    for (uint32_t i = 0; i < 600 && !m.closed; i++) {
        slow_push push = {(pm_push_policy)(1 + test_world_below(w, 4)),
                          keys[test_world_below(w, 4)], i, 0};
        bool shared = test_world_below(w, 2);
        pm_err want;
        if (push.policy == PM_PUSH_KEEP && test_world_below(w, 8))
            push.policy = PM_PUSH_DROP_OLDEST; /* most are not */
        push.len = 4 + test_world_below(w, test_world_below(w, 4) ? 300 : 6000);
        if (s.held_count && !test_world_below(w, 20)) {
            model_answer(&s, &m);
            continue;
        }
        want = model_say(&m, &push, slow_wire(&s, push.len));
        if (shared)
            slow_say_shared(&s, &push);
        else
            assert_err(slow_say(&s, &push), want);
        if (!test_world_below(w, 10))
            town_run(&s.t, 1);
        if (!m.closed)
            assert_int_equal(
                pmi_conn_queued(((pmi_downlink *)s.session->conn)->conn),
                model_sum(&m, false) - 128 * model_ranked(&m));
    }
    while (s.held_count)
        pm_request_drop(s.held[--s.held_count]);
    assert_counts(&s, &m);
    slow_read_on(&s);
    assert_model(&s, &m);
    assert_int_equal(s.closed, m.closed);
    slow_end(&s);
}

static void test_against_the_model(void **state)
{
    uint64_t seeds = getenv("PM_PROOF") ? 5000 : 40;
    (void)state;
    for (uint64_t seed = 1; seed <= seeds; seed++)
        one_of_many(seed, seed % 2,
                    seed % 4 < 2 ? PM_SCHEDULER_DIRECT : PM_SCHEDULER_BUFFER);
}

/* ---- By default, and from other servers -------------------------------- */

static void test_policy_of_the_app(void **state)
{
    slow s = {.t = {.push_policy = PM_PUSH_DROP_NEW}};
    static const pm_push_policy asked[] = {PM_PUSH_DEFAULT,
                                           PM_PUSH_DROP_OLDEST};
    pm_app_opts opts = pm_app_opts_default();
    pm_app *none;
    model m = {.s = &s};
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    slow_stall(&s);
    for (uint32_t i = 0; i < 200; i++) {
        slow_push push = {asked[i % 10 == 9], NULL, i, 1000};
        slow_push want = push;
        if (!want.policy)
            want.policy = PM_PUSH_DROP_NEW;
        assert_err(slow_say(&s, &push),
                   model_say(&m, &want, slow_wire(&s, 1000)));
    }
    assert_true(m.oldest && m.fresh);
    assert_counts(&s, &m);
    slow_read_on(&s);
    assert_model(&s, &m);
    opts.loop = s.t.loop;
    opts.servers = town_servers;
    opts.servers_count = PMI_COUNT(town_servers);
    opts.server_id = "c-1";
    opts.connector.push_policy = (pm_push_policy)6;
    assert_err(pm_app_new(&none, &opts), PM_EINVAL);
    slow_end(&s);
}

static void on_found(pm_err err, pm_session *const *sessions, size_t count,
                     void *ctx)
{
    pm_session **out = ctx;
    assert_ok(err);
    assert_int_equal(count, 1);
    *out = sessions[0];
    pm_session_ref(*out);
}

/* Policy and key travel: to uids, a channel, everybody, one session. */
static void test_from_a_backend(void **state)
{
    slow s = {0};
    const pm_receiver alice = {"alice", "c-1"};
    pm_broadcast_opts all = pm_broadcast_opts_default();
    pm_session *view = NULL;
    pm_channel *room;
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    room = pm_channel_get(s.t.chat, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_session_fetch_uid(s.t.chat, "c-1", "alice", on_found, &view));
    town_run(&s.t, 5);
    assert_non_null(view);
    assert_int_equal(pm_session_queued(view), 0);
    slow_stall(&s);
    all.frontend_type = "connector";
    all.route = "r";
    all.policy = PM_PUSH_REPLACE;
    all.key = "k";
    for (uint32_t i = 0; i < 8; i++) {
        uint8_t body[64];
        pm_push_opts push = slow_opts(
            &(slow_push){PM_PUSH_REPLACE, i < 4 ? "k" : "other", i, 64}, body);
        all.body = push.body;
        if (i % 4 == 0)
            push.session = view;
        else if (i % 4 == 1)
            push.channel = room;
        else
            push.receivers = &alice, push.receivers_count = 1;
        assert_ok(i == 3 ? pm_broadcast(s.t.chat, &all, NULL, NULL)
                         : pm_push(s.t.chat, &push, NULL, NULL));
        town_run(&s.t, 5);
    }
    assert_int_equal(slow_counts(s.t.c1).replaced, 6);
    slow_read_on(&s);
    assert_int_equal(s.got_count, 2);
    assert_int_equal(s.got[0], 3);
    assert_int_equal(s.got[1], 7);
    pm_session_unref(view);
    slow_end(&s);
}

/* What can not be asked for. */
static void test_refused(void **state)
{
    slow s = {0};
    const pm_receiver alice = {"alice", "c-1"};
    receipt told = {0};
    char key[257];
    uint8_t body[8];
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    for (int i = 0; i < 6; i++) {
        pm_push_opts push =
            slow_opts(&(slow_push){PM_PUSH_KEEP, NULL, 1, 8}, body);
        push.session = s.session;
        if (i == 0)
            push.policy = (pm_push_policy)6;
        memset(key, 'k', 256);
        key[256] = 0;
        if (i == 1)
            push.key = key;
        if (i == 2)
            push.channel = pm_channel_get(s.t.c1, "room", true);
        if (i == 3)
            push.receivers = &alice, push.receivers_count = 1;
        if (i == 4)
            push.size--;
        assert_err(pm_push(s.t.c1, &push, i == 5 ? told_cb : NULL, &told),
                   PM_EINVAL);
    }
    town_run(&s.t, 5);
    assert_int_equal(told.times, 0);
    assert_int_equal(s.got_count, 0);
    slow_end(&s);
}

/* ---- What it costs ----------------------------------------------------- */

static size_t heap_of(slow *s)
{
    return s->t.heap.live_bytes;
}

/* However small the pushes, and however they come: no more than the limit. */
static void test_small_ones(void **state)
{
    static const pm_push_policy policies[] = {PM_PUSH_DROP_OLDEST,
                                              PM_PUSH_DROP_NEW, PM_PUSH_KEEP};
    (void)state;
    for (int i = 0; i < 12; i++) {
        slow s = {0};
        size_t before, len = i < 6 ? 20 : 1500;
        bool shared = i % 2;
        slow_open(&s);
        slow_enter(&s);
        slow_stall(&s);
        before = heap_of(&s);
        for (uint32_t n = 0; n < 60000 / len || i / 2 % 3 < 2; n++) {
            slow_push push = {policies[i / 2 % 3], NULL, n, len};
            if (n == 3000 ||
                pm_session_queued(s.session) + len + 300 > SLOW_LIMIT)
                break;
            if (shared)
                slow_say_shared(&s, &push);
            else
                slow_say(&s, &push);
        }
        assert_true(pm_session_queued(s.session) > SLOW_SHARE / 8);
        assert_true(heap_of(&s) - before < SLOW_LIMIT + SLOW_LIMIT / 10 + 8192);
        slow_read_on(&s);
        assert_false(s.closed);
        slow_end(&s);
    }
}

static bool count_queued(pm_session *session, void *ctx)
{
    *(size_t *)ctx += pm_session_queued(session);
    return true;
}

/* In each queue for its limit, in memory once. */
static void test_shared_once(void **state)
{
    enum { MANY = 20, LARGE = 10 * 1024 };
    slow s = {0};
    static uint8_t body[SLOW_FILL];
    pm_broadcast_opts all = pm_broadcast_opts_default();
    size_t before, queued = 0;
    (void)state;
    slow_open(&s);
    for (int i = 0; i < MANY; i++) {
        person *p = town_enter(&s.t, s.t.c1, NULL);
        pmi_conn_pause(p->conn);
    }
    memset(body, 'x', sizeof body);
    all.frontend_type = "connector";
    all.route = "r";
    for (int i = 0; i < PMI_PIPE_WINDOW / SLOW_FILL; i++) {
        all.body = pm_body_bytes(body, SLOW_FILL - slow_wire(&s, 0));
        assert_ok(pm_broadcast(s.t.c1, &all, NULL, NULL));
        town_run(&s.t, 1);
    }
    all.body = pm_body_bytes(body, 10);
    assert_ok(pm_broadcast(s.t.c1, &all, NULL, NULL));
    town_run(&s.t, 1);
    before = heap_of(&s);
    all.policy = PM_PUSH_DROP_OLDEST;
    all.body = pm_body_bytes(body, LARGE);
    for (int i = 0; i < 5; i++)
        assert_ok(pm_broadcast(s.t.c1, &all, NULL, NULL));
    town_run(&s.t, 5); /* what goes to c-2 has left */
    assert_true(heap_of(&s) - before < 5 * LARGE + MANY * 2048);
    pm_session_each(s.t.c1, NULL, count_queued, &queued);
    assert_int_equal(queued,
                     MANY * (5 * slow_wire(&s, LARGE) + slow_wire(&s, 10)));
    /* One more: each drops one, and the first is nobody's any more. */
    assert_ok(pm_broadcast(s.t.c1, &all, NULL, NULL));
    assert_int_equal(slow_counts(s.t.c1).dropped_oldest, MANY);
    town_run(&s.t, 5);
    assert_true(heap_of(&s) - before < 5 * LARGE + MANY * 2048);
    slow_end(&s);
}

/* ---- Ends and failures ------------------------------------------------- */

static void test_freed_when_drained(void **state)
{
    slow s = {0};
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    slow_stall(&s);
    for (uint32_t i = 0; i < 100; i++)
        slow_say(&s, &(slow_push){PM_PUSH_DROP_OLDEST, NULL, i, 1000});
    s.free_when_drained = s.t.c1;
    slow_read_on(&s);
    assert_int_equal(s.drained, 1);
    assert_true(s.closed);
    assert_true(s.got_count > 40); /* they had left before */
    slow_end(&s);
}

/* A slow hour, with allocation k of it refused. False: there was no such. */
static bool hour(size_t k, bool for_good)
{
    static const char *const keys[] = {"a", "b", NULL};
    slow s = {0};
    bool hit;
    slow_open(&s);
    slow_enter(&s);
    slow_stall(&s);
    s.t.heap.fail_at = s.t.heap.calls + k;
    s.t.heap.fail_after = for_good;
    for (uint32_t i = 0; i < 120; i++) {
        slow_push push = {(pm_push_policy)(PM_PUSH_KEEP + i % 4), keys[i % 3],
                          i, i % 5 ? 900 : 30};
        pm_err err = i % 2 ? slow_say(&s, &push) : slow_say_shared(&s, &push);
        assert_true(err == PM_OK || err == PM_EDROPPED || err == PM_ENOMEM);
    }
    town_run(&s.t, 30);
    hit = s.t.heap.failed;
    s.t.heap.fail_at = 0;
    slow_read_on(&s);
    assert_false(s.closed);
    for (size_t i = 1; i < s.got_count; i++)
        assert_true(s.got[i - 1] < s.got[i]);
    assert_true(hit || s.got_count > 20);
    slow_end(&s);
    return hit;
}

static void test_without_memory(void **state)
{
    (void)state;
    for (size_t k = 1; hour(k, false) && k < 400; k++)
        if (k % 8 == 1)
            hour(k, true);
}

/* ---- Answers ----------------------------------------------------------- */

static void on_large(pm_request *req, void *ctx)
{
    static uint8_t body[1000];
    (void)ctx;
    pm_reply_bytes(req, pm_bytes(body, sizeof body));
}

static void configure_large(town *t, pm_app *app)
{
    slow_configure(t, app);
    assert_ok(pm_app_handler(app, "connector.h.large", on_large, t));
}

static void ask_large(slow *s, uint32_t id)
{
    static const char route[] = "connector.h.large";
    uint8_t package[40] = {PMI_PACKAGE_DATA, 0, 0, 4 + sizeof route - 1, 0};
    package[5] = (uint8_t)(0x80 | (id & 0x7f));
    package[6] = (uint8_t)(id >> 7);
    package[7] = sizeof route - 1;
    memcpy(package + 8, route, sizeof route - 1);
    slow_send(s, package, 8 + sizeof route - 1);
}

/* Who asks on and does not read is not read either, and loses nothing. */
static void test_answers_wait(void **state)
{
    slow s = {.t = {.heartbeat_s = 3, .client_queue_bytes = SLOW_LIMIT}};
    (void)state;
    s.t.configure = configure_large;
    town_open(&s.t);
    slow_enter(&s);
    slow_stall(&s);
    for (uint32_t id = 128; id < 128 + 400; id++)
        ask_large(&s, id);
    town_run(&s.t, 100);
    assert_false(s.closed);
    assert_true(pm_session_queued(s.session) > SLOW_LIMIT / 2);
    assert_true(pm_session_queued(s.session) < SLOW_LIMIT / 2 + 2048);
    slow_read_on(&s);
    assert_int_equal(s.got_count, 400);
    for (uint32_t i = 0; i < 400; i++)
        assert_int_equal(s.got[i], SLOW_ANSWER + 128 + i);
    assert_int_equal(pmi_app_counts(s.t.c1)->n[PMI_COUNT_PAUSED_QUEUE] > 0, 1);
    slow_end(&s);
}

/* ... but not for ever: in two heartbeats' time something must leave. */
static void test_never_reads(void **state)
{
    slow s = {.t = {.heartbeat_s = 3}};
    (void)state;
    s.t.configure = configure_large;
    s.t.client_queue_bytes = SLOW_LIMIT;
    town_open(&s.t);
    slow_enter(&s);
    slow_stall(&s);
    for (uint32_t id = 128; id < 128 + 400; id++)
        ask_large(&s, id);
    town_run(&s.t, 5500);
    assert_int_equal(s.closed_why, PM_CLOSE_NONE);
    town_run(&s.t, 7000);
    assert_int_equal(s.closed_why, PM_CLOSE_QUEUE);
    slow_end(&s);
}

/* ---- Between servers --------------------------------------------------- */

static uint64_t far_away(void *ctx, const char *from, const char *to,
                         size_t bytes)
{
    (void)ctx;
    (void)bytes;
    (void)to;
    return !strcmp(from, "chat-1") || strstr(from, "4060") ? 1000000 : 0;
}

/* A link that takes a second: what does not fit is dropped or refused, counted
 * and told; what was taken arrives in order. */
static void test_a_slow_link(void **state)
{
    slow s = {
        .t = {.peer_queue_bytes = SLOW_LIMIT, .client_queue_bytes = 4 * BIG}};
    const pm_receiver alice = {"alice", "c-1"};
    static uint8_t body[8192];
    pm_err err[3] = {PM_OK, PM_OK, PM_OK};
    receipt told = {0};
    pm_push_opts push;
    (void)state;
    slow_open(&s);
    slow_enter(&s);
    pmi_loop_set_link_fault(s.t.loop, far_away, NULL);
    for (uint32_t i = 0; i < 200; i++) {
        push =
            slow_opts(&(slow_push){PM_PUSH_DROP_OLDEST, NULL, i, 4000}, body);
        push.receivers = &alice;
        push.receivers_count = 1;
        err[0] = pm_push(s.t.chat, &push, NULL, NULL);
        assert_ok(err[0]);
        if (i % 8 == 0)
            town_run(&s.t, 1);
    }
    assert_true(slow_counts(s.t.chat).peer_dropped > 50);
    assert_true(pm_server_queued(s.t.chat, "c-1") > SLOW_SHARE / 2);
    assert_true(pm_server_queued(s.t.chat, "c-1") <= SLOW_LIMIT);
    /* What is kept makes room as long as something can be dropped. */
    for (uint32_t i = 0; i < 40 && err[1] == PM_OK; i++) {
        push = slow_opts(&(slow_push){PM_PUSH_KEEP, NULL, 300 + i, 4000}, body);
        push.receivers = &alice;
        push.receivers_count = 1;
        err[1] = pm_push(s.t.chat, &push, NULL, NULL);
    }
    assert_err(err[1], PM_ELIMIT);
    push.policy = PM_PUSH_DROP_NEW;
    assert_err(pm_push(s.t.chat, &push, NULL, NULL), PM_EDROPPED);
    push.policy = PM_PUSH_DROP_OLDEST;
    assert_ok(pm_push(s.t.chat, &push, told_cb, &told)); /* told, so kept */
    assert_true(slow_counts(s.t.chat).peer_refused >= 2);
    assert_int_equal(s.server_drained, 0);
    pmi_loop_set_link_fault(s.t.loop, NULL, NULL);
    town_run(&s.t, 4000);
    assert_told(&told, PM_ELIMIT, "alice@c-1 ");
    assert_true(s.server_drained > 0);
    assert_true(s.got_count > 60);
    for (size_t i = 1; i < s.got_count; i++)
        assert_true(s.got[i - 1] < s.got[i]);
    slow_end(&s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_drop_oldest),
    cmocka_unit_test(test_drop_new),
    cmocka_unit_test(test_keep),
    cmocka_unit_test(test_replace),
    cmocka_unit_test(test_keys_of_routes),
    cmocka_unit_test(test_close),
    cmocka_unit_test(test_gathered),
    cmocka_unit_test(test_against_the_model),
    cmocka_unit_test(test_policy_of_the_app),
    cmocka_unit_test(test_from_a_backend),
    cmocka_unit_test(test_refused),
    cmocka_unit_test(test_small_ones),
    cmocka_unit_test(test_shared_once),
    cmocka_unit_test(test_freed_when_drained),
    cmocka_unit_test(test_without_memory),
    cmocka_unit_test(test_answers_wait),
    cmocka_unit_test(test_never_reads),
    cmocka_unit_test(test_a_slow_link),
};

TEST_MAIN(tests)
