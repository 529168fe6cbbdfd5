/* SPDX-License-Identifier: MIT */
/* test/test_client.c -- pm_client on the wire: handshake, what it remembers,
 * heartbeats, requests, kicks, garbage. How it ends and comes back, and
 * sockets, are in test_client_life.c. */
#include "test.h"

#include "client_bench.h"

/* ---- Handshake --------------------------------------------------------- */
static void test_hello(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_open(&f);
    f.user = cJSON_CreateObject();
    cJSON_AddStringToObject(f.user, "name", "ann");
    pm_client_opts opts = fake_opts(&f);
    assert_ok(pm_client_new(&f.client, &opts));
    assert_false(pm_client_is_connected(f.client));
    assert_err(pm_client_notify(f.client, "a.b.c", pm_body_none()), PM_ESTATE);
    assert_err(pm_loop_free(f.loop), PM_ESTATE);
    run_ms(&f, 1);
    assert_string_equal(
        f.hello, "{\"sys\":{\"type\":\"c\",\"version\":\"" PM_VERSION "\"}}");
    assert_diary(&f, "connected ann;");
    pm_client_free(f.client);

    char type[] = "\"q\"", version[] = "7";
    opts.type = type;
    opts.version = version;
    opts.user = f.user;
    assert_ok(pm_client_new(&f.client, &opts));
    memset(type, '?', 3);
    memset(version, '?', 1);
    cJSON_Delete(f.user);
    f.user = NULL;
    run_ms(&f, 1);
    assert_string_equal(f.hello,
                        "{\"sys\":{\"type\":\"\\\"q\\\"\",\"version\":\"7\"},"
                        "\"user\":{\"name\":\"ann\"}}");
    assert_diary(&f, "connected -;");
    fake_end(&f);
}

static void test_arguments(void **state)
{
    fake f = {.sys = {0}};
    pm_client *none = NULL;
    char route[PMI_ROUTE_MAX + 2];
    (void)state;
    fake_start(&f, false);
    pm_client_opts good = fake_opts(&f), bad;
    assert_err(pm_client_new(NULL, &good), PM_EINVAL);
    assert_err(pm_client_new(&none, NULL), PM_EINVAL);
    bad = good, bad.size = 0;
    assert_err(pm_client_new(&none, &bad), PM_EINVAL);
    bad = good, bad.size++;
    assert_err(pm_client_new(&none, &bad), PM_EINVAL);
    bad = good, bad.loop = NULL;
    assert_err(pm_client_new(&none, &bad), PM_EINVAL);
    bad = good, bad.port = 0;
    assert_err(pm_client_new(&none, &bad), PM_EINVAL);
    bad = good, bad.host = "";
    assert_err(pm_client_new(&none, &bad), PM_EINVAL);
    bad = good, bad.transport = (pm_transport)3;
    assert_err(pm_client_new(&none, &bad), PM_EINVAL);
    assert_null(none);
    pm_client_free(NULL);
    pm_client_disconnect(NULL);
    assert_false(pm_client_is_connected(NULL));
    memset(route, 'r', sizeof route);
    route[PMI_ROUTE_MAX + 1] = 0;
    assert_err(pm_client_notify(f.client, route, pm_body_none()), PM_EINVAL);
    assert_err(pm_client_notify(f.client, "", pm_body_none()), PM_EINVAL);
    assert_err(pm_client_notify(f.client, NULL, pm_body_none()), PM_EINVAL);
    assert_err(pm_client_notify(NULL, "r", pm_body_none()), PM_EINVAL);
    assert_err(pm_client_request(f.client, "r", pm_body_none(), NULL, NULL),
               PM_EINVAL);
    char *large = calloc(1, PMI_PACKAGE_BODY_MAX);
    assert_err(pm_client_notify(f.client, "r",
                                pm_body_bytes(large, PMI_PACKAGE_BODY_MAX)),
               PM_ESIZE);
    free(large);
    route[PMI_ROUTE_MAX] = 0;
    assert_ok(pm_client_notify(f.client, route, pm_body_none()));
    run_ms(&f, 1);
    assert_non_null(strstr(f.heard, route));
    assert_diary(&f, "");
    fake_end(&f);
}

