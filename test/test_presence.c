/* SPDX-License-Identifier: MIT */
/* test_presence.c -- members who leave when their session closes, wherever
 * their frontend is and whatever becomes of the links. Start at test_leaving
 * and test_whatever_happens. */
#include "town.h"
#include "pomelo_presence_internal.h"

#define SAID_MAX 2048

typedef struct parlour {
    town t; /* first */
    pm_channel *room;
    char left[SAID_MAX]; /* "alice@c-1 " */
    size_t left_len, left_count;
    bool cut_to_c1, cut_from_c1; /* what chat-1 and c-1 dial at each other */
    uint64_t delay_us;           /* of what c-1 says to chat-1 */
    void (*deed)(struct parlour *p); /* what the callback does, once */
} parlour;

static void on_left(pm_channel *channel, const pm_receiver *member, void *ctx)
{
    parlour *p = ctx;
    void (*deed)(parlour *) = p->deed;
    (void)channel;
    p->deed = NULL;
    if (deed)
        deed(p);
    /* After what was done: the names must still be readable. */
    if (p->left_len < SAID_MAX - 600)
        p->left_len +=
            (size_t)snprintf(p->left + p->left_len, SAID_MAX - p->left_len,
                             "%s@%s ", member->uid, member->frontend_id);
    p->left_count++;
}

static uint64_t on_link(void *ctx, const char *from, const char *to,
                        size_t bytes)
{
    const parlour *p = ctx;
    (void)bytes;
    if (p->cut_to_c1 && !strcmp(from, "chat-1") &&
        !strcmp(to, "127.0.0.1:4051"))
        return UINT64_MAX;
    if (strcmp(from, "c-1") || strcmp(to, "127.0.0.1:4060"))
        return 0;
    return p->cut_from_c1 ? UINT64_MAX : p->delay_us;
}

static void parlour_open(parlour *p)
{
    town_open(&p->t);
    pmi_loop_set_link_fault(p->t.loop, on_link, p);
    p->room = pm_channel_get(p->t.chat, "room", true);
    assert_ok(pm_channel_leave_on_close(p->room, true, on_left, p));
}

static void parlour_close(parlour *p)
{
    pmi_loop_set_link_fault(p->t.loop, NULL, NULL);
    town_close(&p->t);
}

static const pmi_presence *presence_of(const pm_app *app)
{
    return pmi_channels_presence(pmi_app_channels(app));
}

static size_t watched_by(const pm_app *front)
{
    return pmi_map_count(&presence_of(front)->rows);
}

static void add(parlour *p, const char *uid, const char *frontend_id)
{
    assert_ok(pm_channel_add(p->room, uid, frontend_id));
}

/* A session of this uid, that stays bound until the connection is closed. */
static pm_session *enter(parlour *p, pm_app *front, const char *uid)
{
    town_enter(&p->t, front, uid);
    return p->t.last;
}

static void go_away(person *who)
{
    pmi_conn_close(who->conn, PM_CLOSE_CLIENT, false, 0);
}

static bool put_member(const pm_receiver *member, void *ctx)
{
    size_t len = strlen(ctx);
    snprintf((char *)ctx + len, SAID_MAX - len, "%s@%s ", member->uid,
             member->frontend_id);
    return true;
}

static void assert_in(parlour *p, const char *want)
{
    char members[SAID_MAX] = "";
    pm_channel_each(p->room, put_member, members);
    assert_string_equal(members, want);
}

/* ---- Leaving ----------------------------------------------------------- */

