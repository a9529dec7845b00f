/* Datagrams in and out in batches: addresses, control messages, and the arrays that sendmmsg(2) and recvmmsg(2) want.
 *
 * Plain C because the control-message macros and sockaddr unions are C; everything that decides is Cython.
 * IPv4: ip(7) IP_PKTINFO. IPv6: RFC 3542 IPV6_PKTINFO. Segmentation: udp(7) UDP_SEGMENT.
 */
#ifndef PXED_LINUX_NET_H
#define PXED_LINUX_NET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* Between whom a datagram travels. All bytes are set (padding too), so that two paths compare with memcmp. */
typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } remote;
    uint8_t local[16];   /* our address that was asked; IPv4 in the first four bytes; zero: the kernel chooses */
    uint32_t socket;     /* which of the engine's sockets */
} pxed_path;

static inline int pxed_path_equal(const pxed_path *a, const pxed_path *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

/* Between the same addresses and the same port of the client, whichever of our sockets. */
static inline int pxed_path_same_ends(const pxed_path *a, const pxed_path *b) {
    return memcmp(a, b, offsetof(pxed_path, socket)) == 0;
}

/* Mixes the remote address and port, the only parts of a path that vary between clients (finaliser of MurmurHash3). */
static inline uint64_t pxed_path_hash(const pxed_path *p, uint64_t seed) {
    uint64_t h = seed, a, b;
    if (p->remote.any.sa_family == AF_INET6) {
        memcpy(&a, p->remote.v6.sin6_addr.s6_addr, 8);
        memcpy(&b, p->remote.v6.sin6_addr.s6_addr + 8, 8);
        h ^= a * UINT64_C(0x9e3779b97f4a7c15) ^ b ^ ((uint64_t)p->remote.v6.sin6_port << 32);
    } else {
        h ^= (uint64_t)p->remote.v4.sin_addr.s_addr << 16 ^ p->remote.v4.sin_port;
    }
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

/* The same of the client's address alone. */
static inline uint64_t pxed_client_hash(const pxed_path *p, uint64_t seed) {
    pxed_path client = *p;
    if (p->remote.any.sa_family == AF_INET6)
        client.remote.v6.sin6_port = 0;
    else
        client.remote.v4.sin_port = 0;
    return pxed_path_hash(&client, seed);
}

static inline int pxed_path_is_v6(const pxed_path *p) { return p->remote.any.sa_family == AF_INET6; }

static inline uint16_t pxed_path_port(const pxed_path *p) {
    return ntohs(pxed_path_is_v6(p) ? p->remote.v6.sin6_port : p->remote.v4.sin_port);
}

static inline socklen_t pxed_path_length(const pxed_path *p) {
    return pxed_path_is_v6(p) ? sizeof p->remote.v6 : sizeof p->remote.v4;
}

/* Text of the remote (which = 0) or local (1) address into out[INET6_ADDRSTRLEN]. */
static inline void pxed_path_text(const pxed_path *p, int which, char *out) {
    const void *v6 = which ? (const void *)p->local : (const void *)&p->remote.v6.sin6_addr;
    const void *v4 = which ? (const void *)p->local : (const void *)&p->remote.v4.sin_addr;
    if (!inet_ntop(pxed_path_is_v6(p) ? AF_INET6 : AF_INET, pxed_path_is_v6(p) ? v6 : v4, out, INET6_ADDRSTRLEN))
        out[0] = 0;
}

/* A socket's own address into out[16], as pxed_path.local has it; 0 when it is bound to every address (or on error). */
static inline int pxed_bound_address(int fd, uint8_t *out) {
    static const uint8_t nowhere[16];
    pxed_path p;
    socklen_t length = sizeof p.remote;
    memset(&p, 0, sizeof p);
    memset(out, 0, 16);
    if (getsockname(fd, &p.remote.any, &length) < 0)
        return 0;
    if (pxed_path_is_v6(&p))
        memcpy(out, &p.remote.v6.sin6_addr, 16);
    else
        memcpy(out, &p.remote.v4.sin_addr, 4);
    return memcmp(out, nowhere, sizeof nowhere) != 0;
}

/* From text; 0, or -1 when `remote` or `local` is no address of one family. */
static inline int pxed_path_parse(pxed_path *p, const char *remote, uint16_t port, const char *local) {
    memset(p, 0, sizeof *p);
    if (inet_pton(AF_INET, remote, &p->remote.v4.sin_addr) == 1) {
        p->remote.v4.sin_family = AF_INET;
        p->remote.v4.sin_port = htons(port);
        return *local && inet_pton(AF_INET, local, p->local) != 1 ? -1 : 0;
    }
    if (inet_pton(AF_INET6, remote, &p->remote.v6.sin6_addr) == 1) {
        p->remote.v6.sin6_family = AF_INET6;
        p->remote.v6.sin6_port = htons(port);
        return *local && inet_pton(AF_INET6, local, p->local) != 1 ? -1 : 0;
    }
    return -1;
}

/* The same path with another remote end: an IPv4 address (host byte order) and port. */
static inline void pxed_path_toward(pxed_path *p, uint32_t address, uint16_t port) {
    memset(&p->remote, 0, sizeof p->remote);
    p->remote.v4.sin_family = AF_INET;
    p->remote.v4.sin_addr.s_addr = htonl(address);
    p->remote.v4.sin_port = htons(port);
}

/* The four bytes of the remote IPv4 address. */
static inline const uint8_t *pxed_path_v4(const pxed_path *p) { return (const uint8_t *)&p->remote.v4.sin_addr; }

/* -- the batch that senders fill ----------------------------------------------------------------------------------- */

#define PXED_BATCH_MESSAGES 64    /* per sendmmsg: enough to make the system call cheap, short enough to stay fair */
#define PXED_BATCH_PIECES 1024    /* iovecs: header and data of each datagram */
#define PXED_BATCH_HEADERS 16384  /* bytes of headers: 4 per DATA, up to some 600 for an OACK or an ERROR */
#define PXED_RUN_SEGMENTS 44      /* datagrams of 1472 bytes in one 64 KiB run; the kernel's limit is 64 or more */
#define PXED_RUN_BYTES 65000      /* a run must fit one IP packet before it is cut */
#define PXED_CONTROL_SPACE (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t)))

typedef struct {
    unsigned count;               /* messages */
    unsigned sent;                /* of these, how many have left */
    unsigned pieces;
    unsigned headers;
    unsigned unsent;              /* datagrams whose bytes the kernel could not read (EFAULT) */
    struct mmsghdr message[PXED_BATCH_MESSAGES];
    pxed_path path[PXED_BATCH_MESSAGES];
    uint16_t segment[PXED_BATCH_MESSAGES];     /* bytes per datagram of a run; of a single one its length */
    uint16_t segments[PXED_BATCH_MESSAGES];
    struct iovec piece[PXED_BATCH_PIECES];
    struct iovec *unsent_piece[PXED_BATCH_PIECES];  /* header and data of each of those */
    uint8_t header[PXED_BATCH_HEADERS];
    uint8_t control[PXED_BATCH_MESSAGES][PXED_CONTROL_SPACE] __attribute__((aligned(8)));
} pxed_batch;

static inline void pxed_batch_clear(pxed_batch *b) { b->count = b->sent = b->pieces = b->headers = b->unsent = 0; }

static inline int pxed_batch_has_room(const pxed_batch *b, size_t header) {
    return b->count < PXED_BATCH_MESSAGES && b->pieces + 2 <= PXED_BATCH_PIECES
        && b->headers + header <= PXED_BATCH_HEADERS;
}

static inline void pxed_batch_pieces(pxed_batch *b, const void *header, size_t header_size, const void *data, size_t size) {
    struct msghdr *m = &b->message[b->count - 1].msg_hdr;
    memcpy(b->header + b->headers, header, header_size);
    b->piece[b->pieces++] = (struct iovec){b->header + b->headers, header_size};
    b->headers += header_size;
    m->msg_iovlen++;
    if (size) {
        b->piece[b->pieces++] = (struct iovec){(void *)data, size};
        m->msg_iovlen++;
    }
}

/* Appends one datagram; the header is copied, the data is not. The caller has asked pxed_batch_has_room. */
static inline void pxed_batch_add(pxed_batch *b, const pxed_path *path, const void *header, size_t header_size,
                                  const void *data, size_t size) {
    unsigned i = b->count++;
    struct msghdr *m = &b->message[i].msg_hdr;
    b->path[i] = *path;
    memset(m, 0, sizeof *m);
    m->msg_name = &b->path[i].remote;
    m->msg_namelen = pxed_path_length(path);
    m->msg_iov = &b->piece[b->pieces];
    b->segment[i] = (uint16_t)(header_size + size);
    b->segments[i] = 1;
    pxed_batch_pieces(b, header, header_size, data, size);
}

/* Appends a datagram for the same peer to the last message; 0 when it does not fit there (then add it). Every datagram
 * of a run but the last has the same length. */
static inline int pxed_batch_extend(pxed_batch *b, const void *header, size_t header_size, const void *data, size_t size) {
    unsigned i = b->count - 1;
    size_t whole = (size_t)b->segment[i] * b->segments[i];
    if (b->pieces + 2 > PXED_BATCH_PIECES || b->headers + header_size > PXED_BATCH_HEADERS
        || b->segments[i] >= PXED_RUN_SEGMENTS || header_size + size > b->segment[i]
        || whole + b->segment[i] > PXED_RUN_BYTES)
        return 0;
    b->segments[i]++;
    pxed_batch_pieces(b, header, header_size, data, size);
    return 1;
}

/* Control messages: the source address unless the socket is `bound` to it, and the segment size of a run. */
static inline void pxed_batch_control(pxed_batch *b, unsigned i, int bound) {
    static const uint8_t nowhere[16];
    struct msghdr *m = &b->message[i].msg_hdr;
    const pxed_path *p = &b->path[i];
    uint8_t *at = b->control[i];
    struct cmsghdr *c;
    if (bound && b->segments[i] == 1) {
        m->msg_control = NULL;
        m->msg_controllen = 0;
        return;
    }
    memset(at, 0, PXED_CONTROL_SPACE);
    m->msg_control = at;
    if (!bound && memcmp(p->local, nowhere, sizeof nowhere) != 0) {
        c = (struct cmsghdr *)at;
        if (pxed_path_is_v6(p)) {
            struct in6_pktinfo info = {.ipi6_ifindex = p->remote.v6.sin6_scope_id};
            memcpy(&info.ipi6_addr, p->local, 16);
            *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO};
            memcpy(CMSG_DATA(c), &info, sizeof info);
            at += CMSG_SPACE(sizeof info);
        } else {
            struct in_pktinfo info = {.ipi_ifindex = 0};
            memcpy(&info.ipi_spec_dst, p->local, 4);
            *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
            memcpy(CMSG_DATA(c), &info, sizeof info);
            at += CMSG_SPACE(sizeof info);
        }
    }
    if (b->segments[i] > 1) {
        c = (struct cmsghdr *)at;
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(uint16_t)), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
        memcpy(CMSG_DATA(c), &b->segment[i], sizeof(uint16_t));
        at += CMSG_SPACE(sizeof(uint16_t));
    }
    m->msg_controllen = (size_t)(at - b->control[i]);
    if (!m->msg_controllen)
        m->msg_control = NULL;
}

