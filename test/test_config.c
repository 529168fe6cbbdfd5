/* SPDX-License-Identifier: MIT */
/* test_config.c -- Pomelo's files: good ones, and for every kind of mistake the
 * sentence that it is told with. */
#include "test.h"

#include "pomelo_config_internal.h"

#include <sys/stat.h>

static pm_config *parse(const char *text, const char *env)
{
    pm_config *config = NULL;
    char why[256] = "untouched";
    pm_err err = pm_config_parse(&config, text, env, why, sizeof why);
    if (err)
        print_error("%s\n", why);
    assert_ok(err);
    assert_string_equal(why, "");
    return config;
}

static const pm_server *server_at(const pm_config *config, size_t index)
{
    size_t count;
    const pm_server *servers = pm_config_servers(config, &count);
    assert_true(index < count);
    return &servers[index];
}

static size_t count_of(const pm_config *config)
{
    size_t count = 99;
    pm_config_servers(config, &count);
    return count;
}

/* ---- Good tables ------------------------------------------------------- */

static void test_all_keys(void **state)
{
    pm_config *config = parse(
        "{\n"
        "  \"connector\": [{\"id\": \"connector-1\", \"host\": \"10.0.0.1\",\n"
        "    \"port\": 4050, \"clientHost\": \"play.example\",\n"
        "    \"clientPort\": 3050, \"frontend\": true, \"cpu\": 0,\n"
        "    \"max-connections\": 100, \"weight\": 3, \"mine\": {\"a\":[1]},\n"
        "    \"args\": \" --debug=32315\"}],\n"
        "  \"gate\": [{\"id\": \"gate-1\", \"clientPort\": \"3014\",\n"
        "    \"frontend\": \"true\", \"args\": [\"-x\", \"-y\"]}],\n"
        "  \"chat\": [{\"id\":\"chat-1\",\"port\":65535,\"frontend\":false,\n"
        "    \"auto-restart\":true,\"restart-force\":\"false\"},\n"
        "             {\"id\":\"chat-2\",\"frontend\":\"false\",\"cpu\":7,\n"
        "    \"auto-restart\":\"true\",\"restart-force\":false}],\n"
        "  \"empty\": []\n"
        "}",
        NULL);
    const pm_server *s = server_at(config, 0);
    (void)state;
    assert_int_equal(count_of(config), 4);
    assert_string_equal(s->id, "connector-1");
    assert_string_equal(s->type, "connector");
    assert_string_equal(s->host, "10.0.0.1");
    assert_int_equal(s->port, 4050);
    assert_int_equal(s->client_port, 3050);
    assert_true(s->frontend);
    assert_int_equal(s->cpu, 1); /* core 0 */
    assert_int_equal(s->max_connections, 100);
    assert_int_equal(s->weight, 3);
    assert_string_equal(s->args, " --debug=32315");
    assert_string_equal(
        s->raw,
        "{\"id\":\"connector-1\",\"host\":\"10.0.0.1\",\"port\":4050,"
        "\"clientHost\":\"play.example\",\"clientPort\":3050,"
        "\"frontend\":true,\"cpu\":0,\"max-connections\":100,\"weight\":3,"
        "\"mine\":{\"a\":[1]},\"args\":\" --debug=32315\"}");
    s = server_at(config, 1);
    assert_null(s->host);
    assert_int_equal(s->port, 0);
    assert_int_equal(s->client_port, 3014);
    assert_true(s->frontend);
    assert_int_equal(s->cpu, 0);
    assert_int_equal(s->weight, 0);
    assert_string_equal(s->args, "[\"-x\",\"-y\"]");
    assert_int_equal(server_at(config, 2)->port, 65535);
    assert_false(server_at(config, 2)->frontend);
    assert_null(server_at(config, 2)->args);
    assert_false(server_at(config, 3)->frontend);
    assert_int_equal(server_at(config, 3)->cpu, 8);
    assert_null(pm_config_file(config, "master.json"));
    pm_config_free(config);
    pm_config_free(NULL);
}

