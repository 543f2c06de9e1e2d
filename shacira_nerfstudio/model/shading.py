"""Both networks over packed samples, chunk by chunk: activations stay in the cache, none are kept.

The same mathematics as :meth:`RadianceField.density_from_latents` and :meth:`RadianceField.color`
under autograd, which the tests hold it to. On a CPU those are bound by fresh memory for activations
rather than by arithmetic; here each chunk of samples goes through all layers while it is in the
cache, and the backward pass computes a chunk's activations again.

Notation: S samples, R rays, K = L * d inputs, A ray features (harmonics and appearance code).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shacira_nerfstudio.backends import Backend

CHUNK = 2048
"""Samples per chunk: 64-wide activations of one take 512 KiB, a second-level cache."""
MAX_LOG_DENSITY = 15.0
"""Density is exp(raw), clamped here so that it stays finite (Instant-NGP's activation)."""

Weights = dict[str, Tensor]


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return torch.addmm(weights[f"{name}.bias"], x, weights[f"{name}.weight"].t())


def _color_activations(
    ray_features: Tensor, rays: Tensor, raw: Tensor, weights: Weights, num_layers: int
) -> list[Tensor]:
    """Inputs of every layer of the colour network, then its output."""
    activations = [torch.cat([ray_features[rays], raw[:, 1:]], 1)]
    for index in range(num_layers + 1):
        y = _linear(activations[-1], weights, f"color_mlp.{index}")
        activations.append(y.relu_() if index < num_layers else y.sigmoid_())
    return activations


@torch.no_grad()
def raw_density(
    latents: Float[Tensor, "S L d"], weights: Weights, backend: Backend
) -> Float[Tensor, "S raw"]:
    """Outputs of the density network without a graph: log density first, then geometry."""
    z = latents.reshape(len(latents), latents.shape[1] * latents.shape[2])
    raw = z.new_empty(len(z), len(weights["density_mlp.1.bias"]))

    def chunk(begin: int, end: int) -> None:
        with torch.no_grad():
            hidden = _linear(z[begin:end], weights, "density_mlp.0").relu_()
            raw[begin:end] = _linear(hidden, weights, "density_mlp.1")

    backend.map_chunks(chunk, len(z), CHUNK)
    return raw


def density_of(raw: Float[Tensor, "S raw"]) -> Float[Tensor, " S"]:
    """Density (1 / world unit) from the first output of the density network."""
    return torch.exp(raw[:, 0].clamp(max=MAX_LOG_DENSITY))


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx, latents, raw, ray_features, rays, backend, names, *tensors):
        weights = {name: tensor.detach() for name, tensor in zip(names, tensors, strict=True)}
        ctx.num_layers = sum(name.startswith("color_mlp") for name in names) // 2 - 1
        sigma = density_of(raw)
        rgb = raw.new_empty(len(raw), 3)

        def chunk(begin: int, end: int) -> None:
            with torch.no_grad():
                rgb[begin:end] = _color_activations(
                    ray_features, rays[begin:end], raw[begin:end], weights, ctx.num_layers
                )[-1]

        backend.map_chunks(chunk, len(raw), CHUNK)
        ctx.save_for_backward(latents, raw, ray_features, rays, sigma)
        ctx.backend, ctx.weights, ctx.names = backend, weights, names
        return sigma, rgb

    @staticmethod
    def backward(ctx, grad_sigma, grad_rgb):  # pyright: ignore[reportIncompatibleMethodOverride]
        latents, raw, ray_features, rays, sigma = ctx.saved_tensors
        z = latents.reshape(len(latents), latents.shape[1] * latents.shape[2])
        # In the layout of the interpolation kernels, so that nothing is transposed afterwards.
        grad_z = z.new_empty(z.shape[1], len(z))
        width = ray_features.shape[1]
        wants_rays = ctx.needs_input_grad[2]
        grad_inputs = raw.new_empty(len(raw), width) if wants_rays else None

        def chunk(begin: int, end: int) -> Weights:
            with torch.no_grad():
                part = slice(begin, end)
                grads, d_input = _color_backward(
                    grad_rgb[part],
                    _color_activations(
                        ray_features, rays[part], raw[part], ctx.weights, ctx.num_layers
                    ),
                    ctx.weights,
                    ctx.num_layers,
                )
                if grad_inputs is not None:
                    grad_inputs[part] = d_input[:, :width]
                d_raw = torch.cat(
                    [(grad_sigma[part] * sigma[part])[:, None], d_input[:, width:]], 1
                )
                grad_z[:, part] = _density_backward(d_raw, z[part], ctx.weights, grads)
                return grads

        parts = ctx.backend.map_chunks(chunk, len(raw), CHUNK)
        sums = {
            name: torch.stack([part[name] for part in parts]).sum(0)
            if parts
            else torch.zeros_like(ctx.weights[name])
            for name in ctx.names
        }
        grad_rays = None
        if grad_inputs is not None:
            grad_rays = torch.zeros_like(ray_features).index_add_(0, rays, grad_inputs)
        grad_latents = grad_z.t().reshape(latents.shape)
        return (grad_latents, None, grad_rays, None, None, None, *(sums[n] for n in ctx.names))


def _layer_backward(d: Tensor, x: Tensor, weights: Weights, name: str, grads: Weights) -> Tensor:
    """Gradient in a linear layer's input; notes those of its weights."""
    grads[f"{name}.weight"], grads[f"{name}.bias"] = d.t() @ x, d.sum(0)
    return d @ weights[f"{name}.weight"]


def _color_backward(
    grad_rgb: Tensor, activations: list[Tensor], weights: Weights, num_layers: int
) -> tuple[Weights, Tensor]:
    grads: Weights = {}
    y = activations[-1]
    d = grad_rgb * y * (1 - y)
    for index in range(num_layers, -1, -1):
        x = activations[index]
        d = _layer_backward(d, x, weights, f"color_mlp.{index}", grads)
        if index:
            d = torch.ops.aten.threshold_backward(d, x, 0)
    return grads, d


def _density_backward(d_raw: Tensor, z: Tensor, weights: Weights, grads: Weights) -> Tensor:
    """Gradient in the latents, transposed [K, n]."""
    hidden = _linear(z, weights, "density_mlp.0").relu_()
    d = _layer_backward(d_raw, hidden, weights, "density_mlp.1", grads)
    d = torch.ops.aten.threshold_backward(d, hidden, 0)
    return _layer_backward(d, z, weights, "density_mlp.0", grads).t()


def shade(
    latents: Float[Tensor, "S L d"],
    raw: Float[Tensor, "S raw"],
    ray_features: Float[Tensor, "R A"],
    rays: Int[Tensor, " S"],
    weights: Weights,
    backend: Backend,
) -> tuple[Float[Tensor, " S"], Float[Tensor, "S 3"]]:
    """Density and colour of samples, differentiable in latents, weights and ray features.

    Args:
        raw: :func:`raw_density` of the same latents and weights.
        ray_features: Inputs of the colour network that a ray's samples share.
        rays: The ray of each sample.
    """
    names = tuple(weights)
    return _Shade.apply(latents, raw, ray_features, rays, backend, names, *weights.values())  # pyright: ignore
