"""Sheets of an evaluation: truth | rendered | error, a row per view.

Whoever evaluates hands over views one by one; a sheet is written as soon as it is full.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageDraw

from shacira_nerfstudio.output_files import check_output_dir
from shacira_nerfstudio.viewer.pictures.drawing import (
    FAINT,
    PAPER,
    as_picture,
    draw_line,
    fitting_size,
    heat_map,
    save_png,
    scaled,
)

LARGEST_ERROR = 0.25
"""Mean absolute error of a pixel's three channels that is shown as brightest."""
_MIN_WIDTH, _MAX_WIDTH = 240, 800
"""Of a picture on a sheet, in pixels: below, captions would not fit."""
_GAP, _HEAD, _ROW_HEAD, _BAR = 8, 26, 20, 26
_TITLES = ("truth", "rendered", "error, mean of channels")


class SheetWriter:
    """Writes ``sheet_000.png``, ``sheet_001.png``, ... into a folder.

    A context manager: the last sheet is written when it ends. Sheets of an earlier evaluation in
    that folder are replaced, and those that this one does not reach are removed.

    Args:
        rows: Views on a sheet.
    """

    def __init__(self, folder: Path, *, rows: int = 4) -> None:
        check_output_dir(folder)
        self._folder, self._rows = folder, rows
        self._views: list[Image.Image] = []
        self.paths: list[Path] = []
        """What has been written."""

    def __enter__(self) -> SheetWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        self._write()
        for path in self._folder.glob("sheet_*.png"):
            if path not in self.paths:
                path.unlink()

    def add(self, truth: np.ndarray, rendered: np.ndarray, caption: str) -> None:
        """Adds a view.

        Args:
            truth, rendered: Colours in [0, 1], [H, W, 3].
            caption: One line, such as the name of the view and its PSNR.
        """
        if truth.shape != rendered.shape or truth.ndim != 3 or truth.shape[2] != 3:
            raise ValueError(
                f"expected two pictures [H, W, 3] of one size, got {list(truth.shape)} and "
                f"{list(rendered.shape)}"
            )
        self._views.append(_draw_row(truth, rendered, caption))
        if len(self._views) == self._rows:
            self._write()

    def _write(self) -> None:
        if not self._views:
            return
        width = max(view.width for view in self._views)
        height = _HEAD + sum(view.height for view in self._views) + _BAR
        sheet = Image.new("RGB", (width, height), PAPER)
        draw = ImageDraw.Draw(sheet)
        column = (width - _GAP) // 3
        for index, title in enumerate(_TITLES):
            draw_line(draw, (_GAP + index * column, 7), title, 15)
        top = _HEAD
        for view in self._views:
            sheet.paste(view, (0, top))
            top += view.height
        _draw_scale(sheet, draw, left=_GAP + 2 * column, top=top + 4, width=column - _GAP)
        path = self._folder / f"sheet_{len(self.paths):03d}.png"
        save_png(path, sheet)
        self.paths.append(path)
        self._views = []


def error_picture(truth: np.ndarray, rendered: np.ndarray) -> np.ndarray:
    """Colours [H, W, 3] of the mean absolute error of a pixel's channels."""
    return heat_map(np.abs(truth - rendered).mean(-1), LARGEST_ERROR)


def _draw_row(truth: np.ndarray, rendered: np.ndarray, caption: str) -> Image.Image:
    width = min(max(truth.shape[1], _MIN_WIDTH), _MAX_WIDTH)
    if truth.shape[1] < _MIN_WIDTH:  # whole pixels stay square
        width = -(-_MIN_WIDTH // truth.shape[1]) * truth.shape[1]
    pictures = [
        scaled(as_picture(colors), width)
        for colors in (truth, rendered, error_picture(truth, rendered))
    ]
    size = 3 * (width + _GAP) + _GAP, pictures[0].height + _ROW_HEAD + _GAP
    row = Image.new("RGB", size, PAPER)
    letters = fitting_size([caption], size[0] - 2 * _GAP, largest=13)
    draw_line(ImageDraw.Draw(row), (_GAP, 3), caption, letters, color=FAINT)
    for index, picture in enumerate(pictures):
        row.paste(picture, (_GAP + index * (width + _GAP), _ROW_HEAD))
    return row


def _draw_scale(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, *, left: int, top: int, width: int
) -> None:
    """What the colours of an error mean: a bar from 0 to the largest."""
    first, last = "0 ", f" {LARGEST_ERROR:g} and more"
    begin = left + round(draw.textlength(first, font=None) + 6)
    end = left + width - 105
    if end - begin < 20:
        return
    bar = heat_map(np.linspace(0, 1, end - begin)[None].repeat(12, 0), 1.0)
    sheet.paste(as_picture(bar), (begin, top))
    draw_line(draw, (left, top), first, 13, color=FAINT)
    draw_line(draw, (end, top), last, 13, color=FAINT)
