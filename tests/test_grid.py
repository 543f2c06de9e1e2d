"""The grid against hand-computed numbers and a restatement of its layout in plain integers."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shacira_nerfstudio.grid import GridSpec

GRIDS = {
    "3d": GridSpec(3, tuple((n,) * 3 for n in (3, 5, 8, 9, 20)), (32, 128, 512, 512, 512)),
    "2d": GridSpec(2, tuple((n,) * 2 for n in (3, 5, 16, 17, 40)), (16, 32, 256, 256, 256)),
    "box": GridSpec(
        3, ((3, 3, 2), (6, 5, 3), (16, 8, 4), (17, 8, 4), (50, 20, 4)), (24, 96, 512, 512, 512)
    ),
    "picture": GridSpec(2, ((3, 7), (4, 9), (32, 16), (33, 16), (90, 40)), (24, 40, 512, 512, 512)),
}
"""Level by level: two dense ones whose table is rounded up to a multiple of 8, a dense one that
fills its table exactly, a hashed one that just misses that, and one far above."""


@pytest.fixture(params=GRIDS)
def any_grid(request):
    return GRIDS[request.param]


def oracle_index(vertex, axes, size):
    """Entry of one vertex, after tiny-cuda-nn's ``grid_index``, in arbitrary precision."""
    if math.prod(axes) <= size:
        return sum(v * math.prod(axes[:axis]) for axis, v in enumerate(vertex)) % size
    index = 0
    for v, prime in zip(vertex, (1, 2654435761, 805459861), strict=False):
        index ^= v * prime % 2**32
    return index % size


def all_vertices(axes):
    """From 0 to N along each axis."""
    return np.array(list(itertools.product(*(range(n + 1) for n in axes))))


def test_vertex_index_matches_the_oracle_everywhere(any_grid):
    for level, (axes, size) in enumerate(
        zip(any_grid.resolutions, any_grid.table_sizes, strict=True)
    ):
        vertices = all_vertices(axes)
        expected = [oracle_index(vertex, axes, size) for vertex in vertices.tolist()]
        assert any_grid.vertex_index(level, vertices).tolist() == expected
        assert any_grid.vertex_index(level, torch.from_numpy(vertices)).tolist() == expected


@pytest.mark.parametrize(
    ("axes", "size", "vertex", "entry"),
    [
        ((5, 5, 5), 128, (1, 2, 3), 1 + 2 * 5 + 3 * 25),
        ((5, 5, 5), 128, (5, 5, 5), (5 + 25 + 125) % 128),
        ((3, 7, 5), 112, (1, 2, 3), 1 + 2 * 3 + 3 * 3 * 7),
        ((3, 7, 5), 112, (3, 7, 5), (3 + 7 * 3 + 5 * 21) % 112),
        ((16, 16), 256, (16, 0), 16),  # vertex N of one row is vertex 0 of the next
        ((16, 16), 256, (0, 16), 0),  # ... and of the last row, the first
        ((32, 8), 256, (32, 2), 96),
        ((32, 8), 256, (0, 8), 0),
        ((17, 17), 256, (1, 1), 1 ^ 0xB1),  # 2654435761 = 0x9E3779B1
        ((17, 17), 256, (2, 3), 2 ^ 0x13),  # 3 * 0x9E3779B1 = 0x1DAA66D13
        ((40, 9), 256, (2, 3), 2 ^ 0x13),  # resolutions do not matter to the hash
        ((9, 9, 9), 512, (0, 0, 1), 0x195),  # 805459861 = 0x30025795
        ((9, 9, 9), 512, (4, 1, 1), 4 ^ 0x1B1 ^ 0x195),
    ],
)
def test_hand_computed_entries(axes, size, vertex, entry):
    grid = GridSpec(len(axes), (axes,), (size,))
    assert int(grid.vertex_index(0, np.array(vertex))) == entry


def test_large_vertices_do_not_overflow():
    grid = GridSpec(3, ((1 << 20,) * 3,), (1 << 19,))
    vertices = np.array([[1 << 20] * 3, [(1 << 20) - 1, 1 << 20, 12345]])
    expected = [oracle_index(row, (1 << 20,) * 3, 1 << 19) for row in vertices.tolist()]
    assert grid.vertex_index(0, vertices).tolist() == expected


def test_which_levels_are_dense(any_grid):
    dense = [any_grid.is_dense(level) for level in range(any_grid.num_levels)]
    assert dense == [True, True, True, False, False]


def test_vertices_of_a_dense_level_share_no_entry(any_grid):
    for level in range(3):
        inner = all_vertices([n - 1 for n in any_grid.resolutions[level]])
        entries = any_grid.vertex_index(level, inner)
        assert len(np.unique(entries)) == len(inner)


