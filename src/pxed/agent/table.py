"""The partition table once it is on the disk: moved out on a larger disk, checked, read by the kernel."""

from pxed.agent.failure import AgentFailure
from pxed.agent.host import Host, ToolError
from pxed.agent.target import Target
from pxed.images.manifest import Manifest
from pxed.types import Step

__all__ = ["finish_table"]

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
            host.run("sgdisk", "--move-second-header", path)
            sentences.append("The backup partition table was moved to the end of the larger disk.")
        host.run("sfdisk", "--dump", path)
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
