/* SPDX-License-Identifier: MIT */
/* test_calendar.c -- when does a cron come next?
 *
 * Hand-computed days, and a second reader who knows nothing of the first: it
 * asks the C library what the clock shows at each second, one after the other,
 * in zones with summer time. */
#include "test.h"

#include "pomelo_calendar_internal.h"

#include <time.h>

/* ---- Zones ------------------------------------------------------------- */

/* Offset `winter`; `summer` from `begin` to `end`. */
typedef struct zone {
    int32_t winter, summer;
    int64_t begin, end;
    size_t asked;
} zone;

static int32_t zone_offset(void *ctx, int64_t utc_s)
{
    zone *z = ctx;
    z->asked++;
    return utc_s >= z->begin && utc_s < z->end ? z->summer : z->winter;
}

static int64_t utc(int year, int month, int day, int h, int m, int s)
{
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = h,
                    .tm_min = m,
                    .tm_sec = s};
    return (int64_t)timegm(&tm);
}

static const char *show(int64_t utc_s)
{
    static char text[32];
    time_t at = (time_t)utc_s;
    struct tm tm;
    if (utc_s == PMI_CALENDAR_NEVER)
        return "never";
    gmtime_r(&at, &tm);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    return text;
}

static int64_t next(const char *text, int64_t after, zone *z)
{
    zone none = {0};
    pmi_calendar calendar;
    char why[256] = "";
    pmi_calendar_zone at = {zone_offset, z ? z : &none};
    if (pmi_calendar_parse(&calendar, text, why, sizeof why))
        fail_msg("%s: %s", text, why);
    return pmi_calendar_next(&calendar, after, &at);
}

/* ---- Hand-computed ----------------------------------------------------- */

