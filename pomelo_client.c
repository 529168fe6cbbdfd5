/* SPDX-License-Identifier: MIT */
/* pomelo_client.c -- the other end of the wire: for bots, tests, games in C.
 *
 *   IDLE --dial--> CONNECTING --open, handshake--> GREETING --answer, ACK-->
 *   WORKING --lost, kicked, disconnect--> CLOSING --closed--> IDLE
 *
 * From every state the way down is the same: the connection's `closed`, which
 * comes on a later turn, completes the requests, then tells `disconnected`,
 * then perhaps waits for the next try. No callback of the host runs anywhere
 * else than in the connection's and the timers' events, pm_client_free
 * excepted.
 *
 * Any callback may free the client. It is then marked, and stays in memory
 * until the stack has unwound: who calls out looks at the mark (client_gone).
 *
 * Heartbeats follow the browser's client: a beat of the server is answered
 * after the interval, then something must be heard within twice the interval.
 * Unlike there, silence is also noticed before the first beat.
 * Start reading at client_package(). */
#include "pomelo_client_internal.h"

#include "core/conn.h"
#include "core/tls.h"

#include <cjson/cJSON.h>

enum {
    CLIENT_CONNECT_MS = 10000,
    CLIENT_REQUEST_MS = 30000,
    CLIENT_RETRY_MIN_MS = 100,
    CLIENT_RETRY_MAX_MS = 10000,
    CLIENT_RETRY_STEPS = 7, /* doublings until the longest pause */
    CLIENT_PENDING_MAX = 65536,
    CLIENT_OUT_MAX = 2 * (PMI_PACKAGE_BODY_MAX + 1)
};
/* The parsed form of a schema nests twice as deep as its source. */
#define CLIENT_ANSWER_DEPTH (2 * PMI_JSON_DEPTH_MAX + 8)
#define CLIENT_BEAT_MIN_US 1000.0
#define CLIENT_BEAT_MAX_US 1e12
#define CLIENT_CODE_OLD 501

typedef enum client_state {
    CLIENT_IDLE, /* between two tries, or for good */
    CLIENT_CONNECTING,
    CLIENT_GREETING, /* our handshake is sent */
    CLIENT_WORKING,
    CLIENT_CLOSING /* `closed` is on its way */
} client_state;

typedef struct client_request {
    pmi_link link; /* in order of `due_us`, for all wait equally long */
    uint64_t due_us;
    uint32_t id;
    uint64_t number; /* of its package, for resuming */
    pm_client_cb cb;
    void *ctx;
    size_t route_len;
    char route[]; /* the answer's schema goes by it */
} client_request;

struct pm_client {
    pm_loop *loop; /* borrowed */
    const pmi_env *env;
    pm_client_opts opts;
    char *host, *name;             /* owned; name: of the certificate */
    pmi_tls_realm *tls;            /* a reference; NULL: plain */
    pmi_buf hello_head, hello_end; /* of the handshake: what never changes */
    pmi_client_lore lore;
    pmi_client_resume resume;
    pmi_conn *conn; /* NULL: IDLE */
    client_state state;
    pm_close_reason why; /* of our own closing; NONE: the other side's */
    int handshake_code;
    bool stopped; /* no further try */
    bool freed;
    bool beat_due; /* `timer` waits to send a beat, not to hear one */
    uint32_t tries;
    uint32_t next_id;
    uint64_t interval_us; /* of heartbeats; 0: none */
    uint64_t heard_us;    /* when the last package came, or the beat went */
    pmi_timer timer;      /* by state: next try, connecting, heartbeat */
    pmi_timer deadline;   /* of the first request */
    pmi_link waiting;     /* requests */
    pmi_map pending;      /* id -> request, the same ones */
    pmi_task grave;
};

static void client_dial(pm_client *client);

/* Is there nothing more to do on this connection? */
static bool client_gone(const pm_client *client)
{
    return client->freed || client->state == CLIENT_CLOSING ||
           client->state == CLIENT_IDLE;
}

/* The first reason stays. */
static void client_close(pm_client *client, pm_close_reason why)
{
    if (client_gone(client))
        return;
    if (!pmi_client_resume_survives(why))
        client->resume.token[0] = 0;
    client->why = why;
    client->state = CLIENT_CLOSING;
    pmi_timer_clear(&client->timer);
    pmi_conn_close(client->conn, why, false, 0);
}

