"""What a decoder knows about an entry before reading it: is it looked at, and how busy is it there.

Everything is integer arithmetic on the occupancy grid and on coarser levels, so that encoder and
decoder agree on every machine.

Notation: D axes, N = resolution of a level, G = occupancy cells per axis, T = table size. A *level
cell* K, from 0 to N - 1 per axis, has its lower corner at vertex K. Positions in occupancy cell c
lie in the level cells ``lo(c) … lo(c + 1)`` per axis with

    lo(c) = floor((2 c (N - 1) + G) / 2 G),

since cell coordinates are ``x (N - 1) + 1/2``. A level cell is *touched* when an occupied cell has
positions in it, a vertex when it is a corner of a touched level cell.

Two features describe an entry, each the largest over the touched vertices that share it:

    support     touched level cells around the vertex, 1 to 2^D
    magnitude   Σ min(Σ_channels |q|, 31) over the 2^D corners of the next coarser level's cell
                around the vertex

Levels are walked slab by slab: all vertices of one x at a time, as flat arrays over the other D - 1
axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from shacira_nerfstudio.codec.rans import kernels
from shacira_nerfstudio.grid import GridSpec

MAX_LOAD = 24
"""A hashed level with more touched vertices per entry than this is *crowded* and not walked.

They are counted cell by cell, so a vertex counts up to 2^D times and more. Beyond this load nearly
every entry is reached, and the features, each the largest of many, say nothing.
"""

MAX_WALKED = 1 << 28
"""Hashed levels are walked while they have at most so many vertices together: it bounds the work
that a file can ask for, whatever its length."""

MAX_ENTRY_MAGNITUDE = 31
"""Cap on Σ|q| of one entry; eight of them still fit one byte."""


@dataclass(frozen=True)
class Features:
    """What is known about the entries of one level, uint8 [T]; 0 where an entry is not touched."""

    support: np.ndarray
    magnitude: np.ndarray


def first_cells(resolution: int, cells: int) -> np.ndarray:
    """``lo(0) … lo(G)``: the level cell that holds the lower bound of each occupancy cell."""
    c = np.arange(cells + 1, dtype=np.int64)
    return (2 * c * (resolution - 1) + cells) // (2 * cells)


def crowded_levels(grid: GridSpec, occupancy: np.ndarray | None) -> tuple[bool, ...]:
    """Which levels are too full to be walked: every entry counts as reached, without features.

    A dense level never is. A hashed one is when the hashed levels walked so far and this one have
    more than 2^28 vertices, (N + 1)^D each, or when the sum over occupied cells of
    Π_axes (lo(c + 1) - lo(c) + 2), the vertices each of them touches, exceeds 24 T.
    """
    vertices = [(resolution + 1) ** grid.num_dims for resolution in grid.resolutions]
    loads = _loads(grid, occupancy, [n <= MAX_WALKED for n in vertices])
    result, walked = [], 0
    for level, count in enumerate(vertices):
        is_full = walked + count > MAX_WALKED or loads[level] > MAX_LOAD * grid.table_sizes[level]
        result.append(not grid.is_dense(level) and is_full)
        walked += 0 if result[-1] or grid.is_dense(level) else count
    return tuple(result)


def _loads(grid: GridSpec, occupancy: np.ndarray | None, wanted: list[bool]) -> list[int]:
    """Per level how many vertices the occupied cells touch, each counted by itself; 0 if not
    wanted."""
    if occupancy is None:
        occupancy = np.ones((1,) * grid.num_dims, dtype=bool)
    cells = len(occupancy)
    spans = np.zeros((cells, grid.num_levels))
    for level, resolution in enumerate(grid.resolutions):
        if wanted[level]:
            spans[:, level] = np.diff(first_cells(resolution, cells)) + 2
    # All sums are below 2^53 here, so float64 is exact in any order; it has the faster product.
    total = np.zeros(grid.num_levels)
    for x, slab in enumerate(occupancy):
        inner = slab.astype(np.float64) @ spans
        if inner.ndim == 2:
            inner = (inner * spans).sum(axis=0)
        total += inner * spans[x]
    return [int(load) for load in total]


def reached_entries(grid: GridSpec, level: int, occupancy: np.ndarray | None) -> np.ndarray:
    """Entries that rendering can read: all but those that no occupied cell touches.

    Args:
        occupancy: bool [G] * D; None means that everything is occupied and every entry reached.

    Returns:
        bool [table_size]. Entries that are not reached hold 0 by rule and cost nothing.
    """
    if occupancy is None or crowded_levels(grid, occupancy)[level]:
        return np.ones(grid.table_sizes[level], dtype=bool)
    return level_features(grid, level, occupancy, None).support > 0


def entry_magnitudes(symbols: np.ndarray) -> np.ndarray:
    """``min(Σ_channels |q|, 31)`` of one level's symbols [T, d], uint8 [T]."""
    total = np.zeros(len(symbols), dtype=np.int32)
    for channel in range(symbols.shape[1]):
        total += np.abs(symbols[:, channel].astype(np.int32))
    return np.minimum(total, MAX_ENTRY_MAGNITUDE).astype(np.uint8)


