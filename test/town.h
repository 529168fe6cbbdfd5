/* SPDX-License-Identifier: MIT */
/* test/town.h -- two frontends and a backend in one thread, on memory and a
 * virtual clock; people who speak the client's wire by hand, with nothing of
 * our own client in between; and what the callback of a push was told. */
#ifndef TEST_TOWN_H
#define TEST_TOWN_H

#include "test.h"
#include "core/conn.h"
#include "pomelo_channel_internal.h"
#include "pomelo_connector_internal.h"
#include "pomelo_push_internal.h"

enum { PEOPLE_MAX = 64, HEARD_MAX = 2048, BIG = 1024 * 1024 };

static const pm_server town_servers[] = {
    {.id = "c-1",
     .type = "connector",
     .port = 4051,
     .client_port = 3051,
     .frontend = true},
    {.id = "c-2",
     .type = "connector",
     .port = 4052,
     .client_port = 3052,
     .frontend = true},
    {.id = "chat-1", .type = "chat", .port = 4060},
    {.id = "ghost-1", .type = "ghost", .port = 4070, .frontend = true}};

/* A client: what it was pushed, as "route body;". */
typedef struct person {
    pmi_conn *conn;
    char heard[HEARD_MAX];
    size_t heard_len;
    size_t pushes;
    size_t bytes; /* of all bodies */
    bool greeted;
} person;

typedef struct town town;
struct town {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    pm_app *c1, *c2, *chat;
    pm_session *last; /* that was opened */
    person people[PEOPLE_MAX];
    size_t count;
    uint32_t peer_queue_bytes, client_queue_bytes; /* 0: the default */
    pm_push_policy push_policy;
    pm_scheduler scheduler;
    double heartbeat_s;
    void (*configure)(town *t, pm_app *app); /* NULL: nothing */
};

/* ---- People ------------------------------------------------------------ */

static inline void person_say(person *p, uint8_t type, const char *body)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    pm_slice parts[2] = {{head, sizeof head}, pm_text(body)};
    pmi_proto_package_head(head, type, parts[1].len);
    pmi_conn_send(p->conn, parts, 2, 0);
}

static inline void person_note(person *p, const pmi_message *msg)
{
    size_t room = HEARD_MAX - p->heard_len;
    int n = snprintf(p->heard + p->heard_len, room, "%.*s %.*s;",
                     (int)msg->route.len, (const char *)msg->route.data,
                     (int)(msg->body.len < 64 ? msg->body.len : 0),
                     (const char *)msg->body.data);
    if (n > 0 && (size_t)n < room)
        p->heard_len += (size_t)n;
    p->pushes++;
    p->bytes += msg->body.len;
}

static inline void person_hear(person *p, const pmi_package *package)
{
    pmi_message msg;
    if (package->type == PMI_PACKAGE_HANDSHAKE) {
        p->greeted = true;
        person_say(p, PMI_PACKAGE_ACK, "");
    }
    if (package->type == PMI_PACKAGE_DATA &&
        pmi_proto_message_decode(package->body, &msg) == PM_OK &&
        msg.type == PMI_MESSAGE_PUSH)
        person_note(p, &msg);
}

static inline size_t person_data(pmi_conn *conn, uint8_t *data, size_t len,
                                 void *ctx)
{
    size_t used = 0;
    (void)conn;
    while (used < len) {
        pmi_package package;
        long n = pmi_proto_package_decode(data + used, len - used,
                                          PMI_PACKAGE_BODY_MAX, &package);
        if (n <= 0)
            break;
        used += (size_t)n;
        person_hear(ctx, &package);
    }
    return used;
}

static inline void person_message(pmi_conn *conn, uint8_t *data, size_t len,
                                  bool text, void *ctx)
{
    pmi_package package;
    (void)conn;
    (void)text;
    if (pmi_proto_package_frame(data, len, PMI_PACKAGE_BODY_MAX, &package) ==
        PM_OK)
        person_hear(ctx, &package);
}

static inline void person_open(pmi_conn *conn, void *ctx)
{
    (void)conn;
    person_say(ctx, PMI_PACKAGE_HANDSHAKE,
               "{\"sys\":{\"type\":\"c\",\"version\":\"1\"}}");
}

static inline void person_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    person *p = ctx;
    (void)why;
    pmi_conn_free(conn);
    p->conn = NULL;
}

