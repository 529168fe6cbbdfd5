/* SPDX-License-Identifier: MIT */
/* test/test_master.c -- membership by the master: joining, leaving, coming back
 * in any order; what a dead master leaves alone; late removals; strangers. */
#include "master_town.h"

#include "pomelo_monitor_internal.h"

/* ---- Joining and leaving ----------------------------------------------- */

static void test_join(void **state)
{
    town t;
    const pm_server *told;
    (void)state;
    town_begin(&t, 1);
    town_start_all(&t);
    assert_true(town_converged(&t));
    for (int i = TOWN_GATE; i < TOWN_APPS; i++) {
        assert_true(pm_master_is_up(t.at[i].app));
        assert_int_equal(pm_server_count(t.at[i].app, NULL), 3);
        assert_int_equal(t.at[i].all_started, 1);
        assert_int_equal(t.at[i].removed, 0);
    }
    assert_true(pm_master_is_up(t.at[TOWN_MASTER].app));
    assert_int_equal(t.at[TOWN_MASTER].all_started, 1);
    assert_int_equal(town_counts(&t).registered, 3);
    told = pm_server_find(t.at[TOWN_CHAT].app, "connector-1");
    assert_string_equal(told->type, "connector");
    assert_string_equal(told->host, "127.0.0.1");
    assert_int_equal(told->port, 4060);
    assert_int_equal(told->client_port, 3050);
    assert_true(told->frontend);
    assert_non_null(strstr(told->raw, "\"zone\":7"));
    town_end(&t);
}

static void stopped(pm_app *app, pm_err err, void *ctx)
{
    (void)app;
    *(pm_err *)ctx = err;
}

static void test_leave_and_come_back(void **state)
{
    town t;
    pm_err err = PM_EINVAL;
    (void)state;
    town_begin(&t, 2);
    town_start_all(&t);
    /* On purpose: everybody knows at once. */
    assert_ok(pm_app_stop(t.at[TOWN_CHAT].app, 100, stopped, &err));
    town_run(&t, 200);
    assert_ok(err);
    assert_false(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_string_equal(t.at[TOWN_GATE].last_removed, "chat-1");
    town_kill(&t, TOWN_CHAT);
    assert_ok(town_start(&t, TOWN_CHAT));
    town_run(&t, 2500);
    assert_true(town_converged(&t));
    assert_int_equal(t.at[TOWN_GATE].removed, 1);
    town_end(&t);
}

/* A stub that is chat-1 and dies without a word. */
static void test_dies(void **state)
{
    town t;
    stub chat;
    (void)state;
    town_begin(&t, 3);
    for (int i = 0; i < TOWN_CHAT; i++)
        assert_ok(town_start(&t, i));
    stub_dial(&chat, t.loop, 3005);
    stub_hello(&chat);
    stub_publish(&chat, "register", TOWN_CHAT_SAYS("1"));
    town_run(&t, 500);
    assert_true(stub_has(&chat, "register {\"code\":1,\"msg\":\"ok\"}"));
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    stub_end(&chat);
    town_run(&t, 900); /* it may come back */
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    town_run(&t, 300);
    assert_false(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_false(town_knows(&t, TOWN_CONNECTOR, "chat-1"));
    town_end(&t);
}

/* Its link breaks and it is back within the grace: nobody is told to remove
 * it. */
static void test_link_breaks(void **state)
{
    town t;
    stub chat;
    (void)state;
    town_begin(&t, 4);
    for (int i = 0; i < TOWN_CHAT; i++)
        assert_ok(town_start(&t, i));
    stub_dial(&chat, t.loop, 3005);
    stub_hello(&chat);
    stub_publish(&chat, "register", TOWN_CHAT_SAYS("1"));
    town_run(&t, 500);
    stub_end(&chat);
    town_run(&t, 500);
    stub_dial(&chat, t.loop, 3005);
    stub_hello(&chat);
    stub_publish(&chat, "reconnect", TOWN_CHAT_SAYS("1"));
    town_run(&t, 5000);
    assert_true(stub_has(&chat, "reconnect_ok {\"code\":1,\"msg\":\"ok\"}"));
    assert_true(stub_has(&chat, "\"action\":\"replaceServer\""));
    assert_true(stub_has(&chat, "\"gate-1\":{"));
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_int_equal(t.at[TOWN_GATE].removed, 0);
    stub_end(&chat);
    town_end(&t);
}

/* ---- Any order --------------------------------------------------------- */

static void start_in_order(const int order[TOWN_APPS], uint64_t seed)
{
    town t;
    town_begin(&t, seed);
    for (int i = 0; i < TOWN_APPS; i++) {
        assert_ok(town_start(&t, order[i]));
        town_run(&t, test_world_below(&t.world, 8000));
    }
    town_run(&t, 5000);
    if (!town_converged(&t))
        fail_msg("%d %d %d %d does not converge", order[0], order[1], order[2],
                 order[3]);
    for (int i = 0; i < TOWN_APPS; i++) {
        assert_int_equal(t.at[i].all_started, 1);
        assert_int_equal(t.at[i].removed, 0);
    }
    town_end(&t);
}

static void test_any_order(void **state)
{
    int orders = 0;
    (void)state;
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++)
            for (int c = 0; c < 4; c++) {
                int order[4] = {a, b, c, 6 - a - b - c};
                if (a == b || b == c || a == c)
                    continue;
                start_in_order(order, (uint64_t)++orders);
            }
    assert_int_equal(orders, 24);
}

/* ---- The same order everywhere ----------------------------------------- */

enum { ORDER_MASTER, ORDER_GATE, ORDER_CHAT, ORDER_APPS = ORDER_CHAT + 3 };
static const pm_server order_servers[ORDER_APPS] = {
    {.id = "m", .type = "master", .port = 3005},
    {.id = "g", .type = "gate", .port = 4000},
    {.id = "c1", .type = "chat", .port = 4001},
    {.id = "c2", .type = "chat", .port = 4002},
    {.id = "c3", .type = "chat", .port = 4003},
};

static void order_start(town *t, pm_app **app, int i, bool whole)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = t->loop;
    opts.servers = whole ? order_servers : &order_servers[i];
    opts.servers_count = whole ? ORDER_APPS : 1;
    opts.server_id = order_servers[i].id;
    opts.master.port = 3005;
    assert_ok(pm_app_new(app, &opts));
    assert_ok(pm_app_start(*app));
}

