/* SPDX-License-Identifier: MIT */
/* core/mqtt.h -- the packets of MQTT 3.1.1 that two ends need without a broker
 * between them: bytes to structs and back.
 *
 *     | type, flags (1) | length (1-4, 7 bits each, low first) | body ... |
 *
 *     CONNECT     name, level, flags, keep-alive, client id
 *     CONNACK     0, code
 *     PUBLISH     length (2), topic, payload: QoS 0 alone
 *     PINGREQ  PINGRESP  DISCONNECT     no body
 *
 * Floor 1: knows bytes, keeps nothing between calls; the caller holds what is
 * incomplete. Every length is bounded before anything waits for it. */
#ifndef PMI_MQTT_H
#define PMI_MQTT_H

#include "buf.h"

typedef enum pmi_mqtt_type {
    PMI_MQTT_OTHER = 0, /* well formed, not for us: to be ignored */
    PMI_MQTT_CONNECT = 1,
    PMI_MQTT_CONNACK = 2,
    PMI_MQTT_PUBLISH = 3,
    PMI_MQTT_PINGREQ = 12,
    PMI_MQTT_PINGRESP = 13,
    PMI_MQTT_DISCONNECT = 14
} pmi_mqtt_type;

/* Slices are borrowed: from the input, or until the encoder returns. */
typedef struct pmi_mqtt_packet {
    pmi_mqtt_type type;
    pm_slice topic, payload; /* PUBLISH */
    pm_slice client_id;      /* CONNECT */
    uint8_t code;            /* CONNACK; 0: welcome */
} pmi_mqtt_packet;

#define PMI_MQTT_TOPIC_MAX 65535
#define PMI_MQTT_LENGTH_MAX 268435455
/* Type, four bytes of length, two of the topic's. */
#define PMI_MQTT_HEAD_MAX 7

/* One packet from the front. Bytes used; 0: incomplete; PM_ESIZE: its body is
 * announced longer than `max`; PM_EFRAME: no such packet. */
long pmi_mqtt_decode(const void *data, size_t len, size_t max,
                     pmi_mqtt_packet *out);
/* Appends one packet. PM_EINVAL a topic or client id over 65,535 bytes, or a
 * type that is not to be sent; PM_ESIZE; PM_ENOMEM */
pm_err pmi_mqtt_encode(const pmi_mqtt_packet *packet, pmi_buf *out);
/* What stands before topic and payload of a PUBLISH, so that large ones need
 * no copy. Its length; 0: too long. */
size_t pmi_mqtt_publish_head(size_t topic_len, size_t payload_len,
                             uint8_t head[PMI_MQTT_HEAD_MAX]);

#endif
