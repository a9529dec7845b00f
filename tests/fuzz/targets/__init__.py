"""One module for each target: `one(data)` runs one input, `seeds()` are inputs to begin with, WORDS a dictionary.

An input is a mistake found when `one` raises, when a sanitizer speaks, when it takes many seconds or much memory.
"""

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import structlog

__all__ = ["TARGETS", "Target", "load", "strict_log"]

TARGETS = {
    "dhcp": "DHCP packets: codec, PXE tags, offers of other servers",
    "boot": "DHCP requests of boot clients: facts, decision, reply",
    "tftp": "conversations with the TFTP sender in virtual time",
    "cast": "cast datagrams, and conversations with a receiver",
    "reports": "reports to a cast sender, and what it sends then",
    "http": "bytes on a boot HTTP connection",
    "names": "names of files and checks, identities, the agent's command line",
    "agents": "agents' calls, and a server's answers to them",
    "images": "manifests, layouts, chunks, partition tables",
    "config": "the configuration's text",
}


class Target(NamedTuple):
    """What a module of this package gives."""

    one: Callable[[bytes], None]
    seeds: dict[str, bytes]
    words: tuple[bytes, ...]


def load(name: str) -> Target:
    """Import a target."""
    module = import_module(f"fuzz.targets.{name}")
    return Target(module.one, module.seeds(), module.WORDS)


def strict_log() -> None:
    """Let an error that is only logged (an exception caught at the top of a service) be an exception, and log nothing
    else: its rendering would cost more than most targets.
    """
    structlog.configure(processors=[_fail], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _fail(_logger: object, _method: str, line: Any) -> NoReturn:
    raise AssertionError(f"an error was logged: {line}")
