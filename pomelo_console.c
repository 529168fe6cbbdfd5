/* SPDX-License-Identifier: MIT */
/* pomelo_console.c -- the console's end: logs in at a master and asks.
 *
 *   CONNECT --login--> READY --lost, freed--> FAILED
 *      \___ refused, no master, too late ________/
 *
 * What is asked before the login is done waits in order. A console that has
 * failed stays so, and says why to everybody who asks. Start at
 * console_heard and console_fail. */
#include "pomelo_admin_internal.h"

#include "core/crypto.h"

#include <cjson/cJSON.h>

#define CONSOLE_BYTES (64 * 1024 * 1024)
#define CONSOLE_WAITING_MAX 1024

typedef enum console_state {
    CONSOLE_CONNECT,
    CONSOLE_READY,
    CONSOLE_FAILED
} console_state;

typedef struct console_ask {
    pm_console *console;
    pmi_link in_waiting;
    char *command, *module, *body; /* owned; body: JSON text */
    pm_admin_cb cb;
    void *ctx;
} console_ask;

struct pm_console {
    pm_loop *loop;
    pmi_env env;
    pmi_admin_link *link;
    char *username; /* owned */
    char password[33], id[40];
    uint32_t request_ms;
    pmi_link waiting; /* console_ask: not sent, or to be told of the failure */
    uint32_t waiting_count;
    pmi_timer timer;
    pmi_task tell, grave;
    console_state state;
    pm_err err; /* with FAILED */
    char detail[256];
    bool freed;
};

/* ---- Questions --------------------------------------------------------- */

static void console_ask_end(console_ask *ask, const pm_admin_result *result)
{
    pm_console *console = ask->console;
    pm_admin_cb cb = ask->cb;
    void *ctx = ask->ctx;
    if (pmi_link_in(&ask->in_waiting)) {
        pmi_list_remove(&ask->in_waiting);
        console->waiting_count--;
    }
    pmi_free(&console->env, ask->command);
    pmi_free(&console->env, ask->module);
    pmi_free(&console->env, ask->body);
    pmi_free(&console->env, ask);
    if (cb)
        cb(result, ctx);
}

static void console_answered(const pm_admin_result *result, void *ctx)
{
    console_ask_end(ctx, result);
}

static void console_ask_fail(console_ask *ask, pm_err err, const char *detail)
{
    pm_admin_result result = {err, detail, NULL, NULL};
    console_ask_end(ask, &result);
}

static void console_send(console_ask *ask)
{
    pm_console *console = ask->console;
    pm_err err = pmi_admin_ask(console->link, ask->command, ask->module,
                               pm_text(ask->body), console->request_ms,
                               console_answered, ask);
    if (err)
        console_ask_fail(ask, err, pm_strerror(err));
}

/* All that wait, in order: sent, or told why not. A callback may ask anew or
 * free the console. */
static void console_settle(pm_console *console)
{
    uint32_t left = console->waiting_count;
    pmi_link *node;
    while (left-- && (node = pmi_list_take(&console->waiting))) {
        console_ask *ask = PMI_OUTER(node, console_ask, in_waiting);
        console->waiting_count--;
        if (console->state == CONSOLE_READY && console->link)
            console_send(ask);
        else if (console->freed)
            console_ask_fail(ask, PM_ECLOSED, pm_strerror(PM_ECLOSED));
        else
            console_ask_fail(ask, console->err, console->detail);
    }
}

static void console_tell(pmi_task *task)
{
    console_settle(PMI_OUTER(task, pm_console, tell));
}

/* ---- The link ---------------------------------------------------------- */

static void console_fail(pm_console *console, pm_err err, const char *detail)
{
    if (console->state == CONSOLE_FAILED)
        return;
    console->state = CONSOLE_FAILED;
    console->err = err;
    pmi_format(console->detail, sizeof console->detail, "%s", detail);
    pmi_timer_clear(&console->timer);
}

