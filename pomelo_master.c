/* SPDX-License-Identifier: MIT */
/* pomelo_master.c -- the master: who is there, and who is told of it.
 *
 * Nobody gets anything before it has said who it is: a server by the token of
 * its type, at each registration and at each reconnect; a console by name and
 * password. Until then a link may say one small message, for a few seconds.
 * Start at master_heard and master_register. */
#include "pomelo_master_internal.h"

#include "core/crypto.h"

#include <cjson/cJSON.h>

#define MASTER_REGISTER_MS 5000
#define MASTER_SILENT_MS 150000 /* Node's monitors ping every minute */
#define MASTER_STRANGERS_MAX 64
#define MASTER_LINKS_MAX 8192
#define MASTER_ORDER_MAX 1000000
#define MASTER_OUT_BYTES (16 * 1024 * 1024)

bool pmi_master_is(const pm_server *server)
{
    return !strcmp(server->type, "master");
}

/* ---- Servers ----------------------------------------------------------- */

pmi_master_server *pmi_master_find(pmi_master *master, const char *id)
{
    return id ? pmi_map_get(&master->servers, pm_text(id)) : NULL;
}

static void master_free_server(pmi_master_server *server)
{
    const pmi_env *env = server->master->env;
    pmi_timer_clear(&server->grace);
    pmi_timer_clear(&server->respawn);
    pmi_free(env, server->id);
    pmi_free(env, server->type);
    pmi_free(env, server->info);
    pmi_free(env, server);
}

pmi_master_server *pmi_master_know(pmi_master *master, const pm_server *known)
{
    const pmi_env *env = master->env;
    pmi_master_server *server = pmi_master_find(master, known->id);
    if (server)
        return server;
    server = pmi_zalloc(env, sizeof *server);
    if (!server)
        return NULL;
    server->master = master;
    server->order = ++master->last_order;
    server->id = pmi_strdup(env, known->id);
    server->type = pmi_strdup(env, known->type);
    if (server->id && server->type &&
        pmi_map_put(&master->servers, pm_text(known->id), server, NULL) ==
            PM_OK)
        return server;
    master_free_server(server);
    return NULL;
}

void pmi_master_forget(pmi_master_server *server)
{
    pmi_master *master = server->master;
    for (pmi_link *at = master->links.next; at != &master->links;
         at = at->next) {
        pmi_master_peer *peer = PMI_OUTER(at, pmi_admin_link, in_owner)->ctx;
        if (peer->server == server)
            peer->server = NULL;
    }
    pmi_map_remove(&master->servers, pm_text(server->id));
    pm_server_remove(master->app, server->id);
    master_free_server(server);
}

/* ---- Telling ----------------------------------------------------------- */

static void master_told(const pm_admin_result *result, void *ctx)
{
    pmi_master *master = ctx;
    if (result->err == PM_ETIMEOUT)
        PMI_LOG(master->env, PM_LOG_WARN, "master",
                "a server did not answer when it was told of a change");
}

pm_err pmi_master_ask(pmi_master_server *server, const char *module,
                      pm_slice body, pm_admin_cb cb, void *ctx)
{
    if (!server->link)
        return PM_EDOWN;
    return pmi_admin_ask(server->link, NULL, module, body,
                         server->master->opts->request_ms, cb, ctx);
}

static bool master_tell(pmi_master_server *server, pm_slice body,
                        pm_admin_cb cb, void *ctx)
{
    pm_err err = pmi_master_ask(server, "__monitorwatcher__", body, cb, ctx);
    /* It has an old view from now on: it must come back and be told anew. */
    if (err && server->link)
        pmi_admin_leave(server->link, PM_CLOSE_QUEUE);
    return err == PM_OK;
}

void pmi_master_announce(pmi_master *master, pm_slice body)
{
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        if (server->link && server->subscribed)
            master_tell(server, body, master_told, master);
    }
}

void pmi_master_notify_all(pmi_master *master, const char *module,
                           pm_slice body)
{
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk))
        pmi_master_ask(walk.value, module, body, NULL, NULL);
}

void pmi_master_list(pmi_master *master, pmi_buf *out)
{
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    size_t count = 0;
    pmi_buf_add_byte(out, '{');
    while (pmi_map_next(&walk)) {
        const pmi_master_server *server = walk.value;
        if (!server->there)
            continue;
        if (count++)
            pmi_buf_add_byte(out, ',');
        pmi_json_add_string(out, pm_text(server->id));
        pmi_buf_add_byte(out, ':');
        pmi_buf_add_text(out, server->info);
    }
    pmi_buf_add_byte(out, '}');
}

