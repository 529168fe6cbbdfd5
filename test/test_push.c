/* SPDX-License-Identifier: MIT */
/* test_push.c -- one message to many: who gets it, who is told to be missed, at
 * which cost, and that it fails whole or not at all. Start at
 * test_to_a_channel. */
#include "town.h"
#include "pomelo_frame_internal.h"

static pm_err say_to_all(pm_app *app, const char *type, const char *route,
                         pm_body body, bool bound_only, pm_push_cb cb,
                         void *ctx)
{
    pm_broadcast_opts opts = pm_broadcast_opts_default();
    opts.frontend_type = type;
    opts.route = route;
    opts.body = body;
    opts.bound_only = bound_only;
    return pm_broadcast(app, &opts, cb, ctx);
}

/* ---- To a channel ------------------------------------------------------ */

static void test_to_a_channel(void **state)
{
    town t = {0};
    receipt told = {0};
    person *alice, *alice2, *bob, *carol, *other;
    pm_channel *room;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    alice2 = town_enter(&t, t.c1, "alice"); /* a second session */
    bob = town_person(&t, t.c1, "bob", PMI_FRAMING_WS);
    carol = town_enter(&t, t.c2, "carol");
    other = town_enter(&t, t.c2, "other");
    room = pm_channel_get(t.chat, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "carol", "c-2"));
    assert_ok(pm_channel_add(room, "gone", "c-2"));
    assert_ok(pm_channel_add(room, "bob", "c-1"));
    assert_ok(pm_channel_add(room, "left", "c-1"));
    assert_ok(pm_channel_push(room, "onChat", pm_body_text("{\"i\":1}"),
                              told_cb, &told));
    assert_int_equal(told.times, 0);
    town_run(&t, 10);
    assert_told(&told, PM_OK, "left@c-1 gone@c-2 ");
    assert_int_equal(pushes_of(t.chat)->calls_sent, 2);
    assert_int_equal(pushes_of(t.c1)->encoded, 1);
    assert_int_equal(pushes_of(t.c1)->delivered, 3);
    assert_int_equal(pushes_of(t.c2)->encoded, 1);
    assert_ok(
        pm_channel_push(room, "onChat", pm_body_text("{\"i\":2}"), NULL, NULL));
    town_run(&t, 10);
    assert_string_equal(alice->heard, "onChat {\"i\":1};onChat {\"i\":2};");
    assert_string_equal(alice2->heard, alice->heard);
    assert_string_equal(bob->heard, alice->heard);
    assert_string_equal(carol->heard, alice->heard);
    assert_int_equal(other->pushes, 0);
    assert_int_equal(pushes_of(t.chat)->calls_sent, 4);
    assert_int_equal(pushes_of(t.c1)->encoded, 2);
    town_close(&t);
}

/* Joining and leaving between two pushes: the kept list must not be stale. */
static void test_after_a_change(void **state)
{
    town t = {0};
    receipt told[3] = {0};
    person *alice, *bob;
    pm_channel *room;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    bob = town_enter(&t, t.c1, "bob");
    room = pm_channel_get(t.chat, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_push(room, "r", pm_body_text("1"), told_cb, &told[0]));
    assert_ok(pm_channel_add(room, "bob", "c-1"));
    assert_ok(pm_channel_push(room, "r", pm_body_text("2"), told_cb, &told[1]));
    assert_ok(pm_channel_leave(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "nobody", "c-1"));
    assert_ok(pm_channel_push(room, "r", pm_body_text("3"), told_cb, &told[2]));
    pm_channel_destroy(room); /* what was said before still arrives */
    town_run(&t, 10);
    assert_string_equal(alice->heard, "r 1;r 2;");
    assert_string_equal(bob->heard, "r 2;r 3;");
    assert_told(&told[0], PM_OK, "");
    assert_told(&told[1], PM_OK, "");
    assert_told(&told[2], PM_OK, "nobody@c-1 ");
    town_close(&t);
}

/* The app is a frontend itself: no call, yet the callback comes later. */
static void test_here(void **state)
{
    town t = {0};
    receipt told = {0};
    person *alice, *carol;
    pm_channel *room;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    carol = town_enter(&t, t.c2, "carol");
    room = pm_channel_get(t.c1, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "gone", "c-1"));
    assert_ok(pm_channel_push(room, "r", pm_body_text("1"), told_cb, &told));
    assert_int_equal(told.times, 0);
    assert_int_equal(pushes_of(t.c1)->delivered, 1); /* at once */
    town_run(&t, 10);
    assert_told(&told, PM_OK, "gone@c-1 ");
    assert_int_equal(pushes_of(t.c1)->calls_sent, 0);
    assert_ok(pm_channel_add(room, "carol", "c-2"));
    assert_ok(pm_channel_push(room, "r", pm_body_text("2"), NULL, NULL));
    town_run(&t, 10);
    assert_int_equal(pushes_of(t.c1)->calls_sent, 1);
    assert_string_equal(alice->heard, "r 1;r 2;");
    assert_string_equal(carol->heard, "r 2;");
    town_close(&t);
}

