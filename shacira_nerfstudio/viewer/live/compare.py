"""Two files in one picture, left and right of a divider, each with its name and bytes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LEAST_WIDTH_OF_TEXT = 320
"""Narrower pictures, of a moving camera, have no room for words."""


def divided(width: int, divider: float, num_files: int) -> list[slice]:
    """Columns of a picture that show the first file, and the second one if there are two.

    Args:
        divider: Share of the width that the first one gets, from 0 to 1.
    """
    if num_files == 1:
        return [slice(0, width)]
    at = min(max(round(width * divider), 0), width)
    return [slice(0, at), slice(at, width)]


def mark_divider(image: np.ndarray, columns: list[slice]) -> np.ndarray:
    """Draws a line between two files."""
    if len(columns) == 2 and 0 < columns[1].start < image.shape[1]:
        half = max(1, image.shape[1] // 600)
        image[:, max(columns[1].start - half, 0) : columns[1].start + half] = (255, 170, 40)
    return image


def add_labels(image: np.ndarray, columns: list[slice], labels: list[str]) -> np.ndarray:
    """Writes a label into the lower outer corner of each file's part, if there is room."""
    height, width = image.shape[:2]
    if width < _LEAST_WIDTH_OF_TEXT:
        return image
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(size=max(11, width // 50))
    for index, (part, label) in enumerate(zip(columns, labels, strict=True)):
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        if right - left + 24 > part.stop - part.start:
            continue
        x = part.start + 10 if index == 0 else part.stop - (right - left) - 14
        y = height - (bottom - top) - 18
        draw.rectangle((x - 6, y - 5, x + right - left + 6, y + bottom - top + 7), (0, 0, 0, 150))
        draw.text((x - left, y - top), label, fill=(255, 255, 255), font=font)
    return np.array(picture)
