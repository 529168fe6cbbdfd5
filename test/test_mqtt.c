/* SPDX-License-Identifier: MIT */
/* test/test_mqtt.c -- core/mqtt: packets cut anywhere, lengths that lie, what
 * is refused, and that what is written is read again. */
#include "test.h"

#include "core/mqtt.h"

static long decode(const char *hex, size_t max, pmi_mqtt_packet *out)
{
    size_t len;
    uint8_t *bytes = test_unhex(hex, &len);
    long used = pmi_mqtt_decode(bytes, len, max, out);
    free(bytes); /* only lengths and types are looked at */
    return used;
}

static void assert_text(pm_slice got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.data, want, got.len);
}

/* Recorded: what Pomelo's monitor and master say first. */
static void test_recorded(void **state)
{
    static const char connect[] =
        "102400044d5154540402000000184d5154545f41444d494e5f31373935333930323938"
        "333437";
    size_t len;
    uint8_t *bytes = test_unhex(connect, &len);
    pmi_mqtt_packet p;
    (void)state;
    assert_int_equal(pmi_mqtt_decode(bytes, len, 100, &p), len);
    assert_int_equal(p.type, PMI_MQTT_CONNECT);
    assert_text(p.client_id, "MQTT_ADMIN_1795390298347");
    free(bytes);
    assert_int_equal(decode("20020000", 100, &p), 4);
    assert_int_equal(p.type, PMI_MQTT_CONNACK);
    assert_int_equal(p.code, 0);
    assert_int_equal(decode("20020005", 100, &p), 4);
    assert_int_equal(p.code, 5);
    assert_int_equal(decode("c000", 0, &p), 2);
    assert_int_equal(p.type, PMI_MQTT_PINGREQ);
    assert_int_equal(decode("d000", 0, &p), 2);
    assert_int_equal(p.type, PMI_MQTT_PINGRESP);
    assert_int_equal(decode("e000c000", 0, &p), 2);
    assert_int_equal(p.type, PMI_MQTT_DISCONNECT);
}

/* Every prefix is incomplete, and nothing is read behind it. */
static void test_cut(void **state)
{
    static const char *const packets[] = {"101000044d515454040200000004"
                                          "61626364",
                                          "20020000",
                                          "300c0005"
                                          "746f706963"
                                          "7b7d7b7d7b",
                                          "e000", "8206000100016100"};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(packets); i++) {
        size_t len;
        uint8_t *bytes = test_unhex(packets[i], &len);
        pmi_mqtt_packet p;
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *part = test_copy(bytes, cut);
            assert_int_equal(pmi_mqtt_decode(part, cut, 1000, &p), 0);
            free(part);
        }
        assert_int_equal(pmi_mqtt_decode(bytes, len, 1000, &p), len);
        free(bytes);
    }
}

static void test_lengths(void **state)
{
    pmi_mqtt_packet p;
    (void)state;
    /* 100 MB, 268,435,455 bytes, five bytes of length: known at the head. */
    assert_int_equal(decode("3080c2d72f", 1024 * 1024, &p), PM_ESIZE);
    assert_int_equal(decode("30ffffff7f", 1024 * 1024, &p), PM_ESIZE);
    assert_int_equal(decode("30ffffffff", 1024 * 1024, &p), PM_EFRAME);
    assert_int_equal(decode("30ffffff", 1024 * 1024, &p), 0);
    assert_int_equal(decode("3004000161ff", 4, &p), 6);
    assert_int_equal(p.payload.len, 1);
    assert_int_equal(decode("3004000161ff", 3, &p), PM_ESIZE);
    /* Longer than need be, as MQTT forbids but parsers take: one meaning. */
    assert_int_equal(decode("c08000", 0, &p), 3);
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "0000",
        "f000",
        "c001ff",
        "e100",
        "2001ff",
        "2003000000",
        "3001ff",           /* no room for a topic */
        "30020001",         /* topic longer than the packet */
        "3104000161ff",     /* retain */
        "320600016100017b", /* QoS 1 */
        "101000044d515454050200000004"
        "61626364", /* level 5 */
        "101000044d515455040200000004"
        "61626364", /* MQTU */
        "101000044d515454048200000004"
        "61626364", /* a user name */
        "101000044d515454040200000003"
        "61626364", /* a byte too many */
        "101000044d515454040200000005"
        "61626364"};
    pmi_mqtt_packet p;
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(bad); i++)
        if (decode(bad[i], 1000, &p) != PM_EFRAME)
            fail_msg("%s is taken", bad[i]);
    /* Subscriptions are skipped. */
    assert_int_equal(decode("8206000100016100", 1000, &p), 8);
    assert_int_equal(p.type, PMI_MQTT_OTHER);
}

