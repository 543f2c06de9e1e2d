"""Torch around Adam in the rows that a step touched."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.table import adam_kernels
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.sparse_rows import AdamState, SparseRowGradient

_BLOCK = 1 << 15
"""Bytes of marks per task, of eight rows each."""
_MAX_UPDATES = 1 << 15


@lru_cache(maxsize=4)
def _corrections(betas: tuple[float, float]) -> np.ndarray:
    """Bias corrections of Adam, see :func:`adam_kernels.adam_rows`."""
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
    gradient: SparseRowGradient,
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
    kernel: Any = adam_kernels.adam_rows
    run(
        lambda begin, end: kernel(*flat, counts, touched, corrections, *numbers, begin, end),
        blocks(len(touched), _BLOCK),
        num_threads,
    )
    # The arrays were written behind torch's back: whoever keeps something made from the parameter
    # has to notice.
    torch.autograd.graph.increment_version(parameter)
