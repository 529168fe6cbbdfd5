/* SPDX-License-Identifier: MIT */
/* core/sock.h -- what differs between systems: sockets, wake-up, cpu pinning.
 *
 * Never raises SIGPIPE, never blocks, never leaks a descriptor into a child
 * (CLOEXEC). Sizes of addresses are bounded; errors are pm_err, with errno left
 * for the log. */
#ifndef PMI_SOCK_H
#define PMI_SOCK_H

#include "base.h"

#define PMI_ADDR_TEXT_MAX 64

/* A socket address of any family, and its text form. Bytes, so that it fills
 * no gap in what holds it. */
typedef struct pmi_addr {
    uint8_t raw[28]; /* struct sockaddr_in or _in6 */
    uint8_t len;     /* of raw */
} pmi_addr;

/* Numeric IPv4 / IPv6 (brackets fine), "localhost", "" or "*" (any address)
 * and a port. False: it is a name that must be resolved (or nonsense). */
bool pmi_addr_parse(pmi_addr *out, const char *host, uint16_t port);
uint16_t pmi_addr_port(const pmi_addr *addr);
void pmi_addr_set_port(pmi_addr *addr, uint16_t port);
/* The host without port. Returns out. */
const char *pmi_addr_text(const pmi_addr *addr, char out[PMI_ADDR_TEXT_MAX]);
bool pmi_addr_is_loopback(const pmi_addr *addr);
/* From the 4 or 16 bytes of family 4 or 6. */
void pmi_addr_set(pmi_addr *out, uint8_t family, const uint8_t *bytes,
                  uint16_t port);
/* Looks a name up in a file like /etc/hosts: "address name name ...". */
bool pmi_addr_from_hosts(pmi_addr *out, const char *path, const char *name,
                         uint16_t port);

/* CIDR blocks ("10.0.0.0/8", "::1", "fd00::/8"); IPv4-mapped IPv6 counts as
 * IPv4. */
typedef struct pmi_cidr {
    uint8_t bits, family; /* family 4 or 6 */
    uint8_t net[16];
} pmi_cidr;
bool pmi_cidr_parse(pmi_cidr *out, const char *text);
bool pmi_cidr_match(const pmi_cidr *cidr, const pmi_addr *addr);
/* The block of this many bits (at most those that there are) around an address.
 * False: it is none. */
bool pmi_cidr_of(pmi_cidr *out, const pmi_addr *addr, uint8_t bits);

/* A listening socket; *addr gets the real port. PM_EADDR, PM_ENET, PM_ELIMIT */
pm_err pmi_sock_listen(pmi_addr *addr, int backlog, int *fd);
/* Next connection, TCP_NODELAY set. PM_OK; PM_EAGAIN none waits; PM_ELIMIT out
 * of descriptors (EMFILE, ENFILE, ENOBUFS, ENOMEM); PM_ENET otherwise. */
pm_err pmi_sock_accept(int listener, int *fd, pmi_addr *peer);
/* Starts to connect; writable = done (then pmi_sock_error). */
pm_err pmi_sock_connect(const pmi_addr *addr, int *fd);
pm_err pmi_sock_error(int fd); /* SO_ERROR as pm_err: OK, EREFUSED, ENET */

/* Bytes moved (> 0); 0 = try later; -1 = closed by the peer (read only) or
 * reset or failed. */
long pmi_sock_read(int fd, void *data, size_t len, bool *reset);
typedef struct pmi_iov {
    void *data;
    size_t len;
} pmi_iov; /* same layout as struct iovec, asserted in sock.c */
#define PMI_IOV_MAX 64
long pmi_sock_write(int fd, pmi_iov *iov, int count);
void pmi_sock_shutdown(int fd); /* FIN: no more from us */
/* It reads as ended from now on. */
void pmi_sock_shutdown_read(int fd);
void pmi_sock_close(int fd);
void pmi_sock_set_buffers(int fd, int send_bytes,
                          int receive_bytes); /* 0: keep */

/* A descriptor that is readable after pmi_wake_raise (from any thread). */
typedef struct pmi_wake {
    int read_fd, write_fd; /* the same where the system has eventfd */
} pmi_wake;
pm_err pmi_wake_open(pmi_wake *wake);
void pmi_wake_raise(pmi_wake *wake);
void pmi_wake_clear(pmi_wake *wake);
void pmi_wake_close(pmi_wake *wake);

/* Microseconds of the monotonic clock. */
uint64_t pmi_sock_clock_us(void);
/* The calling thread to one core. PM_ENOTSUP where there is no such thing. */
pm_err pmi_sock_pin_cpu(int cpu);
/* The most descriptors this process may open. */
size_t pmi_sock_descriptors_max(void);

#endif