/* ---- Requests ---------------------------------------------------------- */
/* Taken out before the callback runs: it may free the client. */
static void client_complete(pm_client *client, client_request *request,
                            pm_err err, pm_body body)
{
    const pmi_env *env = client->env;
    pmi_list_remove(&request->link);
    pmi_map_remove_num(&client->pending, request->id);
    request->cb(client, err, body, request->ctx);
    pmi_free(env, request);
}

/* Also when a callback frees the client meanwhile: then that has completed the
 * rest, and the list is empty. */
static void client_fail_all(pm_client *client)
{
    while (!pmi_list_empty(&client->waiting))
        client_complete(client,
                        PMI_OUTER(client->waiting.next, client_request, link),
                        PM_ECLOSED, pm_body_none());
    pmi_timer_clear(&client->deadline);
}

static void client_expire(pmi_timer *timer)
{
    pm_client *client = PMI_OUTER(timer, pm_client, deadline);
    uint64_t now = pmi_loop_now_us(client->loop);
    while (!pmi_list_empty(&client->waiting)) {
        client_request *first =
            PMI_OUTER(client->waiting.next, client_request, link);
        if (first->due_us > now) {
            pmi_timer_set(client->loop, timer, first->due_us - now,
                          client_expire);
            return;
        }
        client_complete(client, first, PM_ETIMEOUT, pm_body_none());
    }
}

/* Ids go round; one that still waits is passed over. */
static uint32_t client_next_id(pm_client *client)
{
    do
        client->next_id = client->next_id < INT32_MAX ? client->next_id + 1 : 1;
    while (pmi_map_get_num(&client->pending, client->next_id));
    return client->next_id;
}

static pm_err client_request_new(pm_client *client, pm_slice route,
                                 pm_client_cb cb, void *ctx,
                                 client_request **out)
{
    if (pmi_map_count(&client->pending) >= CLIENT_PENDING_MAX)
        return PM_ELIMIT;
    client_request *request =
        pmi_zalloc(client->env, sizeof *request + route.len);
    if (!request)
        return PM_ENOMEM;
    request->id = client_next_id(client);
    request->cb = cb;
    request->ctx = ctx;
    request->route_len = route.len;
    memcpy(request->route, route.data, route.len);
    pm_err err = pmi_map_put_num(&client->pending, request->id, request, NULL);
    if (err != PM_OK) {
        pmi_free(client->env, request);
        return err;
    }
    *out = request;
    return PM_OK;
}

static void client_request_await(pm_client *client, client_request *request)
{
    uint64_t wait = (uint64_t)client->opts.request_ms * 1000;
    request->due_us = pmi_loop_now_us(client->loop) + wait;
    pmi_list_add(&client->waiting, &request->link);
    if (!pmi_timer_is_set(&client->deadline))
        pmi_timer_set(client->loop, &client->deadline, wait, client_expire);
}

/* ---- Sending ----------------------------------------------------------- */
/* Up to two parts behind the head. */
static pm_err client_package_send(pm_client *client, uint8_t type,
                                  pm_slice first, pm_slice second,
                                  unsigned flags)
{
    uint8_t head[PMI_PACKAGE_HEAD];
    pm_slice parts[3] = {{head, sizeof head}, first, second};
    size_t len;
    if (!pmi_add_size(first.len, second.len, &len) ||
        len > PMI_PACKAGE_BODY_MAX)
        return PM_ESIZE;
    pmi_proto_package_head(head, type, len);
    pm_err err = pmi_conn_send(client->conn, parts, PMI_COUNT(parts), flags);
    return err == PM_ECLOSED ? PM_ESTATE : err;
}

static pm_err client_say(pm_client *client, uint8_t type, unsigned flags)
{
    pm_slice none = {NULL, 0};
    return client_package_send(client, type, none, none, flags);
}

/* Is there a session, with or without a connection? */
static bool client_has_session(const pm_client *client)
{
    return client->resume.token[0] && !client->stopped && !client->freed;
}

/* A DATA package: sent, kept for being sent again, or both. *number is its
 * place among those of the session. */
