/* SPDX-License-Identifier: MIT */
/* pomelo_connector.c -- the frontend: who may come in, and what comes up from
 * a client.
 *
 *   INITED --handshake--> (callback) --answer--> WAIT_ACK --ack--> WORKING
 *      any state --malformed, limit, kick, peer gone--> CLOSED
 *
 * A package of a type that its state does not know is ignored, as in Pomelo;
 * KICK and unknown types end the connection. Start at connector_package. */
#include "pomelo_connector_internal.h"
#include "pomelo_admit_internal.h"
#include "pomelo_meter_internal.h"

#include <cjson/cJSON.h>

struct pmi_connector {
    pm_app *app;
    const pmi_env *env;
    pmi_listener *listener;
    pmi_link all; /* downlinks */
    uint32_t count;
    pmi_gatherer gatherer;
    pmi_meters meters;
    pmi_admit *admit;   /* owned */
    pmi_tls_realm *tls; /* a reference; NULL: plain */
    uint64_t closed[PM_CLOSE_COUNT];
    uint64_t push_keys[2]; /* of hashes: pmi_connector_terms */
};

/* The application's handshake callback has it until pm_handshake_done. */
struct pm_handshake {
    pm_loop *loop;
    pmi_downlink *down; /* NULL: the connection has gone */
    cJSON *msg;         /* owned */
    uint64_t left_us;   /* of the client's own time when it was handed over */
};

/* ---- The one timer of a client ----------------------------------------- */

static void connector_listen(pmi_downlink *down);
static void connector_expect_heartbeat(pmi_downlink *down);

static void connector_late(pmi_timer *timer)
{
    pmi_downlink *down = PMI_OUTER(timer, pmi_downlink, timer);
    if (down->delayed) {
        down->delayed = false;
        connector_listen(down);
        return;
    }
    if (down->full) { /* we do not listen: but does it? */
        if (pmi_conn_moved(down->conn))
            connector_expect_heartbeat(down);
        else
            pmi_downlink_close(down, PM_CLOSE_QUEUE);
        return;
    }
    if (down->paused)
        return; /* we do not listen: it is armed anew when we do */
    if (down->state == PMI_DOWNLINK_WORKING)
        pmi_downlink_close(down, PM_CLOSE_HEARTBEAT);
    else
        pmi_downlink_close(down, PM_CLOSE_HANDSHAKE_TIMEOUT);
}

static void connector_arm(pmi_downlink *down, uint64_t us)
{
    pmi_timer_set(pm_app_loop(down->app), &down->timer, us, connector_late);
}

static void connector_expect_heartbeat(pmi_downlink *down)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    double timeout =
        opts->timeout_s > 0 ? opts->timeout_s : 2 * opts->heartbeat_s;
    if (opts->heartbeat_s > 0 && down->state == PMI_DOWNLINK_WORKING &&
        !down->delayed)
        connector_arm(down, (uint64_t)(timeout * 1e6));
}

/* Reads it again, unless something else is against it. */
static void connector_listen(pmi_downlink *down)
{
    if (down->full)
        connector_expect_heartbeat(down); /* that something leaves */
    if (down->paused || down->delayed || down->full)
        return;
    connector_expect_heartbeat(down);
    pmi_conn_resume(down->conn);
}

/* ---- Life -------------------------------------------------------------- */

static pmi_tls_setup connector_tls_setup(const pm_tls_opts *tls)
{
    pmi_tls_setup setup = {.cert = tls->cert,
                           .key = tls->key,
                           .ca = tls->ca,
                           .request_cert = tls->request_cert,
                           .tickets = true};
    return setup;
}

static pm_err connector_secure(pmi_connector *connector)
{
    const pm_tls_opts *tls = &pmi_app_connector_opts(connector->app)->tls;
    pmi_tls_setup setup = connector_tls_setup(tls);
    if (!pm_app_server(connector->app)->frontend || (!tls->cert && !tls->key))
        return PM_OK;
    return pmi_tls_realm_new(
        pm_app_loop(connector->app), connector->env, &setup,
        pmi_app_limits(connector->app)->tls_handshakes, &connector->tls);
}

