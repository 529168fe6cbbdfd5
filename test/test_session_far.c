/* SPDX-License-Identifier: MIT */
/* test_session_far.c -- sessions seen from other servers: what a backend's view
 * does to the session of its frontend, look-ups and kicks from anywhere, and
 * servers that end in the middle of it. What hostile ones say is
 * test_session_wire.c's. Start at test_bind and test_fetch. */
#include "far.h"

static void set_json(pm_session *session, const char *name, const char *json)
{
    cJSON *value = cJSON_Parse(json);
    assert_non_null(value);
    assert_ok(pm_session_set(session, name, value));
    cJSON_Delete(value);
}

/* ---- Binding ----------------------------------------------------------- */

static void test_bind(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *real, *view;
    char uid[257];
    (void)state;
    memset(uid, 'u', 256);
    uid[256] = 0;
    town_open(&t);
    town_enter(&t, t.c1, NULL);
    real = t.last;
    view = view_of(&t, real);
    assert_null(pm_session_uid(view));
    assert_int_equal(pm_session_id(view), pm_session_id(real));
    assert_string_equal(pm_session_frontend_id(view), "c-1");
    assert_string_equal(pm_session_address(view), "");
    assert_err(pm_session_bind(view, NULL, on_done, &d), PM_EINVAL);
    assert_err(pm_session_bind(view, "", on_done, &d), PM_EINVAL);
    assert_err(pm_session_bind(view, uid, on_done, &d), PM_EINVAL);
    assert_err(pm_session_unbind(view, uid, on_done, &d), PM_EINVAL);
    assert_ok(pm_session_bind(view, uid + 1, on_done, &d));
    assert_null(pm_session_uid(view)); /* not yet */
    assert_done(&t, &d, PM_OK);
    assert_string_equal(pm_session_uid(view), uid + 1);
    assert_string_equal(pm_session_uid(real), uid + 1);
    assert_ok(pm_session_bind(view, uid + 1, on_done, &d));
    assert_done(&t, &d, PM_OK); /* the same again */
    assert_ok(pm_session_bind(view, "bob", on_done, &d));
    assert_done(&t, &d, PM_EBOUND);
    assert_string_equal(pm_session_uid(view), uid + 1);
    assert_ok(pm_session_unbind(view, "bob", on_done, &d));
    assert_done(&t, &d, PM_EUNBOUND);
    assert_ok(pm_session_unbind(view, uid + 1, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_null(pm_session_uid(view));
    assert_null(pm_session_uid(real));
    assert_ok(pm_session_bind(view, "bob", NULL, NULL)); /* nobody asks */
    town_run(&t, 10);
    assert_string_equal(pm_session_uid(view), "bob");
    assert_string_equal(pm_session_uid(real), "bob");
    pm_session_unref(view);
    town_close(&t);
}

/* The session has gone, then its frontend, then the server of the view. */
static void test_gone(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *view;
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, NULL);
    view = view_of(&t, t.last);
    pmi_conn_close(t.people[0].conn, PM_CLOSE_CLIENT, false, 0);
    town_run(&t, 10);
    assert_false(pm_session_is_closed(view)); /* it can not know */
    assert_ok(pm_session_bind(view, "bob", on_done, &d));
    assert_done(&t, &d, PM_ENOTFOUND);
    assert_null(pm_session_uid(view));
    assert_ok(pm_session_kick(view, "out", on_done, &d));
    assert_done(&t, &d, PM_ENOTFOUND);
    assert_ok(pm_session_sync(view, NULL, on_done, &d));
    assert_done(&t, &d, PM_ENOTFOUND);
    assert_ok(pm_session_push(view, "r", pm_body_text("1"))); /* likewise */
    pm_app_free(t.c1);
    t.c1 = NULL;
    town_run(&t, 10);
    assert_ok(pm_session_unbind(view, "bob", on_done, &d));
    assert_done(&t, &d, PM_EDOWN);
    assert_ok(pm_server_remove(t.chat, "c-1"));
    assert_ok(pm_session_unbind(view, "bob", on_done, &d));
    assert_done(&t, &d, PM_ENOSERVER);
    pm_app_free(t.chat);
    t.chat = NULL;
    assert_true(pm_session_is_closed(view));
    assert_err(pm_session_bind(view, "bob", on_done, &d), PM_ECLOSED);
    assert_err(pm_session_kick(view, NULL, on_done, &d), PM_ECLOSED);
    assert_err(pm_session_sync(view, NULL, on_done, &d), PM_ECLOSED);
    assert_err(pm_session_push(view, "r", pm_body_text("1")), PM_ECLOSED);
    assert_int_equal(d.times, 0);
    pm_session_unref(view);
    town_close(&t);
}

/* ---- Settings ---------------------------------------------------------- */

static void test_sync(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *real, *view;
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    real = t.last;
    assert_ok(pm_session_set_text(real, "room", "hall"));
    assert_ok(pm_session_set_text(real, "kept", "yes"));
    view = view_of(&t, real);
    assert_string_equal(pm_session_get_text(view, "room"), "hall");
    assert_ok(pm_session_set_text(view, "room", "cellar"));
    set_json(view, "level", "{\"n\":[1,2.5,\"x\"]}");
    assert_err(pm_session_sync(view, "missing", on_done, &d), PM_ENOTFOUND);
    assert_string_equal(pm_session_get_text(real, "room"), "hall");
    assert_ok(pm_session_sync(view, "room", on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_string_equal(pm_session_get_text(real, "room"), "cellar");
    assert_null(pm_session_get(real, "level"));
    /* All of them; what is not there any more stays over there. */
    assert_ok(pm_session_set(view, "kept", NULL));
    assert_ok(pm_session_sync(view, NULL, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_string_equal(pm_session_get_text(real, "kept"), "yes");
    assert_true(
        cJSON_IsArray(cJSON_GetObjectItem(pm_session_get(real, "level"), "n")));
    pm_session_unref(view);
    view = view_of(&t, real); /* the next request sees them */
    assert_string_equal(pm_session_get_text(view, "room"), "cellar");
    assert_non_null(pm_session_get(view, "level"));
    pm_session_unref(view);
    town_close(&t);
}

/* A view without settings hands over nothing. */
static void test_sync_nothing(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *view;
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    view = view_of(&t, t.last);
    assert_ok(pm_session_sync(view, NULL, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_null(pm_session_get(t.last, "room"));
    pm_session_unref(view);
    town_close(&t);
}

/* Both have room, together they have none: nothing of it is taken. */
static void test_sync_too_much(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *real, *view;
    char *text = calloc(1, 10001);
    (void)state;
    assert_non_null(text);
    memset(text, 'x', 10000);
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    real = t.last;
    view = view_of(&t, real);
    assert_ok(pm_session_set_text(real, "a", text));
    assert_ok(pm_session_set_text(view, "b", "small"));
    assert_ok(pm_session_set_text(view, "c", text));
    assert_ok(pm_session_sync(view, NULL, on_done, &d));
    assert_done(&t, &d, PM_ELIMIT);
    assert_null(pm_session_get(real, "b"));
    assert_null(pm_session_get(real, "c"));
    assert_string_equal(pm_session_get_text(real, "a"), text);
    assert_ok(pm_session_set(real, "a", NULL));
    assert_ok(pm_session_sync(view, NULL, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_string_equal(pm_session_get_text(real, "b"), "small");
    free(text);
    pm_session_unref(view);
    town_close(&t);
}

static char *nested_json(size_t depth)
{
    char *json = calloc(1, 2 * depth + 1);
    assert_non_null(json);
    memset(json, '[', depth);
    memset(json + depth, ']', depth);
    return json;
}

/* Whatever can be set can travel. */
static void test_whatever_is_set_travels(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *real, *view;
    char *deep = nested_json(31), *deeper = nested_json(32), name[3001];
    cJSON *value = cJSON_Parse(deeper);
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    real = t.last;
    assert_err(pm_session_set(real, "deep", value), PM_EDEPTH);
    set_json(real, "deep", deep);
    memset(name, 1, 3000); /* prints as six bytes each */
    name[3000] = 0;
    for (int i = 0; i < 5; i++) {
        name[0] = (char)('a' + i);
        assert_ok(pm_session_set_text(real, name, "v"));
    }
    view = view_of(&t, real);
    assert_non_null(pm_session_get(view, "deep"));
    assert_string_equal(pm_session_get_text(view, name), "v");
    assert_ok(pm_session_set_text(view, name, "w"));
    assert_ok(pm_session_sync(view, NULL, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_string_equal(pm_session_get_text(real, name), "w");
    assert_ok(pm_session_sync(view, "deep", on_done, &d));
    assert_done(&t, &d, PM_OK);
    cJSON_Delete(value);
    free(deep);
    free(deeper);
    pm_session_unref(view);
    town_close(&t);
}

/* Full to the last byte: a view has as much room as the session has. */
static void test_full_settings(void **state)
{
    const size_t room = PMI_SETTINGS_MAX - 3; /* the name, two quotes */
    town t = {0};
    pm_session *real, *view;
    char *text = calloc(1, room + 2);
    (void)state;
    assert_non_null(text);
    memset(text, 'x', room + 1);
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    real = t.last;
    assert_err(pm_session_set_text(real, "n", text), PM_ELIMIT);
    text[room] = 0;
    assert_ok(pm_session_set_text(real, "n", text));
    assert_err(pm_session_set_text(real, "m", ""), PM_ELIMIT);
    view = view_of(&t, real);
    assert_err(pm_session_set_text(view, "m", ""), PM_ELIMIT);
    text[0] = 'y';
    assert_ok(pm_session_set_text(view, "n", text));
    assert_string_equal(pm_session_get_text(view, "n"), text);
    assert_ok(pm_session_set(view, "n", NULL));
    assert_ok(pm_session_set_text(view, "m", ""));
    pm_session_unref(view);
    free(text);
    town_close(&t);
}

/* ---- Kicks and pushes -------------------------------------------------- */

static void test_kick_and_push(void **state)
{
    town t = {0};
    done d = {0};
    pm_session *alice, *bob;
    char reason[257];
    (void)state;
    memset(reason, 'r', 256);
    reason[256] = 0;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    alice = view_of(&t, t.last);
    town_enter(&t, t.c1, "bob");
    bob = view_of(&t, t.last);
    assert_err(pm_session_kick(alice, reason, on_done, &d), PM_EINVAL);
    assert_ok(pm_session_push(alice, "r", pm_body_text("1")));
    assert_err(pm_session_push(alice, reason, pm_body_text("1")), PM_EINVAL);
    assert_err(pm_session_push(alice, "", pm_body_text("1")), PM_EINVAL);
    assert_err(pm_session_push(alice, NULL, pm_body_text("1")), PM_EINVAL);
    assert_err(pm_session_push(alice, "r", pm_body_none()), PM_EINVAL);
    assert_ok(pm_session_kick(alice, reason + 1, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_string_equal(t.people[0].heard, "r 1;");
    assert_null(t.people[0].conn);
    assert_non_null(t.people[1].conn);
    assert_ok(pm_session_kick(bob, NULL, on_done, &d));
    assert_ok(pm_session_kick(bob, "twice", NULL, NULL));
    assert_done(&t, &d, PM_OK);
    assert_null(t.people[1].conn);
    pm_session_unref(alice);
    pm_session_unref(bob);
    town_close(&t);
}

/* ---- Look-ups ---------------------------------------------------------- */

static void test_fetch(void **state)
{
    town t = {0};
    found f = {.keep = true};
    pm_session *first;
    (void)state;
    town_open(&t);
    assert_ok(pm_server_remove(t.chat, "ghost-1"));
    town_enter(&t, t.c1, "alice");
    first = t.last;
    assert_ok(pm_session_set_text(first, "room", "hall"));
    town_enter(&t, t.c1, "alice");
    town_enter(&t, t.c2, "alice");
    town_enter(&t, t.c2, "bob");
    assert_ok(
        pm_session_fetch(t.chat, "c-1", pm_session_id(first), on_found, &f));
    assert_found(&t, &f, PM_OK, "alice@c-1 hall;");
    assert_int_equal(pm_session_id(f.kept), pm_session_id(first));
    pm_session_unref(f.kept);
    ask_uid(&t, &f, NULL, "alice");
    assert_found(&t, &f, PM_OK, "alice@c-1 hall;alice@c-1 -;alice@c-2 -;");
    ask_uid(&t, &f, "c-2", "alice");
    assert_found(&t, &f, PM_OK, "alice@c-2 -;");
    ask_uid(&t, &f, NULL, "bob");
    assert_found(&t, &f, PM_OK, "bob@c-2 -;");
    ask_uid(&t, &f, "c-1", "bob");
    assert_found(&t, &f, PM_ENOTFOUND, "");
    ask_uid(&t, &f, NULL, "carol");
    assert_found(&t, &f, PM_ENOTFOUND, "");
    memset(&f, 0, sizeof f);
    assert_ok(pm_session_fetch(t.chat, "c-2", 1, on_found, &f));
    assert_found(&t, &f, PM_ENOTFOUND, "");
    /* A frontend looks around too, at itself as well. */
    memset(&f, 0, sizeof f);
    assert_ok(pm_server_remove(t.c1, "ghost-1"));
    assert_ok(pm_session_fetch_uid(t.c1, NULL, "alice", on_found, &f));
    assert_found(&t, &f, PM_OK, "alice@c-1 hall;alice@c-1 -;alice@c-2 -;");
    town_close(&t);
}

/* Some frontends can not be asked: only when nobody else knows is it told. */
static void test_fetch_from_the_dead(void **state)
{
    town t = {0};
    found f;
    (void)state;
    town_open(&t); /* ghost-1 is down */
    town_enter(&t, t.c1, "alice");
    ask_uid(&t, &f, NULL, "alice");
    assert_found(&t, &f, PM_OK, "alice@c-1 -;");
    ask_uid(&t, &f, NULL, "bob");
    assert_found(&t, &f, PM_EDOWN, "");
    ask_uid(&t, &f, "ghost-1", "alice");
    assert_found(&t, &f, PM_EDOWN, "");
    ask_uid(&t, &f, "nowhere", "alice");
    assert_found(&t, &f, PM_ENOSERVER, "");
    /* One that goes while it is asked. */
    ask_uid(&t, &f, "c-1", "alice");
    pm_app_free(t.c1);
    t.c1 = NULL;
    assert_found(&t, &f, PM_ECLOSED, "");
    town_close(&t);
}

static void test_arguments(void **state)
{
    town t = {0};
    found f = {0};
    done d = {0};
    char text[257];
    (void)state;
    memset(text, 'x', 256);
    text[256] = 0;
    town_open(&t);
    assert_err(pm_session_fetch(t.chat, NULL, 1, on_found, &f), PM_EINVAL);
    assert_err(pm_session_fetch(t.chat, "c-1", 1, NULL, &f), PM_EINVAL);
    assert_err(pm_session_fetch_uid(t.chat, NULL, NULL, on_found, &f),
               PM_EINVAL);
    assert_err(pm_session_fetch_uid(t.chat, NULL, "", on_found, &f), PM_EINVAL);
    assert_err(pm_session_fetch_uid(t.chat, NULL, text, on_found, &f),
               PM_EINVAL);
    assert_err(pm_session_fetch_uid(t.chat, NULL, "a", NULL, &f), PM_EINVAL);
    assert_err(pm_session_kick_sid(t.chat, NULL, 1, NULL, on_done, &d),
               PM_EINVAL);
    assert_err(pm_session_kick_sid(t.chat, "c-1", 1, text, on_done, &d),
               PM_EINVAL);
    assert_err(pm_session_kick_uid(t.chat, NULL, "", NULL, on_done, &d),
               PM_EINVAL);
    assert_err(pm_session_kick_uid(t.chat, NULL, text, NULL, on_done, &d),
               PM_EINVAL);
    assert_err(pm_session_kick_uid(t.chat, NULL, "a", text, on_done, &d),
               PM_EINVAL);
    for (size_t i = 0; i < PMI_COUNT(town_servers); i++)
        if (town_servers[i].frontend)
            assert_ok(pm_server_remove(t.chat, town_servers[i].id));
    assert_err(pm_session_fetch_uid(t.chat, NULL, "a", on_found, &f),
               PM_ENOSERVER);
    assert_err(pm_session_kick_uid(t.chat, NULL, "a", NULL, on_done, &d),
               PM_ENOSERVER);
    town_run(&t, 10);
    assert_int_equal(f.times + d.times, 0);
    town_close(&t);
}

static void test_kick_from_anywhere(void **state)
{
    town t = {0};
    done d = {0};
    uint64_t first;
    (void)state;
    town_open(&t);
    town_enter(&t, t.c1, "alice");
    first = pm_session_id(t.last);
    town_enter(&t, t.c1, "alice");
    town_enter(&t, t.c2, "alice");
    town_enter(&t, t.c2, "bob");
    town_enter(&t, t.c1, "bob");
    assert_ok(pm_session_kick_sid(t.chat, "c-1", first, "out", on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_null(t.people[0].conn);
    assert_non_null(t.people[1].conn);
    assert_ok(pm_session_kick_sid(t.chat, "c-1", first, NULL, on_done, &d));
    assert_done(&t, &d, PM_ENOTFOUND);
    assert_ok(pm_session_kick_uid(t.c2, "c-1", "alice", NULL, on_done, &d));
    assert_done(&t, &d, PM_OK);
    assert_null(t.people[1].conn);
    assert_non_null(t.people[2].conn);
    assert_ok(pm_session_kick_uid(t.chat, NULL, "bob", "all", on_done, &d));
    assert_done(&t, &d, PM_OK); /* though ghost-1 could not be asked */
    assert_null(t.people[3].conn);
    assert_null(t.people[4].conn);
    assert_non_null(t.people[2].conn);
    assert_ok(pm_session_kick_uid(t.chat, NULL, "bob", "all", on_done, &d));
    assert_done(&t, &d, PM_EDOWN); /* ghost-1 may have it */
    assert_ok(pm_server_remove(t.chat, "ghost-1"));
    assert_ok(pm_session_kick_uid(t.chat, NULL, "bob", "all", on_done, &d));
    assert_done(&t, &d, PM_ENOTFOUND);
    assert_ok(pm_session_kick_uid(t.chat, NULL, "alice", NULL, NULL, NULL));
    town_run(&t, 10);
    assert_null(t.people[2].conn);
    town_close(&t);
}

/* ---- Freed in the middle of it ----------------------------------------- */

typedef pm_err (*question)(town *t, pm_session *view, done *d, found *f);

static pm_err ask_bind(town *t, pm_session *view, done *d, found *f)
{
    (void)t;
    (void)f;
    return pm_session_bind(view, "alice", on_done, d);
}

static pm_err ask_unbind(town *t, pm_session *view, done *d, found *f)
{
    (void)t;
    (void)f;
    return pm_session_unbind(view, "bob", on_done, d);
}

static pm_err ask_sync(town *t, pm_session *view, done *d, found *f)
{
    (void)t;
    (void)f;
    return pm_session_sync(view, NULL, on_done, d);
}

static pm_err ask_kick(town *t, pm_session *view, done *d, found *f)
{
    (void)t;
    (void)f;
    return pm_session_kick(view, "out", on_done, d);
}

static pm_err ask_fetch(town *t, pm_session *view, done *d, found *f)
{
    (void)d;
    return pm_session_fetch(t->chat, "c-1", pm_session_id(view), on_found, f);
}

static pm_err ask_fetch_uid(town *t, pm_session *view, done *d, found *f)
{
    (void)view;
    (void)d;
    return pm_session_fetch_uid(t->chat, NULL, "bob", on_found, f);
}

static pm_err ask_kick_sid(town *t, pm_session *view, done *d, found *f)
{
    (void)f;
    return pm_session_kick_sid(t->chat, "c-1", pm_session_id(view), NULL,
                               on_done, d);
}

static pm_err ask_kick_uid(town *t, pm_session *view, done *d, found *f)
{
    (void)view;
    (void)f;
    return pm_session_kick_uid(t->chat, NULL, "bob", "out", on_done, d);
}

static const question questions[] = {ask_bind,     ask_unbind,  ask_sync,
                                     ask_kick,     ask_fetch,   ask_fetch_uid,
                                     ask_kick_sid, ask_kick_uid};

typedef enum moment { IN_CALLBACK, WHILE_ASKED, FRONT_WHILE_ASKED } moment;

static void check_freed(question ask, moment when)
{
    town t = {0};
    done d = {0};
    found f = {.keep = true};
    pm_session *view;
    town_open(&t);
    town_enter(&t, t.c1, ask == ask_bind ? NULL : "bob");
    view = view_of(&t, t.last);
    if (when == IN_CALLBACK)
        d.free_this = f.free_this = t.chat;
    assert_ok(ask(&t, view, &d, &f));
    assert_int_equal(d.times + f.times, 0);
    if (when == WHILE_ASKED) {
        pm_app_free(t.chat);
        assert_int_equal(d.times + f.times, 1); /* before it returns */
    }
    if (when == FRONT_WHILE_ASKED) {
        pm_app_free(t.c1);
        t.c1 = NULL;
    } else {
        t.chat = NULL;
    }
    town_run(&t, 6000);
    assert_int_equal(d.times + f.times, 1);
    if (when == IN_CALLBACK) {
        assert_ok(d.err);
        assert_ok(f.err);
    } else {
        assert_int_not_equal(d.times ? d.err : f.err, PM_OK);
    }
    pm_session_unref(view);
    pm_session_unref(f.kept);
    town_close(&t);
}

static void test_freed(void **state)
{
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(questions); i++) {
        check_freed(questions[i], IN_CALLBACK);
        check_freed(questions[i], WHILE_ASKED);
        check_freed(questions[i], FRONT_WHILE_ASKED);
    }
}

/* A listener of the frontend frees it while it serves somebody far away. */
static void on_change(pm_app *app, pm_session *session, void *ctx)
{
    town *t = ctx;
    assert_non_null(pm_session_frontend_id(session));
    pm_app_free(app);
    t->c1 = NULL;
}

static void on_unbound(pm_app *app, pm_session *session, const char *uid,
                       void *ctx)
{
    on_change(app, session, ctx);
    assert_string_equal(uid, "bob"); /* still readable */
}

static void on_closed(pm_app *app, pm_session *session, pm_close_reason reason,
                      void *ctx)
{
    (void)reason;
    if (((town *)ctx)->c1)
        on_change(app, session, ctx);
}

static void check_frontend_frees_itself(question ask)
{
    town t = {0};
    done d = {0};
    found f = {0};
    pm_app_events events = pm_app_events_default();
    pm_session *view;
    town_open(&t);
    town_enter(&t, t.c1, ask == ask_bind ? NULL : "bob");
    view = view_of(&t, t.last);
    events.session_bound = on_change;
    events.session_unbound = on_unbound;
    events.session_closed = on_closed;
    assert_ok(pm_app_listen(t.c1, &events, &t));
    assert_ok(ask(&t, view, &d, &f));
    town_run(&t, 6000);
    assert_null(t.c1);
    assert_int_equal(d.times, 1);
    pm_session_unref(view);
    town_close(&t);
}

static void test_frontend_frees_itself(void **state)
{
    (void)state;
    check_frontend_frees_itself(ask_bind);
    check_frontend_frees_itself(ask_unbind);
    check_frontend_frees_itself(ask_kick);
    check_frontend_frees_itself(ask_kick_uid);
}

/* ---- Without memory ---------------------------------------------------- */

/* Told once when it was accepted, and never else; what was not refused has
 * happened. cJSON's trees are made from the same heap. */
static bool hungry_round(question ask, size_t k, bool after)
{
    town t = {0};
    done d = {0};
    found f = {0};
    pm_session *view;
    pm_err err;
    bool hit;
    int told;
    test_cjson_use(&t.heap);
    town_open(&t);
    assert_ok(pm_server_remove(t.chat, "ghost-1"));
    town_enter(&t, t.c1, ask == ask_bind ? NULL : "bob");
    assert_ok(pm_session_set_text(t.last, "room", "hall"));
    view = view_of(&t, t.last);
    assert_ok(pm_session_set_text(view, "room", "cellar"));
    assert_ok(pm_session_set_text(view, "seat", "12"));
    t.heap.calls = 0;
    t.heap.fail_at = k;
    t.heap.fail_after = after;
    err = ask(&t, view, &d, &f);
    town_run(&t, 1);
    hit = t.heap.failed > 0;
    t.heap.fail_at = 0;
    t.heap.fail_after = false;
    town_run(&t, 6000);
    told = d.times + f.times;
    assert_true(err == PM_OK || err == PM_ENOMEM);
    assert_int_equal(told, err == PM_OK ? 1 : 0);
    assert_true(hit || (err == PM_OK && d.err == PM_OK && f.err == PM_OK));
    if (ask == ask_fetch && err == PM_OK && f.err == PM_OK)
        assert_string_equal(f.who, "bob@c-1 hall;");
    if (ask == ask_fetch_uid && err == PM_OK && f.err == PM_OK)
        assert_string_equal(f.who, "bob@c-1 hall;");
    if (ask == ask_sync && t.people[0].conn) /* all of it, or nothing */
        assert_int_equal(
            pm_session_get(t.last, "seat") != NULL,
            !strcmp(pm_session_get_text(t.last, "room"), "cellar"));
    pm_session_unref(view);
    town_close(&t);
    test_cjson_use(NULL);
    return hit;
}

static void test_without_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(questions); i++) {
        size_t k = 1;
        while (hungry_round(questions[i], k, false))
            k++;
        assert_true(k > 3);
        for (k = 1; hungry_round(questions[i], k, true);)
            k++;
    }
}

/* A view is made whole or not at all. */
static void test_view_without_memory(void **state)
{
    bool hit = true;
    (void)state;
    for (size_t k = 1; hit; k++) {
        town t = {0};
        pm_session *view = NULL;
        pm_err err;
        test_cjson_use(&t.heap);
        town_open(&t);
        town_enter(&t, t.c1, "bob");
        assert_ok(pm_session_set_text(t.last, "room", "hall"));
        t.heap.calls = 0;
        t.heap.fail_at = k;
        err = view_try(&t, t.last, &view);
        hit = t.heap.failed > 0;
        t.heap.fail_at = 0;
        assert_err(err, hit ? PM_ENOMEM : PM_OK);
        assert_int_equal(view == NULL, hit);
        pm_session_unref(view);
        town_close(&t);
        test_cjson_use(NULL);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bind),
    cmocka_unit_test(test_gone),
    cmocka_unit_test(test_sync),
    cmocka_unit_test(test_sync_nothing),
    cmocka_unit_test(test_sync_too_much),
    cmocka_unit_test(test_whatever_is_set_travels),
    cmocka_unit_test(test_full_settings),
    cmocka_unit_test(test_kick_and_push),
    cmocka_unit_test(test_fetch),
    cmocka_unit_test(test_fetch_from_the_dead),
    cmocka_unit_test(test_arguments),
    cmocka_unit_test(test_kick_from_anywhere),
    cmocka_unit_test(test_freed),
    cmocka_unit_test(test_frontend_frees_itself),
    cmocka_unit_test(test_without_memory),
    cmocka_unit_test(test_view_without_memory),
};
TEST_MAIN(tests)
