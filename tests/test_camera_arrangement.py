"""Which captures face forward."""

import numpy as np
import pytest

from shacira_nerfstudio.scenes.camera_arrangement import faces_forward


def look(eyes, targets):
    """Poses [N, 3, 4] of cameras at some places that look at others, z up."""
    eyes, targets = (np.asarray(points, float) for points in (eyes, targets))
    back = (eyes - targets) / np.linalg.norm(eyes - targets, axis=1, keepdims=True)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(back, right), back, eyes], -1)


def plane(count=20, spread=1.0, depth=0.1, seed=0):
    """Places about the plane x = 0."""
    draw = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3))
    return draw * [depth, spread, spread]


def ring(count=20, turn=2 * np.pi):
    angles = np.linspace(0, turn, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles), np.full(count, 0.3)], 1)


FORWARD = np.array([9.0, 0, 0])
EYES = plane()
WALK = np.stack([np.linspace(0, 3, 20), *plane().T[1:]], 1)


@pytest.mark.parametrize(
    ("poses", "expected"),
    [
        (look(EYES, EYES + FORWARD), True),
        (look(EYES, np.tile([4.0, 0, 0], (20, 1))), True),  # all look at one thing
        (look(ring(), np.zeros((20, 3))), False),
        (look(ring(turn=np.pi / 2), np.zeros((20, 3))), False),
        (look(WALK, WALK + FORWARD), False),  # into the scene
        (look(EYES, EYES + ring()), False),  # a panorama
        (look(EYES[:1], EYES[:1] + FORWARD), True),
        (np.zeros((0, 3, 4)), False),
    ],
)
def test_faces_forward(poses, expected):
    assert faces_forward(poses) is expected


def test_it_does_not_depend_on_where_the_scene_lies_or_how_large_it_is():
    poses = look(EYES, EYES + FORWARD)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))
    moved = np.concatenate([turn @ poses[:, :, :3], 50 * (turn @ poses[:, :, 3:]) + 7], -1)
    assert faces_forward(moved)
