/* SPDX-License-Identifier: MIT */
/* test/admin_stub.h -- a stranger at the master's door, or a master of our own:
 * says MQTT packets byte by byte and writes down what it hears.
 *
 * All is on a loop without sockets. What was heard is one line a packet:
 * "register {...}", "DISCONNECT", "CONNACK 0"; doubly encoded payloads are
 * written as they are inside. */
#ifndef TEST_ADMIN_STUB_H
#define TEST_ADMIN_STUB_H

#include "test.h"

#include "core/conn.h"
#include "core/json.h"
#include "core/mqtt.h"

#define STUB_HEARD_MAX (256 * 1024)

typedef struct stub {
    pm_loop *loop;
    pmi_conn *conn;
    pmi_listener *listener;
    char *heard; /* on the C library's heap */
    size_t heard_len;
    int packets, closed, opened;
    bool answers; /* monitor requests by error 1, as Node's servers do */
} stub;

static inline void stub_note(stub *s, const char *word, pm_slice more)
{
    size_t len = strlen(word);
    if (s->heard_len + len + more.len + 3 > STUB_HEARD_MAX)
        return;
    memcpy(s->heard + s->heard_len, word, len);
    s->heard_len += len;
    if (more.len) {
        s->heard[s->heard_len++] = ' ';
        memcpy(s->heard + s->heard_len, more.data, more.len);
        s->heard_len += more.len;
    }
    s->heard[s->heard_len++] = '\n';
    s->heard[s->heard_len] = 0;
}

static inline void stub_send(stub *s, const void *bytes, size_t len)
{
    pm_slice all = pm_bytes(bytes, len);
    if (s->conn)
        pmi_conn_send(s->conn, &all, 1, 0);
}

static inline void stub_say(stub *s, const pmi_mqtt_packet *packet)
{
    pmi_env env;
    pmi_buf buf;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&buf, &env, SIZE_MAX);
    assert_ok(pmi_mqtt_encode(packet, &buf));
    stub_send(s, buf.data, buf.len);
    pmi_buf_fini(&buf);
}

static inline void stub_say_small(stub *s, pmi_mqtt_type type)
{
    pmi_mqtt_packet packet = {.type = type};
    stub_say(s, &packet);
}

static inline void stub_publish(stub *s, const char *topic, const char *json)
{
    pmi_mqtt_packet packet = {.type = PMI_MQTT_PUBLISH,
                              .topic = pm_text(topic),
                              .payload = pm_text(json)};
    stub_say(s, &packet);
}

/* Encoded twice, as requests and answers are. */
static inline void stub_publish_twice(stub *s, const char *topic,
                                      const char *json)
{
    pmi_env env;
    pmi_buf buf;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&buf, &env, SIZE_MAX);
    pmi_json_add_string(&buf, pm_text(json));
    pmi_buf_add_byte(&buf, 0);
    stub_publish(s, topic, (const char *)buf.data);
    pmi_buf_fini(&buf);
}

static inline void stub_answer(stub *s, const char *inner)
{
    const char *at = strstr(inner, "{\"reqId\":");
    char text[128];
    unsigned long id;
    if (!s->answers || at != inner || !strstr(inner, "__monitorwatcher__"))
        return;
    id = strtoul(inner + 9, NULL, 10);
    snprintf(text, sizeof text, "{\"respId\":%lu,\"error\":1}", id);
    stub_publish_twice(s, "monitor", text);
}

static inline void stub_heard_publish(stub *s, const pmi_mqtt_packet *packet)
{
    char topic[64];
    struct cJSON *tree = NULL;
    pmi_env env;
    pmi_env_init(&env, NULL);
    snprintf(topic, sizeof topic, "%.*s", (int)packet->topic.len,
             (const char *)packet->topic.data);
    if (pmi_json_parse(&env, packet->payload, 32, &tree, NULL) == PM_OK &&
        cJSON_IsString(tree)) {
        stub_note(s, topic, pm_text(tree->valuestring));
        stub_answer(s, tree->valuestring);
    } else {
        stub_note(s, topic, packet->payload);
    }
    cJSON_Delete(tree);
}

