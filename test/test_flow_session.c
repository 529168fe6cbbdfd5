/* SPDX-License-Identifier: MIT */
/* test_flow_session.c -- sessions, on their frontend and seen from a backend:
 * binding, settings, kicks, and what is left of them when the client has gone.
 */
#include "flow.h"

#define TABLE_MAX 4

typedef struct lodge {
    flow f; /* first: a story is a flow */
    pm_client *more[TABLE_MAX];
    char said[512];
    pm_err done[32];
    size_t done_count;
    pm_session *kept[8];
    size_t kept_count;
} lodge;

static void lodge_say(lodge *l, const char *a, const char *b)
{
    size_t len = strlen(l->said);
    snprintf(l->said + len, sizeof l->said - len, "%s%s%s", len ? " " : "", a,
             b ? b : "");
}

static void on_done(pm_err err, const char *detail, void *ctx)
{
    lodge *l = ctx;
    assert_non_null(detail);
    l->done[l->done_count++] = err;
}

/* The last thing that was done, told once. */
static void lodge_expect(lodge *l, size_t count, pm_err err)
{
    assert_int_equal(l->done_count, count);
    assert_err(l->done[count - 1], err);
}

/* ---- Handlers: the body says what is to be done ------------------------ */

static const char *body_text(pm_request *req, const char *name)
{
    struct cJSON *body;
    assert_ok(pm_request_json(req, &body));
    return cJSON_GetStringValue(cJSON_GetObjectItem(body, name));
}

static void on_bind(pm_request *req, void *ctx)
{
    assert_ok(pm_session_bind(pm_request_session(req), body_text(req, "uid"),
                              on_done, ctx));
    pm_reply_text(req, "{}");
}

static void on_unbind(pm_request *req, void *ctx)
{
    assert_ok(pm_session_unbind(pm_request_session(req), body_text(req, "uid"),
                                on_done, ctx));
    pm_reply_text(req, "{}");
}

static void on_kick(pm_request *req, void *ctx)
{
    assert_ok(pm_session_kick(pm_request_session(req), body_text(req, "reason"),
                              on_done, ctx));
    pm_reply_text(req, "{\"kicked\":1}");
}

static void on_set(pm_request *req, void *ctx)
{
    pm_session *session = pm_request_session(req);
    const char *sync = body_text(req, "sync");
    assert_ok(pm_session_set_text(session, "room", body_text(req, "room")));
    assert_ok(pm_session_set_text(session, "own", "private"));
    if (sync)
        assert_ok(pm_session_sync(session, *sync ? sync : NULL, on_done, ctx));
    pm_reply_text(req, "{}");
}

static void on_get(pm_request *req, void *ctx)
{
    char text[256];
    pm_session *session = pm_request_session(req);
    const char *uid = pm_session_uid(session);
    const char *room = pm_session_get_text(session, "room");
    const char *own = pm_session_get_text(session, "own");
    (void)ctx;
    snprintf(text, sizeof text,
             "{\"uid\":\"%s\",\"room\":\"%s\",\"own\":\"%s\"}", uid ? uid : "",
             room ? room : "", own ? own : "");
    pm_reply_text(req, text);
}

static void on_keep(pm_request *req, void *ctx)
{
    lodge *l = ctx;
    pm_session *session = pm_request_session(req);
    pm_session_ref(session);
    l->kept[l->kept_count++] = session;
    pm_reply_text(req, "{}");
}

static void on_bound(pm_app *app, pm_session *session, void *ctx)
{
    (void)app;
    lodge_say(ctx, "bound:", pm_session_uid(session));
}

static void on_unbound(pm_app *app, pm_session *session, const char *uid,
                       void *ctx)
{
    (void)app;
    assert_null(pm_session_uid(session));
    lodge_say(ctx, "unbound:", uid);
}

/* The session says to the end who it was. */
static void on_closed(pm_app *app, pm_session *session, pm_close_reason reason,
                      void *ctx)
{
    (void)app;
    (void)reason;
    lodge_say(ctx, "closed:", pm_session_uid(session));
}