static void master_announce_added(pmi_master_server *server)
{
    pmi_master *master = server->master;
    pmi_buf body;
    pmi_buf_init(&body, master->env, SIZE_MAX);
    pmi_buf_add_text(&body, "{\"action\":\"addServer\",\"server\":");
    pmi_buf_add_text(&body, server->info);
    pmi_buf_add_byte(&body, '}');
    if (!body.failed)
        pmi_master_announce(master, pmi_buf_slice(&body));
    pmi_buf_fini(&body);
}

static void master_put_removed(const pmi_master_server *server, pmi_buf *out)
{
    pmi_buf_add_byte(out, '{');
    pmi_admin_put(out, "action", "removeServer");
    pmi_admin_put(out, "id", server->id);
    if (server->incarnation[0])
        pmi_admin_put(out, "incarnation", server->incarnation);
    pmi_buf_add_byte(out, '}');
}

static void master_announce_removed(pmi_master_server *server)
{
    pmi_master *master = server->master;
    pmi_buf body;
    pmi_buf_init(&body, master->env, SIZE_MAX);
    master_put_removed(server, &body);
    if (!body.failed)
        pmi_master_announce(master, pmi_buf_slice(&body));
    pmi_buf_fini(&body);
}

/* To one who has come back: the whole view. */
static void master_replace(pmi_master_server *server)
{
    pmi_buf body;
    pmi_buf_init(&body, server->master->env, SIZE_MAX);
    pmi_buf_add_text(&body, "{\"action\":\"replaceServer\",\"servers\":");
    pmi_master_list(server->master, &body);
    pmi_buf_add_byte(&body, '}');
    if (!body.failed)
        master_tell(server, pmi_buf_slice(&body), master_told, server->master);
    pmi_buf_fini(&body);
}

/* ---- Coming and going -------------------------------------------------- */

void pmi_master_gone(pmi_master_server *server)
{
    bool stays = server->configured || (server->added && !server->stopped);
    pmi_master_lost(server);
    if (!stays && !pmi_timer_is_set(&server->respawn))
        pmi_master_forget(server);
}

static void master_remove(pmi_master_server *server)
{
    pmi_master *master = server->master;
    pmi_timer_clear(&server->grace);
    server->recorded = false;
    if (server->there) {
        server->there = false;
        PMI_LOG(master->env, PM_LOG_INFO, "master", "%s has gone", server->id);
        master_announce_removed(server);
    }
    pmi_master_gone(server);
}

static void master_grace_over(pmi_timer *timer)
{
    pmi_master_server *server = PMI_OUTER(timer, pmi_master_server, grace);
    if (server->stopped) { /* it can not be told any more */
        pmi_timer_set(pmi_master_loop(server->master), timer, 0,
                      master_grace_over); /* its end is not heard in here */
        pmi_master_terminate(server);
    }
    master_remove(server);
}

static void master_count_end(pmi_master *master, pm_close_reason why)
{
    if (why == PM_CLOSE_MESSAGE)
        pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_JSON);
    else if (why == PM_CLOSE_PACKAGE || why == PM_CLOSE_PACKAGE_SIZE)
        pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_FRAME);
    else if (why == PM_CLOSE_HANDSHAKE_TIMEOUT ||
             why == PM_CLOSE_CONNECTIONS_MAX)
        pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_LINK);
    else
        return;
    if (why == PM_CLOSE_CONNECTIONS_MAX)
        return; /* a crowd would fill the log */
    PMI_LOG(master->env, PM_LOG_WARN, "master", "a link was refused: %s",
            pm_close_text(why));
}

static void master_closed(pmi_admin_link *link, pm_close_reason why)
{
    pmi_master *master = link->owner;
    pmi_master_peer *peer = link->ctx;
    pmi_master_server *server = peer->server;
    bool left = link->left;
    master_count_end(master, why);
    if (!link->topic[0])
        master->strangers--;
    master->links_count--;
    pmi_list_remove(&link->in_owner);
    if (server && server->link != link) {
        pmi_count(master->app,
                  PMI_COUNT_MASTER_LATE_REMOVAL); /* a newer one stands there */
        server = NULL;
    }
    if (server) {
        server->link = NULL;
        server->subscribed = false;
    }
    pmi_free(master->env, peer);
    pmi_admin_link_free(link);
    if (server && left)
        master_remove(server);
    else if (server)
        pmi_timer_set(pmi_master_loop(master), &server->grace,
                      (uint64_t)master->opts->grace_ms * 1000,
                      master_grace_over);
}

/* ---- Registering: servers ---------------------------------------------- */

typedef enum master_verdict {
    MASTER_WELCOME,
    MASTER_REFUSED,
    MASTER_REPLACED /* another process has its id by now: it should end */
} master_verdict;

