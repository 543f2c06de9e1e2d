"""A scene that renders: a ball of random colours before white, as a file would hold it."""

import numpy as np
import torch

from shacira_nerfstudio.backends import MarchSettings, get_backend
from shacira_nerfstudio.codec import CameraSet
from shacira_nerfstudio.compression.pack import pack_scene
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings

NUM_CAMERAS, WIDTH, HEIGHT = 3, 12, 8


def make_ball(log_density=-1.0):
    """A packed scene with cameras and meta data."""
    torch.manual_seed(0)
    field = RadianceField.create(
        GridSpec.create(num_levels=3, base_res=4, max_res=16, log2_hashmap_size=10),
        FieldShape(hidden_dim=8, geo_feat_dim=3, num_color_layers=1, sh_degree=2),
        get_backend("reference", "cpu"),
        latent_dim=1,
        features_per_level=2,
        latents_init_std=2.0,
        initial_log_density=log_density,
    )
    march = MarchSettings("affine", ((-1.0,) * 3, (1.0,) * 3), 0.05, 100.0, 0.05)
    settings = SceneSettings(march, march, Background.named("white"))
    scene = RadianceScene(field, OccupancyGrid(32), settings)
    axis = torch.linspace(-1, 1, 32)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    poses = np.repeat(np.eye(4, dtype=np.float32)[None, :3], NUM_CAMERAS, 0)
    poses[:, 2, 3] = [2.0, 3.0, 4.0]  # looking along -z
    cameras = CameraSet(
        camera_to_worlds=poses,
        intrinsics=np.array([[10, 10, WIDTH / 2, HEIGHT / 2]] * NUM_CAMERAS, np.float32),
        sizes=np.array([[WIDTH, HEIGHT]] * NUM_CAMERAS, np.uint32),
    )
    return pack_scene(
        scene,
        occupied=x * x + y * y + z * z < 0.5,
        cameras=cameras,
        meta={"tool": "test", "step": 7},
    )
