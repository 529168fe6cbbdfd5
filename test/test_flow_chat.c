/* SPDX-License-Identifier: MIT */
/* test/test_flow_chat.c -- the chat of examples/chat: its contract, word by
 * word, and what becomes of rooms when servers come and go. Seven servers on
 * one loop without sockets and with a virtual clock. */
#include "chat_talk.h"

#include "examples/chat/chat_app.c"

#define HOUSE_BASE 3000
#define HOUSE_SERVERS 7

static const pm_server house_servers[HOUSE_SERVERS] = {
    {.id = "gate-server-1",
     .type = "gate",
     .client_port = 3014,
     .frontend = true},
    {.id = "connector-server-1",
     .type = "connector",
     .port = 4050,
     .client_port = 3050,
     .frontend = true},
    {.id = "connector-server-2",
     .type = "connector",
     .port = 4051,
     .client_port = 3051,
     .frontend = true},
    {.id = "connector-server-3",
     .type = "connector",
     .port = 4052,
     .client_port = 3052,
     .frontend = true},
    {.id = "chat-server-1", .type = "chat", .port = 6050},
    {.id = "chat-server-2", .type = "chat", .port = 6051},
    {.id = "chat-server-3", .type = "chat", .port = 6052}};

typedef struct house {
    talk talk; /* first: house_wait goes by it */
    test_heap heap;
    test_world world;
    chat_rules rules;
    pm_app *apps[HOUSE_SERVERS];
} house;

static void house_run(house *h, uint64_t ms)
{
    assert_true(test_world_run(&h->world, h->talk.loop, ms * 1000));
}

static void house_wait(talk *t)
{
    house_run((house *)t, 100);
}

static void house_open(house *h, int server)
{
    pm_app_opts opts = chat_app_opts();
    opts.loop = h->talk.loop;
    opts.servers = house_servers;
    opts.servers_count = HOUSE_SERVERS;
    opts.server_id = house_servers[server].id;
    assert_ok(pm_app_new(&h->apps[server], &opts));
    assert_ok(chat_configure(h->apps[server], &h->rules));
    assert_ok(pm_app_start(h->apps[server]));
}

static void house_close(house *h, int server)
{
    pm_app_free(h->apps[server]);
    h->apps[server] = NULL;
}

static void house_start(house *h)
{
    pm_loop_opts opts = test_world_opts(&h->world, &h->heap);
    h->world.seed = 1;
    h->talk.base = HOUSE_BASE;
    h->talk.wait = house_wait;
    assert_ok(pm_loop_new(&h->talk.loop, &opts));
    for (int i = 0; i < HOUSE_SERVERS; i++)
        house_open(h, i);
    house_run(h, 1000);
}

static void house_end(house *h)
{
    for (int i = 0; i < TALKERS; i++)
        pm_client_free(h->talk.talkers[i].client);
    for (int i = 0; i < HOUSE_SERVERS; i++)
        pm_app_free(h->apps[i]);
    assert_ok(pm_loop_free(h->talk.loop));
    assert_heap_empty(&h->heap);
}

/* Which of the apps has the room, by what it knows; -1: nobody. */
static int house_of_room(const house *h, const char *rid)
{
    int found = -1;
    for (int i = 0; i < HOUSE_SERVERS; i++) {
        if (!h->apps[i] || !pm_channel_get(h->apps[i], rid, false))
            continue;
        assert_int_equal(found, -1);
        found = i;
    }
    return found;
}

/* ---- The contract ------------------------------------------------------ */

#define SENT "answer PM_OK {\"route\":\"chat.chatHandler.send\"}\n"
#define NO "answer PM_OK {\"code\":500}\n"
#define TAKEN "answer PM_OK {\"code\":500,\"error\":true}\n"
#define GATE(port)                                                             \
    "connected  \n"                                                            \
    "answer PM_OK {\"code\":200,\"host\":\"127.0.0.1\",\"port\":" port "}\n"   \
    "gone closed by the client \n"                                             \
    "connected  \n"
#define SAID(msg, from, target)                                                \
    "push onChat {\"msg\":" msg ",\"from\":\"" from "\",\"target\":\"" target  \
    "\"}\n"
#define USERS(names) "answer PM_OK {\"users\":[" names "]}\n"
#define CAME(name) "push onAdd {\"user\":\"" name "\"}\n"
#define LEFT(name) "push onLeave {\"user\":\"" name "\"}\n"
#define GONE "gone closed by the client \n"

