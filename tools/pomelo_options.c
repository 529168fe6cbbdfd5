/* SPDX-License-Identifier: MIT */
/* pomelo_options.c -- the options of all commands, in one table. A command
 * names the letters that it takes. */
#include "pomelo_cli.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MARK_HELP 1000

static const struct known {
    char letter; /* what commands name it by, and the short option */
    const char *name, *value, *text;
} known[] = {
    {'u', "username", "NAME", "who we are (adminUser.json's first, or admin)"},
    {'p', "password", "TEXT", "and our password (the one of that file)"},
    {'h', "host", "ADDRESS", "where the master is (master.json, 127.0.0.1)"},
    {'P', "port", "N", "and its port (master.json, or 3005)"},
    {'d', "directory", "DIR", "the project's folder (the working one)"},
    {'e', "env", "NAME", "the environment (development)"},
    {'t', "type", "TYPE", "servers of this type"},
    {'i', "id", "ID", "this server"},
    {'D', "daemon", NULL, "in the background; what they say goes to logs/"},
    {'f', "force", NULL,
     "although the folder is not empty; kill: no difference"},
    {'b', "port-base", "N", "moves the project's ports from 3000 to N"},
    {'n', "count", "N", "ends after so many looks"},
    {'s', "interval", "SECONDS", "between two looks (2)"},
    {'j', "json", NULL, "answers as JSON"},
};
#define KNOWN (sizeof known / sizeof *known)

int cli_fail(int status, const char *fmt, ...)
{
    bool colour = cli_colour(stderr);
    va_list args;
    va_start(args, fmt);
    fputs(colour ? "\033[31mpomelo: " : "pomelo: ", stderr);
    vfprintf(stderr, fmt, args);
    fputs(colour ? "\033[0m\n" : "\n", stderr);
    va_end(args);
    return status;
}

void cli_help(const cli_command *command)
{
    printf("usage: pomelo %s [options]%s%s\n\n%s\n\n", command->name,
           *command->usage ? " " : "", command->usage, command->text);
    for (size_t i = 0; i < KNOWN; i++) {
        char name[40];
        if (!strchr(command->options, known[i].letter))
            continue;
        snprintf(name, sizeof name, "--%s %s", known[i].name,
                 known[i].value ? known[i].value : "");
        printf("  -%c, %-20s %s\n", known[i].letter, name, known[i].text);
    }
    puts("      --help               this text");
}

static bool number(const char *text, unsigned long max, unsigned long *out)
{
    char *end;
    *out = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && *out >= 1 && *out <= max;
}

static bool take_number(cli *self, int letter, const char *text)
{
    unsigned long max = letter == 'b' ? 60000 : letter == 'P' ? 65535 : 1000000;
    unsigned long value;
    if (!number(text, max, &value)) {
        cli_fail(0, "\"%s\" is no number from 1 to %lu", text, max);
        return false;
    }
    if (letter == 'P')
        self->port = (uint16_t)value;
    else if (letter == 'b')
        self->port_base = (uint16_t)value;
    else if (letter == 'n')
        self->count = (unsigned)value;
    else
        self->interval_s = (unsigned)value;
    return true;
}

static bool take(cli *self, int letter, const char *text)
{
    switch (letter) {
    case 'u':
        self->username = text;
        return true;
    case 'p':
        self->password = text;
        return true;
    case 'h':
        self->host = text;
        return true;
    case 'd':
        self->directory = text;
        return true;
    case 'e':
        self->env = text;
        return true;
    case 't':
        self->type = text;
        return true;
    case 'i':
        self->id = text;
        return true;
    case 'D':
        self->daemon = true;
        return true;
    case 'f':
        self->force = true;
        return true;
    case 'j':
        self->json = true;
        return true;
    default:
        return take_number(self, letter, text);
    }
}

/* Two descriptions for getopt_long, of what this command takes. */
static void describe(const cli_command *command, char *letters,
                     struct option *options)
{
    size_t n = 0;
    for (size_t i = 0; i < KNOWN; i++) {
        int has = known[i].value ? required_argument : no_argument;
        if (!strchr(command->options, known[i].letter))
            continue;
        *letters++ = known[i].letter;
        if (has == required_argument)
            *letters++ = ':';
        options[n++] =
            (struct option){known[i].name, has, NULL, known[i].letter};
    }
    options[n++] = (struct option){"help", no_argument, NULL, MARK_HELP};
    options[n] = (struct option){NULL, 0, NULL, 0};
    *letters = 0;
}

int cli_options(cli *self, const cli_command *command, int argc, char **argv)
{
    char letters[2 * KNOWN + 1], name[64];
    struct option options[KNOWN + 2];
    int letter;
    describe(command, letters, options);
    /* getopt's own messages begin with argv[0]. */
    snprintf(name, sizeof name, "pomelo %s", command->name);
    argv[0] = name;
    while ((letter = getopt_long(argc, argv, letters, options, NULL)) != -1) {
        if (letter == MARK_HELP) {
            cli_help(command);
            return CLI_OK;
        }
        if (letter == '?' || !take(self, letter, optarg)) {
            fprintf(stderr, "see `%s --help`\n", name);
            return CLI_USAGE;
        }
    }
    self->args = argv + optind;
    self->args_count = argc - optind;
    if (self->args_count == 0 || *command->usage)
        return -1;
    return cli_fail(CLI_USAGE, "%s takes no \"%s\"", command->name,
                    self->args[0]);
}
