/* SPDX-License-Identifier: MIT */
/* test_run.c -- what a process is made of: the files beside the table, its
 * arguments, its log, and the processes that a master starts. The whole of it
 * is played by test/tool/run.sh. */
#include "test.h"

#include "pomelo_config_run_internal.h"
#include "pomelo_run_log_internal.h"
#include "pomelo_spawn_internal.h"

#include <signal.h>
#include <sys/stat.h>

#define RUN_X16 "rrrrrrrrrrrrrrrr"
#define RUN_X64 RUN_X16 RUN_X16 RUN_X16 RUN_X16
#define RUN_X256 RUN_X64 RUN_X64 RUN_X64 RUN_X64

/* ---- A folder of files ---- */

typedef struct folder {
    char path[64];
} folder;

static folder folder_new(void)
{
    folder f;
    snprintf(f.path, sizeof f.path, "/tmp/pomelo-run-XXXXXX");
    assert_non_null(mkdtemp(f.path));
    return f;
}

static void folder_name(const folder *f, const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", f->path, name);
}

static void folder_put(const folder *f, const char *name, const char *text)
{
    char path[128];
    FILE *to;
    folder_name(f, name, path);
    to = fopen(path, "w");
    assert_non_null(to);
    fputs(text, to);
    fclose(to);
}

static void folder_remove(const folder *f, const char *name)
{
    char path[128];
    folder_name(f, name, path);
    remove(path);
}

/* The first bytes of a file, 0 at the end; "" when it is not there. */
static void folder_get(const folder *f, const char *name, char *out,
                       size_t size)
{
    char path[128];
    FILE *from;
    size_t len = 0;
    folder_name(f, name, path);
    from = fopen(path, "r");
    if (from) {
        len = fread(out, 1, size - 1, from);
        fclose(from);
    }
    out[len] = 0;
}

static const char *const folder_files[] = {
    "servers.json",    "master.json", "adminServer.json", "adminUser.json",
    "dictionary.json", "log.json",    "pomelo.json"};

static void folder_fill(const folder *f)
{
    static const char *const texts[] = {
        "{\"chat\":[{\"id\":\"chat-1\",\"port\":1}]}",
        "{\"development\":{\"id\":\"m-1\",\"host\":\"::1\",\"port\":\"3005\"}}",
        "[{\"type\":\"chat\",\"token\":\"t1\"},"
        "{\"type\":\"gate\",\"token\":\"t2\"}]",
        "[{\"username\":\"a\",\"password\":\"b\",\"level\":1},"
        "{\"username\":\"c\",\"password\":\"d\"}]",
        "[\"onChat\",\"onAdd\"]",
        "{\"level\":\"warn\",\"levels\":{\"rpc\":\"debug\"},\"format\":"
        "\"json\",\"file\":\"x.log\",\"max_bytes\":1000,\"keep\":2,"
        "\"stderr\":false}",
        "{\"binary\":\"build/x\",\"web\":{\"root\":\"web\",\"port\":3001},"
        "\"stats\":{\"host\":\"::1\",\"port\":9464}}"};
    for (size_t i = 0; i < PMI_COUNT(texts); i++)
        folder_put(f, folder_files[i], texts[i]);
}

static void folder_end(const folder *f)
{
    for (size_t i = 0; i < PMI_COUNT(folder_files); i++)
        folder_remove(f, folder_files[i]);
    assert_int_equal(rmdir(f->path), 0);
}

/* ---- Files beside the table ---- */

