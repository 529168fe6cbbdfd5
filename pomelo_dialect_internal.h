/* SPDX-License-Identifier: MIT */
/* pomelo_dialect_internal.h -- Pomelo's own protobuf dialect (0.4.0), driven by the
 * JSON schemas of serverProtos.json and clientProtos.json.
 *
 * Not Google's protobuf: int32 is zig-zag, repeated numbers are tag, COUNT,
 * elements, and clients lie about wire types, so that decoding goes by the schema alone
 * (protocol-client.md 6). */
#ifndef PMI_DIALECT_INTERNAL_H
#define PMI_DIALECT_INTERNAL_H

#include "core/json.h"
#include "core/map.h"

typedef struct pmi_dialect pmi_dialect;          /* one file's schemas */
typedef struct pmi_dialect_message pmi_dialect_message;

/* source: the file's text. PM_EJSON not JSON or no object; PM_EDEPTH; PM_ENOMEM */
pm_err pmi_dialect_new(const pmi_env *env, uint64_t k0, uint64_t k1,
                       pm_slice source, pmi_dialect **out);
void pmi_dialect_free(pmi_dialect *dialect);
/* The parsed form as JSON text, as it goes into the handshake. Borrowed. */
pm_slice pmi_dialect_text(const pmi_dialect *dialect);
/* base64 of MD5 over both parsed forms, client first, {} for a missing file;
 * "" when both are missing. out holds 25 bytes. */
void pmi_dialect_version(const pmi_dialect *client, const pmi_dialect *server,
                         char out[25]);
/* The message of a route; NULL: none. */
const pmi_dialect_message *pmi_dialect_find(const pmi_dialect *dialect,
                                            pm_slice route);
/* Tree to bytes, appended. PM_EPROTOBUF: refused (no object, a required field is
 * missing, nothing to write, a value that can not be written); out unchanged.
 * PM_EDEPTH, PM_ENOMEM. */
pm_err pmi_dialect_encode(const pmi_dialect *dialect,
                          const pmi_dialect_message *message,
                          const struct cJSON *tree, uint32_t depth_max,
                          pmi_buf *out);
/* Bytes to tree; *out is the caller's. PM_EPROTOBUF unknown tag, cut varint ..;
 * PM_EDEPTH, PM_ENUL, PM_ENOMEM. Allocation is bounded by a small multiple of in.len. */
pm_err pmi_dialect_decode(const pmi_dialect *dialect,
                          const pmi_dialect_message *message, pm_slice in,
                          uint32_t depth_max, struct cJSON **out);

#endif
