/* SPDX-License-Identifier: MIT */
/* test/bench/codec.c -- what one message costs in each codec, alone.
 *
 * Each row does the work for one message of the load generator: 64 bytes of
 * body, a numbered route. Start reading at codec_rows. */
#include "measure.h"

#include "core/ws.h"
#include "pomelo_frame_internal.h"
#include "pomelo_proto_internal.h"
#include "pomelo_route_internal.h"

#include <cjson/cJSON.h>

enum { CODEC_BODY = 64, CODEC_ROUTES = 200, CODEC_KEYS = 1000 };

static const char codec_body[] =
    "{\"p\":\"abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstu\"}";
static const char codec_chat[] =
    "{\"route\":\"onChat\",\"from\":\"alice\",\"target\":\"*\",\"id\":1234567,"
    "\"at\":1700000000.125,\"tags\":[\"a\",\"b\",\"c\"],\"me\":{\"x\":1.5,"
    "\"y\":-2,\"ok\":true}}";
static const char codec_schema[] =
    "{\"chat.chatHandler.send\":{\"required string p\":1,"
    "\"optional uInt32 id\":2,\"repeated uInt32 list\":3}}";
static const char codec_route[] = "chat.chatHandler.send";

typedef struct codec {
    pmi_env env;
    uint8_t package[256], ws[CODEC_BODY + 64], kib[1024], frame[512];
    size_t package_len, ws_len, frame_len;
    pmi_dict *dict;
    pmi_dialect *dialect;
    const pmi_dialect_message *schema;
    cJSON *tree, *chat, *typed;
    pmi_buf out, typed_bytes;
    pmi_map names, numbers;
    uint64_t turn;
    volatile uint64_t sink; /* keeps results from being thrown away */
} codec;

/* ---- Client wire --------------------------------------------------------- */

static void codec_package_read(void *ctx)
{
    codec *c = ctx;
    pmi_package package;
    c->sink += (uint64_t)pmi_proto_package_decode(c->package, c->package_len,
                                                  65536, &package);
}

static void codec_message_read(void *ctx)
{
    codec *c = ctx;
    pmi_message msg;
    c->sink += (uint64_t)pmi_proto_message_decode(
        pm_bytes(c->package + PMI_PACKAGE_HEAD,
                 c->package_len - PMI_PACKAGE_HEAD),
        &msg);
}

static void codec_message_write(void *ctx)
{
    codec *c = ctx;
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    c->sink += pmi_proto_message_head(head, PMI_MESSAGE_RESPONSE, 4711,
                                      pm_bytes(NULL, 0), 0);
}

static void codec_dict_code(void *ctx)
{
    codec *c = ctx;
    c->sink += pmi_dict_code(c->dict, pm_text(codec_route));
}

static void codec_dict_route(void *ctx)
{
    codec *c = ctx;
    c->sink += pmi_dict_route(c->dict, (uint16_t)(1 + c->turn++ % 100)).len;
}

static void codec_ws_head(void *ctx)
{
    codec *c = ctx;
    pmi_ws_frame frame;
    c->sink += (uint64_t)pmi_ws_head_parse(c->ws, c->ws_len, &frame);
}

static void codec_unmask(void *ctx)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    codec *c = ctx;
    pmi_ws_unmask(c->ws + 6, CODEC_BODY, mask, 0);
}

static void codec_unmask_kib(void *ctx)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    codec *c = ctx;
    pmi_ws_unmask(c->kib, sizeof c->kib, mask, 0);
}

/* ---- Bodies -------------------------------------------------------------- */

static void codec_json_parse_text(codec *c, const char *text)
{
    cJSON *tree = NULL;
    c->sink +=
        (uint64_t)pmi_json_parse(&c->env, pm_text(text), 32, &tree, NULL);
    cJSON_Delete(tree);
}

static void codec_json_parse(void *ctx)
{
    codec_json_parse_text(ctx, codec_body);
}

static void codec_json_parse_chat(void *ctx)
{
    codec_json_parse_text(ctx, codec_chat);
}

