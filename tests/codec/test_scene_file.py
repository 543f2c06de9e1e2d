"""Scenes to bytes and back: whatever kind, shape and parts they have."""

import dataclasses
import json
import subprocess
import sys

import make
import numpy as np
import pytest
from hypothesis import given
from strategies import modest, scenes

from shacira_nerfstudio.codec import (
    PackedScene,
    SceneFormatError,
    decode_scene,
    describe,
    encode_scene,
    truncate,
    verify,
)
from shacira_nerfstudio.codec.scene_file import encode_side_sections
from shacira_nerfstudio.codec.sections.table import SECTIONS
from shacira_nerfstudio.grid import GridSpec

TINY = make.tiny_scene()
DATA = (make.FOLDER / f"{make.NAME}.shacira").read_bytes()  # of TINY, see test_golden.py


@modest(20)
@given(scene=scenes())
def test_round_trip(scene):
    data = encode_scene(scene)
    again = decode_scene(data)
    assert again == scene
    assert encode_scene(again) == data
    json.dumps(describe(data))


@pytest.mark.parametrize("name", sorted(make.SCENES))
def test_made_up_scenes_of_every_kind(name):
    scene = make.SCENES[name]()
    data = encode_scene(scene)
    assert decode_scene(data) == scene
    verify(data)
    for level in range(scene.grid.num_levels - 1):
        shorter = truncate(data, max_level=level)
        verify(shorter)
        end = scene.grid.offsets[level + 1]
        assert np.array_equal(decode_scene(shorter).symbols[:end], scene.symbols[:end])


@pytest.mark.parametrize("name", [f"{make.NAME}_image", f"{make.NAME}_video"])
def test_every_flipped_byte_and_every_length(name):
    data = encode_scene(make.SCENES[name]())
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1 + position % 255
        for damaged in (broken, data[:position]):
            with pytest.raises(SceneFormatError):
                decode_scene(damaged)


def test_side_sections_come_from_the_table_in_its_order():
    assert list(encode_side_sections(TINY)) == [row.tag for row in SECTIONS]
    bare = PackedScene("image", {}, GridSpec(2, ((2, 3),), (8,)), np.zeros((8, 1), np.int16))
    assert list(encode_side_sections(bare)) == ["HEAD", "GRID", "WGTS"]


def test_the_package_reads_a_file_without_torch(tmp_path):
    path = tmp_path / "scene.shacira"
    path.write_bytes(DATA)
    code = f"""
import sys, shacira_nerfstudio
assert "numpy" not in sys.modules
assert set(shacira_nerfstudio.__all__) <= set(dir(shacira_nerfstudio))
scene = shacira_nerfstudio.load_scene({str(path)!r})
assert isinstance(scene, shacira_nerfstudio.PackedScene)
assert issubclass(shacira_nerfstudio.SceneFormatError, ValueError)
shacira_nerfstudio.save_scene({str(path)!r}, scene)
assert "torch" not in sys.modules
try:
    shacira_nerfstudio.nothing
except AttributeError:
    print(scene.kind, shacira_nerfstudio.__version__)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("radiance_field 0.")
    assert path.read_bytes() == DATA


def test_order_of_dicts_does_not_matter():
    def reversed_dict(mapping):
        return dict(reversed(list(mapping.items())))

    other = dataclasses.replace(
        TINY,
        architecture=reversed_dict(TINY.architecture),
        weights=reversed_dict(TINY.weights),
        meta=reversed_dict(TINY.meta),
    )
    assert other == TINY
    assert encode_scene(other) == DATA


def test_symbols_nobody_reads_must_be_zero():
    symbols = TINY.symbols.copy()
    unread = np.flatnonzero(~symbols.any(axis=1))
    symbols[unread] = 1
    with pytest.raises(ValueError, match="nothing reaches"):
        encode_scene(dataclasses.replace(TINY, symbols=symbols))


def test_an_image_without_occupancy():
    grid = GridSpec.create(num_dims=2, num_levels=5, base_res=8, max_res=200, log2_hashmap_size=11)
    rng = np.random.default_rng(0)
    symbols = np.round(rng.laplace(size=(grid.num_entries, 1))).astype(np.int16)
    scene = PackedScene("image", {"width": 16}, grid, symbols, None, {})
    data = encode_scene(scene)
    assert decode_scene(data) == scene
    assert describe(data)["bits_per_latent"] == describe(data)["bits_per_reached_latent"]
