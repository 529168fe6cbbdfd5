/* SPDX-License-Identifier: MIT */
/* test_client_resume.c -- pm_client's side of a session that outlives its
 * connection: what it tells, what it keeps, when it gives up; with each
 * allocation refused once. Start at trip_start(). */
#include "flow.h"
#include "relay.h"

typedef struct trip {
    flow f; /* first: a story is a flow */
    relay wire;
    pm_connector_opts opts;
    cJSON *user;
    int opened, closed, suspended, resumed; /* at the server */
    int away, again, asked, told, failed;
    pm_close_reason away_why, server_why;
    pm_request *held;
    uint64_t count; /* of notifies that came */
    pm_client *free_this;
    char said[512]; /* the client's user part */
} trip;

/* ---- The server ---------------------------------------------------------- */

static void on_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_body(req, pm_request_body(req));
}

static void on_hold(pm_request *req, void *ctx)
{
    trip *t = ctx;
    t->held = req;
}

static void on_tell(pm_request *req, void *ctx)
{
    ((trip *)ctx)->count++;
    pm_request_drop(req);
}

static void on_opened(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    (void)session;
    ((trip *)ctx)->opened++;
}

static void on_closed(pm_app *app, pm_session *session, pm_close_reason why,
                      void *ctx)
{
    trip *t = ctx;
    (void)app;
    (void)session;
    t->closed++;
    t->server_why = why;
}

static void on_suspended(pm_app *app, pm_session *session, pm_close_reason why,
                         void *ctx)
{
    (void)app;
    (void)session;
    (void)why;
    ((trip *)ctx)->suspended++;
}

static void on_resumed(pm_app *app, pm_session *session, void *ctx)
{
    trip *t = ctx;
    (void)app;
    t->resumed++;
    pm_session_push(session, "onBack", pm_body_text("{}"));
}

static void on_handshake(pm_handshake *hs, const struct cJSON *msg, void *ctx)
{
    trip *t = ctx;
    char *text = NULL;
    if (pm_json_text(msg, &text) == PM_OK)
        snprintf(t->said, sizeof t->said, "%s", text);
    pm_text_free(text);
    pm_handshake_done(hs, PM_OK, NULL);
}

static pm_err trip_app(trip *t)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    pm_err err;
    opts.loop = t->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 2;
    opts.server_id = "connector-1";
    opts.connector = t->opts;
    opts.connector.handshake = on_handshake;
    opts.connector.ctx = t;
    err = pm_app_new(&t->f.front, &opts);
    events.session_opened = on_opened;
    events.session_closed = on_closed;
    events.session_suspended = on_suspended;
    events.session_resumed = on_resumed;
    if (err == PM_OK)
        err = pm_app_listen(t->f.front, &events, t);
    if (err == PM_OK)
        err = pm_app_handler(t->f.front, "connector.h.echo", on_echo, t);
    if (err == PM_OK)
        err = pm_app_handler(t->f.front, "connector.h.hold", on_hold, t);
    if (err == PM_OK)
        err = pm_app_handler(t->f.front, "connector.h.tell", on_tell, t);
    return err == PM_OK ? pm_app_start(t->f.front) : err;
}

/* ---- The client ---------------------------------------------------------- */

static void trip_free(trip *t)
{
    pm_client *client = t->free_this;
    if (!client)
        return;
    t->free_this = t->f.client = NULL;
    pm_client_free(client);
}

static void on_away(pm_client *client, pm_close_reason why, void *ctx)
{
    trip *t = ctx;
    (void)client;
    t->away++;
    t->away_why = why;
    flow_note(&t->f, "suspended");
    trip_free(t);
}

static void on_again(pm_client *client, void *ctx)
{
    trip *t = ctx;
    (void)client;
    t->again++;
    flow_note(&t->f, "resumed");
    trip_free(t);
}

static void on_answered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    trip *t = ctx;
    t->told++;
    t->failed += err != PM_OK;
    flow_answered(client, err, body, &t->f);
}

static pm_err trip_client(trip *t)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = t->f.loop;
    opts.transport = PM_TRANSPORT_MEMORY;
    opts.port = t->wire.port;
    opts.user = t->user;
    opts.reconnect = opts.resume = true;
    opts.connect_ms = 1000;
    opts.events.connected = flow_connected;
    opts.events.pushed = flow_pushed;
    opts.events.kicked = flow_kicked;
    opts.events.disconnected = flow_disconnected;
    opts.events.suspended = on_away;
    opts.events.resumed = on_again;
    opts.ctx = t;
    return pm_client_new(&t->f.client, &opts);
}