static pm_err lodge_configure(flow *f, pm_app *app)
{
    static const struct {
        const char *name;
        pm_handler_cb cb;
    } handlers[] = {{"bind", on_bind}, {"unbind", on_unbind},
                    {"kick", on_kick}, {"set", on_set},
                    {"get", on_get},   {"keep", on_keep}};
    pm_app_events events = pm_app_events_default();
    char route[64];
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
        snprintf(route, sizeof route, "connector.h.%s", handlers[i].name);
        assert_ok(pm_app_handler(app, route, handlers[i].cb, f));
        snprintf(route, sizeof route, "chat.h.%s", handlers[i].name);
        assert_ok(pm_app_handler(app, route, handlers[i].cb, f));
    }
    events.session_bound = on_bound;
    events.session_unbound = on_unbound;
    events.session_closed = on_closed;
    return pm_app_listen(app, &events, f);
}

static void lodge_start(lodge *l)
{
    assert_ok(flow_start(&l->f, 1, lodge_configure));
    assert_int_equal(l->f.connected, 1);
}

/* A frontend with the single-session policy. */
static void lodge_start_single(lodge *l)
{
    pm_app_opts opts = pm_app_opts_default();
    assert_ok(flow_loop(&l->f, 1));
    opts.loop = l->f.loop;
    opts.servers = flow_servers;
    opts.servers_count = 1;
    opts.connector.single_session = true;
    assert_ok(pm_app_new(&l->f.front, &opts));
    assert_ok(lodge_configure(&l->f, l->f.front));
    assert_ok(pm_app_start(l->f.front));
    assert_ok(flow_client(&l->f));
    flow_run(&l->f, 50);
}

static pm_client *lodge_one_more(lodge *l)
{
    pm_client *first = l->f.client, *client;
    assert_ok(flow_client(&l->f));
    client = l->f.client;
    l->f.client = first;
    flow_run(&l->f, 50);
    assert_true(pm_client_is_connected(client));
    for (size_t i = 0; i < TABLE_MAX; i++)
        if (!l->more[i]) {
            l->more[i] = client;
            break;
        }
    return client;
}

static void lodge_end(lodge *l)
{
    for (size_t i = 0; i < TABLE_MAX; i++)
        pm_client_free(l->more[i]);
    flow_end(&l->f);
}

static void lodge_ask_as(lodge *l, pm_client *client, const char *route,
                         const char *body)
{
    assert_ok(
        pm_client_request(client, route, pm_body_text(body), flow_answered, l));
    flow_run(&l->f, 30);
}

static void lodge_ask(lodge *l, const char *route, const char *body)
{
    lodge_ask_as(l, l->f.client, route, body);
}

/* ---- Binding ----------------------------------------------------------- */

static void test_bind(void **state)
{
    static const char *const types[] = {"connector", "chat"};
    char bind[32], unbind[32], get[32];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        lodge l = {0};
        snprintf(bind, sizeof bind, "%s.h.bind", types[i]);
        snprintf(unbind, sizeof unbind, "%s.h.unbind", types[i]);
        snprintf(get, sizeof get, "%s.h.get", types[i]);
        lodge_start(&l);
        lodge_ask(&l, bind, "{\"uid\":\"ann\"}");
        lodge_expect(&l, 1, PM_OK);
        lodge_ask(&l, bind, "{\"uid\":\"ann\"}"); /* the same again is fine */
        lodge_expect(&l, 2, PM_OK);
        lodge_ask(&l, bind, "{\"uid\":\"bob\"}");
        lodge_expect(&l, 3, PM_EBOUND);
        lodge_ask(&l, get, "{}");
        assert_string_equal(l.f.answer,
                            "{\"uid\":\"ann\",\"room\":\"\",\"own\":\"\"}");
        lodge_ask(&l, unbind, "{\"uid\":\"bob\"}");
        lodge_expect(&l, 4, PM_EUNBOUND);
        lodge_ask(&l, unbind, "{\"uid\":\"ann\"}");
        lodge_expect(&l, 5, PM_OK);
        lodge_ask(&l, get, "{}");
        assert_string_equal(l.f.answer,
                            "{\"uid\":\"\",\"room\":\"\",\"own\":\"\"}");
        assert_string_equal(l.said, "bound:ann unbound:ann");
        lodge_end(&l);
    }
}

