/* SPDX-License-Identifier: MIT */
/* test_router.c -- which router decides, now or later, and how a choice ends:
 * answered, forgotten, outlived by its app. */
#include "test.h"

#include "pomelo_router_internal.h"
#include "pomelo_session_internal.h"

typedef struct world {
    test_heap heap;
    test_world time;
    pm_loop *loop;
    pm_app *app;
    /* Who waits. */
    int done;
    char chosen[64]; /* an id, or "none" */
    /* The application's router. */
    int asked;
    pm_choice *held; /* one that waits for its answer */
    const char *answer;
    bool later, free_app;
    pm_param param;
    char text[600];
    size_t count;
} world;

static const pm_server servers[] = {
    {.id = "connector-1", .type = "connector", .port = 1, .frontend = true},
    {.id = "chat-1", .type = "chat", .port = 2, .weight = 2},
    {.id = "chat-2", .type = "chat", .port = 3},
    {.id = "chat-3", .type = "chat", .port = 4},
    {.id = "area-1", .type = "area", .port = 5},
    {.id = "area-2", .type = "area", .port = 6}};

static pm_err world_open(world *w)
{
    pm_loop_opts loop_opts;
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    w->time.seed = 7;
    w->chosen[0] = 0;
    w->done = w->asked = 0;
    loop_opts = test_world_opts(&w->time, &w->heap);
    w->loop = NULL;
    w->app = NULL;
    err = pm_loop_new(&w->loop, &loop_opts);
    if (err)
        return err;
    opts.loop = w->loop;
    opts.servers = servers;
    opts.servers_count = PMI_COUNT(servers);
    opts.server_id = "connector-1";
    return pm_app_new(&w->app, &opts);
}

static void world_close(world *w)
{
    pm_app_free(w->app);
    assert_ok(pm_loop_free(w->loop));
}

static pmi_router *world_router(const world *w)
{
    return pmi_app_router(w->app);
}

static void world_done(pmi_server *server, void *ctx)
{
    world *w = ctx;
    w->done++;
    snprintf(w->chosen, sizeof w->chosen, "%s",
             server ? server->pub.id : "none");
}

static const char *choose(world *w, const char *type, pm_param param)
{
    int done = w->done;
    assert_ok(pmi_router_choose(world_router(w), pm_text(type), param,
                                world_done, w));
    assert_int_equal(w->done, done + 1);
    return w->chosen;
}

/* A router of an application. */
static void world_route(pm_app *app, pm_choice *choice, void *ctx)
{
    world *w = ctx;
    w->asked++;
    w->param = pm_choice_param(choice);
    w->count = pm_choice_count(choice);
    if (w->param.kind == PM_PARAM_STRING)
        snprintf(w->text, sizeof w->text, "%s", w->param.as.string);
    if (w->later)
        w->held = choice;
    if (w->free_app)
        pm_app_free(app);
    if (!w->later)
        pm_route_to(choice, w->answer);
}

/* ---- Who decides ------------------------------------------------------- */

