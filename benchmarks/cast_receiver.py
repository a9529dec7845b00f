"""What a symbol costs a receiver with its sockets, and how fast it is: a sender and it on one cable, in one process.

    sudo .venv/bin/python benchmarks/cast_receiver.py [--singly] [GBIT ...]

The cable (veth) carries runs of datagrams uncut, as a card that collects them (GRO) hands them over; with --singly
each datagram comes by itself. For each rate of the sender: what the receiver took, what the kernel dropped before it,
and the processor time of the two native threads for each symbol, from the first whole frame on. Frames are neither
opened nor written. Read the processor times: what is taken in a second is what a busy machine leaves for both.
"""

import secrets
import sys
import threading
import time
from array import array
from contextlib import ExitStack

from pxed._ext.cast_events import admit, open_session
from pxed._ext.cast_frames import CastLayout
from pxed._ext.cast_receiver import CastReceiver
from pxed._ext.cast_sender import CastSender
from pxed._ext.engine import Engine
from pxed.bench.cast.speed import CHUNK, GROUP, RECEIVER, SERVER, cable, random_source
from pxed.wire.cast import PORT, SYMBOL

FRAMES = 256
SESSION = 1
PATIENCE = 60.0


def clock_of(name: str) -> int:
    """The processor clock of a native thread."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == name)
    assert thread.ident is not None
    return time.pthread_getcpuclockid(thread.ident)


def play(gbit: float, singly: bool) -> str:
    """One image from the sender to the receiver."""
    key = secrets.token_bytes(16)
    with ExitStack() as stack:
        ours, theirs = stack.enter_context(cable())
        if singly:
            ours.run("ethtool", "-K", "cast0", "tx-udp-segmentation", "off")
        engine = Engine(sender=CastSender())
        stack.callback(engine.stop)
        with ours.entered():
            engine.bind([(SERVER, PORT)], multicast_ttl=1, bulk=True)
        source = random_source(FRAMES * CHUNK)
        receiver = CastReceiver(CastLayout(array("I", [CHUNK] * FRAMES)))
        stack.callback(receiver.close)
        engine.start()
        engine.post(open_session(SESSION, key, (GROUP, PORT), source, rate=int(gbit * 1e9 / 8)))
        engine.post(admit(SESSION, 1, RECEIVER))
        with theirs.entered():
            receiver.join(SESSION, key, 1, group=GROUP, port=PORT, server=SERVER)
        clocks = [time.CLOCK_MONOTONIC, clock_of("pxed-cast"), clock_of("pxed-engine")]
        begun: list[float] = []
        first = 0
        while receiver.left and (taken := receiver.take(PATIENCE)) is not None:
            if not begun:
                begun, first = [time.clock_gettime(clock) for clock in clocks], receiver.figures()["received"]
            receiver.done(taken[0], True)
        seconds, here, there = (time.clock_gettime(clock) - at for clock, at in zip(clocks, begun, strict=True))
        figures = receiver.figures()
        symbols = figures["received"] - first
        taken_rate = symbols * SYMBOL * 8 / seconds / 1e9
        return (
            f"sent at {gbit:g} Gbit/s: {taken_rate:.2f} Gbit/s taken, {figures['kernel_drops']} datagrams dropped by "
            f"the kernel; a symbol costs {here / symbols * 1e9:.0f} ns here, {there / symbols * 1e9:.0f} ns there"
        )


def main() -> None:
    """Print a line for each rate."""
    arguments = sys.argv[1:]
    rates = [float(one) for one in arguments if one != "--singly"] or [1.0, 3.0, 10.0]
    for rate in rates:
        print(play(rate, "--singly" in arguments), flush=True)


if __name__ == "__main__":
    main()
