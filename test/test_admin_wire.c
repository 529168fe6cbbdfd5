/* SPDX-License-Identifier: MIT */
/* test/test_admin_wire.c -- recordings of the real Pomelo's admin protocol, played
 * against our master, our monitor and our console.
 *
 * test/data/admin-wire.json holds 159 packets of a Node cluster: a master, two
 * servers, two foreign processes that joined it, consoles, strangers, the
 * master's crash. Here each is said to our side, or expected from it; what we
 * do otherwise on purpose is named by the number that docs/PROTOCOL.md lists it
 * under. In the end no packet may be left that is neither.
 *
 * Numbers of requests differ, since Node counts all servers together: they are
 * left out where packets are compared, and echoed where they are answered. */
#include "admin_stub.h"
#include "vectors.h"

enum { WIRE_VECTORS = 159, WIRE_LINKS = 6 };
/* The links of the recording: two Node servers, the foreign backend and
 * frontend, a console, a stranger. */
enum { CHAT, CONNECTOR, BACK, FRONT, CONSOLE, OTHER };

typedef struct wire {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pm_app *master, *monitor;
    stub at[WIRE_LINKS];
    size_t read[WIRE_LINKS];  /* how far we have looked into what was heard */
    long last_id[WIRE_LINKS]; /* of the last request heard there */
    int stops;
    char answer[8192];
    pm_err answer_err;
} wire;

/* Which packets are done with: over all tests of this program. */
typedef struct wire_book {
    cJSON *file;
    char *protocol; /* docs/PROTOCOL.md */
    bool done[WIRE_VECTORS];
} wire_book;

static wire_book *book_of(void **state)
{
    return *state;
}

/* ---- The recording ----------------------------------------------------- */

typedef struct golden {
    uint8_t *bytes;
    size_t len;
    pmi_mqtt_packet packet; /* slices lie in bytes */
    cJSON *json;            /* of a PUBLISH, unpacked; NULL: none, or broken */
    bool twice;
} golden;

static golden golden_of(const wire_book *book, int n)
{
    const cJSON *list = vectors_list(book->file, "vectors");
    const cJSON *vector = cJSON_GetArrayItem(list, n);
    pmi_env env = vectors_env();
    golden g = {0};
    cJSON *tree = NULL, *inner = NULL;
    g.bytes = vectors_bytes(vector, "hex", &g.len);
    assert_int_equal(pmi_mqtt_decode(g.bytes, g.len, 1 << 20, &g.packet),
                     g.len);
    if (g.packet.type != PMI_MQTT_PUBLISH ||
        pmi_json_parse(&env, g.packet.payload, 32, &tree, NULL))
        return g;
    g.json = tree;
    if (!cJSON_IsString(tree))
        return g;
    assert_ok(
        pmi_json_parse(&env, pm_text(tree->valuestring), 32, &inner, NULL));
    cJSON_Delete(tree);
    g.json = inner;
    g.twice = true;
    return g;
}

static void golden_free(golden *g)
{
    free(g->bytes);
    cJSON_Delete(g->json);
}

/* We do otherwise, on purpose: docs/PROTOCOL.md says why. */
static void depart(wire_book *book, int n, const char *number)
{
    char mark[16];
    snprintf(mark, sizeof mark, "**%s**", number);
    if (!strstr(book->protocol, mark))
        fail_msg("docs/PROTOCOL.md does not list %s", mark);
    book->done[n] = true;
}

static void depart_all(wire_book *book, const int *list, size_t count,
                       const char *number)
{
    for (size_t i = 0; i < count; i++)
        depart(book, list[i], number);
}

/* ---- Saying and hearing ------------------------------------------------ */

static void wire_run(wire *w, uint64_t ms)
{
    assert_true(test_world_run(&w->world, w->loop, ms * 1000));
}

static void dial(wire *w, int link)
{
    stub_dial(&w->at[link], w->loop, 24305);
    w->read[link] = 0;
}

/* The recorded bytes, in two pieces, as Node writes them. */
static void say(wire *w, wire_book *book, int link, int n)
{
    golden g = golden_of(book, n);
    stub_send(&w->at[link], g.bytes, 1);
    wire_run(w, 1);
    stub_send(&w->at[link], g.bytes + 1, g.len - 1);
    golden_free(&g);
    book->done[n] = true;
    wire_run(w, 10);
}

