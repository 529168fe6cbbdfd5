/* SPDX-License-Identifier: MIT */
/* test/test_flow_tls.c -- TLS as an application meets it: clients on a TLS
 * port, who believe only the right certificate; links between servers, where
 * both sides show one; certificates that are replaced while all runs. Over real
 * sockets, on two loops, so that nothing goes through memory. */
#include "test.h"

#include "ports.h"
#include "test_certs.h"

#include <time.h>

enum { LOG_MAX = 64 * 1024, BIG = 300 * 1024, PLAYERS = 8, AT_ONCE = 32 };

typedef struct player {
    struct town *town;
    pm_client *client;
    int connected, disconnected, answers, pushes;
    size_t asked;
    bool busy; /* asks again with each answer */
    size_t last_len;
    pm_close_reason why;
} player;

typedef struct town {
    test_heap heap;
    pm_loop *loops[2];
    pm_app *front, *back;
    uint16_t ports[3]; /* rpc of the front, rpc of the back, clients */
    pm_server servers[2];
    player players[PLAYERS];
    char log[LOG_MAX];
    size_t log_len;
    int calls;
    pm_err call_err;
} town;

static certs_one authority, other_authority, host, other_host, front_cert,
    back_cert, wrong_back, stranger;

/* ---- A town ------------------------------------------------------------- */
static void town_log(void *ctx, pm_log_level level, const char *module,
                     const char *line)
{
    town *t = ctx;
    int n = snprintf(t->log + t->log_len, LOG_MAX - t->log_len, "%s: %s\n",
                     module, line);
    (void)level;
    if (n > 0 && (size_t)n < LOG_MAX - t->log_len)
        t->log_len += (size_t)n;
}

static bool town_logged(const town *t, const char *text)
{
    return strstr(t->log, text) != NULL;
}

static void town_forget(town *t)
{
    t->log_len = 0;
    t->log[0] = 0;
}

static uint64_t clock_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void town_turn(town *t)
{
    for (int i = 0; i < 2; i++)
        if (t->loops[i])
            pm_loop_poll(t->loops[i], 0);
}

#define TOWN_UNTIL(t, condition)                                               \
    do {                                                                       \
        uint64_t end_ = clock_ms() + 30000;                                    \
        while (!(condition)) {                                                 \
            town_turn(t);                                                      \
            if (clock_ms() > end_)                                             \
                fail_msg("in vain: %s\n%s", #condition, (t)->log);             \
        }                                                                      \
    } while (0)

static void serve_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static void serve_big(pm_request *req, void *ctx)
{
    char *text = malloc(BIG + 3);
    (void)ctx;
    memset(text, 'x', BIG);
    text[0] = text[BIG] = '"';
    text[BIG + 1] = 0;
    pm_reply_text(req, text);
    free(text);
}

static void remote_double(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_body_text("2"));
}

static pm_tls_opts tls_of(const certs_one *cert, const certs_one *ca)
{
    pm_tls_opts tls = {cert->cert, cert->key, ca->cert, false};
    return tls;
}

static pm_app_opts town_opts(town *t, int which)
{
    pm_app_opts opts = pm_app_opts_default();
    opts.loop = t->loops[which];
    opts.servers = t->servers;
    opts.servers_count = 2;
    opts.server_id = t->servers[which].id;
    opts.rpc.reconnect_ms_max = 100;
    opts.log = town_log;
    opts.log_ctx = t;
    opts.log_level = PM_LOG_DEBUG;
    return opts;
}

static pm_err town_app(const pm_app_opts *opts, pm_app **out)
{
    pm_err err = pm_app_new(out, opts);
    if (err == PM_OK)
        err = pm_app_handler(*out, "front.entry.echo", serve_echo, NULL);
    if (err == PM_OK)
        err = pm_app_handler(*out, "front.entry.big", serve_big, NULL);
    if (err == PM_OK)
        err = pm_app_handler(*out, "back.entry.echo", serve_echo, NULL);
    if (err == PM_OK)
        err = pm_app_remote(*out, "back.remote.double", remote_double, NULL);
    return err ? err : pm_app_start(*out);
}

