/* SPDX-License-Identifier: MIT */
/* test_flow_threads.c -- loops know nothing of each other: two threads with a
 * loop each and two apps on it, with tables of their own, talk to themselves
 * over real sockets at the same time, and four more threads post to them.
 * Then they post while the town's servers are freed and its loop ends. Quiet
 * under ThreadSanitizer. Then what only real sockets show of an app: addresses,
 * and who is refused. */
#include "flow.h"
#include "ports.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define TOWN_REQUESTS 300
#define TOWN_POSTERS 4
#define TOWN_POSTS 500

typedef struct town {
    test_heap heap;
    pm_loop *loop;
    pm_app *front, *back;
    pm_client *client;
    uint16_t rpc_port;
    int sent, answered, wrong;
    int posted[TOWN_POSTERS]; /* the last number of each poster */
    int posts, out_of_order;
} town;

/* ---- Callbacks, all on the town's own thread --------------------------- */

static void on_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static void town_ask(town *t);

static void town_done(town *t)
{
    if (t->answered == TOWN_REQUESTS && t->posts == TOWN_POSTERS * TOWN_POSTS)
        pm_loop_break(t->loop);
}

static void on_answered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    town *t = ctx;
    (void)client;
    t->answered++;
    if (err || body.data.len != 7)
        t->wrong++;
    if (t->sent < TOWN_REQUESTS)
        town_ask(t);
    town_done(t);
}

static void town_ask(town *t)
{
    const char *route = t->sent % 2 ? "chat.h.echo" : "connector.h.echo";
    t->sent++;
    if (pm_client_request(t->client, route, pm_body_text("{\"n\":7}"),
                          on_answered, t))
        t->wrong++;
}

static void on_connected(pm_client *client, const struct cJSON *user, void *ctx)
{
    town *t = ctx;
    (void)client;
    (void)user;
    for (int i = 0; i < 10; i++)
        town_ask(t);
}

typedef struct letter {
    town *to;
    int from, number;
} letter;

static void on_letter(void *arg)
{
    letter *l = arg;
    town *t = l->to;
    if (l->number != t->posted[l->from] + 1)
        t->out_of_order++;
    t->posted[l->from] = l->number;
    t->posts++;
    free(l);
    town_done(t);
}

/* ---- A town ------------------------------------------------------------ */

static pm_err town_app(town *t, const pm_server *servers, const char *id,
                       pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = t->loop;
    opts.servers = servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.client_bind = "127.0.0.1";
    opts.connector.use_dict = true;
    err = pm_app_new(out, &opts);
    if (err == PM_OK)
        err = pm_app_handler(*out, "connector.h.echo", on_echo, t);
    if (err == PM_OK)
        err = pm_app_handler(*out, "chat.h.echo", on_echo, t);
    return err ? err : pm_app_start(*out);
}

static pm_err town_client(town *t, uint16_t port)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = t->loop;
    opts.transport = PM_TRANSPORT_TCP;
    opts.port = port;
    opts.events.connected = on_connected;
    opts.ctx = t;
    return pm_client_new(&t->client, &opts);
}

static pm_err town_open(town *t, const char *name)
{
    char front[32], back[32];
    pm_server servers[2] = {
        {.id = front, .type = "connector", .frontend = true},
        {.id = back, .type = "chat"}};
    pm_loop_opts opts = pm_loop_opts_default();
    pm_err err;
    snprintf(front, sizeof front, "connector-%s", name);
    snprintf(back, sizeof back, "chat-%s", name);
    opts.alloc = test_alloc(&t->heap);
    servers[1].port = t->rpc_port;
    err = pm_loop_new(&t->loop, &opts);
    if (err == PM_OK)
        err = town_app(t, servers, back, &t->back);
    if (err == PM_OK)
        err = town_app(t, servers, front, &t->front);
    if (err == PM_OK)
        err = town_client(t, pm_app_client_port(t->front));
    return err;
}

static void town_close(town *t)
{
    pm_client_free(t->client);
    pm_app_free(t->front);
    pm_app_free(t->back);
    assert_ok(pm_loop_free(t->loop));
    assert_heap_empty(&t->heap);
}

static void *town_run(void *arg)
{
    town *t = arg;
    pm_loop_run(t->loop);
    return NULL;
}

