"""Autograd around the kernels of a picture's network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.networks import pixel_kernels as kernels
from shacira_nerfstudio.backends.cpu_numba.networks.shade import BLOCK, PackedNetworks, latent_rows
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.types import NetworkWeights


class PixelNetwork(torch.autograd.Function):
    """See :meth:`Backend.pixel_network`; takes weights and biases one after the other."""

    @staticmethod
    def forward(ctx, latents, num_threads, *tensors):
        layers = tuple(zip(tensors[::2], tensors[1::2], strict=True))
        # Packed as two networks, which are one to the kernels.
        ctx.weights = NetworkWeights(layers[:2], layers[2:])
        ctx.packed = PackedNetworks(ctx.weights)
        ctx.num_threads, ctx.shape, ctx.dtype = num_threads, latents.shape, latents.dtype
        ctx.z = latent_rows(latents)
        out = np.empty((len(tensors[-1]), len(latents)), np.float32)
        packed, kernel = ctx.packed, kernels.pixel_forward
        run(
            lambda b, e: kernel(ctx.z, packed.params, packed.layers, out, b, e),
            blocks(len(latents), BLOCK),
            num_threads,
        )
        return torch.from_numpy(out).t().to(latents.dtype)

    @staticmethod
    def backward(ctx, grad_out):  # pyright: ignore[reportIncompatibleMethodOverride]
        packed, upstream = ctx.packed, as_array(grad_out.t())
        count = upstream.shape[1]
        grad_z = np.empty_like(ctx.z)
        kernel: Any = kernels.pixel_backward

        def task(begin: int, end: int) -> np.ndarray:
            grads = np.zeros_like(packed.params)
            kernel(ctx.z, upstream, packed.params, packed.layers, grads, grad_z, begin, end)
            return grads

        parts = run(task, blocks(count, BLOCK), ctx.num_threads)
        total = sum(parts[1:], parts[0]) if parts else np.zeros_like(packed.params)
        num_levels, channels = ctx.shape[1:]
        grad_latents = torch.from_numpy(grad_z).view(num_levels, channels, count).permute(2, 0, 1)
        return grad_latents.to(ctx.dtype), None, *packed.unpack_gradients(total, ctx.weights)
