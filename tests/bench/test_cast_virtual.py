"""`pxed bench cast --virtual`: its rooms, what it prints, and what it refuses."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pxed.bench.cast.virtual import Room, plain_repair, play, rooms
from pxed.cli.bench.cast import cast

SMALL = ("--virtual", "--receivers", "20", "--size", "8M")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(cast, arguments)


def test_one_room_for_people() -> None:
    done = bench(*SMALL, "--loss", "1", "--burst", "2", "--late", "0.2", "--kill")
    assert done.exit_code == 0, done.output
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["CASE", "WIRE", "PLAIN REPAIR", "PARITY", "SLOWEST", "LATE ONES", "REPORTS", "CPU S"]
    assert [line[0] for line in lines[1:]] == ["as asked"]
    assert "20 receivers in virtual time" in done.stderr


def test_json_has_the_whole_table() -> None:
    done = bench(*SMALL, "--json")
    assert done.exit_code == 0, done.output
    table: dict[str, Any] = json.loads(done.stdout)
    assert len(table["rows"]) == 8
    for row in table["rows"]:
        assert (row["undone"], row["wrong"]) == (0, 0)
        assert row["sent"] >= row["needed"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--lab", "--virtual"),
        ("--virtual", "--slow-port", "40Mbit"),
        ("--virtual", "--against", "uftp"),
        ("--lab", "--burst", "3"),
        ("--lab", "--receivers", "201"),
        ("--virtual", "--receivers", "2", "--late", "1,2"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: tuple[str, ...]) -> None:
    done = bench(*arguments)
    assert done.exit_code != 0
    assert "Traceback" not in done.output


def test_plain_repair_is_the_published_figure() -> None:
    assert plain_repair(0.01, 300) == pytest.approx(1.98, abs=0.005)
    assert plain_repair(0.05, 8) == pytest.approx(1.36, abs=0.005)
    assert plain_repair(0, 300) == 1


def test_the_same_seed_is_the_same_room() -> None:
    room = Room(receivers=10, size=3_000_000, loss=0.02)
    first, second = play(room), play(room)
    assert (first.sent, first.seconds) == (second.sent, second.seconds)


def test_every_room_has_its_own_name() -> None:
    table = rooms(Room())
    assert len({room.title for room in table}) == len(table)
