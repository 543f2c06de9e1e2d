"""Both networks with factors in bfloat16, for the tensor cores; weights stay in float32.

Sums are float32. Between layers they are rounded, as factors of the next one; log density, geometry
and colour are not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shacira_nerfstudio.backends.types import Layer, NetworkWeights


def _layers(x: Tensor, layers: tuple[Layer, ...]) -> Tensor:
    x = x.to(torch.bfloat16)
    for weight, bias in layers[:-1]:
        x = F.linear(x, weight.to(torch.bfloat16), bias.to(torch.bfloat16)).relu()
    weight, bias = layers[-1]
    return F.linear(x.float(), weight.to(torch.bfloat16).float(), bias)


def density_network(latents: Tensor, weights: NetworkWeights) -> Tensor:
    """As :func:`networks.density_network`."""
    return _layers(latents.flatten(1), weights.density)


def color_network(inputs: Tensor, weights: NetworkWeights) -> Tensor:
    """As :func:`networks.color_network`."""
    return _layers(inputs, weights.color).sigmoid()
