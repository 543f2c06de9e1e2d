"""Which levels have features: limits on the work that a file can ask for, whatever its length.

The *load* of a level is the sum over occupied cells of ``Π_axes (lo(c + 1) - lo(c) + 2)``, the
vertices that each of them touches; a vertex counts up to 2^D times and more. The vertices of a
level number ``Π_axes (N + 1)``. See ``level_slabs`` for the notation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from shacira_nerfstudio.codec.latents.level_slabs import first_cells
from shacira_nerfstudio.grid import GridSpec

MAX_LOAD = 24
"""A hashed level of a larger load per entry is *saturated*: every entry counts as reached.

Beyond this load nearly every entry is."""

MAX_FEATURE_LOAD = 64
"""Up to this load per entry a saturated level has features: there, ``touched_cells`` is 0 in
entries that no occupied cell touches. Beyond it features, each the largest of many, say nothing."""

MAX_WALKED = 1 << 28
"""Vertices of the hashed levels that are not saturated, together."""

MAX_FEATURE_VERTICES = 1 << 26
"""Vertices of the saturated levels with features, together."""

MAX_NEIGHBOUR_VERTICES = 1 << 28
"""Vertices, times channels, of the levels with the feature ``neighbour_magnitude``, together."""


@dataclass(frozen=True)
class LevelKinds:
    """What holds of each level, coarse to fine."""

    is_saturated: tuple[bool, ...]
    has_features: tuple[bool, ...]


def level_kinds(grid: GridSpec, occupancy: np.ndarray | None) -> LevelKinds:
    """Which levels are saturated and which have features.

    A dense level is never saturated. A hashed one is when the hashed levels before it that are not,
    and this one, have more than 2^28 vertices, or when its load exceeds 24 T. A level that is not
    saturated has features. So has a saturated one of a load of at most 64 T, when the saturated
    ones before it that have features, and this one, have at most 2^26 vertices.

    Args:
        occupancy: As in :func:`features.reached_entries`.
    """
    vertices = _num_vertices(grid)
    loads = _loads(grid, occupancy, [count <= MAX_WALKED for count in vertices])
    is_saturated, num_walked = [], 0
    has_features, num_with_features = [], 0
    for level, count in enumerate(vertices):
        size, load, is_dense = grid.table_sizes[level], loads[level], grid.is_dense(level)
        is_full = num_walked + count > MAX_WALKED or load > MAX_LOAD * size
        is_saturated.append(not is_dense and is_full)
        num_walked += 0 if is_dense or is_full else count
        has_room = (
            num_with_features + count <= MAX_FEATURE_VERTICES and load <= MAX_FEATURE_LOAD * size
        )
        has_features.append(not is_saturated[-1] or has_room)
        num_with_features += count if is_saturated[-1] and has_room else 0
    return LevelKinds(tuple(is_saturated), tuple(has_features))


def saturated_levels(grid: GridSpec, occupancy: np.ndarray | None) -> tuple[bool, ...]:
    """Levels in which every entry counts as reached; see :func:`level_kinds`."""
    return level_kinds(grid, occupancy).is_saturated


def levels_with_neighbours(
    grid: GridSpec, has_features: tuple[bool, ...], num_channels: int
) -> tuple[bool, ...]:
    """Levels with the feature ``neighbour_magnitude``: those with features, coarse to fine, while
    their vertices times channels are at most 2^28."""
    result, total = [], 0
    for vertices, is_there in zip(_num_vertices(grid), has_features, strict=True):
        has_room = is_there and total + vertices * num_channels <= MAX_NEIGHBOUR_VERTICES
        result.append(has_room)
        total += vertices * num_channels if has_room else 0
    return tuple(result)


def _num_vertices(grid: GridSpec) -> list[int]:
    return [prod(resolution + 1 for resolution in axes) for axes in grid.resolutions]


def _loads(grid: GridSpec, occupancy: np.ndarray | None, is_wanted: list[bool]) -> list[int]:
    """Load of each level; 0 if it is not wanted."""
    if occupancy is None:
        occupancy = np.ones((1,) * grid.num_dims, dtype=bool)
    spans = [np.zeros((num_cells, grid.num_levels)) for num_cells in occupancy.shape]
    for level, axes in enumerate(grid.resolutions):
        for span, resolution in zip(spans, axes if is_wanted[level] else (), strict=False):
            span[:, level] = np.diff(first_cells(resolution, len(span))) + 2
    # All sums are below 2^53 here, so float64 is exact in any order; it has the faster product.
    total = np.zeros(grid.num_levels)
    for x, slab in enumerate(occupancy):
        inner = slab.astype(np.float64) @ spans[-1]
        if inner.ndim == 2:
            inner = (inner * spans[1]).sum(axis=0)
        total += inner * spans[0][x]
    return [int(load) for load in total]
