/* SPDX-License-Identifier: MIT */
/* pomelo_presence_far.c -- is a uid still there? The server that asks.
 *
 *   far (a frontend) --+-- watched (a uid) -- stake, stake, ...
 *                      |     in one of: dirty    to be asked about
 *                      |                a batch  asked, no answer yet
 *                      |                steady   there, and watched
 *                      +-- batches: one WATCH call each
 *
 * Who has lost its last stake stays, without stakes, among the dirty ones until
 * the frontend is told: so giving up an interest never needs memory. A far goes
 * with its last watched uid. The answering side, and the shape of the bytes,
 * are in pomelo_presence.c. Start at pmi_presence_stake and far_ask. */
#include "pomelo_presence_internal.h"

/* A second each. */
#define FAR_STRIKES_MAX 3

typedef struct presence_far {
    pmi_presence *presence;
    pmi_map watched; /* uid -> pmi_watched */
    pmi_link dirty, steady, batches;
    uint32_t holds;    /* who stands on it */
    uint32_t strikes;  /* how often it was not in the table */
    bool from_nothing; /* the next WATCH makes all older ones void */
    bool paused;       /* something failed: until the retry, or a new link */
    bool removed;      /* from the table */
    char frontend_id[];
} presence_far;

struct pmi_watched {
    pmi_link in_far; /* dirty, steady, or a batch's */
    pmi_link stakes;
    presence_far *far;
    uint64_t number; /* of the WATCH; 0: to be asked about */
    bool known;      /* to the frontend, as far as we know */
    char uid[];
};
typedef struct pmi_watched presence_watched;

typedef struct presence_batch {
    pmi_link in_far;
    pmi_link watched;
    presence_far *far;
    uint64_t number;
} presence_batch;

static uint64_t presence_number(pmi_presence *presence)
{
    if (!++presence->last_number) /* 0 is nobody's */
        presence->last_number++;
    return presence->last_number;
}

static presence_far *far_find(const pmi_presence *presence,
                              const char *frontend_id)
{
    return pmi_map_get(&presence->fars, pm_text(frontend_id));
}

static presence_watched *far_watched(const presence_far *far, const char *uid)
{
    return pmi_map_get(&far->watched, pm_text(uid));
}

/* ---- Made and freed ---------------------------------------------------- */

static presence_far *far_new(pmi_presence *presence, const char *frontend_id)
{
    size_t len = strlen(frontend_id) + 1;
    presence_far *far = pmi_zalloc(presence->env, sizeof *far + len);
    if (!far)
        return NULL;
    far->presence = presence;
    far->from_nothing = true;
    pmi_map_init(&far->watched, presence->env, presence->fars.k0,
                 presence->fars.k1);
    pmi_list_init(&far->dirty);
    pmi_list_init(&far->steady);
    pmi_list_init(&far->batches);
    memcpy(far->frontend_id, frontend_id, len);
    if (pmi_map_put(&presence->fars, pm_text(frontend_id), far, NULL)) {
        pmi_free(presence->env, far);
        return NULL;
    }
    return far;
}

static void far_tidy(presence_far *far)
{
    pmi_presence *presence = far->presence;
    if (far->holds || pmi_map_count(&far->watched) ||
        !pmi_list_empty(&far->batches))
        return;
    pmi_map_remove(&presence->fars, pm_text(far->frontend_id));
    pmi_map_fini(&far->watched);
    pmi_free(presence->env, far);
}

static void far_release(presence_far *far)
{
    far->holds--;
    far_tidy(far);
}

static presence_watched *watched_new(presence_far *far, const char *uid)
{
    const pmi_env *env = far->presence->env;
    size_t len = strlen(uid) + 1;
    presence_watched *watched = pmi_zalloc(env, sizeof *watched + len);
    if (!watched)
        return NULL;
    watched->far = far;
    pmi_list_init(&watched->stakes);
    memcpy(watched->uid, uid, len);
    if (pmi_map_put(&far->watched, pm_text(uid), watched, NULL)) {
        pmi_free(env, watched);
        return NULL;
    }
    pmi_list_add(&far->dirty, &watched->in_far);
    return watched;
}

