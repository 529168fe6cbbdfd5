/* SPDX-License-Identifier: MIT */
/* core/utf8.h -- UTF-8 as the WHATWG reads it, and its generalised form.
 *
 * JavaScript strings are UTF-16 and may hold surrogates without a partner.
 * Such a one is carried as the three bytes that UTF-8 would give it (ED A0 80
 * to ED BF BF): "generalised" below. Bytes from the wire never hold them,
 * because reading them strictly makes U+FFFD of each.
 * core/json.h includes this header: users need not. */
#ifndef PMI_UTF8_H
#define PMI_UTF8_H

#include "buf.h"

#define PMI_UTF8_BAD 0x110000u /* no code point: a cut or wrong sequence */

/* One code point at `at` (at < end); returns the bytes it takes. A malformed
 * sequence gives PMI_UTF8_BAD and the length of its maximal cut part. */
size_t pmi_utf8_next(const uint8_t *at, const uint8_t *end, uint32_t *code);
/* The same for the generalised form: lone surrogates are code points, a high
 * one and a low one behind it (six bytes) are read as the pair they make. */
size_t pmi_utf8_next_wide(const uint8_t *at, const uint8_t *end,
                          uint32_t *code);
/* Writes a code point, surrogates too; PMI_UTF8_BAD becomes U+FFFD. */
size_t pmi_utf8_put(uint32_t code, uint8_t out[4]);
/* The bytes that pmi_utf8_put writes. */
static inline size_t pmi_utf8_size(uint32_t code)
{
    if (code < 0x80)
        return 1;
    if (code < 0x800)
        return 2;
    return code < 0x10000 || code >= PMI_UTF8_BAD ? 3 : 4;
}

/* Bytes to well-formed UTF-8: each maximal cut sequence becomes U+FFFD.
 * Appends. Well-formed input is copied as it is. */
void pmi_utf8_clean(pm_slice in, pmi_buf *out);
bool pmi_utf8_valid(pm_slice in);
/* U+FFFD form of text that may hold lone surrogates in three bytes (what
 * JavaScript gives when such a string is written as UTF-8). */
void pmi_utf8_well_formed(pm_slice in, pmi_buf *out);

#endif