static pm_err client_data_send(pm_client *client, pm_slice head, pm_slice body,
                               uint64_t *number)
{
    uint8_t package[PMI_PACKAGE_HEAD];
    pm_slice parts[3] = {{package, sizeof package}, head, body};
    pmi_window *window = &client->resume.window;
    bool connected = pm_client_is_connected(client);
    pm_err err = PM_OK;
    if (connected)
        err = client_package_send(client, PMI_PACKAGE_DATA, head, body, 0);
    else if (head.len + body.len > PMI_PACKAGE_BODY_MAX)
        err = PM_ESIZE;
    else if (!pmi_window_fits(window, PMI_PACKAGE_HEAD + head.len + body.len))
        err = PM_ELIMIT;
    if (err != PM_OK || !client_has_session(client))
        return err;
    pmi_proto_package_head(package, PMI_PACKAGE_DATA, head.len + body.len);
    err = pmi_window_add(window, parts, PMI_COUNT(parts), NULL);
    if (err != PM_OK && connected) {
        pmi_window_skip(window); /* it is on its way, if not for ever */
        err = PM_OK;
    }
    *number = window->last;
    return err;
}

static pm_err client_message_send(pm_client *client, uint8_t type, uint32_t id,
                                  pm_slice route, pm_body body,
                                  uint64_t *number)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    size_t head_len = pmi_proto_message_head(
        head, type, id, route, pmi_client_lore_code(&client->lore, route));
    pmi_buf store;
    pm_slice bytes;
    pmi_buf_init(&store, client->env, SIZE_MAX);
    pm_err err =
        pmi_client_lore_encode(&client->lore, route, body, &store, &bytes);
    if (err == PM_OK)
        err = client_data_send(client, pm_bytes(head, head_len), bytes, number);
    pmi_buf_fini(&store);
    return err;
}

/* Arguments of request and notify. */
static pm_err client_check(const pm_client *client, const char *route,
                           const pm_body *body)
{
    if (!client || !route || !*route || strlen(route) > PMI_ROUTE_MAX ||
        (unsigned)body->kind > PM_BODY_PROTO ||
        (body->kind != PM_BODY_NONE && body->data.len && !body->data.data))
        return PM_EINVAL;
    return pm_client_is_connected(client) || client_has_session(client)
               ? PM_OK
               : PM_ESTATE;
}

pm_err pm_client_request(pm_client *client, const char *route, pm_body body,
                         pm_client_cb cb, void *ctx)
{
    client_request *request = NULL;
    pm_err err = cb ? client_check(client, route, &body) : PM_EINVAL;
    if (err == PM_OK)
        err = client_request_new(client, pm_text(route), cb, ctx, &request);
    if (err != PM_OK)
        return err;
    err = client_message_send(client, PMI_MESSAGE_REQUEST, request->id,
                              pm_text(route), body, &request->number);
    if (err != PM_OK) {
        pmi_map_remove_num(&client->pending, request->id);
        pmi_free(client->env, request);
        return err;
    }
    client_request_await(client, request);
    return PM_OK;
}

pm_err pm_client_notify(pm_client *client, const char *route, pm_body body)
{
    pm_err err = client_check(client, route, &body);
    uint64_t number;
    if (err != PM_OK)
        return err;
    return client_message_send(client, PMI_MESSAGE_NOTIFY, 0, pm_text(route),
                               body, &number);
}

/* ---- Heartbeat --------------------------------------------------------- */
static void client_beat(pmi_timer *timer);

static void client_beat_later(pm_client *client, uint64_t us)
{
    pmi_timer_set(client->loop, &client->timer, us, client_beat);
}

static void client_beat(pmi_timer *timer)
{
    pm_client *client = PMI_OUTER(timer, pm_client, timer);
    uint64_t now = pmi_loop_now_us(client->loop);
    uint64_t patience = 2 * client->interval_us;
    if (client->beat_due) {
        client->beat_due = false;
        client->heard_us = now;
        /* One that can not be sent is missed by the server, not by us. */
        client_say(client, PMI_PACKAGE_HEARTBEAT, PMI_SEND_URGENT);
        client_beat_later(client, patience);
    } else if (now - client->heard_us < patience) {
        client_beat_later(client, client->heard_us + patience - now);
    } else {
        client_close(client, PM_CLOSE_HEARTBEAT);
    }
}

/* The server's beat. Several of them are answered once. */
static void client_heartbeat(pm_client *client)
{
    if (!client->interval_us || client->beat_due)
        return;
    client->beat_due = true;
    client_beat_later(client, client->interval_us);
}

/* sys.heartbeat: seconds, maybe with a fraction; none when it makes no sense.
 */
