"""The configuration: one TOML file becomes one frozen Struct.

Every key is checked. A mistake names the file, the line, the key, what was expected and the nearest key.
Two keys are required (`server.address`, `tftp.root`); everything else has a default.
"""

import difflib
import ipaddress
import json
import math
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, field

from pxed.errors import ConfigError

Port = Annotated[int, Meta(ge=1, le=65535)]

# Architecture types (RFC 4578, IANA) and the boot program for each. Names are looked up in the TFTP root
# first, then in `dhcp.boot_program_dir`, where Debian's `ipxe` package puts the x86 ones.
DEFAULT_BOOT_PROGRAMS: dict[str, str] = {
    "0": "undionly.kpxe",
    "6": "snponly-ia32.efi",
    "7": "snponly.efi",
    "9": "snponly.efi",
    "10": "snponly-arm32.efi",
    "11": "snponly-arm64.efi",
    "15": "snponly-ia32.efi",
    "16": "snponly.efi",
    "18": "snponly-arm32.efi",
    "19": "snponly-arm64.efi",
}


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """[server]: who we are."""

    address: str | list[str]  # what clients reach; the interfaces are found from it. At least one is of IPv4
    state_dir: str = "/var/lib/pxed"
    socket: str = "/run/pxed/pxed.sock"  # the admin API
    user: str = ""  # drop to this user after binding; "" = stay
    rates: dict[str, str] = field(default_factory=dict)  # interface -> what TFTP may send through it: "900Mbit"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, each in its one form; the first of a family is used where no other fits better."""
        written = [self.address] if isinstance(self.address, str) else self.address
        return tuple(str(ipaddress.ip_address(address)) for address in written)

    @property
    def ipv4(self) -> tuple[str, ...]:
        """Those of IPv4: DHCP has no others."""
        return tuple(address for address in self.addresses if ":" not in address)


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"


class Dhcp(Struct, frozen=True, forbid_unknown_fields=True):
    """[dhcp]: the proxyDHCP."""

    enabled: bool = True
    same_host_dhcp: bool = False  # another daemon on this host has port 67
    boot_programs: dict[str, str] = field(default_factory=dict)  # over DEFAULT_BOOT_PROGRAMS, key = arch type
    boot_program_dir: str = "/usr/lib/ipxe"
    mtftp_machines: tuple[str, ...] = ()  # MACs that get PXE MTFTP tags; none by default

    def boot_program(self, arch: int) -> str | None:
        """The boot program's name for an architecture type, or None."""
        return self.boot_programs.get(str(arch)) or DEFAULT_BOOT_PROGRAMS.get(str(arch))


def _tftp_threads() -> int:
    # One core saturates several gigabits; more than a few threads only take cores from everything else.
    return min(len(os.sched_getaffinity(0)), 4)


class Tftp(Struct, frozen=True, forbid_unknown_fields=True):
    """[tftp]: `threads` serve it, each a share of the clients; by default as many as there are cores, at most 4.

    `running` clients are served at full speed at a time. More wait for their first answer, for as long as firmware
    does, and then get a block a second until there is a place. 0: enough to fill the interfaces' lines.

    `ports`: "single" answers from the port that was asked. A range like "40000-41000" answers each transfer from a port
    of its own (RFC 1350), for firewalls and relays that expect it: some 16 of them for each address and thread.
    """

    root: str
    rate: str = ""  # what may be sent in all, headers included: "900Mbit"; "" = no limit
    running: Annotated[int, Meta(ge=0, le=20_000)] = 0
    port: Port = 69
    threads: Annotated[int, Meta(ge=1, le=64)] = field(default_factory=_tftp_threads)
    ports: str = "single"

    @property
    def transfer_ports(self) -> range | None:
        """The ports that transfers have of their own; None: they have none."""
        if self.ports == "single":
            return None
        first, last = self.ports.split("-")
        return range(int(first), int(last) + 1)