static void console_closed(pmi_admin_link *link, pm_close_reason why)
{
    pm_console *console = link->owner;
    console->link = NULL;
    if (console->state == CONSOLE_CONNECT)
        console_fail(console, PM_EDOWN, pm_close_text(why));
    else
        console_fail(console, PM_ECLOSED, pm_close_text(why));
    pmi_admin_link_free(link);
    console_settle(console);
}

static void console_late(pmi_timer *timer)
{
    pm_console *console = PMI_OUTER(timer, pm_console, timer);
    if (console->link)
        pmi_conn_close(console->link->conn, PM_CLOSE_HANDSHAKE_TIMEOUT, false,
                       0);
}

static void console_opened(pmi_admin_link *link)
{
    pm_console *console = link->owner;
    pmi_buf text;
    pm_err err = PM_ENOMEM;
    pmi_buf_init(&text, &console->env, SIZE_MAX);
    pmi_buf_add_byte(&text, '{');
    pmi_admin_put(&text, "type", "client");
    pmi_admin_put(&text, "id", console->id);
    pmi_admin_put(&text, "username", console->username);
    pmi_admin_put(&text, "password", console->password);
    pmi_buf_add_text(&text, ",\"md5\":true}");
    if (!text.failed)
        err = pmi_admin_publish(link, "register", pmi_buf_slice(&text), false);
    pmi_buf_fini(&text);
    if (err)
        pmi_conn_close(link->conn, PM_CLOSE_MEMORY, false, 0);
}

static pm_close_reason console_heard(pmi_admin_link *link, pmi_admin_msg *msg)
{
    pm_console *console = link->owner;
    const char *word = pmi_admin_text(msg->tree, "msg");
    if (msg->kind != PMI_ADMIN_REGISTER)
        return PM_CLOSE_NONE; /* a word that nobody waits for */
    if (console->state != CONSOLE_CONNECT)
        return PM_CLOSE_MESSAGE;
    if (pmi_admin_number(msg->tree, "code", 1000) != 1) {
        console_fail(console, PM_EAUTH, word ? word : pm_strerror(PM_EAUTH));
        return PM_CLOSE_AUTH;
    }
    pmi_timer_clear(&console->timer);
    console->state = CONSOLE_READY;
    link->topic = "client";
    console_settle(console);
    return PM_CLOSE_NONE;
}

static const pmi_admin_ops console_ops = {console_opened, console_heard,
                                          console_closed};

/* ---- Life -------------------------------------------------------------- */

static void console_bury(pmi_task *grave)
{
    pm_console *console = PMI_OUTER(grave, pm_console, grave);
    pm_loop *loop = console->loop;
    pmi_env env = console->env;
    pmi_free(&env, console->username);
    pmi_free(&env, console);
    pmi_loop_drop(loop);
}

void pm_console_free(pm_console *console)
{
    pm_loop *loop;
    pmi_admin_link *link;
    if (!console || console->freed)
        return;
    loop = console->loop;
    pmi_loop_enter(loop);
    console->freed = true;
    console_fail(console, PM_ECLOSED, pm_strerror(PM_ECLOSED));
    console->state = CONSOLE_FAILED;
    pmi_task_cancel(&console->tell);
    link = console->link;
    console->link = NULL;
    if (link)
        pmi_admin_leave(link, PM_CLOSE_STOP);
    pmi_admin_link_free(link);
    console_settle(console);
    pmi_loop_bury(loop, &console->grave, console_bury);
    pmi_loop_leave(loop);
}

static pm_err console_dial(pm_console *console, const pm_console_opts *opts)
{
    uint32_t ms = opts->connect_ms ? opts->connect_ms : 5000;
    pmi_connect_opts to = {.host = opts->host ? opts->host : "127.0.0.1",
                           .port = opts->port ? opts->port : 3005,
                           .framing = PMI_FRAMING_STREAM,
                           .memory = true,
                           .from = "console"};
    to.limits.in_max = CONSOLE_BYTES + PMI_MQTT_HEAD_MAX;
    to.limits.out_max = CONSOLE_BYTES;
    to.limits.open_ms = ms;
    pmi_timer_set(console->loop, &console->timer, (uint64_t)ms * 1000,
                  console_late);
    return pmi_admin_dial(console->loop, &console->env, &to, &console_ops,
                          console, &console->link);
}

