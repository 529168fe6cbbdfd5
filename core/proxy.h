/* SPDX-License-Identifier: MIT */
/* core/proxy.h -- what a proxy says of the client it speaks for: the PROXY
 * protocol, version 1 (a line) and 2 (binary), and X-Forwarded-For. Bytes and
 * structs only; who may be believed is the caller's matter. */
#ifndef PMI_PROXY_H
#define PMI_PROXY_H

#include "sock.h"

/* The longest header that is taken: its own addresses need 52 bytes, the rest
 * is room for what it may carry besides, which is passed over. */
enum { PMI_PROXY_MAX = 16 + 1024 };

typedef struct pmi_proxy {
    bool told;     /* false: a connection of the proxy's own (LOCAL, UNKNOWN) */
    pmi_addr from; /* the client, with its port */
} pmi_proxy;

/* One header from its first bytes. > 0: its length, all is there. 0: not yet;
 * *wants bytes more can be read without reading one that is not the header's.
 * < 0: it is none, or malformed, or too long. */
long pmi_proxy_parse(const uint8_t *data, size_t len, pmi_proxy *out,
                     size_t *wants);

/* The client of an X-Forwarded-For: "client, proxy, proxy", each written by who
 * came behind it, in one line or in several; so from the last one as long as
 * `trusts` says so, the first other one is the client. All are trusted: the
 * first. A word that is no address ends the walk; false: there was none before
 * it. */
bool pmi_proxy_forwarded(const pm_slice *lines, size_t count,
                         bool (*trusts)(const pmi_addr *addr, void *ctx),
                         void *ctx, pmi_addr *out);

#endif
