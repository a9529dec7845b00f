"""The partition table once it is on the disk: moved out on a larger disk, checked, read by the kernel."""

import msgspec

from pxed.agent.failure import AgentFailure
from pxed.agent.host import Host, ToolError
from pxed.agent.target import ALIGNMENT, Target, aligned_buffer
from pxed.images.manifest import Manifest
from pxed.types import Step

__all__ = ["finish_table"]

_FLAGS = tuple(446 + 16 * entry for entry in range(4))  # offsets of the MBR entries' first bytes

REREAD_TRIES = 20  # a scan by the kernel of the partitions that were just written keeps the disk busy for a moment


def finish_table(host: Host, target: Target, manifest: Manifest) -> str:
    """Make the partition table right for this disk and have it read by others; returns a sentence about it, or "".

    A table that nobody recognises fails the job (AgentFailure). One that is merely odd was so in the image, and its
    bytes are proved already: that is told, not judged.
    """
    if not manifest.table.label:
        return ""
    sentences = []
    path = str(target.path)
    try:
        if manifest.table.label == "gpt" and target.size > manifest.size:
            # The backup belongs into the last sectors: firmware that finds none there calls the table damaged.
            flags = _active_flags(target)
            host.run("sgdisk", "--move-second-header", path)
            _keep_active_flags(target, flags)
            sentences.append("The backup partition table was moved to the end of the larger disk.")
        _compare(host.run("sfdisk", "--json", path), manifest)
    except ToolError as error:
        raise AgentFailure(Step.VERIFY, f"The partition table does not pass: {error}") from error
    try:
        clean = "No errors detected" in host.run("sfdisk", "--verify", path)
    except ToolError:
        clean = False
    if not clean:
        sentences.append("sfdisk --verify finds oddities in the partition table, as it is in the image.")
    for _ in range(REREAD_TRIES):
        try:
            target.reread_table()
            break
        except OSError:
            host.sleep(0.25)
    return " ".join(sentences)


def _compare(dump: str, manifest: Manifest) -> None:
    """The table that tools read from the disk must be the image's. Raises AgentFailure.

    A GPT with a damaged primary header in the image, for one, is read from its backup there, and from nowhere on a
    larger disk. MBR tables are not moved, so their bytes are proof enough.
    """
    if manifest.table.label != "gpt":
        return
    found = msgspec.json.decode(dump)["partitiontable"]
    unit = manifest.sector
    on_disk = sorted((part["start"] * unit, part["size"] * unit) for part in found.get("partitions", ()))
    wanted = sorted((part.start, part.size) for part in manifest.table.partitions)
    if found.get("label") != "gpt" or on_disk != wanted:
        raise AgentFailure(
            Step.VERIFY,
            f"The disk's partition table has {len(on_disk)} partitions and is not the image's with {len(wanted)}: "
            "is the table of the imported disk damaged?",
        )


def _active_flags(target: Target) -> tuple[int, ...]:
    """The active flags of the (protective) MBR's four entries."""
    block = aligned_buffer(ALIGNMENT)
    target.read(0, block)
    return tuple(block[at] for at in _FLAGS)


def _keep_active_flags(target: Target, flags: tuple[int, ...]) -> None:
    """sgdisk clears them, and some BIOSes start no GPT disk without one."""
    block = aligned_buffer(ALIGNMENT)
    target.read(0, block)
    if tuple(block[at] for at in _FLAGS) != flags:
        for at, flag in zip(_FLAGS, flags, strict=True):
            block[at] = flag
        target.write(0, block)
        target.flush()
