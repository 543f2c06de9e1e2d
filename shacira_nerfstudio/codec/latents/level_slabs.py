"""A level cut into slabs: which entries its vertices have, and which of them occupied cells touch.

A slab holds the vertices of one coordinate along the *slab axis*, as flat arrays over the other
axes. The slab axis is the longest one (the first of equals): no slab of a level that is visited at
all is then large. Everything here lists axes in *slab order*, the slab axis first. No feature
depends on that order.

Notation: along one axis N = resolution of the level, G = number of occupancy cells. A *level cell*
j, from 0 to N - 1, has the vertices j and j + 1. Positions in occupancy cell c lie in the level
cells ``lo(c) … lo(c + 1)`` with

    lo(c) = floor((2 c (N - 1) + G) / 2 G),

since cell coordinates are ``x (N - 1) + 1/2``. A level cell is *touched* when an occupied cell has
positions in it, a vertex when it is a corner of a touched level cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import numpy as np

from shacira_nerfstudio.grid import GridSpec

_MAX_KEPT = 1 << 22
"""Touched vertices, 5 bytes each, that are kept for a second visit of their level."""


def first_cells(resolution: int, cells: int) -> np.ndarray:
    """``lo(0) … lo(G)``: the level cell that holds the lower bound of each occupancy cell."""
    c = np.arange(cells + 1, dtype=np.int64)
    return (2 * c * (resolution - 1) + cells) // (2 * cells)


def parent_cells(resolution: int, coarser: int) -> np.ndarray:
    """The coarser level's cell around each vertex 0 … N along one axis.

    ``floor(((2 v - 1)(N_p - 1) + (N - 1)) / 2 (N - 1))``, at most N_p - 1: the vertex lies at x =
    (v - 1/2) / (N - 1).
    """
    v = np.arange(resolution + 1, dtype=np.int64)
    cell = ((2 * v - 1) * (coarser - 1) + (resolution - 1)) // (2 * (resolution - 1))
    return np.minimum(cell, coarser - 1)


def slab_order(resolutions: Sequence[int]) -> tuple[int, ...]:
    """Axes of a level, the slab axis first."""
    longest = resolutions.index(max(resolutions))
    return (longest, *(axis for axis in range(len(resolutions)) if axis != longest))


@dataclass(frozen=True)
class SlabLayout:
    """Which entries the vertices of a level have."""

    num_vertices: tuple[int, ...]
    """Along each axis, N + 1."""
    index: np.ndarray
    """Entries of slab 0, int32, flat over all axes but the first."""
    shifts: np.ndarray
    """What slab x adds to these entries, by sum in a dense level, by XOR in a hashed one; int32."""
    size: int
    is_dense: bool

    def entries(self, x: int, index: np.ndarray) -> np.ndarray:
        """Entries in slab x of vertices with these entries in slab 0."""
        shift = self.shifts[x]
        return (index + shift) % self.size if self.is_dense else index ^ shift

    @property
    def shape(self) -> tuple[int, int]:
        """Vertices of a slab as rows and columns; a slab of a picture is one row."""
        return prod(self.num_vertices[1:-1]), self.num_vertices[-1]


@lru_cache(maxsize=3)  # a level and those before it: each is asked for again by the next two
def slab_layout(grid: GridSpec, level: int, order: tuple[int, ...]) -> SlabLayout:
    """The layout of a level with its axes in this order."""
    num_vertices = tuple(grid.resolutions[level][axis] + 1 for axis in order)
    along = np.zeros((num_vertices[0], grid.num_dims), dtype=np.int64)
    along[:, order[0]] = np.arange(num_vertices[0])
    others = np.zeros((*num_vertices[1:], grid.num_dims), dtype=np.int64)
    for axis, values in zip(order[1:], np.indices(num_vertices[1:], sparse=True), strict=True):
        others[..., axis] = values
    # An index is a sum or an XOR of one term for each axis, modulo a size that is a power of two in
    # hashed levels: the terms of the slab axis can be kept apart.
    index, shifts = (
        grid.vertex_index(level, vertices).reshape(-1).astype(np.int32)
        for vertices in (others, along)
    )
    return SlabLayout(num_vertices, index, shifts, grid.table_sizes[level], grid.is_dense(level))


@dataclass(frozen=True)
class CoarserCells:
    """A coarser level's cells as the vertices of a finer level find them."""

    layout: SlabLayout
    slabs: np.ndarray
    """Along the slab axis the cell around each vertex of the finer level, int64."""
    position: np.ndarray
    """Position among a slab's cells of the cell around each vertex of a finer slab, int32."""

    @classmethod
    def of(cls, grid: GridSpec, level: int, steps: int, order: tuple[int, ...]) -> CoarserCells:
        """Cells of the level so many steps coarser than ``level``, with axes in this order."""
        fine, coarse = grid.resolutions[level], grid.resolutions[level - steps]
        slabs, *others = (parent_cells(fine[axis], coarse[axis]) for axis in order)
        position = np.zeros(1, dtype=np.int64)
        for axis, cells in zip(order[1:], others, strict=True):
            position = (position[:, None] * coarse[axis] + cells).reshape(-1)
        layout = slab_layout(grid, level - steps, order)
        return cls(layout, slabs, position.astype(np.int32))


