/* SPDX-License-Identifier: MIT */
/* test_chat_restart.c -- the chat in seven processes, of which one after the
 * other is killed under load and started again: the gate, a connector, a chat
 * server. Every request of users on other connectors is answered, no other
 * process dies, and within 3 s of its start the system is whole. */
#include "ports.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum { SERVERS = 7, USERS = 12, ROOMS = 6, WHOLE_MS = 3000 };

static const char *const restart_ids[SERVERS] = {
    "gate-server-1",      "connector-server-1", "connector-server-2",
    "connector-server-3", "chat-server-1",      "chat-server-2",
    "chat-server-3"};

typedef struct user {
    struct restart *r;
    pm_client *client;
    int connector;    /* 1..3 */
    uint16_t port;    /* where it connects */
    bool waits;       /* for an answer */
    uint64_t next_ms; /* it speaks a hundred times a second */
    bool in;          /* the last answer was 200-like, not a 500 */
    long asked, answered, refused, lost;
    char name[16], room[16];
    const char *wanted; /* counts the pushes that hold it */
    int heard;
    int told_port; /* by the gate */
} user;

typedef struct restart {
    pm_loop *loop;
    uint16_t base;
    pid_t pids[SERVERS];
    user users[USERS];
} restart;

static uint64_t restart_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void restart_spawn(restart *r, int server)
{
    const char *build = getenv("PM_BUILD");
    char program[512], base[16], id[32];
    char *argv[] = {program, "--port-base", base, "--web-port",
                    "0",     "--id",        id,   NULL};
    snprintf(program, sizeof program, "%s/examples/chat/chat",
             build ? build : "build");
    snprintf(base, sizeof base, "%u", (unsigned)r->base);
    snprintf(id, sizeof id, "%s", restart_ids[server]);
    fflush(NULL); /* or the child says it again */
    r->pids[server] = fork();
    assert_true(r->pids[server] >= 0);
    if (r->pids[server])
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!freopen("/dev/null", "w", stdout) ||
        !freopen("/dev/null", "w", stderr))
        _exit(126);
    execv(program, argv);
    _exit(127);
}

static void restart_kill(restart *r, int server)
{
    int status;
    kill(r->pids[server], SIGKILL);
    assert_int_equal(waitpid(r->pids[server], &status, 0), r->pids[server]);
}

/* Nobody but whom we killed has ended. */
static void restart_all_live(const restart *r)
{
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(waitpid(r->pids[i], NULL, WNOHANG), 0);
}

static void restart_turn(restart *r)
{
    struct timespec pause = {0, 200000};
    pm_loop_poll(r->loop, 0);
    nanosleep(&pause, NULL);
}

/* ---- Users ------------------------------------------------------------- */

/* The number behind a word of the body; 0: it is not there. */
static int user_number(pm_body body, const char *word)
{
    char text[256];
    const char *at;
    snprintf(text, sizeof text, "%.*s", (int)body.data.len,
             (const char *)body.data.data);
    at = strstr(text, word);
    return at ? atoi(at + strlen(word)) : 0;
}

static void user_answered(pm_client *client, pm_err err, pm_body body,
                          void *ctx)
{
    user *u = ctx;
    bool bad =
        body.data.len >= 11 && !memcmp(body.data.data, "{\"code\":500", 11);
    (void)client;
    u->waits = false;
    if (err)
        u->lost++;
    else
        u->answered++;
    u->refused += err == PM_OK && bad;
    u->in = err == PM_OK && !bad;
    u->told_port = u->in ? user_number(body, "\"port\":") : 0;
}

static void user_pushed(pm_client *client, const char *route, pm_body body,
                        void *ctx)
{
    user *u = ctx;
    char text[256];
    (void)client;
    snprintf(text, sizeof text, "%.*s", (int)body.data.len,
             (const char *)body.data.data);
    if (u->wanted && !strcmp(route, "onChat") && strstr(text, u->wanted))
        u->heard++;
}

