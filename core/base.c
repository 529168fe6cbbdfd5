/* SPDX-License-Identifier: MIT */
/* core/base.c -- the ground: allocator, log, formatting, the public tables.
 *
 * Everything above gets its memory through a pmi_env, so that a host can
 * count it and a test can make it fail; the C library's malloc is called in
 * this file and nowhere else. The tables of errors and of close reasons are
 * made from the X-macros in pomelo.h, so that a new entry needs one line there
 * and none here. Start reading at pmi_env_init(). */
#include "base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Bytes of one log line, as the header promises. */
#define BASE_LINE_MAX 1000

/* ---- Public tables ----------------------------------------------------- */
const char *pm_version(void)
{
    return PM_VERSION;
}

const char *pm_strerror(pm_err err)
{
    switch (err) {
#define BASE_TEXT(name, value, text)                                           \
    case name:                                                                 \
        return text;
        PM_ERRORS(BASE_TEXT)
#undef BASE_TEXT
    }
    return "unknown error";
}

const char *pm_err_name(pm_err err)
{
    switch (err) {
#define BASE_NAME(name, value, text)                                           \
    case name:                                                                 \
        return #name;
        PM_ERRORS(BASE_NAME)
#undef BASE_NAME
    }
    return "unknown";
}

const char *pm_close_text(pm_close_reason reason)
{
    switch (reason) {
#define BASE_TEXT(name, value, text)                                           \
    case name:                                                                 \
        return text;
        PM_CLOSE_REASONS(BASE_TEXT)
#undef BASE_TEXT
    case PM_CLOSE_COUNT:
        break;
    }
    return "unknown reason";
}

/* ---- Allocator --------------------------------------------------------- */
static void *base_alloc(size_t bytes, void *ctx)
{
    (void)ctx;
    return malloc(bytes);
}

static void *base_resize(void *ptr, size_t bytes, void *ctx)
{
    (void)ctx;
    return realloc(ptr, bytes);
}

static void base_release(void *ptr, void *ctx)
{
    (void)ctx;
    free(ptr);
}

/* Three functions or none: a triple with a hole would give one allocator's
 * memory to another one's release. */
void pmi_env_init(pmi_env *env, const pm_alloc *alloc)
{
    memset(env, 0, sizeof *env);
    env->log_level = PM_LOG_INFO;
    if (alloc && alloc->alloc && alloc->resize && alloc->release) {
        env->alloc = *alloc;
        return;
    }
    env->alloc.alloc = base_alloc;
    env->alloc.resize = base_resize;
    env->alloc.release = base_release;
}

void *pmi_alloc(const pmi_env *env, size_t bytes)
{
    return env->alloc.alloc(bytes ? bytes : 1, env->alloc.ctx);
}

void *pmi_zalloc(const pmi_env *env, size_t bytes)
{
    void *ptr = pmi_alloc(env, bytes);
    if (ptr)
        memset(ptr, 0, bytes);
    return ptr;
}

void *pmi_resize(const pmi_env *env, void *ptr, size_t bytes)
{
    return env->alloc.resize(ptr, bytes ? bytes : 1, env->alloc.ctx);
}

void *pmi_resize_array(const pmi_env *env, void *ptr, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    return pmi_resize(env, ptr, count * size);
}

void pmi_free(const pmi_env *env, void *ptr)
{
    if (ptr)
        env->alloc.release(ptr, env->alloc.ctx);
}

char *pmi_strndup(const pmi_env *env, const void *data, size_t len)
{
    size_t bytes;
    char *copy;
    if (!pmi_add_size(len, 1, &bytes))
        return NULL;
    copy = pmi_alloc(env, bytes);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, data, len);
    copy[len] = 0;
    return copy;
}

void pmi_spares_init(pmi_spares *spares, const pmi_env *env, size_t bytes,
                     size_t cleared, uint32_t max)
{
    PMI_ASSERT(bytes >= sizeof(void *) && cleared <= bytes);
    memset(spares, 0, sizeof *spares);
    spares->env = env;
    spares->bytes = (uint32_t)bytes;
    spares->cleared = (uint32_t)cleared;
    spares->max = max;
}

void *pmi_spares_get(pmi_spares *spares)
{
    void *block = spares->first;
    if (block) {
        memcpy(&spares->first, block, sizeof spares->first);
        spares->kept--;
    } else if (!(block = pmi_alloc(spares->env, spares->bytes))) {
        return NULL;
    }
    return memset(block, 0, spares->cleared);
}

void pmi_spares_put(pmi_spares *spares, void *block)
{
    if (!block || spares->kept >= spares->max) {
        pmi_free(spares->env, block);
        return;
    }
    memcpy(block, &spares->first, sizeof spares->first);
    spares->first = block;
    spares->kept++;
}

void pmi_spares_fini(pmi_spares *spares)
{
    while (spares->first) {
        void *block = spares->first;
        memcpy(&spares->first, block, sizeof spares->first);
        pmi_free(spares->env, block);
    }
    spares->kept = 0;
}

char *pmi_strdup(const pmi_env *env, const char *text)
{
    return pmi_strndup(env, text, strlen(text));
}

/* ---- Text -------------------------------------------------------------- */
static size_t base_vformat(char *out, size_t size, const char *fmt,
                           va_list args)
{
    int n;
    if (!size)
        return 0;
    n = vsnprintf(out, size, fmt, args);
    if (n < 0) {
        out[0] = 0;
        return 0;
    }
    return pmi_min((size_t)n, size - 1);
}

size_t pmi_format(char *out, size_t size, const char *fmt, ...)
{
    va_list args;
    size_t len;
    va_start(args, fmt);
    len = base_vformat(out, size, fmt, args);
    va_end(args);
    return len;
}

/* Text from strangers may stand in a line: a line end in it must not look
 * like a second line, and a terminal must not be steered by it. */
static void base_clean_line(char *line)
{
    for (; *line; line++)
        if ((unsigned char)*line < 0x20 || *line == 0x7f)
            *line = ' ';
}

void pmi_log_line(const pmi_env *env, pm_log_level level, const char *module,
                  const char *fmt, ...)
{
    char line[BASE_LINE_MAX + 1];
    va_list args;
    if (!env->log || level > env->log_level)
        return;
    va_start(args, fmt);
    base_vformat(line, sizeof line, fmt, args);
    va_end(args);
    base_clean_line(line);
    env->log(env->log_ctx, level, module, line);
}
