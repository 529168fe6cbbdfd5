/* SPDX-License-Identifier: MIT */
/* core/window.c -- the last messages that were sent to somebody.
 *
 * A ring of references to chunks. Messages that are copied share chunks: one
 * chunk is filled from its front and is given up when it is full, its messages
 * keep it. The first one is small, for who is sent little; later ones come from
 * the loop's pool. What is taken out leaves a hole there, which its neighbours
 * keep: when there is too much of that, all are copied together anew. Start
 * reading at pmi_window_add(). */
#include "window.h"

enum {
    WINDOW_CAP_FIRST = 16,
    WINDOW_FILL_FIRST = 512,
    WINDOW_COPY_MAX = 512 /* larger shared chunks may be referred to */
};

typedef struct pmi_window_kept {
    pmi_chunk *chunk; /* a reference */
    pmi_window_terms terms;
    uint32_t at, len, serial;
} window_kept;

void pmi_window_init(pmi_window *window, pm_loop *loop, size_t bytes_max)
{
    memset(window, 0, sizeof *window);
    window->loop = loop;
    window->bytes_max = bytes_max;
}

static window_kept *window_at(const pmi_window *window, uint32_t index)
{
    return &window->kept[(window->first + index) & (window->cap - 1)];
}

static void window_drop_oldest(pmi_window *window)
{
    window_kept *kept = window_at(window, 0);
    window->bytes -= kept->len + PMI_WINDOW_HEAD;
    pmi_chunk_unref(kept->chunk);
    window->first = (window->first + 1) & (window->cap - 1);
    window->count--;
}

static void window_clear(pmi_window *window)
{
    while (window->count)
        window_drop_oldest(window);
}

void pmi_window_fini(pmi_window *window)
{
    window_clear(window);
    pmi_chunk_unref(window->fill);
    pmi_free(pmi_loop_env(window->loop), window->kept);
    window->fill = NULL;
    window->kept = NULL;
    window->cap = 0;
}

/* ---- Adding ------------------------------------------------------------ */

bool pmi_window_fits(const pmi_window *window, size_t len)
{
    size_t all;
    return pmi_add_size(len, PMI_WINDOW_HEAD, &all) &&
           all <= window->bytes_max && window->bytes <= window->bytes_max - all;
}

static void window_number(pmi_window *window)
{
    window->last++;
    if (!++window->serial)
        window->serial++;
}

void pmi_window_skip(pmi_window *window)
{
    window_clear(window);
    window_number(window);
}

/* Room for one more in the ring. */
static pm_err window_grow(pmi_window *window)
{
    const pmi_env *env = pmi_loop_env(window->loop);
    uint32_t cap = window->cap ? 2 * window->cap : WINDOW_CAP_FIRST;
    window_kept *kept;
    if (window->count < window->cap)
        return PM_OK;
    kept = pmi_resize_array(env, NULL, cap, sizeof *kept);
    if (!kept)
        return PM_ENOMEM;
    for (uint32_t i = 0; i < window->count; i++)
        kept[i] = *window_at(window, i);
    pmi_free(env, window->kept);
    window->kept = kept;
    window->cap = cap;
    window->first = 0;
    return PM_OK;
}

/* The reference is taken. */
static void window_put(pmi_window *window, pmi_chunk *chunk, uint32_t at,
                       uint32_t len, const pmi_window_terms *terms)
{
    window_kept *kept;
    while (window->count && !pmi_window_fits(window, len))
        window_drop_oldest(window);
    window_number(window);
    kept = window_at(window, window->count);
    *kept = (window_kept){chunk, {false, 0}, at, len, window->serial};
    if (terms)
        kept->terms = *terms;
    window->count++;
    window->bytes += len + PMI_WINDOW_HEAD;
}

/* A chunk with room for so many bytes, borrowed; NULL: no memory. */
static pmi_chunk *window_fill(pmi_window *window, size_t len)
{
    pmi_chunk *fill = window->fill;
    if (fill && fill->cap - fill->len >= len)
        return fill;
    if (!fill && len <= WINDOW_FILL_FIRST)
        fill = pmi_chunk_new(pmi_loop_env(window->loop), WINDOW_FILL_FIRST);
    else
        fill = pmi_loop_chunk(window->loop, pmi_max(len, PMI_CHUNK_SMALL));
    if (!fill)
        return NULL;
    pmi_chunk_unref(window->fill);
    return window->fill = fill;
}

/* Too large for the window as a whole: it has a number all the same. */
static bool window_passes(pmi_window *window, size_t len)
{
    if (len + PMI_WINDOW_HEAD <= window->bytes_max)
        return false;
    pmi_window_skip(window);
    return true;
}

pm_err pmi_window_add(pmi_window *window, const pm_slice *parts, size_t count,
                      const pmi_window_terms *terms)
{
    pmi_chunk *fill;
    size_t len = 0;
    uint32_t at;
    for (size_t i = 0; i < count; i++)
        if (!pmi_add_size(len, parts[i].len, &len))
            return PM_ESIZE;
    if (len > UINT32_MAX - PMI_WINDOW_HEAD)
        return PM_ESIZE;
    if (window_passes(window, len))
        return PM_OK;
    fill = window_grow(window) ? NULL : window_fill(window, len);
    if (!fill)
        return PM_ENOMEM;
    at = fill->len;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(fill->data + fill->len, parts[i].data, parts[i].len);
        fill->len += (uint32_t)parts[i].len;
    }
    window_put(window, pmi_chunk_ref(fill), at, (uint32_t)len, terms);
    return PM_OK;
}