static uint64_t client_interval_us(const cJSON *heartbeat)
{
    double us = cJSON_IsNumber(heartbeat) ? heartbeat->valuedouble * 1e6 : 0.0;
    if (!(us > 0))
        return 0;
    if (us < CLIENT_BEAT_MIN_US)
        us = CLIENT_BEAT_MIN_US;
    return (uint64_t)(us < CLIENT_BEAT_MAX_US ? us : CLIENT_BEAT_MAX_US);
}

/* ---- Handshake --------------------------------------------------------- */
static void client_greet(pm_client *client)
{
    pmi_buf hello;
    pm_err err = PM_ENOMEM;
    pmi_buf_init(&hello, client->env, PMI_PACKAGE_BODY_MAX);
    pmi_buf_add(&hello, client->hello_head.data, client->hello_head.len);
    pmi_client_lore_tell(&client->lore, &hello);
    pmi_buf_add_byte(&hello, '}');
    if (client->opts.resume) {
        pmi_buf_add_text(&hello, ",\"user\":{");
        pmi_client_resume_tell(&client->resume, &hello);
    }
    pmi_buf_add(&hello, client->hello_end.data, client->hello_end.len);
    if (!hello.failed)
        err = client_package_send(client, PMI_PACKAGE_HANDSHAKE,
                                  pmi_buf_slice(&hello), pm_bytes(NULL, 0), 0);
    pmi_buf_fini(&hello);
    if (err == PM_OK)
        client->state = CLIENT_GREETING;
    else
        client_close(client, PM_CLOSE_MEMORY);
}

/* The server says no. */
static void client_refused(pm_client *client, const cJSON *code)
{
    double number = cJSON_IsNumber(code) ? code->valuedouble : 0;
    bool old = number == CLIENT_CODE_OLD;
    if (old || number == 500)
        client->handshake_code = (int)number;
    client_close(client, old ? PM_CLOSE_CHECK_CLIENT : PM_CLOSE_HANDSHAKE);
}

/* What was there before is over, although we are connected: a session of its
 * own begins. */
static void client_begin_anew(pm_client *client)
{
    pmi_client_resume_forget(&client->resume);
    client_fail_all(client);
    if (!client_gone(client) && client->opts.events.disconnected)
        client->opts.events.disconnected(client, PM_CLOSE_RESUME, 0,
                                         client->opts.ctx);
}

static void client_tell_connected(pm_client *client, const cJSON *answer,
                                  bool resumed)
{
    const pm_client_events *events = &client->opts.events;
    const cJSON *user = pmi_json_get(answer, "user");
    if (client->opts.resume && user && !user->child)
        user = NULL; /* there was nothing but our own word */
    if (!resumed && events->connected)
        events->connected(client, user, client->opts.ctx);
    else if (resumed && events->resumed)
        events->resumed(client, client->opts.ctx);
}

static void client_welcomed(pm_client *client, cJSON *answer)
{
    const cJSON *sys = pmi_json_get(answer, "sys");
    bool resumed = false;
    pm_err err = pmi_client_lore_learn(&client->lore, sys);
    if (err == PM_OK && pmi_client_resume_over(&client->resume, answer)) {
        client_begin_anew(client);
        if (client_gone(client))
            return;
    }
    if (err == PM_OK && client->opts.resume)
        err = pmi_client_resume_learn(&client->resume, answer, &resumed);
    if (err == PM_EHANDSHAKE)
        client->resume.token[0] = 0;
    if (err == PM_OK)
        err = client_say(client, PMI_PACKAGE_ACK, 0);
    if (err != PM_OK) {
        client_close(client, err == PM_EHANDSHAKE ? PM_CLOSE_HANDSHAKE
                                                  : PM_CLOSE_MEMORY);
        return;
    }
    client->state = CLIENT_WORKING;
    client->tries = 0;
    client->interval_us = client_interval_us(pmi_json_get(sys, "heartbeat"));
    client->beat_due = false;
    pmi_timer_clear(&client->timer);
    if (client->interval_us)
        client_beat_later(client, 2 * client->interval_us);
    client->resume.suspended = false;
    if (resumed &&
        pmi_client_resume_replay(&client->resume, client->conn) != PM_OK)
        client_close(client, PM_CLOSE_MEMORY);
    client_tell_connected(client, answer, resumed);
}

static void client_handshake(pm_client *client, pm_slice body)
{
    cJSON *answer = NULL;
    pm_err err =
        pmi_json_parse(client->env, body, CLIENT_ANSWER_DEPTH, &answer, NULL);
    if (err != PM_OK) {
        client_close(client,
                     err == PM_ENOMEM ? PM_CLOSE_MEMORY : PM_CLOSE_HANDSHAKE);
        return;
    }
    const cJSON *code = pmi_json_get(answer, "code");
    if (cJSON_IsNumber(code) && code->valuedouble == 200)
        client_welcomed(client, answer);
    else
        client_refused(client, code);
    cJSON_Delete(answer);
}

