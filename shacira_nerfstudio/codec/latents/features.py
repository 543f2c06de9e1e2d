"""What encoder and decoder know of an entry before its symbols: whether it is read, and how busy
the coarser levels and the entries around are.

Everything is integer arithmetic on the occupancy grid and on symbols that are decoded already, so
both agree on every machine. These features describe an entry, each the largest over the touched
vertices that share it (see ``level_slabs``), 0 where there are none:

    touched_cells            touched level cells around the vertex, 1 to 2^D
    parent_magnitude         Σ min(Σ_channels |q|, 31) over the 2^D corners of the next coarser
                             level's cell around the vertex
    grandparent_magnitude    the same in the level before that one
    neighbour_magnitude      Σ min(|q|, 31) of one channel over the 2 D vertices next to the vertex
                             along an axis, as far as they are decoded
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec.compiled import load_kernels
from shacira_nerfstudio.codec.latents.level_kinds import saturated_levels
from shacira_nerfstudio.codec.latents.level_slabs import (
    CoarserCells,
    SlabLayout,
    TouchedSlabs,
    pair_sums,
)
from shacira_nerfstudio.codec.latents.parallel_slabs import scatter_over_slabs
from shacira_nerfstudio.grid import GridSpec

MAX_ENTRY_MAGNITUDE = 31
"""Cap on Σ|q| of one entry; eight of them still fit one byte."""

_KERNELS = "shacira_nerfstudio.codec.latents.features_numba"


@dataclass(frozen=True)
class Features:
    """Features of the entries of one level, uint8 [T]."""

    touched_cells: np.ndarray
    parent_magnitude: np.ndarray
    grandparent_magnitude: np.ndarray

    @classmethod
    def zeros(cls, size: int) -> Features:
        """Those of a level without features."""
        return cls(*(np.zeros(size, dtype=np.uint8) for _ in range(3)))

    def __getitem__(self, entries: np.ndarray | slice) -> Features:
        return Features(
            self.touched_cells[entries],
            self.parent_magnitude[entries],
            self.grandparent_magnitude[entries],
        )


def reached_entries(
    grid: GridSpec,
    level: int,
    occupancy: np.ndarray | None,
    *,
    saturated: Sequence[bool] | None = None,
    fast: bool | None = None,
) -> np.ndarray:
    """Entries that rendering can read: all but those that no occupied cell touches.

    Args:
        saturated: Of each level, as :func:`saturated_levels` gives it, for whoever asks for several
            levels: it is found by a look at the whole occupancy.
        occupancy: bool, any number of cells along each axis; None means that everything is occupied
            and every entry reached.
        fast: True demands numba, False forbids it.

    Returns:
        bool [table_size]. Entries that are not reached hold 0 by rule and cost nothing.
    """
    if occupancy is None or (saturated or saturated_levels(grid, occupancy))[level]:
        return np.ones(grid.table_sizes[level], dtype=bool)
    slabs = TouchedSlabs(grid, level, occupancy)
    return level_features(slabs, None, fast=fast).touched_cells > 0


def entry_magnitudes(symbols: np.ndarray) -> np.ndarray:
    """``min(Σ_channels |q|, 31)`` of one level's symbols [T, d], uint8 [T]."""
    total = np.zeros(len(symbols), dtype=np.int32)
    for channel in range(symbols.shape[1]):
        total += np.abs(symbols[:, channel].astype(np.int32))
    return np.minimum(total, MAX_ENTRY_MAGNITUDE).astype(np.uint8)


def level_features(
    slabs: TouchedSlabs,
    parent: np.ndarray | None,
    grandparent: np.ndarray | None = None,
    *,
    fast: bool | None = None,
) -> Features:
    """All features of a level but the neighbours' magnitude.

    Args:
        parent: :func:`entry_magnitudes` of the next coarser level; None leaves that feature 0.
        grandparent: The same of the level before that one.
    """
    layout = slabs.layout
    kernels = load_kernels(_KERNELS, fast)
    if kernels:
        coarser = _for_kernels(slabs, 1, parent), _for_kernels(slabs, 2, grandparent)
        arguments = *_cells_for_kernels(slabs), _layout_for_kernels(layout), *coarser
        return Features(*scatter_over_slabs(kernels.scatter_features, layout, arguments, 3))
    features = Features.zeros(layout.size)
    coarser = [
        (_CoarserMagnitudes(slabs, steps, magnitudes), feature)
        for steps, magnitudes, feature in (
            (1, parent, features.parent_magnitude),
            (2, grandparent, features.grandparent_magnitude),
        )
        if magnitudes is not None
    ]
    for x, touched in enumerate(slabs):
        if touched is None:
            continue
        vertices, counts = touched
        entries = layout.entries(x, layout.index[vertices])
        np.maximum.at(features.touched_cells, entries, counts)
        for magnitudes, feature in coarser:
            np.maximum.at(feature, entries, magnitudes.around(x, vertices))
    return features


