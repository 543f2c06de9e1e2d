"""Reached entries and features against plain loops, and against what rendering reads."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, modest, occupancies, seeds

from shacira_nerfstudio.codec.latents.features import (
    entry_magnitudes,
    level_features,
    neighbour_magnitudes,
    reached_entries,
)
from shacira_nerfstudio.codec.latents.level_kinds import saturated_levels
from shacira_nerfstudio.codec.latents.level_slabs import TouchedSlabs, slab_order
from shacira_nerfstudio.grid import GridSpec


def entry(grid, level, vertex):
    return int(grid.vertex_index(level, np.array(vertex)))


def corners(num_dims):
    return list(itertools.product((0, 1), repeat=num_dims))


def plus(a, b):
    return tuple(int(i) + j for i, j in zip(a, b, strict=True))


def first_cell(c, n, g):
    return (2 * c * (n - 1) + g) // (2 * g)


def touched_vertices(grid, level, occupancy):
    """Touched level cells around each touched vertex, by FORMAT.md's rules, cell by cell."""
    if occupancy is None:
        occupancy = np.ones((1,) * grid.num_dims, dtype=bool)
    touched = set()
    for cell in np.argwhere(occupancy).tolist():
        spans = [
            range(first_cell(c, n, g), first_cell(c + 1, n, g) + 1)
            for c, n, g in zip(cell, grid.resolutions[level], occupancy.shape, strict=True)
        ]
        touched |= set(itertools.product(*spans))
    around = {}
    for level_cell in touched:
        for corner in corners(grid.num_dims):
            vertex = plus(level_cell, corner)
            around[vertex] = around.get(vertex, 0) + 1
    return around


def touched_cells_by_loops(grid, level, occupancy):
    result = [0] * grid.table_sizes[level]
    for vertex, count in touched_vertices(grid, level, occupancy).items():
        e = entry(grid, level, vertex)
        result[e] = max(result[e], count)
    return result