pm_err pmi_connector_renew(pmi_connector *connector, const pm_tls_opts *tls)
{
    pmi_tls_setup setup = connector_tls_setup(tls);
    return connector->tls ? pmi_tls_realm_renew(connector->tls, &setup) : PM_OK;
}

const pmi_tls_counts *pmi_connector_tls(const pmi_connector *connector)
{
    return connector->tls ? pmi_tls_realm_counts(connector->tls) : NULL;
}

pm_err pmi_connector_new(pm_app *app, pmi_connector **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_connector *connector = pmi_zalloc(env, sizeof *connector);
    if (!connector)
        return PM_ENOMEM;
    connector->app = app;
    connector->env = env;
    pmi_list_init(&connector->all);
    pmi_gatherer_init(&connector->gatherer, app);
    pmi_meters_init(&connector->meters, app, connector_late);
    pmi_resume_serve(pmi_app_resumes(app));
    connector->push_keys[0] = pmi_loop_random_u64(pm_app_loop(app));
    connector->push_keys[1] = pmi_loop_random_u64(pm_app_loop(app));
    *out = connector;
    pm_err err = pmi_admit_new(app, &connector->admit);
    return err ? err : connector_secure(connector);
}

pmi_gatherer *pmi_connector_gatherer(pm_app *app)
{
    return &pmi_app_connector(app)->gatherer;
}

const uint64_t *pmi_connector_closed(const pmi_connector *connector)
{
    return connector->closed;
}

uint32_t pmi_connector_count(const pmi_connector *connector)
{
    return connector->count;
}

/* ---- Sessions' way down ------------------------------------------------ */

/* The queue knows a key by a hash of 64 bits of it and its route. */
pmi_terms pmi_connector_terms(pm_app *app, pm_slice route,
                              const pmi_manner *manner)
{
    const pmi_connector *connector = pmi_app_connector(app);
    pmi_terms terms = {manner->policy, 0, 0};
    uint64_t hash;
    if (terms.policy == PM_PUSH_DEFAULT)
        terms.policy = pmi_app_connector_opts(app)->push_policy;
    if (terms.policy != PM_PUSH_REPLACE)
        return terms;
    hash = pmi_map_hash(connector->push_keys[0], connector->push_keys[1],
                        route.data, route.len);
    terms.key = pmi_map_hash(hash, connector->push_keys[1], manner->key.data,
                             manner->key.len) |
                1;
    return terms;
}

static pm_err connector_push(pm_session *session, pm_slice route, pm_body body,
                             const pmi_manner *manner)
{
    const pmi_downlink *down = session->conn;
    pmi_terms terms;
    if (!session->resumes && (!down || down->state != PMI_DOWNLINK_WORKING))
        return PM_ECLOSED;
    pmi_count(session->app, PMI_COUNT_PUSH_SESSION);
    terms = pmi_connector_terms(session->app, route, manner);
    return pmi_downlink_message(session, PMI_MESSAGE_PUSH, 0, route, body,
                                &terms);
}

static size_t connector_queued(const pm_session *session)
{
    const pmi_resume *resume = session->resumes ? session->conn : NULL;
    const pmi_downlink *down = pmi_downlink_of(session);
    if (resume && resume->away)
        return pmi_resume_waiting(resume);
    return down ? pmi_downlink_queued(down) : 0;
}

static uint32_t connector_dropped_of(const pm_session *session)
{
    const pmi_downlink *down = pmi_downlink_of(session);
    const pmi_resume *resume = session->resumes ? session->conn : NULL;
    return (down ? pmi_conn_dropped(down->conn) : 0) +
           (resume ? resume->dropped : 0);
}

static void connector_kick(pm_session *session, const char *reason,
                           pm_close_reason why)
{
    pmi_downlink *down = pmi_downlink_of(session);
    if (session->resumes)
        pmi_resume_revoke(session->conn, why);
    if (down)
        pmi_downlink_kick(down, reason, why);
}