static pm_err town_loops(town *t)
{
    pm_loop_opts opts = pm_loop_opts_default();
    pm_err err = PM_OK;
    opts.alloc = test_alloc(&t->heap);
    opts.log = town_log;
    opts.log_ctx = t;
    for (int i = 0; i < 3; i++)
        t->ports[i] = test_free_port();
    for (int i = 0; i < 2 && err == PM_OK; i++)
        err = pm_loop_new(&t->loops[i], &opts);
    t->servers[0] = (pm_server){.id = "front-1",
                                .type = "front",
                                .host = "127.0.0.1",
                                .port = t->ports[0],
                                .client_port = t->ports[2],
                                .frontend = true};
    t->servers[1] = (pm_server){.id = "back-1",
                                .type = "back",
                                .host = "127.0.0.1",
                                .port = t->ports[1]};
    return err;
}

static void town_end(town *t)
{
    for (int i = 0; i < PLAYERS; i++)
        pm_client_free(t->players[i].client);
    pm_app_free(t->front);
    pm_app_free(t->back);
    for (int i = 0; i < 2; i++)
        if (t->loops[i])
            assert_ok(pm_loop_free(t->loops[i]));
    assert_heap_empty(&t->heap);
    free(t);
}

/* Only the front, with this certificate on its client port (NULL: plain). */
static town *town_front(const certs_one *cert)
{
    town *t = calloc(1, sizeof *t);
    assert_ok(town_loops(t));
    pm_app_opts opts = town_opts(t, 0);
    if (cert)
        opts.connector.tls = tls_of(cert, &authority);
    assert_ok(town_app(&opts, &t->front));
    return t;
}

/* ---- Players ------------------------------------------------------------ */
static void player_ask(player *p);

static void player_connected(pm_client *client, const struct cJSON *user,
                             void *ctx)
{
    player *p = ctx;
    (void)client;
    (void)user;
    p->connected++;
    for (int i = 0; p->busy && i < AT_ONCE; i++)
        player_ask(p);
}

static void player_lost(pm_client *client, pm_close_reason reason, int code,
                        void *ctx)
{
    player *p = ctx;
    (void)client;
    (void)code;
    p->disconnected++;
    p->why = reason;
}

static void player_answered(pm_client *client, pm_err err, pm_body body,
                            void *ctx)
{
    player *p = ctx;
    (void)client;
    if (err != PM_OK)
        return;
    p->answers++;
    p->last_len = body.data.len;
    if (p->busy)
        player_ask(p);
}

static void player_ask(player *p)
{
    if (pm_client_request(p->client, "front.entry.echo",
                          pm_body_text("{\"n\":1}"), player_answered,
                          p) == PM_OK)
        p->asked++;
}

static pm_client_opts player_opts(town *t, int i)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = t->loops[1];
    opts.port = t->ports[2];
    opts.events.connected = player_connected;
    opts.events.disconnected = player_lost;
    opts.ctx = &t->players[i];
    opts.tls.on = true;
    opts.tls.ca = authority.cert;
    return opts;
}

static player *player_comes(town *t, int i, const pm_client_opts *opts)
{
    player *p = &t->players[i];
    pm_client_free(p->client);
    *p = (player){.town = t};
    assert_ok(pm_client_new(&p->client, opts));
    return p;
}

typedef struct sought {
    const char *result;
    uint64_t value;
} sought;

static bool seek(const pm_stat *stat, void *ctx)
{
    sought *s = ctx;
    if (!strcmp(stat->name, "pomelo_tls_handshakes_total") &&
        strstr(stat->labels, s->result))
        s->value += stat->value;
    return true;
}

static uint64_t town_count(town *t, const char *result)
{
    sought s = {result, 0};
    pm_stats_each(t->front, seek, &s);
    return s.value;
}

static void test_clients(void **state)
{
    static const pm_transport ways[] = {PM_TRANSPORT_TCP, PM_TRANSPORT_WS};
    char *large = malloc(60 * 1024 + 3);
    town *t = town_front(&host);
    (void)state;
    memset(large, 'y', 60 * 1024);
    large[0] = large[60 * 1024] = '"';
    large[60 * 1024 + 1] = 0;
    for (size_t i = 0; i < 2; i++) {
        pm_client_opts opts = player_opts(t, 0);
        opts.transport = ways[i];
        opts.host = i ? "localhost" : "127.0.0.1";
        player *p = player_comes(t, 0, &opts);
        TOWN_UNTIL(t, p->connected);
        player_ask(p);
        TOWN_UNTIL(t, p->answers == 1);
        assert_int_equal(p->last_len, 7);
        assert_ok(pm_client_request(p->client, "front.entry.echo",
                                    pm_body_text(large), player_answered, p));
        TOWN_UNTIL(t, p->answers == 2);
        assert_int_equal(p->last_len, 60 * 1024 + 1);
        assert_ok(pm_client_request(p->client, "front.entry.big",
                                    pm_body_none(), player_answered, p));
        TOWN_UNTIL(t, p->answers == 3);
        assert_int_equal(p->last_len, BIG + 1);
        pm_client_disconnect(p->client);
        TOWN_UNTIL(t, p->disconnected);
        TOWN_UNTIL(t, town_logged(t, "closed: closed by the client"));
        town_forget(t);
        assert_int_equal(town_count(t, "\"done\""), i + 1);
    }
    assert_int_equal(town_count(t, "\"failed\""), 0);
    free(large);
    town_end(t);
}