/* Answers and, unless welcome, ends the link. */
static pm_close_reason master_say(pmi_admin_link *link, bool again,
                                  master_verdict verdict, const char *word)
{
    bool welcome = verdict == MASTER_WELCOME;
    pmi_buf text;
    pm_err err;
    pmi_buf_init(&text, &link->env, SIZE_MAX);
    pmi_buf_add_format(&text, "{\"code\":%d", welcome ? 1 : -1);
    pmi_admin_put(&text, "msg", word);
    if (verdict == MASTER_REPLACED) /* ours alone: Node does not look at it */
        pmi_buf_add_text(&text, ",\"replaced\":true");
    pmi_buf_add_byte(&text, '}');
    err = text.failed
              ? PM_ENOMEM
              : pmi_admin_publish(link, again ? "reconnect_ok" : "register",
                                  pmi_buf_slice(&text), false);
    pmi_buf_fini(&text);
    if (!welcome)
        pmi_admin_leave(link, PM_CLOSE_AUTH);
    return err && welcome ? PM_CLOSE_MEMORY : PM_CLOSE_NONE;
}

/* Who it says it is, and where it comes from. */
static void master_log_refused(const pmi_admin_link *link,
                               const pmi_admin_msg *msg, const char *word)
{
    const pmi_master *master = link->owner;
    const char *id = pmi_admin_text(msg->tree, "username");
    const char *type = pmi_admin_text(msg->tree, "serverType");
    char from[PMI_ADDR_TEXT_MAX];
    if (!id)
        id = pmi_admin_text(msg->tree, "id");
    PMI_LOG(master->env, PM_LOG_WARN, "master",
            "refused: %s: \"%.64s\" (%.64s) from %s", word, id ? id : "",
            type ? type : "console",
            pmi_addr_text(pmi_conn_peer(link->conn), from));
}

static pm_close_reason master_refuse(pmi_admin_link *link,
                                     const pmi_admin_msg *msg, const char *word)
{
    pmi_master *master = link->owner;
    pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_AUTH);
    master_log_refused(link, msg, word);
    return master_say(link, msg->kind == PMI_ADMIN_RECONNECT, MASTER_REFUSED,
                      word);
}

static pm_close_reason master_refuse_id(pmi_admin_link *link,
                                        const pmi_admin_msg *msg,
                                        master_verdict verdict)
{
    pmi_master *master = link->owner;
    const char *id = pmi_admin_text(msg->tree, "id");
    char word[400];
    pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_AUTH);
    pmi_format(word, sizeof word, "id has been registered. id:%s", id);
    master_log_refused(link, msg, "id has been registered");
    return master_say(link, msg->kind == PMI_ADMIN_RECONNECT, verdict, word);
}

/* Neither length nor content of a secret shows in the time that this takes. */
static bool master_same(const char *a, const char *b)
{
    uint8_t hash_a[32], hash_b[32];
    pmi_sha256(a, strlen(a), hash_a);
    pmi_sha256(b, strlen(b), hash_b);
    return pmi_same_secret(hash_a, hash_b, sizeof hash_a);
}

static bool master_token_fits(const pmi_master *master, const char *type,
                              const char *token)
{
    const pm_master_opts *opts = master->opts;
    bool fits = false;
    if (!opts->tokens_count)
        return true;
    for (size_t i = 0; token && i < opts->tokens_count; i++)
        if (!strcmp(opts->tokens[i].type, type))
            fits |= master_same(opts->tokens[i].token, token);
    return fits;
}

/* The info as it is announced: as it came, with the pid behind it, and for
 * servers of ours the place in which all are to have it. */
static char *master_info(const pmi_master *master, const cJSON *info,
                         int64_t pid, uint32_t order)
{
    const cJSON *member = cJSON_IsObject(info) ? info->child : NULL;
    char *text = NULL;
    pmi_buf out;
    size_t count = 0;
    pmi_buf_init(&out, master->env, PMI_ADMIN_STRANGER_BYTES * 2);
    pmi_buf_add_byte(&out, '{');
    for (; member; member = member->next) {
        if ((pid && !strcmp(member->string, "pid")) ||
            !strcmp(member->string, "order"))
            continue;
        if (count++)
            pmi_buf_add_byte(&out, ',');
        pmi_json_add_string(&out, pm_text(member->string));
        pmi_buf_add_byte(&out, ':');
        if (pmi_json_print(member, PMI_JSON_DEPTH_MAX, &out))
            out.failed = true;
    }
    if (pid)
        pmi_buf_add_format(&out, "%s\"pid\":%lld", count ? "," : "",
                           (long long)pid);
    if (pmi_json_get(info, "incarnation"))
        pmi_buf_add_format(&out, ",\"order\":%u", (unsigned)order);
    pmi_buf_add_byte(&out, '}');
    if (!out.failed)
        text = pmi_strndup(master->env, out.data, out.len);
    pmi_buf_fini(&out);
    return text;
}

