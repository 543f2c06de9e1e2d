"""Pictures that are cut out show an object, whatever the data parser says of backgrounds."""

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image
from tiny_data_sets import managers

from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.plugin.capture_kind import choose_settings
from shacira_nerfstudio.plugin.data_manager import ShaciraDataManager
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig
from shacira_nerfstudio.plugin.object_capture import find_object
from shacira_nerfstudio.plugin.scene_settings import scene_settings, trains_on_random_background

SIZE, CENTER, RADIUS = 40, np.array([0.1, -0.2, 0.05]), 0.25


def _pose(eye):
    back = eye / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, eye], 1).astype(np.float32)


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A ball seen from all sides by a parser without a background colour."""
    folder = tmp_path_factory.mktemp("ball")
    draw = np.random.default_rng(3)
    eyes = draw.standard_normal((12, 3))
    poses = np.stack([_pose(eye / np.linalg.norm(eye)) for eye in eyes])
    paths = []
    for index, pose in enumerate(poses):
        camera = PinholeCamera(pose, 40.0, 40.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
        origins, directions = (part.numpy() for part in camera.rays())
        along = ((CENTER - origins) * directions).sum(1)
        distance = np.linalg.norm(origins + along[:, None] * directions - CENTER, axis=1)
        pixels = np.full((SIZE * SIZE, 4), 200, np.uint8)
        pixels[:, 3] = np.where(distance < RADIUS, 255, 0)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels.reshape(SIZE, SIZE, 4)).save(paths[-1])
    cameras = Cameras(torch.from_numpy(poses), 40.0, 40.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
    return DataparserOutputs(paths, cameras)


def test_the_box_is_around_what_all_cameras_see(ball):
    found = find_object(ball)
    assert 0.5 < found.empty_share < 0.9
    low, high = np.array(found.box)
    assert (low <= CENTER - RADIUS).all() and (high >= CENTER + RADIUS).all()
    assert (high - low).max() < 2 * RADIUS * 1.5  # the parser's box is 2 wide
    assert np.ptp(high - low) < 1e-6  # a cube


def test_a_colour_of_the_parser_comes_first(ball):
    stated = DataparserOutputs(ball.image_filenames, ball.cameras, alpha_color=torch.ones(3))
    assert find_object(stated) is None


def test_an_alpha_that_is_not_used_is_none(ball, tmp_path):
    paths = []
    for index, path in enumerate(ball.image_filenames):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[..., 3] = 255
        pixels[:3, :3, 3] = 0  # retouched
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    assert find_object(DataparserOutputs(paths, ball.cameras)) is None
    for path in paths:
        Image.fromarray(pixels[..., :3]).save(path)
    assert find_object(DataparserOutputs(paths, ball.cameras)) is None


def test_silhouettes_that_contradict_one_another_leave_the_parsers_box(ball):
    poses = ball.cameras.camera_to_worlds.flip(0) * torch.tensor([1, 1, 1, 0.2])
    cameras = Cameras(poses, 400.0, 400.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
    found = find_object(DataparserOutputs(ball.image_filenames, cameras))
    assert found is not None
    assert found.box is None or np.isfinite(found.box).all()


def settings_of(dataset, scene_box, **options):
    config = ShaciraModelConfig(**options)
    choose_settings(config, dataset)
    return config, scene_settings(config, scene_box, dataset)


def test_the_model_is_told_and_each_part_can_be_overridden(ball, monkeypatch):
    (manager,) = managers(ball, monkeypatch, kinds=(ShaciraDataManager,))
    dataset = DatasetMetadata.of(manager.train_dataset.metadata)
    box = manager.train_dataset.scene_box
    config, settings = settings_of(dataset, box)
    assert settings.train_march.contraction == "affine"
    assert settings.train_march.box == dataset.object_box
    assert settings.background.kind == "white"
    assert not trains_on_random_background(config, dataset)
    assert dataset.reason.startswith("pictures are cut out (7") and " % of" in dataset.reason
    whole = ((-1, -1, -1), (1, 1, 1))
    assert settings_of(dataset, box, fit_box=False)[1].train_march.box == whole
    march = settings_of(dataset, box, contraction="contracted")[1].train_march
    assert march.contraction == "contracted" and march.box == whole
    small = (0.0, 0.0, 0.0, 0.5, 0.5, 0.5)
    assert settings_of(dataset, box, box=small)[1].train_march.box == (small[:3], small[3:])
    assert settings_of(dataset, box, background_color="black")[1].background.kind == "black"
    # Pictures keep their alpha, so that any background can be put behind them.
    assert manager.next_train(0)[1]["image"].shape[-1] == 4
    assert manager.eval_dataset[0]["image"].shape[-1] == 4


def test_what_was_chosen_needs_no_pixels_later(ball, monkeypatch):
    (manager,) = managers(ball, monkeypatch, kinds=(ShaciraDataManager,))
    box, dataset = manager.train_dataset.scene_box, manager.train_dataset.metadata
    config, settings = settings_of(DatasetMetadata.of(dataset), box)
    again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    unknown = DatasetMetadata()
    assert choose_settings(again, unknown).values == {}
    assert scene_settings(again, box, unknown) == settings
    assert not trains_on_random_background(again, unknown)
