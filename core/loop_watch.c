/* SPDX-License-Identifier: MIT */
/* core/loop_watch.c -- is a descriptor readable, is it writable, has a signal
 * come?
 *
 * Two events of libevent a descriptor. The one for reading is persistent and is
 * made once; the one for writing is there only while something could not be
 * written, which is rare. Start reading at pmi_watch_set(). */
#include "loop_internal.h"

void pmi_watch_init(pm_loop *loop, pmi_watch *watch, int fd,
                    void (*ready)(pmi_watch *watch, int what))
{
    *watch = (pmi_watch){.loop = loop, .fd = fd, .ready = ready};
}

/* The watch, and even the loop's other objects, may be gone afterwards. */
static void watch_ready(pmi_watch *watch, int what)
{
    pm_loop *loop = watch->loop;
    pmi_loop_enter(loop);
    watch->ready(watch, what);
    pmi_loop_leave(loop);
}

static void watch_on_read(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    watch_ready(arg, PMI_READABLE);
}

static void watch_on_write(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    watch_ready(arg, PMI_WRITABLE);
}

static bool watch_make(pmi_watch *watch, void **event, short what,
                       event_callback_fn cb)
{
    if (!*event)
        *event = pmi_loop_event_new(watch->loop, watch->fd,
                                    (short)(what | EV_PERSIST), cb, watch);
    return *event != NULL;
}

static pm_err watch_add(struct event *event, short what)
{
    if (event_pending(event, what, NULL))
        return PM_OK;
    return event_add(event, NULL) ? PM_ENOMEM : PM_OK;
}

pm_err pmi_watch_set(pmi_watch *watch, int what)
{
    bool reads = what & PMI_READABLE, writes = what & PMI_WRITABLE;
    pm_err err = PM_OK;
    if (!watch->loop->base)
        return PM_ENOTSUP;
    if (reads && !watch_make(watch, &watch->read_event, EV_READ, watch_on_read))
        return PM_ENOMEM;
    if (writes &&
        !watch_make(watch, &watch->write_event, EV_WRITE, watch_on_write))
        return PM_ENOMEM;
    if (reads)
        err = watch_add(watch->read_event, EV_READ);
    else if (watch->read_event)
        event_del(watch->read_event);
    if (writes && !err)
        return watch_add(watch->write_event, EV_WRITE);
    if (!writes) {
        pmi_loop_event_free(watch->loop, watch->write_event);
        watch->write_event = NULL;
    }
    return err;
}

void pmi_watch_fini(pmi_watch *watch)
{
    pmi_loop_event_free(watch->loop, watch->read_event);
    pmi_loop_event_free(watch->loop, watch->write_event);
    watch->read_event = watch->write_event = NULL;
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