static void assert_order(const pm_app *app)
{
    assert_int_equal(pm_server_count(app, "chat"), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(pm_server_at(app, "chat", i)->id,
                            order_servers[ORDER_CHAT + i].id);
}

/* Routers that count on the order choose alike, whoever came, went and came
 * back when, and whatever each process knew at first. */
static void test_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        town t;
        pm_app *app[ORDER_APPS] = {NULL};
        town_begin(&t, seed);
        order_start(&t, &app[ORDER_MASTER], ORDER_MASTER, true);
        for (int n = 0; n < 40; n++) {
            int i = 1 + (int)test_world_below(&t.world, ORDER_APPS - 1);
            if (app[i])
                pm_app_free(app[i]);
            app[i] = NULL;
            if (test_world_below(&t.world, 3))
                order_start(&t, &app[i], i, test_world_below(&t.world, 2));
            town_run(&t, test_world_below(&t.world, 3000));
        }
        for (int i = 1; i < ORDER_APPS; i++)
            if (!app[i])
                order_start(&t, &app[i], i, seed % 2);
        town_run(&t, 8000);
        for (int i = 1; i < ORDER_APPS; i++)
            assert_order(app[i]);
        for (int i = 0; i < ORDER_APPS; i++)
            pm_app_free(app[i]);
        town_end(&t);
    }
}

/* Servers that are in no table keep their places under the next master, in
 * whatever order they find it: what is routed by place does not move. */
