/* SPDX-License-Identifier: MIT */
/* test/test_console.c -- what consoles ask of a master: list, modules; and who
 * may. Stopping and starting are in test_master_spawn.c. */
#include "console_town.h"

/* ---- Logging in -------------------------------------------------------- */

static void test_login(void **state)
{
    town t;
    pm_console *c;
    answer a;
    (void)state;
    town_begin(&t, 1);
    c = console(&t, NULL, NULL);
    a = ask(&t, c, "__console__", "{\"signal\":\"list\"}");
    assert_err(a.err, PM_EDOWN); /* there is no master */
    pm_console_free(c);
    town_start_all(&t);
    c = console(&t, "admin", "wrong");
    a = ask(&t, c, "__console__", "{\"signal\":\"list\"}");
    assert_err(a.err, PM_EAUTH);
    assert_string_equal(a.detail,
                        "client auth failed with username or password error");
    a = ask(&t, c, "__console__", "{\"signal\":\"list\"}");
    assert_err(a.err, PM_EAUTH); /* it stays so */
    pm_console_free(c);
    c = console(&t, "nobody", "admin");
    assert_err(ask(&t, c, "__console__", "{}").err, PM_EAUTH);
    pm_console_free(c);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", "{\"signal\":\"list\"}", PM_OK, "chat-1");
    assert_int_equal(town_counts(&t).refused_auth, 2);
    assert_int_equal(town_counts(&t).consoles, 1);
    town_kill(&t, TOWN_MASTER);
    town_run(&t, 100);
    assert_err(ask(&t, c, "__console__", "{\"signal\":\"list\"}").err,
               PM_ECLOSED);
    pm_console_free(c);
    town_end(&t);
}

static void test_login_in_plain(void **state)
{
    static const char *const says[] = {
        "{\"type\":\"client\",\"id\":\"c1\",\"username\":\"admin\","
        "\"password\":\"admin\",\"md5\":false}",
        "{\"type\":\"client\",\"id\":\"c2\",\"username\":\"admin\","
        "\"password\":\"21232f297a57a5a743894a0e4a801fc3\",\"md5\":true}",
        /* A hash is no password, nor a password a hash. */
        "{\"type\":\"client\",\"id\":\"c3\",\"username\":\"admin\","
        "\"password\":\"21232f297a57a5a743894a0e4a801fc3\",\"md5\":false}",
        "{\"type\":\"client\",\"id\":\"c4\",\"username\":\"admin\","
        "\"password\":\"admin\",\"md5\":true}",
        "{\"type\":\"client\",\"id\":\"c5\",\"username\":\"guest\","
        "\"password\":\"admin\"}",
        "{\"type\":\"client\",\"id\":\"c6\",\"username\":\"admin\"}",
        "{\"type\":\"client\",\"id\":\"c7\",\"password\":\"admin\"}",
        "{\"type\":\"client\",\"id\":\"c1\",\"username\":\"admin\","
        "\"password\":\"admin\"}",
    };
    town t;
    stub s[PMI_COUNT(says)];
    (void)state;
    town_begin(&t, 2);
    assert_ok(town_start(&t, TOWN_MASTER));
    for (size_t i = 0; i < PMI_COUNT(says); i++) {
        stub_dial(&s[i], t.loop, 3005);
        stub_hello(&s[i]);
        stub_publish(&s[i], "register", says[i]);
        town_run(&t, 20);
        if (stub_has(&s[i], "{\"code\":1,\"msg\":\"ok\"}") != (i < 2) ||
            (i >= 2 && !s[i].closed))
            fail_msg("%s: %s", says[i], s[i].heard);
    }
    assert_true(stub_has(&s[6], "client should auth with username"));
    assert_true(stub_has(&s[7], "id has been registered. id:c1"));
    for (size_t i = 0; i < PMI_COUNT(says); i++)
        stub_end(&s[i]);
    town_end(&t);
}

/* ---- Looking ----------------------------------------------------------- */

