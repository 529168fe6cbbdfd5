/* SPDX-License-Identifier: MIT */
/* pomelo_run_log.c -- the lines of a process: to stderr, or to a file of its
 * own that is turned over when it is full.
 *
 *   2026-01-31T12:00:00.000Z info  chat-server-1 run: started
 *   {"time":"...","level":"info","server":"...","module":"run","line":"..."}
 *
 * log, log.1, log.2 ... : the higher the older. A disk that is full or a folder
 * that is gone loses lines, never the server; once a second it is tried again.
 * Start at pmi_run_log_line. */
#include "pomelo_run_log_internal.h"

#include "core/buf.h"
#include "core/json.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const log_names[] = {"", "error", "warn", "info", "debug"};

/* ---- The file ---------------------------------------------------------- */

static void log_make_folders(char *path)
{
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            mkdir(path, 0777);
            *at = '/';
        }
}

static bool log_open(pmi_run_log *log)
{
    struct stat about;
    log_make_folders(log->path);
    log->file = fopen(log->path, "ae");
    log->bytes = 0;
    if (log->file && fstat(fileno(log->file), &about) == 0)
        log->bytes = (uint64_t)about.st_size;
    return log->file != NULL;
}

static void log_open_again(pmi_run_log *log)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec == log->tried_s)
        return;
    log->tried_s = now.tv_sec;
    log_open(log);
}

static void log_turn_over(pmi_run_log *log)
{
    size_t size = strlen(log->path) + 16;
    char *from = pmi_alloc(&log->heap, size), *to = pmi_alloc(&log->heap, size);
    if (from && to) {
        fclose(log->file);
        for (uint64_t i = log->rules.keep; i > 0; i--) {
            pmi_format(from, size, "%s.%u", log->path, (unsigned)(i - 1));
            pmi_format(to, size, "%s.%u", log->path, (unsigned)i);
            rename(i == 1 ? log->path : from, to);
        }
        if (log->rules.keep == 0)
            remove(log->path);
        log_open(log);
    }
    pmi_free(&log->heap, from);
    pmi_free(&log->heap, to);
}

/* "${opts:serverId}" of the rule becomes the id, without slashes. */
static pm_err log_path(pmi_run_log *log)
{
    static const char mark[] = "${opts:serverId}";
    const char *file = log->rules.file, *at = strstr(file, mark);
    size_t head = at ? (size_t)(at - file) : strlen(file);
    size_t size = strlen(file) + strlen(log->id) + 1;
    log->path = pmi_alloc(&log->heap, size);
    if (!log->path)
        return PM_ENOMEM;
    pmi_format(log->path, size, "%.*s%s%s", (int)head, file, at ? log->id : "",
               at ? at + sizeof mark - 1 : "");
    for (size_t i = 0; at && log->id[i]; i++)
        if (log->path[head + i] == '/')
            log->path[head + i] = '_';
    return PM_OK;
}

pm_err pmi_run_log_open(pmi_run_log *log, const pmi_log_rules *rules,
                        const char *id)
{
    pm_err err;
    pmi_env_init(&log->heap, NULL);
    log->rules = *rules;
    log->id = id;
    if (!rules->stderr_given)
        log->rules.to_stderr = !rules->file || isatty(STDERR_FILENO);
    if (!rules->file)
        return PM_OK;
    err = log_path(log);
    if (err)
        return err;
    if (log_open(log))
        return PM_OK;
    log->rules.to_stderr = true;
    return PM_ENET;
}

void pmi_run_log_close(pmi_run_log *log)
{
    if (log->file)
        fclose(log->file);
    if (log->path)
        pmi_free(&log->heap, log->path);
    memset(log, 0, sizeof *log);
}

/* ---- A line ------------------------------------------------------------ */

static void log_time(char out[32])
{
    struct timespec now;
    struct tm utc;
    size_t len;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    len = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    pmi_format(out + len, 32 - len, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

static void log_member(pmi_buf *out, const char *name, const char *value)
{
    pmi_buf_add_format(out, "%s\"%s\":", out->len ? "," : "{", name);
    pmi_json_add_string(out, pm_text(value));
}

static void log_compose(const pmi_run_log *log, pmi_buf *out,
                        pm_log_level level, const char *module,
                        const char *line)
{
    char when[32];
    log_time(when);
    if (!log->rules.json) {
        pmi_buf_add_format(out, "%s %-5s %s %s: %s\n", when, log_names[level],
                           log->id, module, line);
        return;
    }
    log_member(out, "time", when);
    log_member(out, "level", log_names[level]);
    log_member(out, "server", log->id);
    log_member(out, "module", module);
    log_member(out, "line", line);
    pmi_buf_add_text(out, "}\n");
}

void pmi_run_log_line(void *ctx, pm_log_level level, const char *module,
                      const char *line)
{
    pmi_run_log *log = ctx;
    pmi_buf out;
    if (!log->id) {
        fprintf(stderr, "%-5s %s: %s\n", log_names[level], module, line);
        return;
    }
    if (level > pmi_log_rules_level(&log->rules, module))
        return;
    pmi_buf_init(&out, &log->heap, SIZE_MAX);
    log_compose(log, &out, level, module, line);
    if (log->rules.to_stderr)
        fwrite(out.data, 1, out.len, stderr);
    if (log->path && !log->file)
        log_open_again(log);
    if (log->file && log->rules.max_bytes &&
        log->bytes + out.len > log->rules.max_bytes && log->bytes > 0)
        log_turn_over(log);
    if (log->file && fwrite(out.data, 1, out.len, log->file) == out.len) {
        log->bytes += out.len;
        fflush(log->file);
    }
    pmi_buf_fini(&out);
}
