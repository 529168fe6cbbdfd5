/* SPDX-License-Identifier: MIT */
/* test_flow_stop.c -- servers stop while people play.
 *
 * A master, a connector and three chat servers in one thread, on links that
 * delay from a seed; twenty people who ask without a pause. One chat server
 * after the other stops and comes back, by each way of routing, and nobody may
 * notice: no request fails. Then the connector stops: what it had taken is
 * answered. Nor does anybody notice that the master is away for an hour. And
 * what the application can hold up. Start at town_tell. */
#include "test.h"

#include "core/loop.h"

enum { PEOPLE = 20, AHEAD = 4, SERVERS = 5 };
enum { MASTER, CONNECTOR, CHAT_1, CHAT_2, CHAT_3 };

static const pm_server stop_servers[SERVERS] = {
    {.id = "master-1", .type = "master", .port = 3005},
    {.id = "connector-1",
     .type = "connector",
     .port = 4050,
     .client_port = 3050,
     .frontend = true},
    {.id = "chat-1", .type = "chat", .port = 4061},
    {.id = "chat-2", .type = "chat", .port = 4062},
    {.id = "chat-3", .type = "chat", .port = 4063}};

static const pm_admin_user stop_users[] = {{"admin", "admin", 1}};

typedef struct town town;

typedef struct person {
    town *of;
    pm_client *client;
    char enter[32];
    bool entered;
} person;

struct town {
    test_world world; /* first: the seam's ctx */
    test_heap heap;
    pm_loop *loop;
    pm_app *apps[SERVERS];
    const char *way;
    person people[PEOPLE];
    bool asking;
    uint32_t asked, answered, failed, closed;
    uint32_t taken, served[SERVERS];
    pm_err stopped;
    uint64_t stopped_us;
    int before_stop, holds;
};

/* ---- The servers ------------------------------------------------------- */

static void on_synced(pm_err err, const char *detail, void *ctx)
{
    (void)detail;
    pm_reply_text(ctx, err ? "{\"code\":\"not synced\"}" : "{\"late\":1}");
}

/* Who is stopping meanwhile can still talk to the session. */
static void town_answer_late(pm_app *app, void *ctx)
{
    pm_session *session = pm_request_session(ctx);
    (void)app;
    assert_ok(pm_session_set_text(session, "seen", "late"));
    assert_ok(pm_session_sync(session, NULL, on_synced, ctx));
}

/* Half at once, half after up to 30 ms. */
static void on_work(pm_request *req, void *ctx)
{
    town *t = ctx;
    size_t ms = test_world_below(&t->world, 60);
    for (int i = 0; i < SERVERS; i++)
        t->served[i] += t->apps[i] == pm_request_app(req);
    if (ms >= 30 || pm_app_timer(pm_request_app(req), (uint32_t)ms, 0,
                                 town_answer_late, req, NULL))
        pm_reply_text(req, "{\"now\":1}");
}

static void on_entered(pm_err err, const char *detail, void *ctx)
{
    (void)detail;
    assert_ok(err);
    pm_reply_text(ctx, "{}");
}

static void on_enter(pm_request *req, void *ctx)
{
    struct cJSON *body;
    (void)ctx;
    assert_ok(pm_request_json(req, &body));
    assert_ok(
        pm_session_bind(pm_request_session(req),
                        cJSON_GetStringValue(cJSON_GetObjectItem(body, "uid")),
                        on_entered, req));
}

static void on_taken(pm_request *req, void *ctx)
{
    ((town *)ctx)->taken += !strcmp(pm_request_route(req), "chat.h.work");
    pm_filter_next(req);
}

static void town_start(town *t, int i)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_filter filter = {on_taken, NULL, NULL};
    opts.loop = t->loop;
    opts.servers = i == MASTER ? stop_servers : &stop_servers[i];
    opts.servers_count = i == MASTER ? SERVERS : 1;
    opts.server_id = stop_servers[i].id;
    opts.master.port = 3005;
    opts.master.users = stop_users;
    opts.master.users_count = 1;
    assert_ok(pm_app_new(&t->apps[i], &opts));
    assert_ok(pm_app_handler(t->apps[i], "chat.h.work", on_work, t));
    assert_ok(pm_app_handler(t->apps[i], "connector.h.enter", on_enter, t));
    assert_ok(pm_app_global_filter(t->apps[i], &filter, t));
    if (i != MASTER)
        assert_ok(pm_app_route_builtin(t->apps[i], "chat", t->way));
    assert_ok(pm_app_start(t->apps[i]));
}

/* ---- The people -------------------------------------------------------- */

static void person_ask(person *p);

