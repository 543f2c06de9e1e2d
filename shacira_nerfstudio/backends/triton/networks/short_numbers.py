"""Both networks with factors in short numbers, for the tensor cores; weights stay in float32.

Sums are float32. Between layers they are rounded, as factors of the next one; log density, geometry
and colour are not. bfloat16 has the range of float32. float16 has not: gradients on their way
through the layers are scaled by a power of 2, which each network chooses anew in each step, where
they are.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from shacira_nerfstudio.backends.types import Layer, NetworkWeights

Short = Literal["bfloat16", "float16"]
_GRADIENT_SUM = 2.0**10
"""Sum of the magnitudes of scaled gradients in float16. The gradient of a weight is at most this
times the gain of the layers behind and the largest unit, and has to stay below 2^16; the mean of
2^22 gradients, of a batch of samples times their outputs, is then still 2^12 above the smallest
number there is."""


def gradient_scale(upstream: Tensor) -> Tensor:
    """Power of 2 that gradients are multiplied by in float16, float32 []."""
    total = upstream.abs().sum().clamp_min(1e-30)
    return torch.exp2((_GRADIENT_SUM / total).log2().floor())


class _Enter(torch.autograd.Function):
    """From float32 to short numbers; gradients of these come back as they would be unscaled."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, dtype: torch.dtype, scale: list[Tensor]) -> Tensor:
        ctx.scale = scale
        return value.to(dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return upstream.float() / ctx.scale[-1], None, None


class _Leave(torch.autograd.Function):
    """The way back; chooses the scale of all gradients that come out of here."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: list[Tensor]) -> Tensor:
        ctx.scale, ctx.dtype = scale, value.dtype
        return value.float()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        ctx.scale.append(gradient_scale(upstream))
        return (upstream * ctx.scale[-1]).to(ctx.dtype), None


def _layers(x: Tensor, layers: tuple[Layer, ...], precision: Short) -> Tensor:
    dtype, scale = getattr(torch, precision), []

    def short(value: Tensor) -> Tensor:
        is_scaled = dtype == torch.float16
        return _Enter.apply(value, dtype, scale) if is_scaled else value.to(dtype)

    x = short(x)
    for weight, bias in layers[:-1]:
        x = F.linear(x, short(weight), short(bias)).relu()
    x = _Leave.apply(x, scale) if dtype == torch.float16 else x.float()
    weight, bias = layers[-1]
    # The gradient of this weight is float32: rounded on its way, without a scale, it would vanish.
    rounding = (weight.to(dtype).float() - weight).detach()
    return F.linear(x, weight + rounding, bias)


def density_network(latents: Tensor, weights: NetworkWeights, precision: Short) -> Tensor:
    """As :func:`networks.density_network`."""
    return _layers(latents.flatten(1), weights.density, precision)


def color_network(inputs: Tensor, weights: NetworkWeights, precision: Short) -> Tensor:
    """As :func:`networks.color_network`."""
    return _layers(inputs, weights.color, precision).sigmoid()
