"""Declarations of load_box.h: datagrams of simulated clients, in and out in batches."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "load_box.h" nogil:
    enum: LOAD_MESSAGES
    enum: LOAD_OUT_BYTES
    enum: LOAD_HEADERS

    ctypedef struct load_box:
        uint32_t *local
        unsigned int count
        unsigned long long refused

    load_box *load_box_new(size_t size)
    void load_use_wire(load_box *box, int wire, const uint8_t *to, const uint8_t *sender, uint16_t port)
    void load_box_free(load_box *box)
    int load_receive(load_box *box, int fd)
    const uint8_t *load_data(const load_box *box, int i)
    size_t load_length(const load_box *box, int i)
    uint16_t load_port(const load_box *box, int i)
    uint32_t load_remote(const load_box *box, int i)
    void load_send(load_box *box, int fd, uint32_t local, uint32_t remote, uint16_t port, const void *data, size_t size)
    void load_flush(load_box *box, int fd)
    uint64_t load_clock()
