/* SPDX-License-Identifier: MIT */
/* pomelo_admin.c -- Pomelo's admin protocol: a link, its envelopes, questions
 * and answers.
 *
 * Everything that comes is bounded before it is kept, and parsed before
 * anybody looks at it; what does not parse ends the link and nothing else.
 * Start at admin_data and admin_heard. */
#include "pomelo_admin_internal.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>

#define ADMIN_DETAIL_MAX 400

/* Somebody waits for an answer. */
typedef struct admin_wait {
    pmi_admin_link *link;
    uint64_t id;
    pmi_timer timer;
    pm_admin_cb cb;
    void *ctx;
} admin_wait;

/* ---- JSON -------------------------------------------------------------- */

const char *pmi_admin_text(const struct cJSON *object, const char *name)
{
    const cJSON *node = pmi_json_get(object, name);
    return cJSON_IsString(node) ? node->valuestring : NULL;
}

uint64_t pmi_admin_number(const struct cJSON *object, const char *name,
                          uint64_t max)
{
    const cJSON *node = pmi_json_get(object, name);
    double value = 0;
    uint64_t whole;
    if (cJSON_IsNumber(node)) {
        value = node->valuedouble;
    } else if (cJSON_IsString(node)) {
        const char *at = node->valuestring;
        for (size_t i = 0; at[i] && i < 16; i++) {
            if (at[i] < '0' || at[i] > '9')
                return 0;
            value = value * 10 + (at[i] - '0');
        }
    }
    if (!(value > 0) || value > 9e15)
        return 0;
    whole = (uint64_t)value;
    return (double)whole == value && whole <= max ? whole : 0;
}

void pmi_admin_put(pmi_buf *out, const char *name, const char *text)
{
    if (out->len && !strchr("{[", out->data[out->len - 1]))
        pmi_buf_add_byte(out, ',');
    pmi_json_add_string(out, pm_text(name));
    pmi_buf_add_byte(out, ':');
    pmi_json_add_string(out, pm_text(text));
}

bool pmi_admin_flag(const struct cJSON *object, const char *name)
{
    const cJSON *node = pmi_json_get(object, name);
    const char *text = pmi_admin_text(object, name);
    return cJSON_IsTrue(node) || (text && !strcmp(text, "true"));
}

bool pmi_admin_server(const struct cJSON *info, pm_server *out)
{
    const cJSON *cpu = pmi_json_get(info, "cpu");
    memset(out, 0, sizeof *out);
    out->id = pmi_admin_text(info, "id");
    out->type = pmi_admin_text(info, "serverType");
    out->host = pmi_admin_text(info, "host");
    out->port = (uint16_t)pmi_admin_number(info, "port", UINT16_MAX);
    out->client_port =
        (uint16_t)pmi_admin_number(info, "clientPort", UINT16_MAX);
    out->frontend = pmi_admin_flag(info, "frontend");
    out->max_connections =
        (uint32_t)pmi_admin_number(info, "max-connections", UINT32_MAX);
    out->weight = (uint32_t)pmi_admin_number(info, "weight", UINT32_MAX);
    out->args = pmi_admin_text(info, "args");
    if (cpu)
        out->cpu = (int)pmi_admin_number(info, "cpu", 4095) + 1;
    return out->id && out->type && *out->id && *out->type &&
           strlen(out->id) <= 255 && strlen(out->type) <= 255;
}

/* ---- Sending ----------------------------------------------------------- */

static pm_err admin_say(pmi_admin_link *link, const pmi_mqtt_packet *packet)
{
    pmi_buf buf;
    pm_slice all;
    pm_err err;
    pmi_buf_init(&buf, &link->env, SIZE_MAX);
    err = pmi_mqtt_encode(packet, &buf);
    all = pmi_buf_slice(&buf);
    if (err == PM_OK)
        err = pmi_conn_send(link->conn, &all, 1, 0);
    pmi_buf_fini(&buf);
    return err;
}

static pm_err admin_say_small(pmi_admin_link *link, pmi_mqtt_type type)
{
    pmi_mqtt_packet packet = {.type = type};
    return admin_say(link, &packet);
}

pm_err pmi_admin_ping(pmi_admin_link *link)
{
    return admin_say_small(link, PMI_MQTT_PINGREQ);
}