class Mtftp(Struct, frozen=True, forbid_unknown_fields=True):
    """[mtftp]: TFTP by multicast, one stream for all clients that ask for the same file so (RFC 2090)."""

    enabled: bool = False
    groups: str = "239.255.78.0/24"  # every file that is being sent takes one address of these
    port: Port = 1758  # of the groups, and ours for everything that has to do with them
    ttl: Annotated[int, Meta(ge=1, le=255)] = 1  # 1: this network; each router on the way takes one more

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The addresses of the groups."""
        return ipaddress.IPv4Network(self.groups)


class Http(Struct, frozen=True, forbid_unknown_fields=True):
    """[http]: boot HTTP, for firmware, preboot clients and agents."""

    port: Port = 80
    connections: Annotated[int, Meta(ge=16, le=60000)] = 2048  # at once; idle and stalled ones make room for others
    connections_per_address: Annotated[int, Meta(ge=1)] = 512  # behind NAT a whole site has one address


class Transaction(Struct, frozen=True, forbid_unknown_fields=True):
    """[transaction]: the question "is there imaging work for this machine?"."""

    unknown_machines: Literal["ignore", "boot", "hold"] = "ignore"
    no_work: Literal["silent", "local"] = "silent"


class Jobs(Struct, frozen=True, forbid_unknown_fields=True):
    """[jobs]"""

    silence: Annotated[float, Meta(gt=0)] = 60.0  # seconds without a report until a running job has failed
    boot_timeout: Annotated[float, Meta(gt=0)] = 600.0  # seconds from the offer to the agent's claim


class Images(Struct, frozen=True, forbid_unknown_fields=True):
    """[images]"""

    dir: str = ""  # default: STATE_DIR/images


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """[metrics]: for Prometheus. They are on the admin socket always."""

    listen: str = ""  # "ADDRESS:PORT" where they are served over TCP, too; "" = nowhere

    @property
    def place(self) -> tuple[str, int] | None:
        """`listen` as address and port."""
        address, _, port = self.listen.rpartition(":")
        return (address, int(port)) if self.listen else None


class Environment(Struct, frozen=True, forbid_unknown_fields=True):
    """[environment]: the Linux imaging environment."""

    dir: str = ""  # default: STATE_DIR/environment
    append: str = ""  # added to the kernel's command line
    console: tuple[str, ...] = ("tty0", "ttyS0,115200")


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    server: Server
    tftp: Tftp
    log: Log = Log()
    dhcp: Dhcp = Dhcp()
    mtftp: Mtftp = Mtftp()
    http: Http = Http()
    transaction: Transaction = Transaction()
    jobs: Jobs = Jobs()
    images: Images = Images()
    environment: Environment = Environment()
    metrics: Metrics = Metrics()

    @property
    def images_dir(self) -> str:
        """Where the image store lies."""
        return self.images.dir or f"{self.server.state_dir}/images"

    @property
    def environment_dir(self) -> str:
        """Where `pxed environment build` leaves vmlinuz and initramfs.cpio.zst."""
        return self.environment.dir or f"{self.server.state_dir}/environment"


# -- reading and checking -------------------------------------------------------------------------------------------
#
# msgspec stops at the first mistake and knows no lines, so the walk over the fields is ours: every key is converted on
# its own by msgspec, and what it refuses is said in the words of the file.

Key = tuple[str, ...]  # a key's way from the top: ("server", "address")

# Group addresses that the sender keeps a record of.
LARGEST_GROUPS = 1024
# The address of a unix socket holds 107 bytes of path (unix(7)); the server needs a few for a name beside it.
SOCKET_PATH_BYTES = 100

# Of a range for transfers: one for each of the most threads that there may be.
FEWEST_PORTS = 64


def load(path: Path) -> Config:
    """Read and check the file at `path`. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the configuration is not UTF-8 text (byte {error.start}).") from error
    return parse(text, path)


def parse(text: str, path: Path | str = "pxed.toml") -> Config:
    """Check `text`; `path` is the name used in messages. Raises ConfigError naming every mistake, one a line."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(str(error), path)) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    mistakes = list(_struct_mistakes(Config, tree, ()))
    if mistakes:
        lines = _lines(text)
        placed = sorted(((_line(lines, m.key), m) for m in mistakes), key=lambda pair: pair[0])
        raise ConfigError("\n".join(f"{path}:{line}: {m.text}" if line else f"{path}: {m.text}" for line, m in placed))
    return msgspec.convert(tree, Config)


class _Mistake(NamedTuple):
    key: Key
    text: str


def _struct_mistakes(struct: type[Struct], tree: object, at: Key) -> Iterator[_Mistake]:
    """Everything wrong with `tree` as a table of `struct`'s fields."""
    if not isinstance(tree, dict):
        yield _Mistake(at, f"section `{_dotted(at)}`: expected a table; got {_shown(tree)}")
        return
    known = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    missed = {name for name, f in known.items() if f.required and name not in tree}
    for name in tree:
        if name not in known:
            nearest = _nearest_key(at, name, [k for k in known if k not in tree], list(known))
            if nearest and nearest[:-1] == at:
                missed.discard(nearest[-1])  # one typing mistake is said once
            yield _unknown(at, name, list(known), nearest)
    for name in known:
        if name in missed:
            yield from _missing((*at, name), known[name].type)
        elif name in tree:
            yield from _field_mistakes(known[name].type, tree[name], (*at, name))