static void test_refused(void **state)
{
    static const struct {
        const char *answer;
        pm_close_reason reason;
        int code;
    } rows[] = {{"{\"code\":500}", PM_CLOSE_HANDSHAKE, 500},
                {"{\"code\":501}", PM_CLOSE_CHECK_CLIENT, 501},
                {"{\"code\":\"200\"}", PM_CLOSE_HANDSHAKE, 0},
                {"{\"code\":1e300}", PM_CLOSE_HANDSHAKE, 0},
                {"{}", PM_CLOSE_HANDSHAKE, 0},
                {"200", PM_CLOSE_HANDSHAKE, 0},
                {"", PM_CLOSE_HANDSHAKE, 0},
                {"{\"code\":200,\"sys\":", PM_CLOSE_HANDSHAKE, 0}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(rows); i++) {
        fake f = {.answer = rows[i].answer};
        char want[64];
        fake_open(&f);
        pm_client_opts opts = fake_opts(&f);
        assert_ok(pm_client_new(&f.client, &opts));
        run_ms(&f, 60000);
        snprintf(want, sizeof want, "disconnected %d %d;", (int)rows[i].reason,
                 rows[i].code);
        assert_diary(&f, want);
        assert_heard(&f, "closed;");
        assert_int_equal(f.accepted, 1);
        fake_end(&f);
    }
}

/* Odd, but no reason to go. */
static void test_odd_answers(void **state)
{
    static const char *const rows[] = {
        "{\"code\":200}",
        "{\"code\":200,\"sys\":[1]}",
        "{\"code\":200,\"sys\":{\"heartbeat\":-1,\"useDict\":true,"
        "\"useProto\":true}}",
        "{\"code\":200,\"sys\":{\"heartbeat\":\"x\",\"dict\":3,\"protos\":[]}}",
        "{\"code\":200,\"sys\":{\"dict\":{\"a\":0,\"b\":-1,\"c\":65536,"
        "\"d\":\"1\",\"\":5,\"e\":1.5,\"f\":1},\"dictVersion\":[],"
        "\"protos\":{\"client\":7,\"server\":{\"r\":3,\"q\":{\"x\":1,\"y\":"
        "{\"option\":1},\"__messages\":[{}],\"__tags\":4}},\"version\":1}}}",
        "{\"code\":200,\"sys\":{\"protos\":{\"client\":{\"r\":{\"f g\":"
        "{\"option\":\"a b\",\"type\":\"c d\",\"tag\":1e99}}}}}}"};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(rows); i++) {
        fake f = {.answer = rows[i], .answers = true};
        fake_start(&f, false);
        ask(&f, "plain.route.here", "{\"n\":1}");
        run_ms(&f, 60000);
        assert_diary(&f, "PM_OK {\"n\":1};");
        fake_end(&f);
    }
}

/* Schemas that nest deeper than any that we would write. */
static void test_deep_schema(void **state)
{
    char answer[8192] = "{\"code\":200,\"sys\":{\"protos\":{\"server\":{\"r\":";
    fake f = {.answer = answer};
    (void)state;
    for (int i = 0; i < 33; i++)
        NOTE(answer, "{\"__messages\":{\"M\":");
    NOTE(answer, "{}");
    for (int i = 0; i < 33; i++)
        NOTE(answer, "}}");
    NOTE(answer, "}}}}");
    fake_open(&f);
    pm_client_opts opts = fake_opts(&f);
    assert_ok(pm_client_new(&f.client, &opts));
    run_ms(&f, 10);
    assert_int_equal(f.reason, PM_CLOSE_HANDSHAKE);
    fake_end(&f);
}

static void test_connect_timeout(void **state)
{
    fake f = {.deaf = true};
    (void)state;
    fake_open(&f);
    pm_client_opts opts = fake_opts(&f);
    opts.connect_ms = 3000;
    assert_ok(pm_client_new(&f.client, &opts));
    run_ms(&f, 2999);
    assert_diary(&f, "");
    run_ms(&f, 5);
    assert_int_equal(f.reason, PM_CLOSE_HANDSHAKE_TIMEOUT);
    fake_end(&f);
}