/* -- what a socket received ---------------------------------------------------------------------------------------- */

#define PXED_INBOX_MESSAGES 64
#define PXED_INBOX_BYTES 2048     /* requests and ACKs are far smaller; a longer datagram is cut, and dropped for it */

typedef struct {
    struct mmsghdr message[PXED_INBOX_MESSAGES];
    struct iovec piece[PXED_INBOX_MESSAGES];
    pxed_path path[PXED_INBOX_MESSAGES];
    uint8_t data[PXED_INBOX_MESSAGES][PXED_INBOX_BYTES];
    uint8_t control[PXED_INBOX_MESSAGES][256] __attribute__((aligned(8)));
    int used;                     /* slots that the last call filled: they want preparing again */
} pxed_inbox;

/* A new inbox is all zero; then this. */
static inline void pxed_inbox_init(pxed_inbox *in) { in->used = PXED_INBOX_MESSAGES; }

/* recvmmsg without waiting: the number of datagrams, or -errno. Paths are complete afterwards. `local` is our address
 * if the socket is bound to one; NULL if the kernel tells it per datagram, which costs. */
static inline int pxed_inbox_receive(pxed_inbox *in, int fd, uint32_t socket, const uint8_t *local) {
    int i, n;
    for (i = 0; i < in->used; i++) {
        memset(&in->path[i], 0, sizeof in->path[i]);
        in->piece[i] = (struct iovec){in->data[i], PXED_INBOX_BYTES};
        in->message[i].msg_hdr = (struct msghdr){
            .msg_name = &in->path[i].remote, .msg_namelen = sizeof in->path[i].remote,
            .msg_iov = &in->piece[i], .msg_iovlen = 1,
            .msg_control = in->control[i], .msg_controllen = sizeof in->control[i],
        };
    }
    n = recvmmsg(fd, in->message, PXED_INBOX_MESSAGES, MSG_DONTWAIT, NULL);
    in->used = n < 0 ? 0 : n;
    if (n < 0)
        return -errno;
    for (i = 0; i < n; i++) {
        struct msghdr *m = &in->message[i].msg_hdr;
        struct cmsghdr *c;
        in->path[i].socket = socket;
        if (pxed_path_is_v6(&in->path[i]))
            in->path[i].remote.v6.sin6_flowinfo = 0;
        if (local) {
            memcpy(in->path[i].local, local, sizeof in->path[i].local);
            continue;
        }
        for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
            if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof info);
                memcpy(in->path[i].local, &info.ipi_spec_dst, 4);
            } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof info);
                memcpy(in->path[i].local, &info.ipi6_addr, 16);
            }
        }
    }
    return n;
}

