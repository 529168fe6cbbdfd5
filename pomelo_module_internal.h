/* SPDX-License-Identifier: MIT */
/* pomelo_module_internal.h -- admin modules: who answers what is asked over the
 * console. The library's own stand in the same table as the application's. */
#ifndef PMI_MODULE_INTERNAL_H
#define PMI_MODULE_INTERNAL_H

#include "pomelo_admin_internal.h"

/* As what this app is asked. */
typedef enum pmi_module_role {
    PMI_ROLE_MONITOR, /* by the master */
    PMI_ROLE_MASTER,  /* by a server */
    PMI_ROLE_CLIENT   /* by a console */
} pmi_module_role;

/* Of modules that judge each question themselves. */
#define PMI_LEVEL_ANY 1000000

typedef struct pmi_modules pmi_modules;
pm_err pmi_modules_new(pm_app *app, pmi_modules **out);
void pmi_modules_free(pmi_modules *modules);
/* Timers of modules with an interval; those of the other role rest. */
void pmi_modules_start(pmi_modules *modules, bool master);
/* No timer runs any more; what is unanswered forgets the app. */
void pmi_modules_close(pmi_modules *modules);
/* One of the library's own: the name is not checked. */
pm_err pmi_module_add(pm_app *app, const pm_admin_module *module, void *ctx);

/* Finds the module and asks it; takes the message's tree. Whatever is wrong is
 * answered. level: of the console's user, 0 for servers. False: the user had
 * not the right. */
bool pmi_module_ask(pm_app *app, pmi_admin_link *link, const char *from,
                    int level, pmi_module_role role, pmi_admin_msg *msg);
/* Pomelo's list, enable, disable. */
bool pmi_module_command(pm_app *app, pmi_admin_link *link, const char *from,
                        int level, pmi_admin_msg *msg);
/* Appends the names as a JSON array; own: without the library's. */
void pmi_modules_names(const pmi_modules *modules, bool own, pmi_buf *out);

#endif
