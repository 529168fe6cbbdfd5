/* SPDX-License-Identifier: MIT */
/* bots.c -- users for the chat of examples/chat, as many as you like, who count
 * what they hear.
 *
 * How to run:   start build/examples/chat/chat, then build/examples/bots/bots
 *               (--help tells the options).
 * What you see: a line of figures every second, a table at the end. The status
 *               is 0 only when everybody heard everything exactly once: each
 *               message of the room, each one who came in, each one who left.
 *
 * All bots live on one loop, on an event_base of our own. A run has four
 * phases, and bots_tick() leads from one to the next:
 *
 *     ENTER   by the gate to a connector and into a room, some at a time
 *     TALK    `rate` messages a second each, numbered
 *     SETTLE  until everything that was said has been heard
 *     LEAVE   one after the other in each room, so that it is known who still
 *             has to hear of it
 *
 * Start reading at bots_tick() and bot_pushed(). */
#include "pomelo.h"

#include <cjson/cJSON.h>
#include <event2/event.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 10,
    ENTERING_MAX = 32,   /* logins at a time */
    PATIENCE_MS = 10000, /* so long without any news: given up */
    LATENCY_STEP_US = 100,
    LATENCY_STEPS = 10000
};

typedef enum phase { ENTER, TALK, SETTLE, LEAVE, DONE } phase;

/* What one bot knows of another member of its room. */
typedef struct other {
    uint32_t heard; /* number of the last message */
    uint32_t came, left;
} other;

typedef struct bot {
    struct bots *all;
    uint32_t index;
    pm_client *client; /* to the gate, then to a connector */
    bool at_gate, in, gone;
    char host[64]; /* of the connector */
    uint16_t port;
    uint32_t sent;
    other *others; /* by their seat in the room */
} bot;

typedef struct room {
    uint32_t size;    /* bots whose room it is */
    uint32_t left;    /* of these, on their way out or gone */
    uint32_t to_hear; /* how many still have to hear of the last one */
} room;

typedef struct bots {
    const char *host;
    uint32_t users, rooms, rate, seconds;
    uint16_t gate_port;
    struct event_base *base;
    pm_loop *loop;
    bot *list;
    room *room;
    phase phase;
    uint64_t began_us, talk_us, line_us, news_us;
    uint32_t begun, in, gone; /* logins begun and done; bots that left */
    uint64_t sent, answered, said_to; /* ... and to how many, all together */
    uint64_t heard, twice, lost;
    uint64_t came, left, left_to; /* onAdd, onLeave; and how many must come */
    uint64_t refused, trouble;
    uint64_t line_sent, line_heard;
    uint32_t latency[LATENCY_STEPS];
} bots;

/* ---- Small helpers ------------------------------------------------------- */

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static room *bot_room(const bot *self)
{
    return &self->all->room[self->index % self->all->rooms];
}

static const char *tree_text(const cJSON *tree, const char *name)
{
    const char *text =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, name));
    return text ? text : "";
}

/* What a bot knows of the member of that name; NULL: nobody of this room. */
static other *bot_other(const bot *self, const char *name)
{
    const bots *all = self->all;
    unsigned long index;
    char *end;
    if (strncmp(name, "bot", 3) != 0)
        return NULL;
    index = strtoul(name + 3, &end, 10);
    if (end == name + 3 || *end || index >= all->users ||
        index % all->rooms != self->index % all->rooms)
        return NULL;
    return &self->others[index / all->rooms];
}

static void bot_trouble(bot *self, const char *what, const char *why)
{
    if (self->all->trouble++ < 10)
        printf("bot%" PRIu32 ": %s: %s\n", self->index, what, why);
}

/* ---- Hearing ------------------------------------------------------------- */

