"""How the encoder picks channel models: whatever makes a section shortest. Decoders skip it.

Choices follow from integers alone (see ``tables.log2_fixed``), so encoding a decoded scene repeats
them exactly.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from shacira_nerfstudio.codec.contexts import Features
from shacira_nerfstudio.codec.latents import MAX_THRESHOLDS, MAX_VALUE_REACH, ChannelModel
from shacira_nerfstudio.codec.tables import FIXED, log2_fixed

_SUPPORT_AND_MAGNITUDE = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (1, 2))
_PREVIOUS = (0, 1, 2, 4, 8, 16, 32)
_NUM_BINS, _FEW_BINS = 24, 12
"""Thresholds are looked for among so many equally full ranges of the score; weights among fewer."""

_MAX_SAMPLES = 1 << 16
"""Entries on which weights are compared; thresholds are chosen on all."""

_TABLE_BITS = 8 << FIXED
_LETTER_BITS = 5 << FIXED
"""Guess at the length of a frequency table: 8 bits and 5 for each symbol that occurs in it."""

_IMPOSSIBLE = 1 << 60
"""Cost of a range that ends before it begins."""


def choose_models(symbols: np.ndarray, features: Features) -> list[ChannelModel]:
    """One model per channel for the reached entries of one level.

    Args:
        symbols: [n, d].
        features: Of the same n entries.
    """
    stride = -(-max(len(symbols), 1) // _MAX_SAMPLES)
    few = Features(features.support[::stride], features.magnitude[::stride])
    models = []
    for channel in range(symbols.shape[1]):
        values, earlier = symbols[:, channel], symbols[:, :channel]
        sample = _Sample(values[::stride], few, earlier[::stride], stride)
        weights = _SUPPORT_AND_MAGNITUDE if few.support.any() else _SUPPORT_AND_MAGNITUDE[:1]
        best = sample.best([ChannelModel(support, magnitude) for support, magnitude in weights])
        if channel:
            best = sample.best([replace(best, previous_weight=w) for w in _PREVIOUS])
            reaches = [replace(best, value_reach=r) for r in range(MAX_VALUE_REACH + 1)]
            # With the value itself in the class, its magnitude may no longer be wanted in the
            # score.
            reaches += [replace(model, previous_weight=0) for model in reaches[1:]]
            best = sample.best(reaches)
        models.append(_Sample(values, features, earlier, 1).with_thresholds(best))
    return models


class _Sample:
    """One channel's symbols, on which models are compared."""

    def __init__(
        self, values: np.ndarray, features: Features, earlier: np.ndarray, stride: int
    ) -> None:
        self._features = features
        self._earlier = earlier
        self._stride = stride
        low = int(values.min()) if len(values) else 0
        self._letters = values.astype(np.int64) - low
        self._num_letters = int(self._letters.max()) + 1 if len(values) else 1

    def best(self, models: list[ChannelModel]) -> ChannelModel:
        """The model with the fewest bits; the first of equals."""
        return min(models, key=lambda model: self._plan(model, _FEW_BINS)[0])

    def with_thresholds(self, model: ChannelModel) -> ChannelModel:
        return replace(model, thresholds=self._plan(model, _NUM_BINS)[1])

    def _plan(self, model: ChannelModel, num_bins: int) -> tuple[int, tuple[int, ...]]:
        """Bits of the best thresholds for a model's weights, in 2^-16, and these thresholds."""
        edges, counts = self._histogram(model, num_bins)
        costs = _range_costs(counts, self._stride)
        num_bins = len(counts)  # fewer than asked for when few scores occur
        # bits[k][j]: fewest for the first j bins in k + 1 classes, the last of which begins at
        # bin begins[k][j].
        bits, begins = [costs[0]], [np.zeros(num_bins + 1, dtype=np.int64)]
        for _ in range(min(MAX_THRESHOLDS, num_bins - 1)):
            totals = bits[-1][:, None] + costs
            begins.append(totals.argmin(axis=0))
            bits.append(totals.min(axis=0))
        count = min(range(len(bits)), key=lambda k: bits[k][num_bins])
        end, thresholds = num_bins, []
        for k in range(count, 0, -1):
            end = int(begins[k][end])
            thresholds.append(int(edges[end]))
        return int(bits[count][num_bins]), tuple(reversed(thresholds))

    def _histogram(self, model: ChannelModel, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
        """Lowest score of each bin, and counts [bin, clipped previous value, letter]."""
        scores = model.scores(self._features, self._earlier)
        occurring = np.bincount(scores) if len(scores) else np.ones(1, dtype=np.int64)
        below = np.cumsum(occurring) - occurring
        bins = below * num_bins // max(len(scores), 1)
        bins[occurring == 0] = -1
        numbers, first = np.unique(bins, return_index=True)
        if numbers[0] < 0:
            numbers, first = numbers[1:], first[1:]
        position = np.searchsorted(numbers, bins)
        width = 2 * model.value_reach + 1
        cell = (position[scores] * width + model.clipped(self._earlier)) * self._num_letters
        size = len(numbers) * width * self._num_letters
        counts = np.bincount(cell + self._letters, minlength=size)
        return first, counts.reshape(len(numbers), width, self._num_letters)


def _range_costs(counts: np.ndarray, stride: int) -> np.ndarray:
    """Bits of one class over bins i … j - 1, tables included, at [i, j] in 2^-16 bit."""
    num_bins = len(counts)
    sums = np.concatenate([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])
    begin, end = np.triu_indices(num_bins + 1, k=1)
    inside = sums[end] - sums[begin]
    totals = inside.sum(axis=-1)
    bits = _n_log_n(totals) - _n_log_n(inside).sum(axis=-1)
    tables = (totals > 0) * _TABLE_BITS + (inside > 0).sum(axis=-1) * _LETTER_BITS
    costs = np.full((num_bins + 1, num_bins + 1), _IMPOSSIBLE)
    costs[begin, end] = (bits * stride + tables).sum(axis=-1)
    return costs


def _n_log_n(counts: np.ndarray) -> np.ndarray:
    """``n log2 n`` in 2^-16 bit, 0 at 0."""
    small = _small_logarithms()
    logs = small[np.minimum(counts, len(small) - 1)]
    large = counts >= len(small)
    if large.any():
        logs[large] = log2_fixed(counts[large])
    return counts * logs


@lru_cache(maxsize=1)
def _small_logarithms() -> np.ndarray:
    """:func:`log2_fixed` of 0 (taken as 0) to 2^16 - 1; most counts are that small."""
    return np.concatenate([[0], log2_fixed(np.arange(1, 1 << 16))])
