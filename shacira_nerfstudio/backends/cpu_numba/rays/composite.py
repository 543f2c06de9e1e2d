"""Autograd around the compositing kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.rays import composite_kernels
from shacira_nerfstudio.backends.cpu_numba.rays.march import RAY_BLOCK
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run


class Composite(torch.autograd.Function):
    """See :meth:`Backend.composite`."""

    @staticmethod
    def forward(
        ctx,
        sigmas: Tensor,
        rgbs: Tensor,
        t_starts: Tensor,
        t_ends: Tensor,
        packed_info: Tensor,
        num_threads: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.num_threads = num_threads
        ctx.save_for_backward(sigmas, rgbs, t_starts, t_ends, packed_info)
        inputs = [as_array(v) for v in (sigmas, rgbs, t_starts, t_ends)]
        info = as_array(packed_info, torch.int64)
        color = np.empty((len(info), rgbs.shape[1]), np.float32)
        accumulation, distance = np.empty(len(info), np.float32), np.empty(len(info), np.float32)
        kernel: Any = composite_kernels.composite_forward
        run(
            lambda b, e: kernel(*inputs, info, color, accumulation, distance, b, e),
            blocks(len(info), RAY_BLOCK),
            num_threads,
        )
        outputs = (torch.from_numpy(v) for v in (color, accumulation, distance))
        return tuple(v.to(sigmas.dtype) for v in outputs)  # pyright: ignore[reportReturnType]

    @staticmethod
    def backward(ctx, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        sigmas, rgbs, t_starts, t_ends, packed_info = ctx.saved_tensors
        inputs = [as_array(v) for v in (sigmas, rgbs, t_starts, t_ends)]
        info = as_array(packed_info, torch.int64)
        upstream = [as_array(g) for g in grads]
        # Samples that no ray owns keep a gradient of zero.
        grad_sigmas = np.zeros(sigmas.shape, np.float32)
        grad_rgbs = np.zeros(rgbs.shape, np.float32)
        kernel: Any = composite_kernels.composite_backward
        run(
            lambda b, e: kernel(*inputs, info, *upstream, grad_sigmas, grad_rgbs, b, e),
            blocks(len(info), RAY_BLOCK),
            ctx.num_threads,
        )
        return (
            torch.from_numpy(grad_sigmas).to(sigmas.dtype),
            torch.from_numpy(grad_rgbs).to(rgbs.dtype),
            *([None] * 4),
        )
