"""The compiled twins against numpy: identical bytes, identical integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, modest, occupancies, scenes, seeds

from shacira_nerfstudio.codec import decode_scene, encode_scene
from shacira_nerfstudio.codec.latents.features import (
    crowded_levels,
    level_features,
    neighbour_sizes,
)
from shacira_nerfstudio.codec.sections.occupancy import decode_occupancy, encode_occupancy
from shacira_nerfstudio.codec.entropy.rans import Decoder, Segment, encode, kernels
from shacira_nerfstudio.codec.entropy.frequency_table import FrequencyTable, TableSet
from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.grid import GridSpec

pytest.importorskip("numba")


@modest(15)
@given(
    seed=seeds,
    num_lanes=st.sampled_from([1, 3, 64]),
    size=st.sampled_from([0, 1, 2, 63, 64, 65, 500]),
    precision=st.sampled_from([12, 16]),
)
def test_coder(seed, num_lanes, size, precision):
    rng = np.random.default_rng(seed)
    tables = TableSet(
        [FrequencyTable(-2, (3, 9, 200, 9, 1), precision), FrequencyTable(0, (1, 1), precision)]
    )
    index = rng.integers(0, 2, size).astype(np.int32)
    values = np.where(index == 0, rng.integers(-2, 3, size), rng.integers(0, 2, size))
    freqs = rng.integers(1, 1 << 16, size)
    segments = [
        Segment.from_symbols(values, index, tables),
        Segment.from_bits(values > 0, freqs, 16),
    ]
    slow = encode(segments, num_lanes=num_lanes, fast=False)
    assert encode(segments, num_lanes=num_lanes, fast=True) == slow
    for fast in (False, True) if size else ():
        decoder = Decoder(slow, num_lanes=num_lanes, fast=fast)
        assert np.array_equal(decoder.take(index, tables), values)
        assert np.array_equal(decoder.take_bits(freqs, 16), values > 0)
        decoder.finish()


@pytest.mark.parametrize("fast", [False, True])
def test_both_notice_that_words_run_out(fast):
    tables, index = TableSet([FrequencyTable(0, (1,) * 256)]), np.zeros(100, dtype=np.int32)
    values = np.arange(100)
    bits = Segment.from_bits(values > 50, np.full(100, 9), 16)
    data = encode([Segment.from_symbols(values, index, tables), bits], num_lanes=2, fast=fast)
    with pytest.raises(SceneFormatError, match="end of the stream"):
        Decoder(data[:80], num_lanes=2, fast=fast).take(index, tables)
    decoder = Decoder(data[:-20], num_lanes=2, fast=fast)
    decoder.take(index, tables)
    with pytest.raises(SceneFormatError, match="end of the stream"):
        decoder.take_bits(np.full(100, 9), 16)


@modest(15)
@given(data=st.data(), seed=seeds)
def test_features(data, seed):
    grid = data.draw(grids(num_dims=3))
    occupancy = data.draw(occupancies(3))
    rng = np.random.default_rng(seed)
    for level in np.flatnonzero(~np.array(crowded_levels(grid, occupancy))).tolist():
        size = grid.table_sizes[level - 1]
        coarser = None if level == 0 else rng.integers(0, 32, size).astype(np.uint8)
        older = None
        if level > 1:
            older = rng.integers(0, 32, grid.table_sizes[level - 2]).astype(np.uint8)
        slow = level_features(grid, level, occupancy, coarser, ancestor=older, fast=False)
        fast = level_features(grid, level, occupancy, coarser, ancestor=older, fast=True)
        sizes = rng.integers(0, 32, grid.table_sizes[level]).astype(np.uint8)
        plain, compiled = (
            neighbour_sizes(grid, level, occupancy, sizes, fast=f) for f in (False, True)
        )
        assert np.array_equal(plain, compiled)
        assert np.array_equal(slow.ancestry, fast.ancestry)
        assert np.array_equal(slow.support, fast.support)
        assert np.array_equal(slow.magnitude, fast.magnitude)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("log2_size", [12, 17])
def test_no_number_of_threads_changes_a_feature(monkeypatch, num_threads, log2_size):
    monkeypatch.setattr("os.cpu_count", lambda: num_threads)
    rng = np.random.default_rng(log2_size)
    grid = GridSpec(3, (18, 30, 41), (5832, 1 << log2_size, 1 << log2_size))
    occupancy = np.zeros((20,) * 3, dtype=bool)
    occupancy[3:9, 2:15, 4:13] = rng.random((6, 13, 9)) < 0.4
    occupancy[14:16] = rng.random((2, 20, 20)) < 0.1
    coarser, older = (
        rng.integers(0, 32, size).astype(np.uint8) for size in grid.table_sizes[1::-1]
    )
    sizes = rng.integers(0, 32, grid.table_sizes[2]).astype(np.uint8)
    slow, fast = (
        level_features(grid, 2, occupancy, coarser, ancestor=older, fast=f) for f in (False, True)
    )
    for feature in ("support", "magnitude", "ancestry"):
        assert np.array_equal(getattr(slow, feature), getattr(fast, feature))
        assert getattr(slow, feature).any()
    plain, compiled = (neighbour_sizes(grid, 2, occupancy, sizes, fast=f) for f in (False, True))
    assert np.array_equal(plain, compiled) and plain.any()


@modest(15)
@given(occupancy=st.sampled_from([2, 3]).flatmap(occupancies))
def test_occupancy(occupancy):
    if occupancy is None:
        return
    slow = encode_occupancy(occupancy, fast=False)
    assert encode_occupancy(occupancy, fast=True) == slow
    for fast in (False, True):
        found = decode_occupancy(memoryview(slow), occupancy.ndim, fast=fast)
        assert np.array_equal(found, occupancy)


@modest(10)
@given(scene=scenes())
def test_scenes(scene):
    data = encode_scene(scene, fast=False)
    assert encode_scene(scene, fast=True) == data
    assert decode_scene(data, fast=True) == decode_scene(data, fast=False) == scene


def test_loaded_only_when_wanted():
    assert kernels(False) is None
    assert kernels(None) is kernels(True) is not None


@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_without_numba_numpy_serves(monkeypatch, error):
    def fail(_):
        raise error("no numba here")

    monkeypatch.setattr("importlib.import_module", fail)
    assert kernels(None) is None
    with pytest.raises(error):
        kernels(True)
