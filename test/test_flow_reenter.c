/* SPDX-License-Identifier: MIT */
/* test_flow_reenter.c -- callbacks that do what somebody else is just about to
 * do: let another request go on while one is being routed, remove the server
 * that is being told of. And a request that was held without memory to hold it.
 */
#include "flow.h"

typedef struct reenter {
    flow f; /* first: a story is a flow */
    pm_client *other;
    pm_request *held;
    bool no_memory; /* for the body of the one that is held */
    char said[512];
} reenter;

static void reenter_say(reenter *r, const char *word, pm_slice text)
{
    size_t len = strlen(r->said);
    snprintf(r->said + len, sizeof r->said - len, "%s %.*s; ", word,
             (int)text.len, (const char *)text.data);
}

static void on_chat(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    reenter_say(ctx, pm_session_get_text(session, "who"),
                pm_request_body(req).data);
    pm_reply_text(req, "{}");
}

/* Everybody is who he says; Bob waits. */
static void before_chat(pm_request *req, void *ctx)
{
    reenter *r = ctx;
    pm_slice body = pm_request_body(req).data;
    bool bob = body.len > 1 && memchr(body.data, 'b', body.len);
    pm_session_set_text(pm_request_session(req), "who", bob ? "bob" : "alice");
    if (!bob) {
        pm_filter_next(req);
        return;
    }
    r->held = req;
    if (r->no_memory)
        r->f.heap.fail_at = r->f.heap.calls + 1;
}

/* While Alice's request is routed Bob's goes on. */
static void route_chat(pm_app *app, pm_choice *choice, void *ctx)
{
    reenter *r = ctx;
    pm_request *held = r->held;
    (void)app;
    r->held = NULL;
    if (held)
        pm_filter_next(held);
    pm_route_to(choice, "chat-1");
}

static pm_err reenter_configure(flow *f, pm_app *app)
{
    const pm_filter filter = {before_chat, NULL, NULL};
    pm_err err = pm_app_handler(app, "chat.h.chat", on_chat, f);
    if (err == PM_OK)
        err = pm_app_global_filter(app, &filter, f);
    return err ? err : pm_app_route(app, "chat", route_chat, f);
}

static void on_answer(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    (void)client;
    reenter_say(ctx, pm_err_name(err), body.data);
}

static void reenter_ask(reenter *r, pm_client *client, const char *body)
{
    assert_ok(pm_client_request(client, "chat.h.chat", pm_body_text(body),
                                on_answer, r));
    flow_run(&r->f, 20);
}

/* Bob asks and is held. */
static void reenter_open(reenter *r)
{
    pm_client *first;
    assert_ok(flow_start(&r->f, 1, reenter_configure));
    first = r->f.client;
    assert_ok(flow_client(&r->f));
    r->other = r->f.client;
    r->f.client = first;
    flow_run(&r->f, 50);
    reenter_ask(r, r->other, "{\"i\":\"bob\"}");
    assert_non_null(r->held);
}

/* Alice asks while Bob is held: her router lets him go on. */
static void reenter_play(bool no_memory, const char *said)
{
    reenter r = {.no_memory = no_memory};
    reenter_open(&r);
    reenter_ask(&r, r.f.client, "{\"i\":\"me\"}");
    assert_string_equal(r.said, said);
    pm_client_free(r.other);
    flow_end(&r.f);
}

static void test_router_lets_another_go_on(void **state)
{
    (void)state;
    reenter_play(false, "bob {\"i\":\"bob\"}; alice {\"i\":\"me\"}; "
                        "PM_OK {}; PM_OK {}; ");
}

/* What it would send now are bytes of somebody else. */
static void test_held_without_memory(void **state)
{
    (void)state;
    reenter_play(true, "PM_OK {\"code\":500}; alice {\"i\":\"me\"}; "
                       "PM_OK {}; ");
}

/* ---- Servers that go while they are told of ----------------------------- */

static const pm_server portless = {.id = "connector-2",
                                   .type = "connector",
                                   .host = "127.0.0.1",
                                   .client_port = 3051,
                                   .frontend = true};

static pm_err nothing_configured(flow *f, pm_app *app)
{
    (void)f;
    (void)app;
    return PM_OK;
}

static bool filter_removes(pm_session *session, const char *route, pm_body body,
                           const char *param, void *ctx)
{
    reenter *r = ctx;
    (void)session;
    (void)route;
    (void)body;
    (void)param;
    reenter_say(r, pm_err_name(pm_server_remove(r->f.front, portless.id)),
                pm_text("removed"));
    return true;
}

static void test_broadcast_filter_removes_a_server(void **state)
{
    reenter r = {0};
    pm_broadcast_opts opts = pm_broadcast_opts_default();
    (void)state;
    assert_ok(flow_start(&r.f, 1, nothing_configured));
    assert_ok(pm_server_add(r.f.front, &portless));
    pm_app_broadcast_filter(r.f.front, filter_removes, &r);
    opts.frontend_type = "connector";
    opts.route = "onNews";
    opts.body = pm_body_text("{}");
    assert_ok(pm_broadcast(r.f.front, &opts, NULL, NULL));
    flow_run(&r.f, 50);
    assert_string_equal(r.said, "PM_OK removed; ");
    assert_int_equal(r.f.pushes, 1);
    flow_end(&r.f);
}

static void on_added_remove(pm_app *app, const pm_server *server, void *ctx)
{
    (void)ctx;
    assert_ok(pm_server_remove(app, server->id));
}

static void on_added_read(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    reenter_say(ctx, server->id, pm_text(server->type));
}

static void test_listener_removes_a_server(void **state)
{
    reenter r = {0};
    pm_app_events events = pm_app_events_default();
    (void)state;
    assert_ok(flow_start(&r.f, 1, nothing_configured));
    events.server_added = on_added_remove;
    assert_ok(pm_app_listen(r.f.front, &events, &r));
    events.server_added = on_added_read;
    assert_ok(pm_app_listen(r.f.front, &events, &r));
    assert_ok(pm_server_add(r.f.front, &portless));
    assert_string_equal(r.said, "connector-2 connector; ");
    assert_err(pm_server_remove(r.f.front, portless.id), PM_ENOTFOUND);
    flow_end(&r.f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_router_lets_another_go_on),
    cmocka_unit_test(test_held_without_memory),
    cmocka_unit_test(test_broadcast_filter_removes_a_server),
    cmocka_unit_test(test_listener_removes_a_server)};
TEST_MAIN(tests)
