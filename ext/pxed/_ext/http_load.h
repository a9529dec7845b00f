/* Sockets and response heads for http_load.pyx. */
#ifndef PXED_HTTP_LOAD_H
#define PXED_HTTP_LOAD_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static inline uint64_t http_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A connection that has begun, known to `epoll` by `number`; -1 with errno. local 0: any address of ours. */
static inline int http_connect(int epoll, uint32_t number, uint32_t local, uint32_t server, uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, saved;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(local)};
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = number};
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (local) {
        /* The port is chosen at connect, so that each address has all of them for each server. */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) goto failed;
    }
    address.sin_addr.s_addr = htonl(server);
    address.sin_port = htons(port);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) goto failed;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) goto failed;
    return fd;
failed:
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* What became of a connection: 0, or an errno. */
static inline int http_connected(int epoll, uint32_t number, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
    if (!error && epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) < 0) return errno;
    return error;
}

/* Be woken for this many bytes at least (or for the end). */
static inline void http_wake_at(int fd, uint64_t bytes) {
    int low = (int)bytes;
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
}

typedef struct {
    int status;
    int closes;                  /* Connection: close */
    int has_length, has_range;
    uint64_t length;             /* Content-Length */
    uint64_t first, last, whole; /* Content-Range: bytes first-last/whole */
} http_head;

/* The digits at *text, which moves behind them; 0 where there are none. */
static inline int http_number(const char **text, uint64_t *value) {
    char *end;
    if (**text < '0' || **text > '9') return 0;
    *value = strtoull(*text, &end, 10);
    *text = end;
    return 1;
}

static inline const char *http_skip_spaces(const char *text) {
    while (*text == ' ' || *text == '\t') text++;
    return text;
}

static inline const char *http_value(const char *line, const char *name) {
    size_t size = strlen(name);
    return strncasecmp(line, name, size) ? NULL : http_skip_spaces(line + size);
}

/* Reads a head that ends with a NUL; 0 when it is none that a boot server would send. */
static inline int http_parse(const char *text, http_head *head) {
    const char *line, *value;
    memset(head, 0, sizeof *head);
    if (strncmp(text, "HTTP/1.", 7) || text[7] < '0' || text[7] > '1' || text[8] != ' ') return 0;
    head->status = atoi(text + 9);
    head->closes = text[7] == '0';
    for (line = strstr(text, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if ((value = http_value(line, "content-length:"))) {
            if (head->has_length || !http_number(&value, &head->length)) return 0;
            head->has_length = 1;
        } else if ((value = http_value(line, "content-range:")) && !strncasecmp(value, "bytes", 5)) {
            value = http_skip_spaces(value + 5);
            head->has_range = http_number(&value, &head->first) && *value++ == '-' && http_number(&value, &head->last)
                              && *value++ == '/' && http_number(&value, &head->whole);
        } else if ((value = http_value(line, "connection:"))) {
            head->closes = !strncasecmp(value, "close", 5);
        } else if (http_value(line, "transfer-encoding:")) {
            return 0;
        }
    }
    return 1;
}

#endif
