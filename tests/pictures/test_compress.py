"""Pictures and videos through the whole of it: train, encode, decode, measure."""

import dataclasses

import make
import numpy as np
import pytest
from synthetic_pictures import frames, picture

from shacira_nerfstudio.codec import decode_scene, verify
from shacira_nerfstudio.compression.pack_image import without_empty_levels
from shacira_nerfstudio.pictures.compress import compress_pixels
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions
from shacira_nerfstudio.pictures.training import PictureTraining, psnr_of


def compress(pixels, steps=120, **options):
    """In draft quality: its network is small."""
    height, width, channels = pixels.shape[-3:]
    layout = PixelLayout(width, height, channels, 8 * pixels.itemsize)
    if pixels.ndim == 4:
        layout = PixelLayout(width, height, channels, 8 * pixels.itemsize, len(pixels), (24, 1))
    return compress_pixels(pixels, layout, PictureOptions("draft", num_steps=steps, **options))


@pytest.fixture(scope="module")
def done():
    return compress(picture())


def test_a_picture_comes_back(done):
    assert done.psnr > 22
    shown = PixelDecoder(decode_scene(done.data)).pixels()
    error = np.square((shown.astype(float) - picture()) / 255).mean()
    assert done.psnr == pytest.approx(psnr_of(error))
    assert len(done.data) < picture().size / 2
    verify(done.data)


def test_the_same_seed_gives_the_same_file(done):
    assert compress(picture()).data == done.data
    assert compress(picture(), seed=1).data != done.data


def test_a_larger_weight_gives_a_smaller_file(done):
    smaller = compress(picture(), rate_lambda=1e-2)
    assert len(smaller.data) < 0.9 * len(done.data)
    assert smaller.psnr < done.psnr


def test_a_target_size_is_met():
    # Noise enough for the network to be a small part of the file.
    noise = np.random.default_rng(0).integers(-40, 40, (60, 80, 3))
    pixels = np.clip(picture(80, 60).astype(int) + noise, 0, 255).astype(np.uint8)
    found = compress(pixels, steps=400, target_size_kb=2.5)
    assert 2450 <= len(found.data) <= 2500
    layout = PixelLayout(48, 36)
    of_bpp = PictureOptions(target_bpp=8 * 1800 / (48 * 36)).compression(layout)
    assert of_bpp.target_size_kb == pytest.approx(1.8)


def test_a_target_quality_is_met():
    found = compress(picture(), target_psnr=24.0, rate_lambda=1e-3)
    assert 23 <= found.psnr <= 25.5


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (1, 16), (2, 8), (4, 8), (3, 16)])
def test_other_formats(channels, bits):
    pixels = picture(20, 17, channels, bits)
    found = compress(pixels, steps=120)
    assert found.psnr > 20
    shown = PixelDecoder(decode_scene(found.data)).pixels()
    assert shown.dtype == pixels.dtype and shown.shape == pixels.shape


def test_colours_that_nobody_sees_cost_nothing():
    pixels = picture(20, 17, 4)
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape)
    hidden = np.where(pixels[..., 3:] == 0, noise, pixels).astype(np.uint8)
    hidden[..., 3] = pixels[..., 3]
    assert compress(hidden, steps=60).psnr == pytest.approx(compress(pixels, steps=60).psnr, abs=1)


def test_a_video_comes_back():
    pixels = frames(width=24, height=18)
    found = compress(pixels, steps=80)
    assert found.psnr > 18
    scene = decode_scene(found.data)
    assert scene.kind == "video" and scene.architecture["frames"] == 6
    decoder = PixelDecoder(scene)
    shown = np.stack([decoder.pixels(frame=frame) for frame in range(6)])
    error = np.square((shown.astype(float) - pixels) / 255).mean()
    assert found.psnr == pytest.approx(psnr_of(error))


def test_levels_that_hold_nothing_are_left_out():
    pixels = np.full((36, 48, 3), 77, np.uint8)
    found = compress(pixels, steps=60, rate_lambda=0.1)
    assert found.psnr > 45 and decode_scene(found.data).grid.num_levels == 1
    symbols = make.tiny_picture().symbols.copy()
    symbols[make.tiny_picture().grid.offsets[2] :] = 0
    scene = dataclasses.replace(make.tiny_picture(), symbols=symbols, prefix_psnr=(1, 2, 3))
    shorter = without_empty_levels(scene)
    assert shorter.grid.num_levels == 2 and shorter.prefix_psnr == (1, 2)
    assert np.array_equal(PixelDecoder(shorter).pixels(), PixelDecoder(scene).pixels())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_pictures(size):
    assert compress(picture(*size), steps=20).layout.num_pixels == size[0] * size[1]


def test_the_file_shows_what_training_saw():
    # Twelve bits of fractions against single precision: not the same, but hardly any different.
    pixels = picture()
    run = PictureTraining(pixels, PixelLayout(48, 36), PictureOptions(num_steps=60))
    packed = run.run()
    positions, *_ = run.batches.next()
    field = run.field.eval()
    floats = field(positions).detach().clamp(0, 1).numpy() * 255
    at = np.floor(positions.numpy() * [48, 36]).astype(int)
    shown = PixelDecoder(packed).pixels()[at[:, 1], at[:, 0]]
    assert np.abs(floats - shown).mean() < 2


def test_the_papers_choices():
    found = compress(
        picture(), choices="paper", paper_levels=6, paper_log2_table=8, rate_lambda=1e-4, steps=200
    )
    scene = decode_scene(found.data)
    assert scene.grid.num_levels == 6 and max(scene.grid.table_sizes) == 256
    assert found.psnr > 15


@pytest.mark.parametrize(
    "options",
    [{"target_bpp": 1.0, "target_psnr": 30.0}, {"rate_lambda": -1.0}, {"num_steps": -1}],
)
def test_options_that_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        PictureOptions(**options)
