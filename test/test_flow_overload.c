/* SPDX-License-Identifier: MIT */
/* test_flow_overload.c -- handlers that burn more time than there is: what is
 * too much is refused at once and cheaply, nothing waits longer than lag_ms,
 * heartbeats live, and nobody is refused while there is time. The handlers let
 * the virtual clock run. */
#include "flow.h"

#define BURNERS 8

typedef struct burner {
    struct heat *heat;
    pm_client *client;
    int good, refused, connected, disconnected;
} burner;

typedef struct heat {
    flow f; /* first: a story is a flow */
    uint32_t lag_ms;
    bool hook, only_front;
    uint64_t burn_us;
    burner all[BURNERS];
    int hooked, served;
    uint64_t asked_us, worst_us; /* of refusals, since all were asked */
    char answer[64];
} heat;

static void on_burn(pm_request *req, void *ctx)
{
    heat *h = ctx;
    h->f.world.now_us += h->burn_us;
    h->served++;
    pm_reply_text(req, "{\"code\":200}");
}

/* The important one is never refused. */
static bool on_hot(pm_session *session, pm_slice route, pm_err why,
                   pm_body *answer, void *ctx)
{
    heat *h = ctx;
    (void)session;
    (void)answer;
    assert_err(why, PM_EBUSY);
    h->hooked++;
    return route.len != 17 || memcmp(route.data, "connector.h.vital", 17) != 0;
}

static pm_err heat_app(heat *h, const char *id, pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = h->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.connector.heartbeat_s = 3;
    opts.connector.refuse = h->hook ? on_hot : NULL;
    opts.connector.ctx = h;
    opts.limits.requests_in_flight = 1000;
    if (!h->only_front || !strcmp(id, "connector-1"))
        opts.limits.lag_ms = h->lag_ms;
    err = pm_app_new(out, &opts);
    if (err == PM_OK)
        err = pm_app_handler(*out, "connector.h.burn", on_burn, h);
    if (err == PM_OK)
        err = pm_app_handler(*out, "connector.h.vital", on_burn, h);
    if (err == PM_OK)
        err = pm_app_handler(*out, "chat.h.burn", on_burn, h);
    return err == PM_OK ? pm_app_start(*out) : err;
}

static void on_burner_connected(pm_client *client, const struct cJSON *user,
                                void *ctx)
{
    (void)client;
    (void)user;
    ((burner *)ctx)->connected++;
}

static void on_burner_gone(pm_client *client, pm_close_reason reason, int code,
                           void *ctx)
{
    (void)client;
    (void)reason;
    (void)code;
    ((burner *)ctx)->disconnected++;
}

static void burner_connect(heat *h, burner *b)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = h->f.loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    opts.port = 3050;
    opts.request_ms = 60000;
    opts.events.connected = on_burner_connected;
    opts.events.disconnected = on_burner_gone;
    opts.ctx = b;
    b->heat = h;
    assert_ok(pm_client_new(&b->client, &opts));
}

static heat *heat_new(uint32_t lag_ms, uint64_t burn_us, bool hook,
                      bool only_front)
{
    heat *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->lag_ms = lag_ms;
    h->burn_us = burn_us;
    h->hook = hook;
    h->only_front = only_front;
    h->f.world.now_us = 5000000;
    assert_ok(flow_loop(&h->f, 1));
    assert_ok(heat_app(h, "chat-1", &h->f.back));
    assert_ok(heat_app(h, "connector-1", &h->f.front));
    for (int i = 0; i < BURNERS; i++)
        burner_connect(h, &h->all[i]);
    flow_run(&h->f, 50);
    for (int i = 0; i < BURNERS; i++)
        assert_int_equal(h->all[i].connected, 1);
    return h;
}

static void heat_end(heat *h)
{
    for (int i = 0; i < BURNERS; i++)
        pm_client_free(h->all[i].client);
    flow_end(&h->f);
    free(h);
}

