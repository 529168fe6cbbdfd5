/* SPDX-License-Identifier: MIT */
/* test/bench/nomalloc.c -- does the server call malloc under full load?
 *
 *     nomalloc [SECONDS]
 *
 * Plays a connector and a chat server on real sockets and starts two load
 * generators: one that the connector answers, one that is forwarded; routes
 * numbered, bodies of bytes. malloc, calloc and realloc of the whole process,
 * libraries included, are this file's: they count. Prints one line of JSON;
 * exits 1 when there was a call. Start reading at main. */
#include "pomelo.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { NOMALLOC_PORT = 19710, NOMALLOC_WARM_MS = 2000, NOMALLOC_LOOK_MS = 50 };

/* ---- The allocator, interposed --------------------------------------------- */

/* glibc's own, under their second names. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *ptr, size_t bytes);

static uint64_t nomalloc_calls;

void *malloc(size_t bytes)
{
    nomalloc_calls++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    nomalloc_calls++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *ptr, size_t bytes)
{
    nomalloc_calls++;
    return __libc_realloc(ptr, bytes);
}

/* ---- The servers ----------------------------------------------------------- */

typedef struct nomalloc {
    pm_loop *loop;
    pm_app *front, *back;
    uint32_t measure_ms;
    const char *loadgen;
    pid_t children[2];
    int running;
    bool failed;
    uint64_t requests, requests_before, calls_before;
    uint64_t requests_measured, calls_measured;
} nomalloc;

static void nomalloc_echo(pm_request *req, void *ctx)
{
    nomalloc *self = ctx;
    self->requests++;
    pm_reply_bytes(req, pm_request_body(req).data);
}

static void nomalloc_must(pm_err err, const char *what)
{
    if (err) {
        fprintf(stderr, "nomalloc: %s: %s\n", what, pm_strerror(err));
        exit(2);
    }
}

static pm_app *nomalloc_app(nomalloc *self, const char *id)
{
    static const pm_server table[] = {{.id = "connector-1",
                                       .type = "connector",
                                       .host = "127.0.0.1",
                                       .port = NOMALLOC_PORT + 1,
                                       .client_port = NOMALLOC_PORT,
                                       .frontend = true},
                                      {.id = "chat-1",
                                       .type = "chat",
                                       .host = "127.0.0.1",
                                       .port = NOMALLOC_PORT + 2}};
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app;
    opts.loop = self->loop;
    opts.servers = table;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.client_bind = "127.0.0.1";
    opts.connector.use_dict = true;
    opts.connector.heartbeat_s = 10;
    nomalloc_must(pm_app_new(&app, &opts), "app");
    nomalloc_must(pm_app_handler(app, "connector.entryHandler.echoRaw",
                                 nomalloc_echo, self),
                  "handler");
    nomalloc_must(
        pm_app_handler(app, "chat.chatHandler.echoRaw", nomalloc_echo, self),
        "handler");
    nomalloc_must(pm_app_start(app), "start");
    return app;
}

/* ---- What happens when ------------------------------------------------------ */

static void nomalloc_spawn(nomalloc *self, int which, const char *route)
{
    char port[16], secs[16];
    char *args[] = {(char *)(uintptr_t)self->loadgen,
                    (char *)(uintptr_t) "echo",
                    (char *)(uintptr_t) "--port",
                    port,
                    (char *)(uintptr_t) "--raw",
                    (char *)(uintptr_t) "--window",
                    (char *)(uintptr_t) "16",
                    (char *)(uintptr_t) "--route",
                    (char *)(uintptr_t)route,
                    (char *)(uintptr_t) "--secs",
                    secs,
                    NULL};
    char *env[] = {NULL};
    snprintf(port, sizeof port, "%d", NOMALLOC_PORT);
    snprintf(secs, sizeof secs, "%u",
             (NOMALLOC_WARM_MS + self->measure_ms) / 1000 + 2);
    if (posix_spawn(&self->children[which], self->loadgen, NULL, NULL, args,
                    env)) {
        fprintf(stderr, "nomalloc: %s does not start\n", self->loadgen);
        exit(2);
    }
    self->running++;
}

static void nomalloc_from(pm_app *app, void *ctx)
{
    nomalloc *self = ctx;
    (void)app;
    self->calls_before = nomalloc_calls;
    self->requests_before = self->requests;
}

static void nomalloc_until(pm_app *app, void *ctx)
{
    nomalloc *self = ctx;
    (void)app;
    self->calls_measured = nomalloc_calls - self->calls_before;
    self->requests_measured = self->requests - self->requests_before;
}

/* Both load generators check every answer: their word counts too. */
static void nomalloc_look(pm_app *app, void *ctx)
{
    nomalloc *self = ctx;
    int status;
    (void)app;
    for (int i = 0; i < 2; i++)
        if (self->children[i] &&
            waitpid(self->children[i], &status, WNOHANG) > 0) {
            self->children[i] = 0;
            self->failed |= status != 0;
            self->running--;
        }
    if (!self->running)
        pm_loop_break(self->loop);
}

static void nomalloc_timers(nomalloc *self)
{
    nomalloc_must(pm_app_timer(self->front, NOMALLOC_WARM_MS, 0, nomalloc_from,
                               self, NULL),
                  "timer");
    nomalloc_must(pm_app_timer(self->front, NOMALLOC_WARM_MS + self->measure_ms,
                               0, nomalloc_until, self, NULL),
                  "timer");
    nomalloc_must(pm_app_timer(self->front, NOMALLOC_LOOK_MS, NOMALLOC_LOOK_MS,
                               nomalloc_look, self, NULL),
                  "timer");
}

int main(int argc, char **argv)
{
    nomalloc self = {.measure_ms = 3000};
    char loadgen[512];
    char *slash = strrchr(argv[0], '/');
    if (argc == 2 && atoi(argv[1]) > 0)
        self.measure_ms = (uint32_t)atoi(argv[1]) * 1000;
    else if (argc > 1) {
        fputs("usage: nomalloc [SECONDS]\n", stderr);
        return 2;
    }
    snprintf(loadgen, sizeof loadgen, "%.*sloadgen",
             slash ? (int)(slash - argv[0] + 1) : 0, argv[0]);
    self.loadgen = loadgen;
    nomalloc_must(pm_loop_new(&self.loop, NULL), "loop");
    self.back = nomalloc_app(&self, "chat-1");
    self.front = nomalloc_app(&self, "connector-1");
    nomalloc_timers(&self);
    nomalloc_spawn(&self, 0, "connector.entryHandler.echoRaw");
    nomalloc_spawn(&self, 1, "chat.chatHandler.echoRaw");
    nomalloc_must(pm_loop_run(self.loop), "run");
    printf("{\"secs\":%u,\"requests\":%llu,\"allocations\":%llu,"
           "\"loadgens\":\"%s\"}\n",
           self.measure_ms / 1000, (unsigned long long)self.requests_measured,
           (unsigned long long)self.calls_measured,
           self.failed ? "failed" : "content");
    pm_app_free(self.front);
    pm_app_free(self.back);
    pm_loop_free(self.loop);
    return self.failed || self.calls_measured || !self.requests_measured;
}
