/* SPDX-License-Identifier: MIT */
/* test_flow_order.c -- towards a client, answers and pushes leave in the order
 * in which they were made (LIFETIMES.md, rule 19): also when a backend made
 * them, on links that are slow in ways of their own, and when links break. */
#include "flow.h"

#include "core/loop.h"

enum { ORDER_ROUNDS = 20, ORDER_SEEDS = 50, ORDER_DELAY_US = 30000 };

typedef struct story {
    flow f; /* first: a story is a flow */
    uint64_t seed;
    char heard[4096];
    size_t heard_len;
    int bound, ended;
    pm_err ended_err;
    pm_request *held;
} story;

static uint64_t order_fault(void *ctx, const char *from, const char *to,
                            size_t bytes)
{
    story *s = ctx;
    (void)from;
    (void)to;
    (void)bytes;
    s->seed = s->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (s->seed >> 33) % ORDER_DELAY_US;
}

static void order_hear(story *s, const char *what, pm_slice body)
{
    int n = snprintf(s->heard + s->heard_len, sizeof s->heard - s->heard_len,
                     "%s %.*s;", what, (int)body.len, (const char *)body.data);
    assert_true(n > 0 && (size_t)n < sizeof s->heard - s->heard_len);
    s->heard_len += (size_t)n;
}

static void order_pushed(pm_client *client, const char *route, pm_body body,
                         void *ctx)
{
    (void)client;
    order_hear(ctx, route, body.data);
}

static void order_answered(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    (void)client;
    assert_ok(err);
    order_hear(ctx, "answer", body.data);
}

/* ---- The backend ------------------------------------------------------- */

static void order_bound(pm_err err, const char *detail, void *ctx)
{
    story *s = ctx;
    (void)detail;
    assert_ok(err);
    s->bound++;
}

static void order_enter(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    pm_channel *room = pm_channel_get(pm_request_app(req), "room", true);
    assert_non_null(room);
    assert_ok(pm_session_bind(session, "amy", order_bound, ctx));
    assert_ok(pm_channel_add(room, "amy", pm_session_frontend_id(session)));
    assert_ok(pm_reply_text(req, "\"in\""));
}

/* Before the answer, behind it, and each way there is to push. */
static void order_speak(pm_request *req, void *ctx)
{
    pm_app *app = pm_request_app(req);
    pm_session *session = pm_request_session(req);
    pm_receiver amy = {"amy", pm_session_frontend_id(session)};
    pm_body body = pm_request_body(req);
    pm_broadcast_opts all = pm_broadcast_opts_default();
    (void)ctx;
    all.frontend_type = "connector";
    all.route = "all";
    all.body = body;
    pm_session_ref(session);
    assert_ok(pm_session_push(session, "one", body));
    assert_ok(pm_channel_push(pm_channel_get(app, "room", false), "two", body,
                              NULL, NULL));
    assert_ok(pm_request_keep(req));
    assert_ok(pm_broadcast(app, &all, NULL, NULL));
    assert_ok(pm_push_uids(app, "three", body, &amy, 1, NULL, NULL));
    assert_ok(pm_reply_body(req, body));
    assert_ok(pm_session_push(session, "last", pm_body_text("0")));
    pm_session_unref(session);
}

static pm_err order_configure(flow *f, pm_app *app)
{
    pm_err err = pm_app_handler(app, "chat.orderHandler.enter", order_enter, f);
    return err ? err
               : pm_app_handler(app, "chat.orderHandler.speak", order_speak, f);
}

/* ---- The client -------------------------------------------------------- */

static void order_open(story *s, uint64_t seed)
{
    flow *f = &s->f;
    pm_client_opts opts = pm_client_opts_default();
    s->seed = seed;
    assert_ok(flow_start(f, seed, order_configure));
    pm_client_free(f->client);
    f->client = NULL;
    opts.loop = f->loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    opts.port = 3050;
    opts.events.pushed = order_pushed;
    opts.ctx = s;
    assert_ok(pm_client_new(&f->client, &opts));
    flow_run(f, 100);
    assert_ok(pm_client_request(f->client, "chat.orderHandler.enter",
                                pm_body_none(), order_answered, s));
    flow_run(f, 500);
    assert_int_equal(s->bound, 1);
    assert_string_equal(s->heard, "answer \"in\";");
    s->heard_len = 0;
    pmi_loop_set_link_fault(f->loop, order_fault, s);
}

