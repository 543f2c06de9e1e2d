"""Pixels to a file, and what that file reaches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from shacira_nerfstudio.codec import decode_scene, encode_scene
from shacira_nerfstudio.pictures.decoder import PixelDecoder, Region
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions
from shacira_nerfstudio.pictures.training import PictureTraining, Report, psnr_of, silent


@dataclass(frozen=True)
class Compressed:
    """A file and its figures."""

    data: bytes
    layout: PixelLayout
    psnr: float
    """Of the decoded file against all pixels, in dB; all channels alike."""
    train_seconds: float
    decode_seconds: float
    """Of the whole file to pixels, in memory."""

    @property
    def bits_per_pixel(self) -> float:
        return 8 * len(self.data) / self.layout.num_pixels

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "bytes": len(self.data),
            "bpp": self.bits_per_pixel,
            "psnr": self.psnr,
            "width": self.layout.width,
            "height": self.layout.height,
            "frames": self.layout.frames,
            "train_seconds": self.train_seconds,
            "decode_seconds": self.decode_seconds,
        }


def compress_pixels(
    pixels: Any, layout: PixelLayout, options: PictureOptions, *, report: Report = silent
) -> Compressed:
    """Trains, encodes, decodes what was encoded, and measures that.

    Args:
        pixels: Integers [H, W, C], or [T, H, W, C] of a video, that can be indexed like an array.

    Raises:
        ValueError: shapes differ, or options are out of range.
    """
    shape = (layout.frames,) * layout.is_video + (layout.height, layout.width, layout.channels)
    if tuple(pixels.shape) != shape:
        raise ValueError(f"expected pixels {shape}, got {tuple(pixels.shape)}")
    begin = time.perf_counter()
    packed = PictureTraining(pixels, layout, options).run(report)
    data = encode_scene(packed)
    trained = time.perf_counter()
    decoded = decode_scene(data)
    if decoded != packed:
        raise RuntimeError("expected a file that decodes to what was packed, got another scene")
    decoder = PixelDecoder(decoded)
    error, shown = 0.0, 0.0
    for frame in range(layout.frames):
        truth, at = (pixels[frame] if layout.is_video else pixels), 0
        start = time.perf_counter()
        for band in decoder.bands(Region.of(layout), frame=frame):
            shown += time.perf_counter() - start
            error += _squared_error(truth[at : at + len(band)], band, layout)
            at += len(band)
            start = time.perf_counter()
    mean = error / (layout.num_pixels * layout.channels * layout.largest**2)
    start = time.perf_counter()
    decode_scene(data)
    shown += time.perf_counter() - start
    return Compressed(data, layout, psnr_of(mean), trained - begin, shown)


def _squared_error(truth: Any, found: np.ndarray, layout: PixelLayout) -> float:
    """Sum over channels; colours count as much as they are seen."""
    truth = np.asarray(truth, np.float64)
    errors = np.square(truth - found)
    if layout.has_alpha:
        errors[..., :-1] *= truth[..., -1:] / layout.largest
    return float(errors.sum())
