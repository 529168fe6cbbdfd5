/* SPDX-License-Identifier: MIT */
/* core/conn_read.h -- how bytes come in. */
#ifndef PMI_CONN_READ_H
#define PMI_CONN_READ_H

#include "conn_internal.h"

/* Readiness of a pipe (ctx: the connection) and of a descriptor. */
void pmi_conn_ready(void *ctx, int what);
void pmi_conn_watch_ready(pmi_watch *watch, int what);
/* The framing is known: events flow from now on. */
void pmi_conn_settle(pmi_conn *c, pmi_framing framing);
/* Outgoing: bytes flow. Asks for the upgrade, or settles. */
void pmi_conn_reached(pmi_conn *c);

#endif
