"""`pxed top`: views made of two snapshots, and the three ways to show them."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from pxed.cli import main, top
from pxed.types import Failure, Traffic, Transfer
from support.live_api import LiveApi

Pxed = Callable[..., Result]
MIB = 1 << 20
HOSTILE = "\x1b[2J\x9b\u202egpj"

KERNEL = Transfer("tftp/1", "tftp", "10.0.0.7", "vmlinuz", "sending", 2 * MIB, 8 * MIB, 4.0, "pc-1", 0.0, 3, 1408, 16)
WAITING = Transfer("tftp/2", "tftp", "10.0.0.8", "boot.efi", "asked", 0, 0, 0.5)
BEFORE = Traffic(
    10.0, 100 * MIB, 2, 1, 5, 0, 4, (KERNEL, WAITING), {"boot offered": 2}, {"restore": 1},
    (Failure(1.7e9, "52:54:00:12:34:56", "boot.efi over TFTP: timeout"),),
)  # fmt: skip
NOW = replace(
    BEFORE, time=12.0, tftp_bytes=108 * MIB, http_bytes=MIB, tftp_retransmits=9,
    transfers=(WAITING, replace(KERNEL, bytes=4 * MIB, seconds=6.0)),
)  # fmt: skip


def test_rates_are_what_moved_between_two_snapshots() -> None:
    view = top.compare(BEFORE, NOW)
    assert (view.seconds, view.tftp_rate, view.http_rate, view.tftp_retransmits) == (2.0, 4 * MIB, MIB / 2, 4)
    first, second = view.transfers
    assert (first.transfer.name, first.rate, first.left, first.percent) == ("vmlinuz", MIB, 4.0, 50.0)
    assert (second.transfer.name, second.rate, second.left, second.percent) == ("boot.efi", 0.0, None, 0.0)


def test_images_by_multicast() -> None:
    view = top.compare(BEFORE, replace(NOW, cast_bytes=8 * MIB, cast_receivers=30))
    assert (view.cast_rate, view.cast_receivers) == (4 * MIB, 30)
    assert next(top._lines(view)).endswith("; HTTP 512.0 KiB/s, 4 connected; multicast 4.0 MiB/s to 30 receivers")


def test_transfer_that_is_new_has_its_rate_since_its_request() -> None:
    (row,) = top.compare(replace(BEFORE, transfers=()), replace(NOW, transfers=(KERNEL,))).transfers
    assert row.rate == MIB / 2


@pytest.mark.parametrize("now", [replace(NOW, time=1.0), replace(NOW, tftp_bytes=7), BEFORE])
def test_server_that_was_started_meanwhile(now: Traffic) -> None:
    view = top.compare(BEFORE, now)
    assert (view.seconds, view.tftp_rate, view.http_rate) == (0.0, 0.0, 0.0)


def test_bytes_that_went_back_are_no_negative_rate() -> None:
    (row,) = top.compare(replace(NOW, transfers=(KERNEL,)), replace(NOW, time=13.0, transfers=(WAITING,))).transfers
    assert row.rate == 0.0
    again = replace(KERNEL, bytes=0)
    (row,) = top.compare(replace(NOW, transfers=(KERNEL,)), replace(NOW, time=13.0, transfers=(again,))).transfers
    assert (row.rate, row.left) == (0.0, None)


@pytest.fixture
def moving(api: LiveApi) -> LiveApi:
    """A server that gives BEFORE, then NOW, and so on."""
    api.control.snapshots = [BEFORE, NOW]
    return api


def test_lines_in_a_pipe(pxed: Pxed, moving: LiveApi) -> None:
    result = pxed("top", "--once", "--interval", "0.1")
    assert result.exit_code == 0
    head, machines, columns, first, second, failure = result.stdout.strip().splitlines()
    assert head == "TFTP 4.0 MiB/s, 2 running, 1 waiting, 4 repeats; HTTP 512.0 KiB/s, 4 connected"
    assert machines == "machines: 2 boot offered, 1 restore"
    assert columns.split("\t") == ["MACHINE", "NAME", "VIA", "DONE", "OF", "RATE", "LEFT", "REPEATS", "BLOCKS"]
    assert first.split("\t") == ["pc-1", "vmlinuz", "tftp", "50%", "8.0 MiB", "1.0 MiB/s", "4.0 s", "3", "1408x16"]
    assert second.split("\t") == ["10.0.0.8", "boot.efi", "tftp", "asked", "", "", "", "", ""]
    assert failure.endswith("  52:54:00:12:34:56  boot.efi over TFTP: timeout")


def test_one_object_a_view_until_ctrl_c(pxed: Pxed, moving: LiveApi, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = iter([None, None, None])

    def nap(seconds: float) -> None:
        assert seconds == 0.5
        if next(naps, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("pxed.cli.top.time.sleep", nap)
    result = pxed("top", "--json", "--interval", "0.5")
    assert (result.exit_code, result.stderr) == (0, "")
    views: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(views) == 3
    assert views[0]["tftp_rate"] == 4 * MIB
    assert views[0]["transfers"][0]["transfer"]["machine"] == "pc-1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("once", [True, False])
def test_on_a_terminal(pxed: Pxed, moving: LiveApi, monkeypatch: pytest.MonkeyPatch, once: bool) -> None:
    naps = iter([None, None])

    def nap(seconds: float) -> None:
        if next(naps, "over") == "over":
            raise KeyboardInterrupt

    out = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setattr("pxed.cli.top.time.sleep", nap)
    monkeypatch.setattr("pxed.cli.top.is_terminal", lambda: True)
    monkeypatch.setattr("rich.console.Console.file", property(lambda self: out, lambda self, value: None))
    result = pxed("top", *(["--once"] if once else []))
    assert result.exit_code == 0
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue())
    for word in ("4.0 MiB/s", "vmlinuz", "50%", "1408x16", "2 boot offered", "boot.efi over TFTP: timeout"):
        assert word in text


def test_more_transfers_than_lines(pxed: Pxed, moving: LiveApi) -> None:
    many = tuple(replace(KERNEL, id=f"tftp/{number}") for number in range(30))
    moving.control.snapshots = [BEFORE, replace(NOW, transfers=many)]
    text = pxed("top", "--once", "--interval", "0.1").stdout
    assert text.count("vmlinuz") == top.PLAIN_ROWS
    assert "… and 10 more" in text


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_names_do_not_play_with_the_terminal(pxed: Pxed, moving: LiveApi, how: tuple[str, ...]) -> None:
    hostile = replace(KERNEL, name=HOSTILE, machine=HOSTILE)
    failure = Failure(1.0, HOSTILE, HOSTILE)
    moving.control.snapshots = [
        BEFORE, replace(NOW, transfers=(hostile,), places={HOSTILE: 1}, steps={HOSTILE: 1}, failures=(failure,))
    ]  # fmt: skip
    text = pxed("top", "--once", "--interval", "0.1", *how).stdout
    assert all(line.replace("\t", " ").isprintable() for line in text.split("\n"))
    assert text.count("x1b[2J" if not how else "u001b[2J") == 6


@pytest.mark.parametrize("interval", ["nan", "inf", "1e12", "0"])
def test_an_interval_that_nobody_can_wait(pxed: Pxed, moving: LiveApi, interval: str) -> None:
    result = pxed("top", "--once", "--interval", interval)
    assert (result.exit_code, "'--interval'" in result.stderr) == (2, True), result.output


def test_no_server(tmp_path: Path) -> None:
    config = tmp_path / "pxed.toml"
    config.write_text(f'[server]\naddress = "127.0.0.1"\nsocket = "{tmp_path}/none"\n[tftp]\nroot = "{tmp_path}"\n')
    result = CliRunner().invoke(main, ["--config", str(config), "top", "--once"])
    assert result.exit_code == 1
    assert "No server answers" in result.stderr
