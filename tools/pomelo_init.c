/* SPDX-License-Identifier: MIT */
/* pomelo_init.c -- makes a project from the template that lies in the program.
 *
 * In the template's files @NAME@ is the project, @VERSION@ the library's,
 * @TOKEN@ a secret drawn for this project, and @PORT+N@ a port. A program that
 * runs in the tree it was built in also writes pomelo.mk, so that the project
 * finds the library without an installed one. */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 64
#define TOKEN_BYTES 24

typedef struct project {
    const char *dir;
    char name[NAME_MAX_BYTES + 1];
    char token[2 * TOKEN_BYTES + 1];
    unsigned port_base;
} project;

/* ---- What it is called, and where -------------------------------------- */

/* The folder's own name, which becomes the binary's. */
static bool find_name(project *self)
{
    char *path = realpath(self->dir, NULL);
    const char *slash = path ? strrchr(path, '/') : NULL;
    size_t len = slash ? strlen(slash + 1) : 0;
    bool good = len > 0 && len <= NAME_MAX_BYTES && slash[1] != '-';
    for (size_t i = 1; good && slash[i]; i++)
        good = isalnum((unsigned char)slash[i]) || strchr("_-", slash[i]);
    if (good)
        snprintf(self->name, sizeof self->name, "%s", slash + 1);
    else
        cli_fail(0,
                 "a project is called like its folder: letters, digits, _ and "
                 "-, at most %d (not \"%s\")",
                 NAME_MAX_BYTES, slash ? slash + 1 : self->dir);
    free(path);
    return good;
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    bool empty = dir != NULL;
    while (empty && (entry = readdir(dir)) != NULL)
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    if (dir)
        closedir(dir);
    return empty;
}