static void test_leaving(void **state)
{
    parlour p = {0};
    person *alice, *alice2, *carol;
    (void)state;
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    alice2 = town_enter(&p.t, p.t.c1, "alice");
    carol = town_enter(&p.t, p.t.c2, "carol");
    enter(&p, p.t.c1, "bob");
    add(&p, "alice", "c-1");
    add(&p, "bob", "c-1");
    add(&p, "carol", "c-2");
    add(&p, "nobody", "c-1");
    add(&p, "bob", "c-2"); /* who is on c-1 */
    add(&p, "dave", "chat-1");
    assert_int_equal(p.left_count, 0);
    town_run(&p.t, 10);
    assert_in(&p, "alice@c-1 bob@c-1 carol@c-2 ");
    assert_int_equal(p.left_count, 3);
    assert_int_equal(presence_of(p.t.chat)->asked, 3); /* one a server */
    p.left[p.left_len = 0] = 0;
    go_away(alice);
    town_run(&p.t, 10);
    assert_string_equal(p.left, ""); /* a second session is there */
    go_away(alice2);
    town_run(&p.t, 10);
    assert_string_equal(p.left, "alice@c-1 ");
    assert_ok(pm_session_unbind(p.t.last, "bob", NULL, NULL));
    go_away(carol);
    town_run(&p.t, 10);
    assert_in(&p, "");
    assert_int_equal(p.left_count, 6);
    assert_int_equal(watched_by(p.t.c1), 0);
    assert_int_equal(presence_of(p.t.c1)->told, 2);
    assert_int_equal(presence_of(p.t.c2)->told, 1);
    assert_int_equal(presence_of(p.t.chat)->asked, 3);
    parlour_close(&p);
}

/* Members who are in when it is switched on; and off again. */
static void test_on_and_off(void **state)
{
    parlour p = {0};
    person *alice, *bob;
    (void)state;
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    bob = town_enter(&p.t, p.t.c1, "bob");
    assert_ok(pm_channel_leave_on_close(p.room, false, NULL, NULL));
    add(&p, "alice", "c-1");
    add(&p, "bob", "c-1");
    add(&p, "gone", "c-1");
    town_run(&p.t, 10);
    assert_int_equal(presence_of(p.t.chat)->asked, 0);
    assert_int_equal(watched_by(p.t.c1), 0);
    assert_ok(pm_channel_leave_on_close(p.room, true, on_left, &p));
    assert_ok(pm_channel_leave_on_close(p.room, true, on_left, &p));
    town_run(&p.t, 10);
    assert_in(&p, "alice@c-1 bob@c-1 ");
    assert_int_equal(watched_by(p.t.c1), 2);
    go_away(alice);
    town_run(&p.t, 10);
    assert_string_equal(p.left, "gone@c-1 alice@c-1 ");
    assert_ok(pm_channel_leave_on_close(p.room, false, NULL, NULL));
    town_run(&p.t, 10);
    assert_int_equal(watched_by(p.t.c1), 0);
    go_away(bob);
    town_run(&p.t, 10);
    assert_in(&p, "bob@c-1 ");
    /* Without a callback. */
    assert_ok(pm_channel_leave_on_close(p.room, true, NULL, NULL));
    town_run(&p.t, 10);
    assert_in(&p, "");
    parlour_close(&p);
}

/* One question for all channels; the last one that gives up takes it back. */
static void test_several_channels(void **state)
{
    parlour p = {0};
    pm_channel *second;
    person *alice;
    (void)state;
    parlour_open(&p);
    second = pm_channel_get(p.t.chat, "second", true);
    assert_ok(pm_channel_leave_on_close(second, true, on_left, &p));
    alice = town_enter(&p.t, p.t.c1, "alice");
    enter(&p, p.t.c1, "bob");
    add(&p, "alice", "c-1");
    add(&p, "bob", "c-1");
    assert_ok(pm_channel_add(second, "alice", "c-1"));
    assert_ok(pm_channel_add(second, "bob", "c-1"));
    town_run(&p.t, 10);
    assert_int_equal(presence_of(p.t.chat)->asked, 1);
    assert_int_equal(watched_by(p.t.c1), 2);
    assert_ok(pm_channel_leave(p.room, "bob", "c-1"));
    town_run(&p.t, 10);
    assert_int_equal(watched_by(p.t.c1), 2);
    assert_ok(pm_channel_leave(second, "bob", "c-1"));
    town_run(&p.t, 10);
    assert_int_equal(watched_by(p.t.c1), 1);
    go_away(alice);
    town_run(&p.t, 10);
    assert_string_equal(p.left, "alice@c-1 alice@c-1 ");
    assert_int_equal(pm_channel_count(second), 0);
    /* In and out within a turn: nobody is asked. */
    add(&p, "bob", "c-1");
    assert_ok(pm_channel_leave(p.room, "bob", "c-1"));
    pm_channel_destroy(second);
    town_run(&p.t, 10);
    assert_int_equal(presence_of(p.t.chat)->asked, 1);
    assert_int_equal(watched_by(p.t.c1), 0);
    parlour_close(&p);
}

