"""Tours around what cameras look at: upright, at the right distance, looking at the object."""

import math

import numpy as np
import pytest
import torch

from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.viewer.camera_paths import (
    CameraPath,
    CropBox,
    PanoramaCamera,
    looking_at,
    meeting_point,
    orbit,
    pinhole,
    spiral,
    up_axis,
)

TARGET = np.array([0.5, -1.0, 2.0])
TILT = np.array([0.2, 0.3, 1.0]) / np.linalg.norm([0.2, 0.3, 1.0])


def ring(count=12, up=TILT, radius=3.0, lifts=(0.5, 1.0, 1.5), turn=2 * math.pi):
    """Upright cameras around TARGET, at several heights."""
    first = np.cross(up, [1.0, 0.0, 0.0])
    first /= np.linalg.norm(first)
    second = np.cross(up, first)
    cameras = []
    for index, angle in enumerate(np.arange(count) * turn / count):
        side = radius * (math.cos(angle) * first + math.sin(angle) * second)
        pose = looking_at(TARGET + side + lifts[index % len(lifts)] * up, TARGET, up)
        cameras.append(PinholeCamera(pose, 60.0, 60.0, 32.0, 24.0, 64, 48))
    return cameras


def row(count=5):
    """Cameras beside each other that all look along -z."""
    poses = [np.eye(4)[:3] + np.outer([1, 0, 0], [0, 0, 0, 0.3 * i]) for i in range(count)]
    return [PinholeCamera(pose, 60.0, 60.0, 32.0, 24.0, 64, 48) for pose in poses]


def poses_of(cameras):
    return np.stack([camera.camera_to_world for camera in cameras]).astype(np.float64)


def never(camera):
    raise AssertionError("the cameras say where they look")


def sight(camera, target):
    """Cosine between a camera's axis and the way to a point."""
    pose = camera.camera_to_world.astype(np.float64)
    way = target - pose[:, 3]
    return -pose[:, 2] @ way / np.linalg.norm(way)


def test_which_way_is_up():
    assert np.allclose(up_axis(poses_of(ring())), TILT, atol=1e-6)
    # Steep cameras: the mean of their own axes would be off where they stand on one side only.
    steep = poses_of(ring(lifts=(5.0, 1.0, 9.0), turn=2.0))
    assert np.allclose(up_axis(steep), TILT, atol=1e-6)
    assert np.allclose(up_axis(poses_of(row())), [0, 1, 0], atol=1e-6)
    # From above, straight down, in all directions: up is where they are.
    down = np.stack(
        [
            looking_at(np.array([i, 0, 5.0]), np.array([i, 0, 0.0]), np.array(up))
            for i, up in enumerate(([1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0], [0, -1.0, 0]))
        ]
    )
    assert np.allclose(up_axis(down), [0, 0, 1], atol=1e-6)


def test_where_cameras_look():
    assert np.allclose(meeting_point(poses_of(ring())), TARGET, atol=1e-5)
    assert meeting_point(poses_of(row())) is None
    outward = poses_of(ring())
    outward[:, :, [0, 2]] *= -1
    assert meeting_point(outward) is None


def test_an_orbit_goes_around_upright_and_looks_at_the_object():
    cameras = ring(lifts=(0.5, 1.0, 1.0, 1.5))
    path = orbit(cameras, 20, never)
    assert len(path.cameras) == 20 and path.notes == ()
    positions = poses_of(path.cameras)[:, :, 3] - TARGET
    assert np.allclose(positions @ TILT, 1.0, atol=1e-5)
    assert np.allclose(np.linalg.norm(positions - np.outer(positions @ TILT, TILT), axis=1), 3.0)
    for camera in path.cameras:
        assert sight(camera, TARGET) == pytest.approx(1, abs=1e-6)
        assert abs(camera.camera_to_world[:, 0] @ TILT) < 1e-6
        assert camera.camera_to_world[:, 1] @ TILT > 0.5
        assert (camera.width, camera.height) == (64, 48)
        assert camera.fx == camera.fy == pytest.approx(60, rel=1e-6)
    # Evenly spaced, all the way around, from where the first camera stands.
    gaps = np.linalg.norm(np.roll(positions, -1, axis=0) - positions, axis=1)
    assert np.allclose(gaps, 2 * 3.0 * math.sin(math.pi / 20), rtol=1e-4)
    own = poses_of(cameras)[0, :, 3] - TARGET
    assert np.allclose(positions[0] - own, -TILT * (own @ TILT - 1.0), atol=1e-5)


def test_sizes_of_a_tour_keep_the_view():
    path = orbit(ring(), 3, never, width=32)
    assert [(c.width, c.height) for c in path.cameras] == [(32, 24)] * 3
    path = orbit(ring(), 3, never, width=100, height=48)
    assert [(c.width, c.height) for c in path.cameras] == [(100, 48)] * 3
    assert path.cameras[0].fx == path.cameras[0].fy == pytest.approx(60, rel=1e-6)


def test_an_orbit_says_what_no_camera_has_seen():
    (note,) = orbit(ring(count=13, turn=math.pi * 13 / 12), 4, never).notes
    assert "180 of the 360 degrees" in note
    assert orbit(row(), 4, lambda camera: 2.0).notes


def test_an_orbit_of_a_capture_from_the_front_asks_how_far_away_it_is():
    asked = []
    path = orbit(row(), 8, lambda camera: asked.append(camera) or 2.0)
    (camera,) = asked
    assert camera.camera_to_world[0, 3] == pytest.approx(0.6)  # the one in the middle
    for camera in path.cameras:
        assert sight(camera, np.array([0.6, 0, -2.0])) == pytest.approx(1, abs=1e-6)


