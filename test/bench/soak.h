/* SPDX-License-Identifier: MIT */
/* test/bench/soak.h -- a cluster of processes for a long time: people come and
 * go, servers are killed, and in the end nothing has become more.
 *
 *   soak.c         the director: processes, faults, progress, the verdict
 *   soak_server.c  one server of the table; tells twice a second how it is
 *   soak_bots.c    the people, and strangers who send nonsense */
#ifndef SOAK_H
#define SOAK_H

#include "pomelo.h"

#include <stdio.h>

enum {
    SOAK_SERVERS = 4,
    SOAK_PORTS = 6,
    SOAK_BOTS = 60,
    SOAK_ROOMS = 10,
    SOAK_LINE = 256
};

/* An allocator that counts. */
typedef struct soak_heap {
    size_t live, blocks;
} soak_heap;
pm_alloc soak_alloc(soak_heap *heap);
/* Open descriptors of this process. */
int soak_descriptors(void);
uint64_t soak_now_us(void);

/* connector-1, connector-2, chat-1, chat-2: the ports follow `base`. */
void soak_table(pm_server table[SOAK_SERVERS], uint16_t base);
/* Runs until its stdin ends. What it says on stdout is one line a time:
 *   live BLOCKS BYTES fds N asked N told N sessions N */
int soak_server(const char *id, uint16_t base);

/* ---- The people -------------------------------------------------------- */
typedef struct soak_people soak_people;
typedef struct soak_tally {
    uint64_t asked, told; /* requests, and their answers of any kind */
    uint64_t good, refused, lost, late, wrong;
    uint64_t pushes, came, strangers;
} soak_tally;

soak_people *soak_people_new(pm_loop *loop, uint16_t base, uint64_t seed);
/* To be called often: whoever is due does something. */
void soak_people_turn(soak_people *people);
/* Nobody pauses between two requests. */
void soak_people_hurry(soak_people *people, bool hurry);
/* Everybody leaves, and nobody comes any more. */
void soak_people_leave(soak_people *people);
const soak_tally *soak_people_tally(const soak_people *people);
void soak_people_free(soak_people *people);

#endif
