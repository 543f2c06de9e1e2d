"""Rendering for looking, in waves.

All rays take a few samples each; those that neither became opaque nor came to their end take twice
as many in the next wave. The colour network sees samples that light reaches alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shacira_nerfstudio.backends.field_operations import FieldOperations
from shacira_nerfstudio.backends.triton.rays.march import March
from shacira_nerfstudio.backends.triton.rays.visible_samples import find_visible
from shacira_nerfstudio.backends.types import FieldArrays, MarchSettings, Rendering

FIRST_CHUNK = 16
"""Samples per ray of the first wave. Most rays end at the first surface."""


@torch.no_grad()
def render(
    operations: FieldOperations,
    origins: Tensor,
    directions: Tensor,
    occupancy: Tensor,
    settings: MarchSettings,
    field: FieldArrays,
    ray_features: Tensor,
    *,
    early_stop: float,
    limits: Tensor | None,
) -> Rendering:
    """See :meth:`Backend.render`; every sample gets its own colour, whatever it weighs."""
    # Colour, accumulation and distance of each ray; transmittance; colour of the last sample.
    sums = torch.zeros(len(origins), 5, device=origins.device)
    transmittance = torch.ones_like(sums[:, 0])
    last = torch.zeros_like(sums[:, :3])
    active, step = torch.arange(len(origins), device=origins.device), None
    total, chunk = 0, FIRST_CHUNK
    while len(active):
        rays = March(
            origins[active], directions[active], occupancy, settings,
            first_step=step, max_samples=chunk,
            limits=None if limits is None else limits[active],
        )  # fmt: skip
        found = find_visible(operations, rays, field, int(rays.total), early_stop=early_stop)
        indices = torch.repeat_interleave(
            active, found.packed_info[:, 1], output_size=len(found.t_starts)
        )
        sigmas, rgbs = operations.shade(
            found.latents, found.density_outputs, ray_features, indices, field.weights
        )
        spans = (found.t_starts, found.t_ends, found.packed_info)
        part = torch.column_stack(operations.composite(sigmas, rgbs, *spans))
        in_front = transmittance[active]
        sums[active] += in_front[:, None] * part
        in_front = in_front * (1 - part[:, 3]).clamp_min(0)
        transmittance[active] = in_front
        if len(rgbs):
            of_last = rgbs[(found.packed_info.sum(1) - 1).clamp_min(0)]
            has_any = found.packed_info[:, 1:] > 0
            last[active] = torch.where(has_any, of_last, last[active])
        total += int(found.num_marched)
        on = ((rays.next_step >= 0) & (in_front >= early_stop)).nonzero()[:, 0]
        active, step, chunk = active[on], rays.next_step[on], chunk * 2
    return Rendering(sums[:, :3], transmittance, sums[:, 4], last, total)
