/* SPDX-License-Identifier: MIT */
/* core/ws.c -- HTTP request heads and WebSocket frames, bytes to structs.
 *
 * A WebSocket begins as an HTTP request and goes on as frames:
 *
 *   GET /path HTTP/1.1 CRLF                | fin rsv opcode | mask len7 |
 *   Name: value CRLF                       | len16 or len64, if len7 says so |
 *   CRLF                                   | mask key (4), from clients |
 *                                          | payload ... |
 *
 * Floor 1: knows buffers, not sockets; keeps no state between calls. A head
 * that has not ended yet is looked at again as a whole when more has come; that
 * costs one search for its end, and heads are short.
 *
 * Lenient where Node is and it harms nobody: a bare LF ends a line, spaces may
 * be doubled, empty lines may come first, unknown headers are passed over, the
 * first of two equal ones counts (of X-Forwarded-For the last). Strict where
 * two readers could understand one head differently, or where a value is sent
 * back: no control characters, no folded lines, no space before the colon, one
 * Content-Length at most. Start reading at pmi_http_request_parse(). */
#include "ws.h"

#include "crypto.h"

#define WS_KEY_MAX 64 /* 24 in the standard; Node's takes any */

/* ---- Characters and slices ---------------------------------------------- */
static pm_slice ws_between(const uint8_t *from, const uint8_t *to)
{
    pm_slice s = {from, (size_t)(to - from)};
    return s;
}

static uint8_t ws_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

static bool ws_is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* A character of a method or of a header's name (RFC 9110, "token"). */
static bool ws_is_token(uint8_t c)
{
    uint8_t lower = ws_lower(c);
    return (lower >= 'a' && lower <= 'z') || ws_is_digit(c) ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* `word` is lower-case; the slice's case does not matter. */
static bool ws_is_word(pm_slice s, const char *word)
{
    const uint8_t *p = s.data;
    size_t i;
    for (i = 0; i < s.len && word[i]; i++)
        if (ws_lower(p[i]) != (uint8_t)word[i])
            return false;
    return i == s.len && !word[i];
}

static pm_slice ws_trim(pm_slice s)
{
    const uint8_t *from = s.data, *to = from + s.len;
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    while (from < to && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    return ws_between(from, to);
}

/* The first item of a list with commas, taken off `list`; empty at its end. */
static pm_slice ws_list_next(pm_slice *list)
{
    const uint8_t *from = list->data, *to, *comma;
    if (list->len == 0)
        return *list;
    to = from + list->len;
    comma = memchr(from, ',', list->len);
    *list = ws_between(comma ? comma + 1 : to, to);
    return ws_trim(ws_between(from, comma ? comma : to));
}

static bool ws_list_has(pm_slice list, const char *word)
{
    while (list.len)
        if (ws_is_word(ws_list_next(&list), word))
            return true;
    return false;
}

/* ---- The port switch ---------------------------------------------------- */
int pmi_http_sniff(const uint8_t *data, size_t len)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "HEAD"};
    int answer = -1;
    for (size_t i = 0; i < PMI_COUNT(methods); i++) {
        size_t size = strlen(methods[i]);
        size_t n = pmi_min(len, size);
        if (n && memcmp(data, methods[i], n) != 0)
            continue;
        if (n == size)
            return 1;
        answer = 0;
    }
    return answer;
}

/* ---- HTTP heads: finding the end ---------------------------------------- */
typedef struct ws_lines {
    const uint8_t *at, *end; /* `end` is behind the blank line */
} ws_lines;

/* Bytes up to and with the blank line, PMI_WS_MORE, or PM_EHTTP. `*skipped` is
 * the length of the empty lines in front. */
static long ws_head_find(const uint8_t *data, size_t len, size_t *skipped)
{
    size_t max = pmi_min(len, PMI_HTTP_HEAD_MAX), at = 0;
    while (at < max && (data[at] == '\r' || data[at] == '\n'))
        at++;
    *skipped = at;
    while (at < max) {
        const uint8_t *lf = memchr(data + at, '\n', max - at);
        if (!lf)
            break;
        at = (size_t)(lf - data) + 1;
        if (at < max && data[at] == '\n')
            return (long)(at + 1);
        if (at + 1 < max && data[at] == '\r' && data[at + 1] == '\n')
            return (long)(at + 2);
    }
    return max == PMI_HTTP_HEAD_MAX ? (long)PM_EHTTP : PMI_WS_MORE;
}

