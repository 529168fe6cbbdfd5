/* SPDX-License-Identifier: MIT */
/* pomelo_cli.h -- what the files of the `pomelo` program share. */
#ifndef TOOLS_POMELO_CLI_H
#define TOOLS_POMELO_CLI_H

#include "pomelo.h"

#include <stdbool.h>
#include <stdio.h>

struct cJSON;

/* What the process exits with. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1, /* it was refused, or it did not work */
    CLI_USAGE = 2,  /* the command line makes no sense */
    CLI_DOWN = 3,   /* there is no master to talk to */
    CLI_AUTH = 4    /* it lets nobody in with this name and password */
};

#define CLI_PATH 4096

typedef struct cli {
    const char *command;
    /* What was given; NULL or 0 when it was not. */
    const char *host, *username, *password, *directory, *env, *type, *id;
    uint16_t port, port_base;
    unsigned interval_s, count;
    bool json, daemon, force, help;
    char **args; /* what is left */
    int args_count;
    /* What the project's files say. */
    pm_config *config;
    struct cJSON *master, *users;
} cli;

typedef struct cli_command {
    const char *name;
    const char *options; /* letters of pomelo_options.c */
    const char *usage;   /* behind the name */
    const char *brief;   /* what it does, in a few words */
    const char *text;    /* the same for its own --help */
    int (*run)(cli *self);
} cli_command;

/* ---- pomelo_options.c ---- */
/* -1: go on; else the status to exit with. */
int cli_options(cli *self, const cli_command *command, int argc, char **argv);
void cli_help(const cli_command *command);
/* "pomelo: text" in red, to stderr. Returns `status`. */
int cli_fail(int status, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- pomelo_project.c ---- */
/* Reads config/ of the project's folder, if it is there, for where the master
 * is and who may enter. Returns false with a message when it is there and
 * broken. */
bool cli_project(cli *self);
void cli_project_close(cli *self);
const char *cli_host(const cli *self);
uint16_t cli_port(const cli *self);
const char *cli_username(const cli *self);
const char *cli_password(const cli *self);
bool cli_is_local(const cli *self);
/* Does something listen there? */
bool cli_port_answers(const char *host, uint16_t port);
void cli_sleep_ms(unsigned ms);

/* ---- pomelo_ask.c ---- */
typedef struct cli_link cli_link;
/* Returns a status; *out is ended by cli_close in any case. */
int cli_open(cli *self, cli_link **out);
void cli_close(cli_link *link); /* NULL is fine */
/* Asks a module and waits. *answer is the caller's to cJSON_Delete; it may be
 * NULL. Tells about errors itself. */
int cli_ask(cli_link *link, const char *module, struct cJSON *body,
            struct cJSON **answer);

/* ---- pomelo_table.c ---- */
bool cli_colour(FILE *to);
typedef struct cli_column {
    const char *key; /* of a row's object */
    const char *title;
    const char *colour; /* of the title, where there are colours */
    bool right;         /* aligned so */
} cli_column;
#define CLI_COLUMNS_MAX 6
/* Compares two `const cJSON *`, as qsort has it. */
typedef int (*cli_order)(const void *a, const void *b);
/* An array of objects; order NULL: as they come. */
void cli_rows(const cli_column *columns, size_t columns_count,
              const struct cJSON *rows, cli_order order, FILE *to);
/* The servers of a `list` answer, by type and id. */
void cli_table(const struct cJSON *servers, FILE *to);
/* The same as JSON text, {"servers":[...]}. */
int cli_table_json(const struct cJSON *servers);
/* Prints a tree as one line of JSON, and frees it. */
int cli_print_json(struct cJSON *tree);

/* ---- The commands ---- */
int cli_init(cli *self);
int cli_start(cli *self);
int cli_list(cli *self);
int cli_stop(cli *self);
int cli_kill(cli *self);
int cli_add(cli *self);
int cli_restart(cli *self);
int cli_monitor(cli *self);
int cli_crons(cli *self);
int cli_add_cron(cli *self);
int cli_remove_cron(cli *self);

/* ---- The embedded template: made by tools/embed.sh ---- */
typedef struct cli_file {
    const char *path;
    const unsigned char *data;
    size_t len;
} cli_file;
extern const cli_file cli_template[];
extern const size_t cli_template_count;

#endif