static void test_order_of_the_next_master(void **state)
{
    static const int came[] = {ORDER_CHAT + 2, ORDER_CHAT, ORDER_CHAT + 1};
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        town t;
        pm_app *app[ORDER_APPS] = {NULL};
        town_begin(&t, seed);
        order_start(&t, &app[ORDER_MASTER], ORDER_MASTER, false);
        order_start(&t, &app[ORDER_GATE], ORDER_GATE, false);
        for (size_t i = 0; i < 3; i++) {
            order_start(&t, &app[came[i]], came[i], false);
            town_run(&t, 500);
        }
        pm_app_free(app[ORDER_MASTER]);
        town_run(&t, 10000 + test_world_below(&t.world, 5000));
        order_start(&t, &app[ORDER_MASTER], ORDER_MASTER, false);
        for (int tenths = 0; tenths < 200; tenths++) {
            town_run(&t, 100);
            for (size_t i = 0; i < 3; i++)
                assert_string_equal(
                    pm_server_at(app[ORDER_GATE], "chat", i)->id,
                    order_servers[came[i]].id);
        }
        for (int i = 0; i < ORDER_APPS; i++)
            pm_app_free(app[i]);
        town_end(&t);
    }
}

/* ---- The master dies --------------------------------------------------- */

static void remote_echo(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_call_args(call));
}

static void called(const pm_rpc_result *result, void *ctx)
{
    int *count = ctx;
    count[result->err == PM_OK ? 0 : 1]++;
}

static void test_master_dies(void **state)
{
    town t;
    int calls[2] = {0, 0};
    (void)state;
    town_begin(&t, 5);
    t.opts.no_tokens = true;
    assert_ok(town_start(&t, TOWN_MASTER));
    assert_ok(town_start(&t, TOWN_GATE));
    assert_ok(town_start(&t, TOWN_CONNECTOR));
    {
        pm_app_opts opts = pm_app_opts_default();
        opts.loop = t.loop;
        opts.servers = &town_servers[TOWN_CHAT];
        opts.servers_count = 1;
        opts.master.port = 3005;
        assert_ok(pm_app_new(&t.at[TOWN_CHAT].app, &opts));
        assert_ok(pm_app_remote(t.at[TOWN_CHAT].app, "chat.room.echo",
                                remote_echo, NULL));
        assert_ok(pm_app_start(t.at[TOWN_CHAT].app));
    }
    town_run(&t, 1000);
    assert_true(town_converged(&t));
    town_kill(&t, TOWN_MASTER);
    for (int second = 0; second < 600; second++) { /* ten minutes */
        for (int i = 0; i < 5; i++)
            assert_ok(pm_rpc_invoke(t.at[TOWN_GATE].app, "chat.room.echo",
                                    pm_param_none(), pm_body_text("[1]"),
                                    called, calls));
        town_run(&t, 1000);
    }
    assert_int_equal(calls[0], 3000);
    assert_int_equal(calls[1], 0);
    assert_true(town_converged(&t));
    assert_false(pm_master_is_up(t.at[TOWN_GATE].app));
    assert_ok(town_start(&t, TOWN_MASTER));
    town_run(&t, 5000);
    assert_int_equal(town_counts(&t).registered, 3);
    assert_int_equal(t.at[TOWN_MASTER].all_started, 1);
    town_run(&t, 60000);
    assert_true(town_converged(&t));
    for (int i = TOWN_GATE; i < TOWN_CHAT; i++) {
        assert_true(pm_master_is_up(t.at[i].app));
        assert_int_equal(t.at[i].removed, 0);
        assert_int_equal(t.at[i].down, 0);
    }
    town_end(&t);
}

/* A server that died while the master was away is removed in the end. */
static void test_dies_with_the_master(void **state)
{
    town t;
    (void)state;
    town_begin(&t, 6);
    town_start_all(&t);
    town_kill(&t, TOWN_MASTER);
    town_run(&t, 100);
    town_kill(&t, TOWN_CHAT);
    town_run(&t, 60000);
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_false(pm_server_is_up(t.at[TOWN_GATE].app, "chat-1"));
    assert_ok(town_start(&t, TOWN_MASTER));
    town_run(&t, 30000);
    assert_false(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_true(pm_server_is_up(t.at[TOWN_GATE].app, "connector-1"));
    town_end(&t);
}

/* ---- Late removals: NetEase/pomelo#736 --------------------------------- */

static void chat_says(stub *s, const char *topic, int n)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"id\":\"chat-1\",\"type\":\"monitor\",\"serverType\":\"chat\","
             "\"pid\":%d,\"info\":{\"id\":\"chat-1\",\"serverType\":\"chat\","
             "\"host\":\"127.0.0.1\",\"port\":4070,\"incarnation\":\"i%d\"},"
             "\"token\":\"tok-chat\"}",
             n, n);
    stub_publish(s, topic, text);
}