/* ---- What the server sends --------------------------------------------- */
static void client_response(pm_client *client, const pmi_message *msg)
{
    client_request *request = pmi_map_get_num(&client->pending, msg->id);
    const pmi_env *env = client->env;
    pmi_buf store;
    pm_body body;
    if (!request)
        return; /* late, or nobody's */
    /* It has come there, and so has all before it. */
    pmi_window_trim(&client->resume.window, request->number);
    pmi_buf_init(&store, env, SIZE_MAX);
    pm_err err = pmi_client_lore_decode(
        &client->lore, pm_bytes(request->route, request->route_len), msg->body,
        &store, &body);
    client_complete(client, request, err, err == PM_OK ? body : pm_body_none());
    pmi_buf_fini(&store);
}

/* The route as text; false: there is none that could be told. */
static bool client_push_route(const pm_client *client, const pmi_message *msg,
                              char out[PMI_ROUTE_MAX + 1])
{
    pm_slice route = msg->route;
    if (msg->compressed)
        route = pm_text(pmi_client_lore_route(&client->lore, msg->code));
    if (!route.len || memchr(route.data, 0, route.len))
        return false;
    memcpy(out, route.data, route.len);
    out[route.len] = 0;
    return true;
}

/* For want of memory: it may come again. */
static void client_push_lost(pm_client *client)
{
    client->resume.received--;
    client_close(client, PM_CLOSE_MEMORY);
}

static void client_push(pm_client *client, const pmi_message *msg)
{
    char route[PMI_ROUTE_MAX + 1];
    const pmi_env *env = client->env;
    pmi_buf store;
    pm_body body;
    if (!client->opts.events.pushed)
        return;
    if (!client_push_route(client, msg, route)) {
        PMI_LOG(env, PM_LOG_WARN, "client", "a push without a known route");
        return;
    }
    pmi_buf_init(&store, env, SIZE_MAX);
    pm_err err = pmi_client_lore_decode(&client->lore, pm_text(route),
                                        msg->body, &store, &body);
    if (err == PM_OK)
        client->opts.events.pushed(client, route, body, client->opts.ctx);
    else if (err == PM_ENOMEM)
        client_push_lost(client);
    else
        PMI_LOG(env, PM_LOG_WARN, "client", "a push was dropped: %s",
                pm_strerror(err));
    pmi_buf_fini(&store);
}

/* What only servers are sent is ignored. */
static void client_message(pm_client *client, pm_slice body)
{
    pmi_message msg;
    client->resume.received++;
    if (pmi_proto_message_decode(body, &msg) != PM_OK)
        client_close(client, PM_CLOSE_MESSAGE);
    else if (msg.type == PMI_MESSAGE_RESPONSE)
        client_response(client, &msg);
    else if (msg.type == PMI_MESSAGE_PUSH)
        client_push(client, &msg);
}

/* The server closes behind its kick; we do not wait for it. */
static void client_kick(pm_client *client, pm_slice body)
{
    cJSON *tree = NULL;
    const cJSON *reason = NULL;
    bool told = client->state == CLIENT_WORKING && client->opts.events.kicked;
    client_close(client, PM_CLOSE_KICK);
    if (!told)
        return;
    if (pmi_json_parse(client->env, body, PMI_JSON_DEPTH_MAX, &tree, NULL) ==
        PM_OK)
        reason = pmi_json_get(tree, "reason");
    client->opts.events.kicked(
        client, cJSON_IsString(reason) ? reason->valuestring : "",
        client->opts.ctx);
    cJSON_Delete(tree);
}

static void client_package(pm_client *client, const pmi_package *package)
{
    bool working = client->state == CLIENT_WORKING;
    client->heard_us = pmi_loop_now_us(client->loop);
    switch (package->type) {
    case PMI_PACKAGE_HANDSHAKE:
        if (client->state == CLIENT_GREETING)
            client_handshake(client, package->body);
        break;
    case PMI_PACKAGE_HEARTBEAT:
        if (working)
            client_heartbeat(client);
        break;
    case PMI_PACKAGE_DATA:
        if (working)
            client_message(client, package->body);
        break;
    case PMI_PACKAGE_KICK:
        client_kick(client, package->body);
        break;
    default: /* an ACK is for servers */
        break;
    }
}