typedef struct tally {
    lodge *l;
    size_t seen, stop_after;
    bool kick;
} tally;

static bool on_each(pm_session *session, void *ctx)
{
    tally *t = ctx;
    t->seen++;
    if (t->kick)
        assert_ok(pm_session_kick(session, "all", NULL, NULL));
    return t->seen != t->stop_after;
}

static void test_several_sessions_of_a_uid(void **state)
{
    lodge l = {0};
    tally t = {.l = &l};
    (void)state;
    lodge_start(&l);
    lodge_ask(&l, "connector.h.bind", "{\"uid\":\"ann\"}");
    lodge_ask_as(&l, lodge_one_more(&l), "chat.h.bind", "{\"uid\":\"ann\"}");
    lodge_ask_as(&l, lodge_one_more(&l), "chat.h.bind", "{\"uid\":\"ann\"}");
    lodge_ask_as(&l, lodge_one_more(&l), "chat.h.bind", "{\"uid\":\"bob\"}");
    lodge_expect(&l, 4, PM_OK);
    assert_int_equal(pm_session_each(l.f.front, "ann", on_each, &t), 3);
    assert_int_equal(pm_session_each(l.f.front, "bob", on_each, &t), 1);
    assert_int_equal(pm_session_each(l.f.front, "eve", on_each, &t), 0);
    assert_int_equal(pm_session_each(l.f.front, NULL, on_each, &t), 4);
    assert_int_equal(t.seen, 8);
    t.seen = 0;
    t.stop_after = 2;
    assert_int_equal(pm_session_each(l.f.front, NULL, on_each, &t), 2);
    t.seen = 0;
    assert_int_equal(pm_session_each(l.f.front, "ann", on_each, &t), 2);
    t.kick = true;
    t.stop_after = 0;
    /* The first of the ring, then another one goes. */
    pm_client_disconnect(l.f.client);
    flow_run(&l.f, 20);
    assert_int_equal(pm_session_each(l.f.front, "ann", on_each, &t), 2);
    flow_run(&l.f, 20);
    assert_int_equal(pm_session_each(l.f.front, "ann", on_each, &t), 0);
    assert_int_equal(pm_session_each(l.f.front, "bob", on_each, &t), 1);
    lodge_end(&l);
}

static void test_single_session(void **state)
{
    lodge l = {0};
    pm_client *second;
    (void)state;
    lodge_start_single(&l);
    second = lodge_one_more(&l);
    lodge_ask(&l, "connector.h.bind", "{\"uid\":\"ann\"}");
    lodge_ask_as(&l, second, "connector.h.bind", "{\"uid\":\"ann\"}");
    lodge_expect(&l, 2, PM_EEXIST);
    lodge_ask(&l, "connector.h.bind", "{\"uid\":\"ann\"}"); /* its own: fine */
    lodge_expect(&l, 3, PM_OK);
    pm_client_disconnect(l.f.client);
    flow_run(&l.f, 20);
    lodge_ask_as(&l, second, "connector.h.bind", "{\"uid\":\"ann\"}");
    lodge_expect(&l, 4, PM_OK);
    lodge_end(&l);
}