static const pmi_conn_events person_events = {.data = person_data,
                                              .message = person_message,
                                              .open = person_open,
                                              .closed = person_closed};

/* ---- The town ---------------------------------------------------------- */

static inline void town_run(town *t, uint64_t ms)
{
    assert_true(test_world_run(&t->world, t->loop, ms * 1000));
}

static inline void town_opened(pm_app *app, pm_session *session, void *ctx)
{
    town *t = ctx;
    (void)app;
    t->last = session;
}

static inline pm_app *town_app(town *t, const char *id)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    pm_app *app;
    opts.loop = t->loop;
    opts.servers = town_servers;
    opts.servers_count = PMI_COUNT(town_servers);
    opts.server_id = id;
    opts.limits.peer_queue_bytes = t->peer_queue_bytes;
    opts.limits.client_queue_bytes = t->client_queue_bytes;
    opts.connector.push_policy = t->push_policy;
    opts.connector.scheduler = t->scheduler;
    opts.connector.heartbeat_s = t->heartbeat_s;
    assert_ok(pm_app_new(&app, &opts));
    events.session_opened = town_opened;
    assert_ok(pm_app_listen(app, &events, t));
    if (t->configure)
        t->configure(t, app);
    assert_ok(pm_app_start(app));
    return app;
}

static inline void town_open(town *t)
{
    pm_loop_opts opts = test_world_opts(&t->world, &t->heap);
    assert_ok(pm_loop_new(&t->loop, &opts));
    t->c1 = town_app(t, "c-1");
    t->c2 = town_app(t, "c-2");
    t->chat = town_app(t, "chat-1");
    town_run(t, 500); /* the first to start find the others at a second try */
}

static inline void town_close(town *t)
{
    pm_app_free(t->chat);
    pm_app_free(t->c1);
    pm_app_free(t->c2);
    for (size_t i = 0; i < t->count; i++)
        pmi_conn_free(t->people[i].conn);
    pm_loop_free(t->loop);
    assert_heap_empty(&t->heap);
}

static inline person *town_person(town *t, pm_app *front, const char *uid,
                                  pmi_framing framing)
{
    person *p = &t->people[t->count++];
    pmi_connect_opts opts = {
        .host = "127.0.0.1",
        .port = pm_app_client_port(front),
        .framing = framing,
        .memory = true,
        .limits = {.in_max = 17 * BIG, .out_max = BIG, .open_ms = 1000}};
    assert_true(t->count <= PEOPLE_MAX);
    t->last = NULL;
    assert_ok(pmi_conn_connect(t->loop, &opts, &person_events, p, &p->conn));
    town_run(t, 1);
    assert_true(p->greeted);
    assert_non_null(t->last);
    if (uid)
        assert_ok(pm_session_bind(t->last, uid, NULL, NULL));
    return p;
}

static inline person *town_enter(town *t, pm_app *front, const char *uid)
{
    return town_person(t, front, uid, PMI_FRAMING_STREAM);
}

static inline const pmi_pushes *pushes_of(const pm_app *app)
{
    return pmi_channels_pushes(pmi_app_channels(app));
}

/* ---- What is told ------------------------------------------------------ */

typedef struct receipt {
    int times;
    pm_err err;
    char missed[HEARD_MAX]; /* "alice@c-1 " */
    size_t missed_count;
    pm_app *free_this; /* from inside */
    pm_app *push_here; /* likewise */
    pm_err pushed;
} receipt;

static inline void told_cb(pm_err err, const pm_receiver *missed,
                           size_t missed_count, void *ctx)
{
    receipt *w = ctx;
    size_t len = 0;
    w->times++;
    w->err = err;
    w->missed_count = missed_count;
    if (w->push_here)
        w->pushed = pm_push_uids(w->push_here, "late", pm_body_text("{}"), NULL,
                                 0, told_cb, w);
    pm_app_free(w->free_this);
    for (size_t i = 0; i < missed_count && len < HEARD_MAX - 64; i++)
        len += (size_t)snprintf(w->missed + len, HEARD_MAX - len, "%s@%s ",
                                missed[i].uid, missed[i].frontend_id);
}

static inline void assert_told(const receipt *w, pm_err err, const char *missed)
{
    assert_int_equal(w->times, 1);
    assert_err(w->err, err);
    assert_string_equal(w->missed, missed);
}

#endif
