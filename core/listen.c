/* SPDX-License-Identifier: MIT */
/* core/listen.c -- both ways to a connection: a listener, and connecting.
 *
 * A listener has a socket, a door in memory, or both. A door is a name on the
 * loop, "host:port"; who connects through it gets one end of a pipe, and the
 * listener's owner the other one on the next turn.
 * Start reading at pmi_listen() and pmi_conn_connect(). */
#include "conn_open.h"

enum {
    LISTEN_BACKLOG = 1024,
    LISTEN_ACCEPT_MAX = 64, /* connections a turn; the others wait */
    LISTEN_RETRY_MS = 100,  /* out of descriptors: try again then */
    LISTEN_PORT_FIRST = 40000,
    LISTEN_NAME_MAX = 300 /* host, colon, port */
};

struct pmi_listener {
    pm_loop *loop; /* borrowed */
    pmi_framing framing;
    pmi_conn_limits limits;
    pmi_tls_realm *tls; /* a reference; NULL: plain */
    void (*accepted)(pmi_listener *listener, pmi_conn *conn, void *ctx);
    void *ctx;
    pmi_watch watch;
    pmi_timer retry;
    pmi_link knocks; /* who stands at the door in memory */
    pmi_task answer; /* lets them in; later frees the storage */
    uint16_t port;
    bool has_socket, has_door, paused, closed;
    char name[LISTEN_NAME_MAX];
};

/* A connection that waits at the door. */
typedef struct listen_knock {
    pmi_link link;
    pmi_conn *conn; /* owned until it is handed over */
} listen_knock;

/* ---- Names of doors ---------------------------------------------------- */
/* Hosts that mean the same must give the same name. */
static bool listen_name(char out[LISTEN_NAME_MAX], const char *host,
                        uint16_t port)
{
    char text[PMI_ADDR_TEXT_MAX];
    pmi_addr addr;
    size_t len;
    if (!host || !*host || !strcmp(host, "*"))
        host = "127.0.0.1";
    if (pmi_addr_parse(&addr, host, port))
        host = pmi_addr_text(&addr, text);
    if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::") || !strcmp(host, "::1"))
        host = "127.0.0.1";
    if (strlen(host) > LISTEN_NAME_MAX - 8)
        return false;
    len = pmi_format(out, LISTEN_NAME_MAX, "%s:%u", host, (unsigned)port);
    return len > 0;
}

static pm_err listen_door(pmi_listener *listener, const char *host)
{
    uint16_t port = listener->port ? listener->port : LISTEN_PORT_FIRST;
    for (;;) {
        if (!listen_name(listener->name, host, port))
            return PM_EINVAL;
        pm_err err =
            pmi_loop_door_add(listener->loop, listener->name, listener);
        if (err == PM_OK) {
            listener->port = port;
            listener->has_door = true;
            return PM_OK;
        }
        if (err != PM_EEXIST)
            return err;
        if (listener->port || port == UINT16_MAX)
            return PM_EADDR;
        port++;
    }
}

/* ---- Accepting from the socket ----------------------------------------- */
static void listen_retry(pmi_timer *timer);

static void listen_watch(pmi_listener *listener)
{
    bool on = !listener->paused && !pmi_timer_is_set(&listener->retry);
    if (!listener->has_socket || listener->closed)
        return;
    if (pmi_watch_set(&listener->watch, on ? PMI_READABLE : 0) != PM_OK)
        pmi_timer_set(listener->loop, &listener->retry,
                      (uint64_t)LISTEN_RETRY_MS * 1000, listen_retry);
}

static void listen_rest(pmi_listener *listener)
{
    pmi_timer_set(listener->loop, &listener->retry,
                  (uint64_t)LISTEN_RETRY_MS * 1000, listen_retry);
    listen_watch(listener);
}

static void listen_retry(pmi_timer *timer)
{
    listen_watch(PMI_OUTER(timer, pmi_listener, retry));
}

