"""`pxed bench fleet --virtual`, and what it prints and draws."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pxed.bench.fleet.plan import Plan, contents, machines, parse_mix
from pxed.cli.bench.fleet import fleet
from pxed.errors import OperatorError

SMALL = ("--virtual", "--machines", "12", "--size", "64K", "--program", "16K")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(fleet, arguments)


def test_tables_for_people() -> None:
    done = bench(*SMALL, "--loss", "1", "--rate", "100Mbit", "--spread", "5")
    assert done.exit_code == 0, done.output
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0][:5] == ["MACHINES", "NUMBER", "DONE", "NO WORK", "LOST"]
    assert ["all", "12", "12", "0", "0"] in [line[:5] for line in lines]
    assert {"DHCP", "boot program", "check", "initramfs"} <= {line[0] for line in lines}
    assert "12 machines, 64.0 KiB each" in done.stderr
    assert "times that" in done.stderr


def test_json_tells_each_machine() -> None:
    done = bench(*SMALL, "--json")
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    assert (result["done"], result["lost"], result["mode"]) == (12, 0, "virtual")
    assert len(result["outcomes"]) == 12
    for one in result["outcomes"]:
        assert one["outcome"] == "done"
        assert one["seconds"] == pytest.approx(sum(took for _, took, _ in one["steps"]))
    times = result["times"]
    assert times["p50"] <= times["p90"] <= times["p99"] <= times["slowest"] <= result["finished"]
    assert result["ratio"] == pytest.approx(times["p99"] / result["ideal"])


def test_a_lost_machine_fails_the_command_and_is_told() -> None:
    done = bench(*SMALL, "--firmware", "ipxe", "--late", "100")
    assert isinstance(done.exception, OperatorError)
    assert str(done.exception) == "12 machines of 12 did not come through."
    assert "Lost: 12 machines: ipxe, DHCP: an address, but no boot offer came in time" in done.stderr
    assert "iPXE waits 2 s" in done.stderr
    assert bench(*SMALL, "--firmware", "uefi", "--late", "70", "--restarts", "1").exit_code == 0


def test_every_trouble_has_an_option() -> None:
    done = bench(*SMALL, "--duplicate", "10", "--reorder", "5", "--queue", "64K", "--rate", "20Mbit", "--seed", "7")
    assert done.exit_code == 0, done.output
    assert bench(*SMALL, "--firmware", "uefi", "--mtu-hole", "1400", "--restarts", "1").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Say --virtual or --lab"),
        (("--lab", "--virtual"), "Say --virtual or --lab"),
        (("--lab", "--late", "1"), "are of --virtual"),
        (("--virtual", "--rate", "fast"), "'fast' is no rate"),
        (("--virtual", "--firmware", "amiga=1"), "'amiga=1' is no kind of machine"),
        (("--virtual", "--firmware", "uefi=x"), "'uefi=x' is no kind of machine"),
        (("--virtual", "--firmware", "uefi=0"), "at least one kind"),
        (("--virtual", "--firmware", "uefi=nan"), "'uefi=nan' is no kind of machine"),
        (("--virtual", "--firmware", "uefi=inf"), "'uefi=inf' is no kind of machine"),
        (("--virtual", "--spread", "nan"), "'nan' is no finite number"),
        (("--virtual", "--late", "inf"), "is not in the range"),
        (("--virtual", "--loss", "nan"), "'nan' is no finite number"),
        (("--virtual", "--size", "99999999G"), "too large for this host's memory"),
        (("--virtual", "--seed", "-1"), "is not in the range"),
        (("--virtual", "--plot", "times.pdf"), "write FILE.svg or FILE.png"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert done.exit_code != 0
    assert said in done.output + str(done.exception)


@pytest.mark.parametrize(("ending", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_drawing(ending: str, head: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"times.{ending}"
    assert bench(*SMALL, "--plot", str(path)).exit_code == 0
    assert path.read_bytes().startswith(head)


def test_a_drawing_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = bench(*SMALL, "--plot", str(tmp_path / "times.svg"))
    assert str(done.exception) == "--plot needs matplotlib: pip install 'pxed[bench]'."
    assert done.stdout == ""


def test_a_drawing_that_cannot_be_written() -> None:
    done = bench(*SMALL, "--plot", "/nowhere/times.svg")
    assert "/nowhere/times.svg cannot be written" in str(done.exception)
    assert done.stdout == ""  # said before the run, not after it


def test_nothing_to_download_is_a_size_too() -> None:
    done = bench(*SMALL, "--size", "0", "--json")
    assert (done.exit_code, json.loads(done.stdout)["size"]) == (0, 0), done.output


def test_the_mix_adds_up() -> None:
    assert parse_mix("uefi=3, bios") == {"uefi": 0.75, "bios": 0.25}
    for count in (1, 7, 100):
        plan = Plan(count, 1000, 1000)
        made, times = machines(plan, contents(plan, "10.0.0.1"))
        assert len(made) == len(times) == count
        assert sorted(machine.number for machine in made) == list(range(count))
