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
    pm_console_free(c);
    town_end(&t);
}

static bool master_knows(const town *t, const char *id)
{
    return town_knows(t, TOWN_MASTER, id);
}

/* Who could not be started, or was stopped, leaves nothing in the way of the
 * next one; who has died alone stays known. */
static void test_add_again(void **state)
{
    static const char add[] =
        "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=chat-3\","
        "\"host=127.0.0.1\",\"port=4072\"]}";
    static const char stop[] = "{\"signal\":\"stop\",\"ids\":[\"chat-3\"]}";
    static const char chat[] =
        "{\"id\":\"chat-3\",\"type\":\"monitor\",\"serverType\":\"chat\","
        "\"pid\":7,\"info\":{\"id\":\"chat-3\",\"serverType\":\"chat\","
        "\"port\":4072},\"token\":\"tok-chat\"}";
    town t;
    stub s;
    pm_console *c;
    (void)state;
    town_begin(&t, 27);
    t.opts.callbacks = true;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    t.spawn_answer = PM_ENOTFOUND;
    expect(&t, c, "__console__", add, PM_EREMOTE,
           "servers could not be started: not found");
    assert_false(master_knows(&t, "chat-3"));
    t.spawn_answer = PM_OK;
    for (int i = 0; i < 2; i++) {
        expect(&t, c, "__console__", add, PM_OK, "{\"status\":\"ok\"}");
        stub_dial(&s, t.loop, 3005);
        stub_hello(&s);
        stub_publish(&s, "register", chat);
        town_run(&t, 200);
        assert_true(town_knows(&t, TOWN_GATE, "chat-3"));
        expect(&t, c, "__console__", stop, PM_OK, "part");
        town_run(&t, 100);
        assert_true(stub_has(&s, "\"signal\":\"stop\""));
        stub_end(&s);
        town_run(&t, 5000);
        assert_false(master_knows(&t, "chat-3"));
    }
    /* Stopped before it was there: the end of its process tells. */
    expect(&t, c, "__console__", add, PM_OK, "{\"status\":\"ok\"}");
    expect(&t, c, "__console__", stop, PM_OK, "part");
    assert_ok(pm_master_exited(t.at[TOWN_MASTER].app, "chat-3"));
    assert_false(master_knows(&t, "chat-3"));
    /* Died by itself: it may be started again. */
    expect(&t, c, "__console__", add, PM_OK, "{\"status\":\"ok\"}");
    assert_ok(pm_master_exited(t.at[TOWN_MASTER].app, "chat-3"));
    assert_true(master_knows(&t, "chat-3"));
    expect(&t, c, "__console__", add, PM_EREMOTE, "Port occupied already");
    expect(&t, c, "__console__", stop, PM_OK, "part");
    assert_false(master_knows(&t, "chat-3"));
    expect(&t, c, "__console__", add, PM_OK, "{\"status\":\"ok\"}");
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
    /* The gate has no such job. */
    expect(&t, c, "__console__",
           "{\"signal\":\"addCron\",\"args\":[\"serverType=gate\",\"id=9\","
           "\"time=* * * * * *\",\"action=a.b\"]}",
           PM_EREMOTE, "gate-1: no job \"gate.a.b\" is registered");
    expect(&t, c, "__console__",
           "{\"signal\":\"addCron\",\"args\":[\"serverType=chat\",\"id=8\","
           "\"time=* * * * * *\",\"action=a.b\"]}",
           PM_EREMOTE, "chat-1: expected an id that no other cron has");
    expect(&t, c, "__console__",
           "{\"signal\":\"removeCron\",\"args\":[\"serverType=chat\","
           "\"id=nosuch\"]}",
           PM_EREMOTE, "chat-1: there is no cron nosuch");
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

#define ADD_CRON(id)                                                           \
    "{\"signal\":\"addCron\",\"args\":[\"serverType=chat\",\"id=" id "\","     \
    "\"time=0 0 4 * * *\",\"action=a.b\"]}"

/* A Node server hears such a word and never answers it: nobody waits. One of
 * ours that does not answer is waited for, but not for ever. */
static void test_cron_unanswered(void **state)
{
    static const char node[] =
        "{\"id\":\"chat-n\",\"type\":\"monitor\",\"serverType\":\"chat\","
        "\"pid\":7,\"info\":{\"id\":\"chat-n\",\"serverType\":\"chat\"},"
        "\"token\":\"tok-chat\"}";
    town t;
    stub silent, of_node;
    pm_console *c;
    uint64_t began;
    (void)state;
    town_begin(&t, 24);
    assert_ok(town_start(&t, TOWN_MASTER));
    stub_dial(&of_node, t.loop, 3005);
    stub_hello(&of_node);
    stub_publish(&of_node, "register", node);
    town_run(&t, 200);
    c = console(&t, NULL, NULL);
    began = pmi_loop_now_us(t.loop);
    expect(&t, c, "__console__", ADD_CRON("1"), PM_OK, "{\"status\":\"ok\"}");
    assert_true(pmi_loop_now_us(t.loop) - began < 1000000);
    town_run(&t, 100);
    assert_true(
        stub_has(&of_node,
                 "monitor {\"moduleId\":\"__console__\",\"body\":{\"signal\":"
                 "\"addCron\",\"cron\":{\"serverType\":\"chat\",\"id\":\"1\""));
    stub_dial(&silent, t.loop, 3005);
    stub_hello(&silent);
    stub_publish(&silent, "register", TOWN_CHAT_SAYS("1"));
    town_run(&t, 200);
    began = pmi_loop_now_us(t.loop);
    expect(&t, c, "__console__", ADD_CRON("2"), PM_EREMOTE,
           "1 of 2 servers did not answer");
    assert_true(pmi_loop_now_us(t.loop) - began < 11000000);
    assert_true(stub_has(&silent, "\"reqId\""));
    pm_console_free(c);
    stub_end(&of_node);
    stub_end(&silent);
    town_end(&t);
}

/* The server goes while its word is waited for; then the master does. */
static void test_cron_of_who_goes(void **state)
{
    town t;
    stub chat;
    pm_console *c;
    answer a[2] = {{0}};
    (void)state;
    town_begin(&t, 25);
    assert_ok(town_start(&t, TOWN_MASTER));
    c = console(&t, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        stub_dial(&chat, t.loop, 3005);
        stub_hello(&chat);
        stub_publish(&chat, "register", TOWN_CHAT_SAYS("1"));
        town_run(&t, 200);
        assert_ok(pm_console_request(c, "__console__", ADD_CRON("1"), answered,
                                     &a[i]));
        town_run(&t, 200);
        assert_true(stub_has(&chat, "addCron"));
        assert_int_equal(a[i].count, 0);
        if (i == 1)
            town_kill(&t, TOWN_MASTER);
        stub_end(&chat);
        town_run(&t, 200);
        assert_int_equal(a[i].count, 1);
    }
    assert_string_equal(a[0].detail, "1 of 1 servers did not answer");
    assert_err(a[1].err, PM_ECLOSED);
    pm_console_free(c);
    town_end(&t);
}

/* Whichever allocation fails, each word has one answer, and all goes on. */
static void test_words_without_memory(void **state)
{
    static const char *const words[] = {
        "{\"signal\":\"add\",\"args\":[\"serverType=area\",\"clusterCount=2\"]"
        "}",
        "{\"signal\":\"addCron\",\"args\":[\"serverType=chat\",\"id=1\","
        "\"time=0 0 4 * * *\",\"action=a.b\"]}",
        "{\"signal\":\"removeCron\",\"args\":[\"serverType=chat\",\"id=1\"]}"};
    town t;
    (void)state;
    town_begin(&t, 26);
    t.opts.callbacks = true;
    town_start_all(&t);
    for (size_t i = 0; i < PMI_COUNT(words); i++) {
        bool failed = true;
        for (size_t k = 1; failed; k++) {
            pm_console *c = console(&t, NULL, NULL);
            answer a = {0};
            pm_err err;
            town_run(&t, 100);
            t.heap.calls = t.heap.failed = 0;
            t.heap.fail_at = k;
            err = pm_console_request(c, "__console__", words[i], answered, &a);
            town_run(&t, 31000); /* its answer may get lost */
            failed = t.heap.failed > 0;
            t.heap.fail_at = 0;
            assert_int_equal(a.count, err == PM_OK);
            if (!failed && a.err && a.err != PM_EREMOTE)
                fail_msg("%s: %s", words[i], a.detail);
            pm_console_free(c);
            town_run(&t, 4000);
            assert_true(town_converged(&t));
        }
    }
    town_end(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_add_refused),
    cmocka_unit_test(test_add),
    cmocka_unit_test(test_add_again),
    cmocka_unit_test(test_passed_on),
    cmocka_unit_test(test_cron_unanswered),
    cmocka_unit_test(test_cron_of_who_goes),
    cmocka_unit_test(test_words_without_memory),
};
TEST_MAIN(tests)
