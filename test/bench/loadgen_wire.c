/* SPDX-License-Identifier: MIT */
/* test/bench/loadgen_wire.c -- sockets, packages, WebSocket frames.
 *
 * One thread, plain epoll. What is sent to a connection during one turn leaves
 * in one system call at its end, as a fast client would do it. Start reading
 * at load_turn. */
#include "loadgen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { LOAD_EVENTS = 512, LOAD_HEAD_MAX = 18, LOAD_UPGRADE_ROOM = 256 };

/* RFC 6455's own example. */
static const char load_key[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char load_accept[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

void load_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

void load_bad(load *self, const char *format, ...)
{
    va_list args;
    if (self->bad++)
        return;
    va_start(args, format);
    vsnprintf(self->why, sizeof self->why, format, args);
    va_end(args);
    for (char *at = self->why; *at; at++) /* it goes into JSON text */
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ')
            *at = '\'';
}

/* ---- Writing ------------------------------------------------------------- */

/* `len` more bytes at the end, for the caller to fill. */
static uint8_t *load_more(load_bytes *bytes, size_t len)
{
    if (bytes->len + len > bytes->room) {
        while (bytes->len + len > bytes->room)
            bytes->room = bytes->room ? bytes->room * 2 : 256;
        bytes->data = realloc(bytes->data, bytes->room);
        if (!bytes->data)
            load_die("no memory");
    }
    bytes->len += len;
    return bytes->data + bytes->len - len;
}

static void load_give_back(load_bytes *bytes)
{
    free(bytes->data);
    memset(bytes, 0, sizeof *bytes);
}

static void load_dirty(load *self, load_conn *conn)
{
    if (!conn->dirty)
        self->dirty[self->dirty_count++] = conn;
    conn->dirty = true;
}

/* The head of a masked frame of `len` bytes; returns its length with the
 * mask. */
static size_t load_frame_head(load *self, uint8_t *out, size_t len)
{
    size_t head = 2;
    out[0] = 0x82;
    out[1] = (uint8_t)(0x80 | (len < 126 ? len : len < 65536 ? 126 : 127));
    if (len >= 65536)
        for (; head < 10; head++)
            out[head] = (uint8_t)((uint64_t)len >> (8 * (9 - head)));
    else if (len >= 126)
        for (; head < 4; head++)
            out[head] = (uint8_t)(len >> (8 * (3 - head)));
    self->random ^= self->random << 13;
    self->random ^= self->random >> 17;
    self->random ^= self->random << 5;
    memcpy(out + head, &self->random, 4);
    return head + 4;
}

static void load_mask(uint8_t *data, size_t len, const uint8_t mask[4])
{
    uint64_t wide, word;
    size_t i = 0;
    memcpy(&wide, mask, 4);
    memcpy((uint8_t *)&wide + 4, mask, 4);
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < len; i++)
        data[i] ^= mask[i & 3];
}

void load_package(load *self, load_conn *conn, int type, const void *head,
                  size_t head_len, const void *body, size_t body_len)
{
    size_t len = head_len + body_len, frame = 0;
    uint8_t start[LOAD_HEAD_MAX], *at;
    if (self->ws)
        frame = load_frame_head(self, start, len + 4);
    at = load_more(&conn->out, frame + 4 + len);
    memcpy(at, start, frame);
    at += frame;
    at[0] = (uint8_t)type;
    at[1] = (uint8_t)(len >> 16);
    at[2] = (uint8_t)(len >> 8);
    at[3] = (uint8_t)len;
    if (head_len)
        memcpy(at + 4, head, head_len);
    if (body_len)
        memcpy(at + 4 + head_len, body, body_len);
    if (self->ws)
        load_mask(at, len + 4, start + frame - 4);
    load_dirty(self, conn);
}

static void load_want_write(load *self, load_conn *conn, bool wants)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = conn}};
    if (wants)
        event.events |= EPOLLOUT;
    if (wants != conn->wants_write)
        epoll_ctl(self->epoll, EPOLL_CTL_MOD, conn->fd, &event);
    conn->wants_write = wants;
}

static void load_flush(load *self)
{
    for (size_t i = 0; i < self->dirty_count; i++) {
        load_conn *conn = self->dirty[i];
        ssize_t sent;
        conn->dirty = false;
        if (conn->state == LOAD_DEAD)
            continue;
        sent = send(conn->fd, conn->out.data, conn->out.len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) {
            load_drop(self, conn, "can not send");
            continue;
        }
        if (sent > 0) {
            conn->out.len -= (size_t)sent;
            memmove(conn->out.data, conn->out.data + sent, conn->out.len);
        }
        load_want_write(self, conn, conn->out.len > 0);
        if (!conn->out.len && self->mode == LOAD_CONNECT)
            load_give_back(&conn->out);
    }
    self->dirty_count = 0;
}

/* ---- Opening ------------------------------------------------------------- */

/* Many connections leave from several loopback addresses: one address has
 * not ports enough, and finding one gets slow before. */
static void load_bind(const load *self, const load_conn *conn, int fd)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;
    if (self->sources < 2 && !self->first)
        return;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    from.sin_addr.s_addr =
        htonl(INADDR_LOOPBACK + 256 +
              (self->first + conn->index) / LOAD_PORTS_A_SOURCE);
    if (bind(fd, (struct sockaddr *)&from, sizeof from))
        load_die("can not bind: %s", strerror(errno));
}

