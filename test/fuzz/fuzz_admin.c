/* SPDX-License-Identifier: MIT */
/* fuzz_admin.c -- Pomelo's admin protocol: strangers, servers and consoles at a
 * master's door, or a master that has gone bad.
 *
 *     | who, options | fail | piece ... |
 *     piece:  | form (2 bits), link (1), number (5) | length | bytes |
 *
 *   who      the first two bits: 0, 1 a master is asked by two links; 2 a
 *            server is told by its master; 3 a console is
 *   options  see FUZZ_*
 *   fail     not 0: the so manieth allocation from then on is refused
 *   form     0 bytes as they are, 1 a message of topic `number`, 2 the same as
 *            a text in JSON, 3 something is done, or time passes
 *
 * Beside memory errors it looks for: one who says what is no packet or no
 * JSON, a callback that comes twice or never, a heap that is not empty when all
 * is gone. */
#include "fuzz.h"

#include "core/json.h"
#include "core/mqtt.h"
#include "pomelo_admin_internal.h"

#include <cjson/cJSON.h>

enum { FUZZ_MASTER = 0, FUZZ_MONITOR = 2, FUZZ_CONSOLE = 3 };
enum {
    FUZZ_GREETED = 4, /* links say what is expected of them before the input */
    FUZZ_LOGGED_IN = 8, /* the second link is a console's */
    FUZZ_SPAWNS = 16    /* the master has processes started */
};
enum { FORM_RAW, FORM_PUBLISH, FORM_TWICE, FORM_ACTION };
enum { LINKS = 2, PIECES_MAX = 64, MASTER_PORT = 3005 };

typedef struct fuzz fuzz;
typedef struct fuzz_link {
    fuzz *of;
    pmi_conn *conn; /* NULL: closed */
} fuzz_link;

struct fuzz {
    fuzz_world world;
    unsigned options;
    pm_app *app;
    pm_console *console;
    pmi_listener *door;
    fuzz_link links[LINKS];
    size_t asked, told;
};

static const pm_server fuzz_servers[] = {
    {.id = "master-server-1", .type = "master", .port = MASTER_PORT},
    {.id = "connector-1",
     .type = "connector",
     .port = 4050,
     .client_port = 3050,
     .frontend = true},
    {.id = "chat-1",
     .type = "chat",
     .port = 4070,
     .raw = "{\"id\":\"chat-1\",\"port\":4070,\"auto-restart\":\"true\"}"},
};
static const pm_admin_token fuzz_tokens[] = {{"chat", "tok-chat"},
                                             {"connector", "tok-connector"}};
static const pm_admin_user fuzz_users[] = {{"admin", "secret", 1},
                                           {"guest", "guest", 2}};

/* ---- The application ------------------------------------------------------- */

static void fuzz_answered(const pm_admin_result *result, void *ctx)
{
    FUZZ_CHECK(result->detail && (result->err || !result->error));
    ((fuzz *)ctx)->told++;
}

static unsigned fuzz_who(const fuzz *f)
{
    unsigned who = f->options & 3;
    return who < FUZZ_MONITOR ? FUZZ_MASTER : who;
}

static void fuzz_stop(pm_app *app, bool at_once, void *ctx)
{
    (void)app;
    (void)at_once;
    (void)ctx;
}

static pm_err fuzz_spawn(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    (void)ctx;
    return server->client_port ? PM_ENET : PM_OK;
}

static pm_err fuzz_terminate(pm_app *app, const pm_server *server, int64_t pid,
                             void *ctx)
{
    (void)server;
    (void)pid;
    (void)ctx;
    return pm_app_server(app) ? PM_OK : PM_EINVAL;
}

static void fuzz_pin(pm_app *app, const pm_server *server, int64_t pid,
                     int core, void *ctx)
{
    (void)app;
    (void)pid;
    (void)ctx;
    FUZZ_CHECK(server->id && core >= 0);
}

static void fuzz_module(pm_admin_call *call, void *ctx)
{
    (void)ctx;
    if (pm_admin_body(call))
        pm_admin_reply(call, pm_admin_body(call));
    else
        pm_admin_fail(call, "nothing");
}

static pm_err fuzz_start_app(fuzz *f)
{
    pm_admin_module module = pm_admin_module_default();
    pm_app_opts opts = pm_app_opts_default();
    bool master = fuzz_who(f) == FUZZ_MASTER;
    pm_err err;
    opts.loop = f->world.loop;
    opts.servers = fuzz_servers;
    opts.servers_count = PMI_COUNT(fuzz_servers);
    opts.server_id = master ? "master-server-1" : "chat-1";
    opts.master.port = MASTER_PORT;
    opts.master.token = "tok-chat";
    opts.master.tokens = fuzz_tokens;
    opts.master.tokens_count = PMI_COUNT(fuzz_tokens);
    opts.master.users = fuzz_users;
    opts.master.users_count = PMI_COUNT(fuzz_users);
    opts.master.stop = fuzz_stop;
    if (f->options & FUZZ_SPAWNS) {
        opts.master.start = "all";
        opts.master.spawn = fuzz_spawn;
        opts.master.terminate = fuzz_terminate;
        opts.master.pin = fuzz_pin;
    }
    err = pm_app_new(&f->app, &opts);
    if (err)
        return err;
    module.id = "own";
    module.monitor = module.master = module.client = fuzz_module;
    err = pm_app_admin_module(f->app, &module, f);
    return err ? err : pm_app_start(f->app);
}

