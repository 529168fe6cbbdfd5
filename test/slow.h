/* SPDX-License-Identifier: MIT */
/* test/slow.h -- what the stories of slow clients share: a town whose people
 * stop reading, what they got in which order when they read again, and a model
 * of the queue that says what they must get. */
#ifndef TEST_SLOW_H
#define TEST_SLOW_H

#include "town.h"
#include "core/conn_internal.h"
#include "core/frames.h"
#include "core/pipe.h"
#include "pomelo_downlink_internal.h"

enum {
    SLOW_GOT_MAX = 8192,
    SLOW_HELD_MAX = 64,
    SLOW_LIMIT = 64 * 1024, /* client_queue_bytes */
    SLOW_SHARE = SLOW_LIMIT - SLOW_LIMIT / 8,
    SLOW_FILL = 32 * 1024,
    SLOW_BLOCK = 64,
    /* What is no push is noted as a number too. */
    SLOW_ANSWER = 100000, /* + id */
    SLOW_HEARTBEAT = 200000,
    SLOW_KICK = 300000
};

typedef struct slow {
    town t; /* first: town_open's configure gets it */
    pmi_conn *conn;
    pm_session *session; /* Alice's; a reference */
    bool ws, upgraded;
    uint32_t got[SLOW_GOT_MAX];
    size_t got_count;
    bool closed;
    pm_close_reason closed_why; /* told to session_closed */
    int drained, server_drained;
    pm_session *drained_session;
    pm_app *free_when_drained;
    pm_request *held[SLOW_HELD_MAX];
    size_t held_count;
} slow;

/* ---- The client -------------------------------------------------------- */

static inline void slow_note(slow *s, uint32_t what)
{
    if (s->got_count < SLOW_GOT_MAX)
        s->got[s->got_count++] = what;
}

/* A push's body begins with its number, in four digits. */
static inline uint32_t slow_number(pm_slice body)
{
    char text[5] = "";
    memcpy(text, body.data, body.len < 4 ? body.len : 4);
    return (uint32_t)strtoul(text, NULL, 10);
}

static inline void slow_hear(slow *s, const pmi_package *package)
{
    pmi_message msg;
    if (package->type == PMI_PACKAGE_HEARTBEAT)
        slow_note(s, SLOW_HEARTBEAT);
    if (package->type == PMI_PACKAGE_KICK)
        slow_note(s, SLOW_KICK);
    if (package->type != PMI_PACKAGE_DATA)
        return;
    assert_ok(pmi_proto_message_decode(package->body, &msg));
    if (msg.type == PMI_MESSAGE_RESPONSE)
        slow_note(s, SLOW_ANSWER + msg.id);
    else
        slow_note(s, slow_number(msg.body));
}

static inline size_t slow_packages(slow *s, uint8_t *data, size_t len)
{
    size_t used = 0;
    while (used < len) {
        pmi_package package;
        long n = pmi_proto_package_decode(data + used, len - used,
                                          PMI_PACKAGE_BODY_MAX, &package);
        if (n <= 0)
            break;
        used += (size_t)n;
        slow_hear(s, &package);
    }
    return used;
}

/* A frame holds whole packages: one, or several that were gathered. */
static inline size_t slow_frames(slow *s, uint8_t *data, size_t len)
{
    size_t used = 0;
    while (used < len) {
        pmi_fragments *parts = NULL;
        pmi_frames_event event;
        used += pmi_frames_next(&parts, pmi_loop_env(s->t.loop), false, BIG,
                                data + used, len - used, &event);
        if (event.kind == PMI_FRAMES_MORE)
            break;
        if (event.kind == PMI_FRAMES_MESSAGE)
            assert_int_equal(slow_packages(s, event.data, event.len),
                             event.len);
        pmi_fragments_free(event.joined);
    }
    return used;
}

static inline size_t slow_data(pmi_conn *conn, uint8_t *data, size_t len,
                               void *ctx)
{
    slow *s = ctx;
    (void)conn;
    return s->upgraded ? slow_frames(s, data, len)
                       : slow_packages(s, data, len);
}

static inline void slow_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    slow *s = ctx;
    (void)why;
    s->closed = true;
    s->conn = NULL;
    pmi_conn_free(conn);
}

static const pmi_conn_events slow_events = {.data = slow_data,
                                            .closed = slow_closed};

/* In memory everything is a stream, so a WebSocket is spoken by hand. */
static inline void slow_send(slow *s, const void *data, size_t len)
{
    static const uint8_t mask[4] = {0};
    uint8_t head[14];
    pm_slice parts[2] = {{head, 0}, {data, len}};
    if (s->upgraded)
        parts[0].len = pmi_ws_head_write(head, PMI_WS_BINARY, len, mask);
    pmi_conn_send(s->conn, parts, 2, 0);
}

