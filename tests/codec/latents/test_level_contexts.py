"""What is known of entries before each pass: by hand, and level after level."""

import numpy as np
import pytest

from shacira_nerfstudio.codec.latents.features import (
    Features,
    entry_magnitudes,
    level_features,
    neighbour_magnitudes,
    reached_entries,
)
from shacira_nerfstudio.codec.latents.level_contexts import CodingContext, LevelCoding
from shacira_nerfstudio.codec.latents.level_slabs import TouchedSlabs
from shacira_nerfstudio.grid import GridSpec


def test_what_is_known_by_hand():
    """Entries 1, 2, 3, 6 and 9 are reached: only 3 has a partner that is."""
    entries = np.array([1, 2, 3, 6, 9])
    features = Features(
        np.arange(1, 6, dtype=np.uint8),
        np.arange(5, dtype=np.uint8),
        np.arange(7, 12, dtype=np.uint8),
    )
    given = []

    def neighbours(magnitudes):
        given.append(magnitudes.tolist())
        return np.arange(100, 110, dtype=np.uint8)

    coding = LevelCoding(features, entries, neighbours, table_size=10)
    symbols = np.array([[30, -7, 2, 0, 1], [4, 5, 0, -60, 0]], dtype=np.int16)
    whole, first, second = (
        coding.pass_features(symbols, 1, number, is_split=split)
        for number, split in ((0, False), (0, True), (1, True))
    )
    assert whole.touched_cells.tolist() == [1, 2, 3, 4, 5]
    assert whole.earlier_magnitude.tolist() == [30, 7, 2, 0, 1]
    assert first.previous.tolist() == [-7, 0] and not first.partner.any()
    assert second.parent_magnitude.tolist() == [0, 2, 4]
    assert second.partner.tolist() == [0, 5, 0]
    assert second.grandparent_magnitude.tolist() == [7, 9, 11]
    # Entries 2 and 6 came in the first pass, and 1, 3 and 9 come in the second.
    assert given == [[0, 0, 5, 0, 0, 0, 31, 0, 0, 0]]
    assert (
        second.neighbour_magnitude.tolist() == [101, 103, 109]
        and not first.neighbour_magnitude.any()
    )
    spared = coding.pass_features(symbols, 1, 1, is_split=True, with_neighbours=False)
    assert len(given) == 1 and not spared.neighbour_magnitude.any()
    assert not coding.pass_features(symbols, 0, 0, is_split=False).previous.any()


@pytest.mark.parametrize("is_occupied", [True, False])
def test_levels_in_their_order(is_occupied):
    """Parent and grandparent of a level, its coded entries, and neighbours of odd ones."""
    grid = GridSpec(2, ((3, 4), (6, 5), (12, 9)), (16, 32, 112))
    rng = np.random.default_rng(0)
    occupancy = rng.random((3, 5)) < 0.5 if is_occupied else None
    tables = [rng.integers(-9, 10, (size, 2)).astype(np.int16) for size in grid.table_sizes]
    context, coarser = CodingContext(grid, occupancy, 2), None
    for level, table in enumerate(tables):
        coding = context.level(level, coarser)
        coarser = table
    slabs = TouchedSlabs(grid, 2, occupancy)
    magnitudes = [entry_magnitudes(table) for table in tables]
    features = level_features(slabs, magnitudes[1], magnitudes[0])
    if is_occupied:
        reached = np.flatnonzero(reached_entries(grid, 2, occupancy))
        assert coding.entries.tolist() == reached.tolist()
    else:
        assert coding.entries is None
        reached = np.arange(112)
    assert coding.count == len(reached) > 20
    by_channel = np.ascontiguousarray(tables[2][reached].T)
    found = coding.pass_features(by_channel, 1, 1, is_split=True)
    odd = reached[reached % 2 == 1]
    assert np.array_equal(found.touched_cells, features.touched_cells[odd])
    assert np.array_equal(found.parent_magnitude, features.parent_magnitude[odd])
    assert np.array_equal(found.grandparent_magnitude, features.grandparent_magnitude[odd])
    sizes = np.zeros(112, dtype=np.uint8)
    even = reached[reached % 2 == 0]
    sizes[even] = np.abs(tables[2][even, 1])
    assert np.array_equal(found.neighbour_magnitude, neighbour_magnitudes(slabs, sizes)[odd])