static void connector_relaxed(pm_session *session)
{
    pmi_downlink *down = pmi_downlink_of(session);
    if (!down || !down->paused)
        return;
    down->paused = false;
    connector_listen(down);
}

static const char *connector_address(const pm_session *session,
                                     char out[PMI_ADDR_TEXT_MAX])
{
    const pmi_downlink *down = pmi_downlink_of(session);
    const pmi_addr *peer = down ? pmi_conn_peer(down->conn) : NULL;
    out[0] = 0;
    return peer && peer->len ? pmi_addr_text(peer, out) : out;
}

static const pmi_session_ops connector_ops = {
    connector_push,    connector_kick,   connector_relaxed,
    connector_address, connector_queued, connector_dropped_of};

/* ---- Handshake --------------------------------------------------------- */

static void connector_refuse(pmi_downlink *down, const char *body,
                             pm_close_reason why)
{
    pm_slice text = pm_text(body);
    pmi_downlink_package(down, PMI_PACKAGE_HANDSHAKE, &text, 1, 0);
    pmi_downlink_close(down, why);
}

static void connector_refuse_500(pmi_downlink *down)
{
    pmi_count(down->app, PMI_COUNT_HANDSHAKE_500);
    connector_refuse(down, "{\"code\":500}", PM_CLOSE_HANDSHAKE);
}

static void connector_greet(pmi_downlink *down, const cJSON *msg,
                            const cJSON *user)
{
    pmi_handlers *handlers = pmi_app_handlers(down->app);
    cJSON *resume = NULL;
    pm_slice body;
    pmi_buf text;
    pmi_buf_init(&text, pmi_app_env(down->app), PMI_PACKAGE_BODY_MAX);
    if (pmi_resume_greet(down, msg, user, &resume) ||
        pmi_handshake_answer(pmi_handlers_sys(handlers), msg,
                             resume ? resume : user,
                             pmi_app_limits(down->app)->depth, &text)) {
        connector_refuse_500(down);
    } else {
        body = pmi_buf_slice(&text);
        if (pmi_downlink_package(down, PMI_PACKAGE_HANDSHAKE, &body, 1, 0))
            pmi_downlink_close(down, PM_CLOSE_MEMORY);
        else
            down->greeted = true;
        pmi_count(down->app, PMI_COUNT_HANDSHAKE_200);
    }
    cJSON_Delete(resume);
    pmi_buf_fini(&text);
}

/* The state moves when the chunk that brought the handshake is through: as in
 * Pomelo, whose answer leaves a tick later, an ACK in that same chunk is
 * ignored. */
static void connector_settle(pmi_downlink *down)
{
    if (down->greeted && down->state == PMI_DOWNLINK_INITED)
        down->state = PMI_DOWNLINK_WAIT_ACK;
}

void pm_handshake_done(pm_handshake *hs, pm_err err, const struct cJSON *user)
{
    pmi_downlink *down = hs->down;
    pm_loop *loop = hs->loop;
    if (down)
        down->handshake = NULL;
    if (down && down->state != PMI_DOWNLINK_CLOSED) { /* it may linger */
        connector_arm(down, hs->left_us);
        if (err)
            connector_refuse_500(down);
        else
            connector_greet(down, hs->msg, pmi_json_truthy(user) ? user : NULL);
        if (!down->reading)
            connector_settle(down);
    }
    cJSON_Delete(hs->msg);
    pmi_free(pmi_loop_env(loop), hs);
    pmi_loop_drop(loop);
}

/* Hands the message to the application's callback; taken on success. */
static pm_err connector_ask(pmi_downlink *down, cJSON *msg)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    pm_loop *loop = pm_app_loop(down->app);
    pm_handshake *hs = pmi_zalloc(pmi_app_env(down->app), sizeof *hs);
    if (!hs)
        return PM_ENOMEM;
    hs->loop = loop;
    hs->down = down;
    hs->msg = msg;
    hs->left_us = pmi_timer_left_us(loop, &down->timer);
    pmi_loop_hold(loop);
    down->handshake = hs;
    connector_arm(down,
                  (uint64_t)pmi_app_limits(down->app)->handshake_cb_ms * 1000);
    opts->handshake(hs, msg, opts->ctx);
    return PM_OK;
}