static void test_environments(void **state)
{
    static const char text[] =
        "\xef\xbb\xbf{\"development\":{\"chat\":[{\"id\":\"dev\"}]},"
        "\"production\":{\"chat\":[{\"id\":\"one\"},{\"id\":\"two\"}]}}";
    pm_config *config;
    (void)state;
    config = parse(text, "production");
    assert_int_equal(count_of(config), 2);
    pm_config_free(config);
    config = parse(text, NULL);
    assert_string_equal(server_at(config, 0)->id, "dev");
    pm_config_free(config);
    config = parse(text, "");
    assert_string_equal(server_at(config, 0)->id, "dev");
    pm_config_free(config);
    /* Without any: the same for all. */
    config = parse("{\"chat\":[{\"id\":\"chat-1\"}]}", "production");
    assert_string_equal(server_at(config, 0)->type, "chat");
    pm_config_free(config);
}

static void test_cluster_count(void **state)
{
    pm_config *config =
        parse("{\"chat\":[{\"host\":\"127.0.0.1\",\"port\":\"3000++\","
              "\"clusterCount\":3,\"wsPort\":\"7++\",\"lang\":\"C++\","
              "\"statsPort\":\"9464++\"},"
              "{\"id\":\"mine\",\"port\":9},"
              "{\"id\":\"5++\",\"port\":65534,\"clientPort\":\"65534++\","
              "\"clusterCount\":\"2\"}],"
              "\"area\":[{\"clusterCount\":1,\"port\":\"65535++\"}]}",
              NULL);
    static const char *const ids[] = {
        "cluster-server-chat-0", "cluster-server-chat-1",
        "cluster-server-chat-2", "mine",
        "cluster-server-chat-3", "cluster-server-chat-4",
        "cluster-server-area-0"};
    static const int ports[] = {3000, 3001, 3002, 9, 65534, 65534, 65535};
    (void)state;
    assert_int_equal(count_of(config), PMI_COUNT(ids));
    for (size_t i = 0; i < PMI_COUNT(ids); i++) {
        assert_string_equal(server_at(config, i)->id, ids[i]);
        assert_int_equal(server_at(config, i)->port, ports[i]);
        assert_int_equal(server_at(config, i)->stats_port,
                         i < 3 ? 9464 + (int)i : 0);
    }
    assert_int_equal(server_at(config, 4)->client_port, 65534);
    assert_int_equal(server_at(config, 5)->client_port, 65535);
    assert_string_equal(server_at(config, 1)->raw,
                        "{\"host\":\"127.0.0.1\",\"port\":3001,"
                        "\"wsPort\":8,\"lang\":\"C++\",\"statsPort\":9465,"
                        "\"id\":\"cluster-server-chat-1\"}");
    assert_string_equal(server_at(config, 4)->raw,
                        "{\"id\":\"cluster-server-chat-3\",\"port\":65534,"
                        "\"clientPort\":65534}");
    pm_config_free(config);
}

/* As a process gets it that is started for one of them. */
static void test_counted_server_alone(void **state)
{
    pm_config *config =
        parse("{\"chat\":[{\"clusterCount\":3,\"port\":\"3000++\"}]}", NULL);
    pm_config *again;
    char text[256];
    (void)state;
    snprintf(text, sizeof text, "{\"chat\":[%s]}", server_at(config, 2)->raw);
    again = parse(text, NULL);
    assert_int_equal(count_of(again), 1);
    assert_string_equal(server_at(again, 0)->id, "cluster-server-chat-2");
    assert_int_equal(server_at(again, 0)->port, 3002);
    pm_config_free(again);
    pm_config_free(config);
}

/* ---- Mistakes ---------------------------------------------------------- */

typedef struct mistake {
    const char *text;
    const char *why; /* behind "servers.json:" */
} mistake;

