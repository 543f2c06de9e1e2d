"""Scenes to bytes and back, whole and shortened; saving; what the facts about a file say."""

import dataclasses
import json

import make
import numpy as np
import pytest
from hypothesis import given
from strategies import modest, scenes

from shacira_nerfstudio.codec import (
    CameraSet,
    PackedScene,
    QuantizedTensor,
    RenderSettings,
    SceneFormatError,
    decode_scene,
    describe,
    encode_scene,
    load_scene,
    save_scene,
    truncate,
    verify,
)
from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.scene_file import KNOWN
from shacira_nerfstudio.grid import GridSpec

TINY = make.tiny_scene()
DATA = encode_scene(TINY)


@pytest.mark.parametrize("version", [1, 2])
@modest(10)
@given(scene=scenes())
def test_older_versions_are_written_and_read(version, scene):
    data = encode_scene(scene, version=version)
    assert data[4] == describe(data)["version"] == version
    assert decode_scene(data) == scene
    assert encode_scene(scene, version=version, fast=False) == data
    verify(data)
    shorter = truncate(data, max_level=0)
    assert shorter[4] == version
    verify(shorter)
    assert len(encode_scene(scene)) < len(data)
    with pytest.raises(ValueError, match="version 1 to 3, got 4"):
        encode_scene(scene, version=4)


@modest(20)
@given(scene=scenes())
def test_round_trip(scene):
    data = encode_scene(scene)
    again = decode_scene(data)
    assert again == scene
    assert encode_scene(again) == data
    json.dumps(describe(data))


def test_order_of_dicts_does_not_matter():
    def reversed_dict(facts):
        return dict(reversed(list(facts.items())))

    other = dataclasses.replace(
        TINY,
        architecture=reversed_dict(TINY.architecture),
        weights=reversed_dict(TINY.weights),
        meta=reversed_dict(TINY.meta),
    )
    assert other == TINY
    assert encode_scene(other) == DATA


def test_levels_of_a_file_that_was_cut_off():
    sections = unpack_sections(DATA, known=KNOWN)
    ends = [s.offset + len(s.payload) for s in sections if s.tag == "LATN"]
    for length in (ends[0], ends[1], ends[1] + 1, ends[3] + 5, len(DATA) - 1):
        with pytest.raises(SceneFormatError):
            decode_scene(DATA[:length])
        scene = decode_scene(DATA[:length], allow_truncated=True)
        count = sum(length >= end for end in ends)
        assert scene.num_levels_present == count
        shorter = truncate(DATA, max_level=count - 1)
        assert decode_scene(shorter) == scene
        assert encode_scene(scene) == shorter == truncate(DATA[:length])
        verify(shorter)
    assert decode_scene(DATA, allow_truncated=True) == TINY
    with pytest.raises(SceneFormatError):
        decode_scene(DATA[: ends[0] - 1], allow_truncated=True)


def test_a_file_that_was_cut_off_can_be_looked_at():
    ends = describe(DATA)["prefix_bytes"]
    assert ends[-1] == len(DATA)
    for level, end in enumerate(ends[:-1]):
        facts = describe(DATA[: end + 3], allow_truncated=True)
        assert facts["is_cut_off"] and facts["num_levels_present"] == level + 1
        assert sum(facts["bytes_by_part"].values()) == end + 3
        verify(DATA[: end + 3], allow_truncated=True)
        with pytest.raises(SceneFormatError):
            describe(DATA[: end + 3])
    assert not describe(DATA, allow_truncated=True)["is_cut_off"]
    assert not describe(truncate(DATA, max_level=1))["is_cut_off"]
    sections = {s.tag: bytes(s.payload) for s in unpack_sections(DATA, known=KNOWN)}
    other = sections["WGTS"].replace(b"\x00\x00\x00\x80\x3d", b"\x00\x00\x00\x80\x3e")
    assert other != sections["WGTS"]
    verify(with_sections(DATA, WGTS=other)[:-1], allow_truncated=True)


def test_levels_know_what_they_cost_and_give():
    facts = describe(DATA)
    assert facts["prefix_psnr"] == [12, 18.5, 21.25, 24, 25.99]
    bits = zip(facts["bits_per_latent_by_level"], facts["table_sizes"], strict=True)
    assert sum(b * size * TINY.latent_dim for b, size in bits) == pytest.approx(
        8 * sum(facts["bytes_by_level"])
    )
    shorter = truncate(DATA, max_level=1)
    assert decode_scene(shorter).prefix_psnr == TINY.prefix_psnr
    with pytest.raises(SceneFormatError, match="psnr"):
        decode_scene(with_sections(DATA, psnr=b"\0" * 8))