static const struct {
    const char *time, *after, *want;
} days[] = {
    {"* * * * * *", "2026-11-28 03:00:00", "2026-11-28 03:00:01"},
    {"0 * * * * *", "2026-11-28 03:00:00", "2026-11-28 03:01:00"},
    {"0/30 * * * * *", "2026-11-28 03:00:29", "2026-11-28 03:00:30"},
    {"0/30 * * * * *", "2026-11-28 03:00:30", "2026-11-28 03:01:00"},
    /* the remainder, not the first one */
    {"3/10 * * * * *", "2026-11-28 03:00:03", "2026-11-28 03:00:13"},
    {"7/20 * * * * *", "2026-11-28 03:00:47", "2026-11-28 03:01:07"},
    {"0 0 0 0/2 * *", "2026-11-28 00:00:00", "2026-11-30 00:00:00"},
    {"0 0 0 0/2 * *", "2026-11-30 00:00:00", "2026-12-02 00:00:00"},
    {"0 0 0 1/2 * *", "2026-11-29 00:00:00", "2026-12-01 00:00:00"},
    {"0 30 10 * * *", "2026-11-28 10:29:59", "2026-11-28 10:30:00"},
    {"0 30 10 * * *", "2026-11-28 10:30:00", "2026-11-29 10:30:00"},
    {"59 59 23 * * *", "2026-12-31 23:59:59", "2027-01-01 23:59:59"},
    {"0 0 8-10,20 * * *", "2026-11-28 08:00:00", "2026-11-28 09:00:00"},
    {"0 0 8-10,20 * * *", "2026-11-28 10:00:00", "2026-11-28 20:00:00"},
    {"0 0 8-10,20 * * *", "2026-11-28 20:00:00", "2026-11-29 08:00:00"},
    /* months from 0, weekdays from Sunday: 28 Nov 2026 is a Saturday */
    {"0 0 0 * 0 *", "2026-11-28 00:00:00", "2027-01-01 00:00:00"},
    {"0 0 0 * 11 *", "2026-11-28 00:00:00", "2026-12-01 00:00:00"},
    {"0 0 0 * * 0", "2026-11-28 00:00:00", "2026-11-29 00:00:00"},
    {"0 0 0 * * 6", "2026-11-28 00:00:00", "2026-12-05 00:00:00"},
    {"0 0 12 * * 1-5", "2026-11-27 12:00:00", "2026-11-30 12:00:00"},
    /* day and weekday must both fit: a Friday the 13th */
    {"0 0 0 13 * 5", "2026-11-14 00:00:00", "2027-08-13 00:00:00"},
    /* months without a 31st, a 30th, a 29th */
    {"0 0 0 31 * *", "2026-10-31 00:00:00", "2026-12-31 00:00:00"},
    {"0 0 0 31 * *", "2027-01-31 00:00:00", "2027-03-31 00:00:00"},
    {"0 0 0 30 * *", "2027-01-30 00:00:00", "2027-03-30 00:00:00"},
    {"0 0 0 29 1 *", "2026-11-28 00:00:00", "2028-02-29 00:00:00"},
    {"0 0 0 29 1 *", "2028-02-29 00:00:00", "2032-02-29 00:00:00"},
    {"0 0 0 29 1 *", "2096-02-29 00:00:00", "2104-02-29 00:00:00"},
    {"0 0 0 29 1 *", "1996-02-29 00:00:00", "2000-02-29 00:00:00"},
    {"0 0 0 29 1 0", "2026-11-28 00:00:00", "2032-02-29 00:00:00"},
    {"0 0 0 29 1 1", "2026-11-28 00:00:00", "2044-02-29 00:00:00"},
    /* 24 o'clock is the end of that day */
    {"0 0 24 * * *", "2026-11-28 00:00:00", "2026-11-29 00:00:00"},
    {"0 0 24 28 10 *", "2026-11-28 23:00:00", "2026-11-29 00:00:00"},
    {"0 0 24 31 11 *", "2026-12-31 00:00:00", "2027-01-01 00:00:00"},
    {"0 30 24 28 10 *", "2026-11-29 00:10:00", "2026-11-29 00:30:00"},
    {"0 0 0,24 28 10 *", "2026-11-28 00:00:00", "2026-11-29 00:00:00"},
    {"0 0 0,24 28 10 *", "2026-11-29 00:00:00", "2027-11-28 00:00:00"},
    /* "*" is 0-23: the day after is another day */
    {"0 0 * 1 * *", "2026-02-01 22:00:00", "2026-02-01 23:00:00"},
    {"0 0 * 1 * *", "2026-02-01 23:00:00", "2026-03-01 00:00:00"},
    {"0 0 * * 0 *", "2026-01-31 23:00:00", "2027-01-01 00:00:00"},
    {"0 0/20 * * * 0", "2026-11-29 23:40:00", "2026-12-06 00:00:00"},
    {"* * * * * * 2026", "2026-12-31 23:59:59", "never"},
    {"0 0 0-24 1 * *", "2026-02-01 23:00:00", "2026-02-02 00:00:00"},
    /* the seventh field */
    {"0 0 0 1 0 * *", "2026-11-28 00:00:00", "2027-01-01 00:00:00"},
    {"0 0 0 1 0 * 2030", "2026-11-28 00:00:00", "2030-01-01 00:00:00"},
    {"0 0 0 1 0 * 2030-2032", "2030-01-01 00:00:00", "2031-01-01 00:00:00"},
    {"0 0 0 1 0 * 0/4", "2026-11-28 00:00:00", "2028-01-01 00:00:00"},
    {"0 0 0 1 0 * 2025,2099", "2026-11-28 00:00:00", "2099-01-01 00:00:00"},
    {"0 0 0 1 0 * 2025", "2026-11-28 00:00:00", "never"},
    {"0 0 0 1 0 * 1970-2099", "2099-01-01 00:00:00", "never"},
    {"\t 0  0\n0 1 0 *  ", "2026-11-28 00:00:00", "2027-01-01 00:00:00"},
    {"00 000 0 01 0 *", "2026-11-28 00:00:00", "2027-01-01 00:00:00"},
};

static void test_days(void **state)
{
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(days); i++) {
        int y, mo, d, h, mi, s;
        const char *got;
        assert_int_equal(sscanf(days[i].after, "%d-%d-%d %d:%d:%d", &y, &mo, &d,
                                &h, &mi, &s),
                         6);
        got = show(next(days[i].time, utc(y, mo, d, h, mi, s), NULL));
        if (strcmp(got, days[i].want) != 0)
            fail_msg("%s after %s: %s, expected %s", days[i].time,
                     days[i].after, got, days[i].want);
    }
}

/* Berlin 2026: 29 March 1:00 UTC from +1 to +2, 25 October 1:00 UTC back. */
static zone berlin(void)
{
    return (zone){3600, 7200, utc(2026, 3, 29, 1, 0, 0),
                  utc(2026, 10, 25, 1, 0, 0), 0};
}

static void expect_next(const char *text, int64_t after, int64_t want)
{
    zone z = berlin();
    int64_t got = next(text, after, &z);
    if (got != want) {
        print_error("%s after %s: expected %s, ", text, show(after),
                    show(want));
        fail_msg("got %s", show(got));
    }
}

