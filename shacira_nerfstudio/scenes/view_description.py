"""The JSON of one view, with the keys and conventions of RTMV's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PlacedObject:
    """What RTMV says of an object."""

    name: str
    turn: Array
    """Rotation from own axes to the world's, 3x3."""
    center: Array
    """In the world."""


def describe_camera(
    pose: Array, size: int, focal: float, look_at: Array, box: Array
) -> dict[str, Any]:
    """``camera_data`` of a square picture.

    Args:
        pose: Camera to world, 4x4.
        focal: In pixels.
        box: Lowest and highest corner of the scene, 2x3.
    """
    eye = pose[:3, 3].tolist()
    camera = {
        "width": size,
        "height": size,
        "intrinsics": {"fx": focal, "fy": focal, "cx": size / 2, "cy": size / 2},
        "cam2world": pose.T.tolist(),
        "camera_view_matrix": np.linalg.inv(pose).T.tolist(),
        "camera_look_at": {"at": look_at.tolist(), "eye": eye, "up": [0, 0, 1]},
        "location_world": eye,
        "quaternion_world_xyzw": _quaternion(pose[:3, :3]),
    }
    for key, corner in zip(("min", "center", "max"), (box[0], box.mean(0), box[1]), strict=True):
        camera[f"scene_{key}_3d_box"] = corner.tolist()
    return camera


def describe_objects(
    objects: Sequence[PlacedObject], pose: Array, labels: Array
) -> list[dict[str, Any]]:
    """``objects``, numbered from 1 on.

    Args:
        labels: Number of the object at each pixel's centre, from 0 on, [H, W]; -1 for none.
    """
    to_camera, found = np.linalg.inv(pose), []
    for number, thing in enumerate(objects):
        place = np.eye(4)
        place[:3, :3], place[:3, 3] = thing.turn, thing.center
        y, x = np.nonzero(labels == number)
        extent = [x.min(), x.max(), y.min(), y.max()] if len(x) else [-1] * 4
        entry = {
            "name": thing.name,
            "provenance": "shacira_nerfstudio",
            "segmentation_id": number + 1,
            "visibility": int(len(x) > 0),
            "bounding_box_minx_maxx_miny_maxy": [int(edge) for edge in extent],
            "local_to_world_matrix": place.T.tolist(),
            "location": (to_camera @ place)[:3, 3].tolist(),
            "location_world": place[:3, 3].tolist(),
            "quaternion_xyzw": _quaternion((to_camera @ place)[:3, :3]),
            "quaternion_xyzw_world": _quaternion(thing.turn),
        }
        found.append(entry)
    return found


def _quaternion(rotation: Array) -> list[float]:
    """x, y, z, w of a rotation."""
    outer = np.empty((4, 4))  # 4 q q^T; its longest row is parallel to q, without special cases
    outer[:3, :3] = rotation + rotation.T + (1 - np.trace(rotation)) * np.eye(3)
    outer[3, :3] = outer[:3, 3] = (rotation - rotation.T)[[2, 0, 1], [1, 2, 0]]
    outer[3, 3] = 1 + np.trace(rotation)
    q = outer[outer.diagonal().argmax()]
    return (q / np.linalg.norm(q) * (-1 if q[3] < 0 else 1)).tolist()