/* One packet is one write: a head that travels alone waits for its ACK. */
static pm_err admin_send(pmi_admin_link *link, const char *topic,
                         pm_slice payload)
{
    uint8_t head[PMI_MQTT_HEAD_MAX];
    pm_slice parts[3] = {{head, 0}, pm_text(topic), payload};
    parts[0].len = pmi_mqtt_publish_head(parts[1].len, payload.len, head);
    if (!parts[0].len)
        return PM_ESIZE;
    return pmi_conn_send(link->conn, parts, 3, 0);
}

pm_err pmi_admin_publish(pmi_admin_link *link, const char *topic, pm_slice json,
                         bool twice)
{
    pmi_buf text;
    pm_err err = PM_ENOMEM;
    if (!link->conn || pmi_conn_is_closing(link->conn))
        return PM_ECLOSED;
    if (!twice)
        return admin_send(link, topic, json);
    pmi_buf_init(&text, &link->env, SIZE_MAX);
    pmi_json_add_string(&text, json);
    if (!text.failed)
        err = admin_send(link, topic, pmi_buf_slice(&text));
    pmi_buf_fini(&text);
    return err;
}

/* ---- Asking ------------------------------------------------------------ */

static void admin_wait_end(admin_wait *wait, const pm_admin_result *result)
{
    pmi_admin_link *link = wait->link;
    pm_admin_cb cb = wait->cb;
    void *ctx = wait->ctx;
    pmi_timer_clear(&wait->timer);
    pmi_map_remove_num(&link->waits, wait->id);
    pmi_free(&link->env, wait);
    cb(result, ctx);
}

static void admin_wait_fail(admin_wait *wait, pm_err err)
{
    pm_admin_result result = {err, pm_strerror(err), NULL, NULL};
    admin_wait_end(wait, &result);
}

static void admin_wait_late(pmi_timer *timer)
{
    admin_wait_fail(PMI_OUTER(timer, admin_wait, timer), PM_ETIMEOUT);
}

static admin_wait *admin_wait_new(pmi_admin_link *link, uint32_t timeout_ms,
                                  pm_admin_cb cb, void *ctx)
{
    admin_wait *wait = pmi_zalloc(&link->env, sizeof *wait);
    if (!wait)
        return NULL;
    wait->link = link;
    wait->id = link->last_id + 1;
    wait->cb = cb;
    wait->ctx = ctx;
    if (pmi_map_put_num(&link->waits, wait->id, wait, NULL)) {
        pmi_free(&link->env, wait);
        return NULL;
    }
    link->last_id++;
    pmi_timer_set(link->loop, &wait->timer, (uint64_t)timeout_ms * 1000,
                  admin_wait_late);
    return wait;
}

static void admin_write_ask(pmi_buf *out, const admin_wait *wait,
                            const char *command, const char *module,
                            pm_slice body)
{
    pmi_buf_add_byte(out, '{');
    if (wait)
        pmi_buf_add_format(out, "\"reqId\":%llu", (unsigned long long)wait->id);
    if (command)
        pmi_admin_put(out, "command", command);
    if (module)
        pmi_admin_put(out, "moduleId", module);
    else
        pmi_buf_add_text(out, ",\"moduleId\":null");
    pmi_buf_add_text(out, ",\"body\":");
    if (body.len)
        pmi_buf_add(out, body.data, body.len);
    else
        pmi_buf_add_text(out, "{}");
    pmi_buf_add_byte(out, '}');
}

pm_err pmi_admin_ask(pmi_admin_link *link, const char *command,
                     const char *module, pm_slice body, uint32_t timeout_ms,
                     pm_admin_cb cb, void *ctx)
{
    admin_wait *wait = NULL;
    pmi_buf text;
    pm_err err = PM_ENOMEM;
    if (cb && pmi_map_count(&link->waits) >= PMI_ADMIN_WAITS_MAX)
        return PM_ELIMIT;
    if (cb && !(wait = admin_wait_new(link, timeout_ms, cb, ctx)))
        return PM_ENOMEM;
    pmi_buf_init(&text, &link->env, SIZE_MAX);
    admin_write_ask(&text, wait, command, module, body);
    if (!text.failed)
        err = pmi_admin_publish(link, link->topic, pmi_buf_slice(&text),
                                wait != NULL);
    pmi_buf_fini(&text);
    if (err && wait) {
        pmi_timer_clear(&wait->timer);
        pmi_map_remove_num(&link->waits, wait->id);
        pmi_free(&link->env, wait);
    }
    return err;
}

