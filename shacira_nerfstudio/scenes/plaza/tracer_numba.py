"""Rays through the plaza: solids, textures, light, and the picture that a camera has of it all.

Compiled, since a view of 1600x1600 pixels is thirteen million rays. Notation: o, d = origin and
direction of a ray, t = distance; q = a point in a solid's own axes, where it is the cube, ball or
cylinder of half extent 1; arrays of the S solids are those of ``layout.Plaza``.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)

BOX, BALL, CYLINDER = 0, 1, 2
PLAIN, CHECKER, STRIPES, DOTS, MARBLE, BRICKS, WOOD, TILES = range(8)
FAR = 1e30
TILE = 32
"""Pixels on the side of a square whose rays look at the same solids."""


@_jit
def _enter(kind, ux, uy, uz, vx, vy, vz):
    """Where a ray u + t v in a solid's own axes comes in from outside; FAR if nowhere."""
    if kind == BALL:
        a, b = vx * vx + vy * vy + vz * vz, ux * vx + uy * vy + uz * vz
        root = b * b - a * (ux * ux + uy * uy + uz * uz - 1.0)
        if root < 0.0:
            return FAR
        return (-b - math.sqrt(root)) / a
    vz = vz if abs(vz) > 1e-12 else 1e-12
    first, last = (-math.copysign(1.0, vz) - uz) / vz, (math.copysign(1.0, vz) - uz) / vz
    if kind == BOX:
        vx = vx if abs(vx) > 1e-12 else 1e-12
        vy = vy if abs(vy) > 1e-12 else 1e-12
        first = max(first, (-math.copysign(1.0, vx) - ux) / vx)
        first = max(first, (-math.copysign(1.0, vy) - uy) / vy)
        last = min(last, (math.copysign(1.0, vx) - ux) / vx)
        last = min(last, (math.copysign(1.0, vy) - uy) / vy)
    else:
        a, b = max(vx * vx + vy * vy, 1e-12), ux * vx + uy * vy
        root = b * b - a * (ux * ux + uy * uy - 1.0)
        if root < 0.0:
            return FAR
        root = math.sqrt(root)
        first, last = max(first, (-b - root) / a), min(last, (-b + root) / a)
    return first if first <= last else FAR


@_jit
def nearest(o, d, solids, chosen, count):
    """Distance to the first of the chosen solids, and its number; FAR and -1 if there is none.

    Args:
        chosen: Numbers of solids, of which the first ``count`` are looked at.
    """
    kinds, centers, turns, sizes, bounds, _ = solids
    best, label = FAR, -1
    for place in range(count):
        s = chosen[place]
        x, y, z = o[0] - centers[s, 0], o[1] - centers[s, 1], o[2] - centers[s, 2]
        b = x * d[0] + y * d[1] + z * d[2]
        c = x * x + y * y + z * z - bounds[s] * bounds[s]
        if b * b < c or (b > 0.0 and c > 0.0) or -b - bounds[s] > best:
            continue
        turn, size = turns[s], sizes[s]
        t = _enter(
            kinds[s],
            (turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z) / size[0],
            (turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z) / size[1],
            (turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z) / size[2],
            (turn[0, 0] * d[0] + turn[1, 0] * d[1] + turn[2, 0] * d[2]) / size[0],
            (turn[0, 1] * d[0] + turn[1, 1] * d[1] + turn[2, 1] * d[2]) / size[1],
            (turn[0, 2] * d[0] + turn[1, 2] * d[1] + turn[2, 2] * d[2]) / size[2],
        )
        if 0.0 < t < best:
            best, label = t, s
    return best, label


@_jit
def _choose(o, axis, spread, solids, chosen):
    """How many solids a cone of rays may meet, of which the numbers are written to ``chosen``.

    Args:
        spread: Half angle in radians.
    """
    _, centers, _, _, bounds, _ = solids
    count = 0
    for s in range(len(bounds)):
        x, y, z = centers[s, 0] - o[0], centers[s, 1] - o[1], centers[s, 2] - o[2]
        distance = math.sqrt(x * x + y * y + z * z)
        cosine = (x * axis[0] + y * axis[1] + z * axis[2]) / distance
        reach = spread + math.asin(min(bounds[s] / distance, 1.0))
        if reach >= math.pi or cosine >= math.cos(reach):
            chosen[count] = s
            count += 1
    return count


