/* SPDX-License-Identifier: MIT */
/* test/bench/floor.c -- the least server of Pomelo's client protocol: what a
 * real one can at best come near to.
 *
 *     floor PORT
 *
 * epoll, one recv, one send a turn and connection; every request is answered
 * with its own id and body. No JSON, no sessions, no timers, no limits: it
 * trusts the load generator beside it. Routes that end in ".enter" join the
 * one channel, routes that end in ".send" push to it, so that a push has a
 * floor too. It knows one WebSocket key, the load generator's. Start reading
 * at main; what is not system calls is in floor_packages. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FLOOR_EVENTS = 512, FLOOR_ROOM = 1 << 17, FLOOR_HEAD = 14 };
enum { FLOOR_UNKNOWN, FLOOR_TCP, FLOOR_WS };

typedef struct floor_bytes {
    uint8_t *data;
    size_t len, room;
} floor_bytes;

typedef struct floor_conn {
    int fd, framing;
    bool dirty, wants_write, joined;
    size_t seat; /* in the channel */
    floor_bytes in, out;
} floor_conn;

typedef struct floor_list {
    floor_conn **items;
    size_t count, room;
} floor_list;

typedef struct floor_server {
    int epoll, listener;
    floor_list dirty, members;
    uint8_t room[FLOOR_ROOM];
} floor_server;

