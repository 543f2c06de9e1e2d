"""What stands on the plaza: solids that do not overlap, their textures, and the light on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BOX, BALL, CYLINDER = 0, 1, 2
"""Kinds of solids, as in ``tracer_numba``."""
_NAMES = ("box", "ball", "column")
PLAIN, CHECKER, STRIPES, DOTS, MARBLE, BRICKS, WOOD, TILES = range(8)
"""Textures, as in ``tracer_numba``."""

CENTER, RADIUS = np.array([0.0, 0.0, 0.16]), 1.16
"""A sphere around everything."""
SUN, SUN_COLOR = np.array([0.45, -0.42, 0.79]), np.array([0.95, 0.86, 0.72])
_SUN_SIZE = np.array([[3, 4, 0], [-3, -4, 0], [-3.2, 2.4, 3], [3.2, -2.4, -3]]) / 100
# Directions, how narrow, and linear colours; the first is the sun's disc as mirrors show it.
_LAMPS = np.array(
    [
        [*(SUN / np.linalg.norm(SUN)), 900.0, 40.0, 36.0, 30.0],
        [-0.80, 0.35, 0.48, 60.0, 5.0, 3.4, 1.8],
        [0.10, 0.92, 0.37, 40.0, 1.4, 2.4, 4.2],
        [-0.35, -0.90, 0.26, 80.0, 3.2, 1.6, 3.0],
    ]
)
_PALETTE = np.array(
    [
        *([0.70, 0.06, 0.05], [0.05, 0.18, 0.58], [0.82, 0.55, 0.06], [0.08, 0.38, 0.16]),
        *([0.72, 0.68, 0.58], [0.10, 0.09, 0.10], [0.42, 0.22, 0.10], [0.46, 0.10, 0.42]),
        *([0.06, 0.45, 0.48], [0.78, 0.34, 0.10], [0.55, 0.60, 0.66], [0.80, 0.74, 0.44]),
    ]
)


@dataclass(frozen=True, eq=False)
class Plaza:
    """S solids, the first of which is the ground that the others stand on."""

    kinds: Array
    centers: Array
    turns: Array
    """Rotations from own axes to the world's, [S, 3, 3]."""
    sizes: Array
    """Half extents, [S, 3]."""
    paints: Array
    colors: Array
    """Linear, two for each texture, [S, 2, 3]."""
    scales: Array
    """Periods of the texture in a unit of the world."""
    gloss: Array
    """0 is matt, 1 mirrors as glass does."""

    @property
    def names(self) -> Sequence[str]:
        """Of the solids."""
        stood = [f"{_NAMES[kind]}_{index}" for index, kind in enumerate(self.kinds[1:].tolist())]
        return ["ground", *stood]

    @cached_property
    def box(self) -> Array:
        """Lowest and highest corner, 2x3."""
        reach = np.abs(self.turns) @ self.sizes[..., None]
        return np.array(
            [(self.centers - reach[..., 0]).min(0), (self.centers + reach[..., 0]).max(0)]
        )

    @property
    def solids(self) -> tuple[Array, ...]:
        """As ``tracer_numba`` takes them: with a ball around each, and its volume's radius."""
        around = np.linalg.norm(self.sizes, axis=1)
        around = np.where(self.kinds == BALL, self.sizes.max(1), around)
        flat = np.hypot(self.sizes[:, :2].max(1), self.sizes[:, 2])
        around = np.where(self.kinds == CYLINDER, flat, around)
        volumes = 0.9 * np.cbrt(self.sizes.prod(1))
        return self.kinds, self.centers, self.turns, self.sizes, around, volumes

    @property
    def looks(self) -> tuple[Array, ...]:
        """As ``tracer_numba`` takes them."""
        return self.paints, self.colors, self.scales, self.gloss


@dataclass(frozen=True, eq=False)
class Light:
    """The sun and what the environment adds to it."""

    suns: Array
    """Unit directions, one for each subpixel, [4, 3]."""
    sun_color: Array
    harmonics: Array
    """What a matt surface gets from the environment: constant, and along each axis, [4, 3]."""
    lamps: Array
    """See ``tracer_numba.environment``."""