static void check_files(const pmi_run_files *files)
{
    assert_string_equal(files->master.id, "m-1");
    assert_string_equal(files->master.type, "master");
    assert_string_equal(files->master.host, "::1");
    assert_int_equal(files->master.port, 3005);
    assert_int_equal(files->tokens_count, 2);
    assert_string_equal(files->tokens[1].type, "gate");
    assert_string_equal(files->tokens[1].token, "t2");
    assert_int_equal(files->users_count, 2);
    assert_string_equal(files->users[0].username, "a");
    assert_int_equal(files->users[0].level, 1);
    assert_int_equal(files->users[1].level, 2); /* who has none may look */
    assert_int_equal(files->dictionary_count, 2);
    assert_string_equal(files->dictionary[0], "onChat");
    assert_int_equal(files->log.level, PM_LOG_WARN);
    assert_int_equal(files->log.most, PM_LOG_DEBUG);
    assert_int_equal(pmi_log_rules_level(&files->log, "rpc"), PM_LOG_DEBUG);
    assert_int_equal(pmi_log_rules_level(&files->log, "conn"), PM_LOG_WARN);
    assert_true(files->log.json);
    assert_true(files->log.stderr_given);
    assert_false(files->log.to_stderr);
    assert_int_equal(files->log.max_bytes, 1000);
    assert_int_equal(files->log.keep, 2);
    assert_string_equal(files->start.binary, "build/x");
    assert_string_equal(files->start.web_root, "web");
    assert_int_equal(files->start.web_port, 3001);
    assert_string_equal(files->start.stats_host, "::1");
    assert_int_equal(files->start.stats_port, 9464);
}

static void test_files(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    folder f = folder_new();
    pm_config *config;
    (void)state;
    folder_fill(&f);
    assert_ok(pm_config_load(&config, f.path, NULL, NULL, 0));
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        pmi_run_files files;
        char why[128] = "";
        pm_err err = pmi_run_files_read(&files, &env, config, why, sizeof why);
        if (err) {
            assert_err(err, PM_ENOMEM);
            assert_true(heap.failed > 0);
            assert_true(*why);
        } else {
            check_files(&files);
        }
        pmi_run_files_free(&files);
    }
    test_cjson_use(NULL);
    pm_config_free(config);
    folder_end(&f);
}

static void test_files_none(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    pmi_run_files files;
    pm_config *config;
    (void)state;
    assert_ok(
        pm_config_parse(&config, "{\"a\":[{\"id\":\"a\"}]}", NULL, NULL, 0));
    assert_ok(pmi_run_files_read(&files, &env, config, NULL, 0));
    assert_null(files.master.id);
    assert_int_equal(files.users_count + files.tokens_count, 0);
    assert_null(files.start.web_root);
    assert_int_equal(pmi_log_rules_level(&files.log, "x"), PM_LOG_INFO);
    pmi_run_files_free(&files);
    pm_config_free(config);
    assert_heap_empty(&heap);
}