/* Text of a member of sys, or NULL when it is absent. */
static pm_err connector_member_text(const cJSON *sys, const char *name,
                                    pmi_buf *out, const char **text)
{
    const cJSON *value = pmi_json_get(sys, name);
    *text = NULL;
    if (!value)
        return PM_OK;
    if (pmi_json_print(value, PMI_JSON_DEPTH_MAX, out))
        return PM_ENOMEM;
    pmi_buf_add_byte(out, 0);
    if (out->failed)
        return PM_ENOMEM;
    *text = (const char *)out->data;
    return PM_OK;
}

/* PM_OK welcome; PM_EHANDSHAKE 501; anything else 500. */
static pm_err connector_check(pmi_downlink *down, const cJSON *msg)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    const cJSON *sys = pmi_json_get(msg, "sys");
    const char *type, *version;
    pmi_buf type_text, version_text;
    bool failed = false, welcome = false;
    pm_err err;
    if (!opts->check_client)
        return PM_OK;
    pmi_buf_init(&type_text, pmi_app_env(down->app), 64 * 1024);
    pmi_buf_init(&version_text, pmi_app_env(down->app), 64 * 1024);
    err = connector_member_text(sys, "type", &type_text, &type);
    if (err == PM_OK)
        err = connector_member_text(sys, "version", &version_text, &version);
    if (err == PM_OK)
        welcome = opts->check_client(type, version, &failed, opts->ctx);
    pmi_buf_fini(&type_text);
    pmi_buf_fini(&version_text);
    if (err || failed)
        return err ? err : PM_EREMOTE;
    return welcome ? PM_OK : PM_EHANDSHAKE;
}

static pm_err connector_take_key(pmi_downlink *down, const cJSON *msg)
{
    pmi_meters *meters = &pmi_app_connector(down->app)->meters;
    pm_err err = pmi_meter_open(meters, down);
    if (err)
        return err;
    return pmi_proto_rsa_key(pmi_app_env(down->app), msg, &down->meter->key);
}

static void connector_handshake(pmi_downlink *down, pm_slice body)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    const pmi_env *env = pmi_app_env(down->app);
    cJSON *msg = NULL;
    pm_err err;
    if (down->greeted || down->handshake)
        return; /* one answer only */
    err =
        pmi_handshake_parse(env, body, pmi_app_limits(down->app)->depth, &msg);
    if (err == PM_OK)
        err = connector_check(down, msg);
    if (down->state == PMI_DOWNLINK_CLOSED) { /* by the application's check */
        cJSON_Delete(msg);
        return;
    }
    if (err == PM_EHANDSHAKE && msg) {
        pmi_count(down->app, PMI_COUNT_HANDSHAKE_501);
        connector_refuse(down, "{\"code\":501}", PM_CLOSE_CHECK_CLIENT);
        cJSON_Delete(msg);
        return;
    }
    if (err == PM_OK && opts->use_crypto)
        err = connector_take_key(down, msg);
    if (err == PM_OK && opts->handshake) {
        err = connector_ask(down, msg);
        if (err == PM_OK)
            return;
    }
    if (err)
        connector_refuse_500(down);
    else
        connector_greet(down, msg, NULL);
    cJSON_Delete(msg);
}

/* ---- Heartbeat, acknowledgement ---------------------------------------- */

static void connector_heartbeat(pmi_downlink *down)
{
    if (pmi_app_connector_opts(down->app)->heartbeat_s <= 0)
        return;
    pmi_downlink_package(down, PMI_PACKAGE_HEARTBEAT, NULL, 0, PMI_SEND_URGENT);
    connector_expect_heartbeat(down);
}

