"""Cameras from files of Nerfstudio: a camera path of its viewer, and ``transforms.json``.

Both are checked number by number: what does not fit is named with its place, expected and found.
What a pinhole or a panorama cannot show is refused, not shown as something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from shacira_nerfstudio.viewer.camera_paths import (
    Array,
    Camera,
    CameraPath,
    CropBox,
    PanoramaCamera,
    PinholeCamera,
    pinhole,
)

PERSPECTIVE_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
PANORAMA_MODEL = "EQUIRECTANGULAR"
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_MAX_SKEW = 1e-2
_SUFFIXES = ("", ".png", ".jpg", ".jpeg")
"""Of pictures; Blender's files leave them out."""


def camera_path_of(
    path: Path, *, width: int | None = None, height: int | None = None
) -> CameraPath:
    """The frames of a camera path as Nerfstudio's viewer saves it, in the scene's own coordinates.

    Raises:
        ValueError: it is no such file, or its cameras are neither perspective nor equirectangular.
    """
    content = _json_object(path, "a camera path of Nerfstudio's viewer")
    kind = str(content.get("camera_type", "perspective")).lower()
    if kind not in ("perspective", "equirectangular"):
        raise ValueError(
            f"{path}: expected camera_type perspective or equirectangular, got {kind}: "
            "a lone file is rendered through no other lens; the export folder's `ns-render "
            "camera-path` may"
        )
    size = _size(content, "render_width", "render_height", path, width=width, height=height)
    frames = content.get("camera_path")
    if not isinstance(frames, list) or not frames:
        raise ValueError(
            f"{path}: expected a list of frames camera_path, found {_brief(frames)}: add keyframes "
            "in the viewer and save the path again"
        )
    cameras: list[Camera] = []
    for index, frame in enumerate(frames):
        where = f"{path}: camera_path[{index}]"
        if not isinstance(frame, Mapping):
            raise ValueError(f"{where}: expected a frame, found {_brief(frame)}")
        pose = _pose(frame.get("camera_to_world"), f"{where}.camera_to_world")
        if kind == "equirectangular":
            cameras.append(PanoramaCamera(pose, *size))
            continue
        fov = math.radians(_number(frame.get("fov"), f"{where}.fov"))
        try:
            cameras.append(pinhole(pose, fov, *size))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return CameraPath(cameras, _path_fps(content, len(cameras), path), _crop(content, path))


def _path_fps(content: Mapping[str, Any], count: int, path: Path) -> float | None:
    """As the host has it: all frames in so many seconds; else what the file says itself."""
    seconds, fps = content.get("seconds"), content.get("fps")
    if seconds is not None and (length := _number(seconds, f"{path}: seconds")) > 0:
        return count / length
    return None if fps is None else _number(fps, f"{path}: fps")


def _crop(content: Mapping[str, Any], path: Path) -> CropBox | None:
    crop = content.get("crop")
    if crop is None:
        return None
    if not isinstance(crop, Mapping):
        raise ValueError(f"{path}: expected a box as crop, found {_brief(crop)}")
    center, sides, angles = (
        _numbers(crop.get(name, default), 3, f"{path}: crop.{name}")
        for name, default in (("crop_center", None), ("crop_scale", None), ("crop_rot", [0, 0, 0]))
    )
    color = crop.get("crop_bg_color") or {}
    if not isinstance(color, Mapping):
        raise ValueError(f"{path}: expected r, g, b as crop_bg_color, found {_brief(color)}")
    levels = [_number(color.get(name, 0), f"{path}: crop.crop_bg_color.{name}") for name in "rgb"]
    red, green, blue = (min(max(level / 255, 0.0), 1.0) for level in levels)
    return CropBox(center, _rotation(*angles), sides, (red, green, blue))


def _rotation(roll: float, pitch: float, yaw: float) -> Float[Array, "3 3"]:
    """About x, then y, then z, in radians."""
    turns = []
    for axis, angle in enumerate((roll, pitch, yaw)):
        turn, (a, b) = np.eye(3), ((1, 2), (2, 0), (0, 1))[axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        turns.append(turn)
    return turns[2] @ turns[1] @ turns[0]


@dataclass(frozen=True, eq=False)
class WorldTransform:
    """From a data set's coordinates to a scene's, as the data parser of a run has it."""

    matrix: Float[Array, "3 4"]
    scale: float

    @classmethod
    def read(cls, path: Path) -> WorldTransform:
        """``dataparser_transforms.json``, which training writes beside its config.yml."""
        content = _json_object(path, "dataparser_transforms.json")
        rows = _numbers(content.get("transform"), 12, f"{path}: transform")
        return cls(rows.reshape(3, 4), _number(content.get("scale"), f"{path}: scale"))

    def apply(self, pose: Float[Array, "3 4"]) -> Float[Array, "3 4"]:
        """A camera's pose in the scene; it stays a rotation and a shift."""
        turned = self.matrix[:, :3] @ pose
        turned[:, 3] = (turned[:, 3] + self.matrix[:, 3]) * self.scale
        return turned


def transforms_cameras(
    path: Path,
    world: WorldTransform | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
) -> CameraPath:
    """Cameras of a ``transforms.json``, Nerfstudio's or Blender's, by their focal lengths or angle
    of view.

    Args:
        world: Where the scene is in other coordinates than the file.
        width: Pixels per row of pictures; where the file says its own, :meth:`CameraPath.resized`
            scales.
    """
    content = _json_object(path, "transforms.json")
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"{path}: expected a list of frames, found {_brief(frames)}")
    cameras: list[Camera] = []
    for index, frame in enumerate(frames):
        where = f"{path}: frames[{index}]"
        if not isinstance(frame, Mapping):
            raise ValueError(f"{where}: expected a frame, found {_brief(frame)}")
        pose = _pose(frame.get("transform_matrix"), f"{where}.transform_matrix")
        pose = pose if world is None else world.apply(pose)
        numbers = {**content, **frame}
        size = _frame_size(numbers, path, where, width, height)
        cameras.append(_frame_camera(numbers, pose, size, where))
    sized = CameraPath(cameras).resized(width=width, height=height)
    is_bent = any({**content, **frame}.get(name) for frame in frames for name in _DISTORTION)
    notes = ("the lens distortion of the cameras is left out: pictures are straight",)
    return CameraPath(sized.cameras, notes=notes if is_bent else ())


