/* SPDX-License-Identifier: MIT */
/* test_flow_cron.c -- crons: a server that lives by the clock on the wall.
 *
 * In virtual time, where the wall's clock can be set as one likes; and at the
 * end a whole process with its files. When a time comes next is
 * test_calendar.c's. */
#include "test.h"

#include <signal.h>
#include <sys/stat.h>

/* 2026-11-28 12:00:00 UTC, a Saturday. */
#define NOON INT64_C(1795867200)
#define DAY 86400

typedef struct wall {
    test_world world; /* first: the seam's ctx is this struct */
    int64_t ahead_us; /* of the virtual clock */
    int32_t offset_s;
    test_heap heap;
    pm_loop *loop;
    pm_app *app;
    char ran[512]; /* "id@second " after noon */
    char log[1024];
    int runs, added, removed;
    bool free_inside, remove_inside, add_inside, stop_inside;
} wall;

static int64_t wall_us(void *ctx)
{
    wall *w = ctx;
    return (int64_t)w->world.now_us + w->ahead_us;
}

static int32_t wall_offset(int64_t utc_s, void *ctx)
{
    (void)utc_s;
    return ((wall *)ctx)->offset_s;
}

static void wall_log(void *ctx, pm_log_level level, const char *module,
                     const char *line)
{
    wall *w = ctx;
    size_t len = strlen(w->log);
    (void)level;
    if (!strcmp(module, "cron"))
        snprintf(w->log + len, sizeof w->log - len, "%s\n", line);
}

static void wall_job(pm_app *app, const pm_cron *cron, void *ctx)
{
    wall *w = ctx;
    size_t len = strlen(w->ran);
    snprintf(w->ran + len, sizeof w->ran - len, "%s@%lld ", cron->id,
             (long long)(wall_us(w) / 1000000 - NOON));
    w->runs++;
    if (w->remove_inside)
        assert_ok(pm_cron_remove(app, cron->id));
    if (w->add_inside) {
        pm_cron again = {"again", cron->time, cron->action};
        pm_err err = pm_cron_add(app, &again);
        assert_true(err == PM_OK || err == PM_EEXIST);
    }
    if (w->stop_inside)
        assert_ok(pm_app_stop(app, 1000, NULL, NULL));
    if (w->free_inside) {
        w->app = NULL;
        pm_app_free(app);
        assert_string_equal(cron->action, "job.run");
    }
}

static void wall_added(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    assert_true(*cron->id && *cron->time && *cron->action);
    ((wall *)ctx)->added++;
}

static void wall_removed(pm_app *app, const pm_cron *cron, void *ctx)
{
    (void)app;
    assert_true(*cron->id && *cron->time && *cron->action);
    ((wall *)ctx)->removed++;
}

static const pm_server wall_servers[] = {{.id = "chat-1", .type = "chat"}};

static pm_err wall_make(wall *w, const char *crons)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    pm_err err;
    opts.loop = w->loop;
    opts.servers = wall_servers;
    opts.servers_count = 1;
    opts.crons = crons;
    opts.log = wall_log;
    opts.log_ctx = w;
    err = pm_app_new(&w->app, &opts);
    if (err)
        return err;
    events.cron_added = wall_added;
    events.cron_removed = wall_removed;
    err = pm_app_listen(w->app, &events, w);
    if (err == PM_OK)
        err = pm_app_cron(w->app, "chat.job.run", wall_job, w);
    if (err == PM_OK)
        err = pm_app_cron(w->app, "gate.job.other", wall_job, w);
    return err;
}

static pm_err wall_loop(wall *w)
{
    pm_loop_opts opts = test_world_opts(&w->world, &w->heap);
    opts.wall_us = wall_us;
    opts.utc_offset_s = wall_offset;
    w->world.seed = 1;
    w->ahead_us = NOON * 1000000 - (int64_t)w->world.now_us;
    return pm_loop_new(&w->loop, &opts);
}

static void wall_start(wall *w, const char *crons)
{
    memset(w, 0, sizeof *w);
    assert_ok(wall_loop(w));
    assert_ok(wall_make(w, crons));
    assert_ok(pm_app_start(w->app));
}

static void wall_run(wall *w, uint64_t seconds)
{
    assert_true(test_world_run(&w->world, w->loop, seconds * 1000000 + 2000));
}

static void wall_end(wall *w)
{
    pm_app_free(w->app);
    assert_ok(pm_loop_free(w->loop));
    assert_heap_empty(&w->heap);
}

