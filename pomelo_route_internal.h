/* SPDX-License-Identifier: MIT */
/* pomelo_route_internal.h -- the arithmetic of choosing a server. */
#ifndef PMI_ROUTE_INTERNAL_H
#define PMI_ROUTE_INTERNAL_H

#include "core/base.h"

/* Pomelo's CRC of a uid: CRC-32 over the low byte of each UTF-16 unit, read
 * as a signed number. Its absolute value may be 2^31: widen before abs. */
int32_t pmi_route_crc(const char *utf8);
/* The same for text that may hold U+0000. */
int32_t pmi_route_crc_text(pm_slice utf8);

#endif
