/* SPDX-License-Identifier: MIT */
/* core/host.c -- what this machine and this process say of themselves.
 *
 * Each system keeps these in another place; what it does not tell is left 0.
 * Nothing here is asked for on the data path. */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
#include <malloc.h>
#define HOST_MALLINFO2
#endif

static double host_seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

#ifdef __linux__
/* The second number of statm: pages in memory. */
static uint64_t host_rss(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}
#else
static uint64_t host_rss(void)
{
    return 0;
}
#endif

void pmi_host_process_read(pmi_host_process *out)
{
    struct rusage usage;
    memset(out, 0, sizeof *out);
    out->pid = (int64_t)getpid();
    out->rss_bytes = host_rss();
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        out->user_s = host_seconds(usage.ru_utime);
        out->system_s = host_seconds(usage.ru_stime);
        if (!out->rss_bytes)
            out->rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
    }
#ifdef HOST_MALLINFO2
    struct mallinfo2 heap = mallinfo2();
    out->heap_bytes = heap.arena + heap.hblkhd;
    out->heap_used_bytes = heap.uordblks + heap.hblkhd;
#endif
}

void pmi_host_machine_read(pmi_host_machine *out)
{
    long page = sysconf(_SC_PAGESIZE), cpus = sysconf(_SC_NPROCESSORS_ONLN);
    memset(out, 0, sizeof *out);
    if (gethostname(out->name, sizeof out->name - 1))
        out->name[0] = 0;
    if (getloadavg(out->load, 3) != 3)
        out->load[0] = out->load[1] = out->load[2] = -1;
    out->processors = cpus > 0 ? (uint32_t)cpus : 0;
#if defined(_SC_PHYS_PAGES) && defined(_SC_AVPHYS_PAGES)
    long all = sysconf(_SC_PHYS_PAGES), free_pages = sysconf(_SC_AVPHYS_PAGES);
    if (page > 0 && all > 0)
        out->memory_bytes = (uint64_t)all * (uint64_t)page;
    if (page > 0 && free_pages > 0)
        out->free_bytes = (uint64_t)free_pages * (uint64_t)page;
#else
    (void)page;
#endif
}

/* ---- Time -------------------------------------------------------------- */

int64_t pmi_host_wall_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int32_t pmi_host_utc_offset_s(int64_t utc_s)
{
    time_t at = (time_t)utc_s;
    struct tm local;
    return localtime_r(&at, &local) ? (int32_t)local.tm_gmtoff : 0;
}