static void test_list(void **state)
{
    town t;
    pm_console *c;
    answer a;
    (void)state;
    town_begin(&t, 3);
    town_start_all(&t);
    c = console(&t, "guest", "guest");
    a = ask(&t, c, "__console__", "{\"signal\":\"list\"}");
    assert_ok(a.err);
    for (int i = 0; i < TOWN_APPS; i++)
        assert_non_null(strstr(a.body, town_servers[i].id));
    assert_non_null(strstr(a.body, "\"serverType\":\"chat\",\"pid\":"));
    assert_non_null(strstr(a.body, "\"rss\":\"0.00\""));
    assert_non_null(strstr(a.body, "\"connections\":0"));
    expect(&t, c, "watchServer", "{\"comd\":\"servers\",\"context\":\"all\"}",
           PM_OK, "\"connector-1\":{\"serverId\":\"connector-1\"");
    expect(&t, c, "watchServer",
           "{\"comd\":\"connections\",\"context\":\"all\"}", PM_OK,
           "\"totalConnCount\":0,\"loginedCount\":0,\"loginedList\":[]");
    expect(&t, c, "watchServer", "{\"comd\":\"channels\",\"context\":\"all\"}",
           PM_OK, "\"channels\":[]");
    expect(&t, c, "watchServer", "{\"comd\":\"counters\",\"context\":\"all\"}",
           PM_OK, "\"loopLagUs\":");
    expect(&t, c, "watchServer",
           "{\"comd\":\"get\",\"context\":\"chat-1\",\"param\":\"serverId\"}",
           PM_OK, "\"chat-1\"");
    expect(&t, c, "watchServer",
           "{\"comd\":\"components\",\"context\":\"chat-1\"}", PM_OK,
           "\"channel\":{}");
    expect(&t, c, "watchServer",
           "{\"comd\":\"status\",\"context\":\"master-server-1\"}", PM_OK,
           "\"state\":\"running\"");
    expect(&t, c, "watchServer", "{\"comd\":\"modules\"}", PM_OK,
           "{\"msg\":[\"__masterwatcher__\",\"watchServer\",\"__console__\"");
    expect(&t, c, "watchServer", "{\"comd\":\"nosuch\",\"context\":\"chat-1\"}",
           PM_EREMOTE, "nosuch is not supported");
    expect(&t, c, "watchServer", "{\"comd\":\"nosuch\"}", PM_EREMOTE,
           "unknown comd: nosuch");
    expect(&t, c, "watchServer", "{\"comd\":\"get\",\"context\":\"x\"}",
           PM_EREMOTE, "no such server: x");
    expect(&t, c, "nodeInfo", NULL, PM_OK, "\"gate-1\":{\"serverId\"");
    expect(&t, c, "systemInfo", NULL, PM_OK, "\"processors\":");
    expect(&t, c, "nosuch", NULL, PM_EREMOTE, "unknown moduleId:nosuch");
    expect(&t, c, "__monitorwatcher__", NULL, PM_EREMOTE, "unknown moduleId");
    expect(&t, c, "__masterwatcher__", NULL, PM_EREMOTE,
           "module __masterwatcher__ dose not have a method called "
           "clientHandler");
    expect(&t, c, "__console__", "{\"signal\":\"zzz\"}", PM_EREMOTE,
           "The command cannot be recognized, please check.");
    expect(&t, c, "__console__", "{}", PM_EREMOTE, "cannot be recognized");
    pm_console_free(c);
    town_end(&t);
}

/* A server that never answers does not hold the console up, and is seen. */
static void test_list_with_a_silent_server(void **state)
{
    town t;
    stub chat;
    pm_console *c;
    answer a = {0};
    (void)state;
    town_begin(&t, 4);
    assert_ok(town_start(&t, TOWN_MASTER));
    assert_ok(town_start(&t, TOWN_GATE));
    stub_dial(&chat, t.loop, 3005);
    stub_hello(&chat);
    stub_publish(&chat, "register", TOWN_CHAT_SAYS("1"));
    town_run(&t, 200);
    c = console(&t, NULL, NULL);
    assert_ok(pm_console_request(c, "__console__", "{\"signal\":\"list\"}",
                                 answered, &a));
    town_run(&t, 2500);
    assert_int_equal(a.count, 1);
    assert_ok(a.err);
    assert_non_null(strstr(a.body, "\"gate-1\":{\"serverId\":\"gate-1\""));
    assert_non_null(
        strstr(a.body, "\"chat-1\":{\"serverId\":\"chat-1\",\"serverType\":"
                       "\"chat\",\"pid\":1,\"rss\":\"-\",\"heapTotal\":\"-\","
                       "\"heapUsed\":\"-\",\"uptime\":\"-\",\"silent\":true}"));
    /* Only there: who asks for more gets what is known. */
    a = ask(&t, c, "watchServer", "{\"comd\":\"servers\"}");
    assert_ok(a.err);
    assert_null(strstr(a.body, "chat-1"));
    pm_console_free(c);
    stub_end(&chat);
    town_end(&t);
}

/* ---- Levels ------------------------------------------------------------ */

