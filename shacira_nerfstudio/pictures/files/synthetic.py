"""A picture of any size from a formula: something to try with what no memory holds.

Clouds of value noise in octaves, from the whole picture down to a few pixels, coloured by height,
with rings at some heights: slopes, textures and edges at every scale. The same size and seed give
the same pixels, whatever part is made first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BAND_PIXELS = 1 << 22
_FINEST = 4
"""Pixels of a cell of the finest octave."""
_ROUGHNESS = 0.55
"""Of an octave over the next coarser one."""
_COLORS = np.array(
    [
        [0.05, 0.09, 0.22],
        [0.10, 0.35, 0.45],
        [0.75, 0.68, 0.48],
        [0.30, 0.42, 0.18],
        [0.95, 0.95, 0.93],
    ]
)
"""Of heights from 0 to 1, evenly spaced."""


def synthetic_bands(width: int, height: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Rows [rows, width, 3] uint8 after one another."""
    if not (1 <= width <= 1 << 20 and 1 <= height <= 1 << 20):
        raise ValueError(f"expected sides of 1 to {1 << 20} pixels, got {width}x{height}")
    rows = max(1, _BAND_PIXELS // width)
    for begin in range(0, height, rows):
        yield _rows(width, height, begin, min(begin + rows, height), seed)


def _rows(width: int, height: int, begin: int, end: int, seed: int) -> np.ndarray:
    x, y = np.arange(width) + 0.5, np.arange(begin, end) + 0.5
    total, amplitude, weights = np.zeros((end - begin, width), np.float32), 1.0, 0.0
    cell, octave = max(width, height) / 4, 0
    while cell >= _FINEST:
        total += np.float32(amplitude) * _noise(x / cell, y / cell, seed + octave)
        weights += amplitude
        amplitude, cell, octave = amplitude * _ROUGHNESS, cell / 2, octave + 1
    level = np.clip(1.6 * total / max(weights, 1e-9) - 0.3, 0, 0.9999)
    ring = np.abs(level * 12 % 1 - 0.5) < 0.03
    at = level * (len(_COLORS) - 1)
    low = at.astype(np.int64)
    fraction = (at - low)[..., None]
    colors = _COLORS[low] * (1 - fraction) + _COLORS[low + 1] * fraction
    return np.rint(255 * np.where(ring[..., None], 0.6 * colors, colors)).astype(np.uint8)


def _noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Smooth noise in [0, 1) at the crossings of some columns and rows, float32."""
    (x0, fx), (y0, fy) = (_cells(v) for v in (x, y))
    columns, rows = (np.arange(v[0], v[-1] + 2) for v in (x0, y0))
    values = _hash(columns[None, :] * 73856093 + rows[:, None] * 19349663 + seed * 83492791)
    values, x0, y0 = values.astype(np.float32), x0 - x0[0], y0 - y0[0]
    across = values[:, x0] * (1 - fx) + values[:, x0 + 1] * fx
    return across[y0] * (1 - fy)[:, None] + across[y0 + 1] * fy[:, None]


def _cells(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.floor(v)
    fraction = v - low
    return low.astype(np.int64), (fraction * fraction * (3 - 2 * fraction)).astype(np.float32)


def _hash(index: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that look random."""
    bits = index.astype(np.uint64) & np.uint64(0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ((bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return (bits ^ (bits >> np.uint64(16))).astype(np.float64) * 2.0**-32