def _frame_size(
    numbers: Mapping[str, Any], path: Path, where: str, width: int | None, height: int | None
) -> tuple[int, int]:
    """What the file says, the picture is, or is asked for."""
    if "w" in numbers or "h" in numbers:
        return _size(numbers, "w", "h", path)
    name = numbers.get("file_path")
    for suffix in _SUFFIXES if isinstance(name, str) else ():
        picture = path.parent / f"{name}{suffix}"
        if picture.is_file():
            try:
                with Image.open(picture) as image:
                    return image.size
            except OSError as error:
                raise ValueError(f"{where}: expected a picture {picture}, got: {error}") from None
    if width is None or height is None:
        raise ValueError(
            f"{where}: expected w and h, or the picture file_path, found neither: state --width "
            "and --height"
        )
    return width, height


def _frame_camera(
    numbers: Mapping[str, Any], pose: Float[Array, "3 4"], size: tuple[int, int], where: str
) -> Camera:
    width, height = size
    model = str(numbers.get("camera_model", "OPENCV")).upper()
    if model == PANORAMA_MODEL:
        return PanoramaCamera(pose, width, height)
    if model not in PERSPECTIVE_MODELS or numbers.get("is_fisheye"):
        models = ", ".join((*PERSPECTIVE_MODELS, PANORAMA_MODEL))
        raise ValueError(
            f"{where}: expected a camera_model of {models}, got {model}"
            f"{' with is_fisheye' if numbers.get('is_fisheye') else ''}"
        )
    fx = _focal(numbers, "fl_x", "camera_angle_x", width, where)
    fy = _focal(numbers, "fl_y", "camera_angle_y", height, where)
    if fx is None and fy is None:
        raise ValueError(f"{where}: expected fl_x or camera_angle_x, found neither")
    fx = fy if fx is None else fx
    fy = fx if fy is None else fy
    assert fx is not None and fy is not None
    cx, cy = (
        _number(numbers.get(name, side / 2), f"{where}.{name}")
        for name, side in (("cx", width), ("cy", height))
    )
    try:
        return PinholeCamera(pose, fx, fy, cx, cy, width, height)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _focal(
    numbers: Mapping[str, Any], length: str, angle: str, side: int, where: str
) -> float | None:
    """In pixels; None if the file says neither length nor angle."""
    if length in numbers:
        return _number(numbers[length], f"{where}.{length}")
    if angle not in numbers:
        return None
    view = _number(numbers[angle], f"{where}.{angle}")
    if not 0 < view < math.pi:
        raise ValueError(f"{where}: expected {angle} between 0 and pi, got {view:.6g}")
    return side / 2 / math.tan(view / 2)


def _size(
    content: Mapping[str, Any],
    across: str,
    down: str,
    path: Path,
    *,
    width: int | None = None,
    height: int | None = None,
) -> tuple[int, int]:
    """A file's sides in pixels, or those that are asked for; one of them keeps the shape."""
    if width is not None and height is not None:
        return width, height
    own = [_number(content.get(name), f"{path}: {name}") for name in (across, down)]
    for name, side in zip((across, down), own, strict=True):
        if side < 1 or side != round(side):
            raise ValueError(f"{path}: expected a number of pixels as {name}, got {side:.6g}")
    if width is not None:
        return width, max(1, round(own[1] * width / own[0]))
    if height is not None:
        return max(1, round(own[0] * height / own[1])), height
    return int(own[0]), int(own[1])


def _json_object(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # neither JSON nor text
        raise ValueError(f"expected {what} at {path}, got: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected {what} at {path}, found {_brief(content)}")
    return content


def _pose(value: Any, where: str) -> Float[Array, "3 4"]:
    """Of 16 or 12 numbers, nested or not."""
    flat = np.array(_flat(value, where), np.float64)
    if len(flat) not in (12, 16):
        raise ValueError(f"{where}: expected a pose of 16 numbers, found {len(flat)}")
    pose = flat.reshape(-1, 4)[:3]
    if not np.isfinite(pose).all():
        raise ValueError(f"{where}: expected finite numbers, found {pose.tolist()}")
    skew = np.abs(pose[:, :3].T @ pose[:, :3] - np.eye(3)).max()
    if skew > _MAX_SKEW or np.linalg.det(pose[:, :3]) < 0:
        raise ValueError(f"{where}: expected a rotation, found {pose[:, :3].tolist()}")
    return pose


def _numbers(value: Any, count: int, where: str) -> Float[Array, " N"]:
    found = _flat(value, where)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{where}: expected {count} finite numbers, found {_brief(value)}")
    return np.array(found, np.float64)


def _flat(value: Any, where: str) -> list[float]:
    if isinstance(value, list):
        return [number for part in value for number in _flat(part, where)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: expected numbers, found {_brief(value)}")
    return [float(value)]


def _number(value: Any, where: str) -> float:
    (number,) = _numbers([value], 1, where)
    return float(number)


def _brief(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