/* The text of a message is its number and when it was sent. */
static void bot_heard_chat(bot *self, const cJSON *tree)
{
    bots *all = self->all;
    other *from = bot_other(self, tree_text(tree, "from"));
    const char *text = tree_text(tree, "msg");
    char *rest;
    uint32_t number = (uint32_t)strtoul(text, &rest, 10);
    uint64_t took = now_us() - strtoull(rest, NULL, 10);
    if (!from) {
        bot_trouble(self, "heard a stranger", tree_text(tree, "from"));
        return;
    }
    if (number <= from->heard) {
        all->twice++;
        return;
    }
    all->lost += number - from->heard - 1;
    all->heard++;
    from->heard = number;
    took /= LATENCY_STEP_US;
    all->latency[took < LATENCY_STEPS ? took : LATENCY_STEPS - 1]++;
}

static void bot_heard_came(bot *self, const char *name)
{
    other *who = bot_other(self, name);
    if (who) {
        who->came++;
        self->all->came++;
    }
}

static void bot_heard_left(bot *self, const char *name)
{
    other *who = bot_other(self, name);
    if (who) {
        who->left++;
        self->all->left++;
        bot_room(self)->to_hear--;
    }
}

static void bot_pushed(pm_client *client, const char *route, pm_body body,
                       void *ctx)
{
    bot *self = ctx;
    cJSON *tree;
    (void)client;
    self->all->news_us = now_us();
    if (pm_json_tree(body.data, &tree)) {
        bot_trouble(self, "can not be read", route);
        return;
    }
    if (!strcmp(route, "onChat"))
        bot_heard_chat(self, tree);
    else if (!strcmp(route, "onAdd"))
        bot_heard_came(self, tree_text(tree, "user"));
    else if (!strcmp(route, "onLeave"))
        bot_heard_left(self, tree_text(tree, "user"));
    cJSON_Delete(tree);
}

/* ---- Coming in ----------------------------------------------------------- */

static void bot_connect(bot *self, const char *host, uint16_t port);

static void bot_request(bot *self, const char *route, const char *json,
                        pm_client_cb cb)
{
    pm_err err =
        pm_client_request(self->client, route, pm_body_text(json), cb, self);
    if (err)
        bot_trouble(self, route, pm_strerror(err));
}

/* Everybody in the list has come, the bot itself too. */
static void bot_entered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    bot *self = ctx;
    cJSON *tree = NULL, *user;
    (void)client;
    self->all->news_us = now_us();
    if (err == PM_OK)
        err = pm_json_tree(body.data, &tree);
    if (err || !cJSON_GetObjectItem(tree, "users"))
        bot_trouble(self, "not let in",
                    err ? pm_strerror(err) : "the name is taken");
    else
        self->in = true;
    cJSON_ArrayForEach(user, cJSON_GetObjectItem(tree, "users"))
    {
        bot_heard_came(self, cJSON_GetStringValue(user));
    }
    self->all->in++;
    cJSON_Delete(tree);
}

static void bot_enter(bot *self)
{
    char json[96];
    snprintf(json, sizeof json,
             "{\"username\":\"bot%" PRIu32 "\",\"rid\":\"room%" PRIu32 "\"}",
             self->index, self->index % self->all->rooms);
    bot_request(self, "connector.entryHandler.enter", json, bot_entered);
}

/* The gate has told where to go. */
static void bot_shown(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    bot *self = ctx;
    cJSON *tree = NULL;
    const cJSON *port;
    (void)client;
    if (err == PM_OK)
        err = pm_json_tree(body.data, &tree);
    port = cJSON_GetObjectItem(tree, "port");
    if (cJSON_IsNumber(port)) {
        snprintf(self->host, sizeof self->host, "%s", tree_text(tree, "host"));
        self->port = (uint16_t)port->valueint;
        pm_client_disconnect(self->client);
    } else {
        bot_trouble(self, "the gate shows no way",
                    err ? pm_strerror(err) : "no connectors");
    }
    cJSON_Delete(tree);
}

static void bot_connected(pm_client *client, const struct cJSON *user,
                          void *ctx)
{
    bot *self = ctx;
    char json[32];
    (void)client;
    (void)user;
    if (!self->at_gate) {
        bot_enter(self);
        return;
    }
    snprintf(json, sizeof json, "{\"uid\":\"bot%" PRIu32 "\"}", self->index);
    bot_request(self, "gate.gateHandler.queryEntry", json, bot_shown);
}

