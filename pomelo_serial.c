/* SPDX-License-Identifier: MIT */
/* pomelo_serial.c -- the `serial` filter: one message at a time per session.
 *
 * Each session with work has a lane: the request that runs, and those that
 * wait. The lane is named by frontend and session id (Pomelo names it by the id
 * alone, so that players of two frontends share one) and goes with its last
 * request (there it stays for ever). The next request starts on a turn of its
 * own, so that a long queue is no deep stack. A first request that takes too
 * long is cancelled: its client hears 500, the next one starts, and what the
 * late handler answers goes nowhere (in Pomelo both run at the same time).
 * Start at serial_before. */
#include "pomelo_filter_internal.h"

#define SERIAL_KEY_MAX (8 + 256) /* session id, frontend id */

typedef struct serial_filter {
    pm_app *app;
    pmi_map lanes;
    pmi_link waits; /* every pmi_serial_wait, by in_all */
    uint64_t timeout_us;
} serial_filter;

typedef struct serial_lane {
    serial_filter *owner;
    pmi_link waiting;                /* pmi_serial_wait */
    struct pmi_serial_wait *running; /* NULL: the next one is on its way */
    pmi_timer timer;
    pmi_task next;
    uint16_t key_len;
    char key[SERIAL_KEY_MAX];
} serial_lane;

/* A request in a lane, running or waiting. */
typedef struct pmi_serial_wait {
    pmi_link link, in_all;
    struct pmi_serial_wait *below; /* the same request's, of another filter */
    serial_filter *owner;
    pm_request *req;
    serial_lane *lane; /* NULL: the lane has gone on without it */
} pmi_serial_wait;

static pm_slice serial_key(const pm_session *session, char out[SERIAL_KEY_MAX])
{
    const char *frontend = pm_session_frontend_id(session);
    uint64_t id = pm_session_id(session);
    size_t len = pmi_min(strlen(frontend), 255);
    memcpy(out, &id, 8);
    memcpy(out + 8, frontend, len);
    return pm_bytes(out, 8 + len);
}

/* ---- Lanes ------------------------------------------------------------- */

static void serial_lane_free(serial_lane *lane)
{
    pmi_timer_clear(&lane->timer);
    pmi_task_cancel(&lane->next);
    pmi_map_remove(&lane->owner->lanes, pm_bytes(lane->key, lane->key_len));
    pmi_free(pmi_app_env(lane->owner->app), lane);
}

static void serial_start(pmi_task *task);

/* What ran does so no more: the lane's next request, or the lane's end. */
static void serial_next(serial_lane *lane)
{
    lane->running = NULL;
    pmi_timer_clear(&lane->timer);
    if (pmi_list_empty(&lane->waiting))
        serial_lane_free(lane);
    else
        pmi_loop_defer(pm_app_loop(lane->owner->app), &lane->next,
                       serial_start);
}

static void serial_late(pmi_timer *timer)
{
    serial_lane *lane = PMI_OUTER(timer, serial_lane, timer);
    pmi_serial_wait *late = lane->running;
    if (pmi_app_state_of(lane->owner->app) == PMI_APP_FREED)
        return;
    late->lane = NULL;
    pmi_count(lane->owner->app, PMI_COUNT_FILTER_SERIAL);
    serial_next(lane);
    pmi_request_cancel(late->req, PM_ETIMEOUT);
}

static void serial_run(serial_lane *lane, pmi_serial_wait *wait)
{
    lane->running = wait;
    pmi_timer_set(wait->req->loop, &lane->timer, lane->owner->timeout_us,
                  serial_late);
    pm_filter_next(wait->req);
}

static void serial_start(pmi_task *task)
{
    serial_lane *lane = PMI_OUTER(task, serial_lane, next);
    pmi_link *node;
    if (pmi_app_state_of(lane->owner->app) == PMI_APP_FREED)
        return;
    node = pmi_list_take(&lane->waiting);
    serial_run(lane, PMI_OUTER(node, pmi_serial_wait, link));
}

