"""A room of receivers: what happens to whom, the figures, and a small session of a peer over real packets."""

import json
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pxed.bench.cast.plan import Case, Plan, Role, cases, roles
from pxed.bench.cast.play import Got, Play, Stage
from pxed.bench.cast.result import row
from pxed.bench.cast.room import Room
from pxed.bench.cast.slow import Throttle
from pxed.cli.bench.cast import cast
from pxed.errors import OperatorError

STANDARD = Plan()


def test_what_happens_happens_to_the_last_ones() -> None:
    case = Case(title="all", slow_port=4e7, slow_disk=5, kill=True, stop=True, late=(5.0,), power_loss=True)
    parts = roles(case, STANDARD)
    assert parts[:2] == [Role(), Role()]
    names = [part.name for part in parts[2:]]
    assert names == ["slow port", "slow disk", "killed", "stopped", "power loss", "5 s late"]
    assert [part.ends for part in parts[2:]] == [True, True, False, False, True, True]
    assert parts[4].signal == signal.SIGKILL
    assert parts[4].event == pytest.approx(4.0, abs=0.1)
    with pytest.raises(OperatorError, match="one must be left"):
        roles(case, Plan(receivers=6))


def test_the_table_names_each_case_once_and_fits_the_standard_room() -> None:
    table = cases(STANDARD)
    assert len({case.title for case in table}) == len(table) == 9
    for case in table:
        assert len(roles(case, STANDARD)) == 8
        assert case.wanted is not None
    assert STANDARD.ideal == pytest.approx(9.41, abs=0.01)
    (late,) = (case.late for case in table if case.late)
    assert late == (5.0, 9.0)
    assert (table[3].slow_port, table[4].slow_disk) == (40e6, 5_000_000)


def play(*seconds: float | None, hit: Got | None = None, party: str = "pxed") -> Play:
    receivers = [Got("others", True, one, "" if one else "not in 60 s") for one in seconds]
    return Play(party, [*receivers, hit] if hit else receivers, 1.1)


def test_figures_are_medians_of_the_slowest_and_what_is_missed_is_named() -> None:
    case = Case(title="slow", slow_port=1.0, wanted=10.0, wanted_it=40.0)
    runs = [play(9.0, slowest, hit=Got("slow port", True, 41.0)) for slowest in (9.5, 12.0, 9.8)]
    made = row(case, STANDARD, "1", runs)
    assert (made.fastest, made.seconds, made.wire) == (9.0, 9.8, 1.1)
    assert made.wanted == ["others 10 s", "slow port 40 s"]
    assert made.missed == ["slow port 40 s"]
    assert row(case, Plan(receivers=3), "1", runs).wanted == []  # the figures are of another room
    assert row(case, STANDARD, "1", [play(9.0, hit=Got("slow port", True, 41.0), party="uftp")]).wanted == []


def test_one_who_did_not_get_it_is_no_time() -> None:
    made = row(Case(title="none", wanted=10.0), STANDARD, "1", [play(9.0, 9.1), play(9.0, None)])
    assert (made.seconds, made.lost, made.missed) == (None, {"not in 60 s": 1}, ["others 10 s"])


@pytest.mark.parametrize(
    ("again", "missed"), [(0.55, []), (0.7, ["power loss 60% again"]), (None, ["power loss 60% again"])]
)
def test_what_travels_again(again: float | None, missed: list[str]) -> None:
    case = Case(title="power", power_loss=True, wanted_again=0.6)
    assert row(case, STANDARD, "1", [play(9.0, hit=Got("power loss", True, 12.0, "", again))]).missed == missed


def test_who_was_killed_is_not_missed() -> None:
    made = row(Case(title="kill", wanted=10.0), STANDARD, "1", [play(9.0, hit=Got("killed", False, None))])
    assert (made.lost, made.missed, made.seconds) == ({}, [], 9.0)


def test_a_slow_disk_takes_so_many_bytes_in_a_second() -> None:
    throttle, began = Throttle(1e6), time.monotonic()
    for _ in range(10):
        throttle.wait(10_000)
    assert time.monotonic() - began >= 0.1


