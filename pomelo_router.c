/* SPDX-License-Identifier: MIT */
/* pomelo_router.c -- which server of a type.
 *
 * The router of that type decides, else the one of "default", else "def",
 * Pomelo's CRC of the uid. A router of the application is asked through a
 * pm_choice, which has two sides that end on their own:
 *
 *     whoever waits    done(server), once: the answer, or NULL at the end of
 *                      the app, or never after pmi_router_forget
 *     the application  pm_route_to, once: only then the storage goes
 *
 * So an answer that comes too late, even after pm_app_free, does nothing and
 * harms nobody. Choices hold no deadline: whoever waits has one.
 *
 * Start reading at pmi_router_choose(). */
#include "pomelo_router_internal.h"

#include "pomelo_route_internal.h"

/* Choices kept for the next ones: more than a turn has open at a time. */
#define ROUTER_SPARES_MAX 32

enum { ROUTER_DIGITS = 20 }; /* of an int64_t, sign included */

typedef enum router_rule {
    ROUTER_UNSET,
    ROUTER_ASK,
    ROUTER_BUILTIN
} router_rule;

/* One a type that was registered or chosen from; lives as long as the router,
 * since a choice may refer to it and a callback may replace the rule it runs
 * under. */
typedef struct router_type {
    router_rule rule;
    pm_route_cb cb;
    void *ctx;
    pmi_route_way way;
    pmi_route route; /* what the built-in ways remember for this type */
    pm_slice name;
    char text[];
} router_type;

struct pmi_router {
    pm_app *app;
    const pmi_env *env;
    pmi_map types;         /* name -> router_type */
    router_type *fallback; /* "default"; NULL: never registered */
    pmi_link open;         /* choices that somebody waits for */
    pmi_link late;         /* forgotten ones that the application holds */
    const pmi_router_sessions *sessions; /* set before the first choice */
    pmi_spares choices;
};

struct pm_choice {
    pmi_link link;
    pmi_router *router; /* NULL: the app is gone */
    const pmi_router_sessions *sessions;
    pm_loop *loop;
    router_type *type;
    pm_param param;
    char *text;         /* a long string of param: owned */
    pmi_router_cb done; /* NULL: nobody waits any more */
    void *ctx;
    char small[64]; /* a short one */
};

/* ---- Types ------------------------------------------------------------- */

static router_type *router_type_of(pmi_router *router, pm_slice name)
{
    router_type *type = pmi_map_get(&router->types, name);
    if (type)
        return type;
    type = pmi_zalloc(router->env, sizeof *type + name.len + 1);
    if (!type)
        return NULL;
    memcpy(type->text, name.data, name.len);
    type->name = pm_bytes(type->text, name.len);
    pmi_route_init(&type->route, router->env);
    if (pmi_map_put(&router->types, name, type, NULL)) {
        pmi_free(router->env, type);
        return NULL;
    }
    if (pmi_slice_eq(name, pm_text("default")))
        router->fallback = type;
    return type;
}

static const pmi_server_list *router_list(const pm_choice *choice)
{
    if (!choice->router)
        return NULL;
    return pmi_cluster_type(pmi_app_cluster(choice->router->app),
                            choice->type->name);
}

/* ---- Built-in ways ----------------------------------------------------- */

static const char *router_list_id(const void *of, size_t index)
{
    return ((const pmi_server_list *)of)->at[index]->pub.id;
}

static uint32_t router_list_weight(const void *of, size_t index)
{
    uint32_t weight = ((const pmi_server_list *)of)->at[index]->pub.weight;
    return weight ? weight : 1;
}

static uint32_t router_list_in_flight(const void *of, size_t index)
{
    const pmi_server *server = ((const pmi_server_list *)of)->at[index];
    return server->up ? server->in_flight : UINT32_MAX;
}

/* Calls between servers are too many for printf. */
static pm_slice router_digits(int64_t number, char out[ROUTER_DIGITS])
{
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    char *at = out + ROUTER_DIGITS;
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (number < 0)
        *--at = '-';
    return pm_bytes(at, (size_t)(out + ROUTER_DIGITS - at));
}

/* What a built-in way goes by. Nobody logged in and no parameter are "". */
static pm_slice router_key(const pmi_router *router, pm_param param,
                           char digits[ROUTER_DIGITS])
{
    switch (param.kind) {
    case PM_PARAM_SESSION:
        return pm_text(
            param.as.session ? router->sessions->uid(param.as.session) : NULL);
    case PM_PARAM_INTEGER:
        return router_digits(param.as.integer, digits);
    case PM_PARAM_STRING:
        return pm_text(param.as.string);
    case PM_PARAM_NONE:
        break;
    }
    return pm_text("");
}

