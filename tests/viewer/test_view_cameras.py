"""The browser's camera and ours: by numbers that are known, and there and back."""

import math

import numpy as np
import pytest
from strategies import random_poses

from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.viewer.live.camera_space import (
    VIEW_DISTANCE,
    CameraSpace,
    ViewPose,
    quaternion_of,
    rotation_of,
    up_axis,
)

BOX = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def nobody_looks(camera):
    raise AssertionError("cameras that look at one place say how far away it is")


HALF = math.sqrt(0.5)


def look_at(position, target, up):
    """Camera-to-world of ours, float32 [3, 4]."""
    back = np.subtract(position, target) / np.linalg.norm(np.subtract(position, target))
    right = np.cross(up, back) / np.linalg.norm(np.cross(up, back))
    return np.column_stack([right, np.cross(back, right), back, position]).astype(np.float32)


def camera(pose, width=400, height=300, focal=350.0):
    return PinholeCamera(pose, focal, focal, width / 2, height / 2, width, height)


def ring(count=8, radius=4.0, height=2.0, target=(0.0, 0.0, 0.0), up=(0.0, 0.0, 1.0)):
    angles = np.arange(count) * 2 * np.pi / count
    return [
        camera(look_at([radius * np.cos(a), radius * np.sin(a), height], target, up))
        for a in angles
    ]


