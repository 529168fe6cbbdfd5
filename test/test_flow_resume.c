/* SPDX-License-Identifier: MIT */
/* test_flow_resume.c -- a player on a bad line: the connection is cut at a
 * random byte, again and again, also in the middle of the handshake that
 * resumes; and with all that is asked, told, answered and pushed meanwhile, by
 * the frontend and by a backend, there is no gap, nothing twice, and one order.
 *
 * 1,000 seeds on memory and a virtual clock (PM_PROOF=1: 100,000), 100 over
 * sockets. PM_SEED=n plays one seed. Start at line_play(). */
#include "relay.h"

enum {
    LINE_ACTIONS = 80,
    LINE_HELD = 8,
    LINE_CUTS = 6,
    LINE_QUEUE = 256 * 1024,
    LINE_KEPT = 96 * 1024
};

static const pm_server line_servers[] = {
    {.id = "connector-1",
     .type = "connector",
     .host = "127.0.0.1",
     .port = 4050,
     .client_port = 3050,
     .frontend = true},
    {.id = "chat-1", .type = "chat", .host = "127.0.0.1", .port = 4060}};

typedef struct line {
    uint64_t seed;
    test_world world;
    test_heap heap;
    pm_loop *loop;
    pm_app *front, *back;
    pm_client *client;
    pm_session *session; /* a reference */
    pm_channel *room;
    relay wire;
    bool sockets;
    bool calm; /* nothing is cut or held back any more */
    int cuts;
    /* Numbers that were given, and those that come next at the other end. */
    int up, up_heard;          /* asked and told to the frontend */
    int over, over_heard;      /* likewise to the backend */
    int down, down_heard;      /* pushes and answers of the frontend */
    int room_sent, room_heard; /* pushes of the backend's channel */
    int back_heard;            /* answers of the backend */
    int asked, asked_back, answered;
    pm_request *held[LINE_HELD];
    int held_count;
    int opened, closed, suspended, resumed; /* told to the server */
    int connected, lost, away, again;       /* told to the client */
} line;

/* ---- Checks that name the seed ------------------------------------------ */

static void line_check(const line *l, bool fine, const char *what, int at)
{
    if (fine)
        return;
    print_error("seed %llu: %s\n", (unsigned long long)l->seed, what);
    print_error("up %d/%d over %d/%d down %d/%d room %d/%d answers %d/%d\n",
                l->up_heard, l->up, l->over_heard, l->over, l->down_heard,
                l->down, l->room_heard, l->room_sent, l->answered, l->asked);
    print_error("server: %d opened, %d suspended, %d resumed, %d closed; "
                "client: %d connected, %d away, %d again, %d lost\n",
                l->opened, l->suspended, l->resumed, l->closed, l->connected,
                l->away, l->again, l->lost);
    _fail(__FILE__, at);
}
#define LINE_CHECK(l, fine) line_check((l), (fine), #fine, __LINE__)

static size_t line_below(line *l, size_t below)
{
    return test_world_below(&l->world, below);
}

/* {"n":5,"pad":"xxx.."}: mostly short, now and then over a chunk. */
static const char *line_body(line *l, int number)
{
    static char text[8192];
    size_t pad = line_below(l, 10) ? line_below(l, 300) : line_below(l, 6000);
    int n = snprintf(text, sizeof text, "{\"n\":%d,\"pad\":\"", number);
    memset(text + n, 'x', pad);
    memcpy(text + (size_t)n + pad, "\"}", 3);
    return text;
}

static int line_number(pm_body body)
{
    char text[32] = "";
    size_t len = body.data.len < 31 ? body.data.len : 31;
    memcpy(text, body.data.data, len);
    return strncmp(text, "{\"n\":", 5) ? -1 : atoi(text + 5);
}

/* ---- The servers -------------------------------------------------------- */

static void line_answer(line *l, pm_request *req)
{
    pm_err err = pm_reply_text(req, line_body(l, ++l->down));
    LINE_CHECK(l, err == PM_OK);
}

static void on_ask(pm_request *req, void *ctx)
{
    line *l = ctx;
    LINE_CHECK(l, line_number(pm_request_body(req)) == ++l->up_heard);
    if (!l->calm && line_below(l, 2) && l->held_count < LINE_HELD)
        l->held[l->held_count++] = req;
    else
        line_answer(l, req);
}

static void on_tell(pm_request *req, void *ctx)
{
    line *l = ctx;
    LINE_CHECK(l, line_number(pm_request_body(req)) == ++l->up_heard);
    pm_request_drop(req);
}