/* ---- What is remembered ------------------------------------------------ */
/* A request, its answer and a push, all by dictionary and schemas. */
static void check_known(fake *f)
{
    uint8_t answer[] = {0x08, 0xc8, 0x01};
    uint8_t push[] = {0x0a, 2, 'h', 'i', 0x12, 2, 0x08, 0x03};
    ask(f, "chat.chatHandler.send", "{\"text\":\"ab\",\"to\":[1,-1]}");
    run_ms(f, 1);
    char *id = strchr(f->heard, ' ');
    assert_non_null(id);
    assert_string_equal(strchr(id + 1, ' '), " #1 0a026162100202"
                                             "01;");
    fake_message(f, PMI_MESSAGE_RESPONSE, (uint32_t)strtoul(id, NULL, 10), "",
                 0, pm_bytes(answer, sizeof answer));
    fake_message(f, PMI_MESSAGE_PUSH, 0, "", 2, pm_bytes(push, sizeof push));
    run_ms(f, 1);
    assert_diary(f, "PM_OK {\"code\":200};"
                    "push onChat {\"msg\":\"hi\",\"who\":[{\"id\":-2}]};");
    f->heard[0] = 0;
}

static void reconnected(fake *f)
{
    f->diary[0] = f->heard[0] = f->hello[0] = 0;
    fake_cut(f);
    run_ms(f, 300);
    assert_diary(f, "disconnected 4 0;connected -;");
    assert_heard(f, "ack;");
}

static void test_cache(void **state)
{
    fake f = {.sys = {0}};
    knowledge k;
    char want[256];
    (void)state;
    know(&k, &f);
    fake_start(&f, true);
    assert_null(strstr(f.hello, "dictVersion"));
    assert_null(strstr(f.hello, "protoVersion"));
    check_known(&f);
    reconnected(&f); /* the server has said `useDict`, `useProto` only */
    snprintf(want, sizeof want,
             "{\"sys\":{\"type\":\"c\",\"version\":\"" PM_VERSION "\","
             "\"dictVersion\":\"%s\",\"protoVersion\":\"%s\"}}",
             pmi_dict_version(k.dict), k.version);
    assert_string_equal(f.hello, want);
    check_known(&f);
    f.sys.dict = NULL; /* no longer in use: forgotten */
    reconnected(&f);
    assert_string_equal(f.hello, want);
    ask(&f, "chat.chatHandler.send", "{\"text\":\"ab\"}");
    run_ms(&f, 1);
    assert_heard(&f, "req 3 chat.chatHandler.send 0a026162;");
    f.sys.use_protobuf = false;
    f.sys.dict = k.dict;
    f.diary[0] = 0;
    fake_respond(&f, 3, "");
    run_ms(&f, 1);
    reconnected(&f);
    assert_null(strstr(f.hello, "dictVersion"));
    assert_non_null(strstr(f.hello, "protoVersion"));
    ask(&f, "chat.chatHandler.send", "{\"text\":\"ab\"}");
    run_ms(&f, 1);
    assert_heard(&f, "req 4 #1 {\"text\":\"ab\"};");
    fake_end(&f);
    forget(&k);
}

static void test_dialect(void **state)
{
    fake f = {.sys = {0}};
    knowledge k;
    const char *route = "chat.chatHandler.send";
    (void)state;
    know(&k, &f);
    fake_start(&f, false);
    assert_err(pm_client_notify(f.client, route, pm_body_text("{}")),
               PM_EPROTOBUF);
    assert_err(
        pm_client_request(f.client, route, pm_body_text("{"), on_response, &f),
        PM_EJSON);
    assert_ok(pm_client_notify(f.client, route, pm_body_bytes("\1\2", 2)));
    assert_ok(pm_client_notify(f.client, route, pm_body_none()));
    assert_ok(pm_client_notify(f.client, "other.x.y", pm_body_text("{\"")));
    run_ms(&f, 1);
    assert_heard(&f, "notify #1 0102;notify #1 ;notify other.x.y {\";");
    ask(&f, route, "{\"text\":\"\"}");
    ask(&f, route, "{\"text\":\"\"}");
    ask(&f, "other.x.y", "{}");
    run_ms(&f, 1);
    assert_heard(&f, "req 2 #1 0a00;req 3 #1 0a00;req 4 other.x.y {};");
    fake_respond(&f, 2, "\x78"); /* an unknown tag */
    fake_respond(&f, 3, "");
    fake_respond(&f, 4, "\xff not JSON");
    fake_push(&f, "onChat", "\x78");
    fake_message(&f, PMI_MESSAGE_PUSH, 0, "", 99, pm_text("{}"));
    fake_push(&f, "onOther", "");
    run_ms(&f, 1);
    assert_diary(&f, "PM_EPROTOBUF ;PM_OK {};PM_OK \xff not JSON;"
                     "push onOther ;");
    fake_end(&f);
    forget(&k);
}

