"""Ranges of an image's data are the slices of the whole, however its frames are spread over packs."""

from hypothesis import given
from hypothesis import strategies as st

from pxed.images.reading import DataMap
from pxed.images.store import Place


@given(st.data())
def test_ranges_are_slices(data: st.DataObject) -> None:
    places: list[Place] = []
    ends = [0, 0, 0]
    for number in range(data.draw(st.integers(0, 12))):
        if places and data.draw(st.booleans()):
            places.append(data.draw(st.sampled_from(places)))  # a chunk that repeats
            continue
        pack, stored = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 9))
        ends[pack] += data.draw(st.sampled_from([0, 0, 3]))  # somebody else's frame between
        places.append(Place(number, b"", pack, ends[pack], stored, 1, 0))
        ends[pack] += stored
    data_map = DataMap(places)
    whole = [(place.pack, place.offset + k) for place in places for k in range(place.stored)]
    assert data_map.size == len(whole)
    start = data.draw(st.integers(0, len(whole) + 2))
    stop = data.draw(st.integers(0, len(whole) + 5))
    found = data_map.locate(start, stop)
    assert [(pack, offset + k) for pack, offset, length in found for k in range(length)] == whole[start:stop]
    assert all(length > 0 for _, _, length in found)
    assert data_map.runs <= max(1, len(places))
