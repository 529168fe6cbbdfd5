/* SPDX-License-Identifier: MIT */
/* test_session_wire.c -- what hostile servers ask of a frontend about its
 * sessions, and what they answer. Start at test_hostile_questions. */
#include "far.h"

/* ---- What a peer may ask ----------------------------------------------- */

typedef struct served {
    int times;
    pm_err err, code;
    size_t len;
} served;

static void on_served(const pmi_rpc_answer *answer, void *ctx)
{
    served *s = ctx;
    s->times++;
    s->err = answer->result.err;
    s->code = (pm_err)answer->result.code;
    s->len = answer->extra.len;
}

static void serve_bytes(town *t, pm_slice bytes, pm_err code)
{
    pmi_rpc_send_opts send = {.op = PMI_OP_SESSION, .server_id = "c-1"};
    served got = {0};
    send.extra = bytes;
    assert_ok(pmi_rpc_send(pmi_app_rpc(t->chat), &send, on_served, &got, NULL));
    town_run(t, 10);
    assert_int_equal(got.times, 1);
    assert_err(got.err, code ? PM_EREMOTE : PM_OK);
    assert_err(got.code, code);
}

/* "SS" stands for the session's number. */
static void check_served(town *t, uint64_t sid, const char *text, pm_err code)
{
    char hex[1024], number[17];
    const char *mark = strstr(text, "SS");
    size_t len;
    uint8_t *bytes;
    snprintf(number, sizeof number, "%016llx", (unsigned long long)sid);
    snprintf(hex, sizeof hex, "%.*s%s%s",
             (int)(mark ? mark - text : (long)strlen(text)), text,
             mark ? number : "", mark ? mark + 2 : "");
    bytes = test_unhex(hex, &len);
    serve_bytes(t, pm_bytes(bytes, len), code);
    free(bytes);
}

static void test_hostile_questions(void **state)
{
    static const struct {
        const char *text;
        pm_err code;
    } all[] = {
        {"", PM_EFRAME},
        {"01", PM_EFRAME},
        {"01 00000000000000", PM_EFRAME},
        {"00 SS", PM_EFRAME},
        {"0a SS", PM_EFRAME},
        {"0a 0000000000000000 05 616c696365", PM_EFRAME},
        {"ff 0000000000000000 05 616c696365", PM_EFRAME},
        {"01 0000000000000000 61", PM_ENOTFOUND},
        {"01 SS", PM_EINVAL},
        {"01 SS 6100", PM_EINVAL},
        {"01 SS 626f62", PM_EBOUND},
        {"02 SS", PM_EINVAL},
        {"02 SS 61", PM_EUNBOUND},
        {"03 SS", PM_EJSON},
        {"03 SS 7b", PM_EJSON},
        {"03 SS 5b5d", PM_EINVAL},     /* [] */
        {"03 SS 31", PM_EINVAL},       /* 1 */
        {"03 SS 22 61 22", PM_EINVAL}, /* "a" */
        {"03 SS 5b317d", PM_EJSON},
        {"03 SS 7b7d", PM_OK},
        {"03 0000000000000001 7b7d", PM_ENOTFOUND},
        {"04 SS 6100", PM_EINVAL},
        {"06 0000000000000001", PM_ENOTFOUND},
        {"07 0000000000000000", PM_ENOTFOUND},
        {"07 0000000000000000 6100", PM_EINVAL},
        {"07 0000000000000000 616c696365", PM_OK},
        {"08 0000000000000000", PM_EINVAL},
        {"08 0000000000000000 06 616c696365", PM_EINVAL},
        {"08 0000000000000000 02 6100", PM_EINVAL},
        {"08 0000000000000000 05 616c696365 6f00", PM_EINVAL},
        {"09 0000000000000000 00", PM_ENOTFOUND},
        {"09 0000000000000000 ff 61", PM_EINVAL},
    };
    town t = {0};
    uint64_t sid;
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    sid = pm_session_id(t.last);
    for (size_t i = 0; i < PMI_COUNT(all); i++)
        check_served(&t, sid, all[i].text, all[i].code);
    assert_non_null(t.people[0].conn);
    assert_string_equal(pm_session_uid(t.last), "alice");
    assert_null(t.last->settings);
    check_served(&t, sid, "05 SS", PM_OK);
    assert_null(t.people[0].conn);
    town_close(&t);
}