/* An entry with this member, on line 3. */
#define ENTRY(member)                                                          \
    "{\"chat\":[{\"id\":\"chat-0\"},\n{\"id\":\"c\",\n" member "}]}"

static const mistake mistakes[] = {
    /* Not JSON. */
    {"", "1: expected a value at column 1"},
    {"{\"chat\":\n[{]}", "2: expected a key in double quotes at column 3"},
    {"{\"chat\":[]}\n x", "2: expected the end of the text at column 2"},
    {"{\"a\":\"\\u0000\"}", "1: expected no U+0000 in a string at column 7"},
    /* Not a table. */
    {"\n[]", "2: expected an object of server types, found an array"},
    {"3", "1: expected an object of server types, found 3"},
    {"{\n}", "1: expected at least one server, found none"},
    {"{\"chat\":[]}", "1: expected at least one server, found none"},
    {"{\"chat\":\n\"x\"}",
     "2: chat: expected an array of servers, found \"x\""},
    {"{\"a\":[],\n \"production\":\n {\"chat\":[]}}",
     "3: production: expected an array of servers, or a part for the "
     "environment \"development\", found an object"},
    {"{\n\"development\":\n[]}",
     "3: expected an object of server types, found an array"},
    {"{\"development\":{\n\"chat\":\n{}}}",
     "3: chat: expected an array of servers, found an object"},
    {"{\"\":[]}", "1: : expected a type of 1 to 255 bytes, found an empty one"},
    {"{\"chat\":[{\"id\":\"a\"},\n\n7]}",
     "3: chat[1]: expected an object, found 7"},
    /* Members. */
    {"{\"chat\":[\n{\"port\":1}]}",
     "2: chat[0].id: expected a text of 1 to 255 bytes, found nothing"},
    {"{\"chat\":[\n{\"id\":\n\"\"}]}",
     "3: chat[0].id: expected a text of 1 to 255 bytes, found \"\""},
    {"{\"chat\":[{\"id\":7,\"clusterCount\":2}]}",
     "1: chat[0].id: expected a text of 1 to 255 bytes, found 7"},
    {"{\"chat\":[{\"id\":\"a\"}],\n\"area\":[{\"id\":\"b\"},\n{\"id\":\"a\"}]}",
     "3: area[1].id: expected an id that no server before it has, found "
     "\"a\""},
    {"{\"chat\":[{\"id\":\"cluster-server-chat-1\"},\n{\"clusterCount\":2}]}",
     "2: chat[1].id: expected an id that no server before it has, found "
     "\"cluster-server-chat-1\""},
    {ENTRY("\"host\":false"), "3: chat[1].host: expected a text, found false"},
    {ENTRY("\"host\":\"\""), "3: chat[1].host: expected a text, found \"\""},
    {ENTRY("\"clientHost\":[]"),
     "3: chat[1].clientHost: expected a text, found an array"},
    {ENTRY("\"port\":\"abc\""),
     "3: chat[1].port: expected a number from 1 to 65535 or \"N++\", found "
     "\"abc\""},
    {ENTRY("\"port\":0"),
     "3: chat[1].port: expected a number from 1 to 65535 or \"N++\", found 0"},
    {ENTRY("\"port\":65536"), "3: chat[1].port: expected a number from 1 to "
                              "65535 or \"N++\", found 65536"},
    {ENTRY("\"port\":-1"),
     "3: chat[1].port: expected a number from 1 to 65535 or \"N++\", found -1"},
    {ENTRY("\"port\":1.5"), "3: chat[1].port: expected a number from 1 to "
                            "65535 or \"N++\", found 1.5"},
    {ENTRY("\"port\":null"), "3: chat[1].port: expected a number from 1 to "
                             "65535 or \"N++\", found null"},
    {ENTRY("\"port\":\"99999999999999999999999\""),
     "3: chat[1].port: expected a number from 1 to 65535 or \"N++\", found "
     "\"99999999999999999999999\""},
    {ENTRY("\"clientPort\":\"3050 \""),
     "3: chat[1].clientPort: expected a number from 1 to 65535 or \"N++\", "
     "found \"3050 \""},
    {ENTRY("\"port\":\"3000++\""),
     "3: chat[1].port: expected a number from 1 to 65535 (\"N++\" counts only "
     "beside clusterCount), found \"3000++\""},
    {ENTRY("\"clusterCount\":3,\"port\":\"65534++\""),
     "3: chat[1].port: expected \"N++\" with N + clusterCount - 1 up to 65535, "
     "found \"65534++\""},
    {ENTRY("\"clusterCount\":3,\"port\":\"0++\""),
     "3: chat[1].port: expected a number from 1 to 65535 or \"N++\", found "
     "\"0++\""},
    {ENTRY("\"clusterCount\":0"),
     "3: chat[1].clusterCount: expected a number from 1 to 10000, found 0"},
    {ENTRY("\"clusterCount\":1e300"), "3: chat[1].clusterCount: expected a "
                                      "number from 1 to 10000, found 1e+300"},
    {ENTRY("\"clusterCount\":10000"),
     "2: chat[1]: expected 10000 servers in all at most, found more"},
    {ENTRY("\"frontend\":1"),
     "3: chat[1].frontend: expected true or false, found 1"},
    {ENTRY("\"frontend\":\"yes\""),
     "3: chat[1].frontend: expected true or false, found \"yes\""},
    {ENTRY("\"auto-restart\":\"yes\""),
     "3: chat[1].auto-restart: expected true or false, found \"yes\""},
    {ENTRY("\"restart-force\":1"),
     "3: chat[1].restart-force: expected true or false, found 1"},
    {ENTRY("\"cpu\":\"two\""),
     "3: chat[1].cpu: expected a number from 0 to 4095, found \"two\""},
    {ENTRY("\"weight\":0"),
     "3: chat[1].weight: expected a number from 1 to 4294967295, found 0"},
    {ENTRY("\"max-connections\":true"),
     "3: chat[1].max-connections: expected a number from 0 to 4294967295, "
     "found true"},
    {ENTRY("\"args\":[\"-x\",7]"),
     "3: chat[1].args: expected a text or an array of texts, found 7"},
    {ENTRY("\"args\":{}"),
     "3: chat[1].args: expected a text or an array of texts, found an object"},
    /* Finding the place: escapes, twins, brackets in texts. */
    {"{\"x\":[],\"ch\\u0061t\":[\n{\"\\\"}]\":\"}]\\\\\",\"id\":\"a\","
     "\n\"p\\u006frt\":\n\"\"}]}",
     "4: chat[0].port: expected a number from 1 to 65535 or \"N++\", found "
     "\"\""},
    {"{\"chat\":[{\"id\":\"a\",\"port\":1,\n\"port\":2,\n\"port\":3.5}]}",
     "3: chat[0].port: expected a number from 1 to 65535 or \"N++\", found "
     "3.5"},
    /* What is quoted stays on the line and has an end. */
    {"{\"a\\nb\":7}", "1: a?b: expected an array of servers, found 7"},
    {ENTRY("\"host\":7,\"port\":"
           "\"\\n0123456789012345678901234567890123456789\\u4e2d\\u6587\""),
     "3: chat[1].host: expected a text, found 7"},
    {ENTRY("\"port\":\"01234567890123456789012345678901234567890123456"
           "\\u4e2d\\u6587\""),
     "3: chat[1].port: expected a number from 1 to 65535 or \"N++\", found "
     "\"01234567890123456789012345678901234567890123456..."},
};