static pm_err trip_start(trip *t)
{
    pm_err err = flow_loop(&t->f, 1);
    if (err == PM_OK)
        err = trip_app(t);
    if (err == PM_OK)
        err = relay_open(&t->wire, t->f.loop, 3060, 3050);
    if (err == PM_OK)
        err = trip_client(t);
    if (err == PM_OK)
        flow_run(&t->f, 50);
    return err;
}

static trip *trip_new(void)
{
    trip *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->opts.resume_ms = 5000;
    t->opts.resume_bytes = 16 * 1024;
    return t;
}

static trip *trip_open(void)
{
    trip *t = trip_new();
    assert_ok(trip_start(t));
    assert_int_equal(t->f.connected, 1);
    return t;
}

static void trip_end(trip *t)
{
    pm_client_free(t->f.client);
    t->f.client = NULL;
    relay_close(&t->wire);
    flow_end(&t->f);
}

static void trip_close(trip *t)
{
    trip_end(t);
    assert_int_equal(t->asked, t->told);
    free(t);
}

static void trip_cut(trip *t)
{
    relay_cut(&t->wire.pairs[t->wire.pairs_count - 1]);
}

static void trip_ask(trip *t, const char *route)
{
    if (pm_client_request(t->f.client, route, pm_body_text("{\"a\":1}"),
                          on_answered, t) == PM_OK)
        t->asked++;
}

static void trip_tell(trip *t)
{
    assert_ok(
        pm_client_notify(t->f.client, "connector.h.tell", pm_body_text("{}")));
}

/* ---- Stories ------------------------------------------------------------- */

static void test_transparent(void **state)
{
    trip *t = trip_open();
    (void)state;
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    trip_cut(t);
    flow_run(&t->f, 5);
    assert_int_equal(t->away, 1);
    assert_int_equal(t->away_why, PM_CLOSE_SERVER);
    assert_int_equal(t->told, 0);
    trip_ask(t, "connector.h.echo"); /* waits for the next connection */
    trip_tell(t);
    assert_int_equal(t->asked, 2);
    assert_ok(pm_reply_text(t->held, "{}"));
    flow_run(&t->f, 1000);
    assert_int_equal(t->again, 1);
    assert_int_equal(t->told, 2);
    assert_int_equal(t->failed, 0);
    assert_int_equal((int)t->count, 1);
    assert_string_equal(t->f.answer, "{\"a\":1}");
    assert_int_equal(t->f.connected, 1);
    assert_int_equal(t->f.disconnected, 0);
    assert_int_equal(t->f.pushes, 1); /* onBack */
    assert_int_equal(t->opened, 1);
    trip_close(t);
}

/* The application's user part goes with every handshake. */
static void test_user_part(void **state)
{
    trip *t = trip_new();
    pm_client_opts opts = pm_client_opts_default();
    pm_client *client;
    (void)state;
    t->user = cJSON_CreateObject();
    cJSON_AddNumberToObject(t->user, "level", 7);
    assert_ok(trip_start(t));
    assert_non_null(
        strstr(t->said, "\"user\":{\"__resume__\":{},\"level\":7}"));
    trip_cut(t);
    flow_run(&t->f, 1000);
    assert_non_null(strstr(t->said, "\"received\":0,\"from\":1},\"level\":7}"));
    assert_int_equal(t->again, 1);
    cJSON_Delete(t->user);
    trip_close(t);
    /* Where our word has no place it is refused. */
    t = trip_new();
    assert_ok(flow_loop(&t->f, 1));
    opts.loop = t->f.loop;
    opts.port = 1;
    opts.resume = true;
    assert_err(pm_client_new(&client, &opts), PM_EINVAL);
    opts.reconnect = true;
    opts.user = t->user = cJSON_CreateArray();
    assert_err(pm_client_new(&client, &opts), PM_EINVAL);
    cJSON_Delete(t->user);
    trip_close(t);
}

