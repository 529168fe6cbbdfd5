/* SPDX-License-Identifier: MIT */
/* core/window.h -- the last messages that were sent to somebody, so that they
 * can be sent again.
 *
 *     number:  oldest .................. last
 *             [ kept ][ kept ] ... [ kept ]      at most `bytes_max`
 *
 * Messages have numbers from 1 on, in the order in which they came. Small ones
 * are copied one behind the other, large shared ones are referred to. What is
 * over the limit leaves at the old end. The memory behind it is a small
 * multiple of `bytes_max`, whatever is kept and taken out. A message that turns
 * out not to be sent is taken out: by its serial, which it has for itself and
 * keeps, while the numbers of those behind it move up. */
#ifndef PMI_WINDOW_H
#define PMI_WINDOW_H

#include "loop.h"

/* What a kept message counts beside its own bytes. Larger than every head that
 * a transport may put in front: what is kept can be queued again. */
#define PMI_WINDOW_HEAD 32

struct pmi_window_kept;

/* Caller's storage. */
typedef struct pmi_window {
    pm_loop *loop;                /* borrowed */
    struct pmi_window_kept *kept; /* owned: a ring of `cap` */
    pmi_chunk *fill;              /* owned: where small ones are copied to */
    size_t bytes, bytes_max;
    size_t holes;  /* bytes that were taken out from between others */
    uint64_t last; /* number of the newest; 0: none came yet */
    uint32_t cap, first, count;
    uint32_t serial; /* of the newest; they go round */
} pmi_window;

/* What may become of a message that waits here to be sent at all. */
typedef struct pmi_window_terms {
    bool loose;   /* it may be taken out for a later one */
    uint64_t key; /* not 0: it is, for the next one of this key */
} pmi_window_terms;

void pmi_window_init(pmi_window *window, pm_loop *loop, size_t bytes_max);
void pmi_window_fini(pmi_window *window);

/* The next message, of parts that are copied, or the bytes of a chunk from
 * `offset` on. One that is over the limit alone has its number but is not kept,
 * nor is what came before it. PM_ENOMEM, PM_ESIZE: nothing has changed. */
pm_err pmi_window_add(pmi_window *window, const pm_slice *parts, size_t count,
                      const pmi_window_terms *terms);
pm_err pmi_window_add_chunk(pmi_window *window, pmi_chunk *chunk, size_t offset,
                            const pmi_window_terms *terms);
/* The next message could not be kept: nothing is kept any more. */
void pmi_window_skip(pmi_window *window);
/* Would so many bytes push out what is kept? */
bool pmi_window_fits(const pmi_window *window, size_t len);

/* Number of the oldest that is kept; last + 1: none is. */
static inline uint64_t pmi_window_oldest(const pmi_window *window)
{
    return window->last - window->count + 1;
}
/* A kept message, borrowed until the window changes. */
pm_slice pmi_window_get(const pmi_window *window, uint64_t number);
/* Those up to this number have arrived. */
void pmi_window_trim(pmi_window *window, uint64_t number);
/* A message that will not be sent after all: those behind it move up. */
void pmi_window_take_out(pmi_window *window, uint32_t serial);
/* Bytes of those behind `sent`. */
size_t pmi_window_behind(const pmi_window *window, uint64_t sent);
/* Do so many bytes fit without pushing out what is behind `sent`, which has not
 * been sent? For a loose one others of these are taken out: the earlier one of
 * its key, then loose ones from the oldest on. terms NULL: the latter too.
 * *dropped counts them. */
bool pmi_window_make_room(pmi_window *window, uint64_t sent, size_t len,
                          const pmi_window_terms *terms, uint32_t *dropped);

#endif
