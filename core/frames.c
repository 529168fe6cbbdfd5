/* SPDX-License-Identifier: MIT */
/* core/frames.c -- WebSocket frames to whole messages.
 *
 * A frame is handed on where it lies, once all of it is there; only fragments
 * are copied, into a buffer that lives until their message is complete. The
 * length is tested against the limit as soon as the head is there, so that
 * nobody makes us collect what we would refuse.
 * Start reading at pmi_frames_next(). */
#include "frames.h"

enum { FRAMES_PROTOCOL = 1002, FRAMES_TOO_BIG = 1009, FRAMES_NO_CODE = 1005 };

void pmi_fragments_free(pmi_fragments *parts)
{
    if (!parts)
        return;
    const pmi_env *env = parts->joined.env;
    pmi_buf_fini(&parts->joined);
    pmi_free(env, parts);
}

static void frames_bad(pmi_frames_event *event, uint16_t code)
{
    event->kind = PMI_FRAMES_BAD;
    event->code = code;
}

/* False: this frame may not come here. */
static bool frames_legal(const pmi_fragments *parts, const pmi_ws_frame *frame,
                         bool masked, size_t max, pmi_frames_event *event)
{
    size_t have = 0;
    bool control = frame->opcode >= PMI_WS_CLOSE;
    bool cont = frame->opcode == PMI_WS_CONT;
    if (frame->masked != masked || (!control && cont != (parts != NULL))) {
        frames_bad(event, FRAMES_PROTOCOL);
        return false;
    }
    if (parts && !control)
        have = parts->joined.len;
    if (!control && frame->len > max - pmi_min(have, max)) {
        frames_bad(event, FRAMES_TOO_BIG);
        return false;
    }
    return true;
}

/* Puts a fragment aside; the last one makes a message. */
static void frames_join(pmi_fragments **parts, const pmi_env *env,
                        const pmi_ws_frame *frame, pmi_frames_event *event)
{
    pmi_fragments *all = *parts;
    if (!all) {
        all = pmi_zalloc(env, sizeof *all);
        if (!all) {
            event->kind = PMI_FRAMES_NOMEM;
            return;
        }
        pmi_buf_init(&all->joined, env, SIZE_MAX);
        all->text = frame->opcode == PMI_WS_TEXT;
        *parts = all;
    }
    pmi_buf_add(&all->joined, event->data, event->len);
    if (all->joined.failed) {
        event->kind = PMI_FRAMES_NOMEM;
        return;
    }
    event->kind = PMI_FRAMES_PART;
    if (!frame->fin)
        return;
    *parts = NULL;
    event->kind = PMI_FRAMES_MESSAGE;
    event->joined = all;
    event->data = all->joined.data;
    event->len = all->joined.len;
    event->text = all->text;
}

/* May the code stand in a close frame? */
static bool frames_code_legal(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static void frames_close(pmi_frames_event *event)
{
    uint16_t code = FRAMES_NO_CODE;
    event->kind = PMI_FRAMES_CLOSE;
    if (event->len >= 2)
        code = (uint16_t)(event->data[0] << 8 | event->data[1]);
    event->code = code;
    if (event->len == 1 || (event->len >= 2 && !frames_code_legal(code)))
        frames_bad(event, FRAMES_PROTOCOL);
}

static void frames_whole(pmi_fragments **parts, const pmi_env *env,
                         const pmi_ws_frame *frame, pmi_frames_event *event)
{
    switch (frame->opcode) {
    case PMI_WS_CLOSE:
        frames_close(event);
        break;
    case PMI_WS_PING:
        event->kind = PMI_FRAMES_PING;
        break;
    case PMI_WS_PONG:
        event->kind = PMI_FRAMES_PART;
        break;
    default:
        if (!frame->fin || frame->opcode == PMI_WS_CONT) {
            frames_join(parts, env, frame, event);
            break;
        }
        event->kind = PMI_FRAMES_MESSAGE;
        event->text = frame->opcode == PMI_WS_TEXT;
        break;
    }
}

size_t pmi_frames_next(pmi_fragments **parts, const pmi_env *env, bool masked,
                       size_t max, uint8_t *data, size_t len,
                       pmi_frames_event *event)
{
    pmi_ws_frame frame = {0};
    *event = (pmi_frames_event){0};
    long head = pmi_ws_head_parse(data, len, &frame);
    if (head == PMI_WS_MORE)
        return 0;
    if (head < 0) {
        frames_bad(event, FRAMES_PROTOCOL);
        return 0;
    }
    if (!frames_legal(*parts, &frame, masked, max, event))
        return 0;
    if (frame.len > len - (size_t)head)
        return 0;
    event->data = data + head;
    event->len = (size_t)frame.len;
    if (frame.masked)
        pmi_ws_unmask(event->data, event->len, frame.mask, 0);
    frames_whole(parts, env, &frame, event);
    return (size_t)head + (size_t)frame.len;
}
