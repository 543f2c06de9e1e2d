"""The rate of binarised latents: a Bernoulli per (level, channel), as in BiRF and CNC.

Its probability of -1 is what the density of the integers gives to everything below 0, so it needs
no parameters of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.quantize import binary

_LEAST = 1e-4
"""A probability never comes nearer to 0 or 1: signs that die out must be able to come back."""


def binary_bits(levels: Sequence[Tensor], model: FactorizedEntropyModel) -> Tensor:
    """Bits of the signs of latents, differentiable in these and in the probabilities.

    Args:
        levels: Float latents of each level, [n, d].
    """
    total = levels[0].new_zeros(())
    for level, latents in enumerate(levels):
        below = model.cdf(latents.new_zeros(latents.shape[1]), level).clamp(_LEAST, 1 - _LEAST)
        is_above = (binary(latents) + 1) / 2
        bits = -is_above * torch.log2(1 - below) - (1 - is_above) * torch.log2(below)
        total = total + bits.sum()
    return total
