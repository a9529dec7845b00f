/* What a group's socket received: datagrams that the kernel may have put together (udp(7) UDP_GRO), in batches.
 *
 * One message is a run of datagrams of the same length, but for the last, in up to 64 KiB; where a network card or the
 * kernel does no such thing, it is one datagram.
 */
#ifndef PXED_CAST_INBOX_H
#define PXED_CAST_INBOX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_RXQ_OVFL
#define SO_RXQ_OVFL 40
#endif

#define PXED_CAST_MESSAGES 32
/* The longest run, and a little more: at equal distances of 64 KiB single datagrams would fight for the same few lines
 * of the processor's caches. */
#define PXED_CAST_BYTES (65536 + 2048)

typedef struct {
    struct mmsghdr message[PXED_CAST_MESSAGES];
    struct iovec piece[PXED_CAST_MESSAGES];
    uint8_t control[PXED_CAST_MESSAGES][64] __attribute__((aligned(8)));
    uint32_t segment[PXED_CAST_MESSAGES];   /* bytes of each datagram of a run but the last */
    uint32_t overflowed;                    /* datagrams that the socket had no room for, ever, as it said last */
    uint8_t data[PXED_CAST_MESSAGES][PXED_CAST_BYTES];
} pxed_cast_inbox;

/* recvmmsg without waiting: the number of messages, or -errno. */
static inline int pxed_cast_receive(pxed_cast_inbox *in, int fd) {
    int i, n;
    for (i = 0; i < PXED_CAST_MESSAGES; i++) {
        in->piece[i] = (struct iovec){in->data[i], PXED_CAST_BYTES};
        in->message[i].msg_hdr = (struct msghdr){
            .msg_iov = &in->piece[i], .msg_iovlen = 1,
            .msg_control = in->control[i], .msg_controllen = sizeof in->control[i],
        };
    }
    n = recvmmsg(fd, in->message, PXED_CAST_MESSAGES, MSG_DONTWAIT, NULL);
    if (n < 0)
        return -errno;
    for (i = 0; i < n; i++) {
        struct msghdr *m = &in->message[i].msg_hdr;
        struct cmsghdr *c;
        in->segment[i] = in->message[i].msg_len;
        for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
            int size;
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
                memcpy(&in->overflowed, CMSG_DATA(c), sizeof in->overflowed);
            } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
                memcpy(&size, CMSG_DATA(c), sizeof size);
                if (size > 0)
                    in->segment[i] = (uint32_t)size;
            }
        }
    }
    return n;
}

#endif
