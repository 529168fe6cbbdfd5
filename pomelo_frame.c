/* SPDX-License-Identifier: MIT */
/* pomelo_frame.c -- the wire between servers, bytes to structs and back. */
#include "pomelo_frame_internal.h"
#include "core/pb.h"

/* Field numbers: docs/PROTOCOL.md. Never renumbered. */
enum {
    FRAME_KIND = 1,
    FRAME_ID = 2,
    FRAME_OP = 3,
    FRAME_METHOD = 4,
    FRAME_DEADLINE = 5,
    FRAME_TRACE = 6,
    FRAME_ERR = 7,
    FRAME_CODE = 8,
    FRAME_DETAIL = 9,
    FRAME_EXTRA = 10,
    FRAME_BODY_KIND = 11,
    FRAME_BODY = 12,
    FRAME_NOTIFY = 13,
    FRAME_FROM = 14,
    FRAME_TO = 15,
    FRAME_INCARNATION = 16,
    FRAME_NONCE = 17,
    FRAME_MAC = 18,
    FRAME_VERSION = 19,
    FRAME_MANNER = 20
};

/* sint32 of protobuf: small negative numbers stay short. */
static uint64_t frame_zigzag(int32_t value)
{
    return (uint32_t)value << 1 ^ (uint32_t)(value < 0 ? -1 : 0);
}

static int32_t frame_unzigzag(uint64_t value)
{
    uint32_t v = (uint32_t)value;
    return (int32_t)(v >> 1 ^ (0u - (v & 1)));
}

static void frame_take(pmi_frame *out, const pmi_pb_field *field)
{
    switch (field->tag) {
    case FRAME_KIND:
        out->kind = (uint32_t)field->number;
        break;
    case FRAME_ID:
        out->id = field->number;
        break;
    case FRAME_OP:
        out->op = (uint32_t)field->number;
        break;
    case FRAME_METHOD:
        out->method = field->bytes;
        break;
    case FRAME_DEADLINE:
        out->deadline_ms = (uint32_t)field->number;
        break;
    case FRAME_TRACE:
        out->trace_id = field->number;
        break;
    case FRAME_ERR:
        out->err = frame_unzigzag(field->number);
        break;
    case FRAME_CODE:
        out->code = frame_unzigzag(field->number);
        break;
    case FRAME_DETAIL:
        out->detail = field->bytes;
        break;
    case FRAME_EXTRA:
        out->extra = field->bytes;
        break;
    case FRAME_BODY_KIND:
        out->body.kind = field->number <= PM_BODY_PROTO
                             ? (pm_body_kind)field->number
                             : PM_BODY_BYTES;
        break;
    case FRAME_BODY:
        out->body.data = field->bytes;
        break;
    case FRAME_NOTIFY:
        out->notify = field->number != 0;
        break;
    case FRAME_FROM:
        out->from = field->bytes;
        break;
    case FRAME_TO:
        out->to = field->bytes;
        break;
    case FRAME_INCARNATION:
        out->incarnation = field->number;
        break;
    case FRAME_NONCE:
        out->nonce = field->bytes;
        break;
    case FRAME_MAC:
        out->mac = field->bytes;
        break;
    case FRAME_VERSION:
        out->version = (uint32_t)field->number;
        break;
    case FRAME_MANNER:
        out->manner = field->bytes;
        break;
    default:
        break; /* a newer peer's: not for us */
    }
}

long pmi_frame_decode(const uint8_t *data, size_t len, size_t max,
                      pmi_frame *out)
{
    pmi_pb_field field;
    pmi_cursor in;
    size_t size;
    if (len < PMI_FRAME_HEAD)
        return 0;
    size = pmi_get_be32(data);
    if (size > max)
        return PM_ESIZE;
    if (len - PMI_FRAME_HEAD < size)
        return 0;
    memset(out, 0, sizeof *out);
    in = pmi_cursor_of(data + PMI_FRAME_HEAD, size);
    while (pmi_pb_next(&in, &field))
        frame_take(out, &field);
    if (in.bad || !out->kind)
        return PM_EFRAME;
    return (long)(PMI_FRAME_HEAD + size);
}

/* ---- Encode ------------------------------------------------------------ */
/* Heads gather in `room`; a run of them becomes a part when bytes from
 * elsewhere follow. */

typedef struct frame_writer {
    pmi_frame_out *out;
    uint8_t *p, *run; /* where we write; where the present run began */
} frame_writer;