/* A thousand restarts: the new process is there before the old one's end is
 * seen, or says DISCONNECT late, or both at once. */
static void test_restart_storm(void **state)
{
    town t;
    stub chat[2];
    (void)state;
    town_begin(&t, 7);
    for (int i = 0; i < TOWN_CHAT; i++)
        assert_ok(town_start(&t, i));
    stub_dial(&chat[0], t.loop, 3005);
    stub_hello(&chat[0]);
    chat_says(&chat[0], "register", 0);
    town_run(&t, 300);
    for (int n = 1; n <= 1000; n++) {
        stub *old = &chat[(n + 1) % 2], *fresh = &chat[n % 2];
        uint64_t r = test_world_u64(&t.world);
        stub_dial(fresh, t.loop, 3005);
        stub_hello(fresh);
        if (r % 4 == 0)
            stub_say_small(old, PMI_MQTT_DISCONNECT);
        chat_says(fresh, "register", n);
        if (r % 4 == 1)
            stub_say_small(old, PMI_MQTT_DISCONNECT);
        town_run(&t, r / 8 % 20);
        if (r % 4 == 2)
            stub_say_small(old, PMI_MQTT_DISCONNECT);
        stub_end(old); /* only now the old one is gone */
        town_run(&t, 5 + r / 256 % 1500);
        if (!town_knows(&t, TOWN_GATE, "chat-1") ||
            !town_knows(&t, TOWN_CONNECTOR, "chat-1"))
            fail_msg("restart %d has evicted the new server", n);
    }
    town_run(&t, 5000);
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_true(town_counts(&t).late_removals > 500);
    assert_true(town_counts(&t).registered >= 1002);
    stub_end(&chat[0]);
    town_end(&t);
}

/* An old process that comes back does not push out its successor, which is
 * linked; and says so only as often as a refused one may. */
static void test_predecessor_comes_back(void **state)
{
    town t;
    stub old, fresh;
    (void)state;
    town_begin(&t, 8);
    for (int i = 0; i < TOWN_CHAT; i++)
        assert_ok(town_start(&t, i));
    stub_dial(&fresh, t.loop, 3005);
    stub_hello(&fresh);
    chat_says(&fresh, "register", 2);
    town_run(&t, 100);
    stub_dial(&old, t.loop, 3005);
    stub_hello(&old);
    chat_says(&old, "reconnect", 1);
    town_run(&t, 2000);
    assert_true(stub_has(&old, "reconnect_ok {\"code\":-1,\"msg\":\"id has "
                               "been registered. id:chat-1\",\"replaced\":"
                               "true}\nDISCONNECT"));
    assert_int_equal(old.closed, 1);
    assert_int_equal(fresh.closed, 0);
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    stub_end(&old);
    stub_end(&fresh);
    town_end(&t);
}

/* Two processes with one id: the later one has it, the other one ends. */
static void test_replaced(void **state)
{
    town t;
    stub fresh;
    (void)state;
    town_begin(&t, 16);
    town_start_all(&t);
    stub_dial(&fresh, t.loop, 3005);
    stub_hello(&fresh);
    chat_says(&fresh, "register", 2);
    town_run(&t, 5000);
    assert_int_equal(t.stops[TOWN_CHAT], 1);
    assert_int_equal(t.at_once[TOWN_CHAT], 0);
    assert_int_equal(fresh.closed, 0);
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    stub_end(&fresh);
    town_end(&t);
}

static void welcome(town *t, stub *master, const char *topic, const char *says)
{
    town_run(t, 4000);
    stub_say(master, &(pmi_mqtt_packet){.type = PMI_MQTT_CONNACK});
    town_run(t, 10);
    stub_publish(master, topic, says);
    town_run(t, 10);
}

/* That an id is in use is no reason to end: a Node master that has not seen our
 * link break says so too. */