/* What a WebSocket upgrade does to the server's end; from now on frames. */
static inline void slow_upgrade(slow *s)
{
    pmi_conn *conn = ((pmi_downlink *)s->session->conn)->conn;
    conn->framing = PMI_FRAMING_WS;
    conn->state = PMI_CONN_FRAMES;
    s->upgraded = true;
}

/* ---- The server -------------------------------------------------------- */

static inline void slow_on_hold(pm_request *req, void *ctx)
{
    slow *s = ctx;
    assert_true(s->held_count < SLOW_HELD_MAX);
    s->held[s->held_count++] = req;
}

static inline void slow_on_closed(pm_app *app, pm_session *session,
                                  pm_close_reason why, void *ctx)
{
    slow *s = ctx;
    (void)app;
    if (session == s->session)
        s->closed_why = why;
}

static inline void slow_on_drained(pm_app *app, pm_session *session, void *ctx)
{
    slow *s = ctx;
    (void)app;
    s->drained++;
    s->drained_session = session;
    assert_int_equal(pm_session_queued(session), 0);
    if (s->free_when_drained) {
        s->t.c1 = NULL;
        pm_app_free(s->free_when_drained);
    }
}

static inline void slow_on_server_drained(pm_app *app, const pm_server *server,
                                          void *ctx)
{
    slow *s = ctx;
    assert_int_equal(pm_server_queued(app, server->id), 0);
    s->server_drained++;
}

static inline void slow_configure(town *t, pm_app *app)
{
    slow *s = (slow *)t;
    pm_app_events events = pm_app_events_default();
    events.session_closed = slow_on_closed;
    events.session_drained = slow_on_drained;
    events.server_drained = slow_on_server_drained;
    assert_ok(pm_app_listen(app, &events, s));
    assert_ok(pm_app_handler(app, "connector.h.hold", slow_on_hold, s));
}

static inline void slow_open(slow *s)
{
    s->t.configure = slow_configure;
    if (!s->t.client_queue_bytes)
        s->t.client_queue_bytes = SLOW_LIMIT;
    town_open(&s->t);
}

/* Alice, who reads what she gets. */
static inline void slow_enter(slow *s)
{
    static const char hello[] = "\1\0\0\012{\"sys\":{}}", ack[] = "\2\0\0";
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = pm_app_client_port(s->t.c1),
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    assert_ok(pmi_conn_connect(s->t.loop, &opts, &slow_events, s, &s->conn));
    town_run(&s->t, 1);
    slow_send(s, hello, 4 + 10);
    town_run(&s->t, 1);
    slow_send(s, ack, 4);
    town_run(&s->t, 1);
    s->session = s->t.last;
    pm_session_ref(s->session);
    assert_ok(pm_session_bind(s->session, "alice", NULL, NULL));
    town_run(&s->t, 1);
    if (s->ws)
        slow_upgrade(s);
    s->got_count = 0;
}

static inline void slow_end(slow *s)
{
    pm_session_unref(s->session);
    pmi_conn_free(s->conn);
    town_close(&s->t);
}

/* ---- Pushes ------------------------------------------------------------ */

typedef struct slow_push {
    pm_push_policy policy;
    const char *key;
    uint32_t number;
    size_t len; /* of the body, at least 4 */
} slow_push;

static inline pm_push_opts slow_opts(const slow_push *push, uint8_t *body)
{
    pm_push_opts opts = pm_push_opts_default();
    memset(body, 'x', push->len);
    body[snprintf((char *)body, 5, "%04u", push->number % 10000)] = 'x';
    opts.route = "r";
    opts.body = pm_body_bytes(body, push->len);
    opts.policy = push->policy;
    opts.key = push->key;
    return opts;
}

/* To the session itself. */
static inline pm_err slow_say(slow *s, const slow_push *push)
{
    static uint8_t body[SLOW_FILL];
    pm_push_opts opts = slow_opts(push, body);
    opts.session = s->session;
    return pm_push(s->t.c1, &opts, NULL, NULL);
}

/* By a chunk that could be shared. */
static inline pm_err slow_say_shared(slow *s, const slow_push *push)
{
    static uint8_t body[SLOW_FILL];
    const pm_receiver alice = {"alice", "c-1"};
    pm_push_opts opts = slow_opts(push, body);
    opts.receivers = &alice;
    opts.receivers_count = 1;
    return pm_push(s->t.c1, &opts, NULL, NULL);
}

/* What a body of this size is on the wire. */
static inline size_t slow_wire(const slow *s, size_t body)
{
    size_t package = PMI_PACKAGE_HEAD + 3 + body; /* flag, length, "r" */
    return package + (s->ws ? pmi_ws_head_size(package, false) : 0);
}

/* She reads no more, and her window is full to the last byte; then one more
 * push of SLOW_BLOCK bytes is too much. What she gets of it all is forgotten.
 */
