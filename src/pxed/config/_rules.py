"""What a key's type cannot say about its value."""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ._mtftp import MtftpFile
from ._text import shown

# Group addresses that the sender keeps a record of.
LARGEST_GROUPS = 1024
# The address of a unix socket holds 107 bytes of path (unix(7)); the server needs a few for a name beside it.
SOCKET_PATH_BYTES = 100
# Of a range for transfers: one for each of the most threads that there may be.
FEWEST_PORTS = 64
# Receivers of a multicast session: the sender keeps a record of each.
MOST_RECEIVERS = 4000


class Rule(NamedTuple):
    """What a key's value must be, and a function that yields what it is instead, once for each mistake."""

    expected: str
    broken: Callable[[Any], Iterable[str]]


def _bad_addresses(value: str | list[str]) -> Iterator[str]:
    addresses = [value] if isinstance(value, str) else value
    if not addresses:
        yield "an empty list"
    parsed: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for address in addresses:
        try:
            parsed.append(ipaddress.ip_address(address))
        except ValueError:
            yield shown(address)
            continue
        if wrong := _unfit(parsed[-1]):
            yield f"{shown(address)}, which {wrong}"
    if parsed and len(parsed) == len(addresses) and all(address.version == 6 for address in parsed):
        yield "IPv6 alone: DHCP needs an IPv4 address"
    yield from _twice(map(str, parsed))


