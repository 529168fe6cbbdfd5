/* SPDX-License-Identifier: MIT */
/* core/mqtt.c -- MQTT packets, bytes to structs and back.
 *
 * Only what two ends say to each other without a broker: no QoS above 0, no
 * will, no user and password. What is refused is refused at its first wrong
 * byte, also while the rest is still on its way. Start at pmi_mqtt_decode. */
#include "mqtt.h"

#define MQTT_LENGTH_BYTES_MAX 4
#define MQTT_CLEAN_SESSION 0x02

/* ---- Bytes to structs -------------------------------------------------- */

/* Bytes of the length field, 0: incomplete, PM_EFRAME: over four bytes. */
static long mqtt_length(const uint8_t *at, size_t len, size_t *out)
{
    size_t value = 0;
    for (size_t i = 0; i < MQTT_LENGTH_BYTES_MAX; i++) {
        if (i == len)
            return 0;
        value |= (size_t)(at[i] & 0x7f) << (7 * i);
        if (!(at[i] & 0x80)) {
            *out = value;
            return (long)i + 1;
        }
    }
    return PM_EFRAME;
}

static pm_slice mqtt_text(pmi_cursor *c)
{
    size_t high = pmi_cursor_byte(c);
    size_t low = pmi_cursor_byte(c);
    return pmi_cursor_bytes(c, high << 8 | low);
}

static bool mqtt_is(pm_slice text, const char *name)
{
    return pmi_slice_eq(text, pm_text(name));
}

static bool mqtt_read_connect(pmi_cursor *c, pmi_mqtt_packet *out)
{
    pm_slice name = mqtt_text(c);
    uint8_t level = pmi_cursor_byte(c);
    uint8_t flags = pmi_cursor_byte(c);
    pmi_cursor_bytes(c, 2); /* keep-alive: silence is the owner's business */
    out->client_id = mqtt_text(c);
    return (mqtt_is(name, "MQTT") || mqtt_is(name, "MQIsdp")) &&
           (level == 3 || level == 4) && !(flags & ~MQTT_CLEAN_SESSION);
}

/* The body is all there. */
static bool mqtt_read(pmi_cursor *c, pmi_mqtt_packet *out)
{
    bool fits = true;
    switch (out->type) {
    case PMI_MQTT_CONNECT:
        fits = mqtt_read_connect(c, out);
        break;
    case PMI_MQTT_CONNACK:
        pmi_cursor_byte(c);
        out->code = pmi_cursor_byte(c);
        break;
    case PMI_MQTT_PUBLISH:
        out->topic = mqtt_text(c);
        out->payload = pmi_cursor_bytes(c, pmi_cursor_left(c));
        break;
    case PMI_MQTT_OTHER:
        pmi_cursor_bytes(c, pmi_cursor_left(c));
        break;
    default: /* no body */
        break;
    }
    return fits && !c->bad && pmi_cursor_left(c) == 0;
}

/* The flags that a type must have; subscriptions and what belongs to QoS 1 and
 * 2 are skipped whatever they say. */
static bool mqtt_type(uint8_t first, pmi_mqtt_type *out)
{
    unsigned type = first >> 4, flags = first & 0x0f;
    *out = PMI_MQTT_OTHER;
    if (type == 0 || type == 15)
        return false;
    if (type >= 4 && type <= 11)
        return true;
    *out = (pmi_mqtt_type)type;
    return flags == 0;
}

long pmi_mqtt_decode(const void *data, size_t len, size_t max,
                     pmi_mqtt_packet *out)
{
    const uint8_t *at = data;
    pmi_cursor c;
    size_t body = 0;
    long used;
    memset(out, 0, sizeof *out);
    if (len == 0)
        return 0;
    if (!mqtt_type(at[0], &out->type))
        return PM_EFRAME;
    used = mqtt_length(at + 1, len - 1, &body);
    if (used <= 0)
        return used;
    if (body > max)
        return PM_ESIZE;
    used++;
    if (len - (size_t)used < body)
        return 0;
    c = pmi_cursor_of(at + used, body);
    return mqtt_read(&c, out) ? used + (long)body : PM_EFRAME;
}

