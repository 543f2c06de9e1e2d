"""Alpha compositing, forward and backward, and how far light reaches. A warp takes a ray."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shacira_nerfstudio.backends.networks import MAX_LOG_DENSITY
from shacira_nerfstudio.backends.triton.launch import launch

BLOCK = 32
"""Samples of a ray that a warp takes at once."""


@triton.jit
def _weights(depth, before):
    """Transmittance in front of samples, and their weights.

    Args:
        depth: Optical depth of each, float32.
        before: In front of the first one, float64 like all sums of optical depths: what lies before
            a dense sample must not get lost in it.
    """
    depth_64 = depth.to(tl.float64)
    in_front = tl.exp(-(before + tl.cumsum(depth_64, 0) - depth_64).to(tl.float32))
    # 1 - exp(-d) loses the digits of a small d.
    series = depth * (1 - depth * (0.5 - depth * (0.16666667 - depth * 0.041666668)))
    opacity = tl.where(depth < 0.03125, series, 1 - tl.exp(-depth))
    return in_front, in_front * opacity


@triton.jit(do_not_specialize=["stride_s", "stride_c"])
def _composite_kernel(
    sigmas_ptr, rgbs_ptr, starts_ptr, ends_ptr, info_ptr, out_ptr, stride_s, stride_c,
    C: tl.constexpr, PADDED_C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0).to(tl.int64)
    begin, count = tl.load(info_ptr + ray * 2), tl.load(info_ptr + ray * 2 + 1).to(tl.int32)
    channel = tl.arange(0, PADDED_C)[None, :]
    before = tl.zeros((), tl.float64)
    color = tl.zeros((BLOCK, PADDED_C), tl.float32)
    accumulation, distance = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for first in range(0, count, BLOCK):
        at = first + tl.arange(0, BLOCK)
        mask = at < count
        at = begin + at
        start, end = tl.load(starts_ptr + at, mask, 0.0), tl.load(ends_ptr + at, mask, 0.0)
        depth = tl.load(sigmas_ptr + at, mask, 0.0) * (end - start)
        _, weight = _weights(depth, before)
        rgb = rgbs_ptr + at[:, None] * stride_s + channel * stride_c
        color += weight[:, None] * tl.load(rgb, mask[:, None] & (channel < C), 0.0)
        accumulation += weight
        distance += weight * ((start + end) / 2)
        before += tl.sum(depth.to(tl.float64), 0)
    out_ptr += ray * (C + 2)
    channel = tl.arange(0, PADDED_C)
    tl.store(out_ptr + channel, tl.sum(color, 0), mask=channel < C)
    tl.store(out_ptr + C, tl.sum(accumulation, 0))
    tl.store(out_ptr + C + 1, tl.sum(distance, 0))


@triton.jit(do_not_specialize=["stride_s", "stride_c"])
def _composite_gradient_kernel(
    sigmas_ptr, rgbs_ptr, starts_ptr, ends_ptr, info_ptr, out_ptr, upstream_ptr, grad_sigmas_ptr,
    grad_rgbs_ptr, stride_s, stride_c, C: tl.constexpr, PADDED_C: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0).to(tl.int64)
    begin, count = tl.load(info_ptr + ray * 2), tl.load(info_ptr + ray * 2 + 1).to(tl.int32)
    out_ptr += ray * (C + 2)
    upstream_ptr += ray * (C + 2)
    channel = tl.arange(0, PADDED_C)
    g_color = tl.load(upstream_ptr + channel, channel < C, 0.0)
    g_accumulation, g_distance = tl.load(upstream_ptr + C), tl.load(upstream_ptr + C + 1)
    # With g the gradient of a weight w, that of optical depth i is T_{i+1} g_i - Σ_{j>i} w_j g_j.
    # All of Σ w g is known from the outputs: w occurs in them alone.
    color = tl.load(out_ptr + channel, channel < C, 0.0).to(tl.float64)
    behind = tl.sum(color * g_color.to(tl.float64), 0)
    behind += tl.load(out_ptr + C).to(tl.float64) * g_accumulation.to(tl.float64)
    behind += tl.load(out_ptr + C + 1).to(tl.float64) * g_distance.to(tl.float64)
    before = tl.zeros((), tl.float64)
    channel = channel[None, :]
    for first in range(0, count, BLOCK):
        at = first + tl.arange(0, BLOCK)
        mask = at < count
        at = begin + at
        start, end = tl.load(starts_ptr + at, mask, 0.0), tl.load(ends_ptr + at, mask, 0.0)
        depth = tl.load(sigmas_ptr + at, mask, 0.0) * (end - start)
        in_front, weight = _weights(depth, before)
        rgb = rgbs_ptr + at[:, None] * stride_s + channel * stride_c
        rgb = tl.load(rgb, mask[:, None] & (channel < C), 0.0)
        g = g_accumulation + g_distance * ((start + end) / 2)
        g += tl.sum(rgb * g_color[None, :], 1)
        weighted = (weight * g).to(tl.float64)
        rest = behind - tl.cumsum(weighted, 0)
        grad = (end - start) * ((in_front - weight) * g - rest.to(tl.float32))
        tl.store(grad_sigmas_ptr + at, grad, mask)
        grad_rgb = weight[:, None] * g_color[None, :]
        tl.store(grad_rgbs_ptr + at[:, None] * C + channel, grad_rgb, mask[:, None] & (channel < C))
        before += tl.sum(depth.to(tl.float64), 0)
        behind -= tl.sum(weighted, 0)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, info: Tensor
    ) -> Tensor:
        out = torch.empty(len(info), rgbs.shape[1] + 2, device=sigmas.device)
        launch(
            _composite_kernel, (len(info),),
            sigmas, rgbs, t_starts, t_ends, info, out, *rgbs.stride(), C=rgbs.shape[1],
            PADDED_C=triton.next_power_of_2(rgbs.shape[1]), BLOCK=BLOCK, num_warps=1,
        )  # fmt: skip
        ctx.save_for_backward(sigmas, rgbs, t_starts, t_ends, info, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        sigmas, rgbs, t_starts, t_ends, info, out = ctx.saved_tensors
        # Samples that belong to no ray, see VisibleSamples, have a gradient of 0.
        grads = torch.zeros_like(sigmas), rgbs.new_zeros(rgbs.shape)
        launch(
            _composite_gradient_kernel, (len(info),),
            sigmas, rgbs, t_starts, t_ends, info, out, upstream.contiguous(), *grads,
            *rgbs.stride(), C=rgbs.shape[1], PADDED_C=triton.next_power_of_2(rgbs.shape[1]),
            BLOCK=BLOCK, num_warps=1,
        )  # fmt: skip
        return *grads, None, None, None


def composite(
    sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :meth:`Backend.composite`; float32."""
    out = _Composite.apply(
        sigmas.float().contiguous(),
        rgbs.float(),
        t_starts.contiguous(),
        t_ends.contiguous(),
        packed_info.contiguous(),
    )
    return out[:, :-2], out[:, -2], out[:, -1]