static void bot_disconnected(pm_client *client, pm_close_reason reason,
                             int code, void *ctx)
{
    bot *self = ctx;
    (void)code;
    self->all->news_us = now_us();
    self->client = NULL;
    pm_client_free(client);
    if (self->at_gate && self->port) {
        self->at_gate = false;
        bot_connect(self, self->host, self->port);
    } else if (!self->gone) {
        bot_trouble(self, "disconnected", pm_close_text(reason));
    }
}

static void bot_connect(bot *self, const char *host, uint16_t port)
{
    pm_client_opts opts = pm_client_opts_default();
    pm_err err;
    opts.loop = self->all->loop;
    opts.host = host;
    opts.port = port;
    opts.events.connected = bot_connected;
    opts.events.pushed = bot_pushed;
    opts.events.disconnected = bot_disconnected;
    opts.ctx = self;
    err = pm_client_new(&self->client, &opts);
    if (err)
        bot_trouble(self, "no connection", pm_strerror(err));
}

static bool bots_enter(bots *all)
{
    while (all->begun < all->users && all->begun - all->in < ENTERING_MAX) {
        bot *next = &all->list[all->begun++];
        next->at_gate = true;
        bot_connect(next, all->host, all->gate_port);
    }
    return all->in == all->users;
}

/* ---- Talking ------------------------------------------------------------- */

static void bot_answered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    static const char good[] = "{\"route\":\"chat.chatHandler.send\"}";
    bots *all = ((bot *)ctx)->all;
    (void)client;
    all->news_us = now_us();
    all->answered++;
    if (err || body.data.len != sizeof good - 1 ||
        memcmp(body.data.data, good, sizeof good - 1) != 0)
        all->refused++;
}

static void bot_say(bot *self)
{
    char json[96];
    snprintf(json, sizeof json,
             "{\"content\":\"%" PRIu32 " %" PRIu64 "\",\"target\":\"*\"}",
             ++self->sent, now_us());
    bot_request(self, "chat.chatHandler.send", json, bot_answered);
    self->all->sent++;
    self->all->said_to += bot_room(self)->size;
}

/* Bots do not speak all at once: each begins a bit later than the last one. */
static bool bots_talk(bots *all)
{
    uint64_t passed = now_us() - all->talk_us;
    uint64_t end = (uint64_t)all->seconds * 1000000;
    for (uint32_t i = 0; i < all->users; i++) {
        bot *self = &all->list[i];
        uint64_t late = (uint64_t)i * 1000000 / all->rate / all->users;
        uint64_t at = passed < end ? passed : end;
        uint64_t due = at > late ? (at - late) * all->rate / 1000000 : 0;
        while (self->client && self->in && self->sent < due)
            bot_say(self);
    }
    return passed >= end;
}

static bool bots_settled(const bots *all)
{
    return all->answered >= all->sent && all->heard >= all->said_to;
}

/* ---- Leaving ------------------------------------------------------------- */

/* The next one of each room in which all have heard of the one before. */
static bool bots_leave(bots *all)
{
    for (uint32_t r = 0; r < all->rooms; r++) {
        room *here = &all->room[r];
        bot *next;
        if (here->to_hear || here->left == here->size)
            continue;
        next = &all->list[r + here->left++ * all->rooms];
        here->to_hear = here->size - here->left;
        all->left_to += here->to_hear;
        next->gone = true;
        all->gone++;
        if (next->client)
            pm_client_disconnect(next->client);
    }
    return all->gone == all->users && all->left >= all->left_to;
}

/* ---- Figures ------------------------------------------------------------- */

/* Milliseconds that so many of a thousand messages took at most. */
static double bots_latency(const bots *all, uint64_t of_1000)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < LATENCY_STEPS; i++) {
        seen += all->latency[i];
        if (seen && seen * 1000 >= all->heard * of_1000)
            return (i + 1) * (LATENCY_STEP_US / 1000.0);
    }
    return 0;
}

