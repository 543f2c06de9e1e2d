"""Where to look from: a tour around what the stored cameras look at, and how they stand.

Cameras have x right, y up and look along -z. ``poses`` are camera to world, [N, 3, 4].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.compression.probe import evenly_spaced
from shacira_nerfstudio.model.scene import MAX_PIXELS, MAX_SIDE, PinholeCamera

Array = np.ndarray
SPIRAL_TURNS = 2
_LARGEST_SPIRAL = 0.2
"""Radius of a spiral, as a share of the distance to what it looks at: cameras that stand around an
object are spread much wider than a view can be moved without losing sight of it."""
_LEAST_SPREAD = 0.1
"""How far the right sides of cameras must turn, as a share of all their turning, to tell which way
is up; and how far axes must differ in direction to meet somewhere."""
_NARROW = 0.02


@dataclass(frozen=True, eq=False)
class PanoramaCamera:
    """All that is around a point, equirectangular: the middle of the picture looks along -z, the
    top along y, as Nerfstudio has it."""

    camera_to_world: Float[Array, "3 4"]
    width: int
    height: int

    def __post_init__(self) -> None:
        PinholeCamera(self.camera_to_world, 1.0, 1.0, 0.0, 0.0, self.width, self.height)  # checks
        pose = np.asarray(self.camera_to_world, np.float32)
        object.__setattr__(self, "camera_to_world", pose)

    def resized(self, *, width: int | None = None, height: int | None = None) -> PanoramaCamera:
        """The same view in another number of pixels; one given side keeps the shape."""
        if width is None and height is not None:
            width = max(1, round(self.width * (height / self.height)))
        if height is None and width is not None:
            height = max(1, round(self.height * (width / self.width)))
        return (
            self if width is None or height is None else replace(self, width=width, height=height)
        )

    def rays(
        self, begin: int = 0, end: int | None = None
    ) -> tuple[Float[Tensor, "HW 3"], Float[Tensor, "HW 3"]]:
        """Origins and unit directions of the pixels of rows begin:end, row after row."""
        pose = torch.from_numpy(self.camera_to_world)
        end = self.height if end is None else min(end, self.height)
        polar = (torch.arange(begin, end) + 0.5) * (math.pi / self.height)  # from the top
        turn = ((torch.arange(self.width) + 0.5) / self.width * 2 - 1) * math.pi  # to the right
        polar, turn = torch.meshgrid(polar, turn, indexing="ij")
        across = polar.sin()
        local = torch.stack([turn.sin() * across, polar.cos(), -turn.cos() * across], -1)
        directions = local.view(-1, 3) @ pose[:, :3].T
        return pose[:, 3].expand_as(directions).contiguous(), directions


Camera = PinholeCamera | PanoramaCamera


@dataclass(frozen=True, eq=False)
class CropBox:
    """A box that a picture shows and nothing beside, turned against the world's axes."""

    center: Float[Array, " 3"]
    rotation: Float[Array, "3 3"]
    """Columns are the axes of the box."""
    sides: Float[Array, " 3"]
    background: tuple[float, float, float]
    """What is seen beside it, from 0 to 1."""

    def limits(
        self, origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"]
    ) -> Float[Tensor, "R 2"]:
        """Where rays are within the box; an empty stretch for those that miss it."""
        center, rotation, sides = (
            torch.from_numpy(part).to(origins) for part in (self.center, self.rotation, self.sides)
        )
        position, along = (origins - center) @ rotation, directions @ rotation
        inverse = 1 / torch.where(along.abs() < 1e-12, torch.full_like(along, 1e-12), along)
        a, b = (-sides / 2 - position) * inverse, (sides / 2 - position) * inverse
        begin = torch.minimum(a, b).amax(-1).clamp_min(0)
        end = torch.maximum(a, b).amin(-1)
        return torch.stack([begin, torch.maximum(begin, end)], -1)


@dataclass(frozen=True)
class CameraPath:
    """Pictures to take, one after the other."""

    cameras: Sequence[Camera]
    fps: float | None = None
    """Pictures per second; None if nobody has said."""
    crop: CropBox | None = None
    notes: tuple[str, ...] = ()
    """What people should know about it, a sentence each."""

    def thinned(self, at_most: int) -> CameraPath:
        """At most so many of the pictures, evenly spread."""
        keep = evenly_spaced(len(self.cameras), at_most)
        return replace(self, cameras=[self.cameras[index] for index in keep])

    def resized(self, *, width: int | None, height: int | None) -> CameraPath:
        """All of them in another number of pixels, see :meth:`PinholeCamera.resized`."""
        sized = [camera.resized(width=width, height=height) for camera in self.cameras]
        return replace(self, cameras=sized)