static void person_answered(pm_client *client, pm_err err, pm_body body,
                            void *ctx)
{
    person *p = ctx;
    (void)client;
    p->of->answered++;
    if (err)
        p->of->closed++;
    else if (body.data.len < 8 || memcmp(body.data.data, "{\"code\"", 7) == 0)
        p->of->failed++;
    if (!err)
        person_ask(p);
}

static void person_ask(person *p)
{
    if (!p->of->asking)
        return;
    p->of->asked++;
    assert_ok(pm_client_request(p->client, "chat.h.work",
                                pm_body_text("{\"a\":1}"), person_answered, p));
}

static void person_entered(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    person *p = ctx;
    (void)client;
    (void)body;
    assert_ok(err);
    p->entered = true;
}

static void person_connected(pm_client *client, const struct cJSON *user,
                             void *ctx)
{
    person *p = ctx;
    (void)user;
    assert_ok(pm_client_request(client, "connector.h.enter",
                                pm_body_text(p->enter), person_entered, p));
}

static void person_come(town *t, int i)
{
    pm_client_opts opts = pm_client_opts_default();
    person *p = &t->people[i];
    p->of = t;
    snprintf(p->enter, sizeof p->enter, "{\"uid\":\"u%d\"}", i);
    opts.loop = t->loop;
    opts.port = 3050;
    opts.events.connected = person_connected;
    opts.ctx = p;
    assert_ok(pm_client_new(&p->client, &opts));
}

/* ---- The town ---------------------------------------------------------- */

static void town_run(town *t, uint64_t ms)
{
    assert_true(test_world_run(&t->world, t->loop, ms * 1000));
}

/* Up to 4 ms each way, each transfer another time. */
static uint64_t town_delay(void *ctx, const char *from, const char *to,
                           size_t bytes)
{
    (void)from;
    (void)to;
    (void)bytes;
    return test_world_below(&((town *)ctx)->world, 4000);
}

static void town_begin(town *t, const char *way, uint64_t seed)
{
    pm_loop_opts opts;
    memset(t, 0, sizeof *t);
    t->world.seed = seed;
    t->way = way;
    opts = test_world_opts(&t->world, &t->heap);
    assert_ok(pm_loop_new(&t->loop, &opts));
    for (int i = 0; i < SERVERS; i++)
        town_start(t, i);
    town_run(t, 1000);
    for (int i = 0; i < PEOPLE; i++)
        person_come(t, i);
    town_run(t, 1000);
    pmi_loop_set_link_fault(t->loop, town_delay, t);
    t->asking = true;
    for (int i = 0; i < PEOPLE; i++) {
        assert_true(t->people[i].entered);
        for (int k = 0; k < AHEAD; k++)
            person_ask(&t->people[i]);
    }
    town_run(t, 200);
}

static void on_stopped(pm_app *app, pm_err err, void *ctx)
{
    town *t = ctx;
    (void)app;
    t->stopped = err;
    t->stopped_us = t->world.now_us;
}

/* How long it took, in virtual milliseconds. */
static uint64_t town_stop(town *t, int i)
{
    uint64_t began = t->world.now_us;
    t->stopped = PM_EAGAIN;
    assert_ok(pm_app_stop(t->apps[i], 3000, on_stopped, t));
    for (int k = 0; k < 400 && t->stopped == PM_EAGAIN; k++)
        town_run(t, 10);
    assert_ok(t->stopped);
    pm_app_free(t->apps[i]);
    t->apps[i] = NULL;
    return (t->stopped_us - began) / 1000;
}

static void town_end(town *t)
{
    pmi_loop_set_link_fault(t->loop, NULL, NULL);
    for (int i = 0; i < PEOPLE; i++)
        pm_client_free(t->people[i].client);
    for (int i = SERVERS; i-- > 0;)
        pm_app_free(t->apps[i]);
    assert_ok(pm_loop_free(t->loop));
    assert_heap_empty(&t->heap);
}

static void town_tell(const char *way, uint64_t seed)
{
    town *t = malloc(sizeof *t);
    uint64_t longest = 0;
    uint32_t ok;
    assert_non_null(t);
    town_begin(t, way, seed);
    for (int i = CHAT_1; i <= CHAT_3; i++) {
        uint32_t served = t->served[i];
        uint64_t took = town_stop(t, i);
        longest = took > longest ? took : longest;
        assert_true(served > 0);
        town_run(t, 200);
        town_start(t, i);
        town_run(t, 1500);
        assert_true(t->served[i] > served); /* it is used again */
        if (t->failed || t->closed)
            fail_msg("%s, seed %llu, %s: %u failed, %u closed", way,
                     (unsigned long long)seed, stop_servers[i].id, t->failed,
                     t->closed);
    }
    ok = t->answered;
    town_stop(t, CONNECTOR);
    t->asking = false;
    town_run(t, 100);
    assert_int_equal(t->answered, t->asked);
    /* Each one that was taken has its own answer. */
    assert_int_equal(t->taken, t->answered - t->failed - t->closed);
    printf("%-10s %6u requests, 0 failed while three servers stopped (%llu ms "
           "at most); then the connector: %u taken, all answered, %u refused\n",
           way, ok, (unsigned long long)longest, t->taken - ok,
           t->failed + t->closed);
    town_end(t);
    free(t);
}

