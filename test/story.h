/* SPDX-License-Identifier: MIT */
/* test/story.h -- the places in test_flow_free's story where something may be
 * freed, what the story keeps, and how its victims go. */
#ifndef TEST_STORY_H
#define TEST_STORY_H

#include "flow.h"
#include "pomelo_app_internal.h"

#define FREE_POINTS(X)                                                         \
    X(HANDLER)                                                                 \
    X(HANDLER_AFTER_REPLY)                                                     \
    X(BEFORE)                                                                  \
    X(AFTER)                                                                   \
    X(GLOBAL_BEFORE)                                                           \
    X(GLOBAL_AFTER)                                                            \
    X(ERROR_HANDLER)                                                           \
    X(GLOBAL_ERROR_HANDLER)                                                    \
    X(FILTER_FREE)                                                             \
    X(CANCEL)                                                                  \
    X(BIND_DONE)                                                               \
    X(SYNC_DONE)                                                               \
    X(KICK_DONE)                                                               \
    X(OPENED)                                                                  \
    X(BOUND)                                                                   \
    X(UNBOUND)                                                                 \
    X(CLOSED)                                                                  \
    X(DRAINED)                                                                 \
    X(SERVER_DRAINED)                                                          \
    X(ADDED)                                                                   \
    X(REMOVED)                                                                 \
    X(UP)                                                                      \
    X(DOWN)                                                                    \
    X(RPC)                                                                     \
    X(RPC_ALL)                                                                 \
    X(RPC_BEFORE)                                                              \
    X(RPC_AFTER)                                                               \
    X(RPC_ERROR)                                                               \
    X(REMOTE)                                                                  \
    X(ROUTER)                                                                  \
    X(ROUTER_CHOSEN)                                                           \
    X(TIMER)                                                                   \
    X(CRON)                                                                    \
    X(CRON_ADDED)                                                              \
    X(CRON_REMOVED)                                                            \
    X(POSTED)                                                                  \
    X(START)                                                                   \
    X(AFTER_START)                                                             \
    X(AFTER_START_ALL)                                                         \
    X(BEFORE_STOP)                                                             \
    X(STOP)                                                                    \
    X(STOPPED)                                                                 \
    X(CHECK_CLIENT)                                                            \
    X(HANDSHAKE)                                                               \
    X(REFUSE)                                                                  \
    X(EACH_SESSION)                                                            \
    X(EACH_OF_UID)                                                             \
    X(EACH_MEMBER)                                                             \
    X(EACH_STAT)                                                               \
    X(PUSH)                                                                    \
    X(FOUND)                                                                   \
    X(CONNECTED)                                                               \
    X(PUSHED)                                                                  \
    X(KICKED)                                                                  \
    X(ANSWERED)                                                                \
    X(DISCONNECTED)                                                            \
    X(SUSPENDED)                                                               \
    X(RESUMED)                                                                 \
    X(CLIENT_SUSPENDED)                                                        \
    X(CLIENT_RESUMED)

typedef enum free_point {
#define FREE_ENUM(name) AT_##name,
    FREE_POINTS(FREE_ENUM)
#undef FREE_ENUM
        AT_COUNT
} free_point;

static const char *const free_names[] = {
#define FREE_NAME(name) #name,
    FREE_POINTS(FREE_NAME)
#undef FREE_NAME
};

enum { KILL_OWN = 1, KILL_OTHER = 2, KILL_CLIENT = 4 };

#define STORY_HELD_MAX 32

typedef struct story story;

/* What the callbacks of one app have as their ctx. */
typedef struct side {
    story *s;
    pm_app **app;
    bool gone; /* pm_app_free has returned */
} side;

struct story {
    flow f; /* first: a story is a flow */
    side front, back, none;
    free_point point;
    unsigned kill;
    int passed; /* how often the story came by the point */
    int late;   /* callbacks of a freed app */
    int asked, told;
    pm_request *held[STORY_HELD_MAX], *parked[STORY_HELD_MAX];
    pm_call *calls[STORY_HELD_MAX];
    pm_choice *choices[STORY_HELD_MAX];
    size_t held_count, parked_count, calls_count, choices_count;
    pm_handshake *handshake;
};

static void story_kill(side *victim)
{
    pm_app *app = *victim->app;
    if (!app)
        return;
    *victim->app = NULL;
    pm_app_free(app);
    victim->gone = true;
}

/* A place in a callback. */
static void story_by(side *here, free_point point)
{
    story *s = here->s;
    side *own = here == &s->back ? &s->back : &s->front;
    side *other = own == &s->front ? &s->back : &s->front;
    if (point != s->point || s->passed++ > 0)
        return;
    if (s->kill & KILL_OWN)
        story_kill(own);
    if (s->kill & KILL_OTHER)
        story_kill(other);
    if (s->kill & KILL_CLIENT) {
        pm_client *client = s->f.client;
        s->f.client = NULL;
        pm_client_free(client);
    }
}

/* Every callback begins here. */
static void story_at(side *here, free_point point)
{
    if (here->gone)
        here->s->late++;
    story_by(here, point);
}

static bool story_is_alive(const side *here)
{
    return *here->app != NULL;
}

#endif