static void test_arguments(void **state)
{
    lodge l = {0};
    char long_uid[300];
    pm_session *session;
    (void)state;
    memset(long_uid, 'x', sizeof long_uid);
    long_uid[256] = 0;
    lodge_start(&l);
    lodge_ask(&l, "connector.h.keep", "{}");
    lodge_ask(&l, "chat.h.keep", "{}");
    for (size_t i = 0; i < 2; i++) {
        session = l.kept[i];
        assert_err(pm_session_bind(session, "", on_done, &l), PM_EINVAL);
        assert_err(pm_session_bind(session, NULL, on_done, &l), PM_EINVAL);
        assert_err(pm_session_bind(session, long_uid, on_done, &l), PM_EINVAL);
        assert_err(pm_session_unbind(session, NULL, on_done, &l), PM_EINVAL);
        assert_err(pm_session_push(session, "", pm_body_text("{}")), PM_EINVAL);
        assert_err(pm_session_push(session, "r", pm_body_none()), PM_EINVAL);
        assert_err(pm_session_push(session, long_uid, pm_body_text("{}")),
                   PM_EINVAL);
        assert_err(pm_session_kick(session, long_uid, on_done, &l), PM_EINVAL);
        assert_err(pm_session_set(session, NULL, NULL), PM_EINVAL);
        long_uid[255] = 0;
        assert_ok(pm_session_bind(session, long_uid, on_done, &l));
        flow_run(&l.f, 20);
        assert_string_equal(pm_session_uid(session), long_uid);
        long_uid[255] = 'x';
        pm_session_unref(session);
    }
    lodge_expect(&l, 2, PM_OK);
    lodge_end(&l);
}

/* ---- Settings ---------------------------------------------------------- */

static void test_settings_travel(void **state)
{
    lodge l = {0};
    (void)state;
    lodge_start(&l);
    /* Not synced: nobody else sees them. */
    lodge_ask(&l, "chat.h.set", "{\"room\":\"r1\"}");
    lodge_ask(&l, "connector.h.get", "{}");
    assert_string_equal(l.f.answer,
                        "{\"uid\":\"\",\"room\":\"\",\"own\":\"\"}");
    /* One of them. */
    lodge_ask(&l, "chat.h.set", "{\"room\":\"r2\",\"sync\":\"room\"}");
    lodge_expect(&l, 1, PM_OK);
    lodge_ask(&l, "connector.h.get", "{}");
    assert_string_equal(l.f.answer,
                        "{\"uid\":\"\",\"room\":\"r2\",\"own\":\"\"}");
    lodge_ask(&l, "chat.h.get", "{}");
    assert_string_equal(l.f.answer,
                        "{\"uid\":\"\",\"room\":\"r2\",\"own\":\"\"}");
    /* All. */
    lodge_ask(&l, "chat.h.set", "{\"room\":\"r3\",\"sync\":\"\"}");
    lodge_expect(&l, 2, PM_OK);
    lodge_ask(&l, "chat.h.get", "{}");
    assert_string_equal(l.f.answer,
                        "{\"uid\":\"\",\"room\":\"r3\",\"own\":\"private\"}");
    /* On the frontend itself it is the thing itself. */
    lodge_ask(&l, "connector.h.set", "{\"room\":\"r4\"}");
    lodge_ask(&l, "chat.h.get", "{}");
    assert_string_equal(l.f.answer,
                        "{\"uid\":\"\",\"room\":\"r4\",\"own\":\"private\"}");
    lodge_end(&l);
}

/* 16 KiB in all; what is refused changes nothing; what goes makes room. */
static void test_settings_are_bounded(void **state)
{
    lodge l = {0};
    static char large[10001], small[3001];
    pm_session *session;
    (void)state;
    memset(large, 'l', sizeof large - 1);
    memset(small, 's', sizeof small - 1);
    lodge_start(&l);
    lodge_ask(&l, "connector.h.keep", "{}");
    session = l.kept[0];
    for (int round = 0; round < 5; round++) {
        assert_ok(pm_session_set_text(session, "a", large));
        assert_ok(pm_session_set_text(session, "a", large)); /* in its place */
        assert_err(pm_session_set_text(session, "b", large), PM_ELIMIT);
        assert_null(pm_session_get(session, "b"));
        assert_ok(pm_session_set_text(session, "b", small));
        assert_err(pm_session_set_text(session, "b", large), PM_ELIMIT);
        assert_string_equal(pm_session_get_text(session, "b"), small);
        assert_ok(pm_session_set_text(session, "a", NULL));
        assert_ok(pm_session_set_text(session, "a", NULL));
        assert_ok(pm_session_set_text(session, "b", NULL));
    }
    assert_null(pm_session_get_text(session, "a"));
    pm_session_unref(session);
    lodge_end(&l);
}