/* Each wrong file is refused with its name and the key. */
static void test_files_wrong(void **state)
{
    static const struct {
        const char *file, *text, *key;
    } cases[] = {
        {"master.json", "[]", ": expected an object"},
        {"master.json", "{\"id\":\"m\"}", "port"},
        {"master.json", "{\"id\":\"m\",\"port\":0}",
         ": port: expected a number from 1 to 65535"},
        {"master.json", "{\"id\":\"m\",\"port\":70000}", "port"},
        {"master.json", "{\"id\":\"m\",\"port\":1.5}", "port"},
        {"master.json", "{\"id\":\"m\",\"port\":\"3005x\"}", "port"},
        {"master.json", "{\"port\":1}", "id"},
        {"master.json", "{\"id\":\"\",\"port\":1}", "id"},
        {"master.json", "{\"id\":\"m\",\"host\":7,\"port\":1}", "host"},
        {"adminServer.json", "{\"type\":\"a\"}", "array"},
        {"adminServer.json", "[{\"type\":\"a\"}]", "[0].token: expected"},
        {"adminServer.json", "[7]", "type"},
        {"adminUser.json", "[{\"username\":\"a\",\"level\":1}]", "password"},
        {"adminUser.json",
         "[{\"username\":\"a\",\"password\":\"b\",\"level\":-1}]", "level"},
        {"dictionary.json", "{\"a\":1}", "array"},
        {"dictionary.json", "[\"a\",1]", "[1]: expected a route"},
        {"dictionary.json", "[\"" RUN_X256 "\"]", "[0]: expected a route"},
        {"log.json", "{\"level\":\"loud\"}", "level"},
        {"log.json", "[]", ": expected an object"},
        {"log.json", "\"x\"", ": expected an object"},
        {"log.json", "{\"levels\":\"warn\"}", ": levels: expected an object"},
        {"log.json", "{\"levels\":[\"warn\"]}", ": levels: expected an object"},
        {"log.json", "{\"levels\":{\"a\":1}}",
         ": levels.a: expected error, warn, info or debug"},
        {"log.json", "{\"levels\":{\"con\\nn\":\"loud\"}}", ": levels.con?n: "},
        {"log.json", "{\"format\":\"xml\"}", "format"},
        {"log.json", "{\"keep\":101}", "keep"},
        {"log.json", "{\"stderr\":1}", "stderr"},
        {"pomelo.json", "{\"binary\":[]}", "binary"},
        {"pomelo.json", "[]", ": expected an object"},
        {"pomelo.json", "{\"web\":{\"port\":1}}",
         ": web.root: expected a text"},
        {"pomelo.json", "{\"web\":5}", ": web: expected an object"},
        {"pomelo.json", "{\"web\":\"web\"}", ": web: expected an object"},
        {"pomelo.json", "{\"stats\":9464}", ": stats: expected an object"},
        {"pomelo.json", "{\"stats\":{\"port\":65536}}",
         ": stats.port: expected a number from 0 to 65535"},
        {"pomelo.json", "{\"web\":{\"root\":\"w\",\"port\":\"x\"}}",
         ": web.port: expected a number from 0 to 65535"},
    };
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    folder f = folder_new();
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pmi_run_files files;
        pm_config *config;
        char why[128] = "";
        folder_fill(&f);
        folder_put(&f, cases[i].file, cases[i].text);
        assert_ok(pm_config_load(&config, f.path, NULL, NULL, 0));
        assert_err(pmi_run_files_read(&files, &env, config, why, sizeof why),
                   PM_ECONFIG);
        pmi_run_files_free(&files);
        pm_config_free(config);
        assert_ptr_equal(strstr(why, cases[i].file), why);
        assert_non_null(strstr(why, cases[i].key));
        assert_heap_empty(&heap);
    }
    folder_end(&f);
}

/* Schemas that encoding would pass over, each with its key; what Pomelo's games
 * have is fine. */
static void test_protos(void **state)
{
    static const struct {
        const char *text, *why; /* "": it is fine */
    } cases[] = {
        {"{}", ""},
        {"{\"_\":\"a remark\",\"a\":{\"_\":\"another\"}}", ""},
        {"{\"a\":{\"required bool yes\":1,\"repeated X x\":2,\"message X\":"
         "{\"optional uInt32 x\":1}},\"message Y\":{}}",
         ""},
        {"[]", "expected an object"},
        {"{\"a\":5}", "a: expected an object of fields"},
        {"{\"a\":{},\"b\":{\"requird string x\":1}}",
         "b.requird string x: expected \"OPTION TYPE NAME\" with required, "
         "optional or repeated, or \"message NAME\""},
        {"{\"a\":{\"required  string x\":1}}",
         "a.required  string x: expected \"OPTION TYPE NAME\" with required, "
         "optional or repeated, or \"message NAME\""},
        {"{\"a\":{\"required string x\":1.5}}",
         "a.required string x: expected a number from 0 to 268435455"},
        {"{\"a\":{\"message X\":7}}",
         "a.message X: expected an object of fields"},
        {"{\"a\":{\"message X\":{\"required string x\":-1}}}",
         "a.required string x: expected a number from 0 to 268435455"},
    };
    static const char name[] = "clientProtos.json";
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    folder f = folder_new();
    (void)state;
    folder_put(&f, "servers.json", "{\"a\":[{\"id\":\"a\"}]}");
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        char why[256] = "", want[256] = "";
        pm_config *config;
        if (*cases[i].why)
            snprintf(want, sizeof want, "%s: %s", name, cases[i].why);
        folder_put(&f, name, cases[i].text);
        assert_ok(pm_config_load(&config, f.path, NULL, NULL, 0));
        assert_err(pmi_run_protos_look_at(&env, config, name, why, sizeof why),
                   *want ? PM_ECONFIG : PM_OK);
        assert_string_equal(why, want);
        assert_ok(pmi_run_protos_look_at(&env, config, "serverProtos.json", why,
                                         sizeof why));
        pm_config_free(config);
        assert_heap_empty(&heap);
    }
    folder_remove(&f, name);
    folder_end(&f);
}

