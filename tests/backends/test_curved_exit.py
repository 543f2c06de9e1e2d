"""Jumps through empty space outside of the box: safe, and as far as they can be."""

import numpy as np
import pytest

pytest.importorskip("numba")

from shacira_nerfstudio.backends.cpu_numba.rays.curved_exit import exit_outside

SIZE = 32


def contracted(points):
    """Of points of the box's unit cube [N, 3]: where they lie in the grid, and their radius."""
    x = 2 * points - 1
    r = np.maximum(1.0, np.abs(x).max(-1, keepdims=True))
    return ((2 - 1 / r) * x / r + 2) / 4 * SIZE, r[:, 0]


def random_rays(count=400):
    """Origins and directions in the unit cube of the box, some along an axis, and distances at
    which they are outside of the box."""
    draw = np.random.default_rng(3)
    origins = draw.normal(0.5, 1.5, (count, 3))
    directions = draw.normal(0, 1, (count, 3))
    directions[: count // 8, draw.integers(0, 3)] = 0
    directions[count // 8 : count // 6] = [0.0, -2.0, 0.0]
    distances = draw.exponential(3, count)
    outside = contracted(origins + distances[:, None] * directions)[1] > 1
    return origins[outside], directions[outside], distances[outside]


@pytest.mark.parametrize("gap", [1, 2, 5, 40])
def test_no_jump_leaves_the_empty_cells(gap):
    shares = []
    for origin, direction, t in zip(*random_rays(), strict=True):
        cell = np.clip(contracted((origin + t * direction)[None])[0][0].astype(int), 0, SIZE - 1)
        found = exit_outside(*origin, *direction, t, *cell, gap, SIZE)
        assert found >= 0
        # Dense in the distance, and far out in its inverse.
        length = min(found, 1e6)
        way = np.concatenate([np.linspace(0, 1, 999), np.geomspace(1e-6, 1, 999)]) * length
        inside, radius = contracted(origin + (t + way)[:, None] * direction)
        assert (np.abs(inside - (cell + 0.5)) <= gap - 0.5 + 1e-6).all()
        assert (radius >= 1 - 1e-9).all()
        # Up to where the ray leaves, enters the box, or another coordinate becomes the largest.
        ahead = t + np.geomspace(1e-6, 1e4, 4000)
        points = origin + ahead[:, None] * direction
        places, radii = contracted(points)
        begin = np.abs(2 * (origin + t * direction) - 1).argmax()
        ends = (np.abs(places - (cell + 0.5)) > gap - 0.5).any(-1) | (radii <= 1)
        ends |= np.abs(2 * points - 1).argmax(-1) != begin
        true = ahead[ends.argmax()] - t if ends.any() else np.inf
        moves = abs(direction[begin]) > 1e-9
        shares.append(1.0 if not moves or found >= 0.98 * true - 1e-6 else 0.0)
    assert len(shares) > 200
    assert np.mean(shares) > 0.99


def test_a_ray_that_leaves_for_good_jumps_for_ever():
    assert exit_outside(0.5, 0.5, 0.5, 0.0, 1.0, 0.1, 2.0, 15, 26, 16, 40, SIZE) == np.inf