static void test_each_hears_its_own(void **state)
{
    static const char *const heard[TALKERS] = {
        GATE("3051") USERS("\"ann\"") CAME("bob") CAME("cleo")
            TAKEN SAID("\"tea?\"", "ann", "*")
                SENT SAID("\"\xc3\xa9\xf0\x9f\x8d\xb5"
                          "A\"",
                          "bob", "ann") SAID("{\"a\":[1,null]}", "cleo", "*")
                    SAID("\"no answer\"", "ann", "*") NO LEFT("bob") CAME("bob")
                        SAID("\"again\"", "bob", "*"),
        GATE("3052") USERS("\"ann\",\"bob\"") CAME("cleo")
            SAID("\"tea?\"", "ann", "*")
                SENT SAID("{\"a\":[1,null]}", "cleo", "*")
                    SAID("\"no answer\"", "ann", "*") GONE
        "connected  \n" USERS("\"ann\",\"cleo\",\"bob\"")
            SAID("\"again\"", "bob", "*") SENT,
        GATE("3050") USERS("\"ann\",\"bob\",\"cleo\"")
            SAID("\"tea?\"", "ann", "*") SAID("{\"a\":[1,null]}", "cleo", "*")
                SENT NO NO NO SAID("\"no answer\"", "ann", "*") LEFT("bob")
                    CAME("bob") SAID("\"again\"", "bob", "*"),
        "connected  \n" NO NO NO GONE GATE("3052") USERS("\"dot\"") CAME("ann")
            LEFT("ann") SAID("\"alone\"", "dot", "*") SENT,
        "connected  \n" NO TAKEN GONE "connected  \n" NO TAKEN GONE
        "connected  \n" NO TAKEN GONE
        "connected  \n" NO NO NO USERS("\"dot\",\"ann\"") GONE};
    house h = {0};
    (void)state;
    house_start(&h);
    talk_play(&h.talk);
    for (int i = 0; i < TALKERS; i++)
        assert_string_equal(h.talk.talkers[i].heard, heard[i]);
    house_run(&h, 1000);
    assert_int_equal(h.talk.events, h.talk.wanted);
    assert_int_equal(house_of_room(&h, "tea"), -1); /* all have left */
    assert_int_equal(house_of_room(&h, "milk"), -1);
    house_end(&h);
}

/* A second's worth of 250 messages: all are heard, and answered. */
static void test_one_user_may_send_250_a_second(void **state)
{
    house h = {0};
    talker *ann = &h.talk.talkers[ANN];
    (void)state;
    house_start(&h);
    talk_connect(&h.talk, ANN, TALK_CONNECTOR);
    talk_enter(&h.talk, ANN, "ann", "tea", 0);
    for (int i = 0; i < 750; i++) {
        ann->len = 0;
        assert_ok(pm_client_request(
            ann->client, "chat.chatHandler.send",
            pm_body_text("{\"content\":\"x\",\"target\":\"*\"}"), talk_answered,
            ann));
        house_run(&h, 4);
        h.talk.wanted += 2;
    }
    house_run(&h, 1000);
    assert_int_equal(h.talk.events, h.talk.wanted);
    assert_true(pm_client_is_connected(ann->client));
    house_end(&h);
}

/* ---- Servers come and go ----------------------------------------------- */

static void house_forget(house *h)
{
    for (int i = 0; i < TALKERS; i++) {
        h->talk.talkers[i].len = 0;
        h->talk.talkers[i].heard[0] = 0;
    }
    h->talk.wanted = h->talk.events;
}

/* Ann and bob in one room, by two connectors. */
static void house_start_two(house *h, bool stable)
{
    h->rules.stable = stable;
    house_start(h);
    talk_connect(&h->talk, ANN, TALK_CONNECTOR);
    talk_connect(&h->talk, BOB, TALK_CONNECTOR + 1);
    talk_enter(&h->talk, ANN, "ann", "tea", 0);
    talk_enter(&h->talk, BOB, "bob", "tea", 1);
    house_forget(h);
}

static void house_say(house *h, int who, int others)
{
    talk_send(&h->talk, who, "{\"content\":\"?\",\"target\":\"*\"}", others);
}

/* While it is away requests fail at once; then the room is as it was. */
static void test_chat_server_restarts(void **state)
{
    house h = {0};
    int server;
    (void)state;
    house_start_two(&h, false);
    server = house_of_room(&h, "tea");
    house_close(&h, server);
    house_say(&h, ANN, 0);
    assert_string_equal(h.talk.answer, "{\"code\":500}");
    house_open(&h, server);
    house_run(&h, 3000);
    assert_int_equal(house_of_room(&h, "tea"), server);
    house_forget(&h); /* somebody was the second one to come back */
    house_say(&h, BOB, 2);
    assert_string_equal(h.talk.talkers[ANN].heard, SAID("\"?\"", "bob", "*"));
    assert_string_equal(h.talk.talkers[BOB].heard,
                        SAID("\"?\"", "bob", "*") SENT);
    house_end(&h);
}

/* Its users may come back as soon as it is there, and are in the room once. */
static void test_connector_restarts(void **state)
{
    house h = {0};
    (void)state;
    house_start_two(&h, false);
    house_close(&h, 1);
    house_open(&h, 1);
    house_run(&h, 3000);
    pm_client_free(h.talk.talkers[ANN].client);
    house_forget(&h);
    talk_connect(&h.talk, ANN, TALK_CONNECTOR);
    talk_enter(&h.talk, ANN, "ann", "tea", 0);
    assert_string_equal(h.talk.answer, "{\"users\":[\"ann\",\"bob\"]}");
    house_say(&h, BOB, 2);
    assert_string_equal(h.talk.talkers[BOB].heard,
                        SAID("\"?\"", "bob", "*") SENT);
    house_end(&h);
}

