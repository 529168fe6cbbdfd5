/* SPDX-License-Identifier: MIT */
/* pomelo.c -- the `pomelo` command: makes projects, starts clusters, and asks
 * their master.
 *
 *   pomelo init Hello && cd Hello && make && pomelo start --daemon
 *   pomelo list
 *   pomelo stop
 *
 * Each command is a function of its own file; this one has their table. The
 * options are the ones of NetEase's `pomelo`, where -h is the host: help is
 * --help. It links the library like any program and uses pomelo.h alone. */
#include "pomelo_cli.h"

#include <string.h>

static const cli_command commands[] = {
    {"init", "fb", "[DIR]", "makes a project",
     "Makes a project: a small game server in C with a gate, connectors, a\n"
     "chat server, a master, their config, and a page. DIR: the working\n"
     "folder. A folder that is not empty is left alone unless --force.",
     cli_init},
    {"start", "edtiDj", "",
     "starts the master and its servers, or some of them alone",
     "Starts the project of the working folder: its binary as the master,\n"
     "which starts every server of config/servers.json. With --type or --id\n"
     "only these servers, without a master (--type master: the master alone).",
     cli_start},
    {"list", "uphPdej", "", "shows every server that runs",
     "Shows every server that runs.", cli_list},
    {"stop", "uphPdej", "[ID...]", "stops all servers, or some",
     "Stops servers: what is in flight ends first. Without ids: all of them,\n"
     "and the master; returns when their processes are gone.",
     cli_stop},
    {"kill", "uphPdejf", "", "ends all servers at once",
     "Ends every server at once, without waiting for what is in flight.",
     cli_kill},
    {"add", "uphPdej", "KEY=VALUE...", "starts a server that is in no file",
     "Starts a server that is in no file:\n"
     "  pomelo add id=chat-2 serverType=chat host=127.0.0.1 port=3451\n"
     "or several: clusterCount=2 host=127.0.0.1 port=3551++ serverType=chat",
     cli_add},
    {"restart", "uphPdejti", "[ID...]", "stops servers and starts them again",
     "Stops servers and starts them again. Without --id, --type or ids: all.",
     cli_restart},
    {"monitor", "uphPdejns", "", "shows the servers again and again",
     "Shows the servers, again and again, until Ctrl-C.", cli_monitor},
    {"crons", "uphPdej", "", "shows every cron and when it runs next",
     "Shows every cron of every server, and when it runs next.", cli_crons},
    {"addCron", "uphPdej", "KEY=VALUE...", "adds a cron until the servers stop",
     "Adds a cron to a server (serverId) or to all of a type (serverType):\n"
     "  pomelo addCron serverType=chat id=8 action=roomCron.sweep \\\n"
     "                 'time=0 0 4 * * *'\n"
     "time: second minute hour day month (0-11) weekday (0-6) [year].",
     cli_add_cron},
    {"removeCron", "uphPdej", "KEY=VALUE...", "removes a cron",
     "Removes a cron from a server (serverId) or from all of a type:\n"
     "  pomelo removeCron serverType=chat id=8",
     cli_remove_cron},
};

#define COMMANDS (sizeof commands / sizeof *commands)

static const cli_command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static void help(void)
{
    puts("usage: pomelo COMMAND [options]\n");
    for (size_t i = 0; i < COMMANDS; i++) {
        printf("  %-11s %s\n", commands[i].name, commands[i].brief);
    }
    puts("\n  pomelo COMMAND --help tells more.\n"
         "  pomelo --version\n\n"
         "Exits with 0 when it is done, 1 when it did not work, 2 when the\n"
         "command line is wrong, 3 when there is no master, 4 when the master\n"
         "does not let us in.");
}

static int run(const cli_command *command, int argc, char **argv)
{
    cli self = {.command = command->name};
    int status = cli_options(&self, command, argc, argv);
    if (status < 0)
        status = command->run(&self);
    cli_project_close(&self);
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    const cli_command *command = find(name);
    if (command)
        return run(command, argc - 1, argv + 1);
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        puts(pm_version());
        return CLI_OK;
    }
    if (!strcmp(name, "help") && argc > 2 && (command = find(argv[2]))) {
        cli_help(command);
        return CLI_OK;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "help")) {
        help();
        return argc > 1 ? CLI_OK : CLI_USAGE;
    }
    return cli_fail(CLI_USAGE, "no command \"%s\": see `pomelo --help`", name);
}
