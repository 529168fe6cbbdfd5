/* SPDX-License-Identifier: MIT */
/* pomelo_presence.c -- is a uid still there? The frontend, which tells.
 *
 *   row (a uid) --+-- entry -- watcher (a server)
 *                 +-- entry -- another one
 *
 * There is an entry for each server that watches a uid, only as long as the uid
 * has a session: so there are never more than sessions times servers. When the
 * last session ends its entries wait with their watchers for the end of the
 * turn, and go with the message. A message that fails is not kept: the watcher
 * is told to ask for all of its uids again. Start at presence_serve_watch and
 * presence_uid_gone. The other side is pomelo_presence_far.c. */
#include "pomelo_presence_internal.h"
#include "pomelo_frame_internal.h"

#define PRESENCE_RETRY_US (1000u * 1000)

typedef struct presence_row {
    pmi_link entries;
    char uid[];
} presence_row;

typedef struct presence_watcher {
    pmi_presence *presence;
    pmi_link entries; /* their uids have sessions */
    pmi_link gone;    /* had, before this turn */
    uint32_t calls;   /* without an answer yet */
    bool again;       /* it must ask for all of them again */
    char server_id[];
} presence_watcher;

typedef struct presence_entry {
    pmi_link in_row, in_watcher;
    presence_row *row;
    presence_watcher *watcher;
    uint64_t number;
} presence_entry;

/* ---- Bytes ------------------------------------------------------------- */

void pmi_presence_put(pmi_buf *out, const char *uid)
{
    size_t len = strlen(uid);
    PMI_ASSERT(len > 0 && len <= PMI_UID_MAX);
    pmi_buf_add_byte(out, (uint8_t)len);
    pmi_buf_add(out, uid, len);
}

void pmi_presence_put_number(pmi_buf *out, uint64_t number)
{
    uint8_t bytes[8];
    pmi_put_be32(bytes, (uint32_t)(number >> 32));
    pmi_put_be32(bytes + 4, (uint32_t)number);
    pmi_buf_add(out, bytes, sizeof bytes);
}

uint64_t pmi_presence_take_number(pmi_cursor *in)
{
    pm_slice bytes = pmi_cursor_bytes(in, 8);
    if (in->bad)
        return 0;
    return (uint64_t)pmi_get_be32(bytes.data) << 32 |
           pmi_get_be32((const uint8_t *)bytes.data + 4);
}

bool pmi_presence_next(pmi_cursor *in, char uid[PMI_UID_MAX + 1])
{
    pm_slice text;
    if (in->bad || !pmi_cursor_left(in))
        return false;
    text = pmi_cursor_bytes(in, pmi_cursor_byte(in));
    if (!text.len || memchr(text.data, 0, text.len)) {
        in->bad = true;
        return false;
    }
    memcpy(uid, text.data, text.len);
    uid[text.len] = 0;
    return true;
}

/* Nothing is done for a list that is cut or holds what is no uid. */
static bool presence_is_list(pm_slice list)
{
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    char uid[PMI_UID_MAX + 1];
    while (pmi_presence_next(&in, uid))
        continue;
    return !in.bad;
}

/* ---- Calls ------------------------------------------------------------- */

pm_err pmi_presence_send(pmi_presence *presence, const char *server_id,
                         const pmi_buf *extra, pmi_rpc_answer_cb cb, void *ctx)
{
    pmi_rpc_send_opts send = {.op = PMI_OP_PRESENCE,
                              .server_id = server_id,
                              .extra = pmi_buf_slice(extra)};
    if (extra->failed)
        return PM_ENOMEM;
    return pmi_rpc_send(pmi_app_rpc(presence->app), &send, cb, ctx, NULL);
}

/* The other side's own refusals travel as codes of the remote side. */
pm_err pmi_presence_answer_err(const pmi_rpc_answer *answer)
{
    if (answer->result.err == PM_EREMOTE && answer->result.code < 0)
        return (pm_err)answer->result.code;
    return answer->result.err;
}

static void presence_tell_all(pmi_presence *presence);

static void presence_run(pmi_task *task)
{
    pmi_presence *presence = PMI_OUTER(task, pmi_presence, task);
    pmi_presence_ask_all(presence);
    if (!presence->closed)
        presence_tell_all(presence);
}

void pmi_presence_schedule(pmi_presence *presence)
{
    if (!presence->closed)
        pmi_loop_defer(pm_app_loop(presence->app), &presence->task,
                       presence_run);
}

static void presence_retry_now(pmi_timer *timer)
{
    pmi_presence_resume(PMI_OUTER(timer, pmi_presence, retry));
}

