/* SPDX-License-Identifier: MIT */
/* test/fuzz/fuzz_proxy.c -- what a proxy says of whom it speaks for.
 *
 * The input is read as a PROXY header, whole and as a connection reads it, and
 * as an X-Forwarded-For. Beside memory errors it looks for a header that would
 * be read too far, for one that means something else in pieces, and for
 * addresses that are none. */
#include "core/proxy.h"

#include <stdlib.h>

#define FUZZ_CHECK(x) ((x) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_address(const pmi_addr *addr)
{
    char text[PMI_ADDR_TEXT_MAX];
    pmi_addr again;
    FUZZ_CHECK(addr->len > 0);
    FUZZ_CHECK(pmi_addr_parse(&again, pmi_addr_text(addr, text), 1));
}

/* Exactly as large as the input: a read past its end is seen. */
static uint8_t *cut(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    FUZZ_CHECK(copy != NULL);
    if (len)
        memcpy(copy, data, len);
    return copy;
}

static void check_header(const uint8_t *data, size_t size)
{
    pmi_proxy whole, part;
    size_t wants = 0, used = 0;
    long all = pmi_proxy_parse(data, size, &whole, &wants), n;
    FUZZ_CHECK(all <= PMI_PROXY_MAX && all <= (long)size);
    FUZZ_CHECK(all != 0 || wants > 0);
    if (all > 0 && whole.told)
        check_address(&whole.from);
    for (;;) {
        uint8_t *copy = cut(data, used);
        n = pmi_proxy_parse(copy, used, &part, &wants);
        free(copy);
        if (n != 0)
            break;
        FUZZ_CHECK(wants > 0 && used + wants <= PMI_PROXY_MAX);
        if (wants > size - used)
            break;
        used += wants;
    }
    if (all > 0) {
        FUZZ_CHECK(n == all && used == (size_t)all);
        FUZZ_CHECK(part.told == whole.told);
        if (part.told)
            FUZZ_CHECK(!memcmp(&part.from, &whole.from, sizeof part.from));
    } else {
        FUZZ_CHECK(n <= 0);
    }
}

static bool trusts(const pmi_addr *addr, void *ctx)
{
    size_t *left = ctx;
    check_address(addr);
    return (*left)-- > 0;
}

static void check_forwarded(const uint8_t *data, size_t size)
{
    pm_slice whole = {data, size};
    pm_slice lines[2] = {{data, size / 2}, {data + size / 2, size - size / 2}};
    for (size_t most = 0; most < 3; most++) {
        size_t left = most * 100;
        pmi_addr from;
        if (pmi_proxy_forwarded(&whole, 1, trusts, &left, &from))
            check_address(&from);
        left = most * 100;
        if (pmi_proxy_forwarded(lines, 2, trusts, &left, &from))
            check_address(&from);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = cut(data, size);
    check_header(copy, size);
    check_forwarded(copy, size);
    free(copy);
    return 0;
}