/* The longest text that settings may have travels: each byte of these names
 * takes six. */
static void test_long_settings_travel(void **state)
{
    lodge l = {0};
    pm_session *session;
    char name[] = "\1\1\1\1\1\1\1";
    int taken = 0;
    (void)state;
    lodge_start(&l);
    lodge_ask(&l, "connector.h.keep", "{}");
    session = l.kept[0];
    while (pm_session_set_text(session, name, "v") == PM_OK) {
        name[0] = (char)(1 + ++taken % 30);
        name[1] = (char)(1 + taken / 30 % 30);
        name[2] = (char)(1 + taken / 900);
    }
    assert_true(taken > 1500);
    lodge_ask(&l, "chat.h.get", "{}");
    assert_string_equal(l.f.answer,
                        "{\"uid\":\"\",\"room\":\"\",\"own\":\"\"}");
    pm_session_unref(session);
    lodge_end(&l);
}

/* A value that is refused for want of memory leaves the old one. */
static void test_settings_without_memory(void **state)
{
    test_heap heap = {0};
    lodge l = {0};
    pm_session *session;
    struct cJSON *value;
    (void)state;
    test_cjson_use(&heap);
    lodge_start(&l);
    lodge_ask(&l, "connector.h.keep", "{}");
    session = l.kept[0];
    value = cJSON_CreateString("new");
    for (size_t k = 1; k < 50; k++) {
        pm_err err;
        assert_ok(pm_session_set_text(session, "a", "old"));
        heap.calls = heap.failed = 0;
        heap.fail_at = k;
        err = pm_session_set(session, "a", value);
        heap.fail_at = 0;
        if (err) {
            assert_err(err, PM_ENOMEM);
            assert_string_equal(pm_session_get_text(session, "a"), "old");
        } else {
            assert_string_equal(pm_session_get_text(session, "a"), "new");
            assert_ok(pm_session_set(session, "a", NULL));
        }
        if (!heap.failed)
            break;
    }
    cJSON_Delete(value);
    pm_session_unref(session);
    lodge_end(&l);
    assert_heap_empty(&heap);
    test_cjson_use(NULL);
}

/* ---- Kicks and ends ---------------------------------------------------- */

static void test_kick(void **state)
{
    static const char *const routes[] = {"connector.h.kick", "chat.h.kick"};
    static const char *const bodies[] = {"{\"reason\":\"bye\"}", "{}"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        lodge l = {0};
        lodge_start(&l);
        lodge_ask(&l, "chat.h.bind", "{\"uid\":\"ann\"}");
        lodge_ask(&l, routes[i % 2], bodies[i / 2]);
        lodge_expect(&l, 2, PM_OK);
        assert_int_equal(l.f.disconnected, 1);
        /* Without a reason there is no word, just the end. */
        assert_int_equal(l.f.kicks, i < 2 ? 1 : 0);
        if (i < 2)
            assert_string_equal(l.f.kick, "bye");
        assert_string_equal(l.said, "bound:ann closed:ann");
        lodge_end(&l);
    }
}