static void on_burnt(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    burner *b = ctx;
    heat *h = b->heat;
    (void)client;
    assert_ok(err);
    flow_copy(h->answer, sizeof h->answer, body.data);
    if (!strcmp(h->answer, "{\"code\":200}")) {
        b->good++;
    } else {
        uint64_t took = h->f.world.now_us - h->asked_us;
        assert_string_equal(h->answer, "{\"code\":503}");
        b->refused++;
        if (took > h->worst_us)
            h->worst_us = took;
    }
}

static void burner_ask(burner *b, const char *route, int count)
{
    b->heat->asked_us = b->heat->f.world.now_us;
    for (int i = 0; i < count; i++)
        assert_ok(pm_client_request(b->client, route, pm_body_text("{}"),
                                    on_burnt, b));
}

static void heat_sum(const heat *h, int *good, int *refused)
{
    *good = *refused = 0;
    for (int i = 0; i < BURNERS; i++) {
        *good += h->all[i].good;
        *refused += h->all[i].refused;
    }
}

/* Off, which is the default: everything is served, however long it takes. */
static void test_off(void **state)
{
    heat *h = heat_new(0, 20000, false, false);
    (void)state;
    burner_ask(&h->all[0], "connector.h.burn", 50);
    flow_run(&h->f, 100);
    assert_int_equal(h->all[0].good, 50);
    heat_end(h);
}

/* All ask at once for 1.6 s of work: what half of lag_ms holds is served. */
static void test_refused(void **state)
{
    heat *h = heat_new(50, 2000, false, false);
    int good, refused;
    (void)state;
    for (int i = 0; i < BURNERS; i++)
        burner_ask(&h->all[i], "connector.h.burn", 100);
    flow_run(&h->f, 60);
    heat_sum(h, &good, &refused);
    assert_int_equal(good + refused, 100 * BURNERS);
    assert_in_range(good, 12, 26);
    assert_in_range(h->worst_us, 1, 52000);
    /* A moment later there is time again. */
    flow_run(&h->f, 50);
    burner_ask(&h->all[0], "connector.h.burn", 5);
    flow_run(&h->f, 60);
    assert_int_equal(h->all[0].refused + h->all[0].good, 105);
    heat_sum(h, &refused, &good);
    assert_int_equal(refused, h->served);
    heat_end(h);
}

/* Who asks for less than there is time for is never refused: bursts too. */
static void test_not_refused(void **state)
{
    heat *h = heat_new(50, 2000, false, false);
    int good, refused;
    (void)state;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 5; i++)
            burner_ask(&h->all[(round + i) % BURNERS], "connector.h.burn", 2);
        flow_run(&h->f, 40);
    }
    heat_sum(h, &good, &refused);
    assert_int_equal(good, 500);
    assert_int_equal(refused, 0);
    heat_end(h);
}

/* Three times the capacity for half a minute: time is spent on handlers, no
 * answer waits, nobody is left out, heartbeats live (each client's own and the
 * server's are 3 s, the time without one 6 s). */
static void test_sustained(void **state)
{
    heat *h = heat_new(50, 1000, false, false);
    uint64_t until = h->f.world.now_us + 30 * 1000000, from = until - 30000000;
    int good, refused, asked = 0;
    (void)state;
    while (h->f.world.now_us < until) {
        uint64_t now = h->f.world.now_us;
        /* What has come due since: 3 a millisecond, all clients in turn. */
        int due = (int)((now - from) * 3 / 1000);
        for (; asked < due; asked++)
            burner_ask(&h->all[asked % BURNERS], "connector.h.burn", 1);
        pm_loop_poll(h->f.loop, 0);
        if (h->f.world.now_us == now)
            h->f.world.now_us += 100;
    }
    flow_run(&h->f, 200);
    heat_sum(h, &good, &refused);
    assert_int_equal(good + refused, asked);
    assert_true(good > 30 * 1000 * 8 / 10);
    for (int i = 0; i < BURNERS; i++) {
        assert_true(h->all[i].good > 30 * 1000 / BURNERS / 2);
        assert_int_equal(h->all[i].disconnected, 0);
    }
    heat_end(h);
}