static void test_summer_time(void **state)
{
    (void)state;
    /* Local time, +1 in winter and +2 in summer. */
    expect_next("0 0 12 * * *", utc(2026, 1, 1, 0, 0, 0),
                utc(2026, 1, 1, 11, 0, 0));
    expect_next("0 0 12 * * *", utc(2026, 7, 1, 0, 0, 0),
                utc(2026, 7, 1, 10, 0, 0));
    /* 2:30 does not exist: it comes when the clock jumps, and once. */
    expect_next("0 30 2 * * *", utc(2026, 3, 28, 1, 30, 0),
                utc(2026, 3, 29, 1, 0, 0));
    expect_next("0 * 2 * * *", utc(2026, 3, 28, 1, 59, 0),
                utc(2026, 3, 29, 1, 0, 0));
    expect_next("0 * 2 * * *", utc(2026, 3, 29, 1, 0, 0),
                utc(2026, 3, 30, 0, 0, 0));
    /* 3:00 is that very second and is another one's. */
    expect_next("0 0 3 * * *", utc(2026, 3, 28, 12, 0, 0),
                utc(2026, 3, 29, 1, 0, 0));
    /* 2:30 comes twice: the first one counts. */
    expect_next("0 30 2 * * *", utc(2026, 10, 24, 12, 0, 0),
                utc(2026, 10, 25, 0, 30, 0));
    expect_next("0 30 2 * * *", utc(2026, 10, 25, 0, 30, 0),
                utc(2026, 10, 26, 1, 30, 0));
    expect_next("0 30 2 * * *", utc(2026, 10, 25, 1, 10, 0),
                utc(2026, 10, 26, 1, 30, 0));
    /* Every half hour stays every half hour, both times. */
    expect_next("0 0/30 * * * *", utc(2026, 10, 25, 0, 30, 0),
                utc(2026, 10, 25, 1, 0, 0));
    expect_next("0 0/30 * * * *", utc(2026, 10, 25, 1, 0, 0),
                utc(2026, 10, 25, 1, 30, 0));
    expect_next("0 0/30 * * * *", utc(2026, 3, 29, 0, 30, 0),
                utc(2026, 3, 29, 1, 0, 0));
    expect_next("0 0/30 * * * *", utc(2026, 3, 29, 1, 0, 0),
                utc(2026, 3, 29, 1, 30, 0));
    /* Across the change, from afar. */
    expect_next("0 0 2 29 2 *", utc(2025, 6, 1, 0, 0, 0),
                utc(2026, 3, 29, 1, 0, 0));
    expect_next("0 0 2 25 9 *", utc(2026, 1, 1, 0, 0, 0),
                utc(2026, 10, 25, 0, 0, 0));
}

/* ---- Second by second -------------------------------------------------- */

static bool one_fits(const char *field, int value)
{
    const char *at = field;
    if (!strcmp(field, "*"))
        return true;
    for (;;) {
        int a = 0, b = 0, n = 0;
        if (sscanf(at, "%d-%d%n", &a, &b, &n) == 2) {
            if (value >= a && value <= b)
                return true;
        } else if (sscanf(at, "%d/%d%n", &a, &b, &n) == 2) {
            if (value % b == a)
                return true;
        } else if (sscanf(at, "%d%n", &a, &n) == 1 && value == a) {
            return true;
        }
        at = strchr(at, ',');
        if (!at)
            return false;
        at++;
    }
}

/* Does the clock, when it shows `local`, show what is wanted? */
static bool shows(char fields[7][32], int64_t local)
{
    time_t at = (time_t)local;
    struct tm tm, before;
    gmtime_r(&at, &tm);
    at -= 86400;
    gmtime_r(&at, &before);
    if (!one_fits(fields[0], tm.tm_sec) || !one_fits(fields[1], tm.tm_min))
        return false;
    if (one_fits(fields[2], tm.tm_hour) && one_fits(fields[3], tm.tm_mday) &&
        one_fits(fields[4], tm.tm_mon) && one_fits(fields[5], tm.tm_wday) &&
        one_fits(fields[6], tm.tm_year + 1900))
        return true;
    return tm.tm_hour == 0 && strcmp(fields[2], "*") &&
           one_fits(fields[2], 24) && one_fits(fields[3], before.tm_mday) &&
           one_fits(fields[4], before.tm_mon) &&
           one_fits(fields[5], before.tm_wday) &&
           one_fits(fields[6], before.tm_year + 1900);
}

static bool every_hour(const char *field)
{
    for (int h = 0; h < 24; h++)
        if (!one_fits(field, h))
            return false;
    return true;
}

