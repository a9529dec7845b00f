"""Rooms in virtual time: the sender and the receivers as they are, hundreds of them, on lines made of chance.

Symbols are shorter than real ones, and so is a second's worth of them: how many datagrams there are, of how many
symbols a chunk is, what is reported and when, is as in a real room of the same rate. Nobody is moved to HTTP here.
"""

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pxed._ext.cast_virtual import VirtualCast
from pxed.bench.process import check_memory
from pxed.errors import OperatorError

__all__ = ["Room", "Row", "Table", "check", "plain_repair", "play", "rooms"]

CHUNK = 1 << 20  # bytes, that are stored as they are: random data
REAL_SYMBOL, SYMBOL = 1436, 64  # bytes
COMPARED = 4  # receivers that keep all bytes: for every one to do so, memory would not be enough
EVENT = 0.43  # of the ideal time: when one is killed
PATIENCE = 60.0  # virtual seconds beyond ten times the ideal ones until a room is given up


class Room(Struct, frozen=True, kw_only=True):
    """One row of the table. Losses are shares of the datagrams, bursts their mean length."""

    title: str = ""
    receivers: int = 300
    size: int = 200_000_000  # bytes of the image
    rate: float = 170e6  # bit/s of image data
    loss: float = 0.0  # at each by itself, of what comes and of what goes
    burst: float = 1.0
    common: float = 0.0  # at the server: of all together
    common_burst: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0
    killed: int = 0  # receivers, in the middle
    late: tuple[float, ...] = ()  # seconds, for a receiver each
    seed: int = 1

    @property
    def ideal(self) -> float:
        """Seconds that the rate alone takes."""
        return self.size * 8 / self.rate


class Row(Struct, frozen=True, kw_only=True):
    """What it came to. Times are virtual seconds since each one's start."""

    room: Room
    needed: int  # datagrams of the image
    sent: int
    parity: int  # of these
    plain: float | None  # datagrams for each needed one, if whatever anybody lost were sent again; computed
    reports: float  # bit/s at the server
    seconds: float | None  # the slowest; None: nobody was done
    late: list[float | None]
    undone: int  # receivers that should be
    wrong: int  # frames with wrong bytes, of those that were compared
    cpu: float  # seconds of this process, all receivers included

    @property
    def cost(self) -> float:
        """Datagrams for each needed one."""
        return self.sent / self.needed


class Table(Struct, frozen=True):
    """All rows of one run."""

    rows: list[Row]


def rooms(base: Room) -> list[Room]:
    """The whole table, for rooms of this size and rate."""
    some = max(base.receivers // 10, 1)
    late = (round(0.53 * base.ideal, 1), round(0.96 * base.ideal, 1))
    options: tuple[dict[str, Any], ...] = (
        {"title": "no loss"},
        {"title": "1 % at each", "loss": 0.01},
        {"title": "5 % at each", "loss": 0.05},
        {"title": "1 % at each, 20 in a row", "loss": 0.01, "burst": 20.0},
        {"title": "1 % at the server", "common": 0.01},
        {"title": "1 % at each, doubled, mixed", "loss": 0.01, "duplicate": 0.01, "reorder": 0.01},
        {"title": f"1 % at each, {some} killed", "loss": 0.01, "killed": some},
        {"title": "1 % at each, two late", "loss": 0.01, "late": late},
    )
    return [replace(base, **one) for one in options]


def check(room: Room) -> None:
    """Raises OperatorError when it cannot be played."""
    hit = room.killed + len(room.late)
    if hit >= room.receivers:
        raise OperatorError(f"Something happens to {hit} of {room.receivers} receivers: one must be left.")
    if room.rate < 1e6 or room.size < 1:
        raise OperatorError("A virtual room has an image, and a rate of at least 1Mbit.")
    check_memory(room.size * SYMBOL // REAL_SYMBOL)


def plain_repair(loss: float, receivers: int) -> float:
    """Datagrams for each needed one when each is sent again until nobody lacks it, with independent losses."""
    total, left = 1.0, loss
    while left > 1e-12:
        total += 1 - (1 - left) ** receivers
        left *= loss
    return total


def play(room: Room, progress: Callable[[float], None] = lambda share: None) -> Row:
    """Image the room; `progress` is told the share of the ideal time that has passed."""
    made = VirtualCast(
        _lengths(room.size), SYMBOL, round(room.rate / 8 * SYMBOL / REAL_SYMBOL), seed=room.seed, common=room.common,
        common_burst=room.common_burst, machines=room.receivers,
    )  # fmt: skip
    dies = EVENT * room.ideal
    unhurt = room.receivers - room.killed - len(room.late)
    for i in range(room.receivers):
        dead = unhurt <= i < unhurt + room.killed
        joins = room.late[i - unhurt - room.killed] if i >= unhurt + room.killed else 0.0
        made.add(
            loss=room.loss, burst=room.burst, duplicate=room.duplicate, reorder=room.reorder, joins=joins,
            dies=dies if dead else 0.0, keep=i < COMPARED or joins > 0,
        )  # fmt: skip
    began = time.process_time()
    at, done = 0.0, False
    while not done and at < 10 * room.ideal + PATIENCE:
        at += room.ideal / 20
        done = made.run(at)
        if at < room.ideal:
            progress(at / room.ideal)
    return _row(room, made, unhurt, time.process_time() - began)


def _lengths(size: int) -> list[int]:
    """Of the frames, in our symbols: as many in each as there would be real ones."""
    whole, rest = divmod(size, CHUNK)
    return [_scaled(CHUNK)] * whole + ([_scaled(rest)] if rest else [])


def _scaled(stored: int) -> int:
    whole, rest = divmod(stored, REAL_SYMBOL)
    return whole * SYMBOL + -(-rest * SYMBOL // REAL_SYMBOL)


def _row(room: Room, made: VirtualCast, unhurt: int, cpu: float) -> Row:
    machines = [made.machine(i) for i in range(room.receivers)]
    others = [machine["done"] for machine in machines[:unhurt]]
    late = [machine["done"] for machine in machines[unhurt + room.killed :]]
    figures = made.figures()
    # What is known of losses in bursts and of latecomers is not enough for a formula.
    simple = room.burst == 1 and not (room.common or room.killed or room.late)
    return Row(
        room=room,
        needed=int(figures["needed"]),
        sent=int(figures["sent"]),
        parity=int(figures["parity"]),
        plain=plain_repair(room.loss, room.receivers) if simple else None,
        reports=figures["report_bytes"] * 8 / figures["time"],
        seconds=max((seconds for seconds in others if seconds is not None), default=None),
        late=late,
        undone=(others + late).count(None),
        wrong=sum(int(machine["compared_wrong"] or 0) for machine in machines),
        cpu=cpu,
    )
