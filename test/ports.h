/* SPDX-License-Identifier: MIT */
/* test/ports.h -- ports of loopback that are ours until the program ends, for
 * tests that must know a port before somebody listens on it, or find it again
 * after he was killed. Header only; fails the test when there is none.
 *
 * A port is held by a socket that is bound to it and never listens: nobody else
 * can hold it and no connection is given it, while a server, which sets
 * SO_REUSEADDR before it binds, may listen on it. */
#ifndef TEST_PORTS_H
#define TEST_PORTS_H

#include "test.h"

#include <fcntl.h>

/* The socket that holds the port, or -1: somebody has it. SO_REUSEADDR comes
 * after bind, so that two holders never share a port. */
static inline int test_hold_port(unsigned port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    assert_true(fd >= 0);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A base to which each of `count` offsets, ascending, can be added. */
static inline uint16_t test_free_base(const int *offsets, int count)
{
    enum { LOWEST = 12000, STEP = 16 };
    unsigned steps = (32000u - LOWEST - (unsigned)offsets[count - 1]) / STEP;
    int held[16], n;
    assert_true(count <= 16);
    for (unsigned tries = 0; tries < steps; tries++) {
        unsigned base =
            LOWEST + ((unsigned)getpid() * 7 + tries) % steps * STEP;
        for (n = 0; n < count; n++) {
            held[n] = test_hold_port(base + (unsigned)offsets[n]);
            if (held[n] < 0)
                break;
        }
        if (n == count)
            return (uint16_t)base;
        while (n)
            close(held[--n]);
    }
    fail_msg("no free ports");
    return 0;
}

static inline uint16_t test_free_port(void)
{
    static const int offsets[] = {0};
    return test_free_base(offsets, 1);
}

#endif
