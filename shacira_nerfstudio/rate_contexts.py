"""What the codec will know of each entry, for the rate term of training.

The file codes an entry with a frequency table that depends on how busy the coarser level is around
it, and does not code entries that nothing reaches (codec/contexts.py). Training that assumes one
density per level charges for the wrong things; with these classes, each with a density of its own,
what it minimises is what the file will cost.
"""

from __future__ import annotations

import itertools

import numpy as np

from shacira_nerfstudio.backends import NOT_CODED
from shacira_nerfstudio.codec.contexts import (
    crowded_levels,
    entry_magnitudes,
    level_features,
)
from shacira_nerfstudio.grid import GridSpec

MAGNITUDES = np.array([1, 2, 3, 5, 9, 17, 33])
"""Where classes begin: magnitudes of the coarser level's cell around an entry, finer where most
entries are. The encoder chooses its own thresholds, level by level, by the bytes they save."""
NUM_CLASSES = len(MAGNITUDES) + 1


def context_classes(symbols: np.ndarray, occupied: np.ndarray | None, grid: GridSpec) -> np.ndarray:
    """Class of each entry, uint8 [E]; 255 for those that cost nothing.

    Args:
        symbols: Rounded latents [E, d].
        occupied: bool [G] * D, or None if everything is reached.
    """
    classes = np.zeros(grid.num_entries, dtype=np.uint8)
    crowded = crowded_levels(grid, occupied)
    coarser = None
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        if not crowded[level]:
            features = level_features(grid, level, occupied, coarser)
            kinds = np.searchsorted(MAGNITUDES, features.magnitude, side="right")
            if occupied is not None:
                kinds[features.support == 0] = NOT_CODED
            classes[begin:end] = kinds
        coarser = entry_magnitudes(symbols[begin:end])
    return classes
