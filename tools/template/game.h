/* SPDX-License-Identifier: MIT */
/* game.h -- the game as main.c and test.c see it. */
#ifndef GAME_H
#define GAME_H

#include <pomelo.h>

/* Heartbeats, the dictionary, protobuf. */
pm_app_opts game_app_opts(void);
/* Registers everything on one server: called for each that this process
 * plays. */
pm_err game_configure(pm_app *app, void *ctx);

#endif