static const char floor_ok[] = "{\"code\":200}";
static const char floor_hello[] = "{\"code\":200,\"sys\":{\"heartbeat\":10}}";
static const char floor_upgraded[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void *floor_resize(void *ptr, size_t bytes)
{
    ptr = realloc(ptr, bytes);
    if (!ptr) {
        fputs("floor: no memory\n", stderr);
        exit(1);
    }
    return ptr;
}

static void floor_list_add(floor_list *list, floor_conn *conn)
{
    if (list->count == list->room) {
        list->room = list->room ? list->room * 2 : 1024;
        list->items =
            floor_resize(list->items, list->room * sizeof *list->items);
    }
    list->items[list->count++] = conn;
}

static uint8_t *floor_more(floor_bytes *bytes, size_t len)
{
    if (bytes->len + len > bytes->room) {
        while (bytes->len + len > bytes->room)
            bytes->room = bytes->room ? bytes->room * 2 : 1024;
        bytes->data = floor_resize(bytes->data, bytes->room);
    }
    bytes->len += len;
    return bytes->data + bytes->len - len;
}

/* ---- Answers ------------------------------------------------------------- */

static void floor_write(floor_server *self, floor_conn *conn, const void *data,
                        size_t len)
{
    memcpy(floor_more(&conn->out, len), data, len);
    if (!conn->dirty)
        floor_list_add(&self->dirty, conn);
    conn->dirty = true;
}

/* Frame head (by WebSocket) and package head; returns their length. */
static size_t floor_head(uint8_t *out, int framing, int type, size_t len)
{
    size_t at = 0, frame = len + 4;
    if (framing == FLOOR_WS) {
        out[at++] = 0x82;
        if (frame < 126) {
            out[at++] = (uint8_t)frame;
        } else {
            out[at++] = frame < 65536 ? 126 : 127;
            for (int i = frame < 65536 ? 8 : 56; i >= 0; i -= 8)
                out[at++] = (uint8_t)((uint64_t)frame >> i);
        }
    }
    out[at++] = (uint8_t)type;
    out[at++] = (uint8_t)(len >> 16);
    out[at++] = (uint8_t)(len >> 8);
    out[at++] = (uint8_t)len;
    return at;
}

static void floor_send(floor_server *self, floor_conn *conn, int type,
                       const void *start, size_t start_len, const void *body,
                       size_t len)
{
    uint8_t head[FLOOR_HEAD + 8];
    size_t at = floor_head(head, conn->framing, type, start_len + len);
    memcpy(head + at, start, start_len);
    floor_write(self, conn, head, at + start_len);
    if (len)
        floor_write(self, conn, body, len);
}

/* Encoded once for each framing. */
static void floor_push(floor_server *self, const uint8_t *body, size_t len)
{
    static const uint8_t start[] = "\006\006onChat";
    for (int framing = FLOOR_TCP; framing <= FLOOR_WS; framing++) {
        size_t start_len = sizeof start - 1;
        uint8_t *text = floor_resize(NULL, FLOOR_HEAD + start_len + len);
        size_t at = floor_head(text, framing, 4, start_len + len);
        memcpy(text + at, start, start_len);
        memcpy(text + at + start_len, body, len);
        for (size_t i = 0; i < self->members.count; i++)
            if (self->members.items[i]->framing == framing)
                floor_write(self, self->members.items[i], text,
                            at + start_len + len);
        free(text);
    }
}

static void floor_join(floor_server *self, floor_conn *conn)
{
    if (conn->joined)
        return;
    conn->joined = true;
    conn->seat = self->members.count;
    floor_list_add(&self->members, conn);
}

static bool floor_ends(const uint8_t *text, size_t len, const char *with)
{
    size_t n = strlen(with);
    return len >= n && !memcmp(text + len - n, with, n);
}

static void floor_message(floor_server *self, floor_conn *conn,
                          const uint8_t *data, size_t len)
{
    uint8_t start[8] = {2 << 1};
    size_t at = 1, id_len, route_len = 0;
    while (at < len && at < 7 && data[at] & 128)
        at++;
    id_len = at++;
    memcpy(start + 1, data + 1, id_len);
    if (data[0] & 1) {
        at += 2;
    } else if (at < len) {
        route_len = data[at];
        at += 1 + route_len;
    }
    if (at > len)
        return;
    if (floor_ends(data, at, ".enter")) {
        floor_join(self, conn);
        floor_send(self, conn, 4, start, 1 + id_len, floor_ok,
                   sizeof floor_ok - 1);
    } else if (route_len && floor_ends(data, at, ".send")) {
        floor_push(self, data + at, len - at);
        floor_send(self, conn, 4, start, 1 + id_len, floor_ok,
                   sizeof floor_ok - 1);
    } else {
        floor_send(self, conn, 4, start, 1 + id_len, data + at, len - at);
    }
}

static size_t floor_packages(floor_server *self, floor_conn *conn,
                             const uint8_t *data, size_t len)
{
    size_t used = 0;
    while (len - used >= 4) {
        const uint8_t *at = data + used;
        size_t body = (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
        if (len - used - 4 < body)
            break;
        if (at[0] == 4 && body >= 2)
            floor_message(self, conn, at + 4, body);
        else if (at[0] == 1)
            floor_send(self, conn, 1, floor_hello, 0, floor_hello,
                       sizeof floor_hello - 1);
        used += 4 + body;
    }
    return used;
}

/* ---- WebSocket ----------------------------------------------------------- */

static void floor_unmask(uint8_t *data, size_t len, const uint8_t mask[4])
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

static size_t floor_frames(floor_server *self, floor_conn *conn, uint8_t *data,
                           size_t len)
{
    size_t used = 0;
    while (len - used >= 6) {
        uint8_t *at = data + used;
        size_t body = at[1] & 127, head = 2;
        size_t wide = body == 126 ? 2 : body == 127 ? 8 : 0;
        if (len - used < 6 + wide)
            break;
        for (body = wide ? 0 : body; head < 2 + wide; head++)
            body = body << 8 | at[head];
        if (len - used - head - 4 < body)
            break;
        floor_unmask(at + head + 4, body, at + head);
        floor_packages(self, conn, at + head + 4, body);
        used += head + 4 + body;
    }
    return used;
}

static size_t floor_feed(floor_server *self, floor_conn *conn, uint8_t *data,
                         size_t len)
{
    const uint8_t *end;
    if (conn->framing == FLOOR_UNKNOWN && data[0] == 'G') {
        end = memmem(data, len, "\r\n\r\n", 4);
        if (!end)
            return 0;
        conn->framing = FLOOR_WS;
        floor_write(self, conn, floor_upgraded, sizeof floor_upgraded - 1);
        return (size_t)(end - data) + 4;
    }
    if (conn->framing == FLOOR_WS)
        return floor_frames(self, conn, data, len);
    conn->framing = FLOOR_TCP;
    return floor_packages(self, conn, data, len);
}

/* ---- System calls -------------------------------------------------------- */

static void floor_end(floor_server *self, floor_conn *conn)
{
    if (conn->joined) {
        floor_conn *last = self->members.items[--self->members.count];
        self->members.items[conn->seat] = last;
        last->seat = conn->seat;
    }
    for (size_t i = 0; conn->dirty && i < self->dirty.count; i++)
        if (self->dirty.items[i] == conn)
            self->dirty.items[i] = NULL;
    close(conn->fd);
    free(conn->in.data);
    free(conn->out.data);
    free(conn);
}

static void floor_accept(floor_server *self)
{
    int fd, one = 1;
    while ((fd = accept4(self->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        floor_conn *conn = floor_resize(NULL, sizeof *conn);
        struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = conn}};
        *conn = (floor_conn){.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void floor_read(floor_server *self, floor_conn *conn)
{
    size_t have = conn->in.len, used;
    ssize_t len;
    if (have)
        memcpy(self->room, conn->in.data, have);
    len = recv(conn->fd, self->room + have, FLOOR_ROOM - have, 0);
    if (len <= 0) {
        floor_end(self, conn);
        return;
    }
    have += (size_t)len;
    used = floor_feed(self, conn, self->room, have);
    conn->in.len = 0;
    if (have > used) {
        memcpy(floor_more(&conn->in, have - used), self->room + used,
               have - used);
    } else if (conn->in.data) {
        free(conn->in.data);
        conn->in = (floor_bytes){0};
    }
}

static void floor_flush_one(floor_server *self, floor_conn *conn)
{
    ssize_t sent = send(conn->fd, conn->out.data, conn->out.len, MSG_NOSIGNAL);
    bool wants;
    conn->dirty = false;
    if (sent > 0 && (size_t)sent < conn->out.len)
        memmove(conn->out.data, conn->out.data + sent,
                conn->out.len - (size_t)sent);
    conn->out.len -= sent > 0 ? (size_t)sent : 0;
    wants = conn->out.len > 0;
    if (wants != conn->wants_write) {
        struct epoll_event event = {.events = EPOLLIN |
                                              (wants ? (uint32_t)EPOLLOUT : 0),
                                    .data = {.ptr = conn}};
        epoll_ctl(self->epoll, EPOLL_CTL_MOD, conn->fd, &event);
        conn->wants_write = wants;
    }
    if (!wants && conn->out.room > 4096) {
        free(conn->out.data);
        conn->out = (floor_bytes){0};
    }
}

static void floor_turn(floor_server *self)
{
    struct epoll_event events[FLOOR_EVENTS];
    int count = epoll_wait(self->epoll, events, FLOOR_EVENTS, -1);
    for (int i = 0; i < count; i++) {
        floor_conn *conn = events[i].data.ptr;
        if (!conn) {
            floor_accept(self);
            continue;
        }
        if (events[i].events & EPOLLOUT && conn->out.len && !conn->dirty) {
            conn->dirty = true;
            floor_list_add(&self->dirty, conn);
        }
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            floor_read(self, conn);
    }
    for (size_t i = 0; i < self->dirty.count; i++)
        if (self->dirty.items[i])
            floor_flush_one(self, self->dirty.items[i]);
    self->dirty.count = 0;
}

int main(int argc, char **argv)
{
    static floor_server self;
    struct sockaddr_in at = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN};
    struct rlimit limit;
    int one = 1;
    if (argc != 2 || !atoi(argv[1])) {
        fputs("usage: floor PORT\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    at.sin_port = htons((uint16_t)atoi(argv[1]));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    self.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(self.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(self.listener, (struct sockaddr *)&at, sizeof at) ||
        listen(self.listener, 4096)) {
        perror("floor");
        return 1;
    }
    self.epoll = epoll_create1(0);
    epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;)
        floor_turn(&self);
}
