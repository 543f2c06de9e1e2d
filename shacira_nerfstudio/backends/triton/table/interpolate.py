"""Look-ups in the hash grid, and the gradient of the table.

Programs stand for a block of samples in a level, level after level, so that the table of one level
stays in cache while it is read; all levels are one launch. Latents are laid out level and channel
first: a warp writes neighbouring samples side by side, and the matrix products that follow read
either order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.backends.sparse_rows import IDENTITY, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.triton.table.levels import (
    LEVEL_FIELDS,
    cells_of,
    check_size,
    corner_of,
    level_constants,
)
from shacira_nerfstudio.backends.triton.table.noise import int32_bits, quantized
from shacira_nerfstudio.backends.triton.table.touched_rows import mark_touched
from shacira_nerfstudio.grid import GridSpec

BLOCK = 256
NUM_WARPS = 8


@triton.jit(do_not_specialize=["num_samples", "stride_s", "stride_d", "stride_out", "seed"])
def _look_up_kernel(
    x_ptr, table_ptr, levels_ptr, out_ptr, count_ptr, num_samples, stride_s, stride_d, stride_out,
    seed, D: tl.constexpr, C: tl.constexpr, PADDED_C: tl.constexpr, MODE: tl.constexpr,
    FIELDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level, begin = tl.program_id(1), tl.program_id(0) * BLOCK
    num_samples = tl.minimum(tl.load(count_ptr), num_samples).to(tl.int32)
    if begin < num_samples:
        sample = begin + tl.arange(0, BLOCK)
        mask = sample < num_samples
        level_ptr = levels_ptr + level * FIELDS
        cells = cells_of(x_ptr, sample.to(tl.int64) * stride_s, mask, stride_d, level_ptr, D)
        channel = tl.arange(0, PADDED_C)[None, :]
        offset = tl.load(level_ptr)
        table_ptr += offset.to(tl.int64) * C
        total = tl.zeros((BLOCK, PADDED_C), tl.float32)
        for corner in tl.static_range(1 << D):  # pyright: ignore
            entry, weight = corner_of(cells, corner, D)
            index = entry[:, None] * C + channel
            # No mask but for channels: samples beyond the end stand at 0.
            if PADDED_C == C:
                row = tl.load(table_ptr + index, eviction_policy="evict_last")
            else:
                row = tl.load(table_ptr + index, mask=channel < C, other=0)
            counter = offset.to(tl.uint32) * C + index.to(tl.uint32)
            total += weight[:, None] * quantized(row.to(tl.float32), counter, seed, MODE)
        rows = out_ptr + (level * C + channel).to(tl.int64) * stride_out
        tl.store(rows + sample[:, None], total, mask=mask[:, None] & (channel < C))


@triton.jit(
    do_not_specialize=["num_samples", "stride_s", "stride_d", "stride_g", "stride_l", "stride_c"]
)
def _table_gradient_kernel(
    x_ptr, upstream_ptr, levels_ptr, grad_ptr, num_samples, stride_s, stride_d, stride_g,
    stride_l, stride_c, D: tl.constexpr, C: tl.constexpr, PADDED_C: tl.constexpr,
    FIELDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = sample < num_samples
    level_ptr = levels_ptr + level * FIELDS
    cells = cells_of(x_ptr, sample.to(tl.int64) * stride_s, mask, stride_d, level_ptr, D)
    channel = tl.arange(0, PADDED_C)[None, :]
    is_channel = mask[:, None]
    if PADDED_C != C:
        is_channel = is_channel & (channel < C)
    upstream_ptr += level.to(tl.int64) * stride_l
    at = sample.to(tl.int64)[:, None] * stride_g + channel.to(tl.int64) * stride_c
    upstream = tl.load(upstream_ptr + at, mask=is_channel, other=0.0).to(tl.float32)
    # By whole rows, which the card adds at once; many are 0, in levels that are not read yet and
    # where no light comes.
    is_channel = is_channel & (tl.max(tl.abs(upstream), 1) > 0)[:, None]  # pyright: ignore
    grad_ptr += tl.load(level_ptr).to(tl.int64) * C
    for corner in tl.static_range(1 << D):  # pyright: ignore
        entry, weight = corner_of(cells, corner, D)
        tl.atomic_add(
            grad_ptr + entry[:, None] * C + channel,
            weight[:, None] * upstream,
            mask=is_channel,
            sem="relaxed",  # by default it would order all other accesses, too
        )


def look_up(
    x: Tensor,
    table: Tensor,
    grid: GridSpec,
    quantizer: TableQuantizer = IDENTITY,
    *,
    num_levels: int | None = None,
    count: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Interpolated latents [S, L, C], laid out level and channel first. No gradient.

    Args:
        num_levels: Levels from this one on are 0.
        count: How many of the samples there are, int64 [1]; the rest is left as it is.
        out: Where to write, [L C, S], contiguous.
    """
    x, table = x.detach().float(), table.detach().contiguous()
    num_samples, channels = len(x), table.shape[1]
    check_size(grid.num_entries, channels)
    read = grid.num_levels if num_levels is None else min(num_levels, grid.num_levels)
    if count is None:  # so many that all are there: one kernel serves both
        count = constant((2**31 - 1,), torch.int64, x.device)
    if out is None:
        out = torch.empty(grid.num_levels * channels, num_samples, device=x.device)
    if read < grid.num_levels:
        out[read * channels :].zero_()
    launch(
        _look_up_kernel, (triton.cdiv(num_samples, BLOCK), read),
        x, table, level_constants(grid, x.device), out, count, num_samples, *x.stride(),
        num_samples, int32_bits(quantizer.seed), D=grid.num_dims, C=channels,
        PADDED_C=triton.next_power_of_2(channels), MODE=quantizer.mode, FIELDS=LEVEL_FIELDS,
        BLOCK=BLOCK, num_warps=NUM_WARPS,
    )  # fmt: skip
    return out.view(grid.num_levels, channels, num_samples).permute(2, 0, 1)


