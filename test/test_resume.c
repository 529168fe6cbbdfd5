/* SPDX-License-Identifier: MIT */
/* test_resume.c -- sessions that outlive their connection, asked for by hand:
 * what is offered, what a token is good for and for how long, who is taken
 * over, what is kept, and how each of them ends. guest_come() is in inn.h. */
#include "inn.h"

/* ---- Offers -------------------------------------------------------------- */

static void test_who_does_not_ask_sees_nothing(void **state)
{
    inn *i = inn_new();
    guest *g, *plain, *asks;
    (void)state;
    i->opts.resume_ms = 0;
    inn_start(i);
    asks = guest_greet(i, 3051, "{\"__resume__\":{}}");
    assert_string_equal(asks->answer, "{\"code\":200,\"sys\":{}}");
    inn_close(i);
    i = inn_open();
    plain = guest_greet(i, 3051, NULL);
    assert_string_equal(plain->answer, "{\"code\":200,\"sys\":{}}");
    g = guest_greet(i, 3051, "{\"__resume__\":true,\"resume\":{}}");
    assert_string_equal(g->answer, "{\"code\":200,\"sys\":{}}");
    guest_ack(i, g);
    guest_leave(i, g);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->suspended, 0);
    inn_close(i);
}

static void test_offer(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    char want[256];
    (void)state;
    snprintf(want, sizeof want,
             "{\"code\":200,\"sys\":{},\"user\":{\"__resume__\":{\"token\":"
             "\"%s\",\"bytes\":8192,\"ms\":10000}}}",
             g->token);
    assert_string_equal(g->answer, want);
    inn_close(i);
}

static pm_handshake *asked_handshake;

static void on_handshake(pm_handshake *hs, const struct cJSON *msg, void *ctx)
{
    (void)msg;
    (void)ctx;
    asked_handshake = hs;
}

/* The application's own words stay; where they are no object there is no
 * place for ours. */
static void test_with_the_applications_user_part(void **state)
{
    inn *i = inn_new();
    cJSON *user = cJSON_CreateObject(), *list = cJSON_CreateArray();
    guest *g;
    (void)state;
    i->opts.handshake = on_handshake;
    inn_start(i);
    cJSON_AddNumberToObject(user, "level", 7);
    g = guest_greet(i, 3051, "{\"__resume__\":{}}");
    pm_handshake_done(asked_handshake, PM_OK, user);
    inn_run(i, 2);
    assert_non_null(
        strstr(g->answer, "\"user\":{\"level\":7,\"__resume__\":{\"token\":"));
    g = guest_greet(i, 3051, "{\"__resume__\":{}}");
    pm_handshake_done(asked_handshake, PM_OK, list);
    inn_run(i, 2);
    assert_string_equal(g->answer, "{\"code\":200,\"sys\":{},\"user\":[]}");
    cJSON_Delete(user);
    cJSON_Delete(list);
    inn_close(i);
}

static void test_too_much_to_be_sent_again(void **state)
{
    inn *i = inn_new();
    pm_app_opts opts = pm_app_opts_default();
    pm_loop_opts loop = test_world_opts(&i->world, &i->heap);
    pm_app *app;
    (void)state;
    assert_ok(pm_loop_new(&i->loop, &loop));
    opts.loop = i->loop;
    opts.servers = inn_servers;
    opts.servers_count = 1;
    opts.connector.resume_ms = 1;
    opts.connector.resume_bytes = QUEUE / 2 + 1;
    opts.limits.client_queue_bytes = QUEUE;
    assert_err(pm_app_new(&app, &opts), PM_ECONFIG);
    opts.connector.resume_bytes--;
    assert_ok(pm_app_new(&app, &opts));
    pm_app_free(app);
    assert_ok(pm_loop_free(i->loop));
    assert_heap_empty(&i->heap);
    free(i);
}

/* ---- Coming back --------------------------------------------------------- */

