/* SPDX-License-Identifier: MIT */
/* pomelo_cron.c -- crons: jobs of the application by the clock on the wall.
 *
 * A job is a function under "type.file.method", registered on every app like
 * handlers and remotes; a cron says when one of this server's type runs. They
 * come from crons.json, from pm_cron_add and from a console.
 *
 * Each cron knows its next second. One timer waits for the first of them, but
 * never longer than LOOK_S: the wall's clock can be set, and nobody tells us.
 * What was missed meanwhile (a busy loop, a machine that slept, a clock set
 * forward) runs once. See crons_set_back for a clock that goes back.
 * Start at crons_look(). */
#include "pomelo_cron_internal.h"

#include "pomelo_calendar_internal.h"
#include "pomelo_remote_internal.h"

#include "core/json.h"

#include <cjson/cJSON.h>

#define CRONS_MAX 1024
#define NAME_MAX_BYTES 255
#define LOOK_S 60
#define JUMP_S INT64_C(86400) /* further: the clock was wrong before */

typedef struct cron_job {
    pm_cron_cb cb;
    void *ctx;
} cron_job;

typedef struct cron_entry {
    pm_cron pub; /* texts lie behind this struct */
    pmi_calendar calendar;
    int64_t next_s; /* of a running app's */
    const cron_job *job;
} cron_entry;

struct pmi_crons {
    pm_app *app;
    const pmi_env *env;
    pm_loop *loop;
    pmi_map jobs;    /* "type.file.method" -> cron_job */
    pmi_map entries; /* id -> cron_entry */
    pmi_timer timer;
    int64_t last_s;      /* when we looked last */
    cron_entry *running; /* its job is on the stack */
    bool running_gone;   /* ... and it was removed there */
    bool open;
};

/* ---- Time -------------------------------------------------------------- */

static int64_t crons_now_s(const pmi_crons *crons)
{
    return pmi_loop_wall_us(crons->loop) / 1000000;
}

static int32_t crons_offset(void *ctx, int64_t utc_s)
{
    return pmi_loop_utc_offset_s(ctx, utc_s);
}

static void crons_set_next(const pmi_crons *crons, cron_entry *entry,
                           int64_t after_s)
{
    const pmi_calendar_zone zone = {crons_offset, crons->loop};
    entry->next_s = pmi_calendar_next(&entry->calendar, after_s, &zone);
}

static void crons_look(pmi_timer *timer);

/* Of all that are due by then the one that is due first; of several the one
 * that was there first. */
static cron_entry *crons_first(pmi_crons *crons, int64_t until_s)
{
    cron_entry *first = NULL;
    pmi_map_walk walk = pmi_map_begin(&crons->entries);
    while (pmi_map_next(&walk)) {
        cron_entry *entry = walk.value;
        if (entry->next_s <= until_s &&
            (!first || entry->next_s < first->next_s))
            first = entry;
    }
    return first;
}

static void crons_arm(pmi_crons *crons)
{
    cron_entry *first =
        crons->open ? crons_first(crons, PMI_CALENDAR_NEVER - 1) : NULL;
    int64_t wait_us;
    if (!first) {
        pmi_timer_clear(&crons->timer);
        return;
    }
    wait_us = LOOK_S * INT64_C(1000000);
    if (first->next_s < crons_now_s(crons) + LOOK_S)
        wait_us = first->next_s * 1000000 - pmi_loop_wall_us(crons->loop);
    pmi_timer_set(crons->loop, &crons->timer,
                  wait_us > 1000 ? (uint64_t)wait_us : 1000, crons_look);
}

/* The clock was set back. A time of day that has run does not run again when
 * it comes again, unless it is another day's; what runs every hour goes on by
 * the new clock. */
static void crons_set_back(pmi_crons *crons, int64_t now_s)
{
    int64_t back_s = crons->last_s - now_s;
    pmi_map_walk walk;
    if (back_s <= LOOK_S && back_s >= -JUMP_S)
        return;
    walk = pmi_map_begin(&crons->entries);
    while (pmi_map_next(&walk)) {
        cron_entry *entry = walk.value;
        if (entry->calendar.every_hour || back_s > JUMP_S || back_s < -JUMP_S)
            crons_set_next(crons, entry, now_s);
    }
}

