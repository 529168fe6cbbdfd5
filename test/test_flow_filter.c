/* SPDX-License-Identifier: MIT */
/* test_flow_filter.c -- filters in Pomelo's order, errors on the way, and the
 * built-in ones. Each request leaves a trace of who has seen it, compared as a
 * whole. */
#include "flow.h"

typedef struct sieve {
    flow f; /* first: a story is a flow */
    char said[512], logged[512];
    const char *failing; /* this before fails with `fail_body` */
    const char *fail_body;
    const char *replying; /* this before answers by itself */
    const char *changing; /* this after puts another answer */
    bool later;           /* every filter takes its time */
    bool global_errors, errors;
    pm_request *held[8];
    size_t held_count;
    int cancelled;
} sieve;

typedef struct layer {
    sieve *s;
    const char *name;
    pm_request *req;
} layer;

static void sieve_say(sieve *s, const char *name, const char *what)
{
    size_t len = strlen(s->said);
    snprintf(s->said + len, sizeof s->said - len, "%s%s%s", len ? " " : "",
             name, what);
}

static bool sieve_is(const char *name, const char *wanted)
{
    return wanted && !strcmp(name, wanted);
}

static struct cJSON *sieve_tree(const char *text)
{
    struct cJSON *tree = NULL;
    if (text)
        assert_ok(pm_json_tree(pm_text(text), &tree));
    return tree;
}

/* ---- Layers ------------------------------------------------------------ */

static void layer_later(pm_app *app, void *ctx)
{
    layer *l = ctx;
    pm_request *req = l->req;
    (void)app;
    l->req = NULL;
    pm_filter_next(req);
}

static void layer_go_on(layer *l, pm_request *req)
{
    if (!l->s->later) {
        pm_filter_next(req);
        return;
    }
    l->req = req;
    assert_ok(pm_app_timer(pm_request_app(req), 1, 0, layer_later, l, NULL));
}

static void layer_before(pm_request *req, void *ctx)
{
    layer *l = ctx;
    sieve_say(l->s, l->name, "<");
    if (sieve_is(l->name, l->s->failing)) {
        struct cJSON *body = sieve_tree(l->s->fail_body);
        pm_request_fail(req, PM_EBUSY, "no", body);
        cJSON_Delete(body);
    } else if (sieve_is(l->name, l->s->replying)) {
        pm_reply_text(req, "{\"by\":\"filter\"}");
    } else {
        layer_go_on(l, req);
    }
}

static void layer_after(pm_request *req, const pm_response *response, void *ctx)
{
    layer *l = ctx;
    sieve_say(l->s, l->name, response->err ? "!>" : ">");
    if (sieve_is(l->name, l->s->changing)) {
        struct cJSON *body = sieve_tree("{\"changed\":true}");
        assert_ok(pm_filter_set(req, PM_OK, body));
        cJSON_Delete(body);
    }
    layer_go_on(l, req);
}

static void on_error(pm_request *req, const pm_response *response, void *ctx)
{
    sieve *s = ctx;
    struct cJSON *body = sieve_tree("{\"handled\":1}");
    sieve_say(s, "error:", response->detail);
    assert_ok(pm_filter_set(req, response->err, body));
    cJSON_Delete(body);
    pm_filter_next(req);
}

static void on_global_error(pm_request *req, const pm_response *response,
                            void *ctx)
{
    sieve_say(ctx, "global:", response->detail);
    pm_filter_next(req);
}

static void on_now(pm_request *req, void *ctx)
{
    sieve_say(ctx, "handler", "");
    pm_reply_text(req, "{\"by\":\"handler\"}");
}

static void on_fail(pm_request *req, void *ctx)
{
    sieve_say(ctx, "handler", "!");
    pm_request_fail(req, PM_EREMOTE, "bad", NULL);
}

static void on_cancel(pm_request *req, pm_err why, void *ctx)
{
    sieve *s = ctx;
    (void)req;
    sieve_say(s, pm_err_name(why), "");
    s->cancelled++;
}

static void on_hold(pm_request *req, void *ctx)
{
    sieve *s = ctx;
    sieve_say(s, "held", "");
    assert_ok(pm_request_on_cancel(req, on_cancel, s));
    s->held[s->held_count++] = req;
}

/* ---- Setting up -------------------------------------------------------- */

static void sieve_log(void *ctx, pm_log_level level, const char *module,
                      const char *line)
{
    sieve *s = ctx;
    size_t len = strlen(s->logged);
    (void)level;
    if (!strcmp(module, "time") || !strcmp(module, "timeout"))
        snprintf(s->logged + len, sizeof s->logged - len, "%s: %s\n", module,
                 line);
}

