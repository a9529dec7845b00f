"""What the boot script told the agent, from the kernel's command line."""

from msgspec import Struct

from pxed.agent.failure import AgentFailure
from pxed.types import Step

__all__ = ["Options", "parse"]


class Options(Struct, frozen=True):
    """The agent's part of the command line."""

    server: str  # base URL without a slash at its end
    token: str  # one-time, for the claim
    mac: str = ""  # of the interface that the machine was booted from, "aa:bb:cc:dd:ee:ff"
    debug: bool = False


def parse(command_line: str) -> Options:
    """Read /proc/cmdline. Of a word given twice, the last one counts, as for the kernel itself.

    Raises AgentFailure when the words that the agent cannot do without are missing.
    """
    values = dict(word.split("=", 1) for word in command_line.split() if "=" in word)
    server, token = values.get("pxed.server", "").rstrip("/"), values.get("pxed.token", "")
    if not server.startswith("http://"):
        raise AgentFailure(Step.BOOT, "The kernel's command line names no server (pxed.server=http://ADDRESS).")
    if not token:
        raise AgentFailure(Step.BOOT, "The kernel's command line has no token (pxed.token=…).")
    return Options(server, token, boot_mac(values.get("BOOTIF", "")), values.get("pxed.debug") == "1")


def boot_mac(bootif: str) -> str:
    """The MAC in PXELINUX's form `01-aa-bb-cc-dd-ee-ff` (hardware type first); empty for anything else."""
    parts = bootif.lower().replace(":", "-").split("-")
    if len(parts) == 7 and parts[0] == "01" and all(len(part) == 2 for part in parts):
        return ":".join(parts[1:])
    return ""
