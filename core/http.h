/* SPDX-License-Identifier: MIT */
/* core/http.h -- a small GET responder: static files and small pages. One
 * connection, one answer at a time, keep-alive; nothing but GET and HEAD.
 * For examples, the admin page and counters; not a web server for the world. */
#ifndef PMI_HTTP_H
#define PMI_HTTP_H

#include "conn.h"

typedef struct pmi_http pmi_http;

typedef struct pmi_http_opts {
    const char *host; /* NULL: 127.0.0.1 */
    uint16_t port;    /* 0: any */
    /* Folder served below "/", "index.html" for folders; NULL: none. A path
     * that leaves it ("..", absolute, NUL, escapes of them) is 404. At most 16
     * MiB a file. Types by ending. */
    const char *root;
    /* Asked first: append a body to `out`, set *type, return 200 or another
     * status; 0: not mine. May be NULL. */
    int (*page)(pm_slice path, pmi_buf *out, const char **type, void *ctx);
    void *ctx;
    uint8_t tally; /* of its connections: pmi_conn_limits */
} pmi_http_opts;

/* At most 64 connections, 10 s for a request's head, 8 KiB of head.
 * Errors as pmi_listen. Strings are copied. */
pm_err pmi_http_start(pm_loop *loop, const pmi_http_opts *opts, pmi_http **out);
uint16_t pmi_http_port(const pmi_http *http);
void pmi_http_stop(pmi_http *http); /* frees; NULL is fine */

#endif
