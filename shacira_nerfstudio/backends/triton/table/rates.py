"""What rows of the table cost, see :meth:`Backend.coded_bits` and :meth:`Backend.logistic_bits`.

One launch gives the bits and all derivatives; the backward pass has only to scale them. Programs
stand for a block of rated rows in a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.backends.sparse_rows import RATE_BLOCK, SparseRowGradient
from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.triton.table.levels import check_size
from shacira_nerfstudio.backends.triton.table.noise import int32_bits, noise_at
from shacira_nerfstudio.backends.triton.table.touched_rows import mark_touched
from shacira_nerfstudio.grid import GridSpec

BLOCK = 1024
"""Latents of a program."""


@triton.jit
def _num_rated(num_rows, first, stride, RATE_BLOCK: tl.constexpr):
    """How many of the first ``num_rows`` rows are rated: those of the blocks ``first::stride``."""
    blocks, rest = num_rows // RATE_BLOCK, num_rows % RATE_BLOCK
    whole = tl.maximum(blocks - first + stride - 1, 0) // stride
    return whole * RATE_BLOCK + tl.where(blocks % stride == first, rest, 0)


@triton.jit
def _rated(
    offsets_ptr,
    level,
    first,
    stride,
    C: tl.constexpr,
    RATE_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """This program's latents: index among the rated ones, in the table, and which there are."""
    begin = _num_rated(tl.load(offsets_ptr + level), first, stride, RATE_BLOCK) * C
    end = _num_rated(tl.load(offsets_ptr + level + 1), first, stride, RATE_BLOCK) * C
    rated = begin + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = rated // C
    row = (first + row // RATE_BLOCK * stride) * RATE_BLOCK + row % RATE_BLOCK
    return rated, row * C + rated % C, rated < end


@triton.jit
def _cost(lengths_ptr, q, density, middle):
    """Bits, linear between bins and beyond the last two; q in units of the latents."""
    q = q * density + middle
    below = tl.minimum(tl.maximum(tl.floor(q), 0.0), 2.0 * middle - 1)
    at = lengths_ptr + below.to(tl.int32)
    low, high = tl.load(at), tl.load(at + 1)
    return low + (q - below) * (high - low)


@triton.jit
def _nearest(value):
    nearest = (value + 12582912.0) - 12582912.0
    return tl.where(tl.abs(value) < 4194304.0, nearest, value)


@triton.jit(do_not_specialize=["first", "stride", "width", "density"])
def _coded_kernel(
    latents_ptr, lengths_ptr, classes_ptr, first_table_ptr, offsets_ptr, bits_ptr, slopes_ptr,
    first, stride, width, density, C: tl.constexpr, RATE_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    rated, at, mask = _rated(offsets_ptr, level, first, stride, C, RATE_BLOCK, BLOCK)
    kind = tl.load(classes_ptr + at, mask, -1).to(tl.int32)
    costs = mask & (kind >= 0)
    latent = tl.load(latents_ptr + at, costs, 0.0)
    table = tl.load(first_table_ptr + level).to(tl.int32) + tl.maximum(kind, 0)
    lengths = lengths_ptr + table * width
    scale, middle = density.to(tl.float32), (width // 2).to(tl.float32)
    bits = _cost(lengths, _nearest(latent), scale, middle)
    slope = _cost(lengths, latent + 0.5, scale, middle)
    slope -= _cost(lengths, latent - 0.5, scale, middle)
    tl.store(slopes_ptr + rated, tl.where(costs, slope, 0.0), mask)
    block = level * tl.num_programs(0) + tl.program_id(0)
    tl.store(bits_ptr + block, tl.sum(tl.where(costs, bits, 0.0), 0))


@triton.jit
def _sigmoid_slope(x):
    e = tl.exp(-tl.abs(x))
    return e / ((1 + e) * (1 + e))


@triton.jit(do_not_specialize=["seed", "first", "stride", "pooled"])
def _logistic_kernel(
    latents_ptr, scale_ptr, shift_ptr, offsets_ptr, bits_ptr, slopes_ptr, parts_ptr, seed, first,
    stride, pooled, C: tl.constexpr, RATE_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    rated, at, mask = _rated(offsets_ptr, level, first, stride, C, RATE_BLOCK, BLOCK)
    channel = rated % C
    density = tl.where(pooled != 0, 0, level) * C + channel
    a, b = tl.load(scale_ptr + density), tl.load(shift_ptr + density)
    v = tl.load(latents_ptr + at, mask, 0.0) + noise_at(at.to(tl.uint32), seed)
    upper, lower = (v + 0.5) * a + b, (v - 0.5) * a + b
    # In the upper tail both sigmoids are near 1; mirrored, the difference keeps its digits.
    sign = tl.where(upper + lower > 0, -1.0, 1.0)
    probability = sign * (tl.sigmoid(sign * upper) - tl.sigmoid(sign * lower)) + 1e-10
    bits = tl.where(mask, -tl.log2(probability), 0.0)
    up, low = _sigmoid_slope(upper), _sigmoid_slope(lower)
    outer = tl.where(mask, -1.4426950408889634 / probability, 0.0)
    tl.store(slopes_ptr + rated, outer * a * (up - low), mask)
    d_scale, d_shift = outer * (up * (v + 0.5) - low * (v - 0.5)), outer * (up - low)
    block = level * tl.num_programs(0) + tl.program_id(0)
    tl.store(bits_ptr + block, tl.sum(bits, 0))
    for c in tl.static_range(C):  # pyright: ignore
        here = channel == c
        tl.store(parts_ptr + (block * 2) * C + c, tl.sum(tl.where(here, d_scale, 0.0), 0))
        tl.store(parts_ptr + (block * 2 + 1) * C + c, tl.sum(tl.where(here, d_shift, 0.0), 0))


@triton.jit(do_not_specialize=["first", "stride"])
def _add_kernel(
    slopes_ptr, upstream_ptr, offsets_ptr, grad_ptr, touched_ptr, first, stride, C: tl.constexpr,
    RATE_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rated, at, mask = _rated(offsets_ptr, tl.program_id(1), first, stride, C, RATE_BLOCK, BLOCK)
    slope = tl.load(slopes_ptr + rated, mask, 0.0) * tl.load(upstream_ptr)
    tl.store(grad_ptr + at, tl.load(grad_ptr + at, mask, 0.0) + slope, mask)
    if touched_ptr is not None:  # rows are rated by eights, and more
        tl.store(touched_ptr + at // (8 * C), tl.full((BLOCK,), 255, tl.uint8), mask)


@dataclass(frozen=True)
class _Sampling:
    """Which rows are rated, and where their gradient goes."""

    grid: GridSpec
    first: int
    stride: int
    gradient: SparseRowGradient | None
    marks_all: bool
    """Whether rated rows count as touched if their gradient is 0, too."""

    def programs(self, channels: int) -> tuple[int, int]:
        """Enough for the largest level, times levels."""
        check_size(self.grid.num_entries, channels)
        rows = (max(self.grid.table_sizes) // (RATE_BLOCK * self.stride) + 2) * RATE_BLOCK
        return triton.cdiv(rows * channels, BLOCK), self.grid.num_levels

    def empty_slopes(self, latents: Tensor) -> Tensor:
        """Room for a derivative of each rated latent."""
        rows = len(latents) // self.stride + 2 * RATE_BLOCK
        return latents.new_empty(rows, latents.shape[1])

    def offsets(self, device: torch.device) -> Tensor:
        return constant(self.grid.offsets, torch.int32, device)

    def add(self, slopes: Tensor, upstream: Tensor) -> Tensor | None:
        """The gradient of all latents, unless it went elsewhere."""
        channels, target = slopes.shape[1], self.gradient
        own = slopes.new_zeros(self.grid.num_entries, channels) if target is None else None
        values = own if target is None else target.values
        marks = target.touched if target is not None and self.marks_all else None
        launch(
            _add_kernel, self.programs(channels), slopes, upstream, self.offsets(slopes.device),
            values, marks, self.first, self.stride, C=channels, RATE_BLOCK=RATE_BLOCK, BLOCK=BLOCK,
        )  # fmt: skip
        if target is not None and not self.marks_all:
            mark_touched(target)
        return own


class _CodedBits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, latents: Tensor, lengths: Tensor, classes: Tensor, first_table: Tensor,
        bins_per_unit: int, sampling: _Sampling,
    ) -> Tensor:  # fmt: skip
        channels = latents.shape[1]
        programs = sampling.programs(channels)
        bits, slopes = latents.new_empty(programs), sampling.empty_slopes(latents)
        launch(
            _coded_kernel, programs, latents, lengths, classes, first_table,
            sampling.offsets(latents.device), bits, slopes, sampling.first, sampling.stride,
            lengths.shape[1], bins_per_unit, C=channels, RATE_BLOCK=RATE_BLOCK, BLOCK=BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(slopes)
        ctx.sampling = sampling
        return bits.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (slopes,) = ctx.saved_tensors
        return ctx.sampling.add(slopes, upstream), *(None,) * 5


class _LogisticBits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, latents: Tensor, scale: Tensor, shift: Tensor, seed: int, sampling: _Sampling
    ) -> Tensor:
        channels = latents.shape[1]
        programs = sampling.programs(channels)
        bits, slopes = latents.new_empty(programs), sampling.empty_slopes(latents)
        parts = latents.new_empty(*programs[::-1], 2, channels)
        launch(
            _logistic_kernel, programs, latents, scale, shift, sampling.offsets(latents.device),
            bits, slopes, parts, int32_bits(seed), sampling.first, sampling.stride,
            int(len(scale) == 1), C=channels, RATE_BLOCK=RATE_BLOCK, BLOCK=BLOCK,
        )  # fmt: skip
        parts = parts.sum(1)
        if len(scale) == 1:
            parts = parts.sum(0, keepdim=True)
        ctx.save_for_backward(slopes, parts)
        ctx.sampling = sampling
        return bits.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        slopes, parts = ctx.saved_tensors
        of_densities = (parts * upstream).unbind(1)
        return ctx.sampling.add(slopes, upstream), *of_densities, None, None


def coded_bits(
    latents: Tensor,
    lengths: Tensor,
    classes: Tensor,
    first_table: Tensor,
    grid: GridSpec,
    *,
    bins_per_unit: int,
    first: int,
    stride: int,
    gradient: SparseRowGradient | None,
) -> Tensor:
    """See :meth:`Backend.coded_bits`; float32."""
    return _CodedBits.apply(
        latents.contiguous(), lengths.to(latents).contiguous(), classes.contiguous(),
        first_table.contiguous(), bins_per_unit,
        _Sampling(grid, first, stride, gradient, marks_all=False),
    )  # fmt: skip


def logistic_bits(
    latents: Tensor,
    scale: Tensor,
    shift: Tensor,
    grid: GridSpec,
    *,
    seed: int,
    first: int,
    stride: int,
    gradient: SparseRowGradient | None,
) -> Tensor:
    """See :meth:`Backend.logistic_bits`; float32."""
    return _LogisticBits.apply(
        latents.contiguous(), scale.contiguous(), shift.contiguous(), seed,
        _Sampling(grid, first, stride, gradient, marks_all=True),
    )  # fmt: skip
