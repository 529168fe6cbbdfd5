/* SPDX-License-Identifier: MIT */
/* test_flow_memory.c -- a busy evening with each allocation refused once,
 * cJSON's included: nothing crashes, nothing leaks, and what was accepted is
 * told exactly once. With none refused everything must have worked. Start at
 * evening. */
#include "flow.h"

typedef struct busy {
    flow f; /* first: a story is a flow */
    int asked, told, failed;
    pm_request *held[16];
    size_t held_count;
    int stopped;
} busy;

static void busy_count(busy *b, pm_err err)
{
    if (err == PM_OK)
        b->asked++;
}

static void on_done(pm_err err, const char *detail, void *ctx)
{
    busy *b = ctx;
    (void)detail;
    b->told++;
    b->failed += err != PM_OK;
}

static void on_rpc(const pm_rpc_result *result, void *ctx)
{
    busy *b = ctx;
    b->told++;
    b->failed += result->err != PM_OK;
}

static void on_push(pm_err err, const pm_receiver *missed, size_t count,
                    void *ctx)
{
    busy *b = ctx;
    (void)missed;
    (void)count;
    b->told++;
    b->failed += err != PM_OK;
}

static void on_answered(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    busy *b = ctx;
    (void)client;
    b->told++;
    b->failed += err != PM_OK || body.data.len < 2;
}

static void on_stopped(pm_app *app, pm_err err, void *ctx)
{
    busy *b = ctx;
    (void)app;
    (void)err;
    b->stopped++;
    b->told++;
}

static void on_work(pm_request *req, void *ctx)
{
    busy *b = ctx;
    pm_session *session = pm_request_session(req);
    struct cJSON *body;
    pm_err err = pm_request_json(req, &body);
    if (err == PM_OK) {
        busy_count(b, pm_session_bind(session, "ann", on_done, b));
        if (pm_session_set(session, "body", body))
            b->failed++;
        busy_count(b, pm_session_sync(session, NULL, on_done, b));
        pm_session_push(session, "onWork", pm_body_text("{\"n\":1}"));
        err = pm_reply_json(req, body);
    } else {
        pm_request_fail(req, err, NULL, NULL);
    }
    b->failed += err != PM_OK;
}

static void on_unbind(pm_request *req, void *ctx)
{
    busy *b = ctx;
    busy_count(b,
               pm_session_unbind(pm_request_session(req), "ann", on_done, b));
    pm_reply_text(req, "{}");
}

static void on_fail(pm_request *req, void *ctx)
{
    struct cJSON *body = NULL;
    (void)ctx;
    if (pm_json_tree(pm_text("{\"code\":0,\"why\":[1,2]}"), &body))
        body = NULL;
    pm_request_fail(req, PM_EREMOTE, "so", body);
    cJSON_Delete(body);
}

static void on_hold(pm_request *req, void *ctx)
{
    busy *b = ctx;
    b->failed += pm_request_keep(req) != PM_OK;
    b->failed += pm_request_id(req) == 0;
    b->held[b->held_count++] = req;
}

static void on_remote(pm_call *call, void *ctx)
{
    struct cJSON *args;
    (void)ctx;
    if (pm_call_keep(call) || pm_call_json(call, &args))
        pm_call_fail(call, 7, "no memory");
    else
        pm_call_reply(call, pm_body_text("{\"sum\":3}"));
}

static void on_route(pm_app *app, pm_choice *choice, void *ctx)
{
    (void)app;
    (void)ctx;
    pm_route_to(choice, "chat-1");
}

static void on_before(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_filter_next(req);
}

static void on_after(pm_request *req, const pm_response *response, void *ctx)
{
    (void)ctx;
    (void)response;
    pm_filter_next(req);
}

static pm_err busy_filters(pm_app *app, busy *b)
{
    pm_filter filter = {on_before, on_after, NULL};
    pm_component part = {.name = "part"};
    pm_err err = pm_filter_serial(app, 500);
    if (err == PM_OK)
        err = pm_filter_timeout(app, 300);
    if (err == PM_OK)
        err = pm_app_filter(app, &filter, b);
    if (err == PM_OK)
        err = pm_app_global_filter(app, &filter, b);
    if (err == PM_OK)
        err = pm_app_component(app, &part, b);
    if (err == PM_OK)
        err = pm_app_set(app, "busy", b);
    return err;
}

