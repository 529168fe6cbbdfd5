/* SPDX-License-Identifier: MIT */
/* core/conn_open.c -- how a connection is made: accepted or dialled, on a
 * descriptor or on a pipe.
 *
 * Nothing is told to the owner from inside the call that makes a connection.
 * Start reading at pmi_conn_dial(). */
#include "conn_open.h"
#include "conn_read.h"
#include "crypto.h"

pmi_segment_pool *pmi_conn_segments(pm_loop *loop)
{
    pmi_conn_shared *shared = pmi_conn_shared_of(loop);
    return shared ? &shared->segments : NULL;
}

/* ---- Making one -------------------------------------------------------- */
static uint32_t conn_limit(size_t limit)
{
    if (limit == 0 || limit > UINT32_MAX / 4)
        return UINT32_MAX / 4;
    return (uint32_t)limit;
}

static pmi_conn *conn_new(pm_loop *loop, pmi_framing framing,
                          const pmi_conn_limits *limits)
{
    pmi_conn_shared *shared = pmi_conn_shared_of(loop);
    pmi_conn *c = shared ? pmi_zalloc(pmi_loop_env(loop), sizeof *c) : NULL;
    if (!c)
        return NULL;
    c->shared = shared;
    c->framing = (uint32_t)framing & 3;
    c->in_max = conn_limit(limits->in_max);
    c->out_max = conn_limit(limits->out_max);
    c->tally = (uint32_t)limits->tally & 7;
    c->open_ms = limits->open_ms;
    c->only_get = limits->sniff_http_only_get;
    pmi_loop_hold(loop);
    return c;
}

static void conn_attach_fd(pmi_conn *c, int fd, const pmi_addr *peer)
{
    c->peer = *peer;
    c->attached = true;
    pmi_watch_init(pmi_conn_home(c), &c->via.watch, fd, pmi_conn_watch_ready);
}

static void conn_attach_pipe(pmi_conn *c, pmi_pipe *pipe)
{
    c->memory = true;
    c->attached = true;
    c->framing = PMI_FRAMING_STREAM;
    c->via.pipe = pipe;
}

pm_err pmi_conn_accept(pm_loop *loop, int fd, const pmi_addr *peer,
                       pmi_framing framing, const pmi_conn_limits *limits,
                       pmi_tls_realm *tls, pmi_conn **out)
{
    pmi_conn *c = conn_new(loop, framing, limits);
    if (!c)
        return PM_ENOMEM;
    if ((tls && pmi_conn_secure_new(c, tls, NULL) != PM_OK) ||
        (framing != PMI_FRAMING_STREAM && pmi_conn_extra_new(c) != PM_OK)) {
        pmi_conn_free(c);
        return PM_ENOMEM;
    }
    if (limits->send_buffer)
        pmi_sock_set_buffers(fd, limits->send_buffer, 0);
    conn_attach_fd(c, fd, peer);
    *out = c;
    return PM_OK;
}

pm_err pmi_conn_accept_pipe(pm_loop *loop, pmi_pipe *pipe,
                            const pmi_conn_limits *limits, pmi_conn **out)
{
    pmi_conn *c = conn_new(loop, PMI_FRAMING_STREAM, limits);
    if (!c)
        return PM_ENOMEM;
    conn_attach_pipe(c, pipe);
    *out = c;
    return PM_OK;
}

static void conn_arm_open_timer(pmi_conn *c)
{
    if (c->open_ms && c->extra)
        pmi_timer_set(pmi_conn_home(c), &c->extra->timer,
                      (uint64_t)c->open_ms * 1000, pmi_conn_expired);
    c->reserved = 0;
}

pm_err pmi_conn_set_front(pmi_conn *c, const pmi_conn_front *front, void *ctx,
                          bool header)
{
    PMI_ASSERT(c->state == PMI_CONN_NEW && !c->memory);
    if (pmi_conn_extra_new(c) != PM_OK)
        return PM_ENOMEM;
    if (header)
        c->extra->proxy = pmi_zalloc(pmi_conn_env(c), sizeof *c->extra->proxy);
    if (header && !c->extra->proxy)
        return PM_ENOMEM;
    c->extra->front = front;
    c->extra->front_ctx = ctx;
    return PM_OK;
}

void pmi_conn_start(pmi_conn *c, const pmi_conn_events *events, void *ctx)
{
    PMI_ASSERT(c->state == PMI_CONN_NEW);
    c->events = events;
    c->ctx = ctx;
    c->state =
        c->framing == PMI_FRAMING_STREAM ? PMI_CONN_STREAM : PMI_CONN_SNIFFING;
    if (c->extra && c->extra->proxy)
        c->state = PMI_CONN_PROXIED;
    conn_arm_open_timer(c);
    if (c->memory)
        pmi_pipe_start(c->via.pipe, pmi_conn_ready, c);
    pmi_conn_want(c, PMI_READABLE);
}

