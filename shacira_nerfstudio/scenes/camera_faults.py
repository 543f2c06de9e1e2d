"""What no camera can have: poses that are none, lenses of no focal length, images of no size.

Whoever reads cameras from outside asks here, lists all faults and stops: one number that is not
finite spreads to every other camera as soon as poses are centred or scaled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_SKEW = 0.02
"""Cosine, and relative length, by which the axes of a pose may differ from a rotation's: poses in
text files have few digits. Rays take no harm from axes that are all too long."""
_POSITIVE = ("fl_x", "fl_y", "fx", "fy", "camera_angle_x", "camera_angle_y")
_SIZES = ("w", "h", "width", "height")
_TRANSFORMS = ("transforms", "transforms_train", "transforms_val", "transforms_test")
_PLAIN = ("cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2")


def pose_fault(pose: Any) -> str | None:
    """What is wrong with a matrix from camera to world, [3, 4] or [4, 4]; None if nothing is."""
    try:
        matrix = np.asarray(pose, np.float64)
    except (TypeError, ValueError):
        return f"expected a pose of numbers, found {pose!r:.80}"
    if matrix.shape not in ((3, 4), (4, 4)):
        return f"expected a pose of 3x4 or 4x4 numbers, found {'x'.join(map(str, matrix.shape))}"
    if not np.isfinite(matrix).all():
        return f"expected a pose of finite numbers, found {matrix[:3].tolist()}"
    fault = _axes_fault(matrix[:3, :3])
    return f"expected a rotation, found {fault}" if fault else None


def _axes_fault(axes: np.ndarray) -> str | None:
    lengths = np.linalg.norm(axes, axis=0)
    if not (lengths > 0).all() or lengths.max() > (1 + _SKEW) * lengths.min():
        return f"axes of lengths {lengths.round(4).tolist()}"
    axes = axes / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SKEW:
        return f"axes that are not at right angles, {axes.round(4).tolist()}"
    return "one that is mirrored (determinant -1)" if np.linalg.det(axes) < 0 else None


def number_faults(numbers: Mapping[str, Any]) -> list[str]:
    """What is wrong with a camera's numbers, by the names that transforms.json has for them."""
    faults = []
    for name, value in numbers.items():
        if name in _POSITIVE:
            is_sound, wanted = 0 < _number(value) < math.inf, "above 0"
        elif name in _SIZES:
            is_sound, wanted = 1 <= _number(value) < math.inf, "of at least 1 pixel"
        elif name in _PLAIN:
            is_sound, wanted = math.isfinite(_number(value)), "that is a finite number"
        else:
            continue
        if not is_sound:
            faults.append(f"expected {name} {wanted}, found {value!r}")
    return faults


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def transforms_faults(data: Path) -> list[str]:
    """What is wrong with the cameras of a transforms.json, or of the several of a folder, before
    anything is computed with them; nothing of other data sets."""
    paths = [data] if data.suffix == ".json" else [data / f"{name}.json" for name in _TRANSFORMS]
    faults = []
    for path in paths:
        try:
            content = json.loads(path.read_text("utf8"))
        except (OSError, ValueError):
            continue  # whoever wants the file says so
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
            continue
        faults += [f"{path}: {fault}" for fault in number_faults(content)]
        for frame in content["frames"]:
            if not isinstance(frame, dict):
                continue
            name = f"{path}: {frame.get('file_path', 'a frame without file_path')}"
            found = number_faults(frame)
            if "transform_matrix" in frame:
                found += filter(None, [pose_fault(frame["transform_matrix"])])
            faults += [f"{name}: {fault}" for fault in found]
    return faults
