"""Reached entries and features against plain loops, and against what rendering reads."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, modest, occupancies, seeds

from shacira_nerfstudio.codec.latents.features import (
    MAX_DESCRIBED,
    MAX_NEIGHBOURS,
    MAX_WALKED,
    TouchedSlabs,
    crowded_levels,
    described_levels,
    entry_magnitudes,
    level_features,
    neighbour_levels,
    neighbour_sizes,
    reached_entries,
)
from shacira_nerfstudio.grid import GridSpec


def entry(grid, level, vertex):
    return int(grid.vertex_index(level, np.array(vertex)))


def corners(num_dims):
    return list(itertools.product((0, 1), repeat=num_dims))


def plus(a, b):
    return tuple(int(i) + j for i, j in zip(a, b, strict=True))


def touched_vertices(grid, level, occupancy):
    """Touched level cells around each touched vertex, by FORMAT.md's rules, cell by cell."""
    n, g = grid.resolutions[level], len(occupancy)
    touched = set()
    for cell in np.argwhere(occupancy).tolist():
        spans = [
            range((2 * c * (n - 1) + g) // (2 * g), (2 * (c + 1) * (n - 1) + g) // (2 * g) + 1)
            for c in cell
        ]
        touched |= set(itertools.product(*spans))
    around = {}
    for level_cell in touched:
        for corner in corners(grid.num_dims):
            vertex = plus(level_cell, corner)
            around[vertex] = around.get(vertex, 0) + 1
    return around


def features_by_loops(grid, level, occupancy, coarser, steps=1):
    """Support, and magnitude in the level so many steps coarser."""
    n = grid.resolutions[level]
    support, magnitude = [0] * grid.table_sizes[level], [0] * grid.table_sizes[level]
    for vertex, count in touched_vertices(grid, level, occupancy).items():
        e = entry(grid, level, vertex)
        support[e] = max(support[e], count)
        if coarser is not None:
            p = grid.resolutions[level - steps]
            lower = [((2 * v - 1) * (p - 1) + n - 1) // (2 * (n - 1)) for v in vertex]
            lower = [min(v, p - 1) for v in lower]
            found = [entry(grid, level - steps, plus(lower, c)) for c in corners(grid.num_dims)]
            magnitude[e] = max(magnitude[e], sum(int(coarser[i]) for i in found))
    return support, magnitude


@modest(25)
@given(data=st.data(), seed=seeds, num_dims=st.sampled_from([2, 3]))
def test_features_follow_the_rules(data, seed, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    level = data.draw(st.integers(0, grid.num_levels - 1))
    size = grid.table_sizes[level - 1]
    coarser = np.random.default_rng(seed).integers(0, 32, size).astype(np.uint8)
    coarser = None if level == 0 else coarser
    found = level_features(grid, level, occupancy, coarser, fast=False)
    cells = np.ones((1,) * num_dims, dtype=bool) if occupancy is None else occupancy
    support, magnitude = features_by_loops(grid, level, cells, coarser)
    assert found.support.tolist() == support
    assert found.magnitude.tolist() == magnitude
    assert not found.ancestry.any()
    if level > 1:
        older = np.random.default_rng(seed + 1).integers(0, 32, grid.table_sizes[level - 2])
        older = older.astype(np.uint8)
        found = level_features(grid, level, occupancy, coarser, ancestor=older, fast=False)
        assert found.magnitude.tolist() == magnitude
        assert found.ancestry.tolist() == features_by_loops(grid, level, cells, older, 2)[1]


@modest(25)
@given(data=st.data(), seed=seeds, num_dims=st.sampled_from([2, 3]))
def test_neighbours_follow_the_rules(data, seed, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    level = data.draw(st.integers(0, grid.num_levels - 1))
    n, size = grid.resolutions[level], grid.table_sizes[level]
    sizes = np.random.default_rng(seed).integers(0, 32, size).astype(np.uint8)
    cells = np.ones((1,) * num_dims, dtype=bool) if occupancy is None else occupancy
    expected = [0] * size
    steps = [s for s in itertools.product((-1, 0, 1), repeat=num_dims) if np.abs(s).sum() == 1]
    for vertex in touched_vertices(grid, level, cells):
        near = [plus(vertex, step) for step in steps]
        near = [other for other in near if min(other) >= 0 and max(other) <= n]
        total = sum(int(sizes[entry(grid, level, other)]) for other in near)
        e = entry(grid, level, vertex)
        expected[e] = max(expected[e], total)
    touched = TouchedSlabs(grid, level, occupancy)
    for _ in range(2):  # walked, then kept
        found = neighbour_sizes(grid, level, occupancy, sizes, touched=touched, fast=False)
        assert found.tolist() == expected


def test_more_touched_vertices_than_are_kept(monkeypatch):
    monkeypatch.setattr("shacira_nerfstudio.codec.latents.features._MAX_KEPT", 100)
    grid = GridSpec(3, (9,), (736,))
    touched = TouchedSlabs(grid, 0, None)
    first, second = ([len(slab[0]) for slab in touched] for _ in range(2))
    assert first == second == [100] * 10


def test_described_levels():
    grid = GridSpec(3, (200, 255, 340, 405), (1 << 17, 1 << 20, 1 << 20, 1 << 20))
    everything = np.ones((4,) * 3, dtype=bool)
    assert crowded_levels(grid, everything) == (True, False, True, True)
    # Loads are 67, 18, 41 and 67 of their tables.
    assert described_levels(grid, everything) == (False, True, True, False)
    # What is not crowded needs no room; crowded levels have room together.
    grid = GridSpec(3, (299, 341, 350), (1 << 20, 1 << 20, 1 << 20))
    assert 300**3 + 342**3 <= MAX_DESCRIBED < 300**3 + 342**3 + 351**3
    assert crowded_levels(grid, everything) == (True, True, True)
    assert described_levels(grid, everything) == (True, True, False)


def test_levels_have_neighbours_up_to_a_number_of_vertices():
    grid = GridSpec(3, (400, 500, 510), (1 << 20,) * 3)
    assert 401**3 + 501**3 <= MAX_NEIGHBOURS < 401**3 + 501**3 + 511**3
    assert neighbour_levels(grid, (True, True, True), 1) == (True, True, False)
    assert neighbour_levels(grid, (True, True, True), 2) == (True, False, False)
    assert neighbour_levels(grid, (False, True, True), 1) == (False, True, True)


@modest(20)
@given(data=st.data(), num_dims=st.sampled_from([2, 3]))
def test_crowded_levels_reach_everything(data, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    for level in range(grid.num_levels):
        n, size = grid.resolutions[level], grid.table_sizes[level]
        cells = np.ones((1,) * num_dims, dtype=bool) if occupancy is None else occupancy
        g = len(cells)
        touched = 0
        for cell in np.argwhere(cells).tolist():
            touched += np.prod(
                [
                    (2 * (c + 1) * (n - 1) + g) // (2 * g) - (2 * c * (n - 1) + g) // (2 * g) + 2
                    for c in cell
                ]
            )
        is_crowded = crowded_levels(grid, occupancy)[level]
        assert is_crowded == (n**num_dims > size and touched > 24 * size)
        reached = reached_entries(grid, level, occupancy)
        if occupancy is None or is_crowded:
            assert reached.all()


@pytest.mark.parametrize("num_dims", [2, 3])
@pytest.mark.parametrize("side", [1, 5, 16])
def test_what_rendering_reads_is_reached(num_dims, side):
    rng = np.random.default_rng(side)
    occupancy = rng.random((side,) * num_dims) < 0.08
    occupancy[(side // 2,) * num_dims] = True
    grid = GridSpec.create(
        num_dims=num_dims, num_levels=6, base_res=3, max_res=60, log2_hashmap_size=12
    )
    cells = np.argwhere(occupancy)
    x = (cells[rng.integers(len(cells), size=20_000)] + rng.random((20_000, num_dims))) / side
    # Ends of cells are the dangerous places.
    x[::7] = np.round(x[::7] * side) / side
    inside = occupancy[tuple(np.minimum((x * side).astype(int), side - 1).T)]
    x = x[inside]
    for level in range(grid.num_levels):
        reached = reached_entries(grid, level, occupancy)
        position = x * (grid.resolutions[level] - 1) + 0.5
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


def test_levels_are_walked_up_to_a_number_of_vertices():
    nothing = np.zeros((4,) * 3, dtype=bool)
    assert crowded_levels(GridSpec(3, (644, 1 << 20), (8, 8)), nothing) == (False, True)
    assert crowded_levels(GridSpec(3, (645, 1 << 20), (8, 8)), nothing) == (True, True)
    assert crowded_levels(GridSpec(2, (1 << 20,), (8,)), None) == (True,)
    # Coarser levels count, dense and crowded ones do not.
    sides = (64, 400, 510, 520, 520)
    grid = GridSpec(3, sides, (1 << 18, 8, 8, 8, 1 << 20))
    assert 401**3 + 511**3 <= MAX_WALKED < 401**3 + 511**3 + 521**3
    assert crowded_levels(grid, nothing) == (False, False, False, True, True)
    everything = np.ones((4,) * 3, dtype=bool)
    assert crowded_levels(grid, everything) == (False, True, True, True, True)
    assert crowded_levels(GridSpec(3, (510, 520), (1 << 23, 8)), everything)[0] is False


def test_magnitudes_are_capped():
    symbols = np.array([[0, 0], [-3, 2], [-4095, 4095], [31, 0], [0, -32]], dtype=np.int16)
    assert entry_magnitudes(symbols).tolist() == [0, 5, 31, 31, 31]