/* Another connector is as good while the first one is away. */
static void test_another_connector_takes_over(void **state)
{
    house h = {0};
    (void)state;
    house_start_two(&h, false);
    house_close(&h, 1);
    house_run(&h, 10);
    pm_client_free(h.talk.talkers[ANN].client);
    house_forget(&h);
    talk_connect(&h.talk, ANN, TALK_CONNECTOR + 2);
    talk_enter(&h.talk, ANN, "ann", "tea", 0);
    assert_string_equal(h.talk.answer, "{\"users\":[\"bob\",\"ann\"]}");
    house_say(&h, ANN, 2);
    house_open(&h, 1);
    house_run(&h, 3000);
    house_say(&h, BOB, 2);
    house_end(&h);
}

/* Who went with a connector, and did not come back with it, has left. */
static void test_who_is_missed_has_left(void **state)
{
    house h = {0};
    (void)state;
    house_start_two(&h, false);
    house_close(&h, 1);
    house_run(&h, 10);
    house_forget(&h);
    house_say(&h, BOB, 1); /* that connector can not be asked: she stays */
    assert_string_equal(h.talk.talkers[BOB].heard,
                        SAID("\"?\"", "bob", "*") SENT);
    house_open(&h, 1);
    house_run(&h, 3000);
    house_forget(&h);
    house_say(&h, BOB, 2);
    assert_string_equal(h.talk.talkers[BOB].heard,
                        SAID("\"?\"", "bob", "*") SENT LEFT("ann"));
    house_end(&h);
}

/* ---- Stable rooms ------------------------------------------------------ */

#define ROOMS 40

/* Who has room `i`, by where its only user's messages arrive. */
static void house_find_rooms(house *h, int out[ROOMS])
{
    for (int i = 0; i < ROOMS; i++) {
        char rid[16];
        snprintf(rid, sizeof rid, "room%d", i);
        out[i] = house_of_room(h, rid);
    }
}

static void house_fill_rooms(house *h, pm_client *clients[ROOMS])
{
    for (int i = 0; i < ROOMS; i++) {
        char rid[16];
        snprintf(rid, sizeof rid, "room%d", i);
        talk_connect(&h->talk, DOT, TALK_CONNECTOR + i % 3);
        talk_enter(&h->talk, DOT, "dot", rid, 0);
        clients[i] = h->talk.talkers[DOT].client;
        h->talk.talkers[DOT].client = NULL;
        house_forget(h);
    }
}

static void house_remove(house *h, int server)
{
    for (int i = 0; i < HOUSE_SERVERS; i++)
        if (i != server)
            assert_ok(pm_server_remove(h->apps[i], house_servers[server].id));
    house_close(h, server);
}

/* A chat server is taken away: only its own rooms move, and work where they are
 * now. */
static void test_stable_rooms_stay(void **state)
{
    static pm_client *clients[ROOMS];
    int before[ROOMS], after[ROOMS], moved = 0;
    house h = {.rules = {.stable = true}};
    (void)state;
    house_start(&h);
    house_fill_rooms(&h, clients);
    house_find_rooms(&h, before);
    house_remove(&h, 5);
    house_run(&h, 100);
    house_find_rooms(&h, after);
    for (int i = 0; i < ROOMS; i++) {
        assert_true(before[i] >= 4 && after[i] >= 4);
        if (before[i] == 5)
            moved++;
        else
            assert_int_equal(after[i], before[i]);
        h.talk.talkers[DOT].client = clients[i];
        house_say(&h, DOT, 1);
        assert_string_equal(h.talk.talkers[DOT].heard,
                            SAID("\"?\"", "dot", "*") SENT);
        house_forget(&h);
    }
    assert_in_range(moved, ROOMS / 8, ROOMS / 2);
    h.talk.talkers[DOT].client = NULL;
    for (int i = 0; i < ROOMS; i++)
        pm_client_free(clients[i]);
    house_end(&h);
}

/* Added at run time: the gate offers it at once. */
static void test_gate_offers_new_connectors(void **state)
{
    static const pm_server more = {.id = "connector-server-4",
                                   .type = "connector",
                                   .port = 4053,
                                   .client_port = 3053,
                                   .frontend = true};
    house h = {0};
    bool offered = false;
    (void)state;
    house_start(&h);
    assert_ok(pm_server_add(h.apps[0], &more));
    for (int i = 0; i < 20 && !offered; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%d", i);
        offered = talk_gate(&h.talk, ANN, name) == 53;
    }
    assert_true(offered);
    house_end(&h);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_each_hears_its_own),
    cmocka_unit_test(test_one_user_may_send_250_a_second),
    cmocka_unit_test(test_chat_server_restarts),
    cmocka_unit_test(test_connector_restarts),
    cmocka_unit_test(test_another_connector_takes_over),
    cmocka_unit_test(test_who_is_missed_has_left),
    cmocka_unit_test(test_stable_rooms_stay),
    cmocka_unit_test(test_gate_offers_new_connectors),
};

TEST_MAIN(tests)