static void test_mistakes(void **state)
{
    char want[512];
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(mistakes); i++) {
        pm_config *config = NULL;
        char why[512] = "";
        snprintf(want, sizeof want, "servers.json:%s", mistakes[i].why);
        assert_err(
            pm_config_parse(&config, mistakes[i].text, NULL, why, sizeof why),
            PM_ECONFIG);
        assert_string_equal(why, want);
        assert_null(config);
    }
}

/* Where the caller's room ends, the sentence ends. */
static void test_why(void **state)
{
    pm_config *config = NULL;
    char why[16];
    (void)state;
    memset(why, 'x', sizeof why);
    assert_err(pm_config_parse(&config, "{}", NULL, why, 8), PM_ECONFIG);
    assert_string_equal(why, "servers");
    assert_int_equal(why[8], 'x');
    assert_err(pm_config_parse(&config, "{}", NULL, why, 0), PM_ECONFIG);
    assert_string_equal(why, "servers");
    assert_err(pm_config_parse(&config, "{}", NULL, NULL, 99), PM_ECONFIG);
    assert_err(pm_config_parse(&config, NULL, NULL, NULL, 0), PM_EINVAL);
    assert_err(pm_config_parse(NULL, "{}", NULL, NULL, 0), PM_EINVAL);
    assert_err(pm_config_load(&config, NULL, NULL, NULL, 0), PM_EINVAL);
    assert_err(pm_config_load(NULL, "config", NULL, NULL, 0), PM_EINVAL);
    assert_null(config);
}