def _unfit(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Why clients cannot reach a server under an address, '' when they can."""
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return "is no host's address"
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_link_local:
            return "is link-local: no URL can name it, take a global or unique local one"
        if address.scope_id:
            return "names an interface: the address alone is enough"
        if address.packed[:10] == bytes(10) and not address.is_loopback:  # ::ffff:10.78.0.1, ::10.78.0.1
            return "is no IPv6 address of a host: write IPv4 addresses as such"
    return ""


def _bad_groups(value: str) -> Iterator[str]:
    try:
        network = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        yield shown(value)
        return
    if not network.is_multicast:
        yield f"{shown(value)}, which are no groups"
    elif network.num_addresses > LARGEST_GROUPS:
        yield f"{shown(value)}, which are {network.num_addresses}"
    elif int(network[0]) & 0x7FFFFF < 256:  # the bits of an address that are in the Ethernet address
        yield f"{shown(value)}, which switches take for 224.0.0.0/24 and send everywhere"
    elif network[0] != ipaddress.IPv4Interface(value).ip:
        yield f"{shown(value)}, which is an address within a range: write {shown(str(network))}"


def _bad_boot_programs(value: dict[str, str]) -> Iterator[str]:
    for arch, name in value.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,4}", arch) or int(arch) > 65535:
            yield f"the architecture {shown(arch)}"
        if not name or "\0" in name:
            yield f"{shown(name)} for architecture {shown(arch)}"


def _bad_group(value: str) -> Iterator[str]:
    """One address of a group."""
    if "/" in value:
        yield shown(value)
    else:
        yield from _bad_groups(value)


def _bad_files(value: tuple[MtftpFile, ...]) -> Iterator[str]:
    """Tables of files: each file once, and in a group that no other has."""
    yield from _twice([file.name for file in value])
    yield from _twice([file.group for file in value if file.group])


def _bad_mtftp_port(value: int) -> Iterator[str]:
    if value >> 8 != value & 0xFF:
        yield str(value)


def _bad_architectures(value: tuple[int, ...]) -> Iterator[str]:
    yield from (str(arch) for arch in value if not 0 <= arch <= 65535)
    yield from _twice(map(str, value))


def _bad_macs(value: Iterable[str]) -> Iterator[str]:
    for mac in value:
        if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", mac):
            yield shown(mac)
    yield from _twice([mac.lower().replace("-", ":") for mac in value])


def _twice(values: Iterable[str]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{shown(value)} twice"


def _bad_consoles(value: tuple[str, ...]) -> Iterator[str]:
    return (shown(name) for name in value if not re.fullmatch(r"\S+", name) or "\0" in name)


def _absolute(value: str) -> Iterator[str]:
    if not value.startswith("/") or "\0" in value:
        yield shown(value)


def _bad_socket(value: str) -> Iterator[str]:
    yield from _absolute(value)
    if len(value.encode()) > SOCKET_PATH_BYTES:
        yield f"a path of {len(value.encode())} bytes"


def _bad_listen(value: str) -> Iterator[str]:
    address, _, port = value.rpartition(":")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        yield shown(value)
        return
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        yield shown(value)


def _bad_ports(value: str) -> Iterator[str]:
    if value == "single":
        return
    numbers = re.fullmatch(r"([1-9][0-9]{0,4})-([1-9][0-9]{0,4})", value)
    if numbers is None:
        yield shown(value)
        return
    first, last = int(numbers[1]), int(numbers[2])
    if first < 1024 or last > 65535:
        yield f"{shown(value)}, which is not within 1024 to 65535"
    elif last - first + 1 < FEWEST_PORTS:
        yield f"{shown(value)}, which has {max(last - first + 1, 0)}"


def _unless_empty(rule: Callable[[str], Iterator[str]]) -> Callable[[str], Iterable[str]]:
    return lambda value: rule(value) if value else ()


_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kMG])bit(?:/s)?")
_RATE_EXPECTED = 'a rate like "900Mbit" or "2.5Gbit"'
# A datagram of full size must leave within a second or so, or firmware gives up.
_LEAST_RATE = 12_500


def bytes_per_second(rate: str) -> int:
    """A rate of the configuration as a number; 0, no limit, for "" (and for what is no rate: `parse` refuses it)."""
    found = _RATE.fullmatch(rate)
    return int(float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[found[2]] / 8) if found else 0


def _bad_rate(value: str) -> Iterator[str]:
    if bytes_per_second(value) < _LEAST_RATE:
        yield f"{shown(value)}, which is too slow" if _RATE.fullmatch(value) else shown(value)


def _bad_rates(value: dict[str, str]) -> Iterator[str]:
    for name, rate in value.items():
        yield from (f"{wrong} for {shown(name)}" for wrong in _bad_rate(rate))


def _bad_hours(value: dict[str, str]) -> Iterator[str]:
    for hours, rate in value.items():
        if minutes_of_day(hours) is None:
            yield shown(hours)
        yield from (f"{wrong} for {shown(hours)}" for wrong in _bad_rate(rate))


_TIME = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_HOURS = re.compile(f"{_TIME}-{_TIME}")
_START = re.compile(
    rf"first|manual|(?P<clock>{_TIME})|(?P<machines>[1-9][0-9]{{0,4}}) machines?"
    r"(?: or (?P<or>[1-9][0-9]{0,5}) seconds?)?|(?P<seconds>[1-9][0-9]{0,5}) seconds?"
)


def minutes_of_day(hours: str) -> tuple[int, int] | None:
    """ "08:00-18:00" as minutes since midnight; the second is the smaller one where it goes over midnight."""
    found = _HOURS.fullmatch(hours)
    if found is None:
        return None
    first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    return (first, last) if first != last else None


class Start(NamedTuple):
    """When a session begins: as soon as one of these holds; by hand alone where none can."""

    machines: int = 0  # so many have joined; 0: that does not matter
    seconds: float = 0.0  # so long after the first; 0: that does not matter
    minute: int | None = None  # of the day


def start_rule(text: str) -> Start:
    """What `[cast] start` says."""
    found = _START.fullmatch(text)
    if found is None or text == "manual":
        return Start()
    if text == "first":
        return Start(machines=1)
    if found["clock"]:
        return Start(minute=int(found[2]) * 60 + int(found[3]))
    return Start(int(found["machines"] or 0), float(found["or"] or found["seconds"] or 0))


def _bad_start(value: str) -> Iterator[str]:
    if not _START.fullmatch(value):
        yield shown(value)
    elif start_rule(value).machines > MOST_RECEIVERS:
        yield f"{shown(value)}, and a session holds {MOST_RECEIVERS}"


_SECONDS = Rule("a number of seconds above 0", lambda value: () if math.isfinite(value) else (str(value),))
_PATH = Rule("an absolute path", _absolute)
_PATH_OR_EMPTY = Rule("an absolute path", _unless_empty(_absolute))
_RATES = Rule('a table from interfaces to rates like "900Mbit" or "2.5Gbit"', _bad_rates)
_GROUPS = Rule(f'at most {LARGEST_GROUPS} multicast addresses like "239.255.78.0/24"', _bad_groups)
# Intel's clients read these ports from DHCP little-endian, as EDK2 does; others were seen to read them big-endian.
_MTFTP_PORT = Rule("a port whose two bytes are alike, as 1799 (0x0707) or 2056 (0x0808)", _bad_mtftp_port)
_RULES: dict[str, Rule] = {
    "server.address": Rule("an IPv4 address, or a list of different ones, IPv6 among them if wanted", _bad_addresses),
    "server.state_dir": _PATH,
    "server.socket": Rule(f"an absolute path of at most {SOCKET_PATH_BYTES} bytes", _bad_socket),
    "server.rates": _RATES,
    "tftp.root": _PATH,
    "tftp.ports": Rule(f'"single", or a range of at least {FEWEST_PORTS} ports like "40000-41000"', _bad_ports),
    "tftp.rate": Rule(_RATE_EXPECTED, _unless_empty(_bad_rate)),
    "dhcp.boot_programs": Rule("a table from architecture numbers (0 to 65535) to file names", _bad_boot_programs),
    "dhcp.boot_program_dir": _PATH,
    "mtftp.groups": _GROUPS,
    "mtftp.machines": Rule('a table from different MACs like "52:54:00:12:34:56" to true or false', _bad_macs),
    "mtftp.architectures": Rule("a list of different architecture numbers (0 to 65535)", _bad_architectures),
    "mtftp.server_port": _MTFTP_PORT,
    "mtftp.client_port": _MTFTP_PORT,
    "mtftp.files": Rule("[[mtftp.files]] tables of different files and groups", _bad_files),
    "mtftp.files.name": Rule("a file's name", lambda value: [] if value and "\0" not in value else [shown(value)]),
    "mtftp.files.group": Rule('a multicast address like "239.255.78.240"', _unless_empty(_bad_group)),
    "mtftp.files.client_port": _MTFTP_PORT,
    "cast.rate": Rule(_RATE_EXPECTED, _unless_empty(_bad_rate)),
    "cast.rates": _RATES,
    "cast.session_rate": Rule(_RATE_EXPECTED, _unless_empty(_bad_rate)),
    "cast.floor": Rule(_RATE_EXPECTED, _unless_empty(_bad_rate)),
    "cast.hours": Rule('a table from hours like "08:00-18:00" to rates like "50Mbit"', _bad_hours),
    "cast.start": Rule(
        '"first", "20 machines", "300 seconds", "20 machines or 300 seconds", a time like "22:30" or "manual"',
        _bad_start,
    ),
    "cast.groups": _GROUPS,
    "jobs.silence": _SECONDS,
    "jobs.boot_timeout": _SECONDS,
    "images.dir": _PATH_OR_EMPTY,
    "environment.dir": _PATH_OR_EMPTY,
    "metrics.listen": Rule('an IPv4 address and a port, like "127.0.0.1:9469"', _unless_empty(_bad_listen)),
    "environment.append": Rule(
        "one line of text", lambda value: [shown(value)] if re.search(r"[\r\n\0]", value) else []
    ),
    "environment.console": Rule('a list of consoles like "ttyS0,115200"', _bad_consoles),
}


def rule_of(key: Iterable[str]) -> Rule | None:
    """The rule for a key; the tables of a list ("files[1]") have the same."""
    return _RULES.get(re.sub(r"\[[0-9]+\]", "", ".".join(key)))
