/* SPDX-License-Identifier: MIT */
/* test_channel.c -- who is a member, in which order, whatever happens while one
 * looks. What is pushed to them is test_push.c's. Start at test_members and
 * test_against_a_model. */
#include "test.h"
#include "pomelo_channel_internal.h"

static const pm_server home_servers[] = {
    {.id = "chat-1", .type = "chat", .host = "127.0.0.1", .port = 4060}};

typedef struct home {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pm_app *app;
} home;

static void home_open(home *h)
{
    pm_loop_opts loop_opts = test_world_opts(&h->world, &h->heap);
    pm_app_opts opts = pm_app_opts_default();
    assert_ok(pm_loop_new(&h->loop, &loop_opts));
    opts.loop = h->loop;
    opts.servers = home_servers;
    opts.servers_count = 1;
    assert_ok(pm_app_new(&h->app, &opts));
}

static void home_close(home *h)
{
    pm_app_free(h->app);
    pm_loop_free(h->loop);
    assert_heap_empty(&h->heap);
}

/* ---- Looking ----------------------------------------------------------- */

#define SEEN_MAX 4096

typedef enum deed {
    DO_NOTHING,
    STOP,
    LEAVE,
    LEAVE_ALL,
    JOIN,
    DESTROY,
    FREE_APP
} deed;

/* "alice@c-1 bob@c-2 ", and what to do when somebody is seen. */
typedef struct look {
    char seen[SEEN_MAX];
    size_t len;
    pm_channel *channel;
    pm_app *app;
    const char *at; /* when this uid is seen: do it */
    deed act;
    const char *whom[4]; /* LEAVE, JOIN: uids on c-1 */
} look;

static void look_act(look *l)
{
    switch (l->act) {
    case LEAVE:
        for (size_t i = 0; i < 4 && l->whom[i]; i++)
            pm_channel_leave(l->channel, l->whom[i], "c-1");
        break;
    case JOIN:
        for (size_t i = 0; i < 4 && l->whom[i]; i++)
            pm_channel_add(l->channel, l->whom[i], "c-1");
        break;
    case LEAVE_ALL:
        for (char c = 'a'; c <= 'z'; c++) {
            char uid[2] = {c, 0};
            pm_channel_leave(l->channel, uid, "c-1");
        }
        break;
    case DESTROY:
        pm_channel_destroy(l->channel);
        break;
    case FREE_APP:
        pm_app_free(l->app);
        break;
    default:
        break;
    }
}

static bool look_at(const pm_receiver *member, void *ctx)
{
    look *l = ctx;
    bool here = l->at && !strcmp(member->uid, l->at);
    if (here)
        look_act(l);
    /* After what was done: the names must still be readable. */
    l->len += (size_t)snprintf(l->seen + l->len, SEEN_MAX - l->len, "%s@%s ",
                               member->uid, member->frontend_id);
    return !(here && l->act == STOP);
}

static void assert_members(pm_channel *channel, const char *want)
{
    look l = {.channel = channel};
    size_t count = pm_channel_each(channel, look_at, &l);
    assert_string_equal(l.seen, want);
    assert_int_equal(count, pm_channel_count(channel));
}

/* ---- Members ----------------------------------------------------------- */

