"""Autograd around the network kernels, and the layout of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.networks import network_kernels as kernels
from shacira_nerfstudio.backends.cpu_numba.networks.bfloat16_kernels import bfloat16_pairs
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.types import NetworkWeights

BLOCK = 8192
"""Samples per task. Each task sums its own gradients of the weights, and these are added in order:
what comes out does not depend on the number of threads."""


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class PackedNetworks:
    """Weights in the kernels' layout: one flat array, and where each layer's parts are in it.

    Each layer stands there as weight [rows, columns], bias [rows] and the transposed weight, rows
    and columns padded to a multiple of 4 with zeros.

    Args:
        bfloat16: Whether products are to take their factors in that format.
    """

    def __init__(self, weights: NetworkWeights, *, bfloat16: bool = False) -> None:
        if len(weights.density) != 2:
            raise ValueError(f"expected two density layers, got {len(weights.density)}")
        table, parts, at = [], [], 0
        for layer in (*weights.density, *weights.color):
            weight, bias = (as_array(v) for v in layer)
            rows, columns = (_up(n, 4) for n in weight.shape)
            padded = np.zeros((rows, columns), np.float32)
            padded[: weight.shape[0], : weight.shape[1]] = weight
            long = np.zeros(rows, np.float32)
            long[: len(bias)] = bias
            table.append((rows, columns, at, at + padded.size, at + padded.size + rows))
            parts += [padded.ravel(), long, padded.T.ravel()]
            at += 2 * padded.size + rows
        self.params = np.concatenate(parts)
        self.halves = bfloat16_pairs(self.params) if bfloat16 else np.zeros(0, np.int32)
        self.layers = np.array(table, np.int64)
        self.density_layers, self.color_layers = self.layers[:2], self.layers[2:]
        self.num_density_outputs = len(weights.density[1][1])

    def unpack_gradients(self, grads: np.ndarray, weights: NetworkWeights) -> list[Tensor]:
        """Gradients in the order of :meth:`NetworkWeights.named`, shaped like the weights."""
        out: list[Tensor] = []
        layers = (*weights.density, *weights.color)
        for (weight, bias), (rows, columns, at, bias_at, _) in zip(
            layers, self.layers.tolist(), strict=True
        ):
            whole = grads[at : at + rows * columns].reshape(rows, columns)
            for like, part in (
                (weight, whole[: weight.shape[0], : weight.shape[1]]),
                (bias, grads[bias_at : bias_at + len(bias)]),
            ):
                out.append(torch.from_numpy(part.copy()).to(like.dtype))
        return out


def latent_rows(latents: Tensor) -> np.ndarray:
    """[S, L, d] as float32 [L d, S]: a view if it comes from the interpolation kernels."""
    count, num_levels, channels = latents.shape
    flat = latents.detach().permute(1, 2, 0).reshape(num_levels * channels, count)
    return as_array(flat)


def density_outputs(
    latents: Tensor, weights: NetworkWeights, num_threads: int, *, bfloat16: bool = False
) -> Tensor:
    """See :meth:`Backend.density_outputs`."""
    packed, z = PackedNetworks(weights, bfloat16=bfloat16), latent_rows(latents)
    outputs = np.empty((packed.num_density_outputs, z.shape[1]), np.float32)
    kernel: Any = kernels.density_forward
    run(
        lambda b, e: kernel(z, packed.params, packed.halves, packed.density_layers, outputs, b, e),
        blocks(z.shape[1], BLOCK),
        num_threads,
    )
    return torch.from_numpy(outputs).t().to(latents.dtype)


class Shade(torch.autograd.Function):
    """See :meth:`Backend.shade`; takes the weights by name, then one after the other."""

    @staticmethod
    def forward(ctx, latents, outputs, ray_features, rays, num_threads, bfloat16, names, *tensors):
        weights = dict(zip(names, (t.detach() for t in tensors), strict=True))
        ctx.weights = NetworkWeights.from_named(weights)
        ctx.packed = PackedNetworks(ctx.weights, bfloat16=bfloat16)
        ctx.num_threads = num_threads
        ctx.shape, ctx.dtype = latents.shape, latents.dtype
        ctx.z, ctx.outputs = latent_rows(latents), as_array(outputs.t())
        ctx.features, ctx.rays = as_array(ray_features), as_array(rays, torch.int64)
        count = len(latents)
        ctx.sigma, ctx.rgb = np.empty(count, np.float32), np.empty((count, 3), np.float32)
        packed, kernel = ctx.packed, kernels.color_forward
        nets = (packed.params, packed.halves, packed.color_layers)
        inputs = (ctx.outputs, ctx.features, ctx.rays, *nets)
        run(
            lambda b, e: kernel(*inputs, ctx.sigma, ctx.rgb, b, e),
            blocks(count, BLOCK),
            num_threads,
        )
        # Copies for the outside: autograd may not hand out what the context keeps.
        return tuple(torch.from_numpy(v.copy()).to(latents.dtype) for v in (ctx.sigma, ctx.rgb))

    @staticmethod
    def backward(ctx, grad_sigma, grad_rgb):  # pyright: ignore[reportIncompatibleMethodOverride]
        packed, count = ctx.packed, len(ctx.sigma)
        upstream = [as_array(g) for g in (grad_sigma, grad_rgb)]
        grad_z = np.empty_like(ctx.z)
        wants_rays = ctx.needs_input_grad[2]
        grad_inputs = np.empty((count if wants_rays else 0, ctx.features.shape[1]), np.float32)
        kernel: Any = kernels.shade_backward

        def task(begin: int, end: int) -> np.ndarray:
            grads = np.zeros_like(packed.params)
            kernel(
                ctx.z, ctx.outputs, ctx.features, ctx.rays, packed.params, packed.halves,
                packed.density_layers, packed.color_layers, ctx.sigma, ctx.rgb, *upstream, grads,
                grad_z, grad_inputs, begin, end,
            )  # fmt: skip
            return grads

        parts = run(task, blocks(count, BLOCK), ctx.num_threads)
        total = sum(parts[1:], parts[0]) if parts else np.zeros_like(packed.params)
        grad_rays = None
        if wants_rays:
            grad_rays = torch.zeros(ctx.features.shape)
            grad_rays.index_add_(0, torch.from_numpy(ctx.rays), torch.from_numpy(grad_inputs))
            grad_rays = grad_rays.to(ctx.dtype)
        num_levels, channels = ctx.shape[1:]
        grad_latents = torch.from_numpy(grad_z).view(num_levels, channels, count).permute(2, 0, 1)
        weights = packed.unpack_gradients(total, ctx.weights)
        return (grad_latents.to(ctx.dtype), None, grad_rays, *([None] * 4), *weights)