/* May it take this id? */
static master_verdict master_judge(const pmi_master *master,
                                   const pmi_master_server *server,
                                   const pm_server *who, const cJSON *tree,
                                   bool again)
{
    const char *incarnation =
        pmi_admin_text(pmi_json_get(tree, "info"), "incarnation");
    int64_t pid = (int64_t)pmi_admin_number(tree, "pid", INT64_MAX);
    if (!strcmp(who->id, pm_app_server(master->app)->id) && !pmi_master_is(who))
        return MASTER_REFUSED;
    if (!server)
        return MASTER_WELCOME;
    if (strcmp(server->type, who->type) != 0)
        return MASTER_REFUSED;
    /* A new process may have the id of one that we have not seen die; one that
     * comes back may not push out its successor. */
    if (!again || !server->link)
        return MASTER_WELCOME;
    if (pid == server->pid &&
        !strcmp(server->incarnation, incarnation ? incarnation : ""))
        return MASTER_WELCOME;
    return MASTER_REPLACED;
}

static void master_take_link(pmi_master_server *server, pmi_admin_link *link)
{
    pmi_master *master = server->master;
    pmi_admin_link *old = server->link;
    pmi_timer_clear(&server->grace);
    pmi_timer_clear(&server->respawn);
    server->link = link;
    server->registration = ++master->registrations;
    server->subscribed = false;
    server->starting = server->stopped = server->restarting = false;
    ((pmi_master_peer *)link->ctx)->server = server;
    link->topic = "monitor";
    link->in_max = master->opts->message_bytes;
    master->strangers--;
    pmi_count(master->app, PMI_COUNT_MASTER_REGISTERED);
    if (old)
        pmi_admin_leave(old, PM_CLOSE_DUPLICATE);
}

/* It comes back to a master that has never heard of it: it keeps the place that
 * the one before has given it, so that nothing that is routed by it moves. */
static void master_keep_place(pmi_master_server *server, const cJSON *info)
{
    pmi_master *master = server->master;
    uint32_t told = (uint32_t)pmi_admin_number(info, "order", MASTER_ORDER_MAX);
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk))
        if (((pmi_master_server *)walk.value)->order == told)
            told = 0;
    if (!told)
        return;
    server->order = told;
    if (told > master->last_order)
        master->last_order = told;
}

static pmi_master_server *master_take(pmi_master *master, pmi_admin_link *link,
                                      const pm_server *who, const cJSON *tree)
{
    const cJSON *info = pmi_json_get(tree, "info");
    const char *incarnation = pmi_admin_text(info, "incarnation");
    int64_t pid = (int64_t)pmi_admin_number(tree, "pid", INT64_MAX);
    bool known = pmi_master_find(master, who->id) != NULL;
    pmi_master_server *server = pmi_master_know(master, who);
    char *text;
    if (server && !known)
        master_keep_place(server, info);
    text = server ? master_info(master, info, pid, server->order) : NULL;
    if (!text)
        return NULL; /* at most its name is known */
    pmi_free(master->env, server->info);
    server->info = text;
    server->pid = pid;
    pmi_format(server->incarnation, sizeof server->incarnation, "%s",
               incarnation ? incarnation : "");
    master_take_link(server, link);
    /* As it says of itself, for who starts it again. */
    if (!pm_server_find(master->app, server->id)) {
        pm_server entry = *who;
        entry.raw = text;
        pm_server_add(master->app, &entry);
    }
    return server;
}

static void master_silent(pmi_timer *timer)
{
    pmi_admin_link *link = PMI_OUTER(timer, pmi_admin_link, timer);
    uint64_t silent = pmi_loop_now_us(link->loop) - link->heard_us;
    if (silent >= UINT64_C(1000) * MASTER_SILENT_MS)
        pmi_conn_close(link->conn, PM_CLOSE_PEER_SILENT, false, 0);
    else
        pmi_timer_set(link->loop, timer,
                      UINT64_C(1000) * MASTER_SILENT_MS - silent,
                      master_silent);
}

