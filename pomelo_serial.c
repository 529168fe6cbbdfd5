/* SPDX-License-Identifier: MIT */
/* pomelo_serial.c -- the `serial` filter: one message at a time per session.
 *
 * Each session with work has a lane: the request that runs, and those that
 * wait. The lane is named by frontend and session id (Pomelo names it by the id
 * alone, so that players of two frontends share one) and goes with its last
 * request (there it stays for ever). A first request that takes too long is
 * cancelled: its client hears 500, the next one starts, and what the late
 * handler answers goes nowhere (in Pomelo both run at the same time). */
#include "pomelo_filter_internal.h"

typedef struct serial {
    pm_app *app;
    pmi_map lanes;
    pmi_link waits; /* every serial_wait, by in_all */
    uint64_t timeout_us;
} serial;

typedef struct serial_lane {
    serial *owner;
    pmi_link waiting; /* serial_wait */
    pm_request *running;
    pmi_timer timer;
    uint16_t key_len;
    char key[8 + 256]; /* session id, frontend id */
} serial_lane;

typedef struct serial_wait {
    pmi_link link, in_all;
    pm_request *req;
    serial_lane *lane; /* NULL: the lane has gone on without it */
} serial_wait;

static pm_slice serial_key(const pm_session *session, char out[8 + 256])
{
    const char *frontend = pm_session_frontend_id(session);
    uint64_t id = pm_session_id(session);
    size_t len = pmi_min(strlen(frontend), 255);
    memcpy(out, &id, 8);
    memcpy(out + 8, frontend, len);
    return pm_bytes(out, 8 + len);
}

static void serial_next(serial_lane *lane);

static void serial_fire(pmi_timer *timer)
{
    serial_lane *lane = PMI_OUTER(timer, serial_lane, timer);
    pm_request *late = lane->running;
    serial_wait *wait;
    if (pmi_app_state_of(lane->owner->app) == PMI_APP_FREED)
        return;
    wait = late->filter_data;
    wait->lane = NULL;
    lane->running = NULL;
    pmi_request_cancel(late, PM_ETIMEOUT);
    serial_next(lane);
}

static void serial_run(serial_lane *lane, pm_request *req)
{
    lane->running = req;
    pmi_timer_set(req->loop, &lane->timer, lane->owner->timeout_us,
                  serial_fire);
    pm_filter_next(req);
}

/* The lane's next request, or the lane's end. */
static void serial_next(serial_lane *lane)
{
    pmi_link *node = pmi_list_take(&lane->waiting);
    pmi_timer_clear(&lane->timer);
    if (node) {
        serial_run(lane, PMI_OUTER(node, serial_wait, link)->req);
        return;
    }
    pmi_map_remove(&lane->owner->lanes, pm_bytes(lane->key, lane->key_len));
    pmi_free(pmi_app_env(lane->owner->app), lane);
}

static serial_lane *serial_lane_of(serial *self, const pm_session *session)
{
    const pmi_env *env = pmi_app_env(self->app);
    char key[8 + 256];
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

static void serial_before(pm_request *req, void *ctx)
{
    serial *self = ctx;
    const pmi_env *env = pmi_app_env(self->app);
    serial_wait *wait = pmi_zalloc(env, sizeof *wait);
    serial_lane *lane = wait ? serial_lane_of(self, req->session) : NULL;
    if (!lane) {
        pmi_free(env, wait);
        pm_request_fail(req, PM_ENOMEM, NULL, NULL);
        return;
    }
    pmi_list_add(&self->waits, &wait->in_all);
    wait->req = req;
    wait->lane = lane;
    req->filter_data = wait;
    if (lane->running)
        pmi_list_add(&lane->waiting, &wait->link);
    else
        serial_run(lane, req);
}

static void serial_after(pm_request *req, const pm_response *response,
                         void *ctx)
{
    serial *self = ctx;
    serial_wait *wait = req->filter_data;
    serial_lane *lane = wait ? wait->lane : NULL;
    (void)response;
    req->filter_data = NULL;
    if (wait)
        pmi_list_remove(&wait->in_all);
    pmi_free(pmi_app_env(self->app), wait);
    pm_filter_next(req);
    if (lane) {
        lane->running = NULL;
        serial_next(lane);
    }
}

static void serial_free(void *ctx)
{
    serial *self = ctx;
    const pmi_env *env = pmi_app_env(self->app);
    pmi_map_walk walk = pmi_map_begin(&self->lanes);
    pmi_link *node;
    while ((node = pmi_list_take(&self->waits))) {
        serial_wait *wait = PMI_OUTER(node, serial_wait, in_all);
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
        pmi_free(env, lane);
    }
    pmi_map_fini(&self->lanes);
    pmi_free(env, self);
}

pm_err pm_filter_serial(pm_app *app, uint32_t timeout_ms)
{
    pm_filter filter = {serial_before, serial_after, serial_free};
    serial *self = pmi_zalloc(pmi_app_env(app), sizeof *self);
    pm_err err;
    if (!self)
        return PM_ENOMEM;
    self->app = app;
    self->timeout_us = (uint64_t)(timeout_ms ? timeout_ms : 3000) * 1000;
    pmi_list_init(&self->waits);
    pmi_loop_map_init(pm_app_loop(app), &self->lanes);
    err = pm_app_filter(app, &filter, self);
    if (err)
        serial_free(self);
    return err;
}