static void on_back_ask(pm_request *req, void *ctx)
{
    line *l = ctx;
    pm_body body = pm_request_body(req);
    LINE_CHECK(l, line_number(body) == ++l->over_heard);
    LINE_CHECK(l, pm_reply_body(req, body) == PM_OK);
}

static void line_push_room(line *l)
{
    LINE_CHECK(l, pm_channel_push(l->room, "onRoom",
                                  pm_body_text(line_body(l, ++l->room_sent)),
                                  NULL, NULL) == PM_OK);
}

static void on_back_tell(pm_request *req, void *ctx)
{
    line *l = ctx;
    LINE_CHECK(l, line_number(pm_request_body(req)) == ++l->over_heard);
    line_push_room(l);
    pm_request_drop(req);
}

static void on_opened(pm_app *app, pm_session *session, void *ctx)
{
    line *l = ctx;
    (void)app;
    l->opened++;
    if (l->session)
        pm_session_unref(l->session);
    l->session = session;
    pm_session_ref(session);
    LINE_CHECK(l, pm_session_bind(session, "u", NULL, NULL) == PM_OK);
}

static void on_closed(pm_app *app, pm_session *session, pm_close_reason reason,
                      void *ctx)
{
    line *l = ctx;
    (void)app;
    (void)session;
    (void)reason;
    l->closed++;
}

static void line_push(line *l)
{
    LINE_CHECK(l,
               pm_session_push(l->session, "onPush",
                               pm_body_text(line_body(l, ++l->down))) == PM_OK);
}

static void on_suspended(pm_app *app, pm_session *session,
                         pm_close_reason reason, void *ctx)
{
    line *l = ctx;
    (void)app;
    (void)reason;
    l->suspended++;
    LINE_CHECK(l, session == l->session && !pm_session_is_closed(session));
    line_push(l);
}

static void on_resumed(pm_app *app, pm_session *session, void *ctx)
{
    line *l = ctx;
    (void)app;
    l->resumed++;
    LINE_CHECK(l, session == l->session && !pm_session_is_closed(session));
    line_push(l);
}

static pm_err line_app(line *l, const char *id, pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_app_events events = pm_app_events_default();
    pm_server servers[2];
    pm_err err;
    memcpy(servers, line_servers, sizeof servers);
    if (l->sockets)
        servers[0].client_port = 0;
    opts.loop = l->loop;
    opts.servers = servers;
    opts.servers_count = 2;
    opts.server_id = id;
    opts.connector.heartbeat_s = 3;
    opts.connector.use_dict = l->seed % 2;
    opts.connector.scheduler =
        l->seed % 3 ? PM_SCHEDULER_DIRECT : PM_SCHEDULER_BUFFER;
    opts.connector.resume_ms = 60000;
    opts.connector.resume_bytes = LINE_KEPT;
    opts.limits.client_queue_bytes = LINE_QUEUE;
    err = pm_app_new(out, &opts);
    events.session_opened = on_opened;
    events.session_closed = on_closed;
    events.session_suspended = on_suspended;
    events.session_resumed = on_resumed;
    if (err == PM_OK)
        err = pm_app_handler(*out, "connector.h.ask", on_ask, l);
    if (err == PM_OK)
        err = pm_app_handler(*out, "connector.h.tell", on_tell, l);
    if (err == PM_OK)
        err = pm_app_handler(*out, "chat.h.ask", on_back_ask, l);
    if (err == PM_OK)
        err = pm_app_handler(*out, "chat.h.tell", on_back_tell, l);
    if (err == PM_OK)
        err = pm_app_listen(*out, &events, l);
    return err == PM_OK ? pm_app_start(*out) : err;
}

/* ---- The client ---------------------------------------------------------- */

static void on_connected(pm_client *client, const struct cJSON *user, void *ctx)
{
    line *l = ctx;
    (void)client;
    l->connected++;
    LINE_CHECK(l, user == NULL);
}

static void on_pushed(pm_client *client, const char *route, pm_body body,
                      void *ctx)
{
    line *l = ctx;
    int number = line_number(body);
    (void)client;
    if (!strcmp(route, "onRoom"))
        LINE_CHECK(l, number == ++l->room_heard);
    else
        LINE_CHECK(l, number == ++l->down_heard);
}

static void on_lost(pm_client *client, pm_close_reason reason, int code,
                    void *ctx)
{
    line *l = ctx;
    (void)client;
    (void)reason;
    (void)code;
    l->lost++;
}

