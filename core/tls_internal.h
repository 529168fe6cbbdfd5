/* SPDX-License-Identifier: MIT */
/* core/tls_internal.h -- the inside of TLS, for the two files that make it up:
 * tls_realm.c (certificates, what sessions share) and tls.c (one session). */
#ifndef PMI_TLS_INTERNAL_H
#define PMI_TLS_INTERNAL_H

#include "crypto.h"
#include "tls.h"

#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/version.h>
#include <mbedtls/x509.h>
#include <mbedtls/x509_crt.h>

/* What counted when a session began: kept until the last such session ends. */
typedef struct pmi_tls_identity {
    const pmi_env *env; /* borrowed */
    uint32_t refs;
    bool client, insecure, keeps_tickets;
    pmi_tls_counts *counts; /* borrowed: the realm's, which outlives us */
    mbedtls_ssl_config config;
    mbedtls_x509_crt cert, ca;
    mbedtls_pk_context key;
    mbedtls_ssl_ticket_context tickets;
    mbedtls_ssl_session session; /* clients: for the next one */
    bool has_session;
} pmi_tls_identity;

struct pmi_tls_realm {
    pm_loop *loop;      /* borrowed */
    const pmi_env *env; /* borrowed */
    uint32_t refs;
    uint32_t busy, busy_max; /* handshakes under way */
    pmi_tls_identity *now;   /* a reference */
    pmi_tls_counts counts;
    uint64_t spent_us; /* time that handshakes took in this turn */
    pmi_task turn;     /* its end */
    pmi_chunk *plain;  /* where small messages become one record; made when
                          it is needed first */
};

pmi_tls_identity *pmi_tls_identity_ref(pmi_tls_identity *identity);
void pmi_tls_identity_unref(pmi_tls_identity *identity); /* NULL is fine */
/* For mbedtls: bytes of the system. */
int pmi_tls_random(void *ctx, unsigned char *out, size_t len);
/* Was it for want of memory? */
bool pmi_tls_is_memory(int error);
/* A sentence for one of mbedtls' errors. Returns out. */
const char *pmi_tls_why(int error, char *out, size_t size);

#endif
