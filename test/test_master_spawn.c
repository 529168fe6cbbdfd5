/* SPDX-License-Identifier: MIT */
/* test/test_master_spawn.c -- who is stopped and who is started: by consoles, by
 * the master itself; and what it asks its host for. */
#include "console_town.h"

#include "pomelo_master_internal.h"

/* ---- stop and kill ----------------------------------------------------- */

static void test_stop(void **state)
{
    town t;
    pm_console *c;
    answer a;
    (void)state;
    town_begin(&t, 6);
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    a = ask(&t, c, "__console__",
            "{\"signal\":\"stop\",\"ids\":[\"chat-1\",\"nosuch\"]}");
    assert_err(a.err, PM_EREMOTE);
    assert_string_equal(a.detail, "Cannot find the server to stop.");
    assert_string_equal(a.body, "{\"status\":\"part\"}");
    town_run(&t, 100);
    assert_null(t.at[TOWN_CHAT].app);
    assert_int_equal(t.stops[TOWN_CHAT], 1);
    assert_int_equal(t.at_once[TOWN_CHAT], 0);
    assert_false(town_knows(&t, TOWN_GATE, "chat-1"));
    a = ask(&t, c, "__console__", "{\"signal\":\"stop\",\"ids\":[]}");
    assert_true(a.err == PM_OK && !strcmp(a.body, "{\"status\":\"all\"}"));
    town_run(&t, 100);
    for (int i = 0; i < TOWN_APPS; i++)
        assert_null(t.at[i].app);
    pm_console_free(c);
    town_end(&t);
}

/* chat-1 is a stub that is registered, and does not hear. */
static void silent_chat(town *t, stub *chat)
{
    for (int i = 0; i < TOWN_CHAT; i++)
        assert_ok(town_start(t, i));
    stub_dial(chat, t->loop, 3005);
    stub_hello(chat);
    stub_publish(chat, "register", TOWN_CHAT_SAYS("1"));
    town_run(t, 500);
}

static void test_stop_a_silent_server(void **state)
{
    (void)state;
    for (int ends = 0; ends < 2; ends++) {
        town t;
        pm_console *c;
        stub chat;
        answer a;
        town_begin(&t, 23);
        t.opts.callbacks = true;
        t.terminate_answer = ends ? PM_OK : PM_ENOTFOUND;
        silent_chat(&t, &chat);
        c = console(&t, NULL, NULL);
        a = ask(&t, c, "__console__", "{\"signal\":\"stop\",\"ids\":[]}");
        assert_ok(a.err);
        assert_string_equal(a.body, ends ? "{\"status\":\"all\"}"
                                         : "{\"status\":\"all\",\"serverIds\":["
                                           "\"chat-1\"]}");
        assert_int_equal(t.terminates, 1);
        town_run(&t, 100);
        for (int i = 0; i < TOWN_CHAT; i++)
            assert_null(t.at[i].app);
        pm_console_free(c);
        stub_end(&chat);
        town_end(&t);
    }
}

#define STOP_CHAT "{\"signal\":\"stop\",\"ids\":[\"chat-1\"]}"

static void test_stop_one_silent_server(void **state)
{
    town t;
    pm_console *c;
    stub chat;
    (void)state;
    town_begin(&t, 24);
    t.opts.callbacks = true;
    silent_chat(&t, &chat);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", STOP_CHAT, PM_OK, "part");
    town_run(&t, 14000);
    assert_int_equal(t.terminates, 0);
    town_run(&t, 2000);
    assert_int_equal(t.terminates, 1);
    assert_non_null(t.at[TOWN_GATE].app);
    /* Nobody hears the end of this one. */
    expect(&t, c, "__console__", STOP_CHAT, PM_OK, "part");
    pm_console_free(c);
    stub_end(&chat);
    town_end(&t);
}

/* Started, and stopped before it has registered. */
static void test_stop_before_it_comes(void **state)
{
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 25);
    t.opts.callbacks = true;
    t.opts.start = "chat-1";
    assert_ok(town_start(&t, TOWN_MASTER));
    town_run(&t, 100);
    assert_int_equal(t.spawns, 1);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", STOP_CHAT, PM_OK, "part");
    assert_int_equal(t.terminates, 1);
    assert_ok(pm_master_exited(t.at[TOWN_MASTER].app, "chat-1"));
    town_run(&t, 60000);
    assert_int_equal(t.spawns, 1); /* auto-restart or not */
    /* Another that the host can not end: it is told as soon as it is here. */
    expect(&t, c, "__console__",
           "{\"signal\":\"restart\",\"ids\":[\"chat-1\"]}", PM_EREMOTE,
           "all servers start failed.");
    assert_int_equal(t.spawns, 2);
    t.terminate_answer = PM_ENOTSUP;
    expect(&t, c, "__console__", STOP_CHAT, PM_OK, "part");
    assert_ok(town_start(&t, TOWN_CHAT));
    town_run(&t, 1000);
    assert_int_equal(t.stops[TOWN_CHAT], 1);
    assert_null(t.at[TOWN_CHAT].app);
    /* One that somebody has started since is welcome. */
    assert_ok(town_start(&t, TOWN_CHAT));
    town_run(&t, 60000);
    assert_int_equal(t.stops[TOWN_CHAT], 1);
    assert_int_equal(t.spawns, 2);
    pm_console_free(c);
    town_end(&t);
}