static void test_comes_back(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *again;
    uint64_t sid = pm_session_id(i->session);
    (void)state;
    assert_ok(pm_session_bind(i->session, "ann", NULL, NULL));
    inn_push(i, "1");
    inn_push(i, "2");
    guest_ask(g, 1, "connector.h.hold");
    guest_ask(g, 0, "connector.h.tell");
    inn_run(i, 2);
    assert_string_equal(g->heard, "1 2 ");
    g->data = 1; /* the second one came too late for it */
    guest_leave(i, g);
    assert_int_equal(i->suspended, 1);
    assert_int_equal(i->lost_why, PM_CLOSE_CLIENT);
    assert_ptr_equal(pm_session_find(i->app, sid), i->session);
    assert_int_equal(pmi_sessions_bound(pmi_app_sessions(i->app)), 1);
    inn_push(i, "3");
    assert_ok(pm_reply_text(i->held, "four"));
    again = guest_return(i, g);
    assert_non_null(strstr(again->answer, "\"received\":2"));
    assert_string_not_equal(again->token, g->token);
    inn_push(i, "5");
    inn_run(i, 2);
    assert_string_equal(again->heard, "2 3 four 5 ");
    assert_int_equal(i->resumed, 1);
    assert_int_equal(i->opened, 1);
    assert_int_equal(i->closed, 0);
    assert_string_equal(pm_session_uid(i->session), "ann");
    inn_close(i);
}

static void test_deadline_passes_meanwhile(void **state)
{
    inn *i = inn_new();
    guest *g, *again;
    (void)state;
    i->limits.request_ms = 1000;
    inn_start(i);
    g = guest_come(i);
    guest_ask(g, 1, "connector.h.hold");
    inn_run(i, 2);
    guest_leave(i, g);
    inn_run(i, 2000);
    assert_err(pm_reply_text(i->held, "late"), PM_ECLOSED);
    again = guest_return(i, g);
    assert_string_equal(again->heard, "{\"code\":500} ");
    inn_close(i);
}

/* ---- Tokens -------------------------------------------------------------- */

static void test_forged_tokens(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    char forged[64];
    (void)state;
    guest_leave(i, g);
    for (size_t at = 0; at < 48; at += 7) {
        memcpy(forged, g->token, sizeof forged);
        forged[at] = forged[at] == '0' ? '1' : '0';
        guest_leave(i, guest_claim(i, forged, 0));
        assert_refused(&i->guests[i->count - 1], "unknown");
    }
    guest_leave(i, guest_claim(i, "", 0));
    guest_leave(i, guest_claim(i, "zz", 0));
    guest_leave(i, guest_greet(i, 3051, "{\"__resume__\":{\"token\":5}}"));
    assert_refused(&i->guests[i->count - 1], "unknown");
    assert_int_equal(i->closed, 0);
    guest_return(i, g);
    assert_int_equal(i->resumed, 1);
    inn_close(i);
}

static void test_a_token_is_for_one_time(void **state)
{
    inn *i = inn_open();
    guest *first = guest_come(i), *second, *third;
    (void)state;
    guest_leave(i, first);
    /* The answer is lost: the old one is good still. */
    second = guest_claim(i, first->token, 0);
    assert_non_null(strstr(second->answer, "\"resumed\":true"));
    guest_leave(i, second);
    third = guest_claim(i, first->token, 0);
    assert_non_null(strstr(third->answer, "\"resumed\":true"));
    assert_string_not_equal(second->token, third->token);
    guest_leave(i, third);
    /* The ACK is lost: the new one is good, and only that. */
    assert_refused(guest_claim(i, second->token, 0), "unknown");
    second = guest_return(i, third);
    guest_leave(i, second);
    assert_refused(guest_claim(i, first->token, 0), "unknown");
    assert_refused(guest_claim(i, third->token, 0), "unknown");
    assert_int_equal(i->suspended, 2);
    assert_int_equal(i->resumed, 1);
    assert_int_equal(i->closed, 0);
    guest_return(i, second);
    inn_close(i);
}