typedef struct poster {
    town *towns;
    int number;
    int failed;
} poster;

static void *poster_run(void *arg)
{
    poster *p = arg;
    for (int i = 1; i <= TOWN_POSTS; i++)
        for (int to = 0; to < 2; to++) {
            letter *l = malloc(sizeof *l);
            if (!l) {
                p->failed++;
                continue;
            }
            l->to = &p->towns[to];
            l->from = p->number;
            l->number = i;
            if (pm_loop_post(p->towns[to].loop, on_letter, l))
                p->failed++;
        }
    return NULL;
}

static void test_two_towns(void **state)
{
    town *towns = calloc(2, sizeof *towns);
    poster posters[TOWN_POSTERS];
    pthread_t threads[2 + TOWN_POSTERS];
    (void)state;
    assert_non_null(towns);
    towns[0].rpc_port = test_free_port();
    towns[1].rpc_port = test_free_port();
    assert_ok(town_open(&towns[0], "east"));
    assert_ok(town_open(&towns[1], "west"));
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, town_run, &towns[i]),
                         0);
    for (int i = 0; i < TOWN_POSTERS; i++) {
        posters[i].towns = towns;
        posters[i].number = i;
        posters[i].failed = 0;
        assert_int_equal(
            pthread_create(&threads[2 + i], NULL, poster_run, &posters[i]), 0);
    }
    for (size_t i = 0; i < 2 + TOWN_POSTERS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(towns[i].answered, TOWN_REQUESTS);
        assert_int_equal(towns[i].wrong, 0);
        assert_int_equal(towns[i].posts, TOWN_POSTERS * TOWN_POSTS);
        assert_int_equal(towns[i].out_of_order, 0);
        town_close(&towns[i]);
    }
    free(towns);
}

/* ---- Posts until the end ------------------------------------------------ */

enum {
    END_POSTERS = 4,
    END_ROUNDS = 60,
    END_APPS_GO = 20,
    END_WAITING_MAX = 500
};

/* Threads post all the while; the loop is broken from another thread again and
 * again, its servers are freed in the middle, and when it is freed itself some
 * of what was posted has not run. */
typedef struct ending {
    town town;
    atomic_bool over;
    atomic_int posted, refused, ran;
} ending;

static void on_word(void *arg)
{
    ending *e = arg;
    atomic_fetch_add(&e->ran, 1);
}

static void on_apps_go(void *arg)
{
    ending *e = arg;
    pm_client_free(e->town.client);
    pm_app_free(e->town.front);
    pm_app_free(e->town.back);
    e->town.client = NULL;
    e->town.front = e->town.back = NULL;
    atomic_fetch_add(&e->ran, 1);
}

static void *ending_post(void *arg)
{
    ending *e = arg;
    while (!atomic_load(&e->over)) {
        if (atomic_load(&e->posted) - atomic_load(&e->ran) > END_WAITING_MAX)
            sched_yield(); /* who posts faster than it is read waits */
        else if (pm_loop_post(e->town.loop, on_word, e))
            atomic_fetch_add(&e->refused, 1);
        else
            atomic_fetch_add(&e->posted, 1);
    }
    return NULL;
}

static void *ending_break(void *arg)
{
    ending *e = arg;
    while (!atomic_load(&e->over))
        pm_loop_break(e->town.loop);
    return NULL;
}

static void test_posts_until_the_end(void **state)
{
    ending *e = calloc(1, sizeof *e);
    pthread_t threads[END_POSTERS + 1];
    (void)state;
    assert_non_null(e);
    e->town.rpc_port = test_free_port();
    assert_ok(town_open(&e->town, "north"));
    for (int i = 0; i < END_POSTERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ending_post, e), 0);
    assert_int_equal(
        pthread_create(&threads[END_POSTERS], NULL, ending_break, e), 0);
    for (int i = 0; i < END_ROUNDS; i++) {
        if (i == END_APPS_GO) {
            assert_ok(pm_loop_post(e->town.loop, on_apps_go, e));
            atomic_fetch_add(&e->posted, 1);
        }
        assert_ok(pm_loop_run(e->town.loop));
    }
    atomic_store(&e->over, true);
    for (int i = 0; i < END_POSTERS + 1; i++)
        pthread_join(threads[i], NULL);
    /* All calls have returned: what they have posted runs, each once ... */
    assert_true(e->ran > 0);
    while (e->ran < e->posted)
        pm_loop_poll(e->town.loop, 0);
    assert_int_equal(e->ran, e->posted);
    assert_int_equal(e->refused, 0);
    assert_null(e->town.front);
    /* ... or is dropped with the loop. */
    assert_ok(pm_loop_post(e->town.loop, on_word, e));
    town_close(&e->town);
    assert_int_equal(e->ran, e->posted);
    free(e);
}