/* ---- The connection's events ------------------------------------------- */
static void client_open(pmi_conn *conn, void *ctx)
{
    (void)conn;
    client_greet(ctx);
}

/* The first package, if it is whole. Returns the bytes that are used up, 0 for
 * none; the client is gone when they make no sense. */
static size_t client_first(pm_client *client, const uint8_t *data, size_t len)
{
    pmi_package package;
    long n =
        pmi_proto_package_decode(data, len, PMI_PACKAGE_BODY_MAX, &package);
    if (n < 0)
        client_close(client, PM_CLOSE_PACKAGE);
    if (n <= 0)
        return 0;
    client_package(client, &package);
    return (size_t)n;
}

static size_t client_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    pm_client *client = ctx;
    size_t used = 0, n;
    /* A large package on a slow line is no silence. */
    client->heard_us = pmi_loop_now_us(client->loop);
    while (used < len) {
        n = client_first(client, data + used, len - used);
        used += n;
        if (client_gone(client))
            return len;
        if (n == 0)
            break;
        if (used < len && pmi_loop_over_budget(client->loop)) {
            pmi_conn_pause(conn); /* the rest comes in the next turn */
            pmi_conn_resume(conn);
            break;
        }
    }
    return used;
}

/* Several packages in one message are the buffer scheduler's habit; half of
 * one is nobody's. */
static void client_frame(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                         void *ctx)
{
    pm_client *client = ctx;
    size_t used = 0;
    (void)conn;
    (void)text;
    while (used < len && !client_gone(client)) {
        size_t n = client_first(client, data + used, len - used);
        used += n;
        if (n == 0)
            client_close(client, PM_CLOSE_PACKAGE);
    }
}

/* What the connection calls the client is the peer, here: the server. */
static pm_close_reason client_reason(const pm_client *client,
                                     pm_close_reason reason)
{
    if (client->why != PM_CLOSE_NONE)
        return client->why;
    return reason == PM_CLOSE_CLIENT ? PM_CLOSE_SERVER : reason;
}

static void client_retry(pmi_timer *timer)
{
    client_dial(PMI_OUTER(timer, pm_client, timer));
}

/* Twice as long each time, and a random part of it, so that those who were cut
 * off together do not come back together. */
static uint64_t client_retry_us(pm_client *client)
{
    uint64_t steps = pmi_min(client->tries, CLIENT_RETRY_STEPS);
    uint64_t most = (uint64_t)CLIENT_RETRY_MIN_MS * 1000 << (steps + 1);
    if (most > (uint64_t)CLIENT_RETRY_MAX_MS * 1000)
        most = (uint64_t)CLIENT_RETRY_MAX_MS * 1000;
    return most / 2 + pmi_loop_random_u64(client->loop) % (most / 2);
}

/* Does the session go on without a connection? Told once. */
static bool client_goes_on(pm_client *client, pm_close_reason reason)
{
    uint64_t now = pmi_loop_now_us(client->loop);
    pmi_client_resume *resume = &client->resume;
    if (!client_has_session(client) || !pmi_client_resume_survives(reason))
        return false;
    if (!resume->suspended)
        resume->due_us = now + (uint64_t)resume->ms * 1000;
    return now < resume->due_us;
}

static void client_tell_lost(pm_client *client, pm_close_reason reason,
                             int code, bool goes_on)
{
    const pm_client_events *events = &client->opts.events;
    bool known = client->resume.suspended;
    client->resume.suspended = goes_on;
    if (!goes_on && events->disconnected)
        events->disconnected(client, reason, code, client->opts.ctx);
    else if (goes_on && !known && events->suspended)
        events->suspended(client, reason, client->opts.ctx);
}

/* The end of a connection, or of a try to make one. */
static void client_lost(pm_client *client, pm_close_reason reason)
{
    bool goes_on = client_goes_on(client, reason);
    int code = client->handshake_code;
    client->handshake_code = 0;
    client->why = PM_CLOSE_NONE;
    client->conn = NULL;
    client->state = CLIENT_IDLE;
    pmi_timer_clear(&client->timer);
    if (!goes_on) {
        pmi_client_resume_forget(&client->resume);
        client_fail_all(client);
    }
    if (client->freed)
        return;
    PMI_LOG(client->env, PM_LOG_DEBUG, "client", "disconnected: %s",
            pm_close_text(reason));
    if (client->opts.reconnect && !client->stopped) {
        pmi_timer_set(client->loop, &client->timer, client_retry_us(client),
                      client_retry);
        client->tries++;
    }
    client_tell_lost(client, reason, code, goes_on);
}