static void wall_forget(wall *w)
{
    w->ran[0] = 0;
    w->runs = 0;
}

/* One cron of every kind that Pomelo's file has. */
static void test_file(void **state)
{
    wall w;
    int64_t next;
    (void)state;
    wall_start(&w,
               "{\"chat\":["
               "{\"id\":1,\"time\":\"0/20 * * * * *\",\"action\":\"job.run\"},"
               "{\"id\":\"min\",\"time\":\"40 * * * * *\",\"action\":"
               "\"job.run\",\"serverId\":\"chat-1\"},"
               "{\"id\":\"not\",\"time\":\"* * * * * *\",\"action\":"
               "\"job.run\",\"serverId\":\"chat-2\"}],"
               "\"gate\":[{\"id\":1,\"time\":\"* * * * * *\",\"action\":"
               "\"job.nobody\"}]}");
    assert_int_equal(w.added, 0); /* events are of changes at run time */
    assert_ok(pm_cron_next(w.app, "min", &next));
    assert_true(next == (NOON + 40) * 1000);
    assert_err(pm_cron_next(w.app, "not", &next), PM_ENOTFOUND);
    assert_err(pm_cron_next(w.app, NULL, &next), PM_ENOTFOUND);
    wall_run(&w, 60);
    assert_string_equal(w.ran, "1@20 1@40 min@40 1@60 ");
    wall_end(&w);
    /* by local time */
    memset(&w, 0, sizeof w);
    w.offset_s = -4 * 3600 - 1800;
    assert_ok(wall_loop(&w));
    assert_ok(wall_make(&w, "{\"chat\":[{\"id\":1,\"time\":\"5 30 7 28 10 6\","
                            "\"action\":\"job.run\"}]}"));
    assert_ok(pm_app_start(w.app));
    wall_run(&w, 10);
    assert_string_equal(w.ran, "1@5 ");
    wall_end(&w);
}

static void test_at_run_time(void **state)
{
    static const pm_cron each = {"a", "0/10 * * * * *", "job.run"};
    pm_cron wrong = each;
    char big[300];
    int64_t next = 7;
    wall w;
    (void)state;
    wall_start(&w, NULL);
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    assert_err(pm_app_cron(w.app, "chat.job.late", wall_job, &w), PM_ESTATE);
    assert_ok(pm_cron_add(w.app, &each));
    assert_err(pm_cron_add(w.app, &each), PM_EEXIST);
    wrong.action = "job.other"; /* another type's */
    wrong.id = "b";
    assert_err(pm_cron_add(w.app, &wrong), PM_ENOTFOUND);
    wrong = each;
    wrong.time = "0/10 * * * *";
    assert_err(pm_cron_add(w.app, &wrong), PM_EINVAL);
    wrong = each;
    wrong.id = "";
    assert_err(pm_cron_add(w.app, &wrong), PM_EINVAL);
    wrong.id = big;
    assert_err(pm_cron_add(w.app, &wrong), PM_EINVAL);
    wrong.id = NULL;
    assert_err(pm_cron_add(w.app, &wrong), PM_EINVAL);
    assert_err(pm_cron_add(w.app, NULL), PM_EINVAL);
    assert_int_equal(w.added, 1);
    wall_run(&w, 25);
    assert_string_equal(w.ran, "a@10 a@20 ");
    assert_err(pm_cron_remove(w.app, "b"), PM_ENOTFOUND);
    assert_err(pm_cron_remove(w.app, NULL), PM_ENOTFOUND);
    assert_ok(pm_cron_remove(w.app, "a"));
    assert_int_equal(w.removed, 1);
    assert_err(pm_cron_next(w.app, "a", &next), PM_ENOTFOUND);
    assert_int_equal(next, 7);
    wall_run(&w, 60);
    assert_int_equal(w.runs, 2);
    wall_end(&w);
}

/* A job does to its own cron, and to its app, what it likes. */
static void test_inside(void **state)
{
    static const pm_cron each = {"a", "* * * * * *", "job.run"};
    static const pm_cron other = {"b", "* * * * * *", "job.run"};
    wall w;
    (void)state;
    for (int what = 0; what < 4; what++) {
        wall_start(&w, NULL);
        w.remove_inside = what == 0;
        w.add_inside = what == 1;
        w.free_inside = what == 2;
        w.stop_inside = what == 3;
        assert_ok(pm_cron_add(w.app, &each));
        assert_ok(pm_cron_add(w.app, &other));
        wall_run(&w, 2);
        assert_string_equal(w.ran, what == 0   ? "a@1 b@1 "
                                   : what == 1 ? "a@1 b@1 a@2 b@2 again@2 "
                                               : "a@1 ");
        wall_end(&w);
    }
}