static void test_order(void **state)
{
    world w = {0};
    (void)state;
    assert_ok(world_open(&w));
    /* Nobody: def. crc32("abc") mod 3 and mod 2, as Pomelo's vectors. */
    assert_string_equal(choose(&w, "chat", pm_param_string("abc")), "chat-1");
    assert_string_equal(choose(&w, "chat", pm_param_string("user-1")),
                        "chat-3");
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-1");
    /* "default" comes before it. */
    w.answer = "area-2";
    assert_ok(pm_app_route(w.app, "default", world_route, &w));
    assert_string_equal(choose(&w, "area", pm_param_none()), "area-2");
    assert_int_equal(w.asked, 1);
    assert_int_equal(w.count, 2);
    /* The type's own before that. */
    assert_ok(pm_app_route_builtin(w.app, "chat", "rr"));
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-1");
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-2");
    assert_int_equal(w.asked, 1);
    /* Taken away again. */
    assert_ok(pm_app_route(w.app, "chat", NULL, NULL));
    w.answer = "chat-3";
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-3");
    assert_int_equal(w.asked, 2);
    assert_ok(pm_app_route(w.app, "default", NULL, NULL));
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-1");
    assert_int_equal(w.asked, 2);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

static void test_builtin(void **state)
{
    world w = {0};
    const char *wrr[] = {"chat-1", "chat-1", "chat-2", "chat-3", "chat-1"};
    pmi_server *chat;
    (void)state;
    assert_ok(world_open(&w));
    /* Each type counts for itself, also under "default". */
    assert_ok(pm_app_route_builtin(w.app, "default", "rr"));
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-1");
    assert_string_equal(choose(&w, "area", pm_param_none()), "area-1");
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-2");
    assert_string_equal(choose(&w, "area", pm_param_none()), "area-2");
    /* A weight that is not given is 1. */
    assert_ok(pm_app_route_builtin(w.app, "chat", "wrr"));
    for (size_t i = 0; i < PMI_COUNT(wrr); i++)
        assert_string_equal(choose(&w, "chat", pm_param_none()), wrr[i]);
    assert_ok(pm_app_route_builtin(w.app, "chat", "la"));
    for (int i = 1; i <= 3; i++) {
        char id[] = "chat-0";
        id[5] = (char)('0' + i);
        chat = pmi_cluster_find(pmi_app_cluster(w.app), id);
        chat->up = i != 1;
        chat->in_flight = i == 2 ? 4 : 3;
    }
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-3");
    /* Integers go by their digits. */
    assert_ok(pm_app_route_builtin(w.app, "chat", "def"));
    assert_string_equal(choose(&w, "chat", pm_param_integer(10001)), "chat-2");
    assert_string_equal(choose(&w, "chat", pm_param_string("10001")), "chat-2");
    assert_string_equal(choose(&w, "chat", pm_param_integer(-5)), "chat-2");
    world_close(&w);
    assert_heap_empty(&w.heap);
}

static void test_arguments(void **state)
{
    world w = {0};
    char longest[257];
    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[256] = 0;
    assert_ok(world_open(&w));
    assert_err(pm_app_route(w.app, NULL, world_route, &w), PM_EINVAL);
    assert_err(pm_app_route(w.app, "", world_route, &w), PM_EINVAL);
    assert_err(pm_app_route(w.app, longest, world_route, &w), PM_EINVAL);
    assert_ok(pm_app_route(w.app, longest + 1, world_route, &w));
    assert_err(pm_app_route_builtin(w.app, "chat", "random"), PM_EINVAL);
    assert_err(pm_app_route_builtin(w.app, "chat", NULL), PM_EINVAL);
    assert_err(pm_app_route_builtin(w.app, "", "rr"), PM_EINVAL);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* Types come from strangers' routes: one that is not in the table is answered
 * and leaves nothing behind. */
static void test_no_server(void **state)
{
    world w = {0};
    size_t blocks, bytes;
    char type[32];
    (void)state;
    assert_ok(world_open(&w));
    w.answer = "chat-1";
    assert_ok(pm_app_route(w.app, "default", world_route, &w));
    blocks = w.heap.live_blocks;
    bytes = w.heap.live_bytes;
    for (int i = 0; i < 1000; i++) {
        snprintf(type, sizeof type, "type-%d", i);
        assert_string_equal(choose(&w, type, pm_param_none()), "none");
    }
    assert_string_equal(choose(&w, "", pm_param_none()), "none");
    assert_int_equal(w.heap.live_blocks, blocks);
    assert_int_equal(w.heap.live_bytes, bytes);
    assert_int_equal(w.asked, 0);
    assert_ok(pm_server_remove(w.app, "area-1"));
    assert_ok(pm_server_remove(w.app, "area-2"));
    assert_string_equal(choose(&w, "area", pm_param_none()), "none");
    assert_int_equal(w.asked, 0);
    w.answer = NULL;
    assert_string_equal(choose(&w, "chat", pm_param_none()), "none");
    w.answer = "area-1";
    assert_string_equal(choose(&w, "chat", pm_param_none()), "none");
    w.answer = "";
    assert_string_equal(choose(&w, "chat", pm_param_none()), "none");
    assert_int_equal(w.asked, 3);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* `ch` and `rendezvous` follow the table. */
static void test_table_changes(void **state)
{
    const pm_server more = {.id = "chat-4", .type = "chat", .port = 9};
    const char *const ways[] = {"ch", "rendezvous"};
    world w = {0};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(ways); i++) {
        int there = 0;
        assert_ok(world_open(&w));
        assert_ok(pm_app_route_builtin(w.app, "chat", ways[i]));
        for (int k = 0; k < 200; k++)
            assert_string_not_equal(choose(&w, "chat", pm_param_integer(k)),
                                    "chat-4");
        assert_ok(pm_server_add(w.app, &more));
        for (int k = 0; k < 200; k++)
            there += !strcmp(choose(&w, "chat", pm_param_integer(k)), "chat-4");
        assert_in_range(there, 20, 100);
        assert_ok(pm_server_remove(w.app, "chat-4"));
        for (int k = 0; k < 200; k++)
            assert_string_not_equal(choose(&w, "chat", pm_param_integer(k)),
                                    "chat-4");
        world_close(&w);
    }
    assert_heap_empty(&w.heap);
}

/* ---- What a router sees ------------------------------------------------ */

static void look(pm_app *app, pm_choice *choice, void *ctx)
{
    world *w = ctx;
    (void)app;
    w->asked++;
    assert_int_equal(pm_choice_count(choice), 3);
    assert_string_equal(pm_choice_server(choice, 0)->id, "chat-1");
    assert_string_equal(pm_choice_server(choice, 2)->id, "chat-3");
    assert_null(pm_choice_server(choice, 3));
    w->param = pm_choice_param(choice);
    pm_route_to(
        choice,
        w->param.kind == PM_PARAM_INTEGER
            ? pm_choice_server(choice, (size_t)w->param.as.integer % 3)->id
            : NULL);
}

static void test_choice(void **state)
{
    world w = {0};
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", look, &w));
    assert_string_equal(choose(&w, "chat", pm_param_integer(4)), "chat-2");
    assert_string_equal(choose(&w, "chat", pm_param_integer(5)), "chat-3");
    assert_string_equal(choose(&w, "chat", pm_param_none()), "none");
    assert_int_equal(w.param.kind, PM_PARAM_NONE);
    assert_int_equal(w.asked, 3);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

static const char *nowhere(const pm_session *session,
                           char out[PMI_ADDR_TEXT_MAX])
{
    (void)session;
    out[0] = 0;
    return out;
}

static const pmi_session_ops no_ops = {.address = nowhere};

static void test_session(void **state)
{
    world w = {.later = true};
    pm_session *session;
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pmi_session_open(pmi_app_sessions(w.app), &no_ops, &w, &session));
    assert_string_equal(choose(&w, "chat", pm_param_session(session)),
                        "chat-1");
    assert_ok(pm_session_bind(session, "user-1", NULL, NULL));
    assert_string_equal(pm_session_uid(session), "user-1");
    assert_string_equal(choose(&w, "chat", pm_param_session(session)),
                        "chat-3");
    /* A choice keeps the session that it is about. */
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_session(session), world_done, &w));
    pmi_session_close(session, PM_CLOSE_CLIENT);
    pm_session_unref(session);
    assert_ptr_equal(pm_choice_param(w.held).as.session, session);
    assert_true(pm_session_is_closed(session));
    pm_route_to(w.held, "chat-2");
    assert_string_equal(w.chosen, "chat-2");
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* ---- Later ------------------------------------------------------------- */

static void test_later(void **state)
{
    world w = {.later = true};
    char type[] = "chat", text[] = "room-1";
    pm_choice *first;
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    assert_ok(pmi_router_choose(world_router(&w), pm_text(type),
                                pm_param_string(text), world_done, &w));
    assert_int_equal(w.asked, 1);
    assert_int_equal(w.done, 0);
    /* What the caller handed over is gone. */
    memset(type, 'x', sizeof type);
    memset(text, 'x', sizeof text);
    first = w.held;
    assert_string_equal(pm_choice_param(first).as.string, "room-1");
    assert_string_equal(w.param.as.string, "room-1");
    assert_int_equal(pm_choice_count(first), 3);
    /* The table moves on meanwhile. */
    assert_ok(pm_server_remove(w.app, "chat-1"));
    assert_int_equal(pm_choice_count(first), 2);
    /* Another one overtakes it. */
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_none(), world_done, &w));
    pm_route_to(w.held, "chat-3");
    assert_string_equal(w.chosen, "chat-3");
    pm_route_to(first, "chat-1");
    assert_string_equal(w.chosen, "none");
    assert_int_equal(w.done, 2);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* Short and long strings, and no allocation in the steady state. */