static pm_err router_pick(const pmi_router *router, router_type *type,
                          pmi_route_way way, const pmi_server_list *servers,
                          pm_param param, pmi_server **out)
{
    pmi_route_list list = {
        servers,        servers->count,     servers->version,
        router_list_id, router_list_weight, router_list_in_flight};
    char digits[ROUTER_DIGITS];
    size_t index = 0;
    pm_err err = pmi_route_pick(&type->route, way, &list,
                                router_key(router, param, digits), &index);
    *out = err ? NULL : servers->at[index];
    return err;
}

/* ---- Choices ----------------------------------------------------------- */

/* What the parameter is has to outlast the call that brought it. */
static bool router_keep_param(pm_choice *choice, pm_param param)
{
    const pmi_env *env = pmi_loop_env(choice->loop);
    size_t len;
    choice->param = param;
    if (param.kind == PM_PARAM_SESSION && param.as.session)
        choice->sessions->ref((pm_session *)(uintptr_t)param.as.session);
    if (param.kind != PM_PARAM_STRING || !param.as.string)
        return true;
    len = strlen(param.as.string);
    if (len < sizeof choice->small) {
        memcpy(choice->small, param.as.string, len + 1);
        choice->param.as.string = choice->small;
        return true;
    }
    choice->param.as.string = choice->text =
        pmi_strndup(env, param.as.string, len);
    return choice->text != NULL;
}

static void router_drop_param(pm_choice *choice)
{
    pm_param param = choice->param;
    choice->param = pm_param_none();
    pmi_free(pmi_loop_env(choice->loop), choice->text);
    choice->text = NULL;
    if (param.kind == PM_PARAM_SESSION)
        choice->sessions->unref((pm_session *)(uintptr_t)param.as.session);
}

static void router_free_choice(pm_choice *choice)
{
    pmi_router *router = choice->router;
    pm_loop *loop = choice->loop;
    pmi_list_remove(&choice->link);
    router_drop_param(choice);
    if (router) {
        pmi_spares_put(&router->choices, choice);
        return;
    }
    pmi_free(pmi_loop_env(loop), choice);
    pmi_loop_drop(loop);
}

static pm_choice *router_new_choice(pmi_router *router, pm_param param)
{
    pm_choice *choice = pmi_spares_get(&router->choices);
    pm_loop *loop = pm_app_loop(router->app);
    if (!choice)
        return NULL;
    choice->router = router;
    choice->sessions = router->sessions;
    choice->loop = loop;
    if (router_keep_param(choice, param))
        return choice;
    choice->param = pm_param_none();
    router_free_choice(choice);
    return NULL;
}

/* Ends the side of who waits. */
static void router_done(pm_choice *choice, pmi_server *server)
{
    pmi_router_cb done = choice->done;
    choice->done = NULL;
    pmi_list_remove(&choice->link);
    if (choice->router)
        pmi_list_add(&choice->router->late, &choice->link);
    if (done)
        done(server, choice->ctx);
}

static pm_err router_ask(pmi_router *router, router_type *type,
                         router_type *rule, pm_param param, pmi_router_cb done,
                         void *ctx)
{
    pm_loop *loop = pm_app_loop(router->app);
    pm_choice *choice = router_new_choice(router, param);
    if (!choice)
        return PM_ENOMEM;
    choice->type = type;
    choice->done = done;
    choice->ctx = ctx;
    pmi_list_add(&router->open, &choice->link);
    pmi_loop_enter(loop); /* the router may free the app */
    rule->cb(router->app, choice, rule->ctx);
    pmi_loop_leave(loop);
    return PM_OK;
}

pm_err pmi_router_choose(pmi_router *router, pm_slice name, pm_param param,
                         pmi_router_cb done, void *ctx)
{
    const pmi_server_list *servers =
        pmi_cluster_type(pmi_app_cluster(router->app), name);
    router_type *type, *rule;
    pmi_route_way way = PMI_ROUTE_DEF;
    pmi_server *server;
    /* First of all: strangers' types must not leave traces here. */
    if (!servers || servers->count == 0) {
        done(NULL, ctx);
        return PM_OK;
    }
    type = router_type_of(router, name);
    if (!type)
        return PM_ENOMEM;
    rule = type->rule == ROUTER_UNSET && router->fallback ? router->fallback
                                                          : type;
    if (rule->rule == ROUTER_ASK)
        return router_ask(router, type, rule, param, done, ctx);
    if (rule->rule == ROUTER_BUILTIN)
        way = rule->way;
    if (router_pick(router, type, way, servers, param, &server) == PM_ENOMEM)
        return PM_ENOMEM;
    done(server, ctx);
    return PM_OK;
}