/* The far stays: its holder tidies. */
static void watched_free(presence_watched *watched)
{
    pmi_list_remove(&watched->in_far);
    pmi_map_remove(&watched->far->watched, pm_text(watched->uid));
    pmi_free(watched->far->presence->env, watched);
}

static void watched_dirty(presence_watched *watched)
{
    watched->number = 0;
    pmi_list_remove(&watched->in_far);
    pmi_list_add(&watched->far->dirty, &watched->in_far);
}

void pmi_presence_free_fars(pmi_presence *presence)
{
    pmi_map_walk walk = pmi_map_begin(&presence->fars);
    while (pmi_map_next(&walk)) {
        presence_far *far = walk.value;
        pmi_map_walk all = pmi_map_begin(&far->watched);
        while (pmi_map_next(&all))
            watched_free(all.value);
        far_tidy(far);
    }
}

/* ---- Stakes ------------------------------------------------------------ */

pm_err pmi_presence_stake(pmi_presence *presence, pmi_stake *stake,
                          const char *frontend_id, const char *uid)
{
    presence_far *far = far_find(presence, frontend_id);
    presence_watched *watched;
    if (!far)
        far = far_new(presence, frontend_id);
    if (!far)
        return PM_ENOMEM;
    watched = far_watched(far, uid);
    if (!watched)
        watched = watched_new(far, uid);
    if (!watched) {
        far_tidy(far);
        return PM_ENOMEM;
    }
    stake->watched = watched;
    pmi_list_add(&watched->stakes, &stake->in_watched);
    pmi_presence_ask_anew(presence, stake);
    return PM_OK;
}

void pmi_presence_ask_anew(pmi_presence *presence, pmi_stake *stake)
{
    if (!stake->watched)
        return;
    watched_dirty(stake->watched);
    pmi_presence_schedule(presence);
}

void pmi_presence_drop(pmi_presence *presence, pmi_stake *stake)
{
    presence_watched *watched = stake->watched;
    presence_far *far;
    if (!watched)
        return;
    far = watched->far;
    stake->watched = NULL;
    pmi_list_remove(&stake->in_watched);
    if (!pmi_list_empty(&watched->stakes))
        return;
    if (watched->known) {
        watched_dirty(watched);
        pmi_presence_schedule(presence);
    } else {
        watched_free(watched);
        far_tidy(far);
    }
}

/* The frontend has no session of it: whoever has a stake is told, one after
 * the other, and may do what he likes. Who comes while that goes on is asked
 * about anew, and the rest with him. The caller holds the far. */
static void far_gone(presence_far *far, const char *uid, uint64_t number)
{
    pmi_presence *presence = far->presence;
    presence_watched *watched;
    while (!presence->closed && (watched = far_watched(far, uid)) &&
           watched->number == number) {
        pmi_stake *stake =
            PMI_OUTER(watched->stakes.next, pmi_stake, in_watched);
        watched->known = false;
        if (pmi_list_empty(&watched->stakes)) {
            watched_free(watched);
            return;
        }
        pmi_list_remove(&stake->in_watched);
        stake->watched = NULL;
        stake->gone(stake);
    }
}

/* ---- Asking ------------------------------------------------------------ */

/* Everything is asked about again, from nothing. */
static void far_restart(presence_far *far)
{
    pmi_map_walk walk = pmi_map_begin(&far->watched);
    while (pmi_map_next(&walk)) {
        presence_watched *watched = walk.value;
        watched->known = false;
        if (pmi_list_empty(&watched->stakes))
            watched_free(watched);
        else
            watched_dirty(watched);
    }
    far->from_nothing = true;
}

static void far_failed(presence_far *far)
{
    far_restart(far);
    far->paused = true;
    pmi_presence_retry(far->presence);
}

static void batch_free(presence_batch *batch)
{
    pmi_list_remove(&batch->in_far);
    pmi_free(batch->far->presence->env, batch);
}

