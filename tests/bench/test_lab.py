"""The whole command in a small lab."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pxed.bench.lab import Lab
from pxed.bench.process import tree
from pxed.bench.tftp import PORT, Storm, play, wait_for
from pxed.errors import OperatorError

pytestmark = pytest.mark.root

PXED = (sys.executable, "-c", "from pxed.cli import main; main()", "bench")
SMALL = ("--clients", "3", "--size", "256K", "--runs", "1")


def bench(*arguments: str, what: str = "tftp", tmp: str = "/tmp") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PXED, what, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        env={**os.environ, "TMPDIR": tmp},
    )


def test_pxed_beside_a_peer(tmp_path: Path) -> None:
    done = bench("--lab", *SMALL, "--against", "dnsmasq", "--json", tmp=str(tmp_path))
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    ours, theirs = result["servers"]
    assert (ours["server"], theirs["server"]) == ("pxed", "dnsmasq")
    assert ours["lost"] == theirs["lost"] == {}
    for one in (ours, theirs):
        (run,) = one["runs"]
        assert run["bytes"] == 3 * 256 * 1024
        assert one["p50"] <= one["p99"] <= one["slowest"] <= run["seconds"]
        assert run["server_cpu"] > 0
    assert theirs["rate_ratio"] == pytest.approx(ours["rate"] / theirs["rate"])
    assert list(tmp_path.iterdir()) == []


def test_the_peers_that_exclude_each_other() -> None:
    done = bench("--lab", *SMALL, "--against", "tftpd-hpa", "--against", "atftpd", "--json")
    assert done.returncode == 0, done.stderr
    servers = json.loads(done.stdout)["servers"]
    assert [one["server"] for one in servers] == ["pxed", "tftpd-hpa", "atftpd"]
    assert all("." in one["version"] and one["cpu_per_gb"] > 0 for one in servers)


@pytest.mark.parametrize("windowsize", ["1", "8"])
def test_any_server_by_its_command_line(windowsize: str, tmp_path: Path) -> None:
    reflector = tmp_path / "reflector"
    source = Path(__file__).parents[2] / "benchmarks/reflector.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", reflector, source], check=True)
    command = f"{reflector} {{address}} {{file}} {{blksize}} {{windowsize}}"
    done = bench("--lab", *SMALL, "--windowsize", windowsize, "--against-command", command, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["server"] for one in json.loads(done.stdout)["servers"]] == ["pxed", "reflector"]


@pytest.mark.parametrize("command", ["/no/such/program {address}", "true {nothing}", "", "true 'x"])
def test_a_command_line_that_cannot_be_started_is_told(command: str) -> None:
    done = bench("--lab", *SMALL, "--against-command", command)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("pxed: The")


@pytest.mark.parametrize(
    ("options", "requests", "connections", "octets"),
    [
        # Long enough that the kernel has counted the server's time: what runs without a pause is counted by the tick.
        (("--size", "32M"), 3, 3, 3 << 25),
        (("--downloads", "4", "--range", "100000"), 36, 3, 3 << 20),
        (("--downloads", "4", "--close"), 12, 12, 3 << 20),
    ],
)
def test_http_beside_nginx(
    options: tuple[str, ...], requests: int, connections: int, octets: int, tmp_path: Path
) -> None:
    done = bench("--lab", *SMALL, *options, "--against", "nginx", "--json", what="http", tmp=str(tmp_path))
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)["servers"]
    assert (ours["server"], theirs["server"]) == ("pxed", "nginx")
    for one in (ours, theirs):
        (run,) = one["runs"]
        assert (run["requests"], run["connections"], run["lost"]) == (requests, connections, {})
        assert run["bytes"] == octets
        assert one["p50"] <= one["p99"] <= one["slowest"] <= run["seconds"]
        assert run["server_cpu"] > 0 or requests > 3
    assert theirs["rate_ratio"] == pytest.approx(ours["rate"] / theirs["rate"])
    assert list(tmp_path.iterdir()) == []


def test_http_in_a_pipe() -> None:
    done = bench("--lab", *SMALL, what="http")
    assert done.returncode == 0, done.stderr
    names, row = (line.split("\t") for line in done.stdout.splitlines())
    assert row[0].startswith("pxed ")
    assert len(row) == len(names)
    assert "3 clients, 256.0 KiB each, connections kept" in done.stderr


def test_multicast_that_loses_its_master() -> None:
    """Losses keep them at it for seconds: there is time to kill one in the middle."""
    slow = ("--clients", "3", "--size", "640K", "--runs", "1", "--loss", "5")
    done = bench(*slow, "--kill-master", "--no-unicast", "--json", what="mtftp")
    assert done.returncode == 0, done.stderr
    whole, killed = json.loads(done.stdout)["scenes"]
    assert (whole["way"], killed["way"]) == ("multicast", "multicast, master killed")
    assert whole["lost"] == killed["lost"] == {}
    assert whole["stall"] is None
    assert killed["stall"] > 0
    assert 1 < whole["wire"] == whole["most_wire"] < 3
    assert whole["p50"] <= whole["slowest"]


def test_multicast_beside_unicast_and_a_peer_in_a_pipe() -> None:
    done = bench("--clients", "2", "--size", "256K", "--runs", "1", "--against", "atftpd", what="mtftp")
    assert done.returncode == 0, done.stderr
    names, *rows = (line.split("\t") for line in done.stdout.splitlines())
    assert [(row[0].split()[0], row[1]) for row in rows] == [
        ("pxed", "multicast"), ("atftpd", "multicast"), ("pxed", "unicast")
    ]  # fmt: skip
    assert all(len(row) == len(names) for row in rows)
    assert 2 < float(rows[2][2]) < 2.5
    assert "2 clients, 256.0 KiB each, blksize 1428" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--size 100M", "at most 65,535 blocks"),
        ("--size 0", "must be at least 1"),
        ("--kill-master --clients 1", "--clients 2 or more"),
        ("--kill-master --size 20K", "--kill-master needs --size 128K"),
    ],
)
def test_what_multicast_cannot_show_is_told(arguments: str, reason: str) -> None:
    done = bench(*arguments.split(), what="mtftp")
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_when_it_is_ended(how: signal.Signals, tmp_path: Path) -> None:
    # dnsmasq changes its credentials when it starts, by which the kernel forgets with whom it shall die
    command = [*PXED, "tftp", "--lab", "--clients", "3", "--size", "1M", "--runs", "1000", "--against", "dnsmasq"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    with process.stderr as said:
        while "storms" not in (line := said.readline()):
            assert line
        servers = [os.pidfd_open(pid) for pid in tree(process.pid)[1:]]
        process.send_signal(how)
        said.read()
    process.wait(60)
    assert len(servers) >= 8
    for server in servers:
        ended, _, _ = select.select([server], [], [], 60)
        assert ended
        os.close(server)
    assert how == signal.SIGKILL or list(tmp_path.iterdir()) == []


def test_windows_and_a_table_in_a_pipe() -> None:
    done = bench("--lab", *SMALL, "--windowsize", "8")
    assert done.returncode == 0, done.stderr
    names, row = (line.split("\t") for line in done.stdout.splitlines())
    assert row[0].startswith("pxed ")
    assert len(row) == len(names)
    assert "windowsize 8" in done.stderr


def test_a_server_that_fails_is_told_and_cleaned_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "_pxed", lambda self, address: ["sh", "-c", "echo the disk is on fire; exit 3"])
    with pytest.raises(OperatorError, match="the disk is on fire"), Lab(1000, 1) as lab:
        wait_for(lab.start("pxed", PORT), Storm(lab.content, 1, 1408, 1, seat=lab.seat))
    assert not Path(lab.root).exists()
    assert not Path(f"/proc/{lab.server_side.pid}").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/pxed-bench-{os.getpid()}-*"))


def test_every_client_has_an_address_and_the_namespace_is_left_again() -> None:
    outside = Path("/proc/thread-self/ns/net").readlink()
    with Lab(50_000, 200) as lab:
        target = lab.start("pxed", PORT)
        storm = Storm(lab.content, 200, 1408, 1, seat=lab.seat)
        wait_for(target, storm)
        run = play(target, storm)
        assert run.lost == {}
        neighbours = subprocess.run(
            ["nsenter", f"--net=/proc/{lab.server_side.pid}/ns/net", "ip", "neigh"], capture_output=True, text=True
        ).stdout
        assert neighbours.count("10.99.64.") == 200
    assert Path("/proc/thread-self/ns/net").readlink() == outside


@pytest.mark.parametrize("said", ["", "/autogroup-45 nice 0\n"])
def test_a_session_with_and_without_a_scheduling_group(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "autogroup"
    group.write_text(said)
    monkeypatch.setattr("pxed.bench.lab._AUTOGROUP", group)
    with Lab(1024, 1):
        assert group.read_text() == ("-20" if said else "")
    assert group.read_text() == ("0" if said else "")


def test_a_file_beyond_the_memory_is_told_before_it_is_made() -> None:
    with pytest.raises(OperatorError, match="too large for this host's memory"):
        Lab(1 << 60, 1)