/* ---- No hidden timer --------------------------------------------------- */

static void test_no_timer(void **state)
{
    static const pm_cron each = {"a", "0 0 * * * *", "job.run"};
    static const pm_cron past = {"b", "0 0 0 1 0 * 2025", "job.run"};
    int64_t next;
    wall w;
    (void)state;
    wall_start(&w, NULL);
    wall_run(&w, 1);
    assert_true(pm_loop_next_us(w.loop) == UINT64_MAX);
    assert_ok(pm_cron_add(w.app, &past));
    assert_ok(pm_cron_next(w.app, "b", &next));
    assert_true(next == INT64_MAX);
    assert_true(pm_loop_next_us(w.loop) == UINT64_MAX);
    assert_ok(pm_cron_add(w.app, &each));
    assert_true(pm_loop_next_us(w.loop) <= 61 * 1000000);
    assert_ok(pm_cron_remove(w.app, "a"));
    assert_true(pm_loop_next_us(w.loop) == UINT64_MAX);
    assert_ok(pm_cron_add(w.app, &each));
    assert_ok(pm_app_stop(w.app, 0, NULL, NULL));
    wall_run(&w, 7200);
    assert_int_equal(w.runs, 0);
    assert_true(pm_loop_next_us(w.loop) == UINT64_MAX);
    assert_err(pm_cron_next(w.app, "a", &next), PM_ESTATE);
    wall_end(&w);
}

/* ---- What is missed, and clocks that are set --------------------------- */

#define MISSED                                                                 \
    "{\"chat\":[{\"id\":\"m\",\"time\":\"0 * * * * *\",\"action\":"            \
    "\"job.run\"},{\"id\":\"d\",\"time\":\"0 30 12 * * *\",\"action\":"        \
    "\"job.run\"}]}"

static void wall_set(wall *w, int64_t by_s)
{
    w->ahead_us += by_s * 1000000;
}

static void test_missed(void **state)
{
    wall w;
    (void)state;
    wall_start(&w, MISSED);
    w.world.now_us += (uint64_t)3600 * 1000000; /* a loop that is stuck */
    wall_run(&w, 61);
    assert_string_equal(w.ran, "m@3600 d@3600 m@3660 ");
    wall_end(&w);
}

static void test_set_forward(void **state)
{
    wall w;
    (void)state;
    wall_start(&w, MISSED);
    wall_run(&w, 60);
    wall_forget(&w);
    wall_set(&w, 7200); /* over 12:30: once each, in the order of their times */
    wall_run(&w, 60);
    assert_string_equal(w.ran, "m@7320 d@7320 ");
    wall_forget(&w);
    wall_set(&w, 3 * DAY + 30); /* it was wrong before: nothing is made up */
    wall_run(&w, 90);
    assert_string_equal(w.ran, "m@266640 ");
    wall_end(&w);
}

static void test_set_back(void **state)
{
    wall w;
    int64_t next;
    (void)state;
    wall_start(&w, MISSED);
    wall_run(&w, 1860); /* 12:31 */
    assert_int_equal(w.runs, 32);
    wall_forget(&w);
    wall_set(&w, -30); /* a little: nothing twice */
    wall_run(&w, 60);
    assert_string_equal(w.ran, "");
    wall_run(&w, 30);
    assert_string_equal(w.ran, "m@1920 ");
    wall_forget(&w);
    wall_set(&w, -3600); /* an hour: within a minute it goes on, 12:30 does not
                            come again */
    wall_run(&w, 60);
    wall_run(&w, 3600);
    assert_int_equal(w.runs, 60);
    assert_null(strstr(w.ran, "d@"));
    wall_forget(&w);
    assert_ok(pm_cron_next(w.app, "d", &next));
    assert_true(next == (NOON + DAY + 1800) * 1000);
    wall_set(&w, -10 * DAY); /* another day: anew */
    wall_run(&w, 60);
    assert_ok(pm_cron_next(w.app, "d", &next));
    assert_true(next == (NOON - 9 * DAY + 1800) * 1000);
    wall_end(&w);
}

/* ---- Wrong ones -------------------------------------------------------- */