static void test_strings(void **state)
{
    world w = {.answer = "chat-2"};
    char text[600];
    size_t calls;
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    for (size_t len = 0; len < sizeof text; len += len < 70 ? 1 : 53) {
        memset(text, 'a', len);
        text[len] = 0;
        assert_string_equal(choose(&w, "chat", pm_param_string(text)),
                            "chat-2");
        assert_string_equal(w.text, text);
    }
    assert_string_equal(choose(&w, "chat", pm_param_string(NULL)), "chat-2");
    calls = w.heap.calls;
    for (int i = 0; i < 100; i++)
        choose(&w, "chat", pm_param_string("room-1"));
    assert_int_equal(w.heap.calls, calls);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* More choices at a time than are kept. */
static void test_many(void **state)
{
    world w = {.later = true};
    pm_choice *held[100];
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < PMI_COUNT(held); i++) {
            assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                        pm_param_none(), world_done, &w));
            held[i] = w.held;
        }
        for (size_t i = 0; i < PMI_COUNT(held); i++)
            pm_route_to(held[i], "chat-1");
    }
    assert_int_equal(w.done, 200);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* ---- Ends -------------------------------------------------------------- */

static void other_done(pmi_server *server, void *ctx)
{
    (void)server;
    (*(int *)ctx)++;
}