/* With one handshake at a time, who comes in the middle of one is sent away. */
static void test_many_at_once(void **state)
{
    town *t = calloc(1, sizeof *t);
    size_t in = 0, away = 0;
    (void)state;
    assert_ok(town_loops(t));
    pm_app_opts opts = town_opts(t, 0);
    opts.connector.tls = tls_of(&host, &authority);
    opts.limits.tls_handshakes = 1;
    assert_ok(town_app(&opts, &t->front));
    for (int i = 0; i < PLAYERS; i++) {
        pm_client_opts who = player_opts(t, i);
        player_comes(t, i, &who);
    }
    for (int i = 0; i < PLAYERS; i++) {
        const player *p = &t->players[i];
        TOWN_UNTIL(t, p->connected || p->disconnected);
        in += p->connected > 0;
        away += p->disconnected > 0;
    }
    assert_true(in > 0 && away > 0);
    assert_int_equal(town_count(t, "\"done\""), in);
    assert_int_equal(town_count(t, "\"refused\""), away);
    town_end(t);
}

static bool kick_one(pm_session *session, void *ctx)
{
    (void)ctx;
    assert_ok(pm_session_kick(session, NULL, NULL, NULL));
    return true;
}

/* Who comes again shows the ticket of the first time. */
static void test_ticket(void **state)
{
    town *t = town_front(&host);
    pm_client_opts opts = player_opts(t, 0);
    player *p;
    (void)state;
    opts.reconnect = true;
    p = player_comes(t, 0, &opts);
    TOWN_UNTIL(t, p->connected == 1);
    player_ask(p);
    TOWN_UNTIL(t, p->answers == 1);
    assert_int_equal(town_count(t, "\"resumed\""), 0);
    assert_int_equal(pm_session_each(t->front, NULL, kick_one, NULL), 1);
    TOWN_UNTIL(t, p->connected == 2);
    assert_int_equal(town_count(t, "\"done\""), 2);
    assert_int_equal(town_count(t, "\"resumed\""), 1);
    town_end(t);
}

static void test_wrong_clients(void **state)
{
    static const char *const names[] = {"127.0.0.2", "example.com"};
    town *t = town_front(&host);
    (void)state;
    for (int i = 0; i < 2; i++) { /* made out to somebody else */
        pm_client_opts opts = player_opts(t, 0);
        opts.tls.name = names[i];
        player *p = player_comes(t, 0, &opts);
        TOWN_UNTIL(t, p->disconnected);
        assert_int_equal(p->why, PM_CLOSE_TLS);
        assert_int_equal(p->connected, 0);
        assert_true(town_logged(t, names[i]));
        TOWN_UNTIL(t, town_logged(t, "closed: TLS failure"));
        town_forget(t);
    }
    pm_client_opts opts = player_opts(t, 0);
    opts.tls.ca = other_authority.cert; /* believed by nobody */
    player *p = player_comes(t, 0, &opts);
    TOWN_UNTIL(t, p->disconnected);
    assert_int_equal(p->why, PM_CLOSE_TLS);
    assert_true(town_logged(t, "not correctly signed by the trusted CA"));
    opts.tls.ca = NULL; /* by no authority of the system either */
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) == 0) {
        p = player_comes(t, 0, &opts);
        TOWN_UNTIL(t, p->disconnected);
        assert_int_equal(p->why, PM_CLOSE_TLS);
    }
    opts.tls.insecure = true;
    p = player_comes(t, 0, &opts);
    TOWN_UNTIL(t, p->connected);
    opts.tls.insecure = false;
    opts.tls.ca = "/nowhere.pem";
    pm_client *none = NULL;
    assert_err(pm_client_new(&none, &opts), PM_ECONFIG);
    assert_null(none);
    town_end(t);
}

