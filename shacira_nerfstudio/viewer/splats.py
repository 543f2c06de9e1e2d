"""Points as splats: flat discs on the surface, for programs that show nothing else.

Viewers of Gaussian splats refuse plain points. Their PLY files have floats only: a colour as the
constant term of spherical harmonics, the logit of an opacity, the logarithms of three radii and a
rotation. A disc is as wide as points are apart, which grows with the distance from the camera that
saw it, and a tenth as thick.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float

from shacira_nerfstudio.viewer.ply import PointCloud, rows_as_ply

_CONSTANT_HARMONIC = 1 / (2 * math.sqrt(math.pi))
_OPACITY = 0.95
_THICKNESS = 0.1
_NUM_PROBES = 256
"""Points whose neighbours are looked for: the median of so many is within a few per cent."""
_FIELDS = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
_FIELDS += ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
BYTES_PER_SPLAT = 4 * len(_FIELDS)


def splat_bytes(cloud: PointCloud, comment: str = "") -> bytes:
    """A PLY file in the layout of 3D Gaussian Splatting, without view-dependent colour."""
    width = (cloud.distances * spacing(cloud)).clip(1e-9)
    colors = (cloud.colors / 255 - 0.5) / _CONSTANT_HARMONIC
    opacity = np.full(len(cloud), math.log(_OPACITY / (1 - _OPACITY)))
    radii = np.log(np.stack([width, width, _THICKNESS * width], axis=1))
    columns = np.concatenate(
        [cloud.positions, cloud.normals, colors, opacity[:, None], radii, turns(cloud.normals)],
        axis=1,
    )
    rows = np.ascontiguousarray(columns, "<f4").view([(name, "<f4") for name in _FIELDS])[:, 0]
    return rows_as_ply(rows, comment)


def spacing(cloud: PointCloud) -> float:
    """Distance to the nearest other point, over the distance from the camera; in the median."""
    if len(cloud) < 2:
        return 1e-3
    points = torch.from_numpy(cloud.positions)
    probes = np.random.default_rng(0).permutation(len(cloud))[:_NUM_PROBES]
    ratios = []
    for index in probes.tolist():
        squares = ((points - points[index]) ** 2).sum(1)
        squares[index] = math.inf
        ratios.append(math.sqrt(float(squares.min())) / float(cloud.distances[index]))
    return float(np.median(ratios))


def turns(normals: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 4"]:
    """Unit quaternions, the real part first, that turn the z axis to normals."""
    x, y, z = normals.astype(np.float64).T
    # Halfway between both vectors; straight down, about any axis at right angles.
    turned = np.stack([1 + z, -y, x, np.zeros_like(x)], axis=1)
    turned[z < -1 + 1e-9] = (0, 1, 0, 0)
    return turned / np.linalg.norm(turned, axis=1, keepdims=True)