static void test_members(void **state)
{
    home h = {0};
    pm_channel *room;
    (void)state;
    home_open(&h);
    assert_null(pm_channel_get(h.app, "room", false));
    room = pm_channel_get(h.app, "room", true);
    assert_non_null(room);
    assert_ptr_equal(pm_channel_get(h.app, "room", true), room);
    assert_ptr_equal(pm_channel_get(h.app, "room", false), room);
    assert_string_equal(pm_channel_name(room), "room");
    assert_members(room, "");
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "bob", "c-2"));
    assert_ok(pm_channel_add(room, "alice", "c-1")); /* is once */
    assert_ok(pm_channel_add(room, "carol", "c-1"));
    assert_ok(pm_channel_add(room, "alice", "c-2"));
    assert_members(room, "alice@c-1 bob@c-2 carol@c-1 alice@c-2 ");
    assert_true(pm_channel_has(room, "alice"));
    assert_false(pm_channel_has(room, "dave"));
    assert_false(pm_channel_has(room, NULL));
    assert_ok(pm_channel_leave(room, "alice", "c-1"));
    assert_true(pm_channel_has(room, "alice")); /* on c-2 */
    assert_err(pm_channel_leave(room, "alice", "c-1"), PM_ENOTFOUND);
    assert_err(pm_channel_leave(room, "bob", "c-1"), PM_ENOTFOUND);
    assert_err(pm_channel_leave(room, "dave", "c-1"), PM_ENOTFOUND);
    assert_err(pm_channel_leave(room, NULL, "c-1"), PM_ENOTFOUND);
    assert_ok(pm_channel_leave(room, "alice", "c-2"));
    assert_false(pm_channel_has(room, "alice"));
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_members(room, "bob@c-2 carol@c-1 alice@c-1 ");
    pm_channel_destroy(room);
    assert_null(pm_channel_get(h.app, "room", false));
    pm_channel_destroy(NULL);
    home_close(&h);
}

static void test_names_are_bounded(void **state)
{
    home h = {0};
    char text[257];
    pm_channel *room;
    (void)state;
    memset(text, 'x', 256);
    text[256] = 0;
    home_open(&h);
    room = pm_channel_get(h.app, "room", true);
    assert_null(pm_channel_get(h.app, NULL, true));
    assert_null(pm_channel_get(h.app, "", true));
    assert_null(pm_channel_get(h.app, text, true));
    assert_non_null(pm_channel_get(h.app, text + 1, true));
    assert_int_equal(pmi_channels_count(pmi_app_channels(h.app)), 2);
    assert_err(pm_channel_add(room, NULL, "c-1"), PM_EINVAL);
    assert_err(pm_channel_add(room, "", "c-1"), PM_EINVAL);
    assert_err(pm_channel_add(room, text, "c-1"), PM_EINVAL);
    assert_err(pm_channel_add(room, "alice", NULL), PM_EINVAL);
    assert_err(pm_channel_add(room, "alice", ""), PM_EINVAL);
    assert_err(pm_channel_add(room, "alice", text), PM_EINVAL);
    assert_members(room, "");
    assert_ok(pm_channel_add(room, text + 1, text + 1));
    assert_true(pm_channel_has(room, text + 1));
    home_close(&h);
}

/* ---- While one looks --------------------------------------------------- */

static void check_look(deed act, const char *at, const char *whom,
                       const char *seen, const char *left)
{
    home h = {0};
    look l = {.at = at};
    home_open(&h);
    l.channel = pm_channel_get(h.app, "room", true);
    l.app = h.app;
    l.act = act;
    l.whom[0] = whom;
    for (char c = 'a'; c <= 'd'; c++) {
        char uid[2] = {c, 0};
        assert_ok(pm_channel_add(l.channel, uid, "c-1"));
    }
    pm_channel_each(l.channel, look_at, &l);
    assert_string_equal(l.seen, seen);
    if (left)
        assert_members(l.channel, left);
    if (act == FREE_APP)
        h.app = NULL;
    home_close(&h);
}

static void test_each_survives(void **state)
{
    const char *all = "a@c-1 b@c-1 c@c-1 d@c-1 ";
    (void)state;
    check_look(DO_NOTHING, NULL, NULL, all, all);
    check_look(STOP, "b", NULL, "a@c-1 b@c-1 ", all);
    check_look(LEAVE, "b", "a", all, "b@c-1 c@c-1 d@c-1 ");
    check_look(LEAVE, "b", "b", all, "a@c-1 c@c-1 d@c-1 ");
    check_look(LEAVE, "b", "c", "a@c-1 b@c-1 d@c-1 ", "a@c-1 b@c-1 d@c-1 ");
    check_look(LEAVE, "c", "d", "a@c-1 b@c-1 c@c-1 ", "a@c-1 b@c-1 c@c-1 ");
    check_look(LEAVE_ALL, "b", NULL, "a@c-1 b@c-1 ", "");
    check_look(JOIN, "b", "e", all, "a@c-1 b@c-1 c@c-1 d@c-1 e@c-1 ");
    check_look(JOIN, "d", "e", all, "a@c-1 b@c-1 c@c-1 d@c-1 e@c-1 ");
    check_look(DESTROY, "b", NULL, "a@c-1 b@c-1 ", NULL);
    check_look(DESTROY, "d", NULL, all, NULL);
    check_look(FREE_APP, "b", NULL, "a@c-1 b@c-1 ", NULL);
}

