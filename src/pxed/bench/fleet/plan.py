"""Which machines a fleet has, what they load, and where: the same for virtual time and for a lab."""

import math
import random
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from pxed.bench.firmware import GRUB_CONFIG, ROWS, SHIM_ASKS, Row, row
from pxed.bench.fleet.boot import boot
from pxed.bench.fleet.machine import Machine
from pxed.bench.fleet.server import PROGRAMS
from pxed.boot import scripts
from pxed.errors import OperatorError
from pxed.types import Identity
from pxed.wire.iana import ArchType

__all__ = ["MIX", "Plan", "contents", "identity", "machines", "parse_mix"]

MIX = "uefi=60,bios=25,ipxe=10,shim=5"
_KERNEL_SHARE = 5  # the kernel is a fifth of what a machine loads, the initramfs the rest


class Plan(Struct, frozen=True):
    """A fleet. Sizes in bytes, rate in bits per second (0: without limit), times in seconds."""

    machines: int
    size: int
    """Of kernel and initramfs together."""
    program: int
    """Of each boot program."""
    loss: float = 0.0
    """Share of datagrams, each way."""
    rate: float = 0.0
    queue: int | None = None
    """The rate is that of a port behind the server, whose queue drops what exceeds so many bytes; None: of its own."""
    pace: float = 0.0
    """What pxed's TFTP may send, bits per second: [tftp] rate of its configuration; 0: no limit."""
    spread: float = 0.0
    """Power-on is spread evenly over this time, in an order by chance."""
    mix: Mapping[str, float] = field(default_factory=lambda: parse_mix(MIX))
    seed: int = 1
    restarts: int = 0
    """How often a lost machine is switched on again."""
    bulk: str = "http"
    """How GRUB loads kernel and initramfs: "http" or "tftp" (1024 bytes at a time). iPXE has HTTP."""

    def needed(self, one: Row) -> int:
        """Bytes of files that a machine of this row loads."""
        return self.size + self.program * (0 if one.is_ipxe else 2 if one.loads == "shim" else 1)


def parse_mix(text: str) -> dict[str, float]:
    """'uefi=60,bios=40' as shares that add up to 1; a name without a number counts 1. Raises OperatorError."""
    names = [one.name for one in ROWS]
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            share = float(number or 1)
        except ValueError:
            share = -1.0
        if name not in names or not 0 <= share < math.inf:
            raise OperatorError(f"{part.strip()!r} is no kind of machine and its share; there are {', '.join(names)}.")
        shares[name] = shares.get(name, 0.0) + share
    total = sum(shares.values())
    if not total:
        raise OperatorError("A fleet needs at least one kind of machine with a share above 0.")
    return {name: share / total for name, share in shares.items()}


def identity(number: int) -> Identity:
    """Machine `number`, counted from 0: a MAC and a UUID of its own."""
    return Identity(
        mac="52:54:00:" + number.to_bytes(3, "big").hex(":"), uuid=f"9c5b94b1-35ad-49bb-b118-{number:012x}",
        serial=f"FLEET-{number:05}", manufacturer="pxed", product="virtual machine",
    )  # fmt: skip


def contents(plan: Plan, address: str) -> dict[str, bytes]:
    """The files of the site, by name: bytes that do not repeat, and are the same in every run."""
    kernel = plan.size // _KERNEL_SHARE
    sizes = {scripts.KERNEL: kernel, scripts.INITRAMFS: plan.size - kernel}
    sizes |= dict.fromkeys(PROGRAMS.values(), plan.program)
    folder = PROGRAMS[ArchType.EFI_BC].rpartition("/")[0]
    sizes[f"{folder}/{SHIM_ASKS[-1]}"] = plan.program
    files = {name: _bytes(name, size) for name, size in sizes.items()}
    place = f"(http,{address})/" if plan.bulk == "http" else ""
    files[GRUB_CONFIG] = f"linux {place}{scripts.KERNEL} quiet\ninitrd {place}{scripts.INITRAMFS}\n".encode()
    return files


def _bytes(name: str, size: int) -> bytes:
    source, piece = random.Random(name), 1 << 20
    return b"".join(source.randbytes(min(piece, size - at)) for at in range(0, size, piece))


def machines(plan: Plan, known: Mapping[str, bytes]) -> tuple[list[Machine], list[float]]:
    """The machines, and when each is powered on."""
    chance = random.Random(plan.seed)
    rows = _rows(plan)
    chance.shuffle(rows)
    times = [chance.uniform(0.0, plan.spread) for _ in rows] if plan.spread else [0.0] * len(rows)
    made = [
        Machine(n, one, identity(n), known, boot, seed=plan.seed, restarts=plan.restarts) for n, one in enumerate(rows)
    ]
    return made, times


def _rows(plan: Plan) -> list[Row]:
    """As many of each kind as its share says; what rounding leaves goes to the first."""
    counts = {name: int(plan.machines * share) for name, share in plan.mix.items()}
    rest: Sequence[str] = sorted(counts, key=lambda name: counts[name] - plan.machines * plan.mix[name])
    for name in rest[: plan.machines - sum(counts.values())]:
        counts[name] += 1
    return [row(name) for name, count in counts.items() for _ in range(count)]
