"""Boot policy without I/O: facts about a DHCP request, the decision, the reply; boot scripts.

`facts(packet, received)` reads, `decide(facts, check, site)` answers; both are pure. A `Decider` does both, and
remembers decisions by what they depend on. Imports no socket, clock,
thread, random or file module: what the sockets know comes in `Received`, what the site wants in `Site`.
"""

from . import scripts
from ._decide import Reply, decide
from ._facts import Facts, Received, facts
from ._memo import Answer, Decider, Outcome
from ._quirks import QUIRKS, Quirk, Vendor43
from ._site import Site

__all__ = [
    "QUIRKS",
    "Answer",
    "Decider",
    "Facts",
    "Outcome",
    "Quirk",
    "Received",
    "Reply",
    "Site",
    "Vendor43",
    "decide",
    "facts",
    "scripts",
]
