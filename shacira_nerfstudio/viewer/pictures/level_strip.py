"""What each level of a file adds to a picture, and what it costs.

A cell per level, coarse to fine: above, the scene as a file that ends behind this level shows it;
below, the change from the level before, grey where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from shacira_nerfstudio.model.scene import PinholeCamera, RadianceScene
from shacira_nerfstudio.viewer.pictures.drawing import (
    FAINT,
    INK,
    PAPER,
    as_picture,
    draw_line,
    fitting_size,
    save_png,
    scaled,
)

MAX_COLUMNS = 8
"""Levels side by side."""
_GAP, _LINE = 8, 15
"""Pixels between cells, and from line to line."""
_GAIN = 2.0
"""Changes are shown so much stronger."""
_TITLE = 38
_MAX_WIDTH = 400
"""Pictures are rendered in up to so many columns, compared, and drawn smaller: fine levels are
about details that a small picture does not have."""


@torch.no_grad()
def level_pictures(
    scene: RadianceScene, camera: PinholeCamera, num_levels: int
) -> list[np.ndarray]:
    """What a camera sees with the first 0, 1, ..., ``num_levels`` levels, [H, W, 3] each."""
    encoding, shown = scene.encoding, scene.encoding.max_level
    try:
        pictures = []
        for level in range(num_levels + 1):
            encoding.max_level = level
            pictures.append(scene.render_view(camera).numpy())
        return pictures
    finally:
        encoding.max_level = shown


def write_level_strip(
    path: Path,
    scene: RadianceScene,
    camera: PinholeCamera,
    description: Mapping[str, Any],
    *,
    title: str,
    width: int = 160,
) -> None:
    """Draws the strip of a file, as PNG.

    Args:
        description: See :func:`shacira_nerfstudio.codec.describe`.
        width: Of one picture, in pixels.
    """
    num_levels = description["num_levels_present"]
    if not num_levels:
        raise ValueError("expected a file with levels to draw, found none of them in it")
    drawn = camera.resized(width=width)
    camera = camera.resized(width=max(width, min(camera.width, _MAX_WIDTH)))
    pictures = level_pictures(scene, camera, num_levels)
    rows = -(-num_levels // MAX_COLUMNS)
    columns = -(-num_levels // rows)
    cell_width, cell_height = width + _GAP, 2 * (drawn.height + 4) + 3 * _LINE + 2 * _GAP
    size = columns * cell_width + _GAP, rows * cell_height + _TITLE
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_title(draw, title, description, width=size[0] - 2 * _GAP)
    captions = [_caption(description, pictures, level) for level in range(num_levels)]
    letters = fitting_size([line for lines in captions for line in lines], width, largest=12)
    for level, lines in enumerate(captions):
        left = _GAP + level % columns * cell_width
        top = _TITLE + level // columns * cell_height
        before, now = pictures[level : level + 2]
        sheet.paste(scaled(as_picture(now), width), (left, top))
        change = as_picture(0.5 + _GAIN * (now - before) / 2)
        sheet.paste(scaled(change, width), (left, top + drawn.height + 4))
        under = top + 2 * (drawn.height + 4) + 2
        for number, line in enumerate(lines):
            at = (left, under + number * _LINE)
            draw_line(draw, at, line, letters, color=FAINT if number else INK)
    save_png(path, sheet)


def _draw_title(
    draw: ImageDraw.ImageDraw, title: str, description: Mapping[str, Any], *, width: int
) -> None:
    beside = description["bytes"] - sum(description["bytes_by_level"])
    text = (
        f"{title}, {description['bytes']:,} bytes: the picture up to each level, and what the "
        f"level changes (x{_GAIN:g}, grey is nothing); {beside:,} bytes come before the levels"
    )
    draw_line(draw, (_GAP, 12), text, fitting_size([text], width, largest=14))


def _caption(
    description: Mapping[str, Any], pictures: list[np.ndarray], level: int
) -> tuple[str, str, str]:
    """Which level it is, its bytes, and how near the picture is to that of the whole file."""
    axes = description["resolutions"][level]
    resolution = str(axes[0]) if len(set(axes)) == 1 else "x".join(map(str, axes))
    error = float(np.square(pictures[level + 1] - pictures[-1], dtype=np.float64).mean())
    is_last = level + 2 == len(pictures)
    distance = f"PSNR {-10 * np.log10(max(error, 1e-10)):.1f} dB vs whole"
    near = "the whole file" if is_last else distance
    added, so_far = description["bytes_by_level"][level], description["prefix_bytes"][level]
    return (
        f"level {level}, {resolution}",
        f"+{added:,} = {so_far:,} bytes",
        near,
    )