static void test_refused_is_not_replaced(void **state)
{
    town t;
    stub master;
    (void)state;
    town_begin(&t, 17);
    stub_listen(&master, t.loop, 3005);
    assert_ok(town_start(&t, TOWN_GATE));
    welcome(&t, &master, "register", "{\"code\":1,\"msg\":\"ok\"}");
    assert_true(pm_master_is_up(t.at[TOWN_GATE].app));
    pmi_conn_free(master.conn);
    master.conn = NULL;
    welcome(&t, &master, "reconnect_ok",
            "{\"code\":-1,\"msg\":\"id has been registered. id:gate-1\"}");
    assert_false(pm_master_is_up(t.at[TOWN_GATE].app));
    assert_int_equal(t.stops[TOWN_GATE], 0);
    welcome(&t, &master, "reconnect_ok",
            "{\"code\":-1,\"msg\":\"id has been registered. id:gate-1\","
            "\"replaced\":true}");
    assert_int_equal(t.stops[TOWN_GATE], 1);
    stub_end(&master);
    town_end(&t);
}

/* A master whose word comes late: the server that it means is another one by
 * now. */
static void test_late_word_of_the_master(void **state)
{
    town t;
    stub master;
    (void)state;
    town_begin(&t, 9);
    stub_listen(&master, t.loop, 3005);
    assert_ok(town_start(&t, TOWN_GATE));
    town_run(&t, 100);
    stub_say(&master, &(pmi_mqtt_packet){.type = PMI_MQTT_CONNACK});
    town_run(&t, 10);
    assert_true(stub_has(&master, "register {\"id\":\"gate-1\""));
    stub_publish(&master, "register", "{\"code\":1,\"msg\":\"ok\"}");
    town_run(&t, 10);
    stub_publish_twice(&master, "monitor",
                       "{\"respId\":1,\"error\":null,\"body\":{\"chat-1\":{"
                       "\"id\":\"chat-1\",\"serverType\":\"chat\",\"host\":"
                       "\"127.0.0.1\",\"port\":4070,\"incarnation\":\"a\"}}}");
    town_run(&t, 10);
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    stub_publish_twice(&master, "monitor",
                       "{\"reqId\":5,\"moduleId\":\"__monitorwatcher__\","
                       "\"body\":{\"action\":\"addServer\",\"server\":{"
                       "\"id\":\"chat-1\",\"serverType\":\"chat\",\"host\":"
                       "\"127.0.0.1\",\"port\":4070,\"incarnation\":\"b\"}}}");
    stub_publish_twice(&master, "monitor",
                       "{\"reqId\":\"6\",\"moduleId\":\"__monitorwatcher__\","
                       "\"body\":{\"action\":\"removeServer\",\"id\":"
                       "\"chat-1\",\"incarnation\":\"a\"}}");
    town_run(&t, 10);
    assert_true(town_knows(&t, TOWN_GATE, "chat-1"));
    assert_int_equal(
        pmi_monitor_late_removals(pmi_app_monitor(t.at[TOWN_GATE].app)), 1);
    assert_true(stub_has(&master, "{\"respId\":5,\"error\":1}"));
    assert_true(stub_has(&master, "{\"respId\":\"6\",\"error\":1}"));
    stub_publish_twice(&master, "monitor",
                       "{\"reqId\":7,\"moduleId\":\"__monitorwatcher__\","
                       "\"body\":{\"action\":\"removeServer\",\"id\":"
                       "\"chat-1\",\"incarnation\":\"b\"}}");
    town_run(&t, 10);
    assert_false(town_knows(&t, TOWN_GATE, "chat-1"));
    /* Nobody can have us removed. */
    stub_publish_twice(&master, "monitor",
                       "{\"reqId\":8,\"moduleId\":\"__monitorwatcher__\","
                       "\"body\":{\"action\":\"removeServer\",\"id\":"
                       "\"gate-1\"}}");
    town_run(&t, 10);
    assert_true(town_knows(&t, TOWN_GATE, "gate-1"));
    stub_end(&master);
    town_end(&t);
}

/* ---- Strangers --------------------------------------------------------- */

/* Says one message and hears at most a refusal. */
static void stranger(town *t, const char *topic, const char *json,
                     const char *answer)
{
    stub s;
    stub_dial(&s, t->loop, 3005);
    stub_hello(&s);
    stub_publish(&s, topic, json);
    town_run(t, 50);
    if (answer && !stub_has(&s, answer))
        fail_msg("%s got: %s", json, s.heard);
    if (stub_has(&s, "gate-1") || stub_has(&s, "\"code\":1,") || !s.closed)
        fail_msg("%s got: %s", json, s.heard);
    stub_end(&s);
}

