"""The two networks of a radiance field, and the one of a picture, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.backends.types import Layer, NetworkWeights

MAX_LOG_DENSITY = 15.0
"""Density is the exponential of the first output, clamped here so that it stays finite
(Instant-NGP's activation)."""


def density_of(density_outputs: Float[Tensor, "S G"]) -> Float[Tensor, " S"]:
    """Density (1 / world unit) from the outputs of the density network."""
    log_density = density_outputs[:, 0]
    # The gradient ignores the limit: a sample beyond it can come back.
    beyond = (log_density.clamp(max=MAX_LOG_DENSITY) - log_density).detach()
    return torch.exp(log_density + beyond)


def density_network(
    latents: Float[Tensor, "S L d"], weights: NetworkWeights
) -> Float[Tensor, "S G"]:
    """Log density, then geometry, from interpolated latents."""
    x = latents.reshape(len(latents), latents.shape[1] * latents.shape[2])
    return _layers(x, weights.density)


def color_network(inputs: Float[Tensor, "S A"], weights: NetworkWeights) -> Float[Tensor, "S 3"]:
    """Colour in [0, 1] from ray features and geometry."""
    return _layers(inputs, weights.color).sigmoid()


def pixel_network(
    latents: Float[Tensor, "S L d"], layers: tuple[Layer, ...]
) -> Float[Tensor, "S C"]:
    """Channels of pixels, not clipped, from interpolated latents."""
    return _layers(latents.reshape(len(latents), latents.shape[1] * latents.shape[2]), layers)


def _layers(x: Tensor, layers: tuple[Layer, ...]) -> Tensor:
    for index, (weight, bias) in enumerate(layers):
        x = F.linear(x.relu() if index else x, weight, bias)
    return x
