/* SPDX-License-Identifier: MIT */
/* core/pipe.c -- two ends on one loop that talk through memory.
 *
 * References to chunks go from the sender's queue into the direction's own
 * and lie there until the reader comes for them on a later turn. A
 * simulator's fault may delay a transfer (never past an earlier one) or cut
 * the link. With a virtual clock the same calls give the same run.
 * Start reading at pmi_pipe_write(). */
#include "pipe.h"

struct pmi_pipe {
    struct pipe_link *link; /* both ends and their names */
    void (*ready)(void *ctx, int what);
    void *ctx;
    pmi_task wake;
    pmi_timer arrival;
    pmi_queue incoming; /* under way to this end */
    uint64_t fin_due_us;
    int want;
    bool fin;        /* the other end has closed */
    bool closed;     /* this end has */
    bool peer_waits; /* the other end found the window full */
};

typedef struct pipe_link {
    pmi_segment_pool *pool; /* borrowed: the loop's */
    pmi_pipe ends[2];
    bool cut;
    size_t to; /* where the second name starts */
    char names[];
} pipe_link;

pm_err pmi_pipe_new(pmi_segment_pool *pool, const char *from, const char *to,
                    pmi_pipe *ends[2])
{
    size_t from_size = strlen(from) + 1, to_size = strlen(to) + 1;
    pipe_link *link = pmi_zalloc(pmi_loop_env(pool->loop),
                                 sizeof *link + from_size + to_size);
    if (!link)
        return PM_ENOMEM;
    link->pool = pool;
    link->to = from_size;
    memcpy(link->names, from, from_size);
    memcpy(link->names + from_size, to, to_size);
    for (int i = 0; i < 2; i++) {
        link->ends[i].link = link;
        ends[i] = &link->ends[i];
    }
    return PM_OK;
}

static pmi_pipe *pipe_other(pmi_pipe *end)
{
    pipe_link *link = end->link;
    return end == &link->ends[0] ? &link->ends[1] : &link->ends[0];
}

/* ---- Waking ------------------------------------------------------------ */
/* When the next thing reaches this end; UINT64_MAX: nothing is under way. */
static uint64_t pipe_next_due(const pmi_pipe *end)
{
    if (end->incoming.first)
        return end->incoming.first->due_us;
    return end->fin ? end->fin_due_us : UINT64_MAX;
}

static int pipe_state(const pmi_pipe *end)
{
    const pipe_link *link = end->link;
    const pmi_pipe *other =
        end == &link->ends[0] ? &link->ends[1] : &link->ends[0];
    int what = 0;
    if (link->cut)
        return PMI_PIPE_CUT;
    if ((end->want & PMI_READABLE) &&
        pipe_next_due(end) <= pmi_loop_now_us(link->pool->loop))
        what |= PMI_READABLE;
    if ((end->want & PMI_WRITABLE) &&
        (other->closed || other->incoming.bytes < PMI_PIPE_WINDOW))
        what |= PMI_WRITABLE;
    return what;
}

static void pipe_arm(pmi_pipe *end);

static void pipe_wake(pmi_task *task)
{
    pmi_pipe *end = PMI_OUTER(task, pmi_pipe, wake);
    int what = pipe_state(end);
    pipe_arm(end); /* as long as it is not served it is told again */
    if (what)
        end->ready(end->ctx, what); /* may have closed the end */
}

static void pipe_arrived(pmi_timer *timer)
{
    pmi_pipe *end = PMI_OUTER(timer, pmi_pipe, arrival);
    pipe_arm(end);
}

/* Makes sure that the end is woken when there is something for it. */
static void pipe_arm(pmi_pipe *end)
{
    pm_loop *loop = end->link->pool->loop;
    if (!end->ready || end->closed)
        return;
    if (pipe_state(end)) {
        pmi_loop_defer(loop, &end->wake, pipe_wake);
        return;
    }
    pmi_task_cancel(&end->wake);
    uint64_t due = pipe_next_due(end), now = pmi_loop_now_us(loop);
    if ((end->want & PMI_READABLE) && due != UINT64_MAX && due > now)
        pmi_timer_set(loop, &end->arrival, due - now, pipe_arrived);
}

void pmi_pipe_start(pmi_pipe *end, void (*ready)(void *ctx, int what),
                    void *ctx)
{
    end->ready = ready;
    end->ctx = ctx;
    pipe_arm(end);
}

void pmi_pipe_want(pmi_pipe *end, int what)
{
    end->want = what;
    pipe_arm(end);
}

/* ---- Moving ------------------------------------------------------------ */
/* Asks the fault when a transfer arrives. False: the link is cut. */
static bool pipe_due(pmi_pipe *end, size_t bytes, uint64_t *due_us)
{
    pipe_link *link = end->link;
    pm_loop *loop = link->pool->loop;
    void *ctx = NULL;
    pmi_link_fault fault = pmi_loop_link_fault(loop, &ctx);
    const char *names[2] = {link->names, link->names + link->to};
    bool first = end == &link->ends[0];
    uint64_t delay = 0;
    if (fault)
        delay = fault(ctx, names[first ? 0 : 1], names[first ? 1 : 0], bytes);
    if (delay == UINT64_MAX) {
        link->cut = true;
        pipe_arm(&link->ends[0]);
        pipe_arm(&link->ends[1]);
        return false;
    }
    /* What is due before earlier bytes waits for them in the queue. */
    *due_us = delay ? pmi_loop_now_us(loop) + delay : 0;
    return true;
}

size_t pmi_pipe_write(pmi_pipe *end, pmi_queue *queue, bool last)
{
    pmi_pipe *other = pipe_other(end);
    pipe_link *link = end->link;
    size_t bytes = queue->bytes, room = SIZE_MAX;
    uint64_t due_us = 0;
    if (link->cut || other->closed) {
        pmi_queue_clear(queue, link->pool);
        return bytes;
    }
    if (!last)
        room =
            PMI_PIPE_WINDOW - pmi_min(PMI_PIPE_WINDOW, other->incoming.bytes);
    bytes = pmi_min(bytes, room);
    other->peer_waits = bytes < queue->bytes;
    if (!bytes || !pipe_due(end, bytes, &due_us))
        return 0;
    bytes = pmi_queue_move(&other->incoming, queue, link->pool, bytes, due_us);
    pipe_arm(other);
    return bytes;
}

long pmi_pipe_read(pmi_pipe *end, void *data, size_t len)
{
    pipe_link *link = end->link;
    uint64_t now = pmi_loop_now_us(link->pool->loop);
    size_t n = pmi_queue_take(&end->incoming, link->pool, data, len, now);
    if (n == 0)
        return end->fin && !end->incoming.first && end->fin_due_us <= now ? -1
                                                                          : 0;
    if (end->peer_waits && end->incoming.bytes < PMI_PIPE_WINDOW) {
        end->peer_waits = false;
        pipe_arm(pipe_other(end));
    }
    pipe_arm(end);
    return (long)n;
}

void pmi_pipe_close(pmi_pipe *end)
{
    pipe_link *link = end->link;
    pmi_pipe *other = pipe_other(end);
    uint64_t due_us = 0;
    if (end->closed)
        return;
    end->closed = true;
    pmi_task_cancel(&end->wake);
    pmi_timer_clear(&end->arrival);
    pmi_queue_clear(&end->incoming, link->pool);
    if (other->closed) {
        pmi_free(pmi_loop_env(link->pool->loop), link);
        return;
    }
    if (!link->cut && pipe_due(end, 0, &due_us)) {
        other->fin = true;
        other->fin_due_us = due_us;
    }
    pipe_arm(other);
}
