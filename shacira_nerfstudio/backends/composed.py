"""Rendering for looking by a backend's single operations, for backends without a kernel of their
own for it."""

from __future__ import annotations

import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import Backend, MarchSettings, Rendering, Weights
from shacira_nerfstudio.backends.sparse_rows import PLAIN, Quantizer
from shacira_nerfstudio.grid import GridSpec

FIRST_ROUND = 16
"""Samples per ray of the first round; later rounds double it. Most rays end at the first
surface."""


@torch.no_grad()
def render_in_rounds(
    backend: Backend,
    origins: Tensor,
    directions: Tensor,
    occupancy: Tensor,
    settings: MarchSettings,
    table: Tensor,
    grid: GridSpec,
    weights: Weights,
    ray_features: Tensor,
    *,
    quantizer: Quantizer = PLAIN,
    num_levels: int,
    early_stop: float,
    min_weight: float,
) -> Rendering:
    """See :meth:`Backend.render`, which this is for a class of backends. All rays take a few
    samples each, until all are opaque or at their end; every sample gets its colour, whatever it
    weighs."""
    del min_weight
    color, last = torch.zeros(len(origins), 3).to(origins), torch.zeros(len(origins), 3).to(origins)
    distance, transmittance = torch.zeros_like(origins[:, 0]), torch.ones_like(origins[:, 0])
    active = torch.arange(len(origins), device=origins.device)
    step = torch.zeros_like(active)
    is_read = torch.arange(grid.num_levels, device=origins.device) < num_levels
    total, limit = 0, FIRST_ROUND
    while len(active):
        samples = backend.march(
            origins[active],
            directions[active],
            occupancy,
            settings,
            first_step=step,
            max_samples=limit,
        )
        latents = backend.interpolate(samples.positions, table, grid, quantizer=quantizer)
        latents = latents * is_read[:, None]
        raw = backend.raw_density(latents, weights)
        sigmas, rgbs = backend.shade(
            latents, raw, ray_features[active], samples.ray_indices, weights
        )
        spans = (samples.t_starts, samples.t_ends, samples.packed_info)
        part_color, part_acc, part_distance = backend.composite(sigmas, rgbs, *spans)
        in_front = transmittance[active]
        color[active] += in_front[:, None] * part_color
        distance[active] += in_front * part_distance
        transmittance[active] = in_front * (1 - part_acc).clamp_min(0)
        reached = samples.packed_info[:, 1] > 0
        last[active[reached]] = rgbs[samples.packed_info[reached].sum(1) - 1]
        total += len(sigmas)
        go_on = (samples.next_step >= 0) & (transmittance[active] >= early_stop)
        active, step, limit = active[go_on], samples.next_step[go_on], limit * 2
    return Rendering(color, transmittance, distance, last, total)