static void test_another_connectors_token(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *there;
    char user[128];
    (void)state;
    guest_leave(i, g);
    snprintf(user, sizeof user,
             "{\"__resume__\":{\"token\":\"%s\",\"received\":0}}", g->token);
    there = guest_greet(i, 3052, user);
    assert_refused(there, "unknown");
    guest_return(i, g);
    inn_close(i);
}

static void test_too_late(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    guest_leave(i, g);
    inn_run(i, 9900);
    assert_int_equal(i->closed, 0);
    inn_run(i, 200);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->why, PM_CLOSE_RESUME);
    assert_refused(guest_claim(i, g->token, 0), "unknown");
    inn_close(i);
}

/* Who claims and never says ACK wins no time. */
static void test_claimed_without_ack(void **state)
{
    inn *i = inn_new();
    guest *g;
    (void)state;
    i->limits.handshake_ms = 6000;
    inn_start(i);
    g = guest_come(i);
    guest_leave(i, g);
    inn_run(i, 5000);
    guest_claim(i, g->token, 0);
    inn_run(i, 5500);
    assert_int_equal(i->closed, 0); /* still claimed */
    inn_run(i, 1000);
    assert_int_equal(inn_closed_for(i, PM_CLOSE_HANDSHAKE_TIMEOUT), 1);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->why, PM_CLOSE_RESUME);
    assert_int_equal(i->suspended, 1);
    inn_close(i);
}

static void claim_lies(const char *counts)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *liar;
    char user[256];
    inn_push(i, "1");
    guest_ask(g, 0, "connector.h.tell");
    inn_run(i, 2);
    guest_leave(i, g);
    snprintf(user, sizeof user, "{\"__resume__\":{\"token\":\"%s\"%s}}",
             g->token, counts);
    liar = guest_greet(i, 3051, user);
    assert_refused(liar, "lost");
    guest_ack(i, liar);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->why, PM_CLOSE_RESUME);
    assert_int_equal(i->opened, 2);
    assert_int_equal(i->resumed, 0);
    inn_close(i);
}

static void test_counts_that_can_not_be(void **state)
{
    (void)state;
    claim_lies("");
    claim_lies(",\"received\":2");
    claim_lies(",\"received\":-1");
    claim_lies(",\"received\":1e300");
    claim_lies(",\"received\":\"1\"");
    claim_lies(",\"received\":1,\"from\":3");
    claim_lies(",\"received\":1,\"from\":null");
}

/* ---- With what is else on ------------------------------------------------ */

static guest *guest_sign(inn *i, char digit, const char *user)
{
    char sys[256], modulus[129];
    memset(modulus, digit, 128);
    modulus[128] = 0;
    snprintf(sys, sizeof sys, "{\"rsa\":{\"rsa_n\":\"%s\",\"rsa_e\":65537}}",
             modulus);
    return guest_greet_as(i, 3051, sys, user);
}

/* The key of the first handshake stays, whatever the next one brings: a thief
 * of the token can not sign. */
static void test_the_first_key_stays(void **state)
{
    inn *i = inn_new();
    const pmi_rsa *key;
    char user[256];
    guest *g;
    (void)state;
    i->opts.use_crypto = true;
    inn_start(i);
    g = guest_sign(i, 'b', "{\"__resume__\":{}}");
    guest_ack(i, g);
    key = pmi_downlink_of(i->session)->meter->key;
    assert_non_null(key);
    guest_leave(i, g);
    snprintf(user, sizeof user,
             "{\"__resume__\":{\"token\":\"%s\",\"received\":0}}", g->token);
    g = guest_sign(i, 'd', user);
    guest_ack(i, g);
    assert_int_equal(i->resumed, 1);
    assert_ptr_equal(pmi_downlink_of(i->session)->meter->key, key);
    guest_leave(i, g);
    inn_close(i);
}

