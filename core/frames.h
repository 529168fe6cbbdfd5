/* SPDX-License-Identifier: MIT */
/* core/frames.h -- WebSocket frames to whole messages. Bytes and structs only:
 * what is to be answered is the caller's business. */
#ifndef PMI_FRAMES_H
#define PMI_FRAMES_H

#include "ws.h"

typedef enum pmi_frames_kind {
    PMI_FRAMES_MORE,    /* the next frame is not whole yet: nothing used */
    PMI_FRAMES_PART,    /* a fragment was put aside, a pong dropped */
    PMI_FRAMES_MESSAGE, /* a whole message */
    PMI_FRAMES_PING,    /* to be answered by a pong with the same payload */
    PMI_FRAMES_CLOSE,   /* `code` is the peer's, 1005 when it gave none */
    PMI_FRAMES_BAD,     /* `code` is what the close frame should say */
    PMI_FRAMES_NOMEM
} pmi_frames_kind;

/* The fragments of a message that is not complete. */
typedef struct pmi_fragments {
    pmi_buf joined;
    bool text;
} pmi_fragments;

typedef struct pmi_frames_event {
    pmi_frames_kind kind;
    uint8_t *data; /* unmasked; in the input, or in `joined` */
    size_t len;
    bool text;
    uint16_t code;
    pmi_fragments *joined; /* the caller's now: free after use; or NULL */
} pmi_frames_event;

/* Looks at the first frame of the input and unmasks it in place. `parts`
 * points to the connection's fragments, NULL while there are none. `masked`:
 * the peer is a client. Returns the bytes used. */
size_t pmi_frames_next(pmi_fragments **parts, const pmi_env *env, bool masked,
                       size_t max, uint8_t *data, size_t len,
                       pmi_frames_event *event);
void pmi_fragments_free(pmi_fragments *parts); /* NULL is fine */

#endif
