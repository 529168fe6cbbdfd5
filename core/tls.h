/* SPDX-License-Identifier: MIT */
/* core/tls.h -- TLS as a filter on memory.
 *
 *     bytes from the peer --pmi_tls_open--> plain bytes, in place
 *     queue of plain bytes --pmi_tls_seal--> queue of records for the peer
 *
 * Knows no descriptor: core/conn moves the bytes. A realm is what the sessions
 * of one port, or of one dialler, share: certificate and key, who is believed,
 * the keys of tickets, limits, counters. It can be given another certificate at
 * any time: new handshakes use it, sessions go on with what they began with.
 *
 * At least TLS 1.2, with forward secrecy and authenticated ciphers only; 1.3
 * where mbedtls 3 has it and the host has started its PSA (psa_crypto_init: a
 * process-wide switch, so never ours). No renegotiation, no compression.
 * Random bytes are the system's. mbedtls takes its own memory from the
 * process's malloc unless the host sets its platform hooks.
 *
 * Nothing here is allocated for a peer who has not sent its first byte but the
 * struct itself; a handshake takes 36 KiB of mbedtls and its slot in the realm.
 * Signing and key exchange take milliseconds: in each turn they get a few of
 * them (pmi_tls_may_work), so that the others on the loop are served. */
#ifndef PMI_TLS_H
#define PMI_TLS_H

#include "queue.h"

typedef struct pmi_tls_realm pmi_tls_realm;
typedef struct pmi_tls pmi_tls;

/* cert, key and ca are PEM text or, without "-----BEGIN", the path of a file
 * with it; borrowed until the call returns. */
typedef struct pmi_tls_setup {
    const char *cert; /* a chain, the own one first. NULL: none (clients) */
    const char *key;  /* of `cert`, without a pass phrase */
    const char *ca;   /* who is believed. NULL: clients: the system's list */
    bool client;
    bool request_cert; /* servers: the client must show a certificate */
    bool insecure;     /* clients: any certificate of any name will do */
    bool tickets;      /* servers: hand them out. Clients: keep the last one for
                          the next session; then all go to one name */
} pmi_tls_setup;

typedef struct pmi_tls_counts {
    uint64_t handshakes; /* begun */
    uint64_t done, failed;
    uint64_t refused; /* too many at once */
    uint64_t resumed; /* servers: of those done, by a ticket */
} pmi_tls_counts;

/* One reference, the caller's. handshakes_max: at once, at least 1.
 * PM_ECONFIG what is wrong is in the log; PM_ENOMEM. */
pm_err pmi_tls_realm_new(pm_loop *loop, const pmi_env *env,
                         const pmi_tls_setup *setup, uint32_t handshakes_max,
                         pmi_tls_realm **out);
/* Other certificates for what comes. On an error all is as it was. */
pm_err pmi_tls_realm_renew(pmi_tls_realm *realm, const pmi_tls_setup *setup);
pmi_tls_realm *pmi_tls_realm_ref(pmi_tls_realm *realm);
void pmi_tls_realm_unref(pmi_tls_realm *realm); /* NULL is fine */
const pmi_tls_counts *pmi_tls_realm_counts(const pmi_tls_realm *realm);
/* Handshakes under way. */
uint32_t pmi_tls_realm_busy(const pmi_tls_realm *realm);

/* One session. name (copied): clients: what the certificate must be made out
 * to, a host or a numeric address; NULL: of anybody whom `ca` vouches for.
 * NULL: no memory. */
pmi_tls *pmi_tls_new(pmi_tls_realm *realm, pmi_segment_pool *pool,
                     const char *name);
void pmi_tls_free(pmi_tls *tls); /* NULL is fine */

/* Clients: the first flight goes into the queue. Another reason than NONE: it
 * can not begin. (Servers begin by themselves with the first byte.) */
pm_close_reason pmi_tls_begin(pmi_tls *tls);
/* False: this turn has spent its time on handshakes; read nothing now. */
bool pmi_tls_may_work(const pmi_tls *tls);
/* The handshake is done: plain bytes may go both ways. */
bool pmi_tls_is_up(const pmi_tls *tls);

/* What pmi_tls_open may add to the bytes that it is given: the rest of a record
 * of which the beginning had come before. */
#define PMI_TLS_RECORD_MAX (16 * 1024)
/* All `len` bytes are taken, up to the end of the session. Plain bytes go to
 * `out`, which has room for len + PMI_TLS_RECORD_MAX of them and may begin that
 * far before `in`. Returns how many came; -1: it has ended, *reason tells how
 * (PM_CLOSE_CLIENT: properly). When the end lies behind plain bytes these come
 * first, and the next call (of any length) says -1. */
long pmi_tls_open(pmi_tls *tls, const uint8_t *in, size_t len, uint8_t *out,
                  pm_close_reason *reason);
/* The session has come to its end: the next pmi_tls_open says so. */
bool pmi_tls_is_over(const pmi_tls *tls);

const char *pmi_tls_version(const pmi_tls *tls); /* "TLSv1.2": static */

/* Records for the peer: sent from the front by the caller. */
pmi_queue *pmi_tls_wire(pmi_tls *tls);
/* Moves at most `max` plain bytes from the front of a queue into records, while
 * less than 32 KiB wait to leave; nothing before the handshake is done. Returns
 * how many; -1: it has failed, *reason. */
long pmi_tls_seal(pmi_tls *tls, pmi_queue *plain, size_t max,
                  pm_close_reason *reason);
/* Says goodbye (close_notify) into the wire, once, if there is a session. */
void pmi_tls_bid(pmi_tls *tls);

/* Does the certificate that the peer has shown, and that `ca` vouches for, name
 * exactly this: one of its DNS names or, when it has no alternative names, its
 * common name? Without wildcards, capitals count. */
bool pmi_tls_peer_is(const pmi_tls *tls, const char *name);

#endif
