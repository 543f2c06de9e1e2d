"""Ordinary codecs, as Pillow brings them: the same pixels in, whole files counted."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, features


@dataclass(frozen=True)
class Rival:
    """A codec and the settings that make its curve."""

    name: str
    format: str
    settings: tuple[dict[str, Any], ...]

    @property
    def is_there(self) -> bool:
        """Whether this Pillow has it."""
        parts = {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000", "JPEG": "jpg"}
        return bool(features.check(parts[self.format]))


RIVALS = (
    Rival(
        "JPEG",
        "JPEG",
        tuple({"quality": q, "optimize": True} for q in (5, 10, 20, 35, 50, 65, 80, 90)),
    ),
    Rival("WebP", "WEBP", tuple({"quality": q, "method": 6} for q in (1, 10, 30, 50, 70, 85))),
    Rival(
        "JPEG 2000",
        "JPEG2000",
        tuple(
            {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True}
            for rate in (160, 100, 60, 40, 28, 20)
        ),
    ),
    Rival("AVIF", "AVIF", tuple({"quality": q, "speed": 4} for q in (20, 30, 40, 50, 60, 70, 80))),
)


def encode(rival: Rival, setting: dict[str, Any], pixels: np.ndarray) -> dict[str, Any]:
    """The bytes of a file, what it decodes to, and the seconds of both.

    Args:
        pixels: uint8 [H, W, 3].
    """
    begin = time.perf_counter()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=rival.format, **setting)
    encoded = time.perf_counter()
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        found = np.array(image.convert("RGB"))
    return {
        "bytes": len(stream.getvalue()),
        "pixels": found,
        "train_seconds": encoded - begin,
        "decode_seconds": time.perf_counter() - encoded,
    }