static void sieve_app(sieve *s, const char *id, pm_app **out)
{
    static const char *const names[] = {"now", "fail", "hold"};
    static const pm_handler_cb cbs[] = {on_now, on_fail, on_hold};
    pm_app_opts opts = pm_app_opts_default();
    char route[64];
    opts.loop = s->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.log = sieve_log;
    opts.log_ctx = s;
    assert_ok(pm_app_new(out, &opts));
    for (size_t i = 0; i < 3; i++) {
        snprintf(route, sizeof route, "connector.h.%s", names[i]);
        assert_ok(pm_app_handler(*out, route, cbs[i], s));
        snprintf(route, sizeof route, "chat.h.%s", names[i]);
        assert_ok(pm_app_handler(*out, route, cbs[i], s));
    }
}

/* Two layers of each kind on both apps: G1 G2 and F1 F2 on the frontend, H1 H2
 * and B1 B2 on the backend. */
static void sieve_layers(sieve *s, layer layers[8])
{
    static const char *const names[] = {"G1", "G2", "F1", "F2",
                                        "H1", "H2", "B1", "B2"};
    pm_filter filter = {layer_before, layer_after, NULL};
    for (size_t i = 0; i < 8; i++) {
        pm_app *app = i < 4 ? s->f.front : s->f.back;
        layers[i].s = s;
        layers[i].name = names[i];
        if (i % 4 < 2)
            assert_ok(pm_app_global_filter(app, &filter, &layers[i]));
        else
            assert_ok(pm_app_filter(app, &filter, &layers[i]));
    }
    for (int i = 0; i < 2; i++) {
        pm_app *app = i ? s->f.back : s->f.front;
        if (s->errors)
            pm_app_error_handler(app, on_error, s);
        if (s->global_errors)
            pm_app_global_error_handler(app, on_global_error, s);
    }
}

static void sieve_apps(sieve *s)
{
    assert_ok(flow_loop(&s->f, 1));
    sieve_app(s, "chat-1", &s->f.back);
    sieve_app(s, "connector-1", &s->f.front);
}

static void sieve_run(sieve *s)
{
    assert_ok(pm_app_start(s->f.back));
    assert_ok(pm_app_start(s->f.front));
    assert_ok(flow_client(&s->f));
    flow_run(&s->f, 50);
    assert_int_equal(s->f.connected, 1);
}

static void sieve_ask(sieve *s, const char *route)
{
    assert_ok(pm_client_request(s->f.client, route, pm_body_text("{}"),
                                flow_answered, s));
}

/* ---- The order --------------------------------------------------------- */

typedef struct order_case {
    const char *route;
    const char *failing, *fail_body, *replying, *changing;
    bool errors;
    const char *said, *answer;
} order_case;

static const order_case order_cases[] = {
    {"connector.h.now", NULL, NULL, NULL, NULL, false,
     "G1< G2< F1< F2< handler F2> F1> G2> G1>", "{\"by\":\"handler\"}"},
    /* Forwarded: the frontend's globals, the backend's own. */
    {"chat.h.now", NULL, NULL, NULL, NULL, false,
     "G1< G2< B1< B2< handler B2> B1> G2> G1>", "{\"by\":\"handler\"}"},
    {"connector.h.fail", NULL, NULL, NULL, NULL, true,
     "G1< G2< F1< F2< handler! error:bad F2!> F1!> G2!> G1!>",
     "{\"handled\":1,\"code\":500}"},
    {"chat.h.fail", NULL, NULL, NULL, NULL, true,
     "G1< G2< B1< B2< handler! error:bad B2!> B1!> G2!> G1!>",
     "{\"handled\":1,\"code\":500}"},
    {"connector.h.fail", NULL, NULL, NULL, NULL, false,
     "G1< G2< F1< F2< handler! F2!> F1!> G2!> G1!>", "{\"code\":500}"},
    /* An error in a before skips the handler. */
    {"connector.h.now", "F1", "{\"why\":1}", NULL, NULL, false,
     "G1< G2< F1< F2!> F1!> G2!> G1!>", "{\"why\":1,\"code\":500}"},
    {"connector.h.now", "F1", "{\"code\":7}", NULL, NULL, false,
     "G1< G2< F1< F2!> F1!> G2!> G1!>", "{\"code\":7}"},
    {"connector.h.now", "F2", "{\"code\":0,\"x\":1}", NULL, NULL, false,
     "G1< G2< F1< F2< F2!> F1!> G2!> G1!>", "{\"code\":500,\"x\":1}"},
    {"chat.h.now", "B1", "\"text\"", NULL, NULL, true,
     "G1< G2< B1< error:no B2!> B1!> G2!> G1!>",
     "{\"handled\":1,\"code\":500}"},
    /* The global error handler sees the failures of global filters only. */
    {"connector.h.now", "G1", NULL, NULL, NULL, true, "G1< global:no G2!> G1!>",
     "{\"code\":500}"},
    {"chat.h.now", "G2", "{\"g\":2}", NULL, NULL, true,
     "G1< G2< global:no G2!> G1!>", "{\"g\":2,\"code\":500}"},
    /* A before may answer. */
    {"connector.h.now", NULL, NULL, "F1", NULL, true,
     "G1< G2< F1< F2> F1> G2> G1>", "{\"by\":\"filter\"}"},
    {"chat.h.now", NULL, NULL, "G2", NULL, true, "G1< G2< G2> G1>",
     "{\"by\":\"filter\"}"},
    /* An after may change the answer; the global ones come too late. */
    {"connector.h.now", NULL, NULL, NULL, "F2", false,
     "G1< G2< F1< F2< handler F2> F1> G2> G1>", "{\"changed\":true}"},
    {"connector.h.fail", NULL, NULL, NULL, "F2", false,
     "G1< G2< F1< F2< handler! F2!> F1> G2> G1>", "{\"changed\":true}"},
    {"connector.h.now", NULL, NULL, NULL, "G2", false,
     "G1< G2< F1< F2< handler F2> F1> G2> G1>", "{\"by\":\"handler\"}"},
    /* No filter sees what has no place to go. */
    {"a.b", NULL, NULL, NULL, NULL, true, "", "{\"code\":500}"},
    {"connector.h.ghost", NULL, NULL, NULL, NULL, false,
     "G1< G2< F1< F2< F2!> F1!> G2!> G1!>", "{\"code\":500}"},
    {"ghost.h.ghost", NULL, NULL, NULL, NULL, false, "G1< G2< G2!> G1!>",
     "{\"code\":500}"},
};