/* What an error looks like to people: a text, or an Error's message. */
static const char *admin_sentence(const cJSON *error)
{
    const char *message = pmi_admin_text(error, "message");
    if (cJSON_IsString(error))
        return error->valuestring;
    return message ? message : "the other side answered with an error";
}

static void admin_heard_answer(pmi_admin_link *link, const cJSON *tree)
{
    uint64_t id = pmi_admin_number(tree, "respId", UINT64_MAX);
    admin_wait *wait = id ? pmi_map_get_num(&link->waits, id) : NULL;
    const cJSON *error = pmi_json_get(tree, "error");
    pm_admin_result result = {PM_OK, "", pmi_json_get(tree, "body"), NULL};
    if (!wait)
        return; /* late: it has been given up */
    if (pmi_json_truthy(error)) {
        result.err = PM_EREMOTE;
        result.error = error;
        result.detail = admin_sentence(error);
    }
    admin_wait_end(wait, &result);
}

/* ---- Being asked ------------------------------------------------------- */

pm_admin_call *pmi_admin_call_new(pm_app *app, pmi_admin_link *link,
                                  pmi_admin_msg *msg, const char *from)
{
    pm_loop *loop = pm_app_loop(app);
    pm_admin_call *call = pmi_zalloc(pmi_loop_env(loop), sizeof *call);
    if (!call)
        return NULL;
    call->app = app;
    call->loop = loop;
    call->link = link;
    call->notify = true;
    pmi_format(call->from, sizeof call->from, "%s", from);
    if (msg) {
        call->tree = msg->tree;
        msg->tree = NULL;
        call->id = msg->id;
        call->body = msg->body;
        call->notify = !msg->id;
    }
    if (link)
        pmi_list_add(&link->calls, &call->in_link);
    return call;
}

static void admin_call_end(pm_admin_call *call)
{
    pm_loop *loop = call->loop;
    pmi_list_remove(&call->in_link);
    pmi_list_remove(&call->in_app);
    cJSON_Delete(call->tree);
    if (!call->app) {
        pmi_free(pmi_loop_env(loop), call);
        pmi_loop_drop(loop); /* it alone held the loop */
        return;
    }
    pmi_free(pmi_loop_env(loop), call);
}

void pmi_admin_calls_orphan(pmi_link *calls)
{
    pmi_link *node;
    while ((node = pmi_list_take(calls))) {
        pm_admin_call *call = PMI_OUTER(node, pm_admin_call, in_app);
        pmi_list_remove(&call->in_link);
        call->app = NULL;
        call->link = NULL;
        pmi_loop_hold(call->loop);
    }
}

static pm_err admin_answer(pm_admin_call *call, pm_slice error, pm_slice body)
{
    pmi_admin_link *link = call->link;
    pmi_buf text;
    pm_err err;
    if (call->notify)
        return PM_ENOTIFY;
    if (!link)
        return PM_ECLOSED;
    pmi_buf_init(&text, &link->env, PMI_MQTT_LENGTH_MAX / 2);
    pmi_buf_add_text(&text, "{\"respId\":");
    err = pmi_json_print(call->id, PMI_JSON_DEPTH_MAX, &text);
    pmi_buf_add_text(&text, ",\"error\":");
    if (error.len)
        pmi_buf_add(&text, error.data, error.len);
    else
        pmi_buf_add_text(&text, "null");
    if (body.len) {
        pmi_buf_add_text(&text, ",\"body\":");
        pmi_buf_add(&text, body.data, body.len);
    }
    pmi_buf_add_byte(&text, '}');
    if (err == PM_OK)
        err = text.failed ? PM_ENOMEM
                          : pmi_admin_publish(link, link->topic,
                                              pmi_buf_slice(&text), true);
    pmi_buf_fini(&text);
    return err;
}

pm_err pmi_admin_answer(pm_admin_call *call, pm_slice error, pm_slice body)
{
    pm_err err = admin_answer(call, error, body);
    admin_call_end(call);
    return err;
}

void pmi_admin_answer_buf(pm_admin_call *call, const pmi_buf *body)
{
    if (body->failed)
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
    else
        pmi_admin_answer(call, pm_bytes(NULL, 0), pmi_buf_slice(body));
}

