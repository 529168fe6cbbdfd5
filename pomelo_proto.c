/* SPDX-License-Identifier: MIT */
/* pomelo_proto.c -- packages and messages, bytes to structs and back.
 *
 * A connection is a row of packages: one byte of type, three of length
 * (big endian), then the body. A data package holds one message:
 *
 *     | type | length (3) | flag | id (varint)? | route? | body ... |
 *                          \________________ message ______________/
 *
 * flag: bit 0 tells that the route is a code of the dictionary, bits 1 to 3
 * are the type. Bit 4 says gzip in Pomelo's source, where nobody sets or
 * reads it; we ignore it and the bits above it, as Pomelo does.
 *
 * Floor 1: knows bytes, not sockets; keeps no state and allocates nothing.
 * Every byte comes from strangers: each read is bounded, and "not enough
 * yet" is an answer, not an error.
 * Start reading at pmi_proto_package_decode(). */
#include "pomelo_proto_internal.h"

/* ---- Packages ---------------------------------------------------------- */
static inline bool proto_type_known(uint8_t type)
{
    return type >= PMI_PACKAGE_HANDSHAKE && type <= PMI_PACKAGE_KICK;
}

static inline size_t proto_body_len(const uint8_t *head)
{
    return (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
}

long pmi_proto_package_decode(const uint8_t *data, size_t len, size_t body_max,
                              pmi_package *out)
{
    if (len < PMI_PACKAGE_HEAD)
        return 0;
    if (PMI_UNLIKELY(!proto_type_known(data[0])))
        return PM_EPACKAGE;
    size_t body_len = proto_body_len(data);
    if (PMI_UNLIKELY(body_len > body_max))
        return PM_ESIZE;
    if (len - PMI_PACKAGE_HEAD < body_len)
        return 0;
    out->type = data[0];
    out->body = pm_bytes(data + PMI_PACKAGE_HEAD, body_len);
    return (long)(PMI_PACKAGE_HEAD + body_len);
}

pm_err pmi_proto_package_frame(const uint8_t *data, size_t len, size_t body_max,
                               pmi_package *out)
{
    uint8_t head[PMI_PACKAGE_HEAD] = {0};
    if (len == 0)
        return PM_EPACKAGE;
    memcpy(head, data, pmi_min(len, PMI_PACKAGE_HEAD));
    size_t body_len = proto_body_len(head);
    if (!proto_type_known(head[0]))
        return PM_EPACKAGE;
    if (body_len > body_max)
        return PM_ESIZE;
    if (pmi_max(len, PMI_PACKAGE_HEAD) != PMI_PACKAGE_HEAD + body_len)
        return PM_EPACKAGE;
    out->type = head[0];
    out->body = pm_bytes(data + pmi_min(len, PMI_PACKAGE_HEAD), body_len);
    return PM_OK;
}

/* ---- Messages: reading ------------------------------------------------- */
/* Little endian base 128. JavaScript's shifts would wrap past 2^31: such ids,
 * which no honest client sends, are malformed. */
static bool proto_read_id(pmi_cursor *c, uint32_t *id)
{
    uint32_t byte = pmi_cursor_byte(c), value = byte & 0x7f;
    for (unsigned shift = 7; byte & 0x80; shift += 7) {
        byte = pmi_cursor_byte(c);
        if (shift == 28 && byte > 7)
            return false;
        value |= (byte & 0x7f) << shift;
    }
    *id = value;
    return !c->bad;
}

static bool proto_read_route(pmi_cursor *c, pmi_message *out)
{
    if (out->compressed) {
        uint32_t high = pmi_cursor_byte(c);
        out->code = (uint16_t)(high << 8 | pmi_cursor_byte(c));
    } else {
        out->route = pmi_cursor_bytes(c, pmi_cursor_byte(c));
    }
    return !c->bad;
}

static inline bool proto_type_has_id(uint8_t type)
{
    return type == PMI_MESSAGE_REQUEST || type == PMI_MESSAGE_RESPONSE;
}

static inline bool proto_type_has_route(uint8_t type)
{
    return type == PMI_MESSAGE_REQUEST || type == PMI_MESSAGE_NOTIFY ||
           type == PMI_MESSAGE_PUSH;
}

pm_err pmi_proto_message_decode(pm_slice in, pmi_message *out)
{
    pmi_cursor c = pmi_cursor_of(in.data, in.len);
    pmi_message m = {0};
    uint8_t flag = pmi_cursor_byte(&c);
    m.type = flag >> 1 & 7;
    m.has_route = proto_type_has_route(m.type);
    m.compressed = m.has_route && (flag & 1);
    m.route = pm_bytes(c.at, 0);
    if (PMI_UNLIKELY(c.bad))
        return PM_EMESSAGE;
    if (proto_type_has_id(m.type) && !proto_read_id(&c, &m.id))
        return PM_EMESSAGE;
    if (m.has_route && !proto_read_route(&c, &m))
        return PM_EMESSAGE;
    m.body = pm_bytes(c.at, pmi_cursor_left(&c));
    *out = m;
    return PM_OK;
}

/* ---- Messages: writing ------------------------------------------------- */
size_t pmi_proto_message_head(uint8_t out[PMI_MESSAGE_HEAD_MAX], uint8_t type,
                              uint32_t id, pm_slice route, uint16_t code)
{
    uint8_t *p = out;
    if (PMI_UNLIKELY(type > PMI_MESSAGE_PUSH))
        return 0;
    bool has_route = proto_type_has_route(type);
    *p++ = (uint8_t)(type << 1 | (has_route && code));
    if (proto_type_has_id(type)) {
        if (PMI_UNLIKELY(id > INT32_MAX))
            return 0;
        for (; id > 0x7f; id >>= 7)
            *p++ = (uint8_t)(id | 0x80);
        *p++ = (uint8_t)id;
    }
    if (!has_route)
        return (size_t)(p - out);
    if (code) {
        *p++ = (uint8_t)(code >> 8);
        *p++ = (uint8_t)code;
        return (size_t)(p - out);
    }
    if (PMI_UNLIKELY(route.len > PMI_ROUTE_MAX))
        return 0;
    *p++ = (uint8_t)route.len;
    if (route.len)
        memcpy(p, route.data, route.len);
    return (size_t)(p - out) + route.len;
}
