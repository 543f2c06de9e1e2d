"""What a decoder knows about an entry before reading it: is it looked at, and how busy is it there.

Everything is integer arithmetic on the occupancy grid and on coarser levels, so that encoder and
decoder agree on every machine.

Notation: D axes, N = resolution of a level, G = occupancy cells per axis, T = table size. A *level
cell* K, from 0 to N - 1 per axis, has its lower corner at vertex K. Positions in occupancy cell c
lie in the level cells ``lo(c) … lo(c + 1)`` per axis with

    lo(c) = floor((2 c (N - 1) + G) / 2 G),

since cell coordinates are ``x (N - 1) + 1/2``. A level cell is *touched* when an occupied cell has
positions in it, a vertex when it is a corner of a touched level cell.

These features describe an entry, each the largest over the touched vertices that share it:

    support     touched level cells around the vertex, 1 to 2^D
    magnitude   Σ min(Σ_channels |q|, 31) over the 2^D corners of the next coarser level's cell
                around the vertex
    ancestry    the same in the level before that one, from format version 2 on
    neighbours  Σ min(|q|, 31) of one channel over the 2 D vertices next to the vertex along an
                axis, as far as they are known; from format version 2 on

Levels are walked slab by slab: all vertices of one x at a time, as flat arrays over the other D - 1
axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shacira_nerfstudio.codec.entropy.rans import kernels
from shacira_nerfstudio.codec.latents.parallel_slabs import Coarser, Layout, walk
from shacira_nerfstudio.grid import GridSpec

MAX_LOAD = 24
"""A hashed level with more touched vertices per entry than this is *crowded* and not walked.