def _missing(key: Key, kind: Any) -> Iterator[_Mistake]:
    """A required key is not there; of a section that is not there, its required keys."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        for f in msgspec.structs.fields(kind):
            if f.required:
                yield from _missing((*key, f.encode_name), f.type)
    else:
        yield _Mistake(key[:-1], f"key `{_dotted(key)}`: expected {_expected(key, kind)}; the key is missing")


def _field_mistakes(kind: Any, value: object, key: Key) -> Iterator[_Mistake]:
    if isinstance(kind, type) and issubclass(kind, Struct):
        yield from _struct_mistakes(kind, value, key)
        return
    try:
        converted = msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        yield _Mistake(
            key, f"key `{_dotted(key)}`: expected {_expected(key, kind)}; got {_shown(value)}{_hint(kind, value)}"
        )
        return
    rule = _RULES.get(".".join(key))
    for got in rule.broken(converted) if rule else ():
        yield _Mistake(key, f"key `{_dotted(key)}`: expected {_expected(key, kind)}; got {got}")


def _unknown(at: Key, name: str, known: list[str], nearest: Key) -> _Mistake:
    what, shown = ("key", "`{}`") if at else ("section", "`[{}]`")
    hint = f"; did you mean {shown.format('.'.join(nearest))}?" if nearest else ""
    names = ", ".join(shown.format(k) for k in known)
    return _Mistake((*at, name), f"{what} `{_dotted((*at, name))}`: expected one of {names}{hint}")


def _nearest_key(at: Key, name: str, unused: list[str], here: list[str]) -> Key:
    """The key that was probably meant: an unused one of this table, any of it, or the same name elsewhere; else ()."""
    for candidates in (unused, here):
        near = difflib.get_close_matches(name.lower(), candidates, n=1)
        if near:
            return (*at, near[0])
    for section in msgspec.structs.fields(Config):
        if at and name in section.type.__struct_encode_fields__:
            return (section.encode_name, name)
    return ()


def _hint(kind: Any, value: object) -> str:
    """The nearest of the words that a key accepts, as the end of a sentence."""
    words = _words(kind)
    near = difflib.get_close_matches(value.lower(), words, n=1) if isinstance(value, str) else []
    return f'; did you mean `"{near[0]}"`?' if near else ""


def _words(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _expected(key: Key, kind: Any) -> str:
    """What a key's value must be, in the words of a person who writes TOML."""
    rule = _RULES.get(".".join(key))
    if rule:
        return rule.expected
    if _words(kind):
        return "one of " + ", ".join(f'"{word}"' for word in _words(kind))
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case _:
            return "text"


def _dotted(key: Key) -> str:
    return ".".join(map(_printable, key))


def _printable(text: str, quoted: bool = False) -> str:
    """With everything escaped, as TOML does it, that could break a line or play with a terminal."""
    plain = (c.isprintable() and not (quoted and c in '"\\') for c in text)
    return "".join(c if ok else json.dumps(c)[1:-1] for c, ok in zip(text, plain, strict=True))


