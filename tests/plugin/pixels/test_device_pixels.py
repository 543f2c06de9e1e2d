"""Batches that a GPU makes for itself, on a CPU: pixels and rays are those of the host."""

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.model_components.ray_generators import RayGenerator
from PIL import Image
from tiny_data_sets import managers, parsed, write_images

from shacira_nerfstudio.plugin.data_manager import ShaciraDataManager
from shacira_nerfstudio.plugin.pixels import device_pixels
from shacira_nerfstudio.plugin.pixels.device_pixels import DeviceBatches, DevicePixels, DeviceRays

WHITE = (1.0, 1.0, 1.0)


def make_batches(outputs, monkeypatch, **options):
    """A data manager, and what it would make on a GPU."""
    (manager,) = managers(outputs, monkeypatch, kinds=(ShaciraDataManager,), **options)
    assert manager.device_batches is None  # steps are on a CPU
    loader = manager.train_image_dataloader
    images = loader.cached_collated_batch if loader.cache_all_images else None
    sampler = manager.train_pixel_sampler
    return manager, DeviceBatches.create(manager.eight_bit, sampler, images, "cpu")


@pytest.mark.parametrize(
    ("channels", "sizes", "color"),
    [
        ((3, 3, 3), ((6, 8),) * 3, None),
        ((4, 4, 4), ((6, 8),) * 3, WHITE),
        ((4, 4, 4), ((6, 8), (4, 4), (7, 5)), (0.0, 0.5, 1.0)),
    ],
    ids=["rgb", "alpha", "several sizes"],
)
def test_pixels_are_those_of_images(tmp_path, monkeypatch, channels, sizes, color):
    outputs = parsed(write_images(tmp_path, channels, sizes), color, sizes)
    manager, batches = make_batches(outputs, monkeypatch)
    assert batches.has_images
    bundle, batch = batches.draw(3000)
    images = [manager.train_dataset[i]["image"] for i in range(3)]
    for pixel, (image, row, column) in zip(batch["image"], batch["indices"].tolist(), strict=True):
        torch.testing.assert_close(pixel, images[image][row, column][: len(pixel)])
    count = torch.bincount(batch["indices"][:, 0], minlength=3)
    assert (count > 800).all()  # of each image as many, whatever its size
    drawn = {tuple(index) for index in batch["indices"].tolist()}
    assert len(drawn) == sum(height * width for height, width in sizes)  # each of them
    assert torch.equal(bundle.camera_indices[:, 0], batch["indices"][:, 0])


def test_masked_pixels_are_never_drawn(tmp_path, monkeypatch):
    paths, masks = write_images(tmp_path, (3, 3, 3)), []
    for index in range(3):
        mask = np.zeros((6, 8), np.uint8)
        mask[index : index + 2, 2 : 5 + index] = 255
        masks.append(tmp_path / f"mask{index}.png")
        Image.fromarray(mask).save(masks[-1])
    _, batches = make_batches(parsed(paths, mask_filenames=masks), monkeypatch)
    _, batch = batches.draw(4000)
    image, row, column = batch["indices"].unbind(1)
    assert ((row - image >= 0) & (row - image < 2)).all()
    assert ((column >= 2) & (column < 5 + image)).all()
    # All with the same probability: 6, 8 and 10 of an image, within five standard deviations.
    shares = torch.bincount(image, minlength=3) / 4000
    assert (shares - torch.tensor([6, 8, 10]) / 24).abs().max() < 0.04


def test_images_of_several_sizes_with_masks_count_alike():
    images = [torch.full((n, 4, 3), n, dtype=torch.uint8) for n in (2, 3, 9)]
    masks = [torch.ones(n, 4, 1, dtype=torch.bool) for n in (2, 3, 9)]
    masks[1][:] = False
    masks[2][1:] = False
    pixels = DevicePixels(images, torch.tensor([7, 8, 9]), masks, "cpu")
    colors, indices = pixels.draw(1000)
    assert set(indices[:, 0].tolist()) == {7, 9}
    assert 400 < (indices[:, 0] == 7).sum() < 600
    assert (indices[indices[:, 0] == 9][:, 1] == 0).all()
    assert torch.equal(colors[:, 0], torch.where(indices[:, 0] == 7, 2, 9).to(torch.uint8))
    with pytest.raises(ValueError, match="outside of masks, found none"):
        DevicePixels(images, torch.arange(3), [mask & False for mask in masks], "cpu")


@pytest.mark.parametrize("bends", [None, [0.1, -0.02, 0.003, 0.0, 0.01, -0.02]])
def test_rays_are_the_hosts(bends):
    torch.manual_seed(0)
    poses = torch.linalg.qr(torch.randn(4, 3, 3))[0]
    cameras = Cameras(
        torch.cat([poses, torch.randn(4, 3, 1)], 2),
        torch.rand(4, 1) * 5 + 10,
        torch.rand(4, 1) * 5 + 10,
        torch.full((4, 1), 7.3),
        torch.full((4, 1), 5.9),
        16,
        12,
        distortion_params=None if bends is None else torch.tensor(bends).repeat(4, 1),
    )
    sizes = torch.tensor([4, 12, 16])
    indices = (torch.rand(200, 3) * sizes).long()
    found, expected = DeviceRays(cameras, "cpu")(indices), RayGenerator(cameras)(indices)
    for name in ("origins", "directions", "camera_indices"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    norms = (bundle.metadata["directions_norm"] for bundle in (found, expected))
    torch.testing.assert_close(*norms)
    assert not DeviceRays.obstacle(cameras)
    cameras.camera_type[1] = CameraType.FISHEYE.value
    assert "not perspective" in DeviceRays.obstacle(cameras)


def test_what_the_host_draws_is_sent_as_bytes(tmp_path, monkeypatch):
    """Where images do not fit: the very batch that there would be on a CPU."""
    outputs = parsed(write_images(tmp_path, (4, 4, 4)), WHITE)
    monkeypatch.setattr(device_pixels, "MAX_IMAGE_BYTES", 10)
    manager, batches = make_batches(outputs, monkeypatch)
    assert not batches.has_images
    images = manager.train_image_dataloader.cached_collated_batch
    torch.manual_seed(3)
    drawn = manager.train_pixel_sampler.sample(images)
    assert drawn["image"].dtype == torch.uint8
    bundle, batch = batches.send(drawn)
    expected_bundle, expected = manager._finish_batch(dict(drawn))
    torch.testing.assert_close(batch["image"], expected["image"])
    assert torch.equal(batch["indices"], expected["indices"])
    torch.testing.assert_close(bundle.directions, expected_bundle.directions)


def test_pixels_that_are_not_drawn_alike_are_left_to_the_host(tmp_path, monkeypatch):
    outputs = parsed(write_images(tmp_path, (3, 3, 3)))
    some = {"train_num_images_to_sample_from": 2}
    round_pictures = {"pixel_sampler": PixelSamplerConfig(fisheye_crop_radius=3.0)}
    for options in (some, {"patch_size": 2}):
        assert not make_batches(outputs, monkeypatch, **options)[1].has_images
    _, batches = make_batches(outputs, monkeypatch, **round_pictures)
    assert batches.has_images  # the host takes the radius from the cameras alone
    outputs.cameras.metadata = {"fisheye_crop_radius": 3.0}
    assert not make_batches(outputs, monkeypatch)[1].has_images
    outputs.cameras.metadata = None
    outputs.cameras.camera_type[0] = CameraType.EQUIRECTANGULAR.value
    assert make_batches(outputs, monkeypatch)[1] is None
