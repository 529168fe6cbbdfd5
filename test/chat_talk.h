/* SPDX-License-Identifier: MIT */
/* test/chat_talk.h -- one conversation on the chat of examples/chat, as its
 * clients hear it. The same is played against one loop without sockets, one
 * process and seven processes; what each client heard must be the same text.
 *
 * A step starts something and says how many events (answers, pushes, ends)
 * come of it, all clients together; they are waited for before the next step.
 * Start reading at talk_play(). */
#ifndef TEST_CHAT_TALK_H
#define TEST_CHAT_TALK_H

#include "test.h"

#include <inttypes.h>

#define TALK_HEARD_MAX 8192
#define TALK_GATE 14 /* port, counted from the base; the connectors': */
#define TALK_CONNECTOR 50

typedef struct talk talk;

/* One client, and all that it has heard, a line each. */
typedef struct talker {
    talk *talk;
    pm_client *client;
    char heard[TALK_HEARD_MAX];
    size_t len;
} talker;

enum { ANN, BOB, CLEO, DOT, TWIN, TALKERS };

struct talk {
    pm_loop *loop;
    uint16_t base;
    /* Lets `loop` run until `events` is `wanted`. */
    void (*wait)(talk *t);
    int events, wanted;
    talker talkers[TALKERS];
    char answer[512]; /* the last one, without its newline */
};

/* ---- Hearing ----------------------------------------------------------- */

static inline void talk_hear(talker *who, const char *what, const char *route,
                             pm_slice body)
{
    size_t room = TALK_HEARD_MAX - who->len;
    int n = snprintf(who->heard + who->len, room, "%s %s %.*s\n", what, route,
                     (int)body.len, body.len ? (const char *)body.data : "");
    if (n > 0 && (size_t)n < room)
        who->len += (size_t)n;
    if (++who->talk->events == who->talk->wanted)
        pm_loop_break(who->talk->loop);
}

static inline void talk_connected(pm_client *client, const struct cJSON *user,
                                  void *ctx)
{
    (void)client;
    (void)user;
    talk_hear(ctx, "connected", "", pm_text(""));
}

static inline void talk_pushed(pm_client *client, const char *route,
                               pm_body body, void *ctx)
{
    (void)client;
    talk_hear(ctx, "push", route, body.data);
}

static inline void talk_kicked(pm_client *client, const char *reason, void *ctx)
{
    (void)client;
    talk_hear(ctx, "kicked", reason, pm_text(""));
}

static inline void talk_gone(pm_client *client, pm_close_reason reason,
                             int code, void *ctx)
{
    (void)client;
    (void)code;
    talk_hear(ctx, "gone", pm_close_text(reason), pm_text(""));
}

static inline void talk_answered(pm_client *client, pm_err err, pm_body body,
                                 void *ctx)
{
    talker *who = ctx;
    (void)client;
    snprintf(who->talk->answer, sizeof who->talk->answer, "%.*s",
             (int)body.data.len,
             body.data.len ? (const char *)body.data.data : "");
    talk_hear(who, "answer", pm_err_name(err), body.data);
}

/* ---- Doing ------------------------------------------------------------- */

static inline void talk_wait(talk *t, int events)
{
    t->wanted += events;
    if (t->events < t->wanted)
        t->wait(t);
    assert_int_equal(t->events, t->wanted);
}

static inline void talk_connect(talk *t, int who, int port)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = t->loop;
    opts.port = (uint16_t)(t->base + port);
    opts.events.connected = talk_connected;
    opts.events.pushed = talk_pushed;
    opts.events.kicked = talk_kicked;
    opts.events.disconnected = talk_gone;
    opts.ctx = &t->talkers[who];
    t->talkers[who].talk = t;
    assert_ok(pm_client_new(&t->talkers[who].client, &opts));
    talk_wait(t, 1);
}

/* Leaves, and waits until `others` have heard of it. */
static inline void talk_leave(talk *t, int who, int others)
{
    pm_client_disconnect(t->talkers[who].client);
    talk_wait(t, 1 + others);
    pm_client_free(t->talkers[who].client);
    t->talkers[who].client = NULL;
}

/* Asks, and waits for the answer and `others` events beside it. */
static inline void talk_ask(talk *t, int who, const char *route,
                            const char *body, int others)
{
    assert_ok(pm_client_request(t->talkers[who].client, route,
                                pm_body_text(body), talk_answered,
                                &t->talkers[who]));
    talk_wait(t, 1 + others);
}