class _CoarserMagnitudes:
    """Sums of a coarser level's magnitudes over the corners of its cells, slab by slab."""

    def __init__(self, slabs: TouchedSlabs, steps: int, magnitudes: np.ndarray) -> None:
        self._cells = CoarserCells.of(slabs.grid, slabs.level, steps, slabs.order)
        self._magnitudes = magnitudes
        self._current = -2
        self._upper = self._sums = np.zeros(0, dtype=np.uint8)

    def around(self, x: int, vertices: np.ndarray) -> np.ndarray:
        """Sums of the cells around vertices of slab x of the finer level, uint8."""
        cell = int(self._cells.slabs[x])
        if cell != self._current:
            lower = self._upper if cell == self._current + 1 else self._pair_sums(cell)
            self._upper = self._pair_sums(cell + 1)
            self._sums, self._current = (lower + self._upper).reshape(-1), cell
        return self._sums[self._cells.position[vertices]]

    def _pair_sums(self, x: int) -> np.ndarray:
        layout = self._cells.layout
        slab = self._magnitudes[layout.entries(x, layout.index)]
        return pair_sums(slab.reshape(layout.num_vertices[1:]))


def neighbour_magnitudes(
    slabs: TouchedSlabs, magnitudes: np.ndarray, *, fast: bool | None = None
) -> np.ndarray:
    """The feature ``neighbour_magnitude`` of a level's entries, uint8 [T].

    Args:
        magnitudes: ``min(|q|, 31)`` of one channel, uint8 [T]; 0 where it is not decoded yet.
    """
    layout = slabs.layout
    kernels = load_kernels(_KERNELS, fast)
    if kernels:
        arguments = *_cells_for_kernels(slabs), _layout_for_kernels(layout), magnitudes
        return scatter_over_slabs(kernels.scatter_neighbours, layout, arguments, 1)[0]
    result = np.zeros(layout.size, dtype=np.uint8)
    for x, touched in enumerate(slabs):
        if touched is not None:
            _scatter_neighbours(layout, x, touched[0], magnitudes, result)
    return result


def _scatter_neighbours(
    layout: SlabLayout, x: int, vertices: np.ndarray, magnitudes: np.ndarray, result: np.ndarray
) -> None:
    """Raises ``result`` [T] to the sum of the magnitudes next to each of a slab's vertices."""
    index = layout.index
    total = np.zeros(len(vertices), dtype=np.uint8)
    for other in (x - 1, x + 1):
        if 0 <= other < layout.num_vertices[0]:
            total += magnitudes[layout.entries(other, index[vertices])]
    stride = 1
    for side in layout.num_vertices[:0:-1]:
        coordinates = vertices // stride % side
        for step in (-1, 1):
            inside = np.flatnonzero((coordinates + step >= 0) & (coordinates + step < side))
            others = index[vertices[inside] + step * stride]
            total[inside] += magnitudes[layout.entries(x, others)]
        stride *= side
    np.maximum.at(result, layout.entries(x, index[vertices]), total)


def _cells_for_kernels(slabs: TouchedSlabs) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Occupancy and spans of three axes: a picture has a middle one of one cell and one row."""
    occupied, spans = slabs.occupied, slabs.spans
    if occupied.ndim == 2:
        return occupied[:, None], (spans[0], np.array([[0, 1]], dtype=np.int64), spans[1])
    return occupied, spans


def _layout_for_kernels(layout: SlabLayout) -> tuple:
    return layout.index, layout.shifts, layout.size, layout.is_dense, *layout.shape


def _for_kernels(slabs: TouchedSlabs, steps: int, magnitudes: np.ndarray | None) -> tuple:
    """A coarser level as ``features_numba`` takes it; without magnitudes one of zeros."""
    if magnitudes is None:
        layout, rest = slabs.layout, np.zeros(1, dtype=np.int32)
        nothing = rest, rest, 1, True, 0, 0
        slabs_of_vertices = np.zeros(layout.num_vertices[0], dtype=np.int64)
        return nothing, np.zeros(1, np.uint8), slabs_of_vertices, np.zeros_like(layout.index)
    cells = CoarserCells.of(slabs.grid, slabs.level, steps, slabs.order)
    return _layout_for_kernels(cells.layout), magnitudes, cells.slabs, cells.position