static void test_to_nobody(void **state)
{
    town t = {0};
    receipt told[3] = {0};
    pm_channel *room;
    (void)state;
    town_open(&t);
    room = pm_channel_get(t.chat, "room", true);
    assert_ok(pm_channel_push(room, "r", pm_body_text("1"), told_cb, &told[0]));
    assert_ok(pm_push_uids(t.chat, "r", pm_body_text("1"), NULL, 0, told_cb,
                           &told[1]));
    assert_ok(say_to_all(t.chat, "no-such-type", "r", pm_body_text("1"), false,
                         told_cb, &told[2]));
    for (int i = 0; i < 3; i++)
        assert_int_equal(told[i].times, 0);
    town_run(&t, 10);
    for (int i = 0; i < 3; i++)
        assert_told(&told[i], PM_OK, "");
    town_close(&t);
}

/* ---- To named ones ----------------------------------------------------- */

static void test_to_uids(void **state)
{
    town t = {0};
    receipt told = {0};
    const pm_receiver whom[] = {{"alice", "c-1"}, {"carol", "c-2"},
                                {"gone", "c-1"},  {"bob", "c-1"},
                                {"dave", "c-2"},  {"erin", "chat-1"}};
    person *alice, *bob, *carol;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    bob = town_enter(&t, t.c1, "bob");
    carol = town_enter(&t, t.c2, "carol");
    assert_ok(pm_push_uids(t.chat, "onMsg", pm_body_text("{}"), whom,
                           PMI_COUNT(whom), told_cb, &told));
    town_run(&t, 10);
    assert_told(&told, PM_OK, "gone@c-1 dave@c-2 erin@chat-1 ");
    assert_int_equal(pushes_of(t.chat)->calls_sent, 2);
    assert_string_equal(alice->heard, "onMsg {};");
    assert_string_equal(bob->heard, alice->heard);
    assert_string_equal(carol->heard, alice->heard);
    town_close(&t);
}

/* Frontends that can not be reached: their receivers are missed, all of them;
 * the callback always comes. */
static void test_unreachable(void **state)
{
    town t = {0};
    receipt told[4] = {0};
    const pm_receiver some[] = {
        {"a", "ghost-1"}, {"alice", "c-1"}, {"b", "nowhere"}, {"c", "ghost-1"}};
    const pm_receiver none[] = {{"a", "nowhere"}, {"b", "nowhere"}};
    const pm_receiver down[] = {{"a", "ghost-1"}};
    person *alice;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    assert_ok(pm_push_uids(t.chat, "r", pm_body_text("1"), some, 4, told_cb,
                           &told[0]));
    assert_ok(pm_push_uids(t.chat, "r", pm_body_text("1"), none, 2, told_cb,
                           &told[1]));
    assert_ok(pm_push_uids(t.chat, "r", pm_body_text("1"), down, 1, told_cb,
                           &told[2]));
    assert_int_equal(told[1].times, 0);
    town_run(&t, 10);
    assert_told(&told[0], PM_OK, "a@ghost-1 c@ghost-1 b@nowhere ");
    assert_told(&told[1], PM_ENOSERVER, "a@nowhere b@nowhere ");
    assert_told(&told[2], PM_EDOWN, "a@ghost-1 ");
    assert_string_equal(alice->heard, "r 1;");
    /* One that goes while it has the call. */
    assert_ok(pm_push_uids(t.chat, "r", pm_body_text("2"), &some[1], 1, told_cb,
                           &told[3]));
    pm_app_free(t.c1);
    t.c1 = NULL;
    town_run(&t, 10);
    assert_told(&told[3], PM_ECLOSED, "alice@c-1 ");
    town_close(&t);
}

/* Kicked just now, and not gone yet: as good as gone. */
static void test_closing_session_is_missed(void **state)
{
    town t = {0};
    receipt told = {0};
    const pm_receiver whom[] = {{"alice", "c-1"}};
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    assert_ok(pm_session_kick(t.last, "out", NULL, NULL));
    assert_ok(
        pm_push_uids(t.c1, "r", pm_body_text("1"), whom, 1, told_cb, &told));
    town_run(&t, 10);
    assert_told(&told, PM_OK, "alice@c-1 ");
    town_close(&t);
}

