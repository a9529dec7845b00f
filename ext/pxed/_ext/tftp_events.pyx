"""What a TftpSender tells the control plane, as Python records."""

from sys import intern
from typing import NamedTuple

from pxed._ext.tftp import parse
from pxed._ext.tftp_figures import OUTCOME_NAMES, STATE_NAMES

from libc.stdlib cimport free

from pxed._ext.linux_net cimport INET6_ADDRSTRLEN, pxed_path, pxed_path_port, pxed_path_text
from pxed._ext.sender cimport EVENT_LISTING, EVENT_OWN, EVENT_REQUEST, Event, Sender
from pxed._ext.tftp_figures cimport Running

cimport cython


cdef str address_text(const pxed_path *path, int which):
    """The remote (0) or our own (1) address of a path; "" when it is unspecified."""
    cdef char text[INET6_ADDRSTRLEN]
    pxed_path_text(path, which, text)
    address = text.decode()
    return "" if address in ("0.0.0.0", "::") else address


class Request(NamedTuple):
    """Somebody asks for a file. Answer with `send` or `refuse`; until then it waits, and repeats are merged."""

    id: int
    peer: tuple[str, int]
    local_address: str  # of ours that was asked; "" when unknown
    name: str
    mode: str  # "octet" or "netascii"
    options: dict[str, int]  # as asked


class Finished(NamedTuple):
    """A transfer ended."""

    id: int
    peer: tuple[str, int]
    name: str
    bytes: int  # of the file that the client acknowledged
    blocks: int
    retransmits: int  # datagrams beyond the first sending of each
    seconds: float  # since the request
    outcome: str  # one of OUTCOME_NAMES
    error: str  # "" or the ERROR's code and text, ours or the client's
    size: int  # bytes of the file; 0 when there was none
    blksize: int
    windowsize: int  # 1: lock-step
    burst: int  # datagrams that the client takes at once, as far as is known; of a window
    answered: float | None  # seconds from the request to the first acknowledgement


class Progress(NamedTuple):
    """A transfer that runs, as it stood when the engine was asked."""

    id: int
    peer: tuple[str, int]
    name: str
    state: str  # one of STATE_NAMES
    bytes: int  # acknowledged
    size: int  # of the file; 0 while it is not known
    seconds: float  # since the request
    quiet: float  # seconds since the last progress
    retransmits: int
    rtt: float | None  # seconds, smoothed
    blksize: int
    windowsize: int
    burst: int


class Listing(NamedTuple):
    """Some of what runs: the answer to one `ask_listing`."""

    transfers: list[Progress]
    after: int  # where the next `ask_listing` goes on; 0 when this was the end


@cython.final
cdef class Ledger:
    """Makes Python records of events; knows which requests run. For one thread."""

    def __cinit__(self, Sender sender=None):
        self.names = {}
        self.sender = sender

    cdef list take(self, Event *first):
        """The records of a list of events, which is freed."""
        cdef Event *event = first
        cdef Event *after
        records = []
        while event is not NULL:
            peer = (address_text(&event.path, 0), pxed_path_port(&event.path))
            data = event.data[:event.size]
            if event.kind == EVENT_REQUEST:
                request = parse(data)
                record = Request(
                    event.id, peer, address_text(&event.path, 1), request.name, request.mode, request.options
                )
                self.names[event.id] = intern(request.name)
            elif event.kind == EVENT_LISTING:
                record = self._listing(event)
            elif event.kind == EVENT_OWN:
                record = self.sender.record(event)
            else:
                record = self._finished(event, peer, data)
            records.append(record)
            after = event.next
            free(event)
            event = after
        return records

    cdef object _finished(self, Event *event, tuple peer, bytes data):
        error = f"{event.error} {data.decode('utf-8', 'replace')}".rstrip() if event.error or data else ""
        return Finished(
            event.id, peer, self.names.pop(event.id, ""), event.bytes, event.blocks,
            event.retransmits, event.duration / 1e9, OUTCOME_NAMES[event.outcome], error,
            event.whole, event.blksize, event.windowsize, event.burst,
            event.answered / 1e9 if event.answered else None,
        )

    cdef object _listing(self, Event *event):
        # Names were told by the requests, which came before.
        cdef Running *running = <Running *>event.data
        cdef size_t i
        transfers = []
        for i in range(event.size // sizeof(Running)):
            name = self.names.get(running[i].id)
            if name is not None:
                peer = (address_text(&running[i].path, 0), pxed_path_port(&running[i].path))
                transfers.append(Progress(
                    running[i].id, peer, name, STATE_NAMES[running[i].state], running[i].bytes,
                    running[i].whole, running[i].age / 1e9, running[i].quiet / 1e9, running[i].retransmits,
                    running[i].srtt / 1e9 if running[i].srtt else None, running[i].blksize, running[i].windowsize,
                    running[i].burst,
                ))
        return Listing(transfers, event.id)
