"""Python records of a TftpSender's events."""

from pxed._ext.linux_net cimport pxed_path
from pxed._ext.sender cimport Event, Sender

cdef str address_text(const pxed_path *path, int which)


cdef class Ledger:
    # Turns events into Python records, and remembers what the requests that run were for.
    cdef dict names
    cdef Sender sender             # makes the records of EVENT_OWN
    cdef list take(self, Event *first)
    cdef object _finished(self, Event *event, tuple peer, bytes data)
    cdef object _listing(self, Event *event)
