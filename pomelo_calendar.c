/* SPDX-License-Identifier: MIT */
/* pomelo_calendar.c -- the time of a cron: when does it come next?
 *
 *     second minute hour day month weekday [year]
 *      0-59   0-59  0-24 1-31 0-11  0-6    1970-2099
 *
 * as Pomelo has it: months and weekdays count from 0, `r/p` is every value
 * whose remainder by p is r, day and weekday must both fit, 24 o'clock is the
 * midnight that ends the day. The year is ours.
 *
 * Two steps. On the clock face (calendar_face) there are only local seconds,
 * and the next one that fits is found field by field. Then the zone: its offset
 * is constant for months, so a day is looked at in pieces of constant offset,
 * and a wanted local second is due
 *
 *   - when the clock first shows it, or jumps over it: once, whatever the
 *     clock does in spring and autumn;
 *   - but if every hour is wanted, each time the clock shows it, so that
 *     "every ten minutes" stays every ten minutes.
 *
 * Knows no clock: start at pmi_calendar_next(). */
#include "pomelo_calendar_internal.h"

#define DAY_S INT64_C(86400)
#define HOURS_ALL UINT32_C(0xffffff)

/* ---- Reading ----------------------------------------------------------- */

typedef struct calendar_field {
    const char *name, *expected;
    uint32_t min, max;
} calendar_field;

#define OR_SO "\"*\", \"a-b\", \"r/p\" or a list of these"
static const calendar_field calendar_fields[] = {
    {"second", "a number from 0 to 59, " OR_SO, 0, 59},
    {"minute", "a number from 0 to 59, " OR_SO, 0, 59},
    {"hour", "a number from 0 to 24, " OR_SO, 0, 24},
    {"day", "a number from 1 to 31, " OR_SO, 1, 31},
    {"month", "a number from 0 (January) to 11, " OR_SO, 0, 11},
    {"weekday", "a number from 0 (Sunday) to 6, " OR_SO, 0, 6},
    {"year", "a number from 1970 to 2099, " OR_SO, PMI_CALENDAR_YEAR_MIN,
     PMI_CALENDAR_YEAR_MAX}};
#undef OR_SO

enum { FIELDS_MIN = 6, FIELDS_MAX = PMI_COUNT(calendar_fields) };

/* Bits of one field; the year has the most values. */
typedef struct calendar_bits {
    uint64_t word[3];
} calendar_bits;

static void calendar_set(calendar_bits *bits, uint32_t n)
{
    bits->word[n / 64] |= UINT64_C(1) << n % 64;
}

/* Moves *at behind the digits; false when there are none, or too many. */
static bool calendar_number(const char **at, const char *end, uint32_t *out)
{
    const char *begin = *at;
    uint32_t n = 0;
    for (; *at < end && **at >= '0' && **at <= '9' && *at - begin < 5; ++*at)
        n = 10 * n + (uint32_t)(**at - '0');
    *out = n;
    return *at > begin && *at - begin < 5;
}

/* "n", "a-b" or "r/p", all of it. */
static bool calendar_part(const calendar_field *field, const char *at,
                          const char *end, calendar_bits *bits)
{
    uint32_t a, b, min = field->min, base = 0;
    bool period;
    if (!calendar_number(&at, end, &a))
        return false;
    period = at < end && *at == '/';
    b = a;
    if (at < end && (*at == '-' || period)) {
        at++;
        if (!calendar_number(&at, end, &b))
            return false;
    }
    if (at != end || (period ? a >= b : a < min || b > field->max || a > b))
        return false;
    base = field->max > 63 ? min : 0; /* years do not begin at 0 */
    for (uint32_t i = period ? min : a; i <= (period ? field->max : b); i++)
        if (!period || i % b == a)
            calendar_set(bits, i - base);
    return true;
}

static bool calendar_read(const calendar_field *field, const char *at,
                          const char *end, calendar_bits *bits)
{
    memset(bits, 0, sizeof *bits);
    if (end - at == 1 && *at == '*') {
        uint32_t base = field->max > 63 ? field->min : 0;
        for (uint32_t i = field->min; i <= field->max; i++)
            calendar_set(bits, i - base);
        return true;
    }
    for (;;) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        if (!calendar_part(field, at, comma ? comma : end, bits))
            return false;
        if (!comma)
            break;
        at = comma + 1;
    }
    return (bits->word[0] | bits->word[1] | bits->word[2]) != 0;
}

