/* SPDX-License-Identifier: MIT */
/* core/wheel.c -- a hierarchical timer wheel that keeps order.
 *
 * A tick is read as nine digits of 6 bits. A node lies at the level of the
 * highest digit in which its tick differs from the wheel's, in that digit's
 * slot:
 *
 *     wheel at        0.0.5.12
 *     due at 0.0.5.40 level 0, slot 40     this row of 64 ticks
 *     due at 0.0.9.3  level 1, slot 9      a later row
 *     due at 0.2.0.0  level 2, slot 2      a later page of rows
 *
 * When the wheel reaches the beginning of a coarser slot, that slot is dealt
 * out to the levels below. The level is a function of the two ticks alone, so
 * all nodes of one tick always lie in one list, in the order in which they
 * were added: dealing out keeps it. (Wheels that choose the level by distance
 * lose it.) Empty stretches are jumped by the bit maps, so that a virtual
 * clock may leap by years. Start reading at pmi_wheel_add(). */
#include "wheel.h"

void pmi_wheel_init(pmi_wheel *wheel, uint64_t tick)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->tick = tick < PMI_WHEEL_TICK_MAX ? tick : PMI_WHEEL_TICK_MAX;
    for (size_t level = 0; level < PMI_WHEEL_LEVELS; level++)
        for (size_t slot = 0; slot < PMI_WHEEL_SLOTS; slot++)
            pmi_list_init(&wheel->slots[level][slot]);
}

void pmi_wheel_clear(pmi_wheel *wheel)
{
    for (size_t level = 0; level < PMI_WHEEL_LEVELS; level++)
        for (size_t slot = 0; slot < PMI_WHEEL_SLOTS; slot++)
            while (pmi_list_take(&wheel->slots[level][slot]))
                continue;
}

/* Where the highest bit stands that is set. */
static unsigned wheel_high_bit(uint64_t v)
{
#if defined(__GNUC__)
    return 63u - (unsigned)__builtin_clzll(v);
#else
    unsigned bit = 0;
    while (v >>= 1)
        bit++;
    return bit;
#endif
}

static unsigned wheel_low_bit(uint64_t v)
{
    return wheel_high_bit(v & (~v + 1));
}

static unsigned wheel_digit(uint64_t tick, unsigned level)
{
    return (unsigned)(tick >> (level * PMI_WHEEL_BITS)) & (PMI_WHEEL_SLOTS - 1);
}

/* Due now or later; equal ticks go to level 0, where advance is just looking.
 */
static void wheel_place(pmi_wheel *wheel, pmi_wheel_node *node)
{
    uint64_t differ = node->due_tick ^ wheel->tick;
    unsigned level = differ ? wheel_high_bit(differ) / PMI_WHEEL_BITS : 0;
    unsigned slot = wheel_digit(node->due_tick, level);
    PMI_ASSERT(level < PMI_WHEEL_LEVELS && node->due_tick >= wheel->tick);
    wheel->used[level] |= UINT64_C(1) << slot;
    pmi_list_add(&wheel->slots[level][slot], &node->link);
}

void pmi_wheel_add(pmi_wheel *wheel, pmi_wheel_node *node)
{
    if (node->due_tick <= wheel->tick)
        node->due_tick = wheel->tick + 1;
    if (node->due_tick > PMI_WHEEL_TICK_MAX)
        node->due_tick = PMI_WHEEL_TICK_MAX;
    wheel_place(wheel, node);
}

/* The first slot behind the wheel's own at this level that holds a node, or
 * PMI_WHEEL_SLOTS. Nodes leave without telling, so a bit may be stale: it is
 * cleared here, once for each time that it was set. */
static unsigned wheel_next_slot(pmi_wheel *wheel, unsigned level)
{
    unsigned at = wheel_digit(wheel->tick, level);
    uint64_t behind = at == 63 ? 0 : ~UINT64_C(0) << (at + 1);
    uint64_t left;
    while ((left = wheel->used[level] & behind) != 0) {
        unsigned slot = wheel_low_bit(left);
        if (!pmi_list_empty(&wheel->slots[level][slot]))
            return slot;
        wheel->used[level] &= ~(UINT64_C(1) << slot);
    }
    return PMI_WHEEL_SLOTS;
}

/* A lower level lies wholly before the next slot of a higher one, so the first
 * level that has something has the answer. */
uint64_t pmi_wheel_next(pmi_wheel *wheel)
{
    for (unsigned level = 0; level < PMI_WHEEL_LEVELS; level++) {
        unsigned slot = wheel_next_slot(wheel, level);
        unsigned shift = level * PMI_WHEEL_BITS;
        if (slot == PMI_WHEEL_SLOTS)
            continue;
        uint64_t above = wheel->tick >> shift >> PMI_WHEEL_BITS;
        return (above << PMI_WHEEL_BITS | slot) << shift;
    }
    return UINT64_MAX;
}

/* The wheel stands at the beginning of this slot: its nodes go to where they
 * belong from here. */
static void wheel_deal(pmi_wheel *wheel, unsigned level)
{
    unsigned slot = wheel_digit(wheel->tick, level);
    pmi_link all;
    pmi_link *link;
    pmi_list_init(&all);
    wheel->used[level] &= ~(UINT64_C(1) << slot);
    pmi_list_move(&all, &wheel->slots[level][slot]);
    while ((link = pmi_list_take(&all)) != NULL)
        wheel_place(wheel, PMI_OUTER(link, pmi_wheel_node, link));
}

void pmi_wheel_advance(pmi_wheel *wheel, uint64_t tick, pmi_link *due)
{
    if (tick > PMI_WHEEL_TICK_MAX)
        tick = PMI_WHEEL_TICK_MAX;
    while (wheel->tick < tick) {
        uint64_t next = pmi_wheel_next(wheel);
        if (next > tick) {
            wheel->tick = tick;
            return;
        }
        wheel->tick = next;
        /* Where lower digits are not all 0 the slot was dealt out before, and
         * is empty now. */
        for (unsigned level = PMI_WHEEL_LEVELS - 1; level > 0; level--)
            wheel_deal(wheel, level);
        unsigned slot = wheel_digit(next, 0);
        wheel->used[0] &= ~(UINT64_C(1) << slot);
        pmi_list_move(due, &wheel->slots[0][slot]);
    }
}
