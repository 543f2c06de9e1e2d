"""Points on the surfaces of a scene, from the depths of pictures of it.

Each pixel that met something is a point: where the ray's expected depth lies, in the colour of what
it met, with the normal of the surface through it and its neighbours. Expected depths between two
surfaces, at the edges of things, are points of neither; those are told by their neighbours, and by
the scene's own cells, which are empty there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from shacira_nerfstudio.backends.geometry import contract
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.progress import Progress
from shacira_nerfstudio.viewer.camera_paths import Camera
from shacira_nerfstudio.viewer.frames import render_frame
from shacira_nerfstudio.viewer.ply import PointCloud, joined

MAX_POINTS = 100_000_000
_PREVIEW_PIXELS = 2500
_SPARE, _ATTEMPTS = 1.25, 4
"""More points than are asked for, since a preview only tells about how many there will be."""
_STEEPEST = 8.0
"""Depth to the nearer neighbour, in widths of a pixel at that depth, beyond which a point hangs
between two surfaces: a surface would be seen at less than 7 degrees."""
_SMOOTH = 3
"""Width in pixels of the window in which normals of the same surface are averaged: depths of
neighbours differ by noise, too."""


def sample_points(
    scene: RadianceScene,
    cameras: Sequence[Camera],
    num_points: int,
    *,
    min_accumulation: float = 0.5,
    remove_outliers: bool = True,
    reach: float = 0.0,
    seed: int = 0,
) -> PointCloud:
    """So many points of what cameras see, drawn evenly from their pictures; fewer if they see less.

    Args:
        min_accumulation: Opacity that a ray must reach for its point to count.
        remove_outliers: Leave out points between surfaces.
        reach: Leave out points farther from the middle of the scene's box than so many halves of
            its longest side; 0 leaves out none.

    Raises:
        ValueError: no camera sees anything.
    """
    if not 1 <= num_points <= MAX_POINTS:
        raise ValueError(f"expected 1 to {MAX_POINTS:,} points, got {num_points:,}")
    if not 0 < min_accumulation <= 1:
        raise ValueError(f"expected a least accumulation in (0, 1], got {min_accumulation:.6g}")

    def points_of(num_pixels: float, stage: str) -> PointCloud:
        clouds = []
        with Progress(stage, len(cameras), unit="pictures") as progress:
            for camera in cameras:
                cloud = _camera_points(
                    scene, _of_pixels(camera, num_pixels), min_accumulation, remove_outliers
                )
                clouds.append(cloud if not reach else cloud.chosen(_within(scene, cloud, reach)))
                progress.advance()
        return joined(clouds)

    num_pixels = float(_PREVIEW_PIXELS)
    found = points_of(num_pixels, "looking")
    for _ in range(_ATTEMPTS):
        if not len(found):
            raise ValueError(
                "expected cameras that see something, found only rays of an accumulation below "
                f"{min_accumulation:.6g}"
            )
        if len(found) >= num_points:
            break
        num_pixels *= _SPARE * num_points / len(found)
        found = points_of(num_pixels, "sampling points")
    order = np.random.default_rng(seed).permutation(len(found))
    return found.chosen(order[:num_points])


def _of_pixels(camera: Camera, num_pixels: float) -> Camera:
    """The same view in about so many pixels."""
    scale = math.sqrt(num_pixels / (camera.width * camera.height))
    return camera.resized(
        width=max(1, math.ceil(camera.width * scale)),
        height=max(1, math.ceil(camera.height * scale)),
    )


def _camera_points(
    scene: RadianceScene, camera: Camera, min_accumulation: float, remove_outliers: bool
) -> PointCloud:
    frame = render_frame(scene, camera, is_cut_out=True)
    origins, directions = (part.view(camera.height, camera.width, 3) for part in camera.rays())
    positions = origins + directions * frame.depth[:, :, None]
    is_point = frame.accumulation >= min_accumulation
    normals, steepness = surface_normals(positions, directions, is_point)
    if remove_outliers:
        pixel = frame.depth * math.sqrt(_pixel_angle(directions))
        is_point = is_point & (steepness <= _STEEPEST * pixel)
    keep = is_point.nonzero(as_tuple=True)
    if remove_outliers and len(keep[0]):
        is_inside = _in_occupied_cells(scene, positions[keep])
        keep = tuple(index[is_inside] for index in keep)
    colors = (frame.color[keep].numpy() * 255 + 0.5).astype(np.uint8)
    return PointCloud(positions[keep].numpy(), normals[keep].numpy(), colors)


def _pixel_angle(directions: Float[Tensor, "H W 3"]) -> float:
    """Solid angle of a pixel in the middle of a picture, in steradians; of one pixel, nothing."""
    height, width, _ = directions.shape
    row, column = height // 2, width // 2
    if height < 2 or width < 2:
        return 0.0
    middle = directions[row, column]
    across, down = directions[row, column - 1] - middle, directions[row - 1, column] - middle
    return float(torch.linalg.cross(across, down).norm())


def surface_normals(
    positions: Float[Tensor, "H W 3"],
    directions: Float[Tensor, "H W 3"],
    is_point: Bool[Tensor, "H W"],
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
    """Normals of the surface that pixels show, towards the camera, and how far in depth each is
    from its neighbours on that surface.

    Along each axis of the picture the tangent is the difference to the neighbour that is nearer in
    depth. A point without neighbours has the direction to the camera as normal and an infinite
    distance.
    """
    tangents, gaps = zip(
        *(_tangent(positions, directions, is_point, axis) for axis in (0, 1)), strict=True
    )
    normals = F.normalize(torch.linalg.cross(tangents[1], tangents[0]), dim=-1)
    faces_away = (normals * directions).sum(-1, keepdim=True) > 0
    normals = torch.where(faces_away, -normals, normals)
    gap = torch.maximum(*gaps)
    is_alone = ~torch.isfinite(gap) | (normals.norm(dim=-1) < 0.5)
    normals = torch.where(is_alone[:, :, None], -directions, normals)
    return _smoothed(normals, is_point & ~is_alone), gap


def _tangent(
    positions: Float[Tensor, "H W 3"],
    directions: Float[Tensor, "H W 3"],
    is_point: Bool[Tensor, "H W"],
    axis: int,
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
    """Along one axis of a picture: the difference to the nearer neighbour, and how much of it is
    depth; infinite without neighbours."""
    best = torch.zeros_like(positions)
    gap = torch.full(positions.shape[:2], math.inf)
    size = positions.shape[axis]
    for step in (1, -1):
        here = torch.arange(size - 1) + (step < 0)
        there = here + step
        difference = positions.index_select(axis, there) - positions.index_select(axis, here)
        depth = (difference * directions.index_select(axis, here)).sum(-1).abs()
        both = is_point.index_select(axis, there) & is_point.index_select(axis, here)
        depth = torch.where(both, depth, math.inf)
        at = (here, slice(None)) if axis == 0 else (slice(None), here)
        is_nearer = depth < gap[at]
        best[at] = torch.where(is_nearer[:, :, None], difference * step, best[at])
        gap[at] = torch.where(is_nearer, depth, gap[at])
    return best, gap


def _smoothed(
    normals: Float[Tensor, "H W 3"], counts: Bool[Tensor, "H W"]
) -> Float[Tensor, "H W 3"]:
    """Averaged over neighbours that look about the same way: edges stay."""
    weights = counts[:, :, None].to(normals)
    padded, allowed = (
        F.pad(part.permute(2, 0, 1), (_SMOOTH // 2,) * 4).permute(1, 2, 0)
        for part in (normals * weights, weights)
    )
    total = normals.clone()
    height, width, _ = normals.shape
    for row in range(_SMOOTH):
        for column in range(_SMOOTH):
            other = padded[row : row + height, column : column + width]
            mask = allowed[row : row + height, column : column + width]
            likeness = (other * normals).sum(-1, keepdim=True).clamp_min(0)
            total += other * mask * likeness**2
    return F.normalize(total, dim=-1)


def _in_occupied_cells(scene: RadianceScene, positions: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    """Whether the scene has something in a point's cell or one beside it."""
    cells = scene.occupancy.occupied.cpu()
    grown = F.max_pool3d(cells[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    x = contract(positions, scene.settings.render_march)
    size = torch.tensor(cells.shape)
    index = (x * size).long().clamp(torch.zeros(3, dtype=torch.long), size - 1)
    return grown[tuple(index.T)]


def _within(scene: RadianceScene, cloud: PointCloud, reach: float) -> Bool[np.ndarray, " N"]:
    low, high = (np.array(corner) for corner in scene.settings.render_march.box)
    half = float((high - low).max()) / 2
    return (np.abs(cloud.positions - (low + high) / 2) <= reach * half).all(axis=1)
