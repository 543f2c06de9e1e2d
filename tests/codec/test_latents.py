"""Passes over channels: scores and classes by hand, storage, what the encoder gains by choosing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec.latents import level_section as latents
from shacira_nerfstudio.codec.latents.features import Features
from shacira_nerfstudio.codec.latents.level_section import decode_level, encode_level
from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.latents.context_model import MAX_SCORES, Known, LevelRows, PassModel
from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, SceneFormatError


def known(support, magnitude=0, before=0, previous=0, partner=0, ancestry=0, neighbours=0):
    columns = np.broadcast_arrays(
        support, magnitude, before, previous, partner, ancestry, neighbours
    )
    kinds = (np.uint8, np.uint8, np.uint8, np.int16, np.int16, np.uint8, np.uint8)
    return Known(*(column.astype(kind) for column, kind in zip(columns, kinds, strict=True)))


def some_features(rng, size):
    return Features(
        rng.integers(1, 9, size).astype(np.uint8),
        rng.integers(0, 249, size).astype(np.uint8),
        rng.integers(0, 249, size).astype(np.uint8),
    )


def test_scores_by_hand():
    rows = known([0, 8, 8], [0, 248, 3], [0, 31, 5], partner=[0, -4095, 2])
    model = PassModel(63, 63, 63, 63)
    assert model.scores(rows).tolist() == [0, MAX_SCORES[0], 63 * (8 + 3 + 5 + 2)]
    rows = known([0, 8, 8], [0, 248, 3], [0, 31, 5], 0, [0, -4095, 2], [0, 248, 7], [0, 186, 9])
    model = PassModel(63, 63, 63, 63, ancestry_weight=63, neighbour_weight=63)
    assert model.scores(rows).tolist() == [0, MAX_SCORES[1], 63 * (8 + 3 + 5 + 2 + 7 + 9)]


def test_classes_by_hand():
    rows = known([1, 2, 3, 4], previous=[9, -1, 0, -7], partner=[0, 1, -5, 2])
    assert PassModel(1, thresholds=(2, 4)).classes(rows).tolist() == [0, 1, 1, 2]
    model = PassModel(1, previous_reach=2, thresholds=(2, 4))
    assert model.num_classes == 15
    assert model.classes(rows).tolist() == [4, 5 + 1, 5 + 2, 10]
    model = PassModel(1, previous_reach=2, partner_reach=1, thresholds=(2, 4))
    assert model.num_classes == 45
    assert model.classes(rows).tolist() == [3 * 4 + 1, 3 * 6 + 2, 3 * 7, 3 * 10 + 2]
    assert PassModel().classes(rows).tolist() == [0] * 4


def test_what_is_known_by_hand():
    """Entries 1, 2, 3, 6 and 9 are reached: only 3 has a partner that is."""
    entries = np.array([1, 2, 3, 6, 9])
    features = Features(
        np.arange(1, 6, dtype=np.uint8),
        np.arange(5, dtype=np.uint8),
        np.arange(7, 12, dtype=np.uint8),
    )
    given = []

    def neighbours(entries, sizes):
        given.append((entries.tolist(), sizes.tolist()))
        return np.arange(100, 110, dtype=np.uint8)

    rows = LevelRows(features, entries, neighbours=neighbours)
    symbols = np.array([[30, -7, 2, 0, 1], [4, 5, 0, -6, 0]], dtype=np.int16)
    whole, first, second = (
        rows.known(symbols, 1, number, is_split=split)
        for number, split in ((0, False), (0, True), (1, True))
    )
    assert whole.support.tolist() == [1, 2, 3, 4, 5]
    assert whole.before.tolist() == [30, 7, 2, 0, 1]
    assert first.previous.tolist() == [-7, 0] and not first.partner.any()
    assert second.magnitude.tolist() == [0, 2, 4]
    assert second.partner.tolist() == [0, 5, 0]
    assert second.ancestry.tolist() == [7, 9, 11]
    # Entries 2 and 6 came in the first pass, and 1, 3 and 9 come in the second.
    assert given == [([2, 6], [5, 6])]
    assert second.neighbours.tolist() == [101, 103, 109] and not first.neighbours.any()
    spared = rows.known(symbols, 1, 1, is_split=True, with_neighbours=False)
    assert len(given) == 1 and not spared.neighbours.any()
    assert not rows.known(symbols, 0, 0, is_split=False).previous.any()


@modest(20)
@given(
    weights=st.tuples(*[st.integers(0, 63)] * 4),
    reaches=st.tuples(*[st.integers(0, 3)] * 2),
    thresholds=st.sets(st.integers(1, MAX_SCORES[0]), max_size=15),
    newer=st.tuples(*[st.integers(0, 63)] * 2),
    version=st.sampled_from([1, 2, 3]),
)
def test_storage(weights, reaches, thresholds, newer, version):
    newer = newer if version > 1 else (0, 0)
    model = PassModel(*weights, *reaches, tuple(sorted(thresholds)), *newer)
    writer = BitWriter()
    model.write(writer, version=version)

    def read(**options):
        bits = BitReader(writer.to_bytes(), "test")
        return PassModel.read(bits, "test", version=version, **options)

    assert read(has_previous=True, has_partner=True) == model
    if weights[2] or reaches[0]:
        with pytest.raises(SceneFormatError, match="first channel"):
            read(has_previous=False, has_partner=True)
    if weights[3] or reaches[1] or newer[1]:
        with pytest.raises(SceneFormatError, match="first pass"):
            read(has_previous=True, has_partner=False)


def test_thresholds_have_a_limit_by_version():
    model = PassModel(thresholds=(MAX_SCORES[0] + 1,))
    for version in (1, 2, 3):
        writer = BitWriter()
        model.write(writer, version=version)
        bits = BitReader(writer.to_bytes(), "test")
        options = {"has_previous": True, "has_partner": True, "version": version}
        if version > 1:
            assert PassModel.read(bits, "test", **options) == model
        else:
            with pytest.raises(SceneFormatError, match="thresholds to 20034"):
                PassModel.read(bits, "test", **options)


def test_version_1_has_no_newer_weights():
    for model in (PassModel(ancestry_weight=1), PassModel(neighbour_weight=1)):
        with pytest.raises(ValueError, match="version 1"):
            model.write(BitWriter(), version=1)


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
    rows = LevelRows(features, entries)
    scale = features.magnitude[:, None] / 60
    symbols = np.round(rng.laplace(size=(size, num_channels)) * scale).astype(np.int16)
    split = (PassModel(1, 2), PassModel(1, 2, 0, 5, 0, 2, (9, 30)))
    for models in (choose_models(symbols, rows), [split] * num_channels):
        data = encode_level(symbols, rows, models, fast=False)
        found, parts = decode_level(memoryview(data), rows, num_channels, "LATN", fast=False)
        assert np.array_equal(found, symbols)
        assert parts.table_bytes + parts.stream_bytes == len(data)


def test_one_table_where_several_would_have_too_many_letters(monkeypatch):
    features = Features(*np.tile([[1], [2]], (3, 1, 50)).reshape(3, 100).astype(np.uint8))
    rows, models = LevelRows(features), [(PassModel(1, thresholds=(2,)),)]
    symbols = np.zeros((100, 1), dtype=np.int16)
    symbols[[0, 1, 50, 51], 0] = -4095, 4095, -4095, 4095
    two_tables = encode_level(symbols, rows, models, fast=False)
    monkeypatch.setattr(latents, "MAX_LETTERS", (8191, 0))
    with pytest.raises(SceneFormatError, match="at most 8191 letters in tables"):
        decode_level(memoryview(two_tables), rows, 1, "LATN", fast=False)
    one_table = encode_level(symbols, rows, models, fast=False)
    assert one_table == encode_level(symbols, rows, [(PassModel(),)], fast=False) != two_tables
    found, _ = decode_level(memoryview(one_table), rows, 1, "LATN", fast=False)
    assert np.array_equal(found, symbols)


def test_classes_pay():
    rng = np.random.default_rng(0)
    features = some_features(rng, 20_000)
    first = np.round(rng.laplace(size=20_000) * (features.magnitude / 80) ** 2)
    second = np.round(0.7 * first + rng.laplace(size=20_000) * 0.3)
    symbols = np.stack([first, second], axis=1).astype(np.int16)
    rows = LevelRows(features)
    models = choose_models(symbols, rows)
    assert models[0][0].magnitude_weight and models[1][0].previous_reach
    chosen = len(encode_level(symbols, rows, models, fast=False))
    plain = len(encode_level(symbols, rows, [(PassModel(),)] * 2, fast=False))
    assert chosen < 0.8 * plain


def test_partners_pay():
    """Neighbours of one sign, nothing else known: as in the fine, crowded levels of a scene."""
    rng = np.random.default_rng(0)
    nothing = np.zeros(20_000, dtype=np.uint8)
    rows = LevelRows(Features(nothing, nothing, nothing))
    common = np.repeat(rng.normal(size=10_000), 2)
    symbols = np.round(common + 0.4 * rng.normal(size=20_000))[:, None].astype(np.int16)
    models = choose_models(symbols, rows)
    assert len(models[0]) == 2 and models[0][1].partner_reach
    chosen = len(encode_level(symbols, rows, models, fast=False))
    plain = len(encode_level(symbols, rows, [(PassModel(),)], fast=False))
    assert chosen < 0.9 * plain


def test_no_classes_where_there_is_nothing_to_gain():
    rng = np.random.default_rng(0)
    rows = LevelRows(Features(*rng.integers(0, 9, (3, 3000)).astype(np.uint8)))
    symbols = np.round(rng.laplace(size=(3000, 2))).astype(np.int16)
    models = choose_models(symbols, rows)
    assert [[model.num_classes for model in passes] for passes in models] == [[1], [1]]
