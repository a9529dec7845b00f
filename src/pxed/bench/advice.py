"""Which knob is the limit: sentences from what was measured, and only from that."""

import os
from collections.abc import Iterable
from pathlib import Path

from pxed.bench.tftp import Comparison, Run, Summary

__all__ = ["advise"]

_BUSY = 0.9  # of one processor
_ALL_BUSY = 0.95  # of all
_OTHER_WORK = 0.2  # of all, by neither clients nor server: the figures say more about the host than about the server


def advise(comparison: Comparison, cores: int | None = None) -> list[str]:
    """What limited each server, what spoils the measurement, and which setting is concerned."""
    cores = cores or os.cpu_count() or 1
    said: list[str] = []
    for server in comparison.servers:
        said += _of_server(server, comparison, cores)
    every = [run for server in comparison.servers for run in server.runs]
    said += _of_clients(every)
    other = _share((run.host_cpu - run.generator_cpu - (run.server_cpu or 0.0) for run in every), every, cores)
    if other >= _OTHER_WORK and all(run.server_cpu is not None for run in every):
        said.append(
            f"Other work took {other:.0%} of this host's {cores} processors meanwhile: trust the ratios more than the "
            "rates, and measure again in a quiet moment."
        )
    return said


def _of_server(server: Summary, asked: Comparison, cores: int) -> list[str]:
    name, runs = server.server, server.runs
    said = []
    if any(run.server_drops.get("RcvbufErrors") for run in runs):
        count = sum(run.server_drops.get("RcvbufErrors", 0) for run in runs)
        said.append(
            f"{name}: its receive buffer overflowed, {count} datagrams were lost: raise net.core.rmem_max "
            f"(now {_sysctl('net/core/rmem_max')})."
        )
    if any(run.neighbour_overflows for run in runs):
        said.append(
            f"{name}: the neighbour table was full: raise net.ipv4.neigh.default.gc_thresh3 "
            f"(now {_sysctl('net/ipv4/neigh/default/gc_thresh3')}) beyond the number of clients on one network."
        )
    if any(run.client_drops.get("ReasmReqds") for run in runs):
        said.append(
            f"{name}: blocks of {server.blksize} bytes travelled in fragments: use a blksize of at most the link's "
            "MTU less 32 (1468 at 1500)."
        )
    if server.windowsize and server.windowsize < asked.windowsize:
        said.append(f"{name}: granted a window of {server.windowsize}, not {asked.windowsize}.")
    if not said:
        said += _processors(name, runs, server.windowsize, cores)
    return said


def _processors(name: str, runs: list[Run], windowsize: int, cores: int) -> list[str]:
    measured = all(run.server_cpu is not None for run in runs)
    own = _share((run.server_cpu or 0.0 for run in runs), runs, 1)
    clients = _share((run.generator_cpu for run in runs), runs, 1)
    if measured and own >= _BUSY:
        return [f"{name}: kept {own:.1f} of {cores} processors busy, and that is its limit."]
    if clients >= _BUSY:
        return [f"{name}: the simulated clients kept a whole processor busy; it may be faster than could be measured."]
    if measured and _share((run.host_cpu for run in runs), runs, cores) >= _ALL_BUSY:
        return [f"{name}: all {cores} processors were busy, the server's share being {own:.1f} of one."]
    if measured and windowsize == 1:
        return [f"{name}: no processor and no buffer was exhausted; waiting for each ACK is the limit (--windowsize)."]
    return []


def _of_clients(runs: list[Run]) -> list[str]:
    lost = sum(run.client_drops.get("RcvbufErrors", 0) + run.refused for run in runs)
    if not lost:
        return []
    return [
        f"The simulated clients themselves lost {lost} datagrams in their own kernel, so the servers had to repeat: "
        f"run as root, or raise net.core.rmem_max (now {_sysctl('net/core/rmem_max')})."
    ]


def _share(seconds: Iterable[float], runs: list[Run], processors: int) -> float:
    whole = sum(run.seconds for run in runs) * processors
    return sum(seconds) / whole if whole else 0.0


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return "unknown"