/* ---- Heartbeat --------------------------------------------------------- */
static void test_heartbeat(void **state)
{
    fake f = {.sys = {.heartbeat_s = 2}, .beats = true};
    (void)state;
    fake_start(&f, false);
    run_ms(&f, 1990);
    assert_heard(&f, "");
    run_ms(&f, 20);
    assert_heard(&f, "beat;");
    run_ms(&f, 1980);
    assert_heard(&f, "");
    run_ms(&f, 20);
    assert_heard(&f, "beat;");
    run_ms(&f, 60000);
    assert_heard(&f, "beat;beat;beat;beat;beat;beat;beat;beat;beat;beat;"
                     "beat;beat;beat;beat;beat;beat;beat;beat;beat;beat;"
                     "beat;beat;beat;beat;beat;beat;beat;beat;beat;beat;");
    f.beats = false;
    for (int i = 0; i < 4; i++) { /* a server in haste: answered once */
        fake_send(&f, PMI_PACKAGE_HEARTBEAT, NULL, 0);
        run_ms(&f, 525);
    }
    assert_heard(&f, "beat;");
    run_ms(&f, 3000);
    fake_push(&f, "alive", "1"); /* any package counts */
    run_ms(&f, 3900);
    assert_diary(&f, "push alive 1;");
    run_ms(&f, 200);
    assert_diary(&f, "disconnected 6 0;");
    assert_int_equal(f.reason, PM_CLOSE_HEARTBEAT);
    fake_end(&f);
}

static void test_no_heartbeat(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_start(&f, false);
    fake_send(&f, PMI_PACKAGE_HEARTBEAT, NULL, 0); /* not agreed upon */
    run_ms(&f, 3600 * 1000);
    assert_heard(&f, "");
    assert_diary(&f, "");
    fake_end(&f);
}

static void test_silent_from_the_start(void **state)
{
    fake f = {.sys = {.heartbeat_s = 0.5}};
    (void)state;
    fake_start(&f, false);
    run_ms(&f, 990);
    assert_diary(&f, "");
    run_ms(&f, 20);
    assert_diary(&f, "disconnected 6 0;");
    assert_heard(&f, "closed;");
    fake_end(&f);
}

static void test_mad_heartbeats(void **state)
{
    static const char *const rows[] = {"1e300", "1e-300", "0", "-5"};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(rows); i++) {
        char answer[100];
        fake f = {.answer = answer, .beats = true};
        snprintf(answer, sizeof answer,
                 "{\"code\":200,\"sys\":{\"heartbeat\":%s}}", rows[i]);
        fake_open(&f);
        pm_client_opts opts = fake_opts(&f);
        assert_ok(pm_client_new(&f.client, &opts));
        run_ms(&f, 50);
        assert_diary(&f, "connected -;");
        fake_end(&f);
    }
}

/* ---- Requests ---------------------------------------------------------- */
static void test_ids(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_start(&f, false);
    ask(&f, "a.b.c", "{\"n\":1}");
    ask(&f, "a.b.c", "{\"n\":2}");
    ask(&f, "a.b.c", "{\"n\":3}");
    assert_ok(pm_client_notify(f.client, "a.b.d", pm_body_text("{}")));
    run_ms(&f, 1);
    assert_heard(&f, "req 1 a.b.c {\"n\":1};req 2 a.b.c {\"n\":2};"
                     "req 3 a.b.c {\"n\":3};notify a.b.d {};");
    fake_respond(&f, 3, "c");
    fake_respond(&f, 0, "nobody");
    fake_respond(&f, 4, "nobody");
    fake_respond(&f, 0x7fffffff, "nobody");
    fake_respond(&f, 1, "a");
    fake_respond(&f, 3, "twice");
    fake_respond(&f, 2, "b");
    fake_message(&f, PMI_MESSAGE_NOTIFY, 0, "x", 0, pm_text("?"));
    fake_message(&f, PMI_MESSAGE_REQUEST, 1, "x", 0, pm_text("?"));
    run_ms(&f, 1);
    assert_diary(&f, "PM_OK c;PM_OK a;PM_OK b;");
    fake_end(&f);
}