/* A greedy one does not get the whole round: who asks now and then is served,
 * though the other one asks for three times what there is. */
static void test_fair(void **state)
{
    heat *h = heat_new(50, 1000, false, false);
    uint64_t from = h->f.world.now_us, until = from + 10 * 1000000;
    int greedy = 0, modest = 0;
    (void)state;
    while (h->f.world.now_us < until) {
        uint64_t now = h->f.world.now_us;
        for (; greedy < (int)((now - from) * 3 / 1000); greedy++)
            burner_ask(&h->all[0], "connector.h.burn", 1);
        for (; modest < (int)((now - from) / 50000); modest++)
            burner_ask(&h->all[1], "connector.h.burn", 1);
        pm_loop_poll(h->f.loop, 0);
        if (h->f.world.now_us == now)
            h->f.world.now_us += 100;
    }
    flow_run(&h->f, 200);
    assert_int_equal(h->all[0].good + h->all[0].refused, greedy);
    assert_int_equal(h->all[1].good + h->all[1].refused, modest);
    assert_true(h->all[0].refused > greedy / 2);
    assert_true(h->all[1].good > modest * 9 / 10);
    heat_end(h);
}

/* The application knows better than a clock what must not be refused. */
static void test_hook(void **state)
{
    heat *h = heat_new(20, 2000, true, false);
    (void)state;
    burner_ask(&h->all[0], "connector.h.burn", 20);
    burner_ask(&h->all[0], "connector.h.vital", 3);
    flow_run(&h->f, 60);
    assert_int_equal(h->all[0].good + h->all[0].refused, 23);
    assert_int_equal(h->served, h->all[0].good);
    assert_int_equal(h->hooked, h->all[0].refused + 3);
    assert_true(h->all[0].good >= 3 + 4);
    heat_end(h);
}

/* Notifies are dropped, not answered; a session that is kicked by the hook or
 * sends what is no message is no trouble either. */
static void test_notify(void **state)
{
    heat *h = heat_new(20, 2000, false, false);
    (void)state;
    for (int i = 0; i < 40; i++)
        assert_ok(pm_client_notify(h->all[0].client, "connector.h.burn",
                                   pm_body_text("{}")));
    flow_run(&h->f, 60);
    assert_in_range(h->served, 5, 12);
    assert_int_equal(h->all[0].good + h->all[0].refused, 0);
    heat_end(h);
}

/* The backend lags: it refuses what is forwarded to it. */
static void test_forwarded(void **state)
{
    heat *h = heat_new(50, 2000, false, false);
    int good, refused;
    (void)state;
    for (int i = 0; i < BURNERS; i++)
        burner_ask(&h->all[i], "chat.h.burn", 20);
    flow_run(&h->f, 100);
    heat_sum(h, &good, &refused);
    assert_int_equal(good + refused, 20 * BURNERS);
    assert_in_range(good, 12, 30);
    assert_int_equal(good, h->served);
    heat_end(h);
    /* Not when only the frontend has a limit: that one is quick. */
    h = heat_new(50, 1, false, true);
    for (int i = 0; i < BURNERS; i++)
        burner_ask(&h->all[i], "chat.h.burn", 20);
    flow_run(&h->f, 100);
    heat_sum(h, &good, &refused);
    assert_int_equal(good, 20 * BURNERS);
    heat_end(h);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_off),         cmocka_unit_test(test_refused),
    cmocka_unit_test(test_not_refused), cmocka_unit_test(test_sustained),
    cmocka_unit_test(test_fair),        cmocka_unit_test(test_hook),
    cmocka_unit_test(test_notify),      cmocka_unit_test(test_forwarded),
};

TEST_MAIN(tests)