/* What is refused has come all the same. */
static void test_refused_messages_count(void **state)
{
    inn *i = inn_new();
    guest *g, *again;
    (void)state;
    i->limits.messages_per_s = 5;
    i->limits.over_rate = PM_RATE_REFUSE;
    inn_start(i);
    g = guest_come(i);
    for (uint32_t n = 1; n <= 20; n++)
        guest_ask(g, n, "connector.h.echo");
    inn_run(i, 2);
    assert_int_equal(g->data, 20); /* 5 echoes, 15 refusals */
    g->data = 18;
    guest_leave(i, g);
    again = guest_return(i, g);
    assert_non_null(strstr(again->answer, "\"received\":20"));
    assert_string_equal(again->heard, "{\"code\":503} {\"code\":503} ");
    inn_close(i);
}

/* Packages that were gathered and not sent are not lost. */
static void test_buffer_scheduler(void **state)
{
    inn *i = inn_new();
    guest *g, *again;
    (void)state;
    i->opts.scheduler = PM_SCHEDULER_BUFFER;
    i->opts.flush_ms = 100;
    inn_start(i);
    g = guest_come(i);
    inn_push(i, "1");
    inn_push(i, "2");
    guest_leave(i, g);
    assert_int_equal(g->data, 0);
    again = guest_return(i, g);
    inn_push(i, "3");
    inn_run(i, 200);
    assert_string_equal(again->heard, "1 2 3 ");
    inn_close(i);
}

/* ---- The window ---------------------------------------------------------- */

static void test_missed_too_much(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    guest_leave(i, g);
    assert_ok(inn_push_large(i, 4000));
    assert_ok(inn_push_large(i, 4000));
    assert_err(inn_push_large(i, 4000), PM_ELIMIT);
    assert_int_equal(i->closed, 0); /* not from inside the push */
    assert_err(pm_session_push(i->session, "on", pm_body_text("1")),
               PM_ECLOSED);
    inn_run(i, 2);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->why, PM_CLOSE_RESUME_WINDOW);
    assert_refused(guest_claim(i, g->token, 0), "unknown");
    inn_close(i);
}

/* While it is connected what has gone is forgotten by and by. */
static void test_fell_behind(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    for (int n = 0; n < 9; n++)
        assert_ok(inn_push_large(i, 2000));
    inn_run(i, 2);
    assert_int_equal(g->data, 9);
    guest_leave(i, g);
    g->data = 5; /* 6 to 9 are kept */
    g = guest_return(i, g);
    assert_int_equal(g->data, 9);
    guest_leave(i, g);
    inn_push(i, "10");
    guest_leave(i, guest_claim(i, g->token, 4)); /* it has had more than that */
    assert_refused(&i->guests[i->count - 1], "lost");
    inn_run(i, 2);
    assert_int_equal(i->why, PM_CLOSE_RESUME);
    inn_close(i);
}

/* One that is larger than the whole window can be sent, but not again. */
static void test_larger_than_the_window(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    inn_push(i, "1");
    assert_ok(inn_push_large(i, 3 * KEPT));
    inn_push(i, "3");
    inn_run(i, 2);
    assert_int_equal(g->data, 3);
    guest_leave(i, g);
    g->data = 2;
    g = guest_return(i, g);
    assert_string_equal(g->heard, "3 ");
    guest_leave(i, g);
    assert_err(inn_push_large(i, 3 * KEPT), PM_ELIMIT);
    inn_run(i, 2);
    assert_int_equal(i->why, PM_CLOSE_RESUME_WINDOW);
    inn_close(i);
}

/* ---- What may be dropped -------------------------------------------------- */