/* Walks from `from` to `to`; the first one must hear of each due second. */
static void compare(char fields[7][32], zone *z, int64_t from, int64_t to)
{
    char text[256];
    bool every = every_hour(fields[2]);
    int64_t seen = from + zone_offset(z, from), due;
    for (int64_t u = from - 86400; u < from; u++)
        if (u + zone_offset(z, u) > seen)
            seen = u + zone_offset(z, u);
    snprintf(text, sizeof text, "%s %s %s %s %s %s %s", fields[0], fields[1],
             fields[2], fields[3], fields[4], fields[5], fields[6]);
    due = next(text, from, z);
    for (int64_t u = from + 1; u <= to; u++) {
        int64_t local = u + zone_offset(z, u);
        bool want = every && shows(fields, local);
        for (int64_t l = seen + 1; !every && !want && l <= local; l++)
            want = shows(fields, l);
        seen = local > seen ? local : seen;
        if (want != (due == u)) {
            print_error("%s: %s is %sdue, ", text, show(u), want ? "" : "not ");
            fail_msg("next says %s", show(due));
        }
        if (want)
            due = next(text, u, z);
    }
}

/* A field that now and then is something else than "*". */
static void draw(test_world *world, char *out, int min, int max, size_t odds)
{
    int span = max - min + 1;
    int a = min + (int)test_world_below(world, (size_t)span), b;
    if (test_world_below(world, odds) > 0) {
        snprintf(out, 32, "*");
        return;
    }
    switch (test_world_below(world, 4)) {
    case 0:
        snprintf(out, 32, "%d", a);
        break;
    case 1:
        b = a + (int)test_world_below(world, (size_t)(max - a + 1));
        snprintf(out, 32, "%d-%d", a, b);
        break;
    case 2:
        b = 1 + (int)test_world_below(world, (size_t)(span > 12 ? 12 : span));
        snprintf(out, 32, "%d/%d", max % b, b);
        break;
    default:
        snprintf(out, 32, "%d,%d,%d-%d", max, a, min, min + 1);
    }
}

static void test_second_by_second(void **state)
{
    static const int32_t offsets[][2] = {
        {0, 0},         {3600, 7200},    {-18000, -14400}, {37800, 39600},
        {20700, 20700}, {39600, 43200},  {-43200, 43200},  {7200, 3600},
        {3600, 5400},   {-12600, -9000}, {0, 1200},        {0, 82800}};
    test_world world = {.seed = 20261128};
    int64_t changes = utc(2026, 2, 28, 22, 17, 0);
    char fields[7][32];
    (void)state;
    for (int round = 0; round < 72; round++) {
        const int32_t *pair = offsets[round % (int)PMI_COUNT(offsets)];
        int64_t begin = changes + (int64_t)test_world_below(&world, 7200);
        zone z = {pair[0], pair[1], begin, begin + 2 * 86400 + 3, 0};
        draw(&world, fields[0], 0, 59, 3);
        draw(&world, fields[1], 0, 59, 2);
        draw(&world, fields[2], 0, 24, 2);
        draw(&world, fields[3], 1, 31, 4);
        draw(&world, fields[4], 0, 11, 8);
        draw(&world, fields[5], 0, 6, 4);
        draw(&world, fields[6], 2026, 2027, 8);
        if (round % 3 == 0) /* many due seconds cost most of the time */
            strcpy(fields[0], "59");
        compare(fields, &z, begin - 7200, begin + 4 * 3600);
        compare(fields, &z, z.end - 7200, z.end + 4 * 3600);
    }
}

/* Near and far agree: who asks from afar hears what who waits hears. */
static void test_near_and_far(void **state)
{
    static const char *const times[] = {"0 30 2 * * 0", "0 0 24 28-31 * *",
                                        "0 15 * 29 2 *", "30 0 3 25 9 *"};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(times); i++) {
        zone z = berlin();
        int64_t at = utc(2025, 11, 1, 0, 0, 0), end = utc(2027, 1, 1, 0, 0, 0);
        while (at < end) {
            int64_t due = next(times[i], at, &z);
            assert_true(due > at);
            for (int64_t from = due - 1; from > at && from > due - 9 * 86400;
                 from -= 40000)
                assert_int_equal(next(times[i], from, &z), due);
            at = due;
        }
    }
}

/* However far: few questions, so that a cron costs nothing. */
static void test_costs(void **state)
{
    static const char *const times[] = {"0 0 0 29 1 6", "0 0 0 1 0 * 2099",
                                        "0 0 0 1 0 * 1971", "* * * * * *",
                                        "0 0 * 29 1 0"};
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(times); i++) {
        zone z = berlin();
        next(times[i], utc(2026, 11, 28, 0, 0, 0), &z);
        assert_true(z.asked < 400);
    }
}

/* ---- What is no time --------------------------------------------------- */