static inline int pxed_inbox_truncated(const pxed_inbox *in, int i) {
    return (in->message[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
}

static inline const uint8_t *pxed_inbox_data(const pxed_inbox *in, int i) { return in->data[i]; }

/* Sends one run as single datagrams, for kernels or devices that refuse UDP_SEGMENT, or for the bytes of one of them. What
 * the socket does not take is lost like any datagram; what the kernel cannot read is noted. Each datagram of a run is two pieces, but for an empty last block, which is one. */
static inline void pxed_batch_send_singly(pxed_batch *b, unsigned i, int fd, int bound) {
    struct msghdr whole = b->message[i].msg_hdr, one;
    size_t at;
    b->segments[i] = 1;
    pxed_batch_control(b, i, bound);
    one = b->message[i].msg_hdr;
    for (at = 0; at < whole.msg_iovlen; at += one.msg_iovlen) {
        one.msg_iov = whole.msg_iov + at;
        one.msg_iovlen = whole.msg_iovlen - at < 2 ? 1 : 2;
        if (sendmsg(fd, &one, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            continue;
        if (errno != EFAULT)
            return;
        b->unsent_piece[b->unsent++] = one.msg_iov;
    }
}

/* ppoll for `wait` ns, UINT64_MAX: until something happens. */
static inline int pxed_poll(struct pollfd *fds, unsigned count, uint64_t wait) {
    struct timespec t = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
    return ppoll(fds, count, wait == UINT64_MAX ? NULL : &t, NULL);
}

static inline uint64_t pxed_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

#endif
