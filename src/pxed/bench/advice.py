"""Which knob is the limit: sentences from what was measured, and only from that."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pxed.bench import dhcp, http, tftp
from pxed.bench.measure import Costs

__all__ = ["advise", "advise_dhcp", "advise_http"]

_BUSY = 0.9  # of one processor
_ALL_BUSY = 0.95  # of all
_IDLE = 0.5  # of one processor, left over: worth a thread
_OTHER_WORK = 0.2  # of all, by neither clients nor server: the figures say more about the host than about the server
_REPEATED = 0.01  # of all segments: more than that is more than full queues at the start
_LARGE_BLOCK = 1024  # bytes; two thirds of what an MTU of 1500 carries
_TOO_SHORT = 0.2  # seconds of all storms of a server: processor times are told in hundredths (proc(5), clock ticks)
_SEGMENT = 1448  # bytes of TCP in a packet of an MTU of 1500


def advise(comparison: tftp.Comparison, cores: int | None = None) -> list[str]:
    """TFTP: what limited each server, what spoils the measurement, and which setting is concerned."""
    cores = cores or os.cpu_count() or 1
    said: list[str] = []
    for server in comparison.servers:
        said += _of_server(server, comparison, cores)
    every = [run for server in comparison.servers for run in server.runs]
    return said + _of_clients(every) + _of_host(every, cores)


def advise_http(comparison: http.Comparison, cores: int | None = None) -> list[str]:
    """HTTP: the same."""
    cores = cores or os.cpu_count() or 1
    said: list[str] = []
    for server in comparison.servers:
        said += _of_http_server(server, cores)
    return said + _of_host([run for server in comparison.servers for run in server.runs], cores)


def advise_dhcp(comparison: dhcp.Comparison, cores: int | None = None) -> list[str]:
    """DHCP: the same."""
    cores = cores or os.cpu_count() or 1
    said: list[str] = []
    for server in comparison.servers:
        storms = [run.storm for run in server.runs]
        own = _of_buffers(server.server, storms) + _of_neighbours(server.server, storms)
        said += own or _processors(server.server, storms, cores)
    return said + _of_host([run.storm for server in comparison.servers for run in server.runs], cores)


def _of_server(server: tftp.Summary, asked: tftp.Comparison, cores: int) -> list[str]:
    name, runs = server.server, server.runs
    said = _of_buffers(name, runs) + _of_neighbours(name, runs)
    if any(run.client_drops.get("ReasmReqds") for run in runs):
        said.append(
            f"{name}: blocks of {server.blksize} bytes travelled in fragments: use a blksize of at most the link's "
            "MTU less 32 (1468 at 1500)."
        )
    if server.windowsize and server.windowsize < asked.windowsize:
        said.append(f"{name}: granted a window of {server.windowsize}, not {asked.windowsize}.")
    if not said:
        said += _processors(name, runs, cores)
        if not said and server.windowsize == 1 and all(run.server_cpu is not None for run in runs):
            said.append(
                f"{name}: no processor and no buffer was exhausted; waiting for each ACK is the limit "
                f"(--windowsize{_small(server.blksize)})."
            )
    return said


def _small(blksize: int) -> str:
    """What to say of blocks that leave much of a packet empty, as part of a list of options."""
    return f", and blksize: {blksize} bytes fill little of a packet" if blksize < _LARGE_BLOCK else ""


def _of_http_server(server: http.Summary, cores: int) -> list[str]:
    name, runs = server.server, server.runs
    said = _of_neighbours(name, runs)
    overflows = sum(run.server_drops.get("ListenOverflows", 0) for run in runs)
    if overflows:
        said.append(
            f"{name}: its queue of new connections overflowed {overflows} times, and those clients lost a second or "
            f"more: raise net.core.somaxconn (now {_sysctl('net/core/somaxconn')})."
        )
    repeated = sum(run.server_drops.get("RetransSegs", 0) for run in runs)
    share = repeated * _SEGMENT / max(1, sum(run.bytes for run in runs))
    if share > _REPEATED:
        said.append(f"{name}: {share:.1%} of its segments had to be sent again: the network loses packets.")
    return said or _processors(name, runs, cores)


def _of_buffers(name: str, runs: Sequence[Costs]) -> list[str]:
    said = []
    count = sum(run.server_drops.get("RcvbufErrors", 0) for run in runs)
    if count:
        said.append(
            f"{name}: its receive buffer overflowed, {count} datagrams were lost: raise net.core.rmem_max "
            f"(now {_sysctl('net/core/rmem_max')})."
        )
    full = sum(run.server_drops.get("SndbufErrors", 0) for run in runs)
    if full:
        said.append(
            f"{name}: its send buffer was full {full} times: raise net.core.wmem_max "
            f"(now {_sysctl('net/core/wmem_max')}), or the length of the interface's queue (ip link ... txqueuelen)."
        )
    return said


def _of_neighbours(name: str, runs: Sequence[Costs]) -> list[str]:
    if not any(run.neighbour_overflows for run in runs):
        return []
    return [
        f"{name}: the neighbour table was full: raise net.ipv4.neigh.default.gc_thresh3 "
        f"(now {_sysctl('net/ipv4/neigh/default/gc_thresh3')}) beyond the number of clients on one network."
    ]


def _processors(name: str, runs: Sequence[Costs], cores: int) -> list[str]:
    if _too_short(runs):
        return [f"{name}: measured for too short a time to say what its limit is: more bytes, clients or runs."]
    measured = all(run.server_cpu is not None for run in runs)
    own = _share((run.server_cpu or 0.0 for run in runs), runs, 1)
    clients = _share((run.generator_cpu for run in runs), runs, 1)
    if measured and own >= _BUSY:
        idle = cores - _share((run.host_cpu for run in runs), runs, 1)
        threads = name == "pxed" and idle >= _IDLE and isinstance(runs[0], tftp.Run)
        more = " Another has time left: [tftp] threads." if threads else ""
        return [f"{name}: kept {own:.1f} of {cores} processors busy, and that is its limit.{more}"]
    if clients >= _BUSY:
        return [f"{name}: the simulated clients kept a whole processor busy; it may be faster than could be measured."]
    if measured and _share((run.host_cpu for run in runs), runs, cores) >= _ALL_BUSY:
        return [f"{name}: all {cores} processors were busy, the server's share being {own:.1f} of one."]
    return []


def _of_clients(runs: Sequence[tftp.Run]) -> list[str]:
    lost = sum(run.client_drops.get("RcvbufErrors", 0) + run.refused for run in runs)
    if not lost:
        return []
    return [
        f"The simulated clients themselves lost {lost} datagrams in their own kernel, so the servers had to repeat: "
        f"run as root, or raise net.core.rmem_max (now {_sysctl('net/core/rmem_max')})."
    ]


def _of_host(runs: Sequence[Costs], cores: int) -> list[str]:
    other = _share((run.host_cpu - run.generator_cpu - (run.server_cpu or 0.0) for run in runs), runs, cores)
    if other < _OTHER_WORK or _too_short(runs) or any(run.server_cpu is None for run in runs):
        return []
    return [
        f"Other work took {other:.0%} of this host's {cores} processors meanwhile: trust the ratios more than the "
        "rates, and measure again in a quiet moment."
    ]


def _too_short(runs: Sequence[Costs]) -> bool:
    return sum(run.seconds for run in runs) < _TOO_SHORT


def _share(seconds: Iterable[float], runs: Sequence[Costs], processors: int) -> float:
    whole = sum(run.seconds for run in runs) * processors
    return sum(seconds) / whole if whole else 0.0


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return "unknown"