static void say_tree(wire *w, int link, const char *topic, const cJSON *tree,
                     bool twice)
{
    char *text = vectors_print(tree);
    if (twice)
        stub_publish_twice(&w->at[link], topic, text);
    else
        stub_publish(&w->at[link], topic, text);
    free(text);
    wire_run(w, 10);
}

/* A recorded answer with the number that our side has asked by. */
static void reply(wire *w, wire_book *book, int link, int n)
{
    golden g = golden_of(book, n);
    cJSON_ReplaceItemInObject(g.json, "respId",
                              cJSON_CreateNumber((double)w->last_id[link]));
    say_tree(w, link, "monitor", g.json, g.twice);
    golden_free(&g);
    book->done[n] = true;
}

/* The next packet that was heard on this link; the caller frees *json. */
static void next_heard(wire *w, int link, char topic[64], cJSON **json)
{
    const char *line = w->at[link].heard + w->read[link];
    const char *end = strchr(line, '\n'), *space;
    const cJSON *id;
    pmi_env env = vectors_env();
    *json = NULL;
    if (!end)
        fail_msg("nothing is heard on link %d", link);
    w->read[link] += (size_t)(end - line) + 1;
    space = memchr(line, ' ', (size_t)(end - line));
    snprintf(topic, 64, "%.*s", (int)((space ? space : end) - line), line);
    if (!space)
        return;
    assert_ok(pmi_json_parse(
        &env, pm_bytes(space + 1, (size_t)(end - space) - 1), 32, json, NULL));
    id = pmi_json_get(*json, "reqId");
    if (id)
        w->last_id[link] = (long)id->valuedouble;
}

static bool silent(const wire *w, int link)
{
    return !w->at[link].heard[w->read[link]];
}

static void strip(cJSON *tree, const char *name)
{
    cJSON *item;
    cJSON_DeleteItemFromObjectCaseSensitive(tree, name);
    cJSON_ArrayForEach(item, tree) strip(item, name);
}

static void strip_numbers(cJSON *tree, bool pids)
{
    cJSON_DeleteItemFromObjectCaseSensitive(tree, "reqId");
    cJSON_DeleteItemFromObjectCaseSensitive(tree, "respId");
    if (pids)
        strip(tree, "pid");
}

static void same(const cJSON *got, const cJSON *want, int n)
{
    char *a, *b;
    if (cJSON_Compare(got, want, true))
        return;
    a = vectors_print(got);
    b = vectors_print(want);
    fail_msg("packet %d: %s\nexpected: %s", n, a, b);
}

/* Our side has said just this. */
static void hear_as(wire *w, wire_book *book, int link, int n, bool pids)
{
    golden g = golden_of(book, n);
    char topic[64], want[64];
    cJSON *got;
    next_heard(w, link, topic, &got);
    if (g.packet.type == PMI_MQTT_PUBLISH) {
        snprintf(want, sizeof want, "%.*s", (int)g.packet.topic.len,
                 (const char *)g.packet.topic.data);
        assert_string_equal(topic, want);
        strip_numbers(got, pids);
        strip_numbers(g.json, pids);
        same(got, g.json, n);
    } else {
        assert_string_equal(topic, g.packet.type == PMI_MQTT_CONNACK
                                       ? "CONNACK"
                                       : "DISCONNECT");
    }
    cJSON_Delete(got);
    golden_free(&g);
    book->done[n] = true;
}

static void hear(wire *w, wire_book *book, int link, int n)
{
    hear_as(w, book, link, n, false);
}

/* The same map but for what the master says of itself. */
static void hear_map(wire *w, wire_book *book, int link, int n)
{
    golden g = golden_of(book, n);
    char topic[64];
    cJSON *got, *got_map, *want_map;
    next_heard(w, link, topic, &got);
    got_map = cJSON_GetObjectItem(cJSON_GetObjectItem(got, "body"), "msg");
    want_map = cJSON_GetObjectItem(cJSON_GetObjectItem(g.json, "body"), "msg");
    assert_non_null(cJSON_GetObjectItem(got_map, "master-server-1"));
    cJSON_DeleteItemFromObject(got_map, "master-server-1");
    cJSON_DeleteItemFromObject(want_map, "master-server-1");
    strip_numbers(got, false);
    strip_numbers(g.json, false);
    same(got, g.json, n);
    cJSON_Delete(got);
    golden_free(&g);
    book->done[n] = true;
}