def _shown(value: object) -> str:
    """A value as TOML writes it, cut short."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = f'"{_printable(value, quoted=True)}"'
            return text if len(text) <= 60 else text[:56] + '…"'
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case int() if abs(value) >= 1 << 64:
            return "a number of more than 64 bits"
        case _:
            return str(value)


# -- rules that a type cannot say -----------------------------------------------------------------------------------


class _Rule(NamedTuple):
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
            yield _shown(address)
            continue
        if wrong := _unfit(parsed[-1]):
            yield f"{_shown(address)}, which {wrong}"
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
        network = ipaddress.IPv4Network(value)
    except ValueError:
        yield _shown(value)
        return
    if not network.is_multicast:
        yield f"{_shown(value)}, which are no groups"
    elif network.num_addresses > LARGEST_GROUPS:
        yield f"{_shown(value)}, which are {network.num_addresses}"
    elif int(network[0]) & 0x7FFFFF < 256:  # the bits of an address that are in the Ethernet address
        yield f"{_shown(value)}, which switches take for 224.0.0.0/24 and send everywhere"


def _bad_boot_programs(value: dict[str, str]) -> Iterator[str]:
    for arch, name in value.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,4}", arch) or int(arch) > 65535:
            yield f"the architecture {_shown(arch)}"
        if not name or "\0" in name:
            yield f"{_shown(name)} for architecture {_shown(arch)}"


def _bad_macs(value: tuple[str, ...]) -> Iterator[str]:
    for mac in value:
        if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", mac):
            yield _shown(mac)
    yield from _twice([mac.lower().replace("-", ":") for mac in value])


def _twice(values: Iterable[str]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{_shown(value)} twice"


def _bad_consoles(value: tuple[str, ...]) -> Iterator[str]:
    return (_shown(name) for name in value if not re.fullmatch(r"\S+", name) or "\0" in name)


def _absolute(value: str) -> Iterator[str]:
    if not value.startswith("/") or "\0" in value:
        yield _shown(value)


def _bad_socket(value: str) -> Iterator[str]:
    yield from _absolute(value)
    if len(value.encode()) > SOCKET_PATH_BYTES:
        yield f"a path of {len(value.encode())} bytes"


def _bad_listen(value: str) -> Iterator[str]:
    address, _, port = value.rpartition(":")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        yield _shown(value)
        return
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        yield _shown(value)


def _bad_ports(value: str) -> Iterator[str]:
    if value == "single":
        return
    numbers = re.fullmatch(r"([1-9][0-9]{0,4})-([1-9][0-9]{0,4})", value)
    if numbers is None:
        yield _shown(value)
        return
    first, last = int(numbers[1]), int(numbers[2])
    if first < 1024 or last > 65535:
        yield f"{_shown(value)}, which is not within 1024 to 65535"
    elif last - first + 1 < FEWEST_PORTS:
        yield f"{_shown(value)}, which has {max(last - first + 1, 0)}"


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
        yield f"{_shown(value)}, which is too slow" if _RATE.fullmatch(value) else _shown(value)


def _bad_rates(value: dict[str, str]) -> Iterator[str]:
    for name, rate in value.items():
        yield from (f"{wrong} for {_shown(name)}" for wrong in _bad_rate(rate))


_SECONDS = _Rule("a number of seconds above 0", lambda value: () if math.isfinite(value) else (str(value),))
_PATH = _Rule("an absolute path", _absolute)
_PATH_OR_EMPTY = _Rule("an absolute path", _unless_empty(_absolute))
_RULES: dict[str, _Rule] = {
    "server.address": _Rule("an IPv4 address, or a list of different ones, IPv6 among them if wanted", _bad_addresses),
    "server.state_dir": _PATH,
    "server.socket": _Rule(f"an absolute path of at most {SOCKET_PATH_BYTES} bytes", _bad_socket),
    "server.rates": _Rule('a table from interfaces to rates like "900Mbit" or "2.5Gbit"', _bad_rates),
    "tftp.root": _PATH,
    "tftp.ports": _Rule(f'"single", or a range of at least {FEWEST_PORTS} ports like "40000-41000"', _bad_ports),
    "tftp.rate": _Rule(_RATE_EXPECTED, _unless_empty(_bad_rate)),
    "dhcp.boot_programs": _Rule("a table from architecture numbers (0 to 65535) to file names", _bad_boot_programs),
    "dhcp.boot_program_dir": _PATH,
    "dhcp.mtftp_machines": _Rule('a list of different MACs like "52:54:00:12:34:56"', _bad_macs),
    "mtftp.groups": _Rule(f'at most {LARGEST_GROUPS} multicast addresses like "239.255.78.0/24"', _bad_groups),
    "jobs.silence": _SECONDS,
    "jobs.boot_timeout": _SECONDS,
    "images.dir": _PATH_OR_EMPTY,
    "environment.dir": _PATH_OR_EMPTY,
    "metrics.listen": _Rule('an IPv4 address and a port, like "127.0.0.1:9469"', _unless_empty(_bad_listen)),
    "environment.append": _Rule(
        "one line of text", lambda value: [_shown(value)] if re.search(r"[\r\n\0]", value) else []
    ),
    "environment.console": _Rule('a list of consoles like "ttyS0,115200"', _bad_consoles),
}


# -- where a key stands in the text ---------------------------------------------------------------------------------


def _syntax_error(message: str, path: Path | str) -> str:
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is None:  # "(at end of document)"
        return f"{path}: not valid TOML: {message}."
    return f"{path}:{place[1]}: not valid TOML: {message[: place.start()]} (column {place[2]})."


def _lines(text: str) -> dict[Key, int]:
    """The line of every section and key. `text` is valid TOML, so a statement ends where it first parses."""
    found: dict[Key, int] = {}
    section: Key = ()
    source = text.split("\n")
    first = 0
    while first < len(source):
        last, tree = first + 1, _statement(source[first : first + 1])
        while tree is None and last < len(source):
            last += 1
            tree = _statement(source[first:last])
        keys = list(_keys(tree or {}))
        if source[first].lstrip().startswith("["):
            section = max(keys, key=len, default=())
            found.setdefault(section, first + 1)
        else:
            for key in keys:
                found.setdefault((*section, *key), first + 1)
        first = last
    return found


def _statement(lines: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _keys(tree: object) -> Iterator[Key]:
    if isinstance(tree, list) and len(tree) == 1:  # [[section]]
        tree = tree[0]
    for name, value in tree.items() if isinstance(tree, dict) else ():
        yield (name,)
        yield from ((name, *rest) for rest in _keys(value))


def _line(lines: dict[Key, int], key: Key) -> int:
    """The line of `key`, or of the section around it; 0 when neither is in the file."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 0)