def test_truncate_to_a_size():
    sizes = [len(truncate(DATA, max_level=level)) for level in range(5)]
    assert sizes == sorted(sizes)
    assert sizes[4] == len(DATA)
    for level in range(5):
        assert len(truncate(DATA, max_bytes=sizes[level])) == sizes[level]
    assert len(truncate(DATA, max_bytes=sizes[2] - 1)) == sizes[1]
    assert len(truncate(DATA, max_level=0, max_bytes=10**9)) == sizes[0]
    with pytest.raises(ValueError, match="max_bytes"):
        truncate(DATA, max_bytes=sizes[0] - 1)
    with pytest.raises(ValueError, match="max_level"):
        truncate(DATA, max_level=5)


def test_describe():
    facts = describe(DATA)
    assert sum(facts["bytes_by_part"].values()) == facts["bytes"] == len(DATA)
    by_part = facts["bytes_by_part"]
    assert set(by_part) == {*("head", "grid", "occupancy", "weights", "latents", "tables", "other")}
    assert sum(facts["bytes_by_level"]) == by_part["latents"] + by_part["tables"]
    assert facts["version"] == 3
    assert facts["num_latents"] == TINY.symbols.size
    coded = by_part["latents"] + by_part["tables"]
    assert facts["bits_per_latent"] == 8 * coded / TINY.symbols.size
    assert facts["bits_per_reached_latent"] > facts["bits_per_latent"]
    assert facts["meta"]["licence"] == "CC0-1.0"
    assert len(facts["digest"]) == 64


def test_unknown_sections_that_may_be_skipped():
    sections = [(s.tag, bytes(s.payload)) for s in unpack_sections(DATA, known=KNOWN)]
    for position in (1, 7, len(sections)):
        data = pack_sections([*sections[:position], ("note", b"hello"), *sections[position:]])
        assert decode_scene(data) == TINY
        verify(data)
        assert b"hello" in truncate(data, max_level=1)


def test_verify_wants_the_canonical_encoding():
    sections = {s.tag: bytes(s.payload) for s in unpack_sections(DATA, known=KNOWN)}
    longer = sections["OCCU"][:1] + b"\x81\x00" + sections["OCCU"][2:]
    assert sections["OCCU"][1] == 1
    with pytest.raises(SceneFormatError, match="shortest form"):
        verify(with_sections(DATA, OCCU=longer))
    # The same steps, stored once per row although they are all equal.
    tensor = QuantizedTensor(np.ones((2, 1), dtype=np.int16), np.ones(2, dtype=np.float32))
    data = encode_scene(dataclasses.replace(TINY, weights={"w": tensor}))
    head, tail = b"\x01\x01w\x02\x02\x01", np.float32(1).tobytes()
    canonical = {s.tag: bytes(s.payload) for s in unpack_sections(data, known=KNOWN)}["WGTS"]
    assert canonical.startswith(head + b"\x02" + tail)
    other = head + b"\x01" + 2 * tail + canonical[len(head) + 5 :]
    data = with_sections(data, WGTS=other)
    assert decode_scene(data).weights["w"] == tensor
    with pytest.raises(SceneFormatError, match="WGTS: expected the canonical encoding"):
        verify(data)


def with_sections(data, **payloads):
    """``data`` with the first section of each given tag replaced, CRCs made right."""
    sections = []
    for section in unpack_sections(data, known=KNOWN):
        sections.append((section.tag, payloads.pop(section.tag, bytes(section.payload))))
    return pack_sections(sections)