#define STRANGER_INFO                                                          \
    "\"info\":{\"id\":\"evil-1\",\"serverType\":\"chat\",\"host\":"            \
    "\"1.2.3.4\",\"port\":1}"
#define STRANGER_WHO                                                           \
    "{\"id\":\"evil-1\",\"type\":\"monitor\",\"serverType\":\"chat\","

static void test_strangers_without_a_token(void **state)
{
    static const char auth[] = "{\"code\":-1,\"msg\":\"server auth failed\"}";
    static const char *const topics[] = {"register", "reconnect"};
    town t;
    (void)state;
    town_begin(&t, 10);
    town_start_all(&t);
    for (int i = 0; i < 2; i++) {
        const char *topic = topics[i];
        stranger(&t, topic, STRANGER_WHO STRANGER_INFO "}", auth);
        stranger(&t, topic, STRANGER_WHO STRANGER_INFO ",\"token\":\"bad\"}",
                 auth);
        stranger(&t, topic, STRANGER_WHO STRANGER_INFO ",\"token\":null}",
                 auth);
        stranger(&t, topic, STRANGER_WHO STRANGER_INFO ",\"token\":\"\"}",
                 auth);
        /* Another type's. */
        stranger(&t, topic,
                 STRANGER_WHO STRANGER_INFO ",\"token\":\"tok-gate\"}", auth);
        /* The type of the token, another one in its info. */
        stranger(&t, topic,
                 "{\"id\":\"evil-1\",\"type\":\"monitor\",\"serverType\":"
                 "\"gate\"," STRANGER_INFO ",\"token\":\"tok-gate\"}",
                 auth);
        stranger(&t, topic,
                 "{\"id\":\"chat-1\",\"type\":\"monitor\",\"serverType\":"
                 "\"gate\",\"info\":{\"id\":\"chat-1\"},\"token\":"
                 "\"tok-gate\"}",
                 "id has been registered. id:chat-1");
        stranger(&t, topic, "{\"type\":\"monitor\"}", auth);
        stranger(&t, topic, "{\"id\":\"e\",\"type\":\"spy\"}",
                 "unknown auth master type");
    }
    assert_int_equal(town_counts(&t).refused_auth, 18);
    assert_true(town_converged(&t));
    assert_int_equal(town_counts(&t).registered, 3);
    assert_int_equal(pm_server_count(t.at[TOWN_GATE].app, NULL), 3);
    town_end(&t);
}

static void test_strangers_with_nonsense(void **state)
{
    static const char *const broken[] = {
        "{",   "",   "nothing", "\"{\"",          "\"nothing\"",
        "[1]", "17", "null",    "\"\\\"{}\\\"\"", "{\"reqId\":{}}"};
    town t;
    pm_master_counts counts;
    (void)state;
    town_begin(&t, 11);
    town_start_all(&t);
    for (size_t i = 0; i < PMI_COUNT(broken); i++)
        stranger(&t, i % 2 ? "register" : "monitor", broken[i], NULL);
    counts = town_counts(&t);
    assert_int_equal(counts.refused_json, PMI_COUNT(broken));
    /* Well formed, but who are you? */
    stranger(&t, "monitor",
             "{\"reqId\":1,\"moduleId\":\"__masterwatcher__\",\"body\":{"
             "\"action\":\"query\"}}",
             "DISCONNECT");
    stranger(&t, "client",
             "{\"reqId\":1,\"moduleId\":\"__console__\",\"body\":{\"signal\":"
             "\"list\"}}",
             "DISCONNECT");
    stranger(&t, "client", "{\"reqId\":1,\"command\":\"list\"}", "DISCONNECT");
    assert_int_equal(town_counts(&t).refused_auth, 3);
    assert_true(town_converged(&t));
    town_end(&t);
}