def make_plaza(seed: int, num_objects: int = 72) -> Plaza:
    """A ground of tiles with so many objects, some of which stand on others."""
    random, rows = np.random.default_rng(seed), []
    rows.append(_row(CYLINDER, (0, 0, -0.04), (1.0, 1.0, 0.04), 0.0, TILES, (4, 5), 9.0, 0.0))
    spots: list[tuple[float, float, float]] = []
    while len(rows) <= num_objects:
        radius = random.uniform(0.045, 0.15)
        around, out = random.uniform(0, 2 * np.pi), 0.9 * np.sqrt(random.random())
        x, y = out * np.cos(around), out * np.sin(around)
        is_free = all(np.hypot(x - a, y - b) > radius + r + 0.012 for a, b, r in spots)
        if not is_free or np.hypot(x, y) + radius > 0.96:
            continue
        spots.append((x, y, radius))
        low, tall = 0.0, radius * random.uniform(0.6, 2.2) * (1.3 - 0.5 * np.hypot(x, y))
        rows.append(_object(random, x, y, low, radius, tall))
        kind, top = rows[-1][0], 2 * float(rows[-1][3][2])
        if kind != BALL and random.random() < 0.4 and len(rows) <= num_objects:
            size = radius * random.uniform(0.45, 0.65)
            rows.append(_object(random, x, y, top, size, size * random.uniform(0.7, 1.3)))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    kinds, centers, turns, sizes, paints, colors, scales, gloss = columns
    return Plaza(
        kinds.astype(np.int64),
        centers,
        turns,
        sizes,
        paints.astype(np.int64),
        colors,
        scales,
        gloss,
    )


def make_light() -> Light:
    """Of a clear morning with three lamps, integrated over the environment."""
    from shacira_nerfstudio.scenes.plaza.tracer_numba import environment

    index = np.arange(4096) + 0.5  # a Fibonacci sphere
    z, around = 1 - 2 * index / 4096, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z * z)
    directions = np.stack([ring * np.cos(around), ring * np.sin(around), z], -1)
    sky, out = np.zeros((4096, 3)), np.empty(3)
    for row, direction in zip(sky, directions, strict=True):
        environment(direction, _LAMPS[1:], out)  # the sun casts shadows of its own
        row[:] = out
    # Irradiance over pi, by the first four spherical harmonics (Ramamoorthi and Hanrahan 2001).
    harmonics = np.concatenate([sky.mean(0)[None], 2.0 * directions.T @ sky / 4096])
    suns = SUN + _SUN_SIZE
    suns /= np.linalg.norm(suns, axis=1, keepdims=True)
    return Light(suns, SUN_COLOR, harmonics, _LAMPS)


def _object(
    random: np.random.Generator, x: float, y: float, low: float, radius: float, tall: float
) -> tuple:
    """A solid that stands at a height, within a radius about the vertical."""
    kind = int(random.choice([BOX, BOX, BALL, CYLINDER]))
    size = np.array([radius, radius, tall])
    if kind == BOX:
        size[:2] *= random.uniform(0.5, 0.72, 2)
    elif kind == BALL:
        size[2] = min(tall, 1.4 * radius)
    paint = int(random.choice([PLAIN, CHECKER, STRIPES, DOTS, MARBLE, BRICKS, WOOD]))
    colors = tuple(random.choice(len(_PALETTE), 2, replace=False).tolist())
    gloss = float(random.choice([0.0, 0.0, 0.5, 1.0]))
    turn = random.uniform(0, 180)
    center = (x, y, low + float(size[2]))
    return _row(kind, center, size, turn, paint, colors, random.uniform(9, 22), gloss)


def _row(
    kind: int,
    center: Sequence[float],
    size: Any,
    degrees: float,
    paint: int,
    colors: Sequence[int],
    scale: float,
    gloss: float,
) -> tuple:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    both = _PALETTE[list(colors)]
    return kind, np.array(center, float), turn, np.array(size, float), paint, both, scale, gloss
