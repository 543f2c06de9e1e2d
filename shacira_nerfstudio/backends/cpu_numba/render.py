"""Torch in, torch out, around the kernel that renders for looking."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import Rendering, Weights
from shacira_nerfstudio.backends.cpu_numba import fused_render_kernels as view_kernels
from shacira_nerfstudio.backends.cpu_numba.networks import PackedNetworks
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.grid import GridSpec

FIRST_ROUND = 4
"""Samples per ray of the first wave; later ones double it. Most rays end at the first surface."""
RAY_BLOCK = 1024
"""Rays per task: enough to fill waves when most of them have left."""


def read_levels(table: np.ndarray, grid: GridSpec, num_levels: int) -> np.ndarray:
    """Which levels hold anything: indices, int64. The finest levels of a file often do not; those
    of a float table always do."""
    if table.dtype == np.float32:
        return np.arange(num_levels)
    spans = list(itertools.pairwise(grid.offsets))[:num_levels]
    return np.array([i for i, span in enumerate(spans) if table[slice(*span)].any()], np.int64)


def without_columns(weights: Weights, kept: Tensor) -> Weights:
    """The networks with a density network that has the inputs ``kept`` alone."""
    name = "density_mlp.0.weight"
    return {**weights, name: weights[name][:, kept]}


def render(
    rays: tuple[np.ndarray, ...],
    ray_features: Tensor,
    march: tuple[Any, ...],
    table: np.ndarray,
    grid: GridSpec,
    levels: np.ndarray,
    how: tuple[int, np.uint32],
    weights: Weights,
    *,
    early_stop: float,
    min_weight: float,
    num_threads: int,
) -> Rendering:
    """See :meth:`Backend.render`.

    Args:
        rays: Origins, directions, lower bound in steps, upper bound and number of steps, as
            :func:`view_kernels.render` takes them.
        march: Occupancy and settings, likewise.
        levels: Indices of those that are read.
        how: What is made of rows that are read, and the seed of that.
    """
    num_rays, channels = len(rays[0]), table.shape[1]
    jitter = np.zeros(num_rays)
    inputs = (levels[:, None] * channels + np.arange(channels)).ravel()
    networks = PackedNetworks(without_columns(weights, torch.from_numpy(inputs)))
    described = np.array(
        [(grid.offsets[i], grid.table_sizes[i], grid.resolutions[i]) for i in levels], np.int64
    ).reshape(-1, 3)
    color, last = np.zeros((num_rays, 3), np.float32), np.zeros((num_rays, 3), np.float32)
    transmittance, distance = np.ones(num_rays, np.float32), np.zeros(num_rays, np.float32)
    features = ray_features.detach().float().contiguous().numpy()
    kernel: Any = view_kernels.render
    num_raw = len(weights["density_mlp.1.bias"])
    counts = run(
        lambda begin, end: kernel(
            *rays, jitter, features, *march, table.ravel(), channels, described, *how, num_raw,
            networks.params, networks.density_layers, networks.color_layers, FIRST_ROUND,
            early_stop, min_weight, color, transmittance, distance, last, begin, end,
        ),
        blocks(num_rays, RAY_BLOCK),
        num_threads,
    )  # fmt: skip
    return Rendering(
        color=torch.from_numpy(color),
        transmittance=torch.from_numpy(transmittance),
        distance=torch.from_numpy(distance),
        last_color=torch.from_numpy(last),
        num_samples=sum(counts),
    )
