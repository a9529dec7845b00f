"""`pxed session`: lists, one session, watching it to its end, and starting one."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result
from msgspec.structs import replace
from rich.console import Console

from pxed.cli import session as command
from pxed.types import ImageSession, SessionReceiver
from support.control import IMAGE
from support.live_api import LiveApi

Pxed = Callable[..., Result]

RECEIVERS = (
    SessionReceiver(
        1, "pc-01", "10.78.0.11", "receiving", percent=52.0, rate=2e7, loss=0.001, queue=0.1, seconds_left=42
    ),
    SessionReceiver(2, "pc-02", "10.78.0.12", "done", percent=100.0, seconds_left=0.0),
    SessionReceiver(
        3, "pc-03\x1b", "10.78.0.13", "listening", "its disk takes 40 Mbit/s", percent=12.0, seconds_left=300, late=True
    ),
    SessionReceiver(4, "pc-04", "10.78.0.14", "dead", percent=3.0, late=True),
)
SESSION = ImageSession(
    "00ff" * 4,
    IMAGE.id,
    "debian",
    "eth0",
    "239.255.79.9",
    1759,
    "sending",
    1_700_000_000.0,
    RECEIVERS,
    begun=1_700_000_001.0,
    rate=170e6 / 8,
    cap=170e6 / 8,
    sent=1 << 30,
    size=2 << 30,
    repaired=0.015,
    seconds_left=42.0,
)


@pytest.fixture(autouse=True)
def sessions(api: LiveApi) -> list[ImageSession]:
    api.control.all_sessions = [replace(SESSION, id="11" * 8, state="ended"), SESSION]
    return api.control.all_sessions


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list(pxed: Pxed) -> None:
    header, row = (line.split("\t") for line in ok(pxed("session", "list")).splitlines())
    assert header[:6] == ["ID", "IMAGE", "INTERFACE", "GROUP", "STATE", "RECEIVERS"]
    assert row[:9] == [SESSION.id, "debian", "eth0", "239.255.79.9", "sending", "4", "1", "170 Mbit/s", "1.0 GiB"]
    assert row[9].startswith("in 42 s, at ")
    assert ok(pxed("session", "list", "--all")).count("\n") == 3
    assert [one["id"] for one in json.loads(ok(pxed("session", "list", "--all", "--json")))] == ["11" * 8, SESSION.id]


def test_show(pxed: Pxed) -> None:
    out = ok(pxed("session", "show", "00ff"))
    assert "rate\t170 Mbit/s of at most 170 Mbit/s\n" in out
    assert "sent\t1.0 GiB, 1.5% of it repairs\n" in out
    assert "late\tpc-03\\x1b (its disk takes 40 Mbit/s); pc-04 (silent)\n" in out
    assert "1\tpc-01\treceiving\t52\t160 Mbit/s\t0.1%\t10%\t\t42 s\t\n" in out
    assert "2\tpc-02\tdone\t100\t\t\t\t\t\t\n" in out
    assert json.loads(ok(pxed("session", "show", "debian", "--json")))["receivers"][2]["late"] is True


def test_a_session_that_waits_is_started_once(pxed: Pxed, sessions: list[ImageSession]) -> None:
    sessions[1] = replace(SESSION, state="waiting", waits="3 of 20 machines are there", begun=0.0)
    assert "state\twaiting: 3 of 20 machines are there\n" in ok(pxed("session", "show", "00ff"))
    assert ok(pxed("session", "start", "00ff")) == f"Session {SESSION.id} of debian begins with 4 receivers.\n"
    again = pxed("session", "start", "00ff")
    assert (again.exit_code, again.stderr) == (
        1,
        f"pxed: Session {SESSION.id} is sending: there is nothing to start.\n",
    )


def test_watch_to_the_end(pxed: Pxed, api: LiveApi) -> None:
    done = tuple(replace(receiver, state="done", percent=100.0, late=False) for receiver in RECEIVERS)
    api.control.next_sessions = [SESSION, replace(SESSION, state="ended", receivers=done)]
    first, *_, last, _, _, _, _, _ = ok(pxed("session", "watch", "--interval", "0.1")).split("\n")[:-1]
    assert first.startswith("debian sending; 1 of 4 receivers done; 170 Mbit/s; ready in 42 s, at ")
    assert last == "debian ended; 4 of 4 receivers done"
    api.control.next_sessions = [replace(SESSION, state="ended")]
    assert json.loads(ok(pxed("session", "watch", "00ff", "--json")))["state"] == "ended"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "x y"), "There is no multicast session x y."),
        (("show", ""), "Say which session: by the beginning of its id, or by its image's name."),
    ],
)
def test_no_session(pxed: Pxed, arguments: tuple[str, ...], message: str) -> None:
    result = pxed("session", *arguments)
    assert (result.exit_code, result.stderr) == (1, f"pxed: {message}\n")


def test_nothing_to_watch(pxed: Pxed, sessions: list[ImageSession]) -> None:
    sessions.clear()
    result = pxed("session", "watch")
    assert (result.exit_code, result.stderr) == (0, "There is no multicast session.\n")


def test_a_terminal_shows_who_is_late_first_and_as_many_as_fit() -> None:
    console = Console(width=160, force_terminal=False, record=True)
    console.print(command._screen(SESSION, 2, 160))
    lines = console.export_text().splitlines()
    assert "pc-03" in lines[3] and "━" * 20 in lines[3] and "(late)" in lines[3]
    assert "pc-01" in lines[4]
    assert lines[-1] == "… and 2 more"
    assert "\x1b" not in console.export_text()


def test_in_80_columns_every_figure_can_be_read() -> None:
    console = Console(width=80, force_terminal=False, record=True)
    console.print(command._screen(SESSION, 9, 80))
    lines = console.export_text().splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("#"))
    assert lines[head].split() == ["#", "MACHINE", "STATE", "%", "RATE", "LOSS", "QUEUE", "LEFT", "WHY"]
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    for receiver in SESSION.receivers:
        for figure in (*command._cells(receiver)[2:7], command._cells(receiver)[8]):
            assert figure in shown
