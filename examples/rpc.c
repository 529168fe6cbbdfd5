/* SPDX-License-Identifier: MIT */
/* rpc.c -- servers that call each other: answers, errors, and who is asked.
 *
 * How to run:   build/examples/rpc; it ends by itself.
 * What you see: one line a call: what was asked, who answered, and what. Of
 *               the two areas of the table only area-1 runs, so the calls that
 *               the router gives to area-2 fail, at once and not by a timeout.
 *
 * Both servers live on one loop; on two machines only the hosts would differ.
 */
#include "pomelo.h"

#include <stdio.h>
#include <unistd.h>

static const pm_server servers[] = {
    {.id = "world-1", .type = "world"}, /* it only calls: no port */
    {.id = "area-1", .type = "area", .port = 6050},
    {.id = "area-2", .type = "area", .port = 6051}};

typedef struct demo {
    pm_loop *loop;
    pm_app *world, *area;
    size_t at; /* the call that is on its way */
    bool good;
} demo;

/* ---- What others may call ----------------------------------------------- */

static void area_echo(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_reply(call, pm_call_args(call));
}

static void area_enter(pm_call *call, void *ctx)
{
    (void)ctx;
    pm_call_fail(call, 403, "the area is full");
}

/* Who is asked? Pomelo's favourite: routeParam % n. */
static void area_route(pm_app *app, pm_choice *choice, void *ctx)
{
    pm_param param = pm_choice_param(choice);
    size_t count = pm_choice_count(choice), index = 0;
    (void)app;
    (void)ctx;
    if (param.kind == PM_PARAM_INTEGER && param.as.integer > 0)
        index = (size_t)param.as.integer % count;
    pm_route_to(choice, pm_choice_server(choice, index)->id);
}

static pm_err configure(pm_app *app)
{
    pm_err err = pm_app_remote(app, "area.areaRemote.echo", area_echo, NULL);
    if (err == PM_OK)
        err = pm_app_remote(app, "area.areaRemote.enter", area_enter, NULL);
    if (err == PM_OK)
        err = pm_app_route(app, "area", area_route, NULL);
    return err;
}

/* ---- The calls, one after the other ------------------------------------- */

static const struct {
    const char *method;
    const char *server_id; /* NULL: the router is asked, with `route` */
    int route;
    pm_err expected;
} calls[] = {{"area.areaRemote.echo", NULL, 4, PM_OK},
             {"area.areaRemote.enter", NULL, 0, PM_EREMOTE},
             {"area.areaRemote.nothing", NULL, 0, PM_ENOMETHOD},
             {"area.areaRemote.echo", NULL, 7, PM_EDOWN},
             {"area.areaRemote.echo", "area-1", 7, PM_OK},
             {"area.areaRemote.echo", "area-9", 0, PM_ENOSERVER},
             {"shop.shopRemote.buy", NULL, 0, PM_ENOSERVER}};

#define CALLS (sizeof calls / sizeof *calls)

static void next_call(demo *self);

static void answered(const pm_rpc_result *result, void *ctx)
{
    demo *self = ctx;
    printf("%-24s %-7s %s", calls[self->at].method,
           result->server_id ? result->server_id : "nobody",
           pm_err_name(result->err));
    if (result->err == PM_OK)
        printf(" %.*s\n", (int)result->body.data.len,
               (const char *)result->body.data.data);
    else
        printf(" %d %s\n", result->code, result->detail);
    self->good &= result->err == calls[self->at].expected;
    self->at++;
    next_call(self);
}

static void next_call(demo *self)
{
    pm_body args = pm_body_text("[\"hello\",42]");
    pm_rpc_opts opts = pm_rpc_opts_default();
    pm_err err;
    if (self->at == CALLS)
        return;
    opts.method = calls[self->at].method;
    opts.server_id = calls[self->at].server_id;
    opts.args = args;
    if (opts.server_id) /* also the way to a deadline, or to cancel */
        err = pm_rpc_call(self->world, &opts, answered, self, NULL);
    else
        err = pm_rpc_invoke(self->world, opts.method,
                            pm_param_integer(calls[self->at].route), args,
                            answered, self);
    self->good &= err == PM_OK;
}

static pm_err start(demo *self, const char *id, pm_app **out)
{
    pm_app_opts opts = pm_app_opts_default();
    pm_err err;
    opts.loop = self->loop;
    opts.servers = servers;
    opts.servers_count = sizeof servers / sizeof *servers;
    opts.server_id = id;
    err = pm_app_new(out, &opts);
    if (err == PM_OK)
        err = configure(*out);
    return err ? err : pm_app_start(*out);
}

int main(void)
{
    demo self = {.good = true};
    pm_loop_opts opts = pm_loop_opts_default();
    opts.memory_only = true; /* no ports are opened */
    if (pm_loop_new(&self.loop, &opts))
        return 1;
    self.good = start(&self, "area-1", &self.area) == PM_OK &&
                start(&self, "world-1", &self.world) == PM_OK;
    if (self.good)
        next_call(&self);
    while (self.good && self.at < CALLS)
        if (pm_loop_poll(self.loop, 0) == PM_OK)
            usleep(1000);
    pm_app_free(self.world);
    pm_app_free(self.area);
    pm_loop_free(self.loop);
    return self.good ? 0 : 1;
}
