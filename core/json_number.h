/* SPDX-License-Identifier: MIT */
/* core/json_number.h -- doubles to JavaScript's text and back.
 *
 * Exact both ways and blind to the locale. core/json.h includes this header:
 * users need not. */
#ifndef PMI_JSON_NUMBER_H
#define PMI_JSON_NUMBER_H

#include "base.h"

/* A double as JavaScript's Number::toString. At most 32 bytes with the 0;
 * returns the length. */
size_t pmi_json_number(double value, char out[32]);
/* The double next to a number in JSON's grammar, ties to even; too large is
 * an infinity, too small a zero. `text` must be such a number: the scanner
 * has looked. Any length, any exponent. */
double pmi_json_to_double(pm_slice text);

#endif