void pmi_presence_retry(pmi_presence *presence)
{
    if (presence->closed || pmi_timer_is_set(&presence->retry))
        return;
    pmi_timer_set(pm_app_loop(presence->app), &presence->retry,
                  PRESENCE_RETRY_US, presence_retry_now);
}

/* ---- Entries ----------------------------------------------------------- */

static void presence_entry_free(presence_entry *entry)
{
    pmi_presence *presence = entry->watcher->presence;
    presence_row *row = entry->row;
    pmi_list_remove(&entry->in_row);
    pmi_list_remove(&entry->in_watcher);
    pmi_free(presence->env, entry);
    if (!pmi_list_empty(&row->entries))
        return;
    pmi_map_remove(&presence->rows, pm_text(row->uid));
    pmi_free(presence->env, row);
}

static void presence_clear(pmi_link *entries)
{
    while (!pmi_list_empty(entries))
        presence_entry_free(
            PMI_OUTER(entries->next, presence_entry, in_watcher));
}

/* Without entries, so that whoever asked has to add one. NULL: no memory. */
static presence_row *presence_row_new(pmi_presence *presence, const char *uid)
{
    size_t len = strlen(uid) + 1;
    presence_row *row = pmi_zalloc(presence->env, sizeof *row + len);
    if (!row)
        return NULL;
    pmi_list_init(&row->entries);
    memcpy(row->uid, uid, len);
    if (pmi_map_put(&presence->rows, pm_text(uid), row, NULL)) {
        pmi_free(presence->env, row);
        return NULL;
    }
    return row;
}

static presence_entry *presence_entry_of(const presence_row *row,
                                         const presence_watcher *watcher)
{
    if (!row)
        return NULL;
    for (pmi_link *n = row->entries.next; n != &row->entries; n = n->next) {
        presence_entry *entry = PMI_OUTER(n, presence_entry, in_row);
        if (entry->watcher == watcher)
            return entry;
    }
    return NULL;
}

static pm_err presence_watch(presence_watcher *watcher, const char *uid,
                             uint64_t number)
{
    pmi_presence *presence = watcher->presence;
    presence_row *row = pmi_map_get(&presence->rows, pm_text(uid));
    presence_entry *entry = presence_entry_of(row, watcher);
    if (entry) {
        entry->number = number;
        return PM_OK;
    }
    entry = pmi_zalloc(presence->env, sizeof *entry);
    if (entry && !row)
        row = presence_row_new(presence, uid);
    if (!entry || !row) {
        pmi_free(presence->env, entry);
        return PM_ENOMEM;
    }
    entry->row = row;
    entry->watcher = watcher;
    entry->number = number;
    pmi_list_add(&row->entries, &entry->in_row);
    pmi_list_add(&watcher->entries, &entry->in_watcher);
    return PM_OK;
}

/* ---- Watchers ---------------------------------------------------------- */

static presence_watcher *presence_watcher_of(pmi_presence *presence,
                                             const char *server_id)
{
    size_t len = strlen(server_id) + 1;
    presence_watcher *watcher =
        pmi_map_get(&presence->watchers, pm_text(server_id));
    if (watcher)
        return watcher;
    watcher = pmi_zalloc(presence->env, sizeof *watcher + len);
    if (!watcher)
        return NULL;
    watcher->presence = presence;
    pmi_list_init(&watcher->entries);
    pmi_list_init(&watcher->gone);
    memcpy(watcher->server_id, server_id, len);
    if (pmi_map_put(&presence->watchers, pm_text(server_id), watcher, NULL)) {
        pmi_free(presence->env, watcher);
        return NULL;
    }
    return watcher;
}

static void presence_watcher_free(presence_watcher *watcher)
{
    pmi_presence *presence = watcher->presence;
    presence_clear(&watcher->entries);
    presence_clear(&watcher->gone);
    pmi_map_remove(&presence->watchers, pm_text(watcher->server_id));
    pmi_free(presence->env, watcher);
}

/* ---- Telling ----------------------------------------------------------- */

static void presence_told(const pmi_rpc_answer *answer, void *ctx)
{
    presence_watcher *watcher = ctx;
    watcher->calls--;
    if (pmi_presence_answer_err(answer) == PM_OK)
        return;
    watcher->again = true;
    pmi_presence_retry(watcher->presence);
}

static void presence_tell(presence_watcher *watcher, const pmi_buf *message)
{
    pmi_presence *presence = watcher->presence;
    pm_err err = pmi_presence_send(presence, watcher->server_id, message,
                                   presence_told, watcher);
    if (err == PM_OK) {
        watcher->calls++;
        return;
    }
    watcher->again = true;
    pmi_presence_retry(presence);
}

