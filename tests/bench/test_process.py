"""CPU time of servers, as /proc and the kernel's clocks tell it."""

import os
import subprocess
import sys
import time

from pxed.bench.process import cpu_seconds, tree

WORK = """
import subprocess, sys, time
while time.process_time() < 0.0{0}: pass
sys.stdout.write("done\\n"); sys.stdout.flush()
sys.stdin.read()
"""


def test_less_than_a_tick_counts() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORK.format(5)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        first = cpu_seconds(process.pid)
        assert 0.05 <= first < 60
        assert first * os.sysconf("SC_CLK_TCK") % 1, "whole ticks only"
        process.communicate("")
    assert cpu_seconds(process.pid) == 0, "it has ended"


def test_descendants_count_alive_or_waited_for() -> None:
    run = f"subprocess.run([sys.executable, '-c', {WORK.format(4)!r}]"
    work = f"import subprocess, sys; {run}, stdin=subprocess.DEVNULL); {run})"
    with subprocess.Popen(
        [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["done\n"] * 2
        assert len(tree(process.pid)) == 2
        own = time.clock_gettime(~process.pid << 3 | 2)
        assert cpu_seconds(process.pid) >= own + 0.04 + 0.03, "one that lives, and one of a tick less at most"
        process.communicate("")
