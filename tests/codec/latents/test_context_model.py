"""Scores and classes by hand, and how models are stored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest

from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, SceneFormatError
from shacira_nerfstudio.codec.latents.context_model import MAX_SCORE, ContextModel, PassFeatures


def pass_features(touched, parent=0, earlier=0, previous=0, partner=0, grandparent=0, neighbours=0):
    columns = np.broadcast_arrays(
        touched, parent, grandparent, earlier, previous, partner, neighbours
    )
    kinds = (np.uint8, np.uint8, np.uint8, np.uint8, np.int16, np.int16, np.uint8)
    return PassFeatures(*(c.astype(kind) for c, kind in zip(columns, kinds, strict=True)))


def test_scores_by_hand():
    entries = pass_features([0, 8, 8], [0, 248, 3], [0, 31, 5], partner=[0, -4095, 2])
    model = ContextModel(63, 63, 63, 63)
    assert model.scores(entries).tolist() == [0, 63 * (8 + 248 + 31 + 31), 63 * (8 + 3 + 5 + 2)]
    entries = pass_features(
        [0, 8, 8], [0, 248, 3], [0, 31, 5], 0, [0, -4095, 2], [0, 248, 7], [0, 186, 9]
    )
    model = ContextModel(63, 63, 63, 63, 63, 63)
    assert model.scores(entries).tolist() == [0, MAX_SCORE, 63 * (8 + 3 + 5 + 2 + 7 + 9)]


def test_classes_by_hand():
    entries = pass_features([1, 2, 3, 4], previous=[9, -1, 0, -7], partner=[0, 1, -5, 2])
    assert ContextModel(1, thresholds=(2, 4)).classes(entries).tolist() == [0, 1, 1, 2]
    model = ContextModel(1, previous_reach=2, thresholds=(2, 4))
    assert model.num_classes == 15
    assert model.classes(entries).tolist() == [4, 5 + 1, 5 + 2, 10]
    model = ContextModel(1, previous_reach=2, partner_reach=1, thresholds=(2, 4))
    assert model.num_classes == 45
    assert model.classes(entries).tolist() == [3 * 4 + 1, 3 * 6 + 2, 3 * 7, 3 * 10 + 2]
    assert ContextModel().classes(entries).tolist() == [0] * 4


@modest(20)
@given(
    weights=st.tuples(*[st.integers(0, 63)] * 6),
    reaches=st.tuples(*[st.integers(0, 3)] * 2),
    thresholds=st.sets(st.integers(1, MAX_SCORE), max_size=15),
)
def test_storage(weights, reaches, thresholds):
    model = ContextModel(*weights, *reaches, tuple(sorted(thresholds)))
    writer = BitWriter()
    model.write(writer)

    def read(**options):
        return ContextModel.read(BitReader(writer.to_bytes(), "test"), "test", **options)

    assert read(has_previous=True, has_partner=True) == model
    if model.previous_weight or model.previous_reach:
        with pytest.raises(SceneFormatError, match="first channel"):
            read(has_previous=False, has_partner=True)
    if model.partner_weight or model.partner_reach or model.neighbour_weight:
        with pytest.raises(SceneFormatError, match="first pass"):
            read(has_previous=True, has_partner=False)


@pytest.mark.parametrize(
    "model", [ContextModel(thresholds=(MAX_SCORE + 1,)), ContextModel(neighbour_weight=64)]
)
def test_weights_and_thresholds_have_limits(model):
    writer = BitWriter()
    model.write(writer)
    with pytest.raises(SceneFormatError, match="weights to 63, thresholds to 47376"):
        reader = BitReader(writer.to_bytes(), "test")
        ContextModel.read(reader, "test", has_previous=True, has_partner=True)