/* The next line without its end; false when it holds a control character. */
static bool ws_line_next(ws_lines *lines, pm_slice *line)
{
    const uint8_t *from = lines->at;
    const uint8_t *lf = memchr(from, '\n', (size_t)(lines->end - from));
    const uint8_t *to = lf;
    PMI_ASSERT(lf);
    lines->at = lf + 1;
    if (to > from && to[-1] == '\r')
        to--;
    *line = ws_between(from, to);
    for (; from < to; from++)
        if ((*from < 0x20 && *from != '\t') || *from == 0x7f)
            return false;
    return true;
}

/* ---- HTTP heads: headers ------------------------------------------------ */
typedef struct ws_header {
    pm_slice name, value;
} ws_header;

/* What several headers together decide. */
typedef struct ws_seen {
    bool upgrade, connection_upgrade; /* the two halves of an upgrade */
    bool connection_close, connection_keep;
    bool length;
} ws_seen;

static bool ws_header_split(pm_slice line, ws_header *header)
{
    const uint8_t *from = line.data, *to = from + line.len, *at = from;
    while (at < to && ws_is_token(*at))
        at++;
    if (at == from || at == to || *at != ':')
        return false;
    header->name = ws_between(from, at);
    header->value = ws_trim(ws_between(at + 1, to));
    return true;
}

/* The headers that are just kept. True when it was one of them. */
static bool ws_header_keep(pmi_http_head *head, const ws_header *header)
{
    const struct {
        const char *name;
        pm_slice *slot;
    } kept[] = {
        {"host", &head->host},
        {"origin", &head->origin},
        {"sec-websocket-origin", &head->origin}, /* in version 8 */
        {"sec-websocket-key", &head->ws_key},
        {"sec-websocket-version", &head->ws_version},
        {"sec-websocket-protocol", &head->ws_protocol},
        {"sec-websocket-accept", &head->ws_accept},
    };
    for (size_t i = 0; i < PMI_COUNT(kept); i++)
        if (ws_is_word(header->name, kept[i].name)) {
            if (!kept[i].slot->data)
                *kept[i].slot = header->value;
            return true;
        }
    return false;
}

/* False unless it is a number, and the only one. */
static bool ws_header_length(pmi_http_head *head, ws_seen *seen, pm_slice value)
{
    const uint8_t *p = value.data;
    if (seen->length || value.len == 0)
        return false;
    seen->length = true;
    for (size_t i = 0; i < value.len; i++) {
        if (!ws_is_digit(p[i]))
            return false;
        if (p[i] != '0')
            head->has_body = true;
    }
    return true;
}

/* A proxy may add its own line behind what others have sent. */
static bool ws_header_forwarded(pmi_http_head *head, pm_slice value)
{
    if (head->forwarded_count == PMI_HTTP_FORWARDED_MAX)
        return false;
    head->forwarded_for[head->forwarded_count++] = value;
    return true;
}

static bool ws_header_take(pmi_http_head *head, ws_seen *seen,
                           const ws_header *header)
{
    pm_slice value = header->value;
    if (ws_header_keep(head, header))
        return true;
    if (ws_is_word(header->name, "upgrade")) {
        seen->upgrade |= ws_list_has(value, "websocket");
    } else if (ws_is_word(header->name, "connection")) {
        seen->connection_upgrade |= ws_list_has(value, "upgrade");
        seen->connection_close |= ws_list_has(value, "close");
        seen->connection_keep |= ws_list_has(value, "keep-alive");
    } else if (ws_is_word(header->name, "content-length")) {
        return ws_header_length(head, seen, value);
    } else if (ws_is_word(header->name, "x-forwarded-for")) {
        return ws_header_forwarded(head, value);
    } else if (ws_is_word(header->name, "transfer-encoding")) {
        head->has_body = true;
    }
    return true;
}

/* All lines up to the blank one. */
static bool ws_headers_parse(ws_lines *lines, pmi_http_head *head)
{
    ws_seen seen = {false, false, false, false, false};
    pm_slice line;
    ws_header header;
    while (ws_line_next(lines, &line)) {
        if (line.len == 0) {
            head->upgrade_websocket = seen.upgrade && seen.connection_upgrade;
            head->keep_alive = !seen.connection_close &&
                               (head->minor > 0 || seen.connection_keep);
            return true;
        }
        if (!ws_header_split(line, &header) ||
            !ws_header_take(head, &seen, &header))
            return false;
    }
    return false;
}

/* ---- HTTP heads: first lines -------------------------------------------- */
/* The next word of a line, with the spaces behind it. */
static pm_slice ws_word_next(pm_slice *line)
{
    const uint8_t *from = line->data, *to = from + line->len, *at = from;
    pm_slice word;
    while (at < to && *at != ' ')
        at++;
    word = ws_between(from, at);
    while (at < to && *at == ' ')
        at++;
    *line = ws_between(at, to);
    return word;
}

