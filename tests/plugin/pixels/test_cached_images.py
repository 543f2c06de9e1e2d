"""Batches from a file of pixels are those from images in memory."""

import random

import numpy as np
import OpenEXR
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PairPixelSamplerConfig, PixelSamplerConfig
from PIL import Image
from tiny_data_sets import managers, parsed, write_images

from shacira_nerfstudio.plugin.data_manager import ShaciraDataManager, ShaciraDataManagerConfig
from shacira_nerfstudio.plugin.input_check import InputError

WHITE = (1.0, 1.0, 1.0)
SIZE = (20, 24)


def manager(outputs, monkeypatch, folder=None, **options):
    """In memory, or from a file in a folder."""
    if folder is not None:
        options.update(cache_above_bytes=0, cache_dir=folder / "cache")
    return managers(outputs, monkeypatch, kinds=(ShaciraDataManager,), **options)[0]


def batches(data, count=3):
    torch.manual_seed(4)
    random.seed(4)
    return [data.next_train(step) for step in range(count)]


def assert_same(outputs, monkeypatch, folder, atol=0.0, **options):
    from_memory = manager(outputs, monkeypatch, **options)
    from_file = manager(outputs, monkeypatch, folder, **options)
    assert from_file.is_in_file and not from_memory.is_in_file
    for (bundle, batch), (other_bundle, other) in zip(
        batches(from_file), batches(from_memory), strict=True
    ):
        assert batch.keys() == other.keys()
        assert batch["image"].dtype == torch.float32
        assert torch.equal(batch["indices"], other["indices"])
        torch.testing.assert_close(batch["image"], other["image"], rtol=0, atol=atol)
        assert torch.equal(bundle.directions, other_bundle.directions)
        if "mask" in batch:
            assert torch.equal(batch["mask"], other["mask"])
    return from_file


def masks_of(folder, sizes, share=0.7):
    paths = []
    for index, size in enumerate(sizes):
        paths.append(folder / f"mask{index}.png")
        mask = np.random.default_rng(index).random(size) < 0.1
        mask[: int(share * size[0]), 1 : int(share * size[1])] = True
        Image.fromarray(mask.astype(np.uint8) * 255).save(paths[-1])
    return paths


CHANNELS = [((3, 3, 3), None), ((4, 4, 4), None), ((4, 4, 4), WHITE), ((4, 3, 4), (0.0, 0.5, 1.0))]


@pytest.mark.parametrize(("channels", "color"), CHANNELS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_images_of_one_size(tmp_path, monkeypatch, channels, color, scale):
    outputs = parsed(write_images(tmp_path, channels), color)
    data = assert_same(outputs, monkeypatch, tmp_path, camera_res_scale_factor=scale)
    # Nothing of an image stays in memory.
    assert data.cached_images.batch["image"].untyped_storage().nbytes() == 4


def test_images_of_several_sizes(tmp_path, monkeypatch):
    sizes = ((20, 24), (4, 4), (7, 5))
    paths = write_images(tmp_path, (4, 4, 4), sizes)
    assert_same(parsed(paths, WHITE, sizes), monkeypatch, tmp_path)
    masks = masks_of(tmp_path, sizes)
    assert_same(parsed(paths, WHITE, sizes, mask_filenames=masks), monkeypatch, tmp_path)


SAMPLERS = {
    "plain": {},
    "listed": {"pixel_sampler": PixelSamplerConfig(rejection_sample_mask=False)},
    "pairs": {"pixel_sampler": PairPixelSamplerConfig()},
    "listed pairs": {"pixel_sampler": PairPixelSamplerConfig(rejection_sample_mask=False)},
    "patches": {"patch_size": 4},
    "odd patches": {"patch_size": 3},
    "masks ignored": {"pixel_sampler": PixelSamplerConfig(ignore_mask=True)},
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("has_masks", [False, True])
def test_samplers_draw_the_same(tmp_path, monkeypatch, kind, has_masks):
    sizes = (SIZE,) * 3
    masks = masks_of(tmp_path, sizes) if has_masks else None
    outputs = parsed(write_images(tmp_path, (3, 3, 3), sizes), sizes=sizes, mask_filenames=masks)
    # As many as there are pixels to list.
    options = {**SAMPLERS[kind], "train_num_rays_per_batch": 180}
    if "pixel_sampler" in options:
        options["pixel_sampler"] = _fresh(options["pixel_sampler"])
    assert_same(outputs, monkeypatch, tmp_path, **options)


def _fresh(config):
    return type(config)(**vars(config))


def test_masks_of_which_chance_finds_little(tmp_path, monkeypatch):
    sizes = (SIZE,) * 3
    masks = masks_of(tmp_path, sizes, share=0.0)
    outputs = parsed(write_images(tmp_path, (3, 3, 3), sizes), sizes=sizes, mask_filenames=masks)
    options = {"train_num_rays_per_batch": 40}
    data = []
    for folder in (None, tmp_path):
        sampler = PixelSamplerConfig(max_num_iterations=1)
        data.append(manager(outputs, monkeypatch, folder, pixel_sampler=sampler, **options))
    with pytest.warns(UserWarning, match="[Mm]ask"):
        found = [batches(one) for one in data]
    for (_, batch), (_, other) in zip(*found, strict=True):
        assert torch.equal(batch["indices"], other["indices"]) and batch["mask"].all()


def write_exr(path, pixels):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"RGBA": pixels.astype(np.float32)}) as exr:
        exr.write(str(path))


