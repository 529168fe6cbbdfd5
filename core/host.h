/* SPDX-License-Identifier: MIT */
/* core/host.h -- what this machine and this process say of themselves. */
#ifndef PMI_HOST_H
#define PMI_HOST_H

#include "base.h"

typedef struct pmi_host_process {
    int64_t pid;
    uint64_t rss_bytes; /* in memory now; where nobody tells: at most so far */
    uint64_t heap_bytes, heap_used_bytes; /* malloc's; 0: nobody tells */
    double user_s, system_s;              /* processor time */
} pmi_host_process;
void pmi_host_process_read(pmi_host_process *out);

typedef struct pmi_host_machine {
    char name[256];
    double load[3]; /* 1, 5, 15 minutes; -1: nobody tells */
    uint64_t memory_bytes, free_bytes;
    uint32_t processors;
} pmi_host_machine;
void pmi_host_machine_read(pmi_host_machine *out);

/* Microseconds since 1970, UTC. This clock can be set. */
int64_t pmi_host_wall_us(void);
/* By how many seconds the zone of this process is ahead of UTC at that moment.
 * The zone is that of the first time it was needed. */
int32_t pmi_host_utc_offset_s(int64_t utc_s);

#endif