/* Our side says `want` in an answer instead of the recorded one. */
static void hear_other(wire *w, int link, const char *want)
{
    char topic[64], *text;
    cJSON *got;
    next_heard(w, link, topic, &got);
    if (!got) {
        assert_string_equal(topic, want);
        return;
    }
    text = vectors_print(got);
    if (!strstr(text, want))
        fail_msg("%s is not in %s", want, text);
    free(text);
    cJSON_Delete(got);
}

/* ---- Our master -------------------------------------------------------- */

static const pm_admin_token wire_tokens[] = {{"chat", "tok-chat"},
                                             {"connector", "tok-connector"},
                                             {"cchat", "tok-cchat"},
                                             {"cgate", "tok-cgate"}};
static const pm_admin_user wire_users[] = {{"admin", "admin", 1}};

static void wire_stop(pm_app *app, bool at_once, void *ctx)
{
    (void)app;
    (void)at_once;
    ((wire *)ctx)->stops++;
}

static void start_master(wire *w)
{
    static const pm_server servers[] = {
        {.id = "master-server-1", .type = "master", .port = 24305},
        {.id = "connector-server-1",
         .type = "connector",
         .port = 24350,
         .client_port = 24310,
         .frontend = true},
        {.id = "chat-server-1", .type = "chat", .port = 24360}};
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = w->loop;
    opts.servers = servers;
    opts.servers_count = 3;
    opts.server_id = "master-server-1";
    opts.master.tokens = wire_tokens;
    opts.master.tokens_count = PMI_COUNT(wire_tokens);
    opts.master.users = wire_users;
    opts.master.users_count = 1;
    opts.master.stop = wire_stop;
    opts.master.ctx = w;
    assert_ok(pm_app_new(&w->master, &opts));
    assert_ok(pm_app_start(w->master));
    wire_run(w, 10);
}

static void wire_begin(wire *w)
{
    pm_loop_opts opts;
    memset(w, 0, sizeof *w);
    w->world.seed = 1;
    opts = test_world_opts(&w->world, &w->heap);
    assert_ok(pm_loop_new(&w->loop, &opts));
}

static void wire_end(wire *w)
{
    pm_app_free(w->monitor);
    pm_app_free(w->master);
    for (int i = 0; i < WIRE_LINKS; i++)
        if (w->at[i].loop)
            stub_end(&w->at[i]);
    assert_ok(pm_loop_free(w->loop));
    assert_heap_empty(&w->heap);
}

/* Packets 7 to 44: everybody joins, one leaves. */
static void play_joining(wire *w, wire_book *book)
{
    dial(w, CHAT);
    say(w, book, CHAT, 0);
    hear(w, book, CHAT, 1);
    say(w, book, CHAT, 7);
    hear(w, book, CHAT, 3);
    say(w, book, CHAT, 10);
    hear(w, book, CHAT, 11);
    say(w, book, CHAT, 12);
    dial(w, CONNECTOR);
    say(w, book, CONNECTOR, 19);
    hear(w, book, CONNECTOR, 21);
    say(w, book, CONNECTOR, 13);
    hear(w, book, CHAT, 14);
    reply(w, book, CHAT, 9);
    hear(w, book, CONNECTOR, 3);
    say(w, book, CONNECTOR, 15);
    hear(w, book, CONNECTOR, 16);
    say(w, book, CONNECTOR, 17);
    hear(w, book, CHAT, 18);
    hear(w, book, CONNECTOR, 18);
    dial(w, BACK);
    say(w, book, BACK, 19);
    hear(w, book, BACK, 21);
    say(w, book, BACK, 22);
    book->done[20] = true; /* the same, as seen by the sender */
    hear(w, book, BACK, 25);
    hear(w, book, CHAT, 23);
    hear(w, book, CONNECTOR, 23);
    say(w, book, BACK, 26);
    hear(w, book, BACK, 28);
    book->done[24] = book->done[27] = true;
    say(w, book, BACK, 29);
    dial(w, FRONT);
    say(w, book, FRONT, 30);
    hear(w, book, FRONT, 32);
    say(w, book, FRONT, 33);
    book->done[31] = true;
    hear(w, book, FRONT, 35);
    hear(w, book, BACK, 38);
    hear(w, book, CHAT, 34);
    hear(w, book, CONNECTOR, 34);
    reply(w, book, BACK, 39);
    say(w, book, FRONT, 36);
    hear(w, book, FRONT, 41);
    book->done[37] = book->done[40] = true;
    say(w, book, FRONT, 42);
    say(w, book, FRONT, 151); /* DISCONNECT */
    hear(w, book, BACK, 44);
    hear(w, book, CHAT, 43);
    hear(w, book, CONNECTOR, 43);
    assert_true(w->at[FRONT].closed);
}