/* ---- To all ------------------------------------------------------------ */

static void test_broadcast(void **state)
{
    town t = {0};
    receipt told[2] = {0};
    person *alice, *twice, *anonymous, *carol;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    twice = town_enter(&t, t.c1, "alice");
    anonymous = town_enter(&t, t.c1, NULL);
    carol = town_person(&t, t.c2, "carol", PMI_FRAMING_WS);
    assert_ok(say_to_all(t.chat, "connector", "all", pm_body_text("1"), false,
                         told_cb, &told[0]));
    town_run(&t, 10);
    assert_told(&told[0], PM_OK, "");
    assert_int_equal(pushes_of(t.chat)->calls_sent, 2);
    assert_ok(say_to_all(t.c1, "connector", "bound", pm_body_text("2"), true,
                         told_cb, &told[1]));
    town_run(&t, 10);
    assert_told(&told[1], PM_OK, "");
    assert_int_equal(pushes_of(t.c1)->calls_sent, 1);
    assert_int_equal(pushes_of(t.c1)->encoded, 2);
    /* Two sessions of one uid: one copy each (Pomelo sends two times two). */
    assert_string_equal(alice->heard, "all 1;bound 2;");
    assert_string_equal(twice->heard, alice->heard);
    assert_string_equal(carol->heard, alice->heard);
    assert_string_equal(anonymous->heard, "all 1;");
    town_close(&t);
}

static void test_broadcast_to_the_dead(void **state)
{
    town t = {0};
    receipt told = {0};
    (void)state;
    town_open(&t);
    assert_ok(say_to_all(t.chat, "ghost", "all", pm_body_text("1"), false,
                         told_cb, &told));
    town_run(&t, 10);
    assert_told(&told, PM_EDOWN, "");
    town_close(&t);
}

/* What the filters of a frontend were asked, and what they do. */
typedef struct sieve {
    char asked[HEARD_MAX]; /* "route body param;" */
    size_t len, times;
    const char *only; /* this uid alone */
    pm_session *kick; /* when asked */
    pm_app *free_this;
} sieve;

static bool sieve_cb(pm_session *session, const char *route, pm_body body,
                     const char *filter_param, void *ctx)
{
    sieve *f = ctx;
    const char *uid = pm_session_uid(session);
    pm_app *app = f->free_this;
    f->times++;
    f->len += (size_t)snprintf(f->asked + f->len, HEARD_MAX - f->len,
                               "%s %.*s %s;", route, (int)body.data.len,
                               (const char *)body.data.data,
                               filter_param ? filter_param : "-");
    if (f->kick)
        assert_ok(pm_session_kick(f->kick, "out", NULL, NULL));
    f->free_this = NULL;
    pm_app_free(app);
    return !f->only || (uid && !strcmp(uid, f->only));
}

static pm_err say_filtered(pm_app *app, const char *param, bool bound_only,
                           receipt *told)
{
    pm_broadcast_opts opts = pm_broadcast_opts_default();
    opts.frontend_type = "connector";
    opts.route = "news";
    opts.body = pm_body_text("1");
    opts.bound_only = bound_only;
    opts.filter_param = param;
    return pm_broadcast(app, &opts, told ? told_cb : NULL, told);
}

static void test_broadcast_filter(void **state)
{
    town t = {0};
    sieve f1 = {.only = "alice"}, f2 = {0};
    receipt told[4] = {0};
    person *alice, *bob, *anonymous, *carol;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    bob = town_enter(&t, t.c1, "bob");
    anonymous = town_enter(&t, t.c1, NULL);
    carol = town_person(&t, t.c2, "carol", PMI_FRAMING_WS);
    pm_app_broadcast_filter(t.c1, sieve_cb, &f1);
    pm_app_broadcast_filter(t.c2, sieve_cb, &f2);
    assert_ok(say_filtered(t.chat, "level > 3", false, &told[0]));
    town_run(&t, 10);
    assert_told(&told[0], PM_OK, "");
    assert_string_equal(f1.asked, "news 1 level > 3;news 1 level > 3;"
                                  "news 1 level > 3;");
    assert_string_equal(f2.asked, "news 1 level > 3;");
    assert_int_equal(pushes_of(t.c1)->delivered, 1);
    /* From a frontend, its own sessions too; who is unbound is not asked. */
    assert_ok(say_filtered(t.c1, NULL, true, &told[1]));
    assert_int_equal(told[1].times, 0);
    town_run(&t, 10);
    assert_string_equal(f2.asked, "news 1 level > 3;news 1 -;");
    assert_int_equal(f1.times, 5);
    /* An empty one is not the same as none. */
    assert_ok(say_filtered(t.c2, "", true, &told[2]));
    town_run(&t, 10);
    assert_string_equal(f2.asked, "news 1 level > 3;news 1 -;news 1 ;");
    pm_app_broadcast_filter(t.c1, NULL, NULL);
    assert_ok(say_filtered(t.chat, "x", false, &told[3]));
    town_run(&t, 10);
    assert_int_equal(f1.times, 7);
    assert_int_equal(alice->pushes, 4);
    assert_int_equal(bob->pushes, 1);
    assert_int_equal(anonymous->pushes, 1);
    assert_int_equal(carol->pushes, 4);
    town_close(&t);
}

