/* SPDX-License-Identifier: MIT */
/* core/sock.c -- sockets as the systems have them.
 *
 * Everything that would need an #if elsewhere is here: flags at birth, SIGPIPE,
 * the wake-up descriptor, pinning. Writes go out by sendmsg with MSG_NOSIGNAL,
 * because a peer that has reset the connection would otherwise kill the host
 * with SIGPIPE. Start reading at pmi_sock_listen(). */
#include "sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#include <sys/eventfd.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS: SO_NOSIGPIPE does it, see sock_prepare */
#endif

_Static_assert(sizeof(pmi_iov) == sizeof(struct iovec), "pmi_iov is iovec");
_Static_assert(offsetof(pmi_iov, data) == offsetof(struct iovec, iov_base),
               "pmi_iov is iovec");
_Static_assert(offsetof(pmi_iov, len) == offsetof(struct iovec, iov_len),
               "pmi_iov is iovec");
_Static_assert(sizeof(struct sockaddr_in6) <= sizeof((pmi_addr *)0)->raw,
               "an address fits");

/* ---- Addresses --------------------------------------------------------- */
static sa_family_t addr_family(const pmi_addr *addr)
{
    struct sockaddr sa;
    if (addr->len < sizeof(struct sockaddr_in))
        return AF_UNSPEC;
    memcpy(&sa, addr->raw, sizeof sa);
    return sa.sa_family;
}

static void addr_set_v4(pmi_addr *out, struct in_addr ip, uint16_t port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = ip};
    sin.sin_port = htons(port);
    *out = (pmi_addr){.len = sizeof sin};
    memcpy(out->raw, &sin, sizeof sin);
}

static void addr_set_v6(pmi_addr *out, const struct in6_addr *ip, uint16_t port)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_addr = *ip};
    sin6.sin6_port = htons(port);
    *out = (pmi_addr){.len = sizeof sin6};
    memcpy(out->raw, &sin6, sizeof sin6);
}

/* "[::1]" to "::1". False when it does not fit or the brackets do not pair. */
static bool addr_strip(char out[PMI_ADDR_TEXT_MAX], const char *host)
{
    size_t len = strlen(host);
    if (len && host[0] == '[') {
        if (len < 2 || host[len - 1] != ']')
            return false;
        host++;
        len -= 2;
    }
    if (len >= PMI_ADDR_TEXT_MAX)
        return false;
    memcpy(out, host, len);
    out[len] = '\0';
    return true;
}

bool pmi_addr_parse(pmi_addr *out, const char *host, uint16_t port)
{
    char text[PMI_ADDR_TEXT_MAX];
    struct in6_addr v6;
    struct in_addr v4;
    if (!host || !*host || !strcmp(host, "*")) {
        v4.s_addr = htonl(INADDR_ANY);
        addr_set_v4(out, v4, port);
        return true;
    }
    if (!strcmp(host, "localhost")) {
        v4.s_addr = htonl(INADDR_LOOPBACK);
        addr_set_v4(out, v4, port);
        return true;
    }
    if (!addr_strip(text, host))
        return false;
    if (host[0] != '[' && inet_pton(AF_INET, text, &v4) == 1) {
        addr_set_v4(out, v4, port);
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6) == 1) {
        addr_set_v6(out, &v6, port);
        return true;
    }
    return false;
}

uint16_t pmi_addr_port(const pmi_addr *addr)
{
    struct sockaddr_in6 sin6;
    struct sockaddr_in sin;
    switch (addr_family(addr)) {
    case AF_INET:
        memcpy(&sin, addr->raw, sizeof sin);
        return ntohs(sin.sin_port);
    case AF_INET6:
        memcpy(&sin6, addr->raw, sizeof sin6);
        return ntohs(sin6.sin6_port);
    default:
        return 0;
    }
}

void pmi_addr_set_port(pmi_addr *addr, uint16_t port)
{
    struct sockaddr_in6 sin6;
    struct sockaddr_in sin;
    switch (addr_family(addr)) {
    case AF_INET:
        memcpy(&sin, addr->raw, sizeof sin);
        sin.sin_port = htons(port);
        memcpy(addr->raw, &sin, sizeof sin);
        break;
    case AF_INET6:
        memcpy(&sin6, addr->raw, sizeof sin6);
        sin6.sin6_port = htons(port);
        memcpy(addr->raw, &sin6, sizeof sin6);
        break;
    default:
        break;
    }
}

/* The bare address in network order, IPv4-mapped IPv6 as IPv4. Returns the
 * family, 4 or 6; 0: neither. */