/* Channels of a frontend, with its own sessions too. */
static void test_on_a_frontend(void **state)
{
    parlour p = {0};
    person *alice, *carol;
    pm_channel *room;
    (void)state;
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    carol = town_enter(&p.t, p.t.c2, "carol");
    room = pm_channel_get(p.t.c1, "room", true);
    assert_ok(pm_channel_leave_on_close(room, true, on_left, &p));
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "carol", "c-2"));
    assert_ok(pm_channel_add(room, "carol", "c-1"));
    town_run(&p.t, 10);
    assert_string_equal(p.left, "carol@c-1 ");
    go_away(alice);
    go_away(carol);
    town_run(&p.t, 10);
    assert_int_equal(p.left_count, 3);
    assert_int_equal(pm_channel_count(room), 0);
    parlour_close(&p);
}

/* ---- Who comes back ---------------------------------------------------- */

/* Bound again within the turn: never gone. */
static void test_back_at_once(void **state)
{
    parlour p = {0};
    pm_session *first, *second;
    (void)state;
    parlour_open(&p);
    first = enter(&p, p.t.c1, "alice");
    second = enter(&p, p.t.c1, NULL);
    add(&p, "alice", "c-1");
    town_run(&p.t, 10);
    assert_ok(pm_session_unbind(first, "alice", NULL, NULL));
    assert_ok(pm_session_bind(second, "alice", NULL, NULL));
    town_run(&p.t, 10);
    assert_in(&p, "alice@c-1 ");
    assert_int_equal(presence_of(p.t.c1)->told, 0);
    assert_ok(pm_session_unbind(second, "alice", NULL, NULL));
    town_run(&p.t, 10);
    assert_string_equal(p.left, "alice@c-1 ");
    parlour_close(&p);
}

/* The word that she has gone is still under way when she is added again: it
 * must not throw her out. */
static void test_old_news(void **state)
{
    parlour p = {0};
    pm_session *alice;
    (void)state;
    parlour_open(&p);
    alice = enter(&p, p.t.c1, "alice");
    add(&p, "alice", "c-1");
    town_run(&p.t, 10);
    p.delay_us = 100 * 1000;
    assert_ok(pm_session_unbind(alice, "alice", NULL, NULL));
    town_run(&p.t, 10);
    assert_ok(pm_session_bind(alice, "alice", NULL, NULL));
    add(&p, "alice", "c-1");
    town_run(&p.t, 500);
    assert_int_equal(presence_of(p.t.c1)->told, 1);
    assert_in(&p, "alice@c-1 ");
    assert_ok(pm_session_unbind(alice, "alice", NULL, NULL));
    town_run(&p.t, 10);
    assert_in(&p, "alice@c-1 "); /* under way */
    town_run(&p.t, 500);
    assert_in(&p, "");
    parlour_close(&p);
}

/* ---- Links that break -------------------------------------------------- */

