/* SPDX-License-Identifier: MIT */
/* soak_bots.c -- the people of the soak. Each keeps to his connector and his
 * room, comes back when that was killed, and after a while leaves for good, in
 * the middle of whatever he does; at once another one takes his place. Beside
 * them strangers knock who speak no language at all. */
#include "soak.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PAUSE_MS = 200,     /* between two requests, on average */
    LIFE_MS = 6000,     /* likewise, of one person */
    REQUEST_MS = 4000,  /* a request's deadline */
    SLACK_US = 1000000, /* and our own longest turn: the machine is busy */
    STRANGERS = 4
};

typedef struct bot {
    soak_people *all;
    pm_client *client;
    uint32_t number, said;
    uint64_t next_us, leaves_us;
    bool entered, waits;
} bot;

/* What was asked, until its answer: the bot may have left. */
typedef struct question {
    soak_people *all;
    bot *by; /* NULL: whom the answer concerns no more */
    uint64_t at_us;
    bool echo;
    char body[64];
} question;

typedef struct stranger {
    int fd;
    uint64_t ends_us;
} stranger;

struct soak_people {
    pm_loop *loop;
    uint64_t chance;
    uint64_t turn_us, longest_us; /* the last turn, the longest pause */
    uint16_t base;
    bool leaving, hurry;
    soak_tally tally;
    bot bots[SOAK_BOTS];
    stranger strangers[STRANGERS];
};

static uint64_t people_random(soak_people *p, uint64_t below)
{
    uint64_t z = (p->chance += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % below;
}

/* ---- Asking ---------------------------------------------------------------- */

static bool answer_is(pm_body body, const char *text)
{
    size_t len = strlen(text);
    return body.data.len >= len && !memcmp(body.data.data, text, len);
}

static void question_answered(pm_client *client, pm_err err, pm_body body,
                              void *ctx)
{
    question *q = ctx;
    soak_tally *tally = &q->all->tally;
    uint64_t took = soak_now_us() - q->at_us;
    bool good = err == PM_OK && !answer_is(body, "{\"code\":500");
    tally->told++;
    tally->late +=
        took > (uint64_t)REQUEST_MS * 1000 + SLACK_US + q->all->longest_us;
    tally->lost += err != PM_OK;
    tally->good += good;
    tally->refused += err == PM_OK && !good;
    tally->wrong += good && q->echo && !answer_is(body, q->body);
    if (client && q->by && q->by->client == client) {
        q->by->waits = false;
        if (!q->echo)
            q->by->entered = good;
    }
    free(q);
}

static void bot_ask(bot *b, const char *route, bool echo)
{
    soak_people *p = b->all;
    question *q = calloc(1, sizeof *q);
    if (!q)
        return;
    q->all = p;
    q->by = b;
    q->echo = echo;
    q->at_us = soak_now_us();
    if (echo)
        snprintf(q->body, sizeof q->body, "{\"n\":%u,\"of\":%u}", b->said++,
                 b->number);
    else
        snprintf(q->body, sizeof q->body, "{\"uid\":\"b%u\",\"rid\":\"r%u\"}",
                 b->number, b->number % SOAK_ROOMS);
    if (pm_client_request(b->client, route, pm_body_text(q->body),
                          question_answered, q) != PM_OK) {
        free(q);
        return;
    }
    p->tally.asked++;
    b->waits = true;
}

static void bot_act(bot *b)
{
    static const char *const routes[] = {
        "chat.chatHandler.send", "chat.chatHandler.send",
        "chat.chatHandler.late", "connector.entryHandler.ask"};
    if (!pm_client_is_connected(b->client) || b->waits)
        return;
    if (b->entered)
        bot_ask(b, routes[people_random(b->all, 4)], true);
    else
        bot_ask(b, "connector.entryHandler.enter", false);
}

/* ---- Coming and going -------------------------------------------------------
 */

static void bot_pushed(pm_client *client, const char *route, pm_body body,
                       void *ctx)
{
    (void)client;
    (void)route;
    (void)body;
    ((bot *)ctx)->all->tally.pushes++;
}

static void bot_disconnected(pm_client *client, pm_close_reason why, int code,
                             void *ctx)
{
    bot *b = ctx;
    (void)client;
    (void)why;
    (void)code;
    b->entered = false;
}

static void bot_come(bot *b, uint64_t now)
{
    soak_people *p = b->all;
    pm_client_opts opts = pm_client_opts_default();
    uint32_t connector = b->number % 2;
    opts.loop = p->loop;
    opts.transport = b->number % 4 < 2 ? PM_TRANSPORT_TCP : PM_TRANSPORT_WS;
    opts.port = (uint16_t)(p->base + SOAK_SERVERS + connector);
    opts.reconnect = true;
    opts.request_ms = REQUEST_MS;
    opts.events.pushed = bot_pushed;
    opts.events.disconnected = bot_disconnected;
    opts.ctx = b;
    b->entered = b->waits = false;
    b->leaves_us = now + 1000 * (500 + people_random(p, 2 * LIFE_MS));
    if (pm_client_new(&b->client, &opts) != PM_OK)
        b->client = NULL;
    else
        p->tally.came++;
}

static void bot_leave(bot *b)
{
    pm_client *client = b->client;
    b->client = NULL;
    pm_client_free(client);
}

/* ---- Strangers -------------------------------------------------------------- */

static void stranger_come(soak_people *p, stranger *s, uint64_t now)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint8_t nonsense[64];
    to.sin_port = htons((uint16_t)(p->base + people_random(p, SOAK_PORTS)));
    for (size_t i = 0; i < sizeof nonsense; i++)
        nonsense[i] = (uint8_t)people_random(p, 256);
    nonsense[0] = (uint8_t)people_random(p, 5); /* a package, or a frame */
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    s->ends_us = now + 1000 * people_random(p, 400);
    if (s->fd < 0)
        return;
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        send(s->fd, nonsense, 1 + people_random(p, 64), MSG_NOSIGNAL) > 0)
        p->tally.strangers++;
}