static void bots_line(bots *all, uint64_t now)
{
    static const char *const names[] = {"enter", "talk", "settle", "leave",
                                        "done"};
    double s = (double)(now - all->line_us) / 1e6;
    printf("%s%4.0f s  %-6s  %" PRIu32 " in  %.0f sent/s  %.0f heard/s  "
           "%" PRIu64 " missing  p99 %.1f ms%s",
           isatty(STDOUT_FILENO) ? "\r\033[K" : "",
           (double)(now - all->began_us) / 1e6, names[all->phase],
           all->in - all->gone, (double)(all->sent - all->line_sent) / s,
           (double)(all->heard - all->line_heard) / s,
           all->said_to - all->heard, bots_latency(all, 990),
           isatty(STDOUT_FILENO) ? "" : "\n");
    fflush(stdout);
    all->line_us = now;
    all->line_sent = all->sent;
    all->line_heard = all->heard;
}

/* Each bot has to meet everybody once, itself too; and hears once of all who
 * leave before itself. */
static uint64_t bots_count_strange(const bots *all)
{
    uint64_t strange = 0;
    for (uint32_t i = 0; i < all->users; i++)
        for (uint32_t seat = 0; seat < bot_room(&all->list[i])->size; seat++) {
            const other *who = &all->list[i].others[seat];
            uint32_t leaves = seat < i / all->rooms;
            strange += who->came != 1 || who->left != leaves;
        }
    return strange;
}

static bool bots_report(const bots *all)
{
    uint64_t strange = bots_count_strange(all);
    bool good = all->heard == all->said_to && all->answered == all->sent &&
                !all->lost && !all->twice && !all->refused && !all->trouble &&
                !strange;
    printf("\n  users, rooms        %8" PRIu32 " %8" PRIu32 "\n", all->users,
           all->rooms);
    printf("  messages, answered  %8" PRIu64 " %8" PRIu64 "\n", all->sent,
           all->answered);
    printf("  to hear, heard      %8" PRIu64 " %8" PRIu64 "\n", all->said_to,
           all->heard);
    printf("  skipped, twice      %8" PRIu64 " %8" PRIu64 "\n", all->lost,
           all->twice);
    printf("  came, left          %8" PRIu64 " %8" PRIu64 "\n", all->came,
           all->left);
    printf("  refused, trouble    %8" PRIu64 " %8" PRIu64 "\n", all->refused,
           all->trouble + strange);
    printf("  ms p50, p99         %8.1f %8.1f\n", bots_latency(all, 500),
           bots_latency(all, 990));
    puts(good ? "everybody heard everything, once" : "that is NOT right");
    return good;
}

/* ---- From phase to phase ------------------------------------------------- */

static bool bots_phase_is_over(bots *all)
{
    switch (all->phase) {
    case ENTER:
        return bots_enter(all);
    case TALK:
        return bots_talk(all);
    case SETTLE:
        return bots_settled(all);
    case LEAVE:
        return bots_leave(all);
    case DONE:
        break;
    }
    return false;
}

static void bots_tick(evutil_socket_t fd, short what, void *ctx)
{
    bots *all = ctx;
    uint64_t now = now_us();
    (void)fd;
    (void)what;
    if (bots_phase_is_over(all)) {
        /* Who has not come in would only spoil the rest. */
        all->phase =
            all->phase == ENTER && all->trouble ? DONE : all->phase + 1;
        all->news_us = all->talk_us = now;
    }
    if (now - all->line_us >= 1000000)
        bots_line(all, now);
    if (all->phase != TALK && now - all->news_us > PATIENCE_MS * 1000) {
        printf("\nno news for %d s: given up", PATIENCE_MS / 1000);
        all->trouble++;
        all->phase = DONE;
    }
    if (all->phase == DONE)
        event_base_loopbreak(all->base);
}

