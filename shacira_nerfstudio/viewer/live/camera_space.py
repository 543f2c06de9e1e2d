"""From the browser's camera to ours and back; which way is up, and where the first look goes.

The browser moves its camera in units of its own: keys fly two of them a second, and the wheel
reaches from 0.1 to 200. So a scene is shown enlarged or reduced such that its cameras stand about
four units from what they look at.

Our cameras have x right, y up and look along -z; those of viser have y down and look along +z
(OpenCV).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.viewer import camera_paths

VIEW_DISTANCE = 4.0
"""Of cameras from what they look at, in units of the browser."""
DEFAULT_FOV = 0.75
"""Vertical field of view without stored cameras, radians."""
_FLIP = np.diag([1.0, -1.0, -1.0])
_ALMOST_AXIS = math.cos(math.radians(12))


@dataclass(frozen=True)
class ViewPose:
    """A camera as the browser has it, in its units."""

    wxyz: tuple[float, ...]
    """Rotation of the OpenCV camera to the world, a unit quaternion."""
    position: tuple[float, ...]
    fov: float
    """Vertical field of view, radians."""
    aspect: float
    """Width over height."""

    def __post_init__(self) -> None:
        numbers = (*self.wxyz, *self.position, self.fov, self.aspect)
        if not all(math.isfinite(value) for value in numbers):
            raise ValueError(f"expected a finite camera, got {numbers}")
        if not (0 < self.fov < math.pi and 1e-3 < self.aspect < 1e3):
            raise ValueError(
                "expected a field of view between 0 and pi, an aspect from 0.001 to 1000, got "
                f"{self.fov} and {self.aspect}"
            )


@dataclass(frozen=True)
class Placement:
    """Where a camera of the browser is to stand, in its units."""

    position: np.ndarray
    look_at: np.ndarray
    """What orbiting turns around."""
    fov: float


def rotation_of(wxyz: Sequence[float]) -> np.ndarray:
    """Rotation matrix [3, 3] of a quaternion that is not 0."""
    q = np.asarray(wxyz, np.float64)
    length = float(np.linalg.norm(q))
    if not (math.isfinite(length) and length > 1e-6):
        raise ValueError(f"expected a quaternion other than 0, got {q.tolist()}")
    w, x, y, z = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Quaternion (w, x, y, z) of a rotation matrix, w of 0 or more."""
    m = np.asarray(rotation, np.float64)
    # 4 q q^T from sums and differences of the elements; its largest row is the most exact.
    trace = np.trace(m)
    products = np.array(
        [
            [1 + trace, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0, 1 + 2 * m[0, 0] - trace, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [0, 0, 1 + 2 * m[1, 1] - trace, m[1, 2] + m[2, 1]],
            [0, 0, 0, 1 + 2 * m[2, 2] - trace],
        ]
    )
    products = products + np.triu(products, 1).T
    row = products[int(products.diagonal().argmax())]
    q = row / np.linalg.norm(row)
    w, x, y, z = (float(v) for v in (q if q[0] >= 0 else -q))
    return w, x, y, z


class CameraSpace:
    """The browser's space around a scene.

    Args:
        cameras: Those that the file holds.
        box: Lower and upper corner of what the scene is about, [2, 3].
        distance_ahead: Tells how far away is what a camera sees, scene units. Where cameras look
            the same way, or away from each other, nothing else says what they are about.
    """

    def __init__(
        self,
        cameras: Sequence[PinholeCamera],
        box: np.ndarray,
        distance_ahead: Callable[[PinholeCamera], float],
    ) -> None:
        self.cameras, self.box = list(cameras), np.asarray(box, np.float64)
        self._distance_ahead = distance_ahead
        poses = np.array([c.camera_to_world for c in self.cameras], np.float64).reshape(-1, 3, 4)
        self.up = up_axis(poses)
        """Unit vector."""
        self._meeting = camera_paths.meeting_point(poses) if len(poses) else None
        self._radius = self._reach(poses)
        self.scale = VIEW_DISTANCE / self._radius
        """Units of the browser per scene unit."""

    def _reach(self, poses: np.ndarray) -> float:
        """Typical distance from a camera to what it looks at, scene units."""
        half_diagonal = float(np.linalg.norm(self.box[1] - self.box[0])) / 2
        if not len(poses):
            return 1.5 * half_diagonal
        if self._meeting is None:
            return max(self._distance_ahead(self.cameras[0]), 1e-6 * half_diagonal)
        ahead = np.einsum("ni,ni->n", self._meeting - poses[:, :, 3], -poses[:, :, 2])
        return max(float(np.median(ahead)), 1e-6 * half_diagonal)

    def camera(self, pose: ViewPose, width: int, height: int) -> PinholeCamera:
        """Our camera of so many pixels where the browser's is."""
        rotation = rotation_of(pose.wxyz) @ _FLIP
        position = np.asarray(pose.position, np.float64)[:, None] / self.scale
        focal = height / 2 / math.tan(pose.fov / 2)
        to_world = np.concatenate([rotation, position], 1)
        return PinholeCamera(to_world, focal, focal, width / 2, height / 2, width, height)

    def pose(self, camera: PinholeCamera) -> ViewPose:
        """The reverse; a principal point beside the centre is left out."""
        to_world = camera.camera_to_world.astype(np.float64)
        return ViewPose(
            quaternion_of(to_world[:, :3] @ _FLIP),
            tuple(float(v) for v in to_world[:, 3] * self.scale),
            2 * math.atan(camera.height / 2 / camera.fy),
            camera.width * camera.fy / (camera.height * camera.fx),
        )

    def placement(self, camera: PinholeCamera) -> Placement:
        """Where to stand to see what a camera sees, with the horizon level, and around what to
        turn: the point of its view that is nearest to where all cameras look; what it sees, if that
        is nowhere, or not ahead of this one."""
        to_world = camera.camera_to_world.astype(np.float64)
        position, forward = to_world[:, 3], -to_world[:, 2]
        ahead = 0.0 if self._meeting is None else float((self._meeting - position) @ forward)
        if ahead < 0.25 * self._radius:
            ahead = self._distance_ahead(camera)
        target = position + ahead * forward
        return Placement(position * self.scale, target * self.scale, self.pose(camera).fov)

    def first_view(self) -> Placement:
        """That of the first camera; without cameras one from above a corner of the box."""
        if self.cameras:
            return self.placement(self.cameras[0])
        side = np.linalg.svd(self.up[None])[2][1]  # any direction across
        towards = 0.85 * side + 0.5 * self.up
        target = self.box.mean(0)
        position = target + self._radius * towards / np.linalg.norm(towards)
        return Placement(position * self.scale, target * self.scale, DEFAULT_FOV)


def up_axis(poses: np.ndarray) -> np.ndarray:
    """Which way is up for cameras [N, 3, 4], see :func:`camera_paths.up_axis`; an axis of the world
    if it is within 12 degrees of one, z without cameras."""
    if not len(poses):
        return np.array([0.0, 0.0, 1.0])
    up = camera_paths.up_axis(poses)
    axis = int(np.abs(up).argmax())
    return np.sign(up[axis]) * np.eye(3)[axis] if abs(up[axis]) >= _ALMOST_AXIS else up
