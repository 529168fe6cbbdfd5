/* SPDX-License-Identifier: MIT */
/* core/utf8.c -- bytes from strangers to code points, and back.
 *
 * One step function decides what is well formed; everything else walks with
 * it. It follows the Unicode table of well-formed sequences: the lead byte
 * tells the length and the range of the second byte, which is where overlong
 * forms, surrogates and values above U+10FFFF fall out. What matched before
 * the first wrong byte is the "maximal cut part": the WHATWG decoder, and so
 * JavaScript, makes one U+FFFD of it.
 * Start reading at pmi_utf8_next(). */
#include "utf8.h"

/* Length of the run of ASCII, eight bytes at a time. */
static size_t utf8_ascii(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *from = at;
    uint64_t word;
    while ((size_t)(end - at) >= sizeof word) {
        memcpy(&word, at, sizeof word);
        if (word & 0x8080808080808080u)
            break;
        at += sizeof word;
    }
    while (at < end && *at < 0x80)
        at++;
    return (size_t)(at - from);
}

/* Continuation bytes that a lead byte asks for, and what the first of them
 * may be; 0 for a byte that leads nothing. */
static uint32_t utf8_lead(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 1;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *low = 0xA0;
        if (lead == 0xED)
            *high = 0x9F;
        return 2;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *low = 0x90;
        if (lead == 0xF4)
            *high = 0x8F;
        return 3;
    }
    return 0;
}

size_t pmi_utf8_next(const uint8_t *at, const uint8_t *end, uint32_t *code)
{
    uint8_t low, high;
    uint32_t more, value, i;
    *code = *at;
    if (*at < 0x80)
        return 1;
    more = utf8_lead(*at, &low, &high);
    value = *at & (0x3Fu >> more);
    for (i = 1; i <= more; i++) {
        if (at + i == end || at[i] < low || at[i] > high)
            break;
        value = value << 6 | (at[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *code = more && i > more ? value : PMI_UTF8_BAD;
    return i;
}

/* The surrogate in three bytes at `at`, or 0. */
static uint32_t utf8_surrogate(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 3 || at[0] != 0xED || at[1] < 0xA0 || at[1] > 0xBF ||
        (at[2] & 0xC0) != 0x80)
        return 0;
    return 0xD000u | (uint32_t)(at[1] & 0x3F) << 6 | (at[2] & 0x3F);
}

size_t pmi_utf8_next_wide(const uint8_t *at, const uint8_t *end, uint32_t *code)
{
    uint32_t high = utf8_surrogate(at, end), low;
    if (!high)
        return pmi_utf8_next(at, end, code);
    *code = high;
    if (high >= 0xDC00)
        return 3;
    low = utf8_surrogate(at + 3, end);
    if (low < 0xDC00)
        return 3;
    *code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    return 6;
}

size_t pmi_utf8_put(uint32_t code, uint8_t out[4])
{
    if (code >= PMI_UTF8_BAD)
        code = 0xFFFD;
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xC0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xE0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (code & 0x3F));
    return 4;
}

/* Copies `in` and mends what is not well formed. Good stretches go over in
 * one piece, so that clean text costs one walk and one copy. */
static void utf8_mend(pm_slice in, bool wide, pmi_buf *out)
{
    const uint8_t *at = in.data, *end = at, *run = at;
    uint8_t bytes[4];
    uint32_t code;
    size_t n;
    if (in.len)
        end += in.len;
    while (at < end) {
        at += utf8_ascii(at, end);
        if (at == end)
            break;
        n = wide ? pmi_utf8_next_wide(at, end, &code)
                 : pmi_utf8_next(at, end, &code);
        if (code >= 0xD800 && code <= 0xDFFF)
            code = PMI_UTF8_BAD;
        if (code != PMI_UTF8_BAD && n == pmi_utf8_size(code)) {
            at += n;
            continue;
        }
        pmi_buf_add(out, run, (size_t)(at - run));
        pmi_buf_add(out, bytes, pmi_utf8_put(code, bytes));
        at += n;
        run = at;
    }
    if (at > run)
        pmi_buf_add(out, run, (size_t)(at - run));
}

void pmi_utf8_clean(pm_slice in, pmi_buf *out)
{
    utf8_mend(in, false, out);
}

void pmi_utf8_well_formed(pm_slice in, pmi_buf *out)
{
    utf8_mend(in, true, out);
}

bool pmi_utf8_valid(pm_slice in)
{
    const uint8_t *at = in.data, *end = at;
    uint32_t code;
    if (in.len)
        end += in.len;
    while (at < end) {
        at += utf8_ascii(at, end);
        if (at == end)
            break;
        at += pmi_utf8_next(at, end, &code);
        if (code == PMI_UTF8_BAD)
            return false;
    }
    return true;
}