static pm_err fuzz_start_console(fuzz *f)
{
    pm_console_opts opts = pm_console_opts_default();
    opts.loop = f->world.loop;
    opts.port = MASTER_PORT;
    return pm_console_new(&f->console, &opts);
}

/* ---- The other ends -------------------------------------------------------- */

static void fuzz_say(fuzz_link *link, const pmi_mqtt_packet *packet)
{
    pmi_env env;
    pmi_buf buf;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&buf, &env, SIZE_MAX);
    FUZZ_CHECK(pmi_mqtt_encode(packet, &buf) == PM_OK);
    fuzz_send(link->conn, pmi_buf_slice(&buf));
    pmi_buf_fini(&buf);
}

static void fuzz_publish(fuzz_link *link, const char *topic, pm_slice payload)
{
    pmi_mqtt_packet packet = {.type = PMI_MQTT_PUBLISH};
    packet.topic = pm_text(topic);
    packet.payload = payload;
    fuzz_say(link, &packet);
}

static void fuzz_greet_master(fuzz_link *link)
{
    static const char monitor[] =
        "{\"id\":\"chat-1\",\"type\":\"monitor\",\"serverType\":\"chat\","
        "\"pid\":7,\"info\":{\"id\":\"chat-1\",\"serverType\":\"chat\","
        "\"host\":\"127.0.0.1\",\"port\":4070,\"cpu\":1},"
        "\"token\":\"tok-chat\"}";
    static const char console[] =
        "{\"id\":\"c\",\"type\":\"client\",\"username\":\"admin\","
        "\"password\":\"secret\"}";
    fuzz *f = link->of;
    bool second = link == &f->links[1];
    pmi_mqtt_packet hello = {.type = PMI_MQTT_CONNECT};
    hello.client_id = pm_text("x");
    if (!(f->options & FUZZ_GREETED))
        return;
    fuzz_say(link, &hello);
    if (!second)
        fuzz_publish(link, "register", pm_text(monitor));
    else if (f->options & FUZZ_LOGGED_IN)
        fuzz_publish(link, "register", pm_text(console));
}

/* What a master says to those who come. */
static void fuzz_welcome(fuzz_link *link, const pmi_mqtt_packet *packet)
{
    pmi_mqtt_packet connack = {.type = PMI_MQTT_CONNACK};
    if (!(link->of->options & FUZZ_GREETED))
        return;
    if (packet->type == PMI_MQTT_CONNECT)
        fuzz_say(link, &connack);
    else if (pmi_slice_eq(packet->topic, pm_text("register")))
        fuzz_publish(link, "register", pm_text("{\"code\":1,\"msg\":\"ok\"}"));
    else if (pmi_slice_eq(packet->topic, pm_text("reconnect")))
        fuzz_publish(link, "reconnect_ok",
                     pm_text("{\"code\":1,\"msg\":\"ok\"}"));
}

static void fuzz_heard(fuzz_link *link, const pmi_mqtt_packet *packet)
{
    if (packet->type == PMI_MQTT_PUBLISH)
        FUZZ_CHECK(pmi_json_check(packet->payload, PMI_JSON_DEPTH_MAX + 8,
                                  NULL) == PM_OK);
    if (fuzz_who(link->of) != FUZZ_MASTER)
        fuzz_welcome(link, packet);
}

static size_t fuzz_data(pmi_conn *conn, uint8_t *data, size_t len, void *ctx)
{
    size_t used = 0;
    (void)conn;
    while (used < len) {
        pmi_mqtt_packet packet;
        long n = pmi_mqtt_decode(data + used, len - used, PMI_MQTT_LENGTH_MAX,
                                 &packet);
        FUZZ_CHECK(n >= 0 && (n == 0 || packet.type != PMI_MQTT_OTHER));
        if (n == 0)
            break;
        used += (size_t)n;
        fuzz_heard(ctx, &packet);
    }
    return used;
}

static void fuzz_open(pmi_conn *conn, void *ctx)
{
    fuzz_link *link = ctx;
    (void)conn;
    if (fuzz_who(link->of) == FUZZ_MASTER)
        fuzz_greet_master(link);
}

static void fuzz_closed(pmi_conn *conn, pm_close_reason why, void *ctx)
{
    fuzz_link *link = ctx;
    (void)why;
    pmi_conn_free(conn);
    if (link->conn == conn)
        link->conn = NULL;
}

static const pmi_conn_events fuzz_events = {
    .data = fuzz_data, .open = fuzz_open, .closed = fuzz_closed};

static void fuzz_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    fuzz_link *link = &((fuzz *)ctx)->links[0];
    (void)listener;
    pmi_conn_free(link->conn);
    link->conn = conn;
    pmi_conn_start(conn, &fuzz_events, link);
}

