"""Autograd around the kernels that say what rows of the table cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.table import rate_kernels
from shacira_nerfstudio.backends.cpu_numba.threads import run
from shacira_nerfstudio.backends.sparse_rows import RATE_BLOCK, SparseRowGradient
from shacira_nerfstudio.grid import GridSpec


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
        gradient: SparseRowGradient | None,
        num_threads: int,
    ) -> Tensor:
        table = as_array(latents)
        a, b = as_array(scale), as_array(shift)
        totals = np.zeros((grid.num_levels, *a.shape[1:], 3))
        tasks = []
        for level, begin in enumerate(grid.offsets[:-1]):
            end = grid.offsets[level + 1]
            rows, grad = _room(end - begin, stride, table.shape[1])
            row = min(level, len(a) - 1)  # one row serves all levels if the density is shared
            kernel_arguments = (table[begin:end], first, stride, a[row], b[row])
            tasks.append((*kernel_arguments, np.uint32(seed), begin, rows, grad, totals[level]))
        ctx.parts = _rate_levels(rate_kernels.logistic_bits, tasks, num_threads)
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
        first_table: Tensor,
        grid: GridSpec,
        bins_per_unit: int,
        first: int,
        stride: int,
        gradient: SparseRowGradient | None,
        num_threads: int,
    ) -> Tensor:
        table, bits = as_array(latents), as_array(lengths)
        kinds = as_array(classes, torch.int16)
        totals = np.zeros((grid.num_levels, 1))
        tables, scale = [*first_table.tolist(), len(bits)], np.float32(bins_per_unit)
        tasks = []
        for level, begin in enumerate(grid.offsets[:-1]):
            end = grid.offsets[level + 1]
            rows, grad = _room(end - begin, stride, table.shape[1])
            part = (table[begin:end], kinds[begin:end], first, stride)
            own = bits[tables[level] : tables[level + 1]]
            tasks.append((*part, own, scale, begin, rows, grad, totals[level]))
        ctx.parts = _rate_levels(rate_kernels.coded_bits, tasks, num_threads)
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
    gradient: SparseRowGradient | None,
    num_threads: int,
) -> Tensor | None:
    """Adds gradients of rows of each level, times a factor, to ``gradient``; without one, to zeros
    that are returned."""
    target = SparseRowGradient.zeros(*shape) if gradient is None else gradient
    values, touched = target.values.numpy(), target.touched.numpy()
    # Levels share no row, and no byte of the marks: their sizes are multiples of 8.
    run(
        lambda origin, rows, grad: rate_kernels.add_rows(
            rows, grad, np.float32(factor), origin, values, touched
        ),
        parts[::-1],
        num_threads,
    )
    return target.values if gradient is None else None
