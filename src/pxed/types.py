"""Records that more than one layer speaks: identities, checks, jobs, timeline events, the agent's messages.

All are frozen msgspec Structs: comparable, hashable, and the JSON that the API and the agent exchange.
Times are seconds since the epoch (float) wherever they are stored or shown.
"""

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field


class Drop(Struct, frozen=True):
    """A packet or request that gets no answer. `reason` is a short fixed word and a counter's name."""

    reason: str
    detail: str = ""


class Identity(Struct, frozen=True):
    """What a machine says about itself. Normalised: MAC as 'aa:bb:cc:dd:ee:ff', UUID as 8-4-4-4-12 lower case.

    A field is empty when it is unknown; bogus SMBIOS values are removed before one is made
    (`work.identity.normalise`).
    """

    mac: str = ""
    uuid: str = ""
    serial: str = ""
    manufacturer: str = ""
    product: str = ""


class Machine(Struct, frozen=True):
    """A machine that pxed knows. `macs` holds every wired address it was seen with, oldest first."""

    id: int
    macs: tuple[str, ...]
    uuid: str = ""
    serial: str = ""
    manufacturer: str = ""
    product: str = ""
    name: str = ""
    known: bool = True  # False: only seen on the wire, never added by an operator or by policy
    first_seen: float = 0.0
    last_seen: float = 0.0


class JobState(StrEnum):
    """States of a job; the legal moves are the table in `work.jobs`."""

    PENDING = "pending"
    OFFERED = "offered"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Step(StrEnum):
    """Steps of a restore, in order. A failed job names one."""

    BOOT = "boot"  # firmware, boot program, environment: until the agent claims the job
    CLAIM = "claim"
    TARGET = "target"  # choose and check the disk
    RESTORE = "restore"
    VERIFY = "verify"
    BOOT_ENTRY = "boot-entry"
    FINISH = "finish"


Transport = Literal["auto", "cast", "http"]
"""How an image travels: "auto" is by multicast where it reaches the machine, "cast" waits for it, "http" is ranges."""


class Job(Struct, frozen=True):
    """One piece of imaging work for one machine."""

    id: int
    machine_id: int
    kind: str  # "restore"
    image: str  # image id (hex BLAKE3 root of its manifest)
    image_name: str
    state: JobState
    created: float
    changed: float
    generation: int = 1  # counts offers of this job; a token is good for one generation only
    attempts: int = 0  # claims so far
    step: str = ""
    percent: float = 0.0
    rate: float = 0.0  # bytes of disk per second
    reason: str = ""
    debug: bool = False  # a rescue shell on the machine's console when the job fails
    expires: float = 0.0  # a pending job is given up after this time; 0 = never
    transport: Transport = "auto"  # of the image's data


class Verdict(StrEnum):
    """The answer of the transaction check."""

    WORK = "work"  # boot the environment
    NO_WORK = "no-work"  # a known machine with nothing to do
    HOLD = "hold"  # boot the preboot client and let it ask again until there is work
    IGNORE = "ignore"  # a machine that policy says to leave alone


class Check(Struct, frozen=True):
    """The transaction check's answer for one machine, from memory. `reason` is a plain sentence."""

    verdict: Verdict
    reason: str
    machine_id: int | None = None
    job_id: int | None = None


class Event(Struct, frozen=True):
    """One line of a machine's timeline.

    `kind` is one of: seen, offer, boot-program, check, environment, claim, target, restore, verified,
    boot-entry, rebooted, job, cast, no-work, drop, failed. `text` is the sentence that a person reads.
    """

    time: float
    mac: str
    kind: str
    text: str
    machine_id: int | None = None
    job_id: int | None = None


# -- what moves at a moment ----------------------------------------------------------------------------------------


class Transfer(Struct, frozen=True):
    """A download that runs."""

    id: str  # the same in each snapshot
    protocol: str  # "tftp", "multicast" (RFC 2090), "mtftp" or "http"
    peer: str
    name: str
    state: str  # "sending", or what it waits for
    bytes: int  # that the client has
    size: int  # 0 while it is not known
    seconds: float  # since the request
    machine: str = ""  # its name or MAC, if known
    quiet: float = 0.0  # seconds since the last progress
    retransmits: int = 0
    blksize: int = 0
    windowsize: int = 0


class Failure(Struct, frozen=True):
    """A transfer or job that did not end well."""

    time: float
    who: str  # a MAC, an address or a job
    text: str


class Traffic(Struct, frozen=True):
    """What moves at this moment. Totals are since the server's start; two snapshots make rates."""

    time: float  # seconds of the server's monotonic clock
    tftp_bytes: int = 0  # sent, repeats included
    tftp_running: int = 0
    tftp_waiting: int = 0  # for their file, or for others to end
    tftp_retransmits: int = 0
    http_bytes: int = 0
    http_connections: int = 0
    transfers: tuple[Transfer, ...] = ()  # some of them when there are very many
    places: dict[str, int] = field(default_factory=dict)  # machines on their way to the agent
    steps: dict[str, int] = field(default_factory=dict)  # running jobs, per step
    failures: tuple[Failure, ...] = ()  # the last few, oldest first
    cast_bytes: int = 0  # of image data, sent to groups
    cast_receivers: int = 0  # in multicast sessions


# -- what the agent and the server say to each other, JSON over boot HTTP ------------------------------------------


class DiskFact(Struct, frozen=True):
    """One disk that the agent found, for the server's record."""

    path: str
    size: int  # bytes
    model: str = ""
    serial: str = ""
    transport: str = ""  # sata, nvme, usb, virtio …
    removable: bool = False
    sector_size: int = 512