static pm_close_reason master_register_server(pmi_admin_link *link,
                                              pmi_admin_msg *msg)
{
    pmi_master *master = link->owner;
    bool again = msg->kind == PMI_ADMIN_RECONNECT;
    const cJSON *info = pmi_json_get(msg->tree, "info");
    const char *told = pmi_admin_text(info, "id");
    const char *told_type = pmi_admin_text(info, "serverType");
    master_verdict verdict;
    pm_close_reason why;
    pm_server who;
    pmi_master_server *server;
    bool known = pmi_admin_server(info, &who), unwanted;
    who.id = pmi_admin_text(msg->tree, "id");
    who.type = pmi_admin_text(msg->tree, "serverType");
    /* One who says two things of himself says nothing. */
    if (!who.id || !who.type || !*who.id || !*who.type ||
        strlen(who.id) > 255 || strlen(who.type) > 255 || !told ||
        strcmp(told, who.id) != 0 ||
        (told_type && strcmp(told_type, who.type) != 0) ||
        !master_token_fits(master, who.type,
                           pmi_admin_text(msg->tree, "token")))
        return master_refuse(link, msg, "server auth failed");
    server = pmi_master_find(master, who.id);
    verdict = master_judge(master, server, &who, msg->tree, again);
    if (verdict != MASTER_WELCOME)
        return master_refuse_id(link, msg, verdict);
    /* The very process that was to stop, not one that somebody has started
     * since. */
    unwanted = server && server->stopped && (again || server->starting);
    server = master_take(master, link, &who, msg->tree);
    if (!server)
        return PM_CLOSE_MEMORY;
    pmi_timer_set(link->loop, &link->timer, UINT64_C(1000) * MASTER_SILENT_MS,
                  master_silent);
    PMI_LOG(master->env, PM_LOG_INFO, "master", "%s has registered%s",
            server->id, again ? " again" : "");
    why = master_say(link, again, MASTER_WELCOME, "ok");
    server->there = known; /* without a type in its info nobody can use it */
    if (known)
        master_announce_added(server);
    if (again) {
        server->subscribed = true;
        server->recorded = true; /* it has only lost sight of us */
        master_replace(server);
    }
    pmi_master_pin(server);
    if (unwanted)
        pmi_master_stop_server(server, false);
    return why;
}

/* ---- Registering: consoles --------------------------------------------- */

static bool master_password_fits(const pm_admin_user *user, const char *said,
                                 bool md5)
{
    uint8_t hash[16];
    char hex[33];
    if (!md5)
        return master_same(user->password, said);
    pmi_md5(user->password, strlen(user->password), hash);
    pmi_hex(hash, sizeof hash, hex);
    return master_same(hex, said);
}

static const pm_admin_user *master_user(const pmi_master *master,
                                        const char *name, const char *said,
                                        bool md5)
{
    const pm_admin_user *found = NULL;
    for (size_t i = 0; i < master->opts->users_count; i++) {
        const pm_admin_user *user = &master->opts->users[i];
        if (master_password_fits(user, said, md5) &&
            !strcmp(user->username, name))
            found = user;
    }
    return found;
}

static bool master_console_there(const pmi_master *master, const char *id)
{
    for (pmi_link *at = master->links.next; at != &master->links;
         at = at->next) {
        const pmi_admin_link *link = PMI_OUTER(at, pmi_admin_link, in_owner);
        const pmi_master_peer *peer = link->ctx;
        if (peer->console && !strcmp(peer->id, id))
            return true;
    }
    return false;
}

static pm_close_reason master_register_console(pmi_admin_link *link,
                                               pmi_admin_msg *msg)
{
    pmi_master *master = link->owner;
    pmi_master_peer *peer = link->ctx;
    const char *id = pmi_admin_text(msg->tree, "id");
    const char *name = pmi_admin_text(msg->tree, "username");
    const char *said = pmi_admin_text(msg->tree, "password");
    const pm_admin_user *user;
    if (!name)
        return master_refuse(link, msg, "client should auth with username");
    user = said ? master_user(master, name, said,
                              pmi_json_truthy(pmi_json_get(msg->tree, "md5")))
                : NULL;
    if (!user || !id || strlen(id) >= sizeof peer->id)
        return master_refuse(
            link, msg, "client auth failed with username or password error");
    if (master_console_there(master, id))
        return master_refuse_id(link, msg, MASTER_REFUSED);
    peer->console = true;
    peer->level = user->level;
    pmi_format(peer->name, sizeof peer->name, "%s", user->username);
    pmi_format(peer->id, sizeof peer->id, "%s", id);
    link->topic = "client";
    link->in_max = master->opts->message_bytes;
    pmi_timer_clear(&link->timer);
    master->strangers--;
    pmi_count(master->app, PMI_COUNT_MASTER_CONSOLE);
    PMI_LOG(master->env, PM_LOG_INFO, "master", "console: %s has logged in",
            user->username);
    return master_say(link, false, MASTER_WELCOME, "ok");
}

