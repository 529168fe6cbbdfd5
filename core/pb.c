/* SPDX-License-Identifier: MIT */
/* core/pb.c -- standard protobuf fields on nanopb's streams.
 *
 * nanopb reads a byte by a call through a pointer, and the envelope of every
 * call between servers consists of short fields. What is well formed and of
 * the usual size is therefore read and written right here; the rest (numbers
 * of more than 63 bits, fields of a fixed size, bytes that make no sense) is
 * nanopb's to judge. Start reading at pmi_pb_next(). */
#include "pb.h"

#include <pb_decode.h>

/* ---- The usual --------------------------------------------------------- */
/* A varint of at most 9 bytes; most have one. False: not there, or longer. */
static inline bool pb_short_varint(const uint8_t **at, const uint8_t *end,
                                   uint64_t *out)
{
    const uint8_t *p = *at;
    uint64_t value = 0;
    if (PMI_LIKELY(p < end && *p < 0x80)) {
        *out = *p;
        *at = p + 1;
        return true;
    }
    for (unsigned shift = 0; p < end && shift < 63; shift += 7) {
        value |= (uint64_t)(*p & 0x7f) << shift;
        if (!(*p++ & 0x80)) {
            *at = p;
            *out = value;
            return true;
        }
    }
    return false;
}

/* A number or bytes, whole and in a row. False: nothing is read. */
static inline bool pb_usual(pmi_cursor *in, pmi_pb_field *out)
{
    const uint8_t *at = in->at;
    uint64_t key, value;
    if (!pb_short_varint(&at, in->end, &key) || key >> 3 == 0 ||
        key > UINT32_MAX || !pb_short_varint(&at, in->end, &value))
        return false;
    if ((key & 7) == PB_WT_STRING) {
        if (value > (uint64_t)(in->end - at))
            return false;
        out->bytes = pm_bytes(at, (size_t)value);
        out->number = 0;
        at += value;
    } else if ((key & 7) == PB_WT_VARINT) {
        out->bytes = pm_bytes(NULL, 0);
        out->number = value;
    } else {
        return false;
    }
    out->tag = (uint32_t)(key >> 3);
    in->at = at;
    return true;
}

/* ---- The rest: nanopb's ------------------------------------------------ */
static bool pb_read_bytes(pb_istream_t *stream, const uint8_t *base,
                          size_t total, pmi_pb_field *out)
{
    uint64_t len;
    if (!pb_decode_varint(stream, &len) || len > stream->bytes_left)
        return false;
    out->bytes.data = base + (total - stream->bytes_left);
    out->bytes.len = (size_t)len;
    return pb_read(stream, NULL, (size_t)len);
}

static bool pb_unusual(pmi_cursor *in, pmi_pb_field *out)
{
    size_t total = pmi_cursor_left(in);
    pb_istream_t stream = pb_istream_from_buffer(in->at, total);
    pb_wire_type_t wire;
    uint32_t tag;
    bool eof = false, ok = true;
    memset(out, 0, sizeof *out);
    if (!pb_decode_tag(&stream, &wire, &tag, &eof)) {
        in->bad = !eof;
        return false;
    }
    if (wire == PB_WT_VARINT)
        ok = pb_decode_varint(&stream, &out->number);
    else if (wire == PB_WT_STRING)
        ok = pb_read_bytes(&stream, in->at, total, out);
    else
        ok = pb_skip_field(&stream, wire);
    if (!ok) {
        in->bad = true;
        return false;
    }
    if (wire == PB_WT_VARINT || wire == PB_WT_STRING)
        out->tag = tag;
    in->at += total - stream.bytes_left;
    return true;
}

bool pmi_pb_next(pmi_cursor *in, pmi_pb_field *out)
{
    if (in->at == in->end)
        return false;
    return PMI_LIKELY(pb_usual(in, out)) || pb_unusual(in, out);
}

/* ---- Writing ----------------------------------------------------------- */
static inline uint8_t *pb_put_varint(uint8_t *p, uint64_t value)
{
    for (; value > 0x7f; value >>= 7)
        *p++ = (uint8_t)(value | 0x80);
    *p++ = (uint8_t)value;
    return p;
}

uint8_t *pmi_pb_put_number(uint8_t *p, uint32_t tag, uint64_t value)
{
    p = pb_put_varint(p, (uint64_t)tag << 3 | PB_WT_VARINT);
    return pb_put_varint(p, value);
}

uint8_t *pmi_pb_put_bytes_head(uint8_t *p, uint32_t tag, size_t len)
{
    p = pb_put_varint(p, (uint64_t)tag << 3 | PB_WT_STRING);
    return pb_put_varint(p, len);
}
