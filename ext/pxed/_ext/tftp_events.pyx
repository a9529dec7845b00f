"""What a TftpSender tells the control plane, as Python records."""

from typing import NamedTuple

from pxed._ext.tftp import parse

from libc.stdlib cimport free

from pxed._ext.linux_net cimport INET6_ADDRSTRLEN, pxed_path, pxed_path_port, pxed_path_text
from pxed._ext.sender cimport EVENT_REQUEST, Event

cimport cython

# In the order of the enumeration Outcome (tftp_sender.pxd).
OUTCOME_NAMES = (
    "ok", "probe", "closed", "client-error", "timeout", "no-answer", "refused", "superseded", "abandoned",
    "evicted",
)


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


@cython.final
cdef class Ledger:
    """Makes Python records of events; knows which requests run. For one thread."""

    def __cinit__(self):
        self.requests = {}

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
                self.requests[event.id] = record
            else:
                asked = self.requests.pop(event.id, None)
                error = f"{event.error} {data.decode('utf-8', 'replace')}".rstrip() if event.error or data else ""
                record = Finished(
                    event.id, peer, asked.name if asked is not None else "", event.bytes, event.blocks,
                    event.retransmits, event.duration / 1e9, OUTCOME_NAMES[event.outcome], error,
                )
            records.append(record)
            after = event.next
            free(event)
            event = after
        return records