static void crons_run(pmi_crons *crons, cron_entry *entry)
{
    crons->running = entry;
    entry->job->cb(crons->app, &entry->pub, entry->job->ctx);
    crons->running = NULL;
    if (crons->running_gone)
        pmi_free(crons->env, entry);
    crons->running_gone = false;
}

static void crons_look(pmi_timer *timer)
{
    pmi_crons *crons = PMI_OUTER(timer, pmi_crons, timer);
    int64_t now_s = crons_now_s(crons);
    cron_entry *entry;
    crons_set_back(crons, now_s);
    crons->last_s = now_s;
    while (crons->open && (entry = crons_first(crons, now_s))) {
        crons_set_next(crons, entry, now_s);
        crons_run(crons, entry);
    }
    crons_arm(crons);
}

/* ---- Jobs -------------------------------------------------------------- */

pm_err pm_app_cron(pm_app *app, const char *action, pm_cron_cb cb, void *ctx)
{
    pmi_crons *crons = pmi_app_crons(app);
    cron_job *job;
    if (!cb || !pmi_remotes_type_len(action))
        return PM_EINVAL;
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        return PM_ESTATE;
    if (pmi_map_get(&crons->jobs, pm_text(action)))
        return PM_EEXIST;
    job = pmi_zalloc(crons->env, sizeof *job);
    if (!job)
        return PM_ENOMEM;
    job->cb = cb;
    job->ctx = ctx;
    if (pmi_map_put(&crons->jobs, pm_text(action), job, NULL)) {
        pmi_free(crons->env, job);
        return PM_ENOMEM;
    }
    return PM_OK;
}

/* "file.method" of this server's type. */
static const cron_job *crons_job(const pmi_crons *crons, const char *action)
{
    char name[NAME_MAX_BYTES + 1];
    size_t len = pmi_format(name, sizeof name, "%s.%s",
                            pm_app_server(crons->app)->type, action);
    return len < sizeof name ? pmi_map_get(&crons->jobs, pm_text(name)) : NULL;
}

pm_err pmi_crons_check(pmi_crons *crons)
{
    pmi_map_walk walk = pmi_map_begin(&crons->entries);
    pm_err err = PM_OK;
    while (err == PM_OK && pmi_map_next(&walk)) {
        cron_entry *entry = walk.value;
        entry->job = crons_job(crons, entry->pub.action);
        if (entry->job)
            continue;
        PMI_LOG(crons->env, PM_LOG_ERROR, "cron",
                "crons.json: %s: cron %s: action: expected one that "
                "pm_app_cron has registered as \"%s.%s\", found none",
                pm_app_server(crons->app)->type, entry->pub.id,
                pm_app_server(crons->app)->type, entry->pub.action);
        err = PM_ECONFIG;
    }
    pmi_map_end(&walk);
    return err;
}

/* ---- Adding and removing ----------------------------------------------- */

static bool crons_name_fits(const char *name)
{
    return name && *name && strlen(name) <= NAME_MAX_BYTES;
}

static char *crons_copy(char **room, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = *room;
    memcpy(copy, text, size);
    *room += size;
    return copy;
}

static cron_entry *crons_make(pmi_crons *crons, const pm_cron *cron)
{
    size_t bytes =
        strlen(cron->id) + strlen(cron->time) + strlen(cron->action) + 3;
    cron_entry *entry = pmi_zalloc(crons->env, sizeof *entry + bytes);
    char *room;
    if (!entry)
        return NULL;
    room = (char *)(entry + 1);
    entry->pub.id = crons_copy(&room, cron->id);
    entry->pub.time = crons_copy(&room, cron->time);
    entry->pub.action = crons_copy(&room, cron->action);
    entry->next_s = PMI_CALENDAR_NEVER;
    return entry;
}