/* Each mistake has its own reason. */
static void test_plain_and_not(void **state)
{
    (void)state;
    for (int ws = 0; ws < 2; ws++) {
        town *t = town_front(&host);
        pm_client_opts opts = player_opts(t, 0);
        opts.tls.on = false;
        opts.transport = ws ? PM_TRANSPORT_WS : PM_TRANSPORT_TCP;
        player *p = player_comes(t, 0, &opts);
        TOWN_UNTIL(t, p->disconnected);
        assert_int_equal(p->connected, 0);
        TOWN_UNTIL(t, town_logged(t, "closed: plain bytes on a TLS port"));
        town_end(t);
        t = town_front(NULL);
        opts = player_opts(t, 0);
        opts.transport = ws ? PM_TRANSPORT_WS : PM_TRANSPORT_TCP;
        p = player_comes(t, 0, &opts);
        TOWN_UNTIL(t, p->disconnected);
        assert_int_equal(p->why, PM_CLOSE_TLS);
        TOWN_UNTIL(t, town_logged(t, "closed: TLS on a plain port"));
        town_end(t);
    }
}

/* request_cert: clients show one as well. */
static void test_client_certificates(void **state)
{
    town *t = calloc(1, sizeof *t);
    (void)state;
    assert_ok(town_loops(t));
    pm_app_opts opts = town_opts(t, 0);
    opts.connector.tls = tls_of(&host, &authority);
    opts.connector.tls.request_cert = true;
    assert_ok(town_app(&opts, &t->front));
    const certs_one *shown[] = {NULL, &stranger, &other_host};
    for (int i = 0; i < 3; i++) {
        pm_client_opts client = player_opts(t, 0);
        client.tls.cert = shown[i] ? shown[i]->cert : NULL;
        client.tls.key = shown[i] ? shown[i]->key : NULL;
        player *p = player_comes(t, 0, &client);
        TOWN_UNTIL(t, p->connected || p->disconnected);
        assert_int_equal(p->connected, i == 2);
        if (i < 2)
            TOWN_UNTIL(t, town_logged(t, "closed: TLS failure"));
        town_forget(t);
    }
    town_end(t);
}

/* ---- Links -------------------------------------------------------------- */
static void town_called(const pm_rpc_result *result, void *ctx)
{
    town *t = ctx;
    t->calls++;
    t->call_err = result->err;
}

static pm_err town_call(town *t)
{
    int before = t->calls;
    pm_rpc_opts opts = pm_rpc_opts_default();
    opts.server_id = "back-1";
    opts.method = "back.remote.double";
    opts.args = pm_body_text("[1]");
    opts.deadline_ms = 20000;
    pm_err err = pm_rpc_call(t->front, &opts, town_called, t, NULL);
    if (err)
        return err;
    TOWN_UNTIL(t, t->calls > before);
    return t->call_err;
}

/* Each with its own tls (NULL: plain). */
static town *town_pair(const pm_tls_opts *front, const pm_tls_opts *back)
{
    town *t = calloc(1, sizeof *t);
    assert_ok(town_loops(t));
    pm_app_opts opts = town_opts(t, 1);
    if (back)
        opts.rpc.tls = *back;
    assert_ok(town_app(&opts, &t->back));
    opts = town_opts(t, 0);
    if (front)
        opts.rpc.tls = *front;
    assert_ok(town_app(&opts, &t->front));
    return t;
}

static void test_links(void **state)
{
    pm_tls_opts front = tls_of(&front_cert, &authority);
    pm_tls_opts back = tls_of(&back_cert, &authority);
    town *t = town_pair(&front, &back);
    (void)state;
    for (int i = 0; i < 10; i++)
        assert_ok(town_call(t));
    assert_false(town_logged(t, "refused"));
    /* Others come while the link lives, and after it was broken. */
    assert_ok(pm_app_tls_reload(t->front, NULL, &front));
    assert_ok(pm_app_tls_reload(t->back, NULL, NULL));
    assert_ok(town_call(t));
    town_end(t);
}

typedef struct link_case {
    const certs_one *front, *front_ca, *back, *back_ca; /* NULL: plain */
    const char *why;                                    /* in the log */
} link_case;

