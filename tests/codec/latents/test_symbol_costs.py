"""Costs of symbols are what their file pays for them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from strategies import busy_scene, modest, scenes

from shacira_nerfstudio.codec import describe, encode_scene
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.latents.symbol_costs import symbol_costs


@pytest.fixture(scope="module")
def scene():
    return busy_scene()


def test_they_add_up_to_the_stream(scene):
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    stream_bytes = describe(encode_scene(scene))["stream_bytes"]
    assert costs.symbol.sum() / 8 == pytest.approx(stream_bytes, rel=0.02)


def test_a_smaller_symbol_saves_what_it_says(scene):
    """Of 200 dear symbols that become 0 together: tables hardly change."""
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    saved = (costs.symbol - costs.zero).ravel()
    some = np.argsort(saved)[-200:]
    symbols = scene.symbols.copy()
    symbols.ravel()[some] = 0
    less = encode_scene(dataclasses.replace(scene, symbols=symbols))
    real = len(encode_scene(scene)) - len(less)
    # What neighbours gain by calmer contexts, and tables by fewer symbols, comes on top.
    assert 0.8 * saved[some].sum() / 8 < real < 2 * saved[some].sum() / 8


def test_zero_is_its_own_neighbour_and_one_lies_beside_it(scene):
    costs = symbol_costs(scene.grid, scene.symbols, scene.occupancy)
    is_zero, is_one = scene.symbols == 0, np.abs(scene.symbols) == 1
    assert np.array_equal(costs.symbol[is_zero], costs.toward_zero[is_zero])
    assert np.array_equal(costs.toward_zero[is_one], costs.zero[is_one])
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
    for bits in (costs.symbol, costs.toward_zero, costs.zero):
        assert bits.shape == scene.symbols.shape and bits.dtype == np.float32
        assert np.isfinite(bits).all() and (bits >= 0).all()