static char *repeat(char c, size_t n, const char *before, const char *after)
{
    size_t b = strlen(before), a = strlen(after);
    char *text = malloc(b + n + a + 1);
    assert_non_null(text);
    memcpy(text, before, b);
    memset(text + b, c, n);
    memcpy(text + b + n, after, a + 1);
    return text;
}

static void check_refused(char *text, const char *part_of_why)
{
    pm_config *config = NULL;
    char why[256];
    assert_err(pm_config_parse(&config, text, NULL, why, sizeof why),
               PM_ECONFIG);
    if (!strstr(why, part_of_why))
        fail_msg("%s", why);
    free(text);
}

static void test_limits(void **state)
{
    pm_config *config;
    char *text;
    (void)state;
    check_refused(repeat(' ', 4 * 1024 * 1024, "{}", ""), "4 MiB at most");
    check_refused(repeat('x', 256, "{\"", "\":[]}"),
                  "expected a type of 1 to 255 bytes, found a longer one");
    check_refused(repeat('x', 250, "{\"", "\":[{\"clusterCount\":1}]}"),
                  "leaves room for ids");
    check_refused(repeat('x', 256, "{\"a\":[{\"id\":\"", "\"}]}"),
                  "a[0].id: expected a text of 1 to 255 bytes");
    text = repeat('x', 255, "{\"a\":[{\"id\":\"", "\"}]}");
    config = parse(text, NULL);
    assert_int_equal(strlen(server_at(config, 0)->id), 255);
    pm_config_free(config);
    free(text);
    check_refused(repeat('[', 33, "{\"a\":", ""), "expected fewer levels");
    /* A thousand copies of 100 KiB. */
    check_refused(
        repeat('x', 100000, "{\"a\":[{\"clusterCount\":1000,\"b\":\"", "\"}]}"),
        "a[0]: expected 64 MiB of texts in all at most, found more");
}

/* ---- Files ------------------------------------------------------------- */

typedef struct folder {
    char dir[64];
    char made[16][128]; /* files and folders, to be removed from the end */
    size_t count;
} folder;

static void folder_open(folder *f)
{
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/pm_config.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
}

static const char *folder_path(folder *f, const char *name)
{
    char path[sizeof f->made[0]];
    assert_true(f->count < PMI_COUNT(f->made));
    snprintf(path, sizeof path, "%.60s/%.60s", f->dir, name);
    memcpy(f->made[f->count], path, sizeof path);
    return f->made[f->count++];
}

