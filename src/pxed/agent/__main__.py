"""`python -m pxed.agent`: the agent, started by the environment's first process, which acts on the exit code."""

import sys

from pxed.agent.failure import AgentFailure
from pxed.agent.host import Host
from pxed.agent.options import parse
from pxed.agent.session import SHELL, run


def main() -> int:
    """Exit codes: 0 restart the machine, 3 something is wrong (a shell where debug is on, then restart)."""
    host = Host()
    try:
        return run(host, parse((host.proc / "cmdline").read_text()))
    except AgentFailure as failure:
        host.say(str(failure))
        return SHELL


if __name__ == "__main__":
    sys.exit(main())