pm_err pm_console_new(pm_console **out, const pm_console_opts *opts)
{
    const char *password;
    pm_console *console;
    uint8_t hash[16];
    pm_err err = PM_ENOMEM;
    if (!opts || opts->size != sizeof *opts || !opts->loop)
        return PM_EINVAL;
    console = pmi_zalloc(pmi_loop_env(opts->loop), sizeof *console);
    if (!console)
        return PM_ENOMEM;
    pmi_loop_hold(opts->loop);
    console->loop = opts->loop;
    console->env = *pmi_loop_env(opts->loop);
    console->request_ms = opts->request_ms ? opts->request_ms : 30000;
    pmi_list_init(&console->waiting);
    password = opts->password ? opts->password : "admin";
    pmi_md5(password, strlen(password), hash);
    pmi_hex(hash, sizeof hash, console->password);
    pmi_format(console->id, sizeof console->id, "cli_%016llx",
               (unsigned long long)pmi_loop_random_u64(console->loop));
    console->username =
        pmi_strdup(&console->env, opts->username ? opts->username : "admin");
    if (console->username)
        err = console_dial(console, opts);
    if (err) {
        pm_console_free(console);
        return err;
    }
    *out = console;
    return PM_OK;
}

/* ---- Asking ------------------------------------------------------------ */

/* The caller's object with what each question of a console carries. */
static pm_err console_body(pm_console *console, const char *body, char **out)
{
    pmi_buf text;
    pm_err err = PM_OK;
    pmi_buf_init(&text, &console->env, CONSOLE_BYTES);
    if (pmi_json_canonical(&console->env, pm_text(body ? body : "{}"),
                           PMI_JSON_DEPTH_MAX - 1, &text))
        err = text.failed ? PM_ENOMEM : PM_EINVAL;
    else if (text.data[0] != '{')
        err = PM_EINVAL;
    if (err == PM_OK) {
        text.len--;
        pmi_admin_put(&text, "clientId", console->id);
        pmi_admin_put(&text, "username", console->username);
        pmi_buf_add_byte(&text, '}');
        if (!text.failed)
            *out = pmi_strndup(&console->env, text.data, text.len);
        err = text.failed || !*out ? PM_ENOMEM : PM_OK;
    }
    pmi_buf_fini(&text);
    return err;
}

static pm_err console_queue(pm_console *console, const char *command,
                            const char *module, const char *body,
                            pm_admin_cb cb, void *ctx)
{
    console_ask *ask;
    pm_err err;
    if (console->freed)
        return PM_ECLOSED;
    if (console->waiting_count >= CONSOLE_WAITING_MAX)
        return PM_ELIMIT;
    ask = pmi_zalloc(&console->env, sizeof *ask);
    if (!ask)
        return PM_ENOMEM;
    ask->console = console;
    err = console_body(console, body, &ask->body);
    ask->command = command ? pmi_strdup(&console->env, command) : NULL;
    ask->module = module ? pmi_strdup(&console->env, module) : NULL;
    if (err == PM_OK &&
        ((command && !ask->command) || (module && !ask->module)))
        err = PM_ENOMEM;
    if (err) {
        console_ask_fail(ask, err, ""); /* it has no callback yet */
        return err;
    }
    ask->cb = cb;
    ask->ctx = ctx;
    pmi_list_add(&console->waiting, &ask->in_waiting);
    console->waiting_count++;
    if (console->state != CONSOLE_CONNECT)
        pmi_loop_defer(console->loop, &console->tell, console_tell);
    return PM_OK;
}

pm_err pm_console_request(pm_console *console, const char *module,
                          const char *body, pm_admin_cb cb, void *ctx)
{
    if (!console || !module || !cb)
        return PM_EINVAL;
    return console_queue(console, NULL, module, body, cb, ctx);
}

pm_err pm_console_command(pm_console *console, const char *command,
                          const char *module, pm_admin_cb cb, void *ctx)
{
    if (!console || !command || !cb)
        return PM_EINVAL;
    return console_queue(console, command, module, NULL, cb, ctx);
}
