/* SPDX-License-Identifier: MIT */
/* main.c -- one process of @NAME@: the master, or any server of the table.
 *
 *   build/@NAME@                       every server in this one process
 *   build/@NAME@ --id chat-server-1    this server only
 *   build/@NAME@ --id master-server-1  the master, which starts all others
 *
 * `pomelo start` runs the last one; `pomelo list` shows what runs. The game
 * itself is game.c; who exists is told by config/servers.json. */
#include "game.h"

int main(int argc, char **argv)
{
    pm_run_opts run = pm_run_opts_default();
    pm_app_opts app = game_app_opts();
    run.config_dir = "config";
    run.app = &app;
    if (pm_run_args(&run, argc, argv))
        return 2;
    return pm_run(&run, game_configure, NULL) == PM_OK ? 0 : 1;
}
