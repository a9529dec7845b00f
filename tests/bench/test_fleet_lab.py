"""A fleet over real packets, in a small lab."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pxed.bench.firmware import row
from pxed.bench.fleet import lab
from pxed.bench.fleet.drive import Download
from pxed.bench.fleet.lab import FleetLab
from pxed.bench.fleet.machine import Machine, Program
from pxed.bench.fleet.plan import Plan, identity
from pxed.cli.bench.fleet import fleet
from pxed.errors import OperatorError


def _nothing(machine: Machine) -> Program[None]:
    yield 0.0


def download(known: bytes | None) -> Download:
    return Download(Machine(0, row("ipxe"), identity(0), {}, _nothing), known)


HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-LENGTH: 5\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("known", [b"hello", None])
def test_a_response_in_pieces(known: bytes | None, piece: int) -> None:
    one, whole = download(known), HEAD + b"hello"
    for at in range(0, len(whole), piece):
        assert not one.whole
        assert one.take(memoryview(whole[at : at + piece])) == ""
    assert one.whole
    assert one.body == b"hello"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (HEAD + b"hallo", "a wrong byte after offset 0"),
        (HEAD + b"hello!", "more came than was announced"),
        (HEAD.replace(b"5", b"6"), "6 bytes are announced, not 5"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"SSH-2.0\r\n\r\n", "no response of HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "a response without a length"),
        (bytes(20_000), "the response has no end of its head"),
    ],
)
def test_responses_that_are_wrong(said: bytes, problem: str) -> None:
    assert download(b"hello").take(memoryview(said)) == problem


@pytest.mark.root
def test_a_fleet_boots_over_real_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    arguments = ("--lab", "--machines", "12", "--size", "1M", "--program", "32K", "--rate", "200Mbit")
    done = CliRunner().invoke(fleet, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["mode"], result["done"], result["lost"]) == ("lab", 12, 0)
    assert {kind["name"] for kind in result["kinds"]} == {"uefi", "bios", "ipxe", "shim"}
    assert result["bytes"] >= 12 << 20
    assert result["network"]["server CPU ms"] > 0
    # No faster than the link, which is to say that it was shaped.
    assert max(one["seconds"] for one in result["outcomes"]) > result["ideal"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_over_a_lossy_cable_or_a_kernel_that_has_none() -> None:
    plan = Plan(6, 2_000_000, 10_000, 0.02, 1e9, mix={"ipxe": 1.0}, restarts=2)
    try:
        result = lab.run(plan)
    except OperatorError as error:
        assert lab.NO_LOSS in str(error)
        return
    assert (result.done, result.lost) == (6, 0)
    assert result.network["lost on cables"] > 0


@pytest.mark.root
def test_without_loss_and_behind_a_switch_nothing_is_repeated() -> None:
    plan = Plan(4, 100_000, 10_000, rate=1e9, queue=1 << 20, mix={"ipxe": 1.0})
    result = lab.run(plan)
    assert (result.done, result.lost) == (4, 0)
    assert result.network["lost on cables"] == 0
    assert [step.name for step in result.steps] == ["DHCP", "script", "check", "kernel", "initramfs"]


@pytest.mark.root
def test_a_server_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FleetLab, "_pxed", lambda self, address: ["sh", "-c", "echo the disk is on fire; exit 3"])
    with pytest.raises(OperatorError, match="the disk is on fire"):
        lab.run(Plan(1, 1000, 1000))


@pytest.mark.parametrize(("missing", "package"), [("nft", "nftables"), ("ethtool", "ethtool")])
def test_what_a_lab_needs_is_said(missing: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/bin/{name}")
    with pytest.raises(OperatorError, match=f"apt install {package}"):
        lab.run(Plan(1, 1000, 1000))
