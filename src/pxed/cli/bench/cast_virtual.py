"""`pxed bench cast --virtual`."""

from typing import TYPE_CHECKING

from pxed.cli import output
from pxed.errors import OperatorError

if TYPE_CHECKING:
    from pxed.bench.cast.virtual import Room, Row, Table

__all__ = ["measure"]


def measure(base: "Room", as_json: bool) -> None:
    """Play the room, or all rooms of the table when nothing happens in it; raises OperatorError when one fails."""
    from pxed.bench.cast.virtual import Room, Table, check, play, rooms

    check(base)
    plain = Room(receivers=base.receivers, size=base.size, rate=base.rate, seed=base.seed)
    chosen = rooms(base) if base == plain else [base]
    table = Table([])
    with output.progress("imaging rooms", unit="rooms") as show:
        for room in chosen:
            table.rows.append(play(room, lambda share: show(len(table.rows) + share, len(chosen))))
        show(len(chosen), len(chosen))
    _show(base, table, as_json)
    if bad := [row for row in table.rows if row.undone or row.wrong]:
        told = (f"{row.room.title or 'as asked'}: {row.undone} without it, {row.wrong} chunks wrong" for row in bad)
        raise OperatorError(f"Not every receiver got the image: {'; '.join(told)}.")


def _show(base: "Room", table: "Table", as_json: bool) -> None:
    if as_json:
        output.print_json(table)
        return
    output.note(
        f"{output.count(base.receivers, 'receiver')} in virtual time, {base.size / 1e6:.0f} MB at "
        f"{base.rate / 1e6:g} Mbit/s of data: {base.ideal:.1f} s at best. WIRE: datagrams for each needed one; "
        "PLAIN REPAIR: what it would be if whatever somebody lost were sent again (computed)"
    )
    output.table(["case", "wire", "plain repair", "parity", "slowest", "late ones", "reports", "CPU s"], [
        _row(row) for row in table.rows
    ])  # fmt: skip


def _row(row: "Row") -> list[str]:
    return [
        row.room.title or "as asked", f"{row.cost:.3f}", "" if row.plain is None else f"{row.plain:.2f}",
        f"{row.parity / row.needed:.1%}", _seconds(row.seconds), ", ".join(map(_seconds, row.late)),
        f"{row.reports / 1e6:.2f} Mbit/s", f"{row.cpu:.1f}",
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    return "not done" if value is None else f"{value:.2f} s"
