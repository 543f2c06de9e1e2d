"""RTMV scenes on disk: cameras, linear EXR images as sRGB, depth, splits and normalisation.

Tremblay et al., "RTMV: A Ray-Traced Multi-View Synthetic Dataset for Novel View Synthesis", 2022.
A scene is a folder of ``NNNNN.json`` (camera), ``NNNNN.exr`` (linear RGBA, straight alpha; or PNG,
JPG) and ``NNNNN.depth.exr`` (or ``.depth.npz``, or a depth channel inside the image).

Conventions: ``cam2world`` is stored transposed; camera axes x right, y up, looking along -z, which
are Nerfstudio's own; world z up; the pixel in column i and row j has its centre at (i + 0.5,
j + 0.5), and cx, cy count from the same corner; depth is the distance along the unit ray.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shacira_nerfstudio.scenes.camera_faults import number_faults, pose_fault

IMAGE_SUFFIXES = (".exr", ".png", ".jpg", ".jpeg")
"""Tried in this order: an EXR is what the 8-bit copies beside it were made from."""

BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}

MAX_DEPTH = 1000.0
"""Depths outside (-1000, 1000) say that the ray left the scene; the data set writes -3.4e38."""

DEPTH_SAMPLES = 400  # per side, for normalisation: the 1600 of the original scenes over 4

BOX_MARGIN = 1.05  # as other RTMV readers: stated boxes need not hold everything

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class RtmvFrame:
    """One view: its files and its camera at full resolution."""

    image_path: Path
    depth_path: Path | None
    """Separate depth file, if there is one."""
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


def read_rtmv_scene(path: Path) -> tuple[RtmvFrame, ...]:
    """Reads all views of an RTMV folder in the order of their numbers; opens no image."""
    path = Path(path)
    stems = _frame_stems(path)
    if not stems:
        names = sorted(entry.name for entry in path.iterdir())[:6] if path.is_dir() else []
        found = ", ".join(names) or ("nothing in it" if path.is_dir() else "no such folder")
        raise FileNotFoundError(
            f"expected an RTMV scene (00000.json, 00000.exr, ...) in {path}, found {found}"
        )
    frames = tuple(_read_frame(path, stem) for stem in stems)
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
    """Reads an image as sRGB colours in [0, 1], composited on a background, [H, W, 3].

    In this order: ``rgb * alpha + background * (1 - alpha)`` on linear values, clip to [0, 1] (the
    tone mapping), average over ``downscale x downscale`` pixels, still linear, then the sRGB curve.
    PNG and JPG hold sRGB already and are made linear first, so the curve is never applied twice.

    Args:
        source: A frame (then the size is checked, too) or the path of an image.
        background: "white", "black" or three sRGB values.
        exposure: Gain in stops on the scene's linear colours; the background keeps its own.
        downscale: Whole factor; what fills no whole block is cut off at the right and bottom.
    """
    path = source.image_path if isinstance(source, RtmvFrame) else Path(source)
    rgb, alpha = _read_linear_rgba(path)
    if isinstance(source, RtmvFrame):
        _check_size(path, rgb, source)
    behind = srgb_to_linear(background_color(background))
    linear = np.clip(rgb * np.float32(2.0**exposure) * alpha + behind * (1.0 - alpha), 0.0, 1.0)
    if not 1 <= downscale <= min(linear.shape[:2]):
        raise ValueError(f"expected downscale 1 to {min(linear.shape[:2])}, got {downscale}")
    height, width = (size // downscale for size in linear.shape[:2])
    blocks = linear[: height * downscale, : width * downscale]
    blocks = blocks.reshape(height, downscale, width, downscale, 3)
    return linear_to_srgb(blocks.mean(axis=(1, 3))).astype(np.float32)


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
        channels = {name.lower(): pixels for name, pixels in _read_exr(path).items()}
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


def split_indices(num_frames: int) -> dict[str, range]:
    """RTMV's splits by order: two thirds train, the next thirtieth val, the rest test."""
    if num_frames < 2:
        raise ValueError(f"expected at least 2 views to split, got {num_frames}")
    val = 2 * num_frames // 3
    test = val + num_frames // 30
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


def linear_to_srgb(linear: Array) -> Array:
    """The sRGB curve (IEC 61966-2-1) on values in [0, 1]."""
    power = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, power)


def srgb_to_linear(srgb: Array) -> Array:
    """Inverse of :func:`linear_to_srgb`."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _frame_stems(path: Path) -> list[str]:
    entries = path.iterdir() if path.is_dir() else ()
    return sorted(entry.stem for entry in entries if re.fullmatch(r"\d{5}\.json", entry.name))


def _find(path: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    candidates = (path / (stem + suffix) for suffix in suffixes)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _read_frame(path: Path, stem: str) -> RtmvFrame:
    json_path = path / f"{stem}.json"
    image_path = _find(path, stem, IMAGE_SUFFIXES)
    if image_path is None:
        raise FileNotFoundError(f"expected {stem}.exr, .png or .jpg beside {json_path}, found none")
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


def _read_exr(path: Path) -> dict[str, NDArray[np.float32]]:
    """Channels by name; the library's default would merge R, G, B, A into one."""
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as exr:
            return {name: np.array(c.pixels, np.float32) for name, c in exr.channels().items()}
    except RuntimeError as error:
        raise ValueError(f"expected an OpenEXR file at {path}, found: {error}") from error


def exr_size(path: Path) -> tuple[int, int]:
    """Width and height, by the header alone."""
    import OpenEXR

    if not path.is_file():
        raise FileNotFoundError(f"expected an OpenEXR file at {path}, found none")
    try:
        with OpenEXR.File(str(path), header_only=True) as exr:
            low, high = (np.asarray(corner) for corner in exr.header()["dataWindow"])
    except RuntimeError as error:
        raise ValueError(f"expected an OpenEXR file at {path}, found: {error}") from error
    width, height = (high - low + 1).tolist()
    return width, height


def _read_linear_rgba(path: Path) -> tuple[Array, Array]:
    """Linear straight colours [H, W, 3] and alpha [H, W, 1]."""
    if path.suffix.lower() == ".exr":
        channels = _read_exr(path)
        if not {"R", "G", "B"} <= set(channels):
            raise ValueError(f"expected channels R, G, B in {path}, found {sorted(channels)}")
        rgb = np.stack([channels[name] for name in "RGB"], axis=-1)
        alpha = channels.get("A", np.ones(rgb.shape[:2], np.float32))[..., None]
        is_nan = np.isnan(alpha[..., 0]) | (np.isnan(rgb).any(-1) & (alpha[..., 0] > 0))
        if is_nan.any():
            row, column = np.argwhere(is_nan)[0].tolist()
            raise ValueError(
                f"expected numbers in {path}, found {is_nan.sum()} pixels that are none (NaN), the "
                f"first in row {row}, column {column}; render it again or make them transparent"
            )
        # nan or inf at alpha 0 would survive the product; 1e6 is clipped to 1 like inf.
        return np.nan_to_num(rgb, nan=0.0, posinf=1e6, neginf=-1e6), np.clip(alpha, 0.0, 1.0)
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"), np.float32) / 255.0
    return srgb_to_linear(pixels[..., :3]), pixels[..., 3:]


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
