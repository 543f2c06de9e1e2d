"""Autograd around the network kernels, and the layout of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import Weights
from shacira_nerfstudio.backends.cpu_numba import network_kernels as kernels
from shacira_nerfstudio.backends.cpu_numba.bfloat16_kernels import bfloat16_pairs
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run

BLOCK = 8192
"""Samples per task. Each task sums its own gradients of the weights, and these are added in order:
what comes out does not depend on the number of threads."""


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def layer_names(weights: Weights, network: str) -> list[str]:
    """Names of the layers of ``density_mlp`` or ``color_mlp``, first to last."""
    count = sum(name.startswith(network) and name.endswith("weight") for name in weights)
    return [f"{network}.{index}" for index in range(count)]


class PackedNetworks:
    """Weights in the kernels' layout: one flat array, and where each layer's parts are in it.

    Each layer stands there as weight [rows, columns], bias [rows] and the transposed weight, rows
    and columns padded to a multiple of 4 with zeros.

    Args:
        bfloat16: Whether products are to take their factors in that format.
    """

    def __init__(self, weights: Weights, *, bfloat16: bool = False) -> None:
        self.names = layer_names(weights, "density_mlp") + layer_names(weights, "color_mlp")
        table, parts, at = [], [], 0
        for name in self.names:
            weight = weights[f"{name}.weight"].detach().float().numpy()
            bias = weights[f"{name}.bias"].detach().float().numpy()
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
        layers = np.array(table, np.int64)
        self.density_layers, self.color_layers = layers[:2], layers[2:]
        self.layers = layers

    def unpack_gradients(self, grads: np.ndarray, weights: Weights) -> Weights:
        """Gradients by name, shaped like the weights."""
        out: Weights = {}
        for name, (rows, columns, at, bias_at, _) in zip(
            self.names, self.layers.tolist(), strict=True
        ):
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            whole = grads[at : at + rows * columns].reshape(rows, columns)
            for key, like, part in (
                ("weight", weight, whole[: weight.shape[0], : weight.shape[1]]),
                ("bias", bias, grads[bias_at : bias_at + len(bias)]),
            ):
                out[f"{name}.{key}"] = torch.from_numpy(part.copy()).to(like.dtype)
        return out


def _rows(latents: Tensor) -> np.ndarray:
    """[S, L, d] as float32 [L d, S]: a view if it comes from the interpolation kernels."""
    count, num_levels, channels = latents.shape
    flat = latents.detach().permute(1, 2, 0).reshape(num_levels * channels, count)
    return flat.float().contiguous().numpy()


def raw_density(
    latents: Tensor, weights: Weights, num_threads: int, *, bfloat16: bool = False
) -> Tensor:
    """See :meth:`Backend.raw_density`."""
    packed, z = PackedNetworks(weights, bfloat16=bfloat16), _rows(latents)
    raw = np.empty((len(weights["density_mlp.1.bias"]), z.shape[1]), np.float32)
    kernel: Any = kernels.density_forward
    run(
        lambda b, e: kernel(z, packed.params, packed.halves, packed.density_layers, raw, b, e),
        blocks(z.shape[1], BLOCK),
        num_threads,
    )
    return torch.from_numpy(raw).t().to(latents.dtype)


class Shade(torch.autograd.Function):
    """See :meth:`Backend.shade`."""

    @staticmethod
    def forward(ctx, latents, raw, ray_features, rays, num_threads, bfloat16, names, *tensors):
        ctx.weights = dict(zip(names, (t.detach() for t in tensors), strict=True))
        ctx.packed = PackedNetworks(ctx.weights, bfloat16=bfloat16)
        ctx.num_threads = num_threads
        ctx.shape, ctx.dtype = latents.shape, latents.dtype
        ctx.z, ctx.raw = _rows(latents), raw.detach().t().float().contiguous().numpy()
        ctx.features = ray_features.detach().float().contiguous().numpy()
        ctx.rays = rays.detach().long().contiguous().numpy()
        count = len(latents)
        ctx.sigma, ctx.rgb = np.empty(count, np.float32), np.empty((count, 3), np.float32)
        packed, kernel = ctx.packed, kernels.color_forward
        nets = (packed.params, packed.halves, packed.color_layers)
        inputs = (ctx.raw, ctx.features, ctx.rays, *nets)
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
        upstream = [g.detach().float().contiguous().numpy() for g in (grad_sigma, grad_rgb)]
        grad_z = np.empty_like(ctx.z)
        wants_rays = ctx.needs_input_grad[2]
        grad_inputs = np.empty((count if wants_rays else 0, ctx.features.shape[1]), np.float32)
        kernel: Any = kernels.shade_backward

        def task(begin: int, end: int) -> np.ndarray:
            grads = np.zeros_like(packed.params)
            kernel(
                ctx.z, ctx.raw, ctx.features, ctx.rays, packed.params, packed.halves,
                packed.density_layers, packed.color_layers, ctx.sigma, ctx.rgb, *upstream, grads,
                grad_z, grad_inputs, begin, end,
            )  # fmt: skip
            return grads

        parts = run(task, blocks(count, BLOCK), ctx.num_threads)
        total = sum(parts[1:], parts[0]) if parts else np.zeros_like(packed.params)
        by_name = packed.unpack_gradients(total, ctx.weights)
        grad_rays = None
        if wants_rays:
            grad_rays = torch.zeros(ctx.features.shape)
            grad_rays.index_add_(0, torch.from_numpy(ctx.rays), torch.from_numpy(grad_inputs))
            grad_rays = grad_rays.to(ctx.dtype)
        num_levels, channels = ctx.shape[1:]
        grad_latents = torch.from_numpy(grad_z).view(num_levels, channels, count).permute(2, 0, 1)
        weights = tuple(by_name[name] for name in ctx.weights)
        return (grad_latents.to(ctx.dtype), None, grad_rays, *([None] * 4), *weights)
