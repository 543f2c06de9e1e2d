"""FORMAT.md is complete: a decoder written from it alone finds what ours finds."""

import pathlib
import re
import struct

import make
import numpy as np
import plain_decoder
import pytest
from hypothesis import given
from strategies import modest, scenes

from shacira_nerfstudio import codec
from shacira_nerfstudio.codec import decode_scene, encode_scene

PAGE = (pathlib.Path(codec.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
GOLDEN = (pathlib.Path(make.__file__).parent / f"{make.NAME}.shacira").read_bytes()


def same(scene, found):
    assert np.array_equal(scene.symbols, np.array(found["symbols"]))
    grid = scene.grid
    assert found["levels"] == list(zip(grid.resolutions, grid.table_sizes, strict=True))
    assert found["head"]["kind"] == scene.kind
    if scene.occupancy is None:
        assert found["occupancy"] is None
    else:
        assert found["occupancy"] == (
            scene.occupancy.shape,
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


@pytest.mark.parametrize("name", sorted(make.SCENES))
def test_scenes_of_every_kind(name):
    scene = make.SCENES[name]()
    same(scene, plain_decoder.decode(encode_scene(scene)))


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
    from shacira_nerfstudio.codec import container, scene, scene_file
    from shacira_nerfstudio.codec.latents import context_model, level_kinds, level_section
    from shacira_nerfstudio.codec.sections import occupancy, table, weights

    assert container.VERSION == 1 and "version = 1" in TEXT
    assert container.MAX_CONTENTS == 4096 and "(1 … 4096)" in TEXT
    assert level_kinds.MAX_LOAD == 24 and "exceeds 24 T" in TEXT
    assert level_kinds.MAX_FEATURE_LOAD == 64 and "does not exceed 64 T" in TEXT
    assert level_kinds.MAX_FEATURE_VERTICES == 1 << 26 and "at most 2^26" in TEXT
    assert level_kinds.MAX_NEIGHBOUR_VERTICES == 1 << 28 and "at most 2^28" in TEXT
    assert level_kinds.MAX_WALKED == 1 << 28 and "exceed 2^28 together" in TEXT
    assert f"≤ {context_model.MAX_SCORE}" in TEXT
    assert scene_file.MAX_SYMBOLS == (1 << 24, 2048) and "max(2^24, 2048 · file bytes)" in TEXT
    assert scene_file.MAX_LEVEL == (1 << 20, 64) and "max(2^20, 64 · file bytes)" in TEXT
    assert scene_file.MAX_SLABS == (1 << 17, 8) and "max(2^17, 8 · file bytes)" in TEXT
    assert occupancy.MAX_FILE_CELLS == (1 << 21, 512) and "max(2^21, 512 · file bytes)" in TEXT
    assert scene.MAX_CELLS_PER_AXIS == 4096 and "1 ≤ G_a ≤ 4096" in TEXT
    assert level_section.MAX_TABLE_SYMBOLS == (1 << 17, 128)
    assert "≤ 2^17 + 128 · bytes of its bit" in TEXT
    assert weights.MAX_WEIGHTS == 1 << 22 and "2^22 values" in TEXT
    for row in table.SECTIONS:
        assert f"**{row.tag}**: " in TEXT or f"## 5. {row.tag}" in TEXT
    for code, kind in enumerate(scene.KINDS):
        assert f"{code} `{kind}`" in TEXT
