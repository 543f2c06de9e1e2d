"""What training knows of each entry is what the codec will know."""

import numpy as np

from shacira_nerfstudio.backends import NOT_CODED
from shacira_nerfstudio.codec.contexts import entry_magnitudes, level_features, reached_entries
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.rate_contexts import MAGNITUDES, NUM_CLASSES, context_classes

GRID = GridSpec.create(num_levels=4, base_res=4, max_res=32, log2_hashmap_size=10)


def scene():
    random = np.random.default_rng(0)
    symbols = random.integers(-6, 7, (GRID.num_entries, 1)).astype(np.int16)
    symbols[random.random(GRID.num_entries) < 0.7] = 0
    occupied = np.zeros((8, 8, 8), dtype=bool)
    occupied[2:4, 3:5, 1:6] = True
    return symbols, occupied


def test_what_nothing_reaches_is_not_coded():
    symbols, occupied = scene()
    classes = context_classes(symbols, occupied, GRID)
    assert classes.dtype == np.uint8
    for level, (begin, end) in enumerate(zip(GRID.offsets[:-1], GRID.offsets[1:], strict=True)):
        reached = reached_entries(GRID, level, occupied)
        assert 0 < reached.sum() < len(reached)
        assert np.array_equal(classes[begin:end] != NOT_CODED, reached)


def test_classes_follow_the_magnitude_of_the_coarser_level():
    symbols, occupied = scene()
    classes = context_classes(symbols, occupied, GRID)
    offsets = GRID.offsets
    assert set(classes[: offsets[1]]) <= {0, NOT_CODED}  # nothing is coarser
    for level in range(1, GRID.num_levels):
        coarser = entry_magnitudes(symbols[offsets[level - 1] : offsets[level]])
        features = level_features(GRID, level, occupied, coarser)
        here = classes[offsets[level] : offsets[level + 1]]
        for kind in range(NUM_CLASSES):
            members = features.magnitude[here == kind]
            assert not kind or (members >= MAGNITUDES[kind - 1]).all()
            assert kind == NUM_CLASSES - 1 or (members < MAGNITUDES[kind]).all()
    assert len(set(classes) - {NOT_CODED}) > 4


def test_without_occupancy_everything_is_coded():
    symbols, _ = scene()
    classes = context_classes(symbols, None, GRID)
    assert not (classes == NOT_CODED).any()
