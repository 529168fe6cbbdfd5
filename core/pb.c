/* SPDX-License-Identifier: MIT */
/* core/pb.c -- standard protobuf fields on nanopb's streams. */
#include "pb.h"

#include <pb_decode.h>
#include <pb_encode.h>

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

bool pmi_pb_next(pmi_cursor *in, pmi_pb_field *out)
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

uint8_t *pmi_pb_put_number(uint8_t *p, uint32_t tag, uint64_t value)
{
    pb_ostream_t stream = pb_ostream_from_buffer(p, PMI_PB_NUMBER_MAX);
    pb_encode_tag(&stream, PB_WT_VARINT, tag);
    pb_encode_varint(&stream, value);
    return p + stream.bytes_written;
}

uint8_t *pmi_pb_put_bytes_head(uint8_t *p, uint32_t tag, size_t len)
{
    pb_ostream_t stream = pb_ostream_from_buffer(p, PMI_PB_NUMBER_MAX);
    pb_encode_tag(&stream, PB_WT_STRING, tag);
    pb_encode_varint(&stream, len);
    return p + stream.bytes_written;
}
