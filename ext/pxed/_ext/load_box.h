/* Datagrams of simulated clients in and out in batches, each client with an IPv4 address of its own on one socket.
 *
 * Shares nothing with linux_net.h on purpose: the ruler is not made of what it measures. ip(7) IP_PKTINFO.
 */
#ifndef PXED_LOAD_BOX_H
#define PXED_LOAD_BOX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "endian_pxed.h"

#define LOAD_MESSAGES 64
#define LOAD_OUT_BYTES 576        /* an RRQ with options, an ACK or an ERROR */
#define LOAD_HEADERS 42           /* Ethernet 14, IPv4 20, UDP 8 */
#define LOAD_CONTROL CMSG_SPACE(sizeof(struct in_pktinfo))

typedef struct {
    struct mmsghdr message[LOAD_MESSAGES];
    struct iovec piece[LOAD_MESSAGES];
    struct sockaddr_in remote[LOAD_MESSAGES];
    uint32_t local[LOAD_MESSAGES];             /* host order; 0: the kernel did not say, or shall choose */
    uint8_t control[LOAD_MESSAGES][LOAD_CONTROL] __attribute__((aligned(8)));
    uint8_t *data;                             /* LOAD_MESSAGES times size */
    size_t size;
    int wire;                                  /* a packet socket of the link, or -1: datagrams go by the UDP socket */
    uint8_t headers[LOAD_HEADERS];             /* of frames for the link */
    unsigned count;
    unsigned long long refused;                /* outgoing: what the socket did not take */
} load_box;

static inline load_box *load_box_new(size_t size) {
    load_box *box = calloc(1, sizeof *box);
    if (!box)
        return NULL;
    box->size = size;
    box->wire = -1;
    box->data = malloc(LOAD_MESSAGES * size);
    if (!box->data) {
        free(box);
        return NULL;
    }
    return box;
}

static inline void load_box_free(load_box *box) {
    if (box)
        free(box->data);
    free(box);
}

/* recvmmsg without waiting: the number of datagrams, 0 when there is none (an ICMP error of an earlier one included). */
static inline int load_receive(load_box *box, int fd) {
    int i, n;
    for (i = 0; i < LOAD_MESSAGES; i++) {
        box->piece[i] = (struct iovec){box->data + (size_t)i * box->size, box->size};
        box->message[i].msg_hdr = (struct msghdr){
            .msg_name = &box->remote[i], .msg_namelen = sizeof box->remote[i], .msg_iov = &box->piece[i],
            .msg_iovlen = 1, .msg_control = box->control[i], .msg_controllen = LOAD_CONTROL,
        };
    }
    n = recvmmsg(fd, box->message, LOAD_MESSAGES, MSG_DONTWAIT, NULL);
    for (i = 0; i < n; i++) {
        struct cmsghdr *c = CMSG_FIRSTHDR(&box->message[i].msg_hdr);
        box->local[i] = 0;
        if (c && c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            box->local[i] = ntohl(info.ipi_spec_dst.s_addr);
        }
    }
    return n < 0 ? 0 : n;
}

static inline const uint8_t *load_data(const load_box *box, int i) { return box->data + (size_t)i * box->size; }

/* Whole length of a received datagram; 0 when it was longer than the box. */
static inline size_t load_length(const load_box *box, int i) {
    return box->message[i].msg_hdr.msg_flags & MSG_TRUNC ? 0 : box->message[i].msg_len;
}

static inline uint16_t load_port(const load_box *box, int i) { return ntohs(box->remote[i].sin_port); }
static inline uint32_t load_remote(const load_box *box, int i) { return ntohl(box->remote[i].sin_addr.s_addr); }

/* From now on datagrams leave as whole frames by `wire`, a packet socket that is bound to the link: past routing and the
 * queue, which cost more than everything else that a client does. */
static inline void load_use_wire(load_box *box, int wire, const uint8_t *to, const uint8_t *from, uint16_t port) {
    box->wire = wire;
    memset(box->headers, 0, sizeof box->headers);
    memcpy(box->headers, to, 6);
    memcpy(box->headers + 6, from, 6);
    box->headers[12] = 8;          /* IPv4 */
    box->headers[14] = 0x45;
    box->headers[20] = 0x40;       /* do not fragment */
    box->headers[22] = 64;         /* hops */
    box->headers[23] = IPPROTO_UDP;
    box->headers[34] = (uint8_t)(port >> 8);
    box->headers[35] = (uint8_t)port;
}

/* Headers for a datagram of `size` bytes into `at`; without a UDP checksum, as RFC 768 allows. */
static inline void load_headers(const load_box *box, uint8_t *at, uint32_t local, uint32_t remote, uint16_t port,
                                size_t size) {
    uint32_t sum = 0;
    int i;
    memcpy(at, box->headers, LOAD_HEADERS);
    pxed_store_be16(at + 16, (uint16_t)(size + 28));
    pxed_store_be32(at + 26, local);
    pxed_store_be32(at + 30, remote);
    for (i = 14; i < 34; i += 2)
        sum += pxed_load_be16(at + i);
    sum = (sum & 0xffff) + (sum >> 16);
    pxed_store_be16(at + 24, (uint16_t)~(sum + (sum >> 16)));
    pxed_store_be16(at + 36, port);
    pxed_store_be16(at + 38, (uint16_t)(size + 8));
}

/* Sends what waits. A datagram that the socket refuses (no buffer, no route) is lost like any other, and counted. */
static inline void load_flush(load_box *box, int fd) {
    unsigned sent = 0;
    if (box->wire >= 0)
        fd = box->wire;
    while (sent < box->count) {
        int n = sendmmsg(fd, box->message + sent, box->count - sent, MSG_NOSIGNAL);
        if (n > 0) {
            sent += (unsigned)n;
        } else if (n < 0 && errno != EINTR) {
            sent++;
            box->refused++;
        }
    }
    box->count = 0;
}

/* Appends a datagram (copied, at most LOAD_OUT_BYTES) from `local` to `remote`; sends the batch first when it is full. */
static inline void load_send(load_box *box, int fd, uint32_t local, uint32_t remote, uint16_t port, const void *data,
                             size_t size) {
    unsigned i;
    uint8_t *at;
    struct msghdr *m;
    if (box->count == LOAD_MESSAGES)
        load_flush(box, fd);
    i = box->count++;
    at = box->data + (size_t)i * box->size;
    m = &box->message[i].msg_hdr;
    if (box->wire >= 0) {
        load_headers(box, at, local, remote, port, size);
        memcpy(at + LOAD_HEADERS, data, size);
        box->piece[i] = (struct iovec){at, size + LOAD_HEADERS};
        *m = (struct msghdr){.msg_iov = &box->piece[i], .msg_iovlen = 1};
        return;
    }
    memcpy(at, data, size);
    box->piece[i] = (struct iovec){at, size};
    box->remote[i] = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(remote)}};
    *m = (struct msghdr){
        .msg_name = &box->remote[i], .msg_namelen = sizeof box->remote[i], .msg_iov = &box->piece[i], .msg_iovlen = 1};
    if (local) {
        struct in_pktinfo info = {.ipi_spec_dst = {htonl(local)}};
        struct cmsghdr *c;
        memset(box->control[i], 0, LOAD_CONTROL);
        m->msg_control = box->control[i];
        m->msg_controllen = LOAD_CONTROL;
        c = CMSG_FIRSTHDR(m);
        c->cmsg_len = CMSG_LEN(sizeof info);
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        memcpy(CMSG_DATA(c), &info, sizeof info);
    }
}

static inline uint64_t load_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

#endif
