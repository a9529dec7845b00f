"""Declarations of linux_net.h: paths, outgoing batches, the inbox, waiting, the clock."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "linux_net.h" nogil:
    enum: INET6_ADDRSTRLEN
    enum: PXED_BATCH_MESSAGES
    enum: PXED_BATCH_HEADERS
    enum: PXED_INBOX_MESSAGES

    ctypedef struct pxed_path:
        uint32_t socket

    bint pxed_path_equal(const pxed_path *a, const pxed_path *b)
    bint pxed_path_same_ends(const pxed_path *a, const pxed_path *b)
    uint64_t pxed_path_hash(const pxed_path *path, uint64_t seed)
    uint64_t pxed_client_hash(const pxed_path *path, uint64_t seed)
    bint pxed_path_is_v6(const pxed_path *path)
    uint16_t pxed_path_port(const pxed_path *path)
    void pxed_path_text(const pxed_path *path, int which, char *out)
    bint pxed_bound_address(int fd, uint8_t *out)
    int pxed_path_parse(pxed_path *path, const char *remote, uint16_t port, const char *local)

    void pxed_path_toward(pxed_path *path, uint32_t address, uint16_t port)
    const uint8_t *pxed_path_v4(const pxed_path *path)

    ctypedef struct iovec "struct iovec":
        void *iov_base
        size_t iov_len

    ctypedef struct msghdr "struct msghdr":
        iovec *msg_iov
        size_t msg_iovlen

    ctypedef struct mmsghdr "struct mmsghdr":
        msghdr msg_hdr
        unsigned int msg_len

    ctypedef struct pxed_batch:
        unsigned int count
        unsigned int sent
        unsigned int unsent
        iovec **unsent_piece
        mmsghdr *message
        pxed_path *path
        uint16_t *segment
        uint16_t *segments

    void pxed_batch_clear(pxed_batch *batch)
    bint pxed_batch_has_room(const pxed_batch *batch, size_t header)
    void pxed_batch_add(pxed_batch *batch, const pxed_path *path, const void *header, size_t header_size,
                        const void *data, size_t size)
    bint pxed_batch_extend(pxed_batch *batch, const void *header, size_t header_size, const void *data, size_t size)
    void pxed_batch_control(pxed_batch *batch, unsigned int message, bint bound)
    void pxed_batch_send_singly(pxed_batch *batch, unsigned int message, int fd, bint bound)

    ctypedef struct pxed_inbox:
        mmsghdr *message
        pxed_path *path

    void pxed_inbox_init(pxed_inbox *inbox)
    int pxed_inbox_receive(pxed_inbox *inbox, int fd, uint32_t socket, const uint8_t *local)
    bint pxed_inbox_truncated(const pxed_inbox *inbox, int message)
    const uint8_t *pxed_inbox_data(const pxed_inbox *inbox, int message)

    ctypedef struct pollfd "struct pollfd":
        int fd
        short events
        short revents

    enum: POLLIN
    enum: POLLOUT
    int pxed_poll(pollfd *fds, unsigned int count, uint64_t wait)
    uint64_t pxed_clock()