static bool make_token(project *self)
{
    unsigned char bytes[TOKEN_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(self->token + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

/* ---- Files ------------------------------------------------------------- */

/* Writes what a mark stands for. Returns its length in the template; 0: it is
 * none of ours. */
static size_t put_mark(const project *self, const char *at, size_t left,
                       FILE *to)
{
    static const char name[] = "@NAME@", version[] = "@VERSION@",
                      token[] = "@TOKEN@", port[] = "@PORT+";
    unsigned offset = 0;
    size_t n = sizeof port - 1;
    if (left >= sizeof name - 1 && !memcmp(at, name, sizeof name - 1)) {
        fputs(self->name, to);
        return sizeof name - 1;
    }
    if (left >= sizeof version - 1 &&
        !memcmp(at, version, sizeof version - 1)) {
        fputs(pm_version(), to);
        return sizeof version - 1;
    }
    if (left >= sizeof token - 1 && !memcmp(at, token, sizeof token - 1)) {
        fputs(self->token, to);
        return sizeof token - 1;
    }
    if (left < n || memcmp(at, port, n) != 0)
        return 0;
    for (; n < left && at[n] >= '0' && at[n] <= '9'; n++)
        offset = 10 * offset + (unsigned)(at[n] - '0');
    fprintf(to, "%u", self->port_base + offset);
    return n + 1;
}

static void put_text(const project *self, const cli_file *file, FILE *to)
{
    const char *data = (const char *)file->data;
    for (size_t i = 0; i < file->len;) {
        const char *mark = memchr(data + i, '@', file->len - i);
        size_t end = mark ? (size_t)(mark - data) : file->len, used;
        fwrite(data + i, 1, end - i, to);
        if (!mark)
            return;
        used = put_mark(self, mark, file->len - end, to);
        if (used == 0) {
            fputc('@', to);
            used = 1;
        }
        i = end + used;
    }
}

/* Every folder on the way to a file. */
static bool make_folders(const char *path)
{
    char part[CLI_PATH];
    snprintf(part, sizeof part, "%s", path);
    for (char *at = part + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            if (mkdir(part, 0777) && errno != EEXIST)
                return false;
            *at = '/';
        }
    return true;
}

static FILE *create(const project *self, const char *name, char path[CLI_PATH])
{
    FILE *to = NULL;
    int len = snprintf(path, CLI_PATH, "%s/%s", self->dir, name);
    if (len > 0 && len < CLI_PATH && make_folders(path))
        to = fopen(path, "w");
    if (!to)
        cli_fail(0, "%s: %s", path, strerror(errno));
    return to;
}

static bool finish(FILE *to, const char *path)
{
    bool good = !ferror(to);
    if (fclose(to) || !good) {
        cli_fail(0, "%s: %s", path, strerror(errno));
        return false;
    }
    printf("   create : %s\n", path);
    return true;
}

static bool put_file(const project *self, const cli_file *file)
{
    char path[CLI_PATH];
    FILE *to = create(self, file->path, path);
    if (!to)
        return false;
    put_text(self, file, to);
    return finish(to, path);
}

/* ---- The tree that we were built in ------------------------------------ */

/* BUILD/tools/pomelo: is BUILD/libpomelo.so there, and ../pomelo.h? */
static bool find_tree(char build[CLI_PATH])
{
    char file[CLI_PATH + 32];
    ssize_t len = readlink("/proc/self/exe", build, CLI_PATH - 1);
    char *slash;
    if (len <= 0)
        return false;
    build[len] = 0;
    for (int i = 0; i < 2; i++) {
        slash = strrchr(build, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
    snprintf(file, sizeof file, "%s/libpomelo.so", build);
    if (access(file, R_OK) || strpbrk(build, " $#\\'\""))
        return false;
    snprintf(file, sizeof file, "%s/../pomelo.h", build);
    return access(file, R_OK) == 0;
}

static bool put_tree(const project *self)
{
    char build[CLI_PATH], path[CLI_PATH];
    FILE *to;
    if (!find_tree(build))
        return true;
    to = create(self, "pomelo.mk", path);
    if (!to)
        return false;
    fprintf(to,
            "# The library was not installed: here it is.\n"
            "POMELO ?= %s/tools/pomelo\n"
            "POMELO_CFLAGS ?= -I%s/.. $(shell pkg-config --cflags libcjson)\n"
            "POMELO_LIBS ?= -L%s -lpomelo -Wl,-rpath,%s -lcjson\n",
            build, build, build, build);
    return finish(to, path);
}

/* ---- The command ------------------------------------------------------- */

static int make(const project *self)
{
    for (size_t i = 0; i < cli_template_count; i++)
        if (!put_file(self, &cli_template[i]))
            return CLI_FAILED;
    if (!put_tree(self))
        return CLI_FAILED;
    printf("\nThe master lets in: user admin, password admin. Change them in "
           "config/adminUser.json.\n\n   cd %s\n   make\n   pomelo start\n",
           self->dir);
    return CLI_OK;
}

int cli_init(cli *self)
{
    project made = {.dir = self->args_count ? self->args[0] : ".",
                    .port_base = self->port_base ? self->port_base : 3000};
    if (self->args_count > 1)
        return cli_fail(CLI_USAGE, "init makes one project at a time");
    if (strlen(made.dir) > CLI_PATH / 2 || !*made.dir)
        return cli_fail(CLI_USAGE, "no folder has this name");
    if (mkdir(made.dir, 0777) == 0) {
        if (find_name(&made) && make_token(&made))
            return make(&made);
        rmdir(made.dir);
        return CLI_FAILED;
    }
    if (errno != EEXIST)
        return cli_fail(CLI_FAILED, "%s: %s", made.dir, strerror(errno));
    if (!self->force && !is_empty(made.dir))
        return cli_fail(CLI_FAILED,
                        "%s is not empty: --force writes into it anyway",
                        made.dir);
    if (!find_name(&made) || !make_token(&made))
        return CLI_FAILED;
    return make(&made);
}