/* ---- Who is refused ---------------------------------------------------- */

typedef struct door {
    test_heap heap;
    pm_loop *loop;
    pm_app *app;
    pm_client *client;
    int asked, connected, disconnected, handshakes;
    bool refuse, free_inside, stop_inside;
    char address[64];
} door;

static bool on_blacklist(const char *address, void *ctx)
{
    door *d = ctx;
    pm_app *app = d->app;
    d->asked++;
    snprintf(d->address, sizeof d->address, "%s", address);
    if (d->free_inside) {
        d->app = NULL;
        pm_app_free(app);
    }
    if (d->stop_inside)
        assert_ok(pm_app_stop(app, 0, NULL, NULL));
    return d->refuse;
}

static void on_in(pm_client *client, const struct cJSON *user, void *ctx)
{
    door *d = ctx;
    (void)client;
    (void)user;
    d->connected++;
    pm_loop_break(d->loop);
}

static void on_out(pm_client *client, pm_close_reason reason, int code,
                   void *ctx)
{
    door *d = ctx;
    (void)client;
    (void)reason;
    (void)code;
    d->disconnected++;
    pm_loop_break(d->loop);
}

static void door_knock(door *d, const char *blocked)
{
    pm_server server = {.id = "c", .type = "connector", .frontend = true};
    pm_loop_opts loop_opts = pm_loop_opts_default();
    pm_app_opts opts = pm_app_opts_default();
    pm_client_opts client = pm_client_opts_default();
    loop_opts.alloc = test_alloc(&d->heap);
    assert_ok(pm_loop_new(&d->loop, &loop_opts));
    opts.loop = d->loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.client_bind = "127.0.0.1";
    opts.connector.blacklist = on_blacklist;
    opts.connector.ctx = d;
    opts.connector.blocked = &blocked;
    opts.connector.blocked_count = 1;
    assert_ok(pm_app_new(&d->app, &opts));
    assert_ok(pm_app_start(d->app));
    client.loop = d->loop;
    client.port = pm_app_client_port(d->app);
    client.events.connected = on_in;
    client.events.disconnected = on_out;
    client.ctx = d;
    assert_ok(pm_client_new(&d->client, &client));
    assert_ok(pm_loop_run(d->loop));
    pm_client_free(d->client);
    pm_app_free(d->app);
    assert_ok(pm_loop_free(d->loop));
    assert_heap_empty(&d->heap);
}

static void test_blacklist(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        door d = {0};
        d.refuse = i == 1;
        d.free_inside = i == 2;
        d.stop_inside = i == 3;
        door_knock(&d, i == 4 ? "127.0.0.0/8" : "192.0.2.0/24");
        assert_int_equal(d.connected, i == 0 ? 1 : 0);
        assert_int_equal(d.disconnected, i == 0 ? 0 : 1);
        assert_int_equal(d.asked, i == 4 ? 0 : 1);
        if (i < 4)
            assert_string_equal(d.address, "127.0.0.1");
    }
}

static void test_blocked_must_be_cidr(void **state)
{
    pm_server server = {.id = "c", .type = "connector", .frontend = true};
    pm_app_opts opts = pm_app_opts_default();
    const char *blocked = "not a block";
    pm_app *app;
    pm_loop *loop;
    (void)state;
    assert_ok(pm_loop_new(&loop, NULL));
    opts.loop = loop;
    opts.servers = &server;
    opts.servers_count = 1;
    opts.connector.blocked = &blocked;
    opts.connector.blocked_count = 1;
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    assert_ok(pm_loop_free(loop));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_two_towns),
    cmocka_unit_test(test_posts_until_the_end),
    cmocka_unit_test(test_blacklist),
    cmocka_unit_test(test_blocked_must_be_cidr),
};

TEST_MAIN(tests)
