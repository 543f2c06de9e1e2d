"""Views of a field from pinhole cameras, for those who have no host to make rays.

Cameras as in a file: x right, y up, looking along -z; pixel centres at half integers.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.model.radiance_field import RadianceField
from shacira_nerfstudio.model.volrend import MIN_WEIGHT, blend_background, render_rays

_NAMED = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def background_fill(background: str, color: tuple[float, float, float]) -> Tensor | str:
    """What :func:`blend_background` takes for a file's background: a colour [3], or
    ``last_sample``."""
    return (
        background if background == "last_sample" else torch.tensor(_NAMED.get(background, color))
    )


def pinhole_rays(
    camera_to_world: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[Float[Tensor, "HW 3"], Float[Tensor, "HW 3"]]:
    """Origins and unit directions of a camera's pixels, row after row.

    Args:
        camera_to_world: [3, 4].
        intrinsics: fx, fy, cx, cy in pixels.
        size: Width and height in pixels.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"expected a width and height of at least 1 pixel, got {size}")
    pose = torch.as_tensor(np.asarray(camera_to_world, np.float32))
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    local = torch.stack([(u - cx) / fx, (cy - v) / fy, -torch.ones_like(u)], -1).view(-1, 3)
    directions = F.normalize(local @ pose[:, :3].T, dim=-1)
    return pose[:, 3].expand_as(directions).contiguous(), directions


@torch.no_grad()
def render_view(
    field: RadianceField,
    occupancy: Tensor,
    settings: MarchSettings,
    camera_to_world: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    *,
    background: Tensor | str,
    early_stop: float = 1e-4,
    chunk: int = 1 << 15,
) -> Float[Tensor, "H W 3"]:
    """The image that a camera sees, in [0, 1].

    Args:
        background: See :func:`background_fill`.
        chunk: Rays rendered at a time; smaller takes less memory.
    """
    rays = [part.to(occupancy.device) for part in pinhole_rays(camera_to_world, intrinsics, size)]
    fill = background if isinstance(background, str) else background.to(occupancy.device)
    parts = []
    for origins, directions in zip(*(part.split(chunk) for part in rays), strict=True):
        rendered = render_rays(
            field,
            occupancy,
            settings,
            origins,
            directions,
            early_stop=early_stop,
            min_weight=MIN_WEIGHT,
        )
        parts.append(blend_background(rendered, fill).clamp(0, 1))
    return torch.cat(parts).view(size[1], size[0], 3).cpu()