static void sieve_check_order(const order_case *c, bool later)
{
    sieve s = {0};
    layer layers[8] = {{0}};
    s.failing = c->failing;
    s.fail_body = c->fail_body;
    s.replying = c->replying;
    s.changing = c->changing;
    s.errors = s.global_errors = c->errors;
    s.later = later;
    sieve_apps(&s);
    sieve_layers(&s, layers);
    sieve_run(&s);
    sieve_ask(&s, c->route);
    flow_run(&s.f, 100);
    assert_string_equal(s.said, c->said);
    assert_int_equal(s.f.answers, 1);
    assert_string_equal(s.f.answer, c->answer);
    flow_end(&s.f);
}

static void test_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof order_cases / sizeof *order_cases; i++) {
        sieve_check_order(&order_cases[i], false);
        sieve_check_order(&order_cases[i], true);
    }
}

/* The client goes while a filter has its request: the handler is skipped, the
 * afters see why. */
static void test_cancelled_in_a_filter(void **state)
{
    sieve s = {0};
    layer layers[8] = {{0}};
    (void)state;
    s.later = true;
    sieve_apps(&s);
    sieve_layers(&s, layers);
    sieve_run(&s);
    sieve_ask(&s, "connector.h.now");
    flow_run(&s.f, 3);
    pm_client_disconnect(s.f.client);
    flow_run(&s.f, 50);
    assert_null(strstr(s.said, "handler"));
    assert_non_null(strstr(s.said, "G1!>"));
    flow_end(&s.f);
}

static void test_registering_is_over(void **state)
{
    sieve s = {0};
    pm_filter filter = {layer_before, layer_after, NULL};
    (void)state;
    sieve_apps(&s);
    sieve_run(&s);
    assert_err(pm_app_filter(s.f.front, &filter, &s), PM_ESTATE);
    assert_err(pm_app_global_filter(s.f.front, &filter, &s), PM_ESTATE);
    assert_err(pm_filter_serial(s.f.front, 0), PM_ESTATE);
    assert_err(pm_filter_timeout(s.f.front, 0), PM_ESTATE);
    assert_err(pm_filter_time(s.f.front), PM_ESTATE);
    assert_err(pm_filter_toobusy(s.f.front, 0), PM_ESTATE);
    flow_end(&s.f);
}

/* ---- serial ------------------------------------------------------------ */

static void test_serial(void **state)
{
    static const char *const routes[] = {"connector.h.hold", "chat.h.hold"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        sieve s = {0};
        sieve_apps(&s);
        assert_ok(pm_filter_serial(s.f.front, 1000));
        assert_ok(pm_filter_serial(s.f.back, 1000));
        assert_ok(pm_filter_serial(s.f.back, 900)); /* twice is as good */
        sieve_run(&s);
        for (int n = 0; n < 4; n++)
            sieve_ask(&s, routes[i]);
        flow_run(&s.f, 20);
        assert_int_equal(s.held_count, 1);
        for (size_t n = 0; n < 3; n++) {
            assert_ok(pm_reply_text(s.held[n], "{}"));
            flow_run(&s.f, 20);
            assert_int_equal(s.f.answers, (int)n + 1);
            assert_int_equal(s.held_count, n + 2);
        }
        assert_ok(pm_reply_text(s.held[3], "{}"));
        flow_run(&s.f, 20);
        assert_int_equal(s.f.answers, 4);
        assert_int_equal(s.cancelled, 0);
        flow_end(&s.f);
    }
}

