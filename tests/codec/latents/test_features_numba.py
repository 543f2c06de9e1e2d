"""Compiled features against numpy, and whole scenes: identical integers, identical bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, modest, occupancies, scenes, seeds

from shacira_nerfstudio.codec import decode_scene, encode_scene
from shacira_nerfstudio.codec.latents.features import level_features, neighbour_magnitudes
from shacira_nerfstudio.codec.latents.level_slabs import TouchedSlabs
from shacira_nerfstudio.grid import GridSpec

pytest.importorskip("numba")


def compare(slabs, rng):
    """All features of a level, made twice, and neighbours."""
    grid, level = slabs.grid, slabs.level
    parent, grandparent = (
        rng.integers(0, 32, grid.table_sizes[level - steps]).astype(np.uint8)
        if level >= steps
        else None
        for steps in (1, 2)
    )
    slow, fast = (level_features(slabs, parent, grandparent, fast=f) for f in (False, True))
    assert np.array_equal(slow.touched_cells, fast.touched_cells)
    assert np.array_equal(slow.parent_magnitude, fast.parent_magnitude)
    assert np.array_equal(slow.grandparent_magnitude, fast.grandparent_magnitude)
    magnitudes = rng.integers(0, 32, grid.table_sizes[level]).astype(np.uint8)
    plain, compiled = (neighbour_magnitudes(slabs, magnitudes, fast=f) for f in (False, True))
    assert np.array_equal(plain, compiled)
    return slow, plain


@modest(40)
@given(data=st.data(), seed=seeds, num_dims=st.sampled_from([2, 3]))
def test_features(data, seed, num_dims):
    grid = data.draw(grids(num_dims=num_dims))
    occupancy = data.draw(occupancies(num_dims))
    rng = np.random.default_rng(seed)
    for level in range(grid.num_levels):
        compare(TouchedSlabs(grid, level, occupancy), rng)


CUBE = (18,) * 3, (30,) * 3, (41,) * 3
BOX = (9, 18, 5), (30, 41, 11), (60, 70, 30)
PICTURE = (40, 25), (150, 100), (300, 200)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("resolutions", [CUBE, BOX, PICTURE], ids=["cube", "box", "picture"])
@pytest.mark.parametrize("log2_size", [12, 17])
def test_no_number_of_threads_changes_a_feature(monkeypatch, num_threads, resolutions, log2_size):
    monkeypatch.setattr("os.cpu_count", lambda: num_threads)
    rng = np.random.default_rng(log2_size)
    num_dims = len(resolutions[0])
    grid = GridSpec(num_dims, resolutions, (5832, 1 << log2_size, 1 << log2_size))
    shape = (20,) * 3 if resolutions is CUBE else (20, 22, 18)[:num_dims]
    occupancy = np.zeros(shape, dtype=bool)
    inside = occupancy[3:9, 2:15, 4:13] if num_dims == 3 else occupancy[3:9, 2:15]
    inside[:] = rng.random(inside.shape) < 0.4
    occupancy[14:16] = rng.random((2, *shape[1:])) < 0.1
    features, neighbours = compare(TouchedSlabs(grid, 2, occupancy), rng)
    assert features.touched_cells.any() and features.parent_magnitude.any()
    assert features.grandparent_magnitude.any() and neighbours.any()


@modest(10)
@given(scene=scenes())
def test_scenes(scene):
    data = encode_scene(scene, fast=False)
    assert encode_scene(scene, fast=True) == data
    assert decode_scene(data, fast=True) == decode_scene(data, fast=False) == scene
