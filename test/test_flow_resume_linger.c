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
};

TEST_MAIN(tests)