/* A look within a look, and the inner one takes away what both stand on. */
typedef struct nested {
    look inner;
    size_t outer_seen;
} nested;

static bool look_within(const pm_receiver *member, void *ctx)
{
    nested *n = ctx;
    n->outer_seen++;
    assert_string_equal(member->frontend_id, "c-1");
    if (n->outer_seen == 2)
        pm_channel_each(n->inner.channel, look_at, &n->inner);
    return strlen(member->uid) == 1; /* still readable */
}

static void check_nested(deed act, size_t outer, const char *inner)
{
    home h = {0};
    nested n = {.inner = {.at = "c"}};
    home_open(&h);
    n.inner.act = act;
    n.inner.channel = pm_channel_get(h.app, "room", true);
    n.inner.whom[0] = "b";
    n.inner.whom[1] = "c";
    for (char c = 'a'; c <= 'd'; c++) {
        char uid[2] = {c, 0};
        assert_ok(pm_channel_add(n.inner.channel, uid, "c-1"));
    }
    pm_channel_each(n.inner.channel, look_within, &n);
    assert_int_equal(n.outer_seen, outer);
    assert_string_equal(n.inner.seen, inner);
    home_close(&h);
}

static void test_each_within_each(void **state)
{
    (void)state;
    check_nested(LEAVE, 3, "a@c-1 b@c-1 c@c-1 d@c-1 ");
    check_nested(DESTROY, 2, "a@c-1 b@c-1 c@c-1 ");
    check_nested(LEAVE_ALL, 2, "a@c-1 b@c-1 c@c-1 ");
}

/* ---- Against a model --------------------------------------------------- */

enum { MODEL_UIDS = 12, MODEL_FRONTENDS = 4, MODEL_STEPS = 20000 };

typedef struct model {
    struct {
        int uid, frontend;
    } at[MODEL_UIDS * MODEL_FRONTENDS];
    size_t count;
} model;

static size_t model_find(const model *m, int uid, int frontend)
{
    size_t i = 0;
    while (i < m->count &&
           (m->at[i].uid != uid || m->at[i].frontend != frontend))
        i++;
    return i;
}

static bool model_has(const model *m, int uid)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->at[i].uid == uid)
            return true;
    return false;
}

static void model_check(const model *m, pm_channel *room)
{
    char want[SEEN_MAX];
    size_t len = 0;
    want[0] = 0;
    for (size_t i = 0; i < m->count; i++)
        len += (size_t)snprintf(want + len, sizeof want - len, "u%d@c-%d ",
                                m->at[i].uid, m->at[i].frontend);
    assert_members(room, want);
}

static void model_step(model *m, pm_channel *room, test_world *world)
{
    int uid = (int)test_world_below(world, MODEL_UIDS);
    int frontend = (int)test_world_below(world, MODEL_FRONTENDS);
    size_t i = model_find(m, uid, frontend);
    bool join = test_world_below(world, 2);
    char uid_text[16], frontend_text[16];
    snprintf(uid_text, sizeof uid_text, "u%d", uid);
    snprintf(frontend_text, sizeof frontend_text, "c-%d", frontend);
    assert_int_equal(pm_channel_has(room, uid_text), model_has(m, uid));
    if (join) {
        assert_ok(pm_channel_add(room, uid_text, frontend_text));
        if (i == m->count) {
            m->at[i].uid = uid;
            m->at[m->count++].frontend = frontend;
        }
        return;
    }
    assert_err(pm_channel_leave(room, uid_text, frontend_text),
               i == m->count ? PM_ENOTFOUND : PM_OK);
    if (i == m->count)
        return;
    memmove(&m->at[i], &m->at[i + 1], (--m->count - i) * sizeof m->at[0]);
}

