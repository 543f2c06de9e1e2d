"""What the encoder gains by choosing."""

import numpy as np

from shacira_nerfstudio.codec.latents.context_model import ContextModel
from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.latents.features import Features
from shacira_nerfstudio.codec.latents.level_contexts import LevelCoding
from shacira_nerfstudio.codec.latents.level_section import encode_level


def some_features(rng, size):
    return Features(
        rng.integers(1, 9, size).astype(np.uint8),
        rng.integers(0, 249, size).astype(np.uint8),
        rng.integers(0, 249, size).astype(np.uint8),
    )


def test_classes_pay():
    rng = np.random.default_rng(0)
    features = some_features(rng, 20_000)
    first = np.round(rng.laplace(size=20_000) * (features.parent_magnitude / 80) ** 2)
    second = np.round(0.7 * first + rng.laplace(size=20_000) * 0.3)
    symbols = np.stack([first, second], axis=1).astype(np.int16)
    coding = LevelCoding(features)
    models = choose_models(symbols, coding)
    assert models[0][0].parent_weight and models[1][0].previous_reach
    chosen = len(encode_level(symbols, coding, models, fast=False))
    plain = len(encode_level(symbols, coding, [(ContextModel(),)] * 2, fast=False))
    assert chosen < 0.8 * plain


def test_partners_pay():
    """Neighbours of one sign, nothing else known: as in the fine, saturated levels of a scene."""
    rng = np.random.default_rng(0)
    coding = LevelCoding(Features.zeros(20_000))
    common = np.repeat(rng.normal(size=10_000), 2)
    symbols = np.round(common + 0.4 * rng.normal(size=20_000))[:, None].astype(np.int16)
    models = choose_models(symbols, coding)
    assert len(models[0]) == 2 and models[0][1].partner_reach
    chosen = len(encode_level(symbols, coding, models, fast=False))
    plain = len(encode_level(symbols, coding, [(ContextModel(),)], fast=False))
    assert chosen < 0.9 * plain


def test_no_classes_where_there_is_nothing_to_gain():
    rng = np.random.default_rng(0)
    coding = LevelCoding(Features(*rng.integers(0, 9, (3, 3000)).astype(np.uint8)))
    symbols = np.round(rng.laplace(size=(3000, 2))).astype(np.int16)
    models = choose_models(symbols, coding)
    assert [[model.num_classes for model in passes] for passes in models] == [[1], [1]]