static void test_nobody_notices(void **state)
{
    static const char *const ways[] = {"def", "rr",         "wrr", "la",
                                       "ch",  "rendezvous", "def", "rr"};
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        town_tell(ways[i], 100 + i);
}

/* ---- Without a master -------------------------------------------------- */

/* Two servers and no master: what was sent before the word was heard is
 * served, however long it takes; what comes later is refused at once. */
typedef struct pair {
    test_world world;
    test_heap heap;
    pm_loop *loop;
    pm_app *a, *b;
    uint32_t asked, ok, down, other;
    pm_err stopped;
} pair;

static const pm_server pair_servers[2] = {
    {.id = "a-1", .type = "a", .port = 4001},
    {.id = "b-1", .type = "b", .port = 4002}};

static void pair_serve(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_body_text("1"));
}

static void pair_told(const pm_rpc_result *result, void *ctx)
{
    pair *p = ctx;
    p->ok += result->err == PM_OK;
    p->down += result->err == PM_EDOWN;
    p->other += result->err != PM_OK && result->err != PM_EDOWN;
}

static void pair_stopped(pm_app *app, pm_err err, void *ctx)
{
    (void)app;
    ((pair *)ctx)->stopped = err;
}

static uint64_t pair_delay(void *ctx, const char *from, const char *to,
                           size_t bytes)
{
    (void)from;
    (void)to;
    (void)bytes;
    return test_world_below(&((pair *)ctx)->world, 50000);
}

static pm_app *pair_app(pair *p, int i)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    opts.loop = p->loop;
    opts.servers = pair_servers;
    opts.servers_count = 2;
    opts.server_id = pair_servers[i].id;
    assert_ok(pm_app_new(&app, &opts));
    assert_ok(pm_app_remote(app, "b.s.m", pair_serve, p));
    assert_ok(pm_app_start(app));
    return app;
}

static void pair_run(pair *p, uint64_t ms)
{
    assert_true(test_world_run(&p->world, p->loop, ms * 1000));
}

static void test_slow_links(void **state)
{
    pair p = {.world.seed = 3};
    pm_loop_opts opts = test_world_opts(&p.world, &p.heap);
    (void)state;
    assert_ok(pm_loop_new(&p.loop, &opts));
    p.a = pair_app(&p, 0);
    p.b = pair_app(&p, 1);
    pair_run(&p, 3000);
    pmi_loop_set_link_fault(p.loop, pair_delay, &p);
    p.stopped = PM_EAGAIN;
    for (int i = 0; i < 300; i++) {
        if (i == 100)
            assert_ok(pm_app_stop(p.b, 3000, pair_stopped, &p));
        p.asked++;
        assert_ok(pm_rpc_invoke(p.a, "b.s.m", pm_param_none(), pm_body_none(),
                                pair_told, &p));
        pair_run(&p, 2);
    }
    pair_run(&p, 1000);
    assert_ok(p.stopped);
    assert_int_equal(p.ok + p.down, p.asked);
    assert_int_equal(p.other, 0); /* nothing was cut off */
    assert_true(p.ok > 100 && p.down > 0);
    pm_app_free(p.a);
    pm_app_free(p.b);
    assert_ok(pm_loop_free(p.loop));
    assert_heap_empty(&p.heap);
}

/* A peer that is frozen does not hold a stop up for ever, and nothing was cut
 * off. */
static void test_frozen_peer(void **state)
{
    pair p = {.world.seed = 4};
    pm_loop_opts opts = test_world_opts(&p.world, &p.heap);
    (void)state;
    assert_ok(pm_loop_new(&p.loop, &opts));
    p.a = pair_app(&p, 0);
    p.b = pair_app(&p, 1);
    pair_run(&p, 3000);
    p.world.seed = 5;
    pmi_loop_set_link_fault(p.loop, pair_delay, &p);
    p.stopped = PM_EAGAIN;
    assert_ok(pm_app_stop(p.b, 1, pair_stopped, &p));
    pair_run(&p, 4);
    assert_ok(p.stopped);
    pm_app_free(p.a);
    pm_app_free(p.b);
    assert_ok(pm_loop_free(p.loop));
    assert_heap_empty(&p.heap);
}

/* ---- What the application holds ---------------------------------------- */

