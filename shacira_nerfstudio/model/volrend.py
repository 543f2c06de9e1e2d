"""Rendering of rays: march, look up, composite. One way to train, one to look, both with every
backend.

Notation as in :mod:`shacira_nerfstudio.backends.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.composed import begins_of_rays, sample_weights
from shacira_nerfstudio.backends.geometry import ray_bounds, spacing
from shacira_nerfstudio.model.radiance_field import RadianceField

MIN_WEIGHT = 1 / 1024
"""Weight from which a sample gets its own colour where pictures are for looking, see
:meth:`Backend.render`."""
MAX_EMPTY_DEPTH = 1e3
_OPAQUE_ENOUGH = 1e-3


@dataclass(frozen=True)
class RenderedRays:
    """What comes out of a bundle of rays."""

    color: Float[Tensor, "R 3"]
    """Without background."""
    accumulation: Float[Tensor, " R"]
    depth: Float[Tensor, " R"]
    """Expected distance along the ray, world units; where the ray ends if it met nothing."""
    last_color: Float[Tensor, "R 3"]
    """Colour of the last sample of each ray, black if it has none; of one of the last where the ray
    became opaque."""
    num_samples: int | Tensor
    """Samples that the density network saw; when training, the colour network as well. On the
    device, int64 [], where the host does not know the number; the next one likewise."""
    num_marched: int | Tensor
    """Samples that were looked at, visible or not."""
    distortion: Float[Tensor, ""] | None = None
    """See :func:`distortion`; only where it was asked for."""


def blend_background(
    rendered: RenderedRays, background: Float[Tensor, " 3"] | str
) -> Float[Tensor, "R 3"]:
    """Puts a background behind the rays: a colour, [3] or one per ray, or ``last_sample``."""
    behind = rendered.last_color if isinstance(background, str) else background
    return rendered.color + (1 - rendered.accumulation)[:, None] * behind


def _last_color(rgbs: Tensor, packed_info: Tensor) -> Tensor:
    index = packed_info.sum(1) - 1
    if not len(rgbs):
        return rgbs.new_zeros(len(packed_info), 3)
    return torch.where((packed_info[:, 1] > 0)[:, None], rgbs[index.clamp_min(0)], 0.0)


def _depth(distance: Tensor, accumulation: Tensor, t_end: Tensor) -> Tensor:
    empty = t_end.clamp(0, MAX_EMPTY_DEPTH).to(distance.dtype)
    expected = distance / accumulation.clamp_min(1e-10)
    return torch.where(accumulation > _OPAQUE_ENOUGH, expected, empty)


def distortion(
    weights: Float[Tensor, " S"],
    t_starts: Float[Tensor, " S"],
    t_ends: Float[Tensor, " S"],
    packed_info: Int[Tensor, "R 2"],
    settings: MarchSettings,
    rays: Int[Tensor, " S"] | None = None,
) -> Float[Tensor, ""]:
    """How far the weights of a ray lie apart, mean over rays: what fog has and a surface has not.

    ``sum_ij w_i w_j |s_i - s_j| + 1/3 sum_i w_i^2 d_i`` with middles s and lengths d of samples as
    shares of the way to the far plane, measured in march steps (Barron et al., "Mip-NeRF 360", CVPR
    2022, Eq. 15). Differentiable in ``weights``.

    Args:
        rays: The ray of each sample, where that is known or samples are padded.
    """
    near, far = settings.spacing_of(settings.near), settings.spacing_of(settings.far)
    starts, ends = spacing(t_starts, settings.knee), spacing(t_ends, settings.knee)
    middles, lengths = ((starts + ends) / 2 - near) / (far - near), (ends - starts) / (far - near)
    ray_begins = begins_of_rays(packed_info, rays, len(weights))

    def in_front(values: Tensor) -> Tensor:
        total = torch.cat([values.new_zeros(1), values]).double().cumsum(0)
        return (total[:-1] - total.index_select(0, ray_begins)).to(values.dtype)

    # Middles are sorted, so |s_i - s_j| is s_i - s_j for all j in front of i.
    pairs = 2 * weights * (middles * in_front(weights) - in_front(weights * middles))
    return (pairs + weights.square() * lengths / 3).sum() / max(len(packed_info), 1)


def render_train(
    field: RadianceField,
    occupancy: Tensor,
    settings: MarchSettings,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    *,
    early_stop: float = 1e-4,
    max_samples: int = 0,
    appearance: Float[Tensor, "R A"] | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
    limits: Float[Tensor, "R 2"] | None = None,
    log2_strides: UInt8[Tensor, "G G G"] | None = None,
    with_distortion: bool = False,
) -> tuple[RenderedRays, Float[Tensor, " R"]]:
    """Renders rays with gradients.

    Samples behind an opaque surface are found with a pass that keeps no graph, and dropped: both
    networks and all gradients see only samples that light reaches (transmittance of at least
    ``early_stop``).

    Args:
        appearance: A code per ray, if the field was made for one.
        observe: Is told where in the unit cube samples are, [S, 3], and what they weigh, [S].
        limits: Where each ray begins and ends at the most.
        log2_strides: See :meth:`FieldOperations.march`.

    Returns:
        The rays, and for each ray 1 if ``max_samples`` ended it early (its loss should not count),
        else 0.
    """
    backend = field.encoding.backend
    jitter = torch.rand(len(origins), device=origins.device)
    table = field.encoding.table()
    arrays = field.arrays(table)
    visible = backend.sample_training_rays(
        origins,
        directions,
        occupancy,
        settings,
        arrays,
        early_stop=early_stop,
        jitter=jitter,
        max_samples=max_samples,
        limits=limits,
        log2_strides=log2_strides,
    )
    t_starts, t_ends, positions = visible.t_starts, visible.t_ends, visible.positions
    info, rays = visible.packed_info, visible.ray_indices
    latents = field.encoding(positions, table, values=visible.latents)
    features = field.ray_features(directions, appearance)
    sigmas, rgbs = backend.shade(latents, visible.density_outputs, features, rays, arrays.weights)
    color, accumulation, distance = backend.composite(sigmas, rgbs, t_starts, t_ends, info)
    spread = None
    if with_distortion:
        weights = sample_weights(sigmas, t_starts, t_ends, info, rays)
        spread = distortion(weights, t_starts, t_ends, info, settings, rays)
    if observe is not None:
        observe(positions, sample_weights(sigmas.detach(), t_starts, t_ends, info, rays))
    _, t_end = ray_bounds(origins, directions, settings, limits)
    rendered = RenderedRays(
        color,
        accumulation,
        _depth(distance, accumulation, t_end),
        _last_color(rgbs, info),
        visible.num_visible,
        visible.num_marched,
        spread,
    )
    return rendered, (visible.next_step >= 0).float()


@torch.no_grad()
def render_rays(
    field: RadianceField,
    occupancy: Tensor,
    settings: MarchSettings,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    *,
    early_stop: float = 1e-4,
    min_weight: float = 0.0,
    appearance: Float[Tensor, " A"] | None = None,
    limits: Float[Tensor, "R 2"] | None = None,
) -> RenderedRays:
    """Renders rays for looking, see :meth:`Backend.render`.

    Args:
        appearance: One code for all rays.
        limits: Where each ray begins and ends at the most.
    """
    codes = None if appearance is None else appearance.expand(len(origins), -1)
    rendering = field.encoding.backend.render(
        origins,
        directions,
        occupancy,
        settings,
        field.arrays(),
        field.ray_features(directions, codes),
        early_stop=early_stop,
        min_weight=min_weight,
        limits=limits,
    )
    _, t_end = ray_bounds(origins, directions, settings, limits)
    accumulation = 1 - rendering.transmittance
    num_samples = rendering.num_samples
    return RenderedRays(
        rendering.color,
        accumulation,
        _depth(rendering.distance, accumulation, t_end),
        rendering.last_color,
        num_samples,
        num_samples,
    )