static void check_broken(bool to, bool from)
{
    parlour p = {0};
    person *alice;
    pm_rpc_opts call = pm_rpc_opts_default();
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    enter(&p, p.t.c1, "bob");
    enter(&p, p.t.c2, "carol");
    add(&p, "alice", "c-1");
    add(&p, "bob", "c-1");
    add(&p, "carol", "c-2");
    town_run(&p.t, 10);
    p.cut_to_c1 = to;
    p.cut_from_c1 = from;
    call.method = "connector.svc.none";
    call.server_id = "c-1";
    assert_ok(pm_rpc_call(p.t.chat, &call, NULL, NULL, NULL));
    town_run(&p.t, 10);
    assert_int_equal(pm_server_is_up(p.t.chat, "c-1"), !to);
    go_away(alice);
    town_run(&p.t, 20000);
    add(&p, "dave", "c-1"); /* who is not there */
    town_run(&p.t, 20000);
    assert_int_equal(pm_channel_has(p.room, "alice"), from);
    assert_int_equal(pm_channel_has(p.room, "dave"), to);
    p.cut_to_c1 = p.cut_from_c1 = false;
    town_run(&p.t, 5000);
    assert_in(&p, "bob@c-1 carol@c-2 ");
    assert_int_equal(p.left_count, 2);
    assert_int_equal(watched_by(p.t.c1), 1);
    parlour_close(&p);
}

static void test_broken_links(void **state)
{
    (void)state;
    check_broken(true, false);
    check_broken(false, true);
    check_broken(true, true);
}

/* The frontend dies, and another life of it begins. */
static void test_frontend_restarts(void **state)
{
    parlour p = {0};
    (void)state;
    parlour_open(&p);
    enter(&p, p.t.c1, "alice");
    enter(&p, p.t.c2, "carol");
    add(&p, "alice", "c-1");
    add(&p, "carol", "c-2");
    town_run(&p.t, 10);
    pm_app_free(p.t.c1);
    town_run(&p.t, 60000);
    assert_in(&p, "alice@c-1 carol@c-2 "); /* nobody knows */
    p.t.c1 = town_app(&p.t, "c-1");
    enter(&p, p.t.c1, "bob");
    add(&p, "bob", "c-1");
    town_run(&p.t, 5000);
    assert_in(&p, "carol@c-2 bob@c-1 ");
    assert_string_equal(p.left, "alice@c-1 ");
    parlour_close(&p);
}

/* So does the server that asks: what it knew is void. */
static void test_asker_restarts(void **state)
{
    parlour p = {0};
    person *alice;
    (void)state;
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    enter(&p, p.t.c1, "bob");
    add(&p, "alice", "c-1");
    add(&p, "bob", "c-1");
    town_run(&p.t, 10);
    pm_app_free(p.t.chat);
    p.t.chat = town_app(&p.t, "chat-1");
    p.room = pm_channel_get(p.t.chat, "room", true);
    assert_ok(pm_channel_leave_on_close(p.room, true, on_left, &p));
    town_run(&p.t, 5000);
    add(&p, "alice", "c-1");
    town_run(&p.t, 10);
    assert_int_equal(watched_by(p.t.c1), 1);
    go_away(alice);
    town_run(&p.t, 10);
    assert_string_equal(p.left, "alice@c-1 ");
    parlour_close(&p);
}

static void test_not_in_the_table(void **state)
{
    parlour p = {0};
    (void)state;
    parlour_open(&p);
    enter(&p, p.t.c1, "alice");
    add(&p, "alice", "c-1");
    add(&p, "bob", "nowhere");
    add(&p, "carol", "ghost-1");
    town_run(&p.t, 1500);
    assert_in(&p, "alice@c-1 bob@nowhere carol@ghost-1 ");
    town_run(&p.t, 5000); /* the table did not learn of it */
    assert_in(&p, "alice@c-1 carol@ghost-1 ");
    assert_ok(pm_server_remove(p.t.chat, "ghost-1"));
    assert_in(&p, "alice@c-1 carol@ghost-1 "); /* on a later turn */
    town_run(&p.t, 1);
    assert_in(&p, "alice@c-1 ");
    assert_ok(pm_server_remove(p.t.chat, "c-1"));
    town_run(&p.t, 1);
    assert_in(&p, "");
    assert_ok(pm_server_remove(p.t.c1, "chat-1"));
    town_run(&p.t, 1);
    assert_int_equal(watched_by(p.t.c1), 0);
    assert_int_equal(pmi_map_count(&presence_of(p.t.c1)->watchers), 0);
    parlour_close(&p);
}