static void test_forget(void **state)
{
    world w = {.later = true};
    int others = 0;
    pm_choice *first, *second;
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_string("a"), world_done, &w));
    first = w.held;
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_none(), other_done, &others));
    second = w.held;
    pmi_router_forget(world_router(&w), world_done, &w);
    pmi_router_forget(world_router(&w), world_done, &w); /* harmless */
    /* The application knows nothing of it. */
    assert_string_equal(pm_choice_param(first).as.string, "a");
    assert_int_equal(pm_choice_count(first), 3);
    pm_route_to(first, "chat-1");
    assert_int_equal(w.done, 0);
    pm_route_to(second, "chat-1");
    assert_int_equal(others, 1);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* The app ends first: who waits is told, and the answer that comes afterwards
 * does nothing. */
static void test_app_freed(void **state)
{
    world w = {.later = true};
    pm_choice *plain;
    pm_session *session;
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    assert_ok(pmi_session_open(pmi_app_sessions(w.app), &no_ops, &w, &session));
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_string("abc"), world_done, &w));
    plain = w.held;
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_session(session), world_done, &w));
    pmi_session_close(session, PM_CLOSE_STOP);
    pm_session_unref(session);
    pm_app_free(w.app);
    assert_int_equal(w.done, 2);
    assert_string_equal(w.chosen, "none");
    assert_string_equal(pm_choice_param(plain).as.string, "abc");
    assert_int_equal(pm_choice_param(w.held).kind, PM_PARAM_NONE);
    assert_int_equal(pm_choice_count(plain), 0);
    assert_null(pm_choice_server(plain, 0));
    assert_err(pm_loop_free(w.loop), PM_ESTATE); /* they still are on it */
    pm_route_to(plain, "chat-1");
    pm_route_to(w.held, NULL);
    assert_int_equal(w.done, 2);
    assert_ok(pm_loop_free(w.loop));
    assert_heap_empty(&w.heap);
}

