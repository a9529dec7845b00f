"""Metrics as Prometheus reads them: names that stay, values of real transfers, and the port for scrapers."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pxed._ext.cast_sender import CastSender
from pxed._ext.engine import Engine
from pxed._ext.mtftp_groups import GroupSender
from pxed.errors import OperatorError
from pxed.net.http import BootHttp
from pxed.service.blobs import BlobCache
from pxed.service.families import families
from pxed.service.metrics import Inventory, Metrics
from pxed.service.metrics_http import MetricsHttp
from pxed.types import Event, Job, JobState
from support.loop import LoopThread
from support.tftp_service import Running, Socket
from support.tftp_sim import ack, error, rrq

# Dashboards and alerts use these: a name that is missing here has broken somebody's.
STABLE = {
    "counter": """
        pxed_transfers_total pxed_sent_bytes_total pxed_requests_total pxed_tftp_requests_total
        pxed_tftp_received_datagrams_total pxed_tftp_sent_datagrams_total pxed_tftp_retransmitted_datagrams_total
        pxed_tftp_go_backs_total pxed_tftp_timeouts_total pxed_tftp_bursts_shrunk_total
        pxed_tftp_block_sizes_lowered_total pxed_tftp_writes_refused_total pxed_tftp_dropped_datagrams_total
        pxed_tftp_stuck_datagrams_total pxed_tftp_socket_errors_total pxed_http_connections_total
        pxed_http_requests_total pxed_http_refused_total pxed_dhcp_received_datagrams_total
        pxed_dhcp_sent_datagrams_total pxed_dhcp_replies_total pxed_dhcp_dropped_datagrams_total
        pxed_dhcp_send_errors_total process_cpu_seconds_total
        pxed_tftp_admitted_total pxed_tftp_admission_wait_seconds_total
        pxed_tftp_answered_without_place_total pxed_tftp_paced_total
        pxed_multicast_joins_total pxed_multicast_elections_total pxed_multicast_masters_replaced_total
        pxed_multicast_deaf_clients_total pxed_multicast_received_datagrams_total
        pxed_multicast_sent_datagrams_total pxed_multicast_retransmitted_datagrams_total
        pxed_multicast_timeouts_total pxed_multicast_dropped_datagrams_total
    """,
    "gauge": """
        pxed_build_info pxed_machines pxed_jobs
        pxed_tftp_transfers_running pxed_tftp_transfers_waiting pxed_tftp_transfers_served
        pxed_tftp_transfers_kept_alive pxed_tftp_places pxed_tftp_transfers_asked pxed_cache_files
        pxed_multicast_groups pxed_multicast_members pxed_multicast_unproven_members
        pxed_cache_bytes pxed_cache_loading pxed_http_connections_open process_resident_memory_bytes
    """,
    "histogram": "pxed_phase_seconds pxed_transfer_seconds",
}
DATA = bytes(100_000)


def parsed(text: bytes) -> dict[str, Metric]:
    return {metric.name: metric for metric in text_string_to_metric_families(text.decode())}


def value(metrics: dict[str, Metric], sample: str, **labels: str) -> float:
    """The one sample of this name and these labels."""
    (found,) = [
        one.value for metric in metrics.values() for one in metric.samples if (one.name, one.labels) == (sample, labels)
    ]
    return found


def test_names_and_kinds_stay() -> None:
    metrics = Metrics()
    http = BootHttp((), 0, lambda _: pytest.fail("nobody asks"))
    dhcp = {"in": 0, "out": 0, "send_errors": 0, "answered:offer": 0, "drop:ignored": 0, "not-our-interface": 0}
    groups = Engine(sender=GroupSender("239.255.78.0", 1, 1758)).statistics()
    multicast = {f"multicast.{name}": figure for name, figure in groups.items()}
    tftp = {**Engine().statistics(), **BlobCache().statistics(), **multicast}
    boot_http = {**http.statistics, "open": 0, "idle": 1, **metrics.http_outcomes}
    cast = {**Engine(sender=CastSender()).statistics(), "joined": 1, "moved.http": 1, "receiver.done": 1}
    figures = {"tftp": tftp, "http": boot_http, "dhcp": dhcp, "cast": cast}
    read = {service: lambda values=values: values for service, values in figures.items()}
    metrics.watch(read, lambda: Inventory(3, 2, {}))
    found = parsed(metrics.text())
    for kind, names in STABLE.items():
        for name in names.split():
            assert found[name.removesuffix("_total")].type == kind, name
    assert {name for name, metric in found.items() if metric.type == "unknown"} == set()  # each figure has its row
    assert all(metric.documentation.endswith(".") for name, metric in found.items())
    assert value(found, "pxed_machines", known="yes") == 2
    assert value(found, "pxed_machines", known="no") == 1
    assert value(found, "pxed_jobs", state="running") == 0
    labels = {name for metric in found.values() for sample in metric.samples for name in sample.labels}
    assert labels == {
        "protocol", "outcome", "reason", "direction", "kind", "phase", "le", "state", "known", "version",
        "python", "when", "message",
    } - {"kind"}  # fmt: skip


def test_figure_without_a_row_is_shown_under_its_own_name() -> None:
    (shown,) = families({"tftp": {"brand-new": 7}})
    assert (shown.name, shown.type, shown.samples[0].value) == ("pxed_tftp_brand_new", "unknown", 7)


def test_base_units() -> None:
    (shown,) = families({"tftp": {"waited_ms": 1500}})
    assert (shown.samples[0].name, shown.samples[0].value) == ("pxed_tftp_admission_wait_seconds_total", 1.5)


def test_reasons_become_labels() -> None:
    (shown,) = families({"tftp": {"drop.a.b": 1, "drop.malformed": 2}})
    assert {sample.labels["reason"]: sample.value for sample in shown.samples} == {"a.b": 1, "malformed": 2}


def test_real_transfers(tmp_path: Path) -> None:
    (tmp_path / "boot.efi").write_bytes(DATA)
    metrics = Metrics()
    server = Running(tmp_path, ("127.0.0.1",), metrics=metrics)
    metrics.watch({"tftp": lambda: server.service.statistics}, lambda: Inventory(0, 0, {}))
    client, stranger = Socket("127.0.0.1", server.port), Socket("127.0.0.1", server.port)
    try:
        command = [
            "curl",
            "-sS",
            "--tftp-blksize",
            "1000",
            "-o",
            "/dev/null",
            f"tftp://127.0.0.1:{server.port}/boot.efi",
        ]
        subprocess.run(command, check=True, timeout=60)
        client.send(rrq("boot.efi", blksize=1000, tsize=0))
        client.receive()
        client.send(error(8))  # it wanted the size
        stranger.send(b"\0")
        stranger.send(ack(7))
        stranger.send(rrq("missing"))
        assert stranger.receive()[:4] == b"\0\5\0\1"
        stranger.send(rrq("boot.efi"))
        stranger.receive()  # and then it waits
        server.wait_until(lambda now: now["outcome.ok"] == now["outcome.probe"] == now["outcome.refused"] == 1)
        found = parsed(server.call(text(metrics)))
    finally:
        client.close()
        stranger.close()
        server.stop()
    ended = {sample.labels["outcome"]: sample.value for sample in found["pxed_transfers"].samples}
    assert {outcome: count for outcome, count in ended.items() if count} == {"ok": 1, "probe": 1, "refused": 1}
    assert value(found, "pxed_sent_bytes_total", protocol="tftp") >= len(DATA) + 512
    assert value(found, "pxed_tftp_requests_total") == 4
    assert value(found, "pxed_tftp_transfers_running") == 1
    assert value(found, "pxed_tftp_dropped_datagrams_total", reason="malformed") == 1
    assert value(found, "pxed_tftp_dropped_datagrams_total", reason="unknown-peer") == 1
    assert value(found, "pxed_phase_seconds_count", phase="request-to-first-ack") == 1
    assert 0 < value(found, "pxed_phase_seconds_sum", phase="request-to-first-ack") < 60
    assert value(found, "process_resident_memory_bytes") > 1 << 20


async def text(metrics: Metrics) -> bytes:
    return metrics.text()


def test_jobs_and_events_are_measured() -> None:
    metrics = Metrics(clock=lambda: 50.0)
    metrics.watch({}, lambda: Inventory(1, 1, {JobState.FAILED: 1}))
    metrics.changed(Event(10.0, "52:54:00:12:34:56", "offer", "…"))
    metrics.requested("tftp", "boot-program", "52:54:00:12:34:56")
    metrics.requested("http", "kernel")
    metrics.delivered("http", "kernel", 0.3)
    metrics.changed(Job(7, 1, "restore", "ab", "demo", JobState.FAILED, 0.0, 45.0, step="restore", reason="No disk."))
    found = parsed(metrics.text())
    assert value(found, "pxed_phase_seconds_sum", phase="discover-to-request") == 40
    assert value(found, "pxed_requests_total", protocol="http", kind="kernel") == 1
    assert value(found, "pxed_transfer_seconds_bucket", protocol="http", kind="kernel", le="0.25") == 0
    assert value(found, "pxed_transfer_seconds_bucket", protocol="http", kind="kernel", le="0.5") == 1
    assert value(found, "pxed_jobs", state="failed") == 1
    assert [(failure.who, failure.text) for failure in metrics.failures] == [("job 7", "restore: No disk.")]


# -- the port for scrapers ---------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    metrics = Metrics()
    metrics.requested("tftp", "kernel")
    metrics.watch({}, lambda: Inventory(0, 0, {}))
    server = MetricsHttp(("127.0.0.1", 0), metrics)
    server.open()
    with LoopThread() as loop:
        loop.call(server.start)
        yield server.port
        loop.run(server.stop())


def curl(port: int, path: str, *arguments: str) -> tuple[int, str, str]:
    """Status, media type and body."""
    command = ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code} %{content_type}", *arguments]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    body, _, end = done.stdout.rpartition("\n")
    status, _, media_type = end.partition(" ")
    return int(status), media_type, body


def test_scrape_over_tcp(port: int) -> None:
    status, media_type, body = curl(port, "/metrics")
    assert (status, media_type) == (200, "text/plain; version=0.0.4")
    assert value(parsed(body.encode()), "pxed_requests_total", protocol="tftp", kind="kernel") == 1


def test_nothing_else_is_on_the_scrapers_port(port: int) -> None:
    for path in ("/", "/status", "/metrics/", "/machines", "/pxed/boot.ipxe"):
        assert curl(port, path)[0] == 404
    assert curl(port, "/metrics", "-X", "POST")[0] == 405
    assert curl(port, "/metrics", "--data-binary", "x")[0] in (405, 413)


def test_port_that_is_taken(port: int) -> None:
    with pytest.raises(OperatorError, match=r"\[metrics\] listen"):
        MetricsHttp(("127.0.0.1", port), Metrics()).open()


def test_many_scrapers_at_once(port: int) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(curl(port, "/metrics")[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
