/* SPDX-License-Identifier: MIT */
/* pomelo_dialect_internal.h -- Pomelo's own protobuf dialect (0.4.0), driven by
 * the JSON schemas of serverProtos.json and clientProtos.json.
 *
 * Not Google's protobuf: int32 is zig-zag, repeated numbers are tag, COUNT,
 * elements, and clients lie about wire types, so that decoding goes by the
 * schema alone (protocol-client.md 6). */
#ifndef PMI_DIALECT_INTERNAL_H
#define PMI_DIALECT_INTERNAL_H

#include "core/json.h"
#include "core/map.h"

typedef struct pmi_dialect pmi_dialect; /* one file's schemas */
typedef struct pmi_dialect_message pmi_dialect_message;

/* source: the file's text. PM_EJSON not JSON or no object; PM_EDEPTH; PM_ENOMEM
 */
pm_err pmi_dialect_new(const pmi_env *env, uint64_t k0, uint64_t k1,
                       pm_slice source, pmi_dialect **out);
void pmi_dialect_free(pmi_dialect *dialect);

/* The first thing in a file that pmi_dialect_new passes over without a word, as
 * the reference does: most likely a slip. Not texts, which may be remarks, and
 * not types that nobody knows: Pomelo's games have them. */
typedef struct pmi_dialect_flaw {
    const char *message;  /* at top level; NULL: the member is it. Borrowed */
    const char *member;   /* borrowed from the tree */
    const char *expected; /* static */
} pmi_dialect_flaw;
/* False: there is none. */
bool pmi_dialect_find_flaw(const struct cJSON *tree, pmi_dialect_flaw *out);
/* The parsed form as JSON text, as it goes into the handshake. Borrowed. */
pm_slice pmi_dialect_text(const pmi_dialect *dialect);
/* base64 of MD5 over both parsed forms, client first, {} for a missing file;
 * "" when both are missing. out holds 25 bytes. PM_ENOMEM: out is "". */
pm_err pmi_dialect_version(const pmi_dialect *client, const pmi_dialect *server,
                           char out[25]);
/* The message of a route; NULL: none. */
const pmi_dialect_message *pmi_dialect_find(const pmi_dialect *dialect,
                                            pm_slice route);
/* Tree to bytes, appended. PM_EPROTOBUF: refused (no object, a required field
 * is missing, nothing to write, a value that can not be written); out
 * unchanged. PM_EDEPTH, PM_ENOMEM. */
pm_err pmi_dialect_encode(const pmi_dialect *dialect,
                          const pmi_dialect_message *message,
                          const struct cJSON *tree, uint32_t depth_max,
                          pmi_buf *out);
/* Bytes to tree; *out is the caller's. PM_EPROTOBUF unknown tag, cut varint ..;
 * PM_EDEPTH, PM_ENUL, PM_ENOMEM. Allocation is bounded by a small multiple of
 * in.len. */
pm_err pmi_dialect_decode(const pmi_dialect *dialect,
                          const pmi_dialect_message *message, pm_slice in,
                          uint32_t depth_max, struct cJSON **out);

/* ---- Inside: for pomelo_dialect*.c only -------------------------------- */
/* A schema is compiled once: names are hashed, tags numbered, keys encoded, so
 * that no text is parsed per message. */
typedef enum pmi_dialect_type {
    PMI_DIALECT_UINT = 0,
    PMI_DIALECT_SINT = 1, /* int32 and sInt32 alike */
    PMI_DIALECT_FLOAT = 2,
    PMI_DIALECT_DOUBLE = 3,
    PMI_DIALECT_INT64 = 4, /* listed by the reference, never implemented */
    PMI_DIALECT_STRING = 5,
    PMI_DIALECT_MESSAGE = 6,
    PMI_DIALECT_NOTHING = 7 /* any other name: a key without a value */
} pmi_dialect_type;

typedef enum pmi_dialect_option {
    PMI_DIALECT_OPTIONAL = 0,
    PMI_DIALECT_REQUIRED = 1,
    PMI_DIALECT_REPEATED = 2
} pmi_dialect_option;

#define PMI_DIALECT_DENSE_MAX 256

typedef struct pmi_dialect_field {
    char *name; /* owned */
    pmi_dialect_type type;
    pmi_dialect_option option;
    const pmi_dialect_message *message; /* of type MESSAGE */
    uint32_t required;                  /* its number among the required */
    uint8_t key_len;                    /* 0: a tag that can not be written */
    uint8_t key[5];
} pmi_dialect_field;

struct pmi_dialect_message {
    pmi_dialect_field *fields; /* owned, in order of the source */
    uint32_t count;
    uint32_t required_count;
    uint32_t dense_count;
    uint16_t *dense; /* owned: tag -> field + 1, for small tags */
    pmi_map by_tag;  /* tag -> field, for the rest */
    pmi_map by_name; /* name -> field */
    char *name;      /* owned: of a nested message */
    struct pmi_dialect_message *nested; /* owned: the first one inside */
    struct pmi_dialect_message *next;   /* its sibling */
};

struct pmi_dialect {
    const pmi_env *env; /* borrowed */
    uint64_t k0, k1;
    pmi_map messages; /* route or "message NAME" -> message, owned */
    pmi_map roots;    /* NAME of a top-level "message NAME" -> the same */
    pmi_buf text;     /* the parsed form */
};

#endif