static void connector_ack(pmi_downlink *down)
{
    pmi_sessions *sessions = pmi_app_sessions(down->app);
    bool resumed = false;
    pm_err err = pmi_meter_start(&pmi_app_connector(down->app)->meters, down);
    if (err == PM_OK && down->resumes)
        err = pmi_resume_ack(down, &connector_ops, &resumed);
    else if (err == PM_OK)
        err = pmi_session_open(sessions, &connector_ops, down, &down->session);
    if (err) {
        pmi_downlink_close(down, PM_CLOSE_MEMORY);
        return;
    }
    pmi_timer_clear(&down->timer);
    down->state = PMI_DOWNLINK_WORKING;
    connector_heartbeat(down);
    if (resumed)
        pmi_resume_replay(down);
    else
        pmi_app_session_opened(down->app, down->session);
}

/* ---- Data -------------------------------------------------------------- */

static void connector_data_package(pmi_downlink *down, pm_slice body)
{
    pmi_rsa *key = down->meter ? down->meter->key : NULL;
    pmi_message msg;
    pm_err err = pmi_proto_message_decode(body, &msg);
    if (err) {
        pmi_downlink_close(down, PM_CLOSE_MESSAGE);
        return;
    }
    if (PMI_UNLIKELY(key) && !pmi_meter_signature(down))
        return;
    err = pmi_handler_message(pmi_app_handlers(down->app), down->session, &msg,
                              key, pmi_downlink_answer);
    if (err && down->resumes)
        down->resume->received--; /* it has not been looked at */
    if (err)
        pmi_downlink_close(down, PM_CLOSE_MEMORY);
}

static void connector_package(pmi_downlink *down, const pmi_package *package)
{
    if (PMI_UNLIKELY(down->resumes) && package->type == PMI_PACKAGE_DATA &&
        down->state == PMI_DOWNLINK_WORKING)
        down->resume->received++; /* first: the handler may lose the session */
    if (PMI_UNLIKELY(down->metered) &&
        !pmi_meter_package(&pmi_app_connector(down->app)->meters, down,
                           package))
        return;
    switch (package->type) {
    case PMI_PACKAGE_HANDSHAKE:
        if (down->state == PMI_DOWNLINK_INITED)
            connector_handshake(down, package->body);
        break;
    case PMI_PACKAGE_ACK:
        if (down->state == PMI_DOWNLINK_WAIT_ACK)
            connector_ack(down);
        break;
    case PMI_PACKAGE_HEARTBEAT:
        if (down->state == PMI_DOWNLINK_WORKING)
            connector_heartbeat(down);
        break;
    case PMI_PACKAGE_DATA:
        if (down->state == PMI_DOWNLINK_WORKING)
            connector_data_package(down, package->body);
        break;
    default: /* KICK */
        if (down->resumes && down->state == PMI_DOWNLINK_WORKING)
            pmi_resume_leave(down);
        else
            pmi_downlink_close(down, PM_CLOSE_PACKAGE);
        break;
    }
}

/* Stops reading a client that has too much in flight, or that does not read
 * its answers. True: it is not read, for this reason or another. */
static bool connector_pause(pmi_downlink *down)
{
    const pm_limits *limits = pmi_app_limits(down->app);
    if (!down->session)
        return down->delayed;
    if (down->session->in_flight >= limits->requests_in_flight) {
        down->paused = true;
        pmi_count(down->app, PMI_COUNT_PAUSED_IN_FLIGHT);
    } else if (pmi_conn_want_ease(down->conn)) {
        down->full = true;
        pmi_count(down->app, PMI_COUNT_PAUSED_QUEUE);
    } else {
        return down->delayed;
    }
    pmi_conn_pause(down->conn);
    return true;
}

static pm_close_reason connector_bad_package(pm_err err)
{
    return err == PM_ESIZE ? PM_CLOSE_PACKAGE_SIZE : PM_CLOSE_PACKAGE;
}

/* The application may free the whole app from inside a package: downlink and
 * connection are closed then, and outlive the stack. */
