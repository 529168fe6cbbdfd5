/* SPDX-License-Identifier: MIT */
/* test_flow_resume_linger.c -- sessions that outlive their connection, where
 * connections are closed by FIN: the old one lingers, since its client does not
 * hang up, while its session is elsewhere. Over sockets: in memory nothing
 * lingers. guest_come() is in inn.h. */
#include "inn.h"

static inn *linger_new(void)
{
    inn *i = inn_new();
    i->sockets = true;
    i->opts.close_by_fin = true;
    return i;
}

/* Its next connection has taken the session, and it does not notice. */
static guest *linger_taken_over(inn *i, guest *g)
{
    guest *next;
    pmi_conn_pause(g->conn);
    next = guest_claim(i, g->token, g->data);
    assert_non_null(strstr(next->answer, "\"resumed\":true"));
    assert_int_equal(inn_closed_for(i, PM_CLOSE_TAKEOVER), 0);
    return next;
}

/* The time that is up is that of a session which is not there any more. */
static void test_idle_while_it_lingers(void **state)
{
    inn *i = linger_new();
    guest *g, *next;
    (void)state;
    i->limits.idle_ms = 400;
    inn_start(i);
    g = guest_come(i);
    next = linger_taken_over(i, g);
    inn_run(i, 500);
    assert_int_equal(i->closed, 0);
    guest_ack(i, next);
    assert_int_equal(i->resumed, 1);
    inn_run(i, 300);
    guest_ask(next, 0, "connector.h.tell");
    inn_run(i, 300);
    assert_int_equal(i->told_number, 1);
    assert_int_equal(i->closed, 0);
    inn_run(i, 200);
    assert_int_equal(i->why, PM_CLOSE_IDLE);
    inn_close(i);
}

/* Its client has not been heard of for too long. What could be said in a
 * goodbye it will hear when it is back: nothing lingers. */
static guest *linger_silent(inn *i)
{
    guest *g;
    i->opts.heartbeat_s = 1;
    inn_start(i);
    g = guest_come(i);
    pmi_conn_pause(g->conn);
    inn_run(i, 2100);
    assert_int_equal(i->suspended, 1);
    assert_int_equal(i->lost_why, PM_CLOSE_HEARTBEAT);
    assert_int_equal(inn_closed_for(i, PM_CLOSE_HEARTBEAT), 1);
    return g;
}

static void test_silent_and_back(void **state)
{
    inn *i = linger_new();
    guest *g = linger_silent(i);
    (void)state;
    for (int n = 0; n < 4; n++)
        assert_ok(inn_push_large(i, 2000));
    assert_int_equal(pm_session_queued(i->session),
                     4 * (2000 + strlen("on") + 6 + PMI_WINDOW_HEAD));
    assert_int_equal(guest_return(i, g)->data, 4);
    inn_close(i);
}

static void test_silent_and_missed_too_much(void **state)
{
    inn *i = linger_new();
    (void)state;
    linger_silent(i);
    for (int n = 0; n < 4; n++)
        assert_ok(inn_push_large(i, 2000));
    assert_err(inn_push_large(i, 2000), PM_ELIMIT);
    inn_run(i, 2);
    assert_int_equal(i->why, PM_CLOSE_RESUME_WINDOW);
    inn_close(i);
}

static pm_handshake *linger_asked;

static void on_handshake(pm_handshake *hs, const struct cJSON *msg, void *ctx)
{
    (void)msg;
    (void)ctx;
    linger_asked = hs;
}

/* The application's word comes when the connection that it is about is closed
 * already: whose token was shown there keeps the session. */
static void test_let_in_too_late(void **state)
{
    inn *i = linger_new();
    guest *g, *late;
    (void)state;
    i->opts.handshake = on_handshake;
    i->limits.handshake_cb_ms = 100;
    inn_start(i);
    g = guest_greet(i, 3051, "{\"__resume__\":{}}");
    pm_handshake_done(linger_asked, PM_OK, NULL);
    inn_run(i, 2);
    guest_ack(i, g);
    assert_int_equal(i->opened, 1);
    late = guest_claim(i, g->token, 0);
    pmi_conn_pause(late->conn);
    inn_run(i, 200);
    assert_int_equal(inn_closed_for(i, PM_CLOSE_HANDSHAKE_TIMEOUT), 0);
    pm_handshake_done(linger_asked, PM_OK, NULL);
    inn_push(i, "1");
    inn_run(i, 10);
    assert_false(g->gone);
    assert_string_equal(g->heard, "1 ");
    pmi_conn_resume(late->conn);
    inn_run(i, 10);
    assert_true(late->gone);
    assert_string_equal(late->answer, "");
    assert_int_equal(inn_closed_for(i, PM_CLOSE_HANDSHAKE_TIMEOUT), 1);
    inn_close(i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_idle_while_it_lingers),
    cmocka_unit_test(test_let_in_too_late),
    cmocka_unit_test(test_silent_and_back),
    cmocka_unit_test(test_silent_and_missed_too_much),
};

TEST_MAIN(tests)
