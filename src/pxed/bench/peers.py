"""The servers that pxed is measured against, as Debian packages them.

One that is installed is used as it is. Otherwise its package is downloaded and unpacked into a cache directory, never
installed: the packages would start daemons, and two of them exclude each other.
"""

import gzip
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from msgspec import Struct

from pxed.errors import OperatorError

__all__ = ["MULTICAST", "PEERS", "Package", "Peer", "Place", "Program", "find", "find_package"]


class Place(Struct, frozen=True):
    """Where a peer serves, and whom."""

    address: str
    root: Path  # the files that it serves
    clients: int  # at once
    work: Path  # for files of its own
    proxied: tuple[str, ...] = ()  # networks whose PXE clients are to be answered, "10.0.0.0/8"; none: no DHCP
    multicast: bool = False  # for TFTP clients that ask for it (RFC 2090)


class Package(Struct, frozen=True):
    """What Debian calls a program."""

    package: str
    program: str
    libraries: tuple[str, ...]  # packages with shared libraries that a minimal system lacks
    version: tuple[str, ...]  # arguments that make it say its version; none: its package knows


class Peer(Package, frozen=True):
    """How a peer is found and started."""

    command: Callable[[Place], list[str]]  # its arguments


class Program(Struct, frozen=True):
    """A peer that can be started."""

    command: list[str]  # the program alone
    version: str
    environment: dict[str, str]


def _dnsmasq(place: Place) -> list[str]:
    ranges = [IPv4Network(network) for network in place.proxied]
    # What pxed offers by default: a program for BIOS, one for UEFI, and the next step for iPXE.
    proxy = [
        *(f"--dhcp-range={one.network_address},proxy,{one.netmask}" for one in ranges),
        "--dhcp-match=set:ipxe,175", "--pxe-service=tag:ipxe,x86PC,iPXE,boot.ipxe",
        "--pxe-service=tag:!ipxe,x86PC,PXE,undionly.kpxe", "--pxe-service=tag:!ipxe,X86-64_EFI,PXE,snponly.efi",
        "--dhcp-leasefile=/dev/null", "--quiet-dhcp",
    ]  # fmt: skip
    return [
        "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--port=0", "--log-facility=-",
        "--bind-interfaces", f"--listen-address={place.address}", "--enable-tftp", f"--tftp-root={place.root}",
        f"--tftp-max={2 * place.clients + 50}", "--quiet-tftp", *(proxy if ranges else ()),
    ]  # fmt: skip


def _tftpd_hpa(place: Place) -> list[str]:
    return ["-L", "-4", "-a", f"{place.address}:69", "-u", "root", "-s", str(place.root)]


def _atftpd(place: Place) -> list[str]:
    # Groups beside those that pxed has by default. Its DATA leaves by the route to them, whatever its address is.
    multicast = ["--mcast-addr", "239.255.79.0-255"] if place.multicast else ["--no-multicast"]
    return [
        "--daemon", "--no-fork", "--user", "root", "--group", "root", "--bind-address", place.address, "--port", "69",
        "--maxthread", str(2 * place.clients + 50), *multicast, "--verbose=3", "--logfile", "/dev/null",
        str(place.root),
    ]  # fmt: skip


def _nginx(place: Place) -> list[str]:
    """Two processes, one of them idle: the worker does all the work. As Debian configures it, without the log."""
    temporary = "".join(
        f"{kind}_temp_path {place.work}/nginx; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    connections = 2 * place.clients + 50
    config = place.work / "nginx.conf"
    config.write_text(
        "user root; daemon off; worker_processes 1; error_log stderr error;\n"
        f"pid {place.work}/nginx.pid; worker_rlimit_nofile {2 * connections};\n"
        f"events {{ worker_connections {connections}; }}\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; {temporary}\n"
        f"  server {{ listen {place.address}:80; root {place.root}; }} }}\n"
    )
    return ["-e", "stderr", "-p", str(place.work), "-c", str(config)]


PEERS = {
    "dnsmasq": Peer("dnsmasq-base", "dnsmasq", (), ("--version",), _dnsmasq),
    "tftpd-hpa": Peer("tftpd-hpa", "in.tftpd", ("libwrap0",), ("-V",), _tftpd_hpa),
    "atftpd": Peer("atftpd", "atftpd", ("libwrap0",), ("--version",), _atftpd),
    "nginx": Peer("nginx", "nginx", (), ("-v",), _nginx),
}


# Senders to many at once, each with its receiver.
MULTICAST = {
    "udpcast": (Package("udpcast", "udp-sender", (), ()), Package("udpcast", "udp-receiver", (), ())),
    "uftp": (Package("uftp", "uftp", (), ()), Package("uftp", "uftpd", (), ())),
}


def find(name: str, cache: Path | None = None, note: Callable[[str], None] = lambda text: None) -> Program:
    """A peer's program, downloaded into `cache` (the user's cache directory by default) where it is not installed.

    Raises OperatorError when it can be had neither way.
    """
    return find_package(PEERS[name], name, cache, note)


def find_package(
    peer: Package, name: str, cache: Path | None = None, note: Callable[[str], None] = lambda text: None
) -> Program:
    """The same for any package; `name`: of its place in the cache."""
    installed = shutil.which(peer.program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if installed:
        return Program([installed], _version(peer, [installed], {}, Path("/")), {})
    unpacked = (cache or _cache()) / name
    if not unpacked.exists():
        note(f"{peer.package} is not installed; unpacking Debian's package into {unpacked} (nothing is started)")
        _unpack(peer, unpacked)
    places = [unpacked / "usr" / directory / peer.program for directory in ("sbin", "bin")]
    program = str(next((place for place in places if place.exists()), places[0]))
    libraries = [str(path.parent) for path in unpacked.rglob("*.so.*")]
    environment = {"LD_LIBRARY_PATH": ":".join(sorted(set(libraries)))} if libraries else {}
    return Program([program], _version(peer, [program], environment, unpacked), environment)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pxed/peers"


def _unpack(peer: Package, into: Path) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        try:
            _run(["apt-get", "-q", "download", peer.package, *peer.libraries], work)
            for package in Path(work).glob("*.deb"):
                _run(["dpkg-deb", "-x", package.name, "tree"], work)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
            raise OperatorError(
                f"{peer.program} is not installed and Debian's package {peer.package} could not be downloaded "
                f"({reason}). Install {peer.package}, or leave it out."
            ) from error
        Path(work, "tree").rename(into)


def _run(command: list[str], cwd: str) -> None:
    subprocess.run(
        command, cwd=cwd, check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def _version(peer: Package, program: list[str], environment: dict[str, str], root: Path) -> str:
    """The first number with a dot in what the program says about itself, or the version in its package's changelog."""
    if not peer.version:
        for log in (root / "usr/share/doc" / peer.package).glob("changelog.Debian*.gz"):
            first = gzip.decompress(log.read_bytes()).decode(errors="replace").partition("\n")[0]
            if number := re.search(r"\(([^)]+)\)", first):
                return number[1]
        return "?"
    done = subprocess.run(
        [*program, *peer.version], env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    number = re.search(r"\d+\.\d[\w.]*", done.stdout + done.stderr)
    return number[0] if number else "?"
