/* SPDX-License-Identifier: MIT */
/* test/fuzz/fuzz_ws.c -- a stranger's first bytes and frames.
 *
 * The input is read three times: as a request (which is then answered), as a
 * response, and as a row of frames. Beside memory errors it looks for answers
 * that contradict each other: slices outside of the input, a head that changes
 * when more bytes come, an answer that our own client would not read. */
#include "core/ws.h"

#include <stdlib.h>

#define FUZZ_CHECK(x) ((x) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef long fuzz_parse(const uint8_t *data, size_t len, pmi_http_head *head);

static void check_slice(pm_slice s, const uint8_t *data, size_t len)
{
    uintptr_t from = (uintptr_t)data, at = (uintptr_t)s.data;
    if (s.len)
        FUZZ_CHECK(at >= from && s.len <= len && at - from <= len - s.len);
}

static void check_head(const pmi_http_head *head, const uint8_t *data,
                       size_t len)
{
    check_slice(head->method, data, len);
    check_slice(head->target, data, len);
    check_slice(head->ws_key, data, len);
    check_slice(head->ws_version, data, len);
    check_slice(head->ws_protocol, data, len);
    check_slice(head->ws_accept, data, len);
    check_slice(head->host, data, len);
    check_slice(head->origin, data, len);
    FUZZ_CHECK(head->forwarded_count <= PMI_HTTP_FORWARDED_MAX);
    for (uint8_t i = 0; i < head->forwarded_count; i++)
        check_slice(head->forwarded_for[i], data, len);
}

static bool parse(fuzz_parse *how, const uint8_t *data, size_t size,
                  pmi_http_head *head)
{
    pmi_http_head other;
    long used = how(data, size, head);
    if (used <= 0) {
        FUZZ_CHECK(used == PM_EHTTP ||
                   (used == PMI_WS_MORE && size < PMI_HTTP_HEAD_MAX));
        return false;
    }
    FUZZ_CHECK((size_t)used <= size && used <= PMI_HTTP_HEAD_MAX);
    check_head(head, data, (size_t)used);
    FUZZ_CHECK(how(data, (size_t)used, &other) == used);
    FUZZ_CHECK(how(data, (size_t)used - 1, &other) == PMI_WS_MORE);
    return true;
}

static void read_request(const uint8_t *data, size_t size)
{
    int sniffed = pmi_http_sniff(data, size);
    pmi_http_head head, answer;
    pmi_env env;
    pmi_buf out;
    pm_err err;
    FUZZ_CHECK(sniffed >= -1 && sniffed <= 1 && (sniffed || size < 4));
    if (!parse(pmi_http_request_parse, data, size, &head))
        return;
    FUZZ_CHECK(head.method.len && head.target.len);
    pmi_env_init(&env, NULL);
    pmi_buf_init(&out, &env, SIZE_MAX);
    err = pmi_ws_answer_upgrade(&head, &out);
    FUZZ_CHECK(pmi_http_response_parse(out.data, out.len, &answer) ==
               (long)out.len);
    FUZZ_CHECK(answer.status == (err ? 400 : 101));
    FUZZ_CHECK(answer.upgrade_websocket == !err);
    FUZZ_CHECK(answer.ws_accept.len == (err ? 0 : 28));
    pmi_buf_fini(&out);
}

/* Plain unmasking, by the definition. */
static void unmask_slowly(uint8_t *data, size_t len, const uint8_t mask[4],
                          size_t offset)
{
    for (size_t i = 0; i < len; i++)
        data[i] ^= mask[(offset + i) % 4];
}

static void check_frame(const uint8_t *data, size_t used,
                        const pmi_ws_frame *frame)
{
    uint8_t again[14];
    size_t size = pmi_ws_head_write(again, frame->opcode, frame->len,
                                    frame->masked ? frame->mask : NULL);
    FUZZ_CHECK(size == used);
    FUZZ_CHECK(size == pmi_ws_head_size(frame->len, frame->masked));
    if (!frame->fin)
        again[0] &= 0x7f;
    FUZZ_CHECK(memcmp(again, data, used) == 0);
}

static void read_frames(uint8_t *data, size_t size)
{
    size_t at = 0;
    for (;;) {
        pmi_ws_frame frame;
        long used = pmi_ws_head_parse(data + at, size - at, &frame);
        size_t len, cut;
        if (used <= 0) {
            FUZZ_CHECK(used == PM_EWS ||
                       (used == PMI_WS_MORE && size - at < 14));
            return;
        }
        FUZZ_CHECK((size_t)used <= size - at);
        check_frame(data + at, (size_t)used, &frame);
        at += (size_t)used;
        len = frame.len < size - at ? (size_t)frame.len : size - at;
        if (frame.masked) {
            cut = len ? frame.mask[0] % len : 0;
            pmi_ws_unmask(data + at, cut, frame.mask, 0);
            pmi_ws_unmask(data + at + cut, len - cut, frame.mask, cut);
            unmask_slowly(data + at, len, frame.mask, 0);
        }
        at += len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_http_head head;
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    read_request(data, size);
    (void)parse(pmi_http_response_parse, data, size, &head);
    read_frames(copy, size);
    /* Unmasked twice, by both: as it was. */
    FUZZ_CHECK(size == 0 || memcmp(copy, data, size) == 0);
    free(copy);
    return 0;
}
