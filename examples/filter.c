/* SPDX-License-Identifier: MIT */
/* filter.c -- what happens around a handler: filters before and after it, the
 * error handler, one message at a time.
 *
 * How to run:   build/examples/filter; it ends by itself.
 * What you see: three purchases, answered in the order in which they were
 *               asked though the first takes longest; the second is refused by
 *               a filter and put into words by the error handler. */
#include "examples/demo.h"

#include <cjson/cJSON.h>
#include <string.h>

typedef struct shop {
    demo demo;
    pm_request *buying; /* at most one, by the serial filter */
    int served, answers;
} shop;

static double shop_coins(pm_request *req)
{
    cJSON *body = NULL;
    const cJSON *coins = NULL;
    if (pm_request_json(req, &body) == PM_OK)
        coins = cJSON_GetObjectItemCaseSensitive(body, "coins");
    return cJSON_IsNumber(coins) ? coins->valuedouble : 0;
}

/* ---- Around the handler ------------------------------------------------- */

static void shop_before(pm_request *req, void *ctx)
{
    (void)ctx;
    if (shop_coins(req) > 100)
        pm_request_fail(req, PM_ELIMIT, "nobody has so much", NULL);
    else
        pm_filter_next(req);
}

/* Adds a member to every good answer. */
static void shop_after(pm_request *req, const pm_response *response, void *ctx)
{
    shop *self = ctx;
    cJSON *body = NULL;
    if (response->err == PM_OK &&
        pm_json_tree(response->body.data, &body) == PM_OK) {
        cJSON_AddNumberToObject(body, "served", ++self->served);
        pm_filter_set(req, PM_OK, body);
        cJSON_Delete(body);
    }
    pm_filter_next(req);
}

static void shop_error(pm_request *req, const pm_response *response, void *ctx)
{
    cJSON *body = cJSON_CreateObject();
    (void)ctx;
    cJSON_AddStringToObject(body, "why", response->detail);
    pm_filter_set(req, response->err, body);
    cJSON_Delete(body);
    pm_filter_next(req);
}

/* ---- The handler: answers when a timer says so -------------------------- */

static void shop_bought(pm_app *app, void *ctx)
{
    shop *self = ctx;
    pm_request *req = self->buying;
    cJSON *body = cJSON_CreateObject();
    (void)app;
    self->buying = NULL;
    if (req) {
        cJSON_AddNumberToObject(body, "bought", shop_coins(req));
        pm_reply_json(req, body);
    }
    cJSON_Delete(body);
}

/* The client has gone, or the app ends. */
static void shop_cancelled(pm_request *req, pm_err why, void *ctx)
{
    shop *self = ctx;
    (void)why;
    self->buying = NULL;
    pm_request_drop(req);
}

static void shop_buy(pm_request *req, void *ctx)
{
    shop *self = ctx;
    uint32_t ms = (uint32_t)shop_coins(req);
    self->buying = req;
    pm_request_on_cancel(req, shop_cancelled, self);
    if (pm_app_timer(pm_request_app(req), ms, 0, shop_bought, self, NULL))
        shop_bought(pm_request_app(req), self);
}

/* ---- A client ----------------------------------------------------------- */

static void shop_answered(pm_client *client, pm_err err, pm_body body,
                          void *ctx)
{
    static const char *const right[] = {
        "{\"bought\":30,\"served\":1}",
        "{\"why\":\"nobody has so much\",\"code\":500}",
        "{\"bought\":5,\"served\":2}"};
    shop *self = ctx;
    pm_slice want = pm_text(right[self->answers]);
    (void)client;
    (void)err;
    printf("%.*s\n", (int)body.data.len, (const char *)body.data.data);
    self->demo.right += body.data.len == want.len &&
                        !memcmp(body.data.data, want.data, want.len);
    if (++self->answers == 3)
        pm_loop_break(self->demo.loop);
}

static void shop_ask(pm_client *client, shop *self, const char *json)
{
    if (pm_client_request(client, "shop.shop.buy", pm_body_text(json),
                          shop_answered, self))
        pm_loop_break(self->demo.loop);
}

static void shop_connected(pm_client *client, const cJSON *user, void *ctx)
{
    (void)user;
    shop_ask(client, ctx, "{\"coins\":30}");
    shop_ask(client, ctx, "{\"coins\":500}");
    shop_ask(client, ctx, "{\"coins\":5}");
}

static pm_err shop_configure(pm_app *app, void *ctx)
{
    pm_filter filter = {shop_before, shop_after, NULL};
    pm_err err = pm_filter_serial(app, 0);
    if (err == PM_OK)
        err = pm_app_filter(app, &filter, ctx);
    pm_app_error_handler(app, shop_error, ctx);
    return err ? err : pm_app_handler(app, "shop.shop.buy", shop_buy, ctx);
}

int main(void)
{
    shop self = {0};
    pm_err err = demo_run(&self.demo, "shop", shop_configure, shop_connected);
    return err == PM_OK && self.demo.right == 3 ? 0 : 1;
}
