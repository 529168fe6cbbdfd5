/* SPDX-License-Identifier: MIT */
/* core/conn_open.h -- how a connection is made, for core/listen. */
#ifndef PMI_CONN_OPEN_H
#define PMI_CONN_OPEN_H

#include "conn.h"
#include "pipe.h"
#include "tls.h"

/* What two ends of a pipe share with the connections of the loop. NULL: no
 * memory. */
pmi_segment_pool *pmi_conn_segments(pm_loop *loop);
/* An accepted connection, not started. fd and pipe are taken on success. tls:
 * NULL is plain. */
pm_err pmi_conn_accept(pm_loop *loop, int fd, const pmi_addr *peer,
                       pmi_framing framing, const pmi_conn_limits *limits,
                       pmi_tls_realm *tls, pmi_conn **out);
pm_err pmi_conn_accept_pipe(pm_loop *loop, pmi_pipe *pipe,
                            const pmi_conn_limits *limits, pmi_conn **out);
/* The two ways of pmi_conn_connect: by socket, by a pipe (taken on success). */
pm_err pmi_conn_dial(pm_loop *loop, const pmi_connect_opts *opts,
                     const pmi_conn_events *events, void *ctx, pmi_conn **out);
pm_err pmi_conn_connect_pipe(pm_loop *loop, pmi_pipe *pipe,
                             const pmi_conn_limits *limits,
                             const pmi_conn_events *events, void *ctx,
                             pmi_conn **out);

#endif