static void test_request_deadline(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_start(&f, false);
    pm_client_free(f.client);
    pm_client_opts opts = fake_opts(&f);
    opts.request_ms = 1000;
    assert_ok(pm_client_new(&f.client, &opts));
    run_ms(&f, 1);
    f.diary[0] = 0;
    ask(&f, "a.b.c", "{}");
    run_ms(&f, 600);
    ask(&f, "a.b.c", "{}");
    ask(&f, "a.b.c", "{}");
    run_ms(&f, 399);
    assert_diary(&f, "");
    run_ms(&f, 3);
    assert_diary(&f, "PM_ETIMEOUT ;");
    fake_respond(&f, 1, "late");
    fake_respond(&f, 2, "in time");
    run_ms(&f, 590);
    assert_diary(&f, "PM_OK in time;");
    run_ms(&f, 20);
    assert_diary(&f, "PM_ETIMEOUT ;");
    assert_true(pm_client_is_connected(f.client));
    fake_end(&f);
}

static void test_default_deadline(void **state)
{
    fake f = {.sys = {0}};
    (void)state;
    fake_start(&f, false);
    ask(&f, "a.b.c", "{}");
    run_ms(&f, 29990);
    assert_diary(&f, "");
    run_ms(&f, 20);
    assert_diary(&f, "PM_ETIMEOUT ;");
    fake_end(&f);
}

/* Each request completes once, before `disconnected`; none can be made then. */
static void test_closed_requests(void **state)
{
    fake f = {.again = true};
    (void)state;
    fake_start(&f, false);
    ask(&f, "a.b.c", "{}");
    ask(&f, "a.b.c", "{}");
    pm_client_disconnect(f.client);
    assert_diary(&f, ""); /* on a later turn */
    assert_false(pm_client_is_connected(f.client));
    assert_err(
        pm_client_request(f.client, "a.b.c", pm_body_none(), on_response, &f),
        PM_ESTATE);
    run_ms(&f, 60000);
    assert_diary(&f, "PM_ECLOSED ;again PM_ESTATE;"
                     "PM_ECLOSED ;again PM_ESTATE;disconnected 1 0;");
    assert_heard(&f, "req 1 a.b.c {};req 2 a.b.c {};closed;");
    fake_end(&f);
}

static void test_pending_limit(void **state)
{
    enum { MANY = 65536 };
    fake f = {.sys = {0}};
    (void)state;
    fake_start(&f, false);
    f.end_in = IN_DISCONNECTED;
    for (int i = 0; i < MANY; i++)
        assert_ok(
            pm_client_request(f.client, "a", pm_body_none(), on_response, &f));
    assert_err(
        pm_client_request(f.client, "a", pm_body_none(), on_response, &f),
        PM_ELIMIT);
    assert_ok(pm_client_notify(f.client, "a", pm_body_none()));
    run_ms(&f, 1);
    fake_respond(&f, 77, "x");
    run_ms(&f, 1);
    assert_diary(&f, "PM_OK x;");
    ask(&f, "a", "{}");
    f.heard[0] = 0;
    fake_end(&f);
}

/* ---- Ends -------------------------------------------------------------- */
static void test_kick(void **state)
{
    static const char *const rows[][2] = {
        {"{\"reason\":\"kick\"}", "kicked kick;disconnected 3 0;"},
        {"{\"reason\":7}", "kicked ;disconnected 3 0;"},
        {"", "kicked ;disconnected 3 0;"},
        {"{\"reason\":\"a\\u0000b\"}", "kicked ;disconnected 3 0;"},
        {"nonsense", "kicked ;disconnected 3 0;"}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(rows); i++) {
        fake f = {.sys = {0}};
        fake_start(&f, false);
        fake_send(&f, PMI_PACKAGE_KICK, rows[i][0], strlen(rows[i][0]));
        fake_push(&f, "late", "{}");
        run_ms(&f, 60000);
        assert_diary(&f, rows[i][1]);
        fake_end(&f);
    }
    fake f = {.deaf = true};
    fake_open(&f);
    pm_client_opts opts = fake_opts(&f);
    assert_ok(pm_client_new(&f.client, &opts));
    run_ms(&f, 1);
    fake_send(&f, PMI_PACKAGE_KICK, "{}", 2); /* nobody was in yet */
    run_ms(&f, 1);
    assert_diary(&f, "disconnected 3 0;");
    fake_end(&f);
}