/* A frontend that does not know yet who asks is asked again. */
static void test_asker_not_in_the_table(void **state)
{
    parlour p = {0};
    person *alice;
    (void)state;
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    assert_ok(pm_server_remove(p.t.c1, "chat-1"));
    add(&p, "alice", "c-1");
    town_run(&p.t, 3500);
    assert_int_equal(watched_by(p.t.c1), 0);
    assert_ok(pm_server_add(p.t.c1, &town_servers[2]));
    town_run(&p.t, 2000);
    assert_int_equal(watched_by(p.t.c1), 1);
    go_away(alice);
    town_run(&p.t, 10);
    assert_in(&p, "");
    parlour_close(&p);
}

/* ---- From inside the callback ------------------------------------------ */

static void deed_destroy(parlour *p)
{
    pm_channel_destroy(p->room);
    p->room = NULL;
}

static void deed_free(parlour *p)
{
    pm_app_free(p->t.chat);
    p->t.chat = NULL;
}

static void deed_off(parlour *p)
{
    assert_ok(pm_channel_leave_on_close(p->room, false, NULL, NULL));
}

static void deed_others(parlour *p)
{
    pm_channel_leave(p->room, "b", "c-1");
    pm_channel_leave(p->room, "c", "c-1");
}

static void deed_add(parlour *p)
{
    add(p, "a", "c-1"); /* who has just left */
    add(p, "e", "c-1");
}

static void deed_push(parlour *p)
{
    assert_ok(
        pm_channel_push(p->room, "onLeave", pm_body_text("{}"), NULL, NULL));
}

/* Four of them go in one message; the deed is done at the first. */
static size_t check_deed(void (*deed)(parlour *p), bool remove_server,
                         const char *left)
{
    parlour p = {0};
    size_t pushes;
    parlour_open(&p);
    for (char c = 'a'; c <= 'd'; c++) {
        char uid[2] = {c, 0};
        town_enter(&p.t, p.t.c1, uid);
        add(&p, uid, "c-1");
    }
    town_enter(&p.t, p.t.c2, "stays");
    add(&p, "stays", "c-2");
    town_run(&p.t, 10);
    p.deed = deed;
    for (size_t i = 0; i < 4; i++)
        go_away(&p.t.people[i]);
    if (remove_server)
        assert_ok(pm_server_remove(p.t.chat, "c-1"));
    town_run(&p.t, 10000);
    assert_string_equal(p.left, left);
    if (p.t.chat && p.room)
        assert_true(pm_channel_has(p.room, "stays"));
    pushes = p.t.people[4].pushes;
    parlour_close(&p);
    return pushes;
}

static void test_from_the_callback(void **state)
{
    const char *all = "a@c-1 b@c-1 c@c-1 d@c-1 ";
    (void)state;
    for (int removed = 0; removed < 2; removed++) {
        check_deed(deed_destroy, removed, "a@c-1 ");
        check_deed(deed_free, removed, "a@c-1 ");
        check_deed(deed_off, removed, "a@c-1 ");
        check_deed(deed_others, removed, "a@c-1 d@c-1 ");
        check_deed(deed_add, removed, "a@c-1 b@c-1 c@c-1 d@c-1 a@c-1 e@c-1 ");
        assert_int_equal(check_deed(deed_push, removed, all), 1);
    }
}

/* ---- What a peer may send ---------------------------------------------- */

typedef struct served {
    int times;
    pm_err err, code;
    pm_slice extra;
    uint8_t bytes[64];
} served;

static void on_served(const pmi_rpc_answer *answer, void *ctx)
{
    served *s = ctx;
    s->times++;
    s->err = answer->result.err;
    s->code = (pm_err)answer->result.code;
    s->extra = pm_bytes(s->bytes, pmi_min(answer->extra.len, 64));
    if (answer->extra.len)
        memcpy(s->bytes, answer->extra.data, s->extra.len);
}

