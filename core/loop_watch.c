/* SPDX-License-Identifier: MIT */
/* core/loop_watch.c -- is a descriptor readable, is it writable, has a signal
 * come?
 *
 * One event of libevent a descriptor, in the watch itself: for reading alone
 * nearly always, and made anew when what is waited for changes, which is rare.
 * Start reading at pmi_watch_set(). */
#include "loop_internal.h"

#include <event2/event_struct.h>

_Static_assert(sizeof(struct event) <= PMI_EVENT_BYTES,
               "libevent's event must fit into a watch");

void pmi_watch_init(pm_loop *loop, pmi_watch *watch, int fd,
                    void (*ready)(pmi_watch *watch, int what))
{
    watch->loop = loop;
    watch->ready = ready;
    watch->fd = fd;
    watch->what = 0;
}

static struct event *watch_event(pmi_watch *watch)
{
    return (struct event *)(void *)watch->event;
}

/* The watch, and even the loop's other objects, may be gone afterwards. */
static void watch_on_event(evutil_socket_t fd, short what, void *arg)
{
    pmi_watch *watch = arg;
    pm_loop *loop = watch->loop;
    (void)fd;
    pmi_loop_enter(loop);
    pmi_loop_round(loop);
    watch->ready(watch, (what & EV_READ ? PMI_READABLE : 0) |
                            (what & EV_WRITE ? PMI_WRITABLE : 0));
    pmi_loop_leave(loop);
}

pm_err pmi_watch_set(pmi_watch *watch, int what)
{
    short wanted = (short)((what & PMI_READABLE ? EV_READ : 0) |
                           (what & PMI_WRITABLE ? EV_WRITE : 0));
    if (!watch->loop->base)
        return PM_ENOTSUP;
    if (watch->what == what)
        return PM_OK;
    pmi_watch_fini(watch);
    if (!what)
        return PM_OK;
    if (!pmi_loop_event_init(watch->loop, watch_event(watch), watch->fd,
                             (short)(wanted | EV_PERSIST), watch_on_event,
                             watch))
        return PM_ENOMEM;
    watch->what = (uint8_t)what;
    if (event_add(watch_event(watch), NULL) == 0)
        return PM_OK;
    pmi_watch_fini(watch);
    return PM_ENOMEM;
}

void pmi_watch_fini(pmi_watch *watch)
{
    if (watch->what)
        pmi_loop_event_fini(watch_event(watch));
    watch->what = 0;
}

/* ---- Signals ----------------------------------------------------------- */
typedef struct watch_signal {
    pm_loop *loop;
    struct event *event; /* owned */
    void (*cb)(void *ctx);
    void *ctx;
} watch_signal;

static void watch_on_signal(evutil_socket_t fd, short what, void *arg)
{
    watch_signal *sig = arg;
    pm_loop *loop = sig->loop;
    (void)fd;
    (void)what;
    pmi_loop_enter(loop);
    sig->cb(sig->ctx);
    pmi_loop_leave(loop);
}

pm_err pmi_loop_signal(pm_loop *loop, int number, void (*cb)(void *ctx),
                       void *ctx, void **signal)
{
    watch_signal *sig;
    if (!loop->base)
        return PM_ENOTSUP;
    sig = pmi_alloc(&loop->env, sizeof *sig);
    if (!sig)
        return PM_ENOMEM;
    *sig = (watch_signal){.loop = loop, .cb = cb, .ctx = ctx};
    sig->event = pmi_loop_event_new(loop, number, EV_SIGNAL | EV_PERSIST,
                                    watch_on_signal, sig);
    if (!sig->event || event_add(sig->event, NULL)) {
        pmi_loop_signal_end(sig);
        return PM_ENOMEM;
    }
    *signal = sig;
    return PM_OK;
}

void pmi_loop_signal_end(void *signal)
{
    watch_signal *sig = signal;
    if (!sig)
        return;
    pmi_loop_event_free(sig->loop, sig->event);
    pmi_free(&sig->loop->env, sig);
}
