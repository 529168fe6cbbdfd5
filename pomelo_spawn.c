/* SPDX-License-Identifier: MIT */
/* pomelo_spawn.c -- processes of a cluster: started, watched, ended.
 *
 * The only place that starts or signals processes, and only pm_run reaches it.
 * posix_spawn, never fork: the host may have threads. A process of ours is
 * known by its pid until we have waited for it, so the number can not be
 * another's. For one that is not ours, left over by a master before us, the pid
 * is hearsay: a pidfd pins it down first, then its command line is read, and
 * only then is it signalled, through the pidfd.
 *
 * Children get a process group of their own: Ctrl-C reaches the master, which
 * stops them in order. Start reading at pmi_spawn_start. */
#include "pomelo_spawn_internal.h"

#include "pomelo_config_run_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPAWN_LOOK_US 100000 /* between two looks where there is no pidfd */
#define SPAWN_TAIL 7         /* --env E --id I --servers TEXT NULL */

extern char **environ;

typedef struct spawn_child {
    pmi_link link; /* in spawn's children */
    pmi_watch watch;
    pmi_timer timer;
    pmi_spawn *spawn;
    pid_t pid;
    int pidfd;            /* -1: there is none, the timer looks */
    bool frontend, asked; /* asked to stop */
    char id[];            /* the server's */
} spawn_child;

struct pmi_spawn {
    pm_loop *loop;
    const pmi_env *env;
    const char *binary, *env_name;
    pmi_spawn_ended_cb ended;
    void *ctx;
    pmi_link children;
};

pm_err pmi_spawn_new(pmi_spawn **out, pm_loop *loop, const char *binary,
                     const char *env_name, pmi_spawn_ended_cb ended, void *ctx)
{
    const pmi_env *env = pmi_loop_env(loop);
    pmi_spawn *spawn = pmi_zalloc(env, sizeof *spawn);
    if (!spawn)
        return PM_ENOMEM;
    spawn->loop = loop;
    spawn->env = env;
    spawn->binary = binary;
    spawn->env_name = env_name;
    spawn->ended = ended;
    spawn->ctx = ctx;
    pmi_list_init(&spawn->children);
    *out = spawn;
    return PM_OK;
}

/* ---- One child --------------------------------------------------------- */

static int spawn_pidfd(pid_t pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, pid, 0);
#else
    (void)pid;
    errno = ENOSYS;
    return -1;
#endif
}

static spawn_child *spawn_find(const pmi_spawn *spawn, const char *id)
{
    for (pmi_link *at = spawn->children.next; at != &spawn->children;
         at = at->next) {
        spawn_child *child = PMI_OUTER(at, spawn_child, link);
        if (!strcmp(child->id, id))
            return child;
    }
    return NULL;
}

static void spawn_forget(spawn_child *child)
{
    pmi_list_remove(&child->link);
    pmi_timer_clear(&child->timer);
    if (child->pidfd >= 0) {
        pmi_watch_fini(&child->watch);
        close(child->pidfd);
    }
    pmi_free(child->spawn->env, child);
}

static void spawn_say_end(const spawn_child *child, int status)
{
    const pmi_env *env = child->spawn->env;
    if (WIFSIGNALED(status))
        PMI_LOG(env, PM_LOG_WARN, "run", "%s (pid %ld) ended by signal %d",
                child->id, (long)child->pid, WTERMSIG(status));
    else
        PMI_LOG(env, WEXITSTATUS(status) ? PM_LOG_WARN : PM_LOG_INFO, "run",
                "%s (pid %ld) ended with status %d", child->id,
                (long)child->pid, WEXITSTATUS(status));
}

/* Has it ended? Then it is gone, and the owner is told. */
static bool spawn_look(spawn_child *child)
{
    pmi_spawn *spawn = child->spawn;
    int status = 0;
    char id[256 + 32];
    bool frontend = child->frontend;
    if (waitpid(child->pid, &status, WNOHANG) == 0)
        return false;
    spawn_say_end(child, status);
    pmi_format(id, sizeof id, "%s", child->id);
    spawn_forget(child);
    spawn->ended(id, frontend, spawn->ctx);
    return true;
}

static void spawn_readable(pmi_watch *watch, int what)
{
    (void)what;
    spawn_look(PMI_OUTER(watch, spawn_child, watch));
}

