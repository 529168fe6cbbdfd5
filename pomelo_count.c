/* SPDX-License-Identifier: MIT */
/* pomelo_count.c -- what an app counts, and how long things take.
 *
 * A clock that is read for every answer would cost as much as counting does.
 * What ends in one turn leaves at its end, all together: so it is noted, in
 * runs of the same beginning, and measured there. Start at pmi_count_time. */
#include "pomelo_count_internal.h"

void pmi_counts_init(pmi_counts *counts, pm_loop *loop, const pmi_env *env)
{
    counts->loop = loop;
    counts->env = env;
    pmi_list_init(&counts->own);
}

void pmi_counts_fini(pmi_counts *counts)
{
    pmi_link *node;
    pmi_task_cancel(&counts->settle);
    counts->runs_count = 0;
    while ((node = pmi_list_take(&counts->own)))
        pmi_free(counts->env, PMI_OUTER(node, pmi_own_stat, link));
}

void pmi_count_failed(pm_app *app, pm_err err)
{
    static const struct {
        pm_err err;
        pmi_count_what what;
    } known[] = {
        {PM_ENOSERVER, PMI_COUNT_CALL_ENOSERVER},
        {PM_EDOWN, PMI_COUNT_CALL_EDOWN},
        {PM_ETIMEOUT, PMI_COUNT_CALL_ETIMEOUT},
        {PM_ECLOSED, PMI_COUNT_CALL_ECLOSED},
        {PM_ENOMETHOD, PMI_COUNT_CALL_ENOMETHOD},
        {PM_EREMOTE, PMI_COUNT_CALL_EREMOTE},
        {PM_ECANCELED, PMI_COUNT_CALL_ECANCELED},
    };
    pmi_count_what what = PMI_COUNT_CALL_OTHER;
    for (size_t i = 0; i < PMI_COUNT(known); i++)
        if (known[i].err == err) {
            what = known[i].what;
            break;
        }
    pmi_count(app, what);
}

/* ---- Times ------------------------------------------------------------- */

static void count_settle(pmi_counts *counts, uint64_t now_us)
{
    for (uint32_t i = 0; i < counts->runs_count; i++) {
        const pmi_count_run *run = &counts->runs[i];
        uint64_t us = now_us > run->since_us ? now_us - run->since_us : 0;
        pmi_histogram_add(run->times, us, run->count);
    }
    counts->runs_count = 0;
}

static void count_turn_ends(pmi_task *task)
{
    pmi_counts *counts = PMI_OUTER(task, pmi_counts, settle);
    count_settle(counts, pmi_loop_now_us(counts->loop));
}

void pmi_count_time(pmi_counts *counts, pmi_histogram **times,
                    uint64_t since_us)
{
    pmi_count_run *run = &counts->runs[counts->runs_count];
    if (counts->runs_count && run[-1].times == *times &&
        run[-1].since_us == since_us) {
        run[-1].count++;
        return;
    }
    if (!*times)
        *times = pmi_zalloc(counts->env, sizeof **times);
    if (!*times)
        return;
    if (counts->runs_count == PMI_COUNT_RUNS) {
        count_settle(counts, pmi_loop_clock_us(counts->loop));
        run = counts->runs;
    }
    run->times = *times;
    run->since_us = since_us;
    run->count = 1;
    counts->runs_count++;
    pmi_loop_at_end(counts->loop, &counts->settle, count_turn_ends);
}
