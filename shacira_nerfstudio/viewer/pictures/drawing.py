"""What all drawn pictures share: text that is legible, tiles of one size, colours for errors."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shacira_nerfstudio.output_files import write_file

INK, FAINT, PAPER = (23, 23, 28), (104, 104, 116), (255, 255, 255)
"""Colours of text, of text beside it, and of what is behind both."""
_HEAT = np.array(
    [(0, 0, 0), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    np.float64,
)
"""Even steps from nothing to the largest error: black, purple, orange, yellow."""


@lru_cache(maxsize=8)
def font(size: int) -> Any:
    """The font that comes with Pillow, in pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Of one line, in pixels."""
    return font(size).getlength(text)


def fitting_size(texts: list[str], width: float, *, largest: int, smallest: int = 8) -> int:
    """The largest size of letters, in pixels, in which each of these lines fits into a width."""
    for size in range(largest, smallest, -1):
        if all(text_width(text, size) <= width for text in texts):
            return size
    return smallest


def draw_line(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    *,
    color: tuple[int, int, int] = INK,
    anchor: str = "lt",
) -> None:
    """Draws a line of text at a point, by default its left top corner."""
    draw.text(at, text, fill=color, font=font(size), anchor=anchor)


def as_picture(colors: np.ndarray) -> Image.Image:
    """A picture of colours in [0, 1], [H, W, 3]."""
    pixels = (np.clip(colors, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels)


def scaled(picture: Image.Image, width: int) -> Image.Image:
    """In another width: whole pixels are repeated where it grows, averaged where it shrinks."""
    height = max(1, round(picture.height * width / picture.width))
    grows = width >= picture.width
    how = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return picture if width == picture.width else picture.resize((width, height), how)


def heat_map(values: np.ndarray, largest: float) -> np.ndarray:
    """Colours [H, W, 3] in [0, 1] of values [H, W] from 0 to the largest; more looks the same."""
    at = np.clip(values / largest, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(at.astype(int), len(_HEAT) - 2)
    part = (at - low)[..., None]
    return (_HEAT[low] * (1 - part) + _HEAT[low + 1] * part) / 255


def save_png(path: Path, picture: Image.Image) -> None:
    """Writes a PNG file, see :func:`write_file`."""
    data = io.BytesIO()
    picture.save(data, format="png")
    write_file(path, data.getvalue())