static void test_against_a_model(void **state)
{
    home h = {.world = {.seed = 7}};
    model m = {0};
    pm_channel *room;
    (void)state;
    home_open(&h);
    room = pm_channel_get(h.app, "room", true);
    for (int step = 0; step < MODEL_STEPS; step++) {
        model_step(&m, room, &h.world);
        if (step % 16 == 0)
            model_check(&m, room);
    }
    home_close(&h);
}

/* ---- Many -------------------------------------------------------------- */

enum { MANY = 100 * 1000 };

static void test_many_channels(void **state)
{
    home h = {0};
    size_t before, each;
    char name[32];
    (void)state;
    home_open(&h);
    before = h.heap.live_bytes;
    for (int i = 0; i < MANY; i++) {
        pm_channel *room;
        snprintf(name, sizeof name, "room-%d", i);
        room = pm_channel_get(h.app, name, true);
        assert_non_null(room);
        assert_ok(pm_channel_add(room, "alice", "c-1"));
        assert_ok(pm_channel_add(room, "bob", "c-2"));
    }
    assert_int_equal(pmi_channels_count(pmi_app_channels(h.app)), MANY);
    each = (h.heap.live_bytes - before) / MANY;
    print_message("%zu bytes a channel with two members\n", each);
    assert_true(each < 2048);
    for (int i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof name, "room-%d", i);
        pm_channel_destroy(pm_channel_get(h.app, name, false));
    }
    assert_int_equal(pmi_channels_count(pmi_app_channels(h.app)), MANY / 2);
    assert_null(pm_channel_get(h.app, "room-10", false));
    assert_non_null(pm_channel_get(h.app, "room-11", false));
    home_close(&h);
}

static void test_one_large_channel(void **state)
{
    home h = {0};
    pm_channel *room;
    char uid[32];
    (void)state;
    home_open(&h);
    room = pm_channel_get(h.app, "world", true);
    for (int i = 0; i < MANY; i++) {
        snprintf(uid, sizeof uid, "u%d", i);
        assert_ok(pm_channel_add(room, uid, i % 2 ? "c-1" : "c-2"));
    }
    assert_int_equal(pm_channel_count(room), MANY);
    for (int i = MANY; i-- > 0;) {
        snprintf(uid, sizeof uid, "u%d", i);
        assert_ok(pm_channel_leave(room, uid, i % 2 ? "c-1" : "c-2"));
    }
    assert_members(room, "");
    home_close(&h);
}

/* ---- The store --------------------------------------------------------- */

typedef enum whim { NO_WHIM, FAIL, FREE_IT, DESTROY_IT } whim;

/* "+room alice@c-1;" for each change, and what the store is up to. */
typedef struct store {
    home h;
    char told[SEEN_MAX];
    size_t len;
    whim on_add, on_remove;
    pm_err load;
    int loads;
} store;

static void store_note(store *s, char what, const char *channel,
                       const pm_receiver *member)
{
    s->len += (size_t)snprintf(s->told + s->len, SEEN_MAX - s->len,
                               member ? "%c%s %s@%s;" : "%c%s;", what, channel,
                               member ? member->uid : "",
                               member ? member->frontend_id : "");
}

static pm_err store_whim(store *s, whim what, pm_app *app, const char *channel)
{
    if (what == FREE_IT) {
        pm_app_free(app);
        s->h.app = NULL;
    }
    if (what == DESTROY_IT)
        pm_channel_destroy(pm_channel_get(app, channel, false));
    return what == FAIL ? PM_ENET : PM_OK;
}

static pm_err store_add(pm_app *app, const char *channel,
                        const pm_receiver *member, void *ctx)
{
    store *s = ctx;
    pm_err err = store_whim(s, s->on_add, app, channel);
    store_note(s, '+', channel, member); /* still readable */
    return err;
}

