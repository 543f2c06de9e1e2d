"""Whatever byte of a picture or a video is wrong: an error, or the same pixels. Never others."""

import make
import numpy as np
import pytest

from shacira_nerfstudio.codec import SceneFormatError, decode_scene, encode_scene
from shacira_nerfstudio.pictures.decoder import PixelDecoder

SCENES = {"picture": make.tiny_picture(), "video": make.tiny_frames()}
FLIPS = (0x01, 0xFF)


def pixels(data):
    decoder = PixelDecoder(decode_scene(data))
    return np.stack([decoder.pixels(frame=frame) for frame in range(decoder.layout.frames)])


@pytest.mark.parametrize("kind", SCENES)
def test_every_byte(kind):
    data = encode_scene(SCENES[kind])
    truth, refused = pixels(data), 0
    for position in range(len(data)):
        for flip in FLIPS:
            broken = bytearray(data)
            broken[position] ^= flip
            try:
                found = pixels(bytes(broken))
            except SceneFormatError:
                refused += 1
            else:
                assert np.array_equal(found, truth), position
    assert refused > 0.9 * len(FLIPS) * len(data)


@pytest.mark.parametrize("kind", SCENES)
def test_every_length(kind):
    data = encode_scene(SCENES[kind])
    for length in range(len(data)):
        with pytest.raises(SceneFormatError):
            pixels(data[:length])
    with pytest.raises(SceneFormatError):
        pixels(data + b"\0")
