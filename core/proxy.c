/* SPDX-License-Identifier: MIT */
/* core/proxy.c -- the PROXY protocol and X-Forwarded-For.
 *
 *   v2   | \r\n\r\n\0\r\nQUIT\n | version 2, command | family | length (2) |
 *        | source | destination | source port | its port | whatever else ... |
 *   v1   PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n
 *
 * The header must be read to its last byte and not further, since what follows
 * may be for TLS. Its second version tells its length; of the first one only so
 * much is asked for as must still come. Whose bytes these are is decided
 * before: they are a trusted proxy's, and still every length is bounded. Start
 * reading at pmi_proxy_parse(). */
#include "proxy.h"

enum {
    PROXY_V2_HEAD = 16,
    PROXY_V1_MAX = 107, /* says the protocol */
    PROXY_MAGIC = 12
};

static const uint8_t proxy_magic[PROXY_MAGIC] = "\r\n\r\n\0\r\nQUIT\n";

/* ---- Version 2 --------------------------------------------------------- */
static long proxy_v2_addresses(const uint8_t *data, size_t all, pmi_proxy *out)
{
    size_t size = data[13] == 0x11 ? 4 : 16;
    const uint8_t *from = data + PROXY_V2_HEAD, *port = from + 2 * size;
    if (data[13] != 0x11 && data[13] != 0x21)
        return (long)all; /* UNSPEC, UDP, UNIX: nobody that we know */
    if (all < PROXY_V2_HEAD + 2 * size + 4)
        return -1;
    out->told = true;
    pmi_addr_set(&out->from, size == 4 ? 4 : 6, from,
                 (uint16_t)(port[0] << 8 | port[1]));
    return (long)all;
}

static long proxy_v2(const uint8_t *data, size_t len, pmi_proxy *out,
                     size_t *wants)
{
    bool local; /* whatever its family is said to be */
    size_t all;
    if (len < PROXY_V2_HEAD) {
        *wants = PROXY_V2_HEAD - len;
        return 0;
    }
    local = data[12] == 0x20;
    all = PROXY_V2_HEAD + ((size_t)data[14] << 8 | data[15]);
    if (all > PMI_PROXY_MAX ||
        (!local &&
         (data[12] != 0x21 || data[13] >> 4 > 3 || (data[13] & 15) > 2)))
        return -1;
    if (len < all) {
        *wants = all - len;
        return 0;
    }
    return local ? (long)all : proxy_v2_addresses(data, all, out);
}

/* ---- Version 1 --------------------------------------------------------- */
/* The next word of a line in which one space stands between two. */
static pm_slice proxy_word(pm_slice *line)
{
    const char *from = line->data;
    const char *space = memchr(from, ' ', line->len);
    pm_slice word = {from, space ? (size_t)(space - from) : line->len};
    line->data = space ? space + 1 : from + line->len;
    line->len -= word.len + (space ? 1 : 0);
    return word;
}

/* Digits, dots and colons only: no name, no bracket, no scope. */
static bool proxy_address(pm_slice word, uint16_t port, pmi_addr *out)
{
    static const char plain[] = "0123456789abcdefABCDEF.:";
    char text[PMI_ADDR_TEXT_MAX];
    const char *p = word.data;
    if (!word.len || word.len >= sizeof text)
        return false;
    for (size_t i = 0; i < word.len; i++)
        if (!p[i] || !strchr(plain, p[i]))
            return false;
    memcpy(text, p, word.len);
    text[word.len] = '\0';
    return pmi_addr_parse(out, text, port);
}

static bool proxy_number(pm_slice word, uint16_t *out)
{
    const char *p = word.data;
    uint32_t n = 0;
    if (!word.len || word.len > 5 || (word.len > 1 && p[0] == '0'))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        n = n * 10 + (uint32_t)(p[i] - '0');
    }
    *out = (uint16_t)n;
    return n <= UINT16_MAX;
}

