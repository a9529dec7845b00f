"""Who of a crowd is served, who waits, who is kept alive meanwhile. The rules are in tftp_admission.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.linux_net cimport pxed_path
from pxed._ext.ring cimport Link
from pxed._ext.tftp cimport TftpRequest

cdef enum Standing:
    STANDING_FREE        # needs no place (yet)
    STANDING_WAITING     # for its first answer
    STANDING_KEPT        # answered; one turn per KEEP_ALIVE until there is a place
    STANDING_SERVED      # has a place


# Part of what wants a place; all zero at first.
cdef struct Turn:
    Link link            # of the ring of its standing
    uint64_t since       # ns; in this standing
    uint8_t standing
    bint repeated        # it had to ask again
    bint proven          # it has answered: its address is no forgery


cdef enum:
    STRANGERS = 4096
    TURNED_AWAY = 65536  # 256 KiB: at 10,000 forged requests a second, a client is remembered for some 6 s

cdef class Admission:
    cdef size_t places
    cdef size_t served                 # have a place
    cdef size_t waiting                # for their first answer
    cdef size_t kept
    cdef Link unproven                 # served, not heard from yet; the longest first
    cdef Link started                  # kept and heard: next
    cdef Link repeaters                # waiting, and had to ask again: then these
    cdef Link newcomers                # waiting
    cdef uint64_t admitted_at_once
    cdef uint64_t admitted_later
    cdef uint64_t impatient            # answered before there was a place
    cdef uint64_t waited               # ns, of all that got a place later, since they asked
    cdef uint16_t strangers[STRANGERS]
    cdef uint32_t turned_away[TURNED_AWAY]
    cdef uint64_t seed

    # It wants a place: True when it has one now.
    cdef bint enter(self, Turn *turn, void *owner, uint64_t now) noexcept nogil
    # It asked again.
    cdef void repeat(self, Turn *turn) noexcept nogil
    # Its patience is over: it is answered without a place.
    cdef void keep(self, Turn *turn, uint64_t now) noexcept nogil
    # It has answered.
    cdef void prove(self, Turn *turn) noexcept nogil
    cdef void leave(self, Turn *turn) noexcept nogil
    # The owner of the turn that gets a free place now; NULL: no place, or nobody who waits.
    cdef void *next(self, uint64_t now) noexcept nogil
    # The owner of the turn that has waited longest of too many, for `keep`; else NULL.
    cdef void *overflow(self) noexcept nogil

    # Whether one more request may wait for the control plane, when `asked` wait already.
    cdef bint may_ask(self, size_t asked, const pxed_path *path, uint64_t request_hash) noexcept nogil

    # Requests of this client's address that were answered, and nothing came back.
    cdef uint16_t *at(self, const pxed_path *path) noexcept nogil
    cdef dict statistics(self)
    cdef void _serve(self, Turn *turn, void *owner) noexcept nogil
    cdef void _keep(self, Turn *turn) noexcept nogil
    cdef Turn *_first(self) noexcept nogil


cdef enum:
    MANY_STRANGERS = 64          # of one address: from then on nothing is sent to it a second time
    TOO_MANY_STRANGERS = 1024    # of one address: more get no answer at all

cdef uint64_t KEEP_ALIVE
cdef uint64_t first_packet_patience(const TftpRequest *request) noexcept nogil
