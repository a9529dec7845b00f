"""Which form of option 43 a client gets, and whether it may be told to boot its disk.

A table of what real firmware needs. The first row that matches counts. A site's own rows come before these, so any
machine can be overridden.
"""

from enum import StrEnum

from msgspec import Struct

from pxed.wire.iana import ArchType

from ._facts import Facts

__all__ = ["QUIRKS", "Quirk", "Vendor43", "quirk_for"]


class Vendor43(StrEnum):
    """What option 43 holds in an offer."""

    NONE = "none"  # left out: EDK2 calls that "BINL" and asks again on 4011
    DIRECT = "direct"  # discovery control with bit 3: load the named file at once
    RASPBERRY_PI = "raspberry-pi"  # the menu text that the Pi's ROM looks for


class Quirk(Struct, frozen=True):
    """One row: all conditions that are given must hold."""

    name: str
    vendor43: Vendor43
    why: str
    archs: tuple[int, ...] | None = None
    ouis: tuple[str, ...] | None = None  # beginnings of the MAC, lower case: "b8:27:eb"
    class_prefix: bytes | None = None  # beginning of option 60
    ipxe: bool | None = None
    arch_is: int | None = None  # what the client really is, when its option 93 is wrong
    again: float = 0.0  # seconds after which an offer is sent once more; 0: not at all
    local_boot: bool = True  # False = without work it gets silence, even where others are told to boot their disk

    def matches(self, facts: Facts) -> bool:
        """Does this row speak of that client?"""
        return (
            (self.ipxe is None or self.ipxe == facts.is_ipxe)
            and (self.archs is None or facts.arch in self.archs)
            and (self.ouis is None or facts.mac.startswith(self.ouis))
            and (self.class_prefix is None or facts.client_class.startswith(self.class_prefix))
        )


_RASPBERRY_PI_OUIS = ("28:cd:c1", "2c:cf:67", "88:a2:9e", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01")

QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        name="iPXE",
        vendor43=Vendor43.DIRECT,
        why="uses an offer with siaddr and file as it is; bit 3 keeps it from looking for a menu or other servers. "
        "Two seconds after its first DISCOVER it takes an address without our offer, and has nothing to boot: it asks "
        "twice until then, and at one packet lost in a hundred three machines in ten thousand hear neither answer",
        ipxe=True,
        again=0.3,
    ),
    Quirk(
        name="Raspberry Pi ROM",
        vendor43=Vendor43.RASPBERRY_PI,
        why="reports architecture 0, takes only an offer whose menu says 'Raspberry Pi Boot', and boots from it",
        archs=(ArchType.BIOS, ArchType.RASPBERRY_PI),
        ouis=_RASPBERRY_PI_OUIS,
        arch_is=ArchType.RASPBERRY_PI,
        local_boot=False,
    ),
    Quirk(
        name="BIOS PXE",
        vendor43=Vendor43.DIRECT,
        why="without tag 6 a ROM looks for boot servers by broadcast and multicast; bit 3 makes it load the file",
        archs=(ArchType.BIOS, ArchType.NEC_PC98, ArchType.ARC_X86, ArchType.LEAN_CLIENT),
    ),
    Quirk(
        name="UEFI",
        vendor43=Vendor43.NONE,
        why="much UEFI firmware has a broken PXE menu; without option 43 it asks on 4011, which all builds can do",
    ),
)


def quirk_for(facts: Facts, own: tuple[Quirk, ...] = ()) -> Quirk:
    """The first matching row, a site's `own` rows first; the last built-in row matches everything."""
    return next(quirk for quirk in (*own, *QUIRKS) if quirk.matches(facts))