static void test_long_questions(void **state)
{
    static const uint8_t whats[] = {1, 2, 4, 7, 8, 9};
    const size_t len = 1 + 8 + PMI_SETTINGS_TEXT_MAX + 1;
    town t = {0};
    uint8_t *bytes = malloc(len);
    (void)state;
    assert_non_null(bytes);
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    memset(bytes, 'x', len);
    pmi_put_be32(bytes + 1, (uint32_t)(pm_session_id(t.last) >> 32));
    pmi_put_be32(bytes + 5, (uint32_t)pm_session_id(t.last));
    for (size_t i = 0; i < sizeof whats; i++) {
        bytes[0] = whats[i];
        bytes[9] = 1;
        serve_bytes(&t, pm_bytes(bytes, 9 + 2 + 256), PM_EINVAL);
    }
    bytes[0] = 3;
    serve_bytes(&t, pm_bytes(bytes, len), PM_ELIMIT);
    free(bytes);
    assert_non_null(t.people[0].conn);
    town_close(&t);
}

/* ---- What a peer may answer -------------------------------------------- */

/* c-2 says this, whatever it is asked. */
static const char *lie;

static void serve_lie(pm_app *app, pm_call *call)
{
    size_t len;
    uint8_t *bytes = test_unhex(lie, &len);
    (void)app;
    pmi_call_answer(call, PM_OK, 0, NULL, pm_body_none(), pm_bytes(bytes, len));
    free(bytes);
}

static void check_lie(town *t, const char *hex, pm_err err, const char *who)
{
    found f;
    lie = hex;
    ask_uid(t, &f, "c-2", "alice");
    assert_found(t, &f, err, who);
    /* Others are believed all the same. */
    ask_uid(t, &f, NULL, "alice");
    town_run(t, 10);
    assert_int_equal(f.times, 1);
    assert_ok(f.err);
    assert_non_null(strstr(f.who, "alice@c-1 -;"));
}

static void test_hostile_answers(void **state)
{
    town t = {0};
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    pmi_rpc_serve(pmi_app_rpc(t.c2), PMI_OP_SESSION, serve_lie);
    check_lie(&t, "", PM_OK, "");
    check_lie(&t, "00", PM_EFRAME, "");
    check_lie(&t, "00000001", PM_EFRAME, "");
    check_lie(&t, "ffffffff 00", PM_EFRAME, "");
    check_lie(&t, "00000000", PM_EFRAME, "");
    check_lie(&t, "0000000a 0000000000000001 00 00", PM_OK, "-@ -;");
    check_lie(&t, "0000000b 0000000000000001 01 63 00", PM_OK, "-@c -;");
    check_lie(&t, "0000000b 0000000000000001 01 00 00", PM_EFRAME, "");
    check_lie(&t, "0000000b 0000000000000001 00 01 00", PM_EFRAME, "");
    check_lie(&t, "0000000b 0000000000000001 00 02 61", PM_EFRAME, "");
    check_lie(&t, "0000000b 0000000000000001 02 63 61", PM_EFRAME, "");
    check_lie(&t, "0000000b 0000000000000001 00 00 7b", PM_EFRAME, "");
    check_lie(&t, "0000000b 0000000000000001 00 00 31", PM_EFRAME, "");
    check_lie(&t, "0000000c 0000000000000001 00 00 7b7d", PM_OK, "-@ -;");
    /* A good one, then nonsense: all of it is passed over. */
    check_lie(&t, "0000000a 0000000000000001 00 00 00", PM_EFRAME, "");
    town_close(&t);
}

/* Settings that nobody could have set. */
static void test_large_import(void **state)
{
    const size_t len = 10 + PMI_SETTINGS_TEXT_MAX + 2;
    town t = {0};
    pm_session *view;
    uint8_t *bytes = calloc(1, len);
    (void)state;
    assert_non_null(bytes);
    memset(bytes + 10, ' ', len - 10);
    bytes[10] = '{';
    town_open(&t);
    bytes[len - 3] = '}';
    assert_ok(pmi_session_import(t.chat, pm_bytes(bytes, len - 2), &view));
    pm_session_unref(view);
    assert_err(pmi_session_import(t.chat, pm_bytes(bytes, len - 1), &view),
               PM_EFRAME);
    free(bytes);
    town_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_hostile_questions),
    cmocka_unit_test(test_long_questions),
    cmocka_unit_test(test_hostile_answers),
    cmocka_unit_test(test_large_import),
};
TEST_MAIN(tests)