static void test_wrong(void **state)
{
    static const struct {
        const char *time, *why;
    } cases[] = {
        {"", "expected 6 fields (second minute hour day month weekday) or 7 "
             "with a year, found 0"},
        {"* * * * *", "expected 6 fields (second minute hour day month "
                      "weekday) or 7 with a year, found 5"},
        {"* * * * * * * *", "expected 6 fields (second minute hour day month "
                            "weekday) or 7 with a year, found 8"},
        {"60 * * * * *", "second: expected a number from 0 to 59, \"*\", "
                         "\"a-b\", \"r/p\" or a list of these, found \"60\""},
        {"* * * * 12 *", "month: expected a number from 0 (January) to 11, "
                         "\"*\", \"a-b\", \"r/p\" or a list of these, found "
                         "\"12\""},
        {"0 0 0 30 1 *",
         "expected a time that comes, found a day that no month has"},
        {"0 0 0 31 3,5,8,10 *",
         "expected a time that comes, found a day that no month has"},
        {"0 0 0 29 1 * 2027",
         "expected a time that comes, found a day that no month has"},
    };
    static const char *const fields[] = {
        "-1",         "+1",           "1-",       "-",     "1--2",  "2-1",
        "1/0",        "0/0",          "*/5",      "5/5",   "/5",    "5/",
        "1/2/3",      "1-2-3",        ",",        "1,",    ",1",    "1,,2",
        "1;2",        "MON",          "?",        "L",     "0x1",   "1.0",
        "1e1",        "**",           "*,1",      "1-2/3", "99999", "00000",
        "4294967296", "1/4294967296", "\xff\xfe", "1\x01"};
    pmi_calendar calendar;
    char why[256], text[128];
    (void)state;
    for (size_t i = 0; i < PMI_COUNT(cases); i++) {
        assert_err(
            pmi_calendar_parse(&calendar, cases[i].time, why, sizeof why),
            PM_EINVAL);
        assert_string_equal(why, cases[i].why);
    }
    for (size_t i = 0; i < PMI_COUNT(fields); i++)
        for (int at = 0; at < 6; at++) {
            snprintf(text, sizeof text, "%s %s %s %s %s %s",
                     at == 0 ? fields[i] : "*", at == 1 ? fields[i] : "*",
                     at == 2 ? fields[i] : "*", at == 3 ? fields[i] : "1",
                     at == 4 ? fields[i] : "*", at == 5 ? fields[i] : "*");
            if (!pmi_calendar_parse(&calendar, text, why, sizeof why) &&
                !(at == 5 && !strcmp(fields[i], "5/5")))
                fail_msg("%s is taken", text);
        }
}

/* Bytes of every kind: an answer, and no byte beyond the end is read. What is
 * taken has a next time. */
static void test_hostile(void **state)
{
    static const char alphabet[] = "0123456789*-/,  \t\n59?L\x01\x80\xff";
    test_world world = {.seed = 7};
    zone z = berlin();
    pmi_calendar_zone at = {zone_offset, &z};
    size_t taken = 0;
    (void)state;
    for (int round = 0; round < 50000; round++) {
        pmi_calendar calendar;
        char why[40], text[48], *copy;
        size_t len = test_world_below(&world, sizeof text - 1);
        if (round % 2) {
            len = (size_t)snprintf(text, sizeof text, "0 %u/%u %u * * *,%u",
                                   (unsigned)test_world_below(&world, 70),
                                   (unsigned)test_world_below(&world, 70),
                                   (unsigned)test_world_below(&world, 26),
                                   (unsigned)test_world_below(&world, 8));
            text[test_world_below(&world, len)] =
                alphabet[test_world_below(&world, sizeof alphabet - 1)];
        } else {
            for (size_t i = 0; i < len; i++)
                text[i] =
                    alphabet[test_world_below(&world, sizeof alphabet - 1)];
        }
        text[len] = 0;
        copy = (char *)test_copy(text, len + 1);
        why[0] = 0;
        if (pmi_calendar_parse(&calendar, copy, why, sizeof why) == PM_OK) {
            int64_t now = utc(2026, 11, 28, 3, 0, 0);
            assert_true(pmi_calendar_next(&calendar, now, &at) > now);
            taken++;
        } else {
            assert_true(strlen(why) > 10);
        }
        free(copy);
    }
    assert_true(taken > 100);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_days),
    cmocka_unit_test(test_summer_time),
    cmocka_unit_test(test_near_and_far),
    cmocka_unit_test(test_second_by_second),
    cmocka_unit_test(test_costs),
    cmocka_unit_test(test_wrong),
    cmocka_unit_test(test_hostile)};
TEST_MAIN(tests)