/* One question of the console that a single server answers. */
static void play_watch(wire *w, wire_book *book, int link, const int n[4])
{
    say(w, book, CONSOLE, n[0]);
    hear(w, book, link, n[1]);
    reply(w, book, link, n[2]);
    hear(w, book, CONSOLE, n[3]);
}

/* Packets 45 to 68: login, list, servers, connections. */
static void play_looking(wire *w, wire_book *book)
{
    cJSON *answer;
    char text[256];
    pmi_env env = vectors_env();
    dial(w, CONSOLE);
    say(w, book, CONSOLE, 45);
    hear(w, book, CONSOLE, 46);
    say(w, book, CONSOLE, 48);
    book->done[47] = true;
    hear(w, book, CONSOLE, 49);
    say(w, book, CONSOLE, 50);
    hear(w, book, BACK, 56);
    hear(w, book, CHAT, 51);
    hear(w, book, CONNECTOR, 51);
    reply(w, book, BACK, 57);
    book->done[55] = true;
    reply(w, book, CHAT, 53);
    reply(w, book, CONNECTOR, 54);
    hear_map(w, book, CONSOLE, 58);
    say(w, book, CONSOLE, 59);
    hear(w, book, BACK, 63);
    hear(w, book, CHAT, 60);
    hear(w, book, CONNECTOR, 60);
    reply(w, book, CHAT, 64);
    reply(w, book, CONNECTOR, 62);
    snprintf(text, sizeof text,
             "{\"respId\":%ld,\"error\":{\"serverId\":\"cchat-1\",\"body\":"
             "{\"serverId\":\"cchat-1\"}}}",
             w->last_id[BACK]);
    assert_ok(pmi_json_parse(&env, pm_text(text), 9, &answer, NULL));
    say_tree(w, BACK, "monitor", answer, true);
    cJSON_Delete(answer);
    hear_other(w, CONSOLE, "\"port\":24350,\"pid\":15539,\"heapUsed\"");
    say(w, book, CONSOLE, 65);
    hear(w, book, CONNECTOR, 66);
    assert_true(silent(w, CHAT) && silent(w, BACK));
    reply(w, book, CONNECTOR, 67);
    hear(w, book, CONSOLE, 68);
}

/* Packets 69 to 118: single servers, errors, words passed on, a refused
 * login. */
static void play_asking(wire *w, wire_book *book)
{
    say(w, book, CONSOLE, 69);
    hear_other(w, CONSOLE,
               "{\"msg\":[\"__masterwatcher__\",\"watchServer\","
               "\"__console__\",");
    depart(book, 70, "D5");
    say(w, book, CONSOLE, 71);
    hear(w, book, CHAT, 73);
    reply(w, book, CHAT, 72);
    hear_other(w, CONSOLE, "\"error\":\"no handler loaded\"");
    depart(book, 74, "D4");
    play_watch(w, book, CONNECTOR, (const int[]){75, 76, 77, 78});
    play_watch(w, book, CHAT, (const int[]){79, 80, 81, 82});
    play_watch(w, book, CHAT, (const int[]){83, 84, 85, 86});
    play_watch(w, book, CONNECTOR, (const int[]){87, 89, 88, 90});
    play_watch(w, book, CHAT, (const int[]){91, 93, 92, 94});
    play_watch(w, book, CHAT, (const int[]){95, 96, 97, 98});
    say(w, book, CONSOLE, 100);
    assert_true(silent(w, CHAT));
    hear_other(w, CONSOLE, "\"error\":\"run is not supported\"");
    depart_all(book, (const int[]){99, 101, 102}, 3, "D3");
    say(w, book, CONSOLE, 103);
    hear_other(w, CONSOLE,
               "{\"respId\":13,\"error\":\"unknown moduleId:nomod\"");
    book->done[104] = true;
    say(w, book, CONSOLE, 105);
    hear(w, book, CONSOLE, 106);
    say(w, book, CONSOLE, 107);
    hear(w, book, CHAT, 108);
    hear(w, book, CONSOLE, 109);
    say(w, book, CONSOLE, 110);
    hear(w, book, CHAT, 111);
    hear(w, book, CONNECTOR, 111);
    hear(w, book, BACK, 112);
    hear_other(w, CONSOLE, "{\"status\":\"ok\"}"); /* Pomelo never answers */
    say(w, book, CONSOLE, 113);
    hear_other(w, CONSOLE, "{\"modules\":[\"watchServer\",");
    depart(book, 114, "D5");
    dial(w, OTHER);
    say(w, book, OTHER, 119);
    hear(w, book, OTHER, 1);
    say(w, book, OTHER, 116);
    book->done[115] = true;
    hear(w, book, OTHER, 117);
    hear(w, book, OTHER, 118);
    stub_end(&w->at[OTHER]);
}

