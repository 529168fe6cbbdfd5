/* SPDX-License-Identifier: MIT */
/* core/dial.c -- a name and a port to a connected socket, without blocking.
 *
 *     start -> (resolving) -> connecting -> done(fd)
 *                   \______________\_____-> done(error)
 *
 * Start reading at pmi_dial_start(). */
#include "dial.h"

static void dial_finish(pmi_dial *dial, pm_err err)
{
    int fd = -1;
    if (dial->connecting) {
        fd = dial->watch.fd;
        pmi_watch_fini(&dial->watch);
        dial->connecting = false;
        if (err != PM_OK) {
            pmi_sock_close(fd);
            fd = -1;
        }
    }
    dial->done(dial, err, fd); /* may have freed the storage */
}

static void dial_failed(pmi_task *task)
{
    pmi_dial *dial = PMI_OUTER(task, pmi_dial, failed);
    dial_finish(dial, dial->err);
}

static void dial_ready(pmi_watch *watch, int what)
{
    pmi_dial *dial = PMI_OUTER(watch, pmi_dial, watch);
    (void)what;
    dial_finish(dial, pmi_sock_error(watch->fd));
}

static pm_err dial_connect(pmi_dial *dial)
{
    int fd = -1;
    pm_err err = pmi_sock_connect(&dial->addr, &fd);
    if (err != PM_OK)
        return err;
    if (dial->send_buffer)
        pmi_sock_set_buffers(fd, dial->send_buffer, 0);
    pmi_watch_init(dial->loop, &dial->watch, fd, dial_ready);
    err = pmi_watch_set(&dial->watch, PMI_WRITABLE);
    if (err != PM_OK) {
        pmi_watch_fini(&dial->watch);
        pmi_sock_close(fd);
        return err;
    }
    dial->connecting = true;
    return PM_OK;
}

static void dial_resolved(pm_err err, const pmi_addr *addr, void *ctx)
{
    pmi_dial *dial = ctx;
    dial->resolving = NULL;
    if (err == PM_OK) {
        dial->addr = *addr;
        err = dial_connect(dial);
    }
    if (err != PM_OK)
        dial_finish(dial, err);
}

pm_err pmi_dial_start(pm_loop *loop, pmi_dial *dial, const char *host,
                      uint16_t port, int send_buffer,
                      void (*done)(pmi_dial *dial, pm_err err, int fd))
{
    pm_err err = PM_EREFUSED;
    dial->loop = loop;
    dial->done = done;
    dial->send_buffer = send_buffer;
    if (!pmi_loop_memory_only(loop)) {
        if (!pmi_addr_parse(&dial->addr, host, port))
            return pmi_loop_resolve(loop, host, port, dial_resolved, dial,
                                    &dial->resolving);
        err = dial_connect(dial);
    }
    if (err == PM_OK || err == PM_ENOMEM || err == PM_ELIMIT)
        return err;
    dial->err = err;
    pmi_loop_defer(loop, &dial->failed, dial_failed);
    return PM_OK;
}

void pmi_dial_cancel(pmi_dial *dial)
{
    pmi_task_cancel(&dial->failed);
    if (dial->resolving)
        pmi_loop_resolve_cancel(dial->loop, dial->resolving);
    dial->resolving = NULL;
    if (dial->connecting) {
        int fd = dial->watch.fd;
        pmi_watch_fini(&dial->watch);
        pmi_sock_close(fd);
        dial->connecting = false;
    }
}