static pm_err inn_push_as(inn *i, pm_push_policy policy, const char *key,
                          int number, size_t len)
{
    pm_push_opts opts = pm_push_opts_default();
    char text[2048];
    snprintf(text, sizeof text, "%d%*s", number, (int)len, "");
    opts.route = "on";
    opts.body = pm_body_text(text);
    opts.session = i->session;
    opts.policy = policy;
    opts.key = key;
    return pm_push(i->app, &opts, NULL, NULL);
}

/* The client counts what it is sent: what was dropped from the queue has no
 * number, whatever stands behind it. */
static void drop_some(pm_push_policy policy, const char *key)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *again;
    int pushed = 0;
    pmi_conn_pause(g->conn);
    while (pm_session_dropped(i->session) < 20 && pushed < 2000) {
        inn_push_as(i, policy, key, ++pushed, 1000);
        if (pushed % 3 == 0)
            inn_push_as(i, PM_PUSH_KEEP, NULL, ++pushed, 0);
        inn_run(i, 1);
    }
    assert_true(pm_session_dropped(i->session) >= 20);
    inn_push(i, "5");
    assert_int_equal(i->suspended, 0);
    pmi_conn_resume(g->conn);
    inn_run(i, 10);
    assert_true(g->data < pushed);
    guest_leave(i, g);
    inn_push(i, "6");
    again = guest_return(i, g);
    assert_string_equal(again->heard, "6 ");
    guest_leave(i, again);
    again->data--; /* once more */
    again = guest_return(i, again);
    assert_string_equal(again->heard, "6 ");
    inn_close(i);
}

static void test_dropped_ones_have_no_number(void **state)
{
    (void)state;
    drop_some(PM_PUSH_DROP_OLDEST, NULL);
    drop_some(PM_PUSH_DROP_NEW, NULL);
    drop_some(PM_PUSH_REPLACE, "where");
}

/* While nobody is there the same policies hold, within resume_bytes. */
static void test_dropped_while_away(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *again;
    (void)state;
    guest_leave(i, g);
    inn_push_as(i, PM_PUSH_REPLACE, "where", 1, 0);
    inn_push(i, "2");
    assert_ok(inn_push_as(i, PM_PUSH_REPLACE, "where", 3, 0));
    assert_ok(inn_push_as(i, PM_PUSH_DROP_OLDEST, NULL, 4, 10));
    assert_int_equal(pm_session_dropped(i->session), 1);
    assert_true(pm_session_queued(i->session) > 0);
    assert_ok(inn_push_large(i, KEPT - 250)); /* 3 makes room for it */
    assert_err(inn_push_as(i, PM_PUSH_DROP_NEW, NULL, 5, 100), PM_EDROPPED);
    assert_ok(inn_push_as(i, PM_PUSH_DROP_OLDEST, NULL, 6, 100)); /* and 4 */
    assert_int_equal(pm_session_dropped(i->session), 4);
    again = guest_return(i, g);
    assert_string_equal(again->heard, "2 777 6   ");
    assert_int_equal(i->closed, 0);
    inn_close(i);
}

/* ---- Takeover ------------------------------------------------------------ */

static void test_takeover(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *next;
    (void)state;
    inn_push(i, "1");
    inn_run(i, 2);
    next = guest_claim(i, g->token, 1);
    assert_non_null(strstr(next->answer, "\"resumed\":true"));
    assert_true(g->gone);
    assert_int_equal(inn_closed_for(i, PM_CLOSE_TAKEOVER), 1);
    inn_push(i, "2");
    guest_ack(i, next);
    inn_push(i, "3");
    inn_run(i, 2);
    assert_string_equal(next->heard, "2 3 ");
    assert_int_equal(i->suspended, 0);
    assert_int_equal(i->resumed, 1);
    assert_int_equal(i->closed, 0);
    inn_close(i);
}

