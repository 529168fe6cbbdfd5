/* SPDX-License-Identifier: MIT */
/* pomelo_start.c -- runs the project's binary as the master, or as the servers
 * that were named.
 *
 *   BINARY --env E --id MASTER               the master; it starts the others
 *   BINARY [args] --env E --id SERVER        one server, without the master
 *
 * In the foreground the master takes this process's place; servers get process
 * groups of their own, and each signal that reaches us reaches them once. In
 * the background they get a session of their own, and we wait no longer than it
 * takes to see whether the master listens. */
#include "pomelo_cli.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_FILE "logs/pomelo.log"
#define WAIT_STEPS 35 /* of WAIT_MS: all together under a second */
#define WAIT_MS 20
#define END_STEPS 250 /* of WAIT_MS: servers drain */
#define PIDS_MAX 1000

extern char **environ;

typedef struct start {
    cli *of;
    char binary[CLI_PATH];
    const char *env, *master_id;
    pid_t pids[PIDS_MAX]; /* 0: it has ended */
    int count;
    long log_from; /* where the log ended before */
} start;

/* ---- The project ------------------------------------------------------- */

static bool find_binary(start *self)
{
    const char *text = pm_config_file(self->of->config, "pomelo.json"), *name;
    cJSON *tree = NULL;
    struct stat about;
    if (text)
        pm_json_tree(pm_text(text), &tree);
    name =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, "binary"));
    if (name)
        snprintf(self->binary, sizeof self->binary, "%s%s",
                 strchr(name, '/') ? "" : "./", name);
    cJSON_Delete(tree);
    if (!*self->binary)
        cli_fail(0, "config/pomelo.json names no \"binary\"");
    else if (stat(self->binary, &about) || !S_ISREG(about.st_mode) ||
             access(self->binary, X_OK))
        cli_fail(0, "%s is not there or can not be run: `make` builds it",
                 self->binary);
    else
        return true;
    return false;
}

static bool find_project(start *self)
{
    cli *of = self->of;
    if (of->directory && chdir(of->directory)) {
        cli_fail(0, "%s: %s", of->directory, strerror(errno));
        return false;
    }
    of->directory = NULL;
    if (!cli_project(of))
        return false;
    if (!of->config) {
        cli_fail(0, "no config/servers.json: is this a project's folder? See "
                    "--directory");
        return false;
    }
    self->env = of->env ? of->env : "development";
    self->master_id = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(of->master, "id"));
    return find_binary(self);
}

/* ---- One process ------------------------------------------------------- */

/* BINARY [args] --env E --id I [--start none]: free the list, and the tree that
 * the args lie in. */
static char **make_argv(const start *self, const cJSON *args, const char *id,
                        bool alone)
{
    const char *tail[] = {"--env",   self->env, "--id", id,
                          "--start", "none",    NULL};
    size_t count = cJSON_IsArray(args)    ? (size_t)cJSON_GetArraySize(args)
                   : cJSON_IsString(args) ? 1
                                          : 0,
           n = 0;
    const cJSON *item = cJSON_IsArray(args) ? args->child : args;
    char **argv = calloc(count + 8, sizeof *argv);
    if (!argv)
        return NULL;
    argv[n++] = (char *)(uintptr_t)self->binary;
    for (size_t i = 0; i < count; i++, item = item->next)
        argv[n++] = item->valuestring;
    for (size_t i = 0; tail[i] && (alone || i < 4); i++)
        argv[n++] = (char *)(uintptr_t)tail[i];
    return argv;
}

static long log_size(void)
{
    FILE *log = fopen(LOG_FILE, "r");
    long size = log && fseek(log, 0, SEEK_END) == 0 ? ftell(log) : 0;
    if (log)
        fclose(log);
    return size;
}

/* The end of what was said there behind `from`. */
static void show_log(long from)
{
    char text[2048];
    FILE *log = fopen(LOG_FILE, "r");
    long first = log_size() - (long)sizeof text;
    if (log && fseek(log, from > first ? from : first, SEEK_SET) == 0)
        fwrite(text, 1, fread(text, 1, sizeof text, log), stderr);
    if (log)
        fclose(log);
}

static void open_logs(posix_spawn_file_actions_t *actions)
{
    mkdir("logs", 0777);
    posix_spawn_file_actions_addopen(actions, 1, LOG_FILE,
                                     O_WRONLY | O_CREAT | O_APPEND, 0666);
    posix_spawn_file_actions_adddup2(actions, 1, 2);
}

/* Who waits for the end of a pipe does not wait for a daemon that has it. */
static void close_the_rest(void)
{
    DIR *folder = opendir("/dev/fd");
    const struct dirent *one;
    while (folder && (one = readdir(folder)) != NULL) {
        long fd = strtol(one->d_name, NULL, 10);
        if (fd > STDERR_FILENO)
            fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    }
    if (folder)
        closedir(folder);
}

static void set_attributes(const start *self, posix_spawnattr_t *attr)
{
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setpgroup(attr, 0);
    posix_spawnattr_setflags(
        attr, (short)(POSIX_SPAWN_SETSIGMASK |
                      (self->of->daemon ? POSIX_SPAWN_SETSID
                                        : POSIX_SPAWN_SETPGROUP)));
}

