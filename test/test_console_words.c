/* SPDX-License-Identifier: MIT */
/* test/test_console_words.c -- what consoles say in words: servers that are
 * added, crons, the blacklist. */
#include "console_town.h"

/* ---- Servers ----------------------------------------------------------- */

static void test_add_refused(void **state)
{
    static const struct {
        const char *body, *why;
    } bad[] = {
        {"{\"signal\":\"add\"}", "Error server parameters format."},
        {"{\"signal\":\"add\",\"args\":[]}", "Error server parameters format."},
        {"{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"nothing\"]}",
         "Error server parameters format."},
        {"{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"=1\"]}",
         "Error server parameters format."},
        {"{\"signal\":\"add\",\"args\":[\"host=127.0.0.1\"]}",
         "serverType: expected a text, found none"},
        {"{\"signal\":\"add\",\"args\":[\"serverType=c\",\"id=c\","
         "\"port=70000\"]}",
         "port: expected a number from 1 to 65535 or \"N++\", found 70000"},
        {"{\"signal\":\"add\",\"args\":[\"serverType=c\",\"id=5\"]}",
         "id: expected a text of 1 to 255 bytes, found 5"},
        {"{\"signal\":\"add\",\"args\":[\"serverType=c\",\"id=c\","
         "\"clientPort=0\"]}",
         "clientPort: expected a number from 1 to 65535 or \"N++\", found 0"}};
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 23);
    t.opts.callbacks = true;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        expect(&t, c, "__console__", bad[i].body, PM_EREMOTE, bad[i].why);
    assert_int_equal(t.spawns, 0);
    pm_console_free(c);
    town_end(&t);
}

static void test_add(void **state)
{
    town t;
    pm_console *c;
    const pm_server *added;
    (void)state;
    town_begin(&t, 13);
    t.opts.callbacks = true;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=chat-2\","
           "\"host=127.0.0.1\",\"port=4070\"]}",
           PM_EREMOTE, "Port occupied already, check your server to add.");
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=chat-1\","
           "\"host=127.0.0.1\",\"port=4999\"]}",
           PM_EREMOTE, "Port occupied already, check your server to add.");
    assert_int_equal(t.spawns, 0);
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=chat-2\","
           "\"host=127.0.0.1\",\"port=4071\",\"color=red\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    added = pm_server_find(t.at[TOWN_MASTER].app, "chat-2");
    assert_int_equal(added->port, 4071);
    assert_non_null(strstr(added->raw, "\"color\":\"red\""));
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=area\",\"clusterCount="
           "3\",\"host=127.0.0.1\",\"port=5000++\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    /* Once more: their numbers go on, those of another type begin. */
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=area\",\"clusterCount="
           "1\",\"host=127.0.0.1\",\"port=5003++\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=are\",\"clusterCount="
           "1\",\"host=127.0.0.1\",\"port=5010\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    assert_string_equal(t.spawned,
                        "chat-2 cluster-server-area-0 cluster-server-area-1 "
                        "cluster-server-area-2 cluster-server-area-3 "
                        "cluster-server-are-0 ");
    added = pm_server_find(t.at[TOWN_MASTER].app, "cluster-server-area-3");
    assert_int_equal(added->port, 5003);
    assert_null(strstr(added->raw, "clusterCount"));
    t.spawn_answer = PM_ENOTFOUND;
    expect(&t, c, "__console__",
           "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=chat-3\","
           "\"host=127.0.0.1\",\"port=4072\"]}",
           PM_EREMOTE, "servers could not be started.");
    pm_console_free(c);
    town_end(&t);
}

/* ---- Crons, the blacklist ---------------------------------------------- */

static void test_passed_on(void **state)
{
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 15);
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__",
           "{\"signal\":\"addCron\",\"args\":[\"serverId=chat-1\",\"id=8\","
           "\"time=0/30 * * * * *\",\"action=a.b\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    expect(&t, c, "__console__", "{\"signal\":\"addCron\",\"args\":[\"id=8\"]}",
           PM_EREMOTE, "Error cron parameters format.");
    expect(&t, c, "__console__",
           "{\"signal\":\"addCron\",\"args\":[\"serverId=x\",\"id=8\","
           "\"time=* * * * * *\",\"action=a.b\"]}",
           PM_EREMOTE, "no such server is there");
    expect(&t, c, "__console__",
           "{\"signal\":\"addCron\",\"args\":[\"serverId=chat-1\",\"id=9\","
           "\"time=* * 25 * * *\",\"action=a.b\"]}",
           PM_EREMOTE,
           "hour: expected a number from 0 to 24, \"*\", \"a-b\", \"r/p\" or a "
           "list of these, found \"25\"");
    /* The gate has no such job: its log says so. */
    expect(&t, c, "__console__",
           "{\"signal\":\"addCron\",\"args\":[\"serverType=gate\",\"id=9\","
           "\"time=* * * * * *\",\"action=a.b\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    expect(&t, c, "watchServer", "{\"comd\":\"crons\",\"context\":\"chat-1\"}",
           PM_OK,
           "{\"serverId\":\"chat-1\",\"serverType\":\"chat\","
           "\"crons\":[{\"id\":\"8\",\"time\":\"0/30 * * * * *\","
           "\"action\":\"a.b\",\"next\":30000}]}");
    town_run(&t, 61000);
    assert_int_equal(t.at[TOWN_CHAT].crons_run, 2);
    expect(&t, c, "__console__",
           "{\"signal\":\"removeCron\",\"args\":[\"serverType=chat\","
           "\"id=8\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    expect(&t, c, "__console__",
           "{\"signal\":\"blacklist\",\"args\":[\"10.9.9.9\",\"(a+)+\"]}",
           PM_OK, "{\"status\":\"ok\"}");
    town_run(&t, 61000);
    assert_int_equal(t.at[TOWN_CHAT].crons_run, 2);
    assert_int_equal(t.at[TOWN_CHAT].crons_added, 1);
    assert_int_equal(t.at[TOWN_GATE].crons_added, 0);
    assert_int_equal(t.at[TOWN_CHAT].crons_removed, 1);
    assert_true(town_converged(&t));
    pm_console_free(c);
    town_end(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_add_refused),
    cmocka_unit_test(test_add),
    cmocka_unit_test(test_passed_on),
};
TEST_MAIN(tests)