static void codec_json_print(void *ctx)
{
    codec *c = ctx;
    pmi_buf_reset(&c->out);
    c->sink += (uint64_t)pmi_json_print(c->tree, 32, &c->out);
}

static void codec_json_print_chat(void *ctx)
{
    codec *c = ctx;
    pmi_buf_reset(&c->out);
    c->sink += (uint64_t)pmi_json_print(c->chat, 32, &c->out);
}

static void codec_dialect_encode(void *ctx)
{
    codec *c = ctx;
    pmi_buf_reset(&c->out);
    c->sink += (uint64_t)pmi_dialect_encode(c->dialect, c->schema, c->typed, 32,
                                            &c->out);
}

static void codec_dialect_decode(void *ctx)
{
    codec *c = ctx;
    cJSON *tree = NULL;
    c->sink += (uint64_t)pmi_dialect_decode(
        c->dialect, c->schema, pmi_buf_slice(&c->typed_bytes), 32, &tree);
    cJSON_Delete(tree);
}

/* ---- Between servers ----------------------------------------------------- */

static pmi_frame codec_call(void)
{
    static const uint8_t args[CODEC_BODY] = {0};
    pmi_frame frame = {.kind = PMI_FRAME_CALL,
                       .id = (uint64_t)77 << 32 | 5,
                       .op = 1,
                       .deadline_ms = 5000};
    frame.method = pm_text("chat.chatRemote.add");
    frame.body = pm_body_bytes(args, sizeof args);
    return frame;
}

static void codec_frame_write(void *ctx)
{
    codec *c = ctx;
    pmi_frame frame = codec_call();
    pmi_frame_out out;
    c->sink += (uint64_t)pmi_frame_encode(&frame, &out);
}

static void codec_frame_read(void *ctx)
{
    codec *c = ctx;
    pmi_frame frame;
    c->sink += (uint64_t)pmi_frame_decode(c->frame, c->frame_len, PMI_FRAME_MAX,
                                          &frame);
}

static void codec_crc(void *ctx)
{
    codec *c = ctx;
    c->sink += (uint64_t)pmi_route_crc("user4711*room12");
}

static void codec_siphash(void *ctx)
{
    codec *c = ctx;
    c->sink += pmi_map_hash(1, 2, codec_route, sizeof codec_route - 1);
}

static void codec_map_name(void *ctx)
{
    codec *c = ctx;
    c->sink += pmi_map_get(&c->names, pm_text("key500")) != NULL;
}

static void codec_map_number(void *ctx)
{
    codec *c = ctx;
    c->sink += pmi_map_get_num(&c->numbers, 1 + c->turn++ % CODEC_KEYS) != NULL;
}

static const measure_row codec_rows[] = {
    {"package: read", codec_package_read, 1, 1000},
    {"message: read a request", codec_message_read, 1, 1000},
    {"message: write a response's head", codec_message_write, 1, 1000},
    {"dictionary: route to code", codec_dict_code, 1, 1000},
    {"dictionary: code to route", codec_dict_route, 1, 1000},
    {"websocket: read a frame's head", codec_ws_head, 1, 1000},
    {"websocket: unmask 64 bytes", codec_unmask, 1, 1000},
    {"websocket: unmask 1 KiB", codec_unmask_kib, 1, 1000},
    {"json: parse {p}", codec_json_parse, 1, 1000},
    {"json: print {p}", codec_json_print, 1, 1000},
    {"json: parse 11 values", codec_json_parse_chat, 1, 1000},
    {"json: print 11 values", codec_json_print_chat, 1, 1000},
    {"dialect: encode {p, id, list}", codec_dialect_encode, 1, 1000},
    {"dialect: decode {p, id, list}", codec_dialect_decode, 1, 1000},
    {"rpc: write a call's frame", codec_frame_write, 1, 1000},
    {"rpc: read a call's frame", codec_frame_read, 1, 1000},
    {"route: crc of a uid", codec_crc, 1, 1000},
    {"map: siphash of a route", codec_siphash, 1, 1000},
    {"map: find a name among 1,000", codec_map_name, 1, 1000},
    {"map: find a number among 1,000", codec_map_number, 1, 1000},
};

/* ---- What they work on ---------------------------------------------------- */

