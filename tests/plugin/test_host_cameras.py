"""What the host asks of a model besides plain pictures: crop boxes, panoramas, cameras by name."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox
from tiny_runs import make_config, make_trainer, steps

pytestmark = pytest.mark.nerfstudio


@pytest.fixture(scope="module")
def model(scene, tmp_path_factory):
    trainer = make_trainer(make_config(scene, tmp_path_factory.mktemp("run")))
    steps(trainer, 0, 30)
    return trainer.pipeline.model.eval()


def camera(kind=CameraType.PERSPECTIVE, height=12, width=24):
    pose = torch.eye(4)[:3]
    pose[2, 3] = 3.0
    focal = float(height) if kind == CameraType.PERSPECTIVE else width / 2
    return Cameras(pose[None], focal, focal, width / 2, height / 2, width, height, None, kind)


def box(center, rotation, scale):
    return OrientedBox.from_params(center, rotation, scale)


def test_a_crop_box_is_all_that_is_seen(model):
    whole = model.get_outputs_for_camera(camera())
    assert whole["accumulation"].max() > 0.1
    large = model.get_outputs_for_camera(
        camera(), obb_box=box((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (9.0, 9.0, 9.0))
    )
    assert torch.allclose(large["rgb"], whole["rgb"], atol=1e-3)
    away = model.get_outputs_for_camera(
        camera(), obb_box=box((5.0, 5.0, 5.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    )
    assert away["accumulation"].max() == 0
    turned = box((0.5, 0.0, 0.0), (0.0, 0.0, math.pi / 4), (0.6, 0.6, 9.0))
    cropped = model.get_outputs_for_camera(camera(), obb_box=turned)
    assert (cropped["accumulation"] <= whole["accumulation"] + 1e-4).all()
    assert cropped["accumulation"][:, :11].max() == 0  # left of the box
    assert cropped["accumulation"].max() > 0


KINDS = [
    CameraType.EQUIRECTANGULAR,
    CameraType.OMNIDIRECTIONALSTEREO_L,
    CameraType.OMNIDIRECTIONALSTEREO_R,
    CameraType.VR180_L,
    CameraType.VR180_R,
    CameraType.FISHEYE,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_panoramas_and_stereo(model, kind):
    pose_before = (view := camera(kind)).camera_to_worlds.clone()
    outputs = model.get_outputs_for_camera(view)
    assert torch.equal(view.camera_to_worlds, pose_before)
    assert outputs["rgb"].shape == (12, 24, 3) and outputs["rgb"].isfinite().all()
    assert outputs["accumulation"].max() > 0.1
