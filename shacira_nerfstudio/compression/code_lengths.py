"""What each letter costs in the file, for the rate term of training.

The file codes a symbol with a frequency table that depends on what is known about its entry before
it is read, and does not code entries that nothing reaches. Training looks every few hundred steps
at what the encoder would do with its latents now, and charges by these very classes: what it
minimises is what the file will cost.

While latents train with uniform noise instead of rounding, the cost of a noisy value v is ``-log2
P(v)``, with P(v) the share of latents within 1/2 of v: the density of noisy latents (SHACIRA, Eq.
4; Ballé et al., ICLR 2018, Appendix 6.1), counted instead of learned. At integers, and once
latents are rounded, it is the share of those that round to v.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec.latents.symbol_costs import CodeClasses
from shacira_nerfstudio.grid import GridSpec

LARGEST_LETTER = 63
"""Tables hold values from -63 to 63; beyond, a unit costs as much as between the last two."""
SOFT_LETTERS = 4
"""Letters per unit for noisy latents."""
_PRIOR = 16.0
"""Weight, in symbols, of the smooth distribution that a table's counts are mixed with: letters that
do not occur yet have a price, and prices of rare ones are no noise."""
_SOFT_PRIOR = 0.01
"""What is added to it for noisy latents, as a share of the symbols: nothing is so dear at first
that no latent leaves 0."""
_DECAYS = 0.3, 0.98
"""Of that distribution: what a unit makes of a share. However quiet a table is, a new letter in it
costs two bits more than the one before, not ten."""


@dataclass(frozen=True)
class CodeLengths:
    """Bits of letters in each table of the file."""

    bits: np.ndarray
    """float32 [T, 2 * 63 * letters_per_unit + 1], the middle one of 0."""
    letters_per_unit: int


def code_lengths(
    latents: np.ndarray, classes: CodeClasses, grid: GridSpec, *, is_soft: bool
) -> CodeLengths:
    """Bits of each letter in each table.

    Args:
        latents: float32 [E, d].
        is_soft: Whether latents train with noise, and values between integers have a price of
            their own.
    """
    density = SOFT_LETTERS if is_soft else 1
    num_letters = 2 * LARGEST_LETTER * density + 1
    middle = num_letters // 2
    # Of a letter's interval, the first bin of 1 / density lies so far below it.
    reach = density // 2
    counts = np.zeros((int(classes.first[-1]), num_letters + 2 * reach))
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        index, values = classes.index[begin:end].reshape(-1), latents[begin:end].reshape(-1)
        values, index = values[index >= 0], index[index >= 0].astype(np.int64)
        bins = np.floor(values * density) if is_soft else np.rint(values)
        bins = np.clip(bins, -middle, middle).astype(np.int64) + middle + reach
        first, last = classes.first[level], classes.first[level + 1]
        size = (last - first) * counts.shape[1]
        cells = np.bincount(index * counts.shape[1] + bins, minlength=size)
        counts[first:last] = cells.reshape(-1, counts.shape[1])
    windows = [counts[:, k : k + num_letters] for k in range(density)]
    counts = np.sum(windows, axis=0)
    return CodeLengths(_lengths(counts, density, _SOFT_PRIOR if is_soft else 0.0), density)


def _lengths(counts: np.ndarray, density: int, extra: float) -> np.ndarray:
    """``-log2`` of the shares of counts [T, W], mixed with a two-sided geometric distribution of
    the same centre and mean distance from it.

    Args:
        counts: Symbols within 1/2 of each letter; each counts at ``density`` letters, those of a
            unit.
        extra: Weight of that distribution beside the usual, as a share of the symbols.
    """
    middle = counts.shape[1] // 2
    letters = np.arange(-middle, middle + 1) / density
    total = counts.sum(1, keepdims=True) / density
    some = np.maximum(total * density, 1e-9)
    centre = np.rint(counts @ letters[:, None] / some)
    distance = np.abs(letters - centre)
    spread = np.maximum((counts * distance).sum(1, keepdims=True) / some, 1e-6)
    # With ratio r the mean distance is 2 r / (1 - r^2).
    ratio = np.clip((np.sqrt(1 + spread**2) - 1) / spread, *_DECAYS)
    prior = ratio**distance
    prior *= density / prior.sum(1, keepdims=True)
    weight = _PRIOR + extra * total
    shares = (counts + weight * prior) / (total + weight)
    return -np.log2(np.minimum(shares, 1)).astype(np.float32)