static size_t connector_packages(pmi_conn *conn, uint8_t *data, size_t len,
                                 pmi_downlink *down)
{
    size_t max = pmi_app_limits(down->app)->package_in_bytes;
    pm_loop *loop = pm_app_loop(down->app);
    size_t used = 0;
    while (used < len) {
        pmi_package package;
        long n =
            pmi_proto_package_decode(data + used, len - used, max, &package);
        if (n == 0)
            break;
        if (n < 0) {
            pmi_downlink_close(down, connector_bad_package((pm_err)n));
            return len;
        }
        used += (size_t)n;
        connector_package(down, &package);
        if (pmi_conn_is_closing(conn))
            return len;
        if (connector_pause(down) || pmi_conn_is_closing(conn))
            break;
        if (used < len && pmi_loop_over_budget(loop)) {
            pmi_conn_pause(conn); /* the rest comes in the next turn */
            pmi_conn_resume(conn);
            break;
        }
    }
    connector_settle(down);
    return used;
}

static size_t connector_data(pmi_conn *conn, uint8_t *data, size_t len,
                             void *ctx)
{
    pmi_downlink *down = ctx;
    size_t used;
    down->reading = true;
    used = connector_packages(conn, data, len, down);
    down->reading = false;
    return used;
}

/* A frame that is shorter than its package says counts as if zeros followed:
 * Pomelo's buffers are like that, and recordings tell it. */
static bool connector_pad(const uint8_t *data, size_t len, size_t max,
                          pmi_buf *out)
{
    size_t body;
    uint8_t *room;
    if (len < PMI_PACKAGE_HEAD)
        return false;
    body = (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];
    if (body > max || body <= len - PMI_PACKAGE_HEAD)
        return false;
    room = pmi_buf_reserve(out, PMI_PACKAGE_HEAD + body);
    if (!room)
        return false;
    memset(room, 0, PMI_PACKAGE_HEAD + body);
    memcpy(room, data, len);
    out->len = PMI_PACKAGE_HEAD + body;
    return true;
}

static void connector_frame(pmi_conn *conn, const uint8_t *data, size_t len,
                            pmi_downlink *down)
{
    pmi_package package;
    pm_err err = pmi_proto_package_frame(
        data, len, pmi_app_limits(down->app)->package_in_bytes, &package);
    if (err) {
        pmi_downlink_close(down, connector_bad_package(err));
        return;
    }
    down->reading = true;
    connector_package(down, &package);
    down->reading = false;
    if (pmi_conn_is_closing(conn))
        return;
    connector_settle(down);
    connector_pause(down);
}

static void connector_message(pmi_conn *conn, uint8_t *data, size_t len,
                              bool text, void *ctx)
{
    pmi_downlink *down = ctx;
    pmi_buf padded;
    if (text && len == 0)
        return;
    pmi_buf_init(&padded, pmi_loop_env(pmi_conn_loop(conn)), SIZE_MAX);
    if (connector_pad(data, len, pmi_app_limits(down->app)->package_in_bytes,
                      &padded))
        connector_frame(conn, padded.data, padded.len, down);
    else
        connector_frame(conn, data, len, down);
    pmi_buf_fini(&padded);
}

/* ---- Coming and going -------------------------------------------------- */

static void connector_bury(pmi_task *grave)
{
    pmi_downlink *down = PMI_OUTER(grave, pmi_downlink, grave);
    const pmi_env *env = pmi_loop_env(pmi_conn_loop(down->conn));
    pmi_free(env, down);
}

/* Or it goes on without a connection. */
static void connector_end_session(pmi_downlink *down, pm_close_reason reason)
{
    pmi_resume *resume = down->resumes ? down->resume : NULL;
    pm_session *session = down->session;
    pm_app *app = down->app;
    if (resume && pmi_resume_lost(down, &reason))
        return;
    pmi_request_cancel_session(session, PM_ECLOSED);
    pmi_session_close(session, reason);
    session->conn = NULL;
    if (resume)
        pmi_resume_free(resume);
    pm_session_unref(session);
    pmi_app_check_drained(app);
}

