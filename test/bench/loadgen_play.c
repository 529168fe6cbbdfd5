/* SPDX-License-Identifier: MIT */
/* test/bench/loadgen_play.c -- what one connection says and expects.
 *
 * Every answer is checked: its id must be outstanding, its body must be the
 * one that was sent. A body carries a token of hex digits (12 of the
 * connection, 8 of the id or the push), so that no two are alike. A push must
 * be under way and come once to each member. Start reading at load_play. */
#include "loadgen.h"

enum {
    LOAD_HANDSHAKE = 1,
    LOAD_ACK = 2,
    LOAD_HEARTBEAT = 3,
    LOAD_DATA = 4,
    LOAD_KICK = 5
};
enum { LOAD_REQUEST = 0, LOAD_RESPONSE = 2, LOAD_PUSH = 3 };
enum { LOAD_ROUTE_MAX = 255, LOAD_MESSAGE_HEAD = 8 + LOAD_ROUTE_MAX };

static const char load_enter_route[] = "connector.entryHandler.enter";
static const char load_push_route[] = "onChat";

/* ---- Bodies -------------------------------------------------------------- */

void load_make_body(load *self)
{
    size_t from = self->raw ? 0 : 6, until = self->raw ? 0 : 2;
    if (self->body_len < from + LOAD_TOKEN + until)
        load_die("--body: at least %d", (int)(from + LOAD_TOKEN + until));
    self->body = malloc(self->body_len);
    if (!self->body)
        load_die("no memory");
    for (size_t i = 0; i < self->body_len; i++)
        self->body[i] = (uint8_t)('a' + i % 26);
    if (!self->raw) {
        memcpy(self->body, "{\"p\":\"", from);
        memcpy(self->body + self->body_len - until, "\"}", until);
    }
    self->token_at = from;
}

static void load_token(char out[LOAD_TOKEN], uint32_t conn, uint32_t number)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 11; i >= 0; i--, conn >>= 4)
        out[i] = digits[conn & 15];
    for (int i = LOAD_TOKEN - 1; i >= 12; i--, number >>= 4)
        out[i] = digits[number & 15];
}

static bool load_body_is(const load *self, const uint8_t *body, size_t len,
                         uint32_t conn, uint32_t number)
{
    char token[LOAD_TOKEN];
    size_t at = self->token_at, behind = at + LOAD_TOKEN;
    load_token(token, conn, number);
    return len == self->body_len && !memcmp(body, self->body, at) &&
           !memcmp(body + at, token, LOAD_TOKEN) &&
           !memcmp(body + behind, self->body + behind, len - behind);
}

/* ---- Requests ------------------------------------------------------------ */

static void load_request(load *self, load_conn *conn, const char *route,
                         uint16_t code, const void *body, size_t body_len,
                         uint64_t now_ns)
{
    uint32_t id = conn->next_id;
    uint8_t head[LOAD_MESSAGE_HEAD];
    size_t len = 1, route_len = strlen(route);
    conn->sent_ns[id & self->ring_mask] = now_ns;
    conn->waiting++;
    head[0] = (uint8_t)(LOAD_REQUEST << 1 | (code ? 1 : 0));
    for (; id > 127; id >>= 7)
        head[len++] = (uint8_t)(id | 128);
    head[len++] = (uint8_t)id;
    if (code) {
        head[len++] = (uint8_t)(code >> 8);
        head[len++] = (uint8_t)code;
    } else {
        head[len++] = (uint8_t)route_len;
        memcpy(head + len, route, route_len);
        len += route_len;
    }
    load_package(self, conn, LOAD_DATA, head, len, body, body_len);
}

static uint32_t load_next_id(load *self, load_conn *conn)
{
    uint32_t id = ++conn->next_id;
    if (conn->sent_ns[id & self->ring_mask])
        load_die("more requests outstanding than expected");
    return id;
}

void load_send_text(load *self, load_conn *conn, const char *route,
                    uint16_t code, const char *text)
{
    load_next_id(self, conn);
    load_request(self, conn, route, code, text, strlen(text), load_now_ns());
}

