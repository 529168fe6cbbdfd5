/* SPDX-License-Identifier: MIT */
/* test/inn.h -- two frontends whose sessions outlive their connections, and
 * guests who speak the client's wire by hand: they come, leave, and come again
 * with a token. Start at guest_come(). */
#ifndef TEST_INN_H
#define TEST_INN_H

#include "test.h"
#include "core/conn.h"
#include "pomelo_connector_internal.h"
#include "pomelo_meter_internal.h"

enum { GUESTS_MAX = 16, KEPT = 8 * 1024, QUEUE = 64 * 1024 };

static const pm_server inn_servers[] = {
    {.id = "c-1", .type = "connector", .client_port = 3051, .frontend = true},
    {.id = "c-2", .type = "connector", .client_port = 3052, .frontend = true}};

/* Somebody who speaks the client's wire. */
typedef struct guest {
    pmi_conn *conn;
    bool gone;         /* the server has closed */
    char answer[1024]; /* to the handshake */
    char token[64];
    char heard[4096]; /* bodies of pushes and answers, each with a blank */
    size_t heard_len;
    int data; /* DATA packages */
    char kick[64];
} guest;

typedef struct inn {
    test_heap heap;
    test_world world;
    pm_loop *loop;
    bool sockets; /* not memory, where no connection lingers */
    pm_app *app, *other;
    pm_connector_opts opts; /* on top of the usual ones */
    pm_limits limits;
    guest guests[GUESTS_MAX];
    size_t count;
    pm_session *session; /* the last one that was opened; a reference */
    int opened, suspended, resumed, closed;
    pm_close_reason why, lost_why;
    pm_request *held;
    int told_number; /* of notifies that came */
    int kicked;
    pm_err kick_err;
} inn;

/* ---- Guests -------------------------------------------------------------- */

static inline void guest_say(guest *g, uint8_t type, const void *body,
                             size_t len)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    pm_slice parts[2] = {{head, sizeof head}, {body, len}};
    pmi_proto_package_head(head, type, len);
    pmi_conn_send(g->conn, parts, 2, 0);
}

/* A request with a number, a notify with 0. */
static inline void guest_ask(guest *g, uint32_t id, const char *route)
{
    uint8_t message[PMI_MESSAGE_HEAD_MAX + 2];
    size_t len = pmi_proto_message_head(
        message, id ? PMI_MESSAGE_REQUEST : PMI_MESSAGE_NOTIFY, id,
        pm_text(route), 0);
    memcpy(message + len, "{}", 2);
    guest_say(g, PMI_PACKAGE_DATA, message, len + 2);
}

static inline void guest_note(guest *g, pm_slice body)
{
    size_t room = sizeof g->heard - g->heard_len;
    int n =
        snprintf(g->heard + g->heard_len, room, "%.*s ",
                 (int)(body.len < 40 ? body.len : 3), (const char *)body.data);
    if (n > 0 && (size_t)n < room)
        g->heard_len += (size_t)n;
}

static inline void guest_hear(guest *g, const pmi_package *package)
{
    const char *body = package->body.data, *token;
    int len = (int)package->body.len;
    pmi_message msg;
    switch (package->type) {
    case PMI_PACKAGE_HANDSHAKE:
        snprintf(g->answer, sizeof g->answer, "%.*s", len, body);
        token = strstr(g->answer, "\"token\":\"");
        if (token)
            snprintf(g->token, sizeof g->token, "%.48s", token + 9);
        break;
    case PMI_PACKAGE_DATA:
        g->data++;
        assert_ok(pmi_proto_message_decode(package->body, &msg));
        guest_note(g, msg.body);
        break;
    case PMI_PACKAGE_KICK:
        snprintf(g->kick, sizeof g->kick, "%.*s", len, body);
        break;
    default:
        break;
    }
}

static inline size_t guest_data(pmi_conn *conn, uint8_t *data, size_t len,
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
        guest_hear(ctx, &package);
    }
    return used;
}

