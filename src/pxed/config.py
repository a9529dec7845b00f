"""The configuration: one TOML file becomes one frozen Struct.

Every key is checked. A mistake names the file, the line, the key, what was expected and the nearest key.
Two keys are required (`server.address`, `tftp.root`); everything else has a default.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

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

    address: str | list[str]  # IPv4 that clients reach; the interfaces are found from it
    state_dir: str = "/var/lib/pxed"
    socket: str = "/run/pxed/pxed.sock"  # the admin API
    user: str = ""  # drop to this user after binding; "" = stay

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, the first being the one used where no other fits better."""
        return (self.address,) if isinstance(self.address, str) else tuple(self.address)


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


class Tftp(Struct, frozen=True, forbid_unknown_fields=True):
    """[tftp]"""

    root: str
    port: Port = 69


class Http(Struct, frozen=True, forbid_unknown_fields=True):
    """[http]: boot HTTP, for firmware, preboot clients and agents."""

    port: Port = 80


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
    http: Http = Http()
    transaction: Transaction = Transaction()
    jobs: Jobs = Jobs()
    images: Images = Images()
    environment: Environment = Environment()

    @property
    def images_dir(self) -> str:
        """Where the image store lies."""
        return self.images.dir or f"{self.server.state_dir}/images"

    @property
    def environment_dir(self) -> str:
        """Where `pxed environment build` leaves vmlinuz and initramfs.cpio.zst."""
        return self.environment.dir or f"{self.server.state_dir}/environment"


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
    """Check `text`; `path` is the name used in messages. Raises ConfigError with every mistake found."""
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