def coarser_magnitude_by_loops(grid, level, occupancy, steps, magnitudes):
    """Magnitude around each vertex in the level so many steps coarser."""
    result = [0] * grid.table_sizes[level]
    for vertex in touched_vertices(grid, level, occupancy):
        lower = [
            min(((2 * v - 1) * (p - 1) + n - 1) // (2 * (n - 1)), p - 1)
            for v, n, p in zip(
                vertex, grid.resolutions[level], grid.resolutions[level - steps], strict=True
            )
        ]
        around = [entry(grid, level - steps, plus(lower, c)) for c in corners(grid.num_dims)]
        e = entry(grid, level, vertex)
        result[e] = max(result[e], sum(int(magnitudes[i]) for i in around))
    return result


def neighbours_by_loops(grid, level, occupancy, magnitudes):
    result, num_dims = [0] * grid.table_sizes[level], grid.num_dims
    steps = [s for s in itertools.product((-1, 0, 1), repeat=num_dims) if np.abs(s).sum() == 1]
    for vertex in touched_vertices(grid, level, occupancy):
        near = [plus(vertex, step) for step in steps]
        near = [
            other
            for other in near
            if all(0 <= v <= n for v, n in zip(other, grid.resolutions[level], strict=True))
        ]
        e = entry(grid, level, vertex)
        result[e] = max(result[e], sum(int(magnitudes[entry(grid, level, o)]) for o in near))
    return result


@modest(40)
@given(data=st.data(), seed=seeds, num_dims=st.sampled_from([2, 3]))
def test_features_follow_the_rules(data, seed, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    level = data.draw(st.integers(0, grid.num_levels - 1))
    rng = np.random.default_rng(seed)
    slabs = TouchedSlabs(grid, level, occupancy)
    parent, grandparent = (
        rng.integers(0, 32, grid.table_sizes[level - steps]).astype(np.uint8)
        if level >= steps
        else None
        for steps in (1, 2)
    )
    features = level_features(slabs, parent, grandparent, fast=False)
    assert features.touched_cells.tolist() == touched_cells_by_loops(grid, level, occupancy)
    for steps, magnitudes, feature in (
        (1, parent, features.parent_magnitude),
        (2, grandparent, features.grandparent_magnitude),
    ):
        if magnitudes is None:
            assert not feature.any()
        else:
            expected = coarser_magnitude_by_loops(grid, level, occupancy, steps, magnitudes)
            assert feature.tolist() == expected
    assert not level_features(slabs, parent, fast=False).grandparent_magnitude.any()


@modest(40)
@given(data=st.data(), seed=seeds, num_dims=st.sampled_from([2, 3]))
def test_neighbours_follow_the_rules(data, seed, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    level = data.draw(st.integers(0, grid.num_levels - 1))
    size = grid.table_sizes[level]
    magnitudes = np.random.default_rng(seed).integers(0, 32, size).astype(np.uint8)
    expected = neighbours_by_loops(grid, level, occupancy, magnitudes)
    slabs = TouchedSlabs(grid, level, occupancy)
    for _ in range(2):  # visited, then kept
        assert neighbour_magnitudes(slabs, magnitudes, fast=False).tolist() == expected


@pytest.mark.parametrize("axes", [(5, 9, 14), (5, 14, 9), (14, 9, 5), (6, 13), (13, 6)])
@pytest.mark.parametrize("size", [24, 32, 4096])
def test_axes_of_any_order(axes, size):
    """The longest axis is first, last or between, in dense levels and hashed ones."""
    num_dims = len(axes)
    if size == 24:  # dense, a table that is no power of two
        size = -(-int(np.prod(axes)) // 8) * 8
    coarse = tuple(max(n // 2, 2) for n in axes)
    grid = GridSpec(num_dims, (coarse, axes), (int(np.prod(coarse)) // 8 * 8 + 8, size))
    rng = np.random.default_rng(size)
    occupancy = rng.random((4, 7, 3)[:num_dims]) < 0.3
    parent = rng.integers(0, 32, grid.table_sizes[0]).astype(np.uint8)
    magnitudes = rng.integers(0, 32, size).astype(np.uint8)
    assert axes[slab_order(axes)[0]] == max(axes)
    slabs = TouchedSlabs(grid, 1, occupancy)
    features = level_features(slabs, parent, fast=False)
    assert features.touched_cells.tolist() == touched_cells_by_loops(grid, 1, occupancy)
    expected = coarser_magnitude_by_loops(grid, 1, occupancy, 1, parent)
    assert features.parent_magnitude.tolist() == expected
    found = neighbour_magnitudes(slabs, magnitudes, fast=False)
    assert found.tolist() == neighbours_by_loops(grid, 1, occupancy, magnitudes)


def test_more_touched_vertices_than_are_kept(monkeypatch):
    monkeypatch.setattr("shacira_nerfstudio.codec.latents.level_slabs._MAX_KEPT", 100)
    slabs = TouchedSlabs(GridSpec(3, ((9, 9, 9),), (736,)), 0, None)
    first, second = ([len(slab[0]) for slab in slabs] for _ in range(2))
    assert first == second == [100] * 10


@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 5), (16, 16), (3, 11), (5,) * 3, (16,) * 3, (4, 16, 7)]
)
@pytest.mark.parametrize("are_equal", [True, False])
def test_what_rendering_reads_is_reached(shape, are_equal):
    num_dims, sides = len(shape), np.array(shape)
    rng = np.random.default_rng(sides[0])
    occupancy = rng.random(shape) < 0.08
    occupancy[tuple(sides // 2)] = True
    max_res = 60 if are_equal else (60, 25, 40)[:num_dims]
    grid = GridSpec.create(
        num_dims=num_dims, num_levels=6, base_res=3, max_res=max_res, log2_hashmap_size=12
    )
    cells = np.argwhere(occupancy)
    x = (cells[rng.integers(len(cells), size=20_000)] + rng.random((20_000, num_dims))) / sides
    # Ends of cells are the dangerous places.
    x[::7] = np.round(x[::7] * sides) / sides
    inside = occupancy[tuple(np.minimum((x * sides).astype(int), sides - 1).T)]
    x = x[inside]
    for level in range(grid.num_levels):
        reached = reached_entries(grid, level, occupancy)
        position = x * (np.array(grid.resolutions[level]) - 1) + 0.5
        lower = np.floor(position).astype(np.int64)
        for corner in corners(num_dims):
            weight = np.where(corner, position - lower, 1 - (position - lower)).prod(axis=1)
            read = grid.vertex_index(level, lower + np.array(corner))[weight > 1e-4]
            assert reached[read].all()


def test_a_sparse_grid_leaves_most_entries_alone():
    occupancy = np.zeros((16,) * 3, dtype=bool)
    occupancy[3, 4, 5] = True
    grid = GridSpec.create(num_levels=4, base_res=8, max_res=64, log2_hashmap_size=15)
    shares = [reached_entries(grid, level, occupancy).mean() for level in range(4)]
    assert max(shares) < 0.06
    nothing = np.zeros((16,) * 3, dtype=bool)
    assert not any(reached_entries(grid, level, nothing).any() for level in range(4))


def test_everything_is_reached_without_an_occupancy_and_in_saturated_levels():
    grid = GridSpec(2, ((9, 20), (40, 90)), (64, 64))
    occupancy = np.ones((4, 5), dtype=bool)
    assert saturated_levels(grid, occupancy) == (False, True)
    occupancy[1:] = False
    occupancy[:, 1:] = False
    assert saturated_levels(grid, occupancy) == (False, False)
    assert reached_entries(grid, 0, None).all() and not reached_entries(grid, 0, occupancy).all()


def test_magnitudes_are_capped():
    symbols = np.array([[0, 0], [-3, 2], [-4095, 4095], [31, 0], [0, -32]], dtype=np.int16)
    assert entry_magnitudes(symbols).tolist() == [0, 5, 31, 31, 31]
