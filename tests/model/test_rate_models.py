"""The rate of signs: its value, its gradients, and what a field of signs looks like in a file."""

import math

import pytest
import torch

from shacira_nerfstudio.model.bernoulli_rate import binary_bits
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel


def model_with(probability_below):
    """One level, one channel."""
    model = FactorizedEntropyModel(1, 1)
    with torch.no_grad():
        model.shift.fill_(math.log(probability_below / (1 - probability_below)))
    return model


def test_bits_are_those_of_the_bernoulli():
    latents = torch.tensor([[-0.3], [0.2], [2.0], [0.0]])
    bits = binary_bits([latents], model_with(0.2))
    assert bits.item() == pytest.approx(-math.log2(0.2) - 3 * math.log2(0.8), rel=1e-5)


def test_it_pulls_signs_to_the_likely_one_and_the_probability_to_the_signs():
    latents = torch.tensor([[-0.3], [0.2], [2.0], [0.4]], requires_grad=True)
    model = model_with(0.2)
    binary_bits([latents], model).backward()
    assert (latents.grad < 0).all()  # downhill is up: 1 is the likely sign
    # A quarter of the signs is below 0, more than 0.2: downhill raises the probability.
    assert model.shift.grad.item() < 0


def test_the_encoding_uses_it_and_never_rounds_to_zero(make_field):
    encoding = make_field(latent_dim=2, features_per_level=2, identity_decoder=True).encoding
    with torch.no_grad():
        encoding.latents.mul_(1e-3)
    assert not encoding.rounded().any()
    encoding.set_quantizer("binary", 1.0)
    assert set(encoding.rounded().unique().tolist()) == {-1, 1}
    encoding.train()
    assert set(encoding.table().rows.unique().tolist()) == {-1, 1}
    whole = encoding.bits()
    assert whole.item() == pytest.approx(encoding.latents.numel(), rel=0.01)  # a bit each
    parts = torch.stack([encoding.bits(fraction=0.25) for _ in range(200)])
    assert parts.mean().item() == pytest.approx(whole.item(), rel=0.02)
    whole.backward()
    assert encoding.latents.grad is not None
    encoding.set_quantizer("straight_through", 1.0)
    assert not encoding.rounded().any()
