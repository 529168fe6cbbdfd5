/* SPDX-License-Identifier: MIT */
/* test/console_town.h -- a console at the master's door of a town. */
#ifndef TEST_CONSOLE_TOWN_H
#define TEST_CONSOLE_TOWN_H

#include "master_town.h"

typedef struct answer {
    int count;
    pm_err err;
    char detail[256], body[4096], error[1024];
} answer;

static inline void put_tree(char *out, size_t size, const struct cJSON *tree)
{
    char *text = NULL;
    out[0] = 0;
    if (!tree)
        return;
    assert_ok(pm_json_text(tree, &text));
    snprintf(out, size, "%s", text);
    pm_text_free(text);
}

static inline void answered(const pm_admin_result *result, void *ctx)
{
    answer *a = ctx;
    a->count++;
    a->err = result->err;
    snprintf(a->detail, sizeof a->detail, "%s", result->detail);
    put_tree(a->body, sizeof a->body, result->body);
    put_tree(a->error, sizeof a->error, result->error);
}

static inline pm_console *console(town *t, const char *user,
                                  const char *password)
{
    pm_console_opts opts = pm_console_opts_default();
    pm_console *out;
    opts.loop = t->loop;
    opts.username = user;
    opts.password = password;
    assert_ok(pm_console_new(&out, &opts));
    return out;
}

/* Asks, and lets time pass until it is answered. */
static inline answer ask(town *t, pm_console *c, const char *module,
                         const char *body)
{
    answer a = {0};
    assert_ok(pm_console_request(c, module, body, answered, &a));
    assert_int_equal(a.count, 0);
    for (int i = 0; i < 400 && !a.count; i++)
        town_run(t, 100);
    assert_int_equal(a.count, 1);
    return a;
}

static inline void expect(town *t, pm_console *c, const char *module,
                          const char *body, pm_err err, const char *want)
{
    answer a = ask(t, c, module, body);
    const char *got = a.err ? a.detail : a.body;
    if (a.err != err || !strstr(got, want))
        fail_msg("%s %s: %s %s", module, body ? body : "", pm_err_name(a.err),
                 got);
}

#endif
