/* SPDX-License-Identifier: MIT */
/* test/bench/loadgen_stat.c -- times, and what /proc tells of the servers. */
#include "loadgen.h"

#include <dirent.h>
#include <time.h>
#include <unistd.h>

uint64_t load_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Histogram: LOAD_STEPS in each power of two -------------------------- */

void load_times_add(load_times *times, uint64_t ns)
{
    size_t slot = (size_t)ns;
    if (ns >= LOAD_STEPS) {
        unsigned top = 63 - (unsigned)__builtin_clzll(ns);
        slot = (size_t)(top - 4) * LOAD_STEPS +
               (size_t)(ns >> (top - 5) & (LOAD_STEPS - 1));
    }
    times->slots[slot < LOAD_SLOTS ? slot : LOAD_SLOTS - 1]++;
    times->count++;
}

/* The middle of the slot in which the quantile lies. */
double load_times_us(const load_times *times, double quantile)
{
    uint64_t want = (uint64_t)(quantile * (double)times->count), seen = 0;
    for (size_t i = 0; i < LOAD_SLOTS; i++) {
        seen += times->slots[i];
        if (seen <= want)
            continue;
        if (i < LOAD_STEPS)
            return (double)i / 1000;
        uint64_t width = (uint64_t)1 << (i / LOAD_STEPS - 1);
        double from = (double)((LOAD_STEPS + i % LOAD_STEPS) * width);
        return (from + (double)width / 2) / 1000;
    }
    return 0;
}

/* ---- /proc --------------------------------------------------------------- */

static bool load_read_proc(int pid, const char *name, char *out, size_t size)
{
    char path[64];
    size_t len = 0;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    file = fopen(path, "r");
    if (file) {
        len = fread(out, 1, size - 1, file);
        fclose(file);
    }
    out[len] = 0;
    return len > 0;
}

/* Nanoseconds that all its threads have run; 0 when nobody counts them. */
static double load_pid_threads_ns(int pid)
{
    char path[64], text[128];
    double sum = 0;
    struct dirent *entry;
    DIR *folder;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    folder = opendir(path);
    while (folder && (entry = readdir(folder))) {
        snprintf(path, sizeof path, "task/%.20s/schedstat", entry->d_name);
        if (entry->d_name[0] != '.' &&
            load_read_proc(pid, path, text, sizeof text))
            sum += strtod(text, NULL);
    }
    if (folder)
        closedir(folder);
    return sum;
}

/* Where nanoseconds are not counted, ticks of 10 ms must do. */
static double load_pid_cpu_us(int pid)
{
    double ns = load_pid_threads_ns(pid);
    char text[1024];
    const char *at;
    unsigned long user = 0, system = 0;
    if (ns > 0)
        return ns / 1000;
    if (!load_read_proc(pid, "stat", text, sizeof text))
        load_die("there is no process %d", pid);
    at = strrchr(text, ')');
    if (at)
        sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
               &user, &system);
    return (double)(user + system) * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

double load_pids_cpu_us(const load *self)
{
    double sum = 0;
    for (size_t i = 0; i < self->pids_count; i++)
        sum += load_pid_cpu_us(self->pids[i]);
    return sum;
}

long load_pids_rss_kb(const load *self)
{
    char text[4096];
    long sum = 0;
    for (size_t i = 0; i < self->pids_count; i++) {
        const char *at;
        load_read_proc(self->pids[i], "status", text, sizeof text);
        at = strstr(text, "VmRSS:");
        sum += at ? strtol(at + 6, NULL, 10) : 0;
    }
    return sum;
}
