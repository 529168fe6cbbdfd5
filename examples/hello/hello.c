/* SPDX-License-Identifier: MIT */
/* hello.c -- the smallest game server, and a page with a button that asks it.
 *
 * What it shows: one server of a table, one handler, pm_run, a component.
 * How to run:    build/examples/hello/hello     (--help tells the options)
 * What you see:  "open http://localhost:3001"; there, press "Test Game Server"
 *                and the answer "game server is ok." comes with its time. */
#include "examples/page.h"

#include <getopt.h>

typedef struct hello {
    const char *host, *web_root;
    const char *tls_cert, *tls_key;
    uint16_t port, web_port;
    page page;
} hello;

/* The whole game: any body gets the same answer. */
static void hello_entry(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "{\"code\":200,\"msg\":\"game server is ok.\"}");
}

/* ---- The page is a component: it starts and stops with the app ---------- */

static pm_err hello_page_start(pm_app *app, void *ctx)
{
    hello *self = ctx;
    return page_start(&self->page, pm_app_loop(app), self->host,
                      self->web_port);
}

static void hello_page_stop(pm_app *app, void *ctx)
{
    hello *self = ctx;
    (void)app;
    page_stop(&self->page);
}

static pm_err hello_configure(pm_app *app, void *ctx)
{
    pm_component part = {
        .name = "page", .start = hello_page_start, .stop = hello_page_stop};
    pm_err err =
        pm_app_handler(app, "connector.entryHandler.entry", hello_entry, NULL);
    return err ? err : pm_app_component(app, &part, ctx);
}

/* The page looks at port 3010, without TLS, unless its address says otherwise.
 */
static void hello_started(pm_loop *loop, pm_app *const *apps, size_t count,
                          void *ctx)
{
    const hello *self = ctx;
    unsigned port = pm_app_client_port(apps[0]);
    (void)loop;
    (void)count;
    printf("open http://%s:%u",
           strcmp(self->host, "127.0.0.1") ? self->host : "localhost",
           (unsigned)page_port(&self->page));
    if (port != 3010 || self->tls_cert)
        printf("/?port=%u%s", port, self->tls_cert ? "&secure=1" : "");
    printf("\n");
    fflush(stdout);
}

/* ---- Options ------------------------------------------------------------ */

static void hello_help(void)
{
    puts("usage: hello [options]\n"
         "  --port N        port of the game server (3010; 0: any)\n"
         "  --web-port N    port of the page (3001; 0: any)\n"
         "  --tls-cert FILE, --tls-key FILE  PEM: the game server speaks wss\n"
         "  --host ADDRESS  where both listen (127.0.0.1)\n"
         "  --web-root DIR  the page's folder (examples/hello/web)\n"
         "  --help          this text");
}

static bool hello_port(const char *text, uint16_t *out)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    *out = (uint16_t)port;
    return *text && !*end && port <= UINT16_MAX;
}

/* -1: go on; else the status to exit with. */
static int hello_options(hello *self, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"web-port", required_argument, NULL, 'w'},
        {"host", required_argument, NULL, 'a'},
        {"tls-cert", required_argument, NULL, 'c'},
        {"tls-key", required_argument, NULL, 'k'},
        {"web-root", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int option;
    bool good = true;
    while (good && (option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'p':
            good = hello_port(optarg, &self->port);
            break;
        case 'w':
            good = hello_port(optarg, &self->web_port);
            break;
        case 'a':
            self->host = optarg;
            break;
        case 'c':
            self->tls_cert = optarg;
            break;
        case 'k':
            self->tls_key = optarg;
            break;
        case 'r':
            self->web_root = optarg;
            break;
        case 'h':
            hello_help();
            return 0;
        default:
            good = false;
        }
    if (good && optind == argc)
        return -1;
    fputs("hello: see --help\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    hello self = {.host = "127.0.0.1", .port = 3010, .web_port = 3001};
    int status = hello_options(&self, argc, argv);
    if (status >= 0)
        return status;
    if (!page_find(&self.page, self.web_root, "examples/hello/web", argv[0])) {
        fputs("hello: no page found, see --web-root\n", stderr);
        return 1;
    }
    pm_server server = {.id = "connector-1",
                        .type = "connector",
                        .client_port = self.port,
                        .frontend = true};
    pm_app_opts app = pm_app_opts_default();
    pm_run_opts run = pm_run_opts_default();
    app.connector.heartbeat_s = 3;
    app.connector.use_dict = true;
    app.client_bind = self.host;
    app.connector.tls.cert = self.tls_cert;
    app.connector.tls.key = self.tls_key;
    run.servers = &server;
    run.servers_count = 1;
    run.app = &app;
    run.started = hello_started;
    return pm_run(&run, hello_configure, &self) == PM_OK ? 0 : 1;
}