static void frame_end_run(frame_writer *w)
{
    pmi_frame_out *out = w->out;
    if (w->p == w->run)
        return;
    out->parts[out->count++] = pm_bytes(w->run, (size_t)(w->p - w->run));
    out->total += (size_t)(w->p - w->run);
    w->run = w->p;
}

static void frame_number(frame_writer *w, uint32_t tag, uint64_t value)
{
    if (value)
        w->p = pmi_pb_put_number(w->p, tag, value);
}

static void frame_bytes(frame_writer *w, uint32_t tag, pm_slice bytes)
{
    if (!bytes.len)
        return;
    w->p = pmi_pb_put_bytes_head(w->p, tag, bytes.len);
    if (bytes.len <= 24) { /* cheaper to copy than to refer to */
        memcpy(w->p, bytes.data, bytes.len);
        w->p += bytes.len;
        return;
    }
    frame_end_run(w);
    w->out->parts[w->out->count++] = bytes;
    w->out->total += bytes.len;
}

pm_err pmi_frame_encode(const pmi_frame *frame, pmi_frame_out *out)
{
    frame_writer w = {out, out->room + PMI_FRAME_HEAD, out->room};
    out->count = out->total = 0;
    if (frame->method.len > 255 || frame->detail.len > 1024 ||
        frame->body.data.len + frame->extra.len > PMI_FRAME_MAX - 4096)
        return PM_ESIZE;
    frame_number(&w, FRAME_KIND, frame->kind);
    frame_number(&w, FRAME_ID, frame->id);
    frame_number(&w, FRAME_OP, frame->op);
    frame_number(&w, FRAME_NOTIFY, frame->notify);
    frame_number(&w, FRAME_DEADLINE, frame->deadline_ms);
    frame_number(&w, FRAME_TRACE, frame->trace_id);
    frame_number(&w, FRAME_ERR, frame_zigzag(frame->err));
    frame_number(&w, FRAME_CODE, frame_zigzag(frame->code));
    frame_number(&w, FRAME_BODY_KIND, frame->body.kind);
    frame_number(&w, FRAME_INCARNATION, frame->incarnation);
    frame_number(&w, FRAME_VERSION, frame->version);
    frame_bytes(&w, FRAME_METHOD, frame->method);
    frame_bytes(&w, FRAME_DETAIL, frame->detail);
    if (frame->kind <= PMI_FRAME_PROOF) {
        frame_bytes(&w, FRAME_FROM, frame->from);
        frame_bytes(&w, FRAME_TO, frame->to);
        frame_bytes(&w, FRAME_NONCE, frame->nonce);
        frame_bytes(&w, FRAME_MAC, frame->mac);
    }
    frame_bytes(&w, FRAME_MANNER, frame->manner);
    frame_bytes(&w, FRAME_EXTRA, frame->extra);
    frame_bytes(&w, FRAME_BODY, frame->body.data);
    frame_end_run(&w);
    pmi_put_be32(out->room, (uint32_t)(out->total - PMI_FRAME_HEAD));
    return PM_OK;
}

/* ---- Proof ------------------------------------------------------------- */

static void proof_number(uint8_t out[8], uint64_t number)
{
    pmi_put_be32(out, (uint32_t)(number >> 32));
    pmi_put_be32(out + 4, (uint32_t)number);
}

void pmi_proof_make(const pmi_proof *proof, bool by_dialler,
                    uint8_t out[PMI_MAC_BYTES])
{
    /* Every part has a fixed length or its length in front: no two different
     * sets of values give the same bytes. */
    uint8_t numbers[8 + 8 + 4 + 1 + 1];
    pm_slice parts[6];
    proof_number(numbers, proof->dialler_incarnation);
    proof_number(numbers + 8, proof->acceptor_incarnation);
    pmi_put_be32(numbers + 16, PMI_FRAME_VERSION);
    numbers[20] = (uint8_t)proof->dialler_id.len;
    numbers[21] = (uint8_t)proof->acceptor_id.len;
    parts[0] = pm_text(by_dialler ? "pomelo-c link, dialler "
                                  : "pomelo-c link, acceptor");
    parts[1] = pm_bytes(numbers, sizeof numbers);
    parts[2] = proof->dialler_id;
    parts[3] = proof->acceptor_id;
    parts[4] = pm_bytes(proof->dialler_nonce, PMI_NONCE_BYTES);
    parts[5] = pm_bytes(proof->acceptor_nonce, PMI_NONCE_BYTES);
    pmi_hmac_sha256(proof->secret, parts, PMI_COUNT(parts), out);
}