/* The old connection does not read, and what waits for it has not left. */
static void test_takeover_of_a_stuck_one(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *next;
    const pmi_downlink *down = pmi_downlink_of(i->session);
    int pushed = 0;
    (void)state;
    pmi_conn_pause(g->conn);
    while (pmi_conn_queued(down->conn) < 3000) {
        assert_ok(inn_push_large(i, 1000));
        pushed++;
        inn_run(i, 1);
    }
    assert_int_equal(i->suspended, 0);
    next = guest_claim(i, g->token, pushed - 5);
    assert_non_null(strstr(next->answer, "\"resumed\":true"));
    guest_ack(i, next);
    assert_int_equal(next->data, 5);
    assert_int_equal(i->closed, 0);
    inn_close(i);
}

/* It is closed for not reading, and goes on. */
static void test_queue_overflows(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *next;
    int pushed = 0;
    (void)state;
    pmi_conn_pause(g->conn);
    while (!i->suspended && pushed < 1000) {
        assert_ok(inn_push_large(i, 6000));
        pushed++;
        inn_run(i, 1);
    }
    assert_int_equal(i->suspended, 1);
    assert_int_equal(i->lost_why, PM_CLOSE_QUEUE);
    g->data = pushed - 1;
    next = guest_return(i, g);
    assert_int_equal(next->data, pushed);
    assert_int_equal(i->closed, 0);
    inn_close(i);
}

/* From that push on it has no connection: what is pushed in the same turn is
 * kept for it, as long as there is room. */
static void test_queue_overflows_in_a_burst(void **state)
{
    for (int gathers = 0; gathers < 2; gathers++) {
        inn *i = inn_new();
        int pushed = 0;
        (void)state;
        i->opts.scheduler = gathers ? PM_SCHEDULER_BUFFER : PM_SCHEDULER_DIRECT;
        inn_start(i);
        pmi_conn_pause(guest_come(i)->conn);
        while (inn_push_large(i, 6000) == PM_OK && pushed < 100)
            pushed++;
        assert_in_range(pushed, QUEUE / 6100, 100 - 1);
        assert_err(inn_push_large(i, 6000), PM_ECLOSED);
        assert_int_equal(i->suspended, 0);
        inn_run(i, 2);
        assert_int_equal(i->suspended, 0);
        assert_int_equal(i->why, PM_CLOSE_RESUME_WINDOW);
        inn_close(i);
    }
}

/* A second claim ends the first one. */
static void test_claimed_twice(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *one, *two;
    (void)state;
    guest_leave(i, g);
    one = guest_claim(i, g->token, 0);
    two = guest_claim(i, g->token, 0);
    assert_true(one->gone);
    guest_ack(i, two);
    inn_push(i, "1");
    inn_run(i, 2);
    assert_string_equal(two->heard, "1 ");
    assert_int_equal(i->resumed, 1);
    inn_close(i);
}

/* ---- Ends ---------------------------------------------------------------- */

static void on_kicked(pm_err err, const char *detail, void *ctx)
{
    inn *i = ctx;
    (void)detail;
    i->kicked++;
    i->kick_err = err;
}

static void test_kicked_while_away(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    guest_leave(i, g);
    assert_ok(pm_session_kick(i->session, "out", on_kicked, i));
    assert_int_equal(i->closed, 0);
    assert_err(pm_session_push(i->session, "on", pm_body_text("1")),
               PM_ECLOSED);
    inn_run(i, 2);
    assert_int_equal(i->kicked, 1);
    assert_ok(i->kick_err);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->why, PM_CLOSE_KICK);
    assert_refused(guest_claim(i, g->token, 0), "unknown");
    inn_close(i);
}

static void test_kicked_while_claimed(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *next;
    (void)state;
    guest_leave(i, g);
    next = guest_claim(i, g->token, 0);
    assert_ok(pm_session_kick(i->session, "out", on_kicked, i));
    inn_run(i, 2);
    assert_true(next->gone);
    assert_int_equal(i->why, PM_CLOSE_KICK);
    assert_int_equal(i->resumed, 0);
    inn_close(i);
}

