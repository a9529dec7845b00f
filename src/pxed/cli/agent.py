"""`pxed agent`: the imaging agent. Machines run it inside the environment; `fetch` runs on any Linux host."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pxed.agent.fetch import Fetch, Fetched
    from pxed.agent.progress import Tally

UNREACHABLE = 3  # exit code: trying again may help
INTERRUPTED = 130

HTTP_PORT = 80  # of boot HTTP


@click.group()
def agent() -> None:
    """The imaging agent, which runs on the machine that is imaged; and images for everybody else."""


@agent.command()
def run() -> None:
    """Do this machine's job: what the imaging environment starts. It overwrites this machine's disk."""
    from pxed.agent.__main__ import main

    sys.exit(main())


@agent.command()
@click.argument("image")
@click.option("--server", required=True, metavar="ADDR[:PORT]", help=f"pxed's boot HTTP; port {HTTP_PORT} by default.")
@click.option("--to", "path", required=True, type=click.Path(path_type=Path), help="A file, or a block device.")
@click.option(
    "--transport",
    type=click.Choice(["auto", "cast", "http"]),
    default="auto",
    show_default=True,
    help="cast: multicast, or fail, unless the server orders HTTP; auto: HTTP where multicast does not come.",
)
@click.option("--interface", metavar="NAME|ADDRESS", default="", help="Where multicast is; by the route to the server.")
@click.option("--replace", is_flag=True, help="The file may exist: it is replaced once the image is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line: progress, messages, the result.")
def fetch(image: str, server: str, path: Path, transport: str, interface: str, replace: bool, as_json: bool) -> None:
    """Fetch IMAGE (its name or id) to a file or a block device, together with whoever else fetches it.

    A block device is overwritten; a file is written as PATH.part until it is complete. Fetching again after an
    interruption goes on with what is there.

    Exit codes: 0 done, 1 it cannot be done, 3 the server does not answer, 130 interrupted.
    """
    from pxed.agent.fetch import Fetch, base_url
    from pxed.agent.progress import Tally

    try:
        url = base_url(server, HTTP_PORT)
    except ValueError:
        raise click.BadParameter("this is no ADDRESS or ADDRESS:PORT", param_hint="--server") from None
    tally = Tally(_say_json if as_json else _say)
    work = Fetch(url, image, path, tally, transport=transport, interface=_address(interface), replace=replace)
    sys.exit(_follow(work, tally, image, as_json))


def _follow(work: "Fetch", tally: "Tally", title: str, as_json: bool) -> int:
    """Run it and show how far it is; the exit code."""
    from pxed.agent.failure import Stopped
    from pxed.agent.server import Unreachable
    from pxed.errors import PxedError

    outcome: list[Fetched | BaseException] = []
    ended = threading.Event()  # not `Thread.join`: after a Ctrl-C in it, Python 3.11 takes the thread for ended

    def run() -> None:
        try:
            outcome.append(work.run())
        except BaseException as error:
            outcome.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    _watch(ended, work, tally, title, as_json)
    end = outcome[0]
    if isinstance(end, PxedError):
        _fail(tally.stop_reason or str(end), as_json)
        return INTERRUPTED if isinstance(end, Stopped) else UNREACHABLE if isinstance(end, Unreachable) else 1
    if isinstance(end, BaseException):
        raise end
    _done(end, as_json)
    return 0


def _watch(ended: threading.Event, work: "Fetch", tally: "Tally", title: str, as_json: bool) -> None:
    from pxed.cli import output

    if as_json:
        while _goes_on(ended, tally, 1.0):
            transport, reason = work.transport
            _print_line(
                "progress", {"done": tally.done, "total": tally.total, "transport": transport, "reason": reason}
            )
        return
    with output.progress(title) as show:
        while _goes_on(ended, tally, 0.2):
            if tally.total:
                show(tally.done, tally.total)


def _goes_on(ended: threading.Event, tally: "Tally", seconds: float) -> bool:
    """Wait; whether the work still runs. Ctrl-C stops it, and it then ends by itself."""
    try:
        return not ended.wait(seconds)
    except KeyboardInterrupt:
        tally.stop("Interrupted; the same command goes on with what is there.")
        return True


def _done(fetched: "Fetched", as_json: bool) -> None:
    from pxed.cli import output

    if as_json:
        _print_line("result", {"ok": True, **{name: getattr(fetched, name) for name in fetched.__struct_fields__}})
        return
    click.echo(
        f"{fetched.path}: image {fetched.name or fetched.image[:12]}, a disk of {output.size(fetched.size)}, in "
        f"{output.duration(fetched.seconds)}: {fetched.account}"
    )


def _fail(reason: str, as_json: bool) -> None:
    from pxed.text import printable

    if as_json:
        _print_line("result", {"ok": False, "reason": reason})
    click.echo(f"pxed: {printable(reason, keep=chr(10))}", err=True)


def _say(text: str) -> None:
    from pxed.cli import output

    output.note(text)


def _say_json(text: str) -> None:
    _print_line("message", text)


def _print_line(kind: str, value: object) -> None:
    import msgspec

    from pxed.cli import output

    click.echo(output.json_text(msgspec.json.encode({kind: value})))


def _address(interface: str) -> str:
    """The IPv4 address that an interface's name or one of its addresses means. Raises BadParameter."""
    import fcntl
    import ipaddress
    import socket

    if not interface:
        return ""
    try:
        return str(ipaddress.IPv4Address(interface))
    except ValueError:
        pass
    siocgifaddr = 0x8915  # <linux/sockios.h>
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, siocgifaddr, interface.encode()[:15].ljust(40, b"\0"))
    except OSError as error:
        raise click.BadParameter(f"{interface}: {error.strerror}", param_hint="--interface") from None
    return socket.inet_ntoa(answer[20:24])
