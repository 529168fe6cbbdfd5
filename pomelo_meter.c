/* SPDX-License-Identifier: MIT */
/* pomelo_meter.c -- what one session may send, and what is refused.
 *
 * Refusing must cost next to nothing, or it helps nobody: it comes before JSON,
 * filters and requests, looks at a message's head, and answers with a text that
 * is there already. HEARTBEAT packages are never refused: who is told to wait
 * must not be taken for dead.
 *
 * What waits in a socket can not be seen, but not for how long it may have
 * waited: since the loop last looked at the one before (core/loop.h). So every
 * socket is read in every round; from lag_ms on what is found is refused, and
 * nothing waits longer than that to be handled or to be refused. While it is so
 * no session may have more than a quarter of a round. Start at
 * pmi_meter_package. */
#include "pomelo_meter_internal.h"

static const char meter_answer[] = "{\"code\":503}";

static pmi_rate_limit meter_limit(uint32_t per_s, uint32_t burst)
{
    pmi_rate_limit limit = {per_s, burst};
    return limit;
}

void pmi_meters_init(pmi_meters *meters, pm_app *app,
                     void (*late)(pmi_timer *timer))
{
    const pm_limits *limits = pmi_app_limits(app);
    uint32_t bytes = limits->package_in_bytes + PMI_PACKAGE_HEAD;
    meters->late = late;
    meters->messages =
        meter_limit(limits->messages_per_s, limits->messages_per_s);
    meters->bytes =
        meter_limit(limits->bytes_per_s,
                    limits->bytes_per_s > bytes ? limits->bytes_per_s : bytes);
    meters->signatures =
        meter_limit(limits->signatures_per_s, limits->signatures_per_s);
    meters->idle_us = (uint64_t)limits->idle_ms * 1000;
    meters->lag_us = (uint64_t)limits->lag_ms * 1000;
}

/* ---- A session's meter ------------------------------------------------- */

pm_err pmi_meter_open(pmi_meters *meters, pmi_downlink *down)
{
    const pmi_env *env = pmi_app_env(down->app);
    if (down->meter)
        return PM_OK;
    down->meter = pmi_zalloc(env, sizeof *down->meter);
    if (!down->meter)
        return PM_ENOMEM;
    down->meter->meters = meters;
    down->meter->down = down;
    return PM_OK;
}

static void meter_idle(pmi_timer *timer)
{
    pmi_meter *meter = PMI_OUTER(timer, pmi_meter, idle);
    pmi_downlink *down = meter->down;
    pm_loop *loop = pm_app_loop(down->app);
    uint64_t now = pmi_loop_now_us(loop), limit = meter->meters->idle_us;
    /* Who waits for an answer, or is not listened to, is not idle. */
    if (down->session->in_flight || down->delayed || down->full)
        meter->heard_us = now;
    if (now - meter->heard_us >= limit)
        pmi_downlink_kick(down, "idle", PM_CLOSE_IDLE);
    else
        pmi_timer_set(loop, timer, meter->heard_us + limit - now, meter_idle);
}

pm_err pmi_meter_start(pmi_meters *meters, pmi_downlink *down)
{
    pm_loop *loop = pm_app_loop(down->app);
    down->metered = meters->lag_us != 0;
    if (!meters->messages.per_s && !meters->bytes.per_s && !meters->idle_us)
        return PM_OK;
    if (pmi_meter_open(meters, down))
        return PM_ENOMEM;
    down->metered = true;
    down->meter->heard_us = pmi_loop_now_us(loop);
    if (meters->idle_us)
        pmi_timer_set(loop, &down->meter->idle, meters->idle_us, meter_idle);
    return PM_OK;
}

void pmi_meter_close(pmi_downlink *down)
{
    pmi_meter *meter = down->meter;
    if (!meter)
        return;
    down->meter = NULL;
    down->metered = false;
    pmi_timer_clear(&meter->idle);
    pmi_rsa_free(meter->key);
    pmi_free(pmi_app_env(down->app), meter);
}

bool pmi_meter_signature(pmi_downlink *down)
{
    pmi_meter *meter = down->meter;
    uint64_t now = pmi_loop_now_us(pm_app_loop(down->app));
    if (!meter ||
        pmi_rate_take(&meter->signatures, &meter->meters->signatures, now, 1))
        return true;
    pmi_downlink_close(down, PM_CLOSE_CRYPTO);
    return false;
}

/* ---- Refusing ---------------------------------------------------------- */

/* The route's text; empty: a number that nobody has. */
static pm_slice meter_route(const pmi_downlink *down, const pmi_message *msg)
{
    const pmi_dict *dict = pmi_handlers_sys(pmi_app_handlers(down->app))->dict;
    if (!msg->compressed)
        return msg->route;
    return dict ? pmi_dict_route(dict, msg->code) : pm_bytes(NULL, 0);
}

static void meter_tell(pmi_downlink *down, uint32_t id, pm_slice route,
                       pm_body answer)
{
    pm_err err = pmi_downlink_message(down->session, PMI_MESSAGE_RESPONSE, id,
                                      route, answer, NULL);
    if (err == PM_OK || err == PM_ECLOSED || err == PM_ELIMIT)
        return;
    /* The hook's answer can not be sent: ours always can. */
    err = pmi_downlink_message(down->session, PMI_MESSAGE_RESPONSE, id,
                               pm_bytes(NULL, 0), pm_body_text(meter_answer),
                               NULL);
    if (err == PM_ENOMEM)
        pmi_downlink_close(down, PM_CLOSE_MEMORY);
}

