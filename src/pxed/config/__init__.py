"""The configuration: one TOML file becomes one frozen Struct.

Every key is checked. A mistake names the file, the line, the key, what was expected and the nearest key.
Two keys are required (`server.address`, `tftp.root`); everything else has a default.
"""

import tomllib
from pathlib import Path

import msgspec

from pxed.errors import ConfigError

from ._check import mistakes
from ._clashes import clashes
from ._keys import (
    DEFAULT_BOOT_PROGRAMS,
    Cast,
    Config,
    Dhcp,
    Environment,
    Http,
    Images,
    Jobs,
    Log,
    Metrics,
    Server,
    Tftp,
    Transaction,
)
from ._mtftp import IPXE_GROUP, Mtftp, MtftpFile, MtftpGroup
from ._places import line_of, lines_of, syntax_error
from ._rules import MOST_RECEIVERS, Start, bytes_per_second, minutes_of_day, start_rule

__all__ = [
    "DEFAULT_BOOT_PROGRAMS",
    "IPXE_GROUP",
    "MOST_RECEIVERS",
    "Cast",
    "Config",
    "Dhcp",
    "Environment",
    "Http",
    "Images",
    "Jobs",
    "Log",
    "Metrics",
    "Mtftp",
    "MtftpFile",
    "MtftpGroup",
    "Server",
    "Start",
    "Tftp",
    "Transaction",
    "bytes_per_second",
    "load",
    "minutes_of_day",
    "parse",
    "start_rule",
]


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
        raise ConfigError(syntax_error(str(error), path)) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    wrong = list(mistakes(tree)) or list(clashes(msgspec.convert(tree, Config)))
    if wrong:
        lines = lines_of(text)
        placed = sorted(((line_of(lines, m.key), m) for m in wrong), key=lambda pair: pair[0])
        raise ConfigError("\n".join(f"{path}:{line}: {m.text}" if line else f"{path}: {m.text}" for line, m in placed))
    return msgspec.convert(tree, Config)