static void test_filter_param_is_bounded(void **state)
{
    const size_t max = PMI_FILTER_PARAM_MAX;
    town t = {0};
    sieve f = {0};
    receipt told = {0};
    pm_broadcast_opts bad = {0};
    char *param = malloc(max + 2);
    (void)state;
    assert_non_null(param);
    memset(param, 'p', max + 1);
    param[max + 1] = 0;
    town_open(&t);
    assert_err(say_filtered(t.chat, param, false, &told), PM_EINVAL);
    assert_err(pm_broadcast(t.chat, NULL, told_cb, &told), PM_EINVAL);
    bad.frontend_type = "connector";
    bad.route = "r";
    bad.body = pm_body_text("1");
    assert_err(pm_broadcast(t.chat, &bad, told_cb, &told), PM_EINVAL);
    param[max] = 0;
    assert_ok(say_filtered(t.chat, param, false, &told));
    town_run(&t, 10);
    assert_told(&told, PM_OK, "");
    assert_int_equal(f.times, 0); /* nobody is there */
    free(param);
    town_close(&t);
}

/* The filter ends sessions and apps, asked by a call or by the app itself. */
static void check_filter_frees(bool here)
{
    town t = {0};
    sieve f = {0};
    receipt told = {0};
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    town_enter(&t, t.c1, "bob");
    f.free_this = t.c1;
    pm_app_broadcast_filter(t.c1, sieve_cb, &f);
    if (here) {
        assert_err(say_filtered(t.c1, NULL, false, &told), PM_ECLOSED);
    } else {
        assert_ok(say_filtered(t.chat, NULL, false, &told));
    }
    t.c1 = NULL;
    town_run(&t, 10);
    assert_int_equal(f.times, 1);
    assert_int_equal(told.times, here ? 0 : 1);
    assert_int_equal(t.people[0].pushes + t.people[1].pushes, 0);
    town_close(&t);
}

static void test_filter_does_things(void **state)
{
    town t = {0};
    sieve f = {0};
    receipt told = {0};
    (void)state;
    check_filter_frees(true);
    check_filter_frees(false);
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    f.kick = t.last;
    town_enter(&t, t.c1, "bob");
    pm_app_broadcast_filter(t.c1, sieve_cb, &f);
    assert_ok(say_filtered(t.chat, NULL, false, &told));
    town_run(&t, 10);
    assert_told(&told, PM_OK, "");
    assert_int_equal(f.times, 2);
    assert_int_equal(t.people[1].pushes, 1);
    town_close(&t);
}

/* What a backend's view of a session sends. */
static void test_by_session(void **state)
{
    town t = {0};
    pmi_buf bytes;
    pmi_env env = test_env(&t.heap);
    pm_session *view;
    person *alice, *bob;
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    pmi_buf_init(&bytes, &env, SIZE_MAX);
    pmi_session_export(t.last, &bytes);
    bob = town_enter(&t, t.c1, "bob");
    assert_ok(pmi_session_import(t.chat, pmi_buf_slice(&bytes), &view));
    pmi_buf_fini(&bytes);
    assert_ok(pm_session_push(view, "toYou", pm_body_text("1")));
    town_run(&t, 10);
    assert_string_equal(alice->heard, "toYou 1;");
    assert_int_equal(bob->pushes, 0);
    pm_session_unref(view);
    town_close(&t);
}

/* ---- The price --------------------------------------------------------- */

