"""A lone file opens, or says what is missing."""

import dataclasses

import pytest
from synthetic_ball import NUM_CAMERAS, make_ball

from shacira_nerfstudio.codec import save_scene
from shacira_nerfstudio.viewer.scene_files import cameras_in, open_scene


def test_a_file_opens(tmp_path):
    path = tmp_path / "scene.shacira"
    save_scene(path, make_ball())
    packed, scene = open_scene(path, "cpu")
    cameras = cameras_in(packed, path)
    assert len(cameras) == NUM_CAMERAS
    assert scene.render_view(cameras[0]).shape == (8, 12, 3)
    with pytest.raises(ValueError, match=r"found none: only --camera-path"):
        cameras_in(dataclasses.replace(packed, cameras=None), path)


@pytest.mark.parametrize("device", ["tpu-9", "", "cuda:99"])
def test_a_device_has_to_be_there(tmp_path, device):
    path = tmp_path / "scene.shacira"
    save_scene(path, make_ball())
    with pytest.raises(ValueError, match="expected a device that is there"):
        open_scene(path, device)
