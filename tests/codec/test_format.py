"""FORMAT.md is complete: a decoder written from it alone finds what ours finds."""

import pathlib
import re
import struct

import make
import numpy as np
import plain_decoder
from hypothesis import given
from strategies import modest, scenes

from shacira_nerfstudio import codec
from shacira_nerfstudio.codec import decode_scene, encode_scene

PAGE = (pathlib.Path(codec.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
GOLDEN = (pathlib.Path(make.__file__).parent / f"{make.NAME}.shacira").read_bytes()


def same(scene, found):
    assert np.array_equal(scene.symbols, np.array(found["symbols"]))
    if scene.occupancy is None:
        assert found["occupancy"] is None
    else:
        assert found["occupancy"] == (
            len(scene.occupancy),
            set(map(tuple, np.argwhere(scene.occupancy).tolist())),
        )
    assert sorted(found["weights"]) == sorted(scene.weights)
    for name, tensor in scene.weights.items():
        plain = found["weights"][name]
        assert np.array_equal(tensor.values, np.array(plain["values"]).reshape(plain["shape"]))
        assert tensor.steps.tolist() == plain["steps"]
    if scene.cameras is not None:
        plain = found["cameras"]
        poses = np.array(plain["poses"]).reshape(-1, 3, 4)
        assert np.array_equal(scene.cameras.camera_to_worlds, poses)
        assert scene.cameras.intrinsics.tolist() == [list(optics[:4]) for optics in plain["optics"]]
        assert scene.cameras.sizes.tolist() == [list(optics[4:]) for optics in plain["optics"]]
    assert dict(scene.meta) == found["meta"]
    assert scene.prefix_psnr == found["prefix_psnr"]
    assert dict(scene.architecture) == found["head"]["architecture"]


def test_the_golden_file():
    scene = decode_scene(GOLDEN)
    found = plain_decoder.decode(GOLDEN)
    same(scene, found)
    numbers = struct.unpack("<2B14f", found["rendering"])
    assert numbers[:2] == (0, 3)
    assert numbers[8:10] == (scene.rendering.near, scene.rendering.far)


@modest(12)
@given(scene=scenes())
def test_any_scene(scene):
    same(scene, plain_decoder.decode(encode_scene(scene)))


def test_the_worked_example_is_the_golden_file():
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} )+)", PAGE, flags=re.MULTILINE)
    assert len(lines) > 10
    for offset, text in lines:
        data = bytes.fromhex(text)
        assert GOLDEN[int(offset, 16) : int(offset, 16) + len(data)] == data
    assert f"({len(GOLDEN)} bytes" in PAGE


def test_limits_on_the_page_are_those_of_the_code():
    from shacira_nerfstudio.codec import scene_file
    from shacira_nerfstudio.codec.latents import features as contexts
    from shacira_nerfstudio.codec.latents import level_section as latents
    from shacira_nerfstudio.codec.latents import context_model as pass_model
    from shacira_nerfstudio.codec.sections import grid_and_rendering as side_info

    assert contexts.MAX_LOAD == 24 and "exceeds 24 T" in PAGE
    assert contexts.MAX_DESCRIBED_LOAD == 64 and "does not exceed 64 T" in PAGE
    assert contexts.MAX_DESCRIBED == 1 << 26 and "at most 2^26 vertices together" in PAGE
    assert contexts.MAX_NEIGHBOURS == 1 << 28 and "at most 2^28 together" in PAGE
    assert contexts.MAX_WALKED == 1 << 28 and "more than 2^28 vertices" in PAGE
    assert all(f"≤ {most}" in PAGE for most in pass_model.MAX_SCORES)
    assert scene_file.MAX_SYMBOLS == (1 << 24, 2048) and "max(2^24, 2048 · file bytes)" in PAGE
    assert scene_file.MAX_LEVEL == (1 << 20, 64) and "max(2^20, 64 · file bytes)" in PAGE
    assert scene_file.MAX_OCCUPANCY == (1 << 21, 128) and "max(2^21, 128 · file bytes)" in PAGE
    assert latents.MAX_LETTERS == (1 << 17, 128) and "≤ 2^17 + 128 · bytes of its bit" in PAGE
    assert side_info.MAX_WEIGHTS == 1 << 22 and "2^22 values" in PAGE