/* From chat-1 to `to`. */
static void check_served(town *t, const char *to, const char *hex, pm_err code,
                         const char *answer)
{
    pmi_rpc_send_opts send = {.op = PMI_OP_PRESENCE, .server_id = to};
    served got = {0};
    size_t len;
    uint8_t *bytes = test_unhex(hex, &len);
    send.extra = pm_bytes(bytes, len);
    assert_ok(pmi_rpc_send(pmi_app_rpc(t->chat), &send, on_served, &got, NULL));
    town_run(t, 10);
    free(bytes);
    assert_int_equal(got.times, 1);
    assert_err(got.err, code ? PM_EREMOTE : PM_OK);
    assert_err(got.code, code);
    assert_int_equal(got.extra.len, strlen(answer));
    assert_memory_equal(got.bytes, answer, strlen(answer));
}

static void test_hostile_calls(void **state)
{
    const char *bad[] = {"",
                         "00",
                         "05",
                         "ff 01 61",
                         "01",
                         "01 00",
                         "01 00 00000000000001",
                         "01 00 0000000000000001 05 616c6963",
                         "01 00 0000000000000001 05 616c696365 00",
                         "01 00 0000000000000001 02 6100",
                         "01 00 0000000000000001 ff",
                         "02 05",
                         "02 00",
                         "03 00",
                         "03 0000000000000001",
                         "03 0000000000000001 00",
                         "03 0000000000000001 05 616c6963",
                         "03 0000000000000001 01 61 00000000"};
    parlour p = {0};
    (void)state;
    parlour_open(&p);
    enter(&p, p.t.c1, "alice");
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        check_served(&p.t, "c-1", bad[i], PM_EFRAME, "");
    assert_int_equal(watched_by(p.t.c1), 0);
    check_served(&p.t, "c-1", "02", PM_OK, "");
    check_served(&p.t, "c-1", "02 05 616c696365", PM_OK, "");
    check_served(&p.t, "c-1", "03 0000000000000001 01 61", PM_OK, "");
    check_served(&p.t, "c-1", "03", PM_OK, "");
    check_served(&p.t, "c-1", "04", PM_OK, "");
    check_served(&p.t, "c-1", "01 00 0000000000000001", PM_OK, "");
    check_served(&p.t, "c-1",
                 "01 00 0000000000000001 03 626f62 05 616c696365 02 7878",
                 PM_OK, "\3bob\2xx");
    assert_int_equal(watched_by(p.t.c1), 1);
    check_served(&p.t, "c-1", "01 01 0000000000000001", PM_OK, "");
    assert_int_equal(watched_by(p.t.c1), 0);
    parlour_close(&p);
}

/* A GONE of a number that nobody has asked with, and of uids of others. */
static void test_wrong_news(void **state)
{
    parlour p = {0};
    (void)state;
    parlour_open(&p);
    p.t.last = NULL;
    enter(&p, p.t.c1, "alice");
    add(&p, "alice", "c-1");
    add(&p, "bob", "chat-1"); /* so that it has something to say of itself */
    check_served(&p.t, "chat-1", "03 0000000000000000 05 616c696365", PM_OK,
                 "");
    check_served(&p.t, "chat-1",
                 "03 0000000000000000 03 626f62 0000000000000001 03 626f62",
                 PM_OK, "");
    assert_in(&p, "alice@c-1 ");
    parlour_close(&p);
}

/* ---- Many -------------------------------------------------------------- */

