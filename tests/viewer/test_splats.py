"""Splats lie flat on the surface, in the colours of the points, as wide as these are apart."""

import io

import numpy as np
import pytest

from shacira_nerfstudio.viewer.ply import PointCloud
from shacira_nerfstudio.viewer.splats import BYTES_PER_SPLAT, spacing, splat_bytes, turns


def lattice(side=12, gap=0.5):
    """Points of a plane, seen from twice as far as 1."""
    x, y = np.meshgrid(np.arange(side) * gap, np.arange(side) * gap)
    positions = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
    count = len(positions)
    normals = np.tile(np.float32([0, 0, 1]), (count, 1))
    return PointCloud(positions, normals, np.full((count, 3), 255, np.uint8), np.full(count, 2.0))


def read(data):
    head, _, body = data.partition(b"end_header\n")
    names = [line.split()[-1] for line in head.decode().splitlines() if "property float" in line]
    return np.frombuffer(body, [(name, "<f4") for name in names])


def test_splats_of_a_plane():
    cloud = lattice()
    assert spacing(cloud) == pytest.approx(0.25)
    data = splat_bytes(cloud)
    rows = read(data)
    assert len(rows) == 144 and rows.itemsize == BYTES_PER_SPLAT
    assert np.allclose(np.exp(rows["scale_0"]), 0.5) and np.allclose(np.exp(rows["scale_1"]), 0.5)
    assert np.allclose(np.exp(rows["scale_2"]), 0.05)
    assert np.allclose(rows["f_dc_0"] * 0.28209479 + 0.5, 1)
    assert np.allclose(1 / (1 + np.exp(-rows["opacity"])), 0.95)
    assert np.allclose([rows[f"rot_{i}"][0] for i in range(4)], [1, 0, 0, 0])


def test_turns_take_z_to_the_normal():
    normals = np.random.default_rng(0).normal(size=(50, 3))
    normals = np.concatenate([normals, [[0, 0, -1]], [[0, 0, 1]], [[1, 0, 0]]])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    w, x, y, z = turns(normals).T
    assert np.allclose(w * w + x * x + y * y + z * z, 1)
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
    assert np.allclose(axis, normals, atol=1e-6)


def test_another_program_reads_them():
    trimesh = pytest.importorskip("trimesh")
    cloud = lattice()
    points = trimesh.load(io.BytesIO(splat_bytes(cloud)), file_type="ply")
    assert np.allclose(points.vertices, cloud.positions)


def test_a_lone_point_is_a_splat():
    rows = read(splat_bytes(lattice(side=1)))
    assert len(rows) == 1 and np.isfinite(rows["scale_0"]).all()
