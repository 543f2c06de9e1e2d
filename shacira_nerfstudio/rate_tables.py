"""What each letter costs in the file, for the rate term of training.

The file codes a symbol with a frequency table that depends on what is known about its entry before
it is read, and does not code entries that nothing reaches. Training looks every few hundred steps
at what the encoder would do with its latents now, and charges by these very tables: what it
minimises is what the file will cost.
"""

from __future__ import annotations

import itertools

import numpy as np

from shacira_nerfstudio.codec.costs import CodeClasses
from shacira_nerfstudio.grid import GridSpec

LARGEST_LETTER = 63
"""Tables hold the letters -63 to 63; beyond, a letter costs as much more as between the last
two."""
_PRIOR = 16.0
"""Weight, in symbols, of the smooth distribution that a table's counts are mixed with: letters that
do not occur yet have a price, and prices of rare ones are no noise."""
_DECAYS = 0.3, 0.98
"""Of that distribution: what a letter is likelier than the next. However quiet a table is, a new
letter in it costs two or three bits more than the one before, not ten."""


def code_lengths(
    latents: np.ndarray, classes: CodeClasses, grid: GridSpec, *, is_soft: bool
) -> np.ndarray:
    """Bits of each letter in each table, float32 [T, 127].

    Args:
        latents: float32 [E, d].
        is_soft: Counts what latents become with uniform noise in [-1/2, 1/2) before they are
            rounded: with f the fraction above the integer k below, k with probability 1 - f, else
            k + 1. Otherwise what they are rounded to.
    """
    num_letters = 2 * LARGEST_LETTER + 1
    counts = np.zeros((int(classes.first[-1]), num_letters))
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        index = classes.index[begin:end].reshape(-1)
        values = np.clip(latents[begin:end], -LARGEST_LETTER, LARGEST_LETTER).reshape(-1)
        values, index = values[index >= 0], index[index >= 0].astype(np.int64)
        low = np.floor(values) if is_soft else np.rint(values)
        share = values - low if is_soft else None
        cells = index * num_letters + low.astype(np.int64) + LARGEST_LETTER
        first, last = classes.first[level], classes.first[level + 1]
        size = (last - first) * num_letters
        total = np.bincount(cells, None if share is None else 1 - share, minlength=size)
        if share is not None:
            # The last letter has share 0 and no next one.
            total = total + np.bincount(cells + 1, share, minlength=size + 1)[:size]
        counts[first:last] = total.reshape(-1, num_letters)
    return _lengths(counts)


def _lengths(counts: np.ndarray) -> np.ndarray:
    """``-log2`` of the shares of counts [T, 127], mixed with a two-sided geometric distribution of
    the same centre and mean distance from it."""
    letters = np.arange(-LARGEST_LETTER, LARGEST_LETTER + 1)
    total = counts.sum(1, keepdims=True)
    some = np.maximum(total, 1e-9)
    centre = np.rint(counts @ letters[:, None] / some)
    distance = np.abs(letters - centre)
    spread = np.maximum((counts * distance).sum(1, keepdims=True) / some, 1e-6)
    # With ratio r the mean distance is 2 r / (1 - r^2).
    ratio = np.clip((np.sqrt(1 + spread**2) - 1) / spread, *_DECAYS)
    prior = ratio**distance
    prior /= prior.sum(1, keepdims=True)
    shares = (counts + _PRIOR * prior) / (total + _PRIOR)
    return -np.log2(shares).astype(np.float32)