static void test_server_knows_nothing_of_it(void **state)
{
    trip *t = trip_new();
    (void)state;
    t->opts.resume_ms = 0;
    assert_ok(trip_start(t));
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    trip_cut(t);
    flow_run(&t->f, 5);
    assert_int_equal(t->told, 1);
    assert_int_equal(t->f.answer_err, PM_ECLOSED);
    assert_int_equal(t->away, 0);
    assert_int_equal(t->f.disconnected, 1);
    pm_request_drop(t->held);
    flow_run(&t->f, 1000);
    assert_int_equal(t->f.connected, 2);
    trip_close(t);
}

/* The session has ended over there while we were away. */
static void test_another_session(void **state)
{
    trip *t = trip_open();
    pm_session *session;
    (void)state;
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    trip_cut(t);
    flow_run(&t->f, 5);
    session = pm_request_session(t->held);
    assert_ok(pm_session_kick(session, "out", NULL, NULL));
    flow_run(&t->f, 1000);
    pm_request_drop(t->held);
    assert_int_equal(t->told, 1);
    assert_int_equal(t->f.answer_err, PM_ECLOSED);
    assert_int_equal(t->f.disconnected, 1);
    assert_int_equal(t->f.closed_why, PM_CLOSE_RESUME);
    assert_int_equal(t->f.connected, 2);
    assert_int_equal(t->again, 0);
    trip_ask(t, "connector.h.echo");
    flow_run(&t->f, 5);
    assert_int_equal(t->f.answer_err, PM_OK);
    /* And that one can be resumed as well. */
    trip_cut(t);
    flow_run(&t->f, 1000);
    assert_int_equal(t->again, 1);
    trip_close(t);
}

static void test_kicked(void **state)
{
    trip *t = trip_open();
    (void)state;
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    assert_ok(pm_session_kick(pm_request_session(t->held), "out", NULL, NULL));
    flow_run(&t->f, 5);
    pm_request_drop(t->held);
    assert_int_equal(t->f.kicks, 1);
    assert_int_equal(t->told, 1);
    assert_int_equal(t->f.disconnected, 1);
    assert_int_equal(t->f.closed_why, PM_CLOSE_KICK);
    assert_int_equal(t->away, 0);
    trip_close(t);
}

/* The server is away longer than it would keep the session. */
static void test_gives_up(void **state)
{
    trip *t = trip_open();
    (void)state;
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    pmi_listener_close(t->wire.listener);
    t->wire.listener = NULL;
    trip_cut(t);
    flow_run(&t->f, 4000);
    assert_int_equal(t->told, 0);
    assert_int_equal(t->f.disconnected, 0);
    flow_run(&t->f, 12000);
    assert_int_equal(t->told, 1);
    assert_int_equal(t->f.answer_err, PM_ECLOSED);
    assert_true(t->f.disconnected >= 1);
    assert_int_equal(t->f.closed_why, PM_CLOSE_CONNECT);
    assert_int_equal(t->server_why, PM_CLOSE_RESUME);
    assert_err(
        pm_client_notify(t->f.client, "connector.h.tell", pm_body_text("{}")),
        PM_ESTATE);
    pm_request_drop(t->held);
    trip_close(t);
}

static void test_disconnects(void **state)
{
    trip *t = trip_open();
    (void)state;
    pm_client_disconnect(t->f.client);
    flow_run(&t->f, 5);
    assert_int_equal(t->closed, 1); /* it has said farewell */
    assert_int_equal(t->server_why, PM_CLOSE_CLIENT);
    assert_int_equal(t->suspended, 0);
    assert_int_equal(t->f.disconnected, 1);
    trip_close(t);
    /* In the middle of coming back. */
    t = trip_open();
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    trip_cut(t);
    flow_run(&t->f, 5);
    pm_client_disconnect(t->f.client);
    assert_int_equal(t->told, 0);
    flow_run(&t->f, 5);
    assert_int_equal(t->told, 1);
    assert_int_equal(t->f.disconnected, 1);
    assert_int_equal(t->f.closed_why, PM_CLOSE_CLIENT);
    flow_run(&t->f, 10000);
    assert_int_equal(t->f.connected, 1);
    assert_int_equal(t->server_why, PM_CLOSE_RESUME);
    pm_request_drop(t->held);
    trip_close(t);
}

