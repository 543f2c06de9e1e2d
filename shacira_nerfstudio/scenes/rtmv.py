"""RTMV scenes on disk: cameras, linear EXR images as sRGB, depth, splits and normalisation.

Tremblay et al., "RTMV: A Ray-Traced Multi-View Synthetic Dataset for Novel View Synthesis", 2022.
A scene is a folder of ``NNNNN.json`` (camera, objects), ``NNNNN.exr`` (linear RGBA, straight alpha;
or PNG, JPG), ``NNNNN.depth.exr`` (or ``.depth.npz``, or a depth channel inside the image), and
mostly ``NNNNN.seg.exr`` (number of the object that each pixel shows).

Conventions: ``cam2world`` is stored transposed; camera axes x right, y up, looking along -z, which
are Nerfstudio's own; world z up; the pixel in column i and row j has its centre at (i + 0.5,
j + 0.5), and cx, cy count from the same corner; depth is the distance along the unit ray.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shacira_nerfstudio.scenes.camera_faults import number_faults, pose_fault
from shacira_nerfstudio.scenes.linear_pixels import (
    linear_to_srgb,
    read_exr,
    read_linear_rgba,
    srgb_to_linear,
)

IMAGE_SUFFIXES = (".exr", ".png", ".jpg", ".jpeg")
"""Tried in this order: an EXR is what the 8-bit copies beside it were made from."""

RANDOM = "random"
"""A background that is none: whoever trains puts each ray on a colour of its own."""

BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}

MAX_DEPTH = 1000.0
"""Depths outside (-1000, 1000) say that the ray left the scene; the data set writes -3.4e38."""

MAX_NUMBER = 2.0**24
"""Of objects, below which a float is an exact integer."""

DEPTH_SAMPLES = 400  # per side, for normalisation: the 1600 of the original scenes over 4

BOX_MARGIN = 1.05  # as other RTMV readers: stated boxes need not hold everything

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class RtmvFrame:
    """One view: its files and its camera at full resolution."""

    image_path: Path
    depth_path: Path | None
    """Separate depth file, if there is one."""
    segmentation_path: Path | None
    """File of object numbers, if there is one."""
    width: int
    height: int
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""
    camera_to_world: Array
    """4x4, already transposed back: its columns are the camera's axes and position."""
    box: Array | None
    """Lowest and highest corner of the scene in world space, 2x3, if stated."""


@dataclass(frozen=True)
class RtmvNormalization:
    """Maps world space onto [-1, 1]^3: ``(x - center) * scale``."""

    center: tuple[float, float, float]
    scale: float

    def apply(self, points: Array) -> Array:
        """Normalises points [..., 3]."""
        return (np.asarray(points, np.float64) - self.center) * self.scale


def is_rtmv_scene(path: Path) -> bool:
    """Whether a folder holds numbered JSON files, each beside an image of the same number."""
    stems = _frame_stems(path)
    return bool(stems) and all(_find(path, stem, IMAGE_SUFFIXES) for stem in stems)


def read_rtmv_scene(path: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> tuple[RtmvFrame, ...]:
    """Reads all views of an RTMV folder in the order of their numbers; opens no image.

    Args:
        suffixes: Of images, the one that is taken first where a view has several.
    """
    path = Path(path)
    stems = _frame_stems(path)
    if not stems:
        names = sorted(entry.name for entry in path.iterdir())[:6] if path.is_dir() else []
        found = ", ".join(names) or ("nothing in it" if path.is_dir() else "no such folder")
        raise FileNotFoundError(
            f"expected an RTMV scene (00000.json, 00000.exr, ...) in {path}, found {found}"
        )
    frames = tuple(_read_frame(path, stem, suffixes) for stem in stems)
    faults = [
        f"{path / stem}.json: {fault}"
        for stem, frame in zip(stems, frames, strict=True)
        for fault in _camera_faults(frame)
    ]
    if faults:
        raise ValueError("expected sound cameras, found\n  " + "\n  ".join(faults))
    return frames


def read_rtmv_image(
    source: RtmvFrame | Path,
    *,
    background: str | Sequence[float] = "white",
    exposure: float = 0.0,
    downscale: int = 1,
) -> NDArray[np.float32]:
    """Reads an image as sRGB colours in [0, 1], composited on a background, [H, W, 3]; or for a
    random one, straight colours and alpha, [H, W, 4].

    In this order: ``rgb * alpha + background * (1 - alpha)`` on linear values, clip to [0, 1] (the
    tone mapping), average over ``downscale x downscale`` pixels, still linear, then the sRGB curve.
    PNG and JPG hold sRGB already and are made linear first, so the curve is never applied twice.

    Args:
        source: A frame (then the size is checked, too) or the path of an image.
        background: "white", "black", three sRGB values, or "random".
        exposure: Gain in stops on the scene's linear colours; the background keeps its own.
        downscale: Whole factor; what fills no whole block is cut off at the right and bottom.
    """
    path = source.image_path if isinstance(source, RtmvFrame) else Path(source)
    rgb, alpha = read_linear_rgba(path)
    if isinstance(source, RtmvFrame):
        _check_size(path, rgb, source)
    if not 1 <= downscale <= min(rgb.shape[:2]):
        raise ValueError(f"expected downscale 1 to {min(rgb.shape[:2])}, got {downscale}")
    rgb *= np.float32(2.0**exposure)
    if isinstance(background, str) and background == RANDOM:
        linear = _average(np.clip(rgb, 0.0, 1.0) * alpha, downscale)
        alpha = _average(alpha, downscale)
        straight = np.divide(linear, alpha, out=np.zeros_like(linear), where=alpha > 0)
        return np.concatenate([linear_to_srgb(np.minimum(straight, 1.0)), alpha], -1)
    behind = srgb_to_linear(background_color(background))
    rgb *= alpha
    rgb += behind * (1.0 - alpha)
    return linear_to_srgb(_average(np.clip(rgb, 0.0, 1.0, out=rgb), downscale))


def _average(pixels: Array, factor: int) -> Array:
    """Means of blocks of pixels [H, W, C]."""
    if factor == 1:
        return pixels
    height, width = (size // factor for size in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor]
    return blocks.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))