/* Who came back in the same turn has never been gone. The entry goes with the
 * message. */
static void presence_put_gone(pmi_buf *message, presence_entry *entry)
{
    presence_watcher *watcher = entry->watcher;
    pmi_sessions *sessions = pmi_app_sessions(watcher->presence->app);
    if (pmi_session_first_of(sessions, pm_text(entry->row->uid))) {
        pmi_list_remove(&entry->in_watcher);
        pmi_list_add(&watcher->entries, &entry->in_watcher);
        return;
    }
    pmi_presence_put_number(message, entry->number);
    pmi_presence_put(message, entry->row->uid);
    presence_entry_free(entry);
}

static void presence_tell_gone(presence_watcher *watcher)
{
    pmi_presence *presence = watcher->presence;
    while (!pmi_list_empty(&watcher->gone)) {
        pmi_buf message;
        pmi_buf_init(&message, presence->env,
                     PMI_PRESENCE_LIST_MAX + 2 * PMI_UID_MAX);
        pmi_buf_add_byte(&message, PMI_PRESENCE_GONE);
        while (!pmi_list_empty(&watcher->gone) &&
               message.len < PMI_PRESENCE_LIST_MAX)
            presence_put_gone(&message, PMI_OUTER(watcher->gone.next,
                                                  presence_entry, in_watcher));
        if (message.len != 1 || message.failed) {
            presence->told++;
            presence_tell(watcher, &message);
        }
        pmi_buf_fini(&message);
    }
}

static void presence_tell_again(presence_watcher *watcher)
{
    pmi_buf message;
    if (!watcher->again)
        return;
    watcher->again = false;
    pmi_buf_init(&message, watcher->presence->env, 1);
    pmi_buf_add_byte(&message, PMI_PRESENCE_AGAIN);
    presence_tell(watcher, &message);
    pmi_buf_fini(&message);
}

static void presence_tell_one(presence_watcher *watcher)
{
    pmi_cluster *cluster = pmi_app_cluster(watcher->presence->app);
    pmi_server *server = pmi_cluster_find(cluster, watcher->server_id);
    if (!server) {
        presence_clear(&watcher->entries);
        presence_clear(&watcher->gone);
        if (!watcher->calls)
            presence_watcher_free(watcher);
        return;
    }
    if (!server->up) { /* the next link begins with `again` */
        watcher->again |= !pmi_list_empty(&watcher->gone);
        presence_clear(&watcher->gone);
        return;
    }
    presence_tell_again(watcher);
    presence_tell_gone(watcher);
}

static void presence_tell_all(pmi_presence *presence)
{
    pmi_map_walk walk = pmi_map_begin(&presence->watchers);
    while (pmi_map_next(&walk))
        presence_tell_one(walk.value);
}

static void presence_uid_gone(void *ctx, pm_slice uid)
{
    pmi_presence *presence = ctx;
    presence_row *row = pmi_map_get(&presence->rows, uid);
    if (!row || presence->closed)
        return;
    for (pmi_link *n = row->entries.next; n != &row->entries; n = n->next) {
        presence_entry *entry = PMI_OUTER(n, presence_entry, in_row);
        pmi_list_remove(&entry->in_watcher);
        pmi_list_add(&entry->watcher->gone, &entry->in_watcher);
    }
    pmi_presence_schedule(presence);
}

/* ---- Serving ----------------------------------------------------------- */

/* What fails in the middle is asked anew as a whole. */
static pm_err presence_watch_list(presence_watcher *watcher, uint64_t number,
                                  pm_slice list, pmi_buf *missing)
{
    pmi_sessions *sessions = pmi_app_sessions(watcher->presence->app);
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    char uid[PMI_UID_MAX + 1];
    while (pmi_presence_next(&in, uid)) {
        pm_err err = PM_OK;
        if (pmi_session_first_of(sessions, pm_text(uid)))
            err = presence_watch(watcher, uid, number);
        else
            pmi_presence_put(missing, uid);
        if (err)
            return err;
    }
    return missing->failed ? PM_ENOMEM : PM_OK;
}

/* A server that is not in our table could not be told anything: it asks again
 * until it is. */