static bool launch(start *self, char **argv)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int error;
    if (self->count == PIDS_MAX) {
        cli_fail(0, "more than %d servers are not started at a time", PIDS_MAX);
        return false;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    set_attributes(self, &attr);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (self->of->daemon) {
        self->log_from = self->count ? self->log_from : log_size();
        open_logs(&actions);
        close_the_rest();
    }
    error = posix_spawn(&self->pids[self->count], argv[0], &actions, &attr,
                        argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (error) {
        cli_fail(0, "%s: %s", argv[0], strerror(error));
        return false;
    }
    self->count++;
    return true;
}

/* ---- Waiting ----------------------------------------------------------- */

/* Returns how many live yet. *worst: CLI_FAILED when one has not ended well. */
static int reap(start *self, int *worst)
{
    int living = 0;
    for (int i = 0; i < self->count; i++) {
        int status = 0;
        pid_t got =
            self->pids[i] ? waitpid(self->pids[i], &status, WNOHANG) : 0;
        if (got) {
            self->pids[i] = 0;
            if (!WIFEXITED(status) || WEXITSTATUS(status))
                *worst = CLI_FAILED;
        }
        living += self->pids[i] != 0;
    }
    return living;
}

static void tell_all(const start *self)
{
    for (int i = 0; i < self->count; i++)
        if (self->pids[i])
            kill(self->pids[i], SIGTERM);
}

/* What could not be started as a whole is not left in parts. */
static int give_up(start *self)
{
    int worst;
    tell_all(self);
    for (int i = 0; i < END_STEPS && reap(self, &worst) > 0; i++)
        cli_sleep_ms(WAIT_MS);
    return CLI_FAILED;
}

/* A process that ends at once has something to say in the log. */
static int wait_daemon(start *self, bool master)
{
    long pid = (long)self->pids[0];
    int worst;
    bool up = false;
    for (int i = 0; i < WAIT_STEPS && !up; i++) {
        if (reap(self, &worst) < self->count) {
            give_up(self);
            show_log(self->log_from);
            return cli_fail(
                CLI_FAILED, "%s ended at once%s; what else it said is in logs/",
                self->count > 1 ? "one of them" : "it",
                self->count > 1 ? ", the others were told to stop" : "");
        }
        cli_sleep_ms(WAIT_MS);
        up = master && cli_port_answers(cli_host(self->of), cli_port(self->of));
    }
    if (self->of->json)
        printf("{\"ok\":true,\"pid\":%ld}\n", pid);
    else
        puts("The application is running in the background now.");
    return CLI_OK;
}

static void on_signal(int number)
{
    (void)number;
}

/* Before the first server: from then on nothing ends us without them. */
static void watch_signals(sigset_t *set)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGQUIT, SIGCHLD, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal}, old;
    sigemptyset(set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i] == SIGHUP && !sigaction(SIGHUP, NULL, &old) &&
            old.sa_handler == SIG_IGN)
            continue; /* nohup */
        sigaction(numbers[i], &action, NULL);
        sigaddset(set, numbers[i]);
    }
    sigprocmask(SIG_BLOCK, set, NULL);
}

/* In the foreground. Servers drain at the first signal and end at a second one:
 * each of ours is one to them. */
static int wait_all(start *self, const sigset_t *set)
{
    int worst = CLI_OK, number;
    while (reap(self, &worst) > 0)
        if (sigwait(set, &number) == 0 && number != SIGCHLD)
            tell_all(self);
    return worst;
}

/* ---- The command ------------------------------------------------------- */

static int start_master(start *self)
{
    const cli *of = self->of;
    bool alone = of->type && !strcmp(of->type, "master");
    char **argv;
    int status = CLI_FAILED;
    alone |= of->id && !strcmp(of->id, self->master_id);
    if (cli_port_answers(cli_host(of), cli_port(of)))
        return cli_fail(CLI_FAILED,
                        "something listens at %s:%u already: see `pomelo list`",
                        cli_host(of), cli_port(of));
    argv = make_argv(self, NULL, self->master_id, alone);
    if (argv && !of->daemon) {
        execv(argv[0], argv);
        cli_fail(0, "%s: %s", argv[0], strerror(errno));
    } else if (argv && launch(self, argv)) {
        status = wait_daemon(self, true);
    }
    free(argv);
    return status;
}

static bool start_server(start *self, const pm_server *server)
{
    cJSON *entry = NULL;
    char **argv = NULL;
    bool good = false;
    if (server->raw && pm_json_tree(pm_text(server->raw), &entry) == PM_OK)
        argv = make_argv(self, cJSON_GetObjectItemCaseSensitive(entry, "args"),
                         server->id, false);
    if (argv)
        good = launch(self, argv);
    free(argv);
    cJSON_Delete(entry);
    return good;
}

static int start_servers(start *self)
{
    const cli *of = self->of;
    size_t count;
    const pm_server *servers = pm_config_servers(of->config, &count);
    sigset_t set;
    if (!of->daemon)
        watch_signals(&set);
    for (size_t i = 0; i < count; i++) {
        if ((of->id && strcmp(of->id, servers[i].id) != 0) ||
            (of->type && strcmp(of->type, servers[i].type) != 0))
            continue;
        if (!start_server(self, &servers[i]))
            return give_up(self);
    }
    if (self->count == 0)
        return cli_fail(CLI_FAILED, "config/servers.json knows no such server");
    return of->daemon ? wait_daemon(self, false) : wait_all(self, &set);
}

static bool wants_master(const start *self)
{
    const cli *of = self->of;
    if (of->id)
        return self->master_id && !strcmp(of->id, self->master_id);
    return !of->type || !strcmp(of->type, "all") || !strcmp(of->type, "master");
}

int cli_start(cli *of)
{
    start self = {.of = of};
    if (!find_project(&self))
        return CLI_FAILED;
    if (!wants_master(&self))
        return start_servers(&self);
    if (!self.master_id)
        return cli_fail(CLI_FAILED, "config/master.json names no master");
    return start_master(&self);
}
