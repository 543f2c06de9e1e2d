"""Levels to sections and back, and what a damaged section may ask for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.latents import level_section
from shacira_nerfstudio.codec.latents.context_model import ContextModel
from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.latents.features import Features
from shacira_nerfstudio.codec.latents.level_contexts import LevelCoding
from shacira_nerfstudio.codec.latents.level_section import decode_level, encode_level


def some_features(rng, size):
    return Features(
        rng.integers(1, 9, size).astype(np.uint8),
        rng.integers(0, 249, size).astype(np.uint8),
        rng.integers(0, 249, size).astype(np.uint8),
    )


@modest(15)
@given(
    seed=seeds,
    size=st.sampled_from([0, 1, 2, 500]),
    num_channels=st.integers(1, 3),
    is_sparse=st.booleans(),
)
def test_levels(seed, size, num_channels, is_sparse):
    rng = np.random.default_rng(seed)
    features = some_features(rng, size)
    entries = np.sort(rng.permutation(2 * size)[:size]) if is_sparse else None
    coding = LevelCoding(features, entries)
    scale = features.parent_magnitude[:, None] / 60
    symbols = np.round(rng.laplace(size=(size, num_channels)) * scale).astype(np.int16)
    split = (
        ContextModel(1, 2),
        ContextModel(1, 2, partner_weight=5, partner_reach=2, thresholds=(9, 30)),
    )
    for models in (choose_models(symbols, coding), [split] * num_channels):
        data = encode_level(symbols, coding, models, fast=False)
        found, parts = decode_level(memoryview(data), coding, num_channels, "LATN", fast=False)
        assert np.array_equal(found, symbols)
        assert parts.table_bytes + parts.stream_bytes == len(data)


def test_one_table_where_several_would_have_too_many_symbols(monkeypatch):
    features = Features(*np.tile([[1], [2]], (3, 1, 50)).reshape(3, 100).astype(np.uint8))
    coding, models = LevelCoding(features), [(ContextModel(1, thresholds=(2,)),)]
    symbols = np.zeros((100, 1), dtype=np.int16)
    symbols[[0, 1, 50, 51], 0] = -4095, 4095, -4095, 4095
    two_tables = encode_level(symbols, coding, models, fast=False)
    monkeypatch.setattr(level_section, "MAX_TABLE_SYMBOLS", (8191, 0))
    with pytest.raises(SceneFormatError, match="at most 8191 symbols in tables"):
        decode_level(memoryview(two_tables), coding, 1, "LATN", fast=False)
    one_table = encode_level(symbols, coding, models, fast=False)
    assert one_table == encode_level(symbols, coding, [(ContextModel(),)], fast=False) != two_tables
    found, _ = decode_level(memoryview(one_table), coding, 1, "LATN", fast=False)
    assert np.array_equal(found, symbols)