def read_rtmv_depth(frame: RtmvFrame) -> NDArray[np.float32] | None:
    """Distance along the unit ray through each pixel, [H, W]; nan where it left the scene.

    Always at full resolution; None if the view comes without depth.
    """
    path = frame.depth_path or frame.image_path
    depth = None
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            depth = arrays["arr_0"]
        depth = depth[..., 0] if depth.ndim == 3 else depth
    elif path.suffix == ".exr":
        names = ["depth", "depth.v", "depth.z", "depth.r", "z"]
        names += ["r", "y", "v"] if frame.depth_path else []  # a plain image holds colours there
        channels = {name.lower(): pixels for name, pixels in read_exr(path).items()}
        depth = next((channels[name] for name in names if name in channels), None)
    if depth is None:
        return None
    _check_size(path, depth, frame)
    return np.where(np.abs(depth) < MAX_DEPTH, depth, np.nan).astype(np.float32)


def frame_rays(frame: RtmvFrame, stride: int = 1) -> tuple[Array, Array]:
    """Origin [3] and unit directions [H, W, 3] through every stride-th pixel, world space."""
    fx, fy, cx, cy = frame.intrinsics
    columns = np.arange(stride // 2, frame.width, stride) + 0.5
    rows = np.arange(stride // 2, frame.height, stride) + 0.5
    x, y = np.meshgrid((columns - cx) / fx, (cy - rows) / fy)
    directions = np.stack([x, y, -np.ones_like(x)], axis=-1) @ frame.camera_to_world[:3, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return frame.camera_to_world[:3, 3], directions


def depth_points(frame: RtmvFrame, stride: int = 1) -> Array | None:
    """World positions [P, 3] of every stride-th pixel that shows a surface; None without depth."""
    depth = read_rtmv_depth(frame)
    if depth is None:
        return None
    depth = depth[stride // 2 :: stride, stride // 2 :: stride]
    origin, directions = frame_rays(frame, stride)
    is_valid = np.isfinite(depth)
    return origin + directions[is_valid] * depth[is_valid, None].astype(np.float64)


def read_rtmv_segmentation(frame: RtmvFrame) -> NDArray[np.int32] | None:
    """The ``segmentation_id`` of the object that each pixel shows, [H, W], -1 where it shows none;
    None if the view comes without."""
    path = frame.segmentation_path
    if path is None:
        return None
    channels = {name.lower().rpartition(".")[2]: v for name, v in read_exr(path).items()}
    numbers = next((channels[name] for name in ("r", "y", "v", "z") if name in channels), None)
    if numbers is None:
        raise ValueError(f"expected a channel R or Y in {path}, found {sorted(channels)}")
    _check_size(path, numbers, frame)
    numbers = numbers.astype(np.float64)
    is_number = (np.abs(numbers) < MAX_NUMBER) & (numbers >= 0)
    return np.where(is_number, np.rint(np.where(is_number, numbers, 0)), -1).astype(np.int32)


def split_indices(
    num_frames: int,
    *,
    train_share: float = 2 / 3,
    val_share: float = 1 / 30,
    interval: int = 0,
) -> dict[str, Sequence[int]]:
    """Views of each split; by default RTMV's, by order: two thirds train, the next thirtieth val,
    the rest test.

    Args:
        interval: If above 0, every so-manieth view from the first on is val and test, whatever the
            shares, and the others train.
    """
    if num_frames < 2:
        raise ValueError(f"expected at least 2 views to split, got {num_frames}")
    if interval:
        if interval < 2:
            raise ValueError(f"expected an interval of at least 2 views, got {interval}")
        held_out = range(0, num_frames, interval)
        train = [index for index in range(num_frames) if index % interval]
        return {"train": train, "val": held_out, "test": held_out}
    if not (0 < train_share <= 1 and 0 <= val_share <= 1 - train_share + 1e-9):
        raise ValueError(
            f"expected shares of views that are positive and at most 1 together, got {train_share} "
            f"for training and {val_share} for validation"
        )
    # Shares are fractions that binary numbers just miss.
    val = max(1, math.floor(num_frames * train_share + 1e-6))
    test = val + math.floor(num_frames * val_share + 1e-6)
    return {"train": range(val), "val": range(val, test), "test": range(test, num_frames)}


def normalization_from_depth(frames: Sequence[RtmvFrame]) -> RtmvNormalization | None:
    """The surfaces these (training) views see fill [-1, 1]^3; None if a view has no depth."""
    corners = []
    for frame in frames:
        points = depth_points(frame, max(1, max(frame.width, frame.height) // DEPTH_SAMPLES))
        if points is None:
            return None
        if len(points):
            corners += [points.min(axis=0), points.max(axis=0)]
    if not corners:
        raise ValueError("expected depth that shows a surface, found none in any training view")
    return _normalization(np.array(corners))


def normalization_from_box(frames: Sequence[RtmvFrame]) -> RtmvNormalization | None:
    """The box that the JSON files state, 5 % larger, fills [-1, 1]^3; None if one states none."""
    boxes = [frame.box for frame in frames if frame.box is not None]
    complete = bool(boxes) and len(boxes) == len(frames)
    return _normalization(np.concatenate(boxes), margin=BOX_MARGIN) if complete else None


def background_color(background: str | Sequence[float]) -> NDArray[np.float32]:
    """A background's sRGB colour [3] from its name or from three values in [0, 1]."""
    named = BACKGROUNDS.get(background, ()) if isinstance(background, str) else background
    color = np.asarray(named, np.float32)
    if color.shape != (3,) or not np.all((color >= 0) & (color <= 1)):
        raise ValueError(f"expected white, black or 3 values in [0, 1], got {background!r}")
    return color


def _frame_stems(path: Path) -> list[str]:
    entries = path.iterdir() if path.is_dir() else ()
    return sorted(entry.stem for entry in entries if re.fullmatch(r"\d{5}\.json", entry.name))


def _find(path: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    candidates = (path / (stem + suffix) for suffix in suffixes)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _read_frame(path: Path, stem: str, suffixes: Sequence[str]) -> RtmvFrame:
    json_path = path / f"{stem}.json"
    image_path = _find(path, stem, suffixes)
    if image_path is None:
        names = " or ".join(stem + suffix for suffix in suffixes)
        raise FileNotFoundError(f"expected {names} beside {json_path}, found none")
    try:
        data = json.loads(json_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"expected JSON in {json_path}, found: {error}") from error
    camera = _lookup(data, "camera_data", json_path)
    intrinsics = _lookup(camera, "intrinsics", json_path)
    fx, fy, cx, cy = (
        float(_lookup(intrinsics, key, json_path)) for key in ("fx", "fy", "cx", "cy")
    )
    stored = np.asarray(_lookup(camera, "cam2world", json_path), np.float64)
    if stored.shape != (4, 4) or not np.allclose(stored[:, 3], (0, 0, 0, 1)):
        raise ValueError(f"expected a transposed cam2world in {json_path}, found {stored.tolist()}")
    corners = [camera.get("scene_min_3d_box"), camera.get("scene_max_3d_box")]
    return RtmvFrame(
        image_path=image_path,
        depth_path=_find(path, stem, (".depth.npz", ".depth.exr")),
        segmentation_path=_find(path, stem, (".seg.exr",)),
        width=int(_lookup(camera, "width", json_path)),
        height=int(_lookup(camera, "height", json_path)),
        intrinsics=(fx, fy, cx, cy),
        camera_to_world=stored.T,
        box=None if None in corners else np.asarray(corners, np.float64),
    )


def _camera_faults(frame: RtmvFrame) -> list[str]:
    numbers = dict(zip(("fx", "fy", "cx", "cy"), frame.intrinsics, strict=True))
    sizes = {"width": frame.width, "height": frame.height}
    return [
        *filter(None, [pose_fault(frame.camera_to_world)]),
        *number_faults({**numbers, **sizes}),
    ]


def _lookup(data: Any, key: str, path: Path) -> Any:
    if not isinstance(data, dict) or key not in data:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"expected the key {key!r} in {path}, found {found}")
    return data[key]


def _check_size(path: Path, pixels: Array, frame: RtmvFrame) -> None:
    expected, found = f"{frame.width}x{frame.height}", f"{pixels.shape[1]}x{pixels.shape[0]}"
    if found != expected:
        raise ValueError(f"expected {expected} pixels in {path}, as in its JSON, found {found}")


def _normalization(corners: Array, *, margin: float = 1.0) -> RtmvNormalization:
    lowest, highest = corners.min(axis=0), corners.max(axis=0)
    half_extent = margin * float(np.max(highest - lowest)) / 2
    if not half_extent > 0:
        raise ValueError(f"expected a scene with an extent, found only the point {lowest}")
    x, y, z = ((lowest + highest) / 2).tolist()
    return RtmvNormalization(center=(x, y, z), scale=1.0 / half_extent)
