"""A run without its data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from shacira_nerfstudio.codec import CameraSet, load_scene, save_scene
from shacira_nerfstudio.plugin.rtmv_dataparser import ShaciraDataset
from shacira_nerfstudio.plugin.stored_cameras import StoredCamerasDataParserConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "v1_tiny.shacira"


def test_each_camera_has_a_name_and_needs_no_picture(tmp_path):
    poses = np.tile(np.eye(4, dtype=np.float32)[:3], (5, 1, 1))
    optics = np.tile(np.array([9, 9, 4, 3], np.float32), (5, 1))
    cameras = CameraSet(poses, optics, np.tile(np.array([8, 6], np.uint32), (5, 1)))
    save_scene(tmp_path / "scene.shacira", replace(load_scene(GOLDEN), cameras=cameras))
    config = StoredCamerasDataParserConfig(data=tmp_path / "scene.shacira")
    outputs = config.setup().get_dataparser_outputs("train")
    # ns-render dataset names its pictures after these.
    assert len(set(outputs.image_filenames)) == 5
    dataset = ShaciraDataset(outputs)
    assert all((dataset[index]["image"] * 255 == 128).all() for index in range(5))
    assert list(tmp_path.iterdir()) == [tmp_path / "scene.shacira"]