static pm_err store_remove(pm_app *app, const char *channel,
                           const pm_receiver *member, void *ctx)
{
    store *s = ctx;
    pm_err err = store_whim(s, s->on_remove, app, channel);
    store_note(s, '-', channel, member);
    return err;
}

static pm_err store_remove_all(pm_app *app, const char *channel, void *ctx)
{
    (void)app;
    store_note(ctx, '!', channel, NULL);
    return PM_OK;
}

static pm_err store_load(pm_app *app, void *ctx)
{
    store *s = ctx;
    s->loads++;
    assert_ok(pm_channel_restore(app, "old", "alice", "c-1"));
    assert_ok(pm_channel_restore(app, "old", "alice", "c-1"));
    assert_ok(pm_channel_restore(app, "old", "bob", "c-2"));
    assert_ok(pm_channel_restore(app, "empty", NULL, NULL));
    assert_err(pm_channel_restore(app, "", "alice", "c-1"), PM_EINVAL);
    assert_err(pm_channel_restore(app, "old", "", "c-1"), PM_EINVAL);
    assert_err(pm_channel_restore(app, "old", "alice", NULL), PM_EINVAL);
    return s->load;
}

static void store_open(store *s)
{
    pm_channel_store all = pm_channel_store_default();
    home_open(&s->h);
    all.add = store_add;
    all.remove = store_remove;
    all.remove_all = store_remove_all;
    all.load = store_load;
    assert_ok(pm_app_channel_store(s->h.app, &all, s));
    assert_err(pm_app_channel_store(s->h.app, &all, s), PM_EEXIST);
}

static uint64_t store_failures(const store *s)
{
    return pmi_channels_store_failures(pmi_app_channels(s->h.app));
}

