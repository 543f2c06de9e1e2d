"""Rays through a whole field by a backend's single operations: the samples that light reaches, and
rendering for looking. Defaults of every backend, and what its own versions have to equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from shacira_nerfstudio.backends.field_operations import FieldOperations
from shacira_nerfstudio.backends.networks import density_of
from shacira_nerfstudio.backends.types import FieldArrays, MarchSettings, Rendering, VisibleSamples

FIRST_CHUNK = 16
"""Samples per ray that rendering looks at first; each further look takes twice as many. Most rays
end at the first surface."""


def begins_of_rays(
    packed_info: Int[Tensor, "R 2"], rays: Int[Tensor, " S"] | None, num_samples: int
) -> Int[Tensor, " S"]:
    """The first sample of each sample's ray."""
    if rays is None:
        return torch.repeat_interleave(*packed_info.unbind(1), output_size=num_samples)
    return packed_info[:, 0].index_select(0, rays)


def transmittance(
    sigmas: Float[Tensor, " S"],
    t_starts: Float[Tensor, " S"],
    t_ends: Float[Tensor, " S"],
    packed_info: Int[Tensor, "R 2"],
    rays: Int[Tensor, " S"] | None = None,
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Transmittance in front of each sample, and optical depth of each sample.

    Args:
        rays: The ray of each sample, where that is known or samples are padded.
    """
    depth = sigmas * (t_ends - t_starts)
    # A running sum over all rays in double, minus its value where the ray begins.
    total = torch.cat([depth.new_zeros(1), depth]).double().cumsum(0)
    begin = begins_of_rays(packed_info, rays, len(depth))
    return torch.exp(-(total[:-1] - total.index_select(0, begin))).to(sigmas.dtype), depth


def sample_weights(
    sigmas: Float[Tensor, " S"],
    t_starts: Float[Tensor, " S"],
    t_ends: Float[Tensor, " S"],
    packed_info: Int[Tensor, "R 2"],
    rays: Int[Tensor, " S"] | None = None,
) -> Float[Tensor, " S"]:
    """What each sample weighs in the colour of its ray: transmittance in front of it times its own
    opacity. ``rays`` as in :func:`transmittance`."""
    in_front, depth = transmittance(sigmas, t_starts, t_ends, packed_info, rays)
    return in_front * -torch.expm1(-depth)


def num_visible(
    sigmas: Float[Tensor, " S"],
    t_starts: Float[Tensor, " S"],
    t_ends: Float[Tensor, " S"],
    packed_info: Int[Tensor, "R 2"],
    *,
    early_stop: float,
) -> Int[Tensor, " R"]:
    """How many samples of each ray light reaches: those before which transmittance is at least
    ``early_stop``. They are the first ones of the ray."""
    counts = packed_info[:, 1]
    lit = transmittance(sigmas, t_starts, t_ends, packed_info)[0] >= early_stop
    rays = torch.repeat_interleave(counts, output_size=len(sigmas))
    return torch.zeros_like(counts).index_add(0, rays, lit.long())


def keep_first(
    packed_info: Int[Tensor, "R 2"], counts: Int[Tensor, " R"], tensors: Sequence[Tensor]
) -> tuple[Int[Tensor, "R 2"], list[Tensor]]:
    """Keeps the first ``counts`` samples of each ray.

    Args:
        tensors: One row per sample each, [S, ...].

    Returns:
        Packed info of what is kept, and what is kept of each tensor.
    """
    num_samples = len(tensors[0])
    rank = torch.arange(num_samples, device=counts.device)
    rank = rank - torch.repeat_interleave(*packed_info.unbind(1), output_size=num_samples)
    limit = torch.repeat_interleave(counts, packed_info[:, 1], output_size=num_samples)
    index = (rank < limit).nonzero()[:, 0]
    info = torch.stack([counts.cumsum(0) - counts, counts], 1)
    return info, [tensor[index] for tensor in tensors]


def _look_up(
    operations: FieldOperations, positions: Tensor, field: FieldArrays
) -> tuple[Tensor, Tensor]:
    """Latents and outputs of the density network at positions in the unit cube."""
    latents = operations.interpolate(positions, field.table, field.grid, quantizer=field.quantizer)
    levels = torch.arange(field.grid.num_levels, device=positions.device)
    latents = latents * (levels < field.num_levels_read)[:, None]
    return latents, operations.density_outputs(latents, field.weights)


@torch.no_grad()
def march_visible(
    operations: FieldOperations,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Bool[Tensor, "G G G"],
    settings: MarchSettings,
    field: FieldArrays,
    *,
    early_stop: float,
    jitter: Float[Tensor, " R"] | None = None,
    max_samples: int = 0,
    limits: Float[Tensor, "R 2"] | None = None,
    log2_strides: UInt8[Tensor, "G G G"] | None = None,
) -> VisibleSamples:
    """See :meth:`Backend.march_visible`. All samples are looked at; a ray may be ended by
    ``max_samples`` behind an opaque surface."""
    samples = operations.march(
        origins,
        directions,
        occupancy,
        settings,
        jitter=jitter,
        max_samples=max_samples,
        limits=limits,
        log2_strides=log2_strides,
    )
    latents, outputs = _look_up(operations, samples.positions, field)
    spans = (samples.t_starts, samples.t_ends, samples.packed_info)
    counts = num_visible(density_of(outputs), *spans, early_stop=early_stop)
    everything = (samples.t_starts, samples.t_ends, samples.positions, latents, outputs)
    info, kept = keep_first(samples.packed_info, counts, everything)
    t_starts, t_ends, positions, latents, outputs = kept
    return VisibleSamples(
        t_starts=t_starts,
        t_ends=t_ends,
        positions=positions,
        packed_info=info,
        next_step=samples.next_step,
        latents=latents,
        density_outputs=outputs,
        num_marched=len(samples.t_starts),
    )


@torch.no_grad()
def render(
    operations: FieldOperations,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Bool[Tensor, "G G G"],
    settings: MarchSettings,
    field: FieldArrays,
    ray_features: Float[Tensor, "R A"],
    *,
    early_stop: float,
    limits: Float[Tensor, "R 2"] | None = None,
) -> Rendering:
    """See :meth:`Backend.render`. All rays take a few samples each, until all are opaque or at
    their end; every sample gets its own colour, whatever it weighs."""
    color, last = torch.zeros(len(origins), 3).to(origins), torch.zeros(len(origins), 3).to(origins)
    distance, transmitted = torch.zeros_like(origins[:, 0]), torch.ones_like(origins[:, 0])
    active = torch.arange(len(origins), device=origins.device)
    step = torch.zeros_like(active)
    total, chunk = 0, FIRST_CHUNK
    while len(active):
        samples = operations.march(
            origins[active],
            directions[active],
            occupancy,
            settings,
            first_step=step,
            max_samples=chunk,
            limits=None if limits is None else limits[active],
        )
        latents, outputs = _look_up(operations, samples.positions, field)
        sigmas, rgbs = operations.shade(
            latents, outputs, ray_features[active], samples.ray_indices, field.weights
        )
        spans = (samples.t_starts, samples.t_ends, samples.packed_info)
        part_color, part_acc, part_distance = operations.composite(sigmas, rgbs, *spans)
        in_front = transmitted[active]
        color[active] += in_front[:, None] * part_color
        distance[active] += in_front * part_distance
        transmitted[active] = in_front * (1 - part_acc).clamp_min(0)
        reached = samples.packed_info[:, 1] > 0
        last[active[reached]] = rgbs[samples.packed_info[reached].sum(1) - 1]
        total += len(sigmas)
        goes_on = (samples.next_step >= 0) & (transmitted[active] >= early_stop)
        active, step, chunk = active[goes_on], samples.next_step[goes_on], chunk * 2
    return Rendering(color, transmitted, distance, last, total)