def pinhole(
    pose: Float[Array, "3 4"], vertical_fov: float, width: int, height: int
) -> PinholeCamera:
    """A camera with square pixels and the axis in the middle; the field of view in radians.

    Raises:
        ValueError: the field of view is not between 0 and pi, or a side is no number of pixels.
    """
    if not 0 < vertical_fov < math.pi:
        degrees = math.degrees(vertical_fov)
        raise ValueError(f"expected a field of view between 0 and 180 degrees, got {degrees:.6g}")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(
            f"expected a width and height of 1 to {MAX_SIDE} pixels, {MAX_PIXELS} in all, got "
            f"{width} and {height}"
        )
    focal = height / 2 / math.tan(vertical_fov / 2)
    return PinholeCamera(pose, focal, focal, width / 2, height / 2, width, height)


def looking_at(
    position: Float[Array, " 3"], target: Float[Array, " 3"], up: Float[Array, " 3"]
) -> Float[Array, "3 4"]:
    """The pose of an upright camera."""
    back = _unit(position - target)
    if np.linalg.norm(np.cross(up, back)) < 1e-6:  # straight down: any side may be the top
        up = np.eye(3)[np.abs(back).argmin()]
    right = _unit(np.cross(up, back))
    return np.stack([right, np.cross(back, right), back, position], axis=1)


def up_axis(poses: Float[Array, "N 3 4"]) -> Float[Array, " 3"]:
    """Which way is up, by cameras that nobody has tilted sideways: their right sides are level.

    The axis is the one that right sides have least of; where all point the same way, as in a
    capture from the front, it is the mean of the cameras' own upward axes.
    """
    poses = np.asarray(poses, np.float64)
    right, upward, back = poses[:, :, 0], poses[:, :, 1].mean(0), poses[:, :, 2].mean(0)
    shares, axes = np.linalg.eigh(right.T @ right / len(poses))
    axis = axes[:, 0]
    # Cameras stand upright, or look down, more often than on their heads or up.
    toward = float(axis @ upward + 0.5 * axis @ back)
    length = float(np.linalg.norm(upward))
    agrees = abs(axis @ upward) >= 0.5 * length or length < 0.3
    if shares[1] >= _LEAST_SPREAD and shares[0] < 0.5 * shares[1] and agrees and abs(toward) > 1e-6:
        return axis * np.sign(toward)
    return _unit(upward) if length > 1e-6 else np.array([0.0, 0.0, 1.0])