/* pm_client_disconnect, between two tries to resume. */
static void client_give_up(pmi_timer *timer)
{
    client_lost(PMI_OUTER(timer, pm_client, timer), PM_CLOSE_CLIENT);
}

static void client_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    pm_client *client = ctx;
    pmi_conn_free(conn);
    client_lost(client, client_reason(client, reason));
}

static const pmi_conn_events client_events = {.data = client_data,
                                              .message = client_frame,
                                              .open = client_open,
                                              .closed = client_closed};

/* ---- Connecting -------------------------------------------------------- */
static void client_late(pmi_timer *timer)
{
    client_close(PMI_OUTER(timer, pm_client, timer),
                 PM_CLOSE_HANDSHAKE_TIMEOUT);
}

static pm_err client_connect(pm_client *client)
{
    pmi_connect_opts opts = {0};
    opts.host = client->host;
    opts.port = client->opts.port;
    opts.framing = client->opts.transport == PM_TRANSPORT_WS
                       ? PMI_FRAMING_WS
                       : PMI_FRAMING_STREAM;
    opts.memory = client->opts.transport == PM_TRANSPORT_MEMORY;
    opts.from = "client";
    opts.tls = client->tls;
    opts.tls_name = client->name;
    opts.limits.in_max = PMI_PACKAGE_HEAD + PMI_PACKAGE_BODY_MAX;
    opts.limits.out_max = CLIENT_OUT_MAX;
    pm_err err = pmi_conn_connect(client->loop, &opts, &client_events, client,
                                  &client->conn);
    if (err != PM_OK)
        return err;
    client->state = CLIENT_CONNECTING;
    pmi_timer_set(client->loop, &client->timer,
                  (uint64_t)client->opts.connect_ms * 1000, client_late);
    return PM_OK;
}

/* Another try, from the timer. */
static void client_dial(pm_client *client)
{
    pm_err err = client_connect(client);
    if (err != PM_OK)
        client_lost(client,
                    err == PM_ENOMEM ? PM_CLOSE_MEMORY : PM_CLOSE_CONNECT);
}

/* ---- Life -------------------------------------------------------------- */
static pm_err client_opts_read(pm_client_opts *out, const pm_client_opts *opts)
{
    pm_client_opts o = pm_client_opts_default();
    if (!opts || !opts->size || opts->size > sizeof o)
        return PM_EINVAL;
    memcpy(&o, opts, opts->size);
    if (!o.loop || !o.port || (unsigned)o.transport > PM_TRANSPORT_MEMORY)
        return PM_EINVAL;
    if (o.resume && (!o.reconnect || (o.user && !cJSON_IsObject(o.user))))
        return PM_EINVAL;
    if (!o.connect_ms)
        o.connect_ms = CLIENT_CONNECT_MS;
    if (!o.request_ms)
        o.request_ms = CLIENT_REQUEST_MS;
    if (!o.host)
        o.host = "127.0.0.1";
    if (!o.type)
        o.type = "c";
    if (!o.version)
        o.version = PM_VERSION;
    *out = o;
    return PM_OK;
}

static pm_err client_prepare_hello(pm_client *client)
{
    pmi_buf *head = &client->hello_head, *end = &client->hello_end;
    pm_err err = PM_OK;
    pmi_buf_add_text(head, "{\"sys\":{\"type\":");
    pmi_json_add_string(head, pm_text(client->opts.type));
    pmi_buf_add_text(head, ",\"version\":");
    pmi_json_add_string(head, pm_text(client->opts.version));
    if (client->opts.user) {
        if (!client->opts.resume)
            pmi_buf_add_text(end, ",\"user\":");
        err = pmi_json_print(client->opts.user, PMI_JSON_DEPTH_MAX, end);
    }
    if (err == PM_OK && client->opts.resume)
        pmi_client_resume_join(end);
    pmi_buf_add_byte(end, '}');
    if (err == PM_OK && (head->failed || end->failed))
        err = PM_ENOMEM;
    return err;
}

