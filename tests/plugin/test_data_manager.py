"""Images that are kept as bytes: every pixel is what it would have been."""

import copy
import itertools
import pathlib
import random

import numpy as np
import OpenEXR
import pytest
import torch
import yaml
from PIL import Image
from tiny_data_sets import managers, parsed, write_images

from shacira_nerfstudio.plugin.config import shacira_method
from shacira_nerfstudio.plugin.data_manager import (
    EightBitDataset,
    ShaciraDataManager,
    recognize_rtmv,
)
from shacira_nerfstudio.plugin.rtmv_dataparser import RtmvDataParserConfig, ShaciraDataset
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

COLORS = [None, (1.0, 1.0, 1.0), (0.0, 0.5, 1.0)]


def batches(manager, count=3):
    torch.manual_seed(4)
    random.seed(4)  # for a host that reads its images only now
    return [manager.next_train(step) for step in range(count)]


def assert_same_batches(ours, theirs):
    for (bundle, batch), (other_bundle, other) in zip(batches(ours), batches(theirs), strict=True):
        assert batch["image"].dtype == torch.float32
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[name], other[name]) for name in batch)
        assert torch.equal(bundle.directions, other_bundle.directions)


# Without a colour to put them on, the host cannot join images of three channels with those of four.
@pytest.mark.parametrize(
    ("channels", "color"),
    [
        *itertools.product([(3, 3, 3), (4, 4, 4)], COLORS),
        *(((4, 3, 4), color) for color in COLORS[1:]),
    ],
    ids=str,
)
def test_batches_are_the_hosts(tmp_path, monkeypatch, channels, color):
    outputs = parsed(write_images(tmp_path, channels), color)
    for options in ({}, {"camera_res_scale_factor": 0.5}, {"train_num_images_to_sample_from": 2}):
        ours, theirs = managers(outputs, monkeypatch, **options)
        assert_same_batches(ours, theirs)
        cached = ours.train_image_dataloader.cached_collated_batch["image"]
        assert cached.dtype == torch.uint8


def test_images_of_several_sizes(tmp_path, monkeypatch):
    sizes = ((6, 8), (4, 4), (7, 5))
    outputs = parsed(write_images(tmp_path, (4, 4, 4), sizes), COLORS[2], sizes)
    ours, theirs = managers(outputs, monkeypatch)
    images = ours.train_image_dataloader.cached_collated_batch["image"]
    assert isinstance(images, list) and images[0].dtype == torch.uint8
    _, batch = ours.next_train(0)
    assert batch["image"].shape[1:] == (3,) and batch["image"].dtype == torch.float32
    exact = {i: theirs.train_dataset[i]["image"] for i in range(3)}
    for pixel, (image, row, column) in zip(batch["image"], batch["indices"].tolist(), strict=True):
        assert torch.equal(pixel, exact[image][row, column])


def test_masks_come_along(tmp_path, monkeypatch):
    paths, masks = write_images(tmp_path, (3, 3, 3)), []
    for index in range(3):
        mask = np.zeros((6, 8), np.uint8)
        mask[index : index + 2, 2:5] = 255
        masks.append(tmp_path / f"mask{index}.png")
        Image.fromarray(mask).save(masks[-1])
    ours, theirs = managers(parsed(paths, mask_filenames=masks), monkeypatch)
    assert ours.train_image_dataloader.cached_collated_batch["image"].dtype == torch.uint8
    assert_same_batches(ours, theirs)
    # Images that are painted where masked are handed out as the host's.
    painted = parsed(paths, mask_filenames=masks, metadata={"mask_color": (0.1, 0.2, 0.3)})
    ours, theirs = managers(painted, monkeypatch)
    assert ours.train_image_dataloader.cached_collated_batch["image"].dtype == torch.float32
    assert_same_batches(ours, theirs)


def test_linear_images_keep_their_precision(tmp_path):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    pixels = np.random.default_rng(0).random((6, 8, 4)).astype(np.float32)
    OpenEXR.File(header, {"RGBA": pixels}).write(str(tmp_path / "a.exr"))
    paths = [tmp_path / "a.exr", *write_images(tmp_path, (4, 4, 4))[:2]]
    outputs = parsed(paths, COLORS[1])
    dataset, plain = EightBitDataset(outputs), ShaciraDataset(outputs)
    assert not dataset.is_eight_bit
    for index in range(3):
        image = dataset[index]["image"]
        assert image.dtype == torch.float32
        assert torch.equal(dataset.to_float(image), plain[index]["image"])


def test_whole_images_stay_floats(tmp_path, monkeypatch):
    ours, _ = managers(parsed(write_images(tmp_path, (4, 4, 4)), COLORS[1]), monkeypatch)
    assert type(ours.train_dataset) is ShaciraDataset
    assert ours.train_dataset[0]["image"].dtype == torch.float32
    assert ours.eval_dataset[0]["image"].dtype == torch.float32
    _, batch = ours.next_eval_image(0)
    assert batch["image"].dtype == torch.float32


def test_the_config_file_names_the_data_manager():
    config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
    assert config._target is ShaciraDataManager
    config.cache_dir = pathlib.Path("some/where")
    again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert again._target is ShaciraDataManager and again.cache_dir == config.cache_dir


def test_an_rtmv_folder_needs_no_data_parser_named(tmp_path, capsys):
    write_demo_scene(tmp_path, num_views=6, size=8)
    config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
    config.data = tmp_path
    data = config.setup(device="cpu", test_mode="val")
    assert isinstance(config.dataparser, RtmvDataParserConfig)
    assert data.train_dataset[0]["image"].shape == (8, 8, 3)
    assert "is an RTMV scene: taking rtmv-data" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "transforms.json").write_text("{}")  # then it is the default parser's
    config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
    recognize_rtmv(config, tmp_path)
    assert not isinstance(config.dataparser, RtmvDataParserConfig)


def test_random_backgrounds_reach_the_model_with_alpha(tmp_path):
    write_demo_scene(tmp_path, num_views=6, size=8)
    for limit in (-1, 0):
        config = copy.deepcopy(shacira_method.config.pipeline.datamanager)
        config.dataparser = RtmvDataParserConfig(data=tmp_path, background="random")
        config.cache_dir, config.cache_above_bytes = tmp_path / "cache", limit
        data = config.setup(device="cpu", test_mode="val")
        assert data.is_in_file is (limit == 0)
        _, batch = data.next_train(0)
        assert batch["image"].shape == (4096, 4)