/* `why` gets a sentence unless memory is out. */
static pm_err crons_put(pmi_crons *crons, const pm_cron *cron, char *why,
                        size_t why_size)
{
    pmi_calendar calendar;
    const cron_job *job = crons_job(crons, cron->action);
    cron_entry *entry;
    pm_err err = pmi_calendar_parse(&calendar, cron->time, why, why_size);
    if (err)
        return err;
    if (pmi_map_get(&crons->entries, pm_text(cron->id))) {
        pmi_format(why, why_size, "expected an id that no other cron has");
        return PM_EEXIST;
    }
    if (pmi_map_count(&crons->entries) == CRONS_MAX) {
        pmi_format(why, why_size, "expected %d crons at most", CRONS_MAX);
        return PM_ELIMIT;
    }
    if (!job && pmi_app_state_of(crons->app) != PMI_APP_NEW) {
        pmi_format(why, why_size, "no job \"%s.%s\" is registered",
                   pm_app_server(crons->app)->type, cron->action);
        return PM_ENOTFOUND;
    }
    entry = crons_make(crons, cron);
    if (!entry ||
        pmi_map_put(&crons->entries, pm_text(cron->id), entry, NULL)) {
        pmi_free(crons->env, entry);
        return PM_ENOMEM;
    }
    entry->calendar = calendar;
    entry->job = job;
    if (crons->open)
        crons_set_next(crons, entry, crons_now_s(crons));
    crons_arm(crons);
    return PM_OK;
}

/* What is wrong is logged, and goes to `why`. */
static pm_err crons_add(pm_app *app, const pm_cron *cron, char *why,
                        size_t why_size)
{
    pmi_crons *crons = pmi_app_crons(app);
    pm_loop *loop = crons->loop;
    pm_err err = PM_EINVAL;
    *why = 0;
    if (!cron || !crons_name_fits(cron->id) || !crons_name_fits(cron->time) ||
        !crons_name_fits(cron->action))
        pmi_format(why, why_size,
                   "expected id, time and action of 1 to 255 bytes");
    else if (pmi_app_state_of(app) == PMI_APP_FREED)
        return PM_ECLOSED;
    else
        err = crons_put(crons, cron, why, why_size);
    if (err) {
        if (!*why)
            pmi_format(why, why_size, "%s", pm_strerror(err));
        PMI_LOG(crons->env, PM_LOG_WARN, "cron", "cron %.32s is not added: %s",
                cron && cron->id ? cron->id : "", why);
        return err;
    }
    pmi_loop_enter(loop); /* a listener may free the app */
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        pmi_app_cron_added(app, cron);
    pmi_loop_leave(loop);
    return PM_OK;
}

pm_err pm_cron_add(pm_app *app, const pm_cron *cron)
{
    char why[256];
    return crons_add(app, cron, why, sizeof why);
}

pm_err pm_cron_remove(pm_app *app, const char *id)
{
    pmi_crons *crons = pmi_app_crons(app);
    pm_loop *loop = crons->loop;
    cron_entry *entry =
        id ? pmi_map_remove(&crons->entries, pm_text(id)) : NULL;
    if (!entry)
        return PM_ENOTFOUND;
    crons_arm(crons);
    pmi_loop_enter(loop);
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        pmi_app_cron_removed(app, &entry->pub);
    if (entry == crons->running)
        crons->running_gone = true;
    else
        pmi_free(crons->env, entry);
    pmi_loop_leave(loop);
    return PM_OK;
}

pm_err pm_cron_next(const pm_app *app, const char *id, int64_t *utc_ms)
{
    const pmi_crons *crons = pmi_app_crons(app);
    const cron_entry *entry =
        id ? pmi_map_get(&crons->entries, pm_text(id)) : NULL;
    if (!entry)
        return PM_ENOTFOUND;
    if (!crons->open)
        return PM_ESTATE;
    *utc_ms = entry->next_s == PMI_CALENDAR_NEVER ? PMI_CALENDAR_NEVER
                                                  : entry->next_s * 1000;
    return PM_OK;
}