static inline size_t stub_data(pmi_conn *conn, uint8_t *data, size_t len,
                               void *ctx)
{
    stub *s = ctx;
    size_t used = 0;
    (void)conn;
    while (used < len) {
        pmi_mqtt_packet packet;
        long n = pmi_mqtt_decode(data + used, len - used, 1 << 24, &packet);
        if (n <= 0)
            break;
        used += (size_t)n;
        s->packets++;
        if (packet.type == PMI_MQTT_PUBLISH)
            stub_heard_publish(s, &packet);
        else if (packet.type == PMI_MQTT_CONNACK)
            stub_note(s, packet.code ? "CONNACK no" : "CONNACK",
                      pm_bytes(NULL, 0));
        else if (packet.type == PMI_MQTT_DISCONNECT)
            stub_note(s, "DISCONNECT", pm_bytes(NULL, 0));
        else if (packet.type == PMI_MQTT_CONNECT)
            stub_note(s, "CONNECT", pm_bytes(NULL, 0));
        else if (packet.type == PMI_MQTT_PINGRESP)
            stub_note(s, "PINGRESP", pm_bytes(NULL, 0));
    }
    return used;
}

static inline void stub_message(pmi_conn *conn, uint8_t *data, size_t len,
                                bool text, void *ctx)
{
    (void)conn;
    (void)data;
    (void)len;
    (void)text;
    (void)ctx;
}

static inline void stub_open(pmi_conn *conn, void *ctx)
{
    (void)conn;
    ((stub *)ctx)->opened++;
}

static inline void stub_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    stub *s = ctx;
    (void)why;
    pmi_conn_free(conn);
    if (s->conn == conn)
        s->conn = NULL;
    s->closed++;
}

static const pmi_conn_events stub_events = {.data = stub_data,
                                            .message = stub_message,
                                            .open = stub_open,
                                            .closed = stub_closed};

/* To the master's door; nothing is said yet. */
static inline void stub_dial(stub *s, pm_loop *loop, uint16_t port)
{
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = port,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true,
                             .from = "stub"};
    memset(s, 0, sizeof *s);
    s->loop = loop;
    s->heard = calloc(1, STUB_HEARD_MAX);
    assert_non_null(s->heard);
    assert_ok(pmi_conn_connect(loop, &opts, &stub_events, s, &s->conn));
}

static inline void stub_accepted(pmi_listener *listener, pmi_conn *conn,
                                 void *ctx)
{
    stub *s = ctx;
    (void)listener;
    pmi_conn_free(s->conn);
    s->conn = conn;
    pmi_conn_start(conn, &stub_events, s);
}

/* A master of our own: takes one link at a time. */
static inline void stub_listen(stub *s, pm_loop *loop, uint16_t port)
{
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .port = port,
                            .framing = PMI_FRAMING_STREAM,
                            .accepted = stub_accepted,
                            .ctx = s};
    memset(s, 0, sizeof *s);
    s->loop = loop;
    s->heard = calloc(1, STUB_HEARD_MAX);
    assert_non_null(s->heard);
    assert_ok(pmi_listen(loop, &opts, &s->listener));
}

static inline void stub_hello(stub *s)
{
    pmi_mqtt_packet packet = {.type = PMI_MQTT_CONNECT,
                              .client_id = pm_text("stub")};
    stub_say(s, &packet);
}

/* Everything goes, without a word. */
static inline void stub_end(stub *s)
{
    pmi_conn_free(s->conn);
    pmi_listener_close(s->listener);
    free(s->heard);
    memset(s, 0, sizeof *s);
}

static inline bool stub_has(const stub *s, const char *text)
{
    return strstr(s->heard, text) != NULL;
}

static inline void stub_forget(stub *s)
{
    s->heard_len = 0;
    s->heard[0] = 0;
}

#endif