/* False: it is not refused after all. What is no message at all is left to
 * those who close the connection for it. */
static bool meter_refuse(pmi_downlink *down, pm_slice body, pm_err why)
{
    const pm_connector_opts *opts = pmi_app_connector_opts(down->app);
    pm_body answer = pm_body_text(meter_answer);
    pmi_message msg;
    pm_slice route;
    if (pmi_proto_message_decode(body, &msg) || !msg.has_route ||
        msg.type == PMI_MESSAGE_RESPONSE)
        return false;
    route = meter_route(down, &msg);
    if (opts->refuse &&
        !opts->refuse(down->session, route, why, &answer, opts->ctx))
        return false;
    if (down->state == PMI_DOWNLINK_CLOSED)
        return true; /* by the hook, and even the app may be gone */
    pmi_count(down->app,
              why == PM_EBUSY ? PMI_COUNT_REFUSED_LAG : PMI_COUNT_REFUSED_RATE);
    if (msg.type == PMI_MESSAGE_REQUEST && msg.id)
        meter_tell(down, msg.id, route, answer);
    return true;
}

/* ---- Rates ------------------------------------------------------------- */

/* Takes what it costs, and waits until that is there. */
static void meter_delay(pmi_meters *meters, pmi_downlink *down, uint64_t now,
                        uint32_t count, uint32_t bytes)
{
    pmi_meter *meter = down->meter;
    uint64_t wait, other;
    pmi_rate_spend(&meter->messages, &meters->messages, now, count);
    pmi_rate_spend(&meter->bytes, &meters->bytes, now, bytes);
    wait = pmi_rate_wait_us(&meter->messages, &meters->messages, now, 0);
    other = pmi_rate_wait_us(&meter->bytes, &meters->bytes, now, 0);
    if (other > wait)
        wait = other;
    if (!wait)
        return;
    down->delayed = true;
    pmi_count(down->app, PMI_COUNT_PAUSED_RATE);
    pmi_conn_pause(down->conn);
    pmi_timer_set(pm_app_loop(down->app), &down->timer, wait, meters->late);
}

/* PM_OK; PM_ELIMIT: over the rate, and to be refused; PM_ECLOSED. */
static pm_err meter_rates(pmi_meters *meters, pmi_downlink *down,
                          const pmi_package *package)
{
    pmi_meter *meter = down->meter;
    uint64_t now = pmi_loop_now_us(pm_app_loop(down->app));
    uint32_t count = package->type == PMI_PACKAGE_DATA;
    uint32_t bytes = (uint32_t)package->body.len + PMI_PACKAGE_HEAD;
    pm_rate_policy policy = pmi_app_limits(down->app)->over_rate;
    if (count)
        meter->heard_us = now;
    if (policy == PM_RATE_DELAY) {
        meter_delay(meters, down, now, count, bytes);
        return PM_OK;
    }
    if (!pmi_rate_wait_us(&meter->messages, &meters->messages, now, count) &&
        !pmi_rate_wait_us(&meter->bytes, &meters->bytes, now, bytes)) {
        pmi_rate_spend(&meter->messages, &meters->messages, now, count);
        pmi_rate_spend(&meter->bytes, &meters->bytes, now, bytes);
        return PM_OK;
    }
    if (policy == PM_RATE_REFUSE)
        return PM_ELIMIT;
    pmi_downlink_close(down, PM_CLOSE_RATE);
    return PM_ECLOSED;
}

/* ---- Overload ---------------------------------------------------------- */

/* Has this session had a quarter of the round for itself? */
static bool meter_had_its_share(pmi_meters *meters, const pmi_downlink *down,
                                uint64_t now)
{
    if (meters->speaker != down ||
        meters->spoke_us < pmi_loop_round_us(pm_app_loop(down->app))) {
        meters->speaker = down;
        meters->spoke_us = now;
    }
    return now - meters->spoke_us > meters->lag_us / 4;
}

/* Shares count only while somebody has been refused a moment ago: one who is
 * alone may have all there is. */
static bool meter_lags(pmi_meters *meters, const pmi_downlink *down)
{
    pm_loop *loop = pm_app_loop(down->app);
    uint64_t now = pmi_loop_clock_us(loop);
    if (pmi_loop_is_overloaded(loop, meters->lag_us)) {
        meters->hot_until_us = now + 4 * meters->lag_us;
        return true;
    }
    return now < meters->hot_until_us && meter_had_its_share(meters, down, now);
}

bool pmi_meter_package(pmi_meters *meters, pmi_downlink *down,
                       const pmi_package *package)
{
    bool data = package->type == PMI_PACKAGE_DATA;
    pm_err why = down->meter ? meter_rates(meters, down, package) : PM_OK;
    if (why == PM_ECLOSED)
        return false;
    if (data && why == PM_OK && meters->lag_us && meter_lags(meters, down))
        why = PM_EBUSY;
    return why == PM_OK || !data || !meter_refuse(down, package->body, why);
}