pm_err pmi_admin_answer_word(pm_admin_call *call, const char *fmt, ...)
{
    char word[ADMIN_DETAIL_MAX];
    pmi_buf error;
    va_list args;
    pm_err err;
    va_start(args, fmt);
    vsnprintf(word, sizeof word, fmt, args);
    va_end(args);
    pmi_buf_init(&error, pmi_loop_env(call->loop), SIZE_MAX);
    pmi_json_add_string(&error, pm_text(word));
    err = error.failed
              ? PM_ENOMEM
              : admin_answer(call, pmi_buf_slice(&error), pm_bytes(NULL, 0));
    pmi_buf_fini(&error);
    admin_call_end(call);
    return err;
}

pm_app *pm_admin_app(const pm_admin_call *call)
{
    return call->app;
}

const struct cJSON *pm_admin_body(const pm_admin_call *call)
{
    return call->body;
}

const char *pm_admin_from(const pm_admin_call *call)
{
    return call->from;
}

bool pm_admin_is_notify(const pm_admin_call *call)
{
    return call->notify;
}

pm_err pm_admin_reply(pm_admin_call *call, const struct cJSON *body)
{
    pmi_buf text;
    pm_err err = PM_OK;
    pmi_buf_init(&text, pmi_loop_env(call->loop), PMI_MQTT_LENGTH_MAX / 4);
    if (body && !call->notify)
        err = pmi_json_print(body, PMI_JSON_DEPTH_MAX, &text);
    if (err == PM_OK)
        err = admin_answer(call, pm_bytes(NULL, 0), pmi_buf_slice(&text));
    pmi_buf_fini(&text);
    admin_call_end(call);
    return err;
}

pm_err pm_admin_fail(pm_admin_call *call, const char *detail)
{
    pmi_buf error, stack;
    pm_err err = PM_ENOMEM;
    pmi_buf_init(&error, pmi_loop_env(call->loop), SIZE_MAX);
    pmi_buf_init(&stack, pmi_loop_env(call->loop), SIZE_MAX);
    pmi_buf_add_text(&stack, "Error: ");
    pmi_buf_add_text(&stack, detail ? detail : "");
    pmi_buf_add_byte(&stack, 0);
    if (!stack.failed) {
        pmi_buf_add_byte(&error, '{');
        pmi_admin_put(&error, "message", (const char *)stack.data + 7);
        pmi_admin_put(&error, "stack", (const char *)stack.data);
        pmi_buf_add_byte(&error, '}');
        if (!error.failed)
            err = admin_answer(call, pmi_buf_slice(&error), pm_text("null"));
    }
    pmi_buf_fini(&stack);
    pmi_buf_fini(&error);
    admin_call_end(call);
    return err;
}

/* ---- Hearing ----------------------------------------------------------- */

/* A payload to its tree: an object, or a text that holds one. */
static pm_err admin_parse(pmi_admin_link *link, pm_slice payload, cJSON **out)
{
    cJSON *tree = NULL, *inner = NULL;
    pm_err err =
        pmi_json_parse(&link->env, payload, PMI_JSON_DEPTH_MAX, &tree, NULL);
    if (err)
        return err;
    if (cJSON_IsString(tree)) {
        err = pmi_json_parse(&link->env, pm_text(tree->valuestring),
                             PMI_JSON_DEPTH_MAX, &inner, NULL);
        cJSON_Delete(tree);
        if (err)
            return err;
        tree = inner;
    }
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return PM_EJSON;
    }
    *out = tree;
    return PM_OK;
}

/* Which message of its topic it is; false: none. */
static bool admin_sort(pmi_admin_link *link, pm_slice topic, pmi_admin_msg *msg)
{
    const char *module = pmi_admin_text(msg->tree, "moduleId");
    const char *command = pmi_admin_text(msg->tree, "command");
    msg->module = module ? module : "";
    msg->command = command ? command : "";
    msg->body = pmi_json_get(msg->tree, "body");
    msg->id = pmi_json_get(msg->tree, "reqId");
    if (msg->id && !cJSON_IsNumber(msg->id) && !cJSON_IsString(msg->id))
        return false;
    if (pmi_slice_eq(topic, pm_text("register")))
        msg->kind = PMI_ADMIN_REGISTER;
    else if (pmi_slice_eq(topic, pm_text("reconnect")))
        msg->kind = PMI_ADMIN_RECONNECT;
    else if (pmi_slice_eq(topic, pm_text("reconnect_ok")))
        msg->kind = PMI_ADMIN_RECONNECT_OK;
    else if (!pmi_slice_eq(topic, pm_text(link->topic)) && link->topic[0])
        return false;
    else if (command)
        msg->kind = PMI_ADMIN_COMMAND;
    else
        msg->kind = msg->id ? PMI_ADMIN_REQUEST : PMI_ADMIN_NOTIFY;
    return true;
}