void load_open(load *self, load_conn *conn)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(self->port)};
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = conn}};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        load_die("no socket: %s", strerror(errno));
    conn->fd = fd;
    conn->opened_ns = load_now_ns();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    load_bind(self, conn, fd);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        load_die("can not connect: %s", strerror(errno));
    epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event);
    if (self->ws) {
        char text[LOAD_UPGRADE_ROOM];
        int len = snprintf(text, sizeof text,
                           "GET / HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                           "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Key: %s\r\n"
                           "Sec-WebSocket-Version: 13\r\n\r\n",
                           self->port, load_key);
        memcpy(load_more(&conn->out, (size_t)len), text, (size_t)len);
        conn->state = LOAD_UPGRADING;
        load_dirty(self, conn);
    } else {
        load_connected(self, conn);
    }
}

void load_drop(load *self, load_conn *conn, const char *why)
{
    if (conn->state == LOAD_DEAD)
        return;
    load_bad(self, "connection %u: %s", conn->index, why);
    if (conn->state == LOAD_READY)
        self->ready--;
    close(conn->fd);
    conn->state = LOAD_DEAD;
}

/* ---- Reading ------------------------------------------------------------- */

/* Plays whole packages; returns how many bytes they were. */
static size_t load_packages(load *self, load_conn *conn, const uint8_t *data,
                            size_t len, uint64_t now_ns)
{
    size_t used = 0;
    while (conn->state != LOAD_DEAD && len - used >= 4) {
        const uint8_t *at = data + used;
        size_t body = (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
        if (len - used - 4 < body)
            break;
        load_play(self, conn, at[0], at + 4, body, now_ns);
        used += 4 + body;
    }
    return used;
}

/* 0: not all there yet. */
static size_t load_upgraded(load *self, load_conn *conn, const uint8_t *data,
                            size_t len)
{
    const uint8_t *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12) ||
        !memmem(data, len, load_accept, sizeof load_accept - 1)) {
        load_drop(self, conn, "not upgraded");
        return len;
    }
    load_connected(self, conn);
    return (size_t)(end - data) + 4;
}

static size_t load_frames(load *self, load_conn *conn, const uint8_t *data,
                          size_t len, uint64_t now_ns)
{
    size_t used = 0;
    if (conn->state == LOAD_UPGRADING)
        used = load_upgraded(self, conn, data, len);
    while (conn->state > LOAD_UPGRADING && conn->state != LOAD_DEAD &&
           len - used >= 2) {
        const uint8_t *at = data + used;
        size_t body = at[1] & 127, head = 2;
        size_t wide = body == 126 ? 2 : body == 127 ? 8 : 0;
        if (len - used < head + wide)
            break;
        for (body = wide ? 0 : body; head < 2 + wide; head++)
            body = body << 8 | at[head];
        if (len - used - head < body)
            break;
        if (at[0] != 0x82 || at[1] & 0x80)
            load_drop(self, conn, "not a whole binary frame");
        else if (load_packages(self, conn, at + head, body, now_ns) != body &&
                 conn->state != LOAD_DEAD)
            load_bad(self, "a frame that does not end with a package");
        used += head + body;
    }
    return used;
}

/* Keeps what is not played yet; an idle connection owns no buffer. */
static void load_keep(load_conn *conn, const uint8_t *data, size_t len)
{
    if (conn->in.data && data >= conn->in.data &&
        data <= conn->in.data + conn->in.room) {
        memmove(conn->in.data, data, len);
        conn->in.len = len;
    } else if (len) {
        conn->in.len = 0;
        memcpy(load_more(&conn->in, len), data, len);
    }
    if (!len)
        load_give_back(&conn->in);
}

static void load_read(load *self, load_conn *conn)
{
    size_t have = conn->in.len, room = LOAD_READ_ROOM - have, used;
    uint8_t *data = self->room;
    ssize_t len;
    uint64_t now_ns;
    if (have > LOAD_READ_ROOM / 2) { /* a large package grows in place */
        room = LOAD_READ_ROOM;
        load_more(&conn->in, room);
        conn->in.len = have;
        data = conn->in.data;
    } else if (have) {
        memcpy(data, conn->in.data, have);
    }
    len = recv(conn->fd, data + have, room, 0);
    if (len < 0 && errno == EAGAIN)
        return;
    if (len <= 0) {
        load_drop(self, conn, len ? strerror(errno) : "closed by the server");
        return;
    }
    have += (size_t)len;
    now_ns = load_now_ns();
    used = self->ws ? load_frames(self, conn, data, have, now_ns)
                    : load_packages(self, conn, data, have, now_ns);
    load_keep(conn, data + used, have - used);
}

void load_turn(load *self, int timeout_ms)
{
    struct epoll_event events[LOAD_EVENTS];
    int count;
    load_flush(self); /* what was begun between two turns */
    count = epoll_wait(self->epoll, events, LOAD_EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        load_conn *conn = events[i].data.ptr;
        if (conn->state == LOAD_DEAD)
            continue;
        if (events[i].events & EPOLLOUT && conn->out.len)
            load_dirty(self, conn);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            load_read(self, conn);
    }
    load_beat(self, load_now_ns());
    load_flush(self);
}
