"""Poses as integers: near what they were, stable, in few bytes; others as they are."""

import dataclasses

import numpy as np
import pytest
from strategies import random_rotations

from shacira_nerfstudio.codec import CameraSet, SceneFormatError
from shacira_nerfstudio.codec.sections.cameras import (
    decode_cameras,
    encode_cameras,
    rounded_cameras,
)


def cameras_at(poses):
    count = len(poses)
    return CameraSet(
        np.asarray(poses, dtype=np.float32),
        np.full((count, 4), 500, dtype=np.float32),
        np.full((count, 2), 800, dtype=np.uint32),
    )


def random_cameras(count, *, size=4.0, seed=0):
    rng = np.random.default_rng(seed)
    shifts = rng.normal(size=(count, 3, 1)) * size
    return cameras_at(np.concatenate([random_rotations(rng, count), shifts], axis=2))


def angles(a, b):
    """Between two sets of rotations, in rad."""
    relative = np.swapaxes(a, 1, 2) @ b
    axis = relative - np.swapaxes(relative, 1, 2)
    return np.linalg.norm(axis.reshape(-1, 9), axis=1) / np.sqrt(8)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e9])
def test_rounded_poses_are_near_and_stay(size):
    cameras = random_cameras(500, size=size)
    rounded = rounded_cameras(cameras)
    before = cameras.camera_to_worlds.astype(np.float64)
    after = rounded.camera_to_worlds.astype(np.float64)
    assert 0 < angles(before[..., :3], after[..., :3]).max() < 1e-4
    reach = np.abs(before[..., 3]).max()
    assert np.abs(before - after)[..., 3].max() < reach / 30_000
    assert rounded_cameras(rounded) == rounded
    assert np.array_equal(rounded.intrinsics, cameras.intrinsics)


def test_round_trip_in_a_third_of_the_bytes():
    rounded = rounded_cameras(random_cameras(64))
    data = encode_cameras(rounded)
    assert decode_cameras(memoryview(data)) == rounded
    assert len(data) < 14 * 64
    scaled = rounded.camera_to_worlds * np.float32(1.01)
    skew = dataclasses.replace(rounded, camera_to_worlds=scaled)
    assert len(encode_cameras(skew)) > 3 * len(data)


def test_every_quarter_turn():
    """Ties between components of the quaternion, and components that are 0."""
    turns = []
    for axes in np.ndindex(3, 3, 3):
        for signs in np.ndindex(2, 2, 2):
            matrix = np.zeros((3, 3))
            matrix[np.arange(3), axes] = 1 - 2 * np.array(signs)
            if np.isclose(np.linalg.det(matrix), 1):
                turns.append(np.concatenate([matrix, [[0], [0], [0]]], axis=1))
    assert len(turns) == 24
    rounded = rounded_cameras(cameras_at(turns))
    found = decode_cameras(memoryview(encode_cameras(rounded)))
    assert found == rounded
    assert np.abs(found.camera_to_worlds - np.array(turns)).max() < 1e-4


@pytest.mark.parametrize("what", ["mirrored", "scaled", "skew", "far away"])
def test_what_is_no_rotation_is_kept_as_it_is(what):
    cameras = random_cameras(5)
    poses = cameras.camera_to_worlds.copy()
    if what == "mirrored":
        poses[2, :, :3] *= -1
    elif what == "scaled":
        poses[:, :, :3] *= np.float32(1.01)
    elif what == "skew":
        poses[4, 0, 1] += np.float32(0.01)
    else:
        poses[0, 0, 3] = np.float32(1e30)
    cameras = dataclasses.replace(cameras, camera_to_worlds=poses)
    assert rounded_cameras(cameras) is cameras
    assert decode_cameras(memoryview(encode_cameras(cameras))) == cameras


def test_rotations_that_were_not_rounded_lose_nothing():
    cameras = random_cameras(9)
    assert decode_cameras(memoryview(encode_cameras(cameras))) == cameras


def test_integers_that_are_no_pose():
    head = encode_cameras(rounded_cameras(random_cameras(1)))[:26]
    zeros = bytes([0, 0xFF, 0x1F, 0])  # an array of width 0 and minimum 0
    of_255 = bytes([0, 0xFE, 0x21, 0])
    good = head + bytes([1, 40]) + zeros
    assert np.isfinite(decode_cameras(memoryview(good + half() + zeros)).camera_to_worlds).all()
    for bad, message in (
        (head + bytes([2, 40]) + zeros + half() + zeros, "form"),
        (head + bytes([1, 81]) + zeros + half() + zeros, "exponent"),
        (head + bytes([1, 40]) + of_255 + half() + zeros, "values from 0 to 3"),
        (good + zeros + zeros, "32767"),  # -32768
        (good + of_255 + of_255, "quaternions"),  # three components of 1 / sqrt(2)
        (good + half() + zeros + b"\0", "end of the section"),
    ):
        with pytest.raises(SceneFormatError, match=message):
            decode_cameras(memoryview(bad))


def half():
    """An array of 128, the upper byte of 0."""
    return bytes([0, 0xFF, 0x20, 0])
