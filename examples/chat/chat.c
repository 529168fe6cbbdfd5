/* SPDX-License-Identifier: MIT */
/* chat.c -- the chat as a program: one process, or one of seven.
 *
 * What it shows: a servers table from servers.json, pm_run, a component.
 * How to run:    build/examples/chat/chat        (--help tells the options)
 * What you see:  "open http://localhost:3002"; open it in two windows. Or start
 *                seven processes, each with the --id of one server: to a client
 *                it is the same. The one that is the gate serves the page.
 *
 * The game itself is chat_app.c. */
#include "chat_app.h"
#include "examples/page.h"

#include <getopt.h>

#define CHAT_PORT_BASE 3000 /* what the ports of servers.json count from */
#define CHAT_GATE_PORT 3014

typedef struct chat {
    const char *config_dir, *env, *ids, *host, *web_root;
    uint16_t port_base, web_port, stats_port;
    chat_rules rules;
    char config_found[4096 + 32];
    page page;
    bool has_page;
    size_t waits_for; /* servers of this process that have not seen all */
} chat;

/* ---- The page is a component of the gate -------------------------------- */

static pm_err chat_page_start(pm_app *app, void *ctx)
{
    chat *self = ctx;
    pm_err err =
        page_start(&self->page, pm_app_loop(app), self->host, self->web_port);
    if (err)
        fprintf(stderr, "chat: web port %u: %s\n", (unsigned)self->web_port,
                pm_strerror(err));
    return err;
}

static void chat_page_stop(pm_app *app, void *ctx)
{
    chat *self = ctx;
    (void)app;
    page_stop(&self->page);
}

/* The page looks for the gate at 3014 unless its address says otherwise. */
static void chat_tell_page(const chat *self)
{
    bool here = !strcmp(self->host, "127.0.0.1") ||
                !strcmp(self->host, "0.0.0.0") || !strcmp(self->host, "::") ||
                !strcmp(self->host, "::1");
    printf("open http://%s:%u", here ? "localhost" : self->host,
           (unsigned)page_port(&self->page));
    if (self->port_base != CHAT_PORT_BASE)
        printf("/?port=%u", self->port_base + CHAT_GATE_PORT - CHAT_PORT_BASE);
    printf("\n");
}

/* ---- Said when the servers of this process have found all others --------- */

/* A server that nobody calls (the gate) has no port, and is not waited for. */
static bool chat_sees_all(const pm_app *app)
{
    size_t count = pm_server_count(app, NULL);
    for (size_t i = 0; i < count; i++) {
        const pm_server *one = pm_server_at(app, NULL, i);
        if (one->port && !pm_server_is_up(app, one->id))
            return false;
    }
    return true;
}

static void chat_server_up(pm_app *app, const pm_server *server, void *ctx)
{
    chat *self = ctx;
    (void)server;
    if (pm_app_get(app, "told") || !chat_sees_all(app))
        return;
    pm_app_set(app, "told", self);
    if (self->ids)
        printf("%s: all servers are up\n", pm_app_server(app)->id);
    if (--self->waits_for == 0 && self->page.http)
        chat_tell_page(self);
    fflush(stdout);
}

/* ---- The process --------------------------------------------------------- */

static pm_err chat_setup(pm_app *app, void *ctx)
{
    chat *self = ctx;
    pm_component part = {
        .name = "page", .start = chat_page_start, .stop = chat_page_stop};
    pm_app_events events = pm_app_events_default();
    pm_err err = chat_configure(app, &self->rules);
    events.server_up = chat_server_up;
    self->waits_for++;
    if (err == PM_OK)
        err = pm_app_listen(app, &events, self);
    if (err == PM_OK && self->has_page &&
        !strcmp(pm_app_server(app)->type, "gate"))
        err = pm_app_component(app, &part, self);
    return err;
}

/* The table is copied, for its ports to be moved: 3014 becomes base + 14. */
static pm_server *chat_move(const chat *self, const pm_server *from,
                            size_t count)
{
    pm_server *servers = calloc(count, sizeof *servers);
    int by = self->port_base - CHAT_PORT_BASE;
    for (size_t i = 0; servers && i < count; i++) {
        servers[i] = from[i];
        if (from[i].port)
            servers[i].port = (uint16_t)(from[i].port + by);
        if (from[i].client_port)
            servers[i].client_port = (uint16_t)(from[i].client_port + by);
    }
    return servers;
}

