"""Torch around the kernel that finds the visible samples of training rays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shacira_nerfstudio.backends.cpu_numba.networks.shade import PackedNetworks
from shacira_nerfstudio.backends.cpu_numba.rays import visible_samples_kernels
from shacira_nerfstudio.backends.cpu_numba.rays.march import RAY_BLOCK, Rays
from shacira_nerfstudio.backends.cpu_numba.table.interpolate import TableRows
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.types import VisibleSamples

CHUNK = 8
"""Samples per ray of a batch: more would be looked at behind surfaces, in vain."""


def march_visible(
    rays: Rays,
    space: tuple[Any, ...],
    table: TableRows,
    networks: PackedNetworks,
    *,
    num_levels: int,
    max_samples: int,
    max_optical_depth: float,
    num_threads: int,
) -> VisibleSamples:
    """See :meth:`Backend.march_visible`; all of float32.

    Args:
        space: From :meth:`EmptySpace.arguments`.
        num_levels: Levels from this one on read as 0.
    """
    num_rays, channels, grid = len(rays[0]), table.rows.shape[1], table.grid
    levels = table.level_table(table.nonzero_levels(num_levels))
    num_outputs = networks.num_density_outputs
    kernel: Any = visible_samples_kernels.march_visible
    parts = run(
        lambda begin, end: kernel(
            *rays, *space, table.rows.ravel(), channels, levels, table.mode, table.seed,
            grid.num_levels, num_outputs, networks.params, networks.halves,
            networks.density_layers, CHUNK, max_samples, max_optical_depth, begin, end,
        ),
        blocks(num_rays, RAY_BLOCK),
        num_threads,
    )  # fmt: skip
    return _in_order_of_rays(parts, grid.num_levels, channels, num_outputs, num_threads)


def _in_order_of_rays(
    parts: list[tuple], num_levels: int, channels: int, num_outputs: int, num_threads: int
) -> VisibleSamples:
    """What the kernel returned of each block of rays, in one."""
    empty = np.zeros(0, np.int64)
    counts, next_step = (
        torch.from_numpy(np.concatenate([empty, *(part[i] for part in parts)])) for i in (2, 3)
    )
    begins = counts.cumsum(0) - counts
    num_latents, total = num_levels * channels, int(counts.sum())
    first = visible_samples_kernels.FEATURES
    rows = np.empty((first + num_latents + num_outputs, total), np.float32)
    put: Any = visible_samples_kernels.arrange
    run(lambda part: put(*part[:2], begins.numpy(), rows), [(part,) for part in parts], num_threads)
    values = torch.from_numpy(rows)
    latents = values[first : first + num_latents].view(num_levels, channels, total)
    return VisibleSamples(
        t_starts=values[visible_samples_kernels.T_START],
        t_ends=values[visible_samples_kernels.T_END],
        positions=values[visible_samples_kernels.POSITION : first].t(),
        packed_info=torch.stack([begins, counts], 1),
        next_step=next_step,
        latents=latents.permute(2, 0, 1),
        density_outputs=values[first + num_latents :].t(),
        num_marched=sum(part[4] for part in parts),
    )