static pm_err presence_serve_watch(pmi_presence *presence, const char *caller,
                                   pmi_cursor *in, pmi_buf *missing)
{
    uint8_t from_nothing = pmi_cursor_byte(in);
    uint64_t number = pmi_presence_take_number(in);
    pm_slice list = pmi_cursor_bytes(in, pmi_cursor_left(in));
    presence_watcher *watcher;
    if (in->bad || !presence_is_list(list))
        return PM_EFRAME;
    if (!pmi_cluster_find(pmi_app_cluster(presence->app), caller))
        return PM_ENOSERVER;
    watcher = presence_watcher_of(presence, caller);
    if (!watcher)
        return PM_ENOMEM;
    if (from_nothing) {
        presence_clear(&watcher->entries);
        presence_clear(&watcher->gone);
    }
    return presence_watch_list(watcher, number, list, missing);
}

static pm_err presence_serve_unwatch(pmi_presence *presence, const char *caller,
                                     pm_slice list)
{
    presence_watcher *watcher =
        pmi_map_get(&presence->watchers, pm_text(caller));
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    char uid[PMI_UID_MAX + 1];
    if (!presence_is_list(list))
        return PM_EFRAME;
    while (watcher && pmi_presence_next(&in, uid)) {
        presence_entry *entry = presence_entry_of(
            pmi_map_get(&presence->rows, pm_text(uid)), watcher);
        if (entry)
            presence_entry_free(entry);
    }
    return PM_OK;
}

static pm_err presence_serve_what(pmi_presence *presence, const char *caller,
                                  pm_slice extra, pmi_buf *out)
{
    pmi_cursor in = pmi_cursor_of(extra.data, extra.len);
    uint8_t what = pmi_cursor_byte(&in);
    if (in.bad)
        return PM_EFRAME;
    if (what == PMI_PRESENCE_WATCH)
        return presence_serve_watch(presence, caller, &in, out);
    extra = pmi_cursor_bytes(&in, pmi_cursor_left(&in));
    if (what == PMI_PRESENCE_UNWATCH)
        return presence_serve_unwatch(presence, caller, extra);
    if (what == PMI_PRESENCE_GONE)
        return pmi_presence_serve_gone(presence, caller, extra);
    if (what != PMI_PRESENCE_AGAIN)
        return PM_EFRAME;
    pmi_presence_restart(presence, caller);
    return PM_OK;
}

void pmi_presence_serve(pmi_presence *presence, pm_call *call)
{
    pmi_buf out;
    pm_err err;
    pmi_buf_init(&out, presence->env, PMI_FRAME_MAX);
    err = presence_serve_what(presence, pm_call_caller(call),
                              pmi_call_extra(call), &out);
    /* The call itself has worked: what came of it is a code of its own. */
    pmi_call_answer(call, err ? PM_EREMOTE : PM_OK, err,
                    err ? pm_strerror(err) : NULL, pm_body_none(),
                    err ? pm_bytes(NULL, 0) : pmi_buf_slice(&out));
    pmi_buf_fini(&out);
}

/* ---- Life -------------------------------------------------------------- */

static void presence_server_up(pm_app *app, const pm_server *server, void *ctx)
{
    (void)app;
    pmi_presence_restart(ctx, server->id);
    pmi_presence_schedule(ctx); /* an AGAIN may be due */
}

static void presence_server_removed(pm_app *app, const char *server_id,
                                    void *ctx)
{
    (void)app;
    pmi_presence_removed(ctx, server_id);
    pmi_presence_schedule(ctx); /* it may have been a watcher */
}

pm_err pmi_presence_init(pmi_presence *presence, pm_app *app)
{
    pm_app_events events = pm_app_events_default();
    pm_loop *loop = pm_app_loop(app);
    memset(presence, 0, sizeof *presence);
    presence->app = app;
    presence->env = pmi_loop_env(loop);
    /* So that a number of an earlier life of this server fits nothing. */
    presence->last_number = pmi_loop_random_u64(loop);
    pmi_loop_map_init(loop, &presence->fars);
    pmi_loop_map_init(loop, &presence->rows);
    pmi_loop_map_init(loop, &presence->watchers);
    pmi_sessions_on_gone(pmi_app_sessions(app), presence_uid_gone, presence);
    events.server_up = presence_server_up;
    events.server_removed = presence_server_removed;
    return pm_app_listen(app, &events, presence);
}

void pmi_presence_close(pmi_presence *presence)
{
    presence->closed = true;
    pmi_task_cancel(&presence->task);
    pmi_timer_clear(&presence->retry);
}

void pmi_presence_fini(pmi_presence *presence)
{
    pmi_map_walk walk = pmi_map_begin(&presence->watchers);
    pmi_presence_close(presence);
    while (pmi_map_next(&walk))
        presence_watcher_free(walk.value);
    pmi_presence_free_fars(presence);
    pmi_map_fini(&presence->fars);
    pmi_map_fini(&presence->rows);
    pmi_map_fini(&presence->watchers);
}
