"""Pixels of a file, exactly: numpy alone, and the same integers on every machine.

FORMAT.md, section 10, is the specification. Weights of interpolation are integers of 12 bits,
activations multiples of 2^-12, and sums of products are integers below 2^53, which double precision
holds whatever the order in which they are added. What is left are single operations that IEEE 754
rounds in one way only.

Notation: L levels, d channels of a latent, F = 2^12, K inputs of a layer, S pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec import PackedScene, SceneFormatError
from shacira_nerfstudio.pictures.layout import PixelLayout

FRACTION_BITS = 12
ONE = 1 << FRACTION_BITS
"""F."""
MAX_ACTIVATION = float(1 << 30)
MAX_INPUTS = 1 << 10
"""Of a layer: sums of so many products of 11 and of 30 bits are below 2^53."""
MAX_PIXELS = 1 << 29
"""Of an array: whatever a file says, no more is allocated."""
_BAND_PIXELS = 1 << 14
"""Pixels that go through the network together: their activations stay in the cache."""
_MAX_THREADS = 4


@dataclass(frozen=True)
class Region:
    """A part of a picture in some number of pixels."""

    left: int
    top: int
    right: int
    bottom: int
    """In pixels of the picture, right and bottom excluded."""
    width: int
    height: int
    """Pixels to make of it."""

    @classmethod
    def of(
        cls,
        layout: PixelLayout,
        box: tuple[int, int, int, int] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Region:
        """Left, top, right and bottom of a box, the whole by default; and the size it is shown in,
        by default its own."""
        left, top, right, bottom = box or (0, 0, layout.width, layout.height)
        if not (0 <= left < right <= layout.width and 0 <= top < bottom <= layout.height):
            raise ValueError(
                f"expected a box within {layout.width}x{layout.height} pixels, got "
                f"{left},{top},{right},{bottom}"
            )
        width, height = size or (right - left, bottom - top)
        if not (1 <= width <= 1 << 20 and 1 <= height <= 1 << 20):
            raise ValueError(f"expected a size of 1 to {1 << 20} pixels, got {width}x{height}")
        return cls(left, top, right, bottom, width, height)


def axis_samples(
    begin: int, end: int, count: int, length: int, vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lower vertex and fraction, in 1/4096, of ``count`` pixels that share begin … end of an axis.

    Args:
        length: Pixels of the whole axis.
        vertices: Of the level along it, N.
    """
    position = 2 * begin * count + (2 * np.arange(count, dtype=np.int64) + 1) * (end - begin)
    total = 2 * count * length
    # Cell coordinates are position / total * (N - 1) + 1/2.
    numerator, denominator = 2 * position * (vertices - 1) + total, 2 * total
    low, rest = np.divmod(numerator, denominator)
    return low, (rest * ONE // denominator).astype(np.float64)


class PixelDecoder:
    """What a decoded file shows.

    Args:
        num_levels: Levels from this one on read as 0; by default all are shown.

    Raises:
        SceneFormatError: it is no picture and no video, or its weights do not fit its head.
    """

    def __init__(self, scene: PackedScene, *, num_levels: int | None = None) -> None:
        self.layout = PixelLayout.of(scene)
        self._grid, self._scene = scene.grid, scene
        self._layers = _layers(scene, self.layout)
        symbols = scene.symbols
        self._levels = [
            level
            for level in range(min(scene.num_coded_levels, num_levels or scene.num_coded_levels))
            if scene.level_symbols(level).any()
        ]
        self._inputs = scene.grid.num_levels * symbols.shape[1]

    def pixels(
        self,
        box: tuple[int, int, int, int] | None = None,
        size: tuple[int, int] | None = None,
        *,
        frame: int = 0,
    ) -> np.ndarray:
        """Integers [H, W, channels], uint8 or uint16.

        Args:
            box: Left, top, right and bottom of a part of the picture, in its pixels.
            size: Width and height to show it in. Where that is smaller, each pixel is the mean of
                as many samples as it has pixels, rounded.
            frame: Of a video.
        """
        region = Region.of(self.layout, box, size)
        if region.width * region.height > MAX_PIXELS:
            raise ValueError(
                f"expected at most {MAX_PIXELS} pixels at a time, got {region.width}x"
                f"{region.height}: ask for a part, or for bands"
            )
        shape = (region.height, region.width, self.layout.channels)
        out = np.empty(shape, self.layout.dtype)
        at = 0
        for band in self.bands(region, frame=frame):
            out[at : at + len(band)] = band
            at += len(band)
        return out

    def bands(self, region: Region, *, frame: int = 0) -> Iterator[np.ndarray]:
        """The same, some rows at a time, from the top down: memory for a picture that has none."""
        if not 0 <= frame < self.layout.frames:
            raise ValueError(f"expected a frame from 0 to {self.layout.frames - 1}, got {frame}")
        # As many samples per pixel as it takes, so that nothing is skipped.
        dense = [
            -(-(region.right - region.left) // region.width),
            -(-(region.bottom - region.top) // region.height),
        ]
        along = self._along_axes(region, dense, frame)
        width = region.width * dense[0]
        rows = max(1, _BAND_PIXELS // (width * dense[1]))
        spans = [
            (begin, min(begin + rows, region.height)) for begin in range(0, region.height, rows)
        ]

        def band(span: tuple[int, int]) -> np.ndarray:
            values = self._samples(along, span[0] * dense[1], span[1] * dense[1], width)
            return _mean_of(values, *dense)

        num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(num_threads, "shacira_pixels") as pool:
            for begin in range(0, len(spans), 4 * num_threads):
                yield from pool.map(band, spans[begin : begin + 4 * num_threads])

    def _along_axes(
        self, region: Region, dense: list[int], frame: int
    ) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """:func:`axis_samples` of each level that holds anything, along each axis."""
        layout = self.layout
        spans = [
            (region.left, region.right, region.width * dense[0], layout.width),
            (region.top, region.bottom, region.height * dense[1], layout.height),
            (frame, frame + 1, 1, layout.frames),
        ]
        return [
            [
                axis_samples(*span, vertices=n)
                for span, n in zip(spans, self._grid.resolutions[level], strict=False)
            ]
            for level in self._levels
        ]

    def _samples(
        self, along: list[list[tuple[np.ndarray, np.ndarray]]], first: int, last: int, width: int
    ) -> np.ndarray:
        """Integers [rows, W, channels] of rows first … last."""
        channels = self._scene.latent_dim
        x = np.zeros((self._inputs, last - first, width))
        for level, axes in zip(self._levels, along, strict=True):
            found = self._interpolate(level, axes, first, last)
            x[level * channels : (level + 1) * channels] = np.moveaxis(found, -1, 0)
        return self._network(x.reshape(self._inputs, -1)).reshape(last - first, width, -1)

    def _interpolate(
        self, level: int, axes: list[tuple[np.ndarray, np.ndarray]], first: int, last: int
    ) -> np.ndarray:
        """Latents in 1/F, [rows, W, d]."""
        (columns, right), (rows, below) = axes[0], (v[first:last] for v in axes[1])
        xs = np.arange(columns[0], columns[-1] + 2)
        ys = np.arange(rows[0], rows[-1] + 2)
        frames = [0] if len(axes) == 2 else [int(axes[2][0][0]), int(axes[2][0][0]) + 1]
        planes = [self._vertices(level, xs, ys, t) for t in frames]
        shift = FRACTION_BITS
        values = planes[0]
        if len(axes) == 3:
            after = axes[2][1][0]
            values, shift = planes[0] * (ONE - after) + planes[1] * after, 2 * FRACTION_BITS
        rows, columns = rows - rows[0], columns - columns[0]
        below, right = below[:, None, None], right[None, :, None]
        values = values[rows] * (ONE - below) + values[rows + 1] * below
        values = values[:, columns] * (ONE - right) + values[:, columns + 1] * right
        return np.floor(values * 2.0**-shift + 0.5)

    def _vertices(self, level: int, xs: np.ndarray, ys: np.ndarray, t: int) -> np.ndarray:
        """Symbols [len(ys), len(xs), d] of vertices, as doubles."""
        vertex = np.empty((len(ys), len(xs), self._grid.num_dims), np.int64)
        vertex[..., 0], vertex[..., 1] = xs, ys[:, None]
        if self._grid.num_dims == 3:
            vertex[..., 2] = t
        rows = self._scene.level_symbols(level)
        return rows[self._grid.vertex_index(level, vertex)].astype(np.float64)

    def _network(self, x: np.ndarray) -> np.ndarray:
        """Integers [S, channels] from latents [L d, S] in 1/F."""
        largest, last = float(self.layout.largest), len(self._layers) - 1
        for index, (weight, steps, bias) in enumerate(self._layers):
            y = weight @ x
            y *= steps
            y += bias
            if index == last:
                y *= largest
                y *= 1 / ONE
                y += 0.5
                np.floor(y, out=y)
                np.clip(y, 0, largest, out=y)
                return y.T.astype(self.layout.dtype)
            y += 0.5
            np.floor(y, out=y)
            x = np.clip(y, 0, MAX_ACTIVATION, out=y)
        raise AssertionError("a network has a last layer")


def _layers(
    scene: PackedScene, layout: PixelLayout
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Integers [rows, K], steps [rows, 1] and biases in 1/F [rows, 1] of each layer, in doubles."""
    layers, width = [], scene.grid.num_levels * scene.latent_dim
    for index in range(len(scene.weights) // 2):
        weight, bias = (scene.weights.get(f"mlp.{index}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None or weight.values.ndim != 2:
            break
        rows, columns = weight.values.shape
        if columns != width or bias.values.shape != (rows,) or columns > MAX_INPUTS:
            break
        steps = np.broadcast_to(weight.steps.astype(np.float64), rows)[:, None]
        biases = bias.values * bias.steps.astype(np.float64) * ONE
        layers.append((weight.values.astype(np.float64), steps, biases[:, None]))
        width = rows
    if not layers or 2 * len(layers) != len(scene.weights) or width != layout.channels:
        raise SceneFormatError(
            "WGTS",
            f"layers mlp.0 … from {scene.grid.num_levels * scene.latent_dim} inputs to "
            f"{layout.channels} channels, at most {MAX_INPUTS} wide",
            {name: list(tensor.values.shape) for name, tensor in sorted(scene.weights.items())},
        )
    return layers


def _mean_of(values: np.ndarray, across: int, down: int) -> np.ndarray:
    """Means of blocks of pixels [rows, W, channels], rounded."""
    if across == down == 1:
        return values
    rows, width, channels = values.shape
    blocks = values.reshape(rows // down, down, width // across, across, channels)
    count = across * down
    return ((blocks.sum((1, 3), dtype=np.int64) * 2 + count) // (2 * count)).astype(values.dtype)