def add_gradient(x: Tensor, upstream: Tensor, grid: GridSpec, grad: Tensor) -> None:
    """Adds the gradient of a table [E, C] in whose look-ups at ``x`` arrived ``upstream``
    [S, L, C]."""
    channels = upstream.shape[2]
    launch(
        _table_gradient_kernel, (triton.cdiv(len(x), BLOCK), grid.num_levels),
        x, upstream, level_constants(grid, x.device), grad, len(x), *x.stride(),
        *upstream.stride(), D=grid.num_dims, C=channels,
        PADDED_C=triton.next_power_of_2(channels), FIELDS=LEVEL_FIELDS, BLOCK=BLOCK,
        num_warps=NUM_WARPS,
    )  # fmt: skip


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        x: Tensor,
        grid: GridSpec,
        quantizer: TableQuantizer,
        values: Tensor | None,
        gradient: SparseRowGradient | None,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid, ctx.gradient = grid, gradient
        return look_up(x, table, grid, quantizer) if values is None else values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (x,) = ctx.saved_tensors
        if ctx.gradient is not None:
            add_gradient(x, upstream, ctx.grid, ctx.gradient.values)
            mark_touched(ctx.gradient)
            return (None,) * 6
        grad = x.new_zeros(ctx.grid.num_entries, upstream.shape[2])
        add_gradient(x, upstream, ctx.grid, grad)
        return grad, *(None,) * 5


def interpolate(
    x: Tensor,
    table: Tensor,
    grid: GridSpec,
    quantizer: TableQuantizer,
    values: Tensor | None,
    gradient: SparseRowGradient | None,
) -> Tensor:
    """See :meth:`Backend.interpolate`."""
    if not table.is_floating_point():
        return look_up(x, table, grid, quantizer) if values is None else values
    return _Interpolate.apply(table.float(), x.detach().float(), grid, quantizer, values, gradient)