pm_err pmi_window_add_chunk(pmi_window *window, pmi_chunk *chunk, size_t offset,
                            const pmi_window_terms *terms)
{
    pm_slice bytes = {chunk->data + offset, chunk->len - offset};
    /* Half empty, it would keep more than it counts. */
    if (bytes.len <= WINDOW_COPY_MAX || chunk->cap / 2 >= bytes.len)
        return pmi_window_add(window, &bytes, 1, terms);
    if (window_passes(window, bytes.len))
        return PM_OK;
    if (window_grow(window))
        return PM_ENOMEM;
    window_put(window, pmi_chunk_ref(chunk), (uint32_t)offset,
               (uint32_t)bytes.len, terms);
    return PM_OK;
}

/* ---- Looking, taking out ----------------------------------------------- */

pm_slice pmi_window_get(const pmi_window *window, uint64_t number)
{
    uint64_t oldest = pmi_window_oldest(window);
    PMI_ASSERT(number >= oldest && number <= window->last);
    const window_kept *kept = window_at(window, (uint32_t)(number - oldest));
    return pm_bytes(kept->chunk->data + kept->at, kept->len);
}

void pmi_window_trim(pmi_window *window, uint64_t number)
{
    while (window->count && pmi_window_oldest(window) <= number)
        window_drop_oldest(window);
}

/* Copies together what is copied. Without memory it stays as it is. */
static void window_pack(pmi_window *window)
{
    pmi_chunk_unref(window->fill);
    window->fill = NULL;
    for (uint32_t i = 0; i < window->count; i++) {
        window_kept *kept = window_at(window, i);
        pmi_chunk *from = kept->chunk, *fill;
        if (kept->len > from->cap / 2) /* it has the chunk to itself */
            continue;
        fill = window_fill(window, kept->len);
        if (!fill)
            return;
        memcpy(fill->data + fill->len, from->data + kept->at, kept->len);
        kept->chunk = pmi_chunk_ref(fill);
        kept->at = fill->len;
        fill->len += kept->len;
        pmi_chunk_unref(from);
    }
    window->holes = 0;
}

static void window_remove(pmi_window *window, uint64_t number)
{
    uint64_t oldest = pmi_window_oldest(window);
    uint32_t index = (uint32_t)(number - oldest);
    window_kept gone = *window_at(window, index);
    for (; index + 1 < window->count; index++)
        *window_at(window, index) = *window_at(window, index + 1);
    window->bytes -= gone.len + PMI_WINDOW_HEAD;
    window->count--;
    window->last--;
    window->holes += gone.len;
    pmi_chunk_unref(gone.chunk);
    if (window->holes > window->bytes_max / 2)
        window_pack(window);
}

/* Serials ascend, and go round. */
static uint64_t window_number_of(const pmi_window *window, uint32_t serial)
{
    uint32_t from = 0, to = window->count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        uint32_t found = window_at(window, middle)->serial;
        if (found == serial)
            return pmi_window_oldest(window) + middle;
        if (found - serial > UINT32_MAX / 2) /* it is an earlier one */
            from = middle + 1;
        else
            to = middle;
    }
    return 0;
}

/* Also when it is not kept any more: the numbers tell what was sent. */
void pmi_window_take_out(pmi_window *window, uint32_t serial)
{
    uint64_t number = window_number_of(window, serial);
    if (number)
        window_remove(window, number);
    else if (window->last)
        window->last--;
}

/* Bytes of those behind `sent`, and the first loose one of them, or of this
 * key. */
static size_t window_unsent(const pmi_window *window, uint64_t sent,
                            uint64_t key, uint64_t *loose)
{
    uint64_t number = pmi_window_oldest(window);
    size_t bytes = 0;
    *loose = 0;
    for (uint32_t i = 0; i < window->count; i++, number++) {
        const window_kept *kept = window_at(window, i);
        if (number <= sent)
            continue;
        bytes += kept->len + PMI_WINDOW_HEAD;
        if (!*loose && kept->terms.loose && (!key || kept->terms.key == key))
            *loose = number;
    }
    return bytes;
}

size_t pmi_window_behind(const pmi_window *window, uint64_t sent)
{
    uint64_t loose;
    return window_unsent(window, sent, 0, &loose);
}

bool pmi_window_make_room(pmi_window *window, uint64_t sent, size_t len,
                          const pmi_window_terms *terms, uint32_t *dropped)
{
    bool take = !terms || terms->loose;
    uint64_t loose = 0;
    size_t need;
    *dropped = 0;
    if (!pmi_add_size(len, PMI_WINDOW_HEAD, &need) || need > window->bytes_max)
        return false;
    if (terms && terms->key)
        window_unsent(window, sent, terms->key, &loose);
    for (; loose; (*dropped)++) {
        window_remove(window, loose);
        loose = 0;
    }
    while (window->bytes > window->bytes_max - need) {
        if (window_unsent(window, sent, 0, &loose) <= window->bytes_max - need)
            break; /* those that were sent go first */
        if (!loose || !take)
            return false;
        window_remove(window, loose);
        (*dropped)++;
    }
    return true;
}