static void test_malformed(void **state)
{
    static const struct {
        const char *hex;
        pm_close_reason reason;
    } rows[] = {{"00000000", PM_CLOSE_PACKAGE},
                {"06ffffff", PM_CLOSE_PACKAGE},
                {"47455420", PM_CLOSE_PACKAGE},
                {"04000000", PM_CLOSE_MESSAGE},
                {"0400000106", PM_CLOSE_MESSAGE},
                {"04000003060561", PM_CLOSE_MESSAGE},
                {"040000020700", PM_CLOSE_MESSAGE},
                {"0400000604ffffffff0f", PM_CLOSE_MESSAGE},
                {"0400000404808080", PM_CLOSE_MESSAGE},
                /* harmless */
                {"01000000"
                 "02000000"
                 "03000000",
                 PM_CLOSE_NONE},
                {"040000010e"
                 "04000001ff",
                 PM_CLOSE_NONE},
                {"040000020600"
                 "0400000406020061",
                 PM_CLOSE_NONE},
                {"04ffff", PM_CLOSE_NONE}};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(rows); i++) {
        fake f = {.sys = {0}};
        size_t len;
        uint8_t *bytes = test_unhex(rows[i].hex, &len);
        fake_start(&f, false);
        fake_raw(&f, bytes, len);
        run_ms(&f, 1000);
        assert_int_equal(f.ends, rows[i].reason != PM_CLOSE_NONE);
        assert_int_equal(f.reason, rows[i].reason);
        fake_end(&f);
        free(bytes);
    }
}

/* Packages that were whole, with bytes turned over, and plain noise. */
static void test_garbage(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++) {
        fake f = {.world = {.seed = seed * 1000}, .beats = seed & 1};
        knowledge k;
        uint8_t bytes[600];
        know(&k, &f);
        f.sys.heartbeat_s = 1;
        f.deaf = seed % 5 == 0;
        fake_open(&f);
        pm_client_opts opts = fake_opts(&f);
        opts.reconnect = true;
        opts.connect_ms = 500;
        assert_ok(pm_client_new(&f.client, &opts));
        for (int round = 0; round < 20; round++) {
            size_t len = test_world_below(&f.world, sizeof bytes);
            test_world_random(bytes, len, &f.world);
            for (size_t i = 0; i + 8 < len;
                 i += 8 + test_world_below(&f.world, 40)) {
                size_t n = test_world_below(&f.world, 12);
                pmi_proto_package_head(bytes + i, (uint8_t)(1 + n % 5), n);
                bytes[i + 4] &= 0x0f;
            }
            fake_raw(&f, bytes, len);
            if (f.client && pm_client_is_connected(f.client))
                ask(&f, "chat.chatHandler.send", "{\"text\":\"x\"}");
            run_ms(&f, test_world_below(&f.world, 400));
            f.diary[0] = f.heard[0] = 0;
        }
        f.diary[0] = 0;
        fake_end(&f);
        forget(&k);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_hello),
    cmocka_unit_test(test_arguments),
    cmocka_unit_test(test_refused),
    cmocka_unit_test(test_odd_answers),
    cmocka_unit_test(test_deep_schema),
    cmocka_unit_test(test_connect_timeout),
    cmocka_unit_test(test_cache),
    cmocka_unit_test(test_dialect),
    cmocka_unit_test(test_heartbeat),
    cmocka_unit_test(test_no_heartbeat),
    cmocka_unit_test(test_silent_from_the_start),
    cmocka_unit_test(test_mad_heartbeats),
    cmocka_unit_test(test_ids),
    cmocka_unit_test(test_request_deadline),
    cmocka_unit_test(test_default_deadline),
    cmocka_unit_test(test_closed_requests),
    cmocka_unit_test(test_pending_limit),
    cmocka_unit_test(test_kick),
    cmocka_unit_test(test_malformed),
    cmocka_unit_test(test_garbage),
};

TEST_MAIN(tests)
