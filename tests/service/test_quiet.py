"""A flood leaves a few lines in the log, and what was left out is counted there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pxed.service.quiet import INTERVAL, LINES_IN_ALL, MAX_KEYS, Crowd, DropReport, Throttle
from support.tftp_service import Running, Socket
from support.tftp_sim import ack, rrq


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_lines_of_a_key_in_a_minute() -> None:
    clock = Clock()
    throttle = Throttle(clock, 2)
    assert [throttle.passes("a") for _ in range(5)] == [0, 0, None, None, None]
    assert throttle.passes("b") == 0
    clock.now += INTERVAL - 1
    assert throttle.passes("a") is None
    clock.now += 1
    assert [throttle.passes("a") for _ in range(3)] == [4, 0, None]
    clock.now += INTERVAL
    assert throttle.passes("b") == 0  # nothing of it was left out


def test_a_flood_of_keys_takes_bounded_memory() -> None:
    throttle = Throttle(Clock())
    for number in range(MAX_KEYS + 100):
        throttle.passes(number)
    assert len(throttle._told) == MAX_KEYS


def test_a_crowd_of_addresses() -> None:
    clock = Clock()
    crowd = Crowd(clock)
    peers = [f"10.0.{number // 250}.{number % 250}" for number in range(500)]
    assert sum(crowd.room("not-found", peer) is not None for peer in peers for _ in range(3)) == LINES_IN_ALL
    assert crowd.room("evicted", peers[0]) == {}
    clock.now += INTERVAL
    assert crowd.room("not-found", peers[499]) == {"left_out": 1500 - LINES_IN_ALL}


def lines(report: DropReport, now: float) -> list[tuple[str, str, str, int]]:
    with capture_logs() as logs:
        report.look(now)
    return [(entry["log_level"], entry["service"], entry["reason"], entry["count"]) for entry in logs]


def test_one_line_per_reason_and_minute() -> None:
    tftp = {"drop.malformed": 0, "drop.stale-ack": 0, "running": 7, "bytes": 9}
    dhcp = {"in": 3, "drop:bad-relay": 0}
    report = DropReport({"tftp": lambda: tftp, "dhcp": lambda: dhcp})
    assert lines(report, 0.0) == []
    tftp["drop.malformed"] = 10
    dhcp["drop:bad-relay"] = 1
    assert lines(report, 1.0) == [("warning", "tftp", "malformed", 10), ("warning", "dhcp", "bad-relay", 1)]
    tftp["drop.malformed"] = 5000
    assert lines(report, 2.0) == lines(report, 60.0) == []
    assert lines(report, 61.0) == [("warning", "tftp", "malformed", 4990)]
    assert lines(report, 200.0) == []  # nothing new


def test_what_is_ordinary_is_told_at_debug_level() -> None:
    tftp, dhcp = {"drop.stale-ack": 4}, {"drop:lease-request": 2, "not-our-interface": 1}
    assert lines(DropReport({"tftp": lambda: tftp, "dhcp": lambda: dhcp}), 5.0) == [
        ("debug", "tftp", "stale-ack", 4), ("debug", "dhcp", "lease-request", 2),
        ("debug", "dhcp", "not-our-interface", 1),
    ]  # fmt: skip


def test_a_clock_that_was_set_back_does_not_silence_it() -> None:
    figures = {"drop.malformed": 1}
    report = DropReport({"tftp": lambda: figures})
    assert len(lines(report, 10_000.0)) == 1
    figures["drop.malformed"] = 2
    assert len(lines(report, 50.0)) == 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "file").write_bytes(bytes(5000))
    running = Running(tmp_path, ("127.0.0.1",), mac_of=lambda address: "52:54:00:12:34:56")
    yield running
    running.stop()


def test_a_flood_of_names_that_are_not_there(server: Running) -> None:
    client = Socket("127.0.0.1", server.port)
    with capture_logs() as logs:
        for number in range(20):
            client.send(rrq(f"missing-{number}"))
            assert client.receive()[:4] == b"\0\5\0\1"
        server.wait_until(lambda now: now["outcome.refused"] == 20)
    client.close()
    found = [entry for entry in logs if entry["event"] == "tftp not found"]
    assert [entry["name"] for entry in found] == [f"missing-{number}" for number in range(5)]
    assert [entry for entry in logs if entry["event"] == "tftp transfer"] == []  # each has its one line


def test_one_line_for_a_transfer_with_its_figures(server: Running) -> None:
    client = Socket("127.0.0.1", server.port)
    with capture_logs() as logs:
        client.send(rrq("file", blksize=1000, windowsize=3))
        client.receive()
        client.send(ack(0))
        for _ in range(3):
            client.receive()
        client.send(ack(3))
        for _ in range(3):
            client.receive()
        client.send(ack(6))
        server.wait_until(lambda now: now["outcome.ok"] == 1)
        server.wait_until(lambda now: bool(server.names.delivered_names))
    port = client.sock.getsockname()[1]
    client.close()
    (line,) = [entry for entry in logs if entry["event"] == "tftp transfer"]
    assert line.pop("seconds") >= 0  # in milliseconds
    assert line.pop("rate") > 0
    assert line.pop("first_ack") >= 0
    assert line == {
        "event": "tftp transfer", "log_level": "info", "name": "file", "peer": "127.0.0.1", "port": port,
        "outcome": "ok", "bytes": 5000, "size": 5000, "blksize": 1000, "windowsize": 3, "blocks": 6, "retransmits": 0,
        "mac": "52:54:00:12:34:56",
    }  # fmt: skip