They are counted cell by cell, so a vertex counts up to 2^D times and more. Beyond this load nearly
every entry is reached, and the features, each the largest of many, say nothing.
"""

MAX_DESCRIBED_LOAD = 64
"""Up to this load a level has features from format version 2 on, though every entry counts as
reached: there, support is 0 in entries that no occupied cell touches."""

MAX_DESCRIBED = 1 << 26
"""Vertices of such levels together; those of levels that are not crowded come on top."""

MAX_NEIGHBOURS = 1 << 28
"""Levels have the feature ``neighbours`` while their vertices, times channels, are so many."""

MAX_WALKED = 1 << 28
"""Hashed levels are walked while they have at most so many vertices together: it bounds the work
that a file can ask for, whatever its length."""

MAX_ENTRY_MAGNITUDE = 31
"""Cap on Σ|q| of one entry; eight of them still fit one byte."""


_MAX_KEPT = 1 << 22
"""Touched vertices, 5 bytes each, that are kept for a second walk of their level."""


@dataclass(frozen=True)
class Features:
    """What is known about the entries of one level, uint8 [T]; 0 where an entry is not touched."""

    support: np.ndarray
    magnitude: np.ndarray
    ancestry: np.ndarray

    @classmethod
    def nothing(cls, size: int) -> Features:
        """Of a level that is not walked."""
        zeros = np.zeros(size, dtype=np.uint8)
        return cls(zeros, zeros, zeros)

    def __getitem__(self, entries: np.ndarray) -> Features:
        return Features(self.support[entries], self.magnitude[entries], self.ancestry[entries])


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
    return level_kinds(grid, occupancy)[0]


def described_levels(grid: GridSpec, occupancy: np.ndarray | None) -> tuple[bool, ...]:
    """Which levels have features from format version 2 on.

    Those that are not crowded, and coarse to fine crowded ones of a load of at most 64 T while
    they have at most 2^26 vertices together.
    """
    return level_kinds(grid, occupancy)[1]


def level_kinds(
    grid: GridSpec, occupancy: np.ndarray | None
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """:func:`crowded_levels` and :func:`described_levels`, for one count of loads."""
    vertices = _vertices(grid)
    loads = _loads(grid, occupancy, [n <= MAX_WALKED for n in vertices])
    crowded, walked = [], 0
    described, num_described = [], 0
    for level, count in enumerate(vertices):
        size, load = grid.table_sizes[level], loads[level]
        is_full = walked + count > MAX_WALKED or load > MAX_LOAD * size
        is_crowded = not grid.is_dense(level) and is_full
        crowded.append(is_crowded)
        walked += 0 if is_crowded or grid.is_dense(level) else count
        has_room = num_described + count <= MAX_DESCRIBED and load <= MAX_DESCRIBED_LOAD * size
        described.append(not is_crowded or has_room)
        num_described += count if is_crowded and has_room else 0
    return tuple(crowded), tuple(described)


def neighbour_levels(
    grid: GridSpec, is_described: tuple[bool, ...], num_channels: int
) -> tuple[bool, ...]:
    """Which levels have neighbours: described ones, coarse to fine, while their vertices times
    channels are at most 2^28."""
    result, walked = [], 0
    for vertices, is_there in zip(_vertices(grid), is_described, strict=True):
        has_room = is_there and walked + vertices * num_channels <= MAX_NEIGHBOURS
        result.append(has_room)
        walked += vertices * num_channels if has_room else 0
    return tuple(result)


def _vertices(grid: GridSpec) -> list[int]:
    return [(resolution + 1) ** grid.num_dims for resolution in grid.resolutions]


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
    ancestor: np.ndarray | None = None,
    touched: TouchedSlabs | None = None,
    fast: bool | None = None,
) -> Features:
    """Walks a level.

    Args:
        coarser: :func:`entry_magnitudes` of the next coarser level; None at the coarsest, where
            magnitudes are 0.
        ancestor: The same of the level before that one; None leaves the ancestry at 0.
        touched: The level's touched vertices, for a caller that walks it more than once in numpy.
    """
    size = grid.table_sizes[level]
    twin = kernels(fast) if grid.num_dims == 3 else None
    if twin:
        layout = *_occupied_cells(grid, level, occupancy), *_layout(grid, level)
        arguments = *layout, _coarser(grid, level, 1, coarser), _coarser(grid, level, 2, ancestor)
        return Features(*walk(twin.walk_features, grid.resolutions[level] + 1, arguments, 3, size))
    features = Features(*(np.zeros(size, dtype=np.uint8) for _ in range(3)))
    index, size, is_dense = _layout(grid, level)
    targets = [(_Ancestor(grid, level, 1, coarser), features.magnitude)]
    if ancestor is not None:
        targets.append((_Ancestor(grid, level, 2, ancestor), features.ancestry))
    for x, vertices in enumerate(touched or TouchedSlabs(grid, level, occupancy)):
        for source, found in targets:
            around = source.slab(x)
            if vertices is not None:
                layout = index, x, size, is_dense
                _scatter(*layout, *vertices, around, source.place, features.support, found)
    return features


def _coarser(grid: GridSpec, level: int, steps: int, magnitudes: np.ndarray | None) -> Coarser:
    """The level so many steps coarser as a compiled walk takes it; None stands for zeros."""
    if magnitudes is None:
        num_vertices = grid.resolutions[level] + 1
        index, size, is_dense, side = np.zeros(1, dtype=np.int32), 1, True, 0
        parents, place = np.zeros(1, np.int64), np.zeros(num_vertices**2, np.int32)
        return index, size, is_dense, np.zeros(1, dtype=np.uint8), side, parents, place
    resolution = grid.resolutions[level - steps]
    parents = parent_cells(grid.resolutions[level], resolution)
    layout = _layout(grid, level - steps)
    return *layout, magnitudes, resolution + 1, parents, _flat(parents, resolution, 2)


class _Ancestor:
    """A coarser level's magnitudes as a finer level meets them, slab by slab.

    Args:
        steps: How many levels it is coarser.
        magnitudes: :func:`entry_magnitudes` of it; None stands for zeros.
    """

    def __init__(
        self,
        grid: GridSpec,
        level: int,
        steps: int,
        magnitudes: np.ndarray | None,
    ) -> None:
        resolution = grid.resolutions[level]
        if magnitudes is None:
            self._parents, side = np.zeros(resolution + 1, dtype=np.int64), 1
            self._slabs = iter([np.zeros(1, dtype=np.uint8)])
        else:
            side = grid.resolutions[level - steps]
            self._parents = parent_cells(resolution, side)
            self._slabs = _magnitude_slabs(grid, level - steps, magnitudes)
        self.place = _flat(self._parents, side, grid.num_dims - 1)
        """Where in a slab each vertex of the finer level finds its cell."""
        self._around, self._current = next(self._slabs), 0

    def slab(self, x: int) -> np.ndarray:
        """Magnitudes of the cells around the vertices of this x; calls must not go back."""
        while self._current < self._parents[x]:
            self._around, self._current = next(self._slabs), self._current + 1
        return self._around


def neighbour_sizes(
    grid: GridSpec,
    level: int,
    occupancy: np.ndarray | None,
    sizes: np.ndarray,
    *,
    touched: TouchedSlabs | None = None,
    fast: bool | None = None,
) -> np.ndarray:
    """The feature ``neighbours`` of a level's entries, uint8 [T].

    Args:
        sizes: ``min(|q|, 31)`` of one channel, uint8 [T]; 0 where it is not known yet.
        touched: As for :func:`level_features`.
    """
    resolution = grid.resolutions[level]
    index, size, is_dense = _layout(grid, level)
    twin = kernels(fast) if grid.num_dims == 3 else None
    if twin:
        layout = *_occupied_cells(grid, level, occupancy), index, size, is_dense, sizes
        return walk(twin.walk_neighbours, resolution + 1, layout, 1, size)[0]
    found = np.zeros(size, dtype=np.uint8)
    for x, vertices in enumerate(touched or TouchedSlabs(grid, level, occupancy)):
        if vertices is not None:
            _scatter_neighbours(index, x, size, is_dense, vertices[0], resolution + 1, sizes, found)
    return found


def parent_cells(resolution: int, coarser: int) -> np.ndarray:
    """The coarser level's cell around each vertex 0 … N, per axis.

    ``floor(((2 v - 1)(N_p - 1) + (N - 1)) / 2 (N - 1))``, at most N_p - 1: the vertex lies at x =
    (v - 1/2) / (N - 1).
    """
    v = np.arange(resolution + 1, dtype=np.int64)
    cell = ((2 * v - 1) * (coarser - 1) + (resolution - 1)) // (2 * (resolution - 1))
    return np.minimum(cell, coarser - 1)


@lru_cache(maxsize=3)  # a level and those before it: each is asked for again by the next two
def _layout(grid: GridSpec, level: int) -> Layout:
    return _slab_index(grid, level), grid.table_sizes[level], grid.is_dense(level)


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


def _magnitude_slabs(grid: GridSpec, level: int, magnitudes: np.ndarray) -> Iterator[np.ndarray]:
    """Per level cell with x = 0, 1, …: the sum over its corners, flat uint8 [N^(D - 1)]."""
    index, size, is_dense = _layout(grid, level)
    side, before = grid.resolutions[level] + 1, None
    for x in range(side):
        slab = magnitudes[_shift(index, x, size, is_dense)]
        slab = _pair_sums(slab.reshape((side,) * (grid.num_dims - 1)))
        if before is not None:
            yield (before + slab).reshape(-1)
        before = slab


class TouchedSlabs:
    """A level's touched vertices, slab by slab; those of all slabs are kept if they are few.

    Iterating gives, per x = 0 … N, flat positions of the touched vertices, int32, and the touched
    level cells around each, uint8, or None if there are none.
    """

    def __init__(self, grid: GridSpec, level: int, occupancy: np.ndarray | None) -> None:
        self._grid, self._level, self._occupancy = grid, level, occupancy
        self._kept: list[tuple[np.ndarray, np.ndarray] | None] | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, num_kept = [], 0
        for found in self._walk():
            yield found
            num_kept += 0 if found is None else len(found[0])
            if num_kept <= _MAX_KEPT:
                kept.append(found)
        if num_kept <= _MAX_KEPT:
            self._kept = kept

    def _walk(self) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        before, found = None, None
        for support in _support_slabs(self._grid, self._level, self._occupancy):
            if support is not before:
                before, found = support, None
                if support is not None:
                    vertices = np.flatnonzero(support != 0)
                    found = vertices.astype(np.int32), support[vertices]
            yield found


def _occupied_cells(
    grid: GridSpec, level: int, occupancy: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Occupancy, and the range of its cells that meet each level cell, per axis; the last of
    these is exclusive."""
    if occupancy is None:
        occupancy = np.ones((1,) * grid.num_dims, dtype=bool)
    resolution = grid.resolutions[level]
    lo = first_cells(resolution, len(occupancy))
    cells = np.arange(resolution, dtype=np.int64)
    first = np.searchsorted(lo[1:], cells, side="left")
    return occupancy, first, np.searchsorted(lo[:-1], cells, side="right")


