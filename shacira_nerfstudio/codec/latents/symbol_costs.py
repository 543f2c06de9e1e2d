"""What each symbol of a scene costs in its file, and what a smaller one in its place would.

For whoever decides which symbols are worth their bits before a scene is encoded. Classes and
counts are those of the encoder; the cost of a symbol is ``-log2`` of its share of its class, with
one count added for every symbol of the alphabet, so that one that does not occur has a finite cost.
What a symbol does to the classes of others is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.latents.level_contexts import CodingContext
from shacira_nerfstudio.grid import GridSpec


@dataclass(frozen=True)
class CodeClasses:
    """Which frequency table of the file codes which symbol."""

    index: np.ndarray
    """int16 [E, d]: class of each symbol, counted within its level; -1 in entries that nothing
    reaches."""
    first: np.ndarray
    """int32 [L + 1]: number of classes of all coarser levels, and of all levels."""


def code_classes(
    grid: GridSpec,
    symbols: np.ndarray,
    occupancy: np.ndarray | None,
    *,
    fast: bool | None = None,
    is_estimate: bool = False,
) -> CodeClasses:
    """Classes of a scene's symbols as its encoder would choose them.

    Args:
        symbols: int16 [E, d], 0 in entries that nothing reaches.
        occupancy: As in :func:`features.reached_entries`.
        fast: As in :func:`encode_scene`.
        is_estimate: See :func:`choose_models`: nearly the encoder's classes.
    """
    index = np.full(symbols.shape, -1, dtype=np.int16)
    first = np.zeros(grid.num_levels + 1, dtype=np.int32)
    for level, channel, rows, classes, num_classes in _passes(
        grid, symbols, occupancy, fast, is_estimate
    ):
        index[rows, channel] = first[level + 1] + classes
        first[level + 1] += num_classes
    return CodeClasses(index, first.cumsum(dtype=np.int32))


@dataclass(frozen=True)
class SymbolCosts:
    """Bits, float32 [E, d] each; 0 for entries that nothing reaches."""

    symbol: np.ndarray
    """Of the symbols as they are."""
    toward_zero: np.ndarray
    """Of symbols one step nearer to 0; of 0 where it is 0 already."""
    zero: np.ndarray
    """Of 0."""


def symbol_costs(
    grid: GridSpec, symbols: np.ndarray, occupancy: np.ndarray | None, *, fast: bool | None = None
) -> SymbolCosts:
    """Costs of a scene's symbols under the tables that its encoder would choose.

    Args: as for :func:`code_classes`.
    """
    costs = SymbolCosts(*(np.zeros(symbols.shape, np.float32) for _ in range(3)))
    for _, channel, rows, classes, num_classes in _passes(grid, symbols, occupancy, fast):
        values = symbols[rows, channel]
        bits = _class_bits(values, classes, num_classes)
        for cost, replacements in (
            (costs.symbol, values),
            (costs.toward_zero, values - np.sign(values)),
            (costs.zero, np.zeros_like(values)),
        ):
            cost[rows, channel] = bits(replacements)
    return costs


def _passes(
    grid: GridSpec,
    symbols: np.ndarray,
    occupancy: np.ndarray | None,
    fast: bool | None,
    is_estimate: bool = False,
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, int]]:
    """Level, channel, entries of the whole table, their classes and how many there are: of each
    pass of the encoder."""
    context, coarser = CodingContext(grid, occupancy, symbols.shape[1], fast=fast), None
    for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
        table = symbols[begin:end]
        coding = context.level(level, coarser)
        coarser = table
        entries = np.arange(end - begin) if coding.entries is None else coding.entries
        by_channel = np.ascontiguousarray(table[entries].T)
        for channel, passes in enumerate(
            choose_models(by_channel.T, coding, is_estimate=is_estimate, fast=fast)
        ):
            is_split = len(passes) > 1
            for number, model in enumerate(passes):
                chosen = coding.passes(is_split)[number]
                classes = coding.classes(model, by_channel, channel, number, is_split=is_split)
                yield level, channel, begin + entries[chosen], classes, model.num_classes


def _class_bits(
    values: np.ndarray, classes: np.ndarray, num_classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from symbols to their bits in the classes of the given entries."""
    low, high = min(int(values.min(initial=0)), 0), max(int(values.max(initial=0)), 0)
    width = high - low + 1
    cells = classes * width + (values.astype(np.int64) - low)
    counts = np.bincount(cells, minlength=num_classes * width).reshape(num_classes, width) + 1.0
    table = (np.log2(counts.sum(1, keepdims=True)) - np.log2(counts)).astype(np.float32)
    return lambda symbols: table[classes, symbols.astype(np.int64) - low]
