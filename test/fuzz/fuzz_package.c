/* SPDX-License-Identifier: MIT */
/* fuzz_package.c -- packages and messages from strangers.
 *
 * The input is a TCP stream. It is read whole and byte by byte, which must
 * give the same packages; each is read as a message, which must be written
 * and read again as the same. The whole input is also one WebSocket frame. */
#include "pomelo_proto_internal.h"

#include <stdint.h>
#include <stdlib.h>

#define BODY_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds)
{
    if (!holds)
        abort();
}

static void message(pm_slice in)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    pmi_message a, b;
    if (pmi_proto_message_decode(in, &a) != PM_OK)
        return;
    const uint8_t *start = in.data, *body = a.body.data;
    need(body + a.body.len == start + in.len);
    need(a.id <= INT32_MAX && a.route.len <= PMI_ROUTE_MAX);
    if (a.type > PMI_MESSAGE_PUSH || (a.compressed && !a.code))
        return;
    size_t n = pmi_proto_message_head(head, a.type, a.id, a.route, a.code);
    need(n > 0 && n <= in.len);
    need(pmi_proto_message_decode(pm_bytes(head, n), &b) == PM_OK);
    need(a.type == b.type && a.id == b.id && a.code == b.code);
    need(a.compressed == b.compressed && pmi_slice_eq(a.route, b.route));
    need(b.body.len == 0);
}

/* Returns where reading ended: the consumed bytes, and why in *end. */
static size_t stream(const uint8_t *data, size_t size, bool slowly, long *end)
{
    size_t at = 0, seen = slowly ? 0 : size;
    pmi_package p;
    for (;;) {
        long n = pmi_proto_package_decode(data + at, seen - at, BODY_MAX, &p);
        if (n > 0) {
            need((size_t)n == PMI_PACKAGE_HEAD + p.body.len);
            if (!slowly)
                message(p.body);
            at += (size_t)n;
            need(at <= seen);
        } else if (n < 0 || seen == size) {
            *end = n;
            return at;
        } else {
            seen++;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    long fast, slow;
    pmi_package p;
    size_t at = stream(data, size, false, &fast);
    need(at == stream(data, size, true, &slow) && fast == slow);
    if (pmi_proto_package_frame(data, size, BODY_MAX, &p) == PM_OK) {
        need(p.type >= PMI_PACKAGE_HANDSHAKE && p.type <= PMI_PACKAGE_KICK);
        need(p.body.len <= size);
        message(p.body);
    }
    message(pm_bytes(data, size));
    return 0;
}