/* A new master is told to stop one that has not come back to it yet. */
static void test_stop_before_it_comes_back(void **state)
{
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 26);
    t.opts.callbacks = true;
    t.terminate_answer = PM_ENOTFOUND; /* it is not known where it is */
    town_start_all(&t);
    town_kill(&t, TOWN_MASTER);
    town_run(&t, 20000);
    assert_ok(town_start(&t, TOWN_MASTER));
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", STOP_CHAT, PM_OK, "part");
    town_run(&t, 5000);
    assert_int_equal(t.stops[TOWN_CHAT], 1);
    assert_int_equal(t.stops[TOWN_GATE], 0);
    assert_int_equal(town_counts(&t).registered, 3);
    assert_int_equal(t.spawns, 0);
    pm_console_free(c);
    town_end(&t);
}

/* Its link breaks, it is stopped, and it is back; or not. */
static void test_stop_in_its_grace(void **state)
{
    (void)state;
    for (int back = 0; back < 2; back++) {
        town t;
        pm_console *c;
        stub chat;
        town_begin(&t, 27);
        t.opts.callbacks = true;
        silent_chat(&t, &chat);
        c = console(&t, NULL, NULL);
        stub_end(&chat);
        town_run(&t, 100);
        expect(&t, c, "__console__", STOP_CHAT, PM_OK, "part");
        assert_int_equal(t.terminates, 0);
        if (back) {
            stub_dial(&chat, t.loop, 3005);
            stub_hello(&chat);
            stub_publish(&chat, "reconnect", TOWN_CHAT_SAYS("1"));
        }
        town_run(&t, 2000);
        if (back)
            assert_true(stub_has(&chat, "{\"signal\":\"stop\"}"));
        assert_int_equal(t.terminates, !back);
        assert_int_equal(t.spawns, 0);
        if (back)
            stub_end(&chat);
        pm_console_free(c);
        town_end(&t);
    }
}

static void test_kill(void **state)
{
    town t;
    pm_console *c;
    stub chat;
    (void)state;
    town_begin(&t, 7);
    t.opts.callbacks = true;
    silent_chat(&t, &chat);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", "{\"signal\":\"kill\"}", PM_OK,
           "{\"code\":\"ok\"}");
    town_run(&t, 100);
    assert_int_equal(t.terminates, 1);
    assert_int_equal(t.at_once[TOWN_GATE], 1);
    for (int i = 0; i < TOWN_CHAT; i++)
        assert_null(t.at[i].app);
    pm_console_free(c);
    stub_end(&chat);
    town_end(&t);
}

static void test_kill_without_means(void **state)
{
    town t;
    pm_console *c;
    stub chat;
    (void)state;
    town_begin(&t, 8);
    assert_ok(town_start(&t, TOWN_MASTER));
    stub_dial(&chat, t.loop, 3005);
    stub_hello(&chat);
    stub_publish(&chat, "register", TOWN_CHAT_SAYS("1"));
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", "{\"signal\":\"kill\"}", PM_OK,
           "{\"code\":\"remained\",\"serverIds\":[\"chat-1\"]}");
    pm_console_free(c);
    stub_end(&chat);
    town_end(&t);
}

/* ---- Starting ---------------------------------------------------------- */

static void test_start_table(void **state)
{
    static const struct {
        const char *start, *spawned;
    } cases[] = {{"all", "gate-1 connector-1 chat-1 "},
                 {"connector", "connector-1 "},
                 {"chat-1", "chat-1 "},
                 {"nosuch", ""},
                 {NULL, ""}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        town t;
        town_begin(&t, 9);
        t.opts.callbacks = true;
        t.opts.start = cases[i].start;
        assert_ok(town_start(&t, TOWN_MASTER));
        assert_int_equal(t.spawns, 0); /* not before the call has returned */
        town_run(&t, 5000);
        assert_string_equal(t.spawned, cases[i].spawned);
        town_end(&t);
    }
}

