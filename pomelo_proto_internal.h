/* SPDX-License-Identifier: MIT */
/* pomelo_proto_internal.h -- Pomelo's client wire: packages, messages, route
 * dictionary, handshake bodies, signatures. Bytes and structs only: no clock,
 * no socket, no callback. Every byte comes from strangers. */
#ifndef PMI_PROTO_INTERNAL_H
#define PMI_PROTO_INTERNAL_H

#include "core/buf.h"
#include "core/crypto.h"
#include "core/map.h"
#include "pomelo_dialect_internal.h"

/* ---- Packages: type (1) | length (3, big endian) | body ---------------- */
enum {
    PMI_PACKAGE_HANDSHAKE = 1,
    PMI_PACKAGE_ACK = 2,
    PMI_PACKAGE_HEARTBEAT = 3,
    PMI_PACKAGE_DATA = 4,
    PMI_PACKAGE_KICK = 5
};
#define PMI_PACKAGE_HEAD 4
#define PMI_PACKAGE_BODY_MAX 0xffffffu

typedef struct pmi_package {
    uint8_t type;
    pm_slice body; /* borrowed from the input */
} pmi_package;

static inline void pmi_proto_package_head(uint8_t p[PMI_PACKAGE_HEAD],
                                          uint8_t type, size_t body_len)
{
    p[0] = type;
    p[1] = (uint8_t)(body_len >> 16);
    p[2] = (uint8_t)(body_len >> 8);
    p[3] = (uint8_t)body_len;
}
/* A row of packages as they come over TCP: returns bytes consumed (> 0) for one
 * whole package, 0 = more bytes are needed, PM_EPACKAGE (type not 1..5, told as
 * soon as four bytes are in) or PM_ESIZE (announced body over body_max,
 * likewise). */
long pmi_proto_package_decode(const uint8_t *data, size_t len, size_t body_max,
                              pmi_package *out);
/* One WebSocket message or datagram, which must hold exactly one package. A
 * cut head counts as zeros when the body is then empty (`03` is a heartbeat).
 * Anything else that does not fit: PM_EPACKAGE. PM_ESIZE as above. */
pm_err pmi_proto_package_frame(const uint8_t *data, size_t len, size_t body_max,
                               pmi_package *out);

/* ---- Messages: flag (1) | id (varint)? | route? | body ----------------- */
enum {
    PMI_MESSAGE_REQUEST = 0,
    PMI_MESSAGE_NOTIFY = 1,
    PMI_MESSAGE_RESPONSE = 2,
    PMI_MESSAGE_PUSH = 3
};
#define PMI_ROUTE_MAX 255
#define PMI_MESSAGE_HEAD_MAX (1 + 5 + 1 + PMI_ROUTE_MAX)

typedef struct pmi_message {
    uint8_t type;    /* 0..7; 4..7 have neither id nor route */
    bool compressed; /* route is `code` */
    bool has_route;
    uint32_t id; /* 0 where there is none */
    uint16_t code;
    pm_slice route; /* borrowed from the input; empty when compressed */
    pm_slice body;  /* borrowed from the input */
} pmi_message;

/* PM_EMESSAGE: empty, cut, id of more than 5 bytes or over 2^31-1. */
pm_err pmi_proto_message_decode(pm_slice in, pmi_message *out);
/* Head only (the body follows it). code 0: route as text. Returns its length,
 * 0 when route or id do not fit. A RESPONSE has no route. */
size_t pmi_proto_message_head(uint8_t out[PMI_MESSAGE_HEAD_MAX], uint8_t type,
                              uint32_t id, pm_slice route, uint16_t code);

/* ---- Route dictionary -------------------------------------------------- */
typedef struct pmi_dict pmi_dict;
/* routes: type.handler.method in any order, duplicates counted once: sorted by
 * UTF-16 code units, numbered from 1; then user routes in order, each with the
 * next number, duplicates included (protocol-client.md 6). Strings are copied.
 * PM_ESIZE more than 65535; PM_ENOMEM */
pm_err pmi_dict_new(const pmi_env *env, uint64_t k0, uint64_t k1,
                    const char *const *routes, size_t count,
                    const char *const *user, size_t user_count, pmi_dict **out);
void pmi_dict_free(pmi_dict *dict);
uint16_t pmi_dict_code(const pmi_dict *dict, pm_slice route); /* 0: none */
pm_slice pmi_dict_route(const pmi_dict *dict, uint16_t code); /* empty: none */
pm_slice pmi_dict_text(const pmi_dict *dict);       /* {"route":code,..} */
pm_slice pmi_dict_abbrs(const pmi_dict *dict);      /* {"code":"route",..} */
const char *pmi_dict_version(const pmi_dict *dict); /* base64 of MD5 */
/* The members of a handshake's sys that tell the dictionary, made once:
 * "dict":..,"routeToCode":..,"codeToRoute":..,"dictVersion":.. */
pm_slice pmi_dict_handshake(const pmi_dict *dict);

/* ---- Handshake, server side -------------------------------------------- */
/* What is the same for every client of a frontend. NULL = not in use. */
typedef struct pmi_handshake_sys {
    double heartbeat_s; /* 0: left out */
    const pmi_dict *dict;
    bool use_protobuf;
    const pmi_dialect *client, *server; /* NULL: no such file */
    const char *proto_version;          /* "" when neither file is there */
} pmi_handshake_sys;

/* The client's body. *msg is the whole tree: the caller's, cJSON_Delete.
 * PM_EHANDSHAKE: not JSON, empty, null, or a falsy sys -> {"code":500}.
 * PM_ENOMEM */
pm_err pmi_handshake_parse(const pmi_env *env, pm_slice body,
                           uint32_t depth_max, struct cJSON **msg);
/* {"code":200,"sys":{..}[,"user":..]} with the caching rules applied to what
 * `msg` says it has. `user` may be NULL. Appends. */
pm_err pmi_handshake_answer(const pmi_handshake_sys *sys,
                            const struct cJSON *msg, const struct cJSON *user,
                            uint32_t depth_max, pmi_buf *out);

/* The member of both user parts by which a session is resumed. */
#define PMI_RESUME_NAME "__resume__"

/* ---- Signatures (useCrypto) -------------------------------------------- */
/* The key of a handshake message: sys.rsa {rsa_n, rsa_e}. PM_EHANDSHAKE:
 * sys.rsa is missing -> 500. PM_OK and *out NULL: present without a key (every
 * message is dropped). A key that is unusable: PM_OK and NULL as well. */
pm_err pmi_proto_rsa_key(const pmi_env *env, const struct cJSON *msg,
                         pmi_rsa **out);
/* Checks `__crypto__` of a parsed body and takes the member away. The text is
 * JSON.stringify of the rest; accepted when the hash of its UTF-8 or of its
 * twice-encoded form (protocol-client.md 7) fits. */
pm_err pmi_proto_verify(const pmi_env *env, pmi_rsa *key, struct cJSON *body,
                        uint32_t depth_max, bool *verified);

#endif
