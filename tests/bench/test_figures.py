"""Statistics, sizes, and the sentences that follow from them."""

from typing import Any

import click
import pytest

from pxed.bench import http
from pxed.bench.advice import advise, advise_http
from pxed.bench.figures import added, median, percentile, ratio
from pxed.bench.measure import Target
from pxed.bench.tftp import Comparison, Run, summarise
from pxed.cli.bench.shared import size_option


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([7.0], 0.99, 7.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0, 2.0], 0.5, 1.0),
     ([float(n) for n in range(1, 101)], 0.99, 99.0), ([float(n) for n in range(1, 51)], 0.99, 50.0)],
)  # fmt: skip
def test_percentile_is_a_value_that_was_measured(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("values", "expected"), [([], 0.0), ([5.0], 5.0), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 9.0], 3.0)]
)
def test_median(values: list[float], expected: float) -> None:
    assert median(values) == expected


def test_no_ratio_to_nothing() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, 0.0) is None


def run(**changes: Any) -> Run:
    """A storm of ten seconds on an idle host of two processors, in which nothing was exhausted."""
    values: dict[str, Any] = {
        "rate": 1e8, "seconds": 10.0, "p50": 9.0, "p99": 10.0, "slowest": 10.0, "bytes": 10**9, "lost": {},
        "repeats": 0, "duplicates": 0, "gaps": 0, "blksize": 1408, "windowsize": 1, "server_cpu": 5.0,
        "generator_cpu": 4.0, "host_cpu": 10.0, "server_drops": {}, "client_drops": {},
        "refused": 0, "neighbour_overflows": 0, **changes,
    }  # fmt: skip
    return Run(**values)


def advice(*runs: Run, windowsize: int = 1) -> list[str]:
    """What is said after these runs of one server."""
    server = summarise(Target("pxed", "1", "10.0.0.1", "f", 69), list(runs))
    return advise(Comparison(100, 10**7, 1408, windowsize, [server]), cores=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "waiting for each ACK is the limit"),
        ({"server_drops": {"RcvbufErrors": 3}}, "pxed: its receive buffer overflowed, 3 datagrams were lost"),
        ({"neighbour_overflows": 2}, "gc_thresh3"),
        ({"client_drops": {"ReasmReqds": 2}}, "travelled in fragments"),
        ({"server_drops": {"SndbufErrors": 4}}, "its send buffer was full 4 times: raise net.core.wmem_max"),
        ({"server_cpu": 9.5, "host_cpu": 14.0}, "limit. Another has time left: [tftp] threads."),
        (
            {"server_cpu": 9.5, "host_cpu": 16.0, "generator_cpu": 6.0},
            "kept 0.9 of 2 processors busy, and that is its limit.",
        ),
        ({"blksize": 512}, "(--windowsize, and blksize: 512 bytes fill little of a packet)"),
        ({"generator_cpu": 9.5, "host_cpu": 15.0}, "simulated clients kept a whole processor busy"),
        ({"server_cpu": 8.5, "generator_cpu": 8.5, "host_cpu": 19.5}, "all 2 processors were busy"),
    ],
)
def test_advice_names_what_was_exhausted(changes: dict[str, Any], words: str) -> None:
    (sentence,) = advice(run(**changes))
    assert words in sentence


def test_advice_warns_of_spoilt_measurements() -> None:
    assert any("Other work took 45%" in sentence for sentence in advice(run(host_cpu=18.0)))
    assert any("themselves lost 7 datagrams" in sentence for sentence in advice(run(refused=7)))
    assert "granted a window of 1, not 16" in advice(run(), windowsize=16)[0]


def test_storms_of_milliseconds_are_no_ground_for_advice() -> None:
    short = run(seconds=0.004, server_cpu=0.004, host_cpu=0.03, generator_cpu=0.004)
    (sentence,) = advice(short)
    assert "too short a time" in sentence
    assert "waiting for each ACK" in advice(*[run()] * 2)[0]


def test_medians_of_runs_and_sums_of_losses() -> None:
    runs = [run(rate=rate, server_cpu=cpu, lost={"silent": 1}) for rate, cpu in ((1.0, 4.0), (3.0, 6.0), (9.0, 5.0))]
    summary = summarise(Target("x", "1", "10.0.0.1", "f", 69), runs)
    assert (summary.rate, summary.cpu_per_gb, summary.lost) == (3.0, 5.0, {"silent": 3})


def test_sizes() -> None:
    context, parameter = click.Context(click.Command("x")), click.Option(["--size"])
    assert [size_option(context, parameter, text) for text in ("1408", "256K", "32MiB")] == [1408, 256 << 10, 32 << 20]
    with pytest.raises(click.BadParameter):
        size_option(context, parameter, "32 elephants")


def http_run(**changes: Any) -> http.Run:
    """A storm of ten seconds on an idle host, in which nothing was exhausted."""
    values: dict[str, Any] = {
        "rate": 1e8, "request_rate": 10.0, "seconds": 10.0, "p50": 9.0, "p99": 10.0, "slowest": 10.0, "bytes": 10**9,
        "requests": 100, "connections": 100, "lost": {}, "server_cpu": 5.0, "generator_cpu": 4.0, "host_cpu": 10.0,
        "server_drops": {}, "client_drops": {}, "neighbour_overflows": 0, **changes,
    }  # fmt: skip
    return http.Run(**values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server_drops": {"ListenOverflows": 3}}, "queue of new connections overflowed 3 times"),
        ({"server_drops": {"RetransSegs": 13812}}, "2.0% of its segments"),
        ({"neighbour_overflows": 2}, "gc_thresh3"),
        ({"server_cpu": 9.5, "host_cpu": 14.0}, "kept 0.9 of 2 processors busy, and that is its limit"),
        ({"host_cpu": 18.0}, "Other work took 45%"),
    ],
)
def test_advice_for_http(changes: dict[str, Any], words: str) -> None:
    server = http.summarise(Target("pxed", "1", "10.0.0.1", "f", 80), [http_run(**changes)])
    (sentence,) = advise_http(http.Comparison(100, 10**7, 1, 0, True, [server]), cores=2)
    assert words in sentence


def test_nothing_to_advise_for_http() -> None:
    server = http.summarise(Target("pxed", "1", "10.0.0.1", "f", 80), [http_run()])
    assert advise_http(http.Comparison(100, 10**7, 1, 0, True, [server]), cores=2) == []
    assert (server.cpu_per_gb, server.cpu_per_request, server.request_rate) == (5.0, 0.05, 10.0)


def test_reasons_are_added_up() -> None:
    assert added([]) == {}
    assert added([{"silent": 1}, {}, {"silent": 2, "refused": 1}]) == {"silent": 3, "refused": 1}


def test_no_ratio_of_what_was_not_measured() -> None:
    assert (ratio(None, 2.0), ratio(1.0, None), ratio(1.0, 0.0), ratio(0.0, 2.0)) == (None, None, None, 0.0)
