"""Whole files: saving, describing, verifying, truncating, comparing."""

import dataclasses

import make
import numpy as np
import pytest

from shacira_nerfstudio.codec import (
    QuantizedTensor,
    SceneFormatError,
    decode_scene,
    describe,
    diff,
    encode_scene,
    load_scene,
    save_scene,
    truncate,
    verify,
)
from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.file_tools import bytes_by_part
from shacira_nerfstudio.codec.sections.table import KNOWN

TINY = make.tiny_scene()
DATA = (make.FOLDER / f"{make.NAME}.shacira").read_bytes()  # of TINY, see test_golden.py


def test_levels_of_a_file_that_was_truncated():
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


def test_a_truncated_file_can_be_described():
    ends = describe(DATA)["prefix_bytes"]
    assert ends[-1] == len(DATA)
    for level, end in enumerate(ends[:-1]):
        report = describe(DATA[: end + 3], allow_truncated=True)
        assert report["is_truncated"] and report["num_levels_present"] == level + 1
        assert sum(report["bytes_by_part"].values()) == end + 3
        verify(DATA[: end + 3], allow_truncated=True)
        with pytest.raises(SceneFormatError):
            describe(DATA[: end + 3])
    assert not describe(DATA, allow_truncated=True)["is_truncated"]
    assert not describe(truncate(DATA, max_level=1))["is_truncated"]
    sections = {s.tag: bytes(s.payload) for s in unpack_sections(DATA, known=KNOWN)}
    other = sections["WGTS"].replace(b"\x00\x00\x00\x80\x3d", b"\x00\x00\x00\x80\x3e")
    assert other != sections["WGTS"]
    verify(with_sections(DATA, WGTS=other)[:-1], allow_truncated=True)


def test_levels_know_what_they_cost_and_give():
    report = describe(DATA)
    assert report["prefix_psnr"] == [12, 18.5, 21.25, 24, 25.99]
    bits = zip(report["bits_per_latent_by_level"], report["table_sizes"], strict=True)
    assert sum(b * size * TINY.latent_dim for b, size in bits) == pytest.approx(
        8 * sum(report["bytes_by_level"])
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
    report = describe(DATA)
    assert sum(report["bytes_by_part"].values()) == report["bytes"] == len(DATA)
    assert report["bytes_by_part"] == bytes_by_part(DATA) != {}
    assert list(bytes_by_part(DATA)) == [
        *("head", "grid", "occupancy", "weights", "other", "latents")
    ]
    coded = report["bytes_by_part"]["latents"]
    assert coded == sum(report["bytes_by_level"]) == report["stream_bytes"] + report["table_bytes"]
    assert coded == sum(size for tag, size in report["sections"] if tag == "LATN")
    assert report["version"] == 1
    assert report["kind"] == "radiance_field"
    assert report["resolutions"][1] == [6, 6, 6]
    assert report["num_latents"] == TINY.symbols.size
    assert report["bits_per_latent"] == 8 * coded / TINY.symbols.size
    assert report["bits_per_reached_latent"] > report["bits_per_latent"]
    assert report["meta"]["licence"] == "CC0-1.0"
    assert len(report["digest"]) == 64


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


def test_diff_says_what_differs():
    assert diff(TINY, make.tiny_scene()) == {}
    symbols = TINY.symbols.copy()
    symbols[np.flatnonzero(symbols[:, 0])[0], 0] += 2
    weights = dict(TINY.weights)
    scale = weights.pop("latent_decoder.scale")
    weights["color_mlp.0.bias"] = dataclasses.replace(
        weights["color_mlp.0.bias"], steps=np.full(8, 0.0625, np.float32)
    )
    other = dataclasses.replace(
        TINY, symbols=symbols, occupancy=None, weights=weights, cameras=None, meta={}
    )
    assert diff(TINY, other) == {
        "meta": f"{TINY.meta} and {{}}",
        "cameras": "2 and 0 cameras, not the same",
        "symbols": f"1 of {symbols.size:,} differ, at most by 2",
        "occupancy": "there in the first file only",
        "weights.color_mlp.0.bias": "other steps, same values",
        "weights.latent_decoder.scale": "there in the first file only",
    }
    half = dataclasses.replace(TINY, weights={**TINY.weights, "latent_decoder.scale": scale})
    assert diff(half, TINY) == {}
