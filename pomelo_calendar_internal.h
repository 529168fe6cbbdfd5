/* SPDX-License-Identifier: MIT */
/* pomelo_calendar_internal.h -- the time of a cron: when does it come next? */
#ifndef PMI_CALENDAR_INTERNAL_H
#define PMI_CALENDAR_INTERNAL_H

#include "core/base.h"

/* What is wanted, a bit a value. Months from 0, weekdays from Sunday. */
typedef struct pmi_calendar {
    uint64_t seconds, minutes;
    uint32_t hours; /* 24: the midnight that ends the day */
    uint32_t days;
    uint16_t months;
    uint8_t weekdays;
    bool every_hour, every_year;
    uint64_t years[3]; /* from PMI_CALENDAR_YEAR_MIN; unless every_year */
} pmi_calendar;

enum { PMI_CALENDAR_YEAR_MIN = 1970, PMI_CALENDAR_YEAR_MAX = 2099 };
#define PMI_CALENDAR_NEVER INT64_MAX

/* Six fields, or seven. PM_EINVAL: `why` says which field, what was expected
 * and what was found. */
pm_err pmi_calendar_parse(pmi_calendar *calendar, const char *text, char *why,
                          size_t why_size);

/* Where local time is: seconds ahead of UTC at that moment. Must not move by
 * more than once in a day. */
typedef struct pmi_calendar_zone {
    int32_t (*offset_s)(void *ctx, int64_t utc_s);
    void *ctx;
} pmi_calendar_zone;

/* The first second (UTC, since 1970) behind `after_s` at which it is due, or
 * PMI_CALENDAR_NEVER. */
int64_t pmi_calendar_next(const pmi_calendar *calendar, int64_t after_s,
                          const pmi_calendar_zone *zone);

#endif