static pm_close_reason master_register(pmi_admin_link *link, pmi_admin_msg *msg)
{
    const char *type = pmi_admin_text(msg->tree, "type");
    bool again = msg->kind == PMI_ADMIN_RECONNECT;
    if (link->topic[0])
        return PM_CLOSE_MESSAGE; /* it has said already who it is */
    if (type && !strcmp(type, "monitor"))
        return master_register_server(link, msg);
    if (type && !strcmp(type, "client") && !again)
        return master_register_console(link, msg);
    return master_refuse(link, msg, "unknown auth master type");
}

/* ---- Hearing ----------------------------------------------------------- */

static pm_close_reason master_heard(pmi_admin_link *link, pmi_admin_msg *msg)
{
    pmi_master *master = link->owner;
    pmi_master_peer *peer = link->ctx;
    if (msg->kind == PMI_ADMIN_REGISTER || msg->kind == PMI_ADMIN_RECONNECT)
        return master_register(link, msg);
    if (!link->topic[0]) {
        pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_AUTH);
        pmi_admin_leave(link, PM_CLOSE_AUTH);
    } else if (msg->kind == PMI_ADMIN_RECONNECT_OK) {
        return PM_CLOSE_MESSAGE;
    } else if (peer->server && peer->server->link == link) {
        if (msg->kind == PMI_ADMIN_COMMAND)
            return PM_CLOSE_MESSAGE;
        pmi_module_ask(master->app, link, peer->server->id, 0, PMI_ROLE_MASTER,
                       msg);
    } else if (peer->console) {
        bool allowed = msg->kind == PMI_ADMIN_COMMAND
                           ? pmi_module_command(master->app, link, peer->name,
                                                peer->level, msg)
                           : pmi_module_ask(master->app, link, peer->name,
                                            peer->level, PMI_ROLE_CLIENT, msg);
        if (!allowed)
            pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_LEVEL);
    }
    return PM_CLOSE_NONE;
}

static const pmi_admin_ops master_link_ops = {NULL, master_heard,
                                              master_closed};

static void master_unregistered(pmi_timer *timer)
{
    pmi_admin_link *link = PMI_OUTER(timer, pmi_admin_link, timer);
    pmi_conn_close(link->conn, PM_CLOSE_HANDSHAKE_TIMEOUT, false, 0);
}

/* Too many have not said who they are: the first of them goes. Who has a token
 * shows it in a moment; strangers who say nothing do not keep it out. */
static void master_make_room(pmi_master *master)
{
    pmi_link *end = &master->links;
    for (pmi_link *n = end->next; n != end; n = n->next) {
        pmi_admin_link *link = PMI_OUTER(n, pmi_admin_link, in_owner);
        if (link->topic[0])
            continue;
        master_closed(link, PM_CLOSE_CONNECTIONS_MAX);
        return;
    }
}

static void master_accepted(pmi_listener *listener, pmi_conn *conn, void *ctx)
{
    pmi_master *master = ctx;
    pmi_master_peer *peer = NULL;
    pmi_admin_link *link;
    (void)listener;
    if (master->strangers >= MASTER_STRANGERS_MAX)
        master_make_room(master);
    if (master->links_count < MASTER_LINKS_MAX)
        peer = pmi_zalloc(master->env, sizeof *peer);
    if (!peer || pmi_admin_accept(pmi_master_loop(master), master->env, conn,
                                  PMI_ADMIN_STRANGER_BYTES, &master_link_ops,
                                  master, &link)) {
        pmi_count(master->app, PMI_COUNT_MASTER_REFUSED_LINK);
        pmi_free(master->env, peer);
        pmi_conn_free(conn);
        return;
    }
    link->ctx = peer;
    master->strangers++;
    master->links_count++;
    pmi_list_add(&master->links, &link->in_owner);
    pmi_timer_set(link->loop, &link->timer, UINT64_C(1000) * MASTER_REGISTER_MS,
                  master_unregistered);
}

/* ---- __masterwatcher__ ------------------------------------------------- */

void pmi_master_recorded(pmi_master *master, pmi_master_server *server)
{
    pmi_cluster *cluster = pmi_app_cluster(master->app);
    pmi_server *at = NULL;
    server->recorded = true;
    if (master->started_over)
        return;
    while ((at = pmi_cluster_next(cluster, at))) {
        const pmi_master_server *known = pmi_master_find(master, at->pub.id);
        if (!pmi_master_is(&at->pub) && !(known && known->recorded))
            return;
    }
    master->started_over = true;
    PMI_LOG(master->env, PM_LOG_INFO, "master", "all servers have started");
    pmi_master_announce(master, pm_text("{\"action\":\"startOver\"}"));
    pmi_app_all_started(master->app);
}