/* Packets 119 to 127: what a stranger tries. */
static void play_stranger(wire *w, wire_book *book)
{
    static const int tries[] = {120, 121, 126, 127};
    for (size_t i = 0; i < PMI_COUNT(tries); i++) {
        dial(w, OTHER);
        say(w, book, OTHER, 119);
        hear(w, book, OTHER, 1);
        say(w, book, OTHER, tries[i]);
        assert_true(w->at[OTHER].closed);
        assert_false(stub_has(&w->at[OTHER], "chat-server-1"));
        stub_end(&w->at[OTHER]);
    }
    assert_true(silent(w, CHAT) && silent(w, CONNECTOR) && silent(w, BACK));
    depart_all(book, (const int[]){122, 123, 124, 125}, 4, "D2");
}

static void say_with_token(wire *w, wire_book *book, int link, int n,
                           const char *token)
{
    golden g = golden_of(book, n);
    cJSON_AddStringToObject(g.json, "token", token);
    say_tree(w, link, "reconnect", g.json, false);
    golden_free(&g);
    depart(book, n, "D2");
}

/* Packets 128 to 146: the master has crashed and is back. */
static void play_coming_back(wire *w, wire_book *book)
{
    pm_app_free(w->master);
    wire_run(w, 10);
    for (int i = 0; i < WIRE_LINKS; i++) {
        if (w->at[i].loop)
            stub_end(&w->at[i]);
    }
    start_master(w);
    dial(w, OTHER); /* as Node says it: without a token */
    say(w, book, OTHER, 19);
    say(w, book, OTHER, 129);
    hear(w, book, OTHER, 1);
    hear_other(w, OTHER, "{\"code\":-1,\"msg\":\"server auth failed\"}");
    depart(book, 128, "D2");
    stub_end(&w->at[OTHER]);
    dial(w, BACK);
    say(w, book, BACK, 19);
    hear(w, book, BACK, 21);
    say_with_token(w, book, BACK, 129, "tok-cchat");
    hear(w, book, BACK, 131);
    hear_as(w, book, BACK, 132, true);
    reply(w, book, BACK, 135);
    depart(book, 134, "D6");
    dial(w, CONNECTOR);
    say(w, book, CONNECTOR, 19);
    hear(w, book, CONNECTOR, 1);
    say_with_token(w, book, CONNECTOR, 136, "tok-connector");
    hear(w, book, CONNECTOR, 139);
    hear_as(w, book, CONNECTOR, 140, true);
    reply(w, book, CONNECTOR, 133);
    hear_as(w, book, BACK, 138, true);
    dial(w, CHAT);
    say(w, book, CHAT, 19);
    hear(w, book, CHAT, 1);
    say_with_token(w, book, CHAT, 142, "tok-chat");
    hear(w, book, CHAT, 139);
    hear_other(w, CHAT, "\"action\":\"replaceServer\"");
    depart(book, 144, "D7"); /* the order of a map, and pids */
    hear_as(w, book, BACK, 146, true);
    hear_as(w, book, CONNECTOR, 143, true);
    depart_all(book, (const int[]){141, 145}, 2, "D6");
}

/* An entry of a recorded list, as its server's answer. */
static void answer_list(wire *w, wire_book *book, int link, const char *id)
{
    golden g = golden_of(book, 147);
    cJSON *map =
        cJSON_GetObjectItem(cJSON_GetObjectItem(g.json, "body"), "msg");
    cJSON *answer = cJSON_CreateObject();
    cJSON *error = cJSON_AddObjectToObject(answer, "error");
    cJSON_AddNumberToObject(answer, "respId", (double)w->last_id[link]);
    cJSON_AddStringToObject(error, "serverId", id);
    cJSON_AddItemToObject(error, "body", cJSON_DetachItemFromObject(map, id));
    say_tree(w, link, "monitor", answer, true);
    cJSON_Delete(answer);
    golden_free(&g);
}