class TouchedSlabs:
    """A level's touched vertices, slab by slab; those of all slabs are kept if they are few.

    Iterating gives, per slab, flat positions of the touched vertices, int32, and the touched level
    cells around each, uint8, or None if there are none.

    Args:
        occupancy: bool, any number of cells along each axis; None means that all is occupied.
    """

    def __init__(self, grid: GridSpec, level: int, occupancy: np.ndarray | None) -> None:
        self.grid, self.level = grid, level
        self.order = slab_order(grid.resolutions[level])
        self._occupancy = occupancy
        self._kept: list[tuple[np.ndarray, np.ndarray] | None] | None = None

    @property
    def layout(self) -> SlabLayout:
        return slab_layout(self.grid, self.level, self.order)

    @cached_property
    def occupied(self) -> np.ndarray:
        """The occupancy with its axes in slab order."""
        if self._occupancy is None:
            return np.ones((1,) * self.grid.num_dims, dtype=bool)
        return np.ascontiguousarray(self._occupancy.transpose(self.order))

    @cached_property
    def spans(self) -> tuple[np.ndarray, ...]:
        """Per axis and level cell: the first occupancy cell that meets it and the one after the
        last, int64 [N, 2]."""
        spans = []
        for axis, num_cells in zip(self.order, self.occupied.shape, strict=True):
            resolution = self.grid.resolutions[self.level][axis]
            lo = first_cells(resolution, num_cells)
            cells = np.arange(resolution, dtype=np.int64)
            first = np.searchsorted(lo[1:], cells, side="left")
            last = np.searchsorted(lo[:-1], cells, side="right")
            spans.append(np.stack([first, last], axis=1).astype(np.int64))
        return tuple(spans)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, num_kept = [], 0
        for slab in self._visit():
            yield slab
            num_kept += 0 if slab is None else len(slab[0])
            if num_kept <= _MAX_KEPT:
                kept.append(slab)
        if num_kept <= _MAX_KEPT:
            self._kept = kept

    def _visit(self) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        before, slab = None, None
        for counts in self._counts():
            if counts is not before:
                before, slab = counts, None
                if counts is not None:
                    vertices = np.flatnonzero(counts != 0)
                    slab = vertices.astype(np.int32), counts[vertices]
            yield slab

    def _counts(self) -> Iterator[np.ndarray | None]:
        """Per slab: touched level cells around each vertex, flat uint8; None if all are 0."""
        along, *others = self.spans
        key, above, total = None, None, None
        summed: tuple[np.ndarray | None, np.ndarray | None] = None, None
        for x in range(len(along) + 1):
            below = above
            if x == len(along):
                above = None
            elif key != tuple(along[x]):
                key = tuple(along[x])
                occupied = np.logical_or.reduce(self.occupied[key[0] : key[1]], axis=0)
                above = _counts_of_layer(occupied, others) if occupied.any() else None
            if summed[0] is not below or summed[1] is not above:
                # Fine levels repeat the slabs of an occupancy cell: most sums are made once per
                # cell.
                summed = below, above
                parts = [part for part in summed if part is not None]
                total = sum(parts[1:], parts[0]).reshape(-1) if parts else None
            yield total


def _counts_of_layer(occupied: np.ndarray, spans: list[np.ndarray]) -> np.ndarray:
    """Touched level cells of one layer around each vertex of a slab beside it.

    Args:
        occupied: Occupancy cells that meet this layer of level cells, without the slab axis.
        spans: As in :class:`TouchedSlabs`, without the slab axis.

    Returns:
        uint8, N + 1 vertices along each axis, at most 2^(D - 1).
    """
    for span in spans:
        sums = np.zeros((len(occupied) + 1, *occupied.shape[1:]), dtype=np.int32)
        np.cumsum(occupied, axis=0, dtype=np.int32, out=sums[1:])
        # Each round treats the first axis and turns it to the end, so that rows stay contiguous.
        occupied = np.ascontiguousarray((sums[span[:, 1]] > sums[span[:, 0]]).T)
    return pair_sums(np.pad(occupied, 1).astype(np.uint8))


def pair_sums(slab: np.ndarray) -> np.ndarray:
    """Sums of neighbours along every axis; each axis becomes one shorter."""
    for axis in range(slab.ndim):
        slab = np.moveaxis(slab, axis, 0)
        slab = np.moveaxis(slab[1:] + slab[:-1], 0, axis)
    return slab