static void test_levels(void **state)
{
    static const char *const forbidden[] = {
        "{\"signal\":\"stop\",\"ids\":[]}", "{\"signal\":\"kill\"}",
        "{\"signal\":\"add\",\"args\":[\"id=x\"]}",
        "{\"signal\":\"restart\",\"ids\":[]}",
        "{\"signal\":\"addCron\",\"args\":[\"serverId=chat-1\",\"id=1\"]}",
        "{\"signal\":\"removeCron\",\"args\":[\"serverId=chat-1\",\"id=1\"]}",
        "{\"signal\":\"blacklist\",\"args\":[\"10.0.0.0/8\"]}",
        /* What a message says of its user is not believed. */
        "{\"signal\":\"kill\",\"username\":\"admin\",\"level\":1}"};
    town t;
    pm_console *c;
    answer a = {0};
    (void)state;
    town_begin(&t, 5);
    town_start_all(&t);
    c = console(&t, "guest", "guest");
    for (size_t i = 0; i < PMI_COUNT(forbidden); i++)
        expect(&t, c, "__console__", forbidden[i], PM_EREMOTE,
               "Command permission denied");
    expect(&t, c, "watchServer",
           "{\"comd\":\"run\",\"context\":\"chat-1\",\"param\":\"1\"}",
           PM_EREMOTE, "Command permission denied");
    expect(&t, c, "watchServer", "{\"comd\":\"set\",\"context\":\"chat-1\"}",
           PM_EREMOTE, "Command permission denied");
    assert_ok(pm_console_command(c, "list", NULL, answered, &a));
    town_run(&t, 100);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.detail, "Command permission denied");
    assert_int_equal(town_counts(&t).refused_level, 11);
    assert_true(town_converged(&t));
    pm_console_free(c);
    c = console(&t, NULL, NULL);
    expect(&t, c, "watchServer",
           "{\"comd\":\"run\",\"context\":\"chat-1\",\"param\":\"1\"}",
           PM_EREMOTE, "run is not supported");
    pm_console_free(c);
    town_end(&t);
}

static void test_no_means_to_start(void **state)
{
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 14);
    t.opts.start = "all";
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=x\"]}",
           PM_EREMOTE, "this master can not start servers");
    expect(&t, c, "__console__", "{\"signal\":\"restart\",\"ids\":[]}",
           PM_EREMOTE, "this master can not start servers");
    assert_true(town_converged(&t));
    pm_console_free(c);
    town_end(&t);
}

/* ---- Modules of the application ---------------------------------------- */

typedef struct own_module {
    pm_admin_call *kept;
    int told, asked_by_monitor, ticks;
    char from[64], told_body[128];
} own_module;

static void own_monitor(pm_admin_call *call, void *ctx)
{
    own_module *own = ctx;
    const struct cJSON *body = pm_admin_body(call);
    const char *id = pm_app_server(pm_admin_app(call))->id;
    if (!body) {
        own->ticks++;
        assert_err(pm_admin_reply(call, NULL), PM_ENOTIFY);
        return;
    }
    own->told += pm_admin_is_notify(call);
    if (cJSON_GetObjectItemCaseSensitive(body, "fail")) {
        pm_admin_fail(call, "as told");
    } else if (cJSON_GetObjectItemCaseSensitive(body, "keep")) {
        own->kept = call;
    } else {
        cJSON *here = cJSON_CreateObject();
        cJSON_AddStringToObject(here, "here", id);
        pm_admin_reply(call, here);
        cJSON_Delete(here);
    }
}

static void own_master(pm_admin_call *call, void *ctx)
{
    own_module *own = ctx;
    own->asked_by_monitor++;
    snprintf(own->from, sizeof own->from, "%s", pm_admin_from(call));
    put_tree(own->told_body, sizeof own->told_body, pm_admin_body(call));
    pm_admin_reply(call, pm_admin_body(call));
}

/* Asks chat-1 and hands its answer on. */
static void own_client_answered(const pm_admin_result *result, void *ctx)
{
    if (result->err)
        pm_admin_fail(ctx, result->detail);
    else
        pm_admin_reply(ctx, result->body);
}

static void own_client(pm_admin_call *call, void *ctx)
{
    (void)ctx;
    if (pm_admin_request(pm_admin_app(call), "chat-1", "own",
                         pm_admin_body(call), own_client_answered, call))
        pm_admin_fail(call, "chat-1 can not be asked");
}

static pm_admin_module own_module_of(void)
{
    pm_admin_module m = pm_admin_module_default();
    m.id = "own";
    m.monitor = own_monitor;
    m.master = own_master;
    m.client = own_client;
    return m;
}