/* What ends the session and the ACK are read in one round. */
static void test_kicked_before_the_ack(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *next;
    (void)state;
    guest_leave(i, g);
    next = guest_claim(i, g->token, 0);
    assert_ok(pm_session_kick(i->session, "out", on_kicked, i));
    guest_say(next, PMI_PACKAGE_ACK, NULL, 0);
    inn_run(i, 2);
    assert_true(next->gone);
    assert_int_equal(i->kicked, 1);
    assert_int_equal(i->why, PM_CLOSE_KICK);
    assert_int_equal(inn_closed_for(i, PM_CLOSE_KICK), 1);
    assert_int_equal(i->resumed, 0);
    inn_close(i);
}

static void test_refused_before_the_ack(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *liar, *next;
    (void)state;
    guest_leave(i, g);
    liar = guest_knock(i, 3051);
    next = guest_claim(i, g->token, 0);
    assert_non_null(strstr(next->answer, "\"resumed\":true"));
    guest_show(liar, next->token, 99);
    guest_say(next, PMI_PACKAGE_ACK, NULL, 0);
    inn_run(i, 2);
    assert_refused(liar, "lost");
    assert_true(next->gone);
    assert_int_equal(i->resumed, 0);
    assert_int_equal(i->why, PM_CLOSE_RESUME);
    inn_close(i);
}

static void test_missed_too_much_before_the_ack(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *next;
    (void)state;
    guest_leave(i, g);
    next = guest_claim(i, g->token, 0);
    assert_err(inn_push_large(i, 2 * KEPT), PM_ELIMIT);
    guest_say(next, PMI_PACKAGE_ACK, NULL, 0);
    inn_run(i, 2);
    assert_true(next->gone);
    assert_int_equal(i->resumed, 0);
    assert_int_equal(i->why, PM_CLOSE_RESUME_WINDOW);
    inn_close(i);
}

static void test_kicked_while_there(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    assert_ok(pm_session_kick(i->session, "out", NULL, NULL));
    inn_run(i, 2);
    assert_string_equal(g->kick, "{\"reason\":\"out\"}");
    assert_int_equal(i->suspended, 0);
    assert_int_equal(i->why, PM_CLOSE_KICK);
    inn_close(i);
}

static void test_farewell(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    guest_say(g, PMI_PACKAGE_KICK, NULL, 0);
    inn_run(i, 2);
    assert_true(g->gone);
    assert_int_equal(i->suspended, 0);
    assert_int_equal(i->why, PM_CLOSE_CLIENT);
    assert_int_equal(inn_closed_for(i, PM_CLOSE_CLIENT), 1);
    inn_close(i);
}

static void test_who_breaks_rules_does_not_come_back(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    guest_say(g, PMI_PACKAGE_DATA, NULL, 0);
    inn_run(i, 2);
    assert_int_equal(i->suspended, 0);
    assert_int_equal(i->why, PM_CLOSE_MESSAGE);
    assert_refused(guest_claim(i, g->token, 0), "unknown");
    inn_close(i);
}

static void on_stopped(pm_app *app, pm_err err, void *ctx)
{
    (void)app;
    assert_ok(err);
    ((inn *)ctx)->kicked++;
}

static void test_stopped_while_away(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *stays;
    (void)state;
    guest_leave(i, g);
    stays = guest_come(i);
    assert_ok(pm_app_stop(i->app, 100, on_stopped, i));
    inn_run(i, 200);
    assert_int_equal(i->kicked, 1);
    assert_true(stays->gone);
    assert_int_equal(i->closed, 2);
    assert_int_equal(i->why, PM_CLOSE_STOP);
    inn_close(i);
}