static void test_wrong(void **state)
{
    static const struct {
        const char *crons, *want;
    } cases[] = {
        {"{\"chat\":\n oops}", "crons.json:2: expected a value at column 2\n"},
        {"[]", "crons.json: expected an object of server types\n"},
        {"{\"chat\":{}}", "crons.json: chat: expected an array of crons\n"},
        {"{\"gate\":[7]}", "crons.json: gate[0].id: expected a number or a "
                           "text of 1 to 255 bytes\n"},
        {"{\"chat\":[{\"id\":1.5}]}",
         "crons.json: chat[0].id: expected a number or a text of 1 to 255 "
         "bytes\n"},
        {"{\"chat\":[{\"id\":1}]}",
         "crons.json: chat[0].time: expected a text of 1 to 255 bytes\n"},
        {"{\"chat\":[{\"id\":1,\"time\":\"* * * * * *\"}]}",
         "crons.json: chat[0].action: expected a text of 1 to 255 bytes\n"},
        {"{\"chat\":[{\"id\":1,\"time\":\"* * * * * *\",\"action\":\"a\"}]}",
         "crons.json: chat[0].action: expected \"file.method\"\n"},
        {"{\"chat\":[{\"id\":1,\"time\":\"* * * * * *\",\"action\":\"a.b.c\"}]"
         "}",
         "crons.json: chat[0].action: expected \"file.method\"\n"},
        {"{\"chat\":[{\"id\":1,\"time\":\"* * * * * *\",\"action\":"
         "\"job.run\",\"serverId\":1}]}",
         "crons.json: chat[0].serverId: expected a text of 1 to 255 bytes\n"},
        {"{\"chat\":[],\"gate\":[{\"id\":1,\"time\":\"* * * * 12 *\","
         "\"action\":\"a.b\"}]}",
         "crons.json: gate[0].time: month: expected a number from 0 (January) "
         "to 11, \"*\", \"a-b\", \"r/p\" or a list of these, found \"12\"\n"},
        {"{\"chat\":[{\"id\":1,\"time\":\"* * * * * *\",\"action\":"
         "\"job.run\"},{\"id\":\"1\",\"time\":\"* * * * * *\",\"action\":"
         "\"job.run\"}]}",
         "crons.json: chat[1].id: expected an id that no other cron has\n"},
    };
    wall w = {0};
    (void)state;
    assert_ok(wall_loop(&w));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        w.log[0] = 0;
        assert_err(wall_make(&w, cases[i].crons), PM_ECONFIG);
        assert_string_equal(w.log, cases[i].want);
    }
    /* The job is missing: told at the start, not when it is due. */
    w.log[0] = 0;
    assert_ok(wall_make(&w, "{\"chat\":[{\"id\":7,\"time\":\"* * * * * *\","
                            "\"action\":\"job.none\"}]}"));
    assert_err(pm_app_start(w.app), PM_ECONFIG);
    assert_string_equal(
        w.log, "crons.json: chat: cron 7: action: expected one that "
               "pm_app_cron has registered as \"chat.job.none\", found none\n");
    assert_ok(pm_app_cron(w.app, "chat.job.none", wall_job, &w));
    assert_err(pm_app_cron(w.app, "chat.job.none", wall_job, &w), PM_EEXIST);
    assert_err(pm_app_cron(w.app, "job.none", wall_job, &w), PM_EINVAL);
    assert_err(pm_app_cron(w.app, "chat.job.b", NULL, &w), PM_EINVAL);
    assert_ok(pm_app_start(w.app));
    wall_run(&w, 1);
    assert_string_equal(w.ran, "7@1 ");
    wall_end(&w);
}

static void test_limit(void **state)
{
    wall w;
    char id[16];
    pm_cron cron = {id, "0 * * * * *", "job.run"};
    (void)state;
    wall_start(&w, NULL);
    for (int i = 0; i < 1024; i++) {
        snprintf(id, sizeof id, "%d", i);
        assert_ok(pm_cron_add(w.app, &cron));
    }
    snprintf(id, sizeof id, "more");
    assert_err(pm_cron_add(w.app, &cron), PM_ELIMIT);
    wall_run(&w, 60);
    assert_int_equal(w.runs, 1024);
    wall_end(&w);
}

