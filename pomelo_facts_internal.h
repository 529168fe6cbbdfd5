/* SPDX-License-Identifier: MIT */
/* pomelo_facts_internal.h -- what a server says of itself when the console
 * asks. */
#ifndef PMI_FACTS_INTERNAL_H
#define PMI_FACTS_INTERNAL_H

#include "pomelo_admin_internal.h"

typedef struct pmi_facts {
    pm_app *app;
    uint64_t since_us; /* when the app was made */
} pmi_facts;
void pmi_facts_init(pmi_facts *facts, pm_app *app);
int64_t pmi_facts_pid(const pmi_facts *facts);

/* Appends the JSON object for this question: "list", "servers", "connections",
 * "channels", "nodeInfo", "systemInfo", and watchServer's others. False: no
 * such question (nothing was appended). param: its parameter's text, "" when
 * there is none. */
bool pmi_facts_tell(const pmi_facts *facts, const char *question,
                    const char *param, pmi_buf *out);
/* Is the answer to be gathered from all servers, as a map? */
bool pmi_facts_is_gathered(const char *question);

#endif