pm_err pmi_crons_told(pmi_crons *crons, const struct cJSON *cron, bool add,
                      char *why, size_t why_size)
{
    const char *id = cJSON_GetStringValue(pmi_json_get(cron, "id"));
    pm_cron one = {id, cJSON_GetStringValue(pmi_json_get(cron, "time")),
                   cJSON_GetStringValue(pmi_json_get(cron, "action"))};
    pm_err err;
    if (add)
        return crons_add(crons->app, &one, why, why_size);
    err = pm_cron_remove(crons->app, id);
    if (err) {
        pmi_format(why, why_size, "there is no cron %.32s", id ? id : "");
        PMI_LOG(crons->env, PM_LOG_WARN, "cron", "%s", why);
    }
    return err;
}

/* ---- crons.json -------------------------------------------------------- */

typedef struct cron_reader {
    pmi_crons *crons; /* NULL: it is only looked at */
    const char *type;
    size_t index;
    char *why;
    size_t why_size;
} cron_reader;

static pm_err crons_wrong(const cron_reader *r, const char *key,
                          const char *what)
{
    pmi_format(r->why, r->why_size, "crons.json: %.64s[%zu].%s: %s", r->type,
               r->index, key, what);
    return PM_ECONFIG;
}

/* Pomelo's ids are numbers or texts. */
static const char *crons_text(const cJSON *node, char *room, size_t size)
{
    double number = cJSON_IsNumber(node) ? node->valuedouble : 0.5;
    if (cJSON_IsString(node))
        return node->valuestring;
    if (!(number > -1e15 && number < 1e15) || number != (double)(int64_t)number)
        return NULL;
    pmi_format(room, size, "%lld", (long long)number);
    return room;
}

/* Is it for this server? Then it is kept. */
static pm_err crons_keep(cron_reader *r, const pm_cron *cron,
                         const char *server_id)
{
    char why[256] = "";
    const pm_server *self = r->crons ? pm_app_server(r->crons->app) : NULL;
    pm_err err = PM_OK;
    if (self && !strcmp(self->type, r->type) &&
        (!server_id || !strcmp(self->id, server_id)))
        err = crons_put(r->crons, cron, why, sizeof why);
    return err && err != PM_ENOMEM ? crons_wrong(r, "id", why) : err;
}

static pm_err crons_read_entry(cron_reader *r, const cJSON *tree)
{
    static const char *const keys[] = {"id", "time", "action", "serverId"};
    const char *values[PMI_COUNT(keys)], *dot;
    char number[32], why[256] = "";
    pmi_calendar calendar;
    pm_cron cron;
    for (size_t i = 0; i < PMI_COUNT(keys); i++) {
        const cJSON *node = pmi_json_get(tree, keys[i]);
        values[i] = i ? cJSON_GetStringValue(node)
                      : crons_text(node, number, sizeof number);
        if (!crons_name_fits(values[i]) && (i < 3 || node))
            return crons_wrong(r, keys[i],
                               i ? "expected a text of 1 to 255 bytes"
                                 : "expected a number or a text of 1 to 255 "
                                   "bytes");
    }
    if (pmi_calendar_parse(&calendar, values[1], why, sizeof why))
        return crons_wrong(r, "time", why);
    dot = strchr(values[2], '.');
    if (!dot || dot == values[2] || !dot[1] || strchr(dot + 1, '.'))
        return crons_wrong(r, "action", "expected \"file.method\"");
    cron = (pm_cron){values[0], values[1], values[2]};
    return crons_keep(r, &cron, values[3]);
}

static pm_err crons_read(cron_reader *r, const cJSON *tree)
{
    const cJSON *list, *entry;
    pm_err err = PM_OK;
    if (!cJSON_IsObject(tree)) {
        pmi_format(r->why, r->why_size,
                   "crons.json: expected an object of server types");
        return PM_ECONFIG;
    }
    cJSON_ArrayForEach(list, tree)
    {
        r->type = list->string;
        r->index = 0;
        if (err == PM_OK && !cJSON_IsArray(list)) {
            pmi_format(r->why, r->why_size,
                       "crons.json: %.64s: expected an array of crons",
                       r->type);
            return PM_ECONFIG;
        }
        cJSON_ArrayForEach(entry, list)
        {
            if (err == PM_OK)
                err = crons_read_entry(r, entry);
            r->index++;
        }
    }
    return err;
}