static void user_ask(user *u, const char *route, const char *body)
{
    u->waits = pm_client_request(u->client, route, pm_body_text(body),
                                 user_answered, u) == PM_OK;
    u->asked += u->waits;
}

static void user_enter(user *u)
{
    char body[96];
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"rid\":\"%s\"}", u->name,
             u->room);
    user_ask(u, "connector.entryHandler.enter", body);
}

static void user_connect(user *u)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = u->r->loop;
    opts.host = "127.0.0.1";
    opts.port = u->port;
    opts.reconnect = true;
    opts.request_ms = 5000;
    opts.events.pushed = user_pushed;
    opts.ctx = u;
    assert_ok(pm_client_new(&u->client, &opts));
}

/* Connected, entered and heard by its room; false after WHOLE_MS. */
static bool user_settles(user *u)
{
    uint64_t end = restart_now_ms() + WHOLE_MS;
    bool entered = false;
    u->in = false;
    while (restart_now_ms() < end) {
        restart_turn(u->r);
        if (u->waits || !pm_client_is_connected(u->client))
            continue;
        if (u->in && entered)
            return true;
        if (entered)
            user_ask(u, "chat.chatHandler.send",
                     "{\"content\":\"x\",\"target\":\"*\"}");
        else if (u->in)
            entered = true, u->in = false;
        else
            user_enter(u);
    }
    return false;
}

/* Everybody speaks all the while. */
static void restart_load(restart *r, uint64_t ms, int but)
{
    uint64_t end = restart_now_ms() + ms;
    while (restart_now_ms() < end) {
        for (int i = 0; i < USERS; i++) {
            user *u = &r->users[i];
            if (u->connector == but || u->waits ||
                restart_now_ms() < u->next_ms)
                continue;
            u->next_ms = restart_now_ms() + 10;
            user_ask(u, "chat.chatHandler.send",
                     "{\"content\":\"x\",\"target\":\"*\"}");
        }
        restart_turn(r);
    }
}

/* The gate tells where to go; false after WHOLE_MS. */
static bool user_asks_gate(user *u)
{
    uint64_t end = restart_now_ms() + WHOLE_MS;
    char body[64];
    snprintf(body, sizeof body, "{\"uid\":\"%s*%s\"}", u->name, u->room);
    u->port = (uint16_t)(u->r->base + 14);
    u->told_port = 0;
    user_connect(u);
    while (!u->told_port && restart_now_ms() < end) {
        restart_turn(u->r);
        if (!u->waits && pm_client_is_connected(u->client))
            user_ask(u, "gate.gateHandler.queryEntry", body);
    }
    u->port = (uint16_t)u->told_port;
    pm_client_free(u->client);
    u->client = NULL;
    u->waits = false;
    return u->port != 0;
}

/* By the gate to its connector and into the room. */
static bool user_comes_in(user *u, restart *r, int room)
{
    static int fresh;
    u->r = r;
    snprintf(u->name, sizeof u->name, "new%d", fresh++);
    snprintf(u->room, sizeof u->room, "room%d", room);
    if (!user_asks_gate(u))
        return false;
    user_connect(u);
    return user_settles(u);
}

/* What one says the other hears, and itself, each once. A push that came before
 * the servers had found each other again is not repeated by anybody: then it is
 * said once more, until WHOLE_MS are over. */
static bool restart_they_hear(restart *r, user *one, user *other)
{
    uint64_t end = restart_now_ms() + WHOLE_MS;
    bool both = false;
    for (int n = 0; !both && restart_now_ms() < end; n++) {
        uint64_t soon = restart_now_ms() + 200;
        char word[48], body[96];
        snprintf(word, sizeof word, "hear %s %d?", one->name, n);
        snprintf(body, sizeof body, "{\"content\":\"%s\",\"target\":\"*\"}",
                 word);
        one->wanted = other->wanted = word;
        one->heard = other->heard = 0;
        user_ask(one, "chat.chatHandler.send", body);
        while ((one->waits || !one->heard || !other->heard) &&
               restart_now_ms() < soon)
            restart_turn(r);
        for (int i = 0; i < 20; i++) /* a second copy would come about now */
            restart_turn(r);
        one->wanted = other->wanted = NULL;
        assert_true(one->heard <= 1 && other->heard <= 1);
        both = one->in && one->heard && other->heard;
    }
    return both;
}

