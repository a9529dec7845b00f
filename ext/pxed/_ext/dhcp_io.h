/* Datagrams of the DHCP ports: recvmmsg(2) with interface and addresses of each, sendmsg(2) from one of our addresses.
 *
 * Plain C because the control-message macros are. ip(7) IP_PKTINFO.
 */
#ifndef PXED_DHCP_IO_H
#define PXED_DHCP_IO_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define DHCP_MESSAGES 32   /* per call, and so per turn of the event loop */
#define DHCP_BYTES 9216    /* larger than any Ethernet datagram */

typedef struct {
    struct mmsghdr message[DHCP_MESSAGES];
    struct iovec piece[DHCP_MESSAGES];
    struct sockaddr_in remote[DHCP_MESSAGES];
    uint8_t control[DHCP_MESSAGES][128] __attribute__((aligned(8)));
    uint8_t data[DHCP_MESSAGES][DHCP_BYTES];
} dhcp_inbox;

typedef struct {
    const uint8_t *data;
    size_t size;
    struct in_addr source;
    uint16_t source_port;
    struct in_addr local;         /* our address for it, even when it was sent to a broadcast address */
    struct in_addr destination;   /* as the IP header has it */
    int index;                    /* of the interface; 0: the kernel did not say */
} dhcp_datagram;

/* The number of datagrams, or -errno; does not wait. */
static inline int dhcp_receive(dhcp_inbox *in, int fd) {
    int i, n;
    for (i = 0; i < DHCP_MESSAGES; i++) {
        in->piece[i] = (struct iovec){in->data[i], DHCP_BYTES};
        in->message[i].msg_hdr = (struct msghdr){
            .msg_name = &in->remote[i], .msg_namelen = sizeof in->remote[i], .msg_iov = &in->piece[i], .msg_iovlen = 1,
            .msg_control = in->control[i], .msg_controllen = sizeof in->control[i],
        };
    }
    n = recvmmsg(fd, in->message, DHCP_MESSAGES, MSG_DONTWAIT, NULL);
    return n < 0 ? -errno : n;
}

static inline dhcp_datagram dhcp_received(const dhcp_inbox *in, int i) {
    struct msghdr m = in->message[i].msg_hdr;
    struct cmsghdr *c;
    dhcp_datagram d = {
        .data = in->data[i], .size = in->message[i].msg_len, .source = in->remote[i].sin_addr,
        .source_port = ntohs(in->remote[i].sin_port),
    };
    for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            d.index = info.ipi_ifindex;
            d.local = info.ipi_spec_dst;
            d.destination = info.ipi_addr;
        }
    }
    return d;
}

static inline void dhcp_text(struct in_addr address, char *out) { inet_ntop(AF_INET, &address, out, INET_ADDRSTRLEN); }

/* 0, or errno (EINVAL: no IPv4 address). index 0: the routes decide by which interface it leaves. */
static inline int dhcp_send(int fd, const void *data, size_t size, const char *source, const char *destination,
                            uint16_t port, int index) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct iovec piece = {(void *)data, size};
    uint8_t control[CMSG_SPACE(sizeof(struct in_pktinfo))] __attribute__((aligned(8)));
    struct in_pktinfo info = {.ipi_ifindex = index};
    struct msghdr m = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control,
        .msg_controllen = sizeof control,
    };
    struct cmsghdr *c;
    if (inet_pton(AF_INET, source, &info.ipi_spec_dst) != 1 || inet_pton(AF_INET, destination, &to.sin_addr) != 1)
        return EINVAL;
    memset(control, 0, sizeof control);
    c = CMSG_FIRSTHDR(&m);
    c->cmsg_len = CMSG_LEN(sizeof info);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    memcpy(CMSG_DATA(c), &info, sizeof info);
    return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

#endif