static void hold_before(pm_app *app, void *ctx)
{
    pair *p = ctx;
    assert_err(p->stopped, PM_EAGAIN);
    assert_ok(pm_app_stop_hold(app));
    assert_ok(pm_app_stop_hold(app));
    p->asked++;
    /* What it asks others is waited for by itself. */
    assert_ok(pm_rpc_invoke(app, "b.s.m", pm_param_none(), pm_body_none(),
                            pair_told, p));
}

static void test_hold(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        pair p = {.world.seed = 5, .stopped = PM_EAGAIN};
        pm_loop_opts opts = test_world_opts(&p.world, &p.heap);
        pm_component part = {.name = "saver", .before_stop = hold_before};
        pm_app_opts app = pm_app_opts_default();
        assert_ok(pm_loop_new(&p.loop, &opts));
        p.b = pair_app(&p, 1);
        app.loop = p.loop;
        app.servers = pair_servers;
        app.servers_count = 2;
        app.server_id = "a-1";
        assert_ok(pm_app_new(&p.a, &app));
        assert_err(pm_app_stop_hold(p.a), PM_ESTATE);
        assert_ok(pm_app_component(p.a, &part, &p));
        assert_ok(pm_app_start(p.a));
        pair_run(&p, 1000);
        assert_ok(pm_app_stop(p.a, 500, pair_stopped, &p));
        pair_run(&p, 100);
        assert_int_equal(p.ok, 1);
        assert_err(p.stopped, PM_EAGAIN);
        pm_app_stop_release(p.a);
        pair_run(&p, 100);
        assert_err(p.stopped, PM_EAGAIN);
        if (!late)
            pm_app_stop_release(p.a);
        pair_run(&p, 500);
        assert_err(p.stopped, late ? PM_ETIMEOUT : PM_OK);
        assert_err(pm_app_stop_hold(p.a), PM_ESTATE);
        pm_app_stop_release(p.a); /* too late, or once too often: harmless */
        pm_app_stop_release(p.a);
        pm_app_free(p.a);
        pm_app_free(p.b);
        assert_ok(pm_loop_free(p.loop));
        assert_heap_empty(&p.heap);
    }
}

/* ---- The master is away ------------------------------------------------ */

static void listed(const pm_admin_result *result, void *ctx)
{
    char **text = ctx;
    assert_ok(result->err);
    assert_ok(pm_json_text(result->body, text));
}

/* Is everybody in the master's list? */
static bool town_is_listed(town *t)
{
    pm_console_opts opts = pm_console_opts_default();
    pm_console *console;
    char *text = NULL;
    bool all = true;
    opts.loop = t->loop;
    assert_ok(pm_console_new(&console, &opts));
    assert_ok(pm_console_request(console, "__console__",
                                 "{\"signal\":\"list\"}", listed, &text));
    for (int i = 0; i < 200 && !text; i++)
        town_run(t, 10);
    assert_non_null(text);
    for (int i = 0; i < SERVERS; i++)
        all &= strstr(text, stop_servers[i].id) != NULL;
    pm_text_free(text);
    pm_console_free(console);
    return all;
}

/* Each of the people asks twice a second, for an hour. */
static void test_no_master_for_an_hour(void **state)
{
    town *t = malloc(sizeof *t);
    uint64_t back;
    (void)state;
    assert_non_null(t);
    town_begin(t, "def", 200);
    t->asking = false; /* each answer brought the next question so far */
    town_run(t, 200);
    assert_int_equal(t->answered, t->asked);
    assert_true(town_is_listed(t));
    pm_app_free(t->apps[MASTER]);
    t->apps[MASTER] = NULL;
    t->asked = t->answered = 0;
    for (int half = 0; half < 7200; half++) {
        t->asking = true;
        for (int i = 0; i < PEOPLE; i++)
            person_ask(&t->people[i]);
        t->asking = false;
        town_run(t, 500);
    }
    assert_int_equal(t->asked, 7200 * PEOPLE);
    assert_int_equal(t->answered, t->asked);
    assert_int_equal(t->failed + t->closed, 0);
    town_start(t, MASTER);
    back = t->world.now_us;
    while (!town_is_listed(t))
        assert_true(t->world.now_us - back < 5 * 1000000);
    printf("an hour without a master: %u requests, 0 failed; its list is whole "
           "%llu ms after it is back\n",
           t->answered, (unsigned long long)(t->world.now_us - back) / 1000);
    assert_true(t->world.now_us - back < 5 * 1000000);
    town_end(t);
    free(t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_no_master_for_an_hour),
    cmocka_unit_test(test_nobody_notices), cmocka_unit_test(test_slow_links),
    cmocka_unit_test(test_frozen_peer), cmocka_unit_test(test_hold)};
TEST_MAIN(tests)