/* ---- Arguments ---- */

static void test_server_args(void **state)
{
    static const struct {
        const char *raw, *joined;
        size_t count;
    } cases[] = {
        {NULL, "", 0},
        {"{\"id\":\"a\"}", "", 0},
        {"{\"args\":\"one of them\"}", "one of them|", 1},
        {"{\"args\":\"[\\\"no array\\\"]\"}", "[\"no array\"]|", 1},
        {"{\"args\":[\"a b\",\"\",\"--id\",\"\\u00e4\"]}",
         "a b||--id|\xc3\xa4|", 4},
        {"{\"args\":[]}", "", 0},
    };
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    test_cjson_use(&heap);
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pm_server server = {.id = "a", .raw = cases[i].raw};
        TEST_EACH_FAILURE(&heap)
        {
            char **args = NULL, joined[64] = "";
            size_t count = 99;
            pm_err err = pmi_run_server_args(&env, &server, &args, &count);
            if (err) {
                assert_err(err, PM_ENOMEM);
                assert_null(args);
                continue;
            }
            assert_int_equal(count, cases[i].count);
            for (size_t k = 0; k < count; k++) {
                strncat(joined, args[k], sizeof joined - strlen(joined) - 2);
                strncat(joined, "|", 2);
            }
            assert_string_equal(joined, cases[i].joined);
            assert_null(args[count]);
            pmi_free(&env, args);
        }
    }
    test_cjson_use(NULL);
}

static void test_server_args_wrong(void **state)
{
    static const char *const cases[] = {"{\"args\":7}", "{\"args\":[\"a\",7]}",
                                        "{\"args\":{\"a\":\"b\"}}", "no json"};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        pm_server server = {.id = "a", .raw = cases[i]};
        char **args = NULL;
        size_t count;
        assert_err(pmi_run_server_args(&env, &server, &args, &count),
                   PM_ECONFIG);
        assert_heap_empty(&heap);
    }
}

static void test_run_args(void **state)
{
    char *words[] = {"prog",  "--id", "mine",      "--env", "--env", "e",
                     "other", "--id", "chat-1",    "--env", "live",  "--start",
                     "none",  "x",    "--servers", "{}",    NULL};
    char *short_words[] = {"prog", "--id", NULL};
    pm_run_opts opts = pm_run_opts_default();
    (void)state;
    opts.ids = "untouched";
    assert_ok(pm_run_args(&opts, 1, words));
    assert_string_equal(opts.ids, "untouched");
    assert_ok(pm_run_args(&opts, 16, words));
    assert_string_equal(opts.program, "prog");
    assert_string_equal(opts.ids, "chat-1"); /* who starts us speaks last */
    assert_string_equal(opts.env, "live");
    assert_string_equal(opts.start, "none");
    assert_string_equal(opts.servers_json, "{}");
    assert_err(pm_run_args(&opts, 2, short_words), PM_EINVAL);
}

/* ---- Log ---- */

