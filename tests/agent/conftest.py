"""A machine, and an agent that loses no time with pauses."""

import random
from pathlib import Path

import pytest

from pxed.agent.server import Patience
from support.agent_machine import FakeMachine
from support.image_server import StoredImage, store

CHUNK = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "machine")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "FIRST", 0.01)
    monkeypatch.setattr(Patience, "LAST", 0.05)


def disk_bytes(chunks: int, tail: int = 0, *, zero: tuple[int, ...] = (), seed: int = 1) -> bytes:
    """A disk of random chunks (half of each compresses well), some of them zero, and a short last one."""
    rng = random.Random(seed)
    parts = [
        bytes(CHUNK) if index in zero else rng.randbytes(CHUNK // 64) + bytes([index % 255 + 1]) * (CHUNK - CHUNK // 64)
        for index in range(chunks)
    ]
    return b"".join(parts) + rng.randbytes(tail)


@pytest.fixture
def disk() -> bytes:
    """30 chunks and a bit: several batches, zero runs in the middle, an odd tail."""
    return disk_bytes(30, 512 * 77, zero=(3, 4, 5, 11, 20))


@pytest.fixture
def image(disk: bytes) -> StoredImage:
    return store(disk)
