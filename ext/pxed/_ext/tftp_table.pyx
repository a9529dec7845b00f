"""The table of a TFTP sender's transfers. Grows by need; sans-I/O and without the GIL."""

from libc.stdlib cimport calloc, free, realloc

from pxed._ext.linux_net cimport pxed_path_equal, pxed_path_hash

cimport cython

cdef enum:
    FIRST_BUCKETS = 256
    MORE_SLOTS = 1024


@cython.final
@cython.no_gc
cdef class Table:
    """Does not own the transfers: whoever removes one frees it. `seed` should be random (it keys the hash table)."""

    def __cinit__(self, uint64_t seed=0):
        self.seed = seed
        self.buckets = <Transfer **>calloc(FIRST_BUCKETS, sizeof(Transfer *))
        if self.buckets is NULL:
            raise MemoryError
        self.bucket_mask = FIRST_BUCKETS - 1

    def __dealloc__(self):
        free(self.buckets)
        free(self.slots)
        free(self.free_slots)

    cdef Transfer *find(self, const pxed_path *path) noexcept nogil:
        cdef Transfer *t = self.first_of(path)
        while t is not NULL and not pxed_path_equal(&t.path, path):
            t = t.chain
        return t

    cdef Transfer *first_of(self, const pxed_path *path) noexcept nogil:
        return self.buckets[pxed_path_hash(path, self.seed) & self.bucket_mask]

    cdef Transfer *by_id(self, uint64_t id) noexcept nogil:
        cdef size_t slot = id & ((1 << SLOT_BITS) - 1)
        cdef Transfer *t = self.slots[slot] if slot < self.slot_count else NULL
        return t if t is not NULL and t.id == id else NULL

    cdef Transfer *add(self, const pxed_path *path) noexcept nogil:
        cdef Transfer *t
        cdef size_t bucket
        if not self._grow():
            return NULL
        t = <Transfer *>calloc(1, sizeof(Transfer))
        if t is NULL:
            return NULL
        self.free_count -= 1
        self.serial += 1
        t.id = self.serial << SLOT_BITS | self.free_slots[self.free_count]
        self.slots[self.free_slots[self.free_count]] = t
        t.path = path[0]
        t.timer.owner = t
        bucket = pxed_path_hash(path, self.seed) & self.bucket_mask
        t.chain = self.buckets[bucket]
        self.buckets[bucket] = t
        self.count += 1
        return t

    cdef void remove(self, Transfer *t) noexcept nogil:
        cdef Transfer **link = &self.buckets[pxed_path_hash(&t.path, self.seed) & self.bucket_mask]
        while link[0] != t:
            link = &link[0].chain
        link[0] = t.chain
        self.slots[t.id & ((1 << SLOT_BITS) - 1)] = NULL
        self.free_slots[self.free_count] = <uint32_t>(t.id & ((1 << SLOT_BITS) - 1))
        self.free_count += 1
        self.count -= 1

    cdef bint _grow(self) noexcept nogil:
        # Room for one more transfer; False without memory. Twice as many buckets when they get full.
        cdef size_t slots = self.slot_count + MORE_SLOTS
        cdef size_t size = (self.bucket_mask + 1) * 2
        cdef Transfer **fresh
        cdef Transfer *t
        cdef uint32_t *numbers
        cdef size_t i, at
        if self.free_count == 0:
            fresh = <Transfer **>realloc(self.slots, slots * sizeof(Transfer *))
            if fresh is NULL:
                return False
            self.slots = fresh
            numbers = <uint32_t *>realloc(self.free_slots, slots * sizeof(uint32_t))
            if numbers is NULL:
                return False
            self.free_slots = numbers
            for i in range(self.slot_count, slots):
                self.slots[i] = NULL
                self.free_slots[self.free_count] = <uint32_t>(slots - 1 - self.free_count)
                self.free_count += 1
            self.slot_count = slots
        if self.count <= self.bucket_mask:
            return True
        fresh = <Transfer **>calloc(size, sizeof(Transfer *))
        if fresh is NULL:
            return True  # longer chains still work
        for i in range(self.bucket_mask + 1):
            while self.buckets[i] is not NULL:
                t = self.buckets[i]
                self.buckets[i] = t.chain
                at = pxed_path_hash(&t.path, self.seed) & (size - 1)
                t.chain = fresh[at]
                fresh[at] = t
        free(self.buckets)
        self.buckets = fresh
        self.bucket_mask = size - 1
        return True