/* HTTP/1.x */
static bool ws_version_parse(pm_slice word, uint8_t *minor)
{
    const uint8_t *p = word.data;
    if (word.len != 8 || memcmp(p, "HTTP/1.", 7) != 0 || !ws_is_digit(p[7]))
        return false;
    *minor = (uint8_t)(p[7] - '0');
    return true;
}

static bool ws_request_line(pm_slice line, pmi_http_head *head)
{
    const uint8_t *p;
    pm_slice version;
    head->method = ws_word_next(&line);
    head->target = ws_word_next(&line);
    version = ws_word_next(&line);
    p = head->method.data;
    for (size_t i = 0; i < head->method.len; i++)
        if (!ws_is_token(p[i]))
            return false;
    p = head->target.data;
    if (memchr(p, '\t', head->target.len))
        return false;
    return head->method.len && head->target.len && line.len == 0 &&
           ws_version_parse(version, &head->minor);
}

static bool ws_status_line(pm_slice line, pmi_http_head *head)
{
    pm_slice version = ws_word_next(&line), status = ws_word_next(&line);
    const uint8_t *p = status.data;
    if (!ws_version_parse(version, &head->minor) || status.len != 3)
        return false;
    for (size_t i = 0; i < 3; i++) {
        if (!ws_is_digit(p[i]))
            return false;
        head->status = head->status * 10 + (p[i] - '0');
    }
    return head->status >= 100;
}

static long ws_head_parse(const uint8_t *data, size_t len, pmi_http_head *head,
                          bool (*first)(pm_slice line, pmi_http_head *head))
{
    size_t skipped;
    long size = ws_head_find(data, len, &skipped);
    ws_lines lines;
    pm_slice line;
    if (size <= 0)
        return size;
    memset(head, 0, sizeof *head);
    lines.at = data + skipped;
    lines.end = data + size;
    if (!ws_line_next(&lines, &line) || !first(line, head) ||
        !ws_headers_parse(&lines, head))
        return PM_EHTTP;
    return size;
}

long pmi_http_request_parse(const uint8_t *data, size_t len,
                            pmi_http_head *head)
{
    return ws_head_parse(data, len, head, ws_request_line);
}

long pmi_http_response_parse(const uint8_t *data, size_t len,
                             pmi_http_head *head)
{
    return ws_head_parse(data, len, head, ws_status_line);
}

/* ---- Upgrade ------------------------------------------------------------ */
void pmi_ws_accept_key(pm_slice key, char out[29])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[WS_KEY_MAX + sizeof guid - 1], digest[20];
    size_t len = pmi_min(key.len, WS_KEY_MAX);
    if (len)
        memcpy(text, key.data, len);
    memcpy(text + len, guid, sizeof guid - 1);
    pmi_sha1(text, len + sizeof guid - 1, digest);
    pmi_base64(digest, sizeof digest, out);
}

/* 8 or 13; what follows the number is not looked at (parseInt does not). */
static bool ws_version_fits(pm_slice version)
{
    const uint8_t *p = version.data;
    unsigned number = 0;
    for (size_t i = 0; i < version.len && ws_is_digit(p[i]); i++) {
        number = number * 10 + (unsigned)(p[i] - '0');
        if (number > 13)
            return false;
    }
    return number == 8 || number == 13;
}

pm_err pmi_ws_answer_upgrade(const pmi_http_head *head, pmi_buf *out)
{
    pm_slice offered = head->ws_protocol, protocol = ws_list_next(&offered);
    char accept[29];
    if (!head->upgrade_websocket || !ws_is_word(head->method, "get") ||
        head->has_body || head->ws_key.len == 0 ||
        head->ws_key.len > WS_KEY_MAX || !ws_version_fits(head->ws_version)) {
        pmi_buf_add_text(out, "HTTP/1.1 400 Bad Request\r\n"
                              "Content-type: text/html\r\n\r\n");
        return PM_EHTTP;
    }
    pmi_ws_accept_key(head->ws_key, accept);
    pmi_buf_add_text(out, "HTTP/1.1 101 Switching Protocols\r\n"
                          "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: ");
    pmi_buf_add_text(out, accept);
    if (protocol.len) {
        pmi_buf_add_text(out, "\r\nSec-WebSocket-Protocol: ");
        pmi_buf_add(out, protocol.data, protocol.len);
    }
    pmi_buf_add_text(out, "\r\n\r\n");
    return PM_OK;
}

/* Printable and without spaces: can not break out of its line. */
static bool ws_is_plain(pm_slice s)
{
    const uint8_t *p = s.data;
    for (size_t i = 0; i < s.len; i++)
        if (p[i] <= 0x20 || p[i] == 0x7f)
            return false;
    return s.len > 0;
}

