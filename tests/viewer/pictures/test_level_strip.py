"""What each level adds: the pictures are those of shortened files, the numbers those of `info`."""

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic_ball import make_ball

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import decode_scene, describe, encode_scene, truncate
from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene
from shacira_nerfstudio.viewer.pictures.level_strip import level_pictures, write_level_strip


@pytest.fixture(scope="module")
def packed():
    return make_ball()


def unpacked(packed):
    return unpack_scene(packed, get_backend("reference", "cpu"))


def test_pictures_are_those_of_shortened_files(packed):
    scene, camera = unpacked(packed), stored_cameras(packed.cameras)[0]
    pictures = level_pictures(scene, camera, 3)
    assert len(pictures) == 4 and scene.encoding.max_level == 3
    for level in range(3):
        shorter = decode_scene(truncate(encode_scene(packed), max_level=level))
        shown = unpacked(shorter).render_view(camera).numpy()
        assert np.abs(pictures[level + 1] - shown).max() < 1e-6
    assert not np.array_equal(pictures[1], pictures[3])


def test_what_is_shown_is_left_as_it_was(packed):
    scene, camera = unpacked(packed), stored_cameras(packed.cameras)[0]
    scene.encoding.max_level = 2
    level_pictures(scene, camera, 3)
    assert scene.encoding.max_level == 2


def test_strip_has_a_cell_per_level(packed, tmp_path):
    data = encode_scene(packed)
    camera = stored_cameras(packed.cameras)[0]
    write_level_strip(
        tmp_path / "a.png", unpacked(packed), camera, describe(data), title="a", width=48
    )
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert pixels.shape[1] == 3 * (48 + 8) + 8
    # The first row of pictures begins with what the first level alone shows.
    first = level_pictures(unpacked(packed), camera.resized(width=48), 1)[1]
    found = pixels[38 : 38 + 32, 8 : 8 + 48] / 255
    assert np.abs(found - first).max() <= 0.5 / 255 + 1e-6


def test_a_file_without_levels_is_refused(packed, tmp_path):
    description = {**describe(encode_scene(packed)), "num_levels_present": 0}
    camera = stored_cameras(packed.cameras)[0]
    with pytest.raises(ValueError, match="expected a file with levels"):
        write_level_strip(tmp_path / "a.png", unpacked(packed), camera, description, title="a")
    assert torch.is_grad_enabled() and list(tmp_path.iterdir()) == []
