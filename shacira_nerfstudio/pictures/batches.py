"""Pixels of one training step: all of them, or those of some tiles.

A latent of a fine level is read by a few neighbouring pixels. Where these come together, its
gradient is whole, and latents stay in the cache; so a step takes tiles and not single pixels. Each
tile comes once before any comes again.

Notation: S pixels, D axes, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.pictures.layout import PixelLayout

TILE_SIDE = 16
KEPT_PIXELS = 1 << 23
"""Up to so many pixels are kept as floats, tile after tile: 170 MB."""
Batch = tuple[Tensor, Tensor, Tensor | None]
"""Positions [S, D] in the unit cube, channels [S, C] in [0, 1], and weights [S, C] of their errors,
None where all are 1."""


class PixelBatches:
    """Batches of a picture or a video.

    Args:
        pixels: Integers [H, W, C], or [T, H, W, C] of a video; an array or anything that is indexed
            like one, such as a memory-mapped file.
        num_pixels: Of a batch, roughly.
    """

    def __init__(self, pixels: Any, layout: PixelLayout, num_pixels: int, *, seed: int) -> None:
        self._pixels, self._layout = pixels, layout
        self._rng = np.random.default_rng(seed)
        self._queue = np.empty(0, np.int64)
        height, width = min(TILE_SIDE, layout.height), min(TILE_SIDE, layout.width)
        self._tile = np.arange(height)[:, None], np.arange(width)[None, :]
        self._counts = (layout.frames, -(-layout.height // height), -(-layout.width // width))
        self._per_batch = max(1, round(num_pixels / (height * width)))
        self._num_tiles = int(np.prod(self._counts))
        self._all: Batch | None = None
        self._kept: tuple[np.ndarray, np.ndarray] | None = None
        if layout.num_pixels <= KEPT_PIXELS:
            everything = self.tiles(np.arange(self._num_tiles))
            if layout.num_pixels <= num_pixels:
                self._all = everything
            self._kept = tuple(  # pyright: ignore[reportAttributeAccessIssue]
                v.t().numpy().reshape(v.shape[1], self._num_tiles, -1) for v in everything[:2]
            )

    def next(self) -> Batch:
        """All pixels, or those of the next tiles."""
        if self._all is not None:
            return self._all
        while len(self._queue) < self._per_batch:
            order = self._rng.permutation(self._num_tiles)
            self._queue = np.concatenate([self._queue, order])
        chosen, self._queue = self._queue[: self._per_batch], self._queue[self._per_batch :]
        return self.tiles(chosen)

    def tiles(self, numbers: np.ndarray) -> Batch:
        """Pixels of some tiles."""
        if self._kept is not None:
            positions, colors = (
                torch.from_numpy(v[:, numbers].reshape(len(v), -1)).t() for v in self._kept
            )
            return positions, colors, _weights(colors) if self._layout.has_alpha else None
        layout, (rows, columns) = self._layout, self._tile
        t, y, x = np.unravel_index(numbers, self._counts)
        # The last tiles of a side overlap those before.
        y = np.minimum(y * len(rows), layout.height - len(rows))[:, None, None] + rows
        x = np.minimum(x * columns.shape[1], layout.width - columns.shape[1])[:, None, None]
        y, x = np.broadcast_arrays(y, x + columns)
        t = np.broadcast_to(t[:, None, None], y.shape)
        at = (t, y, x) if layout.is_video else (y, x)
        values = self._pixels[at].reshape(-1, layout.channels)
        axes = (x, y, t)[: len(layout.axes)]
        places = [(v.ravel() + 0.5) / n for v, n in zip(axes, layout.axes, strict=True)]
        positions = torch.from_numpy(np.stack(places).astype(np.float32)).t()
        colors = torch.from_numpy(values.astype(np.float32).T / layout.largest).t()
        return positions, colors, _weights(colors) if layout.has_alpha else None

    def sample(self, num_pixels: int) -> Batch:
        """Evenly spread tiles of about so many pixels, always the same."""
        total = self._num_tiles
        count = min(total, max(1, num_pixels // (self._tile[0].size * self._tile[1].size)))
        return self.tiles(np.linspace(0, total - 1, count).round().astype(np.int64))


def _weights(colors: Tensor) -> Tensor:
    """Colours count as much as they are seen; alpha counts always."""
    alpha = colors[:, -1:]
    return torch.cat([alpha.expand(-1, colors.shape[1] - 1), torch.ones_like(alpha)], 1)
