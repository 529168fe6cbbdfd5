/* SPDX-License-Identifier: MIT */
/* core/ws.h -- HTTP request heads and WebSocket frames, bytes to structs and
 * back (RFC 6455, both ends). Knows buffers, not sockets. Every decoder answers
 * bytes consumed (> 0), PMI_WS_MORE, or an error below zero. */
#ifndef PMI_WS_H
#define PMI_WS_H

#include "buf.h"

#define PMI_WS_MORE 0
#define PMI_HTTP_HEAD_MAX 8192
#define PMI_HTTP_FORWARDED_MAX 8 /* lines: one a proxy, or fewer */

/* ---- HTTP heads -------------------------------------------------------- */
typedef struct pmi_http_head {
    pm_slice method, target; /* request: borrowed from the input */
    int status;              /* response: 101, ... */
    uint8_t minor;           /* HTTP/1.minor */
    bool upgrade_websocket;  /* Upgrade: websocket and Connection: upgrade */
    bool keep_alive;
    pm_slice ws_key, ws_version, ws_protocol, ws_accept;
    pm_slice host, origin;
    pm_slice forwarded_for[PMI_HTTP_FORWARDED_MAX]; /* one list, in order */
    uint8_t forwarded_count;
    bool has_body; /* Content-Length > 0 or Transfer-Encoding */
} pmi_http_head;

/* Could `data` still become a request of a method that Pomelo's port switch
 * knows (GET, POST, PUT, HEAD)? 1 it is one (enough bytes seen), 0 not yet
 * sure, -1 it is not. Looks at four bytes at most. */
int pmi_http_sniff(const uint8_t *data, size_t len);

/* A whole head up to the blank line. Returns bytes consumed, PMI_WS_MORE, or
 * PM_EHTTP (malformed, or longer than PMI_HTTP_HEAD_MAX without an end). */
long pmi_http_request_parse(const uint8_t *data, size_t len,
                            pmi_http_head *head);
long pmi_http_response_parse(const uint8_t *data, size_t len,
                             pmi_http_head *head);

/* ---- Upgrade ----------------------------------------------------------- */
/* Sec-WebSocket-Accept of a key. out holds 29 bytes. */
void pmi_ws_accept_key(pm_slice key, char out[29]);
/* The server's answer: 101 (first offered sub-protocol echoed, extensions
 * declined) or, when version is not 8 or 13 or the key is missing, 400 with
 * Content-type: text/html. Returns PM_OK for 101, PM_EHTTP for 400; either
 * way the answer is appended. */
pm_err pmi_ws_answer_upgrade(const pmi_http_head *head, pmi_buf *out);
/* A client's request. `key` is 16 random bytes. */
void pmi_ws_request_upgrade(pm_slice host, pm_slice target,
                            const uint8_t key[16], pmi_buf *out);

/* ---- Frames ------------------------------------------------------------ */
enum {
    PMI_WS_CONT = 0,
    PMI_WS_TEXT = 1,
    PMI_WS_BINARY = 2,
    PMI_WS_CLOSE = 8,
    PMI_WS_PING = 9,
    PMI_WS_PONG = 10
};

typedef struct pmi_ws_frame {
    uint8_t opcode;
    bool fin, masked;
    uint8_t mask[4];
    uint64_t len; /* payload */
} pmi_ws_frame;

/* Head only: returns its length (2..14), PMI_WS_MORE or PM_EWS (reserved bits,
 * unknown opcode, control frame longer than 125 or not final, length not in
 * its shortest form or above 2^63). */
long pmi_ws_head_parse(const uint8_t *data, size_t len, pmi_ws_frame *frame);
/* XOR with the mask in place; `offset` = position of data in the payload. */
void pmi_ws_unmask(uint8_t *data, size_t len, const uint8_t mask[4],
                   size_t offset);
/* A final frame's head to p; mask NULL = none (server). Returns its length.
 * pmi_ws_head_size gives it beforehand. */
size_t pmi_ws_head_write(uint8_t p[14], uint8_t opcode, uint64_t len,
                         const uint8_t *mask);
static inline size_t pmi_ws_head_size(uint64_t len, bool masked)
{
    return (size_t)(len < 126 ? 2 : len < 65536 ? 4 : 10) + (masked ? 4u : 0u);
}

#endif
