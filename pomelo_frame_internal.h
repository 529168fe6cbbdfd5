/* SPDX-License-Identifier: MIT */
/* pomelo_frame_internal.h -- the wire between servers: `u32 length (big
 * endian) | envelope`, the envelope standard protobuf (docs/PROTOCOL.md).
 * Bytes and structs only. */
#ifndef PMI_FRAME_INTERNAL_H
#define PMI_FRAME_INTERNAL_H

#include "core/buf.h"
#include "core/crypto.h"

#define PMI_FRAME_VERSION 1
#define PMI_FRAME_HEAD 4
/* A body of 16 MiB and what stands around it. */
#define PMI_FRAME_MAX (16u * 1024 * 1024 + 128 * 1024)
#define PMI_FRAME_HELLO_MAX 2048
#define PMI_NONCE_BYTES 16
#define PMI_MAC_BYTES 32

typedef enum pmi_frame_kind {
    PMI_FRAME_HELLO = 1,
    PMI_FRAME_PROOF = 2,
    PMI_FRAME_CALL = 3,
    PMI_FRAME_ANSWER = 4,
    PMI_FRAME_PING = 5,
    PMI_FRAME_PONG = 6,
    PMI_FRAME_DRAIN = 7
} pmi_frame_kind;

/* All slices are borrowed from the bytes that were read. */
typedef struct pmi_frame {
    uint32_t kind;
    uint64_t id; /* of the call, the caller's number */
    uint32_t op;
    bool notify;
    uint32_t deadline_ms; /* from now */
    uint64_t trace_id;
    int32_t err, code; /* ANSWER */
    pm_slice method, detail, extra;
    pm_slice manner; /* of a push: policy (1) and key; empty: the default */
    pm_body body;
    /* HELLO, PROOF */
    uint32_t version;
    uint64_t incarnation;
    pm_slice from, to, nonce, mac;
} pmi_frame;

/* Returns the bytes of one whole frame with its length (> 0), 0 = more are
 * needed, PM_ESIZE over max, PM_EFRAME. */
long pmi_frame_decode(const uint8_t *data, size_t len, size_t max,
                      pmi_frame *out);

/* A frame as parts that are sent one behind the other: heads are written to
 * `room`, bytes stay where they are. Returns how many parts. PM_ESIZE: total
 * over PMI_FRAME_MAX. */
#define PMI_FRAME_PARTS 12
typedef struct pmi_frame_out {
    uint8_t room[384];
    pm_slice parts[PMI_FRAME_PARTS];
    size_t count, total;
} pmi_frame_out;
pm_err pmi_frame_encode(const pmi_frame *frame, pmi_frame_out *out);

/* The proof that one side gives: HMAC-SHA-256 over label, role, both ids, both
 * incarnations, both nonces and the version. Dialler's values first, whoever
 * computes it. */
typedef struct pmi_proof {
    pm_slice secret; /* empty: none was agreed on (loopback only) */
    pm_slice dialler_id, acceptor_id;
    uint64_t dialler_incarnation, acceptor_incarnation;
    const uint8_t *dialler_nonce, *acceptor_nonce; /* PMI_NONCE_BYTES each */
} pmi_proof;
void pmi_proof_make(const pmi_proof *proof, bool by_dialler,
                    uint8_t out[PMI_MAC_BYTES]);

#endif