void pmi_router_forget(pmi_router *router, pmi_router_cb done, void *ctx)
{
    /* From the end: who forgets has just asked. */
    for (pmi_link *at = router->open.prev; at != &router->open; at = at->prev) {
        pm_choice *choice = PMI_OUTER(at, pm_choice, link);
        if (choice->done != done || choice->ctx != ctx)
            continue;
        choice->done = NULL;
        router_done(choice, NULL);
        return;
    }
}

/* ---- Life -------------------------------------------------------------- */

pm_err pmi_router_new(pm_app *app, pmi_router **out)
{
    const pmi_env *env = pmi_app_env(app);
    pmi_router *router = pmi_zalloc(env, sizeof *router);
    if (!router)
        return PM_ENOMEM;
    router->app = app;
    router->env = env;
    pmi_loop_map_init(pm_app_loop(app), &router->types);
    pmi_spares_init(&router->choices, env, sizeof(pm_choice),
                    offsetof(pm_choice, small), ROUTER_SPARES_MAX);
    pmi_list_init(&router->open);
    pmi_list_init(&router->late);
    *out = router;
    return PM_OK;
}

void pmi_router_set_sessions(pmi_router *router,
                             const pmi_router_sessions *sessions)
{
    router->sessions = sessions;
}

void pmi_router_close(pmi_router *router)
{
    pmi_link waiting, *node;
    pmi_list_init(&waiting);
    pmi_list_move(&waiting, &router->open);
    while ((node = pmi_list_take(&waiting)))
        router_done(PMI_OUTER(node, pm_choice, link), NULL);
    /* A session must not outlast its app because a router is slow. */
    for (node = router->late.next; node != &router->late; node = node->next) {
        pm_choice *choice = PMI_OUTER(node, pm_choice, link);
        if (choice->param.kind == PM_PARAM_SESSION)
            router_drop_param(choice);
    }
}

static void router_free_types(pmi_router *router)
{
    pmi_map_walk walk = pmi_map_begin(&router->types);
    while (pmi_map_next(&walk)) {
        router_type *type = walk.value;
        pmi_route_fini(&type->route);
        pmi_free(router->env, type);
    }
    pmi_map_fini(&router->types);
}

void pmi_router_free(pmi_router *router)
{
    pmi_link *node;
    if (!router)
        return;
    pmi_router_close(router);
    while ((node = pmi_list_take(&router->late))) {
        pm_choice *choice = PMI_OUTER(node, pm_choice, link);
        choice->router = NULL;
        pmi_loop_hold(choice->loop);
    }
    pmi_spares_fini(&router->choices);
    router_free_types(router);
    pmi_free(router->env, router);
}

/* ---- Public ------------------------------------------------------------ */

pm_param pm_choice_param(const pm_choice *choice)
{
    return choice->param;
}

size_t pm_choice_count(const pm_choice *choice)
{
    const pmi_server_list *list = router_list(choice);
    return list ? list->count : 0;
}

const pm_server *pm_choice_server(const pm_choice *choice, size_t index)
{
    const pmi_server_list *list = router_list(choice);
    return list && index < list->count ? &list->at[index]->pub : NULL;
}

void pm_route_to(pm_choice *choice, const char *server_id)
{
    pm_loop *loop = choice->loop;
    pmi_server *server = NULL;
    pmi_loop_enter(loop); /* the app may end in here */
    if (choice->done && server_id)
        server =
            pmi_cluster_find(pmi_app_cluster(choice->router->app), server_id);
    if (choice->done)
        router_done(choice, server);
    pmi_loop_leave(loop);
    router_free_choice(choice);
}

static router_type *router_register(pm_app *app, const char *name, pm_err *err)
{
    router_type *type;
    *err = PM_EINVAL;
    if (!name || !*name || strlen(name) > 255)
        return NULL;
    type = router_type_of(pmi_app_router(app), pm_text(name));
    *err = type ? PM_OK : PM_ENOMEM;
    return type;
}

pm_err pm_app_route(pm_app *app, const char *server_type, pm_route_cb cb,
                    void *ctx)
{
    pm_err err;
    router_type *type = router_register(app, server_type, &err);
    if (!type)
        return err;
    type->rule = cb ? ROUTER_ASK : ROUTER_UNSET;
    type->cb = cb;
    type->ctx = ctx;
    return PM_OK;
}

pm_err pm_app_route_builtin(pm_app *app, const char *server_type,
                            const char *name)
{
    pmi_route_way way;
    router_type *type;
    pm_err err;
    if (!name || !pmi_route_way_of(name, &way))
        return PM_EINVAL;
    type = router_register(app, server_type, &err);
    if (!type)
        return err;
    type->rule = ROUTER_BUILTIN;
    type->way = way;
    return PM_OK;
}
