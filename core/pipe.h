/* SPDX-License-Identifier: MIT */
/* core/pipe.h -- two ends on one loop that talk through memory, with the
 * manners of a TCP connection: bounded bytes under way, order, bytes written
 * before a close arrive before it.
 *
 *     end A  --- under way (references to chunks) --->  end B
 *            <--- under way -------------------------
 *
 * Nothing arrives in the turn in which it was written. */
#ifndef PMI_PIPE_H
#define PMI_PIPE_H

#include "queue.h"

#define PMI_PIPE_WINDOW (256 * 1024)
enum { PMI_PIPE_CUT = 4 }; /* beside PMI_READABLE and PMI_WRITABLE */

typedef struct pmi_pipe pmi_pipe; /* one end */

/* Both ends, to be closed each. `from` and `to` are copied: the names that
 * the loop's link fault is asked with. PM_ENOMEM. */
pm_err pmi_pipe_new(pmi_segment_pool *pool, const char *from, const char *to,
                    pmi_pipe *ends[2]);
/* Told on later turns, once for each call: PMI_READABLE and PMI_WRITABLE as
 * wanted, PMI_PIPE_CUT always. */
void pmi_pipe_start(pmi_pipe *end, void (*ready)(void *ctx, int what),
                    void *ctx);
void pmi_pipe_want(pmi_pipe *end, int what);
/* As much as the window takes goes out of the queue, or all of it (`last`).
 * Returns the bytes. After the other end has closed they go nowhere. */
size_t pmi_pipe_write(pmi_pipe *end, pmi_queue *queue, bool last);
/* Like pmi_sock_read: bytes, 0 = nothing there, -1 = the other end closed. */
long pmi_pipe_read(pmi_pipe *end, void *data, size_t len);
/* The other end sees the close behind what is under way. */
void pmi_pipe_close(pmi_pipe *end);

#endif
