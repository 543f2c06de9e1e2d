"""Costs of symbols are what their file pays for them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from strategies import modest, scenes

from shacira_nerfstudio.codec import PackedScene, describe, encode_scene
from shacira_nerfstudio.codec.contexts import reached_entries
from shacira_nerfstudio.codec.costs import symbol_costs
from shacira_nerfstudio.grid import GridSpec


@pytest.fixture(scope="module")
def scene():
    """Latents that lie thicker in one half of space, on two channels, a third of it occupied."""
    grid = GridSpec.create(num_dims=3, num_levels=5, base_res=8, max_res=64, log2_hashmap_size=14)
    rng = np.random.default_rng(0)
    occupancy = np.zeros((16, 16, 16), bool)
    occupancy[4:14, 3:12, 2:13] = True
    symbols = np.zeros((grid.num_entries, 2), np.int16)
    for level in range(grid.num_levels):
        rows = symbols[grid.offsets[level] : grid.offsets[level + 1]]
        spread = np.linspace(0.1, 1.2, len(rows))[:, None]
        rows[:] = np.round(rng.laplace(size=rows.shape) * spread)
        rows[~reached_entries(grid, level, occupancy)] = 0
    return PackedScene("radiance_field", {}, grid, symbols, occupancy, {})


def test_they_add_up_to_the_stream(scene):
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    parts = describe(encode_scene(scene))["bytes_by_part"]
    assert costs.symbol.sum() / 8 == pytest.approx(parts["latents"], rel=0.02)


def test_a_smaller_symbol_saves_what_it_says(scene):
    """Of 200 dear symbols that become 0 together: tables hardly change."""
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    saved = (costs.symbol - costs.zero).ravel()
    some = np.argsort(saved)[-200:]
    symbols = scene.symbols.copy()
    symbols.ravel()[some] = 0
    less = encode_scene(dataclasses.replace(scene, symbols=symbols))
    real = len(encode_scene(scene)) - len(less)
    # What neighbours gain by calmer contexts, and tables by fewer letters, comes on top.
    assert 0.8 * saved[some].sum() / 8 < real < 2 * saved[some].sum() / 8


def test_zero_is_its_own_neighbour_and_one_lies_beside_it(scene):
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    is_zero, is_one = scene.symbols == 0, np.abs(scene.symbols) == 1
    assert np.array_equal(costs.symbol[is_zero], costs.nearer[is_zero])
    assert np.array_equal(costs.nearer[is_one], costs.zero[is_one])
    assert costs.symbol[is_one].mean() > costs.zero[is_one].mean() + 0.5


def test_what_nothing_reaches_costs_nothing(scene):
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    for level in range(scene.grid.num_levels):
        rows = slice(scene.grid.offsets[level], scene.grid.offsets[level + 1])
        reached = reached_entries(scene.grid, level, scene.occupancy)
        assert not costs.symbol[rows][~reached].any()
        assert (costs.symbol[rows][reached] > 0).any()


@modest(15)
@given(scene=scenes())
def test_every_scene_has_finite_costs(scene):
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    for bits in (costs.symbol, costs.nearer, costs.zero):
        assert bits.shape == scene.symbols.shape and bits.dtype == np.float32
        assert np.isfinite(bits).all() and (bits >= 0).all()
