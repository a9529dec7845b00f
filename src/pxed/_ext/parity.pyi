"""Parity symbols of cast frames, for tests."""

def encode(frame: bytes, symbol: int, block: int, parities: list[int]) -> list[bytes]:
    """The parity symbols of these numbers of one block. ValueError for what no frame has."""

def repair(frame: bytes, symbol: int, block: int, missing: list[int], parities: dict[int, bytes]) -> bytes | None:
    """The frame with the missing source symbols of one block computed; None when more are missing than `parities` has.

    `missing` are symbols of the whole frame; what stands in their places does not matter. `parities`: number within
    the block -> symbol. ValueError for what no frame has.
    """