static void folder_write(folder *f, const char *name, const char *text)
{
    FILE *file = fopen(folder_path(f, name), "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void folder_close(folder *f)
{
    while (f->count > 0)
        assert_int_equal(remove(f->made[--f->count]), 0);
    assert_int_equal(rmdir(f->dir), 0);
}

/* What is wrong, without the folder's name. */
static const char *load_fails(folder *f, const char *env, pm_err want)
{
    static char why[256];
    pm_config *config = NULL;
    size_t len = strlen(f->dir);
    assert_err(pm_config_load(&config, f->dir, env, why, sizeof why), want);
    assert_null(config);
    assert_memory_equal(why, f->dir, len);
    return why + len;
}

static void test_folder(void **state)
{
    pm_config *config = NULL;
    char why[256];
    folder f;
    (void)state;
    folder_open(&f);
    folder_write(&f, "servers.json",
                 "{\"development\":{\"chat\":[{\"id\":\"dev\"}]},"
                 "\"production\":{\"chat\":[{\"id\":\"prod\"}]}}");
    folder_write(&f, "dictionary.json",
                 "\xef\xbb\xbf[\"onChat\",\n \"onAdd\"]");
    folder_write(&f, "master.json",
                 "{\"development\": {\"id\" : \"m1\"},\"production\":"
                 "{\"id\" : \"m2\"}}");
    folder_write(&f, "adminUser.json", "{\"development\":null,\"a\": 1}");
    folder_write(&f, "unknown.json", "{}");
    assert_int_equal(mkdir(folder_path(&f, "production"), 0700), 0);
    folder_write(&f, "production/serverProtos.json", "{\"onChat\": {}}");
    folder_write(&f, "production/master.json", "{\"id\":\"m3\"}");
    assert_ok(pm_config_load(&config, f.dir, NULL, why, sizeof why));
    assert_string_equal(server_at(config, 0)->id, "dev");
    assert_string_equal(pm_config_file(config, "dictionary.json"),
                        "[\"onChat\",\n \"onAdd\"]");
    assert_string_equal(pm_config_file(config, "master.json"),
                        "{\"id\":\"m1\"}");
    assert_string_equal(pm_config_file(config, "adminUser.json"),
                        "{\"development\":null,\"a\": 1}");
    assert_null(pm_config_file(config, "serverProtos.json"));
    assert_null(pm_config_file(config, "unknown.json"));
    assert_null(pm_config_file(config, "servers.json"));
    assert_null(pm_config_file(config, NULL));
    pm_config_free(config);
    assert_ok(pm_config_load(&config, f.dir, "production", NULL, 0));
    assert_string_equal(server_at(config, 0)->id, "prod");
    assert_string_equal(pm_config_file(config, "serverProtos.json"),
                        "{\"onChat\": {}}");
    /* What lies in DIR comes first. */
    assert_string_equal(pm_config_file(config, "master.json"),
                        "{\"id\":\"m2\"}");
    pm_config_free(config);
    folder_close(&f);
}

static void test_load_env_folder(void **state)
{
    pm_config *config = NULL;
    char want[256], why[256];
    folder f;
    (void)state;
    folder_open(&f);
    assert_int_equal(mkdir(folder_path(&f, "production"), 0700), 0);
    folder_write(&f, "production/servers.json", "{\"chat\":[{\"id\":\"p\"}]}");
    assert_ok(pm_config_load(&config, f.dir, "production", NULL, 0));
    assert_string_equal(server_at(config, 0)->id, "p");
    pm_config_free(config);
    config = NULL;
    assert_err(pm_config_load(&config, f.dir, NULL, why, sizeof why),
               PM_ENOTFOUND);
    snprintf(want, sizeof want,
             "%s/servers.json: expected a file there or in %s/development, "
             "found none",
             f.dir, f.dir);
    assert_string_equal(why, want);
    assert_null(config);
    folder_write(&f, "production/servers.json",
                 "{\n\"chat\":[{\"id\":\"p\",\n\"port\":\"abc\"}]}");
    f.count--; /* it was there before */
    assert_string_equal(
        load_fails(&f, "production", PM_ECONFIG),
        "/production/servers.json:3: chat[0].port: expected a number from 1 "
        "to 65535 or \"N++\", found \"abc\"");
    folder_close(&f);
}

static void test_load_fails(void **state)
{
    char *large = repeat(' ', 4 * 1024 * 1024, "{}", "");
    folder f;
    (void)state;
    folder_open(&f);
    folder_write(&f, "servers.json", "{\"chat\":[{\"id\":\"p\"}]}");
    folder_write(&f, "crons.json", "{\n\n oops}");
    assert_string_equal(
        load_fails(&f, NULL, PM_ECONFIG),
        "/crons.json:3: expected a key in double quotes at column 2");
    folder_write(&f, "crons.json", large);
    f.count--;
    assert_string_equal(
        load_fails(&f, NULL, PM_ECONFIG),
        "/crons.json: expected a file of 4 MiB at most, found a larger one");
    free(large);
    assert_int_equal(remove(f.made[--f.count]), 0);
    assert_int_equal(mkdir(folder_path(&f, "crons.json"), 0700), 0);
    assert_string_equal(load_fails(&f, NULL, PM_ECONFIG),
                        "/crons.json: the file can not be read");
    folder_close(&f);
}

/* ---- Memory ------------------------------------------------------------ */

static void check_memory(test_heap *heap, const char *dir, const char *text)
{
    pmi_env env = test_env(heap);
    pm_config *config = NULL;
    char why[256];
    pm_err err =
        dir ? pmi_config_load(&env, dir, NULL, why, sizeof why, &config)
            : pmi_config_parse(&env, pm_text(text), NULL, why, sizeof why,
                               &config);
    if (err) {
        assert_null(config);
        assert_true(heap->failed && err == PM_ENOMEM);
        assert_string_equal(why, "out of memory");
    } else {
        assert_int_equal(count_of(config), 4);
    }
    pm_config_free(config);
}

static const char four[] =
    "{\"chat\":[{\"clusterCount\":3,\"port\":\"3000++\",\"args\":[\"-x\"]}],"
    "\"gate\":[{\"id\":\"gate-1\",\"host\":\"h\",\"args\":\"-y\"}]}";

static void test_memory(void **state)
{
    test_heap heap = {0};
    folder f;
    (void)state;
    folder_open(&f);
    folder_write(&f, "servers.json", four);
    folder_write(&f, "master.json", "{\"development\":{\"id\":\"m\"}}");
    folder_write(&f, "dictionary.json", "[\"onChat\"]");
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        check_memory(&heap, NULL, four);
    }
    TEST_EACH_FAILURE(&heap)
    {
        check_memory(&heap, f.dir, NULL);
    }
    test_cjson_use(NULL);
    folder_close(&f);
}

/* A mistake that can not be described is a mistake all the same. */
static void test_memory_of_mistakes(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    (void)state;
    test_cjson_use(&heap);
    TEST_EACH_FAILURE(&heap)
    {
        pm_config *config = NULL;
        char why[256];
        pm_err err = pmi_config_parse(&env, pm_text(ENTRY("\"port\":\"abc\"")),
                                      NULL, why, sizeof why, &config);
        assert_true(err == PM_ECONFIG || (err == PM_ENOMEM && heap.failed));
        assert_true(why[0]);
        assert_null(config);
    }
    test_cjson_use(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_all_keys),
    cmocka_unit_test(test_environments),
    cmocka_unit_test(test_cluster_count),
    cmocka_unit_test(test_counted_server_alone),
    cmocka_unit_test(test_mistakes),
    cmocka_unit_test(test_why),
    cmocka_unit_test(test_limits),
    cmocka_unit_test(test_folder),
    cmocka_unit_test(test_load_env_folder),
    cmocka_unit_test(test_load_fails),
    cmocka_unit_test(test_memory),
    cmocka_unit_test(test_memory_of_mistakes),
};

TEST_MAIN(tests)