/* Allocations and bytes on the wire of the second push to n members. */
static size_t price_of(size_t n, uint64_t *bytes)
{
    town t = {0};
    pm_channel *room;
    size_t calls;
    uint64_t out;
    char uid[16];
    town_open(&t);
    room = pm_channel_get(t.chat, "room", true);
    for (size_t i = 0; i < n; i++) {
        snprintf(uid, sizeof uid, "user%04zu", i);
        assert_ok(pm_channel_add(room, uid, "c-1"));
    }
    assert_ok(pm_channel_push(room, "r", pm_body_text("{}"), NULL, NULL));
    town_run(&t, 10);
    calls = t.heap.calls;
    out = pmi_conn_totals_of(t.loop)->bytes_out;
    assert_ok(pm_channel_push(room, "r", pm_body_text("{}"), NULL, NULL));
    calls = t.heap.calls - calls;
    town_run(&t, 1);
    *bytes = pmi_conn_totals_of(t.loop)->bytes_out - out;
    assert_int_equal(pushes_of(t.chat)->calls_sent, 2);
    assert_int_equal(pushes_of(t.c1)->encoded, 0); /* nobody is there */
    town_close(&t);
    return calls;
}

static void test_price_of_many_members(void **state)
{
    uint64_t few, many;
    size_t calls = price_of(10, &few), calls_many = price_of(1000, &many);
    (void)state;
    assert_true(calls_many <= calls + 4); /* chunks of the send queue */
    assert_true(few >= 10 * 9 && few < 10 * 9 + 64);
    assert_true(many >= 1000 * 9 && many < 1000 * 9 + 64);
}

/* A large body to many sessions lies in memory once, not once for each. */
static void test_price_of_many_sessions(void **state)
{
    enum { SESSIONS = 50, BODY = 400 * 1024 };
    town t = {0};
    char *body = malloc(BODY);
    size_t before;
    (void)state;
    assert_non_null(body);
    memset(body, 'x', BODY);
    town_open(&t);
    for (size_t i = 0; i < SESSIONS; i++)
        town_person(&t, t.c1, "alice",
                    i % 2 ? PMI_FRAMING_WS : PMI_FRAMING_STREAM);
    before = t.heap.live_bytes;
    assert_ok(say_to_all(t.c1, "connector", "r", pm_body_bytes(body, BODY),
                         false, NULL, NULL));
    assert_int_equal(pushes_of(t.c1)->encoded, 1);
    assert_int_equal(pushes_of(t.c1)->delivered, SESSIONS);
    assert_true(t.heap.live_bytes - before < 4 * BODY);
    town_run(&t, 100);
    for (size_t i = 0; i < SESSIONS; i++)
        assert_int_equal(t.people[i].bytes, BODY);
    free(body);
    town_close(&t);
}

/* More uids than one frame should hold: several calls, one callback. */
static void test_long_lists_are_split(void **state)
{
    enum { MANY = 20000 };
    town t = {0};
    receipt told = {0};
    pm_channel *room;
    person *alice;
    char uid[121];
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    room = pm_channel_get(t.chat, "room", true);
    memset(uid, 'u', 120);
    uid[120] = 0;
    for (int i = 0; i < MANY; i++) {
        snprintf(uid, 8, "%07d", i);
        uid[7] = '-';
        assert_ok(pm_channel_add(room, uid, "c-1"));
    }
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_push(room, "r", pm_body_text("1"), told_cb, &told));
    town_run(&t, 100);
    assert_int_equal(told.times, 1);
    assert_ok(told.err);
    assert_int_equal(told.missed_count, MANY);
    assert_int_equal(pushes_of(t.chat)->calls_sent, 3); /* 2.4 MB */
    assert_string_equal(alice->heard, "r 1;");
    town_close(&t);
}

/* ---- What is refused --------------------------------------------------- */

static void check_refused(town *t, const char *route, pm_body body, pm_err want)
{
    const pm_receiver whom[] = {{"alice", "c-1"}, {"carol", "c-2"}};
    pm_channel *room = pm_channel_get(t->c1, "room", true);
    receipt told = {0};
    assert_err(pm_channel_push(room, route, body, told_cb, &told), want);
    assert_err(pm_push_uids(t->c1, route, body, whom, 2, told_cb, &told), want);
    assert_err(
        say_to_all(t->c1, "connector", route, body, false, told_cb, &told),
        want);
    town_run(t, 10);
    assert_int_equal(told.times, 0);
}