static void stranger_leave(stranger *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* ---- All of them ------------------------------------------------------------ */

soak_people *soak_people_new(pm_loop *loop, uint16_t base, uint64_t seed)
{
    soak_people *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->loop = loop;
    p->base = base;
    p->chance = seed;
    for (uint32_t i = 0; i < SOAK_BOTS; i++) {
        p->bots[i].all = p;
        p->bots[i].number = i;
    }
    for (int i = 0; i < STRANGERS; i++)
        p->strangers[i].fd = -1;
    return p;
}

void soak_people_turn(soak_people *p)
{
    uint64_t now = soak_now_us();
    if (p->turn_us && now - p->turn_us > p->longest_us)
        p->longest_us = now - p->turn_us;
    p->turn_us = now;
    for (uint32_t i = 0; i < SOAK_BOTS && !p->leaving; i++) {
        bot *b = &p->bots[i];
        if (b->client && now >= b->leaves_us)
            bot_leave(b);
        if (!b->client)
            bot_come(b, now);
        if (!b->client || now < b->next_us)
            continue;
        b->next_us =
            now + 1000 * (1 + people_random(p, p->hurry ? 10 : 2 * PAUSE_MS));
        bot_act(b);
    }
    for (int i = 0; i < STRANGERS && !p->leaving; i++) {
        if (now < p->strangers[i].ends_us)
            continue;
        stranger_leave(&p->strangers[i]);
        stranger_come(p, &p->strangers[i], now);
    }
}

void soak_people_hurry(soak_people *p, bool hurry)
{
    p->hurry = hurry;
}

void soak_people_leave(soak_people *p)
{
    p->leaving = true;
    for (uint32_t i = 0; i < SOAK_BOTS; i++)
        bot_leave(&p->bots[i]);
    for (int i = 0; i < STRANGERS; i++)
        stranger_leave(&p->strangers[i]);
}

const soak_tally *soak_people_tally(const soak_people *p)
{
    return &p->tally;
}

void soak_people_free(soak_people *p)
{
    free(p);
}
