"""What each symbol costs in the file, for the rate term of training.

The file codes a symbol with a frequency table that depends on what is known about its entry before
it is read, and does not code entries that nothing reaches. Every few hundred steps training asks
what the encoder would do with its latents now, and charges by these very classes: what it
minimises is what the file will cost.

While latents train with uniform noise instead of rounding, the cost of a noisy value v is ``-log2
P(v)``, with P(v) the share of latents within 1/2 of v: the density of noisy latents (SHACIRA, Eq.
4; Ballé et al., ICLR 2018, Appendix 6.1), counted instead of learned. At integers, and once
latents are rounded, it is the share of those that round to v.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.codec.latents.symbol_costs import CodeClasses, symbol_costs
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.rate_models import LARGEST_VALUE

SOFT_BINS_PER_UNIT = 4
"""Bins per unit for noisy latents."""
_PRIOR = 16.0
"""Weight, in symbols, of the smooth distribution that a table's counts are mixed with: symbols that
do not occur yet have a cost, and costs of rare ones are no noise."""
_SOFT_PRIOR = 0.01
"""What is added to it for noisy latents, as a share of the symbols: nothing costs so much at
first that no latent leaves 0."""
_DECAYS = 0.3, 0.98
"""Of that distribution: what a unit makes of a share. However narrow a table is, a new symbol in
it costs two bits more than the one before, not ten."""


def code_lengths(
    latents: np.ndarray, classes: CodeClasses, grid: GridSpec, *, is_soft: bool
) -> np.ndarray:
    """Bits of each value in each table, float32 [T, 2 * 63 * bins_per_unit + 1], the middle one
    of 0.

    Args:
        latents: float32 [E, d].
        is_soft: Whether latents train with noise, and values between integers have a cost of
            their own.
    """
    bins_per_unit = SOFT_BINS_PER_UNIT if is_soft else 1
    num_values = 2 * LARGEST_VALUE * bins_per_unit + 1
    middle = num_values // 2
    # Of a value's interval, the first bin lies so far below it.
    reach = bins_per_unit // 2
    counts = np.zeros((int(classes.first[-1]), num_values + 2 * reach))
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        index, values = classes.index[begin:end].reshape(-1), latents[begin:end].reshape(-1)
        values, index = values[index >= 0], index[index >= 0].astype(np.int64)
        bins = np.floor(values * bins_per_unit) if is_soft else np.rint(values)
        bins = np.clip(bins, -middle, middle).astype(np.int64) + middle + reach
        first, last = classes.first[level], classes.first[level + 1]
        size = (last - first) * counts.shape[1]
        cells = np.bincount(index * counts.shape[1] + bins, minlength=size)
        counts[first:last] = cells.reshape(-1, counts.shape[1])
    windows = [counts[:, k : k + num_values] for k in range(bins_per_unit)]
    counts = np.sum(windows, axis=0)
    return _lengths(counts, bins_per_unit, _SOFT_PRIOR if is_soft else 0.0)


def _lengths(counts: np.ndarray, bins_per_unit: int, extra: float) -> np.ndarray:
    """``-log2`` of the shares of counts [T, W], mixed with a two-sided geometric distribution of
    the same centre and mean distance from it.

    Args:
        counts: Latents within 1/2 of each value; each counts at all values of a unit.
        extra: Weight of that distribution beside the usual, as a share of the symbols.
    """
    middle = counts.shape[1] // 2
    values = np.arange(-middle, middle + 1) / bins_per_unit
    total = counts.sum(1, keepdims=True) / bins_per_unit
    num_counts = np.maximum(total * bins_per_unit, 1e-9)
    centre = np.rint(counts @ values[:, None] / num_counts)
    distance = np.abs(values - centre)
    spread = np.maximum((counts * distance).sum(1, keepdims=True) / num_counts, 1e-6)
    # With ratio r the mean distance is 2 r / (1 - r^2).
    ratio = np.clip((np.sqrt(1 + spread**2) - 1) / spread, *_DECAYS)
    prior = ratio**distance
    prior *= bins_per_unit / prior.sum(1, keepdims=True)
    weight = _PRIOR + extra * total
    shares = (counts + weight * prior) / (total + weight)
    return -np.log2(np.minimum(shares, 1)).astype(np.float32)


def entry_bits_of(packed: PackedScene) -> Float[Tensor, " E"]:
    """What each entry costs in the file, its channels together: 0 where nothing reaches, and in
    levels that are missing. Takes as long as encoding, since the encoder's choices are made anew.

    Their sum is the file's latents but for models and frequency tables.
    """
    grid, present = packed.grid, packed.num_coded_levels
    costs = symbol_costs(grid, packed.symbols, packed.occupancy).symbol.sum(1)
    costs[grid.offsets[present] :] = 0
    return torch.from_numpy(costs)