static bool calendar_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void calendar_store(pmi_calendar *c, size_t field,
                           const calendar_bits *bits, bool all)
{
    uint64_t low = bits->word[0];
    switch (field) {
    case 0:
        c->seconds = low;
        break;
    case 1:
        c->minutes = low;
        break;
    case 2:
        /* "*" is any hour of the day; 24 is the day after, for who says so */
        c->hours = (uint32_t)low & (all ? HOURS_ALL : UINT32_MAX);
        c->every_hour = (low & HOURS_ALL) == HOURS_ALL;
        break;
    case 3:
        c->days = (uint32_t)low;
        break;
    case 4:
        c->months = (uint16_t)low;
        break;
    case 5:
        c->weekdays = (uint8_t)low;
        break;
    default:
        memcpy(c->years, bits->word, sizeof c->years);
        c->every_year = all;
    }
}

static int64_t calendar_face(const pmi_calendar *c, int64_t from);

/* So much of a field goes into a sentence: one line, whatever it holds. */
static int calendar_shown(const char *at, const char *end)
{
    int n = 0;
    while (n < 32 && at + n < end && (uint8_t)at[n] >= ' ' && at[n] != 0x7f)
        n++;
    return n;
}

pm_err pmi_calendar_parse(pmi_calendar *calendar, const char *text, char *why,
                          size_t why_size)
{
    size_t n = 0;
    memset(calendar, 0, sizeof *calendar);
    calendar->every_year = true;
    for (;; n++) {
        const char *end;
        calendar_bits bits;
        while (calendar_space(*text))
            text++;
        for (end = text; *end && !calendar_space(*end);)
            end++;
        if (end == text)
            break;
        if (n < FIELDS_MAX &&
            !calendar_read(&calendar_fields[n], text, end, &bits)) {
            pmi_format(why, why_size, "%s: expected %s, found \"%.*s\"",
                       calendar_fields[n].name, calendar_fields[n].expected,
                       calendar_shown(text, end), text);
            return PM_EINVAL;
        }
        if (n < FIELDS_MAX)
            calendar_store(calendar, n, &bits, *text == '*');
        text = end;
    }
    if (n < FIELDS_MIN || n > FIELDS_MAX)
        pmi_format(why, why_size,
                   "expected 6 fields (second minute hour day month weekday) "
                   "or 7 with a year, found %zu",
                   n);
    else if (calendar_face(calendar, 0) == PMI_CALENDAR_NEVER)
        pmi_format(why, why_size,
                   "expected a time that comes, found a day that no month has");
    else
        return PM_OK;
    return PM_EINVAL;
}

/* ---- The clock face ---------------------------------------------------- */

typedef struct calendar_date {
    int64_t year;
    uint32_t month, day; /* from 0, from 1 */
} calendar_date;

/* Years begin in March here, so that the leap day is a year's last: then the
 * months' lengths are a line (30.6 days), and 400 years are 146097 days. */
static calendar_date calendar_date_of(int64_t day)
{
    int64_t z = day + 719468; /* since 1 March of year 0 */
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    uint32_t doe = (uint32_t)(z - era * 146097);
    uint32_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    uint32_t month = (5 * doy + 2) / 153;
    calendar_date date;
    date.day = doy - (153 * month + 2) / 5 + 1;
    date.month = (month + 2) % 12;
    date.year = (int64_t)yoe + era * 400 + (date.month < 2);
    return date;
}

static bool calendar_bit(const uint64_t *words, int64_t n)
{
    return words[n / 64] >> (uint64_t)n % 64 & 1;
}

static bool calendar_year_fits(const pmi_calendar *c, int64_t year)
{
    return c->every_year ||
           (year >= PMI_CALENDAR_YEAR_MIN && year <= PMI_CALENDAR_YEAR_MAX &&
            calendar_bit(c->years, year - PMI_CALENDAR_YEAR_MIN));
}

static bool calendar_month_fits(const pmi_calendar *c,
                                const calendar_date *date)
{
    return (c->months >> date->month & 1) && calendar_year_fits(c, date->year);
}

