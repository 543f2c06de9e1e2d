"""Points lie on what cameras see, with its colours and normals, and as many as were asked for."""

import numpy as np
import pytest
import torch
from synthetic_ball import make_ball

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene
from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.viewer import point_cloud
from shacira_nerfstudio.viewer.camera_paths import looking_at
from shacira_nerfstudio.viewer.point_cloud import random_rays, sample_points


@pytest.fixture(scope="module")
def ball():
    """A ball of radius 0.7, made solid, and its cameras, which look along -z."""
    packed = make_ball()
    scene = unpack_scene(packed, get_backend("reference", "cpu"))
    weights = scene.field.network_weights().named()
    weights = {name: weight.detach().clone() for name, weight in weights.items()}
    weights["density_mlp.1.bias"][0] += 6.0
    scene.field.set_weights(weights)
    return scene, stored_cameras(packed.cameras)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(point_cloud, "_BATCH_RAYS", 1 << 12)
    monkeypatch.setattr(point_cloud, "_MAX_BARREN_RAYS", 1 << 14)


def test_points_lie_on_the_ball(ball):
    cloud = sample_points(*ball, 2000)
    assert len(cloud) == 2000
    radius = np.linalg.norm(cloud.positions, axis=1)
    assert np.median(radius) == pytest.approx(0.7, abs=0.04) and radius.max() < 0.8
    assert (cloud.positions[:, 2] > -0.1).all()  # the side that faces the cameras
    assert np.allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-5)
    outward = (cloud.normals * cloud.positions).sum(1) / radius
    # Its cells are cubes of 1/16, so that its surface has steps, whose tops the cameras see.
    assert np.median(outward) > 0.6 and np.median(cloud.normals[:, 2]) > 0.6
    assert cloud.colors.std() > 5 and cloud.colors.mean() < 250  # not the white behind it


def test_the_same_seed_gives_the_same_points(ball):
    first, again = (sample_points(*ball, 100, seed=3) for _ in range(2))
    assert np.array_equal(first.positions, again.positions)
    assert not np.array_equal(first.positions, sample_points(*ball, 100, seed=4).positions)


def test_points_out_of_reach_are_left_out(ball):
    near = sample_points(*ball, 200, reach=0.5)
    assert np.abs(near.positions).max() <= 0.5
    with pytest.raises(ValueError, match="expected cameras that see something, found 0 points"):
        sample_points(*ball, 200, reach=0.01)


def test_cameras_that_see_nothing_are_an_error(ball):
    away = looking_at(np.array([0, 0, 3.0]), np.array([0, 0, 9.0]), np.array([0, 1.0, 0]))
    camera = PinholeCamera(away, 10.0, 10.0, 6.0, 4.0, 12, 8)
    with pytest.raises(ValueError, match="expected cameras that see something"):
        sample_points(ball[0], [camera], 10)


@pytest.mark.parametrize(
    "options", [{"num_points": 0}, {"min_accumulation": 0.0}, {"reach": -1.0}, {"reach": np.nan}]
)
def test_options_are_checked(ball, options):
    with pytest.raises(ValueError, match="expected"):
        sample_points(*ball, **{"num_points": 10, **options})


def test_points_on_steep_slopes_are_left_out(ball, monkeypatch):
    """At the edges of things; here all on the right are said to be such."""

    def normals(scene, origins, directions, depth, *, angle):
        return -directions, torch.where(directions[:, 0] > 0, torch.inf, 0.0)

    monkeypatch.setattr(point_cloud, "surface_normals", normals)
    clean, kept = (sample_points(*ball, 300, remove_outliers=r).positions for r in (True, False))
    assert clean[:, 0].max() <= 0 < kept[:, 0].max()


def test_cells_near_something():
    scene = unpack_scene(make_ball(), get_backend("reference", "cpu"))
    # A cell is 1/16 wide, and the ball's cells end at 0.69: 0.72 is in the one beside.
    points = torch.tensor([[0.0, 0, 0], [0.72, 0, 0], [0.9, 0, 0], [0.95, -0.95, 0.95], [9, 0, 0]])
    near = point_cloud._in_occupied_cells(scene, points)
    assert near.tolist() == [True, True, False, False, False]


def test_random_rays_are_those_of_pictures(ball):
    cameras = ball[1]
    origins, directions = random_rays(cameras, 500, np.random.default_rng(0))
    assert origins.dtype == directions.dtype == torch.float32
    for camera in cameras:
        own = origins[:, 2] == float(camera.camera_to_world[2, 3])
        assert own.sum() > 100
        place = directions[own] / -directions[own, 2:]
        assert place[:, 0].abs().max() <= 0.6 and place[:, 1].abs().max() <= 0.4
        assert place[:, 0].min() < -0.55 and place[:, 0].max() > 0.55
