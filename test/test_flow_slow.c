/* SPDX-License-Identifier: MIT */
/* test_flow_slow.c -- clients who do not read: what waits for them, what is
 * dropped by which policy, and what they get when they read again, to the byte.
 * Start at test_drop_oldest. */
#include "slow.h"

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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_drop_oldest),
    cmocka_unit_test(test_drop_new),
    cmocka_unit_test(test_keep),
    cmocka_unit_test(test_replace),
    cmocka_unit_test(test_keys_of_routes),
    cmocka_unit_test(test_close),
    cmocka_unit_test(test_against_the_model),
};

TEST_MAIN(tests)