def test_no_orbit_around_cameras_that_look_away():
    cameras = []
    for camera in ring():
        pose = camera.camera_to_world.copy()
        pose[:, [0, 2]] *= -1
        cameras.append(PinholeCamera(pose, 60.0, 60.0, 32.0, 24.0, 64, 48))
    with pytest.raises(ValueError, match="look away from each other"):
        orbit(cameras, 8, never)


@pytest.mark.parametrize(("cameras", "ahead"), [(row(), 2.0), (ring(), 3.0)], ids=["row", "ring"])
def test_a_spiral_stays_near_one_camera_and_ends_where_it_began(cameras, ahead):
    path = spiral(cameras, 40, lambda camera: ahead)
    poses = poses_of(path.cameras)
    middle = poses[:, :, 3].mean(0)
    own = min(cameras, key=lambda c: np.linalg.norm(c.camera_to_world[:, 3] - middle))
    position, back = own.camera_to_world[:, 3], own.camera_to_world[:, 2]
    assert np.linalg.norm(position - middle) < 0.05
    moved = np.linalg.norm(poses[:, :, 3] - position, axis=1)
    assert 0.02 * ahead < moved.max() <= 3**0.5 * 0.2 * ahead
    gaps = np.linalg.norm(np.roll(poses[:, :, 3], -1, axis=0) - poses[:, :, 3], axis=1)
    assert gaps.min() > 0 and gaps[-1] <= gaps[:-1].max() * 1.01
    for camera in path.cameras:
        assert sight(camera, position - ahead * back) == pytest.approx(1, abs=1e-6)


def test_a_view_straight_down_is_a_view():
    pose = looking_at(np.array([0, 0, 3.0]), np.zeros(3), np.array([0, 0, 1.0]))
    assert np.allclose(pose[:, :3].T @ pose[:, :3], np.eye(3))
    assert np.allclose(pose[:, 2], [0, 0, 1])


@pytest.mark.parametrize("fov", [0.0, -1.0, math.pi, math.nan])
def test_fields_of_view_are_checked(fov):
    with pytest.raises(ValueError, match="field of view"):
        pinhole(np.eye(4)[:3], fov, 4, 4)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="pixels"):
        pinhole(np.eye(4)[:3], 1.0, 0, 4)
    with pytest.raises(ValueError, match="pixels"):
        PanoramaCamera(np.eye(4)[:3], 4, 1 << 20)


def test_a_crop_box_cuts_rays():
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    box = CropBox(np.array([1.0, 0, 0]), turned, np.array([2.0, 4.0, 2.0]), (0, 0, 0))
    # In the world the box is 4 long in x and 2 in y: from -1 to 3, from -1 to 1.
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [-3, 1.5, 0], [9, 0, 0], [1, -5, 0.5]])
    directions = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    limits = box.limits(origins, directions)
    assert torch.allclose(limits[[0, 1, 4]], torch.tensor([[2.0, 6], [0, 3], [4, 6]]))
    assert (limits[[2, 3], 0] == limits[[2, 3], 1]).all()  # those that miss it see nothing


def test_a_panorama_looks_all_around():
    pose = looking_at(np.array([1.0, 2, 3]), np.array([5.0, 2, 3]), np.array([0, 0, 1.0]))
    camera = PanoramaCamera(pose, 8, 4)
    origins, directions = camera.rays()
    grid = directions.view(4, 8, 3).numpy()
    assert np.allclose(origins, [1, 2, 3]) and np.allclose(np.linalg.norm(grid, axis=-1), 1)
    assert np.allclose(grid[:, 3:5].mean((0, 1))[[1, 2]], 0, atol=1e-6)  # the middle: along x
    assert grid[1, 3, 0] > 0.8 and grid[1, 0, 0] < -0.8
    assert (grid[0, :, 2] > 0.9).all() and (grid[3, :, 2] < -0.9).all()
    assert grid[1, 5, 1] < grid[1, 4, 1] < 0  # to the right of x, with z up, is -y
    assert torch.equal(camera.rays(1, 3)[1], directions[8:24])
    assert camera.resized(height=8).width == 16


@pytest.mark.nerfstudio
def test_panoramas_are_the_hosts():
    cameras = pytest.importorskip("nerfstudio.cameras.cameras")
    pose = looking_at(np.array([1.0, 2, 3]), np.array([5.0, 1, 2]), np.array([0, 0, 1.0]))
    theirs = cameras.Cameras(
        torch.tensor(pose, dtype=torch.float32)[None],
        8.0,
        8.0,
        8.0,
        4.0,
        16,
        8,
        camera_type=cameras.CameraType.EQUIRECTANGULAR,
    )
    # For these the host takes half of the width and the height as focal lengths.
    theirs.fx, theirs.fy = torch.tensor([[8.0]]), torch.tensor([[8.0]])
    rays = theirs.generate_rays(camera_indices=0, keep_shape=True)
    origins, directions = PanoramaCamera(pose, 16, 8).rays()
    assert torch.allclose(directions, rays.directions.view(-1, 3), atol=1e-5)
    assert torch.allclose(origins, rays.origins.view(-1, 3))


def test_paths_are_thinned_evenly_and_resized():
    path = CameraPath(ring(), fps=24.0).thinned(3)
    assert [path.cameras[i].camera_to_world[0, 3] for i in range(3)] == [
        ring()[i].camera_to_world[0, 3] for i in (0, 6, 11)
    ]
    assert path.resized(width=32, height=None).cameras[1].height == 24 and path.fps == 24.0
