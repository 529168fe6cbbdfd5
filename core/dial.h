/* SPDX-License-Identifier: MIT */
/* core/dial.h -- a name and a port to a connected socket, without blocking. */
#ifndef PMI_DIAL_H
#define PMI_DIAL_H

#include "loop.h"

/* Caller's storage, all zero before the start. */
typedef struct pmi_dial {
    pm_loop *loop;
    void *resolving; /* the loop's handle while a name is looked up */
    pmi_watch watch;
    pmi_task failed;
    pmi_addr addr;
    int send_buffer;
    pm_err err;
    bool connecting; /* watch and its descriptor are ours */
    /* Once, on a later turn, as the last thing. fd is the callback's to keep;
     * -1 on failure. */
    void (*done)(struct pmi_dial *dial, pm_err err, int fd);
} pmi_dial;

/* PM_ENOMEM, PM_ELIMIT (descriptors): done will not run. All else comes by
 * done: PM_ERESOLVE, PM_EREFUSED, PM_ENET. */
pm_err pmi_dial_start(pm_loop *loop, pmi_dial *dial, const char *host,
                      uint16_t port, int send_buffer,
                      void (*done)(pmi_dial *dial, pm_err err, int fd));
/* done will not run. Harmless when it has. */
void pmi_dial_cancel(pmi_dial *dial);

#endif
