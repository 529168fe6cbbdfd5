/* SPDX-License-Identifier: MIT */
/* test_flow_resume_storm.c -- guests who come, show tokens that are theirs or
 * not, acknowledge, stop reading and leave in any order, while the application
 * pushes, kicks, lets in late and is freed, also inside its callbacks: every
 * session that was opened is closed once, and nothing is left.
 *
 * 300 seeds (PM_PROOF=1: 30,000). PM_SEED=n plays one seed. Start at
 * storm_play(). */
#include "inn.h"

enum {
    STORM_ACTIONS = 600,
    STORM_GUESTS = 6,
    STORM_TOKENS = 4,
    STORM_SESSIONS = 64,
    STORM_HELD = 16,
    STORM_LARGE = 3000
};

typedef struct storm {
    inn *i;
    char tokens[STORM_TOKENS][64];
    size_t tokens_count;
    pm_session *sessions[STORM_SESSIONS]; /* references */
    size_t sessions_count;
    pm_handshake *held[STORM_HELD];
    size_t held_count;
    int resumed;
    char large[STORM_LARGE + 1];
} storm;

static size_t storm_below(storm *s, size_t below)
{
    return test_world_below(&s->i->world, below);
}

/* One of those that there were; NULL before the first. */
static pm_session *storm_session(storm *s)
{
    return s->sessions_count ? s->sessions[storm_below(s, s->sessions_count)]
                             : NULL;
}

/* ---- The application ---------------------------------------------------- */

/* At any time, but not often. */
static void storm_may_free(storm *s, size_t odds)
{
    pm_app *app = s->i->app;
    if (!app || storm_below(s, odds))
        return;
    s->i->app = NULL;
    pm_app_free(app);
}

static void storm_touch(storm *s, pm_session *session)
{
    if (session && storm_below(s, 5) == 0)
        pm_session_kick(session, "x", NULL, NULL);
    if (session && storm_below(s, 5) == 0)
        pm_session_push(session, "on", pm_body_text("1"));
}

static void storm_opened(pm_app *app, pm_session *session, void *ctx)
{
    storm *s = ctx;
    (void)app;
    if (s->sessions_count == STORM_SESSIONS)
        return;
    pm_session_ref(session);
    s->sessions[s->sessions_count++] = session;
}

static void storm_closed(pm_app *app, pm_session *session, pm_close_reason why,
                         void *ctx)
{
    storm *s = ctx;
    (void)app;
    (void)session;
    (void)why;
    storm_may_free(s, 200);
    storm_touch(s, storm_session(s));
}

static void storm_suspended(pm_app *app, pm_session *session,
                            pm_close_reason why, void *ctx)
{
    (void)app;
    (void)why;
    storm_may_free(ctx, 200);
    storm_touch(ctx, session);
}

static void storm_resumed(pm_app *app, pm_session *session, void *ctx)
{
    storm *s = ctx;
    (void)app;
    s->resumed++;
    storm_may_free(s, 200);
    storm_touch(s, session);
}

static void storm_handshake(pm_handshake *hs, const struct cJSON *msg,
                            void *ctx)
{
    storm *s = ctx;
    (void)msg;
    storm_may_free(s, 500);
    if (s->held_count == STORM_HELD || storm_below(s, 2))
        pm_handshake_done(hs, PM_OK, NULL);
    else
        s->held[s->held_count++] = hs;
}

static void storm_let_in(storm *s)
{
    size_t which;
    pm_handshake *hs;
    if (!s->held_count)
        return;
    which = storm_below(s, s->held_count);
    hs = s->held[which];
    s->held[which] = s->held[--s->held_count];
    pm_handshake_done(hs, storm_below(s, 5) ? PM_OK : PM_EINVAL, NULL);
}

static void storm_push(storm *s, size_t len)
{
    pm_push_opts opts = pm_push_opts_default();
    opts.route = "on";
    opts.body = pm_body_bytes(s->large, len);
    opts.session = storm_session(s);
    opts.policy = (pm_push_policy)(PM_PUSH_KEEP + storm_below(s, 5));
    opts.key = storm_below(s, 2) ? "a" : "b";
    if (opts.session)
        pm_push(s->i->app, &opts, NULL, NULL);
}

/* ---- Guests ------------------------------------------------------------- */

static void storm_knock(storm *s, guest *g)
{
    inn *i = s->i;
    if (g->conn)
        return;
    memset(g, 0, sizeof *g);
    i->count = (size_t)(g - i->guests);
    guest_knock(i, 3051);
    i->count = STORM_GUESTS;
}

static void storm_greet(storm *s, guest *g)
{
    if (!s->tokens_count || storm_below(s, 3) == 0)
        guest_shake(g, "{}", "{\"__resume__\":{}}");
    else
        guest_show(g, s->tokens[storm_below(s, s->tokens_count)],
                   storm_below(s, 4) ? 0 : (int)storm_below(s, 6));
}

/* What comes next, by the protocol. */
static void storm_goes_on(storm *s, guest *g)
{
    if (g->answer[0])
        guest_say(g, PMI_PACKAGE_ACK, NULL, 0);
    else
        storm_greet(s, g);
}

