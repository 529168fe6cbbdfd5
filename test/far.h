/* SPDX-License-Identifier: MIT */
/* test/far.h -- sessions as other servers of the town see them, and what the
 * callbacks of such questions were told. */
#ifndef TEST_FAR_H
#define TEST_FAR_H

#include "town.h"

/* ---- What was told ----------------------------------------------------- */

typedef struct done {
    int times;
    pm_err err;
    pm_app *free_this;
} done;

static inline void on_done(pm_err err, const char *detail, void *ctx)
{
    done *d = ctx;
    assert_non_null(detail);
    d->times++;
    d->err = err;
    pm_app_free(d->free_this);
}

typedef struct found {
    int times;
    pm_err err;
    size_t count;
    char who[HEARD_MAX]; /* "alice@c-1 {settings};" */
    pm_session *kept;    /* the first one, with a reference */
    bool keep;
    pm_app *free_this;
} found;

static inline void on_found(pm_err err, pm_session *const *sessions,
                            size_t count, void *ctx)
{
    found *f = ctx;
    size_t len = 0;
    f->times++;
    f->err = err;
    f->count = count;
    pm_app_free(f->free_this);
    for (size_t i = 0; i < count; i++) {
        const char *uid = pm_session_uid(sessions[i]);
        const char *room = pm_session_get_text(sessions[i], "room");
        len += (size_t)snprintf(
            f->who + len, HEARD_MAX - len, "%s@%s %s;", uid ? uid : "-",
            pm_session_frontend_id(sessions[i]), room ? room : "-");
    }
    if (!count || !f->keep)
        return;
    f->kept = sessions[0];
    pm_session_ref(f->kept);
}

static inline void assert_done(town *t, done *d, pm_err err)
{
    assert_int_equal(d->times, 0); /* never inside the call */
    town_run(t, 10);
    assert_int_equal(d->times, 1);
    assert_err(d->err, err);
    memset(d, 0, sizeof *d);
}

static inline void assert_found(town *t, found *f, pm_err err, const char *who)
{
    assert_int_equal(f->times, 0);
    town_run(t, 10);
    assert_int_equal(f->times, 1);
    assert_err(f->err, err);
    assert_string_equal(f->who, who);
}

/* What chat-1 sees of a session after a request of it. */
static inline pm_err view_try(town *t, const pm_session *session,
                              pm_session **out)
{
    pmi_env env = test_env(&t->heap);
    pmi_buf bytes;
    pm_err err;
    pmi_buf_init(&bytes, &env, SIZE_MAX);
    pmi_session_export(session, &bytes);
    err = bytes.failed
              ? PM_ENOMEM
              : pmi_session_import(t->chat, pmi_buf_slice(&bytes), out);
    pmi_buf_fini(&bytes);
    return err;
}

static inline pm_session *view_of(town *t, const pm_session *session)
{
    pm_session *view;
    assert_ok(view_try(t, session, &view));
    return view;
}

static inline void ask_uid(town *t, found *f, const char *frontend_id,
                           const char *uid)
{
    memset(f, 0, sizeof *f);
    assert_ok(pm_session_fetch_uid(t->chat, frontend_id, uid, on_found, f));
}

#endif