static void test_many(void **state)
{
    enum { MANY = 20000 };
    parlour p = {0};
    pm_session *here;
    uint64_t asked;
    char uid[64];
    (void)state;
    parlour_open(&p);
    here = enter(&p, p.t.c1, "alice");
    add(&p, "alice", "c-1");
    for (int i = 0; i < MANY; i++) {
        snprintf(uid, sizeof uid, "somebody-with-a-long-name-%07d", i);
        add(&p, uid, "c-1");
    }
    town_run(&p.t, 100);
    assert_in(&p, "alice@c-1 ");
    assert_int_equal(p.left_count, MANY);
    asked = presence_of(p.t.chat)->asked;
    assert_int_equal(asked, 1 + MANY * 34 / (64 * 1024));
    assert_ok(pm_session_unbind(here, "alice", NULL, NULL));
    town_run(&p.t, 10);
    assert_in(&p, "");
    parlour_close(&p);
}

/* ---- Without memory ---------------------------------------------------- */

/* Whatever is refused: in the end who is there is in, and who has gone is out.
 */
static bool hungry_round(size_t k, bool after)
{
    parlour p = {0};
    person *alice;
    pm_err bob, alice_in;
    bool hit;
    parlour_open(&p);
    alice = town_enter(&p.t, p.t.c1, "alice");
    enter(&p, p.t.c1, "bob");
    p.t.heap.calls = 0;
    p.t.heap.fail_at = k;
    p.t.heap.fail_after = after;
    alice_in = pm_channel_add(p.room, "alice", "c-1");
    bob = pm_channel_add(p.room, "bob", "c-1");
    town_run(&p.t, 10);
    go_away(alice);
    town_run(&p.t, 10);
    hit = p.t.heap.failed > 0;
    p.t.heap.fail_at = 0;
    assert_true(alice_in == PM_OK || alice_in == PM_ENOMEM);
    assert_true(bob == PM_OK || bob == PM_ENOMEM);
    town_run(&p.t, 20000);
    /* A session may have been closed for want of memory; bob's was idle. */
    assert_in(&p, bob == PM_OK ? "bob@c-1 " : "");
    assert_int_equal(p.left_count, alice_in == PM_OK ? 1 : 0);
    assert_true(hit || (bob == PM_OK && alice_in == PM_OK));
    parlour_close(&p);
    return hit;
}

static void test_without_memory(void **state)
{
    size_t k = 1;
    (void)state;
    while (hungry_round(k, false))
        k++;
    assert_true(k > 10);
    for (k = 1; hungry_round(k, true);)
        k++;
}

/* Switching on is whole or not at all. */
static bool hungry_switch(size_t k)
{
    parlour p = {0};
    bool hit;
    pm_err err;
    parlour_open(&p);
    assert_ok(pm_channel_leave_on_close(p.room, false, NULL, NULL));
    for (char c = 'a'; c <= 'f'; c++) {
        char uid[2] = {c, 0};
        add(&p, uid, c & 1 ? "c-1" : "c-2");
    }
    p.t.heap.calls = 0;
    p.t.heap.fail_at = k;
    err = pm_channel_leave_on_close(p.room, true, on_left, &p);
    hit = p.t.heap.failed > 0;
    p.t.heap.fail_at = 0;
    assert_err(err, hit ? PM_ENOMEM : PM_OK);
    town_run(&p.t, 100);
    assert_int_equal(pm_channel_count(p.room), hit ? 6 : 0);
    assert_int_equal(presence_of(p.t.chat)->asked, hit ? 0 : 2);
    parlour_close(&p);
    return hit;
}

static void test_switch_without_memory(void **state)
{
    size_t k = 1;
    (void)state;
    while (hungry_switch(k))
        k++;
    assert_true(k > 10);
}

/* ---- Whatever happens -------------------------------------------------- */

enum { UIDS = 8, STEPS = 60 };

typedef struct model {
    pm_session *at[2][UIDS]; /* whose sessions are bound, on c-1 and c-2 */
    bool in[2][UIDS];        /* added and not taken out since */
} model;

static void model_uid(char out[8], size_t uid)
{
    snprintf(out, 8, "u%zu", uid);
}