/* All that a guest who is there may do. */
static void storm_guest_acts(storm *s, guest *g)
{
    switch (storm_below(s, 16)) {
    case 0:
        storm_greet(s, g);
        break;
    case 1:
        guest_say(g, PMI_PACKAGE_ACK, NULL, 0);
        break;
    case 2:
        pmi_conn_free(g->conn);
        g->conn = NULL;
        break;
    case 3:
        guest_say(g, PMI_PACKAGE_KICK, NULL, 0);
        break;
    case 4:
        guest_say(g, PMI_PACKAGE_HEARTBEAT, NULL, 0);
        break;
    case 5:
        guest_ask(g, 1 + (uint32_t)storm_below(s, 50), "connector.h.echo");
        break;
    case 6:
        guest_ask(g, 0, "connector.h.tell");
        break;
    case 7:
        pmi_conn_pause(g->conn);
        break;
    case 8:
        pmi_conn_resume(g->conn);
        break;
    default:
        storm_goes_on(s, g);
        break;
    }
}

/* Tokens that were given out meanwhile may be shown by everybody. */
static void storm_note_tokens(storm *s)
{
    for (size_t n = 0; n < STORM_GUESTS; n++) {
        guest *g = &s->i->guests[n];
        size_t at = s->tokens_count < STORM_TOKENS
                        ? s->tokens_count++
                        : storm_below(s, STORM_TOKENS);
        g->heard_len = 0;
        if (g->token[0])
            memcpy(s->tokens[at], g->token, sizeof g->token);
        else if (!s->tokens[at][0])
            s->tokens_count--;
        g->token[0] = 0;
    }
}

/* ---- The story ---------------------------------------------------------- */

static void storm_act(storm *s)
{
    guest *g = &s->i->guests[storm_below(s, STORM_GUESTS)];
    switch (storm_below(s, 20)) {
    case 0:
    case 1:
    case 2:
        storm_knock(s, g);
        break;
    case 3:
        storm_push(s, storm_below(s, STORM_LARGE));
        break;
    case 4:
        for (int n = 0; n < 60 && s->i->app; n++)
            storm_push(s, 1000);
        break;
    case 5:
        if (s->sessions_count && storm_below(s, 3) == 0)
            pm_session_kick(storm_session(s), "z", NULL, NULL);
        break;
    case 6:
        storm_let_in(s);
        break;
    default:
        if (g->conn)
            storm_guest_acts(s, g);
        break;
    }
    if (storm_below(s, 2))
        inn_run(s->i,
                storm_below(s, 20) ? storm_below(s, 3) : storm_below(s, 120));
    storm_note_tokens(s);
}

static void storm_start(storm *s, uint64_t seed)
{
    inn *i = s->i = inn_new();
    pm_app_events events = pm_app_events_default();
    memset(s->large, '7', STORM_LARGE);
    i->world.seed = seed;
    i->opts.resume_ms = 1000;
    i->opts.resume_sessions = 1 + (uint32_t)storm_below(s, 3);
    i->opts.heartbeat_s = storm_below(s, 2) ? 0.3 : 0;
    i->opts.scheduler =
        storm_below(s, 3) ? PM_SCHEDULER_DIRECT : PM_SCHEDULER_BUFFER;
    i->opts.flush_ms = 5;
    i->opts.handshake = storm_handshake;
    i->opts.ctx = s;
    i->limits.handshake_ms = 400;
    i->limits.handshake_cb_ms = 100;
    i->limits.idle_ms = storm_below(s, 2) ? 400 : 0;
    i->limits.messages_per_s = storm_below(s, 3) ? 0 : 50;
    i->limits.over_rate = (pm_rate_policy)storm_below(s, 3);
    i->limits.requests_in_flight = 4;
    inn_start(i);
    i->count = STORM_GUESTS;
    events.session_opened = storm_opened;
    events.session_closed = storm_closed;
    events.session_suspended = storm_suspended;
    events.session_resumed = storm_resumed;
    assert_ok(pm_app_listen(i->app, &events, s));
}

/* Some are let in before the end, and some behind it. */
static void storm_end(storm *s)
{
    pm_app *app;
    while (s->held_count > 2)
        storm_let_in(s);
    app = s->i->app;
    s->i->app = NULL;
    pm_app_free(app);
    while (s->held_count)
        storm_let_in(s);
    for (size_t n = 0; n < s->sessions_count; n++) {
        assert_true(pm_session_is_closed(s->sessions[n]));
        pm_session_unref(s->sessions[n]);
    }
    inn_close(s->i);
}

/* Returns how many times one was resumed. */
static int storm_play(uint64_t seed)
{
    static storm s;
    memset(&s, 0, sizeof s);
    storm_start(&s, seed);
    for (int n = 0; n < STORM_ACTIONS && s.i->app; n++)
        storm_act(&s);
    storm_end(&s);
    return s.resumed;
}

static void test_storm(void **state)
{
    const char *one = getenv("PM_SEED");
    uint64_t count = getenv("PM_PROOF") ? 30000 : 300, resumed = 0;
    (void)state;
    if (one) {
        storm_play(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= count; seed++)
        resumed += (uint64_t)storm_play(seed);
    print_message("%llu storms, resumed %llu times\n",
                  (unsigned long long)count, (unsigned long long)resumed);
    assert_true(resumed > count / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm)};
    test_deadline(getenv("PM_PROOF") ? 3600 : 120);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
