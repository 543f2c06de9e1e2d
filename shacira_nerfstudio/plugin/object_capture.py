"""Pictures that are cut out show an object on nothing, whatever the data parser makes of them.

A parser that knows no background colour hands such pictures on with their alpha, and a scene that
reaches to infinity then learns fog. Here the pixels decide: an object ends at a box around what all
cameras see of it (its visual hull: Laurentini, "The visual hull concept for silhouette-based image
understanding", TPAMI 1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from numpy.typing import NDArray

from shacira_nerfstudio.compression.probe import evenly_spaced
from shacira_nerfstudio.plugin.dataset_metadata import Box
from shacira_nerfstudio.plugin.input_check import camera_sizes
from shacira_nerfstudio.plugin.picture_files import read_header, read_pixels

_NUM_PICTURES = 24
_EMPTY_SHARE = 0.1
"""Mean share of transparent pixels from which pictures are cut out, and not merely retouched."""
_CELLS = 40
"""Per axis, of the hull."""
_SEARCH = 2.0
"""The hull is looked for in the parser's box, so many times as large."""
_MARGIN = 0.05
"""Of the box on each side: lenses are taken as pinholes."""
_SEEN_SHARE = 0.5
"""Of the pictures, that must show a place of the object."""


@dataclass(frozen=True)
class ObjectCapture:
    """An object that was cut out."""

    empty_share: float
    """Mean share of transparent pixels."""
    box: Box | None
    """A cube around it; None where silhouettes do not tell."""

    @property
    def reason(self) -> str:
        """What was found, for people."""
        if self.box is None:
            fits = "in the data parser's box"
        else:
            (x, y, z), (high, *_) = self.box
            half = (high - x) / 2
            center = ", ".join(f"{value + half:.2g}" for value in (x, y, z))
            fits = f"within {half:.2g} of ({center})"
        return (
            f"pictures are cut out ({self.empty_share:.0%} of their pixels are transparent): "
            f"an object {fits}, on white"
        ).replace("%", " %", 1)


def find_object(outputs: DataparserOutputs) -> ObjectCapture | None:
    """What pictures with alpha show; None without alpha, or where pictures cannot be read."""
    if outputs.alpha_color is not None or "rtmv" in outputs.metadata:
        return None  # the parser has seen to it
    paths, sizes = outputs.image_filenames, camera_sizes(outputs)
    chosen = evenly_spaced(len(paths), _NUM_PICTURES)
    try:
        if not any(read_header(paths[index]).has_alpha for index in chosen):
            return None
        pictures = [read_pixels(paths[index], sizes[index]) for index in chosen]
    except (OSError, ValueError):
        return None
    solid = [
        picture[..., 3] > 127 if picture.shape[-1] == 4 else np.ones(picture.shape[:2], bool)
        for picture in pictures
    ]
    empty_share = 1 - float(np.mean([mask.mean() for mask in solid]))
    if empty_share < _EMPTY_SHARE:
        return None
    is_pinhole = (outputs.cameras.camera_type == CameraType.PERSPECTIVE.value).all()
    return ObjectCapture(empty_share, _hull_box(outputs, chosen, solid) if is_pinhole else None)


def _hull_box(
    outputs: DataparserOutputs, chosen: list[int], solid: list[NDArray[np.bool_]]
) -> Box | None:
    cameras = outputs.cameras.flatten().to("cpu")
    columns = (cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.cx, cameras.cy)
    poses, *lenses = (column[chosen].numpy().astype(np.float64) for column in columns)
    # Sums over rectangles in four look-ups: a cell is empty if no pixel of its footprint is solid.
    sums = [np.pad(mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0))) for mask in solid]
    views = [
        (pose, [float(lens[number, 0]) for lens in lenses], table)
        for number, (pose, table) in enumerate(zip(poses, sums, strict=True))
    ]
    low, high = outputs.scene_box.aabb.numpy().astype(np.float64)
    center, half = (low + high) / 2, _SEARCH * (high - low).max() / 2
    low, high = center - half, center + half
    for _ in range(3):  # finer each time
        cell = (high - low) / _CELLS
        kept = _hull_cells(low, cell, views)
        if not len(kept):
            return None
        low, high = low + cell * kept.min(0), low + cell * (kept.max(0) + 1)
    center, half = (low + high) / 2, (0.5 + _MARGIN) * (high - low).max()
    return tuple((center - half).tolist()), tuple((center + half).tolist())  # pyright: ignore


def _hull_cells(low: NDArray, cell: NDArray, views: list) -> NDArray[np.int64]:
    """Indices [N, 3] of cells that no silhouette excludes and enough pictures show."""
    index = np.stack(np.meshgrid(*[np.arange(_CELLS)] * 3, indexing="ij"), -1).reshape(-1, 3)
    num_seen = np.zeros(len(index), np.int64)
    radius = np.linalg.norm(cell) / 2
    for pose, (fx, fy, cx, cy), table in views:
        local = (low + (index + 0.5) * cell - pose[:, 3]) @ pose[:, :3]
        depth = -local[:, 2]
        near = np.maximum(depth, 1e-9)
        u, v = cx + fx * local[:, 0] / near, cy - fy * local[:, 1] / near
        height, width = (side - 1 for side in table.shape)
        is_seen = (depth > radius) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        reach = np.where(is_seen, radius / near, 0.0)
        left, right = (_pixels(u + side * (fx * reach + 1), width) for side in (-1, 1))
        top, bottom = (_pixels(v + side * (fy * reach + 1), height) for side in (-1, 1))
        count = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        keep = ~is_seen | (count > 0)
        index, num_seen = index[keep], (num_seen + is_seen)[keep]
    return index[num_seen >= _SEEN_SHARE * len(views)]


def _pixels(values: NDArray, side: int) -> NDArray[np.int64]:
    return np.clip(np.nan_to_num(values), 0, side).astype(np.int64)
