"""Normals of the surfaces that rays meet, from the depths of rays beside them.

A field has no normals of its own here: no gradient flows to positions, and that of a density is
noisy. What a ray sees is where its expected depth lies; the surface there is spanned by what two
rays beside it see.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.model.scene import RadianceScene

MIN_ACCUMULATION = 0.5
"""Opacity from which a ray has met a surface."""


@torch.no_grad()
def surface_normals(
    scene: RadianceScene,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    depth: Float[Tensor, " R"],
    *,
    angle: float,
) -> tuple[Float[Tensor, "R 3"], Float[Tensor, " R"]]:
    """Unit normals towards where rays come from, and how steep the surface stands to them.

    Along each of two axes across the ray, the tangent is the difference to what the ray on one side
    or the other sees, whichever is nearer in depth: at an edge that is the one on the same surface.

    Args:
        directions: Of unit length.
        depth: Where rays met something, as :class:`RenderedRays` has it.
        angle: Between a ray and those beside it, in radians.

    Returns:
        Normals; where rays beside it see nothing, the direction back along the ray. And the larger
        tangent of the two axes' slopes, depth over width; infinite where there is nothing beside.
    """
    points = origins + directions * depth[:, None]
    tangents, slopes = [], []
    for axis in _across(directions):
        tangent = torch.zeros_like(points)
        gap = torch.full_like(depth, math.inf)
        for side in (angle, -angle):
            beside = F.normalize(directions + side * axis, dim=-1)
            seen = scene.render_rays(origins, beside)
            difference = origins + beside * seen.depth[:, None] - points
            found = (difference * directions).sum(-1).abs()
            found = torch.where(seen.accumulation >= MIN_ACCUMULATION, found, math.inf)
            is_nearer = found < gap
            tangent = torch.where(is_nearer[:, None], difference * math.copysign(1, side), tangent)
            gap = torch.where(is_nearer, found, gap)
        tangents.append(tangent)
        slopes.append(gap / (angle * depth).clamp_min(1e-12))
    normals = F.normalize(torch.linalg.cross(*tangents), dim=-1)
    normals = torch.where((normals * directions).sum(-1, keepdim=True) > 0, -normals, normals)
    slope = torch.maximum(*slopes)
    has_none = ~torch.isfinite(slope) | (normals.norm(dim=-1) < 0.5)
    return torch.where(has_none[:, None], -directions, normals), slope


def _across(directions: Float[Tensor, "R 3"]) -> tuple[Float[Tensor, "R 3"], Float[Tensor, "R 3"]]:
    """Two unit vectors at right angles to each direction and each other."""
    least = directions.abs().argmin(-1)
    first = torch.linalg.cross(directions, F.one_hot(least, 3).to(directions))
    first = F.normalize(first, dim=-1)
    return first, torch.linalg.cross(directions, first)
