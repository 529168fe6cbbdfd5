/* SPDX-License-Identifier: MIT */
/* pomelo_module.c -- admin modules: who answers what is asked over the console.
 *
 * A name finds a module, the role finds its function; the level of the user
 * comes from the connection that has logged in, never from the message. Start
 * at pmi_module_ask. */
#include "pomelo_module_internal.h"

typedef struct module_entry {
    pm_app *app;
    pm_admin_module is;
    char *id;
    void *ctx;
    bool disabled;
    pmi_timer timer;
} module_entry;

struct pmi_modules {
    pm_app *app;
    const pmi_env *env;
    pmi_map by_id;
    pmi_link calls; /* not answered yet */
};

pm_err pmi_modules_new(pm_app *app, pmi_modules **out)
{
    pmi_modules *modules = pmi_zalloc(pmi_app_env(app), sizeof *modules);
    if (!modules)
        return PM_ENOMEM;
    modules->app = app;
    modules->env = pmi_app_env(app);
    pmi_loop_map_init(pm_app_loop(app), &modules->by_id);
    pmi_list_init(&modules->calls);
    *out = modules;
    return PM_OK;
}

void pmi_modules_free(pmi_modules *modules)
{
    pmi_map_walk walk;
    if (!modules)
        return;
    walk = pmi_map_begin(&modules->by_id);
    while (pmi_map_next(&walk)) {
        module_entry *entry = walk.value;
        pmi_timer_clear(&entry->timer);
        pmi_free(modules->env, entry->id);
        pmi_free(modules->env, entry);
    }
    pmi_map_fini(&modules->by_id);
    pmi_free(modules->env, modules);
}

void pmi_modules_close(pmi_modules *modules)
{
    pmi_map_walk walk = pmi_map_begin(&modules->by_id);
    while (pmi_map_next(&walk))
        pmi_timer_clear(&((module_entry *)walk.value)->timer);
    if (pmi_app_state_of(modules->app) == PMI_APP_FREED)
        pmi_admin_calls_orphan(&modules->calls);
}

/* ---- Registering ------------------------------------------------------- */

pm_err pmi_module_add(pm_app *app, const pm_admin_module *module, void *ctx)
{
    pmi_modules *modules = pmi_app_modules(app);
    module_entry *entry;
    if (pmi_map_get(&modules->by_id, pm_text(module->id)))
        return PM_EEXIST;
    entry = pmi_zalloc(modules->env, sizeof *entry);
    if (!entry)
        return PM_ENOMEM;
    entry->app = app;
    entry->is = *module;
    entry->is.id = entry->id = pmi_strdup(modules->env, module->id);
    entry->ctx = ctx;
    if (entry->id &&
        pmi_map_put(&modules->by_id, pm_text(entry->id), entry, NULL) == PM_OK)
        return PM_OK;
    pmi_free(modules->env, entry->id);
    pmi_free(modules->env, entry);
    return PM_ENOMEM;
}

pm_err pm_app_admin_module(pm_app *app, const pm_admin_module *module,
                           void *ctx)
{
    pm_admin_module own;
    size_t len;
    if (!module || module->size != sizeof *module || !module->id)
        return PM_EINVAL;
    len = strlen(module->id);
    if (len == 0 || len > 255 || !strncmp(module->id, "__", 2))
        return PM_EINVAL;
    if (pmi_app_state_of(app) != PMI_APP_NEW)
        return PM_ESTATE;
    own = *module;
    if (!own.level)
        own.level = 1;
    return pmi_module_add(app, &own, ctx);
}

static pm_admin_call *module_call(pmi_modules *modules, pmi_admin_link *link,
                                  pmi_admin_msg *msg, const char *from)
{
    pm_admin_call *call = pmi_admin_call_new(modules->app, link, msg, from);
    if (call)
        pmi_list_add(&modules->calls, &call->in_app);
    return call;
}

/* ---- Timers ------------------------------------------------------------ */

static void module_tick(pmi_timer *timer)
{
    module_entry *entry = PMI_OUTER(timer, module_entry, timer);
    pmi_modules *modules = pmi_app_modules(entry->app);
    pm_admin_call *call;
    pmi_timer_set(pm_app_loop(entry->app), timer,
                  (uint64_t)entry->is.interval_ms * 1000, module_tick);
    if (entry->disabled)
        return;
    call = module_call(modules, NULL, NULL, "");
    if (!call)
        return; /* the next one comes */
    if (entry->is.push)
        entry->is.monitor(call, entry->ctx);
    else
        entry->is.master(call, entry->ctx);
}

