/* SPDX-License-Identifier: MIT */
/* test/bench/server.c -- the program that is measured: a gate, a connector and
 * a chat server, written as any application would be.
 *
 *     server                     all three in one process, on one loop
 *     server --id connector-1    one of them
 *
 * Client ports: gate 3914, connector 3910. Prints "ready" when it serves, runs
 * until SIGTERM. No protocol here; the handlers stand in server_entry.c and
 * server_chat.c. Start reading at main. */
#include "server.h"

#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <time.h>

enum { SERVER_LOOK_MS = 100 };

static const char server_protos[] =
    "{\"connector.entryHandler.echo\":{\"required string p\":1},"
    "\"chat.chatHandler.echo\":{\"required string p\":1},"
    "\"onChat\":{\"required string p\":1}}";
static const char server_client_protos[] =
    "{\"connector.entryHandler.echo\":{\"required string p\":1},"
    "\"chat.chatHandler.echo\":{\"required string p\":1},"
    "\"chat.chatHandler.send\":{\"required string p\":1}}";
static const char *const server_dictionary[] = {"onChat"};

/* ---- Handlers of both servers -------------------------------------------- */

cJSON *server_body(pm_request *req)
{
    cJSON *body = NULL;
    pm_err err = pm_request_json(req, &body);
    if (err)
        pm_request_fail(req, err, pm_strerror(err), NULL);
    return err ? NULL : body;
}

void server_echo(pm_request *req, void *ctx)
{
    cJSON *body = server_body(req), *answer;
    server *self = ctx;
    if (!body)
        return;
    self->requests++;
    answer = cJSON_CreateObject();
    cJSON_AddItemToObject(answer, "p",
                          cJSON_DetachItemFromObjectCaseSensitive(body, "p"));
    pm_reply_json(req, answer);
    cJSON_Delete(answer);
}

void server_echo_raw(pm_request *req, void *ctx)
{
    server *self = ctx;
    self->requests++;
    pm_reply_bytes(req, pm_request_body(req).data);
}

/* ---- Counters ------------------------------------------------------------ */

static void server_print_counters(const server *self)
{
    const char *comma = "";
    fprintf(stderr,
            "{\"requests\":%llu,\"notes\":%llu,\"opened\":%llu,"
            "\"bound\":%llu,\"closed\":{",
            (unsigned long long)self->requests, (unsigned long long)self->notes,
            (unsigned long long)self->opened, (unsigned long long)self->bound);
    for (int i = 0; i < PM_CLOSE_COUNT; i++)
        if (self->closed[i]) {
            fprintf(stderr, "%s\"%s\":%llu", comma,
                    pm_close_text((pm_close_reason)i),
                    (unsigned long long)self->closed[i]);
            comma = ",";
        }
    fputs("}}\n", stderr);
}

/* SIGUSR1 is blocked, and looked for now and then. */
static void server_look(pm_app *app, void *ctx)
{
    const struct timespec now = {0, 0};
    sigset_t set;
    (void)app;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (sigtimedwait(&set, NULL, &now) == SIGUSR1)
        server_print_counters(ctx);
}

/* ---- Wiring -------------------------------------------------------------- */

static pm_err server_configure(pm_app *app, void *ctx)
{
    pm_err err = server_add_entry(app, ctx);
    return err ? err : server_add_chat(app, ctx);
}

/* Channels that nobody pushes to, each with one member. */
static void server_fill_channels(pm_app *app, uint32_t count)
{
    char name[32];
    for (uint32_t i = 0; i < count; i++) {
        pm_channel *channel;
        snprintf(name, sizeof name, "extra%u", (unsigned)i);
        channel = pm_channel_get(app, name, true);
        if (channel)
            pm_channel_add(channel, name, "connector-1");
    }
}

static void server_started(pm_loop *loop, pm_app *const *apps, size_t count,
                           void *ctx)
{
    server *self = ctx;
    (void)loop;
    for (size_t i = 0; i < count; i++)
        if (!strcmp(pm_app_server(apps[i])->type, "chat"))
            server_fill_channels(apps[i], self->extra_channels);
    if (self->counters)
        pm_app_timer(apps[0], SERVER_LOOK_MS, SERVER_LOOK_MS, server_look, self,
                     NULL);
    puts("ready");
    fflush(stdout);
}

static pm_err server_run(server *self)
{
    const uint16_t base = self->port_base;
    const pm_server table[] = {
        {.id = "gate-1",
         .type = "gate",
         .host = "127.0.0.1",
         .client_port = (uint16_t)(base + 3914),
         .frontend = true},
        {.id = "connector-1",
         .type = "connector",
         .host = "127.0.0.1",
         .port = (uint16_t)(base + 3950),
         .client_port = (uint16_t)(base + 3910),
         .frontend = true},
        {.id = "chat-1",
         .type = "chat",
         .host = "127.0.0.1",
         .port = (uint16_t)(base + 3960)},
    };
    pm_run_opts run = pm_run_opts_default();
    pm_err err;
    run.servers = table;
    run.servers_count = sizeof table / sizeof table[0];
    run.ids = self->ids;
    run.app = &self->app;
    run.started = server_started;
    run.spin_us = self->spin_us;
    err = pm_run(&run, server_configure, self);
    if (err)
        fprintf(stderr, "server: %s\n", pm_strerror(err));
    if (self->counters)
        server_print_counters(self);
    return err;
}