static void codec_must(pm_err err)
{
    if (err) {
        fprintf(stderr, "codec: %s\n", pm_strerror(err));
        exit(1);
    }
}

static void codec_make_wire(codec *c)
{
    uint8_t head[PMI_MESSAGE_HEAD_MAX];
    pmi_frame frame = codec_call();
    pmi_frame_out out;
    size_t len = pmi_proto_message_head(head, PMI_MESSAGE_REQUEST, 4711,
                                        pm_bytes(NULL, 0), 3);
    pmi_proto_package_head(c->package, PMI_PACKAGE_DATA, len + CODEC_BODY);
    memcpy(c->package + PMI_PACKAGE_HEAD, head, len);
    memcpy(c->package + PMI_PACKAGE_HEAD + len, codec_body, CODEC_BODY);
    c->package_len = PMI_PACKAGE_HEAD + len + CODEC_BODY;
    c->ws_len = CODEC_BODY + pmi_ws_head_write(c->ws, PMI_WS_BINARY, CODEC_BODY,
                                               (const uint8_t *)"mask");
    codec_must(pmi_frame_encode(&frame, &out));
    for (size_t i = 0; i < out.count; i++) {
        memcpy(c->frame + c->frame_len, out.parts[i].data, out.parts[i].len);
        c->frame_len += out.parts[i].len;
    }
}

static void codec_make_dict(codec *c)
{
    static char names[CODEC_ROUTES][48];
    const char *routes[CODEC_ROUTES];
    for (int i = 0; i < CODEC_ROUTES - 1; i++) {
        snprintf(names[i], sizeof names[i], "game.part%dHandler.act", i);
        routes[i] = names[i];
    }
    routes[CODEC_ROUTES - 1] = codec_route;
    codec_must(
        pmi_dict_new(&c->env, 1, 2, routes, CODEC_ROUTES, NULL, 0, &c->dict));
}

static void codec_make_maps(codec *c)
{
    char key[16];
    pmi_map_init(&c->names, &c->env, 1, 2);
    pmi_map_init(&c->numbers, &c->env, 1, 2);
    for (unsigned i = 1; i <= CODEC_KEYS; i++) {
        snprintf(key, sizeof key, "key%u", i);
        codec_must(pmi_map_put(&c->names, pm_text(key), c, NULL));
        codec_must(pmi_map_put_num(&c->numbers, i, c, NULL));
    }
}

static void codec_make(codec *c)
{
    static const char typed[] =
        "{\"p\":\"abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklm\","
        "\"id\":123456,\"list\":[1,200,30000]}";
    pmi_env_init(&c->env, NULL);
    codec_make_wire(c);
    codec_make_dict(c);
    codec_make_maps(c);
    pmi_buf_init(&c->out, &c->env, SIZE_MAX);
    pmi_buf_init(&c->typed_bytes, &c->env, SIZE_MAX);
    codec_must(pm_json_tree(pm_text(codec_body), &c->tree));
    codec_must(pm_json_tree(pm_text(codec_chat), &c->chat));
    codec_must(pm_json_tree(pm_text(typed), &c->typed));
    codec_must(
        pmi_dialect_new(&c->env, 1, 2, pm_text(codec_schema), &c->dialect));
    c->schema = pmi_dialect_find(c->dialect, pm_text(codec_route));
    codec_must(pmi_dialect_encode(c->dialect, c->schema, c->typed, 32,
                                  &c->typed_bytes));
}

static void codec_free(codec *c)
{
    cJSON_Delete(c->tree);
    cJSON_Delete(c->chat);
    cJSON_Delete(c->typed);
    pmi_buf_fini(&c->out);
    pmi_buf_fini(&c->typed_bytes);
    pmi_map_fini(&c->names);
    pmi_map_fini(&c->numbers);
    pmi_dict_free(c->dict);
    pmi_dialect_free(c->dialect);
}

int main(int argc, char **argv)
{
    codec c = {0};
    int status;
    codec_make(&c);
    status = measure_main(codec_rows, PMI_COUNT(codec_rows), &c, argc, argv);
    codec_free(&c);
    return status;
}