static pm_err chat_run(chat *self, const pm_config *config)
{
    pm_run_opts run = pm_run_opts_default();
    pm_app_opts app = chat_app_opts();
    size_t count;
    const pm_server *table = pm_config_servers(config, &count);
    pm_server *servers = chat_move(self, table, count);
    pm_err err = PM_ENOMEM;
    app.client_bind = self->host;
    /* Seven servers of one process have little to tell each other. */
    app.log_level = self->ids ? PM_LOG_INFO : PM_LOG_WARN;
    run.servers = servers;
    run.servers_count = count;
    run.env = self->env;
    run.ids = self->ids;
    run.stats_port = self->stats_port;
    run.app = &app;
    if (servers)
        err = pm_run(&run, chat_setup, self);
    free(servers);
    return err;
}

/* ---- Options ------------------------------------------------------------- */

static void chat_help(void)
{
    puts("usage: chat [options]\n"
         "  --id ID,..      servers of the table to play (all of them)\n"
         "  --config DIR    where servers.json lies (examples/config)\n"
         "  --env NAME      its environment (development)\n"
         "  --port-base N   moves the table's ports from 3000 to N: the gate\n"
         "                  to N+14, the connectors to N+50 and so on\n"
         "  --host ADDRESS  where clients come in (127.0.0.1)\n"
         "  --web-port N    port of the page (3002; 0: any)\n"
         "  --web-root DIR  the page's folder (examples/chat/web)\n"
         "  --stats-port N  http://127.0.0.1:N/metrics, for Prometheus (none)\n"
         "  --stable        rooms stay where they are when servers come or go\n"
         "  --help          this text");
}

static bool chat_port(const char *text, long max, uint16_t *out)
{
    char *end;
    long port = strtol(text, &end, 10);
    if (end == text || *end || port < 0 || port > max) {
        fprintf(stderr, "chat: \"%s\" is no number from 0 to %ld\n", text, max);
        return false;
    }
    *out = (uint16_t)port;
    return true;
}

static bool chat_option(chat *self, int option)
{
    switch (option) {
    case 'i':
        self->ids = optarg;
        return true;
    case 'c':
        self->config_dir = optarg;
        return true;
    case 'e':
        self->env = optarg;
        return true;
    case 'b':
        return chat_port(optarg, 60000, &self->port_base);
    case 'a':
        self->host = optarg;
        return true;
    case 'w':
        return chat_port(optarg, 65535, &self->web_port);
    case 'r':
        self->web_root = optarg;
        return true;
    case 'm':
        return chat_port(optarg, 65535, &self->stats_port);
    case 's':
        self->rules.stable = true;
        return true;
    default:
        return false;
    }
}

/* -1: go on; else the status to exit with. */
static int chat_options(chat *self, int argc, char **argv)
{
    static const struct option options[] = {
        {"id", required_argument, NULL, 'i'},
        {"config", required_argument, NULL, 'c'},
        {"env", required_argument, NULL, 'e'},
        {"port-base", required_argument, NULL, 'b'},
        {"host", required_argument, NULL, 'a'},
        {"web-port", required_argument, NULL, 'w'},
        {"web-root", required_argument, NULL, 'r'},
        {"stats-port", required_argument, NULL, 'm'},
        {"stable", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            chat_help();
            return 0;
        }
        if (!chat_option(self, option))
            return 2;
    }
    return optind == argc ? -1 : 2;
}

/* servers.json lies beside the page's folder, wherever that was found. */
static void chat_find(chat *self, const char *program)
{
    self->has_page =
        page_find(&self->page, self->web_root, "examples/chat/web", program);
    if (!self->has_page)
        fputs("chat: no page found, see --web-root\n", stderr);
    if (self->config_dir)
        return;
    snprintf(self->config_found, sizeof self->config_found, "%s/../../config",
             self->page.root);
    self->config_dir = self->has_page && !access(self->config_found, R_OK)
                           ? self->config_found
                           : "examples/config";
}

int main(int argc, char **argv)
{
    chat self = {.env = "development",
                 .host = "127.0.0.1",
                 .port_base = CHAT_PORT_BASE,
                 .web_port = 3002};
    int status = chat_options(&self, argc, argv);
    pm_config *config;
    char why[512];
    pm_err err;
    if (status >= 0)
        return status;
    chat_find(&self, argv[0]);
    err = pm_config_load(&config, self.config_dir, self.env, why, sizeof why);
    if (err) {
        fprintf(stderr, "chat: %s\n", why);
        return 1;
    }
    err = chat_run(&self, config);
    pm_config_free(config);
    return err == PM_OK ? 0 : 1;
}