void load_send_echo(load *self, load_conn *conn, uint64_t now_ns)
{
    uint32_t id = load_next_id(self, conn);
    load_token((char *)self->body + self->token_at, conn->index, id);
    load_request(self, conn, self->route, self->route_code, self->body,
                 self->body_len, now_ns);
}

void load_send_fanout(load *self, load_conn *conn, uint64_t now_ns)
{
    uint32_t seq = ++self->flight_seq;
    load_flight *flight = &self->flight[seq % LOAD_FLIGHT];
    flight->seq = seq;
    flight->left = self->conns_count;
    flight->sent_ns = now_ns;
    self->flight_open++;
    load_next_id(self, conn);
    load_token((char *)self->body + self->token_at, conn->index, seq);
    load_request(self, conn, self->route, self->route_code, self->body,
                 self->body_len, now_ns);
}

/* ---- Handshake ----------------------------------------------------------- */

void load_connected(load *self, load_conn *conn)
{
    static const char hello[] =
        "{\"sys\":{\"type\":\"bench\",\"version\":\"1\"},\"user\":{}}";
    conn->state = LOAD_SHAKING;
    load_package(self, conn, LOAD_HANDSHAKE, hello, sizeof hello - 1, NULL, 0);
}

/* The number of a route in the handshake's answer; 0: none. Plain search does:
 * it is our own application that wrote the names. */
static uint16_t load_code(const char *text, const char *route)
{
    char name[LOAD_ROUTE_MAX + 4];
    const char *at = strstr(text, "\"dict\":{");
    snprintf(name, sizeof name, "\"%s\":", route);
    at = at ? strstr(at, name) : NULL;
    return at ? (uint16_t)strtoul(at + strlen(name), NULL, 10) : 0;
}

static void load_first_handshake(load *self, const uint8_t *body, size_t len)
{
    char *text = malloc(len + 1);
    const char *beat;
    if (!text)
        load_die("no memory");
    memcpy(text, body, len);
    text[len] = 0;
    beat = strstr(text, "\"heartbeat\":");
    self->heartbeat_ms = beat ? (uint32_t)(strtod(beat + 12, NULL) * 1000) : 0;
    if (!self->no_dict) {
        self->route_code = load_code(text, self->route);
        self->enter_code = load_code(text, load_enter_route);
    }
    self->push_code = load_code(text, load_push_route);
    self->shaken = true;
    free(text);
}

static void load_ready(load *self, load_conn *conn)
{
    conn->state = LOAD_READY;
    self->ready++;
}

static void load_shaken(load *self, load_conn *conn, const uint8_t *body,
                        size_t len, uint64_t now_ns)
{
    char text[96];
    if (conn->state != LOAD_SHAKING || !memmem(body, len, "\"code\":200", 10)) {
        load_drop(self, conn, "handshake refused");
        return;
    }
    if (!self->shaken)
        load_first_handshake(self, body, len);
    load_package(self, conn, LOAD_ACK, NULL, 0, NULL, 0);
    if (self->mode == LOAD_CONNECT)
        load_times_add(&self->times, now_ns - conn->opened_ns);
    if (self->mode != LOAD_FANOUT) {
        load_ready(self, conn);
        return;
    }
    conn->state = LOAD_ENTERING;
    snprintf(text, sizeof text, "{\"uid\":\"user%u\",\"ch\":\"room\"}",
             conn->index);
    load_send_text(self, conn, load_enter_route, self->enter_code, text);
}

/* ---- Answers ------------------------------------------------------------- */

static bool load_is_ok(const uint8_t *body, size_t len)
{
    return memmem(body, len, "\"code\":200", 10) != NULL;
}

static void load_echoed(load *self, load_conn *conn, uint32_t id,
                        const uint8_t *body, size_t len, uint64_t took_ns,
                        uint64_t now_ns)
{
    if (!load_body_is(self, body, len, conn->index, id))
        load_bad(self, "connection %u: wrong body of answer %u", conn->index,
                 id);
    if (self->measuring) {
        self->done++;
        load_times_add(&self->times, took_ns);
    }
    if (!self->draining)
        load_send_echo(self, conn, now_ns);
}

