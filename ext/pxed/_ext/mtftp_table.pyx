"""The groups of a GroupSender: which there are, and the addresses that they have. Sans-I/O, without the GIL.

A group is a file, a block size, and where from it is sent. Each has an address of its own; when all are taken, or for
clients that take no multicast, one is private: its DATA goes to its client.
"""

from libc.stdint cimport UINT64_MAX, uint8_t
from libc.stdlib cimport calloc, free

from pxed._ext.blob cimport pxed_blob_ref, pxed_blob_unref
from pxed._ext.linux_net cimport pxed_path_equal, pxed_path_parse, pxed_path_toward, pxed_path_v4
from pxed._ext.ring cimport ring_init
from pxed._ext.tftp_flow cimport rto_start

cimport cython

# An address rests for longer than any client listens to silence: one of the former group that still listens would take
# the new file's blocks for its own.
cdef uint64_t QUARANTINE = 120_000_000_000


@cython.final
@cython.no_gc
cdef class GroupTable:
    """`count` addresses from `first`, all with `port`. Raises ValueError: not of IPv4, or not 1 to 1024.

    `seed` says which is the first that is taken: after a restart, and beside another server in the network, another
    than that of a group whose members may still listen.
    """

    def __cinit__(self, first: str, uint32_t count, uint16_t port, uint64_t seed):
        cdef pxed_path path
        cdef bytes address = first.encode()
        cdef const uint8_t *v4
        if ":" in first or pxed_path_parse(&path, address, 0, b"") < 0 or not 0 < count <= LARGEST_RANGE:
            raise ValueError(f"no range of IPv4 addresses: {count} from {first!r}")
        v4 = pxed_path_v4(&path)
        self.first = <uint32_t>v4[0] << 24 | <uint32_t>v4[1] << 16 | <uint32_t>v4[2] << 8 | v4[3]
        self.count = count
        self.next = seed % count
        self.port = port

    cdef Group *group_for(self, pxed_blob *blob, uint16_t blksize, const pxed_path *client, uint64_t now
                          ) noexcept nogil:
        cdef Group *g = self.groups
        cdef pxed_path to
        cdef int address
        while g is not NULL:
            if g.blob == blob and g.blksize == blksize and not g.private:
                to = self._to(client, g.address)
                if pxed_path_equal(&g.to, &to):
                    return g
            g = g.after
        address = self._take(now)
        if address < 0:
            return self.private_for(blob, blksize, client, now)
        to = self._to(client, address)
        return self._add(blob, blksize, &to, address, now)

    cdef Group *private_for(self, pxed_blob *blob, uint16_t blksize, const pxed_path *client, uint64_t now
                            ) noexcept nogil:
        return self._add(blob, blksize, client, -1, now)

    cdef int _take(self, uint64_t now) noexcept nogil:
        # The number of an address that is free now; -1: none is.
        cdef uint32_t number
        cdef uint32_t _i
        for _i in range(self.count):
            number = self.next
            self.next = (self.next + 1) % self.count
            if self.free_at[number] <= now:
                return number
        return -1

    cdef pxed_path _to(self, const pxed_path *client, int number) noexcept nogil:
        # The way from where a client's datagrams arrive to the group of this number.
        cdef pxed_path path = client[0]
        pxed_path_toward(&path, self.first + <uint32_t>number, self.port)
        return path

    cdef Group *_add(self, pxed_blob *blob, uint16_t blksize, const pxed_path *to, int address, uint64_t now
                     ) noexcept nogil:
        # `address`: its number, -1: private.
        cdef Group *g = <Group *>calloc(1, sizeof(Group))
        if g is NULL:
            return NULL
        g.to = to[0]
        g.private = address < 0
        g.address = address
        g.blob = pxed_blob_ref(blob)
        g.blksize = blksize
        g.blocks = blob.size // blksize + 1
        g.block = 1
        g.told_at = now
        g.timer.owner = g
        ring_init(&g.members)
        ring_init(&g.strangers)
        rto_start(&g.rto, 0)
        if not g.private:
            self.free_at[address] = UINT64_MAX
        g.after = self.groups
        self.groups = g
        return g

    cdef void end(self, Group *g, uint64_t now) noexcept nogil:
        cdef Group **link = &self.groups
        while link[0] != g:
            link = &link[0].after
        link[0] = g.after
        if not g.private:
            self.free_at[g.address] = now + QUARANTINE if g.sent != 0 else 0
        g.after = self.ended
        self.ended = g

    cdef void reap(self) noexcept nogil:
        cdef Group *g
        while self.ended is not NULL:
            g = self.ended
            self.ended = g.after
            pxed_blob_unref(g.blob)
            free(g)

    cdef size_t public_count(self) noexcept nogil:
        cdef Group *g = self.groups
        cdef size_t found = 0
        while g is not NULL:
            found += not g.private
            g = g.after
        return found