/* A server that stops is routed around first: all others are told while it
 * still serves, and it hears when they have heard. */
typedef struct master_leave {
    pmi_master *master;
    pm_admin_call *call;
    size_t waits;
} master_leave;

static void master_leave_told(const pm_admin_result *result, void *ctx)
{
    master_leave *leave = ctx;
    (void)result;
    if (--leave->waits > 0)
        return;
    pmi_admin_answer(leave->call, pm_bytes(NULL, 0), pm_bytes(NULL, 0));
    pmi_free(leave->master->env, leave);
}

static void master_let_go(pmi_master_server *server, pm_admin_call *call)
{
    static const pm_admin_result done = {PM_OK, "", NULL, NULL};
    pmi_master *master = server->master;
    master_leave *leave = pmi_zalloc(master->env, sizeof *leave);
    pmi_map_walk walk = pmi_map_begin(&master->servers);
    pmi_buf body;
    if (!leave) {
        pmi_map_end(&walk);
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
        return;
    }
    *leave = (master_leave){master, call, 1};
    pmi_buf_init(&body, master->env, SIZE_MAX);
    master_put_removed(server, &body);
    while (server->there && !body.failed && pmi_map_next(&walk)) {
        pmi_master_server *other = walk.value;
        if (other != server && other->link && other->subscribed)
            leave->waits += master_tell(other, pmi_buf_slice(&body),
                                        master_leave_told, leave);
    }
    pmi_map_end(&walk);
    pmi_buf_fini(&body);
    server->there = false;
    PMI_LOG(master->env, PM_LOG_INFO, "master", "%s leaves", server->id);
    master_leave_told(&done, leave);
}

static void master_answer_list(pmi_master *master, pm_admin_call *call)
{
    pmi_buf body;
    pmi_buf_init(&body, master->env, SIZE_MAX);
    pmi_master_list(master, &body);
    pmi_admin_answer_buf(call, &body);
    pmi_buf_fini(&body);
}

static void master_watcher(pm_admin_call *call, void *ctx)
{
    pmi_master *master = ctx;
    pmi_master_server *server = pmi_master_find(master, call->from);
    const char *action = pmi_admin_text(call->body, "action");
    if (!action)
        action = "";
    if (server && !strcmp(action, "subscribe"))
        server->subscribed = true;
    if (server && !strcmp(action, "unsubscribe"))
        server->subscribed = false;
    if (!strcmp(action, "subscribe") || !strcmp(action, "query")) {
        master_answer_list(master, call);
        return;
    }
    if (server && !strcmp(action, "leave")) {
        master_let_go(server, call);
        return;
    }
    if (server && !strcmp(action, "record"))
        pmi_master_recorded(master, server);
    pmi_admin_answer(call, pm_bytes(NULL, 0), pm_bytes(NULL, 0));
}

/* ---- Life -------------------------------------------------------------- */

static pm_err master_know_table(pmi_master *master)
{
    pmi_cluster *cluster = pmi_app_cluster(master->app);
    pmi_server *at = NULL;
    while ((at = pmi_cluster_next(cluster, at))) {
        pmi_master_server *server;
        if (pmi_master_is(&at->pub)) {
            master->last_order++;
            continue;
        }
        server = pmi_master_know(master, &at->pub);
        if (!server)
            return PM_ENOMEM;
        server->configured = true;
    }
    return PM_OK;
}

pm_err pmi_master_new(pm_app *app, pmi_master **out)
{
    pm_admin_module watcher = pm_admin_module_default();
    pmi_master *master;
    pm_err err;
    if (!pmi_master_is(pm_app_server(app)))
        return PM_OK;
    master = pmi_zalloc(pmi_app_env(app), sizeof *master);
    if (!master)
        return PM_ENOMEM;
    *out = master;
    master->app = app;
    master->env = pmi_app_env(app);
    master->opts = pmi_app_master_opts(app);
    pmi_facts_init(&master->facts, app);
    pmi_list_init(&master->links);
    pmi_list_init(&master->jobs);
    pmi_loop_map_init(pm_app_loop(app), &master->servers);
    watcher.id = "__masterwatcher__";
    watcher.master = master_watcher;
    err = pmi_module_add(app, &watcher, master);
    if (err == PM_OK)
        err = pmi_master_console_new(master);
    if (err == PM_OK)
        err = master_know_table(master);
    return err;
}

/* Off loopback nobody may be believed unproven, and the lack of secrecy must
 * have been agreed to, as for the RPC port. */
