"""One picture of a scene: colours, depths and opacities, and how they look on a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from shacira_nerfstudio.compression.probe import evenly_spaced
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.viewer.camera_paths import Camera, CropBox, PinholeCamera

Output = Literal["rgb", "depth", "accumulation"]
_BAND_RAYS = 1 << 20
"""Rays of a picture that are in memory at a time."""
_NEAR_TO_FAR = np.array(
    [[252, 236, 150], [240, 134, 70], [184, 54, 121], [78, 42, 140], [14, 14, 70]], np.float64
)
"""Colours of depths, evenly spaced; brightness falls with distance, so that it prints in grey."""
_PREVIEW_SIDE, _PREVIEWS, _SOLID = 48, 16, 0.5


@dataclass(frozen=True, eq=False)
class Frame:
    """What the rays of a picture met; on the CPU."""

    color: Float[Tensor, "H W 3"]
    """On the scene's background, or a crop box's own; from 0 to 1."""
    depth: Float[Tensor, "H W"]
    """Expected distance along the ray, world units; where the ray ends if it met nothing."""
    accumulation: Float[Tensor, "H W"]
    """Opacity, from 0 to 1."""


@torch.no_grad()
def render_frame(scene: RadianceScene, camera: Camera, crop: CropBox | None = None) -> Frame:
    """Renders one picture; its colours are those of :meth:`RadianceScene.render_view`.

    Args:
        crop: Shows what lies within it only, on its own background.
    """
    height, width = camera.height, camera.width
    color, rest, at = torch.empty(height * width, 3), torch.empty(height * width, 2), 0
    chunk = scene.rays_at_a_time
    num_rows = max(1, _BAND_RAYS // width)  # rays of a whole picture would fill memory
    for begin in range(0, height, num_rows):
        rays = camera.rays(begin, begin + num_rows)
        for part in zip(*(r.to(scene.device).split(chunk) for r in rays), strict=True):
            limits = None if crop is None else crop.limits(*part)
            rendered = scene.render_rays(*part, limits=limits)
            if crop is None:
                seen = scene.settings.background.behind(rendered)
            else:
                behind = rendered.color.new_tensor(crop.background)
                seen = rendered.color + (1 - rendered.accumulation)[:, None] * behind
            end = at + len(part[0])
            color[at:end] = seen.clamp(0, 1)
            rest[at:end] = torch.stack([rendered.depth, rendered.accumulation], 1)
            at = end
    depth, accumulation = rest.view(height, width, 2).unbind(-1)
    return Frame(color.view(height, width, 3), depth, accumulation)


def typical_depth(scene: RadianceScene, camera: PinholeCamera) -> float:
    """How far away is what a camera sees, in the median of the middle of its picture; the centre of
    the box if it sees nothing."""
    frame = render_frame(scene, _preview(camera))
    height, width = frame.depth.shape
    middle = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    depth = frame.depth[middle][frame.accumulation[middle] > _SOLID]
    if len(depth):
        return float(depth.median())
    center = np.array(scene.settings.render_march.box).mean(0)
    return float(max(np.linalg.norm(center - camera.camera_to_world[:, 3]), 1e-3))


def depth_range(
    scene: RadianceScene, cameras: Sequence[Camera], crop: CropBox | None = None
) -> tuple[float, float]:
    """Depths between which nearly all of what a few of the cameras see lies: one range for all
    pictures, so that a video does not flicker."""
    depths = []
    for index in evenly_spaced(len(cameras), _PREVIEWS):
        frame = render_frame(scene, _preview(cameras[index]), crop)
        depths.append(frame.depth[frame.accumulation > _SOLID])
    seen = torch.cat(depths)
    if not len(seen):
        return 0.0, 1.0
    near, far = seen.quantile(seen.new_tensor([0.01, 0.99])).tolist()
    return near, max(far, near * (1 + 1e-3) + 1e-6)


def picture(
    frame: Frame, output: Output, depths: tuple[float, float] = (0.0, 1.0)
) -> UInt8[np.ndarray, "H W 3"]:
    """An output as colours of 8 bits.

    Args:
        output: ``rgb``; ``depth``, bright where near and black where there is nothing;
            ``accumulation``, white where opaque.
        depths: The nearest and the farthest colour.
    """
    if output == "rgb":
        values = frame.color.numpy()
    elif output == "accumulation":
        values = frame.accumulation.numpy()[:, :, None].repeat(3, 2)
    else:
        near, far = depths
        # Even in 1 / depth, as what is twice as far is half as large: of a place the far is far.
        near, depth = max(near, 1e-6), frame.depth.numpy().clip(1e-6)
        place = ((1 / near - 1 / depth) / (1 / near - 1 / max(far, near * 1.001))).clip(0, 1)
        place *= len(_NEAR_TO_FAR) - 1
        knots = np.arange(len(_NEAR_TO_FAR))
        colors = np.stack([np.interp(place, knots, part) for part in _NEAR_TO_FAR.T], -1) / 255
        values = colors * frame.accumulation.numpy()[:, :, None]
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _preview(camera: Camera) -> Camera:
    if max(camera.width, camera.height) <= _PREVIEW_SIDE:
        return camera
    is_wide = camera.width >= camera.height
    return camera.resized(**{"width" if is_wide else "height": _PREVIEW_SIDE})