static bool calendar_day_fits(const pmi_calendar *c, const calendar_date *date,
                              int64_t day)
{
    int64_t weekday = ((day + 4) % 7 + 7) % 7; /* 1 January 1970: Thursday */
    return (c->days >> date->day & 1) && (c->weekdays >> weekday & 1);
}

/* The first wanted second of a day, not before `from`; -1: none is left. */
static int64_t calendar_second(const pmi_calendar *c, int64_t from)
{
    for (int64_t h = from / 3600; h <= 24; h++) {
        int64_t rest = h == from / 3600 ? from % 3600 : 0;
        if (!(c->hours >> h & 1))
            continue;
        for (int64_t m = rest / 60; m < 60; m++) {
            int64_t s = m == rest / 60 ? rest % 60 : 0;
            if (!calendar_bit(&c->minutes, m))
                continue;
            for (; s < 60; s++)
                if (calendar_bit(&c->seconds, s))
                    return h * 3600 + m * 60 + s;
        }
    }
    return -1;
}

/* The first wanted local second, not before `from`. Everything that comes at
 * all comes within 400 years. */
static int64_t calendar_face(const pmi_calendar *c, int64_t from)
{
    int64_t day = (from >= 0 ? from : from - DAY_S + 1) / DAY_S;
    int64_t last = day + 146097;
    if (c->hours >> 24 & 1) /* yesterday may end today */
        day--;
    while (day <= last) {
        calendar_date date = calendar_date_of(day);
        int64_t left = from > day * DAY_S ? from - day * DAY_S : 0, second = -1;
        if (!calendar_month_fits(c, &date)) {
            day += date.day > 28 ? 1 : 29 - date.day;
            continue;
        }
        if (calendar_day_fits(c, &date, day))
            second = calendar_second(c, left);
        if (second >= 0)
            return day * DAY_S + second;
        day++;
    }
    return PMI_CALENDAR_NEVER;
}

/* ---- The zone ---------------------------------------------------------- */

static int64_t calendar_offset(const pmi_calendar_zone *zone, int64_t utc_s)
{
    return zone->offset_s(zone->ctx, utc_s);
}

/* The first second in (low, high] whose offset is not that of `low`; the one at
 * `high` is not. */
static int64_t calendar_change(const pmi_calendar_zone *zone, int64_t low,
                               int64_t high)
{
    int64_t offset = calendar_offset(zone, low);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (calendar_offset(zone, middle) == offset)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* The highest local second that the clock has shown up to `at`. */
static int64_t calendar_seen(const pmi_calendar_zone *zone, int64_t at)
{
    int64_t now = calendar_offset(zone, at);
    int64_t before = calendar_offset(zone, at - DAY_S);
    int64_t seen = at + now;
    if (before > now) {
        int64_t last = calendar_change(zone, at - DAY_S, at) - 1 + before;
        seen = last > seen ? last : seen;
    }
    return seen;
}

/* At most a day from `at` + 1, of one offset. *end: the last second of it. */
static int64_t calendar_piece(const pmi_calendar *c,
                              const pmi_calendar_zone *zone, int64_t at,
                              int64_t *end)
{
    int64_t from = at + 1, to = at + DAY_S;
    int64_t offset = calendar_offset(zone, from), wanted, due;
    *end = to;
    if (calendar_offset(zone, to) != offset)
        *end = calendar_change(zone, from, to) - 1;
    wanted = calendar_face(c, c->every_hour ? from + offset
                                            : calendar_seen(zone, at) + 1);
    if (wanted == PMI_CALENDAR_NEVER)
        return wanted;
    due = wanted - offset; /* before `from`: the clock has jumped over it */
    return due < from ? from : due;
}

int64_t pmi_calendar_next(const pmi_calendar *calendar, int64_t after_s,
                          const pmi_calendar_zone *zone)
{
    for (;;) {
        int64_t end, due = calendar_piece(calendar, zone, after_s, &end);
        if (due <= end || due == PMI_CALENDAR_NEVER)
            return due;
        /* Far away, and no hour is shown twice before: no offset makes two days
         * of it. */
        if (end == after_s + DAY_S && due > end + 3 * DAY_S)
            end = due - 2 * DAY_S;
        after_s = end;
    }
}