static void fuzz_dial(fuzz_link *link)
{
    pmi_connect_opts opts = {.host = "127.0.0.1",
                             .port = MASTER_PORT,
                             .framing = PMI_FRAMING_STREAM,
                             .memory = true};
    if (link->conn || fuzz_who(link->of) != FUZZ_MASTER)
        return;
    if (pmi_conn_connect(link->of->world.loop, &opts, &fuzz_events, link,
                         &link->conn) != PM_OK)
        link->conn = NULL;
    fuzz_world_pass(&link->of->world, 0, 3);
}

static pm_err fuzz_start(fuzz *f)
{
    pmi_listen_opts opts = {.host = "127.0.0.1",
                            .port = MASTER_PORT,
                            .framing = PMI_FRAMING_STREAM,
                            .accepted = fuzz_accepted,
                            .ctx = f};
    pm_err err = PM_OK;
    if (fuzz_who(f) != FUZZ_MASTER)
        err = pmi_listen(f->world.loop, &opts, &f->door);
    if (err)
        return err;
    return fuzz_who(f) == FUZZ_CONSOLE ? fuzz_start_console(f)
                                       : fuzz_start_app(f);
}

/* ---- One piece ------------------------------------------------------------- */

static void fuzz_ask(fuzz *f, unsigned number)
{
    static const char *const modules[] = {"__console__", "watchServer", "own",
                                          "nodeInfo"};
    const char *module = modules[number & 3];
    pm_err err;
    if (!f->console)
        err = pm_admin_request(
            f->app, fuzz_who(f) == FUZZ_MASTER ? "chat-1" : NULL, module, NULL,
            number & 4 ? NULL : fuzz_answered, f);
    else if (number & 4)
        err = pm_console_command(f->console, "list", module, fuzz_answered, f);
    else
        err = pm_console_request(f->console, module, "{\"signal\":\"list\"}",
                                 fuzz_answered, f);
    f->asked += err == PM_OK && (f->console || !(number & 4));
}

static void fuzz_act(fuzz *f, fuzz_link *link, unsigned number)
{
    if (number < 8) {
        fuzz_ask(f, number);
    } else if (number == 8) {
        pmi_conn_free(link->conn);
        link->conn = NULL;
    } else if (number == 9) {
        fuzz_dial(link);
    } else if (number == 10 && fuzz_who(f) == FUZZ_MASTER) {
        pm_master_exited(f->app, "chat-1");
    } else if (number >= 12) {
        fuzz_world_pass(&f->world, UINT64_C(1) << (number - 12), 2);
    }
}

static void fuzz_twice(fuzz_link *link, const char *topic, pm_slice bytes)
{
    pmi_env env;
    pmi_buf text;
    pmi_env_init(&env, NULL);
    pmi_buf_init(&text, &env, SIZE_MAX);
    pmi_json_add_string(&text, bytes);
    fuzz_publish(link, topic, pmi_buf_slice(&text));
    pmi_buf_fini(&text);
}

static void fuzz_piece(fuzz *f, pmi_cursor *in)
{
    static const char *const topics[] = {
        "monitor", "client", "register", "reconnect", "reconnect_ok", "a"};
    uint8_t what = pmi_cursor_byte(in), len = pmi_cursor_byte(in);
    fuzz_link *link = &f->links[what >> 2 & 1];
    pm_slice bytes = fuzz_take(in, len == 255 ? SIZE_MAX : len);
    const char *topic = topics[(what >> 3) % PMI_COUNT(topics)];
    if ((what & 3) != FORM_ACTION)
        fuzz_dial(link);
    if ((what & 3) == FORM_RAW)
        fuzz_send(link->conn, bytes);
    else if ((what & 3) == FORM_PUBLISH)
        fuzz_publish(link, topic, bytes);
    else if ((what & 3) == FORM_TWICE)
        fuzz_twice(link, topic, bytes);
    else
        fuzz_act(f, link, what >> 3);
    fuzz_world_pass(&f->world, 0, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pmi_cursor in = pmi_cursor_of(data, size);
    fuzz f = {.options = pmi_cursor_byte(&in)};
    uint8_t fail = pmi_cursor_byte(&in);
    f.links[0].of = f.links[1].of = &f;
    if (in.bad)
        return 0;
    fuzz_world_open(&f.world, true, f.options);
    FUZZ_CHECK(fuzz_start(&f) == PM_OK);
    fuzz_world_pass(&f.world, 200, 4);
    fuzz_world_fail(&f.world, fail);
    for (int i = 0; i < PIECES_MAX && pmi_cursor_left(&in); i++)
        fuzz_piece(&f, &in);
    fuzz_world_pass(&f.world, 60000, 4);
    f.world.fail_at = 0;
    pm_app_free(f.app);
    pm_console_free(f.console);
    FUZZ_CHECK(f.asked == f.told);
    for (int i = 0; i < LINKS; i++)
        pmi_conn_free(f.links[i].conn);
    pmi_listener_close(f.door);
    fuzz_world_close(&f.world);
    return 0;
}