static void on_away(pm_client *client, pm_close_reason reason, void *ctx)
{
    line *l = ctx;
    (void)reason;
    l->away++;
    LINE_CHECK(l, !pm_client_is_connected(client));
}

static void on_again(pm_client *client, void *ctx)
{
    line *l = ctx;
    l->again++;
    LINE_CHECK(l, pm_client_is_connected(client));
}

static pm_err line_client(line *l)
{
    pm_client_opts opts = pm_client_opts_default();
    opts.loop = l->loop;
    opts.transport = !l->sockets   ? PM_TRANSPORT_MEMORY
                     : l->seed % 2 ? PM_TRANSPORT_WS
                                   : PM_TRANSPORT_TCP;
    opts.port = l->wire.port;
    opts.reconnect = opts.resume = true;
    opts.request_ms = 1000 * 1000;
    opts.connect_ms = 500;
    opts.events.connected = on_connected;
    opts.events.pushed = on_pushed;
    opts.events.disconnected = on_lost;
    opts.events.suspended = on_away;
    opts.events.resumed = on_again;
    opts.ctx = l;
    return pm_client_new(&l->client, &opts);
}

static void on_answer(pm_client *client, pm_err err, pm_body body, void *ctx)
{
    line *l = ctx;
    (void)client;
    LINE_CHECK(l, err == PM_OK);
    LINE_CHECK(l, line_number(body) == ++l->down_heard);
    l->answered++;
}

static void on_back_answer(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    line *l = ctx;
    int number = line_number(body);
    (void)client;
    LINE_CHECK(l, err == PM_OK);
    LINE_CHECK(l, number > l->back_heard);
    l->back_heard = number;
    l->answered++;
}

/* ---- The story ----------------------------------------------------------- */

static void line_pass(line *l, uint64_t us)
{
    uint64_t end = l->world.now_us + us;
    if (!l->sockets) {
        LINE_CHECK(l, test_world_run(&l->world, l->loop, us));
        return;
    }
    while (l->world.now_us < end) {
        pm_loop_poll(l->loop, 0);
        l->world.now_us += 500;
    }
}

static uint64_t line_delay(void *ctx, const char *from, const char *to,
                           size_t bytes)
{
    line *l = ctx;
    (void)from;
    (void)to;
    (void)bytes;
    return line_below(l, 3) ? 0 : line_below(l, 3000);
}

static void line_start(line *l)
{
    pm_loop_opts opts = test_world_opts(&l->world, &l->heap);
    l->world.seed = l->seed;
    opts.memory_only = !l->sockets;
    assert_ok(pm_loop_new(&l->loop, &opts));
    if (!l->sockets)
        pmi_loop_set_link_fault(l->loop, line_delay, l);
    assert_ok(line_app(l, "chat-1", &l->back));
    assert_ok(line_app(l, "connector-1", &l->front));
    assert_ok(relay_open(&l->wire, l->loop, 0, pm_app_client_port(l->front)));
    l->room = pm_channel_get(l->back, "room", true);
    assert_non_null(l->room);
    assert_ok(pm_channel_add(l->room, "u", "connector-1"));
    line_pass(l, 100 * 1000);
    assert_ok(line_client(l));
    for (int i = 0; i < 100 && !l->session; i++)
        line_pass(l, 10 * 1000);
    LINE_CHECK(l, l->session && l->opened == 1 && l->connected == 1);
}

static void line_end(line *l)
{
    pm_client_free(l->client);
    line_pass(l, 1000);
    pm_session_unref(l->session);
    relay_close(&l->wire);
    pm_app_free(l->front);
    pm_app_free(l->back);
    assert_ok(pm_loop_free(l->loop));
    assert_heap_empty(&l->heap);
}

/* Where the line that is there now, or the next one, will break. */
static void line_plan(line *l)
{
    relay_pair *now = &l->wire.pairs[l->wire.pairs_count - 1];
    size_t up = line_below(l, 3) ? line_below(l, 400) : line_below(l, 4000);
    size_t down = line_below(l, 3) ? line_below(l, 900) : line_below(l, 9000);
    bool half = line_below(l, 3) == 0;
    if (l->cuts >= LINE_CUTS)
        return;
    l->cuts++;
    if (now->cut || !now->client) {
        l->wire.left[0] = up;
        l->wire.left[1] = down + 1;
        l->wire.half = half;
    } else if (now->left[0] == SIZE_MAX) {
        now->left[0] = up + 1;
        now->left[1] = down + 1;
        now->half = half;
    }
}