static serial_lane *serial_lane_of(serial_filter *self,
                                   const pm_session *session)
{
    const pmi_env *env = pmi_app_env(self->app);
    char key[SERIAL_KEY_MAX];
    pm_slice name = serial_key(session, key);
    serial_lane *lane = pmi_map_get(&self->lanes, name);
    if (lane)
        return lane;
    lane = pmi_zalloc(env, sizeof *lane);
    if (!lane)
        return NULL;
    lane->owner = self;
    pmi_list_init(&lane->waiting);
    memcpy(lane->key, name.data, name.len);
    lane->key_len = (uint16_t)name.len;
    if (pmi_map_put(&self->lanes, name, lane, NULL)) {
        pmi_free(env, lane);
        return NULL;
    }
    return lane;
}

/* ---- The filter -------------------------------------------------------- */

static void serial_before(pm_request *req, void *ctx)
{
    serial_filter *self = ctx;
    const pmi_env *env = pmi_app_env(self->app);
    pmi_serial_wait *wait = pmi_zalloc(env, sizeof *wait);
    serial_lane *lane = wait ? serial_lane_of(self, req->session) : NULL;
    if (!lane) {
        pmi_free(env, wait);
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
        return;
    }
    pmi_list_add(&self->waits, &wait->in_all);
    wait->owner = self;
    wait->req = req;
    wait->lane = lane;
    wait->below = req->waits;
    req->waits = wait;
    if (lane->running || !pmi_list_empty(&lane->waiting))
        pmi_list_add(&lane->waiting, &wait->link);
    else
        serial_run(lane, wait);
}

static pmi_serial_wait *serial_take(serial_filter *self, pm_request *req)
{
    pmi_serial_wait **at = &req->waits, *wait;
    while (*at && (*at)->owner != self)
        at = &(*at)->below;
    wait = *at;
    if (wait)
        *at = wait->below;
    return wait;
}

static void serial_after(pm_request *req, const pm_response *response,
                         void *ctx)
{
    serial_filter *self = ctx;
    pmi_serial_wait *wait = serial_take(self, req);
    (void)response;
    if (wait) {
        if (wait->lane)
            serial_next(wait->lane);
        pmi_list_remove(&wait->in_all);
        pmi_free(pmi_app_env(self->app), wait);
    }
    pm_filter_next(req);
}

/* The app is gone, and nobody of us stands on a lane any more. */
static void serial_release(void *ctx)
{
    serial_filter *self = ctx;
    const pmi_env *env = pmi_app_env(self->app);
    pmi_map_walk walk = pmi_map_begin(&self->lanes);
    pmi_link *node;
    while ((node = pmi_list_take(&self->waits))) {
        pmi_serial_wait *wait = PMI_OUTER(node, pmi_serial_wait, in_all);
        bool waits = pmi_link_in(&wait->link);
        pm_request *req = wait->req;
        pmi_list_remove(&wait->link);
        pmi_free(env, wait);
        if (waits) /* nobody else would end it */
            pmi_request_go_on(req);
    }
    while (pmi_map_next(&walk)) {
        serial_lane *lane = walk.value;
        pmi_timer_clear(&lane->timer);
        pmi_task_cancel(&lane->next);
        pmi_free(env, lane);
    }
    pmi_map_fini(&self->lanes);
    pmi_free(env, self);
}

pm_err pm_filter_serial(pm_app *app, uint32_t timeout_ms)
{
    pm_filter filter = {serial_before, serial_after, NULL};
    serial_filter *self = pmi_zalloc(pmi_app_env(app), sizeof *self);
    if (!self)
        return PM_ENOMEM;
    self->app = app;
    self->timeout_us = (uint64_t)(timeout_ms ? timeout_ms : 3000) * 1000;
    pmi_list_init(&self->waits);
    pmi_loop_map_init(pm_app_loop(app), &self->lanes);
    return pmi_filter_add(app, &filter, self, serial_release);
}