/* Who is kept answers to the end, and after it. */
static void test_kept_sessions(void **state)
{
    lodge l = {0};
    uint64_t id;
    (void)state;
    lodge_start(&l);
    lodge_ask(&l, "chat.h.bind", "{\"uid\":\"ann\"}");
    lodge_ask(&l, "connector.h.keep", "{}");
    lodge_ask(&l, "chat.h.keep", "{}");
    id = pm_session_id(l.kept[0]);
    assert_int_equal(id, pm_session_id(l.kept[1]));
    assert_ptr_equal(pm_session_find(l.f.front, id), l.kept[0]);
    assert_null(pm_session_find(l.f.back, id));
    pm_session_set_data(l.kept[1], &l);
    assert_ptr_equal(pm_session_data(l.kept[1]), &l);
    assert_string_equal(pm_session_frontend_id(l.kept[1]), "connector-1");
    assert_string_equal(pm_session_address(l.kept[0]), "");
    pm_client_disconnect(l.f.client);
    flow_run(&l.f, 20);
    assert_null(pm_session_find(l.f.front, id));
    assert_true(pm_session_is_closed(l.kept[0]));
    assert_err(pm_session_push(l.kept[0], "r", pm_body_text("{}")), PM_ECLOSED);
    /* Each tells by callback, from both sides. */
    l.done_count = 0;
    assert_ok(pm_session_bind(l.kept[0], "bob", on_done, &l));
    assert_ok(pm_session_unbind(l.kept[0], "ann", on_done, &l));
    assert_ok(pm_session_kick(l.kept[0], "x", on_done, &l));
    assert_ok(pm_session_sync(l.kept[0], NULL, on_done, &l));
    assert_int_equal(l.done_count, 0);
    flow_run(&l.f, 20);
    assert_int_equal(l.done_count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_err(l.done[i], PM_ECLOSED);
    assert_ok(pm_session_unbind(l.kept[1], "ann", on_done, &l));
    assert_ok(pm_session_kick(l.kept[1], "x", on_done, &l));
    assert_ok(pm_session_sync(l.kept[1], NULL, on_done, &l));
    flow_run(&l.f, 20);
    assert_int_equal(l.done_count, 7);
    for (size_t i = 4; i < 7; i++)
        assert_err(l.done[i], PM_ENOTFOUND);
    pm_session_unref(l.kept[0]);
    pm_session_unref(l.kept[1]);
    lodge_end(&l);
}

/* After the apps too. What was under way is told by pm_app_free. */
static void test_sessions_outlive_apps(void **state)
{
    lodge l = {0};
    (void)state;
    lodge_start(&l);
    lodge_ask(&l, "chat.h.bind", "{\"uid\":\"ann\"}");
    lodge_ask(&l, "connector.h.keep", "{}");
    lodge_ask(&l, "chat.h.keep", "{}");
    l.done_count = 0;
    assert_ok(pm_session_kick(l.kept[0], "x", on_done, &l));
    assert_ok(pm_session_kick(l.kept[1], "x", on_done, &l));
    pm_app_free(l.f.front);
    assert_int_equal(l.done_count, 1);
    pm_app_free(l.f.back);
    assert_int_equal(l.done_count, 2);
    l.f.front = l.f.back = NULL;
    for (size_t i = 0; i < 2; i++) {
        pm_session *session = l.kept[i];
        assert_err(l.done[i], PM_ECLOSED);
        assert_true(pm_session_is_closed(session));
        assert_string_equal(pm_session_uid(session), "ann");
        assert_non_null(pm_session_frontend_id(session));
        assert_ok(pm_session_set_text(session, "still", "here"));
        assert_err(pm_session_bind(session, "b", on_done, &l), PM_ECLOSED);
        assert_err(pm_session_unbind(session, "b", on_done, &l), PM_ECLOSED);
        assert_err(pm_session_sync(session, NULL, on_done, &l), PM_ECLOSED);
        assert_err(pm_session_kick(session, "b", on_done, &l), PM_ECLOSED);
        assert_err(pm_session_push(session, "r", pm_body_text("{}")),
                   PM_ECLOSED);
    }
    pm_client_free(l.f.client);
    l.f.client = NULL;
    assert_err(pm_loop_free(l.f.loop), PM_ESTATE); /* they live on it */
    pm_session_unref(l.kept[0]);
    pm_session_unref(l.kept[1]);
    lodge_end(&l);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bind),
    cmocka_unit_test(test_several_sessions_of_a_uid),
    cmocka_unit_test(test_single_session),
    cmocka_unit_test(test_arguments),
    cmocka_unit_test(test_settings_travel),
    cmocka_unit_test(test_settings_are_bounded),
    cmocka_unit_test(test_long_settings_travel),
    cmocka_unit_test(test_settings_without_memory),
    cmocka_unit_test(test_kick),
    cmocka_unit_test(test_kept_sessions),
    cmocka_unit_test(test_sessions_outlive_apps),
};

TEST_MAIN(tests)
