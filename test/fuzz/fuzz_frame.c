/* SPDX-License-Identifier: MIT */
/* fuzz_frame.c -- frames between servers, from one who is none.
 *
 * The input is a link's bytes. Beside memory errors it looks for slices that
 * lie outside of the input, an answer that changes when more bytes come, and
 * a frame that our own writer does not give back. */
#include "pomelo_frame_internal.h"

#include <stdlib.h>

#define FRAME_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds)
{
    if (!holds)
        abort();
}

static void inside(pm_slice s, const uint8_t *data, size_t len)
{
    uintptr_t from = (uintptr_t)data, at = (uintptr_t)s.data;
    if (s.len)
        need(at >= from && s.len <= len && at - from <= len - s.len);
}

static void all_inside(const pmi_frame *f, const uint8_t *data, size_t len)
{
    const pm_slice all[] = {f->method, f->detail, f->extra, f->body.data,
                            f->from,   f->to,     f->nonce, f->mac};
    for (size_t i = 0; i < PMI_COUNT(all); i++)
        inside(all[i], data, len);
}

static void same(const pmi_frame *a, const pmi_frame *b)
{
    bool proof = a->kind <= PMI_FRAME_PROOF;
    need(a->kind == b->kind && a->id == b->id && a->op == b->op);
    need(a->notify == b->notify && a->deadline_ms == b->deadline_ms);
    need(a->trace_id == b->trace_id && a->err == b->err && a->code == b->code);
    need(a->version == b->version && a->incarnation == b->incarnation);
    need(a->body.kind == b->body.kind);
    need(pmi_slice_eq(a->method, b->method));
    need(pmi_slice_eq(a->detail, b->detail));
    need(pmi_slice_eq(a->extra, b->extra));
    need(pmi_slice_eq(a->body.data, b->body.data));
    if (!proof)
        return;
    need(pmi_slice_eq(a->from, b->from) && pmi_slice_eq(a->to, b->to));
    need(pmi_slice_eq(a->nonce, b->nonce) && pmi_slice_eq(a->mac, b->mac));
}

/* What nobody sends: a hello with a call in it would need more parts than the
 * writer has. */
static bool is_sane(const pmi_frame *f)
{
    bool proof = f->kind <= PMI_FRAME_PROOF;
    return f->method.len <= 255 && f->detail.len <= 1024 &&
           (!proof ||
            !(f->method.len + f->detail.len + f->extra.len + f->body.data.len));
}

static void again(const pmi_frame *frame, size_t used)
{
    pmi_frame_out out;
    pmi_frame other;
    uint8_t copy[2 * FRAME_MAX];
    size_t len = 0;
    if (!is_sane(frame))
        return;
    need(pmi_frame_encode(frame, &out) == PM_OK);
    need(out.count <= PMI_FRAME_PARTS && out.total <= used + 64);
    for (size_t i = 0; i < out.count; i++) {
        need(out.parts[i].len > 0);
        memcpy(copy + len, out.parts[i].data, out.parts[i].len);
        len += out.parts[i].len;
    }
    need(len == out.total);
    need(pmi_frame_decode(copy, len, FRAME_MAX + 64, &other) == (long)len);
    same(frame, &other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0;
    for (;;) {
        pmi_frame frame, other;
        long used = pmi_frame_decode(data + at, size - at, FRAME_MAX, &frame);
        if (used <= 0) {
            need(used == PM_EFRAME || used == PM_ESIZE ||
                 (used == 0 && size - at < PMI_FRAME_HEAD + FRAME_MAX));
            return 0;
        }
        need((size_t)used <= size - at && used >= PMI_FRAME_HEAD);
        all_inside(&frame, data + at, (size_t)used);
        need(pmi_frame_decode(data + at, (size_t)used - 1, FRAME_MAX, &other) ==
             0);
        need(pmi_frame_decode(data + at, (size_t)used, FRAME_MAX, &other) ==
             used);
        same(&frame, &other);
        again(&frame, (size_t)used);
        at += (size_t)used;
    }
}
