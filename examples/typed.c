/* SPDX-License-Identifier: MIT */
/* typed.c -- bodies that are protobuf messages, C structs on both ends.
 *
 * What it shows: nanopb's descriptors with pm_request_decode and
 *                pm_reply_encode, which pomelo.h has when it comes after them.
 * How to run:    build/examples/typed; it ends by itself.
 * What you see:  a client on the same loop asks for two moves; the first is
 *                made, the second goes too far and is refused.
 *
 * The messages, as a .proto file would have them (nanopb's generator makes the
 * same descriptors from it):
 *     message Move  { sint32 dx = 1; sint32 dy = 2; }
 *     message Place { sint32 x = 1; sint32 y = 2; uint32 steps = 3; } */
#include <pb_decode.h>
#include <pb_encode.h>

#include "examples/demo.h"

typedef struct typed_move {
    int32_t dx, dy;
} typed_move;
#define typed_move_FIELDLIST(X, a)                                             \
    X(a, STATIC, SINGULAR, SINT32, dx, 1)                                      \
    X(a, STATIC, SINGULAR, SINT32, dy, 2)
#define typed_move_CALLBACK NULL
#define typed_move_DEFAULT NULL
PB_BIND(typed_move, typed_move, AUTO)

typedef struct typed_place {
    int32_t x, y;
    uint32_t steps;
} typed_place;
#define typed_place_FIELDLIST(X, a)                                            \
    X(a, STATIC, SINGULAR, SINT32, x, 1)                                       \
    X(a, STATIC, SINGULAR, SINT32, y, 2)                                       \
    X(a, STATIC, SINGULAR, UINT32, steps, 3)
#define typed_place_CALLBACK NULL
#define typed_place_DEFAULT NULL
PB_BIND(typed_place, typed_place, AUTO)

enum { TYPED_FAR = 10, TYPED_ROOM = 64 };

typedef struct typed {
    demo demo;
    typed_place player;
    int answers;
} typed;

/* ---- The server --------------------------------------------------------- */

static void typed_handle(pm_request *req, void *ctx)
{
    typed *self = ctx;
    typed_move move = {0, 0};
    uint8_t room[TYPED_ROOM];
    pm_err err = pm_request_decode(req, &typed_move_msg, &move);
    if (err || move.dx < -TYPED_FAR || move.dx > TYPED_FAR ||
        move.dy < -TYPED_FAR || move.dy > TYPED_FAR) {
        pm_request_fail(req, PM_ELIMIT, "no such move", NULL);
        return;
    }
    self->player.x += move.dx;
    self->player.y += move.dy;
    self->player.steps++;
    pm_reply_encode(req, &typed_place_msg, &self->player, room, sizeof room);
}

/* ---- The client --------------------------------------------------------- */

static void typed_answered(pm_client *client, pm_err err, pm_body body,
                           void *ctx)
{
    typed *self = ctx;
    typed_place at = {0};
    bool is_place = !err && !pm_body_decode(body, &typed_place_msg, &at);
    (void)client;
    if (is_place)
        printf("at %d,%d after %u steps\n", at.x, at.y, at.steps);
    else
        puts("refused");
    self->demo.right += is_place ? at.x == -3 && at.y == 7 : self->answers == 1;
    if (++self->answers == 2)
        pm_loop_break(self->demo.loop);
}

static void typed_ask(pm_client *client, typed *self, typed_move move)
{
    uint8_t room[TYPED_ROOM];
    pm_body body;
    if (pm_body_encode(&typed_move_msg, &move, room, sizeof room, &body) ||
        pm_client_request(client, "world.player.move", body, typed_answered,
                          self))
        pm_loop_break(self->demo.loop);
}

static void typed_connected(pm_client *client, const struct cJSON *user,
                            void *ctx)
{
    (void)user;
    typed_ask(client, ctx, (typed_move){-3, 7});
    typed_ask(client, ctx, (typed_move){100, 0});
}

static pm_err typed_configure(pm_app *app, void *ctx)
{
    return pm_app_handler(app, "world.player.move", typed_handle, ctx);
}

int main(void)
{
    typed self = {0};
    pm_err err =
        demo_run(&self.demo, "world", typed_configure, typed_connected);
    return err == PM_OK && self.demo.right == 2 ? 0 : 1;
}