class ClaimRequest(Struct, frozen=True):
    """POST /pxed/agent/claim. `agent` is a random id that the agent makes once per boot: repeating a claim is safe."""

    token: str
    agent: str
    identity: Identity
    firmware: str = ""  # "bios" or "uefi"
    disks: tuple[DiskFact, ...] = ()
    agent_version: str = ""


class ClaimAnswer(Struct, frozen=True):
    """The job, and the bearer token (`run`) for everything that the agent asks afterwards."""

    job_id: int
    kind: str
    image: str  # manifest root, hex; the agent trusts nothing else
    image_name: str
    run: str
    debug: bool = False
    report_every: float = 1.0  # seconds
    transport: Transport = "auto"  # of the image's data


class Report(Struct, frozen=True):
    """POST /pxed/agent/report, every second and at each step's beginning and end."""

    step: str
    percent: float = 0.0
    done: int = 0  # bytes of disk laid down, zero runs included
    total: int = 0
    rate: float = 0.0  # bytes of disk per second, over the last few seconds
    message: str = ""  # a sentence for the timeline; empty for plain progress


class ReportAnswer(Struct, frozen=True):
    """`stop` is a reason when the job was cancelled: the agent ends at once, without writing more."""

    stop: str = ""


class FinishRequest(Struct, frozen=True):
    """POST /pxed/agent/finish: the end of the job, exactly one state. Repeating it is safe."""

    ok: bool
    step: str
    reason: str = ""
    bytes_fetched: int = 0
    seconds: float = 0.0


class FinishAnswer(Struct, frozen=True):
    """What the agent does next: "reboot", or "shell" when debug is on and the job failed."""

    then: str = "reboot"


# -- image data by multicast: joining a session, and ranges for what the group does not bring --------------------


class CastJoin(Struct, frozen=True):
    """POST /pxed/cast/join. `receiver` is a random id of one run: joining again with it gives the same number."""

    image: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]  # manifest root, hex
    receiver: Annotated[str, Meta(pattern="^[0-9a-f]{8,64}$")]
    name: Annotated[str, Meta(max_length=64)] = ""  # of its host, to be shown where no machine is known


class CastSession(Struct, frozen=True):
    """Where an image's session is. 409 is answered where there is none and HTTP is to be taken."""

    session: str  # 8 bytes, hex: bound to the image, see `wire.cast`
    key: str  # 16 bytes, hex
    image: str
    group: str  # IPv4 address
    port: int  # UDP, of the group and of the server
    server: str  # IPv4 address that reports go to
    receiver: int  # the receiver's number in reports and orders
    symbol: int  # bytes of a source symbol
    period: float  # seconds between reports


class CastOrder(IntEnum):
    """What a receiver is told, as the wire's ORDER has it (`wire.cast`)."""

    RECEIVE = 0  # nothing is told: chunks are sent on its account
    HTTP = 1
    LISTEN = 2
    CLOSED = 3  # the session: join again
    UNKNOWN = 4  # the receiver: join again


class CastWhy(IntEnum):
    """Why it is told so, as the wire's ORDER has it."""

    NONE = 0
    DISK = 1
    PORT = 2
    LOSS = 3
    FEW = 4
    CLOSING = 5
    UNKNOWN = 6
    STORE = 7  # the sender cannot read what is left


class ImageFacts(Struct, frozen=True):
    """GET /pxed/image/NAME-OR-ID: what there is to know before the manifest."""

    id: str
    name: str
    size: int  # bytes of the disk
    sector: int
    data_size: int  # bytes of the stored frames, all that can travel
    stored_chunks: int


MOST_RANGES = 1024
MOST_RANGE_BYTES = 64 << 20


class Ranges(Struct, frozen=True):
    """POST /pxed/image/ID/data: stretches [start, stop) of the image's data, ascending, answered one after another.

    None is empty, none overlaps another, and they have at most MOST_RANGE_BYTES in all.
    """

    ranges: Annotated[tuple[tuple[int, int], ...], Meta(min_length=1, max_length=MOST_RANGES)]


# -- multicast sessions, as administrators see them ------------------------------------------------------------------


class SessionReceiver(Struct, frozen=True):
    """A receiver of a multicast session."""

    number: int
    name: str  # its machine's, or its host's, or its address
    address: str
    state: str  # joined, receiving, listening, http, done, dead or left
    reason: str = ""  # why it was moved, in words
    percent: float = 0.0
    rate: float = 0.0  # bytes of image data that reach it, per second
    loss: float = 0.0  # share of the datagrams, lately
    queue: float = 0.0  # how full its disk's queue is, 0 to 1
    disk_rate: float = 0.0  # bytes per second
    wrong: int = 0  # chunks whose bytes were not what they must be
    quiet: float | None = None  # seconds since it reported
    seconds_left: float | None = None  # None: nobody can know
    late: bool = False  # it will miss the fleet's finishing time
    machine_id: int | None = None
    job_id: int | None = None


class ImageSession(Struct, frozen=True):
    """A multicast session. Rates are bytes of image data per second."""

    id: str
    image: str
    image_name: str
    interface: str
    group: str
    port: int
    state: str  # "waiting" for its start, "sending", or "ended"
    created: float
    receivers: tuple[SessionReceiver, ...] = ()
    waits: str = ""  # for what, in words
    begun: float = 0.0
    ended: float = 0.0
    rate: float = 0.0
    cap: float = 0.0
    sent: int = 0  # bytes
    size: int = 0  # bytes of the image that travel
    repaired: float = 0.0  # share of what was sent that were repairs
    seconds_left: float | None = None  # until the fleet is done; None: nobody can know yet
    trouble: str = ""
