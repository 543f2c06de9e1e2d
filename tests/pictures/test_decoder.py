"""Pixels of a file are exact: those of the page, whatever machine, band, box or size."""

import hashlib

import make
import numpy as np
import plain_decoder
import pytest

from shacira_nerfstudio.codec import (
    PackedScene,
    SceneFormatError,
    decode_scene,
    encode_scene,
    truncate,
)
from shacira_nerfstudio.pictures import decoder as decoding
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.layout import PixelLayout

PICTURE, FRAMES = make.tiny_picture(), make.tiny_frames()
SPANS = {
    "whole": ((0, 15, 15), (0, 10, 10)),
    "a part": ((3, 9, 6), (2, 9, 7)),
    "larger": ((4, 7, 13), (0, 5, 8)),
}


def plain(scene, *spans):
    found = plain_decoder.pixels(encode_scene(scene), spans)
    shape = [count for _, _, count in spans]
    return np.moveaxis(np.array(list(found.values())).reshape(*shape, -1), 0, 1)


@pytest.mark.parametrize("name", SPANS)
def test_the_page_alone_gives_the_same_pixels(name):
    (left, right, width), (top, bottom, height) = SPANS[name]
    found = PixelDecoder(PICTURE).pixels((left, top, right, bottom), (width, height))
    assert found.dtype == np.uint8 and found.shape == (height, width, 4)
    assert np.array_equal(found, plain(PICTURE, *SPANS[name]))


def test_frames():
    decoder = PixelDecoder(FRAMES)
    expected = plain(FRAMES, (0, 8, 8), (0, 6, 6), (0, 4, 4))
    for frame in range(4):
        found = decoder.pixels(frame=frame)
        assert found.dtype == np.uint16
        assert np.array_equal(found, expected[:, :, frame])
    assert len({decoder.pixels(frame=frame).tobytes() for frame in range(4)}) == 4


def test_golden_pixels():
    # They shall never change: a file shows the same picture for ever.
    digests = [
        hashlib.sha256(PixelDecoder(scene).pixels().tobytes()).hexdigest()[:16]
        for scene in (PICTURE, FRAMES)
    ]
    assert digests == ["857fc644badc3bb0", "7c7e02ee31fd2ea2"]


def test_bands_do_not_show(monkeypatch):
    expected = PixelDecoder(PICTURE).pixels()
    monkeypatch.setattr(decoding, "_BAND_PIXELS", 40)
    assert np.array_equal(PixelDecoder(PICTURE).pixels(), expected)


def test_smaller_is_the_mean_of_what_is_there():
    decoder = PixelDecoder(PICTURE)
    fine = decoder.pixels((0, 0, 15, 10), (15, 10)).astype(int)
    blocks = fine.reshape(5, 2, 5, 3, 4).sum((1, 3))
    found = decoder.pixels((0, 0, 15, 10), (5, 5))
    assert np.array_equal(found, (2 * blocks + 6) // 12)


def test_a_part_is_what_the_whole_has_there():
    decoder = PixelDecoder(PICTURE)
    assert np.array_equal(decoder.pixels((3, 2, 9, 9)), decoder.pixels()[2:9, 3:9])


def test_a_shortened_file_shows_its_levels():
    coarse = decode_scene(truncate(encode_scene(PICTURE), max_level=1))
    symbols = PICTURE.symbols.copy()
    symbols[PICTURE.grid.offsets[2] :] = 0
    same = PackedScene(
        "image", PICTURE.architecture, PICTURE.grid, symbols, weights=PICTURE.weights
    )
    assert np.array_equal(PixelDecoder(coarse).pixels(), PixelDecoder(same).pixels())


def test_nothing_but_zeros_is_one_colour():
    symbols = np.zeros_like(PICTURE.symbols)
    flat = PackedScene(
        "image", PICTURE.architecture, PICTURE.grid, symbols, weights=PICTURE.weights
    )
    assert len(np.unique(PixelDecoder(flat).pixels().reshape(-1, 4), axis=0)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "8 or 16 bits"),
        ({"channels": 5}, "channels from 1 to 4"),
        ({"channels": 3}, "3 channels"),
        ({"width": 0}, "width from 1"),
        ({"height": "ten"}, "height from 1"),
        ({"width": None}, "no 'width'"),
    ],
)
def test_heads_that_are_refused(change, message):
    architecture = {k: v for k, v in {**PICTURE.architecture, **change}.items() if v is not None}
    scene = PackedScene(
        "image", architecture, PICTURE.grid, PICTURE.symbols, weights=PICTURE.weights
    )
    with pytest.raises(SceneFormatError, match=message):
        PixelDecoder(scene)


@pytest.mark.parametrize("name", ["mlp.0.weight", "mlp.2.bias"])
def test_networks_that_are_refused(name):
    weights = {key: value for key, value in PICTURE.weights.items() if key != name}
    scene = PackedScene(
        "image", PICTURE.architecture, PICTURE.grid, PICTURE.symbols, weights=weights
    )
    with pytest.raises(SceneFormatError, match=r"layers mlp\.0"):
        PixelDecoder(scene)


def test_other_scenes_are_refused():
    with pytest.raises(SceneFormatError, match="a picture or a video, found a radiance_field"):
        PixelDecoder(make.tiny_scene())
    with pytest.raises(ValueError, match="a box within 15x10 pixels"):
        PixelDecoder(PICTURE).pixels((0, 0, 16, 10))
    with pytest.raises(ValueError, match="a frame from 0 to 3"):
        PixelDecoder(FRAMES).pixels(frame=4)


def test_layouts():
    layout = PixelLayout.of(FRAMES)
    assert layout.axes == (8, 6, 4) and layout.largest == 65535
    assert layout.frames_per_second == pytest.approx(29.97, abs=0.01)
    assert layout.architecture() == FRAMES.architecture
    with pytest.raises(ValueError, match="one frame in a picture"):
        PixelLayout(4, 4, frames=2)