static void test_store(void **state)
{
    store s = {.load = PM_OK};
    pm_channel *room, *old;
    (void)state;
    store_open(&s);
    assert_null(pm_channel_get(s.h.app, "old", false));
    assert_ok(pm_app_start(s.h.app));
    assert_int_equal(s.loads, 1);
    old = pm_channel_get(s.h.app, "old", true);
    assert_members(old, "alice@c-1 bob@c-2 ");
    assert_non_null(pm_channel_get(s.h.app, "empty", false));
    assert_string_equal(s.told, ""); /* it knows that much */
    room = pm_channel_get(s.h.app, "room", true);
    pm_channel_get(s.h.app, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_err(pm_channel_add(room, "", "c-1"), PM_EINVAL);
    assert_ok(pm_channel_leave(old, "bob", "c-2"));
    assert_err(pm_channel_leave(old, "bob", "c-2"), PM_ENOTFOUND);
    pm_channel_destroy(room);
    assert_string_equal(s.told, "+room;+room alice@c-1;-old bob@c-2;!room;");
    assert_int_equal(store_failures(&s), 0);
    home_close(&s.h); /* the end of the app is nobody's leaving */
    assert_string_equal(s.told, "+room;+room alice@c-1;-old bob@c-2;!room;");
}

/* What it does not do is not asked of it; arguments. */
static void test_store_of_nothing(void **state)
{
    home h = {0};
    pm_channel_store none = pm_channel_store_default(), bad = {0};
    pm_channel *room;
    (void)state;
    home_open(&h);
    assert_err(pm_app_channel_store(h.app, NULL, NULL), PM_EINVAL);
    assert_err(pm_app_channel_store(h.app, &bad, NULL), PM_EINVAL);
    assert_ok(pm_app_channel_store(h.app, &none, NULL));
    assert_ok(pm_app_start(h.app));
    room = pm_channel_get(h.app, "room", true);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_ok(pm_channel_leave(room, "alice", "c-1"));
    pm_channel_destroy(room);
    home_close(&h);
    home_open(&h);
    assert_ok(pm_app_start(h.app));
    assert_err(pm_app_channel_store(h.app, &none, NULL), PM_ESTATE);
    home_close(&h);
}

/* It fails: counted, and the channel has changed all the same. */
static void test_store_fails(void **state)
{
    store s = {.load = PM_ENET};
    pm_channel *room;
    (void)state;
    store_open(&s);
    assert_err(pm_app_start(s.h.app), PM_ENET);
    assert_int_equal(store_failures(&s), 1);
    s.load = PM_OK;
    assert_ok(pm_app_start(s.h.app));
    assert_int_equal(s.loads, 2);
    s.on_add = s.on_remove = FAIL;
    room = pm_channel_get(s.h.app, "room", true);
    assert_non_null(room);
    assert_ok(pm_channel_add(room, "alice", "c-1"));
    assert_members(room, "alice@c-1 ");
    assert_ok(pm_channel_leave(room, "alice", "c-1"));
    assert_members(room, "");
    assert_int_equal(store_failures(&s), 4);
    home_close(&s.h);
}

/* From inside: the channel or the app goes. */
static void check_whim(whim add, whim remove, bool at_once)
{
    store s = {.load = PM_OK};
    pm_channel *room;
    store_open(&s);
    if (at_once)
        s.on_add = add;
    room = pm_channel_get(s.h.app, "room", true);
    assert_int_equal(room != NULL, !at_once);
    if (room) {
        s.on_add = add;
        s.on_remove = remove;
        assert_ok(pm_channel_add(room, "alice", "c-1"));
        assert_string_equal(strchr(s.told, 'a'), "alice@c-1;");
        if (!add) {
            assert_ok(pm_channel_leave(room, "alice", "c-1"));
            assert_non_null(strstr(s.told, "-room alice@c-1;"));
        }
    }
    if (s.h.app)
        assert_null(pm_channel_get(s.h.app, "room", false));
    home_close(&s.h);
}

static void test_store_with_whims(void **state)
{
    (void)state;
    for (whim what = FREE_IT; what <= DESTROY_IT; what++) {
        check_whim(what, NO_WHIM, true);
        check_whim(what, NO_WHIM, false);
        check_whim(NO_WHIM, what, false);
    }
}

/* ---- Without memory ---------------------------------------------------- */

/* A refused step has changed nothing. */
static void grow_slowly(home *h)
{
    pm_channel *room = NULL;
    size_t members = 0;
    while (!room) {
        size_t channels = pmi_channels_count(pmi_app_channels(h->app));
        room = pm_channel_get(h->app, "room", true);
        assert_int_equal(pmi_channels_count(pmi_app_channels(h->app)),
                         channels + (room ? 1 : 0));
    }
    for (int i = 0; i < 20; i++) {
        char uid[16];
        const char *frontend = i % 3 ? "c-1" : "c-2";
        snprintf(uid, sizeof uid, "u%d", i / 2);
        while (pm_channel_add(room, uid, frontend) == PM_ENOMEM)
            assert_int_equal(pm_channel_count(room), members);
        members = pm_channel_count(room);
    }
    assert_members(room, "u0@c-2 u0@c-1 u1@c-1 u1@c-2 u2@c-1 u3@c-2 u3@c-1 "
                         "u4@c-1 u4@c-2 u5@c-1 u6@c-2 u6@c-1 u7@c-1 u7@c-2 "
                         "u8@c-1 u9@c-2 u9@c-1 ");
}

static void test_without_memory(void **state)
{
    bool hit = true;
    (void)state;
    for (size_t k = 1; hit; k++) {
        home h = {0};
        home_open(&h);
        h.heap.calls = 0;
        h.heap.fail_at = k;
        grow_slowly(&h);
        hit = h.heap.failed > 0;
        home_close(&h);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_members),
    cmocka_unit_test(test_names_are_bounded),
    cmocka_unit_test(test_each_survives),
    cmocka_unit_test(test_each_within_each),
    cmocka_unit_test(test_against_a_model),
    cmocka_unit_test(test_many_channels),
    cmocka_unit_test(test_one_large_channel),
    cmocka_unit_test(test_store),
    cmocka_unit_test(test_store_of_nothing),
    cmocka_unit_test(test_store_fails),
    cmocka_unit_test(test_store_with_whims),
    cmocka_unit_test(test_without_memory),
};
TEST_MAIN(tests)