static void connector_end(pmi_downlink *down, pm_close_reason reason)
{
    pmi_connector *connector = pmi_app_connector(down->app);
    pmi_conn *conn = down->conn;
    down->state = PMI_DOWNLINK_CLOSED;
    connector->closed[reason]++;
    connector->count--;
    pmi_timer_clear(&down->timer);
    pmi_list_remove(&down->in_all);
    PMI_LOG(connector->env, PM_LOG_DEBUG, "connector", "closed: %s",
            pm_close_text(reason));
    if (down->handshake && !down->resumes)
        down->handshake->down = NULL;
    if (down->session || down->resumes)
        connector_end_session(down, reason);
    pmi_meter_close(down);
    if (down->gather) {
        pmi_list_remove(&down->gather->link);
        pmi_buf_fini(&down->gather->bytes);
        pmi_free(connector->env, down->gather);
        down->gather = NULL;
    }
    down->session = NULL;
    memset(&down->grave, 0, sizeof down->grave);
    pmi_loop_bury(pm_app_loop(down->app), &down->grave, connector_bury);
    pmi_conn_free(conn); /* after: the grave finds its loop through it */
}

static void connector_closed(pmi_conn *conn, pm_close_reason reason, void *ctx)
{
    (void)conn;
    connector_end(ctx, reason);
}

/* Its answers have gone out far enough. */
static void connector_eased(pmi_conn *conn, void *ctx)
{
    pmi_downlink *down = ctx;
    (void)conn;
    down->full = false;
    connector_listen(down);
}

static void connector_dropped(pmi_conn *conn, pmi_drop why, uint32_t n,
                              void *ctx)
{
    pmi_downlink *down = ctx;
    (void)conn;
    pmi_app_counts(down->app)->n[PMI_COUNT_DROPPED_OLDEST + why] += n;
}

static void connector_taken(pmi_conn *conn, uint32_t serial, void *ctx)
{
    pmi_downlink *down = ctx;
    (void)conn;
    if (down->resumes && down->resume->down == down)
        pmi_resume_unkeep(down->resume, serial);
}

static void connector_caught_up(pmi_conn *conn, void *ctx)
{
    pmi_downlink *down = ctx;
    (void)conn;
    if (!down->session)
        return;
    pmi_count(down->app, PMI_COUNT_DRAINED_SESSION);
    pmi_app_session_drained(down->app, down->session);
}

static const pmi_conn_events connector_events = {.dropped = connector_dropped,
                                                 .taken = connector_taken,
                                                 .caught_up =
                                                     connector_caught_up,
                                                 .eased = connector_eased,
                                                 .data = connector_data,
                                                 .message = connector_message,
                                                 .closed = connector_closed};

static uint32_t connector_room(const pmi_connector *connector)
{
    uint32_t max = pmi_app_limits(connector->app)->connections;
    uint32_t table = pm_app_server(connector->app)->max_connections;
    return table && table < max ? table : max;
}

pm_err pm_app_block(pm_app *app, const char *cidr, bool close)
{
    pmi_connector *connector = pmi_app_connector(app);
    pmi_cidr block;
    pm_err err;
    if (pmi_app_state_of(app) == PMI_APP_FREED)
        return PM_ECLOSED;
    err = pmi_admit_block(connector->admit, cidr);
    if (err || !close || !pmi_cidr_parse(&block, cidr))
        return err;
    /* Ends come on later turns: nothing leaves the list while we walk. */
    for (pmi_link *n = connector->all.next; n != &connector->all; n = n->next) {
        pmi_downlink *down = PMI_OUTER(n, pmi_downlink, in_all);
        if (pmi_cidr_match(&block, pmi_conn_peer(down->conn)))
            pmi_downlink_close(down, PM_CLOSE_BLACKLIST);
    }
    return PM_OK;
}

