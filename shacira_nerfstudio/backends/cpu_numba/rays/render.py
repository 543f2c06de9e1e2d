"""Torch around the kernel that renders for looking."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.networks.shade import PackedNetworks
from shacira_nerfstudio.backends.cpu_numba.rays import fused_render_kernels
from shacira_nerfstudio.backends.cpu_numba.rays.march import RAY_BLOCK, Rays
from shacira_nerfstudio.backends.cpu_numba.table.interpolate import TableRows
from shacira_nerfstudio.backends.cpu_numba.threads import even_blocks, run
from shacira_nerfstudio.backends.types import NetworkWeights, Rendering

FIRST_CHUNK = 4
"""Samples per ray of the first batch; later ones double it. Most rays end at the first surface."""


def without_columns(weights: NetworkWeights, kept: Tensor) -> NetworkWeights:
    """The networks with a density network that has the inputs ``kept`` alone."""
    (weight, bias), *others = weights.density
    return NetworkWeights(((weight[:, kept], bias), *others), weights.color)


def render(
    rays: Rays,
    ray_features: Tensor,
    space: tuple[Any, ...],
    table: TableRows,
    levels: np.ndarray,
    weights: NetworkWeights,
    *,
    early_stop: float,
    min_weight: float,
    num_threads: int,
) -> Rendering:
    """See :meth:`Backend.render`.

    Args:
        space: From :meth:`EmptySpace.arguments`.
        levels: Indices of those that are read.
    """
    num_rays, channels = len(rays[0]), table.rows.shape[1]
    inputs = (levels[:, None] * channels + np.arange(channels)).ravel()
    networks = PackedNetworks(without_columns(weights, torch.from_numpy(inputs)))
    color, last = np.zeros((num_rays, 3), np.float32), np.zeros((num_rays, 3), np.float32)
    transmittance, distance = np.ones(num_rays, np.float32), np.zeros(num_rays, np.float32)
    features, level_table = as_array(ray_features), table.level_table(levels)
    kernel: Any = fused_render_kernels.render
    counts = run(
        lambda begin, end: kernel(
            *rays, features, *space, table.rows.ravel(), channels, level_table, table.mode,
            table.seed, networks.num_density_outputs, networks.params, networks.density_layers,
            networks.color_layers, FIRST_CHUNK, early_stop, min_weight, color, transmittance,
            distance, last, begin, end,
        ),
        even_blocks(num_rays, RAY_BLOCK, num_threads),
        num_threads,
    )  # fmt: skip
    return Rendering(
        color=torch.from_numpy(color),
        transmittance=torch.from_numpy(transmittance),
        distance=torch.from_numpy(distance),
        last_color=torch.from_numpy(last),
        num_samples=sum(counts),
    )