static void line_request(line *l, bool back)
{
    pm_err err;
    if (back)
        err = pm_client_request(l->client, "chat.h.ask",
                                pm_body_text(line_body(l, ++l->over)),
                                on_back_answer, l);
    else
        err = pm_client_request(l->client, "connector.h.ask",
                                pm_body_text(line_body(l, ++l->up)), on_answer,
                                l);
    LINE_CHECK(l, err == PM_OK);
    l->asked++;
}

static void line_notify(line *l, bool back)
{
    int *number = back ? &l->over : &l->up;
    LINE_CHECK(l, pm_client_notify(
                      l->client, back ? "chat.h.tell" : "connector.h.tell",
                      pm_body_text(line_body(l, ++*number))) == PM_OK);
}

static void line_answer_held(line *l)
{
    if (!l->held_count)
        return;
    int i = (int)line_below(l, (size_t)l->held_count);
    pm_request *req = l->held[i];
    l->held[i] = l->held[--l->held_count];
    line_answer(l, req);
}

static void line_act(line *l)
{
    switch (line_below(l, 9)) {
    case 0:
        line_request(l, false);
        break;
    case 1:
        line_request(l, true);
        break;
    case 2:
        line_notify(l, false);
        break;
    case 3:
        line_notify(l, true);
        break;
    case 4:
        line_push(l);
        break;
    case 5:
        line_push_room(l);
        break;
    case 6:
        line_answer_held(l);
        break;
    case 7:
        line_plan(l);
        break;
    default:
        if (line_below(l, 4) == 0)
            relay_bury(&l->wire);
        break;
    }
    if (line_below(l, 2))
        line_pass(l, line_below(l, 10) ? line_below(l, 5000)
                                       : line_below(l, 400 * 1000));
}

/* Everything has come, once, at both ends, and it is the same session. */
static void line_is_whole(line *l)
{
    LINE_CHECK(l, pm_client_is_connected(l->client));
    LINE_CHECK(l, l->up == l->up_heard && l->over == l->over_heard);
    LINE_CHECK(l, l->down == l->down_heard);
    LINE_CHECK(l, l->room_sent == l->room_heard);
    LINE_CHECK(l, l->asked == l->answered);
    LINE_CHECK(l, l->opened == 1 && l->closed == 0);
    LINE_CHECK(l, l->connected == 1 && l->lost == 0);
    LINE_CHECK(l, l->away == l->again && l->again >= l->resumed);
    LINE_CHECK(l, l->resumed >= l->suspended);
}

static void line_calm(line *l)
{
    l->calm = true;
    l->wire.left[0] = l->wire.left[1] = SIZE_MAX;
    for (size_t i = 0; i < l->wire.pairs_count; i++)
        l->wire.pairs[i].left[0] = l->wire.pairs[i].left[1] = SIZE_MAX;
    while (l->held_count)
        line_answer_held(l);
}

/* Returns how many times it was resumed. */
static int line_play(uint64_t seed, bool sockets)
{
    static line l;
    int resumed;
    memset(&l, 0, sizeof l);
    l.seed = seed;
    l.sockets = sockets;
    line_start(&l);
    for (int i = 0; i < LINE_ACTIONS; i++)
        line_act(&l);
    line_calm(&l);
    line_pass(&l, 3000 * 1000);
    line_is_whole(&l);
    resumed = l.resumed;
    line_end(&l);
    return resumed;
}

static void line_play_many(uint64_t count, bool sockets)
{
    const char *one = getenv("PM_SEED");
    uint64_t resumed = 0;
    if (one) {
        line_play(strtoull(one, NULL, 10), sockets);
        return;
    }
    for (uint64_t seed = 1; seed <= count; seed++)
        resumed += (uint64_t)line_play(seed, sockets);
    print_message("%llu lines, resumed %llu times%s\n",
                  (unsigned long long)count, (unsigned long long)resumed,
                  sockets ? " over sockets" : "");
    assert_true(resumed > 2 * count);
}

static void test_cut_at_any_byte(void **state)
{
    (void)state;
    line_play_many(getenv("PM_PROOF") ? 100000 : 1000, false);
}

static void test_cut_over_sockets(void **state)
{
    (void)state;
    line_play_many(100, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_any_byte),
        cmocka_unit_test(test_cut_over_sockets),
    };
    test_deadline(getenv("PM_PROOF") ? 3600 : 120);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
