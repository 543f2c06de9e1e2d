"""Torch in, torch out, around the kernel that finds the visible samples of training rays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shacira_nerfstudio.backends.base import VisibleSamples
from shacira_nerfstudio.backends.cpu_numba import visible_samples_kernels as front_kernels
from shacira_nerfstudio.backends.cpu_numba.networks import PackedNetworks
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.grid import GridSpec

FIRST_ROUND = 8
"""Samples per ray of the first wave; later ones double it."""
RAY_BLOCK = 1024
"""Rays per task: enough to fill waves when most of them have left."""


def march_visible(
    rays: tuple[np.ndarray, ...],
    march: tuple[Any, ...],
    table: np.ndarray,
    grid: GridSpec,
    levels: np.ndarray,
    how: tuple[int, np.uint32],
    networks: PackedNetworks,
    num_raw: int,
    *,
    max_samples: int,
    max_optical_depth: float,
    num_threads: int,
) -> VisibleSamples:
    """See :meth:`Backend.march_visible`; all of float32.

    Args:
        rays: Origins, directions, lower bound in steps, upper bound, number of steps and jitter.
        march: Occupancy and settings, as the kernels take them.
        levels: Those that are read.
        how: What is made of rows that are read, and the seed of that.
        num_raw: Outputs of the density network.
    """
    num_rays, channels = len(rays[0]), table.shape[1]
    described = np.array(
        [(i, grid.offsets[i], grid.table_sizes[i], grid.resolutions[i]) for i in levels], np.int64
    ).reshape(-1, 4)
    kernel: Any = front_kernels.march_visible
    parts = run(
        lambda begin, end: kernel(
            *rays, *march, table.ravel(), channels, described, *how, grid.num_levels, num_raw,
            networks.params, networks.halves, networks.density_layers, FIRST_ROUND, max_samples,
            max_optical_depth, begin, end,
        ),
        blocks(num_rays, RAY_BLOCK),
        num_threads,
    )  # fmt: skip
    empty = np.zeros(0, np.int64)
    counts, next_step = (
        torch.from_numpy(np.concatenate([empty, *(part[i] for part in parts)])) for i in (2, 3)
    )
    begins = counts.cumsum(0) - counts
    num_latents, total = grid.num_levels * channels, int(counts.sum())
    rows = np.empty((front_kernels.FEATURES + num_latents + num_raw, total), np.float32)
    put: Any = front_kernels.arrange
    run(
        lambda part: put(*part[:2], begins.numpy(), rows),
        [(part,) for part in parts],
        num_threads,
    )
    values = torch.from_numpy(rows)
    at = front_kernels.FEATURES
    latents = values[at : at + num_latents].view(grid.num_levels, channels, total)
    return VisibleSamples(
        t_starts=values[front_kernels.T_START],
        t_ends=values[front_kernels.T_END],
        positions=values[front_kernels.POSITION : at].t(),
        packed_info=torch.stack([begins, counts], 1),
        next_step=next_step,
        latents=latents.permute(2, 0, 1),
        raw=values[at + num_latents :].t(),
        num_marched=sum(part[4] for part in parts),
    )