void pmi_modules_start(pmi_modules *modules, bool master)
{
    pmi_map_walk walk = pmi_map_begin(&modules->by_id);
    while (pmi_map_next(&walk)) {
        module_entry *entry = walk.value;
        bool here = entry->is.push ? !master && entry->is.monitor
                                   : master && entry->is.master;
        if (entry->is.interval_ms && here)
            pmi_timer_set(pm_app_loop(modules->app), &entry->timer,
                          (uint64_t)entry->is.delay_ms * 1000, module_tick);
    }
}

/* ---- Asking ------------------------------------------------------------ */

typedef void module_cb(pm_admin_call *call, void *ctx);

static module_cb *module_function(const module_entry *entry,
                                  pmi_module_role role, const char **name)
{
    switch (role) {
    case PMI_ROLE_MONITOR:
        *name = "monitorHandler";
        return entry->is.monitor;
    case PMI_ROLE_MASTER:
        *name = "masterHandler";
        return entry->is.master;
    default:
        *name = "clientHandler";
        return entry->is.client;
    }
}

bool pmi_module_ask(pm_app *app, pmi_admin_link *link, const char *from,
                    int level, pmi_module_role role, pmi_admin_msg *msg)
{
    pmi_modules *modules = pmi_app_modules(app);
    module_entry *entry = pmi_map_get(&modules->by_id, pm_text(msg->module));
    const char *module = msg->module, *method = "";
    pm_admin_call *call = module_call(pmi_app_modules(app), link, msg, from);
    module_cb *cb;
    if (!call)
        return true; /* who asks gives up by itself */
    call->level = level;
    if (!entry) {
        pmi_admin_answer_word(call, "unknown moduleId:%s", module);
        return true;
    }
    cb = module_function(entry, role, &method);
    if (entry->disabled) {
        pmi_admin_answer_word(call, "module %s is disable", module);
    } else if (!cb) {
        pmi_admin_answer_word(
            call, "module %s dose not have a method called %s", module, method);
    } else if (role == PMI_ROLE_CLIENT && level > entry->is.level) {
        pmi_admin_answer_word(call, "Command permission denied");
        return false;
    } else {
        cb(call, entry->ctx);
    }
    return true;
}

void pmi_modules_names(const pmi_modules *modules, bool own, pmi_buf *out)
{
    pmi_map_walk walk = pmi_map_begin((pmi_map *)(uintptr_t)&modules->by_id);
    size_t begin;
    pmi_buf_add_byte(out, '[');
    begin = out->len;
    while (pmi_map_next(&walk)) {
        const module_entry *entry = walk.value;
        if (own && (!strncmp(entry->id, "__", 2) || entry->disabled))
            continue;
        if (out->len > begin)
            pmi_buf_add_byte(out, ',');
        pmi_json_add_string(out, pm_text(entry->id));
    }
    pmi_buf_add_byte(out, ']');
}

static void module_list(pm_admin_call *call)
{
    pmi_buf body;
    pmi_buf_init(&body, pmi_loop_env(call->loop), SIZE_MAX);
    pmi_buf_add_text(&body, "{\"modules\":");
    pmi_modules_names(pmi_app_modules(call->app), true, &body);
    pmi_buf_add_byte(&body, '}');
    if (body.failed)
        pm_admin_fail(call, pm_strerror(PM_ENOMEM));
    else
        pmi_admin_answer(call, pm_bytes(NULL, 0), pmi_buf_slice(&body));
    pmi_buf_fini(&body);
}

static void module_switch(pm_admin_call *call, const char *module, bool off)
{
    pmi_modules *modules = pmi_app_modules(call->app);
    module_entry *entry = pmi_map_get(&modules->by_id, pm_text(module));
    if (!entry || !strncmp(module, "__", 2)) {
        pmi_admin_answer_word(call, "unknown moduleId:%s", module);
        return;
    }
    entry->disabled = off;
    pmi_admin_answer(call, pm_bytes(NULL, 0), pm_bytes(NULL, 0));
}

bool pmi_module_command(pm_app *app, pmi_admin_link *link, const char *from,
                        int level, pmi_admin_msg *msg)
{
    const char *command = msg->command, *module = msg->module;
    pm_admin_call *call = module_call(pmi_app_modules(app), link, msg, from);
    if (!call)
        return true;
    if (level > 1) {
        pmi_admin_answer_word(call, "Command permission denied");
        return false;
    }
    if (!strcmp(command, "list"))
        module_list(call);
    else if (!strcmp(command, "enable") || !strcmp(command, "disable"))
        module_switch(call, module, command[0] == 'd');
    else
        pmi_admin_answer_word(call, "unknown command:%s", command);
    return true;
}
