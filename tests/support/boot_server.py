"""pxed's boot services with a fixed verdict, as a process for one namespace: DHCP, and boot HTTP if a root is given.

Prints "ready" (or "refused: SENTENCE" and exits 3), then one JSON line per timeline event; SIGTERM ends it.
"""

import argparse
import asyncio
import signal
import sys

import msgspec
import uvloop

from pxed import boot
from pxed.config import Config, Server, Tftp
from pxed.errors import OperatorError
from pxed.net.interfaces import Interfaces
from pxed.service.dhcp import DhcpService
from pxed.service.peers import Peers
from pxed.types import Event, Verdict
from support.machines import Machines


class Printing(Machines):
    """Events go to standard output."""

    def note(self, event: Event) -> None:
        print(msgspec.json.encode(event).decode(), flush=True)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    config = Config(server=Server(options.address), tftp=Tftp("/nonexistent"))
    site = boot.Site.from_config(config)
    machines = Printing(Verdict(options.verdict))
    service = DhcpService(Interfaces(tuple(options.address)), options.same_host, site, machines, Peers())
    service.open()
    service.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    service.close()


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", action="append", required=True)
    parser.add_argument("--same-host", action="store_true")
    parser.add_argument("--verdict", default="work")
    try:
        uvloop.run(serve(parser.parse_args()))
    except OperatorError as error:
        print(f"refused: {error}", flush=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
