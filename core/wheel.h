/* SPDX-License-Identifier: MIT */
/* core/wheel.h -- timers by the tick: what is due, and when is the next.
 *
 * The inside of pmi_timer_set (core/loop.h). Knows ticks, no clock and no
 * callbacks; what is due comes out as a list of links. */
#ifndef PMI_WHEEL_H
#define PMI_WHEEL_H

#include "base.h"

/* 9 levels of 64 slots: 54 bits of ticks, 570,000 years of milliseconds. */
enum { PMI_WHEEL_BITS = 6, PMI_WHEEL_SLOTS = 64, PMI_WHEEL_LEVELS = 9 };
#define PMI_WHEEL_TICK_MAX ((UINT64_C(1) << 54) - 1)

/* What one timer is to the wheel: caller's storage, in one slot at a time. */
typedef struct pmi_wheel_node {
    pmi_link link;
    uint64_t due_tick;
} pmi_wheel_node;

typedef struct pmi_wheel {
    uint64_t tick; /* all up to this one have been given out */
    uint64_t used[PMI_WHEEL_LEVELS]; /* a bit for each slot that may hold one */
    pmi_link slots[PMI_WHEEL_LEVELS][PMI_WHEEL_SLOTS];
} pmi_wheel;

void pmi_wheel_init(pmi_wheel *wheel, uint64_t tick);
/* Unlinks all nodes. */
void pmi_wheel_clear(pmi_wheel *wheel);
/* The node, whose due_tick is set and which is in no list. A tick that has
 * been given out counts as the next one. A node is taken out again by
 * pmi_list_remove. */
void pmi_wheel_add(pmi_wheel *wheel, pmi_wheel_node *node);
/* Moves on to `tick` and appends what was due up to there to `due`: by tick,
 * and those of one tick in the order of pmi_wheel_add. */
void pmi_wheel_advance(pmi_wheel *wheel, uint64_t tick, pmi_link *due);
/* No node is due before this tick; UINT64_MAX: there is none. Exact for the
 * next 64 ticks, the beginning of a coarser slot beyond. */
uint64_t pmi_wheel_next(pmi_wheel *wheel);

#endif
