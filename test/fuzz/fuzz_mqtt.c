/* SPDX-License-Identifier: MIT */
/* test/fuzz/fuzz_mqtt.c -- a row of MQTT packets from a stranger.
 *
 * Beside memory errors it looks for slices outside of the input, answers that
 * change when more bytes come, and packets that our own writer does not give
 * back. */
#include "core/mqtt.h"

#include <stdlib.h>

#define FUZZ_CHECK(x) ((x) ? (void)0 : __builtin_trap())
#define FUZZ_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_slice(pm_slice s, const uint8_t *data, size_t len)
{
    uintptr_t from = (uintptr_t)data, at = (uintptr_t)s.data;
    if (s.len)
        FUZZ_CHECK(at >= from && s.len <= len && at - from <= len - s.len);
}

static void check_again(const pmi_mqtt_packet *packet, pmi_buf *buf)
{
    pmi_mqtt_packet again;
    if (packet->type == PMI_MQTT_OTHER)
        return;
    pmi_buf_reset(buf);
    FUZZ_CHECK(pmi_mqtt_encode(packet, buf) == PM_OK);
    FUZZ_CHECK(pmi_mqtt_decode(buf->data, buf->len, FUZZ_MAX + 16, &again) ==
               (long)buf->len);
    FUZZ_CHECK(again.type == packet->type && again.code == packet->code &&
               pmi_slice_eq(again.topic, packet->topic) &&
               pmi_slice_eq(again.payload, packet->payload) &&
               pmi_slice_eq(again.client_id, packet->client_id));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0;
    pmi_env env;
    pmi_buf buf;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&buf, &env, SIZE_MAX);
    for (;;) {
        pmi_mqtt_packet packet, other;
        long used = pmi_mqtt_decode(data + at, size - at, FUZZ_MAX, &packet);
        if (used <= 0) {
            FUZZ_CHECK(used == PM_EFRAME || used == PM_ESIZE ||
                       (used == 0 && size - at < FUZZ_MAX + 5));
            break;
        }
        FUZZ_CHECK((size_t)used <= size - at);
        check_slice(packet.topic, data + at, (size_t)used);
        check_slice(packet.payload, data + at, (size_t)used);
        check_slice(packet.client_id, data + at, (size_t)used);
        FUZZ_CHECK(pmi_mqtt_decode(data + at, (size_t)used, FUZZ_MAX, &other) ==
                   used);
        FUZZ_CHECK(pmi_mqtt_decode(data + at, (size_t)used - 1, FUZZ_MAX,
                                   &other) == 0);
        check_again(&packet, &buf);
        at += (size_t)used;
    }
    pmi_buf_fini(&buf);
    return 0;
}
