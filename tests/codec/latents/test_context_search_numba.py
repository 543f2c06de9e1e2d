"""Compiled search against numpy: the same models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec.latents import context_search
from shacira_nerfstudio.codec.latents.context_model import ContextModel, PassFeatures
from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.latents.features import Features
from shacira_nerfstudio.codec.latents.level_contexts import LevelCoding

kernels = pytest.importorskip("shacira_nerfstudio.codec.latents.context_search_numba")


@modest(60)
@given(
    seed=seeds,
    size=st.sampled_from([0, 1, 7, 300]),
    weights=st.tuples(*[st.integers(0, 63)] * 6),
    reaches=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    largest=st.sampled_from([0, 2, 4095]),
)
def test_histograms(seed, size, weights, reaches, largest):
    rng = np.random.default_rng(seed)
    symbols = rng.integers(-largest, largest + 1, (3, size)).astype(np.int16)
    magnitudes = rng.integers(0, 249, (5, 2 * size)).astype(np.uint8)[:, ::2]
    features = PassFeatures(*magnitudes[:4], symbols[0], symbols[1], magnitudes[4])
    model = ContextModel(*weights, previous_reach=reaches[0], partner_reach=reaches[1])
    slow, fast = (
        context_search._Sample(symbols[2], features, 1, which)._histogram(model, 24)
        for which in (None, kernels)
    )
    assert np.array_equal(slow[0], fast[0]) and np.array_equal(slow[1], fast[1])
    assert slow[1].sum() == size


def test_choices():
    rng = np.random.default_rng(0)
    features = Features(
        rng.integers(1, 9, 70_000).astype(np.uint8),
        rng.integers(0, 249, 70_000).astype(np.uint8),
        rng.integers(0, 249, 70_000).astype(np.uint8),
    )
    first = np.round(rng.laplace(size=70_000) * (features.parent_magnitude / 80) ** 2)
    second = np.round(0.7 * first + rng.laplace(size=70_000) * 0.3)
    symbols = np.stack([first, second], axis=1).astype(np.int16)
    slow, fast = (choose_models(symbols, LevelCoding(features), fast=f) for f in (False, True))
    assert slow == fast
