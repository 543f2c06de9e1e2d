"""Torch around the passes over rows of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba import latent_kernels
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.sparse_rows import RATE_BLOCK, AdamState, RowGradient
from shacira_nerfstudio.grid import GridSpec

_BLOCK = 1 << 18
_MAX_UPDATES = 1 << 15


def noisy(table: np.ndarray, seed: int, num_threads: int) -> np.ndarray:
    """Rows [E, C] with the noise of a seed."""
    flat, out = table.reshape(-1), np.empty(table.size, np.float32)
    run(
        lambda begin, end: latent_kernels.add_noise(flat, 0, np.uint32(seed), out, begin, end),
        blocks(len(flat), _BLOCK),
        num_threads,
    )
    return out.reshape(table.shape)


class LogisticBits(torch.autograd.Function):
    """Estimated bits of some rows, noise included; gradients come with the value."""

    @staticmethod
    def forward(
        ctx,
        latents: Tensor,
        scale: Tensor,
        shift: Tensor,
        grid: GridSpec,
        seed: int,
        first: int,
        stride: int,
        gradient: RowGradient | None,
        num_threads: int,
    ) -> Tensor:
        table = latents.detach().float().contiguous().numpy()
        a, b = (v.detach().float().contiguous().numpy() for v in (scale, shift))
        totals = np.zeros((grid.num_levels, *a.shape[1:], 3))
        tasks = []
        for level, begin in enumerate(grid.offsets[:-1]):
            end = grid.offsets[level + 1]
            rows, grad = _room(end - begin, stride, table.shape[1])
            row = min(level, len(a) - 1)  # one row serves all levels if the density is pooled
            kernel_arguments = (table[begin:end], first, stride, a[row], b[row])
            tasks.append((*kernel_arguments, np.uint32(seed), begin, rows, grad, totals[level]))
        ctx.parts = _rate_levels(latent_kernels.logistic_bits, tasks, num_threads)
        ctx.shapes, ctx.totals, ctx.gradient = (latents.shape, len(a)), totals, gradient
        ctx.num_threads = num_threads
        return latents.new_tensor(totals[..., 0].sum())

    @staticmethod
    def backward(ctx, grad_bits: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        upstream = grad_bits.item()
        shape, density_rows = ctx.shapes
        own = _add_parts(ctx.parts, upstream, shape, ctx.gradient, ctx.num_threads)
        sums = ctx.totals[..., 1:] * upstream
        if density_rows == 1:
            sums = sums.sum(0, keepdims=True)
        density = torch.from_numpy(sums).to(grad_bits.dtype)
        return own, density[..., 0], density[..., 1], *([None] * 6)


class CodedBits(torch.autograd.Function):
    """Bits of some rows under tables of code lengths; the gradient comes with the value."""

    @staticmethod
    def forward(
        ctx,
        latents: Tensor,
        lengths: Tensor,
        classes: Tensor,
        first_table: Sequence[int],
        grid: GridSpec,
        letters_per_unit: int,
        first: int,
        stride: int,
        gradient: RowGradient | None,
        num_threads: int,
    ) -> Tensor:
        table = latents.detach().float().contiguous().numpy()
        kinds, bits = classes.contiguous().numpy(), lengths.float().contiguous().numpy()
        totals = np.zeros((grid.num_levels, 1))
        tables, density = [*first_table, len(bits)], np.float32(letters_per_unit)
        tasks = []
        for level, begin in enumerate(grid.offsets[:-1]):
            end = grid.offsets[level + 1]
            rows, grad = _room(end - begin, stride, table.shape[1])
            part = (table[begin:end], kinds[begin:end], first, stride)
            own = bits[tables[level] : tables[level + 1]]
            tasks.append((*part, own, density, begin, rows, grad, totals[level]))
        ctx.parts = _rate_levels(latent_kernels.coded_bits, tasks, num_threads)
        ctx.shape, ctx.gradient, ctx.num_threads = latents.shape, gradient, num_threads
        return latents.new_tensor(totals.sum())

    @staticmethod
    def backward(ctx, grad_bits: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        own = _add_parts(ctx.parts, grad_bits.item(), ctx.shape, ctx.gradient, ctx.num_threads)
        return own, *([None] * 9)


def _room(size: int, stride: int, num_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """For the rated rows of one level and their gradients."""
    room = (-(-size // (RATE_BLOCK * stride)) + 1) * RATE_BLOCK
    return np.empty(room, np.int32), np.empty((room, num_channels), np.float32)


_Part = tuple[int, np.ndarray, np.ndarray]
"""First row of a level, its rows that have a gradient, and that gradient."""


def _rate_levels(kernel: Any, tasks: list[tuple], num_threads: int) -> list[_Part]:
    """Runs a kernel on each level.

    Args:
        tasks: Arguments for each level; the last four are its first row, room for rows and for
            gradients, and where totals go.
    """
    # Fine levels are the largest; they start first so that threads finish together.
    counts = run(kernel, tasks[::-1], num_threads)[::-1]
    parts = []
    for count, task in zip(counts, tasks, strict=True):
        origin, rows, grad = task[-4:-1]
        parts.append((origin, rows[:count], grad[:count]))
    return parts


def _add_parts(
    parts: list[_Part],
    factor: float,
    shape: tuple[int, int],
    gradient: RowGradient | None,
    num_threads: int,
) -> Tensor | None:
    """Adds gradients of rows of each level, times a factor, to ``gradient``; without one, to zeros
    that are returned."""
    target = RowGradient.zeros(*shape) if gradient is None else gradient
    values, touched = target.values.numpy(), target.touched.numpy()
    # Levels share no row, and no byte of the marks: their sizes are multiples of 8.
    run(
        lambda origin, rows, grad: latent_kernels.add_rows(
            rows, grad, np.float32(factor), origin, values, touched
        ),
        parts[::-1],
        num_threads,
    )
    return target.values if gradient is None else None


@lru_cache(maxsize=4)
def _corrections(betas: tuple[float, float]) -> np.ndarray:
    """Bias corrections of Adam, see :func:`latent_kernels.adam_rows`."""
    slowest = max(betas)
    # From where beta^k is below the resolution of single precision, the correction is 1.
    length = math.ceil(25 * math.log(2) / -math.log(slowest)) if slowest > 0 else 1
    if length > _MAX_UPDATES:
        limit = 0.5 ** (25 / _MAX_UPDATES)
        raise ValueError(f"expected betas of at most {limit:.5f}, got {betas}")
    power = np.arange(1, length + 1)
    first = 1 / (1 - betas[0] ** power)
    return np.stack([first, 1 / np.sqrt(1 - betas[1] ** power)]).astype(np.float32)


def update_rows(
    parameter: Tensor,
    gradient: RowGradient,
    state: AdamState,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    num_threads: int,
) -> None:
    """See :meth:`Backend.update_rows`."""
    arrays = (parameter.detach(), gradient.values, state.moments)
    flat = [v.view(-1).numpy() for v in arrays]
    touched = gradient.touched.numpy()
    shares = [1 - beta for beta in betas]
    numbers = [np.float32(v) for v in (lr, *shares, eps, 1 - lr * weight_decay)]
    counts, corrections = state.num_updates.numpy(), _corrections(betas)
    kernel: Any = latent_kernels.adam_rows
    run(
        lambda begin, end: kernel(*flat, counts, touched, corrections, *numbers, begin, end),
        blocks(len(touched), _BLOCK // 8),
        num_threads,
    )
    # The arrays were written behind torch's back: whoever keeps something made from the parameter
    # has to notice.
    torch.autograd.graph.increment_version(parameter)