static pm_err busy_configure(flow *f, pm_app *app)
{
    static const struct {
        const char *name;
        pm_handler_cb cb;
    } handlers[] = {{"work", on_work},
                    {"unbind", on_unbind},
                    {"fail", on_fail},
                    {"hold", on_hold}};
    pm_err err = busy_filters(app, (busy *)f);
    char route[64];
    for (size_t i = 0; i < 8 && err == PM_OK; i++) {
        snprintf(route, sizeof route, "%s.h.%s", i % 2 ? "connector" : "chat",
                 handlers[i / 2].name);
        err = pm_app_handler(app, route, handlers[i / 2].cb, f);
    }
    if (err == PM_OK)
        err = pm_app_remote(app, "chat.r.add", on_remote, f);
    if (err == PM_OK)
        err = pm_app_route(app, "chat", on_route, f);
    return err;
}

static void busy_ask(busy *b, const char *route)
{
    if (pm_client_is_connected(b->f.client))
        busy_count(b, pm_client_request(b->f.client, route,
                                        pm_body_text("{\"a\":[1,{\"b\":2}]}"),
                                        on_answered, b));
    flow_run(&b->f, 20);
}

static void busy_act(busy *b, pm_app *app)
{
    pm_receiver to[2] = {{"ann", "connector-1"}, {"bob", "connector-1"}};
    pm_server more = {.id = "chat-2", .type = "chat"};
    busy_count(b, pm_rpc_invoke(app, "chat.r.add", pm_param_string("x"),
                                pm_body_text("[1,2]"), on_rpc, b));
    busy_count(
        b, pm_push_uids(app, "onPush", pm_body_text("{}"), to, 2, on_push, b));
    flow_run(&b->f, 20);
    if (pm_server_add(app, &more) == PM_OK)
        pm_server_remove(app, "chat-2");
}

/* The whole evening. False: it did not even begin. */
static bool evening(busy *b)
{
    if (flow_start(&b->f, 1, busy_configure))
        return false;
    busy_ask(b, "connector.h.work");
    busy_ask(b, "chat.h.work");
    busy_ask(b, "connector.h.fail");
    busy_ask(b, "chat.h.fail");
    busy_act(b, b->f.front);
    busy_act(b, b->f.back);
    busy_ask(b, "chat.h.unbind");
    busy_ask(b, "connector.h.hold");
    busy_ask(b, "chat.h.hold");
    for (size_t i = 0; i < b->held_count; i++)
        pm_reply_text(b->held[i], "{\"held\":1}");
    flow_run(&b->f, 50);
    busy_count(b, pm_app_stop(b->f.front, 100, on_stopped, b));
    busy_count(b, pm_app_stop(b->f.back, 100, on_stopped, b));
    flow_run(&b->f, 200);
    return true;
}

static void test_every_allocation(void **state)
{
    busy *b = calloc(1, sizeof *b);
    test_heap heap = {0};
    size_t rounds = 0;
    (void)state;
    assert_non_null(b);
    test_cjson_use(&heap);
    for (size_t kind = 0; kind < 2; kind++) {
        bool hit = true;
        /* The loop's allocator, then cJSON's. */
        for (size_t k = 1; hit && k < 4000; k += k < 400 ? 1 : 1 + k / 97) {
            test_heap *failing = kind ? &heap : &b->f.heap;
            memset(b, 0, sizeof *b);
            heap.calls = heap.failed = 0;
            failing->fail_at = k;
            if (evening(b))
                assert_int_equal(b->stopped, 2);
            pm_client_free(b->f.client);
            b->f.client = NULL;
            pm_app_free(b->f.front);
            pm_app_free(b->f.back);
            b->f.front = b->f.back = NULL;
            if (b->asked != b->told)
                print_error("%zu: asked %d, told %d\n", k, b->asked, b->told);
            assert_int_equal(b->asked, b->told);
            hit = failing->failed > 0;
            if (!hit) {
                assert_int_equal(b->failed, 0);
                assert_int_equal(b->asked, 18);
            }
            failing->fail_at = 0;
            flow_end(&b->f);
            assert_heap_empty(&heap);
            rounds++;
        }
        assert_false(hit);
    }
    print_message("%zu evenings\n", rounds);
    test_cjson_use(NULL);
    free(b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_every_allocation),
};

TEST_MAIN(tests)