def test_offsets():
    grid = GRIDS["3d"]
    assert grid.offsets == (0, 32, 160, 672, 1184, 1696)
    assert grid.num_entries == 1696
    assert grid.num_levels == 5


def test_create_golden_numbers():
    # Instant-NGP's standard grid; growth factor 2^(7 / 15).
    grid = GridSpec.create()
    sides = (16, 22, 31, 42, 58, 81, 111, 154, 213, 294, 406, 562, 776, 1072, 1482, 2048)
    assert grid.resolutions == tuple((n, n, n) for n in sides)
    assert grid.table_sizes == (4096, 10648, 29792, 74088, 195112, *[1 << 19] * 11)


def test_create_with_a_resolution_for_each_axis():
    """Each axis grows by a factor of its own, 2, 1.5 and 1."""
    grid = GridSpec.create(
        num_levels=3, base_res=(16, 8, 4), max_res=(64, 18, 4), log2_hashmap_size=11
    )
    assert grid.resolutions == ((16, 8, 4), (32, 12, 4), (64, 18, 4))
    assert grid.table_sizes == (512, 1536, 2048)
    assert [grid.is_dense(level) for level in range(3)] == [True, True, False]
    picture = GridSpec.create(num_dims=2, num_levels=2, base_res=16, max_res=(320, 180))
    assert picture.resolutions == ((16, 16), (320, 180))


@given(
    num_dims=st.sampled_from([2, 3]),
    num_levels=st.integers(1, 24),
    base_res=st.tuples(*[st.integers(2, 64)] * 3),
    factors=st.tuples(*[st.floats(1, 200)] * 3),
    are_equal=st.booleans(),
    log2_hashmap_size=st.integers(3, 22),
)
def test_create_laws(num_dims, num_levels, base_res, factors, are_equal, log2_hashmap_size):
    max_res = tuple(int(n * factor) for n, factor in zip(base_res, factors, strict=True))
    base_res, max_res = base_res[:num_dims], max_res[:num_dims]
    if are_equal:
        base_res, max_res = base_res[0], max_res[0]
    grid = GridSpec.create(
        num_dims=num_dims,
        num_levels=num_levels,
        base_res=base_res,
        max_res=max_res,
        log2_hashmap_size=log2_hashmap_size,
    )
    assert grid.num_levels == num_levels
    first, last = ((n,) * num_dims if are_equal else n for n in (base_res, max_res))
    assert grid.resolutions[0] == first
    assert num_levels == 1 or grid.resolutions[-1] == last
    assert grid.offsets[-1] == grid.num_entries
    for level, (axes, size) in enumerate(zip(grid.resolutions, grid.table_sizes, strict=True)):
        assert grid.is_dense(level) == (math.prod(axes) <= 1 << log2_hashmap_size)
        # The smallest multiple of 8 that holds a dense level, all of the table otherwise.
        assert size == min((math.prod(axes) + 7) // 8 * 8, 1 << log2_hashmap_size)


@pytest.mark.parametrize(
    ("num_dims", "resolutions", "sizes", "message"),
    [
        (1, ((4,),), (8,), "num_dims"),
        (4, ((4,) * 4,), (256,), "num_dims"),
        (3, (), (), "levels"),
        (2, ((2, 2),) * 65, (8,) * 65, "levels"),
        (3, ((4, 4, 4), (5, 5, 5)), (64,), "one table size per level"),
        (3, ((4, 4),), (64,), "3 resolutions"),
        (2, ((4, 4, 4),), (64,), "2 resolutions"),
        (3, ((4, 1, 4),), (16,), "resolutions of 2"),
        (3, ((2, 2, (1 << 20) + 1),), (1 << 19,), "resolutions of 2"),
        (3, ((2, 2, 2),), (0,), "table size"),
        (3, ((4, 4, 4),), (68,), "multiple"),
        (3, ((4096,) * 3,), (1 << 29,), "table size"),
        (3, ((9, 9, 9),), (520,), "power of two"),
        (3, ((5, 5, 5), (4, 4, 4)), (128, 64), "coarse to fine"),
        (2, ((5, 5), (20, 4)), (32, 80), "coarse to fine"),
    ],
)
def test_impossible_grids_are_refused(num_dims, resolutions, sizes, message):
    with pytest.raises(ValueError, match=message):
        GridSpec(num_dims, resolutions, sizes)


@pytest.mark.parametrize(
    "numbers",
    [
        {"base_res": 1},
        {"base_res": 32, "max_res": 16},
        {"base_res": (16, 16)},
        {"base_res": (16, 16, 64), "max_res": (64, 64, 32)},
        {"log2_hashmap_size": 2},
    ],
)
def test_create_refuses_impossible_numbers(numbers):
    with pytest.raises(ValueError, match="expected"):
        GridSpec.create(**numbers)
