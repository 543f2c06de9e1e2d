"""Which levels are saturated, have features or neighbours: by hand, and against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, modest, occupancies

from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.latents.level_kinds import (
    MAX_FEATURE_VERTICES,
    MAX_NEIGHBOUR_VERTICES,
    MAX_WALKED,
    level_kinds,
    levels_with_neighbours,
    saturated_levels,
)
from shacira_nerfstudio.grid import GridSpec


def cubes(sides, sizes):
    return GridSpec(3, tuple((n,) * 3 for n in sides), sizes)


def test_levels_with_features():
    grid = cubes((200, 255, 340, 405), (1 << 17, 1 << 20, 1 << 20, 1 << 20))
    everything = np.ones((4,) * 3, dtype=bool)
    kinds = level_kinds(grid, everything)
    assert kinds.is_saturated == (True, False, True, True)
    # Loads are 67, 18, 41 and 67 of their tables.
    assert kinds.has_features == (False, True, True, False)
    # What is not saturated needs no room; saturated levels have room together.
    grid = cubes((299, 341, 350), (1 << 20, 1 << 20, 1 << 20))
    assert 300**3 + 342**3 <= MAX_FEATURE_VERTICES < 300**3 + 342**3 + 351**3
    kinds = level_kinds(grid, everything)
    assert kinds.is_saturated == (True, True, True)
    assert kinds.has_features == (True, True, False)


def test_levels_have_neighbours_up_to_a_number_of_vertices():
    grid = cubes((400, 500, 510), (1 << 20,) * 3)
    assert 401**3 + 501**3 <= MAX_NEIGHBOUR_VERTICES < 401**3 + 501**3 + 511**3
    assert levels_with_neighbours(grid, (True, True, True), 1) == (True, True, False)
    assert levels_with_neighbours(grid, (True, True, True), 2) == (True, False, False)
    assert levels_with_neighbours(grid, (False, True, True), 1) == (False, True, True)


def test_vertices_are_counted_by_axis():
    """A video's level has many fewer vertices than the cube around it."""
    video = GridSpec(3, ((60, 34, 4), (1920, 1080, 64)), (8192, 1 << 24))
    assert 1921 * 1081 * 65 <= MAX_NEIGHBOUR_VERTICES < 1921**3
    assert saturated_levels(video, None) == (False, False)
    assert levels_with_neighbours(video, (True, True), 1) == (True, True)
    assert levels_with_neighbours(video, (True, True), 2) == (True, False)


@modest(30)
@given(data=st.data(), num_dims=st.sampled_from([2, 3]))
def test_saturated_levels_reach_everything(data, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    cells = np.ones((1,) * num_dims, dtype=bool) if occupancy is None else occupancy
    for level in range(grid.num_levels):
        axes, size = grid.resolutions[level], grid.table_sizes[level]
        load = 0
        for cell in np.argwhere(cells).tolist():
            load += np.prod(
                [
                    (2 * (c + 1) * (n - 1) + g) // (2 * g) - (2 * c * (n - 1) + g) // (2 * g) + 2
                    for c, n, g in zip(cell, axes, cells.shape, strict=True)
                ]
            )
        is_saturated = saturated_levels(grid, occupancy)[level]
        assert is_saturated == (np.prod(axes) > size and load > 24 * size)
        reached = reached_entries(grid, level, occupancy)
        if occupancy is None or is_saturated:
            assert reached.all()


def test_levels_are_visited_up_to_a_number_of_vertices():
    nothing = np.zeros((4,) * 3, dtype=bool)
    assert saturated_levels(cubes((644, 1 << 20), (8, 8)), nothing) == (False, True)
    assert saturated_levels(cubes((645, 1 << 20), (8, 8)), nothing) == (True, True)
    assert saturated_levels(GridSpec(2, ((1 << 20, 1 << 20),), (8,)), None) == (True,)
    # Coarser levels count, dense and saturated ones do not.
    sides = (64, 400, 510, 520, 520)
    grid = cubes(sides, (1 << 18, 8, 8, 8, 1 << 20))
    assert 401**3 + 511**3 <= MAX_WALKED < 401**3 + 511**3 + 521**3
    assert saturated_levels(grid, nothing) == (False, False, False, True, True)
    everything = np.ones((4,) * 3, dtype=bool)
    assert saturated_levels(grid, everything) == (False, True, True, True, True)
    assert saturated_levels(cubes((510, 520), (1 << 23, 8)), everything)[0] is False