static void spawn_timer(pmi_timer *timer)
{
    spawn_child *child = PMI_OUTER(timer, spawn_child, timer);
    pmi_spawn *spawn = child->spawn;
    if (!spawn_look(child))
        pmi_timer_set(spawn->loop, timer, SPAWN_LOOK_US, spawn_timer);
}

static void spawn_watch(spawn_child *child)
{
    pmi_spawn *spawn = child->spawn;
    child->pidfd = spawn_pidfd(child->pid);
    if (child->pidfd >= 0) {
        pmi_watch_init(spawn->loop, &child->watch, child->pidfd,
                       spawn_readable);
        if (pmi_watch_set(&child->watch, PMI_READABLE) == PM_OK)
            return;
        pmi_watch_fini(&child->watch);
        close(child->pidfd);
        child->pidfd = -1;
    }
    pmi_timer_set(spawn->loop, &child->timer, SPAWN_LOOK_US, spawn_timer);
}

/* ---- Start ------------------------------------------------------------- */

/* Whoever listens there is, most likely, this very server: started by a master
 * before us, by hand, or not yet ended. */
static bool spawn_port_is_taken(const char *host, uint16_t port)
{
    pmi_addr addr;
    pm_err err;
    int fd;
    if (port == 0 || !pmi_addr_parse(&addr, host, port))
        return false;
    err = pmi_sock_listen(&addr, 1, &fd);
    if (err == PM_OK)
        pmi_sock_close(fd);
    return err == PM_EADDR;
}

static pm_err spawn_error(int error)
{
    switch (error) {
    case 0:
        return PM_OK;
    case ENOENT:
    case EACCES:
    case ENOTDIR:
    case ENOEXEC:
        return PM_ENOTFOUND;
    case EAGAIN:
        return PM_ELIMIT;
    default:
        return PM_ENOMEM;
    }
}

/* Signals as a fresh program expects them, no terminal to read from. */
static int spawn_exec(pid_t *pid, const char *binary, char **argv)
{
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t actions;
    sigset_t set;
    int error = posix_spawnattr_init(&attr);
    if (error)
        return error;
    error = posix_spawn_file_actions_init(&actions);
    if (error) {
        posix_spawnattr_destroy(&attr);
        return error;
    }
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attr, &set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGPIPE);
    posix_spawnattr_setsigdefault(&attr, &set);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP |
                                        POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO,
                                             "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn(pid, binary, &actions, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return error;
}

/* *out: BINARY [args] --env E --id I [--servers TEXT]. The texts are others'.
 */
static pm_err spawn_argv(const pmi_spawn *spawn, const pm_server *server,
                         const char *entry, char **args, size_t count,
                         char ***out)
{
    const char *tail[SPAWN_TAIL] = {
        "--env", spawn->env_name, "--id", server->id, "--servers", entry, NULL};
    char **argv = pmi_resize_array(spawn->env, NULL, 1 + count + SPAWN_TAIL,
                                   sizeof *argv);
    size_t n = 0;
    if (!argv)
        return PM_ENOMEM;
    if (!entry)
        tail[4] = NULL;
    argv[n++] = (char *)(uintptr_t)spawn->binary;
    for (size_t i = 0; i < count; i++)
        argv[n++] = args[i];
    for (size_t i = 0; i < SPAWN_TAIL; i++)
        argv[n++] = (char *)(uintptr_t)tail[i];
    *out = argv;
    return PM_OK;
}

static pm_err spawn_run(const pmi_spawn *spawn, const pm_server *server,
                        const char *entry, pid_t *pid)
{
    char **args = NULL, **argv = NULL;
    size_t count = 0;
    pm_err err = pmi_run_server_args(spawn->env, server, &args, &count);
    if (err == PM_OK)
        err = spawn_argv(spawn, server, entry, args, count, &argv);
    if (err == PM_OK)
        err = spawn_error(spawn_exec(pid, spawn->binary, argv));
    pmi_free(spawn->env, argv);
    pmi_free(spawn->env, args);
    return err;
}