/* Packets 147 to 158: one is stopped, then all. */
static void play_stopping(wire *w, wire_book *book)
{
    dial(w, CONSOLE);
    say(w, book, CONSOLE, 45);
    hear(w, book, CONSOLE, 46);
    say(w, book, CONSOLE, 48);
    hear(w, book, CONSOLE, 49);
    say(w, book, CONSOLE, 50);
    hear(w, book, BACK, 56);
    hear(w, book, CHAT, 51);
    hear(w, book, CONNECTOR, 51);
    answer_list(w, book, BACK, "cchat-1");
    answer_list(w, book, CHAT, "chat-server-1");
    answer_list(w, book, CONNECTOR, "connector-server-1");
    hear_map(w, book, CONSOLE, 147);
    say(w, book, CONSOLE, 148);
    hear(w, book, CHAT, 149);
    hear(w, book, CONSOLE, 150);
    assert_true(silent(w, BACK) && silent(w, CONNECTOR));
    say(w, book, CHAT, 151);
    hear(w, book, CONNECTOR, 152);
    hear(w, book, BACK, 153);
    say(w, book, CONSOLE, 154);
    hear(w, book, BACK, 155);
    hear(w, book, CONNECTOR, 155);
    say(w, book, CONNECTOR, 151);
    hear(w, book, BACK, 156);
    book->done[157] = true; /* the same, to the master's own monitor */
    assert_true(silent(w, CONSOLE));
    say(w, book, BACK, 151);
    wire_run(w, 100);
    hear(w, book, CONSOLE, 158);
    assert_int_equal(w->stops, 1);
}

static void test_master(void **state)
{
    wire_book *book = book_of(state);
    wire w;
    wire_begin(&w);
    start_master(&w);
    play_joining(&w, book);
    play_looking(&w, book);
    play_asking(&w, book);
    play_stranger(&w, book);
    play_coming_back(&w, book);
    play_stopping(&w, book);
    /* The master's own monitor: our master is no server of its own. */
    dial(&w, OTHER);
    say(&w, book, OTHER, 0);
    say(&w, book, OTHER, 2);
    hear(&w, book, OTHER, 1);
    hear_other(&w, OTHER, "server auth failed");
    depart_all(book, (const int[]){2, 4, 5, 6, 8, 52, 61, 130, 137}, 9, "D1");
    wire_end(&w);
}

/* ---- Our monitor ------------------------------------------------------- */

static void start_monitor(wire *w)
{
    static const pm_server self = {
        .id = "cchat-1", .type = "cchat", .port = 24370};
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = w->loop;
    opts.servers = &self;
    opts.servers_count = 1;
    opts.master.port = 24305;
    opts.master.token = "tok-cchat";
    opts.master.stop = wire_stop;
    opts.master.ctx = w;
    assert_ok(pm_app_new(&w->monitor, &opts));
    assert_ok(pm_app_start(w->monitor));
    wire_run(w, 10);
}

/* Every member that Pomelo's has is there; those of plain meaning are equal. */
static void hear_registering(wire *w, wire_book *book, int link, int n)
{
    static const char *const equal[] = {"id", "type", "serverType", "token"};
    static const char *const info[] = {"id", "host", "port", "serverType",
                                       "env"};
    golden g = golden_of(book, n);
    char topic[64];
    cJSON *got;
    const cJSON *member;
    next_heard(w, link, topic, &got);
    assert_int_equal(strncmp(topic, g.packet.topic.data, g.packet.topic.len),
                     0);
    cJSON_ArrayForEach(member, g.json)
        assert_non_null(pmi_json_get(got, member->string));
    for (size_t i = 0; i < PMI_COUNT(equal); i++)
        if (pmi_json_get(g.json, equal[i]))
            same(pmi_json_get(got, equal[i]), pmi_json_get(g.json, equal[i]),
                 n);
    for (size_t i = 0; i < PMI_COUNT(info); i++)
        same(pmi_json_get(pmi_json_get(got, "info"), info[i]),
             pmi_json_get(pmi_json_get(g.json, "info"), info[i]), n);
    cJSON_Delete(got);
    golden_free(&g);
}

/* The number of a request is echoed as it came, and the members of the answer
 * are those of the recorded one. */
static void hear_shape(wire *w, wire_book *book, int link, int n)
{
    golden g = golden_of(book, n);
    char topic[64];
    cJSON *got;
    const cJSON *got_body, *body, *member;
    next_heard(w, link, topic, &got);
    same(pmi_json_get(got, "respId"), pmi_json_get(g.json, "respId"), n);
    body = pmi_json_get(pmi_json_get(g.json, "error"), "body");
    got_body = pmi_json_get(pmi_json_get(got, "error"), "body");
    cJSON_ArrayForEach(member, body)
    {
        const cJSON *ours = pmi_json_get(got_body, member->string);
        if (!ours || (ours->type & 0xff) != (member->type & 0xff))
            fail_msg("packet %d: %s", n, member->string);
    }
    cJSON_Delete(got);
    golden_free(&g);
    book->done[n] = true;
}