@pytest.mark.parametrize(("bits", "atol"), [(8, 0.5 / 255), (16, 0.5 / 65535)])
def test_linear_images_are_rounded_to_the_bits_asked_for(tmp_path, monkeypatch, bits, atol):
    paths = [tmp_path / f"{index}.exr" for index in range(3)]
    for index, path in enumerate(paths):
        write_exr(path, np.random.default_rng(index).random((6, 8, 4)))
    outputs = parsed(paths, WHITE)
    data = assert_same(outputs, monkeypatch, tmp_path, atol=1.01 * atol, cache_bits=bits)
    assert data.cached_images.cache.pixels.dtype.itemsize == bits // 8


def test_images_that_are_painted_where_masked(tmp_path, monkeypatch):
    sizes = ((6, 8),) * 3
    painted = parsed(
        write_images(tmp_path, (3, 3, 3)),
        mask_filenames=masks_of(tmp_path, sizes),
        metadata={"mask_color": (0.1, 0.2, 0.3)},
    )
    assert_same(painted, monkeypatch, tmp_path, atol=0.51 / 255)


def test_round_panoramas_draw_the_same(tmp_path, monkeypatch):
    outputs = parsed(write_images(tmp_path, (3, 3, 3)))
    kind = CameraType.EQUIRECTANGULAR.value
    outputs.cameras.camera_type = torch.full_like(outputs.cameras.camera_type, kind)
    assert_same(outputs, monkeypatch, tmp_path)


def test_a_file_is_taken_for_images_above_a_size(tmp_path, monkeypatch, capsys):
    outputs = parsed(write_images(tmp_path, (3, 3, 3)))
    size = 3 * 6 * 8 * 3
    options = {"cache_dir": tmp_path / "cache"}
    for limit, expected in ((size, False), (size - 1, True), (-1, False), (0, True)):
        data = manager(outputs, monkeypatch, cache_above_bytes=limit, **options)
        assert data.is_in_file is expected
    options["cache_above_bytes"] = 0
    assert not manager(
        outputs, monkeypatch, train_num_images_to_sample_from=2, **options
    ).is_in_file
    capsys.readouterr()
    full = PixelSamplerConfig(keep_full_image=True)
    assert not manager(outputs, monkeypatch, pixel_sampler=full, **options).is_in_file
    assert "stay in memory, 432 bytes: keep_full_image hands them out" in capsys.readouterr().out


def test_one_file_serves_several_backgrounds(tmp_path, monkeypatch):
    paths = write_images(tmp_path, (4, 4, 4))
    for color in (WHITE, (0.0, 0.0, 0.0)):
        manager(parsed(paths, color), monkeypatch, tmp_path)
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1


def test_all_broken_images_are_listed(tmp_path, monkeypatch):
    paths = write_images(tmp_path, (3, 3, 3), (SIZE,) * 3)
    outputs = parsed(paths, sizes=(SIZE,) * 3)
    for path in paths[:2]:  # past the header, which has been looked at by then
        path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"(?s)found 2 faults:.*0\.png.*1\.png"):
        manager(outputs, monkeypatch, tmp_path)


def test_a_folder_that_takes_no_file_is_named_with_the_way_out(tmp_path, monkeypatch):
    outputs = parsed(write_images(tmp_path, (3, 3, 3)))
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(OSError, match="cache-dir names another folder"):
        manager(outputs, monkeypatch, tmp_path)


def test_runs_of_before_have_their_options_filled_in(tmp_path, monkeypatch):
    outputs = parsed(write_images(tmp_path, (3, 3, 3)))
    data = manager(outputs, monkeypatch)
    assert isinstance(data.config, ShaciraDataManagerConfig)
    names = [field for field in vars(VanillaDataManagerConfig()) if field != "dataparser"]
    old = VanillaDataManagerConfig(**{name: getattr(data.config, name) for name in names})
    old.dataparser = data.config.dataparser
    again = ShaciraDataManager(old, device="cpu", test_mode="val")
    for (_, batch), (_, other) in zip(batches(data), batches(again), strict=True):
        assert batch["image"].shape == other["image"].shape
