/* SPDX-License-Identifier: MIT */
/* core/conn_slow.c -- a connection whose peer takes less than it is sent.
 *
 *     | begun | kept | loose | kept | loose ...        | for kept only |
 *     0                                             7/8             out_max
 *
 * While the system takes what is written nothing here runs. When it takes no
 * more, messages wait; those with a rank can be told apart and taken out, from
 * the oldest on, for whatever comes. What may be dropped fills seven eighths
 * of the limit, so that answers and heartbeats find room without ending the
 * connection. Start reading at pmi_conn_room(). */
#include "conn_internal.h"

enum {
    SLOW_SPARE_PART = 8, /* one part of so many is for kept messages */
    SLOW_HIGH_PART = 4,  /* over this part of the limit it is news */
};

static pmi_rank slow_rank(const pmi_terms *terms)
{
    switch (terms ? terms->policy : PM_PUSH_KEEP) {
    case PM_PUSH_DROP_OLDEST:
    case PM_PUSH_REPLACE:
        return PMI_RANK_LOOSE;
    case PM_PUSH_DROP_NEW:
        return PMI_RANK_STAYS;
    default:
        return PMI_RANK_KEPT;
    }
}

/* What messages of this rank may fill. */
static size_t slow_share(const pmi_conn *c, pmi_rank rank)
{
    return rank ? c->out_max - c->out_max / SLOW_SPARE_PART : c->out_max;
}

static void slow_tell_dropped(pmi_conn *c, pmi_drop why, uint32_t n)
{
    if (!n)
        return;
    c->dropped += n;
    c->pressed = true;
    if (c->events->dropped)
        c->events->dropped(c, why, n, c->ctx);
}

static void slow_taken(void *ctx, uint32_t serial)
{
    pmi_conn *c = ctx;
    if (c->events->taken)
        c->events->taken(c, serial, c->ctx);
}

/* Without memory for the books it stays as it is, and is asked again. */
static void slow_open_books(pmi_conn *c)
{
    uint32_t replaced;
    if (c->out.books || !c->blocked ||
        pmi_queue_open_books(&c->out, &c->shared->segments, slow_taken, c,
                             &replaced))
        return;
    slow_tell_dropped(c, PMI_DROP_REPLACED, replaced);
}

pm_err pmi_conn_room(pmi_conn *c, size_t len, const pmi_terms *terms)
{
    pmi_rank rank = slow_rank(terms);
    size_t need = len + (rank ? PMI_QUEUE_RANKED_COST : 0);
    size_t share = slow_share(c, rank), weight;
    if (!c->blocked) /* what the system takes now does not wait */
        pmi_conn_write_out(c);
    if (!pmi_conn_alive(c))
        return PM_ECLOSED;
    slow_open_books(c);
    weight = pmi_queue_weight(&c->out);
    if (!terms || rank == PMI_RANK_LOOSE || terms->policy == PM_PUSH_KEEP)
        weight -= pmi_queue_loose(&c->out);
    if (need <= share && weight <= share - need)
        return PM_OK;
    if (!rank)
        return PM_ELIMIT;
    slow_tell_dropped(c, PMI_DROP_NEW, 1);
    return PM_EDROPPED;
}

void pmi_conn_swollen(pmi_conn *c)
{
    slow_open_books(c);
    if (c->out.bytes > c->out_max / SLOW_HIGH_PART)
        c->pressed = true;
    slow_tell_dropped(
        c, PMI_DROP_OLDEST,
        pmi_queue_trim(&c->out, &c->shared->segments, c->out_max));
}

/* The last message is a segment of its own: what it displaces goes. */
static void slow_ranked(pmi_conn *c, pmi_rank rank, const pmi_terms *terms)
{
    uint64_t key = terms->policy == PM_PUSH_REPLACE ? terms->key : 0;
    pmi_segment_pool *pool = &c->shared->segments;
    slow_open_books(c);
    if (pmi_queue_rank(&c->out, pool, rank, key, terms->serial))
        slow_tell_dropped(c, PMI_DROP_REPLACED, 1);
    if (c->out.books)
        slow_tell_dropped(c, PMI_DROP_OLDEST,
                          pmi_queue_trim(&c->out, pool, slow_share(c, rank)));
    pmi_conn_grown(c);
}

/* PM_OK: it may be queued. */
static pm_err slow_may_send(pmi_conn *c, size_t len, const pmi_terms *terms)
{
    pm_err err = pmi_conn_can_send(c);
    if (err)
        return err;
    if (!c->blocked && len <= c->out_max && c->out.bytes <= c->out_max - len)
        return PM_OK;
    return pmi_conn_room(c, len, terms);
}

pm_err pmi_conn_offer_ranked(pmi_conn *c, const pm_slice *parts, size_t count,
                             const pmi_terms *terms)
{
    pmi_rank rank = slow_rank(terms);
    size_t len, all;
    pm_err err;
    if (!pmi_conn_measure(c, parts, count, &len, &all))
        return rank ? PM_EDROPPED : PM_ELIMIT;
    err = slow_may_send(c, all, terms);
    if (err || !rank)
        return err ? err : pmi_conn_send(c, parts, count, 0);
    if (all == 0)
        return PM_OK;
    uint8_t *p = pmi_queue_room_apart(&c->out, &c->shared->segments, all);
    if (!p)
        return PM_ENOMEM;
    pmi_conn_message_write(c, p, parts, count, len);
    pmi_queue_written(&c->out, &c->shared->segments, all);
    slow_ranked(c, rank, terms);
    return PM_OK;
}

pm_err pmi_conn_offer_chunk_ranked(pmi_conn *c, pmi_chunk *chunk, size_t offset,
                                   const pmi_terms *terms)
{
    pmi_rank rank = slow_rank(terms);
    size_t len = chunk->len - offset;
    pm_err err = slow_may_send(c, len, terms);
    if (err || !rank)
        return err ? err : pmi_conn_send_chunk(c, chunk, offset, 0);
    err = pmi_queue_add(&c->out, &c->shared->segments, chunk, offset, false);
    if (err == PM_OK && len)
        slow_ranked(c, rank, terms);
    return err;
}

/* ---- Catching up ------------------------------------------------------- */
void pmi_conn_tell_relief(pmi_conn *c)
{
    if (c->eager && pmi_conn_alive(c) &&
        pmi_queue_kept(&c->out) <= c->out_max / SLOW_HIGH_PART) {
        c->eager = false;
        if (c->events->eased)
            c->events->eased(c, c->ctx);
    }
    if (c->pressed && c->out.bytes == 0 && pmi_conn_alive(c)) {
        c->pressed = false;
        if (c->events->caught_up)
            c->events->caught_up(c, c->ctx);
    }
}

unsigned pmi_conn_is(const pmi_conn *c)
{
    return (unsigned)pmi_conn_is_ws(c) * PMI_CONN_IS_WS |
           c->blocked * PMI_CONN_IS_SLOW;
}

bool pmi_conn_want_ease(pmi_conn *c)
{
    if (c->out.bytes <= c->out_max / 2)
        return false;
    if (!c->blocked)
        pmi_conn_write_out(c);
    if (!c->blocked || pmi_queue_kept(&c->out) <= c->out_max / 2)
        return false;
    c->eager = true;
    return true;
}

bool pmi_conn_moved(pmi_conn *c)
{
    bool moved = c->moved;
    c->moved = false;
    return moved;
}

uint32_t pmi_conn_dropped(const pmi_conn *c)
{
    return c->dropped;
}