/* The late one is cancelled, its client hears 500, the next one starts; what
 * the late handler says goes nowhere. */
static void test_serial_late(void **state)
{
    sieve s = {0};
    (void)state;
    sieve_apps(&s);
    assert_ok(pm_filter_serial(s.f.front, 100));
    sieve_run(&s);
    sieve_ask(&s, "connector.h.hold");
    sieve_ask(&s, "connector.h.now");
    flow_run(&s.f, 90);
    assert_int_equal(s.f.answers, 0);
    flow_run(&s.f, 50);
    assert_string_equal(s.said, "held PM_ETIMEOUT handler");
    assert_int_equal(s.f.answers, 2);
    assert_string_equal(s.f.answer, "{\"by\":\"handler\"}");
    sieve_ask(&s, "connector.h.now");
    flow_run(&s.f, 20);
    assert_int_equal(s.f.answers, 3);
    assert_err(pm_reply_text(s.held[0], "{}"), PM_ECLOSED);
    flow_end(&s.f);
}

/* The session ends with some waiting: they are skipped, nothing stays. */
static void test_serial_gone(void **state)
{
    sieve s = {0};
    (void)state;
    sieve_apps(&s);
    assert_ok(pm_filter_serial(s.f.front, 500));
    sieve_run(&s);
    sieve_ask(&s, "connector.h.hold");
    for (int i = 0; i < 100; i++)
        sieve_ask(&s, "connector.h.now");
    flow_run(&s.f, 20);
    pm_client_disconnect(s.f.client);
    flow_run(&s.f, 20);
    assert_err(pm_reply_text(s.held[0], "{}"), PM_ECLOSED);
    flow_run(&s.f, 600);
    assert_string_equal(s.said, "held PM_ECLOSED");
    assert_int_equal(s.f.answers, 101);
    flow_end(&s.f);
}

/* ---- time, timeout, toobusy -------------------------------------------- */

static void test_time_and_timeout(void **state)
{
    sieve s = {0};
    (void)state;
    sieve_apps(&s);
    assert_ok(pm_filter_time(s.f.front));
    assert_ok(pm_filter_timeout(s.f.front, 100));
    sieve_run(&s);
    sieve_ask(&s, "connector.h.now");
    flow_run(&s.f, 200);
    assert_string_equal(s.logged, "time: connector.h.now 0 us PM_OK\n");
    s.logged[0] = 0;
    sieve_ask(&s, "connector.h.hold");
    flow_run(&s.f, 200);
    assert_string_equal(
        s.logged, "timeout: connector.h.hold is not answered after 100 ms\n");
    s.logged[0] = 0;
    assert_ok(pm_reply_text(s.held[0], "{}"));
    assert_non_null(strstr(s.logged, "time: connector.h.hold 20"));
    flow_run(&s.f, 200);
    flow_end(&s.f);
}

/* A handler keeps the thread: what comes next is refused, what comes later is
 * not any more. */
static void on_slow(pm_request *req, void *ctx)
{
    sieve *s = ctx;
    s->f.world.now_us += 200 * 1000;
    sieve_ask(s, "connector.h.now");
    pm_reply_text(req, "{\"slow\":1}");
}

static void test_toobusy(void **state)
{
    sieve s = {0};
    (void)state;
    sieve_apps(&s);
    assert_ok(pm_filter_toobusy(s.f.front, 50));
    assert_ok(pm_app_handler(s.f.front, "connector.h.slow", on_slow, &s));
    sieve_run(&s);
    sieve_ask(&s, "connector.h.slow");
    flow_run(&s.f, 10);
    assert_int_equal(s.f.answers, 2);
    assert_string_equal(s.f.answer, "{\"code\":500}");
    assert_string_equal(s.said, "");
    flow_run(&s.f, 100);
    sieve_ask(&s, "connector.h.now");
    flow_run(&s.f, 100);
    assert_string_equal(s.f.answer, "{\"by\":\"handler\"}");
    flow_end(&s.f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_order),
    cmocka_unit_test(test_cancelled_in_a_filter),
    cmocka_unit_test(test_registering_is_over),
    cmocka_unit_test(test_serial),
    cmocka_unit_test(test_serial_late),
    cmocka_unit_test(test_serial_gone),
    cmocka_unit_test(test_time_and_timeout),
    cmocka_unit_test(test_toobusy),
};

TEST_MAIN(tests)
