"""Who this machine is, from what firmware left in SMBIOS (/sys/class/dmi/id) and from its network card."""

from pathlib import Path

from pxed.agent.host import Host
from pxed.types import Identity

__all__ = ["identify"]


def identify(host: Host, mac: str) -> Identity:
    """The identity as firmware states it; the server removes values that mean nothing ("To be filled by O.E.M.").

    `mac` is the interface that was booted from; without it, the first wired interface that has a link.
    """
    dmi = host.sys / "class/dmi/id"
    return Identity(
        mac=mac or _first_mac(host.sys / "class/net"),
        uuid=_read(dmi / "product_uuid").lower(),
        serial=_read(dmi / "product_serial"),
        manufacturer=_read(dmi / "sys_vendor"),
        product=_read(dmi / "product_name"),
    )


def _first_mac(interfaces: Path) -> str:
    found = sorted(path for path in interfaces.glob("*") if (path / "device").exists() and _read(path / "type") == "1")
    linked = [path for path in found if _read(path / "carrier") == "1"]
    return _read(linked[0] / "address") if linked else _read(found[0] / "address") if found else ""


def _read(path: Path) -> str:
    """A value of sysfs; empty when it is missing, unreadable or (carrier of a closed interface) not to be had."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