static void listen_ready(pmi_watch *watch, int what)
{
    pmi_listener *listener = PMI_OUTER(watch, pmi_listener, watch);
    (void)what;
    for (int i = 0; i < LISTEN_ACCEPT_MAX; i++) {
        pmi_addr peer = {0};
        pmi_conn *conn = NULL;
        int fd = -1;
        pm_err err = pmi_sock_accept(watch->fd, &fd, &peer);
        if (err == PM_ELIMIT)
            listen_rest(listener);
        if (err == PM_ENET)
            continue; /* that one has gone away again */
        if (err != PM_OK)
            return;
        if (pmi_conn_accept(listener->loop, fd, &peer, listener->framing,
                            &listener->limits, listener->tls, &conn) != PM_OK) {
            pmi_sock_close(fd);
            listen_rest(listener);
            return;
        }
        listener->accepted(listener, conn, listener->ctx);
        if (listener->closed || listener->paused ||
            pmi_loop_over_budget(listener->loop))
            return;
    }
}

/* ---- The door in memory ------------------------------------------------ */
static void listen_answer(pmi_task *task)
{
    pmi_listener *listener = PMI_OUTER(task, pmi_listener, answer);
    const pmi_env *env = pmi_loop_env(listener->loop);
    pmi_link now, *node;
    pmi_list_init(&now);
    pmi_list_move(&now, &listener->knocks);
    while (!listener->paused && !listener->closed &&
           (node = pmi_list_take(&now)) != NULL) {
        listen_knock *knock = PMI_OUTER(node, listen_knock, link);
        pmi_conn *conn = knock->conn;
        pmi_free(env, knock);
        listener->accepted(listener, conn, listener->ctx);
    }
    /* Paused or closed from inside: the others are where they were. */
    pmi_list_move(&now, &listener->knocks);
    pmi_list_move(&listener->knocks, &now);
}

static pm_err listen_knock_at(pmi_listener *listener, pmi_pipe *pipe)
{
    pm_loop *loop = listener->loop;
    listen_knock *knock = pmi_zalloc(pmi_loop_env(loop), sizeof *knock);
    if (!knock)
        return PM_ENOMEM;
    if (pmi_conn_accept_pipe(loop, pipe, &listener->limits, &knock->conn) !=
        PM_OK) {
        pmi_free(pmi_loop_env(loop), knock);
        return PM_ENOMEM;
    }
    pmi_list_add(&listener->knocks, &knock->link);
    if (!listener->paused)
        pmi_loop_defer(loop, &listener->answer, listen_answer);
    return PM_OK;
}

/* Those who still wait see the door shut. */
static void listen_dismiss(pmi_listener *listener)
{
    pmi_link *node;
    while ((node = pmi_list_take(&listener->knocks)) != NULL) {
        listen_knock *knock = PMI_OUTER(node, listen_knock, link);
        pmi_conn_free(knock->conn);
        pmi_free(pmi_loop_env(listener->loop), knock);
    }
}

/* ---- A listener -------------------------------------------------------- */
static pm_err listen_socket(pmi_listener *listener, const char *host)
{
    pmi_addr addr = {0};
    int fd = -1;
    if (!pmi_addr_parse(&addr, host ? host : "", listener->port))
        return PM_ERESOLVE;
    pm_err err = pmi_sock_listen(&addr, LISTEN_BACKLOG, &fd);
    if (err != PM_OK)
        return err;
    listener->has_socket = true;
    listener->port = pmi_addr_port(&addr);
    pmi_watch_init(listener->loop, &listener->watch, fd, listen_ready);
    return pmi_watch_set(&listener->watch, PMI_READABLE);
}