static void test_arguments(void **state)
{
    town t = {0};
    receipt told = {0};
    const pm_receiver bad[] = {
        {"", "c-1"}, {NULL, "c-1"}, {"alice", ""}, {"alice", NULL}};
    const size_t large = 17 * (size_t)BIG;
    char long_route[257], *bytes = calloc(1, large);
    person *alice;
    (void)state;
    assert_non_null(bytes);
    memset(long_route, 'r', 256);
    long_route[256] = 0;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    assert_ok(
        pm_channel_add(pm_channel_get(t.c1, "room", true), "alice", "c-1"));
    check_refused(&t, NULL, pm_body_text("1"), PM_EINVAL);
    check_refused(&t, "", pm_body_text("1"), PM_EINVAL);
    check_refused(&t, long_route, pm_body_text("1"), PM_EINVAL);
    check_refused(&t, "r", pm_body_none(), PM_EINVAL);
    check_refused(&t, "r", pm_body_bytes(bytes, large), PM_ESIZE);
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        assert_err(pm_push_uids(t.c1, "r", pm_body_text("1"), &bad[i], 1,
                                told_cb, &told),
                   PM_EINVAL);
    assert_err(
        pm_push_uids(t.c1, "r", pm_body_text("1"), NULL, 1, told_cb, &told),
        PM_EINVAL);
    assert_err(
        say_to_all(t.c1, NULL, "r", pm_body_text("1"), false, told_cb, &told),
        PM_EINVAL);
    town_run(&t, 10);
    assert_int_equal(told.times, 0);
    assert_int_equal(alice->pushes, 0);
    assert_ok(pm_channel_push(pm_channel_get(t.c1, "room", true),
                              long_route + 1, pm_body_text("1"), NULL, NULL));
    town_run(&t, 10);
    assert_int_equal(alice->pushes, 1);
    free(bytes);
    town_close(&t);
}

/* A body that fits a client and a call, but no call with this list: nobody gets
 * it, this server's own sessions neither. */