static void test_log_file(void **state)
{
    folder f = folder_new();
    char pattern[128], text[512];
    pmi_log_rules rules = {.max_bytes = 200, .keep = 2, .stderr_given = true};
    pmi_run_log log = {0};
    (void)state;
    folder_name(&f, "logs/${opts:serverId}.log", pattern);
    rules.file = pattern;
    assert_ok(pmi_run_log_open(&log, &rules, "a/b"));
    for (int i = 0; i < 9; i++) {
        snprintf(text, sizeof text, "line %d, which has some length to it", i);
        pmi_run_log_line(&log, PM_LOG_INFO, "mod", text);
    }
    pmi_run_log_line(&log, PM_LOG_DEBUG, "mod", "too much");
    pmi_run_log_close(&log);
    /* Two lines a file: 8 | 6 7 | 4 5, and 0 to 3 are gone. */
    folder_get(&f, "logs/a_b.log", text, sizeof text);
    assert_non_null(strstr(text, " info  a/b mod: line 8, which"));
    assert_null(strstr(text, "line 7"));
    assert_null(strstr(text, "too much"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    folder_get(&f, "logs/a_b.log.1", text, sizeof text);
    assert_non_null(strstr(text, "line 6"));
    assert_non_null(strstr(text, "line 7"));
    folder_get(&f, "logs/a_b.log.2", text, sizeof text);
    assert_non_null(strstr(text, "line 5"));
    folder_get(&f, "logs/a_b.log.3", text, sizeof text);
    assert_string_equal(text, "");
    folder_remove(&f, "logs/a_b.log");
    folder_remove(&f, "logs/a_b.log.1");
    folder_remove(&f, "logs/a_b.log.2");
    folder_remove(&f, "logs");
    folder_end(&f);
}

/* A folder that is gone is made again; a file that can not be opened is tried
 * again. */
static void test_log_again(void **state)
{
    folder f = folder_new();
    char path[128], text[512];
    pmi_log_rules rules = {.max_bytes = 60, .stderr_given = true};
    pmi_run_log log = {0};
    (void)state;
    folder_name(&f, "logs/a", path);
    rules.file = path;
    assert_ok(pmi_run_log_open(&log, &rules, "a"));
    pmi_run_log_line(&log, PM_LOG_INFO, "mod", "the file is full with this");
    folder_remove(&f, "logs/a");
    folder_remove(&f, "logs");
    pmi_run_log_line(&log, PM_LOG_INFO, "mod", "in a new folder");
    folder_get(&f, "logs/a", text, sizeof text);
    assert_non_null(strstr(text, "in a new folder"));
    folder_remove(&f, "logs/a");
    folder_remove(&f, "logs");
    folder_put(&f, "logs", "is in the way");
    pmi_run_log_line(&log, PM_LOG_INFO, "mod", "turned over, to nowhere");
    pmi_run_log_line(&log, PM_LOG_INFO, "mod", "lost");
    folder_remove(&f, "logs");
    log.tried_s = 0; /* a second later */
    pmi_run_log_line(&log, PM_LOG_INFO, "mod", "here again");
    folder_get(&f, "logs/a", text, sizeof text);
    assert_non_null(strstr(text, "here again"));
    assert_null(strstr(text, "lost"));
    pmi_run_log_close(&log);
    folder_remove(&f, "logs/a");
    folder_remove(&f, "logs");
    folder_end(&f);
}

static void test_log_json(void **state)
{
    folder f = folder_new();
    char path[128], text[512];
    pmi_log_rules rules = {.json = true, .stderr_given = true};
    pmi_run_log log = {0};
    cJSON *tree = NULL;
    (void)state;
    folder_name(&f, "log", path);
    rules.file = path;
    /* An old file is continued. */
    folder_put(&f, "log", "old\n");
    assert_ok(pmi_run_log_open(&log, &rules, "s"));
    pmi_run_log_line(&log, PM_LOG_ERROR, "m", "a \"b\"\n\x01");
    pmi_run_log_close(&log);
    folder_get(&f, "log", text, sizeof text);
    assert_memory_equal(text, "old\n", 4);
    assert_ok(pm_json_tree(pm_text(text + 4), &tree));
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(tree, "line")),
                        "a \"b\"\n\x01");
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetObjectItem(tree, "level")), "error");
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetObjectItem(tree, "server")), "s");
    cJSON_Delete(tree);
    folder_remove(&f, "log");
    folder_end(&f);
}