/* Could this stand in the head of a request? */
static bool conn_is_plain(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] <= ' ' || text[i] == 0x7f)
            return false;
    return len > 0 && len < PMI_HTTP_HEAD_MAX / 2;
}

static void conn_request_write(pmi_conn *c, const char *host, uint16_t port,
                               const char *target, pmi_buf *request)
{
    uint8_t key[16];
    char text[25], name[PMI_HTTP_HEAD_MAX / 2 + 16];
    bool bare6 = strchr(host, ':') && host[0] != '[';
    size_t len = pmi_format(name, sizeof name, bare6 ? "[%s]:%u" : "%s:%u",
                            host, (unsigned)port);
    pm_slice host_text = {name, len}, target_text = {target, strlen(target)};
    pmi_loop_random(pmi_conn_home(c), key, sizeof key);
    pm_slice key_text = {text, pmi_base64(key, sizeof key, text)};
    pmi_ws_accept_key(key_text, c->extra->accept_key);
    pmi_ws_request_upgrade(host_text, target_text, key, request);
}

/* The upgrade request is the first thing in the queue. */
static pm_err conn_queue_request(pmi_conn *c, const pmi_connect_opts *opts)
{
    const char *target = opts->ws_target ? opts->ws_target : "/";
    pmi_buf request;
    pm_err err = PM_OK;
    if (!conn_is_plain(target) || !conn_is_plain(opts->host))
        return PM_EINVAL;
    pmi_buf_init(&request, pmi_conn_env(c), 2 * PMI_HTTP_HEAD_MAX);
    conn_request_write(c, opts->host, opts->port, target, &request);
    if (request.failed || !pmi_conn_put(c, pmi_buf_slice(&request))) {
        err = PM_ENOMEM;
    } else {
        c->out.last->open = false;
        c->extra->request_left = request.len;
    }
    pmi_buf_fini(&request);
    return err;
}

static void conn_dialled(pmi_dial *dial, pm_err err, int fd)
{
    pmi_conn_extra *extra = PMI_OUTER(dial, pmi_conn_extra, dial);
    pmi_conn *c = extra->conn;
    if (err != PM_OK) {
        pmi_conn_end(c, err == PM_ENOMEM ? PM_CLOSE_MEMORY : PM_CLOSE_CONNECT);
        return;
    }
    conn_attach_fd(c, fd, &dial->addr);
    pmi_conn_want(c, PMI_READABLE);
    if (!pmi_conn_alive(c))
        return;
    if (c->tls) {
        pm_close_reason reason = pmi_tls_begin(pmi_conn_tls(c));
        c->state = PMI_CONN_SECURING;
        if (reason)
            pmi_conn_end(c, reason);
        else
            pmi_conn_write_out(c);
        return;
    }
    pmi_conn_reached(c);
}

pm_err pmi_conn_dial(pm_loop *loop, const pmi_connect_opts *opts,
                     const pmi_conn_events *events, void *ctx, pmi_conn **out)
{
    pmi_conn *c = conn_new(loop, opts->framing, &opts->limits);
    if (!c)
        return PM_ENOMEM;
    c->client = true;
    c->state = PMI_CONN_DIALLING;
    pm_err err = pmi_conn_extra_new(c);
    if (err == PM_OK && pmi_conn_is_ws(c))
        err = conn_queue_request(c, opts);
    if (err == PM_OK && opts->tls)
        err = pmi_conn_secure_new(c, opts->tls, opts->tls_name);
    if (err == PM_OK)
        err = pmi_dial_start(loop, &c->extra->dial, opts->host, opts->port,
                             opts->limits.send_buffer, conn_dialled);
    if (err != PM_OK) {
        pmi_conn_free(c);
        return err;
    }
    c->events = events;
    c->ctx = ctx;
    conn_arm_open_timer(c);
    *out = c;
    return PM_OK;
}

static void conn_piped(pmi_task *task)
{
    pmi_conn *c = PMI_OUTER(task, pmi_conn, later);
    pmi_pipe_start(c->via.pipe, pmi_conn_ready, c);
    pmi_conn_want(c, PMI_READABLE);
    pmi_conn_settle(c, PMI_FRAMING_STREAM);
}

pm_err pmi_conn_connect_pipe(pm_loop *loop, pmi_pipe *pipe,
                             const pmi_conn_limits *limits,
                             const pmi_conn_events *events, void *ctx,
                             pmi_conn **out)
{
    pmi_conn *c = conn_new(loop, PMI_FRAMING_STREAM, limits);
    if (!c)
        return PM_ENOMEM;
    conn_attach_pipe(c, pipe);
    c->reserved = 0; /* a pipe is open at once */
    c->client = true;
    c->state = PMI_CONN_DIALLING;
    c->events = events;
    c->ctx = ctx;
    pmi_loop_defer(loop, &c->later, conn_piped);
    *out = c;
    return PM_OK;
}
