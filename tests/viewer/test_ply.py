"""PLY files, as another program reads them."""

import io

import numpy as np
import pytest

from shacira_nerfstudio.viewer.ply import BYTES_PER_POINT, PointCloud, joined, ply_bytes


def cloud(count=7):
    random = np.random.default_rng(0)
    normals = random.normal(size=(count, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = random.integers(0, 256, (count, 3), np.uint8)
    positions = random.normal(size=(count, 3)).astype(np.float32)
    return PointCloud(positions, normals, colors, np.linalg.norm(positions, axis=1))


def test_the_bytes():
    one = PointCloud(
        np.float32([[1, 2, -3]]), np.float32([[0, 0, 1]]), np.uint8([[7, 8, 9]]), np.ones(1)
    )
    head, _, body = ply_bytes(one, "a comment").partition(b"end_header\n")
    assert head.decode() == (
        "ply\nformat binary_little_endian 1.0\ncomment a comment\nelement vertex 1\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property float nx\nproperty float ny\nproperty float nz\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    )
    assert body == np.array([1, 2, -3, 0, 0, 1], "<f4").tobytes() + bytes([7, 8, 9])
    assert len(body) == BYTES_PER_POINT


def test_trimesh_reads_it():
    trimesh = pytest.importorskip("trimesh")
    points = cloud()
    read = trimesh.load(io.BytesIO(ply_bytes(points)), file_type="ply")
    assert np.allclose(read.vertices, points.positions)
    assert np.array_equal(np.asarray(read.colors)[:, :3], points.colors)


def test_comments_are_one_line():
    for comment in ("a\nb", "é"):
        with pytest.raises(ValueError, match="one line of ASCII"):
            ply_bytes(cloud(), comment)


def test_joined_and_chosen():
    a, b = cloud(3), cloud(4)
    both = joined([a, b])
    assert len(both) == 7 and np.array_equal(both.chosen(np.arange(3, 7)).colors, b.colors)