def test_options_that_make_no_room() -> None:
    run = CliRunner().invoke
    assert "Say --lab" in run(cast, []).stderr
    assert "--only-peers needs --against" in run(cast, ["--lab", "--only-peers"]).stderr
    assert run(cast, ["--lab", "--receivers", "1", "--kill"]).exit_code == 1
    assert run(cast, ["--lab", "--late", "nan"]).exit_code == 2


@pytest.mark.root
def test_a_room_is_imaged_and_who_loses_power_gets_the_rest() -> None:
    arguments = ["--lab", "--receivers", "3", "--size", "24MB", "--rate", "100Mbit", "--power-loss"]
    done = CliRunner().invoke(cast, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["rows"]
    assert (one["party"], one["lost"], one["wanted"]) == ("pxed", {}, [])
    assert one["seconds"] >= 24e6 * 8 / 100e6
    (hit,) = one["affected"]
    assert hit["role"] == "power loss"
    assert 0.0 < hit["again"] < 1.0
    assert 1.0 < one["wire"] < 2.5


@pytest.mark.root
def test_a_slow_disk_of_one_receiver() -> None:
    with Stage(Plan(receivers=2, size=4_000_256)) as stage:
        played = stage.play(Case(title="disk", slow_disk=2_000_000), "pxed")
    assert [got.why for got in played.receivers] == ["", ""]
    assert played.receivers[1].seconds is not None
    assert played.receivers[1].seconds >= 1.4  # the last chunk is written when the others are


@pytest.mark.root
def test_a_peer_over_real_packets() -> None:
    arguments = ["--lab", "--only-peers", "--against", "uftp", "--receivers", "3", "--size", "2MB", "--kill"]
    done = CliRunner().invoke(cast, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["rows"]
    assert one["party"] == "uftp"
    assert one["lost"] == {}
    assert one["seconds"] >= 2e6 * 8 / 200e6  # no faster than the server's port, which is to say that it was shaped
    assert 1.0 < one["wire"] < 2.0
    assert [hit["role"] for hit in one["affected"]] == ["killed"]


@pytest.mark.root
def test_udpcast_with_a_slow_disk() -> None:
    with Stage(Plan(receivers=2, size=1_000_000)) as stage:
        played = stage.play(Case(title="disk", slow_disk=1_000_000), "udpcast")
    assert [got.why for got in played.receivers] == ["", ""]
    assert played.receivers[1].seconds is not None
    assert played.receivers[1].seconds >= 1.0


@pytest.mark.root
def test_wrong_data_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(Plan(receivers=2, size=1_000_000)) as stage:
        party = stage.party("uftp")
        wrong = party.content.with_name("other")
        wrong.mkdir()
        (wrong / "data.bin").write_bytes(bytes(1_000_000))
        monkeypatch.setattr(party, "content", wrong / "data.bin")
        played = stage.play(Case(title="wrong"), "uftp")
    assert {got.why for got in played.receivers} == {"it ended well, with wrong data"}


@pytest.mark.root
def test_loss_or_a_kernel_that_has_none() -> None:
    try:
        with Room(200e6, [0.0], 0.5) as room:
            said = room.receivers[0].run("nft", "list", "table", "ip", "lossy")
    except OperatorError as error:
        assert "cannot lose packets by chance" in str(error)
        return
    assert "numgen random mod 100000 < 50000 drop" in said


@pytest.mark.parametrize(("missing", "package"), [("nft", "nftables"), ("ethtool", "ethtool"), ("tc", "iproute2")])
def test_what_a_room_needs_is_said(missing: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == missing else f"/bin/{name}")
    with pytest.raises(OperatorError, match=f"apt install {package}"):
        Room(1e6, [0.0])


@pytest.mark.root
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxed.bench.cast.play._MEMORY", tmp_path)
    with Stage(Plan(receivers=1, size=100_000)) as stage:
        assert list(tmp_path.iterdir())
        stage.play(Case(title="one"), "uftp")
    assert list(tmp_path.iterdir()) == []
