/* SPDX-License-Identifier: MIT */
/* pomelo_route.c -- choosing a server from a list.
 *
 * Pomelo spreads users over servers by a CRC that its clients, gates and
 * forwarding all must agree on to the bit, oddities included: JavaScript's
 * strings are UTF-16, and only the low byte of each unit is hashed.
 *
 * Floor 1: knows no server, only text and numbers.
 * Start reading at pmi_route_crc_text(). */
#include "pomelo_route_internal.h"

/* CRC-32, reflected polynomial 0xEDB88320, half a byte at a time: sixteen
 * words stay in the cache, and uids are short. */
static const uint32_t route_crc_table[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
    0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
    0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};

static inline uint32_t route_crc_byte(uint32_t crc, uint32_t byte)
{
    crc ^= byte & 0xff;
    crc = crc >> 4 ^ route_crc_table[crc & 15];
    return crc >> 4 ^ route_crc_table[crc & 15];
}

/* The next code point and its length; what is not UTF-8 counts as one
 * U+FFFD a byte. Lone surrogates in three bytes pass as themselves. */
static size_t route_code_point(const uint8_t *p, size_t left, uint32_t *out)
{
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 1;
    uint32_t code = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    bool bad = (p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || n > left;
    for (size_t i = 1; i < n && !bad; i++) {
        bad = (p[i] & 0xc0) != 0x80;
        code = code << 6 | (p[i] & 0x3f);
    }
    *out = bad ? 0xfffd : code;
    return bad ? 1 : n;
}

int32_t pmi_route_crc_text(pm_slice utf8)
{
    const uint8_t *p = utf8.data;
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < utf8.len;) {
        uint32_t code;
        i += route_code_point(p + i, utf8.len - i, &code);
        if (code >= 0x10000) {
            crc = route_crc_byte(crc, (code - 0x10000) >> 10);
            code = (code - 0x10000) & 0x3ff;
        }
        crc = route_crc_byte(crc, code);
    }
    crc = ~crc;
    return crc > INT32_MAX ? (int32_t)(crc - INT32_MAX - 1) + INT32_MIN
                           : (int32_t)crc;
}

int32_t pmi_route_crc(const char *utf8)
{
    return pmi_route_crc_text(pm_text(utf8));
}

size_t pm_dispatch(const char *uid, size_t n)
{
    int64_t crc = pmi_route_crc(uid);
    if (n == 0)
        return 0;
    return (size_t)((uint64_t)(crc < 0 ? -crc : crc) % n);
}
