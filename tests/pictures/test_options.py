"""The grid follows the pixels, the batches cover them."""

import numpy as np
import pytest
import torch
from synthetic_pictures import frames, picture

from shacira_nerfstudio.pictures.batches import PixelBatches
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions


def test_levels_keep_the_aspect_ratio():
    grid = PictureOptions().grid(PixelLayout(768, 512))
    assert grid.resolutions[-1] == (769, 513) and grid.resolutions[-2] == (385, 257)
    assert grid.resolutions[0] == (13, 9)
    assert all(grid.is_dense(level) for level in range(grid.num_levels))


def test_large_pictures_have_no_more_entries_than_a_file_may_have():
    layout = PixelLayout(4000, 3000)
    tight = PictureOptions(target_bpp=0.02).grid(layout)
    loose = PictureOptions(target_bpp=0.5).grid(layout)
    assert max(tight.table_sizes) <= 1 << 20
    assert max(loose.table_sizes) > 10_000_000
    huge = PictureOptions(target_bpp=1.0).grid(PixelLayout(16384, 16384))
    assert huge.resolutions[-1] == (8193, 8193)


def test_every_pixel_comes_once_before_any_comes_again():
    pixels = picture(64, 48)
    batches = PixelBatches(pixels, PixelLayout(64, 48), 4 * 256, seed=0)
    seen = np.zeros((48, 64), int)
    for _ in range(3):
        positions, colors, weights = batches.next()
        assert weights is None and len(positions) == 4 * 256
        at = np.floor(positions.numpy() * [64, 48]).astype(int)
        np.add.at(seen, (at[:, 1], at[:, 0]), 1)
        assert np.allclose(colors.numpy() * 255, pixels[at[:, 1], at[:, 0]], atol=1e-3)
        centres = positions.numpy() * [64, 48] % 1
        assert np.allclose(centres, 0.5, atol=1e-3)
    assert (seen == 1).all()


def test_small_pictures_are_one_batch():
    batches = PixelBatches(picture(40, 30), PixelLayout(40, 30), 1 << 16, seed=0)
    first, again = batches.next(), batches.next()
    assert torch.equal(first[0], again[0])
    at = np.floor(first[0].numpy() * [40, 30]).astype(int)
    assert len(np.unique(at, axis=0)) == 40 * 30


def test_tiles_of_videos():
    pixels = frames(5, width=32, height=32)
    layout = PixelLayout(32, 32, frames=5, rate=(24, 1))
    positions, colors, _ = PixelBatches(pixels, layout, 512, seed=0).next()
    at = np.floor(positions.numpy() * [32, 32, 5]).astype(int)
    assert np.allclose(colors.numpy() * 255, pixels[at[:, 2], at[:, 1], at[:, 0]], atol=1e-3)


@pytest.mark.parametrize("channels", [2, 4])
def test_colours_weigh_what_is_seen_of_them(channels):
    pixels = picture(16, 16, channels)
    _, colors, weights = PixelBatches(pixels, PixelLayout(16, 16, channels), 256, seed=0).next()
    assert torch.equal(weights[:, 0], colors[:, -1])
    assert (weights[:, -1] == 1).all()
