"""What training charges for latents is what the file will charge."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from strategies import busy_scene

from shacira_nerfstudio.codec import describe, encode_scene
from shacira_nerfstudio.codec.latents.symbol_costs import CodeClasses, code_classes
from shacira_nerfstudio.compression.code_lengths import (
    SOFT_BINS_PER_UNIT,
    code_lengths,
    entry_bits_of,
)
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.rate_models import LARGEST_VALUE

GRID = GridSpec(3, ((4,) * 3,) * 2, (128, 128))


def one_table_a_level(index=None):
    index = np.zeros((GRID.num_entries, 1), np.int16) if index is None else index
    return CodeClasses(index, np.array([0, 1, 2], np.int32))


def shares(latents, classes=None, *, is_soft=False):
    lengths = code_lengths(latents, classes or one_table_a_level(), GRID, is_soft=is_soft)
    bins_per_unit = SOFT_BINS_PER_UNIT if is_soft else 1
    assert lengths.shape == (2, 2 * LARGEST_VALUE * bins_per_unit + 1)
    assert lengths.dtype == np.float32
    return 2.0 ** -lengths.astype(np.float64)


def test_a_scene_costs_what_its_file_takes():
    scene = busy_scene()
    classes = code_classes(scene.grid, scene.symbols, scene.occupancy)
    lengths = code_lengths(scene.symbols.astype(np.float32), classes, scene.grid, is_soft=False)
    level = np.repeat(np.arange(scene.grid.num_levels), scene.grid.table_sizes)
    tables = classes.first[level][:, None] + classes.index
    bits = np.where(
        classes.index >= 0, lengths[tables, scene.symbols.astype(int) + LARGEST_VALUE], 0
    )
    real = describe(encode_scene(scene))["bytes_by_part"]["latents"]
    assert bits.sum() / 8 == pytest.approx(real, rel=0.03)


def test_shares_are_those_of_the_symbols_and_sum_to_one():
    random = np.random.default_rng(0)
    latents = random.choice([-1.2, 0.1, 0.3, 2.0], (GRID.num_entries, 1)).astype(np.float32)
    latents[: GRID.offsets[1]] = 5
    found = shares(latents)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    here = latents[GRID.offsets[1] :]
    for symbol in (-1, 0, 2):
        share = (np.rint(here) == symbol).mean()
        # 16 symbols' worth of the smooth distribution are mixed in.
        assert found[1, symbol + LARGEST_VALUE] == pytest.approx(share, abs=16 / len(here))
    assert found[0].argmax() == 5 + LARGEST_VALUE
    assert (found > 0).all()


def test_entries_that_nothing_reaches_do_not_count():
    latents = np.zeros((GRID.num_entries, 1), np.float32)
    index = np.zeros((GRID.num_entries, 1), np.int16)
    latents[::2], index[::2] = 30, -1
    assert np.array_equal(
        shares(latents, one_table_a_level(index)), shares(latents * 0, one_table_a_level(index))
    )


def test_soft_shares_are_the_density_of_noisy_latents():
    """P(v) is the share of latents within 1/2 of v; with noise their density at v."""
    random = np.random.default_rng(1)
    latents = random.choice([-0.6, 0.05, 0.2, 1.45], (GRID.num_entries, 1)).astype(np.float32)
    found = shares(latents, is_soft=True)[1]
    here = latents[GRID.offsets[1] :]
    for value in (-1, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 1.75):
        share = (np.abs(here - value) < 0.5).mean()
        # 16 symbols and 1 % of all are mixed in.
        mixed = 16 / len(here) + 0.01
        at = round((LARGEST_VALUE + value) * SOFT_BINS_PER_UNIT)
        assert found[at] == pytest.approx(share, abs=mixed), value
    # The density integrates to one; rounded latents have the same shares at integers.
    assert found.sum() / SOFT_BINS_PER_UNIT == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(found[::SOFT_BINS_PER_UNIT], shares(latents)[1], atol=0.02)


def test_a_narrow_table_has_a_price_for_what_it_does_not_hold():
    quiet = np.zeros((GRID.num_entries, 1), np.float32)
    for is_soft in (False, True):
        lengths = -np.log2(shares(quiet, is_soft=is_soft))[1]
        unit = SOFT_BINS_PER_UNIT if is_soft else 1
        steps = np.diff(lengths[LARGEST_VALUE * unit :: unit])
        assert 4 < steps[0] < 8  # one in 128 or so
        # On the way outwards every symbol costs something more, but never a wall.
        assert ((steps[1:] > 0.5) & (steps[1:] < 3)).all()


def test_symbols_beyond_the_tables_count_as_the_last():
    latents = np.full((GRID.num_entries, 1), 1000, np.float32)
    assert (shares(latents).argmax(1) == 2 * LARGEST_VALUE).all()
    assert (shares(-latents, is_soft=True).argmax(1) == 0).all()


def test_classes_separate_what_differs():
    scene = busy_scene()
    classes = code_classes(scene.grid, scene.symbols, scene.occupancy)
    assert classes.index.shape == scene.symbols.shape
    assert classes.first[-1] > scene.grid.num_levels
    assert (classes.index < np.diff(classes.first).max()).all()
    alike = dataclasses.replace(
        classes,
        index=np.minimum(classes.index, 0),
        first=np.arange(scene.grid.num_levels + 1, dtype=np.int32),
    )

    def total(which):
        lengths = code_lengths(scene.symbols.astype(np.float32), which, scene.grid, is_soft=False)
        level = np.repeat(np.arange(scene.grid.num_levels), scene.grid.table_sizes)
        bits = lengths[
            which.first[level][:, None] + which.index, scene.symbols.astype(int) + LARGEST_VALUE
        ]
        return bits[which.index >= 0].sum()

    assert total(classes) < total(alike)


def test_entries_cost_what_the_streams_of_the_file_take():
    scene = busy_scene()
    found = entry_bits_of(scene)
    assert found.shape == (scene.grid.num_entries,) and found.dtype == torch.float32
    described = describe(encode_scene(scene))
    assert float(found.sum()) / 8 == pytest.approx(described["stream_bytes"], rel=0.03)
    # Level by level as well.
    for level, (begin, end) in enumerate(itertools.pairwise(scene.grid.offsets)):
        bits = described["bytes_by_level"][level] * 8
        assert float(found[begin:end].sum()) <= bits


def test_levels_that_are_missing_cost_nothing():
    scene = busy_scene()
    last = scene.grid.offsets[-2]
    symbols = scene.symbols.copy()
    symbols[last:] = 0
    shorter = dataclasses.replace(
        scene, symbols=symbols, num_levels_present=scene.grid.num_levels - 1
    )
    found = entry_bits_of(shorter)
    assert torch.equal(found[:last], entry_bits_of(scene)[:last])
    assert not found[last:].any()