static void round_trip(pmi_buf *buf, const pmi_mqtt_packet *packet)
{
    pmi_mqtt_packet again;
    pmi_buf_reset(buf);
    assert_ok(pmi_mqtt_encode(packet, buf));
    assert_int_equal(
        pmi_mqtt_decode(buf->data, buf->len, PMI_MQTT_LENGTH_MAX, &again),
        buf->len);
    assert_int_equal(again.type, packet->type);
    assert_true(pmi_slice_eq(again.topic, packet->topic));
    assert_true(pmi_slice_eq(again.payload, packet->payload));
    assert_true(pmi_slice_eq(again.client_id, packet->client_id));
    assert_int_equal(again.code, packet->code);
}

static void test_round_trips(void **state)
{
    static const size_t lens[] = {0,     1,      119,     120,
                                  121,   16374,  16375,   16376,
                                  65535, 100000, 2097151, 2100000};
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    char *text = calloc(1, 2100001);
    pmi_mqtt_packet p = {.type = PMI_MQTT_CONNECT, .client_id = pm_text("abc")};
    pmi_buf buf;
    (void)state;
    assert_non_null(text);
    pmi_buf_init(&buf, &env, SIZE_MAX);
    round_trip(&buf, &p);
    for (size_t i = 0; i < PMI_COUNT(lens); i++) {
        pmi_mqtt_packet publish = {.type = PMI_MQTT_PUBLISH,
                                   .topic = pm_text("monitor"),
                                   .payload = pm_bytes(text, lens[i])};
        round_trip(&buf, &publish);
        publish.topic = pm_bytes(text, pmi_min(lens[i], 65535));
        round_trip(&buf, &publish);
    }
    for (int type = PMI_MQTT_PINGREQ; type <= PMI_MQTT_DISCONNECT; type++) {
        pmi_mqtt_packet small = {.type = (pmi_mqtt_type)type};
        round_trip(&buf, &small);
        assert_int_equal(buf.len, 2);
    }
    p = (pmi_mqtt_packet){.type = PMI_MQTT_CONNACK, .code = 2};
    round_trip(&buf, &p);
    pmi_buf_fini(&buf);
    free(text);
    assert_heap_empty(&heap);
}

static void test_not_written(void **state)
{
    test_heap heap = {0};
    pmi_env env = test_env(&heap);
    uint8_t head[PMI_MQTT_HEAD_MAX];
    pmi_mqtt_packet p = {.type = PMI_MQTT_OTHER};
    pmi_buf buf;
    (void)state;
    pmi_buf_init(&buf, &env, 20);
    assert_err(pmi_mqtt_encode(&p, &buf), PM_EINVAL);
    p.type = PMI_MQTT_PUBLISH;
    p.topic = pm_bytes("", 65536);
    assert_err(pmi_mqtt_encode(&p, &buf), PM_EINVAL);
    p.topic = pm_text("a topic that is longer than the buffer");
    assert_err(pmi_mqtt_encode(&p, &buf), PM_ENOMEM);
    assert_int_equal(buf.len, 0);
    assert_int_equal(pmi_mqtt_publish_head(1, PMI_MQTT_LENGTH_MAX - 3, head),
                     7);
    assert_int_equal(pmi_mqtt_publish_head(1, PMI_MQTT_LENGTH_MAX - 2, head),
                     0);
    assert_int_equal(pmi_mqtt_publish_head(1, SIZE_MAX, head), 0);
    pmi_buf_fini(&buf);
    assert_heap_empty(&heap);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_recorded),    cmocka_unit_test(test_cut),
    cmocka_unit_test(test_lengths),     cmocka_unit_test(test_refused),
    cmocka_unit_test(test_round_trips), cmocka_unit_test(test_not_written),
};
TEST_MAIN(tests)