static void load_response(load *self, load_conn *conn, const uint8_t *data,
                          size_t len, uint64_t now_ns)
{
    uint32_t id = 0;
    size_t at = 1;
    uint64_t *sent_ns;
    for (unsigned shift = 0; at < len && shift < 32; shift += 7) {
        id |= (uint32_t)(data[at] & 127) << shift;
        if (!(data[at++] & 128))
            break;
    }
    sent_ns = &conn->sent_ns[id & self->ring_mask];
    if (!*sent_ns || conn->next_id - id > self->ring_mask) {
        load_bad(self, "connection %u: answer %u that nobody waits for",
                 conn->index, id);
        return;
    }
    uint64_t took_ns = now_ns - *sent_ns;
    *sent_ns = 0;
    conn->waiting--;
    if (self->mode == LOAD_CALL) {
        self->reply = strndup((const char *)data + at, len - at);
    } else if (self->mode == LOAD_ECHO) {
        load_echoed(self, conn, id, data + at, len - at, took_ns, now_ns);
    } else if (!load_is_ok(data + at, len - at)) {
        load_bad(self, "connection %u: refused", conn->index);
    } else if (conn->state == LOAD_ENTERING) {
        load_ready(self, conn);
    }
}

/* The sequence number of a push, read from its token. */
static uint32_t load_seq(const load *self, const uint8_t *body, size_t len)
{
    char text[9] = {0};
    if (len != self->body_len)
        return 0;
    memcpy(text, body + self->token_at + 12, 8);
    return (uint32_t)strtoul(text, NULL, 16);
}

static void load_pushed(load *self, load_conn *conn, const uint8_t *data,
                        size_t len, uint64_t now_ns)
{
    size_t at = data[0] & 1 ? 3 : 2 + sizeof load_push_route - 1;
    bool right =
        len >= at && (data[0] & 1 ? (data[1] << 8 | data[2]) == self->push_code
                                  : !memcmp(data + 2, load_push_route, at - 2));
    uint32_t seq = right ? load_seq(self, data + at, len - at) : 0;
    load_flight *flight = &self->flight[seq % LOAD_FLIGHT];
    if (!right || flight->seq != seq || !flight->left ||
        !load_body_is(self, data + at, len - at, 0, seq)) {
        load_bad(self, "connection %u: a push that nobody sent", conn->index);
        return;
    }
    conn->pushes++;
    if (self->measuring) {
        self->done++;
        load_times_add(&self->times, now_ns - flight->sent_ns);
    }
    if (--flight->left == 0) {
        self->flight_open--;
        if (!self->draining)
            load_send_fanout(self, &self->conns[0], now_ns);
    }
}

void load_play(load *self, load_conn *conn, int type, const uint8_t *body,
               size_t len, uint64_t now_ns)
{
    if (type == LOAD_HANDSHAKE) {
        load_shaken(self, conn, body, len, now_ns);
    } else if (type == LOAD_HEARTBEAT) {
        struct load_beat *beat =
            &self->beats[(self->beats_head + self->beats_count) %
                         self->conns_count];
        if (!self->heartbeat_ms || self->beats_count == self->conns_count)
            return;
        beat->conn = conn;
        beat->due_ns = now_ns + (uint64_t)self->heartbeat_ms * 1000000;
        self->beats_count++;
    } else if (type == LOAD_DATA && len >= 2 && body[0] >> 1 == LOAD_RESPONSE) {
        load_response(self, conn, body, len, now_ns);
    } else if (type == LOAD_DATA && len >= 2 && body[0] >> 1 == LOAD_PUSH) {
        load_pushed(self, conn, body, len, now_ns);
    } else {
        load_bad(self, "connection %u: package of type %d: %.*s", conn->index,
                 type, len < 60 ? (int)len : 60, (const char *)body);
    }
}

/* Answers the heartbeats whose time has come. */
void load_beat(load *self, uint64_t now_ns)
{
    while (self->beats_count) {
        struct load_beat *beat = &self->beats[self->beats_head];
        if (beat->due_ns > now_ns)
            return;
        if (beat->conn->state != LOAD_DEAD)
            load_package(self, beat->conn, LOAD_HEARTBEAT, NULL, 0, NULL, 0);
        self->beats_head = (self->beats_head + 1) % self->conns_count;
        self->beats_count--;
    }
}
