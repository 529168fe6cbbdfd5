/* SPDX-License-Identifier: MIT */
/* test/bench/tls.c -- what TLS costs a server: memory of an idle session, time
 * of a handshake, CPU of an echo beside the same echo without TLS.
 *
 * The server is a process of its own, with a plain app and one of TLS on one
 * loop; this one plays the clients and looks at the other's CPU clock and
 * resident memory. Rounds of both kinds take turns. Run it alone:
 *
 *     build/test/bench/tls [sessions]     (500) */
#include "pomelo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define assert_true(x) ((x) ? (void)0 : bench_stop(#x))
#define assert_int_equal(a, b) assert_true((a) == (b))

static void bench_stop(const char *why)
{
    fprintf(stderr, "tls: %s\n", why);
    exit(1);
}

#include "test/test_certs.h"

enum {
    TALKERS = 50,
    AT_ONCE = 16,
    ECHOES = 20000,
    ROUNDS = 5,
    SESSIONS_MAX = 10000
};

typedef struct server_ports {
    uint16_t plain, tls;
} server_ports;

static certs_one authority, leaf;

/* ---- The server --------------------------------------------------------- */
static void serve_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static pm_app *serve(pm_loop *loop, const char *id, bool secure)
{
    pm_server server = {.id = id, .type = "bench", .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    pm_app *app = NULL;
    opts.loop = loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    if (secure) {
        opts.connector.tls.cert = leaf.cert;
        opts.connector.tls.key = leaf.key;
    }
    assert_int_equal(pm_app_new(&app, &opts), PM_OK);
    assert_int_equal(pm_app_handler(app, "bench.entry.echo", serve_echo, NULL),
                     PM_OK);
    assert_int_equal(pm_app_start(app), PM_OK);
    return app;
}

static void run_server(int out)
{
    pm_loop *loop = NULL;
    server_ports ports;
    assert_int_equal(pm_loop_new(&loop, NULL), PM_OK);
    ports.plain = pm_app_client_port(serve(loop, "plain-1", false));
    ports.tls = pm_app_client_port(serve(loop, "tls-1", true));
    assert_true(write(out, &ports, sizeof ports) == sizeof ports);
    pm_loop_run(loop);
}

/* ---- Clients ------------------------------------------------------------ */
typedef struct crowd {
    pm_loop *loop;
    pm_client *clients[SESSIONS_MAX];
    size_t connected, lost, asked, answered, wanted;
    char body[1100];
} crowd;

static void crowd_ask(crowd *c, pm_client *client);

static void crowd_answered(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    crowd *c = ctx;
    (void)body;
    if (err != PM_OK)
        return;
    c->answered++;
    crowd_ask(c, client);
}

static void crowd_ask(crowd *c, pm_client *client)
{
    if (c->asked < c->wanted &&
        pm_client_request(client, "bench.entry.echo", pm_body_text(c->body),
                          crowd_answered, c) == PM_OK)
        c->asked++;
}

static void crowd_connected(pm_client *client, const struct cJSON *user,
                            void *ctx)
{
    crowd *c = ctx;
    (void)client;
    (void)user;
    c->connected++;
}

static void crowd_lost(pm_client *client, pm_close_reason reason, int code,
                       void *ctx)
{
    crowd *c = ctx;
    (void)client;
    (void)code;
    fprintf(stderr, "lost: %s\n", pm_close_text(reason));
    c->lost++;
}

static void crowd_come(crowd *c, size_t count, uint16_t port, bool secure)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = c->loop;
    opts.port = port;
    opts.events.connected = crowd_connected;
    opts.events.disconnected = crowd_lost;
    opts.ctx = c;
    opts.tls.on = secure;
    opts.tls.ca = authority.cert;
    opts.connect_ms = 60000;
    c->connected = 0;
    for (size_t i = 0; c->connected < count;) {
        while (i < count && i < c->connected + AT_ONCE)
            assert_int_equal(pm_client_new(&c->clients[i++], &opts), PM_OK);
        pm_loop_poll(c->loop, 0);
        assert_true(c->lost == 0);
    }
}

static void crowd_leave(crowd *c, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pm_client_free(c->clients[i]);
    for (int i = 0; i < 100; i++)
        pm_loop_poll(c->loop, 0);
}

static void crowd_talk(crowd *c, size_t body_bytes)
{
    memset(c->body, 'x', body_bytes);
    c->body[0] = c->body[body_bytes - 1] = '"';
    c->body[body_bytes] = 0;
    c->asked = c->answered = 0;
    c->wanted = ECHOES;
    for (size_t i = 0; i < TALKERS; i++)
        crowd_ask(c, c->clients[i]);
    while (c->answered < c->wanted)
        pm_loop_poll(c->loop, 0);
}

/* ---- Looking ------------------------------------------------------------ */
static double cpu_us(pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &ts), 0);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double resident_bytes(pid_t pid)
{
    char path[64];
    unsigned long size = 0, pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "r");
    assert_true(file && fscanf(file, "%lu %lu", &size, &pages) == 2);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void look_memory(crowd *c, pid_t pid, size_t count, uint16_t port,
                        bool secure)
{
    double before = resident_bytes(pid), cpu = cpu_us(pid);
    crowd_come(c, count, port, secure);
    printf("%-6s %zu idle sessions: %.0f resident bytes each, "
           "%.0f us of CPU each to come\n",
           secure ? "TLS" : "plain", count,
           (resident_bytes(pid) - before) / (double)count,
           (cpu_us(pid) - cpu) / (double)count);
    crowd_leave(c, count);
}

static void look_echo(crowd *c, pid_t pid, const server_ports *ports,
                      size_t body_bytes)
{
    double spent[2] = {0};
    for (int round = 0; round < 2 * ROUNDS; round++) {
        bool secure = round & 1;
        crowd_come(c, TALKERS, secure ? ports->tls : ports->plain, secure);
        double before = cpu_us(pid);
        crowd_talk(c, body_bytes);
        spent[secure] += cpu_us(pid) - before;
        crowd_leave(c, TALKERS);
    }
    for (int i = 0; i < 2; i++)
        spent[i] /= (double)ROUNDS * ECHOES;
    printf("echo of %zu bytes: plain %.2f us, TLS %.2f us of CPU each, "
           "ratio %.2f\n",
           body_bytes, spent[0], spent[1], spent[1] / spent[0]);
}

int main(int argc, char **argv)
{
    static crowd c;
    size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 500;
    server_ports ports;
    int ends[2];
    if (count < 1 || count > SESSIONS_MAX)
        bench_stop("sessions: 1 to 10000");
    certs_authority(&authority, "authority");
    certs_leaf(&leaf, &authority, "bench", "ip4:127.0.0.1");
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        run_server(ends[1]);
        _exit(0);
    }
    assert_true(pid > 0 && read(ends[0], &ports, sizeof ports) == sizeof ports);
    assert_int_equal(pm_loop_new(&c.loop, NULL), PM_OK);
    look_memory(&c, pid, count, ports.plain, false);
    look_memory(&c, pid, count, ports.tls, true);
    look_echo(&c, pid, &ports, 64);
    look_echo(&c, pid, &ports, 1024);
    pm_loop_free(c.loop);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