pm_err pmi_listen(pm_loop *loop, const pmi_listen_opts *opts,
                  pmi_listener **out)
{
    pmi_listener *listener;
    pm_err err = PM_OK;
    if (!opts->accepted)
        return PM_EINVAL;
    listener = pmi_zalloc(pmi_loop_env(loop), sizeof *listener);
    if (!listener)
        return PM_ENOMEM;
    listener->loop = loop;
    listener->framing = opts->framing;
    listener->limits = opts->limits;
    listener->tls = opts->tls ? pmi_tls_realm_ref(opts->tls) : NULL;
    listener->accepted = opts->accepted;
    listener->ctx = opts->ctx;
    listener->port = opts->port;
    pmi_list_init(&listener->knocks);
    pmi_loop_hold(loop);
    if (!opts->memory_only && !pmi_loop_memory_only(loop))
        err = listen_socket(listener, opts->host);
    if (err == PM_OK)
        err = listen_door(listener, opts->host);
    if (err != PM_OK) {
        pmi_listener_close(listener);
        return err;
    }
    *out = listener;
    return PM_OK;
}

uint16_t pmi_listener_port(const pmi_listener *listener)
{
    return listener->port;
}

void pmi_listener_pause(pmi_listener *listener, bool paused)
{
    if (listener->paused == paused)
        return;
    listener->paused = paused;
    listen_watch(listener);
    if (!paused && !pmi_list_empty(&listener->knocks))
        pmi_loop_defer(listener->loop, &listener->answer, listen_answer);
}

static void listen_bury(pmi_task *task)
{
    pmi_listener *listener = PMI_OUTER(task, pmi_listener, answer);
    pm_loop *loop = listener->loop;
    listen_dismiss(listener);
    pmi_free(pmi_loop_env(loop), listener);
    pmi_loop_drop(loop);
}

void pmi_listener_close(pmi_listener *listener)
{
    if (!listener || listener->closed)
        return;
    listener->closed = true;
    pmi_task_cancel(&listener->answer);
    pmi_timer_clear(&listener->retry);
    if (listener->has_door)
        pmi_loop_door_remove(listener->loop, listener->name);
    if (listener->has_socket) {
        int fd = listener->watch.fd;
        pmi_watch_fini(&listener->watch);
        pmi_sock_close(fd);
    }
    listen_dismiss(listener);
    pmi_tls_realm_unref(listener->tls);
    listener->tls = NULL;
    pmi_loop_bury(listener->loop, &listener->answer, listen_bury);
}

/* ---- Connecting -------------------------------------------------------- */
static pm_err listen_connect_door(pm_loop *loop, pmi_listener *door,
                                  const pmi_connect_opts *opts,
                                  const pmi_conn_events *events, void *ctx,
                                  pmi_conn **out)
{
    pmi_segment_pool *pool = pmi_conn_segments(loop);
    pmi_pipe *ends[2];
    pmi_conn *conn = NULL;
    pm_err err;
    if (!pool)
        return PM_ENOMEM;
    err = pmi_pipe_new(pool, opts->from ? opts->from : "", door->name, ends);
    if (err != PM_OK)
        return err;
    err =
        pmi_conn_connect_pipe(loop, ends[0], &opts->limits, events, ctx, &conn);
    if (err != PM_OK) {
        pmi_pipe_close(ends[0]);
        pmi_pipe_close(ends[1]);
        return err;
    }
    err = listen_knock_at(door, ends[1]);
    if (err != PM_OK) {
        pmi_pipe_close(ends[1]);
        pmi_conn_free(conn);
        return err;
    }
    *out = conn;
    return PM_OK;
}

pm_err pmi_conn_connect(pm_loop *loop, const pmi_connect_opts *opts,
                        const pmi_conn_events *events, void *ctx,
                        pmi_conn **out)
{
    char name[LISTEN_NAME_MAX];
    if (!opts->host || !*opts->host || opts->framing == PMI_FRAMING_SNIFF ||
        !listen_name(name, opts->host, opts->port))
        return PM_EINVAL;
    if (opts->memory || pmi_loop_memory_only(loop)) {
        pmi_listener *door = pmi_loop_door_find(loop, name);
        if (door)
            return listen_connect_door(loop, door, opts, events, ctx, out);
    }
    return pmi_conn_dial(loop, opts, events, ctx, out);
}