static void test_wrong_links(void **state)
{
    const link_case cases[] = {
        /* The one who dials is of another authority, or of none. */
        {&stranger, &authority, &back_cert, &authority,
         "a link was refused: TLS failure"},
        /* He who is dialled is: the dialler does not believe him. */
        {&front_cert, &authority, &stranger, &authority, "trusted CA"},
        {&front_cert, &other_authority, &back_cert, &authority, "trusted CA"},
        /* Of the right one, but made out to another server. */
        {&wrong_back, &authority, &back_cert, &authority,
         "front-1: its certificate does not name it"},
        {&front_cert, &authority, &wrong_back, &authority,
         "back-1: its certificate does not name it"},
        {NULL, NULL, &back_cert, &authority,
         "a link was refused: plain bytes on a TLS port"},
        {&front_cert, &authority, NULL, NULL,
         "a link was refused: TLS on a plain port"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const link_case *c = &cases[i];
        pm_tls_opts front, back;
        if (c->front)
            front = tls_of(c->front, c->front_ca);
        if (c->back)
            back = tls_of(c->back, c->back_ca);
        town *t = town_pair(c->front ? &front : NULL, c->back ? &back : NULL);
        pm_err err = town_call(t);
        assert_true(err == PM_EDOWN || err == PM_ECLOSED);
        TOWN_UNTIL(t, town_logged(t, c->why));
        town_end(t);
    }
}

static void test_wrong_options(void **state)
{
    town *t = calloc(1, sizeof *t);
    pm_app *app = NULL;
    (void)state;
    assert_ok(town_loops(t));
    pm_app_opts opts = town_opts(t, 0);
    opts.rpc.tls.cert = front_cert.cert;
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    assert_true(town_logged(t, "expected all of cert, key and ca"));
    opts = town_opts(t, 0);
    opts.connector.tls.cert = host.cert;
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    assert_true(town_logged(t, "expected both `cert` and `key`"));
    opts.connector.tls.key = "/nowhere/key.pem";
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    assert_true(town_logged(t, "key: /nowhere/key.pem: the file"));
    assert_null(app);
    /* Off loopback TLS needs no leave for plain bytes. */
    opts = town_opts(t, 0);
    opts.rpc_bind = "0.0.0.0";
    assert_ok(pm_app_new(&app, &opts));
    assert_err(pm_app_start(app), PM_ECONFIG);
    assert_true(town_logged(t, "it needs rpc.tls or rpc.secret"));
    pm_app_free(app);
    opts.rpc.tls = tls_of(&front_cert, &authority);
    assert_ok(pm_app_new(&app, &opts));
    assert_ok(pm_app_start(app));
    pm_app_free(app);
    town_end(t);
}

/* ---- Certificates are replaced ------------------------------------------ */
/* Seven players ask without a pause, 32 questions under way each; the
 * certificate changes twenty times. Not one answer is lost, nobody is sent
 * away, and who comes sees the new one. */
static void test_reload_under_load(void **state)
{
    town *t = town_front(&host);
    const certs_one *used[] = {&host, &other_host};
    (void)state;
    for (int i = 0; i < PLAYERS - 1; i++) {
        pm_client_opts opts = player_opts(t, i);
        opts.transport = i & 1 ? PM_TRANSPORT_WS : PM_TRANSPORT_TCP;
        opts.tls.name = "localhost";
        player *p = player_comes(t, i, &opts);
        p->busy = true;
    }
    for (int i = 0; i < PLAYERS - 1; i++)
        TOWN_UNTIL(t, t->players[i].answers > 3);
    for (int round = 0; round < 20; round++) {
        pm_tls_opts next = tls_of(used[round & 1], &authority);
        assert_ok(pm_app_tls_reload(t->front, &next, NULL));
        int answers = t->players[0].answers;
        pm_client_opts opts = player_opts(t, PLAYERS - 1);
        opts.tls.name = round & 1 ? "other.test" : "host.test";
        player *late = player_comes(t, PLAYERS - 1, &opts);
        TOWN_UNTIL(t, late->connected);
        opts.tls.name = round & 1 ? "host.test" : "other.test";
        late = player_comes(t, PLAYERS - 1, &opts);
        TOWN_UNTIL(t, late->disconnected);
        assert_int_equal(late->why, PM_CLOSE_TLS);
        TOWN_UNTIL(t, t->players[0].answers > answers);
    }
    size_t asked = 0, answered = 0;
    for (int i = 0; i < PLAYERS - 1; i++) {
        player *p = &t->players[i];
        p->busy = false;
        TOWN_UNTIL(t, (size_t)p->answers == p->asked);
        assert_int_equal(p->disconnected, 0);
        assert_int_equal(p->connected, 1);
        asked += p->asked;
        answered += (size_t)p->answers;
    }
    assert_int_equal(asked, answered);
    print_message("%zu requests, 20 certificates, none lost\n", asked);
    town_end(t);
}

static void test_wrong_reloads(void **state)
{
    town *t = town_front(&host);
    pm_tls_opts good = tls_of(&other_host, &authority), bad = good;
    (void)state;
    bad.key = host.key;
    assert_err(pm_app_tls_reload(t->front, &bad, NULL), PM_ECONFIG);
    assert_true(town_logged(t, "it is not that of `cert`"));
    bad.cert = NULL;
    assert_err(pm_app_tls_reload(t->front, &bad, NULL), PM_EINVAL);
    assert_err(pm_app_tls_reload(t->front, NULL, &good), PM_ESTATE);
    assert_ok(pm_app_tls_reload(t->front, NULL, NULL));
    pm_client_opts opts = player_opts(t, 0);
    opts.tls.name = "host.test"; /* still the first one */
    player *p = player_comes(t, 0, &opts);
    TOWN_UNTIL(t, p->connected);
    town_end(t);
    t = town_front(NULL);
    assert_err(pm_app_tls_reload(t->front, &good, NULL), PM_ESTATE);
    assert_err(pm_app_tls_reload(t->front, NULL, NULL), PM_ESTATE);
    town_end(t);
}

/* ---- Memory ------------------------------------------------------------- */
/* Server, client, one request; ends early when memory does. */
static bool memory_story(town *t)
{
    if (town_loops(t) != PM_OK)
        return false;
    pm_app_opts opts = town_opts(t, 0);
    opts.connector.tls = tls_of(&host, &authority);
    opts.rpc.tls = tls_of(&front_cert, &authority);
    pm_err err = town_app(&opts, &t->front);
    if (err) {
        assert_err(err, PM_ENOMEM);
        return false;
    }
    pm_client_opts client = player_opts(t, 0);
    player *p = &t->players[0];
    err = pm_client_new(&p->client, &client);
    if (err) {
        assert_err(err, PM_ENOMEM);
        return false;
    }
    uint64_t end = clock_ms() + 5000;
    while (!p->answers && !p->disconnected && clock_ms() < end) {
        town_turn(t);
        if (p->connected && !p->asked)
            player_ask(p);
        if (p->connected && !p->asked)
            return false;
        if (t->heap.failed && p->asked && !p->answers &&
            clock_ms() + 4900 > end)
            break;
    }
    return p->answers == 1;
}

static void test_no_memory(void **state)
{
    (void)state;
    town *t = calloc(1, sizeof *t);
    TEST_EACH_FAILURE(&t->heap)
    {
        bool good = memory_story(t);
        if (!t->heap.failed)
            assert_true(good);
        pm_client_free(t->players[0].client);
        pm_app_free(t->front);
        t->front = NULL;
        t->players[0] = (player){0};
        for (int i = 0; i < 2; i++) {
            if (t->loops[i])
                assert_ok(pm_loop_free(t->loops[i]));
            t->loops[i] = NULL;
        }
    }
    free(t);
}

static int make_certs(void **state)
{
    (void)state;
    certs_authority(&authority, "authority");
    certs_authority(&other_authority, "other authority");
    certs_leaf(&host, &authority, "host",
               "dns:localhost dns:host.test ip4:127.0.0.1");
    certs_leaf(&other_host, &authority, "other",
               "dns:localhost dns:other.test ip4:127.0.0.1");
    certs_leaf(&front_cert, &authority, "any", "dns:front-1");
    certs_leaf(&back_cert, &authority, "back-1", NULL);
    certs_leaf(&wrong_back, &authority, "back-2", NULL);
    certs_leaf(&stranger, &other_authority, "back-1", "dns:front-1 dns:back-1");
    return 0;
}

static int free_certs(void **state)
{
    certs_one *all[] = {&authority,  &other_authority, &host,       &other_host,
                        &front_cert, &back_cert,       &wrong_back, &stranger};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        certs_free(all[i]);
    return 0;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_clients),
    cmocka_unit_test(test_many_at_once),
    cmocka_unit_test(test_ticket),
    cmocka_unit_test(test_wrong_clients),
    cmocka_unit_test(test_plain_and_not),
    cmocka_unit_test(test_client_certificates),
    cmocka_unit_test(test_links),
    cmocka_unit_test(test_wrong_links),
    cmocka_unit_test(test_wrong_options),
    cmocka_unit_test(test_reload_under_load),
    cmocka_unit_test(test_wrong_reloads),
    cmocka_unit_test(test_no_memory),
};

int main(void)
{
    test_deadline(3 * TEST_DEADLINE_S);
    return cmocka_run_group_tests(tests, make_certs, free_certs);
}