/* Nobody could come back to an app that drains. */
static void test_lost_while_stopping(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i);
    (void)state;
    guest_ask(g, 1, "connector.h.hold");
    inn_run(i, 2);
    assert_ok(pm_app_stop(i->app, 1000, on_stopped, i));
    guest_leave(i, g);
    assert_int_equal(i->suspended, 0);
    assert_int_equal(i->closed, 1);
    pm_request_drop(i->held);
    inn_run(i, 10);
    assert_int_equal(i->kicked, 1);
    inn_close(i);
}

static void test_freed_while_away(void **state)
{
    inn *i = inn_open();
    guest *g = guest_come(i), *claims;
    (void)state;
    guest_ask(g, 1, "connector.h.hold");
    inn_run(i, 2);
    guest_leave(i, g);
    claims = guest_come(i);
    guest_leave(i, claims);
    guest_claim(i, claims->token, 0);
    pm_app_free(i->app);
    i->app = NULL;
    assert_int_equal(i->closed, 2);
    assert_int_equal(i->why, PM_CLOSE_STOP);
    assert_true(pm_session_is_closed(i->session));
    assert_err(pm_reply_text(i->held, "late"), PM_ECLOSED);
    inn_close(i);
}

static void test_too_many_away(void **state)
{
    inn *i = inn_new();
    guest *g[3];
    (void)state;
    i->opts.resume_sessions = 2;
    inn_start(i);
    for (int n = 0; n < 3; n++) {
        g[n] = guest_come(i);
        guest_leave(i, g[n]);
    }
    inn_run(i, 2);
    assert_int_equal(i->closed, 1);
    assert_int_equal(i->why, PM_CLOSE_RESUME);
    assert_refused(guest_claim(i, g[0]->token, 0), "unknown");
    guest_return(i, g[1]);
    guest_return(i, g[2]);
    inn_close(i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_who_does_not_ask_sees_nothing),
    cmocka_unit_test(test_offer),
    cmocka_unit_test(test_with_the_applications_user_part),
    cmocka_unit_test(test_too_much_to_be_sent_again),
    cmocka_unit_test(test_comes_back),
    cmocka_unit_test(test_deadline_passes_meanwhile),
    cmocka_unit_test(test_forged_tokens),
    cmocka_unit_test(test_a_token_is_for_one_time),
    cmocka_unit_test(test_another_connectors_token),
    cmocka_unit_test(test_too_late),
    cmocka_unit_test(test_claimed_without_ack),
    cmocka_unit_test(test_counts_that_can_not_be),
    cmocka_unit_test(test_the_first_key_stays),
    cmocka_unit_test(test_refused_messages_count),
    cmocka_unit_test(test_buffer_scheduler),
    cmocka_unit_test(test_missed_too_much),
    cmocka_unit_test(test_fell_behind),
    cmocka_unit_test(test_larger_than_the_window),
    cmocka_unit_test(test_dropped_ones_have_no_number),
    cmocka_unit_test(test_dropped_while_away),
    cmocka_unit_test(test_takeover),
    cmocka_unit_test(test_takeover_of_a_stuck_one),
    cmocka_unit_test(test_queue_overflows),
    cmocka_unit_test(test_queue_overflows_in_a_burst),
    cmocka_unit_test(test_claimed_twice),
    cmocka_unit_test(test_kicked_while_away),
    cmocka_unit_test(test_kicked_while_claimed),
    cmocka_unit_test(test_kicked_before_the_ack),
    cmocka_unit_test(test_refused_before_the_ack),
    cmocka_unit_test(test_missed_too_much_before_the_ack),
    cmocka_unit_test(test_kicked_while_there),
    cmocka_unit_test(test_farewell),
    cmocka_unit_test(test_who_breaks_rules_does_not_come_back),
    cmocka_unit_test(test_stopped_while_away),
    cmocka_unit_test(test_lost_while_stopping),
    cmocka_unit_test(test_freed_while_away),
    cmocka_unit_test(test_too_many_away),
};

TEST_MAIN(tests)