/* Says a recorded request of a watchServer, and hears an answer to its number.
 */
static void say_and_hear(wire *w, wire_book *book, int n, const char *want)
{
    golden g = golden_of(book, n);
    char topic[64], *text;
    cJSON *got;
    say(w, book, BACK, n);
    next_heard(w, BACK, topic, &got);
    same(pmi_json_get(got, "respId"), pmi_json_get(g.json, "reqId"), n);
    text = vectors_print(got);
    if (!strstr(text, want))
        fail_msg("packet %d: %s", n, text);
    free(text);
    cJSON_Delete(got);
    golden_free(&g);
}

static void play_monitor_asked(wire *w, wire_book *book)
{
    say(w, book, BACK, 56);
    hear_shape(w, book, BACK, 57);
    say_and_hear(w, book, 63, "\"serverId\":\"cchat-1\"");
    say_and_hear(w, book, 66, "\"totalConnCount\":0,\"loginedCount\":0,");
    say_and_hear(w, book, 73, "handler is not supported");
    say_and_hear(w, book, 76, "proxy is not supported");
    say_and_hear(w, book, 80, "\"body\":{\"proxy\":{},\"remote\":{}");
    say_and_hear(w, book, 84, "\"serverId\":\"cchat-1\"");
    say_and_hear(w, book, 89, "\"body\":{\"heartbeat\":");
    say_and_hear(w, book, 93, "\"body\":\"cchat-1\"");
    say_and_hear(w, book, 96, "set is not supported");
    say_and_hear(w, book, 99, "run is not supported");
    say(w, book, BACK, 112);
    say(w, book, BACK, 108);
    assert_true(silent(w, BACK)); /* words are not answered */
}

static void test_monitor(void **state)
{
    wire_book *book = book_of(state);
    wire w;
    wire_begin(&w);
    stub_listen(&w.at[BACK], w.loop, 24305);
    start_monitor(&w);
    hear_other(&w, BACK, "CONNECT");
    say(&w, book, BACK, 21);
    hear_registering(&w, book, BACK, 22);
    say(&w, book, BACK, 25);
    hear(&w, book, BACK, 26);
    say(&w, book, BACK, 28);
    hear(&w, book, BACK, 29);
    assert_int_equal(pm_server_count(w.monitor, NULL), 3);
    assert_int_equal(pm_server_find(w.monitor, "chat-server-1")->port, 24360);
    assert_true(pm_server_find(w.monitor, "connector-server-1")->frontend);
    say(&w, book, BACK, 38);
    hear_shape(&w, book, BACK, 39);
    assert_int_equal(pm_server_find(w.monitor, "cgate-1")->client_port, 24381);
    say(&w, book, BACK, 44);
    hear_other(&w, BACK, "{\"respId\":17,\"error\":1}");
    assert_null(pm_server_find(w.monitor, "cgate-1"));
    say(&w, book, BACK, 18);
    hear_other(&w, BACK, "{\"respId\":4,\"error\":1}");
    play_monitor_asked(&w, book);
    /* The master crashes and is back, with an empty list. */
    pmi_conn_free(w.at[BACK].conn);
    w.at[BACK].conn = NULL;
    wire_run(&w, 1000);
    hear_other(&w, BACK, "CONNECT");
    say(&w, book, BACK, 21);
    hear_registering(&w, book, BACK, 129);
    say(&w, book, BACK, 131);
    say(&w, book, BACK, 132);
    hear_other(&w, BACK, "{\"respId\":1,\"error\":1}");
    say(&w, book, BACK, 134);
    hear_other(&w, BACK, "{\"respId\":\"1\",\"error\":1}");
    assert_int_equal(pm_server_count(w.monitor, NULL), 3);
    say(&w, book, BACK, 138);
    hear_other(&w, BACK, "{\"respId\":5,\"error\":1}");
    wire_run(&w, 5000);
    assert_int_equal(pm_server_count(w.monitor, NULL), 3);
    say(&w, book, BACK, 155);
    assert_int_equal(w.stops, 1);
    pm_app_free(w.monitor);
    w.monitor = NULL;
    wire_run(&w, 10);
    assert_true(stub_has(&w.at[BACK], "DISCONNECT"));
    wire_end(&w);
}