def level_features(
    grid: GridSpec,
    level: int,
    occupancy: np.ndarray | None,
    coarser: np.ndarray | None,
    *,
    fast: bool | None = None,
) -> Features:
    """Walks a level that is not crowded.

    Args:
        coarser: :func:`entry_magnitudes` of the next coarser level; None at the coarsest, where
        magnitudes are 0.
    """
    resolution, size = grid.resolutions[level], grid.table_sizes[level]
    features = Features(np.zeros(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8))
    twin = kernels(fast) if grid.num_dims == 3 else None
    scatter = twin.scatter if twin else _scatter
    index = _slab_index(grid, level)
    if coarser is None:
        parents, side = np.zeros(resolution + 1, dtype=np.int64), 1
        slabs = iter([np.zeros(1, dtype=np.uint8)])
    else:
        side = grid.resolutions[level - 1]
        parents = parent_cells(resolution, side)
        slabs = _magnitude_slabs(grid, level - 1, coarser, twin)
    place = _flat(parents, side, grid.num_dims - 1)
    around, current = next(slabs), 0
    for x, support in enumerate(_support_slabs(occupancy, resolution, grid.num_dims, twin)):
        while current < parents[x]:
            around, current = next(slabs), current + 1
        if support is not None:
            layout = index, x, size, grid.is_dense(level)
            scatter(*layout, support, around, place, features.support, features.magnitude)
    return features


def parent_cells(resolution: int, coarser: int) -> np.ndarray:
    """The coarser level's cell around each vertex 0 … N, per axis.

    ``floor(((2 v - 1)(N_p - 1) + (N - 1)) / 2 (N - 1))``, at most N_p - 1: the vertex lies at x =
    (v - 1/2) / (N - 1).
    """
    v = np.arange(resolution + 1, dtype=np.int64)
    cell = ((2 * v - 1) * (coarser - 1) + (resolution - 1)) // (2 * (resolution - 1))
    return np.minimum(cell, coarser - 1)


def _slab_index(grid: GridSpec, level: int) -> np.ndarray:
    """Entry of every vertex with x = 0, int32 [(N + 1)^(D - 1)]."""
    axis = np.arange(grid.resolutions[level] + 1, dtype=np.int64)
    axes = np.meshgrid(np.zeros(1, dtype=np.int64), *[axis] * (grid.num_dims - 1), indexing="ij")
    return grid.vertex_index(level, np.stack(axes, axis=-1)).reshape(-1).astype(np.int32)


def _shift(index: np.ndarray, x: int, size: int, is_dense: bool) -> np.ndarray:
    """From the entries at x = 0 to those at x: the first axis enters by plain sum or by XOR."""
    return (index + x) % size if is_dense else index ^ (x % size)


def _flat(axis: np.ndarray, stride: int, num_axes: int) -> np.ndarray:
    """Flat position of all combinations of ``axis`` values, along axes of length ``stride``."""
    if num_axes == 1:
        return axis.astype(np.int32)
    return (axis[:, None] * stride + axis[None, :]).reshape(-1).astype(np.int32)


