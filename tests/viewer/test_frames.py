"""One picture: the library's own colours, and depths that a person can read."""

import numpy as np
import pytest
import torch
from synthetic_ball import make_ball

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene
from shacira_nerfstudio.viewer.camera_paths import CropBox, PanoramaCamera
from shacira_nerfstudio.viewer.frames import (
    Frame,
    depth_range,
    picture,
    render_frame,
    typical_depth,
)


@pytest.fixture(scope="module")
def ball():
    """The scene, and its cameras."""
    packed = make_ball()
    return unpack_scene(packed, get_backend("reference", "cpu")), stored_cameras(packed.cameras)


def box(side, background=(0.0, 1.0, 0.0)):
    return CropBox(np.zeros(3), np.eye(3), np.full(3, side), background)


def test_colours_are_the_librarys(ball):
    scene, cameras = ball
    frame = render_frame(scene, cameras[0])
    assert torch.equal(frame.color, scene.render_view(cameras[0]))
    assert frame.depth.shape == frame.accumulation.shape == (8, 12)
    middle = frame.depth[4, 6]
    assert frame.accumulation[4, 6] > 0.5 and 2 - 0.8 < middle < 2


def test_a_crop_box_shows_what_it_holds_on_its_own_background(ball):
    scene, cameras = ball
    whole, all_of_it = render_frame(scene, cameras[0]), render_frame(scene, cameras[0], box(4.0))
    assert torch.allclose(whole.accumulation, all_of_it.accumulation)
    assert torch.allclose(all_of_it.color[0, 0], torch.tensor([0.0, 1, 0]))
    nothing = render_frame(scene, cameras[0], box(1e-3))
    assert nothing.accumulation.max() < 0.01


def test_a_panorama_from_within(ball):
    scene, _ = ball
    frame = render_frame(scene, PanoramaCamera(np.eye(4)[:3], 16, 8))
    assert frame.color.shape == (8, 16, 3) and frame.accumulation.min() > 0.1


def test_depths_of_a_path(ball):
    scene, cameras = ball
    near, far = depth_range(scene, cameras)
    assert 2 - 0.8 < near < far < 4.5
    assert 2 - 0.8 < typical_depth(scene, cameras[0]) < 2.1
    assert depth_range(scene, cameras, box(1e-3)) == (0.0, 1.0)  # nothing to be seen


def test_what_outputs_look_like():
    frame = Frame(
        torch.tensor([[[0.0, 0.5, 1.0], [1 / 255, 0.7, 0.2]]]),
        torch.tensor([[1.0, 3.0]]),
        torch.tensor([[1.0, 0.0]]),
    )
    assert picture(frame, "rgb").tolist() == [[[0, 128, 255], [1, 179, 51]]]
    assert picture(frame, "accumulation").tolist() == [[[255] * 3, [0] * 3]]
    depth = picture(frame, "depth", (1.0, 3.0))
    assert depth[0, 0].tolist() == [252, 236, 150] and not depth[0, 1].any()
    # Near is brighter than far, and what lies beyond the range has its ends' colours.
    depths = torch.tensor([[-1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0]])
    ramp = picture(Frame(torch.zeros(1, 7, 3), depths, torch.ones(1, 7)), "depth", (1.0, 3.0))
    assert (np.diff(ramp[0].astype(int).sum(-1)) <= 0).all()
    assert (ramp[0, 0] == ramp[0, 1]).all() and (ramp[0, -1] == ramp[0, -2]).all()