def meeting_point(poses: Float[Array, "N 3 4"]) -> Float[Array, " 3"] | None:
    """The point nearest to where all cameras look, in the least squares of distances; None if they
    look the same way, or away from each other."""
    poses = np.asarray(poses, np.float64)
    positions, forward = poses[:, :, 3], -poses[:, :, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    total = across.sum(0)
    if np.linalg.eigvalsh(total)[0] < _NARROW * len(poses):
        return None
    point = np.linalg.solve(total, (across @ positions[:, :, None]).sum(0)[:, 0])
    is_ahead = ((point - positions) * forward).sum(1) > 0
    return point if is_ahead.mean() >= 0.8 else None


def orbit(
    cameras: Sequence[PinholeCamera],
    count: int,
    distance_ahead: Callable[[PinholeCamera], float],
    *,
    width: int | None = None,
    height: int | None = None,
) -> CameraPath:
    """Once around what cameras look at, about the upward axis, as far away and as high as they
    stand in the median, beginning where the first of them stands.

    Args:
        distance_ahead: Tells how far away is what a camera sees; asked where cameras all look the
            same way.

    Raises:
        ValueError: cameras look away from each other.
    """
    poses = _poses(cameras)
    up, target, middle = up_axis(poses), meeting_point(poses), _middle(poses)
    if target is None:
        forward = -poses[:, :, 2].mean(0)
        if np.linalg.norm(forward) < 0.5:
            raise ValueError(
                "expected stored cameras that look at one place for an orbit, found cameras that "
                "look away from each other: try --spiral, --camera-path or --transforms"
            )
        target = poses[:, :, 3].mean(0) + _unit(forward) * distance_ahead(cameras[middle])
    offsets = poses[:, :, 3] - target
    lifts = offsets @ up
    level = offsets - lifts[:, None] * up
    radius, lift = float(np.median(np.linalg.norm(level, axis=1))), float(np.median(lifts))
    first = _unit(level[0]) if np.linalg.norm(level[0]) > 1e-6 * radius else None
    first = first if first is not None else _unit(np.cross(up, np.eye(3)[np.abs(up).argmin()]))
    second = np.cross(up, first)
    size, fov = _size_and_view(cameras[0], cameras, width, height)
    path = []
    for turn in np.arange(count) * (2 * math.pi / count):
        side = math.cos(turn) * first + math.sin(turn) * second
        pose = looking_at(target + radius * side + lift * up, target, up)
        path.append(pinhole(pose, fov, *size))
    return CameraPath(path, notes=_unseen_note(np.arctan2(level @ second, level @ first)))


def spiral(
    cameras: Sequence[PinholeCamera],
    count: int,
    distance_ahead: Callable[[PinholeCamera], float],
    *,
    width: int | None = None,
    height: int | None = None,
) -> CameraPath:
    """Small turns about one camera, that look at what it sees; the end meets the beginning.

    The camera is the one in the middle of all, or, where they stand around something, one that
    stands as high as they do in the median.

    Args:
        distance_ahead: Tells how far away is what a camera sees.
    """
    poses = _poses(cameras)
    up, around, middle = up_axis(poses), meeting_point(poses), _middle(poses)
    if around is not None:
        lifts = (poses[:, :, 3] - around) @ up
        middle = int(np.abs(lifts - np.median(lifts)).argmin())
    pose, ahead = poses[middle], distance_ahead(cameras[middle])
    target = pose[:, 3] - ahead * pose[:, 2]
    spread = np.percentile(np.abs((poses[:, :, 3] - pose[:, 3]) @ pose[:, :3]), 80, axis=0)
    least = 0.05 * ahead  # of a single camera, or of cameras on a line
    across, along, deep = np.clip(spread, least, _LARGEST_SPIRAL * ahead)
    size, fov = _size_and_view(cameras[middle], cameras, width, height)
    path = []
    for turn in np.arange(count) * (2 * math.pi * SPIRAL_TURNS / count):
        steps = (
            across * math.cos(turn),
            along * math.sin(turn),
            deep * math.sin(turn / SPIRAL_TURNS),
        )
        position = pose[:, 3] + pose[:, :3] @ np.array(steps)
        path.append(pinhole(looking_at(position, target, up), fov, *size))
    return CameraPath(path)


def _poses(cameras: Sequence[PinholeCamera]) -> Float[Array, "N 3 4"]:
    return np.stack([camera.camera_to_world for camera in cameras]).astype(np.float64)


def _middle(poses: Float[Array, "N 3 4"]) -> int:
    """The camera nearest to the mean of their positions."""
    return int(np.linalg.norm(poses[:, :, 3] - poses[:, :, 3].mean(0), axis=1).argmin())


def _size_and_view(
    like: PinholeCamera,
    cameras: Sequence[PinholeCamera],
    width: int | None,
    height: int | None,
) -> tuple[tuple[int, int], float]:
    """Sides in pixels, as one camera's where they are not given, and the median vertical field of
    view."""
    fov = float(np.median([2 * math.atan(c.height / 2 / c.fy) for c in cameras]))
    if width is None or height is None:
        sized = like.resized(width=width, height=height)
        width, height = sized.width, sized.height
    return (width, height), fov


def _unseen_note(angles: Float[Array, " N"]) -> tuple[str, ...]:
    """A sentence where the cameras of a capture leave much of the circle out."""
    around = np.sort(angles)
    gap = float(np.diff(around, append=around[0] + 2 * math.pi).max())
    if gap < math.pi / 2:
        return ()
    return (
        f"the stored cameras leave {math.degrees(gap):.0f} of the 360 degrees of this orbit out: "
        "what it shows there no camera has seen",
    )


def _unit(vector: Float[Array, " 3"]) -> Float[Array, " 3"]:
    return vector / np.linalg.norm(vector)