def _support_slabs(
    grid: GridSpec, level: int, occupancy: np.ndarray | None
) -> Iterator[np.ndarray | None]:
    """Per x = 0 … N: touched level cells around each vertex, flat uint8; None if all are 0."""
    occupancy, first, last = _occupied_cells(grid, level, occupancy)
    resolution = grid.resolutions[level]
    key, above, total = None, None, None
    summed: tuple[np.ndarray | None, np.ndarray | None] = None, None
    for x in range(resolution + 1):
        below = above
        if x == resolution:
            above = None
        elif key != (first[x], last[x]):
            key = first[x], last[x]
            occupied = occupancy[key[0] : key[1]].any(axis=0)
            above = _support_slab(occupied, first, last) if occupied.any() else None
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
    vertices: np.ndarray,
    counts: np.ndarray,
    around: np.ndarray,
    place: np.ndarray,
    support: np.ndarray,
    magnitude: np.ndarray,
) -> None:
    """Raises each entry's features to those of the slab's touched vertices, in place.

    Args:
        index, x, size, is_dense: Which entries the slab's vertices have, as in :func:`_shift`.
        vertices, counts: The touched vertices and how many touched level cells they have around.
        around: Magnitude of the coarser cells of this x, flat.
        place: Position of each vertex's cell in ``around``.
    """
    entries = _shift(index[vertices], x, size, is_dense)
    np.maximum.at(support, entries, counts)
    np.maximum.at(magnitude, entries, around[place[vertices]])


def _scatter_neighbours(
    index: np.ndarray,
    x: int,
    size: int,
    is_dense: bool,
    vertices: np.ndarray,
    side: int,
    sizes: np.ndarray,
    found: np.ndarray,
) -> None:
    """Raises ``found`` [T] to the sum of the sizes around each of the slab's touched vertices.

    Args:
        side: Vertices per axis.
    """
    total = np.zeros(len(vertices), dtype=np.uint8)
    for other in (x - 1, x + 1):
        if 0 <= other < side:
            total += sizes[_shift(index[vertices], other, size, is_dense)]
    stride = 1
    while stride < len(index):
        coordinates = vertices // stride % side
        for step in (-1, 1):
            inside = np.flatnonzero((coordinates + step >= 0) & (coordinates + step < side))
            others = index[vertices[inside] + step * stride]
            total[inside] += sizes[_shift(others, x, size, is_dense)]
        stride *= side
    np.maximum.at(found, _shift(index[vertices], x, size, is_dense), total)