static void test_too_large_with_its_list(void **state)
{
    enum { BODY = 16 * BIG - 64 * 1024 };
    town t = {0};
    receipt told = {0};
    char *body = calloc(1, BODY), uid[256];
    pm_channel *room;
    (void)state;
    assert_non_null(body);
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    room = pm_channel_get(t.c1, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    memset(uid, 'u', 255);
    uid[255] = 0;
    for (int i = 0; i < 4000; i++) {
        snprintf(uid, 8, "%07d", i);
        uid[7] = '-';
        assert_ok(pm_channel_add(room, uid, "c-2"));
    }
    assert_err(
        pm_channel_push(room, "r", pm_body_bytes(body, BODY), told_cb, &told),
        PM_ESIZE);
    town_run(&t, 10);
    assert_int_equal(told.times, 0);
    assert_int_equal(pushes_of(t.c1)->encoded, 0);
    free(body);
    town_close(&t);
}

/* A frontend that takes no more. */
static void test_full_link(void **state)
{
    town t = {.peer_queue_bytes = 8192};
    receipt told = {0};
    char body[10000] = {0};
    pm_channel *room;
    (void)state;
    town_open(&t);
    room = pm_channel_get(t.chat, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_push(room, "r", pm_body_bytes(body, sizeof body),
                              told_cb, &told));
    assert_err(pm_channel_push(room, "r", pm_body_bytes(body, sizeof body),
                               NULL, NULL),
               PM_ELIMIT);
    assert_int_equal(told.times, 0);
    town_run(&t, 10);
    assert_told(&told, PM_ELIMIT, "alice@c-1 ");
    town_close(&t);
}

/* What a peer may send that is no list of receivers. */
typedef struct served {
    int times;
    pm_err err;
    int code;
    size_t extra_len;
} served;

static void served_cb(const pmi_rpc_answer *answer, void *ctx)
{
    served *s = ctx;
    s->times++;
    s->err = answer->result.err;
    s->code = answer->result.code;
    s->extra_len = answer->extra.len;
}

static void check_served(town *t, pmi_op op, const char *hex, const char *route,
                         pm_err code)
{
    pmi_rpc_send_opts send = {.op = op,
                              .server_id = "c-1",
                              .method = pm_text(route),
                              .body = pm_body_text("1")};
    served got = {0};
    size_t len;
    uint8_t *bytes = test_unhex(hex, &len);
    send.extra = pm_bytes(bytes, len);
    assert_ok(pmi_rpc_send(pmi_app_rpc(t->chat), &send, served_cb, &got, NULL));
    town_run(t, 10);
    free(bytes);
    assert_int_equal(got.times, 1);
    assert_err(got.err, code ? PM_EREMOTE : PM_OK);
    assert_err((pm_err)got.code, code);
}

static void test_hostile_calls(void **state)
{
    town t = {0};
    person *alice;
    char sid[32];
    (void)state;
    town_open(&t);
    alice = town_enter(&t, t.c1, "alice");
    snprintf(sid, sizeof sid, "01 %016llx",
             (unsigned long long)pm_session_id(t.last));
    check_served(&t, PMI_OP_PUSH, "", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "00", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "03 05 616c696365", "r", PM_EFRAME);
    /* A list is looked through before anybody gets anything. */
    check_served(&t, PMI_OP_PUSH, "02 05 616c696365 05 616c6963", "r",
                 PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "02 05 616c696365 00", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "02 05 616c696365 02 6100", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "02 05 616c696365 ff", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "01", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "01 00000000000001", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "01 0000000000000001 00", "r", PM_EFRAME);
    check_served(&t, PMI_OP_PUSH, "01 ffffffffffffffff", "r", PM_ENOTFOUND);
    check_served(&t, PMI_OP_PUSH, "02 05 616c696365", "", PM_EINVAL);
    check_served(&t, PMI_OP_BROADCAST, "", "r", PM_EFRAME);
    check_served(&t, PMI_OP_BROADCAST, "0100", "r", PM_EFRAME);
    check_served(&t, PMI_OP_BROADCAST, "00 61", "r", PM_EFRAME);
    check_served(&t, PMI_OP_BROADCAST, "04", "r", PM_EFRAME);
    check_served(&t, PMI_OP_BROADCAST, "ff 61", "r", PM_EFRAME);
    check_served(&t, PMI_OP_BROADCAST, "02 6100", "r", PM_EFRAME);
    check_served(&t, PMI_OP_BROADCAST, "00", "", PM_EINVAL);
    assert_int_equal(alice->pushes, 0);
    check_served(&t, PMI_OP_PUSH, "02", "r", PM_OK);
    check_served(&t, PMI_OP_PUSH, "02 05 616c696365", "r", PM_OK);
    check_served(&t, PMI_OP_PUSH, sid, "r", PM_OK);
    check_served(&t, PMI_OP_BROADCAST, "00", "r", PM_OK);
    check_served(&t, PMI_OP_BROADCAST, "02", "r", PM_OK);
    check_served(&t, PMI_OP_BROADCAST, "03 61", "r", PM_OK);
    assert_int_equal(alice->pushes, 5);
    town_close(&t);
}

/* ---- Ends -------------------------------------------------------------- */

static const pm_receiver both[] = {{"alice", "c-1"}, {"carol", "c-2"}};

static void test_free_completes(void **state)
{
    town t = {0};
    receipt far = {0}, here = {0}, told_again = {0};
    (void)state;
    town_open(&t);
    far.push_here = here.push_here = t.c1;
    assert_ok(
        pm_push_uids(t.c1, "r", pm_body_text("1"), &both[1], 1, told_cb, &far));
    assert_ok(pm_push_uids(t.c1, "r", pm_body_text("1"), &both[0], 1, told_cb,
                           &here));
    assert_ok(pm_push_uids(t.c1, "r", pm_body_text("1"), both, 2, told_cb,
                           &told_again));
    pm_app_free(t.c1);
    t.c1 = NULL;
    assert_told(&far, PM_ECLOSED, "carol@c-2 ");
    assert_err(far.pushed, PM_ECLOSED);
    assert_int_equal(here.times, 1);
    assert_err(here.err, PM_ECLOSED);
    assert_err(here.pushed, PM_ECLOSED);
    assert_int_equal(told_again.times, 1);
    town_run(&t, 10);
    assert_int_equal(far.times + here.times + told_again.times, 3);
    town_close(&t);
}

static void test_free_from_its_callback(void **state)
{
    town t = {0};
    receipt far = {0}, second = {0};
    (void)state;
    town_open(&t);
    far.free_this = t.chat;
    assert_ok(
        pm_push_uids(t.chat, "r", pm_body_text("1"), both, 2, told_cb, &far));
    assert_ok(pm_push_uids(t.chat, "r", pm_body_text("1"), both, 2, told_cb,
                           &second));
    t.chat = NULL;
    town_run(&t, 10);
    assert_told(&far, PM_OK, "alice@c-1 carol@c-2 ");
    assert_int_equal(second.times, 1);
    town_close(&t);
}

/* ---- Without memory ---------------------------------------------------- */

typedef struct hungry {
    town t;
    receipt told[4];
    bool accepted[4];
} hungry;

static bool hungry_asked(pm_err err)
{
    if (err != PM_OK && err != PM_ENOMEM)
        fail_msg("%s", pm_err_name(err));
    return err == PM_OK;
}

static void hungry_push(hungry *h)
{
    town *t = &h->t;
    pm_body body = pm_body_text("{\"i\":1}");
    pm_channel *room = pm_channel_get(t->chat, "room", true);
    h->accepted[0] =
        hungry_asked(pm_channel_push(room, "r", body, told_cb, &h->told[0]));
    h->accepted[1] = hungry_asked(
        pm_push_uids(t->c1, "r", body, both, 2, told_cb, &h->told[1]));
    h->accepted[2] = hungry_asked(say_to_all(t->chat, "connector", "r", body,
                                             false, told_cb, &h->told[2]));
    town_run(t, 1);
    h->accepted[3] =
        hungry_asked(pm_channel_push(room, "r", body, told_cb, &h->told[3]));
    town_run(t, 6000); /* over every deadline */
}

static void hungry_check(hungry *h, bool hit)
{
    for (int i = 0; i < 4; i++) {
        assert_int_equal(h->told[i].times, h->accepted[i] ? 1 : 0);
        if (!hit) {
            assert_true(h->accepted[i]);
            assert_ok(h->told[i].err);
        }
    }
    /* Who says that it worked names everybody who was missed. */
    for (int i = 0; i < 4; i += 3)
        if (h->accepted[i] && h->told[i].err == PM_OK)
            assert_non_null(strstr(h->told[i].missed, "gone@c-1 "));
    if (!hit) {
        assert_string_equal(h->told[0].missed, "gone@c-1 ");
        assert_int_equal(h->t.people[0].pushes, 4);
        assert_int_equal(h->t.people[1].pushes, 4);
    }
}

/* Each allocation of the pushes fails once, then all from there on. */
static bool hungry_round(size_t k, bool after)
{
    hungry h = {0};
    pm_channel *room;
    receipt told = {0};
    bool hit;
    town_open(&h.t);
    town_enter(&h.t, h.t.c1, "alice");
    town_enter(&h.t, h.t.c2, "carol");
    room = pm_channel_get(h.t.chat, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "carol", "c-2"));
    assert_ok(pm_channel_add(room, "gone", "c-1"));
    h.t.heap.calls = 0;
    h.t.heap.fail_after = after;
    h.t.heap.fail_at = k;
    hungry_push(&h);
    h.t.heap.fail_at = 0;
    hit = h.t.heap.failed > 0;
    hungry_check(&h, hit);
    /* And with memory again, all is as it was. */
    town_run(&h.t, 5000);
    assert_ok(pm_channel_push(room, "r", pm_body_text("1"), told_cb, &told));
    town_run(&h.t, 10);
    assert_int_equal(told.times, 1);
    assert_ok(told.err);
    town_close(&h.t);
    return hit;
}

