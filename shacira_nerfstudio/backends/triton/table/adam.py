"""A step of Adam in the rows that were touched, see :meth:`Backend.update_rows`.

One pass over the table, without asking how many rows there are: on a GPU that costs less than to
wait for the answer.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from shacira_nerfstudio.backends.sparse_rows import AdamState, SparseRowGradient
from shacira_nerfstudio.backends.triton.launch import launch

BLOCK = 1024
"""Numbers of a program, padded channels included."""
_MOST_UPDATES = torch.iinfo(torch.int16).max


@lru_cache(maxsize=8)
def _corrections(betas: tuple[float, float], device: torch.device) -> Tensor:
    """Bias corrections of both moments after each number of updates, float32 [2^15, 2]."""
    with torch.inference_mode(False):
        updates = torch.arange(_MOST_UPDATES + 1, dtype=torch.float64, device=device)
        return torch.stack([1 - beta**updates for beta in betas], 1).float()


@triton.jit(do_not_specialize=["num_rows"])
def _update_kernel(
    parameter_ptr, grad_ptr, touched_ptr, moments_ptr, updates_ptr, corrections_ptr, num_rows,
    share_1, share_2, eps, lr, shrink, C: tl.constexpr, PADDED_C: tl.constexpr,
    MOST_UPDATES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    marks = tl.load(touched_ptr + row // 8, row < num_rows, 0).to(tl.int32)
    touched = ((marks >> (row % 8)) & 1) != 0
    updates = tl.load(updates_ptr + row, touched, 0).to(tl.int32)
    updates = tl.minimum(updates + 1, MOST_UPDATES)
    tl.store(updates_ptr + row, updates.to(tl.int16), touched)
    correction_1 = tl.load(corrections_ptr + updates * 2)[:, None]
    correction_2 = tl.load(corrections_ptr + updates * 2 + 1)[:, None]
    channel = tl.arange(0, PADDED_C)[None, :]
    mask = touched[:, None]
    if PADDED_C != C:
        mask = mask & (channel < C)
    at = row.to(tl.int64)[:, None] * C + channel
    moments_ptr += row.to(tl.int64)[:, None] * (2 * C) + channel
    grad = tl.load(grad_ptr + at, mask, 0.0)
    mean = tl.load(moments_ptr, mask, 0.0)
    square = tl.load(moments_ptr + C, mask, 0.0)
    mean += share_1 * (grad - mean)
    square += share_2 * (grad * grad - square)
    tl.store(moments_ptr, mean, mask)
    tl.store(moments_ptr + C, square, mask)
    step = mean / correction_1 / (tl.sqrt(square / correction_2) + eps)
    parameter = tl.load(parameter_ptr + at, mask, 0.0)
    tl.store(parameter_ptr + at, parameter * shrink - lr * step, mask)
    tl.store(grad_ptr + at, tl.zeros_like(grad), mask)


def update_rows(
    parameter: Tensor,
    gradient: SparseRowGradient,
    state: AdamState,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """All float32 and contiguous."""
    rows, channels = parameter.shape
    padded = triton.next_power_of_2(channels)
    block = BLOCK // padded
    launch(
        _update_kernel, (triton.cdiv(rows, block),),
        parameter, gradient.values, gradient.touched, state.moments, state.num_updates,
        _corrections(betas, parameter.device), rows, 1 - betas[0], 1 - betas[1], eps, lr,
        1 - lr * weight_decay, C=channels, PADDED_C=padded, MOST_UPDATES=_MOST_UPDATES, ROWS=block,
    )  # fmt: skip
    gradient.touched.zero_()