/* Node refuses us, and hangs up. */
static void test_monitor_refused(void **state)
{
    wire_book *book = book_of(state);
    wire w;
    wire_begin(&w);
    stub_listen(&w.at[BACK], w.loop, 24305);
    start_monitor(&w);
    say(&w, book, BACK, 21);
    say(&w, book, BACK, 117); /* any code -1 */
    assert_false(pm_master_is_up(w.monitor));
    assert_int_equal(w.at[BACK].closed, 1);
    wire_run(&w, 4000); /* it tries again, by registering */
    say(&w, book, BACK, 21);
    assert_false(stub_has(&w.at[BACK], "reconnect"));
    wire_end(&w);
}

/* ---- Our console ------------------------------------------------------- */

static void asked(const pm_admin_result *result, void *ctx)
{
    wire *w = ctx;
    char *text = NULL;
    w->answer_err = result->err;
    if (result->body)
        assert_ok(pm_json_text(result->body, &text));
    snprintf(w->answer, sizeof w->answer, "%s", text ? text : result->detail);
    pm_text_free(text);
}

static void hear_as_console(wire *w, wire_book *book, int n)
{
    golden g = golden_of(book, n);
    char topic[64];
    cJSON *got;
    next_heard(w, CONSOLE, topic, &got);
    assert_int_equal(strncmp(topic, g.packet.topic.data, g.packet.topic.len),
                     0);
    strip(got, "clientId");
    strip(g.json, "clientId");
    if (n == 48) {
        strip(got, "id");
        strip(g.json, "id");
    }
    same(got, g.json, n);
    cJSON_Delete(got);
    golden_free(&g);
}

static void test_console(void **state)
{
    wire_book *book = book_of(state);
    wire w;
    pm_console_opts opts = pm_console_opts_default();
    pm_console *console;
    wire_begin(&w);
    stub_listen(&w.at[CONSOLE], w.loop, 24305);
    opts.loop = w.loop;
    opts.port = 24305;
    assert_ok(pm_console_new(&console, &opts));
    assert_ok(pm_console_request(console, "__console__",
                                 "{\"signal\":\"list\"}", asked, &w));
    wire_run(&w, 10);
    hear_other(&w, CONSOLE, "CONNECT");
    say(&w, book, CONSOLE, 46);
    hear_as_console(&w, book, 48);
    say(&w, book, CONSOLE, 49);
    hear_as_console(&w, book, 50);
    say(&w, book, CONSOLE, 58);
    assert_ok(w.answer_err);
    assert_non_null(strstr(w.answer, "\"rss\":\"79.78\""));
    assert_ok(pm_console_request(
        console, "__console__",
        "{\"signal\":\"stop\",\"ids\":[\"chat-server-1\"]}", asked, &w));
    wire_run(&w, 10);
    hear_as_console(&w, book, 148);
    say(&w, book, CONSOLE, 150);
    assert_string_equal(w.answer, "{\"status\":\"part\"}");
    pm_console_free(console);
    wire_end(&w);
}

/* ---- All of them ------------------------------------------------------- */

static void test_every_packet(void **state)
{
    wire_book *book = book_of(state);
    int left = 0;
    assert_int_equal(cJSON_GetArraySize(vectors_list(book->file, "vectors")),
                     WIRE_VECTORS);
    for (int n = 0; n < WIRE_VECTORS; n++) {
        golden g = golden_of(book, n); /* each can be read */
        golden_free(&g);
        if (book->done[n])
            continue;
        print_error("packet %d is neither played nor departed from\n", n);
        left++;
    }
    assert_int_equal(left, 0);
}

static int open_book(void **state)
{
    wire_book *book = calloc(1, sizeof *book);
    if (!book)
        return -1;
    book->file = vectors_load("admin-wire.json");
    book->protocol = test_load("../../docs/PROTOCOL.md", NULL);
    *state = book;
    return 0;
}

static int close_book(void **state)
{
    wire_book *book = book_of(state);
    cJSON_Delete(book->file);
    free(book->protocol);
    free(book);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_master), cmocka_unit_test(test_monitor),
        cmocka_unit_test(test_monitor_refused), cmocka_unit_test(test_console),
        cmocka_unit_test(test_every_packet)};
    test_deadline(TEST_DEADLINE_S);
    return cmocka_run_group_tests(tests, open_book, close_book);
}
