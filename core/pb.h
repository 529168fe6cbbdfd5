/* SPDX-License-Identifier: MIT */
/* core/pb.h -- standard protobuf fields, read and written one by one: the only
 * door to nanopb. For the envelope between servers, whose few fields need
 * neither generated code nor a copy. */
#ifndef PMI_PB_H
#define PMI_PB_H

#include "buf.h"

typedef struct pmi_pb_field {
    uint32_t tag;
    uint64_t number; /* varints; 0 for bytes */
    pm_slice bytes;  /* borrowed from the input; empty for numbers */
} pmi_pb_field;

/* The next field; false at the end, and with in->bad on malformed bytes.
 * Fixed32 and fixed64 fields are skipped (tag 0). */
bool pmi_pb_next(pmi_cursor *in, pmi_pb_field *out);

/* Writers return the position behind what was written. There must be room:
 * PMI_PB_NUMBER_MAX bytes for a number or the head of a bytes field. */
#define PMI_PB_NUMBER_MAX 15
uint8_t *pmi_pb_put_number(uint8_t *p, uint32_t tag, uint64_t value);
uint8_t *pmi_pb_put_bytes_head(uint8_t *p, uint32_t tag, size_t len);

#endif