static void test_strangers_with_wrong_frames(void **state)
{
    static const char *const bad[] = {
        "3080c2d72f0008",             /* 100 MB are announced */
        "30ffffffff7f",               /* a length of five bytes */
        "474554202f20485454502f312e", /* HTTP */
        "1603010200010001fc",         /* TLS */
        "00000010",
        "c000", /* first of all comes CONNECT */
        "e000"};
    town t;
    size_t before;
    (void)state;
    town_begin(&t, 12);
    town_start_all(&t);
    before = t.heap.live_bytes;
    for (size_t i = 0; i < PMI_COUNT(bad); i++) {
        size_t len;
        uint8_t *bytes = test_unhex(bad[i], &len);
        stub s;
        stub_dial(&s, t.loop, 3005);
        if (i == 0)
            stub_hello(&s);
        stub_send(&s, bytes, len);
        town_run(&t, 50);
        if (!s.closed)
            fail_msg("%s is let in", bad[i]);
        stub_end(&s);
        free(bytes);
    }
    assert_int_equal(town_counts(&t).refused_frame, PMI_COUNT(bad));
    town_run(&t, 1000);
    assert_true(t.heap.live_bytes <= before + 4096);
    assert_true(t.heap.peak_bytes < 4 * 1024 * 1024);
    assert_true(town_converged(&t));
    town_end(&t);
}

/* Who says nothing, and who comes with too many. */
static void test_strangers_in_the_way(void **state)
{
    enum { MANY = 80 };
    town t;
    stub s[MANY];
    (void)state;
    town_begin(&t, 13);
    assert_ok(town_start(&t, TOWN_MASTER));
    for (int i = 0; i < MANY; i++)
        stub_dial(&s[i], t.loop, 3005);
    town_run(&t, 100);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(s[i].closed, i < MANY - 64);
    for (int i = TOWN_GATE; i < TOWN_APPS; i++)
        assert_ok(town_start(&t, i));
    town_run(&t, 1000);
    assert_true(town_converged(&t));
    town_run(&t, 6000);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(s[i].closed, 1);
        stub_end(&s[i]);
    }
    assert_int_equal(town_counts(&t).refused_links, MANY);
    town_end(&t);
}

/* A server that is refused keeps trying, without hurry, and without filling
 * the log. */
static void test_refused_server(void **state)
{
    town t;
    pm_app_opts opts = pm_app_opts_default();
    pm_server evil = {.id = "evil-1", .type = "chat", .port = 4999};
    pm_app *app;
    (void)state;
    town_begin(&t, 14);
    town_start_all(&t);
    opts.loop = t.loop;
    opts.servers = &evil;
    opts.servers_count = 1;
    opts.master.port = 3005;
    opts.master.token = "wrong";
    assert_ok(pm_app_new(&app, &opts));
    assert_ok(pm_app_start(app));
    town_run(&t, 60000);
    assert_false(pm_master_is_up(app));
    assert_int_equal(pm_server_count(app, NULL), 1);
    assert_true(town_counts(&t).refused_auth >= 20);
    assert_true(town_counts(&t).refused_auth <= 45);
    pm_app_free(app);
    assert_true(town_converged(&t));
    town_end(&t);
}

static void note_refusal(void *ctx, pm_log_level level, const char *module,
                         const char *line)
{
    (void)level;
    (void)module;
    if (strstr(line, "refused: "))
        snprintf(ctx, 256, "%s", line);
}

/* The log says who it was. */
static void test_refusals_have_names(void **state)
{
    static const struct {
        const char *says, *line;
    } cases[] = {
        {"{\"id\":\"chat-5\",\"type\":\"monitor\",\"serverType\":\"nosuch\","
         "\"info\":{\"id\":\"chat-5\"}}",
         "refused: server auth failed: \"chat-5\" (nosuch) from -"},
        {"{\"id\":\"chat-1\",\"type\":\"monitor\",\"serverType\":\"gate\","
         "\"info\":{\"id\":\"chat-1\"},\"token\":\"tok-gate\"}",
         "refused: id has been registered: \"chat-1\" (gate) from -"},
        {"{\"id\":\"c\",\"type\":\"client\",\"username\":\"a\\nb\","
         "\"password\":\"x\"}",
         "refused: client auth failed with username or password error: \"a b\" "
         "(console) from -"},
        {"{\"type\":\"monitor\"}",
         "refused: server auth failed: \"\" (console) from -"},
    };
    char line[256];
    town t;
    (void)state;
    town_begin(&t, 18);
    t.opts.log = note_refusal;
    t.module_ctx = line;
    assert_ok(town_start(&t, TOWN_MASTER));
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        stub s;
        *line = 0;
        stub_dial(&s, t.loop, 3005);
        stub_hello(&s);
        stub_publish(&s, "register", cases[i].says);
        town_run(&t, 50);
        assert_string_equal(line, cases[i].line);
        stub_end(&s);
    }
    town_end(&t);
}

