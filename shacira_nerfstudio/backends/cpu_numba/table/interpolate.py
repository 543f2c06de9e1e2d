"""Torch around look-ups in the table: interpolation, its gradient, quantisation of the whole."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.table import interpolate_kernels, noise_kernels
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.sparse_rows import IDENTITY, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.grid import GridSpec

SAMPLE_BLOCK = 65536
"""Largest number of samples per task. A task goes level by level, so a large block pays for
bringing each level's table into the cache once; a fine level's table alone fills the second-level
cache."""
_NOISE_BLOCK = 1 << 18
_MODES = {
    "none": interpolate_kernels.AS_IS,
    "round": interpolate_kernels.ROUND,
    "noise": interpolate_kernels.NOISE,
}


@dataclass(frozen=True)
class TableRows:
    """A table as kernels read it."""

    rows: np.ndarray
    """float32, int8 or int16 [E, C]."""
    grid: GridSpec
    mode: int
    """What is made of a row that is read, see :data:`interpolate_kernels.AS_IS`."""
    seed: np.uint32

    @classmethod
    def of(cls, table: Tensor, grid: GridSpec, quantizer: TableQuantizer) -> TableRows:
        rows = table.detach().contiguous()
        if rows.dtype not in (torch.int8, torch.int16):
            rows = rows.float()
        elif quantizer.mode == "round":
            quantizer = IDENTITY
        return cls(rows.numpy(), grid, _MODES[quantizer.mode], np.uint32(quantizer.seed))

    def nonzero_levels(self, num_levels: int) -> np.ndarray:
        """Which of the first levels hold anything: indices, int64. The finest levels of a file
        often do not; those of a float table always do."""
        if self.rows.dtype == np.float32:
            return np.arange(num_levels)
        spans = list(itertools.pairwise(self.grid.offsets))[:num_levels]
        levels = [level for level, span in enumerate(spans) if self.rows[slice(*span)].any()]
        return np.array(levels, np.int64)

    def level_table(self, levels: np.ndarray) -> np.ndarray:
        """What :func:`interpolate_kernels.look_up` is told of some levels, int64 [levels, 6]."""
        rows = [
            (i, self.grid.offsets[i], self.grid.table_sizes[i], *axis_resolutions(self.grid, i))
            for i in levels.tolist()
        ]
        return np.array(rows, np.int64).reshape(len(levels), 6)


def axis_resolutions(grid: GridSpec, level: int) -> tuple[int, int, int]:
    """Resolutions of a level for kernels, which take three axes; what they are told of a third one
    that is not there has no effect."""
    resolutions = grid.resolutions[level]
    return resolutions[0], resolutions[1], resolutions[-1]


class Interpolate(torch.autograd.Function):
    """See :meth:`Backend.interpolate`."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        table: Tensor,
        grid: GridSpec,
        quantizer: TableQuantizer,
        values: Tensor | None,
        gradient: SparseRowGradient | None,
        num_threads: int,
    ) -> Tensor:
        ctx.num_threads, ctx.gradient = num_threads, gradient
        ctx.grid, ctx.table_shape, ctx.table_dtype = grid, table.shape, table.dtype
        ctx.save_for_backward(x)
        if values is not None:
            return values.view_as(values)
        positions = as_array(x.t())
        num_samples, offsets = len(x), grid.offsets
        out = np.empty((grid.num_levels, table.shape[1], num_samples), np.float32)
        source = TableRows.of(table, grid, quantizer)
        flat, nonzero = source.rows.ravel(), source.nonzero_levels(grid.num_levels)
        out[np.setdiff1d(np.arange(grid.num_levels), nonzero)] = 0

        def levels(begin: int, end: int) -> None:
            for level in nonzero:
                interpolate_kernels.interpolate_forward(
                    positions,
                    flat,
                    offsets[level],
                    *axis_resolutions(grid, level),
                    grid.table_sizes[level],
                    table.shape[1],
                    source.mode,
                    source.seed,
                    out[level],
                    begin,
                    end,
                )

        share = -(-num_samples // num_threads)
        run(levels, blocks(num_samples, max(min(share, SAMPLE_BLOCK), 1)), num_threads)
        return torch.from_numpy(out).permute(2, 0, 1)

    @staticmethod
    def backward(ctx, grad_out: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        grid: GridSpec = ctx.grid
        positions = as_array(x.t())
        upstream = as_array(grad_out.permute(1, 2, 0))  # [L, C, S]
        gradient: SparseRowGradient | None = ctx.gradient
        if gradient is None:
            grad_table, touched = np.zeros(ctx.table_shape, np.float32), np.zeros(0, np.uint8)
        else:
            grad_table, touched = gradient.values.numpy(), gradient.touched.numpy()
        offsets = grid.offsets
        kernel = interpolate_kernels.interpolate_backward
        # Fine levels take longest (cache misses); they start first so that threads finish together.
        # They share no row, and no byte of the marks: sizes of levels are multiples of 8.
        tasks = [(level,) for level in reversed(range(grid.num_levels))]
        run(
            lambda level: kernel(
                positions,
                upstream[level],
                *axis_resolutions(grid, level),
                grid.table_sizes[level],
                grad_table[offsets[level] : offsets[level + 1]],
                touched[offsets[level] // 8 : offsets[level + 1] // 8],
            ),
            tasks,
            ctx.num_threads,
        )
        own = None if gradient is not None else torch.from_numpy(grad_table).to(ctx.table_dtype)
        return None, own, *([None] * 5)


def quantize(table: Tensor, quantizer: TableQuantizer, num_threads: int) -> Tensor:
    """See :meth:`Backend.quantize`."""
    table = table.detach()
    if quantizer.mode == "round":
        return table.round()
    if quantizer.mode == "none":
        return table
    flat, seed = as_array(table).reshape(-1), np.uint32(quantizer.seed)
    out = np.empty(flat.size, np.float32)
    run(
        lambda begin, end: noise_kernels.add_noise(flat, 0, seed, out, begin, end),
        blocks(len(flat), _NOISE_BLOCK),
        num_threads,
    )
    return torch.from_numpy(out.reshape(table.shape)).to(table.dtype)