static void test_log_nowhere(void **state)
{
    pmi_log_rules rules = {.file = "/dev/null/x", .stderr_given = true};
    pmi_run_log log = {0};
    (void)state;
    assert_err(pmi_run_log_open(&log, &rules, "s"), PM_ENET);
    assert_true(log.rules.to_stderr);
    pmi_run_log_close(&log);
}

/* ---- Processes ---- */

typedef struct nursery {
    pm_loop *loop;
    pmi_spawn *spawn;
    char ended[256]; /* ids, each with a blank; f: a frontend */
} nursery;

static void nursery_ended(const char *id, bool frontend, void *ctx)
{
    nursery *n = ctx;
    size_t len = strlen(n->ended);
    snprintf(n->ended + len, sizeof n->ended - len, "%s%s ", id,
             frontend ? ":f" : "");
    pm_loop_break(n->loop);
}

static void nursery_open(nursery *n, const char *binary)
{
    memset(n, 0, sizeof *n);
    assert_ok(pm_loop_new(&n->loop, NULL));
    assert_ok(
        pmi_spawn_new(&n->spawn, n->loop, binary, "test", nursery_ended, n));
}

static void nursery_close(nursery *n)
{
    pmi_spawn_free(n->spawn);
    assert_ok(pm_loop_free(n->loop));
}

/* sh -c SCRIPT --env test --id ID: the script sees ID as $3. */
#define SLEEPS "{\"args\":[\"-c\",\"exec sleep 60\"]}"

static void test_spawn_ends(void **state)
{
    pm_server good = {.id = "a",
                      .raw = "{\"args\":[\"-c\",\"[ \\\"$0 $1 $2 $3\\\" = "
                             "'--env test --id a' ]\"]}"};
    nursery n;
    (void)state;
    nursery_open(&n, "/bin/sh");
    assert_ok(pmi_spawn_start(n.spawn, &good, NULL));
    assert_err(pmi_spawn_start(n.spawn, &good, NULL), PM_EEXIST);
    assert_int_equal(pmi_spawn_count(n.spawn), 1);
    assert_ok(pm_loop_run(n.loop));
    assert_string_equal(n.ended, "a ");
    assert_int_equal(pmi_spawn_count(n.spawn), 0);
    nursery_close(&n);
}

static void test_spawn_stop(void **state)
{
    pm_server front = {.id = "f", .frontend = true, .raw = SLEEPS};
    pm_server back = {.id = "b", .raw = SLEEPS};
    nursery n;
    (void)state;
    nursery_open(&n, "/bin/sh");
    assert_ok(pmi_spawn_start(n.spawn, &front, NULL));
    assert_ok(pmi_spawn_start(n.spawn, &back, NULL));
    pmi_spawn_stop(n.spawn, true);
    assert_ok(pm_loop_run(n.loop));
    assert_string_equal(n.ended, "f:f ");
    assert_int_equal(pmi_spawn_left(n.spawn, false), 1);
    assert_ok(pmi_spawn_kill(n.spawn, &back, 0));
    assert_ok(pm_loop_run(n.loop));
    assert_string_equal(n.ended, "f:f b ");
    nursery_close(&n);
}

