"""What a machine of each row does from power-on to its kernel. Sans-I/O."""

from pxed.bench.firmware import (
    GRUB_CONFIG,
    GRUB_TFTP,
    IPXE_DHCP,
    SHIM_ASKS,
    SHIM_TFTP,
    Stage,
)
from pxed.bench.fleet import script
from pxed.bench.fleet.dhcp import arch_of, configure
from pxed.bench.fleet.machine import Lost, Machine, NoWork, Program
from pxed.bench.fleet.tftp import Refused, probe, read

__all__ = ["boot"]


_OFF = 10.0  # seconds until somebody has switched a lost machine off and on


def boot(machine: Machine) -> Program[None]:
    """The way of its row, again from power-on when the machine was lost and may be switched on again."""
    for left in reversed(range(machine.restarts + 1)):
        try:
            yield from _once(machine)
            return
        except Lost:
            if not left:
                raise
            yield from machine.sleep(_OFF)


def _once(machine: Machine) -> Program[None]:
    row = machine.row
    found = yield from configure(machine, row.dhcp, row.arch, "")
    machine.server = found.server
    if row.is_ipxe:
        yield from _ipxe(machine, found.file)
        return
    if row.probe is not None:
        with machine.step("size probe"):
            yield from probe(machine, found.file, row.tftp, row.probe)
    with machine.step("boot program"):
        yield from read(machine, found.file, row.tftp)
    if row.loads is Stage.SHIM:
        yield from _shim(machine, found.file)
        return
    arch = arch_of(row.arch)
    found = yield from configure(machine, IPXE_DHCP[arch], arch, "iPXE: ")
    machine.server = found.server
    yield from _ipxe(machine, found.file)


def _ipxe(machine: Machine, file: str) -> Program[None]:
    """Run the script that the offer names, a URL or a name on the server."""
    url = file if "://" in file else f"tftp://{machine.server}/{file}"
    body = yield from script.load(machine, url)
    yield from script.run(machine, body)


def _shim(machine: Machine, file: str) -> Program[None]:
    """shim's second stage lies beside it; GRUB reads its configuration, and what that names."""
    folder = file.rpartition("/")[0]
    for name in SHIM_ASKS:
        with machine.step(name):
            try:
                yield from read(machine, f"{folder}/{name}".lstrip("/"), SHIM_TFTP)
            except Refused:
                if name == SHIM_ASKS[-1]:
                    raise
    with machine.step("grub.cfg"):
        config = yield from read(machine, GRUB_CONFIG, GRUB_TFTP)
    for step, place in _places(config):
        with machine.step(step):
            if place.startswith("http://"):
                yield from machine.fetch(place)
            else:
                yield from read(machine, place, GRUB_TFTP)


def _places(config: bytes) -> list[tuple[str, str]]:
    """Steps and what to fetch for them: a name on the TFTP server or an http URL, from `(http,ADDRESS)/name`."""
    found = []
    for line in config.decode(errors="replace").splitlines():
        command, *words = line.split()[:2] or [""]
        if command not in ("linux", "initrd") or not words:
            continue
        place = words[0]
        if place.startswith("(http,"):
            address, _, name = place.removeprefix("(http,").partition(")")
            place = f"http://{address}{name}"
        found.append(("kernel" if command == "linux" else "initramfs", place.removeprefix("(tftp)").lstrip("/")))
    if not found:
        raise NoWork("grub.cfg names no kernel") if config else Lost("grub.cfg is empty")
    return found
