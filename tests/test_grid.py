"""The grid against hand-computed numbers and a restatement of its layout in plain integers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shacira_nerfstudio.grid import GridSpec


def oracle_index(vertex, resolution, size):
    """Entry of one vertex, after tiny-cuda-nn's ``grid_index``, in arbitrary precision."""
    if resolution ** len(vertex) <= size:
        return sum(v * resolution**axis for axis, v in enumerate(vertex)) % size
    index = 0
    for v, prime in zip(vertex, (1, 2654435761, 805459861), strict=False):
        index ^= v * prime % 2**32
    return index % size


def all_vertices(resolution, num_dims):
    return np.array(list(itertools.product(range(resolution + 1), repeat=num_dims)))


def test_vertex_index_matches_the_oracle_everywhere(tiny_grid):
    for level, (n, size) in enumerate(
        zip(tiny_grid.resolutions, tiny_grid.table_sizes, strict=True)
    ):
        vertices = all_vertices(n, tiny_grid.num_dims)
        expected = [oracle_index([int(v) for v in vertex], n, size) for vertex in vertices]
        assert tiny_grid.vertex_index(level, vertices).tolist() == expected
        assert tiny_grid.vertex_index(level, torch.from_numpy(vertices)).tolist() == expected


@pytest.mark.parametrize(
    ("num_dims", "resolution", "size", "vertex", "entry"),
    [
        (3, 5, 128, (1, 2, 3), 1 + 2 * 5 + 3 * 25),
        (3, 5, 128, (5, 5, 5), (5 + 25 + 125) % 128),
        (2, 16, 256, (16, 0), 16),  # vertex N of one row is vertex 0 of the next
        (2, 16, 256, (0, 16), 0),  # ... and of the last row, the first
        (2, 17, 256, (1, 1), 1 ^ 0xB1),  # 2654435761 = 0x9E3779B1
        (2, 17, 256, (2, 3), 2 ^ 0x13),  # 3 * 0x9E3779B1 = 0x1DAA66D13
        (3, 9, 512, (0, 0, 1), 0x195),  # 805459861 = 0x30025795
        (3, 9, 512, (4, 1, 1), 4 ^ 0x1B1 ^ 0x195),
    ],
)
def test_hand_computed_entries(num_dims, resolution, size, vertex, entry):
    grid = GridSpec(num_dims, (resolution,), (size,))
    assert int(grid.vertex_index(0, np.array(vertex))) == entry


def test_large_vertices_do_not_overflow():
    grid = GridSpec(3, (1 << 20,), (1 << 19,))
    vertices = np.array([[1 << 20] * 3, [(1 << 20) - 1, 1 << 20, 12345]])
    expected = [oracle_index([int(v) for v in row], 1 << 20, 1 << 19) for row in vertices]
    assert grid.vertex_index(0, vertices).tolist() == expected


def test_which_levels_are_dense(tiny_grid):
    dense = [tiny_grid.is_dense(level) for level in range(tiny_grid.num_levels)]
    assert dense == [True, True, True, False, False]


def test_vertices_of_a_dense_level_share_no_entry(tiny_grid):
    for level in range(3):
        inner = all_vertices(tiny_grid.resolutions[level] - 1, tiny_grid.num_dims)
        entries = tiny_grid.vertex_index(level, inner)
        assert len(np.unique(entries)) == len(inner)


def test_offsets(tiny_grid_3d):
    assert tiny_grid_3d.offsets == (0, 32, 160, 672, 1184, 1696)
    assert tiny_grid_3d.num_entries == 1696
    assert tiny_grid_3d.num_levels == 5


def test_create_golden_numbers():
    # Instant-NGP's standard grid; growth factor 2^(7 / 15).
    grid = GridSpec.create()
    assert grid.resolutions == (
        *(16, 22, 31, 42, 58, 81, 111, 154),
        *(213, 294, 406, 562, 776, 1072, 1482, 2048),
    )
    assert grid.table_sizes == (4096, 10648, 29792, 74088, 195112, *[1 << 19] * 11)


@given(
    num_dims=st.sampled_from([2, 3]),
    num_levels=st.integers(1, 24),
    base_res=st.integers(2, 64),
    factor=st.floats(1, 200),
    log2_hashmap_size=st.integers(3, 22),
)
def test_create_laws(num_dims, num_levels, base_res, factor, log2_hashmap_size):
    max_res = int(base_res * factor)
    grid = GridSpec.create(
        num_dims=num_dims,
        num_levels=num_levels,
        base_res=base_res,
        max_res=max_res,
        log2_hashmap_size=log2_hashmap_size,
    )
    assert grid.num_levels == num_levels
    assert grid.resolutions[0] == base_res
    assert num_levels == 1 or grid.resolutions[-1] == max_res
    assert grid.offsets[-1] == grid.num_entries
    for level, (n, size) in enumerate(zip(grid.resolutions, grid.table_sizes, strict=True)):
        assert grid.is_dense(level) == (n**num_dims <= 1 << log2_hashmap_size)
        # The smallest multiple of 8 that holds a dense level, all of the table otherwise.
        assert size == min((n**num_dims + 7) // 8 * 8, 1 << log2_hashmap_size)


@pytest.mark.parametrize(
    ("num_dims", "resolutions", "sizes", "message"),
    [
        (1, (4,), (8,), "num_dims"),
        (4, (4,), (8,), "num_dims"),
        (3, (), (), "levels"),
        (2, (2,) * 65, (8,) * 65, "levels"),
        (3, (4, 5), (64,), "one table size per level"),
        (3, (1,), (8,), "resolution"),
        (3, ((1 << 20) + 1,), (1 << 19,), "resolution"),
        (3, (2,), (0,), "table size"),
        (3, (4,), (68,), "multiple"),
        (3, (4096,), (1 << 29,), "table size"),
        (3, (9,), (520,), "power of two"),
        (3, (5, 4), (128, 64), "coarse to fine"),
    ],
)
def test_impossible_grids_are_refused(num_dims, resolutions, sizes, message):
    with pytest.raises(ValueError, match=message):
        GridSpec(num_dims, resolutions, sizes)


@pytest.mark.parametrize(
    "numbers",
    [{"base_res": 1}, {"base_res": 32, "max_res": 16}, {"log2_hashmap_size": 2}],
)
def test_create_refuses_impossible_numbers(numbers):
    with pytest.raises(ValueError, match="expected"):
        GridSpec.create(**numbers)