@pytest.mark.parametrize(
    ("wxyz", "rotation"),
    [
        ((1, 0, 0, 0), np.eye(3)),
        ((0, 1, 0, 0), np.diag([1, -1, -1])),
        ((HALF, 0, 0, HALF), [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),  # x to y
        ((HALF, HALF, 0, 0), [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),  # y to z
        ((0, 0, 1, 0), np.diag([-1, 1, -1])),
    ],
)
def test_quaternions_of_known_rotations(wxyz, rotation):
    np.testing.assert_allclose(rotation_of(wxyz), rotation, atol=1e-12)
    np.testing.assert_allclose(np.abs(quaternion_of(np.array(rotation))), np.abs(wxyz), atol=1e-12)
    np.testing.assert_allclose(rotation_of(np.multiply(wxyz, -3)), rotation, atol=1e-12)


def test_a_camera_of_the_browser_in_numbers():
    """viser's identity looks along +z with y down: ours, turned by half a turn about x."""
    space = CameraSpace(ring(), BOX, nobody_looks)
    pose = ViewPose((1, 0, 0, 0), (1.0, 2.0, 3.0), math.pi / 2, 2.0)
    found = space.camera(pose, 8, 4)
    np.testing.assert_allclose(found.camera_to_world[:, :3], np.diag([1, -1, -1]), atol=1e-7)
    np.testing.assert_allclose(
        found.camera_to_world[:, 3], np.array([1, 2, 3]) / space.scale, rtol=1e-6
    )
    # A right angle sees as far up as it sees ahead.
    assert (found.fx, found.fy, found.cx, found.cy) == pytest.approx((2, 2, 4, 2))
    assert (found.width, found.height) == (8, 4)
    _, directions = found.rays()
    first = directions[0].numpy()  # upper left: to -x, up is -y here, ahead is +z
    np.testing.assert_allclose(first / first[2], [-3.5 / 2, -1.5 / 2, 1], rtol=1e-6)


def test_there_and_back():
    for pose in random_poses(20):
        space = CameraSpace(ring(), BOX, nobody_looks)
        before = camera(pose, 640, 480, 500.0)
        seen = space.pose(before)
        after = space.camera(seen, 640, 480)
        np.testing.assert_allclose(after.camera_to_world, pose, atol=2e-6)
        assert (after.fx, after.fy) == pytest.approx((500, 500))
        assert seen.aspect == pytest.approx(640 / 480)


def test_a_scene_of_any_size_stands_at_the_same_distance():
    for size in (1e-3, 1.0, 1e4):
        cameras = ring(radius=4 * size, height=2 * size)
        space = CameraSpace(cameras, BOX * size, nobody_looks)
        placed = space.placement(cameras[3])
        assert np.linalg.norm(placed.position - placed.look_at) == pytest.approx(
            VIEW_DISTANCE, rel=0.02
        )
        np.testing.assert_allclose(placed.look_at, 0, atol=0.02)
        assert placed.fov == pytest.approx(2 * math.atan(150 / 350))


def row_of_cameras():
    """A capture from the front: all look along -z."""
    return [camera(look_at([x, 0, 4.0], [x, 0, 0], [0, 1, 0])) for x in np.linspace(-1, 1, 9)]


def outward():
    angles = np.arange(12) * np.pi / 6
    places = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    return [camera(look_at(p, 3 * p, [0, 0, 1])) for p in places]


@pytest.mark.parametrize("cameras", [row_of_cameras(), outward(), ring()[:1]])
@pytest.mark.parametrize("distance", [0.3, 20.0])
def test_cameras_that_look_at_no_one_place_turn_around_what_they_see(cameras, distance):
    space = CameraSpace(cameras, BOX, lambda one: distance)
    for one in cameras:
        placed = space.placement(one)
        forward = -one.camera_to_world[:, 2]
        assert (placed.look_at - placed.position) @ forward == pytest.approx(VIEW_DISTANCE)
        np.testing.assert_allclose(
            placed.look_at / space.scale, one.camera_to_world[:, 3] + distance * forward, rtol=1e-5
        )


def test_a_camera_that_looks_away_from_the_others_turns_around_what_it_sees():
    back = camera(look_at([4, 0, 2], [8, 0, 4], [0, 0, 1]))
    space = CameraSpace([*ring(), back], BOX, lambda one: 1.5)
    placed = space.placement(back)
    assert np.linalg.norm(placed.look_at - placed.position) / space.scale == pytest.approx(1.5)


@pytest.mark.parametrize(
    "up", [(0, 0, 1), (0, 1, 0), (0, -1, 0), (0.6, 0.0, 0.8), (0.5, -0.5, 0.7071)]
)
def test_up_is_where_cameras_lie_level_across(up):
    up = np.array(up) / np.linalg.norm(up)
    side = np.linalg.svd(up[None])[2][1]
    other = np.cross(up, side)
    rng = np.random.default_rng(0)
    poses = []
    for angle in np.arange(30) * 0.7:
        place = 4 * (np.cos(angle) * side + np.sin(angle) * other) + rng.uniform(0.5, 3) * up
        poses.append(look_at(place, rng.normal(size=3) * 0.2, up))
    np.testing.assert_allclose(up_axis(np.array(poses, np.float64)), up, atol=1e-4)


def test_up_without_much_to_go_by():
    np.testing.assert_array_equal(up_axis(np.zeros((0, 3, 4))), [0, 0, 1])
    one = np.array([look_at([0, -4, 1], [0, 0, 0], [0, 0, 1])], np.float64)
    # A single camera that looks down a little: its own up, taken for the axis nearby or not.
    found = up_axis(one)
    assert found @ one[0, :, 1] > 0.95 and np.linalg.norm(found) == pytest.approx(1)
    # A forward-facing capture, all level the same way.
    same = np.array([look_at([x, 0, 4.0], [x, 0, 0], [0, 1, 0]) for x in (-1, 0, 1)], np.float64)
    np.testing.assert_array_equal(up_axis(same), [0, 1, 0])


def test_without_cameras_the_box_is_seen_from_outside():
    space = CameraSpace([], BOX * 3 + 5, nobody_looks)
    placed = space.first_view()
    np.testing.assert_allclose(placed.look_at, 5 * space.scale)
    away = (placed.position - placed.look_at) / space.scale
    assert np.abs(away).max() > 3 and away[2] > 1  # outside, and from above
    assert 1 < np.linalg.norm(placed.position - placed.look_at) < 10


@pytest.mark.parametrize(
    "change",
    [{"fov": 0.0}, {"fov": math.nan}, {"aspect": 0.0}, {"position": (0, math.inf, 0)}],
)
def test_cameras_of_no_use_are_refused(change):
    good = {"wxyz": (1, 0, 0, 0), "position": (0, 0, 0), "fov": 1.0, "aspect": 1.5}
    ViewPose(**good)
    with pytest.raises(ValueError, match="expected"):
        ViewPose(**{**good, **change})
    with pytest.raises(ValueError, match="quaternion"):
        rotation_of((0, 0, 0, 0))