static pm_close_reason admin_publish(pmi_admin_link *link,
                                     const pmi_mqtt_packet *packet)
{
    pmi_admin_msg msg = {0};
    pm_close_reason why = PM_CLOSE_NONE;
    pm_err err = admin_parse(link, packet->payload, &msg.tree);
    if (err)
        return err == PM_ENOMEM ? PM_CLOSE_MEMORY : PM_CLOSE_MESSAGE;
    if (!admin_sort(link, packet->topic, &msg))
        why = PM_CLOSE_MESSAGE;
    else if (msg.kind == PMI_ADMIN_NOTIFY && pmi_json_get(msg.tree, "respId"))
        admin_heard_answer(link, msg.tree);
    else
        why = link->ops->heard(link, &msg);
    cJSON_Delete(msg.tree);
    return why;
}

static pm_close_reason admin_heard(pmi_admin_link *link,
                                   const pmi_mqtt_packet *packet)
{
    pmi_mqtt_type hello = link->dialled ? PMI_MQTT_CONNACK : PMI_MQTT_CONNECT;
    pmi_mqtt_packet welcome = {.type = PMI_MQTT_CONNACK};
    if (packet->type == hello ? link->connected : !link->connected)
        return PM_CLOSE_PACKAGE; /* its first word, and never again */
    switch (packet->type) {
    case PMI_MQTT_CONNECT:
        if (link->dialled)
            return PM_CLOSE_PACKAGE;
        link->connected = true;
        return admin_say(link, &welcome) ? PM_CLOSE_MEMORY : PM_CLOSE_NONE;
    case PMI_MQTT_CONNACK:
        if (!link->dialled || packet->code)
            return PM_CLOSE_AUTH;
        link->connected = true;
        if (link->ops->opened)
            link->ops->opened(link);
        return PM_CLOSE_NONE;
    case PMI_MQTT_PUBLISH:
        return admin_publish(link, packet);
    case PMI_MQTT_PINGREQ:
        admin_say_small(link, PMI_MQTT_PINGRESP);
        return PM_CLOSE_NONE;
    case PMI_MQTT_DISCONNECT:
        link->left = true;
        return PM_CLOSE_CLIENT;
    default:
        return PM_CLOSE_NONE;
    }
}

/* ---- The connection ---------------------------------------------------- */

/* Another protocol shows at its first byte; it need not be waited for. */
static bool admin_may_speak(const pmi_admin_link *link, uint8_t first)
{
    int hello = link->dialled ? PMI_MQTT_CONNACK : PMI_MQTT_CONNECT;
    return link->connected || first >> 4 == hello;
}

static size_t admin_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    pmi_admin_link *link = ctx;
    size_t used = 0;
    link->heard_us = pmi_loop_now_us(link->loop);
    while (used < len) {
        pmi_mqtt_packet packet;
        pm_close_reason why;
        long n = PM_EFRAME;
        if (admin_may_speak(link, data[used]))
            n = pmi_mqtt_decode(data + used, len - used, link->in_max, &packet);
        if (n == 0)
            break;
        if (n > 0)
            why = admin_heard(link, &packet);
        else
            why = n == PM_ESIZE ? PM_CLOSE_PACKAGE_SIZE : PM_CLOSE_PACKAGE;
        if (link->freed || pmi_conn_is_closing(conn))
            return len;
        if (why) {
            pmi_conn_close(conn, why, false, 0);
            return len;
        }
        used += (size_t)n;
        if (used < len && pmi_loop_over_budget(link->loop)) {
            pmi_conn_pause(conn); /* the rest comes in the next turn */
            pmi_conn_resume(conn);
            break;
        }
    }
    return used;
}

static void admin_message(pmi_conn *conn, uint8_t *data, size_t len, bool text,
                          void *ctx)
{
    (void)data;
    (void)len;
    (void)text;
    (void)ctx;
    pmi_conn_close(conn, PM_CLOSE_PACKAGE, false, 0); /* no such thing here */
}