static uint8_t addr_bytes(const pmi_addr *addr, uint8_t out[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0,    0,
                                       0, 0, 0, 0, 0xff, 0xff};
    struct sockaddr_in6 sin6;
    struct sockaddr_in sin;
    memset(out, 0, 16);
    switch (addr_family(addr)) {
    case AF_INET:
        memcpy(&sin, addr->raw, sizeof sin);
        memcpy(out, &sin.sin_addr, 4);
        return 4;
    case AF_INET6:
        memcpy(&sin6, addr->raw, sizeof sin6);
        memcpy(out, &sin6.sin6_addr, 16);
        if (memcmp(out, mapped, sizeof mapped) != 0)
            return 6;
        memmove(out, out + 12, 4);
        memset(out + 4, 0, 12);
        return 4;
    default:
        return 0;
    }
}

const char *pmi_addr_text(const pmi_addr *addr, char out[PMI_ADDR_TEXT_MAX])
{
    uint8_t bytes[16];
    uint8_t family = addr_bytes(addr, bytes);
    if (!family || !inet_ntop(family == 4 ? AF_INET : AF_INET6, bytes, out,
                              PMI_ADDR_TEXT_MAX))
        memcpy(out, "-", 2);
    return out;
}

void pmi_addr_set(pmi_addr *out, uint8_t family, const uint8_t *bytes,
                  uint16_t port)
{
    struct sockaddr_in6 sin6 = {0};
    struct sockaddr_in sin = {0};
    memset(out, 0, sizeof *out);
    if (family == 4) {
        sin.sin_family = AF_INET;
        memcpy(&sin.sin_addr, bytes, 4);
        memcpy(out->raw, &sin, sizeof sin);
        out->len = sizeof sin;
    } else {
        sin6.sin6_family = AF_INET6;
        memcpy(&sin6.sin6_addr, bytes, 16);
        memcpy(out->raw, &sin6, sizeof sin6);
        out->len = sizeof sin6;
    }
    pmi_addr_set_port(out, port);
}

bool pmi_addr_is_loopback(const pmi_addr *addr)
{
    static const uint8_t one[16] = {[15] = 1};
    uint8_t bytes[16];
    uint8_t family = addr_bytes(addr, bytes);
    return family == 4 ? bytes[0] == 127
                       : family == 6 && !memcmp(bytes, one, sizeof one);
}

/* The next word of a line, as far as a comment or the end; empty: no more. */
static pm_slice hosts_word(const char **at)
{
    const char *p = *at;
    pm_slice word;
    p += strspn(p, " \t\r\n");
    word.data = p;
    word.len = strcspn(p, " \t\r\n#");
    *at = p + word.len;
    return word;
}

static bool hosts_line(pmi_addr *out, const char *line, const char *name,
                       uint16_t port)
{
    char text[PMI_ADDR_TEXT_MAX];
    pm_slice address = hosts_word(&line), word;
    size_t len = strlen(name);
    if (!address.len || address.len >= sizeof text)
        return false;
    memcpy(text, address.data, address.len);
    text[address.len] = '\0';
    while ((word = hosts_word(&line)).len)
        if (word.len == len && !strncasecmp(word.data, name, len))
            return strcmp(text, "*") != 0 && pmi_addr_parse(out, text, port);
    return false;
}

bool pmi_addr_from_hosts(pmi_addr *out, const char *path, const char *name,
                         uint16_t port)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    /* The administrator's file: a line over 1 KiB reads as several, no harm.
     */
    while (!found && fgets(line, sizeof line, file))
        found = hosts_line(out, line, name, port);
    fclose(file);
    return found;
}

/* ---- CIDR blocks ------------------------------------------------------- */
static bool cidr_parse_bits(const char *text, unsigned max, uint8_t *out)
{
    unsigned bits = 0;
    size_t len = strlen(text);
    if (len < 1 || len > 3)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        bits = bits * 10 + (unsigned)(*text - '0');
    }
    *out = (uint8_t)bits;
    return bits <= max;
}

/* Clears what lies behind the first `bits` bits. */
static void cidr_mask(uint8_t net[16], unsigned bits)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
        if (keep < 8)
            net[i] &= (uint8_t)(0xff00u >> keep);
    }
}

bool pmi_cidr_parse(pmi_cidr *out, const char *text)
{
    char host[PMI_ADDR_TEXT_MAX];
    const char *slash = text ? strchr(text, '/') : NULL;
    size_t len = text ? (slash ? (size_t)(slash - text) : strlen(text)) : 0;
    pmi_cidr cidr = {0};
    pmi_addr addr;
    if (!len || len >= sizeof host)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    if (!strcmp(host, "*") || !pmi_addr_parse(&addr, host, 0))
        return false;
    cidr.family = addr_bytes(&addr, cidr.net);
    /* A mapped address ("::ffff:10.0.0.0/104") counts its 96 bits too. */
    unsigned max = addr_family(&addr) == AF_INET6 ? 128 : 32;
    unsigned skip = max == 128 && cidr.family == 4 ? 96 : 0;
    cidr.bits = (uint8_t)max;
    if (slash && !cidr_parse_bits(slash + 1, max, &cidr.bits))
        return false;
    if (cidr.bits < skip)
        return false;
    cidr.bits = (uint8_t)(cidr.bits - skip);
    cidr_mask(cidr.net, cidr.bits);
    *out = cidr;
    return true;
}