static void batch_took(presence_batch *batch, pm_slice missing)
{
    presence_far *far = batch->far;
    pmi_cursor in = pmi_cursor_of(missing.data, missing.len);
    char uid[PMI_UID_MAX + 1];
    pmi_list_move(&far->steady, &batch->watched);
    while (pmi_presence_next(&in, uid))
        far_gone(far, uid, batch->number);
}

static void batch_answered(const pmi_rpc_answer *answer, void *ctx)
{
    presence_batch *batch = ctx;
    presence_far *far = batch->far;
    pm_err err = pmi_presence_answer_err(answer);
    far->holds++;
    if (err == PM_OK)
        batch_took(batch, answer->extra);
    else if (!pmi_list_empty(&batch->watched)) /* else asked again already */
        far_failed(far);
    batch_free(batch);
    far_release(far);
}

/* As many dirty ones as one call carries. */
static void batch_fill(presence_batch *batch, pmi_buf *message)
{
    presence_far *far = batch->far;
    pmi_buf_add_byte(message, PMI_PRESENCE_WATCH);
    pmi_buf_add_byte(message, far->from_nothing);
    pmi_presence_put_number(message, batch->number);
    while (!pmi_list_empty(&far->dirty) &&
           message->len < PMI_PRESENCE_LIST_MAX) {
        presence_watched *watched =
            PMI_OUTER(far->dirty.next, presence_watched, in_far);
        pmi_presence_put(message, watched->uid);
        watched->number = batch->number;
        watched->known = true;
        pmi_list_remove(&watched->in_far);
        pmi_list_add(&batch->watched, &watched->in_far);
    }
}

static pm_err far_ask_batch(presence_far *far)
{
    pmi_presence *presence = far->presence;
    presence_batch *batch = pmi_zalloc(presence->env, sizeof *batch);
    pmi_buf message;
    pm_err err;
    if (!batch)
        return PM_ENOMEM;
    batch->far = far;
    batch->number = presence_number(presence);
    pmi_list_init(&batch->watched);
    pmi_buf_init(&message, presence->env,
                 PMI_PRESENCE_LIST_MAX + 2 * PMI_UID_MAX);
    batch_fill(batch, &message);
    pmi_list_add(&far->batches, &batch->in_far);
    err = pmi_presence_send(presence, far->frontend_id, &message,
                            batch_answered, batch);
    pmi_buf_fini(&message);
    if (err) {
        pmi_list_move(&far->steady, &batch->watched);
        batch_free(batch);
        return err;
    }
    presence->asked++;
    far->from_nothing = false;
    return PM_OK;
}

/* The ones without stakes, in as many messages as it takes. A message that can
 * not go leaves the frontend with more than it should have: so all is asked
 * anew. */
static pm_err far_forget(presence_far *far, pmi_link *idle)
{
    while (!pmi_list_empty(idle)) {
        pm_err err = PM_OK;
        pmi_buf message;
        pmi_buf_init(&message, far->presence->env,
                     PMI_PRESENCE_LIST_MAX + 2 * PMI_UID_MAX);
        pmi_buf_add_byte(&message, PMI_PRESENCE_UNWATCH);
        while (!pmi_list_empty(idle) && message.len < PMI_PRESENCE_LIST_MAX) {
            presence_watched *watched =
                PMI_OUTER(idle->next, presence_watched, in_far);
            pmi_presence_put(&message, watched->uid);
            watched_free(watched);
        }
        /* The first WATCH of a row will say that nothing else is true. */
        if (!far->from_nothing)
            err = pmi_presence_send(far->presence, far->frontend_id, &message,
                                    NULL, NULL);
        pmi_buf_fini(&message);
        if (err)
            return err;
    }
    return PM_OK;
}

static void far_sort(presence_far *far, pmi_link *idle)
{
    pmi_link wanted, *node;
    pmi_list_init(&wanted);
    while ((node = pmi_list_take(&far->dirty))) {
        presence_watched *watched = PMI_OUTER(node, presence_watched, in_far);
        bool is_idle = pmi_list_empty(&watched->stakes);
        pmi_list_add(is_idle ? idle : &wanted, &watched->in_far);
    }
    pmi_list_move(&far->dirty, &wanted);
}