static void test_memory(void **state)
{
    test_heap heap = {0};
    (void)state;
    test_cjson_use(&heap);
    {
        wall w = {0};
        TEST_EACH_FAILURE(&w.heap)
        {
            static const pm_cron each = {"a", "0/10 * * * * *", "job.run"};
            pm_err err;
            w.app = NULL;
            w.loop = NULL;
            wall_forget(&w);
            err = wall_loop(&w);
            if (err == PM_OK)
                err = wall_make(&w, "{\"chat\":[{\"id\":1,\"time\":\"0/20 * * "
                                    "* * *\",\"action\":\"job.run\"}]}");
            if (err == PM_OK)
                err = pm_app_start(w.app);
            if (err == PM_OK)
                err = pm_cron_add(w.app, &each);
            if (err == PM_OK) {
                wall_run(&w, 20);
                assert_int_equal(w.runs, 3);
            } else {
                assert_err(err, PM_ENOMEM);
            }
            pm_app_free(w.app);
            if (w.loop)
                assert_ok(pm_loop_free(w.loop));
        }
    }
    test_cjson_use(NULL);
    assert_heap_empty(&heap);
}

/* ---- A process --------------------------------------------------------- */

typedef struct process {
    char dir[64];
    char lines[4096];
    int runs;
} process;

static void process_job(pm_app *app, const pm_cron *cron, void *ctx)
{
    process *p = ctx;
    (void)app;
    assert_string_equal(cron->id, "tick");
    if (++p->runs == 1)
        kill(getpid(), SIGTERM);
}

static pm_err process_configure(pm_app *app, void *ctx)
{
    return pm_app_cron(app, "chat.job.tick", process_job, ctx);
}

static void process_log(void *ctx, pm_log_level level, const char *module,
                        const char *line)
{
    process *p = ctx;
    size_t len = strlen(p->lines);
    (void)level;
    (void)module;
    snprintf(p->lines + len, sizeof p->lines - len, "%s\n", line);
}

static void process_put(const process *p, const char *name, const char *text)
{
    char path[128];
    FILE *to;
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    to = fopen(path, "w");
    assert_non_null(to);
    fputs(text, to);
    fclose(to);
}

static pm_err process_run(process *p, const char *crons)
{
    pm_run_opts opts = pm_run_opts_default();
    process_put(p, "crons.json", crons);
    p->lines[0] = 0;
    opts.config_dir = p->dir;
    opts.env = "night";
    opts.log = process_log;
    opts.log_ctx = p;
    return pm_run(&opts, process_configure, p);
}

static void test_process(void **state)
{
    static const char *const files[] = {"servers.json", "crons.json"};
    process p = {.dir = "/tmp/pomelo-cron-XXXXXX"};
    char path[128];
    (void)state;
    assert_non_null(mkdtemp(p.dir));
    process_put(&p, "servers.json", "{\"chat\":[{\"id\":\"chat-1\"}]}");
    /* The system's clock, and the environment's part of the file. */
    assert_ok(process_run(&p, "{\"night\":{\"chat\":[{\"id\":\"tick\","
                              "\"time\":\"* * * * * *\",\"action\":"
                              "\"job.tick\"}]},\"day\":{\"chat\":7}}"));
    assert_int_equal(p.runs, 1);
    assert_err(process_run(&p, "{\"chat\":[{\"id\":1,\"time\":\"*/5 * * * * "
                               "*\",\"action\":\"job.tick\"}]}"),
               PM_ECONFIG);
    assert_non_null(strstr(
        p.lines, "crons.json: chat[0].time: second: expected a number from 0 "
                 "to 59, \"*\", \"a-b\", \"r/p\" or a list of these, found "
                 "\"*/5\"\n"));
    assert_err(process_run(&p, "{\"chat\":[{\"id\":1,\"time\":\"0 * * * * "
                               "*\",\"action\":\"job.tock\"}]}"),
               PM_ECONFIG);
    assert_non_null(strstr(p.lines, "\"chat.job.tock\", found none\n"));
    assert_err(process_run(&p, "{\n\n\"chat\":}"), PM_ECONFIG);
    assert_non_null(strstr(p.lines, "crons.json:3: expected "));
    assert_int_equal(p.runs, 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", p.dir, files[i]);
        remove(path);
    }
    assert_int_equal(rmdir(p.dir), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_file),     cmocka_unit_test(test_at_run_time),
    cmocka_unit_test(test_inside),   cmocka_unit_test(test_no_timer),
    cmocka_unit_test(test_missed),   cmocka_unit_test(test_set_forward),
    cmocka_unit_test(test_set_back), cmocka_unit_test(test_wrong),
    cmocka_unit_test(test_limit),    cmocka_unit_test(test_memory),
    cmocka_unit_test(test_process)};
TEST_MAIN(tests)
