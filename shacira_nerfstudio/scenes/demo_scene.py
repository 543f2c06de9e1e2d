"""A small procedural scene in RTMV's format, so that a first run needs no download.

A chessboard with toys (beach ball, die, gift, toadstool, tower of blocks), matt, under a sun and a
sky, ray-cast with numpy; beside them alpha and rgb are 0. Edges in the textures are about as wide
as a pixel at the default size, so that all views agree on what they show.

Notation: o, d = origins and directions of R rays, t [R] = distance, inf for a miss, p [R, 3] =
points; q = points in a solid's own axes, where it is the cube or the sphere of half extent 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shacira_nerfstudio.output_files import check_output_dir
from shacira_nerfstudio.scenes.linear_pixels import write_exr
from shacira_nerfstudio.scenes.view_description import (
    PlacedObject,
    describe_camera,
    describe_objects,
)

Array = NDArray[Any]

CENTER, RADIUS = np.array([0.0, 0.0, 0.2]), 1.18  # a sphere around everything
FIELD_OF_VIEW = np.radians(45.0)
SUN, SUN_COLOR = np.array([0.48, -0.36, 0.8]), np.array([0.80, 0.74, 0.64])
SUN_SIZE = np.array([[3, 4, 0], [-3, -4, 0], [-3.2, 2.4, 3], [3.2, -2.4, -3]]) / 100
SKY, GROUND = np.array([0.38, 0.45, 0.56]), np.array([0.18, 0.15, 0.12])  # light from above, below
SUBPIXELS = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
MISS = np.finfo(np.float32).min  # what RTMV writes as depth where a ray leaves the scene


@dataclass(frozen=True)
class _Solid:
    """A box or an ellipsoid; ``paint`` maps q [R, 3] to linear albedo [R, 3]."""

    name: str
    is_box: bool
    center: tuple[float, float, float]
    size: tuple[float, float, float]  # half extents
    paint: Callable[[Array], Array]
    degrees: float = 0.0  # turn about the vertical

    @cached_property
    def turn(self) -> Array:
        """Rotation from own axes to the world's."""
        c, s = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def write_demo_scene(
    output_dir: Path,
    *,
    num_views: int = 60,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes ``NNNNN.json``, ``.exr`` and ``.depth.exr`` of each view and returns the folder.

    Cameras lie on the upper hemisphere in an order that spreads any run of consecutive views over
    it, so RTMV's splits by order all see the scene from everywhere. Equal arguments, equal files.

    Args:
        seed: Chooses the grain of the materials and the first camera.
        progress: Called with (views done, views in total) after each view.
    """
    if num_views < 1 or size < 2:
        raise ValueError(f"expected num_views >= 1 and size >= 2, got {num_views} and {size}")
    output_dir = Path(output_dir)
    check_output_dir(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if (output_dir / f"{num_views:05d}.json").exists():  # its views would join ours
        raise ValueError(f"expected at most {num_views} views in {output_dir}, found more")
    random = np.random.default_rng(seed)
    solids, start = _solids(random.normal(size=(4, 12))), random.random()
    for view in range(num_views):
        pose = _camera(view, start)
        rgba, depth, labels = _render(solids, pose, size)
        write_exr(output_dir / f"{view:05d}.exr", rgba)
        write_exr(output_dir / f"{view:05d}.depth.exr", depth)
        text = json.dumps(_describe(solids, pose, labels), sort_keys=True)
        (output_dir / f"{view:05d}.json").write_text(text, encoding="utf-8")
        if progress is not None:
            progress(view + 1, num_views)
    return output_dir


def _solids(waves: Array) -> list[_Solid]:
    def stripes(q: Array) -> Array:
        wobble = np.sin(1.5 * q @ waves[:3] + 9 * waves[3]).mean(axis=-1)
        return 0.5 + 0.5 * np.sin(6 * q[:, 2] + 9 * wobble)

    def wood(dark: Any, light: Any) -> Callable[[Array], Array]:
        return lambda q: _mix(stripes(q), dark, light)

    def board(q: Array) -> Array:
        sides = _step(0.2 * np.sin(4 * np.pi * q[:, :2] / 0.9), 0.05)
        squares = _mix(np.abs(sides[:, 0] - sides[:, 1]), (0.70, 0.62, 0.46), (0.10, 0.20, 0.17))
        is_frame = _step(np.maximum(np.abs(q[:, :2]).max(-1) - 0.9, 0.5 - q[:, 2]), 0.02)
        return _mix(is_frame, squares, frame(q))

    frame = wood((0.16, 0.07, 0.03), (0.30, 0.15, 0.07))
    stone = wood((0.16, 0.19, 0.28), (0.80, 0.78, 0.75))
    red = wood((0.4, 0.04, 0.04), (0.68, 0.12, 0.07))
    blue = wood((0.04, 0.1, 0.4), (0.12, 0.28, 0.6))
    cream, gold = (lambda q: 0 * q + (0.72, 0.66, 0.52)), (lambda q: 0 * q + (0.8, 0.5, 0.09))
    return [
        _Solid("board", True, (0, 0, -0.04), (0.8, 0.8, 0.04), board),
        _Solid("ball", False, (-0.4, -0.4, 0.3), (0.3, 0.3, 0.3), _beach_ball, 20),
        _Solid("die", True, (0.42, -0.44, 0.17), (0.17, 0.17, 0.17), _die, 28),
        _Solid("gift", True, (0.44, 0.4, 0.14), (0.22, 0.17, 0.14), _gift, 65),
        _Solid("lid", True, (0.44, 0.4, 0.32), (0.24, 0.19, 0.04), _gift, 65),
        _Solid("stem", False, (-0.42, 0.43, 0.17), (0.12, 0.12, 0.2), cream),
        _Solid("cap", False, (-0.42, 0.43, 0.38), (0.3, 0.3, 0.18), _toadstool),
        _Solid("block_0", True, (0, 0.03, 0.16), (0.18, 0.18, 0.16), stone, 8),
        _Solid("block_1", True, (0, 0.03, 0.44), (0.14, 0.14, 0.12), red, 40),
        _Solid("block_2", True, (0, 0.03, 0.66), (0.1, 0.1, 0.1), blue, -15),
        _Solid("orb", False, (0, 0.03, 0.87), (0.12, 0.12, 0.12), gold),
    ]


def _mix(amount: Array, first: Any, second: Any) -> Array:
    return np.asarray(first) + amount[:, None] * (np.asarray(second) - np.asarray(first))


def _step(x: Array, width: float = 0.08) -> Array:
    """0 below zero, 1 above, with a ramp of this width."""
    return np.clip(x / width + 0.5, 0.0, 1.0)


def _beach_ball(q: Array) -> Array:
    colors = np.array([[0.74, 0.06, 0.05], [0.8, 0.78, 0.74], [0.05, 0.2, 0.6], [0.85, 0.58, 0.05]])
    q = q @ np.array([[1.0, 0.0, 0.0], [0.0, 0.8, 0.6], [0.0, -0.6, 0.8]])  # its poles lie aslant
    radius, wedge = np.hypot(q[:, 0], q[:, 1]), np.arctan2(q[:, 1], q[:, 0]) * 4 / np.pi
    border = np.round(wedge).astype(int)
    side = _step((wedge - border) * radius * np.pi / 4)
    stripes = _mix(side, colors[(border - 1) % 4], colors[border % 4])
    return _mix(_step(0.25 - radius), stripes, colors[1])


def _die(q: Array) -> Array:
    spots = np.array([[-1, -1], [1, 1], [-1, 1], [1, -1], [-1, 0], [1, 0], [0, 0]]) / 2
    faces = ["0000001", "1100000", "1100001", "1111000", "1111001", "1111110"]
    is_shown = np.array([list(face) for face in faces]) == "1"
    axis, rows = np.abs(q).argmax(axis=-1), np.arange(len(q))
    face = np.where(q[rows, axis] > 0, axis, 5 - axis)  # opposite faces add up to seven
    uv = np.stack([q[rows, (axis + 1) % 3], q[rows, (axis + 2) % 3]], axis=-1)
    distance = np.linalg.norm(uv[:, None] - spots, axis=-1) + np.where(is_shown[face], 0, 9)
    return _mix(_step(0.22 - distance.min(-1), 0.12), (0.80, 0.77, 0.68), (0.03, 0.03, 0.04))


def _gift(q: Array) -> Array:
    ribbon = np.maximum(_step(0.2 - np.abs(q[:, 0])), _step(0.2 - np.abs(q[:, 1])))
    return _mix(ribbon, (0.07, 0.30, 0.16), (0.78, 0.58, 0.12))


def _toadstool(q: Array) -> Array:
    height, around = np.arange(12) / 12 + 0.08, 2.4 * np.arange(12)  # dots on a golden spiral
    radius = np.sqrt(1 - np.minimum(height, 1) ** 2)
    dots = np.stack([radius * np.cos(around), radius * np.sin(around), height], axis=-1)
    distance = np.linalg.norm(q[:, None] - dots, axis=-1).min(axis=-1)
    red = _mix(_step(0.19 - distance), (0.70, 0.05, 0.03), (0.82, 0.79, 0.72))
    return _mix(_step(-0.1 - q[:, 2]), red, (0.72, 0.62, 0.46))


def _nearest(solids: list[_Solid], o: Array, d: Array) -> tuple[Array, Array]:
    """Distance to the first solid on each ray, and its number; -1 if there is none."""
    best, label = np.full(len(d), np.inf), np.full(len(d), -1)
    for number, solid in enumerate(solids):
        scale = solid.turn.T / np.array(solid.size)[:, None]
        u, v = scale @ np.atleast_2d(o - solid.center).T, scale @ d.T  # numpy is faster with [3, R]
        if solid.is_box:
            v = np.where(v == 0, 1e-12, v)
            t, leave = ((-np.sign(v) - u) / v).max(axis=0), ((np.sign(v) - u) / v).min(axis=0)
            is_hit = t <= leave
        else:
            a, b, c = (v * v).sum(axis=0), (u * v).sum(axis=0), (u * u).sum(axis=0) - 1
            is_hit = b * b >= a * c
            t = (-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a
        is_hit &= (t > 0) & (t < best)
        best[is_hit], label[is_hit] = t[is_hit], number
    return best, label


def _light(solids: list[_Solid], p: Array, label: Array, sun: Array) -> Array:
    """Colour of surface points: direct sun with shadow, light of the sky with occlusion."""
    n, albedo, open_sky = np.zeros_like(p), np.zeros_like(p), np.ones(len(p))
    for number, solid in enumerate(solids):
        mine = label == number
        q = (p[mine] - solid.center) @ solid.turn / solid.size
        is_side = np.abs(q) == np.abs(q).max(axis=-1, keepdims=True)
        own = np.sign(q) * is_side if solid.is_box else q / solid.size
        n[mine] = own / np.linalg.norm(own, axis=-1, keepdims=True) @ solid.turn.T
        albedo[mine] = solid.paint(q)
    for number, solid in enumerate(solids[1:], start=1):  # each hides sky like a ball of its volume
        v = solid.center - p
        r, distance = 0.9 * np.cbrt(np.prod(solid.size)), np.linalg.norm(v, axis=-1)
        hidden = np.maximum((n * v).sum(-1), 0) / distance * np.minimum(r / distance, 1) ** 2
        open_sky *= np.where(label == number, 1, 1 - 0.8 * hidden)
    toward_sun = np.broadcast_to(sun / np.linalg.norm(sun), p.shape)
    is_lit = _nearest(solids, p + 1e-4 * n, toward_sun)[1] < 0
    direct = np.maximum((n * toward_sun).sum(-1), 0) * is_lit
    ambient = open_sky[:, None] * _mix(0.5 + 0.5 * n[:, 2], GROUND, SKY)
    return albedo * (direct[:, None] * SUN_COLOR + ambient)


def _camera(view: int, start: float) -> Array:
    """4x4 pose on a sphere from which everything is in view, looking at its centre."""
    # Multiples of two irrational numbers that fill the square evenly (Roberts' R2 sequence).
    around, up = 2 * np.pi * (start + 0.5698403 * view), (0.5 + 0.7548777 * view) % 1
    sine = 0.17 + (0.95 - 0.17) * up  # elevations 10 to 72 degrees, even on the sphere
    back = np.array([np.cos(around), np.sin(around), 0]) * np.sqrt(1 - sine**2) + [0, 0, sine]
    right = np.array([-np.sin(around), np.cos(around), 0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, np.zeros(3)], axis=-1)
    pose[:3, 3] = CENTER + back * RADIUS / np.sin(FIELD_OF_VIEW / 2)
    return pose


def _render(solids: list[_Solid], pose: Array, size: int) -> tuple[Array, Array, Array]:
    """Straight RGBA and depth as written, and the solid at each pixel's centre."""
    focal = 0.5 * size / np.tan(FIELD_OF_VIEW / 2)
    rows, columns = np.divmod(np.arange(size * size), size)

    def rays(offset: Array) -> Array:
        x, y = (columns + offset[0] - size / 2) / focal, (size / 2 - rows - offset[1]) / focal
        d = np.stack([x, y, -np.ones_like(x)], axis=-1)
        return d / np.linalg.norm(d, axis=-1, keepdims=True) @ pose[:3, :3].T

    rgba = np.zeros((size * size, 4))
    for offset, sun in zip(SUBPIXELS, SUN + SUN_SIZE, strict=True):
        d = rays(offset)
        t, label = _nearest(solids, pose[:3, 3], d)
        hit = label >= 0
        p = pose[:3, 3] + t[hit, None] * d[hit]
        rgba[hit, :3] += _light(solids, p, label[hit], sun)
        rgba[hit, 3] += 1
    rgba /= np.where(np.arange(4) < 3, np.maximum(rgba[:, 3:], 1), 4)  # straight colours
    t, label = _nearest(solids, pose[:3, 3], rays(np.array([0.5, 0.5])))
    depth = np.where(label >= 0, t, MISS)[:, None] * [1, 1, 1, 0] + [0, 0, 0, 1]
    return rgba.reshape(size, size, 4), depth.reshape(size, size, 4), label.reshape(size, size)


def _describe(solids: list[_Solid], pose: Array, labels: Array) -> dict[str, Any]:
    """The JSON of one view, with the keys and conventions of RTMV's own files."""
    centers, sizes = np.array([s.center for s in solids]), np.array([s.size for s in solids])
    box = np.array([(centers - sizes).min(axis=0), (centers + sizes).max(axis=0)])
    size = len(labels)
    focal = 0.5 * size / np.tan(FIELD_OF_VIEW / 2)
    objects = [
        PlacedObject(solid.name, solid.turn, np.array(solid.center, float)) for solid in solids
    ]
    return {
        "camera_data": describe_camera(pose, size, focal, CENTER, box),
        "objects": describe_objects(objects, pose, labels),
    }