static void test_without_memory(void **state)
{
    size_t k = 1;
    (void)state;
    while (hungry_round(k, false))
        k++;
    assert_true(k > 10);
    for (k = 1; hungry_round(k, true);)
        k++;
}

/* To one frontend: what fails inside the call is the call's own answer. */
static bool hungry_call(size_t k)
{
    town t = {0};
    receipt told = {0};
    pm_channel *room;
    bool hit;
    pm_err err;
    town_open(&t);
    room = pm_channel_get(t.chat, "room", true);
    assert_ok(pm_channel_add(room, "gone", "c-1"));
    t.heap.calls = 0;
    t.heap.fail_at = k;
    err = pm_channel_push(room, "r", pm_body_text("1"), told_cb, &told);
    t.heap.fail_at = 0;
    hit = t.heap.failed > 0;
    assert_err(err, hit ? PM_ENOMEM : PM_OK);
    town_run(&t, 100);
    assert_int_equal(told.times, hit ? 0 : 1);
    town_close(&t);
    return hit;
}

static void test_call_without_memory(void **state)
{
    size_t k = 1;
    (void)state;
    while (hungry_call(k))
        k++;
    assert_true(k > 4);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_to_a_channel),
    cmocka_unit_test(test_after_a_change),
    cmocka_unit_test(test_here),
    cmocka_unit_test(test_to_nobody),
    cmocka_unit_test(test_to_uids),
    cmocka_unit_test(test_unreachable),
    cmocka_unit_test(test_closing_session_is_missed),
    cmocka_unit_test(test_broadcast),
    cmocka_unit_test(test_broadcast_to_the_dead),
    cmocka_unit_test(test_broadcast_filter),
    cmocka_unit_test(test_filter_param_is_bounded),
    cmocka_unit_test(test_filter_does_things),
    cmocka_unit_test(test_by_session),
    cmocka_unit_test(test_price_of_many_members),
    cmocka_unit_test(test_price_of_many_sessions),
    cmocka_unit_test(test_long_lists_are_split),
    cmocka_unit_test(test_arguments),
    cmocka_unit_test(test_too_large_with_its_list),
    cmocka_unit_test(test_full_link),
    cmocka_unit_test(test_hostile_calls),
    cmocka_unit_test(test_free_completes),
    cmocka_unit_test(test_free_from_its_callback),
    cmocka_unit_test(test_without_memory),
    cmocka_unit_test(test_call_without_memory),
};
TEST_MAIN(tests)