/* From inside the router itself. */
static void test_free_inside(void **state)
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        world w = {.later = later, .free_app = true, .answer = "chat-1"};
        assert_ok(world_open(&w));
        assert_ok(pm_app_route(w.app, "chat", world_route, &w));
        assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                    pm_param_string("abc"), world_done, &w));
        assert_int_equal(w.done, 1);
        assert_string_equal(w.chosen, "none");
        if (later)
            pm_route_to(w.held, "chat-1");
        assert_ok(pm_loop_free(w.loop));
        assert_heap_empty(&w.heap);
    }
}

/* A callback that ends the app when it hears the answer. */
static void free_done(pmi_server *server, void *ctx)
{
    world *w = ctx;
    world_done(server, ctx);
    pm_app_free(w->app);
}

static void test_free_by_answer(void **state)
{
    world w = {.later = true};
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", world_route, &w));
    assert_ok(pmi_router_choose(world_router(&w), pm_text("chat"),
                                pm_param_none(), free_done, &w));
    pm_route_to(w.held, "chat-2");
    assert_int_equal(w.done, 1);
    assert_string_equal(w.chosen, "chat-2");
    assert_ok(pm_loop_free(w.loop));
    assert_heap_empty(&w.heap);
}

/* A router that takes itself away while it runs. */
static void replace(pm_app *app, pm_choice *choice, void *ctx)
{
    world *w = ctx;
    w->asked++;
    assert_ok(pm_app_route_builtin(app, "chat", "rr"));
    pm_route_to(choice, "chat-3");
}

static void test_replace_inside(void **state)
{
    world w = {0};
    (void)state;
    assert_ok(world_open(&w));
    assert_ok(pm_app_route(w.app, "chat", replace, &w));
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-3");
    assert_string_equal(choose(&w, "chat", pm_param_none()), "chat-1");
    assert_int_equal(w.asked, 1);
    world_close(&w);
    assert_heap_empty(&w.heap);
}

/* ---- Memory ------------------------------------------------------------ */

static void memory_round(world *w, const char *way)
{
    char text[100];
    int done = w->done;
    pm_err err = way ? pm_app_route_builtin(w->app, "chat", way)
                     : pm_app_route(w->app, "chat", world_route, w);
    memset(text, 'a', sizeof text);
    text[99] = 0;
    if (err == PM_OK)
        err = pmi_router_choose(world_router(w), pm_text("chat"),
                                pm_param_string(text), world_done, w);
    assert_true(err == PM_OK || (err == PM_ENOMEM && w->heap.failed));
    assert_int_equal(w->done, done + (err == PM_OK));
}

static void test_memory(void **state)
{
    world w = {.answer = "chat-2"};
    (void)state;
    TEST_EACH_FAILURE(&w.heap)
    {
        pm_err err = world_open(&w);
        if (err == PM_OK) {
            memory_round(&w, NULL);
            memory_round(&w, "ch");
            memory_round(&w, "rendezvous");
            memory_round(&w, "def");
        }
        assert_true(err == PM_OK || (err == PM_ENOMEM && w.heap.failed));
        pm_app_free(w.app);
        assert_ok(pm_loop_free(w.loop));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_order),
    cmocka_unit_test(test_builtin),
    cmocka_unit_test(test_arguments),
    cmocka_unit_test(test_no_server),
    cmocka_unit_test(test_table_changes),
    cmocka_unit_test(test_choice),
    cmocka_unit_test(test_session),
    cmocka_unit_test(test_later),
    cmocka_unit_test(test_strings),
    cmocka_unit_test(test_many),
    cmocka_unit_test(test_forget),
    cmocka_unit_test(test_app_freed),
    cmocka_unit_test(test_free_inside),
    cmocka_unit_test(test_free_by_answer),
    cmocka_unit_test(test_replace_inside),
    cmocka_unit_test(test_memory),
};

TEST_MAIN(tests)