static void test_modules(void **state)
{
    pm_admin_module module = own_module_of();
    own_module own = {0};
    answer a = {0};
    cJSON *body = cJSON_CreateObject();
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 16);
    t.opts.module = &module;
    t.module_ctx = &own;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    expect(&t, c, "own", "{\"a\":1}", PM_OK, "{\"here\":\"chat-1\"}");
    expect(&t, c, "own", "{\"fail\":1}", PM_EREMOTE, "as told");
    /* From a server to the master, and back. */
    cJSON_AddNumberToObject(body, "n", 7);
    assert_ok(
        pm_admin_request(t.at[TOWN_GATE].app, NULL, "own", body, answered, &a));
    town_run(&t, 100);
    assert_int_equal(own.asked_by_monitor, 1);
    assert_string_equal(own.from, "gate-1");
    assert_string_equal(a.body, "{\"n\":7}");
    /* To all. */
    assert_ok(
        pm_admin_request(t.at[TOWN_MASTER].app, NULL, "own", body, NULL, NULL));
    town_run(&t, 100);
    assert_int_equal(own.told, 3);
    assert_err(
        pm_admin_request(t.at[TOWN_MASTER].app, "x", "own", body, answered, &a),
        PM_ENOSERVER);
    assert_err(pm_admin_request(t.at[TOWN_GATE].app, "chat-1", "own", body,
                                answered, &a),
               PM_EINVAL);
    cJSON_Delete(body);
    pm_console_free(c);
    c = console(&t, "guest", "guest"); /* level 0 means 1 */
    expect(&t, c, "own", "{}", PM_EREMOTE, "Command permission denied");
    pm_console_free(c);
    town_end(&t);
}

static void test_commands(void **state)
{
    pm_admin_module module = own_module_of();
    own_module own = {0};
    town t;
    pm_console *c;
    answer a[5] = {{0}};
    (void)state;
    town_begin(&t, 17);
    t.opts.module = &module;
    t.module_ctx = &own;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    assert_ok(pm_console_command(c, "list", NULL, answered, &a[0]));
    assert_ok(pm_console_command(c, "disable", "own", answered, &a[1]));
    assert_ok(pm_console_command(c, "disable", "__console__", answered, &a[2]));
    assert_ok(pm_console_command(c, "nosuch", "own", answered, &a[3]));
    town_run(&t, 100);
    assert_string_equal(a[0].body, "{\"modules\":[\"watchServer\",\"nodeInfo\","
                                   "\"systemInfo\",\"own\"]}");
    assert_ok(a[1].err);
    assert_string_equal(a[2].detail, "unknown moduleId:__console__");
    assert_string_equal(a[3].detail, "unknown command:nosuch");
    expect(&t, c, "own", "{}", PM_EREMOTE, "module own is disable");
    assert_ok(pm_console_command(c, "enable", "own", answered, &a[4]));
    expect(&t, c, "own", "{}", PM_OK, "chat-1");
    pm_console_free(c);
    town_end(&t);
}

static void test_scheduled_module(void **state)
{
    pm_admin_module module = own_module_of();
    own_module own = {0};
    town t;
    (void)state;
    module.push = true;
    module.interval_ms = 1000;
    module.delay_ms = 500;
    town_begin(&t, 18);
    t.opts.module = &module;
    t.module_ctx = &own;
    town_start_all(&t);
    town_run(&t, 10000);
    assert_true(own.ticks >= 30 && own.ticks <= 33); /* of three servers */
    assert_int_equal(own.asked_by_monitor, 0);
    town_end(&t);
}

/* An answer that comes after everybody has gone. */
static void test_late_answer(void **state)
{
    pm_admin_module module = own_module_of();
    own_module own = {0};
    answer a = {0};
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 19);
    t.opts.module = &module;
    t.module_ctx = &own;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    assert_ok(pm_console_request(c, "own", "{\"keep\":1}", answered, &a));
    town_run(&t, 100);
    assert_non_null(own.kept);
    town_kill(&t, TOWN_CHAT);
    town_run(&t, 100);
    assert_int_equal(a.count, 1);
    assert_err(a.err, PM_EREMOTE);
    assert_null(pm_admin_app(own.kept));
    assert_err(pm_admin_reply(own.kept, NULL), PM_ECLOSED);
    pm_console_free(c);
    town_end(&t);
}