static void far_ask(presence_far *far)
{
    pmi_link idle;
    pm_err err;
    pmi_list_init(&idle);
    far_sort(far, &idle);
    err = far_forget(far, &idle);
    while (!pmi_list_empty(&idle)) /* when telling has failed */
        watched_free(PMI_OUTER(idle.next, presence_watched, in_far));
    while (!err && !pmi_list_empty(&far->dirty))
        err = far_ask_batch(far);
    if (err)
        far_failed(far);
}

/* It is no server of the table: nobody has a session there. Who is added while
 * that is told is for the next time. */
static void far_lost(presence_far *far)
{
    uint64_t number = presence_number(far->presence);
    pmi_map_walk walk = pmi_map_begin(&far->watched);
    char uid[PMI_UID_MAX + 1];
    while (pmi_map_next(&walk))
        ((presence_watched *)walk.value)->number = number;
    walk = pmi_map_begin(&far->watched);
    while (pmi_map_next(&walk)) {
        const presence_watched *watched = walk.value;
        pmi_format(uid, sizeof uid, "%s", watched->uid);
        far_gone(far, uid, number);
    }
}

/* A table may learn of a server later than its first request comes. */
static void far_unknown(presence_far *far)
{
    if (far->removed || ++far->strikes > FAR_STRIKES_MAX) {
        far_lost(far);
        return;
    }
    far->paused = true;
    pmi_presence_retry(far->presence);
}

static void far_look(presence_far *far)
{
    pmi_cluster *cluster = pmi_app_cluster(far->presence->app);
    pmi_server *server = pmi_cluster_find(cluster, far->frontend_id);
    if (far->paused)
        return;
    if (!server) {
        far_unknown(far);
        return;
    }
    far->strikes = 0;
    far->removed = false;
    if (server->up && !pmi_list_empty(&far->dirty))
        far_ask(far);
}

void pmi_presence_ask_all(pmi_presence *presence)
{
    pmi_map_walk walk = pmi_map_begin(&presence->fars);
    while (pmi_map_next(&walk)) {
        presence_far *far = walk.value;
        far->holds++;
        if (!presence->closed)
            far_look(far);
        far_release(far);
    }
}

void pmi_presence_resume(pmi_presence *presence)
{
    pmi_map_walk walk = pmi_map_begin(&presence->fars);
    while (pmi_map_next(&walk))
        ((presence_far *)walk.value)->paused = false;
    pmi_presence_schedule(presence);
}

/* ---- Being told -------------------------------------------------------- */

static bool far_is_gone_list(pm_slice list)
{
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    char uid[PMI_UID_MAX + 1];
    while (pmi_cursor_left(&in)) {
        pmi_presence_take_number(&in);
        if (in.bad || !pmi_presence_next(&in, uid))
            return false;
    }
    return true;
}

pm_err pmi_presence_serve_gone(pmi_presence *presence, const char *frontend_id,
                               pm_slice list)
{
    presence_far *far = far_find(presence, frontend_id);
    pmi_cursor in = pmi_cursor_of(list.data, list.len);
    char uid[PMI_UID_MAX + 1];
    if (!far_is_gone_list(list))
        return PM_EFRAME;
    if (!far)
        return PM_OK; /* nobody asks any more */
    far->holds++;
    while (pmi_cursor_left(&in)) {
        uint64_t number = pmi_presence_take_number(&in);
        if (pmi_presence_next(&in, uid) && number)
            far_gone(far, uid, number);
    }
    far_release(far);
    return PM_OK;
}

void pmi_presence_restart(pmi_presence *presence, const char *frontend_id)
{
    presence_far *far = far_find(presence, frontend_id);
    if (!far)
        return;
    far_restart(far);
    far->paused = false;
    far_tidy(far);
    pmi_presence_schedule(presence);
}

void pmi_presence_removed(pmi_presence *presence, const char *frontend_id)
{
    presence_far *far = far_find(presence, frontend_id);
    if (!far)
        return;
    far->removed = true;
    far->paused = false;
    pmi_presence_schedule(presence);
}
