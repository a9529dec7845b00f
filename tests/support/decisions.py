"""From a request's bytes to the decision, and the reply that is wanted, written with the reference encoder."""

from pxed import boot
from pxed.boot import Received, Reply, Site
from pxed.config import Config, Dhcp, Mtftp, Server, Tftp
from pxed.types import Check, Drop, Verdict
from pxed.wire import dhcp

from . import boot_clients as firmware
from . import dhcp_reference as reference

US = "10.78.0.1"
US_RAW = b"\x0a\x4e\0\1"
CLIENT = "10.78.0.50"
SITE = Site.from_config(Config(server=Server(address=US), tftp=Tftp(root="/srv/tftp"), dhcp=Dhcp()))


def mtftp_site(*machines: str, archs: tuple[int, ...] = (), unmarked: tuple[str, ...] = ()) -> Site:
    """The same with MTFTP, which these machines' firmware is told of."""
    marks = {**dict.fromkeys(machines, True), **dict.fromkeys(unmarked, False)}
    mtftp = Mtftp(enabled=True, machines=marks, architectures=archs)
    return Site.from_config(Config(server=Server(address=US), tftp=Tftp(root="/srv/tftp"), mtftp=mtftp))


WORK = Check(Verdict.WORK, "job 1 restores 'lab'", machine_id=1, job_id=1)
NO_WORK = Check(Verdict.NO_WORK, "no job for this machine", machine_id=1)
HOLD = Check(Verdict.HOLD, "held for an operator")
IGNORE = Check(Verdict.IGNORE, "unknown machine")

BROADCAST = Received(67, ("0.0.0.0", 68), US, "eth0")
EVERYBODY = ("255.255.255.255", 68)
DIRECT = b"\6\1\x08\xff"  # option 43: discovery control, bit 3


def direct(port: int = 4011, source_port: int = 4011, source: str = CLIENT) -> Received:
    """A request sent to our own address."""
    return Received(port, (source, source_port), US, "eth0", broadcast=False)


def answer(
    data: bytes, received: Received = BROADCAST, check: Check = WORK, site: Site = SITE, **known: frozenset[str]
) -> Reply | Drop:
    """decode -> facts -> decide, as the DHCP service does it."""
    packet = dhcp.decode(data)
    if isinstance(packet, Drop):
        return packet
    found = boot.facts(packet, received)
    return found if isinstance(found, Drop) else boot.decide(found, check, site, **known)


def reply(
    data: bytes, received: Received = BROADCAST, check: Check = WORK, site: Site = SITE, **known: frozenset[str]
) -> Reply:
    """The same where a reply is expected."""
    decision = answer(data, received, check, site, **known)
    assert isinstance(decision, Reply), decision
    return decision


def dropped(data: bytes, received: Received = BROADCAST, check: Check = WORK, site: Site = SITE) -> str:
    """The same where silence is expected: its reason."""
    decision = answer(data, received, check, site)
    assert isinstance(decision, Drop), decision
    return decision.reason


def wanted(
    kind: int,
    file: bytes = b"",
    *,
    vendor: bytes = b"",
    client_class: bytes = b"PXEClient",
    guid: bytes | None = firmware.GUID,
    extra: tuple[tuple[int, bytes], ...] = (),
    siaddr: str = US,
    us: bytes = US_RAW,
    **header: object,
) -> bytes:
    """A whole reply: options 53, 54, 60, 97, 43, 67 with its PAD, then `extra`."""
    options = [(53, bytes((kind,))), (54, us), (60, client_class)]
    options += [(97, guid)] if guid is not None else []
    options += [(43, vendor)] if vendor else []
    options += [(67, file), (0, b"")] if file else []
    header.setdefault("chaddr", firmware.MAC)
    return reference.message(op=2, siaddr=siaddr, file=file, options=[*options, *extra], **header)  # type: ignore[arg-type]
