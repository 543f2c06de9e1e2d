"""Linear light in files and its way to sRGB: OpenEXR by channels, PNG and JPG made linear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def linear_to_srgb(linear: Array) -> Array:
    """The sRGB curve (IEC 61966-2-1) on values in [0, 1]."""
    power = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, power)


def srgb_to_linear(srgb: Array) -> Array:
    """Inverse of :func:`linear_to_srgb`."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def read_exr(path: Path) -> dict[str, Array]:
    """Channels by name, in the file's own numbers; the library's default would merge R, G, B, A
    into one."""
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as exr:
            return {name: channel.pixels for name, channel in exr.channels().items()}
    except RuntimeError as error:
        raise ValueError(f"expected an OpenEXR file at {path}, found: {error}") from error


def write_exr(path: Path, pixels: Array) -> None:
    """Writes four channels [H, W, 4] as float, losslessly compressed."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"RGBA": pixels.astype(np.float32)}) as exr:
        exr.write(str(path))


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


def read_linear_rgba(path: Path) -> tuple[Array, Array]:
    """Linear straight colours [H, W, 3] and alpha [H, W, 1] in [0, 1], both float32.

    Raises:
        ValueError: the file holds something else, or pixels that are no numbers.
    """
    if path.suffix.lower() == ".exr":
        channels = read_exr(path)
        if not {"R", "G", "B"} <= set(channels):
            raise ValueError(f"expected channels R, G, B in {path}, found {sorted(channels)}")
        rgb = np.stack([channels[name] for name in "RGB"], axis=-1).astype(np.float32, copy=False)
        alpha = channels.get("A", np.ones(rgb.shape[:2], np.float32))
        alpha = alpha.astype(np.float32, copy=False)[..., None]
        _refuse_nan(path, rgb, alpha)
        # nan or inf at alpha 0 would survive the product; 1e6 is clipped to 1 like inf.
        return np.nan_to_num(rgb, nan=0.0, posinf=1e6, neginf=-1e6), np.clip(alpha, 0.0, 1.0)
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"), np.float32) / 255.0
    return srgb_to_linear(pixels[..., :3]), pixels[..., 3:]


def _refuse_nan(path: Path, rgb: Array, alpha: Array) -> None:
    is_nan = np.isnan(alpha[..., 0]) | (np.isnan(rgb).any(-1) & (alpha[..., 0] > 0))
    if is_nan.any():
        row, column = np.argwhere(is_nan)[0].tolist()
        raise ValueError(
            f"expected numbers in {path}, found {is_nan.sum()} pixels that are none (NaN), the "
            f"first in row {row}, column {column}; render it again or make them transparent"
        )