def test_save_and_load(tmp_path):
    path = tmp_path / "scene.shacira"
    assert save_scene(path, TINY) == len(DATA)
    assert path.read_bytes() == DATA
    assert load_scene(path) == TINY
    assert save_scene(str(path), DATA[:900]) == 900
    assert load_scene(path, allow_truncated=True).num_levels_present == 2
    assert [p.name for p in tmp_path.iterdir()] == ["scene.shacira"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "scene.shacira"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_scene(path, TINY)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_symbols_nobody_reads_must_be_zero():
    symbols = TINY.symbols.copy()
    unread = np.flatnonzero(~symbols.any(axis=1))
    symbols[unread] = 1
    with pytest.raises(ValueError, match="nothing reaches"):
        encode_scene(dataclasses.replace(TINY, symbols=symbols))


def test_weights_dequantize_by_row_or_as_a_whole():
    values = np.array([[1, -2], [3, 4]], dtype=np.int16)
    by_row = QuantizedTensor(values, np.array([0.5, 2], dtype=np.float32))
    assert by_row.dequantize().tolist() == [[0.5, -1], [6, 8]]
    whole = QuantizedTensor(values, np.array([0.5], dtype=np.float32))
    assert whole.dequantize().dtype == np.float32
    assert whole.dequantize().tolist() == [[0.5, -1], [1.5, 2]]


def test_numbers_become_float32():
    rendering = dataclasses.replace(TINY.rendering, step_size=0.1)
    assert rendering.step_size == float(np.float32(0.1)) != 0.1


BAD = {
    "kind": {"kind": "image"},
    "prefix_psnr": {"prefix_psnr": (1, 2, 3, 4)},
    "prefix_psnr ": {"prefix_psnr": (1, 2, 3, 4, 1 << 16)},
    "levels present": {"num_levels_present": 5},
    "symbols 0 in levels": {"num_levels_present": 2},
    "symbols as int16": {"symbols": TINY.symbols.astype(np.int32)},
    "symbols as int16 ": {"symbols": TINY.symbols[:-1]},
    "channels": {"symbols": TINY.symbols[:, :0]},
    "4095": {"symbols": np.full_like(TINY.symbols, 4096)},
    "occupancy": {"occupancy": TINY.occupancy[:, :5]},
    "occupancy ": {"occupancy": TINY.occupancy.astype(np.uint8)},
    "named": {"weights": {"A": TINY.weights["color_mlp.0.bias"]}},
    "architecture keys": {"architecture": {"Width": 1}},
    "architecture.width": {"architecture": {"width": 1.5}},
    "architecture.name": {"architecture": {"name": "é"}},
    "meta.flag": {"meta": {"flag": True}},
    "meta.big": {"meta": {"big": 2**53}},
    "box of 3 axes": {
        "rendering": dataclasses.replace(
            TINY.rendering, box=np.array([[0, 0], [1, 1]], dtype=np.float32)
        )
    },
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_scene(message):
    with pytest.raises(ValueError, match=message.strip()):
        dataclasses.replace(TINY, **BAD[message])


@pytest.mark.parametrize(
    "change",
    [
        {"contraction": "none"},
        {"background": "pink"},
        {"near": -1.0},
        {"far": 0.1},
        {"far": float("inf")},
        {"step_size": 0.0},
        {"knee": -1.0},
        {"early_stop": 1.0},
        {"background_color": (0.0, 0.0, 2.0)},
        {"background_color": (0.0, 0.0)},
        {"box": np.zeros((2, 3), dtype=np.float32)},
        {"box": np.zeros((2, 3))},
    ],
)
def test_what_are_no_render_settings(change):
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(TINY.rendering, **change)


def test_what_are_no_tensors_and_cameras():
    one = np.ones(1, dtype=np.float32)
    for values, steps in (
        (np.zeros(3), one),
        (np.zeros(0, dtype=np.int16), one),
        (np.full(3, 2048, dtype=np.int16), one),
        (np.zeros(3, dtype=np.int16), -one),
        (np.zeros(3, dtype=np.int16), one * np.nan),
        (np.zeros(3, dtype=np.int16), np.ones(2, dtype=np.float32)),
        (np.zeros((1, 1, 1, 1), dtype=np.int16), one),
    ):
        with pytest.raises(ValueError, match="expected"):
            QuantizedTensor(values, steps)
    cameras = TINY.cameras
    for change in ({"intrinsics": cameras.intrinsics[:1]}, {"sizes": cameras.sizes.astype(int)}):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(cameras, **change)
    with pytest.raises(ValueError, match="cameras"):
        CameraSet(np.zeros((0, 3, 4), dtype="f4"), np.zeros((0, 4)), np.zeros((0, 2)))


def test_equality_is_by_content():
    assert decode_scene(DATA) == TINY
    assert dataclasses.replace(TINY, meta={}) != TINY
    assert dataclasses.replace(TINY, rendering=None) != TINY
    assert TINY != "scene"
    assert isinstance(TINY.rendering, RenderSettings)


def test_an_image_without_occupancy():
    grid = GridSpec.create(num_dims=2, num_levels=5, base_res=8, max_res=200, log2_hashmap_size=11)
    rng = np.random.default_rng(0)
    symbols = np.round(rng.laplace(size=(grid.num_entries, 1))).astype(np.int16)
    scene = PackedScene("image", {"width": 16}, grid, symbols, None, {})
    data = encode_scene(scene)
    assert decode_scene(data) == scene
    assert describe(data)["bits_per_latent"] == describe(data)["bits_per_reached_latent"]