static inline void slow_stall(slow *s)
{
    size_t left = PMI_PIPE_WINDOW, spare = slow_wire(s, 0) + 8;
    pmi_conn_pause(s->conn);
    while (left) {
        size_t part = left < SLOW_FILL ? left : SLOW_FILL - spare;
        size_t head = slow_wire(s, part) - part;
        slow_push push = {PM_PUSH_KEEP, NULL, 9999, part};
        if (left < SLOW_FILL) {
            push.len = left - head;
            push.len += left - slow_wire(s, push.len); /* a shorter head */
        }
        assert_ok(slow_say(s, &push));
        left -= slow_wire(s, push.len);
        town_run(&s->t, 25); /* longer than packages are gathered */
        assert_int_equal(pm_session_queued(s->session), 0);
    }
    assert_ok(slow_say(s, &(slow_push){PM_PUSH_KEEP, NULL, 9998,
                                       SLOW_BLOCK - (slow_wire(s, 10) - 10)}));
    town_run(&s->t, 25);
    assert_int_equal(pm_session_queued(s->session), SLOW_BLOCK);
}

static inline void slow_read_on(slow *s)
{
    size_t at = 0;
    pmi_conn_resume(s->conn);
    town_run(&s->t, 1000);
    for (size_t i = 0; i < s->got_count; i++)
        if (s->got[i] != 9999 && s->got[i] != 9998)
            s->got[at++] = s->got[i];
    s->got_count = at;
}

static inline pm_queue_counts slow_counts(const pm_app *app)
{
    pm_queue_counts counts = {.size = sizeof counts};
    assert_ok(pm_queue_counts_get(app, &counts));
    return counts;
}

/* ---- What must come of it ---------------------------------------------- */

typedef struct model_item {
    uint32_t number;
    size_t len;
    int rank; /* pmi_rank */
    const char *key;
} model_item;

typedef struct model {
    const slow *s;
    model_item items[SLOW_GOT_MAX];
    size_t count;
    uint64_t oldest, fresh, replaced;
    bool closed;
} model;

static inline size_t model_weight(const model_item *item)
{
    return item->len + (item->rank ? PMI_QUEUE_RANKED_COST : 0);
}

static inline void model_take(model *m, size_t at)
{
    memmove(m->items + at, m->items + at + 1,
            (--m->count - at) * sizeof *m->items);
}

static inline size_t model_sum(const model *m, bool loose_only)
{
    size_t sum = loose_only ? 0 : SLOW_BLOCK; /* of slow_stall */
    for (size_t i = 0; i < m->count; i++)
        if (!loose_only || m->items[i].rank == PMI_RANK_LOOSE)
            sum += model_weight(&m->items[i]);
    return sum;
}

static inline size_t model_ranked(const model *m)
{
    size_t count = 0;
    for (size_t i = 0; i < m->count; i++)
        count += m->items[i].rank != PMI_RANK_KEPT;
    return count;
}

static inline void model_trim(model *m, size_t weight)
{
    for (size_t i = 0; i < m->count && model_sum(m, false) > weight;)
        if (m->items[i].rank == PMI_RANK_LOOSE) {
            model_take(m, i);
            m->oldest++;
        } else {
            i++;
        }
}

static inline void model_replace(model *m, const char *key)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->items[i].key && !strcmp(m->items[i].key, key)) {
            model_take(m, i);
            m->replaced++;
            return;
        }
}

/* What the call must return. */
static inline pm_err model_say(model *m, const slow_push *push, size_t wire)
{
    pm_push_policy policy = push->policy;
    model_item item = {push->number, wire, PMI_RANK_KEPT, NULL};
    size_t share = SLOW_LIMIT, have = model_sum(m, false);
    if (policy == PM_PUSH_DROP_NEW)
        item.rank = PMI_RANK_STAYS;
    if (policy == PM_PUSH_DROP_OLDEST || policy == PM_PUSH_REPLACE)
        item.rank = PMI_RANK_LOOSE;
    if (item.rank)
        share = SLOW_SHARE;
    if (item.rank == PMI_RANK_LOOSE || policy == PM_PUSH_KEEP)
        have -= model_sum(m, true);
    if (have + model_weight(&item) > share) {
        m->closed = !item.rank;
        m->fresh += item.rank != 0;
        return item.rank ? PM_EDROPPED : PM_ELIMIT;
    }
    if (policy == PM_PUSH_REPLACE) {
        item.key = push->key ? push->key : "";
        model_replace(m, item.key);
    }
    m->items[m->count++] = item;
    model_trim(m, share);
    return PM_OK;
}

static inline void assert_model(const slow *s, const model *m)
{
    assert_int_equal(s->got_count, m->count);
    for (size_t i = 0; i < m->count; i++)
        assert_int_equal(s->got[i], m->items[i].number);
}

static inline void assert_counts(const slow *s, const model *m)
{
    pm_queue_counts counts = slow_counts(s->t.c1);
    assert_int_equal(counts.dropped_oldest, m->oldest);
    assert_int_equal(counts.dropped_new, m->fresh);
    assert_int_equal(counts.replaced, m->replaced);
}

#endif
