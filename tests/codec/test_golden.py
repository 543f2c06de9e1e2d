"""The golden files decode to what they always held, and encode to themselves."""

import json
import pathlib

import make
import numpy as np
import pytest

from shacira_nerfstudio.codec import decode_scene, describe, encode_scene, truncate, verify
from shacira_nerfstudio.codec.bitio import ByteReader
from shacira_nerfstudio.codec.container import unpack_sections
from shacira_nerfstudio.codec.sections.table import KNOWN

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in FOLDER.glob("*.shacira"))


@pytest.mark.parametrize("fast", [False, None])
@pytest.mark.parametrize("name", NAMES)
def test_golden_files(name, fast):
    data = (FOLDER / f"{name}.shacira").read_bytes()
    scene = decode_scene(data, fast=fast)
    assert json.loads(json.dumps(make.as_json(scene))) == json.loads(
        (FOLDER / f"{name}.json").read_text()
    )
    assert encode_scene(scene, fast=fast) == data
    verify(data)


def test_they_are_what_make_writes():
    assert sorted(make.SCENES) == NAMES
    for name, scene in make.SCENES.items():
        data = (FOLDER / f"{name}.shacira").read_bytes()
        assert encode_scene(scene()) == data
        assert decode_scene(data) == scene()
        assert len(data) < 20_000


def test_axes_of_different_resolutions():
    image, video = (make.SCENES[f"{make.NAME}_{kind}"]() for kind in ("image", "video"))
    for scene in (image, video):
        assert {scene.grid.is_dense(level) for level in range(4)} == {True, False}
        assert all(len(set(axes)) == scene.grid.num_dims for axes in scene.grid.resolutions)
    assert image.occupancy is None
    assert len(set(video.occupancy.shape)) == 3


def test_the_first_golden_file_shows_every_feature():
    data = (FOLDER / f"{make.NAME}.shacira").read_bytes()
    report = describe(data)
    assert [tag for tag, _ in report["sections"][:8]] == [
        *("HEAD", "GRID", "RNDR", "OCCU", "WGTS", "cams", "meta", "psnr")
    ]
    scene = decode_scene(data)
    assert {scene.grid.is_dense(level) for level in range(5)} == {True, False}
    assert report["reached_entries_by_level"] < report["table_sizes"]
    passes = [first_bit(section) for section in unpack_sections(data, known=KNOWN)[8:]]
    assert set(passes) == {"0", "1"}  # channels in one pass and in two
    # Classes pay: the same symbols shuffled within each level and channel take more bytes.
    rng = np.random.default_rng(0)
    shuffled = make.tiny_scene()
    for level in range(5):
        rows = shuffled.level_symbols(level)
        used = np.flatnonzero(rows.any(axis=1))
        for channel in range(2):
            rows[used, channel] = rng.permutation(rows[used, channel])
    assert sum(report["bytes_by_level"]) < sum(describe(encode_scene(shuffled))["bytes_by_level"])


def first_bit(section):
    """Of a level's bit string: whether its first channel has two passes."""
    reader = ByteReader(section.payload, section.tag)
    reader.take(1, "precision"), reader.varint("lanes"), reader.varint("bytes of tables")
    return f"{reader.byte('bits'):08b}"[0]


def test_a_shorter_golden_file():
    data = (FOLDER / f"{make.NAME}.shacira").read_bytes()
    shorter = decode_scene(truncate(data, max_level=2))
    full = decode_scene(data)
    end = full.grid.offsets[3]
    assert shorter.num_levels_present == 3
    assert np.array_equal(shorter.symbols[:end], full.symbols[:end])
    assert not shorter.symbols[end:].any()