static void model_step(parlour *p, model *m)
{
    test_world *w = &p->t.world;
    size_t f = test_world_below(w, 2), i = test_world_below(w, UIDS);
    const char *front = f ? "c-2" : "c-1";
    pm_session **s = &m->at[f][i];
    char uid[8];
    model_uid(uid, i);
    switch (test_world_below(w, 8)) {
    case 0:
    case 1:
    case 2:
        assert_ok(pm_channel_add(p->room, uid, front));
        m->in[f][i] = true;
        break;
    case 3:
        pm_channel_leave(p->room, uid, front);
        m->in[f][i] = false;
        break;
    case 4:
    case 5:
        if (pm_session_uid(*s))
            assert_ok(pm_session_unbind(*s, uid, NULL, NULL));
        else
            assert_ok(pm_session_bind(*s, uid, NULL, NULL));
        break;
    case 6:
        p->cut_to_c1 = test_world_below(w, 2);
        p->cut_from_c1 = test_world_below(w, 2);
        break;
    default:
        p->delay_us = 1000 * test_world_below(w, 300);
    }
}

static bool model_is_in(parlour *p, size_t i)
{
    char members[SAID_MAX] = "", want[32];
    snprintf(want, sizeof want, "u%zu@%s ", i % UIDS, i < UIDS ? "c-1" : "c-2");
    pm_channel_each(p->room, put_member, members);
    return strstr(members, want);
}

/* When all is quiet nobody is in who is not there; who is there and added once
 * more is in, and stays. */
static void model_end(parlour *p, model *m)
{
    size_t there = 0;
    for (size_t i = 0; i < 2 * UIDS; i++) {
        size_t f = i / UIDS, u = i % UIDS;
        const char *uid = pm_session_uid(m->at[f][u]);
        if (model_is_in(p, i))
            assert_true(m->in[f][u] && uid);
        if (!uid)
            continue;
        add(p, uid, f ? "c-2" : "c-1");
        there++;
    }
    town_run(&p->t, 5000);
    assert_int_equal(pm_channel_count(p->room), there);
    assert_int_equal(watched_by(p->t.c1) + watched_by(p->t.c2), there);
    for (size_t i = 0; i < 2 * UIDS; i++)
        assert_int_equal(model_is_in(p, i),
                         pm_session_uid(m->at[i / UIDS][i % UIDS]) != NULL);
}

static void model_round(uint64_t seed)
{
    parlour p = {.t = {.world = {.seed = seed}}};
    model m = {0};
    parlour_open(&p);
    for (size_t i = 0; i < 2 * UIDS; i++) {
        enter(&p, i < UIDS ? p.t.c1 : p.t.c2, NULL);
        m.at[i / UIDS][i % UIDS] = p.t.last;
    }
    for (int step = 0; step < STEPS; step++) {
        model_step(&p, &m);
        town_run(&p.t, test_world_below(&p.t.world, 400));
    }
    p.cut_to_c1 = p.cut_from_c1 = false;
    p.delay_us = 0;
    town_run(&p.t, 15000);
    model_end(&p, &m);
    parlour_close(&p);
}

static void test_whatever_happens(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++)
        model_round(seed);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_leaving),
    cmocka_unit_test(test_on_and_off),
    cmocka_unit_test(test_several_channels),
    cmocka_unit_test(test_on_a_frontend),
    cmocka_unit_test(test_back_at_once),
    cmocka_unit_test(test_old_news),
    cmocka_unit_test(test_broken_links),
    cmocka_unit_test(test_frontend_restarts),
    cmocka_unit_test(test_asker_restarts),
    cmocka_unit_test(test_not_in_the_table),
    cmocka_unit_test(test_asker_not_in_the_table),
    cmocka_unit_test(test_from_the_callback),
    cmocka_unit_test(test_hostile_calls),
    cmocka_unit_test(test_wrong_news),
    cmocka_unit_test(test_many),
    cmocka_unit_test(test_without_memory),
    cmocka_unit_test(test_switch_without_memory),
    cmocka_unit_test(test_whatever_happens),
};
TEST_MAIN(tests)