/* Without tokens the master believes everybody: on loopback only. */
static void test_open_master_off_loopback(void **state)
{
    pm_server server = {
        .id = "m", .type = "master", .host = "0.0.0.0", .port = 39005};
    pm_app_opts opts = pm_app_opts_default();
    pm_loop *loop;
    pm_app *app;
    (void)state;
    assert_ok(pm_loop_new(&loop, NULL));
    opts.loop = loop;
    opts.servers = &server;
    opts.servers_count = 1;
    assert_ok(pm_app_new(&app, &opts));
    assert_err(pm_app_start(app), PM_ECONFIG);
    pm_app_free(app);
    opts.master.tokens = town_tokens;
    opts.master.tokens_count = 3;
    assert_ok(pm_app_new(&app, &opts));
    assert_err(pm_app_start(app), PM_ECONFIG);
    pm_app_free(app);
    server.host = NULL;
    server.port = 0;
    assert_ok(pm_app_new(&app, &opts));
    assert_err(pm_app_start(app), PM_ECONFIG);
    pm_app_free(app);
    assert_ok(pm_loop_free(loop));
}

/* ---- Memory ------------------------------------------------------------ */

static void test_each_failure(void **state)
{
    town t;
    (void)state;
    memset(&t, 0, sizeof t);
    TEST_EACH_FAILURE(&t.heap)
    {
        pm_loop_opts opts;
        pm_err err;
        t.world = (test_world){.seed = 15};
        opts = test_world_opts(&t.world, &t.heap);
        err = pm_loop_new(&t.loop, &opts);
        if (err == PM_OK)
            err = town_start(&t, TOWN_MASTER);
        if (err == PM_OK)
            err = town_start(&t, TOWN_GATE);
        if (err == PM_OK)
            err = town_start(&t, TOWN_CHAT);
        if (err == PM_OK) {
            town_run(&t, 6000);
            /* Whatever failed, they have found each other by now; unless all
             * memory is gone for good. */
            if (!t.heap.fail_after)
                assert_true(pm_server_is_up(t.at[TOWN_GATE].app, "chat-1"));
        } else if (!t.heap.failed) {
            fail_msg("%s without a reason", pm_err_name(err));
        }
        for (int i = 0; i < TOWN_APPS; i++)
            town_kill(&t, i);
        if (t.loop)
            assert_ok(pm_loop_free(t.loop));
        t.loop = NULL;
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_join),
    cmocka_unit_test(test_leave_and_come_back),
    cmocka_unit_test(test_dies),
    cmocka_unit_test(test_link_breaks),
    cmocka_unit_test(test_any_order),
    cmocka_unit_test(test_order),
    cmocka_unit_test(test_order_of_the_next_master),
    cmocka_unit_test(test_master_dies),
    cmocka_unit_test(test_dies_with_the_master),
    cmocka_unit_test(test_restart_storm),
    cmocka_unit_test(test_predecessor_comes_back),
    cmocka_unit_test(test_replaced),
    cmocka_unit_test(test_refused_is_not_replaced),
    cmocka_unit_test(test_late_word_of_the_master),
    cmocka_unit_test(test_strangers_without_a_token),
    cmocka_unit_test(test_strangers_with_nonsense),
    cmocka_unit_test(test_strangers_with_wrong_frames),
    cmocka_unit_test(test_strangers_in_the_way),
    cmocka_unit_test(test_refused_server),
    cmocka_unit_test(test_refusals_have_names),
    cmocka_unit_test(test_open_master_off_loopback),
    cmocka_unit_test(test_each_failure),
};
TEST_MAIN(tests)