/* Which connector, by the gate: its port, counted from the base. */
static inline int talk_gate(talk *t, int who, const char *name)
{
    char body[128];
    const char *port;
    snprintf(body, sizeof body, "{\"uid\":\"%s\"}", name);
    talk_connect(t, who, TALK_GATE);
    talk_ask(t, who, "gate.gateHandler.queryEntry", body, 0);
    talk_leave(t, who, 0);
    port = strstr(t->answer, "\"port\":");
    assert_non_null(port);
    return atoi(port + strlen("\"port\":")) - t->base;
}

static inline void talk_enter(talk *t, int who, const char *name,
                              const char *rid, int others)
{
    char body[256];
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"rid\":\"%s\"}", name,
             rid);
    talk_ask(t, who, "connector.entryHandler.enter", body, others);
}

static inline void talk_send(talk *t, int who, const char *body, int others)
{
    talk_ask(t, who, "chat.chatHandler.send", body, others);
}

/* ---- The conversation -------------------------------------------------- */

static inline void talk_at_the_gate(talk *t)
{
    talk_connect(t, DOT, TALK_GATE);
    talk_ask(t, DOT, "gate.gateHandler.queryEntry", "{}", 0);
    talk_ask(t, DOT, "gate.gateHandler.queryEntry", "{\"uid\":\"\"}", 0);
    talk_ask(t, DOT, "gate.gateHandler.nothing", "{\"uid\":\"dot\"}", 0);
    talk_leave(t, DOT, 0);
}

/* Three in one room by three connectors, one in another room. */
static inline void talk_come_in(talk *t)
{
    static const char *const names[] = {"ann", "bob", "cleo", "dot"};
    int ports[4];
    for (int i = 0; i < 4; i++)
        ports[i] = talk_gate(t, i, names[i]);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(ports[i], ports[(i + 1) % 3]);
    for (int i = 0; i < 4; i++) {
        talk_connect(t, i, ports[i]);
        talk_enter(t, i, names[i], i == DOT ? "milk" : "tea", i == DOT ? 0 : i);
    }
}

static inline void talk_twins(talk *t)
{
    for (int i = 0; i < 3; i++) {
        talk_connect(t, TWIN, TALK_CONNECTOR + i);
        talk_send(t, TWIN, "{\"content\":\"hi\",\"target\":\"*\"}", 0);
        talk_enter(t, TWIN, "ann", "tea", 0); /* whichever connector */
        talk_leave(t, TWIN, 0);
    }
    talk_enter(t, ANN, "ann", "tea", 0); /* twice on one connection */
    talk_connect(t, TWIN, TALK_CONNECTOR);
    talk_enter(t, TWIN, "", "tea", 0);
    talk_enter(t, TWIN, "a*b", "tea", 0);
    talk_enter(t, TWIN, "ann", "", 0);
    talk_enter(t, TWIN, "ann", "milk", 1); /* another room */
    talk_leave(t, TWIN, 1);
}

static inline void talk_speak(talk *t)
{
    talk_send(t, ANN, "{\"content\":\"tea?\",\"from\":\"x\",\"target\":\"*\"}",
              3);
    talk_send(t, BOB,
              "{\"content\":\"\xc3\xa9\xf0\x9f\x8d\xb5\\u0041\","
              "\"target\":\"ann\"}",
              1);
    talk_send(t, CLEO, "{\"content\":{\"a\":[1,null]},\"target\":\"*\"}", 3);
    talk_send(t, CLEO, "{\"content\":\"?\",\"target\":\"dot\"}", 0);
    talk_send(t, CLEO, "{\"content\":\"?\"}", 0);
    talk_send(t, CLEO, "{\"target\":\"*\"}", 0);
    talk_send(t, DOT, "{\"content\":\"alone\",\"target\":\"*\"}", 1);
    assert_ok(pm_client_notify(
        t->talkers[ANN].client, "chat.chatHandler.send",
        pm_body_text("{\"content\":\"no answer\",\"target\":\"*\"}")));
    talk_wait(t, 3);
    talk_ask(t, ANN, "chat.chatRemote.kick", "[\"bob*tea\",\"x\",\"tea\"]", 0);
}

static inline void talk_come_and_go(talk *t)
{
    talk_leave(t, BOB, 2);
    talk_connect(t, BOB, TALK_CONNECTOR + 2);
    talk_enter(t, BOB, "bob", "tea", 2);
    talk_send(t, BOB, "{\"content\":\"again\",\"target\":\"*\"}", 3);
}

static inline void talk_play(talk *t)
{
    talk_at_the_gate(t);
    talk_come_in(t);
    talk_twins(t);
    talk_speak(t);
    talk_come_and_go(t);
    for (int i = 0; i < TALKERS; i++) {
        pm_client_free(t->talkers[i].client);
        t->talkers[i].client = NULL;
    }
}

#endif
