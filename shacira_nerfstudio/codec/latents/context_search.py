"""How the encoder picks context models: whatever makes a section shortest. Decoders skip it.

Choices follow from integers alone (see ``frequency_table.log2_fixed``), so encoding a decoded scene
repeats them exactly.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from types import ModuleType

import numpy as np

from shacira_nerfstudio.codec.compiled import load_kernels
from shacira_nerfstudio.codec.entropy.frequency_table import FIXED, log2_fixed
from shacira_nerfstudio.codec.latents.context_model import (
    MAX_REACH,
    MAX_THRESHOLDS,
    ContextModel,
    PassFeatures,
)
from shacira_nerfstudio.codec.latents.features import MAX_ENTRY_MAGNITUDE
from shacira_nerfstudio.codec.latents.level_contexts import LevelCoding

_KERNELS = "shacira_nerfstudio.codec.latents.context_search_numba"
_TOUCHED_AND_PARENT = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (1, 2))
_GRANDPARENT = (0, 1, 2, 4)
_WEIGHTS = (0, 1, 2, 4, 8, 16, 32)
_NUM_BINS, _FEW_BINS = 24, 12
"""Thresholds are looked for among so many equally full ranges of the score; weights among fewer."""

_MAX_SAMPLES = 1 << 16
"""Entries on which weights are compared; thresholds are chosen on all."""
_MAX_ESTIMATE_SAMPLES = 1 << 12
"""Of an estimate, which chooses thresholds on ``_MAX_SAMPLES``."""

_TABLE_BITS = 8 << FIXED
_SYMBOL_BITS = 5 << FIXED
"""Guess at the length of a frequency table: 8 bits and 5 for each symbol that occurs in it."""

_PASS_BITS = 20 << FIXED
"""Guess at the length of a pass's weights, reaches and thresholds."""

_IMPOSSIBLE = 1 << 60
"""Cost of a range that ends before it begins."""


def choose_models(
    symbols: np.ndarray,
    coding: LevelCoding,
    *,
    is_estimate: bool = False,
    fast: bool | None = None,
) -> list[tuple[ContextModel, ...]]:
    """Per channel the models of its one or two passes, for the coded entries of one level.

    Args:
        symbols: [n, d].
        is_estimate: Look at few entries: seven times faster on large tables, and nearly as good.
        fast: As in :func:`encode_scene`; the choice is the same.
    """
    kernels = load_kernels(_KERNELS, fast)
    by_channel = np.ascontiguousarray(symbols.T)
    return [
        min(
            (
                _choose_passes(by_channel, coding, channel, is_split, is_estimate, kernels)
                for is_split in (False, True)
            ),
            key=lambda choice: choice[0],
        )[1]
        for channel in range(len(by_channel))
    ]


def _choose_passes(
    symbols: np.ndarray,
    coding: LevelCoding,
    channel: int,
    is_split: bool,
    is_estimate: bool,
    kernels: ModuleType | None,
) -> tuple[int, tuple[ContextModel, ...]]:
    """Bits of a channel coded in one or two passes, in 2^-16, and the models of these."""
    most, most_of_all = (
        (_MAX_ESTIMATE_SAMPLES, _MAX_SAMPLES) if is_estimate else (_MAX_SAMPLES, 1 << 62)
    )
    total, models = 0, []
    for number, chosen in enumerate(coding.passes(is_split)):
        features = coding.pass_features(symbols, channel, number, is_split=is_split)
        values = symbols[channel][chosen]
        sample = _Sample.of(values, features, most, kernels)
        model = _best_weights(sample, has_previous=channel > 0, has_partner=number > 0)
        whole = _Sample.of(values, features, most_of_all, kernels)
        bits, thresholds = whole.plan(model, _NUM_BINS)
        total += bits + _PASS_BITS
        models.append(replace(model, thresholds=thresholds))
    return total, tuple(models)