/* `line` is what stands between "PROXY " and the line's end. */
static bool proxy_v1_line(pm_slice line, pmi_proxy *out)
{
    pm_slice kind = proxy_word(&line), from, to, from_port, to_port;
    bool six = pmi_slice_eq(kind, pm_text("TCP6"));
    uint16_t port, other;
    pmi_addr addr;
    if (pmi_slice_eq(kind, pm_text("UNKNOWN")))
        return true; /* whatever follows */
    from = proxy_word(&line);
    to = proxy_word(&line);
    from_port = proxy_word(&line);
    to_port = line;
    if ((!six && !pmi_slice_eq(kind, pm_text("TCP4"))) ||
        !proxy_number(from_port, &port) || !proxy_number(to_port, &other) ||
        !proxy_address(to, other, &addr) ||
        !proxy_address(from, port, &out->from) ||
        six != (memchr(from.data, ':', from.len) != NULL) ||
        six != (memchr(to.data, ':', to.len) != NULL))
        return false;
    out->told = true;
    return true;
}

static long proxy_v1(const uint8_t *data, size_t len, pmi_proxy *out,
                     size_t *wants)
{
    const uint8_t *end = memchr(data, '\n', pmi_min(len, PROXY_V1_MAX));
    size_t line = end ? (size_t)(end - data) + 1 : 0;
    pm_slice text = {data + 6, line > 8 ? line - 8 : 0};
    if (!end) {
        if (len >= PROXY_V1_MAX)
            return -1;
        /* At least "\r\n" must come, or the half of it. */
        *wants = len + 1 < PROXY_V1_MAX && data[len - 1] != '\r' ? 2 : 1;
        return 0;
    }
    if (line < 8 || end[-1] != '\r' || !proxy_v1_line(text, out))
        return -1;
    return (long)line;
}

long pmi_proxy_parse(const uint8_t *data, size_t len, pmi_proxy *out,
                     size_t *wants)
{
    static const uint8_t word[PROXY_MAGIC] = "PROXY ";
    size_t n = pmi_min(len, PROXY_MAGIC);
    bool binary = !memcmp(data, proxy_magic, n);
    out->told = false;
    *wants = PROXY_MAGIC - n;
    /* The shortest line, "PROXY UNKNOWN\r\n", is longer than the magic. */
    if (!binary && memcmp(data, word, pmi_min(n, 6)) != 0)
        return -1;
    if (n < PROXY_MAGIC)
        return 0;
    return binary ? proxy_v2(data, len, out, wants)
                  : proxy_v1(data, len, out, wants);
}

/* ---- X-Forwarded-For --------------------------------------------------- */
/* "192.0.2.7", "192.0.2.7:51234", "2001:db8::7", "[2001:db8::7]:51234". */
static bool proxy_hop(pm_slice word, pmi_addr *out)
{
    const char *p = word.data;
    const char *end = word.len ? memchr(p, ']', word.len) : NULL;
    const char *colon = word.len ? memchr(p, ':', word.len) : NULL;
    if (word.len && p[0] == '[') {
        if (!end)
            return false;
        word = pm_bytes(p + 1, (size_t)(end - p) - 1);
    } else if (colon &&
               !memchr(colon + 1, ':', word.len - (size_t)(colon + 1 - p))) {
        word.len = (size_t)(colon - p);
    }
    return proxy_address(word, 0, out);
}

/* The last item of a list with commas, taken off it. */
static pm_slice proxy_last(pm_slice *list)
{
    const char *from = list->data;
    size_t at = list->len, end = list->len;
    while (at > 0 && from[at - 1] != ',')
        at--;
    list->len = at ? at - 1 : 0;
    while (at < end && (from[at] == ' ' || from[at] == '\t'))
        at++;
    while (end > at && (from[end - 1] == ' ' || from[end - 1] == '\t'))
        end--;
    return pm_bytes(from + at, end - at);
}

bool pmi_proxy_forwarded(const pm_slice *lines, size_t count,
                         bool (*trusts)(const pmi_addr *addr, void *ctx),
                         void *ctx, pmi_addr *out)
{
    bool found = false;
    while (count) {
        pm_slice line = lines[--count];
        do {
            pmi_addr addr;
            if (!proxy_hop(proxy_last(&line), &addr))
                return found;
            *out = addr;
            found = true;
            if (!trusts(&addr, ctx))
                return true;
        } while (line.len);
    }
    return found;
}
