"""Channel models: scores and classes by hand, storage, and what the encoder gains by choosing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec.contexts import Features
from shacira_nerfstudio.codec.latents import (
    MAX_SCORE,
    ChannelModel,
    decode_level,
    encode_level,
)
from shacira_nerfstudio.codec.model_choice import choose_models
from shacira_nerfstudio.codec.wire import BitReader, BitWriter, SceneFormatError


def features(support, magnitude):
    return Features(np.array(support, dtype=np.uint8), np.array(magnitude, dtype=np.uint8))


def test_scores_by_hand():
    known = features([0, 8, 8], [0, 248, 3])
    earlier = np.array([[0, 0], [-4095, 4095], [2, -3]], dtype=np.int16)
    model = ChannelModel(63, 63, 63)
    assert model.scores(known, earlier).tolist() == [0, MAX_SCORE, 63 * (8 + 3 + 5)]


def test_classes_by_hand():
    known = features([1, 2, 3, 4], [0, 0, 0, 0])
    earlier = np.array([[9], [-1], [0], [-7]], dtype=np.int16)
    assert ChannelModel(1, thresholds=(2, 4)).classes(known, earlier).tolist() == [0, 1, 1, 2]
    model = ChannelModel(1, value_reach=2, thresholds=(2, 4))
    assert model.num_classes == 15
    assert model.classes(known, earlier).tolist() == [4, 5 + 1, 5 + 2, 10]
    assert ChannelModel().classes(known, earlier).tolist() == [0] * 4


@modest(20)
@given(
    weights=st.tuples(*[st.integers(0, 63)] * 3),
    reach=st.integers(0, 3),
    thresholds=st.sets(st.integers(1, MAX_SCORE), max_size=15),
)
def test_storage(weights, reach, thresholds):
    model = ChannelModel(*weights, reach, tuple(sorted(thresholds)))
    writer = BitWriter()
    model.write(writer)
    reader = BitReader(writer.to_bytes(), "test")
    assert ChannelModel.read(reader, "test", is_first=False) == model
    if weights[2] or reach:
        with pytest.raises(SceneFormatError, match="first channel"):
            ChannelModel.read(BitReader(writer.to_bytes(), "test"), "test", is_first=True)


@modest(10)
@given(seed=seeds, size=st.sampled_from([0, 1, 2, 500]), num_channels=st.integers(1, 3))
def test_levels(seed, size, num_channels):
    rng = np.random.default_rng(seed)
    known = Features(
        rng.integers(0, 9, size).astype(np.uint8), rng.integers(0, 249, size).astype(np.uint8)
    )
    scale = known.magnitude[:, None] / 60
    symbols = np.round(rng.laplace(size=(size, num_channels)) * scale).astype(np.int16)
    data = encode_level(symbols, known, choose_models(symbols, known), fast=False)
    found, parts = decode_level(memoryview(data), known, num_channels, "LATN", fast=False)
    assert np.array_equal(found, symbols)
    assert parts.table_bytes + parts.stream_bytes == len(data)


def test_classes_pay():
    rng = np.random.default_rng(0)
    size = 20_000
    known = Features(
        rng.integers(1, 9, size).astype(np.uint8), rng.integers(0, 249, size).astype(np.uint8)
    )
    first = np.round(rng.laplace(size=size) * (known.magnitude / 80) ** 2)
    second = np.round(0.7 * first + rng.laplace(size=size) * 0.3)
    symbols = np.stack([first, second], axis=1).astype(np.int16)
    models = choose_models(symbols, known)
    assert models[0].magnitude_weight and models[1].value_reach
    chosen = len(encode_level(symbols, known, models, fast=False))
    plain = len(encode_level(symbols, known, [ChannelModel()] * 2, fast=False))
    assert chosen < 0.8 * plain


def test_no_classes_where_there_is_nothing_to_gain():
    rng = np.random.default_rng(0)
    known = Features(*rng.integers(0, 9, (2, 3000)).astype(np.uint8))
    symbols = np.round(rng.laplace(size=(3000, 2))).astype(np.int16)
    assert [model.num_classes for model in choose_models(symbols, known)] == [1, 1]