pm_err pm_app_unblock(pm_app *app, const char *cidr)
{
    if (pmi_app_state_of(app) == PMI_APP_FREED)
        return PM_ECLOSED;
    return pmi_admit_unblock(pmi_app_connector(app)->admit, cidr);
}

/* May this connection come in? */
static pm_close_reason connector_admit(pmi_connector *connector, pmi_conn *conn)
{
    if (connector->count >= connector_room(connector))
        return PM_CLOSE_CONNECTIONS_MAX;
    return pmi_admit_ask(connector->admit, pmi_conn_peer(conn));
}

static void connector_accepted(pmi_listener *listener, pmi_conn *conn,
                               void *ctx)
{
    pmi_connector *connector = ctx;
    pm_close_reason refused = connector_admit(connector, conn);
    pmi_downlink *down = NULL;
    /* The application was asked, and may have ended us. */
    if (connector->listener != listener)
        refused = PM_CLOSE_STOP;
    if (!refused) {
        down = pmi_zalloc(connector->env, sizeof *down);
        if (!down || pmi_admit_front(connector->admit, conn))
            refused = PM_CLOSE_MEMORY;
    }
    if (refused) {
        connector->closed[refused]++;
        pmi_free(connector->env, down);
        pmi_conn_free(conn);
        return;
    }
    down->app = connector->app;
    down->conn = conn;
    pmi_list_add(&connector->all, &down->in_all);
    connector->count++;
    connector_arm(down, (uint64_t)pmi_app_limits(connector->app)->handshake_ms *
                            1000);
    pmi_conn_start(conn, &connector_events, down);
}

pm_err pmi_connector_start(pmi_connector *connector)
{
    const pm_server *self = pm_app_server(connector->app);
    const pm_limits *limits = pmi_app_limits(connector->app);
    pmi_listen_opts opts = {0};
    if (!self->frontend)
        return PM_OK;
    opts.host = pmi_app_client_bind(connector->app);
    opts.port = self->client_port;
    opts.framing = PMI_FRAMING_SNIFF;
    opts.limits.in_max = limits->package_in_bytes + PMI_PACKAGE_HEAD;
    opts.limits.out_max = limits->client_queue_bytes;
    opts.limits.tally = PMI_TRAFFIC_CLIENTS;
    opts.limits.open_ms = limits->handshake_ms;
    opts.limits.send_buffer =
        pmi_app_connector_opts(connector->app)->send_buffer_bytes;
    opts.tls = connector->tls;
    opts.accepted = connector_accepted;
    opts.ctx = connector;
    return pmi_listen(pm_app_loop(connector->app), &opts, &connector->listener);
}

uint16_t pmi_connector_port(const pmi_connector *connector)
{
    return connector->listener ? pmi_listener_port(connector->listener) : 0;
}

void pmi_connector_drain(pmi_connector *connector)
{
    pmi_listener_close(connector->listener);
    connector->listener = NULL;
}

void pmi_connector_kick_all(pmi_connector *connector, const char *reason)
{
    /* Ends come on later turns: nothing leaves the list while we walk. */
    for (pmi_link *n = connector->all.next; n != &connector->all; n = n->next)
        pmi_downlink_kick(PMI_OUTER(n, pmi_downlink, in_all), reason,
                          PM_CLOSE_STOP);
}

void pmi_connector_close(pmi_connector *connector)
{
    pmi_listener_close(connector->listener);
    connector->listener = NULL;
    while (!pmi_list_empty(&connector->all)) {
        pmi_downlink *down =
            PMI_OUTER(connector->all.next, pmi_downlink, in_all);
        pmi_downlink_flush(down);
        pmi_conn_flush(down->conn);
        connector_end(down, PM_CLOSE_STOP);
    }
    pmi_resumes_close(pmi_app_resumes(connector->app));
    pmi_gatherer_fini(&connector->gatherer);
}

void pmi_connector_free(pmi_connector *connector)
{
    if (!connector)
        return;
    pmi_connector_close(connector);
    pmi_admit_free(connector->admit);
    pmi_tls_realm_unref(connector->tls);
    pmi_free(connector->env, connector);
}