/* ---- Options ------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t offset;
} server_limits[] = {
    {"package_in_bytes", offsetof(pm_limits, package_in_bytes)},
    {"package_out_bytes", offsetof(pm_limits, package_out_bytes)},
    {"client_queue_bytes", offsetof(pm_limits, client_queue_bytes)},
    {"peer_queue_bytes", offsetof(pm_limits, peer_queue_bytes)},
    {"handshake_ms", offsetof(pm_limits, handshake_ms)},
    {"handshake_cb_ms", offsetof(pm_limits, handshake_cb_ms)},
    {"requests_in_flight", offsetof(pm_limits, requests_in_flight)},
    {"request_ms", offsetof(pm_limits, request_ms)},
    {"messages_per_s", offsetof(pm_limits, messages_per_s)},
    {"depth", offsetof(pm_limits, depth)},
    {"connections", offsetof(pm_limits, connections)},
    {"signatures_per_s", offsetof(pm_limits, signatures_per_s)},
    {"bytes_per_s", offsetof(pm_limits, bytes_per_s)},
    {"idle_ms", offsetof(pm_limits, idle_ms)},
    {"lag_ms", offsetof(pm_limits, lag_ms)},
    {"connects_per_s", offsetof(pm_limits, connects_per_s)},
};

static int server_help(int status)
{
    fputs("usage: server [options]\n"
          "  --id ID[,ID]        servers of this process: gate-1, connector-1, "
          "chat-1 (all)\n"
          "  --port-base N       moves all ports by N (0)\n"
          "  --heartbeat S       seconds; 0: none (10)\n"
          "  --protobuf          bodies of echo, send and onChat by schema\n"
          "  --no-dict           routes as text\n"
          "  --limit NAME=VALUE  a limit of pm_limits:\n",
          status ? stderr : stdout);
    for (size_t i = 0; i < sizeof server_limits / sizeof server_limits[0]; i++)
        fprintf(status ? stderr : stdout, "                        %s\n",
                server_limits[i].name);
    fputs("  --policy keep       push policy\n"
          "  --sndbuf BYTES      SO_SNDBUF of client sockets\n"
          "  --counters          counters as JSON at the end and on SIGUSR1\n"
          "  --handlers N        N more handlers\n"
          "  --channels N        N more channels on the chat server\n"
          "  --spin US           looks so long before it sleeps (0)\n"
          "  --help              this text\n",
          status ? stderr : stdout);
    return status;
}

static bool server_number(const char *text, double max, double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (end != text && !*end && *out >= 0 && *out <= max)
        return true;
    fprintf(stderr, "server: \"%s\" is no number from 0 to %.0f\n", text, max);
    return false;
}

static bool server_set_limit(server *self, const char *text)
{
    const char *value = strchr(text, '=');
    double number;
    for (size_t i = 0;
         value && i < sizeof server_limits / sizeof server_limits[0]; i++) {
        uint32_t limit;
        if (strlen(server_limits[i].name) != (size_t)(value - text) ||
            strncmp(server_limits[i].name, text, (size_t)(value - text)))
            continue;
        if (!server_number(value + 1, UINT32_MAX, &number))
            return false;
        limit = (uint32_t)number;
        memcpy((char *)&self->app.limits + server_limits[i].offset, &limit,
               sizeof limit);
        return true;
    }
    fprintf(stderr, "server: \"%s\" is no limit\n", text);
    return false;
}

static bool server_option(server *self, int option, const char *text)
{
    double number = 0;
    if (strchr("bHsncS", option) &&
        !server_number(text, option == 'b' ? 60000 : 1e9, &number))
        return false;
    switch (option) {
    case 'i':
        self->ids = text;
        break;
    case 'b':
        self->port_base = (uint16_t)number;
        break;
    case 'H':
        self->app.connector.heartbeat_s = number;
        break;
    case 'p':
        self->app.connector.use_protobuf = true;
        self->app.connector.server_protos = server_protos;
        self->app.connector.client_protos = server_client_protos;
        break;
    case 'd':
        self->app.connector.use_dict = false;
        break;
    case 'l':
        return server_set_limit(self, text);
    case 'P':
        return !strcmp(text, "keep");
    case 's':
        self->app.connector.send_buffer_bytes = (int)number;
        break;
    case 'C':
        self->counters = true;
        break;
    case 'n':
        self->extra_handlers = (uint32_t)number;
        break;
    case 'c':
        self->extra_channels = (uint32_t)number;
        break;
    case 'S':
        self->spin_us = (uint32_t)number;
        break;
    default:
        return false;
    }
    return true;
}

/* -1: go on; else the status to exit with. */
static int server_options(server *self, int argc, char **argv)
{
    static const struct option options[] = {
        {"id", required_argument, NULL, 'i'},
        {"port-base", required_argument, NULL, 'b'},
        {"heartbeat", required_argument, NULL, 'H'},
        {"protobuf", no_argument, NULL, 'p'},
        {"no-dict", no_argument, NULL, 'd'},
        {"limit", required_argument, NULL, 'l'},
        {"policy", required_argument, NULL, 'P'},
        {"sndbuf", required_argument, NULL, 's'},
        {"counters", no_argument, NULL, 'C'},
        {"handlers", required_argument, NULL, 'n'},
        {"channels", required_argument, NULL, 'c'},
        {"spin", required_argument, NULL, 'S'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            return server_help(0);
        if (option == '?' || !server_option(self, option, optarg))
            return server_help(2);
    }
    return optind == argc ? -1 : server_help(2);
}

/* As many descriptors as the system lets us have. */
static void server_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    server self = {.app = pm_app_opts_default()};
    int status;
    self.app.client_bind = "127.0.0.1";
    self.app.connector.heartbeat_s = 10;
    self.app.connector.use_dict = true;
    self.app.connector.dictionary = server_dictionary;
    self.app.connector.dictionary_count = 1;
    status = server_options(&self, argc, argv);
    if (status >= 0)
        return status;
    if (self.counters) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, NULL);
    }
    server_raise_descriptors();
    return server_run(&self) == PM_OK ? 0 : 1;
}