static pm_err master_check_open(const pmi_master *master, const char *host)
{
    const pm_master_opts *opts = master->opts;
    pmi_addr addr;
    if (pmi_loop_memory_only(pmi_master_loop(master)) ||
        (pmi_addr_parse(&addr, host, 0) && pmi_addr_is_loopback(&addr)))
        return PM_OK;
    if (opts->tokens_count && pmi_app_rpc_opts(master->app)->insecure_plain)
        return PM_OK;
    PMI_LOG(master->env, PM_LOG_ERROR, "master",
            "the master's port on %s is reachable from other machines: %s",
            host,
            opts->tokens_count ? "tokens without TLS need rpc.insecure_plain"
                               : "it needs tokens");
    return PM_ECONFIG;
}

static void master_begin(pmi_task *task)
{
    pmi_master_start_table(PMI_OUTER(task, pmi_master, begin));
}

pm_err pmi_master_start(pmi_master *master)
{
    const pm_server *self = pm_app_server(master->app);
    const char *bind = pmi_app_rpc_bind(master->app);
    pmi_listen_opts opts = {0};
    pm_err err;
    master->closed = false;
    opts.host = bind ? bind : self->host;
    opts.port = self->port;
    if (!opts.port) {
        PMI_LOG(master->env, PM_LOG_ERROR, "master", "a master needs a port");
        return PM_ECONFIG;
    }
    err = master_check_open(master, opts.host);
    if (err)
        return err;
    opts.framing = PMI_FRAMING_STREAM;
    opts.limits.in_max = master->opts->message_bytes + PMI_MQTT_HEAD_MAX;
    opts.limits.out_max = MASTER_OUT_BYTES;
    opts.limits.tally = PMI_TRAFFIC_ADMIN;
    opts.accepted = master_accepted;
    opts.ctx = master;
    err = pmi_listen(pmi_master_loop(master), &opts, &master->listener);
    if (err)
        return err;
    pmi_modules_start(pmi_app_modules(master->app), true);
    pmi_loop_defer(pmi_master_loop(master), &master->begin, master_begin);
    return PM_OK;
}

void pmi_master_close(pmi_master *master)
{
    pmi_map_walk walk;
    if (master->closed)
        return;
    master->closed = true;
    pmi_listener_close(master->listener);
    master->listener = NULL;
    pmi_task_cancel(&master->begin);
    while (!pmi_list_empty(&master->links)) {
        pmi_admin_link *link =
            PMI_OUTER(master->links.next, pmi_admin_link, in_owner);
        pmi_master_peer *peer = link->ctx;
        if (peer->server && peer->server->link == link)
            peer->server->link = NULL;
        pmi_list_remove(&link->in_owner);
        pmi_admin_link_free(link);
        pmi_free(master->env, peer);
    }
    master->links_count = master->strangers = 0;
    pmi_master_console_close(master);
    walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk)) {
        pmi_master_server *server = walk.value;
        pmi_timer_clear(&server->grace);
        pmi_timer_clear(&server->respawn);
        server->there = server->subscribed = server->recorded = false;
    }
}

void pmi_master_free(pmi_master *master)
{
    pmi_map_walk walk;
    if (!master)
        return;
    walk = pmi_map_begin(&master->servers);
    while (pmi_map_next(&walk))
        master_free_server(walk.value);
    pmi_map_fini(&master->servers);
    pmi_free(master->env, master);
}

/* ---- Public ------------------------------------------------------------ */

pm_err pm_master_counts_get(const pm_app *app, pm_master_counts *counts)
{
    const uint64_t *n;
    if (!counts || counts->size != sizeof *counts)
        return PM_EINVAL;
    if (!pmi_app_master(app))
        return PM_ESTATE;
    n = pmi_app_counts(app)->n;
    counts->registered = n[PMI_COUNT_MASTER_REGISTERED];
    counts->consoles = n[PMI_COUNT_MASTER_CONSOLE];
    counts->refused_auth = n[PMI_COUNT_MASTER_REFUSED_AUTH];
    counts->refused_json = n[PMI_COUNT_MASTER_REFUSED_JSON];
    counts->refused_frame = n[PMI_COUNT_MASTER_REFUSED_FRAME];
    counts->refused_level = n[PMI_COUNT_MASTER_REFUSED_LEVEL];
    counts->refused_links = n[PMI_COUNT_MASTER_REFUSED_LINK];
    counts->late_removals = n[PMI_COUNT_MASTER_LATE_REMOVAL];
    counts->spawned = n[PMI_COUNT_MASTER_SPAWNED];
    counts->respawned = n[PMI_COUNT_MASTER_RESPAWNED];
    return PM_OK;
}