/* ---- Structs to bytes -------------------------------------------------- */

static size_t mqtt_head(uint8_t type, size_t body, uint8_t *head)
{
    size_t n = 1;
    head[0] = (uint8_t)(type << 4);
    do {
        head[n] = (uint8_t)(body & 0x7f);
        body >>= 7;
        if (body)
            head[n] |= 0x80;
        n++;
    } while (body);
    return n;
}

static void mqtt_put_length(uint8_t *at, size_t len)
{
    at[0] = (uint8_t)(len >> 8);
    at[1] = (uint8_t)len;
}

size_t pmi_mqtt_publish_head(size_t topic_len, size_t payload_len,
                             uint8_t head[PMI_MQTT_HEAD_MAX])
{
    size_t n;
    if (topic_len > PMI_MQTT_TOPIC_MAX ||
        payload_len > PMI_MQTT_LENGTH_MAX - 2 - topic_len)
        return 0;
    n = mqtt_head(PMI_MQTT_PUBLISH, 2 + topic_len + payload_len, head);
    mqtt_put_length(head + n, topic_len);
    return n + 2;
}

static pm_err mqtt_write_connect(pm_slice id, pmi_buf *out)
{
    static const uint8_t fixed[] = {
        0, 4, 'M', 'Q', 'T', 'T', 4, MQTT_CLEAN_SESSION, 0, 0};
    uint8_t head[PMI_MQTT_HEAD_MAX], length[2];
    if (id.len > PMI_MQTT_TOPIC_MAX)
        return PM_EINVAL;
    pmi_buf_add(out, head,
                mqtt_head(PMI_MQTT_CONNECT, sizeof fixed + 2 + id.len, head));
    pmi_buf_add(out, fixed, sizeof fixed);
    mqtt_put_length(length, id.len);
    pmi_buf_add(out, length, sizeof length);
    pmi_buf_add(out, id.data, id.len);
    return PM_OK;
}

static pm_err mqtt_write_publish(const pmi_mqtt_packet *packet, pmi_buf *out)
{
    uint8_t head[PMI_MQTT_HEAD_MAX];
    size_t n;
    if (packet->topic.len > PMI_MQTT_TOPIC_MAX)
        return PM_EINVAL;
    n = pmi_mqtt_publish_head(packet->topic.len, packet->payload.len, head);
    if (!n)
        return PM_ESIZE;
    pmi_buf_add(out, head, n);
    pmi_buf_add(out, packet->topic.data, packet->topic.len);
    pmi_buf_add(out, packet->payload.data, packet->payload.len);
    return PM_OK;
}

pm_err pmi_mqtt_encode(const pmi_mqtt_packet *packet, pmi_buf *out)
{
    uint8_t small[4] = {0};
    size_t was = out->len;
    pm_err err = PM_OK;
    switch (packet->type) {
    case PMI_MQTT_CONNECT:
        err = mqtt_write_connect(packet->client_id, out);
        break;
    case PMI_MQTT_PUBLISH:
        err = mqtt_write_publish(packet, out);
        break;
    case PMI_MQTT_CONNACK:
        mqtt_head(PMI_MQTT_CONNACK, 2, small);
        small[3] = packet->code;
        pmi_buf_add(out, small, 4);
        break;
    case PMI_MQTT_PINGREQ:
    case PMI_MQTT_PINGRESP:
    case PMI_MQTT_DISCONNECT:
        pmi_buf_add(out, small, mqtt_head((uint8_t)packet->type, 0, small));
        break;
    default:
        return PM_EINVAL;
    }
    if (err == PM_OK && !out->failed)
        return PM_OK;
    out->len = was;
    return err ? err : PM_ENOMEM;
}