@triton.jit(do_not_specialize=["stride", "capacity"])
def _visible_kernel(
    log_density_ptr, spans_ptr, info_ptr, counts_ptr, stride, capacity, max_depth,
    MAX_LOG: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0).to(tl.int64)
    begin, count = tl.load(info_ptr + ray * 2), tl.load(info_ptr + ray * 2 + 1).to(tl.int32)
    before = tl.zeros((), tl.float64)
    first, visible = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    goes_on = count > 0
    while goes_on:
        rank = first + tl.arange(0, BLOCK)
        at = begin + rank
        mask = (rank < count) & (at < capacity)
        start = tl.load(spans_ptr + at, mask, 0.0)
        end = tl.load(spans_ptr + at + tl.cast(capacity, tl.int64), mask, 0.0)
        log_density = tl.load(log_density_ptr + at * stride, mask, 0.0).to(tl.float32)
        density = tl.exp(tl.minimum(log_density, MAX_LOG))
        depth = (density * (end - start)).to(tl.float64)
        in_front = before + tl.cumsum(depth, 0) - depth
        visible += tl.sum((mask & (in_front <= max_depth)).to(tl.int32), 0)
        before += tl.sum(depth, 0)
        first += BLOCK
        goes_on = (first < count) & (visible == first)
    tl.store(counts_ptr + ray, visible.to(tl.int64))


def num_visible(
    density_outputs: Tensor, spans: Tensor, packed_info: Tensor, *, early_stop: float
) -> Tensor:
    """As ``composed.num_visible``, from outputs of the density network.

    Args:
        spans: Starts and ends in its first rows, [2 or more, S]; samples beyond S do not count.
    """
    counts = torch.empty_like(packed_info[:, 1])
    launch(
        _visible_kernel, (len(counts),),
        density_outputs, spans, packed_info, counts, density_outputs.stride(0),
        spans.shape[1], -math.log(early_stop) if early_stop > 0 else math.inf,
        MAX_LOG=MAX_LOG_DENSITY, BLOCK=BLOCK, num_warps=1,
    )  # fmt: skip
    return counts