static bool bots_run(bots *all)
{
    static const struct timeval tick = {0, TICK_MS * 1000};
    struct event *timer = event_new(all->base, -1, EV_PERSIST, bots_tick, all);
    bool good = timer && event_add(timer, &tick) == 0;
    all->began_us = all->line_us = all->news_us = now_us();
    if (good)
        event_base_dispatch(all->base);
    for (uint32_t i = 0; i < all->users; i++)
        pm_client_free(all->list[i].client);
    if (timer)
        event_free(timer);
    return good && bots_report(all);
}

/* ---- Making and ending --------------------------------------------------- */

static bool bots_seat(bots *all)
{
    uint32_t seats = (all->users + all->rooms - 1) / all->rooms;
    all->list = calloc(all->users, sizeof *all->list);
    all->room = calloc(all->rooms, sizeof *all->room);
    if (!all->list || !all->room)
        return false;
    for (uint32_t i = 0; i < all->users; i++) {
        all->list[i].all = all;
        all->list[i].index = i;
        all->list[i].others = calloc(seats, sizeof(other));
        if (!all->list[i].others)
            return false;
        bot_room(&all->list[i])->size++;
    }
    return true;
}

static bool bots_open(bots *all)
{
    pm_loop_opts opts = pm_loop_opts_default();
    all->base = event_base_new();
    opts.base = all->base;
    return all->base && pm_loop_new(&all->loop, &opts) == PM_OK &&
           bots_seat(all);
}

static void bots_close(bots *all)
{
    for (uint32_t i = 0; all->list && i < all->users; i++)
        free(all->list[i].others);
    free(all->list);
    free(all->room);
    pm_loop_free(all->loop);
    if (all->base)
        event_base_free(all->base);
    free(all);
}

/* ---- Options ------------------------------------------------------------- */

static void bots_help(void)
{
    puts("usage: bots [options]\n"
         "  --users N        how many (50)\n"
         "  --rooms N        they are spread over (5)\n"
         "  --rate N         messages a second of each (5)\n"
         "  --seconds N      they talk (10)\n"
         "  --gate-port N    where they ask for a connector (3014)\n"
         "  --host ADDRESS   of the gate (127.0.0.1)\n"
         "  --help           this text");
}

static bool bots_number(long min, long max, uint32_t *out)
{
    char *end;
    long number = strtol(optarg, &end, 10);
    if (end == optarg || *end || number < min || number > max) {
        fprintf(stderr, "bots: \"%s\" is no number from %ld to %ld\n", optarg,
                min, max);
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

static bool bots_option(bots *all, int option)
{
    uint32_t port;
    switch (option) {
    case 'u':
        return bots_number(1, 20000, &all->users);
    case 'r':
        return bots_number(1, 20000, &all->rooms);
    case 'm':
        return bots_number(1, 250, &all->rate);
    case 's':
        return bots_number(0, 1000000, &all->seconds);
    case 'a':
        all->host = optarg;
        return true;
    case 'g':
        if (!bots_number(1, 65535, &port))
            return false;
        all->gate_port = (uint16_t)port;
        return true;
    default:
        return false;
    }
}

/* -1: go on; else the status to exit with. */
static int bots_options(bots *all, int argc, char **argv)
{
    static const struct option options[] = {
        {"users", required_argument, NULL, 'u'},
        {"rooms", required_argument, NULL, 'r'},
        {"rate", required_argument, NULL, 'm'},
        {"seconds", required_argument, NULL, 's'},
        {"gate-port", required_argument, NULL, 'g'},
        {"host", required_argument, NULL, 'a'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            bots_help();
            return 0;
        }
        if (!bots_option(all, option))
            return 2;
    }
    if (all->rooms > all->users)
        all->rooms = all->users;
    return optind == argc ? -1 : 2;
}

int main(int argc, char **argv)
{
    bots *all = calloc(1, sizeof *all);
    int status;
    if (!all)
        return 1;
    all->host = "127.0.0.1";
    all->gate_port = 3014;
    all->users = 50;
    all->rooms = 5;
    all->rate = 5;
    all->seconds = 10;
    status = bots_options(all, argc, argv);
    if (status < 0)
        status = bots_open(all) && bots_run(all) ? 0 : 1;
    bots_close(all);
    return status;
}
