"""A box around an object, from its silhouettes alone.

What all cameras see inside of a silhouette is the object's visual hull (Laurentini, "The visual
hull concept for silhouette-based image understanding", TPAMI 1994). Cells of a grid are thrown away
that some silhouette excludes; what is left is looked at again in a finer grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[float, float, float], tuple[float, float, float]]

_CELLS, _PASSES = 40, 3
"""Cells per axis, and grids."""
_MARGIN = 0.05
"""Of the box on each side: lenses are taken as pinholes."""
_SEEN_SHARE = 0.5
"""Of the pictures, that must show a place of the object."""


@dataclass(frozen=True, eq=False)
class Silhouette:
    """What a camera sees of an object; axes as in :mod:`shacira_nerfstudio.scenes.rtmv`."""

    pose: NDArray[np.float64]
    """Camera to world, [3, 4]."""
    lens: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""
    solid: NDArray[np.bool_]
    """Pixels of the object, [H, W]."""


def hull_box(views: Sequence[Silhouette], low: NDArray, high: NDArray) -> Box | None:
    """A cube around the hull, or None if silhouettes contradict one another.

    Args:
        low, high: Corners of the box to look in.
    """
    # Sums over rectangles in four look-ups: a cell is empty if no pixel of its footprint is solid.
    sums = [np.pad(v.solid.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0))) for v in views]
    for _ in range(_PASSES):
        cell = (high - low) / _CELLS
        kept = _hull_cells(low, cell, views, sums)
        if not len(kept):
            return None
        low, high = low + cell * kept.min(0), low + cell * (kept.max(0) + 1)
    center, half = (low + high) / 2, (0.5 + _MARGIN) * (high - low).max()
    return tuple((center - half).tolist()), tuple((center + half).tolist())


def _hull_cells(
    low: NDArray, cell: NDArray, views: Sequence[Silhouette], sums: list[NDArray]
) -> NDArray[np.int64]:
    """Indices [N, 3] of cells that no silhouette excludes and enough pictures show."""
    index = np.stack(np.meshgrid(*[np.arange(_CELLS)] * 3, indexing="ij"), -1).reshape(-1, 3)
    num_seen = np.zeros(len(index), np.int64)
    radius = np.linalg.norm(cell) / 2
    for view, table in zip(views, sums, strict=True):
        fx, fy, cx, cy = view.lens
        local = (low + (index + 0.5) * cell - view.pose[:, 3]) @ view.pose[:, :3]
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
