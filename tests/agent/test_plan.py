import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed.agent.plan import ZERO_SLICE, make_plan, stretches
from pxed.images.chunk import CHUNK
from pxed.images.manifest import Manifest, ManifestError, PartitionTable

SECTOR = 512


def manifest_of(chunks: int, tail: int, stored: list[int], sector: int = SECTOR) -> Manifest:
    size = chunks * CHUNK + tail * sector
    names = b"".join(os.urandom(32) for _ in stored)
    return Manifest.build(size, sector, PartitionTable(), stored, names)


@given(st.data())
def test_every_byte_of_the_disk_is_laid_down_once_and_the_seal_last(data: st.DataObject) -> None:
    chunks, tail = data.draw(st.integers(1, 60)), data.draw(st.integers(0, CHUNK // SECTOR - 1))
    total = chunks + (tail > 0)
    stored = sorted(data.draw(st.sets(st.integers(0, total - 1))))
    manifest = manifest_of(chunks, tail, stored)
    lengths = [data.draw(st.integers(1, CHUNK)) for _ in stored]
    plan = make_plan(manifest, b"".join(length.to_bytes(4, "little") for length in lengths))

    pieces = [plan.piece(ordinal) for ordinal in range(plan.count)]
    head = [(0, plan.empty_head)] if plan.empty_head else []
    at = 0
    for offset, length in sorted([*((piece.offset, piece.length) for piece in pieces), *plan.zeros, *head]):
        assert offset == at
        at += length
    assert at == manifest.size
    edges = {0, *range((manifest.size - 34 * SECTOR) // CHUNK, total)}
    assert {pieces[ordinal].index for ordinal in plan.seal} == edges & set(stored)
    assert bool(plan.empty_head) == (0 not in stored), "the first chunk comes last even where it is zero"
    assert plan.stored == sum(lengths)
    at = 0
    for piece in pieces:
        assert (piece.stored_at, piece.stored) == (at, lengths[piece.ordinal])
        at += piece.stored


def test_neighbours_are_one_stretch_of_the_data() -> None:
    plan = make_plan(manifest_of(9, 0, [0, 1, 3, 5, 8]), (10).to_bytes(4, "little") * 5)
    assert stretches(plan.piece(ordinal) for ordinal in (0, 1, 2, 4)) == [(0, 30), (40, 50)]


def test_large_zero_runs_are_cut_so_that_a_job_can_be_stopped() -> None:
    plan = make_plan(manifest_of(1000, 0, [500]), (7).to_bytes(4, "little"))
    assert max(length for _, length in plan.zeros) == ZERO_SLICE


def test_a_backup_table_across_two_chunks_is_sealed_whole() -> None:
    plan = make_plan(manifest_of(5, 10, [0, 1, 2, 3, 4, 5]), (9).to_bytes(4, "little") * 6)
    assert plan.seal == (0, 4, 5)


def test_a_layout_of_another_image_is_refused() -> None:
    with pytest.raises(ManifestError):
        make_plan(manifest_of(5, 0, [1, 2]), bytes(4))