static inline void guest_closed(pmi_conn *conn, pm_close_reason reason,
                                void *ctx)
{
    guest *g = ctx;
    (void)reason;
    pmi_conn_free(conn);
    g->conn = NULL;
    g->gone = true;
}

static const pmi_conn_events guest_events = {.data = guest_data,
                                             .closed = guest_closed};

static inline void inn_run(inn *i, uint64_t ms)
{
    if (!i->sockets) {
        assert_true(test_world_run(&i->world, i->loop, ms * 1000));
        return;
    }
    for (uint64_t n = 0; n < 4 * ms; n++) {
        pm_loop_poll(i->loop, 0);
        i->world.now_us += 250;
    }
}

/* Comes in and says nothing. */
static inline guest *guest_knock(inn *i, uint16_t port)
{
    guest *g = &i->guests[i->count++];
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = port,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = !i->sockets};
    assert_true(i->count <= GUESTS_MAX);
    if (i->sockets)
        opts.port = pm_app_client_port(port == 3051 ? i->app : i->other);
    assert_ok(pmi_conn_connect(i->loop, &opts, &guest_events, g, &g->conn));
    return g;
}

/* Says this as its sys and user parts. */
static inline void guest_shake(guest *g, const char *sys, const char *user)
{
    char text[1024];
    snprintf(text, sizeof text, "{\"sys\":%s%s%s}", sys,
             user ? ",\"user\":" : "", user ? user : "");
    guest_say(g, PMI_PACKAGE_HANDSHAKE, text, strlen(text));
}

static inline guest *guest_greet_as(inn *i, uint16_t port, const char *sys,
                                    const char *user)
{
    guest *g = guest_knock(i, port);
    if (i->sockets)
        inn_run(i, 2);
    guest_shake(g, sys, user);
    inn_run(i, 2);
    return g;
}

static inline guest *guest_greet(inn *i, uint16_t port, const char *user)
{
    return guest_greet_as(i, port, "{}", user);
}

static inline void guest_ack(inn *i, guest *g)
{
    guest_say(g, PMI_PACKAGE_ACK, NULL, 0);
    inn_run(i, 2);
}

static inline guest *guest_come(inn *i)
{
    guest *g = guest_greet(i, 3051, "{\"__resume__\":{}}");
    guest_ack(i, g);
    assert_int_equal(strlen(g->token), 48);
    return g;
}

/* Shows the token of another one, and what that one has. */
static inline void guest_show(guest *g, const char *token, int received)
{
    char user[256];
    snprintf(user, sizeof user,
             "{\"__resume__\":{\"token\":\"%s\",\"received\":%d}}", token,
             received);
    guest_shake(g, "{}", user);
}

/* Comes with it. */
static inline guest *guest_claim(inn *i, const char *token, int received)
{
    guest *g = guest_knock(i, 3051);
    if (i->sockets)
        inn_run(i, 2);
    guest_show(g, token, received);
    inn_run(i, 2);
    return g;
}

static inline guest *guest_return(inn *i, const guest *before)
{
    guest *g = guest_claim(i, before->token, before->data);
    assert_non_null(strstr(g->answer, "\"resumed\":true"));
    guest_ack(i, g);
    g->data += before->data;
    return g;
}

static inline void guest_leave(inn *i, guest *g)
{
    pmi_conn_free(g->conn);
    g->conn = NULL;
    inn_run(i, 2);
}

static inline void assert_refused(const guest *g, const char *why)
{
    char text[64];
    snprintf(text, sizeof text, "\"resumed\":false,\"why\":\"%s\"", why);
    assert_non_null(strstr(g->answer, text));
}

/* ---- The inn ------------------------------------------------------------- */

static inline void on_opened(pm_app *app, pm_session *session, void *ctx)
{
    inn *i = ctx;
    (void)app;
    i->opened++;
    pm_session_unref(i->session);
    i->session = session;
    pm_session_ref(session);
}