def _pair_sums(slab: np.ndarray) -> np.ndarray:
    """Sums of neighbours along every axis; each axis becomes one shorter."""
    for axis in range(slab.ndim):
        slab = np.moveaxis(slab, axis, 0)
        slab = np.moveaxis(slab[1:] + slab[:-1], 0, axis)
    return slab


def _magnitude_slabs(
    grid: GridSpec, level: int, magnitudes: np.ndarray, twin: ModuleType | None
) -> Iterator[np.ndarray]:
    """Per level cell with x = 0, 1, …: the sum over its corners, flat uint8 [N^(D - 1)]."""
    size, side = grid.table_sizes[level], grid.resolutions[level] + 1
    index = _slab_index(grid, level)
    before = None
    for x in range(side):
        layout = index, x, size, grid.is_dense(level)
        if twin:
            slab = twin.magnitude_slab(*layout, magnitudes, side)
        else:
            slab = magnitudes[_shift(*layout)].reshape((side,) * (grid.num_dims - 1))
            slab = _pair_sums(slab)
        if before is not None:
            yield (before + slab).reshape(-1)
        before = slab


def _support_slabs(
    occupancy: np.ndarray | None, resolution: int, num_dims: int, twin: ModuleType | None
) -> Iterator[np.ndarray | None]:
    """Per x = 0 … N: touched level cells around each vertex, flat uint8; None if all are 0."""
    if occupancy is None:
        occupancy = np.ones((1,) * num_dims, dtype=bool)
    slab_of = twin.support_slab if twin else _support_slab
    lo = first_cells(resolution, len(occupancy))
    cells = np.arange(resolution, dtype=np.int64)
    first = np.searchsorted(lo[1:], cells, side="left")
    last = np.searchsorted(lo[:-1], cells, side="right")
    key, above, total = None, None, None
    summed: tuple[np.ndarray | None, np.ndarray | None] = None, None
    for x in range(resolution + 1):
        below = above
        if x == resolution:
            above = None
        elif key != (first[x], last[x]):
            key = first[x], last[x]
            occupied = occupancy[key[0] : key[1]].any(axis=0)
            above = slab_of(occupied, first, last) if occupied.any() else None
        if summed[0] is not below or summed[1] is not above:
            # Fine levels repeat the slabs of an occupancy cell: most sums are made once per cell.
            summed = below, above
            parts = [part for part in summed if part is not None]
            total = sum(parts[1:], parts[0]).reshape(-1) if parts else None
        yield total


def _support_slab(occupied: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Touched level cells of one x around each vertex of the slab.

    Args:
        occupied: Occupancy cells that meet these level cells, bool [G] * (D - 1).
        first, last: Range of occupancy cells that meet each level cell, per axis; ``last`` is
            exclusive.

    Returns:
        uint8 [N + 1] * (D - 1), at most 2^(D - 1).
    """
    for _ in range(occupied.ndim):
        sums = np.zeros((len(occupied) + 1, *occupied.shape[1:]), dtype=np.int16)
        np.cumsum(occupied, axis=0, dtype=np.int16, out=sums[1:])
        # Each round treats the first axis and turns it to the end, so that rows stay contiguous.
        occupied = np.ascontiguousarray((sums[last] > sums[first]).T)
    return _pair_sums(np.pad(occupied, 1).astype(np.uint8))


def _scatter(
    index: np.ndarray,
    x: int,
    size: int,
    is_dense: bool,
    slab_support: np.ndarray,
    around: np.ndarray,
    place: np.ndarray,
    support: np.ndarray,
    magnitude: np.ndarray,
) -> None:
    """Raises each entry's features to those of the slab's touched vertices, in place.

    Args:
        index, x, size, is_dense: Which entries the slab's vertices have, as in :func:`_shift`.
        slab_support: Touched level cells around each vertex; 0 skips it.
        around: Magnitude of the coarser cells of this x, flat.
        place: Position of each vertex's cell in ``around``.
    """
    touched = np.flatnonzero(slab_support)
    entries = _shift(index[touched], x, size, is_dense)
    np.maximum.at(support, entries, slab_support[touched])
    np.maximum.at(magnitude, entries, around[place[touched]])