/* chat-1 says auto-restart: it comes back after a death, not after a stop. */
static void test_auto_restart(void **state)
{
    town t;
    pm_console *c;
    (void)state;
    town_begin(&t, 10);
    t.opts.callbacks = true;
    town_start_all(&t);
    assert_int_equal(t.pins, 1);
    assert_int_equal(t.pin_core, 1);
    town_kill(&t, TOWN_CHAT);
    town_run(&t, 5000);
    assert_string_equal(t.spawned, "chat-1 ");
    assert_int_equal(town_counts(&t).respawned, 1);
    /* The host says that it never came so far. */
    assert_ok(pm_master_exited(t.at[TOWN_MASTER].app, "chat-1"));
    town_run(&t, 2000);
    assert_int_equal(t.spawns, 2);
    assert_ok(town_start(&t, TOWN_CHAT));
    town_run(&t, 3000);
    assert_true(town_converged(&t));
    /* The end of a process that nobody needs any more. */
    assert_ok(pm_master_exited(t.at[TOWN_MASTER].app, "chat-1"));
    town_run(&t, 60000);
    assert_true(town_converged(&t));
    assert_int_equal(t.spawns, 2);
    town_kill(&t, TOWN_GATE); /* has no auto-restart */
    town_run(&t, 60000);
    assert_int_equal(t.spawns, 2);
    c = console(&t, NULL, NULL);
    expect(&t, c, "__console__", "{\"signal\":\"stop\",\"ids\":[\"chat-1\"]}",
           PM_OK, "part");
    town_run(&t, 60000);
    assert_int_equal(t.spawns, 2);
    pm_console_free(c);
    assert_err(pm_master_exited(t.at[TOWN_MASTER].app, "x"), PM_ENOTFOUND);
    assert_err(pm_master_exited(t.at[TOWN_CONNECTOR].app, "x"), PM_ESTATE);
    town_end(&t);
}

static void own_one(pmi_master_server *server, const pm_server *entry,
                    void *ctx)
{
    assert_string_equal(server->id, entry->id);
    strcat(ctx, entry->id);
    strcat(ctx, " ");
}

/* Whom a master starts is its own, whoever has started him. */
static void test_own_servers(void **state)
{
    static const struct {
        const char *start, *own;
    } cases[] = {{"all", "gate-1 connector-1 chat-1 "},
                 {"connector", "connector-1 "},
                 {"chat-1", "chat-1 "},
                 {NULL, ""}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        char own[256] = "";
        town t;
        town_begin(&t, 28);
        t.opts.start = cases[i].start;
        town_start_all(&t);
        pmi_master_each_own(pmi_app_master(t.at[TOWN_MASTER].app), own_one,
                            own);
        assert_string_equal(own, cases[i].own);
        town_end(&t);
    }
}

/* No port shows whether it runs already: who has been left by a master before
 * comes, and is not started once more. */
static void test_start_without_a_port(void **state)
{
    static const pm_server table[] = {
        {.id = "m", .type = "master", .port = 3005},
        {.id = "chat-1", .type = "chat"},
    };
    (void)state;
    for (int left = 0; left < 2; left++) {
        pm_app_opts opts = pm_app_opts_default();
        pm_master_counts counts = {.size = sizeof counts};
        pm_app *app;
        stub chat;
        town t;
        town_begin(&t, 29);
        opts.loop = t.loop;
        opts.servers = table;
        opts.servers_count = 2;
        opts.server_id = "m";
        opts.master.spawn = town_spawn;
        opts.master.start = "all";
        opts.master.ctx = &t;
        assert_ok(pm_app_new(&app, &opts));
        assert_ok(pm_app_start(app));
        town_run(&t, 3000); /* the longest pause of a server's tries */
        assert_int_equal(t.spawns, 0);
        if (left) {
            stub_dial(&chat, t.loop, 3005);
            stub_hello(&chat);
            stub_publish(&chat, "reconnect", TOWN_CHAT_SAYS("1"));
        }
        town_run(&t, 60000);
        assert_int_equal(t.spawns, left ? 0 : 1);
        assert_ok(pm_master_counts_get(app, &counts));
        assert_int_equal(counts.spawned, left ? 0 : 1);
        assert_int_equal(counts.respawned, 0);
        if (left)
            stub_end(&chat);
        pm_app_free(app);
        town_end(&t);
    }
}

/* What is in the way of a server with restart-force is ended: what listens on
 * its port at once, its own process when it has had time to end by itself. */
