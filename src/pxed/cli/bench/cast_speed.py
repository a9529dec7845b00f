"""`pxed bench cast --speed`."""

from pxed.cli import output


def measure(size: int, runs: int, as_json: bool) -> None:
    """Measure so many times, and print the median."""
    from pxed.bench.cast.speed import measure

    found = sorted((measure(size=size) for _ in range(runs)), key=lambda one: one.rate)
    speed = found[len(found) // 2]
    if as_json:
        output.print_json(speed)
    else:
        output.table(
            ["gbit/s of payload", "datagrams/s", "seconds", "cores"],
            [[f"{speed.rate / 1e9:.1f}", f"{speed.datagrams / speed.seconds:,.0f}", f"{speed.seconds:.1f}",
              f"{speed.cpu / speed.seconds:.2f}"]],
        )  # fmt: skip