static void client_fini(pm_client *client)
{
    const pmi_env *env = client->env;
    pmi_client_lore_fini(&client->lore);
    pmi_window_fini(&client->resume.window);
    pmi_map_fini(&client->pending);
    pmi_buf_fini(&client->hello_head);
    pmi_buf_fini(&client->hello_end);
    pmi_tls_realm_unref(client->tls);
    pmi_free(env, client->name);
    pmi_free(env, client->host);
    pmi_free(env, client);
}

static pm_err client_secure(pm_client *client)
{
    const pm_client_tls *tls = &client->opts.tls;
    pmi_tls_setup setup = {.cert = tls->cert,
                           .key = tls->key,
                           .ca = tls->ca,
                           .client = true,
                           .insecure = tls->insecure,
                           .tickets = true};
    if (!tls->on || client->opts.transport == PM_TRANSPORT_MEMORY)
        return PM_OK;
    client->name =
        pmi_strdup(client->env, tls->name ? tls->name : client->host);
    if (!client->name)
        return PM_ENOMEM;
    return pmi_tls_realm_new(client->loop, client->env, &setup, UINT32_MAX,
                             &client->tls);
}

static pm_err client_start(pm_client *client)
{
    client->host = pmi_strdup(client->env, client->opts.host);
    if (!client->host)
        return PM_ENOMEM;
    pm_err err = client_prepare_hello(client);
    if (err == PM_OK)
        err = client_secure(client);
    /* Their owners may go now; what was made of them stays. */
    client->opts.host = client->host;
    client->opts.type = client->opts.version = NULL;
    client->opts.user = NULL;
    client->opts.tls = (pm_client_tls){0};
    return err == PM_OK ? client_connect(client) : err;
}

pm_err pm_client_new(pm_client **out, const pm_client_opts *opts)
{
    pm_client_opts o;
    pm_err err = out ? client_opts_read(&o, opts) : PM_EINVAL;
    if (err != PM_OK)
        return err;
    const pmi_env *env = pmi_loop_env(o.loop);
    pm_client *client = pmi_zalloc(env, sizeof *client);
    if (!client)
        return PM_ENOMEM;
    client->loop = o.loop;
    client->env = env;
    client->opts = o;
    pmi_buf_init(&client->hello_head, env, SIZE_MAX);
    pmi_buf_init(&client->hello_end, env, SIZE_MAX);
    pmi_client_lore_init(&client->lore, env, pmi_loop_random_u64(o.loop),
                         pmi_loop_random_u64(o.loop));
    pmi_client_resume_init(&client->resume, o.loop);
    pmi_list_init(&client->waiting);
    pmi_loop_map_init(o.loop, &client->pending);
    err = client_start(client);
    if (err != PM_OK) {
        client_fini(client);
        return err;
    }
    pmi_loop_hold(o.loop);
    *out = client;
    return PM_OK;
}

/* The server need not wait for us. */
static void client_say_farewell(pm_client *client)
{
    if (client->resume.token[0] && pm_client_is_connected(client))
        client_say(client, PMI_PACKAGE_KICK, 0);
}

static void client_bury(pmi_task *grave)
{
    pm_client *client = PMI_OUTER(grave, pm_client, grave);
    pm_loop *loop = client->loop;
    client_fini(client);
    pmi_loop_drop(loop);
}

void pm_client_free(pm_client *client)
{
    if (!client || client->freed)
        return;
    pm_loop *loop = client->loop;
    pmi_loop_enter(loop);
    client_say_farewell(client);
    client->freed = true;
    pmi_timer_clear(&client->timer);
    if (client->conn) /* what is queued still leaves */
        pmi_conn_close(client->conn, PM_CLOSE_CLIENT, false, 0);
    pmi_conn_free(client->conn);
    client->conn = NULL;
    client->state = CLIENT_IDLE;
    client_fail_all(client);
    pmi_loop_bury(loop, &client->grave, client_bury);
    pmi_loop_leave(loop);
}

void pm_client_disconnect(pm_client *client)
{
    if (!client || client->freed)
        return;
    client_say_farewell(client);
    client->stopped = true;
    if (client->state == CLIENT_IDLE)
        pmi_timer_clear(&client->timer);
    if (client->state == CLIENT_IDLE && client->resume.token[0])
        pmi_timer_set(client->loop, &client->timer, 0, client_give_up);
    client_close(client, PM_CLOSE_CLIENT);
}

bool pm_client_is_connected(const pm_client *client)
{
    return client && !client->freed && client->state == CLIENT_WORKING &&
           !pmi_conn_is_closing(client->conn);
}
