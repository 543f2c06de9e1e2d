"""Numbers of rays that the host's samplers can draw, and masks that come alone."""

import pytest
import torch
from nerfstudio.data.pixel_samplers import PairPixelSamplerConfig
from PIL import Image
from tiny_data_sets import managers, parsed, write_images

from shacira_nerfstudio.plugin.data_manager import ShaciraDataManager

SIZES = {"one": ((40, 48),) * 3, "several": ((40, 48), (32, 32), (40, 48))}


def manager(tmp_path, monkeypatch, sizes="one", masks=None, **options):
    paths = write_images(tmp_path, (3, 3, 3), SIZES[sizes])
    outputs = parsed(paths, sizes=SIZES[sizes], mask_filenames=masks)
    return managers(outputs, monkeypatch, kinds=(ShaciraDataManager,), **options)[0]


OPTIONS = {
    "plain": ("one", {}, 65),
    "several sizes": ("several", {}, 66),
    "pairs": ("one", {"pixel_sampler": PairPixelSamplerConfig()}, 66),
    "patches": ("one", {"patch_size": 4}, 64),
    "large patches": ("one", {"patch_size": 16}, 256),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_any_number_of_rays_is_one_that_the_sampler_draws(tmp_path, monkeypatch, kind):
    sizes, options, expected = OPTIONS[kind]
    data = manager(tmp_path, monkeypatch, sizes, **options)
    data.set_num_rays(65)
    data.next_train(0)  # the one after was drawn ahead
    data.next_train(1)
    bundle, batch = data.next_train(2)
    assert len(bundle) == len(batch["image"]) == expected


@pytest.mark.parametrize("sizes", SIZES)
def test_masks_of_several_sizes_and_of_one_image(tmp_path, monkeypatch, sizes):
    masks = []
    for index, (rows, columns) in enumerate(SIZES[sizes]):
        masks.append(tmp_path / f"mask{index}.png")
        mask = Image.new("L", (columns, rows))
        mask.paste(255, (4, 4, 20, 20))
        mask.save(masks[-1])
    data = manager(tmp_path, monkeypatch, sizes, masks, train_num_images_to_sample_from=-1)
    _, batch = data.next_train(0)
    image, rows, columns = batch["indices"].T
    assert set(image.tolist()) == {0, 1, 2}
    assert all(((side >= 4) & (side < 20)).all() for side in (rows, columns))
    one = managers(
        parsed(write_images(tmp_path, (3,), ((6, 8),)), mask_filenames=[_mask(tmp_path)]),
        monkeypatch,
        kinds=(ShaciraDataManager,),
    )[0]
    assert torch.equal(one.next_train(0)[1]["indices"][:, 0].unique(), torch.tensor([0]))


def _mask(folder):
    image = Image.new("L", (8, 6))
    image.putpixel((2, 3), 255)  # nearly all is masked: the host gives up on drawing by chance
    image.paste(255, (0, 0, 4, 4))
    image.save(folder / "mask.png")
    return folder / "mask.png"


def test_patches_of_several_sizes_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected images of one size for patches"):
        manager(tmp_path, monkeypatch, "several", patch_size=4)