static void test_restart_force(void **state)
{
    static const pm_err errs[] = {PM_EADDR, PM_EEXIST};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(errs); i++) {
        town t;
        pm_console *c;
        town_begin(&t, 30);
        t.opts.callbacks = true;
        assert_ok(town_start(&t, TOWN_MASTER));
        c = console(&t, NULL, NULL);
        expect(
            &t, c, "__console__",
            "{\"signal\":\"add\",\"args\":[\"serverType=chat\",\"id=chat-2\","
            "\"host=127.0.0.1\",\"port=4071\",\"restart-force=true\"]}",
            PM_OK, "{\"status\":\"ok\"}");
        t.spawn_answer = errs[i];
        assert_ok(pm_master_exited(t.at[TOWN_MASTER].app, "chat-2"));
        town_run(&t, 5000);
        assert_int_equal(t.terminates > 0, errs[i] == PM_EADDR);
        town_run(&t, 5000);
        assert_true(t.terminates > 0);
        pm_console_free(c);
        town_end(&t);
    }
}

/* One that can not be started is tried again, and less and less often. */
static void test_spawn_fails(void **state)
{
    town t;
    (void)state;
    town_begin(&t, 11);
    t.opts.callbacks = true;
    t.opts.start = "chat-1";
    t.spawn_answer = PM_ELIMIT;
    assert_ok(town_start(&t, TOWN_MASTER));
    town_run(&t, 60000);
    assert_true(t.spawns >= 7 && t.spawns <= 10);
    t.spawn_answer = PM_OK;
    town_run(&t, 60000);
    assert_int_equal(town_counts(&t).respawned, 1);
    town_end(&t);
}

static void test_restart(void **state)
{
    town t;
    pm_console *c;
    answer a = {0};
    (void)state;
    town_begin(&t, 12);
    t.opts.callbacks = true;
    town_start_all(&t);
    c = console(&t, NULL, NULL);
    assert_ok(pm_console_request(c, "__console__",
                                 "{\"signal\":\"restart\",\"ids\":[],\"type\":"
                                 "\"gate\"}",
                                 answered, &a));
    town_run(&t, 2000);
    assert_null(t.at[TOWN_GATE].app);
    assert_string_equal(t.spawned, "gate-1 ");
    assert_int_equal(a.count, 0);
    assert_ok(town_start(&t, TOWN_GATE));
    town_run(&t, 1000);
    assert_int_equal(a.count, 1);
    assert_true(a.err == PM_OK && !strcmp(a.body, "[]"));
    assert_true(town_converged(&t));
    /* Who is nobody has not been restarted, and is not waited for. */
    memset(&a, 0, sizeof a);
    assert_ok(pm_console_request(
        c, "__console__",
        "{\"signal\":\"restart\",\"ids\":[\"nosuch\",\"gate-1\",5]}", answered,
        &a));
    town_run(&t, 2000);
    assert_ok(town_start(&t, TOWN_GATE));
    town_run(&t, 1000);
    assert_true(a.err == PM_OK && !strcmp(a.body, "[\"nosuch\",\"\"]"));
    expect(&t, c, "__console__",
           "{\"signal\":\"restart\",\"ids\":[\"nosuch\"]}", PM_EREMOTE,
           "Cannot find the server to restart.");
    /* One comes back, one does not. */
    memset(&a, 0, sizeof a);
    assert_ok(pm_console_request(
        c, "__console__",
        "{\"signal\":\"restart\",\"ids\":[\"gate-1\",\"chat-1\"]}", answered,
        &a));
    town_run(&t, 2000);
    assert_ok(town_start(&t, TOWN_GATE));
    town_run(&t, 20000);
    assert_true(a.err == PM_OK && !strcmp(a.body, "[\"chat-1\"]"));
    expect(&t, c, "__console__",
           "{\"signal\":\"restart\",\"ids\":[\"chat-1\"]}", PM_EREMOTE,
           "all servers start failed.");
    expect(&t, c, "__console__",
           "{\"signal\":\"restart\",\"ids\":[],\"type\":\"nosuch\"}",
           PM_EREMOTE, "restart servers with unknown server type: nosuch");
    pm_console_free(c);
    town_end(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_stop),
    cmocka_unit_test(test_stop_a_silent_server),
    cmocka_unit_test(test_stop_one_silent_server),
    cmocka_unit_test(test_stop_before_it_comes),
    cmocka_unit_test(test_stop_before_it_comes_back),
    cmocka_unit_test(test_stop_in_its_grace),
    cmocka_unit_test(test_kill),
    cmocka_unit_test(test_kill_without_means),
    cmocka_unit_test(test_start_table),
    cmocka_unit_test(test_auto_restart),
    cmocka_unit_test(test_own_servers),
    cmocka_unit_test(test_start_without_a_port),
    cmocka_unit_test(test_restart_force),
    cmocka_unit_test(test_spawn_fails),
    cmocka_unit_test(test_restart),
};
TEST_MAIN(tests)