void pmi_ws_request_upgrade(pm_slice host, pm_slice target,
                            const uint8_t key[16], pmi_buf *out)
{
    char text[25];
    if (!ws_is_plain(host) || !ws_is_plain(target)) {
        out->failed = true;
        return;
    }
    pmi_base64(key, 16, text);
    pmi_buf_add_text(out, "GET ");
    pmi_buf_add(out, target.data, target.len);
    pmi_buf_add_text(out, " HTTP/1.1\r\nHost: ");
    pmi_buf_add(out, host.data, host.len);
    pmi_buf_add_text(out, "\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\n"
                          "Sec-WebSocket-Key: ");
    pmi_buf_add_text(out, text);
    pmi_buf_add_text(out, "\r\nSec-WebSocket-Version: 13\r\n\r\n");
}

/* ---- Frames ------------------------------------------------------------- */
static bool ws_opcode_known(uint8_t opcode)
{
    return opcode <= PMI_WS_BINARY ||
           (opcode >= PMI_WS_CLOSE && opcode <= PMI_WS_PONG);
}

/* The length of the payload, from `size` bytes that are there. */
static uint64_t ws_length_read(const uint8_t *p, size_t size)
{
    uint64_t n = 0;
    for (size_t i = 0; i < size; i++)
        n = n << 8 | p[i];
    return n;
}

long pmi_ws_head_parse(const uint8_t *data, size_t len, pmi_ws_frame *frame)
{
    size_t extra, size;
    uint8_t opcode, short_len;
    bool fin, masked;
    uint64_t payload;
    if (len < 2)
        return PMI_WS_MORE;
    opcode = data[0] & 15;
    fin = data[0] & 0x80;
    masked = data[1] & 0x80;
    short_len = data[1] & 0x7f;
    if ((data[0] & 0x70) || !ws_opcode_known(opcode) ||
        (opcode >= PMI_WS_CLOSE && (!fin || short_len > 125)))
        return PM_EWS;
    extra = short_len < 126 ? 0 : short_len == 126 ? 2 : 8;
    size = 2 + extra + (masked ? 4 : 0);
    if (len < size)
        return PMI_WS_MORE;
    payload = extra ? ws_length_read(data + 2, extra) : short_len;
    if ((extra == 2 && payload < 126) || (extra == 8 && payload < 65536) ||
        payload >> 63)
        return PM_EWS;
    memset(frame, 0, sizeof *frame);
    frame->opcode = opcode;
    frame->fin = fin;
    frame->masked = masked;
    frame->len = payload;
    if (masked)
        memcpy(frame->mask, data + 2 + extra, 4);
    return (long)size;
}

/* Eight bytes at any address; one instruction each way. */
static void ws_xor8(uint8_t *p, uint64_t pattern)
{
    uint64_t word;
    memcpy(&word, p, 8);
    word ^= pattern;
    memcpy(p, &word, 8);
}

void pmi_ws_unmask(uint8_t *data, size_t len, const uint8_t mask[4],
                   size_t offset)
{
    uint8_t turned[8];
    uint64_t pattern;
    size_t i = 0;
    for (size_t k = 0; k < 8; k++)
        turned[k] = mask[(offset + k) & 3];
    memcpy(&pattern, turned, 8);
    for (; len - i >= 32; i += 32) {
        ws_xor8(data + i, pattern);
        ws_xor8(data + i + 8, pattern);
        ws_xor8(data + i + 16, pattern);
        ws_xor8(data + i + 24, pattern);
    }
    for (; len - i >= 8; i += 8)
        ws_xor8(data + i, pattern);
    for (; i < len; i++)
        data[i] ^= turned[i & 3];
}

size_t pmi_ws_head_write(uint8_t p[14], uint8_t opcode, uint64_t len,
                         const uint8_t *mask)
{
    size_t extra = len < 126 ? 0 : len < 65536 ? 2 : 8;
    PMI_ASSERT(ws_opcode_known(opcode) && !(len >> 63));
    PMI_ASSERT(opcode < PMI_WS_CLOSE || len < 126);
    p[0] = 0x80 | opcode;
    p[1] = (uint8_t)(extra == 0 ? len : extra == 2 ? 126 : 127);
    for (size_t i = 0; i < extra; i++)
        p[2 + i] = (uint8_t)(len >> 8 * (extra - 1 - i));
    if (!mask)
        return 2 + extra;
    p[1] |= 0x80;
    memcpy(p + 2 + extra, mask, 4);
    return 6 + extra;
}
