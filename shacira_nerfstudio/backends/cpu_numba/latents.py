"""Autograd around the passes over the table of latents."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba import latent_kernels
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.grid import GridSpec

_BLOCK = 1 << 18


def _new_seed() -> np.uint64:
    """From torch's generator, so that ``torch.manual_seed`` governs this noise too."""
    return np.uint64(torch.randint(1 << 62, ()).item())


class AddNoise(torch.autograd.Function):
    """latents + uniform noise in [-0.5, 0.5); identity gradient."""

    @staticmethod
    def forward(ctx, latents: Tensor, num_threads: int) -> Tensor:
        flat = latents.detach().float().contiguous().view(-1).numpy()
        out, seed = np.empty_like(flat), _new_seed()
        run(
            lambda begin, end: latent_kernels.add_noise(flat, seed, out, begin, end),
            blocks(len(flat), _BLOCK),
            num_threads,
        )
        return torch.from_numpy(out).view(latents.shape).to(latents.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None


class LogisticBits(torch.autograd.Function):
    """Estimated bits of every stride-th row, noise included; gradients come with the value."""

    @staticmethod
    def forward(
        ctx,
        latents: Tensor,
        scale: Tensor,
        shift: Tensor,
        grid: GridSpec,
        first: int,
        stride: int,
        num_threads: int,
    ) -> Tensor:
        table = latents.detach().float().contiguous().numpy()
        a, b = (v.detach().float().contiguous().numpy() for v in (scale, shift))
        seed, channels = _new_seed(), table.shape[1]
        totals = np.zeros((grid.num_levels, channels, 3))
        ctx.rows = []
        tasks = []
        for level, begin in enumerate(grid.offsets[:-1]):
            # Rows first, first + stride, ... of the whole table: continue across levels.
            start, size = (first - begin) % stride, grid.table_sizes[level]
            grad = np.empty((len(range(start, size, stride)), channels), np.float32)
            ctx.rows.append((begin + start, begin + size, grad))
            part = table[begin : begin + size]
            row = min(level, len(a) - 1)  # one row serves all levels if the density is pooled
            origin = begin * channels
            tasks.append((part, start, stride, a[row], b[row], seed, origin, grad, totals[level]))
        # Fine levels are the largest; they start first so that threads finish together.
        run(latent_kernels.logistic_bits, tasks[::-1], num_threads)
        ctx.shapes, ctx.totals, ctx.stride = (latents.shape, len(a)), totals, stride
        return latents.new_tensor(totals[..., 0].sum())

    @staticmethod
    def backward(ctx, grad_bits: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        upstream = grad_bits.item()
        shape, density_rows = ctx.shapes
        grad = np.zeros(shape, np.float32)
        for begin, end, values in ctx.rows:
            grad[begin : end : ctx.stride] = values
        grad *= np.float32(upstream)
        sums = ctx.totals[..., 1:] * upstream
        if density_rows == 1:
            sums = sums.sum(0, keepdims=True)
        density = torch.from_numpy(sums).to(grad_bits.dtype)
        return torch.from_numpy(grad), density[..., 0], density[..., 1], *([None] * 4)