@_jit
def _hash(i, j, k):
    h = (i * 374761393 + j * 668265263 + k * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@_jit
def _noise(x, y, z):
    """Smooth noise in [0, 1] of about unit period."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                weight = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
                total += weight * _hash(int(i) + a, int(j) + b, int(k) + c)
    return total


@_jit
def _edge(x, width):
    """0 below zero, 1 above, with a ramp of this width."""
    return min(max(x / width + 0.5, 0.0), 1.0)


@_jit
def _texture(paint, x, y, z):
    """How much of the second colour there is at a point, in units of the texture."""
    if paint == CHECKER:
        wave = math.sin(math.pi * x) * math.sin(math.pi * y) * math.sin(math.pi * (z + 0.5))
        return _edge(wave, 0.06)
    if paint == STRIPES:
        return _edge(math.sin(2 * math.pi * z), 0.12)
    if paint == DOTS:
        a, b, c = x - round(x), y - round(y), z - round(z)
        return _edge(0.33 - math.sqrt(a * a + b * b + c * c), 0.03)
    if paint == MARBLE:
        turbulence = _noise(x, y, z) + 0.5 * _noise(2 * x, 2 * y, 2 * z)
        turbulence += 0.25 * _noise(4 * x, 4 * y, 4 * z)
        return 0.5 + 0.5 * math.sin(3.0 * (x + z) + 5.0 * turbulence)
    if paint == BRICKS:
        row = math.floor(2 * z)
        along = x + y + 0.5 * (row % 2)
        a, b = abs(along - round(along)), abs(2 * z - round(2 * z))
        return 1.0 - _edge(a - 0.03, 0.03) * _edge(b - 0.06, 0.06)
    if paint == WOOD:
        radius = math.sqrt(x * x + y * y) + 0.3 * _noise(x, y, 0.4 * z)
        return (0.5 + 0.5 * math.sin(9.0 * radius)) * (0.7 + 0.3 * _noise(6 * x, 6 * y, z))
    if paint == TILES:
        a, b = abs(x - round(x)), abs(y - round(y))
        joint = 1.0 - _edge(min(0.5 - a, 0.5 - b) - 0.03, 0.02)
        shade = 0.45 * _hash(int(math.floor(x + 0.5)), int(math.floor(y + 0.5)), 7)
        return max(joint, shade + 0.2 * _noise(8 * x, 8 * y, 0.0))
    return 0.0


@_jit
def environment(d, lamps, out):
    """Light from a direction, written to ``out``: sky, ground and lamps, far above 1 in these."""
    up = 0.5 + 0.5 * d[2]
    haze = math.exp(-8.0 * abs(d[2]))
    out[0] = 0.16 + 0.10 * up + 0.30 * haze
    out[1] = 0.14 + 0.24 * up + 0.24 * haze
    out[2] = 0.12 + 0.46 * up + 0.20 * haze
    for lamp in range(len(lamps)):
        cosine = d[0] * lamps[lamp, 0] + d[1] * lamps[lamp, 1] + d[2] * lamps[lamp, 2]
        glow = math.exp(lamps[lamp, 3] * (cosine - 1.0))
        for k in range(3):
            out[k] += glow * lamps[lamp, 4 + k]


@_jit
def _surface(p, s, solids, n, q, local):
    """Own coordinates q of a point on a solid and its outward normal n; overwrites ``local``."""
    kinds, centers, turns, sizes, _, _ = solids
    turn, size = turns[s], sizes[s]
    local[:] = 0.0
    for k in range(3):
        q[k] = 0.0
        for m in range(3):
            q[k] += turn[m, k] * (p[m] - centers[s, m])
        q[k] /= size[k]
    side = max(abs(q[0]), abs(q[1])) if kinds[s] == BOX else math.sqrt(q[0] * q[0] + q[1] * q[1])
    if kinds[s] == BALL:
        for k in range(3):
            local[k] = q[k] / size[k]
    elif abs(q[2]) >= side:
        local[2] = math.copysign(1.0, q[2])
    elif kinds[s] == BOX:
        k = 0 if abs(q[0]) >= abs(q[1]) else 1
        local[k] = math.copysign(1.0, q[k])
    else:
        local[0], local[1] = q[0] / size[0], q[1] / size[1]
    norm = math.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2)
    for m in range(3):
        n[m] = (turn[m, 0] * local[0] + turn[m, 1] * local[1] + turn[m, 2] * local[2]) / norm


@_jit
def _open_sky(p, n, own, solids):
    """Share of the sky above a point that no other solid hides; each hides like a ball."""
    _, centers, _, _, _, volumes = solids
    share = 1.0
    for s in range(1, len(centers)):
        x, y, z = centers[s, 0] - p[0], centers[s, 1] - p[1], centers[s, 2] - p[2]
        facing = n[0] * x + n[1] * y + n[2] * z
        if facing <= 0.0 or s == own:
            continue
        square = x * x + y * y + z * z
        size = min(volumes[s] * volumes[s] / square, 1.0)
        share *= 1.0 - 0.85 * size * facing / math.sqrt(square)
    return share


@_jit
def _diffuse(p, n, q, s, share, solids, looks, light, everything, start, color):
    """Light that a matt surface sends anywhere, written to ``color``; ``start`` is overwritten.

    Args:
        share: Of the sky that is open.
        everything: Numbers of all solids.
    """
    sizes = solids[3]
    paints, colors, scales, _ = looks
    sun, sun_color, harmonics = light
    amount = _texture(
        paints[s],
        q[0] * sizes[s, 0] * scales[s],
        q[1] * sizes[s, 1] * scales[s],
        q[2] * sizes[s, 2] * scales[s],
    )
    facing = n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]
    if facing > 0.0:
        for k in range(3):
            start[k] = p[k] + 1e-4 * n[k]
        if nearest(start, sun, solids, everything, len(everything))[1] >= 0:
            facing = 0.0
    for k in range(3):
        sky = harmonics[0, k] + harmonics[1, k] * n[0]
        sky += harmonics[2, k] * n[1] + harmonics[3, k] * n[2]
        albedo = colors[s, 0, k] + amount * (colors[s, 1, k] - colors[s, 0, k])
        color[k] = albedo * (max(facing, 0.0) * sun_color[k] + share * max(sky, 0.0))


@_jit
def _mirror(d, s, share, solids, looks, light, lamps, everything, work, color):
    """Adds what a glossy surface at work[0] with normal work[1] shows of its surroundings."""
    gloss = looks[3][s]
    p, n, q, start = work[0], work[1], work[2], work[3]
    local, r, other = work[4], work[5], work[6]
    cosine = -(d[0] * n[0] + d[1] * n[1] + d[2] * n[2])
    mirror = gloss * (0.06 + 0.94 * (1.0 - min(max(cosine, 0.0), 1.0)) ** 5)
    for k in range(3):
        r[k] = d[k] + 2.0 * cosine * n[k]
        start[k] = p[k] + 1e-4 * n[k]
    t, label = nearest(start, r, solids, everything, len(everything))
    if label < 0:
        environment(r, lamps, other)
    else:
        for k in range(3):
            p[k] = start[k] + t * r[k]
        _surface(p, label, solids, n, q, local)
        # What is mirrored stands near, under about the same sky.
        _diffuse(p, n, q, label, share, solids, looks, light, everything, start, other)
    for k in range(3):
        color[k] += mirror * (other[k] - color[k])


@_jit
def _aim(pose, focal, size, x, y, d):
    """Unit direction through a place in the picture."""
    x, y = (x - 0.5 * size) / focal, (0.5 * size - y) / focal
    norm = math.sqrt(x * x + y * y + 1.0)
    for k in range(3):
        d[k] = (pose[k, 0] * x + pose[k, 1] * y - pose[k, 2]) / norm


@_jit
def render(pose, focal, size, solids, looks, suns, sun_color, harmonics, lamps):
    """Straight RGBA [size, size, 4]; distance and number of the solid at each pixel's centre,
    [size, size], FAR and -1 for none.

    Each of the four subpixels has a sun of its own, which makes shadows soft.
    """
    rgba = np.zeros((size, size, 4), np.float32)
    depth = np.empty((size, size), np.float64)
    labels = np.empty((size, size), np.int32)
    everything = np.arange(len(solids[0]))
    chosen = np.zeros_like(everything)
    o, d, color, work = pose[:3, 3].copy(), np.empty(3), np.empty(3), np.empty((7, 3))
    p, n, q = work[0], work[1], work[2]
    spread = 0.75 * TILE / focal
    for tile in range(((size + TILE - 1) // TILE) ** 2):
        top, left = divmod(tile, (size + TILE - 1) // TILE)
        _aim(pose, focal, size, (left + 0.5) * TILE, (top + 0.5) * TILE, d)
        num_chosen = _choose(o, d, spread, solids, chosen)
        for row in range(top * TILE, min((top + 1) * TILE, size)):
            for column in range(left * TILE, min((left + 1) * TILE, size)):
                _aim(pose, focal, size, column + 0.5, row + 0.5, d)
                depth[row, column], labels[row, column] = nearest(o, d, solids, chosen, num_chosen)
                count, known, share = 0, -1, 1.0
                for sub in range(4):
                    x, y = column + 0.25 + 0.5 * (sub % 2), row + 0.25 + 0.5 * (sub // 2)
                    _aim(pose, focal, size, x, y, d)
                    t, s = nearest(o, d, solids, chosen, num_chosen)
                    if s < 0:
                        continue
                    for k in range(3):
                        p[k] = o[k] + t * d[k]
                    _surface(p, s, solids, n, q, work[4])
                    if s != known:  # it hardly changes within a pixel
                        share, known = _open_sky(p, n, s, solids), s
                    light = (suns[sub], sun_color, harmonics)
                    _diffuse(p, n, q, s, share, solids, looks, light, everything, work[3], color)
                    if looks[3][s] > 0.0:
                        _mirror(d, s, share, solids, looks, light, lamps, everything, work, color)
                    count += 1
                    for k in range(3):
                        rgba[row, column, k] += color[k]
                for k in range(3):
                    rgba[row, column, k] /= max(count, 1)
                rgba[row, column, 3] = count / 4
    return rgba, depth, labels