pm_err pmi_spawn_start(pmi_spawn *spawn, const pm_server *server,
                       const char *entry)
{
    const char *host = server->host ? server->host : "127.0.0.1";
    size_t size = strlen(server->id) + 1;
    spawn_child *child;
    pm_err err;
    if (spawn_find(spawn, server->id))
        return PM_EEXIST;
    if (spawn_port_is_taken(host, server->port) ||
        spawn_port_is_taken(host, server->client_port))
        return PM_EADDR;
    child = pmi_zalloc(spawn->env, sizeof *child + size);
    if (!child)
        return PM_ENOMEM;
    memcpy(child->id, server->id, size);
    child->spawn = spawn;
    child->frontend = server->frontend;
    child->pidfd = -1;
    err = spawn_run(spawn, server, entry, &child->pid);
    if (err) {
        pmi_free(spawn->env, child);
        return err;
    }
    pmi_list_add(&spawn->children, &child->link);
    spawn_watch(child);
    PMI_LOG(spawn->env, PM_LOG_INFO, "run", "%s started, pid %ld", child->id,
            (long)child->pid);
    return PM_OK;
}

/* ---- End --------------------------------------------------------------- */

/* Is "--id", ID among the arguments of a process? */
static bool spawn_is_server(pid_t pid, const char *id)
{
    char path[64], bytes[8192];
    size_t len, size = strlen(id) + 1;
    FILE *file;
    pmi_format(path, sizeof path, "/proc/%ld/cmdline", (long)pid);
    file = fopen(path, "rb");
    if (!file)
        return false;
    len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (size_t at = 0; at + 5 + size <= len; at++)
        if ((at == 0 || !bytes[at - 1]) && !memcmp(bytes + at, "--id", 5) &&
            !memcmp(bytes + at + 5, id, size))
            return true;
    return false;
}

static pm_err spawn_kill_other(const char *id, pid_t pid)
{
#ifdef SYS_pidfd_send_signal
    pm_err err = PM_ENOTFOUND;
    int fd = pid > 1 ? spawn_pidfd(pid) : -1;
    if (fd < 0)
        return pid > 1 && errno == ENOSYS ? PM_ENOTSUP : PM_ENOTFOUND;
    if (spawn_is_server(pid, id) &&
        syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0)
        err = PM_OK;
    close(fd);
    return err;
#else
    (void)id;
    (void)pid;
    return PM_ENOTSUP;
#endif
}

pm_err pmi_spawn_kill(pmi_spawn *spawn, const pm_server *server, int64_t pid)
{
    spawn_child *child = spawn_find(spawn, server->id);
    if (child)
        return kill(child->pid, SIGKILL) ? PM_ENOTFOUND : PM_OK;
    if (pid <= 1 || pid > INT32_MAX)
        return PM_ENOTFOUND;
    return spawn_kill_other(server->id, (pid_t)pid);
}

bool pmi_spawn_has(const pmi_spawn *spawn, const char *server_id)
{
    return spawn_find(spawn, server_id) != NULL;
}

size_t pmi_spawn_left(const pmi_spawn *spawn, bool frontends)
{
    size_t count = 0;
    for (pmi_link *at = spawn->children.next; at != &spawn->children;
         at = at->next)
        count += PMI_OUTER(at, spawn_child, link)->frontend == frontends;
    return count;
}

void pmi_spawn_stop(pmi_spawn *spawn, bool frontends)
{
    for (pmi_link *at = spawn->children.next; at != &spawn->children;
         at = at->next) {
        spawn_child *child = PMI_OUTER(at, spawn_child, link);
        if (child->frontend != frontends || child->asked)
            continue;
        child->asked = true;
        kill(child->pid, SIGTERM);
    }
}

void pmi_spawn_kill_all(pmi_spawn *spawn)
{
    for (pmi_link *at = spawn->children.next; at != &spawn->children;
         at = at->next)
        kill(PMI_OUTER(at, spawn_child, link)->pid, SIGKILL);
}

size_t pmi_spawn_count(const pmi_spawn *spawn)
{
    return pmi_spawn_left(spawn, true) + pmi_spawn_left(spawn, false);
}

void pmi_spawn_free(pmi_spawn *spawn)
{
    pmi_link *node;
    if (!spawn)
        return;
    while ((node = pmi_list_take(&spawn->children)) != NULL)
        spawn_forget(PMI_OUTER(node, spawn_child, link));
    pmi_free(spawn->env, spawn);
}