static void test_module_arguments(void **state)
{
    pm_admin_module module = own_module_of();
    town t;
    pm_app *app;
    pm_app_opts opts = pm_app_opts_default();
    (void)state;
    town_begin(&t, 20);
    opts.loop = t.loop;
    opts.servers = town_servers;
    opts.servers_count = TOWN_APPS;
    opts.server_id = "chat-1";
    opts.master.port = 3005;
    assert_ok(pm_app_new(&app, &opts));
    assert_ok(pm_app_admin_module(app, &module, NULL));
    assert_err(pm_app_admin_module(app, &module, NULL), PM_EEXIST);
    module.id = "watchServer";
    assert_err(pm_app_admin_module(app, &module, NULL), PM_EEXIST);
    module.id = "__mine__";
    assert_err(pm_app_admin_module(app, &module, NULL), PM_EINVAL);
    module.id = NULL;
    assert_err(pm_app_admin_module(app, &module, NULL), PM_EINVAL);
    module.id = "late";
    assert_ok(pm_app_start(app));
    assert_err(pm_app_admin_module(app, &module, NULL), PM_ESTATE);
    assert_err(pm_admin_request(app, NULL, "own", NULL, answered, NULL),
               PM_EDOWN);
    pm_app_free(app);
    town_end(&t);
}

/* ---- The console's own life -------------------------------------------- */

typedef struct chain {
    pm_console *console;
    answer second;
    int count;
    pm_err err;
} chain;

static void free_in_callback(const pm_admin_result *result, void *ctx)
{
    chain *ch = ctx;
    ch->count++;
    ch->err = result->err;
    pm_console_free(ch->console);
    assert_int_equal(ch->second.count, 1);
    ch->console = NULL;
}

static void test_console_life(void **state)
{
    town t;
    chain ch = {0};
    answer a[2] = {{0}};
    pm_console *c;
    pm_console_opts opts = pm_console_opts_default();
    (void)state;
    town_begin(&t, 21);
    town_start_all(&t);
    /* Freed before it has connected: who has asked is told at once. */
    c = console(&t, NULL, NULL);
    assert_ok(pm_console_request(c, "watchServer", NULL, answered, &a[0]));
    pm_console_free(c);
    assert_int_equal(a[0].count, 1);
    assert_err(a[0].err, PM_ECLOSED);
    /* Freed inside of its own callback. */
    ch.console = console(&t, NULL, NULL);
    assert_ok(
        pm_console_request(ch.console, "nosuch", NULL, free_in_callback, &ch));
    assert_ok(
        pm_console_request(ch.console, "nosuch", NULL, answered, &ch.second));
    town_run(&t, 1000);
    assert_int_equal(ch.count, 1);
    assert_err(ch.second.err, PM_ECLOSED);
    c = console(&t, NULL, NULL);
    assert_err(pm_console_request(c, "x", "[]", answered, a), PM_EINVAL);
    assert_err(pm_console_request(c, "x", "{", answered, a), PM_EINVAL);
    assert_err(pm_console_request(c, "x", "{}", NULL, a), PM_EINVAL);
    assert_err(pm_console_request(c, NULL, "{}", answered, a), PM_EINVAL);
    pm_console_free(c);
    pm_console_free(NULL);
    assert_err(pm_console_new(&c, &opts), PM_EINVAL);
    town_end(&t);
}

static void test_console_without_answer(void **state)
{
    town t;
    stub master;
    pm_console *c;
    answer a;
    (void)state;
    town_begin(&t, 22);
    stub_listen(&master, t.loop, 3005);
    c = console(&t, NULL, NULL);
    a = ask(&t, c, "x", NULL); /* nobody says welcome */
    assert_err(a.err, PM_EDOWN);
    pm_console_free(c);
    c = console(&t, NULL, NULL);
    town_run(&t, 10);
    stub_say(&master, &(pmi_mqtt_packet){.type = PMI_MQTT_CONNACK});
    town_run(&t, 10);
    assert_true(stub_has(&master, "\"username\":\"admin\",\"password\":"
                                  "\"21232f297a57a5a743894a0e4a801fc3\","
                                  "\"md5\":true}"));
    stub_publish(&master, "register", "{\"code\":1,\"msg\":\"ok\"}");
    a = ask(&t, c, "x", NULL);
    assert_err(a.err, PM_ETIMEOUT);
    pm_console_free(c);
    stub_end(&master);
    town_end(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_login),
    cmocka_unit_test(test_login_in_plain),
    cmocka_unit_test(test_list),
    cmocka_unit_test(test_list_with_a_silent_server),
    cmocka_unit_test(test_levels),
    cmocka_unit_test(test_no_means_to_start),
    cmocka_unit_test(test_modules),
    cmocka_unit_test(test_commands),
    cmocka_unit_test(test_scheduled_module),
    cmocka_unit_test(test_late_answer),
    cmocka_unit_test(test_module_arguments),
    cmocka_unit_test(test_console_life),
    cmocka_unit_test(test_console_without_answer),
};
TEST_MAIN(tests)