static inline void on_closed(pm_app *app, pm_session *session,
                             pm_close_reason why, void *ctx)
{
    inn *i = ctx;
    (void)app;
    assert_true(pm_session_is_closed(session));
    assert_err(pm_session_push(session, "on", pm_body_text("1")), PM_ECLOSED);
    i->closed++;
    i->why = why;
}

static inline void on_suspended(pm_app *app, pm_session *session,
                                pm_close_reason why, void *ctx)
{
    inn *i = ctx;
    (void)app;
    assert_false(pm_session_is_closed(session));
    i->suspended++;
    i->lost_why = why;
}

static inline void on_resumed(pm_app *app, pm_session *session, void *ctx)
{
    inn *i = ctx;
    (void)app;
    assert_false(pm_session_is_closed(session));
    i->resumed++;
}

static inline void on_hold(pm_request *req, void *ctx)
{
    ((inn *)ctx)->held = req;
}

static inline void on_echo(pm_request *req, void *ctx)
{
    (void)ctx;
    pm_reply_text(req, "echo");
}

static inline void on_tell(pm_request *req, void *ctx)
{
    ((inn *)ctx)->told_number++;
    pm_request_drop(req);
}

static inline pm_app *inn_app(inn *i, const char *id)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    pm_server servers[PMI_COUNT(inn_servers)];
    pm_app *app;
    memcpy(servers, inn_servers, sizeof servers);
    if (i->sockets)
        servers[0].client_port = servers[1].client_port = 0;
    opts.loop = i->loop;
    opts.servers = servers;
    opts.servers_count = PMI_COUNT(servers);
    opts.server_id = id;
    opts.connector = i->opts;
    opts.limits = i->limits;
    assert_ok(pm_app_new(&app, &opts));
    events.session_opened = on_opened;
    events.session_closed = on_closed;
    events.session_suspended = on_suspended;
    events.session_resumed = on_resumed;
    assert_ok(pm_app_listen(app, &events, i));
    assert_ok(pm_app_handler(app, "connector.h.hold", on_hold, i));
    assert_ok(pm_app_handler(app, "connector.h.echo", on_echo, i));
    assert_ok(pm_app_handler(app, "connector.h.tell", on_tell, i));
    assert_ok(pm_app_start(app));
    return app;
}

static inline inn *inn_new(void)
{
    inn *i = calloc(1, sizeof *i);
    assert_non_null(i);
    i->opts.resume_ms = 10 * 1000;
    i->opts.resume_bytes = KEPT;
    i->limits.client_queue_bytes = QUEUE;
    return i;
}

static inline void inn_start(inn *i)
{
    pm_loop_opts opts = test_world_opts(&i->world, &i->heap);
    opts.memory_only = !i->sockets;
    assert_ok(pm_loop_new(&i->loop, &opts));
    i->app = inn_app(i, "c-1");
    i->other = inn_app(i, "c-2");
    inn_run(i, 10);
}

static inline inn *inn_open(void)
{
    inn *i = inn_new();
    inn_start(i);
    return i;
}

static inline void inn_close(inn *i)
{
    pm_app_free(i->app);
    pm_app_free(i->other);
    pm_session_unref(i->session);
    for (size_t g = 0; g < i->count; g++)
        pmi_conn_free(i->guests[g].conn);
    assert_int_equal(i->opened, i->closed);
    assert_ok(pm_loop_free(i->loop));
    assert_heap_empty(&i->heap);
    free(i);
}

static inline void inn_push(inn *i, const char *text)
{
    assert_ok(pm_session_push(i->session, "on", pm_body_text(text)));
}

static inline pm_err inn_push_large(inn *i, size_t len)
{
    char *text = malloc(len + 1);
    pm_err err;
    assert_non_null(text);
    memset(text, '7', len);
    text[len] = 0;
    err = pm_session_push(i->session, "on", pm_body_text(text));
    free(text);
    return err;
}

static inline uint64_t inn_closed_for(const inn *i, pm_close_reason why)
{
    return pmi_connector_closed(pmi_app_connector(i->app))[why];
}

#endif