def _best_weights(sample: _Sample, *, has_previous: bool, has_partner: bool) -> ContextModel:
    """Weights and reaches, one kind after the other; thresholds are left out."""
    weights = _TOUCHED_AND_PARENT if sample.has_features else _TOUCHED_AND_PARENT[:1]
    best = sample.best([ContextModel(touched, parent) for touched, parent in weights])
    if sample.has_grandparent:
        best = sample.best([replace(best, grandparent_weight=w) for w in _GRANDPARENT])
    if sample.has_neighbours:
        best = sample.best([replace(best, neighbour_weight=w) for w in _WEIGHTS])
    for name, is_there in (("previous", has_previous), ("partner", has_partner)):
        if not is_there:
            continue
        weight, reach = f"{name}_weight", f"{name}_reach"
        best = sample.best([replace(best, **{weight: w}) for w in _WEIGHTS])
        reaches = [replace(best, **{reach: r}) for r in range(MAX_REACH + 1)]
        # With the value itself in the class, its magnitude may no longer be wanted in the score.
        reaches += [replace(model, **{weight: 0}) for model in reaches[1:]]
        best = sample.best(reaches)
    return best


class _Sample:
    """Symbols of one pass, on which models are compared."""

    def __init__(
        self,
        values: np.ndarray,
        features: PassFeatures,
        stride: int,
        kernels: ModuleType | None,
    ) -> None:
        self._features = features.contiguous()
        self._stride, self._kernels = stride, kernels
        low = int(values.min()) if len(values) else 0
        self._symbols = values.astype(np.int64) - low
        self._num_symbols = int(self._symbols.max()) + 1 if len(values) else 1

    @classmethod
    def of(
        cls, values: np.ndarray, features: PassFeatures, most: int, kernels: ModuleType | None
    ) -> _Sample:
        """At most so many of the symbols, evenly."""
        stride = -(-max(len(values), 1) // most)
        return cls(values[::stride], features[::stride], stride, kernels)

    @property
    def has_features(self) -> bool:
        return bool(self._features.touched_cells.any())

    @property
    def has_grandparent(self) -> bool:
        return bool(self._features.grandparent_magnitude.any())

    @property
    def has_neighbours(self) -> bool:
        return bool(self._features.neighbour_magnitude.any())

    def best(self, models: list[ContextModel]) -> ContextModel:
        """The model with the fewest bits; the first of equals."""
        return min(models, key=lambda model: self.plan(model, _FEW_BINS)[0])

    def plan(self, model: ContextModel, num_bins: int) -> tuple[int, tuple[int, ...]]:
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

    def _histogram(self, model: ContextModel, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
        """Lowest score of each bin, and counts [bin, clipped values, symbol]."""
        scores = self._scores(model)
        occurring = np.bincount(scores) if len(scores) else np.ones(1, dtype=np.int64)
        below = np.cumsum(occurring) - occurring
        bins = below * num_bins // max(len(scores), 1)
        bins[occurring == 0] = -1
        numbers, first = np.unique(bins, return_index=True)
        if numbers[0] < 0:
            numbers, first = numbers[1:], first[1:]
        position = np.searchsorted(numbers, bins)
        shape = len(numbers), model.num_values, self._num_symbols
        if self._kernels is not None:
            counts = np.zeros(shape, np.int64)
            reaches = model.previous_reach, model.partner_reach
            known = self._features.previous, self._features.partner
            self._kernels.count_symbols(scores, position, *known, *reaches, self._symbols, counts)
            return first, counts
        cell = (position[scores] * shape[1] + model.values(self._features)) * shape[2]
        counts = np.bincount(cell + self._symbols, minlength=math.prod(shape))
        return first, counts.reshape(shape)

    def _scores(self, model: ContextModel) -> np.ndarray:
        if self._kernels is None:
            return model.scores(self._features)
        features, weights = self._features, model.weights_of_features
        return self._kernels.scores(
            features.touched_cells,
            features.parent_magnitude,
            features.grandparent_magnitude,
            features.neighbour_magnitude,
            features.earlier_magnitude,
            features.partner,
            np.array(weights, np.int64),
            MAX_ENTRY_MAGNITUDE,
        )


def _range_costs(counts: np.ndarray, stride: int) -> np.ndarray:
    """Bits of one class over bins i … j - 1, tables included, at [i, j] in 2^-16 bit."""
    num_bins = len(counts)
    sums = np.concatenate([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])
    begin, end = np.triu_indices(num_bins + 1, k=1)
    inside = sums[end] - sums[begin]
    totals = inside.sum(axis=-1)
    bits = _n_log_n(totals) - _n_log_n(inside).sum(axis=-1)
    tables = (totals > 0) * _TABLE_BITS + (inside > 0).sum(axis=-1) * _SYMBOL_BITS
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
