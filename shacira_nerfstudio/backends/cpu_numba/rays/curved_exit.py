"""Where a ray that contraction bends leaves the empty cells around it.

Outside of the box a point X of a straight ray is drawn in to (2 - s) s X, with s the inverse of its
largest coordinate. While that is the same axis m, of sign g, s changes one way, the other
coordinates over it are A + B s, linear in s, and contracted ones (2 - s) (A + B s): where they meet
a border is a root of a quadratic equation, and no step has to be looked at before the first one.
"""

from __future__ import annotations

import math

import numba

from shacira_nerfstudio.backends.cpu_numba.compilation import EXACT

_AT_BORDER = 1e-9
"""A border nearer than this, in s, may already have been passed: no jump."""


@numba.njit(inline="always", **EXACT)
def _before(stop, root, s, way):
    """The nearer of ``stop`` and ``root``, if the latter lies on the way from ``s``; what is not a
    number does not."""
    if way * (root - s) > -_AT_BORDER and way * (root - stop) < 0:
        return root
    return stop


@numba.njit(**EXACT)
def _first_root(stop, a, b, border, s, way):
    """As :func:`_before` for the roots of (2 - s) (a + b s) = border."""
    half, rest = b - 0.5 * a, 2 * a - border  # b s^2 - 2 half s - rest = 0
    inside = half * half + b * rest
    if inside < 0:
        return stop
    q = half + math.copysign(math.sqrt(inside), half)
    stop = _before(stop, -rest / q, s, way)
    return _before(stop, q / b, s, way)


@numba.njit(**EXACT)
def _other_axis(stop, origin, speed, main_origin, main_speed, sign, low, high, s, way):
    """Cuts ``stop`` down to where a coordinate that is not the largest is within low … high, and is
    not the largest."""
    a = sign * speed / main_speed
    b = origin - speed * main_origin / main_speed
    stop = _before(stop, (1 - a) / b, s, way)
    stop = _before(stop, (-1 - a) / b, s, way)
    stop = _first_root(stop, a, b, low, s, way)
    return _first_root(stop, a, b, high, s, way)


@numba.njit(**EXACT)
def exit_outside(ox, oy, oz, dx, dy, dz, t, i, j, k, gap, size):
    """Distance along a ray from a point outside of the box until it leaves the empty cells around
    that point's own, enters the box, or another of its coordinates becomes the largest.

    Args:
        ox, oy, oz, dx, dy, dz: Origin and direction in the unit cube of the box.
        t: Of the point.
        i, j, k: Its cell in contracted space, of ``size`` per axis.
        gap: All cells nearer than so many, diagonals counting as 1, are empty.

    Returns:
        Not less than 0, and possibly infinite; 0 as well where nothing is certain.
    """
    ox, oy, oz, dx, dy, dz = 2 * ox - 1, 2 * oy - 1, 2 * oz - 1, 2 * dx, 2 * dy, 2 * dz
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    # The largest coordinate first; the order of the others does not matter.
    if abs(y) > abs(x) and abs(y) >= abs(z):
        ox, oy, dx, dy, x, i, j = oy, ox, dy, dx, y, j, i
    elif abs(z) > abs(x):
        ox, oz, dx, dz, x, i, k = oz, ox, dz, dx, z, k, i
    sign, s = math.copysign(1.0, x), 1 / abs(x)
    if abs(dx) * s < 1e-9 * max(abs(dy), abs(dz)):  # it stands nearly still: s says nothing of t
        return 0.0
    way = -1.0 if sign * dx > 0 else 1.0  # outwards s falls to 0, inwards it rises to 1
    cell = 4.0 / size
    low, high = (i - gap + 1) * cell - 2, (i + gap) * cell - 2
    if sign < 0:
        low, high = -high, -low
    stop = max(0.0, 2 - high) if way < 0 else min(1.0, 2 - low)
    stop = _other_axis(
        stop, oy, dy, ox, dx, sign, (j - gap + 1) * cell - 2, (j + gap) * cell - 2, s, way
    )
    stop = _other_axis(
        stop, oz, dz, ox, dx, sign, (k - gap + 1) * cell - 2, (k + gap) * cell - 2, s, way
    )
    if stop <= 0:
        return math.inf
    return max(0.0, (sign / stop - ox) / dx - t)
