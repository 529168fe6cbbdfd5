/* SPDX-License-Identifier: MIT */
/* core/base.h -- the ground: allocator, log, asserts, lists, arithmetic.
 *
 * The vocabulary that the public header shares with everything (pm_err,
 * pm_slice, pm_alloc, pm_log_level) comes from pomelo.h; nothing else of
 * it is used on the floors of core/.
 *
 * pmi_env is what every module needs and nobody owns alone: the allocator
 * and the log of the loop it lives on. It is borrowed: the loop's. */
#ifndef PMI_BASE_H
#define PMI_BASE_H

#include "../pomelo.h"

#include <string.h>

#if defined(__GNUC__)
#define PMI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define PMI_LIKELY(x) __builtin_expect(!!(x), 1)
#define PMI_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define PMI_PRINTF(fmt, args)
#define PMI_LIKELY(x) (x)
#define PMI_UNLIKELY(x) (x)
#endif

/* The struct of type T whose member M lies at P. */
#define PMI_OUTER(P, T, M) ((T *)(void *)((char *)(P)-offsetof(T, M)))
#define PMI_COUNT(A) (sizeof(A) / sizeof((A)[0]))

/* ---- Asserts ----------------------------------------------------------- */
/* For invariants of our own, never for bytes or arguments from outside.
 * On with PMI_DEBUG (tests, debug builds): a trap, so that a debugger and
 * the sanitizers show the place. Off otherwise: costs nothing. */
#ifdef PMI_DEBUG
#define PMI_ASSERT(x) ((x) ? (void)0 : __builtin_trap())
#else
#define PMI_ASSERT(x) ((void)sizeof(!(x)))
#endif

/* ---- Environment: allocator and log ------------------------------------ */
typedef struct pmi_env {
    pm_alloc alloc; /* all three functions set */
    pm_log_cb log;  /* may be NULL: silent */
    void *log_ctx;
    pm_log_level log_level; /* lines above it are not even formatted */
} pmi_env;

/* Fills in what `alloc` leaves out (NULL: the C library's malloc). */
void pmi_env_init(pmi_env *env, const pm_alloc *alloc);

/* All may return NULL; a size of 0 is taken as 1. */
void *pmi_alloc(const pmi_env *env, size_t bytes);
void *pmi_zalloc(const pmi_env *env, size_t bytes);
void *pmi_resize(const pmi_env *env, void *ptr, size_t bytes);
/* The one place where count times size is checked for overflow.
 * ptr NULL allocates. New bytes are not cleared. */
void *pmi_resize_array(const pmi_env *env, void *ptr, size_t count,
                       size_t size);
void pmi_free(const pmi_env *env, void *ptr); /* NULL is fine */
/* A copy with a 0 byte behind it. */
char *pmi_strdup(const pmi_env *env, const char *text);
char *pmi_strndup(const pmi_env *env, const void *data, size_t len);

/* Blocks of one size that wait for their next use: what comes and goes with
 * every message is allocated once. */
typedef struct pmi_spares {
    const pmi_env *env;
    void *first; /* each block begins with a pointer to the next */
    uint32_t bytes, cleared, kept, max;
} pmi_spares;
/* bytes: of a block, at least a pointer; cleared: so many of them are 0 when it
 * is got; max: so many are kept. */
void pmi_spares_init(pmi_spares *spares, const pmi_env *env, size_t bytes,
                     size_t cleared, uint32_t max);
/* NULL: out of memory. */
void *pmi_spares_get(pmi_spares *spares);
/* NULL is fine. */
void pmi_spares_put(pmi_spares *spares, void *block);
void pmi_spares_fini(pmi_spares *spares);

/* One formatted line to the log, cut at 1000 bytes. `module` is a literal
 * like "conn". The macro tests the level before the arguments are
 * evaluated. */
void pmi_log_line(const pmi_env *env, pm_log_level level, const char *module,
                  const char *fmt, ...) PMI_PRINTF(4, 5);
#define PMI_LOG(env, level, module, ...)                                       \
    ((env)->log && (level) <= (env)->log_level                                 \
         ? pmi_log_line((env), (level), (module), __VA_ARGS__)                 \
         : (void)0)

/* ---- Lists ------------------------------------------------------------- */
/* A ring with the list itself as its head; a node that is in no list
 * points to itself or is all zero. Removing twice is harmless. */
typedef struct pmi_link {
    struct pmi_link *prev, *next;
} pmi_link;

static inline void pmi_list_init(pmi_link *list)
{
    list->prev = list->next = list;
}

static inline bool pmi_list_empty(const pmi_link *list)
{
    return list->next == list || !list->next;
}

/* True when a node is in a list. */
static inline bool pmi_link_in(const pmi_link *node)
{
    return node->next && node->next != node;
}

static inline void pmi_list_add(pmi_link *list, pmi_link *node) /* at the end */
{
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

static inline void pmi_list_add_front(pmi_link *list, pmi_link *node)
{
    node->next = list->next;
    node->prev = list;
    list->next->prev = node;
    list->next = node;
}

static inline void pmi_list_remove(pmi_link *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = node;
}

/* First node, taken out; NULL when empty. Walks that call out take nodes
 * one by one from a list that they moved aside (pmi_list_move). */
static inline pmi_link *pmi_list_take(pmi_link *list)
{
    pmi_link *node = list->next;
    if (pmi_list_empty(list))
        return NULL;
    pmi_list_remove(node);
    return node;
}

/* All of `from` to the end of `to`; `from` is empty afterwards. */
static inline void pmi_list_move(pmi_link *to, pmi_link *from)
{
    if (pmi_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    pmi_list_init(from);
}

/* ---- Arithmetic, bytes, text ------------------------------------------- */
/* False on overflow, *out untouched. */
static inline bool pmi_add_size(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b)
        return false;
    *out = a + b;
    return true;
}

static inline size_t pmi_min(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t pmi_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline void pmi_put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline uint32_t pmi_get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
           p[3];
}

static inline bool pmi_slice_eq(pm_slice a, pm_slice b)
{
    return a.len == b.len && (a.len == 0 || !memcmp(a.data, b.data, a.len));
}

/* snprintf that always ends with 0 and returns the length written. */
size_t pmi_format(char *out, size_t size, const char *fmt, ...)
    PMI_PRINTF(3, 4);

#endif