bool pmi_cidr_match(const pmi_cidr *cidr, const pmi_addr *addr)
{
    uint8_t bytes[16];
    if (addr_bytes(addr, bytes) != cidr->family || !cidr->family)
        return false;
    cidr_mask(bytes, cidr->bits);
    return !memcmp(bytes, cidr->net, sizeof bytes);
}

bool pmi_cidr_of(pmi_cidr *out, const pmi_addr *addr, uint8_t bits)
{
    uint8_t most;
    out->family = addr_bytes(addr, out->net);
    most = out->family == 4 ? 32 : 128;
    out->bits = bits < most ? bits : most;
    cidr_mask(out->net, out->bits);
    return out->family != 0;
}

/* ---- Birth and death --------------------------------------------------- */
static pm_err sock_errno(int error)
{
    switch (error) {
    case 0:
        return PM_OK;
    case EADDRINUSE:
    case EADDRNOTAVAIL:
    case EACCES:
        return PM_EADDR;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return PM_ELIMIT;
    case ECONNREFUSED:
        return PM_EREFUSED;
    default:
        return PM_ENET;
    }
}

/* Closes and gives the error that was there before. */
static pm_err sock_fail(int fd)
{
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return error ? sock_errno(error) : PM_ENET;
}

static void sock_set(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

/* What the flags of socket() and accept4() could not say on this system. */
static bool sock_prepare(int fd, bool flags_set)
{
#ifdef SO_NOSIGPIPE
    sock_set(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
    if (flags_set)
        return true;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static int sock_new(int family)
{
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool flags_set = true;
#else
    int fd = socket(family, SOCK_STREAM, 0);
    bool flags_set = false;
#endif
    if (fd >= 0 && !sock_prepare(fd, flags_set)) {
        sock_fail(fd);
        return -1;
    }
    return fd;
}

/* An address where the system may look at it. */
typedef union sock_room {
    pmi_addr addr;
    struct sockaddr_in6 aligned;
} sock_room;

static struct sockaddr *sock_raw(sock_room *room)
{
    return (struct sockaddr *)(void *)room->addr.raw;
}

pm_err pmi_sock_listen(pmi_addr *addr, int backlog, int *out)
{
    socklen_t len = sizeof addr->raw;
    sa_family_t family = addr_family(addr);
    sock_room here = {.addr = *addr}, bound = {.addr = {.len = 0}};
    int fd;
    if (family == AF_UNSPEC)
        return PM_EADDR;
    fd = sock_new(family);
    if (fd < 0)
        return sock_fail(fd);
    sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (family == AF_INET6) /* so that 0.0.0.0 can stand beside it */
        sock_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (bind(fd, sock_raw(&here), addr->len) || listen(fd, backlog) ||
        getsockname(fd, sock_raw(&bound), &len))
        return sock_fail(fd);
    bound.addr.len = (uint8_t)len;
    *addr = bound.addr;
    *out = fd;
    return PM_OK;
}

static int sock_accept_one(int listener, sock_room *peer, socklen_t *len)
{
#ifdef __linux__
    int fd =
        accept4(listener, sock_raw(peer), len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    bool flags_set = true;
#else
    int fd = accept(listener, sock_raw(peer), len);
    bool flags_set = false;
#endif
    if (fd >= 0 && !sock_prepare(fd, flags_set)) {
        sock_fail(fd);
        return -1;
    }
    return fd;
}

/* Errors of a connection that died while it waited: the next one may be
 * well. */
static bool sock_accept_goes_on(int error)
{
    return error == EINTR || error == ECONNABORTED || error == EPROTO;
}

pm_err pmi_sock_accept(int listener, int *out, pmi_addr *peer)
{
    enum { TRIES = 16 };
    for (int i = 0; i < TRIES; i++) {
        sock_room from = {.addr = {.len = 0}};
        socklen_t len = sizeof from.addr.raw;
        int fd = sock_accept_one(listener, &from, &len);
        if (fd >= 0) {
            from.addr.len = (uint8_t)pmi_min(len, sizeof from.addr.raw);
            sock_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
            *out = fd;
            *peer = from.addr;
            return PM_OK;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return PM_EAGAIN;
        if (!sock_accept_goes_on(errno))
            return sock_errno(errno) == PM_ELIMIT ? PM_ELIMIT : PM_ENET;
    }
    return PM_EAGAIN;
}

pm_err pmi_sock_connect(const pmi_addr *addr, int *out)
{
    sock_room to = {.addr = *addr};
    sa_family_t family = addr_family(addr);
    int fd;
    if (family == AF_UNSPEC)
        return PM_EADDR;
    fd = sock_new(family);
    if (fd < 0)
        return sock_fail(fd);
    sock_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    /* EINTR: the attempt goes on by itself, as with EINPROGRESS. */
    if (connect(fd, sock_raw(&to), addr->len) && errno != EINPROGRESS &&
        errno != EINTR)
        return sock_fail(fd);
    *out = fd;
    return PM_OK;
}

pm_err pmi_sock_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len))
        return PM_ENET;
    if (error == 0)
        return PM_OK;
    errno = error;
    return error == ECONNREFUSED ? PM_EREFUSED : PM_ENET;
}

void pmi_sock_shutdown(int fd)
{
    shutdown(fd, SHUT_WR);
}

void pmi_sock_shutdown_read(int fd)
{
    shutdown(fd, SHUT_RD);
}

void pmi_sock_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

void pmi_sock_set_buffers(int fd, int send_bytes, int receive_bytes)
{
    if (send_bytes > 0)
        sock_set(fd, SOL_SOCKET, SO_SNDBUF, send_bytes);
    if (receive_bytes > 0)
        sock_set(fd, SOL_SOCKET, SO_RCVBUF, receive_bytes);
}

/* ---- Bytes ------------------------------------------------------------- */
static bool sock_try_later(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS;
}

long pmi_sock_read(int fd, void *data, size_t len, bool *reset)
{
    ssize_t n;
    *reset = false;
    do
        n = recv(fd, data, len, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return (long)n;
    if (n < 0 && sock_try_later(errno))
        return 0;
    *reset = n < 0;
    return -1;
}

long pmi_sock_write(int fd, pmi_iov *iov, int count)
{
    struct msghdr msg = {0};
    ssize_t n;
    msg.msg_iov = (struct iovec *)(void *)iov;
    /* The field's type differs between systems; count is at most PMI_IOV_MAX.
     */
    msg.msg_iovlen = (unsigned)pmi_min((size_t)count, PMI_IOV_MAX);
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return sock_try_later(errno) ? 0 : -1;
    return (long)n;
}

/* ---- Waking another thread's loop -------------------------------------- */
#ifdef __linux__
pm_err pmi_wake_open(pmi_wake *wake)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return sock_errno(errno);
    wake->read_fd = wake->write_fd = fd;
    return PM_OK;
}

/* EAGAIN would mean that the counter is full: then it is readable already. */
void pmi_wake_raise(pmi_wake *wake)
{
    int saved = errno;
    while (eventfd_write(wake->write_fd, 1) && errno == EINTR)
        continue;
    errno = saved;
}

void pmi_wake_clear(pmi_wake *wake)
{
    eventfd_t count;
    while (eventfd_read(wake->read_fd, &count) && errno == EINTR)
        continue;
}
#else
pm_err pmi_wake_open(pmi_wake *wake)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
        return sock_errno(errno);
    if (!sock_prepare(fds[0], false) || !sock_prepare(fds[1], false)) {
        close(fds[1]);
        return sock_fail(fds[0]);
    }
    wake->read_fd = fds[0];
    wake->write_fd = fds[1];
    return PM_OK;
}

/* EAGAIN would mean that bytes enough wait: it is readable already. */
void pmi_wake_raise(pmi_wake *wake)
{
    int saved = errno;
    while (send(wake->write_fd, "", 1, MSG_NOSIGNAL) < 0 && errno == EINTR)
        continue;
    errno = saved;
}

void pmi_wake_clear(pmi_wake *wake)
{
    char bytes[64];
    while (recv(wake->read_fd, bytes, sizeof bytes, 0) > 0)
        continue;
}
#endif

void pmi_wake_close(pmi_wake *wake)
{
    if (wake->write_fd != wake->read_fd)
        pmi_sock_close(wake->write_fd);
    pmi_sock_close(wake->read_fd);
    wake->read_fd = wake->write_fd = -1;
}

/* ---- Clock, processor, limits ------------------------------------------ */
uint64_t pmi_sock_clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

pm_err pmi_sock_pin_cpu(int cpu)
{
    if (cpu < 0)
        return PM_EINVAL;
#ifdef __linux__
    cpu_set_t set;
    if (cpu >= CPU_SETSIZE)
        return PM_EINVAL;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) ? PM_EINVAL : PM_OK;
#else
    return PM_ENOTSUP;
#endif
}

size_t pmi_sock_descriptors_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY)
        return 1 << 20;
    return (size_t)pmi_min((size_t)limit.rlim_cur, 1 << 20);
}