static void test_freed(void **state)
{
    trip *t = trip_open();
    (void)state;
    pm_client_free(t->f.client);
    t->f.client = NULL;
    flow_run(&t->f, 5);
    assert_int_equal(t->server_why, PM_CLOSE_CLIENT);
    assert_int_equal(t->suspended, 0);
    trip_close(t);
    /* From inside suspended, with a request under way. */
    t = trip_open();
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 5);
    t->free_this = t->f.client;
    trip_cut(t);
    flow_run(&t->f, 100);
    assert_int_equal(t->told, 1);
    assert_int_equal(t->f.answer_err, PM_ECLOSED);
    pm_request_drop(t->held);
    trip_close(t);
    /* From inside resumed. */
    t = trip_open();
    trip_cut(t);
    flow_run(&t->f, 5);
    t->free_this = t->f.client;
    flow_run(&t->f, 1000);
    assert_int_equal(t->again, 1);
    assert_null(t->f.client);
    assert_int_equal(t->server_why, PM_CLOSE_CLIENT);
    trip_close(t);
}

/* What is kept while there is no connection is bounded. */
static void test_says_too_much(void **state)
{
    trip *t = trip_open();
    pm_err err = PM_OK;
    int said = 0;
    (void)state;
    trip_cut(t);
    flow_run(&t->f, 5);
    for (; err == PM_OK && said < 10000; said += err == PM_OK)
        err = pm_client_notify(t->f.client, "connector.h.tell",
                               pm_body_text("{}"));
    assert_err(err, PM_ELIMIT);
    flow_run(&t->f, 1000);
    assert_int_equal(t->again, 1);
    assert_int_equal((int)t->count, said);
    trip_close(t);
}

/* More notifies under way than can be said again. */
static void test_says_too_much_too_late(void **state)
{
    trip *t = trip_open();
    (void)state;
    t->wire.pairs[0].left[0] = 1; /* nothing arrives any more */
    t->wire.pairs[0].half = true;
    for (int i = 0; i < 1000; i++)
        trip_tell(t);
    flow_run(&t->f, 1000);
    assert_int_equal(t->away, 1);
    assert_int_equal(t->again, 0);
    assert_int_equal(t->f.connected, 2);
    assert_int_equal(t->f.closed_why, PM_CLOSE_RESUME);
    assert_int_equal(t->server_why, PM_CLOSE_RESUME);
    assert_int_equal((int)t->count, 0);
    trip_close(t);
}

/* ---- Without memory ------------------------------------------------------ */

static void trip_whole(trip *t)
{
    if (trip_start(t) != PM_OK)
        return;
    trip_ask(t, "connector.h.echo");
    trip_ask(t, "connector.h.hold");
    flow_run(&t->f, 10);
    if (t->wire.pairs_count)
        trip_cut(t);
    flow_run(&t->f, 5);
    trip_ask(t, "connector.h.echo");
    flow_run(&t->f, 2000);
    if (t->held)
        pm_reply_text(t->held, "{\"late\":1}");
    flow_run(&t->f, 5000);
    if (t->wire.pairs_count)
        trip_cut(t);
    flow_run(&t->f, 20000);
}

static void test_memory(void **state)
{
    trip *t = trip_new();
    pm_connector_opts opts = t->opts;
    (void)state;
    TEST_EACH_FAILURE(&t->f.heap)
    {
        test_heap heap = t->f.heap;
        memset(t, 0, sizeof *t);
        t->f.heap = heap;
        t->opts = opts;
        test_cjson_use(&t->f.heap);
        trip_whole(t);
        if (!t->f.heap.failed) {
            assert_int_equal(t->again, 2);
            assert_int_equal(t->told, 3);
            assert_int_equal(t->failed, 0);
        }
        trip_end(t);
        test_cjson_use(NULL);
        assert_int_equal(t->asked, t->told);
        assert_int_equal(t->opened, t->closed);
    }
    free(t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_transparent),
    cmocka_unit_test(test_user_part),
    cmocka_unit_test(test_server_knows_nothing_of_it),
    cmocka_unit_test(test_another_session),
    cmocka_unit_test(test_kicked),
    cmocka_unit_test(test_gives_up),
    cmocka_unit_test(test_disconnects),
    cmocka_unit_test(test_freed),
    cmocka_unit_test(test_says_too_much),
    cmocka_unit_test(test_says_too_much_too_late),
    cmocka_unit_test(test_memory),
};

TEST_MAIN(tests)
