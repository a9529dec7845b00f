/* The limit of this kernel for TFTP: answers each ACK with the next window, and knows nothing.
 *
 *     cc -O2 -o build/reflector benchmarks/reflector.c
 *     pxed bench tftp --lab --against-command 'build/reflector {address} {file} {blksize} {windowsize}'
 *
 * No sessions, no timers, no checks of who asks for what: every request is granted what the command line says, the block
 * number of an ACK is the place in the file (so at most 65535 blocks), nothing is ever sent again. One socket, one thread,
 * recvmmsg, sendmmsg, and segmentation by the kernel for windows, as the engine does. A server that is as fast as this
 * spends its time in the kernel alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define BATCH 64
#define REQUEST 600
#define WINDOW 44 /* blocks of 1468 bytes that fit one 64 KiB run */

static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_piece[BATCH], out_piece[BATCH][2 * WINDOW];
static struct sockaddr_in peer[BATCH];
static unsigned char request[BATCH][REQUEST], header[BATCH][WINDOW][4], granted[128];
static _Alignas(8) unsigned char control[BATCH][CMSG_SPACE(sizeof(unsigned short))];

static const unsigned char *file;
static size_t size, blksize, windowsize, granted_size;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* The window after block `block` of the file as message `o`, one run of equal segments. */
static int window(int o, size_t block) {
    struct msghdr *m = &out[o].msg_hdr;
    size_t n, at;
    for (n = 0; n < windowsize && (at = (block + n) * blksize) <= size; n++) {
        unsigned char *h = header[o][n];
        size_t length = size - at < blksize ? size - at : blksize;
        h[0] = 0, h[1] = 3, h[2] = (unsigned char)((block + n + 1) >> 8), h[3] = (unsigned char)(block + n + 1);
        out_piece[o][2 * n] = (struct iovec){h, 4};
        out_piece[o][2 * n + 1] = (struct iovec){(void *)(file + at), length};
    }
    m->msg_iov = out_piece[o];
    m->msg_iovlen = 2 * n;
    if (n > 1) {
        struct cmsghdr *c = (struct cmsghdr *)control[o];
        unsigned short segment = (unsigned short)(blksize + 4);
        c->cmsg_len = CMSG_LEN(sizeof segment);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        memcpy(CMSG_DATA(c), &segment, sizeof segment);
        m->msg_control = control[o];
        m->msg_controllen = sizeof control[o];
    }
    return n > 0;
}

static int answer(int i, int o) {
    size_t length = in[i].msg_len;
    out[o].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_namelen = sizeof peer[i]};
    if (length >= 4 && request[i][1] == 4)
        return window(o, (size_t)request[i][2] << 8 | request[i][3]);
    if (length < 4 || request[i][1] != 1)
        return 0;
    out_piece[o][0] = (struct iovec){granted, granted_size};
    out[o].msg_hdr.msg_iov = out_piece[o];
    out[o].msg_hdr.msg_iovlen = 1;
    return 1;
}

static void serve(int fd) {
    int i, n, o, sent;
    for (;;) {
        for (i = 0; i < BATCH; i++) {
            in_piece[i] = (struct iovec){request[i], REQUEST};
            in[i].msg_hdr = (struct msghdr){
                .msg_name = &peer[i], .msg_namelen = sizeof peer[i], .msg_iov = &in_piece[i], .msg_iovlen = 1};
        }
        n = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        for (i = o = 0; i < n; i++)
            o += answer(i, o);
        for (i = 0; i < o; i += sent > 0 ? sent : 1)
            sent = sendmmsg(fd, out + i, (unsigned)(o - i), 0);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(69)};
    struct stat about;
    int fd, large = 8 << 20;
    if (argc != 5 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: %s ADDRESS FILE BLKSIZE WINDOWSIZE\n", argv[0]);
        return 2;
    }
    blksize = strtoul(argv[3], NULL, 10);
    windowsize = strtoul(argv[4], NULL, 10);
    fd = open(argv[2], O_RDONLY);
    if (fd < 0 || fstat(fd, &about) < 0)
        fail(argv[2]);
    size = (size_t)about.st_size;
    if (blksize < 8 || windowsize < 1 || windowsize > WINDOW || windowsize * (blksize + 4) > 65000
        || size / blksize >= 65535) {
        fprintf(stderr, "a run of %d blocks and 65000 bytes, and a file of 65535 blocks, is the most\n", WINDOW);
        return 2;
    }
    file = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (file == MAP_FAILED)
        fail("mmap");
    granted_size = 2 + (size_t)sprintf((char *)granted + 2, "tsize%c%zu%cblksize%c%zu", 0, size, 0, 0, blksize) + 1;
    if (windowsize > 1)
        granted_size += (size_t)sprintf((char *)granted + granted_size, "windowsize%c%zu", 0, windowsize) + 1;
    granted[1] = 6;
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof large);
    serve(fd);
    return 0;
}