static pm_err crons_parse(pmi_crons *crons, const pmi_env *env,
                          const char *text, char *why, size_t why_size)
{
    cron_reader r = {crons, "", 0, why, why_size};
    pmi_json_error error = {0};
    cJSON *tree = NULL;
    pm_err err =
        pmi_json_parse(env, pm_text(text), PMI_JSON_DEPTH_MAX, &tree, &error);
    if (err == PM_OK) {
        err = crons_read(&r, tree);
    } else if (err != PM_ENOMEM) {
        pmi_format(why, why_size, "crons.json:%u: expected %s at column %u",
                   (unsigned)error.line, error.what, (unsigned)error.column);
        err = PM_ECONFIG;
    }
    cJSON_Delete(tree);
    return err;
}

pm_err pmi_crons_look_at(const pmi_env *env, const char *text, char *why,
                         size_t why_size)
{
    return crons_parse(NULL, env, text, why, why_size);
}

/* ---- Life -------------------------------------------------------------- */

pm_err pmi_crons_new(pm_app *app, const char *text, pmi_crons **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_crons *crons = pmi_zalloc(env, sizeof *crons);
    char why[512] = "";
    pm_err err = PM_OK;
    if (!crons)
        return PM_ENOMEM;
    crons->app = app;
    crons->env = env;
    crons->loop = pm_app_loop(app);
    pmi_loop_map_init(crons->loop, &crons->jobs);
    pmi_loop_map_init(crons->loop, &crons->entries);
    *out = crons;
    if (text)
        err = crons_parse(crons, env, text, why, sizeof why);
    if (err == PM_ECONFIG)
        PMI_LOG(env, PM_LOG_ERROR, "cron", "%s", why);
    return err;
}

static void crons_free_map(pmi_crons *crons, pmi_map *map)
{
    pmi_map_walk walk = pmi_map_begin(map);
    while (pmi_map_next(&walk))
        pmi_free(crons->env, walk.value);
    pmi_map_fini(map);
}

void pmi_crons_free(pmi_crons *crons)
{
    if (!crons)
        return;
    crons_free_map(crons, &crons->entries);
    crons_free_map(crons, &crons->jobs);
    pmi_free(crons->env, crons);
}

void pmi_crons_start(pmi_crons *crons)
{
    pmi_map_walk walk = pmi_map_begin(&crons->entries);
    crons->open = true;
    crons->last_s = crons_now_s(crons);
    while (pmi_map_next(&walk))
        crons_set_next(crons, walk.value, crons->last_s);
    crons_arm(crons);
}

void pmi_crons_close(pmi_crons *crons)
{
    crons->open = false;
    crons_arm(crons);
}

void pmi_crons_print(pmi_crons *crons, pmi_buf *out)
{
    pmi_map_walk walk = pmi_map_begin(&crons->entries);
    size_t count = 0;
    pmi_buf_add_byte(out, '[');
    while (pmi_map_next(&walk)) {
        const cron_entry *entry = walk.value;
        pmi_buf_add_text(out, count++ ? ",{\"id\":" : "{\"id\":");
        pmi_json_add_string(out, pm_text(entry->pub.id));
        pmi_buf_add_text(out, ",\"time\":");
        pmi_json_add_string(out, pm_text(entry->pub.time));
        pmi_buf_add_text(out, ",\"action\":");
        pmi_json_add_string(out, pm_text(entry->pub.action));
        if (crons->open && entry->next_s != PMI_CALENDAR_NEVER)
            pmi_buf_add_format(out, ",\"next\":%lld000}",
                               (long long)entry->next_s);
        else
            pmi_buf_add_text(out, ",\"next\":null}");
    }
    pmi_buf_add_byte(out, ']');
}
