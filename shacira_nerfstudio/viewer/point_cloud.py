"""Points on the surfaces of a scene, from the depths of rays of its cameras.

Each ray that met something is a point: where its expected depth lies, in the colour of what it met,
with the normal of the surface there. An expected depth between two surfaces, at the edges of
things, is a point of neither; those are told by how steep the surface would stand, and by the
scene's own cells, which are empty there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from shacira_nerfstudio.backends.geometry import contract
from shacira_nerfstudio.model.normals import surface_normals
from shacira_nerfstudio.model.scene import PinholeCamera, RadianceScene
from shacira_nerfstudio.progress import Progress
from shacira_nerfstudio.viewer.ply import PointCloud, joined

MAX_POINTS = 100_000_000
_BATCH_RAYS, _MAX_BARREN_RAYS = 1 << 16, 1 << 20
"""Rays looked at together, and how many in a row may meet next to nothing."""
_FEWEST = 1e-4
"""Share of rays that meet something, below which nothing is there to be seen."""
_STEEPEST = 8.0
"""Slope of a surface, depth over width, from which a point hangs between two: a surface would be
seen at less than 7 degrees."""
_NORMAL_PIXELS, _MAX_ANGLE = 1.5, 1 / 400
"""How far beside a ray those lie that tell the normal, in pixels of the cameras: near enough for
the surface to be flat, far enough for noise of depths to be small; and at the most, in radians."""


def sample_points(
    scene: RadianceScene,
    cameras: Sequence[PinholeCamera],
    num_points: int,
    *,
    min_accumulation: float = 0.5,
    remove_outliers: bool = True,
    reach: float = 0.0,
    seed: int = 0,
) -> PointCloud:
    """So many points of what cameras see, drawn evenly from their pictures.

    Args:
        min_accumulation: Opacity that a ray must reach for its point to count.
        remove_outliers: Leave out points between surfaces.
        reach: Leave out points farther from the middle of the scene's box than so many halves of
            its longest side; 0 leaves out none.

    Raises:
        ValueError: cameras see next to nothing of this kind.
    """
    if not 1 <= num_points <= MAX_POINTS:
        raise ValueError(f"expected 1 to {MAX_POINTS:,} points, got {num_points:,}")
    if not 0 < min_accumulation <= 1:
        raise ValueError(f"expected a least accumulation in (0, 1], got {min_accumulation:.6g}")
    if not reach >= 0:
        raise ValueError(f"expected a reach of 0 or more, got {reach:.6g}")
    random = np.random.default_rng(seed)
    angle = min(_NORMAL_PIXELS / float(np.median([c.fx for c in cameras])), _MAX_ANGLE)
    clouds: list[PointCloud] = []
    count, num_rays = 0, 0
    with Progress("sampling points", num_points, unit="points") as progress:
        while count < num_points:
            rays = random_rays(cameras, _BATCH_RAYS, random)
            cloud = _points_of(scene, *rays, min_accumulation, remove_outliers, angle)
            if reach:
                cloud = cloud.chosen(_within(scene, cloud, reach))
            cloud = cloud.chosen(np.arange(min(len(cloud), num_points - count)))
            clouds.append(cloud)
            count, num_rays = count + len(cloud), num_rays + _BATCH_RAYS
            progress.advance(len(cloud))
            if num_rays >= _MAX_BARREN_RAYS and count < _FEWEST * num_rays:
                raise ValueError(
                    f"expected cameras that see something, found {count} points of "
                    f"{num_rays:,} rays: a smaller --min-accumulation or a larger --reach lets "
                    "more of them count"
                )
    return joined(clouds)


def random_rays(
    cameras: Sequence[PinholeCamera], count: int, random: np.random.Generator
) -> tuple[Float[Tensor, "R 3"], Float[Tensor, "R 3"]]:
    """Origins and unit directions through random places of random cameras' pictures."""
    chosen = random.integers(len(cameras), size=count)
    poses = np.stack([camera.camera_to_world for camera in cameras])[chosen]
    optics = np.array([(c.fx, c.fy, c.cx, c.cy, c.width, c.height) for c in cameras])[chosen]
    fx, fy, cx, cy, width, height = optics.T
    u, v = random.random((2, count)) * (width, height)
    local = np.stack([(u - cx) / fx, (cy - v) / fy, np.full(count, -1.0)], axis=1)
    directions = (poses[:, :, :3] @ local[:, :, None])[:, :, 0]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.ascontiguousarray(poses[:, :, 3], np.float32)
    return torch.from_numpy(origins), torch.from_numpy(directions.astype(np.float32))


@torch.no_grad()
def _points_of(
    scene: RadianceScene,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    min_accumulation: float,
    remove_outliers: bool,
    angle: float,
) -> PointCloud:
    """Of the rays that met something."""
    origins, directions = origins.to(scene.device), directions.to(scene.device)
    rendered = scene.render_rays(origins, directions)
    positions = origins + directions * rendered.depth[:, None]
    keep = rendered.accumulation >= min_accumulation
    if remove_outliers:
        keep &= _in_occupied_cells(scene, positions)
    hits = keep.nonzero()[:, 0]
    rays = origins[hits], directions[hits]
    normals, slope = surface_normals(scene, *rays, rendered.depth[hits], angle=angle)
    if remove_outliers:
        is_surface = slope <= _STEEPEST
        hits, normals = hits[is_surface], normals[is_surface]
    # Of the thing alone, not of what is behind it.
    colors = rendered.color[hits] / rendered.accumulation[hits, None].clamp_min(1e-6)
    return PointCloud(
        positions[hits].cpu().numpy(),
        normals.cpu().numpy(),
        (colors.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy(),
        rendered.depth[hits].cpu().numpy(),
    )


def _in_occupied_cells(scene: RadianceScene, positions: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    """Whether the scene has something in a point's cell or one beside it."""
    cells = scene.occupancy.occupied
    grown = F.max_pool3d(cells[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    index = (contract(positions, scene.settings.render_march) * len(cells)).long()
    return grown[tuple(index.clamp(0, len(cells) - 1).T)]


def _within(scene: RadianceScene, cloud: PointCloud, reach: float) -> Bool[np.ndarray, " N"]:
    low, high = (np.array(corner) for corner in scene.settings.render_march.box)
    half = float((high - low).max()) / 2
    return (np.abs(cloud.positions - (low + high) / 2) <= reach * half).all(axis=1)
