/* SPDX-License-Identifier: MIT */
/* chat_app.h -- the chat as a game server: what is registered on every app,
 * whatever hosts it. chat.c is one host; tests and benches are others. */
#ifndef EXAMPLES_CHAT_APP_H
#define EXAMPLES_CHAT_APP_H

#include "pomelo.h"

typedef struct chat_rules {
    bool stable; /* a room moves only when its own chat server goes */
} chat_rules;

/* Heartbeats, the dictionary, and limits that let one user send 250 messages a
 * second. */
pm_app_opts chat_app_opts(void);

/* Registers everything: a pm_configure_cb. `rules` is a chat_rules, borrowed
 * until the app is freed; NULL: all false. */
pm_err chat_configure(pm_app *app, void *rules);

#endif