static void admin_open(pmi_conn *conn, void *ctx)
{
    pmi_admin_link *link = ctx;
    pmi_mqtt_packet packet = {.type = PMI_MQTT_CONNECT,
                              .client_id = pm_text("MQTT_ADMIN_C")};
    if (link->dialled && admin_say(link, &packet))
        pmi_conn_close(conn, PM_CLOSE_MEMORY, false, 0);
}

/* Everybody who waits is told; nobody may ask anew meanwhile. */
static void admin_fail_waits(pmi_admin_link *link)
{
    pmi_map_walk walk = pmi_map_begin(&link->waits);
    while (pmi_map_next(&walk))
        admin_wait_fail(walk.value, PM_ECLOSED);
}

static void admin_forget_calls(pmi_admin_link *link)
{
    pmi_link *node;
    while ((node = pmi_list_take(&link->calls)))
        PMI_OUTER(node, pm_admin_call, in_link)->link = NULL;
}

static void admin_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    pmi_admin_link *link = ctx;
    pmi_conn_free(conn);
    link->conn = NULL;
    pmi_timer_clear(&link->timer);
    admin_fail_waits(link);
    if (!link->freed)
        link->ops->closed(link, why);
}

static const pmi_conn_events admin_events = {.data = admin_data,
                                             .message = admin_message,
                                             .open = admin_open,
                                             .closed = admin_closed};

/* ---- Life -------------------------------------------------------------- */

static pmi_admin_link *admin_link_new(pm_loop *loop, const pmi_env *env,
                                      const pmi_admin_ops *ops, void *owner)
{
    pmi_admin_link *link = pmi_zalloc(env, sizeof *link);
    if (!link)
        return NULL;
    link->loop = loop;
    link->env = *env;
    link->ops = ops;
    link->owner = owner;
    link->topic = "";
    link->heard_us = pmi_loop_now_us(loop);
    pmi_list_init(&link->calls);
    pmi_loop_map_init(loop, &link->waits);
    pmi_loop_hold(loop);
    return link;
}

pm_err pmi_admin_accept(pm_loop *loop, const pmi_env *env, pmi_conn *conn,
                        size_t in_max, const pmi_admin_ops *ops, void *owner,
                        pmi_admin_link **out)
{
    pmi_admin_link *link = admin_link_new(loop, env, ops, owner);
    if (!link)
        return PM_ENOMEM;
    link->conn = conn;
    link->in_max = in_max;
    *out = link;
    pmi_conn_start(conn, &admin_events, link);
    return PM_OK;
}

pm_err pmi_admin_dial(pm_loop *loop, const pmi_env *env,
                      const pmi_connect_opts *opts, const pmi_admin_ops *ops,
                      void *owner, pmi_admin_link **out)
{
    pmi_admin_link *link = admin_link_new(loop, env, ops, owner);
    pm_err err;
    if (!link)
        return PM_ENOMEM;
    link->dialled = true;
    link->in_max = opts->limits.in_max - PMI_MQTT_HEAD_MAX;
    err = pmi_conn_connect(loop, opts, &admin_events, link, &link->conn);
    if (err) {
        link->conn = NULL;
        pmi_admin_link_free(link);
        return err;
    }
    *out = link;
    return PM_OK;
}

static void admin_bury(pmi_task *grave)
{
    pmi_admin_link *link = PMI_OUTER(grave, pmi_admin_link, grave);
    pm_loop *loop = link->loop;
    pmi_map_fini(&link->waits);
    pmi_free(pmi_loop_env(loop), link);
    pmi_loop_drop(loop);
}

void pmi_admin_link_free(pmi_admin_link *link)
{
    pm_loop *loop;
    if (!link || link->freed)
        return;
    loop = link->loop;
    pmi_loop_enter(loop);
    link->freed = true;
    pmi_timer_clear(&link->timer);
    pmi_list_remove(&link->in_owner);
    if (link->conn)
        pmi_conn_flush(link->conn); /* the last words of this turn */
    pmi_conn_free(link->conn);
    link->conn = NULL;
    admin_fail_waits(link);
    admin_forget_calls(link);
    pmi_loop_bury(loop, &link->grave, admin_bury);
    pmi_loop_leave(loop);
}

void pmi_admin_leave(pmi_admin_link *link, pm_close_reason why)
{
    if (!link->conn || pmi_conn_is_closing(link->conn))
        return;
    if (link->connected)
        admin_say_small(link, PMI_MQTT_DISCONNECT);
    pmi_conn_close(link->conn, why, false, 0);
}