static void order_ask(story *s, int n)
{
    char body[16];
    snprintf(body, sizeof body, "%d", n);
    assert_ok(pm_client_request(s->f.client, "chat.orderHandler.speak",
                                pm_body_text(body), order_answered, s));
}

static void order_expect(const story *s, int rounds)
{
    char want[sizeof s->heard];
    size_t len = 0;
    for (int i = 1; i <= rounds; i++)
        len += (size_t)snprintf(want + len, sizeof want - len,
                                "one %d;two %d;all %d;three %d;answer %d;"
                                "last 0;",
                                i, i, i, i, i);
    assert_string_equal(s->heard, want);
}

static void test_answers_and_pushes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= ORDER_SEEDS; seed++) {
        story s = {0};
        order_open(&s, seed);
        for (int i = 1; i <= ORDER_ROUNDS; i++) {
            order_ask(&s, i);
            flow_run(&s.f, seed % 3 * 7);
        }
        flow_run(&s.f, 5000);
        order_expect(&s, ORDER_ROUNDS);
        flow_end(&s.f);
    }
}

/* ---- Links that go ----------------------------------------------------- */

static void order_ended(pm_err err, const char *detail, void *ctx)
{
    story *s = ctx;
    (void)detail;
    s->ended++;
    s->ended_err = err;
}

/* The request stays; what was asked of its session is under way. */
static void order_hold(pm_request *req, void *ctx)
{
    story *s = ctx;
    s->held = req;
    assert_ok(pm_session_bind(pm_request_session(req), "amy", order_ended, s));
}

static pm_err order_holding(flow *f, pm_app *app)
{
    return pm_app_handler(app, "chat.orderHandler.hold", order_hold, f);
}

static void order_hold_open(story *s)
{
    flow *f = &s->f;
    assert_ok(flow_start(f, 1, order_holding));
    s->seed = 1;
    pmi_loop_set_link_fault(f->loop, order_fault, s);
    assert_ok(pm_client_request(f->client, "chat.orderHandler.hold",
                                pm_body_none(), flow_answered, f));
    while (!s->held)
        flow_run(f, 1);
    assert_int_equal(s->ended, 0);
}

static void order_hold_end(story *s, pm_err err)
{
    flow_run(&s->f, 100);
    assert_int_equal(s->ended, 1);
    assert_err(s->ended_err, err);
    pm_request_drop(s->held);
    flow_end(&s->f);
}

static void test_frontend_is_removed(void **state)
{
    story s = {0};
    (void)state;
    order_hold_open(&s);
    assert_ok(pm_server_remove(s.f.back, "connector-1"));
    order_hold_end(&s, PM_ENOSERVER);
}

static void test_frontend_goes(void **state)
{
    story s = {0};
    (void)state;
    order_hold_open(&s);
    pm_app_free(s.f.front);
    s.f.front = NULL;
    order_hold_end(&s, PM_ECLOSED);
}

static void test_backend_goes(void **state)
{
    story s = {0};
    (void)state;
    order_hold_open(&s);
    pm_app_free(s.f.back);
    s.f.back = NULL;
    assert_int_equal(s.ended, 1); /* before the free returned */
    order_hold_end(&s, PM_ECLOSED);
}

/* Forgotten by the table and found again, on the link that stood all along. */
static void test_frontend_comes_back(void **state)
{
    story s = {0};
    (void)state;
    order_hold_open(&s);
    assert_ok(pm_server_remove(s.f.back, "connector-1"));
    flow_run(&s.f, 100);
    assert_ok(pm_server_add(s.f.back, &flow_servers[0]));
    assert_ok(
        pm_session_push(pm_request_session(s.held), "r", pm_body_text("1")));
    assert_ok(pm_reply_text(s.held, "2"));
    flow_run(&s.f, 500);
    assert_int_equal(s.f.pushes, 1);
    assert_string_equal(s.f.answer, "2");
    flow_end(&s.f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_answers_and_pushes),
    cmocka_unit_test(test_frontend_is_removed),
    cmocka_unit_test(test_frontend_goes),
    cmocka_unit_test(test_backend_goes),
    cmocka_unit_test(test_frontend_comes_back),
};

TEST_MAIN(tests)