/* What a server says of its pid is not believed without a look. */
static void test_spawn_kill_other(void **state)
{
    pm_server server = {.id = "a",
                        .raw =
                            "{\"args\":[\"-c\",\"echo $$ >&9; exec 9>&-; while "
                            ":; do sleep 1; done\"]}"};
    pm_server other = {.id = "other"};
    nursery n, stranger;
    char text[32] = "";
    int ends[2];
    int64_t pid;
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[1], 9), 9);
    nursery_open(&n, "/bin/sh");
    nursery_open(&stranger, "/bin/sh");
    assert_ok(pmi_spawn_start(n.spawn, &server, NULL));
    assert_true(read(ends[0], text, sizeof text - 1) > 0);
    pid = strtol(text, NULL, 10);
    assert_err(pmi_spawn_kill(stranger.spawn, &other, pid), PM_ENOTFOUND);
    assert_err(pmi_spawn_kill(stranger.spawn, &server, getpid()), PM_ENOTFOUND);
    assert_err(pmi_spawn_kill(stranger.spawn, &server, 0), PM_ENOTFOUND);
    assert_err(pmi_spawn_kill(stranger.spawn, &server, -1), PM_ENOTFOUND);
    assert_err(pmi_spawn_kill(stranger.spawn, &server, INT64_MAX),
               PM_ENOTFOUND);
    assert_int_equal(kill((pid_t)pid, 0), 0);
    assert_ok(pmi_spawn_kill(stranger.spawn, &server, pid));
    assert_ok(pm_loop_run(n.loop));
    assert_string_equal(n.ended, "a ");
    nursery_close(&n);
    nursery_close(&stranger);
    close(ends[0]);
    close(ends[1]);
    close(9);
}

static void test_spawn_refused(void **state)
{
    pm_server server = {.id = "a", .raw = SLEEPS};
    pm_server wrong = {.id = "a", .raw = "{\"args\":7}"};
    nursery n;
    pmi_addr addr;
    int fd;
    (void)state;
    nursery_open(&n, "/nowhere/at/all");
    assert_err(pmi_spawn_start(n.spawn, &server, NULL), PM_ENOTFOUND);
    assert_err(pmi_spawn_start(n.spawn, &wrong, NULL), PM_ECONFIG);
    assert_true(pmi_addr_parse(&addr, "127.0.0.1", 0));
    assert_ok(pmi_sock_listen(&addr, 1, &fd));
    server.client_port = pmi_addr_port(&addr);
    assert_err(pmi_spawn_start(n.spawn, &server, NULL), PM_EADDR);
    pmi_sock_close(fd);
    assert_int_equal(pmi_spawn_count(n.spawn), 0);
    nursery_close(&n);
}

static void test_spawn_memory(void **state)
{
    test_heap heap = {0};
    pm_loop_opts opts = pm_loop_opts_default();
    pm_server server = {.id = "a", .raw = SLEEPS};
    (void)state;
    opts.alloc = test_alloc(&heap);
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        nursery n = {0};
        if (pm_loop_new(&n.loop, &opts))
            continue;
        if (pmi_spawn_new(&n.spawn, n.loop, "/bin/sh", "test", nursery_ended,
                          &n) == PM_OK &&
            pmi_spawn_start(n.spawn, &server, NULL) == PM_OK) {
            assert_ok(pmi_spawn_kill(n.spawn, &server, 0));
            while (!*n.ended && pm_loop_poll(n.loop, 0) != PM_EINVAL)
                usleep(1000);
            assert_string_equal(n.ended, "a ");
        }
        pmi_spawn_free(n.spawn);
        assert_ok(pm_loop_free(n.loop));
    }
    test_cjson_use(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_files),
    cmocka_unit_test(test_files_none),
    cmocka_unit_test(test_files_wrong),
    cmocka_unit_test(test_protos),
    cmocka_unit_test(test_server_args),
    cmocka_unit_test(test_server_args_wrong),
    cmocka_unit_test(test_run_args),
    cmocka_unit_test(test_log_file),
    cmocka_unit_test(test_log_again),
    cmocka_unit_test(test_log_json),
    cmocka_unit_test(test_log_nowhere),
    cmocka_unit_test(test_spawn_ends),
    cmocka_unit_test(test_spawn_stop),
    cmocka_unit_test(test_spawn_kill_other),
    cmocka_unit_test(test_spawn_refused),
    cmocka_unit_test(test_spawn_memory),
};

TEST_MAIN(tests)