/* Two strangers come into each room, rooms of all three chat servers, and hear
 * each other. */
static bool restart_is_whole(restart *r)
{
    bool whole = true;
    for (int i = 0; i < ROOMS && whole; i++) {
        user one = {0}, other = {0};
        whole = user_comes_in(&one, r, i) && user_comes_in(&other, r, i) &&
                restart_they_hear(r, &one, &other);
        pm_client_free(one.client);
        pm_client_free(other.client);
    }
    return whole;
}

/* The rooms meet every chat server. */
static void restart_check_rooms(void)
{
    bool met[3] = {false, false, false};
    char room[16];
    for (int i = 0; i < ROOMS; i++) {
        snprintf(room, sizeof room, "room%d", i);
        met[pm_dispatch(room, 3)] = true;
    }
    assert_true(met[0] && met[1] && met[2]);
}

static void restart_one(restart *r, int server)
{
    int but = server >= 1 && server <= 3 ? server : 0;
    long before = 0, after = 0, lost = 0, refused = 0;
    uint64_t began;
    for (int i = 0; i < USERS; i++)
        before += r->users[i].answered;
    restart_load(r, 300, 0);
    restart_kill(r, server);
    restart_load(r, 500, but);
    restart_spawn(r, server);
    began = restart_now_ms();
    assert_true(restart_is_whole(r));
    printf("%-20s killed: whole %llu ms after its start", restart_ids[server],
           (unsigned long long)(restart_now_ms() - began));
    assert_true(restart_now_ms() - began < WHOLE_MS);
    restart_load(r, 300, but);
    for (int i = 0; i < USERS; i++) {
        user *u = &r->users[i];
        for (int n = 0; u->waits && n < 5000 && u->connector != but; n++)
            restart_turn(r);
        after += u->answered;
        refused += u->refused;
        lost += u->connector == but ? 0 : u->lost;
    }
    printf(", %ld answers, %ld of them 500 so far, %ld lost\n", after - before,
           refused, lost);
    assert_int_equal(lost, 0);
    restart_all_live(r);
    for (int i = 0; i < USERS && but; i++) { /* they come back */
        user *u = &r->users[i];
        if (u->connector != but)
            continue;
        u->lost = 0;
        assert_true(user_settles(u));
    }
}

static void test_restarts_under_load(void **state)
{
    static const int order[] = {0, 1, 4, 5, 6};
    static const int offsets[] = {14,   50,   51,   52,   1050,
                                  1051, 1052, 3050, 3051, 3052};
    static restart r;
    (void)state;
    restart_check_rooms();
    r.base = test_free_base(offsets, sizeof offsets / sizeof *offsets);
    for (int i = 0; i < SERVERS; i++)
        restart_spawn(&r, i);
    assert_ok(pm_loop_new(&r.loop, NULL));
    for (int i = 0; i < USERS; i++) {
        user *u = &r.users[i];
        u->r = &r;
        u->connector = 1 + i % 3;
        u->port = (uint16_t)(r.base + 49 + u->connector);
        snprintf(u->name, sizeof u->name, "user%d", i);
        snprintf(u->room, sizeof u->room, "room%d", i / 2);
        user_connect(u);
    }
    for (int i = 0; i < USERS; i++) {
        assert_true(user_settles(&r.users[i]));
        r.users[i].lost = r.users[i].refused = 0;
    }
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        restart_one(&r, order[i]);
    for (int i = 0; i < USERS; i++)
        pm_client_free(r.users[i].client);
    assert_ok(pm_loop_free(r.loop));
    for (int i = 0; i < SERVERS; i++)
        restart_kill(&r, i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_restarts_under_load),
};

TEST_MAIN(tests)
